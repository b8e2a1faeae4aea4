//! Connections, as the handler calls them: sending, pausing, connecting, ending.
//!
//! *Not here*: what completions do with them (`progress`).

use super::{Core, Deferred, Due};
use crate::address::RawAddress;
use crate::handle::{Conn, Op, Word};
use crate::limits::CANCEL_AGAIN_US;
use crate::link::{Dial, Link, Origin, Stage};
use crate::socket;
use io_uring::opcode;
use std::net::{IpAddr, SocketAddr};
use std::{io, mem};

/// Why bytes were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendRefused {
    /// More than `Config::out_bytes_max` would wait. Nothing was queued.
    Full,
    /// The connection is gone, not yet connected, or its sending side is shut.
    Closed,
}

/// Calls on one connection. A handle whose connection is gone is ignored everywhere.
impl<M: Send> Core<M> {
    /// Queues bytes. Everything queued in a turn leaves in one SEND, one at a time.
    ///
    /// # Errors
    /// [`SendRefused`].
    pub fn send(&mut self, conn: Conn, bytes: &[u8]) -> Result<(), SendRefused> {
        self.out(conn, bytes.len())?.extend_from_slice(bytes);
        Ok(())
    }

    /// Lets `fill` write up to `length` bytes straight into the output buffer; it returns how
    /// many it wrote.
    ///
    /// # Errors
    /// [`SendRefused`], without calling `fill`.
    pub fn send_with(
        &mut self,
        conn: Conn,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> Result<(), SendRefused> {
        let out = self.out(conn, length)?;
        let start = out.len();
        out.resize(start + length, 0);
        let written = fill(&mut out[start..]).min(length);
        out.truncate(start + written);
        Ok(())
    }

    /// Bytes given to `send` that the kernel has not taken yet.
    #[must_use]
    pub fn queued(&self, conn: Conn) -> usize {
        self.links.get(conn.key()).map_or(0, Link::queued)
    }

    /// Asks for one `Event::Drained` as soon as nothing is queued.
    pub fn want_drained(&mut self, conn: Conn) {
        let Some(link) = self.links.get_mut(conn.key()).filter(|link| link.speaks()) else {
            return;
        };
        if link.queued() == 0 {
            self.deferred.push_back(Deferred::Drained(conn));
        } else {
            link.want_drained = true;
        }
    }

    /// Stops telling received bytes. What the kernel hands over before it learns of this is held
    /// and told after `resume`; nothing is lost.
    pub fn pause(&mut self, conn: Conn) {
        if let Some(link) = self.links.get_mut(conn.key()) {
            link.paused = true;
        }
    }

    /// Pauses, and gives back the unused end of the bytes being told: they come again after
    /// `resume`, before all later ones.
    pub fn pause_with(&mut self, conn: Conn, rest: &[u8]) {
        let Some(link) = self.links.get_mut(conn.key()).filter(|link| link.speaks()) else {
            return;
        };
        link.paused = true;
        link.held.splice(0..0, rest.iter().copied());
        self.held_bytes += rest.len();
    }

    /// Tells received bytes again: first those held, from this turn on.
    pub fn resume(&mut self, conn: Conn) {
        let Some(link) = self.links.get_mut(conn.key()) else { return };
        if mem::take(&mut link.paused) {
            if link.holds() {
                self.deferred.push_back(Deferred::Resumed(conn));
            } else {
                self.mark(conn);
            }
        }
    }

    /// True between `pause` and `resume`.
    #[must_use]
    pub fn is_paused(&self, conn: Conn) -> bool {
        self.links.get(conn.key()).is_some_and(|link| link.paused)
    }

    /// Sends a FIN after what is queued; receiving goes on.
    pub fn shutdown_write(&mut self, conn: Conn) {
        if let Some(link) = self.links.get_mut(conn.key()).filter(|link| link.speaks()) {
            link.shutdown_wanted = true;
            self.mark(conn);
        }
    }

    /// Sends what is queued, then a FIN, then waits for the peer's FIN (forgetting what it still
    /// sends) and closes. After `Config::linger_us` in all the connection is cut.
    pub fn close(&mut self, conn: Conn) {
        let deadline_us = self.now_us.saturating_add(self.config.linger_us);
        let Some(link) = self.links.get_mut(conn.key()) else { return };
        if link.ending || link.closing {
            return;
        }
        if link.stage != Stage::Open {
            return self.abort(conn);
        }
        link.closing = true;
        self.forget_held(conn);
        self.set_deadline(conn, deadline_us);
        self.mark(conn);
    }

    /// Sends what is queued, then closes without waiting for the peer. For a dialogue that ended
    /// in order (QUIT and its reply): should the peer send more all the same, the kernel resets
    /// the connection and the peer may lose our last bytes; where that is possible, use `close`.
    /// Cheaper: `close` needs a SHUTDOWN, which the kernel gives to a worker thread (about 6 us).
    pub fn finish(&mut self, conn: Conn) {
        self.close(conn);
        if let Some(link) = self.links.get_mut(conn.key()) {
            link.finishing = true;
        }
    }

    /// Gives up the connection at once: what is queued is lost.
    pub fn abort(&mut self, conn: Conn) {
        let again_us = self.now_us.saturating_add(CANCEL_AGAIN_US);
        let Some(link) = self.links.get_mut(conn.key()) else { return };
        if mem::replace(&mut link.ending, true) || link.stage == Stage::Closing {
            return;
        }
        self.forget_held(conn);
        self.set_deadline(conn, again_us);
        self.mark(conn);
    }

    /// Opens a connection from a slot for outgoing ones. `Event::Connected` follows, at the
    /// latest when `deadline_us` has passed.
    ///
    /// # Errors
    /// `ENOBUFS` when all slots for outgoing connections are in use; `EAFNOSUPPORT` when `bind`
    /// is of the other family.
    pub fn connect(
        &mut self,
        peer: SocketAddr,
        bind: Option<IpAddr>,
        deadline_us: u64,
    ) -> io::Result<Conn> {
        if bind.is_some_and(|bind| bind.is_ipv4() != peer.is_ipv4()) {
            return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
        }
        if self.outgoing >= self.config.outgoing_max {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        let (address, length) = RawAddress::new(peer);
        let mut link = Link::new(-1, Origin::Outgoing, Stage::Socket, peer);
        let bind = bind.map(|bind| SocketAddr::new(bind, 0));
        link.dial = Some(Box::new(Dial { address, length, bind }));
        let key =
            self.links.insert(link).map_err(|_| io::Error::from_raw_os_error(libc::ENOBUFS))?;
        self.outgoing += 1;
        let conn = Conn::new(key);
        let family = if peer.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let entry = opcode::Socket::new(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)
            .build()
            .user_data(Word::pack(Op::Socket, key));
        // SAFETY: names no memory and no descriptor.
        unsafe { self.ring.push(entry) };
        self.set_deadline(conn, deadline_us);
        Ok(conn)
    }

    /// The other end's address.
    #[must_use]
    pub fn peer(&self, conn: Conn) -> Option<SocketAddr> {
        self.links.get(conn.key()).map(|link| link.peer)
    }

    /// This end's address: one `getsockname` a call.
    #[must_use]
    pub fn local(&self, conn: Conn) -> Option<SocketAddr> {
        let link = self.links.get(conn.key()).filter(|link| link.stage == Stage::Open)?;
        socket::local(&link.fd).ok()
    }

    /// Sets or moves the connection's one timer: `Event::ConnTimer` comes at or after
    /// `deadline_us`.
    pub fn set_conn_timer(&mut self, conn: Conn, deadline_us: u64) {
        let Some(link) = self.links.get_mut(conn.key()).filter(|link| !link.ending) else {
            return;
        };
        if link.timer.is_none_or(|timer| !self.wheel.move_to(timer, deadline_us)) {
            link.timer = self.wheel.set(deadline_us, Due::Conn(conn));
        }
    }

    /// Clears the connection's timer.
    pub fn clear_conn_timer(&mut self, conn: Conn) {
        if let Some(link) = self.links.get_mut(conn.key())
            && let Some(timer) = link.timer.take()
        {
            self.wheel.cancel(timer);
        }
    }

    /// Slots in use and not yet free again: accepted, outgoing.
    #[must_use]
    pub const fn connections(&self) -> (u32, u32) {
        (self.accepted, self.outgoing)
    }
}
