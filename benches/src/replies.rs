//! SMTP reply lines out of a stream that comes in pieces, as a client reads them.
//!
//! *Limits*: `limits::REPLY_LINE_OCTETS_MAX` for one line.

use memchr::memchr;

use crate::limits::REPLY_LINE_OCTETS_MAX;

/// One reply line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// The three digits, 200 to 599.
    pub code: u16,
    /// No further line of this reply follows.
    pub last: bool,
    /// The text is this keyword of EHLO.
    pub keyword: Keyword,
}

/// Keywords of EHLO a client here acts upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Keyword {
    Other,
    Pipelining,
    StartTls,
    Chunking,
}

impl Keyword {
    fn of(text: &[u8]) -> Self {
        let is = |word: &str| text.eq_ignore_ascii_case(word.as_bytes());
        if is("PIPELINING") {
            Self::Pipelining
        } else if is("STARTTLS") {
            Self::StartTls
        } else if is("CHUNKING") {
            Self::Chunking
        } else {
            Self::Other
        }
    }
}

/// Not a reply line, or one that does not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// The unfinished line of one connection.
#[derive(Debug, Default, Clone)]
pub struct Replies {
    partial: Vec<u8>,
    /// The last line of 400 and above.
    refusal: Vec<u8>,
}

impl Replies {
    /// Forgets an unfinished line.
    pub fn reset(&mut self) {
        self.partial.clear();
    }

    /// The last line of 400 and above, with its end.
    #[must_use]
    pub fn refusal(&self) -> &[u8] {
        &self.refusal
    }

    /// The next line out of `bytes`, which is moved past it; `None` when more must come first.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<Result<Line, Malformed>> {
        let Some(at) = memchr(b'\n', bytes) else {
            let taken = std::mem::take(bytes);
            if self.partial.len() + taken.len() > REPLY_LINE_OCTETS_MAX {
                return Some(Err(Malformed));
            }
            self.partial.extend_from_slice(taken);
            return None;
        };
        let (line, rest) = bytes.split_at(at + 1);
        *bytes = rest;
        if self.partial.is_empty() {
            let parsed = parse(line);
            keep(&mut self.refusal, line, parsed);
            return Some(parsed);
        }
        self.partial.extend_from_slice(line);
        let parsed = parse(&self.partial);
        keep(&mut self.refusal, &self.partial, parsed);
        self.partial.clear();
        Some(parsed)
    }
}

fn keep(refusal: &mut Vec<u8>, line: &[u8], parsed: Result<Line, Malformed>) {
    if parsed.is_ok_and(|line| line.code >= 400) {
        refusal.clear();
        refusal.extend_from_slice(line);
    }
}

fn parse(line: &[u8]) -> Result<Line, Malformed> {
    let line = line.strip_suffix(b"\r\n").ok_or(Malformed)?;
    let &[a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', ref rest @ ..] = line else {
        return Err(Malformed);
    };
    let code = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
    let (last, text) = match rest.split_first() {
        None => (true, rest),
        Some((b' ', text)) => (true, text),
        Some((b'-', text)) => (false, text),
        Some(_) => return Err(Malformed),
    };
    Ok(Line { code, last, keyword: Keyword::of(text) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&[u8]]) -> Vec<Result<Line, Malformed>> {
        let mut replies = Replies::default();
        let mut lines = Vec::new();
        for mut piece in pieces.iter().copied() {
            while let Some(line) = replies.next(&mut piece) {
                lines.push(line);
            }
        }
        lines
    }

    #[test]
    fn the_last_refusal_is_kept_at_every_split() {
        let stream = b"250 ok\r\n452 4.3.1 no room\r\n250 ok\r\n";
        for at in 0..stream.len() {
            let mut replies = Replies::default();
            for mut piece in [&stream[..at], &stream[at..]] {
                while replies.next(&mut piece).is_some() {}
            }
            assert_eq!(replies.refusal(), b"452 4.3.1 no room\r\n", "split at {at}");
        }
    }

    #[test]
    fn lines_are_the_same_at_every_split() {
        let stream = b"250-mx.example\r\n250-pipelining\r\n250 OK\r\n354\r\n";
        let whole = all(&[stream]);
        let line = |code, last, pipelining| {
            let keyword = if pipelining { Keyword::Pipelining } else { Keyword::Other };
            Ok(Line { code, last, keyword })
        };
        let expected = [
            line(250, false, false),
            line(250, false, true),
            line(250, true, false),
            line(354, true, false),
        ];
        assert_eq!(whole, expected);
        for at in 0..stream.len() {
            assert_eq!(all(&[&stream[..at], &stream[at..]]), whole, "split at {at}");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bad in [&b"HTTP/1.1 200 OK\r\n"[..], b"250 OK\n", b"25\r\n", b"250_x\r\n", b"650 x\r\n"]
        {
            assert_eq!(all(&[bad]), [Err(Malformed)], "{bad:?}");
        }
        assert_eq!(all(&[&[b'2'; REPLY_LINE_OCTETS_MAX + 1]]), [Err(Malformed)]);
    }
}
