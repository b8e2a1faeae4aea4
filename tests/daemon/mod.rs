//! The running release daemon, spoken to over TCP.
//!
//! *Guarantees.* Every daemon has a folder and ports of its own; nothing here reads the clock to
//! decide whether a test passes. What is waited for is waited for until it is there.
//! *Failure.* A failed test keeps its folder (config, log, spool) and prints where it is.

pub(crate) mod backend;
pub(crate) mod client;
pub(crate) mod dns;
pub(crate) mod programs;
pub(crate) mod refusals;
pub(crate) mod secrets;
pub(crate) mod wire;

mod config;
mod dialogs;
mod dnsbl;
mod engine;
mod format;
mod guard;
mod hints;
mod inspect;
mod ladder;
mod limits;
mod logs;
mod machine;
pub(crate) mod mirror;
mod mx;
mod offline;
mod receive;
mod recovered;
mod relay;
mod refill;
mod reports;
mod space;
mod stripe;
mod takein;
mod tls;
mod upgrade;
