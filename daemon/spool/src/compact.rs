//! Putting nearly empty segments together before a start, so that crashes never use a log up.
//!
//! Each start opens fresh segments and never appends to a recovered one: after a few crashes in
//! a row all segments may be in use with little in each. What still counts in several of them is
//! then gathered in one free segment, and they are opened anew.
//!
//! *Guarantees*: all or nothing. The segment being filled bears the mark *unfinished*, and counts
//! as empty until everything in it is durable and the mark is taken off; only then are the others
//! reopened. A crash at any point repeats it. Its run is before that of the cores. One segment of
//! a set that is large enough is given to no core (`recovery`), so that there is always one to
//! gather in.
//!
//! *Limits*: one segment is filled at a time. What does not fit, does not check, or keeps an older
//! copy from coming back stays where it is.

use std::collections::{HashMap, HashSet};

use crate::batch::{BatchHeader, Filling};
use crate::bytes::{index, len32, len64, round_up};
use crate::disk::Device;
use crate::fetch;
use crate::id::TransactionId;
use crate::index::{IndexItem, IndexWalk, Summary, Trailer, footer_bytes};
use crate::leave::Leaving;
use crate::ledger::Ledger;
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_HEADER, BLOCK, FOOTER_BYTES_MAX, RECORD_ALIGN, RECORD_HEADER,
};
use crate::live::{Live, Place};
use crate::log::{StoredMessage, carry, refresh, stored};
use crate::message::MessageHead;
use crate::received;
use crate::record::{Change, ChunkHead, RecordKind, Target};
use crate::replay::Replayed;
use crate::scan::{self, Found};
use crate::segment::{SegmentHeader, SegmentKind, SegmentRef};
use crate::set::{Set, SetError};
use crate::superblock::Format;
use crate::survey::{SegmentFound, Survey};

/// Numbers of the cores that such segments name: no core has them.
const CORE: u16 = 0x8000;
/// Bytes by which a message may grow when its state of today is written with it, and its MOVE.
const GROWTH: u64 = 512;
/// Segments gathered in one.
const SOURCES_MAX: usize = 64;

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// There are enough free segments, or no more can be won.
    Nothing,
    /// The set has changed: look at it again.
    Gathered,
}

/// Gives up what an interrupted run of this left behind. Call it before anything else is written:
/// what is unfinished today must not be finished tomorrow.
pub(crate) fn clear<D: Device>(set: &mut Set<D>, survey: &Survey) -> Result<(), SetError> {
    for found in &survey.segments {
        if let Some(header) = found.header.filter(|h| h.unfinished) {
            // A place that cannot be written stays as it is: unfinished.
            let _ = open(set, &blank(set, found.at, header.epoch, header.opened_wall_us));
        }
    }
    set.sync()
}

/// Segments that were filled in that run.
pub(crate) fn filled(survey: &Survey, run: u32) -> usize {
    let ours = |s: &&SegmentFound| {
        s.is_used() && s.header.is_some_and(|h| h.run == run && h.core >= CORE && !h.unfinished)
    };
    survey.segments.iter().filter(ours).count()
}

/// Gathers once, when fewer than `wanted` segments can be opened.
pub(crate) fn compact<D: Device>(
    set: &mut Set<D>,
    survey: &Survey,
    replayed: &Replayed,
    wanted: usize,
) -> Result<Outcome, SetError> {
    let live = Held::of(replayed);
    let can_open = |i: &usize| live.can_open(&survey.segments[*i], &replayed.waits[*i]);
    let free: Vec<usize> = (0..survey.segments.len()).filter(can_open).collect();
    // An unused one, whose place no reader remembers.
    let target = free.iter().copied().find(|i| !survey.segments[*i].is_used());
    let Some(target) = target.filter(|_| free.len() < wanted) else {
        return Ok(Outcome::Nothing);
    };
    // No newer than what it copies: the clock of today may be wrong.
    let wall_us = survey.newest_wall_us;
    let mut gathering = Gathering { set, survey, replayed, live, wall_us, attempts: 0 };
    let mut sources = gathering.sources(&free);
    while sources.len() > 1 {
        match gathering.fill(target, &sources) {
            Ok(Filled::Done) => return gathering.finish(target, &sources),
            Ok(Filled::Unreadable(at)) => sources.retain(|s| s.at != at),
            Ok(Filled::Full) => {
                sources.pop();
            }
            // The place cannot be written. Nothing has changed: what is in it does not count.
            Err(_) => return Ok(Outcome::Nothing),
        }
    }
    Ok(Outcome::Nothing)
}

