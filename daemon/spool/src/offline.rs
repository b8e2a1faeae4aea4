//! A spool that no daemon holds: list, show, verify, heal.
//!
//! *Guarantees*: reads only, but for `heal`.

use crate::disk::Device;
use crate::fetch;
use crate::id::TransactionId;
use crate::live::{Live, Place, Table};
use crate::log::{StoredMessage, refresh, stored};
use crate::record::{ChunkHead, RecordKind};
use crate::recovery::{Report, inspect};
use crate::scrub;
use crate::segment::SegmentRef;
use crate::set::{Set, SetError};
use crate::survey::Damage;

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
    /// None today.
    pub fn verify(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<Damage>, SetError> {
        let mut damage = self.report.healed_damage.clone();
        damage.extend(all_segments(&mut self.set, false, progress));
        Ok(damage)
    }
}

/// Heals what does not check on one copy of a mirror, in sealed segments too, from the other one.
/// Returns what did not check; `DamageKind::Copy` is healed, the rest stays.
///
/// # Errors
/// When what was written cannot be made durable.
pub fn heal<D: Device>(
    set: &mut Set<D>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Damage>, SetError> {
    let damage = all_segments(set, true, progress);
    set.sync()?;
    Ok(damage)
}

fn all_segments<D: Device>(
    set: &mut Set<D>,
    heal: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Vec<Damage> {
    let mut damage = Vec::new();
    let segments = set.superblock.segments;
    let columns = u8::try_from(set.logs.len()).expect("at most MEMBERS_MAX");
    let total = u64::from(columns) * u64::from(segments);
    for column in 0..columns {
        for n in 0..segments {
            scrub::segment(set, SegmentRef::new(column, n), heal, &mut damage);
            progress(u64::from(column) * u64::from(segments) + u64::from(n) + 1, total);
        }
    }
    damage
}
