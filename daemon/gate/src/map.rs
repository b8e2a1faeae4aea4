//! One map by its descriptor, with the sizes of its keys and values.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::limits::BATCH_ENTRIES;
use crate::sys;

/// A map with keys of `K` and values of `V` octets.
#[derive(Debug)]
pub(crate) struct Map<const K: usize, const V: usize> {
    fd: OwnedFd,
}

impl<const K: usize, const V: usize> Map<K, V> {
    /// The caller vouches for the sizes: descriptors come from our own object, or from the gate.
    pub(crate) const fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    pub(crate) fn put(&self, key: &[u8; K], value: &[u8; V]) -> io::Result<()> {
        sys::map_update(self.fd(), key, value)
    }

    pub(crate) fn get(&self, key: &[u8; K]) -> io::Result<Option<[u8; V]>> {
        let mut value = [0; V];
        Ok(sys::map_lookup(self.fd(), key, &mut value)?.then_some(value))
    }

    pub(crate) fn remove(&self, key: &[u8; K]) -> io::Result<bool> {
        sys::map_delete(self.fd(), key)
    }

    /// The keys after `after`, at most `most`. A key removed meanwhile starts the walk again.
    pub(crate) fn keys(&self, after: Option<[u8; K]>, most: usize) -> io::Result<Vec<[u8; K]>> {
        let mut keys = Vec::new();
        let mut last = after;
        while keys.len() < most {
            let mut next = [0; K];
            if !sys::map_next(self.fd(), last.as_ref().map(<[u8; K]>::as_slice), &mut next)? {
                break;
            }
            keys.push(next);
            last = Some(next);
        }
        Ok(keys)
    }

    /// Stores many. Where the kernel stops early for want of memory at hand, it goes on one by
    /// one: some kernels report that for batches into tables that allocate as they grow.
    pub(crate) fn put_all(
        &self,
        entries: impl Iterator<Item = ([u8; K], [u8; V])>,
    ) -> io::Result<()> {
        let mut keys = Vec::with_capacity(BATCH_ENTRIES * K);
        let mut values = Vec::with_capacity(BATCH_ENTRIES * V);
        for (key, value) in entries {
            keys.extend_from_slice(&key);
            values.extend_from_slice(&value);
            if keys.len() == BATCH_ENTRIES * K {
                self.put_batch(&keys, &values)?;
                keys.clear();
                values.clear();
            }
        }
        self.put_batch(&keys, &values)
    }

    fn put_batch(&self, keys: &[u8], values: &[u8]) -> io::Result<()> {
        let count = keys.len() / K;
        if count == 0 {
            return Ok(());
        }
        let (_, result) = sys::map_update_batch(self.fd(), keys, values, count);
        if result.is_ok() {
            return Ok(());
        }
        // How many were stored is not reliable after an error; storing again changes nothing.
        for (key, value) in keys.chunks_exact(K).zip(values.chunks_exact(V)) {
            sys::map_update(self.fd(), key, value)?;
        }
        Ok(())
    }
}

/// Sums the rows of all CPUs in a per-CPU array of counters.
pub(crate) fn sums(fd: BorrowedFd<'_>, rows: u32, cpus: usize) -> io::Result<Vec<u64>> {
    let mut row = vec![0; cpus * 8];
    (0..rows)
        .map(|n| {
            sys::map_lookup(fd, &n.to_ne_bytes(), &mut row)?;
            let words = row
                .chunks_exact(8)
                .map(|w| u64::from_ne_bytes(w.try_into().expect("chunks of eight")));
            Ok(words.sum())
        })
        .collect()
}
