//! Which segments can be given up before their time, and what of them must be written again first.
//!
//! *Guarantees*: one rule for all who empty segments (`log::counts`); nothing that could come back
//! to life is let go: a MOVE whose older copy stands, a segment with a failed attempt elsewhere.

use std::collections::HashSet;

use crate::disk::Device;
use crate::id::TransactionId;
use crate::index::{IndexItem, IndexWalk};
use crate::log::{Owed, counts};
use crate::record::{Change, Target};
use crate::replay::Replayed;
use crate::segment::SegmentRef;
use crate::set::Set;
use crate::survey::{SegmentFound, Survey, footer};

/// What recovery found, asked about one segment after the other.
#[derive(Clone, Copy)]
pub(crate) struct Leaving<'a> {
    pub(crate) survey: &'a Survey,
    pub(crate) replayed: &'a Replayed,
}

impl Leaving<'_> {
    /// What its footer says, or would say.
    pub(crate) fn index<D: Device>(&self, set: &mut Set<D>, i: usize) -> Option<Vec<u8>> {
        let found = &self.survey.segments[i];
        match (&found.footer, &found.index) {
            (Some(trailer), _) => footer(set, found.at, trailer),
            (None, index) => index.clone(),
        }
    }

    /// That use of the segment is on the devices.
    pub(crate) fn stands(&self, at: SegmentRef, epoch: u64) -> bool {
        let found = self.survey.segments.iter().find(|s| s.at == at);
        found.is_some_and(|s| s.is_used() && s.epoch() == epoch)
    }

    pub(crate) fn epoch(&self, at: SegmentRef) -> u64 {
        let found = self.survey.segments.iter().find(|s| s.at == at);
        found.map_or(0, SegmentFound::epoch)
    }

    /// Nothing in it has to outlive another segment.
    pub(crate) fn can_leave(&self, i: usize, index: &[u8]) -> bool {
        let at = self.survey.segments[i].at;
        // A failed attempt that a crash could find again must be gone first.
        let tried = !self.replayed.attempts[i].is_empty();
        !tried
            && IndexWalk::new(index).all(|item| match item {
                Ok(IndexItem::Other { kind, body, .. }) => {
                    let known = |all: &Vec<Change>| !all.is_empty();
                    let changes = Change::decode_all(kind, body).ok().filter(known);
                    changes.is_some_and(|all| all.iter().all(|change| self.may_go(at, change)))
                }
                Ok(IndexItem::Batch(_) | IndexItem::Message(_) | IndexItem::Chunk(_)) => true,
                Err(_) => false,
            })
    }

    /// A MOVE goes only with the copy that it brought: else the older copy could come back.
    fn may_go(&self, at: SegmentRef, change: &Change) -> bool {
        let Change::Move(older, _) = change else { return true };
        !self.stands(older.segment, older.epoch)
            || self.replayed.live.get(older.id).is_some_and(|live| live.segment == at)
    }

    /// The changes that someone still needs when that segment is gone; the messages in `moved` go
    /// with it, with their state of today.
    pub(crate) fn owed(
        &self,
        at: SegmentRef,
        index: &[u8],
        moved: &HashSet<TransactionId>,
    ) -> Vec<Owed> {
        let mut owed = Vec::new();
        for item in IndexWalk::new(index).flatten() {
            let IndexItem::Other { offset, kind, body, whole } = item else { continue };
            // Several in one record are DONEs, and stay together: one is as final as the other.
            let changes = Change::decode_all(kind, body).unwrap_or_default();
            let needed = changes.iter().find(|c| self.is_needed(c, (at, offset), moved));
            if let Some(change) = needed {
                let Target { id, segment, .. } = change.target();
                let defer_of = matches!(change, Change::Defer(_)).then_some(id);
                owed.push(Owed { record: whole.to_vec(), target: segment, defer_of });
            }
        }
        owed
    }

    fn is_needed(
        &self,
        change: &Change,
        place: (SegmentRef, u32),
        moved: &HashSet<TransactionId>,
    ) -> bool {
        let target = change.target();
        if target.segment != SegmentRef::NONE && !self.stands(target.segment, target.epoch) {
            return false;
        }
        let goes = moved.contains(&target.id);
        match change {
            // Of a copy that goes with it, or an older one that goes as well.
            Change::Move(..) => goes,
            _ => !goes && counts(change, place, self.replayed.live.get(target.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MessageId;
    use crate::index::{IndexBatch, Summary};
    use crate::live::Table;
    use crate::log::Owed;
    use crate::record::RecordHeader;
    use crate::segment::{SegmentHeader, SegmentKind};

    const HOME: SegmentRef = SegmentRef(0);
    const SPEAKS: SegmentRef = SegmentRef(1);

    fn found(at: SegmentRef) -> SegmentFound {
        let header = SegmentHeader {
            log: 1,
            epoch: 5,
            segment: at,
            run: 1,
            core: 0,
            kind: SegmentKind::Hot,
            unfinished: false,
            first_batch: 1,
            durable_through: 0,
            opened_wall_us: 0,
        };
        let mut found = SegmentFound::new(at);
        // Holds something.
        (found.header, found.quarantined) = (Some(header), true);
        found
    }

    fn record(change: &Change) -> Vec<u8> {
        let body = change.encode();
        let mut out = RecordHeader::of(change.kind(), &body).to_bytes().to_vec();
        out.extend_from_slice(&body);
        out
    }

    /// A segment that holds these changes of a message that is live elsewhere, and is not held.
    fn owed(changes: &[Change], id: TransactionId) -> Vec<Owed> {
        let mut live = Table::default();
        live.insert(&Summary { id, recipients: 1, pending: 1, ..Summary::default() }, HOME);
        let replayed = Replayed {
            live,
            waits: vec![Vec::new(); 2],
            attempts: vec![Vec::new(); 2],
            second_copies: 0,
            damage: Vec::new(),
        };
        let survey = Survey::of(vec![found(HOME), found(SPEAKS)]);
        let batch = IndexBatch {
            seq: 1,
            offset: 4096,
            stale_segment: SegmentRef::NONE,
            stale_epoch: 0,
            attempt: 0,
        };
        let mut index = batch.encode();
        changes.iter().for_each(|c| index.extend_from_slice(&record(c)));
        let leaving = Leaving { survey: &survey, replayed: &replayed };
        assert!(leaving.can_leave(1, &index));
        leaving.owed(SPEAKS, &index, &HashSet::new())
    }

    /// It is read after what took its place: written again, a HOLD would hold for ever.
    #[test]
    fn a_change_that_was_taken_back_is_not_written_again() {
        let id = TransactionId { session: MessageId::new(1, 1, 0, 7), n: 1 };
        let target = Target { id, segment: HOME, epoch: 5 };
        assert_eq!(owed(&[Change::Hold(target)], id), []);
        let release = owed(&[Change::Hold(target), Change::Release(target)], id);
        assert_eq!(release.len(), 1, "the state of today");
        assert_eq!(release[0].record, record(&Change::Release(target)));
    }
}
