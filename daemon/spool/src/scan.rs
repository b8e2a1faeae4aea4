//! Reading a segment: by its footer when it is sealed, else batch by batch.
//!
//! *Guarantees*: whatever the bytes are, the walk ends, and only whole batches of this log, this
//! segment and this epoch come out of it.

use crate::batch::{BatchHeader, Records, is_whole};
use crate::bytes::{index, len32};
use crate::index::{IndexBatch, IndexChunk, IndexLines, Summary};
use crate::limits::BLOCK;
use crate::message::{Envelope, MessageHead};
use crate::record::{ChunkHead, FLAG_CRITICAL, RecordKind};
use crate::segment::SegmentHeader;
use crate::superblock::Format;

/// A whole batch found in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its header.
    pub header: BatchHeader,
    /// Checksum of the header.
    pub crc: u32,
    /// Its offset in the segment.
    pub offset: u32,
}

/// All whole batches of a segment, in the order of their places. `bytes` is the whole segment.
#[must_use]
pub fn batches(bytes: &[u8], segment: &SegmentHeader) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = BLOCK;
    while at < bytes.len() {
        match batch_at(bytes, at, segment) {
            Some(batch) => {
                at += index(batch.header.bytes);
                found.push(batch);
            }
            None => at += BLOCK,
        }
    }
    found
}

/// The whole batch at that offset, if there is one.
#[must_use]
pub fn batch_at(bytes: &[u8], at: usize, segment: &SegmentHeader) -> Option<Found> {
    let rest = bytes.get(at..)?;
    let (header, crc) = BatchHeader::decode(rest)?;
    let ours = header.log == segment.log
        && header.segment == segment.segment
        && header.epoch == segment.epoch
        && header.run == segment.run
        && header.core == segment.core
        // 0: not said, by whoever wrote before there was this field.
        && (header.block == 0 || index(header.block) * BLOCK == at);
    (ours && is_whole(rest, &header)).then_some(Found { header, crc, offset: len32(at) })
}

/// A record that must not be ignored, and is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownCritical {
    /// Its type.
    pub kind: u8,
    /// Its offset in the segment.
    pub offset: u32,
}

/// Appends what a footer of that format says of that batch, which stands at `offset` of its
/// segment; `bytes` begins with it. Returns the offsets of messages that check but cannot be
/// understood.
///
/// # Errors
/// On an unknown critical record.
pub fn index_batch_at(
    bytes: &[u8],
    found: &Found,
    offset: u32,
    format: Format,
    out: &mut Vec<u8>,
) -> Result<Vec<u32>, UnknownCritical> {
    let at = offset;
    let header = &found.header;
    let batch = IndexBatch {
        seq: header.seq,
        offset: at,
        stale_segment: header.stale_segment,
        stale_epoch: header.stale_epoch,
        attempt: header.attempt,
    };
    let mut lines = IndexLines::new(out, format, &batch);
    let mut strange = Vec::new();
    for record in Records::new(bytes, header).flatten() {
        let offset = at + record.offset;
        let length = len32(record.whole.len());
        // Keeps the places of the records behind it right, and says nothing.
        let blank = IndexChunk { head: ChunkHead::BLANK, offset, length };
        match RecordKind::of(record.header.kind) {
            Some(RecordKind::Message) => match summary(record.body) {
                Some(mut summary) => {
                    (summary.offset, summary.length) = (offset, length);
                    lines.message(&summary);
                }
                None => {
                    strange.push(offset);
                    lines.chunk(&blank);
                }
            },
            Some(RecordKind::Chunk) => {
                let head = ChunkHead::split(record.body).map_or(ChunkHead::BLANK, |(h, _)| h);
                lines.chunk(&IndexChunk { head, offset, length });
            }
            Some(RecordKind::IndexBatch | RecordKind::IndexMessage | RecordKind::IndexChunk) => {
                lines.chunk(&blank);
            }
            Some(_) => lines.other(record.whole),
            None if record.header.flags & FLAG_CRITICAL != 0 => {
                return Err(UnknownCritical { kind: record.header.kind, offset });
            }
            None => lines.other(record.whole),
        }
    }
    Ok(strange)
}

fn summary(body: &[u8]) -> Option<Summary> {
    let parts = MessageHead::split(body).ok()?;
    let envelope = Envelope::decode(parts.envelope).ok()?;
    Some(Summary::of(&envelope, &parts.head))
}
