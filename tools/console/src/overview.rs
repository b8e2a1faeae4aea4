//! `help`: all commands on one screen, and those of one word, from the one table.

use std::collections::BTreeSet;

use serde_json::json;

use crate::exit::{Exit, Trouble};
use crate::page::Page;
use crate::row::Row;
use crate::text::{COLUMNS, wrap};

/// Commands of one word, by what they are for. A new one that is in none stands in the last line.
pub(crate) const TOPICS: [(&str, &[&str]); 5] = [
    (
        "look",
        &["certificates", "ledger", "live", "metrics", "ping", "sessions", "status", "version"],
    ),
    ("why", &["route", "session", "spf", "verify", "why"]),
    ("mail", &["drain", "reload", "rules"]),
    ("clients", &["allow", "block", "blocks", "unallow", "unblock"]),
    ("machine", &["console", "flash", "inject", "poweroff", "reboot", "upgrade", "wizard"]),
];
const OTHERS: &str = "others";
/// Columns before the words of a line.
pub(crate) const TITLE: usize = 10;

/// The whole tree in at most 24 lines.
pub(crate) fn overview(rows: &[&Row], groups: &[(&str, &str)]) -> String {
    let mut page = Page::default();
    page.line("COMMAND [ARGUMENTS]; help WORD says more of a line or group below.");
    for topic in TOPICS.iter().map(|(name, _)| *name).chain([OTHERS]) {
        line(&mut page, &format!("{topic}:"), &of_topic(rows, topic));
    }
    for (group, _) in groups.iter().collect::<BTreeSet<_>>() {
        let below = rows.iter().filter_map(|row| row.name.split_once(' '));
        let words: BTreeSet<&str> =
            below.filter(|(first, _)| first == group).map(|(_, word)| word).collect();
        line(&mut page, group, &words);
    }
    page.line("COMMAND --help says its arguments. In the shell: menu, quit.");
    page.into_text()
}

/// The commands of one word that belong there.
fn of_topic(rows: &[&Row], topic: &str) -> BTreeSet<&'static str> {
    let topics = || TOPICS.iter();
    let all = rows.iter().map(|row| row.name).filter(|name| !name.contains(' '));
    match topics().find(|(name, _)| *name == topic) {
        Some((_, words)) => all.filter(|name| words.contains(name)).collect(),
        None => all.filter(|name| !topics().any(|(_, words)| words.contains(name))).collect(),
    }
}

fn line(page: &mut Page, title: &str, words: &BTreeSet<&str>) {
    let words = words.iter().copied().collect::<Vec<_>>().join(" ");
    for (n, part) in wrap(&words, COLUMNS - TITLE).into_iter().enumerate() {
        let title = if n == 0 { title } else { "" };
        page.line(&format!("{title:<TITLE$}{part}"));
    }
}

/// The commands that begin so, or are of that topic.
pub(crate) fn help(
    page: &mut Page,
    begin: &str,
    (all, groups): (&[&Row], &[(&str, &str)]),
) -> Result<Exit, Trouble> {
    let topic = of_topic(all, begin);
    let is_topic = begin == OTHERS || TOPICS.iter().any(|(name, _)| *name == begin);
    let fits = |row: &&Row| row.name.starts_with(begin) || (is_topic && topic.contains(row.name));
    let mut rows: Vec<&Row> = all.iter().copied().filter(fits).collect();
    rows.sort_by_key(|row| row.name);
    if rows.is_empty() {
        let message = format!("no command begins with {begin:?}");
        return Err(Trouble::new(Exit::NotFound, message, "`help` alone shows all of them."));
    }
    if begin.is_empty() {
        page.verbatim(&overview(all, groups));
    } else {
        for row in &rows {
            page.line(&format!("{:<20} {}", row.name, row.help));
        }
        page.line("COMMAND --help says its arguments.");
    }
    let facts = rows.iter().map(|row| json!({ "command": row.name, "help": row.help }));
    page.facts("help", facts.collect());
    Ok(Exit::Fine)
}
