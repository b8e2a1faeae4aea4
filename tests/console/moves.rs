//! Messages that the operator sends to a host of his own choice, and back.

use super::{text, whole};
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::{Daemon, Setup};
use crate::daemon::secrets::{ECDSA, Pair};

const MAIL: &str = "Subject: x\r\n\r\nbody\r\n";

fn slow(backend: std::net::SocketAddr) -> Setup {
    let mut setup = Setup::new(backend);
    setup.policy =
        "relay_domains = [\"example.org\", \"other.example\"]\nany_recipient = true\n".to_owned();
    setup.retry = "first_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n".to_owned();
    setup
}

fn fine(daemon: &Daemon, words: &[&str]) -> String {
    let output = daemon.tool(words);
    assert!(output.status.success(), "{words:?}: {}", text(&output));
    whole(&output)
}

fn refused(daemon: &Daemon, words: &[&str], code: i32, why: &str) {
    let output = daemon.tool(words);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {}", text(&output));
    assert!(whole(&output).contains(why), "{why}: {}", text(&output));
}

/// Mail for a backend that is down; its ids. The first was tried: with that the others know.
fn waiting(daemon: &mut Daemon, to: &[&str]) -> Vec<String> {
    let mut client = Client::greeted(daemon.address);
    let mut ids = Vec::new();
    for to in to {
        ids.push(client.deliver("sender@example.net", &[to], MAIL));
        daemon.line_with(&[" == ", &ids[0]]);
    }
    ids
}

#[test]
fn messages_move_to_a_named_host_over_a_kill_and_back_to_their_route() {
    let first = Backend::nowhere();
    let second = Backend::nowhere();
    let mut daemon = Daemon::start("move", slow(first));
    let ids = waiting(&mut daemon, &["a@example.org", "b@example.org", "c@example.org"]);
    let to = second.to_string();
    let own = daemon.address.to_string();
    // What speaks against it is said before anything is done.
    refused(&daemon, &["queue", "move", &ids[0], "--to", &to], 2, "Say --yes MOVE");
    let asked = ["queue", "move", &ids[0], "--to", &to, "--yes"];
    refused(&daemon, &[&asked[..], &["PLEASE"]].concat(), 1, "the word is MOVE");
    refused(&daemon, &[&asked[..], &["MOVE"]].concat(), 1, "Connection refused");
    let own = ["queue", "move", &ids[0], "--to", &own, "--yes", "MOVE"];
    refused(&daemon, &own, 1, "is this daemon itself");
    let odd = ["queue", "move", &ids[0], "--to", "a b", "--yes", "MOVE"];
    refused(&daemon, &odd, 1, "no host and port");
    refused(&daemon, &["queue", "unmove", &ids[0]], 1, "as wanted already");
    // While nothing is delivered it is only written down; and that is durable.
    fine(&daemon, &["suspend", "delivering"]);
    let said = fine(
        &daemon,
        &["queue", "move", &ids[0], &ids[1], "--to", &to, "--unchecked", "--yes", "MOVE"],
    );
    assert!(said.contains("move: 2 messages"), "{said}");
    daemon.line_with(&[&ids[0], "moved by uid=0", &format!("to=@{to}")]);
    let summary = fine(&daemon, &["queue", "summary"]);
    assert!(summary.contains(&format!("@{to}/0")) && summary.contains("backend/0"), "{summary}");
    daemon.kill();
    daemon.start_again();
    for id in &ids[..2] {
        let shown = fine(&daemon, &["queue", "show", id]);
        assert!(shown.contains(&format!("moved to {to}")), "{shown}");
        let why = fine(&daemon, &["why", id, "--logs"]);
        for part in [&*format!("moved to {to}"), "queue unmove", "moved by uid=0"] {
            assert!(why.contains(part), "{part}: {why}");
        }
    }
    let shown = fine(&daemon, &["queue", "show", &ids[2]]);
    assert!(!shown.contains("moved"), "{shown}");
    fine(&daemon, &["resume", "delivering"]);
    daemon.line_with(&[" == ", &format!("R=@{to}")]);
    // What was tried in vain is moved still, after another kill too.
    daemon.kill();
    daemon.start_again();
    // One command takes it back.
    let said = fine(&daemon, &["queue", "unmove", &ids[1]]);
    assert!(said.contains("unmove: 1 messages"), "{said}");
    daemon.kill();
    daemon.start_again();
    let there = Backend::start_at(second, Manners::default());
    fine(&daemon, &["queue", "retry", &ids[0]]);
    assert_eq!(there.wait_for(1)[0].to, ["a@example.org"]);
    let home = Backend::start_at(first, Manners::default());
    fine(&daemon, &["queue", "retry", "--next-hop", "backend/0"]);
    let mut mails: Vec<_> = home.wait_for(2).into_iter().flat_map(|mail| mail.to).collect();
    mails.sort();
    assert_eq!(mails, ["b@example.org", "c@example.org"]);
    assert_eq!(there.count(), 1);
    daemon.until_empty();
    let audit = std::fs::read_to_string(daemon.folder.path("log/admin/audit.log")).expect("there");
    for part in
        [format!("queue move {} {} to {to}", ids[0], ids[1]), format!("queue unmove {}", ids[1])]
    {
        assert!(audit.contains(&part), "{part}: {audit}");
    }
    assert!(daemon.stop().success());
}

