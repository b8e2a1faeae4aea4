//! Runs servers of a plan in turn, interleaved, several rounds, and says what each costs.
//!
//! *Guarantees*: every round begins with another server; each is started anew; what a relaying
//! server acknowledged is compared with what its next hop got.
//!
//! *Failure*: a server that does not start is named, left out from then on, and the rest goes on;
//! told to stop, it says what was measured until then.

pub mod plan;

pub mod report;

pub mod against;

mod svg;

pub mod page;

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::launch::{self, Running};
use crate::limits::{FLOOR_NAME, SYNC_PROBE_MESSAGES};
use crate::meter::{Alone, Beside, Burst, Meter, own_path};
use crate::sink::{self, Taken};
use crate::{bare, proc, system};
use plan::{Plan, Run, Server};
use report::Report;

/// The next hop of a relaying server: a sink in a thread of its own.
struct NextHop {
    address: SocketAddr,
    count: Arc<AtomicU64>,
    begun_at: u64,
    acked: PathBuf,
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<io::Result<Taken>>>,
}

impl NextHop {
    fn start(cpu: usize, folder: &Path, name: &str) -> io::Result<Self> {
        let listener = system::listener(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = listener.local_addr()?;
        let acked = folder.join(format!("mxbench-{name}.acked"));
        File::create(&acked)?;
        let (stopped, stop) = nix::unistd::pipe()?;
        let count = Arc::new(AtomicU64::new(0));
        let options = sink::options::Options {
            check: Some(acked.clone()),
            count: Some(Arc::clone(&count)),
            ..sink::options::Options::default()
        };
        let thread = std::thread::spawn(move || {
            system::pin(cpu)?;
            sink::serve(&options, listener, stopped)
        });
        let (stop, thread) = (Some(stop), Some(thread));
        Ok(Self { address, count, begun_at: 0, acked, stop, thread })
    }

    /// Adds one burst's acknowledged ids to those of all.
    fn collect(&self, part: &Path) -> io::Result<()> {
        let mut all = OpenOptions::new().append(true).open(&self.acked)?;
        io::copy(&mut File::open(part)?, &mut all)?;
        fs::remove_file(part)
    }

    fn end(mut self) -> io::Result<Taken> {
        drop(self.stop.take());
        let thread = self.thread.take().expect("taken here only");
        let taken = thread.join().map_err(|_| io::Error::other("sink: panicked"))?;
        fs::remove_file(&self.acked)?;
        taken
    }
}

impl Beside for NextHop {
    fn delivered(&mut self) -> Option<u64> {
        Some(self.count.load(Ordering::Relaxed) - self.begun_at)
    }
}

/// A comparison under way.
struct Bench<'a> {
    plan: &'a Plan,
    plans: &'a Path,
    meter: Meter,
    report: Report,
    folder: PathBuf,
    bursts_all: usize,
    bursts_done: usize,
    started: Instant,
}

/// Carries out a plan that lies in the folder `plans`; progress goes to stderr.
pub fn run(plan: &Plan, plans: &Path, stop: OwnedFd) -> io::Result<Report> {
    let device = plan.place.as_deref().map(proc::device_of).transpose()?;
    let folder = plan.place.clone().unwrap_or_else(std::env::temp_dir);
    let mut meter = Meter::new(plan.fifo, [plan.server_cpu, plan.source_cpu], device, stop);
    meter.progress = io::stderr().is_terminal();
    let runs = plan.runs();
    let of_server = |server: &Server| runs.iter().filter(|run| run.is_for(Some(server))).count();
    let bursts_a_round: usize = plan.servers.iter().map(of_server).sum();
    let of_floor = runs.iter().filter(|run| plan.floor && run.is_for(None)).count();
    let mut bench = Bench {
        plan,
        plans,
        report: Report::new(plan, &meter)?,
        meter,
        folder,
        bursts_all: plan.rounds * (bursts_a_round + of_floor),
        bursts_done: 0,
        started: Instant::now(),
    };
    bench.report.bare = Some(bare::measure(
        plan.place.as_deref(),
        [plan.server_cpu, plan.source_cpu],
        bare::BLOCK_OCTETS,
    )?);
    for round in 0..plan.rounds {
        for server in bench.order(round) {
            if bench.meter.stopped() {
                break;
            }
            if let Err(error) = bench.turn(server, round) {
                let name = server.map_or(FLOOR_NAME, |server| &server.name);
                eprintln!("{name}: {error}");
                bench.report.trouble(name, &error.to_string());
            }
        }
    }
    bench.report.interrupted = bench.meter.stopped();
    bench.report.settle();
    // At the batch size seen: what the device could do with the same octets in each write.
    if let (Some(place), Some(octets)) = (&plan.place, bench.report.batch_octets()) {
        let batch = bare::measure(Some(place), [plan.server_cpu, plan.source_cpu], octets)?;
        bench.report.bare_batch = Some(batch);
    }
    bench.report.finish();
    Ok(bench.report)
}

