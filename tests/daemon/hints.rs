//! What may be lost and should not be: retry times, health and offers outlive a kill.

use std::fs;

use super::backend::{Backend, Manners};
use super::client::Client;
use super::programs::{Daemon, Setup};

const SMALL: &str = "Subject: x\r\n\r\nx\r\n";

fn route(domain: &str, backend: std::net::SocketAddr) -> String {
    format!(
        "[[route]]\ndomains = [\"{domain}\"]\n\
         hosts = [{{ host = \"127.0.0.1\", port = {} }}]\n",
        backend.port()
    )
}

/// One core, two routes; the first attempt at a destination that failed is an hour away.
fn setup(down: std::net::SocketAddr, up: &Backend) -> Setup {
    Setup {
        cores: 1,
        policy: "relay_domains = [\"down.example\", \"up.example\"]\nany_recipient = true\n"
            .to_owned(),
        routes: Some(route("down.example", down) + &route("up.example", up.address)),
        retry: "first_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n".to_owned(),
        ..Setup::new(up.address)
    }
}

fn hints(daemon: &Daemon, kind: &str) -> Vec<String> {
    let page = daemon.ask(&["hints", "list", "--kind", kind]);
    let hints = page["hints"].as_array().expect("a list");
    hints.iter().map(|hint| format!("{} {}", hint["key"], hint["fields"])).collect()
}

/// A mail for the host that was down, then one for the other. One core begins what is due in the
/// order in which it came: when the second is there, the first was begun or is put off.
fn in_turn(daemon: &Daemon, up: &Backend) {
    let before = up.count();
    let mut client = Client::greeted(daemon.address);
    client.deliver("a@example.net", &["b@down.example"], SMALL);
    client.deliver("a@example.net", &["b@up.example"], SMALL);
    up.wait_for(before + 1);
}

#[test]
fn what_a_run_learned_of_its_hosts_the_next_one_knows() {
    let up = Backend::start(Manners { offers: vec!["SIZE 12345"], ..Manners::default() });
    let down = Backend::nowhere();
    let mut daemon = Daemon::start("hints", setup(down, &up));
    let id = Client::greeted(daemon.address).deliver("a@example.net", &["b@down.example"], SMALL);
    daemon.line_with(&[&id, "=="]);
    daemon.until("hints of all three kinds", |daemon| {
        let offers = hints(daemon, "offers").join("\n");
        !hints(daemon, "retry").is_empty()
            && hints(daemon, "health").join("\n").contains(&down.to_string())
            && offers.contains(&up.address.to_string())
            && offers.contains("12345")
    });
    let kinds = ["retry", "health", "offers"];
    let before: Vec<_> = kinds.iter().map(|kind| hints(&daemon, kind)).collect();
    daemon.kill();
    let back = Backend::start_at(down, Manners::default());
    daemon.start_again();
    let after: Vec<_> = kinds.iter().map(|kind| hints(&daemon, kind)).collect();
    assert_eq!(before[0], after[0], "retry times changed over a kill");
    assert!(daemon.log().contains("hints: kept"), "{}", daemon.log());
    // And they count: the host is back, but it is left alone until its time has come. What the
    // backend was last seen to offer counts from the first session on.
    in_turn(&daemon, &up);
    assert_eq!(back.count(), 0, "the retry time of the run before was not used");
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<a@example.net> SIZE=12346", "250");
    client.expect("RCPT TO:<b@up.example>", "552 5.3.4");
    daemon.until("two that wait", |daemon| daemon.ledger().queued == 2);
    // Without them it is tried at once.
    daemon.kill();
    fs::remove_file(daemon.folder.path("hints")).expect("it is there");
    daemon.start_again();
    in_turn(&daemon, &up);
    back.wait_for(1);
    assert!(daemon.stop().success());
}

#[test]
fn rates_outlive_a_kill() {
    let backend = Backend::start(Manners::default());
    let mut setup = Setup::new(backend.address);
    setup.limits = "message_rate = \"2 per day\"\nexempt_networks = []\n".to_owned();
    let mut daemon = Daemon::start("hints-rate", setup);
    for _ in 0..2 {
        Client::greeted(daemon.address).expect("MAIL FROM:<a@example.net>", "250");
    }
    Client::greeted(daemon.address).expect("MAIL FROM:<a@example.net>", "451 4.7.1");
    daemon.kill();
    daemon.start_again();
    Client::greeted(daemon.address).expect("MAIL FROM:<a@example.net>", "451 4.7.1");
    assert!(daemon.stop().success());
}

#[test]
fn a_corrupt_file_is_a_fresh_start_with_one_line() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("hints-corrupt", Setup::new(backend.address));
    let path = daemon.folder.path("hints");
    let length = fs::metadata(&path).expect("made").len();
    let junk = |seed: u64| {
        let mut state = seed;
        let octets = (0..length).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            u8::try_from(state >> 56).expect("eight bits")
        });
        octets.collect::<Vec<u8>>()
    };
    for (n, spoilt) in [vec![0; 4096], vec![0xff; 16 << 20], junk(1), junk(2)].iter().enumerate() {
        daemon.until_empty();
        assert!(daemon.stop().success());
        let lines = |daemon: &Daemon| daemon.log().matches("hints: fresh start").count();
        let before = lines(&daemon);
        fs::write(&path, spoilt).expect("written");
        daemon.start_again();
        daemon.line_with(&["hints: fresh start"]);
        daemon.until("its line", |daemon| lines(daemon) > before);
        Client::greeted(daemon.address).deliver("a@example.net", &["b@example.org"], SMALL);
        backend.wait_for(n + 1);
        assert_eq!(lines(&daemon), before + 1, "junk {n}");
    }
    // Only the header is right, the rest is junk: nothing of it is believed, nothing falls.
    daemon.until_empty();
    assert!(daemon.stop().success());
    let mut half = fs::read(&path).expect("there");
    let from = 8192;
    half[from..].copy_from_slice(&junk(3)[from..]);
    fs::write(&path, half).expect("written");
    daemon.start_again();
    Client::greeted(daemon.address).deliver("a@example.net", &["b@example.org"], SMALL);
    backend.wait_for(5);
    assert!(daemon.stop().success());
}