/// Which messages each segment holds parts of.
struct Held(HashMap<SegmentRef, Vec<TransactionId>>);

impl Held {
    fn of(replayed: &Replayed) -> Self {
        let mut held: HashMap<SegmentRef, Vec<TransactionId>> = HashMap::new();
        for message in replayed.live.iter() {
            let parts: HashSet<SegmentRef> = places(message).map(|p| p.segment).collect();
            for at in parts {
                held.entry(at).or_default().push(message.id);
            }
        }
        Self(held)
    }

    fn by(&self, at: SegmentRef) -> &[TransactionId] {
        self.0.get(&at).map_or(&[], Vec::as_slice)
    }

    fn can_open(&self, found: &SegmentFound, waits: &[SegmentRef]) -> bool {
        let idle = !found.quarantined && self.by(found.at).is_empty() && waits.is_empty();
        !found.is_used() || idle
    }
}

fn places(message: &Live) -> impl Iterator<Item = Place> {
    std::iter::once(message.place()).chain(message.chunks().iter().copied())
}

/// A segment whose content can go elsewhere.
struct Source {
    at: SegmentRef,
    index: Vec<u8>,
    bytes: u64,
}

enum Filled {
    Done,
    Full,
    Unreadable(SegmentRef),
}

struct Gathering<'a, D> {
    set: &'a mut Set<D>,
    survey: &'a Survey,
    replayed: &'a Replayed,
    live: Held,
    wall_us: u64,
    /// Each is a use of the segment of its own: an earlier one left batches behind.
    attempts: u64,
}

impl<'a, D: Device> Gathering<'a, D> {
    /// The emptiest segments, as many as one can take in.
    fn sources(&mut self, free: &[usize]) -> Vec<Source> {
        let mut all = Vec::new();
        for (i, found) in self.survey.segments.iter().enumerate() {
            if found.is_used() && !found.quarantined && !free.contains(&i) {
                all.extend(self.source(i));
            }
        }
        all.sort_by_key(|s| (s.bytes, s.at));
        let size = len64(index(self.set.segment_bytes()));
        let mut room = size - size / 8;
        let fits = |source: &Source| {
            let left = room.checked_sub(source.bytes);
            room = left.unwrap_or(room);
            left.is_some()
        };
        all.into_iter().take_while(fits).take(SOURCES_MAX).collect()
    }

    fn source(&mut self, i: usize) -> Option<Source> {
        let at = self.survey.segments[i].at;
        let leaving = self.leaving();
        let index = leaving.index(self.set, i).filter(|index| leaving.can_leave(i, index))?;
        let mut bytes = 0;
        for id in self.live.by(at) {
            let message = self.replayed.live.get(*id)?;
            let octets: u64 = places(message).map(|p| u64::from(p.length)).sum();
            bytes += octets + GROWTH;
        }
        for item in IndexWalk::new(&index) {
            if let IndexItem::Other { whole, .. } = item.ok()? {
                bytes += len64(whole.len());
            }
        }
        Some(Source { at, index, bytes })
    }

