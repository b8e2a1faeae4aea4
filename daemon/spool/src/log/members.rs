//! Mirrors while they run: a member that fails is put out, one that is new is filled.
//!
//! *Guarantees*: what a failing member lacks is not acknowledged before the owner says that the
//! generation without it is durable on all others. A member being filled gets every write from the
//! moment it joins, and is not read before all that stood there earlier is copied. No block is
//! written by both: of a segment that was open then, only what stood before its next batch is
//! copied. So a log without a segment to spare takes a member in, too.
//!
//! *Limits*: one piece of one segment is copied at a time, with a buffer that nothing else needs.
//!
//! *Not here*: superblocks (the owner's).

use crate::bytes::{index, len64};
use crate::disk::{Buffer, Completion, Disk, Member, Token, WriteTo};
use crate::limits::{BATCH_BYTES_MAX, BLOCK, COLD_BUCKETS_MAX, FILL_TRIES_MAX};
use crate::segment::{SegmentKind, SegmentRef};

use super::segments::State;
use super::{Alarm, Event, Health, Log};

/// The members that have not answered yet.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Owed(pub(super) [Option<Member>; 2]);

impl Owed {
    pub(super) fn is_none(self) -> bool {
        self.0 == [None, None]
    }

    pub(super) fn answered(&mut self, member: Member) {
        for slot in self.0.iter_mut().filter(|slot| **slot == Some(member)) {
            *slot = None;
        }
    }

    /// One bit for each.
    pub(super) fn bits(self) -> u64 {
        self.0.iter().flatten().fold(0, |bits, member| bits | 1 << member)
    }
}

/// A piece on its way.
#[derive(Clone, Copy, Debug)]
struct Piece {
    token: Token,
    bytes: usize,
    writing: bool,
    submitted_us: u64,
}

/// A new member, and what of this log it still lacks.
#[derive(Debug)]
pub(super) struct Refill {
    member: Member,
    segments: usize,
    /// Segments opened from here on are there already.
    from_order: u64,
    /// Segments to copy, the next one last.
    left: Vec<usize>,
    /// Segments that were open when it joined: what is written from there on goes to it, too.
    ends: Vec<(usize, usize)>,
    offset: usize,
    /// After an error block by block, as far as this.
    careful_until: usize,
    tries: u32,
    asked: Option<Piece>,
    /// What was read.
    data: Vec<u8>,
    told: bool,
}

impl Refill {
    pub(super) fn is_asked(&self, token: Token) -> bool {
        self.asked.is_some_and(|piece| piece.token == token)
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.asked.is_none()
    }

    /// How far a segment of that many bytes is to be copied.
    fn end(&self, i: usize, segment_bytes: usize) -> usize {
        self.ends.iter().find(|(open, _)| *open == i).map_or(segment_bytes, |(_, end)| *end)
    }

    /// The write on its way: since when, to whom.
    pub(super) fn writing(&self) -> Option<(u64, Owed)> {
        let piece = self.asked.filter(|piece| piece.writing)?;
        Some((piece.submitted_us, Owed([Some(self.member), None])))
    }
}

impl<B: Buffer> Log<B> {
    /// The members whose copies count.
    pub(super) fn readers(&self, at: SegmentRef) -> impl Iterator<Item = Member> + use<B> {
        let column = self.columns.iter().find(|c| c.column == at.column());
        let filling = column.and_then(|c| c.filling);
        let members = column.map_or([None, None], |c| c.members);
        members.into_iter().flatten().filter(move |m| Some(*m) != filling)
    }

    /// All members that are written to, one bit each.
    pub(super) fn member_bits(&self) -> u64 {
        self.columns.iter().fold(0, |bits, c| bits | Owed(c.members).bits())
    }

