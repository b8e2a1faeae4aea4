//! Another config: read, checked and made ready beside the one in force; then swapped, or not.
//!
//! *Guarantees*: nothing is changed until everything that could fail has not.

use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, RouteConfig};
use crate::maillog::files::LogFiles;
use crate::maillog::rotation::Rules;
use crate::post::Orders;
use crate::tls::{OnExpired, Tickets};
use crate::xdp::Lists;

use super::certificates::{self, Certificates};
use super::feeds::Feeds;

/// All that a config needs, ready.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The config.
    pub config: Config,
    /// Its certificates.
    pub certificates: Certificates,
    /// Log files, if they lie elsewhere from now on.
    pub files: Option<LogFiles>,
    /// What is worth saying, one line each.
    pub warnings: Vec<String>,
    /// The files of its lists.
    pub feeds: Feeds,
    /// What is wrong with them: the others are in force.
    pub feed_problems: Vec<String>,
    /// The same, as the cores get them.
    pub lists: Lists,
}

/// Reads and checks the file. Blocks on files.
///
/// # Errors
/// All that speaks against it, one line each.
pub(super) fn prepare(
    path: &Path,
    old: &Orders,
    tickets: &Tickets,
    clock_trusted: bool,
    feeds: &Feeds,
) -> Result<Prepared, Vec<String>> {
    let loaded = Config::load(path).map_err(|problems| lines(&problems.to_string()))?;
    let config = loaded.config;
    let mut fixed = old.config.needs_restart(&config);
    if !same_listeners(&old.config, &config) {
        fixed.push("listener (addresses and their order)");
    }
    if !fixed.is_empty() {
        let what = fixed.join(", ");
        return Err(vec![format!("changes only at a start, so restart for it: {what}")]);
    }
    let wall_us = engine::wall_us();
    let mut warnings = lines(&loaded.warnings.to_string());
    let made = certificates::make_missing(&config).map_err(|error| vec![error.to_string()])?;
    warnings.extend(made);
    // A refusal is final only while the clock is believed.
    let on_expired = if clock_trusted { OnExpired::Refuse } else { OnExpired::Serve };
    let certificates = certificates::load(&config, tickets, on_expired, wall_us)?;
    warnings.extend(certificates.warnings.iter().cloned());
    let files = (old.config.log.dir != config.log.dir)
        .then(|| LogFiles::open(&config.log.dir, Rules::of(&config.log), wall_us))
        .transpose()
        .map_err(|error| vec![format!("log {}: {error}", config.log.dir.display())])?;
    let (feeds, feed_problems) = Feeds::load(&config, feeds, wall_us / 1_000_000);
    warnings.extend(feed_problems.iter().cloned());
    let lists = Lists::new(&config, &feeds.loaded);
    Ok(Prepared { config, certificates, files, warnings, feeds, feed_problems, lists })
}

fn same_listeners(old: &Config, new: &Config) -> bool {
    let sockets = |config: &Config| config.listeners.iter().map(|l| l.socket()).collect::<Vec<_>>();
    sockets(old) == sockets(new)
}

/// What a reload changes, by the names of the sections.
#[must_use]
pub(super) fn changes(old: &Config, new: &Config) -> Vec<&'static str> {
    fn changed<T: PartialEq + ?Sized>(
        old: &Arc<T>,
        new: &Arc<T>,
        name: &'static str,
    ) -> Option<&'static str> {
        (old != new).then_some(name)
    }
    let routes: [&[RouteConfig]; 2] = [&old.routes, &new.routes];
    [
        changed(&old.listeners, &new.listeners, "listener"),
        changed(&old.tls, &new.tls, "tls"),
        changed(&old.policy, &new.policy, "policy"),
        changed(&old.limits, &new.limits, "limits"),
        changed(&old.xdp, &new.xdp, "xdp"),
        changed(&old.lists, &new.lists, "list"),
        changed(&old.dnsbl, &new.dnsbl, "dnsbl"),
        changed(&old.timeouts_in, &new.timeouts_in, "timeouts.in"),
        (routes[0] != routes[1]).then_some("route"),
        changed(&old.retry, &new.retry, "retry"),
        changed(&old.timeouts_out, &new.timeouts_out, "timeouts.out"),
        changed(&old.resolver, &new.resolver, "resolver"),
        changed(&old.log, &new.log, "log"),
        changed(&old.clock, &new.clock, "clock"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn lines(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[node]\nhostname=\"mx.example.org\"\n\
                        [policy]\npostmaster=\"p@example.org\"\n\
                        [[route]]\ndomains=[\"example.org\"]\n\
                        mx=true\n[spool]\nplaces=[\"./spool\"]\n\
                        [[listener]]\naddress=\"127.0.0.1\"\nport=2525\ntls=\"none\"\n";

    #[test]
    fn what_needs_a_start_is_refused_by_name_and_the_rest_is_named() {
        let dir = std::env::temp_dir().join(format!("reload-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("config");
        let config = Config::parse("t", TEXT, &crate::config::Disk).unwrap().config;
        let (zones, rules) = (Arc::default(), Arc::default());
        let old = Orders { generation: 1, config, tls: None, zones, rules };
        let tickets = Tickets::new().unwrap();
        let with = |text: String| {
            std::fs::write(&file, text).unwrap();
            prepare(&file, &old, &tickets, true, &Feeds::default())
        };
        let said = |result: Result<Prepared, Vec<String>>| result.unwrap_err().join("\n");
        assert!(said(with(TEXT.replace("./spool", "./other"))).contains("spool"));
        assert!(said(with(TEXT.replace("2525", "2526"))).contains("listener"));
        assert!(said(with(TEXT.replace("port", "prot"))).contains(":12:"));
        let new = with(format!("{TEXT}[limits]\nconnections_max=3\n")).unwrap();
        assert_eq!(changes(&old.config, &new.config), ["limits"]);
        assert!(new.files.is_none() && new.certificates.store.is_none());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
