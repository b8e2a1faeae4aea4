//! The config as generations: what the operator injected becomes the next one if it is good.
//!
//! `/state/config/<n>/` holds the files of generation n. Three links: `current` is the one in
//! force, `seed` the one that was last taken from the config partition (a seed that was rolled back
//! does not come back by itself), `before` is there while `current` is not confirmed, and is what
//! comes back: `before.minutes` says when.
//!
//! *Guarantees*: a generation is whole and synced before a link names it; a link changes at once or
//! not at all. What is refused changes nothing. A start with an unconfirmed generation undoes it.
//! *Limits*: `SEED_FILES_MAX` files of `SEED_FILE_MAX` octets, `GENERATIONS_MAX` generations.
//! *Failure*: what is wrong with the seed, line and column; the last good generation stays.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use crate::limits::{DAEMON_ID, GENERATIONS_MAX, SEED_FILE_MAX, SEED_FILES_MAX};
use crate::settings::{self, Settings};

/// The daemon's part of the config.
pub(crate) const MAIL: &str = "mx.toml";
/// Init's part.
pub(crate) const MACHINE: &str = "machine.toml";

/// What came of a seed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Import {
    /// There is none.
    Empty,
    /// It is what is in force already.
    Same,
    /// It is in force from now on, under this number.
    Taken(u64),
}

/// The generations below one folder.
#[derive(Debug)]
pub(crate) struct Generations {
    folder: PathBuf,
}

type Files = BTreeMap<String, Vec<u8>>;

impl Generations {
    /// Below this folder, which is made if it is missing.
    ///
    /// # Errors
    /// The state partition's.
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// The folder of the generation in force.
    pub(crate) fn current(&self) -> Option<PathBuf> {
        self.current_number().map(|number| self.place(number))
    }

    /// The number of the generation in force.
    pub(crate) fn current_number(&self) -> Option<u64> {
        self.link("current")
    }

