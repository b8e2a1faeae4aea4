//! Logs that fill up, and mail that stays: one log driven by hand over a simulated disk.

use spool::disk::AlignedBuffer;
use spool::id::{MessageId, TransactionId};
use spool::limits::BUFFERS;
use spool::log::{Event, Log, LogConfig, OpenKind, Refusal, Stats};
use spool::message::{Envelope, Recipient};
use spool::record::{RecipientResult, RecipientState};
use spool::recovery::{Options, recover};
use spool::set::{Geometry, Seeds, Set, format};
use spool::sim::{Faults, SimDevice, SimDisk};

const WALL: u64 = 1_700_000_000_000_000;
const SECOND: u64 = 1_000_000;

struct Bench {
    log: Log<AlignedBuffer>,
    disk: SimDisk,
    now_us: u64,
    counter: u64,
    committed: Vec<TransactionId>,
}

impl Bench {
    fn new(segment_bytes: u32, segments: u32) -> Self {
        let geometry = Geometry { node: 7, segment_bytes, segments, copies: 1, volatile: false };
        let mut devices = vec![SimDevice::new("sim0", geometry.device_bytes())];
        let seeds = Seeds { set: 1, log: 100, generation: 5 };
        format(&mut devices, geometry, seeds, WALL, false).expect("blank");
        let set = Set::open(devices, 7, false).expect("formatted");
        let options =
            Options { cores: 1, pid: 9, wall_us: WALL, generation: 6, raise_format: false };
        let mut found = recover(set, options, &mut |_| {}).expect("sound");
        let faults = Faults { latency_us_max: 500, ..Faults::default() };
        let disk = SimDisk::new(found.set.members, faults, 3);
        let start = found.logs.remove(0);
        let log = Log::new(start, LogConfig::default(), SimDisk::buffers(BUFFERS), SECOND);
        Self { log, disk, now_us: SECOND, counter: 0, committed: Vec::new() }
    }

    /// One message of that many octets; what the log says instead of taking it.
    fn send(&mut self, octets: usize) -> Result<TransactionId, Refusal> {
        self.counter += 1;
        let session = MessageId::new(7, 1, 0, self.counter);
        let id = TransactionId { session, n: 1 };
        let size = u64::try_from(octets).expect("small");
        let tx = self.log.open(OpenKind::Client, id, Some(size), self.counter)?;
        let header = b"Subject: space\r\n\r\n";
        self.log.append_header(tx, header).expect("small");
        self.log.append_body(tx, &vec![b'x'; octets - header.len()]).expect("reserved");
        let recipient = Recipient { address: (*b"r@d.example").into(), ..Recipient::default() };
        let envelope = Envelope {
            id,
            received_wall_us: WALL + self.now_us,
            recipients: vec![recipient],
            ..Envelope::default()
        };
        self.log.commit(tx, &envelope, Vec::new()).expect("it fits");
        Ok(id)
    }

    /// Lets time pass, turn by turn.
    fn pass(&mut self, us: u64) {
        let until = self.now_us + us;
        loop {
            while let Some(done) = self.disk.next_completion(self.now_us) {
                self.log.completed(done, self.now_us);
            }
            self.log.turn(&mut self.disk, self.now_us, WALL + self.now_us);
            while let Some(event) = self.log.next_event() {
                if let Event::Committed { id, .. } = event {
                    self.committed.push(id);
                }
            }
            let next = [self.disk.next_us(), self.log.deadline()].into_iter().flatten().min();
            let next = next.unwrap_or(u64::MAX).max(self.now_us + 1);
            if next > until {
                self.now_us = until;
                return;
            }
            self.now_us = next;
        }
    }

    fn done(&mut self, id: TransactionId) {
        let state = RecipientState::Delivered;
        self.log.done_all(id, state, None, self.now_us).expect("it is there");
    }

    fn defer(&mut self, id: TransactionId, tries: u16) {
        let reply = (*b"connection refused").into();
        let result = RecipientResult { tries, reply, ..RecipientResult::default() };
        let next = WALL + self.now_us + 300 * SECOND;
        self.log.defer(id, next, tries, 0, vec![result], self.now_us).expect("it is there");
    }
}

