//! What is counted stands on the page, and the page is what the format says.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::events::{Accepted, Alarm, Client, Ending, Refused};

const ABOUT: About<'_> = About {
    version: "1.2\"3\\",
    hostname: "mx.example.org",
    started_wall_us: 1_700_000_000_000_001,
    durable: true,
    cores: 2,
};

fn client() -> Client<'static> {
    Client {
        id: "0123456789ABCDEFGHIJ",
        remote: "192.0.2.1:4711".parse().unwrap(),
        local: "192.0.2.2:25".parse().unwrap(),
        proxy: None,
        helo: b"mail.example.com",
        name: None,
        protocol: "ESMTP",
        tls: None,
    }
}

/// A small reader of the format: samples by name and labels. Panics on what the format forbids.
fn parse(page: &str) -> HashMap<String, f64> {
    let name_good = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
    };
    let (mut samples, mut types) = (HashMap::new(), HashMap::new());
    let (mut helps, mut current) = (HashSet::new(), String::new());
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect("help has a text");
            assert!(helps.insert(name.to_owned()), "{name}: HELP twice");
            assert!(!text.is_empty() && name_good(name));
            current = name.to_owned();
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("type has a kind");
            assert_eq!(name, current, "TYPE follows HELP");
            assert!(["counter", "gauge", "summary"].contains(&kind), "{kind}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
        let name = series.split('{').next().unwrap_or_default();
        let summary = types.get(&current).is_some_and(|kind| kind == "summary");
        let suffix = name.strip_prefix(&current).expect("samples follow their HELP");
        assert!(suffix.is_empty() || (summary && ["_sum", "_count"].contains(&suffix)), "{line}");
        if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            labels_good(labels);
        }
        assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{series}");
    }
    samples
}

/// `{name="value",...}` with `\\`, `\"` and `\n` in values.
fn labels_good(labels: &str) {
    let mut rest = labels.strip_prefix('{').expect("labels open");
    let mut seen = HashSet::new();
    loop {
        let (name, value) = rest.split_once("=\"").expect("a label has a value");
        assert!(seen.insert(name.to_owned()), "{labels}");
        let mut chars = value.char_indices();
        let end = loop {
            match chars.next().expect("a value closes") {
                (_, '\\') => {
                    let (_, escaped) = chars.next().expect("an escape has a letter");
                    assert!("\\\"n".contains(escaped), "{labels}");
                }
                (at, '"') => break at,
                _ => {}
            }
        };
        match &value[end + 1..] {
            "}" => return,
            more => rest = more.strip_prefix(',').expect("a comma between labels"),
        }
    }
}

#[test]
fn an_empty_page_is_good() {
    let (_core, mut view) = for_core();
    view.collect(0);
    let page = page(&ABOUT, &[view]);
    let samples = parse(&page);
    assert_eq!(samples["ringpost_connections_total"], 0.0);
    assert_eq!(samples["ringpost_alarms_total{alarm=\"device\"}"], 0.0);
    assert_eq!(samples["ringpost_ledger_recipients{entry=\"queued\"}"], 0.0);
    assert!(samples["ringpost_phase_seconds{phase=\"dot\",quantile=\"0.99\"}"].is_nan());
    assert!(!page.contains("ringpost_refused_total{"));
    assert!(
        page.contains("ringpost_info{version=\"1.2\\\"3\\\\\",hostname=\"mx.example.org\"} 1\n")
    );
    assert!(page.contains("ringpost_start_time_seconds 1700000000.000001\n"));
}

