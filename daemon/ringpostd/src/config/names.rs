//! Values that name something: hosts, domains, networks, addresses, paths, words.
//!
//! *Guarantees.* Names of hosts and domains are in lower case and without a final dot.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use toml_span::Value as Toml;

use super::network::{Network, NetworkError};
use super::value::{Bounds, Listed, Value, Wrong, text, wrong};

/// A host name: letters, digits and hyphens in labels, in lower case, without a final dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Box<str>);

impl HostName {
    /// Parses and lower-cases one (RFC 5321 4.1.2 `Domain`, RFC 1035 2.3.4 for the lengths).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let last = text.rsplit('.').next().unwrap_or_default();
        let number = last.bytes().all(|b| b.is_ascii_digit());
        let good = text.len() <= 253 && !number && text.split('.').all(label);
        good.then(|| Self(text.to_ascii_lowercase().into()))
    }

    /// The name in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for HostName {
    const KIND: &'static str = "a host name, like `\"mx1.example.org\"`, in ASCII (`xn--` form)";

    fn read(toml: &Toml<'_>, _: &Bounds) -> Result<Self, Vec<Wrong>> {
        let text = text::<Self>(toml)?;
        Self::parse(text)
            .ok_or_else(|| wrong(toml, format!("{text:?} is no host name"), Self::KIND))
    }
}

impl Listed for HostName {
    const LIST_KIND: &'static str = "a list of host names, like `[\"example.org\"]`";
}

/// The domains of a route: one of them, or all that no other route names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteDomain {
    /// Every domain that no other route names.
    Any,
    /// This one, without its subdomains.
    Domain(HostName),
}

impl fmt::Display for RouteDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Domain(name) => name.fmt(f),
        }
    }
}

impl Value for RouteDomain {
    const KIND: &'static str = "a domain, like `\"example.org\"`, or `\"*\"`";

    fn read(toml: &Toml<'_>, _: &Bounds) -> Result<Self, Vec<Wrong>> {
        let text = text::<Self>(toml)?;
        if text == "*" {
            return Ok(Self::Any);
        }
        HostName::parse(text)
            .map(Self::Domain)
            .ok_or_else(|| wrong(toml, format!("{text:?} is no domain"), Self::KIND))
    }
}

impl Listed for RouteDomain {
    const LIST_KIND: &'static str = "a list of domains, like `[\"example.org\"]` or `[\"*\"]`";
}

/// A next hop: a name to look up, or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// Looked up (A and AAAA, not MX).
    Name(HostName),
    /// Used as it is.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Value for Host {
    const KIND: &'static str = "a host name or an IP address, like `\"10.0.0.7\"`";

    fn read(toml: &Toml<'_>, _: &Bounds) -> Result<Self, Vec<Wrong>> {
        let text = text::<Self>(toml)?;
        let address = text.parse().map(Self::Address).ok();
        address.or_else(|| HostName::parse(text).map(Self::Name)).ok_or_else(|| {
            wrong(toml, format!("{text:?} is neither a host name nor an address"), Self::KIND)
        })
    }
}

impl Value for Network {
    const KIND: &'static str = "a network, like `\"10.0.0.0/8\"` or `\"2001:db8::/32\"`";

    fn read(toml: &Toml<'_>, _: &Bounds) -> Result<Self, Vec<Wrong>> {
        let text = text::<Self>(toml)?;
        Self::parse(text).map_err(|error| {
            let message = format!("{text:?} is no network");
            match error {
                NetworkError::HostBits(meant) => wrong(
                    toml,
                    format!("{text:?} has bits set behind its prefix"),
                    format!("\"{meant}\""),
                ),
                NetworkError::Address | NetworkError::Prefix => wrong(toml, message, Self::KIND),
            }
        })
    }
}

impl Listed for Network {
    const LIST_KIND: &'static str = "a list of networks, like `[\"10.0.0.0/8\"]`";
}

impl Value for IpAddr {
    const KIND: &'static str = "an IP address, like `\"192.0.2.1\"` or `\"::\"`";

