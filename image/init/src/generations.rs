//! The config as generations: what the operator injected becomes the next one if it is good.
//!
//! `/state/config/<n>/` holds the files of generation n, `/state/config/current` is a link to the
//! one in force.
//!
//! *Guarantees*: a generation is whole and synced before the link names it; the link changes at
//! once or not at all. A seed that is refused changes nothing.
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
        let target = fs::read_link(self.folder.join("current")).ok()?;
        Some(self.folder.join(target)).filter(|folder| folder.join(MAIL).is_file())
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
        let current = self.current().and_then(|folder| read(&folder).ok());
        if current.as_ref() == Some(&files) {
            return Ok(Import::Same);
        }
        for name in [MAIL, MACHINE] {
            let text = files.get(name).ok_or_else(|| format!("{name} is missing"))?;
            let text = std::str::from_utf8(text).map_err(|_| format!("{name} is no text"))?;
            if name == MACHINE {
                settings::parse(text).map_err(|problem| problem.to_string())?;
            }
        }
        let number = self.numbers().last().copied().unwrap_or(0) + 1;
        let fail = |error: io::Error| format!("cannot keep the config: {error}");
        let fresh = self.folder.join("new");
        let _ = fs::remove_dir_all(&fresh);
        write(&fresh, &files).map_err(fail)?;
        check(&fresh)?;
        fs::rename(&fresh, self.folder.join(number.to_string())).map_err(fail)?;
        self.switch(number).map_err(fail)?;
        self.tidy();
        Ok(Import::Taken(number))
    }

    fn switch(&self, number: u64) -> io::Result<()> {
        let link = self.folder.join("current.new");
        let _ = fs::remove_file(&link);
        symlink(number.to_string(), &link)?;
        fs::rename(&link, self.folder.join("current"))?;
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
        for old in all.iter().take(all.len().saturating_sub(GENERATIONS_MAX)) {
            let _ = fs::remove_dir_all(self.folder.join(old.to_string()));
        }
    }
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
}
