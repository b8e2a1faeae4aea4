//! One destination: its entries in two orders, and how many may be sent at once.

use super::heap::Heap;
use super::{Entry, Standing};
use crate::retry::Schedule;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// Nothing to do until something changes.
    Never,
    /// In the heap, at `wake_us`.
    Later,
    /// In the ring of those who take turns.
    Ready,
}

#[derive(Debug)]
pub(super) struct Destination {
    pub(super) due: Heap,
    pub(super) expiry: Heap,
    pub(super) wake_us: u64,
    closed_until_us: u64,
    /// Place in the heap of destinations.
    pub(super) place: u32,
    /// Entries in any state.
    pub(super) entries: u32,
    pub(super) failures: u32,
    pub(super) active: u16,
    window: u16,
    pub(super) wake: Wake,
}

impl Destination {
    pub(super) fn new(window_max: u16) -> Self {
        Self {
            due: Heap::default(),
            expiry: Heap::default(),
            wake_us: u64::MAX,
            closed_until_us: 0,
            place: u32::MAX,
            entries: 0,
            failures: 0,
            active: 0,
            window: window_max.max(1),
            wake: Wake::Never,
        }
    }

    /// When the next entry may be sent; `u64::MAX` while none is there or the window is full.
    pub(super) fn due_us(&self, entries: &[Entry]) -> u64 {
        match self.due.first() {
            Some(first) if self.active < self.window => {
                entries[first as usize].due_us.max(self.closed_until_us)
            }
            _ => u64::MAX,
        }
    }

    pub(super) fn expires_us(&self, entries: &[Entry]) -> u64 {
        self.expiry.first().map_or(u64::MAX, |first| entries[first as usize].expires_us)
    }

    /// An attempt reached no host. Attempts that were under way with it do not count again.
    pub(super) fn failed(&mut self, now_us: u64, closed: &Schedule, random: u64) {
        self.window = 1;
        if now_us >= self.closed_until_us {
            self.failures = self.failures.saturating_add(1);
            self.closed_until_us = now_us.saturating_add(closed.delay_us(self.failures, random));
        }
    }

    /// An attempt reached a host: one more may go at once.
    pub(super) fn answered(&mut self, window_max: u16) {
        self.failures = 0;
        self.closed_until_us = 0;
        self.window = self.window.saturating_add(1).min(window_max.max(1));
    }

    pub(super) fn close(&mut self, until_us: u64, failures: u32) {
        self.window = 1;
        self.failures = failures.max(1);
        self.closed_until_us = until_us;
    }

    pub(super) fn open(&mut self, window_max: u16) {
        self.window = window_max.max(1);
        self.failures = 0;
        self.closed_until_us = 0;
    }

    pub(super) fn forgotten(&self) -> bool {
        self.entries == 0 && self.failures == 0 && self.wake == Wake::Never
    }

    pub(super) fn standing(&self) -> Standing {
        Standing {
            waiting: self.due.len(),
            active: self.active,
            window: self.window,
            failures: self.failures,
            closed_until_us: self.closed_until_us,
        }
    }
}
