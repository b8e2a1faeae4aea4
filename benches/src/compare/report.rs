//! Figures, medians, ratios and verdicts of a comparison, as JSON and as a table.
//!
//! *Guarantees*: a ratio is taken round by round, so that slow drifts of the machine fall out; a
//! server that is not durable is in no ratio to ours; a ratio of rates that a limit other than the
//! server's core decides is marked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use serde::{Deserialize, Serialize};

use super::plan::{Plan, Role, Run, Server};
use crate::bare::Bare;
use crate::limits::{BUSY_SHARE_MIN, FLOOR_NAME};
use crate::meter::{Burst, Meter};
use crate::sink::ledger::Account;
use crate::source::report::CURVE;
use crate::stats::Median;

/// A server flushes at least this often a message, or its 250 is not durable: one flush each, less
/// the few that a run's end may cut off.
const DURABLE_FLUSHES_MIN: f64 = 0.95;

/// All of a comparison.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// What it is about.
    pub title: String,
    /// Seconds since the epoch at its start.
    pub began_s: u64,
    /// What it ran on.
    pub machine: Machine,
    /// The plan as carried out.
    pub plan: Plan,
    /// What is known of each server, the floor first.
    pub servers: Vec<ServerNote>,
    /// Loads in the order run.
    pub runs: Vec<Run>,
    /// Every burst.
    pub bursts: Vec<Burst>,
    /// The machine without a mail server, just before.
    pub bare: Option<Bare>,
    /// The same with durable writes as large as our durable server's, just after.
    pub bare_batch: Option<Bare>,
    /// Ended early.
    pub interrupted: bool,
    /// Medians by `load|server|figure`.
    pub figures: BTreeMap<String, Median>,
    /// Ratios.
    pub ratios: Vec<Ratio>,
}

/// The machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Model of its processors.
    pub cpu: String,
    /// How many.
    pub cpus: usize,
    /// Kernel release.
    pub kernel: String,
    /// The block device of the place.
    pub device: Option<String>,
    /// It makes single writes durable without a flush.
    pub fua: bool,
    /// Load average over a minute, before and after: above 2 somebody else was at work.
    pub load_average: [f64; 2],
}

impl Machine {
    fn look(device: Option<&str>) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            cpu: model.map_or_else(String::new, |(_, name)| name.to_owned()),
            cpus: info.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            device: device.map(str::to_owned),
            fua: device.is_some_and(crate::proc::has_fua),
            load_average: [crate::system::load_average(), 0.0],
        }
    }
}

/// What is known of a server beside its figures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerNote {
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: String,
    /// What it is here.
    pub role: Role,
    /// It hands mail on.
    pub relays: bool,
    /// How it keeps mail, as the plan says.
    pub sync: String,
    /// Flushes and writes per message seen at one session.
    pub seen: Option<[f64; 2]>,
    /// Whether that is enough to call its 250 durable.
    pub durable: Option<bool>,
    /// Acknowledged messages that never reached the next hop, in all rounds.
    pub lost: u64,
    /// Messages that reached it twice.
    pub doubled: u64,
    /// Why it has no more figures.
    pub trouble: Option<String>,
}

impl Default for ServerNote {
    fn default() -> Self {
        Self {
            name: String::new(),
            group: String::new(),
            role: Role::Peer,
            relays: false,
            sync: String::new(),
            seen: None,
            durable: None,
            lost: 0,
            doubled: 0,
            trouble: None,
        }
    }
}

impl ServerNote {
    fn new(server: &Server) -> Self {
        Self {
            name: server.name.clone(),
            group: server.group.clone(),
            role: server.role,
            relays: server.relays,
            sync: server.sync.clone(),
            ..Self::default()
        }
    }

    /// The floor: a group of its own.
    fn floor() -> Self {
        Self {
            name: FLOOR_NAME.to_owned(),
            group: FLOOR_NAME.to_owned(),
            role: Role::Bound,
            sync: "keeps nothing, checks nothing: the least for the same dialogue".to_owned(),
            ..Self::default()
        }
    }

    /// Takes down what one session showed. On a device with FUA a durable write needs no flush.
    pub fn sync_seen(&mut self, flushes: f64, writes: f64, fua: bool) {
        self.seen = Some([flushes, writes]);
        let often = if fua { flushes.max(writes) } else { flushes };
        self.durable = Some(often >= DURABLE_FLUSHES_MIN);
    }

    /// Adds what the next hop's account says.
    pub fn account(&mut self, account: &Account) {
        self.lost += account.lost;
        self.doubled += account.doubled;
    }

    fn sync_text(&self) -> String {
        let seen = self.seen.map_or_else(String::new, |[flushes, writes]| {
            format!(" (one session: {flushes:.2} flushes, {writes:.2} writes a message)")
        });
        let mark = if self.durable == Some(false) { "NOT DURABLE: " } else { "" };
        format!("{mark}{}{seen}", self.sync)
    }
}

