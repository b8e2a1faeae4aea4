//! `ringpostd --probe FOLDER`: what a place does to a log, before mail depends on it.
//!
//! *Failure*: a place without `O_DIRECT`, or that cannot be written, is refused as at a start.
//! *Not here*: raw devices. What is on one would be overwritten.

use std::path::Path;

use spool::file::{Durability, FileDevice, OpenError};

use super::error::BootError;

/// As many writes as tell one stall in a thousand from none.
const WRITES: u32 = 10_000;
/// A batch of two common messages, or one with its DONEs.
const OCTETS: usize = 8192;
/// Written over and over, like segments.
const SPAN: u64 = 32 << 20;
/// Of so many writes one may stall before the place is called bad.
const GOOD_OF: u32 = 1000;

/// Tries a folder and says what it saw.
///
/// # Errors
/// The place cannot be used at all.
pub fn probe(folder: &Path) -> Result<String, BootError> {
    let path = folder.join("ringpost.probe");
    let fail = |error: OpenError| {
        let advice = match error {
            OpenError::Io(_) => "name a folder that this user may write to",
            _ => "",
        };
        BootError::unavailable(format!("{}: {error}", path.display()), advice)
    };
    let device = FileDevice::create(&path, SPAN, Durability::Full).map_err(fail)?;
    let tried = device.try_clone_file().and_then(|file| engine::trial(&file, OCTETS, WRITES, SPAN));
    // Made above; nobody else's.
    let _ = std::fs::remove_file(&path);
    tried.map(|seen| text(folder, &seen)).map_err(|error| fail(OpenError::Io(error)))
}

fn text(folder: &Path, seen: &engine::Trial) -> String {
    let engine::Trial { writes, stalled, to_worker, submit_us_max, took_us } = seen;
    let [median, p99, longest] = took_us;
    let worker = to_worker.map_or_else(
        || "not known (a kernel without CONFIG_TASK_IO_ACCOUNTING)".to_owned(),
        |count| count.to_string(),
    );
    let bad = stalled + to_worker.unwrap_or(0);
    let verdict = if bad.saturating_mul(GOOD_OF) <= *writes {
        "good: a core goes on while its writes are under way"
    } else {
        "poor: each such write holds up all sessions of its core, or costs two switches of \
         threads; a raw partition, or ext4 or XFS on a local device mounted lazytime, does better"
    };
    format!(
        "{}: {writes} durable writes of {OCTETS} octets\n\
         time of one: median {median} us, 99 of 100 below {p99} us, longest {longest} us\n\
         stalled the core: {stalled} (longest submission {submit_us_max} us)\n\
         fell to a kernel worker: {worker}\n\
         {verdict}\n",
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_called_good_or_poor_by_its_writes() {
        let folder = Path::new("/s");
        let seen = engine::Trial { writes: WRITES, to_worker: Some(0), ..engine::Trial::default() };
        assert!(text(folder, &seen).contains("good"));
        let stalled = engine::Trial { stalled: 11, ..seen.clone() };
        assert!(text(folder, &stalled).contains("poor"));
        let worker = engine::Trial { to_worker: Some(9_000), ..seen.clone() };
        assert!(text(folder, &worker).contains("fell to a kernel worker: 9000\npoor"));
        let unknown = engine::Trial { to_worker: None, ..seen };
        assert!(text(folder, &unknown).contains("not known"));
    }

    #[test]
    fn what_is_no_folder_is_refused() {
        let error = probe(Path::new("/proc/nowhere")).unwrap_err();
        assert!(error.what.contains("/proc/nowhere/ringpost.probe"), "{error}");
    }
}
