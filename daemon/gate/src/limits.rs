//! Every bound of the gate, by name.

/// Entries handed to the kernel in one batch.
pub const BATCH_ENTRIES: usize = 16_384;

/// Octets of one message on the socket pair.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Octets of a sealed file with a set.
pub const SET_BYTES_MAX: u64 = 1 << 30;

/// Interfaces that one filter is attached to.
pub const INTERFACES_MAX: usize = 16;

/// Seconds after which new cookies are made with a new key.
pub const KEY_LIFE_S: u32 = 6 * 3600;

/// Events handed out at once.
pub const EVENTS_MAX: usize = 512;

/// Number of the maps' layout; part of the folder they are pinned in. Raise it with any change
/// of a key, a value or a size in `ebpf-common`.
pub const LAYOUT: u32 = 2;

const _: () = assert!(KEY_LIFE_S > 4 * ebpf_common::limits::EPOCH_S);
