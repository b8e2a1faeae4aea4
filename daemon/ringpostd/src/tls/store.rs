//! What the server side serves: certificates by name and local address, built once, never changed.
//!
//! *Guarantees.* A store is immutable: a reload builds a new one and the caller swaps the `Arc`;
//! sessions keep the one they began with. The ticket keys ([`Tickets`]) outlive stores, so a
//! session begun under one is resumed under the next, on any core.
//!
//! *Failure.* Every unusable file is reported, not only the first; then there is no store.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, ServerConfig,
};
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, version};

use super::certificate::{Fault, FileError, Pair, Remark, Warning, canonical, load_pair};
use super::client::AnyClient;
use super::limits::CERTIFICATES_MAX;
use super::session::ServerTls;

/// One certificate of the settings.
#[derive(Debug, Clone, Default)]
pub struct CertificateFiles {
    /// PEM: the certificate, then those of its issuers.
    pub chain: PathBuf,
    /// PEM: the key; may be the same file.
    pub key: PathBuf,
    /// Names it is served for; empty: the DNS names in it. `*.example.org` stands for one label.
    pub names: Vec<String>,
    /// Local addresses it is served on; empty: all.
    pub addresses: Vec<IpAddr>,
}

/// The least version to speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VersionFloor {
    /// 1.2 and 1.3.
    #[default]
    Tls12,
    /// 1.3 only.
    Tls13,
}

/// What to do about a certificate that has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnExpired {
    /// No store: for `--check` and for reloads while the clock is trusted.
    #[default]
    Refuse,
    /// Serve it with a warning: at start, and while the clock is in doubt.
    Serve,
}

/// All that a store is made of.
#[derive(Debug, Clone, Default)]
pub struct TlsSettings {
    /// The first is the default for clients that name nothing we know.
    pub certificates: Vec<CertificateFiles>,
    /// The least version to speak.
    pub version_floor: VersionFloor,
    /// Ask clients for a certificate (recorded, never demanded).
    pub ask_client_certificate: bool,
    /// What to do about a certificate that has ended.
    pub on_expired: OnExpired,
}

/// The keys under which tickets are sealed, renewed every six hours, shared by all cores and
/// stores.
#[derive(Clone)]
pub struct Tickets(Arc<dyn ProducesTickets>);

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    /// Fresh keys; one per process.
    ///
    /// # Errors
    /// The kernel gives no random octets.
    pub fn new() -> Result<Self, rustls::Error> {
        aws_lc_rs::Ticketer::new().map(Self)
    }
}

/// A store and what its owner should know about it.
#[derive(Debug)]
pub struct Loaded {
    /// The store.
    pub store: Arc<TlsStore>,
    /// Oddities of the files.
    pub warnings: Vec<Warning>,
    /// When the first certificate of it ends, in seconds since the Unix epoch.
    pub not_after_s: i64,
}

/// Certificates by local address and name.
#[derive(Debug)]
pub struct TlsStore {
    anywhere: ServerTls,
    by_address: HashMap<IpAddr, ServerTls>,
}

