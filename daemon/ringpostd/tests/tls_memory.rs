//! What an idle TLS session costs in resident memory: alone in its process, because it measures
//! that.

#![expect(clippy::unwrap_used, reason = "a test: a panic is the verdict")]

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ringpostd::tls::{
    CertificateFiles, ServerTls, Session, Tickets, TlsSettings, TlsStore, ensure_own_certificate,
};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, version};

const SESSIONS: usize = 2_000;
/// Half of what an idle session may cost in all (goal: 24 KiB).
const OCTETS_MAX: usize = 12 * 1024;

/// Resident octets of this process.
fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find(|line| line.starts_with("Rss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1_024
}

#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// A session after EHLO and its answer.
fn idle(config: &Arc<ClientConfig>, tls: &ServerTls) -> Session {
    let name = ServerName::try_from("mx.example.org").unwrap();
    let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut server = Session::server(tls).unwrap();
    let mut said = Vec::new();
    client.writer().write_all(b"EHLO").unwrap();
    while said.is_empty() {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut there).unwrap();
        }
        server.receive(&mut there, |p| said.extend_from_slice(p), &mut back).unwrap();
        client.read_tls(&mut &back[..]).unwrap();
        client.process_new_packets().unwrap();
    }
    server.send(b"250 mx.example.org", &mut Vec::new()).unwrap();
    server
}

#[test]
fn an_idle_session_is_small() {
    let folder = std::env::temp_dir().join(format!("ringpost-tls-memory-{}", std::process::id()));
    let (chain, key) = (folder.join("node.pem"), folder.join("node.key"));
    ensure_own_certificate(&chain, &key, &["mx.example.org".to_owned()]).unwrap();
    let files = CertificateFiles { chain, key, ..CertificateFiles::default() };
    let settings = TlsSettings { certificates: vec![files], ..TlsSettings::default() };
    let store = TlsStore::load(&settings, &Tickets::new().unwrap(), 0).unwrap().store;
    fs::remove_dir_all(&folder).unwrap();
    let tls = store.for_local(IpAddr::V4(Ipv4Addr::LOCALHOST));
    // Nothing is given back between the versions: the second must not live on the first one's
    // pages.
    let mut all = Vec::new();
    for version in [&version::TLS12, &version::TLS13] {
        let mut config = ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
        config.resumption = Resumption::disabled();
        let config = Arc::new(config);
        // Warm: what the first handshakes leave behind is not a session's.
        let warm: Vec<Session> = (0..100).map(|_| idle(&config, tls)).collect();
        let mut kept = Vec::with_capacity(SESSIONS);
        let start = resident();
        kept.resize_with(SESSIONS, || idle(&config, tls));
        let each = resident().saturating_sub(start) / SESSIONS;
        println!("{:?}: {each} octets for an idle session", version.version);
        assert!(each <= OCTETS_MAX, "{each} octets");
        all.push((warm, kept));
    }
}
