//! The main log and the reject log, in Exim's field style or as JSON lines.
//!
//! *Guarantees.* One line an event, whatever the network sent: no octet of a client can end a line,
//! begin a field, or write to a terminal. A line about mail we answer for is kept until written.
//! *Limits.* A line has at most 4 KiB, a core at most 16 MiB of lines waiting.
//! *Failure.* No room, or a log that cannot be written: [`MailLog::reserve`] refuses, MAIL hears
//! 451. Lines about refused mail are dropped then, and counted.
//! *Not here.* Who moves chunks from [`outlet`] to [`files`]: the house thread.

mod clean;

mod date;

mod form;

mod exim;

mod json;

mod lines;

pub mod outlet;

pub mod rotation;

pub mod files;

use crate::config::{LogConfig, LogFormat};
use crate::events::{Event, Reader};
use date::Stamp;
use exim::Exim;
use form::Form;
use json::Json;
use outlet::{LineSink, Log, Outlet, QueueSink};

/// The time as log lines write it, in UTC.
#[must_use]
pub fn stamp(wall_us: u64) -> String {
    Stamp::new(0).text(wall_us).to_owned()
}

/// No further mail can be logged now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// A core's end of the logs: reads events, writes lines into its [`Outlet`].
#[derive(Debug)]
pub struct MailLog<S = QueueSink> {
    outlet: Outlet<S>,
    stamp: Stamp,
    format: LogFormat,
    subject: bool,
}

impl<S: LineSink> MailLog<S> {
    /// A log whose chunks go to `sink`.
    pub fn new(config: &LogConfig, sink: S) -> Self {
        Self {
            outlet: Outlet::new(sink),
            stamp: Stamp::new(config.utc_offset_min),
            format: config.format,
            subject: config.subject,
        }
    }

    /// Takes over a new config; lines that wait stay as they are.
    pub fn configure(&mut self, config: &LogConfig) {
        self.stamp = Stamp::new(config.utc_offset_min);
        self.format = config.format;
        self.subject = config.subject;
    }

    /// Takes room for `lines` lines about mail: one at MAIL, and two for each recipient before an
    /// attempt at a next hop.
    ///
    /// # Errors
    /// [`Refused`] if there is no room, or lines cannot be written at present.
    pub fn reserve(&mut self, lines: u32) -> Result<(), Refused> {
        self.outlet.reserve(lines)
    }

    /// Gives back room that was reserved and not used. A line about mail uses its room itself.
    pub fn release(&mut self, lines: u32) {
        self.outlet.release(lines);
    }

    /// Sends on what waits, if it is much or old; for the end of each turn, and every 100 ms while
    /// [`Outlet::waiting_octets`] is not zero.
    pub fn turn_end(&mut self, now_us: u64) {
        self.outlet.turn_end(now_us);
    }

    /// Sends on all that waits, before a stop. Says whether everything left the core.
    pub fn flush(&mut self) -> bool {
        self.outlet.flush()
    }

    /// What waits, is reserved, and was lost.
    #[must_use]
    pub fn outlet(&self) -> &Outlet<S> {
        &self.outlet
    }

    fn write(&mut self, log: Log, wall_us: u64, event: &Event<'_>) {
        let kept = event.is_kept();
        let Some(out) = self.outlet.line(log, kept) else { return };
        let start = out.len();
        let subject = self.subject;
        let told = match self.format {
            LogFormat::Exim => {
                let mut form = Exim::new(out, self.stamp.text(wall_us));
                let told = lines::describe(event, subject, &mut form);
                form.end();
                told && append_reject(log, event, &mut form)
            }
            LogFormat::Json => {
                let mut form = Json::new(out, self.stamp.iso(wall_us));
                let told = lines::describe(event, subject, &mut form)
                    && append_reject(log, event, &mut form);
                form.end();
                told
            }
        };
        if !told {
            out.truncate(start);
        }
        self.outlet.wrote(log, start, kept && told);
    }
}

/// In the reject log the header of the mail follows.
fn append_reject(log: Log, event: &Event<'_>, form: &mut impl Form) -> bool {
    if let (Log::Reject, Event::CommandRefused(refused)) = (log, event)
        && let Some(header) = refused.header
    {
        form.envelope(refused.sender, refused.recipients);
        form.header(header);
        form.separator();
    }
    true
}

impl<S: LineSink> Reader for MailLog<S> {
    fn read(&mut self, wall_us: u64, event: &Event<'_>) {
        self.write(Log::Main, wall_us, event);
        if matches!(event, Event::CommandRefused(_)) {
            self.write(Log::Reject, wall_us, event);
        }
    }
}

#[cfg(test)]
mod tests;
