//! The second step of loading: parts that fit each other, or both places where they do not.
//!
//! *Guarantees.* What passes here can be started: no open relay, no route without a hop, no
//! listener that promises TLS without a certificate.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use toml_span::Span;

use super::keys::{
    CertificateConfig, Discard, Durability, LimitsConfig, ListenerConfig, ListenerTls, LogConfig,
    MetricsConfig, PolicyConfig, Proxy, RetryConfig, RouteFallback, RouteHost, RouteTls,
    SpoolConfig, TimeoutsIn, TlsVersion,
};
use super::names::{Host, HostName, RouteDomain, Word};
use super::raw::{Raw, RawRoute};
use super::recipients::Recipients;
use super::section::{Notes, Places, Read};

use super::{Config, Files};
use crate::limits;

/// TLS of the listeners.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsConfig {
    /// The oldest version that is spoken.
    pub version_min: TlsVersion,
    /// Certificates in the order of the file; empty only if no listener speaks TLS.
    pub certificates: Vec<CertificateConfig>,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq)]
pub enum NextHop {
    /// To the domain's mail exchangers.
    Mx,
    /// To these, at least one.
    Hosts(Vec<RouteHost>),
    /// Nowhere: thrown away, after it was kept or at once.
    Discard {
        /// It is kept first.
        logged: bool,
    },
}

/// One route.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteConfig {
    /// Its name in the log.
    pub name: Word,
    /// Its domains; no domain stands in two routes.
    pub domains: Vec<RouteDomain>,
    /// Where it leads.
    pub next_hop: NextHop,
    /// Where mail of some age goes, by rising age; may be empty.
    pub fallback: Vec<RouteFallback>,
    /// TLS towards it.
    pub tls: RouteTls,
    /// Connections to one host at once, by all cores.
    pub connections_max: u32,
}

/// Checks all parts against each other; `None` if one is absent.
pub(super) fn check(raw: Raw, files: &dyn Files, notes: &mut Notes<'_>) -> Option<Config> {
    listeners(&raw, notes);
    certificates(&raw, files, notes);
    if let Some(policy) = &raw.policy {
        policy_networks(policy, notes);
    }
    let recipients = recipients(&raw, files, notes);
    limits_fit(&raw, notes);
    super::ladder_fit::check(&raw, notes);
    routes_fit(&raw, notes);
    retry(raw.retry.as_ref(), notes);
    spool(raw.spool.as_ref(), notes);
    log(raw.log.as_ref(), notes);
    timeouts(raw.timeouts_in.as_ref(), notes);
    manage(&raw, notes);
    build(raw, recipients)
}

fn build(raw: Raw, recipients: Option<Recipients>) -> Option<Config> {
    let parts = |reads: Option<Vec<Read<ListenerConfig>>>| -> Option<Arc<[ListenerConfig]>> {
        Some(reads?.into_iter().map(|read| read.part).collect())
    };
    let certificates = raw.certificates?.into_iter().map(|read| read.part).collect();
    let tls = TlsConfig { version_min: raw.tls?.part.version_min, certificates };
    let routes = raw.routes?.into_iter().map(route).collect::<Option<Vec<_>>>()?;
    Some(Config {
        node: Arc::new(raw.node?.part),
        listeners: parts(raw.listeners)?,
        tls: Arc::new(tls),
        policy: Arc::new(raw.policy?.part),
        recipients: Arc::new(recipients?),
        limits: Arc::new(raw.limits?.part),
        timeouts_in: Arc::new(raw.timeouts_in?.part),
        xdp: Arc::new(raw.xdp?.part),
        lists: raw.lists?.into_iter().map(|read| read.part).collect(),
        dnsbl: raw.dnsbl?.into_iter().map(|read| read.part).collect(),
        routes: routes.into(),
        retry: Arc::new(raw.retry?.part),
        timeouts_out: Arc::new(raw.timeouts_out?.part),
        resolver: Arc::new(raw.resolver?.part),
        spool: Arc::new(raw.spool?.part),
        hints: Arc::new(raw.hints?.part),
        log: Arc::new(raw.log?.part),
        admin: Arc::new(raw.admin?.part),
        metrics: Arc::new(raw.metrics?.part),
        clock: Arc::new(raw.clock?.part),
    })
}

