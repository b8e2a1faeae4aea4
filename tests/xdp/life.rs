//! Attaching, pins, upgrades, privileges, the socket pair.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ebpf_common::entry::Action;
use gate::{Answer, Client, Gate, Problem, Request, Settings, Table, monotonic_s, pair, serve};

use super::bed::{Bed, Lists, able, accept, enter, listing, run, settings};
use super::child;
use super::frames::{SYN, frame};

/// A bpf file system of its own.
pub(super) struct Pins(pub(super) PathBuf);

impl Pins {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringpost-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("made");
        run(&format!("mount -t bpf bpf {}", path.display()));
        Self(path)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Whether a connection to the closed port 25 is refused by the stack: the SYN was passed.
fn passes(bed: &Bed) -> bool {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(&bed.names.client);
            let server = "10.77.0.1:25".parse().expect("an address");
            let error = TcpStream::connect_timeout(&server, Duration::from_millis(200));
            error.expect_err("nobody listens").kind() == std::io::ErrorKind::ConnectionRefused
        });
        thread.join().expect("ended")
    })
}

#[test]
fn a_ban_lapses_with_the_loader_killed() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let pins = Pins::new("killed");
    let mut loader = child::command("pinned", &["ip", "netns", "exec", &bed.names.server])
        .env("RINGPOST_XDP_PINS", &pins.0)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut said = BufReader::new(loader.stdout.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("READY ") {
        line.clear();
        assert!(said.read_line(&mut line).expect("readable") > 0, "the loader ended early");
    }
    let expires_s: u32 =
        line.trim().rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a second");
    loader.kill().expect("ours");
    loader.wait().expect("ended");
    let mut dropped = 0;
    while !passes(&bed) {
        dropped += 1;
        assert!(monotonic_s() <= expires_s + 2, "still dropped two seconds after its end");
    }
    assert!(monotonic_s() >= expires_s, "passed before its end");
    assert!(dropped > 0, "the pinned filter dropped nothing");
}

#[test]
fn an_upgrade_takes_over_lists_bans_and_links() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let pins = Pins::new("upgrade");
    let mut with = settings(&["rp0"], Action::Drop);
    with.keep = true;
    let mut first = Gate::load(Some(&pins.0)).expect("loaded");
    first.attach(&with).expect("attached");
    Lists::default().add(Table::Hosts4, "10.77.0.2/32", Action::Drop).swap(&mut first);
    assert!(!passes(&bed));
    drop(first);
    assert!(!passes(&bed), "kept");
    let mut second = Gate::load(Some(&pins.0)).expect("loaded");
    assert!(!passes(&bed), "still the old program");
    second.attach(&with).expect("taken over");
    assert_eq!(second.status(None).expect("status").attached, [("rp0".to_owned(), true)]);
    assert!(!passes(&bed), "the old lists are in force under the new program");
    // A sign that it is the new program's attachment: detaching ends it.
    second.detach().expect("detached");
    assert!(passes(&bed));
    second.attach(&with).expect("attached anew");
    Lists::default().swap(&mut second);
    assert!(passes(&bed));
}

#[test]
fn without_pins_the_filter_goes_with_the_gate() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut gate = Gate::load(None).expect("loaded");
    gate.attach(&settings(&["rp0"], Action::Drop)).expect("attached");
    Lists::default().add(Table::Hosts4, "10.77.0.2/32", Action::Drop).swap(&mut gate);
    assert!(!passes(&bed));
    drop(gate);
    assert!(passes(&bed));
}

#[test]
fn generic_mode_is_a_visible_fallback() {
    if !able() {
        return;
    }
    let _bed = Bed::new();
    let mut gate = Gate::load(None).expect("loaded");
    // No driver behind the loopback interface.
    gate.attach(&settings(&["lo"], Action::Drop)).expect("attached in generic mode");
    Lists::default().add(Table::Hosts4, "127.0.0.1/32", Action::Drop).swap(&mut gate);
    let status = gate.status(None).expect("status");
    assert_eq!(status.attached, [("lo".to_owned(), false)]);
    assert!(status.notes.iter().any(|n| n.contains("generic mode")), "{:?}", status.notes);
    let server = "127.0.0.1:25".parse().expect("an address");
    let error = TcpStream::connect_timeout(&server, Duration::from_millis(200));
    assert_eq!(error.expect_err("dropped").kind(), std::io::ErrorKind::TimedOut);
    assert!(matches!(gate.attach(&settings(&["nosuch0"], Action::Drop)), Err(Problem::Attach(..))));
}

