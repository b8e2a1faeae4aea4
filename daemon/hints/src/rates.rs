//! Rates: one atomic word a key, shared by all cores.
//!
//! *Guarantees*: the word holds the key's tag (24 bits) and the theoretical arrival time (40 bits);
//! asking and counting are one compare-and-swap. One key has one word, so a limit is exact over all
//! cores, and it survives a restart.
//!
//! *Limits*: with the 2^13 or more buckets chosen by the same keyed hash, two clients share a word
//! with a probability of about 4e-7; they then share a limit. A full bucket gives up the rate
//! closest to its end, counted. A word has no checksum: a flipped bit is at worst one wrong verdict
//! for one period.
//!
//! *Not here*: the key octets; a label beside the word names it for the admin tool, is written
//! without care and believed only if its hash leads back to the word.

use core::sync::atomic::Ordering;

use crate::bits;
use crate::cells::{self, Policy, Updated};
use crate::gcra::{self, Limit, Verdict};
use crate::hash::Hash;
use crate::kind::Kind;
use crate::limits::{LABEL_OCTETS_MAX, LABEL_WORDS, RATE_TIME_BITS};
use crate::stats;
use crate::store::Hints;

/// How rate words are read: a time that is past is a free cell.
pub(crate) struct Times {
    pub(crate) now: u64,
}

impl Policy for Times {
    const VALUE_BITS: u32 = RATE_TIME_BITS;
    const EVICTS: bool = true;
    fn worth(&self, value: u64) -> Option<u64> {
        let ahead = gcra::ahead(value, self.now);
        (ahead > 0).then_some(ahead)
    }
}

/// The tag of a rate word.
pub(crate) fn tag_of(hash: Hash) -> u64 {
    cells::tag::<Times>(hash.high)
}

impl Hints<'_> {
    /// Counts one against the limit, if it is within.
    pub fn rate(&self, kind: Kind, key: &[u8], limit: Limit, now_us: u64) -> Verdict {
        self.rate_by(kind, key, limit, 1, now_us)
    }

    /// Counts `cost` against the limit, if all of it is within; 0 only asks.
    pub fn rate_by(&self, kind: Kind, key: &[u8], limit: Limit, cost: u32, now_us: u64) -> Verdict {
        let hash = self.seed.hash(kind, key);
        let number = self.tables.rate_bucket_of(hash);
        let bucket = self.tables.rate_bucket(number);
        let times = Times { now: gcra::ticks(now_us) };
        let mut verdict = limit.step(0, 0).0;
        let updated = bucket.update(tag_of(hash), &times, |old| {
            let ahead = old.map_or(0, |old| gcra::ahead(old, times.now));
            let (said, then) = limit.step(ahead, cost);
            verdict = said;
            (said.allowed && cost > 0).then(|| gcra::stored(times.now, then))
        });
        match updated {
            Updated::Inserted(way) => self.label(number, way, kind, key),
            Updated::Evicted(way) => {
                self.label(number, way, kind, key);
                stats::add(&self.stats.evicted_rates);
            }
            Updated::Changed(_) | Updated::Unchanged | Updated::Full => {}
        }
        verdict
    }

    /// What [`Hints::rate_by`] would say, and nothing is counted.
    pub fn rate_would(
        &self,
        kind: Kind,
        key: &[u8],
        limit: Limit,
        cost: u32,
        now_us: u64,
    ) -> Verdict {
        let hash = self.seed.hash(kind, key);
        let bucket = self.tables.rate_bucket(self.tables.rate_bucket_of(hash));
        let now = gcra::ticks(now_us);
        let word = bucket.get::<Times>(tag_of(hash));
        limit.step(word.map_or(0, |word| gcra::ahead(word, now)), cost).0
    }

    /// Forgets a rate; whether there was one.
    pub fn forget_rate(&self, kind: Kind, key: &[u8]) -> bool {
        let hash = self.seed.hash(kind, key);
        let bucket = self.tables.rate_bucket(self.tables.rate_bucket_of(hash));
        (0..crate::limits::CELLS).any(|way| {
            let word = bucket.word(way);
            word >> RATE_TIME_BITS == tag_of(hash) >> RATE_TIME_BITS && bucket.free(way, word)
        })
    }

    fn label(&self, bucket: usize, way: usize, kind: Kind, key: &[u8]) {
        let mut octets = [0; LABEL_WORDS * 8];
        if key.len() <= LABEL_OCTETS_MAX {
            octets[0] = kind.number();
            octets[1] = u8::try_from(key.len()).expect("at most LABEL_OCTETS_MAX");
            octets[2..2 + key.len()].copy_from_slice(key);
        }
        let mut words = [0; LABEL_WORDS];
        bits::pack(&octets, &mut words);
        let at = way * LABEL_WORDS;
        for (word, new) in self.tables.labels(bucket)[at..at + LABEL_WORDS].iter().zip(words) {
            word.store(new, Ordering::Relaxed);
        }
    }

    /// The kind and key octets of a rate word, if its label leads back to it.
    pub(crate) fn read_label(
        &self,
        bucket: usize,
        way: usize,
        word: u64,
    ) -> Option<(Kind, Vec<u8>)> {
        let at = way * LABEL_WORDS;
        let mut words = [0; LABEL_WORDS];
        for (copy, word) in words.iter_mut().zip(&self.tables.labels(bucket)[at..at + LABEL_WORDS])
        {
            *copy = word.load(Ordering::Relaxed);
        }
        let mut octets = [0; LABEL_WORDS * 8];
        bits::unpack(&words, &mut octets);
        let kind = Kind::from_number(octets[0])?;
        let key = octets.get(2..2 + usize::from(octets[1]))?;
        let hash = self.seed.hash(kind, key);
        let leads_back = self.tables.rate_bucket_of(hash) == bucket
            && tag_of(hash) >> RATE_TIME_BITS == word >> RATE_TIME_BITS;
        leads_back.then(|| (kind, key.to_vec()))
    }
}
