//! Two shards against one: CPU of a message at the same total rate.
//!
//! The same server on one processor and on two, in turn, under open loop at shares of the rate the
//! one makes by itself. What the second shard adds to a message is what cores have in common.
//!
//! *Limits*: on a machine with two processors the source shares one with the second shard: its
//! octets come in other portions then, `alone` says so, and nothing runs under SCHED_FIFO.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::Serialize;

use crate::launch::{self, Running};
use crate::limits::WARM_UP_MS;
use crate::meter::{Alone, Burst, Meter};
use crate::stats::Median;
use crate::{proc, system};

/// A measurement.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Lines for `sh -c`: the server with one shard, and with two. Each says where it listens
    /// (`launch::start`).
    pub commands: [String; 2],
    /// Rounds.
    pub rounds: usize,
    /// Length of one burst.
    pub burst: Duration,
    /// Sessions at the same time, at most.
    pub sessions: u32,
    /// Messages on a connection.
    pub messages_per_connection: Vec<u64>,
    /// Rates, as shares of what one shard makes in closed loop.
    pub shares: Vec<f64>,
    /// Run server and source under SCHED_FIFO.
    pub fifo: bool,
}

/// One round of one load at one rate.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// Messages on a connection.
    pub messages_per_connection: u64,
    /// Share of the closed-loop rate of one shard.
    pub share: f64,
    /// Round, from 0.
    pub round: usize,
    /// With one shard, with two.
    pub bursts: [Burst; 2],
}

impl Pair {
    fn ratio(&self) -> f64 {
        self.bursts[1].cpu_us_per_message / self.bursts[0].cpu_us_per_message
    }
}

/// All that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The source has a processor that no shard uses.
    pub alone: bool,
    /// Every pair of bursts.
    pub pairs: Vec<Pair>,
}

/// Carries it out; progress goes to stderr.
pub fn run(plan: &Plan, stop: OwnedFd) -> io::Result<Report> {
    let last = std::thread::available_parallelism()?.get() - 1;
    if last == 0 {
        return Err(io::Error::other("two shards want two processors"));
    }
    let source = last.min(2);
    let cpus = [0, source];
    proc::cpu(source)?;
    // Where they share a processor, a source that waits for the shard would keep it from running.
    let alone = source == 2;
    let meter = Meter::new(plan.fifo && alone, cpus, None, stop);
    let mut report = Report { alone, pairs: Vec::new() };
    'rounds: for round in 0..plan.rounds {
        let one = start(&meter, &plan.commands[0], &[0])?;
        // The rates one makes, before the other is there to take memory and cache.
        let mut rates = Vec::new();
        for &per_connection in &plan.messages_per_connection {
            warm_up(plan, &meter, &one, per_connection)?;
            let closed = burst(plan, &meter, &one, per_connection, plan.burst, None)?;
            rates.push(closed.source.messages_per_s);
        }
        let mut with_one = Vec::new();
        each(plan, &rates, |load, rate| {
            with_one.push(burst(plan, &meter, &one, load, plan.burst, Some(rate))?);
            Ok(())
        })?;
        drop(one);
        let two = start(&meter, &plan.commands[1], &[0, 1])?;
        for &per_connection in &plan.messages_per_connection {
            warm_up(plan, &meter, &two, per_connection)?;
        }
        let mut with_two = Vec::new();
        each(plan, &rates, |load, rate| {
            with_two.push(burst(plan, &meter, &two, load, plan.burst, Some(rate))?);
            Ok(())
        })?;
        drop(two);
        if meter.stopped() {
            break 'rounds;
        }
        let loads = plan.messages_per_connection.iter();
        let loads = loads.flat_map(|&load| plan.shares.iter().map(move |&share| (load, share)));
        for ((load, share), bursts) in loads.zip(with_one.into_iter().zip(with_two)) {
            let pair = Pair { messages_per_connection: load, share, round, bursts: bursts.into() };
            eprintln!("round {} {}", round + 1, line(load, share, &[&pair]));
            report.pairs.push(pair);
        }
    }
    Ok(report)
}

fn each(
    plan: &Plan,
    rates: &[f64],
    mut act: impl FnMut(u64, f64) -> io::Result<()>,
) -> io::Result<()> {
    for (&load, rate) in plan.messages_per_connection.iter().zip(rates) {
        for share in &plan.shares {
            act(load, (rate * share).max(1.0))?;
        }
    }
    Ok(())
}

fn start(meter: &Meter, command: &str, cpus: &[usize]) -> io::Result<Running> {
    let mut shell = meter.command("sh");
    shell.args(["-c", command]);
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    launch::start_on("server", anywhere, &system::set_of(cpus)?, shell)
}

fn warm_up(plan: &Plan, meter: &Meter, running: &Running, load: u64) -> io::Result<()> {
    burst(plan, meter, running, load, Duration::from_millis(WARM_UP_MS), None).map(drop)
}

/// Open loop at a rate, closed loop without one.
fn burst(
    plan: &Plan,
    meter: &Meter,
    running: &Running,
    messages_per_connection: u64,
    length: Duration,
    rate: Option<f64>,
) -> io::Result<Burst> {
    let per_connection = messages_per_connection.to_string();
    let mut words = vec!["--messages-per-connection".to_owned(), per_connection];
    words.extend(["--sessions".to_owned(), plan.sessions.to_string()]);
    words.extend(["--duration".to_owned(), length.as_secs_f64().to_string()]);
    if let Some(rate) = rate {
        words.extend(["--rate".to_owned(), format!("{rate:.0}")]);
    }
    meter.burst(running, &words, &mut Alone, Duration::ZERO)
}

fn line(load: u64, share: f64, pairs: &[&Pair]) -> String {
    let of = |figure: &dyn Fn(&Pair) -> f64| {
        let median = Median::of(pairs.iter().map(|pair| figure(pair)));
        median.unwrap_or(Median { value: f64::NAN, least: f64::NAN, most: f64::NAN })
    };
    let ratio = of(&Pair::ratio);
    let busy = |at: usize| of(&|pair| pair.bursts[at].server_busy * 100.0).value;
    format!(
        "{load:>3}/connection at {:>3.0} %: {:>7.0}/s, {:>7.2} us (busy {:.0} %) with one, \
         {:>7.2} us (busy {:.0} % of two) with two: {:.3} [{:.3}-{:.3}]",
        share * 100.0,
        of(&|pair| pair.bursts[1].source.messages_per_s).value,
        of(&|pair| pair.bursts[0].cpu_us_per_message).value,
        busy(0),
        of(&|pair| pair.bursts[1].cpu_us_per_message).value,
        busy(1) / 2.0,
        ratio.value,
        ratio.least,
        ratio.most,
    )
}

impl Report {
    /// The report for a person.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "CPU of a message with two shards over that with one, in open loop; medians\n",
        );
        if !self.alone {
            text.push_str("(two processors: the source shares one with the second shard)\n");
        }
        let mut seen = Vec::new();
        for pair in &self.pairs {
            let key = (pair.messages_per_connection, pair.share);
            if seen.contains(&key) {
                continue;
            }
            seen.push(key);
            let alike = self.pairs.iter().filter(|p| (p.messages_per_connection, p.share) == key);
            let alike: Vec<&Pair> = alike.collect();
            let _ = writeln!(text, "{}", line(key.0, key.1, &alike));
            let bad: u64 = alike
                .iter()
                .flat_map(|pair| &pair.bursts)
                .map(|b| b.source.failures + b.source.refused + b.source.unknown)
                .sum();
            if bad > 0 {
                let _ = writeln!(text, "    {bad} ERRORS");
            }
        }
        text
    }
}
