//! Reading messages back: whole records, their checksums checked.
//!
//! *Limits*: `READS_MAX` at the device, `READS_WAITING_MAX` behind them.

use crate::bytes::{index, len64, round_up};
use crate::disk::{Buffer, Completion, Disk, Member, Token};
use crate::id::TransactionId;
use crate::limits::{BLOCK, CONTROL_BYTES_MAX, READS_MAX, RECORD_HEADER};
use crate::live::{Live, Place};
use crate::message::{Envelope, MessageHead};
use crate::record::{Change, ChunkHead, Defer, RecordHeader, RecordKind};
use crate::segment::SegmentRef;

use super::{Alarm, Event, Log, Part, ReadData, ReadError, StoredMessage};

/// Reads that may wait for a place at the device.
const READS_WAITING_MAX: usize = 4096;

/// Who asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asker {
    Owner(u64),
    Mover,
    Sweeper,
}

#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// The DEFER that counts, of which only the start is known.
    Defer(SegmentRef, u32, usize),
    Record(Place),
    /// A footer.
    Raw {
        segment: SegmentRef,
        offset: u32,
        bytes: usize,
    },
}

#[derive(Debug)]
pub(super) struct Read {
    pub(super) token: Token,
    pub(super) asker: Asker,
    id: TransactionId,
    part: Part,
    stage: Stage,
    defer: Option<Defer>,
    /// Copies not tried yet.
    member_try: usize,
    /// A device said no for one of the copies: it may say yes later.
    refused: Option<ReadError>,
    /// The member whose copy does not check.
    rotten: Option<Member>,
}

impl<B: Buffer> Log<B> {
    /// Asks for a part of a message; `Event::Read` with `token` follows.
    ///
    /// # Errors
    /// `Unknown`, `Busy`, or `Damaged` when the chunk is not there.
    pub fn read(&mut self, id: TransactionId, part: Part, token: u64) -> Result<(), ReadError> {
        if self.reads_waiting.len() >= READS_WAITING_MAX {
            return Err(ReadError::Busy);
        }
        self.ask(id, part, Asker::Owner(token))
    }

    pub(super) fn ask(
        &mut self,
        id: TransactionId,
        part: Part,
        asker: Asker,
    ) -> Result<(), ReadError> {
        let live = self.table.get(id).ok_or(ReadError::Unknown)?;
        let record = match part {
            Part::Message => live.place(),
            // The message says it has it, and recovery did not find it.
            Part::Chunk(n) => *live.chunks().get(index(n)).ok_or(ReadError::Damaged)?,
        };
        let stage = match live.defer_place() {
            Some((segment, offset)) if part == Part::Message => {
                Stage::Defer(segment, offset, RECORD_HEADER + 1024)
            }
            _ => Stage::Record(record),
        };
        let read = Read {
            token: 0,
            asker,
            id,
            part,
            stage,
            defer: None,
            member_try: 0,
            refused: None,
            rotten: None,
        };
        self.reads_waiting.push_back(read);
        Ok(())
    }

    /// Asks for the footer bytes of a segment.
    pub(super) fn ask_raw(&mut self, segment: SegmentRef, offset: u32, bytes: usize) {
        let stage = Stage::Raw { segment, offset, bytes };
        let read = Read {
            token: 0,
            asker: Asker::Sweeper,
            id: TransactionId::default(),
            part: Part::Message,
            stage,
            defer: None,
            member_try: 0,
            refused: None,
            rotten: None,
        };
        self.reads_waiting.push_back(read);
    }

    pub(super) fn submit_reads<D: Disk<Buffer = B>>(&mut self, disk: &mut D) {
        while self.reads.len() < READS_MAX {
            let Some(mut read) = self.reads_waiting.pop_front() else { return };
            read.token = self.token();
            let (segment, offset, bytes) = read.span();
            let start = index(offset) / BLOCK * BLOCK;
            let end = round_up(index(offset) + bytes, BLOCK).min(index(self.segment_bytes));
            if self.readers(segment).count() <= read.member_try {
                // A member was put out since: the one that is left was not asked, or asked before.
                read.member_try = 0;
            }
            let member = self.readers(segment).nth(read.member_try);
            let at = segment.device_offset(self.segment_bytes) + len64(start);
            if let Some(member) = member.filter(|_| start < end) {
                disk.read(read.token, member, at, end - start);
                self.reads.push(read);
            } else {
                self.read_failed(&read, ReadError::Damaged);
            }
        }
    }

