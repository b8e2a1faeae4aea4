//! Every bound of the spool, in one place.

/// Unit of every write: offsets and lengths on a device are multiples of it.
pub const BLOCK: usize = 4096;
/// Space before the first segment; holds the superblock copies.
pub const HEAD_BYTES: u64 = 1 << 20;
/// Copies of the superblock, spread over the head.
pub const SUPERBLOCK_COPIES: u64 = 4;
/// Distance between two superblock copies.
pub const SUPERBLOCK_STRIDE: u64 = HEAD_BYTES / SUPERBLOCK_COPIES;
/// Smallest segment (the config asks for more). A message that does not fit one is refused.
pub const SEGMENT_BYTES_MIN: u32 = 256 << 10;
/// Largest segment: its footer still fits one buffer at common message sizes.
pub const SEGMENT_BYTES_MAX: u32 = 64 << 20;
/// Fewest segments a device may have: hot, next, cold and one to wait for its DONEs.
pub const SEGMENTS_MIN: u32 = 4;
/// Most segments on one device (24 bits of a segment's address).
pub const SEGMENTS_MAX: u32 = 1 << 20;
/// Most devices of a set.
pub const MEMBERS_MAX: u16 = 64;
/// Most copies of one batch.
pub const COPIES_MAX: usize = 2;

/// Size of a batch buffer, and so of the largest batch.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Fixed header of a batch.
pub const BATCH_HEADER: usize = 256;
/// Most batches on their way to the device at once.
pub const FLIGHTS_MAX: usize = 4;
/// Buffers a log works with: the flights, one being sealed, one moving.
pub const BUFFERS: usize = FLIGHTS_MAX + 2;
/// A batch starts beside another one only with this many bytes waiting ...
/// (`docs/decisions/037-batches-beside.md`)
pub const BESIDE_BYTES_MIN: usize = 256 << 10;
/// ... or this many messages.
pub const BESIDE_MESSAGES_MIN: usize = 64;
/// DONEs and the watermark wait at most this long when nothing else comes.
pub const WATERMARK_DELAY_US: u64 = 20_000;

/// Header section of a message.
pub const HEADER_SECTION_MAX: usize = 256 << 10;
/// Body that stands in the MSG record and waits in memory for the verdict.
pub const BODY_INLINE_MAX: usize = 128 << 10;
/// Encoded envelope with its edits.
pub const ENVELOPE_BYTES_MAX: usize = 512 << 10;
/// Data in one CHUNK record.
pub const CHUNK_BYTES: usize = 128 << 10;
/// Chunks of one message waiting for the device before its session must pause.
pub const CHUNKS_WAITING_MAX: u32 = 2;
/// Largest slice taken by one append (a receive buffer).
pub const APPEND_BYTES_MAX: usize = 64 << 10;
/// Most chunks of one message (bounds a message at 8 GiB).
pub const CHUNKS_MAX: u32 = 1 << 16;
/// Record header.
pub const RECORD_HEADER: usize = 16;
/// Records begin at multiples of this.
pub const RECORD_ALIGN: usize = 8;
/// Largest record that is not MSG or CHUNK.
pub const CONTROL_BYTES_MAX: usize = 256 << 10;
/// Recipients of one message.
pub const RECIPIENTS_MAX: usize = 4096;
/// Text of one reply kept in a record.
pub const REPLY_BYTES_MAX: usize = 1024;

/// Space taken by an open transaction that declared no size, and by which it grows.
pub const RESERVE_STEP: u64 = 1 << 20;
/// The same in a small log: a share of it, and at least this (header section and envelope of a
/// message that declared its size).
pub const RESERVE_STEP_MIN: u64 = 64 << 10;
/// Which share.
pub const RESERVE_SHARE: u64 = 512;
/// Largest footer of a segment (one buffer).
pub const FOOTER_BYTES_MAX: usize = BATCH_BYTES_MAX;
/// Reads of one log on their way at once; more wait.
pub const READS_MAX: usize = 16;
/// Messages being copied to the cold log at once.
pub const MOVES_MAX: usize = 16;
/// Bytes being copied to the cold log at once.
pub const MOVE_BYTES_MAX: usize = 4 << 20;
/// Open cold segments of one log: messages that die together lie together.
pub const COLD_BUCKETS_MAX: usize = 4;
/// Undelivered for so long, a message leaves its hot segment.
pub const HOT_AGE_US: u64 = 60_000_000;
/// Tries at one block that the only copy of a mirror refuses, when another one is filled.
pub const FILL_TRIES_MAX: u32 = 5;
/// Write errors in a row after which a device counts as failed.
pub const ERRORS_MAX: u32 = 3;

const _: () = assert!(HEAD_BYTES.is_multiple_of(BLOCK as u64));
const _: () = assert!(SUPERBLOCK_STRIDE >= BLOCK as u64);
const _: () = assert!(BATCH_BYTES_MAX.is_multiple_of(BLOCK));
const _: () = assert!(BATCH_HEADER.is_multiple_of(RECORD_ALIGN));
// A chunk fits any segment, with header and footer.
const _: () = assert!(SEGMENT_BYTES_MIN as usize >= CHUNK_BYTES + APPEND_BYTES_MAX + 4 * BLOCK);
// The largest MSG, alone, fits a batch; so does what replaces it with its DONE.
const _: () = assert!(
    BATCH_HEADER
        + 2 * RECORD_HEADER
        + ENVELOPE_BYTES_MAX
        + HEADER_SECTION_MAX
        + BODY_INLINE_MAX
        + APPEND_BYTES_MAX
        + 4096
        <= BATCH_BYTES_MAX
);
const _: () =
    assert!(BATCH_HEADER + RECORD_HEADER + CHUNK_BYTES + APPEND_BYTES_MAX <= BATCH_BYTES_MAX);
const _: () = assert!(CONTROL_BYTES_MAX + BATCH_HEADER + RECORD_HEADER <= BATCH_BYTES_MAX);
const _: () = assert!(BUFFERS > FLIGHTS_MAX);
const _: () = assert!(BESIDE_BYTES_MIN <= BATCH_BYTES_MAX);
