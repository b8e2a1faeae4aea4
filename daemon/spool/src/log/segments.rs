//! Segments of a running log: opening, sealing, and when one may be used again.
//!
//! *Guarantees*: a segment is reopened only when no message in it is live and every segment it
//! waits for (because its DONEs speak of messages there) has been durably reopened.

use crate::bytes::{index, len32, len64, round_up};
use crate::disk::{Buffer, Completion, Disk, Member, Token, WriteTo};
use crate::index::{Trailer, footer_bytes};
use crate::ledger::Ledger;
use crate::limits::{BATCH_BYTES_MAX, BATCH_HEADER, BLOCK, COLD_BUCKETS_MAX, FOOTER_BYTES_MAX};
use crate::segment::{SegmentHeader, SegmentKind, SegmentRef};

use super::members::Owed;
use super::{Alarm, Event, Log, SegmentStart};

/// A set of this log's segments.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn insert(&mut self, n: usize) {
        if self.0.len() <= n / 64 {
            self.0.resize(n / 64 + 1, 0);
        }
        self.0[n / 64] |= 1 << (n % 64);
    }

    fn remove(&mut self, n: usize) {
        if let Some(word) = self.0.get_mut(n / 64) {
            *word &= !(1 << (n % 64));
        }
    }

    pub(super) fn contains(&self, n: usize) -> bool {
        self.0.get(n / 64).is_some_and(|word| word >> (n % 64) & 1 != 0)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|w| *w == 0)
    }

    fn is_subset(&self, of: &Self) -> bool {
        let word = |n: usize| of.0.get(n).copied().unwrap_or(0);
        self.0.iter().enumerate().all(|(n, w)| w & !word(n) == 0)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Nothing in it is needed; never written, or recovered empty.
    Free,
    /// Its header is on the way.
    Opening,
    /// Dead; a header is on the way that says so, then a footer.
    Blanking,
    /// Open, and not yet chosen.
    Ready,
    /// Takes batches.
    Open,
    /// Full; its footer waits for the last batches or is on the way.
    Sealing,
    /// Takes nothing more.
    Sealed,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) at: SegmentRef,
    pub(super) epoch: u64,
    /// The use before, while the header of this one is not durable; else 0.
    pub(super) epoch_before: u64,
    pub(super) state: State,
    pub(super) kind: SegmentKind,
    /// MSGs and CHUNKs in it that are needed.
    pub(super) live: u32,
    /// Their bytes.
    pub(super) live_bytes: u64,
    pub(super) waits_for: Bits,
    /// Of those, the ones with a failed attempt at a batch that stands here, or at which a further
    /// attempt failed here: nothing that could be copied forward ends that.
    pub(super) attempts: Bits,
    /// Age: smaller is older.
    pub(super) order: u64,
    pub(super) opened_us: u64,
    pub(super) swept_us: u64,
    /// In memory until the footer is on the device.
    pub(super) index: Option<Vec<u8>>,
    /// What the index may grow to with batches under way.
    pub(super) index_reserved: usize,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    pub(super) last_wall_us: u64,
    /// The ledger with its last batch.
    pub(super) ledger: Ledger,
    /// A write to it failed, or part of it cannot be read.
    pub(super) failed: bool,
    /// What it was before opening failed or while a header is on its way: not to be touched.
    pub(super) retired: bool,
}

impl Segment {
    pub(super) fn is_reusable(&self) -> bool {
        let dead = self.live == 0 && self.waits_for.is_empty();
        !self.retired && (self.state == State::Free || (self.state == State::Sealed && dead))
    }
}

/// What there is of segments, so that a turn need not look through all of them; see `recount`.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Count {
    /// Can be used, at once or one after the other.
    pub(super) reclaimable: usize,
    /// Can be reopened at once.
    reusable: usize,
    /// Nothing in them, to a restart's eyes.
    blank: usize,
    /// A hot one is open that was not chosen yet, or its header is on the way.
    hot_ahead: bool,
    /// A sealed one has something live.
    sealed_live: bool,
}

/// Where the next batch of a kind goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    pub(super) segment: usize,
    pub(super) offset: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    Header,
    Footer,
    Blank,
}

