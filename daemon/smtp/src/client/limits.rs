//! Every limit of the sending machine: octets unless the name says otherwise.
//!
//! *Limits*: timeouts are at least what RFC 5321 4.5.3.2 asks for; asserted below.

use crate::limits::{ORCPT_MAX, PATH_MAX};

/// A reply line with its CRLF. RFC 5321 4.5.3.1.5 says 512; servers are seen to exceed it.
pub const REPLY_LINE_MAX: usize = 2048;
/// Lines of one reply.
pub const REPLY_LINES_MAX: usize = 100;
/// Text of a reply that is kept for logs and reports.
pub const REPLY_TEXT_MAX: usize = 500;

/// Recipients of one transaction, whatever settings and server say.
pub const RECIPIENTS_MAX: usize = 1000;
/// Address of a sender or recipient without angle brackets.
pub const ADDRESS_MAX: usize = 1024;
/// ENVID and ORCPT as they stand in a command.
pub const PARAMETER_MAX: usize = 512;
/// The name given in EHLO.
pub const HELO_MAX: usize = 255;

/// Commands waiting to be sent; no further command is written above this.
pub const COMMANDS_AHEAD: usize = 16 * 1024;
/// Content waiting to be sent; no more content is wanted above this.
pub const CONTENT_AHEAD: usize = 64 * 1024;
/// Content taken in one call. It can at most double by line ends and dots.
pub const PIECE_MAX: usize = 64 * 1024;
/// Octets of content after which a BDAT chunk is closed. A message that may need more than one
/// goes by DATA, unless it is binary.
pub const CHUNK_OCTETS: usize = 64 * 1024;
/// Room before an open chunk for `BDAT <20 digits> LAST\r\n`.
pub const CHUNK_HEADER_MAX: usize = 32;
/// Output memory an idle connection keeps.
pub const IDLE_CAPACITY_MAX: usize = 4 * 1024;

const SECOND: u64 = 1_000_000;
/// A TCP connection, µs. RFC 5321 names none; the kernel alone would wait for 127 s.
pub const CONNECT_US: u64 = 30 * SECOND;
/// The greeting, µs.
pub const GREETING_US: u64 = 300 * SECOND;
/// EHLO and HELO, µs.
pub const EHLO_US: u64 = 300 * SECOND;
/// STARTTLS's reply and the handshake after it, each, µs.
pub const TLS_US: u64 = 60 * SECOND;
/// MAIL, µs.
pub const MAIL_US: u64 = 300 * SECOND;
/// RCPT, µs.
pub const RCPT_US: u64 = 300 * SECOND;
/// DATA's 354, µs.
pub const DATA_US: u64 = 120 * SECOND;
/// Between two pieces of content, µs.
pub const BLOCK_US: u64 = 180 * SECOND;
/// The final dot, µs. Less would send messages twice.
pub const DOT_US: u64 = 600 * SECOND;
/// RSET, µs.
pub const RSET_US: u64 = 20 * SECOND;
/// QUIT, µs.
pub const QUIT_US: u64 = 5 * SECOND;
/// A connection without a message, µs; then QUIT.
pub const IDLE_US: u64 = 10 * SECOND;
/// Messages sent over one connection.
pub const MESSAGES_MAX: u32 = 100;

const _: () = assert!(GREETING_US >= 300 * SECOND && MAIL_US >= 300 * SECOND);
const _: () = assert!(RCPT_US >= 300 * SECOND && DATA_US >= 120 * SECOND);
const _: () = assert!(BLOCK_US >= 180 * SECOND && DOT_US >= 600 * SECOND);
const _: () = assert!(RECIPIENTS_MAX >= 100);
const _: () = assert!(ADDRESS_MAX >= PATH_MAX && PARAMETER_MAX >= ORCPT_MAX);
const _: () = assert!(REPLY_TEXT_MAX < REPLY_LINE_MAX);
const _: () = assert!(CHUNK_HEADER_MAX >= "BDAT ".len() + 20 + " LAST\r\n".len());
