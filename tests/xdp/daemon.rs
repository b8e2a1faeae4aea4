//! The daemon with its gate: first contacts are heard, repeats are answered without a socket.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::bed::{Bed, able, enter};
use super::life::Pins;
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::{Daemon, Folder, Setup};
use crate::daemon::refusals;

/// A daemon in the server's namespace, on port 25, with the filter on `rp0`.
fn start(name: &str, xdp: &str, lists: &[(&str, &str, &str)]) -> Daemon {
    let folder = Folder::new(name);
    let mut setup = Setup::new(Backend::start(Manners::default()).address);
    setup.words = vec!["--supervise".to_owned()];
    setup.limits = "connection_rate = \"off\"\n".to_owned();
    let mut more = format!(
        "[[listener]]\naddress = \"::\"\nport = 25\ntls = \"none\"\n\
         [xdp]\ninterfaces = [\"rp0\"]\n{xdp}"
    );
    for (name, ceiling, text) in lists {
        fs::write(folder.path(name), text).expect("written");
        more.push_str(&format!(
            "[[list]]\nname = \"{name}\"\nfile = \"{{folder}}/{name}\"\nceiling = \"{ceiling}\"\n"
        ));
    }
    setup.more = more;
    Daemon::start_in(folder, setup)
}

fn said(daemon: &Daemon, words: &[&str]) -> Vec<(String, String)> {
    let answer = daemon.ask(&[&["xdp"], words].concat());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lines = answer["lines"].as_array().cloned().unwrap_or_default();
    lines.iter().map(|line| (text(&line["name"]), text(&line["value"]))).collect()
}

fn value(lines: &[(String, String)], name: &str) -> String {
    lines.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()).unwrap_or_default()
}

fn has(lines: &[(String, String)], name: &str, part: &str) -> bool {
    lines.iter().any(|(n, value)| n == name && value.contains(part))
}

/// Does something as the client.
fn as_client<T: Send>(bed: &Bed, work: impl FnOnce() -> T + Send) -> T {
    // What it is refused belongs to this test (`refusals`).
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(test).spawn_scoped(scope, || {
            enter(&bed.names.client);
            work()
        });
        thread.expect("a thread starts").join().expect("the client ends well")
    })
}

fn server(address: &str) -> SocketAddr {
    address.parse().expect("an address")
}

/// What is heard before anything is said, to the end or the end of the greeting.
fn heard(bed: &Bed, address: &str) -> Result<String, ErrorKind> {
    as_client(bed, || {
        let wait = Duration::from_secs(3);
        let mut stream =
            TcpStream::connect_timeout(&server(address), wait).map_err(|e| e.kind())?;
        let mut line = Vec::new();
        let mut octet = [0];
        while !line.ends_with(b"\r\n") && stream.read(&mut octet).map_err(|e| e.kind())? == 1 {
            line.push(octet[0]);
        }
        refusals::note_line(server(address).port(), &line);
        Ok(String::from_utf8_lossy(&line).into_owned())
    })
}

fn refused_at_rcpt(bed: &Bed, address: &str) -> String {
    as_client(bed, || {
        let mut client = Client::greeted(server(address));
        client.expect("MAIL FROM:<a@client.example.net>", "250");
        let reply = client.say("RCPT TO:<ann@example.org>");
        client.expect("QUIT", "221");
        reply
    })
}

fn is_on(daemon: &mut Daemon) {
    daemon.line_with(&["the XDP filter is on rp0 (native)"]);
}

/// The effective capabilities of a process.
fn capabilities(pid: u64) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("CapEff:")).expect("a line");
    line.split_whitespace().nth(1).expect("a number").to_owned()
}

/// The supervisor's children that are gates.
fn gates(daemon: &Daemon) -> Vec<u64> {
    let pid = daemon.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.expect("the kernel tells children");
    let pids = children.split_whitespace().map(|pid| pid.parse().expect("a pid"));
    let is_gate = |pid: &u64| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|octet| *octet == 0).any(|word| word == b"gate")
    };
    pids.filter(is_gate).collect()
}

fn own_pid(daemon: &Daemon) -> u64 {
    daemon.ask(&["status"])["pid"].as_u64().expect("a pid")
}

