//! One io_uring: set up on its core's own thread, restricted, entered once a turn.
//!
//! *Guarantees*: a request that does not fit into the queue waits in order and is not lost.
//! *Failure*: [`StartError`] at setup; errors of `io_uring_enter` that are not part of normal
//! life end the core's loop.

use crate::config::Config;
use crate::handle::{Op, Word};
use crate::limits::CQ_FACTOR;
use crate::probe::{OPERATIONS, StartError};
use crate::socket::check;
use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};
use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::{io, ptr};

const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;

/// A completion, copied out of the queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Completion {
    pub(crate) word: Word,
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct WaitArgument {
    sigmask: u64,
    sigmask_bytes: u32,
    pad: u32,
    timespec: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanos: i64,
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct RingUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// The ring and what did not fit into it.
pub(crate) struct Ring {
    ring: IoUring,
    /// Index of the registered descriptor, if the kernel took it.
    registered: Option<u32>,
    backlog: VecDeque<Entry>,
}

impl Ring {
    /// Makes a disabled ring. The calling thread will be its only user.
    pub(crate) fn new(config: &Config) -> Result<Self, StartError> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_r_disabled()
            .setup_cqsize(config.sq_entries * CQ_FACTOR)
            .build(config.sq_entries)
            .map_err(|error| StartError::Io("setting up io_uring", error))?;
        Ok(Self { ring, registered: None, backlog: VecDeque::new() })
    }

    /// Registers a ring of provided buffers.
    ///
    /// # Safety
    /// `entries` entries of 16 bytes at `start`, and every buffer named in them, stay valid until
    /// this ring is dropped and its requests have ended.
    pub(crate) unsafe fn register_buffer_ring(
        &self,
        start: *mut u8,
        entries: u16,
        group: u16,
    ) -> Result<(), StartError> {
        let submitter = self.ring.submitter();
        // SAFETY: passed on to the caller.
        unsafe { submitter.register_buf_ring_with_flags(start as u64, entries, group, 0) }
            .map_err(|error| StartError::Io("registering a buffer ring", error))
    }

    /// Registers fixed buffers for disk requests.
    ///
    /// # Safety
    /// The buffers stay valid until this ring is dropped and its requests have ended.
    pub(crate) unsafe fn register_buffers(&self, buffers: &[libc::iovec]) -> io::Result<()> {
        // SAFETY: passed on to the caller.
        unsafe { self.ring.submitter().register_buffers(buffers) }
    }

    /// Forbids everything the engine does not use, then lets the ring run for this thread.
    pub(crate) fn enable(&mut self, restrict: bool) -> Result<(), StartError> {
        let mut update =
            RingUpdate { offset: u32::MAX, reserved: 0, data: self.descriptor().into() };
        // SAFETY: the kernel reads and writes one entry in a local that outlives the call.
        if unsafe { self.register(REGISTER_RING_FDS, (&raw mut update).cast(), 1) }.is_ok() {
            self.registered = Some(update.offset);
        }
        if restrict {
            let flags = Flags::BUFFER_SELECT | Flags::IO_HARDLINK | Flags::SKIP_SUCCESS;
            let mut rules: Vec<Restriction> =
                OPERATIONS.iter().map(|(code, _)| Restriction::sqe_op(*code)).collect();
            rules.push(Restriction::sqe_flags_allowed(flags.bits()));
            let unregister = u8::try_from(UNREGISTER_RING_FDS).expect("21");
            rules.push(Restriction::register_op(unregister));
            self.ring
                .submitter()
                .register_restrictions(&mut rules)
                .map_err(|error| StartError::Io("restricting io_uring", error))?;
        }
        self.ring
            .submitter()
            .register_enable_rings()
            .map_err(|error| StartError::Io("enabling io_uring", error))
    }

    /// Queues a request; it is submitted with the next [`Ring::enter`], or earlier if the queue
    /// is full.
    ///
    /// # Safety
    /// Memory the request names stays valid and is left alone until its completion; descriptors
    /// it names stay open until it is submitted.
    pub(crate) unsafe fn push(&mut self, entry: Entry) {
        if self.backlog.is_empty() {
            // SAFETY: passed on to the caller.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // The queue is full: hand it over without waiting.
            let _ = self.call_enter(0, None);
            // SAFETY: as above.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// Queues a cancellation of the one request with this word. Its own completion tells nothing
    /// and is not awaited.
    pub(crate) fn cancel(&mut self, word: u64) {
        let entry = opcode::AsyncCancel::new(word).build();
        // SAFETY: names no memory and no descriptor.
        unsafe { self.push(ignored(entry)) };
    }

    /// Queues a cancellation of every request on a descriptor.
    pub(crate) fn cancel_descriptor(&mut self, fd: i32) {
        let which = types::CancelBuilder::fd(types::Fd(fd)).all();
        let entry = opcode::AsyncCancel2::new(which).build();
        // SAFETY: names no memory; a descriptor that is closed by then makes it fail, no more.
        unsafe { self.push(ignored(entry)) };
    }

    /// True if requests wait outside the queue.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Submits what is queued, runs the kernel's deferred work, and waits up to `wait_us` for
    /// one completion (0: not at all).
    pub(crate) fn enter(&mut self, wait_us: u64) -> io::Result<()> {
        loop {
            self.refill();
            let wait_us = if self.backlog.is_empty() { wait_us } else { 0 };
            self.call_enter(u32::from(wait_us > 0), Some(wait_us))?;
            let completions_wait = !self.ring.completion().is_empty();
            if self.backlog.is_empty() || completions_wait {
                return Ok(());
            }
        }
    }

    /// Submits what is queued and does nothing else.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        self.refill();
        self.call_enter(0, None)
    }

    fn refill(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            // SAFETY: `push` was called with this entry; its promise holds until completion.
            if unsafe { self.ring.submission().push(&entry) }.is_err() {
                self.backlog.push_front(entry);
                return;
            }
        }
    }

    /// Takes every completion that is there.
    pub(crate) fn drain(&mut self, into: &mut Vec<Completion>) {
        into.extend(self.ring.completion().filter_map(|entry| {
            let word = Word::unpack(entry.user_data())?;
            Some(Completion { word, result: entry.result(), flags: entry.flags() })
        }));
    }

    /// The completion queue is full and the kernel keeps more aside; the next enter brings them.
    pub(crate) fn is_overflowing(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }

    /// Completions the kernel could not even keep aside; 0 unless it ran out of memory.
    pub(crate) fn overflow(&mut self) -> u32 {
        self.ring.completion().overflow()
    }

    /// One `io_uring_enter`. `wait_us` of `None` submits only.
    fn call_enter(&mut self, min_complete: u32, wait_us: Option<u64>) -> io::Result<()> {
        let to_submit = u32::try_from(self.ring.submission().len()).expect("at most 4096");
        let (fd, mut flags) = match self.registered {
            Some(index) => (i64::from(index), ENTER_REGISTERED_RING),
            None => (i64::from(self.ring.as_raw_fd()), 0),
        };
        let wait_us = match wait_us {
            None => 0,
            Some(wait_us) => {
                flags |= ENTER_GETEVENTS | ENTER_EXT_ARG;
                wait_us
            }
        };
        let timespec = KernelTimespec {
            seconds: i64::try_from(wait_us / 1_000_000).unwrap_or(i64::MAX),
            nanos: i64::try_from(wait_us % 1_000_000 * 1000).expect("below a second"),
        };
        let timespec = (&raw const timespec) as u64;
        let argument = WaitArgument { sigmask: 0, sigmask_bytes: 8, pad: 0, timespec };
        let (argument, bytes): (*const WaitArgument, usize) = if flags & ENTER_EXT_ARG == 0 {
            (ptr::null(), 0)
        } else {
            (&raw const argument, size_of::<WaitArgument>())
        };
        // SAFETY: the kernel reads argument and timespec, locals that outlive the call. What the
        // queued requests name is kept valid by the promise made to `push`.
        let code = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                fd,
                to_submit,
                min_complete,
                flags,
                argument,
                bytes,
            )
        };
        if code >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // Nothing came in time; a signal; the kernel wants completions drained or memory back.
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        }
    }

    fn descriptor(&self) -> u32 {
        u32::try_from(self.ring.as_raw_fd()).expect("descriptors are not negative")
    }

    /// # Safety
    /// `argument` is what the kernel's opcode expects, `count` times.
    unsafe fn register(
        &self,
        code: u32,
        argument: *mut libc::c_void,
        count: u32,
    ) -> io::Result<()> {
        let fd = self.ring.as_raw_fd();
        // SAFETY: passed on to the caller.
        let code = unsafe { libc::syscall(libc::SYS_io_uring_register, fd, code, argument, count) };
        check(i32::try_from(code).unwrap_or(-1)).map(drop)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Some(offset) = self.registered {
            // The registration holds the ring open until its thread ends: give it back.
            let mut update = RingUpdate { offset, reserved: 0, data: 0 };
            // SAFETY: the kernel reads one entry in a local that outlives the call.
            let _ = unsafe { self.register(UNREGISTER_RING_FDS, (&raw mut update).cast(), 1) };
        }
    }
}

/// A request whose success nobody waits for.
pub(crate) fn ignored(entry: Entry) -> Entry {
    entry.flags(Flags::SKIP_SUCCESS).user_data(Word::pack(Op::Ignored, (0, 0)))
}
