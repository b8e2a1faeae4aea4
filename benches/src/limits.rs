//! Every size and bound of mxbench.

/// Connections held at once by a floor, a source or a sink.
pub const CONNECTIONS_MAX: u32 = 60_000;

/// Entries of the floor's submission queue.
pub const FLOOR_ENTRIES: u32 = 1024;

/// Receive buffers of the floor; with their size, part of the fixed loop.
pub const FLOOR_BUFFERS: u16 = 128;

/// Octets of one receive buffer of the floor.
pub const FLOOR_BUFFER_OCTETS: u32 = 16_384;

/// Waiting connections a listener asks the kernel for.
pub const LISTEN_BACKLOG: i32 = 4096;

const _: () = assert!(FLOOR_BUFFERS.is_power_of_two());
