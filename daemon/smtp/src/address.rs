//! Addresses and paths by the grammar of RFC 5321 4.1.2 and RFC 6531 3.3.
//!
//! *Guarantees*: an [`Address`] holds no control octet, no octet above 126 unless UTF-8 was
//! allowed (then valid UTF-8 without C1 controls), and no part over its limit. Octets stay as the
//! client gave them; a source route is checked and dropped (RFC 5321 4.1.1.3).
//!
//! *Not here*: whether an address exists, case folding, internationalised domain names.

use crate::limits::{DOMAIN_MAX, LABEL_MAX, LOCAL_MAX, PATH_MAX};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Why an address or path was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does not follow the grammar.
    Syntax,
    /// A control octet, or UTF-8 for one.
    Control,
    /// An octet above 127 where SMTPUTF8 was not asked for (RFC 6531 3.5).
    EightBit,
    /// Octets above 127 that are no UTF-8.
    Encoding,
    /// The local-part is over 64 octets.
    LocalLong,
    /// The domain is over 255 octets or one label over 63.
    DomainLong,
    /// The path is over 256 octets.
    PathLong,
}

/// What stands behind the `@`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain<'a> {
    /// A name of letters, digits, hyphens (and UTF-8 where allowed), as given.
    Name(&'a [u8]),
    /// `[192.0.2.1]`.
    V4(Ipv4Addr),
    /// `[IPv6:2001:db8::1]`.
    V6(Ipv6Addr),
}

/// A checked mailbox: `local@domain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address<'a> {
    whole: &'a [u8],
    at: usize,
    domain: Option<Domain<'a>>,
}

impl<'a> Address<'a> {
    /// Checks `local@domain` as it stands between angle brackets.
    ///
    /// # Errors
    /// The first [`Fault`] met.
    pub fn parse(text: &'a [u8], utf8: bool) -> Result<Self, Fault> {
        octets(text, utf8)?;
        let (address, rest) = mailbox(text)?;
        if rest == text.len() { Ok(address) } else { Err(Fault::Syntax) }
    }

    /// The address as given, source route removed.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.whole
    }

    /// The local-part as given, quotes included.
    #[must_use]
    pub fn local(&self) -> &'a [u8] {
        &self.whole[..self.at]
    }

    /// The domain or address literal as given; empty for a bare `postmaster`.
    #[must_use]
    pub fn domain_bytes(&self) -> &'a [u8] {
        self.whole.get(self.at + 1..).unwrap_or_default()
    }

    /// The domain; none for a bare `postmaster`.
    #[must_use]
    pub fn domain(&self) -> Option<Domain<'a>> {
        self.domain
    }

    /// Whether the local-part is `postmaster` in any case (RFC 5321 4.5.1).
    #[must_use]
    pub fn is_postmaster(&self) -> bool {
        self.local().eq_ignore_ascii_case(b"postmaster")
    }

    /// Whether an octet above 127 stands in it.
    #[must_use]
    pub fn is_8bit(&self) -> bool {
        !self.whole.is_ascii()
    }
}

/// What stands between the angle brackets of MAIL FROM and RCPT TO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path<'a> {
    /// `<>`, the null reverse-path.
    Null,
    /// A mailbox, or `<postmaster>` without a domain.
    Mailbox(Address<'a>),
}

impl<'a> Path<'a> {
    /// Takes a path from the front of `text`; the second value is the octets it used.
    ///
    /// # Errors
    /// The first [`Fault`] met.
    pub fn parse(text: &'a [u8], utf8: bool) -> Result<(Self, usize), Fault> {
        if text.first() != Some(&b'<') {
            return Err(Fault::Syntax);
        }
        let close = closing(text).ok_or(Fault::Syntax)?;
        let inside = &text[1..close];
        octets(inside, utf8)?;
        if close + 1 > PATH_MAX {
            // The part that is too long says more than the whole.
            let part = mailbox(inside).err().filter(|f| *f != Fault::Syntax);
            return Err(part.unwrap_or(Fault::PathLong));
        }
        if inside.is_empty() {
            return Ok((Self::Null, close + 1));
        }
        let inside = &inside[route(inside)?..];
        if inside.eq_ignore_ascii_case(b"postmaster") {
            let address = Address { whole: inside, at: inside.len(), domain: None };
            return Ok((Self::Mailbox(address), close + 1));
        }
        let (address, used) = mailbox(inside)?;
        if used != inside.len() {
            return Err(Fault::Syntax);
        }
        Ok((Self::Mailbox(address), close + 1))
    }
}

