//! The health of the disks below the spool, as `smartctl` says it, where it is installed and this
//! user may ask.
//!
//! *Limits*: each disk for [`WAIT`]; [`DISKS_MAX`] disks.
//! *Failure*: unknown, and why.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Debian has it in the first; the appliance has one folder of programs.
const PROGRAMS: [&str; 2] = ["/usr/sbin/smartctl", "/bin/smartctl"];
/// How long a disk may think.
const WAIT: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const DISKS_MAX: usize = 16;
/// Octets of an answer.
const ANSWER_OCTETS_MAX: u64 = 256 << 10;

/// The disks that a status names, each with its health.
pub(crate) fn of_devices<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    let mut disks: Vec<String> = lines.filter_map(disk_in).collect();
    disks.sort();
    disks.dedup();
    disks.truncate(DISKS_MAX);
    let program = PROGRAMS.iter().find(|program| Path::new(program).exists());
    let health = |disk: String| {
        let health = match program {
            Some(program) => asked(program, &disk),
            None => "unknown: no smartctl here".to_owned(),
        };
        (disk, health)
    };
    disks.into_iter().map(health).collect()
}

/// The disk in `PLACE: sda (8:0), solid, ...`.
fn disk_in(line: &str) -> Option<String> {
    let (before, _) = line.split_once(" (")?;
    let disk = before.rsplit_once(": ")?.1;
    let plain = !disk.is_empty() && disk.bytes().all(|octet| octet.is_ascii_alphanumeric());
    plain.then(|| disk.to_owned())
}

fn asked(program: &str, disk: &str) -> String {
    let mut command = Command::new(program);
    command.args(["--json", "--health", "--attributes"]).arg(format!("/dev/{disk}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    match command.spawn() {
        Ok(child) => answer(child).map_or_else(|| "unknown: no answer".to_owned(), |a| gist(&a)),
        Err(error) => format!("unknown: {error}"),
    }
}

/// What it wrote before its time was up. A disk that hangs keeps its process, not us.
fn answer(mut child: Child) -> Option<Vec<u8>> {
    let mut out = child.stdout.take()?;
    let reader = std::thread::spawn(move || {
        let mut octets = Vec::new();
        let _ = out.by_ref().take(ANSWER_OCTETS_MAX).read_to_end(&mut octets);
        octets
    });
    let until = Instant::now() + WAIT;
    while child.try_wait().ok()?.is_none() {
        if Instant::now() > until {
            let _ = child.kill();
            return None;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    reader.join().ok()
}

/// The gist of `smartctl --json --health --attributes`.
fn gist(json: &[u8]) -> String {
    let Ok(said) = serde_json::from_slice::<Value>(json) else {
        return "unknown: smartctl says nothing".to_owned();
    };
    let verdict = match said["smart_status"]["passed"].as_bool() {
        Some(true) => "good".to_owned(),
        Some(false) => "FAILING".to_owned(),
        None => {
            let why = said["smartctl"]["messages"][0]["string"].as_str();
            return format!("unknown: {}", why.unwrap_or("the disk does not tell"));
        }
    };
    let nvme = &said["nvme_smart_health_information_log"];
    let parts = [
        nvme["percentage_used"].as_u64().map(|worn| format!("{worn} % worn")),
        nvme["media_errors"].as_u64().map(|errors| format!("{errors} media errors")),
        said["temperature"]["current"].as_u64().map(|hot| format!("{hot} C")),
    ];
    let parts: Vec<String> = std::iter::once(verdict).chain(parts.into_iter().flatten()).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_found_in_a_status() {
        let line = "/var/spool: nvme0n1 (259:0), Some Disk (TM), solid, write cache write back";
        assert_eq!(disk_in(line).as_deref(), Some("nvme0n1"));
        assert_eq!(disk_in("/var/spool: cannot be read"), None);
        assert_eq!(disk_in("/x: ../y (1:1), solid"), None);
    }

    #[test]
    fn what_smartctl_says_in_few_words() {
        let good = br#"{"smart_status":{"passed":true},"temperature":{"current":41},
            "nvme_smart_health_information_log":{"percentage_used":3,"media_errors":0}}"#;
        assert_eq!(gist(good), "good, 3 % worn, 0 media errors, 41 C");
        assert_eq!(gist(br#"{"smart_status":{"passed":false}}"#), "FAILING");
        let denied = br#"{"smartctl":{"messages":[{"string":"Permission denied"}]}}"#;
        assert_eq!(gist(denied), "unknown: Permission denied");
        assert!(gist(b"").starts_with("unknown"));
    }
}
