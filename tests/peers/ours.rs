//! Ringpost between real neighbours: they send to it, it sends to them.

use super::{Peer, Software, Tool, run_tool, try_tool};
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::programs::{Daemon, Setup};

const MAILS: usize = 20;

const CERTIFICATE: &str = "[[tls.certificate]]\ncertificate = \"{folder}/own.crt\"\n\
                           key = \"{folder}/own.key\"\nself_signed = true\n";

fn setup(backend: std::net::SocketAddr, with_tls: bool) -> Setup {
    let mut setup = Setup::new(backend);
    if with_tls {
        setup.listener = "tls = \"starttls\"\n".to_owned();
        setup.more = CERTIFICATE.to_owned();
    }
    setup.route = format!("tls = \"{}\"\n", if with_tls { "must" } else { "never" });
    setup
}

/// Twenty mails with numbers in them; how Postfix's client makes them.
fn give(address: std::net::SocketAddr, to: &str, count: usize) {
    let (count, address) = (count.to_string(), address.to_string());
    run_tool(
        Tool::SmtpSource,
        &["-m", &count, "-s", "4", "-l", "3000", "-f", "a@here.test", "-t", to, &address],
    );
}

/// A neighbour gives its mail to us; we relay it to a backend.
fn sends_to_us(software: Software, with_tls: bool) {
    let backend = Backend::start(Manners { offers: vec!["8BITMIME"], ..Manners::default() });
    let mut setup = setup(backend.address, with_tls);
    setup.route = String::new();
    let mut daemon = Daemon::start("from-peer", setup);
    let peer = Peer::start(software, "here.test", Some(daemon.address), &[]);
    give(peer.address(), "b@example.org", MAILS);
    let mails = backend.wait_for(MAILS);
    daemon.until_empty();
    assert_eq!(backend.count(), MAILS, "{software:?}");
    for mail in &mails {
        assert_eq!((&*mail.from, &*mail.to[0]), ("a@here.test", "b@example.org"));
        let hops = mail.text().lines().filter(|line| line.starts_with("Received: ")).count();
        assert_eq!(hops, 2, "{}", mail.text());
    }
    let protocol = if with_tls { " P=esmtps " } else { " P=esmtp " };
    daemon.until("their lines", |daemon| daemon.log().matches(" Completed").count() == MAILS);
    assert_eq!(daemon.log().matches(" <= ").count(), MAILS);
    assert_eq!(daemon.log().matches(protocol).count(), MAILS, "{}", daemon.log());
    let ledger = daemon.ledger();
    assert_eq!((ledger.accepted, ledger.delivered), (20, 20));
    assert_eq!(peer.mails().len(), 0);
    assert!(daemon.stop().success());
}

/// We relay to a neighbour.
fn receives_from_us(software: Software, with_tls: bool) {
    let mut peer = Peer::start(software, "example.org", None, &[]);
    let mut daemon = Daemon::start("to-peer", setup(peer.address(), with_tls));
    give(daemon.address, "b@example.org", MAILS);
    let mails = peer.wait_for_mails(MAILS);
    daemon.until_empty();
    assert_eq!(peer.mails().len(), MAILS);
    for mail in &mails {
        let text = String::from_utf8_lossy(mail).into_owned();
        assert!(text.contains("by mx.example.org"), "{text}");
    }
    daemon.until("their lines", |daemon| daemon.log().matches(" Completed").count() == MAILS);
    let log = daemon.log();
    let deliveries: Vec<&str> = log.lines().filter(|l| l.contains(" => ")).collect();
    assert_eq!(deliveries.len(), MAILS);
    for line in deliveries {
        assert_eq!(line.contains(" X=TLS1."), with_tls, "{line}");
    }
    let ledger = daemon.ledger();
    assert_eq!((ledger.accepted, ledger.delivered, ledger.bounced), (20, 20, 0));
    assert!(daemon.stop().success());
}

