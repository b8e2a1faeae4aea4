//! DNS lists end to end, from a name server that lies, is silent, or changes its mind.

use super::dns::{Data, Dns, Lie};
use super::ladder::{arrive, has, rcpt, said, setup};
use super::programs::Daemon;

const ZONE: &str = "[[dnsbl]]\nzone = \"bl.example.net\"\ncodes = [\"127.0.0.2-9=answer\"]\n";

/// A server of the zone, whose test points are right.
fn server() -> Dns {
    let dns = Dns::start(&[]);
    dns.add("2.0.0.127.bl.example.net", code("127.0.0.2"));
    dns
}

fn code(text: &str) -> Data {
    Data::Address(text.parse().expect("an address"))
}

fn name(last: u8) -> String {
    format!("{last}.2.0.192.bl.example.net")
}

fn start(folder: &str, dns: &Dns, xdp: &str) -> Daemon {
    let resolver = format!("{}timeout_s = 1\nattempts = 1\n", dns.section());
    let more = format!("{resolver}[xdp]\nmode = \"answer\"\n{xdp}{ZONE}");
    let mut daemon = Daemon::start(folder, setup(&more));
    daemon.until("proof", |daemon| has(&said(daemon, &["status"]), "bl.example.net", "counts;"));
    daemon
}

#[test]
fn a_server_that_lies_lists_nobody_and_hides_nobody() {
    let dns = server();
    let cases = [
        (1, Lie::Id, false, false),
        (2, Lie::Id, true, true),
        (3, Lie::Question, false, false),
        (4, Lie::Question, true, true),
        // Asked again over TCP, once.
        (5, Lie::Truncated, false, false),
        (6, Lie::Truncated, true, true),
        // Nobody is listed by what nobody said.
        (7, Lie::Closed, true, false),
        (8, Lie::Silence, true, false),
    ];
    for (last, lie, listed, _) in cases {
        dns.add(&name(last), Data::Lies(lie));
        if listed {
            dns.add(&name(last), code("127.0.0.3"));
        }
    }
    let mut daemon = start("dnsbl-lies", &dns, "repeats = 1\n");
    for (last, lie, listed, refused) in cases {
        let reply = rcpt(&daemon, &format!("192.0.2.{last}"), "ann@example.org");
        let expected = if refused { "554 5.7.1 " } else { "250 " };
        assert!(reply.starts_with(expected), "{lie:?}, listed: {listed}: {reply}");
    }
    daemon.until("three bans", |daemon| has(&said(daemon, &["status"]), "bans", "3"));
    assert!(daemon.stop().success());
}

#[test]
fn what_a_list_says_is_quoted_and_simulated() {
    let dns = server();
    dns.add(&name(9), code("127.0.0.4"));
    dns.add(&name(9), Data::Text(b"Trojan\r\n250 ok \xff\0 see https://bl.example.net/?192.0.2.9"));
    let mut daemon = start("dnsbl-text", &dns, "");
    let reply = rcpt(&daemon, "192.0.2.9", "ann@example.org");
    let text = "by bl.example.net (Trojan 250 ok see https://bl.example.net/?192.0.2.9); ask ";
    assert!(reply.contains(text), "{reply}");
    daemon.line_with(&["192.0.2.9", "Trojan 250 ok see"]);
    let simulated = said(&daemon, &["simulate", "192.0.2.9"]);
    assert!(has(&simulated, "bl.example.net", "lists it: answer"), "{simulated:?}");
    assert!(has(&simulated, "rcpt", "refused, 554 5.7.1, listed by bl.example.net"));
    let simulated = said(&daemon, &["simulate", "192.0.2.10"]);
    assert!(has(&simulated, "bl.example.net", "does not list it"), "{simulated:?}");
    assert!(has(&simulated, "rcpt", "taken"), "{simulated:?}");
    assert!(daemon.stop().success());
}

#[test]
fn a_ban_ends_when_its_list_lists_the_client_no_more() {
    let dns = server();
    dns.add(&name(11), code("127.0.0.2"));
    dns.add(&name(12), code("127.0.0.2"));
    let mut daemon = start("dnsbl-lifted", &dns, "repeats = 1\n");
    for client in ["192.0.2.11", "192.0.2.12"] {
        assert!(rcpt(&daemon, client, "ann@example.org").starts_with("554 5.7.1 "));
        daemon.until("a ban", |d| has(&said(d, &["look", client]), "ban", "answer"));
        assert!(arrive(&daemon, client).1.starts_with("554 5.7.1 "));
    }
    // No answer is not a "no": only the one that was taken off the list is heard again.
    dns.add(&name(12), Data::Trouble);
    dns.forget(&name(11));
    daemon.line_with(&["the ban of 192.0.2.11 is lifted: bl.example.net lists it no more"]);
    daemon.until("the end", |d| has(&said(d, &["look", "192.0.2.11"]), "ban", "lapsed"));
    assert!(arrive(&daemon, "192.0.2.11").1.starts_with("220 "));
    assert!(arrive(&daemon, "192.0.2.12").1.starts_with("554 5.7.1 "));
    assert!(daemon.stop().success());
}
