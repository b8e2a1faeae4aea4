//! Other processes of this test's own binary: one to be killed, some with fewer privileges.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;

use ebpf_common::entry::Action;
use gate::{Bans, Gate, monotonic_s};

use super::bed::{Lists, accept, bans, listing, settings};

/// A command that runs one of the roles below, behind these words if any.
pub(crate) fn command(role: &str, before: &[&str]) -> Command {
    let module = module_path!().split_once("::").expect("inside a crate").1;
    let this = std::env::current_exe().expect("this binary");
    let mut words: Vec<String> = before.iter().map(|&w| w.to_owned()).collect();
    words.push(this.to_string_lossy().into_owned());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.arg(format!("{module}::role")).env("RINGPOST_XDP_ROLE", role);
    command
}

#[test]
#[ignore = "started by other tests with a role"]
fn role() {
    match std::env::var("RINGPOST_XDP_ROLE").as_deref() {
        Ok("pinned") => pinned(),
        Ok("few privileges") => few_privileges(),
        Ok("no privileges") => no_privileges(),
        other => panic!("no role: {other:?}"),
    }
}

/// Attaches with pins, bans the client for three seconds, and waits to be killed.
fn pinned() {
    let pins = PathBuf::from(std::env::var("RINGPOST_XDP_PINS").expect("a folder"));
    let mut gate = Gate::load(Some(&pins)).expect("loaded");
    let mut with = settings(&["rp0"], Action::Drop);
    with.keep = true;
    gate.attach(&with).expect("attached");
    accept(&gate, 60);
    let mut ban = listing(Action::Drop);
    ban.expires_s = monotonic_s() + 3;
    bans(&gate).put("10.77.0.2".parse().expect("an address"), &ban).expect("banned");
    println!("READY {}", ban.expires_s);
    std::thread::park();
}

fn capabilities() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("readable");
    let line = status.lines().find(|l| l.starts_with("CapEff:")).expect("a line");
    line.split_whitespace().nth(1).expect("a number").to_owned()
}

/// As the gate runs: loads with three capabilities, keeps two, attaches and swaps a million.
fn few_privileges() {
    // Bits 12 (NET_ADMIN), 38 (PERFMON), 39 (BPF).
    assert_eq!(capabilities(), "000000c000001000");
    let mut gate = Gate::load(None).expect("three capabilities are enough to load");
    gate::confine().expect("given up");
    assert_eq!(capabilities(), "0000008000001000");
    gate.attach(&settings(&["rp0"], Action::Drop)).expect("and to attach");
    let mut lists = Lists::default();
    for n in 0..1_000_000 {
        let address = ebpf_common::packet::Address::v4(0x0b00_0000 + n);
        lists.push(gate::Table::Hosts4, address, 32, Action::Drop);
    }
    lists.swap(&mut gate);
    let attached = gate.status(None).expect("status").attached;
    println!("SWAPPED native={}", attached[0].1);
}

/// As the mail process runs, with two tables lent: IPv4 bans on stdin.
fn no_privileges() {
    assert_eq!(capabilities(), "0000000000000000");
    assert!(!nix::unistd::geteuid().is_root());
    let lent = || std::io::stdin().as_fd().try_clone_to_owned().expect("lent");
    let bans = Bans::new(lent(), lent());
    let host = "10.77.0.2".parse().expect("an address");
    let mut ban = listing(Action::Answer);
    assert!(bans.put(host, &ban).is_err(), "a ban without an end");
    ban.expires_s = monotonic_s() + 60;
    bans.put(host, &ban).expect("lent tables can be written");
    assert_eq!(bans.get(host).expect("read").expect("there").listing, ban);
    assert!(Gate::load(None).is_err(), "and nothing can be loaded");
    println!("BANNED");
}
