//! A device that keeps what is written in memory: what a repair would do is done on it first.
//!
//! *Guarantees*: the device below is only read.
//!
//! *Limits*: memory for what is written, which for a recovery is little: superblocks, headers,
//! footers, what is struck out, healed or put together.
//!
//! *Not here*: places that the real device refuses to write.

use std::collections::BTreeMap;

use crate::bytes::len64;
use crate::disk::{Device, DiskError};
use crate::limits::BLOCK;

/// See the module.
#[derive(Debug)]
pub struct Rehearsal<D> {
    below: D,
    /// By number of the block.
    written: BTreeMap<u64, Vec<u8>>,
}

impl<D: Device> Rehearsal<D> {
    /// On top of that device.
    #[must_use]
    pub fn new(below: D) -> Self {
        Self { below, written: BTreeMap::new() }
    }

    /// Bytes that differ from the device's, in whole blocks.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        len64(self.written.len()) * len64(BLOCK)
    }
}

impl<D: Device> Device for Rehearsal<D> {
    fn bytes(&self) -> u64 {
        self.below.bytes()
    }

    fn name(&self) -> &str {
        self.below.name()
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let first = offset / len64(BLOCK);
        let blocks = || (first..).zip(0..into.len().div_ceil(BLOCK));
        // What was written over a bad place can be read.
        if !blocks().all(|(block, _)| self.written.contains_key(&block)) {
            self.below.read(offset, into)?;
        }
        for (block, piece) in (first..).zip(into.chunks_mut(BLOCK)) {
            if let Some(written) = self.written.get(&block) {
                piece.copy_from_slice(&written[..piece.len()]);
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), DiskError> {
        let whole = offset.is_multiple_of(len64(BLOCK)) && from.len().is_multiple_of(BLOCK);
        if !whole || offset + len64(from.len()) > self.bytes() {
            return Err(DiskError::Range);
        }
        for (block, piece) in (offset / len64(BLOCK)..).zip(from.chunks(BLOCK)) {
            self.written.insert(block, piece.to_vec());
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimDevice;

    #[test]
    fn what_is_written_is_read_and_the_device_stays_as_it_is() {
        let mut below = SimDevice::new("below", len64(4 * BLOCK));
        below.write(len64(BLOCK), &[7; BLOCK]).unwrap();
        let mut device = Rehearsal::new(below);
        device.write(len64(2 * BLOCK), &[9; BLOCK]).unwrap();
        let mut all = vec![0; 4 * BLOCK];
        device.read(0, &mut all).unwrap();
        assert_eq!([all[0], all[BLOCK], all[2 * BLOCK], all[3 * BLOCK]], [0, 7, 9, 0]);
        assert_eq!(device.bytes_written(), len64(BLOCK));
        assert!(device.write(1, &[0; BLOCK]).is_err());
        assert!(device.write(len64(4 * BLOCK), &[0; BLOCK]).is_err());
        let mut same = vec![0; BLOCK];
        device.below.read(len64(2 * BLOCK), &mut same).unwrap();
        assert_eq!(same, vec![0; BLOCK]);
    }
}
