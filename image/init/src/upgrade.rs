//! Another version: fetched, checked, written beside the running one, to be tried at next start.
//!
//! A release is a manifest, its signature (`.sig` behind the name) and the version's file (`.efi`
//! in the place of `.manifest`).
//!
//! *Guarantees*: signature, hardware, version and digest are checked before a byte is written; the
//! running version's file is not touched; one upgrade at a time.
//! *Failure*: what was wrong; nothing was changed.
//! *Not here*: the trial itself (`node`), the blessing (`bless`).

use std::collections::BTreeMap;
use std::fs::File;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use nix::fcntl::{Flock, FlockArg};

use crate::fetch::fetch;
use crate::limits::{MANIFEST_MAX, TRIES, UKI_MAX};
use crate::say::say;
use crate::version::compare;
use crate::{disks, efi, esp};

/// The key whose signature counts, as DER.
const KEY: &str = "/etc/upgrade.key";
/// What this image runs on.
const COMPATIBLE: &str = "ringpost-x86_64";
const LOCK: &str = "/run/upgrade.lock";

type Outcome<T = ()> = Result<T, String>;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// The manifest: a path or `http://...`.
    pub(crate) manifest: &'a str,
    /// An older version is wanted on purpose.
    pub(crate) downgrade: bool,
}

/// Installs a version and says which.
///
/// # Errors
/// See the head of this file.
pub(crate) fn upgrade(running: &str, wanted: &Wanted<'_>) -> Outcome<String> {
    let lock = File::create(LOCK).map_err(|e| format!("{LOCK}: {e}"))?;
    let _held = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
        .map_err(|_| "another upgrade is under way".to_owned())?;
    let place = wanted.manifest;
    let stem = place.strip_suffix(".manifest").ok_or("name the release's file .manifest")?;
    let text = fetch(place, MANIFEST_MAX)?;
    let signature = fetch(&format!("{place}.sig"), MANIFEST_MAX)?;
    let key = std::fs::read(KEY).map_err(|e| format!("{KEY}: {e}"))?;
    let manifest = checked(&text, &signature, &key)?;
    fits(&manifest, running, wanted.downgrade)?;
    let content = fetch(&format!("{stem}.efi"), UKI_MAX)?;
    is_whole(&manifest, &content)?;
    let disk = disks::own()?;
    let older = compare(&manifest.version, running).is_lt();
    let tries = if older { 1 } else { TRIES };
    esp::with(&disk, |esp| esp::install(esp, running, &manifest.version, tries, &content))?;
    if older {
        efi::start_once(&manifest.version)?;
    }
    say(&format_args!("upgrade: {} is written and will be tried", manifest.version));
    Ok(manifest.version)
}

/// What a manifest says that counts here.
#[derive(Debug, PartialEq, Eq)]
struct Manifest {
    version: String,
    compatible: String,
    digest: String,
}

/// Checks the signature, then reads.
fn checked(text: &[u8], signature: &[u8], key: &[u8]) -> Outcome<Manifest> {
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key);
    key.verify(text, signature).map_err(|_| "the signature is not of our key".to_owned())?;
    read(&String::from_utf8_lossy(text))
}

fn read(text: &str) -> Outcome<Manifest> {
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        if let Some((kind, rest)) = line.split_once(' ') {
            lines.entry(kind).or_insert(rest);
        }
    }
    let line = |kind: &str| {
        lines.get(kind).copied().ok_or_else(|| format!("the manifest has no line {kind}"))
    };
    let version = line("version")?;
    let sane = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '~';
    if version.is_empty() || version.len() > 64 || !version.chars().all(sane) {
        return Err(format!("{version:?} is no version"));
    }
    let digest = line("uki")?.strip_prefix("efi ").ok_or("the manifest names no uki")?;
    Ok(Manifest {
        version: version.to_owned(),
        compatible: line("compatible")?.to_owned(),
        digest: digest.to_owned(),
    })
}

fn fits(manifest: &Manifest, running: &str, downgrade: bool) -> Outcome {
    let Manifest { version, compatible, .. } = manifest;
    if compatible != COMPATIBLE {
        return Err(format!("{version} is for {compatible}, this machine is {COMPATIBLE}"));
    }
    let order = compare(version, running);
    if order.is_eq() {
        return Err(format!("{version} is what runs here"));
    }
    if order.is_lt() && !downgrade {
        return Err(format!("{version} is older than {running}: say --downgrade if you mean it"));
    }
    Ok(())
}

fn is_whole(manifest: &Manifest, content: &[u8]) -> Outcome {
    let found: String =
        digest(&SHA256, content).as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
    if found == manifest.digest {
        return Ok(());
    }
    Err(format!("{} octets that are not what the manifest describes", content.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};

    const TEXT: &str = "version 1.1.0\ncompatible ringpost-x86_64\npackage x 1\n\
        uki-unsigned efi 00\nuki efi ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n";

    #[test]
    fn a_good_manifest_is_taken_and_every_other_is_not() {
        let manifest = read(TEXT).unwrap();
        assert_eq!(fits(&manifest, "1.0.0", false), Ok(()));
        assert!(fits(&manifest, "1.1.0", true).unwrap_err().contains("what runs here"));
        assert!(fits(&manifest, "1.2.0", false).unwrap_err().contains("--downgrade"));
        assert_eq!(fits(&manifest, "1.2.0", true), Ok(()));
        assert_eq!(is_whole(&manifest, b"abc"), Ok(()));
        assert!(is_whole(&manifest, b"abd").is_err());
        assert!(is_whole(&manifest, b"ab").is_err());
        let other = read(&TEXT.replace("x86_64", "arm64")).unwrap();
        assert!(fits(&other, "1.0.0", false).unwrap_err().contains("arm64"));
        assert!(read(&TEXT.replace("1.1.0", "../x")).is_err());
        assert!(read("version 1\n").is_err());
    }

    #[test]
    fn only_our_signature_counts() {
        let ours = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let other = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let sign = |pair: &RsaKeyPair, text: &str| {
            let mut signature = vec![0; pair.public_modulus_len()];
            let random = SystemRandom::new();
            pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).unwrap();
            signature
        };
        // As `openssl x509 -pubkey` has it, and as `openssl rsa -RSAPublicKey_out`.
        let whole = ours.public_key().as_der().unwrap();
        for key in [whole.as_ref(), ours.public_key().as_ref()] {
            assert!(checked(TEXT.as_bytes(), &sign(&ours, TEXT), key).is_ok());
            assert!(checked(TEXT.as_bytes(), &sign(&other, TEXT), key).is_err());
            assert!(checked(b"version 2\n", &sign(&ours, TEXT), key).is_err());
            assert!(checked(TEXT.as_bytes(), b"", key).is_err());
        }
        assert!(checked(TEXT.as_bytes(), &sign(&ours, TEXT), b"").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_manifest_makes_it_panic(text in "\\PC{0,200}") {
            let _ = read(&text);
        }
    }
}
