//! Transactions: a message on its way in.
//!
//! *Guarantees*: the body is copied once into memory and once into the batch; nothing of a
//! transaction that was not committed is read by recovery.
//!
//! *Limits*: header section, inline body and chunks waiting as in `limits`; memory of all
//! transactions as in `LogConfig`; space is promised before it is needed.

use crate::bytes::{len32, len64};
use crate::disk::Buffer;
use crate::id::TransactionId;
use crate::index::{Summary, summary_bytes_max};
use crate::limits::{
    BODY_INLINE_MAX, CHUNK_BYTES, CHUNKS_MAX, CHUNKS_WAITING_MAX, ENVELOPE_BYTES_MAX,
    HEADER_SECTION_MAX, RECIPIENTS_MAX, RECORD_ALIGN, RECORD_HEADER, RESERVE_SHARE, RESERVE_STEP,
    RESERVE_STEP_MIN,
};
use crate::live::Place;
use crate::message::{Envelope, MESSAGE_HEAD, MessageHead};
use crate::received;
use crate::record::Change;

use super::batches::{ChangeItem, ChunkItem, Item, Outgoing};
use super::{Content, Event, Health, Log};

/// Memory taken at once for a body whose SIZE was declared: the client may not send it.
const BODY_RESERVED_MAX: usize = 32 << 10;
/// Header sections and bodies whose memory is used again: how many, and how large each may be.
const CONTENTS_KEPT: usize = 64;
const CONTENT_KEPT_BYTES: usize = 16 << 10;

/// An open transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transaction {
    slot: u32,
    generation: u32,
}

/// Who opens it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenKind {
    /// A client: must leave the log's own reserve alone, and hears 451 when the device is stuck.
    Client,
    /// The daemon itself (DSN): may use the reserve, and waits for the device.
    Own,
}

/// Why no transaction is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// 452: no space for a message of that size.
    NoSpace,
    /// 452: too many messages in the log.
    TableFull,
    /// 451: too many transactions, or no memory for one more.
    Busy,
    /// 451: the log cannot be written.
    Failed,
    /// 421: closing.
    Closing,
}

/// Why a transaction cannot go on. It must be aborted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransactionError {
    /// 452: it outgrew the space.
    NoSpace,
    /// 552: header section over `HEADER_SECTION_MAX`.
    HeaderTooLarge,
    /// 552: more chunks than a message may have, or more at once than a small segment takes.
    TooLarge,
    /// 452: envelope or recipients over the limit.
    EnvelopeTooLarge,
    /// 451: the log cannot be written.
    Failed,
    /// Not open (any more).
    Unknown,
}

/// May more be sent?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// Yes.
    Go,
    /// These bytes were taken; receive no more until `Event::Resume`.
    Pause,
}

#[derive(Debug)]
pub(super) struct Tx {
    generation: u32,
    open: bool,
    pub(super) token: u64,
    id: TransactionId,
    kind: OpenKind,
    header: Vec<u8>,
    body: Vec<u8>,
    body_octets: u64,
    declared: u64,
    reserved: u64,
    parts: u32,
    pub(super) chunks_waiting: u32,
    chunks: Vec<Place>,
    paused: bool,
    failed: bool,
}

impl<B: Buffer> Log<B> {
    /// Opens a transaction for the message `id`. `token` comes back in events; `declared` is
    /// SIZE=.
    ///
    /// # Errors
    /// Says what to answer.
    pub fn open(
        &mut self,
        kind: OpenKind,
        id: TransactionId,
        declared: Option<u64>,
        token: u64,
    ) -> Result<Transaction, Refusal> {
        if self.closing && kind == OpenKind::Client {
            return Err(Refusal::Closing);
        }
        if self.health == Health::Failed && kind == OpenKind::Client {
            return Err(Refusal::Failed);
        }
        if self.table.len() >= self.config.messages_max {
            return Err(Refusal::TableFull);
        }
        let open = self.txs.len() - self.txs_free.len();
        let crowded = open >= crate::bytes::index(self.config.transactions_max)
            || self.memory > self.config.memory_max / 4 * 3;
        if crowded && kind == OpenKind::Client {
            return Err(Refusal::Busy);
        }
        let reserved = match declared {
            Some(bytes) => bytes.saturating_add(RESERVE_STEP_MIN),
            None => self.reserve_step(),
        };
        if kind == OpenKind::Client && self.available() < reserved {
            return Err(Refusal::NoSpace);
        }
        self.reserved += reserved;
        let slot = self.tx_slot();
        let tx = &mut self.txs[crate::bytes::index(slot)];
        *tx = Tx {
            generation: tx.generation.wrapping_add(1),
            open: true,
            token,
            id,
            kind,
            declared: declared.unwrap_or(0),
            reserved,
            ..Tx::empty()
        };
        Ok(Transaction { slot, generation: tx.generation })
    }

