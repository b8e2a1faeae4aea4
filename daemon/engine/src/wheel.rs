//! A hierarchical timer wheel: setting and cancelling take constant time.
//!
//! Five levels of 64 slots. A tick is 1,024 microseconds; level n covers 64^n ticks a slot, the
//! whole wheel 12 days. A later deadline waits in the last slot and is placed again from there.
//!
//! *Guarantees*: nothing fires before its deadline; at most one tick after it, if asked in time.
//! *Limits*: at most `max` timers at once.

const LEVELS: usize = 5;
const SLOTS: usize = 64;
const SLOT_BITS: u32 = 6;
const TICK_BITS: u32 = 10;
const SPAN_TICKS: u64 = 1 << (SLOT_BITS * 5);
const NONE: u32 = u32::MAX;

const _: () = assert!(LEVELS == 5 && SLOTS == 1 << SLOT_BITS);

#[derive(Debug, Clone, Copy)]
struct Node<T> {
    previous: u32,
    next: u32,
    /// `level * SLOTS + slot`, or `u16::MAX` when free.
    place: u16,
    generation: u32,
    tick: u64,
    due: T,
}

const FREE: u16 = u16::MAX;

/// Timers carrying a small value each.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    nodes: Vec<Node<T>>,
    free: u32,
    heads: [u32; LEVELS * SLOTS],
    occupied: [u64; LEVELS],
    /// Every tick up to and including this one has fired.
    tick: u64,
    used: usize,
    max: usize,
}

impl<T: Copy> Wheel<T> {
    pub(crate) fn new(now_us: u64, max: usize) -> Self {
        Self {
            nodes: Vec::new(),
            free: NONE,
            heads: [NONE; LEVELS * SLOTS],
            occupied: [0; LEVELS],
            tick: now_us >> TICK_BITS,
            used: 0,
            max,
        }
    }

    /// Sets a timer; `None` when `max` are set already.
    pub(crate) fn set(&mut self, deadline_us: u64, due: T) -> Option<(u32, u32)> {
        let index = if self.free == NONE {
            if self.nodes.len() >= self.max {
                return None;
            }
            let index = u32::try_from(self.nodes.len()).ok().filter(|index| *index != NONE)?;
            let node =
                Node { previous: NONE, next: NONE, place: FREE, generation: 1, tick: 0, due };
            self.nodes.push(node);
            index
        } else {
            let index = self.free;
            self.free = self.nodes[index as usize].next;
            index
        };
        let node = &mut self.nodes[index as usize];
        node.due = due;
        node.tick = Self::tick_of(deadline_us);
        let generation = node.generation;
        self.used += 1;
        self.link(index);
        Some((index, generation))
    }

    /// Moves a living timer to another deadline; false if it fired or was cancelled.
    pub(crate) fn move_to(&mut self, key: (u32, u32), deadline_us: u64) -> bool {
        if !self.lives(key) {
            return false;
        }
        self.unlink(key.0);
        self.nodes[key.0 as usize].tick = Self::tick_of(deadline_us);
        self.link(key.0);
        true
    }

    /// Forgets a timer; false if it fired or was cancelled before.
    pub(crate) fn cancel(&mut self, key: (u32, u32)) -> bool {
        if !self.lives(key) {
            return false;
        }
        self.unlink(key.0);
        self.release(key.0);
        true
    }

    /// Takes one timer that is due at `now_us`, in order of ticks.
    pub(crate) fn expire(&mut self, now_us: u64) -> Option<((u32, u32), T)> {
        let now_tick = now_us >> TICK_BITS;
        loop {
            let slot = slot_of(self.tick, 0);
            let head = self.heads[slot];
            if head != NONE && self.nodes[head as usize].tick <= self.tick {
                let node = self.nodes[head as usize];
                self.unlink(head);
                self.release(head);
                return Some(((head, node.generation), node.due));
            }
            if self.tick >= now_tick {
                return None;
            }
            self.advance(now_tick);
        }
    }

    /// Microseconds since the clock's origin at which something may be due; `None` if no timer
    /// is set. May be earlier than the first deadline (a level is then unfolded), never later.
    pub(crate) fn next_us(&self) -> Option<u64> {
        (self.used > 0).then(|| self.next_tick() << TICK_BITS)
    }

    fn lives(&self, (index, generation): (u32, u32)) -> bool {
        self.nodes
            .get(index as usize)
            .is_some_and(|node| node.generation == generation && node.place != FREE)
    }

    /// First tick that is not before the deadline.
    fn tick_of(deadline_us: u64) -> u64 {
        deadline_us.div_ceil(1 << TICK_BITS)
    }

    /// The next tick at which a slot of some level becomes current.
    fn next_tick(&self) -> u64 {
        let mut best = self.tick + SPAN_TICKS;
        for (level, occupied) in self.occupied.iter().enumerate() {
            if *occupied == 0 {
                continue;
            }
            let shift = level_shift(level);
            let current = self.tick >> shift;
            let offset = u32::try_from(current % 64).expect("below 64");
            // Level 0 may hold what is due in the current tick; a higher level's current slot
            // was unfolded when it became current, so what stands there is a whole round away.
            let distance = if level == 0 {
                u64::from(occupied.rotate_right(offset).trailing_zeros())
            } else {
                u64::from(occupied.rotate_right((offset + 1) % 64).trailing_zeros()) + 1
            };
            best = best.min((current + distance) << shift);
        }
        best
    }