fn route(raw: RawRoute) -> Option<RouteConfig> {
    let keys = raw.route.part;
    let name = keys.name.or_else(|| match keys.domains.first() {
        Some(RouteDomain::Domain(domain)) => Word::parse(domain.as_str()),
        _ => None,
    });
    let hosts: Vec<_> = raw.hosts.into_iter().map(|read| read.part).collect();
    let mut fallback: Vec<_> = raw.fallback.into_iter().map(|read| read.part).collect();
    fallback.sort_by_key(|host| host.after_s.us());
    Some(RouteConfig {
        fallback,
        name: name.or_else(|| Word::parse("default"))?,
        domains: keys.domains,
        next_hop: match keys.discard {
            Discard::Logged => NextHop::Discard { logged: true },
            Discard::AtOnce => NextHop::Discard { logged: false },
            Discard::Off if keys.mx => NextHop::Mx,
            Discard::Off => NextHop::Hosts(hosts),
        },
        tls: keys.tls,
        connections_max: keys.connections_max,
    })
}

fn listeners(raw: &Raw, notes: &mut Notes<'_>) {
    let Some(listeners) = &raw.listeners else { return };
    if listeners.is_empty() {
        let write = "[[listener]] with address and port".to_owned();
        notes.wrong(Span::default(), "there is no [[listener]]".to_owned(), write);
    }
    let mut sockets: HashMap<SocketAddr, Span> = HashMap::new();
    for Read { part, places } in listeners {
        listener(part, places, raw, notes);
        let here = places.of("address");
        if let Some(first) = sockets.insert(part.socket(), here).filter(|_| part.port != 0) {
            let message = format!("two listeners on {}", part.socket());
            notes.contradiction(here, message, "another port or address", (first, "the first"));
        }
    }
}

fn listener(part: &ListenerConfig, places: &Places, raw: &Raw, notes: &mut Notes<'_>) {
    let tls = places.of("tls");
    if part.tls != ListenerTls::None && raw.certificates.as_ref().is_some_and(Vec::is_empty) {
        let section = raw.tls.as_ref().map_or_else(Span::default, |tls| tls.places.of(""));
        notes.contradiction(
            tls,
            format!("`tls` is \"{}\", but there is no certificate", part.tls.as_str()),
            "[[tls.certificate]] with certificate and key, or tls = \"none\"",
            (section, "no [[tls.certificate]]"),
        );
    }
    if part.tls_required && part.tls == ListenerTls::None {
        notes.contradiction(
            places.of("tls_required"),
            "TLS is required on a listener without TLS",
            "tls = \"starttls\"",
            (tls, "`tls`"),
        );
    }
    match (part.proxy, part.proxy_peers.is_empty()) {
        (Proxy::Require, true) => notes.contradiction(
            places.of("proxy"),
            "a PROXY header is required, but nobody may send one",
            "proxy_peers = [..] with the networks of the proxies",
            (places.of("proxy_peers"), "`proxy_peers` is empty"),
        ),
        (Proxy::Off, false) => notes.contradiction(
            places.of("proxy_peers"),
            "there are proxies, but no PROXY header is read",
            "proxy = \"require\"",
            (places.of("proxy"), "`proxy` is \"off\""),
        ),
        _ => {}
    }
    for peer in part.proxy_peers.iter().filter(|peer| peer.prefix() == 0) {
        let message = format!("`proxy_peers`: {peer} lets everybody say who the client is");
        notes.wrong(places.of("proxy_peers"), message, "the networks of the proxies");
    }
    if let (Some(max), Some(node)) = (part.sessions_max, &raw.node)
        && max > node.part.sessions_max
    {
        notes.contradiction(
            places.of("sessions_max"),
            format!("a listener with {max} sessions on a node with fewer"),
            format!("at most {}", node.part.sessions_max),
            (node.places.of("sessions_max"), "`sessions_max` of the node"),
        );
    }
}

