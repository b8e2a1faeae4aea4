//! One row of the table of commands, and what its arguments are made of.

use clap::{Arg, ArgAction, ArgMatches};
use control::{Reply, Request, Text};

use crate::exit::{Exit, Trouble};
use crate::page::Page;

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
    /// What is done here, without the daemon; then nothing is asked.
    pub(crate) local: Option<Local>,
}

/// A command that needs no daemon.
pub(crate) type Local = fn(&mut Page, &ArgMatches) -> Result<Exit, Trouble>;

/// A row with nothing but its name.
pub(crate) const fn bare(name: &'static str, help: &'static str) -> Row {
    Row {
        name,
        help,
        arguments: Vec::new,
        request: |_| Ok(Request::Version),
        render: |_, _| None,
        next: None,
        local: None,
    }
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
