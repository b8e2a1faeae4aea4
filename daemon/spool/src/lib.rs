//! The durable log: a message answered 250 is never lost.

pub mod limits;

pub mod bytes;
pub mod id;
pub mod ledger;

pub mod segment;
pub mod superblock;

pub mod record;

pub mod batch;
pub mod edits;
pub mod message;

pub mod received;

pub mod index;
pub mod live;

pub mod disk;

pub mod file;
pub mod sim;

pub mod rehearse;

pub mod set;

pub mod advice;

pub mod progress;

pub mod alien;

pub mod scan;

mod fetch;

pub mod survey;

mod replay;

pub mod log;

mod leave;

mod compact;

mod seal;

pub mod recovery;

mod scrub;

pub mod offline;

pub mod driver;
