//! One core's log: transactions in, batches out, changes, reads, segments.
//!
//! *Guarantees*: `Committed` is told only when the batch and every batch before it are durable on
//! every copy. What replaces a message and the DONE of what it replaces stand in one batch.
//!
//! *Limits*: `LogConfig`; all memory is taken by transactions (bounded) and batch buffers.
//!
//! *Failure*: a client hears 452 for no space, 451 for a log that cannot be written; the operator
//! gets `Alarm` events.
//!
//! *Not here*: what is due when, and where to (the queue's); recovery (`recovery`).

mod batches;
mod changes;
mod failure;
mod reads;
mod segments;
mod members;
mod sweep;
mod transactions;

use std::collections::VecDeque;

use crate::disk::{Buffer, Completion, Disk, DiskError, Member, Token};
use crate::id::TransactionId;
use crate::ledger::Ledger;
use crate::limits::{BUFFERS, COLD_BUCKETS_MAX, WATERMARK_DELAY_US};
use crate::live::{Live, Table};
use crate::message::Envelope;
use crate::segment::{SegmentKind, SegmentRef};
use crate::superblock::Format;

pub use changes::ChangeError;
pub(crate) use reads::{carry, refresh, stored};
pub(crate) use sweep::counts;
pub use transactions::{Flow, OpenKind, Refusal, Transaction, TransactionError};

use batches::{Effect, Flight, Item};
use members::Refill;
use reads::Read;
use segments::{Count, Cursor, Segment, Upkeep};
use sweep::{ColdItem, Move, Sweep};
use transactions::Tx;

/// What could not be done when it was due is tried again after this.
const AGAIN_US: u64 = 5_000;

/// Bounds and waits of one log, from the config.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// Bytes of messages in memory: open transactions and what waits for the device.
    pub memory_max: usize,
    /// Messages in the log.
    pub messages_max: usize,
    /// Open transactions.
    pub transactions_max: u32,
    /// A device that neither succeeds nor fails for so long counts as failed.
    pub commit_wait_us: u64,
    /// Age at which a message leaves its hot segment.
    pub hot_age_us: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            memory_max: 64 << 20,
            messages_max: 1 << 20,
            transactions_max: 1 << 16,
            commit_wait_us: 30_000_000,
            hot_age_us: crate::limits::HOT_AGE_US,
        }
    }
}

/// A column of the stripe: one log, on one device or mirrored on two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    /// Its number.
    pub column: u8,
    /// The log's uuid.
    pub log: u128,
    /// Its members: each batch goes to all of them.
    pub members: [Option<Member>; 2],
    /// The one among them that is being filled: written to, not read.
    pub filling: Option<Member>,
}

/// A segment as recovery left it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentStart {
    /// Which one.
    pub at: SegmentRef,
    /// Epoch found there; 0 when there was no valid header.
    pub epoch: u64,
    /// It has content (which may all be dead).
    pub used: bool,
    /// Hot or cold.
    pub kind: SegmentKind,
    /// Segments whose reuse this one has to wait for.
    pub waits_for: Vec<SegmentRef>,
    /// Of those, the ones with failed attempts at batches that stand here.
    pub attempts: Vec<SegmentRef>,
    /// Its index when it has no footer.
    pub index: Option<Vec<u8>>,
    /// Part of it could not be read: not to be reused.
    pub quarantined: bool,
}

/// What a log starts from.
#[derive(Debug)]
pub struct LogStart {
    /// The core.
    pub core: u16,
    /// The run, raised durably.
    pub run: u32,
    /// The format that is written.
    pub format: Format,
    /// Bytes of a segment.
    pub segment_bytes: u32,
    /// The columns its segments lie on; the first is its own.
    pub columns: Vec<Column>,
    /// Its segments.
    pub segments: Vec<SegmentStart>,
    /// Its messages.
    pub live: Table,
    /// Changes to be written first.
    pub owed: Vec<Owed>,
}

