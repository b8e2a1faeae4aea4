//! What stands in the maps about a source: who listed it, why, until when, how far it may go.

use core::cell::Cell;

/// What is done with a SYN, mildest first. The smallest of what an entry asks for, its list's
/// ceiling and the mode counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Action {
    /// Nothing: the daemon hears the client and refuses it with the reason.
    Pass = 0,
    /// Counted and passed: what would have happened shows in the counters.
    Count = 1,
    /// Answered with the stateless 554.
    Answer = 2,
    /// Dropped without a word.
    Drop = 3,
}

impl Action {
    /// An unknown number is the mildest.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Count,
            2 => Self::Answer,
            3 => Self::Drop,
            _ => Self::Pass,
        }
    }

    /// The word used in configuration and status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Count => "count",
            Self::Answer => "answer",
            Self::Drop => "drop",
        }
    }
}

/// The value of bans and networks. Written once by user space; the filter changes only `heard`,
/// `hits` and `last_s`, by plain stores (the target has no atomics of 32 bits): two CPUs at once
/// may lose a hit, never more.
#[derive(Debug)]
#[repr(C)]
pub struct Entry {
    /// Second of the monotonic clock from which the entry is as good as absent; 0 is never.
    pub expires_s: u32,
    /// Given by who put it there, printed in the 554.
    pub id: u32,
    /// Index of counters and text.
    pub reason: u8,
    /// An [`Action`] by number.
    pub action: u8,
    /// Index of the ceilings.
    pub list: u8,
    /// Not 0 once an event told of it.
    pub heard: Cell<u8>,
    /// SYNs that met this entry.
    pub hits: Cell<u32>,
    /// Second of the last of them.
    pub last_s: Cell<u32>,
}

/// Octets of an [`Entry`].
pub const ENTRY_BYTES: usize = 20;

const _: () = assert!(size_of::<Entry>() == ENTRY_BYTES && align_of::<Entry>() == 4);

/// The value of listed hosts, which lapse only with their list. Of eight octets, because an
/// element of the kernel's hash is then one cache line with its key: among a million that nobody
/// else touches, a second line is a second wait for memory.
#[derive(Debug)]
#[repr(C)]
pub struct Host {
    /// Given by who put it there, printed in the 554.
    pub id: u32,
    /// Index of counters and text.
    pub reason: u8,
    /// An [`Action`] by number.
    pub action: u8,
    /// Index of the ceilings.
    pub list: u8,
    /// Not 0 once an event told of it; the only octet that the filter writes, once.
    pub heard: Cell<u8>,
}

/// Octets of a [`Host`].
pub const HOST_BYTES: usize = 8;

const _: () = assert!(size_of::<Host>() == HOST_BYTES && align_of::<Host>() == 4);

/// The part of an [`Entry`] that user space decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listing {
    /// Second of the monotonic clock at which it lapses; 0 is never.
    pub expires_s: u32,
    /// Printed in the 554.
    pub id: u32,
    /// Below [`crate::limits::REASONS_MAX`].
    pub reason: u8,
    /// How far it may go.
    pub action: Action,
    /// Below [`crate::limits::LISTS_MAX`].
    pub list: u8,
}

impl Listing {
    /// The octets of a fresh [`Entry`], never hit.
    #[must_use]
    pub fn to_entry(&self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[0..4].copy_from_slice(&self.expires_s.to_ne_bytes());
        out[4..8].copy_from_slice(&self.id.to_ne_bytes());
        out[8..11].copy_from_slice(&[self.reason, self.action as u8, self.list]);
        out
    }

    /// The octets of a fresh [`Host`].
    #[must_use]
    pub fn to_host(&self) -> [u8; HOST_BYTES] {
        let [a, b, c, d] = self.id.to_ne_bytes();
        [a, b, c, d, self.reason, self.action as u8, self.list, 0]
    }

    /// From the octets of a [`Host`], and whether an event told of it.
    #[must_use]
    pub fn from_host(octets: &[u8; HOST_BYTES]) -> (Self, bool) {
        let [a, b, c, d, reason, action, list, heard] = *octets;
        let (id, action) = (u32::from_ne_bytes([a, b, c, d]), Action::from_number(action));
        (Self { expires_s: 0, id, reason, action, list }, heard != 0)
    }

    /// From a map's octets, with its hits and the second of the last.
    #[must_use]
    pub fn from_entry(octets: &[u8; ENTRY_BYTES]) -> (Self, u32, u32) {
        let word = |at: usize| {
            u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
        };
        let listing = Self {
            expires_s: word(0),
            id: word(4),
            reason: octets[8],
            action: Action::from_number(octets[9]),
            list: octets[10],
        };
        (listing, word(12), word(16))
    }
}

impl Entry {
    /// Whether it still counts at this second.
    #[inline(always)]
    #[must_use]
    pub const fn live(&self, now_s: u32) -> bool {
        self.expires_s == 0 || self.expires_s > now_s
    }

    /// Notes a hit and returns how many there were before.
    #[inline(always)]
    pub fn hit(&self, now_s: u32) -> u32 {
        let hits = self.hits.get();
        self.hits.set(hits.wrapping_add(1));
        self.last_s.set(now_s);
        hits
    }
}

impl From<Listing> for Entry {
    fn from(listing: Listing) -> Self {
        Self {
            expires_s: listing.expires_s,
            id: listing.id,
            reason: listing.reason,
            action: listing.action as u8,
            list: listing.list,
            heard: Cell::new(0),
            hits: Cell::new(0),
            last_s: Cell::new(0),
        }
    }
}

impl From<Listing> for Host {
    fn from(listing: Listing) -> Self {
        Self {
            id: listing.id,
            reason: listing.reason,
            action: listing.action as u8,
            list: listing.list,
            heard: Cell::new(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_the_layout() {
        let listing = Listing { expires_s: 7, id: 9, reason: 1, action: Action::Drop, list: 3 };
        let octets = listing.to_entry();
        assert_eq!(core::mem::offset_of!(Entry, reason), 8);
        assert_eq!(core::mem::offset_of!(Entry, hits), 12);
        assert_eq!(core::mem::offset_of!(Entry, last_s), 16);
        assert_eq!(octets[8..12], [1, 3, 3, 0]);
        assert_eq!(Listing::from_entry(&octets), (listing, 0, 0));
        assert_eq!(core::mem::offset_of!(Host, reason), 4);
        assert_eq!(core::mem::offset_of!(Host, heard), 7);
        let mut octets = listing.to_host();
        assert_eq!(octets[4..], [1, 3, 3, 0]);
        let host = Listing { expires_s: 0, ..listing };
        assert_eq!(Listing::from_host(&octets), (host, false));
        octets[7] = 1;
        assert_eq!(Listing::from_host(&octets), (host, true));
    }

    #[test]
    fn it_lapses_by_itself() {
        let mut entry = Entry::from(Listing {
            expires_s: 100,
            id: 0,
            reason: 0,
            action: Action::Answer,
            list: 0,
        });
        assert!(entry.live(99));
        assert!(!entry.live(100));
        entry.expires_s = 0;
        assert!(entry.live(u32::MAX));
        assert_eq!(entry.hit(5), 0);
        assert_eq!(entry.hit(6), 1);
        assert_eq!(entry.last_s.get(), 6);
    }
}
