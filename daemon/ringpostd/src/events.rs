//! Everything that happens on a core, as one typed stream: logs, counters and the flight
//! recorder are its readers.
//!
//! *Guarantees.* An event borrows what it tells of, and costs nothing that no reader wants.
//! *Not here.* How a line looks (`maillog`), what is counted (`metrics`).

mod reason;

pub use reason::{Answer, Reason};

use std::net::SocketAddr;

/// Who reads the stream.
pub trait Reader {
    /// Takes one event that happened at `wall_us` (microseconds since the Unix epoch).
    fn read(&mut self, wall_us: u64, event: &Event<'_>);
}

/// Two readers are one.
impl<A: Reader, B: Reader> Reader for (A, B) {
    fn read(&mut self, wall_us: u64, event: &Event<'_>) {
        self.0.read(wall_us, event);
        self.1.read(wall_us, event);
    }
}

impl<R: Reader + ?Sized> Reader for &mut R {
    fn read(&mut self, wall_us: u64, event: &Event<'_>) {
        (**self).read(wall_us, event);
    }
}

/// Defines an enum whose variants have a stable label, for metrics and JSON.
macro_rules! labelled {
    ($(#[doc = $about:literal])+ $name:ident {
        $($(#[doc = $doc:literal])+ $variant:ident = $label:literal,)+
    }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its stable name: lower case, digits and `_`.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// Its place in [`Self::ALL`].
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

labelled! {
    /// Where in a session a command was refused.
    Stage {
        /// Before the greeting, the PROXY header included.
        Connect = "connect",
        /// EHLO and HELO.
        Helo = "helo",
        /// STARTTLS and the handshake.
        Tls = "tls",
        /// MAIL.
        Mail = "mail",
        /// RCPT.
        Rcpt = "rcpt",
        /// DATA and BDAT, before content.
        Data = "data",
        /// Content, and what follows the final dot.
        Content = "content",
        /// Any other command.
        Command = "command",
    }
}

labelled! {
    /// A stretch of a session whose length is measured.
    Phase {
        /// From the connection to its greeting.
        Connect = "connect",
        /// From the greeting to the client's first command.
        Banner = "banner",
        /// EHLO or HELO to its answer.
        Ehlo = "ehlo",
        /// MAIL to its answer.
        Mail = "mail",
        /// RCPT to its answer.
        Rcpt = "rcpt",
        /// DATA to the final dot.
        Data = "data",
        /// The final dot to its answer.
        Dot = "dot",
        /// A message given to the log to all copies of it durable.
        Commit = "commit",
        /// A TLS handshake with a client.
        Handshake = "handshake",
        /// Connecting to a next hop, up to its greeting.
        RelayConnect = "relay_connect",
        /// The final dot sent to a next hop to its answer.
        RelayDot = "relay_dot",
        /// Acceptance of a message to the end of its last recipient.
        Queue = "queue",
    }
}

labelled! {
    /// How a session ended.
    Ending {
        /// The client said QUIT.
        Quit = "quit",
        /// The client closed or reset the connection.
        Lost = "lost",
        /// We closed it: a refusal that ends the session, a time limit, a stop.
        Closed = "closed",
    }
}

labelled! {
    /// What the operator may want to know.
    Note {
        /// The daemon is ready.
        Started = "started",
        /// The daemon stops.
        Stopped = "stopped",
        /// What was found in the log at start.
        Recovered = "recovered",
        /// The hints were unreadable and begin anew.
        HintsFresh = "hints_fresh",
        /// Another config is in force.
        Reloaded = "reloaded",
        /// A config was refused; the old one is in force.
        ReloadRefused = "reload_refused",
        /// Certificates were loaded.
        Certificates = "certificates",
        /// Time was confirmed, or stepped.
        Clock = "clock",
        /// What the filter or a list has to say.
        Filter = "filter",
    }
}

labelled! {
    /// What the operator must know.
    Alarm {
        /// A device failed, or a mirror lost a half.
        Device = "device",
        /// A part of the log is unreadable.
        Corruption = "corruption",
        /// The spool is full or nearly so.
        SpoolFull = "spool_full",
        /// Log lines cannot be written.
        Log = "log",
        /// A core stands still.
        Stalled = "stalled",
        /// A message fell with the daemon twice and is frozen.
        Poison = "poison",
        /// The clock is not to be believed.
        Clock = "clock",
        /// A certificate is missing, broken or out of date.
        Certificate = "certificate",
        /// A list is broken or lists too many, or the filter has gone.
        Filter = "filter",
        /// The ledger does not balance.
        Ledger = "ledger",
    }
}

/// TLS of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tls<'a> {
    /// Like `TLS1.3`.
    pub version: &'a str,
    /// Like `TLS_AES_256_GCM_SHA384`.
    pub cipher: &'a str,
    /// Whether the peer's certificate was verified; `None` if it was not asked for.
    pub verified: Option<bool>,
}

/// A client, as far as it is known when something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client<'a> {
    /// The session's id, with the transaction (`.n`) inside one.
    pub id: &'a str,
    /// Its address; that from the PROXY header, where there is one.
    pub remote: SocketAddr,
    /// Ours; that from the PROXY header, where there is one.
    pub local: SocketAddr,
    /// The proxy that speaks for it.
    pub proxy: Option<SocketAddr>,
    /// The name it gave in EHLO or HELO, empty before.
    pub helo: &'a [u8],
    /// Its verified name in the DNS.
    pub name: Option<&'a [u8]>,
    /// `SMTP`, `ESMTPS`, `UTF8SMTP`... (RFC 3848, RFC 6531).
    pub protocol: &'a str,
    /// Its TLS.
    pub tls: Option<Tls<'a>>,
}

/// A command that was refused.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// Whose.
    pub client: Client<'a>,
    /// Where.
    pub stage: Stage,
    /// Why.
    pub reason: Reason,
    /// What is known beside the reason, like a reply of a next hop; may be empty.
    pub detail: &'a [u8],
    /// The sender's address without brackets, inside a transaction.
    pub sender: Option<&'a [u8]>,
    /// The recipients it is about: the one of RCPT, or all that were taken.
    pub recipients: &'a [&'a [u8]],
    /// The message's header, as received, if it came so far.
    pub header: Option<&'a [u8]>,
}

/// A message that was answered 250.
#[derive(Debug, Clone, Copy)]
pub struct Accepted<'a> {
    /// From whom; `client.id` is the message's id.
    pub client: Client<'a>,
    /// The sender's address without brackets; empty is the null sender.
    pub sender: &'a [u8],
    /// How many recipients.
    pub recipients: u32,
    /// Octets of header and body as received.
    pub octets: u64,
    /// `Message-ID`, without its brackets.
    pub message_id: Option<&'a [u8]>,
    /// `Subject`, for those who log it.
    pub subject: Option<&'a [u8]>,
}

