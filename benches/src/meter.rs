//! One burst of load against one server, and what it cost.
//!
//! *Guarantees*: CPU time, writes and flushes are counted from just before the first connection to
//! the end of the last one, or until what was accepted has been handed on.
//!
//! *Limits*: what kernel threads do for a server (journal, completion of direct writes) shows in
//! `journal_us_per_message` and in the busy share of the CPU only.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::launch::Running;
use crate::limits::{LOOK_AGAIN_MS, SAMPLE_EVERY_MS};
use crate::proc;
use crate::source::report::Summary;

/// One burst of load against one server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Burst {
    /// The server's name.
    pub server: String,
    /// The load's name.
    pub load: String,
    /// Round, from 0.
    pub round: usize,
    /// CPU microseconds of all processes of the server per acknowledged message.
    pub cpu_us_per_message: f64,
    /// The part of them spent in the kernel; `None` where the system does not tell them apart.
    #[serde(default)]
    pub kernel_us_per_message: Option<f64>,
    /// CPU microseconds of the file system's journal thread per message; not in the above.
    #[serde(default)]
    pub journal_us_per_message: Option<f64>,
    /// The server's CPU time over the time of the burst.
    pub server_busy: f64,
    /// Busy share of the server's and the source's CPU, whoever kept them busy.
    pub cpus_busy: [f64; 2],
    /// Octets the server's processes sent towards a device, over octets of the messages.
    pub written_per_octet: f64,
    /// Of the device as a whole: flushes and writes per message; octets written over octets.
    pub device: Option<[f64; 3]>,
    /// Most anonymous memory of all processes together seen during the burst, octets.
    #[serde(default)]
    pub anonymous: u64,
    /// Most processes seen during the burst.
    #[serde(default)]
    pub processes: usize,
    /// Messages a second that reached the next hop, where there is one.
    #[serde(default)]
    pub relayed_per_s: Option<f64>,
    /// Messages acknowledged and not at the next hop when waiting ended.
    #[serde(default)]
    pub undelivered: u64,
    /// What the source saw.
    pub source: Summary,
}

/// How bursts are made and measured.
#[derive(Debug)]
pub struct Meter {
    /// Run server and source under SCHED_FIFO, so that other work on the machine does not count.
    pub fifo: bool,
    /// CPUs of server and source.
    pub cpus: [usize; 2],
    /// Block device whose flushes and writes are counted (whoever makes them).
    pub device: Option<String>,
    /// A line on stderr that is written over while a burst runs.
    pub progress: bool,
    stop: OwnedFd,
    journal: Option<i32>,
}

/// What happens beside the source while a burst runs, and after it.
pub trait Beside {
    /// Messages that reached the next hop since the burst began; `None` without one.
    fn delivered(&mut self) -> Option<u64>;
}

/// No next hop.
#[derive(Debug)]
pub struct Alone;

impl Beside for Alone {
    fn delivered(&mut self) -> Option<u64> {
        None
    }
}

struct Reading {
    usage: proc::Usage,
    disk: Option<proc::Disk>,
    cpus: [proc::CpuTicks; 2],
    journal: Option<Duration>,
}

impl Meter {
    /// `stop` becomes readable when everything is to end early.
    pub fn new(fifo: bool, cpus: [usize; 2], device: Option<String>, stop: OwnedFd) -> Self {
        let journal = device.as_deref().and_then(proc::journal_of);
        Self { fifo, cpus, device, progress: false, stop, journal }
    }

