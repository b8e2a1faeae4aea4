//! Where the daemon says that it is ready (`sd_notify(3)`), and asks for another version when its
//! admin socket was asked for one.
//!
//! A question is `X_RINGPOST_UPGRADE=MANIFEST` with `X_RINGPOST_OPTION=--FLAG` lines. It is
//! answered by datagrams to the sender: `taken` at once, then `done TEXT` or `refused TEXT` from
//! the process that does it (`commands`).
//!
//! *Guarantees*: the socket is the daemon's user's alone; what is asked there is checked as if it
//! came from the console.
//! *Failure*: a message that is none is dropped; so is a question that names nobody to answer.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::limits::{ASKER_MAX, DAEMON_ID, NOTIFY_MAX};
use crate::say::warn;

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

    /// All that came since.
    pub(crate) fn heard(&self) -> Heard {
        let mut buffer = [0; NOTIFY_MAX];
        let mut heard = Heard::default();
        while let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
            let message = buffer.get(..length).unwrap_or_default();
            heard.is_ready |= says_ready(message);
            // One at a time: who asks beside it hears nothing, and asks again.
            if heard.question.is_none()
                && let Some(question) = question(message, &from)
                && self.socket.send_to_addr(b"taken", &from).is_ok()
            {
                heard.question = Some(question);
            }
        }
        heard
    }
}

/// What the daemon said.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// It takes mail.
    pub(crate) is_ready: bool,
    /// Words for `commands`, the first one being who is answered.
    pub(crate) question: Option<Vec<String>>,
}

/// Sends the last answer to a question. An asker that has gone is not told.
pub(crate) fn answer(asker: &str, outcome: &Result<String, String>) {
    let text = match outcome {
        Ok(said) => format!("done {said}"),
        Err(why) => format!("refused {why}"),
    };
    let told = SocketAddr::from_abstract_name(asker)
        .and_then(|to| UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &to));
    if let Err(error) = told {
        warn(&format_args!("the daemon that asked for an upgrade does not listen: {error}"));
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

fn question(message: &[u8], from: &SocketAddr) -> Option<Vec<String>> {
    let asker = std::str::from_utf8(from.as_abstract_name()?).ok()?;
    let sane = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if asker.len() > ASKER_MAX || !asker.chars().all(sane) {
        return None;
    }
    let text = std::str::from_utf8(message).ok()?;
    let of = |key: &'static str| text.lines().filter_map(move |line| line.strip_prefix(key));
    let manifest = of("X_RINGPOST_UPGRADE=").next()?;
    let mut words = vec![asker.to_owned(), "upgrade".to_owned(), manifest.to_owned()];
    words.extend(of("X_RINGPOST_OPTION=").map(str::to_owned));
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_somebody_to_answer() {
        let text = b"X_RINGPOST_UPGRADE=http://192.0.2.1/a b\nX_RINGPOST_OPTION=--later\n";
        let asker = SocketAddr::from_abstract_name("ringpost-ask-1").unwrap();
        let words = question(text, &asker).unwrap();
        assert_eq!(words, ["ringpost-ask-1", "upgrade", "http://192.0.2.1/a b", "--later"]);
        assert_eq!(question(b"READY=1\n", &asker), None);
        assert_eq!(question(b"\xff", &asker), None);
        for name in ["a\nb", "a b", &"x".repeat(ASKER_MAX + 1)] {
            let asker = SocketAddr::from_abstract_name(name).unwrap();
            assert_eq!(question(text, &asker), None, "{name:?}");
        }
        assert_eq!(question(text, &SocketAddr::from_pathname("/x").unwrap()), None);
    }

    #[test]
    fn readiness_is_a_line_of_its_own() {
        assert!(says_ready(b"READY=1\nSTATUS=taking mail\n"));
        assert!(says_ready(b"STATUS=x\nREADY=1"));
        assert!(!says_ready(b"STATUS=READY=1"));
        assert!(!says_ready(b""));
    }
}
