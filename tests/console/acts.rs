//! What the operator does to mail; each act survives a kill of the daemon.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::{text, whole};
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::{Daemon, Setup};

const MAIL: &str = "Subject: x\r\n\r\nbody\r\n";

fn slow(backend: std::net::SocketAddr) -> Setup {
    let mut setup = Setup::new(backend);
    setup.retry = "first_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n".to_owned();
    setup
}

fn fine(daemon: &Daemon, words: &[&str]) -> String {
    let output = daemon.tool(words);
    assert!(output.status.success(), "{words:?}: {}", text(&output));
    text(&output)
}

/// Mail for a backend that is down, tried once; its ids.
fn waiting(daemon: &mut Daemon, to: &[&str]) -> Vec<String> {
    let mut client = Client::greeted(daemon.address);
    let mut ids = Vec::new();
    for to in to {
        ids.push(client.deliver("sender@example.net", &[to], MAIL));
        daemon.line_with(&[" == ", ids.last().expect("just put")]);
    }
    ids
}

#[test]
fn messages_are_frozen_thawed_removed_and_given_up_over_a_kill() {
    let address = Backend::nowhere();
    let mut daemon = Daemon::start("acts", slow(address));
    let mut client = Client::greeted(daemon.address);
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(client.deliver("sender@example.org", &[&format!("u{n}@example.org")], MAIL));
    }
    drop(client);
    daemon.line_with(&[" == "]);
    let summary = daemon.ask(&["queue", "summary"]);
    assert_eq!(summary["total"]["messages"], 4, "{summary}");
    assert!(fine(&daemon, &["queue", "summary"]).contains("backend/0"));
    fine(&daemon, &["queue", "freeze", &ids[0]]);
    let no_word = daemon.tool(&["queue", "remove", &ids[1]]);
    assert_eq!(no_word.status.code(), Some(2), "{}", text(&no_word));
    let wrong = daemon.tool(&["queue", "remove", &ids[1], "--yes", "PLEASE"]);
    assert_eq!(wrong.status.code(), Some(1), "{}", text(&wrong));
    fine(&daemon, &["queue", "remove", &ids[1], "--yes", "REMOVE"]);
    fine(&daemon, &["queue", "bounce", &ids[2], "--yes", "BOUNCE"]);
    // Whatever was answered holds, whatever happens to the daemon.
    daemon.kill();
    daemon.start_again();
    let held = daemon.ask(&["queue", "list", "--held"]);
    assert_eq!(held["messages"][0]["id"], ids[0].as_str(), "{held}");
    let all = daemon.ask(&["queue", "list"]).to_string();
    assert!(!all.contains(&ids[1]) && !all.contains(&ids[2]), "{all}");
    assert!(all.contains(&ids[3]), "{all}");
    let books = daemon.ask(&["ledger"]);
    assert_eq!((&books["removed"], &books["bounced"]), (&1.into(), &1.into()), "{books}");
    let audit = std::fs::read_to_string(daemon.folder.path("log/admin/audit.log")).expect("there");
    for part in ["queue freeze", "queue remove", "queue bounce", "uid=", "1 done"] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
    // The backend comes; everything goes but what is frozen, then that too.
    let backend = Backend::start_at(address, Manners::default());
    fine(&daemon, &["queue", "retry", "--all"]);
    // Two are left to go: the one never touched and the report about the one given up.
    backend.wait_for(2);
    daemon.until("one held", |daemon| daemon.ledger().queued == 0);
    assert_eq!(daemon.ledger().held, 1);
    fine(&daemon, &["queue", "thaw", &ids[0]]);
    backend.wait_for(3);
    daemon.until_empty();
    let gone = daemon.tool(&["queue", "retry", &ids[0]]);
    assert_eq!(gone.status.code(), Some(5), "{}", text(&gone));
    assert!(daemon.stop().success());
}

