//! The set of devices: formatting, opening, and saying why not.
//!
//! *Guarantees*: nothing is overwritten that is not blank or our own; a device of another node,
//! set or version, cut short or missing is refused with its name and the offset.

use std::fmt;

use crate::bytes::{index, len64};
use crate::disk::{Device, DiskError};
use crate::file::FileDevice;
use crate::ledger::Ledger;
use crate::limits::{
    BATCH_BYTES_MAX, BLOCK, HEAD_BYTES, MEMBERS_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
    SEGMENTS_MAX, SEGMENTS_MIN, SUPERBLOCK_COPIES, SUPERBLOCK_STRIDE,
};
use crate::segment::SegmentRef;
use crate::superblock::{BadSuperblock, Format, Generation, Superblock};

/// What to format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Node whose mail it is.
    pub node: u16,
    /// Bytes of a segment.
    pub segment_bytes: u32,
    /// Segments on each device.
    pub segments: u32,
    /// Copies of each batch: 1 or 2.
    pub copies: u16,
    /// `durability = "none"` was written out.
    pub volatile: bool,
}

impl Geometry {
    /// Bytes each device must have.
    #[must_use]
    pub fn device_bytes(&self) -> u64 {
        HEAD_BYTES + u64::from(self.segment_bytes) * u64::from(self.segments)
    }

    /// Checks the figures.
    ///
    /// # Errors
    /// Says which one to change.
    pub fn check(&self, members: usize) -> Result<(), &'static str> {
        let whole = (self.segment_bytes as usize).is_multiple_of(BLOCK);
        if !whole || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return Err("segment size: a multiple of 4 KiB from 256 KiB to 64 MiB");
        }
        if !(SEGMENTS_MIN..=SEGMENTS_MAX).contains(&self.segments) {
            return Err("segments: from 4 to 1048576 on each device");
        }
        if !(1..=2).contains(&self.copies) {
            return Err("copies: 1 or 2");
        }
        let fits = (1..=usize::from(MEMBERS_MAX)).contains(&members)
            && members.is_multiple_of(usize::from(self.copies));
        if fits { Ok(()) } else { Err("devices: 1 to 64, an even number for a mirror") }
    }
}

/// Random numbers for a new set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seeds {
    /// Uuid of the set.
    pub set: u128,
    /// Uuid of the first column's log; the others follow.
    pub log: u128,
    /// Id of the first generation.
    pub generation: u128,
}

