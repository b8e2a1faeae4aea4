//! Records read from a set that no log is open on: for recovery and offline tools.
//!
//! *Guarantees*: what comes back has checked, on one copy or the other.

use crate::bytes::index;
use crate::disk::Device;
use crate::limits::{BLOCK, CONTROL_BYTES_MAX, RECORD_HEADER};
use crate::live::Place;
use crate::record::{Change, Defer, RecordHeader, RecordKind};
use crate::segment::SegmentRef;
use crate::set::Set;

/// The body of a record, from whichever copy checks.
pub(crate) fn record<D: Device>(
    set: &mut Set<D>,
    place: Place,
    kind: RecordKind,
) -> Option<Vec<u8>> {
    let whole = bytes(set, place)?;
    let header = RecordHeader::decode(&whole)?;
    let body = whole.get(RECORD_HEADER..)?;
    (header.kind == kind as u8 && header.covers(body)).then(|| body.to_vec())
}

/// The DEFER at that place.
pub(crate) fn defer<D: Device>(
    set: &mut Set<D>,
    segment: SegmentRef,
    offset: u32,
) -> Option<Defer> {
    let length = u32::try_from(RECORD_HEADER).ok()?;
    let head = bytes(set, Place { segment, offset, length })?;
    let length = RecordHeader::decode(&head)?.length;
    if index(length) > CONTROL_BYTES_MAX {
        return None;
    }
    let length = length + u32::try_from(RECORD_HEADER).ok()?;
    let body = record(set, Place { segment, offset, length }, RecordKind::Defer)?;
    match Change::decode(RecordKind::Defer as u8, &body) {
        Ok(Some(Change::Defer(defer))) => Some(defer),
        _ => None,
    }
}

fn bytes<D: Device>(set: &mut Set<D>, place: Place) -> Option<Vec<u8>> {
    let start = index(place.offset) / BLOCK * BLOCK;
    let end = (index(place.offset) + index(place.length)).next_multiple_of(BLOCK);
    if end > index(set.segment_bytes()) {
        return None;
    }
    let mut bytes = vec![0; end - start];
    let from = index(place.offset) - start;
    for member in set.column_members(place.segment.column()).into_iter().flatten() {
        if set.read(member, place.segment, start, &mut bytes).is_err() {
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
