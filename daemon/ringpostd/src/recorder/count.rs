//! What the recorder's events come to, by client, next hop or domain.
//!
//! *Limits.* [`NAMES_MAX`] names; what comes after them is counted as `(others)`.

use std::collections::HashMap;

use control::limits::TOPS_MAX;
use control::{List, Text, Top, Tops, TopsBy};

use super::text::sentence;
use super::{Entry, What};

/// Names that are told apart.
const NAMES_MAX: usize = 20_000;
const OTHERS: &str = "(others)";
const SECOND_US: u64 = 1_000_000;

/// A count under way.
#[derive(Debug)]
pub struct Count {
    by: TopsBy,
    after_us: u64,
    at: u64,
    end: u64,
    /// Wall time of the oldest event that was seen, counted or not.
    oldest_us: u64,
    tops: HashMap<Box<str>, Top>,
}

impl Count {
    pub(super) fn new(by: TopsBy, after_us: u64, (at, end): (u64, u64)) -> Self {
        Self { by, after_us, at, end, oldest_us: u64::MAX, tops: HashMap::new() }
    }

    pub(super) const fn place(&self) -> (u64, u64) {
        (self.at, self.end)
    }

    pub(super) const fn go_on(&mut self, at: u64) {
        self.at = at;
    }

    /// Takes an event in.
    pub(super) fn take(&mut self, entry: &Entry<'_>) {
        self.oldest_us = self.oldest_us.min(entry.wall_us);
        if entry.wall_us <= self.after_us {
            return;
        }
        match self.by {
            TopsBy::Peer if is_of_client(entry.what) => {
                if let Some(peer) = entry.peer {
                    self.add(&peer.ip().to_canonical().to_string(), entry);
                }
            }
            TopsBy::Destination if is_of_hop(entry.what) => {
                let name = String::from_utf8_lossy(entry.from);
                match entry.peer {
                    Some(peer) => self.add(&format!("{name} [{peer}]"), entry),
                    None => self.add(&name, entry),
                }
            }
            TopsBy::Domain if is_of_hop(entry.what) || entry.what == What::Refused => {
                // Behind the recipient an attempt names the one it was made from.
                let to = entry.to.split(|octet| *octet == b' ').next().unwrap_or_default();
                if let Some(at) = to.iter().rposition(|octet| *octet == b'@') {
                    let domain = String::from_utf8_lossy(&to[at + 1..]).to_ascii_lowercase();
                    self.add(&domain, entry);
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, name: &str, entry: &Entry<'_>) {
        let known = self.tops.contains_key(name) || self.tops.len() < NAMES_MAX;
        let top = self.tops.entry(if known { name } else { OTHERS }.into()).or_default();
        match entry.what {
            What::Connected => top.connected += 1,
            What::Accepted => {
                top.accepted += 1;
                top.octets += entry.number;
            }
            What::Relayed => top.relayed += 1,
            What::Refused | What::TurnedAway => top.refused += 1,
            What::Deferred => top.deferred += 1,
            What::Bounced => top.bounced += 1,
            _ => {}
        }
        let trouble = [What::Refused, What::TurnedAway, What::Deferred, What::Bounced];
        if trouble.contains(&entry.what) {
            top.trouble_us = entry.wall_us;
            top.last = Text::cut(&sentence(entry));
        }
    }

    /// What it came to at `now_us`, wall time.
    #[must_use]
    pub fn into_tops(self, now_us: u64) -> Tops {
        let from_us =
            self.after_us.max(if self.oldest_us == u64::MAX { 0 } else { self.oldest_us });
        let rows = self.tops.into_iter();
        let rows = rows.map(|(name, top)| Top { name: Text::cut(&name), ..top }).collect();
        sorted(rows, now_us.saturating_sub(from_us) / SECOND_US)
    }
}

/// The busiest first; those that do not fit are counted.
#[must_use]
pub fn sorted(mut rows: Vec<Top>, seconds: u64) -> Tops {
    rows.sort_by(|a, b| b.events().cmp(&a.events()).then_with(|| a.name.cmp(&b.name)));
    let left_out = rows.len().saturating_sub(TOPS_MAX) as u64;
    Tops { seconds, rows: List::cut(rows), left_out }
}

const fn is_of_client(what: What) -> bool {
    matches!(what, What::Connected | What::TurnedAway | What::Refused | What::Accepted)
}

const fn is_of_hop(what: What) -> bool {
    matches!(what, What::Relayed | What::Deferred | What::Bounced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Recorder;

    fn counted(by: TopsBy, after_us: u64) -> Tops {
        let mut recorder = Recorder::new(64 << 10);
        let entry = |wall_us, what, peer: &str, to: &'static [u8]| Entry {
            wall_us,
            what,
            reason: None,
            number: 100,
            peer: Some(peer.parse().unwrap()),
            id: b"",
            from: b"mx.example.net",
            to,
            said: b"no",
        };
        for n in 1..=10 {
            let wall_us = n * SECOND_US;
            recorder.put(&entry(wall_us, What::Connected, "192.0.2.1:1", b""));
            recorder.put(&entry(wall_us, What::Accepted, "192.0.2.1:2", b""));
            recorder.put(&entry(wall_us, What::Deferred, "192.0.2.9:25", b"a@Example.org x@y"));
        }
        recorder.put(&entry(SECOND_US * 10, What::Refused, "192.0.2.2:1", b"b@example.com"));
        let mut count = recorder.count(by, after_us);
        while !recorder.step_count(&mut count) {}
        count.into_tops(11 * SECOND_US)
    }

    #[test]
    fn clients_hops_and_domains_are_told_apart() {
        let peers = counted(TopsBy::Peer, 0);
        assert_eq!((&*peers.rows[0].name, peers.rows[0].connected), ("192.0.2.1", 10));
        assert_eq!((peers.rows[0].octets, peers.seconds), (1_000, 10));
        assert_eq!((&*peers.rows[1].name, peers.rows[1].refused), ("192.0.2.2", 1));
        assert!(peers.rows[1].last.contains("refused"), "{:?}", peers.rows[1]);
        let hops = counted(TopsBy::Destination, 5 * SECOND_US);
        assert_eq!(&*hops.rows[0].name, "mx.example.net [192.0.2.9:25]");
        assert_eq!((hops.rows[0].deferred, hops.seconds), (5, 6));
        let domains = counted(TopsBy::Domain, 0);
        let names: Vec<&str> = domains.rows.iter().map(|row| &*row.name).collect();
        assert_eq!(names, ["example.org", "example.com"]);
    }
}
