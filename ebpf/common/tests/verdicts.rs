//! The whole decision over tables in memory, and the answers it leads to.

mod frames;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use ebpf_common::answer::{self, Buffer, Link, Say};
use ebpf_common::config::{Config, FLAG_ANSWER, FLAG_BUCKET, FLAG_TAGGED};
use ebpf_common::count::Counter;
use ebpf_common::entry::{Action, Entry, Host, Listing};
use ebpf_common::limits::{EPOCH_S, TEXT_BYTES};
use ebpf_common::packet::{Address, Segment, Tunnel, parse};
use ebpf_common::text;
use ebpf_common::verdict::{Act, Hit, Now, Step, Tables, step};
use frames::{ACK, FIN, RST, SYN, frame};
use proptest::prelude::*;

#[derive(Default)]
struct World {
    bans: HashMap<u32, Entry>,
    hosts: [HashMap<u32, Host>; 2],
    networks: [HashMap<u32, Entry>; 2],
    allowed: [Vec<u32>; 2],
    buckets: [(Cell<u64>, Cell<u64>); 8],
    accepting_until_s: u32,
    counts: RefCell<HashMap<u32, u64>>,
    reasons: RefCell<Vec<(u8, Action)>>,
    events: RefCell<Vec<(u8, Action, Action, bool)>>,
    firsts: Cell<u32>,
    /// No event can be told.
    deaf: Cell<bool>,
}

impl World {
    fn counted(&self, counter: Counter) -> u64 {
        self.counts.borrow().get(&(counter as u32)).copied().unwrap_or(0)
    }
}

impl Tables for World {
    fn ban(&self, source: &Address) -> Option<&Entry> {
        self.bans.get(&source.words[0])
    }
    fn host(&self, slot: u32, source: &Address) -> Option<&Host> {
        self.hosts[slot as usize].get(&source.words[0])
    }
    fn network(&self, slot: u32, source: &Address) -> Option<&Entry> {
        self.networks[slot as usize].get(&(source.words[0] >> 8))
    }
    fn allowed(&self, slot: u32, source: &Address) -> bool {
        self.allowed[slot as usize].contains(&source.words[0])
    }
    fn bucket(&self, network: u64) -> Option<&Cell<u64>> {
        self.buckets.iter().find(|(key, _)| key.get() == network).map(|(_, until)| until)
    }
    fn open_bucket(&self, network: u64, until: u64) {
        let free = self.buckets.iter().find(|(key, _)| key.get() == 0).expect("a few networks");
        free.0.set(network);
        free.1.set(until);
    }
    fn accepting_until_s(&self) -> u32 {
        self.accepting_until_s
    }
    fn count(&self, counter: Counter) {
        *self.counts.borrow_mut().entry(counter as u32).or_default() += 1;
    }
    fn count_reason(&self, reason: u8, action: Action) -> u32 {
        self.reasons.borrow_mut().push((reason, action));
        u32::try_from(self.reasons.borrow().len()).expect("few") - 1
    }
    fn spread(&self, _class: u32) {}
    fn event(&self, hit: &Hit, _segment: &Segment, _now_s: u32) -> bool {
        if self.deaf.get() {
            return false;
        }
        self.events.borrow_mut().push((hit.place, hit.wanted, hit.action, hit.allowed));
        self.firsts.set(self.firsts.get() + u32::from(hit.first));
        true
    }
}

const NOW_S: u32 = 1_000;

fn listing(action: Action) -> Listing {
    Listing { expires_s: 0, id: 0xabc, reason: 5, action, list: 1 }
}

fn entry(action: Action) -> Entry {
    listing(action).into()
}

fn host(action: Action) -> Host {
    listing(action).into()
}

fn config(mode: Action) -> Config {
    let mut config = Config::new();
    config.mode = mode as u8;
    config.flags = FLAG_ANSWER;
    config.keys = [[1, 2], [3, 4]];
    config
}

fn segment(f: &frames::Frame) -> Segment {
    parse(f.octets().as_slice(), Tunnel::Direct, |_| false).expect("a TCP segment")
}

