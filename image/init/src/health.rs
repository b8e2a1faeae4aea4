//! Whether this version takes mail and keeps it: asked once, before it is blessed.
//!
//! The daemon has said that it is ready (config in force, spool recovered and writable). A client
//! on the machine itself hands it one message, to a recipient that only init and the daemon know
//! of ([`Door`]); the message is seen in the spool and removed.
//!
//! *Limits*: `HEALTH_STEP` for each step of the dialogue, `ANSWER` for each look.
//! *Failure*: which step, and what was heard. A message that was not removed is thrown away by the
//! daemon's next start.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use crate::helper;
use crate::limits::HEALTH_STEP;
use crate::watchdog::Watchdog;

/// Octets of one line that are read.
const LINE_MAX: u64 = 1024;
/// The variable in which the daemon reads the word.
pub(crate) const VARIABLE: &str = "RINGPOSTD_HEALTH";

/// The recipient's secret: another one for each start of the daemon.
#[derive(Clone, Debug, Default)]
pub(crate) struct Door {
    word: String,
}

impl Door {
    /// A new one; without randomness none, and no message is taken.
    pub(crate) fn new() -> Self {
        let mut octets = [0; 16];
        let mut word = String::new();
        if getrandom::fill(&mut octets).is_ok() {
            for octet in octets {
                let _ = write!(word, "{octet:02x}");
            }
        }
        Self { word }
    }

    /// For the daemon's environment.
    pub(crate) fn word(&self) -> &str {
        &self.word
    }

    fn recipient(&self) -> String {
        format!("test@{}.health.invalid", self.word)
    }
}

/// Hands the daemon a message and asks on its socket for it, if it has one.
///
/// # Errors
/// What went wrong.
pub(crate) fn check(
    address: SocketAddr,
    door: &Door,
    socket: Option<&Path>,
    watchdog: &mut Watchdog,
) -> Result<(), String> {
    let id = hand_over(address, &door.recipient(), watchdog)?;
    let Some(socket) = socket.and_then(Path::to_str) else { return Ok(()) };
    let mut ask = |words: &[&str]| {
        watchdog.feed();
        let words = [&["--socket", socket, "queue"], words].concat();
        match helper::ask("/bin/ringpost", &words)? {
            (0, said) => Ok(said),
            (_, said) => Err(said.trim().to_owned()),
        }
    };
    let shown = ask(&["show", &id]).map_err(|why| format!("{id} is not in the spool: {why}"))?;
    if !shown.contains(&door.recipient()) {
        return Err(format!("{id} in the spool is another message:\n{shown}"));
    }
    ask(&["remove", &id, "--yes", "REMOVE"]).map(drop)
}

/// The whole dialogue; the id of the message that was taken.
fn hand_over(
    address: SocketAddr,
    recipient: &str,
    watchdog: &mut Watchdog,
) -> Result<String, String> {
    let fail = |error: std::io::Error| format!("{address}: {error}");
    let stream = TcpStream::connect_timeout(&address, HEALTH_STEP).map_err(fail)?;
    stream.set_read_timeout(Some(HEALTH_STEP)).map_err(fail)?;
    stream.set_write_timeout(Some(HEALTH_STEP)).map_err(fail)?;
    let mut lines = BufReader::new(stream);
    let rcpt = format!("RCPT TO:<{recipient}>\r\n");
    let content = "Subject: health check\r\n\r\nIs it kept?\r\n.\r\n";
    let steps = [
        ("", "220"),
        ("EHLO health.invalid\r\n", "250"),
        ("MAIL FROM:<>\r\n", "250"),
        (&rcpt, "250"),
        ("DATA\r\n", "354"),
        (content, "250"),
        ("QUIT\r\n", "221"),
    ];
    let mut taken = String::new();
    for (command, expected) in steps {
        watchdog.feed();
        lines.get_mut().write_all(command.as_bytes()).map_err(fail)?;
        let reply = last_line(&mut lines).map_err(fail)?;
        if !reply.starts_with(expected) {
            let asked = command.lines().next().unwrap_or_default();
            return Err(format!("{address}: {:?} to {asked:?}", reply.trim()));
        }
        if command == content {
            taken = reply;
        }
    }
    let id = taken.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(id, _)| id);
    let plain = |id: &&str| id.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
    let id = id.filter(plain).ok_or_else(|| format!("{address}: no id in {:?}", taken.trim()))?;
    Ok(id.to_owned())
}

/// The last line of a reply of at most 50.
fn last_line(lines: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut line = String::new();
    for _ in 0..50 {
        line.clear();
        std::io::Read::take(&mut *lines, LINE_MAX).read_line(&mut line)?;
        if line.as_bytes().get(3) != Some(&b'-') {
            break;
        }
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::net::TcpListener;

    /// What a server that says this makes of the check, and what it was told.
    fn against(replies: &'static str) -> (Result<String, String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(replies.as_bytes()).unwrap();
            // Until the client has gone.
            let mut told = Vec::new();
            let _ = stream.read_to_end(&mut told);
            String::from_utf8_lossy(&told).into_owned()
        });
        let outcome = hand_over(address, "test@x.health.invalid", &mut Watchdog::default());
        (outcome, server.join().unwrap())
    }

    const KEPT: &str = "220 a\r\n250-a\r\n250 SIZE\r\n250 ok\r\n250 ok\r\n354 go\r\n\
                        250 2.0.0 [ABC.1] accepted\r\n221 bye\r\n";

    #[test]
    fn a_message_that_is_taken_is_health_and_nothing_else() {
        let (outcome, told) = against(KEPT);
        assert_eq!(outcome.as_deref(), Ok("ABC.1"));
        assert!(told.contains("MAIL FROM:<>\r\nRCPT TO:<test@x.health.invalid>\r\n"), "{told}");
        assert!(against("421 no\r\n").0.unwrap_err().contains("421 no"));
        assert!(against("220 a\r\n250 a\r\n451 disk\r\n").0.unwrap_err().contains("451 disk"));
    }

    #[test]
    fn who_answers_and_does_not_keep_is_not_healthy() {
        let kept = "220 a\r\n250 a\r\n250 a\r\n250 a\r\n354 a\r\n";
        for (end, expected) in
            [("451 4.3.0 [A] no disk\r\n", "no disk"), ("250 thanks\r\n221 a\r\n", "no id")]
        {
            let replies: &'static str = Box::leak(format!("{kept}{end}").into_boxed_str());
            let why = against(replies).0.unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
        // It gave an id, and knows nothing of it.
        let (why, door) = (check_on(KEPT), Door::new());
        assert!(why.unwrap_err().contains("ABC.1 is not in the spool"));
        assert_eq!(door.word().len(), 32);
        assert_ne!(door.word(), Door::new().word());
    }

    fn check_on(replies: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(replies.as_bytes()).unwrap();
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        check(address, &Door::new(), Some(Path::new("/nowhere")), &mut Watchdog::default())
    }
}
