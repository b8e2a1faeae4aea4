//! The parser against frames of every shape, cut at every octet.

mod frames;

use ebpf_common::packet::{Address, Frame, Segment, Tunnel, parse};
use frames::{ACK, SYN, extensions, frame};
use proptest::prelude::*;

const ENDS: [u32; 2] = [0x0a00_0002, 7];

fn parsed(octets: &[u8], tunnel: Tunnel) -> Option<Segment> {
    parse(octets, tunnel, |outer| outer.six || ENDS.contains(&outer.words[0]))
}

fn four() -> frames::Frame {
    frame("192.0.2.9", "10.0.0.2", SYN)
}

fn six() -> frames::Frame {
    frame("2001:db8::9", "2001:db8:1::2", SYN)
}

/// Each shape with its tunnel; all hold the same segment.
fn shapes() -> Vec<(&'static str, Tunnel, frames::Frame)> {
    let tags = |tags: &[(u16, u16)], mut f: frames::Frame| {
        f.tags = tags.to_vec();
        f
    };
    let chain = |kinds: &[u8]| {
        let mut f = six();
        f.extensions = extensions(kinds);
        f
    };
    let options = |ip, tcp| {
        let mut f = four();
        (f.options, f.tcp_options) = (ip, tcp);
        f
    };
    let gue0 = |words: u8, protocol| {
        [vec![0, 0, 0x17, 0xc0, 0, 0, 0, 0, words, protocol, 0, 0], vec![0; usize::from(words) * 4]]
            .concat()
    };
    let gue1 = [0, 0, 0x17, 0xc0, 0, 0, 0, 0];
    let ends = ("192.0.2.200", "10.0.0.2");
    let mut all = vec![
        ("plain", Tunnel::Direct, four()),
        ("plain six", Tunnel::Direct, six()),
        ("tag", Tunnel::Direct, tags(&[(0x8100, 10)], four())),
        ("tag six", Tunnel::Direct, tags(&[(0x8100, 0xe00a)], six())),
        ("two tags", Tunnel::Direct, tags(&[(0x88a8, 5), (0x8100, 10)], four())),
        ("two tags six", Tunnel::Direct, tags(&[(0x88a8, 5), (0x8100, 10)], six())),
        ("ip options", Tunnel::Direct, options(4, 0)),
        ("all options", Tunnel::Direct, options(40, 40)),
        ("hop-by-hop", Tunnel::Direct, chain(&[0])),
        ("whole fragment", Tunnel::Direct, chain(&[44])),
        ("six extensions", Tunnel::Direct, chain(&[0, 43, 60, 135, 51, 60])),
        ("ipip", Tunnel::Ipip, four().inside4(ends.0, ends.1, 4, &[])),
        ("6in4", Tunnel::Ipip, six().inside4(ends.0, ends.1, 41, &[])),
        ("4in6", Tunnel::Ipip, four().inside6("2001:db8:f::1", "2001:db8:f::2", 4)),
        ("6in6", Tunnel::Ipip, chain(&[60]).inside6("2001:db8:f::1", "2001:db8:f::2", 41)),
        ("gue 0", Tunnel::Gue(6080), four().inside4(ends.0, ends.1, 17, &gue0(0, 4))),
        ("gue 0 long", Tunnel::Gue(6080), six().inside4(ends.0, ends.1, 17, &gue0(3, 41))),
        ("gue 1", Tunnel::Gue(6080), four().inside4(ends.0, ends.1, 17, &gue1)),
        ("gue 1 six", Tunnel::Gue(6080), six().inside4(ends.0, ends.1, 17, &gue1)),
    ];
    let mut first = four();
    first.fragment = 0x2000;
    all.push(("first fragment", Tunnel::Direct, first));
    for (_, _, f) in &mut all {
        // A GUE header's UDP port is 6080 in the third octet pair of what stands between.
        assert!(f.tunnel.is_empty() || f.tunnel.len() >= 20);
    }
    all
}

