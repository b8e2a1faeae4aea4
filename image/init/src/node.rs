//! The loop of PID 1: services, readiness, trial, signals, buttons, and the end.
//!
//! *Guarantees*: the daemon ends before the network goes and state is unmounted; the watchdog is
//! fed on every turn and stays armed to the very end, so a shutdown that hangs is cut.
//! *Failure*: three failed starts of the daemon: a version under trial is left, a blessed one goes
//! to maintenance (network down, console only); a config that nobody confirmed is undone first.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::commands::{self, CONFIG};
use crate::generations::{Generations, MAIL};
use crate::health::Door;
use crate::limits::{DRAIN, END, FAILED_STARTS_MAX, TICK, TRIAL};
use crate::notify::{self, Notify};
use crate::ntp::Ntp;
use crate::power::Buttons;
use crate::prepare::{self, Place, STATE};
use crate::say::{say, warn};
use crate::service::{Service, State};
use crate::settings::{Console, Settings};
use crate::smart::Smart;
use crate::watchdog::Watchdog;
use crate::{array, bless, clock, health, launch, mail, mounts, network};

/// The debug image's shell: runs on the serial line, where it is there.
const SHELL: &str = "/bin/sh";

/// Where it is written why there is no mail.
const MAINTENANCE: &str = "/run/maintenance";

/// Tells the daemon whether its version is under trial.
const BLESSED: &str = "RINGPOST_BLESSED";

/// How the machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Start again.
    Reboot,
    /// Switch off.
    PowerOff,
}

/// A version that must show that it works.
#[derive(Debug)]
pub(crate) struct Trial {
    /// The disk of its ESP.
    pub(crate) disk: String,
    /// Its file and its blessed name.
    pub(crate) files: (PathBuf, PathBuf),
}

/// What PID 1 keeps.
#[derive(Debug)]
pub(crate) struct Node {
    version: String,
    watchdog: Watchdog,
    signals: SignalFd,
    notify: Option<Notify>,
    buttons: Buttons,
    ntp: Ntp,
    daemon: Option<Service>,
    console: Option<Service>,
    settings: Settings,
    /// How the health check's message is taken.
    door: Door,
    smart: Smart,
    /// Members that the array lacked when it was looked at last.
    missing: u32,
    /// The folder of the config in force.
    config: PathBuf,
    /// When that config is undone unless somebody confirms it.
    undo_at: Option<Instant>,
    trial: Option<Trial>,
    /// When it is looked at next: the line is slow, and each look says why it is not healthy.
    judge_at: Option<Instant>,
    since: Instant,
    was_ready: bool,
}

/// How the console is launched: a shell, if there is one, or the login.
fn console_words(console: &Console, has_shell: bool) -> Vec<String> {
    let kind = if console.carrier { launch::CARRIER } else { launch::LOCAL };
    let speed = console.speed.to_string();
    let mut words = vec!["console", &console.port, &speed, kind];
    let seconds = |value: Option<u32>| value.map(|value| value.to_string());
    let (idle, delay) = (seconds(console.idle_s), seconds(console.delay_s));
    if has_shell {
        words.push(SHELL);
    } else {
        words.extend(["/bin/ringpost", "console", "--line", &console.port]);
        words.extend(console.carrier.then_some("--carrier"));
        words.extend(idle.iter().flat_map(|value| ["--idle-s", value]));
        words.extend(delay.iter().flat_map(|value| ["--delay-s", value]));
    }
    words.into_iter().map(str::to_owned).collect()
}

