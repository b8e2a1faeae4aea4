//! The appliance's own commands: `upgrade`, `config`, `reboot`, `poweroff`, which its init does for
//! the operator, and `flash` and `inject`.
//!
//! *Guarantees*: nothing is done here; init is started with the words and says what it did.
//! *Failure*: init's own line. Elsewhere than on the appliance: that it is not one.

use std::process::Command;

use clap::{Arg, ArgAction, ArgMatches};

use crate::exit::{Exit, Trouble};
use crate::flash;
use crate::page::Page;
use crate::row::{Row, flag, option, row};

/// The rows of this group.
pub(crate) const ROWS: [Row; 9] = [
    Row {
        local: Some(config_history),
        ..row("config history", "Generations of the appliance's config")
    },
    Row {
        arguments: || {
            let place = Arg::new("PLACE").required(true).num_args(1..);
            vec![
                place.help("Paths or http://...; a file keeps its name, the others stay"),
                option("confirm", "MINUTES", "Undo it unless it is confirmed by then"),
            ]
        },
        local: Some(config_commit),
        ..row("config commit", "Put files of the config in force, as a new generation")
    },
    Row {
        local: Some(config_confirm),
        ..row("config confirm", "Keep what was committed with --confirm")
    },
    Row {
        arguments: || vec![Arg::new("N").help("Which; without it the one before")],
        local: Some(config_rollback),
        ..row("config rollback", "Put an earlier generation in force again")
    },
    Row {
        arguments: || {
            let manifest = Arg::new("MANIFEST").required(true);
            vec![
                manifest.help("Path or http://.../ringpost-V.manifest; .sig and .efi beside it"),
                flag("downgrade", "An older version is meant"),
                flag("later", "Do not start anew at once"),
            ]
        },
        local: Some(upgrade),
        ..row("upgrade", "Check a signed version, write it, start anew to try it")
    },
    Row {
        arguments: || {
            let mut arguments = seed_arguments();
            arguments.insert(0, Arg::new("IMAGE").required(true).help("The image"));
            arguments.push(option("serial", "S", "The serial number of a disk that is built in"));
            arguments
        },
        local: Some(flash::flash),
        ..row("flash", "Write an image to a disk, a stick or a file, and read it back")
    },
    Row {
        arguments: seed_arguments,
        local: Some(flash::inject),
        ..row("inject", "Put config files on a disk or a stick, in an image or a file")
    },
    Row { local: Some(reboot), ..row("reboot", "Drain, then start the machine anew") },
    Row { local: Some(power_off), ..row("poweroff", "Drain, then switch off") },
];

fn seed_arguments() -> Vec<Arg> {
    vec![
        Arg::new("DEVICE").required(true).help("A disk, a stick, or a file"),
        option("config", "FILE", "Becomes mx.toml"),
        option("machine", "FILE", "Becomes machine.toml"),
        option("file", "FILE", "Keeps its name: a certificate, a key").action(ArgAction::Append),
    ]
}

const INIT: &str = "/init";

fn ask(page: &mut Page, words: &[&str]) -> Result<Exit, Trouble> {
    let output = Command::new(INIT).args(words).output().map_err(|error| {
        let message = format!("{INIT}: {error}");
        Trouble::new(Exit::Refused, message, "This works on the console of the appliance.")
    })?;
    if output.status.success() {
        page.verbatim(&String::from_utf8_lossy(&output.stdout));
        return Ok(Exit::Fine);
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Trouble::new(Exit::Refused, why, "Nothing was changed."))
}

fn word<'m>(matches: &'m ArgMatches, name: &str) -> &'m str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

/// `upgrade MANIFEST [--downgrade] [--later]`
fn upgrade(page: &mut Page, matches: &ArgMatches) -> Result<Exit, Trouble> {
    let mut words = vec!["upgrade", word(matches, "MANIFEST")];
    for (name, flag) in [("downgrade", "--downgrade"), ("later", "--later")] {
        if matches.get_flag(name) {
            words.push(flag);
        }
    }
    ask(page, &words)
}

/// `config history`
fn config_history(page: &mut Page, _: &ArgMatches) -> Result<Exit, Trouble> {
    ask(page, &["config", "history"])
}

/// `config commit PLACE... [--confirm MINUTES]`
fn config_commit(page: &mut Page, matches: &ArgMatches) -> Result<Exit, Trouble> {
    let mut words = vec!["config", "commit"];
    words.extend(matches.get_many::<String>("PLACE").into_iter().flatten().map(String::as_str));
    if let Some(minutes) = matches.get_one::<String>("confirm") {
        words.extend(["--confirm", minutes]);
    }
    ask(page, &words)
}

/// `config confirm`
fn config_confirm(page: &mut Page, _: &ArgMatches) -> Result<Exit, Trouble> {
    ask(page, &["config", "confirm"])
}

/// `config rollback [N]`
fn config_rollback(page: &mut Page, matches: &ArgMatches) -> Result<Exit, Trouble> {
    let mut words = vec!["config", "rollback"];
    words.extend(matches.get_one::<String>("N").map(String::as_str));
    ask(page, &words)
}

/// `reboot`
fn reboot(page: &mut Page, _: &ArgMatches) -> Result<Exit, Trouble> {
    ask(page, &["reboot"])
}

/// `poweroff`
fn power_off(page: &mut Page, _: &ArgMatches) -> Result<Exit, Trouble> {
    ask(page, &["poweroff"])
}
