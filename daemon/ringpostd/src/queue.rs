//! The messages of one core that wait for delivery: who is due, for which destination, how many at
//! once.
//!
//! An *entry* is one message for one destination. It is waiting (due now or later), active (handed
//! out, until [`Queue::finished`]) or held (until [`Queue::release`]). A destination that does not
//! answer is closed as a whole, tried by one entry when its time has come, and opened one entry
//! more for each success: its backlog costs nothing while it is down and is not let loose on it
//! when it is back.
//!
//! *Guarantees*: no entry is lost, none is handed out twice at a time; at most `window_max` of a
//! destination and `active_max` in all are active; destinations take turns.
//!
//! *Limits*: `capacity` entries of [`ENTRY_OCTETS`] each; beyond it [`Queue::reserve`] says no, and
//! a message is refused with 452 before it is accepted. What is in the log at start always fits.
//!
//! *Failure*: a handle that is not what the caller says it is, is a bug and panics.
//!
//! *Not here*: clock, engine, spool; what is sent, and to which host of the destination.

mod destination;
mod heap;
mod names;
mod seen;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use self::destination::{Destination, Wake};
use self::heap::{Heap, Places};
pub use self::names::Names;
pub use self::seen::Seen;
use crate::retry::{Schedule, Tries, Wall};

/// Octets of one entry with its share of the heaps, at their worst capacity.
pub const ENTRY_OCTETS: usize = size_of::<Entry>() + 2 * 2 * size_of::<u32>();
/// Destinations whose number is below this can be known at a time.
pub const DESTINATIONS_MAX: u32 = 1 << 20;

// The spool keeps up to 96 octets more of a message; both together may be 200.
const _: () = assert!(ENTRY_OCTETS <= 64);

/// What the queue is told once.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Entries, those on their way in included.
    pub capacity: usize,
    /// Active entries of all destinations.
    pub active_max: usize,
    /// Active entries of one destination: connections to a backend, shared among the cores.
    pub window_max: u16,
    /// How long a destination stays closed after its first, second... failure in a row.
    pub closed: Schedule,
}

/// An entry. Worthless once it was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle {
    index: u32,
    generation: u32,
}

/// What is put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// The caller's name for the message.
    pub message: u64,
    /// Interned by [`Names`] or by the caller; below [`DESTINATIONS_MAX`].
    pub destination: u32,
    /// Not before.
    pub due_us: u64,
    /// From then on the entry is handed out as expired, be its destination closed or busy;
    /// `u64::MAX`: never.
    pub expires_us: u64,
}

/// What is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// For [`Queue::finished`].
    pub handle: Handle,
    /// As put in.
    pub message: u64,
    /// As put in.
    pub destination: u32,
    /// Not to be sent: its time is over, if the caller's clock agrees.
    pub expired: bool,
    /// The destination failed this often in a row.
    pub failures: u32,
    /// Attempts on this entry.
    pub tries: Tries,
}

/// What became of an entry that was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing of it is left to do.
    Done,
    /// The destination answers; this message is to be tried again.
    Later {
        /// Not before.
        due_us: u64,
        /// See [`Item::expires_us`].
        expires_us: u64,
    },
    /// No host of the destination answers. The entry stays as due as it was.
    Unreachable,
    /// To be kept until somebody releases it.
    Hold,
}

/// Places for entries on their way in. To be spent by [`Queue::insert`] or given back.
#[derive(Debug)]
#[must_use = "places that are not given back are lost"]
pub struct Reservation(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Waiting,
    Active,
    Expiring,
    Held,
}

/// One message for one destination.
#[derive(Debug)]
struct Entry {
    message: u64,
    due_us: u64,
    expires_us: u64,
    destination: u32,
    /// Places in the destination's heaps; `due_place` links free entries.
    due_place: u32,
    expiry_place: u32,
    generation: u32,
    tries: Tries,
    state: State,
}

/// Entries ordered by when they are due.
struct ByDue<'a>(&'a mut [Entry]);
/// Entries ordered by when they expire.
struct ByExpiry<'a>(&'a mut [Entry]);
/// Destinations ordered by when they want to be looked at.
struct ByWake<'a>(&'a mut [Destination]);

