//! When a log file is closed, and which old ones are deleted: decided here, done in `files`.
//!
//! *Guarantees.* Only names made here are ever deleted, the oldest first, never an open file.

use super::date::civil;
use super::outlet::Log;
use crate::config::LogConfig;
use crate::limits;

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// A file of this size is closed.
    pub size_max: u64,
    /// A file of this age is closed, in microseconds.
    pub age_us_max: u64,
    /// All files together.
    pub total_max: u64,
}

impl Rules {
    /// As the config has them.
    #[must_use]
    pub fn of(config: &LogConfig) -> Self {
        Self {
            size_max: config.rotate_size.octets(),
            age_us_max: config.rotate_age_s.us(),
            total_max: config.total_size.octets(),
        }
    }

    /// Whether an open file is closed before `more` octets are written. An empty one never is.
    #[must_use]
    pub fn is_due(&self, size: u64, opened_wall_us: u64, wall_us: u64, more: u64) -> bool {
        let old = wall_us.saturating_sub(opened_wall_us) >= self.age_us_max;
        size > 0 && (size.saturating_add(more) > self.size_max || old)
    }

    /// Which of the closed files must go so that with `open` octets in open ones the total holds.
    /// `closed` is name and size, in any order; names of other kinds are left alone.
    #[must_use]
    pub fn surplus<'n>(&self, closed: &'n [(String, u64)], open: u64) -> Vec<&'n str> {
        let mut ours: Vec<(&str, &str, u64)> = closed
            .iter()
            .filter_map(|(name, size)| Some((closed_at(name)?, name.as_str(), *size)))
            .collect();
        ours.sort_unstable();
        let mut total = ours.iter().fold(open, |sum, (_, _, size)| sum.saturating_add(*size));
        let mut count = ours.len();
        let mut surplus = Vec::new();
        for (_, name, size) in ours {
            if total <= self.total_max && count <= limits::LOG_FILES_MAX {
                break;
            }
            total -= size;
            count -= 1;
            surplus.push(name);
        }
        surplus
    }
}

/// The name of an open file.
#[must_use]
pub fn open_name(log: Log) -> &'static str {
    match log {
        Log::Main => logfiles::MAIN,
        Log::Reject => logfiles::REJECT,
    }
}

/// The name of a file closed at `wall_us`; `n` tells those of one second apart.
#[must_use]
pub fn closed_name(log: Log, wall_us: u64, n: u32) -> String {
    let c = civil(wall_us / 1_000_000);
    format!(
        "{}.{:04}{:02}{:02}T{:02}{:02}{:02}Z-{n:03}",
        open_name(log),
        c.year,
        c.month,
        c.day,
        c.hour,
        c.minute,
        c.second
    )
}

/// When a file was closed, as text that sorts by time; `None` if the name is not one of ours.
fn closed_at(name: &str) -> Option<&str> {
    let (log, rest) = name.split_once('.')?;
    if log != open_name(Log::Main) && log != open_name(Log::Reject) {
        return None;
    }
    let pattern = "00000000T000000Z-000";
    let good = rest.len() == pattern.len()
        && rest.bytes().zip(pattern.bytes()).all(|(found, wanted)| match wanted {
            b'0' => found.is_ascii_digit(),
            _ => found == wanted,
        });
    good.then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { size_max: 1_000, age_us_max: 60_000_000, total_max: 3_000 };
    const T: u64 = 1_785_414_896_000_000;

    #[test]
    fn a_file_is_closed_for_its_size_or_its_age() {
        assert!(!RULES.is_due(0, 0, T, 5_000));
        assert!(!RULES.is_due(900, T, T, 100));
        assert!(RULES.is_due(900, T, T, 101));
        assert!(!RULES.is_due(1, T, T + 59_999_999, 1));
        assert!(RULES.is_due(1, T, T + 60_000_000, 1));
        assert!(!RULES.is_due(1, T, T - 60_000_000, 1), "the clock went back");
    }

    #[test]
    fn the_oldest_go_first_whatever_log_they_are() {
        let name = |log, s: u64, n| closed_name(log, T + s * 1_000_000, n);
        let closed = [
            (name(Log::Main, 3, 0), 1_000),
            (name(Log::Reject, 1, 0), 1_000),
            (name(Log::Main, 1, 1), 1_000),
            (name(Log::Main, 2, 0), 1_000),
            ("mainlog".to_owned(), 9_999),
            ("mainlog.1".to_owned(), 9_999),
            ("mainlog.20260730T123456Z-000.gz".to_owned(), 9_999),
            ("notes.20260730T123456Z-000".to_owned(), 9_999),
        ];
        assert_eq!(
            RULES.surplus(&closed, 500),
            [closed[1].0.as_str(), closed[2].0.as_str()],
            "4,500 octets become 2,500"
        );
        assert!(RULES.surplus(&closed[..2], 1_000).is_empty());
        assert_eq!(RULES.surplus(&closed[..2], 1_000_000).len(), 2, "all that may be deleted");
        assert_eq!(closed[0].0, "mainlog.20260730T123459Z-000");
    }

    #[test]
    fn there_are_not_endlessly_many_small_files() {
        let name = |n: usize| closed_name(Log::Main, T + n as u64 * 1_000_000, 0);
        let closed: Vec<_> = (0..limits::LOG_FILES_MAX + 3).map(|n| (name(n), 0)).collect();
        assert_eq!(RULES.surplus(&closed, 0).len(), 3);
    }
}
