//! Sealed segments read whole, copy beside copy: what rotted where nobody looks is found, and
//! healed from the copy that checks.
//!
//! *Guarantees*: only a batch that checks as a whole is written, over one that does not, at the
//! same place of the same use of the segment.
//!
//! *Not here*: unsealed segments; recovery reads and heals those.

use crate::bytes::{index, len64};
use crate::disk::Device;
use crate::index::{IndexItem, IndexWalk, Trailer};
use crate::limits::BLOCK;
use crate::scan;
use crate::segment::{SegmentHeader, SegmentRef};
use crate::set::Set;
use crate::survey::{Damage, DamageKind};

/// Looks through one segment; with `heal` writes what another copy has. `found` says what does not
/// check (and did not, if it was healed).
pub(crate) fn segment<D: Device>(
    set: &mut Set<D>,
    at: SegmentRef,
    heal: bool,
    found: &mut Vec<Damage>,
) {
    let size = index(set.segment_bytes());
    let log = set.logs[usize::from(at.column())];
    let mut copies: Vec<(u16, Vec<u8>)> = Vec::new();
    for member in set.column_members(at.column()).into_iter().flatten() {
        let mut bytes = vec![0; size];
        // A place that cannot be read holds nothing that checks.
        for (n, block) in bytes.chunks_mut(BLOCK).enumerate() {
            if set.read(member, at, n * BLOCK, block).is_err() {
                block.fill(0);
            }
        }
        copies.push((member, bytes));
    }
    let sealed = copies.iter().find_map(|(_, bytes)| sealed(bytes, log, at));
    let Some((header, records)) = sealed else { return };
    for item in IndexWalk::new(&records).flatten() {
        let IndexItem::Batch(batch) = item else { continue };
        let start = index(batch.offset);
        let whole = |bytes: &[u8]| {
            let found = scan::batch_at(bytes, start, &header)?;
            Some(bytes[start..start + index(found.header.bytes)].to_vec())
        };
        let good = copies.iter().find_map(|(_, bytes)| whole(bytes));
        for (member, _) in copies.iter().filter(|(_, bytes)| whole(bytes).is_none()) {
            let device = set.device(*member).map(|d| d.name().to_owned()).unwrap_or_default();
            let offset = at.device_offset(set.segment_bytes()) + len64(start);
            // A place that cannot be written stays as it is.
            let healed = |good: &Vec<u8>| !heal || set.write(*member, at, start, good).is_ok();
            let can = good.as_ref().is_some_and(healed);
            let what = if can { DamageKind::Copy } else { DamageKind::Batch };
            found.push(Damage { device, offset, what });
        }
    }
}

/// Header and footer of a sealed segment, from a copy on which both check.
fn sealed(bytes: &[u8], log: u128, at: SegmentRef) -> Option<(SegmentHeader, Vec<u8>)> {
    let header = SegmentHeader::decode(&bytes[..BLOCK], log, at).ok()?;
    let trailer = Trailer::decode(&bytes[bytes.len() - BLOCK..])
        .filter(|t| (t.log, t.segment, t.epoch) == (log, at, header.epoch))?;
    let footer = &bytes[bytes.len().checked_sub(index(trailer.bytes))?..];
    Some((header, trailer.records(footer)?.to_vec()))
}
