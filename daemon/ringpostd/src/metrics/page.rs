//! The page Prometheus reads: text exposition format, version 0.0.4.
//!
//! *Guarantees.* HELP and TYPE stand once, right before the samples of their metric. A cell with
//! labels that was never counted is left out; those of alarms and the ledger are always there.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::CoreView;
use super::cells::{Counter, FAMILIES, Family, Gauge};
use crate::events::Phase;

/// What the page says about the process.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The daemon's version.
    pub version: &'a str,
    /// The node's name.
    pub hostname: &'a str,
    /// When the process started, in microseconds since the Unix epoch.
    pub started_wall_us: u64,
    /// Whether `durability` is "none".
    pub durable: bool,
    /// Cores at work.
    pub cores: usize,
}

/// The percentiles of each phase.
const QUANTILES: [(f64, &str); 4] = [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99"), (0.999, "0.999")];

/// Writes the page of all that count: the cores, and the house. [`CoreView::collect`] comes before.
#[must_use]
pub fn page(about: &About<'_>, cores: &[CoreView]) -> String {
    let mut out = String::with_capacity(16 << 10);
    process(&mut out, about);
    for counter in Counter::ALL {
        head(&mut out, counter.metric(), "counter", counter.help().trim());
        let total = sum(cores, Family::counter(*counter));
        let _ = writeln!(out, "{} {total}", counter.metric());
    }
    for gauge in Gauge::ALL {
        head(&mut out, gauge.metric(), "gauge", gauge.help().trim());
        let total = sum(cores, Family::gauge(*gauge));
        let _ = writeln!(out, "{} {total}", gauge.metric());
    }
    for family in FAMILIES {
        labelled(&mut out, family, cores);
    }
    phases(&mut out, cores);
    out
}

fn head(out: &mut String, metric: &str, kind: &str, help: &str) {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    let _ = write!(out, "# HELP {metric} {help}\n# TYPE {metric} {kind}\n");
}

fn sum(cores: &[CoreView], cell: usize) -> u64 {
    cores.iter().fold(0, |sum, core| sum.wrapping_add(core.cell(cell)))
}

fn process(out: &mut String, about: &About<'_>) {
    head(out, "ringpost_info", "gauge", "The daemon; its value is 1.");
    let (version, hostname) = (escaped(about.version), escaped(about.hostname));
    let _ = writeln!(out, "ringpost_info{{version=\"{version}\",hostname=\"{hostname}\"}} 1");
    head(out, "ringpost_start_time_seconds", "gauge", "Start of the process, Unix time.");
    let (s, us) = (about.started_wall_us / 1_000_000, about.started_wall_us % 1_000_000);
    let _ = writeln!(out, "ringpost_start_time_seconds {s}.{us:06}");
    head(out, "ringpost_cores", "gauge", "Cores at work.");
    let _ = writeln!(out, "ringpost_cores {}", about.cores);
    head(out, "ringpost_spool_durable", "gauge", "1 if durability is \"fsync\", 0 if \"none\".");
    let _ = writeln!(out, "ringpost_spool_durable {}", u8::from(about.durable));
}

/// A label's value, as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn labelled(out: &mut String, family: &Family, cores: &[CoreView]) {
    head(out, family.metric, family.kind, family.help);
    let cells: usize = family.labels.iter().map(|label| label.values).product();
    let always = family.labels.len() == 1 && matches!(family.labels[0].name, "alarm" | "entry");
    for cell in 0..cells {
        let total = sum(cores, family.first + cell).cast_signed();
        if total == 0 && !always {
            continue;
        }
        let _ = write!(out, "{}{{", family.metric);
        let mut below = cells;
        let mut rest = cell;
        for (at, label) in family.labels.iter().enumerate() {
            below /= label.values;
            let comma = if at > 0 { "," } else { "" };
            let value = escaped((label.value)(rest / below));
            let _ = write!(out, "{comma}{}=\"{value}\"", label.name);
            rest %= below;
        }
        let _ = writeln!(out, "}} {total}");
    }
}

fn phases(out: &mut String, cores: &[CoreView]) {
    const METRIC: &str = "ringpost_phase_seconds";
    head(out, METRIC, "summary", "Time phases took; percentiles of the last one to two minutes.");
    for phase in Phase::ALL {
        let label = phase.label();
        let mut all = Histogram::<u32>::new(2).expect("two digits are in hdrhistogram's range");
        for set in cores.iter().flat_map(|core| &core.recent) {
            all.add(&set.0[phase.index()]).expect("it grows as it must");
        }
        for (quantile, text) in QUANTILES {
            let _ = write!(out, "{METRIC}{{phase=\"{label}\",quantile=\"{text}\"}} ");
            match all.is_empty() {
                true => out.push_str("NaN\n"),
                false => seconds(out, all.value_at_quantile(quantile)),
            }
        }
        let _ = write!(out, "{METRIC}_sum{{phase=\"{label}\"}} ");
        seconds(out, sum(cores, Family::phase_sum_us(*phase)));
        let count = sum(cores, Family::phase_count(*phase));
        let _ = writeln!(out, "{METRIC}_count{{phase=\"{label}\"}} {count}");
    }
}

fn seconds(out: &mut String, us: u64) {
    let _ = writeln!(out, "{}.{:06}", us / 1_000_000, us % 1_000_000);
}
