//! All lists of addresses, to be searched here and to be handed to the filter.

use std::net::IpAddr;

use ebpf_common::entry::{Action, Listing};
use ebpf_common::limits::{ALLOWED_MAX, HOSTS_MAX, NETWORKS_MAX};
use ebpf_common::packet::Address;
use ebpf_common::set::{RECORD_BYTES, Record, TABLES, Table, header};

use crate::config::{Config, ListConfig, ListFormat, Network, Rung, any_contains};
use crate::dnsbl::{Finding, Judged};
use crate::feeds::{self, Format};

/// The number of what the operator adds by hand.
pub const OPERATOR: u8 = 0;
/// The number of what was seen here: early talkers, harvesters, floods.
pub const OWN: u8 = 1;
/// The number of the first list of a config.
const FIRST: u8 = 2;
/// Part of the IPv4 space that a list above `refuse` may cover: more is a slip or a forgery.
const COVER_MAX: u64 = 1 << 28;
/// How long a listing of a file may be believed that does not say so itself.
const TTL_S: u32 = 3_600;

/// The number of the first DNS list of a config.
#[must_use]
pub fn first_zone(config: &Config) -> u8 {
    FIRST + u8::try_from(config.lists.len()).unwrap_or(u8::MAX - FIRST)
}

/// A standing order of the operator's, as the filter is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Of whom.
    pub network: Network,
    /// Let in; else turned away.
    pub allow: bool,
    /// Second of the monotonic clock at which it lapses; 0 is never.
    pub expires_s: u32,
}

/// A file that was read.
#[derive(Debug)]
pub struct List {
    config: ListConfig,
    four: Vec<(u32, u32)>,
    six: Vec<(u128, u128)>,
    /// The same as prefixes, for the filter.
    networks: Vec<feeds::Network>,
    ttl_s: u32,
    expires_s: u64,
}

impl List {
    /// Reads a file's octets.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn read(config: &ListConfig, octets: &[u8], wall_s: u64) -> Result<Self, String> {
        let format = match config.format {
            ListFormat::Plain => Format::Plain,
            ListFormat::DropJson => Format::DropJson,
            ListFormat::Rbldnsd4 => Format::Rbldnsd4,
            ListFormat::Rbldnsd6 => Format::Rbldnsd6,
        };
        let feed = feeds::read(format, octets).map_err(|refused| refused.to_string())?;
        let most = usize::try_from(config.entries_max).unwrap_or(usize::MAX);
        if feed.networks.len() > most {
            let count = feed.networks.len();
            return Err(format!("{count} networks, more than entries_max = {most}"));
        }
        let expires_s = feed.expires_s.unwrap_or(u64::MAX);
        if expires_s <= wall_s {
            return Err("its data is stale".to_owned());
        }
        let (mut four, mut six) = (Vec::new(), Vec::new());
        for network in &feed.networks {
            match network.address {
                IpAddr::V4(first) => {
                    let rest = u32::MAX.checked_shr(network.bits.into()).unwrap_or(0);
                    four.push((first.to_bits(), first.to_bits() | rest));
                }
                IpAddr::V6(first) => {
                    let rest = u128::MAX.checked_shr(network.bits.into()).unwrap_or(0);
                    six.push((first.to_bits(), first.to_bits() | rest));
                }
            }
        }
        let cover: u64 = four.iter().map(|(a, b)| u64::from(b - a) + 1).sum();
        let high = !config.allow && config.ceiling.height() > Rung::Refuse.height();
        if high && cover > COVER_MAX {
            return Err(format!("{cover} addresses, more than any list above `refuse` may have"));
        }
        let ttl_s = feed.ttl_s.unwrap_or(TTL_S);
        Ok(Self { config: config.clone(), four, six, networks: feed.networks, ttl_s, expires_s })
    }

    /// Networks in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.networks.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// Its keys.
    #[must_use]
    pub const fn config(&self) -> &ListConfig {
        &self.config
    }

    /// Whether an address is on it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        fn within<N: PartialOrd + Copy>(ranges: &[(N, N)], n: N) -> bool {
            let at = ranges.partition_point(|(first, _)| *first <= n);
            at > 0 && ranges[at - 1].1 >= n
        }
        match address.to_canonical() {
            IpAddr::V4(four) => within(&self.four, four.to_bits()),
            IpAddr::V6(six) => within(&self.six, six.to_bits()),
        }
    }

    const fn action(&self) -> Option<Action> {
        match self.config.ceiling {
            Rung::Drop => Some(Action::Drop),
            // The first contact is heard: the filter only counts it.
            Rung::Answer => Some(Action::Count),
            Rung::Refuse | Rung::Count => None,
        }
    }
}

