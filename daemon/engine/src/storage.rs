//! What is asked of files and block devices before the log runs on them.

use crate::socket::check;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::{io, mem};

/// What lies below an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A whole device or a partition.
    BlockDevice,
    /// A file on a file system, by its magic number (`statfs(2)`).
    FileSystem(u64),
}

impl Place {
    /// Asks the kernel what an open file lies on.
    ///
    /// # Errors
    /// What `fstat` or `fstatfs` says.
    pub fn of(file: &File) -> io::Result<Self> {
        if file.metadata()?.file_type().is_block_device() {
            return Ok(Self::BlockDevice);
        }
        // SAFETY: all its fields are integers, for which all bits zero is a value.
        let mut found: libc::statfs = unsafe { mem::zeroed() };
        // SAFETY: the kernel writes one statfs into a local.
        check(unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut found) })?;
        Ok(Self::FileSystem(u64::from_ne_bytes(found.f_type.to_ne_bytes())))
    }

    /// The kind's name as `mount` spells it, if known.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::BlockDevice => Some("block device"),
            Self::FileSystem(0xef53) => Some("ext4"),
            Self::FileSystem(0x5846_5342) => Some("xfs"),
            Self::FileSystem(0x9123_683e) => Some("btrfs"),
            Self::FileSystem(0x0102_1994) => Some("tmpfs"),
            Self::FileSystem(0x8584_58f6) => Some("ramfs"),
            Self::FileSystem(0x794c_7630) => Some("overlay"),
            Self::FileSystem(0xf2f5_2010) => Some("f2fs"),
            Self::FileSystem(0x6969) => Some("nfs"),
            Self::FileSystem(_) => None,
        }
    }
}

/// Bytes of a file or block device.
///
/// # Errors
/// What `fstat` or the `BLKGETSIZE64` ioctl says.
pub fn size(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if !metadata.file_type().is_block_device() {
        return Ok(metadata.len());
    }
    let mut bytes = 0u64;
    // SAFETY: BLKGETSIZE64 writes one u64 into a local.
    check(unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &raw mut bytes) })?;
    Ok(bytes)
}

/// `_IOR(0x12, 114, size_t)` on 64-bit machines.
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272;

/// Gives the file space up to `bytes` without writing it (`fallocate(2)`). The extents are
/// unwritten: the first write to each goes through the journal.
///
/// # Errors
/// `ENOSPC`, `EOPNOTSUPP`, `EFBIG` and what else `fallocate` says.
pub fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let bytes =
        libc::off_t::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    // SAFETY: no memory is passed.
    check(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes) }).map(drop)
}

/// Alignment that `O_DIRECT` asks of memory and of offsets on this file, if the kernel tells
/// (`STATX_DIOALIGN`); `None` when it does not know. Zeros mean no `O_DIRECT` here.
///
/// # Errors
/// What `statx` says.
pub fn direct_alignment(file: &File) -> io::Result<Option<(u32, u32)>> {
    // SAFETY: all its fields are integers, for which all bits zero is a value.
    let mut found: libc::statx = unsafe { mem::zeroed() };
    let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN);
    // SAFETY: the path is a constant with a final zero; the kernel writes one statx into a local.
    check(unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, mask, &raw mut found) })?;
    let told = found.stx_mask & libc::STATX_DIOALIGN != 0;
    Ok(told.then_some((found.stx_dio_mem_align, found.stx_dio_offset_align)))
}

/// Takes the file for this process alone (`flock`): true if nobody else has it.
///
/// # Errors
/// What `flock` says besides "taken".
pub fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: no memory is passed.
    match check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EWOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_place_a_size_and_one_owner() {
        let path = std::env::temp_dir().join(format!("engine-storage-{}", std::process::id()));
        let open = || File::options().create(true).truncate(false).write(true).open(&path).unwrap();
        let file = open();
        allocate(&file, 8192).unwrap();
        assert_eq!(size(&file).unwrap(), 8192);
        assert!(matches!(Place::of(&file).unwrap(), Place::FileSystem(_)));
        direct_alignment(&file).unwrap();
        assert!(try_lock(&file).unwrap());
        assert!(!try_lock(&open()).unwrap(), "a second open file is refused");
        std::fs::remove_file(&path).unwrap();
    }
}
