//! The interactive line: the same words without `ringpost`, one command a line, or a number of the
//! menu.
//!
//! *Guarantees*: nothing is asked of the terminal: any teletype will do. What a line does is what
//! the same words do on a shell.
//! *Limits*: `LINE_OCTETS_MAX` of a line.

use std::ffi::OsString;
use std::io::{BufRead, IsTerminal, Read, Write};

use crate::exit::{Exit, Trouble};
use crate::page::Page;
use crate::run;
use crate::table::rows;

/// Octets of a line.
const LINE_OCTETS_MAX: u64 = 4_096;

/// The numbered menu: a number is a command, written out beside it.
const MENU: [(&str, &str); 12] = [
    ("status", "Is it well"),
    ("live --count 10", "Ten lines of figures"),
    ("sessions", "Who is connected"),
    ("queue summary", "What waits, by next hop"),
    ("queue list --count 20", "The oldest that waits"),
    ("log tail", "The newest log lines"),
    ("log tail --reject", "The newest refusals"),
    ("rules", "What is suspended, held, blocked"),
    ("ledger", "Is any mail lost"),
    ("certificates", "Certificates and their end"),
    ("test backend", "Do the next hops answer"),
    ("settings history", "The configs that were in force"),
];

/// What the words of the command line say; `shell` alone is this module.
pub(crate) fn main(arguments: Vec<OsString>) -> Result<Exit, Trouble> {
    let at = arguments.iter().position(|word| word == "shell");
    let Some(at) = at.filter(|at| *at > 0 && *at + 1 == arguments.len()) else {
        return run::run(arguments.into_iter());
    };
    // Options before the word go before every line.
    let options = &arguments[..at];
    let stdin = std::io::stdin();
    let typed = stdin.is_terminal();
    let mut last = Exit::Fine;
    loop {
        if typed {
            print("ringpost> ");
        }
        let mut line = String::new();
        let read = stdin.lock().take(LINE_OCTETS_MAX).read_line(&mut line);
        if !matches!(read, Ok(count) if count > 0) {
            return Ok(last);
        }
        last = match command(line.trim()) {
            Line::Nothing => continue,
            Line::End => return Ok(last),
            Line::Said(text) => {
                print(&text);
                continue;
            }
            Line::Words(words) => {
                let words = words.into_iter().map(OsString::from);
                match run::run(options.iter().cloned().chain(words)) {
                    Ok(exit) => exit,
                    Err(trouble) => {
                        print(&format!("{trouble}\n"));
                        trouble.exit
                    }
                }
            }
        };
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Nothing,
    End,
    Said(String),
    Words(Vec<String>),
}

fn command(line: &str) -> Line {
    match line {
        "" => Line::Nothing,
        "quit" | "exit" | "logout" => Line::End,
        "menu" => Line::Said(menu()),
        "help" | "?" => Line::Said(help("")),
        line => {
            if let Some((words, _)) =
                line.parse::<usize>().ok().and_then(|n| MENU.get(n.checked_sub(1)?))
            {
                return Line::Words(split(words));
            }
            match line.strip_suffix('?') {
                Some(begin) => Line::Said(help(begin.trim())),
                None => Line::Words(split(line)),
            }
        }
    }
}

/// Words, with quotes for those that have spaces.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut open) = (String::new(), None, false);
    for c in line.chars() {
        match (c, quote) {
            ('\'' | '"', None) => (quote, open) = (Some(c), true),
            (c, Some(end)) if c == end => quote = None,
            (c, None) if c.is_whitespace() => {
                if open || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                open = false;
            }
            (c, _) => word.push(c),
        }
    }
    if open || !word.is_empty() {
        words.push(word);
    }
    words
}

fn menu() -> String {
    let mut page = Page::default();
    for ((words, help), n) in MENU.iter().zip(1..) {
        page.line(&format!("{n:>3}  {help:<32} {words}"));
    }
    page.line("     any other command           help, WORD? for those that begin so, quit");
    page.into_text()
}

/// The commands that begin so.
fn help(begin: &str) -> String {
    let mut page = Page::default();
    let mut names: Vec<_> = rows().filter(|row| row.name.starts_with(begin)).collect();
    names.sort_by_key(|row| row.name);
    for row in names {
        page.line(&format!("{:<20} {}", row.name, row.help));
    }
    page.line("COMMAND --help shows its arguments; menu shows numbers; quit ends.");
    page.into_text()
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody is left to tell where stdout is closed: the next read ends.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_are_the_same_commands() {
        assert_eq!(command("4"), command("queue summary"));
        assert_eq!(command("13"), Line::Words(vec!["13".to_owned()]));
        assert_eq!(split("a 'b c' \"d\" ''"), ["a", "b c", "d", ""]);
        for (words, _) in MENU {
            let mut all = vec!["ringpost".to_owned()];
            all.extend(split(words));
            assert!(crate::table::command().try_get_matches_from(all).is_ok(), "{words}");
        }
        for text in [menu(), help(""), help("queue")] {
            assert!(text.lines().all(|line| line.len() <= 79), "{text}");
        }
    }
}
