//! Every reason for which something is refused, deferred or given up, each written once.
//!
//! *Guarantees.* Labels are stable: dashboards and filters may rely on them. Every refusal in the
//! SMTP machine's table of replies has its reason here.

use smtp::reply::{self, Enhanced, Refusal, Reply};

/// What the peer hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Three digits, 400..=599.
    pub code: u16,
    /// The enhanced status (RFC 3463); its class is that of the code.
    pub enhanced: Enhanced,
    /// The text, printable ASCII.
    pub text: &'static str,
}

/// An answer that no table of `smtp` has.
const fn new(code: u16, enhanced: (u8, u16, u16), text: &'static str) -> Answer {
    Answer { code, enhanced: Enhanced(enhanced.0, enhanced.1, enhanced.2), text }
}

/// One that the SMTP machine gives by itself.
const fn fixed(reply: &Reply) -> Answer {
    match reply.enhanced {
        Some(enhanced) => Answer { code: reply.code, enhanced, text: reply.text },
        None => panic!("a refusal has an enhanced code"),
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $label:literal, $reply:expr;)+) => {
        /// Why.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            const TABLE: &'static [(&'static str, Answer)] = &[$(($label, $reply),)+];
        }
    };
}

reasons! {
    // The session.

    /// Everything is used up.
    Busy = "busy", fixed(&reply::BUSY);
    /// The daemon stops.
    Shutdown = "shutdown", fixed(&reply::SHUTDOWN);
    /// Trouble of ours that no other reason names.
    Local = "local", fixed(&reply::LOCAL);
    /// As many sessions of this client are open as may be.
    ClientConnections = "client_connections",
        new(421, (4, 7, 0), "too many connections from your address");
    /// This client connects too often.
    ClientConnectionRate = "client_connection_rate",
        new(421, (4, 7, 0), "your address connects too often");
    /// The daemon fell over in sessions of this client.
    ClientNoted = "client_noted", new(421, (4, 3, 0), "your sessions make trouble here");
    /// The spool is below its lower watermark.
    SpoolOut = "spool_out",
        new(421, (4, 3, 1), "no room for new sessions, try again later");
    /// The operator has suspended accepting.
    Suspended = "suspended",
        new(421, (4, 3, 2), "mail is not taken at present, try again later");
    /// The operator turns this address away.
    Blocked = "blocked", new(554, (5, 7, 1), "your address is blocked here");
    /// A listener that requires a PROXY header got none, a broken one, or one from a stranger.
    ProxyHeader = "proxy_header", new(421, (4, 7, 0), "this port is for our proxies");
    /// The client stands on a list.
    Listed = "listed", new(554, (5, 7, 1), "your address is listed");
    /// The client came again although it was refused, or did worse.
    Banned = "banned", new(554, (5, 7, 1), "your address was refused too often");
    /// The client spoke before the greeting.
    EarlyTalker = "early_talker", fixed(&reply::EARLY);
    /// The client speaks HTTP, TLS or noise.
    NotSmtp = "not_smtp", fixed(&reply::NOT_SMTP);
    /// The next command did not come.
    Timeout = "timeout", fixed(&reply::TIMEOUT);
    /// Content did not come.
    DataTimeout = "data_timeout", fixed(&reply::DATA_TIMEOUT);
    /// The session took too long.
    SessionLong = "session_long", fixed(&reply::SESSION_LONG);
    /// Too many refused commands.
    TooManyErrors = "too_many_errors", fixed(&reply::ERRORS);
    /// Too many commands that do no work.
    TooManyIdleCommands = "too_many_idle_commands", fixed(&reply::JUNK);
    /// Too many unknown recipients.
    TooManyUnknown = "too_many_unknown", fixed(&reply::REFUSED_RCPTS);
    /// Enough messages for one session.
    TooManyMessages = "too_many_messages", fixed(&reply::MAILS);
    /// The connection broke.
    ConnectionLost = "connection_lost", new(421, (4, 4, 2), "connection lost");

    // Commands.

    /// Input behind a command that ends a group.
    Pipelined = "pipelined", fixed(&reply::PIPELINED);
    /// A line end that is not CRLF, in a command.
    BareCommand = "bare_newline_command", fixed(&reply::BARE_COMMAND);
    /// A command line that is too long.
    LineLong = "line_long", fixed(&reply::LINE_LONG);
    /// A control octet in a command.
    Control = "control", fixed(&reply::CONTROL);
    /// No command.
    UnknownCommand = "unknown_command", fixed(&reply::UNKNOWN);
    /// No command of this port.
    NotImplemented = "not_implemented", fixed(&reply::NOT_HERE);
    /// An argument where there is none.
    NoArgument = "no_argument", fixed(&reply::NO_ARGUMENT);
    /// EHLO or HELO without a usable name.
    HeloSyntax = "helo_syntax", fixed(&reply::HELO_SYNTAX);
    /// MAIL without FROM:<>.
    MailSyntax = "mail_syntax", fixed(&reply::MAIL_SYNTAX);
    /// RCPT without TO:<>.
    RcptSyntax = "rcpt_syntax", fixed(&reply::RCPT_SYNTAX);
    /// BDAT without a length.
    BdatSyntax = "bdat_syntax", fixed(&reply::BDAT_SYNTAX);
    /// A sender outside the grammar.
    SenderSyntax = "sender_syntax", fixed(&reply::SENDER_SYNTAX);
    /// A recipient outside the grammar.
    RecipientSyntax = "recipient_syntax", fixed(&reply::RECIPIENT_SYNTAX);
    /// A local part that is too long.
    LocalLong = "local_part_long", fixed(&reply::LOCAL_LONG);
    /// A domain that is too long.
    DomainLong = "domain_long", fixed(&reply::DOMAIN_LONG);
    /// A path that is too long.
    PathLong = "path_long", fixed(&reply::PATH_LONG);
    /// An 8-bit address without SMTPUTF8.
    NeedsUtf8 = "needs_smtputf8", fixed(&reply::NEEDS_UTF8);
    /// An 8-bit address that is no UTF-8.
    NotUtf8 = "not_utf8", fixed(&reply::NOT_UTF8);
    /// An unknown parameter.
    Parameter = "parameter", fixed(&reply::PARAMETER);
    /// A parameter twice.
    ParameterTwice = "parameter_twice", fixed(&reply::TWICE);
    /// A parameter's value outside the grammar.
    ParameterValue = "parameter_value", fixed(&reply::VALUE);
    /// MAIL before EHLO.
    HeloFirst = "helo_first", fixed(&reply::HELO_FIRST);
    /// MAIL inside a transaction.
    NestedMail = "nested_mail", fixed(&reply::NESTED_MAIL);
    /// RCPT or DATA before MAIL.
    MailFirst = "mail_first", fixed(&reply::MAIL_FIRST);
    /// DATA without recipients.
    NoRecipients = "no_recipients", fixed(&reply::NO_RECIPIENTS);
    /// Another command between chunks.
    InChunks = "in_chunks", fixed(&reply::IN_CHUNKS);
    /// BDAT after a refused chunk.
    ChunksRefused = "chunks_refused", fixed(&reply::CHUNKS_REFUSED);
    /// DATA for a binary message.
    BinaryNeedsBdat = "binary_needs_bdat", fixed(&reply::BINARY_NEEDS_BDAT);
    /// STARTTLS inside TLS.
    TlsAlready = "tls_already", fixed(&reply::TLS_ALREADY);
    /// The listener takes mail over TLS only.
    TlsRequired = "tls_required", new(530, (5, 7, 0), "say STARTTLS first");
    /// A TLS handshake failed.
    TlsFailed = "tls_failed", new(454, (4, 7, 0), "TLS failed");

    // The envelope.

    /// This client sends too many messages.
    ClientMessageRate = "client_message_rate",
        new(451, (4, 7, 1), "too many messages from your address, try again later");
    /// This client names too many recipients.
    ClientRecipientRate = "client_recipient_rate",
        new(451, (4, 7, 1), "too many recipients from your address, try again later");
    /// A message over the size limit.
    Size = "size", fixed(&reply::SIZE);
    /// Every next hop of this recipient takes smaller messages only.
    SizeBehind = "size_behind", new(552, (5, 3, 4), "too large for this recipient");
    /// No room in the spool.
    SpoolFull = "spool_full", new(452, (4, 3, 1), "no room, try again later");
    /// The queue's table is full.
    QueueFull = "queue_full", new(452, (4, 3, 1), "too much mail is waiting, try again later");
    /// The log of the mail cannot be written.
    LogUnwritable = "log_unwritable",
        new(451, (4, 3, 0), "cannot write the mail log, try again later");
    /// The spool could not make the message durable.
    SpoolFailed = "spool_failed", new(451, (4, 3, 0), "cannot keep mail now, try again later");
    /// Too many recipients.
    Recipients = "recipients", fixed(&reply::RCPTS);
    /// A recipient elsewhere, from a client that may not relay.
    RelayDenied = "relay_denied", new(550, (5, 7, 1), "relaying denied");
    /// Nobody of ours.
    UnknownRecipient = "unknown_recipient", new(550, (5, 1, 1), "no such recipient here");
    /// The domain takes no mail (RFC 7505).
    NullMx = "null_mx", new(556, (5, 1, 10), "the recipient's domain takes no mail");
    /// The next hop would be ourselves.
    RouteLoop = "route_loop", new(554, (5, 4, 6), "mail for this domain would come back here");
    /// The domain does not exist, or has no host.
    NoHost = "no_host", new(550, (5, 4, 4), "the recipient's domain has no host");
    /// No route leads there.
    NoRoute = "no_route", new(550, (5, 4, 4), "no route to the recipient's domain");
    /// Where the mail should go cannot be found out now.
    DnsTrouble = "dns_trouble", new(451, (4, 4, 3), "cannot look up the recipient's domain now");
    /// An answer of ours did not come in time.
    AnswerLate = "answer_late", new(451, (4, 3, 0), "no decision yet, try again later");
    /// No next hop of this recipient takes SMTPUTF8.
    Utf8Behind = "smtputf8_behind",
        new(553, (5, 6, 7), "internationalised mail cannot reach this recipient");
    /// No next hop of this recipient takes BINARYMIME.
    BinaryBehind = "binary_behind", new(554, (5, 6, 1), "binary mail cannot reach this recipient");

    // Content.

    /// A line end that is not CRLF, in content.
    BareContent = "bare_newline", fixed(&reply::BARE_CONTENT);
    /// A header section that is too large.
    HeaderLarge = "header_large", fixed(&reply::HEADER_LARGE);
    /// A line of content that is too long.
    TextLine = "text_line", fixed(&reply::TEXT_LINE);
    /// Too many Received lines.
    Loop = "loop", fixed(&reply::LOOP);
    /// NUL in content.
    Nul = "nul", fixed(&reply::NUL);

    // Next hops.

    /// Nobody listens.
    HopRefused = "hop_refused", new(451, (4, 4, 1), "connection refused by the next hop");
    /// No connection in time.
    HopConnectTimeout = "hop_connect_timeout",
        new(451, (4, 4, 1), "the next hop does not answer");
    /// No way there.
    HopUnreachable = "hop_unreachable", new(451, (4, 4, 1), "the next hop cannot be reached");
    /// An answer did not come in time.
    HopTimeout = "hop_timeout", new(451, (4, 4, 2), "the next hop did not answer in time");
    /// The connection broke.
    HopLost = "hop_lost", new(451, (4, 4, 2), "the next hop closed the connection");
    /// It broke after the final dot: the next attempt may make a second copy.
    HopLostAfterDot = "hop_lost_after_dot",
        new(451, (4, 4, 2), "the next hop closed the connection after the final dot");
    /// What it says is no SMTP.
    HopProtocol = "hop_protocol", new(451, (4, 5, 0), "the next hop broke the protocol");
    /// TLS is required and cannot be had.
    HopTls = "hop_tls", new(451, (4, 7, 5), "no TLS with the next hop");
    /// The next hop does not offer what the message needs, though it did before.
    HopOffer = "hop_offer", new(554, (5, 6, 3), "the next hop does not take this kind of mail");
    /// It said 4yz.
    HopTemporary = "hop_temporary", new(451, (4, 0, 0), "the next hop refused for now");
    /// It said 5yz.
    HopPermanent = "hop_permanent", new(554, (5, 0, 0), "the next hop refused");
    /// As many connections to it are open as may be, or it is known to be down.
    HopBusy = "hop_busy", new(451, (4, 4, 5), "the next hop is busy or down");
    /// An operator gave it up.
    Operator = "operator", new(554, (5, 7, 0), "given up by the administrator of this server");
    /// The last attempt before the mail's time ran out.
    Expired = "expired", new(554, (5, 4, 7), "delivery time expired");
}

