//! The program in the kernel against the same decision on the host, frame by frame.

use ebpf_common::entry::Action;
use ebpf_common::packet::{Tunnel, parse};
use gate::{Gate, Rate, Settings, Table, monotonic_s};

use super::bed::{Bed, Lists, able, accept, bans, count, listing, settings};
use super::frames::{self, ACK, FIN, SYN, extensions, frame};

const DROP: u32 = 1;
const PASS: u32 = 2;
const BACK: u32 = 3;

fn verdict(gate: &mut Gate, octets: &[u8]) -> u32 {
    gate.trial(octets, 0, 1).expect("a trial").verdict
}

fn shapes() -> Vec<frames::Frame> {
    let mut all = Vec::new();
    for (from, to) in [("192.0.2.9", "10.77.0.1"), ("2001:db8::9", "fd77::1")] {
        for tags in [vec![], vec![(0x8100, 10)], vec![(0x88a8, 4), (0x8100, 10)]] {
            for (options, chain) in [(0, &[][..]), (40, &[0, 43, 60, 135, 51, 60][..])] {
                let mut f = frame(from, to, SYN);
                (f.tags, f.options, f.extensions) = (tags.clone(), options, extensions(chain));
                f.tcp_options = 20;
                all.push(f);
            }
        }
    }
    all
}

/// Lists 192.0.2.9 and 2001:db8::/64, to be dropped.
fn dropped() -> Lists {
    Lists::default().add(Table::Hosts4, "192.0.2.9/32", Action::Drop).add(
        Table::Hosts6,
        "2001:db8::/64",
        Action::Drop,
    )
}

fn loaded(mode: Action) -> Gate {
    let mut gate = Gate::load(None).expect("loaded");
    gate.attach(&settings(&[], mode)).expect("settings");
    gate
}

#[test]
fn every_shape_is_dropped_when_listed_and_passes_when_cut() {
    if !able() {
        return;
    }
    let mut gate = loaded(Action::Drop);
    dropped().swap(&mut gate);
    for f in shapes() {
        let whole = f.octets();
        assert_eq!(verdict(&mut gate, &whole), DROP, "{f:?}");
        for end in 14..whole.len() {
            assert_eq!(verdict(&mut gate, &whole[..end]), PASS, "{f:?} cut at {end}");
        }
    }
    Lists::default().swap(&mut gate);
    for f in shapes() {
        assert_eq!(verdict(&mut gate, &f.octets()), PASS);
    }
}

/// A generator of numbers, the same in every run.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 24
}

#[test]
fn the_kernel_and_the_host_read_damaged_frames_alike() {
    if !able() {
        return;
    }
    let mut gate = Gate::load(None).expect("loaded");
    let ends = vec!["10.77.0.1".parse().unwrap(), "fd77::1".parse().unwrap()];
    let tunnel = Tunnel::Gue(6080);
    let settings = Settings { tunnel, ends, ..settings(&[], Action::Drop) };
    gate.attach(&settings).expect("settings");
    // Everything is listed: whatever is a SYN to port 25 is dropped.
    Lists::default()
        .add(Table::Networks4, "0.0.0.0/0", Action::Drop)
        .add(Table::Networks6, "::/0", Action::Drop)
        .swap(&mut gate);
    let gue = [0, 0, 0x17, 0xc0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0, 0, 0];
    let mut seeds = shapes();
    seeds.push(frame("192.0.2.9", "10.77.0.1", SYN).inside4("192.0.2.1", "10.77.0.1", 17, &gue));
    let mut state = 7;
    let (mut drops, mut passes) = (0, 0);
    for _ in 0..20_000 {
        let pick = usize::try_from(next(&mut state)).expect("fits") % seeds.len();
        let mut octets = seeds[pick].octets();
        for _ in 0..next(&mut state) % 4 {
            let at = usize::try_from(next(&mut state)).expect("fits") % octets.len();
            octets[at] = u8::try_from(next(&mut state) & 0xff).expect("masked");
        }
        if next(&mut state).is_multiple_of(4) {
            let end = usize::try_from(next(&mut state)).expect("fits") % octets.len();
            octets.truncate(end.max(14));
        }
        let ends = |outer: &ebpf_common::packet::Address| {
            let (four, six) = ("10.77.0.1".parse().unwrap(), "fd77::1".parse().unwrap());
            *outer == super::bed::words(four) || *outer == super::bed::words(six)
        };
        let judged = parse(octets.as_slice(), tunnel, ends)
            .is_some_and(|s| s.destination_port == 25 && s.flags & 0x17 == SYN);
        let expected = if judged { DROP } else { PASS };
        assert_eq!(verdict(&mut gate, &octets), expected, "{octets:02x?}");
        *(if judged { &mut drops } else { &mut passes }) += 1;
    }
    assert!(drops > 5_000 && passes > 5_000, "{drops} dropped, {passes} passed");
}