    pub(super) fn read_done(&mut self, i: usize, done: Completion<B>) {
        let mut read = self.reads.swap_remove(i);
        let (segment, _, _) = read.span();
        if done.result.is_err() && self.readers(segment).all(|m| m != done.member) {
            // Asked before it was put out: the others have not been asked yet.
            read.member_try = 0;
            self.reads_waiting.push_front(read);
            return;
        }
        let data = match done.result {
            Ok(n) if n == done.data.len() => done.data,
            Ok(_) => return self.try_copy(read, ReadError::Disk(crate::disk::DiskError::Short)),
            Err(error) => return self.try_copy(read, ReadError::Disk(error)),
        };
        let (_, offset, bytes) = read.span();
        let bytes = data.get(index(offset) % BLOCK..).map(|d| &d[..bytes.min(d.len())]);
        let bytes = bytes.unwrap_or(&[]);
        match read.stage {
            Stage::Raw { .. } => self.swept_footer(bytes),
            Stage::Defer(segment, offset, _) => match read_defer(bytes, read.id) {
                Ok(defer) => {
                    read.defer = Some(defer);
                    self.read_record_next(read);
                }
                Err(Some(longer)) => {
                    read.stage = Stage::Defer(segment, offset, longer);
                    self.reads_waiting.push_front(read);
                }
                // The message itself may still be whole: go on without what was said last.
                Err(None) => self.read_record_next(read),
            },
            Stage::Record(_) => match self.assemble(&read, bytes) {
                Some(data) => self.read_succeeded(&read, data),
                None => {
                    read.rotten = Some(done.member);
                    self.try_copy(read, ReadError::Damaged);
                }
            },
        }
    }

    fn read_record_next(&mut self, mut read: Read) {
        match self.table.get(read.id) {
            Some(live) => {
                read.stage = Stage::Record(live.place());
                self.reads_waiting.push_front(read);
            }
            None => self.read_failed(&read, ReadError::Unknown),
        }
    }

    /// The other copy, when there is one.
    fn try_copy(&mut self, mut read: Read, error: ReadError) {
        if let Some(now) = self.moved_since(&read) {
            (read.stage, read.member_try, read.refused) = (Stage::Record(now), 0, None);
            read.rotten = None;
            self.reads_waiting.push_front(read);
            return;
        }
        read.member_try += 1;
        if matches!(error, ReadError::Disk(_)) {
            read.refused = Some(error.clone());
        }
        let (segment, offset, _) = read.span();
        if self.readers(segment).count() > read.member_try {
            self.reads_waiting.push_front(read);
            return;
        }
        if self.table.get(read.id).is_some() {
            let alarm = Alarm::Unreadable { id: read.id, segment, offset };
            self.events.push_back(Event::Alarm(alarm));
        }
        let error = read.refused.take().unwrap_or(error);
        self.read_failed(&read, error);
    }

    /// Where the record stands now, if it was moved while it was being read: its old segment may
    /// be in use again.
    fn moved_since(&self, read: &Read) -> Option<Place> {
        let Stage::Record(then) = read.stage else { return None };
        let live = self.table.get(read.id)?;
        let now = match read.part {
            Part::Message => live.place(),
            Part::Chunk(n) => *live.chunks().get(index(n))?,
        };
        (now != then).then_some(now)
    }

    fn read_failed(&mut self, read: &Read, error: ReadError) {
        match read.asker {
            Asker::Owner(token) => self.events.push_back(Event::Read { token, result: Err(error) }),
            Asker::Mover => self.move_read_failed(read.id),
            Asker::Sweeper => self.sweep_unreadable(),
        }
    }

    fn read_succeeded(&mut self, read: &Read, data: ReadData) {
        if let (Some(member), Stage::Record(place)) = (read.rotten, &read.stage) {
            let (segment, offset) = (place.segment, place.offset);
            self.events.push_back(Event::Alarm(Alarm::CopyDamaged { member, segment, offset }));
        }
        match read.asker {
            Asker::Owner(token) => self.events.push_back(Event::Read { token, result: Ok(data) }),
            Asker::Mover => self.move_read(read.id, data),
            Asker::Sweeper => {}
        }
    }

