//! Why a TLS session ended before its time.

use std::fmt;

/// Why a session ended before its time.
#[derive(Debug, Clone, PartialEq)]
pub enum TlsError {
    /// The peer broke the protocol, offered nothing we have, or sent an alert.
    Protocol(rustls::Error),
    /// A record or handshake message larger than the limits.
    TooLarge,
    /// `send` before the handshake was done, or after the session failed or was closed.
    NotReady,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(error) => error.fmt(f),
            Self::TooLarge => f.write_str("record or handshake message too large"),
            Self::NotReady => f.write_str("session not established, or closed"),
        }
    }
}

impl std::error::Error for TlsError {}

impl TlsError {
    /// A word for a metric's label: one of a fixed few.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Protocol(rustls::Error::AlertReceived(_)) => "alert",
            Self::Protocol(rustls::Error::PeerIncompatible(_)) => "incompatible",
            Self::Protocol(rustls::Error::DecryptError) => "decrypt",
            Self::Protocol(rustls::Error::InvalidCertificate(_)) => "certificate",
            Self::Protocol(_) => "protocol",
            Self::TooLarge => "too_large",
            Self::NotReady => "not_ready",
        }
    }
}
