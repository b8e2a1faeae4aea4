//! What the DNS side may read, hold and try.

/// Records read from an answer; the rest is passed over.
pub const RECORDS_MAX: usize = 100;
/// Aliases followed within an answer.
pub const ALIASES_MAX: usize = 8;
/// Octets of a name on the wire (RFC 1035 2.3.4).
pub const NAME_OCTETS_MAX: usize = 255;
/// Octets of a label (RFC 1035 2.3.4).
pub const LABEL_OCTETS_MAX: usize = 63;
/// Octets of a UDP answer we ask for: no fragments on any path.
pub const UDP_OCTETS_MAX: u16 = 1_232;
/// Questions one core may have open; a configured bound is cut to this.
pub const IN_FLIGHT_MAX: usize = 4_096;
/// Sockets in use at once towards a resolver that is not on this machine.
pub const POOL_SOCKETS: usize = 4;
/// The same, with those that only wait for late answers.
pub const SLOTS_MAX: usize = 2 * POOL_SOCKETS;
/// Questions after which such a socket, and so its port, is renewed.
pub const SOCKET_QUESTIONS_MAX: u32 = 1_000;
/// Age at which it is renewed.
pub const SOCKET_AGE_US_MAX: u64 = 60_000_000;
/// Answers with a right id and a wrong question after which a question goes to TCP.
pub const WRONG_QUESTIONS_MAX: u8 = 3;
/// Answers to nothing, in a row on one socket, after which all its questions go to TCP.
pub const WRONG_RUN_MAX: u16 = 16;
/// Names of one address that are looked up to see whether they lead back to it.
pub const REVERSE_NAMES_MAX: usize = 4;
/// Mail exchangers of a domain whose addresses are looked up, the preferred first.
pub const MX_HOSTS_MAX: usize = 20;
/// Mail exchangers in a row that may fail for now before the rest is not asked any more.
pub const MX_FAILURES_MAX: usize = 2;
/// Answers the house's resolver remembers.
pub const OUTWARD_CACHE_MAX: u64 = 4_096;
/// Seconds a negative answer without an SOA may be believed.
pub const NEGATIVE_TTL_S: u32 = 60;
/// Seconds any answer may be believed.
pub const TTL_S_MAX: u32 = 86_400;

const _: () = assert!(IN_FLIGHT_MAX <= 1 << 14, "random ids must find a free one soon");
const _: () = assert!(SLOTS_MAX <= u8::MAX as usize);
const _: () = assert!(UDP_OCTETS_MAX as usize >= 512 && NAME_OCTETS_MAX < 512);
