//! md and XFS below the spool, for those who choose them (`[spool]` in `machine.toml`).
//!
//! *Guarantees*: what holds anything is never made anew: an array is created from partitions that
//! begin with zeros, a file system on a device that does. An array that lacks a member starts with
//! the others.
//! *Failure*: which device, and what the program said; the machine goes to maintenance.
//! *Not here*: the mirror of the daemon's own, which needs neither.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use crate::limits::{CLEAR_BYTES, DAEMON_ID};
use crate::say::{say, warn};
use crate::{helper, mounts};

/// The one array there is.
pub(crate) const DEVICE: &str = "/dev/md0";
/// Where the file system is mounted: a place for `mx.toml`.
pub(crate) const FOLDER: &str = "/spool";
const MDADM: &str = "/bin/mdadm";

type Outcome<T = ()> = Result<T, String>;

fn text(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| "a device without a name".to_owned())
}

/// Whether a device begins with zeros, as a new partition of ours does.
fn is_blank(device: &Path) -> Outcome<bool> {
    let fail = |error: std::io::Error| format!("{}: {error}", device.display());
    let mut file = File::open(device).map_err(fail)?;
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..CLEAR_BYTES >> 20 {
        let length = file.read(&mut buffer).map_err(fail)?;
        if buffer[..length].iter().any(|octet| *octet != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a partition is to the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    /// It bears a superblock of md.
    Known,
    Blank,
    /// It holds something else.
    Alien,
}

fn member(device: &Path) -> Outcome<Member> {
    if helper::run(MDADM, &["--examine", text(device)?]).is_ok() {
        return Ok(Member::Known);
    }
    Ok(if is_blank(device)? { Member::Blank } else { Member::Alien })
}

/// What is done with members as they are; the list of those that take part.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// Nothing of it exists.
    Create,
    /// These start it; the blank ones are taken in again.
    Assemble,
}

fn plan(found: &[(PathBuf, Member)]) -> Outcome<Plan> {
    if found.iter().any(|(_, member)| *member == Member::Known) {
        return Ok(Plan::Assemble);
    }
    if let Some((alien, _)) = found.iter().find(|(_, member)| *member == Member::Alien) {
        return Err(format!("{} holds something and is no member of an array", alien.display()));
    }
    if found.len() < 2 {
        return Err("an array is made of two partitions at least".to_owned());
    }
    Ok(Plan::Create)
}

/// Starts the array of these partitions, or makes it.
///
/// # Errors
/// See the module.
pub(crate) fn assemble(partitions: &[PathBuf]) -> Outcome<PathBuf> {
    fs::create_dir_all("/run/mdadm").map_err(|error| format!("/run/mdadm: {error}"))?;
    let found = partitions.iter().map(|device| Ok((device.clone(), member(device)?)));
    let found = found.collect::<Outcome<Vec<_>>>()?;
    let of = |wanted: Member| -> Outcome<Vec<&str>> {
        let those = found.iter().filter(|(_, member)| *member == wanted);
        those.map(|(device, _)| text(device)).collect()
    };
    match plan(&found)? {
        Plan::Create => {
            let devices = of(Member::Blank)?;
            let count = format!("--raid-devices={}", devices.len());
            let words = [
                "--create",
                DEVICE,
                "--level=1",
                &count,
                "--metadata=1.2",
                "--bitmap=internal",
                "--homehost=any",
                "--name=spool",
                "--run",
            ];
            helper::run(MDADM, &[&words[..], &devices].concat())?;
            clear(Path::new(DEVICE))?;
            say(&format_args!("spool: {DEVICE} is made of {}", devices.join(" ")));
        }
        Plan::Assemble => {
            let known = of(Member::Known)?;
            helper::run(MDADM, &[&["--assemble", DEVICE, "--run"][..], &known].concat())?;
            for blank in of(Member::Blank)? {
                match helper::run(MDADM, &[DEVICE, "--add", blank]) {
                    Ok(()) => say(&format_args!("spool: {blank} is taken into {DEVICE}")),
                    Err(why) => warn(&format_args!("{blank}: {why}")),
                }
            }
            for (alien, _) in found.iter().filter(|(_, member)| *member == Member::Alien) {
                warn(&format_args!("{}: holds something, left alone", alien.display()));
            }
        }
    }
    say(&format_args!("spool: {DEVICE}: {} member(s) missing", missing().unwrap_or_default()));
    Ok(DEVICE.into())
}

/// A new array: what its members held must not be taken for a file system.
fn clear(device: &Path) -> Outcome {
    let fail = |error: std::io::Error| format!("{}: {error}", device.display());
    let mut file = File::options().write(true).open(device).map_err(fail)?;
    file.seek(SeekFrom::Start(0)).map_err(fail)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..CLEAR_BYTES >> 20 {
        file.write_all(&zeros).map_err(fail)?;
    }
    file.sync_all().map_err(fail)
}

/// How many members the array lacks; nothing if there is no array.
pub(crate) fn missing() -> Option<u32> {
    fs::read_to_string("/sys/block/md0/md/degraded").ok()?.trim().parse().ok()
}

/// A file system of the daemon's on this device, mounted.
///
/// # Errors
/// See the module.
pub(crate) fn file_system(device: &Path) -> Outcome {
    if let Err(why) = mounts::spool(device, FOLDER) {
        if !is_blank(device)? {
            return Err(format!("{why}; it holds something else and is left alone"));
        }
        say(&format_args!("spool: a new XFS on {}", device.display()));
        helper::run("/bin/mkfs.xfs", &["-q", "-L", "spool", text(device)?])?;
        mounts::spool(device, FOLDER)?;
    }
    chown(FOLDER, Some(DAEMON_ID), Some(DAEMON_ID)).map_err(|error| format!("{FOLDER}: {error}"))
}

/// The ordered end of both; nothing if there is neither.
pub(crate) fn end() {
    if mounts::is_mounted(FOLDER)
        && let Err(why) = mounts::detach(FOLDER)
    {
        warn(&why);
    }
    if missing().is_some()
        && let Err(why) = helper::run(MDADM, &["--stop", DEVICE])
    {
        warn(&format_args!("{DEVICE}: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blank_partitions_become_an_array() {
        let of = |members: &[Member]| {
            let found = members.iter().map(|member| ("/dev/x".into(), *member));
            plan(&found.collect::<Vec<_>>())
        };
        use Member::{Alien, Blank, Known};
        assert_eq!(of(&[Blank, Blank]), Ok(Plan::Create));
        assert_eq!(of(&[Known, Known]), Ok(Plan::Assemble));
        assert_eq!(of(&[Known, Blank]), Ok(Plan::Assemble), "one was replaced");
        assert_eq!(of(&[Known]), Ok(Plan::Assemble), "one is gone");
        assert_eq!(of(&[Known, Alien]), Ok(Plan::Assemble), "the other is left alone");
        assert!(of(&[Blank, Alien]).unwrap_err().contains("holds something"));
        assert!(of(&[Alien, Alien]).is_err());
        assert!(of(&[Blank]).is_err());
        assert!(of(&[]).is_err());
    }

    #[test]
    fn a_device_is_blank_as_far_as_a_new_one_is_cleared() {
        let path = std::env::temp_dir().join(format!("init-array-{}", std::process::id()));
        fs::write(&path, vec![0; 100_000]).unwrap();
        assert_eq!(is_blank(&path), Ok(true));
        let mut octets = vec![0; 100_000];
        octets[99_999] = 1;
        fs::write(&path, octets).unwrap();
        assert_eq!(is_blank(&path), Ok(false));
        fs::remove_file(&path).unwrap();
        assert!(is_blank(&path).is_err());
    }
}
