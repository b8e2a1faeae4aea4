//! Where things stand in the file, and the header that says so.
//!
//! *Layout*: header of 64 words; notes (32 buckets of 4 slots); rates (a quarter of the rest:
//! buckets of 8 words, then labels of 24 words a bucket); records (64 shards of equal size, buckets
//! of 4 slots). Every place follows from the number of words alone, never from what the file says.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::bits;
use crate::cells::Bucket;
use crate::hash::{Hash, Seed};
use crate::limits::{
    CELL_BUCKET_WORDS, FILE_WORDS_MAX, FILE_WORDS_MIN, HEADER_WORDS, LABEL_BUCKET_WORDS,
    NOTE_BUCKETS, SHARDS, SLOT_WORDS, WAYS,
};
use crate::slot::Slot;

/// "RINGHINT" read as a little-endian word: a file of the other byte order is alien.
const MAGIC: u64 = u64::from_le_bytes(*b"RINGHINT");
/// Version of everything but the records' values, which have their own.
const VERSION: u64 = 1;
const BUCKET_WORDS: usize = WAYS * SLOT_WORDS;
const NOTES_WORDS: usize = NOTE_BUCKETS * BUCKET_WORDS;

const _: () = assert!(FILE_WORDS_MIN > HEADER_WORDS + NOTES_WORDS);
const _: () = assert!(
    (FILE_WORDS_MIN - HEADER_WORDS - NOTES_WORDS) / 4 * 3 / SHARDS >= BUCKET_WORDS,
    "each shard has a bucket"
);

/// The words are too few (or beyond all measure) for the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall {
    /// Words given.
    pub words: usize,
}

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (given, least, most) = (self.words * 8, FILE_WORDS_MIN * 8, FILE_WORDS_MAX * 8);
        write!(f, "hints: {given} octets given, from {least} to {most} are possible")
    }
}

impl core::error::Error for TooSmall {}

/// How the tables began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// What stood in the file counts.
    Kept,
    /// All tables are empty, and why.
    Fresh(&'static str),
}

/// What was found when the file was opened; its `Display` is the log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// How the tables began.
    pub start: Start,
    /// Records that count.
    pub records: u32,
    /// Records that had expired.
    pub expired: u32,
    /// Records thrown away: corrupt, alien, half-written.
    pub dropped: u32,
    /// Rates still running.
    pub rates: u32,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.start {
            Start::Fresh(reason) => write!(f, "hints: fresh start ({reason})"),
            Start::Kept => write!(
                f,
                "hints: kept {} records and {} rates, {} expired, {} unreadable dropped",
                self.records, self.rates, self.expired, self.dropped
            ),
        }
    }
}

/// The tables as parts of the words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables<'m> {
    words: &'m [AtomicU64],
    rate_buckets: usize,
    shard_buckets: usize,
}

impl<'m> Tables<'m> {
    pub(crate) fn new(words: &'m [AtomicU64]) -> Result<Self, TooSmall> {
        if !(FILE_WORDS_MIN..=FILE_WORDS_MAX).contains(&words.len()) {
            return Err(TooSmall { words: words.len() });
        }
        let rest = words.len() - HEADER_WORDS - NOTES_WORDS;
        let rate_buckets = rest / 4 / (CELL_BUCKET_WORDS + LABEL_BUCKET_WORDS);
        let records = rest - rate_buckets * (CELL_BUCKET_WORDS + LABEL_BUCKET_WORDS);
        Ok(Self { words, rate_buckets, shard_buckets: records / SHARDS / BUCKET_WORDS })
    }

