//! What an operator may set of the receiving machine; shared by all sessions of one generation.

use crate::command::Offers;
use crate::data::BareNewline;
use crate::limits;

/// What happens to a client that breaks a rule which some honest clients break too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// Answer and end the session.
    Refuse,
    /// Tell the host and go on.
    Note,
}

/// Timeouts in microseconds. The defaults are those of RFC 5321 4.5.3.2 where it names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// From our last reply to the end of the next command (RFC 5321 4.5.3.2.7: 5 minutes).
    pub command_us: u64,
    /// Between two pieces of content.
    pub data_us: u64,
    /// From the 220 of STARTTLS to the end of the handshake.
    pub starttls_us: u64,
    /// A whole session, looked at between commands; 0 is no limit.
    pub session_us: u64,
    /// Content must come at this rate once `data_us` has passed; 0 is no limit.
    pub data_octets_per_second_min: u64,
}

/// All settings of the receiving machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Our name in the greeting and in EHLO's first line: printable ASCII.
    pub hostname: Box<str>,
    /// What EHLO announces; [`super::Host::offers`] may narrow it for a session.
    pub offers: Offers,
    /// Accepted recipients of a message.
    pub rcpt_max: u32,
    /// Transactions of a session.
    pub mail_max: u32,
    /// NOOP, RSET, VRFY, HELP, further EHLO and the like between two accepted messages.
    pub junk_max: u32,
    /// Wrong commands of a session.
    pub errors_max: u32,
    /// Recipients of a session refused with 5yz.
    pub refused_rcpt_max: u32,
    /// Octets of a header section.
    pub header_max: u64,
    /// As many Received lines are a loop.
    pub received_max: u32,
    /// Octets of a line of content without its CRLF; 0 is no limit.
    pub text_line_max: u64,
    /// Octets of refused content that are still read, beyond the size limit.
    pub swallow_max: u64,
    /// CR or LF alone in content. In commands they always end the session.
    pub bare_newline: BareNewline,
    /// Whether a NUL may stand in a body that is not BINARYMIME.
    pub nul_in_body: bool,
    /// Input before the greeting.
    pub early_talker: Violation,
    /// Input behind EHLO, HELO or DATA in the same breath (RFC 2920 3.1).
    pub pipelining: Violation,
    /// Timeouts.
    pub timeouts: Timeouts,
}

impl Default for Timeouts {
    fn default() -> Self {
        const SECOND: u64 = 1_000_000;
        Self {
            command_us: 300 * SECOND,
            data_us: 300 * SECOND,
            starttls_us: 60 * SECOND,
            session_us: 3600 * SECOND,
            data_octets_per_second_min: 500,
        }
    }
}

impl Settings {
    /// The defaults under a host name.
    #[must_use]
    pub fn new(hostname: &str) -> Self {
        Self {
            hostname: hostname.into(),
            offers: Offers { starttls: false, ..Offers::all(limits::MESSAGE_MAX) },
            rcpt_max: limits::RCPT_MAX,
            mail_max: limits::MAIL_MAX,
            junk_max: limits::JUNK_MAX,
            errors_max: limits::ERRORS_MAX,
            refused_rcpt_max: limits::REFUSED_RCPT_MAX,
            header_max: limits::HEADER_MAX,
            received_max: limits::RECEIVED_MAX,
            text_line_max: limits::TEXT_LINE_MAX as u64,
            swallow_max: limits::SWALLOW_MAX,
            bare_newline: BareNewline::Refuse,
            nul_in_body: true,
            early_talker: Violation::Refuse,
            pipelining: Violation::Note,
            timeouts: Timeouts::default(),
        }
    }
}
