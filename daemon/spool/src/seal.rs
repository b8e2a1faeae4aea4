//! Footers for what a cut left open: each start reads those segments whole, once.
//!
//! *Guarantees*: written after the end of the log was made durable (what does not count is struck
//! out by then) and after the run was raised, so that a footer never speaks of a batch that counts
//! for nothing. A crash in the middle leaves segments that the next start reads whole, as this one
//! did.
//!
//! *Failure*: a place that cannot be written stays as it is.

use crate::bytes::index;
use crate::disk::Device;
use crate::index::{Trailer, footer_bytes};
use crate::limits::{BLOCK, FOOTER_BYTES_MAX};
use crate::set::Set;
use crate::survey::{SegmentFound, Survey};

/// Opened, without a footer, and nothing in it is in doubt.
pub(crate) fn unsealed(survey: &Survey) -> impl Iterator<Item = &SegmentFound> {
    survey.segments.iter().filter(|found| {
        let open = found.header.is_some_and(|header| !header.unfinished);
        open && found.footer.is_none() && !found.quarantined
    })
}

/// Writes the footers that are missing, on all copies.
pub(crate) fn seal<D: Device>(set: &mut Set<D>, survey: &Survey) {
    for found in unsealed(survey) {
        let (Some(header), Some(records)) = (found.header, &found.index) else { continue };
        let size = index(set.segment_bytes());
        let bytes = footer_bytes(records.len());
        let end = found.batches.iter().map(|b| index(b.offset) + index(b.header.bytes)).max();
        if bytes > FOOTER_BYTES_MAX || end.unwrap_or(BLOCK) + bytes > size {
            continue;
        }
        let last = found.batches.iter().max_by_key(|b| b.header.seq).map(|b| b.header);
        let trailer = Trailer {
            log: header.log,
            epoch: header.epoch,
            segment: found.at,
            bytes: 0,
            used: 0,
            records_crc: 0,
            first_seq: found.first_seq(),
            last_seq: last.map_or(0, |b| b.seq),
            wall_us: last.map_or(0, |b| b.wall_us),
            run: header.run,
            core: header.core,
            ledger: last.map(|b| b.ledger).unwrap_or_default(),
        };
        let mut footer = vec![0; bytes];
        trailer.encode(records, &mut footer);
        for member in set.column_members(found.at.column()).into_iter().flatten() {
            let _ = set.write(member, found.at, size - bytes, &footer);
        }
    }
}
