//! A spool that no daemon holds: list, show, verify.
//!
//! *Guarantees*: reads only.

use crate::bytes::index;
use crate::disk::Device;
use crate::id::TransactionId;
use crate::limits::{BLOCK, CONTROL_BYTES_MAX, RECORD_HEADER};
use crate::live::{Live, Place, Table};
use crate::log::{StoredMessage, refresh, stored};
use crate::record::{Change, ChunkHead, Defer, RecordHeader, RecordKind};
use crate::recovery::{Report, inspect};
use crate::scan;
use crate::segment::{SegmentHeader, SegmentRef};
use crate::set::{Set, SetError};
use crate::survey::{Damage, DamageKind};

/// An opened spool.
#[derive(Debug)]
pub struct Offline<D> {
    set: Set<D>,
    live: Table,
    /// What recovery would say.
    pub report: Report,
}

/// Why a message cannot be shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ShowError {
    /// No message of that id needs work here.
    Unknown,
    /// It is there, but does not check.
    Damaged {
        /// Its segment.
        segment: SegmentRef,
        /// Its offset there.
        offset: u32,
    },
}

impl<D: Device> Offline<D> {
    /// Looks through the set.
    ///
    /// # Errors
    /// When something on it is not ours to read.
    pub fn open(mut set: Set<D>) -> Result<Self, SetError> {
        let (live, report) = inspect(&mut set)?;
        Ok(Self { set, live, report })
    }

    /// All messages that need work, in no order.
    pub fn list(&self) -> impl Iterator<Item = &Live> {
        self.live.iter()
    }

    /// A message with the states of today; its whole body is in `tail`.
    ///
    /// # Errors
    /// When it is not there, or does not check.
    pub fn show(&mut self, id: TransactionId) -> Result<StoredMessage, ShowError> {
        let live = self.live.get(id).ok_or(ShowError::Unknown)?;
        let (place, chunks, defer) = (live.place(), live.chunks().to_vec(), live.defer_place());
        let damaged = |p: Place| ShowError::Damaged { segment: p.segment, offset: p.offset };
        let body = self.record(place, RecordKind::Message).ok_or_else(|| damaged(place))?;
        let mut message = stored(&body).ok_or_else(|| damaged(place))?;
        let mut whole = Vec::new();
        for chunk in chunks {
            let body = self.record(chunk, RecordKind::Chunk).ok_or_else(|| damaged(chunk))?;
            let (_, data) = ChunkHead::split(&body).map_err(|_| damaged(chunk))?;
            whole.extend_from_slice(data);
        }
        whole.append(&mut message.tail);
        (message.tail, message.chunks) = (whole, 0);
        let defer = defer.and_then(|(segment, offset)| self.defer(segment, offset));
        let live = self.live.get(id).ok_or(ShowError::Unknown)?;
        refresh(&mut message.envelope, live, defer.as_ref());
        Ok(message)
    }

    fn defer(&mut self, segment: SegmentRef, offset: u32) -> Option<Defer> {
        let length = u32::try_from(RECORD_HEADER).ok()?;
        let head = self.bytes(Place { segment, offset, length })?;
        let length = RecordHeader::decode(&head)?.length;
        if index(length) > CONTROL_BYTES_MAX {
            return None;
        }
        let length = length + u32::try_from(RECORD_HEADER).ok()?;
        let body = self.record(Place { segment, offset, length }, RecordKind::Defer)?;
        match Change::decode(RecordKind::Defer as u8, &body) {
            Ok(Some(Change::Defer(defer))) => Some(defer),
            _ => None,
        }
    }

    /// The body of a record, from whichever copy checks.
    fn record(&mut self, place: Place, kind: RecordKind) -> Option<Vec<u8>> {
        let whole = self.bytes(place)?;
        let header = RecordHeader::decode(&whole)?;
        let body = whole.get(RECORD_HEADER..)?;
        (header.kind == kind as u8 && header.covers(body)).then(|| body.to_vec())
    }

    fn bytes(&mut self, place: Place) -> Option<Vec<u8>> {
        let start = index(place.offset) / BLOCK * BLOCK;
        let end = (index(place.offset) + index(place.length)).next_multiple_of(BLOCK);
        if end > index(self.set.segment_bytes()) {
            return None;
        }
        let mut bytes = vec![0; end - start];
        let from = index(place.offset) - start;
        for member in self.set.column_members(place.segment.column()).into_iter().flatten() {
            if self.set.read(member, place.segment, start, &mut bytes).is_err() {
                continue;
            }
            let record = &bytes[from..from + index(place.length)];
            let checks = RecordHeader::decode(record)
                .is_some_and(|h| record.get(RECORD_HEADER..).is_some_and(|b| h.covers(b)));
            if checks || index(place.length) == RECORD_HEADER {
                return Some(record.to_vec());
            }
        }
        None
    }

    /// Reads everything, sealed segments too, on every copy. Returns what does not check, on top
    /// of what `report` says.
    ///
    /// # Errors
    /// When a device cannot be read at all.
    pub fn verify(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<Damage>, SetError> {
        let mut damage = Vec::new();
        let segments = self.set.superblock.segments;
        let columns = u8::try_from(self.set.logs.len()).expect("at most MEMBERS_MAX");
        let total = u64::from(columns) * u64::from(segments);
        for column in 0..columns {
            for n in 0..segments {
                let at = SegmentRef::new(column, n);
                for member in self.set.column_members(column).into_iter().flatten() {
                    self.verify_segment(member, at, &mut damage)?;
                }
                progress(u64::from(column) * u64::from(segments) + u64::from(n) + 1, total);
            }
        }
        Ok(damage)
    }

    fn verify_segment(
        &mut self,
        member: u16,
        at: SegmentRef,
        damage: &mut Vec<Damage>,
    ) -> Result<(), SetError> {
        let size = index(self.set.segment_bytes());
        let mut bytes = vec![0; size];
        self.set.read(member, at, 0, &mut bytes)?;
        let log = self.set.logs[usize::from(at.column())];
        let Ok(header) = SegmentHeader::decode(&bytes[..BLOCK], log, at) else { return Ok(()) };
        let trailer = crate::index::Trailer::decode(&bytes[size - BLOCK..])
            .filter(|t| (t.segment, t.epoch) == (at, header.epoch));
        let Some(trailer) = trailer else { return Ok(()) };
        let footer = &bytes[size - index(trailer.bytes)..];
        let Some(records) = trailer.records(footer) else { return Ok(()) };
        for item in crate::index::IndexWalk::new(records).flatten() {
            let crate::index::IndexItem::Batch(batch) = item else { continue };
            if scan::batch_at(&bytes, index(batch.offset), &header).is_none() {
                let offset = at.device_offset(self.set.segment_bytes()) + u64::from(batch.offset);
                let device = self.set.device(member).map(|d| d.name().to_owned());
                let device = device.unwrap_or_default();
                damage.push(Damage { device, offset, what: DamageKind::Batch });
            }
        }
        Ok(())
    }
}
