//! Runs servers in turn under the same loads and says what each costs.
//!
//! Server and source are pinned to different CPUs; bursts are short and interleaved, so that a
//! machine that changes its speed changes it for all; the floor is measured in every round.
//!
//! *Failure*: a server that does not come up, or a source that cannot run, ends the measurement
//! with its reason; refused or failed messages are printed beside the figures.

pub mod report;
pub mod targets;

use std::io::{self, BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::launch::{self, Running};
use crate::limits::{DURABLE_FLOOR_NAME, FLOOR_NAME, LARGE_MESSAGE, LOOK_MS, WARM_UP_MS};
use crate::meter::{Alone, Burst, Meter, own_path};
use crate::source::report::Summary;
use crate::{commit, proc, system};
use report::{Device, Idle, Large, Report};

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
    /// The same inside TLS (not for the floor).
    pub idle_tls: bool,
    /// Measure memory under large messages.
    pub large: bool,
    /// After the rounds, take latencies in open loop at half of each server's rate.
    pub half_rate: bool,
    /// Measure the durable floor, in `spool`.
    pub durable_floor: bool,
    /// Run server and source under SCHED_FIFO in closed loop, so that other work on the machine
    /// does not count.
    pub fifo: bool,
    /// Block device whose flushes and writes are counted (whoever makes them).
    pub device: Option<String>,
    /// Where the servers' spools are: a bare commit is measured there.
    pub spool: Option<PathBuf>,
}

/// CPUs of servers and source: those asked for; else the servers get the one that the disk below
/// the spool interrupts. The source is in the place of other machines, which neither take our
/// disk's interrupts nor run the kernel's workers for its writes.
///
/// # Errors
/// The disk's.
pub fn processors(
    asked: [Option<usize>; 2],
    spool: Option<&PathBuf>,
    device: Option<&String>,
) -> io::Result<[usize; 2]> {
    let other = |cpu: usize| usize::from(cpu == 0);
    let own = match asked {
        [Some(server), source] => return Ok([server, source.unwrap_or_else(|| other(server))]),
        [None, Some(source)] => return Ok([other(source), source]),
        [None, None] => spool.zip(device),
    };
    let Some((folder, device)) = own else { return Ok([0, 1]) };
    let before = proc::interrupts(device);
    commit::measure(folder, Duration::from_millis(LOOK_MS))?;
    let counts = before.zip(proc::interrupts(device));
    let most = counts.and_then(|(before, after)| {
        let each = after.iter().zip(&before).map(|(after, before)| after - before).enumerate();
        each.max_by_key(|(_, count)| *count)
    });
    let server = most.filter(|(_, count)| *count > 0).map_or(0, |(cpu, _)| cpu);
    Ok([server, other(server)])
}

/// What is measured in turn.
#[derive(Debug, Clone, Copy)]
enum Turn<'a> {
    Floor,
    /// In that folder.
    DurableFloor(&'a PathBuf),
    Server(&'a Server),
}

impl Turn<'_> {
    fn name(self) -> String {
        match self {
            Self::Floor => FLOOR_NAME.to_owned(),
            Self::DurableFloor(_) => DURABLE_FLOOR_NAME.to_owned(),
            Self::Server(server) => server.name.clone(),
        }
    }
}

struct Load {
    name: String,
    arguments: Vec<String>,
}

