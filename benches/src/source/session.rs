//! One session of a source: which reply is awaited, and since when.

use super::tls::Client;
use super::wishes::Wish;
use crate::replies::Replies;

/// What a session waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// No connection in this slot.
    Closed,
    Connect,
    Banner,
    Ehlo,
    /// The reply to STARTTLS.
    StartTls,
    Handshake,
    /// Between two messages (open loop), or idle.
    Rest,
    Mail,
    /// Replies to RCPT still to come.
    Rcpt(usize),
    Data,
    /// Content is being sent or the reply to its dot awaited.
    Dot,
    /// The reply to RSET after a refused message.
    Reset,
    Quit,
    /// 221 seen: the server closes.
    End,
}

impl Step {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Connect => "connect",
            Self::Banner => "banner",
            Self::Ehlo => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Handshake => "TLS handshake",
            Self::Rest => "rest",
            Self::Mail => "MAIL",
            Self::Rcpt(_) => "RCPT",
            Self::Data => "DATA",
            Self::Dot => "final dot",
            Self::Reset => "RSET",
            Self::Quit => "QUIT",
            Self::End => "end",
        }
    }

    /// No message can begin yet.
    pub(super) fn is_opening(self) -> bool {
        use Step::{Banner, Connect, Ehlo, Handshake, StartTls};
        matches!(self, Connect | Banner | Ehlo | StartTls | Handshake)
    }

    /// A message has begun and its outcome is not known.
    pub(super) fn in_message(self) -> bool {
        matches!(self, Self::Mail | Self::Rcpt(_) | Self::Data | Self::Dot)
    }
}

/// The state of one connection; times are nanoseconds since the start of the run.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) step: Step,
    pub(super) replies: Replies,
    /// The server announced PIPELINING and we use it.
    pub(super) pipelining: bool,
    /// The server announced CHUNKING and we use it.
    pub(super) chunking: bool,
    /// The server announced STARTTLS and this session is to use it.
    pub(super) starttls: bool,
    pub(super) tls: Option<Box<Client>>,
    /// The connection comes from a listed address.
    pub(super) listed: bool,
    /// What the message is sent for.
    pub(super) wish: Wish,
    /// Messages begun on this connection.
    pub(super) messages: u64,
    /// When what the reply answers was sent.
    pub(super) since: u64,
    /// When the message was due (open loop) or begun.
    pub(super) message_since: u64,
    /// When MAIL was sent.
    pub(super) envelope_since: u64,
    /// Number of the message, and of its template.
    pub(super) number: u64,
    pub(super) template: usize,
    /// Content of a large message already given to the ring.
    pub(super) given: usize,
    /// Recipients accepted.
    pub(super) accepted: usize,
    /// MAIL or DATA was refused.
    pub(super) refused: bool,
    /// This session sends slowly: what has still to be sent.
    pub(super) slow: Option<Vec<u8>>,
}

impl Session {
    pub(super) fn new() -> Self {
        Self {
            step: Step::Closed,
            replies: Replies::default(),
            pipelining: false,
            chunking: false,
            starttls: false,
            tls: None,
            listed: false,
            wish: Wish::Taken,
            messages: 0,
            since: 0,
            message_since: 0,
            envelope_since: 0,
            number: 0,
            template: 0,
            given: 0,
            accepted: 0,
            refused: false,
            slow: None,
        }
    }

    /// Begins a connection in this slot.
    pub(super) fn begin(&mut self, now: u64, slow: bool) {
        self.replies.reset();
        self.step = Step::Connect;
        self.pipelining = false;
        self.chunking = false;
        self.starttls = false;
        self.tls = None;
        self.messages = 0;
        self.since = now;
        self.slow = slow.then(Vec::new);
    }
}
