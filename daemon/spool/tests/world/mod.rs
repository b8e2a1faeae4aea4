//! A world for one log set: senders, a relay, an operator, over simulated disks; and what each
//! of them was told, to compare with what recovery finds.
#![allow(clippy::unwrap_used, reason = "a test world stops where it is wrong")]

use std::collections::HashMap;

use spool::disk::AlignedBuffer;
use spool::id::{MessageId, TransactionId};
use spool::limits::BUFFERS;
use spool::log::{Event, Flow, Log, LogConfig, OpenKind, Part, ReadData, Transaction};
use spool::message::{Envelope, Recipient, flags};
use spool::record::{RecipientResult, RecipientState};
use spool::recovery::{Options, Recovered, recover};
use spool::set::{Geometry, Seeds, Set, format_as};
use spool::sim::{Faults, Random, SimDevice, SimDisk};
use spool::superblock::Format;

#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub steps: u64,
    pub cores: u64,
    pub members: u16,
    pub copies: u16,
    pub segments: u32,
    pub bodies_max: u64,
    pub deferred_in: u64,
    pub write_error_in: u64,
    pub stuck_in: u64,
    pub stuck_us: u64,
    pub lies: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            steps: 100,
            cores: 1,
            members: 1,
            copies: 1,
            segments: 6,
            bodies_max: 20_000,
            deferred_in: 5,
            write_error_in: 0,
            stuck_in: 0,
            stuck_us: 0,
            lies: false,
        }
    }
}

#[derive(Clone, Debug)]
struct Known {
    header: Vec<u8>,
    body: Vec<u8>,
    recipients: usize,
    /// Told 250 (or committed by ourselves).
    acknowledged: bool,
    /// Told 451: may be there or not, after a crash only.
    refused: bool,
    /// Settled durably, per recipient.
    settled: Vec<bool>,
    /// Settled, perhaps not durably.
    maybe: Vec<bool>,
    tries: u16,
    held: bool,
    core: usize,
}

impl Known {
    fn is_over(&self) -> bool {
        self.settled.iter().all(|s| *s)
    }

    fn may_be_over(&self) -> bool {
        self.settled.iter().zip(&self.maybe).all(|(a, b)| *a || *b)
    }
}

struct Core {
    log: Log<AlignedBuffer>,
    disk: SimDisk,
}

pub(crate) struct World {
    plan: Plan,
    random: Random,
    now_us: u64,
    devices: Vec<SimDevice>,
    cores: Vec<Core>,
    run: u32,
    counter: u64,
    known: HashMap<TransactionId, Known>,
    /// DONE asked for with token -> which message, which recipients.
    changes: HashMap<u64, (TransactionId, Vec<usize>)>,
    next_token: u64,
    open: Vec<(usize, Transaction, TransactionId, Vec<u8>)>,
    replaced: HashMap<TransactionId, TransactionId>,
    pub moved: u64,
    pub forwarded: u64,
    pub gathered: usize,
    rescued: bool,
}

const WALL: u64 = 1_700_000_000_000_000;

