//! The PROXY protocol, versions 1 and 2, of a listener that requires it.
//!
//! *Guarantees.* Nothing is guessed: a connection either opens with a whole, correct header or is
//! refused. A checksum in the header (PP2_TYPE_CRC32C) is compared.
//! *Limits.* [`HEADER_OCTETS_MAX`]; version 1 has its own 107 octets.
//! *Failure.* [`Wrong`]; the caller closes without a word, since the peer speaks no SMTP yet.
//! *Not here.* Which peers may speak it (the listener's config).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A header of either version, its TLVs included.
pub const HEADER_OCTETS_MAX: usize = 4096;
/// A version 1 line with its CRLF.
const LINE_OCTETS_MAX: usize = 107;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Octets of a version 2 header before the addresses.
const FIXED_OCTETS: usize = 16;
/// Type of the TLV that holds a CRC32C over the whole header, itself taken as zero.
const TYPE_CRC32C: u8 = 3;

const _: () = assert!(LINE_OCTETS_MAX < HEADER_OCTETS_MAX);

/// Client and server as the proxy sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub client: SocketAddr,
    /// Where it connected to.
    pub local: SocketAddr,
}

/// What stands at the front of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// A whole header of so many octets. Without ends it is the proxy's own check (LOCAL,
    /// UNKNOWN): the connection's own addresses count.
    Whole(usize, Option<Ends>),
    /// More octets are needed.
    Partial,
}

/// Why a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// The input is no PROXY header.
    NoHeader,
    /// Longer than the limit.
    TooLong,
    /// A part of it is malformed.
    Malformed,
    /// The CRC32C does not match.
    Checksum,
    /// A protocol other than TCP over IPv4 or IPv6.
    Family,
}

impl Wrong {
    /// For logs.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoHeader => "no PROXY header",
            Self::TooLong => "PROXY header too long",
            Self::Malformed => "malformed PROXY header",
            Self::Checksum => "PROXY header with a wrong checksum",
            Self::Family => "PROXY header for something else than TCP",
        }
    }
}

/// Reads the header at the front of `input`.
///
/// # Errors
/// [`Wrong`], as soon as it is certain.
pub fn parse(input: &[u8]) -> Result<Header, Wrong> {
    let start = input.len().min(SIGNATURE.len());
    if input[..start] == SIGNATURE[..start] {
        return if start < SIGNATURE.len() { Ok(Header::Partial) } else { binary(input) };
    }
    let word = b"PROXY ";
    let start = input.len().min(word.len());
    if input[..start] != word[..start] {
        return Err(Wrong::NoHeader);
    }
    line(input)
}

/// Version 1: one line of text that CRLF ends.
fn line(input: &[u8]) -> Result<Header, Wrong> {
    let window = &input[..input.len().min(LINE_OCTETS_MAX)];
    let Some(end) = window.iter().position(|c| *c == b'\n') else {
        return if window.len() < LINE_OCTETS_MAX {
            Ok(Header::Partial)
        } else {
            Err(Wrong::TooLong)
        };
    };
    // A bare LF is no end of line here either.
    let text = window[..end].strip_suffix(b"\r").ok_or(Wrong::Malformed)?;
    let text = str::from_utf8(text).map_err(|_| Wrong::Malformed)?;
    let mut words = text.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Header::Whole(end + 1, None));
    }
    let mut word = || words.next().ok_or(Wrong::Malformed);
    let (source, target) = (word()?, word()?);
    let (source_port, target_port) = (word()?, word()?);
    if words.next().is_some() {
        return Err(Wrong::Malformed);
    }
    let (source, target) = match family {
        "TCP4" => (v4(source)?, v4(target)?),
        "TCP6" => (v6(source)?, v6(target)?),
        _ => return Err(Wrong::Family),
    };
    let client = SocketAddr::new(source, port(source_port)?);
    let local = SocketAddr::new(target, port(target_port)?);
    Ok(Header::Whole(end + 1, Some(Ends { client, local })))
}

