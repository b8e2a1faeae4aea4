//! What goes wrong in the night, staged: the two commands of `docs/operating.md` that lead from
//! what is seen to its cause, and the one that helps.

use std::fs;

use super::{text, whole};
use crate::crash::clock;
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::{Client, id_of};
use crate::daemon::dns::{Data, Dns};
use crate::daemon::mirror::Failing;
use crate::daemon::programs::{Daemon, Folder, Setup};
use crate::daemon::secrets::{ECDSA, Pair};

const MAIL: &str = "Subject: x\r\n\r\nbody\r\n";
/// One try, then a long wait: what is seen stands still.
const RARE: &str = "first_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n";

fn setup(backend: std::net::SocketAddr) -> Setup {
    let mut setup = Setup::new(backend);
    setup.retry = RARE.to_owned();
    setup
}

/// The command's page says all of these.
fn says(daemon: &Daemon, words: &[&str], parts: &[&str]) {
    let output = daemon.tool(words);
    let page = whole(&output);
    for part in parts {
        assert!(page.contains(part), "ringpost {words:?} does not say {part:?}: {page}");
    }
}

fn fine(daemon: &Daemon, words: &[&str]) -> String {
    let output = daemon.tool(words);
    assert!(output.status.success(), "{words:?}: {}", text(&output));
    whole(&output)
}

fn deferred(daemon: &mut Daemon, to: &str) -> String {
    let id = Client::greeted(daemon.address).deliver("sender@example.net", &[to], MAIL);
    daemon.line_with(&[" == ", &id]);
    id
}

#[test]
fn mail_piles_up_because_the_backend_is_down() {
    let address = Backend::nowhere();
    let mut daemon = Daemon::start("incident-backend", setup(address));
    deferred(&mut daemon, "a@example.org");
    let host = address.to_string();
    says(&daemon, &["queue", "summary"], &["backend/0", "example.org", "refused"]);
    says(&daemon, &["test", "backend", &host], &["refused"]);
    let backend = Backend::start_at(address, Manners::default());
    fine(&daemon, &["queue", "retry", "--next-hop", "backend/0"]);
    backend.wait_for(1);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn mail_waits_because_the_resolver_is_slow_and_then_silent() {
    let dns = Dns::start(&[("example.org", Data::Mx(10, "mx.example.org"))]);
    let mut setup = setup(Backend::nowhere());
    setup.routes = Some("[[route]]\nname = \"mx\"\ndomains = [\"*\"]\nmx = true\n".to_owned());
    setup.policy =
        "relay_domains = [\"example.org\", \"silent.example\"]\nany_recipient = true\n".to_owned();
    setup.more = format!("{}timeout_s = 2\nattempts = 1\n", dns.section());
    let mut daemon = Daemon::start("incident-resolver", setup);
    dns.delay(300);
    let slow = daemon.ask(&["test", "dns", "example.org"]);
    let ms: u64 = slow["rows"][0][1].as_str().expect("ms").parse().expect("a number");
    assert!(ms >= 300, "the milliseconds tell of a slow resolver: {slow}");
    dns.delay(1_000_000);
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<a@example.net>", "250");
    let reply = client.expect("RCPT TO:<a@silent.example>", "451 4.4.3");
    says(&daemon, &["why", id_of(&reply)], &["silent.example", "test dns DOMAIN"]);
    says(&daemon, &["test", "dns", "silent.example"], &["MX", "not known now"]);
    assert!(daemon.stop().success());
}

#[test]
fn senders_hear_452_because_the_spool_is_full() {
    let mut setup = setup(Backend::nowhere());
    setup.cores = 1;
    let mut daemon = Daemon::start("incident-full", setup);
    let mut client = Client::greeted(daemon.address);
    let content = format!("Subject: x\r\n\r\n{}", "0123456789abcdef\r\n".repeat(80_000));
    let mut kept = 0_u32;
    let refused = loop {
        let reply = client.say("MAIL FROM:<a@example.net>");
        if !reply.starts_with("250") {
            break reply;
        }
        client.expect("RCPT TO:<b@example.org>", "250");
        let reply = client.say("DATA");
        if !reply.starts_with("354") {
            break reply;
        }
        client.send(content.as_bytes());
        let reply = client.say(".");
        if !reply.starts_with("250") {
            break reply;
        }
        kept += 1;
    };
    assert!(refused.starts_with("452 4.3.1") && kept > 3, "{kept}: {refused}");
    says(&daemon, &["status"], &["ALARM", "spool", "452"]);
    says(&daemon, &["queue", "summary"], &["backend/0", &format!("{kept} "), "example.org"]);
    says(&daemon, &["why", id_of(&refused)], &["ringpost queue summary"]);
    fine(&daemon, &["queue", "remove", "--all", "--yes", "REMOVE"]);
    daemon.until("room again", |daemon| {
        let mut client = Client::connect_silent(daemon.address);
        client.reply().starts_with("220 ")
            && client.say("EHLO client.example.net").starts_with("250")
            && client.say("MAIL FROM:<a@example.net> SIZE=1000").starts_with("250")
    });
    assert!(daemon.stop().success());
}

#[test]
fn clients_complain_because_a_certificate_has_ended() {
    let folder = Folder::new("incident-certificate");
    Pair::ended("mx.example.org", ECDSA).write(&folder.0, "own");
    let mut setup = setup(Backend::nowhere());
    setup.listener = "tls = \"starttls\"\n".to_owned();
    setup.more = "[[tls.certificate]]\ncertificate = \"{folder}/own.crt\"\n\
                  key = \"{folder}/own.key\"\nnames = [\"mx.example.org\"]\n"
        .to_owned();
    let mut daemon = Daemon::start_in(folder, setup);
    says(&daemon, &["status"], &["ALARM a certificate ended"]);
    says(&daemon, &["certificates"], &["2020-01-01", "mx.example.org", "own.crt"]);
    Pair::new("mx.example.org", ECDSA).write(&daemon.folder.0, "own");
    fine(&daemon, &["reload"]);
    assert!(!fine(&daemon, &["status"]).contains("certificate ended"));
    assert!(daemon.stop().success());
}

#[test]
fn everybody_is_refused_because_a_wrong_config_was_committed() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("incident-config", setup(backend.address));
    let old = fs::read_to_string(daemon.folder.path("mx.toml")).expect("there");
    let file = daemon.folder.path("new.toml");
    let wrong =
        old.replace("relay_domains = [\"example.org\"]", "relay_domains = [\"example.com\"]");
    fs::write(&file, wrong).expect("written");
    let file = file.display().to_string();
    fine(&daemon, &["config", "commit", &file, "--why", "the new domain"]);
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<a@example.net>", "250");
    let reply = client.say("RCPT TO:<b@example.org>");
    assert!(reply.starts_with("550 5.7.1"), "{reply}");
    says(&daemon, &["config", "history"], &["the new domain", "in force before"]);
    let before = daemon.folder.path("before.toml");
    fs::write(&before, fine(&daemon, &["config", "show", "1"])).expect("written");
    fs::write(&before, &old).expect("written");
    let before = before.display().to_string();
    says(&daemon, &["config", "diff", &before], &["-relay_domains = [\"example.com\"]"]);
    // Without a number: what was in force before.
    fine(&daemon, &["config", "rollback"]);
    client.expect("RCPT TO:<b@example.org>", "250");
    assert_eq!(fs::read_to_string(daemon.folder.path("mx.toml")).expect("there"), old);
    drop(client);
    assert!(daemon.stop().success());
}

