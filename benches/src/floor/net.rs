//! The connections of a ring, as those who use it see them.
//!
//! Nothing here talks to the kernel: calls change slots and mark them, and the ring turns marked
//! slots into requests once per turn.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::sys::socket::SockaddrStorage;

use crate::limits::COMMIT_BLOCK_OCTETS;

/// Bits of a generation: with the operation and the index they fill a request's 64 bits.
pub(super) const GENERATION_MASK: u32 = 0xff_ffff;

/// A connection: its slot and the generation of that slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conn {
    /// Dense: a handler can keep a `Vec` beside it.
    pub index: u32,
    pub(super) generation: u32,
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) fd: RawFd,
    pub(super) generation: u32,
    /// The slot stands for a connection.
    pub(super) open: bool,
    /// The slot is in `Net::dirty`.
    pub(super) dirty: bool,
    pub(super) connecting: bool,
    /// The connect request is with the kernel.
    pub(super) connect_armed: bool,
    /// A multishot receive is armed.
    pub(super) receiving: bool,
    /// What the kernel reads; not touched while `in_flight`.
    pub(super) sending: Vec<u8>,
    pub(super) in_flight: bool,
    pub(super) queued: Vec<u8>,
    pub(super) want_drained: bool,
    /// Shut down the sending side once everything has left.
    pub(super) half_close: bool,
    pub(super) half_closed: bool,
    /// Close once everything has been handed to the kernel.
    pub(super) finish: bool,
    /// The descriptor is closed already; the slot waits for its last completions.
    pub(super) gone: bool,
    /// Peer's end has been seen, or the connection is to be dropped.
    pub(super) ended: bool,
    /// Receiving is paused: the multishot receive is cancelled and not re-armed.
    pub(super) paused: bool,
    /// The address the kernel reads while connecting.
    pub(super) address: Option<Box<SockaddrStorage>>,
}

/// Octets for a durable write, aligned as `O_DIRECT` wants them.
#[derive(Debug)]
pub struct Block {
    memory: Vec<u8>,
    start: usize,
    filled: usize,
}

impl Block {
    /// Room for so many octets, a multiple of 4 KiB; takes memory as it is filled.
    pub fn new(octets: usize) -> Self {
        let memory = vec![0; octets + COMMIT_BLOCK_OCTETS];
        let start = memory.as_ptr().align_offset(COMMIT_BLOCK_OCTETS);
        Self { memory, start, filled: 0 }
    }

    /// Octets that still fit.
    pub fn room(&self) -> usize {
        self.memory.len() - COMMIT_BLOCK_OCTETS - self.filled
    }

    /// Appends what fits, as `room` says.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        let at = self.start + self.filled;
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    /// Octets of the write: whole blocks, the last one filled up with zeros.
    pub fn pad(&mut self) -> usize {
        let octets = self.filled.next_multiple_of(COMMIT_BLOCK_OCTETS);
        self.memory[self.start + self.filled..self.start + octets].fill(0);
        octets
    }

    /// Empty again.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    pub(super) fn as_ptr(&self) -> *const u8 {
        self.memory[self.start..].as_ptr()
    }
}

/// A durable write that is asked for or under way.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) block: Block,
    pub(super) octets: u32,
    pub(super) offset: u64,
    pub(super) armed: bool,
}

/// The connections of a ring, as a handler sees them.
#[derive(Debug)]
pub struct Net {
    pub(super) slots: Vec<Slot>,
    pub(super) free: Vec<u32>,
    pub(super) dirty: Vec<u32>,
    pub(super) close_later: Vec<RawFd>,
    pub(super) connections_max: u32,
    pub(super) open: u32,
    pub(super) listeners: Vec<TcpListener>,
    pub(super) arm_accept: Vec<usize>,
    pub(super) accept_stalled: Vec<usize>,
    pub(super) watch: Option<OwnedFd>,
    pub(super) arm_watch: bool,
    pub(super) refused: u64,
    pub(super) file: Option<File>,
    pub(super) commit: Option<Commit>,
}