/// A change that recovery took out of a segment, so that it can be reused at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owed {
    /// The record as it stands.
    pub record: Vec<u8>,
    /// The segment of its message.
    pub target: SegmentRef,
    /// It is the DEFER that counts of that message.
    pub defer_of: Option<TransactionId>,
}

/// What the log tells its owner.
#[derive(Debug)]
pub enum Event {
    /// The message is durable: say 250. The content is given back for a first attempt from
    /// memory.
    Committed {
        /// As given to `open`.
        token: u64,
        /// The message.
        id: TransactionId,
        /// Its content; `None` when part of it is only on the device.
        content: Option<Content>,
    },
    /// The message will not be kept: say 451. (What was written of it is cancelled.)
    Refused {
        /// As given to `open`.
        token: u64,
        /// The message.
        id: TransactionId,
    },
    /// The transaction that was told to pause may go on.
    Resume {
        /// As given to `open`.
        token: u64,
    },
    /// A change is durable.
    Changed {
        /// As given with the change.
        token: u64,
    },
    /// What was asked to be read.
    Read {
        /// As given to `read`.
        token: u64,
        /// The data.
        result: Result<ReadData, ReadError>,
    },
    /// A mirror's member fails. When the generation without it is durable on all others, call
    /// `member_out` on every log of the set; when that cannot be done, `member_stays`. Until
    /// then nothing is acknowledged that this member lacks.
    MemberFails {
        /// Which.
        member: Member,
    },
    /// All that this log has stands on the member that was being filled. When every log has said
    /// so, and the generation with it is durable on all members, call `member_in` on every log.
    MemberFilled {
        /// Which.
        member: Member,
    },
    /// The operator should know.
    Alarm(Alarm),
    /// `close` is done: everything is durable and sealed.
    Closed,
}

/// What the operator should know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Alarm {
    /// A write failed; the segment is closed, its batches were written elsewhere.
    WriteFailed {
        /// The device.
        member: Member,
        /// Offset of the write.
        offset: u64,
        /// What it said.
        error: DiskError,
    },
    /// The device neither succeeds nor fails, or fails everywhere: mail is answered 451.
    Failed,
    /// The log can be written again.
    Recovered,
    /// A mirror's member was put out: mail goes on with one copy.
    MemberOut(Member),
    /// One copy of a record does not check; the other one does, and was taken.
    CopyDamaged {
        /// The device.
        member: Member,
        /// The segment.
        segment: SegmentRef,
        /// Its offset there.
        offset: u32,
    },
    /// A record that was durable cannot be read or does not check.
    Unreadable {
        /// The message.
        id: TransactionId,
        /// Its segment.
        segment: SegmentRef,
        /// Its offset there.
        offset: u32,
    },
}

/// Content of a message in memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Content {
    /// Header section as received.
    pub header: Vec<u8>,
    /// Body.
    pub body: Vec<u8>,
}

/// Which part to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Envelope, header section and the (last part of the) body.
    Message,
    /// One chunk, from 0. All chunks come before the part in the message.
    Chunk(u32),
}

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadData {
    /// Of `Part::Message`.
    Message(Box<StoredMessage>),
    /// Of `Part::Chunk`.
    Chunk(Vec<u8>),
}

/// A message read back. Its body is chunk 0, chunk 1, ..., then `tail`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredMessage {
    /// Envelope with the states of today.
    pub envelope: Envelope,
    /// Header section as received; `edits::apply` makes what is sent.
    pub header: Vec<u8>,
    /// Chunks before the tail.
    pub chunks: u32,
    /// The (last part of the) body.
    pub tail: Vec<u8>,
    /// Octets of the whole body.
    pub body_octets: u64,
}

/// Why a read gave nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadError {
    /// No such message.
    Unknown,
    /// Too many reads wait.
    Busy,
    /// The device said no.
    Disk(DiskError),
    /// What is there does not check.
    Damaged,
}

