//! One command line, taken apart: verbs, arguments, ESMTP parameters.
//!
//! *Guarantees*: nothing is allocated; what is returned borrows from the line. A parameter that
//! the [`Offers`] do not hold is refused with 555 (RFC 5321 4.1.1.11), a repeated one with 501.
//!
//! *Limits*: line, path and parameter lengths of [`crate::limits`].
//!
//! *Not here*: the order of commands, policy, where a line ends.

pub mod parameters;

use crate::address::{self, Domain, Fault, Path};
use crate::limits::{HELO_MAX, NUMBER_DIGITS_MAX};
use crate::reply::{self, Reply};
pub use parameters::{Body, MailParameters, Notify, RcptParameters, Ret};

/// What EHLO announces, and so what MAIL and RCPT may use.
#[expect(clippy::struct_excessive_bools, reason = "one flag is one EHLO keyword")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offers {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870): octets of the largest message; 0 says there is no fixed limit.
    pub size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// BINARYMIME (RFC 3030); only with `chunking`.
    pub binary_mime: bool,
    /// SMTPUTF8 (RFC 6531); only with `eight_bit_mime`.
    pub smtputf8: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034). The codes are sent in any case.
    pub enhanced_status_codes: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// LIMITS (RFC 9422) with RCPTMAX and MAILMAX.
    pub limits: bool,
    /// STARTTLS (RFC 3207); never announced inside TLS.
    pub starttls: bool,
}

impl Offers {
    /// HELO: no extension at all.
    pub const NONE: Self = Self {
        pipelining: false,
        size: None,
        eight_bit_mime: false,
        chunking: false,
        binary_mime: false,
        smtputf8: false,
        enhanced_status_codes: false,
        dsn: false,
        limits: false,
        starttls: false,
    };

    /// Everything this crate knows.
    #[must_use]
    pub const fn all(size: u64) -> Self {
        Self {
            pipelining: true,
            size: Some(size),
            eight_bit_mime: true,
            chunking: true,
            binary_mime: true,
            smtputf8: true,
            enhanced_status_codes: true,
            dsn: true,
            limits: true,
            starttls: true,
        }
    }
}

/// What a client calls itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Helo<'a> {
    /// As given: printable ASCII without spaces, 1..=255 octets.
    pub name: &'a [u8],
    /// What it is by the grammar; `None` for names that real clients use and no DNS knows.
    pub domain: Option<Domain<'a>>,
    /// EHLO, not HELO.
    pub extended: bool,
}

