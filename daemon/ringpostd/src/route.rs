//! Where mail for a domain goes: which hosts, in which order, and never to ourselves.
//!
//! *Guarantees*: pure; the same input and seed give the same plan. Nothing is refused for good
//! but what can never succeed: a null MX, a domain that is not there, a loop.
//!
//! *Limits*: [`MX_RECORDS_MAX`] MX records, [`TARGETS_MAX`] hosts, [`ADDRESSES_MAX`] addresses a
//! host.
//!
//! *Not here*: the look-ups, connections, what a host's failures mean for its health.

mod plan;
mod table;
mod named;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use smtp::client::TlsPolicy;
use smtp::reply::Enhanced;

pub use self::named::Named;
pub use self::plan::{mx, static_hosts};
pub use self::table::Table;
use crate::dns::limits as dns_limits;

/// MX records of one domain that are looked at, the preferred first.
pub const MX_RECORDS_MAX: usize = 100;
/// Hosts in one plan.
pub const TARGETS_MAX: usize = 20;
/// Addresses of one host in a plan. RFC 5321 5.1 asks for two tries at least.
pub const ADDRESSES_MAX: usize = 8;
/// The port of mail exchangers.
pub const MX_PORT: u16 = 25;

const _: () = assert!(TARGETS_MAX >= 2 && ADDRESSES_MAX >= 2);
const _: () = assert!(dns_limits::RECORDS_MAX <= MX_RECORDS_MAX);

/// One host of a static route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Name in lower case, or an address as text: what the log calls it.
    pub name: Box<str>,
    /// Its address, if the config gives one; else `name` is looked up.
    pub address: Option<IpAddr>,
    /// TCP port.
    pub port: u16,
    /// Lower is tried first; the others when all of those fail.
    pub priority: u32,
    /// Share of the mail among hosts of one priority; 0 counts as 1.
    pub weight: u32,
}

/// How the hosts are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHop {
    /// These, at least one.
    Hosts(Box<[Host]>),
    /// The domain's mail exchangers, or its own addresses.
    Mx,
    /// Thrown away.
    Discard {
        /// Kept in the log first.
        logged: bool,
    },
}

/// What a message of some age is sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// From this age of the message on, in µs. The first tier of a route begins at 0.
    pub from_age_us: u64,
    /// Where to.
    pub next_hop: NextHop,
    /// TLS towards it.
    pub tls: TlsPolicy,
}

/// Where mail of some domains goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// For logs.
    pub name: Box<str>,
    /// At least one, by rising age.
    pub tiers: Box<[Tier]>,
    /// Connections to one host, of all cores together.
    pub connections_max: u32,
}

impl Route {
    /// The tier for a message of this age, and its number for the spool's record.
    ///
    /// # Panics
    /// If the route has no tier.
    #[must_use]
    pub fn tier(&self, age_us: u64) -> (u8, &Tier) {
        let after_first = self.tiers.iter().skip(1).take(usize::from(u8::MAX));
        let n = after_first.take_while(|tier| tier.from_age_us <= age_us).count();
        let number = u8::try_from(n).expect("at most as many were taken");
        (number, self.tiers.get(n).expect("a route has a tier"))
    }

    /// The name under which the queue knows the destination: all mail with the same name has the
    /// same hosts.
    #[must_use]
    pub fn destination(&self, tier: u8, domain: &str) -> Box<[u8]> {
        let mx = self.tiers.get(usize::from(tier)).is_some_and(|t| t.next_hop == NextHop::Mx);
        let name = &self.name;
        let text = if mx {
            format!("{name}/{tier}/{}", domain.to_ascii_lowercase())
        } else {
            format!("{name}/{tier}")
        };
        text.into_bytes().into()
    }
}

/// What must not be a next hop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ourselves {
    /// Our names, in lower case.
    pub names: Vec<Box<str>>,
    /// Addresses of this machine.
    pub addresses: Vec<IpAddr>,
    /// Ports on which we listen for mail.
    pub ports: Vec<u16>,
}

impl Ourselves {
    /// Whether a connection to it would come back here.
    #[must_use]
    pub fn reached_by(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.ports.contains(&address.port())
            && (ip.is_unspecified() || self.addresses.contains(&ip))
    }

    /// Whether that is one of our names.
    fn named(&self, name: &str) -> bool {
        self.names.iter().any(|own| **own == *name)
    }

    fn is(&self, name: &str, addresses: &[IpAddr], port: u16) -> bool {
        (self.ports.contains(&port) && self.named(name))
            || addresses.iter().any(|ip| self.reached_by(SocketAddr::new(*ip, port)))
    }
}

/// One host to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// For logs, SNI and the connection pool.
    pub name: Box<str>,
    /// In the order to try, at least one.
    pub addresses: Vec<SocketAddr>,
    /// TLS towards it.
    pub tls: TlsPolicy,
}

/// Why nothing is sent: a reply at RCPT, or the diagnostic of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Reply code.
    pub code: u16,
    /// Enhanced code.
    pub enhanced: Enhanced,
    /// For the log and the peer.
    pub text: Arc<str>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Try these, in order; at least one.
    Try(Vec<Target>),
    /// All hosts are marked as down; the first until this time, in µs.
    Down(u64),
    /// Not known for now.
    Later(Refusal),
    /// Never.
    Refused(Refusal),
}

/// What a plan depends on beside the route.
pub struct Facts<'a> {
    /// What must not be a next hop.
    pub ourselves: &'a Ourselves,
    /// Until when an address is marked as down, in µs; 0 when it is not.
    pub down_until_us: &'a dyn Fn(SocketAddr) -> u64,
    /// Now, in µs.
    pub now_us: u64,
    /// For shuffling.
    pub seed: u64,
}

impl std::fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts").field("ourselves", self.ourselves).finish_non_exhaustive()
    }
}
