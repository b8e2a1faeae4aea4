//! Kills, restarts, a poison message, clocks that lie: nothing acknowledged is ever lost.

pub(crate) mod clock;
mod kill;
mod poison;
mod restart;
mod source;

/// Whether the hour-long forms are asked for (`./x test --long`).
fn long() -> bool {
    std::env::var_os("RINGPOST_LONG").is_some()
}

/// The next number of a sequence.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Of this run, or as told.
fn seed() -> u64 {
    if let Some(seed) = std::env::var("RINGPOST_SEED").ok().and_then(|s| s.parse().ok()) {
        return seed;
    }
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    u64::try_from(now.as_nanos() % u128::from(u64::MAX)).expect("below") | 1
}
