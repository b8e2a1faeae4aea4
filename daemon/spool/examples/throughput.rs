//! What the log costs by itself: messages of one size through one core's log, so many at once,
//! each committed and then done. `throughput PATH [OCTETS] [SESSIONS] [MESSAGES]`

use std::path::Path;

use engine::{Config, Core, Event as Engine, Handler, Probe, mailbox};
use spool::driver::{Members, disk_classes};
use spool::file::{Durability, FileDevice};
use spool::id::{MessageId, TransactionId};
use spool::log::{Event, Log, LogConfig, OpenKind};
use spool::message::{Envelope, Recipient};
use spool::record::RecipientState;
use spool::recovery::{Options, recover};
use spool::set::{Geometry, Seeds, Set, format};

struct Shard {
    log: Log<engine::DiskBuffer>,
    members: Members,
    envelope: Envelope,
    body: Vec<u8>,
    left: u64,
    sent: u64,
    open: u64,
    sessions: u64,
}

impl Shard {
    fn send(&mut self) {
        while self.open < self.sessions && self.left > 0 {
            let id = TransactionId { session: MessageId::new(1, 1, 0, self.sent), n: 1 };
            let size = spool_len(&self.body);
            let Ok(tx) = self.log.open(OpenKind::Client, id, Some(size), 0) else { return };
            self.log
                .append_header(tx, b"Subject: measured\r\n\r\n")
                .expect("a measurement stops where it is wrong");
            for piece in self.body.chunks(16 << 10) {
                self.log.append_body(tx, piece).expect("a measurement stops where it is wrong");
            }
            self.envelope.id = id;
            self.log
                .commit(tx, &self.envelope, Vec::new())
                .expect("a measurement stops where it is wrong");
            self.sent += 1;
            self.open += 1;
            self.left -= 1;
        }
    }

    fn step(&mut self, core: &mut Core<()>) {
        let (now_us, wall_us) = (core.now_us(), core.wall_us());
        loop {
            self.send();
            self.log.turn(&mut self.members.with(core), now_us, wall_us);
            let mut quiet = true;
            while let Some(event) = self.log.next_event() {
                quiet = false;
                match event {
                    Event::Committed { id, .. } => {
                        self.open -= 1;
                        let state = RecipientState::Delivered;
                        self.log
                            .done_all(id, state, None, now_us)
                            .expect("a measurement stops where it is wrong");
                    }
                    Event::Resume { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
            if quiet {
                break;
            }
        }
        if self.left == 0 && self.open == 0 {
            core.stop();
        } else if let Some(deadline) = self.log.deadline() {
            core.set_timer(deadline, 1);
        }
    }
}

fn spool_len(body: &[u8]) -> u64 {
    u64::try_from(body.len()).expect("a measurement stops where it is wrong")
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
        self.step(core);
    }
}

fn cpu_us() -> u64 {
    let text = std::fs::read_to_string("/proc/self/schedstat")
        .expect("a measurement stops where it is wrong");
    text.split(' ')
        .next()
        .expect("a measurement stops where it is wrong")
        .parse::<u64>()
        .expect("a measurement stops where it is wrong")
        / 1000
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |n: usize, default: u64| {
        args.get(n).map_or(default, |a| a.parse().expect("a measurement stops where it is wrong"))
    };
    let path = Path::new(args.get(1).map_or("spool-throughput", String::as_str));
    let (octets, sessions, messages) = (number(2, 4096), number(3, 64), number(4, 200_000));
    let geometry =
        Geometry { node: 1, segment_bytes: 16 << 20, segments: 8, copies: 1, volatile: false };
    let started = engine::now_us();
    let mut devices = [FileDevice::create(path, geometry.device_bytes(), Durability::Full)
        .expect("a measurement stops where it is wrong")];
    format(&mut devices, geometry, Seeds { set: 1, log: 2, generation: 3 }, 5, false)
        .expect("a measurement stops where it is wrong");
    drop(devices);
    println!("format of 8 x 16 MiB: {} ms", (engine::now_us() - started) / 1000);
    let device = FileDevice::open(path, Durability::Full, true)
        .expect("a measurement stops where it is wrong");
    let set = Set::open(vec![device], 1, false).expect("a measurement stops where it is wrong");
    let options = Options { cores: 1, pid: 1, wall_us: 10, generation: 4, raise_format: false };
    let mut found =
        recover(set, options, &mut |_| {}).expect("a measurement stops where it is wrong");
    let (_sender, receiver) = mailbox(16).expect("a measurement stops where it is wrong");
    let config = Config { disk_buffers: disk_classes(1), ..Config::default() };
    let mut core: Core<()> = Core::new(
        config,
        &Probe::detect().expect("a measurement stops where it is wrong"),
        receiver,
    )
    .expect("a measurement stops where it is wrong");
    let members =
        Members::open(&mut core, &found.set).expect("a measurement stops where it is wrong");
    let buffers = Members::buffers(&core).expect("a measurement stops where it is wrong");
    let log = Log::new(found.logs.remove(0), LogConfig::default(), buffers, core.now_us());
    let recipients =
        vec![Recipient { address: (*b"somebody@example.org").into(), ..Recipient::default() }];
    let envelope = Envelope {
        received_wall_us: core.wall_us(),
        client: Some("192.0.2.1:4711".parse().expect("a measurement stops where it is wrong")),
        local: Some("192.0.2.2:25".parse().expect("a measurement stops where it is wrong")),
        helo: (*b"client.example.net").into(),
        recipients,
        ..Envelope::default()
    };
    let body = vec![b'x'; usize::try_from(octets).expect("a measurement stops where it is wrong")];
    let mut shard =
        Shard { log, members, envelope, body, left: messages, sent: 0, open: 0, sessions };
    let (cpu, started) = (cpu_us(), engine::now_us());
    core.run(&mut shard).expect("a measurement stops where it is wrong");
    let (cpu, wall) = (cpu_us() - cpu, engine::now_us() - started);
    let stats = shard.log.stats();
    println!(
        "{octets} octets, {sessions} at once: {} messages/s, {:.2} us CPU each, {:.2} messages a \
         batch, {:.3} bytes written per octet, {} moved, {} forwarded",
        messages * 1_000_000 / wall.max(1),
        as_float(cpu) / as_float(messages),
        as_float(messages) / as_float(stats.batches),
        as_float(stats.bytes_written) / as_float(messages * (octets + 21)),
        stats.moved,
        stats.forwarded,
    );
    std::fs::remove_file(path).expect("a measurement stops where it is wrong");
}

fn as_float(n: u64) -> f64 {
    f64::from(u32::try_from(n / 16).expect("a measurement stops where it is wrong")) * 16.0
}
