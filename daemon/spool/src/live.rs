//! The table of messages that need work: what recovery finds and the running log keeps.
//!
//! *Limits*: 80 bytes a message and at most 12 for its place in the hash; more only for
//! messages with chunks, over 64 recipients or redirects.

use hashbrown::HashTable;

use crate::bytes::len32;
use crate::id::TransactionId;
use crate::index::Summary;
use crate::ledger::Ledger;
use crate::message::flags;
use crate::record::{Change, RecipientState};
use crate::segment::SegmentRef;

/// A record's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its segment.
    pub segment: SegmentRef,
    /// Offset of the record header there.
    pub offset: u32,
    /// Bytes with header.
    pub length: u32,
}

/// What few messages have.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Extra {
    /// Chunks, in order.
    pub chunks: Vec<Place>,
    /// Pending bits from the 65th recipient on.
    pub pending_more: Vec<u64>,
    /// Addresses the operator routed elsewhere.
    pub redirects: Vec<(u16, Box<[u8]>)>,
    /// Recipients settled while others still wait.
    pub settled: Vec<(u16, RecipientState)>,
}

/// A message that needs work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Live {
    /// Its id.
    pub id: TransactionId,
    /// Octets of header section and body.
    pub octets: u64,
    /// Pending bits of the first 64 recipients.
    pub pending: u64,
    extra: Option<Box<Extra>>,
    /// Wall time of receipt, seconds.
    pub received_wall_s: u32,
    /// Wall time of expiry, seconds; 0 for the config's.
    pub expiry_wall_s: u32,
    /// Wall time of the next try, seconds; 0 for now.
    pub next_wall_s: u32,
    /// Segment of its MSG.
    pub segment: SegmentRef,
    /// Offset of its MSG there.
    pub offset: u32,
    /// Bytes of its MSG.
    pub length: u32,
    defer_segment: SegmentRef,
    defer_offset: u32,
    /// Recipients in all.
    pub recipients: u16,
    /// Tries so far.
    pub tries: u16,
    /// Which copy.
    pub copy: u16,
    state: u8,
    /// Fallback tier.
    pub tier: u8,
}

const _: () = assert!(size_of::<Live>() <= 80);

const HELD: u8 = 1;
const GENERATED: u8 = 2;
const MOVING: u8 = 4;
const CANCELLED: u8 = 8;
const QUARANTINED: u8 = 16;
const ARCHIVED: u8 = 32;

