//! Group commit: building batches, sending them, acknowledging them in order.
//!
//! *Guarantees*: a batch is whatever arrived while the one before was being written; batches are
//! acknowledged in the order of their numbers, whatever order the device answers in.
//!
//! *Limits*: `FLIGHTS_MAX` at once, one `BATCH_BYTES_MAX` each.

use crate::batch::{BatchHeader, Filling, Records};
use crate::bytes::{index, len32, len64, round_up};
use crate::disk::{Buffer, Completion, Disk, Token, WriteTo};
use crate::id::{ID_STEP_MAX, TransactionId};
use crate::index::{IndexBatch, IndexChunk, IndexLines, Summary, summary_bytes_max};
use crate::ledger::Ledger;
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_HEADER, BESIDE_BYTES_MIN, BESIDE_MESSAGES_MIN, BLOCK, CONTROL_BYTES_MAX,
    FLIGHTS_MAX, RECORD_ALIGN, RECORD_HEADER, WATERMARK_DELAY_US,
};
use crate::live::{Live, Place};
use crate::message::{MESSAGE_HEAD, MessageHead};
use crate::record::{CHUNK_HEAD, Change, ChunkHead, RecordKind, Together};
use crate::segment::{SegmentKind, SegmentRef};
use crate::superblock::Format;

use super::members::Owed;
use super::segments::{Cursor, State};
use super::{Alarm, Content, Event, Health, Log, Previous};

/// Encoded envelopes whose memory is used again, and how large one of them may be.
const ENVELOPES_KEPT: usize = 64;
const ENVELOPE_KEPT_BYTES: usize = 4096;
/// DONEs in one record; two of them take less than two records of their own, so that
/// a batch that has room for each has room for all.
const DONES_MAX: usize = 4096;
const _: () = assert!(DONES_MAX * ID_STEP_MAX + 64 < CONTROL_BYTES_MAX);
/// Chunks whose memory is used again.
const CHUNKS_KEPT: usize = 32;

/// A message whose transaction is committed.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) token: u64,
    pub(super) own: bool,
    pub(super) summary: Summary,
    pub(super) head: MessageHead,
    pub(super) envelope: Vec<u8>,
    pub(super) header: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) slot: u32,
    pub(super) replaces: Vec<ChangeItem>,
}

impl Outgoing {
    fn record_bytes(&self) -> usize {
        let parts = self.envelope.len() + self.header.len() + self.body.len();
        round_up(RECORD_HEADER + MESSAGE_HEAD + parts, RECORD_ALIGN)
    }

    pub(super) fn bytes(&self) -> usize {
        self.record_bytes() + self.replaces.iter().map(ChangeItem::bytes).sum::<usize>()
    }
}

/// A change on its way.
#[derive(Debug)]
pub(super) struct ChangeItem {
    pub(super) change: Change,
    pub(super) body: Vec<u8>,
    pub(super) delta: Ledger,
    pub(super) token: Option<u64>,
    /// The message needs no more work after it.
    pub(super) finished: bool,
}

/// A chunk on its way.
#[derive(Debug)]
pub(super) struct ChunkItem {
    pub(super) slot: u32,
    pub(super) generation: u32,
    pub(super) id: TransactionId,
    pub(super) part: u32,
    pub(super) data: Vec<u8>,
}

/// A change copied out of a segment that is to be reused.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) record: Vec<u8>,
    pub(super) target: SegmentRef,
    /// It is the DEFER that counts of that message.
    pub(super) defer_of: Option<TransactionId>,
}

/// What waits for a batch.
#[derive(Debug)]
pub(super) enum Item {
    Message(Box<Outgoing>),
    Chunk(ChunkItem),
    Change(ChangeItem),
    Forward(Forward),
}

impl Item {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Message(m) => m.bytes(),
            Self::Chunk(c) => round_up(RECORD_HEADER + CHUNK_HEAD + c.data.len(), RECORD_ALIGN),
            Self::Change(c) => c.bytes(),
            Self::Forward(f) => round_up(f.record.len(), RECORD_ALIGN),
        }
    }

    fn index_bytes(&self) -> usize {
        match self {
            Self::Message(m) => {
                summary_bytes_max(usize::from(m.summary.recipients))
                    + m.replaces.iter().map(ChangeItem::bytes).sum::<usize>()
            }
            Self::Chunk(_) => RECORD_HEADER + CHUNK_HEAD + 8,
            Self::Change(_) | Self::Forward(_) => self.bytes(),
        }
    }
}

