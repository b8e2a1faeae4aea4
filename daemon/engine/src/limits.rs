//! Every bound of the engine, by name.
//!
//! *Not here*: what a core is given at start ([`crate::Config`]); these are the bounds on that.

/// Oldest kernel the engine runs on: the first with `DEFER_TASKRUN`.
pub const KERNEL_MIN: (u32, u32) = (6, 1);

/// First kernel that stops a multishot receive after 32 rounds without a turn of the loop
/// (upstream 76b367a2d831). Below it one flooder keeps the kernel inside a single receive, so
/// the engine arms a fresh receive for every buffer there.
pub const KERNEL_MULTISHOT_BOUNDED: (u32, u32) = (6, 5);

/// Completion queue entries per submission queue entry. A multishot request ends when the
/// completion queue overflows, so there is room for many completions per submission.
pub const CQ_FACTOR: u32 = 8;

/// Submission queue entries of one core.
pub const SQ_ENTRIES_MAX: u32 = 4096;

/// Connection slots of one core, accepted and outgoing together.
pub const CONNECTIONS_MAX: u32 = 1 << 20;

/// Provided buffers in one ring; the kernel's own bound.
pub const RECV_BUFFERS_MAX: u16 = 1 << 15;

/// Bytes of one provided buffer.
pub const RECV_BUFFER_BYTES_MAX: u32 = 1 << 20;

/// Bytes of one provided buffer for datagrams: a DNS answer over UDP with the usual EDNS sizes.
pub const DATAGRAM_BYTES_MAX: u32 = 4096;

/// Provided buffers for datagrams. A ring of its own: a flood of TCP bytes cannot starve the DNS.
pub const DATAGRAM_BUFFERS: u16 = 128;

/// Datagrams handed to the kernel and not yet sent.
pub const DATAGRAM_SENDS_MAX: u32 = 4096;

/// Sockets for datagrams of one core.
pub const DATAGRAM_SOCKETS_MAX: u32 = 1024;

/// Listening sockets of one core.
pub const LISTENERS_MAX: u32 = 256;

/// Files of one core.
pub const FILES_MAX: u32 = 1024;

/// Disk buffers of one core; the kernel's own bound on registered buffers is 16,384.
pub const DISK_BUFFERS_MAX: usize = 4096;

/// Alignment of disk buffers, and of offsets and lengths under `O_DIRECT`.
pub const DISK_ALIGN: usize = 4096;

/// Output buffers kept for reuse when no bytes wait in them, per core.
pub const OUT_POOL_MAX: usize = 256;

/// An output buffer that grew beyond this goes back to the allocator.
pub const OUT_POOLED_BYTES_MAX: usize = 64 * 1024;

/// First size of an output buffer: most replies are far smaller.
pub const OUT_FIRST_BYTES: usize = 2048;

/// Messages taken from the mailbox in one turn.
pub const MAIL_PER_TURN: usize = 256;

/// How long accepting rests after the kernel had no descriptor or memory left.
pub const ACCEPT_BACKOFF_US: u64 = 100_000;

/// Longest sleep of an idle core: its heartbeat moves at least this often.
pub const SLEEP_US_MAX: u64 = 500_000;

/// How often an abandoned connection's requests are cancelled again.
pub const CANCEL_AGAIN_US: u64 = 1_000_000;

/// How long a stopping core waits for the kernel to give back what it holds. What is still held
/// then is leaked on purpose, never freed.
pub const STOP_WAIT_US: u64 = 5_000_000;

/// Default wait of [`crate::Core::close`] for the peer's end of stream.
pub const LINGER_US: u64 = 10_000_000;

const _: () = assert!(CQ_FACTOR >= 8);
const _: () = assert!(DISK_BUFFERS_MAX <= 16_384);
const _: () = assert!(DATAGRAM_BUFFERS.is_power_of_two());
const _: () = assert!(OUT_FIRST_BYTES <= OUT_POOLED_BYTES_MAX);
const _: () = assert!(SLEEP_US_MAX < 2_000_000, "the watchdog speaks after two seconds");
const _: () = assert!(KERNEL_MULTISHOT_BOUNDED.1 > KERNEL_MIN.1);
