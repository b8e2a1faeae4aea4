//! The table of metrics: what is counted, under which name, with which labels, and in which word.

use crate::events::{Alarm, Ending, Note, Phase, Reason, Stage};

/// Defines metrics without labels: name and help text are written here only.
macro_rules! metrics {
    ($(#[doc = $about:literal])+ $name:ident {
        $(#[doc = $doc:literal] $variant:ident = $metric:literal,)+
    }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $(#[doc = $doc] $variant,)+
        }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name on the page.
            #[must_use]
            pub const fn metric(self) -> &'static str {
                match self { $(Self::$variant => $metric,)+ }
            }

            /// The help text on the page.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $doc,)+ }
            }
        }
    };
}

metrics! {
    /// What only grows.
    Counter {
        /// Clients that connected and were let in.
        Connections = "ringpost_connections_total",
        /// Clients that spoke before the greeting.
        EarlyTalkers = "ringpost_early_talkers_total",
        /// Sessions of listed clients that are taken because the ladder only counts.
        WouldRefuse = "ringpost_would_refuse_total",
        /// Clients that were banned, by whatever list or evidence.
        Banned = "ringpost_bans_total",
        /// Sessions with clients that went over to TLS.
        TlsStarted = "ringpost_tls_sessions_total",
        /// TLS handshakes with clients that failed.
        TlsFailed = "ringpost_tls_failures_total",
        /// Messages answered 250.
        MessagesAccepted = "ringpost_messages_accepted_total",
        /// Recipients of messages answered 250.
        RecipientsAccepted = "ringpost_recipients_accepted_total",
        /// Octets of messages answered 250.
        OctetsAccepted = "ringpost_accepted_octets_total",
        /// Messages made here (DSNs).
        MessagesGenerated = "ringpost_messages_generated_total",
        /// Recipients of messages made here.
        RecipientsGenerated = "ringpost_recipients_generated_total",
        /// Recipients taken by a next hop.
        RecipientsRelayed = "ringpost_recipients_relayed_total",
        /// Recipients tried at a next hop, with whatever result.
        Attempts = "ringpost_attempts_total",
        /// Messages of which no recipient is left.
        MessagesCompleted = "ringpost_messages_completed_total",
        /// Messages that were set to wait for the operator.
        MessagesHeld = "ringpost_messages_held_total",
        /// Held messages that were let go.
        MessagesReleased = "ringpost_messages_released_total",
        /// Messages the operator moved to another host, or back to their route.
        MessagesMoved = "ringpost_messages_moved_total",
        /// Messages the operator removed.
        MessagesRemoved = "ringpost_messages_removed_total",
        /// Connections opened to next hops.
        HopConnections = "ringpost_hop_connections_total",
        /// Batches written to the log, copies of a mirror not counted.
        SpoolBatches = "ringpost_spool_batches_total",
        /// Octets written to the log, copies of a mirror counted.
        SpoolOctets = "ringpost_spool_written_octets_total",
        /// Lines about refused mail that were dropped because the log did not keep up.
        LogLinesLost = "ringpost_log_lines_lost_total",
    }
}

metrics! {
    /// What goes up and down.
    Gauge {
        /// Sessions with clients.
        Sessions = "ringpost_sessions",
        /// Connections to next hops.
        Hops = "ringpost_hop_connections",
        /// Messages in the queue.
        QueueMessages = "ringpost_queue_messages",
        /// Messages in the queue that are due.
        QueueDue = "ringpost_queue_due_messages",
        /// Segments of the log.
        Segments = "ringpost_spool_segments",
        /// Segments of the log that are free.
        SegmentsFree = "ringpost_spool_free_segments",
        /// Octets of messages kept in memory until their first attempt ends.
        KeptOctets = "ringpost_kept_octets",
        /// Octets of log lines that wait to be written.
        LogOctets = "ringpost_log_waiting_octets",
    }
}

/// The entries of the ledger, in the order of DESIGN's equation.
pub const LEDGER_ENTRIES: [&str; 9] = [
    "accepted",
    "generated",
    "delivered",
    "handed_over",
    "bounced",
    "double_bounces",
    "removed",
    "held",
    "queued",
];

/// A metric with labels: where its cells begin, and how it stands on the page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    pub(super) metric: &'static str,
    pub(super) kind: &'static str,
    pub(super) help: &'static str,
    /// The label's name and its values; two for refusals.
    pub(super) labels: &'static [Label],
    pub(super) first: usize,
}

/// A label and how many values it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Label {
    pub(super) name: &'static str,
    pub(super) values: usize,
    pub(super) value: fn(usize) -> &'static str,
}

const REASON: Label =
    Label { name: "reason", values: Reason::ALL.len(), value: |n| Reason::ALL[n].label() };