    /// The seed in the header, or why the header does not count.
    pub(crate) fn read_header(&self) -> Result<Seed, &'static str> {
        let word = |at: usize| self.words[at].load(Ordering::Relaxed);
        let seed = Seed([word(3), word(4)]);
        if (0..HEADER_WORDS).all(|at| word(at) == 0) {
            return Err("new file");
        }
        if word(0) != MAGIC {
            return Err("not a hints file, or of the other byte order");
        }
        if word(1) != VERSION {
            return Err("layout of another version");
        }
        if word(2) != self.words.len() as u64 {
            return Err("file of another size");
        }
        if word(7) != self.header_check(seed) {
            return Err("header checksum is wrong");
        }
        Ok(seed)
    }

    /// Empties everything and writes a header; its checksum last, so that a kill in between is
    /// seen as a broken header.
    pub(crate) fn format(&self, seed: Seed, now_us: u64, node: u16) {
        for word in self.words {
            word.store(0, Ordering::Relaxed);
        }
        let header = [
            MAGIC,
            VERSION,
            self.words.len() as u64,
            seed.0[0],
            seed.0[1],
            now_us,
            u64::from(node),
        ];
        for (word, value) in self.words.iter().zip(header) {
            word.store(value, Ordering::Relaxed);
        }
        self.words[7].store(self.header_check(seed), Ordering::Release);
    }

    fn header_check(&self, seed: Seed) -> u64 {
        let mut header = [0; 7];
        for (value, word) in header.iter_mut().zip(self.words) {
            *value = word.load(Ordering::Relaxed);
        }
        seed.check(&header)
    }

    pub(crate) fn words(&self) -> &'m [AtomicU64] {
        self.words
    }

    fn rates_at(&self) -> usize {
        HEADER_WORDS + NOTES_WORDS
    }

    fn records_at(&self) -> usize {
        self.rates_at() + self.rate_buckets * (CELL_BUCKET_WORDS + LABEL_BUCKET_WORDS)
    }

    pub(crate) fn rate_buckets(&self) -> usize {
        self.rate_buckets
    }

    /// The number of the rate bucket of a hash.
    pub(crate) fn rate_bucket_of(&self, hash: Hash) -> usize {
        bits::scale(hash.low.rotate_left(32), self.rate_buckets)
    }

    pub(crate) fn rate_bucket(&self, number: usize) -> Bucket<'m> {
        let at = self.rates_at() + number * CELL_BUCKET_WORDS;
        Bucket::new(&self.words[at..at + CELL_BUCKET_WORDS]).expect("a bucket's words")
    }

    pub(crate) fn labels(&self, number: usize) -> &'m [AtomicU64] {
        let at = self.rates_at() + self.rate_buckets * CELL_BUCKET_WORDS;
        let at = at + number * LABEL_BUCKET_WORDS;
        &self.words[at..at + LABEL_BUCKET_WORDS]
    }

    /// Slots of notes and records; slot numbers run from 0, notes first.
    pub(crate) fn slots(&self) -> usize {
        (NOTE_BUCKETS + SHARDS * self.shard_buckets) * WAYS
    }

    /// The shard of a slot number; `None` for notes.
    pub(crate) fn shard_of_slot(&self, number: usize) -> Option<usize> {
        let bucket = (number / WAYS).checked_sub(NOTE_BUCKETS)?;
        Some(bucket / self.shard_buckets)
    }

    pub(crate) fn slot(&self, number: usize) -> Slot<'m> {
        let notes = NOTE_BUCKETS * WAYS;
        let at = match number.checked_sub(notes) {
            None => HEADER_WORDS + number * SLOT_WORDS,
            Some(number) => self.records_at() + number * SLOT_WORDS,
        };
        Slot::new(&self.words[at..at + SLOT_WORDS]).expect("a slot's words")
    }

    /// The slots in which a key may stand.
    pub(crate) fn bucket(
        &self,
        hash: Hash,
        note: bool,
    ) -> impl Iterator<Item = Slot<'m>> + use<'m> {
        let bucket = if note {
            bits::scale(hash.high, NOTE_BUCKETS)
        } else {
            NOTE_BUCKETS
                + hash.shard() * self.shard_buckets
                + bits::scale(hash.high, self.shard_buckets)
        };
        let this = *self;
        (0..WAYS).map(move |way| this.slot(bucket * WAYS + way))
    }
}
