//! One core: log, disk, sessions, queue, relay, as `ringpostd::shard` joins them.

use std::collections::HashMap;
use std::sync::Arc;

use ringpostd::queue::{Handle, Item, Queue, Settings};
use ringpostd::retry::{Schedule, Wall};
use spool::disk::{AlignedBuffer, Member};
use spool::id::{MessageId, TransactionId};
use spool::live::Live;
use spool::log::{Alarm, Content, Event, Log};
use spool::message::Envelope;
use spool::record::{RecipientResult, RecipientState as State};
use spool::sim::SimDisk;

use super::common::{Common, Job, UNSORTED, destination, schedule};
use super::media::Medium;
use super::notes::{Notes, Watched};
use super::plan::{Layout, Planted};
use super::session::{Desk, Session, Wants};

/// What a log asks of whoever has the superblocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    /// The generation without that member.
    Out(Member),
    /// It has copied all it has to that member.
    Filled(Member),
}

/// With the planted bug: the DONE that follows a report, of which message.
type Later = (TransactionId, Vec<RecipientResult>);

/// One core.
pub(super) struct CoreSim {
    pub(super) number: u16,
    pub(super) run: u32,
    counter: u64,
    pub(super) log: Log<AlignedBuffer>,
    pub(super) disk: SimDisk<Medium>,
    pub(super) notes: Notes,
    pub(super) sessions: Vec<(Session, u64)>,
    sessions_max: usize,
    pub(super) queue: Queue,
    pub(super) wall: Wall,
    pub(super) schedule: Schedule,
    pub(super) names: Vec<TransactionId>,
    pub(super) handles: HashMap<TransactionId, Vec<Handle>>,
    pub(super) fresh: HashMap<TransactionId, (Box<Envelope>, Content)>,
    pub(super) jobs: HashMap<u64, Job>,
    pub(super) next_job: u64,
    pub(super) reads: HashMap<u64, u64>,
    /// Reports on their way, and with the planted bug their DONE.
    pub(super) reports: HashMap<u64, (Box<Envelope>, Option<Later>)>,
    pub(super) asks: Vec<Ask>,
    pub(super) columns_left: u64,
    pub(super) failed: bool,
    pub(super) refusals: u64,
    pub(super) closed: bool,
    operator_us: u64,
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
            asks: Vec::new(),
            columns_left: 0,
            failed: false,
            refusals: 0,
            closed: false,
            operator_us: common.now_us,
        }
    }

    pub(super) fn new_id(&mut self) -> MessageId {
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
                Event::MemberFails { member } => self.asks.push(Ask::Out(member)),
                Event::MemberFilled { member } => self.asks.push(Ask::Filled(member)),
                Event::Alarm(alarm) => self.alarm(common, &alarm),
                Event::Closed => self.closed = true,
            }
        }
    }

    fn alarm(&mut self, common: &mut Common, alarm: &Alarm) {
        match alarm {
            Alarm::Failed => {
                // One of two members fails at most: mail goes on. (While the other one is being
                // filled there is one.)
                let two = common.plan.layout == Layout::Mirror && self.notes.filling.is_empty();
                assert!(!two, "a mirror stopped taking mail");
                self.failed = true;
            }
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
            Alarm::MemberOut(_) if common.plan.layout == Layout::Stripe => self.columns_left += 1,
            Alarm::CopyDamaged { .. } => {
                assert_eq!(common.plan.layout, Layout::Mirror, "there is no other copy");
            }
            Alarm::WriteFailed { .. } | Alarm::MemberOut(_) => {}
        }
    }

    pub(super) fn desk<'a>(&'a mut self, common: &'a mut Common) -> Desk<'a> {
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
    pub(super) fn enter(
        &mut self,
        common: &Common,
        id: TransactionId,
        envelope: &Envelope,
        due_us: u64,
    ) {
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

    pub(super) fn name(&mut self, id: TransactionId) -> u64 {
        self.names.push(id);
        u64::try_from(self.names.len() - 1).expect("small")
    }

    pub(super) fn expires_us(&self, common: &Common, id: TransactionId) -> u64 {
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

    /// Nothing is to be done any more.
    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty()
            && self.reports.is_empty()
            && self.sessions.is_empty()
            && self.log.messages().next().is_none()
            // What a client left behind may still be on its way.
            && self.log.stats().memory == 0
    }
}
