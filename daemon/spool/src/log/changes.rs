//! What became of messages: DONE, DEFER, HOLD, RELEASE, REDIRECT, from the queue and the
//! operator.

use crate::disk::Buffer;
use crate::id::TransactionId;
use crate::limits::{CONTROL_BYTES_MAX, RECORD_HEADER};
use crate::record::{Change, Defer, Done, RecipientResult, RecipientState, Redirect, Target};
use crate::segment::SegmentRef;

use super::Log;
use super::batches::{ChangeItem, Item};

/// A change that cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeError {
    /// No such message (any more).
    Unknown,
    /// Larger than a record may be.
    TooLarge,
    /// The last room is for what ends messages.
    NoRoom,
}

impl<B: Buffer> Log<B> {
    /// The target of a change of that message. The place is filled in when it is written.
    fn target(id: TransactionId) -> Target {
        Target { id, segment: SegmentRef::NONE, epoch: 0 }
    }

    /// These recipients need no more work (states must be final). Durable with the next batch,
    /// at the latest after `WATERMARK_DELAY_US`; with `token` an `Event::Changed` tells.
    ///
    /// # Errors
    /// When there is no such message.
    pub fn done(
        &mut self,
        id: TransactionId,
        results: Vec<RecipientResult>,
        token: Option<u64>,
        now_us: u64,
    ) -> Result<(), ChangeError> {
        let target = Self::target(id);
        self.change(
            Change::Done(Done { target, all: None, results, replaced_by: None }),
            token,
            now_us,
        )
    }

    /// All recipients still pending take that final state.
    ///
    /// # Errors
    /// When there is no such message.
    pub fn done_all(
        &mut self,
        id: TransactionId,
        state: RecipientState,
        token: Option<u64>,
        now_us: u64,
    ) -> Result<(), ChangeError> {
        let change = Self::done_change(id, Some(state), Vec::new(), None);
        self.change(change, token, now_us)
    }

    /// A DONE for `commit`'s `replaces`.
    #[must_use]
    pub fn done_change(
        id: TransactionId,
        all: Option<RecipientState>,
        results: Vec<RecipientResult>,
        replaced_by: Option<TransactionId>,
    ) -> Change {
        Change::Done(Done { target: Self::target(id), all, results, replaced_by })
    }

    /// Tried without success. `results` should name every recipient still pending: the newest
    /// DEFER alone is read at a restart.
    ///
    /// # Errors
    /// When there is no such message.
    pub fn defer(
        &mut self,
        id: TransactionId,
        next_wall_us: u64,
        tries: u16,
        tier: u8,
        results: Vec<RecipientResult>,
        now_us: u64,
    ) -> Result<(), ChangeError> {
        let change =
            Change::Defer(Defer { target: Self::target(id), next_wall_us, tries, tier, results });
        if self.is_out_of_segments() {
            // A help after a restart, not a duty: the last room is for what ends messages.
            return self.prepare(change, None).map(drop).ok_or(ChangeError::Unknown);
        }
        self.change(change, None, now_us)
    }

    /// What `results` say of the recipients, their routes too, is written down for certain, unlike
    /// [`Log::defer`]: somebody relies on it. They must name every recipient still pending.
    ///
    /// # Errors
    /// When there is no such message, or no room.
    pub fn reroute(
        &mut self,
        id: TransactionId,
        next_wall_us: u64,
        results: Vec<RecipientResult>,
        token: u64,
        now_us: u64,
    ) -> Result<(), ChangeError> {
        if self.is_out_of_segments() {
            return Err(ChangeError::NoRoom);
        }
        let live = self.table.get(id).ok_or(ChangeError::Unknown)?;
        let (target, tries, tier) = (Self::target(id), live.tries, live.tier);
        let change = Change::Defer(Defer { target, next_wall_us, tries, tier, results });
        self.change(change, Some(token), now_us)
    }

    /// Waits for the operator (`hold`), or waits no more.
    ///
    /// # Errors
    /// When there is no such message.
    pub fn hold_message(
        &mut self,
        id: TransactionId,
        hold: bool,
        token: Option<u64>,
        now_us: u64,
    ) -> Result<(), ChangeError> {
        let target = Self::target(id);
        let change = if hold { Change::Hold(target) } else { Change::Release(target) };
        self.change(change, token, now_us)
    }

    /// Routes a recipient to another address.
    ///
    /// # Errors
    /// When there is no such message.
    pub fn redirect(
        &mut self,
        id: TransactionId,
        recipient: u16,
        address: Box<[u8]>,
        token: Option<u64>,
        now_us: u64,
    ) -> Result<(), ChangeError> {
        let target = Self::target(id);
        self.change(Change::Redirect(Redirect { target, recipient, address }), token, now_us)
    }

    pub(super) fn change(
        &mut self,
        change: Change,
        token: Option<u64>,
        now_us: u64,
    ) -> Result<(), ChangeError> {
        let body = change.encode();
        let whole = body.len() + 2 * RECORD_HEADER;
        if body.len() > CONTROL_BYTES_MAX || !self.fits_segment(whole, whole) {
            return Err(ChangeError::TooLarge);
        }
        let item = self.apply(change, body, token).ok_or(ChangeError::Unknown)?;
        self.change_since_us.get_or_insert(now_us);
        self.enqueue(Item::Change(item));
        Ok(())
    }

    /// Applies a change in memory; the record is made when its batch is built.
    pub(super) fn prepare(&mut self, change: Change, token: Option<u64>) -> Option<ChangeItem> {
        let body = change.encode();
        self.apply(change, body, token)
    }

    fn apply(&mut self, change: Change, body: Vec<u8>, token: Option<u64>) -> Option<ChangeItem> {
        let id = change.target().id;
        let live = self.table.get_mut(id)?;
        if live.is_finished() {
            return None;
        }
        let delta = live.apply(&change);
        let finished = live.is_finished();
        Some(ChangeItem { change, body, delta, token, finished })
    }
}
