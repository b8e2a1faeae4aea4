//! Emptying segments: deferred mail moves to the cold log, changes that are still needed are
//! copied forward.
//!
//! *Guarantees*: the copy and its MOVE stand in one batch; the segment of the older copy is
//! reused before that of the newer one. A copied change keeps its bytes.
//!
//! *Limits*: one segment at a time, `MOVES_MAX` messages and `MOVE_BYTES_MAX` bytes.

use crate::bytes::{index, len32};
use crate::disk::{Buffer, Disk};
use crate::id::TransactionId;
use crate::index::{IndexItem, IndexWalk, Position, Summary, TRAILER, Trailer, summary_bytes_max};
use crate::limits::{
    BATCH_BYTES_MAX, COLD_BUCKETS_MAX, FOOTER_BYTES_MAX, MOVE_BYTES_MAX, MOVES_MAX, RECORD_HEADER,
};
use crate::live::{Live, Place};
use crate::message::{MESSAGE_HEAD, MessageHead};
use crate::received;
use crate::record::{CHUNK_HEAD, Change, ChunkHead, RecordKind, Target};
use crate::segment::{SegmentKind, SegmentRef};

use super::batches::{Builder, Effect, Forward, Item};
use super::reads::Asker;
use super::segments::State;
use super::{Log, Part, ReadData, StoredMessage};

/// Room in the footer for a copied message and its MOVE.
const COPY_INDEX: usize = 1024;
/// Time between two looks for something to do.
const SWEEP_PAUSE_US: u64 = 1_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    /// Move what is still live.
    Evacuate,
    /// Copy changes forward, so that the segment can be reused.
    Forward,
}

/// The segment being emptied.
#[derive(Debug)]
pub(super) struct Sweep {
    segment: usize,
    purpose: Purpose,
    stage: Stage,
    /// What it must still wait for when its changes are copied: older copies of messages.
    keep: Vec<SegmentRef>,
}

#[derive(Debug)]
enum Stage {
    Trailer,
    Footer(Trailer),
    Work {
        index: Vec<u8>,
        position: Position,
    },
    /// All copied; wait until it, and every change known before, is durable.
    Drain {
        enqueued: u64,
        seq: Option<u64>,
    },
}

/// A message being copied.
#[derive(Debug)]
pub(super) struct Move {
    id: TransactionId,
    bucket: u8,
    stored: Option<Box<StoredMessage>>,
    /// The DEFER that its copy takes in.
    defer: Option<(SegmentRef, u32)>,
    chunks_read: u32,
    places: Vec<Place>,
    /// Its copy is waiting or on its way.
    copying: bool,
    octets: usize,
}

/// What waits for a cold batch.
#[derive(Debug)]
pub(super) enum ColdItem {
    Chunk { id: TransactionId, bucket: u8, part: u32, copy: u16, data: Vec<u8> },
    Copy { id: TransactionId, bucket: u8, stored: Box<StoredMessage>, places: Vec<Place> },
}

impl ColdItem {
    fn bucket(&self) -> u8 {
        match self {
            Self::Chunk { bucket, .. } | Self::Copy { bucket, .. } => *bucket,
        }
    }

    fn drop_replies(&mut self) {
        if let Self::Copy { stored, .. } = self {
            stored.envelope.recipients.iter_mut().for_each(|r| r.reply = Box::default());
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Chunk { data, .. } => RECORD_HEADER + CHUNK_HEAD + data.len() + 8,
            // The envelope may have grown by replies; measured when it is put.
            Self::Copy { stored, .. } => {
                let envelope: usize = 512
                    + stored.envelope.recipients.iter().map(recipient_bytes).sum::<usize>()
                    + stored.envelope.edits.len() * 64;
                2 * RECORD_HEADER
                    + MESSAGE_HEAD
                    + envelope
                    + stored.header.len()
                    + stored.tail.len()
            }
        }
    }
}

fn recipient_bytes(r: &crate::message::Recipient) -> usize {
    64 + r.address.len() + r.routed.len() + r.orcpt.len() + r.reply.len() + r.route.len()
}

impl<B: Buffer> Log<B> {
    /// The segment being emptied: not to be reused under the sweep's feet.
    pub(super) fn sweep_segment(&self) -> Option<usize> {
        self.sweep.as_ref().map(|s| s.segment)
    }

