//! Records: their header, and those that say what became of a message.
//!
//! *Guarantees*: a record is numbered fields; one whose number is unknown is skipped in reading
//! and carried on when the record is copied, because records are copied byte for byte. A record
//! of unknown type refuses its segment when marked critical.

use crate::bytes::{
    Malformed, Reader, len32, put_bytes, put_field, put_group, put_number, put_some, small,
};
use crate::id::TransactionId;
use crate::limits::{RECIPIENTS_MAX, RECORD_HEADER};
use crate::segment::SegmentRef;

/// Types of record. The numbers are the format's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RecordKind {
    /// A message: envelope, header section, body or its last part.
    Message = 1,
    /// Part of a large body; dead without its MSG.
    Chunk = 2,
    /// Recipients that need no more work.
    Done = 3,
    /// Tried without success: when next, and what was said.
    Defer = 4,
    /// The MSG beside it is a copy of an older one.
    Move = 5,
    /// Waits for the operator.
    Hold = 6,
    /// Waits no more.
    Release = 7,
    /// A recipient is routed to another address.
    Redirect = 8,
    /// Was never accepted: its client was told 451.
    Cancel = 9,
    /// The same DONE of several messages that stand in one segment.
    Dones = 10,
    /// Footer only: the records behind it stand in this batch.
    IndexBatch = 64,
    /// Footer only: where a MSG stands.
    IndexMessage = 65,
    /// Footer only: where a CHUNK stands.
    IndexChunk = 66,
}

impl RecordKind {
    /// The type of that number.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Message,
            2 => Self::Chunk,
            3 => Self::Done,
            4 => Self::Defer,
            5 => Self::Move,
            6 => Self::Hold,
            7 => Self::Release,
            8 => Self::Redirect,
            9 => Self::Cancel,
            10 => Self::Dones,
            64 => Self::IndexBatch,
            65 => Self::IndexMessage,
            66 => Self::IndexChunk,
            _ => return None,
        })
    }
}

/// A reader that does not know the record's type must not read its segment.
pub const FLAG_CRITICAL: u8 = 1;

/// The 16 bytes before each record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// Bytes behind the header, without padding.
    pub length: u32,
    /// Type number.
    pub kind: u8,
    /// `FLAG_CRITICAL`; other bits are kept.
    pub flags: u8,
    /// For later versions; kept.
    pub spare: u16,
    /// Checksum over the eight bytes before it and the body.
    pub crc: u32,
}

impl RecordHeader {
    /// The header of a record with that body.
    #[must_use]
    pub fn of(kind: RecordKind, body: &[u8]) -> Self {
        let mut header = Self {
            length: len32(body.len()),
            kind: kind as u8,
            flags: FLAG_CRITICAL,
            spare: 0,
            crc: 0,
        };
        header.crc = header.sum(body);
        header
    }

    fn first(self) -> [u8; 8] {
        let mut b = [0; 8];
        b[..4].copy_from_slice(&self.length.to_le_bytes());
        b[4] = self.kind;
        b[5] = self.flags;
        b[6..].copy_from_slice(&self.spare.to_le_bytes());
        b
    }

    fn sum(self, body: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.first()), body)
    }

    /// True when the checksum fits that body.
    #[must_use]
    pub fn covers(self, body: &[u8]) -> bool {
        len32(body.len()) == self.length && self.sum(body) == self.crc
    }

    /// The stored form (the last four bytes are zero).
    #[must_use]
    pub fn to_bytes(self) -> [u8; RECORD_HEADER] {
        let mut b = [0; RECORD_HEADER];
        b[..8].copy_from_slice(&self.first());
        b[8..12].copy_from_slice(&self.crc.to_le_bytes());
        b
    }

    /// Reads a header; `None` at the end of the bytes.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes.get(..RECORD_HEADER)?);
        Some(Self {
            length: r.u32().ok()?,
            kind: r.u8().ok()?,
            flags: r.u8().ok()?,
            spare: r.u16().ok()?,
            crc: r.u32().ok()?,
        })
    }
}

/// A whole record: header and body.
#[must_use]
pub fn encode_record(kind: RecordKind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(RECORD_HEADER + body.len());
    out.extend_from_slice(&RecordHeader::of(kind, body).to_bytes());
    out.extend_from_slice(body);
    out
}

