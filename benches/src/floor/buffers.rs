//! The ring of provided receive buffers.
//!
//! *Guarantees*: a buffer is lent out only between the completion that names it and `give`.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// The provided buffer ring and the buffers in it.
pub(super) struct Buffers {
    pub(super) ring: NonNull<BufRingEntry>,
    base: NonNull<u8>,
    entries: u16,
    octets: u32,
    tail: u16,
}

impl Buffers {
    pub(super) fn new(entries: u16, octets: u32) -> io::Result<Self> {
        if !entries.is_power_of_two() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "buffers: a power of two"));
        }
        let ring = map(usize::from(entries) * size_of::<BufRingEntry>())?.cast();
        let base = map(usize::from(entries) * octets as usize)?;
        let mut buffers = Self { ring, base, entries, octets, tail: 0 };
        for id in 0..entries {
            buffers.give(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// Hands buffer `id` to the kernel with the next `publish`.
    #[inline]
    pub(super) fn give(&mut self, id: u16) {
        let at = usize::from(self.tail & (self.entries - 1));
        let address = self.base.as_ptr() as u64 + u64::from(id) * u64::from(self.octets);
        // SAFETY: `ring` maps `entries` entries and `at` is below that; only this thread writes
        // entries, and the kernel reads an entry only after `publish` has moved the tail past it.
        let entry = unsafe { &mut *self.ring.as_ptr().add(at) };
        entry.set_addr(address);
        entry.set_len(self.octets);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    #[inline]
    pub(super) fn publish(&self) {
        // SAFETY: the tail lies in the reserved field of the first entry of a ring that is mapped
        // for the life of the process, aligned for u16, and the kernel only reads it.
        let tail = unsafe { &*BufRingEntry::tail(self.ring.as_ptr()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }

    /// The first `octets` of buffer `id`, which a completion has just handed over.
    #[inline]
    pub(super) fn filled(&self, id: u16, octets: usize) -> &[u8] {
        assert!(
            id < self.entries && octets <= self.octets as usize,
            "the kernel names our buffers"
        );
        let offset = usize::from(id) * self.octets as usize;
        // SAFETY: inside the mapping by the line above; the kernel has given this buffer up with
        // its completion and gets it back only through `give`, after the slice is gone.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), octets) }
    }
}

/// Zeroed, page-aligned memory that is never given back: the kernel may look at it for as long as
/// the ring's last request takes to die, which nobody reports after the ring's descriptor is shut.
fn map(octets: usize) -> io::Result<NonNull<u8>> {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
    let octets = std::num::NonZeroUsize::new(octets)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "empty mapping"))?;
    // SAFETY: a new private mapping at a place of the kernel's choice overlaps nothing.
    let place = unsafe {
        mmap_anonymous(
            None,
            octets,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_PRIVATE,
        )?
    };
    Ok(place.cast())
}