    fn assemble(&self, read: &Read, bytes: &[u8]) -> Option<ReadData> {
        let header = RecordHeader::decode(bytes)?;
        let body = bytes.get(RECORD_HEADER..RECORD_HEADER + index(header.length))?;
        if !header.covers(body) {
            return None;
        }
        match (RecordKind::of(header.kind)?, read.part) {
            (RecordKind::Message, Part::Message) => {
                let mut message = stored(body)?;
                let mine = message.envelope.id == read.id;
                if let Some(live) = self.table.get(read.id) {
                    refresh(&mut message.envelope, live, read.defer.as_ref());
                }
                mine.then(|| ReadData::Message(Box::new(message)))
            }
            (RecordKind::Chunk, Part::Chunk(n)) => {
                let (head, data) = ChunkHead::split(body).ok()?;
                let mine = head.id == read.id && head.part == n;
                mine.then(|| ReadData::Chunk(data.to_vec()))
            }
            _ => None,
        }
    }
}

impl Read {
    fn span(&self) -> (SegmentRef, u32, usize) {
        match self.stage {
            Stage::Defer(segment, offset, bytes) | Stage::Raw { segment, offset, bytes } => {
                (segment, offset, bytes)
            }
            Stage::Record(p) => (p.segment, p.offset, index(p.length)),
        }
    }
}

/// A DEFER from its first bytes; `Err(Some(n))` when `n` bytes are needed.
fn read_defer(bytes: &[u8], id: TransactionId) -> Result<Defer, Option<usize>> {
    let header = RecordHeader::decode(bytes).ok_or(None)?;
    let whole = RECORD_HEADER + index(header.length);
    if header.kind != RecordKind::Defer as u8 || whole > RECORD_HEADER + CONTROL_BYTES_MAX {
        return Err(None);
    }
    let body = bytes.get(RECORD_HEADER..whole).ok_or(Some(whole))?;
    if !header.covers(body) {
        return Err(None);
    }
    match Change::decode(header.kind, body) {
        Ok(Some(Change::Defer(defer))) if defer.target.id == id => Ok(defer),
        _ => Err(None),
    }
}

/// A message from the body of its MSG.
pub(crate) fn stored(body: &[u8]) -> Option<StoredMessage> {
    let parts = MessageHead::split(body).ok()?;
    Some(StoredMessage {
        envelope: Envelope::decode(parts.envelope).ok()?,
        header: parts.header.to_vec(),
        chunks: parts.head.chunks,
        tail: parts.inline.to_vec(),
        body_octets: parts.head.body,
    })
}

/// What a copy says of the tries so far: the DEFER that said it is left behind.
pub(crate) fn carry(envelope: &mut Envelope, live: &Live) {
    for r in &mut envelope.recipients {
        r.tries = r.tries.max(live.tries);
    }
    envelope.next_wall_us = u64::from(live.next_wall_s) * 1_000_000;
}

/// The envelope with what became of it since it was written.
pub(crate) fn refresh(envelope: &mut Envelope, live: &Live, defer: Option<&Defer>) {
    envelope.flags = envelope.flags & !crate::message::flags::HELD | live.flags();
    if let Some(defer) = defer {
        envelope.next_wall_us = defer.next_wall_us;
        for result in &defer.results {
            let Some(r) = envelope.recipients.get_mut(usize::from(result.recipient)) else {
                continue;
            };
            r.reply.clone_from(&result.reply);
            r.tries = result.tries.max(defer.tries);
            r.tier = result.tier.max(defer.tier);
            if !result.route.is_empty() {
                r.route.clone_from(&result.route);
            }
        }
    }
    for (n, state) in live.settled() {
        if let Some(r) = envelope.recipients.get_mut(usize::from(*n)) {
            r.state = *state;
        }
    }
    for (n, address) in live.redirects() {
        if let Some(r) = envelope.recipients.get_mut(usize::from(*n)) {
            r.routed.clone_from(address);
        }
    }
    use crate::record::RecipientState::{Held, Pending};
    for r in envelope.recipients.iter_mut().filter(|r| !r.state.is_final()) {
        r.state = if live.is_held() { Held } else { Pending };
    }
}
