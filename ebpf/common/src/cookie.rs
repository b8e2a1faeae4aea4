//! SYN cookies: the sequence number of an answered handshake proves it, without state.
//!
//! A cookie is 30 bits of SipHash-1-3 over addresses, ports and epoch, the key's number in bit 1
//! and the epoch's parity in bit 0. A client can acknowledge two numbers only: the SYN-ACK, or
//! the 554 with its FIN, which is a multiple of four further. So one hash settles both.
//!
//! *Guarantees*: a cookie holds for its epoch and the next ([`EPOCH_S`] each) and for two keys.
//! A chance hit on a foreign session is 2 in 2^30 a packet, and then the source must be listed.

use crate::limits::{EPOCH_S, TEXT_BYTES};
use crate::packet::Segment;

/// How far an answered client has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// It acknowledged the SYN-ACK.
    Opened,
    /// It acknowledged the 554 and its FIN.
    Refused,
}

/// Numbers between the two: the text and its FIN.
const STRIDE: u32 = TEXT_BYTES as u32 + 1;

const _: () = assert!(STRIDE.is_multiple_of(4));

/// The sequence number of the SYN-ACK.
#[inline(always)]
#[must_use]
pub fn make(keys: &[[u64; 2]; 2], key: u8, segment: &Segment, now_s: u32) -> u32 {
    let epoch = now_s / EPOCH_S;
    let key = u32::from(key & 1);
    let chosen = if key == 0 { keys[0] } else { keys[1] };
    hash(chosen, segment, epoch) & !3 | key << 1 | epoch & 1
}

/// What the acknowledgement number proves, if anything.
#[inline(always)]
#[must_use]
pub fn check(keys: &[[u64; 2]; 2], segment: &Segment, now_s: u32) -> Option<Progress> {
    let opened = segment.acknowledgement.wrapping_sub(1);
    let mut epoch = now_s / EPOCH_S;
    if epoch & 1 != opened & 1 {
        epoch = epoch.wrapping_sub(1);
    }
    let chosen = if opened & 2 == 0 { keys[0] } else { keys[1] };
    let expected = hash(chosen, segment, epoch) & !3;
    if opened & !3 == expected {
        Some(Progress::Opened)
    } else if opened.wrapping_sub(STRIDE) & !3 == expected {
        Some(Progress::Refused)
    } else {
        None
    }
}

#[inline(always)]
fn hash(key: [u64; 2], segment: &Segment, epoch: u32) -> u32 {
    let mut sip = Sip::new(key);
    let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    let (source, destination) = (&segment.source.words, &segment.destination.words);
    sip.word(pair(source[0], destination[0]));
    let mut bytes = 16;
    if segment.source.six {
        sip.word(pair(source[1], destination[1]));
        sip.word(pair(source[2], destination[2]));
        sip.word(pair(source[3], destination[3]));
        bytes = 40;
    }
    let ports = u32::from(segment.source_port) << 16 | u32::from(segment.destination_port);
    sip.word(pair(ports, epoch));
    (sip.finish(bytes) >> 32) as u32
}

/// SipHash with one round a word and three at the end, over whole words.
struct Sip {
    v: [u64; 4],
}

impl Sip {
    #[inline(always)]
    const fn new(key: [u64; 2]) -> Self {
        Self {
            v: [
                key[0] ^ 0x736f_6d65_7073_6575,
                key[1] ^ 0x646f_7261_6e64_6f6d,
                key[0] ^ 0x6c79_6765_6e65_7261,
                key[1] ^ 0x7465_6462_7974_6573,
            ],
        }
    }

    #[inline(always)]
    const fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.v;
        a = a.wrapping_add(b);
        c = c.wrapping_add(d);
        b = b.rotate_left(13) ^ a;
        d = d.rotate_left(16) ^ c;
        a = a.rotate_left(32);
        c = c.wrapping_add(b);
        a = a.wrapping_add(d);
        b = b.rotate_left(17) ^ c;
        d = d.rotate_left(21) ^ a;
        c = c.rotate_left(32);
        self.v = [a, b, c, d];
    }

    #[inline(always)]
    const fn word(&mut self, word: u64) {
        self.v[3] ^= word;
        self.round();
        self.v[0] ^= word;
    }

    #[inline(always)]
    const fn finish(&mut self, bytes: u64) -> u64 {
        self.word(bytes << 56);
        self.v[2] ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.v[0] ^ self.v[1] ^ self.v[2] ^ self.v[3]
    }
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher;

    use super::*;
    use crate::packet::Address;

    const KEYS: [[u64; 2]; 2] = [[1, 2], [3, 4]];

    fn segment(six: bool) -> Segment {
        let address = |n| if six { Address::v6([n, 1, 2, 3]) } else { Address::v4(n) };
        Segment {
            tags: 0,
            tag: 0,
            source: address(0x0a00_0001),
            destination: address(0x0a00_0002),
            source_port: 40_000,
            destination_port: 25,
            sequence: 7,
            acknowledgement: 0,
            flags: 0x10,
            data_bytes: 0,
        }
    }

    #[test]
    fn it_is_siphash_1_3() {
        let words = [0x0102_0304_0506_0708_u64, 0xffee_ddcc_bbaa_9988, 5];
        let mut ours = Sip::new([11, 22]);
        let mut theirs = siphasher::sip::SipHasher13::new_with_keys(11, 22);
        for word in words {
            ours.word(word);
            theirs.write(&word.to_le_bytes());
        }
        assert_eq!(ours.finish(24), theirs.finish());
    }

    #[test]
    fn it_holds_for_two_epochs_and_two_keys() {
        for six in [false, true] {
            for key in [0, 1] {
                for start in [0, EPOCH_S, 1_000_000 * EPOCH_S, 1_000_001 * EPOCH_S] {
                    let mut segment = segment(six);
                    let cookie = make(&KEYS, key, &segment, start);
                    segment.acknowledgement = cookie.wrapping_add(1);
                    let at = |now_s| check(&KEYS, &segment, now_s);
                    assert_eq!(at(start), Some(Progress::Opened));
                    assert_eq!(at(start + 2 * EPOCH_S - 1), Some(Progress::Opened));
                    assert_eq!(at(start + 2 * EPOCH_S), None);
                    segment.acknowledgement = cookie.wrapping_add(1).wrapping_add(STRIDE);
                    assert_eq!(check(&KEYS, &segment, start), Some(Progress::Refused));
                    segment.acknowledgement = cookie.wrapping_add(STRIDE);
                    assert_eq!(check(&KEYS, &segment, start), None);
                    assert_eq!(check(&[KEYS[1], KEYS[0]], &segment, start), None);
                }
            }
        }
    }

    #[test]
    fn every_part_of_the_name_counts() {
        let base = make(&KEYS, 0, &segment(true), 9);
        for n in 0..10 {
            let mut other = segment(true);
            match n {
                0..4 => other.source.words[n] ^= 0x10,
                4..8 => other.destination.words[n - 4] ^= 0x10,
                8 => other.source_port ^= 1,
                _ => other.destination_port ^= 1,
            }
            assert_ne!(make(&KEYS, 0, &other, 9), base, "part {n}");
        }
        assert_ne!(make(&KEYS, 0, &segment(true), 9 + 2 * EPOCH_S), base);
    }
}
