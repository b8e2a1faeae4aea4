//! What must be reached (DESIGN.md, "Numbers to hold", and `docs/decisions/036-durable-floor.md`),
//! with what was measured beside it.
//!
//! *Limits*: only figures of servers named `discard` and `durable`, and of loads that a row is
//! about; what was not measured has no row.

use std::fmt::Write as _;

use crate::limits::{BUSY_LOAD_AVERAGE, COMMIT_SLOW_US, DURABLE_FLOOR_NAME, FLOOR_NAME};
use crate::stats::Median;

use super::report::Report;

const KIB: f64 = 1024.0;
const MIB: f64 = 1_048_576.0;

/// A bound: what is asked at first, and what in the end.
#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast([f64; 2]),
    AtMost([f64; 2]),
}

impl Bound {
    fn verdict(self, value: f64) -> &'static str {
        let [first, goal] = match self {
            Self::AtLeast(bounds) => bounds.map(|bound| value >= bound),
            Self::AtMost(bounds) => bounds.map(|bound| value <= bound),
        };
        match (first, goal) {
            (_, true) => "goal met",
            (true, false) => "first stage met, goal missed",
            (false, false) => "missed",
        }
    }

    fn text(self, digits: usize) -> [String; 2] {
        match self {
            Self::AtLeast(bounds) => bounds.map(|bound| format!(">= {bound:.digits$}")),
            Self::AtMost(bounds) => bounds.map(|bound| format!("<= {bound:.digits$}")),
        }
    }
}

const FLOOR_DISCARD: Bound = Bound::AtLeast([0.70, 0.80]);
const DISCARD_DURABLE: Bound = Bound::AtLeast([0.85, 0.90]);
const FLOOR_DURABLE: Bound = Bound::AtLeast([0.65, 0.85]);
const LOG_FLOOR_DURABLE: Bound = Bound::AtLeast([0.70, 0.80]);
const DOT_COMMIT: Bound = Bound::AtMost([5.0, 3.0]);
const DOT_LOG_FLOOR: Bound = Bound::AtMost([1.5, 1.2]);
const WRITTEN_4K: Bound = Bound::AtMost([1.20, 1.10]);
const WRITTEN_64K: Bound = Bound::AtMost([1.05, 1.02]);
const FLUSHES: Bound = Bound::AtMost([1.0 / 4.0, 1.0 / 8.0]);
const FLUSHES_SESSIONS: u32 = 64;
const IDLE: Bound = Bound::AtMost([8.0, 4.0]);
const IDLE_TLS: Bound = Bound::AtMost([48.0, 24.0]);
const LARGE: Bound = Bound::AtMost([4.0, 2.0]);

struct Row {
    what: String,
    of: String,
    measured: Median,
    bound: Bound,
    digits: usize,
    note: &'static str,
}

/// The rows as text; empty when nothing that a row is about was measured.
pub fn text(report: &Report) -> String {
    let mut rows = costs(report);
    rows.extend(latencies(report));
    rows.extend(writes(report));
    rows.extend(memory(report));
    if rows.is_empty() {
        return String::new();
    }
    let mut text = String::from("\nwhat must be reached: median [least-most], first stage, goal\n");
    for row in rows {
        let [first, goal] = row.bound.text(row.digits);
        let _ = writeln!(
            text,
            "{:<45} {:<53} {:>20}  {first:<8} {goal:<8} {}{}",
            row.what,
            row.of,
            row.measured.text(row.digits),
            row.bound.verdict(row.measured.value),
            row.note,
        );
    }
    let [before, after] = report.load_average;
    if before.max(after) > BUSY_LOAD_AVERAGE {
        let _ = writeln!(
            text,
            "somebody else was at work (load average {before:.1} before, {after:.1} after): \
             times and CPU above are worth little"
        );
    }
    text
}

fn costs(report: &Report) -> Vec<Row> {
    let pairs = [
        (FLOOR_NAME, "discard", FLOOR_DISCARD),
        ("discard", "durable", DISCARD_DURABLE),
        (FLOOR_NAME, "durable", FLOOR_DURABLE),
        (DURABLE_FLOOR_NAME, "durable", LOG_FLOOR_DURABLE),
    ];
    let mut rows = Vec::new();
    for (a, b, bound) in pairs {
        for load in &report.loads_closed {
            let Some(&measured) = report.medians.get(&format!("{load}/{a}:{b}/cpu_us")) else {
                continue;
            };
            let what = format!("{a} CPU / {b} CPU of a message");
            rows.push(Row { what, of: load.clone(), measured, bound, digits: 2, note: "" });
        }
    }
    rows
}

