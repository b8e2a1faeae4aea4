//! The state of one connection: what the kernel holds of it, and what is to happen next.
//!
//! *Guarantees*: [`Link::next`] names one step at a time; the slot is closed only when the kernel
//! holds no request on it, so nothing in it can be written to afterwards.
//! *Not here*: the requests themselves (`reactor`).

use crate::address::RawAddress;
use std::net::SocketAddr;
use std::os::fd::RawFd;

/// Who opened the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Accepted,
    Outgoing,
}

/// How far opening got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The kernel makes the socket; there is no descriptor yet.
    Socket,
    /// The kernel connects.
    Connecting,
    /// Bytes may flow.
    Open,
    /// The kernel closes the descriptor.
    Closing,
}

/// What an outgoing connection needs until it stands.
pub(crate) struct Dial {
    /// Read by the kernel when the request is submitted.
    pub(crate) address: RawAddress,
    pub(crate) length: libc::socklen_t,
    pub(crate) bind: Option<SocketAddr>,
}

/// One step that needs the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send what waits.
    Send,
    /// Tell the peer that no more comes.
    Shutdown,
    /// Arm a receive.
    Receive,
    /// Take back every request.
    Cancel,
    /// Close the descriptor.
    Close,
    /// Only the slot is left: there never was a descriptor.
    Free,
}

/// One connection. Small: an idle one owns no heap memory.
pub(crate) struct Link {
    pub(crate) fd: RawFd,
    pub(crate) origin: Origin,
    pub(crate) stage: Stage,
    pub(crate) peer: SocketAddr,
    pub(crate) dial: Option<Box<Dial>>,

    /// Bytes not yet given to the kernel.
    pub(crate) out: Vec<u8>,
    /// Bytes the kernel reads from: untouched while `send_armed`.
    pub(crate) sending: Vec<u8>,
    /// How many of `sending` have left.
    pub(crate) sent: usize,
    /// Bytes that arrived while the connection was paused.
    pub(crate) held: Vec<u8>,
    /// End of stream or error, to be told after `held`: 0 or the error's number.
    pub(crate) end: Option<i32>,

    pub(crate) timer: Option<(u32, u32)>,
    /// Linger or connect deadline.
    pub(crate) deadline: Option<(u32, u32)>,

    pub(crate) receive_armed: bool,
    pub(crate) receive_cancelled: bool,
    /// Waits for receive buffers.
    pub(crate) starved: bool,
    /// The kernel will give no more bytes.
    pub(crate) received_all: bool,
    pub(crate) paused: bool,
    pub(crate) send_armed: bool,
    pub(crate) shutdown_wanted: bool,
    pub(crate) shutdown_armed: bool,
    pub(crate) shutdown_done: bool,
    pub(crate) want_drained: bool,
    /// `close` was called: flush, shut down, wait for the peer.
    pub(crate) closing: bool,
    /// `finish` was called as well: do not wait for the peer.
    pub(crate) finishing: bool,
    /// Broken or aborted: give back everything at once.
    pub(crate) ending: bool,
    pub(crate) cancelled: bool,
    /// In the list of connections to look at before the next enter.
    pub(crate) dirty: bool,
}

impl Link {
    pub(crate) fn new(fd: RawFd, origin: Origin, stage: Stage, peer: SocketAddr) -> Self {
        Self {
            fd,
            origin,
            stage,
            peer,
            dial: None,
            out: Vec::new(),
            sending: Vec::new(),
            sent: 0,
            held: Vec::new(),
            end: None,
            timer: None,
            deadline: None,
            receive_armed: false,
            receive_cancelled: false,
            starved: false,
            received_all: false,
            paused: false,
            send_armed: false,
            shutdown_wanted: false,
            shutdown_armed: false,
            shutdown_done: false,
            want_drained: false,
            closing: false,
            finishing: false,
            ending: false,
            cancelled: false,
            dirty: false,
        }
    }

    /// Bytes given to `send` that the kernel has not taken.
    pub(crate) fn queued(&self) -> usize {
        self.out.len() + self.sending.len() - self.sent
    }

    /// The handler still hears of this connection.
    pub(crate) fn speaks(&self) -> bool {
        !self.closing && !self.ending && self.stage == Stage::Open
    }