#[test]
fn a_first_contact_is_heard_and_a_repeat_is_answered_by_the_filter() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let lists = [("bots", "answer", "10.77.0.2\nfd77::/64\n")];
    let mut daemon = start("xdp-ladder", "mode = \"answer\"\n", &lists);
    is_on(&mut daemon);
    for (address, client) in [("10.77.0.1:25", "10.77.0.2"), ("[fd77::1]:25", "fd77::2")] {
        for _ in 0..3 {
            let reply = refused_at_rcpt(&bed, address);
            assert!(reply.contains(&format!("listed: [{client}] by bots")), "{reply}");
        }
        daemon.until("a ban", |d| has(&said(d, &["look", client]), "in the filter", "ban of bots"));
        let before = own_sessions(&daemon);
        let line = heard(&bed, address).expect("answered");
        assert!(line.starts_with("554 5.7.1 [") && line.contains("listed by bots; "), "{line}");
        assert_eq!(own_sessions(&daemon), before, "the daemon heard nobody");
        let id = line.rsplit_once("(id ").expect("an id").1.trim_end_matches(")\r\n").to_owned();
        let look = said(&daemon, &["look", &id]);
        assert!(has(&look, "ban id", &id) && has(&look, "ban by", "bots"), "{look:?}");
    }
    assert!(has(&said(&daemon, &["simulate", "10.77.0.2"]), "filter", "answered with the 554"));
    daemon.line_with(&["[10.77.0.2]:", "answered; ban of bots"]);
    assert!(daemon.ask(&["xdp", "tail"])["next"].as_u64().expect("a number") > 0);
    // Lifted: heard again.
    daemon.ask(&["xdp", "remove", "10.77.0.2"]);
    assert!(heard(&bed, "10.77.0.1:25").expect("heard").starts_with("220 "));
    let page = String::from_utf8(daemon.tool(&["metrics"]).stdout).expect("text");
    assert!(page.contains("ringpost_xdp_total{what=\"answered\"} 2"), "{page}");
    assert!(daemon.stop().success());
    assert_eq!(heard(&bed, "10.77.0.1:25"), Err(ErrorKind::ConnectionRefused), "detached");
}

#[test]
fn the_operators_orders_reach_the_filter() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut daemon = start("xdp-orders", "mode = \"answer\"\n", &[]);
    is_on(&mut daemon);
    daemon.ask(&["block", "10.77.0.0/24", "--why", "a flood"]);
    let in_filter =
        |d: &Daemon, what: &str| has(&said(d, &["look", "10.77.0.2"]), "in the filter", what);
    daemon.until("the order", |d| in_filter(d, "network of operator: answer"));
    let before = own_sessions(&daemon);
    let line = heard(&bed, "10.77.0.1:25").expect("answered");
    assert!(line.starts_with("554 5.7.1 [10.77.0.2] "), "{line}");
    assert!(line.contains(" listed by operator; "), "{line}");
    assert_eq!(own_sessions(&daemon), before, "the daemon heard nobody");
    // Allow wins, there as here.
    daemon.ask(&["allow", "10.77.0.2"]);
    daemon.until("the other order", |d| in_filter(d, "allowed network of operator"));
    assert!(heard(&bed, "10.77.0.1:25").expect("heard").starts_with("220 "));
    daemon.ask(&["unblock", "10.77.0.2"]);
    daemon.until("its end", |d| !in_filter(d, "allowed network"));
    assert!(heard(&bed, "10.77.0.1:25").expect("answered").starts_with("554 5.7.1 "));
    daemon.ask(&["unblock", "10.77.0.0/24"]);
    daemon.until("the end", |d| !in_filter(d, "operator"));
    assert!(heard(&bed, "10.77.0.1:25").expect("heard").starts_with("220 "));
    assert!(daemon.stop().success());
}

/// Sessions that this daemon has begun.
fn own_sessions(daemon: &Daemon) -> String {
    let page = String::from_utf8(daemon.tool(&["metrics"]).stdout).expect("text");
    let line = page.lines().find(|line| line.starts_with("ringpost_connections_total "));
    line.expect("it is counted").to_owned()
}