fn now(seconds: u32) -> Now {
    Now { seconds, ticks: u64::from(seconds) * 250 * 1024 }
}

fn decide(config: &Config, world: &World, f: &frames::Frame) -> Step {
    step(config, world, &segment(f), || now(NOW_S))
}

const SOURCE: u32 = 0xc000_0209;

fn syn() -> frames::Frame {
    frame("192.0.2.9", "10.0.0.2", SYN)
}

fn world() -> World {
    World { accepting_until_s: NOW_S + 10, ..World::default() }
}

#[test]
fn only_a_syn_to_a_judged_port_is_judged() {
    let mut world = world();
    world.hosts[0].insert(SOURCE, host(Action::Drop));
    let config = config(Action::Drop);
    assert_eq!(decide(&config, &world, &syn()).act, Act::Drop);
    for flags in [ACK, SYN | ACK, RST, FIN, FIN | ACK, RST | ACK, SYN | FIN, SYN | RST, 0] {
        let mut f = syn();
        f.flags = flags;
        assert_eq!(decide(&config, &world, &f).act, Act::Pass, "flags {flags:02x}");
    }
    let mut f = syn();
    f.ports.1 = 587;
    assert_eq!(decide(&config, &world, &f).act, Act::Pass);
    f.ports.1 = 0;
    assert_eq!(decide(&config, &world, &f).act, Act::Pass);
    assert_eq!(world.counted(Counter::Syn), 1);
}

#[test]
fn the_smallest_of_entry_ceiling_and_mode_counts() {
    use Action::{Answer, Count, Drop, Pass};
    for asked in [Pass, Count, Answer, Drop] {
        for ceiling in [Pass, Count, Answer, Drop] {
            for mode in [Pass, Count, Answer, Drop] {
                let mut world = world();
                world.hosts[0].insert(SOURCE, host(asked));
                let mut config = config(mode);
                config.ceilings[1] = ceiling as u8;
                let expected = match asked.min(ceiling).min(mode) {
                    Pass | Count => Act::Pass,
                    Answer => Act::Open,
                    Drop => Act::Drop,
                };
                let got = decide(&config, &world, &syn()).act;
                assert_eq!(got, expected, "{asked:?} {ceiling:?} {mode:?}");
            }
        }
    }
}

#[test]
fn allow_wins_over_every_place() {
    let config = config(Action::Drop);
    for place in 0..3 {
        let mut world = world();
        match place {
            0 => drop(world.bans.insert(SOURCE, entry(Action::Drop))),
            1 => drop(world.hosts[0].insert(SOURCE, host(Action::Drop))),
            _ => drop(world.networks[0].insert(SOURCE >> 8, entry(Action::Drop))),
        }
        assert_eq!(decide(&config, &world, &syn()).act, Act::Drop, "place {place}");
        world.allowed[0].push(SOURCE);
        assert_eq!(decide(&config, &world, &syn()).act, Act::Pass, "place {place}");
        assert_eq!(world.counted(Counter::Allowed), 1);
        assert_eq!(world.counted(Counter::Dropped), 1);
        let last = world.events.borrow().last().copied();
        assert_eq!(last, Some((place + 1, Action::Drop, Action::Drop, false)), "first hits only");
    }
}

#[test]
fn the_generation_chooses_all_lists_at_once() {
    let mut world = world();
    world.hosts[1].insert(SOURCE, host(Action::Drop));
    world.allowed[0].push(SOURCE);
    let mut config = config(Action::Drop);
    assert_eq!(decide(&config, &world, &syn()).act, Act::Pass);
    config.generation = 7;
    assert_eq!(decide(&config, &world, &syn()).act, Act::Drop);
}

