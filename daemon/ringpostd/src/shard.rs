//! One core: its listeners, sessions, log, relay; the turn of its loop.
//!
//! *Guarantees.* A 250 leaves only after the log's `Committed`. What the log has committed is in
//! the relay's queue before the turn ends.
//! *Limits.* Sessions: the slots of the engine. A client that finds none is handed to the least
//! loaded core, and hears 421 when all are full.
//! *Failure.* A panic ends the process; the note it leaves names session and message.
//! *Not here.* How a message is received (`inbound`) or sent (`relay`).

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use control::{Accepting, Reply, Request, Rows};
use engine::{Conn, Core, Event, Handler, Listener};
use nix::sys::socket::MsgFlags;
use spool::driver::Members;
use spool::log;

use crate::admin::Clerk;
use crate::desk::{Desk, Letter, Pending, id_text};
use crate::events::{self, Alarm, Client, Phase, Reason};
use crate::inbound::{self, Arrival, Session};
use crate::lookup::{Known, Names};
use crate::metrics::{Counter, Gauge};
use crate::post::{Joining, Orders, ToCore, ToHouse};
use crate::relay::Relay;
use crate::takein::TakeIn;
use crate::tally;

/// The timer for log and relay.
const WORK: u64 = 1;
/// The timer for the end of a drain.
const DRAIN: u64 = 2;
/// The timer for what is done now and then.
const CHORES: u64 = 3;
/// Log lines wait so long for more of them.
const LINES_US: u64 = 100_000;
/// Connections told of one core.
const SESSIONS_TOLD_MAX: usize = 250;
/// How often that is.
const CHORES_US: u64 = 500_000;
/// While the daemon drains, sessions are looked at so often.
const DRAIN_LOOK_US: u64 = 50_000;

/// Sessions of each core, so that a full one finds the least loaded.
pub type Loads = Arc<[AtomicU32]>;

/// A slot of the engine and who uses it.
#[derive(Debug)]
enum Slot {
    Free,
    Client(Box<Session>),
    /// The relay's.
    Backend,
}

/// One core's handler.
#[derive(Debug)]
pub struct Shard {
    desk: Desk,
    relay: Relay,
    clerk: Clerk,
    takein: TakeIn,
    slots: Vec<Slot>,
    listeners: Vec<Listener>,
    /// Listeners closed by a standing order: address and tag.
    closed: Vec<(SocketAddr, u32)>,
    loads: Loads,
    disk: Members,
    work_due_us: u64,
    /// When the house was last told of log lines.
    lines_told_us: u64,
    draining: bool,
    draining_since_us: u64,
    hurried_us: u64,
    log_closed: bool,
}

impl Shard {
    /// A core that is ready to run.
    #[must_use]
    pub fn new(
        desk: Desk,
        relay: Relay,
        listeners: Vec<Listener>,
        loads: Loads,
        disk: Members,
        slots: usize,
    ) -> Self {
        let slots = std::iter::repeat_with(|| Slot::Free).take(slots).collect();
        Self {
            desk,
            relay,
            clerk: Clerk::default(),
            takein: TakeIn::default(),
            slots,
            listeners,
            closed: Vec::new(),
            loads,
            disk,
            work_due_us: u64::MAX,
            lines_told_us: 0,
            draining: false,
            draining_since_us: 0,
            hurried_us: 0,
            log_closed: false,
        }
    }

    /// The first things to do, before the loop turns.
    pub fn begin(&mut self, core: &mut Core<ToCore>) {
        self.clock(core);
        core.set_timer(core.now_us() + CHORES_US, CHORES);
        self.watch_zones(core);
        self.open_or_close(core);
        self.turn_end(core);
    }

    fn clock(&mut self, core: &Core<ToCore>) {
        if core.now_us() != self.desk.now_us {
            self.desk.now_us = core.now_us();
            self.desk.wall_us = core.wall_us();
            self.relay.watch_clock(&mut self.desk);
        }
    }

    fn load(&self) -> &AtomicU32 {
        &self.loads[self.desk.core]
    }

