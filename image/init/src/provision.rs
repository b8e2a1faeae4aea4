//! First boot: the flashed image becomes this machine's disk.
//!
//! The image brings the ESP and the config seed. Here the table is stretched to the disk's end,
//! all GUIDs are made unique, and state and spool are added; a blank further disk becomes one spool
//! partition.
//!
//! *Guarantees*: a partition of ours that exists is never made again; a disk with anything on it
//! is touched only if its serial number is in `spool_disks`. A power cut on the way is made good by
//! the next start: state bears its name only when its file system is whole.
//! *Failure*: which disk, and what is missing; nothing is changed then.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use gptman::{GPT, GPTPartitionEntry};

use crate::disks::{self, Block};
use crate::helper;
use crate::limits::{CLEAR_BYTES, SPOOL_BYTES_MIN, STATE_BYTES, STATE_BYTES_MIN};
use crate::say::{say, warn};

type Outcome<T = ()> = Result<T, String>;

/// Linux file system data.
const DATA: [u8; 16] =
    guid(0x0FC6_3DAF, 0x8483, 0x4772, [0x8E, 0x79, 0x3D, 0x69, 0xD8, 0x47, 0x7D, 0xE4]);
/// A log of Ringpost's: a type of our own, so that no other system takes it for its own.
const SPOOL_TYPE: [u8; 16] =
    guid(0x52A1_6B05, 0x7C1E, 0x4B6E, [0x9A, 0x3D, 0x52, 0x69, 0x6E, 0x67, 0x50, 0x6F]);
/// What state is called until its file system is whole.
const STATE_NEW: &str = "ringpost-state-new";

/// A GUID as it stands on the disk: the first three parts turned round.
const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// Makes what is missing on the own disk.
///
/// # Errors
/// See the head of this file.
pub(crate) fn own(disk: &str) -> Outcome {
    if disks::part(disk, disks::STATE).is_some() {
        return Ok(());
    }
    if disks::part(disk, STATE_NEW).is_none() {
        say(&format_args!("first start: making state and spool on {disk}"));
        stretch(disk)?;
    }
    let part = disks::part(disk, STATE_NEW).ok_or("the new partitions do not appear")?;
    helper::run("/bin/mkfs.xfs", &["-q", "-f", "-L", "ringpost", text(&part.device())?])?;
    let mut table = Table::open(disk)?;
    for (_, entry) in table.gpt.iter_mut() {
        if entry.partition_name.as_str() == STATE_NEW {
            entry.partition_name = disks::STATE.into();
        }
    }
    table.write()
}

fn text(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| "a device without a name".to_owned())
}

fn stretch(disk: &str) -> Outcome {
    let mut table = Table::open(disk)?;
    table.gpt.header.update_from(&mut table.file, table.sector).map_err(|e| e.to_string())?;
    table.gpt.header.disk_guid = random()?;
    for (_, entry) in table.gpt.iter_mut().filter(|(_, entry)| entry.is_used()) {
        entry.unique_partition_guid = random()?;
    }
    let free = table.largest_free();
    let room = free.saturating_sub(SPOOL_BYTES_MIN);
    let state = STATE_BYTES.min((free / 4).max(STATE_BYTES_MIN)).min(room);
    if state < STATE_BYTES_MIN {
        return Err(format!(
            "{disk} has {} MiB left behind the image, {} MiB are needed",
            free >> 20,
            (STATE_BYTES_MIN + SPOOL_BYTES_MIN) >> 20
        ));
    }
    let at = table.add(STATE_NEW, DATA, state)?;
    table.clear(at)?;
    let rest = table.largest_free();
    let at = table.add(disks::SPOOL, SPOOL_TYPE, rest)?;
    table.clear(at)?;
    table.write()
}

/// Makes a spool partition on every further disk that is blank, or named by its serial number.
pub(crate) fn others(own: &str, wipe: &[String]) {
    for disk in disks::others(own) {
        if disks::part(&disk.name, disks::SPOOL).is_some() {
            continue;
        }
        if let Err(why) = other(&disk, wipe) {
            warn(&format_args!("disk {}: {why}", disk.name));
        }
    }
}

