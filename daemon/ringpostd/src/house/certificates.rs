//! Certificates as the config names them: made where they may be, loaded as one store.

use std::io;
use std::sync::Arc;

use crate::config::{CertificateConfig, Config, ListenerTls, TlsVersion};
use crate::tls::{
    CertificateFiles, OnExpired, Tickets, TlsSettings, TlsStore, VersionFloor,
    ensure_own_certificate,
};

/// The certificates of one config.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    /// What listeners serve; none if no certificate is configured.
    pub store: Option<Arc<TlsStore>>,
    /// When the first of them ends, seconds since the Unix epoch.
    pub not_after_s: Option<i64>,
    /// Oddities, one line each.
    pub warnings: Vec<String>,
}

fn names(config: &Config, certificate: &CertificateConfig) -> Vec<String> {
    match certificate.names.as_slice() {
        [] => vec![config.node.hostname.as_str().to_owned()],
        names => names.iter().map(|name| name.as_str().to_owned()).collect(),
    }
}

/// Makes the self-signed certificates that are missing, where the config says so. One line each
/// for those made.
///
/// # Errors
/// A file that cannot be written, by name.
pub fn make_missing(config: &Config) -> io::Result<Vec<String>> {
    let mut made = Vec::new();
    for certificate in config.tls.certificates.iter().filter(|c| c.self_signed) {
        let names = names(config, certificate);
        let path = certificate.certificate.display();
        let new = ensure_own_certificate(&certificate.certificate, &certificate.key, &names)
            .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
        if new {
            made.push(format!("made {path}, self-signed, for {}", names.join(" ")));
        }
    }
    Ok(made)
}

/// Loads all certificates.
///
/// # Errors
/// All that is wrong, one line each.
pub fn load(
    config: &Config,
    tickets: &Tickets,
    on_expired: OnExpired,
    wall_us: u64,
) -> Result<Certificates, Vec<String>> {
    if config.tls.certificates.is_empty() {
        debug_assert!(config.listeners.iter().all(|l| l.tls == ListenerTls::None), "checked");
        return Ok(Certificates::default());
    }
    let certificates = config.tls.certificates.iter().map(|certificate| CertificateFiles {
        chain: certificate.certificate.clone(),
        key: certificate.key.clone(),
        names: certificate.names.iter().map(|name| name.as_str().to_owned()).collect(),
        addresses: certificate.local_addresses.clone(),
    });
    let settings = TlsSettings {
        certificates: certificates.collect(),
        version_floor: match config.tls.version_min {
            TlsVersion::Tls12 => VersionFloor::Tls12,
            TlsVersion::Tls13 => VersionFloor::Tls13,
        },
        ask_client_certificate: false,
        on_expired,
    };
    match TlsStore::load(&settings, tickets, wall_us) {
        Ok(loaded) => Ok(Certificates {
            store: Some(loaded.store),
            not_after_s: Some(loaded.not_after_s),
            warnings: loaded.warnings.iter().map(ToString::to_string).collect(),
        }),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    }
}
