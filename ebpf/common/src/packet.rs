//! From a frame to the TCP header that may be judged.
//!
//! *Guarantees*: what cannot be parsed is `None`, and the filter passes it: later fragments,
//! deep chains of extension headers, truncated frames, everything that is not TCP. Each read is
//! bounded by the frame. IP options and up to [`TAGS_MAX`] VLAN tags are stepped over; a tunnel
//! is opened only when it is configured and ends here.
//!
//! *Not here*: checksums of what arrives. A packet with a wrong one is judged like any other; the
//! stack would have dropped it.

use crate::limits::{EXTENSIONS_MAX, OFFSET_MAX, TAGS_MAX};

/// Lends the octets of a frame. `offset` may be any number; beyond the frame is `None`.
pub trait Frame {
    /// One octet.
    fn octet(&self, offset: usize) -> Option<u8>;
    /// Two octets, big-endian.
    fn half(&self, offset: usize) -> Option<u16>;
    /// Four octets, big-endian.
    fn word(&self, offset: usize) -> Option<u32>;
    /// Whether the frame has at least this many octets.
    fn reaches(&self, length: usize) -> bool;
    /// The same number, at most [`OFFSET_MAX`]. The kernel's verifier forgets where it came from,
    /// so that paths which differ only in such a number become one: without this it would walk
    /// the product of tags, options, extension headers and tunnels.
    fn forget(&self, number: usize) -> usize {
        number
    }
}

impl Frame for [u8] {
    fn octet(&self, offset: usize) -> Option<u8> {
        self.get(offset).copied()
    }
    fn half(&self, offset: usize) -> Option<u16> {
        let octets = self.get(offset..offset.checked_add(2)?)?;
        Some(u16::from_be_bytes([octets[0], octets[1]]))
    }
    fn word(&self, offset: usize) -> Option<u32> {
        let octets = self.get(offset..offset.checked_add(4)?)?;
        Some(u32::from_be_bytes([octets[0], octets[1], octets[2], octets[3]]))
    }
    fn reaches(&self, length: usize) -> bool {
        self.len() >= length
    }
}

/// An address: an IPv4 address is word 0. Words are in host order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// Whether all four words count.
    pub six: bool,
    /// The words, most significant first.
    pub words: [u32; 4],
}

impl Address {
    /// An IPv4 address in host order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(word: u32) -> Self {
        Self { six: false, words: [word, 0, 0, 0] }
    }

    /// An IPv6 address.
    #[inline(always)]
    #[must_use]
    pub const fn v6(words: [u32; 4]) -> Self {
        Self { six: true, words }
    }

    /// From its octets, most significant first.
    #[must_use]
    pub const fn from_octets6(o: [u8; 16]) -> Self {
        let mut words = [0; 4];
        let mut n = 0;
        while n < 4 {
            words[n] = u32::from_be_bytes([o[4 * n], o[4 * n + 1], o[4 * n + 2], o[4 * n + 3]]);
            n += 1;
        }
        Self::v6(words)
    }

    /// The key of a single IPv6 host: its network of 64 bits.
    #[inline(always)]
    #[must_use]
    pub const fn high(&self) -> u64 {
        (self.words[0] as u64) << 32 | self.words[1] as u64
    }
}

/// FIN of [`Segment::flags`].
pub const FIN: u8 = 0x01;
/// SYN of [`Segment::flags`].
pub const SYN: u8 = 0x02;
/// RST of [`Segment::flags`].
pub const RST: u8 = 0x04;
/// PSH of [`Segment::flags`].
pub const PSH: u8 = 0x08;
/// ACK of [`Segment::flags`].
pub const ACK: u8 = 0x10;

const ETHERNET_BYTES: usize = 14;
const ETHERTYPE_V4: u16 = 0x0800;
const ETHERTYPE_V6: u16 = 0x86dd;
const ETHERTYPE_TAG: u16 = 0x8100;
const ETHERTYPE_TAG_OUTER: u16 = 0x88a8;
const PROTOCOL_V4: u8 = 4;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_V6: u8 = 41;

/// How packets reach this machine through an L4 switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tunnel {
    /// As the client sent them; also direct server return by MAC.
    Direct,
    /// IP in IP, any mixture of the two families.
    Ipip,
    /// Generic UDP encapsulation, variants 0 and 1, to this port.
    Gue(u16),
}

/// A TCP header and where it came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// VLAN tags before the network header.
    pub tags: u8,
    /// The tag control information of the last tag, 0 without one.
    pub tag: u16,
    /// The client, as the innermost header says.
    pub source: Address,
    /// The address it speaks to.
    pub destination: Address,
    /// The client's port.
    pub source_port: u16,
    /// The port it speaks to.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// FIN, SYN, RST, PSH, ACK and the rest.
    pub flags: u8,
    /// Octets of data behind the TCP header.
    pub data_bytes: u16,
}

/// An IP header that was stepped over.
struct Network {
    source: Address,
    destination: Address,
    protocol: u8,
    /// Where the next header begins.
    next: usize,
    /// Where the packet ends, by its own length field.
    end: usize,
}

