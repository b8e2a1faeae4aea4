//! The loop: submit, sleep, take completions, timers and mail, tell the handler, again.

use super::{Core, Due, Event, Handler};
use crate::clock;
use crate::handle::{Conn, Op, Slab, Word};
use crate::limits::{MAIL_PER_TURN, SLEEP_US_MAX, STOP_WAIT_US};
use crate::ring::Completion;
use io_uring::{cqueue, opcode, types};
use std::sync::atomic::Ordering;
use std::{io, mem};

/// Hears nothing: for the last turns of a core.
struct Deaf;

impl<M: Send> Handler<M> for Deaf {
    fn event(&mut self, _core: &mut Core<M>, _event: Event<'_, M>) {}

    fn turn_end(&mut self, _core: &mut Core<M>) {}
}

impl<M: Send> Core<M> {
    /// Runs until [`Core::stop`]. Then cancels and closes everything, waits until the kernel has
    /// given back all memory, and drops the core.
    ///
    /// # Errors
    /// Only what `io_uring_enter` itself says when it cannot go on.
    pub fn run(mut self, handler: &mut impl Handler<M>) -> io::Result<()> {
        while !self.stopping {
            self.turn(handler)?;
        }
        Ok(())
    }

    /// One turn: for callers that have their own loop.
    ///
    /// # Errors
    /// As [`Core::run`].
    pub fn turn(&mut self, handler: &mut impl Handler<M>) -> io::Result<()> {
        if mem::take(&mut self.disk_queued) {
            // By themselves: what is submitted together is plugged (block layer), so that the
            // device would get a write only after all sends of the turn are through TCP.
            self.ring.submit()?;
        }
        self.flush();
        let wait_us = self.sleep_us();
        self.ring.enter(wait_us)?;
        if !self.ring.has_backlog() {
            self.bells.clear();
        }
        self.now_us = clock::now_us();
        self.heartbeat.store(self.now_us, Ordering::Relaxed);
        self.stats.turns += 1;
        self.stats.cq_overflows += u64::from(self.ring.is_overflowing());
        if self.ring.overflow() > 0 {
            // The kernel keeps completions aside (NODROP); it lost some only if it had no memory
            // for that. Whose they were is unknown: better a restart than a wrong belief.
            return Err(io::Error::other("the kernel had no memory for completions"));
        }
        self.take_completions(handler);
        self.take_timers(handler);
        self.take_mail(handler);
        // Only what stands there now: a handler that defers for ever does not stop the loop.
        for _ in 0..self.deferred.len() {
            let Some(deferred) = self.deferred.pop_front() else { break };
            self.on_deferred(deferred, handler);
        }
        handler.turn_end(self);
        Ok(())
    }

    /// Queues everything that connections want.
    fn flush(&mut self) {
        self.feed_starved();
        let mut dirty = mem::take(&mut self.dirty);
        for conn in dirty.drain(..) {
            if let Some(link) = self.links.get_mut(conn.key()) {
                link.dirty = false;
                self.drive(conn);
            }
        }
        // Driving marks nothing; keep the allocation.
        debug_assert!(self.dirty.is_empty());
        self.dirty = dirty;
        if !mem::replace(&mut self.wake_armed, true) {
            let readable = u32::try_from(libc::POLLIN).expect("1");
            let fd = types::Fd(self.mailbox.bell().fd());
            let entry = opcode::PollAdd::new(fd, readable).multi(true).build();
            // SAFETY: names no memory; the mailbox keeps the descriptor open as long as the core.
            unsafe { self.ring.push(entry.user_data(Word::pack(Op::Wake, (0, 0)))) };
        }
    }

    fn sleep_us(&self) -> u64 {
        if self.stopping || self.mail_waits || !self.deferred.is_empty() || self.has_starved() {
            return 0;
        }
        match self.wheel.next_us() {
            // At least a microsecond: 0 would not wait.
            Some(next) => next.saturating_sub(clock::now_us()).min(SLEEP_US_MAX),
            None => SLEEP_US_MAX,
        }
    }

    fn take_completions(&mut self, handler: &mut impl Handler<M>) {
        let mut batch = mem::take(&mut self.batch);
        self.ring.drain(&mut batch);
        self.stats.completions += u64::try_from(batch.len()).unwrap_or(0);
        for done in batch.drain(..) {
            self.dispatch(done, handler);
        }
        self.batch = batch;
    }