/// Carries out a plan; progress goes to stderr. Once `stop` is readable, what was measured until
/// then is all there is.
pub fn run(plan: &Plan, stop: OwnedFd) -> io::Result<Report> {
    let mut report = Report {
        servers: order(plan, 0).into_iter().map(Turn::name).collect(),
        ..Report::default()
    };
    check(plan)?;
    report.cpus = plan.cpus;
    report.load_average[0] = system::load_average();
    if let Some(folder) = &plan.spool {
        report.commit = Some(commit::measure(folder, plan.burst)?);
    }
    report.device = plan.device.clone().map(|name| Device { fua: proc::has_fua(&name), name });
    report.sessions = plan.sessions;
    let mut meter = Meter::new(plan.fifo, plan.cpus, plan.device.clone(), stop);
    let loads = loads(plan);
    report.loads = loads.iter().map(|load| load.name.clone()).collect();
    report.loads_closed.clone_from(&report.loads);
    'rounds: for round in 0..plan.rounds {
        for server in order(plan, round) {
            let running = start(plan, &meter, server)?;
            for load in &loads {
                if meter.stopped() {
                    break 'rounds;
                }
                burst(plan, &meter, &running, &warm_up(load))?;
                let mut done = burst(plan, &meter, &running, load)?;
                done.server = server.name();
                done.round = round;
                say(&done);
                report.bursts.push(done);
            }
        }
    }
    if plan.half_rate {
        // Where a device has no FUA the kernel ends a durable write on a worker of its own, which a
        // source under SCHED_FIFO on the same processor would keep from running.
        meter.fifo = false;
        half_rate(plan, &meter, &loads, &mut report)?;
    }
    // The durable floor takes no message larger than its block, and holds sessions as the floor.
    let held = |server: &Turn<'_>| !matches!(server, Turn::DurableFloor(_));
    for server in order(plan, 0).into_iter().filter(held) {
        if plan.idle > 0 && !meter.stopped() {
            report.idle.push(idle(plan, &meter, server, false)?);
        }
        if plan.idle > 0 && plan.idle_tls && matches!(server, Turn::Server(_)) && !meter.stopped() {
            report.idle.push(idle(plan, &meter, server, true)?);
        }
    }
    for server in order(plan, 0).into_iter().filter(held) {
        if plan.large && !meter.stopped() {
            report.large.push(large(plan, &meter, server)?);
        }
    }
    report.settle();
    report.load_average[1] = system::load_average();
    Ok(report)
}

fn check(plan: &Plan) -> io::Result<()> {
    if plan.durable_floor && secure(plan) {
        return Err(io::Error::other("--durable-floor: the durable floor has no STARTTLS"));
    }
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

/// The floors and the servers, beginning with another one each round.
fn order(plan: &Plan, round: usize) -> Vec<Turn<'_>> {
    let durable = plan.spool.as_ref().filter(|_| plan.durable_floor).map(Turn::DurableFloor);
    let mut all: Vec<Turn<'_>> = std::iter::once(Turn::Floor)
        .chain(durable)
        .chain(plan.servers.iter().map(Turn::Server))
        .collect();
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

fn secure(plan: &Plan) -> bool {
    plan.source_arguments.iter().any(|word| word.starts_with("--starttls"))
}

fn start(plan: &Plan, meter: &Meter, server: Turn<'_>) -> io::Result<Running> {
    let (command, address) = match server {
        Turn::Server(server) => {
            let mut command = meter.command("sh");
            command.args(["-c", &server.command]);
            (command, server.address)
        }
        Turn::Floor | Turn::DurableFloor(_) => {
            let mut command = meter.command(&own_path()?);
            command.args(["floor", "--listen", "127.0.0.1:0"]);
            if let Turn::DurableFloor(folder) = server {
                command.arg("--durable").arg(folder);
            } else if secure(plan) {
                command.arg("--tls");
            }
            (command, SocketAddr::from(([127, 0, 0, 1], 0)))
        }
    };
    launch::start(&server.name(), address, plan.cpus[0], command)
}

fn burst(plan: &Plan, meter: &Meter, running: &Running, load: &Load) -> io::Result<Burst> {
    let arguments = [&plan.source_arguments[..], &load.arguments].concat();
    let mut done = meter.burst(running, &arguments, &mut Alone, Duration::ZERO)?;
    done.load.clone_from(&load.name);
    Ok(done)
}

/// Runs a source to its end.
fn summary(source: &mut Command) -> io::Result<Summary> {
    let output = source.stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim())
        .map_err(|error| io::Error::other(format!("source: {error}: {text}")))
}