    fn accepted(&mut self, core: &mut Core<ToCore>, arrival: Arrival) {
        let sessions = self.load().fetch_add(1, Ordering::Relaxed) + 1;
        let percent = u64::from(self.desk.config().xdp.busy_percent);
        self.desk.busy =
            u64::from(sessions) * 100 >= u64::from(self.sessions_max()).saturating_mul(percent);
        let index = arrival.conn.index();
        let session = Session::start(core, &mut self.desk, arrival);
        self.slots[index] = Slot::Client(Box::new(session));
    }

    /// No slot here: the least loaded core may have one.
    fn overflow(&mut self, core: &mut Core<ToCore>, fd: OwnedFd, listener: u32, peer: SocketAddr) {
        let least = (0..self.loads.len())
            .filter(|n| *n != self.desk.core)
            .min_by_key(|n| self.loads[*n].load(Ordering::Relaxed));
        if let Some(least) = least
            && self.loads[least].load(Ordering::Relaxed) < self.sessions_max()
        {
            match core.post(&self.desk.cores[least], ToCore::Adopt(fd, listener)) {
                Ok(()) => return,
                Err(ToCore::Adopt(fd, _)) => return self.refuse(&fd, peer),
                Err(_) => return,
            }
        }
        self.refuse(&fd, peer);
    }

    fn sessions_max(&self) -> u32 {
        let cores = u32::try_from(self.loads.len()).unwrap_or(1).max(1);
        self.desk.config().node.sessions_max.div_ceil(cores)
    }

    /// Says 421 with reason and id, as far as it fits into the socket at once, and closes.
    fn refuse(&mut self, fd: &OwnedFd, peer: SocketAddr) {
        let id = self.desk.ids.next_id().to_string();
        let mut out = Vec::with_capacity(96);
        let reason = Reason::Busy;
        smtp::reply::write_refusal(&mut out, &reason.refusal(), &smtp::reply::Id::new(&id));
        // Whoever does not take it sees the end of the connection.
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let _ = nix::sys::socket::send(fd.as_raw_fd(), &out, flags);
        let client = Client {
            id: &id,
            remote: peer,
            local: peer,
            proxy: None,
            helo: b"",
            name: None,
            protocol: "SMTP",
            tls: None,
        };
        self.desk.tell(&events::Event::ConnectRefused { client: &client, reason });
    }

    /// What became known of clients.
    fn names(
        &mut self,
        core: &mut Core<ToCore>,
        ask: impl FnOnce(&mut Names, &mut Core<ToCore>) -> Vec<(Conn, Known)>,
    ) {
        let Some(names) = self.desk.names.as_mut() else { return };
        let known = ask(names, core);
        let (over_tcp, unlisted) = (names.take_over_tcp(), names.take_unlisted());
        for (number, question) in over_tcp {
            let letter = ToHouse::OverTcp(self.desk.core, number, question);
            self.desk.outbox.push(Letter::House(letter));
        }
        for (client, list) in unlisted {
            self.desk.lift(client, list);
        }
        for (conn, known) in known {
            self.session(core, conn, |session, core, desk| match known {
                Known::Name(reverse) => session.named(conn, reverse),
                Known::Judged(judged, text) => session.judged(core, desk, judged, text),
            });
        }
    }

    /// Lends a session and the desk to `act`.
    fn session(
        &mut self,
        core: &mut Core<ToCore>,
        conn: Conn,
        act: impl FnOnce(&mut Session, &mut Core<ToCore>, &mut Desk),
    ) {
        // An answer may come after its session: the slot may be another's by then.
        if let Some(Slot::Client(session)) = self.slots.get_mut(conn.index())
            && session.conn() == conn
        {
            tally::client(session.guest());
            act(session, core, &mut self.desk);
        }
    }

    fn is_client(&self, conn: Conn) -> bool {
        matches!(self.slots.get(conn.index()), Some(Slot::Client(_)))
    }

    fn closed(&mut self, core: &mut Core<ToCore>, conn: Conn) {
        let slot = std::mem::replace(&mut self.slots[conn.index()], Slot::Free);
        match slot {
            Slot::Client(session) => {
                self.load().fetch_sub(1, Ordering::Relaxed);
                session.closed(&mut self.desk);
            }
            Slot::Backend | Slot::Free => self.relay.closed(core, &mut self.desk, conn),
        }
    }

