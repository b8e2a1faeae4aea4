//! One TLS session, either side, as a machine over octets.
//!
//! *Guarantees.* Whole records are opened in the caller's buffer; what is left over is kept in a
//! buffer of the session that is given back as soon as it is empty. What must go to the peer,
//! alerts included, stands in `wire_out` when a call returns, also when it returns an error.
//!
//! *Limits.* [`HELD_OCTETS_MAX`] octets kept back while shaking hands, one record afterwards.
//!
//! *Failure.* The first [`TlsError`] is final: every later `receive` repeats it, `send` refuses.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use rustls::{CommonState, HandshakeKind, ProtocolVersion};

use super::drive::{Write, drive, write, write_queued};
use super::error::TlsError;
use super::limits::{
    FRAGMENT_OCTETS_MAX, HELD_OCTETS_MAX, RECORD_OCTETS_MAX, SEAL_OVERHEAD_OCTETS,
};

/// Octets of a record's header.
const HEADER_OCTETS: usize = 5;

/// What a call of [`Session::receive`] brought, besides plaintext.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The handshake ended in this call: [`Session::info`] is complete, `send` works.
    pub established: bool,
    /// The peer said close_notify in this call: nothing more will come from it.
    pub closed: bool,
}

/// What is worth a field in a log line or in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// `TLS1.2` or `TLS1.3`.
    pub version: &'static str,
    /// The suite's name in the registry, as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: &'static str,
    /// The suite's number on the wire.
    pub cipher_number: u16,
    /// Bits of the symmetric key.
    pub cipher_bits: u16,
    /// The name the client asked for (server side only), lower case.
    pub sni: Option<Box<str>>,
    /// SHA-256 of the peer's end-entity certificate, when it showed one.
    pub peer_sha256: Option<[u8; 32]>,
    /// Whether an earlier session was taken up again.
    pub resumed: bool,
}

enum Side {
    Server(Box<UnbufferedServerConnection>, Arc<Asked>),
    Client(Box<UnbufferedClientConnection>),
}

impl fmt::Debug for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server(..) => "Server",
            Self::Client(_) => "Client",
        })
    }
}

/// Stands before the certificate chooser and keeps the name the client asked for: the unbuffered
/// connection does not give it away later. Written once, by the session's own thread.
#[derive(Debug)]
struct Asked {
    chooser: Arc<dyn ResolvesServerCert>,
    name: OnceLock<Box<str>>,
}

impl ResolvesServerCert for Asked {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(name) = hello.server_name() {
            // A second ClientHello (after a retry request) asks for the same name.
            let _ = self.name.set(name.to_ascii_lowercase().into_boxed_str());
        }
        self.chooser.resolve(hello)
    }
}

/// What the sessions of one local address are made with.
#[derive(Debug, Clone)]
pub struct ServerTls(Arc<rustls::ServerConfig>);

impl ServerTls {
    pub(super) fn new(config: rustls::ServerConfig) -> Self {
        Self(Arc::new(config))
    }
}

/// One session. Give it what arrives, send what it writes.
#[derive(Debug)]
pub struct Session {
    side: Side,
    held: Vec<u8>,
    established: bool,
    peer_closed: bool,
    close_sent: bool,
    failed: Option<Box<TlsError>>,
}

impl Session {
    /// The side that was asked for STARTTLS.
    ///
    /// # Errors
    /// Only for a configuration rustls refuses; [`super::TlsStore`] makes none such.
    pub fn server(tls: &ServerTls) -> Result<Self, TlsError> {
        let chooser = Arc::clone(&tls.0.cert_resolver);
        let asked = Arc::new(Asked { chooser, name: OnceLock::new() });
        let mut config = rustls::ServerConfig::clone(&tls.0);
        config.cert_resolver = Arc::<Asked>::clone(&asked);
        let connection =
            UnbufferedServerConnection::new(Arc::new(config)).map_err(TlsError::Protocol)?;
        Ok(Self::new(Side::Server(Box::new(connection), asked)))
    }