/// What to do when a record is durable; one per record, in their order.
#[derive(Debug)]
pub(super) enum Effect {
    Message {
        outgoing: Box<Outgoing>,
        cancelled: bool,
    },
    Chunk {
        slot: u32,
        generation: u32,
        memory: usize,
        head: ChunkHead,
    },
    Change {
        item: ChangeItem,
    },
    /// DONEs in one record.
    Changes {
        items: Vec<ChangeItem>,
    },
    Forward {
        target: SegmentRef,
        defer_of: Option<TransactionId>,
    },
    /// A message copied to the cold log; the MOVE behind it has `Moved`.
    Copy {
        summary: Summary,
        places: Vec<Place>,
    },
    Moved {
        from: SegmentRef,
    },
    CopyChunk {
        id: TransactionId,
        head: ChunkHead,
    },
}

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Flight<B> {
    pub(super) token: Token,
    pub(super) header: BatchHeader,
    pub(super) segment: usize,
    pub(super) offset: u32,
    pub(super) buffer: Option<B>,
    pub(super) effects: Vec<Effect>,
    pub(super) owed: Owed,
    pub(super) failed: bool,
    pub(super) submitted_us: u64,
    pub(super) crc: u32,
    pub(super) index_bytes: usize,
}

/// A batch being filled.
pub(super) struct Builder<B> {
    pub(super) buffer: B,
    filling: Filling,
    pub(super) limit: usize,
    pub(super) index_bytes: usize,
    pub(super) effects: Vec<Effect>,
    /// DONEs that are put together behind everything else, and bytes that are kept for them. What
    /// they end has no later record.
    dones: Vec<(Together, ChangeItem)>,
    dones_bytes: usize,
}

impl<B: Buffer> Builder<B> {
    /// `effects` is empty: its memory is used again.
    pub(super) fn new(buffer: B, limit: usize, effects: Vec<Effect>) -> Self {
        Self {
            buffer,
            filling: Filling::default(),
            limit,
            index_bytes: RECORD_HEADER + 26,
            effects,
            dones: Vec::new(),
            dones_bytes: 0,
        }
    }

    pub(super) fn fits(&self, bytes: usize) -> bool {
        round_up(self.filling.used() + self.dones_bytes + bytes, BLOCK) <= self.limit
    }

    /// One record for those that say the same of messages in one segment.
    fn put_dones(&mut self) {
        let mut dones = std::mem::take(&mut self.dones);
        dones.sort_by_key(|(together, _)| *together);
        let mut dones = dones.into_iter().peekable();
        while let Some((together, first)) = dones.next() {
            let mut items = vec![first];
            while items.len() < DONES_MAX
                && let Some((_, item)) = dones.next_if(|(other, _)| *other == together)
            {
                items.push(item);
            }
            if items.len() == 1 {
                items.into_iter().for_each(|item| self.put_one(item));
                continue;
            }
            let mut body = Vec::with_capacity(32 + 4 * items.len());
            together.append_to(&mut body, items.iter().map(|item| item.change.target().id));
            self.put(RecordKind::Dones, &[&body]);
            self.effects.push(Effect::Changes { items });
        }
        self.dones_bytes = 0;
    }

    fn put_one(&mut self, mut item: ChangeItem) {
        item.body.clear();
        item.change.append_to(&mut item.body);
        self.put(item.change.kind(), &[&item.body]);
        self.effects.push(Effect::Change { item });
    }

    /// A record from its parts.
    pub(super) fn put(&mut self, kind: RecordKind, parts: &[&[u8]]) {
        self.filling.put(self.buffer.bytes_mut(), kind, parts);
    }

    /// A record as it stood elsewhere.
    pub(super) fn put_verbatim(&mut self, record: &[u8]) {
        self.filling.put_verbatim(self.buffer.bytes_mut(), record);
    }
}

