//! A change to a record, as it travels to the shard that owns the key.
//!
//! *Guarantees*: wherever two cores could have seen something happen at once, a change says what
//! happened and not what the record shall be: none of the two is lost.

use crate::hash::Hash;
use crate::health::{Ended, Health};
use crate::key::Key;
use crate::kind::Kind;
use crate::limits::{HEALTH_LIFE_US, LIFE_US_MAX, OFFERS_LIFE_US, RETRY_LIFE_US, STANDING_LIFE_US};
use crate::offers::Offers;
use crate::retry::{Failed, Retry};
use crate::standing::{Offended, Standing};
use crate::value::Value;

/// What shall become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// It becomes this value, for so long.
    Put(Value, /* life_us */ u64),
    /// It goes.
    Remove,
    /// A retry key failed once more.
    Failed(Failed),
    /// An attempt at a destination ended.
    Ended(Ended),
    /// A backend was asked.
    Offered(Offers),
    /// A client did something wrong.
    Offended(Offended),
}

/// A change on its way to its owner: small, `Copy`, without pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub(crate) kind: Kind,
    pub(crate) hash: Hash,
    pub(crate) key: Key,
    pub(crate) what: What,
    pub(crate) at_us: u64,
}

impl Change {
    /// The shard that may apply it, 0 to 63; see [`crate::ShardSet`] for whose that is.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.hash.shard()
    }

    /// The kind of the record.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// What shall become of it.
    #[must_use]
    pub const fn what(&self) -> &What {
        &self.what
    }
}

impl What {
    /// The value after the change and how long it lives; `None`: no record.
    pub(crate) fn after(&self, old: Option<Value>, at_us: u64) -> Option<(Value, u64)> {
        match self {
            Self::Put(value, life_us) => Some((*value, (*life_us).min(LIFE_US_MAX))),
            Self::Remove => None,
            Self::Failed(failed) => {
                let old = if let Some(Value::Retry(old)) = old { Some(old) } else { None };
                Some((Value::Retry(Retry::after(old, failed, at_us)), RETRY_LIFE_US))
            }
            Self::Ended(ended) => {
                let old = if let Some(Value::Health(old)) = old { Some(old) } else { None };
                Some((Value::Health(Health::after(old, ended, at_us)), HEALTH_LIFE_US))
            }
            Self::Offered(offers) => Some((Value::Offers(*offers), OFFERS_LIFE_US)),
            Self::Offended(offended) => {
                let old = if let Some(Value::Standing(old)) = old { Some(old) } else { None };
                Some((Value::Standing(Standing::after(old, offended, at_us)), STANDING_LIFE_US))
            }
        }
    }

    /// Whether this change makes sense for this kind.
    pub(crate) fn fits(&self, kind: Kind) -> bool {
        match self {
            Self::Put(value, _) => value.kind() == kind,
            Self::Remove => !kind.is_rate(),
            Self::Failed(_) => kind == Kind::Retry,
            Self::Ended(_) => kind == Kind::Health,
            Self::Offered(_) => kind == Kind::Offers,
            Self::Offended(_) => kind == Kind::Standing,
        }
    }
}
