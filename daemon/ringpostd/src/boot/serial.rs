//! The serial number by which an operator names a block device: the one on its label.
//!
//! *Guarantees*: a partition has the number of its disk with `-part` and its own number, as in
//! `/dev/disk/by-id`; a loop device has the path of its file; a mapped device or array its uuid.
//!
//! *Failure*: a device that says none has none, and cannot be named.

use std::fs;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files below the device's folder in sysfs that hold a number, the first that does counts.
const FILES: [&str; 6] =
    ["serial", "device/serial", "loop/backing_file", "dm/uuid", "md/uuid", "wwid"];

/// Of the device at that path.
pub(super) fn of(path: &Path) -> Option<String> {
    let number = fs::metadata(path).ok()?.st_rdev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let folder = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    in_folder(&folder).or_else(|| udev(major, minor))
}

fn in_folder(folder: &Path) -> Option<String> {
    if let Some(part) = text(&folder.join("partition")) {
        let disk = in_folder(folder.parent()?)?;
        return Some(format!("{disk}-part{part}"));
    }
    FILES.iter().find_map(|name| text(&folder.join(name))).or_else(|| page(folder))
}

fn text(path: &PathBuf) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim_matches(|char: char| char.is_whitespace() || char == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// SCSI and SATA: vital product data, page 80 (SPC-5, 7.7.18): four octets, then the number.
fn page(folder: &Path) -> Option<String> {
    let octets = fs::read(folder.join("device/vpd_pg80")).ok()?;
    let text = String::from_utf8_lossy(octets.get(4..)?).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// What udev found out by asking the device.
fn udev(major: u64, minor: u64) -> Option<String> {
    let known = fs::read_to_string(format!("/run/udev/data/b{major}:{minor}")).ok()?;
    let line = known.lines().find_map(|line| line.strip_prefix("E:ID_SERIAL_SHORT="))?;
    Some(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_a_partition_and_a_scsi_disk_have_their_numbers() {
        let top = std::env::temp_dir().join(format!("serial-{}", std::process::id()));
        let _ = fs::remove_dir_all(&top);
        fs::create_dir_all(top.join("vda/vda2")).unwrap();
        fs::create_dir_all(top.join("sda/device")).unwrap();
        fs::write(top.join("vda/serial"), "  WD-42\0\n").unwrap();
        fs::write(top.join("vda/vda2/partition"), "2\n").unwrap();
        fs::write(top.join("sda/device/vpd_pg80"), b"\0\x80\0\x08 Z1D2E3F4 ").unwrap();
        assert_eq!(in_folder(&top.join("vda")).as_deref(), Some("WD-42"));
        assert_eq!(in_folder(&top.join("vda/vda2")).as_deref(), Some("WD-42-part2"));
        assert_eq!(in_folder(&top.join("sda")).as_deref(), Some("Z1D2E3F4"));
        assert_eq!(in_folder(&top), None);
        fs::remove_dir_all(&top).unwrap();
    }
}
