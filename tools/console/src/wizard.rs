//! `wizard`: from a machine without a config to one that takes mail, in at most ten questions.
//!
//! *Guarantees*: `?` helps, `<` goes back, an empty line takes the default. Nothing is written
//! before the word `commit`; what is put in force goes the way of `config commit --confirm`.
//! *Failure*: what the world does not confirm is said with `!!` and may be committed all the same;
//! what is no answer is asked for again. The end of the line ends the wizard with nothing changed.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Arg, ArgMatches, value_parser};

use crate::access::Store;
use crate::accessing::folder;
use crate::checks;
use crate::draft::{Draft, Facts};
use crate::exit::{Exit, Trouble};
use crate::page::Page;
use crate::questions::{ALL, Question};
use crate::row::{Row, flag, option, row, text};
use crate::tty;

/// Minutes after which a config comes back that nobody confirmed.
const CONFIRM_MINUTES: &str = "10";
/// Where the appliance's files are put together.
const ROOM: &str = "/run/wizard";
const INIT: &str = "/init";

/// The row.
pub(crate) const ROWS: [Row; 1] = [Row {
    arguments,
    local: Some(run),
    ..row("wizard", "At most ten questions, checks, then a config that takes mail")
}];

fn arguments() -> Vec<Arg> {
    vec![
        option("into", "FOLDER", "Elsewhere than on the appliance: write the files there"),
        option("state", "FOLDER", "Where `access` lies; else $RINGPOST_STATE, /state/console"),
        option("port", "N", "The port of the listener")
            .value_parser(value_parser!(u16))
            .default_value("25"),
        option("by", "PROGRAM", "What `config commit` is said to; else this program"),
        flag("no-commit", "Write the files only"),
    ]
}

/// Where the dialogue stands.
enum Step {
    Next,
    Back,
    /// The line has ended.
    Gone,
}

fn run(_: &mut Page, m: &ArgMatches) -> Result<Exit, Trouble> {
    let into = text(m, "into").map(PathBuf::from);
    if into.is_none() && !Path::new(INIT).exists() {
        let advice = "Elsewhere say --into FOLDER; on a running daemon edit and `config commit`.";
        return Err(Trouble::new(Exit::Usage, "this is not the appliance", advice));
    }
    let facts = facts(into.as_deref(), m.get_one("port").copied().unwrap_or(25))?;
    let questions: Vec<&Question> = ALL.iter().filter(|question| (question.fits)(&facts)).collect();
    say("This sets up a mail exchanger. Port 25 is closed until the end.");
    say("Enter takes what stands in [brackets]; ? helps, < goes back.");
    let mut draft = Draft::default();
    let mut at = 0;
    loop {
        let step = match questions.get(at) {
            Some(question) => ask(question, at + 1, questions.len(), &facts, &mut draft),
            None => match finish(&questions, &facts, &draft)? {
                Finish::Commit => break,
                Finish::Change(number) => {
                    at = number;
                    continue;
                }
                Finish::Gone => Step::Gone,
            },
        };
        match step {
            Step::Next => at += 1,
            Step::Back => at = at.saturating_sub(1),
            Step::Gone => return Err(Trouble::new(Exit::Refused, "nothing was changed", "")),
        }
    }
    commit(&draft, &facts, m)
}

fn say(text: &str) {
    let mut page = Page::default();
    page.paragraph(0, text);
    tty::print(&page.into_text());
}

fn ask(question: &Question, n: usize, of: usize, facts: &Facts, draft: &mut Draft) -> Step {
    loop {
        let default = (question.default)(facts, draft);
        tty::print("\n");
        say(&format!("{n}/{of} {}", question.text));
        let shown = if default.len() > 60 { "as before" } else { &default };
        tty::print(&match (question.secret, default.is_empty()) {
            (true, _) => "Enter to type it: ".to_owned(),
            (false, true) => "> ".to_owned(),
            (false, false) => format!("[{shown}] > "),
        });
        let Some(line) = tty::line() else { return Step::Gone };
        let answer = match line.trim() {
            "?" => {
                say(question.help);
                continue;
            }
            "<" => return Step::Back,
            "" => default,
            answer => answer.to_owned(),
        };
        match (question.take)(facts, draft, &answer) {
            Ok(()) => return Step::Next,
            Err(why) => say(&format!("!! {why}")),
        }
    }
}

enum Finish {
    Commit,
    Change(usize),
    Gone,
}

/// Summary, checks, the word.
fn finish(questions: &[&Question], facts: &Facts, draft: &Draft) -> Result<Finish, Trouble> {
    let mut page = Page::default();
    page.line("");
    for (n, question) in questions.iter().enumerate() {
        page.line(&format!("{:>2} {:<14} {}", n + 1, question.name, (question.shown)(draft)));
    }
    tty::print(&page.into_text());
    if !facts.cards.is_empty() {
        let machine = write(facts, "machine.toml", &draft.machine())?;
        done(INIT, &["network", "try", &machine.display().to_string()])?;
    }
    let mut bad = 0;
    checks::all(draft, |finding| {
        bad += usize::from(finding.is_bad());
        say(&finding.line());
    });
    if bad > 0 {
        say(&format!("{bad} of these will make trouble; they do not stand in the way."));
    }
    loop {
        tty::print("`commit`, or the number of what to change, or `quit`: ");
        let Some(line) = tty::line() else { return Ok(Finish::Gone) };
        match line.trim() {
            "commit" => return Ok(Finish::Commit),
            "quit" => return Ok(Finish::Gone),
            "<" => return Ok(Finish::Change(questions.len().saturating_sub(1))),
            other => match other.parse::<usize>() {
                Ok(n) if (1..=questions.len()).contains(&n) => return Ok(Finish::Change(n - 1)),
                _ => say("!! one of these, please"),
            },
        }
    }
}

