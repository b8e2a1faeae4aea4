//! The ladder without the XDP filter: lists in files, a real DNS list, bans, what the admin tool
//! sees of it. Clients come through the PROXY protocol, so that they have addresses of their own.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::backend::{Backend, Manners};
use super::client::Client;
use super::dns::{Data, Dns};
use super::programs::{Daemon, Folder, Setup};

pub(super) fn setup(more: &str) -> Setup {
    let mut setup = Setup::new(Backend::start(Manners::default()).address);
    setup.listener =
        "tls = \"none\"\nproxy = \"require\"\nproxy_peers = [\"127.0.0.0/8\"]\n".to_owned();
    setup.more = more.to_owned();
    setup
}

/// A client of this address up to the greeting, which is given back.
pub(super) fn arrive(daemon: &Daemon, address: &str) -> (Client, String) {
    let mut client = Client::connect_silent(daemon.address);
    let (family, ours) =
        if address.contains(':') { ("TCP6", "2001:db8::25") } else { ("TCP4", "198.51.100.2") };
    client.send(format!("PROXY {family} {address} {ours} 4711 25\r\n").as_bytes());
    let greeting = client.reply();
    (client, greeting)
}

/// A client up to the reply to RCPT.
pub(super) fn rcpt(daemon: &Daemon, address: &str, to: &str) -> String {
    let (mut client, greeting) = arrive(daemon, address);
    assert!(greeting.starts_with("220 "), "{address}: {greeting}");
    client.expect("EHLO client.example.net", "250");
    client.expect("MAIL FROM:<a@client.example.net>", "250");
    let reply = client.say(&format!("RCPT TO:<{to}>"));
    client.expect("QUIT", "221");
    reply
}

