//! A client that says what a test tells it to, and reads replies whole.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use super::wire::Wire;

/// One connection.
pub(crate) struct Client {
    wire: Wire,
}

impl Client {
    /// Connects and reads the greeting.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let mut client = Self::connect_silent(address);
        let greeting = client.reply();
        assert!(greeting.starts_with("220 "), "greeting: {greeting}");
        client
    }

    /// Connects, reads the greeting, says EHLO.
    pub(crate) fn greeted(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        client.expect("EHLO client.example.net", "250");
        client
    }

    pub(crate) fn connect_silent(address: SocketAddr) -> Self {
        Self { wire: Wire::new(TcpStream::connect(address).expect("the daemon listens")) }
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.wire.tcp().local_addr().expect("bound")
    }

    /// Sends octets as they are.
    pub(crate) fn send(&mut self, octets: &[u8]) {
        self.wire.write(octets).expect("the daemon takes it");
    }

    /// Sends octets to a daemon that may have closed already.
    pub(crate) fn try_send(&mut self, octets: &[u8]) -> bool {
        self.wire.write(octets).is_ok()
    }

    /// Sends a line, reads a reply.
    pub(crate) fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// Sends a line and expects a code, or more of the reply's start.
    pub(crate) fn expect(&mut self, line: &str, start: &str) -> String {
        let reply = self.say(line);
        assert!(reply.starts_with(start), "{line}: wanted {start}, got {reply:?}");
        reply
    }

    /// The next line without CRLF; `None` at the end of the stream, however it ended.
    pub(crate) fn line(&mut self) -> Option<String> {
        let line = match self.wire.line() {
            Ok(line) => line?,
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return None,
            Err(e) => panic!("reading a reply: {e}"),
        };
        let line = String::from_utf8(line).expect("replies are ASCII");
        Some(line.strip_suffix("\r\n").expect("replies end with CRLF").to_owned())
    }

    /// The next reply, its lines joined by `\n`; empty at the end of the stream.
    pub(crate) fn reply(&mut self) -> String {
        let mut reply = String::new();
        while let Some(line) = self.line() {
            if !reply.is_empty() {
                reply.push('\n');
            }
            reply.push_str(&line);
            if line.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        }
        reply
    }

    /// A whole message; the reply to the final dot.
    pub(crate) fn mail(&mut self, from: &str, to: &[&str], content: &str) -> String {
        self.expect(&format!("MAIL FROM:<{from}>"), "250");
        for recipient in to {
            self.expect(&format!("RCPT TO:<{recipient}>"), "250");
        }
        self.expect("DATA", "354");
        self.send(content.as_bytes());
        self.say(".")
    }

    /// A whole message that is taken; its id.
    pub(crate) fn deliver(&mut self, from: &str, to: &[&str], content: &str) -> String {
        let reply = self.mail(from, to, content);
        assert!(reply.starts_with("250 2.0.0 ["), "{reply}");
        id_of(&reply).to_owned()
    }

    /// The handshake behind a 220 to STARTTLS, or on a TLS port.
    pub(crate) fn secure(&mut self, config: &Arc<rustls::ClientConfig>, name: &str) -> Seen {
        let name = name.to_owned().try_into().expect("a server's name");
        let tls = rustls::ClientConnection::new(Arc::clone(config), name).expect("a config");
        self.wire.secure(tls.into()).expect("a handshake");
        let rustls::Connection::Client(tls) = self.wire.tls().expect("just made") else {
            unreachable!("a client")
        };
        Seen {
            version: tls.protocol_version().expect("it stands"),
            resumed: tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
            certificate: tls.peer_certificates().map(|c| c[0].to_vec()).unwrap_or_default(),
        }
    }

    /// EHLO, STARTTLS, handshake, EHLO.
    pub(crate) fn starttls(&mut self, config: &Arc<rustls::ClientConfig>, name: &str) -> Seen {
        let offers = self.expect("EHLO client.example.net", "250");
        assert!(offers.lines().any(|l| &l[4..] == "STARTTLS"), "{offers}");
        self.expect("STARTTLS", "220");
        let seen = self.secure(config, name);
        let offers = self.expect("EHLO client.example.net", "250");
        assert!(!offers.contains("STARTTLS"), "{offers}");
        seen
    }

    pub(crate) fn shutdown_write(&mut self) {
        self.wire.shutdown_write().expect("open");
    }
}

/// What a handshake brought.
pub(crate) struct Seen {
    pub(crate) version: rustls::ProtocolVersion,
    pub(crate) resumed: bool,
    pub(crate) certificate: Vec<u8>,
}

/// The id in `250 2.0.0 [id] accepted`.
pub(crate) fn id_of(reply: &str) -> &str {
    let start = reply.find('[').unwrap_or_else(|| panic!("no id: {reply}")) + 1;
    let end = reply[start..].find(']').unwrap_or_else(|| panic!("no id: {reply}"));
    &reply[start..start + end]
}
