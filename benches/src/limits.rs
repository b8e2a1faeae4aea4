//! Every size and bound of mxbench.

/// Connections held at once by a floor, a source or a sink.
pub const CONNECTIONS_MAX: u32 = 60_000;

/// Entries of the floor's submission queue.
pub const FLOOR_ENTRIES: u32 = 1024;

/// Receive buffers of the floor; with their size, part of the fixed loop.
pub const FLOOR_BUFFERS: u16 = 128;

/// Octets of one receive buffer of the floor.
pub const FLOOR_BUFFER_OCTETS: u32 = 16_384;

/// Octets of one write of the durable floor, at most: twice what 64 sessions with 64 KiB each send
/// at once.
pub const FLOOR_BLOCK_OCTETS: usize = 8 << 20;

/// Octets of the durable floor's file.
pub const FLOOR_FILE_OCTETS: usize = 64 << 20;

/// Waiting connections a listener asks the kernel for.
pub const LISTEN_BACKLOG: i32 = 4096;

/// Entries of a source's or sink's submission queue.
pub const CLIENT_ENTRIES: u32 = 1024;

/// Receive buffers of a source: replies are short.
pub const SOURCE_BUFFERS: u16 = 256;

/// Octets of one receive buffer of a source.
pub const SOURCE_BUFFER_OCTETS: u32 = 2048;

/// Octets of the longest reply line a client reads; RFC 5321 4.5.3.1.5 asks for 512.
pub const REPLY_LINE_OCTETS_MAX: usize = 4096;

/// Octets of the smallest message: it has to hold its header.
pub const MESSAGE_OCTETS_MIN: usize = 320;

/// Octets of content given to the ring at once; larger messages follow piece by piece.
pub const SOURCE_PIECE_OCTETS: usize = 256 << 10;

/// Connections a source opens at the same time in idle mode.
pub const IDLE_CONNECTING_MAX: u32 = 256;

/// Messages whose start has come and that wait for a session in open loop.
pub const OPEN_LOOP_WAITING_MAX: usize = 10_000_000;

/// Milliseconds before a source connects again after a failed connection.
pub const RECONNECT_WAIT_MS: u64 = 20;

/// Milliseconds between two looks at time-outs, and between two pieces of a slow client.
pub const SOURCE_TICK_MS: u64 = 100;

/// Tickets a resuming session keeps.
pub const TLS_SESSIONS_KEPT: usize = 4;

/// Plaintext octets of one TLS record.
pub const TLS_FRAGMENT_OCTETS_MAX: usize = 1 << 14;

/// Octets a record adds to its plaintext, at most: header, explicit nonce, type and tag.
pub const TLS_SEAL_OCTETS: usize = 5 + 8 + 1 + 16;

/// Octets an oversized message is declared to have.
pub const OVERSIZED_OCTETS: u64 = 1 << 50;

/// Receive buffers of a sink.
pub const SINK_BUFFERS: u16 = 128;

/// Octets of one receive buffer of a sink.
pub const SINK_BUFFER_OCTETS: u32 = 16_384;

/// Octets of the longest command line a sink reads.
pub const SINK_LINE_OCTETS_MAX: usize = 4096;

/// Recipients of one message a sink takes.
pub const SINK_RECIPIENTS_MAX: usize = 1000;

/// The floor's name among measured servers.
pub const FLOOR_NAME: &str = "floor";

/// The durable floor's.
pub const DURABLE_FLOOR_NAME: &str = "floor+log";

/// A ratio of rates counts only if both servers kept their CPU at least this busy.
pub const BUSY_SHARE_MIN: f64 = 0.95;

/// Seconds a measured server may take until its banner.
pub const SERVER_START_WAIT_S: u64 = 60;

/// Seconds a measured server may take to end.
pub const SERVER_END_WAIT_S: u64 = 20;

/// Milliseconds of commits by which is seen which CPU a disk interrupts.
pub const LOOK_MS: u64 = 200;

/// Milliseconds of load before each burst that counts.
pub const WARM_UP_MS: u64 = 200;

/// Rounds of a comparison.
pub const PLAN_ROUNDS_MAX: usize = 1000;

/// Messages sent in one session to learn how often a server flushes.
pub const SYNC_PROBE_MESSAGES: u64 = 60;

/// Milliseconds between two looks at something that runs.
pub const LOOK_AGAIN_MS: u64 = 10;

/// Milliseconds between two looks at the memory of a server under load.
pub const SAMPLE_EVERY_MS: u64 = 500;

/// Octets of a large message, in the words of `mxbench source --size`, and how many come at once.
pub const LARGE_MESSAGE: (&str, u64) = ("100m", 10);

/// Microseconds from which a commit is slow enough that messages gather behind it.
pub const COMMIT_SLOW_US: f64 = 500.0;

/// Load average above which somebody else was at work beside server and source.
pub const BUSY_LOAD_AVERAGE: f64 = 2.0;

/// Octets of one bare commit.
pub const COMMIT_BLOCK_OCTETS: usize = 4096;

/// Octets of one write when the bandwidth of a device is measured.
pub const BANDWIDTH_BLOCK_OCTETS: usize = 4 << 20;

/// Milliseconds of each measurement of the bare machine.
pub const BARE_BURST_MS: u64 = 500;

/// Octets sent over a bare connection.
pub const BARE_EXCHANGE_OCTETS: usize = 4096;

/// Octets of the file bare commits go to.
pub const COMMIT_FILE_OCTETS: usize = 16 << 20;

const _: () = assert!(COMMIT_FILE_OCTETS.is_multiple_of(COMMIT_BLOCK_OCTETS));
const _: () = assert!(FLOOR_BLOCK_OCTETS.is_multiple_of(COMMIT_BLOCK_OCTETS));
const _: () = assert!(FLOOR_FILE_OCTETS.is_multiple_of(FLOOR_BLOCK_OCTETS));
const _: () = assert!(REPLY_LINE_OCTETS_MAX >= 512);
const _: () = assert!(FLOOR_BUFFERS.is_power_of_two());
