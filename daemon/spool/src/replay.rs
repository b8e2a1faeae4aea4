//! The second look of recovery: every record that counts, in the order it was written.
//!
//! *Guarantees*: a message is live when its MSG was durable and no DONE or CANCEL ended it; a
//! second copy of an id is dropped; nothing the media hold panics.
//!
//! *Limits*: the footers of the segments that were open at one time are in memory at once.

use std::collections::HashMap;

use crate::bytes::index;
use crate::disk::Device;
use crate::id::TransactionId;
use crate::index::{IndexBatch, IndexChunk, IndexItem, IndexWalk, Position, Summary};
use crate::live::{Place, Table};
use crate::record::Change;
use crate::segment::SegmentRef;
use crate::set::Set;
use crate::survey::{Damage, DamageKind, SegmentFound, Survey, footer, name_of};

/// What the records say.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) live: Table,
    /// For each segment, in the survey's order: the segments it must wait for.
    pub(crate) waits: Vec<Vec<SegmentRef>>,
    /// Of those, the ones with failed attempts at batches that stand in it.
    pub(crate) attempts: Vec<Vec<SegmentRef>>,
    pub(crate) second_copies: u64,
    pub(crate) damage: Vec<Damage>,
}

struct Cursor {
    segment: usize,
    index: Vec<u8>,
    position: Position,
    batch: IndexBatch,
}

struct Replay<'a> {
    survey: &'a Survey,
    by_place: HashMap<SegmentRef, usize>,
    out: Replayed,
    /// The number of the batch played last, and the segments with attempts at it.
    tried: (u64, Vec<usize>),
    /// Of the run being played: parts of each copy of a message that is not finished.
    chunks: HashMap<(TransactionId, u16), Vec<(u32, Place)>>,
    /// Messages whose chunks are not all there: dead ones, or damaged.
    broken: HashMap<(TransactionId, u16), Place>,
}

/// Walks all groups, oldest run first.
pub(crate) fn replay<D: Device>(set: &mut Set<D>, survey: &Survey) -> Replayed {
    let by_place = survey.segments.iter().enumerate().map(|(i, s)| (s.at, i)).collect();
    let mut replay = Replay {
        survey,
        by_place,
        out: Replayed {
            live: Table::default(),
            waits: vec![Vec::new(); survey.segments.len()],
            attempts: vec![Vec::new(); survey.segments.len()],
            second_copies: 0,
            damage: Vec::new(),
        },
        tried: (0, Vec::new()),
        chunks: HashMap::new(),
        broken: HashMap::new(),
    };
    for group in survey.groups.values() {
        replay.tried = (0, Vec::new());
        replay.group(set, &group.segments);
        replay.chunks.clear();
    }
    let segment_bytes = set.segment_bytes();
    for ((id, copy), place) in std::mem::take(&mut replay.broken) {
        if replay.out.live.get(id).is_none_or(|live| live.copy != copy) {
            continue;
        }
        let device = name_of(set, place.segment);
        let offset = place.segment.device_offset(segment_bytes) + u64::from(place.offset);
        replay.out.damage.push(Damage { device, offset, what: DamageKind::Chunks });
    }
    replay.out
}