/// A command that follows the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// EHLO or HELO.
    Helo(Helo<'a>),
    /// MAIL FROM.
    Mail {
        /// The reverse-path.
        from: Path<'a>,
        /// Its parameters.
        parameters: MailParameters<'a>,
    },
    /// RCPT TO.
    Rcpt {
        /// The forward-path, never null.
        to: address::Address<'a>,
        /// Its parameters.
        parameters: RcptParameters<'a>,
    },
    /// DATA.
    Data,
    /// BDAT (RFC 3030 2).
    Bdat {
        /// Octets that follow the line.
        octets: u64,
        /// The last chunk of the message.
        last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP, whatever follows.
    Noop,
    /// VRFY, whatever follows.
    Vrfy,
    /// HELP, whatever follows.
    Help,
    /// QUIT.
    Quit,
    /// STARTTLS.
    StartTls,
}

/// Why a line is no command for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// The reply says it; the session goes on.
    Reply(&'static Reply),
    /// The reply says it and the session must end: where the next command starts is unknown, or
    /// the other side does not speak SMTP.
    Fatal(&'static Reply),
    /// Not our words at all.
    Unknown,
}

/// The words at the front of a line that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Ehlo,
    Helo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Vrfy,
    Help,
    Quit,
    StartTls,
    NotHere,
    NotSmtp,
}

/// Up to eight octets in upper case as one number, so that a verb is one comparison.
const fn word(text: &[u8]) -> u64 {
    let mut value = 0;
    let mut n = 0;
    while n < text.len() && n < 8 {
        value = value << 8 | text[n].to_ascii_uppercase() as u64;
        n += 1;
    }
    value
}

macro_rules! verbs {
    ($value:expr; $($text:literal => $verb:ident),+ $(,)?) => {{
        $(const $verb: u64 = word($text);)+
        match $value { $($verb => Some(Verb::$verb),)+ _ => None }
    }};
}

#[expect(non_upper_case_globals, reason = "the constants carry the names of the variants")]
fn verb(text: &[u8]) -> Option<Verb> {
    if text.len() > 8 {
        return None;
    }
    let value = word(text);
    let known = verbs!(value;
        b"EHLO" => Ehlo, b"HELO" => Helo, b"MAIL" => Mail, b"RCPT" => Rcpt, b"DATA" => Data,
        b"BDAT" => Bdat, b"RSET" => Rset, b"NOOP" => Noop, b"VRFY" => Vrfy, b"HELP" => Help,
        b"QUIT" => Quit, b"STARTTLS" => StartTls,
    );
    known.or_else(|| match text.to_ascii_uppercase().as_slice() {
        b"AUTH" | b"EXPN" | b"TURN" | b"ETRN" | b"ATRN" | b"SEND" | b"SOML" | b"SAML"
        | b"XCLIENT" | b"XFORWARD" | b"BURL" | b"LHLO" => Some(Verb::NotHere),
        b"GET" | b"POST" | b"PUT" | b"HEAD" | b"CONNECT" | b"OPTIONS" | b"DELETE" | b"TRACE"
        | b"PATCH" | b"PRI" | b"HOST:" | b"SSH-2.0" => Some(Verb::NotSmtp),
        _ => None,
    })
}

/// Whether the first octets of a connection or line are those of a TLS record (RFC 8446 5.1:
/// handshake, version 3.x): a ClientHello where SMTP should be.
#[must_use]
pub fn is_tls(start: &[u8]) -> bool {
    matches!(start, [0x16, 0x03, ..])
}

impl<'a> Command<'a> {
    /// Takes a line without its CRLF apart. `utf8` says whether the transaction under way was
    /// opened with SMTPUTF8 (MAIL looks at its own parameters instead).
    ///
    /// # Errors
    /// [`Wrong`], with the reply to give.
    pub fn parse(line: &'a [u8], offers: &Offers, utf8: bool) -> Result<Self, Wrong> {
        let end = line.iter().position(|&c| c == b' ').unwrap_or(line.len());
        let (name, rest) = (&line[..end], line.get(end + 1..).unwrap_or_default());
        let Some(verb) = verb(name) else { return Err(unknown(line, name)) };
        if address::has_control(line) {
            let wrong = if verb == Verb::Bdat { Wrong::Fatal } else { Wrong::Reply };
            return Err(wrong(&reply::CONTROL));
        }
        let rest = rest.trim_ascii_end();
        match verb {
            Verb::Ehlo => helo(rest, true),
            Verb::Helo => helo(rest, false),
            Verb::Mail => mail(rest, offers),
            Verb::Rcpt => rcpt(rest, offers, utf8),
            Verb::Data => alone(rest, Self::Data),
            Verb::Bdat => bdat(rest),
            Verb::Rset => alone(rest, Self::Rset),
            Verb::Noop => Ok(Self::Noop),
            Verb::Vrfy => Ok(Self::Vrfy),
            Verb::Help => Ok(Self::Help),
            Verb::Quit => alone(rest, Self::Quit),
            Verb::StartTls => alone(rest, Self::StartTls),
            Verb::NotHere => Err(Wrong::Reply(&reply::NOT_HERE)),
            Verb::NotSmtp => Err(Wrong::Fatal(&reply::NOT_SMTP)),
        }
    }
}

/// A line whose first word we do not know: an error of a client, or no client at all.
fn unknown(line: &[u8], name: &[u8]) -> Wrong {
    // A header line where a command should be is HTTP, or content taken for commands.
    let header = name.len() > 1 && name.ends_with(b":") && name[0].is_ascii_alphabetic();
    if is_tls(line) || header {
        return Wrong::Fatal(&reply::NOT_SMTP);
    }
    if address::has_control(line) {
        return Wrong::Reply(&reply::CONTROL);
    }
    Wrong::Unknown
}

fn alone<'a>(rest: &[u8], command: Command<'a>) -> Result<Command<'a>, Wrong> {
    if rest.is_empty() { Ok(command) } else { Err(Wrong::Reply(&reply::NO_ARGUMENT)) }
}

