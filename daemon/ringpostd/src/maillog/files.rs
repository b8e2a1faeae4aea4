//! The log files: written, closed and deleted by the house thread.
//!
//! *Guarantees.* A chunk that could be written in part only is continued, not repeated.
//! *Limits.* Those of `[log]`.
//! *Failure.* Errors go to the caller, which tells the cores ([`super::outlet::ChunkSource`]) and
//! comes again with the same chunk. A file that cannot be renamed or deleted stays in use.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::outlet::Log;
use super::rotation::{Rules, closed_name, open_name};

/// Both logs.
#[derive(Debug)]
pub struct LogFiles {
    dir: PathBuf,
    rules: Rules,
    main: Option<LogFile>,
    reject: Option<LogFile>,
}

#[derive(Debug)]
struct LogFile {
    file: File,
    size: u64,
    opened_wall_us: u64,
    /// Octets of the chunk under way that are in the file already.
    done: usize,
}

impl LogFiles {
    /// Makes the directory if need be, and opens both files behind what they hold.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(dir: &Path, rules: Rules, wall_us: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut files = Self { dir: dir.to_owned(), rules, main: None, reject: None };
        files.reopen(wall_us)?;
        files.delete_surplus();
        Ok(files)
    }

    /// Opens both files anew, after somebody else has moved them away.
    ///
    /// # Errors
    /// Those of the file system; then the old ones stay in use.
    pub fn reopen(&mut self, wall_us: u64) -> io::Result<()> {
        for log in [Log::Main, Log::Reject] {
            let mut file = open_file(&self.dir.join(open_name(log)), wall_us)?;
            let slot = self.slot(log);
            file.done = slot.as_ref().map_or(0, |old| old.done);
            *slot = Some(file);
        }
        Ok(())
    }

    /// Other rules, from the next write on.
    pub fn configure(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Appends whole lines.
    ///
    /// # Errors
    /// Those of the file system. Then the call is repeated with the same octets, and goes on where
    /// it stopped.
    pub fn write(&mut self, log: Log, octets: &[u8], wall_us: u64) -> io::Result<()> {
        if self.slot(log).is_none() {
            *self.slot(log) = Some(open_file(&self.dir.join(open_name(log)), wall_us)?);
        }
        let rules = self.rules;
        let due = self.slot(log).as_ref().is_some_and(|file| {
            let more = octets.len() as u64;
            file.done == 0 && rules.is_due(file.size, file.opened_wall_us, wall_us, more)
        });
        if due {
            self.rotate(log, wall_us)?;
        }
        let file = self.slot(log).as_mut().expect("opened above");
        while let Some(rest) = octets.get(file.done..).filter(|rest| !rest.is_empty()) {
            match file.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    file.done += n;
                    file.size += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        file.done = 0;
        Ok(())
    }

    fn slot(&mut self, log: Log) -> &mut Option<LogFile> {
        match log {
            Log::Main => &mut self.main,
            Log::Reject => &mut self.reject,
        }
    }

    fn rotate(&mut self, log: Log, wall_us: u64) -> io::Result<()> {
        let open = self.dir.join(open_name(log));
        // Behind the last of this second, so that names sort by time.
        let path = |n| self.dir.join(closed_name(log, wall_us, n));
        let next = (0..1_000).rev().find(|n| path(*n).exists()).map_or(0, |last| last + 1);
        if next == 1_000 {
            return Ok(());
        }
        match fs::rename(&open, path(next)) {
            // Somebody else has moved it away: there is nothing to close.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        *self.slot(log) = Some(open_file(&open, wall_us)?);
        self.delete_surplus();
        Ok(())
    }

    /// Deletes old files; one that cannot be deleted is tried again at the next rotation.
    fn delete_surplus(&mut self) {
        // An open file counts as it will be when it is closed.
        let open = self.rules.size_max.saturating_mul(2);
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let closed: Vec<(String, u64)> = entries
            .filter_map(|entry| {
                let meta = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some((entry.file_name().into_string().ok()?, meta.len()))
            })
            .collect();
        for name in self.rules.surplus(&closed, open) {
            let _ = fs::remove_file(self.dir.join(name));
        }
    }
}

/// Opens a file at its end; its age counts from when it was made, where the file system knows.
fn open_file(path: &Path, wall_us: u64) -> io::Result<LogFile> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let meta = file.metadata()?;
    let made = meta.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let made_us = made.and_then(|since| u64::try_from(since.as_micros()).ok());
    let opened_wall_us = if meta.len() == 0 { wall_us } else { made_us.unwrap_or(wall_us) };
    Ok(LogFile { file, size: meta.len(), opened_wall_us, done: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that goes away with its name.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("ringpost-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            Self(dir)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap().flatten();
            let mut names: Vec<_> =
                entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const T: u64 = 1_785_414_896_000_000;
    const RULES: Rules = Rules { size_max: 100, age_us_max: u64::MAX, total_max: 450 };

    #[test]
    fn files_are_closed_by_size_and_deleted_by_total() {
        let dir = Dir::new("rotate");
        let mut files = LogFiles::open(&dir.0, RULES, T).unwrap();
        for n in 0..10 {
            files.write(Log::Main, &[b'a' + n; 60], T).unwrap();
        }
        let names = dir.names();
        // 100 for each open file, 60 for each closed: four of those fit in 450.
        assert_eq!(
            names,
            [
                "mainlog",
                "mainlog.20260730T123456Z-005",
                "mainlog.20260730T123456Z-006",
                "mainlog.20260730T123456Z-007",
                "mainlog.20260730T123456Z-008",
                "rejectlog"
            ]
        );
        assert_eq!(fs::read(dir.0.join("mainlog")).unwrap(), [b'j'; 60]);
        assert_eq!(fs::read(dir.0.join(&names[4])).unwrap(), [b'i'; 60]);
    }

    #[test]
    fn a_restart_goes_on_behind_what_is_there() {
        let dir = Dir::new("restart");
        for n in 0..3 {
            let mut files = LogFiles::open(&dir.0, RULES, T + n).unwrap();
            files.write(Log::Reject, b"line\n", T + n).unwrap();
        }
        assert_eq!(fs::read(dir.0.join("rejectlog")).unwrap(), b"line\nline\nline\n");
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_again() {
        let dir = Dir::new("moved");
        let mut files = LogFiles::open(&dir.0, RULES, T).unwrap();
        files.write(Log::Main, b"one\n", T).unwrap();
        fs::rename(dir.0.join("mainlog"), dir.0.join("mine")).unwrap();
        files.reopen(T).unwrap();
        files.write(Log::Main, b"two\n", T).unwrap();
        assert_eq!(fs::read(dir.0.join("mine")).unwrap(), b"one\n");
        assert_eq!(fs::read(dir.0.join("mainlog")).unwrap(), b"two\n");
    }

    #[test]
    fn a_full_device_is_an_error_and_the_chunk_goes_on_later() {
        let dir = Dir::new("full");
        let mut files = LogFiles::open(&dir.0, RULES, T).unwrap();
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let good = std::mem::replace(&mut files.main.as_mut().unwrap().file, full);
        assert!(files.write(Log::Main, b"0123456789\n", T).is_err());
        // As if four octets had found room before the device was full.
        files.main.as_mut().unwrap().done = 4;
        files.main.as_mut().unwrap().file = good;
        files.write(Log::Main, b"0123456789\n", T).unwrap();
        files.write(Log::Main, b"next\n", T).unwrap();
        assert_eq!(fs::read(dir.0.join("mainlog")).unwrap(), b"456789\nnext\n");
    }
}