    pub(super) fn run_sweep(&mut self, now_us: u64) {
        if self.closing || self.health == super::Health::Failed {
            return;
        }
        if self.sweep.is_none() && now_us >= self.next_sweep_us {
            self.next_sweep_us = now_us + SWEEP_PAUSE_US;
            self.choose_sweep(now_us);
        } else if now_us >= self.next_sweep_us {
            self.next_sweep_us = now_us + SWEEP_PAUSE_US;
            if self.hot.is_none() && self.is_out_of_segments() {
                self.abandon();
            }
        }
        let Some(sweep) = &mut self.sweep else { return };
        match &mut sweep.stage {
            Stage::Work { index, position } => {
                let mut work = (std::mem::take(index), *position);
                let more = self.work(&mut work);
                if let Some(sweep) = &mut self.sweep {
                    sweep.stage = if more {
                        Stage::Work { index: work.0, position: work.1 }
                    } else {
                        Stage::Drain { enqueued: self.enqueued, seq: None }
                    };
                }
            }
            Stage::Drain { .. } => self.drained(now_us),
            Stage::Trailer | Stage::Footer(_) => {}
        }
    }

    fn choose_sweep(&mut self, now_us: u64) {
        let short = self.is_scarce() || self.count.reclaimable * 4 < self.segments.len() + 3;
        let room_to_move =
            self.free_segments() > self.own_segments() || self.cold.iter().any(Option::is_some);
        let sparse = u64::from(self.segment_bytes / 4);
        // So little is left that half-empty segments are put together, whatever their age.
        let scarce = self.is_scarce();
        let room_for_copies = self.room_for_copies();
        let (mut evacuate, mut forward, mut compact) = (None, None, None);
        for (i, s) in self.segments.iter().enumerate() {
            if s.state != State::Sealed || s.retired || now_us < s.swept_us {
                continue;
            }
            if scarce && s.live > 0 && s.live_bytes < sparse.min(room_for_copies) {
                // The oldest: later ones wait for it.
                keep_older(&mut compact, s.order, i);
            }
            let aged = now_us >= s.opened_us + self.config.hot_age_us;
            let due = s.kind == SegmentKind::Hot || (short && s.live_bytes < sparse);
            if s.live > 0 && due && aged && room_to_move {
                keep_older(&mut evacuate, s.order, i);
            }
            if s.live == 0 && short && !s.waits_for.is_empty() {
                keep_older(&mut forward, s.order, i);
            }
        }
        let evacuate = evacuate.map(|(_, i)| (i, Purpose::Evacuate));
        let forward = forward.map(|(_, i)| (i, Purpose::Forward));
        let compact = compact.map(|(_, i)| (i, Purpose::Evacuate));
        let Some((segment, purpose)) = forward.or(evacuate).or(compact) else { return };
        self.segments[segment].swept_us = now_us + 10 * SWEEP_PAUSE_US;
        let stage = match &self.segments[segment].index {
            Some(index) => Stage::Work { index: index.clone(), position: Position::default() },
            None => Stage::Trailer,
        };
        let read = matches!(stage, Stage::Trailer);
        self.sweep = Some(Sweep { segment, purpose, stage, keep: Vec::new() });
        if read {
            let at = self.segments[segment].at;
            self.ask_raw(at, self.segment_bytes - len32(TRAILER), TRAILER);
        }
    }

    /// Bytes that copies find in the open hot segment and behind it.
    fn room_for_copies(&self) -> u64 {
        let size = u64::from(self.segment_bytes);
        let left = self.hot.map_or(0, |c| size.saturating_sub(u64::from(c.offset) + size / 16));
        left + crate::bytes::len64(self.free_segments()) * (size - size / 16)
    }

    /// There is no room for the copies: they are given up, so that something else may help.
    fn abandon(&mut self) {
        for item in std::mem::take(&mut self.cold_waiting) {
            if let ColdItem::Copy { places, .. } = item {
                places.into_iter().for_each(|place| self.let_go(place));
            }
        }
        for item in std::mem::take(&mut self.waiting) {
            if matches!(item, Item::Forward(_)) {
                self.waiting_bytes -= item.bytes().min(self.waiting_bytes);
                self.built += 1;
            } else {
                self.waiting.push_back(item);
            }
        }
        let moving = |log: &Self, id| log.table.get(id).is_some_and(Live::is_moving);
        let stuck: Vec<TransactionId> =
            self.moves.iter().map(|m| m.id).filter(|id| !moving(self, *id)).collect();
        stuck.into_iter().for_each(|id| self.end_move(id));
        self.sweep = None;
    }

