//! What the logs, the counters and the books say of what happened.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use super::backend::{Backend, Manners};
use super::client::Client;
use super::programs::{Daemon, Setup};

/// A delivery, a deferral that comes through, a bounce with its report, a refusal of each kind.
/// The ids of the three mails.
fn scenario(daemon: &mut Daemon, backend: &Backend) -> [String; 3] {
    let mut client = Client::greeted(daemon.address);
    let content = |n: &str| {
        format!("Message-ID: <{n}@example.net>\r\nSubject: \"{n}\" \\ \u{7}x\r\n\r\nbody\r\n")
            .replace('\u{7}', "")
    };
    let good = client.deliver("sender@example.net", &["good@example.org"], &content("one"));
    let late = client.deliver("sender@example.net", &["late@example.org"], &content("two"));
    let bad = client.deliver("sender@example.net", &["bad@example.org"], &content("three"));
    client.expect("MAIL FROM:<evil@example.net>", "250");
    client.expect("RCPT TO:<a@other.example>", "550");
    client.expect("RCPT TO:<a@example.org>", "250");
    client.expect("DATA", "354");
    client.send(b"Subject: a very bad one\r\nX: y\r\n\r\nbare\nLF\r\n.\r\n");
    assert!(client.reply().starts_with("550 5.6.11"));
    backend.wait_for(3);
    daemon.until_empty();
    [good, late, bad]
}

fn backend() -> Backend {
    let replies = vec![
        ("RCPT TO:<LATE", "450 4.2.0 come \"again\"", 1),
        ("RCPT TO:<BAD", "550 5.1.1 nobody", 0),
    ];
    Backend::start(Manners { replies, ..Manners::default() })
}

#[test]
fn every_step_has_its_line_in_exims_style() {
    let backend = backend();
    let mut setup = Setup::new(backend.address);
    setup.log = "subject = true\n".to_owned();
    let mut daemon = Daemon::start("logs", setup);
    let [good, late, bad] = scenario(&mut daemon, &backend);
    daemon.until("three completed, and the report", |daemon| {
        daemon.log().matches(" Completed").count() == 4
    });
    let log = daemon.log();
    let of = |id: &str, mark: &str| -> Vec<String> {
        let fits = |l: &&str| l.contains(&format!(" {id} ")) && l.contains(mark);
        log.lines().filter(fits).map(str::to_owned).collect()
    };
    for id in [&good, &late, &bad] {
        let arrival = of(id, " <= ");
        assert_eq!(arrival.len(), 1, "{log}");
        for part in [
            "<= sender@example.net H=",
            "(client.example.net) [127.0.0.1]:",
            "I=[127.0.0.1]:",
            "P=esmtp",
            "S=",
            "id=",
            "@example.net",
            "T=\"",
        ] {
            assert!(arrival[0].contains(part), "{part}: {}", arrival[0]);
        }
        assert_eq!(of(id, "Completed QT=").len(), 1, "{log}");
    }
    let octets = "Message-ID: <one@example.net>\r\nSubject: \"one\" \\ x\r\n\r\nbody\r\n".len();
    assert!(of(&good, " <= ")[0].contains(&format!(" S={octets} ")), "{}", of(&good, " <= ")[0]);
    let delivery = of(&good, " => ");
    assert_eq!(delivery.len(), 1);
    for part in [
        "=> good@example.org",
        "R=backend",
        "T=smtp",
        "H=127.0.0.1 [127.0.0.1]:",
        "C=\"250 kept\"",
        "QT=",
        "DT=",
    ] {
        assert!(delivery[0].contains(part), "{part}: {}", delivery[0]);
    }
    let deferral = of(&late, " == ");
    assert_eq!(deferral.len(), 1);
    assert!(deferral[0].contains("== late@example.org R=backend T=smtp"), "{}", deferral[0]);
    assert!(deferral[0].contains("450 4.2.0 come \"again\""), "{}", deferral[0]);
    assert_eq!(of(&late, " => ").len(), 1);
    let bounce = of(&bad, " ** ");
    assert_eq!(bounce.len(), 1);
    assert!(bounce[0].contains("** bad@example.org R=backend T=smtp"), "{}", bounce[0]);
    assert!(bounce[0].contains("550 5.1.1 nobody"), "{}", bounce[0]);
    let report = log.lines().find(|l| l.contains(" <= <> R=")).expect("the report's arrival");
    assert!(report.contains(&format!("R={bad} P=local S=")), "{report}");
    // Each line begins with its time, the order of events is the order of lines.
    for line in log.lines() {
        let stamp = line.get(..25).unwrap_or_default();
        let shape: String =
            stamp.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00 00:00:00.000 +", "{line}");
    }
    let at = |id: &str, mark: &str| log.find(&of(id, mark)[0]).expect("it is there");
    assert!(at(&late, " <= ") < at(&late, " == ") && at(&late, " == ") < at(&late, " => "));
    // The reject log has who, for whom and the header.
    let rejected = daemon.reject_log();
    for part in [
        "rejected RCPT <a@other.example>: relaying denied",
        "Envelope-from: <evil@example.net>",
        "rejected after DATA",
        "Subject: a very bad one",
        "X: y",
    ] {
        assert!(rejected.contains(part), "{part}: {rejected}");
    }
    assert!(!rejected.contains("bare\nLF"), "the body is nobody's business: {rejected}");
    assert!(daemon.stop().success());
}

