//! Opening the tables and reading records.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::ban::Ban;
use crate::change::{Change, What};
use crate::delivered::Delivered;
use crate::gcra;
use crate::hash::{Hash, Seed};
use crate::health::Health;
use crate::key::Key;
use crate::kind::Kind;
use crate::layout::{Report, Start, Tables, TooSmall};
use crate::limits::{CELLS, FUTURE_US_MAX, LIFE_US_MAX, RATE_TIME_BITS};
use crate::note::Note;
use crate::offers::Offers;
use crate::retry::Retry;
use crate::slot::{Content, Found};
use crate::standing::Standing;
use crate::stats::{self, Counts, Stats};
use crate::value::Value;

/// What opening needs besides the words.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Random words, used only if the file begins afresh.
    pub seed: Seed,
    /// This node, kept with every record.
    pub node: u16,
    /// Wall time, microseconds.
    pub wall_us: u64,
}

/// The tables. Shared by all cores; `&Hints` is all a reader needs.
#[derive(Debug)]
pub struct Hints<'m> {
    pub(crate) tables: Tables<'m>,
    pub(crate) seed: Seed,
    pub(crate) node: u16,
    pub(crate) stats: Stats,
    /// Shards that have a [`crate::Writer`].
    pub(crate) claimed: AtomicU64,
}

/// Opened tables and what was found.
#[derive(Debug)]
pub struct Opened<'m> {
    /// The tables.
    pub hints: Hints<'m>,
    /// What was found; one log line.
    pub report: Report,
}

/// A record that passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is about.
    pub kind: Kind,
    /// Its key.
    pub key: Key,
    /// What it says.
    pub value: Value,
    /// Wall microseconds.
    pub expires_us: u64,
    /// Time of the last write, wall microseconds.
    pub written_us: u64,
    /// The node that wrote it.
    pub origin: u16,
}

/// Why a record does not count now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    Live,
    Expired,
    Future,
}

/// Whether times make sense at `now_us`.
pub(crate) fn age(expires_us: u64, written_us: u64, now_us: u64) -> Age {
    if written_us > now_us.saturating_add(FUTURE_US_MAX)
        || expires_us > written_us.saturating_add(LIFE_US_MAX)
    {
        Age::Future
    } else if expires_us <= now_us {
        Age::Expired
    } else {
        Age::Live
    }
}

impl<'m> Hints<'m> {
    /// Begins afresh, whatever the words hold. Nobody else may be using them.
    pub fn format(words: &'m [AtomicU64], setup: Setup) -> Result<Self, TooSmall> {
        let tables = Tables::new(words)?;
        tables.format(setup.seed, setup.wall_us, setup.node);
        Ok(Self::new(tables, setup.seed, setup.node))
    }

    /// Takes over what the words hold, or begins afresh and says why. Nobody else may be using
    /// them; what a killed writer left half-done is cleared here.
    pub fn open(words: &'m [AtomicU64], setup: Setup) -> Result<Opened<'m>, TooSmall> {
        let tables = Tables::new(words)?;
        match tables.read_header() {
            Ok(seed) => {
                let hints = Self::new(tables, seed, setup.node);
                let report = hints.repair(setup.wall_us);
                Ok(Opened { hints, report })
            }
            Err(reason) => {
                let hints = Self::format(words, setup)?;
                let start = Start::Fresh(reason);
                let report = Report { start, records: 0, expired: 0, dropped: 0, rates: 0 };
                Ok(Opened { hints, report })
            }
        }
    }

    fn new(tables: Tables<'m>, seed: Seed, node: u16) -> Self {
        Self { tables, seed, node, stats: Stats::default(), claimed: AtomicU64::new(0) }
    }

    fn repair(&self, now_us: u64) -> Report {
        let mut report =
            Report { start: Start::Kept, records: 0, expired: 0, dropped: 0, rates: 0 };
        for number in 0..self.tables.slots() {
            let slot = self.tables.slot(number);
            match slot.read(self.seed) {
                Found::Empty => {}
                Found::Record(c) => match age(c.expires_us, c.written_us, now_us) {
                    Age::Live => report.records += 1,
                    Age::Expired | Age::Future => report.expired += 1,
                },
                Found::Bad | Found::Torn => {
                    slot.write(None, self.seed);
                    report.dropped += 1;
                }
            }
        }
        let now = gcra::ticks(now_us);
        for number in 0..self.tables.rate_buckets() {
            let bucket = self.tables.rate_bucket(number);
            bucket.repair();
            for way in 0..CELLS {
                let word = bucket.word(way);
                let time = word & ((1 << RATE_TIME_BITS) - 1);
                if word != 0 && gcra::ahead(time, now) > 0 {
                    report.rates += 1;
                } else if word != 0 {
                    bucket.free(way, word);
                }
            }
        }
        report
    }

    /// What the tables had to do since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.stats.counts()
    }