#[test]
fn tunnels_are_judged_inside() {
    if !able() {
        return;
    }
    let four = || frame("192.0.2.9", "198.51.100.1", SYN);
    let six = || frame("2001:db8::9", "2001:db8:7::1", SYN);
    let gue0 = [0, 0, 0x17, 0xc0, 0, 0, 0, 0, 0, 41, 0, 0];
    let gue1 = [0, 0, 0x17, 0xc0, 0, 0, 0, 0];
    let (switch, us) = ("192.0.2.200", "10.77.0.1");
    let cases = [
        (Tunnel::Ipip, four().inside4(switch, us, 4, &[])),
        (Tunnel::Ipip, six().inside4(switch, us, 41, &[])),
        (Tunnel::Ipip, four().inside6("fd77::200", "fd77::1", 4)),
        (Tunnel::Gue(6080), six().inside4(switch, us, 17, &gue0)),
        (Tunnel::Gue(6080), four().inside4(switch, us, 17, &gue1)),
    ];
    let mut gate = Gate::load(None).expect("loaded");
    dropped().swap(&mut gate);
    for (tunnel, f) in cases {
        let ends = vec![us.parse().unwrap(), "fd77::1".parse().unwrap()];
        let with = Settings { tunnel, ends, ..settings(&[], Action::Drop) };
        gate.attach(&with).expect("settings");
        assert_eq!(verdict(&mut gate, &f.octets()), DROP, "{tunnel:?}");
        let elsewhere = vec!["10.77.0.9".parse().unwrap(), "fd77::9".parse().unwrap()];
        gate.attach(&Settings { ends: elsewhere, ..with }).expect("settings");
        assert_eq!(verdict(&mut gate, &f.octets()), PASS, "{tunnel:?} that ends elsewhere");
        gate.attach(&settings(&[], Action::Drop)).expect("settings");
        assert_eq!(verdict(&mut gate, &f.octets()), PASS, "{tunnel:?} not configured");
    }
}

#[test]
fn counting_changes_no_verdict_and_counts_reasons() {
    if !able() {
        return;
    }
    let mut gate = loaded(Action::Count);
    dropped().swap(&mut gate);
    let syn = frame("192.0.2.9", "10.77.0.1", SYN).octets();
    for _ in 0..100 {
        assert_eq!(verdict(&mut gate, &syn), PASS);
    }
    assert_eq!((count(&gate, "syn"), count(&gate, "counted")), (100, 100));
    let status = gate.status(Some("192.0.2.9".parse().unwrap())).expect("status");
    assert_eq!(status.reasons, [(5, Action::Count, 100)]);
    let (place, found, hits, _) = status.found[0];
    assert_eq!((place, found, hits), (2, listing(Action::Drop), 1), "told of");
    let events = gate.events();
    assert_eq!(events.len(), 2, "the first hit, then one in 64");
    assert_eq!((events[0].first, events[1].first), (1, 0));
    assert_eq!((events[0].wanted, events[0].action), (Action::Drop as u8, Action::Count as u8));
    assert!(status.sources_hidden(), "all SYNs from one source");
}

#[test]
fn allow_wins_in_the_kernel_too() {
    if !able() {
        return;
    }
    let mut gate = loaded(Action::Drop);
    dropped()
        .add(Table::Allowed4, "192.0.2.0/24", Action::Pass)
        .add(Table::Allowed6, "2001:db8::/32", Action::Pass)
        .swap(&mut gate);
    for f in shapes() {
        assert_eq!(verdict(&mut gate, &f.octets()), PASS);
    }
    assert_eq!(count(&gate, "allowed"), shapes().len() as u64);
}

#[test]
fn bans_lapse_by_the_kernels_clock() {
    if !able() {
        return;
    }
    let mut gate = loaded(Action::Drop);
    let bans = bans(&gate);
    let mut ban = listing(Action::Drop);
    ban.expires_s = monotonic_s() + 2;
    for host in ["192.0.2.9", "2001:db8::77"] {
        bans.put(host.parse().unwrap(), &ban).expect("banned");
    }
    for (from, to) in [("192.0.2.9", "10.77.0.1"), ("2001:db8::9", "fd77::1")] {
        let syn = frame(from, to, SYN).octets();
        let mut last = DROP;
        while last == DROP {
            let before_s = monotonic_s();
            last = verdict(&mut gate, &syn);
            let after_s = monotonic_s();
            // A tick of the timer may lie between the two clocks.
            assert!(last == PASS || before_s <= ban.expires_s, "dropped too long");
            assert!(last == DROP || after_s >= ban.expires_s, "passed too early");
            std::thread::yield_now();
        }
    }
    assert_eq!(bans.sweep(monotonic_s()).expect("swept"), 2);
    assert_eq!(bans.list(10).expect("listed"), []);
}

