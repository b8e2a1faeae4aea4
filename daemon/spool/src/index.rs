//! The footer of a sealed segment: what stands in it, so that nobody has to read it all.
//!
//! *Guarantees*: written only when every batch of the segment is durable. It is a help, not the
//! truth: one that does not check is not used, and the segment is read instead.
//!
//! *Limits*: `FOOTER_BYTES_MAX`.

use crate::bytes::{
    Malformed, Reader, index, len32, number, put_field, put_number, put_some, put_varint,
    put_varint64, round_up, small, step, stepped,
};
use crate::id::{ID_STEP_MAX, TransactionId};
use crate::ledger::{LEDGER_BYTES, Ledger};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_HEADER, BLOCK, FOOTER_BYTES_MAX, RECORD_ALIGN, RECORD_HEADER,
};
use crate::message::{Envelope, MessageHead};
use crate::record::{
    ChunkHead, RecipientState, RecordHeader, RecordKind, count16, encode_record, read_id,
};
use crate::segment::SegmentRef;
use crate::superblock::Format;

/// What the log keeps in memory of a message, and the footer on disk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// The message.
    pub id: TransactionId,
    /// Offset of its MSG in the segment.
    pub offset: u32,
    /// Bytes of the record with its header.
    pub length: u32,
    /// Octets of header section and body.
    pub octets: u64,
    /// Recipients.
    pub recipients: u16,
    /// Which copy.
    pub copy: u16,
    /// Chunks before it.
    pub chunks: u32,
    /// Bits of `message::flags`.
    pub flags: u32,
    /// Wall time of receipt.
    pub received_wall_us: u64,
    /// Wall time of expiry, or 0.
    pub expiry_wall_us: u64,
    /// Wall time of the next try, or 0.
    pub next_wall_us: u64,
    /// Tries so far (the most of any recipient).
    pub tries: u16,
    /// Fallback tier (the highest of any recipient).
    pub tier: u8,
    /// One bit per recipient that needs work: the first 64.
    pub pending: u64,
    /// The others.
    pub pending_more: Vec<u64>,
}

impl Summary {
    /// Of a message as it is written. Place and length are filled in later.
    #[must_use]
    pub fn of(envelope: &Envelope, head: &MessageHead) -> Self {
        let mut summary = Self {
            id: envelope.id,
            octets: u64::from(head.header) + head.body,
            recipients: count16(envelope.recipients.len()),
            copy: head.copy,
            chunks: head.chunks,
            flags: envelope.flags,
            received_wall_us: envelope.received_wall_us,
            expiry_wall_us: envelope.expiry_wall_us,
            next_wall_us: envelope.next_wall_us,
            ..Self::default()
        };
        for (i, recipient) in envelope.recipients.iter().enumerate() {
            summary.tries = summary.tries.max(recipient.tries);
            summary.tier = summary.tier.max(recipient.tier);
            if recipient.state == RecipientState::Held {
                summary.flags |= crate::message::flags::HELD;
            }
            if !recipient.state.is_final() {
                summary.set_pending(i);
            }
        }
        summary
    }

    fn set_pending(&mut self, i: usize) {
        if i < 64 {
            self.pending |= 1 << i;
            return;
        }
        let word = i / 64 - 1;
        if self.pending_more.len() <= word {
            self.pending_more.resize(word + 1, 0);
        }
        self.pending_more[word] |= 1 << (i % 64);
    }

    fn is_all_pending(&self) -> bool {
        if self.recipients <= 64 {
            let bits = u64::MAX.checked_shr(64 - u32::from(self.recipients)).unwrap_or(0);
            return self.pending == bits && self.pending_more.is_empty();
        }
        let all = Self::all_pending(self.recipients);
        (self.pending, &self.pending_more) == (all.pending, &all.pending_more)
    }

    fn all_pending(recipients: u16) -> Self {
        let mut all = Self::default();
        for i in 0..usize::from(recipients) {
            all.set_pending(i);
        }
        all
    }