#[test]
fn privileges_are_two_and_one_and_a_million_entries_are_swapped_with_them() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let lists = [("never", "drop", "10.77.0.2\n"), ("bots", "answer", "192.0.2.1\n")];
    let mut daemon = start("xdp-privileges", "mode = \"drop\"\n", &lists);
    is_on(&mut daemon);
    let gate = gates(&daemon);
    assert_eq!(gate.len(), 1);
    assert_eq!(capabilities(gate[0]), "0000008000001000", "CAP_BPF and CAP_NET_ADMIN");
    let status = fs::read_to_string(format!("/proc/{}/status", gate[0])).expect("it runs");
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "the keeper is in no sandbox:\n{status}");
    }
    assert_eq!(capabilities(own_pid(&daemon)), "0000000000000400", "CAP_NET_BIND_SERVICE");
    let threads = fs::read_dir(format!("/proc/{}/task", own_pid(&daemon))).expect("it runs");
    for thread in threads.flatten() {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        assert!(status.is_empty() || status.contains("CapEff:\t0000000000000400"), "{status}");
    }
    assert_eq!(heard(&bed, "10.77.0.1:25"), Err(ErrorKind::TimedOut), "dropped");
    let text: String = (0..1_000_000_u32)
        .map(|n| format!("{}\n", std::net::Ipv4Addr::from_bits(0x0b00_0000 + 2 * n)))
        .collect();
    let generation = value(&said(&daemon, &["status"]), "generation");
    fs::write(daemon.folder.path("bots"), text).expect("written");
    daemon.until("the million", |d| {
        let status = said(d, &["status"]);
        has(&status, "bots", "1000000 networks") && value(&status, "generation") != generation
    });
    let look = said(&daemon, &["look", "11.0.0.4"]);
    assert!(has(&look, "in the filter", "host of bots: count"), "{look:?}");
    assert_eq!(heard(&bed, "10.77.0.1:25"), Err(ErrorKind::TimedOut), "still dropped");
    assert!(daemon.stop().success());
}

#[test]
fn bans_come_back_with_a_daemon_that_was_killed() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut daemon = start("xdp-killed", "mode = \"answer\"\n", &[]);
    is_on(&mut daemon);
    daemon.ask(&["xdp", "add", "10.77.0.2"]);
    daemon.until("the ban", |d| has(&said(d, &["look", "10.77.0.2"]), "ban", "answer"));
    let id = value(&said(&daemon, &["look", "10.77.0.2"]), "ban id");
    let first = own_pid(&daemon);
    assert!(heard(&bed, "10.77.0.1:25").expect("answered").contains(&id));
    let pid = Pid::from_raw(i32::try_from(first).expect("a pid"));
    kill(pid, Signal::SIGKILL).expect("it runs");
    daemon.until("the next daemon", |d| {
        let output = d.tool(&["--json", "status"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["with"]["pid"].as_u64().is_some_and(|pid| pid != first)
    });
    let ban = |d: &Daemon| said(d, &["look", "10.77.0.2"]);
    daemon.until("its filter", |d| has(&ban(d), "in the filter", "ban of operator: answer"));
    assert!(heard(&bed, "10.77.0.1:25").expect("answered").contains(&id));
    assert_eq!(gates(&daemon).len(), 1, "each daemon has its own gate");
    // The gate dies: the daemon says so once, and does it by itself.
    let gate = Pid::from_raw(i32::try_from(gates(&daemon)[0]).expect("a pid"));
    kill(gate, Signal::SIGKILL).expect("it runs");
    daemon.line_with(&["ALARM", "no XDP filter", "by itself"]);
    let line = heard(&bed, "10.77.0.1:25").expect("heard");
    assert!(line.starts_with("554 5.7.1 [") && line.contains("refused too often"), "{line}");
    assert!(daemon.stop().success());
}

#[test]
fn a_filter_that_is_kept_outlives_the_daemon() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let pins = Pins::new("daemon");
    let xdp = format!("mode = \"drop\"\nkeep = true\npins = \"{}/ringpost\"\n", pins.0.display());
    let mut daemon = start("xdp-keep", &xdp, &[("never", "drop", "10.77.0.2\n")]);
    is_on(&mut daemon);
    let dropped = || assert_eq!(heard(&bed, "10.77.0.1:25"), Err(ErrorKind::TimedOut));
    dropped();
    let first = own_pid(&daemon);
    daemon.signal(Signal::SIGUSR2);
    let mut seen = 0;
    daemon.until("the next daemon", |d| {
        assert_eq!(heard(&bed, "10.77.0.1:25"), Err(ErrorKind::TimedOut), "no gap");
        seen += 1;
        let output = d.tool(&["--json", "xdp", "status"]);
        let on = String::from_utf8_lossy(&output.stdout).contains("rp0 (native)");
        let status: Value =
            serde_json::from_slice(&d.tool(&["--json", "status"]).stdout).unwrap_or_default();
        on && status["with"]["pid"].as_u64().is_some_and(|pid| pid != first)
    });
    assert!(seen > 0);
    assert!(daemon.stop().success());
    dropped();
}

