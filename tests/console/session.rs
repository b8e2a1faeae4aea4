//! Played sessions, routes, recipients, trials, watched sessions: nothing of it has an effect.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::{text, whole};
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::{self, Daemon, Setup};

/// The admin tool with these words and this input; its output.
fn with_input(daemon: &Daemon, words: &[&str], input: &str) -> (String, String) {
    let mut child = Command::new(programs::program("ringpost"))
        .arg("--socket")
        .arg(daemon.folder.path("admin.sock"))
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ringpost runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_session_is_played_from_any_address_without_a_trace() {
    let backend = Backend::start(Manners::default());
    let mut setup = Setup::new(backend.address);
    setup.limits = "exempt_networks = []\n".to_owned();
    let mut daemon = Daemon::start("session", setup);
    let metrics = |daemon: &Daemon| {
        let page = text(&daemon.tool(&["metrics"]));
        let counts = |line: &&str| {
            ["_accepted_total", "_refused_total", "connections_total"]
                .iter()
                .any(|n| line.contains(n))
        };
        page.lines().filter(counts).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = (metrics(&daemon), daemon.ledger(), text(&daemon.tool(&["hints", "list"])));
    let lines = [
        "EHLO client.example\r\n",
        "MAIL FROM:<a@example.net>\r\n",
        "RCPT TO:<b@elsewhere.example>\r\n",
        "RCPT TO:<b@example.org>\r\n",
        "DATA\r\n",
        "Subject: x\r\n\r\nbody\r\n.\r\n",
        "QUIT\r\n",
    ];
    // All at once: groups that RFC 2920 allows, and behind DATA it does not.
    let (out, notes) =
        with_input(&daemon, &["session", "--from", "198.51.100.7"], &lines[..4].concat());
    for part in ["220 ", "250-mx.example.org", "550 5.7.1", "250 2.1.5"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(notes.contains("relay_denied") && notes.contains("taken"), "{notes}");
    let after = (metrics(&daemon), daemon.ledger(), text(&daemon.tool(&["hints", "list"])));
    assert_eq!(before.1, after.1);
    assert_eq!(before.0, after.0, "a played session counts nothing");
    assert_eq!(backend.count(), 0);
    let why = daemon.tool(&["why", "198.51.100.7"]);
    assert_eq!(why.status.code(), Some(5), "{}", text(&why));
    let blocked = daemon.tool(&["block", "198.51.100.0/24"]);
    assert!(blocked.status.success(), "{}", text(&blocked));
    let (out, _) = with_input(&daemon, &["session", "--from", "198.51.100.7"], "");
    assert!(out.starts_with("554 5.7.1"), "{out}");
    assert!(daemon.stop().success());
}

#[test]
fn routes_recipients_and_backends_are_tried() {
    let backend = Backend::start(Manners { offers: vec!["SIZE 4321"], ..Manners::default() });
    let mut daemon = Daemon::start("trials", Setup::new(backend.address));
    let port = backend.address.to_string();
    let route = whole(&daemon.tool(&["route", "a@example.org"]));
    assert!(route.contains(&port) && route.contains("up"), "{route}");
    let verify = whole(&daemon.tool(&["verify", "a@elsewhere.example"]));
    assert!(verify.contains("from a stranger refused, relay_denied"), "{verify}");
    let verify = whole(&daemon.tool(&["verify", "a@example.org"]));
    assert!(verify.contains("from a stranger taken"), "{verify}");
    let tried = whole(&daemon.tool(&["test", "backend"]));
    assert!(tried.contains("connected") && tried.contains("SIZE 4321"), "{tried}");
    let nowhere = Backend::nowhere().to_string();
    let down = whole(&daemon.tool(&["test", "backend", &nowhere]));
    assert!(down.contains("refused"), "{down}");
    let sent = whole(&daemon.tool(&["test", "send", "a@example.org"]));
    assert!(sent.contains("accepted"), "{sent}");
    assert!(backend.wait_for(1)[0].text().contains("Trial of the mail exchanger"));
    let explain = whole(&daemon.tool(&["config", "explain", "retry.first_s"]));
    assert!(
        explain.contains("Wait after the first failure") && explain.contains("default"),
        "{explain}"
    );
    let unknown = daemon.tool(&["config", "explain", "nonsense"]);
    assert_eq!(unknown.status.code(), Some(5), "{}", text(&unknown));
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn a_watched_session_is_in_why_line_by_line() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("trace", Setup::new(backend.address));
    let on = daemon.tool(&["trace", "127.0.0.0/8"]);
    assert!(on.status.success(), "{}", text(&on));
    let mut client = Client::greeted(daemon.address);
    client.expect("NOOP something", "250");
    let why = whole(&daemon.tool(&["why", "127.0.0.1"]));
    for part in ["-> EHLO client.example.net", "-> NOOP something", "<- 220 mx.example.org"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    drop(client);
    assert!(daemon.stop().success());
}

#[test]
fn the_plain_line_and_the_menu_are_the_same_commands() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("shell", Setup::new(backend.address));
    let input = "menu\n1\nledger\nqueue s?\nno such thing\nquit\n";
    let (out, errors) = with_input(&daemon, &["shell"], input);
    for part in ["queue summary", "running", "The ledger balances.", "The backlog by next hop"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(errors.contains("unrecognized"), "{errors}");
    // Nothing is asked of the terminal, and nothing moves its cursor.
    assert!(!out.contains('\u{1b}') && out.is_ascii(), "{out:?}");
    let live = text(&daemon.tool(&["live", "--every-s", "1", "--count", "1"]));
    assert!(live.contains("acc/s") && live.lines().count() == 2, "{live}");
    assert!(daemon.stop().success());
}
