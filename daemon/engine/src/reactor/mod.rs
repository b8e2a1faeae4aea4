//! The core: one thread, one ring, everything it owns, and the turn of its loop.
//!
//! *Guarantees*: no system call but `io_uring_enter` in the loop, except one `getpeername` and
//! at most one `getsockname` for an accepted connection, one `setsockopt` for a made one, and
//! what a caller asks for by name (`listen`, `udp_open`). No memory is taken per event.
//! *Limits*: [`Config`] and [`crate::limits`].
//! *Failure*: what goes wrong on one connection is an event of that connection; only an error of
//! `io_uring_enter` itself ends [`Core::run`].

mod connection;
mod datagram;
mod disk;
mod listener;
mod progress;
#[cfg(test)]
mod tests;
mod turn;

use crate::buffers::BufferRing;
use crate::clock;
use crate::config::Config;
use crate::disk_buffer::DiskPool;
use crate::event::Event;
use crate::handle::{Conn, Slab, Timer};
use crate::limits;
use crate::link::Link;
use crate::mailbox::{Bell, MailboxReceiver, MailboxSender, ONE};
use crate::probe::{Probe, StartError};
use crate::ring::{Completion, Ring, ignored};
use crate::wheel::Wheel;
use io_uring::{opcode, types};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fmt, io};

pub use connection::SendRefused;
pub use disk::DiskRefused;

/// What a core runs: told of events one at a time.
pub trait Handler<M: Send> {
    /// Something happened. Calls on `core` take effect before its next sleep.
    fn event(&mut self, core: &mut Core<M>, event: Event<'_, M>);

    /// Every event of this turn was told; the core will send and submit what was asked for, then
    /// sleep if nothing is left to do.
    fn turn_end(&mut self, core: &mut Core<M>);
}

/// What the wheel brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Token(u64),
    Conn(Conn),
    /// Linger or connect deadline of a connection.
    Deadline(Conn),
    Accept((u32, u32)),
}

/// What could not be told where it arose, because the handler was running.
#[derive(Debug)]
enum Deferred {
    Accepted(Conn, u32),
    Drained(Conn),
    Resumed(Conn),
    /// A slot that never had a descriptor.
    Closed(Conn),
    ListenerClosed(u32, Option<io::Error>),
}

/// Counts since start; only ever growing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Turns of the loop, each with one `io_uring_enter` or a few.
    pub turns: u64,
    /// Completions taken.
    pub completions: u64,
    /// Connections accepted or adopted.
    pub accepted: u64,
    /// Connections that found no slot.
    pub overflowed: u64,
    /// Times a connection found no receive buffer and was armed again.
    pub starved: u64,
    /// Times accepting rested for lack of descriptors or memory.
    pub accept_rests: u64,
    /// Completions whose object was gone.
    pub stale: u64,
    /// Turns in which the kernel kept completions aside because their queue was full.
    pub cq_overflows: u64,
    /// Datagrams not sent: the kernel's error, or too many at once.
    pub datagrams_lost: u64,
}

