//! The queue looked at from outside: a few entries at a time, in no order.

use super::{Handle, Queue, State};

/// An entry as the operator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// For the queue's other calls.
    pub handle: Handle,
    /// As put in.
    pub message: u64,
    /// As put in.
    pub destination: u32,
    /// It is being sent.
    pub active: bool,
    /// It waits for somebody to release it.
    pub held: bool,
}

impl Queue {
    /// Gives `count` places from `from` on to `take`; where to go on, `None` behind the last.
    pub fn walk(&self, from: usize, count: usize, mut take: impl FnMut(Seen)) -> Option<usize> {
        let until = from.saturating_add(count).min(self.entries.len());
        for index in from.min(until)..until {
            let generation = self.entries[index].generation;
            let index = u32::try_from(index).expect("fewer entries than u32 counts");
            if let Some(seen) = self.seen(Handle { index, generation }) {
                take(seen);
            }
        }
        (until < self.entries.len()).then_some(until)
    }

    /// An entry as it stands now, if it is there still.
    #[must_use]
    pub fn seen(&self, handle: Handle) -> Option<Seen> {
        let entry = self.entries.get(handle.index as usize)?;
        if entry.generation != handle.generation || entry.state == State::Free {
            return None;
        }
        Some(Seen {
            handle,
            message: entry.message,
            destination: entry.destination,
            active: matches!(entry.state, State::Active | State::Expiring),
            held: entry.state == State::Held,
        })
    }

    /// Lets a held or waiting entry be handed out at once, be its destination closed or busy.
    /// False: it is being sent.
    pub fn hurry(&mut self, handle: Handle, now_us: u64) -> bool {
        let index = self.check(handle);
        match self.entries[index as usize].state {
            State::Held => self.counts.held -= 1,
            State::Waiting => self.unwait(index),
            State::Active | State::Expiring | State::Free => return false,
        }
        let entry = &mut self.entries[index as usize];
        (entry.due_us, entry.expires_us) = (now_us, now_us);
        self.wait(index);
        true
    }
}