    fn leaving(&self) -> Leaving<'a> {
        Leaving { survey: self.survey, replayed: self.replayed }
    }

    fn epoch(&self, at: SegmentRef) -> u64 {
        self.leaving().epoch(at)
    }

    /// Of the segment being filled.
    fn header(&self, target: usize) -> SegmentHeader {
        let found = &self.survey.segments[target];
        let blank = blank(self.set, found.at, found.epoch(), self.wall_us);
        SegmentHeader {
            epoch: blank.epoch + self.attempts,
            core: CORE | u16::try_from(target & 0x7fff).expect("fifteen bits"),
            kind: SegmentKind::Cold(0),
            unfinished: true,
            ..blank
        }
    }

    fn fill(&mut self, target: usize, sources: &[Source]) -> Result<Filled, SetError> {
        self.attempts += 1;
        let header = self.header(target);
        open(self.set, &header)?;
        self.set.sync()?;
        let size = index(self.set.segment_bytes());
        let mut writer = Writer::new(header, size, self.set.superblock.format);
        let mut moved = HashSet::new();
        for source in sources {
            for id in self.live.by(source.at).to_vec() {
                if !moved.insert(id) {
                    continue;
                }
                match self.copy(&mut writer, id)? {
                    Some(true) => {}
                    Some(false) => return Ok(Filled::Full),
                    None => return Ok(Filled::Unreadable(source.at)),
                }
            }
        }
        for source in sources {
            for owed in self.leaving().owed(source.at, &source.index, &moved) {
                if !writer.put_verbatim(self.set, &owed.record)? {
                    return Ok(Filled::Full);
                }
            }
        }
        if !writer.seal(self.set)? {
            return Ok(Filled::Full);
        }
        self.set.sync()?;
        Ok(Filled::Done)
    }

    /// Takes the mark off: from then on it counts, and what it took in is dead.
    fn finish(&mut self, target: usize, sources: &[Source]) -> Result<Outcome, SetError> {
        let mut header = self.header(target);
        header.unfinished = false;
        if let Err(error) = open(self.set, &header).and_then(|()| self.set.sync()) {
            // It may count now, or not: it must not, or this start is not one.
            header.epoch += 1;
            header.core = CORE;
            header.kind = SegmentKind::Hot;
            return match open(self.set, &header).and_then(|()| self.set.sync()) {
                Ok(()) => Ok(Outcome::Nothing),
                Err(_) => Err(error),
            };
        }
        for source in sources {
            // One that cannot be opened anew stays, and what counts of it is known to be older.
            let header = blank(self.set, source.at, self.epoch(source.at), self.wall_us);
            let _ = open(self.set, &header);
        }
        self.set.sync()?;
        Ok(Outcome::Gathered)
    }

    /// The message with its state of today; false when there is no room, `None` when it cannot be
    /// read.
    fn copy(&mut self, writer: &mut Writer, id: TransactionId) -> Result<Option<bool>, SetError> {
        let replayed = self.replayed;
        let Some(live) = replayed.live.get(id) else { return Ok(None) };
        let Some(mut message) = self.read(live) else { return Ok(None) };
        let copy = live.copy.saturating_add(1);
        for (part, place) in (0..).zip(live.chunks()) {
            let Some(body) = fetch::record(self.set, *place, RecordKind::Chunk) else {
                return Ok(None);
            };
            let Ok((_, data)) = ChunkHead::split(&body) else { return Ok(None) };
            let head = ChunkHead { id, part, copy };
            if !writer.put(self.set, RecordKind::Chunk, &[&head.to_bytes(), data])? {
                return Ok(Some(false));
            }
        }
        carry(&mut message.envelope, live);
        let mut envelope = Vec::with_capacity(512);
        received::encode(&message.envelope, writer.format, &mut envelope);
        let (header, tail) = (&message.header, &message.tail);
        let sizes = (envelope.len(), header.len(), tail.len());
        let mut head =
            MessageHead::of(sizes.0, sizes.1, sizes.2, message.chunks, message.body_octets);
        head.copy = copy;
        writer.more_index += Summary::of(&message.envelope, &head).encode().len();
        let head = head.stored(writer.format);
        let parts: [&[u8]; 4] = [&head, &envelope, header, tail];
        if !writer.put(self.set, RecordKind::Message, &parts)? {
            return Ok(Some(false));
        }
        let older = Target { id, segment: live.segment, epoch: self.epoch(live.segment) };
        let change = Change::Move(older, copy);
        writer.put(self.set, RecordKind::Move, &[&change.encode()]).map(Some)
    }

    fn read(&mut self, live: &Live) -> Option<StoredMessage> {
        let body = fetch::record(self.set, live.place(), RecordKind::Message)?;
        let mut message = stored(&body).filter(|m| m.envelope.id == live.id)?;
        if index(message.chunks) != live.chunks().len() {
            return None;
        }
        let defer = live.defer_place().and_then(|(at, offset)| fetch::defer(self.set, at, offset));
        refresh(&mut message.envelope, live, defer.as_ref());
        Some(message)
    }
}

/// An empty use of a segment.
fn blank<D: Device>(set: &Set<D>, at: SegmentRef, epoch: u64, wall_us: u64) -> SegmentHeader {
    let run = set.superblock.run;
    SegmentHeader {
        log: set.logs[usize::from(at.column())],
        epoch: epoch.max(u64::from(run) << 24) + 1,
        segment: at,
        run,
        core: CORE,
        kind: SegmentKind::Hot,
        unfinished: false,
        first_batch: 0,
        durable_through: 0,
        opened_wall_us: wall_us,
    }
}

