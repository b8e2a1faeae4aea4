//! Configs: looked at, checked, put in force for good or for some minutes, taken back.
//!
//! *Guarantees*: a config is put in force as a whole or not at all, and the one before it stays in
//! the history; one that was put in force for some minutes is taken back over a restart too. What
//! would lock the operator out or open a relay is refused.
//! *Limits*: `HISTORY_MAX` configs.
//! *Failure*: a file that cannot be written leaves the old config in force.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use control::{
    ConfigAct, Failure, FailureCode, List, MetricsPage, Reply, Rows, RunState, Story, StoryLine,
    Text,
};

use super::House;
use super::reload;
use super::state::{self, Caller, write_whole};
use crate::config;
use crate::events::{Alarm, Note};

/// Configs that are kept.
const HISTORY_MAX: usize = 200;
const SECOND_US: u64 = 1_000_000;
/// How soon it is looked again whether the daemon runs.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const PENDING: &str = "unconfirmed";

/// A config of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    number: u32,
    path: PathBuf,
}

fn history(folder: &Path) -> PathBuf {
    folder.join("history")
}

/// Those of the history, oldest first.
fn kept(folder: &Path) -> Vec<Kept> {
    let entries = fs::read_dir(history(folder)).into_iter().flatten().flatten();
    let mut all: Vec<Kept> = entries
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let number = name.strip_suffix(".toml")?.parse().ok()?;
            Some(Kept { number, path: entry.path() })
        })
        .collect();
    all.sort_by_key(|kept| kept.number);
    all
}

/// Keeps a config; its number. One that is the newest already is not kept twice.
fn keep(folder: &Path, text: &str, about: &str) -> io::Result<u32> {
    let all = kept(folder);
    if let Some(last) = all.last()
        && fs::read_to_string(&last.path).is_ok_and(|old| old == text)
    {
        return Ok(last.number);
    }
    let number = all.last().map_or(1, |last| last.number + 1);
    let path = history(folder).join(format!("{number:06}.toml"));
    write_whole(&path, text.as_bytes())?;
    write_whole(&path.with_extension("about"), about.as_bytes())?;
    for old in all.iter().take((all.len() + 1).saturating_sub(HISTORY_MAX)) {
        let _ = fs::remove_file(&old.path);
        let _ = fs::remove_file(old.path.with_extension("about"));
    }
    Ok(number)
}

/// The config that comes back, and when, wall seconds.
fn pending(folder: &Path) -> Option<(u32, u64)> {
    let text = fs::read_to_string(folder.join(PENDING)).ok()?;
    let (number, until_s) = text.trim().split_once(' ')?;
    Some((number.parse().ok()?, until_s.parse().ok()?))
}

fn refuse(message: &str, advice: &str) -> Failure {
    Failure::new(FailureCode::Refused, message, advice)
}