#[test]
fn what_lapsed_is_absent_and_the_next_place_counts() {
    let mut world = world();
    let lapsed = Listing { expires_s: NOW_S, ..listing(Action::Drop) };
    world.bans.insert(SOURCE, lapsed.into());
    let config = config(Action::Drop);
    assert_eq!(decide(&config, &world, &syn()).act, Act::Pass);
    assert_eq!(world.counted(Counter::Clean), 1);
    world.networks[0].insert(SOURCE >> 8, entry(Action::Answer));
    assert_eq!(decide(&config, &world, &syn()).act, Act::Open);
    let live = Listing { expires_s: NOW_S + 1, ..listing(Action::Drop) };
    world.bans.insert(SOURCE, live.into());
    assert_eq!(decide(&config, &world, &syn()).act, Act::Drop);
}

#[test]
fn the_answer_stands_down() {
    let mut world = world();
    world.hosts[0].insert(SOURCE, host(Action::Answer));
    let mut config = config(Action::Drop);
    assert_eq!(decide(&config, &world, &syn()).act, Act::Open);
    world.accepting_until_s = NOW_S;
    assert_eq!(decide(&config, &world, &syn()).act, Act::Pass);
    world.accepting_until_s = NOW_S + 1;
    config.flags = 0;
    assert_eq!(decide(&config, &world, &syn()).act, Act::Pass);
    assert_eq!(world.counted(Counter::StoodDown), 2);
    config.flags = FLAG_ANSWER;
    let mut tagged = syn();
    tagged.tags = vec![(0x8100, 10)];
    assert_eq!(decide(&config, &world, &tagged).act, Act::Pass);
    config.flags |= FLAG_TAGGED;
    assert_eq!(decide(&config, &world, &tagged).act, Act::Open);
    tagged.tags = vec![(0x88a8, 5), (0x8100, 10)];
    assert_eq!(decide(&config, &world, &tagged).act, Act::Pass);
    assert_eq!(world.counted(Counter::TagRefused), 2);
}

#[test]
fn a_whole_session() {
    let mut world = world();
    world.hosts[0].insert(SOURCE, host(Action::Answer));
    let config = config(Action::Answer);
    let opened = decide(&config, &world, &syn());
    assert_eq!(opened.act, Act::Open);
    let mut f = syn();
    (f.flags, f.acknowledgement) = (ACK, opened.sequence.wrapping_add(1));
    let refused = decide(&config, &world, &f);
    assert_eq!(refused.act, Act::Refuse);
    assert_eq!((refused.id, refused.reason), (0xabc, 5));
    let after = u32::try_from(TEXT_BYTES).expect("small") + 1;
    f.acknowledgement = f.acknowledgement.wrapping_add(after);
    assert_eq!(decide(&config, &world, &f).act, Act::Drop, "a bare ACK needs nothing");
    f.data = b"QUIT\r\n".to_vec();
    assert_eq!(decide(&config, &world, &f).act, Act::Acknowledge);
    f.flags = ACK | FIN;
    assert_eq!(decide(&config, &world, &f).act, Act::Acknowledge);
    f.flags = RST | ACK;
    assert_eq!(decide(&config, &world, &f).act, Act::Pass);
    assert_eq!(world.counted(Counter::Refused), 1);
    assert_eq!(world.counted(Counter::Finished), 1);
}

#[test]
fn a_listing_that_lapses_before_the_ack_leaves_it_to_the_stack() {
    let mut world = world();
    world.bans.insert(SOURCE, Listing { expires_s: NOW_S + 1, ..listing(Action::Answer) }.into());
    let config = config(Action::Answer);
    let mut f = syn();
    (f.flags, f.acknowledgement) = (ACK, decide(&config, &world, &syn()).sequence.wrapping_add(1));
    assert_eq!(decide(&config, &world, &f).act, Act::Refuse);
    let later = step(&config, &world, &segment(&f), || now(NOW_S + 1));
    assert_eq!(later.act, Act::Pass);
    assert_eq!(world.counted(Counter::Lapsed), 1);
}