    fn mail(&mut self, core: &mut Core<ToCore>, mail: ToCore) {
        match mail {
            ToCore::Orders(orders) => self.orders(core, orders),
            ToCore::Lists(lists) => self.desk.lists = lists,
            ToCore::Adopt(fd, listener) => {
                if let Err(fd) = core.adopt(fd, listener)
                    && let Ok(peer) = engine::host::peer_address(&fd)
                {
                    self.refuse(&fd, peer);
                }
            }
            ToCore::Hint(change) => {
                let _ = self.desk.writer.apply(&change);
            }
            ToCore::Mx(domain, answer) => {
                self.desk.ways.learned_mx(&domain, &answer, self.desk.wall_us);
                self.found(core, &domain);
            }
            ToCore::Addresses(host, answer) => {
                self.desk.ways.learned_addresses(&host, &answer, self.desk.wall_us);
                self.found(core, &host);
            }
            ToCore::OverTcp(number, outcome) => {
                self.names(core, |names, core| names.over_tcp(core, number, outcome));
            }
            ToCore::Recheck(clients) => {
                let zones = Arc::clone(&self.desk.orders.zones);
                self.names(core, |names, core| names.recheck(core, &zones, clients));
            }
            ToCore::Asked(number, uid, request) => self.asked(number, uid, &request),
            ToCore::TakeIn(number, arriving) => {
                self.takein.begin(&mut self.desk, number, *arriving);
            }
            ToCore::Drain => self.drain(core),
            ToCore::ClockConfirmed(confirmed) => self.relay.clock_confirmed(confirmed),
            ToCore::MemberOut(member) => self.desk.log.member_out(member, self.desk.now_us),
            ToCore::MemberJoins(joining) => self.member_joins(core, &joining),
            ToCore::MemberIn(member) => self.desk.log.member_in(member),
            ToCore::MemberStays => self.desk.log.member_stays(self.desk.now_us),
        }
    }

    /// A device of the spool is to be filled.
    fn member_joins(&mut self, core: &mut Core<ToCore>, joining: &Joining) {
        let Joining { member, column, device, same } = joining;
        match self.disk.join(core, *member, device, *same) {
            Ok(()) => self.desk.log.member_joins(*member, *column),
            Err(error) => {
                let text = format!("device {member} cannot be filled: {error}");
                self.desk.tell(&events::Event::Alarmed(Alarm::Device, &text));
                let letter = ToHouse::MemberFails(self.desk.core, *member);
                self.desk.outbox.push(Letter::House(letter));
            }
        }
    }

    /// The admin tool asks.
    fn asked(&mut self, number: u64, uid: u32, request: &Request) {
        match request {
            Request::Sessions => {
                let rows = self.sessions();
                let reply = Box::new(Reply::Rows(Box::new(rows)));
                let answer = ToHouse::Answered(number, self.desk.core, reply);
                self.desk.outbox.push(Letter::House(answer));
            }
            _ => self.clerk.asked(&mut self.desk, number, uid, request),
        }
    }

    /// What every connection is at.
    fn sessions(&self) -> Rows {
        let core = self.desk.core.to_string();
        let clients = self.slots.iter().filter_map(|slot| match slot {
            Slot::Client(session) => Some(session.told(self.desk.now_us)),
            _ => None,
        });
        let all = clients.chain(self.relay.told(self.desk.now_us));
        let rows = all
            .take(SESSIONS_TOLD_MAX)
            .map(|cells| std::iter::once(core.clone()).chain(cells).collect());
        Rows::new(&["core", "dir", "peer", "idle s", "tls", "id", "at"]).with(rows)
    }

    /// Who waited for a domain or host may go on.
    fn found(&mut self, core: &mut Core<ToCore>, name: &str) {
        for slot in &mut self.slots {
            if let Slot::Client(session) = slot {
                session.found(core, &mut self.desk, name);
            }
        }
        self.relay.found(core, &mut self.desk);
    }

