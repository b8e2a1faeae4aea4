//! What a log writes, read back on its way to the disk: which rows of docs/spool.md's crash table
//! a cut falls on is seen from it, and planted bugs are put in here.

use spool::batch::{BatchHeader, Records};
use spool::disk::{AlignedBuffer, Buffer, Device, Disk, Member, Token, WriteTo};
use spool::edits::Edit;
use spool::id::TransactionId;
use spool::index::Trailer;
use spool::limits::{BLOCK, RECORD_HEADER};
use spool::message::{Envelope, MESSAGE_HEAD, MessageHead, flags};
use spool::record::{Change, ChunkHead, RecordHeader, RecordKind};
use spool::segment::{SegmentHeader, SegmentRef};
use spool::sim::SimDisk;
use spool::superblock::Format;

use super::media::Medium;
use super::plan::SEGMENT_BYTES;

/// A batch's content, as far as it matters here.
#[derive(Clone, Debug)]
pub(super) struct BatchNote {
    pub(super) header: BatchHeader,
    pub(super) messages: Vec<TransactionId>,
    pub(super) chunks: Vec<TransactionId>,
    /// DONE, DEFER and the like: of which message, where that stood.
    pub(super) changes: Vec<(TransactionId, SegmentRef, u64)>,
    pub(super) dones: Vec<(TransactionId, SegmentRef, u64)>,
    /// MOVE: where the older copy stands.
    pub(super) moves: Vec<(TransactionId, SegmentRef, u64)>,
    pub(super) cancels: bool,
    /// A report with the DONE of what it replaces.
    pub(super) replaces: bool,
    /// Something in it is of the newest format.
    pub(super) is_newest: bool,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Header(SegmentHeader),
    /// Of which segment, its epoch, and whether the newest format is needed to read it.
    Footer(SegmentRef, u64, bool),
    Batch(Box<BatchNote>),
    /// A piece copied to a member that is being filled.
    Copied,
}

/// One write of this life.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) token: Token,
    pub(super) members: [Option<Member>; 2],
    pub(super) offset: u64,
    pub(super) bytes: usize,
    pub(super) what: What,
    pub(super) open: u8,
    pub(super) failed: bool,
}

impl Note {
    pub(super) fn is_durable(&self) -> bool {
        self.open == 0 && !self.failed
    }

    pub(super) fn batch(&self) -> Option<&BatchNote> {
        match &self.what {
            What::Batch(batch) => Some(batch),
            What::Header(_) | What::Footer(..) | What::Copied => None,
        }
    }
}

/// All writes of one log in one life.
#[derive(Default, Debug)]
pub(super) struct Notes {
    pub(super) all: Vec<Note>,
    pub(super) no_epoch: bool,
    /// What the set is written in.
    pub(super) format: Format,
    /// Members that are being filled.
    pub(super) filling: Vec<Member>,
}

impl Notes {
    pub(super) fn completed(&mut self, token: Token, ok: bool) {
        if let Some(note) = self.all.iter_mut().rev().find(|n| n.token == token) {
            note.open = note.open.saturating_sub(1);
            note.failed |= !ok;
        }
    }

    pub(super) fn open(&self) -> impl Iterator<Item = &Note> {
        self.all.iter().rev().take(64).filter(|n| n.open > 0)
    }

    pub(super) fn durable(&self) -> impl Iterator<Item = &Note> {
        self.all.iter().filter(|n| n.is_durable())
    }

    /// The highest watermark that is durable.
    pub(super) fn watermark(&self) -> u64 {
        let of = |n: &Note| match &n.what {
            What::Batch(b) => b.header.durable_through,
            What::Header(h) => h.durable_through,
            What::Footer(..) | What::Copied => 0,
        };
        self.durable().map(of).max().unwrap_or(0)
    }
}

/// The disk of a log, with somebody who takes notes.
pub(super) struct Watched<'a> {
    pub(super) disk: &'a mut SimDisk<Medium>,
    pub(super) notes: &'a mut Notes,
}

impl Disk for Watched<'_> {
    type Buffer = AlignedBuffer;

    fn write(&mut self, token: Token, to: WriteTo, mut buffer: AlignedBuffer) {
        if self.notes.no_epoch {
            forget_epoch(&mut buffer.bytes_mut()[..to.bytes]);
        }
        let copied = matches!(to.members, [Some(m), None] if self.notes.filling.contains(&m));
        let what = if copied { What::Copied } else { read(&buffer.bytes()[..to.bytes]) };
        let newest = match &what {
            What::Batch(batch) => batch.is_newest,
            What::Footer(.., newest) => *newest,
            What::Header(_) | What::Copied => false,
        };
        assert!(!newest || self.notes.format == Format::NEWEST, "written before it was raised");
        let open = u8::try_from(to.members.iter().flatten().count()).expect("one or two");
        let WriteTo { members, offset, bytes } = to;
        trace(&what, members);
        self.notes.all.push(Note { token, members, offset, bytes, what, open, failed: false });
        self.disk.write(token, to, buffer);
    }

    fn read(&mut self, token: Token, member: Member, offset: u64, bytes: usize) {
        self.disk.read(token, member, offset, bytes);
    }

    fn abandon(&mut self, member: Member) {
        self.disk.abandon(member);
    }
}

