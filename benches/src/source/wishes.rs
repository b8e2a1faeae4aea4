//! What a session or a message is to be: taken, or refused and why.
//!
//! *Guarantees*: by shares and seed, the same sequence for the same seed.

use super::mail::Random;
use super::options::Refused;

/// What a message is sent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// To be taken.
    Taken,
    /// To a recipient that is not known.
    Unknown,
    /// Declared larger than anybody takes.
    Oversized,
    /// From an address that is listed: whatever is said is to be refused.
    Listed,
}

/// Dice for shares.
#[derive(Debug)]
pub(super) struct Dice {
    random: Random,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed ^ 0x5157_1c4e) }
    }

    /// True for a share of the throws.
    pub(super) fn throw(&mut self, share: f64) -> bool {
        share > 0.0 && f64::from(self.random.below(1_000_000)) < share * 1e6
    }

    /// What the next message of a session is for.
    pub(super) fn wish(&mut self, listed: bool, refused: &Refused) -> Wish {
        if listed {
            Wish::Listed
        } else if self.throw(refused.unknown_share) {
            Wish::Unknown
        } else if self.throw(refused.oversized_share) {
            Wish::Oversized
        } else {
            Wish::Taken
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept() {
        let mut dice = Dice::new(7);
        let count = (0..100_000).filter(|_| dice.throw(0.3)).count();
        assert!((29_000..31_000).contains(&count), "{count}");
        assert!((0..1000).all(|_| dice.throw(1.0) && !dice.throw(0.0)));
    }
}
