//! The wizard, played from a file on several kinds of terminals, and what comes of its answers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::pty::{Line, Taking};
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::dns::{Data, Dns};
use crate::daemon::programs::{Folder, Running, program, ready};

fn world() -> Dns {
    let own = Data::Address("127.0.0.1".parse().expect("an address"));
    Dns::start(&[
        ("mx.example.org", own),
        ("1.0.0.127.in-addr.arpa", Data::Ptr("mx.example.org")),
        ("example.org", Data::Mx(10, "mx.example.org")),
        ("example.com", Data::Mx(10, "elsewhere.example.net")),
        ("_25._tcp.mx.example.org", Data::Tlsa([3, 1, 1, 0])),
    ])
}

/// Octets of a question with its help and wrong answers, and of the page at the end.
const QUESTION_OCTETS_MAX: usize = 700;
const SUMMARY_OCTETS_MAX: usize = 1_400;

/// What was said, question by question, is short enough for a slow line.
fn assert_short(all: &str) {
    const LAST: &str = " 1 host name";
    for question in all.split("/6 ") {
        let question = question.split(LAST).next().unwrap_or_default();
        assert!(question.len() <= QUESTION_OCTETS_MAX, "{} octets: {question}", question.len());
    }
    for page in all.split(LAST).skip(1) {
        let page = page.split("or `quit`").next().unwrap_or_default();
        assert!(page.len() <= SUMMARY_OCTETS_MAX, "{} octets: {page}", page.len());
    }
}

