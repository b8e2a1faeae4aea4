//! Played sessions, routes, recipients, trials, watched sessions: nothing of it has an effect.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::{text, whole};
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::dns::{Data, Dns};
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

/// What is counted of clients.
fn trace_of(daemon: &Daemon) -> Vec<String> {
    let page = text(&daemon.tool(&["metrics"]));
    let names = ["_accepted_total", "_refused_total", "connections_total"];
    let counts = |line: &&str| names.iter().any(|name| line.contains(name));
    page.lines().filter(counts).map(str::to_owned).collect()
}

#[test]
fn a_session_is_played_from_any_address_without_a_trace() {
    let backend = Backend::start(Manners::default());
    let mut setup = Setup::new(backend.address);
    setup.limits = "exempt_networks = []\n".to_owned();
    let mut daemon = Daemon::start("session", setup);
    let before = (trace_of(&daemon), daemon.ledger(), text(&daemon.tool(&["hints", "list"])));
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
    let after = (trace_of(&daemon), daemon.ledger(), text(&daemon.tool(&["hints", "list"])));
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

/// A client of others' making, its end of the session a program instead of a connection.
fn swaks(daemon: &Daemon, to: &str, more: &[&str]) -> (Option<i32>, String) {
    swaks_at(daemon, 0, to, more)
}

/// The same at one of its listeners.
fn swaks_at(daemon: &Daemon, listener: usize, to: &str, more: &[&str]) -> (Option<i32>, String) {
    let socket = daemon.folder.path("admin.sock");
    let (program, socket) = (programs::program("ringpost"), socket.display());
    let played = format!(
        "{} --socket {socket} session --from 198.51.100.7 --listener {listener}",
        program.display()
    );
    let words = ["--pipe", &played, "--from", "a@example.net", "--to", to, "--helo", "c.example"];
    let output = Command::new("swaks").args(words).args(more).output().expect("swaks is installed");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn swaks_plays_a_session_by_its_pipe_and_leaves_no_trace() {
    let backend = Backend::start(Manners::default());
    let mut setup = Setup::new(backend.address);
    setup.limits = "exempt_networks = []\n".to_owned();
    let mut daemon = Daemon::start("session-swaks", setup);
    daemon.until("the probe", |daemon| {
        daemon.ask(&["hints", "list", "--kind", "offers"]).to_string().contains("offers")
    });
    let before = (
        trace_of(&daemon),
        daemon.ledger(),
        text(&daemon.tool(&["hints", "dump"])).lines().count(),
    );
    let (code, said) = swaks(&daemon, "b@example.org", &[]);
    assert_eq!(code, Some(0), "{said}");
    for part in ["220 mx.example.org", "250 2.1.5", "354 ", "accepted", "221 ", "# rcpt: "] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // 24: no recipient was taken.
    let (code, said) = swaks(&daemon, "b@elsewhere.example", &[]);
    assert_eq!(code, Some(24), "{said}");
    assert!(said.contains("550 5.7.1") && said.contains("relay_denied"), "{said}");
    let after = (
        trace_of(&daemon),
        daemon.ledger(),
        text(&daemon.tool(&["hints", "dump"])).lines().count(),
    );
    assert_eq!(before, after);
    assert_eq!(backend.count(), 0);
    assert!(!daemon.log().contains("198.51.100.7"), "{}", daemon.log());
    assert_eq!(daemon.tool(&["why", "198.51.100.7"]).status.code(), Some(5));
    assert!(daemon.stop().success());
}

#[test]
fn a_played_session_speaks_tls_with_the_daemons_certificate() {
    let backend = Backend::start(Manners::default());
    let mut setup = Setup::new(backend.address);
    setup.listener = "tls = \"starttls\"\ntls_required = true\n".to_owned();
    setup.limits = "exempt_networks = []\n".to_owned();
    setup.more = "[[tls.certificate]]\ncertificate = \"{folder}/own.crt\"\n\
                  key = \"{folder}/own.key\"\nnames = [\"mx.example.org\"]\nself_signed = true\n"
        .to_owned();
    let mut daemon = Daemon::start("session-tls", setup);
    let before = (trace_of(&daemon), daemon.ledger());
    // In the clear it hears what a client would.
    let (code, said) = swaks(&daemon, "b@example.org", &[]);
    assert_eq!(code, Some(23), "{said}");
    assert!(said.contains("530 5.7.0"), "{said}");
    for (protocol, version) in [("tlsv1_2", "1.2"), ("tlsv1_3", "1.3")] {
        let (code, said) = swaks(&daemon, "b@example.org", &["--tls", "--tls-protocol", protocol]);
        assert_eq!(code, Some(0), "{said}");
        plays_in(version, &said);
    }
    // More than one question holds, octet by octet.
    let large = daemon.folder.path("large");
    std::fs::write(&large, "0123456789abcdef\r\n".repeat(20_000)).expect("written");
    let body = format!("@{}", large.display());
    let (code, said) = swaks(&daemon, "b@example.org", &["--tls", "--body", &body, "--hide-send"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("# content: 36"), "{said}");
    assert_eq!(before, (trace_of(&daemon), daemon.ledger()));
    assert!(!daemon.log().contains("198.51.100.7"), "{}", daemon.log());
    assert!(daemon.stop().success());
}

/// What swaks and the daemon say of a session that went through.
fn plays_in(version: &str, said: &str) {
    for part in [
        &*format!("TLS started with cipher TLSv{version}:"),
        "CN=mx.example.org",
        &format!("# TLS: TLS{version} "),
        "~> RCPT",
        "<~  250 2.1.5",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_listener_that_begins_with_tls_is_played_from_the_first_octet() {
    let backend = Backend::start(Manners::default());
    let mut setup = Setup::new(backend.address);
    setup.listener = "tls = \"starttls\"\n".to_owned();
    setup.limits = "exempt_networks = []\n".to_owned();
    setup.more = "[xdp]\nmode = \"answer\"\n\
                  [[listener]]\naddress = \"127.0.0.1\"\nport = 0\ntls = \"implicit\"\n\
                  [[tls.certificate]]\ncertificate = \"{folder}/own.crt\"\n\
                  key = \"{folder}/own.key\"\nnames = [\"mx.example.org\"]\nself_signed = true\n"
        .to_owned();
    let mut daemon = Daemon::start("session-implicit", setup);
    let before = (trace_of(&daemon), daemon.ledger());
    for (protocol, version) in [("tlsv1_2", "1.2"), ("tlsv1_3", "1.3")] {
        let words = ["--tls-on-connect", "--tls-protocol", protocol];
        let (code, said) = swaks_at(&daemon, 1, "b@example.org", &words);
        assert_eq!(code, Some(0), "{said}");
        plays_in(version, &said);
    }
    // What such a client is refused is refused within TLS, with its reason.
    let (code, said) = swaks_at(&daemon, 1, "b@elsewhere.example", &["--tls-on-connect"]);
    assert_eq!(code, Some(24), "{said}");
    assert!(said.contains("<~* 550 5.7.1") && said.contains("relay_denied"), "{said}");
    // A client that speaks in the clear there is told by the notes what to do.
    let words = ["session", "--from", "198.51.100.7", "--listener", "1"];
    let (out, notes) = with_input(&daemon, &words, "EHLO c.example\r\n");
    assert!(!out.contains("220 "), "{out}");
    for part in ["TLS failed", "--tls-on-connect", "--listener"] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    // And one that begins with TLS where it is only offered is answered as on the port itself.
    let (code, said) = swaks_at(&daemon, 0, "b@example.org", &["--tls-on-connect"]);
    assert_ne!(code, Some(0), "{said}");
    let output = daemon.tool(&["session", "--from", "198.51.100.7", "--listener", "2"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    for part in ["there is no listener 2", "0 127.0.0.1:", "1 127.0.0.1:", "(tls implicit)"] {
        assert!(whole(&output).contains(part), "{part}: {}", text(&output));
    }
    // Who is turned away hears so before any TLS, as on the port itself.
    let blocked = daemon.tool(&["block", "198.51.100.0/24"]);
    assert!(blocked.status.success(), "{}", text(&blocked));
    let (out, _) = with_input(&daemon, &words, "");
    assert!(out.starts_with("554 5.7.1"), "{out}");
    assert_eq!(before, (trace_of(&daemon), daemon.ledger()));
    // A banned one hears it within TLS, as on the port itself.
    for order in [["unblock", "198.51.100.0/24"].as_slice(), &["xdp", "add", "198.51.100.7"]] {
        let done = daemon.tool(order);
        assert!(done.status.success(), "{order:?}: {}", text(&done));
    }
    let (code, said) = swaks_at(&daemon, 1, "b@example.org", &["--tls-on-connect"]);
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("<~* 554 5.7.1"), "{said}");
    assert!(daemon.stop().success());
}

#[test]
fn a_played_session_hears_what_rates_would_say_and_counts_nothing() {
    let backend = Backend::start(Manners::default());
    let mut setup = Setup::new(backend.address);
    setup.limits = "connections_max = 2\nconnection_rate = \"2 per day\"\n\
                    message_rate = \"2 per day\"\nrecipient_rate = \"3 per day\"\n\
                    exempt_networks = []\n"
        .to_owned();
    let mut daemon = Daemon::start("session-rates", setup);
    let mail = "MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nRSET\r\n";
    let input = format!("EHLO c.example\r\n{}", mail.repeat(3));
    let play = |from: &str| with_input(&daemon, &["session", "--from", from], &input);
    // As often as it is asked: the third message of the session would be too much.
    for _ in 0..4 {
        let (out, notes) = play("198.51.100.7");
        assert_eq!(out.matches("250 2.1.5").count(), 2, "{out}");
        assert_eq!(out.matches("451 4.7.1").count(), 1, "{out}");
        for part in [
            "connection rate: 1 of 2 would be left; sessions open: 0 of 2",
            "message rate: 1 of 2 would be left",
            "message rate: more than 2",
            "recipient rate: 1 of 3 would be left",
        ] {
            assert!(notes.contains(part), "{part}: {notes}");
        }
    }
    assert!(!whole(&daemon.tool(&["hints", "list"])).contains("rate-"));
    // What real clients did, counts.
    for _ in 0..2 {
        Client::greeted(daemon.address).deliver(
            "s@example.net",
            &["b@example.org"],
            "x: y\r\n\r\n",
        );
    }
    let (out, notes) = play("127.0.0.1");
    assert!(out.starts_with("421 4.7.0"), "{out}");
    assert!(notes.contains("connection rate: more than 2"), "{notes}");
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn a_played_session_hears_what_lists_and_bans_say_and_asks_each_time() {
    let dns = Dns::start(&[
        ("2.0.0.127.bl.example.net", Data::Address("127.0.0.2".parse().expect("an address"))),
        ("7.100.51.198.bl.example.net", Data::Address("127.0.0.2".parse().expect("one"))),
    ]);
    let mut setup = Setup::new(Backend::nowhere());
    setup.more =
        format!("{}[xdp]\nmode = \"drop\"\n[[dnsbl]]\nzone = \"bl.example.net\"\n", dns.section());
    let mut daemon = Daemon::start("session-lists", setup);
    daemon.until("a list that counts", |daemon| {
        let page = whole(&daemon.tool(&["xdp", "simulate", "198.51.100.7"]));
        page.contains("bl.example.net lists it") && !page.contains("cut off")
    });
    let input = "EHLO c.example\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\n";
    let play =
        |daemon: &Daemon, from: &str| with_input(daemon, &["session", "--from", from], input);
    let (out, notes) = play(&daemon, "198.51.100.7");
    assert!(out.contains("554 5.7.1") && out.contains("bl.example.net"), "{out}");
    let notes = notes.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(notes.contains("bl.example.net lists it"), "{notes}");
    let (out, notes) = play(&daemon, "198.51.100.8");
    assert!(out.contains("250 2.1.5") && notes.contains("does not list it"), "{out} {notes}");
    let banned = daemon.tool(&["xdp", "add", "198.51.100.8"]);
    assert!(banned.status.success(), "{}", text(&banned));
    daemon.until("the ban", |daemon| play(daemon, "198.51.100.8").0.starts_with("554 "));
    for address in ["198.51.100.7", "198.51.100.8"] {
        let hints = daemon.ask(&["hints", "list", "--key", address]).to_string();
        assert!(!hints.contains("standing") && !hints.contains("rate"), "{hints}");
    }
    assert!(!daemon.log().contains("refused 198.51.100"), "{}", daemon.log());
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
    assert!(verify.contains("no domain of ours"), "{verify}");
    let verify = whole(&daemon.tool(&["verify", "a@example.org"]));
    assert!(verify.contains("from a stranger taken"), "{verify}");
    assert!(verify.contains("a recipient of ours") && verify.contains("way there hosts, "));
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
    let mut open = Client::greeted(daemon.address);
    let on = daemon.tool(&["trace", "on", "127.0.0.0/8"]);
    assert!(on.status.success(), "{}", text(&on));
    let mut client = Client::greeted(daemon.address);
    client.expect("NOOP something", "250");
    open.expect("NOOP open before", "250");
    let why = whole(&daemon.tool(&["why", "127.0.0.1"]));
    for part in [
        "-> EHLO client.example.net",
        "-> NOOP something",
        "<- 220 mx.example.org",
        "-> NOOP open before",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let off = daemon.tool(&["trace", "off", "127.0.0.0/8"]);
    assert!(off.status.success(), "{}", text(&off));
    client.expect("NOOP unseen", "250");
    assert!(!whole(&daemon.tool(&["why", "127.0.0.1"])).contains("unseen"));
    drop((client, open));
    assert!(daemon.stop().success());
}

#[test]
fn one_session_or_one_domain_is_watched_live() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("trace-live", Setup::new(backend.address));
    let mut one = Client::greeted(daemon.address);
    let mut other = Client::greeted(daemon.address);
    let rows = daemon.ask(&["sessions"]).to_string();
    let port = one.local().port().to_string();
    assert!(rows.contains(&port), "{rows}");
    let sessions = daemon.ask(&["sessions"]);
    let mine = |row: &&serde_json::Value| row.to_string().contains(&format!(":{port}\""));
    let row = sessions["rows"].as_array().expect("rows").iter().find(mine).expect("mine");
    let is_id = |cell: &&str| {
        cell.len() >= 20 && cell.bytes().all(|o| o.is_ascii_alphanumeric() || o == b'.')
    };
    let cells = row.as_array().expect("cells").iter().filter_map(serde_json::Value::as_str);
    let id = cells.into_iter().find(is_id).expect("an id").to_owned();
    // Whose time is long over when it is read: what it prints is taken when it ends.
    let watch = |what: &str| {
        let mut command = Command::new(programs::program("ringpost"));
        command.arg("--socket").arg(daemon.folder.path("admin.sock"));
        command.args(["trace", "live", what, "--seconds", "3600"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
        let mut lines = std::io::BufReader::new(child.stdout.take().expect("piped"));
        let mut first = String::new();
        std::io::BufRead::read_line(&mut lines, &mut first).expect("it says that it watches");
        assert!(first.contains("are watched"), "{first}");
        (child, lines)
    };
    let until = |lines: &mut std::io::BufReader<std::process::ChildStdout>, part: &str| {
        let mut seen = String::new();
        while !seen.contains(part) {
            let read = std::io::BufRead::read_line(lines, &mut seen).expect("it goes on");
            assert!(read > 0, "it ended without {part}: {seen}");
        }
        seen
    };
    let (mut child, mut lines) = watch(&id);
    other.expect("NOOP of another", "250");
    one.expect("NOOP of this one", "250");
    let seen = until(&mut lines, "-> NOOP of this one");
    assert!(!seen.contains("of another"), "{seen}");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let off = daemon.tool(&["trace", "off", &id]);
    assert!(off.status.success(), "{}", text(&off));
    let (mut child, mut lines) = watch("@example.org");
    one.expect("MAIL FROM:<a@example.net>", "250");
    one.expect("RCPT TO:<b@elsewhere.example>", "550");
    other.expect("MAIL FROM:<c@example.net>", "250");
    other.expect("RCPT TO:<d@example.org>", "250");
    other.expect("NOOP of the domain", "250");
    let seen = until(&mut lines, "-> NOOP of the domain");
    assert!(seen.contains("-> RCPT TO:<d@example.org>") && seen.contains("<- 250 2.1.5"), "{seen}");
    assert!(!seen.contains("elsewhere.example"), "{seen}");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let odd = daemon.tool(&["trace", "on", "nonsense"]);
    assert_eq!(odd.status.code(), Some(1), "{}", text(&odd));
    drop((one, other));
    assert!(daemon.stop().success());
}

#[test]
fn the_plain_line_and_the_menu_are_the_same_commands() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("shell", Setup::new(backend.address));
    let input = "menu\n1\nledger\nqueue s?\nhelp\nno such thing\nquit\n";
    let (out, errors) = with_input(&daemon, &["shell"], input);
    for part in [
        "queue summary",
        "running",
        "The ledger balances.",
        "The backlog by next hop",
        "xdp       add",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(errors.contains("unrecognized"), "{errors}");
    // Nothing is asked of the terminal, and nothing moves its cursor.
    assert!(!out.contains('\u{1b}') && out.is_ascii(), "{out:?}");
    let live = text(&daemon.tool(&["live", "--every-s", "1", "--count", "1"]));
    assert!(live.contains("acc/s") && live.lines().count() == 2, "{live}");
    assert!(daemon.stop().success());
}
