//! One certificate with its key, from files, with everything that can be wrong said by name.
//!
//! *Failure.* [`FileError`] names the file and the fault; a [`Warning`] names what works but will
//! trouble somebody.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureAlgorithm};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::limits::FILE_OCTETS_MAX;

/// A file of the TLS settings that cannot be used.
#[derive(Debug)]
pub struct FileError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a file.
#[derive(Debug)]
pub enum Fault {
    /// It cannot be opened or read.
    Unreadable(std::io::Error),
    /// It is larger than [`FILE_OCTETS_MAX`].
    TooLarge,
    /// There is no `CERTIFICATE` block in it.
    NoCertificate,
    /// There is no unencrypted private key in it.
    NoKey,
    /// The key in it is encrypted; nobody is there to type the passphrase.
    EncryptedKey,
    /// A block in it does not parse.
    Malformed(String),
    /// The key is of a kind we cannot sign with.
    UnsupportedKey(String),
    /// The key belongs to another certificate.
    KeyMismatch {
        /// The file of the key.
        key: PathBuf,
    },
    /// The certificate ran out.
    Expired {
        /// When, in seconds since the Unix epoch.
        not_after_s: i64,
    },
    /// Nothing to serve: the settings name no certificate, or too many.
    Count(usize),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            Fault::Unreadable(error) => write!(f, "{path}: cannot be read: {error}"),
            Fault::TooLarge => write!(f, "{path}: larger than {FILE_OCTETS_MAX} octets"),
            Fault::NoCertificate => write!(f, "{path}: no certificate in it (PEM expected)"),
            Fault::NoKey => write!(f, "{path}: no private key in it (PEM expected)"),
            Fault::EncryptedKey => write!(f, "{path}: the private key is encrypted"),
            Fault::Malformed(what) => write!(f, "{path}: malformed: {what}"),
            Fault::UnsupportedKey(what) => write!(f, "{path}: key cannot be used: {what}"),
            Fault::KeyMismatch { key } => {
                write!(f, "{path}: the key in {} belongs to another certificate", key.display())
            }
            Fault::Expired { not_after_s } => {
                write!(f, "{path}: the certificate ended at {not_after_s} (Unix seconds)")
            }
            Fault::Count(count) => write!(f, "{count} certificates configured"),
        }
    }
}

impl std::error::Error for FileError {}

/// What works, but somebody should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Which file.
    pub path: PathBuf,
    /// What about it.
    pub remark: Remark,
}

/// What about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// The certificate ended at this second; served because the caller said so.
    Expired(i64),
    /// The certificate begins at this second, which is yet to come.
    NotYetValid(i64),
    /// Signed by somebody whose certificate is not in the file: verifying peers will fail.
    NoChain,
    /// The certificates do not follow each other, issuer by issuer.
    ChainOrder,
    /// No name: neither configured nor in the certificate. It is served as a default only.
    NoName,
    /// Others may read the key (mode bits).
    KeyReadableByOthers(u32),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.remark {
            Remark::Expired(at) => write!(f, "{path}: ended at {at} (Unix seconds)"),
            Remark::NotYetValid(at) => write!(f, "{path}: begins only at {at} (Unix seconds)"),
            Remark::NoChain => write!(f, "{path}: the issuer's certificate is not in the file"),
            Remark::ChainOrder => write!(f, "{path}: certificates are not in issuer order"),
            Remark::NoName => write!(f, "{path}: no DNS name, served as default only"),
            Remark::KeyReadableByOthers(mode) => {
                write!(f, "{path}: the key can be read by others (mode {mode:o})")
            }
        }
    }
}

/// A certificate that can be served.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    /// Lower case, no trailing dot; a wildcard begins with `*.`.
    pub(super) names: Vec<Box<str>>,
    pub(super) not_after_s: i64,
}

impl Pair {
    /// RSA costs the server five times as much: it is chosen last.
    pub(super) fn is_rsa(&self) -> bool {
        self.key.key.algorithm() == SignatureAlgorithm::RSA
    }
}

