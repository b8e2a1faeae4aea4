//! Sessions against rustls's own buffered peers and against themselves, cut at every place.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, SignatureScheme, version};

use super::limits::HELD_OCTETS_MAX;
use super::*;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// 2026-01-01.
const NOW_US: u64 = 1_767_225_600_000_000;

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("ringpost-tls-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes a pair for `name`; `kind` is `ec` or `rsa`; years as in the certificate.
    fn pair(&self, name: &str, kind: &str, years: (i32, i32)) -> CertificateFiles {
        let algorithm = match kind {
            "rsa" => &rcgen::PKCS_RSA_SHA256,
            _ => &rcgen::PKCS_ECDSA_P256_SHA256,
        };
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        let stem = format!("{}-{kind}", name.replace('*', "any"));
        let (chain, key_path) =
            (self.path(&format!("{stem}.pem")), self.path(&format!("{stem}.key")));
        fs::write(&chain, certificate.pem()).unwrap();
        fs::write(&key_path, key.serialize_pem()).unwrap();
        fs::set_permissions(&key_path, fs::Permissions::from_mode(0o600)).unwrap();
        CertificateFiles { chain, key: key_path, ..CertificateFiles::default() }
    }

    fn valid(&self, name: &str, kind: &str) -> CertificateFiles {
        self.pair(name, kind, (2020, 2090))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn settings(certificates: Vec<CertificateFiles>) -> TlsSettings {
    TlsSettings { certificates, ..TlsSettings::default() }
}

fn load(certificates: Vec<CertificateFiles>, tickets: &Tickets) -> Arc<TlsStore> {
    TlsStore::load(&settings(certificates), tickets, NOW_US).unwrap().store
}

fn only_error(settings: &TlsSettings) -> Fault {
    let mut errors = TlsStore::load(settings, &Tickets::new().unwrap(), NOW_US).unwrap_err();
    assert_eq!(errors.len(), 1);
    errors.remove(0).fault
}

/// rustls's buffered client, so that one side of the talk is not ours.
fn plain_client(
    versions: &[&'static rustls::SupportedProtocolVersion],
    schemes: Option<&[SignatureScheme]>,
    resumption: Resumption,
) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Narrow { inner: schemes.map(<[_]>::to_vec) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = resumption;
    Arc::new(config)
}

/// Takes any certificate, but offers only some signature schemes.
#[derive(Debug)]
struct Narrow {
    inner: Option<Vec<SignatureScheme>>,
}

type SchemeResult = Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error>;

impl rustls::client::danger::ServerCertVerifier for Narrow {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> SchemeResult {
        let algorithms = &aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> SchemeResult {
        let algorithms = &aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.clone().unwrap_or_else(|| {
            aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
        })
    }
}

/// Shakes hands and sends `EHLO` through; gives back what the server read.
fn talk(client: &mut ClientConnection, server: &mut Session) -> Result<Vec<u8>, TlsError> {
    let mut read = Vec::new();
    client.writer().write_all(b"EHLO client\r\n").unwrap();
    loop {
        let mut to_server = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut to_server).unwrap();
        }
        let mut to_client = Vec::new();
        server.receive(&mut to_server, |p| read.extend_from_slice(p), &mut to_client)?;
        if to_client.is_empty() && read == b"EHLO client\r\n" {
            return Ok(read);
        }
        let mut rest = &to_client[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(TlsError::Protocol)?;
        }
    }
}

fn connect(
    config: &Arc<ClientConfig>,
    name: &str,
    tls: &ServerTls,
) -> (ClientConnection, Session, SessionInfo) {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut server = Session::server(tls).unwrap();
    talk(&mut client, &mut server).unwrap();
    let info = server.info().unwrap();
    (client, server, info)
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&version::TLS12, &version::TLS13];

fn served(client: &ClientConnection) -> &[u8] {
    client.peer_certificates().unwrap().first().unwrap()
}

fn der(files: &CertificateFiles) -> Vec<u8> {
    certificate::read_chain(&files.chain).unwrap().remove(0).to_vec()
}

/// Gives `bytes` to a session in pieces that end at `cuts` of its whole input stream.
struct Feed {
    cut: usize,
    seen: usize,
}

impl Feed {
    fn give(&mut self, to: &mut Session, bytes: &[u8], read: &mut Vec<u8>) -> Vec<u8> {
        let mut out = Vec::new();
        let at = self.cut.saturating_sub(self.seen).min(bytes.len());
        self.seen += bytes.len();
        for piece in [&bytes[..at], &bytes[at..]] {
            to.receive(&mut piece.to_vec(), |p| read.extend_from_slice(p), &mut out).unwrap();
            assert!(to.held_octets() <= HELD_OCTETS_MAX);
        }
        out
    }
}

/// Our client against our server, each stream cut once at `cut`; octets each side received.
fn both_ours(tls: &ServerTls, client: &ClientTls, cut: usize) -> (usize, usize) {
    let mut server = Session::server(tls).unwrap();
    let mut client = client.session("mx.example.org", LOCAL).unwrap();
    let (mut to_server, mut to_client) = (Feed { cut, seen: 0 }, Feed { cut, seen: 0 });
    let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
    let mut wire = Vec::new();
    client.receive(&mut [], |_| {}, &mut wire).unwrap();
    let mut asked = false;
    while !wire.is_empty() {
        let mut back = to_server.give(&mut server, &wire, &mut at_server);
        if at_server == b"EHLO" && at_client.is_empty() {
            server.send(b"250 ok", &mut back).unwrap();
            server.close(&mut back);
        }
        wire = to_client.give(&mut client, &back, &mut at_client);
        if client.is_established() && !asked {
            asked = true;
            client.send(b"EHLO", &mut wire).unwrap();
        }
    }
    assert_eq!((&at_server[..], &at_client[..]), (&b"EHLO"[..], &b"250 ok"[..]));
    assert_eq!((server.held_octets(), client.held_octets()), (0, 0));
    (to_server.seen, to_client.seen)
}

#[test]
fn any_cut_of_the_streams_is_the_same_talk() {
    let folder = Folder::new();
    let tickets = Tickets::new().unwrap();
    let store = load(vec![folder.valid("mx.example.org", "ec")], &tickets);
    let client = ClientTls::new(None).unwrap();
    let octets = both_ours(store.for_local(LOCAL), &client.for_core(), 0);
    let longest = octets.0.max(octets.1);
    assert!(longest > 500);
    for cut in 0..=longest {
        // A fresh core each time: a resumed session would be another, shorter talk.
        both_ours(store.for_local(LOCAL), &client.for_core(), cut);
    }
}

#[test]
fn tls12_survives_octet_by_octet() {
    let folder = Folder::new();
    let tickets = Tickets::new().unwrap();
    let store = load(vec![folder.valid("mx.example.org", "ec")], &tickets);
    let config = plain_client(&[&version::TLS12], None, Resumption::disabled());
    let name = ServerName::try_from("mx.example.org").unwrap();
    let mut client = ClientConnection::new(config, name).unwrap();
    let mut server = Session::server(store.for_local(LOCAL)).unwrap();
    let mut read = Vec::new();
    client.writer().write_all(b"EHLO client\r\n").unwrap();
    while read != b"EHLO client\r\n" {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut to_server).unwrap();
        }
        for octet in &mut to_server {
            let one = std::slice::from_mut(octet);
            server.receive(one, |p| read.extend_from_slice(p), &mut to_client).unwrap();
        }
        client.read_tls(&mut &to_client[..]).unwrap();
        client.process_new_packets().unwrap();
    }
    assert_eq!(server.info().unwrap().version, "TLS1.2");
}

