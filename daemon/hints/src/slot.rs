//! One record slot of 256 octets: written under a sequence number, checked whenever it is read.
//!
//! *Layout* (words of 8 octets): 0 sequence, odd while being written; 1 {kind u8, layout u8,
//! key octets u8, value words u8, flags u8, 0 u8, origin node u16}; 2, 3 keyed hash of kind and
//! key; 4 expiry; 5 time of last write (wall microseconds); 6 checksum of words 1 to 5 and of the
//! used words of key and value; 7 to 14 key; 15 to 30 value; 31 unused.
//!
//! *Orderings*. One thread writes a slot at a time (the owner of the shard; for notes whoever made
//! the sequence odd by compare-and-swap). The writer makes the sequence odd, then a `Release`
//! fence, then the words (`Relaxed`), then stores the even sequence with `Release`. A reader loads
//! the sequence with `Acquire`, then the words (`Relaxed`), then an `Acquire` fence, then the
//! sequence again. If it read any word of a write in progress, that load synchronises through the
//! two fences, so its second load sees the odd sequence or a later one, and it starts again; if the
//! first load saw the even sequence of a finished write, it sees all of its words. Words are
//! atomics, so a race is a stale value and never undefined.
//!
//! *Failure*: whatever the words hold is `Bad` at worst; lengths are checked before they are used.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use crate::hash::{Hash, Seed};
use crate::key::Key;
use crate::kind::Kind;
use crate::limits::{KEY_OCTETS_MAX, READ_TRIES_MAX, SLOT_WORDS, VALUE_WORDS};
use crate::value::Value;

const SEQUENCE: usize = 0;
const META: usize = 1;
const HASH_HIGH: usize = 2;
const HASH_LOW: usize = 3;
const EXPIRY: usize = 4;
const WRITTEN: usize = 5;
const CHECK: usize = 6;
const KEY: usize = 7;
const KEY_WORDS: usize = KEY_OCTETS_MAX / 8;
const VALUE: usize = KEY + KEY_WORDS;
const _: () = assert!(VALUE + VALUE_WORDS < SLOT_WORDS);

const FLAG_KEY_CUT: u8 = 1;

/// A slot's content after every check that needs no clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    pub(crate) kind: Kind,
    pub(crate) hash: Hash,
    pub(crate) key: Key,
    pub(crate) value: Value,
    pub(crate) expires_us: u64,
    pub(crate) written_us: u64,
    pub(crate) origin: u16,
}

/// What a slot was found to hold.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack for one call")]
pub(crate) enum Found {
    /// Nothing.
    Empty,
    /// A record.
    Record(Content),
    /// Words that are no record of this version.
    Bad,
    /// A writer was faster each time, or the sequence was left odd.
    Torn,
}

/// One slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot<'w> {
    words: &'w [AtomicU64; SLOT_WORDS],
}

impl<'w> Slot<'w> {
    /// The slot in these words, if they are as many as a slot has.
    pub(crate) fn new(words: &'w [AtomicU64]) -> Option<Self> {
        Some(Self { words: words.try_into().ok()? })
    }

    /// A glance without checks: whether the hash is this one.
    pub(crate) fn has(&self, hash: Hash) -> bool {
        self.words[HASH_LOW].load(Ordering::Relaxed) == hash.low
            && self.words[HASH_HIGH].load(Ordering::Relaxed) == hash.high
    }

    /// Expiry and time of last write, as they stand.
    pub(crate) fn times_us(&self) -> (u64, u64) {
        let load = |at: usize| self.words[at].load(Ordering::Relaxed);
        (load(EXPIRY), load(WRITTEN))
    }

    /// Reads a whole, unbroken slot.
    pub(crate) fn read(&self, seed: Seed) -> Found {
        self.copy().map_or(Found::Torn, |copy| decode(&copy, seed))
    }

    /// The words of one write, all of them; `None` if a writer was faster each time.
    fn copy(&self) -> Option<[u64; SLOT_WORDS]> {
        let mut copy = [0; SLOT_WORDS];
        for _ in 0..READ_TRIES_MAX {
            let before = self.words[SEQUENCE].load(Ordering::Acquire);
            if before % 2 == 1 {
                core::hint::spin_loop();
                continue;
            }
            for (copy, word) in copy.iter_mut().zip(self.words) {
                *copy = word.load(Ordering::Relaxed);
            }
            fence(Ordering::Acquire);
            if self.words[SEQUENCE].load(Ordering::Relaxed) == before {
                return Some(copy);
            }
        }
        None
    }

    /// Writes the slot; the caller is the only writer. An odd sequence found here was left by a
    /// flipped bit: it is passed over.
    pub(crate) fn write(&self, content: Option<&Content>, seed: Seed) {
        self.publish(&encode(content, seed));
    }

    fn publish(&self, words: &[u64; SLOT_WORDS]) {
        let odd = self.words[SEQUENCE].load(Ordering::Relaxed) | 1;
        self.words[SEQUENCE].store(odd, Ordering::Relaxed);
        self.fill(words, odd);
    }

    /// Makes the sequence odd unless somebody else is writing: for slots with several writers.
    pub(crate) fn try_lock(&self) -> Option<Locked<'w>> {
        let sequence = &self.words[SEQUENCE];
        let seen = sequence.load(Ordering::Relaxed);
        if seen % 2 == 1 {
            return None;
        }
        sequence.compare_exchange(seen, seen + 1, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(Locked { slot: *self, odd: seen + 1 })
    }

    /// With the sequence odd: the words, then the sequence.
    fn fill(&self, words: &[u64; SLOT_WORDS], odd: u64) {
        fence(Ordering::Release);
        for (word, new) in self.words.iter().zip(words).skip(META) {
            word.store(*new, Ordering::Relaxed);
        }
        self.words[SEQUENCE].store(odd.wrapping_add(1), Ordering::Release);
    }
}