/// One try to read all files.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// By place in the config; `None` where there is nothing to be believed.
    pub lists: Vec<Option<std::sync::Arc<List>>>,
}

/// What is searched.
#[derive(Debug, Default)]
pub struct Lists {
    lists: Vec<(u8, std::sync::Arc<List>)>,
    allow: Vec<Network>,
    names: Vec<String>,
}

impl Lists {
    /// Of what was read under a config.
    #[must_use]
    pub fn new(config: &Config, loaded: &Loaded) -> Self {
        let numbered = (FIRST..).zip(&loaded.lists);
        let lists = numbered.filter_map(|(n, list)| Some((n, list.clone()?))).collect();
        let mut names = vec!["operator".to_owned(), "local evidence".to_owned()];
        names.extend(config.lists.iter().map(|list| list.name.as_str().to_owned()));
        names.extend(config.dnsbl.iter().map(|zone| zone.zone.as_str().to_owned()));
        let relay = config.policy.relay_networks.iter().copied();
        let allow = config.xdp.allow.iter().copied().chain(relay).collect();
        Self { lists, allow, names }
    }

    /// What a list is called.
    #[must_use]
    pub fn name(&self, list: u8) -> &str {
        self.names.get(usize::from(list)).map_or("a list that is gone", String::as_str)
    }

    /// All names, by number.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Those that are in force, with their numbers.
    pub fn all(&self) -> impl Iterator<Item = (u8, &List)> {
        self.lists.iter().map(|(n, list)| (*n, &**list))
    }

    /// Whether the config always lets an address pass.
    #[must_use]
    pub fn is_allowed(&self, address: IpAddr) -> bool {
        any_contains(&self.allow, address)
    }

    /// What the files say of an address: the list that goes furthest.
    #[must_use]
    pub fn judge(&self, address: IpAddr, wall_s: u64) -> Judged {
        if self.is_allowed(address) {
            return Judged::Allowed;
        }
        let mut found: Option<Finding> = None;
        for (number, list) in self.all().filter(|(_, list)| list.expires_s > wall_s) {
            let (allow, ceiling) = (list.config.allow, list.config.ceiling);
            let further = found.is_none_or(|f| f.ceiling.height() < ceiling.height());
            if (allow || further) && list.contains(address) {
                if allow {
                    return Judged::Allowed;
                }
                found = Some(Finding { list: number, ceiling, ttl_s: list.ttl_s });
            }
        }
        found.map_or(Judged::Unlisted, Judged::Listed)
    }

    /// The set that the filter gets, with the operator's orders, and what did not fit, one line
    /// each.
    #[must_use]
    pub fn set(&self, orders: &[Order]) -> (Vec<u8>, Vec<String>) {
        let mut tables = Tables::default();
        for network in &self.allow {
            let address = words(network.address());
            tables.push(Table::Allowed4, Table::Allowed6, address, network.prefix(), OPEN);
        }
        // Of two that list the same network the one that goes further is written last, and stays.
        let mut order: Vec<_> = self.all().collect();
        order.sort_by_key(|(number, list)| (list.config.ceiling.height(), u8::MAX - number));
        for (number, list) in order {
            tables.list(number, list);
        }
        tables.orders(orders);
        let notes = tables.notes();
        (tables.octets(), notes)
    }
}

const OPEN: Listing =
    Listing { expires_s: 0, id: 0, reason: 0, action: Action::Pass, list: OPERATOR };

fn words(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(four) => Address::v4(four.to_bits()),
        IpAddr::V6(six) => Address::from_octets6(six.octets()),
    }
}

/// The records of a set while it is made.
#[derive(Default)]
struct Tables {
    records: [Vec<u8>; 6],
    lost: [usize; 6],
}