/// So many messages of 8 KiB a second; so many in a hundred go to a dead destination.
fn load(stuck_percent: u64, per_second: u64, seconds: u64, segments: u32) -> (Stats, u64) {
    let mut bench = Bench::new(4 << 20, segments);
    let mut stuck: Vec<(TransactionId, u64)> = Vec::new();
    let mut least = usize::MAX;
    for second in 0..seconds {
        for _ in 0..per_second {
            bench.send(8192).expect("a dead destination does not fill the log");
        }
        bench.pass(SECOND / 2);
        for id in std::mem::take(&mut bench.committed) {
            if id.session.counter() % 100 < stuck_percent {
                stuck.push((id, second));
                bench.defer(id, 1);
            } else {
                bench.done(id);
            }
        }
        for (id, since) in &stuck {
            let age = second - since;
            if age > 0 && (age == 60 || age.is_multiple_of(300)) {
                let tries = u16::try_from(age / 300 + 2).expect("few");
                bench.defer(*id, tries);
            }
        }
        bench.pass(SECOND / 2);
        least = least.min(bench.log.stats().segments_free);
    }
    // Mail that is not accepted any more would show as a refusal above.
    assert!(least >= 4, "hot segments are not recycled: {least}");
    assert_eq!(bench.log.stats().messages, stuck.len());
    (bench.log.stats(), seconds * per_second * 8192)
}

#[test]
fn a_dead_destination_holds_no_hot_segments() {
    let (without, _) = load(0, 10, 3600, 24);
    let (with, octets) = load(3, 10, 3600, 24);
    let capacity = 24 * (4u64 << 20);
    assert!(with.bytes_written > 2 * capacity, "the log turned over");
    assert!(with.moved > 0, "what stays has moved to the cold log");
    let percent = with.bytes_written * 100 / without.bytes_written;
    let of_octets = with.bytes_written * 100 / octets;
    println!("written: {percent} % of the same mail without, {of_octets} % of the octets");
    println!("moved {}, forwarded {}", with.moved, with.forwarded);
    assert!(percent <= 110, "write amplification of {percent} %");
}

/// At ten messages a second most of what is written besides is padding and watermarks, which an
/// idle log writes as well (docs/decisions/007-write-amplification.md).
#[test]
fn what_is_stuck_costs_little_where_batches_are_full() {
    let (with, octets) = load(3, 100, 600, 72);
    let percent = with.bytes_written * 100 / octets;
    println!("written: {percent} % of the octets; moved {}", with.moved);
    assert!(with.moved > 0, "what stays has moved to the cold log");
    assert!(percent <= 110, "write amplification of {percent} %");
}

#[test]
fn a_full_log_refuses_relays_on_and_takes_mail_again() {
    let mut bench = Bench::new(256 << 10, 12);
    for round in 0..5 {
        let mut waiting = Vec::new();
        let refusal = loop {
            match bench.send(20_000) {
                Ok(_) => {}
                Err(refusal) => break refusal,
            }
            bench.pass(5_000);
            waiting.append(&mut bench.committed);
        };
        assert_eq!(refusal, Refusal::NoSpace, "452");
        bench.pass(SECOND);
        waiting.append(&mut bench.committed);
        let all = bench.counter;
        assert!(bench.log.stats().messages >= 60, "round {round}: {all} were sent");
        // Every message fails for now, again and again: a full log stands it.
        for tries in 1..40 {
            for id in &waiting {
                bench.defer(*id, tries);
            }
            bench.pass(SECOND);
        }
        for id in waiting {
            bench.done(id);
            bench.pass(2_000);
        }
        bench.pass(5 * SECOND);
        assert_eq!(bench.log.stats().messages, 0, "all is relayed");
        bench.send(20_000).expect("there is room again");
        bench.pass(SECOND);
        let last = bench.committed.pop().expect("it is durable");
        bench.done(last);
    }
}
