//! Certificates made here, and TLS configs that trust everybody: what is tested is who shows what.

use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};

/// A self-signed certificate with its key.
pub(crate) struct Pair {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

pub(crate) const ECDSA: &SignatureAlgorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
pub(crate) const RSA: &SignatureAlgorithm = &rcgen::PKCS_RSA_SHA256;

impl Pair {
    pub(crate) fn new(name: &str, kind: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(kind).expect("a key");
        let parameters = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        Self { certificate, key }
    }

    /// One that ended in 2020.
    pub(crate) fn ended(name: &str, kind: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(kind).expect("a key");
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        parameters.not_before = rcgen::date_time_ymd(2019, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let certificate = parameters.self_signed(&key).expect("a certificate");
        Self { certificate, key }
    }

    /// Writes `<stem>.crt` and `<stem>.key`.
    pub(crate) fn write(&self, folder: &Path, stem: &str) {
        let put = |end: &str, text: String| {
            std::fs::write(folder.join(format!("{stem}.{end}")), text).expect("written");
        };
        put("crt", self.certificate.pem());
        put("key", self.key.serialize_pem());
    }

    /// The certificate as it goes over the wire.
    pub(crate) fn der(&self) -> Vec<u8> {
        self.certificate.der().to_vec()
    }

    /// A server that shows it.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key");
        let chain = vec![self.certificate.der().clone()];
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a pair");
        Arc::new(config)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Takes every certificate.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Anybody {
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
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// What a client can.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Can {
    /// Everything.
    All,
    /// ECDSA signatures only.
    Ecdsa,
    /// RSA signatures only.
    Rsa,
}

/// A client that speaks these versions and takes every certificate.
pub(crate) fn client(
    versions: &[&'static rustls::SupportedProtocolVersion],
    can: Can,
) -> Arc<ClientConfig> {
    let mut provider = aws_lc_rs::default_provider();
    let mut schemes = provider.signature_verification_algorithms.supported_schemes();
    schemes.retain(|scheme| {
        let name = format!("{scheme:?}");
        match can {
            Can::All => true,
            Can::Ecdsa => name.starts_with("ECDSA"),
            Can::Rsa => name.starts_with("RSA"),
        }
    });
    provider.cipher_suites.retain(|suite| {
        let name = format!("{:?}", suite.suite());
        match can {
            Can::All => true,
            Can::Ecdsa => !name.contains("_RSA_"),
            Can::Rsa => !name.contains("_ECDSA_"),
        }
    });
    let provider = Arc::new(provider);
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody { provider, schemes }))
        .with_no_client_auth();
    Arc::new(config)
}