impl Node {
    /// Takes the signals.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn new(watchdog: Watchdog, version: String) -> Result<Self, String> {
        let wanted = SigSet::from_iter([
            Signal::SIGCHLD,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGPWR,
            Signal::SIGUSR2,
            Signal::SIGHUP,
        ]);
        let fail = |error: Errno| format!("signals: {error}");
        wanted.thread_block().map_err(fail)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&wanted, flags).map_err(fail)?;
        // Ctrl-Alt-Del comes to us as SIGINT.
        let _ = nix::sys::reboot::set_cad_enabled(false);
        Ok(Self {
            version,
            config: PathBuf::new(),
            door: Door::default(),
            smart: Smart::new(),
            missing: 0,
            undo_at: None,
            watchdog,
            signals,
            notify: None,
            buttons: Buttons::open(),
            ntp: Ntp::new(Vec::new()),
            daemon: None,
            console: None,
            settings: Settings::default(),
            trial: None,
            judge_at: None,
            since: Instant::now(),
            was_ready: false,
        })
    }

    /// For steps before the loop that take long.
    pub(crate) fn watchdog(&mut self) -> &mut Watchdog {
        &mut self.watchdog
    }

    /// The version shows from now on that it works.
    pub(crate) fn on_trial(&mut self, trial: Trial) {
        say(&format_args!("this version is under trial: {}", trial.files.0.display()));
        self.trial = Some(trial);
    }

    /// What the machine's settings are, also if it never comes to serve: the console's line is
    /// among them.
    pub(crate) fn know(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Serves mail.
    pub(crate) fn serve(&mut self, place: Place) {
        self.notify = Notify::open().map_err(|e| warn(&format_args!("{}: {e}", notify::PATH))).ok();
        self.settings = place.settings;
        self.config = place.config;
        self.ntp = Ntp::new(self.settings.ntp.clone());
        self.start_daemon();
        self.open_console();
    }

    fn start_daemon(&mut self) {
        let words = ["daemon", "/bin/ringpostd", "--config", MAIL, "--supervise"];
        self.door = Door::new();
        let daemon = Service::new("ringpostd", &words, self.config.clone());
        let daemon = daemon.with(health::VARIABLE, self.door.word());
        let daemon = daemon.with("NOTIFY_SOCKET", notify::PATH);
        // Without a trial there is no way back to a version that cannot read what this one writes.
        let daemon = daemon.with(BLESSED, if self.trial.is_none() { "1" } else { "0" });
        self.daemon = Some(daemon);
        self.was_ready = false;
    }

    /// No mail: the console, and what an operator can do there.
    pub(crate) fn maintain(&mut self, why: &str) {
        warn(&format_args!("MAINTENANCE: {why}"));
        if let Some(daemon) = self.daemon.take() {
            self.stop(daemon, DRAIN);
        }
        self.ntp = Ntp::new(Vec::new());
        network::down(&self.settings);
        prepare::close_spool();
        // For the console, which says it to whoever asks for the daemon.
        if let Err(error) = std::fs::write(MAINTENANCE, format!("{why}\n")) {
            warn(&format_args!("{MAINTENANCE}: {error}"));
        }
        self.open_console();
    }

    /// The console program of this image, if it has one, on its serial line.
    fn open_console(&mut self) {
        if self.console.is_some() {
            return;
        }
        let words = console_words(&self.settings.console, Path::new(SHELL).exists());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let console = Service::new("console", &words, PathBuf::from("/")).for_people();
        self.console = Some(console.with("TERM", "vt100").with("PATH", "/bin"));
    }

    /// Turns until somebody ends the machine.
    pub(crate) fn run(&mut self) -> End {
        loop {
            self.watchdog.feed();
            let now = Instant::now();
            for service in [&mut self.daemon, &mut self.console].into_iter().flatten() {
                service.turn(now);
            }
            self.ntp.turn(now);
            self.smart.turn(now);
            self.look_at_array();
            self.wait(TICK);
            if let Some(end) = self.asked_to_end() {
                return end;
            }
            self.reap();
            if self.undo_at.is_some_and(|at| Instant::now() >= at) {
                self.undo_at = None;
                self.undo_config("nobody confirmed it");
            }
            if let Some(end) = self.look_after_daemon() {
                return end;
            }
        }
    }

    fn look_at_array(&mut self) {
        let missing = array::missing().unwrap_or_default();
        if missing > self.missing {
            warn(&format_args!("ARRAY {}: {missing} member(s) missing", array::DEVICE));
        } else if missing < self.missing {
            say(&format_args!("array {}: {missing} member(s) missing", array::DEVICE));
        }
        self.missing = missing;
    }

    /// The config in force is another one, or was confirmed: what it says is done.
    fn take_config(&mut self) -> Result<(), String> {
        let generations =
            Generations::open(CONFIG.into()).map_err(|error| format!("{CONFIG}: {error}"))?;
        let minutes = generations.unconfirmed().map(|(_, minutes)| minutes);
        self.undo_at = minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
        let place = prepare::in_force(&generations)?;
        if place.config == self.config {
            say(&"config: stays in force");
            return Ok(());
        }
        if let Some(daemon) = self.daemon.take() {
            self.stop(daemon, DRAIN);
        }
        if place.settings != self.settings {
            network::undo(&self.settings);
            network::up(&place.settings);
            self.ntp = Ntp::new(place.settings.ntp.clone());
        }
        self.settings = place.settings;
        self.config = place.config;
        say(&format_args!("config: {} is in force", self.config.display()));
        self.start_daemon();
        Ok(())
    }

    /// Undoes what nobody confirmed in time, or what the daemon cannot start with.
    fn undo_config(&mut self, why: &str) -> bool {
        let undone = Generations::open(CONFIG.into())
            .map_err(|error| error.to_string())
            .and_then(|generations| generations.undo());
        match undone {
            Ok(Some(number)) => {
                warn(&format_args!("config: {why}: generation {number} is back"));
                if let Err(why) = self.take_config() {
                    warn(&why);
                }
                true
            }
            Ok(None) => false,
            Err(why) => {
                warn(&why);
                false
            }
        }
    }

    /// Until something happens, or a service is due.
    fn wait(&self, most: Duration) {
        let mut wait = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(notify) = &self.notify {
            wait.push(PollFd::new(notify.as_fd(), PollFlags::POLLIN));
        }
        wait.extend(self.buttons.descriptors().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let (socket, asks) = self.ntp.waits();
        wait.extend(socket.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let services = [&self.daemon, &self.console];
        let due = services.into_iter().flatten().filter_map(|s| match s.course.state() {
            State::Waiting { until } => Some(until.saturating_duration_since(Instant::now())),
            _ => None,
        });
        let asks = asks.map(|at| at.saturating_duration_since(Instant::now()));
        let time =
            due.chain(asks).min().map_or(most, |due| due.min(most)) + Duration::from_millis(1);
        let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut wait, time);
    }

    fn asked_to_end(&mut self) -> Option<End> {
        let mut end = self.buttons.pressed().then_some(End::PowerOff);
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
            match Signal::try_from(number) {
                Ok(Signal::SIGTERM | Signal::SIGINT) => end = Some(End::Reboot),
                Ok(Signal::SIGUSR2 | Signal::SIGPWR) => end = Some(End::PowerOff),
                Ok(Signal::SIGHUP) if self.daemon.is_some() => {
                    if let Err(why) = self.take_config() {
                        warn(&why);
                    }
                }
                _ => {}
            }
        }
        end
    }

    /// Takes note of every process that ended, also of those whose parents ended before.
    fn reap(&mut self) {
        loop {
            let (pid, how) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exit code {code}")),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, signal.to_string()),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            let now = Instant::now();
            for service in [&mut self.daemon, &mut self.console].into_iter().flatten() {
                service.reaped(pid, &how, now);
            }
        }
    }

    fn look_after_daemon(&mut self) -> Option<End> {
        let heard = self.notify.as_ref().map(Notify::heard).unwrap_or_default();
        if let Some(words) = &heard.question {
            take_up(words);
        }
        if let Some(daemon) = &mut self.daemon {
            if heard.is_ready {
                daemon.course.ready(Instant::now());
            }
            if daemon.course.is_late(Instant::now()) {
                warn(&"ringpostd does not become ready: killed");
                daemon.signal(Signal::SIGKILL);
            }
            if daemon.course.failed_starts() >= FAILED_STARTS_MAX {
                if self.undo_config("ringpostd does not start with it") {
                    return None;
                }
                if self.trial.is_none() {
                    self.maintain("ringpostd failed three times to start");
                    return None;
                }
            }
        }
        if let Some(daemon) = &self.daemon {
            let ready = matches!(daemon.course.state(), State::Ready { .. });
            if ready && !self.was_ready {
                say(&format_args!("taking mail; {}", clock::memory()));
            }
            self.was_ready = ready;
        }
        self.judge()
    }

    /// Blesses a version that works, leaves one that does not.
    fn judge(&mut self) -> Option<End> {
        let trial = self.trial.as_ref()?;
        if self.judge_at.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        self.judge_at = Some(Instant::now() + TICK);
        let failed = self.daemon.as_ref().map(|d| d.course.failed_starts());
        let state = self.daemon.as_ref().map(|d| d.course.state());
        if matches!(state, Some(State::Ready { .. })) {
            let socket = mail::socket(&self.config);
            let (address, watchdog) = (self.settings.health, &mut self.watchdog);
            match health::check(address, &self.door, socket.as_deref(), watchdog) {
                Ok(()) => {
                    match bless::bless(&trial.disk, &self.version, &trial.files) {
                        Ok(()) => say(&format_args!("blessed: {}", trial.files.1.display())),
                        Err(why) => warn(&format_args!("cannot bless: {why}")),
                    }
                    self.trial = None;
                    return None;
                }
                Err(why) => warn(&format_args!("not healthy: {why}")),
            }
        }
        let hopeless = failed.is_none_or(|failed| failed >= FAILED_STARTS_MAX);
        if hopeless || self.since.elapsed() > TRIAL {
            warn(&"this version does not work here: leaving it");
            return Some(End::Reboot);
        }
        None
    }

    /// Ends a service: SIGTERM, then after `patience` SIGKILL.
    fn stop(&mut self, mut service: Service, patience: Duration) {
        let until = Instant::now() + patience;
        let mut killed = false;
        service.signal(Signal::SIGTERM);
        while service.is_running() {
            self.watchdog.feed();
            let ended = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => Some((pid, format!("exit code {code}"))),
                Ok(WaitStatus::Signaled(pid, signal, _)) => Some((pid, signal.to_string())),
                Err(Errno::ECHILD) => return,
                _ => None,
            };
            match ended {
                // The other one may end meanwhile: who forgot that would wait for it for ever.
                Some((pid, how)) if !service.reaped(pid, &how, Instant::now()) => {
                    for other in [&mut self.daemon, &mut self.console].into_iter().flatten() {
                        other.reaped(pid, &how, Instant::now());
                    }
                }
                Some(_) => {}
                None => std::thread::sleep(Duration::from_millis(10)),
            }
            if !killed && Instant::now() > until {
                service.signal(Signal::SIGKILL);
                killed = true;
            }
            // Killed, and still there: the kernel does not let it go. The end goes on without it.
            if killed && Instant::now() > until + END {
                return warn(&"a program does not end when it is killed: going on without it");
            }
        }
    }

    /// The ordered end: mail first, then everybody else, then the disks.
    pub(crate) fn end(mut self, end: End) {
        say(&format_args!("{end:?}: draining"));
        if let Some(daemon) = self.daemon.take() {
            self.stop(daemon, DRAIN);
        }
        if let Some(console) = self.console.take() {
            self.stop(console, END);
        }
        network::down(&self.settings);
        let all = Pid::from_raw(-1);
        let _ = kill(all, Signal::SIGKILL);
        nix::unistd::sync();
        array::end();
        if let Err(why) = mounts::detach(STATE) {
            warn(&why);
        }
        nix::unistd::sync();
        say(&format_args!("{end:?}: now"));
        self.watchdog.feed();
        let mode = match end {
            End::Reboot => RebootMode::RB_AUTOBOOT,
            End::PowerOff => RebootMode::RB_POWER_OFF,
        };
        let Err(error) = reboot(mode);
        warn(&format_args!("{end:?}: {error}"));
    }
}

/// Starts the process that does what the daemon asks and answers it; it is reaped like any other.
fn take_up(words: &[String]) {
    let spawned = Command::new("/init").arg(commands::ANSWER).args(words).spawn();
    if let Err(error) = spawned {
        warn(&format_args!("what the daemon asks: {error}"));
    }
}
