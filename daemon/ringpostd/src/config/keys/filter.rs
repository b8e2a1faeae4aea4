//! Keys of the ladder: the XDP filter, lists of addresses, DNS lists.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::config::ladder::{Codes, Contact, Rung, Topology, WayBack};
use crate::config::names::{HostName, Word};
use crate::config::network::Network;
use crate::config::section::Default::{Optional, Required};
use crate::config::section::{default, section};
use crate::config::value::{FREE, Rate, Seconds, choice, within};
use crate::limits;

section! {
    /// How listed clients are turned away, and the filter that does it before the TCP stack.
    "xdp" One Reload pub struct XdpConfig {
        /// The highest rung that is used; `count` refuses nobody, and says who would be.
        mode: Rung = default("\"count\""), FREE;
        /// Interfaces the filter is attached to; without one the daemon does all by itself.
        interfaces: Vec<Word> = default("[]"), FREE;
        /// Folder on a bpf file system for lists and bans that outlive the filter's process.
        pins: Option<PathBuf> = Optional, FREE;
        /// Whether the filter stays attached when the daemon ends; needs `pins`.
        keep: bool = default("false"), FREE;
        /// How packets come through an L4 switch.
        topology: Topology = default("\"direct\""), FREE;
        /// Our ends of the switch's tunnels.
        ends: Vec<IpAddr> = default("[]"), FREE;
        /// Ways back the kernel does not show: interface (and tag), and who has the address.
        ways: Vec<WayBack> = default("[]"), FREE;
        /// Networks that are never turned away: balancers, health checks, partners.
        allow: Vec<Network> = default("[]"), FREE;
        /// Packets that open connections, of one network (IPv4 /24, IPv6 /48).
        syn_rate: Rate = default("\"off\""), FREE;
        /// How many of them at once.
        syn_burst: u32 = default("200"), within(1, 1_000_000, "packets");
        /// Refusals of a listed client after which it is answered without being heard.
        repeats: u32 = default("3"), within(1, 1_000, "refusals");
        /// The time in which they are counted.
        repeats_within_s: Seconds = default("600"), within(1_000, limits::DAY_MS, "s");
        /// Part of the node's sessions from which on listed clients are refused in the greeting.
        busy_percent: u32 = default("80"), within(1, 100, "%");
        /// Weight of DNS lists from which on a client counts as listed.
        dnsbl_weight: u32 = default("10"), within(1, 100_000, "");
        /// Errors of a client, half of them forgotten each hour, for which it is banned.
        evidence: u32 = default("50"), within(1, 1_000_000, "errors");
        /// How far such a ban goes.
        evidence_ceiling: Rung = default("\"answer\""), FREE;
        /// Days for which a client whose mail was taken is heard, whatever lists it; 0: none.
        good_days: u32 = default("7"), within(0, 30, "days");
        /// Part of the last hour's clients that may be banned at once; 100 bans always may be.
        banned_percent_max: u32 = default("20"), within(1, 100, "%");
        /// Where a refused client may ask; without it postmaster at the node's name.
        contact: Option<Contact> = Optional, FREE;
    }
}

choice! {
    /// How a file of addresses is written.
    ListFormat {
        /// an address, range or network a line, `#` or `;` before comments
        Plain = "plain",
        /// Spamhaus DROP, a JSON object a line
        DropJson = "drop",
        /// rbldnsd `ip4set` or `ip4trie`
        Rbldnsd4 = "rbldnsd4",
        /// rbldnsd `ip6trie` or `ip6tset`
        Rbldnsd6 = "rbldnsd6",
    }
}

section! {
    /// A file of addresses; when it changes, it is read again.
    "list" Many Reload pub struct ListConfig {
        /// What refusals, logs and counters call it.
        name: Word = Required, FREE;
        /// The file.
        file: PathBuf = Required, FREE;
        /// How it is written.
        format: ListFormat = default("\"plain\""), FREE;
        /// Whether it lists those who are never turned away.
        allow: bool = default("false"), FREE;
        /// How far it may go.
        ceiling: Rung = default("\"answer\""), FREE;
        /// Networks in it; with more it is refused, and the one before stays in force.
        entries_max: u32 = default("1000000"), within(1, limits::LIST_ENTRIES_MAX, "networks");
    }
}

section! {
    /// A DNS list, asked for each client.
    "dnsbl" Many Reload pub struct DnsblConfig {
        /// Its zone.
        zone: HostName = Required, FREE;
        /// Whether it lists those who are never turned away.
        allow: bool = default("false"), FREE;
        /// What a listing weighs.
        weight: u32 = default("10"), within(1, 100_000, "");
        /// What its answers mean; others go no further than `refuse`.
        codes: Vec<Codes> = default("[]"), FREE;
        /// How far it may go, whatever the answer.
        ceiling: Rung = default("\"answer\""), FREE;
        /// Whether a refusal quotes what it says of the client (TXT), at most 100 letters.
        text: bool = default("true"), FREE;
        /// Whether it counts only while 127.0.0.2 is listed and 127.0.0.1 is not (RFC 5782 5).
        tested: bool = default("true"), FREE;
        /// Part of the last 200 answers from which on it lists too many and is cut off.
        listed_percent_max: u32 = default("98"), within(1, 100, "%");
    }
}
