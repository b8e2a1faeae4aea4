//! What an operator asks of the machine: this program, started again by `ringpost` on the console.
//!
//! *Guarantees*: only root gets through; PID 1 hears of a change by a signal and by nothing else.
//! *Failure*: one line, exit code 1.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::generations::{Generations, MAIL};
use crate::limits::{CONFIRM_MINUTES_MAX, SEED_FILE_MAX};
use crate::upgrade::{Wanted, upgrade};
use crate::{fetch, helper, network, notify, settings};

/// Where generations lie.
pub(crate) const CONFIG: &str = "/state/config";

const HELP: &str = "init: this is PID 1 of the image; it knows\n\
    upgrade MANIFEST [--downgrade] [--later]\n\
    config history | commit PLACE... [--confirm MINUTES] | confirm | rollback [N]\n\
    network try MACHINE.TOML\n\
    reboot | poweroff";

/// The first word of what PID 1 starts when the daemon asks; then who is answered, then the words.
pub(crate) const ANSWER: &str = "answer";

type Outcome<T = String> = Result<T, String>;

/// Does it, and says what was done.
///
/// # Errors
/// What went wrong; nothing was changed.
pub(crate) fn run(version: &str, word: &OsStr, words: impl Iterator<Item = OsString>) -> Outcome {
    if !geteuid().is_root() {
        return Err("only root may ask this".to_owned());
    }
    let words: Vec<String> =
        words.map(|word| word.into_string().map_err(|_| HELP)).collect::<Result<_, _>>()?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match (word.to_str().unwrap_or_default(), &words[..]) {
        ("upgrade", [manifest, options @ ..]) => to_another(version, manifest, options),
        (ANSWER, [asker, "upgrade", manifest, options @ ..]) => {
            answer(version, asker, manifest, options)
        }
        ("config", ["history"]) => history(&open()?),
        ("config", ["commit", places @ ..]) if !places.is_empty() => commit(places),
        ("config", ["confirm"]) => {
            open()?.confirm()?;
            tell(Signal::SIGHUP)?;
            Ok("confirmed\n".to_owned())
        }
        ("config", ["rollback"]) => rollback(None),
        ("config", ["rollback", number]) => {
            rollback(Some(number.parse().map_err(|_| "a generation is a number".to_owned())?))
        }
        ("network", ["try", file]) => network_try(file),
        ("reboot", []) => tell(Signal::SIGTERM).map(|()| "draining, then a new start\n".to_owned()),
        ("poweroff", []) => tell(Signal::SIGUSR2).map(|()| "draining, then off\n".to_owned()),
        _ => Err(HELP.to_owned()),
    }
}

fn tell(signal: Signal) -> Outcome<()> {
    kill(Pid::from_raw(1), signal).map_err(|error| format!("PID 1: {error}"))
}

fn to_another(running: &str, manifest: &str, options: &[&str]) -> Outcome {
    if let Some(alien) = options.iter().find(|o| !["--downgrade", "--later"].contains(o)) {
        return Err(format!("{alien}: {HELP}"));
    }
    let downgrade = options.contains(&"--downgrade");
    let version = upgrade(running, &Wanted { manifest, downgrade })?;
    if options.contains(&"--later") {
        return Ok(format!("{version} is written; the next start tries it\n"));
    }
    tell(Signal::SIGTERM)?;
    Ok(format!("{version} is written; draining, then a new start tries it\n"))
}

/// The same for the daemon, which hears how it ended before it is drained.
fn answer(running: &str, asker: &str, manifest: &str, options: &[&str]) -> Outcome {
    const LATER: &str = "--later";
    let at_once = !options.contains(&LATER);
    let mut all = options.to_vec();
    if at_once {
        all.push(LATER);
    }
    let mut outcome = to_another(running, manifest, &all);
    if at_once && let Ok(said) = &mut outcome {
        *said = said.replace("the next start tries it", "draining, then a new start tries it");
    }
    notify::answer(asker, &outcome);
    if at_once && outcome.is_ok() {
        tell(Signal::SIGTERM)?;
    }
    outcome
}

fn open() -> Outcome<Generations> {
    Generations::open(CONFIG.into()).map_err(|error| format!("{CONFIG}: {error}"))
}

fn history(all: &Generations) -> Outcome {
    let mut page = String::new();
    let current = all.current_number();
    for number in all.numbers() {
        let mark = if Some(number) == current { " in force" } else { "" };
        let _ = writeln!(page, "{number}{mark}");
    }
    if let Some((before, minutes)) = all.unconfirmed() {
        let _ = writeln!(page, "not confirmed: {before} comes back {minutes} min after the commit");
    }
    Ok(page)
}

/// Files from paths or URLs become, with the others of the generation in force, the next one.
fn commit(words: &[&str]) -> Outcome {
    let (places, minutes) = match words {
        [places @ .., "--confirm", minutes] => {
            let minutes = minutes.parse().ok().filter(|m| (1..=CONFIRM_MINUTES_MAX).contains(m));
            let wanted = || format!("--confirm takes 1 to {CONFIRM_MINUTES_MAX} minutes");
            (places, Some(minutes.ok_or_else(wanted)?))
        }
        places => (places, None),
    };
    let mut files = Vec::new();
    for place in places {
        let name = place.rsplit('/').next().unwrap_or_default();
        if name.is_empty() || name.starts_with('.') {
            return Err(format!("{place}: no name of a file"));
        }
        files.push((name.to_owned(), fetch::fetch(place, SEED_FILE_MAX)?));
    }
    let number = open()?.commit(files, minutes, daemon_check_against)?;
    tell(Signal::SIGHUP)?;
    Ok(match minutes {
        Some(minutes) => {
            format!(
                "generation {number}; say `config confirm` within {minutes} min or it is undone\n"
            )
        }
        None => format!("generation {number}\n"),
    })
}

/// The network of a `machine.toml` that is not in force, for the wizard's checks; the next start
/// knows nothing of it.
fn network_try(file: &str) -> Outcome {
    if open()?.current_number().is_some() {
        return Err("there is a config, and its network".to_owned());
    }
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let settings = settings::parse(&text).map_err(|problem| problem.to_string())?;
    match network::up(&settings) {
        0 => Ok("the network is up\n".to_owned()),
        failed => Err(format!("{failed} of its parts are not up")),
    }
}

fn rollback(number: Option<u64>) -> Outcome {
    let number = open()?.rollback(number, daemon_check)?;
    tell(Signal::SIGHUP)?;
    Ok(format!("generation {number} is in force again\n"))
}

/// The same, beside the generation in force: no commit opens a relay or locks the operator out.
fn daemon_check_against(folder: &Path) -> Result<(), String> {
    let old = format!("{CONFIG}/current/{MAIL}");
    helper::run_as_daemon("/bin/ringpostd", &["--check", MAIL, "--against", &old], folder)
}

/// The mail part of a generation, judged by who will read it.
///
/// # Errors
/// The daemon's words.
pub(crate) fn daemon_check(folder: &Path) -> Result<(), String> {
    helper::run_as_daemon("/bin/ringpostd", &["--check", MAIL], folder)
}
