//! TLS of the listeners: versions, certificates, injection, reload, resumption over all cores.

use std::sync::Arc;

use nix::sys::signal::Signal;
use rustls::version::{TLS12, TLS13};

use super::backend::{Backend, Manners};
use super::client::Client;
use super::programs::{Daemon, Folder, Setup};
use super::secrets::{self, Can, ECDSA, Pair, RSA};

const ALL: &[&rustls::SupportedProtocolVersion] = &[&TLS12, &TLS13];

fn setup(backend: &Backend, certificates: &str) -> Setup {
    Setup {
        listener: "tls = \"starttls\"\n".to_owned(),
        more: certificates.to_owned(),
        ..Setup::new(backend.address)
    }
}

/// A certificate's section; `more` are further keys.
fn section(stem: &str, more: &str) -> String {
    format!(
        "[[tls.certificate]]\ncertificate = \"{{folder}}/{stem}.crt\"\n\
         key = \"{{folder}}/{stem}.key\"\n{more}\n"
    )
}

#[test]
fn both_versions_carry_mail_with_the_certificate_made_at_start() {
    let backend = Backend::start(Manners::default());
    let own = section("own", "names = [\"mx.example.org\"]\nself_signed = true");
    let mut daemon = Daemon::start("tls", setup(&backend, &own));
    for (version, name) in [(&TLS12, "TLS1.2"), (&TLS13, "TLS1.3")] {
        let config = secrets::client(&[version], Can::All);
        let mut client = Client::connect(daemon.address);
        let seen = client.starttls(&config, "mx.example.org");
        assert_eq!(seen.version, version.version);
        let body = "0123456789abcdef\r\n".repeat(20_000);
        let content = format!("Subject: x\r\n\r\n{body}");
        let id = client.deliver("a@example.net", &["b@example.org"], &content);
        daemon.line_with(&[&id, "<=", "P=esmtps", &format!("X={name}:")]);
        client.expect("QUIT", "221");
        assert_eq!(client.line(), None);
    }
    for mail in backend.wait_for(2) {
        assert!(mail.text().ends_with("0123456789abcdef\r\n"));
        let received = mail.text().lines().take(5).collect::<String>();
        assert!(received.contains("ESMTPS"), "{received}");
    }
    // The files are there and stay the same at the next start.
    let made = std::fs::read(daemon.folder.path("own.crt")).expect("it was made");
    daemon.until_empty();
    assert!(daemon.stop().success());
    daemon.start_again();
    let mut client = Client::connect(daemon.address);
    client.starttls(&secrets::client(ALL, Can::All), "mx.example.org");
    assert_eq!(std::fs::read(daemon.folder.path("own.crt")).expect("it is there"), made);
    assert!(daemon.stop().success());
}

#[test]
fn the_key_made_at_start_is_nobody_elses() {
    use std::os::unix::fs::PermissionsExt as _;
    let backend = Backend::start(Manners::default());
    let own = section("own", "self_signed = true");
    let mut daemon = Daemon::start("tls-key", setup(&backend, &own));
    let mode = std::fs::metadata(daemon.folder.path("own.key")).expect("made").permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    assert!(daemon.stop().success());
}

#[test]
fn what_is_pipelined_behind_starttls_is_thrown_away() {
    let backend = Backend::start(Manners::default());
    let own = section("own", "self_signed = true");
    let mut daemon = Daemon::start("tls-inject", setup(&backend, &own));
    let mut client = Client::greeted(daemon.address);
    client.send(b"STARTTLS\r\nEHLO evil.example\r\nMAIL FROM:<evil@example.net>\r\n");
    assert!(client.reply().starts_with("220 2.0.0"));
    client.secure(&secrets::client(ALL, Can::All), "mx.example.org");
    // Had the injected EHLO and MAIL counted, this would be a 250.
    client.expect("RCPT TO:<b@example.org>", "503 5.5.1");
    client.expect("MAIL FROM:<a@example.net>", "503 5.5.1");
    client.expect("EHLO client.example.net", "250");
    client.expect("MAIL FROM:<a@example.net>", "250");
    assert!(daemon.stop().success());
}

