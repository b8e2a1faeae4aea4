//! Block devices as sysfs tells them: which disk is ours, which are blank.
//!
//! *Guarantees*: the own disk is the one the firmware started from; without that word it is the
//! only one with our partitions, and with two such disks none.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use gptman::GPT;

use crate::efi;

const CLASS: &str = "/sys/class/block";

/// Name of the partition every disk of ours begins with.
pub(crate) const ESP: &str = "ringpost-esp";
/// Name of the config seed's partition.
pub(crate) const SEED: &str = "ringpost-config";
/// Name of the state partition.
pub(crate) const STATE: &str = "ringpost-state";
/// Name of spool partitions.
pub(crate) const SPOOL: &str = "ringpost-spool";

/// A disk or a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Its name in the kernel, like `nvme0n1p2`.
    pub(crate) name: String,
    /// Its partition's name in the GPT.
    pub(crate) label: Option<String>,
    /// Its number in the GPT.
    pub(crate) number: Option<u32>,
    /// Its partition's GUID, where somebody asked: Linux 6.12 does not tell it in uevents.
    pub(crate) guid: Option<String>,
    /// The disk it is a part of.
    pub(crate) disk: Option<String>,
}

impl Block {
    /// Its device node.
    pub(crate) fn device(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }
}

/// Everything that is there now, by name.
pub(crate) fn list() -> Vec<Block> {
    let Ok(entries) = fs::read_dir(CLASS) else { return Vec::new() };
    let mut all: Vec<Block> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let place = fs::canonicalize(entry.path()).ok()?;
            let said = fs::read_to_string(place.join("uevent")).ok()?;
            let parent = place.parent()?.file_name()?.to_str()?.to_owned();
            Some(block(name, &said, parent))
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn block(name: String, uevent: &str, parent: String) -> Block {
    let said: BTreeMap<&str, &str> = uevent.lines().filter_map(|l| l.split_once('=')).collect();
    let text = |key: &str| said.get(key).map(|value| (*value).to_owned());
    let is_part = said.get("DEVTYPE") == Some(&"partition");
    let number = said.get("PARTN").and_then(|text| text.parse().ok());
    let disk = is_part.then_some(parent);
    Block { name, label: text("PARTNAME"), number, guid: None, disk }
}

/// Where PID 1 leaves the own disk's name: the first start gives its partitions other GUIDs than
/// the firmware saw, and who asks later would not find it by them.
const REMEMBERED: &str = "/run/own-disk";

/// From now on this is the own disk, whatever its table says.
///
/// # Errors
/// No room below /run.
pub(crate) fn remember_own(disk: &str) -> Result<(), String> {
    fs::write(REMEMBERED, disk).map_err(|error| format!("{REMEMBERED}: {error}"))
}

/// The disk we were started from.
///
/// # Errors
/// None, or more than one, and what to do.
pub(crate) fn own() -> Result<String, String> {
    if let Ok(disk) = fs::read_to_string(REMEMBERED) {
        return Ok(disk);
    }
    let mut all = list();
    for block in all.iter_mut().filter(|b| b.label.as_deref() == Some(ESP)) {
        block.guid = guid(block);
    }
    find_own(&all, efi::loader("LoaderDevicePartUUID").as_deref())
}

/// A partition's GUID, read from its disk's table.
fn guid(block: &Block) -> Option<String> {
    let (disk, number) = (block.disk.as_ref()?, block.number?);
    let mut file = File::open(Path::new("/dev").join(disk)).ok()?;
    let table = GPT::find_from(&mut file).ok()?;
    let (_, entry) = table.iter().find(|(n, _)| *n == number)?;
    Some(guid_text(&entry.unique_partition_guid))
}

/// As everybody writes it: the first three parts stand turned round on the disk.
fn guid_text(bytes: &[u8; 16]) -> String {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::new();
    for (n, at) in ORDER.into_iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text += &format!("{:02x}", bytes[at]);
    }
    text
}

fn find_own(all: &[Block], started_from: Option<&str>) -> Result<String, String> {
    if let Some(guid) = started_from {
        let same = |b: &&Block| b.guid.as_deref().is_some_and(|g| g.eq_ignore_ascii_case(guid));
        let mut found = all.iter().filter(same).filter_map(|b| b.disk.clone());
        return match (found.next(), found.next()) {
            (Some(disk), None) => Ok(disk),
            (None, _) => Err(format!("the disk we were started from ({guid}) is not there")),
            (Some(a), Some(b)) => Err(format!(
                "{a} and {b} are copies of one image: start with one of them, once, alone"
            )),
        };
    }
    let ours = |b: &&Block| b.label.as_deref() == Some(SEED);
    let mut found = all.iter().filter(ours).filter_map(|b| b.disk.clone());
    match (found.next(), found.next()) {
        (Some(disk), None) => Ok(disk),
        (None, _) => Err(format!("no disk has a partition {SEED}")),
        (Some(a), Some(b)) => Err(format!(
            "{a} and {b} both have a partition {SEED}, and the firmware does not say which is ours"
        )),
    }
}

