//! Whether this version takes mail: asked once, before it is blessed.
//!
//! The daemon has said that it is ready (config in force, spool recovered and writable), and a
//! client on the loopback gets through a dialogue up to NOOP.
//!
//! *Limits*: `HEALTH_STEP` for each step.
//! *Failure*: which step, and what was heard.
//! *Not here*: a message that is kept: it would be real mail.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::limits::HEALTH_STEP;

/// Octets of one line that are read.
const LINE_MAX: u64 = 1024;

/// Speaks with the daemon.
///
/// # Errors
/// What went wrong.
pub(crate) fn check(address: SocketAddr) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{address}: {error}");
    let stream = TcpStream::connect_timeout(&address, HEALTH_STEP).map_err(fail)?;
    stream.set_read_timeout(Some(HEALTH_STEP)).map_err(fail)?;
    stream.set_write_timeout(Some(HEALTH_STEP)).map_err(fail)?;
    let mut lines = BufReader::new(stream);
    for (command, expected) in
        [("", "220"), ("EHLO health.invalid\r\n", "250"), ("NOOP\r\n", "250"), ("QUIT\r\n", "221")]
    {
        lines.get_mut().write_all(command.as_bytes()).map_err(fail)?;
        let reply = last_line(&mut lines).map_err(fail)?;
        if !reply.starts_with(expected) {
            return Err(format!("{address}: {:?} to {:?}", reply.trim(), command.trim()));
        }
    }
    Ok(())
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
    use std::net::TcpListener;

    fn against(replies: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(replies.as_bytes()).unwrap();
            // Until the client has gone.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        let outcome = check(address);
        server.join().unwrap();
        outcome
    }

    #[test]
    fn a_dialogue_is_health_and_nothing_else() {
        assert_eq!(against("220 a\r\n250-a\r\n250 SIZE\r\n250 ok\r\n221 bye\r\n"), Ok(()));
        assert!(against("421 no\r\n").unwrap_err().contains("421 no"));
        assert!(against("220 a\r\n250 a\r\n451 disk\r\n").unwrap_err().contains("451 disk"));
    }
}