/// With `RINGPOST_SIM_ID`: every write that speaks of that message, and every use of a segment.
fn trace(what: &What, members: [Option<Member>; 2]) {
    let Ok(wanted) = std::env::var("RINGPOST_SIM_ID") else { return };
    match what {
        What::Header(h) => {
            eprintln!("WRITE {members:?} header {:?} epoch {:x} {:?}", h.segment, h.epoch, h.kind);
        }
        What::Footer(at, epoch, _) => {
            eprintln!("WRITE {members:?} footer {at:?} epoch {epoch:x}");
        }
        What::Copied => {}
        What::Batch(b) => {
            let mine = |id: &TransactionId| id.to_string() == wanted;
            let changes = b.changes.iter().filter(|c| mine(&c.0));
            let changes: Vec<_> = changes.map(|(_, at, epoch)| (at, epoch)).collect();
            let (h, is_there) = (&b.header, b.messages.iter().any(mine));
            if is_there || !changes.is_empty() {
                eprintln!(
                    "WRITE {members:?} batch {} attempt {} in {:?} epoch {:x}: MSG {is_there}, \
                     changes {changes:x?}, dones {}, moves {}",
                    h.seq,
                    h.attempt,
                    h.segment,
                    h.epoch,
                    b.dones.iter().any(|d| mine(&d.0)),
                    b.moves.iter().any(|d| mine(&d.0)),
                );
            }
        }
    }
}

/// What these bytes are.
pub(super) fn read(bytes: &[u8]) -> What {
    if let Some((header, _)) = BatchHeader::decode(bytes) {
        return What::Batch(Box::new(read_batch(bytes, header)));
    }
    if bytes[..8] == spool::segment::MAGIC {
        let log = u128::from_le_bytes(bytes[8..24].try_into().expect("16 bytes"));
        let at = SegmentRef(u32::from_le_bytes(bytes[32..36].try_into().expect("4 bytes")));
        return What::Header(SegmentHeader::decode(bytes, log, at).expect("a header made here"));
    }
    let trailer = Trailer::decode(bytes).expect("a log writes headers, batches and footers");
    let records = trailer.records(bytes).expect("a footer made here");
    What::Footer(trailer.segment, trailer.epoch, !is_of_records(records))
}

/// Whole records from front to end, as a reader of the first format walks them.
fn is_of_records(footer: &[u8]) -> bool {
    let mut rest = footer;
    while let Some(header) = RecordHeader::decode(rest) {
        let length = RECORD_HEADER + usize::try_from(header.length).expect("32 bits");
        let known = RecordKind::of(header.kind).is_some_and(|kind| kind != RecordKind::Dones);
        let Some(behind) = rest.get(length..).filter(|_| known) else { return false };
        rest = behind;
    }
    rest.is_empty()
}

fn read_batch(bytes: &[u8], header: BatchHeader) -> BatchNote {
    let mut note = BatchNote {
        header,
        messages: Vec::new(),
        chunks: Vec::new(),
        changes: Vec::new(),
        dones: Vec::new(),
        moves: Vec::new(),
        cancels: false,
        replaces: false,
        is_newest: false,
    };
    for record in Records::new(bytes, &header) {
        let record = record.expect("a batch made here");
        match RecordKind::of(record.header.kind) {
            Some(RecordKind::Message) => {
                let parts = MessageHead::split(record.body).expect("made here");
                let envelope = Envelope::decode(parts.envelope).expect("made here");
                note.messages.push(envelope.id);
                let made = |edit: &Edit| matches!(edit, Edit::Received(_));
                let short = *parts.head.stored(Format::V1) != record.body[..MESSAGE_HEAD];
                note.is_newest |= short || envelope.edits.iter().any(made);
                // Its DONE follows, if it replaces something.
                note.replaces |= envelope.flags & flags::GENERATED != 0 && parts.head.copy == 0;
            }
            Some(RecordKind::Chunk) => {
                let (head, _) = ChunkHead::split(record.body).expect("made here");
                note.chunks.push(head.id);
            }
            _ => {
                let (kind, body) = (record.header.kind, record.body);
                note.is_newest |= kind == RecordKind::Dones as u8;
                for change in Change::decode_all(kind, body).expect("made here") {
                    let target = change.target();
                    let place = (target.id, target.segment, target.epoch);
                    note.changes.push(place);
                    match change {
                        Change::Done(_) => note.dones.push(place),
                        Change::Move(..) => note.moves.push(place),
                        Change::Cancel(_) => note.cancels = true,
                        _ => {}
                    }
                }
            }
        }
    }
    note.replaces &= !note.dones.is_empty();
    note
}

/// The epoch that stands on the medium for that segment.
pub(super) fn epoch_on(medium: &Medium, at: SegmentRef) -> Option<u64> {
    let start = usize::try_from(at.device_offset(SEGMENT_BYTES)).expect("small");
    medium.with(|device| {
        let block = device.medium().get(start..start + BLOCK)?;
        let log = u128::from_le_bytes(block[8..24].try_into().ok()?);
        SegmentHeader::decode(block, log, at).ok().map(|h| h.epoch)
    })
}

/// As planted: the same epoch for every use of every segment.
fn forget_epoch(bytes: &mut [u8]) {
    if let Some((mut header, _)) = BatchHeader::decode(bytes) {
        (header.epoch, header.previous_epoch, header.stale_epoch) = (1, 1, 1);
        header.encode(bytes);
    } else if bytes[..8] == spool::segment::MAGIC {
        if let What::Header(mut header) = read(bytes) {
            header.epoch = 1;
            bytes[..BLOCK].copy_from_slice(&header.encode());
        }
    } else if let Some(mut trailer) = Trailer::decode(bytes) {
        trailer.epoch = 1;
        let used = usize::try_from(trailer.used).expect("small");
        let records = bytes[..used].to_vec();
        trailer.encode(&records, bytes);
    }
}

/// Gives the device's bytes a flipped bit.
pub(super) fn rot(medium: &Medium, offset: u64, random: &mut spool::sim::Random) {
    medium.with(|device| device.rot(offset, random));
    debug_assert!(medium.bytes() > offset);
}