impl Tables {
    fn list(&mut self, number: u8, list: &List) {
        let allow = list.config.allow.then_some(Action::Pass);
        let Some(action) = allow.or_else(|| list.action()) else { return };
        let base = u32::from(number) << 24;
        for (n, network) in (0_u32..).zip(&list.networks) {
            let id = base | (n & 0x00ff_ffff);
            let listing = Listing { id, reason: number, action, list: number, ..OPEN };
            let (address, bits) = (words(network.address), network.bits);
            if list.config.allow {
                self.push(Table::Allowed4, Table::Allowed6, address, bits, listing);
            } else if !address.six && bits > 24 {
                for host in 0..1_u32 << (32 - bits) {
                    let host = Address::v4(address.words[0] | host);
                    self.push(Table::Hosts4, Table::Hosts6, host, 32, listing);
                }
            } else if address.six && bits == 64 {
                self.push(Table::Hosts4, Table::Hosts6, address, bits, listing);
            } else {
                self.push(Table::Networks4, Table::Networks6, address, bits, listing);
            }
        }
    }

    /// Who is blocked reads the 554 from the first SYN on; last, so that no list is in their place.
    /// Single addresses are networks as well: hosts have no end of their own.
    fn orders(&mut self, orders: &[Order]) {
        for (id, order) in (0_u32..).zip(orders) {
            let (address, bits) = (words(order.network.address()), order.network.prefix());
            if order.allow {
                self.push(Table::Allowed4, Table::Allowed6, address, bits, OPEN);
            } else {
                let action = Action::Answer;
                let listing = Listing { expires_s: order.expires_s, id, action, ..OPEN };
                self.push(Table::Networks4, Table::Networks6, address, bits, listing);
            }
        }
    }

    fn push(&mut self, four: Table, six: Table, address: Address, bits: u8, listing: Listing) {
        let table = if address.six { six } else { four };
        let records = &mut self.records[table as usize];
        let most = match table {
            Table::Hosts4 | Table::Hosts6 => HOSTS_MAX,
            Table::Networks4 | Table::Networks6 => NETWORKS_MAX,
            Table::Allowed4 | Table::Allowed6 => ALLOWED_MAX,
        };
        if records.len() / RECORD_BYTES >= usize::try_from(most).unwrap_or(usize::MAX) {
            self.lost[table as usize] += 1;
            return;
        }
        records.extend(Record { address, bits, listing }.to_octets());
    }

    fn notes(&self) -> Vec<String> {
        let lost = TABLES.iter().zip(self.lost).filter(|(_, lost)| *lost > 0);
        let note = |(table, lost)| format!("{lost} networks do not fit the filter's {table:?}");
        lost.map(note).collect()
    }

