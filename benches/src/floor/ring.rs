//! The ring below the floor loop: connections on io_uring, with buffers that outlive every request.
//!
//! *Guarantees*: memory the kernel may read or write belongs to this file until the completion that
//! ends the request; a completion of a former connection in the same slot is told by its generation
//! and ignored; a receive buffer is lent to the handler for one call and goes back afterwards.
//!
//! *Limits*: `Setup` names them all; a connection above `connections_max` is closed at once and
//! counted.
//!
//! *Failure*: a request that fails ends its connection; only a ring that cannot be entered ends the
//! loop.
//!
//! *Not here*: anything of SMTP.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue};
use nix::sys::socket::SockaddrLike;

use super::buffers::Buffers;
pub use super::net::{Block, Conn, Net};
use super::net::{GENERATION_MASK, Slot};

/// Sizes of a ring, and how a finished connection is ended.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Entries of the submission queue; the completion queue holds 8 times as many.
    pub entries: u32,
    /// Provided receive buffers; a power of two up to 32,768.
    pub buffers: u16,
    /// Octets of one receive buffer.
    pub buffer_octets: u32,
    /// Connections held at once.
    pub connections_max: u32,
}

/// What the loop does after a drained batch of completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait for a completion.
    Wait,
    /// Wait for a completion, but no longer than this.
    WaitFor(Duration),
    /// Leave the loop.
    Stop,
}

/// What is built on the ring. Every call may append output and end connections through `net`.
pub trait Handler {
    /// A client has connected to a listener.
    fn accepted(&mut self, net: &mut Net, conn: Conn);
    /// A connection asked for by `Net::connect` stands, or the error number says why not; then the
    /// handle is dead already.
    fn connected(&mut self, net: &mut Net, conn: Conn, error: i32);
    /// Octets have arrived; the slice is valid in this call.
    fn received(&mut self, net: &mut Net, conn: Conn, bytes: &[u8]);
    /// All output given so far has left; called only after `Net::want_drained`.
    fn drained(&mut self, net: &mut Net, conn: Conn);
    /// The peer has ended (0) or broken (error number) the connection: what is queued is still
    /// sent, then it is closed. This is the last call for this handle.
    fn ended(&mut self, net: &mut Net, conn: Conn, error: i32);
    /// The descriptor given to `Net::watch` is readable.
    fn watched(&mut self, net: &mut Net);
    /// A block given to `Net::commit` is on stable storage, or the error says why not.
    fn committed(&mut self, _net: &mut Net, _block: Block, _written: io::Result<()>) {}
    /// A batch of completions is done.
    fn turn(&mut self, net: &mut Net) -> Next;
}

const BUFFER_GROUP: u16 = 0;
const OP_ACCEPT: u64 = 1;
const OP_RECV: u64 = 2;
const OP_SEND: u64 = 3;
const OP_CONNECT: u64 = 4;
const OP_WATCH: u64 = 5;
const OP_IGNORED: u64 = 6;
const OP_COMMIT: u64 = 7;

fn user_data(op: u64, generation: u32, index: u32) -> u64 {
    op << 56 | u64::from(generation) << 32 | u64::from(index)
}

struct Queue<'ring> {
    submitter: Submitter<'ring>,
    submission: SubmissionQueue<'ring>,
}

impl Queue<'_> {
    /// Queues a request.
    ///
    /// # Safety
    /// Memory the request points at must stay valid and unmoved until its last completion.
    #[inline]
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: the caller's promise.
            if unsafe { self.submission.push(entry) }.is_ok() {
                return Ok(());
            }
            self.submission.sync();
            self.submitter.submit()?;
            self.submission.sync();
        }
    }
}

