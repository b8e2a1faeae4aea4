//! The two clocks, read through the vDSO: no system call.

/// Monotonic time in microseconds. One origin (boot) for every thread of every process.
#[must_use]
pub fn now_us() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Wall time in microseconds since the Unix epoch; 0 if the clock stands before it.
#[must_use]
pub fn wall_us() -> u64 {
    read(libc::CLOCK_REALTIME)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec into a local that outlives the call.
    let code = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(code, 0, "CLOCK_MONOTONIC and CLOCK_REALTIME exist on every Linux");
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(nanos / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_in_microseconds_and_monotonic() {
        let first = now_us();
        assert!(now_us() >= first);
        // 2020-01-01 in microseconds: a wall clock in other units would be far off.
        assert!(wall_us() > 1_577_836_800_000_000 || wall_us() < 1_000_000_000_000);
    }
}