fn large(plan: &Plan, meter: &Meter, server: Turn<'_>) -> io::Result<Large> {
    let running = start(plan, meter, server)?;
    let before = running.usage()?.peak;
    let (size, count) = LARGE_MESSAGE;
    let count = count.to_string();
    let mut source = meter.source(&running)?;
    source.args(&plan.source_arguments).args(["--size", size, "--messages-per-connection", "1"]);
    let summary = summary(source.args(["--sessions", &count, "--total", &count]))?;
    let after = running.usage()?.peak;
    Ok(Large { server: server.name(), acked: summary.acked, before, after })
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

/// Whose rate is halved: its own; the durable floor is to be compared with `durable`.
fn paced_by(plan: &Plan, server: Turn<'_>) -> String {
    let beside = plan.servers.iter().find(|server| server.name == "durable");
    match (server, beside) {
        (Turn::DurableFloor(_), Some(durable)) => durable.name.clone(),
        _ => server.name(),
    }
}

/// Open loop at half of each server's own rate.
fn half_rate(plan: &Plan, meter: &Meter, loads: &[Load], report: &mut Report) -> io::Result<()> {
    for round in 0..plan.rounds {
        if let Some(folder) = &plan.spool {
            report.commits.push(commit::measure(folder, plan.burst)?);
        }
        for server in order(plan, round) {
            let running = start(plan, meter, server)?;
            for load in loads {
                let Some(rate) = report.rate(&load.name, &paced_by(plan, server)) else { continue };
                if meter.stopped() {
                    return Ok(());
                }
                let half = format!("{:.0}", (rate / 2.0).max(1.0));
                let mut arguments = vec!["--rate".to_owned(), half];
                arguments.extend(load.arguments.iter().cloned());
                let load =
                    Load { name: format!("{}, open loop at half rate", load.name), arguments };
                burst(plan, meter, &running, &warm_up(&load))?;
                let mut done = burst(plan, meter, &running, &load)?;
                done.server = server.name();
                done.round = round;
                say(&done);
                report.bursts.push(done);
                if !report.loads_half.contains(&load.name) {
                    report.loads.push(load.name.clone());
                    report.loads_half.push(load.name);
                }
            }
        }
    }
    Ok(())
}

fn idle(plan: &Plan, meter: &Meter, server: Turn<'_>, tls: bool) -> io::Result<Idle> {
    let running = start(plan, meter, server)?;
    let before = running.usage()?.resident;
    let mut child = meter
        .source(&running)?
        .args(&plan.source_arguments)
        .args(tls.then_some(["--starttls", "1"]).into_iter().flatten())
        .args(["--idle", &plan.idle.to_string(), "--duration", "600"])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or_else(|| io::Error::other("source: no output"))?;
    let mut output = BufReader::new(output);
    let mut line = String::new();
    output.read_line(&mut line)?;
    let sessions = line.split(' ').nth(2).and_then(|number| number.parse().ok()).unwrap_or(0);
    let with = running.usage()?.resident;
    let id = i32::try_from(child.id()).map_err(io::Error::other)?;
    kill(Pid::from_raw(id), Signal::SIGTERM)?;
    let mut rest = String::new();
    output.read_to_string(&mut rest)?;
    child.wait()?;
    let summary: Summary = serde_json::from_str(rest.trim()).map_err(io::Error::other)?;
    if tls && summary.tls_handshakes < sessions {
        return Err(io::Error::other(format!("{}: offers no STARTTLS", server.name())));
    }
    if sessions != u64::from(plan.idle) {
        eprintln!("{}: {sessions} of {} idle sessions stand", server.name(), plan.idle);
    }
    let server = server.name() + if tls { ", TLS" } else { "" };
    Ok(Idle { server, sessions, before, with })
}
