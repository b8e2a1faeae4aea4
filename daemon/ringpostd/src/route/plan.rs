//! From hosts and addresses to a plan: order, loop rule, health.

use std::net::{IpAddr, SocketAddr};

use smtp::client::{TlsPolicy, clean};
use smtp::reply::Enhanced;

use super::{
    ADDRESSES_MAX, Facts, Host, MX_PORT, MX_RECORDS_MAX, Plan, Refusal, TARGETS_MAX, Target,
};
use crate::dns::{MxAnswer, MxHost};

/// Octets of a domain name that a refusal repeats.
const NAME_MAX: usize = 255;

/// SplitMix64: enough to shuffle by.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }
}

struct Candidate<'a> {
    name: &'a str,
    addresses: &'a [IpAddr],
    port: u16,
    rank: u32,
    weight: u32,
}

/// The plan for a static route. `lookup` gives the addresses of a host that has only a name; none
/// when they are not known for now, an empty list when there are none.
///
/// Hosts that are ourselves are left out; if nothing else remains, the route is a loop.
pub fn static_hosts<'a>(
    hosts: &'a [Host],
    tls: TlsPolicy,
    lookup: impl Fn(&str) -> Option<&'a [IpAddr]>,
    facts: &Facts<'_>,
) -> Plan {
    let mut candidates = Vec::with_capacity(hosts.len());
    let (mut own, mut unknown) = (false, false);
    for host in hosts {
        let addresses = match &host.address {
            Some(address) => Some(std::slice::from_ref(address)),
            None => lookup(&host.name),
        };
        unknown |= addresses.is_none();
        let addresses = addresses.unwrap_or_default();
        if facts.ourselves.is(&host.name, addresses, host.port) {
            own = true;
            continue;
        }
        candidates.push(Candidate {
            name: &host.name,
            addresses,
            port: host.port,
            rank: host.priority,
            weight: host.weight,
        });
    }
    if candidates.is_empty() && own {
        return Plan::Refused(looped("the route"));
    }
    // A host of the config without an address is our own trouble, never the sender's.
    candidates.retain(|c| !c.addresses.is_empty());
    if candidates.is_empty() {
        let text = if unknown { "are not known for now" } else { "do not exist" };
        return Plan::Later(refusal(
            451,
            Enhanced(4, 4, 3),
            format!("next hop's addresses {text}"),
        ));
    }
    finish(candidates, tls, facts)
}

/// The plan for a domain by its MX records (RFC 5321 5.1, RFC 7505).
#[must_use]
pub fn mx(domain: &str, answer: &MxAnswer, tls: TlsPolicy, facts: &Facts<'_>) -> Plan {
    let domain = &clean(domain.as_bytes(), NAME_MAX);
    let never = |code, enhanced, text| Plan::Refused(refusal(code, enhanced, text));
    match answer {
        MxAnswer::Null => never(556, Enhanced(5, 1, 10), format!("{domain} does not accept mail")),
        MxAnswer::NoName => never(550, Enhanced(5, 1, 2), format!("{domain} does not exist")),
        MxAnswer::NoHost => {
            never(550, Enhanced(5, 4, 4), format!("no mail exchanger of {domain} has an address"))
        }
        MxAnswer::Temporary(reason) => {
            let reason = clean(reason.as_bytes(), NAME_MAX);
            let text = format!("the mail exchangers of {domain} are not known for now: {reason}");
            Plan::Later(refusal(451, Enhanced(4, 4, 3), text))
        }
        MxAnswer::Hosts { hosts, .. } => exchangers(domain, hosts, tls, facts),
    }
}