#[test]
fn nobody_is_refused_any_more_because_a_list_answers_error_codes() {
    let dns = Dns::start(&[]);
    let code = |text: &str| Data::Address(text.parse().expect("an address"));
    for n in 1..=2 {
        dns.add(&format!("{n}.0.0.127.bl.example.net"), code("127.255.255.254"));
    }
    let mut setup = setup(Backend::nowhere());
    setup.more =
        format!("{}[xdp]\nmode = \"drop\"\n[[dnsbl]]\nzone = \"bl.example.net\"\n", dns.section());
    let mut daemon = Daemon::start("incident-list", setup);
    daemon.until("doubt", |daemon| {
        whole(&daemon.tool(&["status"])).contains("bl.example.net fails its test points")
    });
    says(&daemon, &["xdp", "status"], &["bl.example.net", "cut off"]);
    assert!(daemon.stop().success());
}

#[test]
fn slots_are_gone_because_of_a_flood_from_one_network() {
    let backend = Backend::start(Manners::default());
    let mut setup = setup(backend.address);
    setup.limits = "connection_rate = \"5 per hour\"\nexempt_networks = []\n".to_owned();
    let mut daemon = Daemon::start("incident-flood", setup);
    for _ in 0..30 {
        drop(Client::connect_silent(daemon.address).reply());
    }
    says(&daemon, &["live", "--by", "peer", "--count", "1"], &["127.0.0.1", "turned away"]);
    says(&daemon, &["why", "127.0.0.1"], &["connection_rate", "127.0.0.1"]);
    fine(&daemon, &["block", "127.0.0.1", "--for-s", "3600", "--why", "flood"]);
    assert!(Client::connect_silent(daemon.address).reply().starts_with("554 5.7.1 ["));
    let peers = daemon.ask(&["live", "--by", "peer", "--count", "1"]);
    assert!(peers["rows"][0]["refused"].as_u64() >= Some(26), "{peers}");
    assert!(daemon.stop().success());
}

#[test]
fn a_sender_complains_and_was_refused_by_mistake() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("incident-positive", setup(backend.address));
    fine(&daemon, &["block", "127.0.0.0/8", "--why", "spam of March"]);
    let reply = Client::connect_silent(daemon.address).reply();
    says(&daemon, &["why", id_of(&reply)], &["was turned away", "ringpost unblock"]);
    says(&daemon, &["session", "--from", "127.0.0.1"], &["554 5.7.1"]);
    fine(&daemon, &["allow", "127.0.0.1"]);
    assert!(Client::connect_silent(daemon.address).reply().starts_with("220 "));
    assert!(daemon.stop().success());
}

