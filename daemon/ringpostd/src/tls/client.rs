//! The side that asks for TLS, towards next hops, and what is thought of the certificates it is
//! shown.
//!
//! *Guarantees.* Opportunistic: no certificate ends a handshake. What verification would have said
//! is there to be asked for ([`ClientTls::verdict`]): it is recorded, and may be enforced by a
//! caller.
//!
//! *Not here.* DANE and MTA-STS.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme, version,
};

use super::certificate::{Fault, FileError, read_chain};
use super::error::TlsError;
use super::limits::CLIENT_SESSIONS_MAX;
use super::session::Session;

/// What verification says about a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerVerdict {
    /// Chain, dates and name are good.
    Verified,
    /// They are not; the reason, for the log.
    Untrusted(Box<str>),
    /// No roots are configured, or the peer showed nothing.
    NotChecked,
}

/// What one core's outgoing sessions are made with.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    verifier: Option<Arc<WebPkiServerVerifier>>,
}

impl ClientTls {
    /// `roots` is a PEM file of trusted authorities, as `/etc/ssl/certs/ca-certificates.crt`; those
    /// in it that do not parse are passed over.
    ///
    /// # Errors
    /// The file cannot be read or holds no usable certificate.
    pub fn new(roots: Option<&Path>) -> Result<Self, FileError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = roots.map(|path| verifier(path, &provider)).transpose()?;
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS12, &version::TLS13])
            .expect("the provider has suites and groups for both versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer { provider }))
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config), verifier }.for_core())
    }

    /// The same with its own memory of sessions to resume: one per core, so that cores share no
    /// lock.
    #[must_use]
    pub fn for_core(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::in_memory_sessions(CLIENT_SESSIONS_MAX);
        Self { config: Arc::new(config), verifier: self.verifier.clone() }
    }

    /// A session towards a host; see [`Session::client`].
    ///
    /// # Errors
    /// See [`Session::client`].
    pub fn session(&self, name: &str, address: IpAddr) -> Result<Session, TlsError> {
        Session::client(&self.config, name, address)
    }

    /// What verification says about the peer of an established session that should be `name`.
    #[must_use]
    pub fn verdict(&self, session: &Session, name: &str, wall_us: u64) -> PeerVerdict {
        let (Some(verifier), [end_entity, issuers @ ..]) = (&self.verifier, session.peer_chain())
        else {
            return PeerVerdict::NotChecked;
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let Ok(name) = ServerName::try_from(name) else {
            return PeerVerdict::Untrusted("not a name a certificate can hold".into());
        };
        let now = UnixTime::since_unix_epoch(Duration::from_micros(wall_us));
        match verifier.verify_server_cert(end_entity, issuers, &name, &[], now) {
            Ok(_) => PeerVerdict::Verified,
            Err(error) => PeerVerdict::Untrusted(error.to_string().into_boxed_str()),
        }
    }
}

fn verifier(
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, FileError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(read_chain(path)?);
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|_| FileError { path: path.to_owned(), fault: Fault::NoCertificate })
}

/// A signature is checked whenever the certificate can be read at all; one that cannot be read
/// proves nothing, and [`ClientTls::verdict`] says so.
fn signature_holds(
    certificate: &CertificateDer<'_>,
    check: impl FnOnce() -> Result<HandshakeSignatureValid, rustls::Error>,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    if ParsedCertificate::try_from(certificate).is_ok() {
        check()
    } else {
        Ok(HandshakeSignatureValid::assertion())
    }
}

/// Takes any certificate of a server.
#[derive(Debug)]
struct AnyServer {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        signature_holds(certificate, || {
            verify_tls12_signature(message, certificate, signed, algorithms)
        })
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        signature_holds(certificate, || {
            verify_tls13_signature(message, certificate, signed, algorithms)
        })
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Asks clients for a certificate and takes any, or none; possession of the key is proven.
#[derive(Debug)]
pub(super) struct AnyClient {
    provider: Arc<CryptoProvider>,
}

impl AnyClient {
    pub(super) const fn new(provider: Arc<CryptoProvider>) -> Self {
        Self { provider }
    }
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
