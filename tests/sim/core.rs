//! One core: log, disk, sessions, queue, relay, as `ringpostd::shard` joins them.

use std::collections::HashMap;
use std::sync::Arc;

use ringpostd::queue::{Handle, Item, Outcome, Queue, Settings, Work};
use ringpostd::retry::{Retry, Schedule, Wall};
use smtp::dsn;
use smtp::reply::Enhanced;
use spool::disk::AlignedBuffer;
use spool::edits;
use spool::id::{MessageId, TransactionId};
use spool::live::Live;
use spool::log::{Alarm, Content, Event, Log, OpenKind, Part, ReadData, ReadError, StoredMessage};
use spool::message::{Envelope, Recipient, flags, notify};
use spool::record::{RecipientResult, RecipientState as State};
use spool::sim::{Random, SimDisk};

use super::hop::{Both, Fate, Link, Moods};
use super::media::Medium;
use super::notes::{Notes, Watched};
use super::plan::{Hops, Plan, Planted};
use super::session::{Desk, Script, Session, Wants};
use super::truth::Truth;

/// Domains that mail goes to: `d0.example` and so on; the last is where reports go.
pub(super) const DESTINATIONS: u32 = 5;
const _: () = assert!(DESTINATIONS < 10);
const UNSORTED: u32 = DESTINATIONS;

/// What all cores share.
pub(super) struct Common {
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) truth: Truth,
    pub(super) now_us: u64,
    pub(super) wall_us: u64,
    pub(super) next_token: u64,
    pub(super) no_space: u64,
    pub(super) expired: u64,
    pub(super) moods: Moods,
    pub(super) both: Both,
    pub(super) receiving: Arc<smtp::server::Settings>,
    /// Messages that clients begin, in all and in this life.
    pub(super) begun: u64,
    pub(super) begun_life: u64,
    /// No more faults: the end is near.
    pub(super) calm: bool,
}

impl Common {
    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }
}

#[derive(Debug)]
struct Job {
    work: Work,
    id: TransactionId,
    envelope: Option<Box<Envelope>>,
    header: Vec<u8>,
    body: Vec<u8>,
    stored: Option<Box<StoredMessage>>,
    chunks: u32,
    sent: Vec<u16>,
    link: Option<Box<Link>>,
    next_us: u64,
    rounds: u32,
}

/// With the planted bug: the DONE that follows a report, of which message.
type Later = (TransactionId, Vec<RecipientResult>);

/// One core.
pub(super) struct CoreSim {
    number: u16,
    run: u32,
    counter: u64,
    pub(super) log: Log<AlignedBuffer>,
    pub(super) disk: SimDisk<Medium>,
    pub(super) notes: Notes,
    sessions: Vec<(Session, u64)>,
    sessions_max: usize,
    queue: Queue,
    wall: Wall,
    schedule: Schedule,
    names: Vec<TransactionId>,
    handles: HashMap<TransactionId, Vec<Handle>>,
    fresh: HashMap<TransactionId, (Box<Envelope>, Content)>,
    jobs: HashMap<u64, Job>,
    next_job: u64,
    reads: HashMap<u64, u64>,
    /// Reports on their way, and with the planted bug their DONE.
    reports: HashMap<u64, (Box<Envelope>, Option<Later>)>,
    pub(super) failed: bool,
    pub(super) refusals: u64,
    pub(super) closed: bool,
    operator_us: u64,
}

pub(super) fn schedule(plan: &Plan) -> Schedule {
    Schedule {
        first_us: 500_000,
        factor_percent: 200,
        max_us: 8_000_000,
        jitter_percent: 20,
        give_up_us: plan.give_up_us,
    }
}

impl CoreSim {
    pub(super) fn new(
        common: &Common,
        number: u16,
        run: u32,
        log: Log<AlignedBuffer>,
        disk: SimDisk<Medium>,
        newest_wall_us: Option<u64>,
    ) -> Self {
        let plan = &common.plan;
        let settings = Settings {
            capacity: 10_000,
            active_max: 64,
            window_max: 8,
            closed: Schedule { give_up_us: u64::MAX, ..schedule(plan) },
        };
        let notes = Notes { no_epoch: plan.planted == Planted::NoEpoch, ..Notes::default() };
        Self {
            number,
            run,
            counter: 0,
            log,
            disk,
            notes,
            sessions: Vec::new(),
            sessions_max: plan.sessions,
            queue: Queue::new(settings),
            wall: Wall::new(common.now_us, common.wall_us, newest_wall_us),
            schedule: schedule(plan),
            names: Vec::new(),
            handles: HashMap::new(),
            fresh: HashMap::new(),
            jobs: HashMap::new(),
            next_job: 0,
            reads: HashMap::new(),
            reports: HashMap::new(),
            failed: false,
            refusals: 0,
            closed: false,
            operator_us: common.now_us,
        }
    }

