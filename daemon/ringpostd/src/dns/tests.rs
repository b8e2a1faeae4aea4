//! The machine against a resolver that lies, stays silent and rambles; bytes at random.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, MX, PTR, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record};
use proptest::prelude::*;

use super::limits::*;
use super::*;

const TRY_US: u64 = 1_000;

/// Remembers what the machine did with its sockets.
#[derive(Default)]
struct Net {
    open: [bool; SLOTS_MAX],
    opened: usize,
    refuse: bool,
    sent: Vec<(Slot, Vec<u8>)>,
}

impl Wire for Net {
    fn open(&mut self, slot: Slot) -> bool {
        assert!(!self.open[usize::from(slot)], "opened twice");
        self.open[usize::from(slot)] = !self.refuse;
        self.opened += 1;
        !self.refuse
    }
    fn send(&mut self, slot: Slot, datagram: &[u8]) {
        assert!(self.open[usize::from(slot)], "sent on a closed socket");
        self.sent.push((slot, datagram.to_vec()));
    }
    fn close(&mut self, slot: Slot) {
        assert!(self.open[usize::from(slot)], "closed twice");
        self.open[usize::from(slot)] = false;
    }
}

fn machine(resolver: &str, tries: u8) -> Lookups {
    let resolver: SocketAddr = resolver.parse().unwrap();
    let config = LookupsConfig { resolver, try_us: TRY_US, tries, in_flight_max: 100 };
    let mut state = 7_u64;
    let random = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ (state >> 29)
    };
    Lookups::new(config, Box::new(random))
}

const NEAR: &str = "127.0.0.1:53";
const FAR: &str = "192.0.2.1:53";

fn name(text: &str) -> Name {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let mut name = Name::from_labels(labels.map(str::as_bytes)).unwrap();
    name.set_fqdn(true);
    name
}

fn record(owner: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(name(owner), ttl, data)
}

fn address(owner: &str, last: u8) -> Record {
    record(owner, 300, RData::A(A(Ipv4Addr::new(192, 0, 2, last))))
}

/// The answer to a query that was sent.
fn reply(query: &[u8], change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::from_vec(query).unwrap().into_response();
    message.edns = None;
    change(&mut message);
    message.to_vec().unwrap()
}

/// Asks one question and answers it.
fn outcome(question: &Question, change: impl FnOnce(&mut Message)) -> Outcome {
    let (mut lookups, mut net, mut done) = (machine(NEAR, 1), Net::default(), Vec::new());
    lookups.ask(0, question.clone(), 9, &mut net).unwrap();
    let (slot, query) = net.sent.pop().unwrap();
    lookups.datagram(1, slot, &reply(&query, change), &mut net, &mut done);
    assert_eq!((done.len(), lookups.in_flight(), done[0].token), (1, 0, 9));
    assert_eq!(lookups.next_deadline_us(), None);
    done.remove(0).outcome
}

fn a(text: &str) -> Question {
    Question::new(text.as_bytes(), Kind::A).unwrap()
}

#[test]
fn names_that_cannot_be_asked_for_are_refused() {
    let long = [b"a".repeat(63), b"b".repeat(63), b"c".repeat(63), b"d".repeat(61)].join(&b'.');
    assert!(Question::new(&long, Kind::A).is_ok());
    for bad in [&b"a..b"[..], b".a", b"a..", &b"x".repeat(64), &[&long[..], b"d"].concat()] {
        assert_eq!(Question::new(bad, Kind::A), Err(BadName), "{bad:?}");
    }
}

#[test]
fn addresses_turn_round() {
    let asked = |address: &str| Question::reverse(address.parse().unwrap()).to_string();
    assert_eq!(asked("192.0.2.7"), "7.2.0.192.in-addr.arpa. PTR");
    assert_eq!(asked("::ffff:192.0.2.7"), "7.2.0.192.in-addr.arpa. PTR");
    let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR";
    assert_eq!(asked("2001:db8::1"), v6);
}

