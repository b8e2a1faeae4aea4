//! The certificate that a node makes for itself at its first start.
//!
//! *Guarantees.* Each file appears whole or not at all; the key is readable by its owner only, from
//! its first octet on. What exists is never overwritten; a key without certificate is used again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::{CertificateParams, DnType, KeyPair};

/// Mode of the key's file.
const KEY_MODE: u32 = 0o600;
/// Mode of the certificate's file.
const CHAIN_MODE: u32 = 0o644;

/// Makes an ECDSA P-256 key and a certificate signed with it for `names` (the first is the common
/// name), unless the certificate exists. Its dates span everything, so that a clock that is wrong
/// does no harm: nobody can verify it anyway. True when it was made.
///
/// # Errors
/// A folder or file that cannot be written; names that cannot stand in a certificate.
pub fn ensure_own_certificate(chain: &Path, key: &Path, names: &[String]) -> io::Result<bool> {
    if chain.try_exists()? {
        return Ok(false);
    }
    let pair = match fs::read_to_string(key) {
        Ok(text) => KeyPair::from_pem(&text).map_err(io::Error::other)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let pair = KeyPair::generate().map_err(io::Error::other)?;
            write_whole(key, pair.serialize_pem().as_bytes(), KEY_MODE)?;
            pair
        }
        Err(error) => return Err(error),
    };
    let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.distinguished_name = rcgen::DistinguishedName::new();
    let common_name = names.first().map_or("localhost", String::as_str);
    params.distinguished_name.push(DnType::CommonName, common_name);
    let certificate = params.self_signed(&pair).map_err(io::Error::other)?;
    write_whole(chain, certificate.pem().as_bytes(), CHAIN_MODE)?;
    Ok(true)
}

/// Temporary file, fsync, rename, fsync of the folder.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = name.to_owned();
    temporary.push(".new");
    let temporary = folder.join(temporary);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}
