//! Plans for static routes and MX records.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::dns::{MxAnswer, MxHost};

const NOW: u64 = 1_000_000;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ourselves() -> Ourselves {
    Ourselves {
        names: vec!["mx.own.example".into()],
        addresses: vec![ip("192.0.2.1"), ip("2001:db8::1")],
        ports: vec![25, 2525],
    }
}

fn host(name: &str, address: &str, port: u16, priority: u32, weight: u32) -> Host {
    let address = (!address.is_empty()).then(|| ip(address));
    Host { name: name.into(), address, port, priority, weight }
}

fn exchanger(preference: u16, name: &str, addresses: &[&str]) -> MxHost {
    let addresses: Vec<IpAddr> = addresses.iter().map(|a| ip(a)).collect();
    let unresolved = addresses.is_empty();
    MxHost { preference, name: name.into(), addresses, unresolved }
}

fn answer(hosts: Vec<MxHost>) -> MxAnswer {
    MxAnswer::Hosts { hosts, ttl_s: 1, implicit: false }
}

fn with<T>(seed: u64, down: &HashMap<IpAddr, u64>, f: impl FnOnce(&Facts<'_>) -> T) -> T {
    let ourselves = ourselves();
    let down_until_us = |a: SocketAddr| down.get(&a.ip()).copied().unwrap_or(0);
    f(&Facts { ourselves: &ourselves, down_until_us: &down_until_us, now_us: NOW, seed })
}

fn plan(hosts: &[Host], seed: u64) -> Plan {
    with(seed, &HashMap::new(), |facts| static_hosts(hosts, TlsPolicy::May, |_| None, facts))
}

fn mx_plan(hosts: Vec<MxHost>) -> Plan {
    let answer = answer(hosts);
    with(1, &HashMap::new(), |facts| mx("example.org", &answer, TlsPolicy::Must, facts))
}

fn names(plan: &Plan) -> Vec<&str> {
    match plan {
        Plan::Try(targets) => targets.iter().map(|t| &*t.name).collect(),
        other => panic!("{other:?}"),
    }
}

fn code(plan: &Plan) -> (bool, u16, Enhanced) {
    match plan {
        Plan::Refused(r) => (true, r.code, r.enhanced),
        Plan::Later(r) => (false, r.code, r.enhanced),
        other => panic!("{other:?}"),
    }
}

#[test]
fn priorities_and_weights() {
    let hosts = [
        host("spare", "192.0.2.9", 25, 5, 100),
        host("a", "192.0.2.3", 26, 0, 3),
        host("b", "192.0.2.4", 25, 0, 1),
    ];
    let mut a_first = 0;
    for seed in 0..4000 {
        let plan = plan(&hosts, seed);
        let names = names(&plan);
        assert_eq!(names[2], "spare");
        a_first += usize::from(names[0] == "a");
    }
    assert!((2800..3200).contains(&a_first), "{a_first} of 4000 should be 3 in 4");
    let Plan::Try(targets) = plan(&hosts[1..2], 0) else { panic!("one host") };
    assert_eq!(targets[0].addresses, ["192.0.2.3:26".parse().unwrap()]);
    assert_eq!(targets[0].tls, TlsPolicy::May);
}

#[test]
fn static_hosts_that_are_ourselves() {
    for (name, address, port) in [
        ("192.0.2.1", "192.0.2.1", 2525),
        ("2001:db8::1", "2001:db8::1", 25),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1", 25),
        ("mx.own.example", "", 25),
        ("0.0.0.0", "0.0.0.0", 25),
    ] {
        let own = host(name, address, port, 0, 1);
        assert_eq!(code(&plan(std::slice::from_ref(&own), 0)), (true, 554, Enhanced(5, 4, 6)));
        let other = host("other", "192.0.2.7", 25, 9, 1);
        assert_eq!(names(&plan(&[own, other], 0)), ["other"]);
    }
    // The same machine on another port is a backend.
    let beside = host("192.0.2.1", "192.0.2.1", 2600, 0, 1);
    assert_eq!(names(&plan(&[beside], 0)), ["192.0.2.1"]);
}

#[test]
fn names_of_static_hosts_are_looked_up() {
    let hosts = [host("a", "", 25, 0, 1), host("b", "", 25, 1, 1)];
    let found = [ip("192.0.2.5")];
    let own = [ip("192.0.2.1")];
    let none: [IpAddr; 0] = [];
    let plan = |a: Option<&[IpAddr]>, b: Option<&[IpAddr]>| {
        let lookup = |name: &str| if name == "a" { a } else { b };
        with(0, &HashMap::new(), |facts| static_hosts(&hosts, TlsPolicy::Never, lookup, facts))
    };
    assert_eq!(names(&plan(None, Some(&found))), ["b"]);
    assert_eq!(names(&plan(Some(&found), Some(&own))), ["a"]);
    assert_eq!(code(&plan(None, Some(&none))), (false, 451, Enhanced(4, 4, 3)));
    assert_eq!(code(&plan(Some(&none), Some(&none))), (false, 451, Enhanced(4, 4, 3)));
    assert_eq!(code(&plan(Some(&own), Some(&own))), (true, 554, Enhanced(5, 4, 6)));
    // Perhaps the other host is not us.
    assert_eq!(code(&plan(Some(&own), None)), (false, 451, Enhanced(4, 4, 3)));
}

#[test]
fn what_the_dns_says() {
    let of = |answer: MxAnswer| {
        with(0, &HashMap::new(), |facts| mx("Example.org\r\n", &answer, TlsPolicy::May, facts))
    };
    let null = of(MxAnswer::Null);
    assert_eq!(code(&null), (true, 556, Enhanced(5, 1, 10)));
    let Plan::Refused(refusal) = null else { panic!("refused") };
    assert_eq!(&*refusal.text, "Example.org?? does not accept mail");
    assert_eq!(code(&of(MxAnswer::NoName)), (true, 550, Enhanced(5, 1, 2)));
    assert_eq!(code(&of(MxAnswer::NoHost)), (true, 550, Enhanced(5, 4, 4)));
    assert_eq!(code(&of(MxAnswer::Temporary("x".into()))), (false, 451, Enhanced(4, 4, 3)));
    let unresolved = answer(vec![exchanger(1, "a", &[])]);
    assert_eq!(code(&of(unresolved)), (false, 451, Enhanced(4, 4, 3)));
}

/// RFC 5321 5.1: our own preference and all that follow are dropped.
#[test]
fn the_loop_rule() {
    let far = || exchanger(30, "far", &["198.51.100.3"]);
    let near = || exchanger(10, "near", &["198.51.100.1"]);
    for own in [
        exchanger(20, "mx.own.example", &["203.0.113.77"]),
        exchanger(20, "alias", &["198.51.100.9", "192.0.2.1"]),
        exchanger(20, "mx.own.example", &[]),
    ] {
        let beside = exchanger(20, "beside", &["198.51.100.2"]);
        let plan = mx_plan(vec![far(), own.clone(), beside, near()]);
        assert_eq!(names(&plan), ["near"]);
        assert_eq!(code(&mx_plan(vec![far(), own.clone()])), (true, 554, Enhanced(5, 4, 6)));
        // What is preferred is not known for now: no reason to bounce.
        let dark = exchanger(10, "dark", &[]);
        assert_eq!(code(&mx_plan(vec![far(), own, dark])), (false, 451, Enhanced(4, 4, 3)));
    }
}

#[test]
fn equal_preferences_are_shuffled_and_the_list_is_cut() {
    let hosts: Vec<MxHost> =
        (0..150u16).map(|n| exchanger(n / 3, &format!("h{n}"), &["198.51.100.1"])).rev().collect();
    let answer = answer(hosts);
    let mut first = HashMap::new();
    for seed in 0..300 {
        let plan = with(seed, &HashMap::new(), |f| mx("x", &answer, TlsPolicy::May, f));
        let names = names(&plan);
        assert_eq!(names.len(), TARGETS_MAX);
        let preferences: Vec<u16> =
            names.iter().map(|n| n[1..].parse::<u16>().unwrap() / 3).collect();
        assert!(preferences.is_sorted());
        *first.entry(names[0].to_owned()).or_insert(0) += 1;
    }
    assert!(first.len() == 3 && first.values().all(|n| *n > 60), "{first:?}");
}

#[test]
fn hosts_that_are_down_are_left_out() {
    let hosts = [
        host("a", "192.0.2.3", 25, 0, 1),
        host("b", "192.0.2.4", 25, 1, 1),
        host("c", "192.0.2.5", 25, 2, 1),
    ];
    let mut down = HashMap::from([(ip("192.0.2.3"), NOW + 5), (ip("192.0.2.4"), NOW)]);
    let go = |down: &HashMap<IpAddr, u64>| {
        with(0, down, |facts| static_hosts(&hosts, TlsPolicy::May, |_| None, facts))
    };
    assert_eq!(names(&go(&down)), ["b", "c"]);
    down.extend([(ip("192.0.2.4"), NOW + 3), (ip("192.0.2.5"), NOW + 9)]);
    assert_eq!(go(&down), Plan::Down(NOW + 3));
}

#[test]
fn both_families_in_turn() {
    let many: Vec<String> = (1..20).map(|n| format!("2001:db8:1::{n}")).collect();
    let mut all: Vec<&str> = many.iter().map(String::as_str).collect();
    all.extend(["198.51.100.1", "198.51.100.2"]);
    let answer = answer(vec![exchanger(0, "a", &all)]);
    let mut six_first = 0;
    for seed in 0..200 {
        let plan = with(seed, &HashMap::new(), |f| mx("x", &answer, TlsPolicy::May, f));
        let Plan::Try(targets) = plan else { panic!("a host") };
        let addresses = &targets[0].addresses;
        assert_eq!(addresses.len(), ADDRESSES_MAX);
        assert_ne!(addresses[0].is_ipv6(), addresses[1].is_ipv6());
        assert_eq!(addresses.iter().filter(|a| a.is_ipv4()).count(), 2);
        six_first += usize::from(addresses[0].is_ipv6());
    }
    assert!((60..140).contains(&six_first), "{six_first}");
}

#[test]
fn tiers_by_age_and_destinations() {
    let hosts = |name: &str| NextHop::Hosts([host(name, "192.0.2.3", 25, 0, 1)].into());
    let tier = |from_age_us, next_hop| Tier { from_age_us, next_hop, tls: TlsPolicy::May };
    let route = Route {
        name: "r".into(),
        tiers: [tier(0, NextHop::Mx), tier(10, hosts("b")), tier(20, hosts("c"))].into(),
        connections_max: 20,
    };
    let numbers: Vec<u8> = [0, 9, 10, 19, 20, u64::MAX].map(|age| route.tier(age).0).into();
    assert_eq!(numbers, [0, 0, 1, 1, 2, 2]);
    assert_eq!(&*route.destination(0, "Example.ORG"), b"r/0/example.org");
    assert_eq!(&*route.destination(1, "example.org"), b"r/1");
}

proptest! {
    #[test]
    fn no_plan_leads_back_here(
        hosts in prop::collection::vec(
            (0u16..4, 0usize..6, prop::collection::vec(0u8..6, 0..4)),
            0..12,
        ),
        seed: u64,
    ) {
        let hosts: Vec<MxHost> = hosts
            .into_iter()
            .map(|(preference, name, addresses)| {
                let name = if name == 0 { "mx.own.example".into() } else { format!("h{name}") };
                let addresses: Vec<String> =
                    addresses.iter().map(|n| format!("192.0.2.{n}")).collect();
                let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
                exchanger(preference, &name, &addresses)
            })
            .collect();
        let own = hosts.iter().filter(|h| ourselves().is(&h.name, &h.addresses, MX_PORT));
        let own = own.map(|h| h.preference).min();
        let plan = with(seed, &HashMap::new(), |facts| {
            mx("x", &answer(hosts.clone()), TlsPolicy::May, facts)
        });
        if let Plan::Try(targets) = plan {
            prop_assert!(!targets.is_empty());
            for target in &targets {
                prop_assert!(!target.addresses.is_empty());
                prop_assert!(target.addresses.iter().all(|a| !ourselves().reached_by(*a)));
                let before_us = |h: &MxHost| own.is_none_or(|o| h.preference < o);
                let fits = |h: &&MxHost| h.name == target.name && before_us(h);
                prop_assert!(hosts.iter().any(|h| fits(&h)));
            }
        }
    }
}
