//! From us to the backends: octets, connections, faults of all kinds. Nothing accepted is lost.

use std::net::SocketAddr;

use super::backend::{Backend, Mail, Manners};
use super::client::Client;
use super::programs::{Daemon, Setup, source};
use super::secrets::{ECDSA, Pair};

const SMALL: &str = "Subject: small\r\n\r\nbody\r\n";

fn send(daemon: &Daemon, to: &str, content: &str) -> String {
    Client::greeted(daemon.address).deliver("sender@example.net", &[to], content)
}

/// What of a mail stands behind the Received header added by us.
fn behind_received(mail: &Mail) -> &[u8] {
    let mut at = 0;
    let lines = mail.content.split_inclusive(|octet| *octet == b'\n');
    for (n, line) in lines.enumerate() {
        let continued = line.starts_with(b" ") || line.starts_with(b"\t");
        if n > 0 && !continued {
            break;
        }
        at += line.len();
    }
    assert!(mail.content.starts_with(b"Received: from "), "{}", mail.text());
    &mail.content[at..]
}

fn relays_byte_by_byte(offers: &[&'static str]) {
    let backend = Backend::start(Manners { offers: offers.to_vec(), ..Manners::default() });
    let mut daemon = Daemon::start("octets", Setup::new(backend.address));
    let every: Vec<u8> = (1..=255_u8).filter(|octet| *octet != b'\r' && *octet != b'\n').collect();
    let long = "x".repeat(998);
    let contents: Vec<Vec<u8>> = vec![
        b"Subject: x\r\n\r\nx\r\n".to_vec(),
        b"Subject: dots\r\n\r\n.\r\n..\r\n...\r\n.a\r\n..a\r\na.\r\n".to_vec(),
        [b"Subject: octets\r\n\r\n", &every[..], b"\r\n"].concat(),
        format!("Subject: long\r\n\r\n{long}\r\n.{}\r\n", &long[1..]).into_bytes(),
        b"\r\nno header\r\n".to_vec(),
        b"".to_vec(),
        b"Received: from elsewhere\r\n\tby nowhere\r\nSubject: x\r\n\r\n".to_vec(),
        b"Subject: folded\r\n\tand more\r\n and more\r\n\r\n\r\n\r\n".to_vec(),
    ];
    let mut client = Client::greeted(daemon.address);
    for (n, content) in contents.iter().enumerate() {
        client.expect("MAIL FROM:<sender@example.net>", "250");
        client.expect("RCPT TO:<user@example.org>", "250");
        client.expect("DATA", "354");
        let mut stuffed = Vec::new();
        for line in content.split_inclusive(|octet| *octet == b'\n') {
            if line.starts_with(b".") {
                stuffed.push(b'.');
            }
            stuffed.extend(line);
        }
        client.send(&stuffed);
        client.expect(".", "250 2.0.0");
        let mail = &backend.wait_for(n + 1)[n];
        let text = String::from_utf8_lossy(content).into_owned();
        assert!(behind_received(mail) == &content[..], "wanted {text:?}, got {:?}", mail.text());
        assert_eq!(
            (&*mail.from, &mail.to[..]),
            ("sender@example.net", &["user@example.org".into()][..])
        );
        let received = mail.text();
        for word in ["(client.example.net)", "[127.0.0.1]", "by mx.example.org", "ESMTP", "id "] {
            let word = word.trim_matches(['(', ')']);
            assert!(received.contains(word), "{word}: {received}");
        }
    }
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn content_arrives_octet_by_octet_over_data() {
    relays_byte_by_byte(&[]);
}

#[test]
fn content_arrives_octet_by_octet_over_bdat_and_pipelining() {
    relays_byte_by_byte(&["PIPELINING", "CHUNKING", "8BITMIME", "SIZE"]);
}

#[test]
fn large_messages_go_through_the_log() {
    for offers in [vec![], vec!["CHUNKING", "PIPELINING"]] {
        let backend = Backend::start(Manners { offers, ..Manners::default() });
        let mut daemon = Daemon::start("large", Setup::new(backend.address));
        for size in [60_000, 66_000, 130_000, 300_000, 3 << 20] {
            let line = "ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz 0123456789\r\n.\r\n";
            let body: String = line.repeat(size / line.len());
            let stuffed = body.replace("\r\n.\r\n", "\r\n..\r\n");
            let before = backend.count();
            let head = format!("Subject: {size}\r\n\r\n");
            send(&daemon, "user@example.org", &format!("{head}{stuffed}"));
            let mail = &backend.wait_for(before + 1)[before];
            assert!(behind_received(mail) == format!("{head}{body}").as_bytes(), "{size} octets");
        }
        daemon.until_empty();
        assert!(daemon.stop().success());
    }
}

/// What waits in our buffers goes on when there is room again.
#[test]
fn a_next_hop_that_reads_nothing_for_a_while_gets_all() {
    let backend = Backend::start(Manners { deaf_ms: 300, ..Manners::default() });
    let mut daemon = Daemon::start("deaf", Setup::new(backend.address));
    for n in 0..4 {
        let body = "0123456789 0123456789 0123456789 0123456789\r\n".repeat(12 << 20 >> 6);
        let content = format!("Subject: {n}\r\n\r\n{body}");
        send(&daemon, "user@example.org", &content);
        let mail = &backend.wait_for(n + 1)[n];
        assert!(behind_received(mail) == content.as_bytes(), "message {n}");
    }
    assert_eq!(daemon.log().matches(" == ").count(), 0, "no attempt failed: {}", daemon.log());
    daemon.until_empty();
    assert!(daemon.stop().success());
}

fn route_of(hosts: &[(SocketAddr, u32, u32)]) -> String {
    let hosts: Vec<String> = hosts
        .iter()
        .map(|(address, priority, weight)| {
            let (ip, port) = (address.ip(), address.port());
            format!(
                "{{ host = \"{ip}\", port = {port}, priority = {priority}, weight = {weight} }}"
            )
        })
        .collect();
    format!("[[route]]\nname = \"several\"\ndomains = [\"*\"]\nhosts = [{}]\n", hosts.join(", "))
}

#[test]
fn the_next_host_takes_over() {
    let second = Backend::start(Manners::default());
    let routes = route_of(&[(Backend::nowhere(), 0, 1), (second.address, 10, 1)]);
    let mut daemon =
        Daemon::start("failover", Setup { routes: Some(routes), ..Setup::new(second.address) });
    let id = send(&daemon, "user@example.org", SMALL);
    second.wait_for(1);
    let line = daemon.line_with(&[&id, "=>"]);
    assert!(line.contains(&format!("]:{}", second.address.port())), "{line}");
    assert!(!daemon.log().contains(" == "), "it was deferred: {}", daemon.log());
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn the_next_host_takes_over_after_a_bad_greeting_and_a_break() {
    let second = Backend::start(Manners::default());
    for manners in [
        Manners { replies: vec![("CONNECT", "421 busy", 0)], ..Manners::default() },
        Manners { replies: vec![("CONNECT", "554 never", 0)], ..Manners::default() },
        Manners { close_at: Some(("CONNECT", u32::MAX)), ..Manners::default() },
        Manners { close_at: Some(("EHLO", u32::MAX)), ..Manners::default() },
        Manners { close_at: Some(("MAIL", u32::MAX)), ..Manners::default() },
    ] {
        let before = second.count();
        let first = Backend::start(manners.clone());
        let routes = route_of(&[(first.address, 0, 1), (second.address, 10, 1)]);
        let mut daemon =
            Daemon::start("bad-first", Setup { routes: Some(routes), ..Setup::new(first.address) });
        send(&daemon, "user@example.org", SMALL);
        second.wait_for(before + 1);
        assert_eq!(first.count(), 0);
        daemon.until_empty();
        assert_eq!(second.count(), before + 1, "{manners:?}");
        assert!(daemon.stop().success());
    }
}

#[test]
fn weights_share_the_mail() {
    let (one, two) = (Backend::start(Manners::default()), Backend::start(Manners::default()));
    let routes = route_of(&[(one.address, 0, 1), (two.address, 0, 9)]);
    let mut daemon =
        Daemon::start("weights", Setup { routes: Some(routes), ..Setup::new(one.address) });
    let mut client = Client::greeted(daemon.address);
    for _ in 0..100 {
        client.deliver("a@example.net", &["b@example.org"], SMALL);
    }
    daemon.until_empty();
    assert_eq!(one.count() + two.count(), 100);
    assert!(one.count() > 0 && two.count() > one.count(), "{} {}", one.count(), two.count());
    assert!(daemon.stop().success());
}

#[test]
fn connections_are_used_again() {
    let backend = Backend::start(Manners::default());
    let mut setup = Setup::new(backend.address);
    setup.cores = 1;
    let mut daemon = Daemon::start("reuse", setup);
    let mut client = Client::greeted(daemon.address);
    for n in 1..=20 {
        client.deliver("a@example.net", &["b@example.org"], SMALL);
        // One after the other: each finds the connection of the last one idle.
        backend.wait_for(n);
        daemon.until_empty();
    }
    // The probe's, and the one that all mails came over.
    assert!(backend.connections() <= 2, "{} connections", backend.connections());
    assert!(daemon.stop().success());
}

#[test]
fn connections_to_a_host_stay_within_their_number() {
    for (cores, most) in [(1, 20), (2, 20), (2, 7)] {
        let backend = Backend::start(Manners { dot_ms: 2, ..Manners::default() });
        let mut setup = Setup::new(backend.address);
        setup.cores = cores;
        setup.route = format!("connections_max = {most}\n");
        let mut daemon = Daemon::start("window", setup);
        let summary = source(daemon.address, &["--total", "3000", "--sessions", "64"]);
        assert_eq!(summary["acked"].as_u64(), Some(3000), "{summary}");
        backend.wait_for(3000);
        daemon.until_empty();
        assert!(backend.most_connections() <= most, "{} at once", backend.most_connections());
        assert!(backend.most_connections() > 1, "never more than one at once");
        assert_eq!(backend.count(), 3000);
        assert!(daemon.stop().success());
    }
}

#[test]
fn after_an_outage_the_connections_stay_within_their_number() {
    let address = Backend::nowhere();
    let mut setup = Setup::new(address);
    setup.retry = "first_s = 0.2\nfactor = 1.0\nmax_s = 0.2\nexpire_s = 3600\n".to_owned();
    let mut daemon = Daemon::start("outage", setup);
    let total: u32 = if std::env::var_os("RINGPOST_LONG").is_some() { 50_000 } else { 5000 };
    let number = total.to_string();
    let words = ["--total", &number, "--sessions", "32", "--size", "1k"];
    let summary = source(daemon.address, &words);
    assert_eq!(summary["acked"].as_u64(), Some(total.into()), "{summary}");
    assert_eq!(daemon.ledger().queued, u64::from(total));
    daemon.line_with(&[" == ", "R=backend"]);
    let backend = Backend::start_at(address, Manners { dot_ms: 1, ..Manners::default() });
    let total = usize::try_from(total).expect("few");
    backend.wait_for(total);
    daemon.until_empty();
    assert!(backend.most_connections() <= 20, "{} at once", backend.most_connections());
    assert_eq!(backend.count(), total);
    assert!(daemon.stop().success());
}

#[test]
fn mail_waits_for_a_backend_that_is_down() {
    let address = Backend::nowhere();
    let mut daemon = Daemon::start("down", Setup::new(address));
    let id = send(&daemon, "user@example.org", SMALL);
    let line = daemon.line_with(&[&id, "=="]);
    assert!(line.contains("connection refused"), "{line}");
    assert_eq!(daemon.ledger().queued, 1);
    let backend = Backend::start_at(address, Manners::default());
    let mail = &backend.wait_for(1)[0];
    assert_eq!(behind_received(mail), SMALL.as_bytes());
    daemon.line_with(&[&id, "=>"]);
    daemon.line_with(&[&id, "Completed"]);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

/// One message comes through a backend with these manners, exactly once.
fn survives(name: &str, manners: &Manners) {
    let backend = Backend::start(manners.clone());
    let mut daemon = Daemon::start("fault", Setup::new(backend.address));
    let id = send(&daemon, "user@example.org", SMALL);
    let mail = &backend.wait_for(1)[0];
    assert_eq!(behind_received(mail), SMALL.as_bytes(), "{name}");
    daemon.line_with(&[&id, "=>"]);
    daemon.until_empty();
    assert_eq!(backend.count(), 1, "{name}: a second copy");
    let ledger = daemon.ledger();
    assert_eq!((ledger.delivered, ledger.bounced, ledger.generated), (1, 0, 0), "{name}");
    assert!(daemon.stop().success());
}

#[test]
fn four_hundreds_at_each_stage_are_waited_out() {
    for stage in ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "DOT"] {
        let replies = vec![(stage, "451 4.3.0 not now", 2)];
        survives(stage, &Manners { replies, ..Manners::default() });
    }
}

#[test]
fn four_hundreds_at_each_stage_are_waited_out_with_pipelining() {
    for stage in ["MAIL", "RCPT", "DATA", "DOT"] {
        let replies = vec![(stage, "421 4.3.0 going down", 1)];
        let offers = vec!["PIPELINING", "CHUNKING"];
        survives(stage, &Manners { replies, offers, ..Manners::default() });
    }
}

#[test]
fn breaks_in_mid_dialogue_are_waited_out() {
    for stage in ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "DOT"] {
        survives(stage, &Manners { close_at: Some((stage, 2)), ..Manners::default() });
    }
}

#[test]
fn a_reply_lost_behind_the_dot_costs_at_most_a_second_copy() {
    for keep_lost in [false, true] {
        let backend = Backend::start(Manners { lose_dot: 1, keep_lost, ..Manners::default() });
        let mut daemon = Daemon::start("lost-dot", Setup::new(backend.address));
        let id = send(&daemon, "user@example.org", SMALL);
        let line = daemon.line_with(&[&id, "=="]);
        assert!(line.contains("after the final dot"), "{line}");
        daemon.line_with(&[&id, "=>"]);
        daemon.until_empty();
        assert_eq!(backend.count(), 1 + usize::from(keep_lost));
        assert!(daemon.stop().success());
    }
}

#[test]
fn greylisting_is_waited_out_recipient_by_recipient() {
    let replies = vec![("RCPT TO:<GREY", "450 4.2.0 greylisted", 2)];
    let backend = Backend::start(Manners { replies, ..Manners::default() });
    let mut daemon = Daemon::start("grey", Setup::new(backend.address));
    let mut client = Client::greeted(daemon.address);
    let to = ["clear@example.org", "grey@example.org", "other@example.org"];
    let id = client.deliver("sender@example.net", &to, SMALL);
    let mails = backend.wait_for(2);
    assert_eq!(mails[0].to, ["clear@example.org", "other@example.org"]);
    assert_eq!(mails[1].to, ["grey@example.org"]);
    daemon.line_with(&[&id, "== grey@example.org", "450 4.2.0 greylisted"]);
    daemon.line_with(&[&id, "=> grey@example.org"]);
    daemon.until_empty();
    assert_eq!(daemon.ledger().delivered, 3);
    assert!(daemon.stop().success());
}

#[test]
fn extensions_that_are_a_lie_cost_no_mail() {
    let all = vec!["PIPELINING", "CHUNKING", "8BITMIME", "SIZE", "DSN"];
    for replies in [
        vec![("BDAT", "502 5.5.1 what", 0)],
        vec![("BDAT", "500 5.5.1 what", 0)],
        vec![("MAIL FROM:<SENDER@EXAMPLE.NET> ", "555 5.5.4 no parameters", 0)],
    ] {
        let lie = replies[0].0;
        let backend =
            Backend::start(Manners { offers: all.clone(), replies, ..Manners::default() });
        let mut daemon = Daemon::start("lies", Setup::new(backend.address));
        send(&daemon, "user@example.org", SMALL);
        // Delivered another way, or kept: never lost, never bounced without a word.
        daemon.until("an outcome", |daemon| {
            daemon.log().contains("=>")
                || daemon.log().contains("==")
                || daemon.log().contains("**")
        });
        let ledger = daemon.ledger();
        let settled = ledger.delivered + ledger.queued + ledger.bounced;
        assert!(settled >= 1 && ledger.bounced <= ledger.generated, "{lie}: {ledger:?}");
        println!("{lie}: {}", daemon.log().lines().last().unwrap_or_default());
        assert!(daemon.stop().success());
    }
}

fn tls_backend(offers: Vec<&'static str>, injected: &'static str) -> Backend {
    let tls = Some(Pair::new("backend.test", ECDSA).server());
    Backend::start(Manners { offers, tls, injected, ..Manners::default() })
}

#[test]
fn tls_is_used_where_it_is_offered() {
    let backend = tls_backend(vec!["STARTTLS", "PIPELINING", "CHUNKING"], "");
    let mut daemon = Daemon::start("tls-out", Setup::new(backend.address));
    let id = send(&daemon, "user@example.org", SMALL);
    let mail = &backend.wait_for(1)[0];
    assert!(mail.over_tls);
    assert_eq!(behind_received(mail), SMALL.as_bytes());
    daemon.line_with(&[&id, "=>", "X=TLS1.3:"]);
    let body = "0123456789abcdef\r\n".repeat(60_000);
    send(&daemon, "user@example.org", &format!("Subject: x\r\n\r\n{body}"));
    let mail = &backend.wait_for(2)[1];
    assert!(mail.over_tls && behind_received(mail).ends_with(body.as_bytes()));
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn what_stands_behind_the_backends_220_is_thrown_away() {
    let lie = "250-backend.test\r\n250-PIPELINING\r\n250 SIZE 10\r\n250 2.1.0 ok\r\n";
    let backend = tls_backend(vec!["STARTTLS"], lie);
    let mut daemon = Daemon::start("tls-injected", Setup::new(backend.address));
    send(&daemon, "user@example.org", SMALL);
    let mail = &backend.wait_for(1)[0];
    assert!(mail.over_tls);
    daemon.until_empty();
    assert_eq!(backend.count(), 1);
    assert!(daemon.stop().success());
}

#[test]
fn tls_may_or_must_or_never() {
    let offering = tls_backend(vec!["STARTTLS"], "");
    let mut setup = Setup::new(offering.address);
    setup.route = "tls = \"never\"\n".to_owned();
    let mut daemon = Daemon::start("tls-never", setup);
    send(&daemon, "user@example.org", SMALL);
    assert!(!offering.wait_for(1)[0].over_tls);
    daemon.until_empty();
    assert!(daemon.stop().success());
    // `must` waits until it is offered.
    let plain = Backend::start(Manners::default());
    let mut setup = Setup::new(plain.address);
    setup.route = "tls = \"must\"\n".to_owned();
    let mut daemon = Daemon::start("tls-must", setup);
    let id = send(&daemon, "user@example.org", SMALL);
    daemon.line_with(&[&id, "==", "TLS"]);
    assert_eq!(plain.count(), 0);
    let tls = Some(Pair::new("backend.test", ECDSA).server());
    plain.set(Manners { offers: vec!["STARTTLS"], tls, ..Manners::default() });
    assert!(plain.wait_for(1)[0].over_tls);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn a_backend_whose_tls_is_broken_gets_its_mail_in_the_clear_when_it_may() {
    // 454 to STARTTLS.
    let replies = vec![("STARTTLS", "454 4.7.0 not now", 0)];
    let offers = vec!["STARTTLS"];
    let backend = Backend::start(Manners { offers: offers.clone(), replies, ..Manners::default() });
    let mut daemon = Daemon::start("tls-454", Setup::new(backend.address));
    send(&daemon, "user@example.org", SMALL);
    assert!(!backend.wait_for(1)[0].over_tls);
    daemon.until_empty();
    assert!(daemon.stop().success());
    // 220, and then no handshake.
    let replies = vec![("STARTTLS", "220 go", 0)];
    let backend = Backend::start(Manners { offers, replies, ..Manners::default() });
    let mut daemon = Daemon::start("tls-broken", Setup::new(backend.address));
    send(&daemon, "user@example.org", SMALL);
    assert!(!backend.wait_for(1)[0].over_tls);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn ipv6_stands_wherever_an_address_does() {
    let address: SocketAddr = "[::1]:0".parse().expect("an address");
    let Ok(_) = std::net::TcpListener::bind(address) else {
        eprintln!("no IPv6 loopback here: not shown");
        return;
    };
    let backend = Backend::start_at(address, Manners::default());
    let routes = format!(
        "[[route]]\ndomains = [\"*\"]\nhosts = [{{ host = \"::1\", port = {} }}]\n",
        backend.address.port()
    );
    let mut setup = Setup { routes: Some(routes), ..Setup::new(backend.address) };
    setup.listener.push_str("[[listener]]\naddress = \"::1\"\nport = 0\ntls = \"none\"\n");
    let mut daemon = Daemon::start("ipv6", setup);
    assert!(daemon.addresses[1].is_ipv6(), "{:?}", daemon.addresses);
    let mut client = Client::greeted(daemon.addresses[1]);
    let id = client.deliver("a@[IPv6:::1]", &["b@example.org"], SMALL);
    let mail = &backend.wait_for(1)[0];
    assert!(mail.text().contains("[IPv6:::1]"), "{}", mail.text());
    daemon.line_with(&[&id, "<= a@[IPv6:::1] H=", "[::1]:"]);
    daemon.line_with(&[&id, "=>", "H=::1 [::1]:"]);
    daemon.until_empty();
    assert!(daemon.stop().success());
}