/// A message made here: a DSN.
#[derive(Debug, Clone, Copy)]
pub struct Generated<'a> {
    /// Its id.
    pub id: &'a str,
    /// The id of the message it is about.
    pub parent: &'a str,
    /// How many recipients.
    pub recipients: u32,
    /// Octets of header and body.
    pub octets: u64,
}

/// A next hop that was reached, or tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop<'a> {
    /// Its name as the route or the DNS gave it.
    pub name: &'a str,
    /// Its address and port.
    pub address: SocketAddr,
    /// Its TLS.
    pub tls: Option<Tls<'a>>,
}

/// What became of one recipient in one attempt.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The message's id.
    pub id: &'a str,
    /// The recipient as routed.
    pub recipient: &'a [u8],
    /// The recipient as given, if that differs.
    pub original: Option<&'a [u8]>,
    /// The route's name.
    pub route: &'a str,
    /// The last host tried.
    pub hop: Option<Hop<'a>>,
    /// Its reply, one line or several.
    pub reply: &'a [u8],
    /// Age of the message, in microseconds.
    pub queue_us: u64,
    /// Length of this attempt, in microseconds.
    pub delivery_us: u64,
}

/// What happens.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A client connected and was let in.
    Connected(&'a Client<'a>),
    /// A client was turned away before its first command.
    ConnectRefused {
        /// Who.
        client: &'a Client<'a>,
        /// Why.
        reason: Reason,
    },
    /// A command, or a whole message, was refused.
    CommandRefused(&'a Refused<'a>),
    /// A client spoke before the greeting (and may be refused for it by another event).
    EarlyTalker {
        /// Who.
        client: &'a Client<'a>,
        /// What it said first.
        said: &'a [u8],
    },
    /// A listed client would be refused if the ladder went further than counting.
    WouldRefuse {
        /// Who.
        client: &'a Client<'a>,
        /// Who lists it.
        detail: &'a [u8],
    },
    /// A limit or rate was reached (the refusal is another event).
    LimitHit {
        /// Who.
        client: &'a Client<'a>,
        /// Which.
        reason: Reason,
    },
    /// A client speaks TLS now.
    TlsStarted(&'a Client<'a>),
    /// A handshake with a client failed.
    TlsFailed {
        /// Who.
        client: &'a Client<'a>,
        /// Why.
        error: &'a str,
    },
    /// A session ended.
    SessionClosed {
        /// Whose.
        client: &'a Client<'a>,
        /// How.
        ending: Ending,
        /// Whether it was inside a transaction.
        in_transaction: bool,
    },
    /// A message was answered 250.
    Accepted(&'a Accepted<'a>),
    /// A DSN was made.
    Generated(&'a Generated<'a>),
    /// A next hop took a recipient.
    Relayed {
        /// Which.
        attempt: &'a Attempt<'a>,
        /// Whether it went with the recipient before it, in the same transaction.
        further: bool,
    },
    /// A recipient waits for another attempt.
    Deferred {
        /// Which.
        attempt: &'a Attempt<'a>,
        /// Why.
        reason: Reason,
    },
    /// A recipient failed for good; a DSN says so, where one is wanted.
    Bounced {
        /// Which.
        attempt: &'a Attempt<'a>,
        /// Why.
        reason: Reason,
    },
    /// No recipient of a message is left.
    Completed {
        /// The message's id.
        id: &'a str,
        /// Its age, in microseconds.
        queue_us: u64,
    },
    /// A message waits for the operator.
    Held {
        /// The message's id.
        id: &'a str,
        /// Why.
        why: &'a str,
    },
    /// A held message may go on.
    Released {
        /// The message's id.
        id: &'a str,
    },
    /// The operator sends recipients of a message to another host, or back to their route.
    Moved {
        /// The message's id.
        id: &'a str,
        /// The host and port, with `@` before it; empty: their route.
        to: &'a str,
        /// The user id that asked for it.
        uid: u32,
    },
    /// The operator removed a message.
    Removed {
        /// The message's id.
        id: &'a str,
        /// The user id that asked for it.
        uid: u32,
    },
    /// A line of a session that somebody watches.
    Line {
        /// Whose.
        client: &'a Client<'a>,
        /// From the client; else to it.
        heard: bool,
        /// The recipient for whose sake it is watched, if it is one's.
        recipient: &'a [u8],
        /// Without its line end.
        octets: &'a [u8],
    },
    /// A phase of a session took so long, in microseconds.
    Took(Phase, u64),
    /// What the operator may want to know.
    Noted(Note, &'a str),
    /// What the operator must know.
    Alarmed(Alarm, &'a str),
}

impl Event<'_> {
    /// Whether it is about mail we answer for: its line is kept until it is written.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        matches!(
            self,
            Self::Accepted(_)
                | Self::Generated(_)
                | Self::Relayed { .. }
                | Self::Deferred { .. }
                | Self::Bounced { .. }
                | Self::Completed { .. }
                | Self::Held { .. }
                | Self::Released { .. }
                | Self::Moved { .. }
                | Self::Removed { .. }
        )
    }
}
