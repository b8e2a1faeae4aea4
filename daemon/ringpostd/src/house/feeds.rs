//! The files of `[[list]]`: read at start, looked at each second, read again when they changed.
//!
//! *Guarantees*: a file that cannot be read or is wrong leaves the list it held before in force. A
//! file is read when it has not changed for a second: writers may take their time.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::config::Config;
use crate::xdp::{Fuse, List, Lists, Loaded};

/// Octets of one file.
const OCTETS_MAX: u64 = 512 << 20;

/// What tells one state of a file from another.
type Stamp = Option<(i64, i64, u64, u64)>;

/// The files of one config.
#[derive(Debug, Clone, Default)]
pub struct Feeds {
    /// What they hold.
    pub loaded: Loaded,
    stamps: Vec<Stamp>,
    seen: Vec<Stamp>,
}

/// What was read before anybody is heard.
#[derive(Debug)]
pub struct Listed {
    /// The files.
    pub feeds: Feeds,
    /// The same, as the cores have them.
    pub lists: Arc<Lists>,
    /// What is wrong with them, one line each.
    pub problems: Vec<String>,
    /// The bound on bans, which cores and house share.
    pub fuse: Arc<Fuse>,
}

fn stamp(path: &Path) -> Stamp {
    let about = fs::metadata(path).ok()?;
    Some((about.mtime(), about.mtime_nsec(), about.len(), about.ino()))
}

fn stamps(config: &Config) -> Vec<Stamp> {
    config.lists.iter().map(|list| stamp(&list.file)).collect()
}

fn read(config: &crate::config::ListConfig, wall_s: u64) -> Result<List, String> {
    let mut octets = Vec::new();
    let file = File::open(&config.file).map_err(|error| error.to_string())?;
    file.take(OCTETS_MAX + 1).read_to_end(&mut octets).map_err(|error| error.to_string())?;
    if octets.len() as u64 > OCTETS_MAX {
        return Err(format!("longer than {OCTETS_MAX} octets"));
    }
    List::read(config, &octets, wall_s)
}

impl Feeds {
    /// Reads what is new or has changed. Blocks on files. What is wrong is one line each.
    #[must_use]
    pub fn load(config: &Config, old: &Self, wall_s: u64) -> (Self, Vec<String>) {
        let stamps = stamps(config);
        let mut problems = Vec::new();
        let mut lists = Vec::with_capacity(config.lists.len());
        for (list, stamp) in config.lists.iter().zip(&stamps) {
            let before =
                old.loaded.lists.iter().flatten().find(|old| old.config().name == list.name);
            let same = before.filter(|before| before.config() == list);
            let place = old.loaded.lists.iter().position(|l| {
                l.as_ref().is_some_and(|l| same.is_some_and(|same| Arc::ptr_eq(l, same)))
            });
            if let (Some(same), Some(place)) = (same, place)
                && stamp.is_some()
                && old.stamps.get(place) == Some(stamp)
            {
                lists.push(Some(Arc::clone(same)));
                continue;
            }
            match read(list, wall_s) {
                Ok(list) => lists.push(Some(Arc::new(list))),
                Err(why) => {
                    let kept =
                        if before.is_some() { "; the one before stays in force" } else { "" };
                    let (name, file) = (list.name.as_str(), list.file.display());
                    problems.push(format!("list {name} ({file}): {why}{kept}"));
                    lists.push(before.cloned());
                }
            }
        }
        (Self { loaded: Loaded { lists }, seen: stamps.clone(), stamps }, problems)
    }

    /// Whether a file has changed, and has not gone on changing since the last look.
    pub fn is_due(&mut self, config: &Config) -> bool {
        let now = stamps(config);
        let settled = self.seen == now;
        self.seen = now;
        settled && self.seen != self.stamps
    }
}
