//! Rows of configs, trials and routes.

use clap::{Arg, ArgMatches, value_parser};
use control::{ConfigAct, Request, Test, Text};

use crate::exit::Trouble;
use crate::row::{Row, argument, bounded, option, row, text, usage};

/// The rows.
pub(crate) const ROWS: [Row; 11] = [
    Row {
        arguments: || argument("ADDRESS", "An address or a domain"),
        request: |m| Ok(Request::Test(Test::Route(bounded(m, "ADDRESS")?))),
        example: &["a@example.org"],
        ..row("route", "Where mail for an address goes: route, hosts, their state")
    },
    Row {
        arguments: || argument("ADDRESS", "A recipient"),
        request: |m| Ok(Request::Test(Test::Verify(bounded(m, "ADDRESS")?))),
        example: &["a@example.org"],
        ..row("verify", "Whether a recipient is taken, and from whom")
    },
    Row {
        arguments: || argument("NAME", "A domain or host"),
        request: |m| Ok(Request::Test(Test::Dns(bounded(m, "NAME")?))),
        example: &["example.org"],
        ..row("test dns", "What the DNS says of a name, and how fast")
    },
    Row {
        arguments: || vec![Arg::new("HOST").help("HOST:PORT; without it all hosts of routes")],
        request: |m| Ok(Request::Test(Test::Backend(bounded(m, "HOST")?))),
        ..row("test backend", "Connect to a next hop and say EHLO")
    },
    Row {
        arguments: || vec![Arg::new("NUMBER").value_parser(value_parser!(u32))],
        request: |m| Ok(Request::Config(ConfigAct::Show(m.get_one("NUMBER").copied()))),
        ..row("settings show", "The config file, or one of the history")
    },
    Row {
        arguments: || argument("KEY", "KEY, SECTION.KEY or SECTION"),
        request: |m| Ok(Request::Config(ConfigAct::Explain(bounded(m, "KEY")?))),
        example: &["first_s"],
        ..row("settings explain", "What a key means, its bounds and default, what is written")
    },
    Row {
        arguments: || argument("FILE", "A config"),
        request: |m| Ok(Request::Config(ConfigAct::Check(path(m)?))),
        example: &["mx.toml"],
        ..row("settings check", "All that speaks against a file; nothing is changed")
    },
    Row {
        arguments: || {
            let mut arguments = argument("FILE", "A config");
            arguments.push(
                option("confirm", "MINUTES", "Taken back after so long unless confirmed")
                    .value_parser(value_parser!(u32).range(1..=1440)),
            );
            arguments.push(option("why", "TEXT", "For the history"));
            arguments
        },
        request: |m| {
            Ok(Request::Config(ConfigAct::Commit {
                file: path(m)?,
                confirm_minutes: m.get_one("confirm").copied().unwrap_or(0),
                why: bounded(m, "why")?,
            }))
        },
        example: &["mx.toml", "--confirm", "5"],
        ..row("settings commit", "Put a file in force, as a whole or not at all")
    },
    Row {
        request: |_| Ok(Request::Config(ConfigAct::Confirm)),
        ..row("settings confirm", "What was put in force for some minutes stays")
    },
    Row {
        arguments: || vec![Arg::new("NUMBER").required(true).value_parser(value_parser!(u32))],
        request: |m| {
            let number = m.get_one("NUMBER").copied().unwrap_or(0);
            Ok(Request::Config(ConfigAct::Rollback(number)))
        },
        example: &["1"],
        ..row("settings rollback", "Put a config of the history in force again")
    },
    Row {
        request: |_| Ok(Request::Config(ConfigAct::History)),
        ..row("settings history", "The configs that were in force")
    },
];

/// The daemon reads the file: it needs the whole path.
fn path(m: &ArgMatches) -> Result<Text<{ control::limits::ADDRESS_OCTETS_MAX }>, Trouble> {
    let file = text(m, "FILE").unwrap_or_default();
    let whole =
        std::fs::canonicalize(file).map_err(|error| usage(format!("{file}: {error}"), ""))?;
    Text::try_from(whole.display().to_string())
        .map_err(|error| usage(format!("the path is {error} octets"), ""))
}