fn seconds(wall_us: u64) -> u32 {
    u32::try_from(wall_us.div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

impl Live {
    pub(crate) fn of(s: &Summary, segment: SegmentRef) -> Self {
        let bit = |flag, bit| if s.flags & flag != 0 { bit } else { 0 };
        let mut live = Self {
            id: s.id,
            octets: s.octets,
            pending: s.pending,
            extra: None,
            received_wall_s: seconds(s.received_wall_us),
            expiry_wall_s: seconds(s.expiry_wall_us),
            next_wall_s: seconds(s.next_wall_us),
            segment,
            offset: s.offset,
            length: s.length,
            defer_segment: SegmentRef::NONE,
            defer_offset: 0,
            recipients: s.recipients,
            tries: s.tries,
            copy: s.copy,
            state: bit(flags::HELD, HELD)
                | bit(flags::GENERATED, GENERATED)
                | bit(flags::QUARANTINED, QUARANTINED)
                | bit(flags::ARCHIVED, ARCHIVED),
            tier: s.tier,
        };
        if !s.pending_more.is_empty() {
            live.extra_mut().pending_more.clone_from(&s.pending_more);
        }
        live
    }

    fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Its MSG.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { segment: self.segment, offset: self.offset, length: self.length }
    }

    /// Its chunks, in order.
    #[must_use]
    pub fn chunks(&self) -> &[Place] {
        self.extra.as_ref().map_or(&[], |e| &e.chunks)
    }

    /// Sets them.
    pub fn set_chunks(&mut self, chunks: Vec<Place>) {
        if !chunks.is_empty() || self.extra.is_some() {
            self.extra_mut().chunks = chunks;
        }
    }

    /// Addresses routed elsewhere.
    #[must_use]
    pub fn redirects(&self) -> &[(u16, Box<[u8]>)] {
        self.extra.as_ref().map_or(&[], |e| &e.redirects)
    }

    /// Recipients settled since the MSG was written.
    #[must_use]
    pub fn settled(&self) -> &[(u16, RecipientState)] {
        self.extra.as_ref().map_or(&[], |e| &e.settled)
    }

    /// Segment and offset of the DEFER that counts.
    #[must_use]
    pub fn defer_place(&self) -> Option<(SegmentRef, u32)> {
        (self.defer_segment != SegmentRef::NONE).then_some((self.defer_segment, self.defer_offset))
    }

    /// Notes where the DEFER that counts stands, or that none does.
    pub fn set_defer_place(&mut self, place: Option<(SegmentRef, u32)>) {
        (self.defer_segment, self.defer_offset) = place.unwrap_or((SegmentRef::NONE, 0));
    }

    /// Does that recipient need work?
    #[must_use]
    pub fn is_pending(&self, recipient: u16) -> bool {
        let (word, bit) = (usize::from(recipient / 64), recipient % 64);
        let bits = match word.checked_sub(1) {
            None => self.pending,
            Some(word) => {
                self.extra.as_ref().and_then(|e| e.pending_more.get(word)).copied().unwrap_or(0)
            }
        };
        bits >> bit & 1 != 0
    }

    /// Recipients that need work.
    #[must_use]
    pub fn pending_count(&self) -> u32 {
        let more =
            self.extra.as_ref().map_or(0, |e| e.pending_more.iter().map(|w| w.count_ones()).sum());
        self.pending.count_ones() + more
    }

    fn clear(&mut self, recipient: u16) -> bool {
        if recipient >= self.recipients || !self.is_pending(recipient) {
            return false;
        }
        let (word, bit) = (usize::from(recipient / 64), recipient % 64);
        match word.checked_sub(1) {
            None => self.pending &= !(1 << bit),
            Some(word) => self.extra_mut().pending_more[word] &= !(1 << bit),
        }
        true
    }

    fn clear_all(&mut self) -> u32 {
        let n = self.pending_count();
        self.pending = 0;
        if let Some(extra) = &mut self.extra {
            extra.pending_more.clear();
        }
        n
    }

    /// Waits for the operator.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state & HELD != 0
    }

    /// Was made here.
    #[must_use]
    pub fn is_generated(&self) -> bool {
        self.state & GENERATED != 0
    }

    /// Is being copied: its place is about to change.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.state & MOVING != 0
    }

    pub(crate) fn set_moving(&mut self, moving: bool) {
        self.set(MOVING, moving);
    }

    /// Its client was told 451: it is not to be relayed in this life of the daemon.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.state & CANCELLED != 0
    }

    pub(crate) fn set_cancelled(&mut self) {
        self.set(CANCELLED, true);
    }

    fn set(&mut self, bit: u8, on: bool) {
        if on {
            self.state |= bit;
        } else {
            self.state &= !bit;
        }
    }

    /// Bits of `message::flags`.
    #[must_use]
    pub fn flags(&self) -> u32 {
        let bit = |bit, flag| if self.state & bit != 0 { flag } else { 0 };
        bit(HELD, flags::HELD)
            | bit(GENERATED, flags::GENERATED)
            | bit(QUARANTINED, flags::QUARANTINED)
            | bit(ARCHIVED, flags::ARCHIVED)
    }

    /// No recipient needs work any more.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.pending_count() == 0
    }

    /// A later copy counts from now on; what changed since it was made stays changed.
    pub(crate) fn move_to(&mut self, place: Place, copy: u16, chunks: Vec<Place>) {
        (self.segment, self.offset, self.length) = (place.segment, place.offset, place.length);
        self.copy = copy;
        self.set_chunks(chunks);
    }

    /// What a new message adds to the ledger.
    #[must_use]
    pub fn arrival(&self) -> Ledger {
        let n = i64::from(self.recipients);
        let open = i64::from(self.pending_count());
        let mut ledger = Ledger::default();
        *(if self.is_generated() { &mut ledger.generated } else { &mut ledger.accepted }) = n;
        *self.waiting(&mut ledger) = open;
        // Recipients settled before the message was written (a copy taken over from elsewhere).
        ledger.handed_over = n - open;
        ledger
    }

    /// What it counts for while it is here.
    #[must_use]
    pub fn standing(&self) -> Ledger {
        let mut ledger = Ledger::default();
        *self.waiting(&mut ledger) = i64::from(self.pending_count());
        ledger
    }

    fn waiting<'a>(&self, ledger: &'a mut Ledger) -> &'a mut i64 {
        if self.is_held() { &mut ledger.held } else { &mut ledger.queued }
    }

    fn settle(&self, ledger: &mut Ledger, state: RecipientState, n: u32) {
        let n = i64::from(n);
        *self.waiting(ledger) -= n;
        let slot = match state {
            RecipientState::Delivered => &mut ledger.delivered,
            RecipientState::HandedOver | RecipientState::Redirected => &mut ledger.handed_over,
            RecipientState::Failed => &mut ledger.bounced,
            RecipientState::Discarded => &mut ledger.double_bounces,
            RecipientState::Removed => &mut ledger.removed,
            RecipientState::Pending | RecipientState::Held => self.waiting(ledger),
        };
        *slot += n;
    }

    /// Takes in a change and says what it did to the ledger.
    pub fn apply(&mut self, change: &Change) -> Ledger {
        let mut ledger = Ledger::default();
        match change {
            Change::Done(done) => {
                for result in done.results.iter().filter(|r| r.state.is_final()) {
                    if self.clear(result.recipient) {
                        self.settle(&mut ledger, result.state, 1);
                        if !self.is_finished() {
                            self.extra_mut().settled.push((result.recipient, result.state));
                        }
                    }
                }
                if let Some(state) = done.all.filter(|s| s.is_final()) {
                    let n = self.clear_all();
                    self.settle(&mut ledger, state, n);
                }
            }
            Change::Defer(defer) => {
                self.next_wall_s = seconds(defer.next_wall_us);
                self.tries = defer.tries;
                self.tier = defer.tier;
            }
            Change::Hold(_) | Change::Release(_) => {
                let hold = matches!(change, Change::Hold(_));
                if hold != self.is_held() {
                    let n = i64::from(self.pending_count());
                    *self.waiting(&mut ledger) -= n;
                    self.set(HELD, hold);
                    *self.waiting(&mut ledger) += n;
                }
            }
            Change::Redirect(r) => {
                let redirects = &mut self.extra_mut().redirects;
                redirects.retain(|(n, _)| *n != r.recipient);
                redirects.push((r.recipient, r.address.clone()));
            }
            Change::Cancel(_) => {
                let n = i64::from(self.clear_all());
                *self.waiting(&mut ledger) -= n;
                *(if self.is_generated() {
                    &mut ledger.generated
                } else {
                    &mut ledger.accepted
                }) -= n;
            }
            Change::Move(..) => {}
        }
        ledger
    }
}