/// What became of a recipient. The numbers are the format's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum RecipientState {
    /// Waits for delivery.
    #[default]
    Pending = 0,
    /// The next hop has it.
    Delivered = 1,
    /// Another node or tier with its own log has it.
    HandedOver = 2,
    /// Failed for good; the sender is told as NOTIFY asks.
    Failed = 3,
    /// Waits for the operator.
    Held = 4,
    /// Replaced by a message to another address.
    Redirected = 5,
    /// Removed by the operator.
    Removed = 6,
    /// A failed DSN: discarded, nobody is left to tell.
    Discarded = 7,
}

impl RecipientState {
    /// The state of that number.
    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Pending,
            1 => Self::Delivered,
            2 => Self::HandedOver,
            3 => Self::Failed,
            4 => Self::Held,
            5 => Self::Redirected,
            6 => Self::Removed,
            7 => Self::Discarded,
            _ => return None,
        })
    }

    /// True when no work is left.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Held)
    }
}

/// Where the MSG that a record speaks of stood when it was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// The message.
    pub id: TransactionId,
    /// Its segment; `NONE` when it was being moved at that moment.
    pub segment: SegmentRef,
    /// That segment's epoch.
    pub epoch: u64,
}

/// One recipient's outcome.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecipientResult {
    /// Which recipient, in the order of the envelope.
    pub recipient: u16,
    /// Its state now.
    pub state: RecipientState,
    /// The last reply (empty when not worth keeping).
    pub reply: Box<[u8]>,
    /// Tries so far.
    pub tries: u16,
    /// Route by which it was tried last.
    pub route: Box<[u8]>,
    /// Fallback tier.
    pub tier: u8,
}

/// DONE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    /// Of which message.
    pub target: Target,
    /// All recipients still pending take this state.
    pub all: Option<RecipientState>,
    /// These take theirs.
    pub results: Vec<RecipientResult>,
    /// The message that took its place, in the same batch.
    pub replaced_by: Option<TransactionId>,
}

/// DEFER: stands for every recipient still pending, and takes the place of earlier ones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Defer {
    /// Which message.
    pub target: Target,
    /// Wall time of the next try.
    pub next_wall_us: u64,
    /// Tries so far.
    pub tries: u16,
    /// Fallback tier.
    pub tier: u8,
    /// What each pending recipient's last try said.
    pub results: Vec<RecipientResult>,
}

/// REDIRECT.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Redirect {
    /// Which message.
    pub target: Target,
    /// Which recipient.
    pub recipient: u16,
    /// Its address as routed from now on.
    pub address: Box<[u8]>,
}

/// A record that says what became of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// DONE
    Done(Done),
    /// DEFER
    Defer(Defer),
    /// MOVE: the target is the older copy; the number is the newer copy's.
    Move(Target, u16),
    /// HOLD
    Hold(Target),
    /// RELEASE
    Release(Target),
    /// REDIRECT
    Redirect(Redirect),
    /// CANCEL
    Cancel(Target),
}