    /// The footer's record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(RECORD_HEADER + 64);
        self.append_to(&mut out);
        out
    }

    /// Appends the footer's record.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + RECORD_HEADER, 0);
        self.put_fields(out);
        let (_, record) = out.split_at_mut(start);
        let (head, body) = record.split_at_mut(RECORD_HEADER);
        head.copy_from_slice(&RecordHeader::of(RecordKind::IndexMessage, body).to_bytes());
    }

    fn put_fields(&self, b: &mut Vec<u8>) {
        put_field(b, 1, &self.id.to_bytes());
        put_number(b, 2, u64::from(self.offset));
        put_number(b, 3, u64::from(self.length));
        put_number(b, 4, self.octets);
        put_number(b, 5, u64::from(self.recipients));
        put_number(b, 6, u64::from(self.copy));
        put_number(b, 7, u64::from(self.chunks));
        put_number(b, 8, u64::from(self.flags));
        put_number(b, 9, self.received_wall_us);
        put_number(b, 10, self.expiry_wall_us);
        put_number(b, 11, self.next_wall_us);
        put_number(b, 12, u64::from(self.tries));
        put_number(b, 13, u64::from(self.tier));
        if !self.is_all_pending() {
            put_some(b, 14, Some(self.pending));
            for word in &self.pending_more {
                put_some(b, 15, Some(*word));
            }
        }
    }

    /// Reads the footer's record.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut s = Self::default();
        let mut all = true;
        let mut r = Reader::new(body);
        while !r.is_empty() {
            let (field, v) = r.field()?;
            match field {
                1 => s.id = read_id(v)?,
                2 => s.offset = small(v)?,
                3 => s.length = small(v)?,
                4 => s.octets = number(v)?,
                5 => s.recipients = small(v)?,
                6 => s.copy = small(v)?,
                7 => s.chunks = small(v)?,
                8 => s.flags = small(v)?,
                9 => s.received_wall_us = number(v)?,
                10 => s.expiry_wall_us = number(v)?,
                11 => s.next_wall_us = number(v)?,
                12 => s.tries = small(v)?,
                13 => s.tier = small(v)?,
                14 => {
                    s.pending = number(v)?;
                    all = false;
                }
                15 => s.pending_more.push(number(v)?),
                _ => {}
            }
        }
        if all {
            let all = Self::all_pending(s.recipients);
            (s.pending, s.pending_more) = (all.pending, all.pending_more);
        }
        Ok(s)
    }
}

/// Footer record: the records behind it stand in this batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexBatch {
    /// Its number.
    pub seq: u64,
    /// Its offset in the segment.
    pub offset: u32,
    /// Segment where a failed attempt may stand.
    pub stale_segment: SegmentRef,
    /// That segment's epoch.
    pub stale_epoch: u64,
    /// How often it was written elsewhere before.
    pub attempt: u16,
}

impl IndexBatch {
    /// The footer's record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut b = Vec::with_capacity(26);
        b.extend_from_slice(&self.seq.to_le_bytes());
        b.extend_from_slice(&self.offset.to_le_bytes());
        b.extend_from_slice(&self.stale_segment.0.to_le_bytes());
        b.extend_from_slice(&self.stale_epoch.to_le_bytes());
        b.extend_from_slice(&self.attempt.to_le_bytes());
        encode_record(RecordKind::IndexBatch, &b)
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it is too short.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body);
        Ok(Self {
            seq: r.u64()?,
            offset: r.u32()?,
            stale_segment: SegmentRef(r.u32()?),
            stale_epoch: r.u64()?,
            attempt: r.u16()?,
        })
    }
}

/// Footer record: a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexChunk {
    /// Whose, and which part.
    pub head: ChunkHead,
    /// Offset of the record in the segment.
    pub offset: u32,
    /// Its bytes with header.
    pub length: u32,
}

impl IndexChunk {
    /// The footer's record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut b = self.head.to_bytes().to_vec();
        b.extend_from_slice(&self.offset.to_le_bytes());
        b.extend_from_slice(&self.length.to_le_bytes());
        encode_record(RecordKind::IndexChunk, &b)
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it is too short.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let (head, rest) = ChunkHead::split(body)?;
        let mut r = Reader::new(rest);
        Ok(Self { head, offset: r.u32()?, length: r.u32()? })
    }
}