fn lines(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

impl House {
    pub(super) async fn config(self: &Rc<Self>, act: ConfigAct, who: Caller) -> Reply {
        while self.ordering.replace(true) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let reply = self.config_alone(act, who).await;
        self.ordering.set(false);
        reply
    }

    async fn config_alone(self: &Rc<Self>, act: ConfigAct, who: Caller) -> Reply {
        let folder = state::folder(&self.orders.borrow().config);
        let done = match act {
            ConfigAct::Show(number) => self.config_shown(&folder, number),
            ConfigAct::Explain(key) => self.explained(&key),
            ConfigAct::Check(file) => self.checked(Path::new(&*file)),
            ConfigAct::History => Ok(history_shown(&folder)),
            ConfigAct::Commit { file, confirm_minutes, why } => {
                let text = fs::read_to_string(&*file);
                match text {
                    Ok(text) => self.commit(&folder, text, confirm_minutes, &why, who).await,
                    Err(error) => Err(refuse(&format!("{}: {error}", &*file), "")),
                }
            }
            ConfigAct::Confirm => self.confirm(&folder, who),
            ConfigAct::Rollback(number) => self.rolled_back(&folder, number, who).await,
        };
        done.unwrap_or_else(Reply::Failure)
    }

    fn config_shown(&self, folder: &Path, number: Option<u32>) -> Result<Reply, Failure> {
        let path = match number {
            None => self.facts.config_file.clone(),
            Some(number) => {
                let found = kept(folder).into_iter().find(|kept| kept.number == number);
                let none = || {
                    Failure::new(
                        FailureCode::NotFound,
                        "no such config",
                        "`ringpost config history`",
                    )
                };
                found.ok_or_else(none)?.path
            }
        };
        let text = fs::read_to_string(&path)
            .map_err(|error| refuse(&format!("{}: {error}", path.display()), ""))?;
        Ok(Reply::Metrics(MetricsPage { text: Text::cut(&text) }))
    }

    fn explained(&self, key: &str) -> Result<Reply, Failure> {
        let explained = config::explain(key);
        if explained.is_empty() {
            let advice = "say KEY or SECTION.KEY, like first_s or retry.first_s";
            return Err(Failure::new(FailureCode::NotFound, "no such key", advice));
        }
        let file = fs::read_to_string(&self.facts.config_file).unwrap_or_default();
        let name = key.rsplit('.').next().unwrap_or(key);
        let written = file.lines().zip(1..).filter(|(line, _)| {
            line.trim().split_once('=').is_some_and(|(key, _)| key.trim() == name)
        });
        let written =
            written.map(|(line, n): (&str, u32)| format!("line {n} has: {}", line.trim()));
        let line = |text: String| StoryLine {
            source: Text::cut("config"),
            text: Text::cut(&text),
            ..StoryLine::default()
        };
        let lines = explained.into_iter().chain(written).map(line);
        let lines = List::cut(lines);
        Ok(Reply::Story(Box::new(Story { about: Text::cut(key), lines, ..Story::default() })))
    }

    /// Everything that speaks against a file.
    fn checked(&self, file: &Path) -> Result<Reply, Failure> {
        let orders = Arc::clone(&self.orders.borrow());
        let trusted = self.clock.borrow().is_trusted();
        let feeds = self.filter.feeds.borrow().clone();
        match reload::prepare(file, &orders, &self.tickets, trusted, &feeds) {
            Err(problems) => Err(refuse(&problems.join("; "), "nothing was changed")),
            Ok(prepared) => {
                let changed = reload::changes(&orders.config, &prepared.config);
                let mut notes = config::lockouts(&orders.config, &prepared.config);
                if prepared.config.admin != orders.config.admin {
                    let text = "[admin] would change: the operator could be locked out; edit the \
                                file and start anew";
                    notes.push(text.to_owned());
                }
                if !notes.is_empty() {
                    return Err(refuse(&notes.join("; "), "nothing was changed"));
                }
                notes.push(match changed.as_slice() {
                    [] => "No section differs from the config in force.".to_owned(),
                    changed => {
                        format!("It can be put in force; it changes {}.", changed.join(", "))
                    }
                });
                notes.extend(prepared.warnings);
                Ok(Reply::Rows(Box::new(Rows::default().noting(notes))))
            }
        }
    }

    async fn commit(
        self: &Rc<Self>,
        folder: &Path,
        text: String,
        minutes: u32,
        why: &str,
        who: Caller,
    ) -> Result<Reply, Failure> {
        if pending(folder).is_some() {
            let advice = "`ringpost config confirm` keeps it, `config rollback` takes it back";
            return Err(refuse("a config waits to be confirmed", advice));
        }
        let candidate = folder.join("candidate.toml");
        // Relative paths in a config are those of the daemon's folder: the place of the file does
        // not matter.
        let failed = |error: io::Error| refuse(&error.to_string(), "nothing was changed");
        write_whole(&candidate, text.as_bytes()).map_err(failed)?;
        self.checked(&candidate)?;
        let file = self.facts.config_file.clone();
        let old = fs::read_to_string(&file).map_err(failed)?;
        let before = keep(folder, &old, "in force before").map_err(failed)?;
        self.audit(who, &format!("config commit, {minutes} minutes: {why}"))?;
        if minutes > 0 {
            let until_s = engine::wall_us() / SECOND_US + u64::from(minutes) * 60;
            let line = format!("{before} {until_s}\n");
            write_whole(&folder.join(PENDING), line.as_bytes()).map_err(failed)?;
        }
        if let Err(failure) = self.put_file(&text, &old).await {
            let _ = fs::remove_file(folder.join(PENDING));
            return Err(failure);
        }
        let number = keep(folder, &text, &format!("uid {} {why}", who.uid)).map_err(failed)?;
        let text = if minutes > 0 {
            Rc::clone(self).take_back_later();
            format!(
                "config {number} is in force for {minutes} minutes: `ringpost config confirm` \
                 keeps it"
            )
        } else {
            format!(
                "config {number} is in force; `ringpost config rollback {before}` takes it back"
            )
        };
        Ok(Reply::Done { message: Text::cut(&text) })
    }

    /// Puts a text in force; if that fails the old one stays, in the file too.
    async fn put_file(self: &Rc<Self>, text: &str, old: &str) -> Result<(), Failure> {
        let file = self.facts.config_file.clone();
        let failed = |error: io::Error| refuse(&format!("{}: {error}", file.display()), "");
        write_whole(&file, text.as_bytes()).map_err(failed)?;
        match self.reload().await {
            Ok(_) => Ok(()),
            Err(failure) => {
                write_whole(&file, old.as_bytes()).map_err(failed)?;
                Err(failure)
            }
        }
    }

    fn confirm(&self, folder: &Path, who: Caller) -> Result<Reply, Failure> {
        if pending(folder).is_none() {
            return Err(refuse("no config waits to be confirmed", "`ringpost config history`"));
        }
        self.audit(who, "config confirm")?;
        fs::remove_file(folder.join(PENDING)).map_err(|error| refuse(&error.to_string(), ""))?;
        Ok(Reply::Done { message: Text::cut("the config in force stays") })
    }

    async fn rolled_back(
        self: &Rc<Self>,
        folder: &Path,
        number: Option<u32>,
        who: Caller,
    ) -> Result<Reply, Failure> {
        let number = match number {
            Some(number) => number,
            None => self.before(folder)?,
        };
        self.audit(who, &format!("config rollback {number}"))?;
        self.roll_back(folder, number).await?;
        Ok(Reply::Done { message: Text::cut(&format!("config {number} is in force again")) })
    }

    /// The config that was in force before: the one that waits for a confirmation, or the newest
    /// that differs.
    fn before(&self, folder: &Path) -> Result<u32, Failure> {
        if let Some((number, _)) = pending(folder) {
            return Ok(number);
        }
        let now = fs::read_to_string(&self.facts.config_file).unwrap_or_default();
        let other = |kept: &Kept| fs::read_to_string(&kept.path).is_ok_and(|text| text != now);
        let none = || Failure::new(FailureCode::NotFound, "no config was in force before", "");
        kept(folder).into_iter().rev().find(other).map(|kept| kept.number).ok_or_else(none)
    }

    async fn roll_back(self: &Rc<Self>, folder: &Path, number: u32) -> Result<(), Failure> {
        let none =
            || Failure::new(FailureCode::NotFound, "no such config", "`ringpost config history`");
        let kept = kept(folder).into_iter().find(|kept| kept.number == number).ok_or_else(none)?;
        let failed = |error: io::Error| refuse(&error.to_string(), "");
        let text = fs::read_to_string(&kept.path).map_err(failed)?;
        let old = fs::read_to_string(&self.facts.config_file).map_err(failed)?;
        keep(folder, &old, "before a rollback").map_err(failed)?;
        self.put_file(&text, &old).await?;
        let _ = fs::remove_file(folder.join(PENDING));
        Ok(())
    }

    /// Waits until what is unconfirmed is to be taken back, if it still is then. Also to be called
    /// at start.
    pub(super) fn take_back_later(self: Rc<Self>) {
        let folder = state::folder(&self.orders.borrow().config);
        let Some((number, until_s)) = pending(&folder) else { return };
        tokio::task::spawn_local(async move {
            let now_s = engine::wall_us() / SECOND_US;
            tokio::time::sleep(Duration::from_secs(until_s.saturating_sub(now_s))).await;
            // At start there is nothing to reload into yet.
            while self.state.get() == RunState::Starting {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            if pending(&folder) != Some((number, until_s)) {
                return;
            }
            let done = self.roll_back(&folder, number).await;
            let text = match done {
                Ok(()) => format!("nobody confirmed the config: {number} is in force again"),
                Err(failure) => format!("the unconfirmed config stays: {}", &*failure.message),
            };
            let _ = state::audit(&folder, engine::wall_us(), Caller::default(), &text);
            self.note(Note::Reloaded, &text);
            if pending(&folder).is_some() {
                self.alarm(Alarm::Log, &text);
            }
        });
    }
}

fn history_shown(folder: &Path) -> Reply {
    let waits = pending(folder);
    let rows = kept(folder).into_iter().rev().map(|kept| {
        let meta = fs::metadata(&kept.path).ok();
        let since = meta.and_then(|meta| meta.modified().ok());
        let since = since.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let at = since.map_or_else(String::new, |at| {
            let wall_us = u64::try_from(at.as_micros()).unwrap_or(0);
            crate::maillog::stamp(wall_us)[..19].to_owned()
        });
        let about = fs::read_to_string(kept.path.with_extension("about")).unwrap_or_default();
        vec![kept.number.to_string(), at, lines(&about).join(" ")]
    });
    let notes = waits.map(|(number, until_s)| {
        let left = until_s.saturating_sub(engine::wall_us() / SECOND_US);
        format!("The config in force is unconfirmed: {number} comes back in {left} s.")
    });
    let table = Rows::new(&["number", "kept at", "about"]).with(rows).noting(notes);
    Reply::Rows(Box::new(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_are_kept_once_and_in_order() {
        let folder = std::env::temp_dir().join(format!("configs-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        assert_eq!(keep(&folder, "a", "first").unwrap(), 1);
        assert_eq!(keep(&folder, "a", "again").unwrap(), 1);
        assert_eq!(keep(&folder, "b", "second").unwrap(), 2);
        let numbers: Vec<u32> = kept(&folder).iter().map(|kept| kept.number).collect();
        assert_eq!(numbers, [1, 2]);
        assert_eq!(pending(&folder), None);
        write_whole(&folder.join(PENDING), b"1 1000\n").unwrap();
        assert_eq!(pending(&folder), Some((1, 1000)));
        fs::remove_dir_all(folder).unwrap();
    }
}
