//! Every bound of the filter, by name.

/// VLAN tags read before the network header; more than two and the packet passes.
pub const TAGS_MAX: usize = 2;

/// IPv6 extension headers followed; a longer chain passes to the stack.
pub const EXTENSIONS_MAX: usize = 6;

/// Furthest octet of a frame at which a header may begin. Deeper headers pass to the stack.
pub const OFFSET_MAX: usize = 511;

/// Ports that are judged.
pub const PORTS_MAX: usize = 4;

/// Lists that may have a ceiling of their own; a list number is below this.
pub const LISTS_MAX: usize = 64;

/// Reasons counted apart and given a text each; a reason number is below this.
pub const REASONS_MAX: usize = 64;

/// Octets of the 554 line with its CRLF. One less than a multiple of four, so that the two
/// acknowledgement numbers a client can send agree in the low bits of the cookie
/// (see [`crate::cookie`]), and small enough for the 256 octets of room before a frame.
pub const TEXT_BYTES: usize = 159;

/// Octets of the buffer in which an answer is built.
pub const ANSWER_BYTES: usize = 256;

/// Octets before the network header in that buffer: an Ethernet header with one tag.
pub const ANSWER_LINK_BYTES: usize = 18;

/// Seconds of one cookie epoch. A cookie is good for this epoch and the next.
pub const EPOCH_S: u32 = 64;

/// Live bans of IPv4 hosts.
pub const BANS4_MAX: u32 = 262_144;

/// Live bans of IPv6 networks of 64 bits.
pub const BANS6_MAX: u32 = 65_536;

/// Source networks whose SYN rate is remembered, least recently used first out.
pub const BUCKETS_MAX: u32 = 262_144;

/// Single hosts in one set, IPv4 and IPv6 each. A host costs about 80 octets of kernel memory.
pub const HOSTS_MAX: u32 = 8 << 20;

/// Networks in one set, IPv4 and IPv6 each. Freeing a trie stalls a core: half a second a million.
pub const NETWORKS_MAX: u32 = 20_000;

/// Allowed networks in one set, IPv4 and IPv6 each.
pub const ALLOWED_MAX: u32 = 20_000;

/// Interfaces and VLANs for which the way back is known.
pub const SEGMENTS_MAX: u32 = 64;

/// Octets of the ring of events; a power of two and whole pages.
pub const EVENTS_BYTES: u32 = 256 * 1024;

/// Events that one CPU tells in a second. What is over it costs a flood nothing; the first hit of
/// an entry is then told by a later one.
pub const EVENTS_S_MAX: u32 = 512;

/// Classes of source addresses counted to see whether a switch hides the clients.
pub const SPREAD_CLASSES: u32 = 256;

/// Longest life of a ban from a DNS list.
pub const BAN_DNS_S_MAX: u32 = 3_600;

/// Longest life of a ban from local evidence.
pub const BAN_LOCAL_S_MAX: u32 = 86_400;

const _: () = assert!((TEXT_BYTES + 1).is_multiple_of(4));
const _: () = assert!(ANSWER_LINK_BYTES + 40 + 20 + TEXT_BYTES < ANSWER_BYTES);
const _: () = assert!(SPREAD_CLASSES.is_power_of_two() && EVENTS_BYTES.is_power_of_two());
const _: () = assert!(LISTS_MAX <= 256 && REASONS_MAX <= 256);
const _: () = assert!(BAN_DNS_S_MAX <= BAN_LOCAL_S_MAX);