fn certificates(raw: &Raw, files: &dyn Files, notes: &mut Notes<'_>) {
    let Some(all) = &raw.certificates else { return };
    let mut seen: HashMap<PathBuf, Span> = HashMap::new();
    for Read { part, places } in all {
        for (key, path) in [("certificate", &part.certificate), ("key", &part.key)] {
            let here = places.of(key);
            if let Some(first) = seen.insert(path.clone(), here).filter(|_| key == "key") {
                let message = format!("`key`: {} is used twice", path.display());
                notes.contradiction(here, message, "a key of its own", (first, "the first"));
            }
            if !part.self_signed && !files.exists(path) {
                let message = format!("`{key}`: there is no file {}", path.display());
                let write = "its path, or self_signed = true to have one made";
                notes.wrong(here, message, write);
            }
        }
    }
}

fn policy_networks(policy: &Read<PolicyConfig>, notes: &mut Notes<'_>) {
    for network in &policy.part.relay_networks {
        let least = match network.address() {
            IpAddr::V4(_) => limits::RELAY_PREFIX_V4_MIN,
            IpAddr::V6(_) => limits::RELAY_PREFIX_V6_MIN,
        };
        if network.prefix() < least {
            let message = format!("`relay_networks`: {network} makes an open relay");
            let write = format!("your own networks, of /{least} or narrower");
            notes.wrong(policy.places.of("relay_networks"), message, write);
        }
    }
}

/// Reads the recipient file; `None` if there is something wrong with it.
fn recipients(raw: &Raw, files: &dyn Files, notes: &mut Notes<'_>) -> Option<Recipients> {
    let Read { part, places } = raw.policy.as_ref()?;
    if part.relay_domains.is_empty() && part.postmaster.is_none() {
        notes.wrong(
            places.of("relay_domains"),
            "nobody receives the mail to postmaster".to_owned(),
            "relay_domains = [\"your.domain\"], or postmaster = \"..\"",
        );
    }
    match (&part.recipients_file, part.any_recipient) {
        (Some(_), true) => {
            notes.contradiction(
                places.of("any_recipient"),
                "every recipient is taken, and a file says which",
                "one of both",
                (places.of("recipients_file"), "`recipients_file`"),
            );
            None
        }
        (None, false) if !part.relay_domains.is_empty() => {
            notes.wrong(
                places.of("relay_domains"),
                "`relay_domains`: nothing says who receives mail there".to_owned(),
                "recipients_file = \"..\", or any_recipient = true",
            );
            None
        }
        (None, _) => Some(Recipients::everybody(&part.relay_domains)),
        (Some(path), false) => {
            let here = places.of("recipients_file");
            let octets = match files.read(path, limits::RECIPIENTS_OCTETS_MAX) {
                Ok(octets) => octets,
                Err(error) => {
                    let message = format!("`recipients_file`: {}: {error}", path.display());
                    notes.wrong(here, message, "the path of a readable file");
                    return None;
                }
            };
            let file = path.display().to_string();
            match Recipients::parse(&file, &octets, &part.relay_domains) {
                Ok(recipients) => {
                    peopled(&recipients, part, here, notes);
                    Some(recipients)
                }
                Err(problems) => {
                    problems.iter().for_each(|problem| notes.problems.push(problem.clone()));
                    None
                }
            }
        }
    }
}

fn peopled(recipients: &Recipients, part: &PolicyConfig, here: Span, notes: &mut Notes<'_>) {
    for domain in part.relay_domains.iter().filter(|domain| !recipients.has_domain(domain)) {
        notes.warn(here, format!("the file names nobody in {domain}: only postmaster is taken"));
    }
}

fn limits_fit(raw: &Raw, notes: &mut Notes<'_>) {
    let (Some(limits), Some(node)) = (&raw.limits, &raw.node) else { return };
    let (part, places): (&LimitsConfig, _) = (&limits.part, &limits.places);
    let node_max = (node.part.sessions_max, node.places.of("sessions_max"));
    if places.wrote("connections_max") && part.connections_max > node_max.0 {
        notes.contradiction(
            places.of("connections_max"),
            format!("one client may open {} sessions, more than the node", part.connections_max),
            format!("at most {}", node_max.0),
            (node_max.1, "`sessions_max` of the node"),
        );
    }
}

