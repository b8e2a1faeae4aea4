//! The arithmetic of rates: GCRA (ITU-T I.371) in one number, the theoretical arrival time.
//!
//! *Guarantees*: `count` at once, then one each `period / count`; no more than twice `count` in any
//! period. Time is modular, so neither 1970 nor 2099 is special; what lies further ahead than any
//! period is the past (a stepped clock, a flipped bit).
//!
//! *Limits*: a tick is 16 us, so the interval is rounded to it: 0.8 % off at 1,000 per second.

use crate::limits::{RATE_SLACK_US, RATE_TICK_US, RATE_TIME_BITS, RATE_WINDOW_US_MAX};

/// So many per period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    count: u32,
    interval: u64,
}

/// What a rate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Within the limit (and counted).
    pub allowed: bool,
    /// How many more would be allowed at this moment.
    pub remaining: u32,
    /// When refused: after this time it would be allowed; `u64::MAX` if never.
    pub retry_after_us: u64,
}

impl Limit {
    /// `count` per `period_us`; bounded to 1 or more, and to eight days.
    #[must_use]
    pub fn new(count: u32, period_us: u64) -> Self {
        let count = count.max(1);
        let ticks = period_us.min(RATE_WINDOW_US_MAX) / RATE_TICK_US;
        let each = u64::from(count);
        Self { count, interval: ((ticks + each / 2) / each).clamp(1, TICKS_MAX / each) }
    }

    /// How many at once.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    const fn window(&self) -> u64 {
        self.interval * self.count as u64
    }

    fn left(&self, ahead: u64) -> u32 {
        let left = self.window().saturating_sub(ahead) / self.interval;
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// From how far ahead the arrival time is (ticks) to the verdict and how far it is then.
    pub(crate) fn step(&self, ahead: u64, cost: u32) -> (Verdict, u64) {
        // Further than two periods is no value of this limit: another clock wrote it.
        let slack = RATE_SLACK_US / RATE_TICK_US;
        let ahead = if ahead > self.window() * 2 + slack { 0 } else { ahead };
        if cost > self.count {
            let remaining = self.left(ahead);
            return (Verdict { allowed: false, remaining, retry_after_us: u64::MAX }, ahead);
        }
        let then = ahead + self.interval * u64::from(cost);
        let allowed = then <= self.window();
        let remaining = self.left(if allowed { then } else { ahead });
        let retry_after_us = then.saturating_sub(self.window()) * RATE_TICK_US;
        (Verdict { allowed, remaining, retry_after_us }, then)
    }
}

const TICKS_MAX: u64 = RATE_WINDOW_US_MAX / RATE_TICK_US;
const MODULUS: u64 = 1 << RATE_TIME_BITS;
const AHEAD_MAX: u64 = 2 * TICKS_MAX + RATE_SLACK_US / RATE_TICK_US;

/// Wall time in ticks, modulo the width of a word's time.
pub(crate) const fn ticks(wall_us: u64) -> u64 {
    (wall_us / RATE_TICK_US) % MODULUS
}

/// How far a stored time is ahead of now; 0 if it is past or beyond belief.
pub(crate) const fn ahead(stored: u64, now: u64) -> u64 {
    let ahead = stored.wrapping_sub(now) % MODULUS;
    if ahead > AHEAD_MAX { 0 } else { ahead }
}

/// The time to store for so far ahead of now.
pub(crate) const fn stored(now: u64, ahead: u64) -> u64 {
    now.wrapping_add(ahead) % MODULUS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_each_interval() {
        let limit = Limit::new(10, 10_000_000);
        let mut ahead = 0;
        for n in (0..10).rev() {
            let (verdict, then) = limit.step(ahead, 1);
            assert!(verdict.allowed);
            assert_eq!(verdict.remaining, n);
            ahead = then;
        }
        let (verdict, _) = limit.step(ahead, 1);
        assert_eq!(verdict, Verdict { allowed: false, remaining: 0, retry_after_us: 1_000_000 });
        assert_eq!(limit.step(0, 11).0.retry_after_us, u64::MAX);
        assert!(limit.step(0, 10).0.allowed);
    }

    #[test]
    fn time_is_modular_and_what_is_beyond_belief_is_past() {
        let year_2099_us = 4_070_908_800_000_000;
        for wall_us in [0, 1, RATE_TICK_US << RATE_TIME_BITS, year_2099_us, u64::MAX] {
            let now = ticks(wall_us);
            assert_eq!(ahead(stored(now, 1_000), now), 1_000);
            assert_eq!(ahead(stored(now, AHEAD_MAX + 1), now), 0);
            assert_eq!(ahead(now, stored(now, 5)), 0);
        }
    }

    #[test]
    fn extreme_limits_stay_in_range() {
        for count in [0, 1, 1_000, u32::MAX] {
            for period_us in [0, 1, 1_000_000, u64::MAX] {
                let limit = Limit::new(count, period_us);
                let (verdict, then) = limit.step(AHEAD_MAX, u32::MAX);
                assert!(then <= AHEAD_MAX);
                assert_eq!(verdict.allowed, count == u32::MAX);
                assert!(limit.step(0, 1).0.allowed);
            }
        }
    }
}
