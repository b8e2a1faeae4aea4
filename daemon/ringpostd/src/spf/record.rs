//! The text of a record (RFC 7208 4.5, 4.6.1, 5, 6), read as a whole before any of it counts.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Verdict;
use super::macros;

/// One mechanism.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    All,
    Include(String),
    /// The name (empty: the domain itself) and the bits that count of IPv4 and IPv6.
    A(String, u8, u8),
    Mx(String, u8, u8),
    Ptr(String),
    Ip4(Ipv4Addr, u8),
    Ip6(Ipv6Addr, u8),
    Exists(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mechanism {
    pub(super) text: String,
    /// What a match means.
    pub(super) verdict: Verdict,
    pub(super) what: What,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) mechanisms: Vec<Mechanism>,
    pub(super) redirect: Option<String>,
    pub(super) exp: Option<String>,
}

/// Whether a text is an SPF record (RFC 7208 4.5).
pub(super) fn is_record(text: &str) -> bool {
    let Some((version, rest)) = text.split_at_checked(6) else { return false };
    version.eq_ignore_ascii_case("v=spf1") && (rest.is_empty() || rest.starts_with(' '))
}

/// The terms; which one cannot be read.
pub(super) fn parse(text: &str) -> Result<Record, String> {
    let mut record = Record::default();
    for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
        term_of(term, &mut record).ok_or_else(|| format!("`{term}` is no term of SPF"))?;
    }
    Ok(record)
}

fn term_of(term: &str, record: &mut Record) -> Option<()> {
    let name_end = term.find(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c));
    if let Some(end) = name_end
        && term[end..].starts_with('=')
    {
        return modifier(&term[..end], &term[end + 1..], record);
    }
    let (verdict, rest) = match term.as_bytes().first()? {
        b'+' => (Verdict::Pass, &term[1..]),
        b'-' => (Verdict::Fail, &term[1..]),
        b'~' => (Verdict::SoftFail, &term[1..]),
        b'?' => (Verdict::Neutral, &term[1..]),
        _ => (Verdict::Pass, term),
    };
    let what = mechanism(rest)?;
    record.mechanisms.push(Mechanism { text: term.to_owned(), verdict, what });
    Some(())
}

fn modifier(name: &str, value: &str, record: &mut Record) -> Option<()> {
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let place = match name.to_ascii_lowercase().as_str() {
        "redirect" => &mut record.redirect,
        "exp" => &mut record.exp,
        // Those of the future are passed over (RFC 7208 6).
        _ => return (is_name && macros::is_sound(value, true)).then_some(()),
    };
    // RFC 7208 6: each at most once.
    let good = place.is_none() && !value.is_empty() && macros::is_sound(value, false);
    *place = Some(value.to_owned());
    good.then_some(())
}

fn mechanism(text: &str) -> Option<What> {
    let end = text.find([':', '/']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let value = rest.strip_prefix(':');
    let named = |value: Option<&str>| {
        value.filter(|v| !v.is_empty() && macros::is_sound(v, false)).map(str::to_owned)
    };
    Some(match name.to_ascii_lowercase().as_str() {
        "all" if rest.is_empty() => What::All,
        "include" => What::Include(named(value)?),
        "exists" => What::Exists(named(value)?),
        "a" => hosts(rest, What::A)?,
        "mx" => hosts(rest, What::Mx)?,
        "ptr" if rest.is_empty() => What::Ptr(String::new()),
        "ptr" => What::Ptr(named(value)?),
        "ip4" => {
            let (address, bits) = network(value?, 32)?;
            What::Ip4(address.parse().ok()?, bits)
        }
        "ip6" => {
            let (address, bits) = network(value?, 128)?;
            What::Ip6(address.parse().ok()?, bits)
        }
        _ => return None,
    })
}

/// `[:domain-spec][/bits][//bits]`; a slash inside a macro's braces is none.
fn hosts(rest: &str, make: fn(String, u8, u8) -> What) -> Option<What> {
    let braces = rest.rfind('}').map_or(0, |at| at + 1);
    let slash = rest[braces..].find('/').map_or(rest.len(), |at| braces + at);
    let (name, bits) = rest.split_at(slash);
    let name = match name.strip_prefix(':') {
        Some(name) => Some(name).filter(|n| !n.is_empty() && macros::is_sound(n, false))?,
        None if name.is_empty() => "",
        None => return None,
    };
    let (v4, v6) = match bits.split_once("//") {
        Some((v4, v6)) => (v4, Some(v6)),
        None => (bits, None),
    };
    let v4 = if v4.is_empty() { 32 } else { bits_of(v4.strip_prefix('/')?, 32)? };
    let v6 = v6.map_or(Some(128), |v6| bits_of(v6, 128))?;
    Some(make(name.to_owned(), v4, v6))
}

fn network(value: &str, most: u8) -> Option<(&str, u8)> {
    match value.split_once('/') {
        Some((address, bits)) => Some((address, bits_of(bits, most)?)),
        None => Some((value, most)),
    }
}

/// Digits without a leading zero.
fn bits_of(text: &str, most: u8) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    let plain = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|bits| digits && plain && *bits <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_from_other_texts() {
        assert!(is_record("v=spf1") && is_record("V=SPF1 -all"));
        assert!(!is_record("v=spf10 -all") && !is_record("v=spf") && !is_record("spf2.0/pra"));
    }

    #[test]
    fn terms_are_read_as_a_whole() {
        let text = "v=spf1 a mx:example.org/30//64 ?ip4:192.0.2.0/24 -ip6:2001:db8::/32 \
                    exists:%{ir}.x.%{d} ptr ~all redirect=a.b exp=e.%{d} future=%%x";
        let record = parse(text).unwrap();
        assert_eq!(record.mechanisms.len(), 7);
        assert_eq!(record.mechanisms[1].what, What::Mx("example.org".to_owned(), 30, 64));
        assert_eq!(record.mechanisms[2].verdict, Verdict::Neutral);
        assert_eq!(record.redirect.as_deref(), Some("a.b"));
    }

    #[test]
    fn what_is_no_term_is_named() {
        for wrong in [
            "mechanism",
            "a:",
            "include",
            "ip4:192.0.2.0/33",
            "ip4:192.0.2.0/024",
            "all:x",
            "ip6:x",
            "a/",
            "mx:example.org/30/64",
            "exists:%{z}",
            "redirect=",
            "1=x",
            "-",
            "include:%(d)",
        ] {
            let said = parse(&format!("v=spf1 {wrong} -all")).unwrap_err();
            assert!(said.contains(wrong), "{wrong}: {said}");
        }
        assert!(parse("v=spf1 redirect=a redirect=b").is_err(), "twice");
    }
}
