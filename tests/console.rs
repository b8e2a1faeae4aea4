//! `ringpost` against a running daemon: the words an operator types.

mod access;
mod acts;
mod configs;
mod dead;
mod incidents;
mod lines;
mod moves;
mod pty;
mod roles;
mod session;
mod tree;
mod why;
mod wizard;

use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::{Daemon, Setup};

pub(crate) fn text(output: &std::process::Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8(text).expect("what it prints is text");
    for line in text.lines().filter(|line| !line.starts_with('{') && !line.starts_with('#')) {
        assert!(line.is_ascii() && line.len() <= 79, "too wide for a terminal: {line:?}");
    }
    text
}

/// The same with single spaces: what was wrapped is whole again.
pub(crate) fn whole(output: &std::process::Output) -> String {
    text(output).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn status_queue_and_ledger_of_a_daemon_with_waiting_mail() {
    let address = Backend::nowhere();
    let mut setup = Setup::new(address);
    setup.retry = "first_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n".to_owned();
    let mut daemon = Daemon::start("console", setup);
    let mut client = Client::greeted(daemon.address);
    let mut ids = Vec::new();
    for n in 0..3 {
        let to = [format!("a{n}@example.org"), format!("b{n}@example.org")];
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        ids.push(client.deliver("sender@example.net", &to, "Subject: x\r\n\r\nbody\r\n"));
    }
    daemon.line_with(&[" == "]);
    let status = daemon.ask(&["status"]);
    assert_eq!(status["state"], "running");
    assert_eq!(status["queued_messages"], 3);
    assert_eq!(status["queued_recipients"], 6);
    assert!(text(&daemon.tool(&["status"])).contains("running"));
    let list = daemon.ask(&["queue", "list"]);
    let mut listed: Vec<&str> = list["messages"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|m| m["id"].as_str())
        .collect();
    listed.sort_unstable();
    ids.sort();
    assert_eq!(listed, ids);
    let show = daemon.ask(&["queue", "show", &ids[0]]);
    assert_eq!(show["entry"]["sender"], "sender@example.net");
    assert_eq!(show["recipients"].as_array().map(Vec::len), Some(2), "{show}");
    assert!(show["helo"] == "client.example.net", "{show}");
    let none = daemon.tool(&["queue", "show", "00000000000000000000.1"]);
    assert!(!none.status.success(), "{}", text(&none));
    let books = text(&daemon.tool(&["ledger"]));
    assert!(books.contains("The ledger balances."), "{books}");
    let version = daemon.ask(&["version"]);
    assert!(version.to_string().contains(env!("CARGO_PKG_VERSION")), "{version}");
    assert!(daemon.stop().success());
}

#[test]
fn reload_and_drain_by_the_tool() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("console-drain", Setup::new(backend.address));
    let reloaded = daemon.tool(&["reload"]);
    assert!(reloaded.status.success(), "{}", text(&reloaded));
    daemon.set(|setup| setup.policy.push_str("size_max = \"huge\"\n"));
    let refused = daemon.tool(&["reload"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("mx.toml:"), "{}", text(&refused));
    assert!(text(&refused).contains("size_max") || text(&refused).contains("huge"));
    let drained = daemon.tool(&["drain", "--yes", "DRAIN"]);
    assert!(drained.status.success(), "{}", text(&drained));
    assert!(daemon.wait().success());
    let gone = daemon.tool(&["status"]);
    assert!(!gone.status.success(), "{}", text(&gone));
}

#[test]
fn hints_are_read_set_and_deleted() {
    let backend = Backend::start(Manners { offers: vec!["SIZE 4321"], ..Manners::default() });
    let mut daemon = Daemon::start("console-hints", Setup::new(backend.address));
    let key = backend.address.to_string();
    daemon.until("the probe", |daemon| {
        daemon.ask(&["hints", "list", "--kind", "offers"]).to_string().contains("4321")
    });
    let got = daemon.ask(&["hints", "get", "offers", &key]);
    assert!(got.to_string().contains("4321"), "{got}");
    let deleted = daemon.tool(&["hints", "delete", "offers", &key]);
    assert!(deleted.status.success(), "{}", text(&deleted));
    daemon.until("it gone", |daemon| {
        !daemon.tool(&["hints", "get", "offers", &key]).status.success()
    });
    assert!(daemon.stop().success());
}