    /// What a transaction of unknown size takes at a time: less in a small log, so that many
    /// sessions have room in it.
    fn reserve_step(&self) -> u64 {
        let all = len64(self.segments.len()) * u64::from(self.segment_bytes);
        (all / RESERVE_SHARE).clamp(RESERVE_STEP_MIN, RESERVE_STEP)
    }

    fn tx_slot(&mut self) -> u32 {
        self.txs_free.pop().unwrap_or_else(|| {
            self.txs.push(Tx::empty());
            len32(self.txs.len() - 1)
        })
    }

    fn tx(&mut self, tx: Transaction) -> Result<&mut Tx, TransactionError> {
        self.txs
            .get_mut(crate::bytes::index(tx.slot))
            .filter(|t| t.generation == tx.generation && t.open)
            .ok_or(TransactionError::Unknown)
    }

    /// Adds to the header section (as received, with the empty line at its end).
    ///
    /// # Errors
    /// When it is too large, or the log failed.
    pub fn append_header(
        &mut self,
        tx: Transaction,
        bytes: &[u8],
    ) -> Result<Flow, TransactionError> {
        let t = self.tx(tx)?;
        if t.failed {
            return Err(TransactionError::Failed);
        }
        if t.header.len() + bytes.len() > HEADER_SECTION_MAX {
            return Err(TransactionError::HeaderTooLarge);
        }
        let t = &mut self.txs[crate::bytes::index(tx.slot)];
        if t.header.capacity() == 0 {
            t.header = self.headers.pop().unwrap_or_default();
        }
        t.header.extend_from_slice(bytes);
        self.memory += bytes.len();
        self.flow(tx)
    }

    /// Adds to the body; a large one goes to the device in chunks.
    ///
    /// # Errors
    /// When there is no space, or the log failed.
    pub fn append_body(&mut self, tx: Transaction, bytes: &[u8]) -> Result<Flow, TransactionError> {
        let memory_short = self.memory > self.config.memory_max / 2;
        let (available, step) = (self.available(), self.reserve_step());
        let t = self.tx(tx)?;
        if t.failed {
            return Err(TransactionError::Failed);
        }
        t.body_octets += len64(bytes.len());
        let needed = t.body_octets + len64(t.header.len());
        let mut grown = 0;
        if needed > t.reserved {
            grown = step.max(needed - t.reserved);
            if t.kind == OpenKind::Client && grown > available {
                return Err(TransactionError::NoSpace);
            }
            t.reserved += grown;
        }
        let mut rest = bytes;
        let mut items = Vec::new();
        let mut chunks = std::mem::take(&mut self.chunks);
        let mut bodies = std::mem::take(&mut self.bodies);
        let t = self.tx(tx)?;
        while !rest.is_empty() {
            let limit = if memory_short { CHUNK_BYTES / 4 } else { BODY_INLINE_MAX };
            let room = limit.saturating_sub(t.body.len());
            if room == 0 {
                items.push(t.cut(&mut chunks)?);
                continue;
            }
            let (now, later) = rest.split_at(rest.len().min(room));
            if t.body.capacity() == 0 {
                let whole = t.declared.min(len64(BODY_RESERVED_MAX));
                t.body = bodies.pop().unwrap_or_default();
                t.body.reserve(now.len().max(usize::try_from(whole).unwrap_or(0)));
            }
            t.body.extend_from_slice(now);
            rest = later;
        }
        (self.chunks, self.bodies) = (chunks, bodies);
        self.reserved += grown;
        self.memory += bytes.len();
        for (id, part, data) in items {
            let item = ChunkItem { slot: tx.slot, generation: tx.generation, id, part, data };
            self.enqueue(Item::Chunk(item));
        }
        self.flow(tx)
    }

