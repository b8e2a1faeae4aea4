//! What the filter costs: nanoseconds a verdict, time and memory of a swap. Prints, judges nothing.

use std::fs;
use std::time::Instant;

use aya::maps::{Array, ProgramArray};
use aya::programs::{Xdp, loaded_programs};
use aya::{Ebpf, TestRun, TestRunAttrs, TestRunOptions};
use ebpf_common::entry::Action;
use ebpf_common::packet::Address;
use gate::{Gate, Set, Table};
use nix::sys::resource::{UsageWho, getrusage};

use super::bed::{Bed, Lists, able, accept, count, run, settings};
use super::frames::{ACK, SYN, frame};

static STRIDE: &[u8] = aya::include_bytes_aligned!("../../ebpf/filter/stride.bpf.o");

/// Hosts of the big set: every third address from 11.0.0.0 on.
const HOSTS: u32 = 1_000_000;

/// Runs of one measurement; the best of five counts, the machine has other work.
const RUNS: u32 = 1_000_000;

struct Stride {
    ebpf: Ebpf,
    gap_ns: u128,
}

impl Stride {
    fn new() -> Self {
        let mut ebpf = Ebpf::load(STRIDE).expect("loaded");
        let program: &mut Xdp = ebpf.program_mut("stride").expect("there").try_into().expect("XDP");
        program.load().expect("taken");
        let mut stride = Self { ebpf, gap_ns: 0 };
        let floor = stride.run(&frame("11.0.0.1", "10.77.0.1", SYN).octets(), 0x0b00_0000, 1 << 20);
        stride.gap_ns = floor;
        stride
    }

    /// From now on it goes on to the filter.
    fn aim(&mut self) {
        let newest = loaded_programs()
            .filter_map(Result::ok)
            .filter(|info| info.name_as_str() == Some("ringpost"))
            .max_by_key(|info| info.id())
            .expect("the filter is loaded");
        let next = self.ebpf.take_map("NEXT").expect("there");
        let mut next = ProgramArray::try_from(next).expect("a table of programs");
        next.set(0, &newest.fd().expect("a descriptor"), 0).expect("set");
        // The table is emptied with its last descriptor.
        std::mem::forget(next);
    }

    /// Nanoseconds a frame that goes its way, as received by the loopback interface: the best of
    /// five. A frame that is too short for the generator is dropped by it.
    fn live(&mut self, octets: &[u8]) -> u128 {
        let mut best = u128::MAX;
        for round in 1..=5_u64 {
            let map = self.ebpf.map_mut("STATE").expect("there");
            let mut state: Array<_, [u64; 3]> = Array::try_from(map).expect("an array");
            state.set(0, [round, 0x0b00_0000, 1023], 0).expect("set");
            let program: &Xdp =
                self.ebpf.program("stride").expect("there").try_into().expect("XDP");
            let attrs = TestRunAttrs::new().xdp_live_frames(64);
            let data_in = Some(octets);
            let options = TestRunOptions { data_in, repeat: RUNS, attrs, ..Default::default() };
            best = best.min(program.test_run(options).expect("ran").duration.as_nanos());
        }
        best
    }

    /// Nanoseconds a run over `count` sources from `first`, the best of five.
    fn run(&mut self, octets: &[u8], first: u32, count: u64) -> u128 {
        (1..=5).map(|round| self.once(octets, first, count, round, RUNS)).min().expect("five")
    }

    /// Nanoseconds a run, of one round.
    fn once(&mut self, octets: &[u8], first: u32, count: u64, round: u64, repeat: u32) -> u128 {
        let map = self.ebpf.map_mut("STATE").expect("there");
        let mut state: Array<_, [u64; 3]> = Array::try_from(map).expect("an array");
        state.set(0, [round, u64::from(first), count - 1], 0).expect("set");
        let program: &Xdp = self.ebpf.program("stride").expect("there").try_into().expect("XDP");
        let options = TestRunOptions { data_in: Some(octets), repeat, ..Default::default() };
        program.test_run(options).expect("ran").duration.as_nanos()
    }

    /// Nanoseconds a run over sources of which most were never seen before: each round has a fresh
    /// set, and half as many runs as there are sources.
    fn first_hits(&mut self, gate: &mut Gate, set: &Set<'_>, octets: &[u8]) -> u128 {
        let rounds = (1..=5).map(|round| {
            gate.swap(set).expect("swapped");
            self.once(octets, 0x0b00_0000, 1 << 20, round, HOSTS / 2)
        });
        rounds.min().expect("five").saturating_sub(self.gap_ns)
    }

    fn line(&mut self, what: &str, octets: &[u8], first: u32, count: u64) {
        let ns = self.run(octets, first, count).saturating_sub(self.gap_ns);
        println!("{what:58} {ns:5} ns");
    }
}

/// The big set: hosts that are three apart, ten thousand networks, a few allowed.
fn big(action: Action) -> Vec<u8> {
    let mut lists = Lists::default();
    for n in 0..HOSTS {
        lists.push(Table::Hosts4, Address::v4(0x0b00_0000 + n), 32, action);
    }
    for n in 0..10_000 {
        lists.push(Table::Networks4, Address::v4(0x2000_0000 + (n << 12)), 24, action);
    }
    for n in 0..100 {
        lists.push(Table::Allowed4, Address::v4(0x6000_0000 + (n << 8)), 24, Action::Pass);
    }
    lists.octets()
}

/// Kernel memory that BPF maps of this process and all others hold, in octets.
fn kernel_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("readable");
    let field = |name: &str| -> u64 {
        let line = text.lines().find(|l| l.starts_with(name)).expect("a line");
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
    };
    (field("VmallocUsed:") + field("SUnreclaim:") + field("Percpu:")) * 1024
}

