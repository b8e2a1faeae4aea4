//! A small spool that fills up: 452 at the first watermark, 421 at the lower one, and back;
//! relaying goes on whatever is full, and frees space.

use std::collections::BTreeSet;

use super::backend::Backend;
use super::client::Client;
use super::programs::{Daemon, Folder, Setup, sink, source};

const MIB: usize = 1 << 20;

/// A message of that many octets, its subject first.
fn content(subject: &str, octets: usize) -> String {
    let line = "0123456789012345678901234567890123456789012345678901234567890123456789\r\n";
    let head = format!("Subject: {subject}\r\n\r\n");
    let lines = octets.saturating_sub(head.len()) / line.len();
    head + &line.repeat(lines)
}

fn setup(backend: std::net::SocketAddr, spool: &str) -> Setup {
    let mut setup = Setup::new(backend);
    setup.cores = 1;
    setup.policy += "size_max = \"24 MiB\"\n";
    setup.retry = "first_s = 0.2\nfactor = 1.0\nmax_s = 0.2\nexpire_s = 3600\n".to_owned();
    setup.spool = spool.to_owned();
    setup
}

#[test]
fn both_watermarks_are_reached_and_left_again() {
    let address = Backend::nowhere();
    // Twelve segments of 16 MiB: the marks are at eight and seven free ones.
    let marks = "resume_above_percent = 76\nrefuse_below_percent = 75\n\
                 turn_away_below_percent = 65\n";
    let mut setup = setup(address, marks);
    setup.segments = 12;
    let mut daemon = Daemon::start("space", setup);
    // Sessions that are in the middle of mail go on below the marks: they were promised the room.
    let mut open: Vec<Client> = (0..3).map(|_| Client::greeted(daemon.address)).collect();
    for client in &mut open {
        client.expect("MAIL FROM:<a@example.net> SIZE=16000000", "250");
        client.expect("RCPT TO:<b@example.org>", "250");
        client.expect("DATA", "354");
    }
    let mut given = 0;
    // One session: new ones hear 421 as soon as what waits has moved to the cold log.
    let mut client = Client::greeted(daemon.address);
    let refused = loop {
        let reply = client.say("MAIL FROM:<a@example.net> SIZE=1000000");
        if !reply.starts_with("250") {
            break reply;
        }
        client.expect("RCPT TO:<b@example.org>", "250");
        client.expect("DATA", "354");
        client.send(content(&format!("small {given}"), MIB).as_bytes());
        client.expect("\r\n.", "250");
        given += 1;
    };
    assert!(refused.starts_with("452 4.3.1 "), "{refused}");
    assert!(given > 10, "only {given} messages fitted");
    // What was deferred meanwhile moves to the cold log, which may reach the lower mark at once.
    daemon.line_with(&[" ALARM spool_full"]);
    for (n, client) in open.iter_mut().enumerate() {
        client.send(content(&format!("large {n}"), 15 * MIB).as_bytes());
        client.expect("\r\n.", "250");
        given += 1;
    }
    daemon.line_with(&[" ALARM spool_full", "421"]);
    let mut late = Client::connect_silent(daemon.address);
    let reply = late.reply();
    assert!(reply.starts_with("421 4.3.1 "), "{reply}");
    assert_eq!(late.line(), None, "the session is over");
    // One that was there before hears 452, and may stay.
    let reply = open[0].say("MAIL FROM:<a@example.net>");
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    // The next hop comes back: what waits is relayed, which makes room.
    let folder = Folder::new("space-sink");
    let maildir = folder.path("maildir");
    let (_sink, _) = sink(&maildir, &address.to_string(), &[]);
    daemon.until_empty();
    daemon.line_with(&[" ALARM spool_full", "room again"]);
    let mut client = Client::greeted(daemon.address);
    client.deliver("a@example.net", &["b@example.org"], "Subject: after\r\n\r\n");
    daemon.until_empty();
    let mut subjects = BTreeSet::new();
    for entry in std::fs::read_dir(maildir.join("new")).expect("a Maildir").flatten() {
        let text = std::fs::read_to_string(entry.path()).expect("a message");
        let line = text.lines().find_map(|line| line.strip_prefix("Subject: "));
        subjects.insert(line.expect("a subject").to_owned());
    }
    assert_eq!(subjects.len(), given + 1, "each was passed on: {subjects:?}");
    assert!((0..3).all(|n| subjects.contains(&format!("large {n}"))), "{subjects:?}");
    assert!(daemon.stop().success());
}

#[test]
fn a_hundred_large_messages_wait_for_a_dead_next_hop_and_are_all_passed_on() {
    let folder = Folder::new("hundred");
    let address = Backend::nowhere();
    let mut setup = setup(address, "");
    setup.segments = 12;
    let mut daemon = Daemon::start("hundred", setup);
    let words = ["--total", "100", "--sessions", "8", "--size", "1m"];
    let sent = source(daemon.address, &words);
    assert_eq!(sent["acked"], 100, "{sent}");
    assert_eq!(daemon.ledger().queued, 100);
    // Nothing is lost on the way over a crash either.
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.ledger().queued, 100);
    let maildir = folder.path("maildir");
    let (_sink, _) = sink(&maildir, &address.to_string(), &[]);
    daemon.until_empty();
    let ledger = daemon.ledger();
    assert_eq!((ledger.delivered, ledger.bounced), (100, 0));
    let arrived = std::fs::read_dir(maildir.join("new")).expect("a Maildir").count();
    assert!(arrived >= 100, "{arrived} of 100 arrived");
    assert!(daemon.stop().success());
}
