//! One supervised program: started, watched, started again with growing waits.
//!
//! The decisions are a machine over time ([`Course`]); what runs is beside it ([`Service`]).
//!
//! *Limits*: waits grow from `RESTART_FIRST` to `RESTART_MAX`.
//! *Failure*: each end is one line with how it ended.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::launch;
use crate::limits::{READY, RESTART_FINE, RESTART_FIRST, RESTART_MAX, VISIT_FINE};
use crate::say::{say, warn};

/// What a service is doing, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not running; to be started at this time.
    Waiting { until: Instant },
    /// Running; it has not said that it is ready.
    Starting { since: Instant },
    /// Running and ready.
    Ready { since: Instant },
}

/// When a service is started, and how often it failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    state: State,
    wait: Duration,
    /// Whoever ran for so long was fine.
    fine: Duration,
    failed_starts: u32,
}

impl Course {
    /// To be started now.
    pub(crate) fn new(now: Instant, fine: Duration) -> Self {
        Self { state: State::Waiting { until: now }, wait: RESTART_FIRST, fine, failed_starts: 0 }
    }

    /// What it is doing.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Starts in a row that never came to be ready.
    pub(crate) fn failed_starts(&self) -> u32 {
        self.failed_starts
    }

    /// Whether it is time to start it.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Waiting { until } if now >= until)
    }

    /// It was started.
    pub(crate) fn started(&mut self, now: Instant) {
        self.state = State::Starting { since: now };
    }

    /// It said that it is ready.
    pub(crate) fn ready(&mut self, now: Instant) {
        if matches!(self.state, State::Starting { .. }) {
            self.state = State::Ready { since: now };
            self.failed_starts = 0;
        }
    }

    /// Whether it takes longer to be ready than it may.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        matches!(self.state, State::Starting { since } if now - since > READY)
    }

    /// It ended, or could not be started.
    pub(crate) fn ended(&mut self, now: Instant) {
        let (State::Ready { since } | State::Starting { since } | State::Waiting { until: since }) =
            self.state;
        if now.saturating_duration_since(since) >= self.fine {
            self.wait = RESTART_FIRST;
        }
        if !matches!(self.state, State::Ready { .. }) {
            self.failed_starts = self.failed_starts.saturating_add(1);
        }
        self.state = State::Waiting { until: now + self.wait };
        self.wait = (self.wait * 2).min(RESTART_MAX);
    }
}

/// A supervised program.
#[derive(Debug)]
pub(crate) struct Service {
    name: &'static str,
    words: Vec<OsString>,
    folder: PathBuf,
    variables: Vec<(&'static str, String)>,
    /// When it is started.
    pub(crate) course: Course,
    pid: Option<Pid>,
}

impl Service {
    /// A service that is due now; `words` are those of `launch`.
    pub(crate) fn new(name: &'static str, words: &[&str], folder: PathBuf) -> Self {
        Self {
            name,
            words: words.iter().map(OsString::from).collect(),
            folder,
            variables: Vec::new(),
            course: Course::new(Instant::now(), RESTART_FINE),
            pid: None,
        }
    }

    /// One that people come to and leave again: it waits only if it ends at once.
    pub(crate) fn for_people(mut self) -> Self {
        self.course = Course::new(Instant::now(), VISIT_FINE);
        self
    }

    /// A variable of its environment, which holds nothing else.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    /// Starts it if it is time.
    pub(crate) fn turn(&mut self, now: Instant) {
        if self.pid.is_some() || !self.course.is_due(now) {
            return;
        }
        let mut command = Command::new("/init");
        command.arg(launch::WORD).args(&self.words).current_dir(&self.folder);
        command.env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        match command.spawn() {
            Ok(child) => {
                self.pid = i32::try_from(child.id()).ok().map(Pid::from_raw);
                self.course.started(now);
            }
            Err(error) => {
                warn(&format_args!("{}: {error}", self.name));
                self.course.ended(now);
            }
        }
    }

    /// Takes note of an end, if it was this service's. `how` says how it ended.
    pub(crate) fn reaped(&mut self, pid: Pid, how: &str, now: Instant) -> bool {
        if self.pid != Some(pid) {
            return false;
        }
        self.pid = None;
        self.course.ended(now);
        say(&format_args!("{} ended: {how}", self.name));
        true
    }

    /// Whether it runs.
    pub(crate) fn is_running(&self) -> bool {
        self.pid.is_some()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            let _ = kill(pid, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_begin_again_after_a_good_run() {
        let mut now = Instant::now();
        let mut course = Course::new(now, RESTART_FINE);
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert!(course.is_due(now));
            course.started(now);
            assert!(!course.is_due(now));
            course.ended(now);
            let State::Waiting { until } = course.state() else { panic!("not waiting") };
            waits.push(until - now);
            now = until;
        }
        assert_eq!(waits[0], RESTART_FIRST);
        assert_eq!(waits[1], RESTART_FIRST * 2);
        assert_eq!(waits[11], RESTART_MAX);
        assert_eq!(course.failed_starts(), 12);
        course.started(now);
        course.ready(now);
        assert_eq!(course.failed_starts(), 0);
        now += RESTART_FINE;
        course.ended(now);
        assert_eq!(course.state(), State::Waiting { until: now + RESTART_FIRST });
    }

    #[test]
    fn who_logs_out_again_and_again_does_not_wait_longer_each_time() {
        let mut now = Instant::now();
        let mut course = Course::new(now, VISIT_FINE);
        for _ in 0..12 {
            course.started(now);
            now += VISIT_FINE;
            course.ended(now);
            assert_eq!(course.state(), State::Waiting { until: now + RESTART_FIRST });
            now += RESTART_FIRST;
        }
        // One that ends at once is not started as fast as the machine can.
        for _ in 0..12 {
            course.started(now);
            course.ended(now);
        }
        assert_eq!(course.state(), State::Waiting { until: now + RESTART_MAX });
    }

    #[test]
    fn an_end_after_readiness_is_no_failed_start() {
        let now = Instant::now();
        let mut course = Course::new(now, RESTART_FINE);
        course.started(now);
        assert!(!course.is_late(now + READY));
        assert!(course.is_late(now + READY + Duration::from_secs(1)));
        course.ready(now);
        assert!(!course.is_late(now + READY * 2));
        course.ended(now);
        assert_eq!(course.failed_starts(), 0);
        // Readiness without a running program means nothing.
        course.ready(now);
        assert!(matches!(course.state(), State::Waiting { .. }));
    }
}