fn routes_fit(raw: &Raw, notes: &mut Notes<'_>) {
    let Some(routes) = &raw.routes else { return };
    let mut domains: BTreeMap<&RouteDomain, Span> = BTreeMap::new();
    for RawRoute { route, hosts, fallback } in routes {
        let here = route.places.of("domains");
        for domain in &route.part.domains {
            if let Some(first) = domains.insert(domain, here) {
                let message = format!("`domains`: {domain} has two routes");
                notes.contradiction(here, message, "it in one of them", (first, "the first"));
            }
        }
        if route.part.domains.is_empty() {
            let message = "`domains`: a route for no domain".to_owned();
            notes.wrong(here, message, "domains = [\"example.org\"] or [\"*\"]");
        }
        if route.part.discard == Discard::Off {
            next_hop(route.part.mx, &route.places, hosts, notes);
        } else if route.part.mx || !hosts.is_empty() || !fallback.is_empty() {
            let message = "a route has a next hop and discards";
            let here = route.places.of("discard");
            notes.contradiction(
                here,
                message,
                "one of both",
                (route.places.of("domains"), "its domains"),
            );
        }
        let listeners = raw.listeners.as_deref().unwrap_or_default();
        for host in hosts {
            let at = (&host.part.host, host.part.port);
            own_listener(at, host.places.of("host"), listeners, notes);
        }
        for host in fallback {
            let at = (&host.part.host, host.part.port);
            own_listener(at, host.places.of("host"), listeners, notes);
        }
    }
    let Some(Read { part, places }) = &raw.policy else { return };
    let routed = |domain: &HostName| {
        domains.contains_key(&RouteDomain::Any)
            || domains.contains_key(&RouteDomain::Domain(domain.clone()))
    };
    let write = |domain: &HostName| format!("[[route]] with domains = [\"{domain}\"]");
    for domain in part.relay_domains.iter().filter(|domain| !routed(domain)) {
        let message = format!("`relay_domains`: {domain} has no route");
        notes.wrong(places.of("relay_domains"), message, write(domain));
    }
    if let Some(mailbox) = part.postmaster.as_ref().filter(|mailbox| !routed(&mailbox.domain)) {
        let message = format!("`postmaster`: {} has no route", mailbox.domain);
        notes.wrong(places.of("postmaster"), message, write(&mailbox.domain));
    }
}

fn next_hop(mx: bool, places: &Places, hosts: &[Read<RouteHost>], notes: &mut Notes<'_>) {
    match (mx, hosts.first()) {
        (true, Some(host)) => notes.contradiction(
            places.of("mx"),
            "a route has hosts and asks for the MX",
            "one of both",
            (host.places.of("host"), "its hosts"),
        ),
        (false, None) => notes.wrong(
            places.of("domains"),
            "a route that leads nowhere".to_owned(),
            "hosts = [{ host = \"..\", port = 25 }], or mx = true",
        ),
        _ => {}
    }
    let mut seen: HashMap<(&Host, u16), Span> = HashMap::new();
    for host in hosts {
        let here = host.places.of("host");
        if let Some(first) = seen.insert((&host.part.host, host.part.port), here) {
            let message = format!("{} port {} stands twice", host.part.host, host.part.port);
            notes.contradiction(here, message, "it once, with a weight", (first, "the first"));
        }
    }
}

/// A host that is one of our listeners is a loop.
fn own_listener(
    (host, port): (&Host, u16),
    here: Span,
    listeners: &[Read<ListenerConfig>],
    notes: &mut Notes<'_>,
) {
    let Host::Address(address) = host else { return };
    let address = address.to_canonical();
    for Read { part, places } in listeners {
        let ours = part.address.to_canonical();
        let same = ours == address || (ours.is_unspecified() && address.is_loopback());
        if same && part.port == port {
            notes.contradiction(
                here,
                "mail would come back: this is a listener of ours",
                "the address and port of the server behind",
                (places.of("address"), "the listener"),
            );
        }
    }
}

fn retry(retry: Option<&Read<RetryConfig>>, notes: &mut Notes<'_>) {
    let Some(Read { part, places }) = retry else { return };
    if part.first_s > part.max_s {
        notes.contradiction(
            places.of("first_s"),
            format!("the first wait of {} s is longer than the longest", part.first_s),
            format!("at most {}", part.max_s),
            (places.of("max_s"), "`max_s`"),
        );
    }
    if part.expire_s < part.first_s {
        notes.contradiction(
            places.of("expire_s"),
            format!("mail expires after {} s, before its first retry", part.expire_s),
            format!("more than {}", part.first_s),
            (places.of("first_s"), "`first_s`"),
        );
    }
    let warning = part.delay_warning_s;
    if places.wrote("delay_warning_s") && warning.us() > 0 && warning >= part.expire_s {
        notes.contradiction(
            places.of("delay_warning_s"),
            "the warning comes after the mail has expired",
            format!("less than {}, or 0 for none", part.expire_s),
            (places.of("expire_s"), "`expire_s`"),
        );
    }
}