/// What a new message adds to the ledger.
#[must_use]
pub fn arrival(summary: &Summary) -> Ledger {
    Live::of(summary, SegmentRef::NONE).arrival()
}

const PAGE: usize = 4096;

/// All of them, by id.
#[derive(Default)]
pub struct Table {
    pages: Vec<Vec<Live>>,
    free: Vec<u32>,
    slots: HashTable<u32>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("messages", &self.slots.len()).finish_non_exhaustive()
    }
}

fn hash(id: TransactionId) -> u64 {
    let b = id.to_bytes();
    let half = |at: usize| u64::from_le_bytes(b[at..at + 8].try_into().expect("eight bytes"));
    // Ids are ours, not the network's: mixing is enough. A folded product moves every bit.
    let (a, b) = (half(0) ^ 0x9e37_79b9_7f4a_7c15, half(8) ^ 0xd6e8_feb8_6659_fd93);
    let product = (u128::from(a) * u128::from(b)).to_le_bytes();
    let fold = |at: usize| u64::from_le_bytes(product[at..at + 8].try_into().expect("eight"));
    fold(0) ^ fold(8)
}

fn at(slot: u32) -> (usize, usize) {
    let slot = crate::bytes::index(slot);
    (slot / PAGE, slot % PAGE)
}

impl Table {
    /// How many messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// None.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn slot(&self, id: TransactionId) -> Option<u32> {
        self.slot_of(id, hash(id))
    }

    fn slot_of(&self, id: TransactionId, hashed: u64) -> Option<u32> {
        let same = |slot: &u32| {
            let (page, i) = at(*slot);
            self.pages[page][i].id == id
        };
        self.slots.find(hashed, same).copied()
    }

    /// The message of that id.
    #[must_use]
    pub fn get(&self, id: TransactionId) -> Option<&Live> {
        let (page, i) = at(self.slot(id)?);
        Some(&self.pages[page][i])
    }

    /// The same, to change.
    pub fn get_mut(&mut self, id: TransactionId) -> Option<&mut Live> {
        let (page, i) = at(self.slot(id)?);
        Some(&mut self.pages[page][i])
    }

    /// Puts in a message; false (and nothing done) when its id is there already.
    pub fn insert(&mut self, summary: &Summary, segment: SegmentRef) -> bool {
        self.insert_live(Live::of(summary, segment))
    }

    /// The same with all that is known.
    pub fn insert_live(&mut self, live: Live) -> bool {
        self.insert_new(live).is_some()
    }

    /// The same; gives what was put in.
    pub(crate) fn insert_new(&mut self, live: Live) -> Option<&mut Live> {
        let id = live.id;
        let hashed = hash(id);
        if self.slot_of(id, hashed).is_some() {
            return None;
        }
        let slot = match self.free.pop() {
            Some(slot) => {
                let (page, i) = at(slot);
                self.pages[page][i] = live;
                slot
            }
            None => self.push(live),
        };
        let pages = &self.pages;
        let rehash = |slot: &u32| {
            let (page, i) = at(*slot);
            hash(pages[page][i].id)
        };
        self.slots.insert_unique(hashed, slot, rehash);
        let (page, i) = at(slot);
        Some(&mut self.pages[page][i])
    }

    fn push(&mut self, live: Live) -> u32 {
        if self.pages.last().is_none_or(|p| p.len() == PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        let page = self.pages.len() - 1;
        self.pages[page].push(live);
        len32(page * PAGE + self.pages[page].len() - 1)
    }

    /// Takes a message out.
    pub fn remove(&mut self, id: TransactionId) -> Option<Live> {
        let pages = &self.pages;
        let same = |slot: &u32| {
            let (page, i) = at(*slot);
            pages[page][i].id == id
        };
        let (slot, _) = self.slots.find_entry(hash(id), same).ok()?.remove();
        let (page, i) = at(slot);
        self.free.push(slot);
        let live = &mut self.pages[page][i];
        let extra = live.extra.take();
        Some(Live { extra, ..live.clone() })
    }

    /// All messages, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Live> {
        self.slots.iter().map(|slot| {
            let (page, i) = at(*slot);
            &self.pages[page][i]
        })
    }

    /// Gives the messages in `count` places from `from` on to `take`; where to go on, `None` behind
    /// the last. Whoever walks in pieces sees every message that is there all the while.
    pub fn look(&self, from: usize, count: usize, mut take: impl FnMut(&Live)) -> Option<usize> {
        let places: usize = self.pages.iter().map(Vec::len).sum();
        let until = from.saturating_add(count).min(places);
        for place in from.min(until)..until {
            let live = &self.pages[place / PAGE][place % PAGE];
            if self.slot(live.id) == Some(len32(place)) {
                take(live);
            }
        }
        (until < places).then_some(until)
    }

    /// Takes all messages out.
    pub fn drain(&mut self) -> impl Iterator<Item = Live> + use<> {
        self.slots.clear();
        let mut gone = vec![false; self.pages.iter().map(Vec::len).sum()];
        for slot in std::mem::take(&mut self.free) {
            gone[crate::bytes::index(slot)] = true;
        }
        let all = std::mem::take(&mut self.pages).into_iter().flatten();
        all.zip(gone).filter(|(_, gone)| !gone).map(|(live, _)| live)
    }

    /// A later copy of a message that is there: its place and state count from now on. Changes
    /// made to the older copy stay made.
    pub fn supersede(&mut self, summary: &Summary, segment: SegmentRef) {
        let mut new = Live::of(summary, segment);
        let Some(old) = self.get_mut(summary.id) else { return };
        for recipient in 0..old.recipients {
            if !old.is_pending(recipient) {
                new.clear(recipient);
            }
        }
        *old = new;
    }

    /// Recipients waiting and held, by counting.
    #[must_use]
    pub fn count(&self) -> Ledger {
        let mut sum = Ledger::default();
        for live in self.iter() {
            sum.add(&live.standing());
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MessageId;

    fn summary(n: u64) -> Summary {
        let id = TransactionId { session: MessageId::new(1, 2, 3, n), n: 1 };
        Summary { id, recipients: 1, pending: 1, ..Summary::default() }
    }

    #[test]
    fn messages_are_found_by_id_and_their_slots_used_again() {
        let mut table = Table::default();
        for n in 0..10_000 {
            assert!(table.insert(&summary(n), SegmentRef(1)));
            assert!(!table.insert(&summary(n), SegmentRef(2)));
        }
        for n in (0..10_000).step_by(2) {
            assert_eq!(table.remove(summary(n).id).map(|l| l.id), Some(summary(n).id));
        }
        let pages = table.pages.len();
        for n in 10_000..15_000 {
            table.insert(&summary(n), SegmentRef(1));
        }
        assert_eq!((table.len(), table.pages.len()), (10_000, pages));
        let (mut seen, mut from) = (0, Some(0));
        while let Some(at) = from {
            from = table.look(at, 999, |_| seen += 1);
        }
        assert_eq!(seen, 10_000);
        assert!(table.get(summary(1).id).is_some() && table.get(summary(2).id).is_none());
        assert_eq!(table.drain().count(), 10_000);
    }

    #[test]
    fn neighbouring_ids_spread_over_the_hash() {
        let buckets: std::collections::HashSet<u64> =
            (0..4096).map(|n| hash(summary(n).id) & 0xffff).collect();
        assert!(buckets.len() > 3500, "{} of 4096", buckets.len());
    }

    #[test]
    fn a_message_takes_at_most_96_bytes() {
        // The slot's number with its tag, at the lowest load of the hash after it grew.
        let hash = (size_of::<u32>() + 1) * 16 / 7;
        assert!(size_of::<Live>() + hash <= 96);
    }
}
