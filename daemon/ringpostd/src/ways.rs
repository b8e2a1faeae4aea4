//! Where mail for a domain goes, as far as this core knows: routes, what the DNS said, what the
//! next hops were last seen to offer and how they are doing.
//!
//! *Limits.* [`KNOWN_MAX`] domains and hosts are remembered; beyond it all are forgotten and asked
//! for again. A question under way is not asked twice within [`ASK_AGAIN_US`].
//! *Not here.* The asking (the house thread), the choice among hosts (`route`).

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hints::{Hints, offers};

use crate::acl::{Carries, Way};
use crate::config::{Config, RouteDomain};
use crate::dns::{AddressAnswer, MxAnswer};
use crate::route::{self, Facts, Host, NextHop, Ourselves, Plan, Route, Table, Tier};

/// Domains and hosts whose answers are remembered.
const KNOWN_MAX: usize = 65_536;
/// A question that got no answer is asked again after this.
const ASK_AGAIN_US: u64 = 10_000_000;
/// What is not known for now is asked again after this.
const TROUBLE_S: u32 = 5;
/// The shortest time an answer is believed.
const TTL_S_MIN: u32 = 5;

/// A question for the house thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The exchangers of a domain.
    Mx(Arc<str>),
    /// The addresses of a host.
    Addresses(Arc<str>),
}

#[derive(Debug)]
struct Known<T> {
    answer: Arc<T>,
    until_us: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Ways {
    table: Table,
    routes: Vec<Arc<Route>>,
    ourselves: Ourselves,
    mx: HashMap<Arc<str>, Known<MxAnswer>>,
    addresses: HashMap<Arc<str>, Known<AddressAnswer>>,
    asked: HashMap<Ask2, u64>,
}

/// A question under way: whether it is about exchangers, and of whom.
type Ask2 = (bool, Arc<str>);

/// The key of a next hop in the hints.
#[must_use]
pub fn hop_key(address: SocketAddr) -> Vec<u8> {
    SocketAddr::new(address.ip().to_canonical(), address.port()).to_string().into_bytes()
}

impl Ways {
    /// The ways of a config; `listening` are our own addresses with the ports in use.
    #[must_use]
    pub fn new(config: &Config, own_addresses: &[IpAddr], listening: &[SocketAddr]) -> Self {
        let mut ports: Vec<u16> = listening.iter().map(SocketAddr::port).collect();
        ports.sort_unstable();
        ports.dedup();
        let ourselves = Ourselves {
            names: vec![config.node.hostname.as_str().to_ascii_lowercase().into()],
            addresses: own_addresses.to_vec(),
            ports,
        };
        let mut ways = Self {
            table: Table::default(),
            routes: Vec::new(),
            ourselves,
            mx: HashMap::new(),
            addresses: HashMap::new(),
            asked: HashMap::new(),
        };
        ways.orders(config);
        ways
    }

    /// Takes over the routes of another config.
    pub fn orders(&mut self, config: &Config) {
        self.table = Table::new(&config.routes);
        let mut seen = HashSet::new();
        let first = config.routes.iter().filter_map(|route| route.domains.first());
        self.routes = first
            .filter_map(|domain| match domain {
                // No host has an empty name: only the default route answers to it.
                RouteDomain::Any => self.table.find(""),
                RouteDomain::Domain(name) => self.table.find(name.as_str()),
            })
            .filter(|route| seen.insert(route.name.clone()))
            .cloned()
            .collect();
    }

    /// The route of a domain.
    #[must_use]
    pub fn route(&self, domain: &str) -> Option<&Arc<Route>> {
        self.table.find(domain)
    }

    /// Whether mail for a domain is thrown away, and if so whether it is kept first.
    #[must_use]
    pub fn discards(&self, domain: &str) -> Option<bool> {
        match self.route(domain)?.tiers.first()?.next_hop {
            NextHop::Discard { logged } => Some(logged),
            NextHop::Hosts(_) | NextHop::Mx => None,
        }
    }

    /// Whether any route throws mail away without keeping it.
    #[must_use]
    pub fn discards_at_once(&self) -> bool {
        let at_once = NextHop::Discard { logged: false };
        self.routes.iter().any(|route| route.tiers.iter().any(|tier| tier.next_hop == at_once))
    }

