//! What the receiving machine asks of whoever drives it, and what it tells.

use super::envelope::Envelope;
use crate::address::{Address, Path};
use crate::command::{Helo, MailParameters, Offers, RcptParameters};
use crate::data::{Facts, Flow};
use crate::reply::{Enhanced, Refusal};

/// Names one question of one session; never used twice in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u32);

/// A decision the machine cannot make. At most one is open at a time.
#[derive(Debug, Clone, Copy)]
pub enum Question<'a> {
    /// Greet this client? A refusal always ends the session.
    Connect,
    /// Is this name good enough?
    Helo(Helo<'a>),
    /// Take mail from this sender?
    Mail {
        /// The reverse-path.
        from: Path<'a>,
        /// Its parameters.
        parameters: MailParameters<'a>,
        /// n of the id `<session>.n`, from 1.
        transaction: u32,
    },
    /// Take this recipient? Knows all of MAIL, so that what the route cannot carry is refused
    /// here (553 5.6.7, 552 5.3.4).
    Rcpt {
        /// The recipient; without a domain if it is the bare `postmaster`.
        to: Address<'a>,
        /// Its parameters.
        parameters: RcptParameters<'a>,
        /// MAIL and the recipients so far, this one last.
        envelope: &'a Envelope,
    },
    /// All recipients are known: take the content? Asked at DATA and at the first BDAT.
    Data {
        /// The whole envelope.
        envelope: &'a Envelope,
        /// BDAT, not DATA.
        chunked: bool,
    },
    /// The header section was lent: go on? Asked once for each message.
    Header {
        /// The whole envelope.
        envelope: &'a Envelope,
        /// What was seen so far.
        facts: &'a Facts,
    },
    /// All was lent and follows the rules: is it ours now? [`Answer::Accept`] is the 250.
    Message {
        /// The whole envelope.
        envelope: &'a Envelope,
        /// What was seen.
        facts: &'a Facts,
    },
}

/// What the host decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Accept,
    /// No, with the reply.
    Refuse(Refusal),
}

impl Answer {
    /// Two answers about one message, say of two recipients, as the one that the client can be
    /// given (SMTP has one reply for all): a message is taken only if nobody refuses it; a
    /// permanent refusal outweighs a temporary one; of equals the first counts.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        let weight = |answer: &Self| match answer {
            Self::Accept => 0,
            Self::Refuse(refusal) if !refusal.is_permanent() => 1,
            Self::Refuse(_) => 2,
        };
        if weight(&other) > weight(&self) { other } else { self }
    }
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// 250 was written.
    Accepted,
    /// A refusal was, or will be when the client has sent the rest of its content.
    Refused,
    /// RSET, EHLO, STARTTLS, QUIT, a timeout, a framing error, the end of the connection.
    Reset,
    /// The connection broke while [`Question::Message`] was open: what is durable may be kept.
    Gone,
}

/// Where in the dialogue something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Up to the greeting.
    Connect,
    /// EHLO, HELO.
    Helo,
    /// STARTTLS and its handshake.
    StartTls,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, BDAT, content, the final reply.
    Data,
    /// Other commands, and lines that are none.
    Command,
}

/// Something for the logs and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note<'a> {
    /// A 4yz or 5yz reply was written.
    Refused {
        /// Where.
        stage: Stage,
        /// Three digits.
        code: u16,
        /// The enhanced code.
        enhanced: Enhanced,
        /// The text without id.
        text: &'a str,
        /// The client's words it is about, unchecked; empty if there are none.
        about: &'a [u8],
    },
    /// Input came before the greeting.
    EarlyTalker,
    /// Input came behind a command that must end its group (RFC 2920 3.1).
    Pipelined,
    /// Octets behind STARTTLS were thrown away.
    StartTlsTail(usize),
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closed {
    /// QUIT.
    Quit,
    /// The host's refusal said so.
    Refused,
    /// The client was silent or slow.
    Timeout,
    /// A line end that is not CRLF, or a BDAT without a length.
    FramingError,
    /// Wrong commands.
    TooManyErrors,
    /// Commands without mail.
    TooMuchJunk,
    /// Recipients refused, or over the limit by far.
    TooManyRecipients,
    /// Transactions.
    TooManyMails,
    /// Refused content went on without end.
    TooLarge,
    /// HTTP, TLS, or content where a command should be.
    NotSmtp,
    /// Input before the greeting.
    EarlyTalker,
    /// Input where RFC 2920 allows none.
    Pipelining,
    /// The client closed its side, or the connection broke.
    Peer,
    /// We stop.
    Shutdown,
}

/// What whoever drives the machine has to do once the replies are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Start the TLS handshake; then [`super::Server::tls_started`].
    StartTls,
    /// Close the connection.
    Close(Closed),
}

/// Whoever drives the machine: takes what it has to say, answers what it asks.
pub trait Host {
    /// Where reply bytes are appended. What one call of the machine appends is bounded by its
    /// input and the limits on errors and junk; do not call it while a client reads nothing.
    fn out(&mut self) -> &mut Vec<u8>;

    /// Decides now, or returns `None` and calls [`super::Server::answer`] with the token later.
    fn ask(&mut self, token: Token, question: Question<'_>) -> Option<Answer>;

    /// A piece of the header section, its empty line included. Lent, in order, each octet once,
    /// CRLF only (but what BINARYMIME allows), dots unstuffed. At most one call's input more than
    /// `header_max` and the size limit.
    fn header(&mut self, octets: &[u8]) -> Flow;

    /// A piece of the body: what follows the header section's empty line.
    fn body(&mut self, octets: &[u8]) -> Flow;

    /// The transaction is over. Called exactly once for each MAIL that was accepted.
    fn done(&mut self, end: End);

    /// What EHLO is to announce in this session, at most `offers`.
    fn offers(&mut self, offers: Offers) -> Offers {
        offers
    }

    /// Something for the logs.
    fn note(&mut self, note: Note<'_>) {
        let _ = note;
    }
}