    fn orders(&mut self, core: &mut Core<ToCore>, orders: Arc<Orders>) {
        self.desk.machines = inbound::machines(&orders.config, orders.tls.is_some());
        self.desk.standing = self.desk.standing.with(Arc::clone(&orders.config.limits));
        self.desk.ways.orders(&orders.config);
        self.desk.stream.maillog.configure(&orders.config.log);
        self.desk.orders = orders;
        self.relay.orders(&self.desk);
        self.open_or_close(core);
    }

    /// Whether the ports are open follows the standing orders.
    fn open_or_close(&mut self, core: &mut Core<ToCore>) {
        let closed = self.desk.orders.rules.accepting == Accepting::Closed || self.draining;
        if closed {
            let listeners = std::mem::take(&mut self.listeners);
            for (listener, tag) in listeners.into_iter().zip(0..) {
                self.closed.extend(core.listener_address(listener).map(|address| (address, tag)));
                core.close_listener(listener);
            }
            return;
        }
        for (address, tag) in std::mem::take(&mut self.closed) {
            match core.listen(address, tag) {
                Ok(listener) => self.listeners.push(listener),
                Err(error) => {
                    self.closed.push((address, tag));
                    let text = format!("{address} cannot be opened again: {error}");
                    self.desk.tell(&events::Event::Alarmed(Alarm::Stalled, &text));
                }
            }
        }
    }

    fn drain(&mut self, core: &mut Core<ToCore>) {
        if self.draining {
            return;
        }
        self.draining = true;
        for listener in std::mem::take(&mut self.listeners) {
            core.close_listener(listener);
        }
        self.draining_since_us = core.now_us();
        self.drain_sessions(core);
        self.relay.drain(core, &mut self.desk);
        let limit = self.desk.config().timeouts_in.drain_s.us();
        core.set_timer(core.now_us().saturating_add(limit), DRAIN);
    }

    fn drain_sessions(&mut self, core: &mut Core<ToCore>) {
        let since_us = self.draining_since_us;
        for slot in &mut self.slots {
            if let Slot::Client(session) = slot {
                session.drain(core, &mut self.desk, since_us);
            }
        }
    }

    /// Whatever is still open is cut: its mail was not answered 250, or is in the log.
    fn cut(&mut self, core: &mut Core<ToCore>) {
        for slot in &mut self.slots {
            if let Slot::Client(session) = slot {
                session.cut(core, &mut self.desk);
            }
        }
        self.relay.cut(core, &mut self.desk);
    }

    /// Stops when nothing is left to do.
    fn finish(&mut self) {
        let idle = self.load().load(Ordering::Relaxed) == 0
            && self.desk.pending.is_empty()
            && self.relay.is_idle();
        if idle && !self.log_closed {
            self.log_closed = true;
            self.desk.log.close();
        }
    }

    /// What the log has to tell.
    fn log_events(&mut self, core: &mut Core<ToCore>) {
        while let Some(event) = self.desk.log.next_event() {
            match event {
                log::Event::Committed { token, id, content } => {
                    match self.desk.pending.remove(&token) {
                        Some(pending) => {
                            self.kept(core, id, *pending, content);
                            self.takein.kept(&mut self.desk, token);
                        }
                        None => self.relay.committed(core, &mut self.desk, token, id, content),
                    }
                }
                log::Event::Refused { token, .. } => match self.desk.pending.remove(&token) {
                    Some(pending) => {
                        self.not_kept(core, &pending);
                        self.takein.refused(&mut self.desk, token);
                    }
                    None => self.relay.refused(&mut self.desk, token),
                },
                log::Event::Resume { token } => self.resume(core, token),
                log::Event::Changed { token } => {
                    self.relay.changed(&mut self.desk, token);
                    self.clerk.changed(token);
                }
                log::Event::Read { token, result } => {
                    if let Some(result) = self.relay.read(core, &mut self.desk, token, result) {
                        self.clerk.read(&mut self.desk, token, &result);
                    }
                }
                log::Event::MemberFails { member } => {
                    let letter = ToHouse::MemberFails(self.desk.core, member);
                    self.desk.outbox.push(Letter::House(letter));
                }
                log::Event::MemberFilled { member } => {
                    let letter = ToHouse::MemberFilled(self.desk.core, member);
                    self.desk.outbox.push(Letter::House(letter));
                }
                log::Event::Alarm(alarm) => {
                    let (which, text) = alarm_text(&alarm);
                    self.desk.tell(&events::Event::Alarmed(which, &text));
                }
                log::Event::Closed => {
                    self.desk.outbox.push(Letter::House(ToHouse::Stopped(self.desk.core)));
                    self.desk.stopped = true;
                }
            }
        }
    }

