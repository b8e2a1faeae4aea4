//! Kernel settings at start: one table, one line each with its reason.
//!
//! *Failure*: a setting that this kernel does not have, or does not take, is named; init goes on.

use std::fs;

use crate::limits::DAEMON_ID;
use crate::say::warn;

/// Name and value.
const TABLE: &[(&str, &str)] = &[
    // Kernel addresses are nobody's business.
    ("kernel/kptr_restrict", "2"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/perf_event_paranoid", "3"),
    // Nobody traces anybody.
    ("kernel/yama/ptrace_scope", "3"),
    // Only the filter's loader, which is root, loads programs.
    ("kernel/unprivileged_bpf_disabled", "2"),
    // io_uring for the daemon's group only; 1 means: for those of the group and for root.
    ("kernel/io_uring_disabled", "1"),
    // A core file would hold mail.
    ("fs/suid_dumpable", "0"),
    ("kernel/core_pattern", "|/nothing"),
    // Links and pipes in shared folders.
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    ("fs/protected_fifos", "2"),
    ("fs/protected_regular", "2"),
    // Descriptors for every session.
    ("fs/nr_open", "1048576"),
    // An error of the memory's bookkeeping, a full memory: restart rather than guess.
    ("kernel/panic", "10"),
    ("vm/panic_on_oom", "0"),
    ("vm/overcommit_memory", "0"),
    // Port 25 without a capability: everything on this machine that is not root is the daemon.
    ("net/ipv4/ip_unprivileged_port_start", "25"),
    // Listening sockets hand over what waits in them.
    ("net/ipv4/tcp_migrate_req", "1"),
    // Floods, and many short sessions.
    ("net/ipv4/tcp_syncookies", "1"),
    ("net/ipv4/tcp_max_syn_backlog", "16384"),
    ("net/core/somaxconn", "16384"),
    ("net/core/netdev_max_backlog", "16384"),
    ("net/ipv4/ip_local_port_range", "10240 65535"),
    ("net/ipv4/tcp_tw_reuse", "1"),
    ("net/ipv4/tcp_keepalive_time", "600"),
    ("net/ipv4/tcp_slow_start_after_idle", "0"),
    // A host, no router; no word from others about ways.
    ("net/ipv4/conf/all/rp_filter", "1"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_source_route", "0"),
    ("net/ipv4/icmp_echo_ignore_broadcasts", "1"),
    ("net/ipv6/conf/all/accept_redirects", "0"),
    // Addresses are the operator's: a stranger's router advertisement sets none.
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    // An address is used at once.
    ("net/ipv6/conf/default/accept_dad", "0"),
    // Mail that is being written does not wait behind a large flush of logs.
    ("vm/dirty_background_bytes", "16777216"),
    ("vm/dirty_bytes", "67108864"),
];

/// Applies the table.
pub(crate) fn apply() {
    for (name, value) in TABLE {
        set(name, value);
    }
    set("kernel/io_uring_group", &DAEMON_ID.to_string());
}

fn set(name: &str, value: &str) {
    if let Err(error) = fs::write(format!("/proc/sys/{name}"), value) {
        warn(&format_args!("kernel setting {name} = {value}: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_stands_once() {
        let mut names: Vec<&str> = TABLE.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