    /// Bytes of the footer came.
    pub(super) fn swept_footer(&mut self, bytes: &[u8]) {
        let Some(sweep) = &mut self.sweep else { return };
        let (at, epoch) = (self.segments[sweep.segment].at, self.segments[sweep.segment].epoch);
        match &sweep.stage {
            Stage::Trailer => {
                let found = Trailer::decode(bytes);
                let Some(trailer) = found.filter(|t| t.segment == at && t.epoch == epoch) else {
                    return self.sweep_unreadable();
                };
                let length = index(trailer.bytes).min(FOOTER_BYTES_MAX);
                sweep.stage = Stage::Footer(trailer);
                self.ask_raw(at, self.segment_bytes - len32(length), length);
            }
            Stage::Footer(trailer) => match trailer.records(bytes) {
                Some(records) => {
                    let position = Position::default();
                    sweep.stage = Stage::Work { index: records.to_vec(), position };
                }
                None => self.sweep_unreadable(),
            },
            Stage::Work { .. } | Stage::Drain { .. } => {}
        }
    }

    /// The segment stays as it is.
    pub(super) fn sweep_unreadable(&mut self) {
        if let Some(sweep) = self.sweep.take() {
            self.segments[sweep.segment].retired = true;
            self.recount_due = true;
        }
    }

    /// Walks on as far as the bounds allow; false at the end.
    fn work(&mut self, work: &mut (Vec<u8>, Position)) -> bool {
        let Some((segment, purpose)) = self.sweep.as_ref().map(|s| (s.segment, s.purpose)) else {
            return false;
        };
        loop {
            let full = match purpose {
                Purpose::Evacuate => {
                    self.moves.len() >= MOVES_MAX || self.cold_bytes >= MOVE_BYTES_MAX
                }
                Purpose::Forward => self.waiting_bytes >= BATCH_BYTES_MAX,
            };
            if full {
                return true;
            }
            let mut walk = IndexWalk::resume(&work.0, work.1);
            let item = walk.next();
            let position = walk.position();
            match (item, purpose) {
                (None | Some(Err(_)), _) => return false,
                (Some(Ok(IndexItem::Message(summary))), Purpose::Evacuate) => {
                    self.start_move(segment, &summary);
                }
                (Some(Ok(IndexItem::Other { offset, kind, body, whole })), Purpose::Forward) => {
                    self.forward(segment, offset, kind, body, whole);
                }
                (Some(Ok(IndexItem::Batch(batch))), Purpose::Forward) => {
                    self.keep_waiting(batch.stale_segment, batch.stale_epoch);
                }
                // A chunk whose message stands elsewhere moves with that message.
                (Some(Ok(IndexItem::Chunk(chunk))), Purpose::Evacuate) => {
                    self.start_move_of_chunk(segment, chunk.head.id);
                }
                _ => {}
            }
            work.1 = position;
        }
    }

    fn start_move_of_chunk(&mut self, segment: usize, id: TransactionId) {
        let at = self.segments[segment].at;
        let here = |live: &Live| live.chunks().iter().any(|c| c.segment == at);
        if self.table.get(id).is_some_and(here) {
            self.begin_move(id);
        }
    }

    fn start_move(&mut self, segment: usize, summary: &Summary) {
        let at = self.segments[segment].at;
        let Some(live) = self.table.get(summary.id) else { return };
        if live.segment == at && live.offset == summary.offset {
            self.begin_move(summary.id);
        }
    }

    fn begin_move(&mut self, id: TransactionId) {
        let buckets = self.cold_buckets();
        let Some(live) = self.table.get(id) else { return };
        if live.is_moving() || live.is_cancelled() || live.is_finished() {
            return;
        }
        if self.moves.iter().any(|m| m.id == id) {
            return;
        }
        let bucket = bucket_of(live, buckets);
        let defer = live.defer_place();
        let octets = usize::try_from(live.octets).unwrap_or(usize::MAX).min(MOVE_BYTES_MAX);
        if self.ask(id, Part::Message, Asker::Mover).is_err() {
            return;
        }
        self.cold_bytes += octets;
        self.moves.push(Move {
            id,
            bucket,
            stored: None,
            defer,
            chunks_read: 0,
            places: Vec::new(),
            copying: false,
            octets,
        });
    }

