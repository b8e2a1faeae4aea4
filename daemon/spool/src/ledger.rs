//! The ledger: every recipient that came in stands in exactly one place.
//!
//! *Guarantees*: accepted + generated = delivered + handed over + bounced + discarded double
//! bounces + removed + held + queued, after every batch.

use crate::bytes::{Malformed, Reader};

/// Counters in recipients. Signed: what stands in a batch header is the change since the start
/// of the run, and held and queued may fall below what the run began with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    /// Accepted from clients.
    pub accepted: i64,
    /// In messages made here (DSNs).
    pub generated: i64,
    /// Taken by the next hop.
    pub delivered: i64,
    /// Handed over to another node or tier that keeps its own log.
    pub handed_over: i64,
    /// Failed, and a DSN (or none, for NOTIFY=NEVER) settled it.
    pub bounced: i64,
    /// Failed DSNs: nobody is left to tell.
    pub double_bounces: i64,
    /// Removed by the operator.
    pub removed: i64,
    /// Waiting for the operator.
    pub held: i64,
    /// Waiting for delivery.
    pub queued: i64,
}

/// Bytes of a stored ledger.
pub const LEDGER_BYTES: usize = 72;

impl Ledger {
    /// True when both sides agree.
    #[must_use]
    pub fn balances(&self) -> bool {
        let v = self.values();
        let out = v[2..].iter().fold(0i64, |sum, n| sum.wrapping_add(*n));
        v[0].wrapping_add(v[1]) == out
    }

    fn values(&self) -> [i64; 9] {
        [
            self.accepted,
            self.generated,
            self.delivered,
            self.handed_over,
            self.bounced,
            self.double_bounces,
            self.removed,
            self.held,
            self.queued,
        ]
    }

    /// Adds another ledger, counter by counter (wrapping: media content must not panic).
    pub fn add(&mut self, other: &Self) {
        let (a, b) = (self.values(), other.values());
        let mut sum = [0; 9];
        for (i, s) in sum.iter_mut().enumerate() {
            *s = a[i].wrapping_add(b[i]);
        }
        *self = Self::of(sum);
    }

    fn of(v: [i64; 9]) -> Self {
        Self {
            accepted: v[0],
            generated: v[1],
            delivered: v[2],
            handed_over: v[3],
            bounced: v[4],
            double_bounces: v[5],
            removed: v[6],
            held: v[7],
            queued: v[8],
        }
    }

    /// The stored form: nine little-endian counters in the order of the fields.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; LEDGER_BYTES] {
        let mut out = [0; LEDGER_BYTES];
        for (slot, value) in out.chunks_exact_mut(8).zip(self.values()) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        out
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut v = [0; 9];
        for slot in &mut v {
            *slot = r.i64()?;
        }
        Ok(Self::of(v))
    }
}
