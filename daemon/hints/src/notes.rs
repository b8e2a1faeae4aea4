//! Notes of panics: written by any thread, at the worst of moments.
//!
//! *Guarantees*: no allocation, no waiting. A slot is held by making its sequence odd; one that
//! somebody else holds is passed over.
//!
//! *Failure*: two hooks that bring the same new key at once may each take a slot; they are of one
//! run, which counts once. A note that finds no slot is lost and counted.

use crate::hash::Hash;
use crate::key::Key;
use crate::kind::Kind;
use crate::limits::{NOTE_LIFE_US, WAYS};
use crate::note::Note;
use crate::slot::{Content, Found};
use crate::stats;
use crate::store::Hints;
use crate::value::Value;

impl Hints<'_> {
    /// Notes a key once more, for a panic hook.
    pub fn put_note(&self, key: &[u8], run: u32, now_us: u64) {
        let hash = self.seed.hash(Kind::Note, key);
        let content = |old: Option<Note>| Content {
            kind: Kind::Note,
            hash,
            key: Key::new(key),
            value: Value::Note(Note::after(old, run, now_us)),
            expires_us: now_us.saturating_add(NOTE_LIFE_US),
            written_us: now_us,
            origin: self.node,
        };
        if !self.rewrite_notes(hash, |old| Some(content(Some(old))))
            && !self.insert_note(&content(None), now_us)
        {
            stats::add(&self.stats.notes_lost);
        }
    }

    /// Forgets a note: the message went through, or the operator says so. Any thread. Whether there
    /// was one.
    pub fn forget_note(&self, key: &[u8]) -> bool {
        self.rewrite_notes(self.seed.hash(Kind::Note, key), |_| None)
    }

    fn rewrite_notes(&self, hash: Hash, f: impl Fn(Note) -> Option<Content>) -> bool {
        let mut any = false;
        for slot in self.tables.bucket(hash, true).filter(|slot| slot.has(hash)) {
            let Some(locked) = slot.try_lock() else { continue };
            match locked.read(self.seed) {
                Found::Record(Content { hash: h, value: Value::Note(note), .. }) if h == hash => {
                    locked.write(f(note).as_ref(), self.seed);
                    any = true;
                }
                _ => locked.leave(),
            }
        }
        any
    }

    fn insert_note(&self, content: &Content, now_us: u64) -> bool {
        let mut tried = [false; WAYS];
        for _ in 0..WAYS {
            let best = self
                .tables
                .bucket(content.hash, true)
                .enumerate()
                .filter(|&(way, _)| !tried[way])
                .min_by_key(|(_, slot)| {
                    let (expires_us, written_us) = slot.times_us();
                    (expires_us > now_us, written_us)
                });
            let Some((way, slot)) = best else { return false };
            tried[way] = true;
            if let Some(locked) = slot.try_lock() {
                locked.write(Some(content), self.seed);
                return true;
            }
        }
        false
    }
}
