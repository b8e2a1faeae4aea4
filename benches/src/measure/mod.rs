//! Runs servers in turn under the same loads and says what each costs.
//!
//! Server and source are pinned to different CPUs; bursts are short and interleaved, so that a
//! machine that changes its speed changes it for all; the floor is measured in every round.
//!
//! *Failure*: a server that does not come up, or a source that cannot run, ends the measurement
//! with its reason; refused or failed messages are printed beside the figures.

pub mod report;

use std::io::{self, BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::launch::{self, Running};
use crate::limits::{FLOOR_NAME, LARGE_MESSAGE, WARM_UP_MS};
use crate::source::report::Summary;
use crate::{commit, proc, system};
use report::{Burst, Idle, Large, Report};

/// A server to measure beside the floor.
#[derive(Debug, Clone)]
pub struct Server {
    /// `discard` and `durable` are put in relation to each other.
    pub name: String,
    /// Where it listens; with port 0 it says so itself (`launch::start`).
    pub address: SocketAddr,
    /// A line for `sh -c`.
    pub command: String,
}

/// A measurement.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Beside the floor.
    pub servers: Vec<Server>,
    /// CPUs of server and source.
    pub cpus: [usize; 2],
    /// Rounds.
    pub rounds: usize,
    /// Length of one burst.
    pub burst: Duration,
    /// Sessions at the same time.
    pub sessions: u32,
    /// Octets of a message, in the words of `mxbench source --size`.
    pub sizes: Vec<String>,
    /// Messages on a connection; each with each size is a load.
    pub messages_per_connection: Vec<u64>,
    /// Further arguments of `mxbench source`.
    pub source_arguments: Vec<String>,
    /// Idle sessions; 0 leaves that part out.
    pub idle: u32,
    /// Measure memory under large messages.
    pub large: bool,
    /// After the rounds, take latencies in open loop at half of each server's rate.
    pub half_rate: bool,
    /// Run server and source under SCHED_FIFO, so that other work on the machine does not count.
    pub fifo: bool,
    /// Block device whose flushes and writes are counted (whoever makes them).
    pub device: Option<String>,
    /// Where the servers' spools are: a bare commit is measured there.
    pub spool: Option<PathBuf>,
}

struct Load {
    name: String,
    arguments: Vec<String>,
}

/// Carries out a plan; progress goes to stderr.
pub fn run(plan: &Plan) -> io::Result<Report> {
    let mut report = Report {
        servers: std::iter::once(FLOOR_NAME.to_owned())
            .chain(plan.servers.iter().map(|server| server.name.clone()))
            .collect(),
        ..Report::default()
    };
    check(plan)?;
    if let Some(folder) = &plan.spool {
        report.commit = Some(commit::measure(folder, plan.burst)?);
    }
    let loads = loads(plan);
    for round in 0..plan.rounds {
        for server in order(plan, round) {
            let running = start(plan, server)?;
            for load in &loads {
                burst(plan, &running, &warm_up(load))?;
                let mut done = burst(plan, &running, load)?;
                done.server = name(server);
                done.round = round;
                say(&done);
                report.bursts.push(done);
            }
        }
    }
    report.loads = loads.iter().map(|load| load.name.clone()).collect();
    if plan.half_rate {
        half_rate(plan, &loads, &mut report)?;
    }
    if plan.idle > 0 {
        for server in order(plan, 0) {
            report.idle.push(idle(plan, server)?);
        }
    }
    if plan.large {
        for server in order(plan, 0) {
            report.large.push(large(plan, server)?);
        }
    }
    report.settle();
    Ok(report)
}

fn check(plan: &Plan) -> io::Result<()> {
    let files = system::raise_file_limit()?;
    if u64::from(plan.idle) + 200 > files {
        let text = format!("--idle {}: only {files} open files are allowed", plan.idle);
        return Err(io::Error::other(text));
    }
    for cpu in plan.cpus {
        proc::cpu(cpu)?;
    }
    if let Some(device) = &plan.device {
        proc::disk(device)?;
    }
    for server in plan.servers.iter().filter(|server| server.address.port() != 0) {
        if TcpStream::connect_timeout(&server.address, Duration::from_secs(1)).is_ok() {
            let text = format!("{}: something listens on {} already", server.name, server.address);
            return Err(io::Error::other(text));
        }
    }
    Ok(())
}