/// What `ringpost xdp` says, by name.
pub(super) fn said(daemon: &Daemon, words: &[&str]) -> Vec<(String, String)> {
    let answer = daemon.ask(&[&["xdp"], words].concat());
    let lines = answer["lines"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    lines.iter().map(|line| (text(&line["name"]), text(&line["value"]))).collect()
}

pub(super) fn has(lines: &[(String, String)], name: &str, part: &str) -> bool {
    lines.iter().any(|(n, value)| n == name && value.contains(part))
}

const LISTS: &str = "[[list]]\nname = \"bots\"\nfile = \"{folder}/bots\"\n\
                     [[list]]\nname = \"homes\"\nfile = \"{folder}/homes\"\nceiling = \"refuse\"\n\
                     [[list]]\nname = \"never\"\nfile = \"{folder}/never\"\nformat = \"drop\"\n\
                     ceiling = \"drop\"\n\
                     [[list]]\nname = \"friends\"\nfile = \"{folder}/friends\"\nallow = true\n";

fn folder(name: &str) -> Folder {
    let folder = Folder::new(name);
    let write = |file: &str, text: &str| fs::write(folder.path(file), text).expect("written");
    write("bots", "# bots\n192.0.2.0/28 ; SBL1\n2001:db8:66::/64\n");
    write("homes", "198.51.100.0/24\n");
    write(
        "never",
        "{\"cidr\":\"203.0.113.0/24\",\"sblid\":\"SBL2\"}\n{\"type\":\"metadata\",\"records\":1}\n",
    );
    write("friends", "192.0.2.5\n");
    folder
}

#[test]
fn a_listed_client_is_heard_refused_with_its_envelope_and_banned_when_it_comes_again() {
    let mode = "[xdp]\nmode = \"drop\"\ncontact = \"https://mx.example.org/why\"\n";
    let mut daemon = Daemon::start_in(folder("ladder"), setup(&format!("{mode}{LISTS}")));
    let reply = rcpt(&daemon, "192.0.2.1", "ann@example.org");
    assert!(reply.starts_with("554 5.7.1 ["), "{reply}");
    let why = "your address is listed: [192.0.2.1] by bots; see https://mx.example.org/why";
    assert!(reply.ends_with(why), "{reply}");
    let line = daemon.line_with(&["F=<a@client.example.net>", "192.0.2.1", "by bots"]);
    assert!(line.contains("ann@example.org"), "the envelope is logged: {line}");
    assert!(rcpt(&daemon, "192.0.2.1", "postmaster").starts_with("250 "), "who may be asked");
    assert!(rcpt(&daemon, "192.0.2.5", "ann@example.org").starts_with("250 "), "allow wins");
    assert!(rcpt(&daemon, "192.0.2.99", "ann@example.org").starts_with("250 "), "not listed");
    // The second and the third time; then it is not heard any more.
    assert!(rcpt(&daemon, "192.0.2.1", "ann@example.org").starts_with("554 5.7.1 "));
    assert!(rcpt(&daemon, "192.0.2.1", "ann@example.org").starts_with("554 5.7.1 "));
    daemon.until("a ban", |daemon| has(&said(daemon, &["look", "192.0.2.1"]), "ban", "answer"));
    let (_, greeting) = arrive(&daemon, "192.0.2.1");
    assert!(greeting.starts_with("554 5.7.1 [") && greeting.contains("refused too often"));
    let look = said(&daemon, &["look", "192.0.2.1"]);
    assert!(has(&look, "ban by", "bots") && has(&look, "list", "bots: answer"), "{look:?}");
    let id = look.iter().find(|(name, _)| name == "ban id").expect("an id").1.clone();
    assert!(has(&said(&daemon, &["look", &id]), "address", "192.0.2.1"), "an id leads back");
    for what in [id.as_str(), "192.0.2.1"] {
        let why = daemon.ask(&["why", what]).to_string();
        assert!(why.contains("ban by: bots") && why.contains("refused"), "{what}: {why}");
    }
    let session = look.iter().find(|(name, _)| name == "session").expect("a session").1.clone();
    daemon.line_with(&[&session]);
    assert!(has(&said(&daemon, &["simulate", "192.0.2.1"]), "greeting", "refused"));
    daemon.ask(&["xdp", "remove", "192.0.2.1"]);
    daemon.until("no ban", |daemon| has(&said(daemon, &["look", "192.0.2.1"]), "ban", "none"));
    assert!(arrive(&daemon, "192.0.2.1").1.starts_with("220 "));
    // PBL-like: refused as often as it comes, never banned.
    for _ in 0..6 {
        let reply = rcpt(&daemon, "198.51.100.7", "ann@example.org");
        assert!(reply.contains("by homes"), "{reply}");
    }
    assert!(has(&said(&daemon, &["look", "198.51.100.7"]), "ban", "none"));
    // A list meant for it: not heard at all.
    let (_, greeting) = arrive(&daemon, "203.0.113.200");
    assert!(greeting.starts_with("554 5.7.1 [") && greeting.contains("by never"), "{greeting}");
    assert!(daemon.stop().success());
}

#[test]
fn counting_refuses_nobody_and_says_who_would_be() {
    let mut daemon = Daemon::start_in(folder("ladder-count"), setup(LISTS));
    for _ in 0..4 {
        assert!(rcpt(&daemon, "192.0.2.1", "ann@example.org").starts_with("250 "));
    }
    assert!(arrive(&daemon, "203.0.113.1").1.starts_with("220 "));
    daemon.line_with(&["would be refused", "192.0.2.1", "by bots"]);
    assert!(has(&said(&daemon, &["status"]), "mode", "count"));
    let rcpt = said(&daemon, &["simulate", "192.0.2.1"]);
    assert!(has(&rcpt, "rcpt", "taken") && has(&rcpt, "filter", "none"), "{rcpt:?}");
    assert!(daemon.stop().success());
}

#[test]
fn a_list_is_read_again_when_it_changes_and_a_broken_one_changes_nothing() {
    let mode = "[xdp]\nmode = \"refuse\"\n";
    let mut daemon = Daemon::start_in(folder("ladder-feeds"), setup(&format!("{mode}{LISTS}")));
    assert!(rcpt(&daemon, "192.0.2.99", "ann@example.org").starts_with("250 "));
    let file = daemon.folder.path("bots");
    fs::write(&file, "192.0.2.99\n").expect("written");
    daemon.until("the new list", |daemon| {
        has(&said(daemon, &["look", "192.0.2.99"]), "list", "bots")
    });
    assert!(rcpt(&daemon, "192.0.2.99", "ann@example.org").contains("by bots"));
    assert!(rcpt(&daemon, "192.0.2.1", "ann@example.org").starts_with("250 "), "not any more");
    fs::write(&file, "192.0.2.99\nnonsense\n").expect("written");
    daemon.line_with(&["ALARM", "list bots", "line 2", "stays in force"]);
    assert!(rcpt(&daemon, "192.0.2.99", "ann@example.org").contains("by bots"));
    assert!(daemon.stop().success());
}

/// A name server of Debian's with the zone in the folder; it ends with this.
struct Rbldnsd(Child, SocketAddr);

impl Rbldnsd {
    fn start(folder: &Folder, zone: &str) -> Self {
        // A port that was free a moment ago.
        let free = UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).expect("free");
        let data = "$SOA 600 ns.example.net admin.example.net 0 600 300 86400 60\n$TTL 300\n\
                    :127.0.0.3:listed\n127.0.0.2\n192.0.2.0/28\n";
        let mut file = fs::File::create(folder.path("zone")).expect("made");
        file.write_all(data.as_bytes()).expect("written");
        let child = Command::new("/usr/sbin/rbldnsd")
            .args(["-n", "-u", "rbldns", "-b", &format!("{}/{}", free.ip(), free.port()), "-w"])
            .arg(&folder.0)
            .arg(format!("{zone}:ip4set:zone"))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("rbldnsd is there");
        Self(child, free)
    }
}