#[test]
fn every_shape_is_read() {
    for (name, tunnel, f) in shapes() {
        let segment = parsed(&f.octets(), tunnel).unwrap_or_else(|| panic!("{name} is not read"));
        let source = match f.from {
            std::net::IpAddr::V4(a) => Address::v4(a.to_bits()),
            std::net::IpAddr::V6(a) => Address::from_octets6(a.octets()),
        };
        assert_eq!(segment.source, source, "{name}");
        assert_eq!((segment.source_port, segment.destination_port), f.ports, "{name}");
        assert_eq!((segment.flags, segment.sequence), (SYN, f.sequence), "{name}");
        assert_eq!(usize::from(segment.tags), f.tags.len(), "{name}");
        assert_eq!(segment.tag, f.tags.last().map_or(0, |t| t.1), "{name}");
        assert_eq!(segment.data_bytes, 0, "{name}");
    }
}

#[test]
fn a_frame_cut_anywhere_passes() {
    for (name, tunnel, f) in shapes() {
        let whole = f.octets();
        for end in 0..whole.len() {
            assert_eq!(parsed(&whole[..end], tunnel), None, "{name} cut at {end}");
        }
        let padded = [whole, vec![0; 20]].concat();
        let segment = parsed(&padded, tunnel).expect("padding changes nothing");
        assert_eq!(segment.data_bytes, 0, "{name}: padding is not data");
    }
}

#[test]
fn data_is_what_the_length_field_says() {
    let mut f = four();
    (f.flags, f.data, f.tcp_options) = (ACK, b"QUIT\r\n".to_vec(), 12);
    assert_eq!(parsed(&f.octets(), Tunnel::Direct).map(|s| s.data_bytes), Some(6));
    let mut f = six();
    (f.flags, f.data, f.extensions) = (ACK, vec![0; 1000], extensions(&[0, 60]));
    assert_eq!(parsed(&f.octets(), Tunnel::Direct).map(|s| s.data_bytes), Some(1000));
}

#[test]
fn what_has_no_ports_passes() {
    let mut later = four();
    later.fragment = 0x2001;
    assert_eq!(parsed(&later.octets(), Tunnel::Direct), None);
    let mut last = four();
    last.fragment = 0x00b9;
    assert_eq!(parsed(&last.octets(), Tunnel::Direct), None);
    let mut six_later = six();
    six_later.extensions = vec![(44, vec![0, 0, 8, 0, 0, 0, 9])];
    assert_eq!(parsed(&six_later.octets(), Tunnel::Direct), None);
    let mut deep = six();
    deep.extensions = extensions(&[60; 7]);
    assert_eq!(parsed(&deep.octets(), Tunnel::Direct), None);
    let mut three = four();
    three.tags = vec![(0x88a8, 1), (0x8100, 2), (0x8100, 3)];
    assert_eq!(parsed(&three.octets(), Tunnel::Direct), None);
}

#[test]
fn a_tiny_first_fragment_passes() {
    let mut f = four();
    f.fragment = 0x2000;
    let mut octets = f.octets();
    octets.truncate(14 + 20 + 8);
    octets[16..18].copy_from_slice(&28_u16.to_be_bytes());
    assert_eq!(parsed(&octets, Tunnel::Direct), None);
}

#[test]
fn a_tunnel_is_opened_only_where_it_ends_and_as_configured() {
    let other = four().inside4("192.0.2.200", "10.0.0.3", 4, &[]).octets();
    assert_eq!(parsed(&other, Tunnel::Ipip), None);
    let ours = four().inside4("192.0.2.200", "10.0.0.2", 4, &[]).octets();
    assert!(parsed(&ours, Tunnel::Ipip).is_some());
    assert_eq!(parsed(&ours, Tunnel::Direct), None);
    assert_eq!(parsed(&ours, Tunnel::Gue(6080)), None);
    // Twice wrapped.
    let mut twice = four();
    twice.tunnel = [&ours[14..34], &ours[14..34]].concat();
    assert_eq!(parsed(&twice.octets(), Tunnel::Ipip), None);
    let gue = [0, 0, 0x17, 0xc1, 0, 0, 0, 0];
    let port = four().inside4("192.0.2.200", "10.0.0.2", 17, &gue).octets();
    assert_eq!(parsed(&port, Tunnel::Gue(6080)), None);
    assert!(parsed(&port, Tunnel::Gue(6081)).is_some());
    let control = [0, 0, 0x17, 0xc0, 0, 0, 0, 0, 0x20, 4, 0, 0];
    let control = four().inside4("192.0.2.200", "10.0.0.2", 17, &control).octets();
    assert_eq!(parsed(&control, Tunnel::Gue(6080)), None);
}