#[test]
fn rsa_only_clients_get_rsa_and_others_ecdsa() {
    let folder = Folder::new();
    let tickets = Tickets::new().unwrap();
    let (ec, rsa) = (folder.valid("mx.example.org", "ec"), folder.valid("mx.example.org", "rsa"));
    let store = load(vec![rsa.clone(), ec.clone()], &tickets);
    let tls = store.for_local(LOCAL);
    let schemes = &[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256][..];
    for versions in [&[&version::TLS12][..], &[&version::TLS13]] {
        for name in ["mx.example.org", "unknown.example"] {
            let any = plain_client(versions, None, Resumption::disabled());
            assert_eq!(served(&connect(&any, name, tls).0), der(&ec));
            let old = plain_client(versions, Some(schemes), Resumption::disabled());
            assert_eq!(served(&connect(&old, name, tls).0), der(&rsa));
        }
    }
}

#[test]
fn the_certificate_follows_the_name_and_the_local_address() {
    let folder = Folder::new();
    let tickets = Tickets::new().unwrap();
    let (one, two) = (folder.valid("one.example", "ec"), folder.valid("*.two.example", "ec"));
    let mut bound = folder.valid("bound.example", "ec");
    bound.addresses = vec![OTHER];
    let store = load(vec![one.clone(), two.clone(), bound.clone()], &tickets);
    let config = plain_client(BOTH, None, Resumption::disabled());
    let cases = [
        ("one.example", LOCAL, &one),
        ("ONE.example", LOCAL, &one),
        ("mx.two.example", LOCAL, &two),
        ("deep.mx.two.example", LOCAL, &one),
        ("127.0.0.1", LOCAL, &one),
        ("bound.example", LOCAL, &one),
        ("bound.example", OTHER, &bound),
        ("nobody.example", OTHER, &bound),
        ("mx.two.example", OTHER, &two),
    ];
    for (name, local, expected) in cases {
        let (client, _, info) = connect(&config, name, store.for_local(local));
        assert_eq!(served(&client), der(expected), "{name} at {local}");
        let sni = name.parse::<IpAddr>().is_err().then(|| name.to_ascii_lowercase());
        assert_eq!(info.sni.as_deref(), sni.as_deref());
    }
}

