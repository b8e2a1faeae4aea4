//! The mail exchanger daemon.
