//! Roles over the whole tree, the word before what ends something, and who did it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::pty::{Line, Taking};
use super::{text, whole};
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::{Daemon, Setup, program};

const DENIED: i32 = 4;

/// Without a terminal, as somebody who logged in, or as nobody.
fn said_by(daemon: &Daemon, who: Option<&str>, words: &[String]) -> Output {
    let mut command = Command::new(program("ringpost"));
    command.arg("--socket").arg(daemon.folder.path("admin.sock")).args(words);
    command.env("RINGPOST_STATE", daemon.folder.path("state")).stdin(Stdio::null());
    match who {
        Some(who) => command.env("RINGPOST_AS", who),
        None => command.env_remove("RINGPOST_AS"),
    };
    command.output().expect("ringpost runs")
}

#[test]
fn an_operator_may_what_the_table_says_and_nothing_else() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("roles", Setup::new(backend.address));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("console/roles.txt");
    let table = fs::read_to_string(path).expect("the table");
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    let lines: Vec<Vec<&str>> =
        lines.map(|line| line.split('|').map(str::trim).collect()).collect();
    let tree = daemon.ask(&["commands"]);
    let tree: BTreeSet<&str> =
        tree.as_array().expect("a list").iter().filter_map(|c| c["command"].as_str()).collect();
    let named: BTreeSet<&str> = lines.iter().map(|line| line[1]).collect();
    assert_eq!(tree, named, "tests/console/roles.txt names every command of the tree");
    let folder = daemon.folder.0.display().to_string();
    let before = daemon.ask(&["rules"]);
    for line in &lines {
        let (role, name) = (line[0], line[1]);
        if role == "nobody" {
            continue;
        }
        let arguments = line.get(2).copied().unwrap_or_default();
        let arguments =
            arguments.replace("{folder}", &folder).replace("{id}", "00000000000000000001.1");
        let words = format!("{name} {arguments}");
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let output = said_by(&daemon, Some("operator olga ttyT0"), &words);
        let denied = output.status.code() == Some(DENIED);
        assert_eq!(denied, role == "admin", "{words:?}: {}", text(&output));
        if denied {
            assert!(whole(&output).contains("an operator may not"), "{}", text(&output));
        }
    }
    assert_eq!(before, daemon.ask(&["rules"]), "nothing was ordered");
    assert!(!daemon.has_ended());
    // What the daemon refused stands in its log; what was refused before it, did nothing there.
    let audit = fs::read_to_string(daemon.folder.path("log/admin/audit.log")).expect("there");
    for part in ["denied: drain", "denied: queue-act", "denied: rule", "denied: config"] {
        assert!(audit.contains(&format!("login=olga@ttyT0 {part}")), "{part}: {audit}");
    }
    // His own password is his.
    let ours = fs::read_to_string(daemon.folder.path("state/audit.log")).expect("there");
    assert!(ours.lines().all(|line| line.contains("act: ") && line.contains("access password")));
    assert!(daemon.stop().success());
}

#[test]
fn what_ends_something_wants_its_word_and_stands_in_the_audit_log() {
    let mut setup = Setup::new(Backend::nowhere());
    setup.retry = "first_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n".to_owned();
    let mut daemon = Daemon::start("words", setup);
    let mut client = Client::greeted(daemon.address);
    let id = client.deliver("a@example.net", &["b@example.org"], "Subject: x\r\n\r\nx\r\n");
    drop(client);
    daemon.line_with(&[" == "]);
    let socket = daemon.folder.path("admin.sock").display().to_string();
    let state = daemon.folder.path("state").display().to_string();
    // On a line each asks, and another word than that does nothing.
    let state_is = format!("RINGPOST_STATE={state}");
    let by = ["RINGPOST_AS=admin root ttyT0", &state_is, "setsid", "--ctty"];
    let words = ["--socket", &socket, "shell"];
    let mut line = Line::start_as(&by, "vt100", &words, Taking::AtOnce);
    line.until("ringpost> ");
    for (words, word) in [
        ("drain".to_owned(), "DRAIN"),
        (format!("queue remove {id}"), "REMOVE"),
        (format!("queue bounce {id}"), "BOUNCE"),
        ("config rollback".to_owned(), "ROLLBACK"),
        ("upgrade /nowhere.manifest".to_owned(), "UPGRADE"),
        ("reboot".to_owned(), "REBOOT"),
        ("poweroff".to_owned(), "POWEROFF"),
        ("access remove root".to_owned(), "REMOVE"),
    ] {
        line.say(&words);
        line.until(&format!("Type {word} to do it: "));
        line.say("yes");
        line.until("nothing was done");
        line.until("ringpost> ");
    }
    line.say("quit");
    assert_eq!(line.end(), Some(0));
    line.assert_plain();
    assert!(!Path::new(&state).join("audit.log").exists(), "nothing was done");
    assert_eq!(daemon.ledger().queued, 1);
    // A script says the word; without it, or with another, nothing happens.
    let say = |words: &str| {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        said_by(&daemon, None, &words)
    };
    for (words, code) in [("drain", 2), ("drain --yes PLEASE", 1), ("access remove root", 2)] {
        let output = say(words);
        assert_eq!(output.status.code(), Some(code), "{words}: {}", text(&output));
    }
    assert!(whole(&say("drain")).contains("Say --yes DRAIN."));
    let drained = say("drain --yes DRAIN");
    assert!(drained.status.success(), "{}", text(&drained));
    assert!(daemon.wait().success());
    let audit = fs::read_to_string(daemon.folder.path("log/admin/audit.log")).expect("there");
    let acts: Vec<&str> = audit.lines().filter(|line| line.contains("drain")).collect();
    assert_eq!(acts.len(), 1, "{audit}");
    for part in ["uid=", "user=", "pid=", "at="] {
        assert!(acts[0].contains(part), "{part}: {audit}");
    }
    written_down_by_the_tool(&daemon, &id);
}

/// Nobody runs: what the tool does by itself, it writes down by itself, and before.
fn written_down_by_the_tool(daemon: &Daemon, id: &str) {
    let state = daemon.folder.path("state").display().to_string();
    let spool = daemon.folder.path("spool").display().to_string();
    let repaired = said_by(daemon, None, &["spool", "repair", "--yes", &spool].map(str::to_owned));
    assert!(repaired.status.success(), "{}", text(&repaired));
    let export = ["spool", "export", id, &spool, "--into", &state].map(str::to_owned);
    let exported = said_by(daemon, Some("admin root ttyT0"), &export);
    assert!(exported.status.success(), "{}", text(&exported));
    let audit = fs::read_to_string(format!("{state}/audit.log")).expect("kept");
    for part in ["act: spool repair --yes", "name=root line=ttyT0 act: ", "spool export", "uid="] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
    // Where it cannot be written down, it is not done.
    fs::write(daemon.folder.path("file"), "").expect("written");
    let mut command = Command::new(program("ringpost"));
    command.env("RINGPOST_STATE", daemon.folder.path("file"));
    let refused = command.args(["spool", "repair", "--yes", &spool]).output().expect("it runs");
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(!text(&refused).contains("Done."), "{}", text(&refused));
}