    /// All routes of the config, each once.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The way to a domain; `None` while it is being found out (see [`Ways::asks`]).
    #[must_use]
    pub fn way(&self, hints: &Hints<'_>, domain: &str, wall_us: u64) -> Option<Way> {
        let Some(route) = self.route(domain) else { return Some(Way::NoRoute) };
        let tier = route.tiers.first()?;
        if let NextHop::Discard { .. } = tier.next_hop {
            return Some(Way::Hosts(Carries { utf8: true, binary: true, octets_max: None }));
        }
        let up = |_: SocketAddr| 0;
        let plan = self.plan_with(tier, domain, wall_us, 0, &up)?;
        Some(match plan {
            Plan::Try(targets) => {
                let hops = targets.iter().flat_map(|target| &target.addresses);
                Way::Hosts(carries(hints, hops, wall_us))
            }
            Plan::Refused(refusal) => match (refusal.code, refusal.enhanced.1) {
                (556, _) => Way::NullMx,
                (554, _) => Way::Ourselves,
                _ => Way::NoHost,
            },
            // A static host that cannot be looked up now: the mail can wait for it.
            Plan::Down(_) | Plan::Later(_) if matches!(tier.next_hop, NextHop::Hosts(_)) => {
                Way::Hosts(Carries { utf8: false, binary: false, octets_max: None })
            }
            Plan::Down(_) | Plan::Later(_) => Way::Trouble,
        })
    }

    /// The hosts to try for a domain on this tier, best first; `None` while they are being looked
    /// up. `down_until_us` is what the hints say of a host.
    pub fn plan(
        &self,
        tier: &Tier,
        domain: &str,
        wall_us: u64,
        seed: u64,
        down_until_us: &dyn Fn(SocketAddr) -> u64,
    ) -> Option<Plan> {
        self.plan_with(tier, domain, wall_us, seed, down_until_us)
    }

    fn plan_with(
        &self,
        tier: &Tier,
        domain: &str,
        wall_us: u64,
        seed: u64,
        down_until_us: &dyn Fn(SocketAddr) -> u64,
    ) -> Option<Plan> {
        let facts = Facts { ourselves: &self.ourselves, down_until_us, now_us: wall_us, seed };
        match &tier.next_hop {
            NextHop::Hosts(hosts) => {
                if self.unknown_host(hosts, wall_us).is_some() {
                    return None;
                }
                let lookup = |name: &str| self.addresses_of(name);
                Some(route::static_hosts(hosts, tier.tls, lookup, &facts))
            }
            NextHop::Discard { .. } => None,
            NextHop::Mx => {
                let known = self.mx.get(domain).filter(|known| known.until_us > wall_us)?;
                Some(route::mx(domain, &known.answer, tier.tls, &facts))
            }
        }
    }

