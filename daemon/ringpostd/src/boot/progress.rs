//! How far recovery is, for whoever waits for the start.
//!
//! *Guarantees*: the service manager hears at once that it is going on, and each second how far it
//! is, of all and of each device; so do standard error and the main log, when it takes longer than
//! a second.

use std::fmt::Write as _;

use spool::survey::DeviceRead;

use crate::events::Note;
use crate::house::{Journal, Notify};

const EVERY_US: u64 = 1_000_000;
const MIB: u64 = 1 << 20;

/// What was told when.
#[derive(Debug)]
pub(super) struct Progress {
    notify: Notify,
    began_us: u64,
    /// When the next line is due.
    due_us: u64,
    begun: bool,
}

impl Progress {
    pub(super) fn new(now_us: u64) -> Self {
        let notify = Notify::from_environment();
        Self { notify, began_us: now_us, due_us: now_us + EVERY_US, begun: false }
    }

    /// Milliseconds since the beginning.
    pub(super) fn took_ms(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.began_us) / 1000
    }

    /// So many octets of each device are read of so many.
    pub(super) fn told(&mut self, now_us: u64, devices: &[DeviceRead], journal: &mut Journal) {
        let (line, is_due) = self.line(now_us, devices);
        if let Some(line) = line {
            self.notify.starting(&line);
            if is_due {
                eprintln!("ringpostd: {line}");
                journal.note(Note::Recovered, &line);
            }
        }
    }

    fn line(&mut self, now_us: u64, devices: &[DeviceRead]) -> (Option<String>, bool) {
        let is_due = now_us >= self.due_us;
        if self.begun && !is_due {
            return (None, false);
        }
        self.begun = true;
        if is_due {
            self.due_us = now_us + EVERY_US;
        }
        let sum = |of: fn(&DeviceRead) -> u64| devices.iter().map(of).sum::<u64>();
        let (done, total) = (sum(|d| d.read) / MIB, sum(|d| d.of).div_ceil(MIB));
        let mut line = format!("recovering the spool: {done} of {total} MiB read");
        for DeviceRead { device, read, of } in devices.iter().filter(|_| devices.len() > 1) {
            let _ = write!(line, "; {device}: {} of {}", read / MIB, of.div_ceil(MIB));
        }
        (Some(line), is_due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_comes_at_once_and_one_each_second() {
        let mut progress = Progress::new(5_000_000);
        let mut said = Vec::new();
        for step in 0..25 {
            let now_us = 5_000_000 + step * 100_000;
            let one = DeviceRead { device: "/a".into(), read: step * MIB, of: 24 * MIB };
            let (line, is_due) = progress.line(now_us, &[one]);
            said.extend(line.map(|line| (step, is_due, line)));
        }
        let steps: Vec<(u64, bool)> = said.iter().map(|(step, due, _)| (*step, *due)).collect();
        assert_eq!(steps, [(0, false), (10, true), (20, true)]);
        assert_eq!(said[1].2, "recovering the spool: 10 of 24 MiB read");
        assert_eq!(progress.took_ms(7_500_000), 2500);
        let two =
            ["/a", "/b"].map(|name| DeviceRead { device: name.into(), read: 3 * MIB, of: 4 * MIB });
        let (line, _) = progress.line(9_000_000, &two);
        let wanted = "recovering the spool: 6 of 8 MiB read; /a: 3 of 4; /b: 3 of 4";
        assert_eq!(line.as_deref(), Some(wanted));
    }
}
