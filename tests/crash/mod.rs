//! Kills, restarts, a poison message, clocks that lie: nothing acknowledged is ever lost.

pub(crate) mod clock;
mod kill;
mod poison;
mod restart;

/// Whether the hour-long forms are asked for (`./x test --long`).
fn long() -> bool {
    std::env::var_os("RINGPOST_LONG").is_some()
}
