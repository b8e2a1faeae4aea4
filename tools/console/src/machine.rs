//! The appliance's own commands: `upgrade`, `reboot`, `poweroff` and its part of `config`, which
//! its init does for the operator, and `flash` and `inject`.
//!
//! *Guarantees*: nothing is done here; init is started with the words and says what it did. An
//! `upgrade` goes through the admin socket and the daemon to init where the socket is named, or
//! where this is not root on the appliance.
//! *Failure*: init's own line. Elsewhere than on the appliance: that it is not one.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use clap::{Arg, ArgAction, ArgMatches};
use control::{Request, Upgrade};
use nix::unistd::geteuid;

use crate::exit::{Exit, Trouble};
use crate::flash;
use crate::page::Page;
use crate::row::{Row, Word, bounded, flag, option, row};

/// The rows of this group.
pub(crate) const ROWS: [Row; 5] = [
    Row {
        arguments: || {
            let manifest = Arg::new("MANIFEST").required(true);
            vec![
                manifest.help("Path or http://.../ringpost-V.manifest; .sig and .efi beside it"),
                flag("downgrade", "An older version is meant"),
                flag("later", "Do not start anew at once"),
            ]
        },
        request: |m| {
            Ok(Request::Upgrade(Upgrade {
                manifest: bounded(m, "MANIFEST")?,
                downgrade: m.get_flag("downgrade"),
                later: m.get_flag("later"),
            }))
        },
        appliance: Some(upgrade),
        by_socket: true,
        // As long as the daemon waits for init.
        wait_s: 930,
        example: &["http://192.0.2.80/ringpost-1.1.0.manifest"],
        word: Some(Word::Login("UPGRADE")),
        audited: true,
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
        audited: true,
        ..row("flash", "Write an image to a disk, a stick or a file, and read it back")
    },
    Row {
        arguments: seed_arguments,
        local: Some(flash::inject),
        audited: true,
        ..row("inject", "Put config files on a disk or a stick, in an image or a file")
    },
    Row {
        local: Some(reboot),
        word: Some(Word::Login("REBOOT")),
        audited: true,
        ..row("reboot", "Drain, then start the machine anew")
    },
    Row {
        local: Some(power_off),
        word: Some(Word::Login("POWEROFF")),
        audited: true,
        ..row("poweroff", "Drain, then switch off")
    },
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
/// Where init keeps generations of the config.
const GENERATIONS: &str = "/state/config";

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

/// Whether init takes words from this user.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Whether init keeps the config here.
pub(crate) fn is_appliance() -> bool {
    Path::new(INIT).exists() && Path::new(GENERATIONS).is_dir()
}

/// The text in force of a file that only init reads.
pub(crate) fn in_force(file: &Path) -> Option<String> {
    const OF_INIT: &str = "machine.toml";
    let of_init = is_appliance() && file.file_name()? == OF_INIT;
    fs::read_to_string(Path::new(GENERATIONS).join("current").join(OF_INIT))
        .ok()
        .filter(|_| of_init)
}

/// `config show [NUMBER]`: every text of a generation, each below its name.
pub(crate) fn config_show(page: &mut Page, matches: &ArgMatches) -> Result<Exit, Trouble> {
    let number = matches.get_one::<u32>("NUMBER").map(ToString::to_string);
    let folder = Path::new(GENERATIONS).join(number.as_deref().unwrap_or("current"));
    for name in ["mx.toml", "machine.toml"] {
        match fs::read_to_string(folder.join(name)) {
            Ok(text) => {
                page.line(&format!("# {name}"));
                page.verbatim(&text);
            }
            Err(error) if error.kind() == ErrorKind::NotFound && folder.is_dir() => {}
            Err(error) => {
                let message = format!("{}: {error}", folder.display());
                return Err(Trouble::new(Exit::NotFound, message, "`ringpost config history`"));
            }
        }
    }
    Ok(Exit::Fine)
}

/// `config history`
pub(crate) fn config_history(page: &mut Page, _: &ArgMatches) -> Result<Exit, Trouble> {
    ask(page, &["config", "history"])
}

/// `config commit FILE... [--confirm MINUTES]`
pub(crate) fn config_commit(page: &mut Page, matches: &ArgMatches) -> Result<Exit, Trouble> {
    let mut words = vec!["config", "commit"];
    words.extend(matches.get_many::<String>("FILE").into_iter().flatten().map(String::as_str));
    let minutes = matches.get_one::<u32>("confirm").map(ToString::to_string);
    if let Some(minutes) = &minutes {
        words.extend(["--confirm", minutes]);
    }
    ask(page, &words)
}

/// `config confirm`
pub(crate) fn config_confirm(page: &mut Page, _: &ArgMatches) -> Result<Exit, Trouble> {
    ask(page, &["config", "confirm"])
}

/// `config rollback [NUMBER]`
pub(crate) fn config_rollback(page: &mut Page, matches: &ArgMatches) -> Result<Exit, Trouble> {
    let mut words = vec!["config", "rollback"];
    let number = matches.get_one::<u32>("NUMBER").map(ToString::to_string);
    words.extend(number.as_deref());
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
