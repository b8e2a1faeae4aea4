//! What is measured: time since the kernel's start, memory in use.

use std::fs;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Since the kernel's start.
pub(crate) fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Memory in use, as the kernel counts it.
pub(crate) fn memory() -> String {
    let said = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match (kib(&said, "MemTotal"), kib(&said, "MemAvailable")) {
        (Some(total), Some(free)) => {
            format!("{} MiB of {} MiB in use", total.saturating_sub(free) >> 10, total >> 10)
        }
        _ => "memory unknown".to_owned(),
    }
}

/// Octets of memory.
pub(crate) fn memory_total() -> u64 {
    let said = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    kib(&said, "MemTotal").unwrap_or_default() << 10
}

fn kib(said: &str, name: &str) -> Option<u64> {
    let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read() {
        let said = "MemTotal:         500000 kB\nMemAvailable:     400000 kB\n";
        assert_eq!(kib(said, "MemTotal"), Some(500_000));
        assert_eq!(kib(said, "Mem"), None);
        assert_eq!(kib(said, "SwapTotal"), None);
    }
}
