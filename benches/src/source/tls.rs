//! STARTTLS of a source: a share of the sessions, a share of those with a ticket of an earlier one.
//!
//! *Guarantees*: a session that is to resume has a store of its own, filled by the connection
//! before it in the same slot; one that is not to resume has none.
//!
//! *Not here*: judgement of certificates: every one is taken, and its signature is not checked (the
//! source's own cost is not what is measured).

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme,
    SupportedProtocolVersion,
};

use crate::limits::TLS_SESSIONS_KEPT;

/// Takes every certificate.
#[derive(Debug)]
struct Any(Vec<SignatureScheme>);

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_tls12_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

/// What every session's TLS is made from.
#[derive(Debug)]
pub(super) struct Tls {
    fresh: Arc<ClientConfig>,
    /// By slot: each with a store of its own.
    resuming: Vec<Arc<ClientConfig>>,
    name: ServerName<'static>,
}

impl Tls {
    /// For a server of this name, with one version or, by default, what both can.
    pub(super) fn new(
        name: &str,
        version: Option<&'static SupportedProtocolVersion>,
    ) -> io::Result<Self> {
        let provider: Arc<CryptoProvider> = rustls::crypto::aws_lc_rs::default_provider().into();
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        let one = version.as_slice();
        let versions = if one.is_empty() { rustls::ALL_VERSIONS } else { one };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Any(schemes)))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        Ok(Self { fresh: Arc::new(config), resuming: Vec::new(), name })
    }

    /// A connection's client.
    pub(super) fn client(&mut self, slot: usize, resume: bool) -> io::Result<Box<Client>> {
        let config = if resume {
            while self.resuming.len() <= slot {
                let mut config = ClientConfig::clone(&self.fresh);
                config.resumption = Resumption::in_memory_sessions(TLS_SESSIONS_KEPT);
                self.resuming.push(Arc::new(config));
            }
            &self.resuming[slot]
        } else {
            &self.fresh
        };
        let client = ClientConnection::new(Arc::clone(config), self.name.clone());
        let mut client = client.map_err(io::Error::other)?;
        client.set_buffer_limit(None);
        Ok(Box::new(Client { tls: client, plain: Vec::new() }))
    }
}

/// TLS of one connection.
#[derive(Debug)]
pub(super) struct Client {
    tls: ClientConnection,
    plain: Vec<u8>,
}

impl Client {
    /// Encrypts what a session says.
    pub(super) fn say(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let written = self.tls.writer().write_all(bytes).and_then(|()| self.flush(out));
        debug_assert!(written.is_ok(), "writes to memory: {written:?}");
    }

    /// Hands over what the handshake has to say.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(out)?;
        }
        Ok(())
    }

    /// Takes octets off the wire; returns the plain text in them.
    pub(super) fn hear(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> io::Result<Vec<u8>> {
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes)?;
            let state = self.tls.process_new_packets();
            // An alert may have to be sent either way.
            self.flush(out)?;
            let waiting = state.map_err(io::Error::other)?.plaintext_bytes_to_read();
            let end = plain.len();
            plain.resize(end + waiting, 0);
            self.tls.reader().read_exact(&mut plain[end..])?;
        }
        Ok(plain)
    }

    /// Gives a plain text's memory back.
    pub(super) fn keep(&mut self, plain: Vec<u8>) {
        self.plain = plain;
    }

    /// `None` during the handshake, then whether it was resumed.
    pub(super) fn resumed(&self) -> Option<bool> {
        (!self.tls.is_handshaking())
            .then(|| self.tls.handshake_kind() == Some(HandshakeKind::Resumed))
    }
}