/// A header or footer on its way.
#[derive(Debug)]
pub(super) struct Upkeep<B> {
    pub(super) token: Token,
    work: Work,
    segment: usize,
    pub(super) submitted_us: u64,
    pub(super) owed: Owed,
    failed: Option<(Member, Alarm)>,
    buffer: Option<B>,
}

impl<B: Buffer> Log<B> {
    pub(super) fn adopt(&mut self, mut starts: Vec<SegmentStart>, now_us: u64) {
        starts.sort_by_key(|s| s.at);
        let mut waits = Vec::with_capacity(starts.len());
        for start in starts {
            // The order of recovery does not matter: what is dead goes first, whichever it is.
            self.segments.push(Segment {
                at: start.at,
                epoch: start.epoch,
                epoch_before: 0,
                state: if start.used { State::Sealed } else { State::Free },
                kind: start.kind,
                live: 0,
                live_bytes: 0,
                waits_for: Bits::default(),
                attempts: Bits::default(),
                order: start.epoch,
                opened_us: now_us,
                swept_us: 0,
                index: start.index,
                index_reserved: 0,
                first_seq: 0,
                last_seq: 0,
                last_wall_us: 0,
                ledger: Ledger::default(),
                failed: false,
                retired: start.quarantined,
            });
            self.next_order = self.next_order.max(start.epoch + 1);
            waits.push((start.waits_for, start.attempts));
        }
        for (later, (waits, attempts)) in waits.into_iter().enumerate() {
            waits.into_iter().for_each(|earlier| self.wait_for(later, earlier));
            attempts.into_iter().for_each(|earlier| self.wait_for_attempt(later, earlier));
        }
        let mut places = Vec::new();
        for live in self.table.iter() {
            places.push(live.place());
            places.extend_from_slice(live.chunks());
        }
        for place in places {
            self.hold(place);
        }
        self.recount();
        self.begin_refills();
    }

    /// The segment of that address.
    pub(super) fn segment_of(&self, at: SegmentRef) -> Option<usize> {
        self.segments.binary_search_by_key(&at, |s| s.at).ok()
    }

    pub(super) fn hold(&mut self, place: crate::live::Place) {
        if let Some(i) = self.segment_of(place.segment) {
            self.segments[i].live += 1;
            self.segments[i].live_bytes += u64::from(place.length);
        }
    }

    pub(super) fn let_go(&mut self, place: crate::live::Place) {
        if let Some(i) = self.segment_of(place.segment) {
            let segment = &mut self.segments[i];
            segment.live = segment.live.saturating_sub(1);
            segment.live_bytes = segment.live_bytes.saturating_sub(u64::from(place.length));
            self.recount_due |= segment.live == 0 && segment.state == State::Sealed;
        }
    }

    /// `later` may be reused only after `earlier` has been.
    pub(super) fn wait_for(&mut self, later: usize, earlier: SegmentRef) {
        let Some(earlier) = self.segment_of(earlier) else { return };
        if later != earlier
            && self.segments[earlier].state != State::Free
            && !self.segments[later].waits_for.contains(earlier)
        {
            self.segments[later].waits_for.insert(earlier);
            self.recount_due |= self.segments[later].state == State::Sealed;
        }
    }

    /// `earlier` holds a failed attempt at what was then written to `later`. A batch names the last
    /// one only: those before it are known by this chain.
    pub(super) fn wait_for_attempt(&mut self, later: usize, earlier: SegmentRef) {
        self.wait_for(later, earlier);
        let Some(earlier) = self.segment_of(earlier) else { return };
        let segment = &mut self.segments[later];
        if segment.waits_for.contains(earlier) {
            segment.attempts.insert(earlier);
        }
    }

    /// `later` may hold a change of a message whose place is not known: everything goes first.
    pub(super) fn wait_for_all(&mut self, later: usize) {
        for earlier in 0..self.segments.len() {
            self.wait_for(later, self.segments[earlier].at);
        }
    }

    /// Bytes a batch may have at the cursor, with that much more index.
    pub(super) fn room(&self, cursor: Cursor, more_index: usize) -> usize {
        let segment = &self.segments[cursor.segment];
        let footer = footer_bytes(segment.index_reserved + more_index);
        if footer > FOOTER_BYTES_MAX {
            return 0;
        }
        let end = index(self.segment_bytes).saturating_sub(footer);
        end.saturating_sub(index(cursor.offset)).min(BATCH_BYTES_MAX)
    }

