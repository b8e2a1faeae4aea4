//! What is looked at now and then: heartbeats, clock, log files, certificates, snapshots.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::rc::Rc;

use control::RunState;
use tokio::time::MissedTickBehavior;

use crate::config::Durability;
use crate::events::{Alarm, Note};
use crate::post::ToCore;

use super::House;
use super::clock::Change;
use super::limits::{CERTIFICATE_EVERY_US, CERTIFICATE_LEFT_S, SNAPSHOT_EVERY_US, STALL_US, TICK};

const SECOND_US: u64 = 1_000_000;
const DAY_S: i64 = 86_400;

/// When something was done last.
#[derive(Debug)]
struct Every {
    period_us: u64,
    next_us: u64,
}

impl Every {
    fn from(period_us: u64, first_us: u64) -> Self {
        Self { period_us, next_us: first_us }
    }

    fn is_due(&mut self, now_us: u64) -> bool {
        let due = now_us >= self.next_us;
        if due {
            self.next_us = now_us.saturating_add(self.period_us);
        }
        due
    }
}

impl House {
    /// For ever.
    pub(super) async fn do_chores(self: Rc<Self>) {
        let now_us = engine::now_us();
        let mut certificates = Every::from(CERTIFICATE_EVERY_US, now_us);
        let mut snapshot = Every::from(SNAPSHOT_EVERY_US, now_us + SNAPSHOT_EVERY_US);
        let mut collect = Every::from(SECOND_US, now_us);
        let alive = self.notify.alive_every();
        let alive = alive.map(|every| u64::try_from(every.as_micros()).unwrap_or(u64::MAX));
        let mut alive = alive.map(|every_us| Every::from(every_us, now_us));
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now_us = engine::now_us();
            let all_turn = self.watch(now_us);
            if all_turn && alive.as_mut().is_some_and(|alive| alive.is_due(now_us)) {
                self.notify.alive();
            }
            self.look_at_clock(now_us);
            self.look_at_log();
            if certificates.is_due(now_us) {
                self.look_at_certificates();
            }
            if snapshot.is_due(now_us) {
                self.snapshot();
            }
            if collect.is_due(now_us) {
                self.views.borrow_mut().iter_mut().for_each(|view| view.collect(now_us));
                self.note_second();
            }
        }
    }

    /// Names cores that stand still, and those that go on. True if all turn.
    fn watch(&self, now_us: u64) -> bool {
        let mut all_turn = true;
        let mut said = Vec::new();
        for (number, core) in self.cores.borrow_mut().iter_mut().enumerate() {
            let Some(beats) = core.beats.as_ref().filter(|_| !core.stopped) else { continue };
            let since_us = now_us.saturating_sub(beats.last_turn_us());
            let stalled = since_us >= STALL_US;
            all_turn &= !stalled;
            if stalled != core.stalled {
                core.stalled = stalled;
                said.push((number, stalled, since_us));
            }
        }
        for (number, stalled, since_us) in said {
            let text = if stalled {
                let ms = since_us / 1_000;
                format!("core {number} stands still: its loop has not turned for {ms} ms")
            } else {
                format!("core {number} turns again")
            };
            self.alarm(Alarm::Stalled, &text);
        }
        all_turn
    }

    fn look_at_clock(&self, now_us: u64) {
        let wall_us = engine::wall_us();
        let synchronised = engine::host::is_clock_synchronised;
        let change = self.clock.borrow_mut().look(now_us, wall_us, synchronised);
        match change {
            Some(Change::Doubted(off_us)) => {
                let days = off_us / 1_000_000 / DAY_S;
                let text = format!(
                    "the wall clock was moved by {} s ({days} days): nothing expires until it is \
                     confirmed, by NTP or [clock] confirmed = true",
                    off_us / 1_000_000
                );
                self.alarm(Alarm::Clock, &text);
                self.tell_all(|| ToCore::ClockConfirmed(false));
            }
            Some(Change::Confirmed) => {
                self.note(Note::Clock, "the wall clock is confirmed by NTP");
                self.tell_all(|| ToCore::ClockConfirmed(true));
            }
            None => {}
        }
    }

    fn look_at_log(&self) {
        let trouble = self.journal.borrow().thread().trouble();
        if trouble.is_some() != self.log_trouble.replace(trouble.is_some()) {
            match trouble {
                Some(error) => {
                    let text = format!("log lines cannot be written: {error}: mail hears 451");
                    self.alarm(Alarm::Log, &text);
                }
                None => self.alarm(Alarm::Log, "log lines can be written again"),
            }
        }
        self.journal.borrow_mut().flush();
    }

    fn certificate_line(&self) -> Option<String> {
        let left_s = self.not_after_s.get()?
            - i64::try_from(engine::wall_us() / SECOND_US).unwrap_or(i64::MAX);
        if left_s >= CERTIFICATE_LEFT_S {
            return None;
        }
        Some(if left_s < 0 {
            format!("a certificate ended {} days ago", -left_s / DAY_S)
        } else {
            format!("a certificate ends in {} days", left_s / DAY_S)
        })
    }

    fn look_at_certificates(&self) {
        if let Some(line) = self.certificate_line() {
            self.alarm(Alarm::Certificate, &format!("{line}: renew it, then reload"));
        }
    }

    fn snapshot(&self) {
        let Some(path) = self.orders.borrow().config.hints.snapshot.clone() else { return };
        let hints = self.hints;
        // What fails now is tried again in an hour and said at the end.
        tokio::task::spawn_blocking(move || write_snapshot(hints, &path));
    }

    /// What the operator should know now, one line each.
    pub(super) fn alarms(&self) -> Vec<String> {
        let mut lines = self.facts.alarms.clone();
        self.device_alarms(&mut lines);
        let orders = self.orders.borrow();
        if orders.config.spool.durability == Durability::None {
            lines.push(
                "durability is \"none\": mail answered 250 is lost when the machine stops"
                    .to_owned(),
            );
        }
        if !self.clock.borrow().is_trusted() {
            lines.push("the wall clock is not confirmed: nothing expires".to_owned());
        }
        if let Some(error) = self.journal.borrow().thread().trouble() {
            lines.push(format!("log lines cannot be written: {error}"));
        }
        lines.extend(self.certificate_line());
        lines.extend(self.filter_alarms());
        let cores = self.cores.borrow();
        let still = cores.iter().enumerate().filter(|(_, core)| core.stalled);
        lines.extend(still.map(|(number, _)| format!("core {number} stands still")));
        if self.state.get() == RunState::Starting {
            lines.push("the daemon is starting".to_owned());
        }
        lines
    }
}

/// Copies the hints to a file, which appears whole or not at all.
///
/// # Errors
/// Those of the file system.
pub(super) fn write_snapshot(hints: &::hints::Hints<'_>, path: &Path) -> io::Result<()> {
    let ::hints::Snapshot(octets) = hints.snapshot();
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = File::create(&new)?;
    file.write_all(&octets)?;
    file.sync_all()?;
    fs::rename(&new, path)
}
