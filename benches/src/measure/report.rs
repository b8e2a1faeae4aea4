//! Medians, spreads and ratios of a measurement.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::commit::Commit;
use crate::limits::{BUSY_SHARE_MIN, DURABLE_FLOOR_NAME, FLOOR_NAME, LARGE_MESSAGE};
use crate::meter::Burst;
use crate::stats::Median;

const MIB: f64 = 1048576.0;

/// Memory of a server under idle sessions.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    /// The server's name.
    pub server: String,
    /// Sessions that stood.
    pub sessions: u64,
    /// Resident octets before.
    pub before: u64,
    /// Resident octets with all sessions.
    pub with: u64,
}

impl Idle {
    /// Growth for each session, octets.
    pub fn octets_per_session(&self) -> f64 {
        (self.with as f64 - self.before as f64) / self.sessions.max(1) as f64
    }
}

/// Memory of a server that takes large messages, all at the same time.
#[derive(Debug, Clone, Serialize)]
pub struct Large {
    /// The server's name.
    pub server: String,
    /// Messages acknowledged.
    pub acked: u64,
    /// Peak resident octets before.
    pub before: u64,
    /// Peak resident octets after.
    pub after: u64,
}

impl Large {
    /// Growth for each message, octets.
    pub fn octets_per_message(&self) -> f64 {
        (self.after as f64 - self.before as f64) / self.acked.max(1) as f64
    }
}

/// The block device whose requests were counted.
#[derive(Debug, Clone, Serialize)]
pub struct Device {
    /// As /proc/diskstats names it.
    pub name: String,
    /// It makes single writes durable without a flush: then writes are what counts.
    pub fua: bool,
}

/// All that was measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Servers in the order given, the floor first.
    pub servers: Vec<String>,
    /// Loads in the order run.
    pub loads: Vec<String>,
    /// Those of them in closed loop.
    pub loads_closed: Vec<String>,
    /// Those in open loop at half the rate.
    pub loads_half: Vec<String>,
    /// Sessions at the same time.
    pub sessions: u32,
    /// CPUs of servers and source.
    pub cpus: [usize; 2],
    /// Before and after.
    pub load_average: [f64; 2],
    /// Every burst.
    pub bursts: Vec<Burst>,
    /// Idle memory, by server.
    pub idle: Vec<Idle>,
    /// Memory under large messages, by server.
    pub large: Vec<Large>,
    /// The bare commit where the spools are.
    pub commit: Option<Commit>,
    /// The same just before each round at half the rate.
    pub commits: Vec<Commit>,
    /// The device below the spools.
    pub device: Option<Device>,
    /// Medians by `load/server/figure`, and ratios by `load/a:b/figure`.
    pub medians: BTreeMap<String, Median>,
}

