//! Lists of addresses in the formats they are published in, read into disjoint networks.
//!
//! One address, range or prefix a line with `#` or `;` comments; DROP in JSON lines; rbldnsd's
//! `ip4set`, `ip4trie` and `ip6trie` with exclusions, values and `$` lines.
//!
//! *Guarantees*: pure; no crate beside the standard library. A file is taken whole or refused
//! with the line that is wrong: a half list would let half of it through unnoticed. Exclusions
//! hold within their own list. The networks that come out are sorted and do not overlap.
//!
//! *Limits*: [`LINE_BYTES_MAX`], [`RANGES_MAX`], [`BITS4_MIN`], [`BITS6_MIN`].
//!
//! *Not here*: reading files, watching them, and what a list may do.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of one line.
pub const LINE_BYTES_MAX: usize = 4096;

/// Lines with addresses in one file.
pub const RANGES_MAX: usize = 8 << 20;

/// The widest IPv4 prefix a list may have: wider is a slip of the pen.
pub const BITS4_MIN: u8 = 8;

/// The widest IPv6 prefix a list may have.
pub const BITS6_MIN: u8 = 16;

/// How a file is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// One address, range or prefix a line.
    Plain,
    /// Spamhaus DROP: a JSON object a line, the last one with the number of records.
    DropJson,
    /// rbldnsd `ip4set` or `ip4trie`.
    Rbldnsd4,
    /// rbldnsd `ip6trie` or `ip6tset`.
    Rbldnsd6,
}

/// A prefix; the bits behind it are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Network {
    /// Its first address.
    pub address: IpAddr,
    /// Bits that count.
    pub bits: u8,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// What a file says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Feed {
    /// What is listed, less what is excluded; IPv4 first.
    pub networks: Vec<Network>,
    /// Seconds for which an answer holds, of `$TTL`.
    pub ttl_s: Option<u32>,
    /// Second since the Unix epoch at which the data was made, of `$TIMESTAMP` or of DROP's last
    /// line.
    pub made_s: Option<u64>,
    /// Second since the Unix epoch after which the data is stale, of `$TIMESTAMP`.
    pub expires_s: Option<u64>,
}

/// Why a file is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The line, counted from 1; 0 is the file as a whole.
    pub line: usize,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            f.write_str(self.why)
        } else {
            write!(f, "line {}: {}", self.line, self.why)
        }
    }
}

/// First and last address, as numbers.
type Range = (u128, u128);

#[derive(Default)]
struct Reader {
    feed: Feed,
    /// Listed and excluded, IPv4 and IPv6.
    listed: [Vec<Range>; 2],
    excluded: [Vec<Range>; 2],
    /// Of DROP: what the last line says, and what was read.
    announced: Option<usize>,
    records: usize,
}

/// Reads a whole file.
///
/// # Errors
/// The first line that is not of the format; a DROP file without its last line or with another
/// number of records than that says: it was cut off on the way.
pub fn read(format: Format, octets: &[u8]) -> Result<Feed, Refused> {
    let mut reader = Reader::default();
    for (n, line) in octets.split(|octet| *octet == b'\n').enumerate() {
        reader.line(format, line).map_err(|why| Refused { line: n + 1, why })?;
    }
    if format == Format::DropJson && reader.announced != Some(reader.records) {
        return Err(Refused { line: 0, why: "cut off: not the number of records it announces" });
    }
    let Reader { mut feed, listed, excluded, .. } = reader;
    for (family, (listed, excluded)) in listed.into_iter().zip(excluded).enumerate() {
        let width = if family == 0 { 32 } else { 128 };
        for range in without(merged(listed), &merged(excluded)) {
            cut(range, width, &mut feed.networks);
        }
    }
    Ok(feed)
}

