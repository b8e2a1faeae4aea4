//! Replies of a server: a strict, bounded parser and the value it makes.
//!
//! *Guarantees*: text that leaves here has no control characters and at most
//! [`REPLY_TEXT_MAX`] octets.
//!
//! *Limits*: [`REPLY_LINE_MAX`] octets a line, [`REPLY_LINES_MAX`] lines a reply.
//!
//! *Failure*: every deviation is an [`Malformed`]; the machine closes the connection.

use std::fmt;

use memchr::memchr;

use super::limits::{REPLY_LINE_MAX, REPLY_LINES_MAX, REPLY_TEXT_MAX};
use crate::reply::Enhanced;

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// One whole reply of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// The enhanced code, when its class agrees with `code`.
    pub enhanced: Option<Enhanced>,
    /// All lines, joined by a space, without the enhanced code; no control characters.
    pub text: Box<str>,
}

impl Reply {
    /// 2yz.
    #[must_use]
    pub fn positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 4yz.
    #[must_use]
    pub fn transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5yz.
    #[must_use]
    pub fn permanent(&self) -> bool {
        self.code / 100 == 5
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        if !self.text.is_empty() {
            write!(f, " {}", self.text)?;
        }
        Ok(())
    }
}

/// Why octets are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not three digits of 2yz to 5yz followed by a space, a hyphen or the line's end.
    Code,
    /// A later line carries another code.
    CodeChanged,
    /// A line ended by a bare LF.
    BareLf,
    /// A line over [`REPLY_LINE_MAX`].
    LineTooLong,
    /// More than [`REPLY_LINES_MAX`] lines.
    TooManyLines,
}

impl Malformed {
    /// For logs.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Code => "a reply line does not begin with a reply code",
            Self::CodeChanged => "the reply code changes within a reply",
            Self::BareLf => "a reply line ends without CR",
            Self::LineTooLong => "a reply line is too long",
            Self::TooManyLines => "a reply has too many lines",
        }
    }
}

/// What the next octets were.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// All octets were used; the reply is not whole.
    More,
    /// A line that is not the last of its reply; its text as received.
    Line(&'a [u8]),
    /// The last line of a reply; its text as received. [`Parser::finish`] gives the reply.
    Last(&'a [u8]),
}

/// Collects replies from octets that arrive in any pieces.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    /// Set once `line` holds a whole line that was lent out by [`Parser::next`].
    lent: bool,
    code: u16,
    lines: usize,
    text: Vec<u8>,
    enhanced: Option<Enhanced>,
}

impl Parser {
    /// Whether a part of a reply is waiting for the rest.
    pub(super) fn in_reply(&self) -> bool {
        self.lines > 0 || !self.line.is_empty()
    }

    /// Forgets everything, as after STARTTLS.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes octets from the front of `input` up to the next line end.
    ///
    /// # Errors
    /// [`Malformed`]; nothing that follows can be understood.
    pub(super) fn next<'a>(&'a mut self, input: &mut &[u8]) -> Result<Step<'a>, Malformed> {
        if self.lent {
            self.line.clear();
            self.lent = false;
        }
        let Some(end) = memchr(b'\n', input) else {
            if self.line.len() + input.len() >= REPLY_LINE_MAX {
                return Err(Malformed::LineTooLong);
            }
            self.line.extend_from_slice(input);
            *input = &[];
            return Ok(Step::More);
        };
        if self.line.len() + end + 1 > REPLY_LINE_MAX {
            return Err(Malformed::LineTooLong);
        }
        self.line.extend_from_slice(&input[..=end]);
        *input = &input[end + 1..];
        let Some(line) = self.line.strip_suffix(b"\r\n") else {
            return Err(Malformed::BareLf);
        };
        let (code, more, text) = split(line)?;
        if self.lines > 0 && code != self.code {
            return Err(Malformed::CodeChanged);
        }
        self.lines += 1;
        if self.lines > REPLY_LINES_MAX {
            return Err(Malformed::TooManyLines);
        }
        self.code = code;
        let (enhanced, rest) = split_enhanced(code, text);
        if self.lines == 1 {
            self.enhanced = enhanced;
        } else if !rest.is_empty() && !self.text.is_empty() && self.text.len() < REPLY_TEXT_MAX {
            self.text.push(b' ');
        }
        // A status code that repeats the first line's is dropped, another one is text.
        let kept = if enhanced == self.enhanced { rest } else { text };
        let room = REPLY_TEXT_MAX - self.text.len().min(REPLY_TEXT_MAX);
        self.text.extend_from_slice(&kept[..kept.len().min(room)]);
        self.lent = true;
        Ok(if more { Step::Line(text) } else { Step::Last(text) })
    }

    /// The reply whose last line was just seen; the parser starts the next one.
    pub(super) fn finish(&mut self) -> Reply {
        let reply = Reply {
            code: self.code,
            enhanced: self.enhanced,
            text: clean(&self.text, REPLY_TEXT_MAX),
        };
        self.lines = 0;
        self.enhanced = None;
        self.text.clear();
        self.text.shrink_to(0);
        reply
    }
}