fn v4(text: &str) -> Result<IpAddr, Wrong> {
    text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| Wrong::Malformed)
}

fn v6(text: &str) -> Result<IpAddr, Wrong> {
    text.parse::<Ipv6Addr>().map(|a| plain(IpAddr::V6(a))).map_err(|_| Wrong::Malformed)
}

/// Decimal without sign or leading zeros.
fn port(text: &str) -> Result<u16, Wrong> {
    let digits = text.bytes().all(|c| c.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    if !digits || !canonical {
        return Err(Wrong::Malformed);
    }
    text.parse().map_err(|_| Wrong::Malformed)
}

/// An IPv4 address in IPv6 clothes counts as what it is, so that limits and lists find it.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Version 2: a fixed part, addresses, then TLVs.
fn binary(input: &[u8]) -> Result<Header, Wrong> {
    let Some(fixed) = input.get(..FIXED_OCTETS) else { return Ok(Header::Partial) };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let whole = FIXED_OCTETS + length;
    if whole > HEADER_OCTETS_MAX {
        return Err(Wrong::TooLong);
    }
    if fixed[12] >> 4 != 2 {
        return Err(Wrong::Malformed);
    }
    let Some(header) = input.get(..whole) else { return Ok(Header::Partial) };
    let rest = &header[FIXED_OCTETS..];
    let (ends, addresses) = match (fixed[12] & 0x0f, fixed[13]) {
        // LOCAL: addresses are to be skipped, whatever they are.
        (0, family) => (None, address_octets(family >> 4).min(length)),
        (1, 0x11) => (Some(ends_v4(rest)?), 12),
        (1, 0x21) => (Some(ends_v6(rest)?), 36),
        (1, _) => return Err(Wrong::Family),
        _ => return Err(Wrong::Malformed),
    };
    check_tlvs(header, FIXED_OCTETS + addresses)?;
    Ok(Header::Whole(whole, ends))
}

const fn address_octets(family: u8) -> usize {
    match family {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    }
}

fn ends_v4(octets: &[u8]) -> Result<Ends, Wrong> {
    let octets: &[u8; 12] = octets.first_chunk().ok_or(Wrong::Malformed)?;
    let [a, b, c, d, e, f, g, h, p, q, r, s] = *octets;
    Ok(Ends {
        client: SocketAddr::new(IpAddr::from([a, b, c, d]), u16::from_be_bytes([p, q])),
        local: SocketAddr::new(IpAddr::from([e, f, g, h]), u16::from_be_bytes([r, s])),
    })
}

fn ends_v6(octets: &[u8]) -> Result<Ends, Wrong> {
    let octets: &[u8; 36] = octets.first_chunk().ok_or(Wrong::Malformed)?;
    let address = |at: usize| {
        let part: [u8; 16] = octets[at..at + 16].try_into().expect("16 of 36");
        plain(IpAddr::from(part))
    };
    let port = |at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
    Ok(Ends {
        client: SocketAddr::new(address(0), port(32)),
        local: SocketAddr::new(address(16), port(34)),
    })
}

/// Walks the TLVs: each must fit, and a CRC32C among them must match.
fn check_tlvs(header: &[u8], start: usize) -> Result<(), Wrong> {
    let mut at = start;
    while at < header.len() {
        let head = header.get(at..at + 3).ok_or(Wrong::Malformed)?;
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        let value = header.get(at + 3..at + 3 + length).ok_or(Wrong::Malformed)?;
        if head[0] == TYPE_CRC32C {
            let told: [u8; 4] = value.try_into().map_err(|_| Wrong::Malformed)?;
            let sum = crc32c::crc32c(&header[..at + 3]);
            let sum = crc32c::crc32c_append(sum, &[0; 4]);
            let sum = crc32c::crc32c_append(sum, &header[at + 7..]);
            if sum != u32::from_be_bytes(told) {
                return Err(Wrong::Checksum);
            }
        }
        at += 3 + length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends(client: &str, local: &str) -> Option<Ends> {
        Some(Ends { client: client.parse().unwrap(), local: local.parse().unwrap() })
    }

    /// A version 2 header for IPv4 with these TLVs.
    fn v2(tlvs: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([0x21, 0x11]);
        header.extend(u16::try_from(12 + tlvs.len()).unwrap().to_be_bytes());
        header.extend([192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 0, 25]);
        header.extend(tlvs);
        header
    }

    #[test]
    fn version_1_lines() {
        let good = b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 25\r\nEHLO x\r\n";
        let want = ends("192.0.2.1:12345", "198.51.100.2:25");
        assert_eq!(parse(good), Ok(Header::Whole(44, want)));
        let six = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 25\r\n";
        assert_eq!(
            parse(six),
            Ok(Header::Whole(six.len(), ends("[2001:db8::1]:1", "[2001:db8::2]:25")))
        );
        assert_eq!(parse(b"PROXY UNKNOWN whatever\r\n"), Ok(Header::Whole(24, None)));
        for (bad, why) in [
            (&b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 25\n"[..], Wrong::Malformed),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 012 25\r\n", Wrong::Malformed),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 70000 25\r\n", Wrong::Malformed),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 25 \r\n", Wrong::Malformed),
            (b"PROXY TCP4 2001:db8::1 198.51.100.2 1 25\r\n", Wrong::Malformed),
            (b"PROXY UDP4 192.0.2.1 198.51.100.2 1 25\r\n", Wrong::Family),
            (b"EHLO there\r\n", Wrong::NoHeader),
        ] {
            assert_eq!(parse(bad), Err(why), "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(parse(&[&b"PROXY TCP4 "[..], &[b'1'; 200]].concat()), Err(Wrong::TooLong));
    }

    #[test]
    fn version_2_with_a_long_tlv_and_a_checksum() {
        let want = ends("192.0.2.1:12345", "198.51.100.2:25");
        let mut long = vec![0xe0, 0x01, 0x90];
        long.extend([7; 400]);
        let header = v2(&long);
        assert_eq!(parse(&header), Ok(Header::Whole(header.len(), want)));
        let mut summed = v2(&[TYPE_CRC32C, 0, 4, 0, 0, 0, 0]);
        let sum = crc32c::crc32c(&summed).to_be_bytes();
        let end = summed.len();
        summed[end - 4..].copy_from_slice(&sum);
        assert_eq!(parse(&summed), Ok(Header::Whole(end, want)));
        summed[end - 1] ^= 1;
        assert_eq!(parse(&summed), Err(Wrong::Checksum));
        assert_eq!(parse(&v2(&[1, 0, 9, 0])), Err(Wrong::Malformed));
        let mut udp = v2(&[]);
        udp[13] = 0x12;
        assert_eq!(parse(&udp), Err(Wrong::Family));
        let mut local = v2(&[]);
        local[12] = 0x20;
        assert_eq!(parse(&local), Ok(Header::Whole(28, None)));
        let mut huge = v2(&[]);
        huge[14] = 0xff;
        assert_eq!(parse(&huge), Err(Wrong::TooLong));
    }

    proptest! {
        #[test]
        fn any_cut_of_a_header_asks_for_more(cut in 0_usize..44) {
            let header = b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 25\r\n";
            prop_assert_eq!(parse(&header[..cut.min(43)]), Ok(Header::Partial));
            let header = v2(&[4, 0, 1, 0]);
            prop_assert_eq!(parse(&header[..cut.min(header.len() - 1)]), Ok(Header::Partial));
        }

        #[test]
        fn no_octets_panic(input in proptest::collection::vec(any::<u8>(), 0..200), two: bool) {
            let input = if two { [&SIGNATURE[..], &input].concat() } else { input };
            let _ = parse(&input);
        }
    }
}