    /// A named host whose addresses were not asked for lately.
    fn unknown_host<'h>(&self, hosts: &'h [Host], wall_us: u64) -> Option<&'h str> {
        let missing = |host: &&Host| {
            host.address.is_none()
                && self.addresses.get(&*host.name).is_none_or(|known| known.until_us <= wall_us)
        };
        hosts.iter().find(missing).map(|host| &*host.name)
    }

    fn addresses_of(&self, name: &str) -> Option<&[IpAddr]> {
        match &*self.addresses.get(name)?.answer {
            AddressAnswer::Found { addresses, .. } => Some(addresses),
            AddressAnswer::NoName | AddressAnswer::NoData => Some(&[]),
            AddressAnswer::Temporary(_) => None,
        }
    }

    /// What must be asked before the way to `domain` on this tier is known. Nothing while the
    /// question is under way.
    pub fn asks(&mut self, tier: &Tier, domain: &str, wall_us: u64) -> Option<Ask> {
        let (mx, name): (bool, Arc<str>) = match &tier.next_hop {
            NextHop::Discard { .. } => return None,
            NextHop::Mx => (true, domain.into()),
            NextHop::Hosts(hosts) => (false, self.unknown_host(hosts, wall_us)?.into()),
        };
        let key = (mx, Arc::clone(&name));
        if self.asked.get(&key).is_some_and(|at| wall_us < at.saturating_add(ASK_AGAIN_US)) {
            return None;
        }
        if self.asked.len() >= KNOWN_MAX {
            self.asked.clear();
        }
        self.asked.insert(key, wall_us);
        Some(if mx { Ask::Mx(name) } else { Ask::Addresses(name) })
    }

    /// The house found out the exchangers of a domain.
    pub fn learned_mx(&mut self, domain: &Arc<str>, answer: &Arc<MxAnswer>, wall_us: u64) {
        let ttl_s = match &**answer {
            MxAnswer::Hosts { ttl_s, .. } => *ttl_s,
            MxAnswer::Null | MxAnswer::NoName | MxAnswer::NoHost => 60,
            MxAnswer::Temporary(_) => TROUBLE_S,
        };
        self.asked.remove(&(true, Arc::clone(domain)));
        if self.mx.len() >= KNOWN_MAX {
            self.mx.clear();
        }
        let known = Known { answer: Arc::clone(answer), until_us: until(wall_us, ttl_s) };
        self.mx.insert(Arc::clone(domain), known);
    }

    /// The house found out the addresses of a host.
    pub fn learned_addresses(
        &mut self,
        host: &Arc<str>,
        answer: &Arc<AddressAnswer>,
        wall_us: u64,
    ) {
        let ttl_s = match &**answer {
            AddressAnswer::Found { ttl_s, .. } => *ttl_s,
            AddressAnswer::NoName | AddressAnswer::NoData => 60,
            AddressAnswer::Temporary(_) => TROUBLE_S,
        };
        self.asked.remove(&(false, Arc::clone(host)));
        if self.addresses.len() >= KNOWN_MAX {
            self.addresses.clear();
        }
        let known = Known { answer: Arc::clone(answer), until_us: until(wall_us, ttl_s) };
        self.addresses.insert(Arc::clone(host), known);
    }

    /// What at least one way carries: only that is announced. Hosts behind an MX are not known
    /// beforehand, so a route to them may carry everything.
    #[must_use]
    pub fn some_carry(&self, hints: &Hints<'_>, wall_us: u64) -> Carries {
        let mut some = Carries { utf8: false, binary: false, octets_max: None };
        for route in &self.routes {
            let Some(tier) = route.tiers.first() else { continue };
            let carries = match &tier.next_hop {
                NextHop::Mx | NextHop::Discard { .. } => {
                    Carries { utf8: true, binary: true, octets_max: None }
                }
                NextHop::Hosts(hosts) => {
                    let hops: Vec<SocketAddr> = self.hops(hosts).collect();
                    carries(hints, &hops, wall_us)
                }
            };
            some.utf8 |= carries.utf8;
            some.binary |= carries.binary;
        }
        some
    }

    /// The addresses of static hosts, as far as they are known.
    pub fn hops<'a>(&'a self, hosts: &'a [Host]) -> impl Iterator<Item = SocketAddr> + 'a {
        hosts.iter().flat_map(|host| {
            let named = self.addresses_of(&host.name).unwrap_or_default();
            let addresses = host.address.as_slice().iter().chain(named);
            addresses.map(|ip| SocketAddr::new(*ip, host.port))
        })
    }
}

fn until(wall_us: u64, ttl_s: u32) -> u64 {
    wall_us.saturating_add(u64::from(ttl_s.max(TTL_S_MIN)) * 1_000_000)
}

/// What all of these hops carry for certain. No hop at all carries nothing special.
fn carries<'a>(
    hints: &Hints<'_>,
    hops: impl IntoIterator<Item = &'a SocketAddr>,
    wall_us: u64,
) -> Carries {
    let mut all: Option<Carries> = None;
    for hop in hops {
        let seen = hints.offers(&hop_key(*hop), wall_us);
        let this = Carries {
            utf8: seen.is_some_and(|o| o.has(offers::SMTPUTF8 | offers::EIGHT_BIT_MIME)),
            binary: seen.is_some_and(|o| o.has(offers::BINARYMIME | offers::CHUNKING)),
            octets_max: seen.map(|o| o.size_octets_max).filter(|octets| *octets > 0),
        };
        let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        all = Some(match all {
            None => this,
            Some(all) => Carries {
                utf8: all.utf8 && this.utf8,
                binary: all.binary && this.binary,
                octets_max: least(all.octets_max, this.octets_max),
            },
        });
    }
    all.unwrap_or(Carries { utf8: false, binary: false, octets_max: None })
}
