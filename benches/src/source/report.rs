//! What a source has measured: a histogram per phase, counts, and the summary made of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The parts of a session whose time is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// From connect to the connection.
    Connect,
    /// From the connection to the banner.
    Banner,
    /// From EHLO to its reply.
    Ehlo,
    /// From STARTTLS to the end of the handshake.
    Tls,
    /// From MAIL to the 354, or with BDAT to the last RCPT's reply.
    Envelope,
    /// From the final dot to its reply.
    Dot,
    /// From the intended start (open loop) or MAIL (closed loop) to the 250 of the final dot.
    Message,
    /// From QUIT to its reply.
    Quit,
}

const PHASES: [(Phase, &str); 8] = [
    (Phase::Connect, "connect"),
    (Phase::Banner, "banner"),
    (Phase::Ehlo, "ehlo"),
    (Phase::Tls, "starttls"),
    (Phase::Envelope, "mail_to_data"),
    (Phase::Dot, "final_dot"),
    (Phase::Message, "message"),
    (Phase::Quit, "quit"),
];

const LONGEST_NS: u64 = 3_600_000_000_000;

/// Histograms (nanoseconds) and counts of a run.
#[derive(Debug)]
pub struct Record {
    histograms: Vec<Histogram<u64>>,
    /// Messages answered 250.
    pub acked: u64,
    /// Messages refused with 4xx or 5xx.
    pub refused: u64,
    /// Messages and connections refused that were made for it.
    pub refused_as_wished: u64,
    /// Messages taken that should have been refused.
    pub taken_wrongly: u64,
    /// TLS handshakes, and those of them that resumed a session.
    pub tls: [u64; 2],
    /// Messages whose outcome is unknown: the connection ended before the reply.
    pub unknown: u64,
    /// Connections that stood.
    pub connections: u64,
    /// Connections that failed or ended in mid-dialogue.
    pub failures: u64,
    /// Octets of acknowledged messages.
    pub octets: u64,
    /// When the last message was acknowledged, nanoseconds since the start.
    pub last_acked_ns: u64,
    /// Replies other than the expected one, by phase and code, and failures by name.
    pub unexpected: BTreeMap<String, u64>,
}

impl Record {
    /// Everything at zero.
    pub fn new() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("1 .. an hour, 3 digits");
        Self {
            histograms: PHASES.iter().map(|_| histogram()).collect(),
            acked: 0,
            refused: 0,
            refused_as_wished: 0,
            taken_wrongly: 0,
            tls: [0; 2],
            unknown: 0,
            connections: 0,
            failures: 0,
            octets: 0,
            last_acked_ns: 0,
            unexpected: BTreeMap::new(),
        }
    }

    /// Takes down one duration.
    #[inline]
    pub fn phase(&mut self, phase: Phase, ns: u64) {
        self.histograms[phase as usize].saturating_record(ns.max(1));
    }

    /// Counts something unexpected by name.
    pub fn note(&mut self, what: String) {
        *self.unexpected.entry(what).or_insert(0) += 1;
    }

    /// The figures to print.
    pub fn summary(&self, elapsed: Duration, cpu: Duration) -> Summary {
        let phases = PHASES
            .iter()
            .filter(|(phase, _)| !self.histograms[*phase as usize].is_empty())
            .map(|&(phase, name)| (name.to_owned(), figures(&self.histograms[phase as usize])))
            .collect();
        let messages = self.acked.max(1) as f64;
        // A session that is left without an answer at the end is an error, not a lower rate.
        let acked = Duration::from_nanos(self.last_acked_ns);
        let elapsed = if acked.is_zero() { elapsed } else { elapsed.min(acked) };
        Summary {
            acked: self.acked,
            refused: self.refused,
            refused_as_wished: self.refused_as_wished,
            taken_wrongly: self.taken_wrongly,
            tls_handshakes: self.tls[0],
            tls_resumed: self.tls[1],
            unknown: self.unknown,
            connections: self.connections,
            failures: self.failures,
            octets: self.octets,
            elapsed_s: elapsed.as_secs_f64(),
            messages_per_s: self.acked as f64 / elapsed.as_secs_f64().max(1e-9),
            source_cpu_us_per_message: cpu.as_secs_f64() * 1e6 / messages,
            source_busy: cpu.as_secs_f64() / elapsed.as_secs_f64().max(1e-9),
            idle_open: 0,
            phases,
            unexpected: self.unexpected.clone(),
        }
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

fn figures(histogram: &Histogram<u64>) -> Figures {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Figures {
        count: histogram.len(),
        mean_us: histogram.mean() / 1e3,
        p50_us: at(0.5),
        p90_us: at(0.9),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: histogram.max() as f64 / 1e3,
        curve: CURVE.iter().map(|&quantile| at(quantile)).collect(),
    }
}

/// Percentiles of one phase, microseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Figures {
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
    /// Microseconds at each of `CURVE`.
    #[serde(default)]
    pub curve: Vec<f64>,
}

