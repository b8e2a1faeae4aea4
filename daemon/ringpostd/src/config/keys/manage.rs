//! Keys of the node itself and of its management: node, admin socket, metrics, clock.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::names::HostName;
use crate::config::section::Default::{Optional, Required};
use crate::config::section::{default, section};
use crate::config::value::{Cores, FREE, choice, within};
use crate::limits;

choice! {
    /// What the mail process gives up when it has its config.
    Sandbox {
        /// files and system calls that a mail exchanger does not need, as far as the kernel can
        Auto = "auto",
        /// the same, and with a kernel that cannot it does not start
        Must = "must",
        /// nothing
        Off = "off",
    }
}

section! {
    /// The node: its name, its number, and how much of the machine it uses.
    "node" One Restart pub struct NodeConfig {
        /// Name of this node in its greeting, in EHLO and in Received lines.
        hostname: HostName = Required, FREE;
        /// Number of this node in message ids; each node of a site has its own.
        id: u16 = default("1"), within(0, u16::MAX as u64, "");
        /// Threads that receive and relay mail, one for each core.
        cores: Cores = default("\"auto\""), within(1, limits::CORES_MAX, "cores");
        /// Sessions open at once on all listeners; further clients hear 421.
        sessions_max: u32 = default("20000"), within(1, limits::SESSIONS_MAX, "sessions");
        /// What the mail process gives up, landlock and seccomp: files outside of the folders that
        /// the config names, programs, everything else it does not need.
        sandbox: Sandbox = default("\"auto\""), FREE;
    }
}

section! {
    /// The socket the admin tool speaks to.
    "admin" One Restart pub struct AdminConfig {
        /// Path of the socket; without it there is none.
        socket: Option<PathBuf> = Optional, FREE;
        /// User ids that may speak to it, besides root and the daemon's own.
        uids: Vec<u32> = default("[]"), within(0, u32::MAX as u64, "");
        /// Folder of standing orders, audit log and config history; without it, `admin` below
        /// the log's.
        state: Option<PathBuf> = Optional, FREE;
    }
}

section! {
    /// The Prometheus page.
    "metrics" One Restart pub struct MetricsConfig {
        /// Address and port that answer `GET /metrics`, and `GET /health` for a switch (200, or 503
        /// while no new client is wanted); without it there are no pages.
        listen: Option<SocketAddr> = Optional, FREE;
    }
}

section! {
    /// Trust in the machine's clock.
    "clock" One Reload pub struct ClockConfig {
        /// Whether you vouch for the clock, so that mail may expire although time jumped.
        confirmed: bool = default("false"), FREE;
    }
}