#[test]
fn certificates_follow_name_and_ability() {
    let backend = Backend::start(Manners::default());
    let folder = Folder::new("tls-pairs");
    let pairs = [
        ("one-ec", Pair::new("one.example", ECDSA)),
        ("one-rsa", Pair::new("one.example", RSA)),
        ("two-ec", Pair::new("two.example", ECDSA)),
    ];
    for (stem, pair) in &pairs {
        pair.write(&folder.0, stem);
    }
    let der = |stem: &str| {
        pairs.iter().find(|(name, _)| *name == stem).map(|(_, pair)| pair.der()).expect("one")
    };
    let sections = section("one-ec", "names = [\"one.example\"]")
        + &section("one-rsa", "names = [\"one.example\"]")
        + &section("two-ec", "names = [\"two.example\"]");
    let mut daemon = Daemon::start_in(folder, setup(&backend, &sections));
    let shown = |versions: &[&'static rustls::SupportedProtocolVersion], can, name: &str| {
        let mut client = Client::connect(daemon.address);
        client.starttls(&secrets::client(versions, can), name).certificate
    };
    for versions in [&[&TLS12][..], &[&TLS13][..], ALL] {
        assert!(shown(versions, Can::Ecdsa, "one.example") == der("one-ec"));
        assert!(shown(versions, Can::Rsa, "one.example") == der("one-rsa"));
        assert!(shown(versions, Can::All, "one.example") == der("one-ec"), "ECDSA costs less");
        assert!(shown(versions, Can::All, "two.example") == der("two-ec"));
        assert!(shown(versions, Can::All, "TWO.example") == der("two-ec"));
    }
    assert!(daemon.stop().success());
}

