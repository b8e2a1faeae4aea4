//! A host that the operator named for recipients of some messages, in the place of their route.
//!
//! It stands in the log as the recipient's route, `@HOST:PORT`: no route of a config has `@` in its
//! name, so a daemon that does not know of it goes by the config again.

use smtp::client::TlsPolicy;

use super::{Host, MX_PORT, NextHop, Route, Tier};
use crate::config::{self, HostName};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    host: config::Host,
    port: u16,
}

impl Named {
    /// From `HOST`, `HOST:PORT`, `192.0.2.1:25`, `2001:db8::1` or `[2001:db8::1]:25`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            _ if text.ends_with(']') => (text, None),
            _ if text.parse::<std::net::Ipv6Addr>().is_ok() => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let port = port.map_or(Some(MX_PORT), |port| port.parse().ok())?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let host = match bare.parse() {
            Ok(address) => config::Host::Address(address),
            Err(_) => config::Host::Name(HostName::parse(bare)?),
        };
        (port != 0).then_some(Self { host, port })
    }

    /// From a recipient's route in the log.
    #[must_use]
    pub fn of(route: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(route.strip_prefix(b"@")?).ok()?;
        Self::parse(text)
    }

    /// As it stands in the log.
    #[must_use]
    pub fn text(&self) -> String {
        format!("@{}", self.host_and_port())
    }

    /// For people.
    #[must_use]
    pub fn host_and_port(&self) -> String {
        match self.host {
            config::Host::Address(std::net::IpAddr::V6(ip)) => format!("[{ip}]:{}", self.port),
            ref host => format!("{host}:{}", self.port),
        }
    }

    /// Host and port, for looking it up.
    #[must_use]
    pub fn parts(&self) -> (String, u16) {
        (self.host.to_string(), self.port)
    }

    /// The name under which the queue knows it; see [`Route::destination`].
    #[must_use]
    pub fn destination(&self) -> Box<[u8]> {
        format!("{}/0", self.text()).into_bytes().into()
    }

    /// The route to it. What the recipient's own route asks of TLS and connections holds here too.
    #[must_use]
    pub fn route(&self, own: Option<&Route>) -> Route {
        let address = match self.host {
            config::Host::Address(address) => Some(address),
            config::Host::Name(_) => None,
        };
        let name = self.host.to_string().into();
        let host = Host { name, address, port: self.port, priority: 0, weight: 1 };
        let tls = own.and_then(|own| own.tiers.first()).map_or(TlsPolicy::May, |tier| tier.tls);
        let next_hop = NextHop::Hosts([host].into());
        Route {
            name: self.text().into(),
            tiers: [Tier { from_age_us: 0, next_hop, tls }].into(),
            connections_max: own.map_or(1, |own| own.connections_max),
        }
    }
}

impl Route {
    /// Whether the operator named its host: then a refusal of that host is the operator's to
    /// look at, not the sender's.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.name.starts_with('@')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_and_without_port() {
        for (text, long) in [
            ("mx2.Example.net", "mx2.example.net:25"),
            ("mx2.example.net:2525", "mx2.example.net:2525"),
            ("192.0.2.1", "192.0.2.1:25"),
            ("192.0.2.1:24", "192.0.2.1:24"),
            ("2001:db8::1", "[2001:db8::1]:25"),
            ("[2001:db8::1]", "[2001:db8::1]:25"),
            ("[2001:db8::1]:26", "[2001:db8::1]:26"),
        ] {
            let named = Named::parse(text).unwrap();
            assert_eq!(named.host_and_port(), long, "{text}");
            assert_eq!(Named::of(named.text().as_bytes()), Some(named), "{text}");
        }
        for text in ["", ":25", "a b", "host:0", "host:65536", "host:", "@host", "a_b", "1.2.3"] {
            assert_eq!(Named::parse(text), None, "{text}");
        }
        assert_eq!(Named::of(b"mx2.example.net:25"), None, "a route of the config");
    }

    #[test]
    fn what_the_route_asks_of_tls_holds() {
        let named = Named::parse("mx2.example.net").unwrap();
        let own = Route {
            name: "inside".into(),
            tiers: [Tier { from_age_us: 0, next_hop: NextHop::Mx, tls: TlsPolicy::Must }].into(),
            connections_max: 7,
        };
        let route = named.route(Some(&own));
        assert_eq!((route.tiers[0].tls, route.connections_max), (TlsPolicy::Must, 7));
        assert!(route.is_named() && !own.is_named());
        assert_eq!(route.destination(0, "example.org"), named.destination());
    }
}
