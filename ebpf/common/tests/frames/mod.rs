//! Frames made by hand: an independent writer of what the parser reads.

#![allow(dead_code, reason = "each user needs a part of it")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const FIN: u8 = 0x01;
pub(crate) const RST: u8 = 0x04;

/// A TCP segment in a frame, described from the outside in.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) macs: [[u8; 6]; 2],
    pub(crate) tags: Vec<(u16, u16)>,
    pub(crate) tunnel: Vec<u8>,
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) options: usize,
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) fragment: u16,
    pub(crate) ports: (u16, u16),
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
    pub(crate) tcp_options: usize,
    pub(crate) data: Vec<u8>,
}

pub(crate) fn frame(from: &str, to: &str, flags: u8) -> Frame {
    Frame {
        macs: [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]],
        tags: Vec::new(),
        tunnel: Vec::new(),
        from: from.parse().expect("an address"),
        to: to.parse().expect("an address"),
        options: 0,
        extensions: Vec::new(),
        fragment: 0,
        ports: (40_000, 25),
        sequence: 0x0102_0304,
        acknowledgement: 0,
        flags,
        tcp_options: 0,
        data: Vec::new(),
    }
}

/// A sum of big-endian halves; written apart from the code under test.
pub(crate) fn sum(parts: &[&[u8]]) -> u16 {
    let all = parts.concat();
    let mut total: u64 = 0;
    for pair in all.chunks(2) {
        total += u64::from(pair[0]) * 256 + u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while total > 0xffff {
        total = total % 0x1_0000 + total / 0x1_0000;
    }
    !u16::try_from(total).expect("folded")
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

pub(crate) fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, bytes: usize) -> Vec<u8> {
    let bytes = u32::try_from(bytes).expect("small").to_be_bytes();
    [octets(from), octets(to), bytes.to_vec(), vec![0, 0, 0, protocol]].concat()
}

impl Frame {
    fn tcp(&self) -> Vec<u8> {
        let mut tcp = Vec::new();
        tcp.extend(self.ports.0.to_be_bytes());
        tcp.extend(self.ports.1.to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledgement.to_be_bytes());
        let words = u8::try_from(5 + self.tcp_options / 4).expect("at most 15");
        tcp.extend([words << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(vec![1; self.tcp_options]);
        tcp.extend(&self.data);
        let check = sum(&[&pseudo(self.from, self.to, 6, tcp.len()), &tcp]);
        tcp[16..18].copy_from_slice(&check.to_be_bytes());
        tcp
    }

    /// The packet without its link header.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let tcp = self.tcp();
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                packet4(from, to, 6, self.options, self.fragment, &tcp)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => packet6(from, to, 6, &self.extensions, &tcp),
            _ => panic!("two families in one packet"),
        }
    }

    pub(crate) fn octets(&self) -> Vec<u8> {
        let packet = [self.tunnel.clone(), self.packet()].concat();
        let six = packet[0] >> 4 == 6;
        let mut out = [self.macs[1], self.macs[0]].concat();
        for (kind, tag) in &self.tags {
            out.extend(kind.to_be_bytes());
            out.extend(tag.to_be_bytes());
        }
        out.extend(if six { [0x86, 0xdd] } else { [0x08, 0x00] });
        out.extend(packet);
        out
    }

    /// Wraps the packet in an IPv4 header of this protocol, with octets between.
    pub(crate) fn inside4(mut self, from: &str, to: &str, protocol: u8, between: &[u8]) -> Self {
        let inner = [between, &self.packet()].concat();
        let (from, to) = (from.parse().expect("IPv4"), to.parse().expect("IPv4"));
        let whole = packet4(from, to, protocol, 0, 0, &inner);
        self.tunnel = [&whole[..20], between].concat();
        self
    }

    pub(crate) fn inside6(mut self, from: &str, to: &str, protocol: u8) -> Self {
        let (from, to) = (from.parse().expect("IPv6"), to.parse().expect("IPv6"));
        let whole = packet6(from, to, protocol, &[], &self.packet());
        self.tunnel = whole[..40].to_vec();
        self
    }
}

fn packet4(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: u8,
    options: usize,
    fragment: u16,
    inner: &[u8],
) -> Vec<u8> {
    let words = u8::try_from(5 + options / 4).expect("at most 15");
    let bytes = u16::try_from(20 + options + inner.len()).expect("small");
    let mut out = vec![0x40 | words, 0];
    out.extend(bytes.to_be_bytes());
    out.extend([0, 7]);
    out.extend(fragment.to_be_bytes());
    out.extend([60, protocol, 0, 0]);
    out.extend(from.octets());
    out.extend(to.octets());
    out.extend(vec![1; options]);
    let check = sum(&[&out]);
    out[10..12].copy_from_slice(&check.to_be_bytes());
    out.extend(inner);
    out
}

fn packet6(
    from: Ipv6Addr,
    to: Ipv6Addr,
    protocol: u8,
    extensions: &[(u8, Vec<u8>)],
    inner: &[u8],
) -> Vec<u8> {
    let mut chain = Vec::new();
    for (n, (_, body)) in extensions.iter().enumerate() {
        chain.push(extensions.get(n + 1).map_or(protocol, |(kind, _)| *kind));
        chain.extend(body);
    }
    let first = extensions.first().map_or(protocol, |(kind, _)| *kind);
    let bytes = u16::try_from(chain.len() + inner.len()).expect("small");
    let mut out = vec![0x60, 0, 0, 0];
    out.extend(bytes.to_be_bytes());
    out.extend([first, 60]);
    out.extend(from.octets());
    out.extend(to.octets());
    out.extend(chain);
    out.extend(inner);
    out
}

/// Extension headers by kind: hop-by-hop of 16 octets, routing, options, a whole-packet fragment.
pub(crate) fn extensions(kinds: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let body = |kind: u8| match kind {
        0 => [vec![1, 1, 12], vec![0; 12]].concat(),
        44 => vec![0, 0, 0, 0, 0, 0, 9],
        51 => [vec![4], vec![0; 22]].concat(),
        _ => [vec![0, 1, 4], vec![0; 4]].concat(),
    };
    kinds.iter().map(|kind| (*kind, body(*kind))).collect()
}

/// A TCP reply taken apart and checked: headers, lengths, both checksums.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reply {
    pub(crate) macs: [[u8; 6]; 2],
    pub(crate) tag: Option<u16>,
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) ports: (u16, u16),
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
    pub(crate) data: Vec<u8>,
}

