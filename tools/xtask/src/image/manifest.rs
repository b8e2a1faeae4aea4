//! What went into an image, and what came out: one line each, with digests.

use std::fmt::Write as _;
use std::path::Path;

use super::tool::{digest, package};

/// Debian's packages whose bytes are in the image or make it.
const PACKAGES: &[&str] = &[
    "linux-source-6.12",
    "gcc-12",
    "binutils",
    "systemd-boot-efi",
    "sbsigntool",
    "genimage",
    "mtools",
    "dosfstools",
    "zstd",
    "mdadm",
    "xfsprogs",
    "nvme-cli",
    "smartmontools",
    "libc6",
];

/// The manifest's text, growing.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    text: String,
}

impl Manifest {
    /// With the version, the packages and the compiler.
    pub(crate) fn new(version: &str, rustc: &str) -> Result<Self, String> {
        let mut manifest = Self::default();
        manifest.line("version", version, "");
        manifest.line("compatible", "ringpost-x86_64", "");
        for name in PACKAGES {
            manifest.line("package", name, &package(name)?);
        }
        manifest.line("rustc", rustc.trim(), "");
        Ok(manifest)
    }

    fn line(&mut self, kind: &str, name: &str, value: &str) {
        let _ = writeln!(self.text, "{}", format!("{kind} {name} {value}").trim_end());
    }

    /// A file with its digest.
    pub(crate) fn file(&mut self, kind: &str, name: &str, path: &Path) -> Result<(), String> {
        let digest = digest(path)?;
        self.line(kind, name, &digest);
        Ok(())
    }

    /// All of it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}