impl Drop for Rbldnsd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_dns_list_of_rbldnsd_is_believed_while_its_test_points_are_right() {
    let folder = Folder::new("ladder-rbldnsd");
    let mut server = Rbldnsd::start(&folder, "bl.example.net");
    let more = format!(
        "[resolver]\nservers = [\"{}\"]\n[xdp]\nmode = \"answer\"\nrepeats = 2\n\
         [[dnsbl]]\nzone = \"bl.example.net\"\ncodes = [\"127.0.0.2-4=answer\"]\n",
        server.1
    );
    let mut daemon = Daemon::start_in(folder, setup(&more));
    daemon.until("proof", |daemon| {
        assert!(matches!(server.0.try_wait(), Ok(None)), "rbldnsd ended");
        has(&said(daemon, &["status"]), "bl.example.net", "counts;")
    });
    let reply = rcpt(&daemon, "192.0.2.7", "ann@example.org");
    assert!(reply.contains("[192.0.2.7] by bl.example.net"), "{reply}");
    assert!(rcpt(&daemon, "192.0.2.77", "ann@example.org").starts_with("250 "));
    assert!(rcpt(&daemon, "192.0.2.7", "ann@example.org").starts_with("554 5.7.1 "));
    daemon.until("a ban", |daemon| has(&said(daemon, &["look", "192.0.2.7"]), "ban", "answer"));
    let ban = said(&daemon, &["look", "192.0.2.7"]);
    let left = &ban.iter().find(|(name, _)| name == "ban").expect("there").1;
    let left: u32 = left.split_whitespace().nth(2).and_then(|n| n.parse().ok()).expect("seconds");
    assert!((1..=300).contains(&left), "as long as the answer may be believed: {left}");
    assert!(arrive(&daemon, "192.0.2.7").1.starts_with("554 5.7.1 "));
    assert!(daemon.stop().success());
}

#[test]
fn errors_of_a_resolver_list_nobody() {
    let dns = Dns::start(&[]);
    let code = |text: &str| Data::Address(text.parse().expect("an address"));
    dns.add("2.0.0.127.bl.example.net", code("127.0.0.2"));
    dns.add("2.0.0.127.all.example.net", code("127.0.0.2"));
    dns.add("1.0.0.127.all.example.net", code("127.0.0.2"));
    for (n, answers) in [
        (1, &["127.255.255.254"][..]),
        (2, &["127.0.0.2", "127.255.255.252"]),
        (3, &["127.0.0.4", "192.0.2.1", "127.0.0.2"]),
        (4, &["127.0.0.1"]),
    ] {
        for answer in answers {
            dns.add(&format!("{n}.2.0.192.bl.example.net"), code(answer));
        }
    }
    dns.add("5.2.0.192.bl.example.net", Data::Trouble);
    dns.add("6.2.0.192.bl.example.net", code("127.0.0.2"));
    dns.add("7.2.0.192.all.example.net", code("127.0.0.2"));
    let zones = "[xdp]\nmode = \"drop\"\nrepeats = 1\n\
                 [[dnsbl]]\nzone = \"bl.example.net\"\n[[dnsbl]]\nzone = \"all.example.net\"\n";
    let mut daemon = Daemon::start("ladder-errors", setup(&format!("{}{zones}", dns.section())));
    daemon.until("proof", |daemon| has(&said(daemon, &["status"]), "bl.example.net", "counts;"));
    daemon.until("doubt", |daemon| has(&said(daemon, &["status"]), "all.example.net", "cut off"));
    daemon.line_with(&["ALARM", "all.example.net", "test points"]);
    for n in [1, 2, 3, 4, 5, 7] {
        let reply = rcpt(&daemon, &format!("192.0.2.{n}"), "ann@example.org");
        assert!(reply.starts_with("250 "), "192.0.2.{n}: {reply}");
    }
    // A code that nobody has explained: the daemon refuses, and that is all.
    for _ in 0..3 {
        let reply = rcpt(&daemon, "192.0.2.6", "ann@example.org");
        assert!(reply.contains("by bl.example.net"), "{reply}");
    }
    assert!(has(&said(&daemon, &["status"]), "bans", "0"));
    assert!(daemon.stop().success());
}