impl Replay<'_> {
    fn group<D: Device>(&mut self, set: &mut Set<D>, segments: &[usize]) {
        let mut waiting: Vec<usize> =
            segments.iter().copied().filter(|i| self.survey.segments[*i].first_seq() > 0).collect();
        waiting.sort_by_key(|i| std::cmp::Reverse(self.survey.segments[*i].first_seq()));
        let mut open: Vec<Cursor> = Vec::new();
        loop {
            let next = open.iter().map(|c| c.batch.seq).min();
            while let Some(i) = waiting.last().copied() {
                let first = self.survey.segments[i].first_seq();
                if next.is_some_and(|n| first > n) {
                    break;
                }
                waiting.pop();
                open.extend(self.open(set, i));
                if next.is_none() {
                    break;
                }
            }
            let due = (0..open.len()).min_by_key(|i| (open[*i].batch.seq, open[*i].batch.attempt));
            let Some(due) = due else {
                if waiting.is_empty() {
                    return;
                }
                continue;
            };
            // The newcomers may come first: look again before anything is played.
            let earliest = open[due].batch.seq;
            let more = waiting.last().map(|i| self.survey.segments[*i].first_seq());
            if more.is_some_and(|first| first <= earliest) {
                continue;
            }
            if !self.play(&mut open[due]) {
                open.swap_remove(due);
            }
        }
    }

    fn open<D: Device>(&mut self, set: &mut Set<D>, segment: usize) -> Option<Cursor> {
        let found: &SegmentFound = &self.survey.segments[segment];
        let index = match (&found.footer, &found.index) {
            (Some(trailer), _) => footer(set, found.at, trailer)?,
            (None, Some(index)) => index.clone(),
            (None, None) => return None,
        };
        let mut walk = IndexWalk::new(&index);
        let Some(Ok(IndexItem::Batch(batch))) = walk.next() else { return None };
        let position = walk.position();
        Some(Cursor { segment, index, position, batch })
    }

    /// Plays the records of one batch; false when the segment has no more.
    fn play(&mut self, cursor: &mut Cursor) -> bool {
        let index = std::mem::take(&mut cursor.index);
        let mut walk = IndexWalk::resume(&index, cursor.position);
        self.attempt(cursor.segment, &cursor.batch);
        let more = loop {
            match walk.next() {
                Some(Ok(IndexItem::Batch(batch))) => {
                    cursor.batch = batch;
                    break true;
                }
                Some(Ok(item)) => self.record(cursor.segment, item),
                Some(Err(_)) | None => break false,
            }
        };
        cursor.position = walk.position();
        cursor.index = index;
        more
    }

    /// A batch names the last failed attempt at it; one that failed between may not be there to
    /// name those before. Attempts are played in their order.
    fn attempt(&mut self, segment: usize, batch: &IndexBatch) {
        if self.tried.0 != batch.seq {
            self.tried.0 = batch.seq;
            self.tried.1.clear();
        }
        let stands = self.by_place.get(&batch.stale_segment).copied().filter(|i| {
            let found = &self.survey.segments[*i];
            found.is_used() && found.epoch() == batch.stale_epoch
        });
        let tried = std::mem::take(&mut self.tried.1);
        for earlier in tried.iter().copied().chain(stands).filter(|i| *i != segment) {
            let at = self.survey.segments[earlier].at;
            self.add_wait(segment, at);
            let attempts = &mut self.out.attempts[segment];
            if !attempts.contains(&at) {
                attempts.push(at);
            }
        }
        self.tried.1 = tried;
        self.tried.1.push(segment);
    }

    fn record(&mut self, segment: usize, item: IndexItem<'_>) {
        match item {
            IndexItem::Batch(_) => {}
            IndexItem::Chunk(chunk) => self.chunk(segment, &chunk),
            IndexItem::Message(summary) => self.message(segment, &summary),
            IndexItem::Other { offset, kind, body, .. } => {
                for change in Change::decode_all(kind, body).unwrap_or_default() {
                    self.change(segment, offset, &change);
                }
            }
        }
    }

    fn chunk(&mut self, segment: usize, chunk: &IndexChunk) {
        if chunk.head.id == TransactionId::NONE {
            return;
        }
        let at = self.survey.segments[segment].at;
        let place = Place { segment: at, offset: chunk.offset, length: chunk.length };
        let parts = self.chunks.entry((chunk.head.id, chunk.head.copy)).or_default();
        parts.retain(|(part, _)| *part != chunk.head.part);
        parts.push((chunk.head.part, place));
    }

    fn message(&mut self, segment: usize, summary: &Summary) {
        let at = self.survey.segments[segment].at;
        let key = (summary.id, summary.copy);
        // They stay known: the MSG may come once more, from a later attempt at its batch, and the
        // batches with the chunks need not have been written again.
        let mut parts = self.chunks.get(&key).cloned().unwrap_or_default();
        parts.sort_by_key(|(part, _)| *part);
        let all = parts.iter().enumerate().all(|(i, (part, _))| index(*part) == i)
            && parts.len() == index(summary.chunks);
        if all {
            self.broken.remove(&key);
        } else {
            let (offset, length) = (summary.offset, summary.length);
            self.broken.insert(key, Place { segment: at, offset, length });
        }
        match self.out.live.get(summary.id).map(|l| l.copy) {
            None => {
                self.out.live.insert(summary, at);
            }
            // The same again from a later attempt, or a later copy: it counts from now on.
            Some(copy) if summary.copy >= copy => {
                self.out.live.supersede(summary, at);
                self.out.second_copies += u64::from(summary.copy == copy);
            }
            Some(_) => {
                self.out.second_copies += 1;
                return;
            }
        }
        if let Some(live) = self.out.live.get_mut(summary.id) {
            live.set_chunks(parts.into_iter().map(|(_, place)| place).collect());
        }
    }

    fn change(&mut self, segment: usize, offset: u32, change: &Change) {
        let at = self.survey.segments[segment].at;
        let target = change.target();
        if let Change::Move(..) = change {
            return self.wait(segment, target.segment, target.epoch);
        }
        let Some(live) = self.out.live.get_mut(target.id) else {
            // Ended before; its MSG may still be there.
            return self.wait_for_target(segment, target.segment, target.epoch);
        };
        live.apply(change);
        if matches!(change, Change::Defer(_)) {
            live.set_defer_place(Some((at, offset)));
        }
        let (home, copy, finished) = (live.segment, live.copy, live.is_finished());
        if finished {
            self.out.live.remove(target.id);
            self.chunks.remove(&(target.id, copy));
        }
        self.add_wait(segment, home);
    }

    fn wait_for_target(&mut self, segment: usize, at: SegmentRef, epoch: u64) {
        if at != SegmentRef::NONE {
            return self.wait(segment, at, epoch);
        }
        let used: Vec<SegmentRef> =
            self.survey.segments.iter().filter(|s| s.is_used()).map(|s| s.at).collect();
        for at in used {
            self.add_wait(segment, at);
        }
    }

    /// Waits for that use of a segment, if it is still on the device.
    fn wait(&mut self, segment: usize, at: SegmentRef, epoch: u64) {
        let stands = self.by_place.get(&at).is_some_and(|i| {
            let found = &self.survey.segments[*i];
            found.is_used() && found.epoch() == epoch
        });
        if stands {
            self.add_wait(segment, at);
        }
    }

    fn add_wait(&mut self, segment: usize, at: SegmentRef) {
        let waits = &mut self.out.waits[segment];
        if self.survey.segments[segment].at != at && !waits.contains(&at) {
            waits.push(at);
        }
    }
}