    fn flow(&mut self, tx: Transaction) -> Result<Flow, TransactionError> {
        let full = self.memory >= self.config.memory_max;
        let t = self.tx(tx)?;
        if full || t.chunks_waiting > CHUNKS_WAITING_MAX {
            t.paused = true;
            self.paused = true;
            return Ok(Flow::Pause);
        }
        Ok(Flow::Go)
    }

    /// The header section so far.
    ///
    /// # Errors
    /// When it is not open.
    pub fn header(&self, tx: Transaction) -> Result<&[u8], TransactionError> {
        self.txs
            .get(crate::bytes::index(tx.slot))
            .filter(|t| t.generation == tx.generation && t.open)
            .map(|t| t.header.as_slice())
            .ok_or(TransactionError::Unknown)
    }

    /// The body so far, when all of it is still in memory.
    #[must_use]
    pub fn body(&self, tx: Transaction) -> Option<&[u8]> {
        let t = self.txs.get(crate::bytes::index(tx.slot))?;
        let here = t.generation == tx.generation && t.open && t.parts == 0;
        here.then_some(t.body.as_slice())
    }

    /// Forgets it. What was written as chunks is dead.
    pub fn abort(&mut self, tx: Transaction) {
        if let Ok(t) = self.tx(tx) {
            t.open = false;
            let memory = t.header.len() + t.body.len();
            self.memory -= memory;
            self.free_tx(tx.slot);
        }
    }

    /// Hands it to the next batch: `Event::Committed` or `Event::Refused` follows. The changes in
    /// `replaces` (DONE of what this message takes the place of) stand in the same batch.
    /// The envelope's id must be the transaction's.
    ///
    /// # Errors
    /// Nothing was kept then, and the transaction is closed.
    pub fn commit(
        &mut self,
        tx: Transaction,
        envelope: &Envelope,
        replaces: Vec<Change>,
    ) -> Result<(), TransactionError> {
        let fits = self.tx(tx)?.failed.then_some(TransactionError::Failed);
        let mut encoded = self.envelopes.pop().unwrap_or_else(|| Vec::with_capacity(512));
        encoded.clear();
        received::encode(envelope, self.format, &mut encoded);
        let large =
            encoded.len() > ENVELOPE_BYTES_MAX || envelope.recipients.len() > RECIPIENTS_MAX;
        let large = large.then_some(TransactionError::EnvelopeTooLarge);
        let t = self.tx(tx)?;
        let mut bytes =
            RECORD_HEADER + MESSAGE_HEAD + encoded.len() + t.header.len() + t.body.len();
        let mut more_index = summary_bytes_max(envelope.recipients.len());
        for change in &replaces {
            let change = RECORD_HEADER + change.encode().len() + 16 + RECORD_ALIGN;
            (bytes, more_index) = (bytes + change, more_index + change);
        }
        let small = (!self.fits_segment(bytes, more_index)).then_some(TransactionError::TooLarge);
        if let Some(error) = fits.or(large).or(small) {
            self.abort(tx);
            return Err(error);
        }
        let mut changes = Vec::with_capacity(replaces.len());
        for change in replaces {
            changes.extend(self.prepare(change, None));
        }
        let t = self.tx(tx)?;
        t.open = false;
        debug_assert_eq!(t.id, envelope.id, "a transaction keeps its id");
        let (header, body) = (std::mem::take(&mut t.header), std::mem::take(&mut t.body));
        let head = MessageHead::of(encoded.len(), header.len(), body.len(), t.parts, t.body_octets);
        let outgoing = Outgoing {
            token: t.token,
            own: t.kind == OpenKind::Own,
            summary: Summary::of(envelope, &head),
            head,
            envelope: encoded,
            header,
            body,
            slot: tx.slot,
            replaces: changes,
        };
        self.enqueue(Item::Message(Box::new(outgoing)));
        Ok(())
    }

