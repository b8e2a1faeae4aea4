//! `ringpost why`: what was refused, what waits, what a client did.

use super::{text, whole};
use crate::daemon::backend::Backend;
use crate::daemon::client::{Client, id_of};
use crate::daemon::programs::{Daemon, Setup};
use crate::daemon::refusals;

/// The net below every daemon of the tests holds: an id that nobody gave tears it.
#[test]
#[should_panic(expected = "why does not know")]
fn a_refusal_that_why_does_not_know_fails_the_test() {
    let mut daemon = Daemon::start("why-planted", Setup::new(Backend::nowhere()));
    let planted = b"550 5.7.1 [00010000200000009999.1] relaying denied\r\n";
    refusals::note_line(daemon.address.port(), planted);
    daemon.stop();
}

#[test]
#[should_panic(expected = "does not say")]
fn a_refusal_of_which_why_says_something_else_fails_the_test() {
    let mut daemon = Daemon::start("why-else", Setup::new(Backend::nowhere()));
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<sender@example.net>", "250");
    let reply = client.say("RCPT TO:<who@elsewhere.example>");
    let planted = reply.replace("relaying denied", "no such recipient here");
    refusals::note_text(daemon.address.port(), &planted);
    daemon.kill();
}

#[test]
fn the_files_of_a_dead_daemon_know_what_was_refused() {
    let mut daemon = Daemon::start("why-dead", Setup::new(Backend::nowhere()));
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<sender@example.net>", "250");
    let reply = client.say("RCPT TO:<who@elsewhere.example>");
    let refused = id_of(&reply).to_owned();
    daemon.line_with(&[&refused]);
    daemon.kill();
    let dead = daemon.tool(&["status"]);
    assert!(whole(&dead).contains("log tail --dir FOLDER"), "{}", text(&dead));
    let none = daemon.tool(&["why", &refused]);
    assert_eq!(none.status.code(), Some(3), "{}", text(&none));
    assert!(whole(&none).contains("--dir FOLDER"), "{}", text(&none));
    let folder = daemon.folder.path("log").display().to_string();
    let files = |words: &[&str]| daemon.tool(&[words, &["--dir", &folder]].concat());
    for what in [&*refused, "who@elsewhere.example", "127.0.0.1", "@elsewhere.example"] {
        let why = files(&["why", what]);
        assert!(why.status.success(), "{what}: {}", text(&why));
        for part in ["From the log files alone", "relaying denied", &refused, "rejectlog"] {
            assert!(whole(&why).contains(part), "{what}: {part}: {}", text(&why));
        }
    }
    let found = files(&["log", "grep", "WHO@elsewhere.example"]);
    assert!(whole(&found).contains("relaying denied"), "{}", text(&found));
    let tail = files(&["log", "tail", "--count", "1", "--reject"]);
    assert!(!whole(&tail).is_empty(), "{}", text(&tail));
    let unknown = files(&["why", "00010000200000009999.1"]);
    assert_eq!(unknown.status.code(), Some(5), "{}", text(&unknown));
    assert!(whole(&unknown).contains("mainlog goes back to 20"), "{}", text(&unknown));
    let odd = files(&["why", "nonsense"]);
    assert_eq!(odd.status.code(), Some(1), "{}", text(&odd));
    let state = daemon.folder.path("spool").display().to_string();
    let wrong = daemon.tool(&["why", &refused, "--dir", &state]);
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong));
    assert!(whole(&wrong).contains("[log] dir"), "{}", text(&wrong));
}

