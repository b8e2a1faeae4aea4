//! Where the daemon says that it is ready (`sd_notify(3)`).
//!
//! *Failure*: a message that is none is dropped.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixDatagram;

use crate::limits::{DAEMON_ID, NOTIFY_MAX};

/// Its path.
pub(crate) const PATH: &str = "/run/notify";

/// The socket.
#[derive(Debug)]
pub(crate) struct Notify {
    socket: UnixDatagram,
}

impl Notify {
    /// Opens it for the daemon alone.
    ///
    /// # Errors
    /// No room below /run.
    pub(crate) fn open() -> io::Result<Self> {
        let _ = fs::remove_file(PATH);
        let socket = UnixDatagram::bind(PATH)?;
        socket.set_nonblocking(true)?;
        fs::set_permissions(PATH, fs::Permissions::from_mode(0o600))?;
        chown(PATH, Some(DAEMON_ID), Some(DAEMON_ID))?;
        Ok(Self { socket })
    }

    /// Whether, among all that came since, one message said that it is ready.
    pub(crate) fn said_ready(&self) -> bool {
        let mut buffer = [0; NOTIFY_MAX];
        let mut ready = false;
        while let Ok(length) = self.socket.recv(&mut buffer) {
            ready |= says_ready(buffer.get(..length).unwrap_or_default());
        }
        ready
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn says_ready(message: &[u8]) -> bool {
    message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_a_line_of_its_own() {
        assert!(says_ready(b"READY=1\nSTATUS=taking mail\n"));
        assert!(says_ready(b"STATUS=x\nREADY=1"));
        assert!(!says_ready(b"STATUS=READY=1"));
        assert!(!says_ready(b""));
    }
}
