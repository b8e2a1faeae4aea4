//! The written parts of a report: header, explanation, status fields.

use std::borrow::Cow;

use super::returned::{Kind, Returned};
use super::{Action, DIAGNOSTIC_MAX, LINE_MAX, Recipient, Report};
use crate::client::clean;
use crate::command::parameters::decode_xtext;
use crate::trace;

/// Column up to which a field is filled.
const FOLD_COLUMN: usize = 76;

/// Collects the text of a report.
pub(super) struct Writer {
    pub(super) text: Vec<u8>,
    utf8: bool,
}

impl Writer {
    pub(super) fn new(utf8: bool) -> Self {
        Self { text: Vec::with_capacity(8 * 1024), utf8 }
    }

    fn line(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
        self.text.extend_from_slice(b"\r\n");
    }

    /// `name: value`, folded at spaces. A word too long for a line is cut.
    fn field(&mut self, name: &str, value: &str) {
        let mut column = name.len() + 1;
        self.text.extend_from_slice(name.as_bytes());
        self.text.push(b':');
        for word in value.split(' ') {
            let mut end = word.len().min(LINE_MAX - 2 - name.len());
            while !word.is_char_boundary(end) {
                end -= 1;
            }
            if end > 0 && column > name.len() + 1 && column + 1 + end > FOLD_COLUMN {
                self.text.extend_from_slice(b"\r\n");
                column = 0;
            }
            self.text.push(b' ');
            self.text.extend_from_slice(&word.as_bytes()[..end]);
            column += 1 + end;
        }
        self.text.extend_from_slice(b"\r\n");
    }

    /// Outside text as this report may carry it.
    fn fit(&self, text: &[u8], max: usize) -> String {
        let clean = clean(text, max);
        if self.utf8 || clean.is_ascii() {
            return clean.into();
        }
        clean.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
    }

