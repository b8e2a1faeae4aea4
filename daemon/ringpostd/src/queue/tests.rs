//! The queue against a plain list that says what may happen.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::retry::Retry;

const SECOND: u64 = 1_000_000;

fn settings() -> Settings {
    Settings {
        capacity: 100_000,
        active_max: 1000,
        window_max: 20,
        closed: Schedule {
            first_us: 2 * SECOND,
            factor_percent: 200,
            max_us: 60 * SECOND,
            jitter_percent: 0,
            give_up_us: u64::MAX,
        },
    }
}

fn wall() -> Wall {
    Wall::new(0, 0, None)
}

fn item(message: u64, destination: u32, due_us: u64) -> Item {
    Item { message, destination, due_us, expires_us: u64::MAX }
}

fn ready(queue: &mut Queue, now_us: u64, max: usize) -> Vec<Work> {
    let mut out = Vec::new();
    queue.next_ready(now_us, max, &mut out);
    out
}

#[test]
fn a_full_table_says_no_before_a_message_is_taken() {
    let mut queue = Queue::new(Settings { capacity: 3, ..settings() });
    let mut first = queue.reserve(2).unwrap();
    assert!(queue.reserve(2).is_none());
    let handle = queue.insert(&mut first, item(1, 0, 0));
    queue.give_back(first);
    let second = queue.reserve(2).unwrap();
    assert!(queue.reserve(1).is_none());
    queue.give_back(second);
    queue.restore(item(2, 0, 0));
    queue.restore(item(3, 0, 0));
    queue.restore(item(4, 0, 0));
    assert!(queue.reserve(0).is_none() && queue.len() == 4, "the log's own always fit");
    assert!(queue.remove(handle));
    assert!(queue.reserve(1).is_none());
}

#[test]
fn due_order_and_deadline() {
    let mut queue = Queue::new(settings());
    assert_eq!(queue.deadline(), None);
    for (message, due) in [(1, 30), (2, 10), (3, 20)] {
        queue.restore(item(message, 0, due));
    }
    assert_eq!(queue.deadline(), Some(10));
    assert!(ready(&mut queue, 9, 9).is_empty());
    let order: Vec<u64> = ready(&mut queue, 25, 9).iter().map(|w| w.message).collect();
    assert_eq!(order, [2, 3]);
    assert_eq!(queue.deadline(), Some(30));
}

#[test]
fn destinations_take_turns() {
    let mut queue = Queue::new(settings());
    (0..1000).for_each(|n| _ = queue.restore(item(n, 0, 0)));
    (1000..1003).for_each(|n| _ = queue.restore(item(n, 1, 5)));
    let got: Vec<u32> = ready(&mut queue, 10, 8).iter().map(|w| w.destination).collect();
    assert_eq!(got, [0, 1, 0, 1, 0, 1, 0, 0]);
}

#[test]
fn bounds_by_destination_and_in_all() {
    let mut queue = Queue::new(Settings { active_max: 30, ..settings() });
    for n in 0..100 {
        queue.restore(item(n, u32::from(n >= 50), 0));
    }
    let work = ready(&mut queue, 1, 1000);
    assert_eq!(work.len(), 30);
    assert_eq!(queue.deadline(), None, "only an end of one of those helps");
    queue.finished(work[0].handle, 1, Outcome::Done, &wall(), 0);
    assert_eq!(queue.deadline(), Some(0));
    assert_eq!(ready(&mut queue, 1, 1000).len(), 1);
    let standing = (queue.standing(0).unwrap().active, queue.standing(1).unwrap().active);
    assert!(standing.0 <= 20 && standing.1 <= 20 && standing.0 + standing.1 == 30);
}