#[test]
fn postfix_gives_its_mail_to_us() {
    sends_to_us(Software::Postfix, false);
    sends_to_us(Software::Postfix, true);
}

#[test]
fn exim_gives_its_mail_to_us() {
    sends_to_us(Software::Exim, false);
    sends_to_us(Software::Exim, true);
}

#[test]
fn postfix_takes_our_mail() {
    receives_from_us(Software::Postfix, false);
    receives_from_us(Software::Postfix, true);
}

#[test]
fn exim_takes_our_mail() {
    receives_from_us(Software::Exim, false);
    receives_from_us(Software::Exim, true);
}

#[test]
fn smtp_source_through_us_to_smtp_sink() {
    let mut sink = Peer::start(Software::Sink, "example.org", None, &[]);
    let mut daemon = Daemon::start("sink", Setup::new(sink.address()));
    give(daemon.address, "b@example.org", 1000);
    assert_eq!(sink.wait_for_mails(1000).len(), 1000);
    daemon.until_empty();
    let ledger = daemon.ledger();
    assert_eq!((ledger.accepted, ledger.delivered, sink.mails().len()), (1000, 1000, 1000));
    assert!(daemon.stop().success());
}

#[test]
fn a_neighbours_refusal_comes_back_as_a_report() {
    let peer = Peer::start(Software::Exim, "elsewhere.test", None, &[]);
    let reports = Backend::start(Manners::default());
    let route = |domain: &str, address: std::net::SocketAddr| {
        format!(
            "[[route]]\ndomains = [\"{domain}\"]\n\
             hosts = [{{ host = \"127.0.0.1\", port = {} }}]\n",
            address.port()
        )
    };
    let mut setup = Setup::new(peer.address());
    setup.routes = Some(route("example.org", peer.address()) + &route("*", reports.address));
    let mut daemon = Daemon::start("refusing-peer", setup);
    give(daemon.address, "b@example.org", 1);
    let mail = &reports.wait_for(1)[0];
    assert_eq!((&*mail.from, &*mail.to[0]), ("", "a@here.test"));
    assert!(mail.text().contains("relay not permitted"), "{}", mail.text());
    daemon.until_empty();
    assert_eq!(daemon.ledger().bounced, 1);
    assert!(daemon.stop().success());
}

#[test]
fn swaks_has_nothing_to_complain_of() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("swaks", setup(backend.address, true));
    daemon.set(|setup| setup.route = String::new());
    daemon.reload();
    let port = daemon.address.port().to_string();
    let base = ["--server", "127.0.0.1", "--port", &port, "--from", "a@here.test"];
    let to = [&base[..], &["--to", "b@example.org"]].concat();
    run_tool(Tool::Swaks, &to);
    run_tool(Tool::Swaks, &[&to[..], &["--tls"]].concat());
    run_tool(Tool::Swaks, &[&to[..], &["--pipeline"]].concat());
    run_tool(Tool::Swaks, &[&to[..], &["--tls", "--pipeline", "--ehlo", "[127.0.0.1]"]].concat());
    run_tool(Tool::Swaks, &[&to[..], &["--protocol", "SMTP"]].concat());
    backend.wait_for(5);
    let refused = try_tool(Tool::Swaks, &[&base[..], &["--to", "b@other.example"]].concat());
    let dialogue = refused.expect_err("an open relay");
    assert!(dialogue.contains("<** 550 5.7.1 "), "{dialogue}");
    daemon.until_empty();
    assert_eq!(daemon.ledger().delivered, 5);
    assert!(daemon.stop().success());
}

#[test]
fn the_finger_sees_our_tls() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("finger", setup(backend.address, true));
    let host = format!("[127.0.0.1]:{}", daemon.address.port());
    let seen = run_tool(Tool::PosttlsFinger, &["-c", "-lmay", &host]);
    assert!(seen.contains("TLS connection established"), "{seen}");
    assert!(daemon.stop().success());
}