impl World {
    pub(crate) fn new(plan: Plan, seed: u64) -> Self {
        let geometry = Geometry {
            node: 7,
            segment_bytes: 4 << 20,
            segments: plan.segments * u32::try_from(plan.cores).unwrap(),
            copies: plan.copies,
            volatile: false,
        };
        let members = plan.members.max(plan.copies);
        let mut devices: Vec<SimDevice> = (0..members)
            .map(|n| SimDevice::new(&format!("sim{n}"), geometry.device_bytes()))
            .collect();
        let seeds = Seeds { set: 1, log: 100, generation: 5 };
        // Every third in the format before, and raised on the way.
        let of = if seed % 3 == 1 { Format::V1 } else { Format::NEWEST };
        format_as(of, &mut devices, geometry, seeds, WALL, false).unwrap();
        let mut world = Self {
            plan,
            random: Random::new(seed),
            now_us: 1_000_000,
            devices,
            cores: Vec::new(),
            run: 0,
            counter: 0,
            known: HashMap::new(),
            changes: HashMap::new(),
            next_token: 1,
            open: Vec::new(),
            replaced: HashMap::new(),
            moved: 0,
            forwarded: 0,
            gathered: 0,
            rescued: false,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let set = Set::open(std::mem::take(&mut self.devices), 7, false).unwrap();
        let cores = u16::try_from(self.plan.cores).unwrap();
        let (wall_us, raise_format) = (WALL + self.now_us, self.run >= 3);
        let options = Options { cores, pid: 99, wall_us, generation: 77, raise_format };
        let found = recover(set, options, &mut |_| {}).unwrap();
        self.check(&found);
        self.rescued = found.report.rescued > 0;
        self.gathered += found.report.gathered;
        self.run = found.run;
        let config =
            LogConfig { commit_wait_us: 1_000_000, hot_age_us: 2_000_000, ..LogConfig::default() };
        // Each core has the media to itself in turn: they share no segment.
        let mut devices: Vec<Option<SimDevice>> = found.set.members;
        let last = found.logs.len() - 1;
        let faults = Faults {
            write_error_in: self.plan.write_error_in,
            short_write_in: self.plan.write_error_in * 3,
            stuck_in: self.plan.stuck_in,
            stuck_us: self.plan.stuck_us,
            latency_us_max: 3000,
            lies: self.plan.lies,
            ..Faults::default()
        };
        self.cores = found
            .logs
            .into_iter()
            .enumerate()
            .map(|(n, start)| {
                let mine = if n == last { std::mem::take(&mut devices) } else { devices.clone() };
                let disk = SimDisk::new(mine, faults, self.random.next_u64());
                Core { log: Log::new(start, config, SimDisk::buffers(BUFFERS), self.now_us), disk }
            })
            .collect();
    }

    fn check(&mut self, found: &Recovered<SimDevice>) {
        assert_eq!(found.report.damage, [], "no damage was done");
        if found.report.rescued > 0 {
            eprintln!("RESCUED");
        }
        let mut seen: HashMap<TransactionId, usize> = HashMap::new();
        for (core, log) in found.logs.iter().enumerate() {
            for live in log.live.iter() {
                let known =
                    self.known.get(&live.id).unwrap_or_else(|| panic!("{} from nowhere", live.id));
                assert!(seen.insert(live.id, core).is_none(), "{} twice", live.id);
                assert!(
                    !known.is_over(),
                    "{} came back to life (rescued {})",
                    live.id,
                    self.rescued
                );
                for r in 0..known.recipients {
                    let pending = live.is_pending(u16::try_from(r).unwrap());
                    let over = known.settled[r] && !self.rescued;
                    assert!(!(pending && over), "{} {r} came back to life", live.id);
                    assert!(pending || known.settled[r] || known.maybe[r], "{} {r} lost", live.id);
                }
            }
        }
        for (id, known) in &self.known {
            if known.acknowledged && !known.may_be_over() {
                assert!(seen.contains_key(id), "{id} lost");
            }
        }
        for (old, new) in &self.replaced {
            let gone = !seen.contains_key(old);
            let new_known = &self.known[new];
            if gone && !new_known.may_be_over() {
                assert!(seen.contains_key(new), "{old} was replaced by {new}, which is lost");
            }
        }
        assert!(
            found.report.ledger_agrees(),
            "ledger {:?}, counted {:?}",
            found.report.ledger,
            found.report.counted
        );
        // What is there now is what counts.
        let (known, counted) = (&mut self.known, &seen);
        known.retain(|id, k| match counted.get(id) {
            Some(core) => {
                k.acknowledged = true;
                k.refused = false;
                k.core = *core;
                true
            }
            None => {
                let _ = k;
                false
            }
        });
        for log in &found.logs {
            for live in log.live.iter() {
                let k = self.known.get_mut(&live.id).unwrap();
                for r in 0..k.recipients {
                    k.settled[r] = !live.is_pending(u16::try_from(r).unwrap());
                    k.maybe[r] = false;
                }
                k.held = live.is_held();
                k.tries = live.tries;
            }
        }
        self.changes.clear();
        self.replaced.clear();
        self.open.clear();
    }

    fn turn(&mut self) {
        for core in &mut self.cores {
            while let Some(done) = core.disk.next_completion(self.now_us) {
                core.log.completed(done, self.now_us);
            }
            core.log.turn(&mut core.disk, self.now_us, WALL + self.now_us);
        }
        for core in 0..self.cores.len() {
            while let Some(event) = self.cores[core].log.next_event() {
                self.event(core, event);
            }
        }
    }

    fn event(&mut self, core: usize, event: Event) {
        match event {
            Event::Committed { id, content, .. } => {
                let known = self.known.get_mut(&id).unwrap();
                assert!(!known.refused, "{id} was refused before");
                known.acknowledged = true;
                known.core = core;
                if let Some(content) = content {
                    assert_eq!(content.header, known.header);
                    assert_eq!(content.body, known.body);
                }
            }
            Event::Refused { id, .. } => {
                let known = self.known.get_mut(&id).unwrap();
                assert!(!known.acknowledged, "{id} was acknowledged before");
                known.refused = true;
            }
            Event::Changed { token } => {
                if let Some((id, recipients)) = self.changes.remove(&token)
                    && let Some(known) = self.known.get_mut(&id)
                {
                    for r in recipients {
                        known.settled[r] = true;
                    }
                }
            }
            Event::MemberFails { .. } | Event::MemberFilled { .. } => {}
            Event::Resume { .. } | Event::Alarm(_) | Event::Closed | Event::Read { .. } => {}
        }
    }

    fn pass(&mut self, us: u64) {
        self.now_us += us;
        self.turn();
    }

    fn bytes(&mut self, n: u64) -> Vec<u8> {
        let seed = self.random.next_u64();
        let mut fill = Random::new(seed);
        let n = usize::try_from(n).unwrap();
        let mut out = Vec::with_capacity(n + 8);
        while out.len() < n {
            out.extend_from_slice(&fill.next_u64().to_le_bytes());
        }
        out.truncate(n);
        out
    }

    fn envelope(&mut self, id: TransactionId, generated: bool) -> Envelope {
        let recipients = 1 + if self.random.one_in(4) { self.random.below(5) } else { 0 };
        let recipients = if self.random.one_in(60) { 70 } else { recipients };
        Envelope {
            id,
            received_wall_us: WALL + self.now_us,
            expiry_wall_us: WALL + self.now_us + 86_400_000_000,
            helo: (*b"client.example").into(),
            flags: if generated { flags::GENERATED } else { 0 },
            recipients: (0..recipients)
                .map(|n| Recipient {
                    address: format!("r{n}@example.org").into_bytes().into(),
                    ..Recipient::default()
                })
                .collect(),
            ..Envelope::default()
        }
    }

    fn new_id(&mut self, core: usize) -> TransactionId {
        self.counter += 1;
        let core = u8::try_from(core).unwrap();
        TransactionId { session: MessageId::new(7, self.run, core, self.counter), n: 1 }
    }

    fn send(&mut self) {
        let core = usize::try_from(self.random.below(self.plan.cores)).unwrap();
        let id = self.new_id(core);
        let token = self.next_token;
        self.next_token += 1;
        let log = &mut self.cores[core].log;
        let Ok(tx) = log.open(OpenKind::Client, id, None, token) else { return };
        let header_bytes = 20 + self.random.below(400);
        let header = self.bytes(header_bytes);
        let large = self.random.one_in(40);
        let size = self.random.below(if large { 700_000 } else { self.plan.bodies_max });
        let body = self.bytes(size);
        if self.cores[core].log.append_header(tx, &header).is_err() {
            return self.cores[core].log.abort(tx);
        }
        let mut sent = Vec::new();
        for piece in body.chunks(30_000) {
            match self.cores[core].log.append_body(tx, piece) {
                Ok(flow) => {
                    sent.extend_from_slice(piece);
                    if flow == Flow::Pause {
                        self.pass(2000);
                    }
                }
                Err(_) => return self.cores[core].log.abort(tx),
            }
        }
        if self.random.one_in(30) {
            // Left open, or given up half-way.
            if self.random.one_in(2) {
                self.cores[core].log.abort(tx);
            } else {
                self.open.push((core, tx, id, sent));
            }
            return;
        }
        let envelope = self.envelope(id, false);
        self.note(core, id, header, body, envelope.recipients.len());
        if self.cores[core].log.commit(tx, &envelope, Vec::new()).is_err() {
            self.known.remove(&id);
        }
    }

    fn note(&mut self, core: usize, id: TransactionId, header: Vec<u8>, body: Vec<u8>, n: usize) {
        let known = Known {
            header,
            body,
            recipients: n,
            acknowledged: false,
            refused: false,
            settled: vec![false; n],
            maybe: vec![false; n],
            tries: 0,
            held: false,
            core,
        };
        self.known.insert(id, known);
    }

    fn relay(&mut self) {
        let candidates: Vec<TransactionId> = {
            let mut ids: Vec<_> = self
                .known
                .iter()
                .filter(|(_, k)| k.acknowledged && !k.may_be_over())
                .map(|(id, _)| *id)
                .collect();
            ids.sort_unstable();
            ids
        };
        if candidates.is_empty() {
            return;
        }
        let n = self.random.below(candidates.len() as u64);
        let id = candidates[usize::try_from(n).unwrap()];
        let core = self.known[&id].core;
        assert!(self.cores[core].log.get(id).is_some(), "{id} lost in memory");
        match self.random.below(10) {
            0 => {
                let hold = !self.known[&id].held;
                self.cores[core].log.hold_message(id, hold, None, self.now_us).unwrap();
                self.known.get_mut(&id).unwrap().held = hold;
            }
            1 => self.bounce(core, id),
            2 | 3 if self.known[&id].recipients > 1 => self.settle_one(core, id),
            _ if self.random.one_in(self.plan.deferred_in) => {
                let known = self.known.get_mut(&id).unwrap();
                known.tries += 1;
                let result = RecipientResult {
                    recipient: 0,
                    reply: (*b"451 later").into(),
                    tries: known.tries,
                    ..RecipientResult::default()
                };
                let next = WALL + self.now_us + 1_000_000;
                let tries = known.tries;
                let log = &mut self.cores[core].log;
                log.defer(id, next, tries, 0, vec![result], self.now_us).unwrap();
            }
            _ => {
                let token = self.token(id, None);
                let state = RecipientState::Delivered;
                self.cores[core].log.done_all(id, state, Some(token), self.now_us).unwrap();
            }
        }
    }

    fn token(&mut self, id: TransactionId, only: Option<usize>) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        let known = self.known.get_mut(&id).unwrap();
        let which: Vec<usize> = match only {
            Some(r) => vec![r],
            None => (0..known.recipients).collect(),
        };
        for r in &which {
            known.maybe[*r] = true;
        }
        self.changes.insert(token, (id, which));
        token
    }