/// Finds the TCP header. `ends` says whether a tunnel's outer destination is ours.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(
    frame: &F,
    tunnel: Tunnel,
    ends: impl Fn(&Address) -> bool,
) -> Option<Segment> {
    let mut kind = frame.half(12)?;
    let mut at = ETHERNET_BYTES;
    let mut tags = 0;
    let mut tag = 0;
    for _ in 0..TAGS_MAX {
        if kind == ETHERTYPE_TAG || kind == ETHERTYPE_TAG_OUTER {
            tag = frame.half(at)?;
            kind = frame.half(at + 2)?;
            at += 4;
            tags += 1;
        }
    }
    let at = frame.forget(at);
    let tags = frame.forget(tags);
    let mut network = match kind {
        ETHERTYPE_V4 => version4(frame, at)?,
        ETHERTYPE_V6 => version6(frame, at)?,
        _ => return None,
    };
    if network.protocol != PROTOCOL_TCP {
        let (at, six) = inner(frame, tunnel, &network)?;
        if !ends(&network.destination) {
            return None;
        }
        network = if six { version6(frame, at)? } else { version4(frame, at)? };
    }
    if network.protocol != PROTOCOL_TCP {
        return None;
    }
    let at = network.next;
    let ports = frame.word(at)?;
    let offset_flags = frame.half(at + 12)?;
    let header = usize::from(offset_flags >> 12) * 4;
    if header < 20 || at + header > network.end || !frame.reaches(network.end) {
        return None;
    }
    Some(Segment {
        tags: tags as u8,
        tag,
        source: network.source,
        destination: network.destination,
        source_port: (ports >> 16) as u16,
        destination_port: (ports & 0xffff) as u16,
        sequence: frame.word(at + 4)?,
        acknowledgement: frame.word(at + 8)?,
        flags: (offset_flags & 0x3f) as u8,
        data_bytes: ((network.end - at - header) & 0xffff) as u16,
    })
}

/// Where the packet inside a tunnel begins, and whether it is IPv6.
#[inline(always)]
fn inner<F: Frame + ?Sized>(frame: &F, tunnel: Tunnel, network: &Network) -> Option<(usize, bool)> {
    let by_protocol = |protocol| match protocol {
        PROTOCOL_V4 => Some(false),
        PROTOCOL_V6 => Some(true),
        _ => None,
    };
    match tunnel {
        Tunnel::Direct => None,
        Tunnel::Ipip => Some((network.next, by_protocol(network.protocol)?)),
        Tunnel::Gue(port) => {
            let at = network.next;
            if network.protocol != PROTOCOL_UDP || frame.half(at + 2)? != port {
                return None;
            }
            // Variant 1 has no header of its own: the first four bits are the IP version.
            let first = frame.octet(at + 8)?;
            match first >> 4 {
                4 => return Some((at + 8, false)),
                6 => return Some((at + 8, true)),
                _ => {}
            }
            // Variant 0, not a control message; its length counts words after the first.
            if first & 0xe0 != 0 {
                return None;
            }
            let six = by_protocol(frame.octet(at + 9)?)?;
            Some((at + 12 + usize::from(first & 0x1f) * 4, six))
        }
    }
}

#[inline(always)]
fn version4<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Network> {
    let first = frame.octet(at)?;
    let header = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header < 20 {
        return None;
    }
    // A later fragment has no ports; a first one is judged if its TCP header is whole.
    if frame.half(at + 6)? & 0x1fff != 0 {
        return None;
    }
    Some(Network {
        source: Address::v4(frame.word(at + 12)?),
        destination: Address::v4(frame.word(at + 16)?),
        protocol: frame.octet(at + 9)?,
        next: frame.forget(at + header),
        end: at + usize::from(frame.half(at + 2)?),
    })
}

#[inline(always)]
fn version6<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Network> {
    if frame.octet(at)? >> 4 != 6 {
        return None;
    }
    let mut protocol = frame.octet(at + 6)?;
    let end = at + 40 + usize::from(frame.half(at + 4)?);
    let mut next = at + 40;
    for _ in 0..EXTENSIONS_MAX {
        let bytes = match protocol {
            // Hop-by-hop, routing, destination options, mobility.
            0 | 43 | 60 | 135 => usize::from(frame.octet(next + 1)?) * 8 + 8,
            // Authentication header: in words, less two.
            51 => usize::from(frame.octet(next + 1)?) * 4 + 8,
            // A fragment that is the whole packet, or the first of several, is judged.
            44 if frame.half(next + 2)? & 0xfff8 == 0 => 8,
            44 => return None,
            _ => break,
        };
        protocol = frame.octet(next)?;
        next += bytes;
        if next > OFFSET_MAX {
            return None;
        }
        next = frame.forget(next);
    }
    Some(Network {
        source: address6(frame, at + 8)?,
        destination: address6(frame, at + 24)?,
        protocol,
        next,
        end,
    })
}

#[inline(always)]
fn address6<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Address> {
    Some(Address::v6([
        frame.word(at)?,
        frame.word(at + 4)?,
        frame.word(at + 8)?,
        frame.word(at + 12)?,
    ]))
}
