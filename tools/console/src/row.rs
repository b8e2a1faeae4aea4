//! One command: its name, help, arguments, request, page. And what rows are made of.

use clap::{Arg, ArgAction, ArgMatches};
use control::{Reply, Request, Text};

use crate::exit::{Exit, Trouble};
use crate::page::Page;
use crate::socket::Socket;
use crate::{hints, queue, status, story};

/// One command.
pub(crate) struct Row {
    /// One word, or a group and a word.
    pub(crate) name: &'static str,
    /// One sentence.
    pub(crate) help: &'static str,
    /// Its arguments.
    pub(crate) arguments: fn() -> Vec<Arg>,
    /// What it asks.
    pub(crate) request: fn(&ArgMatches) -> Result<Request, Trouble>,
    /// The page for the reply; a reply of another kind is `None`.
    pub(crate) render: fn(&mut Page, &Reply) -> Option<Exit>,
    /// The request for the page after this reply, for commands with `--all`.
    pub(crate) next: Option<fn(Request, &Reply) -> Option<Request>>,
    /// The request after this reply, for commands with `--follow`.
    pub(crate) follow: Option<fn(&Request, &Reply) -> Option<Request>>,
    /// What is done here, without the daemon; then nothing is asked.
    pub(crate) local: Option<Local>,
    /// What is done instead on the appliance, whose init keeps the config.
    pub(crate) appliance: Option<Local>,
    /// Whether the daemon is asked even there, if its socket is named or this user is not root.
    pub(crate) by_socket: bool,
    /// Seconds the answer may take, unless the command line says otherwise.
    pub(crate) wait_s: u64,
    /// The word that must be typed before.
    pub(crate) word: Option<Word>,
    /// What is done here, not by the daemon, is written to the audit log.
    pub(crate) audited: bool,
    /// What asks more than one question; then nothing else is asked.
    pub(crate) talk: Option<Talk>,
    /// Arguments that make a sound line, for the tests and the help.
    pub(crate) example: &'static [&'static str],
}

/// The word for what ends something, or cannot be taken back. `--yes WORD` says it for scripts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word {
    /// Whoever does it.
    Always(&'static str),
    /// By whoever logged in on a line: on the appliance everybody has.
    Login(&'static str),
}

impl Word {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Always(word) | Self::Login(word) => word,
        }
    }
}

/// A command that asks more than one question and prints by itself.
pub(crate) type Talk = fn(&mut Socket, &ArgMatches) -> Result<Exit, Trouble>;

/// A command that needs no daemon.
pub(crate) type Local = fn(&mut Page, &ArgMatches) -> Result<Exit, Trouble>;

/// A row with nothing but its name: no arguments, and the page that fits the reply.
pub(crate) const fn row(name: &'static str, help: &'static str) -> Row {
    Row {
        name,
        help,
        arguments: Vec::new,
        request: |_| Ok(Request::Version),
        render: page_of,
        next: None,
        follow: None,
        local: None,
        appliance: None,
        by_socket: false,
        wait_s: 30,
        word: None,
        audited: false,
        talk: None,
        example: &[],
    }
}

/// The option of commands about hints that work on a dead daemon's file too; see [`DEAD`].
pub(crate) fn dead() -> Arg {
    option("file", "FILE", "A dead daemon's file of hints: `[hints] file`").id(DEAD)
}

/// The id of that option.
pub(crate) const DEAD: &str = "dead";

/// The option of commands that work on a dead daemon's logs too; see [`LOGS`].
pub(crate) fn dead_logs() -> Arg {
    option("dir", "FOLDER", "A dead daemon's logs: `[log] dir`").id(LOGS)
}

/// The id of that option.
pub(crate) const LOGS: &str = "dead-logs";

/// An option that not every command has.
pub(crate) fn perhaps<'m>(matches: &'m ArgMatches, name: &str) -> Option<&'m str> {
    matches.try_get_one::<String>(name).ok().flatten().map(String::as_str)
}

/// The page of a reply by its kind.
fn page_of(page: &mut Page, reply: &Reply) -> Option<Exit> {
    match reply {
        Reply::Done { message } => page.paragraph(0, message),
        Reply::Version(info) => status::version(page, info),
        Reply::Status(info) => status::status(page, info, None, &[]),
        Reply::Ledger(ledger) => {
            status::ledger(page, ledger);
            if ledger.difference() != 0 {
                return Some(Exit::Attention);
            }
        }
        Reply::Metrics(metrics) => page.verbatim(&metrics.text),
        Reply::Queue(queue) => queue::list(page, queue),
        Reply::Message(message) => queue::show(page, message),
        Reply::Reloaded(reloaded) => {
            page.line(&format!("Config generation {} is in force.", reloaded.generation));
            for note in reloaded.notes.iter() {
                page.paragraph(2, note);
            }
        }
        Reply::LogLevel(log) => page.line(&format!("Log level {}.", log.level.name())),
        Reply::Hints(list) => hints::list(page, list),
        Reply::Hint(hint) => hints::show(page, hint),
        Reply::Story(told) => {
            let unknown = !story::knows(told) && told.next.is_none();
            if unknown {
                page.line("Nothing is known of it here.");
            }
            story::story(page, told);
            if !unknown && told.lines.is_empty() && !page.goes_on {
                page.line("No line fits.");
            }
            if unknown {
                return Some(Exit::NotFound);
            }
        }
        Reply::Rows(rows) => story::rows(page, rows),
        Reply::Summary(summary) => story::summary(page, summary),
        _ => return None,
    }
    Some(Exit::Fine)
}

pub(crate) fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

pub(crate) fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

pub(crate) fn text<'m>(matches: &'m ArgMatches, name: &str) -> Option<&'m str> {
    matches.get_one::<String>(name).map(String::as_str)
}

pub(crate) fn usage(message: impl Into<String>, advice: impl Into<String>) -> Trouble {
    Trouble::new(Exit::Usage, message, advice)
}

pub(crate) fn optional<const MAX: usize>(
    m: &ArgMatches,
    name: &str,
) -> Result<Option<Text<MAX>>, Trouble> {
    let Some(text) = text(m, name) else { return Ok(None) };
    let bounded = Text::try_from(text.to_owned());
    bounded.map(Some).map_err(|error| usage(format!("{name} is {error} octets"), ""))
}

pub(crate) fn bounded<const MAX: usize>(m: &ArgMatches, name: &str) -> Result<Text<MAX>, Trouble> {
    Ok(optional(m, name)?.unwrap_or_default())
}

/// The one argument of that name.
pub(crate) fn argument(name: &'static str, help: &'static str) -> Vec<Arg> {
    vec![Arg::new(name).required(true).help(help)]
}
