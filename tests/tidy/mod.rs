//! Structure and style, held by tests: imports point one way, bans name their replacement.
//!
//! Guarantees: the crate edges of docs/ARCHITECTURE.md, the module order inside each crate,
//! `unsafe` and io_uring in one crate, locks and async runtimes in one module.

mod imports;
mod source;
mod style;
