//! Two namespaces joined by a veth pair, and sets of lists made by hand.

use std::net::{IpAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use ebpf_common::entry::{Action, Listing};
use ebpf_common::packet::Address;
use ebpf_common::set::{Record, TABLES, Table, header};
use gate::{Accepting, Bans, Gate, Settings, monotonic_s};
use nix::sched::{CloneFlags, setns};

/// Whether this test can run here; says why not.
pub(crate) fn able() -> bool {
    let able = nix::unistd::geteuid().is_root() && Gate::load(None).is_ok();
    if !able {
        assert!(std::env::var("RINGPOST_XDP").is_err(), "root and BPF are needed here");
        eprintln!("not run: needs root and a kernel with BPF");
    }
    able
}

/// Runs a command to its end; panics with its output if it fails.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    let output = command.args(words).output().unwrap_or_else(|e| panic!("{line}: {e}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{line}: {text}");
    text
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Server and client, each in a namespace of its own; the calling thread stays in the server's.
///
/// The server has 10.77.0.1 and fd77::1 on `rp0`, the client 10.77.0.2 and fd77::2 on `rp1`.
pub(crate) struct Bed {
    pub(crate) names: Names,
    /// veth hands frames sent back by a filter only to a peer that has one itself.
    _peer: Gate,
}

/// The two namespaces; gone with this, also when a test fails half-way.
pub(crate) struct Names {
    pub(crate) server: String,
    pub(crate) client: String,
}

/// Moves this thread into a namespace.
pub(crate) fn enter(name: &str) {
    let file = std::fs::File::open(format!("/run/netns/{name}")).expect("a namespace");
    setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter it");
}

impl Bed {
    pub(crate) fn new() -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |end| format!("ringpost-{}-{number}-{end}", std::process::id());
        let names = Names { server: name("s"), client: name("c") };
        let Names { server, client } = &names;
        for namespace in [server, client] {
            run(&format!("ip netns add {namespace}"));
            run(&format!("ip -n {namespace} link set lo up"));
        }
        run(&format!("ip link add rp0 netns {server} type veth peer name rp1 netns {client}"));
        for (namespace, end, host) in [(server, "rp0", 1), (client, "rp1", 2)] {
            run(&format!("ip -n {namespace} link set {end} up"));
            run(&format!("ip -n {namespace} addr add 10.77.0.{host}/24 dev {end}"));
            run(&format!("ip -n {namespace} addr add fd77::{host}/64 dev {end} nodad"));
        }
        enter(client);
        let mut peer = Gate::load(None).expect("able");
        let settings =
            Settings { interfaces: vec!["rp1".into()], mode: Action::Pass, ..Settings::default() };
        peer.attach(&settings).expect("veth takes a filter");
        // Neighbours are known to each other before the first answer: both sides say RST.
        for server in ["10.77.0.1", "fd77::1"] {
            let server: IpAddr = server.parse().expect("an address");
            let refused = TcpStream::connect((server, 9)).expect_err("nobody listens");
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{server}");
        }
        enter(server);
        Self { names, _peer: peer }
    }

    /// A command in the client's namespace.
    pub(crate) fn client(&self, program: &str, arguments: &[&str]) -> (bool, String) {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.names.client, program])
            .args(arguments)
            .output()
            .expect("ip is there");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), text)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.client] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

/// Settings that let list 1 answer and list 2 drop, on these interfaces.
pub(crate) fn settings(interfaces: &[&str], mode: Action) -> Settings {
    Settings {
        interfaces: interfaces.iter().map(|&name| name.to_owned()).collect(),
        mode,
        answer: true,
        ceilings: vec![(1, Action::Answer), (2, Action::Drop)],
        texts: vec![(5, "listed by Example; see https://mx.example.net/why".into())],
        ..Settings::default()
    }
}

pub(crate) fn listing(action: Action) -> Listing {
    let list = if action == Action::Drop { 2 } else { 1 };
    Listing { expires_s: 0, id: 0x1234_abcd, reason: 5, action, list }
}

pub(crate) fn words(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(four) => Address::v4(four.to_bits()),
        IpAddr::V6(six) => Address::from_octets6(six.octets()),
    }
}

/// A set in the making.
#[derive(Default, Clone)]
pub(crate) struct Lists {
    tables: [Vec<Record>; 6],
}

impl Lists {
    /// Adds a line such as `192.0.2.0/24` to a table.
    pub(crate) fn add(mut self, table: Table, line: &str, action: Action) -> Self {
        let (address, bits) = line.split_once('/').expect("a prefix");
        let address = words(address.parse().expect("an address"));
        let bits = bits.parse().expect("a length");
        self.push(table, address, bits, action);
        self
    }

    pub(crate) fn push(&mut self, table: Table, address: Address, bits: u8, action: Action) {
        let address = ebpf_common::set::masked(&address, bits);
        self.tables[table as usize].push(Record { address, bits, listing: listing(action) });
    }

    pub(crate) fn octets(&self) -> Vec<u8> {
        let counts = TABLES.map(|t| u32::try_from(self.tables[t as usize].len()).expect("fits"));
        let mut out = header(counts).to_vec();
        for record in self.tables.iter().flatten() {
            out.extend(record.to_octets());
        }
        out
    }

    /// Puts it in force.
    pub(crate) fn swap(&self, gate: &mut Gate) {
        let octets = self.octets();
        gate.swap(&gate::Set::read(&octets).expect("a sound set")).expect("swapped");
    }
}

pub(crate) fn bans(gate: &Gate) -> Bans {
    let lent = gate.descriptors().expect("lent");
    Bans::new(lent.bans4, lent.bans6)
}

/// Says that a daemon accepts, for a while.
pub(crate) fn accept(gate: &Gate, seconds: u32) -> Accepting {
    let accepting = Accepting::new(gate.descriptors().expect("lent").accepting);
    accepting.until(monotonic_s() + seconds).expect("said");
    accepting
}

/// A counter by its word.
pub(crate) fn count(gate: &Gate, word: &str) -> u64 {
    let status = gate.status(None).expect("status");
    let at = ebpf_common::count::COUNTERS.iter().position(|(_, w)| *w == word);
    status.counters[at.expect("a counter")]
}