#[test]
fn cores_are_added_up_and_labels_name_the_reason() {
    let ends: Vec<_> = (0..2).map(|_| for_core()).collect();
    let (mut cores, mut views): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
    let client = client();
    let refused = Refused {
        client,
        stage: Stage::Rcpt,
        reason: Reason::RelayDenied,
        detail: b"",
        sender: Some(b""),
        recipients: &[b"a@b.example"],
        header: None,
    };
    let accepted = Accepted {
        client,
        sender: b"",
        recipients: 3,
        octets: 1_000,
        message_id: None,
        subject: None,
    };
    for core in &mut cores {
        core.read(0, &Event::Connected(&client));
        core.read(0, &Event::CommandRefused(&refused));
        core.read(0, &Event::Accepted(&accepted));
        core.read(
            0,
            &Event::SessionClosed { client: &client, ending: Ending::Quit, in_transaction: false },
        );
        core.set(Gauge::Sessions, 7);
        core.set_ledger([5, 0, 2, 0, 0, 0, 0, 0, 3]);
    }
    cores[0].set_ledger([0, 0, 4, 0, 0, 0, 0, 0, -4]);
    cores[0].read(0, &Event::Alarmed(Alarm::Device, "sda"));
    cores[0].read(0, &Event::ConnectRefused { client: &client, reason: Reason::Busy });
    cores.iter_mut().for_each(CoreMetrics::publish);
    views.iter_mut().for_each(|view| view.collect(0));
    let samples = parse(&page(&ABOUT, &views));
    for (series, value) in [
        ("ringpost_connections_total", 2.0),
        ("ringpost_refused_total{stage=\"rcpt\",reason=\"relay_denied\"}", 2.0),
        ("ringpost_refused_total{stage=\"connect\",reason=\"busy\"}", 1.0),
        ("ringpost_recipients_accepted_total", 6.0),
        ("ringpost_accepted_octets_total", 2000.0),
        ("ringpost_sessions", 14.0),
        ("ringpost_sessions_closed_total{ending=\"quit\"}", 2.0),
        ("ringpost_alarms_total{alarm=\"device\"}", 1.0),
        ("ringpost_ledger_recipients{entry=\"delivered\"}", 6.0),
        ("ringpost_ledger_recipients{entry=\"queued\"}", -1.0),
        ("ringpost_cores", 2.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
}

#[test]
fn every_stage_and_reason_has_its_own_cell() {
    let mut seen = HashSet::new();
    for stage in Stage::ALL {
        for reason in Reason::ALL {
            assert!(seen.insert(Family::refused(*stage, *reason)));
        }
    }
    for reason in Reason::ALL {
        assert!(seen.insert(Family::limit(*reason)));
        assert!(seen.insert(Family::deferred(*reason)));
        assert!(seen.insert(Family::bounced(*reason)));
    }
    for counter in Counter::ALL {
        assert!(seen.insert(Family::counter(*counter)));
    }
    for phase in Phase::ALL {
        assert!(seen.insert(Family::phase_count(*phase)));
        assert!(seen.insert(Family::phase_sum_us(*phase)));
    }
    assert!(seen.iter().all(|cell| *cell < CELLS));
}

#[test]
fn percentiles_come_from_all_cores_and_age_out() {
    let ends: Vec<_> = (0..2).map(|_| for_core()).collect();
    let (mut cores, mut views): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
    for us in 1..=100 {
        cores[us % 2].read(0, &Event::Took(Phase::Dot, us as u64 * 1_000));
    }
    let dot = |views: &[CoreView], quantile: &str| {
        let series = format!("ringpost_phase_seconds{{phase=\"dot\",quantile=\"{quantile}\"}}");
        parse(&page(&ABOUT, views))[&series]
    };
    let collect = |views: &mut [CoreView], now_us| views.iter_mut().for_each(|v| v.collect(now_us));
    cores.iter_mut().for_each(CoreMetrics::publish);
    collect(&mut views, 1);
    let near = |found: f64, wanted: f64| assert!((found / wanted - 1.0).abs() < 0.02, "{found}");
    near(dot(&views, "0.5"), 0.050);
    near(dot(&views, "0.99"), 0.099);
    let samples = parse(&page(&ABOUT, &views));
    assert_eq!(samples["ringpost_phase_seconds_count{phase=\"dot\"}"], 100.0);
    assert_eq!(samples["ringpost_phase_seconds_sum{phase=\"dot\"}"], 5.05);
    collect(&mut views, WINDOW_US);
    near(dot(&views, "0.5"), 0.050);
    collect(&mut views, 2 * WINDOW_US);
    assert!(dot(&views, "0.5").is_nan());
    let samples = parse(&page(&ABOUT, &views));
    assert_eq!(samples["ringpost_phase_seconds_count{phase=\"dot\"}"], 100.0);
}

#[test]
fn phases_that_nobody_collects_are_not_lost() {
    let (mut core, mut view) = for_core();
    for _ in 0..3 {
        core.read(0, &Event::Took(Phase::Commit, 500));
        core.publish();
    }
    let kept = |view: &CoreView| view.recent[0].0[Phase::Commit.index()].len();
    view.collect(1);
    assert_eq!(kept(&view), 1);
    core.publish();
    view.collect(2);
    assert_eq!(kept(&view), 3);
    core.read(0, &Event::Took(Phase::Commit, u64::MAX));
    core.publish();
    view.collect(3);
    assert_eq!(kept(&view), 4);
}