    /// The shard of a key, 0 to 63.
    #[must_use]
    pub fn shard_of(&self, kind: Kind, key: &[u8]) -> usize {
        self.seed.hash(kind, key).shard()
    }

    /// A change to the record of this key, for the owner of [`Change::shard`]. `None` if no such
    /// change is possible for this kind.
    #[must_use]
    pub fn change(&self, kind: Kind, key: &[u8], what: What, now_us: u64) -> Option<Change> {
        let hash = self.seed.hash(kind, key);
        let key = Key::new(key);
        what.fits(kind).then_some(Change { kind, hash, key, what, at_us: now_us })
    }

    /// The record of a key, if there is one that counts now.
    #[must_use]
    pub fn get(&self, kind: Kind, key: &[u8], now_us: u64) -> Option<Record> {
        let hash = self.seed.hash(kind, key);
        let content = self.find(kind, hash, &Key::new(key))?;
        let Age::Live = age(content.expires_us, content.written_us, now_us) else {
            if content.expires_us > now_us {
                stats::add(&self.stats.future);
            }
            return None;
        };
        Some(Record::from(content))
    }

    /// The retry state of a next hop or domain.
    #[must_use]
    pub fn retry(&self, key: &[u8], now_us: u64) -> Option<Retry> {
        match self.get(Kind::Retry, key, now_us)?.value {
            Value::Retry(retry) => Some(retry),
            _ => None,
        }
    }

    /// The health of a destination.
    #[must_use]
    pub fn health(&self, key: &[u8], now_us: u64) -> Option<Health> {
        match self.get(Kind::Health, key, now_us)?.value {
            Value::Health(health) => Some(health),
            _ => None,
        }
    }

    /// What a backend was last seen to offer.
    #[must_use]
    pub fn offers(&self, key: &[u8], now_us: u64) -> Option<Offers> {
        match self.get(Kind::Offers, key, now_us)?.value {
            Value::Offers(offers) => Some(offers),
            _ => None,
        }
    }

    /// The ban of a client, lapsed or not.
    #[must_use]
    pub fn ban(&self, key: &[u8], now_us: u64) -> Option<Ban> {
        match self.get(Kind::Ban, key, now_us)?.value {
            Value::Ban(ban) => Some(ban),
            _ => None,
        }
    }

    /// When mail of a client was taken.
    #[must_use]
    pub fn delivered(&self, key: &[u8], now_us: u64) -> Option<Delivered> {
        match self.get(Kind::Delivered, key, now_us)?.value {
            Value::Delivered(delivered) => Some(delivered),
            _ => None,
        }
    }

    /// The standing of a client.
    #[must_use]
    pub fn standing(&self, key: &[u8], now_us: u64) -> Option<Standing> {
        match self.get(Kind::Standing, key, now_us)?.value {
            Value::Standing(standing) => Some(standing),
            _ => None,
        }
    }

    /// A panic hook's note of a message or client.
    #[must_use]
    pub fn note(&self, key: &[u8], now_us: u64) -> Option<Note> {
        match self.get(Kind::Note, key, now_us)?.value {
            Value::Note(note) => Some(note),
            _ => None,
        }
    }

    /// The checked content of a key's slot, whatever its age.
    pub(crate) fn find(&self, kind: Kind, hash: Hash, key: &Key) -> Option<Content> {
        for slot in self.tables.bucket(hash, kind == Kind::Note) {
            if !slot.has(hash) {
                continue;
            }
            match slot.read(self.seed) {
                Found::Record(content)
                    if content.hash == hash && content.kind == kind && content.key == *key =>
                {
                    return Some(content);
                }
                Found::Bad => stats::add(&self.stats.corrupt),
                Found::Torn => stats::add(&self.stats.torn),
                Found::Record(_) | Found::Empty => {}
            }
        }
        None
    }

    /// Whether any writer has this shard.
    #[must_use]
    pub fn is_claimed(&self, shard: usize) -> bool {
        shard < 64 && self.claimed.load(Ordering::Relaxed) >> shard & 1 == 1
    }
}

impl From<Content> for Record {
    fn from(content: Content) -> Self {
        let Content { kind, key, value, expires_us, written_us, origin, .. } = content;
        Self { kind, key, value, expires_us, written_us, origin }
    }
}