#[test]
fn a_rate_limits_in_the_kernel() {
    if !able() {
        return;
    }
    let mut gate = Gate::load(None).expect("loaded");
    let rate = Rate { syns_per_s: 1, burst: 5, bits4: 24, bits6: 48 };
    gate.attach(&Settings { rate: Some(rate), ..settings(&[], Action::Drop) }).expect("settings");
    let from = std::time::Instant::now();
    let mut passed = 0;
    for n in 0..50 {
        let syn = frame(&format!("192.0.2.{n}"), "10.77.0.1", SYN).octets();
        passed += u64::from(verdict(&mut gate, &syn) == PASS);
    }
    let longest = from.elapsed().as_secs() + 2;
    assert!((5..=5 + longest).contains(&passed), "{passed} of 50");
    assert_eq!(count(&gate, "limited"), 50 - passed);
    let other = frame("198.51.100.1", "10.77.0.1", SYN).octets();
    assert_eq!(verdict(&mut gate, &other), PASS);
}

/// The whole answered session by trial runs on an interface whose routes and neighbours are real.
#[test]
fn the_answer_is_whole_for_both_families_with_and_without_a_tag() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut gate = Gate::load(None).expect("loaded");
    let mut with = settings(&[], Action::Answer);
    // The stand-in for a VLAN interface: the tagged segment's routes lead to rp0 itself.
    with.ways = vec![gate::Way { interface: "rp0".into(), vlan: Some(10), out: "rp0".into() }];
    gate.attach(&with).expect("settings");
    accept(&gate, 600);
    Lists::default()
        .add(Table::Hosts4, "10.77.0.2/32", Action::Answer)
        .add(Table::Hosts6, "fd77::/64", Action::Answer)
        .swap(&mut gate);
    let index = interface();
    for (from, to) in [("10.77.0.2", "10.77.0.1"), ("fd77::2", "fd77::1")] {
        for tags in [vec![], vec![(0x8100, 0x600a)]] {
            let mut f = frame(from, to, SYN);
            (f.tags, f.tcp_options) = (tags, 20);
            session(&mut gate, index, f);
        }
    }
    let other = frame("10.77.0.2", "10.77.0.1", SYN).octets();
    assert_eq!(gate.trial(&other, 1, 1).expect("a trial").verdict, PASS, "another interface");
    assert_eq!(count(&gate, "no_way"), 1);
    drop(bed);
}

/// The number of `rp0` in this thread's namespace.
fn interface() -> u32 {
    nix::net::if_::if_nametoindex("rp0").expect("there")
}

fn session(gate: &mut Gate, index: u32, mut f: frames::Frame) {
    let mut back = |f: &frames::Frame| {
        let trial = gate.trial(&f.octets(), index, 1).expect("a trial");
        (trial.verdict, (trial.verdict == BACK).then(|| frames::read(&trial.frame)))
    };
    let (verdict, reply) = back(&f);
    assert_eq!(verdict, BACK, "{f:?}");
    let opened = reply.expect("sent back");
    assert_eq!((opened.flags, opened.acknowledgement), (SYN | ACK, f.sequence + 1));
    assert_eq!(opened.tag, f.tags.first().map(|t| t.1 & 0xfff));
    assert_eq!((opened.from, opened.to, opened.ports), (f.to, f.from, (25, f.ports.0)));
    assert_ne!(opened.macs, [f.macs[0], f.macs[1]], "links are the kernel's, not the frame's");
    (f.flags, f.sequence, f.tcp_options) = (ACK, f.sequence + 1, 12);
    f.acknowledgement = opened.sequence.wrapping_add(1);
    let refused = back(&f).1.expect("the 554");
    assert_eq!(refused.flags, ACK | FIN | 0x08);
    assert_eq!((refused.sequence, refused.acknowledgement), (f.acknowledgement, f.sequence));
    let line = String::from_utf8(refused.data).expect("ASCII");
    assert!(line.starts_with("554 5.7.1 ["), "{line}");
    assert!(line.contains("listed by Example") && line.ends_with("(id 1234ABCD)\r\n"), "{line}");
    f.acknowledgement = f.acknowledgement.wrapping_add(160);
    assert_eq!(back(&f).0, DROP, "a bare ACK");
    f.data = b"QUIT\r\n".to_vec();
    let quit = back(&f).1.expect("an acknowledgement");
    assert_eq!((quit.flags, quit.acknowledgement), (ACK, f.sequence + 6));
    f.flags = ACK | FIN;
    let end = back(&f).1.expect("an acknowledgement");
    assert_eq!((end.sequence, end.acknowledgement), (f.acknowledgement, f.sequence + 7));
    f.acknowledgement = f.acknowledgement.wrapping_add(1);
    assert_eq!(back(&f).0, PASS, "not proven");
}
