//! Where lines end: CR and LF of a slice, 64 octets at a time.
//!
//! *Guarantees*: a line is named only if it ends with CRLF and has no CR or LF before that;
//! whatever else there is ends the search. A call of a search function for each line would cost
//! more than the search: lines of mail are two or three vectors long.

use wide::u8x16;

const BLOCK: usize = 64;
const CR: u8x16 = u8x16::new([b'\r'; 16]);
const LF: u8x16 = u8x16::new([b'\n'; 16]);

/// Calls `line` with the start of a line and the place of its CRLF, for each line in turn until it
/// says no, until one is not plain, or until no further one is whole.
#[inline]
pub(crate) fn plain_lines(octets: &[u8], mut line: impl FnMut(usize, usize) -> bool) {
    let (mut start, mut block) = (0, 0);
    // The last octet of the block before was a CR: 1.
    let mut open = 0;
    while let Some(rest) = octets.get(block..).filter(|rest| !rest.is_empty()) {
        let (cr, lf) = bits_of(rest);
        // Below the first bit by which they differ each LF has its CR, and each CR its LF.
        let odd = (cr << 1 | open) ^ lf;
        let mut ends = lf & (odd & odd.wrapping_neg()).wrapping_sub(1);
        while ends != 0 {
            // Below 64.
            let end = block + ends.trailing_zeros() as usize;
            ends &= ends - 1;
            if !line(start, end - 1) {
                return;
            }
            start = end + 1;
        }
        if odd != 0 {
            return;
        }
        open = cr >> (BLOCK - 1);
        block += BLOCK;
    }
}

/// A bit for each CR, and one for each LF, of the first block.
#[inline]
fn bits_of(octets: &[u8]) -> (u64, u64) {
    if let Some(block) = octets.first_chunk::<BLOCK>() {
        return bits_of_block(block);
    }
    // Zeros behind the last octets are neither.
    let mut block = [0; BLOCK];
    block[..octets.len()].copy_from_slice(octets);
    bits_of_block(&block)
}

#[inline]
fn bits_of_block(block: &[u8; BLOCK]) -> (u64, u64) {
    let (parts, _) = block.as_chunks::<16>();
    parts.iter().rev().fold((0, 0), |(cr, lf), part| {
        let part = u8x16::new(*part);
        let bits = |of: u8x16| u64::from(part.simd_eq(of).to_bitmask());
        (cr << 16 | bits(CR), lf << 16 | bits(LF))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(octets: &[u8]) -> Vec<(usize, usize)> {
        let mut all = Vec::new();
        plain_lines(octets, |start, end| {
            all.push((start, end));
            true
        });
        all
    }

    /// The same, octet by octet.
    fn slowly(octets: &[u8]) -> Vec<(usize, usize)> {
        let (mut all, mut start) = (Vec::new(), 0);
        while let Some(n) = octets[start..].iter().position(|c| matches!(c, b'\r' | b'\n')) {
            if !octets[start + n..].starts_with(b"\r\n") {
                break;
            }
            all.push((start, start + n));
            start += n + 2;
        }
        all
    }

    #[test]
    fn lines_of_every_length_at_every_place() {
        for len in 0..140 {
            for first in 0..140 {
                let mut octets = vec![b'x'; first];
                octets.extend_from_slice(b"\r\n");
                octets.extend(vec![b'\0'; len]);
                octets.extend_from_slice(b"\r\n.\r\n\r\nrest");
                assert_eq!(lines(&octets), slowly(&octets));
                assert_eq!(lines(&octets).len(), 4);
            }
        }
        assert_eq!(lines(b""), []);
    }

    #[test]
    fn what_is_not_plain_ends_it() {
        let plain = b"one\r\n".repeat(40);
        for at in 0..plain.len() {
            for odd in [b'\r', b'\n', b'x'] {
                let mut octets = plain.clone();
                octets[at] = odd;
                assert_eq!(lines(&octets), slowly(&octets), "{odd} at {at}");
                octets.truncate(at + 1);
                assert_eq!(lines(&octets), slowly(&octets), "cut behind {odd} at {at}");
            }
        }
        let mut seen = 0;
        plain_lines(&plain, |_, _| {
            seen += 1;
            seen < 17
        });
        assert_eq!(seen, 17);
    }
}
