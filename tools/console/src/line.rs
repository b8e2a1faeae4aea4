//! The interactive line: the same words without `ringpost`, one command a line, or a number of the
//! menu.
//!
//! *Guarantees*: what a line does is what the same words do on a shell.
//! *Not here*: where lines come from (`shell`), who may type them (`login`).

use std::ffi::OsString;

use clap::ArgMatches;
use control::Speaker;

use crate::exit::{Exit, Trouble};
use crate::page::Page;
use crate::shell::Shell;
use crate::table::command as command_tree;
use crate::{login, run, tty};

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
    ("config history", "The configs that were in force"),
];

/// What the words of the command line say; `shell` and `console` alone are this module.
pub(crate) fn main(arguments: Vec<OsString>) -> Result<Exit, Trouble> {
    let at = arguments.iter().position(|word| word == "shell" || word == "console");
    let matches = at.and_then(|_| command_tree().try_get_matches_from(&arguments).ok());
    // Options before the word go before every line.
    let before = |at: usize| arguments.iter().take(at).cloned().collect();
    match (at, matches.as_ref().and_then(ArgMatches::subcommand)) {
        (Some(at), Some(("shell", _))) => {
            Ok(lines(&mut Shell::new(before(at), vec![], None), None))
        }
        (Some(at), Some(("console", m))) => {
            let line = login::Line::open(before(at), m)?;
            if let Some((mut shell, speaker)) = line.login()? {
                lines(&mut shell, Some((&line, &speaker)));
                line.logout();
            }
            Ok(Exit::Fine)
        }
        _ => run::run(arguments.into_iter()),
    }
}

/// Line after line to the end; for scripts the exit code of the last command.
fn lines(shell: &mut Shell, login: Option<(&login::Line, &Speaker)>) -> Exit {
    let mut last = Exit::Fine;
    while let Some(line) = shell.line() {
        match command(line.trim()) {
            Line::Nothing => {}
            Line::End => break,
            Line::Said(text) => tty::print(&text),
            Line::Words(words) => {
                if let Some((line, speaker)) = login {
                    line.about_to(speaker, &words.join(" "));
                }
                last = shell.perform(words);
            }
        }
    }
    if tty::typed() { Exit::Fine } else { last }
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
        "?" => Line::Words(vec!["help".to_owned()]),
        line => {
            if let Some((words, _)) =
                line.parse::<usize>().ok().and_then(|n| MENU.get(n.checked_sub(1)?))
            {
                return Line::Words(split(words));
            }
            match line.strip_suffix('?') {
                Some(begin) => Line::Words(split(&format!("help {}", begin.trim()))),
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
        assert!(menu().lines().all(|line| line.len() <= 79), "{}", menu());
        assert_eq!(command("queue s?"), command("help queue s"));
        assert_eq!(command("?"), command("help"));
    }
}