fn name(server: Option<&Server>) -> String {
    server.map_or_else(|| FLOOR_NAME.to_owned(), |server| server.name.clone())
}

/// The floor and the servers, beginning with another one each round.
fn order(plan: &Plan, round: usize) -> Vec<Option<&Server>> {
    let mut all: Vec<Option<&Server>> =
        std::iter::once(None).chain(plan.servers.iter().map(Some)).collect();
    let first = round % all.len();
    all.rotate_left(first);
    all
}

fn loads(plan: &Plan) -> Vec<Load> {
    let mut loads = Vec::new();
    for size in &plan.sizes {
        for per_connection in &plan.messages_per_connection {
            let per_connection = per_connection.to_string();
            let mut arguments: Vec<String> =
                ["--size", size, "--messages-per-connection", &per_connection]
                    .map(str::to_owned)
                    .to_vec();
            arguments.extend(["--sessions".to_owned(), plan.sessions.to_string()]);
            arguments.extend(["--duration".to_owned(), plan.burst.as_secs_f64().to_string()]);
            loads.push(Load {
                name: format!("{size} octets, {per_connection}/connection"),
                arguments,
            });
        }
    }
    loads
}

fn warm_up(load: &Load) -> Load {
    let mut arguments = load.arguments.clone();
    let last = arguments.len() - 1;
    arguments[last] = (WARM_UP_MS as f64 / 1e3).to_string();
    Load { name: load.name.clone(), arguments }
}

/// A command under the plan's scheduling.
fn command(plan: &Plan, program: &str) -> Command {
    if plan.fifo {
        let mut command = Command::new("chrt");
        command.args(["-f", "2", program]);
        command
    } else {
        Command::new(program)
    }
}

fn own_path() -> io::Result<String> {
    let path = std::env::current_exe()?;
    path.into_os_string().into_string().map_err(|_| io::Error::other("own path is not UTF-8"))
}

fn start(plan: &Plan, server: Option<&Server>) -> io::Result<Running> {
    let (mut command, address) = match server {
        Some(server) => {
            let mut command = command(plan, "sh");
            command.args(["-c", &server.command]);
            (command, server.address)
        }
        None => {
            let mut command = command(plan, &own_path()?);
            command.args(["floor", "--listen", "127.0.0.1:0"]);
            (command, SocketAddr::from(([127, 0, 0, 1], 0)))
        }
    };
    command.stdin(Stdio::null());
    launch::start(&name(server), address, plan.cpus[0], command)
}

fn source(plan: &Plan, running: &Running) -> io::Result<Command> {
    let mut command = command(plan, &own_path()?);
    command.args(["source", "--json", "--tolerant", "--target", &running.address().to_string()]);
    command.args(["--pin", &plan.cpus[1].to_string()]).args(&plan.source_arguments);
    Ok(command)
}

fn burst(plan: &Plan, running: &Running, load: &Load) -> io::Result<Burst> {
    let device = || plan.device.as_deref().map(proc::disk).transpose();
    let before = (proc::usage(running.pid())?, device()?, cpus(plan)?);
    let summary = summary(source(plan, running)?.args(&load.arguments))?;
    let after = (proc::usage(running.pid())?, device()?, cpus(plan)?);
    let messages = summary.acked.max(1) as f64;
    let octets = summary.octets.max(1) as f64;
    let cpu = (after.0.cpu.saturating_sub(before.0.cpu)).as_secs_f64();
    let busy = [0, 1].map(|at| after.2[at].busy_since(before.2[at]));
    Ok(Burst {
        server: String::new(),
        load: load.name.clone(),
        round: 0,
        cpu_us_per_message: cpu * 1e6 / messages,
        server_busy: cpu / summary.elapsed_s.max(1e-9),
        cpus_busy: busy,
        written_per_octet: after.0.written.saturating_sub(before.0.written) as f64 / octets,
        device: after.1.zip(before.1).map(|(after, before)| {
            let part = |after: u64, before| after.saturating_sub(before) as f64;
            [
                part(after.flushes, before.flushes) / messages,
                part(after.writes, before.writes) / messages,
                part(after.written, before.written) / octets,
            ]
        }),
        source: summary,
    })
}

