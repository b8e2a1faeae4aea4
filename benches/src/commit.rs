//! The bare commit: durable writes of one block after the other to a place, nothing else.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::limits::{COMMIT_BLOCK_OCTETS, COMMIT_FILE_OCTETS};

const LONGEST_NS: u64 = 60_000_000_000;

/// Time of one `O_DIRECT | O_DSYNC` write into zero-filled space, microseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Commit {
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Writes made.
    pub count: u64,
    /// Seconds they took.
    pub elapsed_s: f64,
}

/// Measures commits of 4 KiB in a folder for about `duration`.
pub fn measure(folder: &Path, duration: Duration) -> io::Result<Commit> {
    measure_blocks(folder, duration, COMMIT_BLOCK_OCTETS, true)
}

/// The same with blocks of so many octets (rounded up to 4 KiB), durable ones or not.
pub fn measure_blocks(
    folder: &Path,
    duration: Duration,
    octets: usize,
    durable: bool,
) -> io::Result<Commit> {
    let octets = octets.clamp(1, COMMIT_FILE_OCTETS).next_multiple_of(COMMIT_BLOCK_OCTETS);
    let path = folder.join(format!(".mxbench-commit-{}", std::process::id()));
    let result = File::create(&path)
        .and_then(|file| {
            file.write_all_at(&vec![0; COMMIT_FILE_OCTETS], 0)?;
            file.sync_all()
        })
        .and_then(|()| commits(&path, duration, octets, durable));
    std::fs::remove_file(&path)?;
    result
}

fn commits(path: &Path, duration: Duration, octets: usize, durable: bool) -> io::Result<Commit> {
    let flags = libc::O_DIRECT | if durable { libc::O_DSYNC } else { 0 };
    let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
    let memory = vec![0x6d_u8; octets + COMMIT_BLOCK_OCTETS];
    let block = &memory[memory.as_ptr().align_offset(COMMIT_BLOCK_OCTETS)..][..octets];
    let mut times =
        Histogram::<u64>::new_with_bounds(1, LONGEST_NS, 3).map_err(io::Error::other)?;
    let started = Instant::now();
    let mut offset = 0;
    while started.elapsed() < duration {
        let before = Instant::now();
        file.write_all_at(block, offset)?;
        let ns = u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX);
        times.saturating_record(ns);
        offset += octets as u64;
        if offset + octets as u64 > COMMIT_FILE_OCTETS as u64 {
            offset = 0;
        }
    }
    let elapsed_s = started.elapsed().as_secs_f64();
    let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Commit { p50_us: at(0.5), p99_us: at(0.99), count: times.len(), elapsed_s })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_takes_time_and_leaves_nothing_behind() {
        // The build folder: a temporary folder may be a tmpfs without O_DIRECT.
        let folder = std::env::current_exe().unwrap().with_extension("commit");
        std::fs::create_dir_all(&folder).unwrap();
        let commit = measure(&folder, Duration::from_millis(50)).unwrap();
        assert!(commit.count > 0 && commit.p50_us > 0.5 && commit.p99_us >= commit.p50_us);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        std::fs::remove_dir(&folder).unwrap();
    }
}