/// Runs the loop until the handler says `Next::Stop`. `start` may add listeners and connections.
pub fn run<H: Handler>(
    setup: &Setup,
    handler: &mut H,
    start: impl FnOnce(&mut Net, &mut H) -> io::Result<()>,
) -> io::Result<()> {
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_cqsize(setup.entries * 8)
        .build(setup.entries)?;
    let mut buffers = Buffers::new(setup.buffers, setup.buffer_octets)?;
    let mut net = Net::new(setup.connections_max);
    let (submitter, submission, mut completion) = ring.split();
    let mut queue = Queue { submitter, submission };
    queue.submitter.register_ring_fd()?;
    // SAFETY: the mapping has `buffers` entries and is never unmapped (see `map`).
    unsafe {
        queue.submitter.register_buf_ring_with_flags(
            buffers.ring.as_ptr() as u64,
            setup.buffers,
            BUFFER_GROUP,
            0,
        )?;
    }
    start(&mut net, handler)?;
    let mut next = handler.turn(&mut net);
    while next != Next::Stop {
        submit_commit(&mut net, &mut queue)?;
        submit_changes(&mut net, &mut queue)?;
        queue.submission.sync();
        enter(&queue.submitter, next)?;
        completion.sync();
        for entry in &mut completion {
            complete(&entry, &mut net, &mut buffers, handler);
        }
        buffers.publish();
        next = handler.turn(&mut net);
    }
    // An armed accept holds its listener until a kernel worker has taken the ring apart, which may
    // be after the process has ended: only this frees the port now.
    for listener in &net.listeners {
        let fd = listener.as_raw_fd();
        let _ = nix::sys::socket::shutdown(fd, nix::sys::socket::Shutdown::Both);
    }
    // What the kernel may still read of a connection must outlive the ring.
    for slot in &mut net.slots {
        std::mem::forget(std::mem::take(&mut slot.sending));
        std::mem::forget(slot.address.take());
        if slot.open && !slot.gone {
            let _ = nix::sys::socket::shutdown(slot.fd, nix::sys::socket::Shutdown::Both);
            let _ = nix::unistd::close(slot.fd);
        }
    }
    std::mem::forget(net.commit);
    for fd in net.close_later {
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

/// By itself and first: what is submitted together is plugged (block layer), so that the device
/// would get the write only after all sends of the turn.
fn submit_commit(net: &mut Net, queue: &mut Queue<'_>) -> io::Result<()> {
    let (Some(commit), Some(file)) = (&mut net.commit, &net.file) else { return Ok(()) };
    if std::mem::replace(&mut commit.armed, true) {
        return Ok(());
    }
    let entry = opcode::Write::new(Fd(file.as_raw_fd()), commit.block.as_ptr(), commit.octets)
        .offset(commit.offset)
        .rw_flags(libc::RWF_DSYNC)
        .build()
        .user_data(user_data(OP_COMMIT, 0, 0));
    // SAFETY: the block stays in `net.commit`, untouched, until the completion, and is leaked when
    // the handler stops first, as what is being sent is; a move of it does not move its memory.
    unsafe { queue.push(&entry)? };
    queue.submission.sync();
    forgive(queue.submitter.submit())
}

fn enter(submitter: &Submitter<'_>, next: Next) -> io::Result<()> {
    let result = match next {
        Next::WaitFor(wait) => {
            let wait = Timespec::new().sec(wait.as_secs()).nsec(wait.subsec_nanos());
            submitter.submit_with_args(1, &SubmitArgs::new().timespec(&wait))
        }
        _ => submitter.submit_and_wait(1),
    };
    forgive(result)
}

/// What `io_uring_enter` says in normal life is no error.
fn forgive(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

/// Turns everything the handlers changed into requests.
fn submit_changes(net: &mut Net, queue: &mut Queue<'_>) -> io::Result<()> {
    for at in std::mem::take(&mut net.arm_accept) {
        let fd = Fd(net.listeners[at].as_raw_fd());
        let index = u32::try_from(at).expect("few listeners");
        let entry = opcode::AcceptMulti::new(fd)
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(user_data(OP_ACCEPT, 0, index));
        // SAFETY: no address is asked for, so the request points at no memory.
        unsafe { queue.push(&entry)? };
    }
    if std::mem::take(&mut net.arm_watch)
        && let Some(fd) = &net.watch
    {
        let events = u32::from(libc::POLLIN.cast_unsigned());
        let entry = opcode::PollAdd::new(Fd(fd.as_raw_fd()), events)
            .build()
            .user_data(user_data(OP_WATCH, 0, 0));
        // SAFETY: the request points at no memory.
        unsafe { queue.push(&entry)? };
    }
    let mut dirty = std::mem::take(&mut net.dirty);
    for &index in &dirty {
        net.slots[index as usize].dirty = false;
        submit_slot(net, queue, index)?;
    }
    dirty.clear();
    if net.dirty.is_empty() {
        net.dirty = dirty;
    }
    let mut closing = std::mem::take(&mut net.close_later);
    for &fd in &closing {
        let entry = close_request(fd);
        // SAFETY: the request points at no memory; the slot has forgotten the descriptor.
        unsafe { queue.push(&entry)? };
    }
    closing.clear();
    net.close_later = closing;
    Ok(())
}

fn submit_slot(net: &mut Net, queue: &mut Queue<'_>, index: u32) -> io::Result<()> {
    let slot = &mut net.slots[index as usize];
    if !slot.open {
        return Ok(());
    }
    let fd = Fd(slot.fd);
    if slot.connecting {
        if slot.connect_armed {
            if slot.ended {
                cancel(OP_CONNECT, slot, queue, index)?;
            }
        } else if let Some(address) = &slot.address {
            slot.connect_armed = true;
            let entry = opcode::Connect::new(fd, address.as_ptr(), address.len())
                .build()
                .user_data(user_data(OP_CONNECT, slot.generation, index));
            // SAFETY: the address is boxed in the slot and stays there until the completion.
            unsafe { queue.push(&entry)? };
        }
        return Ok(());
    }
    if !slot.queued.is_empty() && !slot.in_flight {
        std::mem::swap(&mut slot.queued, &mut slot.sending);
        slot.queued.clear();
        slot.in_flight = true;
        let octets = u32::try_from(slot.sending.len()).map_err(io::Error::other)?;
        let entry = opcode::Send::new(fd, slot.sending.as_ptr(), octets)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .user_data(user_data(OP_SEND, slot.generation, index));
        // SAFETY: `sending` is not touched while `in_flight`, a move of the slot does not move its
        // heap memory, and it is leaked if the ring ends first.
        unsafe { queue.push(&entry)? };
    }
    if slot.finish && !slot.ended && slot.queued.is_empty() {
        close_now(slot, queue, index)?;
        if !slot.receiving && !slot.in_flight {
            net.release(index);
        }
        return Ok(());
    }
    if slot.ended && !slot.in_flight {
        if !slot.receiving {
            net.release(index);
        } else if !slot.gone {
            cancel(OP_RECV, slot, queue, index)?;
        }
        return Ok(());
    }
    if !slot.ended && slot.paused && slot.receiving {
        cancel(OP_RECV, slot, queue, index)?;
    } else if !slot.ended && !slot.paused && !slot.receiving {
        slot.receiving = true;
        let entry = opcode::RecvMulti::new(fd, BUFFER_GROUP).build().user_data(user_data(
            OP_RECV,
            slot.generation,
            index,
        ));
        // SAFETY: the request writes only to buffers of the group, which are never unmapped.
        unsafe { queue.push(&entry)? };
    }
    if slot.half_close && !slot.half_closed && !slot.in_flight && slot.queued.is_empty() {
        slot.half_closed = true;
        // A plain call: as a request it would always be sent to a kernel worker thread.
        let _ = nix::sys::socket::shutdown(slot.fd, nix::sys::socket::Shutdown::Write);
    }
    Ok(())
}

/// Closes behind the last send without waiting for it: both requests hold the file until they are
/// done, so the end of the stream follows the last octet in any case.
fn close_now(slot: &mut Slot, queue: &mut Queue<'_>, index: u32) -> io::Result<()> {
    slot.ended = true;
    slot.gone = true;
    if slot.receiving {
        cancel(OP_RECV, slot, queue, index)?;
    }
    let entry = close_request(slot.fd);
    // SAFETY: the request points at no memory, and the descriptor is not used after it.
    unsafe { queue.push(&entry)? };
    Ok(())
}

fn close_request(fd: RawFd) -> squeue::Entry {
    opcode::Close::new(Fd(fd))
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(user_data(OP_IGNORED, 0, 0))
}

fn cancel(op: u64, slot: &Slot, queue: &mut Queue<'_>, index: u32) -> io::Result<()> {
    let entry = opcode::AsyncCancel::new(user_data(op, slot.generation, index))
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(user_data(OP_IGNORED, 0, 0));
    // SAFETY: the request points at no memory.
    unsafe { queue.push(&entry) }
}

fn complete<H: Handler>(
    entry: &cqueue::Entry,
    net: &mut Net,
    buffers: &mut Buffers,
    handler: &mut H,
) {
    let data = entry.user_data();
    let index = u32::try_from(data & 0xffff_ffff).expect("masked");
    let generation = u32::try_from(data >> 32).expect("64 bits shifted by 32") & GENERATION_MASK;
    let conn = Conn { index, generation };
    match data >> 56 {
        OP_RECV => receive_done(entry, net, buffers, handler, conn),
        OP_SEND => send_done(entry, net, handler, conn),
        OP_ACCEPT => accept_done(entry, net, handler, index),
        OP_CONNECT => connect_done(entry, net, handler, conn),
        OP_COMMIT => commit_done(entry, net, handler),
        OP_WATCH => {
            net.watch = None;
            handler.watched(net);
        }
        _ => {}
    }
}

fn commit_done<H: Handler>(entry: &cqueue::Entry, net: &mut Net, handler: &mut H) {
    let Some(commit) = net.commit.take() else { return };
    let written = match u32::try_from(entry.result()) {
        Ok(octets) if octets == commit.octets => Ok(()),
        Ok(octets) => {
            let text = format!("a durable write took {octets} of {} octets", commit.octets);
            Err(io::Error::other(text))
        }
        Err(_) => Err(io::Error::from_raw_os_error(-entry.result())),
    };
    handler.committed(net, commit.block, written);
}

fn accept_done<H: Handler>(entry: &cqueue::Entry, net: &mut Net, handler: &mut H, at: u32) {
    let result = entry.result();
    if result >= 0 {
        if let Some(conn) = net.take(result) {
            handler.accepted(net, conn);
        } else {
            net.refused += 1;
            net.close_later.push(result);
        }
    }
    if !cqueue::more(entry.flags()) {
        let out_of_descriptors = result == -libc::EMFILE || result == -libc::ENFILE;
        let list = if out_of_descriptors && net.open > 0 {
            &mut net.accept_stalled
        } else {
            &mut net.arm_accept
        };
        list.push(at as usize);
    }
}

fn connect_done<H: Handler>(entry: &cqueue::Entry, net: &mut Net, handler: &mut H, conn: Conn) {
    let slot = &mut net.slots[conn.index as usize];
    slot.connecting = false;
    slot.connect_armed = false;
    slot.address = None;
    let error = -entry.result();
    if slot.ended {
        net.release(conn.index);
    } else if error == 0 {
        net.mark(conn.index);
        handler.connected(net, conn, 0);
    } else {
        net.release(conn.index);
        handler.connected(net, conn, error);
    }
}

fn send_done<H: Handler>(entry: &cqueue::Entry, net: &mut Net, handler: &mut H, conn: Conn) {
    let slot = &mut net.slots[conn.index as usize];
    slot.in_flight = false;
    let whole = usize::try_from(entry.result()).is_ok_and(|sent| sent == slot.sending.len());
    slot.sending.clear();
    if !whole {
        slot.queued.clear();
        if !slot.ended {
            slot.ended = true;
            net.mark(conn.index);
            handler.ended(net, conn, entry.result().min(0).abs());
            return;
        }
    } else if slot.queued.is_empty() && slot.want_drained && !slot.ended {
        slot.want_drained = false;
        handler.drained(net, conn);
    }
    let slot = &net.slots[conn.index as usize];
    if !slot.queued.is_empty()
        || slot.ended
        || slot.finish
        || (slot.half_close && !slot.half_closed)
    {
        net.mark(conn.index);
    }
}

fn receive_done<H: Handler>(
    entry: &cqueue::Entry,
    net: &mut Net,
    buffers: &mut Buffers,
    handler: &mut H,
    conn: Conn,
) {
    let result = entry.result();
    let buffer = cqueue::buffer_select(entry.flags());
    let armed = cqueue::more(entry.flags());
    let slot = &mut net.slots[conn.index as usize];
    if slot.generation != conn.generation {
        if let Some(id) = buffer {
            buffers.give(id);
        }
        return;
    }
    slot.receiving = armed;
    let ended = slot.ended;
    if let (Some(id), Ok(octets)) = (buffer, usize::try_from(result)) {
        if !ended && octets > 0 {
            handler.received(net, conn, buffers.filled(id, octets));
        }
        buffers.give(id);
    }
    let transient = [-libc::ENOBUFS, -libc::ECANCELED, -libc::EINTR, -libc::EAGAIN];
    if !ended && (result == 0 || (result < 0 && !transient.contains(&result))) {
        let slot = &mut net.slots[conn.index as usize];
        if !slot.ended {
            slot.ended = true;
            if result < 0 {
                slot.queued.clear();
            }
            handler.ended(net, conn, -result);
        }
    }
    if !armed {
        net.mark(conn.index);
    }
}
