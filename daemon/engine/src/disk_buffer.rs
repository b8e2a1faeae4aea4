//! Page-aligned buffers for disk requests, registered with the ring as far as the limit on
//! locked memory goes.
//!
//! *Guarantees*: while a request is in the kernel's hands the buffer belongs to the engine; a
//! [`DiskBuffer`] is the only way to write into one, [`DiskBytes`] are any number of readers (a
//! mirror writes the same bytes to two devices).
//! *Limits*: the classes in the configuration; nothing is allocated later.

use crate::config::DiskClass;
use crate::map::Pages;
use crate::probe::StartError;
use crate::ring::Ring;
use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::{fmt, mem, slice};

/// All disk buffers of a core. Not `Send`, nor are the buffers.
#[derive(Debug)]
pub(crate) struct DiskPool {
    pages: Vec<Pages>,
    slots: Vec<Slot>,
    /// Free slots by class, in the order of the configuration.
    free: RefCell<Vec<Vec<usize>>>,
    registered: usize,
}

#[derive(Debug)]
struct Slot {
    start: *mut u8,
    bytes: usize,
    class: usize,
    readers: Cell<u32>,
}

impl DiskPool {
    pub(crate) fn new(classes: &[DiskClass]) -> Result<Self, StartError> {
        let mut pool =
            Self { pages: Vec::new(), slots: Vec::new(), free: RefCell::default(), registered: 0 };
        for (class, DiskClass { bytes, count }) in classes.iter().copied().enumerate() {
            let mut free = Vec::with_capacity(count);
            for _ in 0..count {
                let pages = Pages::new(bytes)
                    .map_err(|error| StartError::Io("memory for disk buffers", error))?;
                free.push(pool.slots.len());
                let start = pages.as_ptr();
                pool.slots.push(Slot { start, bytes, class, readers: Cell::new(0) });
                pool.pages.push(pages);
            }
            free.reverse();
            pool.free.get_mut().push(free);
        }
        Ok(pool)
    }

    /// Registers the first buffers, up to `bytes_max` and as far as the limit on locked memory
    /// goes; returns a note if that is not all of them.
    pub(crate) fn register(&mut self, ring: &Ring, bytes_max: u64) -> Option<String> {
        let all = self.slots.len();
        let vectors: Vec<libc::iovec> = self
            .slots
            .iter()
            .map(|slot| libc::iovec { iov_base: slot.start.cast(), iov_len: slot.bytes })
            .collect();
        let mut left = bytes_max;
        let mut count = self
            .slots
            .iter()
            .take_while(|slot| {
                let rest = u64::try_from(slot.bytes).ok().and_then(|b| left.checked_sub(b));
                rest.is_some_and(|rest| {
                    left = rest;
                    true
                })
            })
            .count();
        let mut why = "beyond this core's share".to_owned();
        // Registering succeeds for all of them or for none, so halve until it does.
        while count > 0 {
            // SAFETY: the pages live as long as the pool, which the core drops after the ring
            // (field order; every buffer keeps the pool alive too).
            match unsafe { ring.register_buffers(&vectors[..count]) } {
                Ok(()) => break,
                Err(error) => why = error.to_string(),
            }
            count /= 2;
        }
        self.registered = count;
        (count < all).then(|| {
            format!(
                "{count} of {all} disk buffers are registered, the others cost more per write: \
                 {why}; raise RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=)"
            )
        })
    }

    /// A free buffer of the smallest class that holds `bytes`; its content is whatever its last
    /// user left.
    pub(crate) fn take(self: &Rc<Self>, bytes: usize) -> Option<DiskBuffer> {
        let mut free = self.free.borrow_mut();
        let class = free
            .iter()
            .enumerate()
            .filter_map(|(class, slots)| Some((class, self.slots[*slots.last()?].bytes)))
            .filter(|(_, size)| *size >= bytes)
            .min_by_key(|(_, size)| *size)?
            .0;
        let slot = free[class].pop()?;
        Some(DiskBuffer { pool: Rc::clone(self), slot })
    }

    /// Never unmap: the kernel may still read or write.
    pub(crate) fn leak(self: &Rc<Self>) {
        mem::forget(Rc::clone(self));
    }

    fn give_back(&self, slot: usize) {
        self.free.borrow_mut()[self.slots[slot].class].push(slot);
    }

    fn index(&self, slot: usize) -> Option<u16> {
        (slot < self.registered).then(|| u16::try_from(slot).expect("at most 4096 buffers"))
    }
}

/// One buffer, writable, all of its bytes; aligned to 4 KiB. Goes back to its pool when dropped.
pub struct DiskBuffer {
    pool: Rc<DiskPool>,
    slot: usize,
}

impl DiskBuffer {
    /// Gives up writing, so that it can be written to more than one place at once.
    #[must_use]
    pub fn freeze(self) -> DiskBytes {
        let (pool, slot) = self.into_parts();
        pool.slots[slot].readers.set(1);
        DiskBytes { pool, slot }
    }