impl<B: Buffer> Log<B> {
    pub(super) fn enqueue(&mut self, item: Item) {
        self.enqueued += 1;
        self.waiting_bytes += item.bytes();
        self.waiting_messages += usize::from(matches!(item, Item::Message(_)));
        self.waiting.push_back(item);
    }

    pub(super) fn submit_batches<D: Disk<Buffer = B>>(
        &mut self,
        disk: &mut D,
        now_us: u64,
        wall_us: u64,
    ) {
        while self.flights.len() < FLIGHTS_MAX && !self.rewriting && self.may_try(now_us) {
            let sent = if self.hot_is_due(now_us) {
                self.submit_hot(disk, now_us, wall_us)
            } else {
                self.submit_cold(disk, now_us, wall_us)
            };
            if !sent {
                break;
            }
        }
    }

    fn hot_is_due(&self, now_us: u64) -> bool {
        let late = |since: Option<u64>| since.is_some_and(|t| now_us >= t + WATERMARK_DELAY_US);
        if self.waiting.is_empty() {
            // A watermark is worth a block, but not the last ones.
            let worth = self.flights.is_empty() && !self.is_scarce();
            return worth && late(self.uncovered_since_us);
        }
        if self.waiting_bytes >= BESIDE_BYTES_MIN || self.waiting_messages >= BESIDE_MESSAGES_MIN {
            return true;
        }
        let only_changes = self.waiting_messages == 0
            && self.waiting.iter().all(|i| matches!(i, Item::Change(_) | Item::Forward(_)));
        self.flights.is_empty() && (!only_changes || self.closing || late(self.change_since_us))
    }

    /// The open segment of that kind if it has that much room; else it is sealed, and the next
    /// one taken when it is ready.
    pub(super) fn cursor(
        &mut self,
        kind: SegmentKind,
        bytes: usize,
        more: usize,
    ) -> Option<Cursor> {
        let open = match kind {
            SegmentKind::Hot => self.hot,
            SegmentKind::Cold(bucket) => self.cold[usize::from(bucket)],
        };
        if let Some(cursor) = open {
            if self.room(cursor, more) >= round_up(BATCH_HEADER + bytes, BLOCK) {
                return Some(cursor);
            }
            self.seal(kind);
        }
        self.take_ready(kind)
    }

    fn submit_hot<D: Disk<Buffer = B>>(&mut self, disk: &mut D, now_us: u64, wall_us: u64) -> bool {
        let first = self.waiting.front().map_or((0, 0), |i| (i.bytes(), i.index_bytes()));
        let Some(cursor) = self.cursor(SegmentKind::Hot, first.0, first.1 + 64) else {
            return false;
        };
        let Some(buffer) = self.spare.pop() else { return false };
        let effects = self.effects.pop().unwrap_or_default();
        let mut builder = Builder::new(buffer, BATCH_BYTES_MAX, effects);
        while let Some(item) = self.waiting.front() {
            let (bytes, more) = (item.bytes(), item.index_bytes());
            builder.limit = self.room(cursor, builder.index_bytes + more);
            if !builder.fits(bytes) {
                break;
            }
            let Some(item) = self.waiting.pop_front() else { break };
            self.built += 1;
            self.waiting_bytes -= bytes.min(self.waiting_bytes);
            builder.index_bytes += more;
            self.put_item(&mut builder, item);
        }
        builder.put_dones();
        let only_watermark = builder.effects.is_empty();
        if self.waiting.is_empty() {
            self.change_since_us = None;
        }
        self.send(disk, builder, SegmentKind::Hot, cursor, now_us, wall_us);
        if only_watermark {
            self.uncovered_since_us = None;
        }
        true
    }

