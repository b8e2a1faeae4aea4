//! Disks that say of themselves that they fail: `smartctl` is asked now and then, and believed.
//!
//! *Limits*: `DISKS_EVERY` between two rounds; each disk `ANSWER`, one a turn.
//! *Failure*: a disk that does not tell (a virtual one, one behind a RAID controller) is passed by.
//! *Not here*: wear and temperature: `ringpost status`.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::limits::DISKS_EVERY;
use crate::say::warn;
use crate::{disks, helper};

/// smartctl(8), EXIT STATUS: the disk says that it fails.
const FAILING: i32 = 1 << 3;
/// A value was at its limit, now or before.
const WORN: i32 = 1 << 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct Smart {
    due: Instant,
    /// Of this round, still to be asked.
    left: Vec<disks::Block>,
    told: BTreeSet<String>,
}

impl Smart {
    /// The first round is due once mail flows.
    pub(crate) fn new() -> Self {
        Self { due: Instant::now() + DISKS_EVERY / 60, left: Vec::new(), told: BTreeSet::new() }
    }

    /// Asks one disk, if it is time.
    pub(crate) fn turn(&mut self, now: Instant) {
        if now >= self.due {
            self.due = now + DISKS_EVERY;
            self.left = disks::all();
        }
        let Some(disk) = self.left.pop() else { return };
        let device = disk.device().display().to_string();
        let asked = helper::ask("/bin/smartctl", &["--health", &device]).ok();
        let Some(verdict) = asked.and_then(|(code, said)| verdict(code, &said)) else { return };
        if self.told.insert(format!("{} {verdict}", disk.name)) {
            let (name, serial) = (&disk.name, disks::serial(&disk.name).unwrap_or_default());
            warn(&format_args!("DISK {name} (serial number {serial:?}): {verdict}: replace it"));
        }
    }
}

/// What an answer of smartctl means, if it means trouble.
fn verdict(code: i32, said: &str) -> Option<String> {
    if code & FAILING != 0 {
        let line = said.lines().find(|line| line.contains("FAILED"));
        return Some(line.unwrap_or("it says that it fails").trim().to_owned());
    }
    let worn = code & WORN != 0;
    worn.then(|| "a value of it is at its limit".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As smartctl 7.3 says it, of a SATA disk.
    const SATA_FAILS: &str = "smartctl 7.3 2022-02-28 r5338 [x86_64-linux] (local build)\n\n\
        === START OF READ SMART DATA SECTION ===\n\
        SMART overall-health self-assessment test result: FAILED!\n\
        Drive failure expected in less than 24 hours. SAVE ALL DATA.\n\
        Failed Attributes:\n\
          5 Reallocated_Sector_Ct   0x0033   001   001   036    Pre-fail  Always   FAILING_NOW 4095\n";
    /// Of an NVMe drive.
    const NVME_FAILS: &str = "=== START OF SMART DATA SECTION ===\n\
        SMART overall-health self-assessment test result: FAILED!\n\
        - available spare has fallen below threshold\n";
    const GOOD: &str = "=== START OF READ SMART DATA SECTION ===\n\
        SMART overall-health self-assessment test result: PASSED\n";
    const VIRTUAL: &str = "/dev/vda: Unable to detect device type\n\
        Please specify device type with the -d option.\n";

    #[test]
    fn a_failing_disk_is_told_and_no_other() {
        let failed = "SMART overall-health self-assessment test result: FAILED!";
        assert_eq!(verdict(8, NVME_FAILS).as_deref(), Some(failed));
        assert_eq!(verdict(8 | 16, SATA_FAILS).as_deref(), Some(failed));
        assert!(verdict(16, GOOD).unwrap().contains("limit"));
        assert_eq!(verdict(0, GOOD), None);
        // Errors in its log, of long ago.
        assert_eq!(verdict(64, GOOD), None);
        assert_eq!(verdict(1, VIRTUAL), None);
        assert_eq!(verdict(2, ""), None);
    }
}
