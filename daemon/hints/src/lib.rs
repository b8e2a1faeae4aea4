//! Tables whose loss costs time, never mail: retry times, destination health, what backends
//! offer, rates, notes of panics and the standing of clients.
//!
//! *Guarantees*: works over borrowed words (`engine` maps a file on ramfs and lends them), so
//! values survive a restart and a kill of the daemon, not of the machine. Whatever the words hold,
//! nothing here panics, and no record is returned whose checksum, kind, layout or key is wrong. A
//! rate is one atomic word shared by all cores: a limit of 10 asked 100 times at once grants 10.
//!
//! *Limits*: fixed-size tables; a full bucket gives up an expired record or its oldest, counted.
//! Keys are kept up to [`limits::KEY_OCTETS_MAX`] octets; of longer ones a prefix and the hash.
//!
//! *Failure*: a corrupt or alien record is a miss; a corrupt header is a fresh start and one line
//! of reason ([`Report`]).
//!
//! *Not here*: I/O, clocks, mapping and locking the file, carrying a [`Change`] to its owner.
#![forbid(unsafe_code)]

pub mod limits;

mod bits;

mod kind;

mod key;

mod hash;

mod cells;

pub mod retry;

pub mod health;

pub mod offers;

pub mod note;

pub mod standing;

pub mod ban;

pub mod delivered;

mod value;

mod change;

mod slot;

mod layout;

mod gcra;

mod stats;

mod store;

mod notes;

mod rates;

mod writer;

mod admin;

mod listing;

mod sessions;

pub use admin::{RateEntry, Snapshot, SnapshotError};
pub use change::{Change, What};
pub use gcra::{Limit, Verdict};
pub use hash::Seed;
pub use key::{AddressKey, Key, KeyText, address_key, client_key};
pub use kind::Kind;
pub use layout::{Report, Start, TooSmall};
pub use listing::{Entry, Names, Pick, Unfit};
pub use note::Note;
pub use sessions::{Entered, SessionSlot, Sessions};
pub use stats::Counts;
pub use store::{Hints, Opened, Record, Setup};
pub use value::{BadField, Value};
pub use writer::{Applied, ShardSet, Writer};
