//! Configs are put in force, for some minutes or for good, and taken back.

use std::fs;

use super::{text, whole};
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::{Daemon, Setup};

fn refused(daemon: &Daemon, file: &str, part: &str) {
    let output = daemon.tool(&["config", "commit", file]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(whole(&output).contains(part), "{part}: {}", text(&output));
}

#[test]
fn a_config_is_checked_committed_and_rolled_back() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("configs", Setup::new(backend.address));
    let config = daemon.folder.path("mx.toml");
    let old = fs::read_to_string(&config).expect("there");
    let path = daemon.folder.path("new.toml");
    let file = path.display().to_string();
    let write =
        |change: &dyn Fn(String) -> String| fs::write(&path, change(old.clone())).expect("written");
    write(&|text| text.replace("[policy]\n", "[policy]\nrcpt_max = 123\n"));
    let diff = whole(&daemon.tool(&["config", "diff", &file]));
    assert!(diff.contains("+rcpt_max = 123"), "{diff}");
    let check = whole(&daemon.tool(&["config", "check", &file]));
    assert!(check.contains("changes policy"), "{check}");
    assert_eq!(fs::read_to_string(&config).expect("there"), old, "a check changes nothing");
    let done = daemon.tool(&["config", "commit", &file, "--why", "more recipients"]);
    assert!(done.status.success(), "{}", text(&done));
    assert_ne!(fs::read_to_string(&config).expect("there"), old);
    let history = whole(&daemon.tool(&["config", "history"]));
    assert!(history.contains("more recipients"), "{history}");
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<a@example.net>", "250");
    for n in 0..123 {
        client.expect(&format!("RCPT TO:<u{n}@example.org>"), "250");
    }
    assert!(client.say("RCPT TO:<one@example.org>").starts_with("452"));
    drop(client);
    let back = daemon.tool(&["config", "rollback", "1"]);
    assert!(back.status.success(), "{}", text(&back));
    assert_eq!(fs::read_to_string(&config).expect("there"), old);
    // What opens a relay, locks out, or is no config, is refused and changes nothing.
    write(&|text| text.replace("[policy]\n", "[policy]\nrelay_networks = [\"11.0.0.0/8\"]\n"));
    refused(&daemon, &file, "relay");
    write(&|text| text.replace("[admin]\n", "[admin]\nuids = [12345]\n"));
    refused(&daemon, &file, "admin");
    write(&|text| text.replace("[policy]\n", "[policy]\nrcpt_mx = 5\n"));
    refused(&daemon, &file, "rcpt_mx");
    assert_eq!(fs::read_to_string(&config).expect("there"), old);
    assert!(daemon.stop().success());
}

#[test]
fn an_unconfirmed_config_comes_back_over_a_restart() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("confirm", Setup::new(backend.address));
    let config = daemon.folder.path("mx.toml");
    let old = fs::read_to_string(&config).expect("there");
    let path = daemon.folder.path("new.toml");
    let file = path.display().to_string();
    fs::write(&path, old.replace("[policy]\n", "[policy]\nrcpt_max = 123\n")).expect("written");
    let done = daemon.tool(&["config", "commit", &file, "--confirm", "1"]);
    assert!(done.status.success(), "{}", text(&done));
    let history = whole(&daemon.tool(&["config", "history"]));
    assert!(history.contains("unconfirmed"), "{history}");
    let twice = daemon.tool(&["config", "commit", &file]);
    assert_eq!(twice.status.code(), Some(1), "{}", text(&twice));
    daemon.kill();
    // The minute has passed meanwhile.
    let state = daemon.folder.path("log/admin/unconfirmed");
    let waits = fs::read_to_string(&state).expect("durable");
    let number = waits.split(' ').next().expect("a number").to_owned();
    fs::write(&state, format!("{number} 1\n")).expect("written");
    daemon.start_again();
    daemon.until("the old config", |_| fs::read_to_string(&config).is_ok_and(|now| now == old));
    daemon.line_with(&["nobody confirmed"]);
    // Confirmed, it stays.
    let done = daemon.tool(&["config", "commit", &file, "--confirm", "60"]);
    assert!(done.status.success(), "{}", text(&done));
    let kept = daemon.tool(&["config", "confirm"]);
    assert!(kept.status.success(), "{}", text(&kept));
    assert!(!state.exists());
    assert_ne!(fs::read_to_string(&config).expect("there"), old);
    assert!(daemon.stop().success());
}
