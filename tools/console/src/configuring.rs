//! Rows of configs, trials and routes.
//!
//! *Guarantees*: one tree of `config` commands. On the appliance, where init keeps generations of
//! the config, what changes goes to init (`machine.rs`); elsewhere to the daemon, which keeps the
//! history of its one file.

use clap::{Arg, ArgMatches, value_parser};
use control::{ConfigAct, Request, Test, Text};

use crate::exit::Trouble;
use crate::machine;
use crate::row::{Row, Word, argument, bounded, option, row, text, usage};

/// The rows.
pub(crate) const ROWS: [Row; 12] = [
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
        arguments: || {
            vec![
                Arg::new("IP").required(true).help("The client's address"),
                Arg::new("HELO").required(true).help("The name it gives in EHLO"),
                Arg::new("FROM").required(true).help("The sender; <> is the null sender"),
            ]
        },
        request: |m| {
            let (ip, helo, from) = (bounded(m, "IP")?, bounded(m, "HELO")?, bounded(m, "FROM")?);
            Ok(Request::Test(Test::Spf { ip, helo, from }))
        },
        example: &["192.0.2.1", "mx.example.net", "a@example.net"],
        ..row("spf", "Whether SPF lets a client send for a domain, term by term")
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
        arguments: || {
            let number = Arg::new("NUMBER").value_parser(value_parser!(u32));
            vec![number.help("As `config history` shows it; without it what is in force")]
        },
        request: |m| Ok(Request::Config(ConfigAct::Show(m.get_one("NUMBER").copied()))),
        appliance: Some(machine::config_show),
        ..row("config show", "The config in force, or one of the history")
    },
    Row {
        arguments: || argument("KEY", "KEY, SECTION.KEY or SECTION"),
        request: |m| Ok(Request::Config(ConfigAct::Explain(bounded(m, "KEY")?))),
        example: &["first_s"],
        ..row("config explain", "What a key means, its bounds and default, what is written")
    },
    Row {
        arguments: || argument("FILE", "A config"),
        request: |m| Ok(Request::Config(ConfigAct::Check(path(m)?))),
        example: &["mx.toml"],
        ..row("config check", "All that speaks against a file; nothing is changed")
    },
    Row {
        arguments: || {
            let places = Arg::new("FILE").required(true).num_args(1..);
            vec![
                places.help("A config; on the appliance any of its files, paths or http://..."),
                option("confirm", "MINUTES", "Taken back after so long unless confirmed")
                    .value_parser(value_parser!(u32).range(1..=1440)),
                option("why", "TEXT", "For the history"),
            ]
        },
        request: |m| {
            if m.get_many::<String>("FILE").is_some_and(|files| files.len() > 1) {
                return Err(usage("the daemon has one config file", "Name that one alone."));
            }
            Ok(Request::Config(ConfigAct::Commit {
                file: path(m)?,
                confirm_minutes: m.get_one("confirm").copied().unwrap_or(0),
                why: bounded(m, "why")?,
            }))
        },
        appliance: Some(machine::config_commit),
        audited: true,
        example: &["mx.toml", "--confirm", "5"],
        ..row("config commit", "Put a config in force, as a whole or not at all")
    },
    Row {
        request: |_| Ok(Request::Config(ConfigAct::Confirm)),
        appliance: Some(machine::config_confirm),
        audited: true,
        ..row("config confirm", "What was put in force for some minutes stays")
    },
    Row {
        arguments: || {
            let number = Arg::new("NUMBER").value_parser(value_parser!(u32).range(1..));
            vec![number.help("As `config history` shows it; without it the one before")]
        },
        request: |m| {
            let number = m.get_one("NUMBER").copied();
            Ok(Request::Config(ConfigAct::Rollback(number)))
        },
        appliance: Some(machine::config_rollback),
        audited: true,
        word: Some(Word::Login("ROLLBACK")),
        ..row("config rollback", "Put a config of the history in force again")
    },
    Row {
        request: |_| Ok(Request::Config(ConfigAct::History)),
        appliance: Some(machine::config_history),
        ..row("config history", "The configs that were in force")
    },
];

/// The daemon reads the file: it needs the whole path.
fn path(m: &ArgMatches) -> Result<Text<{ control::limits::ADDRESS_OCTETS_MAX }>, Trouble> {
    let file = text(m, "FILE").unwrap_or_default();
    let whole = std::fs::canonicalize(file).map_err(|error| {
        usage(
            format!("{file}: {error}"),
            "Name a config file; `config show` prints one to begin with.",
        )
    })?;
    Text::try_from(whole.display().to_string())
        .map_err(|error| usage(format!("the path is {error} octets"), ""))
}