    fn octets(self) -> Vec<u8> {
        let count = |records: &Vec<u8>| u32::try_from(records.len() / RECORD_BYTES).unwrap_or(0);
        let counts = std::array::from_fn(|n| count(&self.records[n]));
        let mut out = header(counts).to_vec();
        self.records.into_iter().for_each(|records| out.extend(records));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebpf_common::set::Set;
    use std::sync::Arc;

    fn config() -> Config {
        let text = "[node]\nhostname=\"mx.example.org\"\n[spool]\nplaces=[\"./spool\"]\n\
             [[listener]]\naddress=\"127.0.0.1\"\ntls=\"none\"\n\
             [policy]\nrelay_domains=[\"example.org\"]\nany_recipient=true\n\
             relay_networks=[\"10.0.0.0/8\"]\n\
             [xdp]\nallow=[\"192.0.2.64/26\"]\n\
             [[list]]\nname=\"bots\"\nfile=\"a\"\n\
             [[list]]\nname=\"drop\"\nfile=\"b\"\nceiling=\"drop\"\n\
             [[list]]\nname=\"friends\"\nfile=\"c\"\nallow=true\n\
             [[list]]\nname=\"homes\"\nfile=\"d\"\nceiling=\"refuse\"\nentries_max=3\n\
             [[route]]\ndomains=[\"*\"]\nmx=true\n";
        let loaded = Config::parse("t", text, &crate::config::Disk);
        loaded.unwrap_or_else(|p| panic!("{p}")).config
    }

    fn lists(texts: [&str; 4]) -> Lists {
        let config = config();
        let read = |(config, text): (&ListConfig, &str)| {
            List::read(config, text.as_bytes(), 1_000).ok().map(Arc::new)
        };
        let loaded = Loaded { lists: config.lists.iter().zip(texts).map(read).collect() };
        Lists::new(&config, &loaded)
    }

    fn judged(lists: &Lists, address: &str) -> Option<(String, Rung)> {
        match lists.judge(address.parse().unwrap(), 1_000) {
            Judged::Listed(f) => Some((lists.name(f.list).to_owned(), f.ceiling)),
            Judged::Allowed => Some(("allowed".to_owned(), Rung::Count)),
            Judged::Unlisted => None,
        }
    }

    #[test]
    fn the_list_that_goes_furthest_counts_and_allow_wins() {
        let lists = lists([
            "192.0.2.0/24\n2001:db8::/32\n10.1.2.3\n",
            "192.0.2.5\n198.51.100.0/24\n",
            "198.51.100.7\n",
            "203.0.113.0/24\n",
        ]);
        let named = |name: &str, rung| Some((name.to_owned(), rung));
        assert_eq!(judged(&lists, "192.0.2.4"), named("bots", Rung::Answer));
        assert_eq!(judged(&lists, "192.0.2.5"), named("drop", Rung::Drop));
        assert_eq!(judged(&lists, "::ffff:192.0.2.5"), named("drop", Rung::Drop));
        assert_eq!(judged(&lists, "192.0.2.65"), named("allowed", Rung::Count));
        assert_eq!(judged(&lists, "198.51.100.7"), named("allowed", Rung::Count));
        assert_eq!(judged(&lists, "10.1.2.3"), named("allowed", Rung::Count), "relay networks");
        assert_eq!(judged(&lists, "203.0.113.9"), named("homes", Rung::Refuse));
        assert_eq!(judged(&lists, "2001:db8:1::9"), named("bots", Rung::Answer));
        assert_eq!(judged(&lists, "203.0.114.0"), None);
    }

    #[test]
    fn the_filter_gets_what_it_may_act_on() {
        let lists = lists([
            "192.0.2.0/30\n2001:db8:1:2::/64\n",
            "192.0.2.1\n",
            "192.0.2.3\n",
            "10.0.0.1\n",
        ]);
        let order = |network, allow| Order {
            network: Network::parse(network).unwrap(),
            allow,
            expires_s: if allow { 0 } else { 77 },
        };
        let orders = [order("10.9.0.0/16", false), order("10.9.0.7", true)];
        let (octets, notes) = lists.set(&orders);
        assert!(notes.is_empty());
        let set = Set::read(&octets).expect("sound");
        let records = |t| set.records(t).map(|r| r.expect("sound")).collect::<Vec<_>>();
        let hosts = records(Table::Hosts4);
        // A /30 of the milder list first, the host of the one that goes further last.
        assert_eq!(hosts.len(), 5);
        assert!(hosts[..4].iter().all(|r| r.listing.action == Action::Count));
        assert_eq!((hosts[4].listing.action, hosts[4].listing.list), (Action::Drop, 3));
        assert_eq!(records(Table::Hosts6).len(), 1);
        let blocked = records(Table::Networks4);
        assert_eq!((blocked.len(), blocked[0].bits, blocked[0].listing.expires_s), (1, 16, 77));
        assert_eq!(
            (blocked[0].listing.action, blocked[0].listing.list),
            (Action::Answer, OPERATOR)
        );
        // Two of the config, one of the list of friends, one of the operator's orders.
        assert_eq!(records(Table::Allowed4).len(), 4);
    }

    #[test]
    fn a_file_that_lists_too_many_is_refused() {
        let config = config();
        let said = |n: usize, text: &str| {
            List::read(&config.lists[n], text.as_bytes(), 1_000).unwrap_err()
        };
        assert!(said(3, "10.0.0.1\n10.0.0.3\n10.0.0.5\n10.0.0.7\n").contains("entries_max = 3"));
        let wide: String = (1..40).map(|n| format!("{n}.0.0.0/8\n")).collect();
        assert!(said(0, &wide).contains("more than any list"));
        let stale = "$TIMESTAMP 900 +50\n192.0.2\n";
        let list = ListConfig { format: ListFormat::Rbldnsd4, ..config.lists[0].clone() };
        assert!(List::read(&list, stale.as_bytes(), 1_000).unwrap_err().contains("stale"));
    }
}