fn open<D: Device>(set: &mut Set<D>, header: &SegmentHeader) -> Result<(), SetError> {
    write(set, header.segment, 0, &header.encode())
}

fn write<D: Device>(
    set: &mut Set<D>,
    at: SegmentRef,
    offset: usize,
    bytes: &[u8],
) -> Result<(), SetError> {
    for member in set.column_members(at.column()).into_iter().flatten() {
        set.write(member, at, offset, bytes)?;
    }
    Ok(())
}

/// Fills one segment, batch by batch.
struct Writer {
    header: SegmentHeader,
    format: Format,
    size: usize,
    offset: usize,
    seq: u64,
    batch: Vec<u8>,
    filling: Filling,
    index: Vec<u8>,
    /// What the footer will say of the batch being filled, at most.
    more_index: usize,
}

impl Writer {
    fn new(header: SegmentHeader, size: usize, format: Format) -> Self {
        Self {
            header,
            format,
            size,
            offset: BLOCK,
            seq: 1,
            batch: vec![0; BATCH_BYTES_MAX],
            filling: Filling::default(),
            index: Vec::new(),
            more_index: 0,
        }
    }

    fn put<D: Device>(
        &mut self,
        set: &mut Set<D>,
        kind: RecordKind,
        parts: &[&[u8]],
    ) -> Result<bool, SetError> {
        let body: usize = parts.iter().map(|part| part.len()).sum();
        let fits = self.makes_room(set, RECORD_HEADER + body)?;
        if fits {
            self.filling.put(&mut self.batch, kind, parts);
        }
        Ok(fits)
    }

    /// False when there is no room.
    fn put_verbatim<D: Device>(
        &mut self,
        set: &mut Set<D>,
        record: &[u8],
    ) -> Result<bool, SetError> {
        let fits = self.makes_room(set, record.len())?;
        if fits {
            self.filling.put_verbatim(&mut self.batch, record);
        }
        Ok(fits)
    }

    fn makes_room<D: Device>(&mut self, set: &mut Set<D>, bytes: usize) -> Result<bool, SetError> {
        let fits = |used: usize| round_up(used + bytes, RECORD_ALIGN) <= BATCH_BYTES_MAX;
        Ok(fits(self.filling.used()) || fits(BATCH_HEADER) && self.flush(set)?)
    }

    fn flush<D: Device>(&mut self, set: &mut Set<D>) -> Result<bool, SetError> {
        let filling = std::mem::take(&mut self.filling);
        if filling.records() == 0 {
            return Ok(true);
        }
        let size = filling.pad(&mut self.batch);
        let bytes = &mut self.batch[..size];
        let header = BatchHeader {
            durable_through: self.seq - 1,
            wall_us: self.header.opened_wall_us,
            block: len32(self.offset / BLOCK),
            log: self.header.log,
            ..filling.header(
                (self.header.segment, self.header.epoch),
                (self.header.run, self.header.core),
                self.seq,
            )
        };
        let crc = header.encode(bytes);
        let found = Found { header, crc, offset: 0 };
        let understood =
            scan::index_batch_at(bytes, &found, len32(self.offset), self.format, &mut self.index)
                .is_ok();
        let footer = footer_bytes(self.index.len());
        if !understood || footer > FOOTER_BYTES_MAX || self.offset + size + footer > self.size {
            return Ok(false);
        }
        write(set, self.header.segment, self.offset, bytes)?;
        self.offset += size;
        self.seq += 1;
        Ok(true)
    }

    fn seal<D: Device>(mut self, set: &mut Set<D>) -> Result<bool, SetError> {
        if !self.flush(set)? {
            return Ok(false);
        }
        let trailer = Trailer {
            log: self.header.log,
            epoch: self.header.epoch,
            segment: self.header.segment,
            bytes: 0,
            used: 0,
            records_crc: 0,
            first_seq: u64::from(self.seq > 1),
            last_seq: self.seq - 1,
            wall_us: self.header.opened_wall_us,
            run: self.header.run,
            core: self.header.core,
            ledger: Ledger::default(),
        };
        let mut footer = vec![0; footer_bytes(self.index.len())];
        let bytes = trailer.encode(&self.index, &mut footer);
        write(set, self.header.segment, self.size - bytes, &footer[..bytes])?;
        Ok(true)
    }
}