    /// Whether one member alone is to blame and the others do without it: then the owner is asked
    /// to put it out.
    pub(super) fn blame(&mut self, members: u64, now_us: u64) -> bool {
        if self.out_asked.is_some() {
            return true;
        }
        if !members.is_power_of_two() || now_us < self.ask_again_us {
            return false;
        }
        let member = u16::try_from(members.trailing_zeros()).expect("below 64");
        let mine = |c: &&super::Column| c.members.contains(&Some(member));
        let rest = |c: &super::Column| {
            c.members.iter().flatten().any(|m| *m != member && Some(*m) != c.filling)
        };
        if !self.columns.iter().find(mine).is_some_and(rest) {
            return false;
        }
        self.out_asked = Some((member, now_us));
        self.events.push_back(Event::MemberFails { member });
        true
    }

    /// A stripe's device that alone fails is not written to any more, when this log has segments
    /// to write to on another one.
    pub(super) fn leave_column(&mut self, members: u64) -> bool {
        let one = |c: &&super::Column| Owed(c.members).bits() == members;
        let Some(column) = self.columns.iter().find(one).map(|c| c.column) else { return false };
        let usable = |s: &super::Segment| {
            s.at.column() != column
                && !self.left.contains(&s.at.column())
                && (s.is_reusable() || s.state == State::Ready)
        };
        if !members.is_power_of_two() || !self.segments.iter().any(usable) {
            return false;
        }
        self.left.push(column);
        (self.errors_in_row, self.errors_by) = (0, 0);
        let here = |i: usize, log: &Self| log.segments[i].at.column() == column;
        if self.hot.is_some_and(|c| here(c.segment, self)) {
            self.seal(SegmentKind::Hot);
        }
        for bucket in 0..COLD_BUCKETS_MAX {
            if self.cold[bucket].is_some_and(|c| here(c.segment, self)) {
                self.seal(SegmentKind::Cold(u8::try_from(bucket).expect("few buckets")));
            }
        }
        for segment in self.segments.iter_mut().filter(|s| s.at.column() == column) {
            if segment.state == State::Ready {
                (segment.state, segment.failed) = (State::Sealed, true);
            }
        }
        self.recount_due = true;
        let member = u16::try_from(members.trailing_zeros()).expect("below 64");
        self.events.push_back(Event::Alarm(Alarm::MemberOut(member)));
        true
    }

    /// On a device that is not written to any more.
    pub(super) fn is_left(&self, at: SegmentRef) -> bool {
        self.left.contains(&at.column())
    }

    pub(super) fn is_left_member(&self, member: Member) -> bool {
        let mine = |c: &super::Column| c.members.contains(&Some(member));
        self.columns.iter().any(|c| mine(c) && self.left.contains(&c.column))
    }

    /// That member takes no part any more: the generation without it is durable on all others.
    pub fn member_out(&mut self, member: Member, now_us: u64) {
        let mut was_in = false;
        self.joins.retain(|(m, _)| *m != member);
        for column in &mut self.columns {
            for slot in column.members.iter_mut().filter(|slot| **slot == Some(member)) {
                *slot = None;
                was_in = true;
            }
            column.filling = column.filling.filter(|m| *m != member);
        }
        self.out_asked = self.out_asked.filter(|(asked, _)| *asked != member);
        if !was_in {
            return;
        }
        self.refills.retain(|r| r.member != member);
        (self.errors_in_row, self.errors_by) = (0, 0);
        if self.health == Health::Failed {
            self.retry_at_us = now_us;
        }
        self.abandoned.push(member);
        self.events.push_back(Event::Alarm(Alarm::MemberOut(member)));
    }

    /// The generation without a member cannot be made durable: nothing can.
    pub fn member_stays(&mut self, now_us: u64) {
        self.ask_again_us = now_us + self.config.commit_wait_us;
        if self.out_asked.take().is_some() && self.health == Health::Good {
            self.fail(now_us);
        }
    }

    /// The member that was being filled counts from now on.
    pub fn member_in(&mut self, member: Member) {
        for column in &mut self.columns {
            column.filling = column.filling.filter(|m| *m != member);
        }
        self.refills.retain(|r| r.member != member);
    }

