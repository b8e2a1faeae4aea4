//! One binary for all tests that need more than one crate.

mod tidy;
