//! `queue summary`: the backlog by next hop, recipient's domain, age and error.
//!
//! *Limits*: domains and errors come from the oldest messages, as many as `--messages` says, and
//! the page says so; the next hops, ages and sums come from all.

use std::collections::HashMap;

use clap::{ArgMatches, value_parser};
use control::{QueueEntry, QueueFilter, Reply, Request, Summary};
use serde_json::{Value, json};

use crate::exit::{Exit, Trouble};
use crate::page::{Align, Column, Page};
use crate::row::{Row, option, row};
use crate::socket::Socket;
use crate::story;
use crate::talking::{ask, tell, unexpected};
use crate::text::{size, span};

/// The row.
pub(crate) const ROWS: [Row; 1] = [Row {
    arguments: || {
        let most = option("messages", "N", "Read so many for domains and errors; 0: none");
        vec![
            most.value_parser(value_parser!(u32)).default_value("1000"),
            option("top", "N", "So many domains and errors")
                .value_parser(value_parser!(u16))
                .default_value("10"),
        ]
    },
    talk: Some(summary),
    ..row("queue summary", "The backlog by next hop, domain, age and error")
}];

/// Messages on a page: their domains are told.
const PAGE: u16 = 100;

const COLUMNS: [Column; 6] = [
    ("messages", 9, Align::Right),
    ("rcpts", 7, Align::Right),
    ("size", 6, Align::Right),
    ("oldest", 7, Align::Right),
    ("newest", 7, Align::Right),
    ("", 0, Align::Left),
];

/// Messages of one domain or with one error.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sum {
    messages: u64,
    recipients: u64,
    octets: u64,
    oldest_s: u64,
    newest_s: u64,
}

impl Sum {
    fn add(&mut self, entry: &QueueEntry, recipients: u32) {
        self.newest_s = match self.messages {
            0 => entry.age_s,
            _ => self.newest_s.min(entry.age_s),
        };
        self.messages += 1;
        self.recipients += u64::from(recipients);
        self.octets += entry.size_octets;
        self.oldest_s = self.oldest_s.max(entry.age_s);
    }
}

#[derive(Debug, Default)]
struct Sums {
    read: u64,
    domains: HashMap<String, Sum>,
    errors: HashMap<String, Sum>,
}

impl Sums {
    fn add(&mut self, entry: &QueueEntry) {
        self.read += 1;
        for waits in entry.waits.iter() {
            self.domains.entry(waits.domain.to_string()).or_default().add(entry, waits.recipients);
            let error = gist(&waits.last);
            self.errors.entry(error).or_default().add(entry, waits.recipients);
        }
    }
}

/// An error without what differs from message to message: ids, numbers, addresses.
fn gist(said: &str) -> String {
    if said.is_empty() {
        return "not tried yet".to_owned();
    }
    let plain = |(at, word): (usize, &str)| {
        let code = at < 2 && word.bytes().all(|o| o.is_ascii_digit() || o == b'.');
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        if code || digits == 0 && !word.contains('@') {
            word.to_owned()
        } else if word.contains('@') {
            "<..>".to_owned()
        } else if digits * 4 >= word.len() {
            "..".to_owned()
        } else {
            word.to_owned()
        }
    };
    said.split_whitespace().enumerate().map(plain).collect::<Vec<_>>().join(" ")
}

fn summary(socket: &mut Socket, m: &ArgMatches) -> Result<Exit, Trouble> {
    let Reply::Summary(summary) = ask(socket, &Request::QueueSummary)? else {
        return Err(unexpected());
    };
    let most = m.get_one::<u32>("messages").copied().unwrap_or(0);
    let sums = read(socket, u64::from(most).min(summary.total.messages))?;
    let top = usize::from(m.get_one::<u16>("top").copied().unwrap_or(10));
    let mut page = Page::default();
    story::summary(&mut page, &summary);
    table(&mut page, "domain", &sums.domains, top);
    table(&mut page, "error", &sums.errors, top);
    if sums.read > 0 && sums.read < summary.total.messages {
        let all = summary.total.messages;
        page.line("");
        page.line(&format!("Domains and errors of the oldest {} of {all} messages.", sums.read));
    }
    tell(m, &page.into_text(), "summary", facts(&summary, &sums))?;
    Ok(Exit::Fine)
}

/// The oldest messages with their domains.
fn read(socket: &mut Socket, most: u64) -> Result<Sums, Trouble> {
    let mut sums = Sums::default();
    let mut filter = QueueFilter { waits: true, ..QueueFilter::default() };
    while sums.read < most {
        let left = u16::try_from(most - sums.read).unwrap_or(PAGE);
        filter.count_max = left.min(PAGE);
        let Reply::Queue(page) = ask(socket, &Request::QueueList(filter.clone()))? else {
            return Err(unexpected());
        };
        page.messages.iter().for_each(|entry| sums.add(entry));
        match page.next.clone().filter(|next| filter.after.as_ref() != Some(next)) {
            Some(next) => filter.after = Some(next),
            None => break,
        }
    }
    Ok(sums)
}

fn sorted(sums: &HashMap<String, Sum>) -> Vec<(&String, &Sum)> {
    let mut all: Vec<_> = sums.iter().collect();
    all.sort_by(|a, b| b.1.messages.cmp(&a.1.messages).then_with(|| a.0.cmp(b.0)));
    all
}

fn table(page: &mut Page, what: &'static str, sums: &HashMap<String, Sum>, top: usize) {
    if sums.is_empty() || top == 0 {
        return;
    }
    let mut columns = COLUMNS;
    columns[5].0 = what;
    page.line("");
    page.head(&columns);
    for (name, sum) in sorted(sums).into_iter().take(top) {
        let cells = [
            sum.messages.to_string(),
            sum.recipients.to_string(),
            size(sum.octets),
            span(sum.oldest_s),
            span(sum.newest_s),
            name.clone(),
        ];
        page.row(&columns, &cells);
    }
    if sums.len() > top {
        page.line(&format!("{:>9} more", sums.len() - top));
    }
}

fn facts(summary: &Summary, sums: &Sums) -> Value {
    let list = |sums: &HashMap<String, Sum>, key: &str| -> Vec<Value> {
        let fact = |(name, sum): (&String, &Sum)| {
            json!({
                key: name, "messages": sum.messages, "recipients": sum.recipients,
                "octets": sum.octets, "oldest_s": sum.oldest_s,
                "newest_s": sum.newest_s,
            })
        };
        sorted(sums).into_iter().map(fact).collect()
    };
    let mut facts = serde_json::to_value(summary).unwrap_or_default();
    facts["read"] = sums.read.into();
    facts["domains"] = list(&sums.domains, "domain").into();
    facts["errors"] = list(&sums.errors, "error").into();
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_differ_by_ids_are_one() {
        let one = gist("451 4.7.1 <a@example.org> greylisted, id 7F3A91 for 300 s");
        let two = gist("451 4.7.1 <b@example.org> greylisted, id 8B1C02 for 287 s");
        assert_eq!(one, two);
        assert_eq!(one, "451 4.7.1 <..> greylisted, id .. for .. s");
        assert_eq!(gist(""), "not tried yet");
    }
}
