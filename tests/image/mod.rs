//! The image in QEMU: started, fed with mail, upgraded, broken.
//!
//! *Guarantees.* Every guest has a disk and ports of its own and talks to this machine's loopback
//! only. What is waited for is a line on its serial console; a guest that ends without it fails the
//! test with everything it said.
//! *Failure.* A failed test keeps its folder and prints where it is.

mod record;
mod stage;

mod floor;

mod carrier;

mod guest;

mod load;

mod boot;
mod below;
mod build;
mod chain;
mod config;
mod cuts;
mod health;
mod machine;
mod serial;
mod trouble;
mod upgrade;