/// How the log stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// As it should.
    Good,
    /// Cannot be written: sessions hear 451.
    Failed,
}

/// Figures for status and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Messages in the log.
    pub messages: usize,
    /// Batches written since start.
    pub batches: u64,
    /// Bytes written since start, to one copy.
    pub bytes_written: u64,
    /// Messages committed since start.
    pub committed: u64,
    /// Messages copied to the cold log since start.
    pub moved: u64,
    /// Changes copied forward since start.
    pub forwarded: u64,
    /// Write errors since start.
    pub errors: u64,
    /// Segments in all.
    pub segments: usize,
    /// Segments that can be used at once.
    pub segments_free: usize,
    /// Bytes open transactions may still need.
    pub reserved: u64,
    /// Bytes that could be accepted now.
    pub available: u64,
    /// Bytes of messages in memory.
    pub memory: usize,
    /// How it stands.
    pub health: Health,
    /// The ledger of this run and core, as change since the start.
    pub ledger: Ledger,
}

#[derive(Clone, Copy, Default, Debug)]
struct Counters {
    batches: u64,
    bytes_written: u64,
    committed: u64,
    moved: u64,
    forwarded: u64,
    errors: u64,
}

/// One core's log.
#[derive(Debug)]
pub struct Log<B> {
    config: LogConfig,
    core: u16,
    run: u32,
    format: Format,
    segment_bytes: u32,
    columns: Vec<Column>,
    segments: Vec<Segment>,
    count: Count,
    recount_due: bool,
    footers_due: bool,
    hot: Option<Cursor>,
    cold: [Option<Cursor>; COLD_BUCKETS_MAX],
    upkeep: Vec<Upkeep<B>>,
    spare: Vec<B>,
    table: Table,
    ledger: Ledger,

    txs: Vec<Tx>,
    txs_free: Vec<u32>,
    memory: usize,
    reserved: u64,
    paused: bool,

    /// Memory of encoded envelopes, header sections, bodies, chunks and batches' effects, to be
    /// used again.
    envelopes: Vec<Vec<u8>>,
    headers: Vec<Vec<u8>>,
    bodies: Vec<Vec<u8>>,
    chunks: Vec<Vec<u8>>,
    effects: Vec<Vec<Effect>>,
    waiting: VecDeque<Item>,
    waiting_bytes: usize,
    waiting_messages: usize,
    /// Items that ever waited, and that no longer do.
    enqueued: u64,
    built: u64,
    /// Since when a change or a watermark waits.
    change_since_us: Option<u64>,
    flights: VecDeque<Flight<B>>,
    rewriting: bool,
    next_seq: u64,
    next_token: Token,
    next_order: u64,
    durable_through: u64,
    watermark_on_disk: u64,
    /// Since when batches are durable that no watermark on the device covers.
    uncovered_since_us: Option<u64>,
    previous: Previous,

    sweep: Option<Sweep>,
    moves: Vec<Move>,
    cold_waiting: VecDeque<ColdItem>,
    cold_bytes: usize,
    next_sweep_us: u64,

    reads: Vec<Read>,
    reads_waiting: VecDeque<Read>,

    health: Health,
    errors_in_row: u32,
    /// Who made them, one bit each.
    errors_by: u64,
    /// The member that the owner is asked to put out, and since when.
    out_asked: Option<(Member, u64)>,
    /// When it may be asked again, after it could not.
    ask_again_us: u64,
    /// Members that the disk is to forget.
    abandoned: Vec<Member>,
    refills: Vec<Refill>,
    /// Members, with their columns, that are to be taken in.
    joins: Vec<(Member, u8)>,
    /// Columns of a stripe whose device failed.
    left: Vec<u8>,
    retry_at_us: u64,
    /// The last turn.
    turned_us: u64,
    cancels: usize,
    closing: bool,
    closed: bool,
    counters: Counters,
    events: VecDeque<Event>,
}