#[test]
fn tickets_are_good_on_every_core_and_after_a_reload() {
    let folder = Folder::new();
    let tickets = Tickets::new().unwrap();
    let files = vec![folder.valid("mx.example.org", "ec")];
    for versions in [&[&version::TLS12][..], &[&version::TLS13]] {
        // Two cores: each with its own clone of the store it was handed.
        let mut cores = [load(files.clone(), &tickets), load(files.clone(), &tickets)];
        let config = plain_client(versions, None, Resumption::in_memory_sessions(64));
        let (_, _, first) = connect(&config, "mx.example.org", cores[0].for_local(LOCAL));
        assert!(!first.resumed);
        for round in 0..40 {
            if round == 20 {
                let renewed = vec![folder.valid("mx.example.org", "ec")];
                cores = [load(renewed.clone(), &tickets), load(renewed, &tickets)];
            }
            let tls = cores[round % 2].for_local(LOCAL);
            let (client, _, info) = connect(&config, "mx.example.org", tls);
            assert!(info.resumed, "round {round}");
            assert_eq!(client.handshake_kind(), Some(HandshakeKind::Resumed));
        }
        let strangers = load(files.clone(), &Tickets::new().unwrap());
        let (_, _, info) = connect(&config, "mx.example.org", strangers.for_local(LOCAL));
        assert!(!info.resumed, "another process's keys must not open it");
    }
}

#[test]
fn a_reload_leaves_running_sessions_alone() {
    let folder = Folder::new();
    let tickets = Tickets::new().unwrap();
    let store = load(vec![folder.valid("mx.example.org", "ec")], &tickets);
    let config = plain_client(BOTH, None, Resumption::disabled());
    let (mut client, mut server, _) = connect(&config, "mx.example.org", store.for_local(LOCAL));
    drop(store);
    let mut wire = Vec::new();
    server.send(b"250 still here\r\n", &mut wire).unwrap();
    client.read_tls(&mut &wire[..]).unwrap();
    client.process_new_packets().unwrap();
    let mut line = [0; 16];
    client.reader().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"250 still here\r\n");
}

