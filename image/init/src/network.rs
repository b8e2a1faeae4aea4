//! The network as `machine.toml` says it: cards by hardware address or place, never by the
//! kernel's name for them.
//!
//! *Failure*: an interface that cannot be made is named, the others are made all the same: a
//! node with one dead card still takes mail on the other.

use std::fs;
use std::path::Path;

use nix::net::if_::if_nametoindex;

use crate::netlink::Netlink;
use crate::say::{say, warn};
use crate::settings::{BondMode, Kind, Link, Settings, mac_of};

const CLASS: &str = "/sys/class/net";

/// Brings everything up. Returns how many interfaces failed.
pub(crate) fn up(settings: &Settings) -> usize {
    let netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(why) => {
            warn(&why);
            return settings.links.len() + 1;
        }
    };
    let mut failed = 0;
    if let Err(why) = index("lo").and_then(|lo| netlink.set_up(lo, true)) {
        warn(&format_args!("network lo: {why}"));
        failed += 1;
    }
    for link in &settings.links {
        match one(&netlink, link) {
            Ok(()) => say(&format_args!("network {}: up", link.name)),
            Err(why) => {
                warn(&format_args!("network {}: {why}", link.name));
                failed += 1;
            }
        }
    }
    resolver(settings);
    failed
}

/// Takes everything but the loopback down.
pub(crate) fn down(settings: &Settings) {
    let Ok(netlink) = Netlink::open() else { return };
    for link in settings.links.iter().rev() {
        if let Ok(index) = index(&link.name) {
            let _ = netlink.set_up(index, false);
        }
    }
}

/// Takes back what [`up`] made of these settings, before it makes others.
pub(crate) fn undo(settings: &Settings) {
    let Ok(netlink) = Netlink::open() else { return };
    for link in settings.links.iter().rev() {
        let Ok(index) = index(&link.name) else { continue };
        for (address, prefix) in &link.addresses {
            let _ = netlink.no_address(index, *address, *prefix);
        }
        let _ = match link.kind {
            Kind::Mac(_) | Kind::Pci(_) => netlink.set_up(index, false),
            Kind::Bond { .. } | Kind::Vlan { .. } => netlink.remove(index),
        };
    }
}

fn index(name: &str) -> Result<u32, String> {
    if_nametoindex(name).map_err(|_| format!("no interface {name}"))
}

fn one(netlink: &Netlink, link: &Link) -> Result<(), String> {
    match &link.kind {
        Kind::Mac(mac) => card(netlink, &link.name, &by_mac(mac)?)?,
        Kind::Pci(place) => card(netlink, &link.name, &by_place(place)?)?,
        Kind::Bond { members, mode } => bond(netlink, &link.name, members, *mode)?,
        Kind::Vlan { parent, id } => netlink.vlan(&link.name, index(parent)?, *id)?,
    }
    let index = index(&link.name)?;
    // The setting for all interfaces does not reach those that were there before it.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{}/accept_ra", link.name), "0");
    if let Some(mtu) = link.mtu {
        netlink.set_mtu(index, mtu)?;
    }
    netlink.set_up(index, true)?;
    for (address, prefix) in &link.addresses {
        netlink.address(index, *address, *prefix).map_err(|why| format!("{address}: {why}"))?;
    }
    for gateway in &link.gateways {
        netlink.default_route(index, *gateway).map_err(|why| format!("{gateway}: {why}"))?;
    }
    Ok(())
}

fn card(netlink: &Netlink, name: &str, found: &str) -> Result<(), String> {
    if found == name {
        return Ok(());
    }
    let index = index(found)?;
    netlink.set_up(index, false)?;
    netlink.rename(index, name)
}

fn bond(netlink: &Netlink, name: &str, members: &[String], mode: BondMode) -> Result<(), String> {
    netlink.bond(name, mode == BondMode::Lacp)?;
    let bond = index(name)?;
    for member in members {
        let member = index(member)?;
        // The kernel takes only members that are down.
        netlink.set_up(member, false)?;
        netlink.join(member, bond)?;
    }
    Ok(())
}

fn cards() -> Vec<String> {
    let Ok(entries) = fs::read_dir(CLASS) else { return Vec::new() };
    let all = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    // What has no device below it is no card.
    let mut cards: Vec<String> =
        all.filter(|name| Path::new(CLASS).join(name).join("device").exists()).collect();
    cards.sort();
    cards
}

fn by_mac(mac: &[u8; 6]) -> Result<String, String> {
    let all = cards();
    let has = |name: &&String| {
        let path = Path::new(CLASS).join(name).join("address");
        fs::read_to_string(path).ok().and_then(|text| mac_of(&text)).as_ref() == Some(mac)
    };
    all.iter().find(has).cloned().ok_or_else(|| missing("hardware address", &all))
}

fn by_place(place: &str) -> Result<String, String> {
    let all = cards();
    let has = |name: &&String| {
        let path = fs::canonicalize(Path::new(CLASS).join(name).join("device"));
        // A virtio card is a device below the PCI one.
        path.is_ok_and(|path| path.iter().any(|part| part.eq_ignore_ascii_case(place)))
    };
    all.iter().find(has).cloned().ok_or_else(|| missing("place", &all))
}

fn missing(what: &str, all: &[String]) -> String {
    let read = |name: &String| {
        let text = fs::read_to_string(Path::new(CLASS).join(name).join("address"));
        format!("{name} {}", text.unwrap_or_default().trim())
    };
    let there: Vec<String> = all.iter().map(read).collect();
    format!("no card of that {what}; there are: {}", there.join(", "))
}

fn resolver(settings: &Settings) {
    let lines: String = settings.dns.iter().map(|a| format!("nameserver {a}\n")).collect();
    if let Err(error) = fs::write("/run/resolv.conf", lines) {
        warn(&format_args!("/run/resolv.conf: {error}"));
    }
}
