//! Buckets of one-word cells: a tag of the key and a small value in one atomic word, so that
//! finding, changing, claiming and giving up a cell are each one compare-and-swap.
//!
//! *Guarantees*: at most one cell of a bucket has a given tag. An existing cell is changed without
//! any lock. A new one is inserted under the bucket's lock word after a second look: two threads
//! that bring the same new key end at the same cell, and a limit counts exactly.
//!
//! *Limits*: seven cells a bucket, one cache line. The lock is held for some ten instructions.
//!
//! *Failure*: a lock word left odd by a kill or a flipped bit is taken over after
//! `LOCK_TRIES_MAX` turns, and repaired when the file is opened.
//!
//! *Orderings*. A cell word is its whole state, so its compare-and-swap needs atomicity only
//! (`Relaxed`): no other memory is read because of it. The lock is taken with `Acquire` and left
//! with `Release`, so whoever holds it sees every cell inserted before; that makes the second look
//! decisive.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{CELL_BUCKET_WORDS, LOCK_TRIES_MAX};

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Updated {
    /// The cell was changed.
    Changed(usize),
    /// `decide` said to leave all as it is.
    Unchanged,
    /// A free or expired cell was taken.
    Inserted(usize),
    /// A live cell was given up for this one.
    Evicted(usize),
    /// No cell could be had.
    Full,
}

/// How a bucket's cells are read: how many low bits are the value, and what a value is worth.
pub(crate) trait Policy {
    /// Bits of the value; the others are the tag.
    const VALUE_BITS: u32;
    /// `None`: the cell is free for anybody; else the cell with the lowest worth goes first.
    fn worth(&self, value: u64) -> Option<u64>;
    /// Whether a live cell may be given up for another key.
    const EVICTS: bool;
}

/// One bucket: the lock word and seven cells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket<'w> {
    words: &'w [AtomicU64],
}

const fn value_of<P: Policy>(word: u64) -> u64 {
    word & ((1 << P::VALUE_BITS) - 1)
}

/// The tag bits of a hash in their place, never zero (a zero word is a free cell).
pub(crate) fn tag<P: Policy>(hash: u64) -> u64 {
    let tag = hash >> P::VALUE_BITS << P::VALUE_BITS;
    if tag == 0 { 1 << P::VALUE_BITS } else { tag }
}

impl<'w> Bucket<'w> {
    /// The bucket in these eight words; `None` if there are not eight.
    pub(crate) fn new(words: &'w [AtomicU64]) -> Option<Self> {
        (words.len() == CELL_BUCKET_WORDS).then_some(Self { words })
    }