#[test]
fn large_data_crosses_in_any_pieces() {
    let folder = Folder::new();
    let store = load(vec![folder.valid("mx.example.org", "ec")], &Tickets::new().unwrap());
    let config = plain_client(BOTH, None, Resumption::disabled());
    let (mut client, mut server, _) = connect(&config, "mx.example.org", store.for_local(LOCAL));
    let body: Vec<u8> = (0..200_000_u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
    client.set_buffer_limit(None);
    client.writer().write_all(&body).unwrap();
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire).unwrap();
    }
    let mut back = Vec::new();
    for size in [1, 4_096, 16_384, 60_000].iter().cycle() {
        let count = (*size).min(wire.len());
        if count == 0 {
            break;
        }
        let mut piece: Vec<u8> = wire.drain(..count).collect();
        let mut got = Vec::new();
        server.receive(&mut piece, |p| got.extend_from_slice(p), &mut Vec::new()).unwrap();
        let mut echo = Vec::new();
        server.send(&got, &mut echo).unwrap();
        let mut rest = &echo[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
            let mut room = [0; 32_768];
            while let Ok(count @ 1..) = client.reader().read(&mut room) {
                back.extend_from_slice(&room[..count]);
            }
        }
        assert!(server.held_octets() <= limits::RECORD_OCTETS_MAX);
    }
    assert!(back == body);
    assert_eq!(server.held_octets(), 0);
}