    /// A message is durable: it is logged, queued, and its client hears 250.
    fn kept(
        &mut self,
        core: &mut Core<ToCore>,
        id: spool::id::TransactionId,
        pending: Pending,
        content: Option<log::Content>,
    ) {
        let took = self.desk.now_us.saturating_sub(pending.dot_us);
        self.desk.tell(&events::Event::Took(Phase::Dot, took));
        // Nothing stands between the dot and the log: what the scanners take will.
        self.desk.stream.metrics.took(Phase::Commit, took);
        self.tell_accepted(id, &pending);
        if let Some(client) = pending.envelope.client {
            self.desk.delivered(client.ip());
        }
        let Pending { waits, envelope, .. } = pending;
        self.relay.arrived(&mut self.desk, id, envelope, content);
        if let Some((conn, question)) = waits {
            self.session(core, conn, |session, core, desk| {
                session.answer(core, desk, question, smtp::server::Answer::Accept);
            });
        }
    }

    fn tell_accepted(&mut self, id: spool::id::TransactionId, pending: &Pending) {
        let envelope = &pending.envelope;
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let text = id_text(id);
        let client = Client {
            id: &text,
            remote: envelope.client.unwrap_or(unknown),
            local: envelope.local.unwrap_or(unknown),
            proxy: envelope.proxy,
            helo: &envelope.helo,
            name: (envelope.ptr == spool::message::PtrVerdict::Confirmed)
                .then_some(&*envelope.ptr_name),
            protocol: pending.protocol,
            tls: pending.tls.map(|(version, cipher)| events::Tls {
                version,
                cipher,
                verified: None,
            }),
        };
        let accepted = events::Accepted {
            client,
            sender: &envelope.mail.address,
            recipients: u32::try_from(envelope.recipients.len()).unwrap_or(u32::MAX),
            octets: pending.octets,
            message_id: pending.message_id.as_deref(),
            subject: pending.subject.as_deref(),
        };
        self.desk.tell(&events::Event::Accepted(&accepted));
    }

    /// The log could not keep it: 451, and nothing of it will ever be relayed.
    fn not_kept(&mut self, core: &mut Core<ToCore>, pending: &Pending) {
        self.desk.stream.maillog.release(1);
        let Some((conn, question)) = pending.waits else { return };
        let answer = smtp::server::Answer::Refuse(Reason::SpoolFailed.refusal());
        self.session(core, conn, |session, core, desk| {
            session.answer(core, desk, question, answer);
        });
    }

    fn resume(&mut self, core: &mut Core<ToCore>, token: u64) {
        if self.takein.resume(&mut self.desk, token) {
            return;
        }
        let waiting = self.desk.paused.remove(&token);
        if let Some(conn) = waiting {
            self.session(core, conn, Session::resume);
        }
    }

    /// The first core asks whether DNS lists can be believed, for all cores.
    fn watch_zones(&mut self, core: &mut Core<ToCore>) {
        let Desk { names, orders, core: number, .. } = &mut self.desk;
        if let Some(names) = names.as_mut().filter(|_| *number == 0) {
            names.watch(core, &orders.zones);
        }
    }

    fn chores(&mut self, core: &mut Core<ToCore>) {
        self.watch_zones(core);
        self.relay.probe(core, &mut self.desk);
        self.publish();
        if !self.draining {
            core.set_timer(core.now_us() + CHORES_US, CHORES);
            return;
        }
        self.drain_sessions(core);
        if core.now_us() >= self.hurried_us.saturating_add(CHORES_US) {
            self.hurried_us = core.now_us();
            // Whoever has heard its 421 and does not close its side is not waited for.
            for slot in &mut self.slots {
                if let Slot::Client(session) = slot {
                    session.hurry(core);
                }
            }
        }
        core.set_timer(core.now_us() + DRAIN_LOOK_US, CHORES);
    }