impl Places for ByDue<'_> {
    fn key(&self, id: u32) -> u64 {
        self.0[id as usize].due_us
    }
    fn place(&self, id: u32) -> usize {
        self.0[id as usize].due_place as usize
    }
    fn set_place(&mut self, id: u32, place: u32) {
        self.0[id as usize].due_place = place;
    }
}

impl Places for ByExpiry<'_> {
    fn key(&self, id: u32) -> u64 {
        self.0[id as usize].expires_us
    }
    fn place(&self, id: u32) -> usize {
        self.0[id as usize].expiry_place as usize
    }
    fn set_place(&mut self, id: u32, place: u32) {
        self.0[id as usize].expiry_place = place;
    }
}

impl Places for ByWake<'_> {
    fn key(&self, id: u32) -> u64 {
        self.0[id as usize].wake_us
    }
    fn place(&self, id: u32) -> usize {
        self.0[id as usize].place as usize
    }
    fn set_place(&mut self, id: u32, place: u32) {
        self.0[id as usize].place = place;
    }
}

/// Numbers for status and ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waiting, due or not.
    pub waiting: usize,
    /// Handed out.
    pub active: usize,
    /// Held.
    pub held: usize,
    /// Reserved.
    pub reserved: usize,
}

/// How a destination stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Entries waiting.
    pub waiting: usize,
    /// Entries being sent.
    pub active: u16,
    /// Entries that may be sent at once.
    pub window: u16,
    /// Failures in a row.
    pub failures: u32,
    /// Closed until then; 0 when open.
    pub closed_until_us: u64,
}

/// The queue of one core.
#[derive(Debug)]
pub struct Queue {
    settings: Settings,
    entries: Vec<Entry>,
    /// First free entry; `NONE` ends the list.
    free: u32,
    counts: Counts,
    /// Active entries that count against `active_max`.
    sending: usize,
    destinations: Vec<Destination>,
    /// Destinations with something to do later.
    later: Heap,
    /// Destinations with something to do, in turn.
    ready: VecDeque<u32>,
}

const NONE: u32 = u32::MAX;

