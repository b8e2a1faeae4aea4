//! Connected datagram sockets, for the DNS.

use super::{Core, Handler};
use crate::event::Event;
use crate::handle::{Op, Udp, Word};
use crate::limits::DATAGRAM_BYTES_MAX;
use crate::ring::{Completion, ignored};
use crate::socket;
use io_uring::squeue::Flags;
use io_uring::{cqueue, opcode, types};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::{io, ptr};

/// One socket. Freed when it is closing and the kernel holds no request on it.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    armed: bool,
    closing: bool,
    sends: u32,
}

/// A datagram in the kernel's hands: the bytes stay untouched until the completion.
#[derive(Debug)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    socket: (u32, u32),
}

impl<M: Send> Core<M> {
    /// Opens a socket that talks to one peer only, from `local` if given (port 0: the kernel
    /// chooses at random). Three system calls.
    ///
    /// # Errors
    /// What `socket`, `bind` or `connect` says; `ENOBUFS` beyond the bound on sockets.
    pub fn udp_open(&mut self, peer: SocketAddr, local: Option<SocketAddr>) -> io::Result<Udp> {
        let fd = socket::datagram(peer, local)?;
        let socket = Socket { fd, armed: false, closing: false, sends: 0 };
        let key =
            self.sockets.insert(socket).map_err(|_| io::Error::from_raw_os_error(libc::ENOBUFS))?;
        self.drive_socket(key);
        Ok(Udp::new(key))
    }

    /// Sends one datagram. Losses are counted ([`super::Stats::datagrams_lost`]), as the network's
    /// would not be: ask again after a time-out.
    pub fn udp_send(&mut self, socket: Udp, bytes: &[u8]) {
        let Some(open) = self.sockets.get_mut(socket.key()).filter(|open| !open.closing) else {
            return;
        };
        let Ok(length @ 0..=DATAGRAM_BYTES_MAX) = u32::try_from(bytes.len()) else {
            self.stats.datagrams_lost += 1;
            return;
        };
        let mut copy = self.datagram_pool.pop().unwrap_or_else(|| Vec::with_capacity(512));
        copy.clear();
        copy.extend_from_slice(bytes);
        let start = copy.as_ptr();
        let outgoing = Outgoing { bytes: copy, socket: socket.key() };
        let Ok(key) = self.datagram_sends.insert(outgoing) else {
            self.stats.datagrams_lost += 1;
            return;
        };
        open.sends += 1;
        let entry = opcode::Send::new(types::Fd(open.fd.as_raw_fd()), start, length)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
            .build()
            .user_data(Word::pack(Op::DatagramSend, key));
        // SAFETY: the slot owns the bytes (its heap memory does not move with it) until the
        // completion; the descriptor is closed only when `sends` is 0.
        unsafe { self.ring.push(entry) };
    }

    /// Closes a socket; answers still on their way are lost.
    pub fn udp_close(&mut self, socket: Udp) {
        if let Some(open) = self.sockets.get_mut(socket.key()) {
            open.closing = true;
            self.drive_socket(socket.key());
        }
    }

    /// The local address, with the port the kernel chose: one system call.
    #[must_use]
    pub fn udp_local(&self, socket: Udp) -> Option<SocketAddr> {
        self.sockets.get(socket.key()).and_then(|open| socket::local(&open.fd).ok())
    }

    fn drive_socket(&mut self, key: (u32, u32)) {
        let Some(open) = self.sockets.get_mut(key) else { return };
        let fd = types::Fd(open.fd.as_raw_fd());
        let word = Word::pack(Op::DatagramReceive, key);
        if open.closing {
            if open.armed {
                self.ring.cancel(word);
            } else if open.sends == 0
                && let Some(open) = self.sockets.remove(key)
            {
                let fd = types::Fd(open.fd.into_raw_fd());
                // SAFETY: names no memory; the descriptor belongs to this request alone.
                unsafe { self.ring.push(ignored(opcode::Close::new(fd).build())) };
            }
        } else if !open.armed {
            open.armed = true;
            let group = self.datagram_receive.group();
            let entry = if self.multishot {
                opcode::RecvMulti::new(fd, group).build()
            } else {
                opcode::Recv::new(fd, ptr::null_mut(), DATAGRAM_BYTES_MAX)
                    .buf_group(group)
                    .build()
                    .flags(Flags::BUFFER_SELECT)
            };
            // SAFETY: the kernel writes only into provided buffers, which outlive the ring; the
            // descriptor is closed only when no receive is armed.
            unsafe { self.ring.push(entry.user_data(word)) };
        }
    }

    pub(super) fn on_datagram(&mut self, done: Completion, handler: &mut impl Handler<M>) {
        let buffer = cqueue::buffer_select(done.flags);
        if let Some(key) = self.sockets.resolve(done.word) {
            let more = cqueue::more(done.flags);
            let closing = self.sockets.get_mut(key).is_none_or(|open| {
                open.armed &= more;
                open.closing
            });
            let socket = Udp::new(key);
            match (usize::try_from(done.result), buffer) {
                _ if closing => {}
                (Ok(length), Some(buffer)) => {
                    // SAFETY: the completion just named this buffer; it is recycled below, after
                    // the last use of the slice.
                    let bytes = unsafe { self.datagram_receive.bytes(buffer, length) };
                    handler.event(self, Event::Datagram { socket, bytes });
                }
                // An empty datagram takes no buffer.
                (Ok(_), None) => handler.event(self, Event::Datagram { socket, bytes: &mut [] }),
                (Err(_), _) => match -done.result {
                    libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
                    error => {
                        let error = io::Error::from_raw_os_error(error);
                        handler.event(self, Event::DatagramFailed { socket, error });
                    }
                },
            }
            // Armed again if it ended; submitted after the buffer has gone back.
            self.drive_socket(key);
        } else {
            self.stats.stale += 1;
        }
        if let Some(buffer) = buffer {
            self.datagram_receive.recycle(buffer);
        }
    }

    pub(super) fn on_datagram_sent(&mut self, done: Completion) {
        let Some(key) = self.datagram_sends.resolve(done.word) else {
            return self.stats.stale += 1;
        };
        let Some(outgoing) = self.datagram_sends.remove(key) else { return };
        self.stats.datagrams_lost += u64::from(done.result < 0);
        self.datagram_pool.push(outgoing.bytes);
        if let Some(open) = self.sockets.get_mut(outgoing.socket) {
            open.sends -= 1;
            if open.closing {
                self.drive_socket(outgoing.socket);
            }
        }
    }

    /// Closes every socket.
    pub(super) fn close_sockets(&mut self) {
        for key in self.sockets.keys() {
            self.udp_close(Udp::new(key));
        }
    }
}
