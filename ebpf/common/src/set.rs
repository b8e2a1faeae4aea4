//! A whole set of lists as octets: what the mail process hands to the gate in a sealed file.
//!
//! Header: magic, then six counts. Then the records of each table one after the other, in this
//! order: hosts (IPv4, IPv6), networks (IPv4, IPv6), allowed networks (IPv4, IPv6). All numbers
//! are little-endian.
//!
//! *Guarantees*: a reader checks the length before it reads, refuses numbers out of range, and
//! never panics on any octets.

use crate::entry::{Action, Listing};
use crate::limits::{ALLOWED_MAX, HOSTS_MAX, LISTS_MAX, NETWORKS_MAX, REASONS_MAX};
use crate::packet::Address;

const MAGIC: u64 = u64::from_le_bytes(*b"RPLIST\0\x02");

/// Octets of the header.
pub const HEADER_BYTES: usize = 8 + 6 * 4;

/// Octets of one record.
pub const RECORD_BYTES: usize = 32;

/// The tables of a set, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// Single IPv4 hosts.
    Hosts4,
    /// IPv6 networks of 64 bits.
    Hosts6,
    /// IPv4 networks.
    Networks4,
    /// IPv6 networks.
    Networks6,
    /// IPv4 networks that always pass.
    Allowed4,
    /// IPv6 networks that always pass.
    Allowed6,
}

/// All tables in their order.
pub const TABLES: [Table; 6] = [
    Table::Hosts4,
    Table::Hosts6,
    Table::Networks4,
    Table::Networks6,
    Table::Allowed4,
    Table::Allowed6,
];

impl Table {
    /// Most records.
    #[must_use]
    pub const fn max(self) -> u32 {
        match self {
            Self::Hosts4 | Self::Hosts6 => HOSTS_MAX,
            Self::Networks4 | Self::Networks6 => NETWORKS_MAX,
            Self::Allowed4 | Self::Allowed6 => ALLOWED_MAX,
        }
    }

    /// Whether its addresses are IPv6.
    #[must_use]
    pub const fn six(self) -> bool {
        matches!(self, Self::Hosts6 | Self::Networks6 | Self::Allowed6)
    }

    const fn bits(self, given: u8) -> Option<u8> {
        match self {
            Self::Hosts4 if given == 32 => Some(32),
            Self::Hosts6 if given == 64 => Some(64),
            Self::Networks4 | Self::Allowed4 if given <= 32 => Some(given),
            Self::Networks6 | Self::Allowed6 if given <= 128 => Some(given),
            _ => None,
        }
    }
}

/// One line of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// The network's address; bits behind `bits` are zero.
    pub address: Address,
    /// Bits that count: 32 and 64 for hosts.
    pub bits: u8,
    /// What is said of it; of an allowed network only the list and the id matter. A host lapses
    /// only with its list.
    pub listing: Listing,
}

/// Why a set is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetError {
    /// Not a set, or of another version.
    Magic,
    /// More records than the table may have.
    TooMany(Table),
    /// Shorter or longer than its counts say.
    Length,
    /// A prefix, reason, list or action out of range, or bits set behind the prefix.
    Record(Table, u32),
}

/// The header of a set with these counts.
#[must_use]
pub fn header(counts: [u32; 6]) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..8].copy_from_slice(&MAGIC.to_le_bytes());
    for (n, count) in counts.iter().enumerate() {
        out[8 + 4 * n..12 + 4 * n].copy_from_slice(&count.to_le_bytes());
    }
    out
}

impl Record {
    /// The octets of the record.
    #[must_use]
    pub fn to_octets(&self) -> [u8; RECORD_BYTES] {
        let mut out = [0; RECORD_BYTES];
        for (n, word) in self.address.words.iter().enumerate() {
            out[4 * n..4 * n + 4].copy_from_slice(&word.to_le_bytes());
        }
        out[16..20].copy_from_slice(&self.listing.expires_s.to_le_bytes());
        out[20..24].copy_from_slice(&self.listing.id.to_le_bytes());
        let l = &self.listing;
        out[24..29].copy_from_slice(&[l.reason, l.action as u8, l.list, 0, self.bits]);
        out
    }

    fn from_octets(table: Table, o: &[u8]) -> Option<Self> {
        let word = |at: usize| o.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let words = [word(0)?, word(4)?, word(8)?, word(12)?];
        let listing = Listing {
            expires_s: word(16)?,
            id: word(20)?,
            reason: *o.get(24)?,
            action: Action::from_number(*o.get(25)?),
            list: *o.get(26)?,
        };
        let bits = table.bits(*o.get(28)?)?;
        let address = if table.six() { Address::v6(words) } else { Address::v4(words[0]) };
        let host = matches!(table, Table::Hosts4 | Table::Hosts6);
        let sound = usize::from(listing.reason) < REASONS_MAX
            && (listing.expires_s == 0 || !host)
            && usize::from(listing.list) < LISTS_MAX
            && listing.action as u8 == *o.get(25)?
            && address.words == words
            && masked(&address, bits) == address;
        sound.then_some(Self { address, bits, listing })
    }
}