    /// The header section and the boundary line of the first part.
    pub(super) fn header(&mut self, report: &Report<'_>, told: &[&Recipient<'_>], boundary: &str) {
        let (host, id) = (report.host, report.id);
        self.field("From", &format!("Mail Delivery System <MAILER-DAEMON@{host}>"));
        let sender = self.fit(report.original.sender, LINE_MAX);
        self.field("To", &format!("<{sender}>"));
        self.field("Subject", subject(told));
        self.field("Date", &date(report.wall_us));
        self.field("Message-ID", &format!("<{id}@{host}>"));
        self.field("MIME-Version", "1.0");
        // RFC 3834 5.2: nobody's autoresponder shall answer.
        self.field("Auto-Submitted", "auto-replied");
        let kind = if self.utf8 { "global-delivery-status" } else { "delivery-status" };
        self.line(&format!("Content-Type: multipart/report; report-type={kind};"));
        self.line(&format!(" boundary=\"{boundary}\""));
        if self.utf8 {
            self.line("Content-Transfer-Encoding: 8bit");
        }
        self.line("");
    }

    /// The part for people.
    pub(super) fn explanation(
        &mut self,
        report: &Report<'_>,
        told: &[&Recipient<'_>],
        returned: &Returned,
        boundary: &str,
    ) {
        self.line(&format!("--{boundary}"));
        let (charset, encoding) = if self.utf8 { ("utf-8", "8bit") } else { ("us-ascii", "7bit") };
        self.line(&format!("Content-Type: text/plain; charset={charset}"));
        self.line(&format!("Content-Transfer-Encoding: {encoding}"));
        self.line("");
        self.line(&format!("This is the mail system at {}.", report.host));
        for (action, sentence) in [
            (Action::Failed, "Your message could not be delivered to:"),
            (Action::Delayed, "Your message could not be delivered yet; it will be tried on:"),
            (Action::Delivered, "Your message was delivered to:"),
            (Action::Relayed, "Your message was handed to a server that sends no reports, for:"),
        ] {
            let mut of_kind = told.iter().filter(|r| r.action == action).peekable();
            if of_kind.peek().is_none() {
                continue;
            }
            self.line("");
            self.line(sentence);
            for recipient in of_kind {
                self.paragraph(recipient);
            }
        }
        self.line("");
        self.line(match returned.kind {
            Kind::Whole => "The message is attached.",
            Kind::Header { cut: false } => "The header of the message is attached.",
            Kind::Header { cut: true } => "The beginning of the message's header is attached.",
        });
        self.line("");
    }

    fn paragraph(&mut self, recipient: &Recipient<'_>) {
        let address = self.fit(recipient.address, LINE_MAX - 8);
        self.line("");
        self.line(&format!("  <{address}>"));
        let diagnostic = self.fit(recipient.diagnostic.as_bytes(), DIAGNOSTIC_MAX);
        match recipient.remote_mta {
            Some(host) => {
                let host = self.fit(host.as_bytes(), 255);
                self.line(&format!("    {host} said:"));
            }
            None if diagnostic.is_empty() => return,
            None => {}
        }
        self.line(&format!("    {diagnostic}"));
        if let Some(until) = recipient.retry_until_wall_us.filter(|_| recipient.waits()) {
            self.line(&format!("    It will be given up on {}.", date(until)));
        }
    }

    /// The part for programs (RFC 3464 2, RFC 6533 4).
    pub(super) fn status(&mut self, report: &Report<'_>, told: &[&Recipient<'_>], boundary: &str) {
        self.line(&format!("--{boundary}"));
        if self.utf8 {
            self.line("Content-Type: message/global-delivery-status");
            self.line("Content-Transfer-Encoding: 8bit");
        } else {
            self.line("Content-Type: message/delivery-status");
        }
        self.line("");
        if let Some(envid) = report.original.envid {
            let envid = self.fit(&decoded(envid), LINE_MAX - 30);
            self.field("Original-Envelope-Id", &envid);
        }
        self.field("Reporting-MTA", &format!("dns; {}", report.host));
        self.field("Arrival-Date", &date(report.original.arrival_wall_us));
        for recipient in told {
            self.line("");
            self.recipient(recipient);
        }
        self.line("");
    }

    fn recipient(&mut self, recipient: &Recipient<'_>) {
        if let Some((kind, value)) = recipient.orcpt.and_then(split_orcpt) {
            let kind = self.fit(kind, 64);
            let value = self.fit(&value, LINE_MAX - 100);
            self.field("Original-Recipient", &format!("{kind}; {value}"));
        }
        let kind = if recipient.address.is_ascii() { "rfc822" } else { "utf-8" };
        let address = self.fit(recipient.address, LINE_MAX - 100);
        self.field("Final-Recipient", &format!("{kind}; {address}"));
        self.field("Action", recipient.action.text());
        self.field("Status", &recipient.enhanced.to_string());
        if let Some(host) = recipient.remote_mta {
            let host = self.fit(host.as_bytes(), 255);
            self.field("Remote-MTA", &format!("dns; {host}"));
        }
        if !recipient.diagnostic.is_empty() {
            let text = self.fit(recipient.diagnostic.as_bytes(), DIAGNOSTIC_MAX);
            let kind = if recipient.remote_mta.is_some() { "smtp" } else { "x-ringpost" };
            self.field("Diagnostic-Code", &format!("{kind}; {text}"));
        }
        if let Some(wall_us) = recipient.last_attempt_wall_us {
            self.field("Last-Attempt-Date", &date(wall_us));
        }
        if let Some(wall_us) = recipient.retry_until_wall_us.filter(|_| recipient.waits()) {
            self.field("Will-Retry-Until", &date(wall_us));
        }
    }
}

impl Recipient<'_> {
    /// Will-Retry-Until is for delays only (RFC 3464 2.3.9).
    fn waits(&self) -> bool {
        self.action == Action::Delayed
    }
}

fn subject(told: &[&Recipient<'_>]) -> &'static str {
    if told.iter().any(|r| r.action == Action::Failed) {
        "Undelivered Mail Returned to Sender"
    } else if told.iter().any(|r| r.action == Action::Delayed) {
        "Delayed Mail (still being retried)"
    } else {
        "Successful Mail Delivery Report"
    }
}

fn date(wall_us: u64) -> String {
    trace::date(wall_us).map(char::from).iter().collect()
}

/// Type and decoded address of an ORCPT; the UTF-8 forms stay as they are.
fn split_orcpt(orcpt: &[u8]) -> Option<(&[u8], Cow<'_, [u8]>)> {
    let at = memchr::memchr(b';', orcpt)?;
    let (kind, value) = (&orcpt[..at], &orcpt[at + 1..]);
    let encoded = !kind.eq_ignore_ascii_case(b"utf-8");
    Some((kind, if encoded { decoded(value).into() } else { value.into() }))
}

fn decoded(xtext: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(xtext.len());
    decode_xtext(xtext, &mut out);
    out
}