#[test]
fn records_of_the_type_asked_for_come_back() {
    let question = Question::new(b"Example.ORG.", Kind::Mx).unwrap();
    let found = outcome(&question, |m| {
        m.metadata.authentic_data = true;
        let mx = |preference, host| MX::new(preference, name(host));
        m.add_answer(record("example.org.", 300, RData::MX(mx(20, "b.Example.org."))));
        m.add_answer(record("example.org.", 200, RData::MX(mx(10, "a.example.org."))));
        m.add_answer(record("example.org.", 100, RData::MX(mx(10, "bad\nname.example.org."))));
        m.add_answer(record("example.org.", 5, RData::A(A(Ipv4Addr::LOCALHOST))));
        m.add_answer(record("other.example.", 6, RData::MX(mx(0, "thief.example."))));
    });
    let host = |preference, host: &str| Data::Mx { preference, host: host.into() };
    let data = vec![host(20, "b.example.org"), host(10, "a.example.org")];
    assert_eq!(found, Outcome::Found(Answer { data, ttl_s: 100, authentic: true }));

    let txt = Question::new(b"example.org", Kind::Txt).unwrap();
    let found = outcome(&txt, |m| {
        m.metadata.authentic_data = false;
        let data = TXT::new(vec!["v=spf1 ".into(), "-all".into()]);
        m.add_answer(record("example.org.", 9, RData::TXT(data)));
    });
    let data = vec![Data::Txt(b"v=spf1 -all".to_vec().into())];
    assert_eq!(found, Outcome::Found(Answer { data, ttl_s: 9, authentic: false }));
}

#[test]
fn absence_has_two_kinds_and_a_time() {
    let soa = || {
        let data = SOA::new(name("ns."), name("admin."), 1, 2, 3, 4, 77);
        record("example.org.", 900, RData::SOA(data))
    };
    let none = outcome(&a("example.org"), |m| {
        m.metadata.response_code = ResponseCode::NXDomain;
        m.add_authority(soa());
    });
    assert_eq!(none, Outcome::NoName { ttl_s: 77 });
    let empty = outcome(&a("example.org"), |m| {
        m.add_authority(soa());
    });
    assert_eq!(empty, Outcome::NoData { ttl_s: 77 });
    assert_eq!(outcome(&a("example.org"), |_| {}), Outcome::NoData { ttl_s: NEGATIVE_TTL_S });
    let failed = outcome(&a("x.org"), |m| m.metadata.response_code = ResponseCode::ServFail);
    assert_eq!(failed, Outcome::Failed(Failure::Server(2)));
}

#[test]
fn aliases_are_followed_to_a_bound() {
    let chain = |links: usize| {
        outcome(&a("n0.example"), |m| {
            for n in (0..links).rev() {
                let target = CNAME(name(&format!("n{}.example.", n + 1)));
                m.add_answer(record(&format!("n{n}.example."), 50, RData::CNAME(target)));
            }
            m.add_answer(address(&format!("N{links}.example."), 1));
        })
    };
    for links in [0, 1, ALIASES_MAX] {
        let Outcome::Found(answer) = chain(links) else { panic!("{links} links") };
        assert_eq!(answer.data, [Data::A(Ipv4Addr::new(192, 0, 2, 1))]);
        assert_eq!(answer.ttl_s, if links == 0 { 300 } else { 50 });
    }
    assert_eq!(chain(ALIASES_MAX + 1), Outcome::Failed(Failure::Malformed));
    let ring = outcome(&a("a.example"), |m| {
        m.add_answer(record("a.example.", 1, RData::CNAME(CNAME(name("b.example.")))));
        m.add_answer(record("b.example.", 1, RData::CNAME(CNAME(name("a.example.")))));
    });
    assert_eq!(ring, Outcome::Failed(Failure::Malformed));
}

#[test]
fn no_more_than_a_hundred_records_are_read() {
    let found = outcome(&a("example.org"), |m| {
        for last in 0..150 {
            m.add_answer(address("example.org.", last));
        }
    });
    let Outcome::Found(answer) = found else { panic!("{found:?}") };
    assert_eq!(answer.data.len(), RECORDS_MAX);
}

#[test]
fn a_wrong_answer_is_counted_and_waiting_goes_on() {
    let (mut lookups, mut net, mut done) = (machine(NEAR, 1), Net::default(), Vec::new());
    lookups.ask(0, a("example.org"), 1, &mut net).unwrap();
    let (slot, query) = net.sent.pop().unwrap();
    let right = reply(&query, |m| {
        m.add_answer(address("example.org.", 1));
    });
    let mut wrong_id = right.clone();
    wrong_id[0] ^= 1;
    let mut wrong_name = right.clone();
    wrong_name[14] ^= 1;
    let mut wrong_type = right.clone();
    wrong_type[12 + 13 + 1] = 28;
    for wrong in [&wrong_id, &wrong_name, &wrong_type, &query, &query[..5].to_vec()] {
        lookups.datagram(1, slot, wrong, &mut net, &mut done);
        assert!(done.is_empty());
    }
    lookups.datagram(1, slot + 1, &right, &mut net, &mut done);
    assert!(done.is_empty(), "the right answer on another socket is none");
    assert_eq!(lookups.counters().wrong, 6);
    lookups.datagram(1, slot, &right, &mut net, &mut done);
    assert!(matches!(done[..], [Finished { token: 1, outcome: Outcome::Found(_) }]));
}

