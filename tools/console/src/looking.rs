//! Rows of what asks why and looks at more than one thing.

use clap::{Arg, ArgMatches, value_parser};
use control::{List, LogFilter, Reply, Request, WhyFilter};

use crate::exit::Trouble;
use crate::row::{Row, bounded, flag, option, optional, row};

/// The rows.
pub(crate) const ROWS: [Row; 6] = [
    Row {
        arguments: || {
            vec![
                Arg::new("WHAT")
                    .required(true)
                    .help("A message's or session's id, a mail address, @domain, an IP address"),
                flag("logs", "Search the log files too"),
            ]
        },
        request: |m| {
            Ok(Request::Why(WhyFilter {
                what: bounded(m, "WHAT")?,
                logs: m.get_flag("logs"),
                after_us: 0,
            }))
        },
        example: &["a@example.org"],
        ..row("why", "What is known of a mail or a client, also of what was refused")
    },
    Row {
        arguments: || {
            vec![
                Arg::new("NETWORK").required(true).help("192.0.2.1, 2001:db8::/64"),
                option("seconds", "N", "For so long; 0: no more")
                    .value_parser(value_parser!(u32))
                    .default_value("60"),
                flag("follow", "Print what is said until interrupted"),
            ]
        },
        request: |m| {
            Ok(Request::Trace {
                network: bounded(m, "NETWORK")?,
                seconds: m.get_one("seconds").copied().unwrap_or(60),
            })
        },
        follow: Some(trace_on),
        example: &["192.0.2.1"],
        ..row("trace", "Watch new sessions of a network line by line; see `why`")
    },
    Row {
        request: |_| Ok(Request::Sessions),
        ..row("sessions", "What every connection is at, in and out")
    },
    Row {
        request: |_| Ok(Request::Certificates),
        ..row("certificates", "Certificates, their names and their end")
    },
    Row {
        arguments: || {
            vec![
                flag("reject", "The reject log"),
                flag("follow", "Go on until interrupted"),
                count(),
            ]
        },
        request: |m| log(m, "20"),
        follow: Some(log_on),
        ..row("log tail", "The newest lines of a log")
    },
    Row {
        arguments: || {
            vec![
                Arg::new("TEXT").num_args(1..=8).required(true).help("Parts a line must have"),
                flag("reject", "The reject log"),
                flag("follow", "Go on until interrupted"),
                option("since", "TIME", "Not before: 2026-02-03 or '2026-02-03 04:05'"),
                option("until", "TIME", "Not after, in the same form"),
                count(),
            ]
        },
        request: |m| log(m, "400"),
        follow: Some(log_on),
        example: &["x"],
        ..row("log grep", "Lines of a log by time, id, address or any text")
    },
];

fn count() -> Arg {
    option("count", "N", "The newest so many, at most 400").value_parser(value_parser!(u16))
}

fn log(m: &ArgMatches, count: &str) -> Result<Request, Trouble> {
    let parts = m.try_get_many::<String>("TEXT").ok().flatten().into_iter().flatten();
    let parts = parts.map(|part| control::Text::cut(part));
    let time = |name: &str| match m.try_contains_id(name) {
        Ok(true) => optional(m, name).map(Option::unwrap_or_default),
        _ => Ok(control::Text::default()),
    };
    Ok(Request::LogGrep(LogFilter {
        reject: m.get_flag("reject"),
        parts: List::cut(parts),
        since: time("since")?,
        until: time("until")?,
        after: None,
        count_max: m.get_one("count").copied().or_else(|| count.parse().ok()).unwrap_or(0),
    }))
}

fn log_on(request: &Request, reply: &Reply) -> Option<Request> {
    let (Request::LogGrep(filter), Reply::Story(story)) = (request, reply) else { return None };
    let after = story.next.clone().or_else(|| filter.after.clone());
    Some(Request::LogGrep(LogFilter { after, count_max: 0, ..filter.clone() }))
}

/// What was said since; the first answer is the order's.
fn trace_on(request: &Request, reply: &Reply) -> Option<Request> {
    match (request, reply) {
        (Request::Trace { network, .. }, _) => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let now_us = now.map_or(1, |now| u64::try_from(now.as_micros()).unwrap_or(1));
            let what = control::Text::cut(network);
            Some(Request::Why(WhyFilter { what, logs: false, after_us: now_us }))
        }
        (Request::Why(filter), Reply::Story(story)) => {
            let after_us = story.lines.last().map_or(filter.after_us, |line| line.at_us);
            Some(Request::Why(WhyFilter { after_us, ..filter.clone() }))
        }
        _ => None,
    }
}
