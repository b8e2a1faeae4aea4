//! Reports to senders: delivery status notifications (RFC 3464, RFC 3461, RFC 6522, RFC 6533).
//!
//! *Guarantees*: never a report about a message from the null sender; never one that NOTIFY
//! forbids; no line over 998 octets; no text from outside adds a field or a line. A report is
//! ASCII throughout unless an address in it is not; then it is of the internationalised kind.
//!
//! *Limits*: [`RETURNED_MAX`] octets of the message come back; a longer message, or one that is
//! not ASCII lines, comes back as its header.
//!
//! *Not here*: Received line and delivery of the report, and when a delay is worth one.

mod fields;
mod returned;
#[cfg(test)]
mod tests;

use crate::command::{Notify, Ret};
use crate::reply::Enhanced;

/// Octets of a message that a report returns, header or whole.
pub const RETURNED_MAX: usize = 50_000;
/// Recipients that one report tells of.
pub const RECIPIENTS_MAX: usize = crate::limits::RCPT_MAX as usize;
/// Octets of a diagnostic text.
pub const DIAGNOSTIC_MAX: usize = 600;
/// A line without its CRLF (RFC 5322 2.1.1).
pub const LINE_MAX: usize = 998;

const _: () = assert!(DIAGNOSTIC_MAX < LINE_MAX && LINE_MAX <= 998);

/// What happened to a recipient (RFC 3464 2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Given up.
    Failed,
    /// Not yet, and tried on.
    Delayed,
    /// Delivered here or by a server that reports no more.
    Delivered,
    /// Handed to a server that does not know DSN.
    Relayed,
}

impl Action {
    /// Whether the sender wants to hear of it. Without NOTIFY: failures and delays.
    #[must_use]
    pub fn wanted(self, notify: Option<Notify>) -> bool {
        match self {
            Self::Failed => notify.is_none_or(|n| n.failure),
            Self::Delayed => notify.is_none_or(|n| n.delay),
            Self::Delivered | Self::Relayed => notify.is_some_and(|n| n.success),
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
        }
    }
}

/// One recipient of the message.
#[derive(Debug, Clone, Copy)]
pub struct Recipient<'a> {
    /// The address as it was sent to the next hop.
    pub address: &'a [u8],
    /// ORCPT as it stood in the command: type, `;`, xtext.
    pub orcpt: Option<&'a [u8]>,
    /// NOTIFY, if the sender said one.
    pub notify: Option<Notify>,
    /// What happened.
    pub action: Action,
    /// Why.
    pub enhanced: Enhanced,
    /// The host that said so; none when nobody did.
    pub remote_mta: Option<&'a str>,
    /// The reply, code first, or our own words when `remote_mta` is none.
    pub diagnostic: &'a str,
    /// Last attempt, µs since the epoch.
    pub last_attempt_wall_us: Option<u64>,
    /// When it will be given up, for delays, µs since the epoch.
    pub retry_until_wall_us: Option<u64>,
}

/// The message that is reported on.
#[derive(Debug, Clone, Copy)]
pub struct Original<'a> {
    /// MAIL address without angle brackets.
    pub sender: &'a [u8],
    /// ENVID as it stood in the command: xtext.
    pub envid: Option<&'a [u8]>,
    /// RET, if the sender said one. Without, the header comes back.
    pub ret: Option<Ret>,
    /// It was sent with SMTPUTF8.
    pub smtputf8: bool,
    /// Receipt, µs since the epoch.
    pub arrival_wall_us: u64,
    /// Header section, with or without its empty line.
    pub header: &'a [u8],
    /// Body, if it is at hand; none returns the header.
    pub body: Option<&'a [u8]>,
}

/// All that a report is made from.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// Our name: Reporting-MTA, and the domain of From and Message-ID.
    pub host: &'a str,
    /// The id of the new message: letters, digits, dots, hyphens.
    pub id: &'a str,
    /// Now, µs since the epoch.
    pub wall_us: u64,
    /// The message.
    pub original: Original<'a>,
    /// All its recipients that changed; those the sender does not want to hear of are left out.
    pub recipients: &'a [Recipient<'a>],
}

/// A report to be sent from the null sender, with NOTIFY=NEVER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Where to.
    pub recipient: Box<[u8]>,
    /// Header and body, lines ended by CRLF.
    pub content: Vec<u8>,
    /// Octets of `content` up to and with the empty line.
    pub header_len: usize,
    /// It needs SMTPUTF8 and 8BITMIME.
    pub smtputf8: bool,
}

/// Writes the report. None if there is nobody to tell or nothing the sender wants to hear.
#[must_use]
pub fn notify(report: &Report<'_>) -> Option<Notification> {
    let original = &report.original;
    if original.sender.is_empty() {
        return None;
    }
    let told: Vec<&Recipient<'_>> = report
        .recipients
        .iter()
        .filter(|r| r.action.wanted(r.notify))
        .take(RECIPIENTS_MAX)
        .collect();
    if told.is_empty() {
        return None;
    }
    let utf8 = original.smtputf8
        || !original.sender.is_ascii()
        || told.iter().any(|r| !r.address.is_ascii());
    let boundary = returned::boundary(report.id, original);
    let returned = returned::choose(original, &told, utf8);
    let mut out = fields::Writer::new(utf8);
    out.header(report, &told, &boundary);
    let header_len = out.text.len();
    out.explanation(report, &told, &returned, &boundary);
    out.status(report, &told, &boundary);
    returned.write(&mut out.text, original, &boundary);
    out.text.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Some(Notification {
        recipient: original.sender.into(),
        content: out.text,
        header_len,
        smtputf8: utf8,
    })
}