#[test]
fn wrong_questions_and_truncation_lead_to_tcp() {
    let (mut lookups, mut net, mut done) = (machine(NEAR, 1), Net::default(), Vec::new());
    lookups.ask(0, a("example.org"), 1, &mut net).unwrap();
    let (slot, query) = net.sent.pop().unwrap();
    let mut wrong = reply(&query, |_| {});
    wrong[14] ^= 1;
    for _ in 1..WRONG_QUESTIONS_MAX {
        lookups.datagram(1, slot, &wrong, &mut net, &mut done);
        assert!(done.is_empty());
    }
    lookups.datagram(1, slot, &wrong, &mut net, &mut done);
    assert_eq!(done, [Finished { token: 1, outcome: Outcome::NeedsTcp(a("example.org")) }]);
    let cut = outcome(&a("example.org"), |m| m.metadata.truncation = true);
    assert_eq!(cut, Outcome::NeedsTcp(a("example.org")));
}

#[test]
fn silence_is_asked_again_and_ends() {
    for resolver in [NEAR, FAR] {
        let (mut lookups, mut net, mut done) = (machine(resolver, 3), Net::default(), Vec::new());
        lookups.ask(5, a("example.org"), 1, &mut net).unwrap();
        for round in 1..=3 {
            assert_eq!(net.sent.len(), usize::try_from(round).unwrap());
            let deadline = lookups.next_deadline_us().unwrap();
            assert_eq!(deadline, 5 + round * TRY_US);
            lookups.expire(deadline - 1, &mut net, &mut done);
            assert!(done.is_empty());
            lookups.expire(deadline, &mut net, &mut done);
        }
        let outcome = Outcome::Failed(Failure::Timeout);
        assert_eq!(done, [Finished { token: 1, outcome }]);
        assert_eq!((lookups.next_deadline_us(), lookups.counters().timeouts), (None, 3));
        // A late answer counts for what it is.
        let (slot, query) = net.sent[0].clone();
        lookups.datagram(9_000, slot, &reply(&query, |_| {}), &mut net, &mut done);
        assert_eq!((done.len(), lookups.counters().wrong), (1, 1));
    }
}

#[test]
fn a_late_answer_of_this_machine_is_good_for_a_later_try() {
    let (mut lookups, mut net, mut done) = (machine(NEAR, 3), Net::default(), Vec::new());
    lookups.ask(0, a("example.org"), 1, &mut net).unwrap();
    lookups.expire(TRY_US, &mut net, &mut done);
    let (slot, first) = net.sent[0].clone();
    lookups.datagram(TRY_US + 1, slot, &reply(&first, |_| {}), &mut net, &mut done);
    assert!(matches!(done[..], [Finished { outcome: Outcome::NoData { .. }, .. }]));
}

#[test]
fn far_resolvers_are_asked_in_disguise() {
    let (mut lookups, mut net, mut done) = (machine(FAR, 1), Net::default(), Vec::new());
    let host = "a-rather-long-name.example.org";
    for token in 0..50 {
        lookups.ask(0, a(host), token, &mut net).unwrap();
    }
    let mut ids: Vec<[u8; 2]> = net.sent.iter().map(|(_, q)| [q[0], q[1]]).collect();
    let mut names: Vec<&[u8]> = net.sent.iter().map(|(_, q)| &q[12..12 + host.len()]).collect();
    for all in [ids.len(), names.len()] {
        assert_eq!(all, 50);
    }
    ids.sort_unstable();
    ids.dedup();
    names.sort_unstable();
    names.dedup();
    assert!(ids.len() == 50 && names.len() > 40);
    assert_eq!(net.opened, POOL_SOCKETS);
    // An answer in lower case was guessed by somebody who did not see the question.
    let (slot, query) = net.sent[3].clone();
    let mut guessed = reply(&query, |_| {});
    guessed[12..12 + host.len() + 1].make_ascii_lowercase();
    lookups.datagram(1, slot, &guessed, &mut net, &mut done);
    assert!(done.is_empty());
    let answer = reply(&query, |_| {});
    lookups.datagram(1, slot, &answer, &mut net, &mut done);
    assert_eq!(done.len(), 1);
}