#[test]
fn close_is_said_once_and_heard() {
    let folder = Folder::new();
    let store = load(vec![folder.valid("mx.example.org", "ec")], &Tickets::new().unwrap());
    let config = plain_client(BOTH, None, Resumption::disabled());
    let (mut client, mut server, _) = connect(&config, "mx.example.org", store.for_local(LOCAL));
    client.send_close_notify();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    wire.extend_from_slice(b"octets behind the end");
    let progress = server.receive(&mut wire, |_| {}, &mut Vec::new()).unwrap();
    assert!(progress.closed && !progress.established);
    assert_eq!(server.held_octets(), 0);
    let mut out = Vec::new();
    server.close(&mut out);
    assert!(!out.is_empty());
    let length = out.len();
    server.close(&mut out);
    assert_eq!(out.len(), length);
    assert_eq!(server.send(b"x", &mut out), Err(TlsError::NotReady));
    client.read_tls(&mut &out[..]).unwrap();
    assert!(client.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn plaintext_where_tls_belongs_gets_an_alert() {
    let folder = Folder::new();
    let store = load(vec![folder.valid("mx.example.org", "ec")], &Tickets::new().unwrap());
    let mut server = Session::server(store.for_local(LOCAL)).unwrap();
    let mut out = Vec::new();
    let error = server.receive(&mut b"EHLO x\r\n".to_vec(), |_| {}, &mut out).unwrap_err();
    assert_eq!(error.label(), "protocol");
    assert_eq!(&out[..3], &[21, 3, 3], "an alert record");
    assert_eq!(server.receive(&mut [], |_| {}, &mut out), Err(error));
    assert_eq!(server.held_octets(), 0);
}

#[test]
fn an_endless_handshake_message_is_bounded() {
    let folder = Folder::new();
    let store = load(vec![folder.valid("mx.example.org", "ec")], &Tickets::new().unwrap());
    let mut server = Session::server(store.for_local(LOCAL)).unwrap();
    // A ClientHello that says it has 65,535 octets, in records of 16 KiB, for ever.
    let mut record = vec![22, 3, 1, 0x40, 0x00, 1, 0, 0xff, 0xff];
    record.resize(5 + 0x4000, 0);
    let mut error = None;
    for _ in 0..16 {
        match server.receive(&mut record.clone(), |_| {}, &mut Vec::new()) {
            Ok(_) => assert!(server.held_octets() <= HELD_OCTETS_MAX),
            Err(found) => error = Some(found),
        }
        record[5] = 0;
    }
    assert!(error.is_some());
    assert_eq!(server.held_octets(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_octets_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..3_000),
        at in 0_usize..2_000,
        piece in 1_usize..700,
        length in 0_usize..40,
    ) {
        let (tls, hello) = shared_hello();
        let mut server = Session::server(tls).unwrap();
        let mut bytes = hello.clone();
        let at = at % bytes.len();
        for (place, octet) in bytes.iter_mut().skip(at).take(length).zip(&noise) {
            *place = *octet;
        }
        bytes.extend_from_slice(&noise);
        let mut out = Vec::new();
        let mut failed = false;
        for piece in bytes.chunks_mut(piece) {
            failed |= server.receive(piece, |_| {}, &mut out).is_err();
        }
        prop_assert!(server.held_octets() <= HELD_OCTETS_MAX);
        prop_assert!(!failed || server.send(b"x", &mut out).is_err());
    }
}

fn shared_hello() -> &'static (ServerTls, Vec<u8>) {
    static SHARED: std::sync::OnceLock<(ServerTls, Vec<u8>)> = std::sync::OnceLock::new();
    SHARED.get_or_init(|| {
        let folder = Folder::new();
        let store = load(vec![folder.valid("mx.example.org", "ec")], &Tickets::new().unwrap());
        let mut hello = Vec::new();
        let mut client = ClientTls::new(None).unwrap().session("mx.example.org", LOCAL).unwrap();
        client.receive(&mut [], |_| {}, &mut hello).unwrap();
        (store.for_local(LOCAL).clone(), hello)
    })
}

#[test]
fn verification_is_recorded_not_enforced() {
    let folder = Folder::new();
    let files = folder.valid("mx.example.org", "ec");
    let store = load(vec![files.clone()], &Tickets::new().unwrap());
    let client = ClientTls::new(Some(&files.chain)).unwrap();
    let blind = ClientTls::new(None).unwrap();
    let mut session = client.session("mx.example.org.", LOCAL).unwrap();
    let mut server = Session::server(store.for_local(LOCAL)).unwrap();
    let mut wire = Vec::new();
    session.receive(&mut [], |_| {}, &mut wire).unwrap();
    while !wire.is_empty() {
        let mut back = Vec::new();
        server.receive(&mut wire, |_| {}, &mut back).unwrap();
        wire.clear();
        session.receive(&mut back, |_| {}, &mut wire).unwrap();
    }
    assert!(session.info().unwrap().peer_sha256.is_some());
    assert_eq!(server.info().unwrap().sni.as_deref(), Some("mx.example.org"));
    assert_eq!(client.verdict(&session, "mx.example.org", NOW_US), PeerVerdict::Verified);
    let wrong = client.verdict(&session, "other.example", NOW_US);
    assert!(matches!(wrong, PeerVerdict::Untrusted(_)), "{wrong:?}");
    assert_eq!(blind.verdict(&session, "mx.example.org", NOW_US), PeerVerdict::NotChecked);
}

#[test]
fn every_fault_of_a_file_has_its_name() {
    let folder = Folder::new();
    let good = folder.valid("good.example", "ec");
    let with = |change: &dyn Fn(&mut CertificateFiles)| {
        let mut files = good.clone();
        change(&mut files);
        settings(vec![files])
    };
    let fault = only_error(&with(&|f| f.chain = folder.path("missing.pem")));
    assert!(matches!(fault, Fault::Unreadable(_)));
    assert!(matches!(only_error(&with(&|f| f.chain = f.key.clone())), Fault::NoCertificate));
    assert!(matches!(only_error(&with(&|f| f.key = f.chain.clone())), Fault::NoKey));
    let other = folder.valid("other.example", "ec");
    let fault = only_error(&with(&|f| f.key = other.key.clone()));
    assert!(matches!(fault, Fault::KeyMismatch { .. }), "{fault:?}");
    let expired = folder.pair("old.example", "ec", (2010, 2020));
    let mut old = settings(vec![expired]);
    assert!(matches!(only_error(&old), Fault::Expired { .. }));
    old.on_expired = OnExpired::Serve;
    let loaded = TlsStore::load(&old, &Tickets::new().unwrap(), NOW_US).unwrap();
    assert!(matches!(loaded.warnings[..], [Warning { remark: Remark::Expired(_), .. }]));
    let early = settings(vec![folder.pair("early.example", "ec", (2080, 2090))]);
    let loaded = TlsStore::load(&early, &Tickets::new().unwrap(), NOW_US).unwrap();
    assert!(matches!(loaded.warnings[..], [Warning { remark: Remark::NotYetValid(_), .. }]));
    let junk = folder.path("junk.pem");
    fs::write(&junk, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(matches!(only_error(&with(&|f| f.chain = junk.clone())), Fault::Malformed(_)));
    let locked = folder.path("locked.key");
    let block = "ENCRYPTED PRIVATE KEY";
    fs::write(&locked, format!("-----BEGIN {block}-----\nAAAA\n-----END {block}-----\n")).unwrap();
    assert!(matches!(only_error(&with(&|f| f.key = locked.clone())), Fault::EncryptedKey));
    assert!(matches!(only_error(&settings(Vec::new())), Fault::Count(0)));
}

#[test]
fn a_node_makes_its_own_certificate_once() {
    let folder = Folder::new();
    let (chain, key) = (folder.path("own/node.pem"), folder.path("own/node.key"));
    let names = ["node.example".to_owned()];
    assert!(ensure_own_certificate(&chain, &key, &names).unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&key), 0o600);
    let before = fs::read(&chain).unwrap();
    assert!(!ensure_own_certificate(&chain, &key, &names).unwrap());
    assert_eq!(fs::read(&chain).unwrap(), before);
    // A crash between the two files: the key stays.
    let key_before = fs::read(&key).unwrap();
    fs::remove_file(&chain).unwrap();
    assert!(ensure_own_certificate(&chain, &key, &names).unwrap());
    assert_eq!(fs::read(&key).unwrap(), key_before);
    let files = CertificateFiles { chain, key, ..CertificateFiles::default() };
    let loaded = TlsStore::load(&settings(vec![files]), &Tickets::new().unwrap(), 0).unwrap();
    assert_eq!(loaded.warnings, []);
    let config = plain_client(BOTH, None, Resumption::disabled());
    let (_, _, info) = connect(&config, "node.example", loaded.store.for_local(LOCAL));
    assert_eq!((info.version, info.cipher_bits), ("TLS1.3", 256));
}

#[test]
fn a_client_certificate_is_recorded_and_none_is_fine() {
    let folder = Folder::new();
    let files = folder.valid("mx.example.org", "ec");
    let mut asking = settings(vec![files.clone()]);
    asking.ask_client_certificate = true;
    let store = TlsStore::load(&asking, &Tickets::new().unwrap(), NOW_US).unwrap().store;
    for versions in [&[&version::TLS12][..], &[&version::TLS13]] {
        let bare = plain_client(versions, None, Resumption::disabled());
        let (_, _, info) = connect(&bare, "mx.example.org", store.for_local(LOCAL));
        assert_eq!(info.peer_sha256, None);
        let shown = folder.valid("client.example", "ec");
        let chain = certificate::read_chain(&shown.chain).unwrap();
        let key = PrivateKeyDer::from_pem_file(&shown.key).unwrap();
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(versions)
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Narrow { inner: None }))
                .with_client_auth_cert(chain.clone(), key)
                .unwrap();
        config.resumption = Resumption::disabled();
        let (_, server, info) =
            connect(&Arc::new(config), "mx.example.org", store.for_local(LOCAL));
        assert!(info.peer_sha256.is_some());
        assert_eq!(server.peer_chain(), chain);
    }
}