impl Change {
    /// Its type.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        match self {
            Self::Done(_) => RecordKind::Done,
            Self::Defer(_) => RecordKind::Defer,
            Self::Move(..) => RecordKind::Move,
            Self::Hold(_) => RecordKind::Hold,
            Self::Release(_) => RecordKind::Release,
            Self::Redirect(_) => RecordKind::Redirect,
            Self::Cancel(_) => RecordKind::Cancel,
        }
    }

    /// The message it speaks of.
    #[must_use]
    pub fn target(&self) -> Target {
        match self {
            Self::Done(d) => d.target,
            Self::Defer(d) => d.target,
            Self::Redirect(r) => r.target,
            Self::Move(t, _) | Self::Hold(t) | Self::Release(t) | Self::Cancel(t) => *t,
        }
    }

    /// The same of another place of the message.
    pub fn set_place(&mut self, segment: SegmentRef, epoch: u64) {
        let target = match self {
            Self::Done(d) => &mut d.target,
            Self::Defer(d) => &mut d.target,
            Self::Redirect(r) => &mut r.target,
            Self::Move(t, _) | Self::Hold(t) | Self::Release(t) | Self::Cancel(t) => t,
        };
        target.segment = segment;
        target.epoch = epoch;
    }

    /// The record's body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.append_to(&mut out);
        out
    }

    /// Appends the record's body.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let target = self.target();
        put_field(out, 1, &target.id.to_bytes());
        put_some(out, 2, Some(u64::from(target.segment.0)));
        put_number(out, 3, target.epoch);
        match self {
            Self::Done(d) => {
                put_some(out, 4, d.all.map(|s| u64::from(s as u8)));
                put_results(out, &d.results);
                if let Some(id) = d.replaced_by {
                    put_field(out, 6, &id.to_bytes());
                }
            }
            Self::Defer(d) => {
                put_number(out, 7, d.next_wall_us);
                put_number(out, 8, u64::from(d.tries));
                put_number(out, 9, u64::from(d.tier));
                put_results(out, &d.results);
            }
            Self::Redirect(r) => {
                put_number(out, 10, u64::from(r.recipient));
                put_bytes(out, 11, &r.address);
            }
            Self::Move(_, copy) => put_number(out, 12, u64::from(*copy)),
            Self::Hold(_) | Self::Release(_) | Self::Cancel(_) => {}
        }
    }

    /// Reads a record's body, which speaks of one message or of several; of none when its type is
    /// not that of a change.
    ///
    /// # Errors
    /// When the fields cannot be read.
    pub fn decode_all(kind: u8, body: &[u8]) -> Result<Vec<Self>, Malformed> {
        if kind == RecordKind::Dones as u8 {
            return read_dones(body);
        }
        Ok(Self::decode(kind, body)?.into_iter().collect())
    }

    /// Reads a record's body; `None` for a type that is not a change of one message.
    ///
    /// # Errors
    /// When the fields cannot be read.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(kind) = RecordKind::of(kind).filter(|kind| *kind != RecordKind::Dones) else {
            return Ok(None);
        };
        let f = Fields::read(body)?;
        let target = f.target.ok_or(Malformed)?;
        Ok(Some(match kind {
            RecordKind::Done => Self::Done(Done {
                target,
                all: f.all,
                results: f.results,
                replaced_by: f.replaced_by,
            }),
            RecordKind::Defer => Self::Defer(Defer {
                target,
                next_wall_us: f.next_wall_us,
                tries: f.tries,
                tier: f.tier,
                results: f.results,
            }),
            RecordKind::Move => Self::Move(target, f.copy),
            RecordKind::Hold => Self::Hold(target),
            RecordKind::Release => Self::Release(target),
            RecordKind::Redirect => {
                Self::Redirect(Redirect { target, recipient: f.recipient, address: f.address })
            }
            RecordKind::Cancel => Self::Cancel(target),
            _ => return Ok(None),
        }))
    }
}

/// The fields that a change may have.
#[derive(Default)]
struct Fields {
    target: Option<Target>,
    all: Option<RecipientState>,
    results: Vec<RecipientResult>,
    replaced_by: Option<TransactionId>,
    next_wall_us: u64,
    tries: u16,
    tier: u8,
    recipient: u16,
    address: Box<[u8]>,
    copy: u16,
}

impl Fields {
    fn read(body: &[u8]) -> Result<Self, Malformed> {
        let mut f = Self::default();
        let (mut id, mut segment, mut epoch) = (None, SegmentRef::NONE, 0);
        let mut r = Reader::new(body);
        while !r.is_empty() {
            let (number, v) = r.field()?;
            match number {
                1 => id = Some(read_id(v)?),
                2 => segment = SegmentRef(small(v)?),
                3 => epoch = small(v)?,
                4 => f.all = Some(RecipientState::of(small(v)?).ok_or(Malformed)?),
                5 if f.results.len() < RECIPIENTS_MAX => f.results.push(read_result(v)?),
                6 => f.replaced_by = Some(read_id(v)?),
                7 => f.next_wall_us = small(v)?,
                8 => f.tries = small(v)?,
                9 => f.tier = small(v)?,
                10 => f.recipient = small(v)?,
                11 => f.address = v.into(),
                12 => f.copy = small(v)?,
                5 => return Err(Malformed),
                _ => {}
            }
        }
        f.target = id.map(|id| Target { id, segment, epoch });
        Ok(f)
    }
}

/// Where the messages of a DONE for several stand, and what all their recipients come to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Together {
    pub(crate) segment: SegmentRef,
    pub(crate) epoch: u64,
    state: u8,
}

impl Together {
    /// What a change says, if it says the same of any other message there; not of one whose place
    /// is not known.
    pub(crate) fn of(change: &Change) -> Option<Self> {
        let Change::Done(Done { target, all: Some(state), results, replaced_by: None }) = change
        else {
            return None;
        };
        let plain = results.is_empty() && target.segment != SegmentRef::NONE;
        let Target { segment, epoch, .. } = *target;
        plain.then_some(Self { segment, epoch, state: *state as u8 })
    }