#[test]
fn json_lines_say_the_same() {
    let backend = backend();
    let mut setup = Setup::new(backend.address);
    setup.log = "format = \"json\"\nsubject = true\n".to_owned();
    let mut daemon = Daemon::start("json", setup);
    let [good, late, bad] = scenario(&mut daemon, &backend);
    daemon.until("all completed", |daemon| {
        daemon.log().matches("\"event\":\"completed\"").count() == 4
    });
    let lines: Vec<Value> = daemon
        .log()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let of = |id: &str, event: &str| -> Value {
        let mut fits = lines
            .iter()
            .filter(|l| l["id"].as_str() == Some(id) && l["event"].as_str() == Some(event));
        let line = fits.next().unwrap_or_else(|| panic!("no {event} of {id}")).clone();
        assert!(fits.next().is_none(), "{event} of {id} twice");
        line
    };
    let arrival = of(&good, "accepted");
    assert_eq!(arrival["sender"], "sender@example.net");
    assert_eq!(arrival["message_id"], "one@example.net");
    assert_eq!(arrival["subject"], "\"one\" \\ x");
    assert_eq!(arrival["recipients"], 1);
    assert_eq!(of(&good, "relayed")["recipient"], "good@example.org");
    assert_eq!(of(&late, "deferred")["reason"], "hop_temporary");
    assert_eq!(of(&bad, "bounced")["reason"], "hop_permanent");
    let generated = lines.iter().find(|l| l["event"] == "generated").expect("the report");
    assert_eq!(generated["parent"].as_str(), Some(&*bad));
    let refused: Vec<&Value> = lines.iter().filter(|l| l["event"] == "refused").collect();
    assert!(refused.iter().any(|l| l["reason"] == "relay_denied" && l["stage"] == "rcpt"));
    assert!(refused.iter().any(|l| l["reason"] == "bare_newline" && l["stage"] == "content"));
    for line in &lines {
        assert!(line["time"].is_string() && line["event"].is_string(), "{line}");
    }
    assert!(daemon.stop().success());
}