/// A slot with several writers, held by one of them.
#[derive(Debug)]
pub(crate) struct Locked<'w> {
    slot: Slot<'w>,
    odd: u64,
}

impl Locked<'_> {
    /// What the slot holds; nobody else can be writing it.
    pub(crate) fn read(&self, seed: Seed) -> Found {
        let mut copy = [0u64; SLOT_WORDS];
        for (copy, word) in copy.iter_mut().zip(self.slot.words) {
            *copy = word.load(Ordering::Relaxed);
        }
        decode(&copy, seed)
    }

    /// Writes and lets go.
    pub(crate) fn write(self, content: Option<&Content>, seed: Seed) {
        self.slot.fill(&encode(content, seed), self.odd);
    }

    /// Lets go with nothing changed.
    pub(crate) fn leave(self) {
        self.slot.words[SEQUENCE].store(self.odd.wrapping_add(1), Ordering::Release);
    }
}

fn checksum(words: &[u64; SLOT_WORDS], key_octets: u8, value_words: u8, seed: Seed) -> u64 {
    let mut used = [0; SLOT_WORDS];
    let key_words = usize::from(key_octets).div_ceil(8);
    let value_words = usize::from(value_words);
    let end = 5 + key_words + value_words;
    used[..5].copy_from_slice(&words[META..CHECK]);
    used[5..5 + key_words].copy_from_slice(&words[KEY..KEY + key_words]);
    used[5 + key_words..end].copy_from_slice(&words[VALUE..VALUE + value_words]);
    seed.check(&used[..end])
}

fn encode(content: Option<&Content>, seed: Seed) -> [u64; SLOT_WORDS] {
    let mut words = [0; SLOT_WORDS];
    let Some(content) = content else { return words };
    let (value, value_words) = content.value.encode();
    let key_octets = u8::try_from(content.key.octets().len()).expect("at most KEY_OCTETS_MAX");
    let value_words = u8::try_from(value_words).expect("at most VALUE_WORDS");
    let flags = if content.key.is_cut() { FLAG_KEY_CUT } else { 0 };
    let [origin_low, origin_high] = content.origin.to_le_bytes();
    words[META] = u64::from_le_bytes([
        content.kind.number(),
        content.value.layout(),
        key_octets,
        value_words,
        flags,
        0,
        origin_low,
        origin_high,
    ]);
    words[HASH_HIGH] = content.hash.high;
    words[HASH_LOW] = content.hash.low;
    words[EXPIRY] = content.expires_us;
    words[WRITTEN] = content.written_us;
    words[KEY..VALUE].copy_from_slice(&content.key.words());
    words[VALUE..VALUE + VALUE_WORDS].copy_from_slice(&value);
    words[CHECK] = checksum(&words, key_octets, value_words, seed);
    words
}

fn decode(words: &[u64; SLOT_WORDS], seed: Seed) -> Found {
    if words[META] == 0 {
        return Found::Empty;
    }
    decode_content(words, seed).map_or(Found::Bad, Found::Record)
}

fn decode_content(words: &[u64; SLOT_WORDS], seed: Seed) -> Option<Content> {
    let [kind, layout, key_octets, value_words, flags, _, origin_low, origin_high] =
        words[META].to_le_bytes();
    if usize::from(key_octets) > KEY_OCTETS_MAX || usize::from(value_words) > VALUE_WORDS {
        return None;
    }
    if checksum(words, key_octets, value_words, seed) != words[CHECK] {
        return None;
    }
    let kind = Kind::from_number(kind)?;
    let key = Key::from_words(&words[KEY..VALUE], key_octets, flags & FLAG_KEY_CUT != 0)?;
    let hash = Hash { high: words[HASH_HIGH], low: words[HASH_LOW] };
    let mut value = [0; VALUE_WORDS];
    let used = usize::from(value_words);
    value[..used].copy_from_slice(&words[VALUE..VALUE + used]);
    Some(Content {
        kind,
        hash,
        key,
        value: Value::decode(kind, layout, &value)?,
        expires_us: words[EXPIRY],
        written_us: words[WRITTEN],
        origin: u16::from_le_bytes([origin_low, origin_high]),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// No checksum helps here: the sequence alone keeps the halves of two writes apart. The writer
    /// does nothing but write, so that on two cores most reads meet a write.
    #[test]
    fn a_copy_is_of_one_write() {
        const CHANGES_SEEN: u32 = 5_000;
        let words: [AtomicU64; SLOT_WORDS] = std::array::from_fn(|_| AtomicU64::new(0));
        let slot = Slot { words: &words };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut n = 0u64;
                while !done.load(Ordering::Relaxed) {
                    n += 1;
                    slot.publish(&[n; SLOT_WORDS]);
                }
            });
            let (mut last, mut changes) = (0, 0);
            while changes < CHANGES_SEEN {
                let Some(copy) = slot.copy() else { continue };
                let whole = copy[META..].iter().all(|word| *word == copy[META]);
                if !whole || copy[META] < last {
                    done.store(true, Ordering::Relaxed);
                    panic!("after {last}: {copy:?}");
                }
                changes += u32::from(copy[META] != last);
                last = copy[META];
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn several_writers_take_turns() {
        let words: [AtomicU64; SLOT_WORDS] = std::array::from_fn(|_| AtomicU64::new(0));
        let slot = Slot { words: &words };
        let held = slot.try_lock().unwrap();
        assert!(slot.try_lock().is_none());
        assert!(slot.copy().is_none());
        held.leave();
        assert!(slot.try_lock().is_some());
    }
}
