//! mxbench measures an MX against the physical limit and against its peers.
//!
//! The order of the modules is the layer order: a module uses only those above it.

pub mod limits;

pub mod tls;

#[expect(unsafe_code, reason = "the ring's memory is shared with the kernel")]
pub mod floor;

pub mod system;

pub mod replies;

pub mod source;

pub mod sink;

pub mod proc;

pub mod commit;

pub mod cgroup;

pub mod stats;

pub mod launch;

pub mod meter;

pub mod bare;

pub mod measure;

pub mod shards;

pub mod compare;
