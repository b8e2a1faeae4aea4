//! `hints dump` and `hints load`: what is remembered, in a file, a line each.
//!
//! *Limits*: a line of the file has at most [`LINE_OCTETS_MAX`].
//! *Failure*: a line that is no hint is named by its number; those before it were put back.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};

use clap::{Arg, ArgMatches};
use control::limits::HINTS_LOAD_MAX;
use control::{Hint, HintsFilter, List, Reply, Request, Rows, write_request};
use serde_json::json;

use crate::exit::{Exit, Trouble};
use crate::page::Page;
use crate::row::{Row, dead, option, optional, row, text, usage};
use crate::socket::Socket;
use crate::story;
use crate::talking::{ask, say, tell, unexpected};

/// The rows.
pub(crate) const ROWS: [Row; 2] = [
    Row {
        arguments: || {
            vec![
                Arg::new("FILE").help("Where to; without it to standard output"),
                option("kind", "KIND", "Only retry, health, offers, standing, ..."),
                dead(),
            ]
        },
        talk: Some(dump),
        ..row("hints dump", "Write all hints down, one JSON object a line")
    },
    Row {
        arguments: || {
            let file = Arg::new("FILE").required(true).help("A file of `hints dump`");
            vec![file, dead()]
        },
        talk: Some(load),
        example: &["hints.json"],
        audited: true,
        ..row("hints load", "Put hints of a dump back, for as long as they had left")
    },
];

/// Octets of one line.
const LINE_OCTETS_MAX: u64 = 64 << 10;

fn dump(socket: &mut Socket, m: &ArgMatches) -> Result<Exit, Trouble> {
    let mut filter = HintsFilter { kind: optional(m, "kind")?, ..HintsFilter::default() };
    let mut lines = String::new();
    let mut count = 0;
    loop {
        let Reply::Hints(page) = ask(socket, &Request::HintsList(filter.clone()))? else {
            return Err(unexpected());
        };
        for hint in page.hints.iter() {
            lines.push_str(&serde_json::to_string(hint).unwrap_or_default());
            lines.push('\n');
            count += 1;
        }
        match page.next.filter(|next| *next > filter.cursor) {
            Some(next) => filter.cursor = next,
            None => break,
        }
    }
    let Some(file) = text(m, "FILE") else {
        // The lines are JSON already.
        say(&lines)?;
        return Ok(Exit::Fine);
    };
    let written = File::create(file).and_then(|mut new| {
        new.write_all(lines.as_bytes())?;
        new.sync_all()
    });
    written.map_err(|error| Trouble::new(Exit::Refused, format!("{file}: {error}"), ""))?;
    let said = format!("{count} hints are in {file}\n");
    tell(m, &said, "dumped", json!({ "file": file, "hints": count }))?;
    Ok(Exit::Fine)
}

fn load(socket: &mut Socket, m: &ArgMatches) -> Result<Exit, Trouble> {
    let file = text(m, "FILE").unwrap_or_default();
    let wrong = |what: String| usage(format!("{file}: {what}"), "As `hints dump` writes it.");
    let open = File::open(file).map_err(|error| wrong(error.to_string()))?;
    let mut lines = BufReader::new(open);
    let mut sums: Vec<(u64, String)> = Vec::new();
    let mut batch: Vec<Hint> = Vec::new();
    for number in 1_u64.. {
        let mut line = String::new();
        let read = lines.by_ref().take(LINE_OCTETS_MAX).read_line(&mut line);
        let over = read.map_err(|error| wrong(error.to_string()))? == 0;
        if over || batch.len() >= HINTS_LOAD_MAX {
            put(socket, &std::mem::take(&mut batch), &mut sums)?;
        }
        if over {
            break;
        }
        let hint = serde_json::from_str(&line);
        batch.push(hint.map_err(|error| wrong(format!("line {number}: {error}")))?);
    }
    let rows = sums.iter().map(|(count, what)| vec![count.to_string(), what.clone()]);
    let table = Rows::new(&["hints", "what"]).with(rows);
    let mut page = Page::default();
    story::rows(&mut page, &table);
    let facts: Vec<_> =
        sums.iter().map(|(count, what)| json!({ "hints": count, "what": what })).collect();
    tell(m, &page.into_text(), "loaded", json!(facts))?;
    Ok(Exit::Fine)
}

/// Puts a batch back; one that is too long for a request in halves.
fn put(socket: &mut Socket, hints: &[Hint], sums: &mut Vec<(u64, String)>) -> Result<(), Trouble> {
    if hints.is_empty() {
        return Ok(());
    }
    let request = Request::HintsLoad { hints: List::cut(hints.iter().cloned()) };
    if hints.len() > 1 && write_request(&request).is_err() {
        let (front, back) = hints.split_at(hints.len() / 2);
        put(socket, front, sums)?;
        return put(socket, back, sums);
    }
    let Reply::Rows(rows) = ask(socket, &request)? else { return Err(unexpected()) };
    for row in rows.rows.iter() {
        let [count, what] = &row[..] else { return Err(unexpected()) };
        let count: u64 = count.parse().unwrap_or(0);
        match sums.iter_mut().find(|(_, known)| **known == **what) {
            Some((sum, _)) => *sum += count,
            None => sums.push((count, what.to_string())),
        }
    }
    Ok(())
}
