//! `trace`: sessions line by line, now or later.
//!
//! *Limits*: on a slow line what it cannot take is left out and counted; `why` has all of it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Arg, ArgMatches, value_parser};
use control::{Reply, Request, StoryLine, WhyFilter};
use serde_json::json;

use crate::exit::{Exit, Trouble};
use crate::page::Page;
use crate::row::{Row, bounded, option, row};
use crate::slow::lines_that_fit;
use crate::socket::Socket;
use crate::talking::{ask, tell, unexpected};
use crate::text::{plain, wall};
use crate::tty;

/// How often what was said is asked for.
const LIVE_EVERY: Duration = Duration::from_millis(500);

/// The rows.
pub(crate) const ROWS: [Row; 3] = [
    Row {
        arguments: || traced("60"),
        talk: Some(trace_live),
        example: &["192.0.2.1"],
        ..row("trace live", "Print every line of chosen sessions as it is said")
    },
    Row {
        arguments: || traced("600"),
        request: trace,
        example: &["192.0.2.1"],
        ..row("trace on", "Write down every line of chosen sessions, for `why` later")
    },
    Row {
        arguments: || vec![traced("0").swap_remove(0)],
        request: |m| Ok(Request::Trace { what: bounded(m, "WHAT")?, seconds: 0 }),
        example: &["192.0.2.1"],
        ..row("trace off", "Watch these sessions no more")
    },
];

/// Which sessions, and for how long.
fn traced(seconds: &'static str) -> Vec<Arg> {
    let what = "192.0.2.0/24, a session's id, a recipient or @domain";
    vec![
        Arg::new("WHAT").required(true).help(what),
        option("seconds", "N", "For so long")
            .value_parser(value_parser!(u32).range(1..=86_400))
            .default_value(seconds),
    ]
}

fn trace(m: &ArgMatches) -> Result<Request, Trouble> {
    let seconds = m.get_one("seconds").copied().unwrap_or(60);
    Ok(Request::Trace { what: bounded(m, "WHAT")?, seconds })
}

/// `trace live`: until the time is over, or ctrl-C.
fn trace_live(socket: &mut Socket, m: &ArgMatches) -> Result<Exit, Trouble> {
    let request = trace(m)?;
    let Request::Trace { what, seconds } = &request else { return Err(unexpected()) };
    let (what, seconds) = (what.clone(), *seconds);
    let baud = tty::baud(m.get_one::<u32>("baud").copied());
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut after_us = now.map_or(1, |now| u64::try_from(now.as_micros()).unwrap_or(1));
    let Reply::Done { message } = ask(socket, &request)? else { return Err(unexpected()) };
    tell(m, &format!("{}\n", plain(&message)), "done", json!({ "message": &*message }))?;
    let end = Instant::now() + Duration::from_secs(seconds.into());
    while Instant::now() < end {
        std::thread::sleep(LIVE_EVERY.min(end.saturating_duration_since(Instant::now())));
        let filter = WhyFilter { what: what.clone(), logs: false, after_us };
        let Reply::Story(told) = ask(socket, &Request::Why(filter))? else {
            return Err(unexpected());
        };
        let Some(last) = told.lines.last() else { continue };
        after_us = last.at_us;
        let mut page = Page::default();
        for line in told.lines.iter() {
            page.paragraph(0, &short(line));
        }
        let lines = lines_that_fit(page.into_text(), baud, LIVE_EVERY);
        tell(m, &lines, "story", serde_json::to_value(&told).unwrap_or_default())?;
    }
    Ok(Exit::Fine)
}

/// A line as it is read while it runs: time of day, id, what was said without whose it is.
fn short(line: &StoryLine) -> String {
    let at = wall(line.at_us);
    let time = at.get(11..19).unwrap_or(&at);
    let text = match line.text.split_once(' ') {
        Some((_, said)) if said.starts_with("-> ") || said.starts_with("<- ") => said,
        _ => &line.text,
    };
    format!("{time} {} {text}", &*line.id)
}
