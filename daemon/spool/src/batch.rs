//! A batch: what one write makes durable.
//!
//! *Guarantees*: a batch is whole or not there. The header's checksum covers the header, the
//! payload checksum covers the record headers, and each record header covers its record: every
//! byte is summed once. The header names the place and checksum of the batch before it.
//!
//! *Limits*: 4 KiB aligned, at most `BATCH_BYTES_MAX`.

use crate::bytes::{Malformed, Reader, index, len32, round_up};
use crate::ledger::{LEDGER_BYTES, Ledger};
use crate::limits::{BATCH_BYTES_MAX, BATCH_HEADER, BLOCK, RECORD_ALIGN, RECORD_HEADER};
use crate::record::{RecordHeader, RecordKind};
use crate::segment::SegmentRef;

/// First bytes of a batch.
pub const MAGIC: [u8; 8] = *b"RPBATCH1";
const CRC_AT: usize = BATCH_HEADER - 4;
const BODY: usize =
    8 + 16 + 8 + 4 + 4 + 2 + 2 + 8 + 8 + 4 + 4 + 4 + 4 + 4 + 4 + 8 + 8 + LEDGER_BYTES + 8 + 4 + 4;
const _: () = assert!(BODY == 188 && BODY <= CRC_AT);

/// Header of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    /// The log.
    pub log: u128,
    /// Epoch of the segment it stands in.
    pub epoch: u64,
    /// The segment it stands in.
    pub segment: SegmentRef,
    /// Run that wrote it.
    pub run: u32,
    /// Core that wrote it.
    pub core: u16,
    /// How often it was written elsewhere before, after an error.
    pub attempt: u16,
    /// Its number: 1, 2, 3 ... in this run of this core, over all segments.
    pub seq: u64,
    /// Every batch up to this number was durable when this one was made.
    pub durable_through: u64,
    /// Bytes with header and padding.
    pub bytes: u32,
    /// Records in it.
    pub records: u32,
    /// Checksum of the header of batch `seq - 1`; 0 for the first.
    pub previous_crc: u32,
    /// Segment of batch `seq - 1`.
    pub previous_segment: SegmentRef,
    /// Its offset there, in blocks.
    pub previous_block: u32,
    /// Segment in which a failed attempt at this batch may stand.
    pub stale_segment: SegmentRef,
    /// Epoch of `previous_segment`.
    pub previous_epoch: u64,
    /// Epoch of `stale_segment`.
    pub stale_epoch: u64,
    /// The ledger with this batch, as change since the start of the run.
    pub ledger: Ledger,
    /// Wall time when it was made.
    pub wall_us: u64,
    /// Checksum over the record headers.
    pub payload_crc: u32,
    /// Its own offset in the segment, in blocks: one that a device wrote elsewhere does not count.
    pub block: u32,
}

/// Attempt of a batch that recovery struck out.
const STRUCK: u16 = u16::MAX;

impl BatchHeader {
    /// What recovery puts in the place of a batch that does not count: nothing, but what the
    /// batch said was durable when it was made. (The next recovery may have nobody else to ask.)
    #[must_use]
    pub fn struck(&self) -> Self {
        Self { attempt: STRUCK, bytes: len32(BLOCK), records: 0, payload_crc: 0, ..*self }
    }

    /// It was struck out.
    #[must_use]
    pub fn is_struck(&self) -> bool {
        self.attempt == STRUCK
    }

    /// Writes the header into the first bytes of the batch and returns its checksum.
    ///
    /// # Panics
    /// When `out` is shorter than a header.
    pub fn encode(&self, out: &mut [u8]) -> u32 {
        let mut b = Vec::with_capacity(BATCH_HEADER);
        b.extend_from_slice(&MAGIC);
        b.extend_from_slice(&self.log.to_le_bytes());
        b.extend_from_slice(&self.epoch.to_le_bytes());
        b.extend_from_slice(&self.segment.0.to_le_bytes());
        b.extend_from_slice(&self.run.to_le_bytes());
        b.extend_from_slice(&self.core.to_le_bytes());
        b.extend_from_slice(&self.attempt.to_le_bytes());
        b.extend_from_slice(&self.seq.to_le_bytes());
        b.extend_from_slice(&self.durable_through.to_le_bytes());
        for v in [
            self.bytes,
            self.records,
            self.previous_crc,
            self.previous_segment.0,
            self.previous_block,
            self.stale_segment.0,
        ] {
            b.extend_from_slice(&v.to_le_bytes());
        }
        b.extend_from_slice(&self.previous_epoch.to_le_bytes());
        b.extend_from_slice(&self.stale_epoch.to_le_bytes());
        b.extend_from_slice(&self.ledger.to_bytes());
        b.extend_from_slice(&self.wall_us.to_le_bytes());
        b.extend_from_slice(&self.payload_crc.to_le_bytes());
        b.extend_from_slice(&self.block.to_le_bytes());
        b.resize(CRC_AT, 0);
        let crc = crc32c::crc32c(&b);
        b.extend_from_slice(&crc.to_le_bytes());
        out[..BATCH_HEADER].copy_from_slice(&b);
        crc
    }