/// CPU time of this process so far.
fn cpu_ms() -> i64 {
    let used = getrusage(UsageWho::RUSAGE_SELF).expect("known");
    [used.user_time(), used.system_time()]
        .map(|t| t.tv_sec() * 1000 + t.tv_usec() / 1000)
        .iter()
        .sum()
}

#[test]
#[ignore = "a measurement: prints figures, judges nothing"]
fn verdicts() {
    assert!(able());
    let _bed = Bed::new();
    let mut gate = Gate::load(None).expect("loaded");
    gate.attach(&settings(&[], Action::Drop)).expect("settings");
    accept(&gate, 3600);
    let before = kernel_memory();
    let octets = big(Action::Drop);
    let set = Set::read(&octets).expect("sound");
    let mut times: Vec<(u128, i64)> = (0..5)
        .map(|_| {
            let (from, cpu_ms) = (Instant::now(), cpu_ms());
            gate.swap(&set).expect("swapped");
            (from.elapsed().as_millis(), self::cpu_ms() - cpu_ms)
        })
        .collect();
    times.sort_unstable();
    // The old set's memory goes back after a grace period of the kernel's.
    let mut held = kernel_memory().saturating_sub(before);
    for _ in 0..50 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        held = held.min(kernel_memory().saturating_sub(before));
    }
    println!("swap of 1,000,000 hosts and 10,000 networks, ms and CPU ms: {times:?}");
    println!("kernel memory held by the set: {} MB", held / 1_000_000);
    let mut stride = Stride::new();
    stride.aim();
    println!("floor (trial run, generator): {} ns, taken off below", stride.gap_ns);
    let syn = |from: &str| frame(from, "10.77.0.1", SYN).octets();
    let at = 0x0b00_0000;
    stride.line("SYN, listed host, 1,024 sources", &syn("11.0.0.1"), at, 1 << 10);
    stride.line("SYN, listed host, 524,288 sources", &syn("11.0.0.1"), at, 1 << 19);
    stride.line("SYN, listed host, 1,048,576 sources", &syn("11.0.0.1"), at, 1 << 20);
    let first = stride.first_hits(&mut gate, &set, &syn("11.0.0.1"));
    println!("{:58} {first:5} ns", "SYN, listed host, most of them hit for the first time");
    stride.line("SYN, clean, 1,024 sources", &syn("11.0.0.1"), 0x0d00_0000, 1 << 10);
    stride.line("SYN, clean, 1,048,576 sources", &syn("11.0.0.1"), 0x0d00_0000, 1 << 20);
    stride.line("SYN, half of 2,097,152 sources listed", &syn("11.0.0.1"), at, 1 << 21);
    stride.line(
        "SYN, in a listed network or beside, 2^20 sources",
        &syn("11.0.0.1"),
        0x2000_0000,
        1 << 20,
    );
    let mut f = frame("11.0.0.1", "10.77.0.1", ACK);
    f.tcp_options = 12;
    f.ports.1 = 443;
    stride.line("other port", &f.octets(), at, 1 << 10);
    f.ports.1 = 25;
    let mut off = settings(&[], Action::Drop);
    off.answer = false;
    stride.line("ACK to port 25, answer on", &f.octets(), at, 1 << 10);
    let six = frame("2001:db8::1", "fd77::1", ACK).octets();
    stride.line("ACK to port 25, IPv6, answer on", &six, at, 1 << 10);
    gate.attach(&off).expect("settings");
    stride.line("ACK to port 25, answer off", &f.octets(), at, 1 << 10);
    let mut udp = f.octets();
    udp[23] = 17;
    stride.line("UDP, answer off", &udp, at, 1 << 10);
}

/// Frames that are made, dropped by the generator, by nftables, by the filter: one after the
/// other in one run, from 1,024 listed sources.
#[test]
#[ignore = "a measurement: prints figures, judges nothing"]
fn beside_nftables() {
    assert!(able());
    let _bed = Bed::new();
    let elements: Vec<String> = (0..100_000_u32)
        .map(|n| std::net::Ipv4Addr::from_bits(0x0b00_0000 + n).to_string())
        .collect();
    let rules = format!(
        "table netdev t {{\n set s {{ type ipv4_addr; elements = {{ {} }} }}\n chain c {{ type \
         filter hook ingress device lo priority 0; tcp dport 25 ip saddr @s counter drop; }}\n}}\n",
        elements.join(", ")
    );
    let file = std::env::temp_dir().join(format!("ringpost-nft-{}", std::process::id()));
    fs::write(&file, rules).expect("written");
    run(&format!("nft -f {}", file.display()));
    fs::remove_file(&file).expect("removed");
    let mut gate = Gate::load(None).expect("loaded");
    gate.attach(&settings(&[], Action::Drop)).expect("settings");
    gate.swap(&Set::read(&big(Action::Drop)).expect("sound")).expect("swapped");
    let mut stride = Stride::new();
    let syn = frame("11.0.0.1", "10.77.0.1", SYN).octets();
    let floor = stride.live(&syn[..20]);
    let nft = stride.live(&syn);
    let counted = run("nft list chain netdev t c");
    let packets = u128::from(RUNS) * 5;
    assert!(counted.contains(&format!("packets {packets}")), "nft dropped them: {counted}");
    let dropped = count(&gate, "dropped");
    stride.aim();
    let filter = stride.live(&syn);
    assert_eq!(u128::from(count(&gate, "dropped") - dropped), packets, "the filter dropped them");
    let (ours, theirs) = (filter.saturating_sub(floor), nft.saturating_sub(floor));
    println!("generator {floor} ns; above it: filter {ours} ns, nftables {theirs} ns a SYN");
    println!("nftables / filter: {}.{}", theirs / ours.max(1), theirs * 10 / ours.max(1) % 10);
}
