//! Words to octets and numbers, without casts that could lose anything unseen.

/// The low 32 bits.
pub(crate) const fn low32(word: u64) -> u32 {
    let b = word.to_le_bytes();
    u32::from_le_bytes([b[0], b[1], b[2], b[3]])
}

/// The high 32 bits.
pub(crate) const fn high32(word: u64) -> u32 {
    low32(word >> 32)
}

/// Octet `n` of a word, the lowest first.
pub(crate) const fn octet(word: u64, n: usize) -> u8 {
    word.to_le_bytes()[n & 7]
}

/// Two octets of a word beginning at octet `n`.
pub(crate) const fn low16_at(word: u64, n: usize) -> u16 {
    u16::from_le_bytes([octet(word, n), octet(word, n + 1)])
}

/// Two numbers as one word.
pub(crate) const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | ((high as u64) << 32)
}

/// Octets as little-endian words; the rest is zero.
pub(crate) fn pack(octets: &[u8], words: &mut [u64]) {
    words.fill(0);
    for (word, chunk) in words.iter_mut().zip(octets.chunks(8)) {
        let mut b = [0u8; 8];
        b[..chunk.len()].copy_from_slice(chunk);
        *word = u64::from_le_bytes(b);
    }
}

/// Words as octets, as many as `octets` holds.
pub(crate) fn unpack(words: &[u64], octets: &mut [u8]) {
    for (word, chunk) in words.iter().zip(octets.chunks_mut(8)) {
        let n = chunk.len();
        chunk.copy_from_slice(&word.to_le_bytes()[..n]);
    }
}

/// A word scaled to `0..n`, for choosing a bucket.
pub(crate) fn scale(word: u64, n: usize) -> usize {
    let wide = u128::from(word) * (n as u128);
    usize::try_from(wide >> 64).unwrap_or(0)
}
