//! What the house thread may hold, wait for and serve.

use std::time::Duration;

/// Connections to the admin socket at once.
pub const CONSOLES_MAX: usize = 16;
/// Connections to the metrics page at once.
pub const PAGES_MAX: usize = 8;
/// Octets of a request for the page.
pub const PAGE_REQUEST_OCTETS_MAX: usize = 8 << 10;
/// An idle console is closed after this.
pub const CONSOLE_IDLE: Duration = Duration::from_secs(300);
/// A reply that is not taken in this time closes the connection.
pub const WRITE_WAIT: Duration = Duration::from_secs(10);
/// A page that is not asked for and taken in this time closes the connection.
pub const PAGE_WAIT: Duration = Duration::from_secs(10);
/// All cores have answered a question by then, or the answer says who has not.
pub const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// The same for what is done to many messages.
pub const ACT_WAIT: Duration = Duration::from_secs(120);
/// Init has fetched, checked and written a version of the image by then, or hangs.
pub const UPGRADE_WAIT: Duration = Duration::from_secs(900);
/// Searches of the log files at once.
pub const LOG_SEARCHES_MAX: usize = 2;
/// Questions to the cores under way at once.
pub const QUESTIONS_MAX: usize = 32;

/// Names being looked up for the cores, those that wait included.
pub const LOOKUPS_MAX: usize = 10_000;
/// Of those, at the resolver at once.
pub const LOOKUPS_AT_ONCE: usize = 64;
/// A look-up with all its tries ends by then.
pub const LOOKUP_WAIT: Duration = Duration::from_secs(60);

/// How often heartbeats, the clock and the rest are looked at.
pub const TICK: Duration = Duration::from_millis(500);
/// A core that has not turned its loop for so long is named.
pub const STALL_US: u64 = 2_000_000;
/// Between two tries to give a core what it must have.
pub const POST_AGAIN: Duration = Duration::from_millis(10);
/// Time for a drain beyond the sessions' own, before the process gives up on a core.
pub const DRAIN_SLACK: Duration = Duration::from_secs(30);
/// How long the log files' thread sleeps while nothing wakes it.
pub const LOG_SLEEP: Duration = Duration::from_millis(100);
/// Between two tries to write log lines that could not be written.
pub const LOG_AGAIN: Duration = Duration::from_secs(1);
/// Time for the last log lines at the end.
pub const LOG_END_WAIT: Duration = Duration::from_secs(2);

/// How often lists and the XDP filter are looked at.
pub const FILTER_TICK: Duration = Duration::from_secs(1);
/// How long the filter believes that the daemon accepts, in seconds.
pub const ACCEPTING_S: u32 = 5;
/// Looks between two sweeps of lapsed bans out of the kernel's table.
pub const FILTER_SWEEP_TICKS: u64 = 60;
/// Events of the filter that are kept for the admin tool.
pub const FILTER_EVENTS_MAX: usize = 1_000;
/// Events that become lines of the log at one look.
pub const FILTER_LINES_MAX: usize = 20;
/// SYNs after which it is judged whether their sources are hidden.
pub const SYNS_MIN: u64 = 1_000;

/// A certificate that ends in less than this is an alarm.
pub const CERTIFICATE_LEFT_S: i64 = 14 * 86_400;
/// How often the certificates' end is looked at.
pub const CERTIFICATE_EVERY_US: u64 = 12 * 3_600_000_000;
/// How often the hints are copied to disk.
pub const SNAPSHOT_EVERY_US: u64 = 3_600_000_000;
/// The clock counts as stepped when it differs by more from what time has passed: ahead.
pub const CLOCK_AHEAD_US: u64 = 86_400_000_000;
/// The same, behind.
pub const CLOCK_BEHIND_US: u64 = 60_000_000;

const _: () = assert!(FILTER_TICK.as_secs() * 2 < ACCEPTING_S as u64);
const _: () = assert!(TICK.as_micros() * 4 <= STALL_US as u128);
const _: () = assert!(LOOKUPS_AT_ONCE < LOOKUPS_MAX);