    /// Lines leave for the files together, but not late.
    fn log_lines(&mut self) {
        let maillog = &mut self.desk.stream.maillog;
        maillog.turn_end(self.desk.now_us);
        let due = self.lines_told_us.saturating_add(LINES_US);
        if maillog.outlet().waiting_octets() > 0 && self.desk.now_us >= due {
            maillog.flush();
            self.lines_told_us = self.desk.now_us;
            self.desk.outbox.push(Letter::House(ToHouse::LinesWait(self.desk.core)));
        }
    }

    /// Figures for the house.
    fn publish(&mut self) {
        let log = self.desk.log.stats();
        self.desk.watch_space(log.segments_free, log.segments);
        let queue = self.relay.counts();
        let as_u64 = |n: usize| n as u64;
        let metrics = &mut self.desk.stream.metrics;
        metrics.set(Gauge::Sessions, u64::from(self.loads[self.desk.core].load(Ordering::Relaxed)));
        metrics.set(Gauge::Hops, as_u64(self.relay.connections()));
        metrics.set(Gauge::QueueMessages, as_u64(log.messages));
        metrics.set(Gauge::QueueDue, as_u64(queue.active));
        metrics.set(Gauge::Segments, as_u64(log.segments));
        metrics.set(Gauge::SegmentsFree, as_u64(log.segments_free));
        metrics.set(Gauge::LogOctets, self.desk.stream.maillog.outlet().waiting_octets());
        let grown = |counter, now: u64| now.saturating_sub(metrics.get(counter));
        let (batches, octets) = (
            grown(Counter::SpoolBatches, log.batches),
            grown(Counter::SpoolOctets, log.bytes_written),
        );
        metrics.add(Counter::SpoolBatches, batches);
        metrics.add(Counter::SpoolOctets, octets);
        let lost = self.desk.stream.maillog.outlet().lines_lost();
        let lost = lost.saturating_sub(metrics.get(Counter::LogLinesLost));
        metrics.add(Counter::LogLinesLost, lost);
        let l = log.ledger;
        metrics.set_ledger([
            l.accepted,
            l.generated,
            l.delivered,
            l.handed_over,
            l.bounced,
            l.double_bounces,
            l.removed,
            l.held,
            l.queued,
        ]);
        metrics.publish();
    }

    fn post_all(&mut self, core: &mut Core<ToCore>) {
        for letter in std::mem::take(&mut self.desk.outbox) {
            // A full mailbox loses look-ups and hints; those who wait for them have a time limit.
            match letter {
                Letter::Core(n, mail) => {
                    let _ = core.post(&self.desk.cores[n], mail);
                }
                Letter::House(mail) => {
                    let lost = core.post(&self.desk.house, mail).err();
                    // These must come.
                    let lost = lost.filter(|mail| {
                        matches!(mail, ToHouse::MemberFails(..) | ToHouse::MemberFilled(..))
                    });
                    self.desk.outbox.extend(lost.map(Letter::House));
                }
            }
        }
    }

    fn arm(&mut self, core: &mut Core<ToCore>) {
        let lines = (self.desk.stream.maillog.outlet().waiting_octets() > 0)
            .then(|| self.lines_told_us.saturating_add(LINES_US));
        let names = self.desk.names.as_mut().and_then(Names::deadline);
        let clerk = self.clerk.deadline(&self.desk);
        let due = [self.desk.log.deadline(), self.relay.deadline(&self.desk), lines, names, clerk];
        let due = due.into_iter().flatten().min().unwrap_or(u64::MAX);
        if due < self.work_due_us && core.set_timer(due, WORK).is_some() {
            self.work_due_us = due;
        }
    }
}

