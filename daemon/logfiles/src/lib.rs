//! The files of the mail log, read: by the daemon for the admin tool, and by the tool itself where
//! no daemon runs.
//!
//! *Guarantees*: files are only read; the same files give the same answer, whoever asks.
//! *Limits*: [`search::SEARCH_OCTETS_MAX`] for one question, the newest files first.
//! *Failure*: a file or folder that cannot be read is named in the answer.
//! *Not here*: writing and rotating them.
#![forbid(unsafe_code)]

pub mod search;

mod about;

pub use about::{about, reach};
pub use search::{MAIN, REJECT, is_time};