#[test]
fn behind_a_proxy_the_filter_stands_down_and_says_so() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut gate = Gate::load(None).expect("loaded");
    Lists::default().add(Table::Hosts4, "10.77.0.2/32", Action::Drop).swap(&mut gate);
    gate.attach(&settings(&["rp0"], Action::Drop)).expect("attached");
    assert!(!passes(&bed));
    gate.attach(&Settings { proxy: true, ..settings(&["rp0"], Action::Drop) }).expect("heard");
    let status = gate.status(None).expect("status");
    assert!(status.attached.is_empty());
    assert!(status.notes[0].contains("stands down"), "{:?}", status.notes);
    assert!(passes(&bed));
}

#[test]
fn two_capabilities_are_enough_for_the_gate() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let namespace = &bed.names.server;
    let capabilities = "-all,+bpf,+net_admin,+perfmon";
    let before = [
        "ip",
        "netns",
        "exec",
        namespace,
        "setpriv",
        "--bounding-set",
        capabilities,
        "--inh-caps",
        capabilities,
        "--no-new-privs",
    ];
    let output = child::command("few privileges", &before).output().expect("started");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(text.contains("SWAPPED native=true"), "{text}");
}

#[test]
fn the_mail_process_bans_without_any_privilege() {
    if !able() {
        return;
    }
    let mut gate = Gate::load(None).expect("loaded");
    gate.attach(&settings(&[], Action::Drop)).expect("settings");
    let lent = gate.descriptors().expect("lent");
    let before = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--no-new-privs",
    ];
    let output = child::command("no privileges", &before)
        .stdin(Stdio::from(lent.bans4))
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(text.contains("BANNED"), "{text}");
    let found = gate.status(Some("10.77.0.2".parse().expect("an address"))).expect("status").found;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].0, found[0].1.action), (1, Action::Answer));
}

#[test]
fn the_five_verbs_over_the_socket_pair() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let (near, far) = pair().expect("a pair");
    let namespace = bed.names.server.clone();
    let server = std::thread::spawn(move || {
        enter(&namespace);
        let mut gate = Gate::load(None).expect("loaded");
        serve(&far, &mut gate)
    });
    let client = Client::new(near);
    let with = Box::new(settings(&["rp0"], Action::Drop));
    assert!(matches!(client.ask(&Request::Attach(with)), Ok(Answer::Done)));
    let set = Lists::default().add(Table::Hosts4, "10.77.0.2/32", Action::Drop).octets();
    client.swap(&set).expect("swapped");
    assert!(!passes(&bed));
    assert!(matches!(client.swap(&set[1..]), Err(Problem::Remote(_))));
    let Ok(Answer::Descriptors(lent)) = client.ask(&Request::Descriptors) else { panic!() };
    let bans = gate::Bans::new(lent.bans4, lent.bans6);
    let host = "192.0.2.7".parse().expect("an address");
    let mut ban = listing(Action::Drop);
    ban.expires_s = monotonic_s() + 60;
    bans.put(host, &ban).expect("banned");
    let Ok(Answer::Status(status)) = client.ask(&Request::Status(Some(host))) else { panic!() };
    assert_eq!(status.found, [(1, ban, 0, 0)]);
    assert_eq!(status.records, [1, 0, 0, 0, 0, 0]);
    assert!(status.events.iter().any(|e| e.source[0] == 0x0a4d_0002), "{:?}", status.events);
    assert!(matches!(client.ask(&Request::Detach), Ok(Answer::Done)));
    assert!(passes(&bed));
    drop(client);
    server.join().expect("ended").expect("the other end is gone, which is no error");
}

#[test]
fn an_answer_needs_no_more_than_the_loader_sets_up() {
    if !able() {
        return;
    }
    let _bed = Bed::new();
    let forwards = Path::new("/proc/sys/net/ipv4/conf/lo/forwarding");
    let other = Path::new("/proc/sys/net/ipv4/conf/rp0/forwarding");
    let mut gate = Gate::load(None).expect("loaded");
    gate.attach(&settings(&["rp0"], Action::Answer)).expect("attached");
    accept(&gate, 60);
    // /proc/sys/net is this thread's namespace's.
    let read = |path: &Path| std::fs::read_to_string(path).expect("readable").trim().to_owned();
    assert_eq!((read(forwards).as_str(), read(other).as_str()), ("1", "0"));
    let syn = frame("10.77.0.2", "10.77.0.1", SYN).octets();
    Lists::default().add(Table::Hosts4, "10.77.0.2/32", Action::Answer).swap(&mut gate);
    let index = nix::net::if_::if_nametoindex("rp0").expect("there");
    assert_eq!(gate.trial(&syn, index, 1).expect("a trial").verdict, 3);
}
