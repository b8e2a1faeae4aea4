//! What a core counts, and the Prometheus page that the house thread makes of all cores.
//!
//! *Guarantees.* Counting is plain arithmetic on the core's own words; once in a while
//! [`CoreMetrics::publish`] copies them out. No lock, no allocation after start.
//! *Limits.* A phase longer than an hour counts as an hour.
//! *Failure.* If nobody collects, phases pile up in the core's own histogram: nothing is lost.

mod cells;
mod page;

pub use cells::{Counter, Gauge, LEDGER_ENTRIES};
pub use page::{About, page};

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use hdrhistogram::Histogram;

use crate::events::{Attempt, Event, Phase, Reader, Reason, Stage};
use crate::limits;
use cells::{CELLS, Family};

/// Words on their own cache lines are not needed: one core writes, once in a while.
struct Published(Box<[AtomicU64]>);

/// A histogram for each phase, in microseconds.
struct PhaseSet(Vec<Histogram<u32>>);

impl PhaseSet {
    fn new() -> Self {
        let one = || {
            Histogram::new_with_bounds(1, limits::PHASE_US_MAX, 2)
                .expect("an hour in microseconds with two digits is in hdrhistogram's range")
        };
        Self(Phase::ALL.iter().map(|_| one()).collect())
    }

    fn clear(&mut self) {
        self.0.iter_mut().for_each(Histogram::reset);
    }

    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            mine.add(theirs).expect("all sets have the same bounds");
        }
    }
}

/// Filled sets on their way to the house thread, and empty ones on their way back.
struct Exchange {
    full: ArrayQueue<Box<PhaseSet>>,
    empty: ArrayQueue<Box<PhaseSet>>,
}

/// The core's end.
pub struct CoreMetrics {
    cells: Box<[u64]>,
    phases: Box<PhaseSet>,
    recorded: bool,
    published: Arc<Published>,
    exchange: Arc<Exchange>,
}

/// The house thread's end.
pub struct CoreView {
    published: Arc<Published>,
    exchange: Arc<Exchange>,
    /// The minute under way and the one before.
    recent: [PhaseSet; 2],
    minute_began_us: u64,
}

/// How long phases are kept for the percentiles.
const WINDOW_US: u64 = 60_000_000;

/// The two ends for one core.
#[must_use]
pub fn for_core() -> (CoreMetrics, CoreView) {
    let words = (0..CELLS).map(|_| AtomicU64::new(0)).collect();
    let published = Arc::new(Published(words));
    let exchange = Arc::new(Exchange { full: ArrayQueue::new(1), empty: ArrayQueue::new(1) });
    exchange.empty.push(Box::new(PhaseSet::new())).ok().expect("the queue has room for one");
    let core = CoreMetrics {
        cells: vec![0; CELLS].into(),
        phases: Box::new(PhaseSet::new()),
        recorded: false,
        published: Arc::clone(&published),
        exchange: Arc::clone(&exchange),
    };
    let recent = [PhaseSet::new(), PhaseSet::new()];
    (core, CoreView { published, exchange, recent, minute_began_us: 0 })
}

impl CoreMetrics {
    /// Counts `n` more.
    pub fn add(&mut self, counter: Counter, n: u64) {
        self.bump(Family::counter(counter), n);
    }

    /// Says how much there is now.
    pub fn set(&mut self, gauge: Gauge, value: u64) {
        self.cells[Family::gauge(gauge)] = value;
    }

    /// The ledger of this core's log, in the order of [`LEDGER_ENTRIES`].
    pub fn set_ledger(&mut self, recipients: [i64; LEDGER_ENTRIES.len()]) {
        for (at, count) in recipients.into_iter().enumerate() {
            self.cells[Family::ledger(at)] = count.cast_unsigned();
        }
    }

    /// How much was counted since the start of the process.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.cells[Family::counter(counter)]
    }

    /// Copies everything to where the house thread reads it; for once in a turn or second.
    pub fn publish(&mut self) {
        for (word, cell) in self.published.0.iter().zip(&self.cells) {
            word.store(*cell, Ordering::Relaxed);
        }
        if !self.recorded {
            return;
        }
        // A spare set is there only if the last full one was collected, so there is room for one.
        if let Some(spare) = self.exchange.empty.pop() {
            let full = std::mem::replace(&mut self.phases, spare);
            self.recorded = self.exchange.full.push(full).is_err();
        }
    }

    fn bump(&mut self, cell: usize, n: u64) {
        self.cells[cell] = self.cells[cell].wrapping_add(n);
    }

    /// A phase took so long: what [`Event::Took`] says, without the way through the stream.
    pub fn took(&mut self, phase: Phase, us: u64) {
        self.phases.0[phase.index()].saturating_record(us.max(1));
        self.recorded = true;
        self.bump(Family::phase_count(phase), 1);
        self.bump(Family::phase_sum_us(phase), us);
    }

    fn attempted(&mut self, cell: usize, attempt: &Attempt<'_>) {
        self.bump(cell, 1);
        if attempt.hop.is_some() {
            self.add(Counter::Attempts, 1);
        }
    }

    fn refused(&mut self, stage: Stage, reason: Reason) {
        self.bump(Family::refused(stage, reason), 1);
    }
}

