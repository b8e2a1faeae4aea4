//! Waiting for what a predecessor is about to give up: after a kill the kernel may need a moment
//! to end its requests and close its files.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// So long at most.
pub(super) const WAIT: Duration =
    if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(10) };
const AGAIN: Duration = Duration::from_millis(10);

/// Waits longer than this are said.
const SAID: Duration = Duration::from_secs(1);

/// Tries until it is true, an error, or too late. `what` another process has.
///
/// # Errors
/// Those of `attempt`.
pub(super) fn until<E>(
    what: &Path,
    mut attempt: impl FnMut() -> Result<bool, E>,
) -> Result<bool, E> {
    let since = Instant::now();
    let mut said = false;
    loop {
        if attempt()? {
            return Ok(true);
        }
        if since.elapsed() >= WAIT {
            return Ok(false);
        }
        if since.elapsed() >= SAID && !std::mem::replace(&mut said, true) {
            eprintln!("ringpostd: waiting for {}: another process has it", what.display());
        }
        thread::sleep(AGAIN);
    }
}
