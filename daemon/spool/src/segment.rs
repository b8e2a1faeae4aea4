//! Segments: how they are addressed, and the header that opens one.
//!
//! *Guarantees*: without a valid header nothing in a segment is read; the epoch changes with
//! each reuse, so no batch of an earlier use can pass for one of this use; the segment's own
//! number stands in it, so a segment copied over another is seen.

use crate::bytes::{Malformed, Reader};
use crate::limits::{BLOCK, HEAD_BYTES};

/// First bytes of a segment header.
pub const MAGIC: [u8; 8] = *b"RPSEGM01";
const CRC_AT: usize = 508;
/// Kind of a segment that a recovery is filling.
const UNFINISHED: u8 = 2;

/// A segment of a set: column in the upper 8 bits, number on the device in the lower 24.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SegmentRef(pub u32);

impl SegmentRef {
    /// No segment.
    pub const NONE: Self = Self(u32::MAX);

    /// The n-th segment of a column.
    #[must_use]
    pub fn new(column: u8, n: u32) -> Self {
        Self(u32::from(column) << 24 | (n & 0x00ff_ffff))
    }

    /// The column of the stripe.
    #[must_use]
    pub fn column(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// Its number on the device.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0 & 0x00ff_ffff
    }

    /// Where it begins on its device.
    #[must_use]
    pub fn device_offset(self, segment_bytes: u32) -> u64 {
        HEAD_BYTES + u64::from(self.number()) * u64::from(segment_bytes)
    }
}

/// What a segment is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SegmentKind {
    /// New mail and all changes.
    #[default]
    Hot,
    /// Deferred mail, sorted by when it dies: the bucket's number.
    Cold(u8),
}

/// The durable 4 KiB header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// The log it belongs to.
    pub log: u128,
    /// Which use of this segment: grows with each.
    pub epoch: u64,
    /// Itself.
    pub segment: SegmentRef,
    /// Run that opened it.
    pub run: u32,
    /// Core that opened it.
    pub core: u16,
    /// Hot or cold.
    pub kind: SegmentKind,
    /// A recovery is filling it: until it says that all is there, nothing in it counts.
    pub unfinished: bool,
    /// No batch before this one stands in it.
    pub first_batch: u64,
    /// Every batch of this run and core up to this one was durable when it was opened.
    pub durable_through: u64,
    /// Wall time of opening.
    pub opened_wall_us: u64,
}

/// Why a block is not a segment header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadHeader {
    /// Never used, or torn while being opened: nothing to read.
    Blank,
    /// Magic or checksum wrong.
    Damaged,
    /// Written for another log.
    OtherLog,
    /// Written for another place of this log.
    Swapped(SegmentRef),
}

impl SegmentHeader {
    /// The 4 KiB block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut b = Vec::with_capacity(BLOCK);
        b.extend_from_slice(&MAGIC);
        b.extend_from_slice(&self.log.to_le_bytes());
        b.extend_from_slice(&self.epoch.to_le_bytes());
        b.extend_from_slice(&self.segment.0.to_le_bytes());
        b.extend_from_slice(&self.run.to_le_bytes());
        b.extend_from_slice(&self.core.to_le_bytes());
        let (kind, bucket) = match self.kind {
            _ if self.unfinished => (UNFINISHED, 0),
            SegmentKind::Hot => (0, 0),
            SegmentKind::Cold(bucket) => (1, bucket),
        };
        b.extend_from_slice(&[kind, bucket]);
        b.extend_from_slice(&self.first_batch.to_le_bytes());
        b.extend_from_slice(&self.durable_through.to_le_bytes());
        b.extend_from_slice(&self.opened_wall_us.to_le_bytes());
        b.resize(CRC_AT, 0);
        let crc = crc32c::crc32c(&b);
        b.extend_from_slice(&crc.to_le_bytes());
        b.resize(BLOCK, 0);
        b
    }

    /// Reads the first block of segment `at` of log `log`.
    ///
    /// # Errors
    /// Says what the block is instead.
    pub fn decode(block: &[u8], log: u128, at: SegmentRef) -> Result<Self, BadHeader> {
        if block.len() < BLOCK || block[..512].iter().all(|b| *b == 0) {
            return Err(BadHeader::Blank);
        }
        let crc = u32::from_le_bytes([block[508], block[509], block[510], block[511]]);
        if block[..8] != MAGIC || crc32c::crc32c(&block[..CRC_AT]) != crc {
            return Err(BadHeader::Damaged);
        }
        let header = Self::read(&mut Reader::new(&block[8..])).map_err(|_| BadHeader::Damaged)?;
        if header.log != log {
            return Err(BadHeader::OtherLog);
        }
        if header.segment != at {
            return Err(BadHeader::Swapped(header.segment));
        }
        Ok(header)
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (log, epoch, segment) = (r.u128()?, r.u64()?, SegmentRef(r.u32()?));
        let (run, core, kind, bucket) = (r.u32()?, r.u16()?, r.u8()?, r.u8()?);
        Ok(Self {
            log,
            epoch,
            segment,
            run,
            core,
            kind: match kind {
                0 => SegmentKind::Hot,
                1 => SegmentKind::Cold(bucket),
                UNFINISHED => SegmentKind::default(),
                _ => return Err(Malformed),
            },
            unfinished: kind == UNFINISHED,
            first_batch: r.u64()?,
            durable_through: r.u64()?,
            opened_wall_us: r.u64()?,
        })
    }
}
