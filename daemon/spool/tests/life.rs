//! One log over a real file: through the blocking driver and through the engine.
#![allow(clippy::unwrap_used, reason = "a test stops where it is wrong")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use engine::{Config, Core, Event as Engine, Handler, Probe, mailbox};
use spool::disk::{AlignedBuffer, Buffer, Disk, Member, Token, WriteTo};
use spool::driver::{Members, disk_classes};
use spool::file::{BlockingDisk, Durability, FileDevice, OpenError};
use spool::id::{MessageId, TransactionId};
use spool::limits::{BATCH_BYTES_MAX, BESIDE_BYTES_MIN, BESIDE_MESSAGES_MIN, BUFFERS};
use spool::log::{Event, Log, LogConfig, OpenKind, Part, ReadData};
use spool::message::{Envelope, Recipient};
use spool::offline::Offline;
use spool::record::RecipientState;
use spool::recovery::{Options, Recovered, recover, release};
use spool::set::{Geometry, Seeds, Set, format};

const GEOMETRY: Geometry =
    Geometry { node: 1, segment_bytes: 4 << 20, segments: 6, copies: 1, volatile: false };

fn place(name: &str) -> PathBuf {
    let path =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn make(path: &Path) {
    let bytes = GEOMETRY.device_bytes();
    let mut devices = [FileDevice::create(path, bytes, Durability::Full).unwrap()];
    format(&mut devices, GEOMETRY, Seeds { set: 1, log: 2, generation: 3 }, 5, false).unwrap();
}

fn start(path: &Path) -> Recovered<FileDevice> {
    let device = FileDevice::open(path, Durability::Full, true).unwrap();
    let set = Set::open(vec![device], 1, false).unwrap();
    let options = Options {
        cores: 1,
        pid: std::process::id(),
        wall_us: 10,
        generation: 4,
        raise_format: false,
    };
    recover(set, options, &mut |_| {}).unwrap()
}

fn id(n: u64) -> TransactionId {
    TransactionId { session: MessageId::new(1, 1, 0, n), n: 1 }
}

fn body(n: u64) -> Vec<u8> {
    let size = if n.is_multiple_of(7) { 400_000 } else { 3000 };
    (0..size).map(|i: u64| u8::try_from((i * 31 + n) % 251).unwrap()).collect()
}

fn submit<B: Buffer>(log: &mut Log<B>, n: u64) {
    let tx = log.open(OpenKind::Client, id(n), Some(4000), n).unwrap();
    log.append_header(tx, b"Subject: test\r\n\r\n").unwrap();
    for piece in body(n).chunks(16_000) {
        log.append_body(tx, piece).unwrap();
    }
    let recipients =
        vec![Recipient { address: (*b"a@example.org").into(), ..Recipient::default() }];
    let envelope = Envelope { id: id(n), recipients, ..Envelope::default() };
    log.commit(tx, &envelope, Vec::new()).unwrap();
}

/// 40 messages in, every other one delivered, the rest read back.
#[derive(Default)]
struct Script {
    committed: u64,
    delivered: u64,
    read: HashMap<u64, Vec<u8>>,
    whole: u64,
    closing: bool,
    closed: bool,
}

const MESSAGES: u64 = 40;

impl Script {
    fn event<B: Buffer>(&mut self, log: &mut Log<B>, event: Event, now_us: u64) {
        match event {
            Event::Committed { token, id, content } => {
                self.committed += 1;
                assert_eq!(content.is_none(), token.is_multiple_of(7));
                if token.is_multiple_of(2) {
                    let state = RecipientState::Delivered;
                    log.done_all(id, state, Some(token), now_us).unwrap();
                } else {
                    log.read(id, Part::Message, token).unwrap();
                }
            }
            Event::Changed { .. } => self.delivered += 1,
            Event::Read { token, result } => match result.unwrap() {
                ReadData::Message(message) => {
                    let tail = self.read.entry(token).or_default();
                    tail.extend_from_slice(&message.tail);
                    assert_eq!(message.header, b"Subject: test\r\n\r\n");
                    for n in 0..message.chunks {
                        log.read(id(token), Part::Chunk(n), token + 1000 * u64::from(n + 1))
                            .unwrap();
                    }
                    self.whole += 1;
                }
                ReadData::Chunk(data) => {
                    self.read.insert(token, data);
                }
            },
            Event::Closed => self.closed = true,
            Event::Resume { .. } => {}
            Event::MemberFails { .. }
            | Event::MemberFilled { .. }
            | Event::Refused { .. }
            | Event::Alarm(_) => panic!("{event:?}"),
        }
    }

    fn is_done(&self) -> bool {
        let chunks: u64 = (0..MESSAGES).filter(|n| n % 14 == 7).map(|_| 3).sum();
        self.committed == MESSAGES
            && self.delivered == MESSAGES / 2
            && self.read.len() as u64 == MESSAGES / 2 + chunks
    }

    fn check(&self) {
        for n in (1..MESSAGES).step_by(2) {
            let mut whole = Vec::new();
            for part in 0.. {
                let Some(data) = self.read.get(&(n + 1000 * (part + 1))) else { break };
                whole.extend_from_slice(data);
            }
            whole.extend_from_slice(&self.read[&n]);
            assert!(whole == body(n), "message {n}");
        }
    }

    fn step<D: Disk>(&mut self, log: &mut Log<D::Buffer>, disk: &mut D, now_us: u64) {
        loop {
            log.turn(disk, now_us, 1_000_000 + now_us);
            let Some(event) = log.next_event() else { break };
            self.event(log, event, now_us);
            while let Some(event) = log.next_event() {
                self.event(log, event, now_us);
            }
            if self.is_done() && !self.closing {
                self.closing = true;
                log.close();
            }
        }
    }
}

fn after_clean_end(path: &Path) {
    let device = FileDevice::open(path, Durability::Full, false).unwrap();
    let set = Set::open(vec![device], 1, false).unwrap();
    let mut offline = Offline::open(set).unwrap();
    assert_eq!(offline.list().count(), 20);
    assert_eq!(offline.show(id(7)).unwrap().tail, body(7));
    assert_eq!(offline.show(id(9)).unwrap().tail, body(9));
    assert!(offline.show(id(2)).is_err());
    assert_eq!(offline.verify(&mut |_, _| {}).unwrap(), []);
    drop(offline);
    let found = start(path);
    assert!(!found.report.was_running);
    assert!(found.report.ledger_agrees(), "{:?}", found.report);
    assert_eq!(found.report.messages, 20);
    // Opened by the footers, each read twice: no segment was read.
    assert_eq!(found.report.segments_used, found.report.segments_sealed);
    assert!(found.report.bytes_read <= 16 * 4096, "{}", found.report.bytes_read);
    assert_eq!(found.run, 2);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_file_through_the_blocking_driver() {
    let path = place("blocking");
    make(&path);
    let mut found = start(&path);
    assert!(matches!(FileDevice::open(&path, Durability::Full, true), Err(OpenError::Busy)));
    let device = FileDevice::open(&path, Durability::Full, false).unwrap();
    let mut disk = BlockingDisk::new(vec![device]);
    // The lock is the set's; this driver only writes through its own descriptor.
    disk.members[0] = FileDevice::open_unlocked(&path, Durability::Full).unwrap();
    let buffers = (0..BUFFERS).map(|_| AlignedBuffer::new(BATCH_BYTES_MAX)).collect();
    let mut log = Log::new(found.logs.remove(0), LogConfig::default(), buffers, 0);
    (0..MESSAGES).for_each(|n| submit(&mut log, n));
    let mut script = Script::default();
    for step in 0..100_000 {
        let now_us = step * 1000;
        script.step(&mut log, &mut disk, now_us);
        while let Some(done) = disk.next_completion() {
            log.completed(done, now_us);
        }
        if script.closed {
            break;
        }
    }
    assert!(script.closed);
    script.check();
    release(&mut found.set).unwrap();
    drop(found);
    after_clean_end(&path);
}

/// Keeps batches back; all else is written at once.
struct Holding {
    disk: BlockingDisk<FileDevice>,
    batches: usize,
}

impl Disk for Holding {
    type Buffer = AlignedBuffer;

    fn write(&mut self, token: Token, to: WriteTo, buffer: AlignedBuffer) {
        if buffer.bytes().starts_with(b"RPBATCH1") {
            self.batches += 1;
        } else {
            self.disk.write(token, to, buffer);
        }
    }

    fn read(&mut self, token: Token, member: Member, offset: u64, bytes: usize) {
        self.disk.read(token, member, offset, bytes);
    }

    fn abandon(&mut self, member: Member) {
        self.disk.abandon(member);
    }
}

#[test]
fn a_batch_starts_beside_another_one_only_when_much_waits() {
    let path = place("beside");
    make(&path);
    let mut found = start(&path);
    let mut disk = BlockingDisk::new(Vec::new());
    disk.members.push(FileDevice::open_unlocked(&path, Durability::Full).unwrap());
    let mut disk = Holding { disk, batches: 0 };
    let buffers = (0..BUFFERS).map(|_| AlignedBuffer::new(BATCH_BYTES_MAX)).collect();
    let mut log = Log::new(found.logs.remove(0), LogConfig::default(), buffers, 0);
    let mut n = 0;
    let mut submit_and_turn = |log: &mut Log<AlignedBuffer>, disk: &mut Holding, octets: usize| {
        n += 1;
        let tx = log.open(OpenKind::Client, id(n), Some(octets as u64), n).unwrap();
        log.append_header(tx, b"Subject: test\r\n\r\n").unwrap();
        for piece in vec![b'x'; octets].chunks(16_000) {
            log.append_body(tx, piece).unwrap();
        }
        let recipients =
            vec![Recipient { address: (*b"a@example.org").into(), ..Recipient::default() }];
        let envelope = Envelope { id: id(n), recipients, ..Envelope::default() };
        log.commit(tx, &envelope, Vec::new()).unwrap();
        log.turn(disk, 0, 10);
        disk.batches
    };
    let mut batches = submit_and_turn(&mut log, &mut disk, 100);
    while batches == 0 {
        // A segment is opened first.
        while let Some(done) = disk.disk.next_completion() {
            log.completed(done, 0);
        }
        log.turn(&mut disk, 0, 10);
        batches = disk.batches;
    }
    for _ in 1..BESIDE_MESSAGES_MIN {
        assert_eq!(submit_and_turn(&mut log, &mut disk, 100), 1, "one under way, few wait");
    }
    assert_eq!(submit_and_turn(&mut log, &mut disk, 100), 2, "many wait");
    let large = 60_000;
    for _ in 0..BESIDE_BYTES_MIN / (large + 1000) {
        assert_eq!(submit_and_turn(&mut log, &mut disk, large), 2, "two under way, little waits");
    }
    assert_eq!(submit_and_turn(&mut log, &mut disk, large), 3, "much waits");
    std::fs::remove_file(&path).unwrap();
}

struct Shard {
    log: Log<engine::DiskBuffer>,
    members: Members,
    script: Script,
}

impl Handler<()> for Shard {
    fn event(&mut self, core: &mut Core<()>, event: Engine<'_, ()>) {
        if let Engine::DiskDone { token, result, buffer } = event
            && let Some(done) = self.members.completion(core, token, result, buffer)
        {
            self.log.completed(done, core.now_us());
        }
    }

    fn turn_end(&mut self, core: &mut Core<()>) {
        let now_us = core.now_us();
        let mut disk = self.members.with(core);
        disk.retry();
        self.script.step(&mut self.log, &mut disk, now_us);
        if let Some(deadline) = self.log.deadline() {
            core.set_timer(deadline, 1);
        }
        if self.script.closed {
            core.stop();
        }
    }
}

#[test]
fn a_file_through_the_engine() {
    let path = place("engine");
    make(&path);
    let mut found = start(&path);
    let (_sender, receiver) = mailbox(16).unwrap();
    let config = Config { disk_buffers: disk_classes(1), ..Config::default() };
    let mut core: Core<()> = Core::new(config, &Probe::detect().unwrap(), receiver).unwrap();
    let members = Members::open(&mut core, &found.set).unwrap();
    let buffers = Members::buffers(&core).unwrap();
    let mut log = Log::new(found.logs.remove(0), LogConfig::default(), buffers, core.now_us());
    (0..MESSAGES).for_each(|n| submit(&mut log, n));
    let mut shard = Shard { log, members, script: Script::default() };
    core.run(&mut shard).unwrap();
    shard.script.check();
    release(&mut found.set).unwrap();
    drop(found);
    after_clean_end(&path);
}
