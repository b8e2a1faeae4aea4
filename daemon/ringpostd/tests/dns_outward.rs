//! The house's resolver against a small scripted name server on loopback, UDP and TCP.

#![expect(clippy::unwrap_used, reason = "a test: a panic is the verdict")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ringpostd::dns::{
    AddressAnswer, Answer, Data, Failure, Finished, Kind, Lookups, LookupsConfig, MxAnswer,
    Outcome, Outward, OutwardConfig, Question, Slot, Wire,
};

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn add(message: &mut Message, owner: &str, data: RData) {
    message.add_answer(Record::from_rdata(name(owner), 300, data));
}

fn mx(message: &mut Message, preference: u16, host: &str) {
    let owner = message.queries[0].name().to_ascii();
    add(message, &owner, RData::MX(MX::new(preference, name(host))));
}

/// Bytes of the answer; `None` is silence.
fn script(query: &[u8], udp: bool) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).unwrap();
    let (asked, kind) = (query.queries[0].name().to_ascii(), query.queries[0].query_type());
    let mut m = query.into_response();
    m.edns = None;
    let v4 = |last| RData::A(A(Ipv4Addr::new(192, 0, 2, last)));
    match (asked.to_ascii_lowercase().as_str(), kind) {
        ("two.example.", RecordType::MX) => {
            mx(&mut m, 20, "b.two.example.");
            mx(&mut m, 10, "A.two.example.");
            mx(&mut m, 10, "gone.two.example.");
        }
        ("a.two.example.", RecordType::A) => add(&mut m, &asked, v4(1)),
        ("a.two.example.", RecordType::AAAA) => {
            add(&mut m, &asked, RData::AAAA(AAAA(Ipv6Addr::LOCALHOST)));
        }
        ("b.two.example.", RecordType::A) => {
            add(&mut m, &asked, RData::CNAME(CNAME(name("c.two.example."))));
            add(&mut m, "c.two.example.", v4(3));
        }
        ("null.example.", RecordType::MX) => mx(&mut m, 0, "."),
        ("many.example.", RecordType::MX) if udp => m.metadata.truncation = true,
        ("many.example.", RecordType::MX) => {
            for n in 0..150_u16 {
                mx(&mut m, n, &format!("h{n}.many.example."));
            }
        }
        (host, RecordType::A) if host.ends_with(".many.example.") => add(&mut m, &asked, v4(9)),
        ("plain.example.", RecordType::A) => add(&mut m, &asked, v4(7)),
        ("lost.example.", RecordType::MX) => mx(&mut m, 1, "nowhere.example."),
        ("sick.example.", _) => m.metadata.response_code = ResponseCode::ServFail,
        ("half.example.", RecordType::MX) => {
            mx(&mut m, 1, "sick.example.");
            mx(&mut m, 2, "plain.example.");
        }
        ("silent.example.", _) => return None,
        ("plain.example." | "b.two.example." | "empty.example.", _) => {}
        (host, _) if host.ends_with(".many.example.") => {}
        _ => {
            m.metadata.response_code = ResponseCode::NXDomain;
            let soa = SOA::new(name("ns."), name("admin."), 1, 2, 3, 4, 50);
            m.add_authority(Record::from_rdata(name("example."), 900, RData::SOA(soa)));
        }
    }
    m.to_vec().ok()
}

/// Answers until the process ends; the address, and how many queries came over TCP.
fn serve() -> (SocketAddr, Arc<AtomicUsize>) {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    let over_tcp = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&over_tcp);
    thread::spawn(move || {
        let mut room = [0; 4_096];
        while let Ok((count, peer)) = udp.recv_from(&mut room) {
            if let Some(answer) = script(&room[..count], true) {
                let mut forged = answer.clone();
                forged[0] ^= 0x55;
                udp.send_to(&forged, peer).unwrap();
                udp.send_to(&answer, peer).unwrap();
            }
        }
    });
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let (mut stream, counter) = (stream.unwrap(), Arc::clone(&counter));
            thread::spawn(move || {
                let mut length = [0; 2];
                while stream.read_exact(&mut length).is_ok() {
                    let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut query).unwrap();
                    counter.fetch_add(1, Ordering::Relaxed);
                    if let Some(answer) = script(&query, false) {
                        let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                        stream.write_all(&[&length[..], &answer].concat()).unwrap();
                    }
                }
            });
        }
    });
    (address, over_tcp)
}

fn run<T>(resolver: SocketAddr, work: impl AsyncFnOnce(&Outward) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = OutwardConfig {
        resolvers: vec![resolver],
        try_timeout: Duration::from_millis(300),
        tries: 1,
    };
    let outward = Outward::new(&config).unwrap();
    runtime.block_on(work(&outward))
}