    /// Something is to be told before new bytes may be.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty() || self.end.is_some()
    }

    /// A request on the descriptor is in the kernel's hands.
    fn busy(&self) -> bool {
        self.receive_armed
            || self.send_armed
            || self.shutdown_armed
            || matches!(self.stage, Stage::Socket | Stage::Connecting)
    }

    /// The next step, if there is one; the caller takes it and asks again.
    pub(crate) fn next(&self) -> Option<Step> {
        if self.stage == Stage::Closing {
            return None;
        }
        let flushed = !self.send_armed && self.out.is_empty();
        if self.ending || (self.finishing && flushed) {
            return match (self.busy(), self.fd >= 0) {
                (true, true) => (!self.cancelled).then_some(Step::Cancel),
                (true, false) => None,
                (false, true) => Some(Step::Close),
                (false, false) => Some(Step::Free),
            };
        }
        if self.stage != Stage::Open {
            return None;
        }
        if !self.send_armed && !self.out.is_empty() {
            return Some(Step::Send);
        }
        let shut = self.shutdown_armed || self.shutdown_done;
        if self.closing && flushed && self.received_all && !self.receive_armed {
            // Nobody waits for bytes: closing sends the FIN, if it was not sent before.
            return (!self.shutdown_armed).then_some(Step::Close);
        }
        if (self.closing || self.shutdown_wanted) && flushed && !shut {
            return Some(Step::Shutdown);
        }
        // A closing connection reads on, and forgets what it reads, until the peer ends: closing
        // a socket with unread bytes would reset it, and the peer might lose our last reply.
        let wants = self.closing || (!self.paused && !self.holds());
        let arm = wants && !self.receive_armed && !self.received_all && !self.starved;
        arm.then_some(Step::Receive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Link {
        Link::new(7, Origin::Accepted, Stage::Open, "192.0.2.1:25".parse().unwrap())
    }

    #[test]
    fn an_open_connection_receives_unless_paused() {
        let mut link = open();
        assert_eq!(link.next(), Some(Step::Receive));
        link.receive_armed = true;
        assert_eq!(link.next(), None);
        link.receive_armed = false;
        link.paused = true;
        assert_eq!(link.next(), None);
        link.paused = false;
        link.held.push(1);
        assert_eq!(link.next(), None, "held bytes come first");
    }

    #[test]
    fn closing_flushes_then_shuts_down_then_waits_for_the_peer() {
        let mut link = open();
        link.receive_armed = true;
        link.out.push(1);
        link.closing = true;
        assert_eq!(link.next(), Some(Step::Send));
        link.out.clear();
        link.send_armed = true;
        assert_eq!(link.next(), None);
        link.send_armed = false;
        assert_eq!(link.next(), Some(Step::Shutdown));
        link.shutdown_armed = true;
        assert_eq!(link.next(), None);
        link.shutdown_armed = false;
        link.shutdown_done = true;
        assert_eq!(link.next(), None, "the armed receive still holds the file");
        link.receive_armed = false;
        assert_eq!(link.next(), Some(Step::Receive));
        link.received_all = true;
        assert_eq!(link.next(), Some(Step::Close));
    }

    #[test]
    fn a_paused_connection_that_closes_reads_to_the_end() {
        let mut link = open();
        link.paused = true;
        link.closing = true;
        link.shutdown_done = true;
        assert_eq!(link.next(), Some(Step::Receive));
    }

    #[test]
    fn an_ending_connection_gives_back_everything_before_it_closes() {
        let mut link = open();
        link.receive_armed = true;
        link.send_armed = true;
        link.ending = true;
        assert_eq!(link.next(), Some(Step::Cancel));
        link.cancelled = true;
        assert_eq!(link.next(), None);
        link.receive_armed = false;
        assert_eq!(link.next(), None);
        link.send_armed = false;
        assert_eq!(link.next(), Some(Step::Close));
        link.stage = Stage::Closing;
        assert_eq!(link.next(), None);
    }

    #[test]
    fn finishing_flushes_then_closes_without_the_peer() {
        let mut link = open();
        link.receive_armed = true;
        link.out.push(1);
        link.closing = true;
        link.finishing = true;
        assert_eq!(link.next(), Some(Step::Send));
        link.out.clear();
        link.send_armed = true;
        assert_eq!(link.next(), None);
        link.send_armed = false;
        assert_eq!(link.next(), Some(Step::Cancel));
        link.cancelled = true;
        assert_eq!(link.next(), None);
        link.receive_armed = false;
        assert_eq!(link.next(), Some(Step::Close));
    }

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Link>() <= 256, "{}", size_of::<Link>());
    }
}