/// Checks the text format (version 0.0.4) and gives the samples.
fn samples(page: &str) -> Vec<(String, f64)> {
    let mut all = Vec::new();
    let mut typed = std::collections::HashMap::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("name and kind");
            assert!(["counter", "gauge", "summary", "histogram"].contains(&kind), "{line}");
            assert!(typed.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        let bare = name.split('{').next().expect("a name");
        let base = bare.trim_end_matches("_sum").trim_end_matches("_count");
        assert!(typed.contains_key(bare) || typed.contains_key(base), "no TYPE before {line}");
        assert!(bare.starts_with("ringpost_"), "{line}");
        if let Some(labels) = name.strip_prefix(bare).filter(|labels| !labels.is_empty()) {
            let inside = labels.strip_prefix('{').and_then(|l| l.strip_suffix('}'));
            for label in inside.expect("braces").split(',') {
                let (key, value) = label.split_once('=').expect("key and value");
                assert!(key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
                assert!(value.starts_with('"') && value.ends_with('"'), "{line}");
            }
        }
        all.push((name.to_owned(), value));
    }
    assert!(all.len() > 50, "a page of {} samples", all.len());
    all
}

#[test]
fn the_page_counts_by_reason() {
    let backend = backend();
    let mut setup = Setup::new(backend.address);
    setup.more = "[metrics]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    let mut daemon = Daemon::start("metrics", setup);
    scenario(&mut daemon, &backend);
    let status = daemon.ask(&["status"]).to_string();
    let start = status.find("metrics ").map(|at| at + 8).unwrap_or_else(|| panic!("{status}"));
    let address: String =
        status[start..].chars().take_while(|c| c.is_ascii_digit() || ".:[]".contains(*c)).collect();
    let fetch = |what: &str| {
        let mut stream = TcpStream::connect(&*address).expect("the page listens");
        write!(stream, "GET {what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a header");
        (head.lines().next().expect("a status").to_owned(), head.to_owned(), body.to_owned())
    };
    let (status, head, _) = fetch("/metrics");
    assert!(status.contains(" 200 "), "{status}");
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(fetch("/other").0.contains(" 404 "));
    let wanted = [
        "reason=\"relay_denied\"",
        "reason=\"bare_newline\"",
        "reason=\"hop_temporary\"",
        "reason=\"hop_permanent\"",
    ];
    let mut page = String::new();
    daemon.until("all reasons on the page", |_| {
        page = fetch("/metrics").2;
        wanted.iter().all(|label| page.contains(label))
    });
    let all = samples(&page);
    for label in wanted {
        let sum: f64 = all.iter().filter(|(name, _)| name.contains(label)).map(|(_, v)| v).sum();
        assert!(sum >= 1.0, "{label}");
    }
    let value = |name: &str| {
        let sample = all.iter().find(|(n, _)| n == name);
        sample.unwrap_or_else(|| panic!("no {name} in {page}")).1
    };
    for phase in ["dot", "data", "queue", "relay_connect"] {
        assert!(value(&format!("ringpost_phase_seconds_count{{phase=\"{phase}\"}}")) >= 1.0);
        value(&format!("ringpost_phase_seconds{{phase=\"{phase}\",quantile=\"0.99\"}}"));
    }
    // The admin tool prints the same page.
    let tool = String::from_utf8(daemon.tool(&["metrics"]).stdout).expect("text");
    assert_eq!(samples(&tool).len(), all.len());
    assert!(daemon.stop().success());
}

#[test]
fn the_books_balance_over_restarts() {
    let backend = backend();
    let mut daemon = Daemon::start("books", Setup::new(backend.address));
    scenario(&mut daemon, &backend);
    let before = daemon.ledger();
    assert_eq!((before.accepted, before.generated), (3, 1));
    assert_eq!((before.delivered, before.bounced, before.queued), (3, 1, 0));
    assert!(daemon.stop().success());
    daemon.start_again();
    assert_eq!(daemon.ledger(), before, "after a drain");
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.ledger(), before, "after a kill");
    backend.set(Manners { replies: vec![("MAIL", "451 later", 0)], ..Manners::default() });
    let id = Client::greeted(daemon.address).deliver(
        "sender@example.net",
        &["a@example.org", "b@example.org"],
        "Subject: x\r\n\r\n",
    );
    daemon.line_with(&[&id, "=="]);
    daemon.kill();
    daemon.start_again();
    let after = daemon.ledger();
    assert_eq!((after.accepted, after.queued), (before.accepted + 2, 2));
    assert!(!daemon.log().contains("ALARM ledger"), "{}", daemon.log());
    assert!(daemon.stop().success());
}
