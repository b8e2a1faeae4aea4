//! What the house itself has to tell: the same event stream as a core's, with the same readers.
//!
//! *Guarantees*: an alarm also goes to standard error: the log files may be what is in trouble.

use crate::config::LogConfig;
use crate::events::{Alarm, Event, Note, Reader};
use crate::maillog::MailLog;
use crate::maillog::files::LogFiles;
use crate::maillog::outlet::{self, ChunkSource, QueueSink};
use crate::metrics::{self, CoreMetrics, CoreView};

use super::logs::LogThread;

/// The house's stream and the log files' thread.
#[derive(Debug)]
pub struct Journal {
    maillog: MailLog<QueueSink>,
    metrics: CoreMetrics,
    thread: LogThread,
}

impl Journal {
    /// Begins to write the log files for the cores' `sources` and for itself; the view is for the
    /// page.
    ///
    /// # Errors
    /// No descriptor or thread left.
    pub fn start(
        config: &LogConfig,
        files: LogFiles,
        mut sources: Vec<ChunkSource>,
    ) -> std::io::Result<(Self, CoreView)> {
        let (sink, source) = outlet::queue();
        sources.push(source);
        let (metrics, view) = metrics::for_core();
        let thread = LogThread::start(files, sources)?;
        Ok((Self { maillog: MailLog::new(config, sink), metrics, thread }, view))
    }

    /// What the operator may want to know.
    pub fn note(&mut self, note: Note, text: &str) {
        self.tell(&Event::Noted(note, text));
    }

    /// What the operator must know.
    pub fn alarm(&mut self, alarm: Alarm, text: &str) {
        eprintln!("ringpostd: alarm: {text}");
        self.tell(&Event::Alarmed(alarm, text));
    }

    fn tell(&mut self, event: &Event<'_>) {
        let wall_us = engine::wall_us();
        self.metrics.read(wall_us, event);
        self.metrics.publish();
        self.maillog.read(wall_us, event);
        self.flush();
    }

    /// Another config, as far as lines go.
    pub fn configure(&mut self, config: &LogConfig) {
        self.maillog.configure(config);
    }

    /// Sends on lines that found the queue full.
    pub fn flush(&mut self) {
        self.maillog.flush();
        self.thread.wake();
    }

    /// The thread that writes.
    #[must_use]
    pub fn thread(&self) -> &LogThread {
        &self.thread
    }

    /// Writes what waits, and ends.
    pub fn end(&mut self) {
        self.maillog.flush();
        self.thread.end();
    }
}
