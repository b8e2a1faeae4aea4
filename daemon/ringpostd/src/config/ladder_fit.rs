//! Checks of the ladder's sections against each other and the rest.

use std::collections::HashMap;

use toml_span::Span;

use super::keys::{Proxy, XdpConfig};
use super::ladder::Topology;
use super::raw::Raw;
use super::section::{Notes, Places, Read};
use crate::limits;

/// Notes what does not fit.
pub(super) fn check(raw: &Raw, notes: &mut Notes<'_>) {
    if let Some(Read { part, places }) = &raw.xdp {
        filter(part, places, raw, notes);
    }
    names(raw, notes);
    let Some(first) = raw.dnsbl.as_ref().and_then(|zones| zones.first()) else { return };
    if raw.resolver.as_ref().is_some_and(|resolver| resolver.part.servers.is_empty()) {
        let message = "a DNS list, but no resolver to ask it".to_owned();
        notes.wrong(first.places.of("zone"), message, "[resolver] with servers");
    }
}

fn filter(part: &XdpConfig, places: &Places, raw: &Raw, notes: &mut Notes<'_>) {
    if part.keep && part.pins.is_none() {
        notes.contradiction(
            places.of("keep"),
            "the filter is to stay attached, but nothing holds it",
            "pins = \"/sys/fs/bpf/ringpost\"",
            (places.of("pins"), "no `pins`"),
        );
    }
    let tunnel = matches!(part.topology, Topology::Ipip | Topology::Gue(_));
    if tunnel == part.ends.is_empty() {
        notes.contradiction(
            places.of("ends"),
            "a tunnel has ends, and only a tunnel has",
            "topology = \"ipip\" with ends = [\"192.0.2.1\"], or neither",
            (places.of("topology"), "`topology`"),
        );
    }
    let behind = |proxy| raw.listeners.iter().flatten().any(|l| l.part.proxy == proxy);
    if part.topology == Topology::Proxy && !behind(Proxy::Require) {
        let message = "the switch hides the clients, and no listener asks it for them";
        notes.warn(places.of("topology"), message);
    }
}

/// Names and zones stand once, and there is a number for each.
fn names(raw: &Raw, notes: &mut Notes<'_>) {
    let lists = raw.lists.iter().flatten();
    let lists = lists.map(|l| (l.part.name.as_str().to_owned(), l.places.of("name")));
    let zones = raw.dnsbl.iter().flatten();
    let zones = zones.map(|z| (z.part.zone.as_str().to_owned(), z.places.of("zone")));
    let mut seen: HashMap<String, Span> = HashMap::new();
    for (number, (name, here)) in lists.chain(zones).enumerate() {
        if number == limits::LISTS_MAX {
            let message = format!("more than {} lists", limits::LISTS_MAX);
            notes.wrong(here, message, "fewer");
        }
        if let Some(first) = seen.insert(name.clone(), here) {
            let message = format!("two lists are called {name}");
            notes.contradiction(here, message, "another name", (first, "the first"));
        }
    }
}
