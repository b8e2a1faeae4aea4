//! Next hops by MX: a small DNS server of the test's answers, hosts listen on port 25 of
//! addresses of their own in 127.0.0.0/8.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

use super::backend::{Backend, Manners};
use super::client::Client;
use super::dns::{Data, Dns};
use super::programs::{Daemon, Setup};

const SMALL: &str = "Subject: x\r\n\r\nx\r\n";

/// An address of 127.0.0.0/8 that only this process uses.
fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = u16::try_from(std::process::id() % 60_000).expect("below").to_be_bytes();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::new(127, process[0] | 1, process[1], next).into()
}

fn host(manners: Manners) -> (Backend, Data) {
    let ip = own_address();
    (Backend::start_at(SocketAddr::new(ip, 25), manners), Data::Address(ip))
}

fn setup(dns: &Dns) -> Setup {
    let mut setup = Setup::new(Backend::nowhere());
    setup.policy.push_str("relay_networks = [\"127.0.0.0/8\"]\n");
    setup.routes = Some("[[route]]\nname = \"mx\"\ndomains = [\"*\"]\nmx = true\n".to_owned());
    setup.more = dns.section();
    setup
}

#[test]
fn hosts_are_tried_in_order_of_preference() {
    let (first, first_at) = host(Manners::default());
    let (second, second_at) = host(Manners::default());
    let dns = Dns::start(&[
        ("example.org", Data::Mx(20, "b.test")),
        ("example.org", Data::Mx(10, "a.test")),
        ("a.test", first_at),
        ("b.test", second_at),
    ]);
    let mut daemon = Daemon::start("mx", setup(&dns));
    let mut client = Client::greeted(daemon.address);
    for _ in 0..10 {
        client.deliver("a@example.net", &["b@example.org"], SMALL);
    }
    first.wait_for(10);
    assert_eq!(second.count(), 0);
    daemon.line_with(&["=>", "R=mx", "H=a.test ["]);
    assert!(dns.count("example.org", 15) >= 1);
    // The better host refuses to talk: the other one gets the mail at once.
    first.set(Manners { replies: vec![("CONNECT", "421 not now", 0)], ..Manners::default() });
    let mut fresh = Daemon::start("mx-second", setup(&dns));
    let mut client = Client::greeted(fresh.address);
    client.deliver("a@example.net", &["b@example.org"], SMALL);
    second.wait_for(1);
    fresh.line_with(&["=>", "H=b.test ["]);
    for daemon in [&mut daemon, &mut fresh] {
        daemon.until_empty();
        assert!(daemon.stop().success());
    }
}

#[test]
fn equal_preferences_share_the_mail() {
    let (one, one_at) = host(Manners::default());
    let (two, two_at) = host(Manners::default());
    let dns = Dns::start(&[
        ("example.org", Data::Mx(10, "a.test")),
        ("example.org", Data::Mx(10, "b.test")),
        ("a.test", one_at),
        ("b.test", two_at),
    ]);
    let mut daemon = Daemon::start("mx-equal", setup(&dns));
    let mut client = Client::greeted(daemon.address);
    for _ in 0..60 {
        client.deliver("a@example.net", &["b@example.org"], SMALL);
    }
    daemon.until_empty();
    assert_eq!(one.count() + two.count(), 60);
    // Both for 60 fair throws: else with a chance of 2^-59.
    assert!(one.count() > 0 && two.count() > 0, "{} {}", one.count(), two.count());
    assert!(daemon.stop().success());
}

#[test]
fn a_domain_without_mx_is_its_own_host() {
    let (backend, at) = host(Manners::default());
    let dns = Dns::start(&[("example.org", at)]);
    let mut daemon = Daemon::start("mx-none", setup(&dns));
    let mut client = Client::greeted(daemon.address);
    client.deliver("a@example.net", &["b@example.org"], SMALL);
    assert_eq!(backend.wait_for(1)[0].to, ["b@example.org"]);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn what_cannot_be_delivered_is_refused_at_rcpt() {
    let dns = Dns::start(&[
        ("null.example", Data::Mx(0, "")),
        ("loop.example", Data::Mx(10, "mx.example.org")),
        // Known by its name alone: the address is nobody's here.
        ("mx.example.org", Data::Address(Ipv4Addr::new(192, 0, 2, 1).into())),
        ("nohost.example", Data::Mx(10, "gone.test")),
        ("trouble.example", Data::Trouble),
    ]);
    let mut daemon = Daemon::start("mx-refused", setup(&dns));
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<a@example.net>", "250");
    for (to, start) in [
        ("b@null.example", "556 5.1.10 "),
        ("b@loop.example", "554 5.4.6 "),
        ("b@nohost.example", "550 5.4.4 "),
        ("b@missing.example", "550 5.4.4 "),
        // Local trouble is 4xx.
        ("b@trouble.example", "451 4.4.3 "),
    ] {
        let reply = client.expect(&format!("RCPT TO:<{to}>"), start);
        daemon.line_with(&[super::client::id_of(&reply), to, "rejected RCPT"]);
    }
    // Nor is a hop taken that stands behind ourselves in the order of preference.
    let (better, at) = host(Manners::default());
    dns.add("behind.example", Data::Mx(20, "worse.test"));
    dns.add("behind.example", Data::Mx(10, "mx.example.org"));
    dns.add("worse.test", at.clone());
    client.expect("RCPT TO:<b@behind.example>", "554 5.4.6 ");
    dns.add("before.example", Data::Mx(10, "mx.example.org"));
    dns.add("before.example", Data::Mx(5, "worse.test"));
    client.expect("RCPT TO:<b@before.example>", "250");
    client.expect("DATA", "354");
    client.expect("Subject: x\r\n\r\n.", "250");
    better.wait_for(1);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn mail_waits_while_the_dns_has_trouble() {
    let (backend, at) = host(Manners::default());
    let dns = Dns::start(&[("example.org", at.clone())]);
    let mut daemon = Daemon::start("mx-trouble", setup(&dns));
    let mut client = Client::greeted(daemon.address);
    backend.set(Manners { replies: vec![("MAIL", "451 4.3.0 later", 2)], ..Manners::default() });
    let id = client.deliver("a@example.net", &["b@example.org"], SMALL);
    daemon.line_with(&[&id, "=="]);
    dns.forget("example.org");
    dns.add("example.org", Data::Trouble);
    // A new run asks anew.
    daemon.kill();
    daemon.start_again();
    daemon.until("a question", |_| dns.count("example.org", 15) >= 2);
    assert_eq!(backend.count(), 0);
    dns.forget("example.org");
    dns.add("example.org", at);
    backend.wait_for(1);
    daemon.line_with(&[&id, "=>"]);
    daemon.until_empty();
    assert_eq!(daemon.ledger().bounced, 0);
    assert!(daemon.stop().success());
}