type Figure = (&'static str, fn(&Burst) -> f64);

const FIGURES: [Figure; 9] = [
    ("cpu_us", |burst| burst.cpu_us_per_message),
    ("rate", |burst| burst.source.messages_per_s),
    ("busy", |burst| burst.server_busy),
    ("source_us", |burst| burst.source.source_cpu_us_per_message),
    ("dot_p50_us", |burst| phase(burst, |figures| figures.p50_us)),
    ("dot_p99_us", |burst| phase(burst, |figures| figures.p99_us)),
    ("written", |burst| burst.written_per_octet),
    ("flushes", |burst| burst.device.map_or(f64::NAN, |device| device[0])),
    ("writes", |burst| burst.device.map_or(f64::NAN, |device| device[1])),
];

fn phase(burst: &Burst, figure: fn(&crate::source::report::Figures) -> f64) -> f64 {
    burst.source.phases.get("final_dot").map_or(f64::NAN, figure)
}

impl Report {
    fn of(&self, load: &str, server: &str, figure: fn(&Burst) -> f64) -> Option<Median> {
        // A burst in which nothing was acknowledged has no cost of a message.
        let bursts = self.bursts.iter().filter(|b| b.source.acked > 0);
        let bursts = bursts.filter(|b| b.load == load && b.server == server);
        Median::of(bursts.map(figure))
    }

    /// Ratio a / b of a figure, round by round, so that slow drifts of the machine fall out.
    fn ratio(&self, load: &str, a: &str, b: &str, figure: fn(&Burst) -> f64) -> Option<Median> {
        let find = |server: &str, round| {
            let mut bursts = self.bursts.iter().filter(|x| x.source.acked > 0);
            bursts.find(|x| x.load == load && x.server == server && x.round == round).map(figure)
        };
        let rounds = self.bursts.iter().map(|burst| burst.round).max()? + 1;
        Median::of((0..rounds).filter_map(|round| Some(find(a, round)? / find(b, round)?)))
    }

    /// Median rate of a server under a load, messages a second.
    pub fn rate(&self, load: &str, server: &str) -> Option<f64> {
        Some(self.of(load, server, |burst| burst.source.messages_per_s)?.value)
    }

    /// Pairs whose ratios are printed: the floor over each, discard over durable, and the durable
    /// floor over durable.
    fn pairs(&self) -> Vec<(String, String)> {
        let mut pairs: Vec<(String, String)> = self
            .servers
            .iter()
            .filter(|name| *name != FLOOR_NAME)
            .map(|name| (FLOOR_NAME.to_owned(), name.clone()))
            .collect();
        let (discard, durable) = ("discard".to_owned(), "durable".to_owned());
        if self.servers.contains(&discard) && self.servers.contains(&durable) {
            pairs.push((discard, durable.clone()));
        }
        let least = DURABLE_FLOOR_NAME.to_owned();
        if self.servers.contains(&least) && self.servers.contains(&durable) {
            pairs.push((least, durable));
        }
        pairs
    }

    /// Fills in `medians`.
    pub fn settle(&mut self) {
        let mut medians = BTreeMap::new();
        for load in &self.loads {
            for (name, figure) in FIGURES {
                for server in &self.servers {
                    if let Some(median) = self.of(load, server, figure) {
                        medians.insert(format!("{load}/{server}/{name}"), median);
                    }
                }
            }
            for (a, b) in self.pairs() {
                if let Some(ratio) = self.ratio(load, &a, &b, |burst| burst.cpu_us_per_message) {
                    medians.insert(format!("{load}/{a}:{b}/cpu_us"), ratio);
                }
            }
        }
        self.medians = medians;
    }

    /// The report for a person.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "medians [least-most]; CPU of all of a server's processes, busy = that over the time\n",
        );
        let [servers, source] = self.cpus;
        let _ = writeln!(text, "servers on CPU {servers}, source on CPU {source}");
        for load in &self.loads {
            let _ = writeln!(text, "\n{load}");
            let _ = writeln!(
                text,
                "{:<12}{:>22}{:>9}{:>7}{:>9}{:>11}{:>11}{:>9}{:>9}",
                "server",
                "CPU us/message",
                "msgs/s",
                "busy",
                "source",
                "dot p50",
                "dot p99",
                "written",
                "flushes"
            );
            for server in &self.servers {
                self.row(&mut text, load, server);
            }
            for (a, b) in self.pairs() {
                self.ratios(&mut text, load, &a, &b);
            }
        }
        if !self.idle.is_empty() {
            text.push_str("\nidle sessions after EHLO, plaintext where TLS is not named\n");
        }
        for idle in &self.idle {
            let _ = writeln!(
                text,
                "{:<14}{:>10.0} octets a session ({} sessions, {:.1} -> {:.1} MiB resident)",
                idle.server,
                idle.octets_per_session(),
                idle.sessions,
                idle.before as f64 / MIB,
                idle.with as f64 / MIB,
            );
        }
        if !self.large.is_empty() {
            let (size, count) = LARGE_MESSAGE;
            let _ = writeln!(text, "\n{count} messages of {size} octets at once");
        }
        for large in &self.large {
            let _ = writeln!(
                text,
                "{:<12}{:>10.2} MiB a message ({} acknowledged, peak {:.1} -> {:.1} MiB)",
                large.server,
                large.octets_per_message() / MIB,
                large.acked,
                large.before as f64 / MIB,
                large.after as f64 / MIB,
            );
        }
        text.push('\n');
        for commit in self.commit.iter().chain(&self.commits) {
            let _ = writeln!(
                text,
                "bare commit of 4 KiB: p50 {:.0} us, p99 {:.0} us",
                commit.p50_us, commit.p99_us
            );
        }
        text.push_str(&super::targets::text(self));
        text
    }

    fn row(&self, text: &mut String, load: &str, server: &str) {
        let value = |name: &str| self.medians.get(&format!("{load}/{server}/{name}")).copied();
        let Some(cpu) = value("cpu_us") else { return };
        let number = |name, digits: usize| {
            value(name).map_or_else(|| "-".to_owned(), |m| format!("{:.digits$}", m.value))
        };
        let spread = format!("{:.2} [{:.2}-{:.2}]", cpu.value, cpu.least, cpu.most);
        let busy = value("busy").map_or(0.0, |m| m.value * 100.0);
        let _ = write!(
            text,
            "{server:<12}{spread:>22}{:>9}{busy:>6.0}%{:>9}{:>11}{:>11}{:>9}{:>9}",
            number("rate", 0),
            number("source_us", 2),
            number("dot_p50_us", 0),
            number("dot_p99_us", 0),
            number("written", 3),
            number("flushes", 3),
        );
        let mine = self.bursts.iter().filter(|b| b.load == load && b.server == server);
        let bad: u64 = mine.map(|b| b.source.failures + b.source.refused + b.source.unknown).sum();
        text.push_str(&if bad > 0 { format!("  {bad} ERRORS\n") } else { "\n".to_owned() });
    }

    fn ratios(&self, text: &mut String, load: &str, a: &str, b: &str) {
        let Some(cpu) = self.medians.get(&format!("{load}/{a}:{b}/cpu_us")) else { return };
        let name = format!("{a} / {b}");
        let _ = write!(text, "{name:<20} CPU {:.2} [{:.2}-{:.2}]", cpu.value, cpu.least, cpu.most);
        let busy = [a, b].map(|server| {
            self.medians.get(&format!("{load}/{server}/busy")).map_or(0.0, |median| median.value)
        });
        let rate = self.ratio(load, b, a, |burst| burst.source.messages_per_s);
        if busy.iter().all(|&share| share >= BUSY_SHARE_MIN)
            && let Some(rate) = rate
        {
            let _ = writeln!(text, ", rate {b} / {a} {:.2}", rate.value);
        } else {
            let _ = writeln!(
                text,
                ", rates client-limited (busy {:.0} %, {:.0} %)",
                busy[0] * 100.0,
                busy[1] * 100.0
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst(server: &str, round: usize, cpu: f64, busy: f64) -> Burst {
        let mut record = crate::source::report::Record::new();
        record.acked = 100;
        let second = std::time::Duration::from_secs(1);
        Burst {
            server: server.to_owned(),
            load: "l".to_owned(),
            round,
            cpu_us_per_message: cpu,
            server_busy: busy,
            cpus_busy: [busy, 1.0],
            written_per_octet: 0.0,
            device: None,
            kernel_us_per_message: None,
            journal_us_per_message: None,
            anonymous: 0,
            processes: 0,
            relayed_per_s: None,
            undelivered: 0,
            source: record.summary(second, second),
        }
    }

    #[test]
    fn ratios_are_taken_round_by_round_and_rates_only_of_busy_servers() {
        let mut report = Report {
            servers: ["floor", "discard", "durable"].map(str::to_owned).to_vec(),
            loads: vec!["l".to_owned()],
            ..Report::default()
        };
        // The machine slows down threefold in the second round: the ratio does not move.
        for (round, factor) in [(0, 1.0), (1, 3.0)] {
            report.bursts.push(burst("floor", round, 8.0 * factor, 0.97));
            report.bursts.push(burst("discard", round, 10.0 * factor, 0.97));
            report.bursts.push(burst("durable", round, 16.0 * factor, 0.90));
        }
        report.settle();
        let of = |key: &str| report.medians[key];
        let flat = |value| Median { value, least: value, most: value };
        assert_eq!(of("l/floor:discard/cpu_us"), flat(0.8));
        assert_eq!(of("l/floor:durable/cpu_us"), flat(0.5));
        assert_eq!(of("l/discard:durable/cpu_us"), flat(0.625));
        let table = report.table();
        assert!(table.contains("rate discard / floor 1.00"), "{table}");
        assert!(table.contains("rates client-limited (busy 97 %, 90 %)"), "{table}");
    }
}