    /// The members being filled: how many of this log's segments are copied, of how many.
    pub fn filling(&self) -> impl Iterator<Item = (Member, usize, usize)> {
        let left = |r: &Refill| r.left.len();
        self.refills.iter().map(move |r| (r.member, r.segments - left(r), r.segments))
    }

    pub(super) fn begin_refills(&mut self) {
        for column in self.columns.clone() {
            if let Some(member) = column.filling {
                self.begin_refill(member, column.column);
            }
        }
    }

    fn begin_refill(&mut self, member: Member, column: u8) {
        let mine = |i: &usize| self.segments[*i].at.column() == column;
        // Empty ones, too: what was struck out there may still stand on the new member.
        let old = |i: &usize| self.segments[*i].epoch > 0;
        let left: Vec<usize> = (0..self.segments.len()).filter(mine).filter(old).rev().collect();
        let cursors = || self.cold.iter().chain([&self.hot]).flatten();
        let end = |i: usize| match self.segments[i].state {
            // Its header went to the others only.
            State::Ready | State::Opening => Some(BLOCK),
            State::Open => cursors().find(|c| c.segment == i).map(|c| index(c.offset)),
            _ => None,
        };
        let ends = left.iter().filter_map(|i| Some((*i, end(*i)?))).collect();
        self.refills.push(Refill {
            member,
            segments: left.len(),
            from_order: self.next_order,
            left,
            ends,
            offset: 0,
            careful_until: 0,
            tries: 0,
            asked: None,
            data: Vec::new(),
            told: false,
        });
    }

    /// That member of this column is there, emptied, and to be filled.
    pub fn member_joins(&mut self, member: Member, column: u8) {
        self.joins.retain(|(m, _)| *m != member);
        self.joins.push((member, column));
    }

    /// Members that wait to be filled until this log can be written.
    pub fn waiting_to_join(&self) -> impl Iterator<Item = Member> {
        self.joins.iter().map(|(member, _)| *member)
    }

    /// Takes in those that wait for it: what is written from now on goes to them, too.
    pub(super) fn begin_joins(&mut self) {
        let busy = self.closing || self.rewriting || self.health == Health::Failed;
        if self.joins.is_empty() || busy || self.out_asked.is_some() {
            return;
        }
        for (member, number) in std::mem::take(&mut self.joins) {
            let column = self.columns.iter_mut().find(|c| c.column == number);
            let Some(column) = column.filter(|c| c.filling.is_none()) else { continue };
            let Some(slot) = column.members.iter_mut().find(|slot| slot.is_none()) else {
                continue;
            };
            *slot = Some(member);
            column.filling = Some(member);
            self.begin_refill(member, number);
        }
    }

    /// Nothing changes in what is to be copied of that segment.
    fn is_still(&self, refill: &Refill, i: usize) -> bool {
        let end = refill.end(i, index(self.segment_bytes));
        let is_whole = end == index(self.segment_bytes);
        let is_closed = matches!(self.segments[i].state, State::Sealed | State::Free);
        let before = |f: &super::Flight<B>| f.segment == i && index(f.offset) < end;
        (is_closed || !is_whole) && !self.flights.iter().any(before) && self.is_settled(i)
    }

    /// Being copied to a new member: not to be reopened at that moment.
    pub(super) fn is_copied(&self, i: usize) -> bool {
        let begun = |r: &Refill| r.offset > 0 || !r.data.is_empty() || !r.is_quiet();
        self.refills.iter().any(|r| r.left.last() == Some(&i) && begun(r))
    }

