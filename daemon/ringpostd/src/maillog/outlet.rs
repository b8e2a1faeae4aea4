//! How lines leave a core: a buffer, room that can be reserved, and a bounded queue.
//!
//! *Guarantees.* What is reserved can be written; the line of a mail is never dropped. Chunks
//! arrive in order.
//! *Limits.* `LOG_WAITING_OCTETS_MAX` for a core: in the buffer, in the queue, not yet written.
//! *Failure.* [`Outlet::reserve`] refuses when that is used up or the files cannot be written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

use super::Refused;
use crate::limits;

/// Which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Log {
    /// Every line.
    Main,
    /// Rejected mail with its header.
    Reject,
}

/// Whole lines for one log.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where they belong.
    pub log: Log,
    /// The lines.
    pub octets: Vec<u8>,
}

/// Where chunks go.
pub trait LineSink {
    /// Takes a chunk, or gives it back when there is no room for it.
    ///
    /// # Errors
    /// The chunk itself.
    fn push(&mut self, chunk: Chunk) -> Result<(), Chunk>;

    /// A buffer that was written and can be used again.
    fn spare(&mut self) -> Option<Vec<u8>>;

    /// Octets written to files since the start.
    fn written_octets(&self) -> u64;

    /// Whether the last attempt to write failed.
    fn is_failing(&self) -> bool;
}

/// The core's buffer before a sink.
#[derive(Debug)]
pub struct Outlet<S> {
    sink: S,
    main: Vec<u8>,
    reject: Vec<u8>,
    pushed_octets: u64,
    reserved_lines: u64,
    /// When the oldest line was seen to wait.
    waits_since_us: Option<u64>,
    lines_lost: u64,
}

impl<S: LineSink> Outlet<S> {
    pub(super) fn new(sink: S) -> Self {
        Self {
            sink,
            main: Vec::new(),
            reject: Vec::new(),
            pushed_octets: 0,
            reserved_lines: 0,
            waits_since_us: None,
            lines_lost: 0,
        }
    }

    /// Octets of lines that are not yet written.
    #[must_use]
    pub fn waiting_octets(&self) -> u64 {
        let away = self.pushed_octets.saturating_sub(self.sink.written_octets());
        away + (self.main.len() + self.reject.len()) as u64
    }

    /// Lines about refused mail that were dropped.
    #[must_use]
    pub fn lines_lost(&self) -> u64 {
        self.lines_lost
    }

    /// Lines that room is reserved for.
    #[must_use]
    pub fn reserved_lines(&self) -> u64 {
        self.reserved_lines
    }

    /// The other end.
    pub fn sink(&mut self) -> &mut S {
        &mut self.sink
    }

    fn has_room(&self, lines: u64) -> bool {
        let line = limits::LOG_LINE_OCTETS_MAX as u64;
        let used = self.waiting_octets() + self.reserved_lines * line;
        used + lines * line <= limits::LOG_WAITING_OCTETS_MAX as u64
    }

    pub(super) fn reserve(&mut self, lines: u32) -> Result<(), Refused> {
        if self.sink.is_failing() || !self.has_room(u64::from(lines)) {
            return Err(Refused);
        }
        self.reserved_lines += u64::from(lines);
        Ok(())
    }

    pub(super) fn release(&mut self, lines: u32) {
        self.reserved_lines = self.reserved_lines.saturating_sub(u64::from(lines));
    }

    /// The buffer for one line; `None` if the line must be dropped, which is counted.
    pub(super) fn line(&mut self, log: Log, kept: bool) -> Option<&mut Vec<u8>> {
        let entry = match log {
            Log::Main => 1,
            Log::Reject => {
                2 + (limits::REJECT_HEADER_OCTETS_MAX / limits::LOG_LINE_OCTETS_MAX) as u64
            }
        };
        if !kept && !self.has_room(entry) {
            self.lines_lost += 1;
            return None;
        }
        let buffer = self.buffer(log);
        Some(buffer)
    }

