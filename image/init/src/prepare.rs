//! From a kernel that has just started to a machine on which mail can be served, step by step.
//!
//! *Failure*: the first step that cannot be done ends this in maintenance mode, with its reason
//! on the console. Nothing is overwritten on the way.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::commands::{CONFIG, daemon_check};
use crate::generations::{Generations, Import};
use crate::limits::{DAEMON_ID, DISK_WAIT};
use crate::say::{say, warn};
use crate::settings::Settings;
use crate::watchdog::Watchdog;
use crate::{array, disks, helper, mounts, network, provision};

const SEED: &str = "/run/seed";
/// Where partitions of the spool have names of their own.
const SPOOL: &str = "/dev/spool";
/// Where state is mounted.
pub(crate) const STATE: &str = "/state";

type Outcome<T = ()> = Result<T, String>;

/// What is known when state is mounted.
#[derive(Debug)]
pub(crate) struct Place {
    /// The folder of the config in force.
    pub(crate) config: PathBuf,
    /// The machine's part of it.
    pub(crate) settings: Settings,
}

/// Waits for the own disk.
///
/// # Errors
/// It does not appear.
pub(crate) fn own_disk(watchdog: &mut Watchdog) -> Outcome<String> {
    let until = Instant::now() + DISK_WAIT;
    loop {
        watchdog.feed();
        match disks::own() {
            Ok(disk) => return disks::remember_own(&disk).map(|()| disk),
            Err(why) if Instant::now() > until => return Err(why),
            Err(_) => sleep(Duration::from_millis(20)),
        }
    }
}

/// State mounted, the seed imported.
///
/// # Errors
/// Which step, and why.
pub(crate) fn config(disk: &str) -> Outcome<Place> {
    provision::own(disk)?;
    let state = disks::part(disk, disks::STATE).ok_or("the state partition is not there")?;
    mounts::state(&state.device(), STATE)?;
    let generations = Generations::open(CONFIG.into()).map_err(|e| format!("{CONFIG}: {e}"))?;
    daemons_folder(STATE, "tls")?;
    daemons_folder(STATE, "log")?;
    daemons_folder("/run", "ringpost")?;
    if let Some(number) = generations.undo()? {
        warn(&format_args!("config: nobody confirmed it: generation {number} is back"));
    }
    match seed(disk, &generations) {
        Ok(Import::Taken(number)) => say(&format_args!("config: generation {number}")),
        Ok(Import::Same | Import::Empty) => {}
        Err(why) => warn(&format_args!("config seed refused, the last good one stays: {why}")),
    }
    in_force(&generations)
}

/// The generation in force.
///
/// # Errors
/// There is none, or it cannot be read.
pub(crate) fn in_force(generations: &Generations) -> Outcome<Place> {
    let config = generations.current().ok_or_else(|| {
        format!("no config: put mx.toml and machine.toml on the partition {}", disks::SEED)
    })?;
    let settings = generations.settings().ok_or("machine.toml of the current config is broken")?;
    Ok(Place { config, settings })
}

fn seed(disk: &str, generations: &Generations) -> Outcome<Import> {
    let seed = disks::part(disk, disks::SEED).ok_or("the config partition is not there")?;
    mounts::seed(&seed.device(), SEED)?;
    let taken = generations.import(Path::new(SEED), daemon_check);
    mounts::detach(SEED)?;
    taken
}

/// A folder that the daemon may write.
fn daemons_folder(above: &str, name: &str) -> Outcome {
    let path = Path::new(above).join(name);
    let fail = |error: std::io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(&path).map_err(fail)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).map_err(fail)?;
    chown(&path, Some(DAEMON_ID), Some(DAEMON_ID)).map_err(fail)
}

/// Name, spool and network; what fails here is said, and mail is served with what is left.
///
/// # Errors
/// No spool.
pub(crate) fn machine(disk: &str, settings: &Settings) -> Outcome {
    if let Some(name) = &settings.hostname
        && let Err(error) = nix::unistd::sethostname(name)
    {
        warn(&format_args!("host name {name}: {error}"));
    }
    provision::others(disk, &settings.wipe);
    let parts = spool(disk)?;
    say(&format_args!("spool: {} partition(s), /dev/spool/0 and on", parts.len()));
    chosen(&parts, settings)?;
    network::up(settings);
    if let Err(why) = mounts::freeze_root() {
        warn(&why);
    }
    Ok(())
}

/// From now on no partition of the spool can be written, by whomever; a new start ends that.
pub(crate) fn close_spool() {
    array::end();
    // By the names the operator knows, also where the start did not come so far.
    if let Ok(own) = disks::own()
        && !Path::new(SPOOL).exists()
        && let Err(why) = spool(&own)
    {
        warn(&why);
    }
    let is_spool = |b: &disks::Block| b.label.as_deref() == Some(disks::SPOOL);
    for part in disks::list().into_iter().filter(is_spool) {
        let device = part.device().display().to_string();
        match helper::run("/bin/blockdev", &["--setro", &device]) {
            Ok(()) => say(&format_args!("{device}: read-only until the next start")),
            Err(why) => warn(&format_args!("{device}: {why}")),
        }
    }
}

/// `/dev/spool/<n>`: the own disk's first, the others' in the order of their serial numbers, so
/// that a name does not depend on which drive the kernel found first.
fn spool(own: &str) -> Outcome<Vec<PathBuf>> {
    let is_spool = |b: &disks::Block| b.label.as_deref() == Some(disks::SPOOL);
    let mut parts: Vec<_> = disks::list().into_iter().filter(is_spool).collect();
    parts.sort_by_key(|part| {
        let disk = part.disk.clone().unwrap_or_default();
        (disk != own, disks::serial(&disk), part.name.clone())
    });
    fs::create_dir_all(SPOOL).map_err(|e| format!("{SPOOL}: {e}"))?;
    for (n, part) in parts.iter().enumerate() {
        name_device(&part.device(), &n.to_string())?;
    }
    if parts.is_empty() {
        return Err("no spool partition".to_owned());
    }
    Ok(parts.iter().map(disks::Block::device).collect())
}

/// The daemon's, by a name below /dev/spool.
fn name_device(device: &Path, name: &str) -> Outcome {
    let fail = |error: std::io::Error| format!("{}: {error}", device.display());
    chown(device, Some(DAEMON_ID), Some(DAEMON_ID)).map_err(fail)?;
    fs::set_permissions(device, fs::Permissions::from_mode(0o600)).map_err(fail)?;
    symlink(device, Path::new(SPOOL).join(name)).map_err(fail)
}

/// md and XFS, if the settings choose them.
fn chosen(parts: &[PathBuf], settings: &Settings) -> Outcome {
    let mut device = parts[0].clone();
    if !settings.spool.md.is_empty() {
        let member = |n: &u32| parts.get(usize::try_from(*n).ok()?).cloned();
        let members: Vec<_> = settings.spool.md.iter().filter_map(member).collect();
        device = array::assemble(&members)?;
        name_device(&device, "md")?;
    }
    if settings.spool.xfs {
        array::file_system(&device)?;
        say(&format_args!("spool: {} is an XFS at {}", device.display(), array::FOLDER));
    }
    Ok(())
}
