//! The one writer of a set of shards.
//!
//! *Guarantees*: a shard has one writer at a time (claimed in a bit set, given back on drop), and
//! a writer is used by one thread at a time (it is not `Sync`); a slot's sequence needs no more.

use core::cell::Cell;
use core::marker::PhantomData;
use core::sync::atomic::Ordering;

use crate::change::Change;
use crate::limits::SHARDS;
use crate::slot::{Content, Found, Slot};
use crate::stats;
use crate::store::{Age, Hints, age};

/// A set of shards, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardSet(pub u64);

impl ShardSet {
    /// All 64.
    pub const ALL: Self = Self(u64::MAX);

    /// What belongs to a core: shard mod cores.
    #[must_use]
    pub fn of_core(core: usize, cores: usize) -> Self {
        let bits = (0..SHARDS).filter(|&shard| Self::owner(shard, cores) == core);
        Self(bits.fold(0, |set, shard| set | 1 << shard))
    }

    /// The core that a shard belongs to.
    #[must_use]
    pub fn owner(shard: usize, cores: usize) -> usize {
        shard % cores.max(1)
    }

    /// Whether the shard is in the set.
    #[must_use]
    pub const fn has(self, shard: usize) -> bool {
        shard < SHARDS && self.0 >> shard & 1 == 1
    }
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A new record.
    Inserted,
    /// A new record in the place of a live one, the oldest of its bucket.
    Evicted,
    /// The record was changed.
    Changed,
    /// The record is gone.
    Removed,
    /// There was none to remove.
    Absent,
    /// Another writer's shard: send it there.
    NotMine,
}

/// Writes the records of its shards.
#[derive(Debug)]
pub struct Writer<'h> {
    hints: &'h Hints<'h>,
    shards: ShardSet,
    one_thread: PhantomData<Cell<()>>,
}

impl Hints<'_> {
    /// The writer of these shards; `None` while another writer has one of them.
    #[must_use]
    pub fn claim(&self, shards: ShardSet) -> Option<Writer<'_>> {
        self.claimed
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |claimed| {
                (claimed & shards.0 == 0).then_some(claimed | shards.0)
            })
            .ok()?;
        Some(Writer { hints: self, shards, one_thread: PhantomData })
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.hints.claimed.fetch_and(!self.shards.0, Ordering::Release);
    }
}

impl Writer<'_> {
    /// The tables it writes to.
    #[must_use]
    pub const fn hints(&self) -> &Hints<'_> {
        self.hints
    }

    /// Its shards.
    #[must_use]
    pub const fn shards(&self) -> ShardSet {
        self.shards
    }

    /// Applies a change, or says that it belongs elsewhere. A change takes the time at which it
    /// happened; a record never gets an older time of writing than it has.
    pub fn apply(&self, change: &Change) -> Applied {
        if !self.shards.has(change.shard()) {
            return Applied::NotMine;
        }
        let Bucket { own, best } = self.look(change);
        let live =
            own.filter(|(_, old)| age(old.expires_us, old.written_us, change.at_us) == Age::Live);
        let old = live.map(|(_, old)| old.value);
        let seed = self.hints.seed;
        let Some((value, life_us)) = change.what.after(old, change.at_us) else {
            let Some((slot, _)) = own else { return Applied::Absent };
            slot.write(None, seed);
            return Applied::Removed;
        };
        let written_us = live.map_or(change.at_us, |(_, old)| old.written_us.max(change.at_us));
        let content = Content {
            kind: change.kind,
            hash: change.hash,
            key: change.key,
            value,
            expires_us: written_us.saturating_add(life_us),
            written_us,
            origin: self.hints.node,
        };
        let (slot, applied) = match (own, best) {
            (Some((slot, _)), _) => (slot, Applied::Changed),
            (None, (slot, false)) => (slot, Applied::Inserted),
            (None, (slot, true)) => {
                stats::add(&self.hints.stats.evicted_records);
                (slot, Applied::Evicted)
            }
        };
        slot.write(Some(&content), seed);
        stats::add(&self.hints.stats.writes);
        applied
    }

    /// The key's own slot, and the slot for a new record with whether it is a live one's. What
    /// cannot be read counts as free.
    fn look(&self, change: &Change) -> Bucket<'_> {
        let mut own = None;
        let mut best = None;
        for slot in self.hints.tables.bucket(change.hash, false) {
            let rank = match slot.read(self.hints.seed) {
                Found::Empty => (0, 0),
                Found::Bad | Found::Torn => {
                    stats::add(&self.hints.stats.corrupt);
                    slot.write(None, self.hints.seed);
                    (1, 0)
                }
                Found::Record(c) => {
                    if c.hash == change.hash && c.kind == change.kind && c.key == change.key {
                        own = Some((slot, c));
                    }
                    match age(c.expires_us, c.written_us, change.at_us) {
                        Age::Expired => (2, c.written_us),
                        Age::Future => (3, c.written_us),
                        Age::Live => (4, c.written_us),
                    }
                }
            };
            if best.is_none_or(|(_, least)| rank < least) {
                best = Some((slot, rank));
            }
        }
        let (slot, (class, _)) = best.expect("a bucket has WAYS slots, at least one");
        Bucket { own, best: (slot, class == 4) }
    }

    /// Removes what has expired or cannot be read from its shards; how many. For the quiet hours:
    /// reads never return such records anyway.
    pub fn tidy(&self, now_us: u64) -> u32 {
        let tables = &self.hints.tables;
        let mut removed = 0;
        for number in 0..tables.slots() {
            if !tables.shard_of_slot(number).is_some_and(|shard| self.shards.has(shard)) {
                continue;
            }
            let slot = tables.slot(number);
            let gone = match slot.read(self.hints.seed) {
                Found::Empty => false,
                Found::Bad | Found::Torn => true,
                Found::Record(c) => age(c.expires_us, c.written_us, now_us) == Age::Expired,
            };
            if gone {
                slot.write(None, self.hints.seed);
                removed += 1;
            }
        }
        removed
    }
}

/// What a writer finds in the bucket of a change.
struct Bucket<'m> {
    own: Option<(Slot<'m>, Content)>,
    best: (Slot<'m>, bool),
}
