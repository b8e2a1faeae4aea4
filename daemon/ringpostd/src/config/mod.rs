//! The config file: TOML text to checked, immutable parts, of which each module receives its own.
//!
//! *Guarantees.* A config is taken whole or not at all. Unknown keys, values out of bounds and
//! keys that contradict each other refuse it, all at once, each with file, line, column and what
//! to write. Every key is written once, in `keys`; parser, messages and docs read it there.
//! *Limits.* 1 MiB of text, 50 problems reported, 10,000 entries a list.
//! *Failure.* [`Problems`], for the operator's eye; the daemon keeps the config it had.
//! *Not here.* Whether a certificate fits its key (`tls`), or a place suits a log (`spool`).

// The blank lines keep rustfmt from sorting: each module uses only those above it.
mod problem;

mod network;

mod value;

mod names;

mod ladder;

mod section;

mod recipients;

mod keys;

mod raw;

mod ladder_fit;

mod check;

mod docs;

mod guard;

use std::io;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

pub use check::{NextHop, RouteConfig, TlsConfig};
pub use docs::{config_page, explain};
pub use guard::lockouts;
pub use keys::{
    AdminConfig, BareNewline, CertificateConfig, ClockConfig, Discard, DnsblConfig, Durability,
    EarlyTalker, HintsConfig, LimitsConfig, ListConfig, ListFormat, ListenerConfig, ListenerTls,
    LogConfig, LogFormat, MetricsConfig, NodeConfig, PolicyConfig, Proxy, ResolverConfig,
    RetryConfig, RouteFallback, RouteHost, RouteTls, Sandbox, SpoolConfig, TimeoutsIn, TimeoutsOut,
    TlsVersion, XdpConfig,
};
pub use ladder::{Codes, Contact, Rung, Topology, WayBack};
pub use names::{Host, HostName, Mailbox, RouteDomain, Serial, Word};
pub use network::{Network, NetworkError, any_contains};
pub use problem::{Place, Problem, Problems};
pub use recipients::{Recipients, Standing};
pub use value::{Cores, Rate, Seconds, Size};

use crate::limits;

/// A checked config. Parts are shared, so that a core can keep its own of an older generation.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[node]`
    pub node: Arc<NodeConfig>,
    /// `[[listener]]`, at least one.
    pub listeners: Arc<[ListenerConfig]>,
    /// `[tls]` and `[[tls.certificate]]`
    pub tls: Arc<TlsConfig>,
    /// `[policy]`
    pub policy: Arc<PolicyConfig>,
    /// Relay domains and the file of recipients.
    pub recipients: Arc<Recipients>,
    /// `[limits]`
    pub limits: Arc<LimitsConfig>,
    /// `[timeouts.in]`
    pub timeouts_in: Arc<TimeoutsIn>,
    /// `[xdp]`
    pub xdp: Arc<XdpConfig>,
    /// `[[list]]`, in the order of the file.
    pub lists: Arc<[ListConfig]>,
    /// `[[dnsbl]]`, in the order of the file.
    pub dnsbl: Arc<[DnsblConfig]>,
    /// `[[route]]`, in the order of the file.
    pub routes: Arc<[RouteConfig]>,
    /// `[retry]`
    pub retry: Arc<RetryConfig>,
    /// `[timeouts.out]`
    pub timeouts_out: Arc<TimeoutsOut>,
    /// `[resolver]`
    pub resolver: Arc<ResolverConfig>,
    /// `[spool]`
    pub spool: Arc<SpoolConfig>,
    /// `[hints]`
    pub hints: Arc<HintsConfig>,
    /// `[log]`
    pub log: Arc<LogConfig>,
    /// `[admin]`
    pub admin: Arc<AdminConfig>,
    /// `[metrics]`
    pub metrics: Arc<MetricsConfig>,
    /// `[clock]`
    pub clock: Arc<ClockConfig>,
}

/// A config that is good, and what is worth saying about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// What `--check` and the log say besides.
    pub warnings: Problems,
}

/// The files a config names.
pub trait Files {
    /// Reads a whole file.
    ///
    /// # Errors
    /// Those of the file system, and one for a file of more than `octets_max`.
    fn read(&self, path: &Path, octets_max: u64) -> io::Result<Vec<u8>>;

    /// Whether something is there.
    fn exists(&self, path: &Path) -> bool;
}

/// The file system.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path, octets_max: u64) -> io::Result<Vec<u8>> {
        let mut octets = Vec::new();
        std::fs::File::open(path)?.take(octets_max + 1).read_to_end(&mut octets)?;
        if octets.len() as u64 > octets_max {
            return Err(io::Error::other(format!("longer than {octets_max} octets")));
        }
        Ok(octets)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
}

impl Config {
    /// Reads and checks a config file and what it names.
    ///
    /// # Errors
    /// All that is wrong, each with its place.
    pub fn load(path: &Path) -> Result<Loaded, Problems> {
        let file = path.display().to_string();
        let text = Disk.read(path, limits::CONFIG_OCTETS_MAX).and_then(|octets| {
            String::from_utf8(octets).map_err(|_| io::Error::other("not UTF-8"))
        });
        match text {
            Ok(text) => Self::parse(&file, &text, &Disk),
            Err(error) => {
                let mut problems = Problems::default();
                let place = Place { file: file.into(), line: 1, column: 1 };
                let message = format!("cannot be read: {error}");
                let write = "the path of a config, like docs/examples/mx.toml".to_owned();
                problems.push(Problem { place, message, write, other: None });
                Err(problems)
            }
        }
    }

    /// Checks the config `text`; `file` is what problems call it.
    ///
    /// # Errors
    /// All that is wrong, each with its place.
    pub fn parse(file: &str, text: &str, files: &dyn Files) -> Result<Loaded, Problems> {
        let mut notes = section::Notes::new(problem::Source::new(file, text));
        let config = match toml_span::parse(text) {
            Ok(root) => {
                let raw = raw::Raw::read(&root, &mut notes);
                check::check(raw, files, &mut notes)
            }
            Err(error) => {
                raw::note_toml(&error, &mut notes);
                None
            }
        };
        let section::Notes { mut problems, mut warnings, .. } = notes;
        problems.sort();
        warnings.sort();
        match config {
            Some(config) if problems.is_empty() => Ok(Loaded { config, warnings }),
            _ => Err(problems),
        }
    }

    /// Sections that differ in `new` although they change only at a start: with any, a reload is
    /// refused as a whole.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        use section::{Change, Part};
        fn changed<P: Part + PartialEq>(old: &P, new: &P) -> Option<&'static str> {
            let section = P::SECTION;
            (section.change == Change::Restart && old != new).then_some(section.name)
        }
        [
            changed(&*self.node, &*new.node),
            changed(&*self.policy, &*new.policy),
            changed(&*self.limits, &*new.limits),
            changed(&*self.timeouts_in, &*new.timeouts_in),
            changed(&*self.retry, &*new.retry),
            changed(&*self.timeouts_out, &*new.timeouts_out),
            changed(&*self.resolver, &*new.resolver),
            changed(&*self.spool, &*new.spool),
            changed(&*self.hints, &*new.hints),
            changed(&*self.log, &*new.log),
            changed(&*self.admin, &*new.admin),
            changed(&*self.metrics, &*new.metrics),
            changed(&*self.clock, &*new.clock),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests;