impl Reader for CoreMetrics {
    fn read(&mut self, _: u64, event: &Event<'_>) {
        match *event {
            Event::Connected(_) => self.add(Counter::Connections, 1),
            Event::ConnectRefused { reason, .. } => self.refused(Stage::Connect, reason),
            Event::CommandRefused(refused) => self.refused(refused.stage, refused.reason),
            Event::EarlyTalker { .. } => self.add(Counter::EarlyTalkers, 1),
            Event::WouldRefuse { .. } => self.add(Counter::WouldRefuse, 1),
            Event::LimitHit { reason, .. } => self.bump(Family::limit(reason), 1),
            Event::TlsStarted(_) => self.add(Counter::TlsStarted, 1),
            Event::TlsFailed { .. } => self.add(Counter::TlsFailed, 1),
            Event::SessionClosed { ending, .. } => self.bump(Family::ending(ending), 1),
            Event::Accepted(accepted) => {
                self.add(Counter::MessagesAccepted, 1);
                self.add(Counter::RecipientsAccepted, u64::from(accepted.recipients));
                self.add(Counter::OctetsAccepted, accepted.octets);
            }
            Event::Generated(generated) => {
                self.add(Counter::MessagesGenerated, 1);
                self.add(Counter::RecipientsGenerated, u64::from(generated.recipients));
            }
            Event::Relayed { attempt, .. } => {
                self.attempted(Family::counter(Counter::RecipientsRelayed), attempt);
            }
            Event::Deferred { attempt, reason } => {
                self.attempted(Family::deferred(reason), attempt);
            }
            Event::Bounced { attempt, reason } => self.attempted(Family::bounced(reason), attempt),
            Event::Completed { queue_us, .. } => {
                self.add(Counter::MessagesCompleted, 1);
                self.took(Phase::Queue, queue_us);
            }
            Event::Held { .. } => self.add(Counter::MessagesHeld, 1),
            Event::Released { .. } => self.add(Counter::MessagesReleased, 1),
            Event::Moved { .. } => self.add(Counter::MessagesMoved, 1),
            Event::Removed { .. } => self.add(Counter::MessagesRemoved, 1),
            Event::Line { .. } => {}
            Event::Took(phase, us) => self.took(phase, us),
            Event::Noted(note, _) => self.bump(Family::note(note), 1),
            Event::Alarmed(alarm, _) => self.bump(Family::alarm(alarm), 1),
        }
    }
}

impl CoreView {
    /// Takes in what the core has published; for once a second, and before a page is made.
    pub fn collect(&mut self, now_us: u64) {
        if now_us.saturating_sub(self.minute_began_us) >= WINDOW_US {
            self.minute_began_us = now_us;
            self.recent.swap(0, 1);
            self.recent[0].clear();
        }
        if let Some(mut full) = self.exchange.full.pop() {
            self.recent[0].add(&full);
            full.clear();
            // The core holds the other set, so the queue of empty ones is empty.
            self.exchange.empty.push(full).ok().expect("two sets, one of them with the core");
        }
    }

    /// A gauge as it was last published.
    #[must_use]
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.cell(Family::gauge(gauge))
    }

    /// A counter as it was last published.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> u64 {
        self.cell(Family::counter(counter))
    }

    /// Connections, commands and messages refused, as it was last published.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.all_of(Family::refused_all())
    }

    /// Attempts after which a recipient waits, as it was last published.
    #[must_use]
    pub fn deferred(&self) -> u64 {
        self.all_of(Family::deferred_all())
    }

    fn all_of(&self, cells: std::ops::Range<usize>) -> u64 {
        cells.fold(0, |sum, cell| sum.wrapping_add(self.cell(cell)))
    }

    /// How long the share `quantile` of a phase took at most in the last one to two minutes, in
    /// microseconds; 0 where there was none.
    #[must_use]
    pub fn quantile_us(&self, phase: Phase, quantile: f64) -> u64 {
        let mut both = self.recent[0].0[phase.index()].clone();
        both.add(&self.recent[1].0[phase.index()]).expect("all sets have the same bounds");
        if both.is_empty() { 0 } else { both.value_at_quantile(quantile) }
    }

    fn cell(&self, cell: usize) -> u64 {
        self.published.0[cell].load(Ordering::Relaxed)
    }
}

impl fmt::Debug for CoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreMetrics").finish_non_exhaustive()
    }
}

impl fmt::Debug for CoreView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreView").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