#[test]
fn certificates_are_changed_without_a_restart() {
    let backend = Backend::start(Manners::default());
    let folder = Folder::new("tls-reload");
    let (old, new) = (Pair::new("mx.example.org", ECDSA), Pair::new("mx.example.org", ECDSA));
    old.write(&folder.0, "mx");
    let mut daemon = Daemon::start_in(folder, setup(&backend, &section("mx", "")));
    let config = secrets::client(ALL, Can::All);
    let mut before = Client::connect(daemon.address);
    assert!(before.starttls(&config, "mx.example.org").certificate == old.der());
    new.write(&daemon.folder.0, "mx");
    daemon.reload();
    let fresh = secrets::client(ALL, Can::All);
    daemon.until("the new certificate on both cores", |daemon| {
        (0..8).all(|_| {
            let mut client = Client::connect(daemon.address);
            client.starttls(&secrets::client(ALL, Can::All), "mx.example.org").certificate
                == new.der()
        })
    });
    // Who was connected goes on.
    before.deliver("a@example.net", &["b@example.org"], "Subject: x\r\n\r\nx\r\n");
    // A broken file changes nothing.
    std::fs::write(daemon.folder.path("mx.crt"), "no certificate").expect("written");
    let said = daemon.reload();
    assert!(said.contains("refused") && said.contains("mx.crt"), "{said}");
    let mut client = Client::connect(daemon.address);
    assert!(client.starttls(&fresh, "mx.example.org").certificate == new.der());
    backend.wait_for(1);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

/// Forty sessions with one client's tickets, on whichever core the kernel puts them.
fn resume(versions: &[&'static rustls::SupportedProtocolVersion]) {
    let backend = Backend::start(Manners::default());
    let own = section("own", "names = [\"mx.example.org\"]\nself_signed = true");
    let mut daemon = Daemon::start("tls-resume", setup(&backend, &own));
    let config = secrets::client(versions, Can::All);
    let mut cores = std::collections::HashSet::new();
    let mut once = |config: &Arc<rustls::ClientConfig>| {
        let mut client = Client::connect(daemon.address);
        let resumed = client.starttls(config, "mx.example.org").resumed;
        // The id of a session names its run and core in front of its counter.
        let refused = client.expect("DATA", "503");
        cores.insert(super::client::id_of(&refused)[..12].to_owned());
        client.expect("QUIT", "221");
        // Reads what TLS 1.3 sends behind the handshake: the tickets.
        assert_eq!(client.line(), None);
        resumed
    };
    assert!(!once(&config));
    let resumed = (0..40).filter(|_| once(&config)).count();
    assert_eq!(resumed, 40);
    assert_eq!(cores.len(), 2, "all on one core, which says nothing: {cores:?}");
    assert!(daemon.stop().success());
}

#[test]
fn forty_resumptions_over_both_cores_succeed_with_tls_1_3() {
    resume(&[&TLS13]);
}

#[test]
fn forty_resumptions_over_both_cores_succeed_with_tls_1_2() {
    resume(&[&TLS12]);
}

#[test]
fn implicit_tls_greets_inside() {
    let backend = Backend::start(Manners::default());
    let mut setup = setup(&backend, &section("own", "self_signed = true"));
    setup.listener = "tls = \"implicit\"\n".to_owned();
    let mut daemon = Daemon::start("tls-implicit", setup);
    let mut client = Client::connect_silent(daemon.address);
    client.secure(&secrets::client(ALL, Can::All), "mx.example.org");
    assert!(client.reply().starts_with("220 "));
    let offers = client.expect("EHLO client.example.net", "250");
    assert!(!offers.contains("STARTTLS"), "{offers}");
    client.deliver("a@example.net", &["b@example.org"], "Subject: x\r\n\r\nx\r\n");
    backend.wait_for(1);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn required_tls_takes_no_mail_in_the_clear() {
    let backend = Backend::start(Manners::default());
    let mut setup = setup(&backend, &section("own", "self_signed = true"));
    setup.listener.push_str("tls_required = true\n");
    let mut daemon = Daemon::start("tls-required", setup);
    let mut client = Client::connect(daemon.address);
    client.expect("EHLO client.example.net", "250");
    client.expect("MAIL FROM:<a@example.net>", "530 5.7.0");
    client.starttls(&secrets::client(ALL, Can::All), "mx.example.org");
    client.expect("MAIL FROM:<a@example.net>", "250");
    assert!(daemon.stop().success());
}

#[test]
fn a_failed_handshake_ends_that_session_only() {
    let backend = Backend::start(Manners::default());
    let mut daemon =
        Daemon::start("tls-junk", setup(&backend, &section("own", "self_signed = true")));
    let mut client = Client::greeted(daemon.address);
    client.expect("STARTTLS", "220");
    client.send(b"this is no handshake\r\n");
    // An alert or nothing; then the end.
    while client.try_send(b"\r\n") {
        std::thread::yield_now();
    }
    daemon.line_with(&["TLS error"]);
    Client::greeted(daemon.address).expect("NOOP", "250");
    daemon.signal(Signal::SIGHUP);
    assert!(daemon.stop().success());
}

#[test]
fn certificates_follow_the_local_address_when_no_name_is_said() {
    let backend = Backend::start(Manners::default());
    let folder = Folder::new("tls-address");
    let (one, two) = (Pair::new("one.example", ECDSA), Pair::new("two.example", ECDSA));
    one.write(&folder.0, "one");
    two.write(&folder.0, "two");
    let sections = section("one", "names = [\"one.example\"]\nlocal_addresses = [\"127.0.0.1\"]")
        + &section("two", "names = [\"two.example\"]\nlocal_addresses = [\"127.0.0.2\"]");
    let mut setup = setup(&backend, &sections);
    setup.listener.push_str("[[listener]]\naddress = \"127.0.0.2\"\nport = 0\n");
    let mut daemon = Daemon::start_in(folder, setup);
    // rustls says no name when all it has is an address.
    for (address, pair) in [(daemon.addresses[0], &one), (daemon.addresses[1], &two)] {
        let mut client = Client::connect(address);
        let seen = client.starttls(&secrets::client(ALL, Can::All), "192.0.2.1");
        assert!(seen.certificate == pair.der(), "{address}");
    }
    assert!(daemon.stop().success());
}