    /// The side that asks. `name` is the next hop's host name: it is sent as SNI when it is one (a
    /// trailing dot is cut); otherwise, and for an address literal, `address` stands in and no SNI
    /// is sent. The first flight is written by the first [`Session::receive`], which may be given
    /// no octets.
    ///
    /// # Errors
    /// Only for a configuration rustls refuses.
    pub(super) fn client(
        config: &Arc<rustls::ClientConfig>,
        name: &str,
        address: IpAddr,
    ) -> Result<Self, TlsError> {
        let name = server_name(name, address);
        let side = UnbufferedClientConnection::new(Arc::clone(config), name)
            .map_err(TlsError::Protocol)
            .map(|connection| Side::Client(Box::new(connection)))?;
        Ok(Self::new(side))
    }

    const fn new(side: Side) -> Self {
        Self {
            side,
            held: Vec::new(),
            established: false,
            peer_closed: false,
            close_sent: false,
            failed: None,
        }
    }

    /// Takes octets from the wire, hands plaintext to `plaintext` in order (several calls), appends
    /// what must be sent to `wire_out`. `input` is used as working space: its content is undefined
    /// afterwards.
    ///
    /// # Errors The session is dead: send `wire_out` (the alert), then close. Plaintext handed out
    /// before is good.
    pub fn receive(
        &mut self,
        input: &mut [u8],
        mut plaintext: impl FnMut(&[u8]),
        wire_out: &mut Vec<u8>,
    ) -> Result<Progress, TlsError> {
        if let Some(error) = &self.failed {
            return Err((**error).clone());
        }
        let before = (self.established, self.peer_closed);
        let result = self.take(input, &mut plaintext, wire_out);
        if let Err(error) = result {
            self.held = Vec::new();
            self.write_alert(wire_out);
            self.failed = Some(Box::new(error.clone()));
            return Err(error);
        }
        if self.held.is_empty() {
            self.held = Vec::new();
        }
        Ok(Progress {
            established: self.established && !before.0,
            closed: self.peer_closed && !before.1,
        })
    }

    /// Seals `plaintext` at the end of `wire_out`.
    ///
    /// # Errors
    /// [`TlsError::NotReady`] before the handshake is done or after [`Session::close`].
    pub fn send(&mut self, plaintext: &[u8], wire_out: &mut Vec<u8>) -> Result<(), TlsError> {
        if self.failed.is_some() || self.close_sent || !self.established {
            return Err(TlsError::NotReady);
        }
        if plaintext.is_empty() {
            return Ok(());
        }
        let records = plaintext.len().div_ceil(FRAGMENT_OCTETS_MAX);
        let room = plaintext.len() + records * SEAL_OVERHEAD_OCTETS;
        self.write(Write::Data(plaintext), room, wire_out)
    }

    /// Says close_notify, once, and only when a session stands.
    pub fn close(&mut self, wire_out: &mut Vec<u8>) {
        if self.failed.is_some() || self.close_sent || !self.established {
            return;
        }
        self.close_sent = true;
        // A session whose keys are used up cannot say goodbye: the FIN has to do.
        let _ = self.write(Write::CloseNotify, 2 + SEAL_OVERHEAD_OCTETS, wire_out);
    }

    /// Whether the handshake is done.
    #[must_use]
    pub const fn is_established(&self) -> bool {
        self.established
    }

    /// Octets of input kept back for the rest of a record.
    #[must_use]
    pub fn held_octets(&self) -> usize {
        self.held.len()
    }