    fn cold_buckets(&self) -> usize {
        (self.segments.len() / 16).clamp(1, COLD_BUCKETS_MAX)
    }

    pub(super) fn move_read(&mut self, id: TransactionId, data: ReadData) {
        let copy = self.table.get(id).map_or(0, |l| l.copy).saturating_add(1);
        let Some(m) = self.moves.iter_mut().find(|m| m.id == id) else { return };
        match data {
            ReadData::Message(stored) => m.stored = Some(stored),
            ReadData::Chunk(data) => {
                let (bucket, part) = (m.bucket, m.chunks_read);
                m.chunks_read += 1;
                self.cold_waiting.push_back(ColdItem::Chunk { id, bucket, part, copy, data });
                // The next one is read when this one is durable.
                return;
            }
        }
        self.next_of_move(id);
    }

    /// Reads the next chunk, or hands the message to the next cold batch.
    fn next_of_move(&mut self, id: TransactionId) {
        let Some(m) = self.moves.iter_mut().find(|m| m.id == id) else { return };
        let chunks = m.stored.as_ref().map_or(0, |s| s.chunks);
        if m.chunks_read < chunks {
            let part = Part::Chunk(m.chunks_read);
            if self.ask(id, part, Asker::Mover).is_err() {
                self.end_move(id);
            }
            return;
        }
        let Some(stored) = m.stored.take() else { return };
        m.copying = true;
        let (bucket, places) = (m.bucket, std::mem::take(&mut m.places));
        let mut item = ColdItem::Copy { id, bucket, stored, places };
        if !self.fits_segment(item.bytes(), COPY_INDEX) {
            // Grown by what hosts replied; the last replies are the first thing to do without.
            item.drop_replies();
        }
        if self.fits_segment(item.bytes(), COPY_INDEX) {
            self.cold_waiting.push_back(item);
        } else if let ColdItem::Copy { places, .. } = item {
            places.into_iter().for_each(|place| self.let_go(place));
            self.end_move(id);
        }
    }

    pub(super) fn copied_chunk(&mut self, id: TransactionId, place: Place) {
        if let Some(m) = self.moves.iter_mut().find(|m| m.id == id) {
            m.places.push(place);
            self.hold(place);
            self.next_of_move(id);
        }
    }

    pub(super) fn move_read_failed(&mut self, id: TransactionId) {
        self.end_move(id);
    }

    fn end_move(&mut self, id: TransactionId) {
        if let Some(i) = self.moves.iter().position(|m| m.id == id) {
            let m = self.moves.swap_remove(i);
            self.cold_bytes -= m.octets;
            for place in m.places {
                self.let_go(place);
            }
        }
        if let Some(live) = self.table.get_mut(id) {
            live.set_moving(false);
        }
    }

    /// The cold segment that waiting copies need and that is not open.
    pub(super) fn wanted_cold(&self) -> Option<u8> {
        let bucket = self.cold_waiting.front()?.bucket();
        self.cold[usize::from(bucket)].is_none().then_some(bucket)
    }

    /// Where copies go: where no cold segment may be opened, to the hot one.
    fn copies_to(&self, bucket: u8) -> SegmentKind {
        let open = self.cold[usize::from(bucket)].is_some();
        if open || self.free_segments() > self.own_segments() {
            SegmentKind::Cold(bucket)
        } else {
            SegmentKind::Hot
        }
    }

    pub(super) fn submit_cold<D: Disk<Buffer = B>>(
        &mut self,
        disk: &mut D,
        now_us: u64,
        wall_us: u64,
    ) -> bool {
        // Changes first: what a copy says must not be newer than the log.
        let changes = self.waiting.iter().any(|i| matches!(i, Item::Change(_) | Item::Message(_)));
        let Some(first) = self.cold_waiting.front().filter(|_| !changes) else { return false };
        let (kind, bucket) = (self.copies_to(first.bucket()), first.bucket());
        let Some(cursor) = self.cursor(kind, first.bytes(), COPY_INDEX) else { return false };
        let Some(buffer) = self.spare.pop() else { return false };
        let effects = self.effects.pop().unwrap_or_default();
        let mut builder = Builder::new(buffer, BATCH_BYTES_MAX, effects);
        while let Some(item) = self.cold_waiting.front() {
            builder.limit = self.room(cursor, builder.index_bytes + COPY_INDEX);
            if item.bucket() != bucket || !builder.fits(item.bytes()) {
                break;
            }
            let Some(item) = self.cold_waiting.pop_front() else { break };
            self.put_cold(&mut builder, item);
        }
        if builder.effects.is_empty() {
            self.spare.push(builder.buffer);
            return false;
        }
        self.send(disk, builder, kind, cursor, now_us, wall_us);
        true
    }