/// Place and checksum of the newest batch.
#[derive(Clone, Copy, Debug)]
struct Previous {
    crc: u32,
    segment: SegmentRef,
    block: u32,
    epoch: u64,
}

impl<B: Buffer> Log<B> {
    /// A log from what recovery found. It works with these buffers, of which it wants
    /// `limits::BUFFERS`.
    ///
    /// # Panics
    /// Without buffers.
    #[must_use]
    pub fn new(start: LogStart, config: LogConfig, buffers: Vec<B>, now_us: u64) -> Self {
        assert!(buffers.len() >= BUFFERS, "a log works with BUFFERS buffers");
        let log = Self {
            config,
            core: start.core,
            run: start.run,
            format: start.format,
            segment_bytes: start.segment_bytes,
            columns: start.columns,
            segments: Vec::with_capacity(start.segments.len()),
            count: Count::default(),
            recount_due: false,
            footers_due: false,
            hot: None,
            cold: [None; COLD_BUCKETS_MAX],
            upkeep: Vec::new(),
            spare: buffers,
            table: start.live,
            ledger: Ledger::default(),
            txs: Vec::new(),
            txs_free: Vec::new(),
            memory: 0,
            reserved: 0,
            paused: false,
            envelopes: Vec::new(),
            headers: Vec::new(),
            bodies: Vec::new(),
            chunks: Vec::new(),
            effects: Vec::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            waiting_messages: 0,
            enqueued: 0,
            built: 0,
            change_since_us: None,
            flights: VecDeque::new(),
            rewriting: false,
            next_seq: 1,
            next_token: 1,
            next_order: 1,
            durable_through: 0,
            watermark_on_disk: 0,
            uncovered_since_us: None,
            previous: Previous { crc: 0, segment: SegmentRef::NONE, block: 0, epoch: 0 },
            sweep: None,
            moves: Vec::new(),
            cold_waiting: VecDeque::new(),
            cold_bytes: 0,
            next_sweep_us: now_us,
            reads: Vec::new(),
            reads_waiting: VecDeque::new(),
            health: Health::Good,
            errors_in_row: 0,
            errors_by: 0,
            out_asked: None,
            ask_again_us: 0,
            abandoned: Vec::new(),
            refills: Vec::new(),
            joins: Vec::new(),
            left: Vec::new(),
            retry_at_us: 0,
            turned_us: now_us,
            cancels: 0,
            closing: false,
            closed: false,
            counters: Counters::default(),
            events: VecDeque::new(),
        };
        log.beginning(start.segments, start.owed, now_us)
    }

    fn beginning(mut self, segments: Vec<SegmentStart>, owed: Vec<Owed>, now_us: u64) -> Self {
        self.adopt(segments, now_us);
        for Owed { record, target, defer_of } in owed {
            self.enqueue(Item::Forward(batches::Forward { record, target, defer_of }));
            self.change_since_us = Some(now_us);
        }
        self
    }

    /// Submits what is due. Call it at the end of each turn of the loop and at `deadline`.
    pub fn turn<D: Disk<Buffer = B>>(&mut self, disk: &mut D, now_us: u64, wall_us: u64) {
        self.turned_us = now_us;
        for member in std::mem::take(&mut self.abandoned) {
            disk.abandon(member);
        }
        self.watch(now_us);
        self.begin_joins();
        self.rewrite(disk, now_us);
        self.submit_batches(disk, now_us, wall_us);
        if self.recount_due {
            self.recount();
        }
        self.tend_segments(disk, now_us, wall_us);
        self.run_sweep(now_us);
        if self.recount_due {
            self.recount();
        }
        self.submit_reads(disk);
        self.refill(disk, now_us);
        self.wake_paused();
        self.finish_close();
    }

