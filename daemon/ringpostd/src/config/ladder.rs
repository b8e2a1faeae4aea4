//! Values of the ladder: how far it goes, how frames come in, what the codes of a DNS list mean.

use std::fmt;
use std::net::Ipv4Addr;

use toml_span::Value as Toml;

use super::value::{Bounds, Listed, Value, Wrong, choice, text, wrong};

choice! {
    /// A rung of the ladder, mildest first.
    Rung {
        /// nothing happens to it but that it is counted and noted
        Count = "count",
        /// the daemon refuses it, at RCPT with its envelope, or under load in the greeting
        Refuse = "refuse",
        /// who comes again reads its 554 before the TCP stack, or in the greeting
        Answer = "answer",
        /// its packets are dropped from the first on, or its connections refused in the greeting
        Drop = "drop",
    }
}

impl Rung {
    /// The milder of two.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        if self.height() <= other.height() { self } else { other }
    }

    /// Its place from below.
    #[must_use]
    pub const fn height(self) -> u8 {
        self as u8
    }

    /// The rung at a place; one that is too high is the lowest.
    #[must_use]
    pub const fn at(height: u8) -> Self {
        match height {
            1 => Self::Refuse,
            2 => Self::Answer,
            3 => Self::Drop,
            _ => Self::Count,
        }
    }
}

/// How packets come through an L4 switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// As the client sent them, also with direct server return by MAC.
    Direct,
    /// In IP.
    Ipip,
    /// In UDP to this port.
    Gue(u16),
    /// From the switch: it hides the clients.
    Proxy,
}

impl Value for Topology {
    const KIND: &'static str = "`\"direct\"`, `\"ipip\"`, `\"gue:PORT\"` or `\"proxy\"`";

    fn read(toml: &Toml<'_>, _: &Bounds) -> Result<Self, Vec<Wrong>> {
        let text = text::<Self>(toml)?;
        let gue = |rest: &str| rest.parse().ok().filter(|port| *port > 0).map(Self::Gue);
        match text {
            "direct" => Some(Self::Direct),
            "ipip" => Some(Self::Ipip),
            "proxy" => Some(Self::Proxy),
            _ => text.strip_prefix("gue:").and_then(gue),
        }
        .ok_or_else(|| wrong(toml, format!("{text:?} is not known here"), Self::KIND))
    }
}

/// A way back to clients: on an interface, with a tag or without, answers leave as those of `out`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayBack {
    /// The interface the filter is attached to.
    pub interface: Box<str>,
    /// The segment's tag.
    pub vlan: Option<u16>,
    /// The interface that has the address.
    pub out: Box<str>,
}

impl WayBack {
    /// Octets of an interface's name.
    const NAME_MAX: usize = 15;
    /// The highest tag of a segment.
    const VLAN_MAX: u16 = 4094;

    fn parse(text: &str) -> Option<Self> {
        let (from, out) = text.split_once('=')?;
        let (interface, vlan) = match from.split_once('/') {
            Some((interface, vlan)) => (interface, Some(vlan.parse().ok()?)),
            None => (from, None),
        };
        let good = |name: &str| {
            (1..=Self::NAME_MAX).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
        };
        let tag = vlan.is_none_or(|vlan: u16| (1..=Self::VLAN_MAX).contains(&vlan));
        let way = Self { interface: interface.into(), vlan, out: out.into() };
        (good(interface) && good(out) && tag).then_some(way)
    }
}

impl Value for WayBack {
    const KIND: &'static str = "interface, tag and interface, like `\"eth0/10=vlan10\"`";

    fn read(toml: &Toml<'_>, _: &Bounds) -> Result<Self, Vec<Wrong>> {
        let text = text::<Self>(toml)?;
        Self::parse(text).ok_or_else(|| wrong(toml, format!("{text:?} is no way back"), Self::KIND))
    }
}

