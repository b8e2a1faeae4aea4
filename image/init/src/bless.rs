//! The version under trial becomes the good one: its file on the ESP loses its counters.
//!
//! *Guarantees*: only the running version's own file is renamed (`efi::under_trial`), and a power
//! cut leaves the old name or the new one, whole (`esp::rename`).
//! *Failure*: what the ESP says; the version stays under trial.

use std::path::PathBuf;

use crate::{efi, esp};

/// The running version's file under trial and its blessed name, if it is under trial.
pub(crate) fn pending(own_version: &str) -> Option<(PathBuf, PathBuf)> {
    let counted = efi::loader("LoaderBootCountPath");
    let selected = efi::loader("LoaderEntrySelected");
    efi::under_trial(own_version, counted.as_deref(), selected.as_deref())
}

/// Blesses it. What is newer was left on purpose, or it would run.
///
/// # Errors
/// The ESP's.
pub(crate) fn bless(
    disk: &str,
    own_version: &str,
    (from, to): &(PathBuf, PathBuf),
) -> Result<(), String> {
    esp::with(disk, |esp| {
        let renamed = esp::rename(&esp.join(from), &esp.join(to));
        renamed.map_err(|error| format!("{}: {error}", from.display()))?;
        esp::drop_newer(esp, own_version)
    })
}