    /// Appends the body of the record that says it of these messages. What it adds for each is
    /// less than a record of its own.
    pub(crate) fn append_to(self, out: &mut Vec<u8>, ids: impl Iterator<Item = TransactionId>) {
        put_some(out, 2, Some(u64::from(self.segment.0)));
        put_number(out, 3, self.epoch);
        put_some(out, 4, Some(u64::from(self.state)));
        put_group(out, 13, |out| {
            let mut before = TransactionId::NONE;
            for id in ids {
                id.put_after(before, out);
                before = id;
            }
        });
    }
}

fn read_dones(body: &[u8]) -> Result<Vec<Change>, Malformed> {
    let (mut segment, mut epoch, mut all, mut ids) = (None, 0, None, &[][..]);
    let mut r = Reader::new(body);
    while !r.is_empty() {
        let (number, v) = r.field()?;
        match number {
            2 => segment = Some(SegmentRef(small(v)?)),
            3 => epoch = small(v)?,
            4 => all = Some(RecipientState::of(small(v)?).ok_or(Malformed)?),
            13 => ids = v,
            _ => {}
        }
    }
    let (segment, all) = (segment.ok_or(Malformed)?, Some(all.ok_or(Malformed)?));
    let (mut out, mut before) = (Vec::new(), TransactionId::NONE);
    let mut r = Reader::new(ids);
    while !r.is_empty() {
        let id = TransactionId::read_after(before, &mut r)?;
        let target = Target { id, segment, epoch };
        out.push(Change::Done(Done { target, all, results: Vec::new(), replaced_by: None }));
        before = id;
    }
    if out.is_empty() { Err(Malformed) } else { Ok(out) }
}

pub(crate) fn read_id(bytes: &[u8]) -> Result<TransactionId, Malformed> {
    Ok(TransactionId::from_bytes(bytes.try_into().map_err(|_| Malformed)?))
}

fn put_results(out: &mut Vec<u8>, results: &[RecipientResult]) {
    for result in results {
        put_group(out, 5, |out| {
            put_number(out, 1, u64::from(result.recipient));
            put_number(out, 2, u64::from(result.state as u8));
            put_bytes(out, 3, &result.reply);
            put_number(out, 4, u64::from(result.tries));
            put_bytes(out, 5, &result.route);
            put_number(out, 6, u64::from(result.tier));
        });
    }
}

fn read_result(bytes: &[u8]) -> Result<RecipientResult, Malformed> {
    let mut result = RecipientResult::default();
    let mut r = Reader::new(bytes);
    while !r.is_empty() {
        let (number, v) = r.field()?;
        match number {
            1 => result.recipient = small(v)?,
            2 => result.state = RecipientState::of(small(v)?).ok_or(Malformed)?,
            3 => result.reply = v.into(),
            4 => result.tries = small(v)?,
            5 => result.route = v.into(),
            6 => result.tier = small(v)?,
            _ => {}
        }
    }
    Ok(result)
}

/// Body of a CHUNK: these 24 bytes, then the data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkHead {
    /// The message it will belong to.
    pub id: TransactionId,
    /// Which part, from 0.
    pub part: u32,
    /// Which copy of the message.
    pub copy: u16,
}

/// Bytes before the data of a CHUNK.
pub const CHUNK_HEAD: usize = 24;

impl ChunkHead {
    /// Of no message.
    pub const BLANK: Self = Self { id: TransactionId::NONE, part: u32::MAX, copy: u16::MAX };

    /// The stored form.
    #[must_use]
    pub fn to_bytes(self) -> [u8; CHUNK_HEAD] {
        let mut b = [0; CHUNK_HEAD];
        b[..16].copy_from_slice(&self.id.to_bytes());
        b[16..20].copy_from_slice(&self.part.to_le_bytes());
        b[20..22].copy_from_slice(&self.copy.to_le_bytes());
        b
    }

    /// Splits a CHUNK's body into head and data.
    ///
    /// # Errors
    /// When it is too short.
    pub fn split(body: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let (head, data) = body.split_at_checked(CHUNK_HEAD).ok_or(Malformed)?;
        let mut r = Reader::new(head);
        let id = TransactionId::from_bytes(r.array()?);
        Ok((Self { id, part: r.u32()?, copy: r.u16()? }, data))
    }
}

/// Number of recipients as the format counts them.
pub(crate) fn count16(n: usize) -> u16 {
    u16::try_from(n).expect("recipients are bounded by limits")
}