/// Ten minutes of outage with 50,000 messages: few attempts, no scan, a gentle return.
#[test]
fn an_outage() {
    let mut queue = Queue::new(settings());
    (0..50_000).for_each(|n| _ = queue.restore(item(n, 7, n)));
    let (mut now, end) = (SECOND, 600 * SECOND);
    let (mut attempts, mut calls) = (0, 0);
    while now < end {
        let work = ready(&mut queue, now, 1000);
        attempts += work.len();
        calls += 1;
        for w in &work {
            queue.finished(w.handle, now, Outcome::Unreachable, &wall(), 0);
        }
        now = queue.deadline().expect("it will be tried again").max(now);
    }
    assert!(attempts < 20 + 20, "{attempts}");
    assert!(calls < 80, "{calls}");
    assert_eq!(queue.standing(7).unwrap().waiting, 50_000);
    // It is back: each message takes 100 ms.
    let mut active: VecDeque<Work> = VecDeque::new();
    let mut widths = Vec::new();
    while !queue.is_empty() {
        active.extend(ready(&mut queue, now, 1000));
        assert!(active.len() <= 20, "within the bound");
        widths.push(active.len());
        now += SECOND / 10;
        for w in active.drain(..) {
            queue.finished(w.handle, now, Outcome::Done, &wall(), 0);
        }
    }
    assert_eq!(widths[..6], [1, 2, 4, 8, 16, 20]);
    assert!(widths[6..widths.len() - 1].iter().all(|w| *w == 20), "then at full width");
    assert_eq!(queue.counts(), Counts::default());
    assert!(ready(&mut queue, now, 1).is_empty() && queue.forgotten(7));
}

/// Connections that fail together count once.
#[test]
fn failures_of_one_moment_count_once() {
    let mut queue = Queue::new(settings());
    (0..100).for_each(|n| _ = queue.restore(item(n, 0, 0)));
    let work = ready(&mut queue, 0, 100);
    assert_eq!(work.len(), 20);
    for w in &work {
        queue.finished(w.handle, SECOND, Outcome::Unreachable, &wall(), 0);
    }
    let standing = queue.standing(0).unwrap();
    assert_eq!((standing.failures, standing.window), (1, 1));
    assert_eq!(queue.deadline(), Some(3 * SECOND));
    assert_eq!(ready(&mut queue, 3 * SECOND, 100).len(), 1, "one tries");
    queue.open(0);
    assert_eq!(ready(&mut queue, 3 * SECOND, 100).len(), 19);
}

/// A dead destination does not keep its messages from expiring, nor a busy one.
#[test]
fn expiry_needs_no_connection() {
    let mut queue = Queue::new(settings());
    queue.close(0, 1000 * SECOND, 5);
    let handle = queue.restore(Item { expires_us: 10 * SECOND, ..item(1, 0, 0) });
    assert_eq!(queue.deadline(), Some(10 * SECOND));
    let work = ready(&mut queue, 10 * SECOND, 9);
    assert_eq!((work.len(), work[0].expired, work[0].failures), (1, true, 5));
    assert!(!queue.remove(handle) && !queue.hold(handle));
    // The clock is in doubt: later.
    let later = Outcome::Later { due_us: 0, expires_us: 20 * SECOND };
    queue.finished(handle, 10 * SECOND, later, &wall(), 0);
    assert_eq!(queue.standing(0).unwrap().failures, 5, "no attempt was made");
    assert_eq!(queue.deadline(), Some(20 * SECOND));
    assert!(ready(&mut queue, 20 * SECOND, 9)[0].expired);
    queue.finished(handle, 20 * SECOND, Outcome::Done, &wall(), 0);
    assert!(queue.is_empty() && !queue.forgotten(0));
}

#[test]
fn held_entries_wait_for_release() {
    let mut queue = Queue::new(settings());
    let handle = queue.restore(item(1, 0, 0));
    assert!(queue.hold(handle) && !queue.hold(handle));
    assert!(ready(&mut queue, SECOND, 9).is_empty());
    assert_eq!((queue.deadline(), queue.counts().held), (None, 1));
    assert!(queue.release(handle, 5));
    assert_eq!(queue.deadline(), Some(5));
    let work = ready(&mut queue, 5, 9);
    queue.finished(work[0].handle, 5, Outcome::Hold, &wall(), 0);
    assert_eq!(queue.counts(), Counts { held: 1, ..Counts::default() });
    assert!(queue.remove(handle) && queue.is_empty());
}

#[test]
#[should_panic(expected = "a handle is used while its entry is there")]
fn a_dead_handle_is_a_bug() {
    let mut queue = Queue::new(settings());
    let handle = queue.restore(item(1, 0, 0));
    assert!(queue.remove(handle));
    queue.restore(item(2, 0, 0));
    queue.hold(handle);
}

/// Attempts are counted in the entry, for the rule about clocks in doubt.
#[test]
fn tries_travel_with_the_entry() {
    let mut queue = Queue::new(settings());
    let doubtful = Wall::new(0, 0, Some(u64::MAX / 2));
    let handle = queue.restore(item(1, 0, 0));
    let schedule = Schedule { give_up_us: 0, ..Schedule::default() };
    for n in 0..4 {
        let work = ready(&mut queue, n, 1);
        let age = doubtful.age(u64::MAX, 0, work[0].tries);
        assert_eq!(schedule.next(1, age, 0) == Retry::Expired, n >= 3, "after {n}");
        let later = Outcome::Later { due_us: n + 1, expires_us: u64::MAX };
        queue.finished(handle, n, later, &doubtful, 0);
    }
}