    fn new_id(&mut self) -> MessageId {
        self.counter += 1;
        MessageId::new(7, self.run, u8::try_from(self.number).expect("few cores"), self.counter)
    }

    /// When something is due.
    pub(super) fn next_us(&self, common: &Common) -> u64 {
        let now = |t: u64| t.max(common.now_us);
        let sessions = self.sessions.iter().filter(|(s, _)| s.wants() != Wants::Reply);
        let sessions = sessions.map(|(_, t)| *t).min();
        let jobs = self.jobs.values().filter(|j| j.link.is_some()).map(|j| j.next_us).min();
        let room = self.jobs.len() < 64;
        let queue = self.queue.deadline().filter(|_| room).map(now);
        [sessions, jobs, queue, self.log.deadline().map(now), self.disk.next_us()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(u64::MAX)
    }

    /// One turn of the loop.
    pub(super) fn turn(&mut self, common: &mut Common) {
        self.wall.tick(common.now_us, common.wall_us);
        while let Some(done) = self.disk.next_completion(common.now_us) {
            let note = self.notes.all.iter().rev().find(|n| n.token == done.token);
            let ok = note.is_some_and(|n| done.result == Ok(n.bytes));
            self.notes.completed(done.token, ok);
            self.log.completed(done, common.now_us);
        }
        self.log_events(common);
        self.run_sessions(common);
        self.operate(common);
        self.run_jobs(common);
        self.begin_due(common);
        let mut disk = Watched { disk: &mut self.disk, notes: &mut self.notes };
        let record_us = self.wall.for_records(common.now_us, common.wall_us);
        self.log.turn(&mut disk, common.now_us, record_us);
        self.log_events(common);
    }

    fn log_events(&mut self, common: &mut Common) {
        while let Some(event) = self.log.next_event() {
            match event {
                Event::Committed { token, id, content } => {
                    common.truth.committed(id);
                    self.committed(common, token, id, content);
                }
                Event::Refused { token, id } => {
                    common.truth.refused(id);
                    self.refusals += 1;
                    self.answer(common, token, false);
                }
                Event::Resume { token } => {
                    let found =
                        self.sessions.iter().position(|(s, _)| s.open_token() == Some(token));
                    if let Some(i) = found {
                        let (mut session, _) = self.sessions.swap_remove(i);
                        session.resume(&mut self.desk(common));
                        self.sessions.push((session, common.now_us + 100));
                    }
                }
                Event::Changed { token } => common.truth.changed(token),
                Event::Read { token, result } => self.read(common, token, result),
                Event::Alarm(alarm) => self.alarm(common, &alarm),
                Event::Closed => self.closed = true,
            }
        }
    }

    fn alarm(&mut self, common: &mut Common, alarm: &Alarm) {
        match alarm {
            Alarm::Failed => self.failed = true,
            Alarm::Recovered => {
                self.failed = false;
                common.truth.cancelled(self.number);
            }
            Alarm::Unreadable { id, .. } => {
                let mirror = common.plan.copies() == 2;
                let known = common.truth.mail(*id).harmed;
                let errors = common.plan.faults.read_error_in > 0;
                assert!(known || errors || !mirror && common.truth.any_harm, "{id} is unreadable");
            }
            Alarm::WriteFailed { .. } | Alarm::MemberOut(_) => {}
        }
    }

    fn desk<'a>(&'a mut self, common: &'a mut Common) -> Desk<'a> {
        Desk {
            log: &mut self.log,
            truth: &mut common.truth,
            now_us: common.now_us,
            wall_us: self.wall.for_receipt(common.now_us, common.wall_us),
            next_token: &mut common.next_token,
            no_space: &mut common.no_space,
        }
    }

    fn answer(&mut self, common: &mut Common, token: u64, kept: bool) {
        let Some(i) = self.sessions.iter().position(|(s, _)| s.log_token() == Some(token)) else {
            return;
        };
        let (mut session, _) = self.sessions.swap_remove(i);
        session.answer(kept, &mut self.desk(common));
        self.sessions.push((session, common.now_us + 50));
    }

    fn committed(
        &mut self,
        common: &mut Common,
        token: u64,
        id: TransactionId,
        content: Option<Content>,
    ) {
        if let Some((envelope, done)) = self.reports.remove(&token) {
            if let Some((parent, results)) = done {
                for r in &results {
                    common.truth.asked(parent, r.recipient, r.state, Some(id));
                }
                let which = results.iter().map(|r| r.recipient).collect();
                let token = common.token();
                common.truth.expect_change(token, parent, which);
                let _ = self.log.done(parent, results, Some(token), common.now_us);
            }
            self.arrived(common, id, *envelope, content);
            return;
        }
        let envelope = (*common.truth.mail(id).envelope).clone();
        self.arrived(common, id, envelope, content);
        self.answer(common, token, true);
    }

    fn arrived(
        &mut self,
        common: &mut Common,
        id: TransactionId,
        envelope: Envelope,
        content: Option<Content>,
    ) {
        self.enter(common, id, &envelope, common.now_us);
        if let Some(content) = content.filter(|_| common.plan.fresh) {
            self.fresh.insert(id, (Box::new(envelope), content));
        }
    }

    /// One entry for each destination of what is still to be done.
    fn enter(&mut self, common: &Common, id: TransactionId, envelope: &Envelope, due_us: u64) {
        let mut destinations: Vec<u32> = Vec::new();
        for recipient in envelope.recipients.iter().filter(|r| !r.state.is_final()) {
            let d = destination(&recipient.address);
            if !destinations.contains(&d) {
                destinations.push(d);
            }
        }
        let held = self.log.get(id).is_some_and(Live::is_held);
        for destination in destinations {
            let expires_us = self.expires_us(common, id);
            let message = self.name(id);
            let handle = self.queue.restore(Item { message, destination, due_us, expires_us });
            self.handles.entry(id).or_default().push(handle);
            if held {
                self.queue.hold(handle);
            }
        }
    }

    fn name(&mut self, id: TransactionId) -> u64 {
        self.names.push(id);
        u64::try_from(self.names.len() - 1).expect("small")
    }

    fn expires_us(&self, common: &Common, id: TransactionId) -> u64 {
        let trusted = self.wall.trusted() || common.plan.planted == Planted::ClockExpires;
        let Some(live) = self.log.get(id).filter(|_| trusted) else { return u64::MAX };
        let end = u64::from(live.received_wall_s) * 1_000_000 + self.schedule.give_up_us;
        common.now_us.saturating_add(end.saturating_sub(common.wall_us))
    }

    /// A message that the log held at the start.
    pub(super) fn restore(&mut self, common: &Common, live: &Live) {
        let wait = (u64::from(live.next_wall_s) * 1_000_000).saturating_sub(common.wall_us);
        let due_us = common.now_us + wait.min(self.schedule.max_us);
        let expires_us = self.expires_us(common, live.id);
        let message = self.name(live.id);
        let item = Item { message, destination: UNSORTED, due_us, expires_us };
        let handle = self.queue.restore(item);
        self.handles.entry(live.id).or_default().push(handle);
        if live.is_held() {
            self.queue.hold(handle);
        }
    }

    // Sessions.

    fn run_sessions(&mut self, common: &mut Common) {
        if self.sessions.len() < self.sessions_max && common.wants_mail() && !self.closed {
            let id = self.new_id();
            let settings = Arc::clone(&common.receiving);
            let session = Session::start(&settings, id, &mut self.desk(common));
            self.sessions.push((session, common.now_us + 50));
        }
        let mut i = 0;
        while i < self.sessions.len() {
            let due = self.sessions[i].1 <= common.now_us;
            match self.sessions[i].0.wants() {
                Wants::Over => {
                    self.sessions.swap_remove(i);
                    continue;
                }
                Wants::Carry if due => {
                    let (mut session, _) = self.sessions.swap_remove(i);
                    let octets = if common.random.one_in(4) { 3_000 } else { 40_000 };
                    session.carry(octets, &mut self.desk(common));
                    let delay = 50 + common.random.below(common.plan.pause_us);
                    self.sessions.push((session, common.now_us + delay));
                    continue;
                }
                Wants::Message if due => self.next_message(common, i),
                Wants::Carry | Wants::Message | Wants::Reply => {}
            }
            i += 1;
        }
    }

    fn next_message(&mut self, common: &mut Common, i: usize) {
        let (session, due_us) = &mut self.sessions[i];
        if !common.wants_mail() || common.random.one_in(12) {
            session.quit();
            return;
        }
        if session.turned_away {
            // It comes back after a while.
            session.turned_away = false;
            *due_us = common.now_us + 100_000 + common.random.below(300_000);
            return;
        }
        let script = common.script();
        session.give(script);
        *due_us = common.now_us + common.random.below(common.plan.pause_us);
    }

    /// The operator holds and releases.
    fn operate(&mut self, common: &mut Common) {
        if common.now_us < self.operator_us {
            return;
        }
        self.operator_us = common.now_us + 200_000;
        let wants = common.calm || common.random.one_in(common.plan.operator_in);
        if !wants {
            return;
        }
        let mut ids: Vec<TransactionId> = self.log.messages().map(|l| l.id).collect();
        ids.sort_unstable();
        if common.calm {
            for id in ids {
                if self.log.get(id).is_some_and(Live::is_held) {
                    self.hold(common, id, false);
                }
            }
        } else if !ids.is_empty() {
            let n = common.random.below(u64::try_from(ids.len()).expect("small"));
            let id = ids[usize::try_from(n).expect("small")];
            let held = self.log.get(id).is_some_and(Live::is_held);
            if common.random.one_in(4) {
                self.remove(common, id);
            } else {
                self.hold(common, id, !held);
            }
        }
    }

    fn hold(&mut self, common: &mut Common, id: TransactionId, hold: bool) {
        if self.jobs.values().any(|j| j.id == id) {
            return;
        }
        if self.log.hold_message(id, hold, None, common.now_us).is_ok() {
            common.truth.mail_mut(id).held = hold;
            for handle in self.handles.get(&id).cloned().unwrap_or_default() {
                if hold {
                    self.queue.hold(handle);
                } else {
                    self.queue.release(handle, common.now_us);
                }
            }
        }
    }

    fn remove(&mut self, common: &mut Common, id: TransactionId) {
        if self.jobs.values().any(|j| j.id == id) {
            return;
        }
        let Some(live) = self.log.get(id) else { return };
        let pending: Vec<u16> = (0..live.recipients).filter(|n| live.is_pending(*n)).collect();
        let token = common.token();
        for n in &pending {
            common.truth.asked(id, *n, State::Removed, None);
        }
        common.truth.expect_change(token, id, pending);
        self.log.done_all(id, State::Removed, Some(token), common.now_us).expect("it is there");
        for handle in self.handles.remove(&id).unwrap_or_default() {
            assert!(self.queue.remove(handle), "no job is open");
        }
        self.fresh.remove(&id);
    }

    // The relay.

    fn begin_due(&mut self, common: &mut Common) {
        let room = 64usize.saturating_sub(self.jobs.len());
        let mut works = Vec::new();
        self.queue.next_ready(common.now_us, room, &mut works);
        for work in works {
            self.begin(common, work);
        }
    }

    fn begin(&mut self, common: &mut Common, work: Work) {
        let id = self.names[usize::try_from(work.message).expect("an index")];
        if self.log.get(id).is_none() {
            return self.leave(common, &work, id, Outcome::Done);
        }
        let mut job = Job {
            work,
            id,
            envelope: None,
            header: Vec::new(),
            body: Vec::new(),
            stored: None,
            chunks: 0,
            sent: Vec::new(),
            link: None,
            next_us: u64::MAX,
            rounds: 0,
        };
        let fresh = self.fresh.get(&id).map(|(e, c)| (e.clone(), c.clone()));
        let number = self.next_job;
        self.next_job += 1;
        if let Some((envelope, content)) = fresh {
            (job.header, job.body) = (content.header, content.body);
            job.envelope = Some(envelope);
            self.jobs.insert(number, job);
            self.route(common, number);
        } else {
            self.jobs.insert(number, job);
            self.ask(common, number, Part::Message);
        }
    }

    fn ask(&mut self, common: &mut Common, number: u64, part: Part) {
        let token = common.token();
        let id = self.jobs[&number].id;
        match self.log.read(id, part, token) {
            Ok(()) => {
                self.reads.insert(token, number);
            }
            Err(ReadError::Unknown) => {
                let job = self.jobs.remove(&number).expect("a job");
                self.leave(common, &job.work, id, Outcome::Done);
            }
            Err(ReadError::Damaged) => {
                let job = self.jobs.remove(&number).expect("a job");
                assert!(common.truth.any_harm, "{id} misses a chunk");
                self.give_up_harmed(common, id, &job.work);
            }
            Err(_) => self.put_off(common, number),
        }
    }

    fn put_off(&mut self, common: &mut Common, number: u64) {
        let job = self.jobs.remove(&number).expect("a job");
        let outcome = Outcome::Later {
            due_us: common.now_us + 200_000,
            expires_us: self.expires_us(common, job.id),
        };
        self.leave(common, &job.work, job.id, outcome);
    }

    fn leave(&mut self, common: &mut Common, work: &Work, id: TransactionId, outcome: Outcome) {
        let random = common.random.next_u64();
        self.queue.finished(work.handle, common.now_us, outcome, &self.wall, random);
        if outcome == Outcome::Done {
            self.fresh.remove(&id);
            if let Some(handles) = self.handles.get_mut(&id) {
                handles.retain(|h| *h != work.handle);
            }
        }
    }

    fn read(&mut self, common: &mut Common, token: u64, result: Result<ReadData, ReadError>) {
        let Some(number) = self.reads.remove(&token) else { return };
        let Some(job) = self.jobs.get_mut(&number) else { return };
        match result {
            Ok(ReadData::Message(stored)) => {
                job.header.clone_from(&stored.header);
                job.stored = Some(stored);
            }
            Ok(ReadData::Chunk(data)) => {
                job.body.extend_from_slice(&data);
                job.chunks += 1;
            }
            Err(ReadError::Unknown) => {
                // Settled, or moved, while it was being read.
                return self.put_off(common, number);
            }
            Err(ReadError::Damaged) => {
                let (id, work) = (job.id, job.work);
                let harmed = common.truth.mail(id).harmed;
                assert!(harmed || common.truth.any_harm, "{id} does not check");
                self.jobs.remove(&number);
                return self.give_up_harmed(common, id, &work);
            }
            Err(ReadError::Busy | ReadError::Disk(_)) => return self.put_off(common, number),
        }
        let Some(stored) = &mut job.stored else { return };
        if job.chunks < stored.chunks {
            let part = Part::Chunk(job.chunks);
            return self.ask(common, number, part);
        }
        let mut stored = job.stored.take().expect("just there");
        job.body.append(&mut stored.tail);
        job.envelope = Some(Box::new(stored.envelope));
        self.route(common, number);
    }

    /// What cannot be read any more is removed by the operator.
    fn give_up_harmed(&mut self, common: &mut Common, id: TransactionId, work: &Work) {
        common.truth.harm(&[id]);
        self.leave(common, work, id, Outcome::Done);
        let _ = self.log.done_all(id, State::Removed, None, common.now_us);
        for r in &mut common.truth.mail_mut(id).rcpts {
            r.settled = r.settled.or(Some(State::Removed));
        }
    }

    fn route(&mut self, common: &mut Common, number: u64) {
        let job = self.jobs.get_mut(&number).expect("a job");
        let (id, work) = (job.id, job.work);
        let Some(live) = self.log.get(id) else {
            self.jobs.remove(&number);
            return self.leave(common, &work, id, Outcome::Done);
        };
        let envelope = job.envelope.as_deref().expect("it was read");
        if work.destination == UNSORTED {
            let envelope = envelope.clone();
            self.jobs.remove(&number);
            self.leave(common, &work, id, Outcome::Done);
            return self.enter(common, id, &envelope, common.now_us);
        }
        let mine: Vec<u16> = (0..live.recipients)
            .filter(|n| live.is_pending(*n))
            .filter(|n| {
                destination(&envelope.recipients[usize::from(*n)].address) == work.destination
            })
            .collect();
        if mine.is_empty() {
            self.jobs.remove(&number);
            return self.leave(common, &work, id, Outcome::Done);
        }
        let age = self.wall.age(common.wall_us, envelope.received_wall_us, work.tries);
        let planted = common.plan.planted == Planted::ClockExpires;
        job.sent.clone_from(&mine);
        if work.expired && (age.may_expire || planted) {
            let fates = mine.iter().map(|_| Fate::Never).collect();
            return self.settle(common, number, fates, &[], false, true);
        }
        self.connect(common, number);
    }

    fn connect(&mut self, common: &mut Common, number: u64) {
        let job = self.jobs.get_mut(&number).expect("a job");
        let envelope = job.envelope.as_deref().expect("it was read");
        let mut content = edits::apply(&job.header, &envelope.edits);
        content.extend_from_slice(&job.body);
        let recipients = job.sent.iter().map(|n| smtp::client::Recipient {
            address: envelope.recipients[usize::from(*n)].address.clone(),
            ..smtp::client::Recipient::default()
        });
        let out = smtp::client::Envelope {
            sender: envelope.mail.address.clone(),
            body: smtp::command::Body::EightBitMime,
            size: u64::try_from(content.len()).expect("small"),
            recipients: recipients.collect(),
            ..smtp::client::Envelope::default()
        };
        let mut hops = if common.calm { Hops::default() } else { common.plan.hops };
        if hops.one_dead && job.work.destination == 0 {
            hops.down_in = 1;
        }
        let link = Link::open(&common.both, hops, job.id, out, content, common.now_us);
        job.link = Some(Box::new(link));
        job.next_us = common.now_us + 200 + common.random.below(5_000);
    }

    fn run_jobs(&mut self, common: &mut Common) {
        let mut due: Vec<u64> = self
            .jobs
            .iter()
            .filter(|(_, j)| j.link.is_some() && j.next_us <= common.now_us)
            .map(|(n, _)| *n)
            .collect();
        due.sort_unstable();
        for number in due {
            let job = self.jobs.get_mut(&number).expect("a job");
            let link = job.link.as_mut().expect("linked");
            let (truth, moods) = (&mut common.truth, &mut common.moods);
            link.round(job.rounds == 0, truth, &mut common.random, moods, common.now_us);
            job.rounds += 1;
            job.next_us = common.now_us + 100 + common.random.below(2_000);
            assert!(job.rounds < 200, "the conversation about {} does not end", job.id);
            let all = link.fates.len() == job.sent.len();
            if all || link.over {
                let link = job.link.take().expect("linked");
                self.finish(common, number, &link);
            }
        }
    }

    fn finish(&mut self, common: &mut Common, number: u64, link: &Link) {
        let job = &self.jobs[&number];
        let mut fates = vec![Fate::Later; job.sent.len()];
        let mut texts: Vec<Box<str>> = vec![Box::from("451 no answer"); job.sent.len()];
        for (n, fate, text) in &link.fates {
            fates[*n] = *fate;
            texts[*n].clone_from(text);
        }
        for n in &link.unknown {
            common.truth.reply_lost(job.id, job.sent[*n]);
        }
        self.settle(common, number, fates, &texts, link.unreachable, false);
    }

    /// As `relay::settle`: what failed for too long fails, reports, DONEs, the next attempt.
    fn settle(
        &mut self,
        common: &mut Common,
        number: u64,
        mut fates: Vec<Fate>,
        texts: &[Box<str>],
        unreachable: bool,
        expired: bool,
    ) {
        let job = self.jobs.remove(&number).expect("a job");
        let envelope = job.envelope.as_deref().expect("it was read");
        let tries = self.log.get(job.id).map_or(0, |l| l.tries).saturating_add(1);
        let planted = common.plan.planted == Planted::ClockExpires;
        let mut age = self.wall.age(common.wall_us, envelope.received_wall_us, job.work.tries);
        age.may_expire |= planted;
        let random = common.random.next_u64();
        let next = self.schedule.next(u32::from(tries), age, random);
        if next == Retry::Expired || expired {
            common.note_expired(&self.wall, &job, &fates);
            for fate in fates.iter_mut().filter(|f| **f == Fate::Later) {
                *fate = Fate::Never;
            }
        }
        self.write_done(common, &job, envelope, &fates, texts, tries);
        if !fates.contains(&Fate::Later) {
            return self.leave(common, &job.work, job.id, Outcome::Done);
        }
        let wait_us = match next {
            Retry::At(wait_us) => wait_us,
            Retry::Expired => self.schedule.first_us,
        };
        let later = |f: &Fate| *f == Fate::Later;
        let results = results(&job, &fates, texts, envelope, tries, later);
        let next_wall_us = common.wall_us + wait_us;
        let _ = self.log.defer(job.id, next_wall_us, tries, 0, results, common.now_us);
        let outcome = if unreachable && !job.work.expired {
            Outcome::Unreachable
        } else {
            let expires_us = self.expires_us(common, job.id);
            Outcome::Later { due_us: common.now_us + wait_us, expires_us }
        };
        self.leave(common, &job.work, job.id, outcome);
    }

    fn write_done(
        &mut self,
        common: &mut Common,
        job: &Job,
        envelope: &Envelope,
        fates: &[Fate],
        texts: &[Box<str>],
        tries: u16,
    ) {
        let handed = common.random.one_in(16);
        let mut done = results(job, fates, texts, envelope, tries, |f| *f == Fate::Delivered);
        if handed {
            done.iter_mut().for_each(|r| r.state = State::HandedOver);
        }
        let failed = results(job, fates, texts, envelope, tries, |f| *f == Fate::Never);
        if !failed.is_empty() && !self.report(common, job, envelope, &failed) {
            done.extend(failed);
        }
        if done.is_empty() {
            return;
        }
        let token = common.token();
        for r in &done {
            common.truth.asked(job.id, r.recipient, r.state, None);
        }
        let which = done.iter().map(|r| r.recipient).collect();
        common.truth.expect_change(token, job.id, which);
        self.log.done(job.id, done, Some(token), common.now_us).expect("it is there");
    }

    /// The report and the DONE of what it tells of, in one batch. False: nobody is to be told.
    fn report(
        &mut self,
        common: &mut Common,
        job: &Job,
        envelope: &Envelope,
        failed: &[RecipientResult],
    ) -> bool {
        let id = TransactionId { session: self.new_id(), n: 1 };
        let Some(told) = write_report(common, job, envelope, failed, id) else { return false };
        let token = common.token();
        let own = Envelope {
            id,
            parent: Some(job.id),
            received_wall_us: self.wall.for_receipt(common.now_us, common.wall_us),
            recipients: vec![Recipient {
                address: told.recipient.clone(),
                notify: Some(notify::NEVER),
                ..Recipient::default()
            }],
            flags: flags::GENERATED,
            ..Envelope::default()
        };
        let size = u64::try_from(told.content.len()).expect("small");
        let Ok(tx) = self.log.open(OpenKind::Own, id, Some(size), token) else { return true };
        let (header, body) = told.content.split_at(told.header_len);
        self.log.append_header(tx, header).expect("small");
        self.log.append_body(tx, body).expect("small");
        let which: Vec<u16> = failed.iter().map(|r| r.recipient).collect();
        common.truth.handed_over(&own, header, body, Some((job.id, which)), common.now_us);
        let apart = common.plan.planted == Planted::TwoBatches;
        let mut replaces = Vec::new();
        if !apart {
            for r in failed {
                common.truth.asked(job.id, r.recipient, r.state, Some(id));
            }
            let done = Log::<AlignedBuffer>::done_change(job.id, None, failed.to_vec(), Some(id));
            replaces.push(done);
        }
        self.log.commit(tx, &own, replaces).expect("a report fits");
        let later = apart.then(|| (job.id, failed.to_vec()));
        self.reports.insert(token, (Box::new(own), later));
        true
    }

    /// Nothing is to be done any more.
    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty()
            && self.reports.is_empty()
            && self.sessions.is_empty()
            && self.log.messages().next().is_none()
    }
}

