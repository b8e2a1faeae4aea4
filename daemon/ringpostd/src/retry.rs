//! When to try again, when to give up, and whether the clock may say so.
//!
//! *Guarantees*: delays grow and stay within their bounds; while the wall clock is in doubt
//! nothing expires before [`DOUBT_ATTEMPTS`] attempts were made since the doubt began.
//!
//! *Not here*: any clock; times are arguments, in µs.

/// Attempts after which a message may expire although the wall clock is in doubt.
pub const DOUBT_ATTEMPTS: u8 = 3;
/// A wall clock further ahead of the newest record, or of the monotonic clock, is in doubt.
pub const AHEAD_US_MAX: u64 = 24 * 3600 * SECOND;
/// A wall clock further behind is in doubt. NTP's slewing stays below.
pub const BEHIND_US_MAX: u64 = 60 * SECOND;

const SECOND: u64 = 1_000_000;

const _: () = assert!(DOUBT_ATTEMPTS >= 1 && BEHIND_US_MAX < AHEAD_US_MAX);

/// How the delay between two attempts grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// After the first attempt.
    pub first_us: u64,
    /// Each further delay in percent of the one before; below 100 counts as 100.
    pub factor_percent: u32,
    /// No delay is longer.
    pub max_us: u64,
    /// A delay is moved at random by up to half of this share of it, up or down; at most 100.
    pub jitter_percent: u32,
    /// Age of a message after which it is given up.
    pub give_up_us: u64,
}

impl Default for Schedule {
    /// 5 minutes, half as long again each time up to 2 hours, for 5 days.
    fn default() -> Self {
        Self {
            first_us: 300 * SECOND,
            factor_percent: 150,
            max_us: 2 * 3600 * SECOND,
            jitter_percent: 20,
            give_up_us: 5 * 24 * 3600 * SECOND,
        }
    }
}

/// What to do with a message after an attempt failed for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Try again after this many µs, at least 1.
    At(u64),
    /// Give up.
    Expired,
}

impl Schedule {
    /// The delay after `attempt` attempts (1 after the first), without regard to age.
    #[must_use]
    pub fn delay_us(&self, attempt: u32, random: u64) -> u64 {
        let factor = u128::from(self.factor_percent.max(100));
        let max = u128::from(self.max_us.max(1));
        let mut delay = u128::from(self.first_us.max(1)).min(max);
        for _ in 1..attempt {
            if delay >= max || factor == 100 {
                break;
            }
            delay = (delay * factor).div_ceil(100).min(max);
        }
        let spread = delay * u128::from(self.jitter_percent.min(100)) / 100;
        let moved = delay - spread / 2 + u128::from(random) % (spread + 1);
        u64::try_from(moved.clamp(1, max)).expect("at most max_us")
    }

    /// After `attempt` attempts on a message of this age. The last attempt falls on the moment of
    /// giving up.
    #[must_use]
    pub fn next(&self, attempt: u32, age: Age, random: u64) -> Retry {
        let delay = self.delay_us(attempt, random);
        if age.age_us < self.give_up_us {
            return Retry::At(delay.min(self.give_up_us - age.age_us));
        }
        if age.may_expire { Retry::Expired } else { Retry::At(delay) }
    }
}

/// How old a message is, as far as the wall clock can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age {
    /// Since receipt; 0 when the clock lies before it.
    pub age_us: u64,
    /// The clock is trusted, or enough attempts were made since it is in doubt.
    pub may_expire: bool,
}

/// Attempts on one message since the wall clock was last put in doubt. Two bytes of its entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tries {
    doubt: u8,
    count: u8,
}

impl Tries {
    /// An attempt was made.
    pub fn made(&mut self, wall: &Wall) {
        if self.doubt != wall.doubt {
            *self = Self { doubt: wall.doubt, count: 0 };
        }
        self.count = self.count.saturating_add(1);
    }
}

/// Watches the wall clock against the monotonic one and the newest record of the log.
#[derive(Debug, Clone, Copy)]
pub struct Wall {
    /// Monotonic and wall time that were read together.
    anchor: (u64, u64),
    /// The same, when the clock was trusted last.
    believed: (u64, u64),
    trusted: bool,
    /// Counts doubts, so that attempts made before one do not count.
    doubt: u8,
}

