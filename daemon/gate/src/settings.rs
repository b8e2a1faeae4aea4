//! What the operator decides, checked, and turned into the filter's config.

use std::net::IpAddr;

use ebpf_common::config::{Config, FLAG_ANSWER, FLAG_BUCKET};
use ebpf_common::entry::Action;
use ebpf_common::limits::{LISTS_MAX, PORTS_MAX, REASONS_MAX};
use ebpf_common::packet::Tunnel;
use ebpf_common::text::{self, Text, text_row};

use crate::bans::words;
use crate::kernel::{Facts, Way};
use crate::limits::INTERFACES_MAX;
use crate::problem::Problem;

/// How many SYNs a network may send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// SYNs a second, in the long run.
    pub syns_per_s: u32,
    /// SYNs at once.
    pub burst: u32,
    /// Bits of an IPv4 address that name a network.
    pub bits4: u8,
    /// Bits of an IPv6 address that name a network, at most 64.
    pub bits6: u8,
}

/// Everything that is decided outside the gate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Interfaces to be attached to.
    pub interfaces: Vec<String>,
    /// Leave the filter attached when the gate ends.
    pub keep: bool,
    /// Ports that are judged.
    pub ports: Vec<u16>,
    /// Nothing goes further than this. [`Action::Count`] changes no packet's fate.
    pub mode: Action,
    /// Whether the stateless 554 may be given.
    pub answer: bool,
    /// How far a list may go, by its number. A list without a line goes to [`Action::Pass`].
    pub ceilings: Vec<(u8, Action)>,
    /// What the 554 says for a reason, by its number: URL or postmaster's address in it.
    pub texts: Vec<(u8, String)>,
    /// Limit of SYNs by source network.
    pub rate: Option<Rate>,
    /// How packets come through an L4 switch.
    pub tunnel: Tunnel,
    /// Our ends of tunnels: two of each family at most.
    pub ends: Vec<IpAddr>,
    /// The switch hides the clients: the filter is not attached.
    pub proxy: bool,
    /// One hit in 2^n of an entry is an event.
    pub sample_shift: u8,
    /// Ways back beyond those that the kernel's files show.
    pub ways: Vec<Way>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            keep: false,
            ports: vec![25],
            mode: Action::Count,
            answer: false,
            ceilings: Vec::new(),
            texts: Vec::new(),
            rate: None,
            tunnel: Tunnel::Direct,
            ends: Vec::new(),
            proxy: false,
            sample_shift: 6,
            ways: Vec::new(),
        }
    }
}

/// Refuses what is out of range, with the setting's name.
const fn need(holds: bool, what: &'static str) -> Result<(), Problem> {
    if holds { Ok(()) } else { Err(Problem::Setting(what)) }
}

impl Settings {
    /// The filter's config; keys, generation and the flag for tags are the gate's to fill in.
    ///
    /// # Errors
    /// [`Problem::Setting`] names what is out of range.
    pub(crate) fn config(&self, facts: Facts) -> Result<Config, Problem> {
        need(self.interfaces.len() <= INTERFACES_MAX, "interfaces")?;
        need(self.ports.len() <= PORTS_MAX && !self.ports.contains(&0), "ports")?;
        need(self.sample_shift < 32, "sample_shift")?;
        let mut config = Config::new();
        config.ports = [0; PORTS_MAX];
        config.ports[..self.ports.len()].copy_from_slice(&self.ports);
        config.mode = self.mode as u8;
        config.sample_shift = self.sample_shift;
        if self.answer {
            config.flags |= FLAG_ANSWER;
        }
        config.ceilings = [Action::Pass as u8; LISTS_MAX];
        for (list, action) in &self.ceilings {
            need(usize::from(*list) < LISTS_MAX, "list")?;
            config.ceilings[usize::from(*list)] = *action as u8;
        }
        self.tunnel(&mut config)?;
        if let Some(rate) = &self.rate {
            need(rate.syns_per_s > 0 && u64::from(rate.syns_per_s) <= facts.hz << 10, "rate")?;
            need(rate.burst > 0 && rate.burst < 1 << 20, "burst")?;
            need(rate.bits4 <= 32 && rate.bits6 <= 64, "bits of a network")?;
            config.flags |= FLAG_BUCKET;
            config.bucket_step = (facts.hz << 10) / u64::from(rate.syns_per_s);
            config.bucket_room = config.bucket_step * u64::from(rate.burst - 1);
            let missing = u32::from(32 - rate.bits4);
            config.bucket_mask4 = u32::MAX.checked_shl(missing).unwrap_or(0);
            let missing = u32::from(64 - rate.bits6);
            config.bucket_mask6 = u64::MAX.checked_shl(missing).unwrap_or(0);
        }
        Ok(config)
    }