    fn put_item(&mut self, builder: &mut Builder<B>, item: Item) {
        match item {
            Item::Message(m) => {
                self.waiting_messages -= 1;
                let head = m.head.stored(self.format);
                builder.put(RecordKind::Message, &[&head, &m.envelope, &m.header, &m.body]);
                self.ledger.add(&arrival(&m.summary));
                let mut m = m;
                let replaces = std::mem::take(&mut m.replaces);
                builder.effects.push(Effect::Message { outgoing: m, cancelled: false });
                for change in replaces {
                    self.put_change(builder, change);
                }
            }
            Item::Chunk(c) => {
                let head = ChunkHead { id: c.id, part: c.part, copy: 0 };
                builder.put(RecordKind::Chunk, &[&head.to_bytes(), &c.data]);
                let (slot, generation, memory) = (c.slot, c.generation, c.data.len());
                builder.effects.push(Effect::Chunk { slot, generation, memory, head });
                if self.chunks.len() < CHUNKS_KEPT {
                    let mut data = c.data;
                    data.clear();
                    self.chunks.push(data);
                }
            }
            Item::Change(c) => self.put_change(builder, c),
            Item::Forward(f) => {
                builder.put_verbatim(&f.record);
                self.counters.forwarded += 1;
                let Forward { target, defer_of, .. } = f;
                builder.effects.push(Effect::Forward { target, defer_of });
            }
        }
    }

    /// The record is made now, when the message's place is known.
    fn put_change(&mut self, builder: &mut Builder<B>, mut item: ChangeItem) {
        let place = self.table.get(item.change.target().id).filter(|l| !l.is_moving());
        let at = place.map_or(SegmentRef::NONE, |l| l.segment);
        let epoch = self.segment_of(at).map_or(0, |i| self.segments[i].epoch);
        item.change.set_place(at, epoch);
        self.ledger.add(&item.delta);
        match Together::of(&item.change).filter(|_| self.format >= Format::V2) {
            Some(together) => {
                builder.dones_bytes += item.bytes();
                builder.dones.push((together, item));
            }
            None => builder.put_one(item),
        }
    }

    pub(super) fn send<D: Disk<Buffer = B>>(
        &mut self,
        disk: &mut D,
        mut builder: Builder<B>,
        kind: SegmentKind,
        cursor: Cursor,
        now_us: u64,
        wall_us: u64,
    ) {
        let filling = builder.filling;
        let bytes = filling.pad(builder.buffer.bytes_mut());
        debug_assert!(filling.records() == len32(builder.effects.len()));
        let segment = &mut self.segments[cursor.segment];
        segment.index_reserved += builder.index_bytes;
        let place = (segment.at, segment.epoch);
        let header = BatchHeader {
            durable_through: self.durable_through,
            ledger: self.ledger,
            wall_us,
            ..filling.header(place, (self.run, self.core), self.next_seq)
        };
        self.next_seq += 1;
        let next = Cursor { segment: cursor.segment, offset: cursor.offset + len32(bytes) };
        match kind {
            SegmentKind::Hot => self.hot = Some(next),
            SegmentKind::Cold(bucket) => self.cold[usize::from(bucket)] = Some(next),
        }
        let flight = Flight {
            token: 0,
            header,
            segment: cursor.segment,
            offset: cursor.offset,
            buffer: Some(builder.buffer),
            effects: builder.effects,
            owed: Owed::default(),
            failed: false,
            submitted_us: now_us,
            crc: 0,
            index_bytes: builder.index_bytes,
        };
        self.flights.push_back(flight);
        self.counters.batches += 1;
        self.write_flight(disk, self.flights.len() - 1, now_us);
    }

    /// Puts the header of flight `i` right for its place and writes it.
    pub(super) fn write_flight<D: Disk<Buffer = B>>(
        &mut self,
        disk: &mut D,
        i: usize,
        now_us: u64,
    ) {
        let token = self.token();
        let previous = self.previous;
        let log = self.log_of(self.flights[i].header.segment);
        let members = self.members(self.flights[i].header.segment);
        let flight = &mut self.flights[i];
        let Some(mut buffer) = flight.buffer.take() else { return };
        let header = &mut flight.header;
        header.log = log;
        header.previous_crc = previous.crc;
        header.previous_segment = previous.segment;
        header.previous_block = previous.block;
        header.previous_epoch = previous.epoch;
        header.block = flight.offset / len32(BLOCK);
        let crc = header.encode(buffer.bytes_mut());
        debug_assert!(crate::batch::payload_crc(buffer.bytes(), header) == Ok(header.payload_crc));
        self.previous =
            Previous { crc, segment: header.segment, block: header.block, epoch: header.epoch };
        flight.token = token;
        flight.crc = crc;
        flight.failed = false;
        flight.submitted_us = now_us;
        flight.owed = Owed(members);
        let bytes = index(header.bytes);
        self.counters.bytes_written += len64(bytes);
        let offset = header.segment.device_offset(self.segment_bytes) + u64::from(flight.offset);
        disk.write(token, WriteTo { members, offset, bytes }, buffer);
    }

