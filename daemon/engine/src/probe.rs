//! What this kernel can do, asked once at start.
//!
//! *Failure*: below Linux 6.1, or where io_uring is switched off, [`StartError`] names the
//! setting to change; nothing falls back to another interface.

use crate::limits::{KERNEL_MIN, KERNEL_MULTISHOT_BOUNDED};
use io_uring::{IoUring, opcode};
use std::{fmt, fs, io};

/// Why a core cannot start. Its text says what the operator can do.
#[derive(Debug)]
pub enum StartError {
    /// The kernel is older than [`KERNEL_MIN`]. Holds its release text.
    KernelTooOld(String),
    /// `kernel.io_uring_disabled` is 1 or 2. Holds the value.
    SwitchedOff(u8),
    /// The kernel was built without io_uring, or a filter hides it (`ENOSYS`).
    Missing,
    /// A seccomp filter or security module refuses io_uring (`EPERM`, `EACCES`).
    Forbidden,
    /// An operation the engine needs is not there. Holds its name.
    Lacks(&'static str),
    /// A value in the configuration is outside its bounds.
    Config(&'static str),
    /// A call failed. Holds what was tried.
    Io(&'static str, io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = KERNEL_MIN;
        match self {
            Self::KernelTooOld(found) => {
                write!(f, "Linux {found} is too old: boot Linux {major}.{minor} or newer")
            }
            Self::SwitchedOff(1) => f.write_str(
                "io_uring is kept for a group: set sysctl kernel.io_uring_disabled=0, or put this \
                 process into the group that sysctl kernel.io_uring_group names",
            ),
            Self::SwitchedOff(_) => {
                f.write_str("io_uring is switched off: set sysctl kernel.io_uring_disabled=0")
            }
            Self::Missing => f.write_str(
                "io_uring is not there: use a kernel with CONFIG_IO_URING=y, or, in a container, \
                 a seccomp profile that allows io_uring_setup, io_uring_enter and \
                 io_uring_register",
            ),
            Self::Forbidden => f.write_str(
                "io_uring is forbidden: allow io_uring_setup, io_uring_enter and \
                 io_uring_register in the seccomp profile (systemd: SystemCallFilter=@io_uring) \
                 or security module of this process",
            ),
            Self::Lacks(what) => {
                write!(f, "io_uring lacks {what}: boot an unpatched Linux {major}.{minor} or newer")
            }
            Self::Config(what) => write!(f, "engine configuration: {what}"),
            Self::Io(what, error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                write!(f, "{what}: {error}: raise RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=)")
            }
            Self::Io(what, error) if error.raw_os_error() == Some(libc::EMFILE) => {
                write!(f, "{what}: {error}: raise RLIMIT_NOFILE (systemd: LimitNOFILE=)")
            }
            Self::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            _ => None,
        }
    }
}

/// What the engine found and will use. `Display` gives one line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Kernel release as the kernel spells it.
    pub release: String,
    /// Major and minor version.
    pub version: (u32, u32),
    /// Receives stay armed over many buffers. Only where the kernel bounds the rounds of one
    /// receive ([`KERNEL_MULTISHOT_BOUNDED`]); below, each buffer takes a fresh receive.
    pub receive_multishot: bool,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let receive = if self.receive_multishot { "multishot" } else { "single-shot" };
        write!(
            f,
            "Linux {}; io_uring: single issuer, deferred task run, multishot accept, {receive} \
             receive, buffer rings, registered ring",
            self.release
        )
    }
}

