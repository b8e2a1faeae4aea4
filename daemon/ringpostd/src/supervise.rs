//! The parent that keeps the daemon running: it holds the listening sockets, so a restart refuses
//! no connection; they wait in the sockets' queues until the next child accepts.
//!
//! *Guarantees*: a child that fell is started again within a second; one that falls again and
//! again less often, but always again. It has no mail code running and reads no network octet.
//! *Limits*: waits between restarts grow from 100 ms to 30 s.
//! *Failure*: each restart is one line on standard error. A first child that refuses its config
//! ends the parent with the same exit code.
//!
//! SIGTERM, SIGINT: the child drains, then the parent ends. SIGHUP: passed on. SIGUSR2: the config
//! is checked, by the program as it lies on disk now; then the child drains, and the next one
//! starts: this is how a new version or a changed `[node]` comes into force.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use engine::host;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::boot::{self, BootError, exit};
use crate::config::Config;
use crate::house::Notify;

/// Tells a child that its standard input leads to the gate.
pub const GATE: &str = "RINGPOSTD_GATE";

/// Tells a child whose it is.
pub const PARENT: &str = "RINGPOSTD_SUPERVISOR";

const WAIT_FIRST: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// A child that ran for so long was fine: the next wait is the first again.
const FINE: Duration = Duration::from_secs(60);
const _: () = assert!(WAIT_FIRST.as_millis() < 1000, "a restart within a second");

/// Runs children until one ends as it was asked to, or a signal ends them.
///
/// # Errors
/// The config, or an address, at the first start; then it never gives up.
pub fn run(config_file: &Path) -> Result<(), BootError> {
    let program = std::env::current_exe()
        .map_err(|error| BootError::os(format!("the program's own path: {error}"), ""))?;
    let signals = signals().map_err(|error| BootError::os(format!("signals: {error}"), ""))?;
    let _ = host::raise_file_limit();
    let sockets = sockets(config_file, host::inherited_sockets())?;
    if !host::try_migrate_requests() {
        say(&"net.ipv4.tcp_migrate_req is not set and cannot be: connections are kept by the \
              sockets this process holds");
    }
    let mut supervisor = Supervisor {
        program,
        config_file: config_file.to_owned(),
        sockets,
        gate: None,
        child: None,
        waits: Waits::default(),
        restarts: 0,
        goal: Goal::Run,
    };
    supervisor.start();
    loop {
        let wait = supervisor.next_start_in();
        if let Some(signal) = next_signal(&signals, wait) {
            supervisor.heed(signal);
        }
        if let Some(end) = supervisor.look() {
            return end;
        }
    }
}

fn say(line: &dyn fmt::Display) {
    eprintln!("ringpostd: supervisor: {line}");
}

fn signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR2, Signal::SIGCHLD]
    {
        set.add(signal);
    }
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// The next signal, or none in time.
fn next_signal(signals: &SignalFd, wait: Option<Duration>) -> Option<Signal> {
    let timeout = wait.map_or(PollTimeout::NONE, |wait| {
        let ms = u16::try_from(wait.as_millis().saturating_add(1)).unwrap_or(u16::MAX);
        PollTimeout::from(ms)
    });
    let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    // An interrupted wait is looked at like one that ended.
    let _ = poll(&mut fds, timeout);
    let info = signals.read_signal().ok().flatten()?;
    i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())
}

/// Sockets for every listener and core of the config, those of `held` used again.
fn sockets(config_file: &Path, held: Vec<OwnedFd>) -> Result<Vec<OwnedFd>, BootError> {
    let config = Config::load(config_file)
        .map_err(|problems| BootError::config(problems, "nothing was started"))?
        .config;
    let cores = boot::cpus(&config)?.len();
    let sockets = boot::of_cores(&config, cores, held)?;
    Ok(sockets.into_iter().flatten().map(|socket| socket.fd).collect())
}

/// What the parent is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// A child runs, whatever happens.
    Run,
    /// The child ends, another one follows.
    Replace,
    /// The child ends, and that is all.
    End,
}

/// The waits between restarts.
#[derive(Debug, Default)]
struct Waits {
    last: Option<Duration>,
}

