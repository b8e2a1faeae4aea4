//! Every bound of the hints, with its unit in the name.

/// Words (8 octets) at the start of the file that describe it.
pub const HEADER_WORDS: usize = 64;
/// Shards of the record table; shard = hash mod 64, each with one writer.
pub const SHARDS: usize = 64;
/// The largest key kept whole; of longer ones this many octets and the 128-bit hash are kept.
pub const KEY_OCTETS_MAX: usize = 64;
/// Words of one record slot: 256 octets, four cache lines.
pub const SLOT_WORDS: usize = 32;
/// Words of a record's value.
pub const VALUE_WORDS: usize = 16;
/// Slots that one key may stand in.
pub const WAYS: usize = 4;
/// Buckets of the notes table: small, written by panic hooks of any thread.
pub const NOTE_BUCKETS: usize = 32;
/// Words of a bucket of one-word cells: one cache line.
pub const CELL_BUCKET_WORDS: usize = 8;
/// Cells in such a bucket; the first word is its insertion lock.
pub const CELLS: usize = CELL_BUCKET_WORDS - 1;
/// Words that name the key of one rate cell, for the admin tool.
pub const LABEL_WORDS: usize = 3;
/// The longest key that such a label can hold.
pub const LABEL_OCTETS_MAX: usize = LABEL_WORDS * 8 - 2;
/// Words of the labels beside one bucket of rates.
pub const LABEL_BUCKET_WORDS: usize = 24;
/// The smallest file: one bucket a shard, some rates.
pub const FILE_WORDS_MIN: usize = 16 * 1024;
/// The largest file: 4 GiB.
pub const FILE_WORDS_MAX: usize = 512 * 1024 * 1024;

/// How often a reader starts again when a writer was faster; then it is a miss.
pub const READ_TRIES_MAX: u32 = 64;
/// Turns of a waiting inserter before it takes a lock for broken (by corruption) and takes it over.
pub const LOCK_TRIES_MAX: u32 = 100_000;

const SECOND_US: u64 = 1_000_000;
const DAY_US: u64 = 86_400 * SECOND_US;
/// A record written further than this in the future is a miss: the clock has been stepped.
pub const FUTURE_US_MAX: u64 = DAY_US;
/// No record lives longer, whatever its expiry says.
pub const LIFE_US_MAX: u64 = 400 * DAY_US;
/// Life of a retry record after its last change.
pub const RETRY_LIFE_US: u64 = 10 * DAY_US;
/// Life of a health record after its last change.
pub const HEALTH_LIFE_US: u64 = DAY_US;
/// Life of what a backend was last seen to offer.
pub const OFFERS_LIFE_US: u64 = 30 * DAY_US;
/// Life of a panic hook's note.
pub const NOTE_LIFE_US: u64 = 7 * DAY_US;
/// Life of a client's standing after its last error.
pub const STANDING_LIFE_US: u64 = DAY_US;
/// In this time half of a client's errors are forgotten.
pub const STANDING_HALF_LIFE_US: u64 = 3_600 * SECOND_US;

/// The reply text kept with a retry record, octets.
pub const REPLY_OCTETS_MAX: usize = 64;

/// One tick of a rate's clock.
pub const RATE_TICK_US: u64 = 16;
/// Bits of a rate word that hold the time (ticks); the others hold the key's tag.
pub const RATE_TIME_BITS: u32 = 40;
/// The longest period a rate can have.
pub const RATE_WINDOW_US_MAX: u64 = 8 * DAY_US;
/// Clocks of two cores may differ by this much before a rate counts as alien.
pub const RATE_SLACK_US: u64 = 60 * SECOND_US;

/// Bits of a session word that hold the count.
pub const SESSION_COUNT_BITS: u32 = 20;
/// The most sessions one key can have open.
pub const SESSIONS_PER_KEY_MAX: u32 = (1 << SESSION_COUNT_BITS) - 1;

const _: () = assert!(HEADER_WORDS.is_multiple_of(CELL_BUCKET_WORDS));
const _: () = assert!(SLOT_WORDS.is_multiple_of(CELL_BUCKET_WORDS));
const _: () = assert!(CELLS * LABEL_WORDS <= LABEL_BUCKET_WORDS);
const _: () = assert!(KEY_OCTETS_MAX.is_multiple_of(8) && KEY_OCTETS_MAX < 256);
const _: () = assert!(SHARDS == 64, "a set of shards is one u64");
const _: () = assert!(
    RATE_WINDOW_US_MAX * 2 + RATE_SLACK_US < RATE_TICK_US << (RATE_TIME_BITS - 1),
    "future and past must stay apart in modular time"
);
const _: () = assert!(LIFE_US_MAX >= OFFERS_LIFE_US && LIFE_US_MAX >= RETRY_LIFE_US);