#[test]
fn a_mail_is_lost_and_was_delivered() {
    let backend = Backend::start(Manners {
        replies: vec![("DOT", "250 kept as 4711", 0)],
        ..Manners::default()
    });
    let mut daemon = Daemon::start("incident-lost", setup(backend.address));
    let mut client = Client::greeted(daemon.address);
    let id = client.deliver("sender@example.net", &["lost@example.org"], MAIL);
    daemon.line_with(&["=>", &id]);
    says(&daemon, &["why", "lost@example.org"], &[&id, "delivered to"]);
    says(&daemon, &["why", &id], &["delivered to", "kept as 4711", "accepted from"]);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn one_domain_is_stuck_and_its_neighbour_is_not() {
    let backend = Backend::start(Manners::default());
    let nowhere = Backend::nowhere();
    let mut setup = setup(backend.address);
    setup.policy =
        "relay_domains = [\"example.org\", \"example.com\"]\nany_recipient = true\n".to_owned();
    let route = |name: &str, domain: &str, at: std::net::SocketAddr| {
        let (host, port) = (at.ip(), at.port());
        format!(
            "[[route]]\nname = \"{name}\"\ndomains = [\"{domain}\"]\n\
             hosts = [{{ host = \"{host}\", port = {port} }}]\n"
        )
    };
    let (good, bad) = (route("good", "example.org", backend.address), nowhere);
    setup.routes = Some(format!("{good}{}", route("bad", "example.com", bad)));
    let mut daemon = Daemon::start("incident-domain", setup);
    let mut client = Client::greeted(daemon.address);
    client.deliver("sender@example.net", &["a@example.org"], MAIL);
    drop(client);
    let id = deferred(&mut daemon, "b@example.com");
    backend.wait_for(1);
    says(&daemon, &["queue", "summary"], &["bad/0", "example.com", "refused"]);
    says(&daemon, &["route", "b@example.com"], &["bad", &nowhere.to_string()]);
    let listed = daemon.ask(&["queue", "list", "--domain", "example.com"]);
    assert_eq!(listed["messages"][0]["id"], id.as_str(), "{listed}");
    let none = daemon.ask(&["queue", "list", "--domain", "example.org"]);
    assert_eq!(none["messages"].as_array().map(Vec::len), Some(0), "{none}");
    let by_error = daemon.ask(&["queue", "list", "--error", "REFUSED", "--smaller", "100000"]);
    assert_eq!(by_error["messages"].as_array().map(Vec::len), Some(1), "{by_error}");
    fine(&daemon, &["queue", "hold", "example.com"]);
    says(&daemon, &["status"], &["held domains: example.com"]);
    assert!(daemon.stop().success());
}

#[test]
fn mail_goes_on_with_one_copy_because_half_of_the_mirror_is_dead() {
    let folder = Folder::new("incident-mirror");
    let places = ["first", "second"].map(|name| folder.path(name).display().to_string());
    let half = folder.path("second/ringpost.spool");
    let mut setup = setup(Backend::nowhere());
    setup.place = Some(places.join("\", \""));
    setup.spool = "mirror = true\nlone_member = true\n".to_owned();
    let mut daemon = Daemon::start_in(folder, setup.clone());
    assert!(daemon.stop().success());
    let dying = Failing::instead_of(&half);
    setup.spool.push_str(Failing::durability(&half));
    daemon.set(|s| *s = setup.clone());
    daemon.start_again();
    dying.fail();
    deferred(&mut daemon, "a@example.org");
    says(&daemon, &["status"], &["ALARM", "device 1 of the spool is out"]);
    says(&daemon, &["log", "grep", "ALARM", "device"], &["device 1 is out: mail goes on"]);
    // What helps: a blank one in its place.
    daemon.kill();
    fs::remove_file(&half).expect("taken out");
    drop(dying);
    fs::write(&half, "").expect("an empty file asks for a blank half");
    daemon.start_again();
    daemon.line_with(&["device 1 is filled and counts again"]);
    assert!(!fine(&daemon, &["status"]).contains("device 1"));
    assert_eq!(daemon.ledger().queued, 1);
    assert!(daemon.stop().success());
}

#[test]
fn nothing_expires_because_the_clock_is_wrong() {
    let mut daemon = Daemon::start("incident-clock", setup(Backend::nowhere()));
    deferred(&mut daemon, "a@example.org");
    daemon.kill();
    clock::live_at(&mut daemon, Some("2099-06-01 12:00:00"));
    daemon.start_again();
    says(&daemon, &["status"], &["ALARM the wall clock"]);
    daemon.line_with(&["ALARM", "clock"]);
    says(&daemon, &["log", "grep", "ALARM", "clock"], &["ALARM", "clock"]);
    assert!(daemon.stop().success());
}
