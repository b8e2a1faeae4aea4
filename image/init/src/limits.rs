//! Every bound of init in one place.

use std::time::Duration;

/// How long init waits for its own disk to appear.
pub(crate) const DISK_WAIT: Duration = Duration::from_secs(20);
/// How often init looks around when nothing happens; the watchdog is fed as often.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// A version under trial that is not healthy by then is left for the one before it.
pub(crate) const TRIAL: Duration = Duration::from_secs(180);
/// How long the daemon may take to say that it is ready, before it counts as a failed start.
pub(crate) const READY: Duration = Duration::from_secs(120);
/// Failed starts in a row after which init stops trying.
pub(crate) const FAILED_STARTS_MAX: u32 = 3;
/// The first wait before a service is started again.
pub(crate) const RESTART_FIRST: Duration = Duration::from_millis(200);
/// The longest wait before a service is started again.
pub(crate) const RESTART_MAX: Duration = Duration::from_secs(30);
/// A service that ran for so long was fine: the next wait is the first again.
pub(crate) const RESTART_FINE: Duration = Duration::from_secs(60);
/// A console that somebody used for so long, or that was waited at, was fine.
pub(crate) const VISIT_FINE: Duration = Duration::from_secs(2);
/// How long the daemon may drain before it is killed.
pub(crate) const DRAIN: Duration = Duration::from_secs(90);
/// How long any other program may take to end.
pub(crate) const END: Duration = Duration::from_secs(5);
/// How long a helper (mkfs, a config check) may take.
pub(crate) const HELPER: Duration = Duration::from_secs(60);
/// How long a program may take that PID 1's loop waits for: less than the watchdog's 30 s.
pub(crate) const ANSWER: Duration = Duration::from_secs(15);
/// How long one step of the health check may take.
pub(crate) const HEALTH_STEP: Duration = Duration::from_secs(5);

/// The first wait for an NTP server's answer, before the next is asked.
pub(crate) const NTP_FIRST: Duration = Duration::from_secs(4);
/// The longest such wait.
pub(crate) const NTP_LONGEST: Duration = Duration::from_secs(256);
/// How often the time is asked for when it is known.
pub(crate) const NTP_EVERY: Duration = Duration::from_secs(1024);
/// A clock that is off by no more is left alone.
pub(crate) const NTP_EXACT: Duration = Duration::from_millis(5);
/// An answer that took longer says too little.
pub(crate) const NTP_TRIP_MAX: Duration = Duration::from_secs(2);
/// NTP servers that the machine's settings may name.
pub(crate) const NTP_SERVERS_MAX: usize = 8;
/// Where they listen.
pub(crate) const NTP_PORT: u16 = 123;

/// Octets of one file of the config seed.
pub(crate) const SEED_FILE_MAX: u64 = 1 << 20;
/// Files of the config seed.
pub(crate) const SEED_FILES_MAX: usize = 64;
/// Minutes after which a config that nobody confirmed may be undone at the latest.
pub(crate) const CONFIRM_MINUTES_MAX: u64 = 24 * 60;
/// Generations of the config that are kept.
pub(crate) const GENERATIONS_MAX: usize = 20;
/// Interfaces, addresses and routes that the machine's settings may name together.
pub(crate) const NETWORK_ENTRIES_MAX: usize = 256;
/// Octets that are read from a firmware variable.
pub(crate) const EFI_VARIABLE_MAX: usize = 4096;
/// Octets of a release's manifest, and of its signature.
pub(crate) const MANIFEST_MAX: u64 = 64 << 10;
/// Octets of a version's file.
pub(crate) const UKI_MAX: u64 = 64 << 20;
/// Starts a new version gets to show that it works.
pub(crate) const TRIES: u32 = 3;
/// Versions that the ESP keeps, with the running and the new one.
pub(crate) const VERSIONS_MAX: usize = 3;
/// Octets that stay free on the ESP.
pub(crate) const ESP_SPARE_BYTES: u64 = 1 << 20;
/// How long one step of a transfer may take.
pub(crate) const FETCH_STEP: Duration = Duration::from_secs(30);
/// Octets of the name that a question of the daemon's is answered to.
pub(crate) const ASKER_MAX: usize = 64;
/// Octets of one message on the readiness socket.
pub(crate) const NOTIFY_MAX: usize = 1024;

/// Octets at the start of a new partition that are cleared, so that nothing old is found there.
pub(crate) const CLEAR_BYTES: u64 = 16 << 20;
/// The least state partition: mkfs.xfs refuses less than 300 MiB.
pub(crate) const STATE_BYTES_MIN: u64 = 320 << 20;
/// The state partition of a disk with room.
pub(crate) const STATE_BYTES: u64 = 2 << 30;
/// The least spool partition.
pub(crate) const SPOOL_BYTES_MIN: u64 = 64 << 20;

/// The daemon's user and group; the group may use io_uring.
pub(crate) const DAEMON_ID: u32 = 100;
/// Octets of memory that are never the daemon's: init, the kernel's own, the console.
pub(crate) const MEMORY_SPARE: u64 = 96 << 20;
/// The part of the memory that the console may have.
pub(crate) const CONSOLE_SHARE: u64 = 4;
/// Threads and processes of the daemon: one a core, its supervisor, the filter's keeper, spares.
pub(crate) const DAEMON_TASKS: u32 = 2048;
/// The same of the console.
pub(crate) const CONSOLE_TASKS: u32 = 64;
/// How often disks are asked how they are.
pub(crate) const DISKS_EVERY: Duration = Duration::from_secs(3600);
/// Descriptors the daemon may open.
pub(crate) const DAEMON_FILES: u64 = 1 << 20;
/// Memory the daemon may lock: the registered log buffers.
pub(crate) const DAEMON_LOCKED: u64 = 256 << 20;

const _: () = assert!(RESTART_FIRST.as_millis() < RESTART_MAX.as_millis());
const _: () = assert!(READY.as_secs() < TRIAL.as_secs(), "a trial outlives one slow start");
const _: () = assert!(VERSIONS_MAX >= 2, "the running version and the new one");
const _: () = assert!(STATE_BYTES_MIN <= STATE_BYTES);
const _: () = assert!(CLEAR_BYTES <= SPOOL_BYTES_MIN);
