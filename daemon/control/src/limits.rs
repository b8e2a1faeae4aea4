//! Every bound of the admin protocol.

/// Octets of a frame before its payload: length and version.
pub const FRAME_HEAD_OCTETS: usize = 6;
/// The largest request, head included.
pub const REQUEST_OCTETS_MAX: usize = 64 * 1024;
/// The largest reply, head included.
pub const REPLY_OCTETS_MAX: usize = 2 * 1024 * 1024;
/// A name: a state, a kind of hint, a version, a field.
pub const NAME_OCTETS_MAX: usize = 64;
/// A message or session id with its transaction.
pub const ID_OCTETS_MAX: usize = 32;
/// An address, a host, a key.
pub const ADDRESS_OCTETS_MAX: usize = 512;
/// A sentence for people; a remote reply.
pub const LINE_OCTETS_MAX: usize = 1024;
/// The metrics page.
pub const METRICS_OCTETS_MAX: usize = 900 * 1024;
/// Messages of one queue page.
pub const QUEUE_PAGE_MAX: usize = 200;
/// Domains told of one message of a page.
pub const WAITS_MAX: usize = 4;
/// A remote reply, in short.
pub const SHORT_OCTETS_MAX: usize = 240;
/// Recipients shown of one message; what is left over is counted.
pub const RECIPIENTS_SHOWN_MAX: usize = 500;
/// Hints of one page.
pub const HINTS_PAGE_MAX: usize = 200;
/// Hints put back at once.
pub const HINTS_LOAD_MAX: usize = 50;
/// Fields of one hint.
pub const HINT_FIELDS_MAX: usize = 24;
/// Cores in a status.
pub const CORES_MAX: usize = 256;
/// Lines of each kind in a status: listeners, features, alarms.
pub const STATUS_LINES_MAX: usize = 64;
/// Ids in one act.
pub const IDS_MAX: usize = 200;
/// Lines of a story.
pub const STORY_LINES_MAX: usize = 400;
/// Clients, next hops or domains of one count.
pub const TOPS_MAX: usize = 200;
/// Rows of a table.
pub const ROWS_MAX: usize = 500;
/// Cells of a row.
pub const CELLS_MAX: usize = 12;
/// Octets, as base64, of one part sent to the daemon.
pub const PART_OCTETS_MAX: usize = 48 * 1024;
/// Pieces of a played session.
pub const PIECES_MAX: usize = 2_000;
/// Octets, as base64, of one part of a message.
pub const REPLY_PART_OCTETS_MAX: usize = 1_800_000;

/// Lines about the ladder.
pub const LADDER_LINES_MAX: usize = 500;

/// JSON may escape each octet of ordinary text as two.
const JSON_FACTOR: usize = 2;
const _: () = assert!(METRICS_OCTETS_MAX * JSON_FACTOR < REPLY_OCTETS_MAX);
const _: () = assert!(
    RECIPIENTS_SHOWN_MAX * (2 * ADDRESS_OCTETS_MAX + LINE_OCTETS_MAX) < REPLY_OCTETS_MAX,
    "the largest message detail of unescaped text fits; write_reply answers for the rest"
);
const _: () = assert!(LADDER_LINES_MAX * 2 * LINE_OCTETS_MAX < REPLY_OCTETS_MAX);
const _: () = assert!(
    STORY_LINES_MAX * (LINE_OCTETS_MAX + ID_OCTETS_MAX + 4 * NAME_OCTETS_MAX) * JSON_FACTOR
        < REPLY_OCTETS_MAX
);
const _: () = assert!(TOPS_MAX * 2 * (ADDRESS_OCTETS_MAX + LINE_OCTETS_MAX) < REPLY_OCTETS_MAX);
const _: () = assert!(PART_OCTETS_MAX + 1024 < REQUEST_OCTETS_MAX);
const _: () =
    assert!(REPLY_PART_OCTETS_MAX + STATUS_LINES_MAX * LINE_OCTETS_MAX < REPLY_OCTETS_MAX);
const _: () = assert!(QUEUE_PAGE_MAX * 4 * ADDRESS_OCTETS_MAX < REPLY_OCTETS_MAX);
const _: () = assert!(
    QUEUE_PAGE_MAX * (4 * ADDRESS_OCTETS_MAX + WAITS_MAX * (ADDRESS_OCTETS_MAX + SHORT_OCTETS_MAX))
        < REPLY_OCTETS_MAX
);
const _: () = assert!(
    HINTS_PAGE_MAX * (ADDRESS_OCTETS_MAX + LINE_OCTETS_MAX + HINT_FIELDS_MAX * 2 * NAME_OCTETS_MAX)
        < REPLY_OCTETS_MAX
);
