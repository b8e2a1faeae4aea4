//! A trial of a place: durable writes one after the other, as a log makes them, and who pays for
//! each: the core that submits it, or a thread of the kernel.
//!
//! *Guarantees*: the file keeps its size; what stood in its first bytes is overwritten.
//!
//! *Limits*: one write at a time.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::time::Instant;
use std::{io, mem};

use io_uring::{IoUring, opcode, types};

/// Alignment of memory, offset and length.
const ALIGN: usize = 4096;

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trial {
    /// Writes made.
    pub writes: u32,
    /// The submitting thread had to wait inside the kernel: every session of a core would have.
    pub stalled: u32,
    /// Writes that a kernel worker made, by the octets accounted to it; `None` where the kernel
    /// does not count them.
    pub to_worker: Option<u32>,
    /// The longest submission, microseconds.
    pub submit_us_max: u64,
    /// Median, 99th percentile and longest of a write, microseconds.
    pub took_us: [u64; 3],
}

/// Makes `writes` durable writes of `octets`, over and over the first `span` octets of a file that
/// is open with `O_DIRECT`.
///
/// # Errors
/// What the kernel says to the ring or to a write.
///
/// # Panics
/// When a size is no multiple of 4 KiB, or a write does not fit the span.
pub fn trial(file: &File, octets: usize, writes: u32, span: u64) -> io::Result<Trial> {
    assert!(octets > 0 && octets.is_multiple_of(ALIGN), "whole blocks");
    let length = u32::try_from(octets).expect("buffers are below 4 GiB");
    assert!(u64::from(length) <= span && span.is_multiple_of(ALIGN as u64), "it fits");
    // Given away for good: whatever happens below, the kernel may read it.
    let memory: &'static [u8] = vec![0x6d_u8; octets + ALIGN].leak();
    let block = &memory[memory.as_ptr().align_offset(ALIGN)..][..octets];
    let mut ring: IoUring =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(8)?;
    let (mut seen, mut times) = (Trial { writes, ..Trial::default() }, Vec::new());
    let others_before = octets_of_others();
    let mut offset = 0;
    for _ in 0..writes {
        let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), block.as_ptr(), length)
            .offset(offset)
            .rw_flags(libc::RWF_DSYNC)
            .build();
        // SAFETY: `block` is part of memory that is never freed; the file is borrowed until after
        // the request was submitted, from when on the kernel holds it by itself.
        unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
        let (waits, started) = (waits_of_thread(), Instant::now());
        ring.submit()?;
        let submit_us = micros(started);
        seen.stalled += u32::from(waits_of_thread() > waits);
        seen.submit_us_max = seen.submit_us_max.max(submit_us);
        let result = completion(&mut ring)?;
        times.push(micros(started));
        if result != length.cast_signed() {
            let error = io::Error::from_raw_os_error(-result);
            return Err(if result < 0 { error } else { io::ErrorKind::WriteZero.into() });
        }
        offset += u64::from(length);
        if offset + u64::from(length) > span {
            offset = 0;
        }
    }
    if let (Some(before), Some(after)) = (others_before, octets_of_others()) {
        let count = after.saturating_sub(before) / u64::from(length);
        seen.to_worker = Some(u32::try_from(count).unwrap_or(u32::MAX));
    }
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or(0);
    seen.took_us = [at(50), at(99), times.last().copied().unwrap_or(0)];
    Ok(seen)
}

/// Waits until the one request is done, whatever interrupts.
fn completion(ring: &mut IoUring) -> io::Result<i32> {
    loop {
        if let Some(done) = ring.completion().next() {
            return Ok(done.result());
        }
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// How often this thread has given up its processor by itself, that is, waited.
fn waits_of_thread() -> i64 {
    // SAFETY: all zeros are a valid `rusage`.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes one `rusage` into a local that outlives the call.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    usage.ru_nvcsw
}

/// Octets that other threads of this process, kernel workers included, sent to devices.
fn octets_of_others() -> Option<u64> {
    let written = |path: &str| {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?;
        line.trim().parse::<u64>().ok()
    };
    Some(written("/proc/self/io")?.saturating_sub(written("/proc/thread-self/io")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;

    #[test]
    fn writes_are_made_and_counted() {
        // The build folder: a temporary folder may be a tmpfs without O_DIRECT.
        let path = std::env::current_exe().unwrap().with_extension("trial");
        fs::write(&path, vec![0; 64 << 10]).unwrap();
        let file =
            fs::OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
        let seen = trial(&file, 8192, 50, 64 << 10).unwrap();
        assert_eq!(seen.writes, 50);
        assert!(seen.stalled <= 50 && seen.took_us[0] <= seen.took_us[2], "{seen:?}");
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(content.len() == 64 << 10 && content.iter().all(|b| *b == 0x6d));
    }

    #[test]
    fn what_the_device_says_no_to_is_an_error() {
        let file = File::open("/dev/null").unwrap();
        assert_eq!(trial(&file, 4096, 1, 4096).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