impl Waits {
    /// How long to wait after a child that ran for `ran`.
    fn next(&mut self, ran: Duration) -> Duration {
        let wait = match self.last {
            Some(last) if ran < FINE => (last * 2).min(WAIT_MAX),
            _ => WAIT_FIRST,
        };
        self.last = Some(wait);
        wait
    }
}

#[derive(Debug)]
struct Running {
    child: Child,
    since: Instant,
}

#[derive(Debug)]
struct Supervisor {
    program: PathBuf,
    config_file: PathBuf,
    sockets: Vec<OwnedFd>,
    /// The filter's keeper; each daemon has its own.
    gate: Option<Child>,
    /// The child, or when to start the next one.
    child: Option<Result<Running, Instant>>,
    waits: Waits,
    restarts: u64,
    goal: Goal,
}

impl Supervisor {
    fn start(&mut self) {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config_file).stdin(Stdio::null()).env_remove(GATE);
        if let Some(socket) = self.start_gate() {
            command.stdin(Stdio::from(socket)).env(GATE, "stdin");
        }
        command.env(PARENT, std::process::id().to_string()).env_remove("WATCHDOG_PID");
        let since = Instant::now();
        self.child = Some(match host::spawn_with_sockets(&mut command, &self.sockets) {
            Ok(child) => Ok(Running { child, since }),
            Err(error) => {
                let wait = self.waits.next(Duration::ZERO);
                say(&format!(
                    "cannot start {}: {error}; again in {wait:?}",
                    self.program.display()
                ));
                Err(since + wait)
            }
        });
    }

    /// Starts a gate, if the config has interfaces for it; the daemon's end of its socket.
    fn start_gate(&mut self) -> Option<OwnedFd> {
        self.reap_gate();
        let config = Config::load(&self.config_file).ok()?.config;
        let xdp = config.xdp;
        if xdp.interfaces.is_empty() {
            return None;
        }
        let (near, far) = gate::pair().ok()?;
        let mut command = Command::new(&self.program);
        command.arg("gate").stdin(Stdio::from(far)).stdout(Stdio::null()).env_remove(GATE);
        command.args(["--cage", config.node.sandbox.as_str()]);
        if let Some(pins) = &xdp.pins {
            command.arg("--pins").arg(pins);
        }
        match command.spawn() {
            Ok(gate) => self.gate = Some(gate),
            Err(error) => say(&format!("cannot start the gate: {error}: no XDP filter")),
        }
        // Without a gate the daemon finds this end closed, and says so.
        Some(near)
    }

    /// The gate ends with the daemon it belongs to.
    fn reap_gate(&mut self) {
        if let Some(mut gate) = self.gate.take() {
            let _ = gate.wait();
        }
    }

    fn next_start_in(&self) -> Option<Duration> {
        match &self.child {
            Some(Err(at)) => Some(at.saturating_duration_since(Instant::now())),
            _ => None,
        }
    }

    fn heed(&mut self, signal: Signal) {
        match signal {
            Signal::SIGTERM | Signal::SIGINT => {
                self.goal = Goal::End;
                Notify::from_environment().stopping();
                self.pass(Signal::SIGTERM);
            }
            Signal::SIGHUP => self.pass(Signal::SIGHUP),
            Signal::SIGUSR2 if self.goal == Goal::Run => self.replace(),
            _ => {}
        }
    }

    fn pass(&self, signal: Signal) {
        if let Some(Ok(running)) = &self.child
            && let Ok(pid) = i32::try_from(running.child.id())
        {
            // It has ended: SIGCHLD comes.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Another child, if it will accept its config.
    fn replace(&mut self) {
        let mut check = Command::new(&self.program);
        let checked = check.arg("--check").arg(&self.config_file).stdout(Stdio::null()).status();
        if !checked.as_ref().is_ok_and(ExitStatus::success) {
            return say(&"the config was refused: the running daemon goes on with the old one");
        }
        let held = self.sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>();
        let held = held.map_err(|error| BootError::os(error, ""));
        match held.and_then(|held| sockets(&self.config_file, held)) {
            Ok(sockets) => self.sockets = sockets,
            Err(error) => return say(&format!("{error}: the running daemon goes on")),
        }
        say(&"the running daemon drains, then the next one starts");
        self.goal = Goal::Replace;
        self.pass(Signal::SIGTERM);
    }

    /// What has become of the child. Some: the parent ends.
    fn look(&mut self) -> Option<Result<(), BootError>> {
        match self.child.take()? {
            Err(_) if self.goal == Goal::End => Some(Ok(())),
            Err(at) if at > Instant::now() => {
                self.child = Some(Err(at));
                None
            }
            Err(_) => {
                self.start();
                None
            }
            Ok(mut running) => match running.child.try_wait() {
                Ok(Some(status)) => self.ended(status, running.since.elapsed()),
                _ => {
                    self.child = Some(Ok(running));
                    None
                }
            },
        }
    }

    fn ended(&mut self, status: ExitStatus, ran: Duration) -> Option<Result<(), BootError>> {
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        match self.goal {
            Goal::End => return Some(result(status, code)),
            Goal::Replace => {
                say(&format!("the daemon has ended ({status}); starting the next one"));
                self.goal = Goal::Run;
                self.start();
                return None;
            }
            Goal::Run => {}
        }
        if status.success() {
            say(&"the daemon was drained and has ended");
            return Some(Ok(()));
        }
        let refused = matches!(code, Some(exit::CONFIG | exit::USAGE));
        if refused && self.restarts == 0 {
            return Some(result(status, code));
        }
        let wait = self.waits.next(ran);
        self.restarts += 1;
        let (count, ran) = (self.restarts, ran.as_secs());
        say(&format!(
            "the daemon ended after {ran} s ({status}); starting it again in {wait:?}, restart \
             {count}"
        ));
        self.child = Some(Err(Instant::now() + wait));
        None
    }
}

fn result(status: ExitStatus, code: Option<u8>) -> Result<(), BootError> {
    if status.success() {
        return Ok(());
    }
    let code = code.unwrap_or(exit::SOFTWARE);
    Err(BootError { code, what: format!("the daemon ended: {status}"), advice: String::new() })
}

/// For a child: ends with its parent, whose sockets it serves.
pub fn follow_parent() {
    let Some(parent) = std::env::var(PARENT).ok().and_then(|pid| pid.parse::<i32>().ok()) else {
        return;
    };
    // Without it an orphan would serve on; a new parent would find the addresses in use.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGTERM);
    if nix::unistd::getppid().as_raw() != parent {
        let _ = kill(Pid::this(), Signal::SIGTERM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_for_a_crash_loop_and_begin_again_after_a_fine_run() {
        let mut waits = Waits::default();
        let short = Duration::from_secs(1);
        let grown: Vec<u128> = (0..12).map(|_| waits.next(short).as_millis()).collect();
        assert_eq!(grown[..4], [100, 200, 400, 800]);
        assert_eq!(grown[9..], [30_000; 3]);
        assert_eq!(waits.next(FINE), WAIT_FIRST);
        assert_eq!(waits.next(short), WAIT_FIRST * 2);
    }

    fn supervisor(script: &str) -> Supervisor {
        Supervisor {
            program: "/bin/sh".into(),
            config_file: script.into(),
            sockets: Vec::new(),
            gate: None,
            child: None,
            waits: Waits::default(),
            restarts: 0,
            goal: Goal::Run,
        }
    }

    fn status(script: &str) -> ExitStatus {
        Command::new("/bin/sh").args(["-c", script]).status().unwrap()
    }

    #[test]
    fn what_an_end_means_depends_on_what_was_asked() {
        let ran = Duration::from_secs(1);
        let mut parent = supervisor("x");
        let refused = parent.ended(status("exit 78"), ran).unwrap().unwrap_err();
        assert_eq!(refused.code, exit::CONFIG);
        assert!(parent.ended(status("kill -9 $$"), ran).is_none(), "it is started again");
        assert!(parent.next_start_in().unwrap() < Duration::from_secs(1));
        assert!(parent.ended(status("exit 78"), ran).is_none(), "never giving up");
        assert!(parent.ended(status("exit 0"), ran).unwrap().is_ok());
        parent.goal = Goal::End;
        assert_eq!(parent.ended(status("exit 70"), ran).unwrap().unwrap_err().code, 70);
    }
}