/// Fourth byte of a short line. It is that of a record's length elsewhere, and zero there.
const SHORT: u8 = 0xff;
const _: () = assert!(BATCH_BYTES_MAX < 1 << 24);
/// Bytes before what a short line says: how much that is, bits, recipients, `SHORT`.
const SHORT_HEAD: usize = 4;
/// Bit of a short line: it does not stand behind what was there before it.
const ELSEWHERE: u8 = 1;
/// A short line at its longest: its length is one byte.
const SHORT_MAX: usize = SHORT_HEAD + 5 + ID_STEP_MAX + 5 + 10 + 10;
const _: () = assert!(SHORT_MAX - SHORT_HEAD <= 255);

/// What a short line leaves out because the one before it says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Before {
    id: TransactionId,
    received_wall_us: u64,
}

impl Summary {
    /// Nothing to say of it but who it is, where and when.
    fn is_plain(&self) -> bool {
        let plain = Self {
            id: self.id,
            offset: self.offset,
            length: self.length,
            octets: self.octets,
            recipients: self.recipients,
            received_wall_us: self.received_wall_us,
            pending: self.pending,
            ..Self::default()
        };
        self.recipients <= 64 && *self == plain && self.is_all_pending()
    }

    fn put_short(&self, before: Before, cursor: u32, out: &mut Vec<u8>) {
        let start = out.len();
        let recipients = u8::try_from(self.recipients).expect("asked by is_plain");
        let bits = if self.offset == cursor { 0 } else { ELSEWHERE };
        out.extend_from_slice(&[0, bits, recipients, SHORT]);
        if bits & ELSEWHERE != 0 {
            put_varint(out, self.offset);
        }
        self.id.put_after(before.id, out);
        put_varint(out, self.length);
        put_varint64(out, step(u64::from(self.length), self.octets));
        put_varint64(out, step(before.received_wall_us, self.received_wall_us));
        let length = out.len() - start - SHORT_HEAD;
        out[start] = u8::try_from(length).expect("as asserted above");
    }

    fn read_short(
        (bits, recipients): (u8, u8),
        body: &[u8],
        before: Before,
        cursor: u32,
    ) -> Result<Self, Malformed> {
        let mut r = Reader::new(body);
        let offset = if bits & ELSEWHERE == 0 { cursor } else { r.varint()? };
        let id = TransactionId::read_after(before.id, &mut r)?;
        let length = r.varint()?;
        let octets = stepped(u64::from(length), r.varint64()?);
        let received_wall_us = stepped(before.received_wall_us, r.varint64()?);
        // What a later version may say behind it is not for us.
        let recipients = u16::from(recipients);
        let all = Self::all_pending(recipients);
        Ok(Self { id, offset, length, octets, recipients, received_wall_us, ..all })
    }
}

/// Appends what a footer says of a batch, in the order of its records.
#[derive(Debug)]
pub struct IndexLines<'a> {
    out: &'a mut Vec<u8>,
    format: Format,
    cursor: u32,
    before: Before,
}

impl<'a> IndexLines<'a> {
    /// Behind what `out` says of other batches.
    pub fn new(out: &'a mut Vec<u8>, format: Format, batch: &IndexBatch) -> Self {
        out.extend_from_slice(&batch.encode());
        let cursor = batch.offset + len32(BATCH_HEADER);
        Self { out, format, cursor, before: Before::default() }
    }

    fn passed(&mut self, offset: u32, length: u32) {
        self.cursor = (offset + length).next_multiple_of(len32(RECORD_ALIGN));
    }

    /// A MSG.
    pub fn message(&mut self, summary: &Summary) {
        if self.format >= Format::V2 && summary.is_plain() {
            summary.put_short(self.before, self.cursor, self.out);
        } else {
            summary.append_to(self.out);
        }
        self.before = Before { id: summary.id, received_wall_us: summary.received_wall_us };
        self.passed(summary.offset, summary.length);
    }

    /// A CHUNK, or what keeps the place of a record of which nothing is to be said.
    pub fn chunk(&mut self, chunk: &IndexChunk) {
        self.out.extend_from_slice(&chunk.encode());
        self.passed(chunk.offset, chunk.length);
    }

    /// Any other record, as it stands.
    pub fn other(&mut self, whole: &[u8]) {
        self.out.extend_from_slice(whole);
        self.passed(self.cursor, len32(whole.len()));
    }
}

