//! The XDP filter in the kernel: trial runs over frames, and real clients in namespaces.
//!
//! Needs root (CAP_BPF, CAP_NET_ADMIN, namespaces). Without it each test says so and ends; in CI,
//! where RINGPOST_XDP=must is set, it fails instead.

#[path = "../../ebpf/common/tests/frames/mod.rs"]
mod frames;
mod bed;
mod child;
mod clients;
mod daemon;
mod figures;
mod life;
mod swap;
mod topology;
mod trial;
mod vlan;
