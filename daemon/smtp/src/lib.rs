//! SMTP without I/O: grammar, replies, server and client state machines.
//!
//! *Guarantees*: no clock, no I/O, no unsafe code; no octet of the network panics or grows memory
//! without a bound that has a name in [`limits`].
//!
//! *Not here*: TLS, policy, DNS, the spool. Whoever drives a machine lends it bytes and the time
//! and answers its questions.
#![forbid(unsafe_code)]

// The blank lines keep rustfmt from sorting: the order of these lines is the layer order.
pub mod limits;

pub mod address;

pub mod reply;

pub mod command;

mod ends;

pub mod data;

pub mod trace;

pub mod server;

pub mod client;

pub mod dsn;