/// Operations the engine submits; all of them are in Linux 6.1.
pub(crate) const OPERATIONS: [(u8, &str); 14] = [
    (opcode::AcceptMulti::CODE, "ACCEPT"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
    (opcode::Close::CODE, "CLOSE"),
    (opcode::Connect::CODE, "CONNECT"),
    (opcode::Fsync::CODE, "FSYNC"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::Read::CODE, "READ"),
    (opcode::ReadFixed::CODE, "READ_FIXED"),
    (opcode::RecvMulti::CODE, "RECV"),
    (opcode::Send::CODE, "SEND"),
    (opcode::Shutdown::CODE, "SHUTDOWN"),
    (opcode::Socket::CODE, "SOCKET"),
    (opcode::Write::CODE, "WRITE"),
    (opcode::WriteFixed::CODE, "WRITE_FIXED"),
];

impl Probe {
    /// Asks the kernel. Makes a small ring and drops it.
    ///
    /// # Errors
    /// [`StartError`]: the kernel is too old, io_uring is off, or an operation is missing.
    pub fn detect() -> Result<Self, StartError> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_err(|error| StartError::Io("reading the kernel release", error))?;
        let found = Self::from_release(release.trim())?;
        let ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_r_disabled()
            .build(8)
            .map_err(|error| explain(error, switched_off()))?;
        let mut operations = io_uring::register::Probe::new();
        ring.submitter()
            .register_probe(&mut operations)
            .map_err(|error| StartError::Io("asking for operations", error))?;
        if let Some((_, name)) = OPERATIONS.iter().find(|(code, _)| !operations.is_supported(*code))
        {
            return Err(StartError::Lacks(name));
        }
        let params = ring.params();
        for (there, name) in [
            (params.is_feature_nodrop(), "kept completions (IORING_FEAT_NODROP)"),
            (params.is_feature_ext_arg(), "wait time-outs (IORING_FEAT_EXT_ARG)"),
            (params.is_feature_submit_stable(), "IORING_FEAT_SUBMIT_STABLE"),
        ] {
            if !there {
                return Err(StartError::Lacks(name));
            }
        }
        Ok(found)
    }

    /// What the version alone says.
    fn from_release(release: &str) -> Result<Self, StartError> {
        let version = parse(release).ok_or_else(|| StartError::KernelTooOld(release.into()))?;
        if version < KERNEL_MIN {
            return Err(StartError::KernelTooOld(release.into()));
        }
        Ok(Self {
            release: release.into(),
            version,
            receive_multishot: version >= KERNEL_MULTISHOT_BOUNDED,
        })
    }
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn switched_off() -> u8 {
    let text = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Turns the error of `io_uring_setup` into what the operator has to know.
fn explain(error: io::Error, switched_off: u8) -> StartError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => StartError::Missing,
        Some(libc::EPERM | libc::EACCES) if switched_off > 0 => {
            StartError::SwitchedOff(switched_off)
        }
        Some(libc::EPERM | libc::EACCES) => StartError::Forbidden,
        Some(libc::EINVAL) => StartError::Lacks("SINGLE_ISSUER with DEFER_TASKRUN"),
        _ => StartError::Io("setting up io_uring", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_judged_by_number() {
        assert!(matches!(Probe::from_release("5.15.0-91"), Err(StartError::KernelTooOld(_))));
        assert!(matches!(Probe::from_release("6.0.19"), Err(StartError::KernelTooOld(_))));
        assert!(matches!(Probe::from_release("nonsense"), Err(StartError::KernelTooOld(_))));
        let floor = Probe::from_release("6.1.0-18-amd64").unwrap();
        assert!(!floor.receive_multishot, "6.1 does not bound a multishot receive");
        assert!(Probe::from_release("6.5.1").unwrap().receive_multishot);
        assert!(Probe::from_release("6.18.44-fc").unwrap().receive_multishot);
        assert!(Probe::from_release("10.0-rc1").unwrap().receive_multishot);
    }

    #[test]
    fn refusals_name_the_setting() {
        let os = io::Error::from_raw_os_error;
        let says = |error: StartError, what: &str| {
            let text = error.to_string();
            assert!(text.contains(what), "{text:?} names {what:?}");
        };
        says(explain(os(libc::EPERM), 2), "kernel.io_uring_disabled=0");
        says(explain(os(libc::EPERM), 1), "kernel.io_uring_group");
        says(explain(os(libc::EPERM), 0), "seccomp");
        says(explain(os(libc::ENOSYS), 0), "CONFIG_IO_URING");
        says(explain(os(libc::EINVAL), 0), "6.1");
        says(explain(os(libc::ENOMEM), 0), "RLIMIT_MEMLOCK");
        says(explain(os(libc::EMFILE), 0), "RLIMIT_NOFILE");
        says(StartError::KernelTooOld("5.10".into()), "6.1");
    }
}
