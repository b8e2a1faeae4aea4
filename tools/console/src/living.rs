//! `live`: figures as they run, in plain lines, so that any terminal and any log takes them.
//!
//! *Limits*: `NAMED_MAX` clients, next hops or domains an interval; the rest is counted.

use std::collections::HashMap;
use std::time::Duration;

use clap::{ArgMatches, value_parser};
use control::{Core, Reply, Request, Top, Tops, TopsBy, TopsFilter};
use serde_json::{Map, Value, json};

use crate::exit::{Exit, Trouble};
use crate::page::{Align, Column, Page};
use crate::row::{Row, flag, option, row, text};
use crate::socket::Socket;
use crate::talking::{ask, tell, unexpected};
use crate::text::{span, wall};
use crate::{screen, tty};

/// The rows.
pub(crate) const ROWS: [Row; 1] = [Row {
    arguments: || {
        vec![
            option("every-s", "SECONDS", "One line so often; else 2, screens as the line is")
                .value_parser(value_parser!(u64).range(1..=3600)),
            option("count", "N", "So many lines, then end").value_parser(value_parser!(u64)),
            flag("screen", "A screen that is drawn anew, on a vt100 or better"),
            flag("reasons", "With what was refused, deferred and judged by XDP, by reason"),
            flag("cores", "Each core for itself").conflicts_with_all(["reasons", "by"]),
            option("by", "WHAT", "By client, next hop or recipient's domain")
                .value_parser(TopsBy::ALL.map(|(_, name)| name))
                .conflicts_with("reasons"),
            option("of-s", "SECONDS", "With --by: of the last so many")
                .value_parser(value_parser!(u32).range(1..=86_400))
                .default_value("60"),
        ]
    },
    talk: Some(live),
    ..row("live", "Figures as they run, one line an interval")
}];

/// Clients, next hops or domains of one interval.
const NAMED_MAX: usize = 15;
/// Reasons of one interval.
const REASONS_MAX: usize = 6;
/// Lines between two headings.
const LINES_A_HEADING: u64 = 20;

/// Samples of the metrics page, by name with labels.
fn samples(page: &str) -> HashMap<String, f64> {
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        (!line.starts_with('#')).then_some(())?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    page.lines().filter_map(sample).collect()
}

fn sum(samples: &HashMap<String, f64>, name: &str) -> f64 {
    let here = |key: &&String| {
        let key = key.as_str();
        key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
    };
    samples.iter().filter(|(key, _)| here(key)).map(|(_, value)| value).sum()
}

/// What the XDP filter did with SYNs instead of passing them.
const JUDGED: [&str; 3] = [
    "ringpost_xdp_total{what=\"answered\"}",
    "ringpost_xdp_total{what=\"dropped\"}",
    "ringpost_xdp_total{what=\"limited\"}",
];