const STAGE: Label =
    Label { name: "stage", values: Stage::ALL.len(), value: |n| Stage::ALL[n].label() };
const ENDING: Label =
    Label { name: "ending", values: Ending::ALL.len(), value: |n| Ending::ALL[n].label() };
const NOTE: Label =
    Label { name: "note", values: Note::ALL.len(), value: |n| Note::ALL[n].label() };
const ALARM: Label =
    Label { name: "alarm", values: Alarm::ALL.len(), value: |n| Alarm::ALL[n].label() };
const LEDGER: Label =
    Label { name: "entry", values: LEDGER_ENTRIES.len(), value: |n| LEDGER_ENTRIES[n] };

const COUNTERS: usize = 0;
const GAUGES: usize = COUNTERS + Counter::ALL.len();
const REFUSED: usize = GAUGES + Gauge::ALL.len();
const LIMITS: usize = REFUSED + STAGE.values * REASON.values;
const DEFERRED: usize = LIMITS + REASON.values;
const BOUNCED: usize = DEFERRED + REASON.values;
const ENDINGS: usize = BOUNCED + REASON.values;
const NOTES: usize = ENDINGS + ENDING.values;
const ALARMS: usize = NOTES + NOTE.values;
const LEDGER_FIRST: usize = ALARMS + ALARM.values;
const PHASES: usize = LEDGER_FIRST + LEDGER.values;
/// Words of a core: two for each phase come last.
pub(super) const CELLS: usize = PHASES + 2 * Phase::ALL.len();

/// The metrics with labels.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        metric: "ringpost_refused_total",
        kind: "counter",
        help: "Refused connections, commands and messages, by stage and reason.",
        labels: &[STAGE, REASON],
        first: REFUSED,
    },
    Family {
        metric: "ringpost_limit_hits_total",
        kind: "counter",
        help: "Times a client reached one of its limits.",
        labels: &[REASON],
        first: LIMITS,
    },
    Family {
        metric: "ringpost_recipients_deferred_total",
        kind: "counter",
        help: "Attempts after which a recipient waits for another one.",
        labels: &[REASON],
        first: DEFERRED,
    },
    Family {
        metric: "ringpost_recipients_bounced_total",
        kind: "counter",
        help: "Recipients that failed for good.",
        labels: &[REASON],
        first: BOUNCED,
    },
    Family {
        metric: "ringpost_sessions_closed_total",
        kind: "counter",
        help: "Sessions with clients that ended.",
        labels: &[ENDING],
        first: ENDINGS,
    },
    Family {
        metric: "ringpost_notes_total",
        kind: "counter",
        help: "What the operator may want to know.",
        labels: &[NOTE],
        first: NOTES,
    },
    Family {
        metric: "ringpost_alarms_total",
        kind: "counter",
        help: "What the operator must know.",
        labels: &[ALARM],
        first: ALARMS,
    },
    Family {
        metric: "ringpost_ledger_recipients",
        kind: "gauge",
        help: "The ledger: accepted + generated equals the sum of all other entries.",
        labels: &[LEDGER],
        first: LEDGER_FIRST,
    },
];

/// Cells by what they count.
impl Family {
    pub(super) const fn counter(counter: Counter) -> usize {
        COUNTERS + counter as usize
    }

    pub(super) const fn gauge(gauge: Gauge) -> usize {
        GAUGES + gauge as usize
    }

    pub(super) const fn refused(stage: Stage, reason: Reason) -> usize {
        REFUSED + stage.index() * REASON.values + reason.index()
    }

    pub(super) const fn refused_all() -> std::ops::Range<usize> {
        REFUSED..LIMITS
    }

    pub(super) const fn deferred_all() -> std::ops::Range<usize> {
        DEFERRED..BOUNCED
    }

    pub(super) const fn limit(reason: Reason) -> usize {
        LIMITS + reason.index()
    }

    pub(super) const fn deferred(reason: Reason) -> usize {
        DEFERRED + reason.index()
    }

    pub(super) const fn bounced(reason: Reason) -> usize {
        BOUNCED + reason.index()
    }

    pub(super) const fn ending(ending: Ending) -> usize {
        ENDINGS + ending.index()
    }

    pub(super) const fn note(note: Note) -> usize {
        NOTES + note.index()
    }

    pub(super) const fn alarm(alarm: Alarm) -> usize {
        ALARMS + alarm.index()
    }

    pub(super) const fn ledger(entry: usize) -> usize {
        LEDGER_FIRST + entry
    }

    pub(super) const fn phase_count(phase: Phase) -> usize {
        PHASES + 2 * phase.index()
    }

    pub(super) const fn phase_sum_us(phase: Phase) -> usize {
        PHASES + 2 * phase.index() + 1
    }
}
