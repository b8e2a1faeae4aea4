//! A client's errors, forgotten by half-lives: what `standing` is asked about.

use crate::bits;
use crate::limits::{STANDING_HALF_LIFE_US, VALUE_WORDS};

/// Layout version of this record.
pub(crate) const LAYOUT: u8 = 1;
pub(crate) const WORDS: usize = 5;

/// What a client did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum Offence {
    /// Commands that are none, or in the wrong order.
    Protocol = 0,
    /// Talked before the greeting.
    Early = 1,
    /// Recipients that do not exist.
    Recipient = 2,
    /// Tried to relay.
    Relay = 3,
    /// Failed log-ins.
    Login = 4,
    /// Mail refused for its content.
    Content = 5,
    /// Over its rates.
    Rate = 6,
}

const OFFENCES: usize = 7;

/// The standing of one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Weighted errors in thousandths, as of `last_us`; half is forgotten every hour.
    pub score_milli: u32,
    /// How often each offence was counted, by number of the offence; saturating.
    pub counts: [u32; OFFENCES],
    /// The last offence, wall microseconds.
    pub last_us: u64,
}

/// One thing a client did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offended {
    /// What.
    pub offence: Offence,
    /// How much it weighs, thousandths.
    pub weight_milli: u32,
}

impl Standing {
    /// The state after one more offence.
    #[must_use]
    pub fn after(old: Option<Self>, offended: &Offended, now_us: u64) -> Self {
        let mut new = old.unwrap_or_default();
        new.score_milli = new.score_milli_at(now_us).saturating_add(offended.weight_milli);
        let count = &mut new.counts[usize::from(offended.offence as u8)];
        *count = count.saturating_add(1);
        new.last_us = new.last_us.max(now_us);
        new
    }

    /// The score with what has been forgotten since: halved per half-life, straight in between.
    #[must_use]
    pub fn score_milli_at(&self, now_us: u64) -> u32 {
        let age_us = now_us.saturating_sub(self.last_us);
        let halvings = u32::try_from(age_us / STANDING_HALF_LIFE_US).unwrap_or(u32::MAX);
        let halved = u64::from(self.score_milli.checked_shr(halvings).unwrap_or(0));
        let rest_us = age_us % STANDING_HALF_LIFE_US;
        bits::low32(halved - halved * rest_us / STANDING_HALF_LIFE_US / 2)
    }

    /// How often this offence was counted.
    #[must_use]
    pub const fn count(&self, offence: Offence) -> u32 {
        self.counts[offence as usize]
    }

    pub(crate) fn encode(&self, words: &mut [u64; VALUE_WORDS]) {
        let c = &self.counts;
        words[0] = self.last_us;
        words[1] = bits::pair(self.score_milli, c[0]);
        words[2] = bits::pair(c[1], c[2]);
        words[3] = bits::pair(c[3], c[4]);
        words[4] = bits::pair(c[5], c[6]);
    }

    pub(crate) fn decode(words: &[u64; VALUE_WORDS]) -> Self {
        Self {
            last_us: words[0],
            score_milli: bits::low32(words[1]),
            counts: [
                bits::high32(words[1]),
                bits::low32(words[2]),
                bits::high32(words[2]),
                bits::low32(words[3]),
                bits::high32(words[3]),
                bits::low32(words[4]),
                bits::high32(words[4]),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_is_forgotten_each_half_life() {
        let bad = Offended { offence: Offence::Relay, weight_milli: 8_000 };
        let one = Standing::after(None, &bad, 0);
        let at = |halves: u64| one.score_milli_at(halves * STANDING_HALF_LIFE_US / 2);
        assert_eq!([at(0), at(1), at(2), at(4), at(99)], [8_000, 6_000, 4_000, 2_000, 0]);
        let two = Standing::after(Some(one), &bad, STANDING_HALF_LIFE_US);
        assert_eq!((two.score_milli, two.count(Offence::Relay)), (12_000, 2));
        assert_eq!(one.score_milli_at(u64::MAX), 0);
    }
}