#[test]
fn far_ports_are_renewed_and_old_ones_drain() {
    let (mut lookups, mut net, mut done) = (machine(FAR, 1), Net::default(), Vec::new());
    let total = SOCKET_QUESTIONS_MAX * 4 * u32::try_from(POOL_SOCKETS).unwrap();
    for token in 0..total {
        lookups.ask(u64::from(token), a("example.org"), token.into(), &mut net).unwrap();
        let (slot, query) = net.sent.pop().unwrap();
        lookups.datagram(1, slot, &reply(&query, |_| {}), &mut net, &mut done);
    }
    assert_eq!(done.len(), usize::try_from(total).unwrap());
    assert!(net.opened >= 3 * POOL_SOCKETS, "{}", net.opened);
    // By age, and only when the last answer is in.
    let before = net.opened;
    lookups.ask(0, a("example.org"), 1, &mut net).unwrap();
    let (slot, query) = net.sent.pop().unwrap();
    let later = SOCKET_AGE_US_MAX + u64::from(total);
    lookups.ask(later, a("example.org"), 2, &mut net).unwrap();
    assert_eq!(net.opened, before + 1);
    assert!(net.open[usize::from(slot)]);
    lookups.datagram(later, slot, &reply(&query, |_| {}), &mut net, &mut done);
    assert!(!net.open[usize::from(slot)]);
}

#[test]
fn a_flood_of_guesses_drives_a_far_socket_to_tcp() {
    let (mut lookups, mut net, mut done) = (machine(FAR, 1), Net::default(), Vec::new());
    lookups.ask(0, a("example.org"), 1, &mut net).unwrap();
    let (slot, query) = net.sent.pop().unwrap();
    let mut guess = reply(&query, |_| {});
    for n in 1..=WRONG_RUN_MAX {
        assert!(done.is_empty());
        guess[0..2].copy_from_slice(&(u16::from_be_bytes([query[0], query[1]]) ^ n).to_be_bytes());
        lookups.datagram(1, slot, &guess, &mut net, &mut done);
    }
    assert_eq!(done, [Finished { token: 1, outcome: Outcome::NeedsTcp(a("example.org")) }]);
    assert!(!net.open[usize::from(slot)], "its port is known to somebody: it is gone");
}

#[test]
fn an_old_resolver_is_asked_without_edns() {
    let (mut lookups, mut net, mut done) = (machine(NEAR, 1), Net::default(), Vec::new());
    lookups.ask(0, a("example.org"), 1, &mut net).unwrap();
    let (slot, query) = net.sent.pop().unwrap();
    assert!(Message::from_vec(&query).unwrap().edns.is_some());
    let refused = reply(&query, |m| m.metadata.response_code = ResponseCode::FormErr);
    lookups.datagram(1, slot, &refused, &mut net, &mut done);
    let (slot, query) = net.sent.pop().unwrap();
    assert!(Message::from_vec(&query).unwrap().edns.is_none());
    let refused = reply(&query, |m| m.metadata.response_code = ResponseCode::FormErr);
    lookups.datagram(1, slot, &refused, &mut net, &mut done);
    assert!(matches!(done[..], [Finished { outcome: Outcome::Failed(Failure::Server(1)), .. }]));
}

#[test]
fn what_is_too_much_or_has_no_socket_is_refused_at_once() {
    let (mut lookups, mut net, mut done) = (machine(NEAR, 1), Net::default(), Vec::new());
    for token in 0..100 {
        lookups.ask(0, a("example.org"), token, &mut net).unwrap();
    }
    assert_eq!(lookups.ask(0, a("example.org"), 100, &mut net), Err(Busy));
    lookups.unreachable(0, &mut net, &mut done);
    assert_eq!((done.len(), lookups.in_flight()), (100, 0));
    let mut broken = Net { refuse: true, ..Net::default() };
    assert_eq!(machine(NEAR, 1).ask(0, a("example.org"), 1, &mut broken), Err(Busy));
}

/// Plays a whole reverse look-up over a table of outcomes.
fn reverse(address: &str, names: &[&str], forward: impl Fn(&str) -> Outcome) -> Reverse {
    let (mut lookup, question) = ReverseLookup::new(address.parse().unwrap());
    let mut given = outcome(&question, |m| {
        for host in names {
            let owner = question.to_string().replace(" PTR", "");
            m.add_answer(record(&owner, 60, RData::PTR(PTR(name(host)))));
        }
    });
    loop {
        match lookup.answer(&given) {
            Step::Done(reverse) => return reverse,
            Step::Ask(question) => {
                given = forward(question.to_string().split(' ').next().unwrap());
            }
        }
    }
}