/// Ours against something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The load.
    pub run: String,
    /// Our server.
    pub ours: String,
    /// The floor or the better of the peers.
    pub other: String,
    /// `cpu`: how many times less CPU ours needs; `rate`: how many times more it takes a second.
    /// Against the floor: the floor's CPU over ours.
    pub what: String,
    /// The ratio.
    pub value: Median,
    /// What it is worth.
    pub worth: Worth,
}

/// Whether a ratio counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Worth {
    /// It counts.
    Counts,
    /// The other's core was busy and ours was not: ours could do more.
    AtLeast,
    /// The other's core was not busy either.
    ClientLimited,
}

impl Worth {
    fn text(self) -> &'static str {
        match self {
            Self::Counts => "",
            Self::AtLeast => ", at least: our core was not busy",
            Self::ClientLimited => ", client-limited",
        }
    }
}

/// Name and value of a figure of a burst.
type Figure = (&'static str, fn(&Burst) -> f64);

/// All figures a comparison keeps of a server under a load.
pub const FIGURES: [Figure; 15] = [
    ("cpu_us", |burst| burst.cpu_us_per_message),
    ("kernel_us", |burst| burst.kernel_us_per_message.unwrap_or(f64::NAN)),
    ("journal_us", |burst| burst.journal_us_per_message.unwrap_or(f64::NAN)),
    ("rate", |burst| burst.source.messages_per_s),
    ("relayed", |burst| burst.relayed_per_s.unwrap_or(f64::NAN)),
    ("busy", |burst| burst.server_busy),
    ("source_us", |burst| burst.source.source_cpu_us_per_message),
    ("dot_p50_us", |burst| dot(burst, |figures| figures.p50_us)),
    ("dot_p99_us", |burst| dot(burst, |figures| figures.p99_us)),
    ("message_p99_us", |burst| {
        burst.source.phases.get("message").map_or(f64::NAN, |figures| figures.p99_us)
    }),
    ("flushes", |burst| burst.device.map_or(f64::NAN, |device| device[0])),
    ("writes", |burst| burst.device.map_or(f64::NAN, |device| device[1])),
    ("written_octets", |burst| {
        let octets = burst.source.octets as f64 / burst.source.acked.max(1) as f64;
        burst.device.map_or(f64::NAN, |device| device[2] * octets)
    }),
    ("anonymous_octets", |burst| burst.anonymous as f64),
    ("processes", |burst| burst.processes as f64),
];

fn dot(burst: &Burst, figure: fn(&crate::source::report::Figures) -> f64) -> f64 {
    burst.source.phases.get("final_dot").map_or(f64::NAN, figure)
}

/// The rate that counts: what reached the next hop, where there is one.
fn rate(burst: &Burst) -> f64 {
    burst.relayed_per_s.unwrap_or(burst.source.messages_per_s)
}

impl Report {
    /// An empty one.
    pub fn new(plan: &Plan, meter: &Meter) -> io::Result<Self> {
        let began = std::time::UNIX_EPOCH.elapsed().map_err(io::Error::other)?;
        let floor = plan.floor.then(ServerNote::floor);
        Ok(Self {
            title: plan.title.clone(),
            began_s: began.as_secs(),
            machine: Machine::look(meter.device.as_deref()),
            plan: plan.clone(),
            servers: floor.into_iter().chain(plan.servers.iter().map(ServerNote::new)).collect(),
            runs: plan.runs(),
            bursts: Vec::new(),
            bare: None,
            bare_batch: None,
            interrupted: false,
            figures: BTreeMap::new(),
            ratios: Vec::new(),
        })
    }

    /// Takes down why a server is left out from now on.
    pub fn trouble(&mut self, server: &str, why: &str) {
        if let Some(note) = self.servers.iter_mut().find(|note| note.name == server) {
            note.trouble = Some(why.to_owned());
        }
    }

    /// A figure's median.
    pub fn figure(&self, run: &str, server: &str, figure: &str) -> Option<Median> {
        self.figures.get(&format!("{run}|{server}|{figure}")).copied()
    }

    fn bursts_of<'r>(&'r self, run: &'r str, server: &'r str) -> impl Iterator<Item = &'r Burst> {
        self.bursts.iter().filter(move |burst| burst.load == run && burst.server == server)
    }

    /// Medians of the points of the final dot's latency curve, microseconds.
    pub fn curve(&self, run: &str, server: &str) -> Option<Vec<f64>> {
        let curves: Vec<&Vec<f64>> = self
            .bursts_of(run, server)
            .filter_map(|burst| Some(&burst.source.phases.get("final_dot")?.curve))
            .filter(|curve| curve.len() == CURVE.len())
            .collect();
        let at = |point: usize| Median::of(curves.iter().map(|curve| curve[point]));
        (0..CURVE.len()).map(|point| Some(at(point)?.value)).collect()
    }

    /// Octets in one durable write of our durable server, as seen.
    pub fn batch_octets(&self) -> Option<usize> {
        let note = self.servers.iter().find(|n| n.role == Role::Ours && n.durable == Some(true))?;
        let batch = |burst: &Burst| {
            let [flushes, _, ratio] = burst.device?;
            let octets = burst.source.octets as f64 / burst.source.acked.max(1) as f64 * ratio;
            (flushes > 0.0).then_some(octets / flushes)
        };
        let bursts = self.bursts.iter().filter(|burst| burst.server == note.name);
        let octets = Median::of(bursts.filter_map(batch))?.value;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "some octets: positive and far below 2^52"
        )]
        Some(octets as usize)
    }

    /// Fills in figures and ratios.
    pub fn settle(&mut self) {
        self.figures.clear();
        self.ratios.clear();
        for run in &self.runs {
            for note in &self.servers {
                // A burst in which nothing was acknowledged has no cost of a message.
                let some = |burst: &&Burst| burst.source.acked > 0;
                for (name, figure) in FIGURES {
                    let bursts = self.bursts_of(&run.name, &note.name).filter(some);
                    if let Some(median) = Median::of(bursts.map(figure)) {
                        self.figures.insert(format!("{}|{}|{name}", run.name, note.name), median);
                    }
                }
            }
        }
        for run in self.runs.clone() {
            let ours: Vec<ServerNote> =
                self.servers.iter().filter(|note| note.role == Role::Ours).cloned().collect();
            for note in ours {
                self.ratios_of(&run.name, &note);
            }
        }
    }

    /// Takes down how busy the machine was at the end.
    pub fn finish(&mut self) {
        self.machine.load_average[1] = crate::system::load_average();
    }

    fn round<'r>(&'r self, run: &'r str, server: &'r str, round: usize) -> Option<&'r Burst> {
        self.bursts_of(run, server).find(|burst| burst.round == round && burst.source.acked > 0)
    }

    /// Rounds carried out, the one that was cut short included.
    pub(super) fn rounds(&self) -> usize {
        self.bursts.iter().map(|burst| burst.round + 1).max().unwrap_or(0)
    }

    fn ratios_of(&mut self, run: &str, note: &ServerNote) {
        let ours = &note.name;
        let busy = |server: &str| {
            self.figure(run, server, "busy").is_some_and(|busy| busy.value >= BUSY_SHARE_MIN)
        };
        let mut found = Vec::new();
        let mut add = |other: &str, what: &str, value: Option<Median>, worth| {
            found.extend(value.map(|value| Ratio {
                run: run.to_owned(),
                ours: ours.clone(),
                other: other.to_owned(),
                what: what.to_owned(),
                value,
                worth,
            }));
        };
        let by_round =
            |one: &dyn Fn(usize) -> Option<f64>| Median::of((0..self.rounds()).filter_map(one));
        let cpu = |server: &str, round| Some(self.round(run, server, round)?.cpu_us_per_message);
        if !note.relays {
            let floor = by_round(&|round| Some(cpu(FLOOR_NAME, round)? / cpu(ours, round)?));
            add(FLOOR_NAME, "cpu", floor, Worth::Counts);
        }
        let peers: Vec<&str> = self
            .servers
            .iter()
            .filter(|peer| peer.role == Role::Peer && peer.group == note.group)
            // Whoever keeps nothing is held against nobody who does.
            .filter(|_| note.durable != Some(false))
            .filter(|peer| peer.durable != Some(false) && peer.trouble.is_none())
            .map(|peer| &peer.name[..])
            .collect();
        let best = |figure: &str, sign: f64| {
            let value = |peer: &str| self.figure(run, peer, figure).map(|median| median.value);
            let known = peers.iter().filter_map(|&peer| Some((value(peer)? * sign, peer)));
            known.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, peer)| peer)
        };
        if let Some(peer) = best("cpu_us", 1.0) {
            let value = by_round(&|round| Some(cpu(peer, round)? / cpu(ours, round)?));
            add(peer, "cpu", value, Worth::Counts);
        }
        if let Some(peer) = best(if note.relays { "relayed" } else { "rate" }, -1.0) {
            let of = |server: &str, round| self.round(run, server, round).map(rate);
            let value = by_round(&|round| Some(of(ours, round)? / of(peer, round)?));
            let worth = match (busy(ours), busy(peer)) {
                (true, true) => Worth::Counts,
                (false, true) => Worth::AtLeast,
                (_, false) => Worth::ClientLimited,
            };
            add(peer, "rate", value, worth);
        }
        self.ratios.extend(found);
    }

    /// What the machine is, in a line.
    pub fn machine_text(&self) -> String {
        let machine = &self.machine;
        let device = machine.device.as_deref().map_or_else(
            || "no place watched".to_owned(),
            |device| format!("spools on {device}{}", if machine.fua { " with FUA" } else { "" }),
        );
        format!(
            "{} x {}, Linux {}, {device}; load average {:.1} before, {:.1} after",
            machine.cpus,
            machine.cpu,
            machine.kernel,
            machine.load_average[0],
            machine.load_average[1]
        )
    }

    /// The report for a person.
    pub fn table(&self) -> String {
        let mut text = format!("{}\n{}\n", self.title, self.machine_text());
        for (when, bare) in [("before", &self.bare), ("at our batch size", &self.bare_batch)] {
            if let Some(bare) = bare {
                let _ = writeln!(text, "bare machine {when}: {}", bare.text());
            }
        }
        if self.interrupted {
            text.push_str("ENDED EARLY: what was measured until then\n");
        }
        text.push('\n');
        for note in &self.servers {
            let _ = writeln!(text, "{:<18}{}", note.name, note.sync_text());
            if let Some(trouble) = &note.trouble {
                let _ = writeln!(text, "{:<18}LEFT OUT: {trouble}", "");
            }
            if note.lost + note.doubled > 0 {
                let (lost, doubled) = (note.lost, note.doubled);
                let _ = writeln!(text, "{:<18}{lost} NOT DELIVERED, {doubled} DOUBLED", "");
            }
        }
        text.push_str(
            "\nmedians [least-most] of rounds; CPU of all of a server's processes; busy: that over \
             the time;\nrate: messages a second, at the next hop for who relays; flushes, KiB: of \
             the device per message\n",
        );
        for run in &self.runs {
            self.run_table(&mut text, &run.name);
        }
        text
    }

    fn run_table(&self, text: &mut String, run: &str) {
        if !self.bursts.iter().any(|burst| burst.load == run) {
            return;
        }
        let _ = writeln!(
            text,
            "\n{run}\n{:<18}{:>26}{:>8}{:>24}{:>6}{:>9}{:>9}{:>9}{:>8}{:>6}",
            "server",
            "CPU us/message",
            "journal",
            "rate",
            "busy",
            "dot p50",
            "dot p99",
            "flushes",
            "KiB",
            "MiB"
        );
        for note in &self.servers {
            self.row(text, run, note);
        }
        for ratio in self.ratios.iter().filter(|ratio| ratio.run == run) {
            let _ = writeln!(text, "  {}", ratio.text());
        }
    }

    fn row(&self, text: &mut String, run: &str, note: &ServerNote) {
        let value = |figure: &str| self.figure(run, &note.name, figure);
        let Some(cpu) = value("cpu_us") else { return };
        let short = |figure: &str, unit: f64, digits: usize| {
            value(figure).map_or_else(|| "-".to_owned(), |m| format!("{:.digits$}", m.value / unit))
        };
        let rate = value("relayed").or_else(|| value("rate"));
        let _ = write!(
            text,
            "{:<18}{:>26}{:>8}{:>24}{:>5.0}%{:>9}{:>9}{:>9}{:>8}{:>6}",
            note.name,
            cpu.text(1),
            short("journal_us", 1.0, 1),
            rate.map_or_else(String::new, |rate| rate.text(0)),
            value("busy").map_or(0.0, |busy| busy.value * 100.0),
            short("dot_p50_us", 1.0, 0),
            short("dot_p99_us", 1.0, 0),
            short("flushes", 1.0, 3),
            short("written_octets", 1024.0, 1),
            short("anonymous_octets", 1_048_576.0, 0),
        );
        let bad = |burst: &Burst| burst.source.failures + burst.source.unknown;
        let errors: u64 = self.bursts_of(run, &note.name).map(bad).sum();
        let undelivered: u64 = self.bursts_of(run, &note.name).map(|b| b.undelivered).sum();
        if errors > 0 {
            let _ = write!(text, "  {errors} ERRORS");
        }
        if undelivered > 0 {
            let _ = write!(text, "  {undelivered} LATE");
        }
        text.push('\n');
    }
}

impl Ratio {
    /// One line for a person.
    pub fn text(&self) -> String {
        let value = self.value.text(2);
        match (&self.other[..], &self.what[..]) {
            (FLOOR_NAME, _) => format!("floor CPU / {} CPU: {value}", self.ours),
            (other, "cpu") => format!("CPU of {other} / CPU of {}: {value}", self.ours),
            (other, _) => {
                format!("rate of {} / rate of {other}: {value}{}", self.ours, self.worth.text())
            }
        }
    }
}
