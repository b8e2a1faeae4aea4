//! What is delivered at one time is said in one record, and read as what each message came to.
#![allow(clippy::unwrap_used, reason = "a test stops where it is wrong")]

use spool::batch::{BatchHeader, Records};
use spool::edits::{Edit, Received};
use spool::id::{MessageId, TransactionId};
use spool::limits::{BLOCK, BUFFERS};
use spool::log::{Event, Log, LogConfig, OpenKind};
use spool::message::{Envelope, Recipient};
use spool::offline::Offline;
use spool::received;
use spool::record::{Change, RecipientState, RecordKind};
use spool::recovery::{Options, recover};
use spool::set::{Geometry, Seeds, Set, format_as};
use spool::sim::{Faults, SimDevice, SimDisk};
use spool::superblock::Format;

const GEOMETRY: Geometry =
    Geometry { node: 1, segment_bytes: 4 << 20, segments: 6, copies: 1, volatile: false };
const MESSAGES: u64 = 60;

fn id(n: u64) -> TransactionId {
    // Three sessions, of which one is another node's.
    let node = if n % 3 == 2 { 9 } else { 1 };
    TransactionId { session: MessageId::new(node, 1, 0, n % 3), n: u32::try_from(n).unwrap() }
}

/// One life: messages if it is the first, and as many delivered as asked for.
struct Life {
    log: Log<spool::disk::AlignedBuffer>,
    disk: SimDisk,
    now_us: u64,
    changed: u64,
}

impl Life {
    fn begin(devices: Vec<SimDevice>, raise_format: bool) -> Self {
        let set = Set::open(devices, 1, false).unwrap();
        let options = Options { cores: 1, pid: 1, wall_us: 10, generation: 4, raise_format };
        let mut found = recover(set, options, &mut |_| {}).unwrap();
        let log =
            Log::new(found.logs.remove(0), LogConfig::default(), SimDisk::buffers(BUFFERS), 0);
        let disk = SimDisk::new(found.set.members, Faults::default(), 1);
        Self { log, disk, now_us: 0, changed: 0 }
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            self.now_us += 30_000;
            loop {
                self.log.turn(&mut self.disk, self.now_us, 1_000_000 + self.now_us);
                while let Some(event) = self.log.next_event() {
                    self.changed += u64::from(matches!(event, Event::Changed { .. }));
                }
                let Some(next_us) = self.disk.next_us() else { break };
                self.now_us = self.now_us.max(next_us);
                while let Some(done) = self.disk.next_completion(self.now_us) {
                    self.log.completed(done, self.now_us);
                }
            }
        }
    }

    fn send(&mut self, n: u64) {
        let tx = self.log.open(OpenKind::Client, id(n), None, n).unwrap();
        self.log.append_header(tx, b"Subject: test\r\n\r\n").unwrap();
        self.log.append_body(tx, &[b'x'; 3000]).unwrap();
        self.log.commit(tx, &envelope(n), Vec::new()).unwrap();
    }

    fn deliver(&mut self, numbers: impl Iterator<Item = u64>) {
        for n in numbers {
            let state =
                if n % 7 == 0 { RecipientState::Removed } else { RecipientState::Delivered };
            self.log.done_all(id(n), state, Some(n), self.now_us).unwrap();
        }
        self.settle();
    }
}

fn envelope(n: u64) -> Envelope {
    let address = (*b"a@example.org").into();
    let by = (*b"mx.example.org").into();
    Envelope {
        id: id(n),
        recipients: vec![Recipient { address, ..Recipient::default() }],
        edits: vec![Edit::Received(Received { by, ..Received::default() })],
        ..Envelope::default()
    }
}

/// Records of that type, and messages they speak of, whatever segment they stand in.
fn records(devices: &[SimDevice], wanted: RecordKind) -> (usize, usize) {
    let octets = devices[0].medium();
    let (mut records, mut messages) = (0, 0);
    for at in (0..octets.len()).step_by(BLOCK) {
        let Some((header, _)) = BatchHeader::decode(&octets[at..]) else { continue };
        for record in Records::new(&octets[at..], &header).map(Result::unwrap) {
            if record.header.kind == wanted as u8 {
                records += 1;
                messages += Change::decode_all(record.header.kind, record.body).unwrap().len();
            }
        }
    }
    (records, messages)
}

#[test]
fn what_was_delivered_together_is_said_together() {
    let half = usize::try_from(MESSAGES / 2).unwrap();
    for format in [Format::V1, Format::V2] {
        let mut devices = [SimDevice::new("sim", GEOMETRY.device_bytes())];
        let seeds = Seeds { set: 1, log: 2, generation: 3 };
        format_as(format, &mut devices, GEOMETRY, seeds, 5, false).unwrap();
        let mut life = Life::begin(devices.into(), false);
        (0..MESSAGES).for_each(|n| life.send(n));
        life.settle();
        life.deliver(0..MESSAGES / 2);
        assert_eq!(life.changed, MESSAGES / 2);
        let devices = life.disk.cut();
        let (one, many) =
            (records(&devices, RecordKind::Done), records(&devices, RecordKind::Dones));
        match format {
            Format::V1 => assert_eq!((one, many), ((half, half), (0, 0))),
            // One for each end they came to.
            Format::V2 => assert_eq!((one, many), ((0, 0), (2, half))),
        }
        // After a cut the other half is there, and goes the way of the newest format.
        let mut life = Life::begin(devices, true);
        assert_eq!(life.log.messages().count(), half);
        life.deliver(MESSAGES / 2..MESSAGES - 1);
        let devices = life.disk.cut();
        assert_eq!(records(&devices, RecordKind::Dones).1 - many.1, half - 1);
        let set = Set::open(devices, 1, false).unwrap();
        let mut offline = Offline::open(set).unwrap();
        assert_eq!(offline.list().count(), 1);
        let last = offline.show(id(MESSAGES - 1)).unwrap();
        let in_words = matches!(&*last.envelope.edits, [Edit::AddTop(_)]);
        assert_eq!(in_words, format == Format::V1);
        let sent = received::apply(&last.header, &last.envelope);
        assert_eq!(sent, received::apply(b"Subject: test\r\n\r\n", &envelope(MESSAGES - 1)));
        assert_eq!(last.tail, [b'x'; 3000]);
    }
}