/// Shows another thread that a core's loop turns.
#[derive(Debug, Clone)]
pub struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    /// Start of the core's last turn on the clock of [`crate::now_us`]. An idle core turns at
    /// least every half second.
    #[must_use]
    pub fn last_turn_us(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One reactor. Made, used and dropped on one thread; `M` is what its mailbox carries.
pub struct Core<M: Send> {
    // The ring comes first: it is dropped before the memory it knows of.
    ring: Ring,
    receive: BufferRing,
    datagram_receive: BufferRing,
    disk_pool: Rc<DiskPool>,

    config: Config,
    multishot: bool,
    notes: Vec<String>,

    links: Slab<Link>,
    accepted: u32,
    outgoing: u32,
    /// Connections to look at before the next enter.
    dirty: Vec<Conn>,
    starved: VecDeque<Conn>,
    deferred: VecDeque<Deferred>,
    out_pool: Vec<Vec<u8>>,
    held_bytes: usize,

    listeners: Slab<listener::Listening>,
    sockets: Slab<datagram::Socket>,
    datagram_sends: Slab<datagram::Outgoing>,
    datagram_pool: Vec<Vec<u8>>,
    files: Slab<disk::OpenFile>,
    disk_ops: Slab<disk::Request>,
    /// Disk requests were queued since the last submission.
    disk_queued: bool,

    wheel: Wheel<Due>,
    /// Timers set with `set_timer`; the wheel has room for everything else besides.
    tokens: u32,
    mailbox: MailboxReceiver<M>,
    wake_armed: bool,
    /// The mailbox may hold more than one turn takes.
    mail_waits: bool,
    /// Bells whose descriptors must stay open until the next enter.
    bells: Vec<Arc<Bell>>,

    batch: Vec<Completion>,
    now_us: u64,
    heartbeat: Arc<AtomicU64>,
    stopping: bool,
    stats: Stats,
    /// Keeps the core on its thread.
    thread: PhantomData<*mut ()>,
}

impl<M: Send> Core<M> {
    /// Makes a core for the calling thread, which must be the one that runs it: its ring is
    /// enabled and restricted here.
    ///
    /// # Errors
    /// [`StartError`]: the configuration, or what the kernel refuses.
    pub fn new(
        config: Config,
        probe: &Probe,
        mailbox: MailboxReceiver<M>,
    ) -> Result<Self, StartError> {
        config.check()?;
        let mut ring = Ring::new(&config)?;
        let receive = BufferRing::new(&ring, 0, config.recv_buffers, config.recv_buffer_bytes)?;
        let datagram_receive =
            BufferRing::new(&ring, 1, limits::DATAGRAM_BUFFERS, limits::DATAGRAM_BYTES_MAX)?;
        let mut disk_pool = DiskPool::new(&config.disk_buffers)?;
        let notes = disk_pool.register(&ring, config.locked_bytes_max).into_iter().collect();
        ring.enable(config.restrict)?;
        let now_us = clock::now_us();
        let slots = config.slots();
        let timers =
            config.timers_max as usize + 2 * slots as usize + limits::LISTENERS_MAX as usize;
        Ok(Self {
            ring,
            receive,
            datagram_receive,
            disk_pool: Rc::new(disk_pool),
            multishot: config.receive_multishot.unwrap_or(probe.receive_multishot),
            notes,
            links: Slab::new(slots),
            accepted: 0,
            outgoing: 0,
            dirty: Vec::new(),
            starved: VecDeque::new(),
            deferred: VecDeque::new(),
            out_pool: Vec::with_capacity(limits::OUT_POOL_MAX),
            held_bytes: 0,
            listeners: Slab::new(limits::LISTENERS_MAX),
            sockets: Slab::new(limits::DATAGRAM_SOCKETS_MAX),
            datagram_sends: Slab::new(limits::DATAGRAM_SENDS_MAX),
            datagram_pool: Vec::new(),
            files: Slab::new(limits::FILES_MAX),
            disk_ops: Slab::new(config.disk_ops_max),
            disk_queued: false,
            wheel: Wheel::new(now_us, timers),
            tokens: 0,
            mailbox,
            wake_armed: false,
            mail_waits: true,
            bells: Vec::new(),
            batch: Vec::new(),
            now_us,
            heartbeat: Arc::new(AtomicU64::new(now_us)),
            stopping: false,
            stats: Stats::default(),
            config,
            thread: PhantomData,
        })
    }

    /// What could not be had as configured, one line each, for the log.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The configuration given at start.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// For a watchdog on another thread.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat(Arc::clone(&self.heartbeat))
    }

    /// Counts since start.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// Monotonic time of this turn in microseconds.
    #[must_use]
    pub const fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Wall time in microseconds since the Unix epoch, read now.
    #[must_use]
    pub fn wall_us(&self) -> u64 {
        clock::wall_us()
    }

    /// Ends the loop after this turn. What is open is closed without waiting for peers; disk
    /// requests in flight are awaited for at most [`limits::STOP_WAIT_US`].
    pub const fn stop(&mut self) {
        self.stopping = true;
    }

    /// Sets a timer: `Event::Timer` with this token comes at or after `deadline_us`.
    /// `None` when as many are set as the configuration allows.
    pub fn set_timer(&mut self, deadline_us: u64, token: u64) -> Option<Timer> {
        if self.tokens >= self.config.timers_max {
            return None;
        }
        let key = self.wheel.set(deadline_us, Due::Token(token))?;
        self.tokens += 1;
        Some(Timer::new(key))
    }

    /// Cancels a timer; false if it was told of or cancelled before.
    pub fn cancel_timer(&mut self, timer: Timer) -> bool {
        let cancelled = self.wheel.cancel(timer.key());
        self.tokens -= u32::from(cancelled);
        cancelled
    }

    /// Posts to another thread's mailbox. The wake-up is submitted at the end of the turn.
    ///
    /// # Errors
    /// Gives the message back when the mailbox is full.
    pub fn post<N: Send>(&mut self, sender: &MailboxSender<N>, message: N) -> Result<(), N> {
        let Some(bell) = sender.put(message)? else { return Ok(()) };
        let entry = opcode::Write::new(types::Fd(bell.fd()), (&raw const ONE).cast(), 8).build();
        self.bells.push(Arc::clone(bell));
        // SAFETY: the kernel reads 8 bytes of a static; `bells` keeps the descriptor open until
        // the request was submitted, after which the kernel holds the file by itself.
        unsafe { self.ring.push(ignored(entry)) };
        Ok(())
    }
}

impl<M: Send> fmt::Debug for Core<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("connections", &self.links.len())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