impl Reader {
    fn line(&mut self, format: Format, line: &[u8]) -> Result<(), &'static str> {
        if line.len() > LINE_BYTES_MAX {
            return Err("too long");
        }
        let line = std::str::from_utf8(line).map_err(|_| "not text")?.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            // rbldnsd writes its `$` lines behind `#` too, for older readers.
            return self.special(format, line.trim_start_matches(['#', ';']));
        }
        match format {
            Format::DropJson => self.json(line),
            Format::Plain => self.entry(line, None),
            Format::Rbldnsd4 => self.rbldnsd(format, line, 0),
            Format::Rbldnsd6 => self.rbldnsd(format, line, 1),
        }
    }

    fn special(&mut self, format: Format, line: &str) -> Result<(), &'static str> {
        if !matches!(format, Format::Rbldnsd4 | Format::Rbldnsd6) {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        match words.next() {
            Some("$TTL") => {
                let ttl = words.next().and_then(seconds).ok_or("a bad $TTL")?;
                self.feed.ttl_s = Some(u32::try_from(ttl).map_err(|_| "a bad $TTL")?);
            }
            Some("$TIMESTAMP") => {
                self.feed.made_s = words.next().and_then(|w| w.parse().ok());
                let made = self.feed.made_s.ok_or("a bad $TIMESTAMP")?;
                self.feed.expires_s = match words.next() {
                    None | Some("0") => None,
                    Some(word) => match word.strip_prefix('+') {
                        Some(after) => {
                            let after = seconds(after).ok_or("a bad $TIMESTAMP")?;
                            Some(made.saturating_add(after))
                        }
                        None => Some(word.parse().map_err(|_| "a bad $TIMESTAMP")?),
                    },
                };
            }
            // $SOA, $NS, $MAXRANGE4, $0 and others say nothing of addresses.
            _ => {}
        }
        Ok(())
    }

    fn rbldnsd(&mut self, format: Format, line: &str, family: usize) -> Result<(), &'static str> {
        if line.starts_with('$') {
            return self.special(format, line);
        }
        // `:127.0.0.2:text` alone sets the value of what follows; the lists here have one.
        if line.starts_with(':') {
            return Ok(());
        }
        self.entry(line, Some(family))
    }

    /// An address, range or prefix, `!` before an exclusion, anything behind it ignored.
    fn entry(&mut self, line: &str, family: Option<usize>) -> Result<(), &'static str> {
        let (line, exclude) = match line.strip_prefix('!') {
            Some(rest) => (rest.trim_start(), true),
            None => (line, false),
        };
        let word = line.split(|c: char| c.is_whitespace() || matches!(c, '#' | ';' | ','));
        let mut word = word.into_iter().next().unwrap_or_default();
        // rbldnsd puts the value behind a colon; IPv6 has colons of its own and needs a blank.
        if family == Some(0) {
            word = word.split(':').next().unwrap_or_default();
        }
        let (found, range) = range(word, family.is_some())?;
        if family.is_some_and(|family| family != found) {
            return Err("an address of the other family");
        }
        let width: u32 =
            if found == 0 { 32 - u32::from(BITS4_MIN) } else { 128 - u32::from(BITS6_MIN) };
        if !exclude && range.1 - range.0 >= 1 << width {
            return Err("a wider network than any list may have");
        }
        let to = if exclude { &mut self.excluded } else { &mut self.listed };
        if to[found].len() == RANGES_MAX {
            return Err("too many entries");
        }
        to[found].push(range);
        Ok(())
    }

    fn json(&mut self, line: &str) -> Result<(), &'static str> {
        if !line.starts_with('{') || !line.ends_with('}') {
            return Err("not a JSON object");
        }
        if member(line, "type") == Some("metadata") {
            self.announced = member(line, "records").and_then(|n| n.parse().ok());
            self.feed.made_s = member(line, "timestamp").and_then(|n| n.parse().ok());
            return if self.announced.is_some() { Ok(()) } else { Err("no number of records") };
        }
        let network = member(line, "cidr").ok_or("no cidr")?;
        self.records += 1;
        self.entry(network, None)
    }
}

