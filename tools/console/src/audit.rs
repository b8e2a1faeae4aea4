//! What is done without the daemon, in an audit log: who, where, when.
//!
//! *Guarantees*: it is written before it is done.
//! *Failure*: what cannot be written is refused; what stops the machine is done all the same.
//! *Not here*: what the daemon does; it has a log of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::access::{self, Store};
use crate::exit::Trouble;
use crate::speaker;

/// Where a machine that is no appliance keeps such things, in a user's own folder.
const OF_USER: &str = ".local/state";
const OF_SYSTEM: &str = "/var/log";

/// The folder of the log: named, else from the environment, else the appliance's, else the user's.
fn folder(named: Option<&str>) -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(named) = named.map(PathBuf::from).or_else(|| set(access::VARIABLE).map(Into::into))
    {
        return named;
    }
    let state = Path::new(access::STATE);
    if state.parent().is_some_and(Path::is_dir) {
        return state.to_owned();
    }
    let home = || set("HOME").map(|home| Path::new(&home).join(OF_USER));
    let user = set("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
    user.unwrap_or_else(|| OF_SYSTEM.into()).join("ringpost")
}

/// Who, as far as it can be found out.
fn who() -> String {
    if let Some(speaker) = speaker::speaker() {
        return format!("name={} line={}", &*speaker.name, &*speaker.line);
    }
    let uid = nix::unistd::Uid::current();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    let user = user.map_or_else(|| "?".to_owned(), |user| user.name);
    let at = std::fs::read_link("/proc/self/fd/0").unwrap_or_default();
    let at = at.display().to_string().replace(' ', "_");
    format!("uid={uid} user={user} pid={} at={at}", std::process::id())
}

/// Writes down what is about to be done.
///
/// # Errors
/// The file system's.
pub(crate) fn write(named: Option<&str>, what: &str) -> Result<(), Trouble> {
    Store::new(&folder(named), None).audit(&who(), &format!("act: {what}"))
}

/// A command line as it is written down.
pub(crate) fn line(arguments: &[OsString]) -> String {
    let words = arguments.iter().skip(1).map(|word| word.to_string_lossy());
    words.collect::<Vec<_>>().join(" ")
}