impl Common {
    fn wants_mail(&self) -> bool {
        let enough = self.begun >= self.plan.messages && self.truth.accepted >= 100;
        if self.calm { !enough } else { self.begun_life < 4 * self.plan.messages }
    }

    /// Nothing may expire by a clock that lies.
    fn note_expired(&mut self, wall: &Wall, job: &Job, fates: &[Fate]) {
        if !fates.contains(&Fate::Later) && job.link.is_some() {
            return;
        }
        self.expired += 1;
        let mail = self.truth.mail(job.id);
        let true_age = self.now_us.saturating_sub(mail.born_us);
        let age = wall.age(self.wall_us, self.wall_us.saturating_sub(true_age), job.work.tries);
        let early = true_age + 2_000_000 < self.plan.give_up_us;
        assert!(
            !early || (!wall.trusted() && age.may_expire),
            "{} expired after {} s by a clock that was set",
            job.id,
            true_age / 1_000_000
        );
    }

    fn script(&mut self) -> Script {
        self.begun += 1;
        self.begun_life += 1;
        let n = self.begun;
        let r = &mut self.random;
        let plan = &self.plan;
        let large = r.one_in(plan.large_in);
        let size = if large { 20_000 + r.below(60_000) } else { r.below(plan.body_max) };
        let size = if r.one_in(70) { 140_000 + r.below(60_000) } else { size };
        let count = 1 + if r.one_in(4) { r.below(4) } else { 0 };
        let recipients = (0..count)
            .map(|k| format!("r{k}.{n}@d{}.example", r.below(u64::from(DESTINATIONS) - 1)))
            .collect();
        let sender = match r.one_in(12) {
            true => String::new(),
            false => format!("s{n}@d{}.example", DESTINATIONS - 1),
        };
        let mut content = format!("Subject: message {n}\r\nMessage-ID: <{n}@sim>\r\n\r\n");
        let line = r.below(NOISE_LINES);
        let size = usize::try_from(size).expect("small");
        while content.len() < size {
            let at = usize::try_from(line).expect("small") * 64;
            let noise = noise();
            let n = (size - content.len()).next_multiple_of(64).min(noise.len() - at);
            content.push_str(&noise[at..at + n]);
        }
        content.push_str(".\r\n..end\r\n");
        Script {
            sender,
            recipients,
            content: content.into_bytes(),
            says_size: r.one_in(2),
            leaves: r.one_in(25),
        }
    }
}