#[test]
fn a_domain_leads_to_hosts_with_both_kinds_of_addresses() {
    let (address, _) = serve();
    let answer = run(address, async |outward| outward.mx("Two.example").await);
    let MxAnswer::Hosts { hosts, ttl_s, implicit } = answer else { panic!("{answer:?}") };
    assert!(!implicit && (298..=300).contains(&ttl_s), "{ttl_s}");
    let brief: Vec<_> =
        hosts.iter().map(|h| (h.preference, &*h.name, h.addresses.len(), h.unresolved)).collect();
    let expected = [
        (10, "a.two.example", 2, false),
        (10, "gone.two.example", 0, false),
        (20, "b.two.example", 1, false),
    ];
    assert_eq!(brief, expected);
    assert_eq!(hosts[0].addresses[1], IpAddr::V6(Ipv6Addr::LOCALHOST));
}

#[test]
fn kinds_of_no_are_told_apart() {
    let (address, _) = serve();
    run(address, async |outward| {
        assert_eq!(outward.mx("null.example").await, MxAnswer::Null);
        assert_eq!(outward.mx("nonesuch.example").await, MxAnswer::NoName);
        assert_eq!(outward.mx("not..a.name").await, MxAnswer::NoName);
        assert_eq!(outward.mx("empty.example").await, MxAnswer::NoHost);
        assert_eq!(outward.mx("lost.example").await, MxAnswer::NoHost);
        for domain in ["sick.example", "silent.example"] {
            let answer = outward.mx(domain).await;
            assert!(matches!(answer, MxAnswer::Temporary(_)), "{domain}: {answer:?}");
        }
        let answer = outward.mx("half.example").await;
        let MxAnswer::Hosts { hosts, .. } = answer else { panic!("{answer:?}") };
        assert!(hosts[0].unresolved && !hosts[1].unresolved);
        let plain = outward.mx("plain.example.").await;
        let MxAnswer::Hosts { hosts, implicit: true, .. } = plain else { panic!("{plain:?}") };
        assert_eq!(&*hosts[0].name, "plain.example");
        assert_eq!(outward.addresses("nowhere.example").await, AddressAnswer::NoName);
        assert_eq!(outward.addresses("empty.example").await, AddressAnswer::NoData);
    });
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let answer = run(closed, async |outward| outward.mx("two.example").await);
    assert!(matches!(answer, MxAnswer::Temporary(_)), "{answer:?}");
}

#[test]
fn a_long_list_comes_over_tcp_and_is_cut() {
    let (address, over_tcp) = serve();
    let answer = run(address, async |outward| outward.mx("many.example").await);
    let MxAnswer::Hosts { hosts, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(hosts.len(), ringpostd::dns::limits::MX_HOSTS_MAX);
    assert_eq!((hosts[0].preference, &*hosts[0].name), (0, "h0.many.example"));
    assert!(over_tcp.load(Ordering::Relaxed) > 0);
    let question = Question::new(b"many.example", Kind::Mx).unwrap();
    let outcome = run(address, async |outward| outward.over_tcp(&question).await);
    let Outcome::Found(Answer { data, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(data.len(), ringpostd::dns::limits::RECORDS_MAX);
    let question = Question::new(b"sick.example", Kind::A).unwrap();
    let outcome = run(address, async |outward| outward.over_tcp(&question).await);
    assert_eq!(outcome, Outcome::Failed(Failure::Server(2)));
}

/// One blocking socket for the core's machine.
struct One(Option<UdpSocket>, SocketAddr);

impl Wire for One {
    fn open(&mut self, _: Slot) -> bool {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.1).unwrap();
        self.0 = Some(socket);
        true
    }
    fn send(&mut self, _: Slot, datagram: &[u8]) {
        self.0.as_ref().unwrap().send(datagram).unwrap();
    }
    fn close(&mut self, _: Slot) {
        self.0 = None;
    }
}

#[test]
fn the_cores_machine_talks_to_a_real_socket() {
    let (resolver, _) = serve();
    let config = LookupsConfig { resolver, try_us: 1_000_000, tries: 2, in_flight_max: 10 };
    let mut state = 1_u64;
    let random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 16
    };
    let mut lookups = Lookups::new(config, Box::new(random));
    let mut wire = One(None, resolver);
    let ask = |lookups: &mut Lookups, wire: &mut One, host: &str, kind| {
        let question = Question::new(host.as_bytes(), kind).unwrap();
        lookups.ask(0, question, 4, wire).unwrap();
        let mut done: Vec<Finished> = Vec::new();
        while done.is_empty() {
            let mut room = [0; 2_048];
            let count = wire.0.as_ref().unwrap().recv(&mut room).unwrap();
            lookups.datagram(1, 0, &room[..count], wire, &mut done);
        }
        done.remove(0).outcome
    };
    let found = ask(&mut lookups, &mut wire, "b.two.example", Kind::A);
    let Outcome::Found(answer) = found else { panic!("{found:?}") };
    assert_eq!(answer.data, [Data::A(Ipv4Addr::new(192, 0, 2, 3))]);
    let none = ask(&mut lookups, &mut wire, "nonesuch.example", Kind::A);
    assert_eq!(none, Outcome::NoName { ttl_s: 50 });
    let cut = ask(&mut lookups, &mut wire, "many.example", Kind::Mx);
    assert!(matches!(cut, Outcome::NeedsTcp(_)), "{cut:?}");
    assert!(lookups.counters().wrong >= 3, "each answer had a forged one before it");
}