/// Where the `>` stands that is not inside a quoted string.
fn closing(text: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut at = 1;
    while let Some(&octet) = text.get(at) {
        match octet {
            b'"' => quoted = !quoted,
            b'\\' if quoted => at += 1,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Whether an ASCII control octet is in it; no early end, so that the loop is one of vectors.
pub(crate) fn has_control(text: &[u8]) -> bool {
    text.iter().fold(false, |found, &c| found | (c < 0x20) | (c == 0x7f))
}

/// No control octets; 8-bit only where allowed and only as UTF-8.
pub(crate) fn octets(text: &[u8], utf8: bool) -> Result<(), Fault> {
    if has_control(text) {
        return Err(Fault::Control);
    }
    if text.is_ascii() {
        return Ok(());
    }
    if !utf8 {
        return Err(Fault::EightBit);
    }
    let text = str::from_utf8(text).map_err(|_| Fault::Encoding)?;
    let control = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if text.chars().any(control) { Err(Fault::Control) } else { Ok(()) }
}

/// Octets of a source route `@a,@b:` at the front, 0 if there is none.
fn route(text: &[u8]) -> Result<usize, Fault> {
    let mut at = 0;
    if text.first() != Some(&b'@') {
        return Ok(0);
    }
    loop {
        if text.get(at) != Some(&b'@') {
            return Err(Fault::Syntax);
        }
        let (_, used) = domain(&text[at + 1..])?;
        at += 1 + used;
        match text.get(at) {
            Some(b',') => at += 1,
            Some(b':') => return Ok(at + 1),
            _ => return Err(Fault::Syntax),
        }
    }
}

fn mailbox(text: &[u8]) -> Result<(Address<'_>, usize), Fault> {
    let at = local(text)?;
    if at > LOCAL_MAX {
        return Err(Fault::LocalLong);
    }
    if text.get(at) != Some(&b'@') {
        return Err(Fault::Syntax);
    }
    let (domain, used) = domain(&text[at + 1..])?;
    let end = at + 1 + used;
    Ok((Address { whole: &text[..end], at, domain: Some(domain) }, end))
}

/// Octets of a local-part: dot-string or quoted-string.
fn local(text: &[u8]) -> Result<usize, Fault> {
    if text.first() == Some(&b'"') {
        return quoted(text);
    }
    let mut at = 0;
    loop {
        let atom = text[at..].iter().take_while(|&&c| is_atext(c)).count();
        if atom == 0 {
            return Err(Fault::Syntax);
        }
        at += atom;
        if text.get(at) != Some(&b'.') {
            return Ok(at);
        }
        at += 1;
    }
}

fn quoted(text: &[u8]) -> Result<usize, Fault> {
    let mut at = 1;
    loop {
        match text.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') if text.get(at + 1).is_some_and(|c| (0x20..0x7f).contains(c)) => at += 2,
            Some(b'\\') | None => return Err(Fault::Syntax),
            Some(_) => at += 1,
        }
    }
}

/// A domain name or address literal at the front of `text`, and its octets.
pub(crate) fn domain(text: &[u8]) -> Result<(Domain<'_>, usize), Fault> {
    if text.first() == Some(&b'[') {
        let end = text.iter().position(|&c| c == b']').ok_or(Fault::Syntax)? + 1;
        if end > DOMAIN_MAX {
            return Err(Fault::DomainLong);
        }
        return Ok((literal(&text[1..end - 1])?, end));
    }
    let mut at = 0;
    loop {
        let label = text[at..].iter().take_while(|&&c| is_let_dig_hyp(c)).count();
        let part = &text[at..at + label];
        if label == 0 || part[0] == b'-' || part[label - 1] == b'-' {
            return Err(Fault::Syntax);
        }
        at += label;
        // A U-label is measured after encoding by whoever resolves it.
        if (label > LABEL_MAX && part.is_ascii()) || at > DOMAIN_MAX {
            return Err(Fault::DomainLong);
        }
        if text.get(at) != Some(&b'.') {
            return Ok((Domain::Name(&text[..at]), at));
        }
        at += 1;
    }
}

/// What stands between `[` and `]` (RFC 5321 4.1.3): IPv4, or IPv6 with its tag.
fn literal(text: &[u8]) -> Result<Domain<'_>, Fault> {
    let text = str::from_utf8(text).map_err(|_| Fault::Encoding)?;
    if let Some((tag, rest)) = text.split_at_checked(5)
        && tag.eq_ignore_ascii_case("IPv6:")
    {
        return rest.parse().map(Domain::V6).map_err(|_| Fault::Syntax);
    }
    text.parse().map(Domain::V4).map_err(|_| Fault::Syntax)
}

const ATEXT: u8 = 1;
const LET_DIG_HYP: u8 = 2;

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut octet: u8 = 0;
    loop {
        if octet.is_ascii_alphanumeric() || octet == b'-' || octet >= 0x80 {
            table[octet as usize] = ATEXT | LET_DIG_HYP;
        }
        if octet == u8::MAX {
            break;
        }
        octet += 1;
    }
    let specials = b"!#$%&'*+/=?^_`{|}~";
    let mut n = 0;
    while n < specials.len() {
        table[specials[n] as usize] = ATEXT;
        n += 1;
    }
    table
}

