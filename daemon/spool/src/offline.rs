//! A spool that no daemon holds: list, show, verify.
//!
//! *Guarantees*: reads only.

use crate::bytes::index;
use crate::disk::Device;
use crate::fetch;
use crate::id::TransactionId;
use crate::limits::BLOCK;
use crate::live::{Live, Place, Table};
use crate::log::{StoredMessage, refresh, stored};
use crate::record::{ChunkHead, RecordKind};
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
        let body = fetch::record(&mut self.set, place, RecordKind::Message)
            .ok_or_else(|| damaged(place))?;
        let mut message = stored(&body).ok_or_else(|| damaged(place))?;
        let mut whole = Vec::new();
        for chunk in chunks {
            let body = fetch::record(&mut self.set, chunk, RecordKind::Chunk)
                .ok_or_else(|| damaged(chunk))?;
            let (_, data) = ChunkHead::split(&body).map_err(|_| damaged(chunk))?;
            whole.extend_from_slice(data);
        }
        whole.append(&mut message.tail);
        (message.tail, message.chunks) = (whole, 0);
        let defer = defer.and_then(|(at, offset)| fetch::defer(&mut self.set, at, offset));
        let live = self.live.get(id).ok_or(ShowError::Unknown)?;
        refresh(&mut message.envelope, live, defer.as_ref());
        Ok(message)
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
