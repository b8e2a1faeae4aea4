//! Whole lists replaced while packets are judged.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ebpf_common::entry::Action;
use ebpf_common::packet::Address;
use gate::{Gate, Set, Table};

use super::bed::{Lists, able, settings};
use super::frames::{SYN, frame};

const DROP: u32 = 1;
const PASS: u32 = 2;

/// A million hosts: `always` in every set, and a marker that only this set has.
fn million(marker: u32) -> Lists {
    let mut lists = Lists::default();
    for n in 0..1_000_000 {
        lists.push(Table::Hosts4, Address::v4(0x0b00_0000 + n), 32, Action::Drop);
    }
    lists.push(Table::Networks4, Address::v4(marker), 24, Action::Drop);
    lists.push(Table::Allowed4, Address::v4(!marker & 0xffff_ff00), 24, Action::Pass);
    lists
}

/// Two threads judge without pause while sets of a million are swapped; each frame must be judged
/// as one whole set says: what both list is never passed, what none lists is never dropped.
#[test]
fn a_million_entries_are_swapped_without_a_wrong_verdict() {
    if !able() {
        return;
    }
    let mut gate = Gate::load(None).expect("loaded");
    gate.attach(&settings(&[], Action::Drop)).expect("settings");
    let sets = [million(0xc000_0200).octets(), million(0xc633_6400).octets()];
    let sets = sets.each_ref().map(|octets| Set::read(octets).expect("sound"));
    gate.swap(&sets[0]).expect("swapped");
    let always = [
        frame("11.0.0.0", "10.77.0.1", SYN).octets(),
        frame("11.8.8.8", "10.77.0.1", SYN).octets(),
        frame("11.15.66.63", "10.77.0.1", SYN).octets(),
    ];
    let never = frame("12.0.0.1", "10.77.0.1", SYN).octets();
    let (done, judged) = (AtomicBool::new(false), AtomicU64::new(0));
    let probe = gate.prober().expect("a second handle");
    let slowest_ms = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for octets in &always {
                        assert_eq!(probe.trial(octets, 0, 1).expect("a trial").verdict, DROP);
                    }
                    assert_eq!(probe.trial(&never, 0, 1).expect("a trial").verdict, PASS);
                    judged.fetch_add(4, Ordering::Relaxed);
                }
            });
        }
        let mut slowest_ms = 0;
        for round in 1..=8 {
            let from = std::time::Instant::now();
            gate.swap(&sets[round % 2]).expect("swapped");
            slowest_ms = slowest_ms.max(from.elapsed().as_millis());
            // The set just put in force judges from the next packet on, all its tables at once.
            let mine = if round % 2 == 0 { "192.0.2.1" } else { "198.51.100.1" };
            let other = if round % 2 == 0 { "198.51.100.1" } else { "192.0.2.1" };
            let mine = frame(mine, "10.77.0.1", SYN).octets();
            let other = frame(other, "10.77.0.1", SYN).octets();
            assert_eq!(probe.trial(&mine, 0, 1).expect("a trial").verdict, DROP);
            assert_eq!(probe.trial(&other, 0, 1).expect("a trial").verdict, PASS);
        }
        done.store(true, Ordering::Relaxed);
        slowest_ms
    });
    let judged = judged.load(Ordering::Relaxed);
    assert!(judged > 1_000, "only {judged} verdicts during the swaps");
    println!("slowest swap of a million, two threads judging: {slowest_ms} ms; {judged} verdicts");
}

#[test]
fn a_set_that_is_not_sound_leaves_the_old_one() {
    if !able() {
        return;
    }
    let mut gate = Gate::load(None).expect("loaded");
    gate.attach(&settings(&[], Action::Drop)).expect("settings");
    Lists::default().add(Table::Hosts4, "192.0.2.9/32", Action::Drop).swap(&mut gate);
    let wrong = Lists::default().add(Table::Hosts4, "192.0.2.0/24", Action::Drop).octets();
    assert!(gate.swap(&Set::read(&wrong).expect("lengths are right")).is_err());
    let syn = frame("192.0.2.9", "10.77.0.1", SYN).octets();
    assert_eq!(gate.trial(&syn, 0, 1).expect("a trial").verdict, DROP);
    Lists::default().swap(&mut gate);
    assert_eq!(gate.trial(&syn, 0, 1).expect("a trial").verdict, PASS);
}