    /// Goes to the next tick with something in it, or to `now_tick`, unfolding higher levels.
    fn advance(&mut self, now_tick: u64) {
        self.tick = if self.used == 0 {
            now_tick
        } else {
            // The current tick's own slot holds nothing due any more, except for deadlines one
            // round later, which `link` never puts there.
            self.next_tick().clamp(self.tick + 1, now_tick)
        };
        for level in (1..LEVELS).rev() {
            if self.tick.trailing_zeros() >= level_shift(level) {
                self.unfold(level * SLOTS + slot_of(self.tick, level));
            }
        }
    }

    fn unfold(&mut self, place: usize) {
        let mut index = std::mem::replace(&mut self.heads[place], NONE);
        self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
        while index != NONE {
            let next = self.nodes[index as usize].next;
            self.link(index);
            index = next;
        }
    }

    fn link(&mut self, index: u32) {
        let tick = self.nodes[index as usize].tick.clamp(self.tick, self.tick + SPAN_TICKS - 1);
        let distance = tick - self.tick;
        let mut level = 0;
        while level + 1 < LEVELS && distance >> level_shift(level + 1) != 0 {
            level += 1;
        }
        let place = level * SLOTS + slot_of(tick, level);
        let head = self.heads[place];
        let node = &mut self.nodes[index as usize];
        node.place = u16::try_from(place).expect("five levels of 64 slots");
        node.previous = NONE;
        node.next = head;
        if head != NONE {
            self.nodes[head as usize].previous = index;
        }
        self.heads[place] = index;
        self.occupied[level] |= 1 << (place % SLOTS);
    }

    fn unlink(&mut self, index: u32) {
        let node = self.nodes[index as usize];
        let place = usize::from(node.place);
        if node.previous == NONE {
            self.heads[place] = node.next;
            if node.next == NONE {
                self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
            }
        } else {
            self.nodes[node.previous as usize].next = node.next;
        }
        if node.next != NONE {
            self.nodes[node.next as usize].previous = node.previous;
        }
    }

    fn release(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        node.place = FREE;
        node.generation = node.generation.wrapping_add(1);
        node.next = self.free;
        self.free = index;
        self.used -= 1;
    }
}

fn level_shift(level: usize) -> u32 {
    SLOT_BITS * u32::try_from(level).expect("five levels")
}

/// Slot of a tick within its level.
fn slot_of(tick: u64, level: usize) -> usize {
    usize::try_from((tick >> level_shift(level)) % 64).expect("below 64")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    /// Against a sorted map: nothing early, nothing lost, nothing late by more than a tick.
    #[test]
    fn agrees_with_a_sorted_map() {
        for seed in 1..40u64 {
            let mut state = seed;
            let mut now = random(&mut state) >> 20;
            let mut wheel = Wheel::new(now, 10_000);
            let mut model: BTreeMap<u64, (u64, (u32, u32))> = BTreeMap::new();
            let mut id = 0;
            for _ in 0..3000 {
                let span = 1 << (random(&mut state) % 42);
                match random(&mut state) % 10 {
                    0..5 => {
                        id += 1;
                        let deadline = now + random(&mut state) % span;
                        let key = wheel.set(deadline, id).unwrap();
                        model.insert(id, (deadline, key));
                    }
                    5..7 => {
                        if let Some((id, (_, key))) = model.pop_first() {
                            assert!(wheel.cancel(key), "timer {id} lives");
                            assert!(!wheel.cancel(key));
                        }
                    }
                    7 => {
                        if let Some(mut entry) = model.first_entry() {
                            let (deadline, key) = entry.get_mut();
                            *deadline = now + random(&mut state) % span;
                            assert!(wheel.move_to(*key, *deadline));
                        }
                    }
                    _ => {
                        let earliest = model.values().map(|(deadline, _)| *deadline).min();
                        let wake = wheel.next_us();
                        assert_eq!(earliest.is_some(), wake.is_some());
                        if let (Some(earliest), Some(wake)) = (earliest, wake) {
                            assert!(wake <= earliest.max(now) + 1023, "wakes in time");
                        }
                        now += random(&mut state) % span;
                        while let Some((key, id)) = wheel.expire(now) {
                            let (deadline, expected) = model.remove(&id).expect("set once");
                            assert_eq!(key, expected);
                            assert!(deadline <= now, "not early");
                        }
                        let late = model.values().find(|(deadline, _)| deadline + 1024 <= now);
                        assert_eq!(late, None, "fired within a tick");
                    }
                }
            }
        }
    }

    #[test]
    fn sleeping_until_next_reaches_every_deadline() {
        let mut wheel = Wheel::new(5_000_000, 16);
        for (id, after) in [1, 70_000, 5_000_000, 400_000_000, 90_000_000_000].iter().enumerate() {
            wheel.set(5_000_000 + after, id).unwrap();
        }
        let mut fired = Vec::new();
        let mut turns = 0;
        while let Some(next) = wheel.next_us() {
            turns += 1;
            assert!(turns < 64, "wakes a few times a level, not every tick");
            while let Some((_, id)) = wheel.expire(next) {
                fired.push(id);
            }
        }
        assert_eq!(fired, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn the_bound_holds_and_slots_come_back() {
        let mut wheel = Wheel::new(0, 2);
        let first = wheel.set(10, 'a').unwrap();
        wheel.set(10, 'b').unwrap();
        assert!(wheel.set(10, 'c').is_none());
        assert!(wheel.cancel(first));
        assert!(wheel.set(10, 'd').is_some());
        assert!(!wheel.cancel(first), "the old handle is dead");
    }
}
