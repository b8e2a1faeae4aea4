//! How far the mail of a mirror's half that went on alone was taken in: a note on the half itself.
//!
//! *Guarantees*: written four times, each within the first 512 bytes of its block, so that a torn
//! write leaves the old note or the new one; of those that check, the furthest counts. A note of
//! another generation counts for nothing: the half was emptied since, or is another one. One that
//! starts alone again keeps its generation; what it takes then has higher ids than any before, so
//! that no note covers it, whatever its clock says.
//! *Not here*: what is to be taken in, and by whom.

use crate::bytes::{Malformed, Reader, len64};
use crate::disk::Device;
use crate::id::TransactionId;
use crate::limits::{BLOCK, SUPERBLOCK_COPIES, SUPERBLOCK_STRIDE};
use crate::live::Live;
use crate::set::{Problem, SetError, problem};

/// First bytes of a note.
const MAGIC: [u8; 8] = *b"RPTAKEN2";
const BODY: usize = 8 + 16 + 4 + 16 + 8;
const CRC_AT: usize = 508;
const _: () = assert!(BODY <= CRC_AT);
// Each stands in the block behind a copy of the superblock.
const _: () = assert!(SUPERBLOCK_STRIDE >= 2 * BLOCK as u64);

/// A message's place in the order in which a half is taken in. The half does not change meanwhile,
/// so that a place says which messages stand before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Place {
    /// Its id; it stands first because a later start gives higher ones, while clocks run backwards.
    pub id: TransactionId,
    /// Wall time of receipt, seconds.
    pub received_wall_s: u32,
    /// Octets of header section and body.
    pub octets: u64,
}

impl Place {
    /// Of that message.
    #[must_use]
    pub fn of(live: &Live) -> Self {
        Self { id: live.id, received_wall_s: live.received_wall_s, octets: live.octets }
    }
}

/// The message through which everything was taken in of the half with this generation, if it was
/// ever begun.
#[must_use]
pub fn read<D: Device>(device: &mut D, generation: u128) -> Option<Place> {
    let mut block = vec![0; BLOCK];
    let mut found = None;
    for copy in 0..SUPERBLOCK_COPIES {
        if device.read(at(copy), &mut block).is_ok() {
            found = found.max(decode(&block, generation));
        }
    }
    found
}

/// Notes it; durable when it returns.
///
/// # Errors
/// When the device says no.
pub fn write<D: Device>(device: &mut D, generation: u128, place: Place) -> Result<(), SetError> {
    let block = encode(generation, place);
    for copy in 0..SUPERBLOCK_COPIES {
        let written = device.write(at(copy), &block);
        written.map_err(|e| problem(device, at(copy), Problem::Disk(e)))?;
    }
    Ok(())
}

fn at(copy: u64) -> u64 {
    copy * SUPERBLOCK_STRIDE + len64(BLOCK)
}

fn encode(generation: u128, place: Place) -> Vec<u8> {
    let mut b = Vec::with_capacity(BLOCK);
    b.extend_from_slice(&MAGIC);
    b.extend_from_slice(&generation.to_le_bytes());
    b.extend_from_slice(&place.id.to_bytes());
    b.extend_from_slice(&place.received_wall_s.to_le_bytes());
    b.extend_from_slice(&place.octets.to_le_bytes());
    debug_assert_eq!(b.len(), BODY);
    b.resize(CRC_AT, 0);
    let crc = crc32c::crc32c(&b);
    b.extend_from_slice(&crc.to_le_bytes());
    b.resize(BLOCK, 0);
    b
}

fn decode(block: &[u8], generation: u128) -> Option<Place> {
    let crc = u32::from_le_bytes(block[CRC_AT..CRC_AT + 4].try_into().ok()?);
    if block[..8] != MAGIC || crc32c::crc32c(&block[..CRC_AT]) != crc {
        return None;
    }
    let mut r = Reader::new(&block[8..]);
    let read = |r: &mut Reader<'_>| -> Result<(u128, Place), Malformed> {
        let of = r.u128()?;
        let id = TransactionId::from_bytes(r.array()?);
        Ok((of, Place { id, received_wall_s: r.u32()?, octets: r.u64()? }))
    };
    read(&mut r).ok().filter(|(of, _)| *of == generation).map(|(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MessageId;
    use crate::limits::HEAD_BYTES;
    use crate::sim::SimDevice;

    fn place(n: u64) -> Place {
        let id = TransactionId { session: MessageId::new(5, 6, 1, n), n: 2 };
        Place { id, received_wall_s: 7, octets: 8 }
    }

    #[test]
    fn the_furthest_note_of_the_generation_counts() {
        let mut device = SimDevice::new("half", HEAD_BYTES);
        assert_eq!(read(&mut device, 9), None);
        write(&mut device, 9, Place::default()).expect("it writes");
        assert_eq!(read(&mut device, 9), Some(Place::default()), "begun, and nothing taken in");
        write(&mut device, 9, place(3)).expect("it writes");
        assert_eq!(read(&mut device, 9), Some(place(3)));
        assert_eq!(read(&mut device, 10), None, "of another generation");
        // Cut off between two of the four.
        let newer = encode(9, place(4));
        device.write(at(0), &newer).expect("it writes");
        assert_eq!(read(&mut device, 9), Some(place(4)));
        let mut rotten = encode(9, place(5));
        rotten[100] = 1;
        device.write(at(1), &rotten).expect("it writes");
        assert_eq!(read(&mut device, 9), Some(place(4)));
        assert!(place(4) > place(3));
    }

    #[test]
    fn no_note_covers_what_a_later_start_took_with_its_clock_behind() {
        let through = place(u64::MAX >> 16);
        let id = TransactionId { session: MessageId::new(5, 7, 0, 1), n: 1 };
        assert!(Place { id, received_wall_s: 1, octets: 1 } > through);
    }

    #[test]
    fn superblocks_and_segments_are_left_alone() {
        for copy in 0..SUPERBLOCK_COPIES {
            assert!(at(copy) >= copy * SUPERBLOCK_STRIDE + len64(BLOCK));
            assert!(at(copy) + len64(BLOCK) <= ((copy + 1) * SUPERBLOCK_STRIDE).min(HEAD_BYTES));
        }
    }
}