/// The partition of that name on that disk.
pub(crate) fn part(disk: &str, label: &str) -> Option<Block> {
    let fits = |b: &Block| b.disk.as_deref() == Some(disk) && b.label.as_deref() == Some(label);
    list().into_iter().find(fits)
}

/// All drives.
pub(crate) fn all() -> Vec<Block> {
    list().into_iter().filter(|b| b.disk.is_none() && is_drive(&b.name)).collect()
}

/// Disks other than the own one that are real: no partitions, RAM disks, optical drives.
pub(crate) fn others(own: &str) -> Vec<Block> {
    let real = |b: &Block| {
        let stick = flag(&b.name, "removable");
        b.disk.is_none() && b.name != own && is_drive(&b.name) && !stick
    };
    list().into_iter().filter(real).collect()
}

/// Whether a name is that of a drive; `nvme0c0n1` is a way to one, not another.
fn is_drive(name: &str) -> bool {
    match name.strip_prefix("nvme") {
        Some(rest) => !rest.contains('c'),
        None => name.starts_with("sd") || name.starts_with("vd"),
    }
}

fn flag(disk: &str, name: &str) -> bool {
    fs::read_to_string(format!("{CLASS}/{disk}/{name}")).is_ok_and(|text| text.trim() == "1")
}

/// A disk's serial number, as its maker wrote it.
pub(crate) fn serial(disk: &str) -> Option<String> {
    let places = ["serial", "device/serial", "device/wwid"];
    let read = |place: &&str| fs::read_to_string(format!("{CLASS}/{disk}/{place}")).ok();
    let text = places.iter().find_map(read)?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Whether a disk holds nothing: no partitions, and zeros at its start and end.
///
/// # Errors
/// It cannot be read: then it is not taken for blank.
pub(crate) fn is_blank(disk: &Block) -> io::Result<bool> {
    const LOOK: u64 = 1 << 20;
    if list().iter().any(|b| b.disk.as_deref() == Some(&disk.name)) {
        return Ok(false);
    }
    let mut file = File::open(disk.device())?;
    let bytes = file.seek(SeekFrom::End(0))?;
    for start in [0, bytes.saturating_sub(LOOK)] {
        file.seek(SeekFrom::Start(start))?;
        let mut buffer = Vec::new();
        (&mut file).take(LOOK).read_to_end(&mut buffer)?;
        if buffer.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(disk: &str, guid: &str) -> Block {
        Block {
            name: format!("{disk}p2"),
            label: Some(SEED.to_owned()),
            number: Some(2),
            guid: Some(guid.to_owned()),
            disk: Some(disk.to_owned()),
        }
    }

    #[test]
    fn uevents_are_read() {
        let said = "MAJOR=259\nDEVTYPE=partition\nPARTN=2\nPARTNAME=x\n";
        let found = block("nvme0n1p2".into(), said, "nvme0n1".into());
        assert_eq!(found.label.as_deref(), Some("x"));
        assert_eq!(found.number, Some(2));
        assert_eq!(found.disk.as_deref(), Some("nvme0n1"));
        assert_eq!(block("vda".into(), "DEVTYPE=disk\n", "block".into()).disk, None);
    }

    #[test]
    fn guids_are_written_as_the_firmware_writes_them() {
        let esp = *b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b";
        assert_eq!(guid_text(&esp), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
    }

    #[test]
    fn drives_are_known_by_their_names() {
        for name in ["sda", "sdc", "vdc", "nvme0n1", "nvme12n1"] {
            assert!(is_drive(name), "{name}");
        }
        for name in ["nvme0c0n1", "ram0", "sr0", "md0", "loop0"] {
            assert!(!is_drive(name), "{name}");
        }
    }

    #[test]
    fn two_disks_of_ours_are_not_guessed_between() {
        let two = [seed("vda", "a"), seed("vdb", "b")];
        assert_eq!(find_own(&two, Some("B")), Ok("vdb".to_owned()));
        assert!(find_own(&two, None).unwrap_err().contains("vda and vdb"));
        assert!(find_own(&two, Some("c")).unwrap_err().contains("is not there"));
        assert_eq!(find_own(&two[..1], None), Ok("vda".to_owned()));
        let copies = [seed("vda", "a"), seed("vdb", "a")];
        assert!(find_own(&copies, Some("a")).unwrap_err().contains("copies"));
        assert!(find_own(&[], None).is_err());
    }
}
