//! Which route a domain has.

use std::collections::HashMap;
use std::sync::Arc;

use smtp::client::TlsPolicy;

use super::{Host, NextHop, Route, Tier};
use crate::config::{self, RouteConfig, RouteDomain, RouteFallback, RouteTls};
use crate::health;

/// All routes of a config.
#[derive(Debug, Clone, Default)]
pub struct Table {
    domains: HashMap<Box<str>, Arc<Route>>,
    any: Option<Arc<Route>>,
    /// Of what the health check sends.
    health: Option<Arc<Route>>,
}

impl Table {
    /// From the config's routes.
    #[must_use]
    pub fn new(routes: &[RouteConfig]) -> Self {
        let mut table = Self { health: Some(Arc::new(to_nowhere())), ..Self::default() };
        for config in routes {
            let route = Arc::new(route(config));
            for domain in &config.domains {
                match domain {
                    RouteDomain::Any => table.any = Some(Arc::clone(&route)),
                    RouteDomain::Domain(name) => {
                        table.domains.insert(name.as_str().into(), Arc::clone(&route));
                    }
                }
            }
        }
        table
    }

    /// The route of a domain, in any case, without final dot.
    #[must_use]
    pub fn find(&self, domain: &str) -> Option<&Arc<Route>> {
        if health::is_below(domain) {
            return self.health.as_ref();
        }
        let lower = || {
            let has_upper = domain.bytes().any(|octet| octet.is_ascii_uppercase());
            has_upper.then(|| domain.to_ascii_lowercase())
        };
        let found = self.domains.get(domain);
        found
            .or_else(|| lower().and_then(|domain| self.domains.get(domain.as_str())))
            .or(self.any.as_ref())
    }
}

/// Kept, then thrown away: no route of the config is asked.
fn to_nowhere() -> Route {
    let next_hop = NextHop::Discard { logged: true };
    let tier = Tier { from_age_us: 0, next_hop, tls: TlsPolicy::Never };
    Route { name: "health".into(), tiers: [tier].into(), connections_max: 1 }
}

fn host_of(host: &config::Host, port: u16, priority: u32, weight: u32) -> Host {
    let address = match host {
        config::Host::Name(_) => None,
        config::Host::Address(address) => Some(*address),
    };
    Host { name: host.to_string().into(), address, port, priority, weight }
}

/// One tier for each age.
fn fallbacks(config: &RouteConfig, tls: TlsPolicy) -> Vec<Tier> {
    let same_age = |a: &RouteFallback, b: &RouteFallback| a.after_s.us() == b.after_s.us();
    let tier = |hosts: &[RouteFallback]| Tier {
        from_age_us: hosts.first().map_or(0, |host| host.after_s.us()),
        next_hop: NextHop::Hosts(
            hosts.iter().map(|host| host_of(&host.host, host.port, 0, 1)).collect(),
        ),
        tls,
    };
    config.fallback.chunk_by(same_age).map(tier).collect()
}

fn route(config: &RouteConfig) -> Route {
    let next_hop = match &config.next_hop {
        config::NextHop::Mx => NextHop::Mx,
        config::NextHop::Discard { logged } => NextHop::Discard { logged: *logged },
        config::NextHop::Hosts(hosts) => NextHop::Hosts(
            hosts
                .iter()
                .map(|host| host_of(&host.host, host.port, host.priority, host.weight))
                .collect(),
        ),
    };
    let tls = match config.tls {
        RouteTls::May => TlsPolicy::May,
        RouteTls::Must => TlsPolicy::Must,
        RouteTls::Never => TlsPolicy::Never,
    };
    Route {
        name: config.name.as_str().into(),
        tiers: std::iter::once(Tier { from_age_us: 0, next_hop, tls })
            .chain(fallbacks(config, tls))
            .collect(),
        connections_max: config.connections_max,
    }
}