static CLASSES: [u8; 256] = classes();

fn is_atext(octet: u8) -> bool {
    CLASSES[usize::from(octet)] & ATEXT != 0
}

fn is_let_dig_hyp(octet: u8) -> bool {
    CLASSES[usize::from(octet)] & LET_DIG_HYP != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Result<Path<'_>, Fault> {
        Path::parse(text.as_bytes(), false).map(|(path, used)| {
            assert_eq!(used, text.len());
            path
        })
    }

    fn mailbox(text: &str) -> Address<'_> {
        match path(text) {
            Ok(Path::Mailbox(address)) => address,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn takes_what_the_grammar_allows() {
        assert_eq!(path("<>"), Ok(Path::Null));
        assert_eq!(mailbox("<a@example.org>").as_bytes(), b"a@example.org");
        assert_eq!(mailbox("<a.b+c=d@x>").local(), b"a.b+c=d");
        assert_eq!(mailbox("<\"a b\\\"@>\"@x.org>").domain_bytes(), b"x.org");
        assert_eq!(mailbox("<@a.org,@b.org:c@d.org>").as_bytes(), b"c@d.org");
        assert_eq!(mailbox("<a@[192.0.2.1]>").domain(), Some(Domain::V4([192, 0, 2, 1].into())));
        assert!(matches!(mailbox("<a@[IPv6:2001:db8::1]>").domain(), Some(Domain::V6(_))));
        assert!(mailbox("<PostMaster>").is_postmaster());
        assert_eq!(mailbox("<PostMaster>").domain_bytes(), b"");
        assert!(mailbox("<postmaster@example.org>").is_postmaster());
    }

    #[test]
    fn refuses_what_it_forbids() {
        for text in [
            "a@b",
            "<a@b",
            "<a>",
            "<a@>",
            "<@b>",
            "<a..b@c>",
            "<.a@c>",
            "<a.@c>",
            "<a@b..c>",
            "<a@b.>",
            "<a@-b>",
            "<a@b->",
            "<a@b_c>",
            "<a b@c>",
            "<a@[1.2.3]>",
            "<a@[IPv6:x]>",
            "<a@[x:y]>",
            "<a@b@c>",
            "<\"a@b>",
            "<a@b c>",
            "<@a.org:>",
            "<@a.org>",
            "<<a@b>>",
            "<\"a\"b@c>",
            "<a@[01.2.3.4]>",
        ] {
            assert_eq!(path(text), Err(Fault::Syntax), "{text}");
        }
        assert_eq!(path("<a\x07@b>"), Err(Fault::Control));
        assert_eq!(path("<a\x7f@b>"), Err(Fault::Control));
        assert_eq!(path("<ü@b>"), Err(Fault::EightBit));
        assert_eq!(Path::parse(b"<\xff@b>", true), Err(Fault::Encoding));
        assert_eq!(Path::parse("<\u{85}@b>".as_bytes(), true), Err(Fault::Control));
        assert!(Path::parse("<ü@bücher.example>".as_bytes(), true).is_ok());
    }

    #[test]
    fn holds_every_length_limit_to_the_octet() {
        let local = |n: usize| format!("<{}@b.org>", "a".repeat(n));
        assert!(path(&local(64)).is_ok());
        assert_eq!(path(&local(65)), Err(Fault::LocalLong));
        let label = |n: usize| format!("<a@{}.org>", "b".repeat(n));
        assert!(path(&label(63)).is_ok());
        assert_eq!(path(&label(64)), Err(Fault::DomainLong));
        // 1 + 1 + 1 + n + 1 octets with brackets, local-part and @.
        let whole = |n: usize| format!("<a@{}>", "b.".repeat(n / 2) + &"c".repeat(n % 2 + 1));
        assert_eq!(whole(251).len(), 256);
        assert!(path(&whole(251)).is_ok());
        assert_eq!(path(&whole(252)), Err(Fault::PathLong));
        assert_eq!(path(&whole(300)), Err(Fault::DomainLong));
    }
}
