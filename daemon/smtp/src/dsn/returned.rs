//! What of the message comes back, and in which encoding.

use std::borrow::Cow;

use memchr::memchr_iter;
use memchr::memmem;

use super::{Action, LINE_MAX, Original, RETURNED_MAX, Recipient};
use crate::client::{LineState, normalise};
use crate::command::Ret;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Whole,
    Header { cut: bool },
}

/// How the last part will be written.
pub(super) struct Returned {
    pub(super) kind: Kind,
    utf8: bool,
}

/// A boundary that neither header nor body hold.
pub(super) fn boundary(id: &str, original: &Original<'_>) -> String {
    let id: String = id.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    let found = |boundary: &str| {
        let finder = memmem::Finder::new(boundary);
        let body = original.body.filter(|body| body.len() <= RETURNED_MAX).unwrap_or_default();
        finder.find(original.header).is_some() || finder.find(body).is_some()
    };
    (0u64..)
        .map(|n| format!("=_{id}_{n}"))
        .find(|boundary| !found(boundary))
        .expect("a text of limited length holds few of endlessly many boundaries")
}

/// The whole message only if the sender wants that, something failed, and it fits.
pub(super) fn choose(original: &Original<'_>, told: &[&Recipient<'_>], utf8: bool) -> Returned {
    let failed = told.iter().any(|r| r.action == Action::Failed);
    let wanted = failed && original.ret == Some(Ret::Full);
    let whole = wanted
        && original.body.is_some_and(|body| {
            original.header.len() + body.len() <= RETURNED_MAX
                && plain(original.header, utf8)
                && plain(body, utf8)
        });
    let cut = original.header.len() > RETURNED_MAX;
    Returned { kind: if whole { Kind::Whole } else { Kind::Header { cut } }, utf8 }
}

/// Lines of bearable length without NUL and, unless `utf8`, without 8-bit octets.
fn plain(text: &[u8], utf8: bool) -> bool {
    let octets = text.iter().all(|c| *c != 0 && (utf8 || c.is_ascii()));
    let mut start = 0;
    let lines = memchr_iter(b'\n', text).chain([text.len()]).all(|end| {
        let fits = end - start.min(end) <= LINE_MAX + 1;
        start = end + 1;
        fits
    });
    octets && lines && (!utf8 || std::str::from_utf8(text).is_ok())
}

impl Returned {
    pub(super) fn write(&self, out: &mut Vec<u8>, original: &Original<'_>, boundary: &str) {
        let whole = self.kind == Kind::Whole;
        let header = header(original.header);
        let quoted = !whole && !plain(header, self.utf8);
        let kind = match (whole, self.utf8) {
            (true, false) => "message/rfc822",
            (true, true) => "message/global",
            (false, false) => "text/rfc822-headers",
            (false, true) => "message/global-headers",
        };
        let encoding = match (quoted, self.utf8) {
            (true, _) => "quoted-printable",
            (false, true) => "8bit",
            (false, false) => "7bit",
        };
        let head = format!(
            "--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
        );
        out.extend_from_slice(head.as_bytes());
        let header = lines(header);
        if quoted {
            quoted_printable(&header, out);
        } else {
            out.extend_from_slice(&header);
        }
        if whole {
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(&lines(original.body.unwrap_or_default()));
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// The header section without its empty line, at most [`RETURNED_MAX`] octets, whole lines.
fn header(header: &[u8]) -> &[u8] {
    let end = memmem::find(header, b"\r\n\r\n").map_or(header.len(), |at| at + 2);
    let header = if header.starts_with(b"\r\n") { &[] } else { &header[..end] };
    if header.len() <= RETURNED_MAX {
        return header;
    }
    let cut = &header[..RETURNED_MAX];
    let end = memchr::memrchr(b'\n', cut).map_or(RETURNED_MAX, |at| at + 1);
    &cut[..end]
}

/// Line ends made CRLF, the last line ended.
fn lines(text: &[u8]) -> Cow<'_, [u8]> {
    let mut out = Vec::with_capacity(text.len() + 2);
    normalise(text, &mut LineState::default(), &mut out);
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.into()
}

/// RFC 2045 6.7, of lines that end in CRLF.
fn quoted_printable(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for line in text.split_inclusive(|c| *c == b'\n') {
        let line = line.strip_suffix(b"\r\n").unwrap_or(line);
        let mut column = 0;
        for (n, &c) in line.iter().enumerate() {
            let blank_at_end = matches!(c, b' ' | b'\t') && n + 1 == line.len();
            let literal = matches!(c, b'\t' | b' '..=b'~') && c != b'=' && !blank_at_end;
            let width = if literal { 1 } else { 3 };
            if column + width > 75 {
                out.extend_from_slice(b"=\r\n");
                column = 0;
            }
            if literal {
                out.push(c);
            } else {
                let (high, low) = (usize::from(c >> 4), usize::from(c & 15));
                out.extend_from_slice(&[b'=', HEX[high], HEX[low]]);
            }
            column += width;
        }
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_lines_stay_short_and_ascii() {
        let text = [b"a=b \r\n".as_slice(), &[0xe4; 100], b"\r\n\tx\r\n"].concat();
        let mut out = Vec::new();
        quoted_printable(&text, &mut out);
        assert!(out.is_ascii() && out.starts_with(b"a=3Db=20\r\n=E4=E4"));
        assert!(out.ends_with(b"\r\n\tx\r\n"));
        assert!(out.split(|c| *c == b'\n').all(|line| line.len() <= 77));
    }

    #[test]
    fn a_header_is_cut_between_lines() {
        assert_eq!(header(b"A: b\r\n\r\n"), b"A: b\r\n");
        assert_eq!(header(b"A: b\r\n"), b"A: b\r\n");
        assert_eq!(header(b"\r\n"), b"");
        let long = b"A: 0123456789\r\n".repeat(10_000);
        let cut = header(&long);
        assert!(cut.len() <= RETURNED_MAX && cut.len() + 15 > RETURNED_MAX);
        assert!(cut.ends_with(b"\r\n"));
    }
}