    /// Sends one completion to its object.
    pub(super) fn dispatch(&mut self, done: Completion, handler: &mut impl Handler<M>) {
        match done.word.op {
            Op::Ignored => {}
            Op::Accept => self.on_accept(done, handler),
            Op::Socket => self.on_socket(done, handler),
            Op::Connect => self.on_connect(done, handler),
            Op::Receive => self.on_receive(done, handler),
            Op::Send => self.on_send(done, handler),
            Op::Shutdown => self.on_shutdown(done),
            Op::Close => self.on_close(done, handler),
            Op::DatagramReceive => self.on_datagram(done, handler),
            Op::DatagramSend => self.on_datagram_sent(done),
            Op::Disk => self.on_disk(done, handler),
            Op::Wake => {
                self.wake_armed = cqueue::more(done.flags);
                self.mail_waits = true;
            }
        }
    }

    fn take_timers(&mut self, handler: &mut impl Handler<M>) {
        while let Some((_, due)) = self.wheel.expire(self.now_us) {
            match due {
                Due::Token(token) => {
                    self.tokens -= 1;
                    handler.event(self, Event::Timer { token });
                }
                Due::Conn(conn) => self.on_conn_timer(conn, handler),
                Due::Deadline(conn) => self.on_deadline(conn, handler),
                Due::Accept(listener) => self.on_accept_timer(listener),
            }
        }
    }

    fn take_mail(&mut self, handler: &mut impl Handler<M>) {
        if !self.mail_waits {
            return;
        }
        // From here on a sender rings again; what came before is in the queue.
        self.mailbox.bell().answer();
        for _ in 0..MAIL_PER_TURN {
            let Some(mail) = self.mailbox.take() else { break };
            handler.event(self, Event::Mail(mail));
        }
        self.mail_waits = !self.mailbox.is_empty();
    }

    /// Cancels and closes everything and waits for the kernel. True if it gave back all.
    fn quiesce(&mut self) -> bool {
        let deadline_us = clock::now_us() + STOP_WAIT_US;
        for key in self.listeners.keys() {
            self.close_listener(crate::handle::Listener::new(key));
        }
        self.close_sockets();
        let mut wake_cancelled = false;
        while self.holds_memory() {
            // Every round: a last connection may have come in with the listener's end.
            for key in self.links.keys() {
                self.abort(Conn::new(key));
            }
            self.flush_last(&mut wake_cancelled);
            if clock::now_us() > deadline_us || self.ring.enter(10_000).is_err() {
                return false;
            }
            self.now_us = clock::now_us();
            self.take_completions(&mut Deaf);
            while let Some(deferred) = self.deferred.pop_front() {
                self.on_deferred(deferred, &mut Deaf);
            }
            while let Some((_, due)) = self.wheel.expire(self.now_us) {
                if let Due::Deadline(conn) = due {
                    self.on_deadline(conn, &mut Deaf);
                }
            }
        }
        // Submit the last closes.
        self.ring.enter(0).is_ok()
    }

    fn flush_last(&mut self, wake_cancelled: &mut bool) {
        self.wake_armed = true;
        if !mem::replace(wake_cancelled, true) {
            self.ring.cancel(Word::pack(Op::Wake, (0, 0)));
        }
        self.flush();
    }

    /// The kernel may still write into or read from memory of this core.
    fn holds_memory(&self) -> bool {
        self.links.len() + self.listeners.len() + self.sockets.len() + self.datagram_sends.len() > 0
            || self.disk_ops.len() > 0
    }
}

impl<M: Send> Drop for Core<M> {
    fn drop(&mut self) {
        if !self.quiesce() {
            // The kernel may still write here: better lost than given to somebody else.
            self.receive.leak();
            self.datagram_receive.leak();
            self.leak_disk();
            forget(&mut self.links);
            forget(&mut self.datagram_sends);
            forget(&mut self.disk_ops);
        }
    }
}

/// Forgets a slab with all it owns.
fn forget<T>(slab: &mut Slab<T>) {
    mem::forget(mem::replace(slab, Slab::new(0)));
}
