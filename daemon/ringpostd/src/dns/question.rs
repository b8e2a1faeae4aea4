//! A question, ready for the wire.

use std::fmt;
use std::net::IpAddr;

use hickory_proto::rr::RecordType;

use super::limits::{LABEL_OCTETS_MAX, NAME_OCTETS_MAX, UDP_OCTETS_MAX};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Mail exchangers.
    Mx,
    /// Names of an address.
    Ptr,
    /// Texts.
    Txt,
}

impl Kind {
    pub(super) const fn record_type(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Mx => RecordType::MX,
            Self::Ptr => RecordType::PTR,
            Self::Txt => RecordType::TXT,
        }
    }
}

/// A name that cannot be asked for: empty or long labels, or too long as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadName;

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a name the DNS can hold")
    }
}

impl std::error::Error for BadName {}

/// A name, a type, and the Internet class, as they stand in a message (RFC 1035 4.1.2).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Question {
    kind: Kind,
    /// Lower-case name, type, class.
    wire: Box<[u8]>,
}

/// Octets of type and class.
const TAIL_OCTETS: usize = 4;
/// Octets of a message's header.
pub(super) const HEADER_OCTETS: usize = 12;
/// Recursion desired, and "tell us whether it was validated" (RFC 6840 5.7).
const FLAGS: u16 = 0x0120;
/// An empty name, OPT, our UDP size, no flags, no options (RFC 6891 6.1.2).
const OPT: [u8; 11] = {
    let [high, low] = UDP_OCTETS_MAX.to_be_bytes();
    [0, 0, 41, high, low, 0, 0, 0, 0, 0, 0]
};

impl Question {
    /// Asks for `name`, with or without trailing dot; dots part labels, every other octet stands
    /// for itself.
    ///
    /// # Errors
    /// [`BadName`].
    pub fn new(name: &[u8], kind: Kind) -> Result<Self, BadName> {
        let name = name.strip_suffix(b".").unwrap_or(name);
        let mut wire = Vec::with_capacity(name.len() + 2 + TAIL_OCTETS);
        if !name.is_empty() {
            for label in name.split(|octet| *octet == b'.') {
                let length = u8::try_from(label.len()).map_err(|_| BadName)?;
                if label.is_empty() || label.len() > LABEL_OCTETS_MAX {
                    return Err(BadName);
                }
                wire.push(length);
                wire.extend(label.iter().map(u8::to_ascii_lowercase));
            }
        }
        wire.push(0);
        if wire.len() > NAME_OCTETS_MAX {
            return Err(BadName);
        }
        wire.extend_from_slice(&u16::from(kind.record_type()).to_be_bytes());
        wire.extend_from_slice(&[0, 1]);
        Ok(Self { kind, wire: wire.into_boxed_slice() })
    }

    /// Asks for the names of an address (RFC 1035 3.5, RFC 3596 2.5).
    #[must_use]
    pub fn reverse(address: IpAddr) -> Self {
        let name = match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                format!("{d}.{c}.{b}.{a}.in-addr.arpa")
            }
            IpAddr::V6(v6) => {
                let mut name = String::with_capacity(72);
                for octet in v6.octets().iter().rev() {
                    for nibble in [octet & 15, octet >> 4] {
                        name.extend(char::from_digit(nibble.into(), 16));
                        name.push('.');
                    }
                }
                name + "ip6.arpa"
            }
        };
        Self::new(name.as_bytes(), Kind::Ptr).expect("an address makes a short name")
    }

    /// What is asked for.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The name as text, for the house's resolver, with a trailing dot; octets that are not text
    /// are escaped.
    pub(super) fn name(&self) -> hickory_proto::rr::Name {
        let labels = Labels(&self.wire);
        hickory_proto::rr::Name::from_labels(labels)
            .expect("lengths were checked when the question was made")
    }

    /// Appends the message that asks. `mix` are random bits, one for each letter's case (used round
    /// and round); 0 leaves lower case.
    pub(super) fn write(&self, id: u16, mix: u64, edns: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&FLAGS.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
        self.write_mixed(mix, out);
        if edns {
            out.extend_from_slice(&OPT);
        }
    }

    /// The question section alone.
    fn write_mixed(&self, mix: u64, out: &mut Vec<u8>) {
        let (name, tail) = self.split();
        // Length octets are below 64: no letters.
        out.extend(
            name.iter().zip(bits(mix)).map(
                |(octet, upper)| {
                    if upper { octet.to_ascii_uppercase() } else { *octet }
                },
            ),
        );
        out.extend_from_slice(tail);
    }

    /// Whether the question section of a message is this one. With `mix` letter case counts.
    pub(super) fn is_asked_by(&self, message: &[u8], mix: Option<u64>) -> bool {
        let end = HEADER_OCTETS + self.wire.len();
        let (Some([0, 1]), Some(section)) = (message.get(4..6), message.get(HEADER_OCTETS..end))
        else {
            return false;
        };
        let (name, tail) = self.split();
        let (their_name, their_tail) = section.split_at(name.len());
        if tail != their_tail || !name.eq_ignore_ascii_case(their_name) {
            return false;
        }
        mix.is_none_or(|mix| {
            name.iter().zip(their_name).zip(bits(mix)).all(|((ours, theirs), upper)| {
                *theirs == if upper { ours.to_ascii_uppercase() } else { *ours }
            })
        })
    }

    /// Where the answer section of a message with this question begins.
    pub(super) fn answers_at(&self) -> usize {
        HEADER_OCTETS + self.wire.len()
    }

    fn split(&self) -> (&[u8], &[u8]) {
        self.wire.split_at(self.wire.len() - TAIL_OCTETS)
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), self.kind.record_type())
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn bits(mix: u64) -> impl Iterator<Item = bool> {
    (0..u64::BITS).cycle().map(move |bit| mix >> bit & 1 == 1)
}

/// The labels of a name on the wire.
struct Labels<'a>(&'a [u8]);

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first().filter(|(length, _)| **length > 0)?;
        let (label, rest) = rest.split_at_checked(usize::from(*length))?;
        self.0 = rest;
        Some(label)
    }
}
