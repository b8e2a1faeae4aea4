//! The Received line that a receiving server adds (RFC 5321 4.4) and the date in it.
