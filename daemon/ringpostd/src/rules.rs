//! The operator's standing orders: what waits, what is suspended, who is turned away or let in.
//!
//! *Guarantees.* They hold until they are taken back or expire, over restarts too: the house writes
//! them to a file before it says that they hold. Allow wins over block.
//! *Limits.* [`RULES_MAX`] of each kind.
//! *Failure.* A line of the file that cannot be read is named and left out; the others hold.
//! *Not here.* Files (`house`), what the rules mean for a session (`inbound`) or a message
//! (`relay`).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use control::{Accepting, Rule};

use crate::config::Network;

/// Rules of one kind.
pub const RULES_MAX: usize = 10_000;

/// An address or network that is turned away, or let in past every limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub network: Network,
    /// As it was written.
    pub text: String,
    /// Let in; else turned away.
    pub allow: bool,
    /// Until when, wall seconds; 0: until it is taken back.
    pub until_s: u64,
    /// Since when, wall seconds.
    pub since_s: u64,
    /// Why.
    pub why: String,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Domains whose mail waits, lower case.
    pub held: BTreeSet<String>,
    /// Whether mail is taken.
    pub accepting: Accepting,
    /// Whether mail is sent on.
    pub delivering: bool,
    /// Addresses.
    pub listed: Vec<Listed>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            held: BTreeSet::new(),
            accepting: Accepting::Open,
            delivering: true,
            listed: Vec::new(),
        }
    }
}

/// As recipients' domains are compared: in lower case, without the dot of the root.
fn plain_domain(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    text.strip_suffix('.').map_or_else(|| text.clone(), str::to_owned)
}

fn network_of(text: &str) -> Result<Network, String> {
    Network::parse(text).map_err(|error| match error {
        crate::config::NetworkError::HostBits(network) => {
            format!("{text} has bits behind its prefix; {network} is meant?")
        }
        _ => format!(
            "{text} is neither an address nor a network: 192.0.2.1, 192.0.2.0/24, 2001:db8::/64"
        ),
    })
}

const ACCEPTING: [(Accepting, &str); 4] = [
    (Accepting::Open, "open"),
    (Accepting::Refuse, "refuse"),
    (Accepting::Closed, "closed"),
    (Accepting::Drain, "drain"),
];

impl Rules {
    /// Whether mail for this domain waits.
    #[must_use]
    pub fn holds(&self, domain: &str) -> bool {
        !self.held.is_empty() && self.held.contains(domain)
    }

    /// Whether this address is let in past all limits (true) or turned away (false).
    #[must_use]
    pub fn stance(&self, address: IpAddr, wall_s: u64) -> Option<bool> {
        let here = self.listed.iter().filter(|listed| {
            (listed.until_s == 0 || listed.until_s > wall_s) && listed.network.contains(address)
        });
        here.map(|listed| listed.allow).reduce(|a, b| a || b)
    }

