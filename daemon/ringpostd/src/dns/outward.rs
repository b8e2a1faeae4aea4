//! What the house asks: where mail for a domain goes, and what did not fit into a datagram.
//!
//! *Guarantees.* "No such domain" and "not known for now" are told apart; only the first may bounce
//! mail. At most [`RECORDS_MAX`] records are looked at, [`MX_HOSTS_MAX`] hosts resolved.
//!
//! *Not here.* The choice among hosts (`route`), and "is that us" (`route`).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::Resolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
    ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::Name;

use super::answer::{Data, Failure, Outcome, collect};
use super::limits::{
    MX_FAILURES_MAX, MX_HOSTS_MAX, NEGATIVE_TTL_S, OUTWARD_CACHE_MAX, RECORDS_MAX, TTL_S_MAX,
    UDP_OCTETS_MAX,
};
use super::question::{Kind, Question};

/// How the house asks.
#[derive(Debug, Clone)]
pub struct OutwardConfig {
    /// The resolvers, by address and port.
    pub resolvers: Vec<SocketAddr>,
    /// How long to wait for one answer.
    pub try_timeout: Duration,
    /// Tries per resolver, at least one.
    pub tries: u8,
}

/// Where mail for a domain goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MxAnswer {
    /// To these, by rising preference; equal ones in the order of the answer.
    Hosts {
        /// At least one has an address.
        hosts: Vec<MxHost>,
        /// Seconds this may be believed.
        ttl_s: u32,
        /// No MX record: the domain's own addresses are meant (RFC 5321 5.1).
        implicit: bool,
    },
    /// The domain takes no mail (RFC 7505): 556 5.1.10.
    Null,
    /// There is no such domain: 550 5.1.2.
    NoName,
    /// The domain exists, but no host of it has an address: 550 5.4.4.
    NoHost,
    /// Not known for now; the reason, for the log.
    Temporary(Box<str>),
}

/// One mail exchanger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MxHost {
    /// Lower is tried first.
    pub preference: u16,
    /// Host name, lower case, no trailing dot.
    pub name: Box<str>,
    /// IPv6 and IPv4 addresses as the DNS gave them, IPv4 first; may be empty.
    pub addresses: Vec<IpAddr>,
    /// Its addresses are not known for now (then `addresses` is empty).
    pub unresolved: bool,
}

/// Addresses of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressAnswer {
    /// At least one.
    Found {
        /// IPv4 first.
        addresses: Vec<IpAddr>,
        /// Seconds they may be believed.
        ttl_s: u32,
    },
    /// There is no such host.
    NoName,
    /// It exists and has no address.
    NoData,
    /// Not known for now.
    Temporary(Box<str>),
}

/// The house's resolver. It lives on the house's thread, within its runtime.
pub struct Outward {
    any: Resolver<TokioRuntimeProvider>,
    tcp: Resolver<TokioRuntimeProvider>,
}

impl std::fmt::Debug for Outward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outward")
    }
}

impl Outward {
    /// Opens nothing yet.
    ///
    /// # Errors
    /// What hickory has to say against the configuration.
    pub fn new(config: &OutwardConfig) -> Result<Self, Box<str>> {
        let udp_and_tcp = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        Ok(Self {
            any: resolver(config, &udp_and_tcp)?,
            tcp: resolver(config, &[ConnectionConfig::tcp()])?,
        })
    }

    /// Where mail for `domain` goes.
    pub async fn mx(&self, domain: &str) -> MxAnswer {
        let Ok(question) = Question::new(domain.as_bytes(), Kind::Mx) else {
            return MxAnswer::NoName;
        };
        let (data, mut ttl_s) = match ask(&self.any, &question).await {
            Ok(Outcome::Found(answer)) => (answer.data, answer.ttl_s),
            Ok(Outcome::NoName { .. }) => return MxAnswer::NoName,
            Ok(Outcome::NoData { .. }) => return self.implicit(domain, &question).await,
            Ok(Outcome::Failed(Failure::Malformed)) => return MxAnswer::NoHost,
            Ok(other) => return MxAnswer::Temporary(format!("{other:?}").into()),
            Err(reason) => return MxAnswer::Temporary(reason),
        };
        let mut listed = exchangers(&data);
        if listed.is_empty() {
            return MxAnswer::Null;
        }
        listed.sort_by_key(|(preference, _)| *preference);
        let mut hosts = Vec::with_capacity(listed.len().min(MX_HOSTS_MAX));
        let (mut failures, mut reason) = (0, None);
        for (preference, name) in listed.into_iter().take(MX_HOSTS_MAX) {
            let mut host = MxHost { preference, name, addresses: Vec::new(), unresolved: true };
            if failures < MX_FAILURES_MAX {
                match self.addresses(&host.name).await {
                    AddressAnswer::Found { addresses, ttl_s: host_ttl_s } => {
                        (host.addresses, host.unresolved) = (addresses, false);
                        ttl_s = ttl_s.min(host_ttl_s);
                    }
                    AddressAnswer::NoName | AddressAnswer::NoData => host.unresolved = false,
                    AddressAnswer::Temporary(why) => reason = Some(why),
                }
                failures = if host.unresolved { failures + 1 } else { 0 };
            }
            hosts.push(host);
        }
        if hosts.iter().any(|host| !host.addresses.is_empty()) {
            return MxAnswer::Hosts { hosts, ttl_s, implicit: false };
        }
        reason.map_or(MxAnswer::NoHost, MxAnswer::Temporary)
    }

