//! Restarts that nobody outside notices, and an end that does not dawdle.

use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::{Daemon, Setup, program, sink};
use crate::daemon::refusals;

/// The pid of the supervisor's child, as it says itself.
fn child(daemon: &Daemon) -> u64 {
    let output = daemon.tool(&["--json", "status"]);
    let status: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null);
    status["with"]["pid"].as_u64().unwrap_or(0)
}

#[test]
fn restarts_under_100_connections_a_second_refuse_none() {
    let folder = crate::daemon::programs::Folder::new("restart-sink");
    let (_sink, backend) = sink(&folder.path("maildir"), "127.0.0.1:0", &[]);
    let mut setup = Setup::new(backend);
    setup.words = vec!["--supervise".to_owned()];
    // A drain waits for open sessions; those of the source end by themselves.
    let mut daemon = Daemon::start("restart", setup);
    let source = Command::new(program("mxbench"))
        .args(["source", "--json", "--target", &daemon.address.to_string()])
        .args(["--rate", "100", "--duration", "6", "--sessions", "400"])
        .args(["--messages-per-connection", "1", "--size", "1k"])
        .args(["--refusals", &refusals::file(daemon.address.port())])
        .stdout(Stdio::piped())
        .spawn()
        .expect("mxbench starts");
    let mut pids = vec![child(&daemon)];
    for round in 0..3 {
        let accepted = |log: &str| log.matches(" <= ").count();
        let before = accepted(&daemon.log());
        daemon.until("mail before the restart", |d| accepted(&d.log()) > before + 30);
        daemon.signal(Signal::SIGUSR2);
        daemon.until("another child", |daemon| {
            let now = child(daemon);
            now != 0 && now != pids[round]
        });
        pids.push(child(&daemon));
    }
    let output = source.wait_with_output().expect("it ends");
    let summary: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("mxbench prints JSON");
    let number = |name: &str| summary[name].as_u64().unwrap_or_else(|| panic!("{name}: {summary}"));
    println!("{} restarts, {summary}", pids.len() - 1);
    assert!(number("acked") >= 500, "{summary}");
    assert_eq!((number("refused"), number("failures"), number("unknown")), (0, 0, 0), "{summary}");
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn a_child_that_was_killed_is_followed_by_another() {
    let backend = Backend::start(Manners::default());
    let mut setup = Setup::new(backend.address);
    setup.words = vec!["--supervise".to_owned()];
    let mut daemon = Daemon::start("supervise", setup);
    let first = child(&daemon);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(first).expect("a pid"));
    nix::sys::signal::kill(pid, Signal::SIGKILL).expect("it runs");
    // What it had accepted goes with it; once it is gone nothing accepts before the next one does.
    daemon.until("it gone", |_| nix::sys::signal::kill(pid, None).is_err());
    // The address never goes away: this one waits in the socket's queue.
    let mut client = Client::connect(daemon.address);
    client.expect("EHLO client.example.net", "250");
    client.deliver("a@example.net", &["b@example.org"], "Subject: x\r\n\r\n");
    assert_ne!(child(&daemon), first);
    backend.wait_for(1);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn a_drain_ends_with_idle_clients() {
    let backend = Backend::start(Manners::default());
    let mut setup = Setup::new(backend.address);
    setup.node = String::new();
    let mut daemon = Daemon::start("drain", setup);
    let mut idle: Vec<Client> = (0..100).map(|_| Client::greeted(daemon.address)).collect();
    idle[0].deliver("a@example.net", &["b@example.org"], "Subject: x\r\n\r\n");
    backend.wait_for(1);
    let started = Instant::now();
    let status = daemon.stop();
    // Printed beside the 2 s that are asked for; the time is no verdict.
    println!("SIGTERM with 100 idle clients: {} ms", started.elapsed().as_millis());
    assert!(status.success());
    for client in &mut idle {
        let reply = client.reply();
        assert!(reply.starts_with("421 "), "{reply:?}");
        assert_eq!(client.line(), None);
    }
}

#[test]
fn a_message_under_way_is_taken_before_the_end() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("drain-data", Setup::new(backend.address));
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<a@example.net>", "250");
    client.expect("RCPT TO:<b@example.org>", "250");
    client.expect("DATA", "354");
    daemon.signal(Signal::SIGTERM);
    daemon.until("no more connections taken", |daemon| {
        std::net::TcpStream::connect(daemon.address).is_err()
    });
    let reply = client.say("Subject: x\r\n\r\nx\r\n.");
    // Either is honest; after a 250 the mail must be there.
    assert!(reply.starts_with("250 ") || reply.starts_with("421 "), "{reply}");
    assert!(daemon.wait().success());
    if reply.starts_with("250 ") {
        daemon.start_again();
        backend.wait_for(1);
        daemon.until_empty();
        assert!(daemon.stop().success());
    }
}
