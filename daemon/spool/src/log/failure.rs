//! When the device says no, or nothing.
//!
//! *Guarantees*: after an error the segment is closed; that batch and every later one are written
//! again elsewhere, in order, before anyone hears 250. Whoever heard 451 is cancelled durably
//! before the space counts as free, and is not relayed in this life of the daemon.

use crate::bytes::{index, len32};
use crate::disk::{Buffer, Disk, Member};
use crate::id::TransactionId;
use crate::limits::{BATCH_HEADER, BLOCK, ERRORS_MAX};
use crate::record::{Change, Target};
use crate::segment::{SegmentKind, SegmentRef};

use super::batches::{Effect, Item};
use super::segments::State;
use super::{Alarm, Event, Health, Log, Previous};

impl<B: Buffer> Log<B> {
    /// A failed device is tried again now and then.
    pub(super) fn may_try(&self, now_us: u64) -> bool {
        self.out_asked.is_none() && (self.health == Health::Good || now_us >= self.retry_at_us)
    }

    /// Nothing may take longer than `commit_wait_us`.
    pub(super) fn watch(&mut self, now_us: u64) {
        let flights = self.flights.iter().map(|f| (f.submitted_us, f.owed));
        let upkeep = self.upkeep.iter().map(|u| (u.submitted_us, u.owed));
        let copies = self.refills.iter().filter_map(super::Refill::writing);
        let wait_us = self.config.commit_wait_us;
        let late = |since: u64| now_us >= since.saturating_add(wait_us);
        let stuck =
            flights.chain(upkeep).chain(copies).filter(|(t, owed)| !owed.is_none() && late(*t));
        // Who was put out a moment ago answers in a moment.
        let by = stuck.fold(0, |by, (_, owed)| by | owed.bits()) & self.member_bits();
        let asked_late = self.out_asked.is_some_and(|(_, since)| late(since));
        if by != 0 && !self.blame(by, now_us) || asked_late {
            self.out_asked = self.out_asked.filter(|_| !asked_late);
            if self.health == Health::Good {
                self.fail(now_us);
            }
        }
        if self.health == Health::Failed && now_us >= self.retry_at_us + self.config.commit_wait_us
        {
            self.retry_at_us = now_us;
        }
    }

    pub(super) fn count_error(&mut self, member: Member, now_us: u64) {
        self.counters.errors += 1;
        if self.is_left_member(member) {
            return;
        }
        self.errors_in_row += 1;
        self.errors_by |= 1 << member;
        if self.errors_in_row >= ERRORS_MAX
            && !self.blame(self.errors_by, now_us)
            && !self.leave_column(self.errors_by)
        {
            if self.health == Health::Good {
                self.fail(now_us);
            }
            self.retry_at_us = now_us + self.config.commit_wait_us;
        }
    }

    pub(super) fn fail(&mut self, now_us: u64) {
        self.health = Health::Failed;
        self.retry_at_us = now_us + self.config.commit_wait_us;
        self.events.push_back(Event::Alarm(Alarm::Failed));
        for flight in &mut self.flights {
            for effect in &mut flight.effects {
                let Effect::Message { outgoing, cancelled } = effect else { continue };
                if outgoing.own || *cancelled {
                    continue;
                }
                *cancelled = true;
                let (token, id) = (outgoing.token, outgoing.summary.id);
                self.events.push_back(Event::Refused { token, id });
            }
        }
        let waiting = std::mem::take(&mut self.waiting);
        for item in waiting {
            match item {
                Item::Message(m) if !m.own => {
                    self.waiting_bytes -= m.bytes().min(self.waiting_bytes);
                    self.built += 1;
                    self.waiting_messages -= 1;
                    self.memory -= m.header.len() + m.body.len();
                    self.free_tx(m.slot);
                    let (token, id) = (m.token, m.summary.id);
                    self.events.push_back(Event::Refused { token, id });
                }
                other => self.waiting.push_back(other),
            }
        }
        self.fail_open_transactions();
    }

    /// Something was written: good again once everything that was refused is cancelled.
    pub(super) fn heal(&mut self) {
        let refused = |e: &Effect| matches!(e, Effect::Message { cancelled: true, .. });
        let owed = self.cancels > 0
            || self.rewriting
            || self.flights.iter().any(|f| f.effects.iter().any(refused));
        if self.health == Health::Failed && !owed {
            self.health = Health::Good;
            self.events.push_back(Event::Alarm(Alarm::Recovered));
        }
    }

    /// A refused message became durable after all.
    pub(super) fn cancel(&mut self, id: TransactionId, now_us: u64) {
        if let Some(live) = self.table.get_mut(id) {
            live.set_cancelled();
        }
        let target = Target { id, segment: SegmentRef::NONE, epoch: 0 };
        if self.change(Change::Cancel(target), None, now_us).is_ok() {
            self.cancels += 1;
        }
    }

    /// The segment of flight `i` takes nothing more; it and all later flights go elsewhere.
    pub(super) fn close_failed_segment(&mut self, i: usize) {
        let bad = self.flights[i].segment;
        self.segments[bad].state = State::Sealed;
        self.segments[bad].failed = true;
        self.recount_due = true;
        if self.hot.is_some_and(|c| c.segment == bad) {
            self.hot = None;
        }
        for cursor in &mut self.cold {
            if cursor.is_some_and(|c| c.segment == bad) {
                *cursor = None;
            }
        }
        for flight in self.flights.iter_mut().skip(i) {
            flight.failed = true;
        }
    }

    /// Writes failed flights again, in order, once the device has let go of their buffers.
    pub(super) fn rewrite<D: Disk<Buffer = B>>(&mut self, disk: &mut D, now_us: u64) {
        let back = |f: &super::Flight<B>| !f.failed || (f.owed.is_none() && f.buffer.is_some());
        if !self.rewriting || !self.may_try(now_us) || !self.flights.iter().all(back) {
            return;
        }
        while let Some(i) = self.flights.iter().position(|f| f.failed) {
            let bytes = index(self.flights[i].header.bytes);
            let more = self.flights[i].index_bytes;
            let Some(cursor) = self.cursor(SegmentKind::Hot, bytes - BATCH_HEADER, more) else {
                return;
            };
            self.previous = self.before(i);
            let segment = &mut self.segments[cursor.segment];
            segment.index_reserved += more;
            let (at, epoch) = (segment.at, segment.epoch);
            let flight = &mut self.flights[i];
            let header = &mut flight.header;
            header.attempt = header.attempt.saturating_add(1);
            (header.stale_segment, header.stale_epoch) = (header.segment, header.epoch);
            (header.segment, header.epoch) = (at, epoch);
            header.durable_through = self.durable_through;
            let stale = header.stale_segment;
            flight.segment = cursor.segment;
            flight.offset = cursor.offset;
            self.hot = Some(super::Cursor { offset: cursor.offset + len32(bytes), ..cursor });
            self.wait_for_attempt(cursor.segment, stale);
            self.write_flight(disk, i, now_us);
        }
        self.rewriting = false;
        self.recount_due = true;
    }

    /// Where the batch before flight `i` stands.
    fn before(&self, i: usize) -> Previous {
        match i.checked_sub(1).map(|i| &self.flights[i]) {
            Some(f) => Previous {
                crc: f.crc,
                segment: f.header.segment,
                block: f.offset / len32(BLOCK),
                epoch: f.header.epoch,
            },
            None => {
                let h = &self.flights[i].header;
                Previous {
                    crc: h.previous_crc,
                    segment: h.previous_segment,
                    block: h.previous_block,
                    epoch: h.previous_epoch,
                }
            }
        }
    }
}