impl Handler<ToCore> for Shard {
    fn event(&mut self, core: &mut Core<ToCore>, event: Event<'_, ToCore>) {
        self.clock(core);
        match event {
            Event::Accepted { conn, listener, peer, local } => {
                let listener = usize::try_from(listener).unwrap_or(0);
                self.accepted(core, Arrival { conn, listener, peer, local });
            }
            Event::Overflow { fd, listener, peer } => self.overflow(core, fd, listener, peer),
            Event::Received { conn, bytes } if self.is_client(conn) => {
                self.session(core, conn, |session, core, desk| session.received(core, desk, bytes));
            }
            Event::Received { conn, bytes } => {
                self.relay.received(core, &mut self.desk, conn, bytes);
            }
            Event::Connected { conn, result } => {
                if let Some(slot) = self.slots.get_mut(conn.index()) {
                    *slot = Slot::Backend;
                }
                self.relay.connected(core, &mut self.desk, conn, &result);
            }
            Event::Eof { conn } if self.is_client(conn) => {
                self.session(core, conn, Session::end_of_input);
            }
            Event::Broken { conn, .. } if self.is_client(conn) => {
                self.session(core, conn, |session, _, desk| session.broken(desk));
            }
            Event::Eof { conn } | Event::Broken { conn, .. } => {
                self.relay.ended(core, &mut self.desk, conn);
            }
            Event::Drained { conn } if self.is_client(conn) => {
                self.session(core, conn, Session::drained);
            }
            Event::Drained { conn } => self.relay.drained(core, &mut self.desk, conn),
            Event::ConnTimer { conn } if self.is_client(conn) => {
                self.session(core, conn, Session::timer);
            }
            Event::ConnTimer { conn } => self.relay.conn_timer(core, &mut self.desk, conn),
            Event::Closed { conn } => self.closed(core, conn),
            Event::Timer { token: DRAIN } => self.cut(core),
            Event::Timer { token: CHORES } => self.chores(core),
            Event::Timer { .. } => self.work_due_us = u64::MAX,
            Event::DiskDone { token, result, buffer } => {
                if let Some(done) = self.disk.completion(core, token, result, buffer) {
                    self.desk.log.completed(done, self.desk.now_us);
                }
            }
            Event::Datagram { socket, bytes } => {
                self.names(core, |names, core| names.datagram(core, socket, bytes));
            }
            Event::DatagramFailed { socket, .. } => {
                self.names(core, |names, core| names.unreachable(core, socket));
            }
            Event::ListenerClosed { error: Some(error), .. } => {
                let text = format!("a listener ended: {error}");
                self.desk.tell(&events::Event::Alarmed(Alarm::Stalled, &text));
            }
            Event::ListenerClosed { .. } => {}
            Event::Mail(mail) => self.mail(core, mail),
        }
        tally::nobody();
    }

    fn turn_end(&mut self, core: &mut Core<ToCore>) {
        self.clock(core);
        self.names(core, Names::expire);
        self.log_events(core);
        self.clerk.turn(&mut self.desk, &mut self.relay);
        self.relay.turn(core, &mut self.desk);
        let (now_us, wall_us) = (self.desk.now_us, self.desk.records_wall_us);
        let mut disk = self.disk.with(core);
        disk.retry();
        while let Some(done) = self.disk.next_answer() {
            self.desk.log.completed(done, now_us);
        }
        let mut disk = self.disk.with(core);
        self.desk.log.turn(&mut disk, now_us, wall_us);
        self.log_events(core);
        if self.draining {
            self.finish();
        }
        self.log_lines();
        self.post_all(core);
        self.arm(core);
        if self.desk.stopped {
            core.stop();
        }
    }
}

fn alarm_text(alarm: &log::Alarm) -> (Alarm, String) {
    match alarm {
        log::Alarm::WriteFailed { member, offset, error } => {
            (Alarm::Device, format!("device {member}: write at {offset} failed: {error}"))
        }
        log::Alarm::Failed => (
            Alarm::Device,
            "the log cannot be written: mail is answered 451 until it can".to_owned(),
        ),
        log::Alarm::Recovered => (Alarm::Device, "the log can be written again".to_owned()),
        log::Alarm::MemberOut(member) => {
            (Alarm::Device, format!("device {member} is out: mail goes on without it"))
        }
        log::Alarm::CopyDamaged { member, segment, offset } => (
            Alarm::Corruption,
            format!(
                "device {member}: a record in segment {segment:?} at {offset} does not check; the \
                 other copy does. `ringpost spool repair` heals it"
            ),
        ),
        log::Alarm::Unreadable { id, segment, offset } => (
            Alarm::Corruption,
            format!("message {id}: record in segment {segment:?} at {offset} is unreadable"),
        ),
    }
}