/// The latency of the final dot at half the rate of saturation, over that of a bare commit just
/// before, and over that of the durable floor at the same rate, round by round.
fn latencies(report: &Report) -> Vec<Row> {
    let p99 = |load: &str, server: &str, round: usize| {
        let mut bursts = report.bursts.iter();
        let burst = bursts.find(|b| b.load == load && b.server == server && b.round == round)?;
        Some(burst.source.phases.get("final_dot")?.p99_us)
    };
    let mut rows = Vec::new();
    for load in &report.loads_half {
        let over = |least: &dyn Fn(usize) -> Option<f64>| {
            let rounds = 0..report.commits.len();
            Median::of(
                rounds.filter_map(|round| Some(p99(load, "durable", round)? / least(round)?)),
            )
        };
        let bare = over(&|round| Some(report.commits.get(round)?.p99_us));
        let floor = over(&|round| p99(load, DURABLE_FLOOR_NAME, round));
        let bare = (bare, "p99 final dot to 250 / p99 of a bare commit", DOT_COMMIT, 1);
        let floor = (floor, "p99 final dot to 250 / that of the durable floor", DOT_LOG_FLOOR, 2);
        for (measured, what, bound, digits) in [bare, floor] {
            let row = |measured| Row {
                what: what.to_owned(),
                of: load.clone(),
                measured,
                bound,
                digits,
                note: "",
            };
            rows.extend(measured.map(row));
        }
    }
    rows
}

fn writes(report: &Report) -> Vec<Row> {
    let mut rows = Vec::new();
    for load in &report.loads_closed {
        let figure = |name: &str| report.medians.get(&format!("{load}/durable/{name}")).copied();
        let bound = match load.split(' ').next() {
            Some("4096" | "4k") => Some(WRITTEN_4K),
            Some("65536" | "64k") => Some(WRITTEN_64K),
            _ => None,
        };
        if let (Some(bound), Some(measured)) = (bound, figure("written")) {
            let what = "octets written to one copy / message octets".to_owned();
            rows.push(Row { what, of: load.clone(), measured, bound, digits: 3, note: "" });
        }
        let Some(device) = &report.device else { continue };
        let (what, name) = if device.fua {
            ("FUA writes a message", "writes")
        } else {
            ("flushes a message", "flushes")
        };
        if let (Some(measured), FLUSHES_SESSIONS) = (figure(name), report.sessions) {
            let what = format!("{what}, {FLUSHES_SESSIONS} busy sessions");
            let fast = report.commit.is_some_and(|commit| commit.p50_us < COMMIT_SLOW_US);
            // A slower device has more messages waiting when a commit ends: it flushes less often.
            let note = if fast { " (on a device faster than the row asks)" } else { "" };
            rows.push(Row { what, of: load.clone(), measured, bound: FLUSHES, digits: 3, note });
        }
    }
    rows
}

fn memory(report: &Report) -> Vec<Row> {
    let exact = |value| Median { value, least: value, most: value };
    let idle = report.idle.iter().filter(|idle| idle.server.starts_with("durable"));
    let idle = idle.map(|idle| Row {
        what: "resident KiB of an idle session after EHLO".to_owned(),
        of: idle.server.clone(),
        measured: exact(idle.octets_per_session() / KIB),
        bound: if idle.server.ends_with(", TLS") { IDLE_TLS } else { IDLE },
        digits: 1,
        note: "",
    });
    let large = report.large.iter().filter(|large| large.server == "durable").map(|large| Row {
        what: "MiB for each of ten messages of 100 MiB".to_owned(),
        of: large.server.clone(),
        measured: exact(large.octets_per_message() / MIB),
        bound: LARGE,
        digits: 1,
        note: "",
    });
    idle.chain(large).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_have_two_stages() {
        assert_eq!(FLOOR_DURABLE.verdict(0.85), "goal met");
        assert_eq!(FLOOR_DURABLE.verdict(0.66), "first stage met, goal missed");
        assert_eq!(FLOOR_DURABLE.verdict(0.64), "missed");
        assert_eq!(DOT_LOG_FLOOR.verdict(1.3), "first stage met, goal missed");
        assert_eq!(DOT_COMMIT.verdict(3.0), "goal met");
        assert_eq!(DOT_COMMIT.verdict(4.0), "first stage met, goal missed");
        assert_eq!(DOT_COMMIT.verdict(f64::NAN), "missed");
        assert_eq!(FLUSHES.text(3), ["<= 0.250", "<= 0.125"]);
    }
}
