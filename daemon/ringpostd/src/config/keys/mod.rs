//! Every key of the config file, by section, in the order in which the docs print them.

mod deliver;
mod filter;
mod keep;
mod manage;
mod receive;

pub use deliver::{
    Discard, ResolverConfig, RetryConfig, RouteFallback, RouteHost, RouteTls, TimeoutsOut,
};
pub use filter::{DnsblConfig, ListConfig, ListFormat, XdpConfig};
pub use keep::{Durability, HintsConfig, LogConfig, LogFormat, SpoolConfig};
pub use manage::{AdminConfig, ClockConfig, MetricsConfig, NodeConfig, Sandbox};
pub use receive::{
    BareNewline, CertificateConfig, EarlyTalker, LimitsConfig, ListenerConfig, ListenerTls,
    PolicyConfig, Proxy, TimeoutsIn, TlsVersion,
};

pub(super) use deliver::RouteKeys;
pub(super) use receive::TlsKeys;

use super::section::{Part, Section};

/// Every section.
pub(super) const SECTIONS: &[&Section] = &[
    NodeConfig::SECTION,
    ListenerConfig::SECTION,
    TlsKeys::SECTION,
    CertificateConfig::SECTION,
    PolicyConfig::SECTION,
    LimitsConfig::SECTION,
    TimeoutsIn::SECTION,
    XdpConfig::SECTION,
    ListConfig::SECTION,
    DnsblConfig::SECTION,
    RouteKeys::SECTION,
    RouteHost::SECTION,
    RouteFallback::SECTION,
    RetryConfig::SECTION,
    TimeoutsOut::SECTION,
    ResolverConfig::SECTION,
    SpoolConfig::SECTION,
    HintsConfig::SECTION,
    LogConfig::SECTION,
    AdminConfig::SECTION,
    MetricsConfig::SECTION,
    ClockConfig::SECTION,
];