/// Reads one pair; `names` empty means: those of the certificate.
pub(super) fn load_pair(
    chain_path: &Path,
    key_path: &Path,
    names: &[String],
    now_s: i64,
    provider: &CryptoProvider,
    warnings: &mut Vec<Warning>,
) -> Result<Pair, FileError> {
    let in_chain = |fault| FileError { path: chain_path.to_owned(), fault };
    let mut warn = |path: &Path, remark| warnings.push(Warning { path: path.to_owned(), remark });

    let chain = read_chain(chain_path)?;
    let (key, mode) = read_key(key_path)?;
    if mode & 0o077 != 0 {
        warn(key_path, Remark::KeyReadableByOthers(mode & 0o777));
    }
    let facts = facts(&chain).map_err(|what| in_chain(Fault::Malformed(what)))?;
    if now_s < facts.not_before_s {
        warn(chain_path, Remark::NotYetValid(facts.not_before_s));
    }
    if !facts.in_order {
        warn(chain_path, Remark::ChainOrder);
    } else if chain.len() == 1 && !facts.self_issued {
        warn(chain_path, Remark::NoChain);
    }
    let names: Vec<Box<str>> =
        if names.is_empty() { facts.names } else { names.iter().map(|n| canonical(n)).collect() };
    if names.is_empty() {
        warn(chain_path, Remark::NoName);
    }
    let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            in_chain(Fault::KeyMismatch { key: key_path.to_owned() })
        }
        rustls::Error::InvalidCertificate(error) => {
            in_chain(Fault::Malformed(format!("{error:?}")))
        }
        other => {
            FileError { path: key_path.to_owned(), fault: Fault::UnsupportedKey(other.to_string()) }
        }
    })?;
    Ok(Pair { key: Arc::new(key), names, not_after_s: facts.not_after_s })
}

/// A name as it is looked up.
pub(super) fn canonical(name: &str) -> Box<str> {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into_boxed_str()
}

/// The certificates of a PEM file, in its order.
pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let fail = |fault| FileError { path: path.to_owned(), fault };
    let (text, _) = read(path).map_err(fail)?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| fail(Fault::Malformed(error.to_string())))?;
    if chain.is_empty() { Err(fail(Fault::NoCertificate)) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<(PrivateKeyDer<'static>, u32), FileError> {
    use rustls::pki_types::pem::Error as PemError;
    let fail = |fault| FileError { path: path.to_owned(), fault };
    let (text, mode) = read(path).map_err(fail)?;
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok((key, mode)),
        Err(PemError::NoItemsFound) => {
            let marker: &[u8] = b"ENCRYPTED PRIVATE KEY";
            let encrypted = text.windows(marker.len()).any(|window| window == marker);
            Err(fail(if encrypted { Fault::EncryptedKey } else { Fault::NoKey }))
        }
        Err(error) => Err(fail(Fault::Malformed(error.to_string()))),
    }
}

fn read(path: &Path) -> Result<(Vec<u8>, u32), Fault> {
    use std::os::unix::fs::MetadataExt;
    let file = File::open(path).map_err(Fault::Unreadable)?;
    let mode = file.metadata().map_err(Fault::Unreadable)?.mode();
    let mut text = Vec::new();
    let count = file.take(FILE_OCTETS_MAX + 1).read_to_end(&mut text).map_err(Fault::Unreadable)?;
    if u64::try_from(count).is_ok_and(|count| count <= FILE_OCTETS_MAX) {
        Ok((text, mode))
    } else {
        Err(Fault::TooLarge)
    }
}

struct Facts {
    not_before_s: i64,
    not_after_s: i64,
    names: Vec<Box<str>>,
    self_issued: bool,
    in_order: bool,
}

fn facts(chain: &[CertificateDer<'_>]) -> Result<Facts, String> {
    let parsed = chain
        .iter()
        .map(|der| X509Certificate::from_der(der).map(|(_, certificate)| certificate))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    let first = parsed.first().ok_or("empty chain")?;
    let names = match first.subject_alternative_name() {
        Ok(Some(extension)) => extension
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                x509_parser::extensions::GeneralName::DNSName(name) => Some(canonical(name)),
                _ => None,
            })
            .collect(),
        Ok(None) => Vec::new(),
        Err(error) => return Err(error.to_string()),
    };
    Ok(Facts {
        not_before_s: first.validity().not_before.timestamp(),
        not_after_s: first.validity().not_after.timestamp(),
        names,
        self_issued: first.issuer().as_raw() == first.subject().as_raw(),
        in_order: parsed
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if a.issuer().as_raw() == b.subject().as_raw())),
    })
}