/// First bytes of a footer's trailer.
pub const MAGIC: [u8; 8] = *b"RPINDEX1";
/// Bytes of the trailer, the last of the segment.
pub const TRAILER: usize = 256;
const CRC_AT: usize = TRAILER - 4;
const BODY: usize = 8 + 16 + 8 + 4 + 4 + 4 + 4 + 8 + 8 + 8 + 4 + 2 + 2 + LEDGER_BYTES;
const _: () = assert!(BODY <= CRC_AT);

/// The end of a sealed segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// The log.
    pub log: u128,
    /// Epoch of the segment.
    pub epoch: u64,
    /// The segment.
    pub segment: SegmentRef,
    /// Bytes of footer and trailer together: a multiple of the block.
    pub bytes: u32,
    /// Bytes of records at the front of the footer.
    pub used: u32,
    /// Checksum of those.
    pub records_crc: u32,
    /// First batch in the segment; 0 for none.
    pub first_seq: u64,
    /// Last batch in the segment; 0 for none.
    pub last_seq: u64,
    /// Wall time of the last batch.
    pub wall_us: u64,
    /// Run that wrote it.
    pub run: u32,
    /// Core that wrote it.
    pub core: u16,
    /// The ledger with the last batch, as change since the start of the run.
    pub ledger: Ledger,
}

/// Bytes a footer with `used` bytes of records takes.
#[must_use]
pub fn footer_bytes(used: usize) -> usize {
    round_up(used + TRAILER, BLOCK)
}

impl Trailer {
    /// Footer and trailer into the front of `out`; returns the bytes to write, which end at the
    /// segment's end.
    ///
    /// # Panics
    /// When the records are more than a footer holds (the writer seals before).
    pub fn encode(mut self, records: &[u8], out: &mut [u8]) -> usize {
        let bytes = footer_bytes(records.len());
        assert!(bytes <= FOOTER_BYTES_MAX, "the writer seals before the footer is full");
        self.bytes = len32(bytes);
        self.used = len32(records.len());
        self.records_crc = crc32c::crc32c(records);
        out[..records.len()].copy_from_slice(records);
        out[records.len()..bytes].fill(0);
        let mut b = Vec::with_capacity(TRAILER);
        b.extend_from_slice(&MAGIC);
        b.extend_from_slice(&self.log.to_le_bytes());
        b.extend_from_slice(&self.epoch.to_le_bytes());
        for v in [self.segment.0, self.bytes, self.used, self.records_crc] {
            b.extend_from_slice(&v.to_le_bytes());
        }
        for v in [self.first_seq, self.last_seq, self.wall_us] {
            b.extend_from_slice(&v.to_le_bytes());
        }
        b.extend_from_slice(&self.run.to_le_bytes());
        b.extend_from_slice(&self.core.to_le_bytes());
        b.extend_from_slice(&0u16.to_le_bytes());
        b.extend_from_slice(&self.ledger.to_bytes());
        b.resize(CRC_AT, 0);
        let crc = crc32c::crc32c(&b);
        b.extend_from_slice(&crc.to_le_bytes());
        out[bytes - TRAILER..bytes].copy_from_slice(&b);
        bytes
    }

    /// Reads the last `TRAILER` bytes of a segment; `None` when they are no trailer.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let b = bytes.get(bytes.len().checked_sub(TRAILER)?..)?;
        let crc = u32::from_le_bytes(b[CRC_AT..].try_into().ok()?);
        if b[..8] != MAGIC || crc32c::crc32c(&b[..CRC_AT]) != crc {
            return None;
        }
        let t = Self::read(&mut Reader::new(&b[8..])).ok()?;
        let size = index(t.bytes);
        let sane = size.is_multiple_of(BLOCK)
            && size <= FOOTER_BYTES_MAX
            && index(t.used).checked_add(TRAILER).is_some_and(|n| n <= size);
        sane.then_some(t)
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            log: r.u128()?,
            epoch: r.u64()?,
            segment: SegmentRef(r.u32()?),
            bytes: r.u32()?,
            used: r.u32()?,
            records_crc: r.u32()?,
            first_seq: r.u64()?,
            last_seq: r.u64()?,
            wall_us: r.u64()?,
            run: r.u32()?,
            core: {
                let core = r.u16()?;
                r.u16()?;
                core
            },
            ledger: Ledger::read(r)?,
        })
    }

    /// The records of the footer (`footer` is all of it) when they check.
    #[must_use]
    pub fn records<'a>(&self, footer: &'a [u8]) -> Option<&'a [u8]> {
        let records = footer.get(..index(self.used))?;
        (crc32c::crc32c(records) == self.records_crc).then_some(records)
    }
}

