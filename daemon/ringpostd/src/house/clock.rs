//! Whether the wall clock can be believed.
//!
//! *Guarantees*: a clock that stands more than a day ahead of the newest record, or behind it, at
//! start or after a step, is in doubt until NTP or the operator vouches for it.
//! *Not here*: what is not done in doubt (the relay's: nothing expires).

use super::limits::{CLOCK_AHEAD_US, CLOCK_BEHIND_US};

/// What became of the trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// In doubt from now on: it differs by so many microseconds from what it should be.
    Doubted(i64),
    /// NTP vouches for it.
    Confirmed,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    trusted: bool,
    operator: bool,
    now_us: u64,
    wall_us: u64,
}

fn differs(expected_us: u64, wall_us: u64) -> Option<i64> {
    let off = wall_us.cast_signed().wrapping_sub(expected_us.cast_signed());
    let far = wall_us > expected_us.saturating_add(CLOCK_AHEAD_US)
        || wall_us < expected_us.saturating_sub(CLOCK_BEHIND_US);
    far.then_some(off)
}

impl Clock {
    /// At start. `newest_us` is the wall time of the newest record, 0 if there is none.
    #[must_use]
    pub fn new(newest_us: u64, operator: bool, now_us: u64, wall_us: u64) -> (Self, Option<i64>) {
        let doubt = differs(newest_us, wall_us).filter(|_| newest_us > 0 && !operator);
        (Self { trusted: doubt.is_none(), operator, now_us, wall_us }, doubt)
    }

    /// Whether it can be believed.
    #[must_use]
    pub const fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// The operator vouches for it, or does not any more.
    pub fn operator(&mut self, vouches: bool) {
        self.operator = vouches;
        self.trusted |= vouches;
    }

    /// Looks at it again; `synchronised` is asked only in doubt.
    pub fn look(
        &mut self,
        now_us: u64,
        wall_us: u64,
        synchronised: impl Fn() -> bool,
    ) -> Option<Change> {
        let expected = self.wall_us.saturating_add(now_us.saturating_sub(self.now_us));
        (self.now_us, self.wall_us) = (now_us, wall_us);
        if self.operator {
            return None;
        }
        if let Some(off) = differs(expected, wall_us)
            && !synchronised()
        {
            self.trusted = false;
            return Some(Change::Doubted(off));
        }
        if !self.trusted && synchronised() {
            self.trusted = true;
            return Some(Change::Confirmed);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const Y2026: u64 = 1_785_414_896_000_000;
    const Y2099: u64 = 4_083_955_200_000_000;
    const HOUR: u64 = 3_600_000_000;

    #[test]
    fn a_start_in_1970_or_2099_is_doubted() {
        for (wall, doubted) in [
            (1_000_000, true),
            (Y2099, true),
            (Y2026 + 23 * HOUR, false),
            (Y2026 + 25 * HOUR, true),
            (Y2026 - HOUR, true),
        ] {
            let (clock, doubt) = Clock::new(Y2026, false, 7, wall);
            assert_eq!((!clock.is_trusted(), doubt.is_some()), (doubted, doubted), "{wall}");
            assert!(Clock::new(Y2026, true, 7, wall).0.is_trusted(), "the operator vouches");
            assert!(Clock::new(0, false, 7, wall).0.is_trusted(), "nothing to compare with");
        }
    }

    #[test]
    fn a_step_is_doubted_until_confirmed() {
        let (mut clock, _) = Clock::new(0, false, 0, Y2026);
        assert_eq!(clock.look(500_000, Y2026 + 500_000, || false), None);
        assert!(matches!(clock.look(1_000_000, Y2099, || false), Some(Change::Doubted(_))));
        assert!(!clock.is_trusted());
        assert_eq!(clock.look(1_500_000, Y2099 + 500_000, || false), None);
        assert_eq!(clock.look(2_000_000, Y2099 + 1_000_000, || true), Some(Change::Confirmed));
        assert!(clock.is_trusted());
        let back = clock.look(2_500_000, Y2026, || false);
        assert!(matches!(back, Some(Change::Doubted(off)) if off < 0));
        clock.operator(true);
        assert!(clock.is_trusted());
        assert_eq!(clock.look(3_000_000, Y2099, || false), None);
    }
}
