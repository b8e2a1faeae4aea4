//! Signals as values: blocked in all threads, read from a descriptor.
//!
//! *Guarantees*: no handler runs, so nothing runs between two instructions of a core.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// SIGTERM, SIGINT.
    Drain,
    /// SIGHUP.
    Reload,
}

fn wanted() -> SigSet {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set
}

/// Blocks them for this thread and those it will start; to be called before the first of those.
///
/// # Errors
/// What `pthread_sigmask` says.
pub fn block() -> io::Result<()> {
    // A peer that closes is an error of a write, not the end of the process: Rust has SIGPIPE
    // ignored from the start.
    Ok(wanted().thread_block()?)
}

/// Where they are read.
#[derive(Debug)]
pub(super) struct Signals(AsyncFd<SignalFd>);

impl Signals {
    /// Within the runtime.
    ///
    /// # Errors
    /// What `signalfd` says.
    pub(super) fn new() -> io::Result<Self> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let fd = SignalFd::with_flags(&wanted(), flags)?;
        #[expect(deprecated, reason = "what replaces it is unsafe; the value owns its descriptor")]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Self(fd))
    }

    /// The next wish.
    ///
    /// # Errors
    /// What reading the descriptor says.
    pub(super) async fn next(&self) -> io::Result<Wish> {
        loop {
            let mut ready = self.0.readable().await?;
            match self.0.get_ref().read_signal()? {
                Some(info) if info.ssi_signo == Signal::SIGHUP as u32 => return Ok(Wish::Reload),
                Some(_) => return Ok(Wish::Drain),
                None => ready.clear_ready(),
            }
        }
    }
}
