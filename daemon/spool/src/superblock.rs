//! The superblock: which set, which member, which generation, which run.
//!
//! *Guarantees*: four copies; the valid one with the highest sequence counts. Its content lies
//! within the first 512 bytes of its block, so that a torn write leaves the old or the new one.
//!
//! *Failure*: a block that is not ours, of another version or damaged is named as such.

use crate::bytes::{Malformed, Reader};
use crate::ledger::{LEDGER_BYTES, Ledger};
use crate::limits::{
    BLOCK, COPIES_MAX, MEMBERS_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_MAX,
    SEGMENTS_MIN,
};

/// First bytes of a superblock.
pub const MAGIC: [u8; 8] = *b"RINGPOST";

/// In which format a set is written. Each reads what stands there of the ones before it: what
/// differs says so itself, and segments of both are mixed in one set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u16)]
pub enum Format {
    /// Received lines in words, a DONE for each message, a footer of whole records.
    #[default]
    V1 = 1,
    /// Received lines made from the envelope, DONEs together, short lines in the footer.
    V2 = 2,
}

impl Format {
    /// What a new set is written in, and an older one after it was raised.
    pub const NEWEST: Self = Self::V2;

    /// Its number.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The format of that number, if this program knows it.
    #[must_use]
    pub fn of(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }
}

/// Which copies were in step when. Raised before the first 250 given on fewer copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Generation {
    /// Grows by one with each change.
    pub number: u64,
    /// Random: two members that went on alone do not get the same.
    pub id: u128,
    /// The generation this one came from.
    pub parent: u128,
    /// One bit per member that was in step when it was written.
    pub in_step: u64,
}

impl Generation {
    /// The one after it.
    #[must_use]
    pub fn next(self, id: u128, in_step: u64) -> Self {
        Self { number: self.number + 1, id, parent: self.id, in_step }
    }
}

/// What a device says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Superblock {
    /// The format in which the set is written.
    pub format: Format,
    /// Grows by one with each write of the superblock.
    pub sequence: u64,
    /// The set of devices it belongs to.
    pub set: u128,
    /// The log on it; the copies of one column share it.
    pub log: u128,
    /// Node whose mail this is.
    pub node: u16,
    /// Which of the set's members this is: column * copies + copy.
    pub member: u16,
    /// Members in the set.
    pub members: u16,
    /// Copies of each batch: 1 or 2.
    pub copies: u16,
    /// Bytes of one segment.
    pub segment_bytes: u32,
    /// Number of segments.
    pub segments: u32,
    /// Run number of the last start.
    pub run: u32,
    /// Process that holds the log; 0 after a clean end.
    pub owner_pid: u32,
    /// Cores that wrote in that run.
    pub cores: u16,
    /// Durability was switched off by the operator.
    pub volatile: bool,
    /// Wall time of formatting, microseconds since the epoch.
    pub formatted_wall_us: u64,
    /// Wall time of the last start.
    pub started_wall_us: u64,
    /// Generation of the mirror.
    pub generation: Generation,
    /// The ledger as it stood when the run began.
    pub ledger: Ledger,
}

/// Why a block is not a superblock of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadSuperblock {
    /// All zero.
    Blank,
    /// Something else lives here.
    Alien,
    /// Ours, of a version this program does not read.
    Version(u16),
    /// Ours, but the checksum or a value is wrong.
    Damaged,
}

const BODY: usize =
    8 + 2 + 2 + 8 + 16 + 16 + 2 * 4 + 4 * 4 + 2 + 1 + 8 + 8 + 8 + 16 + 16 + 8 + LEDGER_BYTES;
const CRC_AT: usize = 508;
const _: () = assert!(BODY == 215 && BODY <= CRC_AT);

