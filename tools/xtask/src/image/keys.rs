//! What signs: the operator's key by option, or a test key made once on this machine.
//!
//! *Guarantees*: with one key the same file gets the same signature: the clock is held.

use std::path::{Path, PathBuf};

use super::tool::{cache, done, folder, tool};

/// A key and its certificate.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) key: PathBuf,
    pub(crate) certificate: PathBuf,
    /// Whether anybody could have it.
    pub(crate) is_test: bool,
}

impl Keys {
    /// A test key, made when it is first needed.
    pub(crate) fn test() -> Result<Self, String> {
        let place = cache()?.join("test-keys");
        folder(&place)?;
        let keys =
            Self { key: place.join("key.pem"), certificate: place.join("cert.pem"), is_test: true };
        if !keys.certificate.exists() {
            let name = "/CN=Ringpost test key, not for production";
            let mut command = tool("openssl");
            command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650"]);
            command.args(["-subj", name, "-keyout"]).arg(&keys.key);
            done(command.arg("-out").arg(&keys.certificate))?;
        }
        Ok(keys)
    }

    /// Signs a program of the firmware's.
    pub(crate) fn sign(&self, from: &Path, to: &Path) -> Result<(), String> {
        let mut command = tool("faketime");
        command.args(["-f", "2026-01-01 00:00:00", "sbsign", "--key"]).arg(&self.key);
        command.arg("--cert").arg(&self.certificate).arg("--output").arg(to).arg(from);
        done(&mut command)?;
        let mut verify = tool("sbverify");
        done(verify.arg("--cert").arg(&self.certificate).arg(to)).map(drop)
    }

    /// Writes the public key as DER: what a release of ours must be signed with.
    pub(crate) fn write_public(&self, to: &Path) -> Result<(), String> {
        let pem = to.with_extension("pem");
        let mut command = tool("openssl");
        command.args(["x509", "-noout", "-pubkey", "-in"]).arg(&self.certificate);
        done(command.arg("-out").arg(&pem))?;
        let mut command = tool("openssl");
        command.args(["pkey", "-pubin", "-outform", "DER", "-in"]).arg(&pem);
        done(command.arg("-out").arg(to)).map(drop)
    }

    /// Writes the signature of any file beside it.
    pub(crate) fn sign_beside(&self, path: &Path) -> Result<(), String> {
        let mut name = path.as_os_str().to_owned();
        name.push(".sig");
        let mut command = tool("openssl");
        command.args(["dgst", "-sha256", "-sign"]).arg(&self.key).arg("-out").arg(name);
        done(command.arg(path)).map(drop)
    }
}
