//! Messages between threads: a bounded queue and a wake-up through an eventfd.
//!
//! A core wakes another thread with a request in its own ring, so posting costs it no system
//! call; any other thread writes the eventfd. A receiver that is awake is not woken again.
//!
//! *Guarantees*: a message that was taken is seen after at most one wake-up; order holds per
//! sender. *Limits*: the capacity; a full mailbox gives the message back.

use crate::socket::check;
use crossbeam_queue::ArrayQueue;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fmt, io};

/// What an eventfd is told: one more.
pub(crate) static ONE: u64 = 1;

/// The receiver's bell.
#[derive(Debug)]
pub(crate) struct Bell {
    eventfd: OwnedFd,
    /// Rung, and the receiver has not looked yet.
    rung: AtomicBool,
}

impl Bell {
    /// True if the caller has to write the eventfd.
    pub(crate) fn must_ring(&self) -> bool {
        !self.rung.swap(true, Ordering::SeqCst)
    }

    /// The receiver is about to look: whoever posts from now on rings again.
    pub(crate) fn answer(&self) {
        // A swap, not a store: it reads what `must_ring` wrote, so that the message put in before
        // is seen by the look that follows.
        self.rung.swap(false, Ordering::SeqCst);
    }

    pub(crate) fn fd(&self) -> i32 {
        self.eventfd.as_raw_fd()
    }

    fn ring(&self) {
        // SAFETY: the kernel reads 8 bytes of a static.
        let _ = unsafe { libc::write(self.fd(), (&raw const ONE).cast(), 8) };
        // It can only fail when the counter is at its end, and then the receiver is awake.
    }
}

struct Shared<M> {
    queue: ArrayQueue<M>,
    bell: Arc<Bell>,
}

/// Makes a mailbox of a fixed capacity (at least 1).
///
/// # Errors
/// What `eventfd` says: no descriptor or memory left.
pub fn mailbox<M: Send>(capacity: usize) -> io::Result<(MailboxSender<M>, MailboxReceiver<M>)> {
    // SAFETY: no memory is passed.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the descriptor was made just now and belongs to nobody else.
    let eventfd = unsafe { OwnedFd::from_raw_fd(fd) };
    let bell = Arc::new(Bell { eventfd, rung: AtomicBool::new(false) });
    let shared = Arc::new(Shared { queue: ArrayQueue::new(capacity.max(1)), bell });
    Ok((MailboxSender { shared: Arc::clone(&shared) }, MailboxReceiver { shared }))
}

/// Puts messages in; any number of clones on any threads.
pub struct MailboxSender<M> {
    shared: Arc<Shared<M>>,
}

impl<M: Send> MailboxSender<M> {
    /// Posts from a thread that is no core (a core uses [`crate::Core::post`]).
    ///
    /// # Errors
    /// Gives the message back when the mailbox is full.
    pub fn post(&self, message: M) -> Result<(), M> {
        if let Some(bell) = self.put(message)? {
            bell.ring();
        }
        Ok(())
    }

    /// Puts the message in; the bell if it must be rung.
    pub(crate) fn put(&self, message: M) -> Result<Option<&Arc<Bell>>, M> {
        self.shared.queue.push(message)?;
        Ok(self.shared.bell.must_ring().then_some(&self.shared.bell))
    }
}

impl<M> Clone for MailboxSender<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<M> fmt::Debug for MailboxSender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MailboxSender({}/{})", self.shared.queue.len(), self.shared.queue.capacity())
    }
}

/// Takes messages out: given to a core, or used by a thread of another kind, which waits until
/// its descriptor is readable, calls [`MailboxReceiver::clear_wake`], then takes until empty.
pub struct MailboxReceiver<M> {
    shared: Arc<Shared<M>>,
}

impl<M: Send> MailboxReceiver<M> {
    /// The next message, if there is one.
    #[must_use]
    pub fn take(&self) -> Option<M> {
        self.shared.queue.pop()
    }

    /// Makes the descriptor unreadable until the next post. Call it before taking, not after.
    pub fn clear_wake(&self) {
        let mut count = 0u64;
        // SAFETY: the kernel writes 8 bytes into a local; the descriptor does not block.
        let _ = unsafe { libc::read(self.shared.bell.fd(), (&raw mut count).cast(), 8) };
        self.shared.bell.answer();
    }

    /// Blocks the calling thread until a message is there or the time is over.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> Option<M> {
        if let Some(message) = self.take() {
            return Some(message);
        }
        self.clear_wake();
        if let Some(message) = self.take() {
            return Some(message);
        }
        let mut poll = libc::pollfd { fd: self.shared.bell.fd(), events: libc::POLLIN, revents: 0 };
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the kernel reads and writes one pollfd in a local.
        let _ = unsafe { libc::poll(&raw mut poll, 1, timeout) };
        self.clear_wake();
        self.take()
    }

    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.shared.bell
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.shared.queue.is_empty()
    }
}

impl<M> AsFd for MailboxReceiver<M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.bell.eventfd.as_fd()
    }
}

impl<M> AsRawFd for MailboxReceiver<M> {
    fn as_raw_fd(&self) -> i32 {
        self.shared.bell.fd()
    }
}

impl<M> fmt::Debug for MailboxReceiver<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MailboxReceiver({}/{})", self.shared.queue.len(), self.shared.queue.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_full_mailbox_gives_the_message_back() {
        let (sender, receiver) = mailbox(2).unwrap();
        sender.post(1).unwrap();
        sender.post(2).unwrap();
        assert_eq!(sender.post(3), Err(3));
        assert_eq!(receiver.take(), Some(1));
        sender.post(3).unwrap();
        assert_eq!([receiver.take(), receiver.take(), receiver.take()], [Some(2), Some(3), None]);
    }

    #[test]
    fn a_waiting_thread_misses_no_message() {
        let (sender, receiver) = mailbox(4).unwrap();
        let posting = thread::spawn(move || {
            for mut number in 0..20_000u32 {
                while let Err(back) = sender.post(number) {
                    number = back;
                    thread::yield_now();
                }
            }
        });
        for expected in 0..20_000 {
            let mut got = None;
            while got.is_none() {
                got = receiver.wait(Duration::from_secs(60));
            }
            assert_eq!(got, Some(expected));
        }
        posting.join().unwrap();
    }
}
