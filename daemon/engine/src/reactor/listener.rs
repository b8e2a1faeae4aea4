//! Listening sockets: multishot accept, rest when descriptors run out, overflow.

use super::{Core, Deferred, Due, Handler};
use crate::event::Event;
use crate::handle::{Conn, Listener, Op, Word};
use crate::limits::ACCEPT_BACKOFF_US;
use crate::link::{Link, Origin, Stage};
use crate::ring::{Completion, ignored};
use crate::socket;
use io_uring::squeue::Flags;
use io_uring::{cqueue, opcode, types};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

/// One listening socket.
#[derive(Debug)]
pub(super) struct Listening {
    fd: OwnedFd,
    tag: u32,
    address: SocketAddr,
    armed: bool,
    /// Accepting rests until the timer fires or a descriptor comes back.
    resting: bool,
    paused: bool,
    closing: bool,
    error: Option<io::Error>,
}

impl<M: Send> Core<M> {
    /// Listens on an address; other cores listen on the same one (`SO_REUSEPORT`). IPv6 sockets
    /// take no IPv4. `tag` comes back with every connection.
    ///
    /// # Errors
    /// What `socket`, `bind` or `listen` says; `ENOBUFS` beyond the bound on listeners.
    pub fn listen(&mut self, address: SocketAddr, tag: u32) -> io::Result<Listener> {
        let backlog = i32::try_from(self.config.backlog).expect("checked at start");
        let fd = socket::listen(address, backlog)?;
        self.adopt_listener(fd, tag)
    }