impl TlsStore {
    /// Reads all files and builds the store.
    ///
    /// # Errors
    /// Everything that is wrong, file by file.
    pub fn load(
        settings: &TlsSettings,
        tickets: &Tickets,
        wall_us: u64,
    ) -> Result<Loaded, Vec<FileError>> {
        let count = settings.certificates.len();
        if count == 0 || count > CERTIFICATES_MAX {
            return Err(vec![FileError { path: PathBuf::new(), fault: Fault::Count(count) }]);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let now_s = i64::try_from(wall_us / 1_000_000).unwrap_or(i64::MAX);
        let (mut pairs, mut errors, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for files in &settings.certificates {
            let pair =
                load_pair(&files.chain, &files.key, &files.names, now_s, &provider, &mut warnings)
                    .and_then(|pair| check_end(pair, &files.chain, settings, now_s, &mut warnings));
            match pair {
                Ok(pair) => pairs.push((files, pair)),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let not_after_s = pairs.iter().map(|(_, pair)| pair.not_after_s).min().unwrap_or(0);
        let addresses = pairs.iter().flat_map(|(files, _)| &files.addresses);
        let by_address = addresses
            .map(|address| address.to_canonical())
            .map(|address| {
                let config = server_config(&pairs, Some(address), settings, tickets, &provider);
                (address, config)
            })
            .collect();
        let anywhere = server_config(&pairs, None, settings, tickets, &provider);
        Ok(Loaded { store: Arc::new(Self { anywhere, by_address }), warnings, not_after_s })
    }

    /// What to serve on a connection to this local address.
    #[must_use]
    pub fn for_local(&self, local: IpAddr) -> &ServerTls {
        self.by_address.get(&local.to_canonical()).unwrap_or(&self.anywhere)
    }
}

fn check_end(
    pair: Pair,
    path: &Path,
    settings: &TlsSettings,
    now_s: i64,
    warnings: &mut Vec<Warning>,
) -> Result<Pair, FileError> {
    let not_after_s = pair.not_after_s;
    if now_s <= not_after_s {
        return Ok(pair);
    }
    match settings.on_expired {
        OnExpired::Refuse => {
            Err(FileError { path: path.to_owned(), fault: Fault::Expired { not_after_s } })
        }
        OnExpired::Serve => {
            warnings.push(Warning { path: path.to_owned(), remark: Remark::Expired(not_after_s) });
            Ok(pair)
        }
    }
}

fn server_config(
    pairs: &[(&CertificateFiles, Pair)],
    address: Option<IpAddr>,
    settings: &TlsSettings,
    tickets: &Tickets,
    provider: &Arc<CryptoProvider>,
) -> ServerTls {
    let versions: &[&rustls::SupportedProtocolVersion] = match settings.version_floor {
        VersionFloor::Tls12 => &[&version::TLS12, &version::TLS13],
        VersionFloor::Tls13 => &[&version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .expect("the provider has suites and groups for both versions");
    let builder = if settings.ask_client_certificate {
        builder.with_client_cert_verifier(Arc::new(AnyClient::new(Arc::clone(provider))))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_cert_resolver(Arc::new(Chooser::new(pairs, address)));
    config.ticketer = Arc::clone(&tickets.0);
    // Tickets do it all; the session cache would be a lock between the cores.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    ServerTls::new(config)
}

/// Chooses by name, then by what the client can verify, ECDSA before RSA.
#[derive(Debug)]
struct Chooser {
    by_name: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// For clients that name nothing, or nothing we know; best first.
    fallback: Vec<Arc<CertifiedKey>>,
}

impl Chooser {
    fn new(pairs: &[(&CertificateFiles, Pair)], address: Option<IpAddr>) -> Self {
        let bound_here = |files: &CertificateFiles| {
            address.is_some_and(|here| files.addresses.iter().any(|a| a.to_canonical() == here))
        };
        let mut chosen: Vec<(bool, &Pair)> = pairs
            .iter()
            .map(|(files, pair)| (bound_here(files), files.addresses.is_empty(), pair))
            .filter(|(bound, free, _)| *bound || *free)
            .map(|(bound, _, pair)| (bound, pair))
            .collect();
        if chosen.is_empty() {
            // Every pair is bound to some other address: better any of them than none.
            chosen = pairs.iter().map(|(_, pair)| (false, pair)).collect();
        }
        // Stable: those of this address first, then in the order of the settings.
        chosen.sort_by_key(|(bound, _)| !*bound);

        let mut by_name: HashMap<Box<str>, Vec<&Pair>> = HashMap::new();
        for (_, pair) in &chosen {
            for name in &pair.names {
                by_name.entry(name.clone()).or_default().push(pair);
            }
        }
        let by_name = by_name
            .into_iter()
            .map(|(name, mut pairs)| {
                pairs.sort_by_key(|pair| pair.is_rsa());
                (name, keys(&pairs))
            })
            .collect();
        let first = chosen.first().map(|(_, pair)| *pair);
        let is_first = |pair: &Pair| {
            first.is_some_and(|first| {
                std::ptr::eq(first, pair) || first.names.iter().any(|n| pair.names.contains(n))
            })
        };
        let mut fallback: Vec<&Pair> = chosen.iter().map(|(_, pair)| *pair).collect();
        fallback.sort_by_key(|pair| (!is_first(pair), is_first(pair) && pair.is_rsa()));
        Self { by_name, fallback: keys(&fallback) }
    }

    fn named(&self, name: &str) -> &[Arc<CertifiedKey>] {
        let name = canonical(name);
        if let Some(keys) = self.by_name.get(&name) {
            return keys;
        }
        let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        wildcard.and_then(|wildcard| self.by_name.get(wildcard.as_str())).map_or(&[], Vec::as_slice)
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        name.map_or(&[][..], |name| self.named(name))
            .iter()
            .chain(&self.fallback)
            .find(|key| key.key.choose_scheme(schemes).is_some())
            .map(Arc::clone)
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

fn keys(pairs: &[&Pair]) -> Vec<Arc<CertifiedKey>> {
    pairs.iter().map(|pair| Arc::clone(&pair.key)).collect()
}
