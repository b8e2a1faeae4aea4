//! Every reply of the receiving machine, each text once, and how a reply is written.
//!
//! *Guarantees*: a reply line is at most 512 octets of printable ASCII and its CRLF, whatever the
//! text came from; each line of a reply carries the code (RFC 5321 4.2.1) and, with every
//! 2yz/4yz/5yz that is not a greeting, the enhanced code (RFC 2034 4).
//!
//! *Limits*: at most [`REPLY_LINES_MAX`] lines of a text from outside; the rest is cut.

use crate::limits::{ECHO_MAX, ID_MAX, REPLY_LINE_MAX, REPLY_LINES_MAX};
use std::borrow::Cow;

/// An enhanced status code (RFC 3463): class, subject, detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Enhanced(pub u8, pub u16, pub u16);

/// One fixed reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// The enhanced code; none with greetings and 3yz.
    pub enhanced: Option<Enhanced>,
    /// What follows.
    pub text: &'static str,
    /// Code and enhanced code with the spaces behind them.
    head: &'static str,
    /// The whole line.
    line: &'static str,
}

/// The id that stands in refusals and in the reply to a message: printable ASCII.
#[derive(Debug, Clone, Copy)]
pub struct Id {
    text: [u8; ID_MAX],
    session: u8,
    end: u8,
}

impl Id {
    /// The id of a session; what is not a letter or digit, or over 20 octets, is left out.
    #[must_use]
    pub fn new(session: &str) -> Self {
        let mut id = Self { text: [0; ID_MAX], session: 0, end: 0 };
        for octet in session.bytes().filter(u8::is_ascii_alphanumeric).take(20) {
            id.push(octet);
        }
        id.session = id.end;
        id
    }

    fn push(&mut self, octet: u8) {
        if let Some(place) = self.text.get_mut(usize::from(self.end)) {
            *place = octet;
            self.end += 1;
        }
    }

    /// Makes it the id of the n-th transaction of the session; 0 is the session itself.
    pub fn set_transaction(&mut self, n: u32) {
        self.end = self.session;
        if n > 0 {
            self.push(b'.');
            let (digits, start) = decimal(u64::from(n));
            for &digit in &digits[start..] {
                self.push(digit);
            }
        }
    }

    /// The id as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.text[..usize::from(self.end)]).unwrap_or_default()
    }
}

/// A refusal that the host decided: what the client reads and what becomes of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    code: u16,
    enhanced: Enhanced,
    /// The reason. Lines are split at `\n`; what is not printable ASCII is replaced.
    pub text: Cow<'static, str>,
    /// Whether the session ends with this reply (then the code is best 421, 521 or 554).
    pub close: bool,
}

impl Refusal {
    /// A refusal. A code outside 400..=599 is our own mistake and so becomes 451; an enhanced
    /// code of another class gets the class of the code.
    #[must_use]
    pub fn new(code: u16, enhanced: Enhanced, text: impl Into<Cow<'static, str>>) -> Self {
        let code = if (400..600).contains(&code) { code } else { 451 };
        let class = if code < 500 { 4 } else { 5 };
        let enhanced = Enhanced(class, enhanced.1.min(999), enhanced.2.min(999));
        Self { code, enhanced, text: text.into(), close: false }
    }

    /// One of the fixed replies as the host's refusal.
    #[must_use]
    pub fn fixed(reply: &Reply) -> Self {
        Self::new(reply.code, reply.enhanced.unwrap_or(Enhanced(5, 0, 0)), reply.text)
    }

    /// The same, with the session ended after it.
    #[must_use]
    pub fn and_close(mut self) -> Self {
        self.close = true;
        self
    }

    /// Three digits, 400..=599.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced code; its class is that of the code.
    #[must_use]
    pub fn enhanced(&self) -> Enhanced {
        self.enhanced
    }

    /// Whether the client should not try again.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }
}

/// Digits of a number, right-aligned, and where they start.
fn decimal(mut n: u64) -> ([u8; 20], usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        // A remainder of ten fits an octet.
        digits[at] = b'0' + (n % 10).to_le_bytes()[0];
        n /= 10;
        if n == 0 {
            return (digits, at);
        }
    }
}

/// Appends a decimal number.
pub fn number(out: &mut Vec<u8>, n: u64) {
    // A remainder of ten fits an octet.
    let digit = |n: u64| b'0' + (n % 10).to_le_bytes()[0];
    // Most numbers in replies and log lines are octets of addresses and codes.
    match n {
        0..10 => out.push(digit(n)),
        10..100 => out.extend_from_slice(&[digit(n / 10), digit(n)]),
        100..1000 => out.extend_from_slice(&[digit(n / 100), digit(n / 10), digit(n)]),
        _ => {
            let (digits, start) = decimal(n);
            out.extend_from_slice(&digits[start..]);
        }
    }
}