#[test]
fn without_a_gate_or_an_interface_the_daemon_says_so_and_goes_on() {
    if !able() {
        return;
    }
    let _bed = Bed::new();
    for (name, words, why) in [
        ("xdp-alone", &[][..], "only `ringpostd --supervise`"),
        ("xdp-nowhere", &["--supervise"][..], "nosuch0"),
    ] {
        let mut setup = Setup::new(Backend::start(Manners::default()).address);
        setup.words = words.iter().map(|&word| word.to_owned()).collect();
        setup.more = "[xdp]\ninterfaces = [\"nosuch0\"]\nmode = \"answer\"\n".to_owned();
        let mut daemon = Daemon::start(name, setup);
        daemon.line_with(&["ALARM", "no XDP filter", why, "with the same lists"]);
        let log = daemon.log();
        assert_eq!(log.matches("no XDP filter").count(), 1, "one line");
        daemon.ask(&["xdp", "add", "127.0.0.1"]);
        daemon.until("the ban", |d| has(&said(d, &["look", "127.0.0.1"]), "ban", "answer"));
        let mut client = Client::connect_silent(daemon.address);
        assert!(client.reply().starts_with("554 5.7.1 ["), "the ladder holds");
        drop(client);
        assert!(daemon.stop().success());
    }
}

#[test]
fn behind_a_switch_that_hides_clients_the_filter_stands_down_and_says_so() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let lists = [("never", "drop", "10.77.0.2\n")];
    let mut daemon = start("xdp-proxy", "mode = \"drop\"\ntopology = \"proxy\"\n", &lists);
    daemon.line_with(&["the XDP filter is on no interface"]);
    daemon.line_with(&["the switch hides the clients: the filter stands down"]);
    let line = heard(&bed, "10.77.0.1:25").expect("heard by the daemon");
    assert!(line.starts_with("554 5.7.1 [") && line.contains("by never"), "{line}");
    assert!(daemon.stop().success());
}

/// CPU time of a process so far, in nanoseconds.
fn cpu_ns(pid: u64) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let of_task = |path: std::path::PathBuf| -> Option<u64> {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    tasks.flatten().filter_map(|task| of_task(task.path())).sum()
}

/// Nanoseconds that the filter of a gate ran, by the kernel's statistics.
fn filter_ns(gate: u64) -> u64 {
    let files = fs::read_dir(format!("/proc/{gate}/fdinfo")).expect("it runs");
    let of_file = |path: std::path::PathBuf| -> Option<u64> {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().find(|line| line.starts_with("run_time_ns:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    files.flatten().filter_map(|file| of_file(file.path())).max().unwrap_or(0)
}

/// The same refusal of the same client by the filter and by the daemon, in one run.
#[test]
#[ignore = "a measurement: prints figures, judges nothing"]
fn an_answered_session_beside_the_daemons() {
    const SESSIONS: u64 = 3_000;
    const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
    assert!(able());
    let bed = Bed::new();
    let mut daemon = start("xdp-figures", "mode = \"answer\"\n", &[]);
    is_on(&mut daemon);
    daemon.ask(&["xdp", "add", "10.77.0.2"]);
    let refused = |n: u64| {
        for _ in 0..n {
            assert!(heard(&bed, "10.77.0.1:25").expect("heard").starts_with("554 "));
        }
    };
    refused(100);
    let before = fs::read_to_string(SWITCH).expect("readable");
    fs::write(SWITCH, "1").expect("root may");
    let gate = gates(&daemon)[0];
    let from = filter_ns(gate);
    refused(SESSIONS);
    let filter = (filter_ns(gate) - from) / SESSIONS;
    fs::write(SWITCH, before).expect("root may");
    let gate = Pid::from_raw(i32::try_from(gate).expect("a pid"));
    kill(gate, Signal::SIGKILL).expect("it runs");
    daemon.line_with(&["ALARM", "no XDP filter"]);
    let from = cpu_ns(own_pid(&daemon));
    refused(SESSIONS);
    let ours = (cpu_ns(own_pid(&daemon)) - from) / SESSIONS;
    println!("a refused session: filter {filter} ns, daemon {ours} ns: {} times", ours / filter);
    assert!(daemon.stop().success());
}
