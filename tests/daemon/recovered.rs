//! What a start reads of the spool, and what it says meanwhile: octets are judged, never time.

use std::fs;
use std::os::unix::net::UnixDatagram;

use super::backend::Backend;
use super::programs::{Daemon, Folder, Setup, source};

const SEGMENT: u64 = 16 << 20;
/// Of each segment at least its first and last block.
const ENDS: u64 = 8192;

/// A daemon that holds so many messages of that size, for a next hop that is dead.
fn filled(name: &str, count: u32, size: &str, segments: u32) -> Daemon {
    let mut setup = Setup::new(Backend::nowhere());
    setup.cores = 1;
    setup.segments = segments;
    setup.retry = "first_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n".to_owned();
    let daemon = Daemon::start(name, setup);
    let count = count.to_string();
    let words = ["--total", count.as_str(), "--sessions", "16", "--size", size];
    let sent = source(daemon.address, &words);
    assert_eq!(sent["acked"].to_string(), count, "{sent}");
    daemon
}

/// What the last start said: octets read, segments in use, of these sealed.
fn said(daemon: &Daemon) -> (u64, u64, u64) {
    let log = daemon.log();
    let line = log.lines().rfind(|line| line.contains(" KiB read in ")).expect("each start says");
    let before = |what: &str| {
        let head = line.split(what).next().expect("just found");
        let number = head.rsplit(|char: char| !char.is_ascii_digit()).next();
        let number = number.and_then(|digits| digits.parse::<u64>().ok());
        number.unwrap_or_else(|| panic!("no number before {what:?}: {line}"))
    };
    (before(" KiB read in ") * 1024, before(" segments ("), before(" sealed)"))
}

/// What the system counted for the process: octets read from devices.
fn read_by_the_process(daemon: &Daemon) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", daemon.pid())).expect("it runs");
    let line = io.lines().find_map(|line| line.strip_prefix("read_bytes: ")).expect("counted");
    line.parse().expect("a number")
}

#[test]
fn a_clean_restart_reads_footers_and_does_not_grow_with_octets() {
    let mut reads = Vec::new();
    for (name, size) in [("sealed-4k", "4k"), ("sealed-64k", "64k")] {
        let mut daemon = filled(name, 600, size, 12);
        assert!(daemon.stop().success());
        daemon.start_again();
        let (read, used, sealed) = said(&daemon);
        println!("{size}: {read} octets read, {used} segments in use, {sealed} sealed");
        assert_eq!(used, sealed, "a clean end seals what is open");
        assert_eq!(daemon.ledger().queued, 600);
        reads.push(read);
        daemon.kill();
    }
    // Sixteen times the octets; the same messages in the footers, and a few segments more.
    assert!(reads[1] < reads[0] + 4 * ENDS + reads[0] / 2, "{reads:?}");
    assert!(reads[1] < 2 << 20, "{reads:?}");
}

#[test]
fn a_restart_after_a_kill_reads_what_is_unsealed_once() {
    let mut daemon = filled("unsealed", 2000, "20k", 12);
    daemon.kill();
    daemon.start_again();
    let (read, used, sealed) = said(&daemon);
    // And a segment that was opened ahead, with nothing in it.
    let bound = (used - sealed + 1) * SEGMENT + 13 * ENDS + sealed * (1 << 20);
    println!("{read} octets read, {used} segments in use, {sealed} sealed; at most {bound}");
    assert!(sealed >= 1 && used > sealed, "the test needs both kinds");
    assert!(read <= bound, "{read} octets read of at most {bound}");
    assert!(read < 2000 * 20_480, "less than the live log");
    // The system counts the same, and what queue and config read besides.
    let counted = read_by_the_process(&daemon);
    println!("the system counted {counted}");
    assert!(counted >= read, "what is said is what was read");
    assert_eq!(daemon.ledger().queued, 2000);
    assert!(daemon.stop().success());
}

#[test]
fn the_service_manager_hears_how_far_recovery_is() {
    let folder = Folder::new("notify");
    let path = folder.path("notify");
    let manager = UnixDatagram::bind(&path).expect("a free name");
    let mut setup = Setup::new(Backend::nowhere());
    setup.environment = vec![("NOTIFY_SOCKET".to_owned(), path.display().to_string())];
    let mut daemon = Daemon::start("notified", setup);
    let mut heard = String::new();
    let mut octets = [0; 4096];
    while !heard.contains("READY=1") {
        let got = manager.recv(&mut octets).expect("a word");
        heard.push_str(&String::from_utf8_lossy(&octets[..got]));
    }
    let status = heard.lines().find(|line| line.starts_with("STATUS=recovering the spool: "));
    assert!(status.is_some_and(|line| line.ends_with(" MiB read")), "{heard}");
    assert!(heard.contains("EXTEND_TIMEOUT_USEC="), "{heard}");
    assert!(daemon.stop().success());
}