fn exchangers(domain: &str, hosts: &[MxHost], tls: TlsPolicy, facts: &Facts<'_>) -> Plan {
    let mut hosts: Vec<&MxHost> = hosts.iter().collect();
    hosts.sort_by_key(|host| host.preference);
    hosts.truncate(MX_RECORDS_MAX);
    // Only hosts that are preferred to ourselves: mail moves towards its destination.
    // An exchanger of our name is ours on whatever port: something may stand before this one.
    let ours = |host: &&&MxHost| {
        facts.ourselves.named(&host.name)
            || facts.ourselves.is(&host.name, &host.addresses, MX_PORT)
    };
    if let Some(own) = hosts.iter().find(ours).map(|host| host.preference) {
        hosts.retain(|host| host.preference < own);
        if hosts.is_empty() {
            return Plan::Refused(looped(domain));
        }
    }
    let unknown = hosts.iter().any(|host| host.unresolved);
    let candidates: Vec<Candidate<'_>> = hosts
        .iter()
        .filter(|host| !host.addresses.is_empty())
        .map(|host| Candidate {
            name: &host.name,
            addresses: &host.addresses,
            port: MX_PORT,
            rank: host.preference.into(),
            weight: 1,
        })
        .collect();
    if candidates.is_empty() && !unknown {
        let text = format!("no usable mail exchanger of {domain} has an address");
        return Plan::Refused(refusal(550, Enhanced(5, 4, 4), text));
    }
    if candidates.is_empty() {
        let text = format!("the addresses of {domain}'s exchangers are not known for now");
        return Plan::Later(refusal(451, Enhanced(4, 4, 3), text));
    }
    finish(candidates, tls, facts)
}

/// Orders hosts by rank and, within one, by weighted chance; leaves out what is down.
fn finish(mut candidates: Vec<Candidate<'_>>, tls: TlsPolicy, facts: &Facts<'_>) -> Plan {
    let mut dice = Dice(facts.seed);
    candidates.sort_by_key(|c| c.rank);
    let mut targets = Vec::with_capacity(candidates.len().min(TARGETS_MAX));
    let mut down_until = u64::MAX;
    let mut rest = candidates.as_mut_slice();
    while let Some(rank) = rest.first().map(|c| c.rank) {
        let size = rest.iter().take_while(|c| c.rank == rank).count();
        let (group, later) = rest.split_at_mut(size);
        shuffle(group, &mut dice);
        for candidate in &*group {
            let addresses = order(candidate, &mut dice, facts, &mut down_until);
            if !addresses.is_empty() && targets.len() < TARGETS_MAX {
                targets.push(Target { name: candidate.name.into(), addresses, tls });
            }
        }
        rest = later;
    }
    if targets.is_empty() { Plan::Down(down_until) } else { Plan::Try(targets) }
}

/// Puts each place's host there with a chance that is its share of the weight that is left.
fn shuffle(group: &mut [Candidate<'_>], dice: &mut Dice) {
    for place in 0..group.len() {
        let weight = |c: &Candidate<'_>| u64::from(c.weight.max(1));
        let total: u64 = group[place..].iter().map(weight).sum();
        let mut left = dice.below(total);
        let mut chosen = place;
        for (n, candidate) in group.iter().enumerate().skip(place) {
            chosen = n;
            if left < weight(candidate) {
                break;
            }
            left -= weight(candidate);
        }
        group.swap(place, chosen);
    }
}

/// Addresses in the order to try: either family first by chance, then in turn, so that one broken
/// family costs one attempt. Those that are down are left out.
fn order(
    candidate: &Candidate<'_>,
    dice: &mut Dice,
    facts: &Facts<'_>,
    down_until: &mut u64,
) -> Vec<SocketAddr> {
    let mut families = [Vec::new(), Vec::new()];
    for ip in candidate.addresses {
        let address = SocketAddr::new(*ip, candidate.port);
        let until = (facts.down_until_us)(address);
        if until > facts.now_us {
            *down_until = until.min(*down_until);
        } else if !families.iter().any(|family| family.contains(&address)) {
            families[usize::from(ip.is_ipv6())].push(address);
        }
    }
    for family in &mut families {
        for place in 0..family.len() {
            let left = (family.len() - place) as u64;
            let other = usize::try_from(dice.below(left)).expect("below a length");
            family.swap(place, place + other);
        }
    }
    if dice.below(2) == 1 {
        families.reverse();
    }
    let [first, second] = families;
    let longest = first.len().max(second.len());
    let mut turns = Vec::with_capacity(first.len() + second.len());
    for n in 0..longest {
        turns.extend(first.get(n).into_iter().chain(second.get(n)).copied());
    }
    turns.truncate(ADDRESSES_MAX);
    turns
}

fn looped(of: &str) -> Refusal {
    refusal(554, Enhanced(5, 4, 6), format!("mail for {of} would come back to this host"))
}

fn refusal(code: u16, enhanced: Enhanced, text: String) -> Refusal {
    Refusal { code, enhanced, text: text.into() }
}