/// The address with the bits behind the prefix cleared.
#[must_use]
pub fn masked(address: &Address, bits: u8) -> Address {
    let mut out = *address;
    let words = if address.six { 4 } else { 1 };
    for n in 0..words {
        let here = usize::from(bits).saturating_sub(32 * n).min(32);
        let mask = if here == 0 { 0 } else { u32::MAX << (32 - here) };
        out.words[n] &= mask;
    }
    out
}

/// A set whose length and counts were checked.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    octets: &'a [u8],
    counts: [u32; 6],
}

impl<'a> Set<'a> {
    /// Checks magic, counts and length.
    ///
    /// # Errors
    /// [`SetError`] says which of them is wrong.
    pub fn read(octets: &'a [u8]) -> Result<Self, SetError> {
        let word = |at: usize| octets.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let magic = octets.get(..8).and_then(|m| m.try_into().ok()).map(u64::from_le_bytes);
        if magic != Some(MAGIC) {
            return Err(SetError::Magic);
        }
        let mut counts = [0; 6];
        let mut total = 0_usize;
        for (n, table) in TABLES.into_iter().enumerate() {
            counts[n] = word(8 + 4 * n).ok_or(SetError::Length)?;
            if counts[n] > table.max() {
                return Err(SetError::TooMany(table));
            }
            total += counts[n] as usize;
        }
        if octets.len() != HEADER_BYTES + total * RECORD_BYTES {
            return Err(SetError::Length);
        }
        Ok(Self { octets, counts })
    }

    /// Records of a table.
    #[must_use]
    pub const fn count(&self, table: Table) -> u32 {
        self.counts[table as usize]
    }

    /// The records of a table, each checked as it is read.
    pub fn records(&self, table: Table) -> impl Iterator<Item = Result<Record, SetError>> + 'a {
        let before: usize = self.counts[..table as usize].iter().map(|c| *c as usize).sum();
        let from = HEADER_BYTES + before * RECORD_BYTES;
        let to = from + self.count(table) as usize * RECORD_BYTES;
        let octets = self.octets.get(from..to).unwrap_or_default();
        (0_u32..).zip(octets.chunks_exact(RECORD_BYTES)).map(move |(n, record)| {
            Record::from_octets(table, record).ok_or(SetError::Record(table, n))
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    fn record(six: bool, bits: u8) -> Record {
        let expires_s = if bits == if six { 64 } else { 32 } { 0 } else { 5 };
        let address = Address::v4(0xc000_0200);
        let address = if six { Address::v6([0x2001_0db8, 0, 0, 0]) } else { address };
        let listing = Listing { expires_s, id: 6, reason: 7, action: Action::Answer, list: 8 };
        Record { address, bits, listing }
    }

    fn encode(tables: &[&[Record]; 6]) -> Vec<u8> {
        let counts = tables.map(|t| u32::try_from(t.len()).expect("few"));
        let mut out = header(counts).to_vec();
        for r in tables.iter().flat_map(|t| t.iter()) {
            out.extend(r.to_octets());
        }
        out
    }

    #[test]
    fn a_set_reads_back() {
        let (four, six) = (record(false, 32), record(true, 64));
        let (net, net6) = (record(false, 24), record(true, 32));
        let octets = encode(&[&[four, four], &[six], &[net], &[net6], &[], &[net6]]);
        let set = Set::read(&octets).expect("sound");
        let read = |t| set.records(t).map(|r| r.expect("sound")).collect::<Vec<_>>();
        assert_eq!(read(Table::Hosts4), [four, four]);
        assert_eq!(read(Table::Hosts6), [six]);
        assert_eq!(read(Table::Networks4), [net]);
        assert_eq!(read(Table::Allowed6), [net6]);
        assert_eq!(read(Table::Allowed4), []);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let octets = encode(&[&[record(false, 24)], &[], &[], &[], &[], &[]]);
        let set = Set::read(&octets).expect("lengths are right");
        let first = set.records(Table::Hosts4).next();
        assert_eq!(first, Some(Err(SetError::Record(Table::Hosts4, 0))));
        let mut lapses = record(false, 32);
        lapses.listing.expires_s = 5;
        let wrong = encode(&[&[lapses], &[], &[], &[], &[], &[]]);
        let first = Set::read(&wrong).expect("lengths are right").records(Table::Hosts4).next();
        assert_eq!(first, Some(Err(SetError::Record(Table::Hosts4, 0))));
        assert_eq!(Set::read(&octets[1..]).err(), Some(SetError::Magic));
        assert_eq!(Set::read(&octets[..octets.len() - 1]).err(), Some(SetError::Length));
        let many = header([0, 0, NETWORKS_MAX + 1, 0, 0, 0]);
        assert_eq!(Set::read(&many).err(), Some(SetError::TooMany(Table::Networks4)));
    }

    #[test]
    fn masks_leave_the_prefix() {
        let all = Address::v6([u32::MAX; 4]);
        assert_eq!(masked(&all, 0).words, [0; 4]);
        assert_eq!(masked(&all, 33).words, [u32::MAX, 0x8000_0000, 0, 0]);
        assert_eq!(masked(&all, 128), all);
        assert_eq!(masked(&Address::v4(u32::MAX), 24).words, [0xffff_ff00, 0, 0, 0]);
    }
}