    pub(super) fn flight_done(&mut self, i: usize, done: Completion<B>, now_us: u64) {
        let expected = index(self.flights[i].header.bytes);
        let segment = self.flights[i].header.segment;
        let at = segment.device_offset(self.segment_bytes) + u64::from(self.flights[i].offset);
        let alarm = self.write_failed(&done, segment, expected, at);
        let flight = &mut self.flights[i];
        flight.owed.answered(done.member);
        flight.buffer = flight.buffer.take().or(done.buffer);
        if let Some(alarm) = alarm {
            flight.failed = true;
            self.events.push_back(Event::Alarm(alarm));
            self.close_failed_segment(i);
            self.rewriting = true;
            self.count_error(done.member, now_us);
        }
        self.acknowledge(now_us);
    }

    /// What a member that was put out says does not matter any more.
    pub(super) fn write_failed(
        &self,
        done: &Completion<B>,
        at: SegmentRef,
        expected: usize,
        offset: u64,
    ) -> Option<Alarm> {
        if !self.members(at).contains(&Some(done.member)) {
            return None;
        }
        let error = match &done.result {
            Ok(bytes) if *bytes == expected => return None,
            Ok(_) => crate::disk::DiskError::Short,
            Err(error) => error.clone(),
        };
        Some(Alarm::WriteFailed { member: done.member, offset, error })
    }

    /// In order: nothing behind a batch that is on its way, or failed, is acknowledged.
    fn acknowledge(&mut self, now_us: u64) {
        while let Some(first) = self.flights.front() {
            if !first.owed.is_none() || first.failed || first.buffer.is_none() {
                return;
            }
            let Some(flight) = self.flights.pop_front() else { return };
            self.durable(flight, now_us);
        }
    }

    fn durable(&mut self, mut flight: Flight<B>, now_us: u64) {
        let header = flight.header;
        self.durable_through = header.seq;
        self.watermark_on_disk = self.watermark_on_disk.max(header.durable_through);
        if header.records > 0 {
            self.uncovered_since_us = Some(now_us);
        }
        (self.errors_in_row, self.errors_by) = (0, 0);
        if self.health == Health::Failed {
            self.retry_at_us = now_us;
        }
        let Some(buffer) = flight.buffer.take() else { return };
        let i = flight.segment;
        let segment = &mut self.segments[i];
        if segment.first_seq == 0 {
            segment.first_seq = header.seq;
        }
        segment.last_seq = header.seq;
        segment.last_wall_us = header.wall_us;
        segment.ledger = header.ledger;
        let mut entries = segment.index.take().unwrap_or_default();
        let batch = IndexBatch {
            seq: header.seq,
            offset: flight.offset,
            stale_segment: header.stale_segment,
            stale_epoch: header.stale_epoch,
            attempt: header.attempt,
        };
        let mut lines = IndexLines::new(&mut entries, self.format, &batch);
        let mut effects = flight.effects;
        for (record, effect) in Records::new(buffer.bytes(), &header).zip(effects.drain(..)) {
            let record = record.expect("a batch made here is well formed");
            let place = Place {
                segment: header.segment,
                offset: flight.offset + record.offset,
                length: len32(record.whole.len()),
            };
            self.effect(effect, place, record.whole, &mut lines, i, now_us);
        }
        if self.effects.len() < FLIGHTS_MAX {
            self.effects.push(effects);
        }
        self.segments[i].index = Some(entries);
        // Behind a failed write: what it brought to life is known now.
        self.recount_due |= self.segments[i].state == State::Sealed;
        self.spare.push(buffer);
        self.heal();
    }

