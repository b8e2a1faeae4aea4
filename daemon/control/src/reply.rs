//! What the daemon answers.
//!
//! *Guarantees*: fields can be added: what one side does not send has a default, what the other
//! does not know is passed over.

use serde::{Deserialize, Serialize};

use crate::hint::Hint;
use crate::ladder::XdpPage;
use crate::limits::{
    ADDRESS_OCTETS_MAX, CORES_MAX, HINTS_PAGE_MAX, ID_OCTETS_MAX, LINE_OCTETS_MAX,
    METRICS_OCTETS_MAX, NAME_OCTETS_MAX, QUEUE_PAGE_MAX, RECIPIENTS_SHOWN_MAX, SHORT_OCTETS_MAX,
    STATUS_LINES_MAX, WAITS_MAX,
};
use crate::request::Level;
use crate::story::{Part, Rows, Story, Summary, Tops};
use crate::text::{List, Text};

/// A sentence.
type Line = Text<LINE_OCTETS_MAX>;
/// A name.
type Name = Text<NAME_OCTETS_MAX>;
/// An address or host.
type Address = Text<ADDRESS_OCTETS_MAX>;

/// One reply; the names on the wire are those of the variants in kebab case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "with", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reply {
    /// It could not be done.
    Failure(Failure),
    /// It was done; what there is to say about it.
    Done {
        /// One sentence.
        message: Line,
    },
    /// To `version`.
    Version(VersionInfo),
    /// To `status`.
    Status(Box<Status>),
    /// To `ledger`.
    Ledger(Ledger),
    /// To `metrics`.
    Metrics(MetricsPage),
    /// To `queue-list`.
    Queue(QueuePage),
    /// To `queue-show`.
    Message(Box<QueueMessage>),
    /// To `reload`.
    Reloaded(Reloaded),
    /// To `log-level`.
    LogLevel(LogLevel),
    /// To `hints-list`.
    Hints(HintsPage),
    /// To `hints-get` and `hints-set`.
    Hint(Hint),
    /// To `xdp`.
    Xdp(XdpPage),
    /// To `why` and `log-grep`.
    Story(Box<Story>),
    /// To whatever is a table.
    Rows(Box<Rows>),
    /// To `queue-summary`.
    Summary(Box<Summary>),
    /// To `queue-read` and `session`.
    Part(Box<Part>),
    /// To `tops`.
    Tops(Box<Tops>),
}

/// Why it could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub code: FailureCode,
    /// For people: what is wrong.
    pub message: Line,
    /// For people: what to do; may be empty.
    #[serde(default)]
    pub advice: Line,
}

impl Failure {
    /// A failure; what is too long is cut.
    #[must_use]
    pub fn new(code: FailureCode, message: &str, advice: &str) -> Self {
        Self { code, message: Text::cut(message), advice: Text::cut(advice) }
    }

    /// There is no such hint.
    #[must_use]
    pub fn no_hint() -> Self {
        let advice = "`ringpost hints list` shows those that count now";
        Self::new(FailureCode::NotFound, "no such hint", advice)
    }

    /// There is no such kind of hint, only these.
    #[must_use]
    pub fn no_kind_of_hint(kinds: &[&str]) -> Self {
        let advice = format!("one of {}", kinds.join(" "));
        Self::new(FailureCode::NotFound, "no such kind of hint", &advice)
    }
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailureCode {
    /// The frame or its payload is malformed.
    Malformed,
    /// No such request in this version.
    Unknown,
    /// The frame's version is another one.
    Version,
    /// The peer may not do this.
    Denied,
    /// No such message, hint or kind.
    NotFound,
    /// The request is understood and refused: a bad value, a bad config.
    Refused,
    /// Try again later.
    Busy,
    /// A fault of the daemon's.
    Internal,
    /// A code of a later version.
    #[serde(other)]
    Other,
}

/// What runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VersionInfo {
    /// The daemon's version.
    pub version: Name,
    /// Commit or build, if known.
    pub build: Name,
    /// The format in which its spool is written.
    pub spool_format: u32,
    /// The version of this protocol.
    pub protocol: u16,
    /// The kernel it runs on.
    pub kernel: Name,
}

/// What the daemon is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RunState {
    /// Recovering the log.
    Starting,
    /// Taking mail.
    #[default]
    Running,
    /// Finishing.
    Draining,
    /// A state of a later version.
    #[serde(other)]
    Other,
}

/// How the daemon is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// What it is at.
    pub state: RunState,
    /// The daemon's version.
    pub version: Name,
    /// This node's number.
    pub node: u16,
    /// The number of this run.
    pub run: u32,
    /// Process id.
    pub pid: u32,
    /// Since the start, seconds.
    pub uptime_s: u64,
    /// Generation of the config in force.
    pub config_generation: u64,
    /// Its file.
    pub config_file: Address,
    /// `full`, or `none` where that was written out.
    pub durability: Name,
    /// False while nothing expires because the wall clock is in doubt.
    pub clock_trusted: bool,
    /// Messages in the queue.
    pub queued_messages: u64,
    /// Recipients in the queue.
    pub queued_recipients: u64,
    /// Messages held by the operator.
    pub held_messages: u64,
    /// Age of the oldest message, seconds.
    pub oldest_s: u64,
    /// Octets the spool can still take.
    pub spool_free_octets: u64,
    /// Octets of the spool.
    pub spool_octets: u64,
    /// One for each core.
    pub cores: List<Core, CORES_MAX>,
    /// Addresses listened on.
    pub listeners: List<Line, STATUS_LINES_MAX>,
    /// What the kernel was found to offer, and what is used.
    pub engine: List<Line, STATUS_LINES_MAX>,
    /// Messages accepted in the last 1, 5 and 15 minutes.
    pub accepted_lately: [u64; 3],
    /// Places of the spool and what the kernel says of their devices.
    pub devices: List<Line, STATUS_LINES_MAX>,
    /// Network links: state and speed.
    pub links: List<Line, STATUS_LINES_MAX>,
    /// What the operator should know; empty is good.
    pub alarms: List<Line, STATUS_LINES_MAX>,
}

