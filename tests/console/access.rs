//! Logins on a line: wrong passwords, roles, idle time, the line's end, the audit log.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use super::pty::{Line, Taking};
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::programs::{Daemon, Folder, Setup, program};

const PASSWORD: &str = "correct horse";

/// A password from a pipe, as scripts give it.
fn access(state: &str, words: &[&str], password: &str) -> (bool, String) {
    let mut child = Command::new(program("ringpost"))
        .args(["access"].iter().chain(words))
        .args(["--state", state])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut stdin = child.stdin.take().expect("piped");
    // A refusal comes before it is read.
    let _ = writeln!(stdin, "{password}");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn logins(folder: &Folder) -> String {
    let state = folder.path("state").display().to_string();
    for (name, role) in [("root", "admin"), ("olga", "operator")] {
        let (done, said) = access(&state, &["add", name, "--role", role], PASSWORD);
        assert!(done, "{said}");
    }
    state
}

fn console(folder: &Folder, state: &str, term: &str, words: &[&str]) -> Line {
    console_as(&["setsid", "--ctty"], folder, state, term, words)
}

fn console_as(by: &[&str], folder: &Folder, state: &str, term: &str, words: &[&str]) -> Line {
    let socket = folder.path("admin.sock").display().to_string();
    let config = folder.path("mx.toml").display().to_string();
    let always = ["--socket", &socket, "console", "--line", "ttyT0", "--state", state];
    let config = ["--config", &config];
    Line::start_as(by, term, &[&always[..], &config, words].concat(), Taking::AtOnce)
}

/// Octets of the first words on a line.
const LOGIN_OCTETS_MAX: usize = 120;

fn log_in(line: &mut Line, name: &str) {
    name_and_password(line, name);
    line.until("ringpost> ");
}

fn name_and_password(line: &mut Line, name: &str) {
    let first = line.until("login: ");
    assert!(first.len() <= LOGIN_OCTETS_MAX, "{} octets: {first:?}", first.len());
    line.say(name);
    line.until("password: ");
    line.say(PASSWORD);
}

fn audit(state: &str) -> String {
    fs::read_to_string(format!("{state}/audit.log")).expect("an audit log")
}

#[test]
fn roles_are_held_here_and_by_the_daemon() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("access-roles", Setup::new(backend.address));
    let state = logins(&daemon.folder);
    let mut line = console(&daemon.folder, &state, "vt100", &[]);
    log_in(&mut line, "olga");
    assert!(line.ask("status").contains("running"));
    let retried = line.ask("queue retry --all");
    assert!(retried.contains("no such message"), "asked, and there is none: {retried}");
    // The daemon's own word, and that of the program for what it would do itself.
    for act in ["block 192.0.2.9", "drain", "suspend accepting", "queue freeze --all"] {
        let said = line.ask(act);
        assert!(said.contains("an operator may not ask this"), "{act}: {said}");
    }
    for act in ["reboot", "access remove root", "spool repair /nowhere", "access add eve"] {
        let said = line.ask(act);
        assert!(said.contains("an operator may not"), "{act}: {said}");
    }
    line.say("quit");
    assert_eq!(line.end(), Some(0));
    line.assert_plain();
    let mut line = console(&daemon.folder, &state, "dumb", &[]);
    log_in(&mut line, "root");
    assert!(!line.ask("block 192.0.2.9").contains("may not"));
    line.say("quit");
    line.end();
    let ours = audit(&state);
    for part in
        ["name=olga line=ttyT0 login operator", "name=olga line=ttyT0 does: drain", "logout"]
    {
        assert!(ours.contains(part), "{part}: {ours}");
    }
    let theirs = daemon.folder.path("log/admin/audit.log");
    let theirs = fs::read_to_string(theirs).expect("the daemon's audit log");
    assert!(theirs.contains("login=olga@ttyT0 denied: drain"), "{theirs}");
    assert!(theirs.contains("login=root@ttyT0 rule"), "{theirs}");
    assert!(daemon.stop().success(), "nobody drained it");
}