/// Quantiles of a latency curve.
pub const CURVE: [f64; 14] =
    [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 1.0];

/// A finished run, as printed and as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the names say it; see `Record` for the counts; elapsed until the last 250"
)]
pub struct Summary {
    pub acked: u64,
    pub refused: u64,
    #[serde(default)]
    pub refused_as_wished: u64,
    #[serde(default)]
    pub taken_wrongly: u64,
    #[serde(default)]
    pub tls_handshakes: u64,
    #[serde(default)]
    pub tls_resumed: u64,
    pub unknown: u64,
    pub connections: u64,
    pub failures: u64,
    pub octets: u64,
    pub elapsed_s: f64,
    pub messages_per_s: f64,
    pub source_cpu_us_per_message: f64,
    pub source_busy: f64,
    pub idle_open: u64,
    pub phases: BTreeMap<String, Figures>,
    pub unexpected: BTreeMap<String, u64>,
}

impl Summary {
    /// The summary for a person.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} acknowledged, {} refused, {} unknown in {:.2} s: {:.0} messages/s, {:.1} MB/s\n\
             {} connections, {} failed; source: {:.2} us CPU per message, {:.0} % busy\n",
            self.acked,
            self.refused,
            self.unknown,
            self.elapsed_s,
            self.messages_per_s,
            self.octets as f64 / self.elapsed_s.max(1e-9) / 1e6,
            self.connections,
            self.failures,
            self.source_cpu_us_per_message,
            self.source_busy * 100.0,
        );
        if self.idle_open > 0 {
            let _ = writeln!(text, "{} idle sessions held", self.idle_open);
        }
        if self.tls_handshakes > 0 {
            let (all, resumed) = (self.tls_handshakes, self.tls_resumed);
            let _ = writeln!(text, "{all} TLS handshakes, {resumed} resumed");
        }
        if self.refused_as_wished + self.taken_wrongly > 0 {
            let _ = writeln!(
                text,
                "{} refused as wished, {} TAKEN though they should not",
                self.refused_as_wished, self.taken_wrongly
            );
        }
        let _ = writeln!(
            text,
            "{:<14}{:>10}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}  us",
            "phase", "count", "mean", "p50", "p90", "p99", "p99.9", "max"
        );
        for (_, name) in PHASES {
            if let Some(f) = self.phases.get(name) {
                let _ = writeln!(
                    text,
                    "{name:<14}{:>10}{:>11.1}{:>11.1}{:>11.1}{:>11.1}{:>11.1}{:>11.1}",
                    f.count, f.mean_us, f.p50_us, f.p90_us, f.p99_us, f.p999_us, f.max_us
                );
            }
        }
        for (what, count) in &self.unexpected {
            let _ = writeln!(text, "unexpected: {what}: {count}");
        }
        text
    }
}
