//! The hints' file: made, locked, mapped, judged.
//!
//! *Failure*: what the file holds never stops the daemon; a file that cannot be had does.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use engine::map::SharedMap;
use engine::storage::{self, Place};
use hints::{Hints, Report, Seed, Setup, Start};

use crate::config::HintsConfig;

use super::error::BootError;
use super::waiting;

/// The tables and what was found; for the life of the process.
#[derive(Debug)]
pub(super) struct Tables {
    /// The tables.
    pub hints: &'static Hints<'static>,
    /// What was found.
    pub report: Report,
    /// What is worth saying besides, one line each.
    pub notes: Vec<String>,
}

impl Tables {
    /// Whether they begin anew.
    #[must_use]
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self.report.start, Start::Fresh(_))
    }
}

/// Opens the hints.
///
/// # Errors
/// The file cannot be made, or another daemon has it.
pub(super) fn open(config: &HintsConfig, setup: Setup) -> Result<Tables, BootError> {
    let path = &config.file;
    let fail = |what: &str, error: io::Error| {
        let what = format!("hints file {}: {what}: {error}", path.display());
        BootError::unavailable(what, "choose [hints] file on a ramfs or tmpfs this user may write")
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|error| fail("making its directory", error))?;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| fail("opening it", error))?;
    let locked = waiting::until(path, || storage::try_lock(&file));
    if !locked.map_err(|error| fail("locking it", error))? {
        let what = format!("hints file {}: another process has it", path.display());
        return Err(BootError::unavailable(what, "stop the other daemon, or choose another file"));
    }
    let octets = config.size.octets() / 8 * 8;
    let mut notes = Vec::new();
    let length = file.metadata().map_err(|error| fail("looking at it", error))?.len();
    if length != octets {
        size(&file, octets).map_err(|error| fail("giving it its size", error))?;
        if let Some(snapshot) = &config.snapshot {
            notes.extend(restore(&file, octets, snapshot));
        }
    }
    if let Ok(place) = Place::of(&file)
        && !matches!(place.name(), Some("ramfs" | "tmpfs"))
    {
        let name = place.name().unwrap_or("another file system");
        notes.push(format!(
            "hints lie on {name}: they work, and wear the disk; better on ramfs or tmpfs"
        ));
    }
    let bytes = usize::try_from(octets)
        .map_err(|_| BootError::config("[hints] size: too large for this machine", ""))?;
    let map = SharedMap::new(&file, bytes).map_err(|error| fail("mapping it", error))?;
    // Both for the life of the process: cores hold references, and the lock is the file's.
    let map: &'static SharedMap = Box::leak(Box::new(map));
    Box::leak(Box::new(file));
    let opened = Hints::open(map.words(), setup)
        .map_err(|error| BootError::config(error, "write a larger [hints] size"))?;
    let hints = Box::leak(Box::new(opened.hints));
    Ok(Tables { hints, report: opened.report, notes })
}

/// Random words for a new table.
///
/// # Errors
/// The kernel gives none.
pub(super) fn seed() -> Result<Seed, BootError> {
    let word = || {
        let mut octets = [0; 8];
        getrandom::fill(&mut octets).map(|()| u64::from_ne_bytes(octets))
    };
    let seed = word().and_then(|first| Ok(Seed([first, word()?])));
    seed.map_err(|error| BootError::os(format!("random numbers: {error}"), ""))
}

/// Empty, then of this size, with its space taken where the file system can: a tmpfs that is full
/// must say so now and not when a word is written.
fn size(file: &File, octets: u64) -> io::Result<()> {
    file.set_len(0)?;
    match storage::allocate(file, octets) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => file.set_len(octets),
        other => other,
    }
}

/// Fills a new file with the last copy, if there is one of its size.
fn restore(file: &File, octets: u64, snapshot: &Path) -> Option<String> {
    let copy = fs::metadata(snapshot).ok()?;
    let name = snapshot.display();
    if copy.len() != octets {
        return Some(format!("hints copy {name}: of another size, not used"));
    }
    let result = fs::read(snapshot).and_then(|copy| {
        let mut file = file;
        file.write_all(&copy)
    });
    Some(match result {
        Ok(()) => format!("hints taken from the copy {name}"),
        Err(error) => format!("hints copy {name}: {error}, not used"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_785_414_896_000_000;

    fn config(dir: &Path, snapshot: bool) -> HintsConfig {
        let snapshot = if snapshot { "snapshot=\"SNAP\"\n" } else { "" };
        let text = format!(
            "[node]\nhostname=\"mx.example.org\"\n\
             [policy]\npostmaster=\"p@example.org\"\n[[route]]\ndomains=[\"example.org\"]\n\
             mx=true\n[spool]\nplaces=[\"./spool\"]\n\
             [[listener]]\naddress=\"127.0.0.1\"\ntls=\"none\"\n\
             [hints]\nsize=\"1 MiB\"\nfile=\"{}/a/hints\"\n{}",
            dir.display(),
            snapshot.replace("SNAP", &dir.join("copy").display().to_string()),
        );
        let config = crate::config::Config::parse("t", &text, &crate::config::Disk);
        HintsConfig::clone(&config.unwrap().config.hints)
    }

    #[test]
    fn a_file_is_made_kept_by_one_and_filled_from_its_copy() {
        let dir = std::env::temp_dir().join(format!("hints-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let setup = Setup { seed: seed().unwrap(), node: 1, wall_us: NOW };
        let first = open(&config(&dir, false), setup).unwrap();
        assert!(first.is_fresh());
        first.hints.put_note(b"client x", 1, NOW);
        assert_eq!(fs::metadata(dir.join("a/hints")).unwrap().len(), 1 << 20);
        let error = open(&config(&dir, false), setup).unwrap_err();
        assert!(error.what.contains("another process"), "{error}");
        let hints::Snapshot(octets) = first.hints.snapshot();
        fs::write(dir.join("copy"), octets).unwrap();
        // As after a restart of the machine: the file is gone, the copy is there.
        fs::remove_file(dir.join("a/hints")).unwrap();
        let second = open(&config(&dir, true), setup).unwrap();
        assert!(!second.is_fresh());
        assert_eq!(second.hints.note(b"client x", NOW).unwrap().count, 1);
        fs::remove_dir_all(dir).unwrap();
    }
}
