//! What the process asks of the machine before its cores start: processors, limits, inherited
//! sockets, kernel settings.
//!
//! *Failure*: each helper returns its error; none of them is needed to run, the caller decides.

use crate::clock;
use crate::socket::{self, check};
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::{env, fs, io, mem, process};

/// First inherited descriptor (`sd_listen_fds(3)`).
const LISTEN_FDS_START: RawFd = 3;

const CAP_IPC_LOCK: u32 = 14;

/// Left for a ring and its receive buffers' ring, which newer kernels count as locked memory.
const RING_LOCKED_BYTES: u64 = 1 << 20;

/// Processors this process may run on, ascending.
///
/// # Errors
/// The kernel's answer to `sched_getaffinity`.
pub fn cpus() -> io::Result<Vec<usize>> {
    // SAFETY: a set of bits, for which all zero is a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes at most the size given into a local.
    check(unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) })?;
    let bits = usize::try_from(libc::CPU_SETSIZE).expect("1024");
    // SAFETY: reads a bit below CPU_SETSIZE of an initialised set.
    Ok((0..bits).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

/// Pins the calling thread to one processor.
///
/// # Errors
/// `EINVAL` if there is no such processor or this process may not run on it.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    if cpu >= usize::try_from(libc::CPU_SETSIZE).expect("1024") {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: a set of bits, for which all zero is a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `cpu` is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the kernel reads the size given of a local. 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) }).map(drop)
}

/// Raises the soft limit on open files to the hard one and returns it.
///
/// # Errors
/// The kernel's answer to `getrlimit` or `setrlimit`.
pub fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit into a local.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one rlimit from a local.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

/// Bytes this process may lock (soft `RLIMIT_MEMLOCK`); `u64::MAX` means no limit.
///
/// # Errors
/// The kernel's answer to `getrlimit`.
pub fn locked_memory_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit into a local.
    check(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) })?;
    Ok(limit.rlim_cur)
}

/// What each of `cores` cores may register, so that none takes what another's ring needs:
/// `u64::MAX` without a limit, or with the capability that lifts it (`CAP_IPC_LOCK`).
#[must_use]
pub fn locked_memory_share(cores: u64) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match locked_memory_limit() {
        Ok(u64::MAX) | Err(_) => u64::MAX,
        Ok(_) if holds_ipc_lock(&status) => u64::MAX,
        Ok(limit) => (limit / cores.max(1)).saturating_sub(RING_LOCKED_BYTES),
    }
}

/// Reads the effective capabilities out of `/proc/self/status`.
fn holds_ipc_lock(status: &str) -> bool {
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = held.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    held & (1 << CAP_IPC_LOCK) != 0
}

/// Takes the sockets a service manager or a predecessor passed on (`LISTEN_FDS`, `LISTEN_PID`),
/// with close-on-exec set. Call once, before any other descriptor is opened by this process's own
/// code; a second call returns none.
#[must_use]
pub fn inherited_sockets() -> Vec<OwnedFd> {
    use std::sync::atomic::{AtomicBool, Ordering};
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Vec::new();
    }
    let count = inherited_count(
        env::var("LISTEN_PID").ok().as_deref(),
        env::var("LISTEN_FDS").ok().as_deref(),
        process::id(),
    );
    let inherited = (LISTEN_FDS_START..LISTEN_FDS_START + count).filter(|fd| {
        // SAFETY: no memory is passed; a number that is no descriptor gives EBADF and is left out.
        check(unsafe { libc::fcntl(*fd, libc::F_SETFD, libc::FD_CLOEXEC) }).is_ok()
    });
    // SAFETY: the environment says that these descriptors were passed to this very process for
    // its use, TAKEN makes sure that they are taken once, and the check above that they are open.
    inherited.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

/// How many descriptors are meant for the process `own`.
fn inherited_count(pid: Option<&str>, fds: Option<&str>, own: u32) -> RawFd {
    let meant = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let count = fds.and_then(|fds| fds.parse::<RawFd>().ok()).unwrap_or(0);
    if meant { count.clamp(0, 1024) } else { 0 }
}

/// Opens a TCP socket that listens and shares its port with others (`SO_REUSEPORT`), like those a
/// core opens for itself: for a parent that passes them on.
///
/// # Errors
/// What `socket`, `bind` or `listen` says.
pub fn listen(address: SocketAddr, backlog: u32) -> io::Result<OwnedFd> {
    socket::listen(address, i32::try_from(backlog).unwrap_or(i32::MAX))
}

/// The address a socket is bound to.
///
/// # Errors
/// What `getsockname` says.
pub fn local_address(fd: &OwnedFd) -> io::Result<SocketAddr> {
    socket::local(fd)
}

/// The address of the other end of a connection.
///
/// # Errors
/// What `getpeername` says.
pub fn peer_address(fd: &OwnedFd) -> io::Result<SocketAddr> {
    socket::peer(fd)
}