    fn put_cold(&mut self, builder: &mut Builder<B>, item: ColdItem) {
        match item {
            ColdItem::Chunk { id, part, copy, data, .. } => {
                let head = ChunkHead { id, part, copy };
                builder.put(RecordKind::Chunk, &[&head.to_bytes(), &data]);
                builder.index_bytes += RECORD_HEADER + CHUNK_HEAD + 8;
                builder.effects.push(Effect::CopyChunk { id, head });
            }
            ColdItem::Copy { id, stored, places, .. } => {
                let defer = self.moves.iter().find(|m| m.id == id).and_then(|m| m.defer);
                // Tried again meanwhile: what was read is old, a later sweep reads it afresh.
                let same = |l: &&Live| !l.is_finished() && l.defer_place() == defer;
                let Some(live) = self.table.get(id).filter(same) else {
                    for place in places {
                        self.let_go(place);
                    }
                    return self.end_move(id);
                };
                let mut stored = *stored;
                super::reads::refresh(&mut stored.envelope, live, None);
                super::reads::carry(&mut stored.envelope, live);
                let (copy, from) = (live.copy.saturating_add(1), live.segment);
                let mut envelope = Vec::with_capacity(512);
                received::encode(&stored.envelope, self.format, &mut envelope);
                let (header, tail) = (&stored.header, &stored.tail);
                let mut head = MessageHead::of(
                    envelope.len(),
                    header.len(),
                    tail.len(),
                    stored.chunks,
                    stored.body_octets,
                );
                head.copy = copy;
                let summary = Summary::of(&stored.envelope, &head);
                let head = head.stored(self.format);
                builder.put(RecordKind::Message, &[&head, &envelope, header, tail]);
                builder.index_bytes += summary_bytes_max(stored.envelope.recipients.len()) + 64;
                builder.effects.push(Effect::Copy { summary, places });
                let epoch = self.segment_of(from).map_or(0, |i| self.segments[i].epoch);
                let change = Change::Move(Target { id, segment: from, epoch }, copy);
                builder.put(RecordKind::Move, &[&change.encode()]);
                builder.effects.push(Effect::Moved { from });
                if let Some(live) = self.table.get_mut(id) {
                    live.set_moving(true);
                }
            }
        }
    }

    /// The copy is durable: it counts from now on.
    pub(super) fn copy_durable(&mut self, summary: &Summary, place: Place, places: Vec<Place>) {
        self.counters.moved += 1;
        let id = summary.id;
        let Some(live) = self.table.get_mut(id) else {
            places.into_iter().for_each(|p| self.let_go(p));
            return self.end_move(id);
        };
        let mut old = vec![live.place()];
        old.extend_from_slice(live.chunks());
        live.move_to(place, summary.copy, places);
        live.set_defer_place(None);
        self.hold(place);
        for place in old {
            self.let_go(place);
        }
        self.end_move(id);
    }

    /// That use of the segment is still on the device.
    fn stands(&self, at: SegmentRef, epoch: u64) -> bool {
        self.segment_of(at).is_some_and(|i| {
            let s = &self.segments[i];
            s.epoch == epoch || s.epoch_before == epoch && epoch != 0
        })
    }

    /// A MOVE cannot be copied forward: older copies must go first.
    fn keep_waiting(&mut self, at: SegmentRef, epoch: u64) {
        let stands = self.stands(at, epoch);
        if let Some(sweep) = self.sweep.as_mut().filter(|_| stands) {
            sweep.keep.push(at);
        }
    }