    fn settle_one(&mut self, core: usize, id: TransactionId) {
        let n = self.random.below(self.known[&id].recipients as u64);
        let r = usize::try_from(n).unwrap();
        let token = self.token(id, Some(r));
        let result = RecipientResult {
            recipient: u16::try_from(r).unwrap(),
            state: RecipientState::Delivered,
            ..RecipientResult::default()
        };
        let done = self.cores[core].log.done(id, vec![result], Some(token), self.now_us);
        done.unwrap();
    }

    fn bounce(&mut self, core: usize, id: TransactionId) {
        let new = self.new_id(core);
        let token = self.next_token;
        self.next_token += 1;
        let Ok(tx) = self.cores[core].log.open(OpenKind::Own, new, None, token) else { return };
        let (header, body) = (self.bytes(100), self.bytes(900));
        self.cores[core].log.append_header(tx, &header).unwrap();
        self.cores[core].log.append_body(tx, &body).unwrap();
        let envelope = self.envelope(new, true);
        self.note(core, new, header, body, envelope.recipients.len());
        let done = Log::<AlignedBuffer>::done_change(
            id,
            Some(RecipientState::Failed),
            Vec::new(),
            Some(new),
        );
        self.cores[core].log.commit(tx, &envelope, vec![done]).unwrap();
        let known = self.known.get_mut(&id).unwrap();
        known.maybe = vec![true; known.recipients];
        self.replaced.insert(id, new);
    }

