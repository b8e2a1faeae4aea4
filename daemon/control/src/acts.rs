//! What changes something, and what asks why: the requests beyond looking.
//!
//! *Guarantees*: what cannot be taken back carries a word that the daemon compares; a field this
//! version does not know refuses the request.

use serde::{Deserialize, Serialize};

use crate::limits::{
    ADDRESS_OCTETS_MAX, ID_OCTETS_MAX, IDS_MAX, LINE_OCTETS_MAX, NAME_OCTETS_MAX, PART_OCTETS_MAX,
    PIECES_MAX,
};
use crate::text::{List, Text};

/// What is known of a message, a session, a recipient, a sender or a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WhyFilter {
    /// An id, an address (`@domain` for a whole domain), an IP address or a network.
    pub what: Text<ADDRESS_OCTETS_MAX>,
    /// Search the log files too, even where the recorder knows something.
    pub logs: bool,
    /// Only what happened after this, wall microseconds; 0: all.
    pub after_us: u64,
}

/// Which lines of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogFilter {
    /// The reject log instead of the main log.
    pub reject: bool,
    /// Lines that contain all of these; without regard to case.
    pub parts: List<Text<ADDRESS_OCTETS_MAX>, 8>,
    /// Not before, as the log writes it: `2026-02-03` or `2026-02-03 04:05`; empty: from the start.
    pub since: Text<NAME_OCTETS_MAX>,
    /// Not after, in the same form.
    pub until: Text<NAME_OCTETS_MAX>,
    /// Continue here (a page's `next`); then only what was written since.
    pub after: Option<Text<NAME_OCTETS_MAX>>,
    /// The newest so many, bounded by `STORY_LINES_MAX`; 0: as many as a page holds.
    pub count_max: u16,
}

/// By what the recorder's events are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TopsBy {
    /// Clients.
    Peer,
    /// Next hops.
    Destination,
    /// Domains of recipients.
    Domain,
}

impl TopsBy {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Peer, "peer"), (Self::Destination, "destination"), (Self::Domain, "domain")];
}

/// What is counted of the recorder's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopsFilter {
    /// By what.
    pub by: TopsBy,
    /// Of the last so many seconds.
    pub seconds: u32,
}

/// What is done to messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Try now.
    Retry,
    /// Wait for the operator.
    Freeze,
    /// Wait no more.
    Thaw,
    /// Go on with the next fallback tier of the route.
    Fallback,
    /// Go to a host that is named, whatever the route says.
    Move,
    /// Go by the route again.
    Unmove,
    /// Fail now, with a report to the sender.
    Bounce,
    /// Throw away without a report.
    Remove,
}

impl Act {
    /// Every act with its name.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Retry, "retry"),
        (Self::Freeze, "freeze"),
        (Self::Thaw, "thaw"),
        (Self::Fallback, "fallback"),
        (Self::Move, "move"),
        (Self::Unmove, "unmove"),
        (Self::Bounce, "bounce"),
        (Self::Remove, "remove"),
    ];

    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The word that must be typed: for what cannot be taken back, and for mail that leaves for
    /// where no config sends it.
    #[must_use]
    pub const fn word(self) -> Option<&'static str> {
        match self {
            Self::Bounce => Some("BOUNCE"),
            Self::Remove => Some("REMOVE"),
            Self::Move => Some("MOVE"),
            _ => None,
        }
    }
}

/// An act on chosen messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueAct {
    /// What.
    pub act: Act,
    /// These messages.
    #[serde(default)]
    pub ids: List<Text<ID_OCTETS_MAX>, IDS_MAX>,
    /// Or those that wait for this next hop: its name as `queue summary` shows it.
    #[serde(default)]
    pub next_hop: Option<Text<ADDRESS_OCTETS_MAX>>,
    /// Or all.
    #[serde(default)]
    pub all: bool,
    /// Where they are moved: a host and a port.
    #[serde(default)]
    pub to: Option<Text<ADDRESS_OCTETS_MAX>>,
    /// That host is not asked beforehand whether it answers.
    #[serde(default)]
    pub unchecked: bool,
    /// The word, where one is needed.
    #[serde(default)]
    pub word: Text<NAME_OCTETS_MAX>,
}