/// Starts a program that finds these sockets where [`inherited_sockets`] looks: from descriptor 3
/// on, with `LISTEN_FDS` set. The caller keeps its own descriptors of them.
///
/// # Errors
/// What `fcntl`, `fork` or `exec` says.
pub fn spawn_with_sockets(
    command: &mut process::Command,
    sockets: &[OwnedFd],
) -> io::Result<process::Child> {
    let count = RawFd::try_from(sockets.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let end = LISTEN_FDS_START + count;
    let above = |fd: &OwnedFd, least: RawFd| {
        // SAFETY: no memory is passed; the new descriptor belongs to nobody else.
        let fd = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) })?;
        // SAFETY: made just now.
        io::Result::Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    let copies: Vec<OwnedFd> =
        sockets.iter().map(|socket| above(socket, end)).collect::<io::Result<_>>()?;
    // The places are taken until the child is made, so that the pipe through which it reports a
    // failed exec cannot lie there and be overwritten.
    let nothing = OwnedFd::from(File::open("/dev/null")?);
    let mut places = Vec::with_capacity(sockets.len());
    loop {
        let place = above(&nothing, LISTEN_FDS_START)?;
        if place.as_raw_fd() >= end {
            break;
        }
        places.push(place);
    }
    let moves: Vec<(RawFd, RawFd)> =
        copies.iter().map(AsRawFd::as_raw_fd).zip(LISTEN_FDS_START..end).collect();
    command.env("LISTEN_FDS", count.to_string()).env_remove("LISTEN_PID");
    // SAFETY: the closure runs in the child between fork and exec and only calls dup2, which is
    // async-signal-safe; the vector was made before. `copies` lives in the parent until the child
    // is made, so its numbers are open in the child, and they lie above all targets.
    unsafe {
        command.pre_exec(move || {
            for (from, to) in &moves {
                check(libc::dup2(*from, *to))?;
            }
            Ok(())
        });
    }
    let child = command.spawn();
    drop((copies, places));
    child
}

/// Whether the kernel's clock is kept by NTP, and is the one this process sees.
#[must_use]
pub fn is_clock_synchronised() -> bool {
    const APART_S_MAX: u64 = 10;
    // SAFETY: all its fields are integers, for which all bits zero is a value.
    let mut found: libc::timex = unsafe { mem::zeroed() };
    // SAFETY: nothing is set (`modes` is 0); the kernel writes one timex into a local.
    let code = unsafe { libc::adjtimex(&raw mut found) };
    let kept = code >= 0 && code != libc::TIME_ERROR && found.status & libc::STA_UNSYNC == 0;
    let kernel_s = u64::try_from(found.time.tv_sec).unwrap_or(0);
    kept && kernel_s.abs_diff(clock::wall_us() / 1_000_000) <= APART_S_MAX
}

/// True if the descriptor is a TCP socket that listens.
#[must_use]
pub fn is_listening(fd: &OwnedFd) -> bool {
    socket::get(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN).is_ok_and(|value| value == 1)
}

/// Tries to let connections waiting on a closed listener move to another one on the same port
/// (`net.ipv4.tcp_migrate_req`). Returns true if it is set now. It belongs to the network
/// namespace, and needs the right to write it.
#[must_use]
pub fn try_migrate_requests() -> bool {
    let path = "/proc/sys/net/ipv4/tcp_migrate_req";
    let is_set = || fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
    is_set() || (fs::write(path, "1").is_ok() && is_set())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_for_us_is_taken() {
        assert_eq!(inherited_count(Some("17"), Some("2"), 17), 2);
        assert_eq!(inherited_count(Some("18"), Some("2"), 17), 0);
        assert_eq!(inherited_count(None, Some("1"), 17), 1);
        assert_eq!(inherited_count(Some("x"), Some("1"), 17), 0);
        assert_eq!(inherited_count(Some("17"), Some("-4"), 17), 0);
        assert_eq!(inherited_count(Some("17"), None, 17), 0);
    }

    #[test]
    fn a_program_finds_its_sockets_from_descriptor_three_on() {
        let any = "127.0.0.1:0".parse().unwrap();
        let sockets: Vec<OwnedFd> = (0..3).map(|_| listen(any, 1).unwrap()).collect();
        let script = "test $LISTEN_FDS = 3 && test -z \"$LISTEN_PID\" || exit 9; \
                      for n in 3 4 5; do readlink /proc/self/fd/$n; done; ls /proc/self/fd/6";
        let mut command = process::Command::new("/bin/sh");
        command.args(["-c", script]).env("LISTEN_PID", "1").stdin(process::Stdio::null());
        command.stdout(process::Stdio::piped()).stderr(process::Stdio::null());
        let output = spawn_with_sockets(&mut command, &sockets).unwrap().wait_with_output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let expected: Vec<String> = sockets
            .iter()
            .map(|fd| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap())
            .map(|link| link.display().to_string())
            .collect();
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        let missing = spawn_with_sockets(&mut process::Command::new("/nowhere/x"), &sockets);
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_capability_is_read_from_the_effective_set() {
        assert!(holds_ipc_lock("CapPrm:\t0\nCapEff:\t000001ffffffffff\n"));
        assert!(holds_ipc_lock("CapEff:\t0000000000004000"));
        assert!(!holds_ipc_lock("CapPrm:\t0000000000004000\nCapEff:\t0000000000000400\n"));
        assert!(!holds_ipc_lock(""));
    }

    #[test]
    fn the_soft_file_limit_becomes_the_hard_one() {
        let limit = raise_file_limit().unwrap();
        assert_eq!(raise_file_limit().unwrap(), limit);
        assert!(limit >= 256);
    }

    #[test]
    fn a_thread_can_be_pinned() {
        let allowed = cpus().unwrap();
        std::thread::spawn(move || {
            pin_to_cpu(allowed[0]).unwrap();
            assert_eq!(cpus().unwrap(), [allowed[0]]);
            assert!(pin_to_cpu(5000).is_err());
        })
        .join()
        .unwrap();
    }
}