    /// With this order given or taken back.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn with(&self, rule: &Rule, wall_s: u64) -> Result<Self, String> {
        let mut new = self.clone();
        new.listed.retain(|listed| listed.until_s == 0 || listed.until_s > wall_s);
        match rule {
            Rule::HoldDomain(domain) => {
                let domain = plain_domain(domain);
                let good = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b) || b > 127;
                let labels = domain.split('.').all(|label| !label.is_empty());
                if !labels || !domain.bytes().all(good) {
                    return Err(format!("{domain:?} is no domain"));
                }
                new.held.insert(domain);
            }
            Rule::ReleaseDomain(domain) => {
                // As it was given to an older version, or as it is kept.
                let given = domain.trim().to_ascii_lowercase();
                if !new.held.remove(&given) && !new.held.remove(&plain_domain(domain)) {
                    return Err(format!("{} is not held", &**domain));
                }
            }
            Rule::Accepting(accepting) => new.accepting = *accepting,
            Rule::Delivering(delivering) => new.delivering = *delivering,
            Rule::Listed { network, allow, seconds, why } => {
                let text = network.trim().to_ascii_lowercase();
                let network = network_of(&text)?;
                new.listed.retain(|listed| listed.network != network);
                let until_s = if *seconds == 0 { 0 } else { wall_s.saturating_add(*seconds) };
                let why = why.chars().filter(|c| !c.is_control()).collect();
                let (allow, since_s) = (*allow, wall_s);
                new.listed.push(Listed { network, text, allow, until_s, since_s, why });
            }
            Rule::Unlisted(network) => {
                let text = network.trim().to_ascii_lowercase();
                let network = network_of(&text)?;
                let before = new.listed.len();
                new.listed.retain(|listed| listed.network != network);
                if new.listed.len() == before {
                    return Err(format!("{text} is neither blocked nor allowed"));
                }
            }
        }
        if new.held.len() > RULES_MAX || new.listed.len() > RULES_MAX {
            return Err(format!("more than {RULES_MAX} rules of one kind"));
        }
        Ok(new)
    }

    /// As a file: one rule a line.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out =
            String::from("# Standing orders of the operator; `ringpost rules` shows them.\n");
        let accepting = ACCEPTING.iter().find(|(accepting, _)| *accepting == self.accepting);
        // Writing to a string cannot fail.
        let _ = writeln!(out, "accepting {}", accepting.map_or("open", |(_, name)| name));
        let _ = writeln!(out, "delivering {}", if self.delivering { "yes" } else { "no" });
        for domain in &self.held {
            let _ = writeln!(out, "hold {domain}");
        }
        for l in &self.listed {
            let verb = if l.allow { "allow" } else { "block" };
            let _ = writeln!(out, "{verb} {} {} {} {}", l.text, l.until_s, l.since_s, l.why);
        }
        out
    }

    /// From such a file, and the lines that make no sense.
    #[must_use]
    pub fn from_text(text: &str) -> (Self, Vec<String>) {
        let mut rules = Self::default();
        let mut bad = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if rules.take_line(line).is_none() {
                bad.push(line.to_owned());
            }
        }
        (rules, bad)
    }

    fn take_line(&mut self, line: &str) -> Option<()> {
        let (verb, rest) = line.split_once(' ')?;
        match verb {
            "accepting" => {
                self.accepting = ACCEPTING.iter().find(|(_, name)| *name == rest)?.0;
            }
            "delivering" => self.delivering = rest == "yes",
            "hold" => drop(self.held.insert(rest.to_owned())),
            "allow" | "block" => {
                let mut words = rest.splitn(4, ' ');
                let text = words.next()?.to_owned();
                let network = Network::parse(&text).ok()?;
                let (until_s, since_s) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                let why = words.next().unwrap_or_default().to_owned();
                let allow = verb == "allow";
                self.listed.push(Listed { network, text, allow, until_s, since_s, why });
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::Text;

    #[test]
    fn rules_are_given_written_read_and_taken_back() {
        let listed = |network: &str, allow, seconds| Rule::Listed {
            network: Text::cut(network),
            allow,
            seconds,
            why: Text::cut("a\nflood"),
        };
        let orders = [
            Rule::HoldDomain(Text::cut("Example.ORG")),
            Rule::Accepting(Accepting::Refuse),
            Rule::Delivering(false),
            listed("192.0.2.0/24", false, 60),
            listed("192.0.2.7", true, 0),
        ];
        let rules = orders.iter().fold(Rules::default(), |r, rule| r.with(rule, 1_000).unwrap());
        assert!(rules.holds("example.org") && !rules.holds("example.net"));
        let stance = |ip: &str, at| rules.stance(ip.parse().unwrap(), at);
        assert_eq!(stance("192.0.2.9", 1_030), Some(false));
        assert_eq!(stance("192.0.2.9", 1_061), None, "it has expired");
        assert_eq!(stance("192.0.2.7", 1_030), Some(true), "allow wins");
        assert_eq!(Rules::from_text(&rules.to_text()), (rules.clone(), Vec::new()));
        let back = rules.with(&Rule::ReleaseDomain(Text::cut("example.org")), 1_000).unwrap();
        assert!(!back.holds("example.org"));
        assert!(back.with(&Rule::ReleaseDomain(Text::cut("example.org")), 1_000).is_err());
        assert!(back.with(&Rule::HoldDomain(Text::cut("a b")), 1_000).is_err());
        assert!(back.with(&Rule::HoldDomain(Text::cut("a..")), 1_000).is_err());
        let rooted = back.with(&Rule::HoldDomain(Text::cut("example.org.")), 1_000).unwrap();
        assert!(rooted.holds("example.org"), "as dig prints it");
        let back = rooted.with(&Rule::ReleaseDomain(Text::cut("example.org.")), 1_000).unwrap();
        assert!(!back.holds("example.org"));
        assert!(back.with(&Rule::Unlisted(Text::cut("192.0.2.0/24")), 1_000).is_ok());
        assert_eq!(Rules::from_text("nonsense\nhold a.example\n").1, ["nonsense"]);
    }
}