impl Reason {
    /// Its place in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its stable name for metrics and JSON: lower case, digits and `_`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        Self::TABLE[self as usize].0
    }

    /// What the peer hears: code, enhanced status (RFC 3463) and text. For what happens at a next
    /// hop, what a DSN says when the hop said nothing itself.
    #[must_use]
    pub const fn answer(self) -> &'static Answer {
        &Self::TABLE[self as usize].1
    }

    /// The text for logs, the same as in the reply.
    #[must_use]
    pub const fn text(self) -> &'static str {
        self.answer().text
    }

    /// Whether trying again is of no use.
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        self.answer().code >= 500
    }

    /// The refusal with what only this one says, behind a colon.
    #[must_use]
    pub fn refusal_about(self, detail: &str) -> Refusal {
        let answer = self.answer();
        Refusal::new(answer.code, answer.enhanced, format!("{}: {detail}", answer.text))
    }

    /// The refusal as the SMTP machine takes it.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        let answer = self.answer();
        Refusal::new(answer.code, answer.enhanced, answer.text)
    }

    /// The reason of a refusal that the SMTP machine decided by itself.
    #[must_use]
    pub fn of(reply: &Reply) -> Option<Self> {
        Self::said(reply.code, reply.text)
    }

    /// The reason whose answer has this code and text.
    #[must_use]
    pub fn said(code: u16, text: &str) -> Option<Self> {
        // Behind a colon stands what only this refusal says.
        let text = text.split_once(": ").map_or(text, |(head, _)| head);
        let same = |(_, row): &(&str, Answer)| row.code == code && row.text == text;
        Self::TABLE.iter().position(same).and_then(|at| Self::ALL.get(at).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn labels_and_texts_are_good_and_stand_once() {
        let (mut labels, mut texts) = (HashSet::new(), HashSet::new());
        for reason in Reason::ALL {
            let label = reason.label();
            let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            assert!(label.bytes().all(good) && labels.insert(label), "{label}");
            assert!(texts.insert(reason.text()), "{label}: its text stands twice");
            assert!(reason.text().bytes().all(|b| (0x20..0x7f).contains(&b)), "{label}");
            let answer = reason.answer();
            assert!((400..600).contains(&answer.code), "{label}");
            assert_eq!(u16::from(answer.enhanced.0), answer.code / 100, "{label}");
            assert_eq!(reason.refusal().code(), answer.code, "{label}");
        }
    }

    #[test]
    fn every_refusal_of_the_machine_has_its_reason() {
        for (name, reply) in reply::ALL.iter().filter(|(_, reply)| reply.code >= 400) {
            let reason = Reason::of(reply);
            assert!(reason.is_some(), "smtp::reply::{name} has no reason");
            assert_eq!(reason.map(Reason::text), Some(reply.text), "{name}");
        }
        assert_eq!(Reason::of(&reply::OK), None);
    }

    #[test]
    fn local_trouble_is_temporary() {
        for reason in [
            Reason::Local,
            Reason::Busy,
            Reason::SpoolFull,
            Reason::SpoolOut,
            Reason::QueueFull,
            Reason::LogUnwritable,
            Reason::SpoolFailed,
            Reason::DnsTrouble,
            Reason::AnswerLate,
        ] {
            assert!(!reason.is_permanent(), "{}", reason.label());
        }
    }
}
