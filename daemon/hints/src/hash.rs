//! The keyed hash: finds records, tells keys apart, and is the checksum of a record.
//!
//! *Guarantees*: SipHash-1-3 under a random key of the file, so nobody outside can choose keys that
//! meet in one bucket.

use core::hash::Hasher;

use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher13Wide};

use crate::kind::Kind;

/// Random words for the file's hash key, from the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub [u64; 2]);

/// 128 bits that stand for kind and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hash {
    pub(crate) high: u64,
    pub(crate) low: u64,
}

impl Hash {
    /// `hash mod 64`.
    pub(crate) fn shard(self) -> usize {
        usize::from(self.low.to_le_bytes()[0] & 63)
    }
}

impl Seed {
    pub(crate) fn hash(self, kind: Kind, key: &[u8]) -> Hash {
        let mut hasher = SipHasher13Wide::new_with_keys(self.0[0], self.0[1]);
        hasher.write(key);
        hasher.write(&[kind.number()]);
        let hash = hasher.finish128();
        Hash { high: hash.h1, low: hash.h2 }
    }

    /// Checksum of words.
    pub(crate) fn check(self, words: &[u64]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.0[0], self.0[1]);
        for word in words {
            hasher.write(&word.to_le_bytes());
        }
        hasher.finish()
    }
}
