//! TLS between a connection's octets and its plaintext: rustls behind one door.
//!
//! *Guarantees.* No octet of the network panics here. A session holds at most one whole record of
//! input (while shaking hands: one handshake message) and no buffer at all when nothing is pending.
//! Tickets are sealed under keys that every core and every reload share.
//!
//! *Limits.* [`limits`]: the input kept back, names and certificates in a store.
//!
//! *Failure.* The peer sees the alert that rustls chose; the caller gets a [`TlsError`] and closes.
//! A certificate file that cannot be used is named with what is wrong ([`FileError`]); the store in
//! use stays in use.
//!
//! *Not here.* Sockets, STARTTLS itself, the decision whether a peer must be verified.

pub mod limits;

mod certificate;
mod error;
mod own;

mod drive;

mod session;

mod client;

mod store;

pub use certificate::{Fault, FileError, Remark, Warning};
pub use client::{ClientTls, PeerVerdict};
pub use error::TlsError;
pub use own::ensure_own_certificate;
pub use session::{Progress, ServerTls, Session, SessionInfo};
pub use store::{
    CertificateFiles, Loaded, OnExpired, Tickets, TlsSettings, TlsStore, VersionFloor,
};

#[cfg(test)]
mod tests;