/// One thing a footer speaks of.
#[derive(Clone, Debug)]
pub enum IndexItem<'a> {
    /// What follows stands in this batch.
    Batch(IndexBatch),
    /// A MSG.
    Message(Summary),
    /// A CHUNK.
    Chunk(IndexChunk),
    /// Any other record, verbatim.
    Other {
        /// Offset in the segment.
        offset: u32,
        /// Its type number.
        kind: u8,
        /// Its body.
        body: &'a [u8],
        /// Header and body.
        whole: &'a [u8],
    },
}

/// Walks a footer's records; each batch's records stand in their order, so that the place of
/// every one of them follows.
#[derive(Clone, Debug)]
pub struct IndexWalk<'a> {
    bytes: &'a [u8],
    position: Position,
}

/// Where a walk stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Position {
    at: usize,
    cursor: u32,
    before: Before,
}

impl Position {
    fn passed(&mut self, offset: u32, length: u32) -> Result<(), Malformed> {
        let end = offset.checked_add(length).ok_or(Malformed)?;
        self.cursor = end.checked_next_multiple_of(len32(RECORD_ALIGN)).ok_or(Malformed)?;
        Ok(())
    }

    fn passed_message(&mut self, summary: &Summary) -> Result<(), Malformed> {
        self.before = Before { id: summary.id, received_wall_us: summary.received_wall_us };
        self.passed(summary.offset, summary.length)
    }
}

impl<'a> IndexWalk<'a> {
    /// Over these records.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::resume(bytes, Position::default())
    }

    /// Continues where an earlier walk stood.
    #[must_use]
    pub fn resume(bytes: &'a [u8], position: Position) -> Self {
        Self { bytes, position }
    }

    /// Where the walk stands.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    fn step(&mut self) -> Result<IndexItem<'a>, Malformed> {
        let p = &mut self.position;
        let rest = self.bytes.get(p.at..).ok_or(Malformed)?;
        if let [length, bits, recipients, SHORT, ..] = rest {
            let body = rest[SHORT_HEAD..].get(..usize::from(*length)).ok_or(Malformed)?;
            p.at += SHORT_HEAD + body.len();
            let summary = Summary::read_short((*bits, *recipients), body, p.before, p.cursor)?;
            p.passed_message(&summary)?;
            return Ok(IndexItem::Message(summary));
        }
        let header = RecordHeader::decode(rest).ok_or(Malformed)?;
        let whole = rest.get(..RECORD_HEADER + index(header.length)).ok_or(Malformed)?;
        let body = &whole[RECORD_HEADER..];
        p.at += whole.len();
        match RecordKind::of(header.kind) {
            Some(RecordKind::IndexBatch) => {
                let batch = IndexBatch::decode(body)?;
                p.before = Before::default();
                p.passed(batch.offset, len32(BATCH_HEADER))?;
                Ok(IndexItem::Batch(batch))
            }
            Some(RecordKind::IndexMessage) => {
                let summary = Summary::decode(body)?;
                p.passed_message(&summary)?;
                Ok(IndexItem::Message(summary))
            }
            Some(RecordKind::IndexChunk) => {
                let chunk = IndexChunk::decode(body)?;
                p.passed(chunk.offset, chunk.length)?;
                Ok(IndexItem::Chunk(chunk))
            }
            _ => {
                let offset = p.cursor;
                p.passed(offset, len32(whole.len()))?;
                Ok(IndexItem::Other { offset, kind: header.kind, body, whole })
            }
        }
    }
}

impl<'a> Iterator for IndexWalk<'a> {
    /// `Err` once when the bytes are no index.
    type Item = Result<IndexItem<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position.at >= self.bytes.len() {
            return None;
        }
        let item = self.step();
        if item.is_err() {
            self.position.at = self.bytes.len();
        }
        Some(item)
    }
}