/// A member of a flat JSON object: a string without escapes, or a number.
fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = object;
    loop {
        let (_, after) = rest.split_once('"')?;
        let (key, after) = after.split_once('"')?;
        let value = after.trim_start().strip_prefix(':')?.trim_start();
        let (value, after) = match value.strip_prefix('"') {
            Some(value) => value.split_once('"')?,
            None => value.split_at(value.find([',', '}'])?),
        };
        if key == name {
            return (!value.contains('\\')).then_some(value.trim());
        }
        rest = after;
    }
}

/// Seconds, or a number with s, m, h, d or w behind it.
fn seconds(word: &str) -> Option<u64> {
    let at = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let number: u64 = word[..at].parse().ok()?;
    let unit = match &word[at..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// The family (0 is IPv4) and the addresses that a word names. `short`: rbldnsd's way of leaving
/// the last octets out.
fn range(word: &str, short: bool) -> Result<(usize, Range), &'static str> {
    let number = |address: IpAddr| match address {
        IpAddr::V4(four) => (0, u128::from(four.to_bits())),
        IpAddr::V6(six) => (1, six.to_bits()),
    };
    if let Some((first, last)) = word.split_once('-') {
        let first: Ipv4Addr = first.parse().map_err(|_| "a bad range")?;
        let last = match (last.parse::<Ipv4Addr>(), last.parse::<u8>()) {
            (Ok(last), _) => last,
            (_, Ok(octet)) => {
                let [a, b, c, _] = first.octets();
                Ipv4Addr::new(a, b, c, octet)
            }
            _ => return Err("a bad range"),
        };
        let (first, last) = (u128::from(first.to_bits()), u128::from(last.to_bits()));
        return if first <= last { Ok((0, (first, last))) } else { Err("a range that runs back") };
    }
    let (address, given) = match word.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| "a bad prefix")?)),
        None => (word, None),
    };
    let (address, octets) = match address.parse::<IpAddr>() {
        Ok(address) => (address, None),
        Err(_) if short => shortened(address).ok_or("not an address")?,
        Err(_) => return Err("not an address"),
    };
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = given.or(octets).unwrap_or(width);
    if bits > width {
        return Err("a bad prefix");
    }
    let (family, first) = number(address);
    let rest = u128::MAX.checked_shr(128 - u32::from(width - bits)).unwrap_or(0);
    if first & rest != 0 {
        return Err("bits set behind the prefix");
    }
    Ok((family, (first, first | rest)))
}

/// `192.0.2` is 192.0.2.0/24, `2001:db8` is 2001:db8::/32.
fn shortened(word: &str) -> Option<(IpAddr, Option<u8>)> {
    if word.contains(':') {
        let groups: Option<Vec<u16>> =
            word.split(':').map(|group| u16::from_str_radix(group, 16).ok()).collect();
        let groups = groups.filter(|groups| groups.len() < 8)?;
        let mut all = [0; 8];
        all[..groups.len()].copy_from_slice(&groups);
        let bits = u8::try_from(groups.len() * 16).ok()?;
        return Some((Ipv6Addr::from_segments(all).into(), Some(bits)));
    }
    let octets: Option<Vec<u8>> = word.split('.').map(|octet| octet.parse().ok()).collect();
    let octets = octets.filter(|octets| octets.len() < 4)?;
    let mut all = [0; 4];
    all[..octets.len()].copy_from_slice(&octets);
    let bits = u8::try_from(octets.len() * 8).ok()?;
    Some((Ipv4Addr::from_octets(all).into(), Some(bits)))
}

/// Sorted, and joined where they touch.
fn merged(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut out: Vec<Range> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => out.push((first, last)),
        }
    }
    out
}