    /// Reads a header; `None` when the bytes are no batch header.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<(Self, u32)> {
        let head = bytes.get(..BATCH_HEADER)?;
        if head[..8] != MAGIC {
            return None;
        }
        let crc = u32::from_le_bytes(head[CRC_AT..].try_into().ok()?);
        if crc32c::crc32c(&head[..CRC_AT]) != crc {
            return None;
        }
        let header = Self::read(&mut Reader::new(&head[8..])).ok()?;
        let size = index(header.bytes);
        let sane = size.is_multiple_of(BLOCK) && (BLOCK..=BATCH_BYTES_MAX).contains(&size);
        sane.then_some((header, crc))
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            log: r.u128()?,
            epoch: r.u64()?,
            segment: SegmentRef(r.u32()?),
            run: r.u32()?,
            core: r.u16()?,
            attempt: r.u16()?,
            seq: r.u64()?,
            durable_through: r.u64()?,
            bytes: r.u32()?,
            records: r.u32()?,
            previous_crc: r.u32()?,
            previous_segment: SegmentRef(r.u32()?),
            previous_block: r.u32()?,
            stale_segment: SegmentRef(r.u32()?),
            previous_epoch: r.u64()?,
            stale_epoch: r.u64()?,
            ledger: Ledger::read(r)?,
            wall_us: r.u64()?,
            payload_crc: r.u32()?,
            block: r.u32()?,
        })
    }
}

/// Records being put in a batch, one behind the other, in a buffer that others hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filling {
    used: usize,
    records: u32,
    payload_crc: u32,
}

impl Default for Filling {
    fn default() -> Self {
        Self { used: BATCH_HEADER, records: 0, payload_crc: 0 }
    }
}

impl Filling {
    /// Bytes so far, with the header's.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    pub(crate) fn records(&self) -> u32 {
        self.records
    }

    /// A record from its parts; there is room for it.
    pub(crate) fn put(&mut self, out: &mut [u8], kind: RecordKind, parts: &[&[u8]]) {
        let start = self.used;
        let mut at = start + RECORD_HEADER;
        for part in parts {
            out[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        let header = RecordHeader::of(kind, &out[start + RECORD_HEADER..at]);
        out[start..start + RECORD_HEADER].copy_from_slice(&header.to_bytes());
        self.finish(out, start, at);
    }

    /// A record as it stood elsewhere; there is room for it.
    pub(crate) fn put_verbatim(&mut self, out: &mut [u8], record: &[u8]) {
        let start = self.used;
        let end = start + record.len();
        out[start..end].copy_from_slice(record);
        self.finish(out, start, end);
    }

    fn finish(&mut self, out: &mut [u8], start: usize, end: usize) {
        let aligned = round_up(end, RECORD_ALIGN);
        out[end..aligned].fill(0);
        let head = &out[start..start + RECORD_HEADER];
        self.payload_crc = crc32c::crc32c_append(self.payload_crc, head);
        self.used = aligned;
        self.records += 1;
    }

    /// Zeros up to whole blocks; returns the batch's bytes.
    pub(crate) fn pad(&self, out: &mut [u8]) -> usize {
        let bytes = round_up(self.used, BLOCK);
        out[self.used..bytes].fill(0);
        bytes
    }

    /// The header of a first attempt in that use of a segment, written in that run by that core.
    /// Log, place and what was before it are still to be said.
    pub(crate) fn header(
        &self,
        (segment, epoch): (SegmentRef, u64),
        (run, core): (u32, u16),
        seq: u64,
    ) -> BatchHeader {
        BatchHeader {
            log: 0,
            epoch,
            segment,
            run,
            core,
            attempt: 0,
            seq,
            durable_through: 0,
            bytes: len32(round_up(self.used, BLOCK)),
            records: self.records,
            previous_crc: 0,
            previous_segment: SegmentRef::NONE,
            previous_block: 0,
            stale_segment: SegmentRef::NONE,
            previous_epoch: 0,
            stale_epoch: 0,
            ledger: Ledger::default(),
            wall_us: 0,
            payload_crc: self.payload_crc,
            block: 0,
        }
    }
}

/// Walks the records of a batch.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u32,
}

/// One record as it stands in its batch.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// Its header.
    pub header: RecordHeader,
    /// Offset in the batch of the record header.
    pub offset: u32,
    /// The bytes behind the header.
    pub body: &'a [u8],
    /// Header and body.
    pub whole: &'a [u8],
}

impl<'a> Records<'a> {
    /// `batch` begins with its header.
    #[must_use]
    pub fn new(batch: &'a [u8], header: &BatchHeader) -> Self {
        let end = index(header.bytes).min(batch.len());
        Self { bytes: &batch[..end], at: BATCH_HEADER, left: header.records }
    }
}

impl<'a> Iterator for Records<'a> {
    /// `Err` once when the walk leaves the batch.
    type Item = Result<RecordView<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let view = view(self.bytes, self.at);
        match &view {
            Ok(v) => self.at = round_up(self.at + v.whole.len(), RECORD_ALIGN),
            Err(_) => self.left = 0,
        }
        Some(view)
    }
}

fn view(bytes: &[u8], at: usize) -> Result<RecordView<'_>, Malformed> {
    let rest = bytes.get(at..).ok_or(Malformed)?;
    let header = RecordHeader::decode(rest).ok_or(Malformed)?;
    let whole = rest.get(..RECORD_HEADER + index(header.length)).ok_or(Malformed)?;
    Ok(RecordView { header, offset: len32(at), body: &whole[RECORD_HEADER..], whole })
}

/// The payload checksum: over all record headers, which cover their records.
///
/// # Errors
/// When the records do not fill the batch as the header says.
pub fn payload_crc(batch: &[u8], header: &BatchHeader) -> Result<u32, Malformed> {
    let mut crc = 0;
    for record in Records::new(batch, header) {
        crc = crc32c::crc32c_append(crc, &record?.whole[..RECORD_HEADER]);
    }
    Ok(crc)
}

/// True when header, record headers and every record agree with their checksums.
#[must_use]
pub fn is_whole(batch: &[u8], header: &BatchHeader) -> bool {
    batch.len() >= index(header.bytes)
        && payload_crc(batch, header) == Ok(header.payload_crc)
        && Records::new(batch, header).all(|r| r.is_ok_and(|r| r.header.covers(r.body)))
}