/// One figure: heading, metrics that are summed, whether they count.
type Figure = (&'static str, &'static [&'static str], bool);

const FIGURES: [Figure; 9] = [
    ("conn/s", &["ringpost_connections_total"], true),
    ("acc/s", &["ringpost_messages_accepted_total"], true),
    ("ref/s", &["ringpost_refused_total"], true),
    ("sent/s", &["ringpost_recipients_relayed_total"], true),
    ("def/s", &["ringpost_recipients_deferred_total"], true),
    ("xdp/s", &JUDGED, true),
    ("sess", &["ringpost_sessions"], false),
    ("hops", &["ringpost_hop_connections"], false),
    ("queue", &["ringpost_queue_messages"], false),
];

fn live(socket: &mut Socket, m: &ArgMatches) -> Result<Exit, Trouble> {
    let asked_s = m.get_one::<u64>("every-s").copied();
    let by = text(m, "by");
    let by = by.and_then(|by| TopsBy::ALL.iter().find(|(_, name)| *name == by));
    if m.get_flag("screen") && tty::clever() {
        let of = screen::Of {
            every_s: asked_s,
            count: m.get_one::<u64>("count").copied(),
            baud: tty::baud(m.get_one::<u32>("baud").copied()),
            by: by.map(|(by, _)| TopsFilter { by: *by, seconds: of_s(m) }),
        };
        return screen::show(socket, &of);
    }
    let every_s = asked_s.unwrap_or(2);
    let count = m.get_one::<u64>("count").copied().unwrap_or(u64::MAX);
    let every = Duration::from_secs(every_s);
    let mut before = if by.is_none() { Some(seen(socket, m)?) } else { None };
    for number in 0..count {
        match (by, before.take()) {
            (Some((by, _)), _) => {
                if number > 0 {
                    std::thread::sleep(every);
                }
                named(socket, m, *by)?;
            }
            (None, old) => {
                std::thread::sleep(every);
                let now = seen(socket, m)?;
                match (old.as_ref(), &now) {
                    (Some(Seen::Cores(old)), Seen::Cores(now)) => cores(m, old, now, every_s)?,
                    (Some(Seen::All(old)), Seen::All(now)) => all(m, old, now, every_s, number)?,
                    _ => return Err(unexpected()),
                }
                before = Some(now);
            }
        }
    }
    Ok(Exit::Fine)
}

/// Counters at one moment.
enum Seen {
    All(HashMap<String, f64>),
    Cores(Vec<Core>),
}

fn seen(socket: &mut Socket, m: &ArgMatches) -> Result<Seen, Trouble> {
    if m.get_flag("cores") {
        let Reply::Status(status) = ask(socket, &Request::Status)? else {
            return Err(unexpected());
        };
        return Ok(Seen::Cores(status.cores.to_vec()));
    }
    match ask(socket, &Request::Metrics)? {
        Reply::Metrics(metrics) => Ok(Seen::All(samples(&metrics.text))),
        _ => Err(unexpected()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds of an interval are few")]
fn figures(
    before: &HashMap<String, f64>,
    now: &HashMap<String, f64>,
    every_s: u64,
) -> Vec<(&'static str, f64)> {
    let of = |samples: &HashMap<String, f64>, names: &[&str]| -> f64 {
        names.iter().map(|name| sum(samples, name)).sum()
    };
    let figure = |(head, names, counts): &Figure| match counts {
        true => (*head, (of(now, names) - of(before, names)).max(0.0) / every_s as f64),
        false => (*head, of(now, names)),
    };
    FIGURES.iter().map(figure).collect()
}

/// Milliseconds that so many of 100 commits took no longer than.
fn commit(now: &HashMap<String, f64>, quantile: &str) -> Option<f64> {
    let key = format!("ringpost_phase_seconds{{phase=\"commit\",quantile=\"{quantile}\"}}");
    now.get(&key).filter(|value| value.is_finite()).map(|seconds| seconds * 1000.0)
}

fn all(
    m: &ArgMatches,
    before: &HashMap<String, f64>,
    now: &HashMap<String, f64>,
    every_s: u64,
    number: u64,
) -> Result<(), Trouble> {
    let mut page = Page::default();
    let figures = figures(before, now, every_s);
    if number.is_multiple_of(LINES_A_HEADING) {
        let heads: String = figures.iter().map(|(head, _)| format!("{head:>7}")).collect();
        page.line(&format!("{heads}  commit ms"));
    }
    let values: String = figures.iter().map(|(_, value)| format!("{value:>7.0}")).collect();
    let commits = ["0.5", "0.99"].map(|quantile| commit(now, quantile));
    let shown = commits.map(|ms| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}")));
    page.line(&format!("{values}  {}/{}", shown[0], shown[1]));
    let mut facts: Map<String, Value> =
        figures.iter().map(|(head, value)| (head.replace("/s", "_per_s"), json!(value))).collect();
    facts.insert("commit_p50_ms".to_owned(), json!(commits[0]));
    facts.insert("commit_p99_ms".to_owned(), json!(commits[1]));
    if m.get_flag("reasons") {
        let reasons = reasons(before, now);
        for (key, count) in &reasons {
            page.line(&format!("          {count:>8.0} {key}"));
        }
        let reasons: Map<String, Value> =
            reasons.into_iter().map(|(key, count)| (key, json!(count))).collect();
        facts.insert("reasons".to_owned(), reasons.into());
    }
    tell(m, &page.into_text(), "live", facts.into())
}

/// What grew most of what was refused, deferred or judged by the filter.
fn reasons(before: &HashMap<String, f64>, now: &HashMap<String, f64>) -> Vec<(String, f64)> {
    let names = [
        "ringpost_refused_total{",
        "ringpost_recipients_deferred_total{",
        "ringpost_xdp_total{",
        "ringpost_xdp_list_total{",
    ];
    let mut grown: Vec<(String, f64)> = now
        .iter()
        .filter(|(key, _)| names.iter().any(|name| key.starts_with(name)))
        .map(|(key, value)| (key, value - before.get(key).unwrap_or(&0.0)))
        .filter(|(_, grown)| *grown > 0.0)
        .map(|(key, grown)| (key.trim_start_matches("ringpost_").to_owned(), grown))
        .collect();
    grown.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    grown.truncate(REASONS_MAX);
    grown
}

const CORES: [Column; 9] = [
    ("core", 4, Align::Right),
    ("conn/s", 7, Align::Right),
    ("acc/s", 7, Align::Right),
    ("ref/s", 7, Align::Right),
    ("sent/s", 7, Align::Right),
    ("def/s", 7, Align::Right),
    ("sess", 7, Align::Right),
    ("queue", 8, Align::Right),
    ("commit ms", 12, Align::Right),
];

fn cores(m: &ArgMatches, before: &[Core], now: &[Core], every_s: u64) -> Result<(), Trouble> {
    let (mut page, mut facts) = (Page::default(), Vec::new());
    page.head(&CORES);
    for core in now {
        let none = Core::default();
        let old = before.iter().find(|old| old.core == core.core).unwrap_or(&none);
        let rate = |of: fn(&Core) -> u64| of(core).saturating_sub(of(old)) / every_s;
        let rates = [
            rate(|core| core.connections),
            rate(|core| core.accepted),
            rate(|core| core.refused),
            rate(|core| core.relayed),
            rate(|core| core.deferred),
        ];
        let ms = |us: u64| match us {
            0 => "-".to_owned(),
            us => format!("{}.{}", us / 1_000, us / 100 % 10),
        };
        let mut cells = vec![core.core.to_string()];
        cells.extend(rates.iter().map(ToString::to_string));
        cells.extend([core.sessions.to_string(), core.queued.to_string()]);
        cells.push(format!("{}/{}", ms(core.commit_p50_us), ms(core.commit_p99_us)));
        page.row(&CORES, &cells);
        let [connections, accepted, refused, relayed, deferred] = rates;
        facts.push(json!({
            "core": core.core, "conn_per_s": connections, "acc_per_s": accepted,
            "ref_per_s": refused, "sent_per_s": relayed, "def_per_s": deferred,
            "sess": core.sessions, "queue": core.queued, "commit_p50_us": core.commit_p50_us,
            "commit_p99_us": core.commit_p99_us,
        }));
    }
    tell(m, &page.into_text(), "live-cores", json!({ "cores": facts }))
}

const TOPS: [Column; 7] = [
    ("conn", 7, Align::Right),
    ("acc", 7, Align::Right),
    ("ref", 7, Align::Right),
    ("sent", 7, Align::Right),
    ("def", 7, Align::Right),
    ("fail", 7, Align::Right),
    ("", 0, Align::Left),
];

fn of_s(m: &ArgMatches) -> u32 {
    m.get_one::<u32>("of-s").copied().unwrap_or(60)
}

fn named(socket: &mut Socket, m: &ArgMatches, by: TopsBy) -> Result<(), Trouble> {
    let seconds = of_s(m);
    let Reply::Tops(tops) = ask(socket, &Request::Tops(TopsFilter { by, seconds }))? else {
        return Err(unexpected());
    };
    let facts = serde_json::to_value(&*tops).unwrap_or_default();
    tell(m, &page_of(&tops), "tops", facts)
}

fn page_of(tops: &Tops) -> String {
    let mut page = Page::default();
    if tops.rows.is_empty() {
        page.line(&format!("Nothing in the last {}.", span(tops.seconds)));
        return page.into_text();
    }
    page.head(&TOPS);
    for top in tops.rows.iter().take(NAMED_MAX) {
        let Top { connected, accepted, refused, relayed, deferred, bounced, .. } = top;
        let counts = [connected, accepted, refused, relayed, deferred, bounced];
        let mut cells: Vec<String> = counts.iter().map(ToString::to_string).collect();
        cells.push(top.name.to_string());
        page.row(&TOPS, &cells);
        if top.trouble_us > 0 {
            page.line(&format!("        {} {}", wall(top.trouble_us), &*top.last));
        }
    }
    let more = tops.rows.len().saturating_sub(NAMED_MAX) as u64 + tops.left_out;
    let more = if more > 0 { format!(", {more} more") } else { String::new() };
    page.line(&format!("in the last {}{more}", span(tops.seconds)));
    page.into_text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::{List, Text};

    #[test]
    fn figures_are_summed_over_labels() {
        let page = "# HELP x y\nx_total{core=\"0\"} 3\nx_total{core=\"1\"} 4\nx_totals 9\n";
        let samples = samples(page);
        assert!((sum(&samples, "x_total") - 7.0).abs() < 1e-9);
        assert!((sum(&samples, "x_total{core=\"1\"}") - 4.0).abs() < 1e-9);
    }

    #[test]
    fn a_line_fits_the_terminal_at_high_rates() {
        let rows = List::cut((0..20).map(|n| Top {
            name: Text::cut(&format!("mx{n}.{}", "long.".repeat(20))),
            accepted: 9_999_999,
            trouble_us: 1,
            last: Text::cut(&"no ".repeat(200)),
            ..Top::default()
        }));
        let page = page_of(&Tops { seconds: 60, rows, left_out: 3 });
        assert!(page.lines().all(|line| line.len() <= 79), "{page}");
        assert!(page.ends_with("in the last 1m0s, 8 more\n"), "{page}");
    }
}
