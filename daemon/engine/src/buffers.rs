//! A ring of buffers the kernel picks from when bytes arrive: memory is spent on sockets that
//! have data, not on sockets that wait.
//!
//! *Guarantees*: a buffer is either the kernel's or, between a completion that names it and
//! [`BufferRing::recycle`], ours; never both.

use crate::map::Pages;
use crate::probe::StartError;
use crate::ring::Ring;
use io_uring::types::BufRingEntry;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

/// Provided buffers of one group.
#[derive(Debug)]
pub(crate) struct BufferRing {
    /// `entries` descriptors of 16 bytes, shared with the kernel.
    descriptors: Pages,
    /// `entries` buffers of `bytes` bytes.
    memory: Pages,
    entries: u16,
    bytes: u32,
    tail: u16,
    group: u16,
}

impl BufferRing {
    /// Takes the memory and gives every buffer to the kernel.
    pub(crate) fn new(
        ring: &Ring,
        group: u16,
        entries: u16,
        bytes: u32,
    ) -> Result<Self, StartError> {
        let memory = |bytes: usize| {
            Pages::new(bytes).map_err(|error| StartError::Io("memory for receive buffers", error))
        };
        let count = usize::from(entries);
        let mut this = Self {
            descriptors: memory(count * size_of::<BufRingEntry>())?,
            memory: memory(count * bytes as usize)?,
            entries,
            bytes,
            tail: 0,
            group,
        };
        // SAFETY: both maps live as long as this value, which the core drops after the ring (field
        // order, and leaked there if requests are still in flight).
        unsafe { ring.register_buffer_ring(this.descriptors.as_ptr(), entries, group) }?;
        for buffer in 0..entries {
            this.recycle(buffer);
        }
        Ok(this)
    }

    pub(crate) fn group(&self) -> u16 {
        self.group
    }

    /// Number of buffers in the ring.
    pub(crate) fn entries(&self) -> usize {
        usize::from(self.entries)
    }

    /// The first `length` bytes of a buffer that a completion just named.
    ///
    /// # Safety
    /// The buffer is ours (named by a completion, not recycled since), and no other slice of it
    /// is alive.
    pub(crate) unsafe fn bytes<'a>(&self, buffer: u16, length: usize) -> &'a mut [u8] {
        assert!(buffer < self.entries && length <= self.bytes as usize, "the kernel's word");
        let offset = usize::from(buffer) * self.bytes as usize;
        // SAFETY: inside `memory`, by the assertion; initialised (zeroed, then written by the
        // kernel); exclusive by the caller's promise.
        unsafe { slice::from_raw_parts_mut(self.memory.as_ptr().add(offset), length) }
    }

    /// Gives a buffer back to the kernel.
    pub(crate) fn recycle(&mut self, buffer: u16) {
        debug_assert!(buffer < self.entries);
        let slot = usize::from(self.tail & (self.entries - 1));
        let base: *mut BufRingEntry = self.descriptors.as_ptr().cast();
        let offset = usize::from(buffer) * self.bytes as usize;
        // SAFETY: `slot` is below `entries`, and this entry is not visible to the kernel until
        // the tail moves past it. The fields are set one by one: the first entry's last field is
        // the tail, which the kernel reads.
        unsafe {
            let entry = &mut *base.add(slot);
            entry.set_addr(self.memory.as_ptr().add(offset) as u64);
            entry.set_len(self.bytes);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first descriptor; the kernel only reads it, so an atomic
        // store is all that is needed. Release makes the entry visible before it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Never unmap: the kernel may still write.
    pub(crate) fn leak(&mut self) {
        self.descriptors.leak();
        self.memory.leak();
    }
}