fn other(disk: &Block, wipe: &[String]) -> Outcome {
    let serial = disks::serial(&disk.name).unwrap_or_default();
    let named = !serial.is_empty() && wipe.contains(&serial);
    let blank = disks::is_blank(disk).map_err(|e| format!("cannot be read: {e}"))?;
    if !blank && !named {
        let advice = "to use it for the spool, write its serial number to spool_disks";
        return Err(format!(
            "holds something (serial number {serial:?}) and is left alone: {advice}"
        ));
    }
    say(&format_args!("disk {} (serial number {serial:?}) becomes spool", disk.name));
    let mut table = Table::fresh(&disk.name)?;
    let rest = table.largest_free();
    let at = table.add(disks::SPOOL, SPOOL_TYPE, rest)?;
    table.clear(at)?;
    table.write()
}

/// A disk's partition table, changed in memory and written as a whole.
struct Table {
    disk: String,
    file: File,
    sector: u64,
    gpt: GPT,
}

impl Table {
    fn device(disk: &str) -> Outcome<(File, u64)> {
        let path = Path::new("/dev").join(disk);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| format!("{}: {e}", path.display()))?;
        let sector = gptman::linux::get_sector_size(&mut file).map_err(|e| e.to_string())?;
        Ok((file, sector))
    }

    fn open(disk: &str) -> Outcome<Self> {
        let (mut file, sector) = Self::device(disk)?;
        let mut gpt = GPT::read_from(&mut file, sector)
            .map_err(|e| format!("the partition table of {disk}: {e}"))?;
        gpt.align = (1 << 20) / sector;
        Ok(Self { disk: disk.to_owned(), file, sector, gpt })
    }

    fn fresh(disk: &str) -> Outcome<Self> {
        let (mut file, sector) = Self::device(disk)?;
        let mut gpt = GPT::new_from(&mut file, sector, random()?)
            .map_err(|e| format!("a partition table for {disk}: {e}"))?;
        gpt.align = (1 << 20) / sector;
        GPT::write_protective_mbr_into(&mut file, sector).map_err(|e| e.to_string())?;
        Ok(Self { disk: disk.to_owned(), file, sector, gpt })
    }

    fn largest_free(&self) -> u64 {
        self.gpt
            .get_maximum_partition_size()
            .map_or(0, |sectors| sectors.saturating_mul(self.sector))
    }

    /// Adds a partition and returns where it begins, in octets.
    fn add(&mut self, name: &str, kind: [u8; 16], bytes: u64) -> Outcome<u64> {
        let size = bytes / self.sector / self.gpt.align * self.gpt.align;
        let start = self.gpt.find_first_place(size).filter(|_| size > 0);
        let start = start.ok_or_else(|| format!("no room for {name} on {}", self.disk))?;
        let slot = self.gpt.iter().find(|(_, entry)| entry.is_unused()).map(|(slot, _)| slot);
        let slot = slot.ok_or_else(|| format!("the table of {} is full", self.disk))?;
        self.gpt[slot] = GPTPartitionEntry {
            partition_type_guid: kind,
            unique_partition_guid: random()?,
            starting_lba: start,
            ending_lba: start + size - 1,
            attribute_bits: 0,
            partition_name: name.into(),
        };
        Ok(start * self.sector)
    }

    /// Writes zeros where a partition will begin: what lay there before must not be taken for ours.
    fn clear(&mut self, at: u64) -> Outcome {
        let zeros = vec![0_u8; 1 << 20];
        let fail = |e: std::io::Error| format!("cannot clear {at} and on: {e}");
        self.file.seek(SeekFrom::Start(at)).map_err(fail)?;
        for _ in 0..CLEAR_BYTES >> 20 {
            self.file.write_all(&zeros).map_err(fail)?;
        }
        self.file.sync_all().map_err(fail)
    }

    fn write(&mut self) -> Outcome {
        let disk = &self.disk;
        self.gpt.write_into(&mut self.file).map_err(|e| format!("the table of {disk}: {e}"))?;
        self.file.sync_all().map_err(|e| format!("the table of {disk}: {e}"))?;
        gptman::linux::reread_partition_table(&mut self.file)
            .map_err(|e| format!("the kernel does not read the new table of {disk}: {e}"))
    }
}

/// A random GUID, version 4.
fn random() -> Outcome<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| format!("no randomness: {e}"))?;
    bytes[7] = bytes[7] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_stand_as_the_table_wants_them() {
        assert_eq!(DATA[..4], [0xAF, 0x3D, 0xC6, 0x0F]);
        assert_eq!(DATA[8..10], [0x8E, 0x79]);
        let (a, b) = (random().unwrap(), random().unwrap());
        assert_ne!(a, b);
        assert_eq!((a[7] >> 4, a[8] >> 6), (4, 2));
    }
}
