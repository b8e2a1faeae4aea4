//! One end of a TCP connection that may become TLS: blocking, line by line.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::refusals;

/// A connection.
pub(crate) struct Wire {
    tcp: TcpStream,
    tls: Option<rustls::Connection>,
    /// The other end, which may be gone when its last words are read.
    peer: Option<SocketAddr>,
    /// Read and not asked for yet.
    held: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        tcp.set_nodelay(true).expect("a TCP socket");
        let peer = tcp.peer_addr().ok();
        Self { tcp, tls: None, peer, held: Vec::new() }
    }

    pub(crate) const fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Writes all.
    pub(crate) fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return self.tcp.write_all(octets) };
        tls.writer().write_all(octets)?;
        while tls.wants_write() {
            tls.write_tls(&mut self.tcp)?;
        }
        Ok(())
    }

    /// A line with its LF; what is left at the end of the stream; `None` when nothing is.
    pub(crate) fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut seen = 0;
        loop {
            if let Some(at) = self.held[seen..].iter().position(|octet| *octet == b'\n') {
                let rest = self.held.split_off(seen + at + 1);
                let line = std::mem::replace(&mut self.held, rest);
                if let Some(peer) = self.peer {
                    refusals::note_line(peer.port(), &line);
                }
                return Ok(Some(line));
            }
            seen = self.held.len();
            if self.fill()? == 0 {
                let rest = std::mem::take(&mut self.held);
                return Ok((!rest.is_empty()).then_some(rest));
            }
        }
    }

    /// So many octets.
    pub(crate) fn exact(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.held.len() < count {
            if self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.held.split_off(count);
        Ok(std::mem::replace(&mut self.held, rest))
    }

    /// A handshake; what was read in the clear before is forgotten.
    pub(crate) fn secure(&mut self, mut tls: rustls::Connection) -> io::Result<()> {
        tls.set_buffer_limit(None);
        self.held.clear();
        while tls.is_handshaking() {
            tls.complete_io(&mut self.tcp)?;
        }
        self.tls = Some(tls);
        Ok(())
    }

    /// The TLS connection, once there is one.
    pub(crate) const fn tls(&self) -> Option<&rustls::Connection> {
        self.tls.as_ref()
    }

    /// Half-closes; under TLS with its own word for it.
    pub(crate) fn shutdown_write(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            while tls.wants_write() {
                tls.write_tls(&mut self.tcp)?;
            }
        }
        self.tcp.shutdown(Shutdown::Write)
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut room = [0; 16 << 10];
        let read = match &mut self.tls {
            None => self.tcp.read(&mut room)?,
            Some(tls) => loop {
                match tls.reader().read(&mut room) {
                    Ok(read) => break read,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    // The other end closed TCP without closing TLS.
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => break 0,
                    Err(error) => return Err(error),
                }
                tls.read_tls(&mut self.tcp)?;
                tls.process_new_packets().map_err(io::Error::other)?;
                while tls.wants_write() {
                    tls.write_tls(&mut self.tcp)?;
                }
            },
        };
        self.held.extend_from_slice(&room[..read]);
        Ok(read)
    }
}