impl<'a> Bench<'a> {
    /// The floor and the servers, beginning with another one each round.
    fn order(&self, round: usize) -> Vec<Option<&'a Server>> {
        let floor = self.plan.floor.then_some(None);
        let mut all: Vec<Option<&Server>> =
            floor.into_iter().chain(self.plan.servers.iter().map(Some)).collect();
        let first = round % all.len();
        all.rotate_left(first);
        all
    }

    /// One server's turn in a round.
    fn turn(&mut self, server: Option<&Server>, round: usize) -> io::Result<()> {
        let name = server.map_or(FLOOR_NAME, |server| &server.name).to_owned();
        let note = self.report.servers.iter().position(|note| note.name == name);
        if note.is_some_and(|note| self.report.servers[note].trouble.is_some()) {
            return Ok(());
        }
        let mut hop = match server {
            Some(server) if server.relays => {
                Some(NextHop::start(self.plan.source_cpu, &self.folder, &server.name)?)
            }
            _ => None,
        };
        // The floor with TLS is another program than the one without.
        let kinds = if server.is_some() { &[None][..] } else { &[Some(false), Some(true)] };
        for &kind in kinds {
            let runs = self.plan.runs().into_iter().filter(|run| run.is_for(server));
            let wanted = |run: &Run| kind.is_none_or(|tls| run.has_tls() == tls);
            let runs: Vec<Run> = runs.filter(wanted).collect();
            if runs.is_empty() {
                continue;
            }
            let sink = hop.as_ref().map(|hop| hop.address);
            let running = self.start(server, sink, kind.unwrap_or_default())?;
            if let (Some(server), true) = (server, round == 0 && self.meter.device.is_some()) {
                self.probe_sync(server, &running, &mut hop)?;
            }
            for run in &runs {
                if self.meter.stopped() {
                    break;
                }
                let warm_up = run.arguments(server, self.plan.warm_up_s);
                self.burst(server, &running, &mut hop, &warm_up)?;
                let words = run.arguments(server, self.plan.burst_s);
                let mut done = self.burst(server, &running, &mut hop, &words)?;
                (done.server, done.load, done.round) = (name.clone(), run.name.clone(), round);
                self.bursts_done += 1;
                self.say(&done);
                self.report.bursts.push(done);
            }
        }
        if let (Some(hop), Some(note)) = (hop, note) {
            let taken = hop.end()?;
            self.report.servers[note].account(&taken.account);
        }
        Ok(())
    }

    fn start(
        &self,
        server: Option<&Server>,
        sink: Option<SocketAddr>,
        floor_tls: bool,
    ) -> io::Result<Running> {
        let own = own_path()?;
        let (name, address, command) = match server {
            None => {
                let mut command = self.meter.command(&own);
                command.args(["floor", "--listen", "127.0.0.1:0"]);
                command.args(floor_tls.then_some("--tls"));
                (FLOOR_NAME, SocketAddr::from(([127, 0, 0, 1], 0)), command)
            }
            Some(server) => {
                let mut command = self.meter.command("sh");
                command.args(["-c", &self.plan.command(server, sink, self.plans)]);
                if let Some(folder) = Path::new(&own).parent() {
                    command.env("RINGPOST_PROGRAMS", folder);
                }
                (&server.name[..], SocketAddr::from(([127, 0, 0, 1], server.port)), command)
            }
        };
        launch::start(name, address, self.plan.server_cpu, command)
    }

    fn burst(
        &self,
        server: Option<&Server>,
        running: &Running,
        hop: &mut Option<NextHop>,
        arguments: &[String],
    ) -> io::Result<Burst> {
        let Some(hop) = hop else {
            return self.meter.burst(running, arguments, &mut Alone, Duration::ZERO);
        };
        let name = server.map_or(FLOOR_NAME, |server| &server.name);
        let part = self.folder.join(format!("mxbench-{name}.part"));
        let acked = ["--acked".to_owned(), part.display().to_string()];
        let arguments = [arguments, &acked].concat();
        hop.begun_at = hop.count.load(Ordering::Relaxed);
        let settle = Duration::from_secs_f64(self.plan.drain_s_max);
        let done = self.meter.burst(running, &arguments, hop, settle)?;
        hop.collect(&part)?;
        Ok(done)
    }

    /// How often a server flushes when one session waits for every reply.
    fn probe_sync(
        &mut self,
        server: &Server,
        running: &Running,
        hop: &mut Option<NextHop>,
    ) -> io::Result<()> {
        let count = SYNC_PROBE_MESSAGES.to_string();
        let words = ["--sessions", "1", "--total", &count, "--messages-per-connection", &count];
        let words = [&words.map(str::to_owned)[..], &server.arguments].concat();
        let burst = self.burst(Some(server), running, hop, &words)?;
        let [flushes, writes, _] = burst.device.unwrap_or_default();
        let fua = self.meter.device.as_deref().is_some_and(proc::has_fua);
        if let Some(note) = self.report.servers.iter_mut().find(|note| note.name == server.name) {
            note.sync_seen(flushes, writes, fua);
        }
        Ok(())
    }

    fn say(&self, burst: &Burst) {
        let done = self.bursts_done.max(1) as f64;
        let left = (self.bursts_all - self.bursts_done) as f64;
        let left = self.started.elapsed().as_secs_f64() / done * left;
        eprintln!(
            "{:>3}/{} {:<18}{:<26}{:>9.1} us {:>8.0}/s busy {:>3.0} %  {:>4.0} s left",
            self.bursts_done,
            self.bursts_all,
            burst.server,
            burst.load,
            burst.cpu_us_per_message,
            burst.relayed_per_s.unwrap_or(burst.source.messages_per_s),
            burst.server_busy * 100.0,
            left,
        );
    }
}