impl Wall {
    /// At start. Without a record there is nothing to expire, and nothing to doubt.
    #[must_use]
    pub fn new(now_us: u64, wall_us: u64, newest_record_wall_us: Option<u64>) -> Self {
        let trusted = newest_record_wall_us.is_none_or(|record| plausible(wall_us, record));
        let believed = (now_us, newest_record_wall_us.filter(|_| !trusted).unwrap_or(wall_us));
        Self { anchor: (now_us, wall_us), believed, trusted, doubt: 1 }
    }

    /// Both clocks, now and then. A step puts the wall clock in doubt, whoever made it.
    pub fn tick(&mut self, now_us: u64, wall_us: u64) {
        let (now_before, wall_before) = self.anchor;
        let want = wall_before.saturating_add(now_us.saturating_sub(now_before));
        if !plausible(wall_us, want) {
            self.trusted = false;
            self.doubt = self.doubt.wrapping_add(1);
        }
        self.anchor = (now_us, wall_us);
        if self.trusted {
            self.believed = self.anchor;
        }
    }

    /// The wall time to write into the log's batches: while the clock is in doubt, the last one
    /// that was trusted and what has passed since. Else a restart would find the doubtful time in
    /// the newest record, and believe it.
    #[must_use]
    pub fn for_records(&self, now_us: u64, wall_us: u64) -> u64 {
        let (now_before, wall_before) = self.believed;
        let since = wall_before.saturating_add(now_us.saturating_sub(now_before));
        if self.trusted { wall_us } else { since }
    }

    /// The wall time to write into an envelope as that of receipt: never before the one that was
    /// trusted last, or the message is born old and expires as soon as the clock is right again.
    #[must_use]
    pub fn for_receipt(&self, now_us: u64, wall_us: u64) -> u64 {
        wall_us.max(self.for_records(now_us, wall_us))
    }

    /// NTP or the operator vouches for the clock as it was last read.
    pub fn confirm(&mut self) {
        self.trusted = true;
        self.believed = self.anchor;
    }

    /// Whether the clock may end things.
    #[must_use]
    pub fn trusted(&self) -> bool {
        self.trusted
    }

    /// The age of a message received at `received_wall_us`.
    #[must_use]
    pub fn age(&self, wall_us: u64, received_wall_us: u64, tries: Tries) -> Age {
        let tried = tries.doubt == self.doubt && tries.count >= DOUBT_ATTEMPTS;
        Age { age_us: wall_us.saturating_sub(received_wall_us), may_expire: self.trusted || tried }
    }
}

