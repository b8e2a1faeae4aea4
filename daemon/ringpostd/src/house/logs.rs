//! The thread that writes log files: the house's only work that may wait for a disk.
//!
//! *Guarantees*: chunks of one core are written in order, each once.
//! *Failure*: lines that cannot be written are tried again each second; meanwhile every core knows
//! (`ChunkSource::set_failing`) and answers MAIL with 451.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use engine::{MailboxReceiver, MailboxSender};

use crate::maillog::files::LogFiles;
use crate::maillog::outlet::{Chunk, ChunkSource};
use crate::maillog::rotation::Rules;

use super::limits::{LOG_AGAIN, LOG_END_WAIT, LOG_SLEEP};

/// To the thread.
#[derive(Debug)]
enum Order {
    /// Lines wait.
    Wake,
    /// Other rules from now on, and the files opened anew.
    Rules(Rules),
    /// Other files from now on.
    Files(Box<LogFiles>),
    /// Write what waits, then end.
    End,
}

/// The house's end.
#[derive(Debug)]
pub struct LogThread {
    orders: MailboxSender<Order>,
    trouble: Arc<Trouble>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread tells: whether it can write.
#[derive(Debug, Default)]
struct Trouble {
    failing: AtomicBool,
    errno: std::sync::atomic::AtomicI32,
}

const ORDERS_MAX: usize = 1024;

impl LogThread {
    /// Begins to write what comes from `sources`.
    ///
    /// # Errors
    /// No descriptor or thread left.
    pub fn start(files: LogFiles, sources: Vec<ChunkSource>) -> io::Result<Self> {
        let (orders, mailbox) = engine::mailbox(ORDERS_MAX)?;
        let trouble = Arc::new(Trouble::default());
        let writer = Writer { files, sources, stuck: None, trouble: Arc::clone(&trouble) };
        let thread = std::thread::Builder::new()
            .name("log files".to_owned())
            .spawn(move || writer.run(&mailbox))?;
        Ok(Self { orders, trouble, thread: Some(thread) })
    }

    /// Lines wait.
    pub fn wake(&self) {
        // Full: it is awake.
        let _ = self.orders.post(Order::Wake);
    }

    /// Other rules; files that somebody moved away are made anew.
    pub fn rules(&self, rules: Rules) {
        let _ = self.orders.post(Order::Rules(rules));
    }

    /// Other files.
    pub fn files(&self, files: LogFiles) {
        let _ = self.orders.post(Order::Files(Box::new(files)));
    }

    /// Why lines cannot be written, if they cannot.
    #[must_use]
    pub fn trouble(&self) -> Option<io::Error> {
        let failing = self.trouble.failing.load(Ordering::Relaxed);
        failing.then(|| io::Error::from_raw_os_error(self.trouble.errno.load(Ordering::Relaxed)))
    }

    /// Writes what waits, for a bounded time, and ends.
    pub fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            while self.orders.post(Order::End).is_err() {
                std::thread::yield_now();
            }
            let _ = thread.join();
        }
    }
}

struct Writer {
    files: LogFiles,
    sources: Vec<ChunkSource>,
    /// What could not be written, and whose it is.
    stuck: Option<(usize, Chunk)>,
    trouble: Arc<Trouble>,
}

impl Writer {
    fn run(mut self, mailbox: &MailboxReceiver<Order>) {
        let mut again = Instant::now();
        loop {
            match mailbox.wait(LOG_SLEEP) {
                Some(Order::Rules(rules)) => {
                    self.files.configure(rules);
                    // What cannot be opened anew is written as before.
                    let _ = self.files.reopen(engine::wall_us());
                }
                Some(Order::Files(files)) if self.stuck.is_none() => self.files = *files,
                // A chunk is half-way in the old file: that one goes on.
                Some(Order::Files(_)) => {}
                Some(Order::End) => return self.finish(),
                Some(Order::Wake) | None => {}
            }
            if (self.stuck.is_none() || Instant::now() >= again) && !self.write_all() {
                again = Instant::now() + LOG_AGAIN;
            }
        }
    }

    fn finish(mut self) {
        let since = Instant::now();
        while !self.write_all() && since.elapsed() < LOG_END_WAIT {
            std::thread::sleep(LOG_SLEEP);
        }
    }

    /// Writes what waits. False if it cannot.
    fn write_all(&mut self) -> bool {
        if let Some((source, chunk)) = self.stuck.take()
            && !self.write(source, chunk)
        {
            return false;
        }
        for source in 0..self.sources.len() {
            while let Some(chunk) = self.sources[source].next() {
                if !self.write(source, chunk) {
                    return false;
                }
            }
        }
        true
    }

    fn write(&mut self, source: usize, chunk: Chunk) -> bool {
        match self.files.write(chunk.log, &chunk.octets, engine::wall_us()) {
            Ok(()) => {
                self.sources[source].written(chunk);
                self.say(None);
                true
            }
            Err(error) => {
                self.stuck = Some((source, chunk));
                self.say(Some(&error));
                false
            }
        }
    }

    fn say(&self, error: Option<&io::Error>) {
        let failing = error.is_some();
        let errno = error.and_then(io::Error::raw_os_error).unwrap_or_default();
        self.trouble.errno.store(errno, Ordering::Relaxed);
        if self.trouble.failing.swap(failing, Ordering::Relaxed) != failing {
            self.sources.iter().for_each(|source| source.set_failing(failing));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maillog::outlet::{LineSink, Log, queue};

    #[test]
    fn what_waits_is_written_before_the_end() {
        let dir = std::env::temp_dir().join(format!("logs-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let rules = Rules { size_max: 1 << 20, age_us_max: u64::MAX, total_max: 1 << 30 };
        let files = LogFiles::open(&dir, rules, engine::wall_us()).unwrap();
        let (mut sink, source) = queue();
        let mut thread = LogThread::start(files, vec![source]).unwrap();
        for n in 0..100 {
            let octets = format!("line {n}\n").into_bytes();
            sink.push(Chunk { log: Log::Main, octets }).unwrap();
        }
        thread.wake();
        thread.end();
        let text = std::fs::read_to_string(dir.join("mainlog")).unwrap();
        assert_eq!(text.lines().count(), 100);
        assert!(text.ends_with("line 99\n"));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
