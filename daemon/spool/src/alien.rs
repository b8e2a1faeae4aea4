//! What a device bears that is not ours: file systems, partition tables, containers, members of
//! arrays, by the marks they leave.
//!
//! *Guarantees*: reads only. A device with one of these marks, or with anything else than zeros at
//! its front, is never called blank.
//!
//! *Limits*: looks at the first and the last MiB. A device of ours is looked at its front only,
//! where no message ever stands: what a client sends cannot make it look alien.

use std::fmt;

use crate::bytes::len64;
use crate::disk::Device;
use crate::limits::{BLOCK, HEAD_BYTES};
use crate::set::{Problem, SetError, problem};
use crate::superblock::Superblock;

/// Something that is not ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alien {
    /// Where its mark stands, from the start of the device.
    pub offset: u64,
    /// What it is, with its article.
    pub what: &'static str,
}

impl fmt::Display for Alien {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (its mark stands at byte {})", self.what, self.offset)
    }
}

const SECTOR: usize = 512;
/// Linux software RAID, little-endian.
const RAID: &[u8] = b"\xfc\x4e\x2b\xa9";
const UNKNOWN: &str = "something unknown";

/// Offset from the front, mark, what it is. The order decides where several fit: what holds the
/// others comes last.
const AT_FRONT: [(usize, &[u8], &str); 36] = [
    (0, b"LUKS\xba\xbe", "a LUKS container"),
    (16_384, b"SKUL\xba\xbe", "a LUKS container"),
    (0, b"XFSB", "an XFS file system"),
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    (65_600, b"_BHRfS_M", "a Btrfs file system"),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system"),
    (1030, b"\x34\x34", "a NILFS file system"),
    (0, b"hsqs", "a SquashFS file system"),
    (32_768, b"JFS1", "a JFS file system"),
    (32_769, b"CD001", "an ISO 9660 file system"),
    (65_588, b"ReIs", "a ReiserFS file system"),
    (65_536, b"\x01\x16\x19\x70", "a GFS2 file system"),
    (32, b"NXSB", "an APFS container"),
    (3, b"-FVE-FS-", "a BitLocker volume"),
    (3, b"NTFS    ", "an NTFS file system"),
    (3, b"EXFAT   ", "an exFAT file system"),
    (54, b"FAT1", "a FAT file system"),
    (82, b"FAT32", "a FAT file system"),
    (4086, b"SWAPSPACE2", "swap space"),
    (4086, b"SWAP-SPACE", "swap space"),
    (16_374, b"SWAPSPACE2", "swap space"),
    (65_526, b"SWAPSPACE2", "swap space"),
    (4096, RAID, "a member of a Linux software RAID"),
    (0, RAID, "a member of a Linux software RAID"),
    (0, b"LABELONE", "an LVM physical volume"),
    (512, b"LABELONE", "an LVM physical volume"),
    (1024, b"LABELONE", "an LVM physical volume"),
    (1536, b"LABELONE", "an LVM physical volume"),
    (4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "a bcache device"),
    (0, b"verity\0\0", "a dm-verity hash device"),
    (0, b"integrt\0", "a dm-integrity device"),
    (0, b"bluestore block device", "a Ceph OSD"),
    (SECTOR, b"EFI PART", "a GPT partition table"),
    (4096, b"EFI PART", "a GPT partition table"),
    (510, b"\x55\xaa", "an MBR partition table or boot sector"),
];

/// The first uberblock of a ZFS label, one each KiB, and its number in either byte order.
const ZFS_FROM: usize = 128 << 10;
const ZFS: [&[u8]; 2] = [b"\x0c\xb1\xba\x00\x00\x00\x00\x00", b"\x00\x00\x00\x00\x00\xba\xb1\x0c"];

/// What the first bytes of a device say.
#[must_use]
pub fn at_front(head: &[u8]) -> Option<Alien> {
    let mark = |(at, mark, _): &&(usize, &[u8], &str)| {
        head.get(*at..).is_some_and(|rest| rest.starts_with(mark))
    };
    if let Some((at, _, what)) = AT_FRONT.iter().find(mark) {
        return Some(Alien { offset: len64(*at), what });
    }
    let zfs = |at: &usize| ZFS.iter().any(|mark| head[*at..].starts_with(mark));
    let at = (ZFS_FROM..head.len()).step_by(1024).find(zfs)?;
    Some(Alien { offset: len64(at), what: "a ZFS device" })
}

