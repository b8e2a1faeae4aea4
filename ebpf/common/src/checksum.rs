//! The Internet checksum (RFC 1071).

/// Adds the big-endian 16-bit words of `bytes`; an odd last octet counts as the high one.
#[inline(always)]
#[must_use]
pub fn add(mut sum: u32, bytes: &[u8]) -> u32 {
    let mut at = 0;
    while at + 1 < bytes.len() {
        sum += u32::from(bytes[at]) << 8 | u32::from(bytes[at + 1]);
        at += 2;
    }
    if at < bytes.len() {
        sum += u32::from(bytes[at]) << 8;
    }
    sum
}

/// The two halves of a word in host order.
#[inline(always)]
#[must_use]
pub fn add_word(sum: u32, word: u32) -> u32 {
    sum + (word >> 16) + (word & 0xffff)
}

/// Folds the sum and complements it: what stands in the header, in host order.
#[inline(always)]
#[must_use]
pub fn finish(sum: u32) -> u16 {
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !((folded & 0xffff) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(finish(sum), !0xddf2);
    }

    #[test]
    fn an_odd_octet_is_the_high_one() {
        assert_eq!(add(0, &[1, 2, 3]), 0x0102 + 0x0300);
        assert_eq!(add_word(0, 0x0001_fffe), 0xffff);
    }
}
