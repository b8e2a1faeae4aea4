//! Our programs, static, without a word of the machine that built them.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::tool::tool;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What is built.
pub(crate) const NAMES: [&str; 3] = ["init", "ringpostd", "ringpost"];

/// Builds init, the daemon and the admin tool; the folder they lie in.
pub(crate) fn build() -> Result<PathBuf, String> {
    let here = std::env::current_dir().map_err(|e| e.to_string())?;
    let target = std::env::var("CARGO_TARGET_DIR").map_or_else(|_| here.join("target"), Into::into);
    build_in(&here, &target)
}

/// The same from a tree, in a folder.
pub(crate) fn build_in(here: &Path, target: &Path) -> Result<PathBuf, String> {
    let home = std::env::var("HOME").map_err(|_| "HOME is not set".to_owned())?;
    let cargo = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
    let names = [
        (here.display().to_string(), "/ringpost"),
        (cargo, "/cargo"),
        (target.display().to_string(), "/target"),
    ];
    let mut rust = "-C target-feature=+crt-static".to_owned();
    let mut c = String::new();
    for (path, name) in &names {
        rust += &format!(" --remap-path-prefix={path}={name}");
        if *name != "/ringpost" {
            // There is no C in our tree.
            c += &format!(" -ffile-prefix-map={path}={name}");
        }
    }
    let mut command: Command = tool("cargo");
    command.args(["build", "--release", "--locked", "--quiet", "--target", TARGET]);
    command.args(["-p", "init", "-p", "ringpostd", "-p", "console"]);
    // It changes what is made, and is set by some for their own builds.
    command.env_remove("CARGO_INCREMENTAL");
    command.env("RUSTFLAGS", rust.trim()).env("CFLAGS", c.trim());
    command.env("CARGO_TARGET_DIR", target).current_dir(here);
    let status = command.status().map_err(|e| format!("cargo: {e}"))?;
    if !status.success() {
        return Err(format!("cargo build: {status}"));
    }
    Ok(folder(target))
}

fn folder(target: &Path) -> PathBuf {
    target.join(TARGET).join("release")
}