/// Code, whether more lines follow, text.
fn split(line: &[u8]) -> Result<(u16, bool, &[u8]), Malformed> {
    let (digits, rest) = line.split_at_checked(3).ok_or(Malformed::Code)?;
    if !(b'2'..=b'5').contains(&digits[0]) || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::Code);
    }
    let code = digits.iter().fold(0, |n, d| n * 10 + u16::from(d - b'0'));
    match rest.split_first() {
        None => Ok((code, false, rest)),
        Some((b' ', text)) => Ok((code, false, text)),
        Some((b'-', text)) => Ok((code, true, text)),
        Some(_) => Err(Malformed::Code),
    }
}

/// The enhanced status code at the front of `text` if it belongs to `code`, and what follows it.
fn split_enhanced(code: u16, text: &[u8]) -> (Option<Enhanced>, &[u8]) {
    let end = memchr(b' ', text).unwrap_or(text.len());
    let enhanced = parse_enhanced(&text[..end]);
    match enhanced {
        Some(enhanced) if u16::from(enhanced.0) == code / 100 => {
            (Some(enhanced), text.get(end + 1..).unwrap_or_default())
        }
        _ => (None, text),
    }
}

/// `class.subject.detail` (RFC 3463 2), nothing else.
fn parse_enhanced(word: &[u8]) -> Option<Enhanced> {
    let mut parts = word.split(|c| *c == b'.').map(|part| {
        (part.len() <= 3 && !part.is_empty() && part.iter().all(u8::is_ascii_digit))
            .then(|| part.iter().fold(0, |n, d| n * 10 + u16::from(d - b'0')))
    });
    let (class, subject, detail) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() {
        return None;
    }
    Some(Enhanced(u8::try_from(class).ok().filter(|c| matches!(c, 2 | 4 | 5))?, subject, detail))
}

/// Text of the network for people: valid UTF-8, no control characters, at most `max` octets.
#[must_use]
pub fn clean(text: &[u8], max: usize) -> Box<str> {
    let mut out = String::with_capacity(text.len().min(max));
    for chunk in text.utf8_chunks() {
        let valid = chunk.valid().chars().map(|c| if harmful(c) { '?' } else { c });
        let rest = (!chunk.invalid().is_empty()).then_some('?');
        for c in valid.chain(rest) {
            if out.len() + c.len_utf8() > max {
                return out.into_boxed_str();
            }
            out.push(c);
        }
    }
    out.into_boxed_str()
}

/// Control characters, line separators, and marks that turn the direction of a log line.
fn harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8]) -> Result<Vec<Reply>, Malformed> {
        let mut parser = Parser::default();
        let mut replies = Vec::new();
        let mut rest = input;
        loop {
            match parser.next(&mut rest)? {
                Step::More => return Ok(replies),
                Step::Line(_) => {}
                Step::Last(_) => replies.push(parser.finish()),
            }
        }
    }

    #[test]
    fn replies_of_one_and_many_lines() {
        let replies = all(b"250-2.1.5 one\r\n250-2.1.5 two\r\n250 2.1.5 three\r\n250\r\n").unwrap();
        assert_eq!(replies[0].enhanced, Some(Enhanced(2, 1, 5)));
        assert_eq!(&*replies[0].text, "one two three");
        assert_eq!(replies[0].to_string(), "250 2.1.5 one two three");
        assert_eq!(replies[1].to_string(), "250");
        let other = all(b"550 2.1.5 no\r\n").unwrap();
        assert_eq!((other[0].enhanced, &*other[0].text), (None, "2.1.5 no"));
        assert_eq!(&*all(b"571 no\r\n").unwrap()[0].text, "no");
    }

    #[test]
    fn deviations_are_refused() {
        let long = [b"250 ".as_slice(), &[b'x'; REPLY_LINE_MAX]].concat();
        let many = b"250-x\r\n".repeat(REPLY_LINES_MAX + 1);
        for (input, why) in [
            (b"hello\r\n".as_slice(), Malformed::Code),
            (b"\r\n", Malformed::Code),
            (b"25\r\n", Malformed::Code),
            (b"150 x\r\n", Malformed::Code),
            (b"650 x\r\n", Malformed::Code),
            (b"2500 x\r\n", Malformed::Code),
            (b"250_x\r\n", Malformed::Code),
            (b"250-x\r\n251 x\r\n", Malformed::CodeChanged),
            (b"250 x\n", Malformed::BareLf),
            (&long, Malformed::LineTooLong),
            (&many, Malformed::TooManyLines),
        ] {
            assert_eq!(all(input), Err(why), "{:?}", String::from_utf8_lossy(input));
        }
        let fits = [b"250 ".as_slice(), &[b'x'; REPLY_LINE_MAX - 6], b"\r\n"].concat();
        assert_eq!(all(&fits).unwrap()[0].text.len(), REPLY_TEXT_MAX);
    }

    #[test]
    fn text_is_clean_and_bounded() {
        assert_eq!(&*clean(b"a\x00b\x1bc\x7fd\xffe\xc2\x85f", 500), "a?b?c?d?e?f");
        assert_eq!(&*clean("käse\u{202e}".as_bytes(), 500), "käse?");
        assert_eq!(&*clean("ä".repeat(300).as_bytes(), 500), "ä".repeat(250));
    }
}