/// One core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Core {
    /// Its number.
    pub core: u16,
    /// Inbound sessions open.
    pub sessions: u32,
    /// Slots for them.
    pub sessions_max: u32,
    /// Outbound connections open.
    pub outbound: u32,
    /// Connections since the start.
    pub connections: u64,
    /// Messages accepted since the start.
    pub accepted: u64,
    /// Connections, commands and messages refused since the start.
    pub refused: u64,
    /// Recipients relayed since the start.
    pub relayed: u64,
    /// Attempts after which a recipient waits, since the start.
    pub deferred: u64,
    /// Of the commits of the last one to two minutes half took no longer, microseconds; 0: none.
    pub commit_p50_us: u64,
    /// The same, 99 of 100.
    pub commit_p99_us: u64,
    /// Messages in its queue.
    pub queued: u64,
    /// Since its loop last turned, milliseconds.
    pub turned_ms: u64,
}

/// The ledger, in recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Accepted from clients.
    pub accepted: i64,
    /// In messages made here.
    pub generated: i64,
    /// Taken by the next hop.
    pub delivered: i64,
    /// Handed over to another node or tier.
    pub handed_over: i64,
    /// Failed and settled.
    pub bounced: i64,
    /// Failed DSNs.
    pub double_bounces: i64,
    /// Removed by the operator.
    pub removed: i64,
    /// Waiting for the operator.
    pub held: i64,
    /// Waiting for delivery.
    pub queued: i64,
}

impl Ledger {
    /// What came in less what stands somewhere: 0 when the ledger balances.
    #[must_use]
    pub fn difference(&self) -> i128 {
        let out = [
            self.delivered,
            self.handed_over,
            self.bounced,
            self.double_bounces,
            self.removed,
            self.held,
            self.queued,
        ];
        i128::from(self.accepted) + i128::from(self.generated)
            - out.into_iter().map(i128::from).sum::<i128>()
    }
}

/// The Prometheus page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsPage {
    /// Text exposition format.
    pub text: Text<METRICS_OCTETS_MAX>,
}

/// A page of the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueuePage {
    /// Messages, oldest first.
    pub messages: List<QueueEntry, QUEUE_PAGE_MAX>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<Text<ID_OCTETS_MAX>>,
    /// Messages in the whole queue, whatever the filter.
    pub total: u64,
}

/// A message in a page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueEntry {
    /// Its id.
    pub id: Text<ID_OCTETS_MAX>,
    /// Since its receipt, seconds.
    pub age_s: u64,
    /// Octets.
    pub size_octets: u64,
    /// Sender; empty: the null sender.
    pub sender: Address,
    /// The first recipient that waits.
    pub recipient: Address,
    /// Recipients that wait.
    pub pending: u32,
    /// Recipients in all.
    pub recipients: u32,
    /// Attempts so far.
    pub tries: u32,
    /// Until the next attempt, seconds; 0: due.
    pub next_s: u64,
    /// Held by the operator.
    pub held: bool,
    /// Frozen: noted in two crashes.
    pub frozen: bool,
    /// What the last attempt came to.
    pub last: Line,
    /// Domains of recipients that wait, where they were asked for.
    pub waits: List<Waits, WAITS_MAX>,
}

/// Recipients of one domain that wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waits {
    /// Their domain.
    pub domain: Address,
    /// How many.
    pub recipients: u32,
    /// What the last attempt with one of them came to.
    pub last: Text<SHORT_OCTETS_MAX>,
}

/// A message with its recipients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueMessage {
    /// As in a page.
    pub entry: QueueEntry,
    /// The session it came with.
    pub session: Text<ID_OCTETS_MAX>,
    /// The message it was made from (a report), or is (taken in from a half of the spool that
    /// went on alone); empty: none.
    pub parent: Text<ID_OCTETS_MAX>,
    /// Receipt, wall microseconds.
    pub received_us: u64,
    /// Expiry, wall microseconds; 0: the config's.
    pub expires_us: u64,
    /// Client's address and port.
    pub client: Address,
    /// What it called itself.
    pub helo: Address,
    /// TLS version and cipher; empty: none.
    pub tls: Name,
    /// ENVID; empty: none.
    pub envelope_id: Address,
    /// Recipients, as many as fit.
    pub recipients: List<QueueRecipient, RECIPIENTS_SHOWN_MAX>,
}

/// How far a recipient is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
#[expect(missing_docs, reason = "the states of docs/spool.md")]
pub enum RecipientState {
    #[default]
    Pending,
    Delivered,
    HandedOver,
    Failed,
    Held,
    Redirected,
    Removed,
    /// A state of a later version.
    #[serde(other)]
    Other,
}

/// A recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueRecipient {
    /// As given.
    pub address: Address,
    /// How far it is.
    pub state: RecipientState,
    /// Attempts so far.
    pub tries: u32,
    /// Next hop, if one was chosen.
    pub next_hop: Address,
    /// The last reply or reason.
    pub last: Line,
}

/// A reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reloaded {
    /// The generation now in force.
    pub generation: u64,
    /// What changed, or what needs a restart.
    pub notes: List<Line, STATUS_LINES_MAX>,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevel {
    /// Now.
    pub level: Level,
}

/// A page of hints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HintsPage {
    /// The hints.
    pub hints: List<Hint, HINTS_PAGE_MAX>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<u64>,
}
