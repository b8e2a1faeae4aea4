//! How a destination has been doing: failures in a row, and until when it is left alone.

use crate::bits;
use crate::limits::VALUE_WORDS;

/// Layout version of this record.
pub(crate) const LAYOUT: u8 = 1;
pub(crate) const WORDS: usize = 4;

/// How the last attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum Class {
    /// A session worked.
    Fine = 0,
    /// The connection was refused or there was no route.
    Refused = 1,
    /// No answer in time.
    TimedOut = 2,
    /// The session broke off in mid-dialogue.
    Broken = 3,
    /// 4xx to the whole session (greeting, EHLO).
    Temporary = 4,
    /// 5xx to the whole session.
    Permanent = 5,
    /// TLS could not be agreed.
    Tls = 6,
    /// The name could not be resolved.
    Dns = 7,
}

const CLASSES: [Class; 8] = [
    Class::Fine,
    Class::Refused,
    Class::TimedOut,
    Class::Broken,
    Class::Temporary,
    Class::Permanent,
    Class::Tls,
    Class::Dns,
];

impl Class {
    /// The class with this number.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        CLASSES.get(usize::try_from(number).ok()?).copied()
    }
}

/// The health of one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Failures in a row.
    pub failures: u32,
    /// Not before this wall time again, microseconds; 0: it may be used.
    pub down_until_us: u64,
    /// How the last attempt ended.
    pub last: Class,
    /// When it last worked; 0: not known.
    pub fine_us: u64,
    /// When the last attempt ended.
    pub last_us: u64,
}

/// How long a failing destination is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Failures in a row before it is left alone at all; at least 1.
    pub failures_min: u32,
    /// The first pause; each further failure doubles it.
    pub pause_us_min: u64,
    /// The longest pause.
    pub pause_us_max: u64,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// In which way.
    pub class: Class,
    /// The pauses of this destination.
    pub rule: Rule,
    /// A random word: pauses differ by up to an eighth, so that nodes do not return at once.
    pub jitter: u64,
}

impl Health {
    /// The state after one more attempt.
    #[must_use]
    pub fn after(old: Option<Self>, ended: &Ended, now_us: u64) -> Self {
        let fine = ended.class == Class::Fine;
        let failures = match old {
            _ if fine => 0,
            Some(old) => old.failures.saturating_add(1),
            None => 1,
        };
        let down_until_us = match ended.rule.pause_us(failures, ended.jitter) {
            Some(pause_us) => now_us.saturating_add(pause_us),
            None => 0,
        };
        Self {
            failures,
            down_until_us,
            last: ended.class,
            fine_us: if fine { now_us } else { old.map_or(0, |old| old.fine_us) },
            last_us: now_us,
        }
    }

    /// Whether it may be used now.
    #[must_use]
    pub const fn is_up(&self, now_us: u64) -> bool {
        now_us >= self.down_until_us
    }

    pub(crate) fn encode(&self, words: &mut [u64; VALUE_WORDS]) {
        words[0] = bits::pair(self.failures, u32::from(self.last as u8));
        words[1] = self.down_until_us;
        words[2] = self.fine_us;
        words[3] = self.last_us;
    }

    pub(crate) fn decode(words: &[u64; VALUE_WORDS]) -> Option<Self> {
        Some(Self {
            failures: bits::low32(words[0]),
            last: Class::from_number(u64::from(bits::high32(words[0])))?,
            down_until_us: words[1],
            fine_us: words[2],
            last_us: words[3],
        })
    }
}

impl Rule {
    /// The pause after so many failures in a row; `None`: none yet.
    #[must_use]
    pub fn pause_us(&self, failures: u32, jitter: u64) -> Option<u64> {
        let over = failures.checked_sub(self.failures_min.max(1))?;
        let factor = 1u64.checked_shl(over).unwrap_or(u64::MAX);
        let pause_us = self.pause_us_min.saturating_mul(factor).min(self.pause_us_max);
        Some(pause_us.saturating_add(jitter % (pause_us / 8).max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { failures_min: 2, pause_us_min: 800, pause_us_max: 3_000 };

    fn ended(class: Class) -> Ended {
        Ended { class, rule: RULE, jitter: 0 }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_success_clears() {
        let mut health = None;
        let mut downs = Vec::new();
        for now_us in [10, 20, 30, 40, 50] {
            let after = Health::after(health, &ended(Class::Refused), now_us);
            downs.push(after.down_until_us);
            health = Some(after);
        }
        assert_eq!(downs, [0, 820, 1_630, 3_040, 3_050]);
        assert!(!health.unwrap().is_up(3_049) && health.unwrap().is_up(3_050));
        let fine = Health::after(health, &ended(Class::Fine), 60);
        assert_eq!((fine.failures, fine.down_until_us, fine.fine_us), (0, 0, 60));
    }

    #[test]
    fn jitter_stays_within_an_eighth() {
        for jitter in [0, 99, 100, u64::MAX] {
            assert!((800..900).contains(&RULE.pause_us(2, jitter).unwrap()));
        }
        assert_eq!(RULE.pause_us(u32::MAX, 0), Some(3_000));
    }
}