    pub(crate) fn load(&mut self) {
        for _ in 0..self.plan.steps {
            match self.random.below(10) {
                0..=4 => self.send(),
                5..=8 => self.relay(),
                _ => {
                    let us = self.random.below(200_000);
                    self.pass(us);
                }
            }
            let us = self.random.below(1500);
            self.pass(us);
            if self.random.one_in(40) {
                for (core, tx, _, _) in std::mem::take(&mut self.open) {
                    self.cores[core].log.abort(tx);
                }
            }
        }
    }

    /// Everything that waits can be settled: the log is not stuck.
    pub(crate) fn settle_all(&mut self) {
        for core in &mut self.cores {
            core.disk.faults = Faults { latency_us_max: 10, ..Faults::default() };
        }
        for round in 0..2000 {
            let waiting: Vec<TransactionId> = self
                .known
                .iter()
                .filter(|(_, k)| k.acknowledged && !k.is_over() && !k.may_be_over())
                .map(|(id, _)| *id)
                .collect();
            for id in waiting {
                let core = self.known[&id].core;
                let token = self.token(id, None);
                let log = &mut self.cores[core].log;
                log.done_all(id, RecipientState::Delivered, Some(token), self.now_us).unwrap();
            }
            self.pass(20_000);
            if self.known.values().all(|k| k.is_over() || !k.acknowledged) {
                return;
            }
            assert!(round < 1999, "the log is stuck: {:?}", self.cores[0].log.stats());
        }
    }

