//! Random mail, random faults, random power cuts: everything acknowledged comes back byte for
//! byte, nothing settled comes back to life, and the ledger agrees.

mod world;

use world::{Plan, World};

fn run(plan: impl Fn(u64) -> Plan, seeds: std::ops::Range<u64>) {
    // RINGPOST_SEEDS=10 runs ten times as many.
    let times = std::env::var("RINGPOST_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let first = seeds.start * 1000;
    for seed in first..first + (seeds.end - seeds.start) * times {
        let mut world = World::new(plan(seed), seed);
        for _ in 0..4 {
            world.load();
            world.cut_and_recover();
        }
        world.finish();
    }
}

#[test]
fn power_cuts_lose_nothing() {
    run(|seed| Plan { steps: 60 + seed % 200, ..Plan::default() }, 0..100);
}

#[test]
fn write_errors_and_cuts_lose_nothing() {
    run(|seed| Plan { steps: 150, write_error_in: 20 + seed % 50, ..Plan::default() }, 1000..1080);
}

#[test]
fn small_logs_turn_over_many_times() {
    run(|_| Plan { steps: 900, bodies_max: 60_000, deferred_in: 8, ..Plan::default() }, 2000..2012);
}

#[test]
fn stuck_devices_lose_nothing() {
    run(|_| Plan { steps: 200, stuck_in: 60, stuck_us: 3_000_000, ..Plan::default() }, 3000..3060);
}

#[test]
fn a_mirror_loses_nothing() {
    run(|_| Plan { steps: 150, copies: 2, ..Plan::default() }, 4000..4040);
}

#[test]
fn many_cores_and_columns_lose_nothing() {
    run(|seed| Plan { steps: 200, members: 2, cores: 1 + seed % 3, ..Plan::default() }, 5000..5040);
}

#[test]
fn crashes_in_a_row_use_no_log_up() {
    let mut gathered = 0;
    for seed in 7000..7010 {
        let (cores, copies) = (1 + seed % 2, 1 + u16::from(seed % 5 == 0));
        let segments = if seed % 3 == 0 { 5 } else { 9 };
        let plan = Plan { steps: 6, cores, copies, segments, ..Plan::default() };
        let mut world = World::new(plan, seed);
        // Each start opens a fresh segment and writes a little.
        for _ in 0..40 {
            world.load();
            world.cut_and_recover();
        }
        gathered += world.gathered;
        world.settle_all();
    }
    assert!(gathered > 10, "segments were put together {gathered} times only");
}

#[test]
fn a_device_that_lies_about_syncs_is_noticed() {
    // What lies first shows as damage in one seed and as lost mail in another: mail must be
    // among it.
    let said = |seed: u64| {
        let plan = |_| Plan { steps: 150, lies: true, ..Plan::default() };
        let ended = std::panic::catch_unwind(|| run(plan, seed..seed + 1)).err()?;
        ended.downcast::<String>().ok().map(|text| *text)
    };
    let all: Vec<String> = (6000..6030).filter_map(said).collect();
    assert!(all.iter().any(|text| text.ends_with("lost")), "{all:?}");
}
