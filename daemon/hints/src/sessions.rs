//! How many sessions a client has open, over all cores: atomics in memory only, gone with the
//! process as the sessions are.
//!
//! *Guarantees*: entering and leaving are one compare-and-swap each; a limit of 10 entered by 100
//! at once on all cores lets 10 in.
//!
//! *Limits*: a fixed table; with four cells for each session slot a bucket is never full in
//! practice. *Failure*: a client whose bucket is full is let in uncounted ([`Entered::Uncounted`]).

use core::sync::atomic::AtomicU64;

use crate::bits;
use crate::cells::{self, Bucket, Policy, Updated};
use crate::hash::{Hash, Seed};
use crate::kind::Kind;
use crate::limits::{CELL_BUCKET_WORDS, CELLS, SESSION_COUNT_BITS, SESSIONS_PER_KEY_MAX};

struct Open;

impl Policy for Open {
    const VALUE_BITS: u32 = SESSION_COUNT_BITS;
    const EVICTS: bool = false;
    fn worth(&self, value: u64) -> Option<u64> {
        (value > 0).then_some(value)
    }
}

/// The table of open sessions.
#[derive(Debug)]
pub struct Sessions {
    words: Box<[AtomicU64]>,
    seed: Seed,
}

/// A place in the table: give it back with [`Sessions::leave`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a session that never leaves is counted for ever"]
pub struct SessionSlot {
    bucket: usize,
    way: usize,
    tag: u64,
}

/// Whether a session may begin.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a session that never leaves is counted for ever"]
pub enum Entered {
    /// Within the limit and counted.
    Counted(SessionSlot),
    /// The limit is reached.
    Refused,
    /// No cell to count it in: let in.
    Uncounted,
}

impl Sessions {
    /// A table for at most so many sessions at once, with room to spare.
    #[must_use]
    pub fn new(sessions_max: usize, seed: Seed) -> Self {
        let buckets = (sessions_max.saturating_mul(4) / CELLS).max(64);
        let words = (0..buckets * CELL_BUCKET_WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { words, seed }
    }

    fn bucket(&self, number: usize) -> Bucket<'_> {
        let at = number * CELL_BUCKET_WORDS;
        Bucket::new(&self.words[at..at + CELL_BUCKET_WORDS]).expect("a bucket's words")
    }

    fn place(&self, key: &[u8]) -> (usize, u64) {
        let Hash { high, low } = self.seed.hash(Kind::RateConnect, key);
        (bits::scale(low, self.words.len() / CELL_BUCKET_WORDS), cells::tag::<Open>(high))
    }

    /// One more session of this client, unless it has `sessions_max` open.
    pub fn enter(&self, key: &[u8], sessions_max: u32) -> Entered {
        let (bucket, tag) = self.place(key);
        let most = u64::from(sessions_max.min(SESSIONS_PER_KEY_MAX));
        let updated = self.bucket(bucket).update(tag, &Open, |old| {
            let open = old.unwrap_or(0);
            (open < most).then_some(open + 1)
        });
        match updated {
            Updated::Changed(way) | Updated::Inserted(way) | Updated::Evicted(way) => {
                Entered::Counted(SessionSlot { bucket, way, tag })
            }
            Updated::Unchanged => Entered::Refused,
            Updated::Full => Entered::Uncounted,
        }
    }

    /// A counted session has ended.
    #[expect(clippy::needless_pass_by_value, reason = "a place is given back once")]
    pub fn leave(&self, slot: SessionSlot) {
        let SessionSlot { bucket, way, tag } = slot;
        self.bucket(bucket).change::<Open>(way, tag, |open| (open > 1).then(|| open - 1));
    }

    /// How many sessions a client has open.
    #[must_use]
    pub fn open(&self, key: &[u8]) -> u32 {
        let (bucket, tag) = self.place(key);
        self.bucket(bucket).get::<Open>(tag).map_or(0, bits::low32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entering_and_leaving_balance() {
        let sessions = Sessions::new(10, Seed([1, 2]));
        let mut slots = Vec::new();
        for _ in 0..3 {
            let Entered::Counted(slot) = sessions.enter(b"a", 3) else { panic!("within") };
            slots.push(slot);
        }
        assert_eq!(sessions.enter(b"a", 3), Entered::Refused);
        assert_eq!((sessions.open(b"a"), sessions.open(b"b")), (3, 0));
        for slot in slots {
            sessions.leave(slot);
        }
        assert_eq!(sessions.open(b"a"), 0);
        assert!(matches!(sessions.enter(b"a", 1), Entered::Counted(_)));
        assert_eq!(sessions.enter(b"b", 0), Entered::Refused);
    }

    #[test]
    fn a_full_bucket_lets_in_uncounted() {
        let sessions = Sessions::new(0, Seed([1, 2]));
        let entered = (0u32..600).map(|n| sessions.enter(&n.to_le_bytes(), 1));
        let uncounted = entered.filter(|entered| *entered == Entered::Uncounted).count();
        assert!((600 - 64 * CELLS..300).contains(&uncounted), "{uncounted}");
    }
}