    /// The media as a cut leaves them: each core wrote its own segments.
    pub(crate) fn cut_and_recover(&mut self) {
        let cores = std::mem::take(&mut self.cores);
        let before: Option<Vec<SimDevice>> = None;
        let mut merged = before;
        for core in cores {
            let stats = core.log.stats();
            self.moved += stats.moved;
            self.forwarded += stats.forwarded;
            let owned = core.log.segments_owned();
            let cut = core.disk.cut();
            merged = Some(match merged {
                None => cut,
                Some(mut all) => {
                    for at in owned {
                        for copy in 0..self.plan.copies {
                            let m = usize::from(u16::from(at.column()) * self.plan.copies + copy);
                            let start = usize::try_from(at.device_offset(4 << 20)).unwrap();
                            let span = start..start + (4 << 20);
                            let from = cut[m].medium()[span.clone()].to_vec();
                            all[m].medium_mut()[span].copy_from_slice(&from);
                        }
                    }
                    all
                }
            });
        }
        self.devices = merged.unwrap();
        self.start();
    }

    /// Everything that is left can be read, byte for byte.
    pub(crate) fn finish(&mut self) {
        for core in &mut self.cores {
            core.disk.faults = Faults { latency_us_max: 10, ..Faults::default() };
        }
        let mut ids: Vec<TransactionId> = self.known.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let core = self.known[&id].core;
            let ReadData::Message(message) = self.read(core, id, Part::Message) else {
                panic!("not a message")
            };
            let known = self.known[&id].clone();
            assert_eq!(message.header, known.header, "{id}");
            assert_eq!(message.envelope.id, id);
            assert_eq!(message.envelope.recipients.len(), known.recipients);
            assert!(message.envelope.recipients.iter().all(|r| r.tries <= known.tries));
            let mut body = Vec::new();
            for n in 0..message.chunks {
                let ReadData::Chunk(data) = self.read(core, id, Part::Chunk(n)) else {
                    panic!("not a chunk")
                };
                body.extend_from_slice(&data);
            }
            body.extend_from_slice(&message.tail);
            assert!(body == known.body, "{id} has another body");
            assert_eq!(message.body_octets, body.len() as u64);
        }
    }

    fn read(&mut self, core: usize, id: TransactionId, part: Part) -> ReadData {
        self.cores[core].log.read(id, part, 5).unwrap();
        for _ in 0..1000 {
            self.now_us += 20;
            let c = &mut self.cores[core];
            while let Some(done) = c.disk.next_completion(self.now_us) {
                c.log.completed(done, self.now_us);
            }
            c.log.turn(&mut c.disk, self.now_us, WALL + self.now_us);
            while let Some(event) = c.log.next_event() {
                if let Event::Read { result, .. } = event {
                    return result.unwrap();
                }
            }
        }
        panic!("no answer to a read of {id}")
    }
}