/// What the last bytes of a device of that size say; `tail` ends where the device does.
#[must_use]
pub fn at_end(tail: &[u8], bytes: u64) -> Option<Alien> {
    let begin = bytes.checked_sub(len64(tail.len()))?;
    // Version 0.90 and 1.0 of the RAID's marks, and the spare table of 512 and 4096 byte sectors.
    let places: [(u64, &[u8], &'static str); 4] = [
        ((bytes & !0xffff).saturating_sub(0x1_0000), RAID, "a member of a Linux software RAID"),
        (bytes.saturating_sub(8192) & !0xfff, RAID, "a member of a Linux software RAID"),
        (bytes.saturating_sub(512), b"EFI PART", "the spare copy of a GPT partition table"),
        (bytes.saturating_sub(4096), b"EFI PART", "the spare copy of a GPT partition table"),
    ];
    places.into_iter().find_map(|(at, mark, what)| {
        let from = usize::try_from(at.checked_sub(begin)?).ok()?;
        tail.get(from..)?.starts_with(mark).then_some(Alien { offset: at, what })
    })
}

/// Looks at a device: what it bears, or nothing when it is ours or blank.
///
/// # Errors
/// When it cannot be read.
pub fn look<D: Device>(device: &mut D) -> Result<Option<Alien>, SetError> {
    let whole = device.bytes() / len64(BLOCK) * len64(BLOCK);
    let head_bytes = usize::try_from(whole.min(HEAD_BYTES)).expect("at most a MiB");
    let mut head = vec![0; head_bytes];
    let read = device.read(0, &mut head);
    read.map_err(|e| problem(device, 0, Problem::Disk(e)))?;
    if let Some(alien) = at_front(&head) {
        return Ok(Some(alien));
    }
    let stride = usize::try_from(crate::limits::SUPERBLOCK_STRIDE).expect("small");
    let ours = (0..head.len()).step_by(stride).any(|at| {
        head.get(at..at + BLOCK).is_some_and(|block| block.starts_with(&crate::superblock::MAGIC))
    });
    if ours {
        return Ok(None);
    }
    if let Some(at) = head.iter().position(|b| *b != 0) {
        return Ok(Some(Alien { offset: len64(at), what: UNKNOWN }));
    }
    let mut tail = vec![0; head_bytes];
    let from = whole - len64(head_bytes);
    let read = device.read(from, &mut tail);
    read.map_err(|e| problem(device, from, Problem::Disk(e)))?;
    // A device need not end at a multiple of our block.
    Ok(at_end(&tail, whole))
}

/// Makes the first and the last MiB zero: what the device bore is gone.
///
/// # Errors
/// When it cannot be written, or holds a superblock of ours.
pub fn erase<D: Device>(device: &mut D) -> Result<(), SetError> {
    let mut block = vec![0; BLOCK];
    for copy in 0..crate::limits::SUPERBLOCK_COPIES {
        let at = copy * crate::limits::SUPERBLOCK_STRIDE;
        let read = device.read(at, &mut block);
        read.map_err(|e| problem(device, at, Problem::Disk(e)))?;
        if Superblock::decode(&block).is_ok() {
            return Err(problem(device, at, Problem::InUse));
        }
    }
    let whole = device.bytes() / len64(BLOCK) * len64(BLOCK);
    let zero = vec![0; usize::try_from(whole.min(HEAD_BYTES)).expect("at most a MiB")];
    // The end first: as long as the front stands, the device is not taken for blank.
    for at in [whole - len64(zero.len()), 0] {
        let written = device.write(at, &zero);
        written.map_err(|e| problem(device, at, Problem::Disk(e)))?;
    }
    device.sync().map_err(|e| problem(device, 0, Problem::Disk(e)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDevice;

    fn device(marks: &[(u64, &[u8])]) -> SimDevice {
        let mut device = SimDevice::new("sim", 4 << 20);
        for (at, mark) in marks {
            let block = at / 4096 * 4096;
            let mut bytes = vec![0; if block + 8192 <= 4 << 20 { 8192 } else { 4096 }];
            device.read(block, &mut bytes).unwrap();
            let from = usize::try_from(at - block).unwrap();
            bytes[from..from + mark.len()].copy_from_slice(mark);
            device.write(block, &bytes).unwrap();
        }
        device
    }

    #[test]
    fn each_mark_at_the_front_is_seen_where_it_stands() {
        for (at, mark, what) in AT_FRONT {
            let found = look(&mut device(&[(len64(at), mark)])).unwrap();
            assert_eq!(found, Some(Alien { offset: len64(at), what }));
        }
        let zfs = look(&mut device(&[(132 << 10, ZFS[0])])).unwrap().unwrap();
        assert_eq!((zfs.offset, zfs.what), (132 << 10, "a ZFS device"));
        let other = look(&mut device(&[(77_777, b"x")])).unwrap().unwrap();
        assert_eq!((other.offset, other.what), (77_777, UNKNOWN));
        assert_eq!(look(&mut device(&[])).unwrap(), None);
    }

    #[test]
    fn marks_at_the_end_are_seen() {
        let end = 4 << 20;
        for (at, mark) in [(end - 8192, RAID), (end - 0x1_0000, RAID), (end - 4096, b"EFI PART")] {
            let found = look(&mut device(&[(at, mark)])).unwrap().unwrap();
            assert_eq!(found.offset, at, "{found}");
        }
    }

    #[test]
    fn what_stands_in_mail_makes_no_device_alien_and_what_is_ours_is_not_erased() {
        let mut ours = device(&[(0, b"RINGPOST"), ((4 << 20) - 4096, b"EFI PART")]);
        assert_eq!(look(&mut ours).unwrap(), None);
        // Another file system over it is one, whatever is left of us.
        let mut over = device(&[(262_144, b"RINGPOST"), (1080, b"\x53\xef")]);
        assert!(look(&mut over).unwrap().is_some());
        let block = Superblock {
            set: 1,
            members: 1,
            copies: 1,
            segment_bytes: 256 << 10,
            segments: 4,
            ..Superblock::default()
        };
        over.write(524_288, &block.encode()).unwrap();
        assert_eq!(erase(&mut over).unwrap_err().problem, Problem::InUse);
        let mut alien = device(&[(0, b"XFSB"), ((4 << 20) - 4096, b"EFI PART")]);
        erase(&mut alien).unwrap();
        assert_eq!(look(&mut alien).unwrap(), None);
    }
}