fn helo(rest: &[u8], extended: bool) -> Result<Command<'_>, Wrong> {
    let name = rest.trim_ascii_start();
    let plain = name.iter().all(|&c| (0x21..0x7f).contains(&c));
    if name.is_empty() || name.len() > HELO_MAX || !plain {
        return Err(Wrong::Reply(&reply::HELO_SYNTAX));
    }
    let domain = match address::domain(name) {
        Ok((domain, used)) if used == name.len() => Some(domain),
        _ => None,
    };
    Ok(Command::Helo(Helo { name, domain, extended }))
}

/// The path and the parameters behind `FROM:` or `TO:`; spaces before the path are tolerated.
fn after_colon<'a>(rest: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(word.len())?;
    head.eq_ignore_ascii_case(word).then(|| tail.trim_ascii_start())
}

fn mail<'a>(rest: &'a [u8], offers: &Offers) -> Result<Command<'a>, Wrong> {
    let text = after_colon(rest, b"FROM:").ok_or(Wrong::Reply(&reply::MAIL_SYNTAX))?;
    // SMTPUTF8 stands behind the path that it allows: take the path leniently, judge it after.
    let (from, used) = Path::parse(text, true).map_err(|f| fault(f, &reply::SENDER_SYNTAX))?;
    let parameters = MailParameters::parse(tail(text, used)?, offers)?;
    match from {
        Path::Mailbox(from) if from.domain().is_none() => {
            return Err(Wrong::Reply(&reply::SENDER_SYNTAX));
        }
        _ if !parameters.smtputf8 && !text[..used].is_ascii() => {
            return Err(Wrong::Reply(&reply::NEEDS_UTF8));
        }
        _ => {}
    }
    Ok(Command::Mail { from, parameters })
}

fn rcpt<'a>(rest: &'a [u8], offers: &Offers, utf8: bool) -> Result<Command<'a>, Wrong> {
    let text = after_colon(rest, b"TO:").ok_or(Wrong::Reply(&reply::RCPT_SYNTAX))?;
    let (path, used) = Path::parse(text, utf8).map_err(|f| fault(f, &reply::RECIPIENT_SYNTAX))?;
    let Path::Mailbox(to) = path else {
        return Err(Wrong::Reply(&reply::RECIPIENT_SYNTAX));
    };
    let parameters = RcptParameters::parse(tail(text, used)?, offers, utf8)?;
    Ok(Command::Rcpt { to, parameters })
}

/// What follows the path: nothing, or a space and parameters.
fn tail(text: &[u8], used: usize) -> Result<&[u8], Wrong> {
    match &text[used..] {
        [] => Ok(&[]),
        [b' ', rest @ ..] => Ok(rest),
        _ => Err(Wrong::Reply(&reply::VALUE)),
    }
}

fn fault(fault: Fault, syntax: &'static Reply) -> Wrong {
    Wrong::Reply(match fault {
        Fault::Syntax => syntax,
        Fault::Control => &reply::CONTROL,
        Fault::EightBit => &reply::NEEDS_UTF8,
        Fault::Encoding => &reply::NOT_UTF8,
        Fault::LocalLong => &reply::LOCAL_LONG,
        Fault::DomainLong => &reply::DOMAIN_LONG,
        Fault::PathLong => &reply::PATH_LONG,
    })
}

fn bdat<'a>(rest: &[u8]) -> Result<Command<'a>, Wrong> {
    let wrong = Wrong::Fatal(&reply::BDAT_SYNTAX);
    let mut words = rest.split(|&c| c == b' ');
    let octets = words.next().and_then(decimal).ok_or(wrong)?;
    let last = match words.next() {
        None => false,
        Some(text) if text.eq_ignore_ascii_case(b"LAST") => true,
        Some(_) => return Err(wrong),
    };
    if words.next().is_some() { Err(wrong) } else { Ok(Command::Bdat { octets, last }) }
}