impl Superblock {
    /// The 4 KiB block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut b = Vec::with_capacity(BLOCK);
        b.extend_from_slice(&MAGIC);
        b.extend_from_slice(&self.format.number().to_le_bytes());
        b.extend_from_slice(&0u16.to_le_bytes());
        b.extend_from_slice(&self.sequence.to_le_bytes());
        b.extend_from_slice(&self.set.to_le_bytes());
        b.extend_from_slice(&self.log.to_le_bytes());
        for v in [self.node, self.member, self.members, self.copies] {
            b.extend_from_slice(&v.to_le_bytes());
        }
        for v in [self.segment_bytes, self.segments, self.run, self.owner_pid] {
            b.extend_from_slice(&v.to_le_bytes());
        }
        b.extend_from_slice(&self.cores.to_le_bytes());
        b.push(u8::from(self.volatile));
        b.extend_from_slice(&self.formatted_wall_us.to_le_bytes());
        b.extend_from_slice(&self.started_wall_us.to_le_bytes());
        b.extend_from_slice(&self.generation.number.to_le_bytes());
        b.extend_from_slice(&self.generation.id.to_le_bytes());
        b.extend_from_slice(&self.generation.parent.to_le_bytes());
        b.extend_from_slice(&self.generation.in_step.to_le_bytes());
        b.extend_from_slice(&self.ledger.to_bytes());
        debug_assert_eq!(b.len(), BODY);
        b.resize(CRC_AT, 0);
        let crc = crc32c::crc32c(&b);
        b.extend_from_slice(&crc.to_le_bytes());
        b.resize(BLOCK, 0);
        b
    }

    /// Reads a block.
    ///
    /// # Errors
    /// Says what the block is instead.
    pub fn decode(block: &[u8]) -> Result<Self, BadSuperblock> {
        if block.iter().all(|b| *b == 0) {
            return Err(BadSuperblock::Blank);
        }
        if block.len() < BLOCK || block[..8] != MAGIC {
            return Err(BadSuperblock::Alien);
        }
        let crc = u32::from_le_bytes([block[508], block[509], block[510], block[511]]);
        if crc32c::crc32c(&block[..CRC_AT]) != crc {
            return Err(BadSuperblock::Damaged);
        }
        let version = u16::from_le_bytes([block[8], block[9]]);
        let format = Format::of(version).ok_or(BadSuperblock::Version(version))?;
        let found = Self::read(format, &mut Reader::new(&block[12..]))
            .map_err(|_| BadSuperblock::Damaged)?;
        if found.is_sane() { Ok(found) } else { Err(BadSuperblock::Damaged) }
    }

    fn read(format: Format, r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            format,
            sequence: r.u64()?,
            set: r.u128()?,
            log: r.u128()?,
            node: r.u16()?,
            member: r.u16()?,
            members: r.u16()?,
            copies: r.u16()?,
            segment_bytes: r.u32()?,
            segments: r.u32()?,
            run: r.u32()?,
            owner_pid: r.u32()?,
            cores: r.u16()?,
            volatile: r.u8()? != 0,
            formatted_wall_us: r.u64()?,
            started_wall_us: r.u64()?,
            generation: Generation {
                number: r.u64()?,
                id: r.u128()?,
                parent: r.u128()?,
                in_step: r.u64()?,
            },
            ledger: Ledger::read(r)?,
        })
    }

    fn is_sane(&self) -> bool {
        (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes)
            && (self.segment_bytes as usize).is_multiple_of(BLOCK)
            && (SEGMENTS_MIN..=SEGMENTS_MAX).contains(&self.segments)
            && (1..=MEMBERS_MAX).contains(&self.members)
            && self.member < self.members
            && (1..=COPIES_MAX).contains(&usize::from(self.copies))
            && self.members.is_multiple_of(self.copies)
    }

    /// Its copy counts. (Cut off while a generation was written, some have the one before.)
    #[must_use]
    pub fn is_in_step_with(&self, newest: &Self) -> bool {
        let (mine, theirs) = (self.generation, newest.generation);
        let same = mine.id == theirs.id || (mine.id == theirs.parent && mine.id != 0);
        same && theirs.in_step >> self.member & 1 == 1
    }

    /// It belongs to a generation that excludes members of the newest one: both went on alone.
    #[must_use]
    pub fn went_on_beside(&self, newest: &Self) -> bool {
        let (mine, theirs) = (self.generation, newest.generation);
        let others = theirs.in_step & !(1 << self.member);
        mine.id != 0 && mine.id != theirs.id && mine.in_step & others != others
    }

    /// Which column of the stripe it is.
    #[must_use]
    pub fn column(&self) -> u16 {
        self.member / self.copies
    }
}