/// Why a set cannot be opened or made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetError {
    /// The device.
    pub device: String,
    /// Where on it.
    pub offset: u64,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Problem {
    /// It cannot be read or written.
    Disk(DiskError),
    /// Blank: to be formatted first.
    Blank,
    /// Something that is not ours.
    Alien,
    /// A file system, partition table or the like: see `alien`.
    Bears(&'static str),
    /// Of a version this program does not read.
    Version(u16),
    /// No copy of the superblock checks.
    Damaged,
    /// Of another node.
    OtherNode {
        /// Whose it is.
        found: u16,
        /// Who we are.
        expected: u16,
    },
    /// Of another set than the first device.
    OtherSet,
    /// The same member twice.
    Twice(u16),
    /// A member is not there.
    Missing(u16),
    /// Smaller than its superblock says.
    Truncated {
        /// Bytes it should have.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// To be formatted, but not blank.
    InUse,
    /// A figure is out of range.
    Geometry(&'static str),
    /// The segment holds a record this program must not ignore.
    UnknownCritical {
        /// Type of the record.
        kind: u8,
    },
    /// The segment is a copy of another one.
    Swapped {
        /// The one it is a copy of.
        found: SegmentRef,
    },
    /// The segment belongs to another log.
    OtherLog,
    /// The run number is used up.
    RunsExhausted,
    /// Every member is there.
    Complete,
    /// It went on alone while the others did, too.
    WentOn,
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: ", self.device, self.offset)?;
        match &self.problem {
            Problem::Disk(error) => write!(f, "{error}"),
            Problem::Blank => f.write_str("blank, not a spool yet: format it first"),
            Problem::Alien => f.write_str("not a spool; nothing was changed"),
            Problem::Bears(what) => write!(f, "bears {what}; nothing was changed"),
            Problem::Version(v) => write!(f, "spool format {v}, which this version does not read"),
            Problem::Damaged => f.write_str("no copy of the superblock can be read"),
            Problem::OtherNode { found, expected } => {
                write!(f, "the spool of node {found}; this is node {expected}")
            }
            Problem::OtherSet => f.write_str("belongs to another set than the first device"),
            Problem::Twice(n) => write!(f, "member {n} of the set is there twice"),
            Problem::Missing(n) => write!(f, "member {n} of the set is missing"),
            Problem::Truncated { expected, found } => {
                write!(f, "{found} bytes, but the spool on it needs {expected}")
            }
            Problem::InUse => f.write_str("not blank: it is not formatted over"),
            Problem::Geometry(what) => f.write_str(what),
            Problem::UnknownCritical { kind } => {
                write!(f, "a record of type {kind}, which only a newer version can read")
            }
            Problem::Swapped { found } => write!(
                f,
                "a copy of segment {} of column {}; the segment is in the wrong place",
                found.number(),
                found.column()
            ),
            Problem::OtherLog => f.write_str("a segment of another log"),
            Problem::RunsExhausted => f.write_str("run numbers are used up: format a new spool"),
            Problem::Complete => f.write_str("no member of the set is missing"),
            Problem::WentOn => {
                f.write_str("went on alone while the others did, too: see `ringpost spool take-in`")
            }
        }
    }
}

impl std::error::Error for SetError {}

pub(crate) fn problem<D: Device>(device: &D, offset: u64, problem: Problem) -> SetError {
    SetError { device: device.name().to_owned(), offset, problem }
}

/// Writes superblocks on blank devices. `zero` fills the segments too (a raw device that was
/// used for something else; a file made by `FileDevice::create` is zero already).
///
/// # Errors
/// When a device is not blank, too small or cannot be written.
pub fn format<D: Device>(
    devices: &mut [D],
    geometry: Geometry,
    seeds: Seeds,
    wall_us: u64,
    zero: bool,
) -> Result<(), SetError> {
    format_as(Format::NEWEST, devices, geometry, seeds, wall_us, zero)
}

/// The same in that format.
///
/// # Errors
/// As `format`.
pub fn format_as<D: Device>(
    format: Format,
    devices: &mut [D],
    geometry: Geometry,
    seeds: Seeds,
    wall_us: u64,
    zero: bool,
) -> Result<(), SetError> {
    if let Err(what) = geometry.check(devices.len()) {
        let device = devices.first().map_or_else(String::new, |d| d.name().to_owned());
        return Err(SetError { device, offset: 0, problem: Problem::Geometry(what) });
    }
    let mut head = vec![0; BATCH_BYTES_MAX];
    for device in devices.iter_mut() {
        let (expected, found) = (geometry.device_bytes(), device.bytes());
        if found < expected {
            return Err(problem(device, found, Problem::Truncated { expected, found }));
        }
        let read = device.read(0, &mut head);
        read.map_err(|e| problem(device, 0, Problem::Disk(e)))?;
        if let Some(at) = head.iter().position(|b| *b != 0) {
            return Err(problem(device, len64(at), Problem::InUse));
        }
    }
    let members = u16::try_from(devices.len()).expect("checked above");
    for (member, device) in (0..members).zip(devices.iter_mut()) {
        if zero {
            fill(device, geometry.device_bytes())?;
        }
        let block = Superblock {
            format,
            sequence: 1,
            set: seeds.set,
            log: seeds.log.wrapping_add(u128::from(member / geometry.copies)),
            node: geometry.node,
            member,
            members,
            copies: geometry.copies,
            segment_bytes: geometry.segment_bytes,
            segments: geometry.segments,
            run: 0,
            owner_pid: 0,
            cores: 0,
            volatile: geometry.volatile,
            formatted_wall_us: wall_us,
            started_wall_us: 0,
            generation: Generation {
                number: 1,
                id: seeds.generation,
                parent: 0,
                in_step: u64::MAX >> (64 - u32::from(members)),
            },
            ledger: Ledger::default(),
        };
        write_superblock(device, &block)?;
    }
    Ok(())
}

fn fill<D: Device>(device: &mut D, bytes: u64) -> Result<(), SetError> {
    let zero = vec![0; BATCH_BYTES_MAX];
    let mut at = 0;
    while at < bytes {
        let n = usize::try_from((bytes - at).min(len64(zero.len()))).expect("one buffer");
        let written = device.write(at, &zero[..n]);
        written.map_err(|e| problem(device, at, Problem::Disk(e)))?;
        at += len64(n);
    }
    Ok(())
}

/// Writes all copies of the superblock; durable when it returns.
///
/// # Errors
/// When the device says no; the copies before are written then.
pub fn write_superblock<D: Device>(device: &mut D, block: &Superblock) -> Result<(), SetError> {
    let bytes = block.encode();
    for copy in 0..SUPERBLOCK_COPIES {
        let at = copy * SUPERBLOCK_STRIDE;
        let written = device.write(at, &bytes);
        written.map_err(|e| problem(device, at, Problem::Disk(e)))?;
    }
    Ok(())
}

/// The valid copy with the highest sequence.
///
/// # Errors
/// What the first copy is instead.
pub fn read_superblock<D: Device>(device: &mut D) -> Result<Superblock, SetError> {
    let mut best: Option<Superblock> = None;
    let mut wrong = None;
    let mut block = vec![0; BLOCK];
    for copy in 0..SUPERBLOCK_COPIES {
        let at = copy * SUPERBLOCK_STRIDE;
        let found = match device.read(at, &mut block) {
            Ok(()) => Superblock::decode(&block).map_err(|bad| match bad {
                BadSuperblock::Blank => Problem::Blank,
                BadSuperblock::Alien => Problem::Alien,
                BadSuperblock::Version(v) => Problem::Version(v),
                BadSuperblock::Damaged => Problem::Damaged,
            }),
            Err(error) => Err(Problem::Disk(error)),
        };
        match found {
            Ok(found) if best.as_ref().is_none_or(|b| found.sequence > b.sequence) => {
                best = Some(found);
            }
            Ok(_) => {}
            Err(p) => {
                wrong.get_or_insert((at, p));
            }
        }
    }
    match (best, wrong) {
        // A newer version's superblock beside an older one: not ours to read.
        (_, Some((at, Problem::Version(v)))) => Err(problem(device, at, Problem::Version(v))),
        (Some(best), _) => Ok(best),
        (None, wrong) => {
            let (at, p) = wrong.unwrap_or((0, Problem::Damaged));
            Err(problem(device, at, p))
        }
    }
}

/// An open set: its members by number, each with its superblock.
#[derive(Debug)]
pub struct Set<D> {
    /// The members; `None` for one that is missing or out of step.
    pub members: Vec<Option<D>>,
    /// The superblock that counts, as of the member with the newest generation.
    pub superblock: Superblock,
    /// Log uuid of each column.
    pub logs: Vec<u128>,
    /// Members that take no part: put out, or gone.
    pub out_of_step: Vec<u16>,
    /// Bytes read from segments so far.
    pub bytes_read: u64,
    /// Devices in the place of such members, by number: returned after they were put out, or
    /// blank. What they hold is not read; they are to be erased and filled.
    pub joining: Vec<Option<D>>,
    /// Members that went on alone while this set did, too: what they hold is not to be had
    /// elsewhere, and nothing is done to them.
    pub alone: Vec<u16>,
    /// The segment that no core has, and that nobody copies.
    pub kept: Option<SegmentRef>,
}

/// What is written on a device before it is filled: nothing on it may be read again.
#[derive(Clone, Debug)]
pub struct Blanking {
    block: Superblock,
    kept: Option<SegmentRef>,
}

impl Blanking {
    /// Which member it will be.
    #[must_use]
    pub fn member(&self) -> u16 {
        self.block.member
    }

    /// Has the device say that it is to be filled: from now on nobody takes it for a member, and
    /// what it holds is not read any more. Durable when it returns.
    ///
    /// # Errors
    /// When the device says no.
    pub fn mark<D: Device>(&self, device: &mut D) -> Result<(), SetError> {
        write_superblock(device, &self.block)?;
        device.sync().map_err(|e| problem(device, 0, Problem::Disk(e)))
    }

    /// Marks the device and empties it; durable when it returns.
    ///
    /// # Errors
    /// When the device says no.
    pub fn write<D: Device>(&self, device: &mut D) -> Result<(), SetError> {
        write_superblock(device, &self.block)?;
        let size = self.block.segment_bytes;
        let blank = vec![0; BATCH_BYTES_MAX];
        for n in 0..self.block.segments {
            let at = SegmentRef::new(0, n).device_offset(size);
            // What is not copied is erased as a whole.
            let column = u8::try_from(self.block.column()).expect("at most MEMBERS_MAX");
            let is_kept = self.kept == Some(SegmentRef::new(column, n));
            let bytes = if is_kept { index(size) } else { BLOCK };
            for from in (0..bytes).step_by(BATCH_BYTES_MAX) {
                let piece = &blank[..BATCH_BYTES_MAX.min(bytes - from)];
                let place = at + len64(from);
                let written = device.write(place, piece);
                written.map_err(|e| problem(device, place, Problem::Disk(e)))?;
            }
        }
        device.sync().map_err(|e| problem(device, 0, Problem::Disk(e)))
    }
}

impl<D: Device> Set<D> {
    /// Opens the devices of one set, in any order. With `degraded` a mirror may lack members.
    ///
    /// # Errors
    /// Names the device and what is wrong with it.
    pub fn open(devices: Vec<D>, node: u16, degraded: bool) -> Result<Self, SetError> {
        let mut found: Vec<(Superblock, D)> = Vec::with_capacity(devices.len());
        let mut blank: Vec<(SetError, D)> = Vec::new();
        for mut device in devices {
            let block = match read_superblock(&mut device) {
                Ok(block) => block,
                Err(error) if error.problem == Problem::Blank => {
                    blank.push((error, device));
                    continue;
                }
                // A dead half of a mirror is as good as none.
                Err(SetError { problem: Problem::Disk(_), .. }) if degraded => continue,
                Err(error) => return Err(error),
            };
            if block.node != node {
                let p = Problem::OtherNode { found: block.node, expected: node };
                return Err(problem(&device, 0, p));
            }
            let expected = HEAD_BYTES + u64::from(block.segment_bytes) * u64::from(block.segments);
            if device.bytes() < expected {
                let p = Problem::Truncated { expected, found: device.bytes() };
                return Err(problem(&device, device.bytes(), p));
            }
            if let Some((other, _)) = found.first()
                && !same_set(other, &block)
            {
                return Err(problem(&device, 0, Problem::OtherSet));
            }
            if found.iter().any(|(b, _)| b.member == block.member) {
                return Err(problem(&device, 0, Problem::Twice(block.member)));
            }
            found.push((block, device));
        }
        let newest = found.iter().map(|(b, _)| b).max_by_key(|b| (b.generation.number, b.sequence));
        let Some(newest) = newest.cloned() else {
            let problem = Problem::Missing(0);
            let none = SetError { device: "no device".into(), offset: 0, problem };
            return Err(blank.pop().map_or(none, |(error, _)| error));
        };
        let mut set = Self::assemble(found, newest, degraded)?;
        for (error, device) in blank {
            set.replace(error, device)?;
        }
        Ok(set)
    }

    /// A blank device takes the place of a member that is gone.
    fn replace(&mut self, error: SetError, device: D) -> Result<(), SetError> {
        let block = &self.superblock;
        let expected = HEAD_BYTES + u64::from(block.segment_bytes) * u64::from(block.segments);
        if device.bytes() < expected {
            let p = Problem::Truncated { expected, found: device.bytes() };
            return Err(problem(&device, device.bytes(), p));
        }
        let free = |m: &usize| {
            let number = u16::try_from(*m).expect("at most MEMBERS_MAX");
            let gone = self.members[*m].is_none() && self.joining[*m].is_none();
            gone && !self.alone.contains(&number)
        };
        let place = (0..self.members.len()).find(free).ok_or(error)?;
        self.joining[place] = Some(device);
        Ok(())
    }

    fn assemble(
        found: Vec<(Superblock, D)>,
        newest: Superblock,
        degraded: bool,
    ) -> Result<Self, SetError> {
        let name = found.first().map_or_else(String::new, |(_, d)| d.name().to_owned());
        let mut members: Vec<Option<D>> = (0..newest.members).map(|_| None).collect();
        let mut logs = vec![None; usize::from(newest.members / newest.copies)];
        let mut out_of_step = Vec::new();
        let mut joining: Vec<Option<D>> = (0..newest.members).map(|_| None).collect();
        let mut alone = Vec::new();
        for (block, device) in found {
            if block.is_in_step_with(&newest) {
                logs[usize::from(block.column())] = Some(block.log);
                members[usize::from(block.member)] = Some(device);
            } else if block.went_on_beside(&newest) {
                alone.push(block.member);
            } else {
                joining[usize::from(block.member)] = Some(device);
            }
        }
        for member in 0..newest.members {
            let column = usize::from(member / newest.copies);
            let absent = members[usize::from(member)].is_none();
            // Put out: the others say that they have all there is.
            let known = newest.copies > 1 && newest.generation.in_step >> member & 1 == 0;
            if absent {
                out_of_step.push(member);
            }
            let known = known || joining[usize::from(member)].is_some();
            if absent && (!(degraded || known) || logs[column].is_none()) {
                let problem = Problem::Missing(member);
                return Err(SetError { device: name, offset: 0, problem });
            }
        }
        Ok(Self {
            members,
            superblock: newest,
            logs: logs.into_iter().flatten().collect(),
            out_of_step,
            bytes_read: 0,
            joining,
            alone,
            kept: None,
        })
    }

    /// Bytes of a segment.
    #[must_use]
    pub fn segment_bytes(&self) -> u32 {
        self.superblock.segment_bytes
    }

    /// The members of a column that are in step.
    #[must_use]
    pub fn column_members(&self, column: u8) -> [Option<u16>; 2] {
        let copies = self.superblock.copies;
        let mut out = [None; 2];
        let mut n = 0;
        for copy in 0..copies {
            let member = u16::from(column) * copies + copy;
            if self.members[usize::from(member)].is_some() {
                out[n] = Some(member);
                n += 1;
            }
        }
        out
    }

    /// The member of a column that is being filled.
    #[must_use]
    pub fn column_joining(&self, column: u8) -> Option<u16> {
        let copies = self.superblock.copies;
        let mut all = (0..copies).map(|copy| u16::from(column) * copies + copy);
        all.find(|m| self.joining[usize::from(*m)].is_some())
    }

    /// The members that are being filled.
    #[must_use]
    pub fn joining_numbers(&self) -> Vec<u16> {
        let all = (0..self.superblock.members).zip(&self.joining);
        all.filter(|(_, device)| device.is_some()).map(|(n, _)| n).collect()
    }

    /// Empties the devices that join: what they held can never be read again, and until they are
    /// filled nobody takes them for members. One that cannot be written does not join.
    pub(crate) fn prepare_joining(&mut self) -> Vec<SetError> {
        let mut failed = Vec::new();
        for n in 0..self.joining.len() {
            let Some(mut device) = self.joining[n].take() else { continue };
            let member = u16::try_from(n).expect("at most MEMBERS_MAX");
            match self.blanking(member).write(&mut device) {
                Ok(()) => self.joining[n] = Some(device),
                Err(error) => failed.push(error),
            }
        }
        failed
    }

    fn blanking(&self, member: u16) -> Blanking {
        let none = Generation::default();
        let log = self.logs[usize::from(member / self.superblock.copies)];
        let block = Superblock { member, log, generation: none, ..self.superblock.clone() };
        Blanking { block, kept: self.kept }
    }

    /// Whether a device that came while the set is in use can be taken in: a member of this set
    /// that was put out, or a blank one in its place. Changes nothing; what must be written on it
    /// before `joins` is returned.
    ///
    /// # Errors
    /// Why it is none of the two.
    pub fn admit(&self, device: &mut D) -> Result<Blanking, SetError> {
        let ours = &self.superblock;
        let fail = |device: &D, p| Err(problem(device, 0, p));
        let expected = HEAD_BYTES + u64::from(ours.segment_bytes) * u64::from(ours.segments);
        let is_free = |m: u16| {
            let (at, n) = (usize::from(m), self.members.len());
            at < n && self.members[at].is_none() && self.joining[at].is_none()
        };
        let member = match read_superblock(device) {
            Ok(block) if block.node != ours.node => {
                let p = Problem::OtherNode { found: block.node, expected: ours.node };
                return fail(device, p);
            }
            Ok(block) if !same_set(&block, ours) => return fail(device, Problem::OtherSet),
            Ok(block) if block.went_on_beside(ours) => return fail(device, Problem::WentOn),
            Ok(block) if !is_free(block.member) => {
                return fail(device, Problem::Twice(block.member));
            }
            Ok(block) => block.member,
            Err(SetError { problem: Problem::Blank, .. }) => {
                let mut free = (0..ours.members).filter(|m| !self.alone.contains(m));
                match free.find(|m| is_free(*m)) {
                    Some(member) => member,
                    None => return fail(device, Problem::Complete),
                }
            }
            Err(error) => return Err(error),
        };
        if device.bytes() < expected {
            let found = device.bytes();
            return Err(problem(device, found, Problem::Truncated { expected, found }));
        }
        Ok(self.blanking(member))
    }

    /// A member that went on alone while the others did, too, and whose mail they have by now: what
    /// must be written on it before `joins` is returned.
    ///
    /// # Errors
    /// It is none, or its place is taken.
    pub fn admit_alone(&mut self, device: &mut D) -> Result<Blanking, SetError> {
        match self.admit(device) {
            Err(SetError { problem: Problem::WentOn, .. }) => {}
            other => return other,
        }
        let member = read_superblock(device)?.member;
        let n = usize::from(member);
        if n >= self.members.len() || self.members[n].is_some() || self.joining[n].is_some() {
            return Err(problem(device, 0, Problem::Twice(member)));
        }
        self.alone.retain(|alone| *alone != member);
        Ok(self.blanking(member))
    }

    /// That device was admitted and emptied: it is written to from now on, and counts when it is
    /// filled (`take_in`).
    ///
    /// # Errors
    /// When its place was taken meanwhile.
    pub fn joins(&mut self, member: u16, device: D) -> Result<(), SetError> {
        let n = usize::from(member);
        if self.members[n].is_some() || self.joining[n].is_some() {
            return Err(problem(&device, 0, Problem::Twice(member)));
        }
        self.joining[n] = Some(device);
        Ok(())
    }

    /// A member failed: the generation without it, durable on all others when this returns.
    /// `None` when nothing had to be written: it was not in step.
    ///
    /// # Errors
    /// When one of the others says no, or none is left.
    pub fn put_out(&mut self, member: u16, id: u128) -> Result<Option<D>, SetError> {
        let n = usize::from(member);
        if let Some(device) = self.joining.get_mut(n).and_then(Option::take) {
            return Ok(Some(device));
        }
        let (copies, column) = (self.superblock.copies, member / self.superblock.copies);
        let mut others = (0..copies).map(|c| column * copies + c).filter(|m| *m != member);
        if !others.any(|m| self.members[usize::from(m)].is_some()) {
            return unreachable_member(member);
        }
        let Some(device) = self.members.get_mut(n).and_then(Option::take) else { return Ok(None) };
        let in_step = self.superblock.generation.in_step & !(1 << member);
        if let Err(error) = self.next_generation(id, in_step) {
            self.members[n] = Some(device);
            return Err(error);
        }
        self.out_of_step.push(member);
        Ok(Some(device))
    }

    /// A member is filled: the generation with it, durable on all members when this returns.
    ///
    /// # Errors
    /// When a device says no.
    pub fn take_in(&mut self, member: u16, id: u128) -> Result<(), SetError> {
        let n = usize::from(member);
        if self.joining.get(n).is_none_or(Option::is_none) {
            return Ok(());
        }
        // The others first: cut off in between, the new one is filled once more. The other way
        // round it would take the others, that may go on without it, for old.
        let in_step = self.superblock.generation.in_step;
        self.next_generation(id, in_step | 1 << member)?;
        let log = self.logs[usize::from(member / self.superblock.copies)];
        let block = Superblock { member, log, ..self.superblock.clone() };
        let Some(device) = self.joining[n].as_mut() else { return Ok(()) };
        if let Err(error) = write_superblock(device, &block) {
            self.next_generation(id.wrapping_add(1), in_step)?;
            return Err(error);
        }
        self.members[n] = self.joining[n].take();
        self.out_of_step.retain(|m| *m != member);
        Ok(())
    }

    fn next_generation(&mut self, id: u128, in_step: u64) -> Result<(), SetError> {
        self.update(|block| block.generation = block.generation.next(id, in_step))
    }

    pub(crate) fn device(&mut self, member: u16) -> Option<&mut D> {
        self.members.get_mut(usize::from(member)).and_then(Option::as_mut)
    }

    /// Reads part of a segment from one copy.
    pub(crate) fn read(
        &mut self,
        member: u16,
        at: SegmentRef,
        offset: usize,
        into: &mut [u8],
    ) -> Result<(), SetError> {
        let place = at.device_offset(self.segment_bytes()) + len64(offset);
        self.bytes_read += len64(into.len());
        let Some(device) = self.device(member) else { unreachable_member(member)? };
        device.read(place, into).map_err(|e| problem(device, place, Problem::Disk(e)))
    }

    pub(crate) fn write(
        &mut self,
        member: u16,
        at: SegmentRef,
        offset: usize,
        from: &[u8],
    ) -> Result<(), SetError> {
        let place = at.device_offset(self.segment_bytes()) + len64(offset);
        let Some(device) = self.device(member) else { unreachable_member(member)? };
        device.write(place, from).map_err(|e| problem(device, place, Problem::Disk(e)))
    }

    /// Makes durable what was written before, on all members.
    pub(crate) fn sync(&mut self) -> Result<(), SetError> {
        for device in self.members.iter_mut().flatten() {
            device.sync().map_err(|e| problem(device, 0, Problem::Disk(e)))?;
        }
        Ok(())
    }

    /// Changes the superblock on all members.
    pub(crate) fn update(&mut self, change: impl Fn(&mut Superblock)) -> Result<(), SetError> {
        let mut next = self.superblock.clone();
        change(&mut next);
        next.sequence += 1;
        for member in 0..next.members {
            let column = member / next.copies;
            let log = self.logs[usize::from(column)];
            let block = Superblock { member, log, ..next.clone() };
            if let Some(device) = self.device(member) {
                write_superblock(device, &block)?;
            }
        }
        self.superblock = next;
        Ok(())
    }
}

impl Set<FileDevice> {
    /// The same devices once more, for another driver. The lock goes when the last of them does.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn duplicate(&self) -> std::io::Result<Self> {
        let twins = |devices: &[Option<FileDevice>]| {
            let twin = |d: &Option<FileDevice>| d.as_ref().map(FileDevice::duplicate).transpose();
            devices.iter().map(twin).collect::<std::io::Result<Vec<_>>>()
        };
        Ok(Self {
            members: twins(&self.members)?,
            superblock: self.superblock.clone(),
            logs: self.logs.clone(),
            out_of_step: self.out_of_step.clone(),
            bytes_read: self.bytes_read,
            joining: twins(&self.joining)?,
            alone: self.alone.clone(),
            kept: self.kept,
        })
    }
}

fn unreachable_member<T>(member: u16) -> Result<T, SetError> {
    let problem = Problem::Missing(member);
    Err(SetError { device: format!("member {member}"), offset: 0, problem })
}

fn same_set(a: &Superblock, b: &Superblock) -> bool {
    (a.set, a.members, a.copies, a.segment_bytes, a.segments)
        == (b.set, b.members, b.copies, b.segment_bytes, b.segments)
}