    fn effect(
        &mut self,
        effect: Effect,
        place: Place,
        whole: &[u8],
        lines: &mut IndexLines<'_>,
        segment: usize,
        now_us: u64,
    ) {
        match effect {
            Effect::Message { outgoing, cancelled } => {
                let mut outgoing = outgoing;
                let summary = &mut outgoing.summary;
                (summary.offset, summary.length) = (place.offset, place.length);
                lines.message(summary);
                self.message_durable(*outgoing, place, cancelled, now_us);
            }
            Effect::Chunk { slot, generation, memory, head } => {
                let (offset, length) = (place.offset, place.length);
                lines.chunk(&IndexChunk { head, offset, length });
                self.memory -= memory;
                self.chunk_durable(slot, generation, place);
                self.paused = true;
            }
            Effect::Change { item } => {
                lines.other(whole);
                self.change_durable(&item, place, segment);
            }
            Effect::Changes { items } => {
                lines.other(whole);
                items.iter().for_each(|item| self.change_durable(item, place, segment));
            }
            Effect::Forward { target, defer_of } => {
                lines.other(whole);
                if target == SegmentRef::NONE {
                    self.wait_for_all(segment);
                }
                self.wait_for(segment, target);
                if let Some(live) = defer_of.and_then(|id| self.table.get_mut(id)) {
                    live.set_defer_place(Some((place.segment, place.offset)));
                }
            }
            Effect::Copy { mut summary, places } => {
                (summary.offset, summary.length) = (place.offset, place.length);
                lines.message(&summary);
                self.copy_durable(&summary, place, places);
            }
            Effect::Moved { from } => {
                lines.other(whole);
                self.wait_for(segment, from);
            }
            Effect::CopyChunk { id, head } => {
                let (offset, length) = (place.offset, place.length);
                lines.chunk(&IndexChunk { head, offset, length });
                self.copied_chunk(id, place);
            }
        }
    }

    fn message_durable(&mut self, outgoing: Outgoing, place: Place, cancelled: bool, now_us: u64) {
        let chunks = self.take_chunks(outgoing.slot);
        self.memory -= outgoing.header.len() + outgoing.body.len();
        self.paused = true;
        let whole = chunks.is_empty();
        let id = outgoing.summary.id;
        let live = self.table.insert_new(Live::of(&outgoing.summary, place.segment));
        debug_assert!(live.is_some(), "ids are given once");
        let mut finished = false;
        if let Some(live) = live {
            live.set_chunks(chunks);
            finished = live.is_finished();
        }
        self.hold(place);
        if self.envelopes.len() < ENVELOPES_KEPT
            && outgoing.envelope.capacity() <= ENVELOPE_KEPT_BYTES
        {
            self.envelopes.push(outgoing.envelope);
        }
        self.counters.committed += 1;
        if cancelled {
            self.cancel(id, now_us);
            return;
        }
        let content = whole.then_some(Content { header: outgoing.header, body: outgoing.body });
        self.events.push_back(Event::Committed { token: outgoing.token, id, content });
        // Settled before it came (taken over from elsewhere): nothing to do.
        if finished {
            self.forget(id);
        }
    }

    fn change_durable(&mut self, item: &ChangeItem, place: Place, segment: usize) {
        let id = item.change.target().id;
        if let Some(live) = self.table.get_mut(id) {
            let at = live.segment;
            if matches!(item.change, Change::Defer(_)) {
                live.set_defer_place(Some((place.segment, place.offset)));
            }
            self.wait_for(segment, at);
        }
        if matches!(item.change, Change::Cancel(_)) {
            self.cancels = self.cancels.saturating_sub(1);
        }
        if item.finished {
            self.forget(id);
        }
        if let Some(token) = item.token {
            self.events.push_back(Event::Changed { token });
        }
    }

    /// Its last change is durable: its segments need not keep it.
    fn forget(&mut self, id: TransactionId) {
        let Some(live) = self.table.remove(id) else { return };
        self.let_go(live.place());
        for chunk in live.chunks() {
            self.let_go(*chunk);
        }
    }
}

/// What a new message adds to the ledger.
fn arrival(summary: &Summary) -> Ledger {
    crate::live::arrival(summary)
}
