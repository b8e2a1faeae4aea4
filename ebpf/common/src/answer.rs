//! Frames of the stateless answer: SYN-ACK, the 554 with FIN, acknowledgements.
//!
//! *Guarantees*: complete headers with right checksums; IPv4 without options, IPv6 without
//! extension headers, TCP without options (a client then sends segments of 536 octets at most,
//! and it has little to say). The tag of the question is the tag of the answer.
//!
//! *Not here*: choosing the way back; the shell asks the kernel's routing table.

use crate::checksum;
use crate::limits::{ANSWER_BYTES, ANSWER_LINK_BYTES, TEXT_BYTES};
use crate::packet::{ACK, FIN, PSH, SYN, Segment};
use crate::text::{ADDRESS_AT, ID_AT, TEXT_ROW_BYTES, Text};

/// The buffer an answer is built in.
pub type Buffer = [u8; ANSWER_BYTES];

/// Addresses of the link the answer leaves by.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// The next hop.
    pub destination: [u8; 6],
    /// The interface.
    pub source: [u8; 6],
}

/// What is said.
#[derive(Clone, Copy, Debug)]
pub enum Say<'a> {
    /// SYN-ACK with this sequence number.
    Open(u32),
    /// The 554 with PSH and FIN, this id in it.
    Refuse(&'a Text, u32),
    /// An acknowledgement.
    Acknowledge,
}

/// Window offered: room for one QUIT and a little more.
const WINDOW: u16 = 1024;

/// Hops an answer may take.
const HOPS: u8 = 64;

const TCP_BYTES: usize = 20;
const V4_BYTES: usize = 20;
const V6_BYTES: usize = 40;
const NET: usize = ANSWER_LINK_BYTES;

/// Octets of the frame that [`build`] will make.
#[inline(always)]
#[must_use]
pub const fn length(segment: &Segment, say: &Say<'_>) -> usize {
    let link = if segment.tags == 0 { 14 } else { 18 };
    let net = if segment.source.six { V6_BYTES } else { V4_BYTES };
    let text = if matches!(say, Say::Refuse(..)) { TEXT_BYTES } else { 0 };
    link + net + TCP_BYTES + text
}

/// Builds the answer; the frame begins at the returned offset and has [`length`] octets.
#[inline(always)]
pub fn build(out: &mut Buffer, segment: &Segment, link: &Link, say: &Say<'_>) -> usize {
    let start = ethernet(out, segment, link);
    if segment.source.six {
        let sum = version6(out, segment, say);
        tcp::<{ NET + V6_BYTES }>(out, segment, say, sum);
    } else {
        let sum = version4(out, segment, say);
        tcp::<{ NET + V4_BYTES }>(out, segment, say, sum);
    }
    start
}

#[inline(always)]
const fn half(out: &mut Buffer, at: usize, half: u16) {
    out[at] = (half >> 8) as u8;
    out[at + 1] = (half & 0xff) as u8;
}

#[inline(always)]
const fn word(out: &mut Buffer, at: usize, word: u32) {
    half(out, at, (word >> 16) as u16);
    half(out, at + 2, (word & 0xffff) as u16);
}

/// Right-aligned before the network header: 14 octets, or 18 with the tag.
#[inline(always)]
fn ethernet(out: &mut Buffer, segment: &Segment, link: &Link) -> usize {
    half(out, NET - 2, if segment.source.six { 0x86dd } else { 0x0800 });
    if segment.tags == 0 {
        out[4..10].copy_from_slice(&link.destination);
        out[10..16].copy_from_slice(&link.source);
        4
    } else {
        out[0..6].copy_from_slice(&link.destination);
        out[6..12].copy_from_slice(&link.source);
        half(out, 12, 0x8100);
        // Priority and drop bit are the sender's business.
        half(out, 14, segment.tag & 0x0fff);
        0
    }
}

/// Octets behind the network header.
#[inline(always)]
const fn inside(say: &Say<'_>) -> u16 {
    (if matches!(say, Say::Refuse(..)) { TCP_BYTES + TEXT_BYTES } else { TCP_BYTES }) as u16
}

/// Writes the header and returns the sum of the pseudo header.
#[inline(always)]
fn version4(out: &mut Buffer, segment: &Segment, say: &Say<'_>) -> u32 {
    let inside = inside(say);
    let (from, to) = (segment.destination.words[0], segment.source.words[0]);
    half(out, NET, 0x4500);
    half(out, NET + 2, inside + V4_BYTES as u16);
    // Identification 0, do not fragment, offset 0.
    word(out, NET + 4, 0x4000);
    half(out, NET + 8, (HOPS as u16) << 8 | 6);
    word(out, NET + 12, from);
    word(out, NET + 16, to);
    let addresses = checksum::add_word(checksum::add_word(0, from), to);
    let fields = 0x4500 + u32::from(inside) + V4_BYTES as u32 + 0x4000;
    half(out, NET + 10, checksum::finish(addresses + fields + u32::from(HOPS) * 256 + 6));
    addresses + 6 + u32::from(inside)
}

