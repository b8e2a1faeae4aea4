//! Connections, as completions move them on: each step of [`Link::next`], and what comes back.
//!
//! *Guarantees*: received bytes are told in order, or held in order; a buffer goes back to the
//! kernel before the next completion is looked at.

use super::connection::SendRefused;
use super::{Core, Deferred, Due, Handler};
use crate::event::Event;
use crate::handle::{Conn, Op, Word};
use crate::limits::{CANCEL_AGAIN_US, OUT_FIRST_BYTES, OUT_POOL_MAX, OUT_POOLED_BYTES_MAX};
use crate::link::{Link, Origin, Stage, Step};
use crate::ring::Completion;
use crate::socket;
use io_uring::squeue::Flags;
use io_uring::{cqueue, opcode, types};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::{io, mem};

/// Sends never raise a signal, and end only when all is sent or an error came.
const SEND_FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

impl<M: Send> Core<M> {
    /// The connection is looked at before the next enter.
    pub(super) fn mark(&mut self, conn: Conn) {
        if let Some(link) = self.links.get_mut(conn.key())
            && !mem::replace(&mut link.dirty, true)
        {
            self.dirty.push(conn);
        }
    }

    /// The output buffer, with room for `length` bytes within the bound.
    pub(super) fn out(&mut self, conn: Conn, length: usize) -> Result<&mut Vec<u8>, SendRefused> {
        let link = self.links.get_mut(conn.key()).ok_or(SendRefused::Closed)?;
        if !link.speaks() || link.shutdown_wanted {
            return Err(SendRefused::Closed);
        }
        if link.queued() + length > self.config.out_bytes_max {
            return Err(SendRefused::Full);
        }
        if !mem::replace(&mut link.dirty, true) {
            self.dirty.push(conn);
        }
        if link.out.capacity() == 0 {
            link.out = self.out_pool.pop().unwrap_or_else(|| Vec::with_capacity(OUT_FIRST_BYTES));
        }
        Ok(&mut link.out)
    }

    /// Keeps an output buffer for another connection, unless there are enough or it is too large.
    fn pool_out(&mut self, mut buffer: Vec<u8>) {
        if (1..=OUT_POOLED_BYTES_MAX).contains(&buffer.capacity())
            && self.out_pool.len() < OUT_POOL_MAX
        {
            buffer.clear();
            self.out_pool.push(buffer);
        }
    }

    pub(super) fn forget_held(&mut self, conn: Conn) {
        if let Some(link) = self.links.get_mut(conn.key()) {
            self.held_bytes -= mem::take(&mut link.held).len();
            link.end = None;
        }
    }

    pub(super) fn set_deadline(&mut self, conn: Conn, deadline_us: u64) {
        let Some(link) = self.links.get_mut(conn.key()) else { return };
        if link.deadline.is_none_or(|timer| !self.wheel.move_to(timer, deadline_us)) {
            link.deadline = self.wheel.set(deadline_us, Due::Deadline(conn));
        }
    }

    /// Does all that a connection can do now.
    pub(super) fn drive(&mut self, conn: Conn) {
        let key = conn.key();
        while let Some(link) = self.links.get_mut(key) {
            let Some(step) = link.next() else { return };
            let fd = types::Fd(link.fd);
            match step {
                Step::Send => {
                    let full = mem::take(&mut link.out);
                    let empty = mem::replace(&mut link.sending, full);
                    link.sent = 0;
                    self.submit_send(key);
                    self.pool_out(empty);
                }
                Step::Shutdown => {
                    link.shutdown_armed = true;
                    let entry = opcode::Shutdown::new(fd, libc::SHUT_WR).build();
                    // SAFETY: names no memory; the descriptor is closed only when no request on
                    // the link is armed.
                    unsafe { self.ring.push(entry.user_data(Word::pack(Op::Shutdown, key))) };
                }
                Step::Receive => self.submit_receive(key),
                Step::Cancel => {
                    link.cancelled = true;
                    self.ring.cancel_descriptor(fd.0);
                }
                Step::Close => {
                    link.stage = Stage::Closing;
                    let entry = opcode::Close::new(fd).build();
                    // SAFETY: names no memory; no other request on the descriptor is armed
                    // (`Link::next`), and the slot forgets it with this one.
                    unsafe { self.ring.push(entry.user_data(Word::pack(Op::Close, key))) };
                }
                Step::Free => {
                    link.stage = Stage::Closing;
                    self.deferred.push_back(Deferred::Closed(conn));
                }
            }
        }
    }

