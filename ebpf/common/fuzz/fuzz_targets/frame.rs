//! Any octets as a frame, through parser, decision and answer.
//!
//! Run: `cargo +nightly fuzz run frame` in `ebpf/common`.

#![no_main]

use std::cell::Cell;

use ebpf_common::answer::{self, Link, Say};
use ebpf_common::config::{Config, FLAG_ANSWER, FLAG_BUCKET, FLAG_TAGGED};
use ebpf_common::count::Counter;
use ebpf_common::entry::{Action, Entry, Host, Listing};
use ebpf_common::packet::{Address, Segment, Tunnel, parse};
use ebpf_common::set::{Set, TABLES};
use ebpf_common::text;
use ebpf_common::verdict::{Act, Hit, Now, Tables, step};
use libfuzzer_sys::fuzz_target;

/// Everything is listed.
struct All(Entry, Cell<u64>);

impl Tables for All {
    fn ban(&self, _: &Address) -> Option<&Entry> {
        Some(&self.0)
    }
    fn host(&self, _: u32, _: &Address) -> Option<&Host> {
        None
    }
    fn network(&self, _: u32, _: &Address) -> Option<&Entry> {
        None
    }
    fn allowed(&self, _: u32, _: &Address) -> bool {
        false
    }
    fn bucket(&self, _: u64) -> Option<&Cell<u64>> {
        Some(&self.1)
    }
    fn open_bucket(&self, _: u64, _: u64) {}
    fn accepting_until_s(&self) -> u32 {
        u32::MAX
    }
    fn count(&self, _: Counter) {}
    fn count_reason(&self, _: u8, _: Action) -> u32 {
        0
    }
    fn spread(&self, _: u32) {}
    fn event(&self, _: &Hit, _: &Segment, _: u32) -> bool {
        true
    }
}

fuzz_target!(|octets: &[u8]| {
    if let Ok(set) = Set::read(octets) {
        for table in TABLES {
            set.records(table).for_each(drop);
        }
    }
    let listing =
        Listing { expires_s: 0, id: 7, reason: 0, action: Action::Answer, list: 0 };
    let all = All(listing.into(), Cell::new(0));
    let mut config = Config::new();
    config.mode = Action::Drop as u8;
    config.flags = FLAG_ANSWER | FLAG_TAGGED | FLAG_BUCKET;
    let link = Link { destination: [1; 6], source: [2; 6] };
    for tunnel in [Tunnel::Direct, Tunnel::Ipip, Tunnel::Gue(6080)] {
        let Some(segment) = parse(octets, tunnel, |_| true) else { continue };
        let now = || Now { seconds: 1000, ticks: 1000 << 18 };
        let text = text::prepare(segment.source.six, "listed").expect("short");
        let decided = step(&config, &all, &segment, now);
        let say = match decided.act {
            Act::Open => Say::Open(decided.sequence),
            _ => Say::Refuse(&text, 7),
        };
        let mut buffer = [0; 256];
        let start = answer::build(&mut buffer, &segment, &link, &say);
        let end = start + answer::length(&segment, &say);
        assert!(end <= buffer.len());
        // An answer is a frame that the parser reads, from us to the client.
        let back = parse(&buffer[start..end], Tunnel::Direct, |_| false).expect("a whole frame");
        assert_eq!((back.source, back.destination), (segment.destination, segment.source));
    }
});