/// Whether mail is taken, and how new mail is kept away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accepting {
    /// Mail is taken.
    #[default]
    Open,
    /// New clients hear 421.
    Refuse,
    /// The port is closed: a switch takes the node out, new clients find nobody.
    Closed,
    /// Mail is taken as ever; only the health page tells a switch to send nobody new.
    Drain,
}

impl Accepting {
    /// Whether a new client's mail is taken.
    #[must_use]
    pub const fn takes_mail(self) -> bool {
        matches!(self, Self::Open | Self::Drain)
    }
}

/// A standing order of the operator: it holds until it is taken back, over restarts too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Rule {
    /// Mail for this domain waits.
    HoldDomain(Text<ADDRESS_OCTETS_MAX>),
    /// It waits no more.
    ReleaseDomain(Text<ADDRESS_OCTETS_MAX>),
    /// Whether mail is taken.
    Accepting(Accepting),
    /// Whether mail is sent on.
    Delivering(bool),
    /// Turns an address or network away, or lets it in past every limit.
    Listed {
        /// `192.0.2.1`, `2001:db8::/32`.
        network: Text<NAME_OCTETS_MAX>,
        /// Let in; else turned away.
        allow: bool,
        /// For so many seconds; 0: until it is taken back.
        seconds: u64,
        /// Why, for whoever looks later.
        why: Text<ADDRESS_OCTETS_MAX>,
    },
    /// Neither any more.
    Unlisted(Text<NAME_OCTETS_MAX>),
}

/// A session that is only played: by the daemon's own machine and policy, without any effect.
/// The daemon keeps it between the questions, as long as nobody needs its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rehearse {
    /// The client's address.
    pub from: Text<NAME_OCTETS_MAX>,
    /// The listener, by its place in the config.
    #[serde(default)]
    pub listener: u16,
    /// Which session goes on, as its first answer named it; 0: a new one begins.
    #[serde(default)]
    pub play: u64,
    /// What the client says (base64), each piece when the one before is answered.
    #[serde(default)]
    pub said: List<Text<PART_OCTETS_MAX>, PIECES_MAX>,
    /// Filled in by the daemon; never on the wire.
    #[serde(skip)]
    pub by_dns: ListedBy,
}

/// What DNS lists say of the client of a played session: asked by the daemon, never by the tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedBy {
    /// One of them says that it is never turned away.
    pub allowed: bool,
    /// The list by number, how far it goes, and for how many seconds it may be believed.
    pub listed: Option<(u8, u8, u32)>,
    /// What each said, in words.
    pub said: Vec<String>,
}

/// What is looked up or tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Test {
    /// Where mail for this address goes: route, hosts, addresses, their state.
    Route(Text<ADDRESS_OCTETS_MAX>),
    /// Whether this recipient is taken, from a stranger and from a relay network.
    Verify(Text<ADDRESS_OCTETS_MAX>),
    /// The exchangers and addresses of a name.
    Dns(Text<ADDRESS_OCTETS_MAX>),
    /// What SPF (RFC 7208) says of a client.
    Spf {
        /// Its address.
        ip: Text<NAME_OCTETS_MAX>,
        /// The name it gives in EHLO.
        helo: Text<ADDRESS_OCTETS_MAX>,
        /// The sender it names; empty: the null sender.
        from: Text<ADDRESS_OCTETS_MAX>,
    },
    /// Connects to a host and port and says EHLO; empty: all hosts of static routes.
    Backend(Text<ADDRESS_OCTETS_MAX>),
}

/// Looking at configs and changing them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ConfigAct {
    /// The file in force, or that of a generation in the history.
    Show(Option<u32>),
    /// What a key means, its default and bounds.
    Explain(Text<ADDRESS_OCTETS_MAX>),
    /// Reads a file and says all that speaks against it; changes nothing.
    Check(Text<ADDRESS_OCTETS_MAX>),
    /// Puts a file in force.
    Commit {
        /// The file, read by the daemon.
        file: Text<ADDRESS_OCTETS_MAX>,
        /// Taken back after so many minutes unless confirmed; 0: for good.
        confirm_minutes: u32,
        /// Why.
        why: Text<LINE_OCTETS_MAX>,
    },
    /// What was committed for some minutes stays.
    Confirm,
    /// Puts a config of the history in force again; `None`: the one before.
    Rollback(Option<u32>),
    /// The configs that were in force.
    History,
}
