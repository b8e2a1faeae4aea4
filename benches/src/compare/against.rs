//! Two comparisons of the same plan: what moved, and whether the move is larger than the noise.
//!
//! *Limits*: a machine that changed its speed moves everything; ratios to the floor are the first
//! thing to look at, and stand first. Of many figures some move by chance: it says how many.
//! A rate that the source limited says nothing of the server, and is left out.

use std::fmt::Write as _;

use super::report::{Ratio, Report, Worth};
use crate::limits::{BUSY_LOAD_AVERAGE, BUSY_SHARE_MIN};
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
    let (mut noise, mut limited) = (0, 0);
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
            if [ratio.worth, before.worth].contains(&Worth::ClientLimited) {
                limited += 1;
                continue;
            }
            look(ratio_name(ratio), ratio.value, before.value, false);
        }
    }
    for (key, &value) in &new.figures {
        let figure = key.rsplit('|').next().unwrap_or_default();
        let watched = WATCHED.iter().find(|(name, _)| *name == figure);
        if let (Some(&(_, less)), Some(&before)) = (watched, old.figures.get(key)) {
            if figure == "rate" && !(is_busy(new, key) && is_busy(old, key)) {
                limited += 1;
                continue;
            }
            look(key.replace('|', ": "), value, before, less);
        }
    }
    let mut text = heading(new, old);
    for line in &moved {
        let _ = writeln!(text, "{line}");
    }
    let chance = Median::moves_by_chance(new.rounds(), old.rounds());
    let by_chance = chance * (moved.len() + noise) as f64;
    let _ = writeln!(
        text,
        "{} moved beyond the noise (no round of the one within the spread of the other), {noise} \
         did not; about {by_chance:.0} would by chance alone",
        moved.len()
    );
    if limited > 0 {
        let _ = writeln!(text, "{limited} rates that the source limited are not compared");
    }
    text
}

/// What is compared with what, and what makes the comparison doubtful.
fn heading(new: &Report, old: &Report) -> String {
    let mut text =
        format!("against {} ({})\nnow ({}):\n", old.title, old.machine_text(), new.machine_text());
    if new.rounds().min(old.rounds()) < 3 {
        text.push_str("fewer than 3 rounds: the noise is not known, every move looks real\n");
    }
    let machine = |report: &Report| {
        let machine = &report.machine;
        (machine.cpus, machine.cpu.clone(), machine.kernel.clone(), machine.device.clone())
    };
    if machine(new) != machine(old) {
        text.push_str("not the same machine: only ratios can be compared\n");
    }
    if (new.plan.burst_s - old.plan.burst_s).abs() > f64::EPSILON {
        let (now, then) = (new.plan.burst_s, old.plan.burst_s);
        let _ = writeln!(text, "bursts of {now} s now, of {then} s then");
    }
    let loads = [new.machine.load_average, old.machine.load_average].concat();
    if loads.iter().any(|load| *load > BUSY_LOAD_AVERAGE) {
        text.push_str("somebody else was at work in one of them: look at ratios only\n");
    }
    if new.interrupted || old.interrupted {
        text.push_str("one of them ended early\n");
    }
    text
}

fn ratio_name(ratio: &Ratio) -> String {
    let Ratio { run, ours, other, what, .. } = ratio;
    match &what[..] {
        "cpu" => format!("{run}: CPU of {other} / CPU of {ours}"),
        _ => format!("{run}: {what} of {ours} / {what} of {other}"),
    }
}

/// Whether the server of a figure kept its processor busy.
fn is_busy(report: &Report, key: &str) -> bool {
    let of = key.rsplit_once('|').map_or(key, |(of, _)| of);
    report.figures.get(&format!("{of}|busy")).is_some_and(|busy| busy.value >= BUSY_SHARE_MIN)
}