    /// A record of that size, with what the footer says of it, goes into an empty segment.
    pub(super) fn fits_segment(&self, bytes: usize, more_index: usize) -> bool {
        let footer = footer_bytes(more_index + 128);
        let room = (index(self.segment_bytes) - BLOCK).saturating_sub(footer);
        footer <= FOOTER_BYTES_MAX
            && round_up(BATCH_HEADER + bytes, BLOCK) <= room.min(BATCH_BYTES_MAX)
    }

    /// Counts what one reopening after the other can give: a dead segment that only waits for
    /// segments that can be reopened themselves. (In a busy log each dead segment waits for the
    /// one before it, so that at any moment one alone can be used at once.) Due when a segment
    /// changed its state or died: seldom, and at most twice a turn. What is promised between two
    /// turns stays right: there a segment can only die.
    pub(super) fn recount(&mut self) {
        self.recount_due = false;
        // A batch on its way may still bring something to life in it.
        let dead = |i: &usize| {
            let s = &self.segments[*i];
            let over = !s.retired && !self.is_left(s.at) && s.state == State::Sealed && s.live == 0;
            over && self.flights.iter().all(|f| f.segment != *i)
        };
        let mut ways: Vec<usize> = (0..self.segments.len()).filter(dead).collect();
        ways.sort_unstable_by_key(|i| self.segments[*i].order);
        let mut given = Bits::default();
        for (i, segment) in self.segments.iter().enumerate() {
            if self.is_left(segment.at) {
                continue;
            }
            if matches!(
                segment.state,
                State::Free | State::Ready | State::Opening | State::Blanking
            ) {
                given.insert(i);
            }
        }
        loop {
            let before = ways.len();
            ways.retain(|i| {
                let free = self.segments[*i].waits_for.is_subset(&given);
                if free {
                    given.insert(*i);
                }
                !free
            });
            if ways.is_empty() || ways.len() == before {
                break;
            }
        }
        // One that was opened for copies takes no mail.
        let spoken_for = |s: &Segment| {
            matches!(s.state, State::Opening | State::Ready) && s.kind != SegmentKind::Hot
        };
        let all = self.segments.iter().enumerate();
        let reclaimable =
            all.filter(|(i, s)| given.contains(*i) && !s.retired && !spoken_for(s)).count();
        let blank = |s: &&Segment| {
            !s.retired && !self.is_left(s.at) && matches!(s.state, State::Free | State::Ready)
        };
        let ahead = |s: &Segment| {
            matches!(s.state, State::Opening | State::Ready) && s.kind == SegmentKind::Hot
        };
        self.count = Count {
            reclaimable,
            reusable: self
                .segments
                .iter()
                .filter(|s| s.is_reusable() && !self.is_left(s.at))
                .count(),
            blank: self.segments.iter().filter(blank).count(),
            hot_ahead: self.segments.iter().any(ahead),
            sealed_live: self.segments.iter().any(|s| s.state == State::Sealed && s.live > 0),
        };
    }

    /// Segments that can be opened, one after the other.
    pub(super) fn free_segments(&self) -> usize {
        self.count.reclaimable
    }

    /// Segments that only the log's own work may take: changes, copies, reports. With fewer, a
    /// restart in a full log could write nothing any more.
    pub(super) fn own_segments(&self) -> usize {
        // One for each start that is cut off before it could free any.
        match self.segments.len() {
            0..6 => 2,
            6..8 => 3,
            _ => 4,
        }
    }