impl Queue {
    /// An empty queue; memory for `capacity` entries is taken now.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            entries: Vec::with_capacity(settings.capacity),
            settings,
            free: NONE,
            counts: Counts::default(),
            sending: 0,
            destinations: Vec::new(),
            later: Heap::default(),
            ready: VecDeque::new(),
        }
    }

    /// Numbers for status and ledger.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Entries in any state.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.waiting + self.counts.active + self.counts.held
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps `places` free for a message that is being received. None: the table is full.
    pub fn reserve(&mut self, places: u32) -> Option<Reservation> {
        let taken = self.len() + self.counts.reserved;
        if taken + places as usize > self.settings.capacity {
            return None;
        }
        self.counts.reserved += places as usize;
        Some(Reservation(places))
    }

    /// Gives back what was not spent.
    #[expect(clippy::needless_pass_by_value, reason = "a reservation ends here")]
    pub fn give_back(&mut self, reservation: Reservation) {
        self.counts.reserved -= reservation.0 as usize;
    }

    /// Puts in an entry that was reserved.
    ///
    /// # Panics
    /// If the reservation is spent.
    pub fn insert(&mut self, reservation: &mut Reservation, item: Item) -> Handle {
        assert!(reservation.0 > 0, "an entry has a reserved place");
        reservation.0 -= 1;
        self.counts.reserved -= 1;
        self.restore(item)
    }

    /// Puts in an entry that the log already holds, be the table full or not.
    ///
    /// # Panics
    /// If the destination's number is not below [`DESTINATIONS_MAX`].
    pub fn restore(&mut self, item: Item) -> Handle {
        assert!(item.destination < DESTINATIONS_MAX, "destinations are interned");
        let index = if self.free == NONE {
            let index = u32::try_from(self.entries.len()).expect("fewer entries than u32 counts");
            self.entries.push(Entry {
                message: 0,
                due_us: 0,
                expires_us: 0,
                destination: 0,
                due_place: NONE,
                expiry_place: NONE,
                generation: 0,
                tries: Tries::default(),
                state: State::Free,
            });
            index
        } else {
            let index = self.free;
            self.free = self.entries[index as usize].due_place;
            index
        };
        let entry = &mut self.entries[index as usize];
        entry.message = item.message;
        entry.due_us = item.due_us;
        entry.expires_us = item.expires_us;
        entry.destination = item.destination;
        entry.tries = Tries::default();
        let handle = Handle { index, generation: entry.generation };
        self.know(item.destination);
        self.wait(index);
        handle
    }

    /// Hands out at most `max` entries that are due, destinations in turn.
    pub fn next_ready(&mut self, now_us: u64, max: usize, out: &mut Vec<Work>) {
        while let Some(id) = self.later.first() {
            if self.destinations[id as usize].wake_us > now_us {
                break;
            }
            self.later.remove(id, &mut ByWake(&mut self.destinations));
            self.destinations[id as usize].wake = Wake::Ready;
            self.ready.push_back(id);
        }
        let end = out.len().saturating_add(max);
        while out.len() < end && self.sending < self.settings.active_max {
            let Some(id) = self.ready.pop_front() else { return };
            if let Some(work) = self.take(id, now_us) {
                out.push(work);
                self.ready.push_back(id);
            } else {
                self.destinations[id as usize].wake = Wake::Never;
                self.look(id);
            }
        }
    }

    /// When [`Queue::next_ready`] may have something; 0: now. While `active_max` entries are
    /// active, those that are due wait for [`Queue::finished`], expired ones with them.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        if !self.ready.is_empty() && self.sending < self.settings.active_max {
            return Some(0);
        }
        self.later.first().map(|id| self.destinations[id as usize].wake_us)
    }

    /// What became of an entry that was handed out.
    ///
    /// # Panics
    /// If it was not.
    pub fn finished(
        &mut self,
        handle: Handle,
        now_us: u64,
        outcome: Outcome,
        wall: &Wall,
        random: u64,
    ) {
        let index = self.check(handle);
        let entry = &mut self.entries[index as usize];
        let id = entry.destination;
        let sent = entry.state == State::Active;
        assert!(sent || entry.state == State::Expiring, "only what was handed out is finished");
        self.counts.active -= 1;
        if sent {
            entry.tries.made(wall);
            self.sending -= 1;
            let settings = &self.settings;
            let destination = &mut self.destinations[id as usize];
            destination.active -= 1;
            match outcome {
                Outcome::Unreachable => destination.failed(now_us, &settings.closed, random),
                Outcome::Done | Outcome::Later { .. } => destination.answered(settings.window_max),
                Outcome::Hold => {}
            }
        } else {
            assert!(outcome != Outcome::Unreachable, "what expired was not sent");
        }
        let entry = &mut self.entries[index as usize];
        match outcome {
            Outcome::Done => self.discard(index),
            Outcome::Later { due_us, expires_us } => {
                (entry.due_us, entry.expires_us) = (due_us, expires_us);
                self.wait(index);
            }
            Outcome::Unreachable => self.wait(index),
            Outcome::Hold => {
                entry.state = State::Held;
                self.counts.held += 1;
            }
        }
        self.look(id);
    }

    /// Keeps a waiting entry back. False: it is being sent, or held already.
    pub fn hold(&mut self, handle: Handle) -> bool {
        let index = self.check(handle);
        if self.entries[index as usize].state != State::Waiting {
            return false;
        }
        self.unwait(index);
        self.entries[index as usize].state = State::Held;
        self.counts.held += 1;
        true
    }

    /// Lets a held or waiting entry go at `due_us`. False: it is being sent.
    pub fn release(&mut self, handle: Handle, due_us: u64) -> bool {
        let index = self.check(handle);
        match self.entries[index as usize].state {
            State::Held => self.counts.held -= 1,
            State::Waiting => self.unwait(index),
            State::Active | State::Expiring | State::Free => return false,
        }
        self.entries[index as usize].due_us = due_us;
        self.wait(index);
        true
    }

    /// Takes out an entry that is not being sent. False: it is.
    pub fn remove(&mut self, handle: Handle) -> bool {
        let index = self.check(handle);
        match self.entries[index as usize].state {
            State::Held => self.counts.held -= 1,
            State::Waiting => self.unwait(index),
            State::Active | State::Expiring | State::Free => return false,
        }
        self.discard(index);
        true
    }

    /// Closes a destination as after `failures` failures, from the hints or by the operator.
    pub fn close(&mut self, id: u32, until_us: u64, failures: u32) {
        self.know(id);
        self.destinations[id as usize].close(until_us, failures);
        self.look(id);
    }

    /// Opens a destination at once, without slow start: the operator knows it is back.
    pub fn open(&mut self, id: u32) {
        self.know(id);
        self.destinations[id as usize].open(self.settings.window_max);
        self.look(id);
    }

    /// How a destination stands.
    #[must_use]
    pub fn standing(&self, id: u32) -> Option<Standing> {
        self.destinations.get(id as usize).map(Destination::standing)
    }

    /// Whether nothing is known of a destination any more: no entry, no failure. Its number may
    /// then be used for another one.
    #[must_use]
    pub fn forgotten(&self, id: u32) -> bool {
        self.destinations.get(id as usize).is_none_or(Destination::forgotten)
    }

    fn check(&self, handle: Handle) -> u32 {
        let entry = self.entries.get(handle.index as usize);
        let known = entry.is_some_and(|e| e.generation == handle.generation);
        assert!(known, "a handle is used while its entry is there");
        handle.index
    }

    fn know(&mut self, id: u32) {
        let window = self.settings.window_max;
        if self.destinations.len() <= id as usize {
            self.destinations.resize_with(id as usize + 1, || Destination::new(window));
        }
    }

    /// Into the destination's heaps.
    fn wait(&mut self, index: u32) {
        let id = self.entries[index as usize].destination;
        let destination = &mut self.destinations[id as usize];
        destination.entries += u32::from(self.entries[index as usize].state == State::Free);
        destination.due.push(index, &mut ByDue(&mut self.entries));
        destination.expiry.push(index, &mut ByExpiry(&mut self.entries));
        self.entries[index as usize].state = State::Waiting;
        self.counts.waiting += 1;
        self.look(id);
    }

    /// Out of the destination's heaps.
    fn unwait(&mut self, index: u32) {
        let id = self.entries[index as usize].destination;
        let destination = &mut self.destinations[id as usize];
        destination.due.remove(index, &mut ByDue(&mut self.entries));
        destination.expiry.remove(index, &mut ByExpiry(&mut self.entries));
        self.counts.waiting -= 1;
        self.look(id);
    }

    fn discard(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.state = State::Free;
        entry.generation = entry.generation.wrapping_add(1);
        entry.due_place = self.free;
        self.destinations[entry.destination as usize].entries -= 1;
        self.free = index;
    }

    /// One entry of a destination: one that may be sent, else one that expired.
    fn take(&mut self, id: u32, now_us: u64) -> Option<Work> {
        let destination = &self.destinations[id as usize];
        let due = destination.due_us(&self.entries) <= now_us;
        let expired = destination.expires_us(&self.entries) <= now_us;
        let (index, expired) = match (due, expired) {
            (true, _) => (destination.due.first()?, false),
            (false, true) => (destination.expiry.first()?, true),
            (false, false) => return None,
        };
        let failures = destination.failures;
        self.unwait(index);
        self.counts.active += 1;
        let entry = &mut self.entries[index as usize];
        entry.state = if expired { State::Expiring } else { State::Active };
        if !expired {
            self.sending += 1;
            self.destinations[id as usize].active += 1;
        }
        Some(Work {
            handle: Handle { index, generation: entry.generation },
            message: entry.message,
            destination: id,
            expired,
            failures,
            tries: entry.tries,
        })
    }

    fn wake_us(&self, id: u32) -> u64 {
        let destination = &self.destinations[id as usize];
        destination.due_us(&self.entries).min(destination.expires_us(&self.entries))
    }

    /// Puts a destination where it belongs after a change; one that has its turn keeps it.
    fn look(&mut self, id: u32) {
        let wake_us = self.wake_us(id);
        let destination = &mut self.destinations[id as usize];
        let before = destination.wake;
        if before == Wake::Ready {
            return;
        }
        destination.wake_us = wake_us;
        destination.wake = if wake_us == u64::MAX { Wake::Never } else { Wake::Later };
        let places = &mut ByWake(&mut self.destinations);
        match (before == Wake::Later, wake_us == u64::MAX) {
            (true, true) => self.later.remove(id, places),
            (true, false) => self.later.moved(id, places),
            (false, false) => self.later.push(id, places),
            (false, true) => {}
        }
    }
}