/// Upper bound of what a message adds to a footer.
#[must_use]
pub fn summary_bytes_max(recipients: usize) -> usize {
    const _: () = assert!(SHORT_MAX <= RECORD_HEADER + 128);
    RECORD_HEADER + 128 + (recipients / 64 + 1) * 10
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(counter: u64, offset: u32) -> Summary {
        let session = crate::id::MessageId::new(3, 9, 1, counter);
        let received_wall_us = 1_800_000_000_000_000 + counter * 200;
        let id = TransactionId { session, n: 1 };
        let all = Summary::all_pending(1);
        Summary { id, offset, length: 4250, octets: 4096, recipients: 1, received_wall_us, ..all }
    }

    /// What is walked is what was said, whatever stands between; a plain line is short.
    #[test]
    fn lines_come_back_in_both_formats() {
        let batch = IndexBatch {
            seq: 5,
            offset: 8192,
            stale_segment: SegmentRef::NONE,
            stale_epoch: 0,
            attempt: 0,
        };
        let other = encode_record(RecordKind::Hold, b"not read here");
        for (format, most) in [(Format::V1, 65), (Format::V2, 16)] {
            let mut out = Vec::new();
            let (mut offset, mut said) = (8192 + len32(BATCH_HEADER), Vec::new());
            let mut lines = IndexLines::new(&mut out, format, &batch);
            for n in 0..40 {
                let mut summary = plain(100 + n, offset);
                match n % 8 {
                    3 => summary.flags = crate::message::flags::HELD,
                    5 => summary.pending = 0,
                    6 => summary.offset += 64,
                    7 => summary.id.n = u32::MAX,
                    _ => {}
                }
                lines.message(&summary);
                offset = (summary.offset + summary.length).next_multiple_of(8);
                said.push(summary);
                if n % 3 == 0 {
                    lines.other(&other);
                    offset = (offset + len32(other.len())).next_multiple_of(8);
                }
                if n % 5 == 0 {
                    let chunk = IndexChunk { head: ChunkHead::BLANK, offset, length: 99 };
                    lines.chunk(&chunk);
                    offset = (offset + 99).next_multiple_of(8);
                }
            }
            let mut read = Vec::new();
            let mut walk = IndexWalk::new(&out);
            while let Some(item) = walk.next() {
                let item = item.expect("made here");
                // As whoever walks a little at a time.
                walk = IndexWalk::resume(&out, walk.position());
                if let IndexItem::Message(summary) = item {
                    read.push(summary);
                }
            }
            assert_eq!(read, said);
            let mut out = Vec::new();
            let mut lines = IndexLines::new(&mut out, format, &batch);
            let first = plain(1, 8192 + len32(BATCH_HEADER));
            lines.message(&first);
            let start = lines.out.len();
            lines.message(&plain(2, (first.offset + first.length).next_multiple_of(8)));
            assert!(out.len() - start <= most, "{} octets in {format:?}", out.len() - start);
        }
    }

    #[test]
    fn noise_ends_a_walk() {
        let mut random = 7u64;
        for length in 0..2_000 {
            let noise: Vec<u8> = (0..length % 97)
                .map(|n| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let octet = random.to_be_bytes()[0];
                    if n % 4 == 3 && octet > 60 { SHORT } else { octet }
                })
                .collect();
            assert!(IndexWalk::new(&noise).count() <= noise.len() + 1);
        }
    }

    #[test]
    fn pending_bits_are_left_out_only_when_all_are_set() {
        for recipients in [0u16, 1, 2, 63, 64, 65, 128, 129, 300] {
            let mut summary = Summary { recipients, ..Summary::all_pending(recipients) };
            let length = summary.encode().len();
            for settled in [None, Some(0), Some(recipients.saturating_sub(1))] {
                let settled = settled.filter(|_| recipients > 0);
                if let Some(n) = settled {
                    let n = usize::from(n);
                    match n.checked_sub(64) {
                        None => summary.pending &= !(1 << n),
                        Some(more) => summary.pending_more[more / 64] &= !(1 << (more % 64)),
                    }
                }
                let record = summary.encode();
                assert_eq!(Summary::decode(&record[RECORD_HEADER..]), Ok(summary.clone()));
                assert_eq!(record.len() == length, settled.is_none(), "{recipients}");
            }
        }
    }
}