    fn forward(&mut self, segment: usize, offset: u32, kind: u8, body: &[u8], whole: &[u8]) {
        let at = self.segments[segment].at;
        let changes = Change::decode_all(kind, body).unwrap_or_default();
        // Several in one record are DONEs, and stay together: one is as final as the other.
        let Some(change) = changes.iter().find(|c| self.is_needed(c, (at, offset))) else { return };
        let target = change.target();
        if matches!(change, Change::Move(..)) {
            return self.keep_waiting(target.segment, target.epoch);
        }
        let defer_of = matches!(change, Change::Defer(_)).then_some(target.id);
        let item =
            Item::Forward(Forward { record: whole.to_vec(), target: target.segment, defer_of });
        self.enqueue(item);
    }

    fn is_needed(&self, change: &Change, place: (SegmentRef, u32)) -> bool {
        let target = change.target();
        let stands =
            target.segment == SegmentRef::NONE || self.stands(target.segment, target.epoch);
        let live = self.table.get(target.id).filter(|l| !l.is_finished());
        // A MOVE waits, whatever it speaks of.
        matches!(change, Change::Move(..)) || stands && counts(change, place, live)
    }

    fn drained(&mut self, now_us: u64) {
        let Some(sweep) = &mut self.sweep else { return };
        let (segment, purpose) = (sweep.segment, sweep.purpose);
        let Stage::Drain { enqueued, seq } = &mut sweep.stage else { return };
        if seq.is_none() && self.built >= *enqueued {
            *seq = Some(self.next_seq - 1);
        }
        let durable = seq.is_some_and(|seq| self.durable_through >= seq);
        let busy = match purpose {
            Purpose::Evacuate => !self.moves.is_empty(),
            Purpose::Forward => !durable,
        };
        if busy {
            if !self.waiting.is_empty() {
                self.change_since_us.get_or_insert(now_us);
            }
            return;
        }
        let keep = self.sweep.take().map(|s| s.keep).unwrap_or_default();
        self.next_sweep_us = now_us;
        if purpose == Purpose::Evacuate && self.segments[segment].live == 0 {
            // What it still waits for may be copied forward at once.
            self.segments[segment].swept_us = 0;
        }
        if purpose == Purpose::Forward && self.segments[segment].live == 0 {
            // What it kept waiting for may have been reopened since: then it waits no more.
            let attempts = self.segments[segment].attempts.clone();
            let before = std::mem::replace(&mut self.segments[segment].waits_for, attempts);
            self.recount_due = true;
            for at in keep {
                if self.segment_of(at).is_some_and(|i| before.contains(i)) {
                    self.wait_for(segment, at);
                }
            }
        }
    }
}

/// Whether a change that stands at that place is needed when its segment goes; `live` is its
/// message, as long as that needs work. (Not asked of a MOVE: the older copy must go first. Nor of
/// one whose message's segment was reopened: it speaks of nothing.)
pub(crate) fn counts(change: &Change, at: (SegmentRef, u32), live: Option<&Live>) -> bool {
    let target = change.target();
    if target.segment == at.0 {
        // Its message goes with it.
        return false;
    }
    // A later copy says the same.
    let is_here = |l: &Live| target.segment == SegmentRef::NONE || l.segment == target.segment;
    match (change, live) {
        (Change::Move(..), _) => false,
        (Change::Defer(_), live) => live.is_some_and(|l| l.defer_place() == Some(at)),
        (_, Some(live)) => is_here(live) && is_current(change, live),
        // Ended; its MSG is still there.
        (_, None) => true,
    }
}

/// Nothing later took its place: a change copied forward is read after its successors.
fn is_current(change: &Change, live: &Live) -> bool {
    match change {
        Change::Hold(_) => live.is_held(),
        Change::Release(_) => !live.is_held(),
        Change::Redirect(r) => {
            live.redirects().iter().any(|(n, to)| *n == r.recipient && *to == r.address)
        }
        _ => true,
    }
}

fn keep_older(best: &mut Option<(u64, usize)>, order: u64, i: usize) {
    if best.is_none_or(|(o, _)| order < o) {
        *best = Some((order, i));
    }
}

/// Which of the open cold segments: messages that die together lie together.
fn bucket_of(live: &Live, buckets: usize) -> u8 {
    let left_s = live.expiry_wall_s.saturating_sub(live.received_wall_s);
    let class = match left_s {
        0 => 3,
        1..=21_600 => 0,
        21_601..=86_400 => 1,
        86_401..=259_200 => 2,
        _ => 3,
    };
    u8::try_from(class.min(buckets - 1)).expect("few buckets")
}
