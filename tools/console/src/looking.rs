//! Rows of what asks why and looks at more than one thing.

use clap::{Arg, ArgMatches, value_parser};
use control::limits::NAME_OCTETS_MAX;
use control::{List, LogFilter, Reply, Request, WhyFilter};

use crate::exit::Trouble;
use crate::row::{Row, bounded, dead_logs, flag, option, optional, row, usage};

/// The rows.
pub(crate) const ROWS: [Row; 5] = [
    Row {
        arguments: || {
            vec![
                Arg::new("WHAT")
                    .required(true)
                    .help("A message's or session's id, a mail address, @domain, an IP address"),
                flag("logs", "Search the log files too"),
                dead_logs(),
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
                dead_logs(),
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
                dead_logs(),
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
        Ok(true) => {
            let told: control::Text<NAME_OCTETS_MAX> = optional(m, name)?.unwrap_or_default();
            match told.is_empty() || logfiles::is_time(&told) {
                // As the log's own lines of JSON have it.
                true => Ok(control::Text::cut(&told.replace('T', " "))),
                false => Err(usage(
                    format!("--{name} {:?}: this is no time", &*told),
                    "Write it as the log does, as far as you know it: '2026-02-03 04:05'.",
                )),
            }
        }
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