    /// Whether everything is to end early.
    pub fn stopped(&self) -> bool {
        let mut watched = [PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)];
        poll(&mut watched, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// A command under the scheduling asked for, in a process group of its own: a Ctrl-C is ours.
    pub fn command(&self, program: &str) -> Command {
        let mut command = if self.fifo {
            let mut command = Command::new("chrt");
            command.args(["-f", "2", program]);
            command
        } else {
            Command::new(program)
        };
        command.process_group(0);
        command
    }

    /// A source for a server.
    pub fn source(&self, running: &Running) -> io::Result<Command> {
        let mut command = self.command(&own_path()?);
        command.args(["source", "--json", "--tolerant"]);
        command.args(["--target", &running.address().to_string()]);
        command.args(["--pin", &self.cpus[1].to_string()]);
        Ok(command)
    }

    fn reading(&self, running: &Running) -> io::Result<Reading> {
        Ok(Reading {
            usage: running.usage()?,
            disk: self.device.as_deref().map(proc::disk).transpose()?,
            cpus: [proc::cpu(self.cpus[0])?, proc::cpu(self.cpus[1])?],
            journal: self.journal.and_then(proc::thread_cpu),
        })
    }

    /// Runs a source with these arguments to its end, then waits up to `settle` until everything
    /// acknowledged has reached the next hop. Names and round are left to the caller.
    pub fn burst(
        &self,
        running: &Running,
        arguments: &[String],
        beside: &mut dyn Beside,
        settle: Duration,
    ) -> io::Result<Burst> {
        let before = self.reading(running)?;
        let started = Instant::now();
        let mut most = (0, 0);
        let mut source = self.source(running)?;
        let child = source.args(arguments).stdout(Stdio::piped()).spawn()?;
        let summary = self.attend(child, || {
            let usage = running.usage().unwrap_or_default();
            most = (most.0.max(usage.anonymous), most.1.max(usage.processes));
        })?;
        let wait_until = Instant::now() + settle;
        let mut delivered = beside.delivered();
        while delivered.is_some_and(|count| count < summary.acked)
            && Instant::now() < wait_until
            && !self.stopped()
        {
            std::thread::sleep(Duration::from_millis(LOOK_AGAIN_MS));
            delivered = beside.delivered();
        }
        let elapsed = started.elapsed().as_secs_f64();
        let after = self.reading(running)?;
        most = (most.0.max(after.usage.anonymous), most.1.max(after.usage.processes));
        let mut burst = cost(&before, &after, summary);
        (burst.anonymous, burst.processes) = most;
        if let Some(count) = delivered {
            burst.relayed_per_s = Some(count as f64 / elapsed);
            burst.undelivered = burst.source.acked.saturating_sub(count);
            burst.server_busy = (after.usage.cpu - before.usage.cpu).as_secs_f64() / elapsed;
        }
        Ok(burst)
    }

    /// Waits for a source, looking now and then at the server; told to stop, tells the source.
    fn attend(&self, mut child: Child, mut look: impl FnMut()) -> io::Result<Summary> {
        let output = child.stdout.take().ok_or_else(|| io::Error::other("source: no output"))?;
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            let mut output = output;
            output.read_to_string(&mut text).map(|_| text)
        });
        let started = Instant::now();
        let every = Duration::from_millis(SAMPLE_EVERY_MS);
        let (mut told, mut next_look) = (false, started + every);
        while child.try_wait()?.is_none() {
            if !told && self.stopped() {
                told = true;
                let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
                kill(Pid::from_raw(pid), Signal::SIGTERM)?;
            }
            if Instant::now() >= next_look {
                next_look += every;
                look();
                if self.progress {
                    eprint!("\r  {:>5.1} s ", started.elapsed().as_secs_f64());
                    let _ = io::stderr().flush();
                }
            }
            std::thread::sleep(Duration::from_millis(LOOK_AGAIN_MS));
        }
        if self.progress {
            eprint!("\r");
        }
        let text = reader.join().map_err(|_| io::Error::other("source: reader"))??;
        serde_json::from_str(text.trim())
            .map_err(|error| io::Error::other(format!("source: {error}: {text}")))
    }
}

fn cost(before: &Reading, after: &Reading, summary: Summary) -> Burst {
    let messages = summary.acked.max(1) as f64;
    let octets = summary.octets.max(1) as f64;
    let us = |part: Duration| part.as_secs_f64() * 1e6 / messages;
    let cpu = after.usage.cpu.saturating_sub(before.usage.cpu);
    let part = |after: u64, before: u64| after.saturating_sub(before) as f64;
    let pair = |a: Option<Duration>, b: Option<Duration>| Some(us(a?.saturating_sub(b?)));
    Burst {
        server: String::new(),
        load: String::new(),
        round: 0,
        cpu_us_per_message: us(cpu),
        kernel_us_per_message: pair(after.usage.kernel, before.usage.kernel),
        journal_us_per_message: pair(after.journal, before.journal),
        server_busy: cpu.as_secs_f64() / summary.elapsed_s.max(1e-9),
        cpus_busy: [0, 1].map(|at| after.cpus[at].busy_since(before.cpus[at])),
        written_per_octet: part(after.usage.written, before.usage.written) / octets,
        device: after.disk.zip(before.disk).map(|(after, before)| {
            [
                part(after.flushes, before.flushes) / messages,
                part(after.writes, before.writes) / messages,
                part(after.written, before.written) / octets,
            ]
        }),
        anonymous: 0,
        processes: 0,
        relayed_per_s: None,
        undelivered: 0,
        source: summary,
    }
}

/// Where this program lies.
pub fn own_path() -> io::Result<String> {
    let path = std::env::current_exe()?;
    path.into_os_string().into_string().map_err(|_| io::Error::other("own path is not UTF-8"))
}