#[test]
fn header_lengths_are_checked() {
    let mut short = four().octets();
    short[14] = 0x44;
    assert_eq!(parsed(&short, Tunnel::Direct), None);
    let mut short_tcp = four().octets();
    short_tcp[14 + 20 + 12] = 0x40;
    assert_eq!(parsed(&short_tcp, Tunnel::Direct), None);
    let mut long_tcp = four().octets();
    long_tcp[14 + 20 + 12] = 0xf0;
    assert_eq!(parsed(&long_tcp, Tunnel::Direct), None);
}

/// Frames captured from real stacks, with what tcpdump said of each.
#[test]
fn captured_frames() {
    let capture = include_bytes!("fixtures/veth.pcap");
    let expected = include_str!("fixtures/veth.txt");
    let mut expected = expected.lines().filter(|l| !l.starts_with('#'));
    let mut rest = &capture[24..];
    let mut tcp = 0;
    while !rest.is_empty() {
        let bytes = u32::from_le_bytes(rest[8..12].try_into().expect("four"));
        let (frame, after) = rest[16..].split_at(usize::try_from(bytes).expect("small"));
        rest = after;
        let line = expected.next().expect("a line for each frame");
        let (number, expected) = line.split_once(' ').expect("two words");
        let got = parsed(frame, Tunnel::Direct).map_or_else(
            || "pass".to_owned(),
            |s| format!("{}:{:02x}:{}:{}", s.destination_port, s.flags, s.tags, s.data_bytes),
        );
        // A data segment with PSH and ACK: tcpdump and we name the same six bits.
        assert_eq!(got, expected, "frame {number}");
        tcp += usize::from(got != "pass");
    }
    assert!(expected.next().is_none());
    assert!(tcp >= 40, "only {tcp} captured segments");
}

/// A frame that checks that no read goes beyond its end, and that offsets stay small.
struct Watched<'a>(&'a [u8]);

impl Frame for Watched<'_> {
    fn octet(&self, offset: usize) -> Option<u8> {
        assert!(offset < 1024, "a read at {offset}");
        self.0.octet(offset)
    }
    fn half(&self, offset: usize) -> Option<u16> {
        assert!(offset < 1024, "a read at {offset}");
        self.0.half(offset)
    }
    fn word(&self, offset: usize) -> Option<u32> {
        assert!(offset < 1024, "a read at {offset}");
        self.0.word(offset)
    }
    fn reaches(&self, length: usize) -> bool {
        assert!(length < 0x1_ffff, "a length of {length}");
        self.0.reaches(length)
    }
}

proptest! {
    #[test]
    fn any_octets_are_read_without_panic(
        mut octets in proptest::collection::vec(any::<u8>(), 0..200),
        kind in 0..4_usize,
        port in any::<u16>(),
    ) {
        if octets.len() > 14 {
            let kinds = [[0x08, 0x00], [0x86, 0xdd], [0x81, 0x00], [0x12, 0x34]];
            octets[12..14].copy_from_slice(&kinds[kind]);
        }
        for tunnel in [Tunnel::Direct, Tunnel::Ipip, Tunnel::Gue(port)] {
            let _ = parse(&Watched(&octets), tunnel, |_| true);
        }
    }

    #[test]
    fn a_changed_octet_never_panics_and_never_reads_beyond(
        shape in 0..20_usize,
        at in any::<proptest::sample::Index>(),
        to in any::<u8>(),
        cut in any::<proptest::sample::Index>(),
    ) {
        let (_, tunnel, f) = shapes().swap_remove(shape);
        let mut octets = f.octets();
        let at = at.index(octets.len());
        octets[at] = to;
        let cut = cut.index(octets.len() + 1);
        if let Some(segment) = parse(&Watched(&octets), tunnel, |_| true) {
            prop_assert!(usize::from(segment.data_bytes) <= octets.len());
        }
        let _ = parse(&Watched(&octets[..cut]), tunnel, |_| true);
    }
}
