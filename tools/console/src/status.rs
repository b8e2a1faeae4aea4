//! Pages about the daemon as a whole: version, status, ledger.

use control::{Ledger, RunState, Status, VersionInfo};

use crate::page::{Align, Column, Page};
use crate::text::{size, span};

/// `version`.
pub(crate) fn version(page: &mut Page, info: &VersionInfo) {
    page.field("ringpostd", &info.version);
    page.field("build", &info.build);
    page.field("spool format", &info.spool_format.to_string());
    page.field("protocol", &info.protocol.to_string());
    page.field("kernel", &info.kernel);
    page.field("ringpost", env!("CARGO_PKG_VERSION"));
}

const CORES: [Column; 9] = [
    ("core", 4, Align::Right),
    ("sessions", 10, Align::Right),
    ("outbound", 8, Align::Right),
    ("accepted", 10, Align::Right),
    ("refused", 8, Align::Right),
    ("queued", 7, Align::Right),
    ("commit ms", 9, Align::Right),
    ("turned", 7, Align::Right),
    ("", 0, Align::Left),
];

/// A core that has not turned its loop for this long is named.
const STUCK_MS: u64 = 2_000;

/// `status`.
pub(crate) fn status(
    page: &mut Page,
    status: &Status,
    ledger: Option<&Ledger>,
    health: &[(String, String)],
) {
    for alarm in status.alarms.iter() {
        page.paragraph(0, &format!("ALARM {}", &**alarm));
    }
    if status.durability.as_ref() as &str == "none" {
        page.line("ALARM durability = \"none\": a crash loses mail that was accepted");
    }
    if !status.clock_trusted {
        page.paragraph(
            0,
            "ALARM the wall clock is in doubt: nothing expires until it is confirmed",
        );
    }
    let state = match status.state {
        RunState::Starting => "starting: recovering the log",
        RunState::Running => "running",
        RunState::Draining => "draining: finishing what is open",
        _ => "in a state this ringpost does not know",
    };
    page.field("state", &format!("{state}, up {}", span(status.uptime_s)));
    let (node, run, pid) = (status.node, status.run, status.pid);
    page.field("daemon", &format!("{} node {node} run {run} pid {pid}", &*status.version));
    let generation = status.config_generation;
    page.field("config", &format!("{} generation {generation}", &*status.config_file));
    let (messages, recipients) = (status.queued_messages, status.queued_recipients);
    let held = status.held_messages;
    page.field(
        "queue",
        &format!(
            "{messages} messages for {recipients} recipients, {held} held, oldest {}",
            span(status.oldest_s)
        ),
    );
    let rates: Vec<String> = [60, 300, 900]
        .into_iter()
        .zip(status.accepted_lately)
        .map(|(seconds, count): (u64, u64)| {
            format!("{}.{}", count / seconds, count * 10 / seconds % 10)
        })
        .collect();
    page.field("accepted/s", &format!("{} over 1, 5, 15 minutes", rates.join(" ")));
    if let Some(ledger) = ledger {
        page.field("ledger", &books(ledger));
    }
    let (free, all) = (size(status.spool_free_octets), size(status.spool_octets));
    page.field("spool", &format!("{free} of {all} free, durability {}", &*status.durability));
    let listeners: Vec<&str> = status.listeners.iter().map(|line| &**line).collect();
    page.field("listening", &listeners.join(", "));
    for line in status.devices.iter() {
        page.field("device", line);
    }
    for (disk, health) in health {
        page.field("health", &format!("{disk}: {health}"));
    }
    for line in status.links.iter() {
        page.field("link", line);
    }
    for line in status.engine.iter() {
        page.field("engine", line);
    }
    if !status.cores.is_empty() {
        cores(page, status);
    }
}

fn cores(page: &mut Page, status: &Status) {
    page.line("");
    page.head(&CORES);
    for core in status.cores.iter() {
        let stuck = if core.turned_ms >= STUCK_MS { "STUCK" } else { "" };
        page.row(
            &CORES,
            &[
                core.core.to_string(),
                format!("{}/{}", core.sessions, core.sessions_max),
                core.outbound.to_string(),
                core.accepted.to_string(),
                core.refused.to_string(),
                core.queued.to_string(),
                match core.commit_p99_us {
                    0 => "-".to_owned(),
                    _ => format!("{}/{}", ms(core.commit_p50_us), ms(core.commit_p99_us)),
                },
                format!("{}ms", core.turned_ms),
                stuck.to_owned(),
            ],
        );
    }
}

fn ms(us: u64) -> String {
    format!("{}.{}", us / 1_000, us / 100 % 10)
}

/// What came in stands in one of these.
fn outs(ledger: &Ledger) -> [(&'static str, i64); 7] {
    [
        ("delivered", ledger.delivered),
        ("handed over", ledger.handed_over),
        ("bounced", ledger.bounced),
        ("double bounces", ledger.double_bounces),
        ("removed", ledger.removed),
        ("held", ledger.held),
        ("queued", ledger.queued),
    ]
}

/// The ledger in a line, in recipients.
fn books(ledger: &Ledger) -> String {
    let state = match ledger.difference() {
        0 => "balances".to_owned(),
        difference => format!("DOES NOT BALANCE by {difference}"),
    };
    let outs = outs(ledger);
    let outs = outs.into_iter().filter(|(_, count)| *count != 0);
    let outs: String = outs.map(|(name, count)| format!(", {count} {name}")).collect();
    format!("{state}: {} in{outs}", ledger.accepted.saturating_add(ledger.generated))
}

/// `ledger`; whether it balances.
pub(crate) fn ledger(page: &mut Page, ledger: &Ledger) {
    let columns: [Column; 2] = [("recipients", 18, Align::Left), ("", 20, Align::Right)];
    let ins = [("accepted", ledger.accepted), ("generated", ledger.generated)];
    page.head(&columns);
    let signed = ins.map(|row| ("+", row)).into_iter().chain(outs(ledger).map(|row| ("-", row)));
    for (sign, (name, count)) in signed {
        page.row(&columns, &[format!("{sign} {name}"), count.to_string()]);
    }
    let difference = ledger.difference();
    page.row(&columns, &["= difference".to_owned(), difference.to_string()]);
    if difference == 0 {
        page.line("The ledger balances.");
    } else {
        page.line("ALARM the ledger does not balance: keep the spool and the logs as they are.");
    }
}