    fn place(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string())
    }

    /// The generation that a link names, if it is there.
    fn link(&self, name: &str) -> Option<u64> {
        let target = fs::read_link(self.folder.join(name)).ok()?;
        let number = target.to_str()?.parse().ok()?;
        self.place(number).join(MAIL).is_file().then_some(number)
    }

    /// The machine's settings in force.
    pub(crate) fn settings(&self) -> Option<Settings> {
        let text = fs::read_to_string(self.current()?.join(MACHINE)).ok()?;
        settings::parse(&text).ok()
    }

    /// Takes a seed, if it is new and good. `check` looks at the mail part in its folder.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn import(
        &self,
        seed: &Path,
        check: impl Fn(&Path) -> Result<(), String>,
    ) -> Result<Import, String> {
        let files = read(seed)?;
        if !files.contains_key(MAIL) && !files.contains_key(MACHINE) {
            return Ok(Import::Empty);
        }
        for name in ["seed", "current"] {
            let known = self.link(name).and_then(|number| read(&self.place(number)).ok());
            if known.as_ref() == Some(&files) {
                return Ok(Import::Same);
            }
        }
        let number = self.add(&files, check)?;
        self.point("seed", number).and_then(|()| self.point("current", number)).map_err(fail)?;
        self.tidy();
        Ok(Import::Taken(number))
    }

    /// Adds files to those in force, as the next generation. With minutes it is undone unless it
    /// is confirmed within them.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn commit(
        &self,
        fresh: Vec<(String, Vec<u8>)>,
        minutes: Option<u64>,
        check: impl Fn(&Path) -> Result<(), String>,
    ) -> Result<u64, String> {
        let before = self.current_number();
        let mut files = before.map_or_else(|| Ok(Files::new()), |n| read(&self.place(n)))?;
        files.extend(fresh);
        if files.len() > SEED_FILES_MAX {
            return Err(format!("more than {SEED_FILES_MAX} files"));
        }
        let number = self.add(&files, check)?;
        match (minutes, before) {
            // What is unconfirmed already keeps the way back to what was good.
            (Some(minutes), Some(before)) => {
                let back = self.unconfirmed().map_or(before, |(good, _)| good);
                fs::write(self.folder.join("before.minutes"), minutes.to_string()).map_err(fail)?;
                self.point("before", back).map_err(fail)?;
            }
            _ => self.confirm()?,
        }
        self.point("current", number).map_err(fail)?;
        self.tidy();
        Ok(number)
    }

    /// What comes back unless somebody confirms, and after how many minutes.
    pub(crate) fn unconfirmed(&self) -> Option<(u64, u64)> {
        let before = self.link("before")?;
        let minutes = fs::read_to_string(self.folder.join("before.minutes")).ok();
        Some((before, minutes.and_then(|text| text.trim().parse().ok()).unwrap_or(0)))
    }

    /// The generation in force stays.
    ///
    /// # Errors
    /// The state partition's.
    pub(crate) fn confirm(&self) -> Result<(), String> {
        match fs::remove_file(self.folder.join("before")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail(error)),
            _ => File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(fail),
        }
    }

    /// Undoes what was not confirmed; the generation that is back.
    ///
    /// # Errors
    /// The state partition's.
    pub(crate) fn undo(&self) -> Result<Option<u64>, String> {
        let Some((before, _)) = self.unconfirmed() else { return Ok(None) };
        self.point("current", before).map_err(fail)?;
        self.confirm()?;
        Ok(Some(before))
    }

    /// Puts an earlier generation in force: this one, or the one before the one in force.
    ///
    /// # Errors
    /// There is none, or it is not good any more.
    pub(crate) fn rollback(
        &self,
        number: Option<u64>,
        check: impl Fn(&Path) -> Result<(), String>,
    ) -> Result<u64, String> {
        let current = self.current_number().ok_or("no generation is in force")?;
        let earlier = || self.numbers().into_iter().rfind(|n| *n < current);
        let number = number.or_else(earlier).ok_or("there is none before it")?;
        if !self.numbers().contains(&number) {
            return Err(format!("there is no generation {number}"));
        }
        good(&read(&self.place(number))?)?;
        check(&self.place(number))?;
        self.confirm()?;
        self.point("current", number).map_err(fail)?;
        Ok(number)
    }

    /// Keeps files under the next number, if they are good.
    fn add(
        &self,
        files: &Files,
        check: impl Fn(&Path) -> Result<(), String>,
    ) -> Result<u64, String> {
        good(files)?;
        let number = self.numbers().last().copied().unwrap_or(0) + 1;
        let fresh = self.folder.join("new");
        let _ = fs::remove_dir_all(&fresh);
        write(&fresh, files).map_err(fail)?;
        check(&fresh)?;
        fs::rename(&fresh, self.place(number)).map_err(fail)?;
        Ok(number)
    }

    fn point(&self, name: &str, number: u64) -> io::Result<()> {
        let link = self.folder.join("link.new");
        let _ = fs::remove_file(&link);
        symlink(number.to_string(), &link)?;
        fs::rename(&link, self.folder.join(name))?;
        File::open(&self.folder)?.sync_all()
    }

    /// All that are kept, oldest first.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
        let mut all: Vec<u64> = entries.flatten().filter_map(number).collect();
        all.sort_unstable();
        all
    }

    fn tidy(&self) {
        let all = self.numbers();
        let needed = ["current", "seed", "before"].map(|name| self.link(name));
        for old in all.iter().take(all.len().saturating_sub(GENERATIONS_MAX)) {
            if !needed.contains(&Some(*old)) {
                let _ = fs::remove_dir_all(self.place(*old));
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn fail(error: io::Error) -> String {
    format!("cannot keep the config: {error}")
}

/// Both files are there, and init's part can be read.
fn good(files: &Files) -> Result<(), String> {
    for name in [MAIL, MACHINE] {
        let text = files.get(name).ok_or_else(|| format!("{name} is missing"))?;
        let text = std::str::from_utf8(text).map_err(|_| format!("{name} is no text"))?;
        if name == MACHINE {
            settings::parse(text).map_err(|problem| problem.to_string())?;
        }
    }
    Ok(())
}

fn read(folder: &Path) -> Result<Files, String> {
    let fail = |error: io::Error| format!("cannot read {}: {error}", folder.display());
    let mut files = Files::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if !entry.file_type().map_err(fail)?.is_file() {
            continue;
        }
        let Ok(name) = entry.file_name().into_string() else { continue };
        // What laptops leave behind.
        if name.starts_with('.') {
            continue;
        }
        let mut bytes = Vec::new();
        let file = File::open(entry.path()).map_err(fail)?;
        file.take(SEED_FILE_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > SEED_FILE_MAX {
            return Err(format!("{name} is longer than {} KiB", SEED_FILE_MAX >> 10));
        }
        files.insert(name, bytes);
        if files.len() > SEED_FILES_MAX {
            return Err(format!("more than {SEED_FILES_MAX} files"));
        }
    }
    Ok(files)
}

/// Writes files that the daemon may read and only root may change.
fn write(folder: &Path, files: &Files) -> io::Result<()> {
    fs::create_dir(folder)?;
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
        if nix::unistd::geteuid().is_root() {
            chown(&path, Some(0), Some(DAEMON_ID))?;
        }
        File::open(&path)?.sync_all()?;
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE_TEXT: &str =
        "[[link]]\nname = \"a\"\nmac = \"52:54:00:00:00:01\"\naddresses = [\"192.0.2.1/24\"]\n";

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("init-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(folder.join("seed")).unwrap();
            Self(folder)
        }

        fn seed(&self, name: &str, text: &str) {
            fs::write(self.0.join("seed").join(name), text).unwrap();
        }

        fn import(&self, all: &Generations, good: bool) -> Result<Import, String> {
            let check = |folder: &Path| {
                assert!(folder.join(MAIL).is_file());
                if good { Ok(()) } else { Err("mx.toml:1:1: bad".to_owned()) }
            };
            all.import(&self.0.join("seed"), check)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_good_seed_becomes_a_generation_once() {
        let place = Place::new("good");
        let all = Generations::open(place.0.join("config")).unwrap();
        assert_eq!(place.import(&all, true), Ok(Import::Empty));
        assert_eq!(all.current(), None);
        place.seed(MACHINE, MACHINE_TEXT);
        assert!(place.import(&all, true).unwrap_err().contains("mx.toml is missing"));
        place.seed(MAIL, "one");
        place.seed("mx.key", "secret");
        place.seed("._mx.toml", "a laptop's");
        assert_eq!(place.import(&all, true), Ok(Import::Taken(1)));
        assert_eq!(place.import(&all, true), Ok(Import::Same));
        assert_eq!(all.settings().unwrap().links[0].name, "a");
        let current = all.current().unwrap();
        assert!(current.join("mx.key").is_file() && !current.join("._mx.toml").exists());
        place.seed(MAIL, "two");
        assert_eq!(place.import(&all, true), Ok(Import::Taken(2)));
        assert_eq!(fs::read_to_string(all.current().unwrap().join(MAIL)).unwrap(), "two");
        assert_eq!(all.numbers(), [1, 2]);
    }

    #[test]
    fn a_bad_seed_changes_nothing() {
        let place = Place::new("bad");
        let all = Generations::open(place.0.join("config")).unwrap();
        place.seed(MACHINE, MACHINE_TEXT);
        place.seed(MAIL, "one");
        assert_eq!(place.import(&all, true), Ok(Import::Taken(1)));
        place.seed(MAIL, "two");
        assert!(place.import(&all, false).unwrap_err().contains("mx.toml:1:1"));
        assert_eq!(fs::read_to_string(all.current().unwrap().join(MAIL)).unwrap(), "one");
        place.seed(MACHINE, "what = 1\n");
        assert!(place.import(&all, true).unwrap_err().contains("machine.toml:1:"));
        place.seed("big", &"x".repeat(usize::try_from(SEED_FILE_MAX).unwrap() + 1));
        assert!(place.import(&all, true).unwrap_err().contains("big is longer"));
        assert_eq!(all.numbers(), [1]);
    }

    #[test]
    fn what_is_not_confirmed_is_undone() {
        let place = Place::new("confirm");
        let all = Generations::open(place.0.join("config")).unwrap();
        place.seed(MACHINE, MACHINE_TEXT);
        place.seed(MAIL, "one");
        assert_eq!(place.import(&all, true), Ok(Import::Taken(1)));
        let file = |text: &str| vec![(MAIL.to_owned(), text.as_bytes().to_vec())];
        assert_eq!(all.commit(file("two"), Some(5), |_| Ok(())), Ok(2));
        assert_eq!(all.unconfirmed(), Some((1, 5)));
        // Another on top: the way back leads to what was good.
        assert_eq!(all.commit(file("three"), Some(7), |_| Ok(())), Ok(3));
        assert_eq!(all.unconfirmed(), Some((1, 7)));
        assert_eq!(all.undo(), Ok(Some(1)));
        assert_eq!((all.current_number(), all.undo()), (Some(1), Ok(None)));
        assert_eq!(all.commit(file("four"), Some(5), |_| Ok(())), Ok(4));
        all.confirm().unwrap();
        assert_eq!((all.current_number(), all.undo()), (Some(4), Ok(None)));
        // A commit without minutes is final, also for what was open.
        all.commit(file("five"), Some(5), |_| Ok(())).unwrap();
        all.commit(file("six"), None, |_| Ok(())).unwrap();
        assert_eq!((all.current_number(), all.undo()), (Some(6), Ok(None)));
        assert!(all.commit(file("bad"), None, |_| Err("no".to_owned())).is_err());
        assert_eq!(all.current_number(), Some(6));
    }

    #[test]
    fn a_rollback_stays_although_the_seed_is_still_there() {
        let place = Place::new("rollback");
        let all = Generations::open(place.0.join("config")).unwrap();
        place.seed(MACHINE, MACHINE_TEXT);
        place.seed(MAIL, "one");
        assert_eq!(place.import(&all, true), Ok(Import::Taken(1)));
        place.seed(MAIL, "two");
        assert_eq!(place.import(&all, true), Ok(Import::Taken(2)));
        assert!(all.rollback(Some(9), |_| Ok(())).is_err());
        assert!(all.rollback(Some(1), |_| Err("not any more".to_owned())).is_err());
        assert_eq!(all.rollback(None, |_| Ok(())), Ok(1));
        assert_eq!(place.import(&all, true), Ok(Import::Same));
        assert_eq!(all.current_number(), Some(1));
        assert!(all.rollback(None, |_| Ok(())).is_err());
        place.seed(MAIL, "three");
        assert_eq!(place.import(&all, true), Ok(Import::Taken(3)));
    }
}
