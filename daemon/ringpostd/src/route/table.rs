//! Which route a domain has.

use std::collections::HashMap;
use std::sync::Arc;

use smtp::client::TlsPolicy;

use super::{Host, NextHop, Route, Tier};
use crate::config::{self, RouteConfig, RouteDomain, RouteTls};

/// All routes of a config.
#[derive(Debug, Clone, Default)]
pub struct Table {
    domains: HashMap<Box<str>, Arc<Route>>,
    any: Option<Arc<Route>>,
}

impl Table {
    /// From the config's routes.
    #[must_use]
    pub fn new(routes: &[RouteConfig]) -> Self {
        let mut table = Self::default();
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
        self.domains
            .get(domain)
            .or_else(|| self.domains.get(domain.to_ascii_lowercase().as_str()))
            .or(self.any.as_ref())
    }
}

fn route(config: &RouteConfig) -> Route {
    let next_hop = match &config.next_hop {
        config::NextHop::Mx => NextHop::Mx,
        config::NextHop::Discard { logged } => NextHop::Discard { logged: *logged },
        config::NextHop::Hosts(hosts) => NextHop::Hosts(
            hosts
                .iter()
                .map(|host| Host {
                    name: host.host.to_string().into(),
                    address: match host.host {
                        config::Host::Name(_) => None,
                        config::Host::Address(address) => Some(address),
                    },
                    port: host.port,
                    priority: host.priority,
                    weight: host.weight,
                })
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
        tiers: [Tier { from_age_us: 0, next_hop, tls }].into(),
        connections_max: config.connections_max,
    }
}