#[test]
fn an_unproven_packet_of_a_listed_client_is_not_touched() {
    let mut world = world();
    world.hosts[0].insert(SOURCE, host(Action::Answer));
    let config = config(Action::Drop);
    for acknowledgement in (0..10_000).map(|n: u32| n.wrapping_mul(429_496)) {
        let mut f = syn();
        (f.flags, f.acknowledgement) = (ACK, acknowledgement);
        assert_eq!(decide(&config, &world, &f).act, Act::Pass);
    }
    assert_eq!(world.hosts[0][&SOURCE].heard.get(), 0, "no list was asked");
}

#[test]
fn a_rate_limits_a_network_and_never_bans() {
    let world = World { allowed: [vec![0xc000_02ff], Vec::new()], ..world() };
    let mut config = config(Action::Drop);
    config.flags |= FLAG_BUCKET;
    // One SYN a second, three at once.
    config.bucket_step = 250 * 1024;
    config.bucket_room = 2 * config.bucket_step;
    let at = |second, host: u8| {
        let f = frame(&format!("192.0.2.{host}"), "10.0.0.2", SYN);
        step(&config, &world, &segment(&f), || now(second)).act
    };
    assert_eq!(
        [at(50, 1), at(50, 2), at(50, 3), at(50, 4)],
        [Act::Pass, Act::Pass, Act::Pass, Act::Drop]
    );
    assert_eq!(at(50, 255), Act::Pass, "allow wins");
    assert_eq!(at(51, 5), Act::Pass);
    assert_eq!(at(51, 5), Act::Drop);
    assert_eq!(at(100, 5), Act::Pass, "nothing is remembered of it");
    assert_eq!(world.counted(Counter::Limited), 2);
    let mut counting = config.clone();
    counting.mode = Action::Count as u8;
    for _ in 0..10 {
        let act = step(&counting, &world, &segment(&syn()), || now(100)).act;
        assert_eq!(act, Act::Pass, "counting changes nothing");
    }
}

#[test]
fn the_first_hit_is_an_event_then_one_in_many() {
    let mut world = world();
    world.hosts[0].insert(SOURCE, host(Action::Drop));
    let mut config = config(Action::Drop);
    config.sample_shift = 3;
    for _ in 0..17 {
        decide(&config, &world, &syn());
    }
    assert_eq!(world.events.borrow().len(), 3);
    assert_eq!((world.reasons.borrow().len(), world.firsts.get()), (17, 1));
}

#[test]
fn a_first_hit_that_cannot_be_told_is_told_by_a_later_one() {
    let mut world = world();
    world.hosts[0].insert(SOURCE, host(Action::Drop));
    world.deaf.set(true);
    let config = config(Action::Drop);
    for _ in 0..5 {
        decide(&config, &world, &syn());
    }
    assert_eq!(world.hosts[0][&SOURCE].heard.get(), 0, "and nothing is written");
    world.deaf.set(false);
    decide(&config, &world, &syn());
    decide(&config, &world, &syn());
    assert_eq!((world.events.borrow().len(), world.firsts.get()), (1, 1));
}

#[test]
fn cookies_outlive_the_epoch_and_the_key() {
    let mut world = world();
    world.hosts[0].insert(SOURCE, host(Action::Answer));
    world.accepting_until_s = u32::MAX;
    let mut config = config(Action::Answer);
    let mut f = syn();
    let first = step(&config, &world, &segment(&f), || now(EPOCH_S * 10 + 63)).sequence;
    (f.flags, f.acknowledgement) = (ACK, first.wrapping_add(1));
    config.key = 1;
    let act = |config: &Config, second| step(config, &world, &segment(&f), || now(second)).act;
    assert_eq!(act(&config, EPOCH_S * 11 + 63), Act::Refuse);
    assert_eq!(act(&config, EPOCH_S * 12), Act::Pass);
    config.keys[0] = [9, 9];
    assert_eq!(act(&config, EPOCH_S * 11), Act::Pass);
}

const LINK: Link = Link { destination: [2, 0, 0, 0, 0, 9], source: [2, 0, 0, 0, 0, 8] };

fn built(f: &frames::Frame, say: &Say<'_>) -> frames::Reply {
    let segment = segment(f);
    let mut buffer: Buffer = [0xee; 256];
    let start = answer::build(&mut buffer, &segment, &LINK, say);
    let end = start + answer::length(&segment, say);
    frames::read(&buffer[start..end])
}

