//! What the XDP filter decides, written once for the kernel and for the host.
//!
//! *Guarantees*: no unsafe code, no allocation, no clock, no I/O; every read of a packet is
//! bounded; nothing here panics on any bytes. The filter in `ebpf/filter` is a thin shell that
//! lends packet bytes and maps to these functions; the tests lend slices and vectors.
//!
//! *Limits*: [`limits`].
//!
//! *Not here*: loading, attaching and filling maps (`daemon/gate`).

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "a failed try_from panics, and nothing that may panic can be loaded into the kernel: \
              each cast is of a masked number or a small constant"
)]

pub mod limits;
pub mod checksum;
pub mod packet;
pub mod entry;
pub mod config;
pub mod count;
pub mod cookie;
pub mod verdict;
pub mod text;
pub mod answer;
pub mod set;
