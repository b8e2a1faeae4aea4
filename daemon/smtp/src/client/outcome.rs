//! What the sending machine tells: events, outcomes by recipient, and why a connection failed.

use std::fmt;
use std::sync::Arc;

use super::offers::Extension;
use super::reply::Reply;

/// Where in the dialogue something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Opening the TCP connection.
    Connect,
    /// Waiting for the greeting.
    Greeting,
    /// EHLO or HELO.
    Hello,
    /// STARTTLS and the handshake.
    Tls,
    /// Comparing the message with what the server offers; nothing was sent.
    Offer,
    /// Between two messages.
    Idle,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, before content.
    Data,
    /// Content on its way.
    Content,
    /// After the final dot or the last chunk.
    Dot,
    /// RSET.
    Reset,
    /// QUIT.
    Quit,
}

impl Stage {
    /// For logs.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Connect => "connecting",
            Self::Greeting => "waiting for the greeting",
            Self::Hello => "EHLO",
            Self::Tls => "STARTTLS",
            Self::Offer => "comparing with the server's offer",
            Self::Idle => "between messages",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Content => "sending the message",
            Self::Dot => "end of message",
            Self::Reset => "RSET",
            Self::Quit => "QUIT",
        }
    }
}

/// How a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// No TCP connection.
    Refused,
    /// The server was silent for too long.
    Timeout,
    /// The server closed or reset the connection.
    LostConnection,
    /// 421: the server closes.
    Closing,
    /// 4yz to the greeting or to EHLO.
    Greeting4xx,
    /// 5yz to the greeting or to both EHLO and HELO.
    Greeting5xx,
    /// TLS was required, or offered and tried, and there is none.
    TlsFailed,
    /// The server broke the protocol.
    Protocol,
    /// Local trouble: the content could not be read, or the caller gave up.
    Local,
}

impl Class {
    /// For logs and metrics' labels.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::LostConnection => "lost_connection",
            Self::Closing => "closing",
            Self::Greeting4xx => "greeting_4xx",
            Self::Greeting5xx => "greeting_5xx",
            Self::TlsFailed => "tls_failed",
            Self::Protocol => "protocol",
            Self::Local => "local",
        }
    }
}

/// Why and where a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub class: Class,
    /// When it happened.
    pub stage: Stage,
    /// The reply that says so, if one does.
    pub reply: Option<Reply>,
    /// More words, for logs; empty when class and stage say it all.
    pub detail: &'static str,
    /// An idle connection was closed before the first reply to a further message: no sign of a
    /// sick server. The same host may be tried at once on a new connection.
    pub stale: bool,
    /// Opportunistic TLS failed: the same host may be tried at once with
    /// [`super::TlsPolicy::Never`].
    pub clear_may_help: bool,
}

impl Failure {
    /// Whether another host may be tried at once for recipients that were not tried. Not after
    /// the whole content was handed over, and not for trouble of our own.
    #[must_use]
    pub fn next_host(&self) -> bool {
        self.class != Class::Local && self.stage != Stage::Dot
    }

    /// Whether the host's health should suffer for it: not when an idle connection was closed,
    /// and not for trouble of our own.
    #[must_use]
    pub fn counts_against_host(&self) -> bool {
        let quiet = matches!(self.stage, Stage::Idle | Stage::Reset | Stage::Quit);
        self.class != Class::Local && !self.stale && !quiet
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.class.text(), self.stage.text())?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        if let Some(reply) = &self.reply {
            write!(f, ": {reply}")?;
        }
        Ok(())
    }
}

/// A refusal and the command it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The command, or [`Stage::Offer`] for a reply made here.
    pub stage: Stage,
    /// The server's reply, or ours at [`Stage::Offer`].
    pub reply: Reply,
    /// RCPT was refused for the number of recipients while others were accepted: send again
    /// at once, in a further transaction (RFC 5321 4.5.3.1.10).
    pub too_many: bool,
}

/// What became of one recipient. Each recipient of a transaction gets exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 2yz after the whole content: the server is responsible now.
    Delivered(Arc<Reply>),
    /// Refused for now.
    TempFail(Arc<Refusal>),
    /// Refused for good.
    PermFail(Arc<Refusal>),
    /// Nothing was sent: the message needs an extension that the server does not offer.
    NeedsExtension(Extension),
    /// The connection failed before the server decided. [`Failure::next_host`] says what to do.
    NotTried(Arc<Failure>),
    /// The whole content was handed over and the reply was lost. To be retried later; the
    /// recipient may get the message twice.
    Unknown(Arc<Failure>),
}

/// What the machine tells its caller, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Octets sent from now on go through TLS: start the handshake as client. Then call
    /// `tls_established` or `tls_failed`.
    StartTls {
        /// Octets that stood behind the server's 220 and were thrown away. Not 0: somebody tried
        /// to inject replies.
        discarded: usize,
    },
    /// A message may be submitted.
    Ready,
    /// The server takes content: feed it while `want_content`.
    Content,
    /// What became of the recipient at this place of the envelope's list.
    Recipient(usize, Outcome),
    /// All recipients of the message have their outcome. `Ready` or `Closed` follows.
    MessageEnd,
    /// Last event: close the connection once the remaining output is sent. `None` after QUIT.
    Closed(Option<Arc<Failure>>),
}