    /// Takes in one completion. `turn` must follow.
    pub fn completed(&mut self, done: Completion<B>, now_us: u64) {
        if let Some(i) = self.flights.iter().position(|f| f.token == done.token) {
            self.flight_done(i, done, now_us);
        } else if let Some(i) = self.upkeep.iter().position(|u| u.token == done.token) {
            self.upkeep_done(i, done, now_us);
        } else if let Some(i) = self.reads.iter().position(|r| r.token == done.token) {
            self.read_done(i, done);
        } else if let Some(i) = self.refills.iter().position(|r| r.is_asked(done.token)) {
            self.refill_done(i, done, now_us);
        } else if self.spare.len() < BUFFERS {
            // Of a member that was put out while it was being filled.
            self.spare.extend(done.buffer);
        }
    }

    /// The next thing to tell.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `turn` must be called even if nothing happens.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let in_flight = self.flights.iter().map(|f| f.submitted_us).min();
        let stuck = match self.health {
            Health::Good => in_flight.map(|t| t + self.config.commit_wait_us),
            Health::Failed => Some(self.retry_at_us),
        };
        let changes = self.change_since_us.map(|t| t + WATERMARK_DELAY_US);
        let watermark = self.uncovered_since_us.filter(|_| !self.is_scarce());
        let watermark = watermark.map(|t| t + WATERMARK_DELAY_US);
        // With nowhere to write to, the next sweep is what may help.
        let idle = self.flights.is_empty() && (self.hot.is_some() || !self.is_out_of_segments());
        let sweep = self.has_sealed().then_some(self.next_sweep_us);
        let due = [stuck, changes.filter(|_| idle), watermark.filter(|_| idle), sweep];
        let due = due.into_iter().flatten().min()?;
        // What was due at the last turn and could not be done is not due again at once.
        let late = due <= self.turned_us;
        Some(if late { self.turned_us + AGAIN_US } else { due })
    }

    /// A message of this log.
    #[must_use]
    pub fn get(&self, id: TransactionId) -> Option<&Live> {
        self.table.get(id).filter(|live| !live.is_finished() && !live.is_cancelled())
    }

    /// All messages that need work, in no order.
    pub fn messages(&self) -> impl Iterator<Item = &Live> {
        self.table.iter().filter(|live| !live.is_finished() && !live.is_cancelled())
    }

    /// The same a piece at a time; see [`crate::live::Table::look`].
    pub fn look(&self, from: usize, count: usize, take: impl FnMut(&Live)) -> Option<usize> {
        self.table.look(from, count, take)
    }

    /// The segments this log writes; no other log does.
    #[must_use]
    pub fn segments_owned(&self) -> Vec<SegmentRef> {
        self.segments.iter().map(|s| s.at).collect()
    }

    /// Accepts nothing more, writes what waits, seals; `Event::Closed` follows.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Figures of now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            messages: self.table.len(),
            batches: self.counters.batches,
            bytes_written: self.counters.bytes_written,
            committed: self.counters.committed,
            moved: self.counters.moved,
            forwarded: self.counters.forwarded,
            errors: self.counters.errors,
            segments: self.segments.len(),
            segments_free: self.count.reclaimable,
            reserved: self.reserved,
            available: self.available(),
            memory: self.memory,
            health: self.health,
            ledger: self.ledger,
        }
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        self.next_token
    }

    fn members(&self, at: SegmentRef) -> [Option<Member>; 2] {
        self.columns.iter().find(|c| c.column == at.column()).map_or([None, None], |c| c.members)
    }

    fn finish_close(&mut self) {
        let quiet = self.waiting.is_empty()
            && self.flights.is_empty()
            && self.upkeep.is_empty()
            && self.refills.iter().all(Refill::is_quiet)
            && !self.is_sealing()
            && self.hot.is_none()
            && self.cold.iter().all(Option::is_none);
        if self.closing && !self.closed && quiet {
            self.closed = true;
            self.events.push_back(Event::Closed);
        }
    }
}
