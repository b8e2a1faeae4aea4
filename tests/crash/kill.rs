//! kill -9 at random moments while mail comes in.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Child;

use super::{random, seed};
use crate::daemon::backend::Backend;
use crate::daemon::client::Client;
use crate::daemon::programs::{Daemon, Folder, Running, Setup, load, sink};

fn acked(path: &Path) -> HashSet<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The ids of a Maildir's messages.
fn arrived(maildir: &Path) -> HashSet<String> {
    let entries = fs::read_dir(maildir.join("new")).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let text = fs::read(entry.path()).ok()?;
            let text = String::from_utf8_lossy(&text).into_owned();
            let line = text.lines().find_map(|line| line.strip_prefix("X-Mxbench-Id: "))?;
            Some(line.trim().to_owned())
        })
        .collect()
}

/// What the operator was told he must know.
pub(super) fn alarms(daemon: &Daemon) -> Vec<String> {
    let log = daemon.log();
    // Mail that waits may fill the spool: that is said, and refuses new mail for a while. A machine
    // that stood still is told, too; a listener that ended is no such thing.
    let stood = |line: &str| ["stands still", "turns again"].iter().any(|said| line.contains(said));
    let of_world = |line: &str| {
        line.contains("ALARM spool_full") || line.contains("ALARM stalled") && stood(line)
    };
    let alarms = log.lines().filter(|l| l.contains(" ALARM ") && !of_world(l));
    alarms.map(str::to_owned).collect()
}

/// Waits until the source's list has grown to so many octets, or the source has ended.
fn until_acked(source: &mut Child, list: &Path, octets: u64) {
    loop {
        let length = fs::metadata(list).map_or(0, |file| file.len());
        let ended = source.try_wait().expect("a child of ours").is_some();
        if length >= octets || ended {
            return;
        }
        std::thread::yield_now();
    }
}

/// Nothing that was acknowledged is missing, once the queue is empty.
fn nothing_is_lost(daemon: &mut Daemon, maildir: &Path, acked: &HashSet<String>, what: &str) {
    daemon.until_empty();
    let arrived = arrived(maildir);
    let lost: Vec<&String> = acked.difference(&arrived).collect();
    assert!(lost.is_empty(), "{what}: {} of {} lost: {lost:?}", lost.len(), acked.len());
    println!("{what}: {} acknowledged, {} arrived, none lost", acked.len(), arrived.len());
}

#[test]
fn a_kill_in_the_middle_of_5000_messages_loses_none() {
    let folder = Folder::new("kill-sink");
    let maildir = folder.path("maildir");
    let (_sink, backend) = sink(&maildir, "127.0.0.1:0", &[]);
    let mut daemon = Daemon::start("kill", Setup::new(backend));
    let list = folder.path("acked");
    let mut source = load(daemon.address, &list, &["--total", "5000", "--sessions", "48"]);
    // The list has 21 octets a message and comes in pieces of 8 KiB.
    until_acked(&mut source, &list, 5000 * 21 / 2);
    daemon.kill();
    Running(source).0.wait().expect("it ends");
    let acked = acked(&list);
    assert!((2000..5000).contains(&acked.len()), "not in the middle: {}", acked.len());
    daemon.start_again();
    nothing_is_lost(&mut daemon, &maildir, &acked, "in the middle of 5000");
    assert_eq!(alarms(&daemon), Vec::<String>::new());
    assert!(daemon.stop().success());
}

#[test]
fn a_kill_while_the_backend_is_down_loses_none() {
    let folder = Folder::new("kill-down");
    let maildir = folder.path("maildir");
    let address = Backend::nowhere();
    let mut daemon = Daemon::start("kill-held", Setup::new(address));
    let list = folder.path("acked");
    let words = ["--total", "5000", "--sessions", "32", "--size", "mix"];
    let mut source = load(daemon.address, &list, &words);
    until_acked(&mut source, &list, 5000 * 21 / 2);
    daemon.kill();
    Running(source).0.wait().expect("it ends");
    let acked = acked(&list);
    assert!(acked.len() >= 1000, "only {} before the kill", acked.len());
    daemon.start_again();
    let queued = daemon.ledger().queued;
    assert!(queued >= acked.len() as u64, "{queued} queued, {} acknowledged", acked.len());
    // And once more, with everything read back from the log.
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.ledger().queued, queued);
    let (_sink, _) = sink(&maildir, &address.to_string(), &[]);
    nothing_is_lost(&mut daemon, &maildir, &acked, "while the backend was down");
    assert!(daemon.stop().success());
}

#[test]
fn kills_at_random_moments_lose_none() {
    let rounds = if super::long() { 300 } else { 20 };
    let mut state = seed();
    println!("RINGPOST_SEED={state}");
    let folder = Folder::new("kills-sink");
    let maildir = folder.path("maildir");
    // A backend that refuses, breaks off and loses replies now and then.
    let faults = [
        "--fault",
        "mail:451:0.02",
        "--fault",
        "dot:lose-reply:0.02",
        "--fault",
        "dot:close:0.02",
        "--fault",
        "banner:421:0.05",
    ];
    let (_sink, backend) = sink(&maildir, "127.0.0.1:0", &faults);
    let mut setup = Setup::new(backend);
    setup.retry = "first_s = 0.2\nfactor = 1.0\nmax_s = 0.2\nexpire_s = 3600\n".to_owned();
    let mut daemon = Daemon::start("kills", setup);
    let mut all = HashSet::new();
    for round in 0..rounds {
        let list = folder.path(&format!("acked-{round}"));
        let sessions = (32 + random(&mut state) % 33).to_string();
        let size = ["1k", "4k", "20k", "mix"][usize::try_from(random(&mut state) % 4).expect("4")];
        let words = ["--total", "2000", "--sessions", &sessions, "--size", size];
        let mut source = load(daemon.address, &list, &words);
        let at = random(&mut state) % (2000 * 21);
        until_acked(&mut source, &list, at);
        // Some moments lie between two pieces of the list.
        for _ in 0..random(&mut state) % 20_000 {
            std::hint::spin_loop();
        }
        daemon.kill();
        Running(source).0.wait().expect("it ends");
        all.extend(acked(&list));
        daemon.start_again();
        // Kills during recovery and the first deliveries, too.
        if random(&mut state).is_multiple_of(3) {
            daemon.kill();
            daemon.start_again();
        }
    }
    assert!(all.len() > 100 * rounds / 20, "only {} messages in {rounds} rounds", all.len());
    nothing_is_lost(&mut daemon, &maildir, &all, &format!("{rounds} kills"));
    assert_eq!(alarms(&daemon), Vec::<String>::new());
    assert!(daemon.stop().success());
}

#[test]
fn who_hears_no_250_is_owed_nothing() {
    let address = Backend::nowhere();
    let mut daemon = Daemon::start("kill-open", Setup::new(address));
    let mut open = Client::greeted(daemon.address);
    open.expect("MAIL FROM:<a@example.net>", "250");
    open.expect("RCPT TO:<b@example.org>", "250");
    open.expect("DATA", "354");
    open.send("Subject: never ended\r\n\r\n".as_bytes());
    open.send("0123456789\r\n".repeat(40_000).as_bytes());
    let mut client = Client::greeted(daemon.address);
    client.deliver("a@example.net", &["b@example.org"], "Subject: kept\r\n\r\n");
    daemon.kill();
    daemon.start_again();
    let ledger = daemon.ledger();
    assert_eq!((ledger.accepted, ledger.queued), (1, 1));
    assert!(daemon.stop().success());
}