pub(crate) fn read(octets: &[u8]) -> Reply {
    let half = |at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
    let mac = |at: usize| <[u8; 6]>::try_from(&octets[at..at + 6]).expect("six");
    let (tag, at) = if half(12) == 0x8100 { (Some(half(14)), 18) } else { (None, 14) };
    let packet = &octets[at..];
    let (from, to, tcp): (IpAddr, IpAddr, &[u8]) = match half(at - 2) {
        0x0800 => {
            assert_eq!(packet[0], 0x45);
            assert_eq!(usize::from(half(at + 2)), packet.len(), "total length");
            assert_eq!(sum(&[&packet[..20]]), 0, "header checksum");
            assert_eq!((packet[8], packet[9]), (64, 6));
            let address = |o: &[u8]| Ipv4Addr::new(o[0], o[1], o[2], o[3]).into();
            (address(&packet[12..16]), address(&packet[16..20]), &packet[20..])
        }
        0x86dd => {
            assert_eq!(packet[0] >> 4, 6);
            assert_eq!(usize::from(half(at + 4)) + 40, packet.len(), "payload length");
            assert_eq!((packet[6], packet[7]), (6, 64));
            let address =
                |o: &[u8]| Ipv6Addr::from(<[u8; 16]>::try_from(o).expect("sixteen")).into();
            (address(&packet[8..24]), address(&packet[24..40]), &packet[40..])
        }
        other => panic!("ether type {other:04x}"),
    };
    assert_eq!(sum(&[&pseudo(from, to, 6, tcp.len()), tcp]), 0, "TCP checksum");
    let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    Reply {
        macs: [mac(0), mac(6)],
        tag,
        from,
        to,
        ports: (u16::from_be_bytes([tcp[0], tcp[1]]), u16::from_be_bytes([tcp[2], tcp[3]])),
        sequence: word(4),
        acknowledgement: word(8),
        flags: tcp[13],
        data: tcp[usize::from(tcp[12] >> 4) * 4..].to_vec(),
    }
}
