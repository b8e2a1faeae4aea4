//! The kernel's file systems, and those of the own disk.
//!
//! *Guarantees*: nothing that is mounted runs programs, has device nodes (but /dev) or set-uid.

use std::fs;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

type Outcome = Result<(), String>;

fn safe() -> MsFlags {
    MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
}

/// Kernel file systems; all but the firmware's variables must be there.
///
/// # Errors
/// Which, and why.
pub(crate) fn kernel() -> Outcome {
    attach("proc", "/proc", "proc", safe(), "hidepid=invisible")?;
    attach("sysfs", "/sys", "sysfs", safe(), "")?;
    let dev = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    attach("devtmpfs", "/dev", "devtmpfs", dev, "mode=0755")?;
    attach("tmpfs", "/run", "tmpfs", safe(), "mode=0755,size=25%")?;
    // Without it services have no bounds, which is said.
    let _ = attach("cgroup2", "/sys/fs/cgroup", "cgroup2", safe(), "");
    // A machine that was not started by UEFI has none; nor has every firmware room for them.
    let _ = attach("efivarfs", "/sys/firmware/efi/efivars", "efivarfs", safe(), "");
    let _ = attach("pstore", "/sys/fs/pstore", "pstore", safe(), "");
    Ok(())
}

fn attach(source: &str, target: &str, kind: &str, flags: MsFlags, data: &str) -> Outcome {
    // Below /sys the kernel makes the folder, or has none.
    if !Path::new(target).exists() && !target.starts_with("/sys") {
        fs::create_dir_all(target).map_err(|e| format!("{target}: {e}"))?;
    }
    match mount(Some(source), target, Some(kind), flags, Some(data)) {
        Ok(()) | Err(nix::Error::EBUSY) => Ok(()),
        Err(error) => Err(format!("cannot mount {kind} at {target}: {error}")),
    }
}

/// The config seed, to be read only.
///
/// # Errors
/// Not there, or not FAT.
pub(crate) fn seed(device: &Path, target: &str) -> Outcome {
    fat(device, target, safe() | MsFlags::MS_RDONLY)
}

/// The ESP. Only for as long as something on it is changed.
///
/// # Errors
/// Not there, or not FAT.
pub(crate) fn esp(device: &Path, target: &str) -> Outcome {
    fat(device, target, safe())
}

fn fat(device: &Path, target: &str, flags: MsFlags) -> Outcome {
    fs::create_dir_all(target).map_err(|e| format!("{target}: {e}"))?;
    mount(Some(device), target, Some("vfat"), flags, Some("umask=0077,utf8"))
        .map_err(|error| format!("cannot mount {} (FAT): {error}", device.display()))
}

/// The state partition.
///
/// # Errors
/// Not there, or not XFS.
pub(crate) fn state(device: &Path, target: &str) -> Outcome {
    xfs(device, target)
}

/// A spool in a file system.
///
/// # Errors
/// Not there, or not XFS.
pub(crate) fn spool(device: &Path, target: &str) -> Outcome {
    xfs(device, target)
}

/// Whether something is mounted there.
pub(crate) fn is_mounted(target: &str) -> bool {
    let all = fs::read_to_string("/proc/mounts").unwrap_or_default();
    all.lines().any(|line| line.split(' ').nth(1) == Some(target))
}

fn xfs(device: &Path, target: &str) -> Outcome {
    fs::create_dir_all(target).map_err(|e| format!("{target}: {e}"))?;
    mount(Some(device), target, Some("xfs"), safe() | MsFlags::MS_LAZYTIME, None::<&str>)
        .map_err(|error| format!("cannot mount {} (XFS): {error}", device.display()))
}

/// Takes a file system away.
///
/// # Errors
/// Something still uses it.
pub(crate) fn detach(target: &str) -> Outcome {
    umount2(target, MntFlags::UMOUNT_NOFOLLOW).map_err(|e| format!("cannot unmount {target}: {e}"))
}

/// The last thing init writes below `/`: from now on programs and settings cannot be changed.
///
/// # Errors
/// Something is open for writing.
pub(crate) fn freeze_root() -> Outcome {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .map_err(|error| format!("cannot make / read-only: {error}"))
}