#[test]
fn a_held_domain_waits_over_a_kill_and_its_neighbour_does_not() {
    let backend = Backend::start(Manners::default());
    let mut setup = Setup::new(backend.address);
    setup.policy =
        "relay_domains = [\"example.org\", \"example.com\"]\nany_recipient = true\n".into();
    let mut daemon = Daemon::start("hold", setup);
    fine(&daemon, &["queue", "hold", "Example.COM"]);
    let mut client = Client::greeted(daemon.address);
    let both = ["a@example.org", "b@example.com"];
    client.deliver("sender@example.net", &both, MAIL);
    client.deliver("sender@example.net", &["c@example.com"], MAIL);
    let first = backend.wait_for(1);
    assert_eq!(first[0].to, ["a@example.org"], "{:?}", first[0].to);
    daemon.until("two left", |daemon| daemon.ledger().queued == 2);
    daemon.kill();
    daemon.start_again();
    let status = whole(&daemon.tool(&["status"]));
    assert!(status.contains("held domains: example.com"), "{status}");
    assert_eq!(backend.count(), 1);
    fine(&daemon, &["queue", "release", "example.com"]);
    backend.wait_for(3);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

/// What a switch hears that asks whether to send mail here.
fn health(daemon: &Daemon) -> String {
    let status = daemon.ask(&["status"]);
    let listeners = status["listeners"].as_array().expect("a list").iter();
    let mut pages = listeners.filter_map(|line| line.as_str()?.strip_prefix("metrics "));
    let mut stream = TcpStream::connect(pages.next().expect("a page")).expect("it listens");
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").expect("it reads");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("it answers");
    said
}

#[test]
fn accepting_and_delivering_are_suspended_and_resumed() {
    let backend = Backend::start(Manners::default());
    let mut setup = Setup::new(backend.address);
    setup.more = "[metrics]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    let mut daemon = Daemon::start("suspend", setup);
    fine(&daemon, &["suspend", "delivering"]);
    let mut client = Client::greeted(daemon.address);
    client.deliver("sender@example.net", &["a@example.org"], MAIL);
    fine(&daemon, &["suspend", "accepting"]);
    daemon.kill();
    daemon.start_again();
    let reply = Client::connect_silent(daemon.address).reply();
    assert!(reply.starts_with("421 4.3.2 ["), "{reply}");
    let id = crate::daemon::client::id_of(&reply).to_owned();
    let why = whole(&daemon.tool(&["why", &id]));
    assert!(why.contains("resume accepting"), "{why}");
    assert_eq!((backend.count(), daemon.ledger().queued), (0, 1));
    assert!(fine(&daemon, &["rules"]).contains("suspended"));
    fine(&daemon, &["resume", "delivering"]);
    backend.wait_for(1);
    fine(&daemon, &["suspend", "accepting", "--closed"]);
    daemon.until("a closed port", |daemon| TcpStream::connect(daemon.address).is_err());
    assert!(health(&daemon).starts_with("HTTP/1.1 503 "), "{}", health(&daemon));
    fine(&daemon, &["resume", "accepting"]);
    daemon.until("an open port", |daemon| TcpStream::connect(daemon.address).is_ok());
    // For a switch in front: mail is taken, and it hears that it should go elsewhere.
    assert!(health(&daemon).starts_with("HTTP/1.1 200 "), "{}", health(&daemon));
    fine(&daemon, &["suspend", "accepting", "--drain"]);
    assert!(health(&daemon).starts_with("HTTP/1.1 503 "), "{}", health(&daemon));
    assert!(whole(&daemon.tool(&["status"])).contains("switches are told to go elsewhere"));
    Client::greeted(daemon.address).deliver("s@example.net", &["d@example.org"], MAIL);
    backend.wait_for(2);
    daemon.kill();
    daemon.start_again();
    assert!(health(&daemon).starts_with("HTTP/1.1 503 "), "{}", health(&daemon));
    fine(&daemon, &["resume", "accepting"]);
    assert!(health(&daemon).starts_with("HTTP/1.1 200 "), "{}", health(&daemon));
    // One domain alone.
    fine(&daemon, &["suspend", "delivering", "example.org"]);
    assert!(fine(&daemon, &["rules"]).contains("held domain"));
    fine(&daemon, &["resume", "delivering", "example.org"]);
    Client::greeted(daemon.address).deliver("s@example.net", &["b@example.org"], MAIL);
    backend.wait_for(3);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn addresses_are_blocked_and_let_in() {
    let backend = Backend::start(Manners::default());
    let mut setup = Setup::new(backend.address);
    setup.limits = "connection_rate = \"1 per day\"\nexempt_networks = []\n".to_owned();
    let mut daemon = Daemon::start("block", setup);
    // What cannot be meant changes nothing.
    for (words, code, why) in [
        (&["block", "192.0.2.1", "--for-s", "0"][..], 2, "0 is not in 1.."),
        (&["block", "1.2.3"], 1, "192.0.2.0/24"),
        (&["queue", "hold", "x..y"], 1, "is no domain"),
        (&["queue", "retry", "X"], 1, "queue list"),
        (&["queue", "import", "nope.eml"], 2, "ID.envelope"),
    ] {
        let output = daemon.tool(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", text(&output));
        assert!(whole(&output).contains(why), "{words:?}: {}", text(&output));
    }
    assert!(fine(&daemon, &["rules"]).starts_with("None"));
    let said = fine(&daemon, &["block", "127.0.0.0/8", "--why", "a flood"]);
    assert!(said.contains("until `ringpost unblock` takes it back"), "{said}");
    let reply = Client::connect_silent(daemon.address).reply();
    assert!(reply.starts_with("554 5.7.1 ["), "{reply}");
    let why = whole(&daemon.tool(&["why", "127.0.0.1"]));
    assert!(why.contains("a flood") && why.contains("blocked"), "{why}");
    assert!(fine(&daemon, &["blocks"]).contains("127.0.0.0/8"));
    let said = fine(&daemon, &["allow", "127.0.0.1", "--for-s", "3600"]);
    assert!(said.contains("let in past every limit for 3600 s"), "{said}");
    for _ in 0..5 {
        Client::greeted(daemon.address);
    }
    fine(&daemon, &["unallow", "127.0.0.1"]);
    fine(&daemon, &["unblock", "127.0.0.0/8"]);
    let again = daemon.tool(&["unblock", "127.0.0.0/8"]);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
    assert!(Client::connect_silent(daemon.address).reply().starts_with("220 "));
    assert!(daemon.stop().success());
}

#[test]
fn a_route_without_a_fallback_says_so() {
    let mut daemon = Daemon::start("fallback", slow(Backend::nowhere()));
    let ids = waiting(&mut daemon, &["a@example.org"]);
    let none = daemon.tool(&["queue", "fallback", &ids[0]]);
    assert_eq!(none.status.code(), Some(1), "{}", text(&none));
    assert!(whole(&none).contains("no further tier"), "{}", text(&none));
    assert!(daemon.stop().success());
}

#[test]
fn a_message_is_exported_and_imported() {
    let address = Backend::nowhere();
    let mut daemon = Daemon::start("export", slow(address));
    let content =
        format!("Subject: large\r\n\r\n{}", "0123456789abcdef\r\n.dot\r\n".repeat(20_000));
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<sender@example.org>", "250");
    client.expect("RCPT TO:<a@example.org>", "250");
    client.expect("DATA", "354");
    client.send(content.replace("\r\n.", "\r\n..").as_bytes());
    let id = crate::daemon::client::id_of(&client.say(".")).to_owned();
    daemon.line_with(&[" == ", &id]);
    let folder = daemon.folder.0.display().to_string();
    fine(&daemon, &["queue", "export", &id, "--into", &folder]);
    let file = daemon.folder.path(&format!("{id}.eml"));
    let eml = std::fs::read_to_string(&file).expect("written");
    assert!(eml.ends_with(&content) && eml.starts_with("Received: "), "{} octets", eml.len());
    fine(&daemon, &["queue", "remove", &id, "--yes", "REMOVE"]);
    let said = fine(&daemon, &["queue", "import", &file.display().to_string()]);
    assert!(said.contains("accepted"), "{said}");
    let backend = Backend::start_at(address, Manners::default());
    fine(&daemon, &["queue", "retry", "--all"]);
    let mails = backend.wait_for(1);
    assert!(mails[0].text().ends_with(&content), "{} octets", mails[0].content.len());
    assert_eq!((&*mails[0].from, &*mails[0].to[0]), ("sender@example.org", "a@example.org"));
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn sessions_show_who_is_there() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("sessions", Setup::new(backend.address));
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<long@example.net>", "250");
    let shown = fine(&daemon, &["sessions"]);
    assert!(shown.contains("long@example.net"), "{shown}");
    assert!(shown.contains(&client.local().to_string()), "{shown}");
    drop(client);
    assert!(daemon.stop().success());
}

#[test]
fn a_message_goes_on_to_the_second_tier_when_it_is_told_to() {
    let second = Backend::start(Manners::default());
    let first = Backend::nowhere();
    let mut setup = slow(first);
    setup.route = format!(
        "fallback = [{{ after_s = 86400, host = \"{}\", port = {} }}]\n",
        second.address.ip(),
        second.address.port()
    );
    let mut daemon = Daemon::start("fallback-tier", setup);
    let ids = waiting(&mut daemon, &["a@example.org"]);
    Client::greeted(daemon.address).deliver("sender@example.net", &["b@example.org"], MAIL);
    assert_eq!(second.count(), 0, "a day has not passed");
    let said = fine(&daemon, &["queue", "fallback", &ids[0]]);
    assert!(said.contains("1 messages"), "{said}");
    let mails = second.wait_for(1);
    assert_eq!(mails[0].to, ["a@example.org"]);
    daemon.until("one left", |daemon| daemon.ledger().queued == 1);
    assert!(daemon.stop().success());
}

#[test]
fn hints_are_dumped_and_put_back() {
    let address = Backend::nowhere();
    let mut daemon = Daemon::start("dump", slow(address));
    waiting(&mut daemon, &["a@example.org"]);
    let retry = daemon.ask(&["hints", "list", "--kind", "retry"]);
    let of = &retry["hints"][0];
    let key = of["key"].as_str().expect("one").to_owned();
    let file = daemon.folder.path("hints.json").display().to_string();
    let said = fine(&daemon, &["hints", "dump", &file]);
    assert!(said.contains("hints are in"), "{said}");
    fine(&daemon, &["hints", "delete", "retry", &key]);
    daemon
        .until("it gone", |daemon| !daemon.tool(&["hints", "get", "retry", &key]).status.success());
    let said = fine(&daemon, &["hints", "load", &file]);
    assert!(said.contains("put back"), "{said}");
    daemon
        .until("it back", |daemon| daemon.tool(&["hints", "get", "retry", &key]).status.success());
    let got = daemon.ask(&["hints", "get", "retry", &key]);
    assert_eq!((&got["fields"], &got["text"]), (&of["fields"], &of["text"]), "{got}");
    let broken = daemon.folder.path("broken.json").display().to_string();
    std::fs::write(&broken, "{\"kind\":\"retry\",\"key\":\"x.example\"}\nnonsense\n")
        .expect("written");
    let refused = daemon.tool(&["hints", "load", &broken]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(whole(&refused).contains("line 2"), "{}", text(&refused));
    assert!(daemon.stop().success());
}

#[test]
fn figures_are_told_by_core_client_next_hop_and_domain() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("live", Setup::new(backend.address));
    let mut client = Client::greeted(daemon.address);
    client.deliver("sender@example.net", &["a@example.org", "b@example.org"], MAIL);
    client.expect("MAIL FROM:<x@example.net>", "250");
    client.expect("RCPT TO:<who@elsewhere.example>", "550");
    drop(client);
    daemon.until_empty();
    let row = |by: &str, name: &str| {
        let tops = daemon.ask(&["live", "--by", by, "--count", "1"]);
        let rows = tops["rows"].as_array().cloned().unwrap_or_default();
        let found = rows.iter().find(|row| row["name"].as_str().is_some_and(|n| n.contains(name)));
        found.unwrap_or_else(|| panic!("{name}: {tops}")).clone()
    };
    let peer = row("peer", "127.0.0.1");
    assert_eq!((&peer["accepted"], &peer["refused"]), (&1.into(), &1.into()), "{peer}");
    assert_eq!(row("destination", &backend.address.to_string())["relayed"], 2);
    assert_eq!(row("domain", "example.org")["relayed"], 2);
    let refused = row("domain", "elsewhere.example");
    assert!(refused["last"].as_str().is_some_and(|l| l.contains("relaying denied")), "{refused}");
    let cores = daemon.ask(&["live", "--cores", "--count", "1", "--every-s", "1"]);
    assert_eq!(cores["cores"].as_array().map(Vec::len), Some(2), "{cores}");
    daemon.until("the counters", |daemon| {
        let status = daemon.ask(&["status"]);
        let sum = |name: &str| -> u64 {
            let cores = status["cores"].as_array().expect("cores");
            cores.iter().filter_map(|core| core[name].as_u64()).sum()
        };
        sum("relayed") == 2 && sum("refused") == 1 && sum("commit_p99_us") > 0
    });
    let audit = daemon.folder.path("log/admin/audit.log");
    fine(&daemon, &["hints", "tidy"]);
    fine(&daemon, &["xdp", "add", "192.0.2.10"]);
    fine(&daemon, &["trace", "on", "192.0.2.0/24", "--seconds", "1"]);
    fine(&daemon, &["reload"]);
    let audit = std::fs::read_to_string(audit).expect("there");
    for part in ["hints tidy", "xdp Add", "trace 192.0.2.0/24", "reload", "uid=", "pid="] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
    assert!(daemon.stop().success());
}
