//! Every limit of the SMTP grammar and of the receiving machine, in octets unless the name says
//! otherwise.
//!
//! *Limits*: what RFC 5321 4.5.3 obliges a server to accept is asserted below at compile time.

/// A local-part (RFC 5321 4.5.3.1.1).
pub const LOCAL_MAX: usize = 64;
/// A domain name or address literal (RFC 5321 4.5.3.1.2).
pub const DOMAIN_MAX: usize = 255;
/// One label of a domain name (RFC 1035 2.3.4).
pub const LABEL_MAX: usize = 63;
/// A path with its angle brackets (RFC 5321 4.5.3.1.3).
pub const PATH_MAX: usize = 256;
/// The name a client gives in EHLO or HELO.
pub const HELO_MAX: usize = 255;

/// A command line with its CRLF, as RFC 5321 4.5.3.1.4 requires it to be accepted.
pub const COMMAND_LINE_MIN: usize = 512;
/// What the announced extensions add to RCPT (RFC 3461 4.2 and 4.1, RFC 6531 3.4).
pub const COMMAND_LINE_EXTENSIONS: usize = 500 + 10;
/// A command line with its CRLF, as accepted here.
pub const COMMAND_LINE_MAX: usize = 2048;
/// A line of text without its CRLF and without the stuffed dot (RFC 5321 4.5.3.1.6).
pub const TEXT_LINE_MAX: usize = 998;
/// A reply line with its CRLF (RFC 5321 4.5.3.1.5).
pub const REPLY_LINE_MAX: usize = 512;
/// Lines of one reply whose text comes from outside this crate.
pub const REPLY_LINES_MAX: usize = 8;
/// Octets of a client's text that a reply repeats.
pub const ECHO_MAX: usize = 128;

/// Octets a machine holds while a question is open; more is not consumed.
pub const HELD_MAX: usize = 8 * 1024;
/// Capacity a buffer of the machine may keep while it is empty.
pub const IDLE_CAPACITY_MAX: usize = 1024;

/// Recipients of one message (RFC 5321 4.5.3.1.8 asks for at least 100).
pub const RCPT_MAX: u32 = 1000;
/// RCPT commands beyond the limit that still hear 452 before the session ends.
pub const RCPT_OVERSHOOT_MAX: u32 = 1000;
/// Transactions of one session.
pub const MAIL_MAX: u32 = 10_000;
/// Header section of a message, its empty line included.
pub const HEADER_MAX: u64 = 256 * 1024;
/// Received lines of a message; as many or more are a loop (RFC 5321 6.3).
pub const RECEIVED_MAX: u32 = 100;
/// Octets of a message unless the settings say otherwise.
pub const MESSAGE_MAX: u64 = 50 * 1024 * 1024;
/// Octets of a message that is already refused which are still read before the session ends.
pub const SWALLOW_MAX: u64 = 64 * 1024 * 1024;

/// Digits of SIZE and of BDAT's length (RFC 1870 3: 1*20DIGIT).
pub const NUMBER_DIGITS_MAX: usize = 20;
/// Parameters of one command.
pub const PARAMETERS_MAX: usize = 16;
/// An ENVID as encoded (RFC 3461 4.4).
pub const ENVID_MAX: usize = 100;
/// An ORCPT as encoded, its address type included (RFC 3461 4.2).
pub const ORCPT_MAX: usize = 500;

/// Commands that move no mail between two messages: NOOP, RSET, VRFY, HELP, a further EHLO.
pub const JUNK_MAX: u32 = 100;
/// Commands that were wrong, in one session.
pub const ERRORS_MAX: u32 = 20;
/// Recipients refused for good in one session.
pub const REFUSED_RCPT_MAX: u32 = 200;

/// Session id: 20 base-32 characters, and `.n` with a 32-bit n.
pub const ID_MAX: usize = 20 + 1 + 10;
/// Column before which a trace line is folded (RFC 5322 2.1.1).
pub const FOLD_COLUMN: usize = 78;

const _: () = assert!(LOCAL_MAX >= 64 && DOMAIN_MAX >= 255 && PATH_MAX >= 256);
const _: () = assert!(COMMAND_LINE_MAX >= COMMAND_LINE_MIN + COMMAND_LINE_EXTENSIONS);
const _: () = assert!(COMMAND_LINE_MAX >= 2 * PATH_MAX + ORCPT_MAX);
const _: () = assert!(COMMAND_LINE_MAX < HELD_MAX);
const _: () = assert!(TEXT_LINE_MAX >= 998);
const _: () = assert!(RCPT_MAX >= 100);
const _: () = assert!(MESSAGE_MAX >= 64 * 1024);
const _: () = assert!(HEADER_MAX < MESSAGE_MAX);
const _: () = assert!(ECHO_MAX + ID_MAX + 128 < REPLY_LINE_MAX);
const _: () = assert!(FOLD_COLUMN < TEXT_LINE_MAX);
