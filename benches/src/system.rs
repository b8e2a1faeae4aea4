//! What mxbench asks of the system: listeners, signals, limits, CPUs.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};
use nix::unistd::Pid;

use crate::limits::LISTEN_BACKLOG;

/// A listening socket whose connections have Nagle's algorithm off.
pub fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::new(LISTEN_BACKLOG)?)?;
    Ok(TcpListener::from(socket))
}

/// Prints a line. A reader that has gone is no error: there is nobody left to tell.
pub fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// A descriptor that becomes readable at SIGINT or SIGTERM, which no longer end the process.
pub fn stop_signals() -> io::Result<OwnedFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let fd = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    fd.as_fd().try_clone_to_owned()
}

/// Starts a program that hears SIGINT and SIGTERM, whatever this thread has blocked: a mask is
/// inherited, and few programs look at theirs.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    let before = SigSet::thread_get_mask()?;
    signals.thread_unblock()?;
    let child = command.spawn();
    before.thread_set_mask()?;
    child
}

/// Raises the soft limit of open files to the hard one and says what it is.
pub fn raise_file_limit() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Tasks that wanted a processor over the last minute; 0 where nobody says.
pub fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// Keeps this thread, and what it starts, on one CPU.
pub fn pin(cpu: usize) -> io::Result<()> {
    set_cpus(&set_of(&[cpu])?)
}

/// These CPUs as a set.
pub fn set_of(cpus: &[usize]) -> io::Result<CpuSet> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu)?;
    }
    Ok(set)
}

/// The CPUs this thread may use.
pub fn cpus() -> io::Result<CpuSet> {
    Ok(sched_getaffinity(Pid::from_raw(0))?)
}

/// Lets this thread use these CPUs.
pub fn set_cpus(cpus: &CpuSet) -> io::Result<()> {
    Ok(sched_setaffinity(Pid::from_raw(0), cpus)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_hears_what_its_parent_blocks() {
        std::thread::spawn(|| {
            let _stop = stop_signals().unwrap();
            let mut child = spawn(Command::new("sleep").arg("1000")).unwrap();
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
            nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
            assert!(!child.wait().unwrap().success());
            let blocked = SigSet::thread_get_mask().unwrap();
            assert!(blocked.contains(Signal::SIGTERM), "ours is as it was");
        })
        .join()
        .unwrap();
    }
}
