//! The Received line that a receiving server adds (RFC 5321 4.4) and the date in it.
//!
//! *Guarantees*: lines of at most 78 columns where the words allow it, CRLF at each end; octets
//! of the client appear only as printable ASCII (or UTF-8 with SMTPUTF8) and can neither end a
//! line nor close a comment.
//!
//! *Not here*: which of the facts are known; time comes as microseconds since 1970.

use crate::limits::FOLD_COLUMN;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};

/// What the Received line says.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The name given in EHLO or HELO.
    pub helo: &'a [u8],
    /// Whether it was EHLO.
    pub extended: bool,
    /// The name the client's address resolves to and back.
    pub client_name: Option<&'a str>,
    /// The client's address.
    pub client: IpAddr,
    /// Our name.
    pub by: &'a str,
    /// TLS version and cipher suite, such as `TLS1.3:TLS_AES_128_GCM_SHA256`.
    pub tls: Option<&'a str>,
    /// MAIL said SMTPUTF8.
    pub smtputf8: bool,
    /// The message's id.
    pub id: &'a str,
    /// The recipient, only if there is a single one (RFC 5321 7.2).
    pub recipient: Option<&'a [u8]>,
    /// Receipt, in microseconds since 1970.
    pub wall_us: u64,
}

/// Writes words and folds before the column is reached.
struct Folder<'a> {
    out: &'a mut Vec<u8>,
    column: usize,
}

impl Folder<'_> {
    /// A word and the space before it; what must stay together is one word.
    fn word(&mut self, parts: &[&[u8]], utf8: bool) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.column + 1 + len > FOLD_COLUMN {
            self.out.extend_from_slice(b"\r\n\t");
            // A tab is counted as the eight columns it may show.
            self.column = 8;
        } else {
            self.out.push(b' ');
            self.column += 1;
        }
        self.column += len;
        for part in parts {
            // Without a way out, so that it runs over many octets at once.
            if part.iter().fold(true, |all, &c| all & printable(c, utf8)) {
                self.out.extend_from_slice(part);
            } else {
                let safe = |&c: &u8| if printable(c, utf8) { c } else { b'?' };
                self.out.extend(part.iter().map(safe));
            }
        }
    }
}

fn printable(octet: u8, utf8: bool) -> bool {
    (0x20..0x7f).contains(&octet) || (utf8 && octet >= 0x80)
}

impl Received<'_> {
    /// Appends the line, its CRLF included.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Received:");
        let mut fold = Folder { out, column: 9 };
        fold.word(&[b"from"], false);
        // Only a name may stand bare; anything else goes into a comment's place as unknown.
        let plain = |c: &u8| c.is_ascii_alphanumeric() || b"-._[]:".contains(c);
        if !self.helo.is_empty() && self.helo.iter().all(plain) {
            fold.word(&[self.helo], false);
        } else {
            fold.word(&[b"unknown"], false);
        }
        let mut text = [0; ADDRESS_LEN];
        let address = literal(self.client, &mut text);
        match self.client_name.filter(|name| name.bytes().all(|c| plain(&c))) {
            Some(name) => {
                fold.word(&[b"(", name.as_bytes()], false);
                fold.word(&[address, b")"], false);
            }
            None => fold.word(&[b"(", address, b")"], false),
        }
        fold.word(&[b"by ", self.by.as_bytes()], false);
        fold.word(&[b"with ", self.protocol().as_bytes()], false);
        if let Some(tls) = self.tls {
            fold.word(&[b"(", tls.as_bytes(), b")"], false);
        }
        fold.word(&[b"id ", self.id.as_bytes()], false);
        let date = date(self.wall_us);
        match self.recipient {
            Some(recipient) => fold.word(&[b"for <", recipient, b">;"], self.smtputf8),
            None => {
                fold.out.push(b';');
                fold.column += 1;
            }
        }
        fold.word(&[&date], false);
        out.extend_from_slice(b"\r\n");
    }

    /// RFC 3848, and RFC 6531 4.3 with SMTPUTF8.
    fn protocol(&self) -> &'static str {
        match (self.smtputf8, self.extended, self.tls.is_some()) {
            (true, _, false) => "UTF8SMTP",
            (true, _, true) => "UTF8SMTPS",
            (false, true, false) => "ESMTP",
            (false, true, true) => "ESMTPS",
            // HELO inside TLS has no name of its own.
            (false, false, _) => "SMTP",
        }
    }
}

/// Octets of the longest address literal.
const ADDRESS_LEN: usize = "[IPv6:ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]".len();

/// An address as a literal (RFC 5321 4.1.3); IPv4 in IPv6 is IPv4.
fn literal(address: IpAddr, place: &mut [u8; ADDRESS_LEN]) -> &[u8] {
    let mut rest = place.as_mut_slice();
    let written = match address.to_canonical() {
        // Most are, and what formats them all is slow.
        IpAddr::V4(v4) => return literal_v4(v4, place),
        IpAddr::V6(v6) => write!(rest, "[IPv6:{v6}]"),
    };
    let left = rest.len();
    debug_assert!(written.is_ok(), "the place is made for the longest");
    &place[..ADDRESS_LEN - left]
}

fn literal_v4(address: Ipv4Addr, place: &mut [u8; ADDRESS_LEN]) -> &[u8] {
    place[0] = b'[';
    let mut end = 1;
    for octet in address.octets() {
        if octet >= 100 {
            place[end] = b'0' + octet / 100;
            end += 1;
        }
        if octet >= 10 {
            place[end] = b'0' + octet / 10 % 10;
            end += 1;
        }
        place[end] = b'0' + octet % 10;
        place[end + 1] = b'.';
        end += 2;
    }
    place[end - 1] = b']';
    &place[..end]
}