    /// What was agreed; `None` until the handshake is done.
    #[must_use]
    pub fn info(&self) -> Option<SessionInfo> {
        if !self.established {
            return None;
        }
        let common = self.common();
        let suite = common.negotiated_cipher_suite()?;
        Some(SessionInfo {
            version: match common.protocol_version()? {
                ProtocolVersion::TLSv1_3 => "TLS1.3",
                _ => "TLS1.2",
            },
            cipher: suite.suite().as_str().unwrap_or("unknown"),
            cipher_number: u16::from(suite.suite()),
            cipher_bits: cipher_bits(suite.suite()),
            sni: match &self.side {
                Side::Server(_, asked) => asked.name.get().cloned(),
                Side::Client(_) => None,
            },
            peer_sha256: self.peer_chain().first().map(|certificate| sha256(certificate)),
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    }

    /// The peer's certificates as sent, end entity first; empty when it showed none.
    #[must_use]
    pub fn peer_chain(&self) -> &[CertificateDer<'static>] {
        self.common().peer_certificates().unwrap_or_default()
    }

    fn common(&self) -> &CommonState {
        match &self.side {
            Side::Server(server, _) => server,
            Side::Client(client) => client,
        }
    }

    /// Opens what it can in place; only a record that ends in a later call is copied.
    fn take(
        &mut self,
        mut input: &mut [u8],
        plaintext: &mut dyn FnMut(&[u8]),
        wire_out: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        while !self.held.is_empty() && !input.is_empty() && !self.peer_closed {
            let count = missing(&self.held).unwrap_or(RECORD_OCTETS_MAX).min(input.len());
            let (head, tail) = std::mem::take(&mut input).split_at_mut(count);
            input = tail;
            self.hold(head)?;
            let mut held = std::mem::take(&mut self.held);
            let used = self.drive(&mut held, plaintext, wire_out);
            self.held = held;
            self.held.drain(..used?);
        }
        if self.peer_closed {
            self.held = Vec::new();
            return Ok(());
        }
        if self.held.is_empty() {
            let used = self.drive(input, plaintext, wire_out)?;
            if !self.peer_closed {
                self.hold(&input[used..])?;
            }
        }
        Ok(())
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        let bound = if self.established { RECORD_OCTETS_MAX } else { HELD_OCTETS_MAX };
        let wanted = self.held.len() + bytes.len();
        if wanted > bound {
            return Err(TlsError::TooLarge);
        }
        if self.held.is_empty() && !bytes.is_empty() {
            let whole = bytes.len() + missing(bytes).unwrap_or(0);
            self.held.reserve_exact(whole.min(RECORD_OCTETS_MAX));
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    /// Runs rustls over `bytes` until it wants more; says how many of them are used up.
    fn drive(
        &mut self,
        bytes: &mut [u8],
        plaintext: &mut dyn FnMut(&[u8]),
        wire_out: &mut Vec<u8>,
    ) -> Result<usize, TlsError> {
        let outcome = match &mut self.side {
            Side::Server(server, _) => drive(&mut **server, bytes, plaintext, wire_out),
            Side::Client(client) => drive(&mut **client, bytes, plaintext, wire_out),
        };
        let outcome = outcome.map_err(TlsError::Protocol)?;
        self.peer_closed |= outcome.peer_closed;
        self.established |= outcome.may_write && !self.common().is_handshaking();
        Ok(outcome.used)
    }

    fn write(
        &mut self,
        what: Write<'_>,
        room: usize,
        wire_out: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        let held = &mut self.held;
        match &mut self.side {
            Side::Server(server, _) => write(&mut **server, held, what, room, wire_out),
            Side::Client(client) => write(&mut **client, held, what, room, wire_out),
        }
    }

    /// After an error rustls still has the alert to give.
    fn write_alert(&mut self, wire_out: &mut Vec<u8>) {
        match &mut self.side {
            Side::Server(server, _) => write_queued(&mut **server, wire_out),
            Side::Client(client) => write_queued(&mut **client, wire_out),
        }
    }
}

/// Octets that complete the first record of `bytes`, or its header; `None` when it is whole
/// already.
fn missing(bytes: &[u8]) -> Option<usize> {
    let whole = match bytes {
        [_, _, _, high, low, ..] => {
            HEADER_OCTETS + usize::from(u16::from_be_bytes([*high, *low])).min(RECORD_OCTETS_MAX)
        }
        _ => HEADER_OCTETS,
    };
    whole.checked_sub(bytes.len()).filter(|count| *count > 0)
}

fn server_name(name: &str, address: IpAddr) -> ServerName<'static> {
    let name = name.strip_suffix('.').unwrap_or(name);
    match ServerName::try_from(name.to_owned()) {
        Ok(name @ ServerName::DnsName(_)) => name,
        _ => ServerName::from(address),
    }
}

fn cipher_bits(suite: rustls::CipherSuite) -> u16 {
    let name = suite.as_str().unwrap_or_default();
    if name.contains("AES_128") { 128 } else { 256 }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let suite = suite.tls13().expect("it is a TLS 1.3 suite");
    let hash = suite.common.hash_provider.hash(bytes);
    hash.as_ref().try_into().expect("SHA-256 has 32 octets")
}
