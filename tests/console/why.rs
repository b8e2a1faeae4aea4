//! `ringpost why`: what was refused, what waits, what a client did.

use super::{text, whole};
use crate::daemon::backend::Backend;
use crate::daemon::client::{Client, id_of};
use crate::daemon::programs::{Daemon, Setup};

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
    assert_eq!(daemon.tool(&["why", "nonsense"]).status.code(), Some(1));
    let found = whole(&daemon.tool(&["log", "grep", "WHO@elsewhere.example"]));
    assert!(found.contains("relaying denied"), "{found}");
    let tail = whole(&daemon.tool(&["log", "tail", "--reject", "--count", "1"]));
    assert!(!tail.is_empty(), "{tail}");
    assert!(daemon.stop().success());
}
