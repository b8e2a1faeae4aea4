//! Finds CRLF.CRLF in a stream that comes in pieces.
//!
//! *Guarantees*: finds the first end whatever the pieces, also the one right after DATA's own line
//! end; a lone CR or LF never makes one.

use std::sync::LazyLock;

use memchr::memmem::Finder;

const END: &[u8] = b"\r\n.\r\n";
static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(END));

/// How many octets of CRLF.CRLF the stream so far ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndOfData(u8);

impl EndOfData {
    /// Right after the line end of DATA.
    pub fn start() -> Self {
        Self(2)
    }

    #[inline]
    fn step(&mut self, octet: u8) -> bool {
        self.0 = match (self.0, octet) {
            (1, b'\n') => 2,
            (2, b'.') => 3,
            (3, b'\r') => 4,
            (4, b'\n') => 5,
            (_, b'\r') => 1,
            _ => 0,
        };
        self.0 == 5
    }
}

/// Offset right after the end of data, or `None` and `progress` moved on.
#[inline]
pub fn find_end(progress: &mut EndOfData, bytes: &[u8]) -> Option<usize> {
    let straddle = bytes.len().min(END.len() - 1);
    for (at, &octet) in bytes[..straddle].iter().enumerate() {
        if progress.step(octet) {
            return Some(at + 1);
        }
    }
    if bytes.len() <= straddle {
        return None;
    }
    if let Some(at) = FINDER.find(bytes) {
        return Some(at + END.len());
    }
    *progress = EndOfData(0);
    for &octet in &bytes[bytes.len() - straddle..] {
        progress.step(octet);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends_at(pieces: &[&[u8]]) -> Option<usize> {
        let mut progress = EndOfData::start();
        let mut before = 0;
        for piece in pieces {
            if let Some(at) = find_end(&mut progress, piece) {
                return Some(before + at);
            }
            before += piece.len();
        }
        None
    }

    #[test]
    fn every_split_finds_the_same_end() {
        let streams: [(&[u8], Option<usize>); 9] = [
            (b".\r\nMAIL", Some(3)),
            (b"abc\r\n.\r\nQUIT\r\n", Some(8)),
            (b"\r\n\r\n.\r\n.\r\n", Some(7)),
            (b"a\r\n..\r\n.\r\r\n.\r\nx", Some(14)),
            (b"a\n.\nb\r\n.\nc\r.\r\n", None),
            (b"a\r\n.\r\r\n.\r", None),
            (b"..\r\n\r\n.x\r\n", None),
            (b"\r\n.\r\n", Some(5)),
            (b"a\r\r\n.\r\nbbbbbbbb", Some(7)),
        ];
        for (stream, expected) in streams {
            assert_eq!(ends_at(&[stream]), expected, "{stream:?} whole");
            for first in 0..=stream.len() {
                for second in first..=stream.len() {
                    let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                    assert_eq!(ends_at(&pieces), expected, "{stream:?} at {first}, {second}");
                }
            }
            let octets: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(ends_at(&octets), expected, "{stream:?} octet by octet");
        }
    }
}