    /// Space is so short that the log works on getting some back before anything else.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        self.free_segments() <= self.own_segments() + 1
    }

    /// Bytes that may still be promised to clients. What is missing of the log's own segments is
    /// not taken from the open one either.
    pub(super) fn available(&self) -> u64 {
        let usable = u64::from(self.segment_bytes - self.segment_bytes / 16);
        let rest = self.hot.map_or(0, |cursor| {
            let left = self.segment_bytes.saturating_sub(cursor.offset);
            u64::from(left.saturating_sub(self.segment_bytes / 16))
        });
        let all = len64(self.free_segments()) * usable + rest;
        let kept = len64(self.own_segments()) * usable + self.reserved;
        all.saturating_sub(kept).saturating_sub(len64(self.waiting_bytes))
    }

    /// No segment is left that could be opened, and none is on its way.
    pub(super) fn is_out_of_segments(&self) -> bool {
        let opening = |s: &Segment| matches!(s.state, State::Opening | State::Ready);
        !self.segments.iter().any(|s| s.is_reusable() && !self.is_left(s.at) || opening(s))
    }

    pub(super) fn is_sealing(&self) -> bool {
        let going = |s: &Segment| matches!(s.state, State::Sealing | State::Ready | State::Opening);
        self.segments.iter().any(going)
    }

    pub(super) fn has_sealed(&self) -> bool {
        self.count.sealed_live
    }

    /// Takes the open segment for that kind; false when none is ready yet.
    pub(super) fn take_ready(&mut self, kind: SegmentKind) -> Option<Cursor> {
        let i = self.segments.iter().position(|s| s.state == State::Ready && s.kind == kind)?;
        self.segments[i].state = State::Open;
        self.recount_due = true;
        let cursor = Cursor { segment: i, offset: len32(BLOCK) };
        match kind {
            SegmentKind::Hot => self.hot = Some(cursor),
            SegmentKind::Cold(bucket) => self.cold[usize::from(bucket)] = Some(cursor),
        }
        Some(cursor)
    }

    /// The open segment of that kind takes no more batches.
    pub(super) fn seal(&mut self, kind: SegmentKind) {
        let cursor = match kind {
            SegmentKind::Hot => self.hot.take(),
            SegmentKind::Cold(bucket) => self.cold[usize::from(bucket)].take(),
        };
        if let Some(cursor) = cursor {
            self.segments[cursor.segment].state = State::Sealing;
            self.footers_due = true;
        }
    }

    /// One that was opened and not chosen yet.
    fn seal_unused(&mut self, i: usize) {
        self.segments[i].state = State::Sealing;
        self.footers_due = true;
    }

    /// No header or footer of it is on its way.
    pub(super) fn is_settled(&self, i: usize) -> bool {
        self.upkeep.iter().all(|u| u.segment != i)
    }

    /// Opens ahead, writes footers, seals at the end.
    pub(super) fn tend_segments<D: Disk<Buffer = B>>(
        &mut self,
        disk: &mut D,
        now_us: u64,
        wall_us: u64,
    ) {
        if self.closing && self.waiting.is_empty() && self.flights.is_empty() {
            self.seal(SegmentKind::Hot);
            for bucket in 0..COLD_BUCKETS_MAX {
                self.seal(SegmentKind::Cold(u8::try_from(bucket).expect("few buckets")));
            }
        }
        if self.closing && self.flights.is_empty() && self.waiting.is_empty() {
            // An empty footer spares the next start a look through an empty segment.
            for i in 0..self.segments.len() {
                if self.segments[i].state == State::Ready {
                    self.seal_unused(i);
                }
            }
        }
        self.write_footers(disk, now_us);
        let hot_low = match self.hot {
            None => true,
            Some(cursor) => cursor.offset > self.segment_bytes / 2,
        };
        let wanted = (hot_low && !self.closing) || self.rewriting || !self.waiting.is_empty();
        if (hot_low || self.rewriting) && wanted && self.may_try(now_us) {
            self.open_one(disk, SegmentKind::Hot, now_us, wall_us);
        }
        if let Some(bucket) = self.wanted_cold() {
            self.open_one(disk, SegmentKind::Cold(bucket), now_us, wall_us);
        }
        if !self.closing {
            self.blank_one(disk, now_us, wall_us);
        }
    }

    fn open_one<D: Disk<Buffer = B>>(
        &mut self,
        disk: &mut D,
        kind: SegmentKind,
        now_us: u64,
        wall_us: u64,
    ) {
        let there =
            |s: &Segment| matches!(s.state, State::Opening | State::Ready) && s.kind == kind;
        let ahead = match kind {
            SegmentKind::Hot => self.count.hot_ahead,
            SegmentKind::Cold(_) => self.segments.iter().any(there),
        };
        if ahead || self.count.reusable == 0 || self.spare.is_empty() {
            return;
        }
        // The log's own reserve is for changes, not for copies.
        if kind != SegmentKind::Hot && self.free_segments() <= self.own_segments() {
            return;
        }
        let home = self.columns.first().map_or(0, |c| c.column);
        let best = (0..self.segments.len())
            .filter(|i| self.segments[*i].is_reusable() && !self.is_left(self.segments[*i].at))
            .filter(|i| self.flights.iter().all(|f| f.segment != *i))
            .filter(|i| self.sweep_segment() != Some(*i) && !self.is_copied(*i))
            .min_by_key(|i| {
                let s = &self.segments[*i];
                (s.failed, s.at.column() != home, s.order)
            });
        let Some(i) = best else { return };
        let Some(buffer) = self.spare.pop() else { return };
        self.write_header(disk, (Work::Header, i, kind), buffer, now_us, wall_us);
    }

    fn write_header<D: Disk<Buffer = B>>(
        &mut self,
        disk: &mut D,
        (work, i, kind): (Work, usize, SegmentKind),
        mut buffer: B,
        now_us: u64,
        wall_us: u64,
    ) {
        let order = self.next_order;
        self.next_order += 1;
        let next_epoch = (self.segments[i].epoch + 1).max(u64::from(self.run) << 24);
        let header = SegmentHeader {
            log: self.log_of(self.segments[i].at),
            epoch: next_epoch,
            segment: self.segments[i].at,
            run: self.run,
            core: self.core,
            kind,
            unfinished: false,
            first_batch: self.next_seq,
            durable_through: self.durable_through,
            opened_wall_us: wall_us,
        };
        let segment = &mut self.segments[i];
        if segment.epoch_before == 0 {
            segment.epoch_before = segment.epoch;
        }
        segment.epoch = next_epoch;
        segment.state = if work == Work::Blank { State::Blanking } else { State::Opening };
        self.recount_due = true;
        segment.kind = kind;
        segment.order = order;
        segment.opened_us = now_us;
        segment.swept_us = 0;
        segment.index = Some(Vec::new());
        segment.index_reserved = 0;
        segment.first_seq = 0;
        segment.last_seq = 0;
        segment.ledger = Ledger::default();
        buffer.bytes_mut()[..BLOCK].copy_from_slice(&header.encode());
        self.submit_upkeep(disk, (work, i), (0, BLOCK), buffer, now_us);
    }

    /// Few segments are free in a restart's eyes: a dead one gets an empty header now. What this
    /// life knows of changes copied forward the next one does not: it would wait again.
    fn blank_one<D: Disk<Buffer = B>>(&mut self, disk: &mut D, now_us: u64, wall_us: u64) {
        let under_way = self.upkeep.iter().any(|u| u.work == Work::Blank);
        let enough = self.count.blank > self.own_segments();
        if enough || under_way || self.spare.len() < 3 || !self.may_try(now_us) {
            return;
        }
        // The newest batch says how the books stand: it is not thrown away before there is another.
        let newest = self.segments.iter().map(|s| s.last_seq).max().unwrap_or(0);
        let dead = (0..self.segments.len())
            .filter(|i| self.segments[*i].is_reusable() && self.segments[*i].state != State::Free)
            .filter(|i| newest == 0 || self.segments[*i].last_seq != newest)
            .filter(|i| !self.segments[*i].failed && self.sweep_segment() != Some(*i))
            .filter(|i| !self.is_copied(*i) && !self.is_left(self.segments[*i].at))
            .filter(|i| self.flights.iter().all(|f| f.segment != *i))
            .min_by_key(|i| self.segments[*i].order);
        let Some(i) = dead else { return };
        let Some(buffer) = self.spare.pop() else { return };
        self.write_header(disk, (Work::Blank, i, SegmentKind::Hot), buffer, now_us, wall_us);
    }

    pub(super) fn log_of(&self, at: SegmentRef) -> u128 {
        self.columns.iter().find(|c| c.column == at.column()).map_or(0, |c| c.log)
    }

    fn submit_upkeep<D: Disk<Buffer = B>>(
        &mut self,
        disk: &mut D,
        (work, segment): (Work, usize),
        (offset, bytes): (usize, usize),
        buffer: B,
        now_us: u64,
    ) {
        let at = self.segments[segment].at;
        let members = self.members(at);
        let token = self.token();
        self.upkeep.push(Upkeep {
            token,
            work,
            segment,
            submitted_us: now_us,
            owed: Owed(members),
            failed: None,
            buffer: None,
        });
        self.counters.bytes_written += len64(bytes);
        let offset = at.device_offset(self.segment_bytes) + len64(offset);
        disk.write(token, WriteTo { members, offset, bytes }, buffer);
    }

    fn write_footers<D: Disk<Buffer = B>>(&mut self, disk: &mut D, now_us: u64) {
        if !std::mem::take(&mut self.footers_due) {
            return;
        }
        for i in 0..self.segments.len() {
            let s = &self.segments[i];
            // An empty footer spares the next start a look through an empty segment.
            let is_blank = s.state == State::Blanking && s.epoch_before == 0;
            if s.state != State::Sealing && !is_blank {
                continue;
            }
            let busy = self.flights.iter().any(|f| f.segment == i)
                || self.upkeep.iter().any(|u| u.segment == i);
            if busy || self.spare.is_empty() {
                self.footers_due = true;
                continue;
            }
            let Some(records) = self.segments[i].index.take() else { continue };
            let Some(mut buffer) = self.spare.pop() else { continue };
            let s = &self.segments[i];
            let trailer = Trailer {
                log: self.log_of(s.at),
                epoch: s.epoch,
                segment: s.at,
                bytes: 0,
                used: 0,
                records_crc: 0,
                first_seq: s.first_seq,
                last_seq: s.last_seq,
                wall_us: s.last_wall_us,
                run: self.run,
                core: self.core,
                ledger: s.ledger,
            };
            let bytes = trailer.encode(&records, buffer.bytes_mut());
            self.segments[i].index = Some(records);
            let offset = index(self.segment_bytes) - bytes;
            debug_assert_eq!(round_up(offset, BLOCK), offset);
            self.submit_upkeep(disk, (Work::Footer, i), (offset, bytes), buffer, now_us);
        }
    }

    pub(super) fn upkeep_done(&mut self, i: usize, done: Completion<B>, now_us: u64) {
        let at = self.segments[self.upkeep[i].segment].at;
        let expected = match self.upkeep[i].work {
            Work::Header | Work::Blank => BLOCK,
            Work::Footer => {
                let records = self.segments[self.upkeep[i].segment].index.as_ref();
                footer_bytes(records.map_or(0, Vec::len))
            }
        };
        let offset = at.device_offset(self.segment_bytes);
        let failed = self.write_failed(&done, at, expected, offset);
        let work = &mut self.upkeep[i];
        work.owed.answered(done.member);
        work.failed = work.failed.take().or_else(|| failed.map(|alarm| (done.member, alarm)));
        work.buffer = work.buffer.take().or(done.buffer);
        if !work.owed.is_none() {
            return;
        }
        let work = self.upkeep.swap_remove(i);
        self.spare.extend(work.buffer);
        let failed = work.failed.as_ref().map(|(member, _)| *member);
        if let Some((_, alarm)) = work.failed {
            self.events.push_back(Event::Alarm(alarm));
        }
        self.upkeep_result(work.work, work.segment, failed, now_us);
        self.recount_due = true;
    }

    fn upkeep_result(&mut self, work: Work, segment: usize, failed: Option<Member>, now_us: u64) {
        match (work, failed) {
            (Work::Header, None) => {
                self.reopened(segment);
            }
            (Work::Blank, None) => {
                self.reopened(segment);
                self.segments[segment].state = State::Blanking;
                self.footers_due = true;
            }
            (Work::Header | Work::Blank, Some(member)) => {
                // Nothing in it is needed, whichever header is there: it may be tried again.
                self.segments[segment].state = State::Sealed;
                self.segments[segment].failed = true;
                self.count_error(member, now_us);
            }
            (Work::Footer, Some(member)) => {
                // Its index stays in memory; a restart reads the segment instead.
                self.segments[segment].state = State::Sealed;
                self.segments[segment].failed = true;
                self.count_error(member, now_us);
            }
            (Work::Footer, None) => {
                let blank = self.segments[segment].state == State::Blanking;
                self.segments[segment].state = if blank { State::Free } else { State::Sealed };
                self.segments[segment].index = None;
            }
        }
    }

    /// The header of a new use is durable: whoever waited for that waits no more.
    fn reopened(&mut self, i: usize) {
        self.segments[i].state = State::Ready;
        self.segments[i].failed = false;
        self.segments[i].epoch_before = 0;
        self.segments[i].waits_for.clear();
        self.segments[i].attempts.clear();
        for segment in &mut self.segments {
            segment.waits_for.remove(i);
            segment.attempts.remove(i);
        }
    }
}
