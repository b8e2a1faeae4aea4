//! Floor, source and sink against each other over loopback, each on a ring of its own.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use mxbench::floor::{self, Counts};
use mxbench::sink::ledger::{Ledger, read_ids, read_maildir};
use mxbench::sink::options::{Extension, Options as SinkOptions};
use mxbench::sink::{self, Taken};
use mxbench::source::mail::Size;
use mxbench::source::options::{Options, Pace, Starttls};
use mxbench::source::report::Summary;
use mxbench::{source, system};

/// Becomes readable when the other end is dropped.
fn stop() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe().unwrap()
}

fn run(options: Options) -> Summary {
    let (stop, _keep) = stop();
    source::run(options, stop, &mut |_| {}).unwrap()
}

fn against_floor(change: impl Fn(&mut Options)) -> (Summary, Counts) {
    let listener = system::listener("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut options = Options::new(listener.local_addr().unwrap());
    change(&mut options);
    let (stopped, stopper) = stop();
    let server = thread::spawn(move || floor::serve(listener, stopped).unwrap());
    let summary = run(options);
    drop(stopper);
    (summary, server.join().unwrap())
}

fn against_sink(sink: SinkOptions, change: impl Fn(&mut Options)) -> (Summary, Taken) {
    let listener = system::listener("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut options = Options::new(listener.local_addr().unwrap());
    options.pace = Pace::Total(500);
    options.failures_max = u64::MAX;
    change(&mut options);
    let (stopped, stopper) = stop();
    let server = thread::spawn(move || sink::serve(&sink, listener, stopped).unwrap());
    let summary = run(options);
    drop(stopper);
    (summary, server.join().unwrap())
}

fn faults(list: &[&str]) -> SinkOptions {
    let faults = list.iter().map(|text| text.parse().unwrap()).collect();
    SinkOptions { faults, ..SinkOptions::default() }
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mxbench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn floor_acknowledges_every_message() {
    for (per_connection, pipelining, recipients, quit_fin) in
        [(1, true, 1, false), (20, true, 1, true), (7, false, 3, false), (1000, true, 100, false)]
    {
        let (summary, counts) = against_floor(|options| {
            options.pace = Pace::Total(1000);
            options.messages_per_connection = per_connection;
            options.pipelining = pipelining;
            options.recipients = recipients;
            options.quit_fin = quit_fin;
        });
        assert_eq!(summary.acked, 1000, "{summary:?}");
        assert_eq!((summary.failures, summary.refused, summary.unknown), (0, 0, 0), "{summary:?}");
        assert_eq!((counts.messages, counts.connections), (1000, summary.connections));
        assert_eq!(counts.recipients, 1000 * recipients as u64);
        assert_eq!(counts.octets, 1000 * (4096 + 3));
        assert_eq!(summary.phases["final_dot"].count, 1000);
    }
}

#[test]
fn floor_takes_large_and_mixed_messages() {
    let (summary, counts) = against_floor(|options| {
        options.pace = Pace::Total(20);
        options.size = Size::Fixed(5 << 20);
    });
    assert_eq!((summary.acked, counts.octets), (20, 20 * ((5 << 20) + 3)), "{summary:?}");
    let (summary, counts) = against_floor(|options| {
        options.pace = Pace::Total(400);
        options.size = Size::Mix;
        options.source_addresses = 4;
    });
    assert_eq!((summary.acked, counts.messages, summary.failures), (400, 400, 0), "{summary:?}");
}

/// A folder where O_DIRECT works: a temporary folder may be a tmpfs.
fn durable_folder(name: &str) -> PathBuf {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn the_durable_floor_acknowledges_every_message() {
    let folder = durable_folder("durable-floor");
    // The last writes more than the file holds: it begins again at its start.
    for (per_connection, size, total) in [(1, 4096, 500), (20, 4096, 500), (7, 65_536, 1200)] {
        let listener = system::listener("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut options = Options::new(listener.local_addr().unwrap());
        options.pace = Pace::Total(total);
        options.messages_per_connection = per_connection;
        options.size = Size::Fixed(size);
        let (stopped, stopper) = stop();
        let file = floor::durable_file(&folder).unwrap();
        let server = thread::spawn(move || floor::serve_durable(listener, stopped, file).unwrap());
        let (source_stopped, _source_stopper) = stop();
        let summary = source::run(options, source_stopped, &mut |_| ()).unwrap();
        drop(stopper);
        let counts = server.join().unwrap();
        assert_eq!(
            (summary.acked, summary.failures, summary.unknown),
            (total, 0, 0),
            "{summary:?}"
        );
        assert_eq!((counts.messages, counts.broken), (total, 0));
        assert_eq!(counts.octets, total * (size as u64 + 3));
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "its file has no name");
}

#[test]
fn the_durable_floor_answers_in_order_and_drops_what_no_block_holds() {
    use std::io::{Read, Write};
    let folder = durable_folder("durable-floor-order");
    let listener = system::listener("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (stopped, stopper) = stop();
    let file = floor::durable_file(&folder).unwrap();
    let server = thread::spawn(move || floor::serve_durable(listener, stopped, file).unwrap());
    let talk = |said: &[u8]| {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        // A client whose message is dropped may be told so in the middle of it.
        let _ = stream.write_all(said);
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        let heard = String::from_utf8(heard).unwrap();
        heard.lines().map(|line| line[..3].parse().unwrap()).collect::<Vec<u16>>()
    };
    let behind = b"HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nx\r\n.\r\nNOOP\r\nQUIT\r\n";
    assert_eq!(talk(behind), [220, 250, 250, 250, 354, 250, 250, 221]);
    let mut large = b"HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n".to_vec();
    large.resize(9 << 20, b'x');
    large.extend_from_slice(b"\r\n.\r\nQUIT\r\n");
    assert!(!talk(&large).contains(&221), "nothing was answered behind it");
    drop(stopper);
    let counts = server.join().unwrap();
    assert_eq!((counts.messages, counts.broken), (1, 1));
}

#[test]
fn a_place_that_the_durable_floor_cannot_use_is_named() {
    let missing = durable_folder("durable-floor-none").join("missing");
    let error = floor::durable_file(&missing).unwrap_err().to_string();
    let place = missing.display().to_string();
    assert!(error.contains(&place) && error.contains("cannot make a file there"), "{error}");
}

#[test]
fn slow_sessions_get_through() {
    let (summary, counts) = against_floor(|options| {
        options.pace = Pace::Total(8);
        options.sessions = 8;
        options.size = Size::Fixed(400);
        options.slow = Some((4, 2000));
    });
    assert_eq!((summary.acked, counts.messages, summary.failures), (8, 8, 0), "{summary:?}");
}

#[test]
fn idle_sessions_are_held_together() {
    let listener = system::listener("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut options = Options::new(listener.local_addr().unwrap());
    options.pace = Pace::Idle(Duration::from_secs(3600));
    options.sessions = 300;
    let (stopped, stopper) = stop();
    let server = thread::spawn(move || floor::serve(listener, stopped).unwrap());
    let (source_stopped, source_stopper) = stop();
    let mut source_stopper = Some(source_stopper);
    let mut held = 0;
    let summary = source::run(options, source_stopped, &mut |open| {
        held = open;
        source_stopper.take();
    })
    .unwrap();
    drop(stopper);
    assert_eq!((held, summary.idle_open, summary.failures), (300, 300, 0), "{summary:?}");
    assert_eq!(server.join().unwrap().open_most, 300);
}

#[test]
fn refusals_are_told_from_acknowledgements() {
    let sink = faults(&["rcpt:450:0.2", "dot:554:0.2", "data:451:0.1", "mail:451:0.1"]);
    let (summary, taken) = against_sink(sink, |_| {});
    assert_eq!(summary.acked + summary.refused, 500, "{summary:?}");
    assert!(summary.refused > 100 && summary.acked > 100, "{summary:?}");
    assert_eq!((taken.messages, summary.unknown, summary.failures), (summary.acked, 0, 0));
    assert!(summary.unexpected.contains_key("554 at final dot"), "{summary:?}");
}

#[test]
fn a_lost_reply_leaves_the_outcome_unknown_and_the_message_kept() {
    let folder = Folder::new("lost-reply");
    let acked = folder.0.join("acked");
    let mut sink = faults(&["dot:lose-reply:0.1", "data:close:0.05", "banner:421:0.05"]);
    sink.check = Some(acked.clone());
    let (summary, taken) = against_sink(sink, |options| options.acked = Some(acked.clone()));
    assert!(summary.unknown > 0 && summary.failures >= summary.unknown, "{summary:?}");
    assert_eq!(summary.acked + summary.unknown, 500, "{summary:?}");
    assert_eq!((taken.account.lost, taken.account.doubled), (0, 0), "{taken:?}");
    assert_eq!(taken.account.ids, taken.messages);
    assert_eq!(taken.account.unacknowledged, taken.messages - summary.acked);
    assert!(taken.account.unacknowledged > 0, "{taken:?}");
}

#[test]
fn a_maildir_holds_what_was_acknowledged() {
    let folder = Folder::new("maildir");
    let acked = folder.0.join("acked");
    let maildir = folder.0.join("Maildir");
    let sink = SinkOptions { maildir: Some(maildir.clone()), ..SinkOptions::default() };
    let (summary, taken) = against_sink(sink, |options| {
        options.pace = Pace::Total(100);
        options.recipients = 2;
        options.size = Size::Fixed(700_000);
        options.acked = Some(acked.clone());
    });
    assert_eq!((summary.acked, taken.octets), (100, 100 * 700_000));
    let mut ledger = Ledger::default();
    read_maildir(&maildir, &mut ledger).unwrap();
    let account = ledger.account(Some(&read_ids(&acked).unwrap()));
    assert_eq!((account.ids, account.lost, account.doubled), (100, 0, 0), "{account:?}");
    let lost = std::fs::read_dir(maildir.join("new")).unwrap().next().unwrap().unwrap().path();
    std::fs::copy(&lost, maildir.join("cur/again")).unwrap();
    let other = std::fs::read_dir(maildir.join("new")).unwrap().last().unwrap().unwrap().path();
    assert_ne!(lost, other);
    std::fs::remove_file(other).unwrap();
    let mut ledger = Ledger::default();
    read_maildir(&maildir, &mut ledger).unwrap();
    let account = ledger.account(Some(&read_ids(&acked).unwrap()));
    assert_eq!((account.ids, account.lost, account.doubled), (99, 1, 1), "{account:?}");
}

#[test]
fn fewer_extensions_delays_and_greylisting_cost_no_message() {
    let sink = SinkOptions {
        extensions: vec![Extension::Size],
        ..faults(&["ehlo:3ms", "rcpt:2ms:0.1", "dot:5ms:0.1"])
    };
    let (summary, taken) = against_sink(sink, |options| options.recipients = 2);
    assert_eq!((summary.acked, taken.recipients, summary.failures), (500, 1000, 0), "{summary:?}");
    let sink = SinkOptions { greylist_ms: Some(100), ..SinkOptions::default() };
    let (summary, taken) =
        against_sink(sink, |options| options.pace = Pace::For(Duration::from_millis(800)));
    assert!(summary.refused > 0 && summary.acked > 0, "{summary:?}");
    assert_eq!((taken.messages, summary.failures), (summary.acked, 0), "{summary:?}");
}

#[test]
fn a_lie_about_pipelining_is_noticed() {
    let sink = SinkOptions { lies: vec![Extension::Pipelining], ..SinkOptions::default() };
    let (summary, taken) = against_sink(sink, |options| {
        options.sessions = 2;
        options.failures_max = 4;
        options.timeout = Duration::from_millis(300);
    });
    assert_eq!((summary.acked, taken.messages), (0, 0), "{summary:?}");
    assert!(summary.unexpected.contains_key("time-out at RCPT"), "{summary:?}");
}

/// A server that does nothing for a second is seen by every message that was due in that second,
/// not only by the few that were under way.
#[test]
fn a_stall_shows_in_open_loop() {
    let stalling = || SinkOptions { stall_ms: Some((700, 1000)), ..SinkOptions::default() };
    let (open, _) = against_sink(stalling(), |options| {
        options.pace = Pace::Open { rate: 400.0, duration: Duration::from_secs(3) };
    });
    assert_eq!((open.acked, open.failures), (1200, 0), "{open:?}");
    let message = &open.phases["message"];
    assert!(message.p999_us >= 900_000.0, "{message:?}");
    assert!(
        message.p90_us >= 500_000.0,
        "a third of all messages was due in the stall: {message:?}"
    );
}

fn tls(share: f64, resumed_share: f64) -> Option<Starttls> {
    Some(Starttls { share, resumed_share, version: None })
}

#[test]
fn the_floor_with_tls_has_the_same_dialogue() {
    for (share, resumed, per_connection, size) in
        [(1.0, 0.0, 1, 4096), (1.0, 1.0, 3, 4096), (0.5, 0.5, 20, 100_000)]
    {
        let listener = system::listener("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut options = Options::new(listener.local_addr().unwrap());
        options.pace = Pace::Total(300);
        options.messages_per_connection = per_connection;
        options.size = Size::Fixed(size);
        options.sessions = 8;
        options.starttls = tls(share, resumed);
        let (stopped, stopper) = stop();
        let server = thread::spawn(move || floor::serve_tls(listener, stopped).unwrap());
        let summary = run(options);
        drop(stopper);
        let counts = server.join().unwrap();
        assert_eq!((summary.acked, counts.messages), (300, 300), "{summary:?}");
        assert_eq!((summary.failures, summary.refused, counts.broken), (0, 0, 0), "{summary:?}");
        assert!(summary.tls_handshakes > 0 && counts.octets > summary.octets, "{summary:?}");
        if share >= 1.0 {
            assert_eq!(summary.tls_handshakes, summary.connections, "{summary:?}");
            assert_eq!(summary.tls_resumed > 0, resumed > 0.0, "{summary:?}");
        }
    }
}

#[test]
fn a_sink_takes_mail_over_tls_and_misbehaves_there_as_well() {
    let secure = || SinkOptions { starttls: true, ..SinkOptions::default() };
    let (summary, taken) = against_sink(secure(), |options| {
        options.starttls = tls(0.7, 0.5);
        options.chunking = true;
        options.size = Size::Fixed(50_000);
    });
    assert_eq!((summary.acked, taken.messages), (500, 500), "{summary:?}");
    assert_eq!((summary.failures, summary.refused), (0, 0), "{summary:?}");
    let handshakes = summary.tls_handshakes;
    assert!(handshakes > 0 && handshakes < summary.connections, "{summary:?}");
    let faulty = faults(&["mail:450:0.2", "dot:1ms:0.2", "rcpt:close:0.02"]);
    let (summary, taken) = against_sink(SinkOptions { starttls: true, ..faulty }, |options| {
        options.starttls = tls(1.0, 0.0);
    });
    assert!(summary.refused > 0 && summary.failures > 0, "{summary:?}");
    assert_eq!(summary.acked, taken.messages, "{summary:?}");
    // A client that begins with nonsense is left alone.
    let listener = system::listener("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (stopped, stopper) = stop();
    let server = thread::spawn(move || sink::serve(&secure(), listener, stopped).unwrap());
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"EHLO c\r\nSTARTTLS\r\n").unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"go ahead\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet).unwrap();
        heard.push(octet[0]);
    }
    stream.write_all(b"MAIL FROM:<a@b>\r\n").unwrap();
    let mut rest = Vec::new();
    // The end, or a reset where octets of ours were not read.
    let _ = stream.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"250"), "{rest:?}");
    drop(stopper);
    assert_eq!(server.join().unwrap().messages, 0);
}