#[derive(Debug, Clone)]
enum Act {
    Insert { destination: u32, due: u64, expires: u64 },
    Take(usize),
    Finish { which: usize, how: u8, after: u64 },
    Hold(usize),
    Release(usize, u64),
    Remove(usize),
    Close(u32, u64),
    Open(u32),
    Pass(u64),
    Reserve(u32),
}

fn act() -> impl Strategy<Value = Act> {
    let n = 0usize..64;
    prop_oneof![
        6 => (0u32..5, 0u64..50, 1u64..400)
            .prop_map(|(destination, due, expires)| Act::Insert { destination, due, expires }),
        4 => (0usize..8).prop_map(Act::Take),
        5 => (n.clone(), 0u8..4, 0u64..50)
            .prop_map(|(which, how, after)| Act::Finish { which, how, after }),
        1 => n.clone().prop_map(Act::Hold),
        1 => (n.clone(), 0u64..50).prop_map(|(a, b)| Act::Release(a, b)),
        1 => n.prop_map(Act::Remove),
        1 => (0u32..5, 0u64..50).prop_map(|(a, b)| Act::Close(a, b)),
        1 => (0u32..5).prop_map(Act::Open),
        3 => (0u64..30).prop_map(Act::Pass),
        1 => (0u32..20).prop_map(Act::Reserve),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Is {
    Waiting,
    Active,
    Expiring,
    Held,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    item: Item,
    is: Is,
}

/// The queue and what must be true of it.
struct Model {
    queue: Queue,
    now: u64,
    next: u64,
    known: HashMap<Handle, Known>,
}

const CAPACITY: usize = 40;
const ACTIVE_MAX: usize = 6;
const WINDOW_MAX: u16 = 3;

impl Model {
    fn new() -> Self {
        let closed = Schedule { first_us: 10, max_us: 100, ..settings().closed };
        let queue = Queue::new(Settings {
            capacity: CAPACITY,
            active_max: ACTIVE_MAX,
            window_max: WINDOW_MAX,
            closed,
        });
        Self { queue, now: 0, next: 0, known: HashMap::new() }
    }

    fn pick(&self, which: usize, of: &[Is]) -> Option<Handle> {
        let mut fit: Vec<_> = self.known.iter().filter(|(_, k)| of.contains(&k.is)).collect();
        fit.sort_by_key(|(_, k)| k.item.message);
        (!fit.is_empty()).then(|| *fit[which % fit.len()].0)
    }

    fn set(&mut self, handle: Handle, is: Is) {
        self.known.get_mut(&handle).expect("known").is = is;
    }

    fn take(&mut self, max: usize) {
        for work in ready(&mut self.queue, self.now, max) {
            let known = self.known.get_mut(&work.handle).expect("no stranger is handed out");
            assert_eq!(known.is, Is::Waiting, "not twice, not while held");
            assert_eq!(known.item.message, work.message);
            let at = if work.expired { known.item.expires_us } else { known.item.due_us };
            assert!(at <= self.now, "not before its time");
            known.is = if work.expired { Is::Expiring } else { Is::Active };
        }
    }

    fn finish(&mut self, handle: Handle, how: u8, after: u64) {
        let known = self.known.get_mut(&handle).expect("known");
        let expiring = known.is == Is::Expiring;
        let outcome = match how {
            0 => Outcome::Done,
            1 if !expiring => Outcome::Unreachable,
            2 => Outcome::Hold,
            _ => {
                known.item.due_us = self.now + after;
                known.item.expires_us = self.now + 10 * after + 1;
                Outcome::Later { due_us: known.item.due_us, expires_us: known.item.expires_us }
            }
        };
        known.is = if outcome == Outcome::Hold { Is::Held } else { Is::Waiting };
        if outcome == Outcome::Done {
            self.known.remove(&handle);
        }
        self.queue.finished(handle, self.now, outcome, &wall(), after);
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Insert { destination, due, expires } => {
                let (due_us, expires_us) = (self.now + due, self.now + expires);
                let item = Item { message: self.next, destination, due_us, expires_us };
                self.next += 1;
                let Some(mut place) = self.queue.reserve(1) else {
                    assert_eq!(self.known.len(), CAPACITY);
                    return;
                };
                let handle = self.queue.insert(&mut place, item);
                self.queue.give_back(place);
                assert!(self.known.insert(handle, Known { item, is: Is::Waiting }).is_none());
            }
            Act::Take(max) => self.take(max),
            Act::Finish { which, how, after } => {
                if let Some(handle) = self.pick(which, &[Is::Active, Is::Expiring]) {
                    self.finish(handle, how, after);
                }
            }
            Act::Hold(which) => {
                if let Some(handle) = self.pick(which, &[Is::Waiting, Is::Active, Is::Held]) {
                    let may = self.known[&handle].is == Is::Waiting;
                    assert_eq!(self.queue.hold(handle), may);
                    if may {
                        self.set(handle, Is::Held);
                    }
                }
            }
            Act::Release(which, after) => {
                if let Some(handle) = self.pick(which, &[Is::Held, Is::Waiting]) {
                    assert!(self.queue.release(handle, self.now + after));
                    self.set(handle, Is::Waiting);
                    self.known.get_mut(&handle).unwrap().item.due_us = self.now + after;
                }
            }
            Act::Remove(which) => {
                if let Some(handle) = self.pick(which, &[Is::Held, Is::Waiting]) {
                    assert!(self.queue.remove(handle));
                    self.known.remove(&handle);
                }
            }
            Act::Close(id, after) => self.queue.close(id, self.now + after, 2),
            Act::Open(id) => self.queue.open(id),
            Act::Pass(us) => self.now += us,
            Act::Reserve(n) => {
                let place = self.queue.reserve(n);
                assert_eq!(place.is_some(), self.known.len() + n as usize <= CAPACITY);
                place.into_iter().for_each(|p| self.queue.give_back(p));
            }
        }
    }

    fn check(&mut self) {
        let count = |is: Is| self.known.values().filter(|k| k.is == is).count();
        let active = count(Is::Active);
        let want = Counts {
            waiting: count(Is::Waiting),
            active: active + count(Is::Expiring),
            held: count(Is::Held),
            reserved: 0,
        };
        assert_eq!(self.queue.counts(), want);
        assert!(active <= ACTIVE_MAX);
        for id in 0..5 {
            let mine = |is| {
                let of = |k: &&Known| k.item.destination == id && k.is == is;
                self.known.values().filter(of).count()
            };
            let Some(standing) = self.queue.standing(id) else { continue };
            assert_eq!(standing.waiting, mine(Is::Waiting));
            assert_eq!(usize::from(standing.active), mine(Is::Active));
            assert!(standing.active <= WINDOW_MAX && standing.window <= WINDOW_MAX);
            let none = mine(Is::Waiting) + mine(Is::Active) + mine(Is::Expiring) + mine(Is::Held);
            assert!(!self.queue.forgotten(id) || none == 0);
        }
        // Whatever can be done is announced.
        if active < ACTIVE_MAX {
            for known in self.known.values().filter(|k| k.is == Is::Waiting) {
                let deadline = self.queue.deadline().expect("somebody waits");
                assert!(deadline <= known.item.expires_us);
            }
        }
    }

    /// Everything comes out in the end, at the times that the queue itself names.
    fn drain(&mut self) {
        for id in 0..5 {
            self.queue.open(id);
        }
        while let Some(handle) = self.pick(0, &[Is::Held]) {
            assert!(self.queue.release(handle, self.now));
            self.set(handle, Is::Waiting);
            self.known.get_mut(&handle).unwrap().item.due_us = self.now;
        }
        for _ in 0..10_000 {
            while let Some(handle) = self.pick(0, &[Is::Active, Is::Expiring]) {
                self.finish(handle, 0, 0);
            }
            let Some(deadline) = self.queue.deadline() else { break };
            self.now = self.now.max(deadline);
            self.take(2);
        }
        assert!(self.known.is_empty() && self.queue.is_empty(), "all came out");
        self.take(1);
        for id in 0..5 {
            let forgotten = self.queue.forgotten(id);
            assert!(forgotten || self.queue.standing(id).unwrap().failures > 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn nothing_is_lost_or_handed_out_twice(acts in prop::collection::vec(act(), 0..120)) {
        let mut model = Model::new();
        for act in &acts {
            model.act(act);
            model.check();
        }
        model.drain();
    }
}
