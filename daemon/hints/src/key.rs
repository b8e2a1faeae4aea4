//! Keys: octets as the caller has them, and the two forms in which addresses become keys.
//!
//! *Guarantees*: an address key begins with the number of octets that follow (4, 8 or 16), which
//! no domain or mail address begins with, so the two never meet; an IPv4-mapped IPv6 address is the
//! IPv4 address.

use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::bits;
use crate::limits::KEY_OCTETS_MAX;

const KEY_WORDS: usize = KEY_OCTETS_MAX / 8;

/// The octets of a key as a record keeps them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key {
    octets: [u8; KEY_OCTETS_MAX],
    len: u8,
    cut: bool,
}

impl Key {
    /// The key as it will be kept: a longer one is cut, its hash then tells it from others.
    #[must_use]
    pub fn new(full: &[u8]) -> Self {
        let len = full.len().min(KEY_OCTETS_MAX);
        let mut octets = [0; KEY_OCTETS_MAX];
        octets[..len].copy_from_slice(&full[..len]);
        Self {
            octets,
            len: u8::try_from(len).expect("at most KEY_OCTETS_MAX"),
            cut: full.len() > KEY_OCTETS_MAX,
        }
    }

    /// The octets kept.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }

    /// Whether the key was longer than what is kept.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    /// The key as people write it: an address, or text with odd octets escaped.
    #[must_use]
    pub fn text(&self) -> KeyText<'_> {
        KeyText(self.octets(), self.cut)
    }

    /// The octets for what a person wrote: addresses and `/64` networks become address keys, all
    /// else is taken as it stands.
    #[must_use]
    pub fn octets_of_text(text: &str) -> Vec<u8> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return address_key(ip).as_ref().to_vec();
        }
        if let Some(Ok(ip)) = text.strip_suffix("/64").map(str::parse::<Ipv6Addr>) {
            return client_key(IpAddr::V6(ip)).as_ref().to_vec();
        }
        text.as_bytes().to_vec()
    }

    pub(crate) fn words(&self) -> [u64; KEY_WORDS] {
        let mut words = [0; KEY_WORDS];
        bits::pack(&self.octets, &mut words);
        words
    }

    /// `None` if the length is out of bounds.
    pub(crate) fn from_words(words: &[u64], len: u8, cut: bool) -> Option<Self> {
        if usize::from(len) > KEY_OCTETS_MAX {
            return None;
        }
        let mut octets = [0; KEY_OCTETS_MAX];
        bits::unpack(words, &mut octets[..usize::from(len)]);
        Some(Self { octets, len, cut })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.text())
    }
}

/// A key written for people, 7 bit: see [`Key::text`].
#[derive(Clone, Copy, Debug)]
pub struct KeyText<'k>(pub &'k [u8], pub bool);

impl fmt::Display for KeyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self.0 {
            [4, a, b, c, d] => return write!(f, "{}", Ipv4Addr::new(a, b, c, d)),
            [8, ref net @ ..] if net.len() == 8 => {
                let mut octets = [0; 16];
                octets[..8].copy_from_slice(net);
                return write!(f, "{}/64", Ipv6Addr::from(octets));
            }
            [16, ref host @ ..] => {
                if let Ok(octets) = <[u8; 16]>::try_from(host) {
                    return write!(f, "{}", Ipv6Addr::from(octets));
                }
            }
            _ => {}
        }
        for &octet in self.0 {
            match octet {
                b'\\' => f.write_str("\\\\")?,
                b'!'..=b'~' => write!(f, "{}", char::from(octet))?,
                _ => write!(f, "\\x{octet:02x}")?,
            }
        }
        if self.1 { f.write_str("...") } else { Ok(()) }
    }
}

/// An address as key octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressKey {
    octets: [u8; 17],
    len: usize,
}

impl AddressKey {
    fn new(address: &[u8]) -> Self {
        let mut octets = [0; 17];
        octets[0] = u8::try_from(address.len()).expect("at most 16");
        octets[1..=address.len()].copy_from_slice(address);
        Self { octets, len: address.len() + 1 }
    }
}

impl AsRef<[u8]> for AddressKey {
    fn as_ref(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

/// The key under which a client is counted: the IPv4 address, or the /64 of the IPv6 address
/// (one customer has at least that much, and walks through it at will).
#[must_use]
pub fn client_key(address: IpAddr) -> AddressKey {
    match address.to_canonical() {
        IpAddr::V4(v4) => AddressKey::new(&v4.octets()),
        IpAddr::V6(v6) => AddressKey::new(&v6.octets()[..8]),
    }
}

/// The key of one host, for destinations.
#[must_use]
pub fn address_key(address: IpAddr) -> AddressKey {
    match address.to_canonical() {
        IpAddr::V4(v4) => AddressKey::new(&v4.octets()),
        IpAddr::V6(v6) => AddressKey::new(&v6.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_is_its_ipv4_address_or_its_64() {
        assert_eq!(client_key(ip("192.0.2.7")).as_ref(), [4, 192, 0, 2, 7]);
        assert_eq!(client_key(ip("::ffff:192.0.2.7")), client_key(ip("192.0.2.7")));
        assert_eq!(client_key(ip("2001:db8::1")), client_key(ip("2001:db8::ffff:1")));
        assert_ne!(client_key(ip("2001:db8::1")), client_key(ip("2001:db8:0:1::1")));
        assert_ne!(address_key(ip("2001:db8::1")), address_key(ip("2001:db8::2")));
    }

    #[test]
    fn text_leads_back_to_the_key() {
        for text in ["192.0.2.7", "2001:db8::/64", "2001:db8::1", "mx.example.org", "a@b"] {
            assert_eq!(Key::new(&Key::octets_of_text(text)).text().to_string(), text);
        }
        assert_eq!(Key::new(b"\x04 \xff\\").text().to_string(), "\\x04\\x20\\xff\\\\");
        assert_eq!(Key::new(&[b'x'; 99]).text().to_string(), "x".repeat(64) + "...");
    }

    #[test]
    fn words_lead_back_and_lengths_are_checked() {
        let key = Key::new(b"mx.example.org");
        assert_eq!(Key::from_words(&key.words(), 14, false), Some(key));
        assert_eq!(Key::from_words(&key.words(), 65, false), None);
    }
}
