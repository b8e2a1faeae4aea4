//! Deterministic simulation: the real log, recovery, queue and SMTP machines over simulated
//! disks, hops and clocks, from one seed.
//!
//! `RINGPOST_SIM_SEED=n` replays one seed; `RINGPOST_SIM_SEEDS=n` says how many to run.
//!
//! *Guarantees*: the same seed gives the same run, on any machine.

mod media;
mod plan;
mod notes;
mod truth;
mod session;
mod hop;
mod common;
mod core;
mod relay;
mod rows;
mod planted;
mod world;
mod mirror;
mod space;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use plan::{Plan, Planted};
use rows::Reached;
use world::World;

/// Seeds of a plain `cargo test`; CI asks for 10,000.
const SEEDS: u64 = 200;
/// After so many failures a run ends.
const FAILURES_MAX: usize = 5;
/// Within so many seeds each planted bug must be caught.
const PLANTED_SEEDS: u64 = 200;
/// From so many seeds on every row and every fault must have been reached.
const COVERED_SEEDS: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// One seed; what it reached, or how it failed.
fn run(seed: u64, planted: Planted) -> Result<Reached, String> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(Plan::new(seed, planted));
        world.run();
        world.reached
    }));
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned())).unwrap_or_default()
    })
}

/// What many seeds reached, and the first that failed.
type Outcome = (Reached, Vec<(u64, String)>);

/// Seeds from 0 on, on all processors, until `failures_max` have failed or all are done.
fn many(seeds: u64, planted: Planted, failures_max: usize) -> Outcome {
    let next = AtomicU64::new(0);
    let all = Mutex::new((Reached::default(), Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            let result = run(seed, planted);
            let mut all = all.lock().expect("nobody panics with it");
            match result {
                Ok(reached) => all.0.add(&reached),
                Err(text) => {
                    if planted == Planted::Nothing {
                        println!("seed {seed}: {text}");
                    }
                    all.1.push((seed, text));
                }
            }
            if all.1.len() >= failures_max {
                next.store(seeds, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let (reached, mut failed) = all.into_inner().expect("nobody panics with it");
    failed.sort_unstable();
    (reached, failed)
}

/// The simulation. Replays one seed when `RINGPOST_SIM_SEED` is set.
#[test]
fn nothing_acknowledged_is_lost() {
    if let Some(seed) = number("RINGPOST_SIM_SEED") {
        let mut world = World::new(Plan::new(seed, Planted::Nothing));
        world.run();
        println!("seed {seed}: {:#?}", world.reached);
        return;
    }
    let seeds = number("RINGPOST_SIM_SEEDS").unwrap_or(SEEDS);
    let started = std::time::Instant::now();
    let (reached, failed) = many(seeds, Planted::Nothing, FAILURES_MAX);
    for (seed, text) in &failed {
        println!("seed {seed}: {text}");
        println!("replay: RINGPOST_SIM_SEED={seed} cargo test -p tests --test it -- sim::nothing");
    }
    println!("{seeds} seeds in {:.1} s", started.elapsed().as_secs_f64());
    for (name, n) in reached.rows.iter().chain(&reached.faults) {
        println!("{n:>9}  {name}");
    }
    assert!(failed.is_empty(), "{} seeds failed", failed.len());
    assert_eq!(reached.unknown(), Vec::<&str>::new(), "rows that docs/spool.md does not have");
    if seeds >= COVERED_SEEDS {
        assert_eq!(reached.missing(), Vec::<&str>::new(), "never reached");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..5 {
        let (a, b) = (run(seed, Planted::Nothing), run(seed, Planted::Nothing));
        let (a, b) = (a.expect("it passes"), b.expect("it passes"));
        assert_eq!((a.rows, a.faults), (b.rows, b.faults), "seed {seed}");
    }
}

/// A test of the test.
fn is_caught(planted: Planted) {
    let (_, failed) = many(PLANTED_SEEDS, planted, 1);
    let (seed, text) = failed.first().unwrap_or_else(|| panic!("{planted:?} went unnoticed"));
    println!("{planted:?} is caught by seed {seed}: {text}");
}

#[test]
fn planted_no_sync_is_caught() {
    is_caught(Planted::NoSync);
}

#[test]
fn planted_acknowledgement_out_of_order_is_caught() {
    is_caught(Planted::EarlyAnswer);
}

#[test]
fn planted_forgotten_epoch_is_caught() {
    is_caught(Planted::NoEpoch);
}

#[test]
fn planted_reuse_of_a_done_first_is_caught() {
    is_caught(Planted::DoneFirst);
}

#[test]
fn planted_append_to_a_recovered_tail_is_caught() {
    is_caught(Planted::TailAppended);
}

#[test]
fn planted_degraded_mirror_without_its_generation_is_caught() {
    is_caught(Planted::NoGeneration);
}

#[test]
fn planted_report_and_done_in_two_batches_are_caught() {
    is_caught(Planted::TwoBatches);
}

#[test]
fn planted_expiry_by_a_clock_in_doubt_is_caught() {
    is_caught(Planted::ClockExpires);
}