/// 1 to 20 digits that fit 64 bits.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > NUMBER_DIGITS_MAX {
        return None;
    }
    text.iter().try_fold(0_u64, |value, &c| {
        let digit = c.is_ascii_digit().then(|| u64::from(c - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const ALL: Offers = Offers::all(1000);

    fn parse(line: &str) -> Result<Command<'_>, Wrong> {
        Command::parse(line.as_bytes(), &ALL, false)
    }

    #[test]
    fn verbs_in_any_case_and_nothing_near_them() {
        assert_eq!(parse("qUiT"), Ok(Command::Quit));
        assert_eq!(parse("StartTLS "), Ok(Command::StartTls));
        for line in ["", " QUIT", "QUITT", "QUI", "EHLOX y", "\u{fc}"] {
            assert_eq!(parse(line), Err(Wrong::Unknown), "{line}");
        }
        assert_eq!(parse("GET / HTTP/1.1"), Err(Wrong::Fatal(&reply::NOT_SMTP)));
        assert_eq!(parse("User-Agent: x"), Err(Wrong::Fatal(&reply::NOT_SMTP)));
        assert_eq!(parse("\x16\x03\x01"), Err(Wrong::Fatal(&reply::NOT_SMTP)));
        assert_eq!(parse("AUTH PLAIN x"), Err(Wrong::Reply(&reply::NOT_HERE)));
        assert_eq!(parse("DATA x"), Err(Wrong::Reply(&reply::NO_ARGUMENT)));
        assert_eq!(parse("NOOP \x07"), Err(Wrong::Reply(&reply::CONTROL)));
    }

    #[test]
    fn a_bdat_whose_end_is_unknown_is_fatal() {
        assert_eq!(parse("BDAT 5"), Ok(Command::Bdat { octets: 5, last: false }));
        assert_eq!(parse("bdat 0 last"), Ok(Command::Bdat { octets: 0, last: true }));
        assert_eq!(
            parse(&format!("BDAT {}", u64::MAX)),
            Ok(Command::Bdat { octets: u64::MAX, last: false })
        );
        for line in [
            "BDAT",
            "BDAT ",
            "BDAT -5 LAST",
            "BDAT +5",
            "BDAT 5 LAST x",
            "BDAT 5 FIRST",
            "BDAT 18446744073709551616",
            "BDAT 000000000000000000001",
            "BDAT 5  LAST",
            "BDAT\t5",
        ] {
            assert!(matches!(parse(line), Err(Wrong::Fatal(_) | Wrong::Unknown | Wrong::Reply(_))));
            if line != "BDAT\t5" {
                assert_eq!(parse(line), Err(Wrong::Fatal(&reply::BDAT_SYNTAX)), "{line}");
            }
        }
    }

    #[test]
    fn helo_names() {
        let Ok(Command::Helo(helo)) = parse("EHLO [IPv6:::1]") else { panic!() };
        assert!(matches!(helo.domain, Some(Domain::V6(_))) && helo.extended);
        let Ok(Command::Helo(helo)) = parse("HELO my_pc") else { panic!() };
        assert!(helo.domain.is_none() && !helo.extended);
        for line in ["EHLO", "EHLO  ", "EHLO a b", "EHLO \u{fc}"] {
            assert_eq!(parse(line), Err(Wrong::Reply(&reply::HELO_SYNTAX)), "{line}");
        }
        assert!(parse(&format!("EHLO {}", "a".repeat(256))).is_err());
    }

    #[test]
    fn paths_that_only_smtputf8_allows() {
        assert!(parse("MAIL FROM:<\u{fc}@x.org> SMTPUTF8").is_ok());
        assert_eq!(parse("MAIL FROM:<\u{fc}@x.org>"), Err(Wrong::Reply(&reply::NEEDS_UTF8)));
        assert_eq!(parse("RCPT TO:<\u{fc}@x.org>"), Err(Wrong::Reply(&reply::NEEDS_UTF8)));
        assert!(Command::parse("RCPT TO:<\u{fc}@x.org>".as_bytes(), &ALL, true).is_ok());
        assert_eq!(parse("RCPT TO:<>"), Err(Wrong::Reply(&reply::RECIPIENT_SYNTAX)));
        assert_eq!(parse("MAIL FROM:<postmaster>"), Err(Wrong::Reply(&reply::SENDER_SYNTAX)));
        assert!(parse("RCPT TO:<postmaster>").is_ok());
        assert!(parse("mail from: <a@b>").is_ok());
        assert_eq!(parse("MAIL FROM:<a@b>x"), Err(Wrong::Reply(&reply::VALUE)));
        assert_eq!(parse("MAIL TO:<a@b>"), Err(Wrong::Reply(&reply::MAIL_SYNTAX)));
    }
}