#[test]
fn an_early_talker_is_banned_by_local_evidence() {
    let mode = "[xdp]\nmode = \"answer\"\nevidence = 20\n";
    let mut one = setup(mode);
    one.policy.push_str("greet_delay_s = 1\n");
    let mut daemon = Daemon::start("ladder-evidence", one);
    let early = || {
        let mut client = Client::connect_silent(daemon.address);
        client.send(b"PROXY TCP4 192.0.2.9 198.51.100.2 4711 25\r\nEHLO x\r\n");
        client.reply()
    };
    for _ in 0..3 {
        assert!(early().starts_with("554 "), "it spoke before the greeting");
    }
    daemon.until("a ban", |daemon| has(&said(daemon, &["look", "192.0.2.9"]), "ban", "answer"));
    assert!(has(&said(&daemon, &["look", "192.0.2.9"]), "ban by", "local evidence"));
    let (_, greeting) = arrive(&daemon, "192.0.2.9");
    assert!(greeting.contains("refused too often"), "{greeting}");
    assert!(daemon.stop().success());
}

/// Clients of one test's own, each of another network.
fn misbehaves(daemon: &Daemon, address: &str, lines: &[&str], code: &str) {
    let (mut client, greeting) = arrive(daemon, address);
    assert!(greeting.starts_with("220 "), "{address}: {greeting}");
    client.expect("EHLO client.example.net", "250");
    for line in lines {
        let reply = client.say(line);
        if reply.starts_with("421 ") || reply.is_empty() {
            return;
        }
        assert!(reply.starts_with(code) || line.starts_with("MAIL"), "{line}: {reply}");
    }
}

#[test]
fn harvesters_and_floods_of_commands_are_banned_up_to_their_ceiling() {
    let mode = "[xdp]\nmode = \"drop\"\nevidence = 30\nevidence_ceiling = \"answer\"\n";
    let folder = Folder::new("ladder-harvest");
    fs::write(folder.path("known"), "ann@example.org\n").expect("written");
    let mut setup = setup(mode);
    let file = folder.path("known");
    setup.policy =
        format!("relay_domains = [\"example.org\"]\nrecipients_file = \"{}\"\n", file.display());
    let mut daemon = Daemon::start_in(folder, setup);
    let names: Vec<String> = (0..20).map(|n| format!("RCPT TO:<u{n}@example.org>")).collect();
    let mut harvest = vec!["MAIL FROM:<a@client.example.net>"];
    harvest.extend(names.iter().map(String::as_str));
    let flood = ["XYZZY"; 20];
    for (client, lines, code) in
        [("192.0.2.31", &harvest[..], "550 5.1.1"), ("192.0.2.41", &flood[..], "500 ")]
    {
        misbehaves(&daemon, client, lines, code);
        // What one session may do wrong is not enough: a typing error bans nobody.
        assert!(has(&said(&daemon, &["look", client]), "ban", "none"), "{client}");
        for _ in 0..8 {
            if arrive(&daemon, client).1.starts_with("220 ") {
                misbehaves(&daemon, client, lines, code);
            }
        }
        daemon.until("a ban", |daemon| has(&said(daemon, &["look", client]), "ban", "answer"));
        let look = said(&daemon, &["look", client]);
        assert!(has(&look, "ban by", "local evidence"), "{look:?}");
        let left = &look.iter().find(|(name, _)| name == "ban").expect("there").1;
        let left_s: u32 = left.split(' ').nth(2).and_then(|n| n.parse().ok()).expect("seconds");
        assert!((1..=300).contains(&left_s), "{left}");
        assert!(arrive(&daemon, client).1.contains("refused too often"), "{client}");
    }
    assert!(daemon.stop().success());
}