/// Runs a source to its end.
fn summary(source: &mut Command) -> io::Result<Summary> {
    let output = source.stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim())
        .map_err(|error| io::Error::other(format!("source: {error}: {text}")))
}

fn large(plan: &Plan, server: Option<&Server>) -> io::Result<Large> {
    let running = start(plan, server)?;
    let before = proc::usage(running.pid())?.peak;
    let (size, count) = LARGE_MESSAGE;
    let count = count.to_string();
    let mut source = source(plan, &running)?;
    source.args(["--size", size, "--messages-per-connection", "1"]);
    let summary = summary(source.args(["--sessions", &count, "--total", &count]))?;
    let after = proc::usage(running.pid())?.peak;
    Ok(Large { server: name(server), acked: summary.acked, before, after })
}

fn cpus(plan: &Plan) -> io::Result<[proc::CpuTicks; 2]> {
    Ok([proc::cpu(plan.cpus[0])?, proc::cpu(plan.cpus[1])?])
}

fn say(burst: &Burst) {
    eprintln!(
        "round {} {:<10} {:<28} {:>8.2} us {:>8.0}/s busy {:>3.0} % (CPUs {:.0} %, {:.0} %)",
        burst.round + 1,
        burst.server,
        burst.load,
        burst.cpu_us_per_message,
        burst.source.messages_per_s,
        burst.server_busy * 100.0,
        burst.cpus_busy[0] * 100.0,
        burst.cpus_busy[1] * 100.0,
    );
}

/// Open loop at half of each server's own rate.
fn half_rate(plan: &Plan, loads: &[Load], report: &mut Report) -> io::Result<()> {
    let mut more = Vec::new();
    for round in 0..plan.rounds {
        for server in order(plan, round) {
            let running = start(plan, server)?;
            for load in loads {
                let Some(rate) = report.rate(&load.name, &name(server)) else { continue };
                let half = format!("{:.0}", (rate / 2.0).max(1.0));
                let mut arguments = vec!["--rate".to_owned(), half];
                arguments.extend(load.arguments.iter().cloned());
                let load =
                    Load { name: format!("{}, open loop at half rate", load.name), arguments };
                burst(plan, &running, &warm_up(&load))?;
                let mut done = burst(plan, &running, &load)?;
                done.server = name(server);
                done.round = round;
                say(&done);
                report.bursts.push(done);
                if !more.contains(&load.name) {
                    more.push(load.name);
                }
            }
        }
    }
    report.loads.extend(more);
    Ok(())
}

fn idle(plan: &Plan, server: Option<&Server>) -> io::Result<Idle> {
    let running = start(plan, server)?;
    let before = proc::usage(running.pid())?.resident;
    let mut child = source(plan, &running)?
        .args(["--idle", &plan.idle.to_string(), "--duration", "600"])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or_else(|| io::Error::other("source: no output"))?;
    let mut output = BufReader::new(output);
    let mut line = String::new();
    output.read_line(&mut line)?;
    let sessions = line.split(' ').nth(2).and_then(|number| number.parse().ok()).unwrap_or(0);
    let with = proc::usage(running.pid())?.resident;
    let id = i32::try_from(child.id()).map_err(io::Error::other)?;
    kill(Pid::from_raw(id), Signal::SIGTERM)?;
    output.read_to_string(&mut String::new())?;
    child.wait()?;
    if sessions != u64::from(plan.idle) {
        eprintln!("{}: {sessions} of {} idle sessions stand", name(server), plan.idle);
    }
    Ok(Idle { server: name(server), sessions, before, with })
}