/// Writes the header and returns the sum of the pseudo header.
#[inline(always)]
fn version6(out: &mut Buffer, segment: &Segment, say: &Say<'_>) -> u32 {
    let inside = inside(say);
    word(out, NET, 0x6000_0000);
    half(out, NET + 4, inside);
    half(out, NET + 6, 6 << 8 | HOPS as u16);
    let mut sum = 6 + u32::from(inside);
    for n in 0..4 {
        let (from, to) = (segment.destination.words[n], segment.source.words[n]);
        word(out, NET + 8 + 4 * n, from);
        word(out, NET + 24 + 4 * n, to);
        sum = checksum::add_word(checksum::add_word(sum, from), to);
    }
    sum
}

#[inline(always)]
fn tcp<const AT: usize>(out: &mut Buffer, segment: &Segment, say: &Say<'_>, mut sum: u32) {
    let fin = u32::from(segment.flags & FIN);
    let heard = segment.sequence.wrapping_add(u32::from(segment.data_bytes)).wrapping_add(fin);
    let (sequence, acknowledgement, flags) = match say {
        Say::Open(sequence) => (*sequence, segment.sequence.wrapping_add(1), SYN | ACK),
        Say::Refuse(..) => (segment.acknowledgement, heard, PSH | FIN | ACK),
        Say::Acknowledge => (segment.acknowledgement, heard, ACK),
    };
    let ports = u32::from(segment.destination_port) << 16 | u32::from(segment.source_port);
    let control = 0x5000 | u16::from(flags);
    word(out, AT, ports);
    word(out, AT + 4, sequence);
    word(out, AT + 8, acknowledgement);
    half(out, AT + 12, control);
    half(out, AT + 14, WINDOW);
    half(out, AT + 18, 0);
    sum = checksum::add_word(checksum::add_word(sum, ports), sequence);
    sum = checksum::add_word(sum, acknowledgement) + u32::from(control) + u32::from(WINDOW);
    if let Say::Refuse(text, id) = say {
        let at = AT + TCP_BYTES;
        #[expect(clippy::manual_memcpy, reason = "a call of memcpy is dearer for the verifier")]
        for n in 0..TEXT_ROW_BYTES {
            out[at + n] = text[n];
        }
        if segment.source.six {
            address6(out, at + ADDRESS_AT, &segment.source.words);
        } else {
            address4(out, at + ADDRESS_AT, segment.source.words[0]);
        }
        hex(out, at + ID_AT, *id);
        let mut n = 0;
        while n < TEXT_ROW_BYTES {
            sum += u32::from(out[at + n]) << 8 | u32::from(out[at + n + 1]);
            n += 2;
        }
    }
    half(out, AT + 16, checksum::finish(sum));
}

/// Eight upper-case digits.
#[inline(always)]
const fn hex(out: &mut Buffer, at: usize, word: u32) {
    let mut n = 0;
    while n < 8 {
        let digit = (word >> (28 - 4 * n) & 0xf) as u8;
        out[at + n] = if digit < 10 { b'0' + digit } else { b'A' + digit - 10 };
        n += 1;
    }
}

/// All eight groups of four lower-case digits, and the bracket.
#[inline(always)]
fn address6(out: &mut Buffer, at: usize, words: &[u32; 4]) {
    for group in 0..8 {
        let half = words[group / 2] >> if group % 2 == 0 { 16 } else { 0 };
        for n in 0..4 {
            let digit = (half >> (12 - 4 * n) & 0xf) as u8;
            out[at + group * 5 + n] = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
        }
        out[at + group * 5 + 4] = if group == 7 { b']' } else { b':' };
    }
}

/// Dotted decimals and the bracket; the text has spaces behind it.
#[inline(always)]
fn address4(out: &mut Buffer, at: usize, word: u32) {
    let mut to = at;
    // The mask keeps the index inside the buffer for the kernel's verifier; it changes nothing.
    let mut put = |octet: u8| {
        out[to % ANSWER_BYTES] = octet;
        to += 1;
    };
    for n in 0..4 {
        let octet = (word >> (24 - 8 * n) & 0xff) as u8;
        if octet >= 100 {
            put(b'0' + octet / 100);
        }
        if octet >= 10 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
        put(if n == 3 { b']' } else { b'.' });
    }
}