fn plausible(wall_us: u64, want_us: u64) -> bool {
    wall_us <= want_us.saturating_add(AHEAD_US_MAX)
        && wall_us.saturating_add(BEHIND_US_MAX) >= want_us
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 24 * 3600 * SECOND;

    fn schedule() -> Schedule {
        Schedule {
            first_us: 2 * SECOND,
            factor_percent: 200,
            max_us: 60 * SECOND,
            jitter_percent: 0,
            give_up_us: 300 * SECOND,
        }
    }

    fn aged(seconds: u64) -> Age {
        Age { age_us: seconds * SECOND, may_expire: true }
    }

    #[test]
    fn delays_grow_to_their_bound_and_end() {
        let s = schedule();
        let seconds: Vec<u64> = (1..8).map(|n| s.delay_us(n, 0) / SECOND).collect();
        assert_eq!(seconds, [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(s.delay_us(u32::MAX, 0), 60 * SECOND);
        assert_eq!(s.next(6, aged(10), 0), Retry::At(60 * SECOND));
        assert_eq!(s.next(6, aged(290), 0), Retry::At(10 * SECOND), "a last attempt");
        assert_eq!(s.next(7, aged(300), 0), Retry::Expired);
    }

    /// A start at 1970 or in 2099, and a step to either.
    #[test]
    fn a_clock_in_doubt_ends_nothing_at_once() {
        let received = 1_800_000_000 * SECOND;
        for wrong in [0, 4_070_908_800 * SECOND] {
            let mut stepped = Wall::new(0, received, Some(received));
            assert!(stepped.trusted());
            let mut before = Tries::default();
            (0..9).for_each(|_| before.made(&stepped));
            stepped.tick(SECOND, wrong);
            for (wall, before) in
                [(Wall::new(0, wrong, Some(received)), Tries::default()), (stepped, before)]
            {
                assert!(!wall.trusted());
                let mut tries = before;
                for n in 0..DOUBT_ATTEMPTS {
                    assert!(!wall.age(wrong, received, tries).may_expire, "after {n}");
                    let age = wall.age(wrong, received, tries);
                    assert_eq!(schedule().next(1, age, 0), Retry::At(2 * SECOND));
                    tries.made(&wall);
                }
                let age = wall.age(wrong, received, tries);
                let want = if wrong == 0 { Retry::At(2 * SECOND) } else { Retry::Expired };
                assert_eq!(schedule().next(1, age, 0), want);
            }
        }
    }

    /// A crash while the clock is wrong must not make it right.
    #[test]
    fn a_restart_does_not_end_a_doubt() {
        let received = 1_800_000_000 * SECOND;
        let wrong = 4_070_908_800 * SECOND;
        let wall = Wall::new(0, wrong, Some(received));
        let record = wall.for_records(50 * SECOND, wrong + 50 * SECOND);
        assert_eq!(record, received + 50 * SECOND);
        assert!(!Wall::new(0, wrong + 60 * SECOND, Some(record)).trusted());
        let mut stepped = Wall::new(0, received, Some(received));
        stepped.tick(SECOND, wrong);
        assert_eq!(stepped.for_records(2 * SECOND, wrong + SECOND), received + 2 * SECOND);
        let receipt = stepped.for_receipt(2 * SECOND, 7);
        assert_eq!(receipt, received + 2 * SECOND, "not in 1970");
        assert_eq!(stepped.for_receipt(2 * SECOND, wrong), wrong);
        stepped.confirm();
        assert_eq!(stepped.for_records(2 * SECOND, wrong + SECOND), wrong + SECOND);
    }

    #[test]
    fn what_is_plausible() {
        let record = 1000 * DAY;
        for (wall, trusted) in [
            (record, true),
            (record + DAY, true),
            (record + DAY + 1, false),
            (record - BEHIND_US_MAX, true),
            (record - BEHIND_US_MAX - 1, false),
        ] {
            assert_eq!(Wall::new(0, wall, Some(record)).trusted(), trusted);
        }
        assert!(Wall::new(0, 0, None).trusted());
        let mut wall = Wall::new(0, record, Some(record));
        // Three days pass: no step.
        wall.tick(3 * DAY, record + 3 * DAY);
        assert!(wall.trusted());
        wall.tick(3 * DAY + 1, record);
        assert!(!wall.trusted());
        wall.confirm();
        assert!(wall.trusted());
    }

    proptest! {
        #[test]
        fn any_schedule_is_bounded(
            first_us: u64, factor_percent: u32, max_us: u64, jitter_percent: u32,
            give_up_us: u64, attempt: u32, age_us: u64, may_expire: bool, random: u64,
        ) {
            let s = Schedule { first_us, factor_percent, max_us, jitter_percent, give_up_us };
            let attempt = attempt % 5000;
            let delay = s.delay_us(attempt, random);
            prop_assert!(delay >= 1 && delay <= max_us.max(1));
            let plain = Schedule { jitter_percent: 0, ..s }.delay_us(attempt, random);
            let half = u128::from(plain) * u128::from(jitter_percent.min(100)) / 200 + 1;
            prop_assert!(u128::from(delay.abs_diff(plain)) <= half);
            match s.next(attempt, Age { age_us, may_expire }, random) {
                Retry::Expired => prop_assert!(may_expire && age_us >= give_up_us),
                Retry::At(us) => prop_assert!(us >= 1 && (age_us < give_up_us || !may_expire)),
            }
        }
    }
}