#[test]
fn who_delivered_mail_lately_is_heard_however_often_it_is_refused() {
    let mode = "[xdp]\nmode = \"answer\"\nrepeats = 1\n";
    let mut daemon = Daemon::start_in(folder("ladder-good"), setup(&format!("{mode}{LISTS}")));
    let (mut client, _) = arrive(&daemon, "192.0.2.99");
    client.expect("EHLO client.example.net", "250");
    client.deliver("a@client.example.net", &["ann@example.org"], "Subject: x\r\n\r\nx\r\n");
    client.expect("QUIT", "221");
    daemon.until("the note", |d| has(&said(d, &["look", "192.0.2.99"]), "mail taken", "s ago"));
    fs::write(daemon.folder.path("bots"), "192.0.2.99\n192.0.2.98\n").expect("written");
    daemon.until("the list", |d| has(&said(d, &["look", "192.0.2.99"]), "list", "bots"));
    for client in ["192.0.2.98", "192.0.2.99"] {
        assert!(rcpt(&daemon, client, "ann@example.org").contains("by bots"), "{client}");
    }
    daemon.until("a ban", |d| has(&said(d, &["look", "192.0.2.98"]), "ban", "answer"));
    for _ in 0..3 {
        assert!(rcpt(&daemon, "192.0.2.99", "ann@example.org").contains("by bots"));
    }
    assert!(has(&said(&daemon, &["look", "192.0.2.99"]), "ban", "none"));
    assert!(daemon.stop().success());
}

#[test]
fn only_a_part_of_all_clients_is_banned_at_once() {
    let mode = "[xdp]\nmode = \"answer\"\nrepeats = 1\nbanned_percent_max = 10\n";
    let folder = folder("ladder-fuse");
    fs::write(folder.path("bots"), "203.0.113.0/24\n").expect("written");
    let lists = "[[list]]\nname = \"bots\"\nfile = \"{folder}/bots\"\n";
    let mut daemon = Daemon::start_in(folder, setup(&format!("{mode}{lists}")));
    for n in 1..=105 {
        assert!(rcpt(&daemon, &format!("203.0.113.{n}"), "ann@example.org").contains("by bots"));
    }
    daemon.line_with(&["ALARM", "100 clients are banned, as many as may be", "banned_percent_max"]);
    let status = said(&daemon, &["status"]);
    let bans = &status.iter().find(|(name, _)| name == "bans").expect("counted").1;
    // What is under way between cores while they are counted may come on top.
    assert!((100..105).contains(&bans.parse::<u32>().expect("a number")), "{bans}");
    assert!(rcpt(&daemon, "203.0.113.105", "ann@example.org").contains("by bots"), "still heard");
    assert!(arrive(&daemon, "203.0.113.1").1.contains("refused too often"));
    assert!(daemon.stop().success());
}

#[test]
fn the_operator_bans_and_lifts() {
    let mut daemon = Daemon::start("ladder-hand", setup("[xdp]\nmode = \"answer\"\n"));
    daemon.ask(&["xdp", "add", "2001:db8::7", "--seconds", "600"]);
    daemon.until("a ban", |daemon| has(&said(daemon, &["look", "2001:db8::9"]), "ban", "answer"));
    assert!(arrive(&daemon, "2001:db8::1").1.starts_with("554 5.7.1 "), "all of its /64");
    daemon.kill();
    daemon.start_again();
    assert!(
        arrive(&daemon, "2001:db8::1").1.starts_with("554 5.7.1 "),
        "a ban outlives the daemon"
    );
    daemon.ask(&["xdp", "remove", "2001:db8::5"]);
    daemon.until("none", |daemon| arrive(daemon, "2001:db8::1").1.starts_with("220 "));
    assert!(!daemon.tool(&["xdp", "remove", "2001:db8::5"]).status.success());
    assert!(daemon.stop().success());
}