    fn submit_send(&mut self, key: (u32, u32)) {
        let Some(link) = self.links.get_mut(key) else { return };
        let rest = &link.sending[link.sent..];
        let length = u32::try_from(rest.len()).expect("out_bytes_max is below 4 GiB");
        let entry = opcode::Send::new(types::Fd(link.fd), rest.as_ptr(), length)
            .flags(SEND_FLAGS)
            .build()
            .user_data(Word::pack(Op::Send, key));
        link.send_armed = true;
        // SAFETY: `sending` belongs to the slot and is neither changed nor freed while
        // `send_armed`; the slot is freed, and its descriptor closed, only when nothing is armed.
        unsafe { self.ring.push(entry) };
    }

    fn submit_receive(&mut self, key: (u32, u32)) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.receive_armed = true;
        link.receive_cancelled = false;
        let (fd, group) = (types::Fd(link.fd), self.receive.group());
        let entry = if self.multishot {
            opcode::RecvMulti::new(fd, group).build()
        } else {
            let bytes = self.config.recv_buffer_bytes;
            opcode::Recv::new(fd, std::ptr::null_mut(), bytes)
                .buf_group(group)
                .build()
                .flags(Flags::BUFFER_SELECT)
        };
        // SAFETY: the kernel writes only into provided buffers, which outlive the ring; the
        // descriptor is closed only when no receive is armed.
        unsafe { self.ring.push(entry.user_data(Word::pack(Op::Receive, key))) };
    }

    pub(super) fn on_receive(&mut self, done: Completion, handler: &mut impl Handler<M>) {
        let buffer = cqueue::buffer_select(done.flags);
        if let Some(key) = self.links.resolve(done.word) {
            self.received(Conn::new(key), done, buffer, handler);
        } else {
            self.stats.stale += 1;
        }
        if let Some(buffer) = buffer {
            self.receive.recycle(buffer);
        }
    }

    fn received(
        &mut self,
        conn: Conn,
        done: Completion,
        buffer: Option<u16>,
        handler: &mut impl Handler<M>,
    ) {
        let Some(link) = self.links.get_mut(conn.key()) else { return };
        if !cqueue::more(done.flags) {
            link.receive_armed = false;
            link.receive_cancelled = false;
            if !mem::replace(&mut link.dirty, true) {
                self.dirty.push(conn);
            }
        }
        match (usize::try_from(done.result), buffer) {
            (Ok(length @ 1..), Some(buffer)) => {
                if !link.speaks() {
                    return;
                }
                // SAFETY: the completion just named this buffer; `on_receive` recycles it after
                // the last use of the slice.
                let bytes = unsafe { self.receive.bytes(buffer, length) };
                if link.paused || link.holds() {
                    self.hold(conn, bytes, handler);
                } else {
                    handler.event(self, Event::Received { conn, bytes });
                }
            }
            (Ok(_), _) => self.input_ended(conn, 0, handler),
            (Err(_), _) => match -done.result {
                libc::ENOBUFS => {
                    link.starved = true;
                    self.stats.starved += 1;
                    self.starved.push_back(conn);
                }
                libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
                error => self.input_ended(conn, error, handler),
            },
        }
    }

    /// Keeps bytes for a paused connection and asks the kernel to stop.
    fn hold(&mut self, conn: Conn, bytes: &[u8], handler: &mut impl Handler<M>) {
        if self.held_bytes + bytes.len() > self.config.held_bytes_max {
            return self.broken(conn, libc::ENOBUFS, handler);
        }
        let Some(link) = self.links.get_mut(conn.key()) else { return };
        link.held.extend_from_slice(bytes);
        self.held_bytes += bytes.len();
        if link.receive_armed && !mem::replace(&mut link.receive_cancelled, true) {
            self.ring.cancel(Word::pack(Op::Receive, conn.key()));
        }
    }

    /// The kernel will give no more: `error` 0 is the peer's FIN.
    fn input_ended(&mut self, conn: Conn, error: i32, handler: &mut impl Handler<M>) {
        let Some(link) = self.links.get_mut(conn.key()) else { return };
        link.received_all = true;
        if !link.speaks() {
            // A reset while lingering: there is nobody to wait for.
            link.ending |= error != 0;
            self.mark(conn);
        } else if link.paused || link.holds() {
            link.end = Some(error);
        } else {
            self.tell_end(conn, error, handler);
        }
    }

    fn tell_end(&mut self, conn: Conn, error: i32, handler: &mut impl Handler<M>) {
        if error == 0 {
            handler.event(self, Event::Eof { conn });
        } else {
            self.broken(conn, error, handler);
        }
    }

    /// Tells what was held, piece by piece, until it is told or the handler pauses again.
    pub(super) fn on_resumed(&mut self, conn: Conn, handler: &mut impl Handler<M>) {
        let piece = self.config.recv_buffer_bytes as usize;
        let mut at = 0;
        let Some(link) = self.links.get_mut(conn.key()) else { return };
        let mut held = mem::take(&mut link.held);
        while let Some(link) = self.links.get_mut(conn.key()) {
            if !link.speaks() {
                self.held_bytes -= held.len() - at;
                return;
            }
            if link.paused || !link.held.is_empty() {
                // What the handler gave back comes first, then what it was not told yet; if it
                // has resumed already, its `resume` has put the next round off.
                link.held.extend_from_slice(&held[at..]);
                return;
            }
            if at == held.len() {
                break;
            }
            let end = held.len().min(at + piece);
            let bytes = &mut held[at..end];
            self.held_bytes -= bytes.len();
            at = end;
            handler.event(self, Event::Received { conn, bytes });
        }
        if let Some(link) = self.links.get_mut(conn.key())
            && let Some(error) = link.end.take()
        {
            self.tell_end(conn, error, handler);
        }
        self.mark(conn);
    }

    /// Lets starved connections receive again: not more at once than there are buffers.
    pub(super) fn feed_starved(&mut self) {
        for _ in 0..self.receive.entries() {
            let Some(conn) = self.starved.pop_front() else { return };
            if let Some(link) = self.links.get_mut(conn.key()) {
                link.starved = false;
                self.mark(conn);
            }
        }
    }

    pub(super) fn has_starved(&self) -> bool {
        !self.starved.is_empty()
    }

    pub(super) fn on_send(&mut self, done: Completion, handler: &mut impl Handler<M>) {
        let Some(key) = self.links.resolve(done.word) else {
            self.stats.stale += 1;
            return;
        };
        let conn = Conn::new(key);
        let Some(link) = self.links.get_mut(key) else { return };
        link.send_armed = false;
        match usize::try_from(done.result) {
            Ok(length) => link.sent += length,
            Err(_) if link.closing || link.ending => link.ending = true,
            Err(_) if matches!(-done.result, libc::EINTR | libc::EAGAIN | libc::ECANCELED) => {}
            Err(_) => return self.broken(conn, -done.result, handler),
        }
        if link.sent < link.sending.len() && !link.ending {
            self.submit_send(key);
            return;
        }
        link.sent = 0;
        let empty = mem::take(&mut link.sending);
        let drained = link.out.is_empty() && mem::take(&mut link.want_drained) && link.speaks();
        self.pool_out(empty);
        self.mark(conn);
        if drained {
            handler.event(self, Event::Drained { conn });
        }
    }

    pub(super) fn on_shutdown(&mut self, done: Completion) {
        let Some(key) = self.links.resolve(done.word) else { return self.stats.stale += 1 };
        let Some(link) = self.links.get_mut(key) else { return };
        link.shutdown_armed = false;
        link.shutdown_done = true;
        // ENOTCONN: the peer has reset the connection; the receive tells that as well.
        self.mark(Conn::new(key));
    }

    pub(super) fn on_socket(&mut self, done: Completion, handler: &mut impl Handler<M>) {
        let Some(key) = self.links.resolve(done.word) else { return self.stats.stale += 1 };
        let conn = Conn::new(key);
        let Some(link) = self.links.get_mut(key) else { return };
        link.stage = Stage::Open;
        if done.result < 0 {
            return self.connected(conn, -done.result, handler);
        }
        link.fd = done.result;
        if link.ending {
            return self.mark(conn);
        }
        link.stage = Stage::Connecting;
        match self.dial(key) {
            Ok(()) => {}
            Err(error) => {
                self.connected(conn, error.raw_os_error().unwrap_or(libc::EIO), handler);
            }
        }
    }

    fn dial(&mut self, key: (u32, u32)) -> io::Result<()> {
        let Some(link) = self.links.get_mut(key) else { return Ok(()) };
        let dial = link.dial.as_ref().expect("kept until the connection stands");
        socket::set(&link.fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        if let Some(bind) = dial.bind {
            // The port is chosen at connect, so that ports are scarce per destination only.
            socket::set(&link.fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
            socket::bind(&link.fd, bind)?;
        }
        let entry = opcode::Connect::new(types::Fd(link.fd), dial.address.as_ptr(), dial.length)
            .build()
            .user_data(Word::pack(Op::Connect, key));
        // SAFETY: the address lies in a box of the slot that is kept until the completion; the
        // descriptor is closed only after it.
        unsafe { self.ring.push(entry) };
        Ok(())
    }

    pub(super) fn on_connect(&mut self, done: Completion, handler: &mut impl Handler<M>) {
        let Some(key) = self.links.resolve(done.word) else { return self.stats.stale += 1 };
        self.connected(Conn::new(key), -done.result, handler);
    }

    /// An attempt ended; `error` 0 is success.
    fn connected(&mut self, conn: Conn, error: i32, handler: &mut impl Handler<M>) {
        let Some(link) = self.links.get_mut(conn.key()) else { return };
        link.stage = Stage::Open;
        link.dial = None;
        let told = link.ending;
        let deadline = if error == 0 && !told { link.deadline.take() } else { None };
        link.ending |= error != 0;
        if let Some(deadline) = deadline {
            self.wheel.cancel(deadline);
        }
        self.mark(conn);
        if !told {
            let result = if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) };
            handler.event(self, Event::Connected { conn, result });
        }
    }

    /// Tells of a failure and gives up the connection.
    fn broken(&mut self, conn: Conn, error: i32, handler: &mut impl Handler<M>) {
        let tells = self.links.get(conn.key()).is_some_and(Link::speaks);
        self.abort(conn);
        if tells {
            handler.event(self, Event::Broken { conn, error: io::Error::from_raw_os_error(error) });
        }
    }

    /// The linger or connect deadline passed, or it is time to cancel again.
    pub(super) fn on_deadline(&mut self, conn: Conn, handler: &mut impl Handler<M>) {
        let Some(link) = self.links.get_mut(conn.key()) else { return };
        link.deadline = None;
        link.cancelled = false;
        let dialling = matches!(link.stage, Stage::Socket | Stage::Connecting) && !link.ending;
        self.abort(conn);
        let again_us = self.now_us.saturating_add(CANCEL_AGAIN_US);
        self.set_deadline(conn, again_us);
        self.mark(conn);
        if dialling {
            let result = Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            handler.event(self, Event::Connected { conn, result });
        }
    }

    pub(super) fn on_conn_timer(&mut self, conn: Conn, handler: &mut impl Handler<M>) {
        let Some(link) = self.links.get_mut(conn.key()) else { return };
        link.timer = None;
        if !link.closing && !link.ending {
            handler.event(self, Event::ConnTimer { conn });
        }
    }

    pub(super) fn on_close(&mut self, done: Completion, handler: &mut impl Handler<M>) {
        let Some(key) = self.links.resolve(done.word) else { return self.stats.stale += 1 };
        self.closed(Conn::new(key), handler);
    }

    /// The kernel holds nothing of the connection any more: frees the slot.
    pub(super) fn closed(&mut self, conn: Conn, handler: &mut impl Handler<M>) {
        self.forget_held(conn);
        let Some(link) = self.links.remove(conn.key()) else { return };
        for timer in [link.timer, link.deadline].into_iter().flatten() {
            self.wheel.cancel(timer);
        }
        match link.origin {
            Origin::Accepted => self.accepted -= 1,
            Origin::Outgoing => self.outgoing -= 1,
        }
        self.pool_out(link.out);
        self.pool_out(link.sending);
        handler.event(self, Event::Closed { conn });
    }

    /// What was put off while the handler ran.
    pub(super) fn on_deferred(&mut self, deferred: Deferred, handler: &mut impl Handler<M>) {
        match deferred {
            Deferred::Accepted(conn, listener) => self.tell_adopted(conn, listener, handler),
            Deferred::Drained(conn) => {
                if self.links.get(conn.key()).is_some_and(Link::speaks) {
                    handler.event(self, Event::Drained { conn });
                }
            }
            Deferred::Resumed(conn) => self.on_resumed(conn, handler),
            Deferred::Closed(conn) => self.closed(conn, handler),
            Deferred::ListenerClosed(listener, error) => {
                handler.event(self, Event::ListenerClosed { listener, error });
            }
        }
    }

    fn tell_adopted(&mut self, conn: Conn, listener: u32, handler: &mut impl Handler<M>) {
        let Some(link) = self.links.get(conn.key()).filter(|link| link.speaks()) else { return };
        let peer = link.peer;
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let local = socket::local(&link.fd).unwrap_or(nowhere);
        handler.event(self, Event::Accepted { conn, listener, peer, local });
    }
}