fn spool(spool: Option<&Read<SpoolConfig>>, notes: &mut Notes<'_>) {
    let Some(Read { part, places }) = spool else { return };
    let here = places.of("places");
    let count = part.places.len();
    if count == 0 {
        let message = "`places`: a spool without a place".to_owned();
        notes.wrong(here, message, "places = [\"/var/spool/ringpost\"]");
    }
    let mut seen = HashMap::new();
    for path in &part.places {
        if seen.insert(path, ()).is_some() {
            let message = format!("`places`: {} stands twice", path.display());
            notes.wrong(here, message, "each place once");
        }
    }
    if part.mirror && count % 2 != 0 {
        notes.contradiction(
            places.of("mirror"),
            format!("a mirror needs pairs of places, not {count}"),
            "two places, or mirror = false",
            (here, "`places`"),
        );
    }
    if part.lone_member && !part.mirror {
        notes.contradiction(
            places.of("lone_member"),
            "a lone member of no mirror",
            "mirror = true, or lone_member = false",
            (places.of("mirror"), "`mirror`"),
        );
    }
    if part.resume_above_percent <= part.refuse_below_percent {
        notes.contradiction(
            places.of("resume_above_percent"),
            "mail would be taken again before it is refused",
            format!("more than {}", part.refuse_below_percent),
            (places.of("refuse_below_percent"), "`refuse_below_percent`"),
        );
    }
    if part.turn_away_below_percent >= part.refuse_below_percent {
        notes.contradiction(
            places.of("turn_away_below_percent"),
            "sessions would be turned away before mail is refused",
            format!("less than {}, or 0 for never", part.refuse_below_percent),
            (places.of("refuse_below_percent"), "`refuse_below_percent`"),
        );
    }
    if part.durability == Durability::None {
        let message = "durability is \"none\": a crash of the machine loses mail answered 250";
        notes.warn(places.of("durability"), message);
    }
}

fn log(log: Option<&Read<LogConfig>>, notes: &mut Notes<'_>) {
    let Some(Read { part, places }) = log else { return };
    // Two files are open at once, and one of each must be able to grow old.
    if part.total_size.octets() < part.rotate_size.octets().saturating_mul(4) {
        notes.contradiction(
            places.of("total_size"),
            format!("{} is too little for files of {}", part.total_size, part.rotate_size),
            "at least four times `rotate_size`",
            (places.of("rotate_size"), "`rotate_size`"),
        );
    }
}

fn timeouts(timeouts: Option<&Read<TimeoutsIn>>, notes: &mut Notes<'_>) {
    let Some(Read { part, places }) = timeouts else { return };
    if part.command_s > part.session_s {
        notes.contradiction(
            places.of("command_s"),
            format!("a command may take {} s, longer than the session", part.command_s),
            format!("at most {}", part.session_s),
            (places.of("session_s"), "`session_s`"),
        );
    }
}

fn manage(raw: &Raw, notes: &mut Notes<'_>) {
    if let Some(Read { part, places }) = &raw.admin
        && part.socket.is_none()
        && !part.uids.is_empty()
    {
        notes.contradiction(
            places.of("uids"),
            "user ids without a socket",
            "socket = \"/run/ringpost/admin\"",
            (places.of("socket"), "no `socket`"),
        );
    }
    if let Some(Read { part, places }) = &raw.metrics {
        let MetricsConfig { listen } = part;
        if let Some(open) = listen.filter(|listen| !listen.ip().is_loopback()) {
            let message = format!("the metrics page on {open} tells everybody who can reach it");
            notes.warn(places.of("listen"), message);
        }
    }
    for Read { part, places } in raw.listeners.iter().flatten() {
        if part.tls_required && part.port == 25 && !part.address.is_loopback() {
            let message = "TLS is required on port 25: senders without it cannot reach you";
            notes.warn(places.of("tls_required"), message);
        }
    }
}