impl Listed for WayBack {
    const LIST_KIND: &'static str = "a list of ways, like `[\"eth0=br0\", \"eth0/10=vlan10\"]`";
}

/// What a refused client reads beside its address and the list: where to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact(Box<str>);

impl Contact {
    /// Octets of one.
    pub const OCTETS_MAX: usize = 48;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Contact {
    const KIND: &'static str =
        "a URL or an address, at most 48 letters, like `\"https://mx.example.org/why\"`";

    fn read(toml: &Toml<'_>, _: &Bounds) -> Result<Self, Vec<Wrong>> {
        let text = text::<Self>(toml)?;
        let good = (1..=Self::OCTETS_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic());
        if good {
            Ok(Self(text.into()))
        } else {
            Err(wrong(toml, "too long".to_owned(), Self::KIND))
        }
    }
}

/// What a range of answers of a DNS list means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codes {
    /// The first of them.
    pub first: Ipv4Addr,
    /// The last of them.
    pub last: Ipv4Addr,
    /// How far it may go.
    pub ceiling: Rung,
}

impl Codes {
    fn parse(text: &str) -> Option<Self> {
        let (range, rung) = text.split_once('=')?;
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let first: Ipv4Addr = first.trim().parse().ok()?;
        let last = match (last.trim().parse::<Ipv4Addr>(), last.trim().parse::<u8>()) {
            (Ok(last), _) => last,
            (_, Ok(octet)) => {
                let [a, b, c, _] = first.octets();
                Ipv4Addr::new(a, b, c, octet)
            }
            _ => return None,
        };
        let ceiling = [Rung::Count, Rung::Refuse, Rung::Answer, Rung::Drop]
            .into_iter()
            .find(|known| known.as_str() == rung.trim())?;
        let loopback = first.is_loopback() && last.is_loopback();
        (loopback && first <= last).then_some(Self { first, last, ceiling })
    }
}

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}={}", self.first, self.last, self.ceiling.as_str())
    }
}

impl Value for Codes {
    const KIND: &'static str = "answers and a rung, like `\"127.0.0.2-4=answer\"`";

    fn read(toml: &Toml<'_>, _: &Bounds) -> Result<Self, Vec<Wrong>> {
        let text = text::<Self>(toml)?;
        Self::parse(text)
            .ok_or_else(|| wrong(toml, format!("{text:?} names no answers"), Self::KIND))
    }
}

impl Listed for Codes {
    const LIST_KIND: &'static str = "a list of answers and rungs, like `[\"127.0.0.2-4=answer\"]`";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_ranges_of_loopback_addresses() {
        let codes = Codes::parse("127.0.0.2-4 = answer").unwrap();
        assert_eq!(codes.to_string(), "127.0.0.2-127.0.0.4=answer");
        assert_eq!(Codes::parse("127.0.0.10=refuse").unwrap().first, codes_first(10));
        for wrong in ["127.0.0.2", "10.0.0.1=drop", "127.0.0.4-2=drop", "127.0.0.2=shout", "="] {
            assert_eq!(Codes::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_way_back_is_an_interface_a_tag_and_an_interface() {
        let way = WayBack::parse("eth0/10=vlan10").unwrap();
        assert_eq!((&*way.interface, way.vlan, &*way.out), ("eth0", Some(10), "vlan10"));
        assert_eq!(WayBack::parse("eth0=br0").unwrap().vlan, None);
        for wrong in ["eth0", "=br0", "eth0=", "eth0/0=a", "eth0/4095=a", "eth0/x=a", "a/1/2=b"] {
            assert_eq!(WayBack::parse(wrong), None, "{wrong}");
        }
    }

    const fn codes_first(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 0, last)
    }

    #[test]
    fn rungs_have_an_order() {
        for height in 0..4 {
            assert_eq!(Rung::at(height).height(), height);
        }
        assert_eq!(Rung::Drop.least(Rung::Refuse), Rung::Refuse);
        assert_eq!(Rung::at(9), Rung::Count);
    }
}