#[test]
fn wrong_passwords_wait_longer_each_time_over_a_new_start() {
    let folder = Folder::new("access-wrong");
    let state = logins(&folder);
    fs::write(folder.path("mx.toml"), "").expect("a config");
    let wrong = |line: &mut Line| {
        line.until("login: ");
        line.say("root");
        line.until("password: ");
        line.say("wrong horse");
        line.until("That is not right.");
    };
    let waits = |line: &mut Line| -> u64 {
        line.until("Wait ");
        line.until(" s.").trim_end_matches(" s.").parse().expect("seconds")
    };
    let failures = || fs::read_to_string(format!("{state}/failures")).expect("kept");
    // Longer than a busy machine takes from one line to the next.
    let mut line = console(&folder, &state, "dumb", &["--delay-s", "200"]);
    wrong(&mut line);
    let seconds = waits(&mut line);
    assert!((1..=200).contains(&seconds), "{seconds}");
    drop(line);
    let mut line = console(&folder, &state, "dumb", &["--delay-s", "0.001"]);
    wrong(&mut line);
    line.until("login: ");
    drop(line);
    assert!(failures().starts_with("2 "), "{}", failures());
    // The third try waits twice as long, although the program was started anew.
    let mut line = console(&folder, &state, "dumb", &["--delay-s", "200"]);
    let seconds = waits(&mut line);
    assert!((201..=400).contains(&seconds), "{seconds}");
    drop(line);
    let mut line = console(&folder, &state, "dumb", &["--delay-s", "0.001"]);
    log_in(&mut line, "root");
    assert!(failures().starts_with("0 "), "{}", failures());
    line.say("quit");
    line.end();
    assert!(!line.all().contains("horse"), "a password was shown: {}", line.all());
    assert_eq!(audit(&state).matches("wrong name or password").count(), 2, "{}", audit(&state));
    let hashes = fs::read_to_string(format!("{state}/access")).expect("there");
    assert!(hashes.contains("$argon2id$") && !hashes.contains("horse"), "{hashes}");
}

#[test]
fn who_does_not_type_is_logged_out_and_so_is_a_line_that_goes() {
    let folder = Folder::new("access-idle");
    let state = logins(&folder);
    fs::write(folder.path("mx.toml"), "").expect("a config");
    for term in ["vt100", "dumb"] {
        let mut line = console(&folder, &state, term, &["--idle-s", "0.4"]);
        // On a busy machine the prompt may not come before the end.
        name_and_password(&mut line, "root");
        line.until("Logged out: nobody typed.");
        assert_eq!(line.end(), Some(0));
        line.assert_plain();
    }
    // The line's end is read before its signal comes, or the other way round; without a controlling
    // terminal there is no signal.
    for (term, by) in [
        ("vt100", &["setsid", "--ctty"][..]),
        ("dumb", &["setsid", "--ctty"]),
        ("vt100", &["setsid"]),
        ("dumb", &["setsid"]),
    ] {
        let mut line = console_as(by, &folder, &state, term, &["--carrier"]);
        log_in(&mut line, "root");
        line.hang_up();
        assert_eq!(line.end(), Some(0));
    }
    let log = audit(&state);
    assert_eq!(log.matches("logout: nobody typed").count(), 2, "{log}");
    assert_eq!(log.matches("logout: hung up").count(), 4, "{log}");
}

#[test]
fn without_a_login_only_a_machine_without_a_config_is_open() {
    let folder = Folder::new("access-none");
    let state = folder.path("state").display().to_string();
    fs::write(folder.path("mx.toml"), "").expect("a config");
    let mut line = console(&folder, &state, "dumb", &[]);
    line.until("nobody is let in");
    assert_eq!(line.end(), Some(4));
    // A file from the stick counts until there is one of our own.
    let other = folder.path("other").display().to_string();
    assert!(access(&other, &["add", "root", "--role", "admin"], PASSWORD).0);
    fs::copy(folder.path("other/access"), folder.path("access")).expect("copied");
    let mut line = console(&folder, &state, "dumb", &[]);
    log_in(&mut line, "root");
    line.say("access password");
    line.until("New password: ");
    line.say("battery staple");
    line.until("Again: ");
    line.say("battery stable");
    line.until("two different passwords");
    line.until("ringpost> ");
    line.say("access password");
    line.until("New password: ");
    line.say("battery staple");
    line.until("Again: ");
    line.say("battery staple");
    line.until("The password is set.");
    line.say("quit");
    line.end();
    assert!(fs::read_to_string(format!("{state}/access")).expect("its own").contains("root admin"));
    // The last admin stays; what is wrong is refused.
    assert!(!access(&state, &["remove", "root", "--yes", "REMOVE"], "").0);
    assert!(!access(&state, &["add", "Eve"], PASSWORD).0);
    assert!(!access(&state, &["add", "eve"], "short").0);
    assert!(!access(&state, &["password", "nobody"], PASSWORD).0);
    fs::write(format!("{state}/access"), "root admin x\n").expect("broken");
    let mut line = console(&folder, &state, "dumb", &[]);
    line.until("makes no sense");
    assert_eq!(line.end(), Some(1));
}