    /// Copies what there was before this life, piece by piece.
    pub(super) fn refill<D: Disk<Buffer = B>>(&mut self, disk: &mut D, now_us: u64) {
        let size = index(self.segment_bytes);
        for r in 0..self.refills.len() {
            if !self.refills[r].is_quiet() {
                continue;
            }
            // What was opened since it joined is there already.
            let from_order = self.refills[r].from_order;
            let is_there = |log: &Self, i: usize| log.segments[i].order >= from_order;
            self.choose(r);
            while let Some(i) = self.refills[r].left.last().copied() {
                let refill = &self.refills[r];
                if refill.offset < refill.end(i, size) && !is_there(self, i) {
                    break;
                }
                let refill = &mut self.refills[r];
                refill.left.pop();
                refill.data.clear();
                (refill.offset, refill.careful_until) = (0, 0);
                self.choose(r);
            }
            let Some(i) = self.refills[r].left.last().copied() else {
                let refill = &mut self.refills[r];
                if !std::mem::replace(&mut refill.told, true) {
                    let member = refill.member;
                    self.events.push_back(Event::MemberFilled { member });
                }
                continue;
            };
            if self.closing || self.health == Health::Failed || !self.may_try(now_us) {
                return;
            }
            if !self.is_still(&self.refills[r], i) {
                continue;
            }
            if self.refills[r].data.is_empty() {
                self.read_piece(disk, (r, i), now_us);
            } else if self.spare.len() >= 3 {
                self.write_piece(disk, (r, i), now_us);
            }
        }
    }

    /// The next one to copy is one in which nothing is under way, if there is any.
    fn choose(&mut self, r: usize) {
        let refill = &self.refills[r];
        let begun = refill.offset > 0 || !refill.data.is_empty();
        let Some(last) = refill.left.len().checked_sub(1).filter(|_| !begun) else { return };
        let there = |i: &usize| self.segments[*i].order >= refill.from_order;
        let next = refill.left.iter().rposition(|i| there(i) || self.is_still(refill, *i));
        if let Some(n) = next {
            self.refills[r].left.swap(n, last);
        }
    }

    fn read_piece<D: Disk<Buffer = B>>(
        &mut self,
        disk: &mut D,
        (r, i): (usize, usize),
        now_us: u64,
    ) {
        let at = self.segments[i].at;
        let Some(from) = self.readers(at).next() else { return };
        let token = self.token();
        let refill = &mut self.refills[r];
        let careful = refill.offset < refill.careful_until;
        let left = refill.end(i, index(self.segment_bytes)) - refill.offset;
        let bytes = if careful { BLOCK } else { left.min(BATCH_BYTES_MAX) };
        refill.asked = Some(Piece { token, bytes, writing: false, submitted_us: now_us });
        let offset = at.device_offset(self.segment_bytes) + len64(refill.offset);
        disk.read(token, from, offset, bytes);
    }

    fn write_piece<D: Disk<Buffer = B>>(
        &mut self,
        disk: &mut D,
        (r, i): (usize, usize),
        now_us: u64,
    ) {
        let Some(mut buffer) = self.spare.pop() else { return };
        let token = self.token();
        let refill = &mut self.refills[r];
        let data = std::mem::take(&mut refill.data);
        buffer.bytes_mut()[..data.len()].copy_from_slice(&data);
        refill.asked =
            Some(Piece { token, bytes: data.len(), writing: true, submitted_us: now_us });
        let at = self.segments[i].at.device_offset(self.segment_bytes) + len64(refill.offset);
        let members = [Some(refill.member), None];
        disk.write(token, WriteTo { members, offset: at, bytes: data.len() }, buffer);
    }

    pub(super) fn refill_done(&mut self, r: usize, done: Completion<B>, now_us: u64) {
        self.spare.extend(done.buffer);
        let refill = &mut self.refills[r];
        let Some(piece) = refill.asked.take() else { return };
        let ok = done.result == Ok(piece.bytes);
        if piece.writing {
            let member = refill.member;
            refill.offset += piece.bytes;
            if !ok {
                self.blame(1 << member, now_us);
            }
            return;
        }
        if ok && done.data.len() == piece.bytes {
            refill.tries = 0;
            refill.data = done.data;
        } else if piece.bytes > BLOCK {
            refill.careful_until = refill.offset + piece.bytes;
        } else {
            refill.tries += 1;
            if refill.tries > FILL_TRIES_MAX {
                // No copy of it can be read. What the new member held there may not come back.
                refill.tries = 0;
                refill.data = vec![0; piece.bytes];
            }
        }
    }
}