    fn tunnel(&self, config: &mut Config) -> Result<(), Problem> {
        (config.tunnel, config.gue_port) = match self.tunnel {
            Tunnel::Direct => (0, 0),
            Tunnel::Ipip => (1, 0),
            Tunnel::Gue(port) => (2, port),
        };
        need(self.tunnel == Tunnel::Direct || !self.ends.is_empty(), "ends of the tunnel")?;
        let (mut four, mut six) = (0, 0);
        for end in &self.ends {
            let address = words(*end);
            if address.six {
                *config.ends6.get_mut(six).ok_or(Problem::Setting("ends"))? = address.words;
                six += 1;
            } else {
                *config.ends4.get_mut(four).ok_or(Problem::Setting("ends"))? = address.words[0];
                four += 1;
            }
        }
        Ok(())
    }

    /// Rows of the map of texts.
    ///
    /// # Errors
    /// A text that is too long, or has other than printable ASCII.
    pub(crate) fn rows(&self) -> Result<Vec<(u32, Text)>, Problem> {
        let mut rows = Vec::new();
        let listed = |reason| {
            self.texts
                .iter()
                .find(|(n, _)| *n == reason)
                .map_or("refused; contact postmaster", |t| &t.1)
        };
        need(self.texts.iter().all(|(n, _)| usize::from(*n) < REASONS_MAX), "reason")?;
        for reason in 0..u8::try_from(REASONS_MAX).expect("a reason is one octet") {
            for six in [false, true] {
                let text = text::prepare(six, listed(reason)).ok_or(Problem::Setting("text"))?;
                rows.push((text_row(reason, six), text));
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts { hz: 250, jiffies_start: 0 };

    #[test]
    fn the_default_counts_and_no_list_goes_anywhere() {
        let config = Settings::default().config(FACTS).expect("sound");
        assert_eq!(config.mode, Action::Count as u8);
        assert_eq!(config.flags, 0);
        assert_eq!(config.ceiling(0), Action::Pass);
        assert!(config.judges(25));
    }

    #[test]
    fn a_rate_is_steps_and_room() {
        let rate = Rate { syns_per_s: 10, burst: 5, bits4: 24, bits6: 48 };
        let settings = Settings { rate: Some(rate), ..Settings::default() };
        let config = settings.config(FACTS).expect("sound");
        assert_eq!(config.bucket_step, 25_600);
        assert_eq!(config.bucket_room, 4 * 25_600);
        assert_eq!(config.bucket_mask4, 0xffff_ff00);
        assert_eq!(config.bucket_mask6, 0xffff_ffff_ffff_0000);
        let all = Rate { bits4: 0, bits6: 0, ..rate };
        let config = Settings { rate: Some(all), ..settings }.config(FACTS).expect("sound");
        assert_eq!((config.bucket_mask4, config.bucket_mask6), (0, 0));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let wrong = |settings: Settings| settings.config(FACTS).expect_err("wrong").to_string();
        let base = Settings::default;
        assert!(wrong(Settings { ports: vec![0], ..base() }).contains("ports"));
        assert!(wrong(Settings { ceilings: vec![(64, Action::Drop)], ..base() }).contains("list"));
        assert!(wrong(Settings { tunnel: Tunnel::Ipip, ..base() }).contains("ends"));
        let ends = vec!["192.0.2.1".parse().unwrap(); 3];
        assert!(wrong(Settings { ends, ..base() }).contains("ends"));
        let texts = vec![(0, "x".repeat(200))];
        assert!(Settings { texts, ..base() }.rows().is_err());
    }
}
