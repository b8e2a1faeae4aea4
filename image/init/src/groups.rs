//! Control groups: the daemon and the console each live within bounds, so that neither takes the
//! other's memory, nor init's.
//!
//! *Limits*: of the memory the daemon leaves `MEMORY_SPARE`, the console has `CONSOLE_SHARE`;
//! processes and threads `DAEMON_TASKS` and `CONSOLE_TASKS`.
//! *Failure*: said once; a service runs without bounds rather than not at all.

use std::fs;
use std::path::Path;

use crate::clock;
use crate::limits::{CONSOLE_SHARE, CONSOLE_TASKS, DAEMON_TASKS, MEMORY_SPARE};
use crate::say::warn;

/// Where they are mounted.
pub(crate) const PLACE: &str = "/sys/fs/cgroup";
/// The daemon's.
pub(crate) const MAIL: &str = "mail";
/// The serial line's.
pub(crate) const CONSOLE: &str = "console";

/// Octets of memory for the daemon and for the console.
fn shares(total: u64) -> (u64, u64) {
    (total.saturating_sub(MEMORY_SPARE).max(total / 2), total / CONSOLE_SHARE)
}

/// Makes both.
pub(crate) fn make() {
    if let Err(why) = try_make() {
        warn(&format_args!("no bounds for services: {why}"));
    }
}

fn try_make() -> Result<(), String> {
    let write = |path: String, value: &str| {
        fs::write(&path, value).map_err(|error| format!("{path}: {error}"))
    };
    write(format!("{PLACE}/cgroup.subtree_control"), "+memory +pids")?;
    let (mail, console) = shares(clock::memory_total());
    for (name, octets, tasks) in [(MAIL, mail, DAEMON_TASKS), (CONSOLE, console, CONSOLE_TASKS)] {
        let folder = format!("{PLACE}/{name}");
        if !Path::new(&folder).exists() {
            fs::create_dir(&folder).map_err(|error| format!("{folder}: {error}"))?;
        }
        write(format!("{folder}/memory.max"), &octets.to_string())?;
        write(format!("{folder}/pids.max"), &tasks.to_string())?;
    }
    Ok(())
}

/// This process, and those it starts, belong to one from now on.
pub(crate) fn join(name: &str) {
    let path = format!("{PLACE}/{name}/cgroup.procs");
    if let Err(error) = fs::write(&path, "0") {
        warn(&format_args!("{path}: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_never_gets_all_and_never_less_than_half() {
        let mib = 1 << 20;
        assert_eq!(shares(512 * mib), (512 * mib - MEMORY_SPARE, 512 * mib / CONSOLE_SHARE));
        assert_eq!(shares(100 * mib).0, 50 * mib);
    }
}
