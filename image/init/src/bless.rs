//! The version under trial becomes the good one: its file on the ESP loses its counters.
//!
//! *Guarantees*: only the running version's own file is renamed (`efi::under_trial`), and a power
//! cut leaves the old name or the new one, whole: FAT's rename writes the new entry without its
//! content, so the file itself is synced after the rename, then the folder.
//! *Failure*: what the ESP says; the version stays under trial.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::{disks, efi, mounts};

const ESP: &str = "/run/esp";

/// The running version's file under trial and its blessed name, if it is under trial.
pub(crate) fn pending(own_version: &str) -> Option<(PathBuf, PathBuf)> {
    let counted = efi::loader("LoaderBootCountPath");
    let selected = efi::loader("LoaderEntrySelected");
    efi::under_trial(own_version, counted.as_deref(), selected.as_deref())
}

/// Blesses it.
///
/// # Errors
/// The ESP's.
pub(crate) fn bless(disk: &str, (from, to): &(PathBuf, PathBuf)) -> Result<(), String> {
    let esp = disks::part(disk, disks::ESP).ok_or("the ESP is not there")?;
    mounts::esp(&esp.device(), ESP)?;
    let renamed = rename(Path::new(ESP), from, to);
    let detached = mounts::detach(ESP);
    renamed.map_err(|error| format!("{}: {error}", from.display()))?;
    detached
}

fn rename(esp: &Path, from: &Path, to: &Path) -> std::io::Result<()> {
    let (from, to) = (esp.join(from), esp.join(to));
    fs::rename(&from, &to)?;
    // The order matters: see the head of this file.
    File::open(&to)?.sync_all()?;
    let folder = to.parent().unwrap_or(esp);
    File::open(folder)?.sync_all()
}
