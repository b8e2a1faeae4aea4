//! The bound on how many sources are banned at once: a list gone wild must not ban the world.
//!
//! *Guarantees.* Shared by all cores without a lock. Distinct sources are counted from below, so
//! that the bound errs towards banning fewer.
//! *Limits.* [`SOURCES_MAX`] sources are told apart in an hour; more count as that many.
//! *Not here.* Bans by the operator's hand: they are not bounded.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Bans that are always allowed: among few sources a share says nothing.
const BANS_FREE: u32 = 100;
/// Bits of each window.
const SOURCES_MAX: usize = 1 << 18;
/// Length of a window; two of them are looked at.
const WINDOW_US: u64 = 1_800_000_000;
const WORDS: usize = SOURCES_MAX / 64;

/// See the module.
#[derive(Debug)]
pub struct Fuse {
    /// Sources of this window and of the one before, by the parity of their number.
    seen: [Box<[AtomicU64]>; 2],
    /// The window that is being written.
    window: AtomicU64,
    /// Bans in force, as they were counted last, and those since.
    bans: AtomicU32,
    blown: AtomicBool,
}

impl Default for Fuse {
    fn default() -> Self {
        let window = || (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Self {
            seen: [window(), window()],
            window: AtomicU64::new(0),
            bans: AtomicU32::new(0),
            blown: AtomicBool::new(false),
        }
    }
}

/// Any function that spreads addresses: nobody gains by a collision but a lower bound.
fn hash(key: &[u8]) -> u64 {
    let step = |hash: u64, octet: &u8| (hash ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3);
    let mixed = key.iter().fold(0xcbf2_9ce4_8422_2325, step);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32
}

impl Fuse {
    /// A client, by its key in the hints, is here.
    pub fn saw(&self, key: &[u8], now_us: u64) {
        let window = now_us / WINDOW_US + 1;
        let seen = &self.seen[usize::from(window % 2 == 1)];
        if self.window.load(Ordering::Relaxed) != window
            && self.window.swap(window, Ordering::Relaxed) != window
        {
            seen.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
        let bit = usize::try_from(hash(key)).unwrap_or(0) % SOURCES_MAX;
        seen[bit / 64].fetch_or(1 << (bit % 64), Ordering::Relaxed);
    }

    /// Sources of the last half-hour to hour, at least.
    #[must_use]
    pub fn sources(&self) -> u32 {
        let [a, b] = &self.seen;
        let both = a.iter().zip(b.iter());
        let ones = |(a, b): (&AtomicU64, &AtomicU64)| {
            (a.load(Ordering::Relaxed) | b.load(Ordering::Relaxed)).count_ones()
        };
        both.map(ones).sum()
    }

    /// Bans that may be in force at once.
    #[must_use]
    pub fn most(&self, percent: u32) -> u32 {
        let share = u64::from(self.sources()) * u64::from(percent) / 100;
        u32::try_from(share).unwrap_or(u32::MAX).max(BANS_FREE)
    }

    /// Whether one more client may be banned; it counts from now on.
    #[must_use]
    pub fn allows(&self, percent: u32) -> bool {
        let bans = self.bans.load(Ordering::Relaxed);
        let allowed = bans < BANS_FREE || bans < self.most(percent);
        if allowed {
            self.bans.fetch_add(1, Ordering::Relaxed);
        } else {
            self.blown.store(true, Ordering::Relaxed);
        }
        allowed
    }

    /// So many bans are in force: counted anew.
    pub fn counted(&self, bans: u32) {
        self.bans.store(bans, Ordering::Relaxed);
    }

    /// Whether somebody was not banned since this was asked last.
    #[must_use]
    pub fn was_blown(&self) -> bool {
        self.blown.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_sources_of_the_last_hour_may_be_banned() {
        let fuse = Fuse::default();
        assert_eq!((fuse.sources(), fuse.most(20)), (0, BANS_FREE));
        for n in 0_u32..2_000 {
            fuse.saw(&n.to_be_bytes(), 1);
            fuse.saw(&n.to_be_bytes(), 2);
        }
        let sources = fuse.sources();
        assert!((1_900..=2_000).contains(&sources), "{sources}");
        let banned = (0..2_000).filter(|_| fuse.allows(20)).count();
        assert_eq!(u32::try_from(banned).unwrap(), sources * 20 / 100);
        assert!(fuse.was_blown() && !fuse.was_blown());
        fuse.counted(7);
        assert!(fuse.allows(20) && !fuse.was_blown());
        // The next half-hour still knows them, the one after it does not.
        fuse.saw(b"a", WINDOW_US);
        assert!(fuse.sources() >= sources);
        fuse.saw(b"a", 2 * WINDOW_US);
        assert_eq!(fuse.sources(), 1);
    }
}
