//! Two comparisons of the same plan: what moved, and whether the move is larger than the noise.
//!
//! *Limits*: a machine that changed its speed moves everything; ratios to the floor are the first
//! thing to look at, and stand first.

use std::fmt::Write as _;

use super::report::{Ratio, Report};
use crate::stats::Median;

/// Figures that are compared, and whether less is better.
const WATCHED: [(&str, bool); 8] = [
    ("cpu_us", true),
    ("rate", false),
    ("relayed", false),
    ("dot_p50_us", true),
    ("dot_p99_us", true),
    ("flushes", true),
    ("written_octets", true),
    ("anonymous_octets", true),
];

/// A page of text: every figure that both have, moves beyond the noise first.
pub fn text(new: &Report, old: &Report) -> String {
    let mut moved = Vec::new();
    let mut noise = 0;
    let mut look = |name: String, new: Median, old: Median, less_is_better: bool| {
        if new.moved_from(&old) {
            let change = (new.value / old.value - 1.0) * 100.0;
            let better = (new.value < old.value) == less_is_better;
            let word = if better { "better" } else { "WORSE" };
            moved.push(format!(
                "{word:<7}{name:<60} {:>22} -> {:<22}{change:>+7.1} %",
                old.text(2),
                new.text(2)
            ));
        } else {
            noise += 1;
        }
    };
    let same = |one: &Ratio, other: &Ratio| {
        (&one.run, &one.ours, &one.other, &one.what)
            == (&other.run, &other.ours, &other.other, &other.what)
    };
    for ratio in &new.ratios {
        if let Some(before) = old.ratios.iter().find(|before| same(before, ratio)) {
            let name = format!("{}: {} : {} {}", ratio.run, ratio.ours, ratio.other, ratio.what);
            look(name, ratio.value, before.value, false);
        }
    }
    for (key, &value) in &new.figures {
        let figure = key.rsplit('|').next().unwrap_or_default();
        let watched = WATCHED.iter().find(|(name, _)| *name == figure);
        if let (Some(&(_, less)), Some(&before)) = (watched, old.figures.get(key)) {
            look(key.replace('|', ": "), value, before, less);
        }
    }
    let mut text = format!("against {} ({}):\n", old.title, old.machine_text());
    if new.plan.rounds.min(old.plan.rounds) < 3 {
        text.push_str("fewer than 3 rounds: the noise is not known, every move looks real\n");
    }
    for line in &moved {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(text, "{} moved beyond the noise, {noise} did not", moved.len());
    text
}
