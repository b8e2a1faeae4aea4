//! A small client for giving the daemon a mail over its own port: import and trial mails.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::exit::{Exit, Trouble};

/// For connecting and for each reply.
const WAIT: Duration = Duration::from_secs(60);

fn trouble(error: &std::io::Error) -> Trouble {
    Trouble::new(Exit::Refused, format!("the daemon's port: {error}"), "`ringpost status`")
}

struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn reply(&mut self) -> Result<String, Trouble> {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).map_err(|e| trouble(&e))? == 0 {
                return Err(Trouble::new(Exit::Refused, "the daemon closed the connection", ""));
            }
            text.push_str(line.trim_end());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(text);
            }
            text.push('\n');
        }
    }

    fn say(&mut self, line: &str, wanted: char) -> Result<String, Trouble> {
        let octets = format!("{line}\r\n");
        self.stream.get_mut().write_all(octets.as_bytes()).map_err(|e| trouble(&e))?;
        self.wants(wanted, line)
    }

    fn wants(&mut self, wanted: char, line: &str) -> Result<String, Trouble> {
        let reply = self.reply()?;
        if reply.starts_with(wanted) {
            return Ok(reply);
        }
        let message = format!("{line}: {reply}");
        Err(Trouble::new(Exit::Refused, message, "`ringpost why ID` says more"))
    }
}

/// Gives the daemon at `address` a mail; its last reply.
pub(crate) fn submit(
    address: &str,
    sender: &str,
    recipients: &[String],
    content: &[u8],
) -> Result<String, Trouble> {
    let stream = TcpStream::connect(address).map_err(|e| trouble(&e))?;
    stream
        .set_read_timeout(Some(WAIT))
        .and_then(|()| stream.set_write_timeout(Some(WAIT)))
        .map_err(|e| trouble(&e))?;
    let mut client = Client { stream: BufReader::new(stream) };
    client.wants('2', "greeting")?;
    client.say("EHLO console.invalid", '2')?;
    client.say(&format!("MAIL FROM:<{sender}> BODY=8BITMIME"), '2')?;
    for recipient in recipients {
        client.say(&format!("RCPT TO:<{recipient}>"), '2')?;
    }
    client.say("DATA", '3')?;
    let mut out = Vec::with_capacity(content.len() + 1024);
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        out.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        out.extend_from_slice(b"\r\n");
    }
    client.stream.get_mut().write_all(&out).map_err(|e| trouble(&e))?;
    let accepted = client.say(".", '2')?;
    let _ = client.say("QUIT", '2');
    Ok(accepted)
}