    fn buffer(&mut self, log: Log) -> &mut Vec<u8> {
        match log {
            Log::Main => &mut self.main,
            Log::Reject => &mut self.reject,
        }
    }

    /// What stands behind `start` is a line.
    pub(super) fn wrote(&mut self, log: Log, start: usize, used_room: bool) {
        let length = self.buffer(log).len() - start;
        debug_assert!(
            length <= limits::LOG_LINE_OCTETS_MAX
                || (log == Log::Reject
                    && length
                        <= limits::REJECT_HEADER_OCTETS_MAX + 2 * limits::LOG_LINE_OCTETS_MAX),
            "lines are bounded"
        );
        if used_room {
            self.release(1);
        }
        if self.buffer(log).len() >= limits::LOG_CHUNK_OCTETS {
            self.send(log);
        }
    }

    pub(super) fn turn_end(&mut self, now_us: u64) {
        if self.main.is_empty() && self.reject.is_empty() {
            self.waits_since_us = None;
            return;
        }
        let since = *self.waits_since_us.get_or_insert(now_us);
        if now_us.saturating_sub(since) >= limits::LOG_WAIT_US_MAX {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) -> bool {
        self.waits_since_us = None;
        let main = self.send(Log::Main);
        self.send(Log::Reject) && main
    }

    fn send(&mut self, log: Log) -> bool {
        if self.buffer(log).is_empty() {
            return true;
        }
        let spare = self.sink.spare().unwrap_or_default();
        let octets = std::mem::replace(self.buffer(log), spare);
        let length = octets.len() as u64;
        match self.sink.push(Chunk { log, octets }) {
            Ok(()) => {
                self.pushed_octets += length;
                true
            }
            Err(chunk) => {
                *self.buffer(log) = chunk.octets;
                false
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    chunks: ArrayQueue<Chunk>,
    spares: ArrayQueue<Vec<u8>>,
    written_octets: AtomicU64,
    failing: AtomicBool,
}

/// The core's end of a bounded queue of chunks.
#[derive(Debug)]
pub struct QueueSink(Arc<Shared>);

/// The end of the thread that writes files.
#[derive(Debug)]
pub struct ChunkSource(Arc<Shared>);

/// A queue from one core to the log files.
#[must_use]
pub fn queue() -> (QueueSink, ChunkSource) {
    let shared = Arc::new(Shared {
        chunks: ArrayQueue::new(limits::LOG_CHUNKS_MAX),
        spares: ArrayQueue::new(4),
        written_octets: AtomicU64::new(0),
        failing: AtomicBool::new(false),
    });
    (QueueSink(Arc::clone(&shared)), ChunkSource(shared))
}

impl LineSink for QueueSink {
    fn push(&mut self, chunk: Chunk) -> Result<(), Chunk> {
        self.0.chunks.push(chunk)
    }

    fn spare(&mut self) -> Option<Vec<u8>> {
        self.0.spares.pop()
    }

    fn written_octets(&self) -> u64 {
        self.0.written_octets.load(Ordering::Relaxed)
    }

    fn is_failing(&self) -> bool {
        self.0.failing.load(Ordering::Relaxed)
    }
}

impl ChunkSource {
    /// The next chunk, in order. It counts as waiting until [`Self::written`].
    #[must_use]
    pub fn next(&self) -> Option<Chunk> {
        self.0.chunks.pop()
    }

    /// The chunk is in its file.
    pub fn written(&self, chunk: Chunk) {
        self.0.written_octets.fetch_add(chunk.octets.len() as u64, Ordering::Relaxed);
        let mut spare = chunk.octets;
        spare.clear();
        if spare.capacity() <= 2 * limits::LOG_CHUNK_OCTETS {
            // Too many spare buffers are simply freed.
            let _ = self.0.spares.push(spare);
        }
    }

    /// Tells the core whether files can be written.
    pub fn set_failing(&self, failing: bool) {
        self.0.failing.store(failing, Ordering::Relaxed);
    }
}