const NOISE_LINES: u64 = 1024;

/// Lines of 62 characters, some with a dot first.
fn noise() -> &'static str {
    static NOISE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    NOISE.get_or_init(|| {
        let mut random = Random::new(62);
        let mut out = String::new();
        for _ in 0..4 * NOISE_LINES {
            let dot = random.one_in(9);
            for n in 0..62 {
                let c = b'0' + u8::try_from(random.below(75)).expect("small");
                out.push(if dot && n == 0 { '.' } else { char::from(c) });
            }
            out.push_str("\r\n");
        }
        out
    })
}

/// The number in `x@d3.example`.
fn destination(address: &[u8]) -> u32 {
    let at = address.iter().rposition(|b| *b == b'@').expect("an address");
    u32::from(address[at + 2] - b'0')
}

fn results(
    job: &Job,
    fates: &[Fate],
    texts: &[Box<str>],
    envelope: &Envelope,
    tries: u16,
    which: impl Fn(&Fate) -> bool,
) -> Vec<RecipientResult> {
    let null = envelope.mail.address.is_empty();
    let all = job.sent.iter().zip(fates).enumerate().filter(|(_, (_, fate))| which(fate));
    all.map(|(i, (n, fate))| RecipientResult {
        recipient: *n,
        state: match fate {
            Fate::Delivered => State::Delivered,
            Fate::Later => State::Pending,
            Fate::Never if null => State::Discarded,
            Fate::Never => State::Failed,
        },
        reply: texts.get(i).map_or(&b""[..], |t| t.as_bytes()).into(),
        tries,
        ..RecipientResult::default()
    })
    .collect()
}

fn write_report(
    common: &Common,
    job: &Job,
    envelope: &Envelope,
    failed: &[RecipientResult],
    id: TransactionId,
) -> Option<dsn::Notification> {
    let recipients: Vec<dsn::Recipient<'_>> = failed
        .iter()
        .map(|r| dsn::Recipient {
            address: &envelope.recipients[usize::from(r.recipient)].address,
            orcpt: None,
            notify: None,
            action: dsn::Action::Failed,
            enhanced: Enhanced(5, 0, 0),
            remote_mta: None,
            diagnostic: std::str::from_utf8(&r.reply).unwrap_or_default(),
            last_attempt_wall_us: Some(common.wall_us),
            retry_until_wall_us: None,
        })
        .collect();
    dsn::notify(&dsn::Report {
        host: "sim.example",
        id: &id.to_string(),
        wall_us: common.wall_us,
        original: dsn::Original {
            sender: &envelope.mail.address,
            envid: None,
            ret: None,
            smtputf8: false,
            arrival_wall_us: envelope.received_wall_us,
            header: &job.header,
            body: None,
        },
        recipients: &recipients,
    })
}
