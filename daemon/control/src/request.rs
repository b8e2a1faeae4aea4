//! What the admin tool asks.
//!
//! *Guarantees*: a field this version does not know refuses the request: a filter that is not
//! understood must not widen what a request does.

use serde::{Deserialize, Serialize};

use crate::acts::{
    Act, ConfigAct, LogFilter, QueueAct, Rehearse, Rule, Test, TopsFilter, WhyFilter,
};
use crate::hint::{Hint, HintField};
use crate::ladder::XdpRequest;
use crate::limits::{
    ADDRESS_OCTETS_MAX, HINT_FIELDS_MAX, HINTS_LOAD_MAX, HINTS_PAGE_MAX, ID_OCTETS_MAX,
    NAME_OCTETS_MAX,
};
use crate::speaker::{Role, Speaker};
use crate::text::{List, Text};

/// One request; the names on the wire are those of the variants in kebab case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", content = "with", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Request {
    /// What runs there.
    Version,
    /// How it is doing.
    Status,
    /// The ledger, in recipients.
    Ledger,
    /// The Prometheus page.
    Metrics,
    /// Messages in the queue, a page at a time.
    QueueList(QueueFilter),
    /// One message with its recipients.
    QueueShow {
        /// Its id, with `.n` or without.
        id: Text<ID_OCTETS_MAX>,
    },
    /// Read the config again, as a whole or not at all.
    Reload,
    /// Stop taking connections, finish what is open, then stop.
    Drain,
    /// Say or set how much is logged.
    LogLevel {
        /// `None`: only say.
        level: Option<Level>,
    },
    /// Hints, a page at a time.
    HintsList(HintsFilter),
    /// One hint.
    HintsGet(HintKey),
    /// Forget one hint.
    HintsDelete(HintKey),
    /// Set fields of one hint; it is made if there is none.
    HintsSet {
        /// Which.
        of: HintKey,
        /// What.
        fields: List<HintField, HINT_FIELDS_MAX>,
        /// How long it lives, seconds.
        life_s: u64,
    },
    /// Puts hints of a dump back.
    HintsLoad {
        /// As they were listed.
        hints: List<Hint, HINTS_LOAD_MAX>,
    },
    /// Drop what has expired.
    HintsTidy,
    /// Take in devices of the spool that came back, or new ones in their place.
    SpoolFill,
    /// Take in the mail of a mirror's half that went on alone; then that half is emptied and
    /// filled.
    SpoolTakeIn {
        /// Do it; else it is only said.
        yes: bool,
    },
    /// The ladder and its filter.
    Xdp(XdpRequest),
    /// What is known of a message, an address or a client.
    Why(WhyFilter),
    /// Lines of the log files.
    LogGrep(LogFilter),
    /// The queue in few lines, by next hop.
    QueueSummary,
    /// Something is done to messages.
    QueueAct(QueueAct),
    /// A part of a message as it will be sent: 0 is the header.
    QueueRead {
        /// Which.
        id: Text<ID_OCTETS_MAX>,
        /// Which part.
        part: u32,
    },
    /// The standing orders of the operator.
    Rules,
    /// Gives or takes back a standing order.
    Rule(Rule),
    /// What every connection is at.
    Sessions,
    /// Certificates and their end.
    Certificates,
    /// What the last events come to, by client, next hop or domain.
    Tops(TopsFilter),
    /// Looks something up or tries it.
    Test(Test),
    /// Plays a session.
    Session(Rehearse),
    /// Looks at configs, changes them.
    Config(ConfigAct),
    /// Writes down every line of some sessions for some seconds; see `why`.
    Trace {
        /// Whose: an address or network, a session's id, a recipient, or `@` and its domain.
        what: Text<ADDRESS_OCTETS_MAX>,
        /// How long; 0: no more.
        seconds: u32,
    },
    /// Mail is about to come in by the daemon's own port; the answer says where that is.
    Submit(Submit),
    /// The machine's init takes another version of the whole image, and tries it.
    Upgrade(Upgrade),
    /// Whose requests follow on this connection; once, and for good.
    As(Speaker),
}

/// Mail that the admin tool is about to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// A message of another spool; else a trial.
    pub import: bool,
    /// Its sender; empty: the null sender.
    pub sender: Text<ADDRESS_OCTETS_MAX>,
    /// Its first recipient.
    pub recipient: Text<ADDRESS_OCTETS_MAX>,
    /// How many it has.
    pub recipients: u32,
    /// Octets of it.
    pub octets: u64,
}

/// Another version of the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upgrade {
    /// Its manifest: a path on the machine or `http://...`.
    pub manifest: Text<ADDRESS_OCTETS_MAX>,
    /// An older version is meant.
    pub downgrade: bool,
    /// It waits for the next start.
    pub later: bool,
}

