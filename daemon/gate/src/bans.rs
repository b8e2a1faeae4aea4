//! Live bans through the descriptors that the gate lends: what the mail process holds.
//!
//! *Guarantees*: works without any privilege on descriptors given by the gate. Every ban has an
//! end, in the kernel's table itself: it lapses when nobody is left to remove it.
//!
//! *Failure*: a full table is [`std::io::ErrorKind::StorageFull`] or `ArgumentListTooLong`
//! (`E2BIG`); nothing is ever put out to make room.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use ebpf_common::entry::{ENTRY_BYTES, Listing};
use ebpf_common::limits::BAN_LOCAL_S_MAX;
use ebpf_common::packet::Address;

use crate::kernel::monotonic_s;
use crate::map::Map;

/// A ban as it stands in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ban {
    /// The host; of an IPv6 address the upper half counts and the rest is zero.
    pub host: IpAddr,
    /// Why, how far, until when.
    pub listing: Listing,
    /// SYNs that met it.
    pub hits: u32,
    /// Second of the monotonic clock of the last, 0 without one.
    pub last_s: u32,
}

/// The two tables of bans.
#[derive(Debug)]
pub struct Bans {
    four: Map<4, ENTRY_BYTES>,
    six: Map<8, ENTRY_BYTES>,
}

/// The address as the filter's words.
pub(crate) fn words(host: IpAddr) -> Address {
    match host {
        IpAddr::V4(four) => Address::v4(four.to_bits()),
        IpAddr::V6(six) => Address::from_octets6(six.octets()),
    }
}

enum Key {
    Four([u8; 4]),
    Six([u8; 8]),
}

fn key(host: IpAddr) -> Key {
    let address = words(host.to_canonical());
    if address.six {
        Key::Six(address.high().to_ne_bytes())
    } else {
        Key::Four(address.words[0].to_ne_bytes())
    }
}

fn host4(key: [u8; 4]) -> IpAddr {
    IpAddr::V4(u32::from_ne_bytes(key).into())
}

fn host6(key: [u8; 8]) -> IpAddr {
    IpAddr::V6((u128::from(u64::from_ne_bytes(key)) << 64).into())
}

fn ban(host: IpAddr, entry: &[u8; ENTRY_BYTES]) -> Ban {
    let (listing, hits, last_s) = Listing::from_entry(entry);
    Ban { host, listing, hits, last_s }
}

impl Bans {
    /// On the descriptors of the IPv4 and the IPv6 table.
    #[must_use]
    pub const fn new(four: OwnedFd, six: OwnedFd) -> Self {
        Self { four: Map::new(four), six: Map::new(six) }
    }

    /// Bans a host, or changes its ban; hits begin anew.
    ///
    /// # Errors
    /// Without an end, or with one further off than any ban may be, `InvalidInput`; a full
    /// table as the module says.
    pub fn put(&self, host: IpAddr, listing: &Listing) -> io::Result<()> {
        let now_s = monotonic_s();
        if listing.expires_s == 0 || listing.expires_s > now_s.saturating_add(BAN_LOCAL_S_MAX) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a ban needs a near end"));
        }
        match key(host) {
            Key::Four(key) => self.four.put(&key, &listing.to_entry()),
            Key::Six(key) => self.six.put(&key, &listing.to_entry()),
        }
    }

    /// The ban of a host, lapsed or not.
    ///
    /// # Errors
    /// Of the system call.
    pub fn get(&self, host: IpAddr) -> io::Result<Option<Ban>> {
        let found = match key(host) {
            Key::Four(key) => self.four.get(&key)?.map(|entry| ban(host4(key), &entry)),
            Key::Six(key) => self.six.get(&key)?.map(|entry| ban(host6(key), &entry)),
        };
        Ok(found)
    }

    /// Lifts a ban; `false` if there was none.
    ///
    /// # Errors
    /// Of the system call.
    pub fn remove(&self, host: IpAddr) -> io::Result<bool> {
        match key(host) {
            Key::Four(key) => self.four.remove(&key),
            Key::Six(key) => self.six.remove(&key),
        }
    }

    /// At most `most` bans of each family.
    ///
    /// # Errors
    /// Of the system call.
    pub fn list(&self, most: usize) -> io::Result<Vec<Ban>> {
        let mut bans = Vec::new();
        for key in self.four.keys(None, most)? {
            bans.extend(self.four.get(&key)?.map(|entry| ban(host4(key), &entry)));
        }
        for key in self.six.keys(None, most)? {
            bans.extend(self.six.get(&key)?.map(|entry| ban(host6(key), &entry)));
        }
        Ok(bans)
    }

    /// Removes what lapsed before `now_s` and returns how many. The filter needs no help with
    /// that; it makes room.
    ///
    /// # Errors
    /// Of the system call.
    pub fn sweep(&self, now_s: u32) -> io::Result<usize> {
        let mut removed = 0;
        for lapsed in self.list(usize::MAX)?.into_iter().filter(|b| b.listing.expires_s <= now_s) {
            removed += usize::from(self.remove(lapsed.host)?);
        }
        Ok(removed)
    }
}

/// The word by which the daemon says that it accepts; without it the 554 stands down.
#[derive(Debug)]
pub struct Accepting(Map<4, 4>);

impl Accepting {
    /// On the descriptor lent by the gate.
    #[must_use]
    pub const fn new(fd: OwnedFd) -> Self {
        Self(Map::new(fd))
    }

    /// Holds until this second of the monotonic clock; to be renewed well before. 0 withdraws.
    ///
    /// # Errors
    /// Of the system call.
    pub fn until(&self, second: u32) -> io::Result<()> {
        self.0.put(&[0; 4], &second.to_ne_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_host_or_its_64() {
        let same = |a: &str, b: &str| match (key(a.parse().unwrap()), key(b.parse().unwrap())) {
            (Key::Four(a), Key::Four(b)) => a == b,
            (Key::Six(a), Key::Six(b)) => a == b,
            _ => false,
        };
        assert!(same("2001:db8::1", "2001:db8::ffff:2"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert_eq!(host4(192_u32.to_ne_bytes()).to_string(), "0.0.0.192");
        let high = 0x2001_0db8_0000_0001_u64;
        assert_eq!(host6(high.to_ne_bytes()).to_string(), "2001:db8:0:1::");
    }
}