#[test]
fn a_destination_moves_alone_and_a_host_that_refuses_bounces_nothing() {
    let inside = Backend::nowhere();
    let outside =
        Backend::start(Manners { replies: vec![("RCPT", "450 later", 1)], ..Manners::default() });
    let wrong = Backend::start(Manners {
        replies: vec![("RCPT", "550 5.7.1 relaying denied", 0)],
        ..Manners::default()
    });
    let mut setup = slow(inside);
    let route = |name: &str, domain: &str, at: std::net::SocketAddr| {
        let (host, port) = (at.ip(), at.port());
        format!(
            "[[route]]\nname = \"{name}\"\ndomains = [\"{domain}\"]\n\
             hosts = [{{ host = \"{host}\", port = {port} }}]\n"
        )
    };
    setup.routes = Some(
        route("inside", "example.org", inside)
            + &route("outside", "other.example", outside.address),
    );
    let mut daemon = Daemon::start("move-one", setup);
    let mut client = Client::greeted(daemon.address);
    let id = client.deliver("s@example.net", &["a@example.org", "b@other.example"], MAIL);
    drop(client);
    daemon.line_with(&[" == a@example.org", &id]);
    daemon.line_with(&[" == b@other.example", &id]);
    let to = wrong.address.to_string();
    let said =
        fine(&daemon, &["queue", "move", "--next-hop", "inside/0", "--to", &to, "--yes", "MOVE"]);
    assert!(said.contains("1 messages"), "{said}");
    // Who named that host may have erred: no sender is to hear of it.
    daemon.line_with(&[" == a@example.org", &id, "550 5.7.1 relaying denied"]);
    assert_eq!(daemon.ledger().queued, 2);
    // The other recipient goes its own way meanwhile.
    fine(&daemon, &["queue", "retry", "--next-hop", "outside/0"]);
    assert_eq!(outside.wait_for(1)[0].to, ["b@other.example"]);
    daemon.until("one left", |daemon| daemon.ledger().queued == 1);
    let shown = fine(&daemon, &["queue", "show", &id]);
    assert!(shown.contains(&format!("moved to {to}")), "{shown}");
    let home = Backend::start_at(inside, Manners::default());
    // It is due with that.
    fine(&daemon, &["queue", "unmove", "--next-hop", &format!("@{to}/0")]);
    assert_eq!(home.wait_for(1)[0].to, ["a@example.org"]);
    daemon.until_empty();
    assert_eq!((wrong.count(), outside.count()), (0, 1));
    assert!(daemon.stop().success());
}

#[test]
fn a_route_that_demands_tls_demands_it_of_the_named_host_too() {
    let home = Backend::nowhere();
    let clear = Backend::start(Manners::default());
    let secured = || Manners {
        offers: vec!["STARTTLS"],
        tls: Some(Pair::new("backend.example", ECDSA).server()),
        ..Manners::default()
    };
    let sealed = Backend::start(secured());
    let mut setup = slow(home);
    setup.route = "tls = \"must\"\n".to_owned();
    let mut daemon = Daemon::start("move-tls", setup);
    let ids = waiting(&mut daemon, &["a@example.org", "b@example.org", "c@example.org"]);
    let (to_clear, to_sealed) = (clear.address.to_string(), sealed.address.to_string());
    let say = |daemon: &Daemon, front: &[&str], to: &str| {
        daemon.tool(&[front, &["--to", to, "--yes", "MOVE"]].concat())
    };
    // A next hop whose route demands TLS does not go where there is none.
    // (The second is how one is named whose hosts are found by MX.)
    for hop in ["backend/0", "backend/0/example.org"] {
        let refused = say(&daemon, &["queue", "move", "--next-hop", hop], &to_clear);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        for part in ["offers no STARTTLS", "route backend has tls = \"must\"", "--unchecked"] {
            assert!(whole(&refused).contains(part), "{hop}: {part}: {}", text(&refused));
        }
    }
    assert!(!fine(&daemon, &["queue", "show", &ids[0]]).contains("moved"));
    // Of messages by their ids it is said beside; they wait there, and nothing goes in the clear.
    let moved = say(&daemon, &["queue", "move", &ids[0]], &to_clear);
    assert!(moved.status.success(), "{}", text(&moved));
    for part in ["offers no STARTTLS", "(backend)", "queue unmove"] {
        assert!(whole(&moved).contains(part), "{part}: {}", text(&moved));
    }
    let forced = say(&daemon, &["queue", "move", &ids[1], "--unchecked"], &to_clear);
    assert!(forced.status.success(), "{}", text(&forced));
    daemon.line_with(&[" == a@example.org", &ids[0], "no TLS with the next hop"]);
    let summary = fine(&daemon, &["queue", "summary"]);
    for part in [&*format!("@{to_clear}/0"), "STARTTLS is not offered"] {
        assert!(summary.contains(part), "{part}: {summary}");
    }
    let why = fine(&daemon, &["why", &ids[0]]);
    for part in [&*format!("moved to {to_clear}"), "STARTTLS is not offered"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    assert_eq!((clear.count(), daemon.ledger().queued), (0, 3));
    assert!(!clear.commands().iter().any(|line| line.starts_with("MAIL")));
    // A host with STARTTLS takes them at once, in TLS.
    for hop in ["backend/0", &format!("@{to_clear}/0")] {
        let moved = say(&daemon, &["queue", "move", "--next-hop", hop], &to_sealed);
        assert!(moved.status.success(), "{}", text(&moved));
        assert!(!whole(&moved).contains("STARTTLS"), "{}", text(&moved));
    }
    let mails = sealed.wait_for(3);
    assert!(mails.iter().all(|mail| mail.over_tls), "{mails:?}");
    daemon.until_empty();
    assert_eq!(clear.count(), 0);
    assert!(daemon.stop().success());
}
