//! Memory that is not from the allocator: shared maps of files, page-aligned anonymous memory.
//!
//! *Not here*: what the words of a shared map mean (`hints`).

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::{io, ptr, slice};

/// A file mapped shared and writable, seen as atomic words.
///
/// The file may be changed by other processes at any time: atomics are the only view of it.
/// If it is truncated below its length while mapped, an access ends the process (SIGBUS): keep
/// it where only this daemon writes.
#[derive(Debug)]
pub struct SharedMap {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the map is plain memory, valid until drop, and is only lent out as shared atomics.
unsafe impl Send for SharedMap {}
// SAFETY: as above.
unsafe impl Sync for SharedMap {}

impl SharedMap {
    /// Maps the first `bytes` bytes of the file, which must be at least as long.
    ///
    /// # Errors
    /// `EINVAL` if `bytes` is 0, no multiple of 8, or beyond the file's end; else what `mmap` says.
    pub fn new(file: &File, bytes: usize) -> io::Result<Self> {
        let long_enough = file.metadata()?.len() >= u64::try_from(bytes).unwrap_or(u64::MAX);
        if bytes == 0 || !bytes.is_multiple_of(8) || !long_enough {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh map at a place the kernel chooses; no memory of ours is touched. The
        // map keeps the file open by itself.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap gives no null without MAP_FIXED");
        Ok(Self { start, words: bytes / 8 })
    }

    /// The words, shared with every other map of the file.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `start` is page-aligned and `words` words are mapped until drop, which needs
        // the last borrow to have ended; memory shared with others is only touched atomically.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this start and length, and not lent out any more.
        let code = unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * 8) };
        debug_assert_eq!(code, 0, "the map was ours");
    }
}

/// Zeroed, page-aligned, private memory.
#[derive(Debug)]
pub(crate) struct Pages {
    start: NonNull<u8>,
    bytes: usize,
    leaked: bool,
}

impl Pages {
    /// Takes `bytes` (above 0) from the kernel; pages are filled in on first use.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh map at a place the kernel chooses; no memory of ours is touched.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap gives no null without MAP_FIXED");
        Ok(Self { start, bytes, leaked: false })
    }

    /// First byte; `bytes` of them stay valid until drop, wherever this value moves.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Keeps the memory for the life of the process: the kernel may still write into it.
    pub(crate) fn leak(&mut self) {
        self.leaked = true;
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: mapped in `new` with this start and length. Owners drop it only after the ring
        // that knew of it is gone and its requests have ended (see `Core::drop`).
        let code = unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
        debug_assert_eq!(code, 0, "the map was ours");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    fn file(bytes: u64) -> File {
        // SAFETY: the name is a constant with a final zero; the descriptor is nobody else's.
        let file = unsafe {
            use std::os::fd::FromRawFd;
            File::from_raw_fd(libc::memfd_create(c"map".as_ptr(), libc::MFD_CLOEXEC))
        };
        file.set_len(bytes).unwrap();
        file
    }

    #[test]
    fn two_maps_of_a_file_share_its_words() {
        let file = file(8192);
        let one = SharedMap::new(&file, 8192).unwrap();
        let two = SharedMap::new(&file, 8192).unwrap();
        one.words()[1023].store(7, Ordering::Relaxed);
        assert_eq!(two.words()[1023].load(Ordering::Relaxed), 7);
        assert_eq!(two.words().len(), 1024);
    }

    #[test]
    fn a_map_beyond_the_file_is_refused() {
        let file = file(4096);
        for bytes in [0, 12, 8192] {
            let error = SharedMap::new(&file, bytes).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        }
    }
}