impl Net {
    pub(super) fn new(connections_max: u32) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            close_later: Vec::new(),
            connections_max,
            open: 0,
            listeners: Vec::new(),
            arm_accept: Vec::new(),
            accept_stalled: Vec::new(),
            watch: None,
            arm_watch: false,
            refused: 0,
            file: None,
            commit: None,
        }
    }

    /// The file that `commit` writes to, opened with `O_DIRECT`.
    pub fn commit_to(&mut self, file: File) {
        self.file = Some(file);
    }

    /// Writes a block durably, before anything is sent in this turn; `Handler::committed` follows.
    /// Returns the octets the write takes in the file.
    ///
    /// # Panics
    /// One is under way, or there is no file.
    pub fn commit(&mut self, mut block: Block, offset: u64) -> u64 {
        assert!(self.commit.is_none() && self.file.is_some(), "one commit at a time, to a file");
        let octets = u32::try_from(block.pad()).expect("blocks are below 4 GiB");
        self.commit = Some(Commit { block, octets, offset, armed: false });
        u64::from(octets)
    }

    /// Takes connections from a listener from the next turn on.
    pub fn listen(&mut self, listener: TcpListener) {
        self.arm_accept.push(self.listeners.len());
        self.listeners.push(listener);
    }

    /// Watches one descriptor (a signalfd, say) for being readable.
    pub fn watch(&mut self, fd: OwnedFd) {
        self.watch = Some(fd);
        self.arm_watch = true;
    }

    /// Starts connecting a non-blocking socket. `None` when every slot is taken.
    pub fn connect(&mut self, socket: OwnedFd, peer: SocketAddr) -> Option<Conn> {
        let conn = self.take(socket.as_raw_fd())?;
        let _ = socket.into_raw_fd();
        let slot = &mut self.slots[conn.index as usize];
        slot.connecting = true;
        slot.address = Some(Box::new(SockaddrStorage::from(peer)));
        Some(conn)
    }

    /// The output of a connection, to be appended to; it leaves at the end of the turn.
    pub fn out(&mut self, conn: Conn) -> &mut Vec<u8> {
        self.mark(conn.index);
        &mut self.slots[conn.index as usize].queued
    }

    /// Octets appended and not yet taken by the kernel.
    pub fn pending(&self, conn: Conn) -> usize {
        let slot = &self.slots[conn.index as usize];
        slot.queued.len() + if slot.in_flight { slot.sending.len() } else { 0 }
    }

    /// Asks for one `drained` call when everything appended so far has left.
    pub fn want_drained(&mut self, conn: Conn) {
        self.mark(conn.index);
        self.slots[conn.index as usize].want_drained = true;
    }

    /// Shuts down the sending side once everything appended has left; receiving goes on.
    pub fn shutdown_write(&mut self, conn: Conn) {
        self.mark(conn.index);
        self.slots[conn.index as usize].half_close = true;
    }

    /// Sends what is appended and closes. No further call is made for the handle; what the peer
    /// says from now on is lost.
    pub fn finish(&mut self, conn: Conn) {
        self.mark(conn.index);
        self.slots[conn.index as usize].finish = true;
    }

    /// Drops a connection: what is queued is forgotten, no further call is made for it.
    pub fn abort(&mut self, conn: Conn) {
        if !self.is_open(conn) {
            return;
        }
        let slot = &mut self.slots[conn.index as usize];
        slot.ended = true;
        slot.queued.clear();
        self.mark(conn.index);
    }

    /// Whether the handle still names a living connection.
    pub fn is_open(&self, conn: Conn) -> bool {
        self.slots
            .get(conn.index as usize)
            .is_some_and(|slot| slot.open && !slot.ended && slot.generation == conn.generation)
    }

    /// Stops receiving; what the peer sends meanwhile fills its window.
    pub fn pause(&mut self, conn: Conn) {
        self.slots[conn.index as usize].paused = true;
        self.mark(conn.index);
    }

    /// Receives again.
    pub fn resume(&mut self, conn: Conn) {
        self.slots[conn.index as usize].paused = false;
        self.mark(conn.index);
    }

    /// The living connection in a slot.
    pub fn conn(&self, index: usize) -> Option<Conn> {
        let slot = self.slots.get(index)?;
        let index = u32::try_from(index).ok()?;
        (slot.open && !slot.ended).then_some(Conn { index, generation: slot.generation })
    }

    /// Connections that stand.
    pub fn open(&self) -> u32 {
        self.open
    }

    /// Connections closed at once because every slot was taken.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn take(&mut self, fd: RawFd) -> Option<Conn> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < self.connections_max as usize => {
                self.slots.push(Slot::default());
                u32::try_from(self.slots.len() - 1).expect("bounded by connections_max")
            }
            None => return None,
        };
        let slot = &mut self.slots[index as usize];
        slot.fd = fd;
        slot.open = true;
        let generation = slot.generation;
        self.open += 1;
        self.mark(index);
        Some(Conn { index, generation })
    }

    #[inline]
    pub(super) fn mark(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(index);
        }
    }

    /// Frees a slot whose requests are all over; the descriptor is closed with the next batch.
    pub(super) fn release(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if !slot.gone {
            self.close_later.push(slot.fd);
        }
        slot.gone = false;
        slot.half_close = false;
        slot.half_closed = false;
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        slot.open = false;
        slot.finish = false;
        slot.ended = false;
        slot.paused = false;
        slot.want_drained = false;
        slot.queued.clear();
        slot.sending.clear();
        slot.address = None;
        self.free.push(index);
        self.open -= 1;
        self.arm_accept.append(&mut self.accept_stalled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_padded_with_zeros_to_whole_blocks() {
        let mut block = Block::new(2 * COMMIT_BLOCK_OCTETS);
        assert_eq!(block.pad(), 0);
        block.put(&vec![7; 2 * COMMIT_BLOCK_OCTETS]);
        assert_eq!((block.room(), block.pad()), (0, 2 * COMMIT_BLOCK_OCTETS));
        block.clear();
        block.put(b"x");
        assert_eq!(block.pad(), COMMIT_BLOCK_OCTETS);
        let start = block.start;
        assert!(start.wrapping_add(block.memory.as_ptr() as usize).is_multiple_of(4096));
        assert!(block.memory[start + 1..start + COMMIT_BLOCK_OCTETS].iter().all(|&o| o == 0));
    }
}