impl Request {
    /// The name on the wire.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Status => "status",
            Self::Ledger => "ledger",
            Self::Metrics => "metrics",
            Self::QueueList(_) => "queue-list",
            Self::QueueShow { .. } => "queue-show",
            Self::Reload => "reload",
            Self::Drain => "drain",
            Self::LogLevel { .. } => "log-level",
            Self::HintsList(_) => "hints-list",
            Self::HintsGet(_) => "hints-get",
            Self::HintsDelete(_) => "hints-delete",
            Self::HintsSet { .. } => "hints-set",
            Self::HintsLoad { .. } => "hints-load",
            Self::HintsTidy => "hints-tidy",
            Self::SpoolFill => "spool-fill",
            Self::SpoolTakeIn { .. } => "spool-take-in",
            Self::Xdp(_) => "xdp",
            Self::Why(_) => "why",
            Self::LogGrep(_) => "log-grep",
            Self::QueueSummary => "queue-summary",
            Self::QueueAct(_) => "queue-act",
            Self::QueueRead { .. } => "queue-read",
            Self::Rules => "rules",
            Self::Rule(_) => "rule",
            Self::Sessions => "sessions",
            Self::Certificates => "certificates",
            Self::Tops(_) => "tops",
            Self::Test(_) => "test",
            Self::Session(_) => "session",
            Self::Config(_) => "config",
            Self::Trace { .. } => "trace",
            Self::Submit(_) => "submit",
            Self::Upgrade(_) => "upgrade",
            Self::As(_) => "as",
        }
    }

    /// Whether somebody with this role may ask it.
    #[must_use]
    pub const fn is_for(&self, role: Role) -> bool {
        match role {
            Role::Admin => true,
            Role::Operator => {
                self.is_read_only()
                    || matches!(
                        self,
                        Self::QueueAct(QueueAct { act: Act::Retry, .. })
                            | Self::Trace { .. }
                            | Self::Submit(Submit { import: false, .. })
                            | Self::Test(_)
                            | Self::As(_)
                    )
            }
        }
    }

    /// Whether it only looks: such requests may be allowed to more users.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        if let Self::Xdp(request) = self {
            return request.is_read_only();
        }
        matches!(
            self,
            Self::Version
                | Self::Status
                | Self::Ledger
                | Self::Metrics
                | Self::QueueList(_)
                | Self::QueueShow { .. }
                | Self::LogLevel { level: None }
                | Self::HintsList(_)
                | Self::HintsGet(_)
                | Self::Why(_)
                | Self::LogGrep(_)
                | Self::QueueSummary
                | Self::Rules
                | Self::Sessions
                | Self::Certificates
                | Self::Tops(_)
                | Self::Test(Test::Route(_) | Test::Verify(_) | Test::Dns(_) | Test::Spf { .. })
                | Self::Session(_)
                | Self::Config(
                    ConfigAct::Show(_)
                        | ConfigAct::Explain(_)
                        | ConfigAct::Check(_)
                        | ConfigAct::History
                )
        )
    }
}

/// The requests this version knows, by name.
pub(crate) const NAMES: [&str; 35] = [
    "version",
    "status",
    "ledger",
    "metrics",
    "queue-list",
    "queue-show",
    "reload",
    "drain",
    "log-level",
    "hints-list",
    "hints-get",
    "hints-delete",
    "hints-set",
    "hints-load",
    "hints-tidy",
    "spool-fill",
    "spool-take-in",
    "xdp",
    "why",
    "log-grep",
    "queue-summary",
    "queue-act",
    "queue-read",
    "rules",
    "rule",
    "sessions",
    "certificates",
    "tops",
    "test",
    "session",
    "config",
    "trace",
    "submit",
    "upgrade",
    "as",
];

/// Which messages; all conditions must hold. Text conditions are parts of what they look at,
/// without regard to case. Conditions that came later are not sent where they are not set: an older
/// daemon refuses what it does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueFilter {
    /// Part of the sender's address; `<>` is the null sender.
    pub sender: Option<Text<ADDRESS_OCTETS_MAX>>,
    /// Part of a recipient's address.
    pub recipient: Option<Text<ADDRESS_OCTETS_MAX>>,
    /// Part of the next hop's name.
    pub next_hop: Option<Text<ADDRESS_OCTETS_MAX>>,
    /// At least so old, seconds.
    pub age_s_min: Option<u64>,
    /// Tried at least so often.
    pub tries_min: Option<u32>,
    /// Not older, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_s_max: Option<u64>,
    /// At least so large, octets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_min: Option<u64>,
    /// Not larger, octets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_max: Option<u64>,
    /// The domain of a recipient that waits, as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<Text<ADDRESS_OCTETS_MAX>>,
    /// Part of what the last attempt came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Text<ADDRESS_OCTETS_MAX>>,
    /// Frozen because the daemon fell over with it, or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen: Option<bool>,
    /// Held by the operator, or not.
    pub held: Option<bool>,
    /// Tell which domains a message waits for.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub waits: bool,
    /// Continue after this id (a page's `next`).
    pub after: Option<Text<ID_OCTETS_MAX>>,
    /// At most so many, bounded by `QUEUE_PAGE_MAX`; 0: as many as a page holds.
    pub count_max: u16,
}

/// Which hints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HintsFilter {
    /// Only this kind.
    pub kind: Option<Text<NAME_OCTETS_MAX>>,
    /// Part of the key as written for people.
    pub key: Option<Text<ADDRESS_OCTETS_MAX>>,
    /// Continue from here (a page's `next`); 0 at first.
    pub cursor: u64,
    /// At most so many, bounded by `HINTS_PAGE_MAX`; 0: as many as a page holds.
    pub count_max: u16,
}

impl HintsFilter {
    /// How many hints a page may have.
    #[must_use]
    pub fn page_max(&self) -> usize {
        match usize::from(self.count_max) {
            0 => HINTS_PAGE_MAX,
            count => count.min(HINTS_PAGE_MAX),
        }
    }
}

/// One hint by kind and key, both as written for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HintKey {
    /// `retry`, `health`, ...
    pub kind: Text<NAME_OCTETS_MAX>,
    /// `example.org`, `192.0.2.1`, `2001:db8::/64`.
    pub key: Text<ADDRESS_OCTETS_MAX>,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the usual levels")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    /// Every level with its name.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Error, "error"),
        (Self::Warn, "warn"),
        (Self::Info, "info"),
        (Self::Debug, "debug"),
        (Self::Trace, "trace"),
    ];

    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}
