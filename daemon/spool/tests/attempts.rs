//! A batch whose write failed although it landed stands twice on the media: the message in it
//! keeps the chunks that were written before.
#![allow(clippy::unwrap_used, reason = "a test stops where it is wrong")]

use spool::disk::AlignedBuffer;
use spool::id::{MessageId, TransactionId};
use spool::limits::BUFFERS;
use spool::log::{Event, Log, LogConfig, OpenKind};
use spool::message::{Envelope, Recipient};
use spool::offline::Offline;
use spool::recovery::{Options, recover};
use spool::set::{Geometry, Seeds, Set, format};
use spool::sim::{Faults, SimDevice, SimDisk};

const GEOMETRY: Geometry =
    Geometry { node: 1, segment_bytes: 4 << 20, segments: 6, copies: 1, volatile: false };

struct World {
    log: Log<AlignedBuffer>,
    disk: SimDisk,
    now_us: u64,
    committed: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut devices = [SimDevice::new("sim", GEOMETRY.device_bytes())];
        format(&mut devices, GEOMETRY, Seeds { set: 1, log: 2, generation: 3 }, 5, false).unwrap();
        let set = Set::open(devices.into(), 1, false).unwrap();
        let options = Options { cores: 1, pid: 1, wall_us: 10, generation: 4, raise_format: false };
        let mut found = recover(set, options, &mut |_| {}).unwrap();
        let log =
            Log::new(found.logs.remove(0), LogConfig::default(), SimDisk::buffers(BUFFERS), 0);
        let disk = SimDisk::new(found.set.members, Faults::default(), seed);
        Self { log, disk, now_us: 0, committed: 0 }
    }

    /// Until nothing is on its way.
    fn settle(&mut self) {
        loop {
            self.log.turn(&mut self.disk, self.now_us, 1_000_000 + self.now_us);
            while let Some(event) = self.log.next_event() {
                self.committed += u32::from(matches!(event, Event::Committed { .. }));
            }
            let Some(next_us) = self.disk.next_us() else { return };
            self.now_us = self.now_us.max(next_us);
            while let Some(done) = self.disk.next_completion(self.now_us) {
                self.log.completed(done, self.now_us);
            }
        }
    }
}

fn body() -> Vec<u8> {
    (0..500_000u32).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect()
}

/// Sends a large message; its last write fails, and of that any sectors land. Returns how often
/// its MSG was found.
fn twice(seed: u64) -> u64 {
    let mut world = World::new(seed);
    world.settle();
    let id = TransactionId { session: MessageId::new(1, 1, 0, seed), n: 1 };
    let tx = world.log.open(OpenKind::Client, id, None, 1).unwrap();
    world.log.append_header(tx, b"Subject: test\r\n\r\n").unwrap();
    for piece in body().chunks(16_000) {
        world.log.append_body(tx, piece).unwrap();
        world.settle();
    }
    let recipients =
        vec![Recipient { address: (*b"a@example.org").into(), ..Recipient::default() }];
    let envelope = Envelope { id, recipients, ..Envelope::default() };
    world.disk.faults.write_error_in = 1;
    world.log.commit(tx, &envelope, Vec::new()).unwrap();
    world.log.turn(&mut world.disk, world.now_us, 1_000_000);
    world.disk.faults = Faults::default();
    world.settle();
    assert_eq!(world.committed, 1);
    assert_eq!(world.log.stats().errors, 1, "the write of the MSG failed");
    let set = Set::open(world.disk.cut(), 1, false).unwrap();
    let mut spool = Offline::open(set).unwrap();
    assert_eq!(spool.report.damage, [], "no damage was done");
    assert!(spool.list().all(|live| live.chunks().len() > 1), "it is large");
    let message = spool.show(id).unwrap();
    assert!(message.tail == body(), "the whole body");
    1 + spool.report.second_copies
}

#[test]
fn a_message_that_stands_twice_keeps_its_chunks() {
    let found: Vec<u64> = (0..32).map(twice).collect();
    assert!(found.contains(&1) && found.contains(&2), "torn and whole: {found:?}");
}
