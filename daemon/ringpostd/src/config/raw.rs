//! The first step of loading: a TOML document to parts with the places of their keys.
//!
//! *Guarantees.* Every value is of its kind and within its bounds; what is not is noted, and its
//! part is absent.

use toml_span::{ErrorKind, Value as Toml};

use super::keys::{
    AdminConfig, CertificateConfig, ClockConfig, DnsblConfig, HintsConfig, LimitsConfig,
    ListConfig, ListenerConfig, LogConfig, MetricsConfig, NodeConfig, PolicyConfig, ResolverConfig,
    RetryConfig, RouteFallback, RouteHost, RouteKeys, SECTIONS, SpoolConfig, TimeoutsIn,
    TimeoutsOut, TlsKeys, XdpConfig,
};
use super::section::{Notes, Part, Read, below, read_many, read_one, suggestion};

/// What was read; an absent part had something wrong, which is noted.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) node: Option<Read<NodeConfig>>,
    pub(super) listeners: Option<Vec<Read<ListenerConfig>>>,
    pub(super) tls: Option<Read<TlsKeys>>,
    pub(super) certificates: Option<Vec<Read<CertificateConfig>>>,
    pub(super) policy: Option<Read<PolicyConfig>>,
    pub(super) limits: Option<Read<LimitsConfig>>,
    pub(super) timeouts_in: Option<Read<TimeoutsIn>>,
    pub(super) xdp: Option<Read<XdpConfig>>,
    pub(super) lists: Option<Vec<Read<ListConfig>>>,
    pub(super) dnsbl: Option<Vec<Read<DnsblConfig>>>,
    pub(super) routes: Option<Vec<RawRoute>>,
    pub(super) retry: Option<Read<RetryConfig>>,
    pub(super) timeouts_out: Option<Read<TimeoutsOut>>,
    pub(super) resolver: Option<Read<ResolverConfig>>,
    pub(super) spool: Option<Read<SpoolConfig>>,
    pub(super) hints: Option<Read<HintsConfig>>,
    pub(super) log: Option<Read<LogConfig>>,
    pub(super) admin: Option<Read<AdminConfig>>,
    pub(super) metrics: Option<Read<MetricsConfig>>,
    pub(super) clock: Option<Read<ClockConfig>>,
}

/// A route and its hosts.
#[derive(Debug)]
pub(super) struct RawRoute {
    pub(super) route: Read<RouteKeys>,
    pub(super) hosts: Vec<Read<RouteHost>>,
    pub(super) fallback: Vec<Read<RouteFallback>>,
}

impl Raw {
    /// Reads every section of the document.
    pub(super) fn read(root: &Toml<'_>, notes: &mut Notes<'_>) -> Self {
        unknown_sections(root, "", notes);
        let timeouts = root.pointer("/timeouts");
        if let Some(timeouts) = timeouts {
            unknown_sections(timeouts, "timeouts", notes);
        }
        let tls = root.pointer("/tls");
        Self {
            node: one(Some(root), notes),
            listeners: many(Some(root), notes),
            tls: one(Some(root), notes),
            certificates: many(tls, notes),
            policy: one(Some(root), notes),
            limits: one(Some(root), notes),
            timeouts_in: one(timeouts, notes),
            xdp: one(Some(root), notes),
            lists: many(Some(root), notes),
            dnsbl: many(Some(root), notes),
            routes: routes(root, notes),
            retry: one(Some(root), notes),
            timeouts_out: one(timeouts, notes),
            resolver: one(Some(root), notes),
            spool: one(Some(root), notes),
            hints: one(Some(root), notes),
            log: one(Some(root), notes),
            admin: one(Some(root), notes),
            metrics: one(Some(root), notes),
            clock: one(Some(root), notes),
        }
    }
}

fn one<P: Part>(parent: Option<&Toml<'_>>, notes: &mut Notes<'_>) -> Option<Read<P>> {
    read_one(parent, SECTIONS, notes)
}

fn many<P: Part>(parent: Option<&Toml<'_>>, notes: &mut Notes<'_>) -> Option<Vec<Read<P>>> {
    let all = read_many(parent, SECTIONS, notes)?;
    Some(all.into_iter().map(|(read, _)| read).collect())
}

fn routes(root: &Toml<'_>, notes: &mut Notes<'_>) -> Option<Vec<RawRoute>> {
    let routes = read_many::<RouteKeys>(Some(root), SECTIONS, notes)?;
    let all: Vec<Option<RawRoute>> = routes
        .into_iter()
        .map(|(route, table)| {
            let hosts = many(Some(table), notes);
            let fallback = many(Some(table), notes);
            Some(RawRoute { route, hosts: hosts?, fallback: fallback? })
        })
        .collect();
    all.into_iter().collect()
}

/// Notes what stands below `parent` and begins no section's name.
fn unknown_sections(table: &Toml<'_>, parent: &str, notes: &mut Notes<'_>) {
    for key in table.as_table().into_iter().flat_map(|table| table.keys()) {
        if !below(SECTIONS, parent).any(|name| name == key.name) {
            let write = suggestion(&key.name, below(SECTIONS, parent));
            let dot = if parent.is_empty() { "" } else { "." };
            let message = format!("there is no section `{parent}{dot}{}`", key.name);
            notes.wrong(key.span, message, write);
        }
    }
}

/// Notes why a text is no TOML.
pub(super) fn note_toml(error: &toml_span::Error, notes: &mut Notes<'_>) {
    match &error.kind {
        ErrorKind::DuplicateKey { key, first } => {
            let message = format!("`{key}` is written twice");
            notes.contradiction(error.span, message, "it once", (*first, "the first"));
        }
        ErrorKind::DuplicateTable { name, first } => {
            let message = format!("the section `{name}` is written twice");
            notes.contradiction(
                error.span,
                message,
                "all its keys below one",
                (*first, "the first"),
            );
        }
        ErrorKind::UnquotedString => {
            notes.wrong(error.span, "text without quotes".to_owned(), "it in double quotes");
        }
        _ => notes.wrong(error.span, format!("this is no TOML: {error}"), "TOML 1.0"),
    }
}