    /// Index among the registered buffers, if it is one.
    pub(crate) fn registered_index(&self) -> Option<u16> {
        self.pool.index(self.slot)
    }

    /// First byte, and how many there are.
    pub(crate) fn raw(&self) -> (*mut u8, usize) {
        let slot = &self.pool.slots[self.slot];
        (slot.start, slot.bytes)
    }

    fn into_parts(self) -> (Rc<DiskPool>, usize) {
        let this = mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped nor used again, so the count moves out exactly once.
        (unsafe { std::ptr::read(&raw const this.pool) }, this.slot)
    }
}

impl Deref for DiskBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (start, bytes) = self.raw();
        // SAFETY: inside the pool's pages, which `pool` keeps mapped; zeroed at first; this value
        // is the slot's only owner, and is itself owned by the engine while the kernel writes.
        unsafe { slice::from_raw_parts(start, bytes) }
    }
}

impl DerefMut for DiskBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let (start, bytes) = self.raw();
        // SAFETY: as above, and borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(start, bytes) }
    }
}

impl Drop for DiskBuffer {
    fn drop(&mut self) {
        self.pool.give_back(self.slot);
    }
}

impl fmt::Debug for DiskBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskBuffer({}, {} bytes)", self.slot, self.len())
    }
}

/// A buffer that is only read now: by writes in flight, and by whoever holds a clone.
pub struct DiskBytes {
    pool: Rc<DiskPool>,
    slot: usize,
}

impl DiskBytes {
    /// The buffer, writable again, if nobody else holds it.
    ///
    /// # Errors
    /// Gives itself back while clones exist.
    pub fn thaw(self) -> Result<DiskBuffer, Self> {
        if self.pool.slots[self.slot].readers.get() > 1 {
            return Err(self);
        }
        let this = mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped nor used again, so the count moves out exactly once.
        let pool = unsafe { std::ptr::read(&raw const this.pool) };
        pool.slots[this.slot].readers.set(0);
        Ok(DiskBuffer { pool, slot: this.slot })
    }

    /// Index among the registered buffers, if it is one.
    pub(crate) fn registered_index(&self) -> Option<u16> {
        self.pool.index(self.slot)
    }
}

impl Clone for DiskBytes {
    fn clone(&self) -> Self {
        let readers = &self.pool.slots[self.slot].readers;
        readers.set(readers.get() + 1);
        Self { pool: Rc::clone(&self.pool), slot: self.slot }
    }
}

impl Deref for DiskBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let slot = &self.pool.slots[self.slot];
        // SAFETY: inside the pool's pages, which `pool` keeps mapped; zeroed at first; while
        // readers exist there is no `DiskBuffer` of this slot, so nobody writes.
        unsafe { slice::from_raw_parts(slot.start, slot.bytes) }
    }
}

impl Drop for DiskBytes {
    fn drop(&mut self) {
        let readers = &self.pool.slots[self.slot].readers;
        readers.set(readers.get() - 1);
        if readers.get() == 0 {
            self.pool.give_back(self.slot);
        }
    }
}

impl From<DiskBuffer> for DiskBytes {
    fn from(buffer: DiskBuffer) -> Self {
        buffer.freeze()
    }
}

impl fmt::Debug for DiskBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskBytes({}, {} bytes)", self.slot, self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DISK_ALIGN;

    #[test]
    fn the_smallest_class_that_holds_it_is_taken_and_given_back() {
        let classes = [DiskClass { bytes: 65_536, count: 1 }, DiskClass { bytes: 4096, count: 2 }];
        let pool = Rc::new(DiskPool::new(&classes).unwrap());
        let small = [pool.take(1).unwrap(), pool.take(4096).unwrap()];
        assert!(small.iter().all(|buffer| buffer.len() == 4096));
        assert!(small.iter().all(|buffer| buffer.as_ptr().addr() % DISK_ALIGN == 0));
        let large = pool.take(4096).unwrap();
        assert_eq!(large.len(), 65_536);
        assert!(pool.take(1).is_none());
        drop(large);
        assert!(pool.take(65_537).is_none());
        assert_eq!(pool.take(5000).unwrap().len(), 65_536);
    }

    #[test]
    fn shared_bytes_come_back_once() {
        let pool = Rc::new(DiskPool::new(&[DiskClass { bytes: 4096, count: 1 }]).unwrap());
        let mut buffer = pool.take(1).unwrap();
        buffer[..3].copy_from_slice(b"log");
        let one = buffer.freeze();
        let two = one.clone();
        let one = one.thaw().unwrap_err();
        drop(one);
        assert!(pool.take(1).is_none(), "one reader is left");
        assert_eq!(&two.thaw().unwrap()[..3], b"log");
        assert!(pool.take(1).is_some());
    }
}