    fn read(toml: &Toml<'_>, _: &Bounds) -> Result<Self, Vec<Wrong>> {
        let text = text::<Self>(toml)?;
        text.parse().map_err(|_| wrong(toml, format!("{text:?} is no IP address"), Self::KIND))
    }
}

impl Listed for IpAddr {
    const LIST_KIND: &'static str = "a list of IP addresses, like `[\"192.0.2.1\"]`";
}

impl Value for SocketAddr {
    const KIND: &'static str = "an address with port, like `\"127.0.0.1:53\"` or `\"[::1]:53\"`";

    fn read(toml: &Toml<'_>, _: &Bounds) -> Result<Self, Vec<Wrong>> {
        let text = text::<Self>(toml)?;
        text.parse()
            .map_err(|_| wrong(toml, format!("{text:?} is no address with port"), Self::KIND))
    }
}

impl Listed for SocketAddr {
    const LIST_KIND: &'static str = "a list of addresses with port, like `[\"127.0.0.1:53\"]`";
}

impl Value for PathBuf {
    const KIND: &'static str = "a path, absolute or from the working directory";

    fn read(toml: &Toml<'_>, _: &Bounds) -> Result<Self, Vec<Wrong>> {
        let text = text::<Self>(toml)?;
        if text.is_empty() || text.contains('\0') {
            return Err(wrong(toml, "this is no path".to_owned(), Self::KIND));
        }
        Ok(Self::from(text))
    }
}

impl Listed for PathBuf {
    const LIST_KIND: &'static str = "a list of paths, like `[\"/var/spool/ringpost\"]`";
}

/// A word for logs and metrics: 1 to 64 of letters, digits, `.`, `_`, `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Word(Box<str>);

impl Word {
    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let good = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        good.then(|| Self(text.into()))
    }
}

impl Value for Word {
    const KIND: &'static str = "a word of letters, digits, `.`, `_`, `-`";

    fn read(toml: &Toml<'_>, _: &Bounds) -> Result<Self, Vec<Wrong>> {
        let text = text::<Self>(toml)?;
        Self::parse(text).ok_or_else(|| wrong(toml, format!("{text:?} is no word"), Self::KIND))
    }
}

impl Listed for Word {
    const LIST_KIND: &'static str = "a list of words, like `[\"eth0\"]`";
}

/// What a device calls itself, as it stands on its label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Serial(Box<str>);

impl Serial {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Serial {
    const KIND: &'static str = "a serial number, as `ringpostd` and `lsblk` show it";

    fn read(toml: &Toml<'_>, _: &Bounds) -> Result<Self, Vec<Wrong>> {
        let text = text::<Self>(toml)?.trim();
        let good = (1..=4096).contains(&text.len()) && !text.contains('\0');
        let bad = || wrong(toml, format!("{text:?} is no serial number"), Self::KIND);
        good.then(|| Self(text.into())).ok_or_else(bad)
    }
}

impl Listed for Serial {
    const LIST_KIND: &'static str = "a list of serial numbers, like `[\"S5GXNX0T\"]`";
}

/// An address of ours, local part and domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    /// The part before `@`, as written.
    pub local: Box<str>,
    /// The part behind it.
    pub domain: HostName,
}

impl Value for Mailbox {
    const KIND: &'static str = "an address, like `\"postmaster@example.org\"`";

    fn read(toml: &Toml<'_>, _: &Bounds) -> Result<Self, Vec<Wrong>> {
        let text = text::<Self>(toml)?;
        let atom = |local: &str| {
            (1..=64).contains(&local.len())
                && local.split('.').all(|atom| {
                    !atom.is_empty()
                        && atom.bytes().all(|b| {
                            b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b)
                        })
                })
        };
        text.rsplit_once('@')
            .filter(|(local, _)| atom(local))
            .and_then(|(local, domain)| {
                Some(Self { local: local.into(), domain: HostName::parse(domain)? })
            })
            .ok_or_else(|| wrong(toml, format!("{text:?} is no address"), Self::KIND))
    }
}
