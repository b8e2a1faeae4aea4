//! Other people's programs, digests, and where things lie.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

/// Every time in the image: 2026-01-01.
pub(crate) const EPOCH: u64 = 1_767_225_600;

/// A program of others with a fixed locale, time zone and time.
pub(crate) fn tool(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").env("TZ", "UTC").env("SOURCE_DATE_EPOCH", EPOCH.to_string());
    command
}

/// Runs it; its words are shown only if it fails.
pub(crate) fn done(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let tail: Vec<&str> = told.lines().rev().take(20).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(format!("{name}: {}\n{}\n{}", output.status, tail.join("\n"), said.trim()))
}

/// What outlives a clone.
pub(crate) fn cache() -> Result<PathBuf, String> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/ringpost"));
    let place = std::env::var_os("RINGPOST_CACHE").map(PathBuf::from).or_else(home);
    let place = place.ok_or("neither RINGPOST_CACHE nor HOME is set")?;
    folder(&place)?;
    Ok(place)
}

/// Makes a folder.
pub(crate) fn folder(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Empties a folder.
pub(crate) fn fresh(path: &Path) -> Result<(), String> {
    if path.exists() {
        fs::remove_dir_all(path).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    folder(path)
}

/// Writes a file.
pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), String> {
    fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Copies a file.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to).map(drop).map_err(|e| format!("{}: {e}", from.display()))
}

/// A file's SHA-256, in hexadecimal.
pub(crate) fn digest(path: &Path) -> Result<String, String> {
    let fail = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut file = File::open(path).map_err(fail)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut buffer).map_err(fail)?;
        if length == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..length]);
    }
}

/// The SHA-256 of some text, in hexadecimal.
pub(crate) fn digest_of(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The version of a Debian package that is installed.
pub(crate) fn package(name: &str) -> Result<String, String> {
    let said = Command::new("dpkg-query").args(["-W", "-f=${Version}", name]).output();
    let said = said.map_err(|e| format!("dpkg-query: {e}"))?;
    if !said.status.success() {
        return Err(format!("the Debian package {name} is missing; ./x image installs it"));
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}