    /// Accepts on a socket that listens already (inherited).
    ///
    /// # Errors
    /// `EINVAL` if it does not listen; what `getsockname` or `fcntl` says.
    pub fn adopt_listener(&mut self, fd: OwnedFd, tag: u32) -> io::Result<Listener> {
        if socket::get(&fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? != 1 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        socket::make_blocking(&fd)?;
        socket::set(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        let address = socket::local(&fd)?;
        let listening = Listening {
            fd,
            tag,
            address,
            armed: false,
            resting: false,
            paused: false,
            closing: false,
            error: None,
        };
        let key = self
            .listeners
            .insert(listening)
            .map_err(|_| io::Error::from_raw_os_error(libc::ENOBUFS))?;
        self.drive_listener(key);
        Ok(Listener::new(key))
    }

    /// The address a listener is bound to, with the port the kernel chose.
    #[must_use]
    pub fn listener_address(&self, listener: Listener) -> Option<SocketAddr> {
        self.listeners.get(listener.key()).map(|listening| listening.address)
    }

    /// Stops accepting; the socket stays open (a successor may hold it too) and the kernel goes
    /// on queueing.
    pub fn pause_listener(&mut self, listener: Listener) {
        self.with_listener(listener, |listening| listening.paused = true);
    }

    /// Accepts again.
    pub fn resume_listener(&mut self, listener: Listener) {
        self.with_listener(listener, |listening| listening.paused = false);
    }

    /// Closes a listener; `Event::ListenerClosed` follows. What waits in its queue moves to
    /// another listener on the same port if `net.ipv4.tcp_migrate_req` is set, else it is reset.
    pub fn close_listener(&mut self, listener: Listener) {
        self.with_listener(listener, |listening| listening.closing = true);
    }

    fn with_listener(&mut self, listener: Listener, change: impl FnOnce(&mut Listening)) {
        if let Some(listening) = self.listeners.get_mut(listener.key()) {
            change(listening);
            self.drive_listener(listener.key());
        }
    }

    /// Takes a connected socket from elsewhere; `Event::Accepted` with this tag follows.
    ///
    /// # Errors
    /// Gives the descriptor back when no slot is free, or when it is no connected socket.
    pub fn adopt(&mut self, fd: OwnedFd, tag: u32) -> Result<Conn, OwnedFd> {
        if socket::make_blocking(&fd).is_err() {
            return Err(fd);
        }
        let Ok(peer) = socket::peer(&fd) else { return Err(fd) };
        let conn = self.occupy(fd, peer)?;
        self.deferred.push_back(Deferred::Accepted(conn, tag));
        Ok(conn)
    }

    /// Turns a connection away without a slot: sends these bytes as far as they fit into the
    /// socket at once, and closes.
    pub fn refuse(&mut self, fd: OwnedFd, reply: &'static [u8]) {
        let fd = types::Fd(fd.into_raw_fd());
        let length = u32::try_from(reply.len()).expect("a reply is short");
        let send = opcode::Send::new(fd, reply.as_ptr(), length)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
            .build();
        let send = ignored(send).flags(Flags::SKIP_SUCCESS | Flags::IO_HARDLINK);
        // SAFETY: the bytes are static; the descriptor belongs to these two requests alone, and
        // the hard link runs the second after the first whatever became of it.
        unsafe {
            self.ring.push(send);
            self.ring.push(ignored(opcode::Close::new(fd).build()));
        }
    }

    /// Puts a connected socket into a slot for accepted connections.
    pub(super) fn occupy(&mut self, fd: OwnedFd, peer: SocketAddr) -> Result<Conn, OwnedFd> {
        if self.accepted >= self.config.connections_max {
            return Err(fd);
        }
        let link = Link::new(fd.as_raw_fd(), Origin::Accepted, Stage::Open, peer);
        let Ok(key) = self.links.insert(link) else { return Err(fd) };
        // From here on the slot owns the descriptor; its CLOSE request closes it.
        let _ = fd.into_raw_fd();
        self.accepted += 1;
        self.stats.accepted += 1;
        let conn = Conn::new(key);
        self.mark(conn);
        Ok(conn)
    }

    /// Queues what the listener needs next.
    pub(super) fn drive_listener(&mut self, key: (u32, u32)) {
        let Some(listening) = self.listeners.get_mut(key) else { return };
        let fd = types::Fd(listening.fd.as_raw_fd());
        let word = Word::pack(Op::Accept, key);
        let wanted = !listening.closing && !listening.paused;
        if wanted && !listening.armed && !listening.resting {
            listening.armed = true;
            let entry =
                opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build().user_data(word);
            // SAFETY: names no memory; the slot keeps the descriptor open until its CLOSE, which
            // is queued only when no accept is armed.
            unsafe { self.ring.push(entry) };
        } else if !wanted && listening.armed {
            self.ring.cancel(word);
        } else if listening.closing && !listening.armed {
            self.finish_listener(key);
        }
    }

    fn finish_listener(&mut self, key: (u32, u32)) {
        let Some(listening) = self.listeners.remove(key) else { return };
        let fd = types::Fd(listening.fd.into_raw_fd());
        // SAFETY: names no memory; the descriptor belongs to this request alone.
        unsafe { self.ring.push(ignored(opcode::Close::new(fd).build())) };
        self.deferred.push_back(Deferred::ListenerClosed(listening.tag, listening.error));
    }

    pub(super) fn on_accept(&mut self, done: Completion, handler: &mut impl Handler<M>) {
        let Some(key) = self.listeners.resolve(done.word) else {
            self.stats.stale += 1;
            return;
        };
        let Some(listening) = self.listeners.get_mut(key) else { return };
        listening.armed &= cqueue::more(done.flags);
        if done.result >= 0 {
            // SAFETY: the kernel made this descriptor for us just now.
            let fd = unsafe { OwnedFd::from_raw_fd(done.result) };
            let (tag, bound) = (listening.tag, listening.address);
            self.welcome(fd, tag, bound, handler);
        } else {
            self.accept_failed(key, -done.result);
        }
        self.drive_listener(key);
    }

    fn welcome(
        &mut self,
        fd: OwnedFd,
        listener: u32,
        bound: SocketAddr,
        handler: &mut impl Handler<M>,
    ) {
        // A peer that reset at once has no name any more.
        let Ok(peer) = socket::peer(&fd) else { return self.discard(fd) };
        let local = if bound.ip().is_unspecified() {
            let Ok(local) = socket::local(&fd) else { return self.discard(fd) };
            local
        } else {
            bound
        };
        match self.occupy(fd, peer) {
            Ok(conn) => {
                handler.event(self, Event::Accepted { conn, listener, peer, local });
            }
            Err(fd) => {
                self.stats.overflowed += 1;
                handler.event(self, Event::Overflow { fd, listener, peer });
            }
        }
    }

    /// Closes a descriptor through the ring.
    fn discard(&mut self, fd: OwnedFd) {
        let fd = types::Fd(fd.into_raw_fd());
        // SAFETY: names no memory; the descriptor belongs to this request alone.
        unsafe { self.ring.push(ignored(opcode::Close::new(fd).build())) };
    }

    fn accept_failed(&mut self, key: (u32, u32), error: i32) {
        let deadline_us = self.now_us + ACCEPT_BACKOFF_US;
        let Some(listening) = self.listeners.get_mut(key) else { return };
        match error {
            libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS => {
                if !listening.resting && self.wheel.set(deadline_us, Due::Accept(key)).is_some() {
                    listening.resting = true;
                    self.stats.accept_rests += 1;
                }
            }
            // Cancelled; a connection that died in the queue; and what accept(2) says to treat
            // like that.
            libc::ECANCELED
            | libc::EINTR
            | libc::EAGAIN
            | libc::ECONNABORTED
            | libc::EPERM
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH => {}
            _ => {
                listening.closing = true;
                listening.error = Some(io::Error::from_raw_os_error(error));
            }
        }
    }

    /// The rest is over.
    pub(super) fn on_accept_timer(&mut self, key: (u32, u32)) {
        if let Some(listening) = self.listeners.get_mut(key) {
            listening.resting = false;
            self.drive_listener(key);
        }
    }
}