#[test]
fn logs_in_json_are_searched_for_a_client_whether_a_daemon_runs_or_not() {
    let mut setup = Setup::new(Backend::nowhere());
    setup.log = "format = \"json\"\n".to_owned();
    let mut daemon = Daemon::start("why-json", setup);
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<sender@example.net>", "250");
    let reply = client.say("RCPT TO:<who@elsewhere.example>");
    let refused = id_of(&reply).to_owned();
    let line = daemon.line_with(&[&refused]);
    daemon.kill();
    let folder = daemon.folder.path("log").display().to_string();
    let why = daemon.tool(&["why", "127.0.0.1", "--dir", &folder]);
    assert!(whole(&why).contains("relaying denied"), "{}", text(&why));
    for part in ["127.0.0.0/8", "nonsense"] {
        let odd = daemon.tool(&["why", part, "--dir", &folder]);
        assert_eq!(odd.status.code(), Some(1), "{}", text(&odd));
        let said = whole(&odd);
        assert!(said.contains("log grep WORD --dir FOLDER"), "{said}");
        assert!(said.contains("a network is not looked for"), "{said}");
    }
    for part in ["7.0.0.1", "127.0.0.10", "ho@elsewhere.example"] {
        let other = daemon.tool(&["why", part, "--dir", &folder]);
        assert_eq!(other.status.code(), Some(5), "{part}: {}", text(&other));
    }
    // As it stands in the line, with T and milliseconds.
    let time = &line["{\"time\":\"".len()..][.."2026-02-03T04:05:06.789".len()];
    let words = ["log", "grep", &refused, "--since", time, "--until", time, "--dir", &folder];
    let found = daemon.tool(&words);
    assert!(whole(&found).contains("relaying denied"), "{time}: {}", text(&found));
    // The recorder of the new daemon is empty: its files answer here, too.
    daemon.start_again();
    let why = daemon.tool(&["why", "127.0.0.1"]);
    assert!(whole(&why).contains("relaying denied"), "{}", text(&why));
    let network = daemon.tool(&["why", "127.0.0.0/8"]);
    assert_eq!(network.status.code(), Some(5), "{}", text(&network));
    let said = whole(&network);
    assert!(said.contains("not searched for a network") && said.contains("log grep"), "{said}");
    assert!(said.contains("the queue.") && !said.contains("goes back"), "{said}");
    let other = daemon.tool(&["why", "127.0.0.10"]);
    assert_eq!(other.status.code(), Some(5), "{}", text(&other));
    assert!(daemon.stop().success());
}

#[test]
fn why_knows_what_was_refused_what_waits_and_what_a_client_did() {
    let mut setup = Setup::new(Backend::nowhere());
    setup.retry = "first_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n".to_owned();
    let mut daemon = Daemon::start("why", setup);
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<sender@example.net>", "250");
    let reply = client.say("RCPT TO:<who@elsewhere.example>");
    assert!(reply.starts_with("550 5.7.1"), "{reply}");
    let refused = id_of(&reply).to_owned();
    let why = whole(&daemon.tool(&["why", &refused]));
    for part in ["relaying denied", "who@elsewhere.example", "sender@example.net", "See: "] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let by_address = daemon.ask(&["why", "who@elsewhere.example"]);
    assert_eq!(by_address["lines"][0]["reason"], "relay_denied", "{by_address}");
    let by_client = daemon.ask(&["why", "127.0.0.1"]);
    let what: Vec<&str> = by_client["lines"]
        .as_array()
        .expect("lines")
        .iter()
        .filter_map(|l| l["what"].as_str())
        .collect();
    assert!(what.contains(&"connected") && what.contains(&"refused"), "{what:?}");
    client.expect("RSET", "250");
    let id = client.deliver("sender@example.net", &["a@example.org"], "Subject: x\r\n\r\nbody\r\n");
    daemon.line_with(&[" == "]);
    let why = whole(&daemon.tool(&["why", &id]));
    for part in ["accepted", "deferred", "It waits for 1 of 1", "test backend"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let waits = whole(&daemon.tool(&["why", "a@example.org"]));
    assert!(waits.contains("waits in the queue"), "{waits}");
    // After a kill the recorder is empty: the log files know.
    daemon.line_with(&[&refused]);
    daemon.kill();
    daemon.start_again();
    let why = whole(&daemon.tool(&["why", &refused]));
    assert!(why.contains("relaying denied") && why.contains("mainlog"), "{why}");
    let unknown = daemon.tool(&["why", "nobody@nowhere.example"]);
    assert_eq!(unknown.status.code(), Some(5), "{}", text(&unknown));
    assert!(whole(&unknown).contains("mainlog goes back to 20"), "{}", text(&unknown));
    let played = daemon.tool(&["why", "REHEARSAL00000000000.1"]);
    assert_eq!(played.status.code(), Some(1), "{}", text(&played));
    assert!(whole(&played).contains("played session"), "{}", text(&played));
    assert_eq!(daemon.tool(&["why", "nonsense"]).status.code(), Some(1));
    let found = whole(&daemon.tool(&["log", "grep", "WHO@elsewhere.example"]));
    assert!(found.contains("relaying denied"), "{found}");
    let none = daemon.tool(&["log", "grep", "nothing-that-was-said"]);
    assert!(whole(&none).contains("No line fits"), "{}", text(&none));
    let odd = daemon.tool(&["log", "grep", "x", "--since", "tomorrow"]);
    assert_eq!(odd.status.code(), Some(2), "{}", text(&odd));
    assert!(whole(&odd).contains("this is no time"), "{}", text(&odd));
    let late = daemon.tool(&["log", "grep", "relaying", "--since", "2026-01"]);
    assert!(whole(&late).contains("relaying denied"), "{}", text(&late));
    let tail = whole(&daemon.tool(&["log", "tail", "--reject", "--count", "1"]));
    assert!(!tail.is_empty(), "{tail}");
    assert!(daemon.stop().success());
}