    fn cells(&self) -> &'w [AtomicU64] {
        &self.words[1..]
    }

    fn find<P: Policy>(&self, tag: u64) -> Option<(usize, &'w AtomicU64, u64)> {
        self.cells().iter().enumerate().find_map(|(way, cell)| {
            let word = cell.load(Ordering::Relaxed);
            (word != 0 && word - value_of::<P>(word) == tag).then_some((way, cell, word))
        })
    }

    /// The value under a tag.
    pub(crate) fn get<P: Policy>(&self, tag: u64) -> Option<u64> {
        self.find::<P>(tag).map(|(_, _, word)| value_of::<P>(word))
    }

    /// The word of one cell.
    pub(crate) fn word(&self, way: usize) -> u64 {
        self.cells().get(way).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// Frees one cell if it still holds this word.
    pub(crate) fn free(&self, way: usize, word: u64) -> bool {
        let Some(cell) = self.cells().get(way) else { return false };
        cell.compare_exchange(word, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Changes one cell that the caller knows to be its own; `None` from `next` frees it.
    pub(crate) fn change<P: Policy>(
        &self,
        way: usize,
        tag: u64,
        mut next: impl FnMut(u64) -> Option<u64>,
    ) -> bool {
        let Some(cell) = self.cells().get(way) else { return false };
        cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let value = value_of::<P>(word);
            (word - value == tag && word != 0).then(|| next(value).map_or(0, |value| tag | value))
        })
        .is_ok()
    }

    /// Finds the cell of `tag`, or the want of one, and changes it as `decide` says (`None`: leave
    /// it). `decide` is asked again whenever somebody else was faster.
    pub(crate) fn update<P: Policy>(
        &self,
        tag: u64,
        policy: &P,
        mut decide: impl FnMut(Option<u64>) -> Option<u64>,
    ) -> Updated {
        loop {
            if let Some(done) = self.update_existing::<P>(tag, &mut decide) {
                return done;
            }
            let Some(first) = decide(None) else { return Updated::Unchanged };
            let _lock = Lock::take(&self.words[0]);
            if self.find::<P>(tag).is_some() {
                continue;
            }
            if let Some(done) = self.insert::<P>(tag | first, policy) {
                return done;
            }
        }
    }

    fn update_existing<P: Policy>(
        &self,
        tag: u64,
        decide: &mut impl FnMut(Option<u64>) -> Option<u64>,
    ) -> Option<Updated> {
        while let Some((way, cell, word)) = self.find::<P>(tag) {
            let Some(next) = decide(Some(value_of::<P>(word))) else {
                return Some(Updated::Unchanged);
            };
            if cell.compare_exchange(word, tag | next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            {
                return Some(Updated::Changed(way));
            }
        }
        None
    }

    /// Under the lock: takes a free cell, or the least worth one. `None`: it changed meanwhile.
    fn insert<P: Policy>(&self, new: u64, policy: &P) -> Option<Updated> {
        let (way, cell, word, worth) = self
            .cells()
            .iter()
            .enumerate()
            .map(|(way, cell)| {
                let word = cell.load(Ordering::Relaxed);
                let worth = if word == 0 { None } else { policy.worth(value_of::<P>(word)) };
                (way, cell, word, worth)
            })
            .min_by_key(|&(.., worth)| worth)?;
        if worth.is_some() && !P::EVICTS {
            return Some(Updated::Full);
        }
        cell.compare_exchange(word, new, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        Some(if worth.is_some() { Updated::Evicted(way) } else { Updated::Inserted(way) })
    }

    /// Opens the lock, whoever left it. Only while nobody else uses the bucket.
    pub(crate) fn repair(&self) {
        self.words[0].store(0, Ordering::Relaxed);
    }
}

/// The insertion lock of a bucket: odd while held.
struct Lock<'w> {
    word: &'w AtomicU64,
    held: u64,
}

impl<'w> Lock<'w> {
    fn take(word: &'w AtomicU64) -> Self {
        let mut tries = 0;
        loop {
            let seen = word.load(Ordering::Relaxed);
            let broken = tries > LOCK_TRIES_MAX;
            let held = seen % 2 == 1;
            let next = if held { seen.wrapping_add(2) } else { seen.wrapping_add(1) };
            if (!held || broken)
                && word.compare_exchange(seen, next, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return Self { word, held: next };
            }
            tries += 1;
            // The holder runs on another core and needs nanoseconds; if it was put aside, let it.
            if tries % 128 == 0 { std::thread::yield_now() } else { core::hint::spin_loop() }
        }
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // Fails only if somebody took the lock over; then it is theirs to open.
        let _ = self.word.compare_exchange(
            self.held,
            self.held.wrapping_add(1),
            Ordering::Release,
            Ordering::Relaxed,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain;
    impl Policy for Plain {
        const VALUE_BITS: u32 = 16;
        const EVICTS: bool = true;
        fn worth(&self, value: u64) -> Option<u64> {
            (value > 0).then_some(value)
        }
    }

    fn words() -> Vec<AtomicU64> {
        (0..CELL_BUCKET_WORDS).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_cell_is_found_changed_and_evicted_by_worth() {
        let words = words();
        let bucket = Bucket::new(&words).unwrap();
        for n in 1..=7u64 {
            let done = bucket.update(n << 16, &Plain, |old| Some(old.unwrap_or(0) + 10 + n));
            assert!(matches!(done, Updated::Inserted(_)));
        }
        assert_eq!(bucket.get::<Plain>(3 << 16), Some(13));
        assert!(matches!(bucket.update(3 << 16, &Plain, |_| Some(99)), Updated::Changed(_)));
        // Full: 1 has the least worth.
        assert_eq!(bucket.update(8 << 16, &Plain, |_| Some(50)), Updated::Evicted(0));
        assert_eq!(bucket.get::<Plain>(1 << 16), None);
        // An expired cell goes without being counted as evicted.
        assert!(matches!(bucket.update(5 << 16, &Plain, |_| Some(0)), Updated::Changed(4)));
        assert_eq!(bucket.update(9 << 16, &Plain, |_| Some(50)), Updated::Inserted(4));
    }

    #[test]
    fn a_lock_left_behind_is_taken_over() {
        let words = words();
        words[0].store(7, Ordering::Relaxed);
        let bucket = Bucket::new(&words).unwrap();
        assert_eq!(bucket.update(1 << 16, &Plain, |_| Some(1)), Updated::Inserted(0));
        assert_eq!(words[0].load(Ordering::Relaxed) % 2, 0);
    }
}
