//! What ends a login from outside: nobody types, the line is hung up, the machine stops.
//!
//! *Guarantees*: the signals that end it are taken by one thread; the line's mode is as it was
//! before the login. A key counts within 8 seconds where a program reads the line itself.
//! *Failure*: the command under way is ended with it.

use std::fs;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::exit::{Exit, Trouble};
use crate::tty::{self, Mode};

/// What is told of the end: the reason, empty when who was logged in left by himself.
pub(crate) type Told = Box<dyn Fn(&str) + Send>;

struct Watched {
    last: Instant,
    child: Option<Pid>,
    /// Somebody is logged in: idle time counts, and its end is told.
    login: Option<Told>,
}

/// The watch over one line.
#[derive(Clone)]
pub(crate) struct Guard {
    watched: Arc<Mutex<Watched>>,
}

/// ctrl-C and ctrl-\ are for the command that runs, not for who started it.
pub(crate) fn ignore_keys() {
    let _ = SigSet::from_iter([Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP]).thread_block();
}

impl Guard {
    /// Begins to watch; before any other thread.
    ///
    /// # Errors
    /// No descriptor left.
    pub(crate) fn start(idle: Option<Duration>, mode: Option<Mode>) -> Result<Self, Trouble> {
        let fail = |error: nix::Error| Trouble::new(Exit::Refused, format!("signals: {error}"), "");
        let ends = SigSet::from_iter([Signal::SIGHUP, Signal::SIGTERM]);
        ends.thread_block().map_err(fail)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&ends, flags).map_err(fail)?;
        let watched = Watched { last: Instant::now(), child: None, login: None };
        let guard = Self { watched: Arc::new(Mutex::new(watched)) };
        let watch = guard.clone();
        std::thread::spawn(move || watch.run(&signals, idle, mode));
        Ok(guard)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Watched) -> T) -> T {
        act(&mut self.watched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Somebody typed.
    pub(crate) fn touch(&self) {
        self.with(|watched| watched.last = Instant::now());
    }

    /// Somebody is logged in from now on, or nobody is.
    pub(crate) fn login(&self, told: Option<Told>) {
        self.with(|watched| (watched.login, watched.last) = (told, Instant::now()));
    }

    /// The login ends by itself, which is told exactly once. Does not come back when the watch has
    /// ended it already, for its own reason.
    pub(crate) fn leave(&self, why: &str) {
        // Told under the lock: the watch ends the program as soon as nobody is logged in.
        let left = self.with(|watched| watched.login.take().map(|told| told(why)));
        while left.is_none() {
            std::thread::park();
        }
    }

    /// A command runs, or none does.
    pub(crate) fn child(&self, pid: Option<u32>) {
        let pid = pid.and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        self.with(|watched| (watched.child, watched.last) = (pid, Instant::now()));
    }

    fn run(&self, signals: &SignalFd, idle: Option<Duration>, mode: Option<Mode>) {
        let why = loop {
            let left = idle.map(|idle| idle.saturating_sub(self.quiet()));
            if left == Some(Duration::ZERO) {
                break "nobody typed";
            }
            let wait = left.map(|left| left + Duration::from_millis(1));
            let wait = wait.map_or(PollTimeout::NONE, |wait| {
                PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
            });
            let _ = poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], wait);
            match signals.read_signal().ok().flatten() {
                Some(signal) if signal.ssi_signo == Signal::SIGHUP as u32 => break "hung up",
                Some(_) => break "stopped",
                None => {}
            }
        };
        let (child, told) = self.with(|watched| (watched.child.take(), watched.login.take()));
        for signal in [Signal::SIGTERM, Signal::SIGHUP] {
            // It may have ended by itself meanwhile.
            let _ = child.map(|child| kill(child, signal));
        }
        tty::forget_output();
        drop(mode);
        if let Some(told) = told {
            told(why);
        }
        tty::print(&format!("\nLogged out: {why}.\n"));
        std::process::exit(0);
    }

    /// How long nobody has typed.
    fn quiet(&self) -> Duration {
        let (last, login) = self.with(|watched| (watched.last, watched.login.is_some()));
        if !login {
            return Duration::ZERO;
        }
        // The kernel notes when somebody reads a line, whoever it is.
        let read = fs::metadata("/proc/self/fd/0").and_then(|data| data.accessed());
        let read = read.ok().and_then(|at| at.elapsed().ok()).unwrap_or(Duration::MAX);
        last.elapsed().min(read)
    }
}
