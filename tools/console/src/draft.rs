//! What the wizard was told, and the files that come of it.
//!
//! *Guarantees*: every value was checked before it is written; nothing in it can end a TOML string.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::access::Login;

/// A next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// What a machine has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Network cards: name, hardware address. None: this is no appliance.
    pub(crate) cards: Vec<(String, String)>,
    /// Spool devices with their octets.
    pub(crate) places: Vec<(String, u64)>,
    /// Cores.
    pub(crate) cores: u64,
    /// Where the files go, and what they keep lies below it, where there is no appliance.
    pub(crate) folder: String,
    /// The port of the listener.
    pub(crate) port: u16,
}

/// The answers so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    pub(crate) host: String,
    pub(crate) card: String,
    pub(crate) addresses: Vec<(IpAddr, u8)>,
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) domains: Vec<String>,
    pub(crate) hops: Vec<Hop>,
    /// None: every recipient is taken.
    pub(crate) recipients: Vec<String>,
    pub(crate) mirror: bool,
    pub(crate) login: Option<Login>,
}

fn list<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    let quoted: Vec<String> =
        values.into_iter().map(|value| format!("\"{}\"", value.to_string())).collect();
    format!("[{}]", quoted.join(", "))
}

/// Segments of a core's log, and their size in MiB: at most 64 of 64 MiB, and what the least device
/// has room for.
fn segments(facts: &Facts, mirror: bool) -> (u64, u64) {
    let Some(octets) = facts.places.iter().map(|(_, octets)| *octets).min() else { return (8, 16) };
    let devices = facts.places.len() as u64;
    let places = if mirror { devices / 2 } else { devices }.max(1);
    let logs = facts.cores.max(1).div_ceil(places);
    // The superblock and slack of the device's own.
    let room_mib = (octets >> 20).saturating_sub(16);
    let fit = |size: u64| (room_mib / size).saturating_sub(1) / logs;
    match (fit(64), fit(16)) {
        (64.., _) => (64, 64),
        (8.., _) => (fit(64), 64),
        (_, fit) => (fit.clamp(4, 64), 16),
    }
}

impl Draft {
    /// `machine.toml`.
    pub(crate) fn machine(&self) -> String {
        let short = self.host.split('.').next().unwrap_or("mx");
        let dns = list(self.servers.iter().map(SocketAddr::ip));
        let addresses = list(self.addresses.iter().map(|(ip, prefix)| format!("{ip}/{prefix}")));
        let (mac, gateways) = (&self.card, list(&self.gateways));
        format!(
            "# Written by `ringpost wizard`.\n\nhostname = \"{short}\"\ndns = {dns}\n\n[[link]]\n\
             name = \"mail\"\nmac = \"{mac}\"\naddresses = {addresses}\ngateways = {gateways}\n"
        )
    }

    /// `mx.toml`.
    pub(crate) fn mail(&self, facts: &Facts) -> String {
        let appliance = !facts.cards.is_empty();
        let (folder, port) = (&facts.folder, facts.port);
        let at = |on_it: &str, elsewhere: &str| match appliance {
            true => on_it.to_owned(),
            false => format!("{folder}/{elsewhere}"),
        };
        let host = &self.host;
        let listen = if appliance || port == 25 { "::" } else { "127.0.0.1" };
        let domains = list(&self.domains);
        let (certificate, key) =
            (at("/state/tls/mx.crt", "mx.crt"), at("/state/tls/mx.key", "mx.key"));
        let mut text = format!(
            "# Written by `ringpost wizard`; every key: docs/config.md.\n\n\
             [node]\nhostname = \"{host}\"\n\n\
             [[listener]]\naddress = \"{listen}\"\nport = {port}\n\n\
             [[tls.certificate]]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n\
             names = [\"{host}\"]\nself_signed = true\n\n\
             [policy]\nrelay_domains = {domains}\n"
        );
        let file = at("recipients", "recipients");
        let _ = match self.recipients.is_empty() {
            true => writeln!(text, "any_recipient = true"),
            false => writeln!(text, "recipients_file = \"{file}\""),
        };
        let hops: Vec<String> = self
            .hops
            .iter()
            .map(|hop| format!("{{ host = \"{}\", port = {} }}", hop.host, hop.port))
            .collect();
        let hops = hops.join(", ");
        let _ = write!(
            text,
            "\n[[route]]\nname = \"backend\"\ndomains = {domains}\nhosts = [{hops}]\n\n"
        );
        if !appliance || self.servers.iter().any(|server| server.port() != 53) {
            let _ = write!(text, "[resolver]\nservers = {}\n\n", list(&self.servers));
        }
        let places = match appliance {
            true => list(facts.places.iter().map(|(place, _)| place)),
            false => list([format!("{folder}/spool")]),
        };
        let (count, size) = segments(facts, self.mirror);
        let _ =
            write!(text, "[spool]\nplaces = {places}\nsegments = {count}\nsegment_mib = {size}\n");
        if self.mirror {
            text.push_str("mirror = true\n");
        }
        let _ = write!(
            text,
            "\n[hints]\nfile = \"{}\"\nsize = \"16 MiB\"\n\n\
             [log]\ndir = \"{}\"\ntotal_size = \"64 MiB\"\nrotate_size = \"8 MiB\"\n\n\
             [admin]\nsocket = \"{}\"\n",
            at("/run/ringpost/hints", "hints"),
            at("/state/log", "log"),
            at("/run/ringpost/admin.sock", "admin.sock"),
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_fit_the_device() {
        let with = |mib: u64, count: usize, cores| Facts {
            places: vec![("x".to_owned(), mib << 20); count],
            cores,
            ..Facts::default()
        };
        assert_eq!(segments(&with(1 << 20, 1, 2), false), (64, 64));
        assert_eq!(segments(&with(400, 1, 2), false), (11, 16));
        assert_eq!(segments(&with(400, 2, 2), true), (11, 16), "a pair is one place");
        assert_eq!(segments(&with(400, 2, 2), false), (23, 16));
        assert_eq!(segments(&with(2_000, 1, 2), false), (15, 64));
        assert_eq!(segments(&Facts::default(), false), (8, 16));
    }
}