fn play(line: &mut Line, file: &str, names: &[(&str, String)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("console/dialogs").join(file);
    let text = fs::read_to_string(path).expect("the dialogue");
    for step in text.lines().filter(|step| !step.starts_with('#')) {
        let mut words = step.get(1..).expect("a letter").trim_start().to_owned();
        for (name, value) in names {
            words = words.replace(name, value);
        }
        match step.get(..1) {
            Some("S") => drop(line.until(&words)),
            Some("C") => line.say(&words),
            _ => panic!("no step: {step}"),
        }
    }
}

/// The program that `config commit` is said to: it keeps the words.
fn by(folder: &Folder) -> String {
    let path = folder.path("by");
    let text = format!("#!/bin/sh\necho \"$@\" >> {}\n", folder.path("said").display());
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("changed");
    path.display().to_string()
}

fn wizard(folder: &Folder, term: &str, taking: Taking) -> Line {
    let dns = world();
    let backend = Backend::start(Manners::default());
    let (into, state) = (folder.path("new"), folder.path("state"));
    let by = by(folder);
    let (into, state) = (into.display().to_string(), state.display().to_string());
    let words = ["wizard", "--into", &into, "--state", &state, "--by", &by, "--port", "2525"];
    let mut line = Line::start(term, &words, taking);
    let names = [
        ("{dns}", dns.address.to_string()),
        ("{backend}", backend.address.to_string()),
        ("{dead}", Backend::nowhere().to_string()),
    ];
    play(&mut line, "wizard.txt", &names);
    assert_eq!(line.end(), Some(0), "{}", line.all());
    line.assert_plain();
    assert_short(&line.all());
    line
}

#[test]
fn ten_questions_make_a_config_that_takes_mail() {
    let folder = Folder::new("wizard");
    let line = wizard(&folder, "vt100", Taking::AtOnce);
    assert!(!line.all().contains("correct horse"), "a password was shown");
    let new = folder.path("new");
    let files = ["mx.toml", "recipients"].map(|name| new.join(name).display().to_string());
    let said = fs::read_to_string(folder.path("said")).expect("it was committed");
    assert_eq!(said.trim(), format!("config commit {} --confirm 10", files.join(" ")));
    let access = fs::read_to_string(folder.path("state/access")).expect("a login");
    assert!(access.starts_with("admin admin $argon2id$"), "{access}");
    // The daemon starts with it, on a port of the kernel's choice, and knows who is there.
    let text = fs::read_to_string(new.join("mx.toml")).expect("written");
    assert!(text.contains("port = 2525"), "{text}");
    fs::write(new.join("mx.toml"), text.replace("port = 2525", "port = 0")).expect("written");
    let mut daemon = std::process::Command::new(program("ringpostd"))
        .args(["--config", &files[0]])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    let address = ready(&mut daemon, "ready: ").expect("it is ready");
    let mut daemon = Running(daemon);
    let mut client = Client::greeted(address.parse().expect("an address"));
    client.expect("MAIL FROM:<a@example.net>", "250");
    client.expect("RCPT TO:<ann@example.org>", "250");
    client.expect("RCPT TO:<anybody@example.com>", "250");
    assert!(client.say("RCPT TO:<bob@example.org>").starts_with("550"));
    drop(client);
    assert!(daemon.stop().success());
}

#[test]
fn a_dumb_and_slow_terminal_is_enough_for_the_wizard() {
    let folder = Folder::new("wizard-slow");
    let line = wizard(&folder, "dumb", Taking::Slowly);
    assert!(!line.all().contains('\u{1b}'), "{:?}", line.all());
}

#[test]
fn what_the_world_says_otherwise_is_told_before_anything_is_committed() {
    let folder = Folder::new("wizard-otherwise");
    let own = Data::Address("127.0.0.1".parse().expect("an address"));
    let dns = Dns::start(&[
        ("mx.example.org", own),
        ("1.0.0.127.in-addr.arpa", Data::Ptr("host1.provider.example")),
    ]);
    let backend = Backend::start(Manners::default());
    let (into, state) = (folder.path("new"), folder.path("state"));
    let (into, state) = (into.display().to_string(), state.display().to_string());
    let words = ["wizard", "--into", &into, "--state", &state, "--by", &by(&folder)];
    let mut line = Line::start("vt100", &words, Taking::AtOnce);
    let names = [
        ("{dns}", dns.address.to_string()),
        ("{dead}", Backend::nowhere().to_string()),
        ("{backend}", backend.address.to_string()),
    ];
    play(&mut line, "otherwise.txt", &names);
    assert_eq!(line.end(), Some(1), "{}", line.all());
    line.assert_plain();
    assert!(!folder.path("said").exists() && !folder.path("state").exists());
    assert_eq!(fs::read_dir(folder.path("new")).expect("an empty folder").count(), 0);
}

#[test]
fn what_is_not_committed_changes_nothing() {
    let folder = Folder::new("wizard-quit");
    let into = folder.path("new").display().to_string();
    let state = folder.path("state").display().to_string();
    let words = ["wizard", "--into", &into, "--state", &state, "--by", &by(&folder)];
    let mut line = Line::start("dumb", &words, Taking::AtOnce);
    line.until("1/6");
    line.say("mx.example.org");
    line.until("2/6");
    // The end of the line.
    line.keys("\u{4}");
    line.until("nothing was changed");
    assert_eq!(line.end(), Some(1));
    assert!(!folder.path("said").exists() && !folder.path("state").exists());
    assert_eq!(fs::read_dir(folder.path("new")).expect("an empty folder").count(), 0);
}

/// A machine without a config: the wizard comes before any login, and the login it makes counts.
#[test]
fn the_console_begins_with_the_wizard_where_there_is_no_config() {
    let folder = Folder::new("wizard-first");
    let state = folder.path("state").display().to_string();
    let config = folder.path("mx.toml").display().to_string();
    let words = ["console", "--line", "ttyT0", "--state", &state, "--config", &config];
    let mut line = Line::start("dumb", &words, Taking::AtOnce);
    // This is no appliance: it says so, and nobody is let in.
    line.until("this is not the appliance");
    line.until("the wizard ended without a config");
    assert_eq!(line.end(), Some(2));
    let audit = fs::read_to_string(folder.path("state/audit.log")).expect("kept");
    assert!(audit.contains("first start: the wizard, without a password"), "{audit}");
}