    /// Takes back the memory of a content given with `Event::Committed`, once nobody needs it.
    pub fn recycle(&mut self, content: Content) {
        for (mut octets, kept) in
            [(content.header, &mut self.headers), (content.body, &mut self.bodies)]
        {
            let fits = (1..=CONTENT_KEPT_BYTES).contains(&octets.capacity());
            if fits && kept.len() < CONTENTS_KEPT {
                octets.clear();
                kept.push(octets);
            }
        }
    }

    /// A chunk of it is durable.
    pub(super) fn chunk_durable(&mut self, slot: u32, generation: u32, place: Place) {
        let t = &mut self.txs[crate::bytes::index(slot)];
        if t.generation != generation {
            return;
        }
        t.chunks_waiting = t.chunks_waiting.saturating_sub(1);
        t.chunks.push(place);
        self.hold(place);
        self.paused |= self.txs[crate::bytes::index(slot)].paused;
    }

    /// The chunks of a committed message; its slot is free afterwards.
    pub(super) fn take_chunks(&mut self, slot: u32) -> Vec<Place> {
        let chunks = std::mem::take(&mut self.txs[crate::bytes::index(slot)].chunks);
        self.free_tx(slot);
        chunks
    }

    pub(super) fn free_tx(&mut self, slot: u32) {
        let t = &mut self.txs[crate::bytes::index(slot)];
        let chunks = std::mem::take(&mut t.chunks);
        self.reserved -= t.reserved;
        let generation = t.generation.wrapping_add(1);
        *t = Tx { generation, ..Tx::empty() };
        self.txs_free.push(slot);
        for place in chunks {
            self.let_go(place);
        }
        self.paused = true;
    }

    /// Open transactions of clients cannot go on.
    pub(super) fn fail_open_transactions(&mut self) {
        for t in self.txs.iter_mut().filter(|t| t.open && t.kind == OpenKind::Client) {
            t.failed = true;
            if t.paused {
                t.paused = false;
                self.events.push_back(Event::Resume { token: t.token });
            }
        }
    }

    pub(super) fn wake_paused(&mut self) {
        if !self.paused || self.memory >= self.config.memory_max {
            return;
        }
        self.paused = false;
        for t in self.txs.iter_mut().filter(|t| t.open && t.paused) {
            if t.chunks_waiting <= CHUNKS_WAITING_MAX {
                t.paused = false;
                self.events.push_back(Event::Resume { token: t.token });
            }
        }
    }
}

impl Tx {
    fn empty() -> Self {
        Self {
            generation: 0,
            open: false,
            token: 0,
            id: TransactionId::default(),
            kind: OpenKind::Client,
            header: Vec::new(),
            body: Vec::new(),
            body_octets: 0,
            declared: 0,
            reserved: 0,
            parts: 0,
            chunks_waiting: 0,
            chunks: Vec::new(),
            paused: false,
            failed: false,
        }
    }

    /// Cuts the body in memory off as a chunk.
    /// `spare` is memory of chunks that were written.
    fn cut(
        &mut self,
        spare: &mut Vec<Vec<u8>>,
    ) -> Result<(TransactionId, u32, Vec<u8>), TransactionError> {
        if self.parts >= CHUNKS_MAX {
            return Err(TransactionError::TooLarge);
        }
        let part = self.parts;
        self.parts += 1;
        self.chunks_waiting += 1;
        // It is a large one: the next part will be whole, too.
        let next = spare.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES));
        Ok((self.id, part, std::mem::replace(&mut self.body, next)))
    }
}

impl ChangeItem {
    /// Bytes it takes in a batch.
    pub(super) fn bytes(&self) -> usize {
        RECORD_HEADER + self.body.len() + 16 + RECORD_ALIGN
    }
}
