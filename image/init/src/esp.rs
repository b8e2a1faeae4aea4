//! The versions on the ESP: one is added whole or not at all, old ones make room.
//!
//! *Guarantees*: a file bears a name that systemd-boot looks at only when all of it is on the disk
//! and was read back. FAT's rename writes the new entry without its content, so the file itself is
//! synced after the rename, then the folder. The running version is never touched.
//! *Failure*: the ESP's; what was begun is taken away, by the next upgrade at the latest.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::limits::{ESP_SPARE_BYTES, VERSIONS_MAX};
use crate::version::compare;
use crate::{disks, efi, mounts};

const PLACE: &str = "/run/esp";
/// Where versions lie on it.
const FOLDER: &str = "EFI/Linux";
/// How a file ends that is being written: nothing that systemd-boot would start.
const UNDER_WAY: &str = ".new";

type Outcome<T = ()> = Result<T, String>;

/// Does something with the mounted ESP of a disk.
///
/// # Errors
/// The mount's, or what was done says.
pub(crate) fn with<T>(disk: &str, act: impl FnOnce(&Path) -> Outcome<T>) -> Outcome<T> {
    let esp = disks::part(disk, disks::ESP).ok_or("the ESP is not there")?;
    mounts::esp(&esp.device(), PLACE)?;
    let done = act(Path::new(PLACE));
    let detached = mounts::detach(PLACE);
    let done = done?;
    detached.map(|()| done)
}

/// Renames so that a power cut leaves the old name or the new one, whole.
///
/// # Errors
/// The file system's.
pub(crate) fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::rename(from, to)?;
    // The order matters: see the head of this file.
    File::open(to)?.sync_all()?;
    File::open(to.parent().unwrap_or(to))?.sync_all()
}

/// Adds a version that may be tried so many times. `running` stays whatever happens.
///
/// # Errors
/// No room, or the disk does not keep what was written.
pub(crate) fn install(
    esp: &Path,
    running: &str,
    version: &str,
    tries: u32,
    content: &[u8],
) -> Outcome {
    let folder = esp.join(FOLDER);
    make_room(&folder, running, version, content.len() as u64)?;
    let fresh = folder.join(format!("ringpost_{version}{UNDER_WAY}"));
    let fail = |error: std::io::Error| format!("{}: {error}", fresh.display());
    let written = write(&fresh, content).map_err(fail);
    if let Err(why) = written {
        let _ = fs::remove_file(&fresh);
        return Err(why);
    }
    let to = folder.join(format!("ringpost_{version}+{tries}.efi"));
    rename(&fresh, &to).map_err(|error| format!("{}: {error}", to.display()))
}

fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    // Read back from the disk, not from memory.
    let mut file = File::open(path)?;
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let mut back = Vec::with_capacity(content.len());
    file.read_to_end(&mut back)?;
    if back == content {
        return Ok(());
    }
    Err(std::io::Error::other("reads back otherwise than it was written: the disk is bad"))
}

/// A version's file: name, version, whether its count is used up.
type Entry = (PathBuf, String, bool);

/// The versions that lie there, oldest first.
fn entries(folder: &Path) -> Outcome<Vec<Entry>> {
    let fail = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if let Some((version, spent)) = efi::version_of(&name) {
            all.push((entry.path(), version.to_owned(), spent));
        }
    }
    all.sort_by(|a, b| compare(&a.1, &b.1));
    Ok(all)
}

/// Takes away what is not needed: what was left half written, earlier files of the same version,
/// versions that failed, then the oldest beyond `VERSIONS_MAX` or what room asks for.
fn make_room(folder: &Path, running: &str, version: &str, bytes: u64) -> Outcome {
    let remove =
        |path: &Path| fs::remove_file(path).map_err(|error| format!("{}: {error}", path.display()));
    let listed = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for entry in listed.flatten() {
        if entry.file_name().to_string_lossy().ends_with(UNDER_WAY) {
            remove(&entry.path())?;
        }
    }
    let mut kept = Vec::new();
    for (path, found, spent) in entries(folder)? {
        if found != running && (found == version || spent) {
            remove(&path)?;
        } else if found != running {
            kept.push(path);
        }
    }
    // The running one and the new one count too.
    while kept.len() + 2 > VERSIONS_MAX {
        remove(&kept.remove(0))?;
    }
    let free = nix::sys::statvfs::statvfs(folder).map_err(|e| e.to_string())?;
    let free = free.blocks_available() * free.fragment_size();
    if free < bytes + ESP_SPARE_BYTES {
        return Err(format!("the ESP has {} MiB left, {} are needed", free >> 20, bytes >> 20));
    }
    Ok(())
}

/// Takes away every version newer than this one: it was asked for and has shown that it works.
///
/// # Errors
/// The file system's.
pub(crate) fn drop_newer(esp: &Path, version: &str) -> Outcome {
    for (path, found, _) in entries(&esp.join(FOLDER))? {
        if compare(&found, version).is_gt() {
            fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn esp(name: &str, files: &[&str]) -> PathBuf {
        let esp = std::env::temp_dir().join(format!("init-esp-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&esp);
        fs::create_dir_all(esp.join(FOLDER)).unwrap();
        for file in files {
            fs::write(esp.join(FOLDER).join(file), file).unwrap();
        }
        esp
    }

    fn names(esp: &Path) -> Vec<String> {
        let all = fs::read_dir(esp.join(FOLDER)).unwrap().flatten();
        let mut all: Vec<_> = all.map(|e| e.file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    #[test]
    fn a_version_is_added_and_old_ones_make_room() {
        let files = [
            "ringpost_1.0.0.efi",
            "ringpost_1.1.0.efi",
            "ringpost_1.2.0+0-3.efi",
            "ringpost_1.3.0.new",
            "ringpost_1.3.0+2-1.efi",
            "other.efi",
        ];
        let esp = esp("room", &files);
        install(&esp, "1.1.0", "1.3.0", 3, b"new").unwrap();
        let expected =
            ["other.efi", "ringpost_1.0.0.efi", "ringpost_1.1.0.efi", "ringpost_1.3.0+3.efi"];
        assert_eq!(names(&esp), expected);
        install(&esp, "1.1.0", "1.4.0", 3, b"newer").unwrap();
        let expected =
            ["other.efi", "ringpost_1.1.0.efi", "ringpost_1.3.0+3.efi", "ringpost_1.4.0+3.efi"];
        assert_eq!(names(&esp), expected);
        drop_newer(&esp, "1.1.0").unwrap();
        assert_eq!(names(&esp), ["other.efi", "ringpost_1.1.0.efi"]);
        fs::remove_dir_all(&esp).unwrap();
    }
}
