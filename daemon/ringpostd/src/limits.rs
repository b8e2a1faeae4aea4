//! Every bound of the daemon that is not the operator's to set, with its relations.
//!
//! *Limits.* What the operator may set stands in the config tables, whose bounds come from here.

/// Octets of a config file; a longer one is refused before it is parsed.
pub const CONFIG_OCTETS_MAX: u64 = 1 << 20;
/// Problems of one config file that are reported; the rest is counted.
pub const CONFIG_PROBLEMS_MAX: usize = 50;
/// Entries of one list in the config.
pub const CONFIG_LIST_MAX: usize = 10_000;
/// Octets of a recipient file.
pub const RECIPIENTS_OCTETS_MAX: u64 = 1 << 30;
/// Octets of one address in the recipient file: local part 64, `@`, domain 255 (RFC 5321
/// 4.5.3.1), and room for local parts as long as the path limit allows.
pub const RECIPIENT_OCTETS_MAX: usize = 320;

/// Cores a node may use: the core's number has 8 bits in a message id.
pub const CORES_MAX: u64 = 256;
/// Sessions of a node, all listeners together.
pub const SESSIONS_MAX: u64 = 1_000_000;
/// Recipients of one transaction; RFC 5321 4.5.3.1.8 asks for at least 100.
pub const RCPT_MAX: u64 = 10_000;
/// The least a site may allow, from the same section.
pub const RCPT_MIN: u64 = 100;
/// The least message size a site may allow, RFC 5321 4.5.3.1.7.
pub const SIZE_MIN: u64 = 64 << 10;
/// The greatest message size: a message fits into half of the smallest spool.
pub const SIZE_MAX: u64 = 2 << 30;

/// Segments of one core's log: one open, one reserved for forwarding, two that drain.
pub const SEGMENTS_MIN: u64 = 4;
/// Segments of one core's log that the index can name.
pub const SEGMENTS_MAX: u64 = 65_536;
/// MiB of one segment, least and most.
pub const SEGMENT_MIB_MIN: u64 = 4;
/// See [`SEGMENT_MIB_MIN`].
pub const SEGMENT_MIB_MAX: u64 = 64;

/// The shortest wait that can be set, in milliseconds.
pub const WAIT_MS_MIN: u64 = 1;
/// One hour in milliseconds, for bounds.
pub const HOUR_MS: u64 = 3_600_000;
/// One day in milliseconds, for bounds.
pub const DAY_MS: u64 = 24 * HOUR_MS;
/// Connections to one backend.
pub const BACKEND_CONNECTIONS_MAX: u64 = 1_000;

/// The shortest prefix of a network that may relay: what is wider is an open relay.
pub const RELAY_PREFIX_V4_MIN: u8 = 8;
/// The same for IPv6.
pub const RELAY_PREFIX_V6_MIN: u8 = 16;

/// Octets of one log line with its line end.
pub const LOG_LINE_OCTETS_MAX: usize = 4_096;
/// Octets of one value in a log line after escaping; a longer one is cut and ends in `...`.
pub const LOG_VALUE_OCTETS_MAX: usize = 480;
/// Values in one log line that others chose: addresses, names, texts.
pub const LOG_FOREIGN_VALUES_MAX: usize = 6;
/// Octets of all else in a log line.
pub const LOG_OWN_OCTETS_MAX: usize = 1_200;
/// Octets of a rejected mail's header that the reject log keeps, after escaping.
pub const REJECT_HEADER_OCTETS_MAX: usize = 16 << 10;
/// Octets of log lines a core may hold: waiting, reserved, or on their way to the disk.
pub const LOG_WAITING_OCTETS_MAX: usize = 16 << 20;
/// Octets after which waiting lines leave the core without waiting for the end of the turn.
pub const LOG_CHUNK_OCTETS: usize = 64 << 10;
/// Lines leave the core at the latest after so many microseconds.
pub const LOG_WAIT_US_MAX: u64 = 100_000;
/// Chunks on their way from one core to the log files.
pub const LOG_CHUNKS_MAX: usize = 256;
/// Log files a directory may hold before old ones are deleted whatever their size.
pub const LOG_FILES_MAX: usize = 10_000;

/// Networks of one list of addresses.
pub const LIST_ENTRIES_MAX: u64 = 8 << 20;
/// Lists of addresses and DNS lists together.
pub const LISTS_MAX: usize = 60;
/// Octets of events that a core's flight recorder keeps.
pub const RECORDER_OCTETS: usize = 8 << 20;

/// The longest time a phase histogram can hold, in microseconds: one hour.
pub const PHASE_US_MAX: u64 = 3_600_000_000;

const _: () = assert!(RCPT_MIN >= 100 && RCPT_MIN < RCPT_MAX);
const _: () = assert!(SIZE_MIN >= 64 << 10 && SIZE_MIN < SIZE_MAX);
const _: () = assert!(SEGMENTS_MIN >= 4 && SEGMENTS_MIN < SEGMENTS_MAX);
const _: () = assert!(
    LOG_VALUE_OCTETS_MAX * LOG_FOREIGN_VALUES_MAX + LOG_OWN_OCTETS_MAX <= LOG_LINE_OCTETS_MAX
);
const _: () = assert!(LOG_LINE_OCTETS_MAX < LOG_CHUNK_OCTETS);
const _: () = assert!(LOG_CHUNK_OCTETS * LOG_CHUNKS_MAX >= LOG_WAITING_OCTETS_MAX);
const _: () = assert!(REJECT_HEADER_OCTETS_MAX + 2 * LOG_LINE_OCTETS_MAX < LOG_WAITING_OCTETS_MAX);
