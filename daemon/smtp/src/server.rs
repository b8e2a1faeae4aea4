//! The receiving machine: octets in, replies out, every decision asked of its host.