/// Questions of each family, tagged and not, with data and FIN.
fn questions() -> Vec<frames::Frame> {
    let mut all = Vec::new();
    for (from, to) in [("198.51.100.7", "10.0.0.2"), ("2001:db8::a:9", "2001:db8:1::2")] {
        for tag in [None, Some((0x8100, 0xe00a))] {
            for data in [Vec::new(), b"QUIT\r\n".to_vec()] {
                for flags in [ACK, ACK | FIN] {
                    let mut f = frame(from, to, flags);
                    f.tags = tag.into_iter().collect();
                    (f.data, f.tcp_options, f.acknowledgement) = (data.clone(), 12, 77);
                    (f.options, f.extensions) = (8, frames::extensions(&[60]));
                    all.push(f);
                }
            }
        }
    }
    all
}

#[test]
fn answers_are_whole_frames() {
    for f in questions() {
        let opened = built(&f, &Say::Open(99));
        assert_eq!(opened.macs, [LINK.destination, LINK.source]);
        assert_eq!(opened.tag, f.tags.first().map(|t| t.1 & 0xfff));
        assert_eq!((opened.from, opened.to), (f.to, f.from));
        assert_eq!(opened.ports, (f.ports.1, f.ports.0));
        assert_eq!((opened.sequence, opened.acknowledgement), (99, f.sequence + 1));
        assert_eq!((opened.flags, opened.data.len()), (SYN | ACK, 0));
        let heard = u32::try_from(f.data.len()).expect("small") + u32::from(f.flags & FIN);
        let heard = f.sequence + heard;
        let acknowledged = built(&f, &Say::Acknowledge);
        assert_eq!((acknowledged.sequence, acknowledged.acknowledgement), (77, heard));
        assert_eq!((acknowledged.flags, acknowledged.data.len()), (ACK, 0));
        let six = f.from.is_ipv6();
        let body = "listed by Example; see https://mx.example.net/why";
        let text = text::prepare(six, body).expect("fits");
        let refused = built(&f, &Say::Refuse(&text, 0x0123_abcd));
        assert_eq!((refused.sequence, refused.acknowledgement), (77, heard));
        assert_eq!(refused.flags, ACK | FIN | 0x08);
        let line = String::from_utf8(refused.data).expect("ASCII");
        let address = if six { "2001:0db8:0000:0000:0000:0000:000a:0009" } else { "198.51.100.7" };
        assert!(line.starts_with(&format!("554 5.7.1 [{address}]")), "{line}");
        assert!(line.contains(body), "{line}");
        assert!(line.ends_with(" (id 0123ABCD)\r\n"), "{line}");
        assert_eq!(line.len(), TEXT_BYTES);
    }
}

proptest! {
    #[test]
    fn any_answer_has_right_checksums_and_its_address(
        from in any::<u32>(),
        six in any::<u128>(),
        sequence in any::<u32>(),
        acknowledgement in any::<u32>(),
        id in any::<u32>(),
    ) {
        let from = std::net::Ipv4Addr::from(from).to_string();
        let from6 = std::net::Ipv6Addr::from(six).to_string();
        for (from, to) in [(from, "10.0.0.2"), (from6, "2001:db8:1::2")] {
            let mut f = frame(&from, to, ACK);
            (f.sequence, f.acknowledgement) = (sequence & 0xffff_ff00, acknowledgement);
            let text = text::prepare(f.from.is_ipv6(), "listed").expect("fits");
            let reply = built(&f, &Say::Refuse(&text, id));
            let line = String::from_utf8(reply.data).expect("ASCII");
            let shown = line[11..].split(']').next().expect("a bracket");
            prop_assert_eq!(shown.parse::<std::net::IpAddr>().expect("an address"), f.from);
            let suffix = format!("(id {id:08X})\r\n");
            prop_assert!(line.ends_with(&suffix));
        }
    }
}
