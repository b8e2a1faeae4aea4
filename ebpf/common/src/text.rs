//! The 554 line: made ready by user space, completed by the filter with address and id.
//!
//! The line always has [`TEXT_BYTES`] octets: `554 5.7.1 [address] body  (id 0123ABCD)`, with
//! spaces after the body. The address stands in its bracket from a fixed column.

use crate::limits::TEXT_BYTES;

/// Octets of a text in its map: the line and a zero, so that its checksum runs over whole words.
pub const TEXT_ROW_BYTES: usize = TEXT_BYTES + 1;

/// A line without address and id, as it stands in the map.
pub type Text = [u8; TEXT_ROW_BYTES];

/// Column of the address.
pub const ADDRESS_AT: usize = 11;

/// Column of the id's eight digits.
pub const ID_AT: usize = TEXT_BYTES - 11;

const HEAD: &[u8; ADDRESS_AT] = b"554 5.7.1 [";

/// Longest body beside an IPv4 address.
pub const BODY4_BYTES_MAX: usize = ID_AT - 5 - body_at(false);

/// Longest body beside an IPv6 address.
pub const BODY6_BYTES_MAX: usize = ID_AT - 5 - body_at(true);

const _: () = assert!(BODY6_BYTES_MAX >= 80 && BODY4_BYTES_MAX >= 100);

/// Column of the body: behind the longest address, its bracket and a space.
const fn body_at(six: bool) -> usize {
    ADDRESS_AT + if six { 39 } else { 15 } + 2
}

/// The row of the map of texts for a reason.
#[inline(always)]
#[must_use]
pub fn text_row(reason: u8, six: bool) -> u32 {
    u32::from(reason) % (crate::limits::REASONS_MAX as u32) * 2 + six as u32
}

/// Makes a line ready. `None` if the body is too long or has other than printable ASCII.
#[must_use]
pub fn prepare(six: bool, body: &str) -> Option<Text> {
    let limit = if six { BODY6_BYTES_MAX } else { BODY4_BYTES_MAX };
    if body.len() > limit || !body.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return None;
    }
    let mut out = [b' '; TEXT_ROW_BYTES];
    out[..ADDRESS_AT].copy_from_slice(HEAD);
    let at = body_at(six);
    out[at..at + body.len()].copy_from_slice(body.as_bytes());
    out[ID_AT - 4..ID_AT].copy_from_slice(b"(id ");
    out[ID_AT + 8..].copy_from_slice(b")\r\n\0");
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_columns() {
        let text = prepare(false, "listed").expect("short");
        let line = core::str::from_utf8(&text).expect("ASCII");
        assert!(line.starts_with("554 5.7.1 ["));
        assert_eq!(&line[28..34], "listed");
        assert!(line.ends_with("(id         )\r\n\0"), "{line:?}");
        assert_eq!(line.len(), TEXT_BYTES + 1);
    }

    #[test]
    fn bodies_are_bounded_and_printable() {
        let longest = [b'x'; BODY4_BYTES_MAX + 1];
        let longest = core::str::from_utf8(&longest).expect("ASCII");
        assert!(prepare(false, longest).is_none());
        let text = prepare(false, &longest[1..]).expect("fits");
        assert_eq!(&text[ID_AT - 6..ID_AT - 3], b"x (");
        assert!(prepare(true, &longest[1..]).is_none());
        assert!(prepare(false, "two\r\nlines").is_none());
        assert!(prepare(false, "\u{e9}").is_none());
    }
}