/// What is in the first and not in the second; both merged.
fn without(ranges: Vec<Range>, excluded: &[Range]) -> Vec<Range> {
    let mut out = Vec::with_capacity(ranges.len());
    let mut skip = 0;
    for (mut first, last) in ranges {
        while skip < excluded.len() && excluded[skip].1 < first {
            skip += 1;
        }
        let mut whole = true;
        for hole in excluded[skip..].iter().take_while(|hole| hole.0 <= last) {
            if hole.0 > first {
                out.push((first, hole.0 - 1));
            }
            if hole.1 >= last {
                whole = false;
                break;
            }
            first = hole.1 + 1;
        }
        if whole {
            out.push((first, last));
        }
    }
    out
}

/// The fewest prefixes that make up a range.
fn cut((mut first, last): Range, width: u32, out: &mut Vec<Network>) {
    loop {
        let aligned = first.trailing_zeros().min(width);
        let fits = (last - first).checked_add(1).map_or(width, u128::ilog2);
        let free = aligned.min(fits);
        let address = if width == 32 {
            IpAddr::V4(u32::try_from(first).expect("IPv4 numbers have 32 bits").into())
        } else {
            IpAddr::V6(first.into())
        };
        let bits = u8::try_from(width - free).expect("at most 128");
        out.push(Network { address, bits });
        let size = 1_u128.checked_shl(free).unwrap_or(0);
        match first.checked_add(size) {
            Some(next) if size != 0 && next <= last => first = next,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(format: Format, text: &str) -> Result<Vec<String>, String> {
        let feed = read(format, text.as_bytes()).map_err(|refused| refused.to_string())?;
        Ok(feed.networks.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn plain_lines() {
        let text = "# a list\n192.0.2.1\n192.0.2.0/30 ; SBL1\n\n198.51.100.0/24 # more\r\n\
                    2001:db8::/32\n203.0.113.5-203.0.113.6, x\n2001:db8:1::7\n";
        let got = shown(Format::Plain, text);
        let expected = [
            "192.0.2.0/30",
            "198.51.100.0/24",
            "203.0.113.5/32",
            "203.0.113.6/32",
            "2001:db8::/32",
        ];
        assert_eq!(got.as_deref(), Ok(&expected.map(str::to_owned)[..]));
    }

    #[test]
    fn a_wrong_line_refuses_the_file() {
        let wrong = |text: &str| shown(Format::Plain, text).expect_err("wrong");
        assert_eq!(wrong("192.0.2.1\nfoo\n"), "line 2: not an address");
        assert_eq!(wrong("192.0.2.1/33"), "line 1: a bad prefix");
        assert_eq!(wrong("192.0.2.1/24"), "line 1: bits set behind the prefix");
        assert_eq!(wrong("0.0.0.0/0"), "line 1: a wider network than any list may have");
        assert_eq!(wrong("::/0"), "line 1: a wider network than any list may have");
        assert_eq!(wrong("10.0.0.9-10.0.0.3"), "line 1: a range that runs back");
        assert_eq!(wrong("192.0.2"), "line 1: not an address");
        assert_eq!(wrong(&"1".repeat(5000)), "line 1: too long");
        assert!(read(Format::Plain, b"\xff\xfe").is_err());
        assert!(shown(Format::Plain, "10.0.0.0/8").is_ok());
    }

    #[test]
    fn drop_in_json() {
        let text = "{\"cidr\":\"1.10.16.0/20\",\"sblid\":\"SBL256894\",\"rir\":\"apnic\"}\n\
                    {\"cidr\": \"2001:db8::/32\", \"sblid\": \"SBL1\"}\n\
                    {\"type\":\"metadata\",\"timestamp\":1729167840,\"size\":9,\"records\":2,\
                    \"copyright\":\"(c)\"}\n";
        let feed = read(Format::DropJson, text.as_bytes()).expect("whole");
        let shown: Vec<_> = feed.networks.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["1.10.16.0/20", "2001:db8::/32"]);
        assert_eq!(feed.made_s, Some(1_729_167_840));
        for cut in [0, 60, text.find("{\"type").expect("there"), text.len() - 3] {
            assert!(read(Format::DropJson, &text.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        let less = text.replace("\"records\":2", "\"records\":3");
        assert!(read(Format::DropJson, less.as_bytes()).is_err());
        assert!(read(Format::DropJson, b"192.0.2.1\n").is_err());
    }

    #[test]
    fn rbldnsd_files() {
        let text = "$SOA 3600 ns.example.net admin.example.net 0 2h 2h 2w 1h\n$TTL 35m\n\
                    #$TIMESTAMP 1729167840 +2h\n:127.0.0.2:Listed, see https://x/?$\n\
                    192.0.2\n!192.0.2.128/25\n!192.0.2.7\n10.1 :127.0.0.3:text\n\
                    203.0.113.5:2:why\n198.51.100.4-6\n";
        let feed = read(Format::Rbldnsd4, text.as_bytes()).expect("sound");
        assert_eq!(feed.ttl_s, Some(2100));
        assert_eq!((feed.made_s, feed.expires_s), (Some(1_729_167_840), Some(1_729_175_040)));
        let shown: Vec<_> = feed.networks.iter().map(ToString::to_string).collect();
        assert_eq!(shown[..2], ["10.1.0.0/16", "192.0.2.0/30"]);
        assert!(
            shown.contains(&"192.0.2.64/26".to_owned()) && !shown.contains(&"192.0.2.7/32".into())
        );
        assert!(
            shown.contains(&"198.51.100.4/31".to_owned())
                && shown.contains(&"198.51.100.6/32".into())
        );
        let six =
            read(Format::Rbldnsd6, b"2001:db8\n!2001:db8:8000::/33\n2001:db9:0:1::/64 :2:x\n");
        let shown: Vec<_> = six.expect("sound").networks.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["2001:db8::/33", "2001:db9:0:1::/64"]);
        assert!(read(Format::Rbldnsd4, b"2001:db8::1\n").is_err());
        assert!(read(Format::Rbldnsd6, b"192.0.2.1\n").is_err());
        assert!(read(Format::Rbldnsd4, b"$TTL x\n").is_err());
    }

    /// Every address of a small space, by the lines one after the other.
    #[test]
    fn ranges_less_exclusions_are_exact() {
        let mut seed = 1_u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            u8::try_from((seed >> 33) % below).expect("small")
        };
        for _ in 0..300 {
            let (mut text, mut on, mut off) = (String::new(), [false; 256], [false; 256]);
            for _ in 0..next(12) {
                let (a, b) = (next(256), next(256));
                let (first, last) = (a.min(b), a.max(b));
                let exclude = next(3) == 0;
                let mark = if exclude { "!" } else { "" };
                text.push_str(&format!("{mark}192.0.2.{first}-{last}\n"));
                let to = if exclude { &mut off } else { &mut on };
                to[usize::from(first)..=usize::from(last)].fill(true);
            }
            let feed = read(Format::Rbldnsd4, text.as_bytes()).expect("sound");
            let mut got = [0_u8; 256];
            for network in &feed.networks {
                let IpAddr::V4(first) = network.address else { panic!("IPv4") };
                let first = usize::from(first.octets()[3]);
                let size = 1_usize << (32 - network.bits);
                assert_eq!(first % size, 0, "{network} is not aligned");
                got[first..first + size].iter_mut().for_each(|n| *n += 1);
            }
            for n in 0..256 {
                assert_eq!(got[n], u8::from(on[n] && !off[n]), "{text} at {n}");
            }
        }
    }

    #[test]
    fn the_ends_of_the_space() {
        let last = shown(Format::Plain, "255.255.255.255\nffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        let expected = ["255.255.255.255/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"];
        assert_eq!(last.as_deref(), Ok(&expected.map(str::to_owned)[..]));
        assert_eq!(shown(Format::Plain, "255.0.0.0/8").as_deref(), Ok(&["255.0.0.0/8".into()][..]));
        let mut out = Vec::new();
        cut((0, u128::MAX), 128, &mut out);
        assert_eq!(out.len(), 1);
    }
}