/// Octets of a date.
pub const DATE_LEN: usize = 31;

/// `Fri, 20 Nov 2026 06:53:35 +0000` (RFC 5322 3.3); days have two digits, years four (past 9999
/// they stay there).
#[must_use]
pub fn date(wall_us: u64) -> [u8; DATE_LEN] {
    const LAST_SECOND: u64 = 253_402_300_799;
    const DAYS: &[u8; 21] = b"ThuFriSatSunMonTueWed";
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let seconds = (wall_us / 1_000_000).min(LAST_SECOND);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 +0000";
    let three = |table: &[u8], n: u64| {
        let at = usize::try_from(n).unwrap_or(0) * 3;
        [table[at], table[at + 1], table[at + 2]]
    };
    out[0..3].copy_from_slice(&three(DAYS, days % 7));
    two(&mut out[5..7], day);
    out[8..11].copy_from_slice(&three(MONTHS, month - 1));
    two(&mut out[12..14], year / 100);
    two(&mut out[14..16], year % 100);
    two(&mut out[17..19], second / 3600);
    two(&mut out[20..22], second / 60 % 60);
    two(&mut out[23..25], second % 60);
    out
}

fn two(place: &mut [u8], n: u64) {
    // Digits fit an octet.
    place[0] = b'0' + (n / 10 % 10).to_le_bytes()[0];
    place[1] = b'0' + (n % 10).to_le_bytes()[0];
}

/// Year, month 1..=12 and day of a number of days since 1970: eras of 400 years that begin in
/// March, so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(wall_s: u64) -> String {
        String::from_utf8(date(wall_s * 1_000_000).to_vec()).expect("ASCII")
    }

    #[test]
    fn literals_are_those_of_the_library() {
        for octets in [[0, 0, 0, 0], [127, 0, 0, 1], [10, 99, 100, 109], [255, 255, 255, 255]] {
            let address = Ipv4Addr::from(octets);
            let mut place = [0; ADDRESS_LEN];
            let mapped = IpAddr::V6(address.to_ipv6_mapped());
            for of in [IpAddr::V4(address), mapped] {
                assert_eq!(literal(of, &mut place), format!("[{address}]").as_bytes());
            }
        }
        let mut place = [0; ADDRESS_LEN];
        let v6 = "2001:db8::1".parse().expect("an address");
        assert_eq!(literal(v6, &mut place), b"[IPv6:2001:db8::1]");
    }

    #[test]
    fn dates_of_note() {
        assert_eq!(shown(0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(shown(951_782_400), "Tue, 29 Feb 2000 00:00:00 +0000");
        assert_eq!(shown(1_795_157_615), "Fri, 20 Nov 2026 06:53:35 +0000");
        assert_eq!(shown(4_107_542_399), "Sun, 28 Feb 2100 23:59:59 +0000");
        assert_eq!(shown(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 +0000");
        assert_eq!(date(u64::MAX).len(), DATE_LEN);
        assert_eq!(shown(u64::MAX / 1_000_000), shown(253_402_300_799));
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = civil(0);
        for days in 1..400 * 366 {
            let (year, month, day) = civil(days);
            let next_day = (year, month, day) == (last.0, last.1, last.2 + 1);
            let next_month = (year, month, day) == (last.0, last.1 + 1, 1) && last.2 >= 28;
            let next_year =
                (year, month, day) == (last.0 + 1, 1, 1) && (last.1, last.2) == (12, 31);
            assert!(next_day || next_month || next_year, "{days}");
            last = (year, month, day);
        }
    }

    fn received() -> Received<'static> {
        Received {
            helo: b"mail.example.com",
            extended: true,
            client_name: Some("host.example.com"),
            client: [192, 0, 2, 1].into(),
            by: "mx.example.org",
            tls: Some("TLS1.3:TLS_AES_256_GCM_SHA384"),
            smtputf8: false,
            id: "0123456789ABCDEFGHIJ.1",
            recipient: Some(b"someone@example.org"),
            wall_us: 1_795_157_615_000_000,
        }
    }

    fn text(received: &Received<'_>) -> String {
        let mut out = Vec::new();
        received.write(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn the_line_as_a_postmaster_sees_it() {
        assert_eq!(
            text(&received()),
            "Received: from mail.example.com (host.example.com [192.0.2.1])\r\n\
             \tby mx.example.org with ESMTPS (TLS1.3:TLS_AES_256_GCM_SHA384)\r\n\
             \tid 0123456789ABCDEFGHIJ.1 for <someone@example.org>;\r\n\
             \tFri, 20 Nov 2026 06:53:35 +0000\r\n"
        );
        let plain = Received { tls: None, recipient: None, client_name: None, ..received() };
        assert!(text(&plain).contains("([192.0.2.1]) by mx"), "{}", text(&plain));
        let six = Received { client: "2001:db8::1".parse().expect("address"), ..received() };
        assert!(text(&six).contains("[IPv6:2001:db8::1])"));
    }

    #[test]
    fn nothing_of_the_client_breaks_the_line() {
        let evil = Received {
            helo: b"a)(b\r\nX: y",
            client_name: Some("x)\r\nY: z"),
            recipient: Some("\u{fc}\r\n@b".as_bytes()),
            smtputf8: true,
            ..received()
        };
        let line = text(&evil);
        assert!(line.contains("from unknown ([192.0.2.1])"), "{line}");
        assert!(line.contains("for <\u{fc}??@b>;") && line.contains("UTF8SMTPS"), "{line}");
        for part in line.split("\r\n").skip(1).filter(|part| !part.is_empty()) {
            assert!(part.starts_with('\t') && !part.contains(['\r', '\n']), "{part}");
        }
    }
}
