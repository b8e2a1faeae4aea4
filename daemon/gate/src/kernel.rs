//! Facts about the running kernel and its interfaces, read from files.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::time::{ClockId, clock_getres, clock_gettime};

use crate::problem::{Problem, call};
use crate::sys;

/// The interface whose routes lead back to clients on a segment: of a bridge or a bond, of a VLAN.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Way {
    /// The interface the filter is attached to.
    pub interface: String,
    /// The segment's tag; `None` for untagged frames.
    pub vlan: Option<u16>,
    /// The interface that has the address.
    pub out: String,
}

/// The kernel's timer, as the filter reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Timer interrupts a second.
    pub hz: u64,
    /// Jiffies when the monotonic clock was zero.
    pub jiffies_start: u64,
}

impl Facts {
    /// Asks the kernel.
    ///
    /// # Errors
    /// If the coarse clock has no plausible resolution.
    pub fn read() -> Result<Self, Problem> {
        let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
            .map_err(|e| call("clock_getres")(e.into()))?;
        let tick_ns = u64::try_from(tick.tv_nsec()).unwrap_or(0);
        if tick.tv_sec() != 0 || tick_ns == 0 {
            return Err(Problem::Setting("resolution of the coarse clock"));
        }
        let hz = (1_000_000_000 + tick_ns / 2) / tick_ns;
        // INITIAL_JIFFIES: five minutes before a counter of 32 bits would wrap.
        Ok(Self { hz, jiffies_start: (1 << 32) - 300 * hz })
    }
}

/// Seconds of the monotonic clock: what expiries of entries are measured in.
#[must_use]
pub fn monotonic_s() -> u32 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the clock exists");
    u32::try_from(now.tv_sec()).unwrap_or(u32::MAX)
}

const CAP_NET_BIND_SERVICE: u32 = 10;
const CAP_NET_ADMIN: u32 = 12;
const CAP_BPF: u32 = 39;

/// Gives up all capabilities of the calling thread but `CAP_BPF` and `CAP_NET_ADMIN`. To be
/// called by the gate's only thread when the filter is loaded: loading also takes `CAP_PERFMON`,
/// without which the kernel allows no read at a place in the packet that depends on the packet.
///
/// # Errors
/// One of the two was not there to be kept.
pub fn confine() -> Result<(), Problem> {
    sys::keep_capabilities(&[CAP_NET_ADMIN, CAP_BPF]).map_err(call("capset"))
}

/// What the mail process keeps beside a gate: the calling thread, and those it makes, may bind low
/// ports and nothing else. Asks for no more than the process has.
///
/// # Errors
/// Of the system call.
pub fn keep_low_ports() -> Result<(), Problem> {
    let result = sys::keep_capabilities(&[CAP_NET_BIND_SERVICE]);
    let result = result.or_else(|_| sys::keep_capabilities(&[]));
    result.map_err(call("capset"))
}

/// The interface's number in this namespace.
pub(crate) fn index(name: &str) -> Result<u32, Problem> {
    if_nametoindex(name).map_err(|e| Problem::Attach(name.to_owned(), e.to_string()))
}

/// The switches that let the filter look routes up as a local socket would: the kernel answers such
/// a question only for an interface that forwards. Nothing arrives on the loopback interface from
/// outside. Opened while files can be opened: the gate's sandbox has no others to write.
#[derive(Debug)]
pub(crate) struct Forwarding(Vec<File>);

impl Forwarding {
    /// Opens those that this kernel has and this user may write.
    pub(crate) fn open() -> Self {
        let path = |family| format!("/proc/sys/net/{family}/conf/lo/forwarding");
        let open = |path| File::options().read(true).write(true).open(path).ok();
        Self(["ipv4", "ipv6"].map(path).into_iter().filter_map(open).collect())
    }

    /// Turns them on where they are not.
    pub(crate) fn allow(&self) -> Result<(), Problem> {
        let failed = || call("forwarding on the loopback interface");
        if self.0.is_empty() {
            return Err(failed()(ErrorKind::PermissionDenied.into()));
        }
        for file in &self.0 {
            let mut now = [0; 1];
            if file.read_at(&mut now, 0).is_ok() && now == *b"1" {
                continue;
            }
            file.write_all_at(b"1", 0).map_err(failed())?;
        }
        Ok(())
    }
}

/// Whether answers can be given on tagged segments of this interface, after telling it to leave
/// the tags where they are.
pub(crate) fn sees_tags(name: &str) -> bool {
    // The ioctl works on a socket of any family; this one reaches no network.
    let Ok(any) = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
    else {
        return false;
    };
    match sys::strips_tags(any.as_fd(), name) {
        Ok(false) => true,
        Ok(true) => {
            sys::keep_tags(any.as_fd(), name).is_ok()
                && sys::strips_tags(any.as_fd(), name).is_ok_and(|strips| !strips)
        }
        Err(_) => false,
    }
}

/// The ways back that the kernel's files show for an interface: the bridge or bond above it, and
/// the VLAN interfaces on it.
pub(crate) fn ways(name: &str) -> Vec<Way> {
    let mut ways = Vec::new();
    let mut on = vec![name.to_owned()];
    if let Ok(master) = fs::read_link(format!("/sys/class/net/{name}/master"))
        && let Some(master) = master.file_name().and_then(|m| m.to_str())
    {
        ways.push(Way { interface: name.to_owned(), vlan: None, out: master.to_owned() });
        on.push(master.to_owned());
    }
    for line in fs::read_to_string("/proc/net/vlan/config").unwrap_or_default().lines().skip(2) {
        let mut columns = line.split('|').map(str::trim);
        let (Some(out), Some(vlan), Some(parent)) =
            (columns.next(), columns.next(), columns.next())
        else {
            continue;
        };
        if let Ok(vlan) = vlan.parse()
            && on.iter().any(|o| o == parent)
        {
            let (interface, out) = (name.to_owned(), out.to_owned());
            ways.push(Way { interface, vlan: Some(vlan), out });
        }
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_is_plausible() {
        let facts = Facts::read().expect("every kernel has a coarse clock");
        assert!([100, 250, 300, 1000].contains(&facts.hz), "{facts:?}");
        assert_eq!(facts.jiffies_start + 300 * facts.hz, 1 << 32);
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let problem = index("nosuch0").expect_err("there is none");
        assert!(problem.to_string().contains("nosuch0"), "{problem}");
        assert!(ways("nosuch0").is_empty());
        assert!(!sees_tags("nosuch0"));
    }
}