/// What this machine has.
fn facts(into: Option<&Path>, port: u16) -> Result<Facts, Trouble> {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let Some(into) = into else {
        let facts =
            Facts { cards: cards(), places: places(), cores, port, folder: ROOM.to_owned() };
        if facts.cards.is_empty() || facts.places.is_empty() {
            let message = "this machine has no network card, or no spool disk";
            return Err(Trouble::new(Exit::Refused, message, "The lines of its start say why."));
        }
        return Ok(facts);
    };
    let fail = |error: std::io::Error| {
        Trouble::new(Exit::Usage, format!("{}: {error}", into.display()), "")
    };
    fs::create_dir_all(into).map_err(fail)?;
    let folder = fs::canonicalize(into).map_err(fail)?.display().to_string();
    Ok(Facts { cores, port, folder, ..Facts::default() })
}

/// Cards with a device behind them.
fn cards() -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir("/sys/class/net") else { return Vec::new() };
    let mut cards: Vec<(String, String)> = entries
        .flatten()
        .filter(|entry| entry.path().join("device").exists())
        .filter_map(|entry| {
            let mac = fs::read_to_string(entry.path().join("address")).ok()?;
            Some((entry.file_name().into_string().ok()?, mac.trim().to_owned()))
        })
        .collect();
    cards.sort();
    cards
}

fn places() -> Vec<(String, u64)> {
    let Ok(entries) = fs::read_dir("/dev/spool") else { return first_place() };
    let mut places: Vec<(String, u64)> = entries
        .flatten()
        .filter_map(|entry| {
            let device = fs::canonicalize(entry.path()).ok()?;
            let sectors = Path::new("/sys/class/block").join(device.file_name()?).join("size");
            let sectors: u64 = fs::read_to_string(sectors).ok()?.trim().parse().ok()?;
            Some((entry.path().display().to_string(), sectors * 512))
        })
        .collect();
    places.sort();
    places
}

/// Before there is a config init has named no device yet: the first will be the own disk's.
fn first_place() -> Vec<(String, u64)> {
    let Ok(entries) = fs::read_dir("/sys/class/block") else { return Vec::new() };
    let mut sizes = entries.flatten().filter_map(|entry| {
        let facts = fs::read_to_string(entry.path().join("uevent")).ok()?;
        facts.lines().find(|line| *line == "PARTNAME=ringpost-spool")?;
        let sectors = fs::read_to_string(entry.path().join("size")).ok()?;
        sectors.trim().parse::<u64>().ok()
    });
    sizes.next().map(|sectors| ("/dev/spool/0".to_owned(), sectors * 512)).into_iter().collect()
}

/// Writes, lets in, puts in force.
fn commit(draft: &Draft, facts: &Facts, m: &ArgMatches) -> Result<Exit, Trouble> {
    let appliance = !facts.cards.is_empty();
    let mut files = vec![("mx.toml", draft.mail(facts))];
    if appliance {
        files.push(("machine.toml", draft.machine()));
    }
    if !draft.recipients.is_empty() {
        files.push(("recipients", format!("{}\n", draft.recipients.join("\n"))));
    }
    let paths = files.iter().map(|(name, text)| write(facts, name, text));
    let paths: Vec<PathBuf> = paths.collect::<Result<_, _>>()?;
    if let Some(login) = &draft.login {
        Store::new(&folder(m), None).change(|logins| {
            logins.retain(|old| old.name != login.name);
            logins.push(login.clone());
            Ok(())
        })?;
    }
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    if m.get_flag("no-commit") {
        say(&format!("Written: {}", names.join(" ")));
        return Ok(Exit::Fine);
    }
    let by = text(m, "by").unwrap_or("/proc/self/exe");
    let mut words = vec!["config", "commit"];
    words.extend(names.iter().map(String::as_str));
    words.extend(["--confirm", CONFIRM_MINUTES]);
    if !done(by, &words)? {
        let advice = "The files stay where they are; say `wizard` again.";
        return Err(Trouble::new(Exit::Refused, "the config was not taken", advice));
    }
    if appliance && !Path::new("/run/ringpost/admin.sock").exists() {
        say("The machine starts anew with it.");
        done(by, &["reboot", "--yes", "REBOOT"])?;
    }
    Ok(Exit::Fine)
}

/// A file of the config that is being made.
fn write(facts: &Facts, name: &str, text: &str) -> Result<PathBuf, Trouble> {
    let room = Path::new(&facts.folder);
    let path = room.join(name);
    let written = fs::DirBuilder::new().recursive(true).mode(0o700).create(room);
    let written = written.and_then(|()| fs::write(&path, text));
    written
        .map_err(|error| Trouble::new(Exit::Refused, format!("{}: {error}", path.display()), ""))?;
    Ok(path)
}

/// Runs it on this line; whether it ended well.
fn done(program: &str, words: &[&str]) -> Result<bool, Trouble> {
    let status = Command::new(program).args(words).status();
    let status =
        status.map_err(|error| Trouble::new(Exit::Refused, format!("{program}: {error}"), ""))?;
    Ok(status.success())
}