/// Appends `text` with everything but printable ASCII replaced by `?`, at most `max` octets.
pub fn printable(out: &mut Vec<u8>, text: &[u8], max: usize) {
    let text = &text[..text.len().min(max)];
    out.extend(text.iter().map(|&c| if (0x20..0x7f).contains(&c) { c } else { b'?' }));
}

fn head(out: &mut Vec<u8>, code: u16, more: bool, Enhanced(class, subject, detail): Enhanced) {
    number(out, u64::from(code));
    out.push(if more { b'-' } else { b' ' });
    number(out, u64::from(class));
    out.push(b'.');
    number(out, u64::from(subject));
    out.push(b'.');
    number(out, u64::from(detail));
    out.push(b' ');
}

impl Reply {
    /// The reply as bytes of a text, for those who refuse before a machine exists.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.text.len() + 20);
        self.write(&mut out);
        out
    }

    /// Appends the reply without an id.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.line.as_bytes());
    }

    /// Appends the reply with the id in brackets before its text.
    pub fn write_with_id(&self, out: &mut Vec<u8>, id: &Id) {
        self.write_about(out, id, b"");
    }

    /// Appends the reply with the id, and behind its text what it is about, made printable.
    pub fn write_about(&self, out: &mut Vec<u8>, id: &Id, about: &[u8]) {
        out.extend_from_slice(self.head.as_bytes());
        bracketed(out, id);
        out.extend_from_slice(self.text.as_bytes());
        if !about.is_empty() {
            out.extend_from_slice(b": ");
            printable(out, about, ECHO_MAX);
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn bracketed(out: &mut Vec<u8>, id: &Id) {
    out.push(b'[');
    out.extend_from_slice(id.as_str().as_bytes());
    out.extend_from_slice(b"] ");
}

/// Appends a refusal: one line for each line of its text, long ones folded at 400 octets.
pub fn write_refusal(out: &mut Vec<u8>, refusal: &Refusal, id: &Id) {
    const PIECE: usize = 400;
    const _: () = assert!(PIECE + ID_MAX + 32 < REPLY_LINE_MAX);
    let pieces = |line: &'_ [u8]| line.len().div_ceil(PIECE).max(1);
    let lines = || refusal.text.as_bytes().split(|&c| c == b'\n');
    let total = lines().map(pieces).sum::<usize>().min(REPLY_LINES_MAX);
    let mut written = 0;
    for line in lines() {
        for n in 0..pieces(line) {
            if written == total {
                return;
            }
            written += 1;
            head(out, refusal.code, written < total, refusal.enhanced);
            bracketed(out, id);
            let piece = &line[n * PIECE..line.len().min((n + 1) * PIECE)];
            printable(out, piece.strip_suffix(b"\r").unwrap_or(piece), PIECE);
            out.extend_from_slice(b"\r\n");
        }
    }
}

macro_rules! replies {
    ($($(#[$doc:meta])* $name:ident = $kind:ident($($part:tt)+);)+) => {
        $($(#[$doc])* pub const $name: Reply = reply!($kind($($part)+));)+
        /// All fixed replies, by name: for documents and tests.
        pub const ALL: &[(&str, &Reply)] = &[$((stringify!($name), &$name)),+];
    };
}

macro_rules! reply {
    (new(
        $code:literal, Enhanced($class:literal, $subject:literal, $detail:literal),
        $text:literal
    )) => {
        Reply {
            code: $code,
            enhanced: Some(Enhanced($class, $subject, $detail)),
            text: $text,
            head: concat!($code, " ", $class, ".", $subject, ".", $detail, " "),
            line: concat!($code, " ", $class, ".", $subject, ".", $detail, " ", $text, "\r\n"),
        }
    };
    (bare($code:literal, $text:literal)) => {
        Reply {
            code: $code,
            enhanced: None,
            text: $text,
            head: concat!($code, " "),
            line: concat!($code, " ", $text, "\r\n"),
        }
    };
}

replies! {
    /// MAIL taken.
    SENDER_OK = new(250, Enhanced(2, 1, 0), "sender ok");
    /// RCPT taken.
    RECIPIENT_OK = new(250, Enhanced(2, 1, 5), "recipient ok");
    /// NOOP.
    OK = new(250, Enhanced(2, 0, 0), "ok");
    /// RSET.
    RESET = new(250, Enhanced(2, 0, 0), "forgotten");
    /// The whole message is ours now.
    ACCEPTED = new(250, Enhanced(2, 0, 0), "accepted");
    /// A chunk that was not the last.
    CHUNK_OK = new(250, Enhanced(2, 0, 0), "chunk ok");
    /// VRFY tells nothing (RFC 5321 7.3).
    VRFY = new(252, Enhanced(2, 0, 0), "send some mail and see");
    /// HELP.
    HELP = new(214, Enhanced(2, 0, 0), "see RFC 5321; there is nobody here to help");
    /// QUIT.
    BYE = new(221, Enhanced(2, 0, 0), "bye");
    /// STARTTLS.
    GO_AHEAD = new(220, Enhanced(2, 0, 0), "go ahead");
    /// DATA.
    SEND = bare(354, "end with <CRLF>.<CRLF>");

    /// The next command did not come in time.
    TIMEOUT = new(421, Enhanced(4, 4, 2), "timeout, closing");
    /// Content came too slowly or not at all.
    DATA_TIMEOUT = new(421, Enhanced(4, 4, 2), "timeout in message content, closing");
    /// The session took longer than a session may.
    SESSION_LONG = new(421, Enhanced(4, 4, 2), "session too long, closing");
    /// The daemon is being stopped.
    SHUTDOWN = new(421, Enhanced(4, 3, 2), "shutting down, closing");
    /// No slot for this session.
    BUSY = new(421, Enhanced(4, 3, 2), "too many sessions, try again later");
    /// [`crate::limits::ERRORS_MAX`].
    ERRORS = new(421, Enhanced(4, 7, 0), "too many errors, closing");
    /// [`crate::limits::JUNK_MAX`].
    JUNK = new(421, Enhanced(4, 7, 0), "too many commands without mail, closing");
    /// [`crate::limits::REFUSED_RCPT_MAX`].
    REFUSED_RCPTS = new(421, Enhanced(4, 7, 0), "too many unknown recipients, closing");
    /// [`crate::limits::MAIL_MAX`].
    MAILS = new(421, Enhanced(4, 7, 0), "enough messages for one session, closing");
    /// Recipients over the limit (RFC 5321 4.5.3.1.10: 452, never 552).
    RCPTS = new(452, Enhanced(4, 5, 3), "too many recipients, send the rest in another message");
    /// Trouble of ours.
    LOCAL = new(451, Enhanced(4, 3, 0), "local trouble, try again later");

    /// Input before our greeting.
    EARLY = new(554, Enhanced(5, 5, 1), "you talked before the greeting, closing");
    /// Input behind a command that must end a group (RFC 2920 3.1).
    PIPELINED = new(503, Enhanced(5, 5, 1), "input behind a command that ends a group, closing");
    /// HTTP, TLS or other noise on this port.
    NOT_SMTP = new(554, Enhanced(5, 5, 1), "this is SMTP, closing");
    /// A line end that is not CRLF, in a command.
    BARE_COMMAND = new(500, Enhanced(5, 5, 2), "bare CR or LF in a command, closing");
    /// A line end that is not CRLF, in content.
    BARE_CONTENT = new(550, Enhanced(5, 6, 11), "bare CR or LF in the message, closing");
    /// A command over 2048 octets.
    LINE_LONG = new(500, Enhanced(5, 5, 2), "command line too long");
    /// A control octet in a command.
    CONTROL = new(500, Enhanced(5, 5, 2), "control character in a command");
    /// No command of ours.
    UNKNOWN = new(500, Enhanced(5, 5, 2), "command not recognised");
    /// Known commands that are not for this port.
    NOT_HERE = new(502, Enhanced(5, 5, 1), "command not implemented");
    /// A word too much.
    NO_ARGUMENT = new(501, Enhanced(5, 5, 4), "this command takes no argument");
    /// EHLO or HELO without a usable name.
    HELO_SYNTAX = new(501, Enhanced(5, 5, 2), "say EHLO and one name or address literal");
    /// MAIL without FROM:<>.
    MAIL_SYNTAX = new(501, Enhanced(5, 5, 2), "say MAIL FROM:<address>");
    /// RCPT without TO:<>.
    RCPT_SYNTAX = new(501, Enhanced(5, 5, 2), "say RCPT TO:<address>");
    /// BDAT's length cannot be read, so where it ends is unknown.
    BDAT_SYNTAX = new(501, Enhanced(5, 5, 4), "say BDAT, a number and at most LAST; closing");
    /// A sender address outside the grammar.
    SENDER_SYNTAX = new(553, Enhanced(5, 1, 7), "bad sender address syntax");
    /// A recipient address outside the grammar.
    RECIPIENT_SYNTAX = new(553, Enhanced(5, 1, 3), "bad recipient address syntax");
    /// RFC 5321 4.5.3.1.1.
    LOCAL_LONG = new(501, Enhanced(5, 1, 3), "local part over 64 octets");
    /// RFC 5321 4.5.3.1.2.
    DOMAIN_LONG = new(501, Enhanced(5, 1, 3), "domain over 255 octets or label over 63");
    /// RFC 5321 4.5.3.1.3.
    PATH_LONG = new(501, Enhanced(5, 1, 3), "path over 256 octets");
    /// 8-bit without SMTPUTF8 (RFC 6531 3.5).
    NEEDS_UTF8 = new(553, Enhanced(5, 6, 7), "non-ASCII address needs SMTPUTF8");
    /// 8-bit that is no UTF-8.
    NOT_UTF8 = new(553, Enhanced(5, 1, 3), "address is not valid UTF-8");
    /// A parameter we did not announce (RFC 5321 4.1.1.11).
    PARAMETER = new(555, Enhanced(5, 5, 4), "parameter not recognised");
    /// A parameter twice.
    TWICE = new(501, Enhanced(5, 5, 4), "parameter given twice");
    /// A value outside the grammar of its parameter.
    VALUE = new(501, Enhanced(5, 5, 4), "bad parameter value");
    /// MAIL before EHLO.
    HELO_FIRST = new(503, Enhanced(5, 5, 1), "say EHLO first");
    /// MAIL inside a transaction.
    NESTED_MAIL = new(503, Enhanced(5, 5, 1), "a message is already under way");
    /// RCPT, DATA, BDAT before MAIL.
    MAIL_FIRST = new(503, Enhanced(5, 5, 1), "say MAIL first");
    /// DATA or BDAT without a recipient that was taken.
    NO_RECIPIENTS = new(554, Enhanced(5, 5, 1), "no valid recipients");
    /// RCPT or DATA between chunks (RFC 3030 2).
    IN_CHUNKS = new(503, Enhanced(5, 5, 1), "only BDAT or RSET after BDAT");
    /// BDAT after a chunk was refused (RFC 3030 4.2).
    CHUNKS_REFUSED = new(503, Enhanced(5, 5, 1), "a chunk of this message was refused");
    /// DATA for BODY=BINARYMIME (RFC 3030 3).
    BINARY_NEEDS_BDAT = new(503, Enhanced(5, 5, 1), "BINARYMIME needs BDAT");
    /// STARTTLS again.
    TLS_ALREADY = new(503, Enhanced(5, 5, 1), "TLS is already on");
    /// SIZE or content over the limit (RFC 1870 6).
    SIZE = new(552, Enhanced(5, 3, 4), "message too large");
    /// [`crate::limits::HEADER_MAX`].
    HEADER_LARGE = new(552, Enhanced(5, 3, 4), "message header too large");
    /// [`crate::limits::TEXT_LINE_MAX`].
    TEXT_LINE = new(554, Enhanced(5, 6, 0), "line in the message too long");
    /// [`crate::limits::RECEIVED_MAX`] (RFC 5321 6.3).
    LOOP = new(554, Enhanced(5, 4, 6), "too many Received lines, this is a loop");
    /// NUL where it may not be.
    NUL = new(554, Enhanced(5, 6, 0), "NUL in the message");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        for (name, reply) in ALL {
            assert!((200..600).contains(&reply.code), "{name}");
            assert!(reply.text.len() + ECHO_MAX + ID_MAX + 24 < REPLY_LINE_MAX, "{name}");
            assert!(reply.text.bytes().all(|c| (0x20..0x7f).contains(&c)), "{name}");
            match reply.enhanced {
                Some(e) => assert_eq!(u16::from(e.0), reply.code / 100, "{name}"),
                None => assert_eq!(reply.code / 100, 3, "{name}"),
            }
            let same = ALL.iter().filter(|(_, other)| other.text == reply.text).count();
            assert_eq!(same, 1, "{name}: its text stands twice");
        }
    }

    #[test]
    fn a_refusal_is_bounded_and_printable() {
        let text = format!("one\r\ntwo\x07\u{fc}\n{}", "x".repeat(10_000));
        let refusal = Refusal::new(250, Enhanced(2, 1, 1), text);
        let mut out = Vec::new();
        let mut id = Id::new("ABC-\r\n");
        id.set_transaction(7);
        write_refusal(&mut out, &refusal, &id);
        let text = String::from_utf8(out).expect("ASCII");
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), REPLY_LINES_MAX);
        assert_eq!(lines[0], "451-4.1.1 [ABC.7] one");
        assert_eq!(lines[1], "451-4.1.1 [ABC.7] two???");
        assert!(lines.iter().all(|l| l.len() + 2 <= REPLY_LINE_MAX && !l.contains('\r')));
        assert!(lines[REPLY_LINES_MAX - 1].starts_with("451 4.1.1 "));
    }

    #[test]
    fn the_id_never_overflows() {
        let mut id = Id::new(&"Z".repeat(50));
        id.set_transaction(u32::MAX);
        assert_eq!(id.as_str(), format!("{}.4294967295", "Z".repeat(20)));
        id.set_transaction(0);
        assert_eq!(id.as_str().len(), 20);
    }
}