    /// The addresses of one host, both families.
    pub async fn addresses(&self, host: &str) -> AddressAnswer {
        let Ok(question) = Question::new(host.as_bytes(), Kind::A) else {
            return AddressAnswer::NoName;
        };
        match self.any.lookup_ip(question.name()).await {
            Ok(found) => {
                let mut addresses: Vec<IpAddr> = found.iter().take(RECORDS_MAX).collect();
                addresses.sort_by_key(IpAddr::is_ipv6);
                if addresses.is_empty() {
                    return AddressAnswer::NoData;
                }
                AddressAnswer::Found { addresses, ttl_s: seconds_until(found.valid_until()) }
            }
            Err(error) if error.is_nx_domain() => AddressAnswer::NoName,
            Err(error) if is_no_data(&error) => AddressAnswer::NoData,
            Err(error) => AddressAnswer::Temporary(error.to_string().into()),
        }
    }

    /// The records of one type that a name has.
    pub async fn records(&self, question: &Question) -> Outcome {
        ask(&self.any, question).await.unwrap_or(Outcome::Failed(Failure::Timeout))
    }

    /// Asks over TCP what a core could not learn over UDP ([`Outcome::NeedsTcp`], which never comes
    /// back from here).
    pub async fn over_tcp(&self, question: &Question) -> Outcome {
        match ask(&self.tcp, question).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failed(Failure::Timeout),
        }
    }

    /// Asks as it is, for the operator.
    pub async fn lookup(&self, question: &Question) -> Outcome {
        ask(&self.any, question).await.unwrap_or(Outcome::Failed(Failure::Timeout))
    }

    async fn implicit(&self, domain: &str, question: &Question) -> MxAnswer {
        match self.addresses(domain).await {
            AddressAnswer::Found { addresses, ttl_s } => {
                let name = super::answer::host_text(&question.name());
                let Some(name) = name else { return MxAnswer::NoHost };
                let host = MxHost { preference: 0, name, addresses, unresolved: false };
                MxAnswer::Hosts { hosts: vec![host], ttl_s, implicit: true }
            }
            AddressAnswer::NoName => MxAnswer::NoName,
            AddressAnswer::NoData => MxAnswer::NoHost,
            AddressAnswer::Temporary(reason) => MxAnswer::Temporary(reason),
        }
    }
}

/// Host names with preferences; a null MX beside others means nothing, alone it leaves the list
/// empty.
fn exchangers(data: &[Data]) -> Vec<(u16, Box<str>)> {
    data.iter()
        .filter_map(|data| match data {
            Data::Mx { preference, host } if !host.is_empty() => Some((*preference, host.clone())),
            _ => None,
        })
        .collect()
}

async fn ask(
    resolver: &Resolver<TokioRuntimeProvider>,
    question: &Question,
) -> Result<Outcome, Box<str>> {
    let name: Name = question.name();
    match resolver.lookup(name, question.kind().record_type()).await {
        Ok(found) => {
            let authentic = found.message().metadata.authentic_data;
            let outcome = collect(question, found.answers(), found.authorities(), authentic);
            let ttl_s = seconds_until(found.valid_until());
            Ok(match outcome {
                Outcome::Found(mut answer) => {
                    // From the cache: the records still carry the TTL they came with.
                    answer.ttl_s = answer.ttl_s.min(ttl_s);
                    Outcome::Found(answer)
                }
                other => other,
            })
        }
        Err(error) if error.is_nx_domain() => Ok(Outcome::NoName { ttl_s: negative_ttl_s(&error) }),
        Err(error) if is_no_data(&error) => Ok(Outcome::NoData { ttl_s: negative_ttl_s(&error) }),
        Err(NetError::Dns(DnsError::ResponseCode(code))) => {
            let low = u16::from(code).to_be_bytes()[1];
            Ok(Outcome::Failed(Failure::Server(low)))
        }
        Err(error) => Err(error.to_string().into()),
    }
}

/// An empty answer, and not one that hides an error code.
fn is_no_data(error: &NetError) -> bool {
    matches!(
        error,
        NetError::Dns(DnsError::NoRecordsFound(none))
            if none.response_code == ResponseCode::NoError
    )
}

fn negative_ttl_s(error: &NetError) -> u32 {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => none.negative_ttl,
        _ => None,
    }
    .map_or(NEGATIVE_TTL_S, |ttl_s| ttl_s.min(TTL_S_MAX))
}

fn seconds_until(instant: Instant) -> u32 {
    let left = instant.saturating_duration_since(Instant::now()).as_secs();
    u32::try_from(left).unwrap_or(TTL_S_MAX).min(TTL_S_MAX)
}

fn resolver(
    config: &OutwardConfig,
    connections: &[ConnectionConfig],
) -> Result<Resolver<TokioRuntimeProvider>, Box<str>> {
    let servers = config.resolvers.iter().map(|server| {
        let connections = connections.iter().map(|connection| {
            let mut connection = connection.clone();
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.collect())
    });
    let servers = ResolverConfig::from_name_servers(servers.collect());
    let mut builder = Resolver::builder_with_config(servers, TokioRuntimeProvider::default());
    let loopback = config.resolvers.iter().all(|server| server.ip().to_canonical().is_loopback());
    set(builder.options_mut(), config, loopback);
    builder.build().map_err(|error| error.to_string().into())
}

fn set(options: &mut ResolverOpts, config: &OutwardConfig, loopback: bool) {
    options.timeout = config.try_timeout;
    options.attempts = usize::from(config.tries.max(1) - 1);
    options.edns0 = true;
    options.edns_payload_len = UDP_OCTETS_MAX;
    options.cache_size = OUTWARD_CACHE_MAX;
    options.positive_max_ttl = Some(Duration::from_secs(TTL_S_MAX.into()));
    options.negative_max_ttl = Some(Duration::from_secs(TTL_S_MAX.into()));
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.case_randomization = !loopback;
    options.preserve_intermediates = true;
}
