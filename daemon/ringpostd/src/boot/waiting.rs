//! Waiting for what a predecessor is about to give up: after a kill the kernel may need a moment
//! to end its requests and close its files.

use std::thread;
use std::time::{Duration, Instant};

/// So long at most.
pub const WAIT: Duration =
    if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(10) };
const AGAIN: Duration = Duration::from_millis(10);

/// Tries until it is true, an error, or too late.
///
/// # Errors
/// Those of `attempt`.
pub fn until<E>(mut attempt: impl FnMut() -> Result<bool, E>) -> Result<bool, E> {
    let since = Instant::now();
    loop {
        if attempt()? {
            return Ok(true);
        }
        if since.elapsed() >= WAIT {
            return Ok(false);
        }
        thread::sleep(AGAIN);
    }
}
