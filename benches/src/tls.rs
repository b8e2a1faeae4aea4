//! TLS of the floor and of the sink: the rustls of the daemon, with a certificate made at start.
//!
//! *Guarantees*: what must go to the peer stands in `out` when a call returns; records are opened
//! in place, in one buffer per session.
//!
//! *Failure*: the first error is final; the connection is to be closed.
//!
//! *Not here*: names, certificates from files, client certificates; the source's side.

use std::io;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::server::{NoServerSessionStorage, ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, WriteTraffic};
use rustls::{Error, ServerConfig};

use crate::limits::{TLS_FRAGMENT_OCTETS_MAX, TLS_SEAL_OCTETS};

/// What sessions are made from: an ECDSA P-256 certificate, tickets, TLS 1.2 and 1.3.
#[derive(Debug, Clone)]
pub struct Acceptor(Arc<ServerConfig>);

impl Acceptor {
    /// With a certificate for this name, signed by itself.
    pub fn new(name: &str) -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]);
        let made = made.map_err(io::Error::other)?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let mut config = ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .map_err(io::Error::other)?;
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(io::Error::other)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self(Arc::new(config)))
    }

    /// The server's side of a new session.
    pub(crate) fn session(&self) -> Result<Box<Session>, Error> {
        let tls = UnbufferedServerConnection::new(Arc::clone(&self.0))?;
        Ok(Box::new(Session { tls, held: Vec::new() }))
    }
}

/// One session's records.
pub(crate) struct Session {
    tls: UnbufferedServerConnection,
    /// Octets of a record that has not come whole.
    held: Vec<u8>,
}

impl Session {
    /// Takes octets off the wire; plain text goes to `plain`, in pieces.
    pub(crate) fn hear(
        &mut self,
        bytes: &[u8],
        plain: &mut dyn FnMut(&[u8]),
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.held.extend_from_slice(bytes);
        let mut used = 0;
        let mut more = true;
        while more {
            let status = self.tls.process_tls_records(&mut self.held[used..]);
            let mut discard = status.discard;
            match status.state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plain(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => encode(&mut data, out),
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => {}
                // Ready to write, or in want of more.
                _ => more = false,
            }
            used += discard;
        }
        self.held.drain(..used);
        Ok(())
    }

    /// Encrypts what is said; nothing can be said before the handshake is over.
    pub(crate) fn say(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let records = plain.len().div_ceil(TLS_FRAGMENT_OCTETS_MAX);
        let room = plain.len() + records * TLS_SEAL_OCTETS;
        self.write(room, out, |traffic, room| traffic.encrypt(plain, room).ok())
    }

    /// Says close_notify.
    pub(crate) fn close(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let room = 2 + TLS_SEAL_OCTETS;
        self.write(room, out, |traffic, room| traffic.queue_close_notify(room).ok())
    }

    fn write(
        &mut self,
        room: usize,
        out: &mut Vec<u8>,
        seal: impl Fn(&mut WriteTraffic<'_, ServerConnectionData>, &mut [u8]) -> Option<usize>,
    ) -> Result<(), Error> {
        let not_ready = || Error::General("nothing can be said here".to_owned());
        loop {
            match self.tls.process_tls_records(&mut self.held).state? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let start = out.len();
                    out.resize(start + room, 0);
                    let written = seal(&mut traffic, &mut out[start..]);
                    out.truncate(start + written.unwrap_or(0));
                    return written.map(drop).ok_or_else(not_ready);
                }
                ConnectionState::EncodeTlsData(mut data) => encode(&mut data, out),
                ConnectionState::TransmitTlsData(data) => data.done(),
                _ => return Err(not_ready()),
            }
        }
    }
}

fn encode(data: &mut EncodeTlsData<'_, ServerConnectionData>, out: &mut Vec<u8>) {
    let start = out.len();
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        out.resize(start + size.required_size, 0);
        let written = data.encode(&mut out[start..]).unwrap_or(0);
        out.truncate(start + written);
    }
}