#[test]
fn a_name_counts_only_when_it_leads_back() {
    let found = |data: Vec<Data>| Outcome::Found(Answer { data, ttl_s: 1, authentic: false });
    let own = |_: &str| found(vec![Data::A("192.0.2.9".parse().unwrap())]);
    let confirmed = Reverse::Confirmed("mail.example".into());
    assert_eq!(reverse("192.0.2.9", &["Mail.example."], own), confirmed);
    assert_eq!(reverse("::ffff:192.0.2.9", &["mail.example."], own), confirmed);
    let second = |host: &str| if host == "mail.example." { own(host) } else { found(Vec::new()) };
    assert_eq!(reverse("192.0.2.9", &["x.example.", "mail.example."], second), confirmed);
    let other = |_: &str| found(vec![Data::A("192.0.2.8".parse().unwrap())]);
    let claimed = Reverse::Unconfirmed("x.example".into());
    assert_eq!(reverse("192.0.2.9", &["x.example.", "y.example."], other), claimed);
    let silent = |_: &str| Outcome::Failed(Failure::Timeout);
    let unknown = Reverse::Unknown(Some("x.example".into()));
    assert_eq!(reverse("192.0.2.9", &["x.example."], silent), unknown);
    assert_eq!(reverse("192.0.2.9", &[], own), Reverse::NoName);
    assert_eq!(reverse("192.0.2.9", &["evil\nheader.example."], own), Reverse::NoName);
    let v6 = |_: &str| found(vec![Data::Aaaa(Ipv6Addr::LOCALHOST)]);
    assert_eq!(reverse("::1", &["l.example."], v6), Reverse::Confirmed("l.example".into()));
    let many: Vec<String> = (0..40).map(|n| format!("n{n}.example.")).collect();
    let asked = std::cell::Cell::new(0);
    let count = |host: &str| {
        asked.set(asked.get() + 1);
        other(host)
    };
    reverse("192.0.2.9", &many.iter().map(String::as_str).collect::<Vec<_>>(), count);
    assert_eq!(asked.get(), REVERSE_NAMES_MAX);
}

#[test]
fn an_address_literal_is_no_host() {
    let question = Question::new(b"example.org", Kind::Mx).unwrap();
    let found = outcome(&question, |m| {
        m.add_answer(record("example.org.", 1, RData::MX(MX::new(1, name("192.0.2.1.")))));
    });
    assert_eq!(found, Outcome::Failed(Failure::Malformed));
    let null = outcome(&question, |m| {
        m.add_answer(record("example.org.", 1, RData::MX(MX::new(0, Name::root()))));
    });
    let Outcome::Found(answer) = null else { panic!("{null:?}") };
    assert_eq!(answer.data, [Data::Mx { preference: 0, host: "".into() }]);
}

proptest! {
    #[test]
    fn no_bytes_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..600),
        at in 0_usize..400,
        far in any::<bool>(),
        any_name in proptest::collection::vec(any::<u8>(), 0..80),
        octets in any::<[u8; 16]>(),
    ) {
        let resolver = if far { FAR } else { NEAR };
        let (mut lookups, mut net, mut done) = (machine(resolver, 2), Net::default(), Vec::new());
        let mut questions = vec![a("example.org"), Question::reverse(IpAddr::from(octets))];
        questions.extend(Question::new(&any_name, Kind::Txt));
        for question in questions {
            let _ = question.to_string();
            lookups.ask(0, question, 1, &mut net).unwrap();
            let (slot, query) = net.sent.pop().unwrap();
            let mut answer = reply(&query, |m| {
                for last in 0..5 {
                    m.add_answer(address("example.org.", last));
                }
            });
            // Behind the question everything may be anything.
            let at = (query.len() + at % 100).min(answer.len());
            for (place, octet) in answer[at..].iter_mut().zip(&noise) {
                *place = *octet;
            }
            lookups.datagram(1, slot, &noise, &mut net, &mut done);
            lookups.datagram(1, slot, &answer, &mut net, &mut done);
            answer.truncate(at);
            lookups.datagram(1, slot, &answer, &mut net, &mut done);
        }
        lookups.expire(u64::MAX, &mut net, &mut done);
        lookups.expire(u64::MAX, &mut net, &mut done);
        prop_assert_eq!(lookups.in_flight(), 0);
    }
}
