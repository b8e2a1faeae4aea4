//! Macros (RFC 7208 7).

use std::fmt::Write as _;
use std::net::IpAddr;

/// What macros stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) ip: IpAddr,
    /// The sender, with a local part always.
    pub(super) sender: &'a str,
    /// The domain whose record it is.
    pub(super) domain: &'a str,
    pub(super) helo: &'a str,
    /// The client's validated name, or `unknown`.
    pub(super) name: &'a str,
    /// Ours, for explanations.
    pub(super) receiver: &'a str,
    /// Unix time, for explanations.
    pub(super) now_s: u64,
}

/// A macro without `%{` and `}`.
struct Macro<'a> {
    letter: char,
    /// How many of the last parts; 0: all.
    parts: usize,
    reverse: bool,
    delimiters: &'a str,
}

fn read(inner: &str, explains: bool) -> Option<Macro<'_>> {
    let letter = inner.chars().next().filter(char::is_ascii_alphabetic)?;
    let known = if explains { "slodiphcrtv" } else { "slodiphv" };
    if !known.contains(letter.to_ascii_lowercase()) {
        return None;
    }
    let rest = &inner[1..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let parts = match &rest[..digits] {
        "" => 0,
        number => number.parse().ok().filter(|parts| *parts > 0)?,
    };
    let rest = &rest[digits..];
    let reverse = rest.starts_with(['r', 'R']);
    let delimiters = if reverse { &rest[1..] } else { rest };
    delimiters.chars().all(|c| ".-+,/_=".contains(c)).then_some(Macro {
        letter,
        parts,
        reverse,
        delimiters: if delimiters.is_empty() { "." } else { delimiters },
    })
}

/// Whether a text's macros can be read. A name ends with a label or a macro (RFC 7208 7.1), which
/// the DNS itself sees to.
pub(super) fn is_sound(text: &str, explains: bool) -> bool {
    walk(text, explains, |_| {}).is_some()
}

enum Part<'a> {
    Text(&'a str),
    Macro(Macro<'a>),
}

fn walk<'a>(text: &'a str, explains: bool, mut take: impl FnMut(Part<'a>)) -> Option<()> {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        take(Part::Text(&rest[..at]));
        let behind = &rest[at + 1..];
        rest = match behind.as_bytes().first()? {
            b'%' => {
                take(Part::Text("%"));
                &behind[1..]
            }
            b'_' => {
                take(Part::Text(" "));
                &behind[1..]
            }
            b'-' => {
                take(Part::Text("%20"));
                &behind[1..]
            }
            b'{' => {
                let (inner, rest) = behind[1..].split_once('}')?;
                take(Part::Macro(read(inner, explains)?));
                rest
            }
            _ => return None,
        };
    }
    take(Part::Text(rest));
    text.bytes().all(|octet| octet.is_ascii_graphic() || (explains && octet == b' ')).then_some(())
}

/// Whether a text speaks of the client's validated name, which costs look-ups.
pub(super) fn wants_name(text: &str) -> bool {
    let mut wants = false;
    let _ = walk(text, true, |part| {
        wants |= matches!(part, Part::Macro(found) if found.letter.eq_ignore_ascii_case(&'p'));
    });
    wants
}

/// The text with its macros replaced.
pub(super) fn expand(text: &str, explains: bool, values: &Values<'_>) -> String {
    let mut out = String::new();
    let _ = walk(text, explains, |part| match part {
        Part::Text(text) => out.push_str(text),
        Part::Macro(found) => {
            let value = transformed(&value(&found, values), &found);
            if found.letter.is_ascii_uppercase() {
                escape(&value, &mut out);
            } else {
                out.push_str(&value);
            }
        }
    });
    out
}

/// A name of at most 253 octets: labels in front go first (RFC 7208 7.3).
pub(super) fn name(text: &str, values: &Values<'_>) -> String {
    const NAME_MAX: usize = 253;
    let whole = expand(text, false, values);
    let mut name = whole.trim_end_matches('.');
    while name.len() > NAME_MAX {
        name = name.split_once('.').map_or("", |(_, rest)| rest);
    }
    name.to_ascii_lowercase()
}

fn value(found: &Macro<'_>, values: &Values<'_>) -> String {
    let (local, of) = values.sender.rsplit_once('@').unwrap_or(("postmaster", values.sender));
    match found.letter.to_ascii_lowercase() {
        's' => values.sender.to_owned(),
        'l' => local.to_owned(),
        'o' => of.to_owned(),
        'd' => values.domain.to_owned(),
        'i' => match values.ip {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => {
                let nibbles = v6.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
                let nibbles = nibbles.filter_map(|n| char::from_digit(n.into(), 16));
                nibbles.map(String::from).collect::<Vec<_>>().join(".")
            }
        },
        'p' => values.name.to_owned(),
        'v' => if values.ip.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
        'h' => values.helo.to_owned(),
        'c' => values.ip.to_string(),
        'r' => values.receiver.to_owned(),
        _ => values.now_s.to_string(),
    }
}

fn transformed(value: &str, by: &Macro<'_>) -> String {
    let mut parts: Vec<&str> = value.split(|c| by.delimiters.contains(c)).collect();
    if by.reverse {
        parts.reverse();
    }
    let from = if by.parts == 0 { 0 } else { parts.len().saturating_sub(by.parts) };
    parts[from..].join(".")
}

/// RFC 3986 2.3: all but the unreserved.
fn escape(value: &str, out: &mut String) {
    for octet in value.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            out.push(char::from(octet));
        } else {
            write!(out, "%{octet:02X}").expect("a string takes all");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(ip: &str) -> Values<'_> {
        Values {
            ip: ip.parse().unwrap(),
            sender: "strong-bad@email.example.com",
            domain: "email.example.com",
            helo: "mx.example.org",
            name: "unknown",
            receiver: "mx.example.org",
            now_s: 1,
        }
    }

    /// The table of RFC 7208 7.4.
    #[test]
    fn the_examples_of_the_rfc() {
        let values = values("192.0.2.3");
        for (text, wanted) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d3}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr}", "strong-bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
            ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
            ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
            ("%{S}", "strong-bad%40email.example.com"),
            ("a%%b%_c%-d", "a%b c%20d"),
        ] {
            assert!(is_sound(text, false), "{text}");
            assert_eq!(expand(text, false, &values), wanted, "{text}");
        }
    }

    #[test]
    fn ipv6_is_written_in_nibbles() {
        let values = values("2001:db8::cb01");
        assert_eq!(
            expand("%{ir}.%{v}._spf.%{d2}", false, &values),
            "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com"
        );
    }

    #[test]
    fn macros_of_explanations_stand_there_only_and_long_names_lose_their_front() {
        assert!(is_sound("%{c} %{r} %{t}", true) && !is_sound("%{c}", false));
        assert!(!is_sound("%{d0}", false) && !is_sound("%{d", false) && !is_sound("%x", false));
        let values = values("192.0.2.3");
        let long = format!("{}.%{{d}}", "abcdefghi.".repeat(30));
        let name = name(&long, &values);
        assert!(name.len() <= 253 && name.ends_with("abcdefghi..email.example.com"), "{name}");
    }
}
