//! For the admin tool: everything that counts, page by page; and a copy of the whole file.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::gcra;
use crate::kind::Kind;
use crate::limits::{CELLS, RATE_TICK_US, RATE_TIME_BITS};
use crate::slot::Found;
use crate::store::{Age, Hints, Record, age};

/// A running rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateEntry {
    /// Kind and key octets, if the key was short enough to be kept.
    pub name: Option<(Kind, Vec<u8>)>,
    /// The word's tag, to tell nameless ones apart.
    pub tag: u32,
    /// Until the rate has run out, microseconds.
    pub ahead_us: u64,
}

impl Hints<'_> {
    /// Records that count now, from slot `cursor` on, each with the cursor that follows it.
    pub fn records(&self, cursor: usize, now_us: u64) -> impl Iterator<Item = (usize, Record)> {
        (cursor..self.tables.slots()).filter_map(move |number| {
            let Found::Record(content) = self.tables.slot(number).read(self.seed) else {
                return None;
            };
            let live = age(content.expires_us, content.written_us, now_us) == Age::Live;
            live.then(|| (number + 1, Record::from(content)))
        })
    }

    /// Rates that run now, from cell `cursor` on, each with the cursor that follows it.
    pub fn rates(&self, cursor: usize, now_us: u64) -> impl Iterator<Item = (usize, RateEntry)> {
        let now = gcra::ticks(now_us);
        (cursor..self.tables.rate_buckets() * CELLS).filter_map(move |number| {
            let (bucket, way) = (number / CELLS, number % CELLS);
            let word = self.tables.rate_bucket(bucket).word(way);
            let ahead = gcra::ahead(word & ((1 << RATE_TIME_BITS) - 1), now);
            (word != 0 && ahead > 0).then(|| {
                let entry = RateEntry {
                    name: self.read_label(bucket, way, word),
                    tag: crate::bits::low32(word >> RATE_TIME_BITS),
                    ahead_us: ahead * RATE_TICK_US,
                };
                (number + 1, entry)
            })
        })
    }

    /// Frees the words of rates that have run out; how many. Any thread.
    pub fn tidy_rates(&self, now_us: u64) -> u32 {
        let now = gcra::ticks(now_us);
        let mut freed = 0;
        for number in 0..self.tables.rate_buckets() {
            let bucket = self.tables.rate_bucket(number);
            for way in 0..CELLS {
                let word = bucket.word(way);
                let past = gcra::ahead(word & ((1 << RATE_TIME_BITS) - 1), now) == 0;
                if word != 0 && past && bucket.free(way, word) {
                    freed += 1;
                }
            }
        }
        freed
    }

    /// A copy of everything, for a file on disk. Taken while others write: a record caught
    /// half-written is dropped when the copy is opened.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let words = self.tables.words();
        let mut octets = Vec::with_capacity(words.len() * 8);
        for word in words {
            octets.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        Snapshot(octets)
    }
}

/// The octets of a copy.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot(pub Vec<u8>);

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({} octets)", self.0.len())
    }
}

/// The copy is of another size than the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotError {
    /// Octets of the copy.
    pub octets: usize,
    /// Octets needed.
    pub needed: usize,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hints: a copy of {} octets for tables of {}", self.octets, self.needed)
    }
}

impl core::error::Error for SnapshotError {}

impl Snapshot {
    /// Fills words with the copy; [`Hints::open`] then judges it.
    pub fn restore(&self, words: &[AtomicU64]) -> Result<(), SnapshotError> {
        let needed = words.len() * 8;
        if self.0.len() != needed {
            return Err(SnapshotError { octets: self.0.len(), needed });
        }
        for (word, chunk) in words.iter().zip(self.0.chunks_exact(8)) {
            let octets = chunk.try_into().expect("chunks of exactly 8");
            word.store(u64::from_le_bytes(octets), Ordering::Relaxed);
        }
        Ok(())
    }
}
