//! A terminal that a test holds: what a program says on it, what is typed there, how fast it takes
//! what it is told. It never answers a query of its own.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd as _;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::daemon::programs::program;

const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Looks after which a wait says on standard error that it waits.
const SAY_AFTER: u32 = 1000;
/// Columns of a page.
const COLUMNS: usize = 79;

/// How the terminal takes what it is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taking {
    AtOnce,
    /// 960 octets a second: 9600 baud.
    Slowly,
    Never,
}

/// A program on a line of its own, as init starts it: leader of a session.
pub(crate) struct Line {
    master: Option<File>,
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
    /// Reads what is said; a word to it ends it.
    reader: Option<(JoinHandle<()>, Arc<AtomicBool>)>,
    /// What was waited for and found.
    at: usize,
}

impl Line {
    pub(crate) fn start(term: &str, words: &[&str], taking: Taking) -> Self {
        Self::start_as(&["setsid", "--ctty"], term, words, taking)
    }

    /// As `start`, by a program that makes the session.
    pub(crate) fn start_as(by: &[&str], term: &str, words: &[&str], taking: Taking) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name.to_str().expect("a path"))
            .expect("the other side");
        let other = || slave.try_clone().expect("a descriptor");
        // Whoever runs the tests may ignore interrupts; who sits at a terminal does not.
        let child = Command::new("env")
            .arg("--default-signal")
            .args(by)
            .arg(program("ringpost"))
            .args(words)
            .env("TERM", term)
            .stdin(other())
            .stdout(other())
            .stderr(other())
            .spawn()
            .expect("env of coreutils, setsid of util-linux");
        let master = File::from(master);
        let seen = Arc::default();
        let reader = (taking != Taking::Never).then(|| {
            let (copy, ends) = (master.try_clone().expect("a descriptor"), Arc::default());
            (take(copy, Arc::clone(&seen), taking, Arc::clone(&ends)), ends)
        });
        Self { master: Some(master), child, seen, reader, at: 0 }
    }

    /// Types octets as they are.
    pub(crate) fn keys(&mut self, keys: &str) {
        let master = self.master.as_mut().expect("not hung up");
        master.write_all(keys.as_bytes()).expect("the line takes keys");
    }

    /// Types a line.
    pub(crate) fn say(&mut self, line: &str) {
        self.keys(&format!("{line}\r"));
    }

    /// Everything that was said so far.
    pub(crate) fn all(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("a lock")).into_owned()
    }

    /// Waits for a text after what was waited for before; what stands up to its end.
    pub(crate) fn until(&mut self, text: &str) -> String {
        for round in 1_u32.. {
            let ended = matches!(self.child.try_wait(), Ok(Some(_)));
            let all = self.all();
            if let Some(found) = all.get(self.at..).and_then(|new| new.find(text)) {
                let end = self.at + found + text.len();
                let new = all[self.at..end].to_owned();
                self.at = end;
                return new;
            }
            assert!(!ended || round < 100, "it ended before {text:?}: {all}");
            if round.is_multiple_of(SAY_AFTER) {
                eprintln!("still waiting for {text:?} in {all:?}");
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        unreachable!("the loop has no end")
    }

    /// Says a line and waits for the next prompt; what was said in between.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.until("\n");
        self.until("ringpost> ")
    }

    /// The other side goes away: the kernel hangs up.
    pub(crate) fn hang_up(&mut self) {
        self.master = None;
        if let Some((reader, ends)) = self.reader.take() {
            ends.store(true, Ordering::Relaxed);
            reader.join().expect("it reads");
        }
    }

    /// Waits for the program's end; its exit code.
    pub(crate) fn end(&mut self) -> Option<i32> {
        self.child.wait().expect("a child").code()
    }

    /// Seven bits, no query, no line beyond the last column.
    pub(crate) fn assert_plain(&self) {
        let all = self.all();
        assert!(all.is_ascii(), "more than 7 bits: {all:?}");
        for query in ["\u{1b}[6n", "\u{1b}[5n", "\u{1b}[c", "\u{1b}[?2004", "\u{1b}[?2026", "\u{5}"]
        {
            assert!(!all.contains(query), "asked of the terminal: {query:?}");
        }
        for line in without_orders(&all).lines() {
            let line = line.rsplit('\r').find(|part| !part.is_empty()).unwrap_or("");
            assert!(line.len() <= COLUMNS, "{} columns: {line:?}", line.len());
        }
    }
}

/// Without orders to a vt100.
fn without_orders(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, order)) = rest.split_once("\u{1b}[") {
        out.push_str(before);
        let end = order.find(|c: char| c.is_ascii_alphabetic()).map_or(order.len(), |at| at + 1);
        rest = &order[end..];
    }
    out + rest
}

fn take(
    mut from: File,
    seen: Arc<Mutex<Vec<u8>>>,
    taking: Taking,
    ends: Arc<AtomicBool>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut room = vec![0; if taking == Taking::Slowly { 96 } else { 4096 }];
        loop {
            let mut ready = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
            let some = poll(&mut ready, 20_u16).expect("poll");
            if ends.load(Ordering::Relaxed) {
                break;
            }
            if some == 0 {
                continue;
            }
            // A line whose program has ended reads as an error.
            let Ok(count @ 1..) = from.read(&mut room) else { break };
            seen.lock().expect("a lock").extend_from_slice(&room[..count]);
            if taking == Taking::Slowly {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    })
}

impl Drop for Line {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the line had:\n{}", self.all());
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
