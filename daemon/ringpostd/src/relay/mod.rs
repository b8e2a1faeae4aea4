//! From the log to the next hops: what is due, over which connection, what becomes of it.
//!
//! *Guarantees.* A recipient leaves the log only with a 2yz after the whole content, with a report
//! to its sender in the same batch, or by the rules for null senders. What a crash interrupts is
//! tried again.
//! *Limits.* [`JOBS_MAX`] attempts at once, each destination's window, [`FRESH_OCTETS_MAX`] of
//! messages kept in memory for their first attempt.
//! *Failure.* A host that does not answer is left for the next one; a destination without one is
//! closed for a while, and its backlog with it.
//! *Not here.* The order of attempts (`queue`), the dialogue (`smtp::client`), hosts (`route`).

mod job;
mod elsewhere;
mod report;
mod settle;
mod start;
mod links;
mod operate;
mod moves;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use engine::{Conn, Core};
use spool::id::TransactionId;
use spool::live::Live;
use spool::log::{Content, ReadData, ReadError};
use spool::message::Envelope;
use spool::record::RecipientState;

use crate::config::Config;
use crate::desk::Desk;
use crate::events::Event;
use crate::outbound::Link;
use crate::post::ToCore;
use crate::queue::{self, Handle, Item, Names, Queue};
use crate::retry::{Schedule, Wall};
use crate::route::Named;
use crate::tls::ClientTls;

use job::{Job, domain_of};
pub use operate::Acted;

/// Attempts of one core at once.
const JOBS_MAX: usize = 1024;
/// Messages of one core that may wait for delivery.
const MESSAGES_MAX: usize = 1 << 20;
/// Octets of messages kept in memory until their first attempt has ended.
const FRESH_OCTETS_MAX: usize = 64 << 20;
/// A message larger than this is read from the log even for its first attempt.
const FRESH_MESSAGE_MAX: usize = 64 << 10;
/// Attempts begun in one turn.
const STARTS_MAX: usize = 64;
/// Messages whose sender was told of the delay; forgotten beyond it.
const WARNED_MAX: usize = 65_536;

/// The destination of messages from the run before that were not read yet.
const UNSORTED: &[u8] = b"unsorted";

/// Why the log reads.
#[derive(Debug, Clone, Copy)]
enum Reads {
    Message(usize),
    Chunk(usize, u32),
}

/// A message in memory for its first attempt.
#[derive(Debug)]
struct Fresh {
    envelope: Box<Envelope>,
    content: Content,
    /// Entries that have not had their first attempt.
    entries: u32,
}

/// The relay's name for a message: the queue keeps 8 octets.
#[derive(Debug, Clone, Copy)]
struct Message {
    id: TransactionId,
    entries: u32,
}

/// A report on its way into the log.
#[derive(Debug)]
struct Report {
    envelope: Box<Envelope>,
    parent: TransactionId,
    octets: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Relay {
    queue: Queue,
    names: Names,
    schedule: Schedule,
    wall: Wall,
    messages: Vec<Message>,
    messages_free: Vec<u32>,
    fresh: HashMap<u64, Fresh>,
    fresh_octets: usize,
    jobs: Vec<Option<Box<Job>>>,
    jobs_free: Vec<usize>,
    jobs_open: usize,
    links: HashMap<Conn, Box<Link>>,
    /// Connections without a message, by host.
    idle: HashMap<SocketAddr, Vec<Conn>>,
    open: HashMap<SocketAddr, u32>,
    /// With the message it is for: its place may have become another's when the answer comes.
    reads: HashMap<u64, (TransactionId, Reads)>,
    reports: HashMap<u64, Report>,
    warned: HashSet<TransactionId>,
    client: Arc<smtp::client::Settings>,
    tls: ClientTls,
    /// Jobs that wait for a connection, a way or a place.
    resolving: Vec<usize>,
    probed_us: u64,
    draining: bool,
    /// Messages to be given up, and the act that wants it.
    condemned: HashMap<TransactionId, u64>,
    /// How many of them each act has left.
    giving_up: HashMap<u64, usize>,
    /// What the operator moved and the log has not written yet, by the token of its answer.
    moving: HashMap<u64, moves::Moving>,
    /// The messages of it: until then nothing is tried with them.
    at_rest: HashSet<TransactionId>,
    /// How far the held entries were looked at since standing orders changed.
    waking: Option<usize>,
    poison: Option<Box<[u8]>>,
}

/// What the config says of retries.
#[must_use]
pub fn schedule(config: &Config) -> Schedule {
    let retry = &config.retry;
    Schedule {
        first_us: retry.first_s.us(),
        factor_percent: percent(retry.factor),
        max_us: retry.max_s.us(),
        jitter_percent: percent(retry.jitter),
        give_up_us: retry.expire_s.us(),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the config bounds factors to 0..=100"
)]
fn percent(factor: f64) -> u32 {
    (factor * 100.0).round() as u32
}

/// What the config says of connections to next hops.
#[must_use]
pub fn client_settings(config: &Config) -> smtp::client::Settings {
    let t = &config.timeouts_out;
    smtp::client::Settings {
        timeouts: smtp::client::Timeouts {
            connect_us: t.connect_s.us(),
            greeting_us: t.banner_s.us(),
            ehlo_us: t.ehlo_s.us(),
            tls_us: t.starttls_s.us(),
            mail_us: t.mail_s.us(),
            rcpt_us: t.rcpt_s.us(),
            data_us: t.data_s.us(),
            block_us: t.block_s.us(),
            dot_us: t.dot_s.us(),
            rset_us: t.rset_s.us(),
            quit_us: t.quit_s.us(),
            idle_us: t.idle_s.us(),
        },
        // It was accepted; a server that does not say 8BITMIME still takes it.
        eight_bit: smtp::client::EightBit::Send,
        ..smtp::client::Settings::new(config.node.hostname.as_str())
    }
}

impl Relay {
    /// An empty relay. `newest_wall_us` is the time of the log's newest record.
    #[must_use]
    pub fn new(
        config: &Config,
        cores: usize,
        tls: &ClientTls,
        newest_wall_us: Option<u64>,
        now_us: u64,
        wall_us: u64,
    ) -> Self {
        let mut wall = Wall::new(now_us, wall_us, newest_wall_us);
        if config.clock.confirmed {
            wall.confirm();
        }
        let most = config.routes.iter().map(|route| route.connections_max).max().unwrap_or(20);
        let cores = u32::try_from(cores).unwrap_or(1).max(1);
        let window = u16::try_from((most / cores).max(1)).unwrap_or(u16::MAX);
        let settings = queue::Settings {
            capacity: MESSAGES_MAX,
            active_max: JOBS_MAX,
            window_max: window,
            closed: schedule(config),
        };
        Self {
            queue: Queue::new(settings),
            names: Names::default(),
            schedule: schedule(config),
            wall,
            messages: Vec::new(),
            messages_free: Vec::new(),
            fresh: HashMap::new(),
            fresh_octets: 0,
            jobs: Vec::new(),
            jobs_free: Vec::new(),
            jobs_open: 0,
            links: HashMap::new(),
            idle: HashMap::new(),
            open: HashMap::new(),
            reads: HashMap::new(),
            reports: HashMap::new(),
            warned: HashSet::new(),
            client: Arc::new(client_settings(config)),
            tls: tls.for_core(),
            resolving: Vec::new(),
            probed_us: 0,
            draining: false,
            condemned: HashMap::new(),
            giving_up: HashMap::new(),
            moving: HashMap::new(),
            at_rest: HashSet::new(),
            waking: None,
            poison: std::env::var_os("RINGPOST_TEST_POISON")
                .map(|text| text.into_encoded_bytes().into()),
        }
    }

    /// Puts in a message that the log already held. Where it goes is seen when it is read: until
    /// then it belongs to no destination.
    pub fn restore(&mut self, desk: &mut Desk, live: &Live) {
        let wait_wall = u64::from(live.next_wall_s) * 1_000_000;
        // A clock that lies must not hold mail for years: no wait is longer than the longest.
        let wait = wait_wall.saturating_sub(desk.wall_us).min(self.schedule.max_us);
        let age = desk.wall_us.saturating_sub(u64::from(live.received_wall_s) * 1_000_000);
        if age > desk.config().retry.delay_warning_s.us() {
            self.note_warned(live.id);
        }
        let number = self.names.intern(UNSORTED).expect("the first name has a number");
        let message = self.name(Message { id: live.id, entries: 1 });
        let expires_us = self.expires_us(desk, live.id);
        let due_us = desk.now_us + wait;
        let handle = self.queue.restore(Item { message, destination: number, due_us, expires_us });
        if live.is_held() {
            self.hold(handle);
        }
    }

    /// A message is durable: it is due now. Its content may still be in memory.
    pub fn arrived(
        &mut self,
        desk: &mut Desk,
        id: TransactionId,
        envelope: Box<Envelope>,
        content: Option<Content>,
    ) {
        let domains = domains(&envelope);
        // The health check looks at its message before it is gone.
        let looked_at = domains.iter().any(|domain| desk.door.is(domain));
        if !looked_at && domains.iter().all(|domain| desk.ways.discards(domain).is_some()) {
            if let Some(content) = content {
                desk.log.recycle(content);
            }
            return discard(desk, id, &envelope);
        }
        let held = looked_at || envelope.flags & spool::message::flags::HELD != 0;
        let (message, entries) = self.insert(desk, id, &domains, desk.now_us, held);
        let Some(content) = content else { return };
        let octets = content.header.len() + content.body.len();
        if octets <= FRESH_MESSAGE_MAX && self.fresh_octets + octets <= FRESH_OCTETS_MAX && !held {
            self.fresh_octets += octets;
            self.fresh.insert(message, Fresh { envelope, content, entries });
        }
    }

    /// One entry for each destination of the message.
    fn insert(
        &mut self,
        desk: &Desk,
        id: TransactionId,
        domains: &[Box<str>],
        due_us: u64,
        held: bool,
    ) -> (u64, u32) {
        let mut destinations: Vec<u32> = Vec::with_capacity(1);
        for domain in domains {
            let number = self.destination(desk, domain);
            if !destinations.contains(&number) {
                destinations.push(number);
            }
        }
        let entries = u32::try_from(destinations.len()).unwrap_or(u32::MAX);
        let message = self.name(Message { id, entries });
        let expires_us = self.expires_us(desk, id);
        for destination in destinations {
            let item = Item { message, destination, due_us, expires_us };
            let handle = self.queue.restore(item);
            if held {
                self.hold(handle);
            }
        }
        (message, entries)
    }

    fn hold(&mut self, handle: Handle) {
        let _ = self.queue.hold(handle);
    }

    fn name(&mut self, message: Message) -> u64 {
        let index = self.messages_free.pop().unwrap_or_else(|| {
            self.messages.push(message);
            u32::try_from(self.messages.len() - 1).expect("fewer messages than u32 counts")
        });
        self.messages[index as usize] = message;
        u64::from(index)
    }

    fn message(&self, message: u64) -> TransactionId {
        self.messages[usize::try_from(message).expect("an index")].id
    }

    /// One entry of the message has left the queue.
    fn unname(&mut self, message: u64) {
        let index = usize::try_from(message).expect("an index");
        let entry = &mut self.messages[index];
        entry.entries -= 1;
        if entry.entries == 0 {
            self.messages_free.push(u32::try_from(index).expect("an index"));
        }
    }

    /// The number of the destination of a domain. A domain without a route has its own: the
    /// attempt will say what is wrong.
    fn destination(&mut self, desk: &Desk, domain: &str) -> u32 {
        let name = destination_name(desk, domain);
        let before = self.names.find(&name);
        let Some(number) = self.names.intern(&name) else {
            let queue = &self.queue;
            self.names.sweep(|number| queue.forgotten(number));
            return self.names.intern(&name).unwrap_or(0);
        };
        if before.is_none()
            && let Some(retry) = desk.hints.retry(&name, desk.wall_us)
            && retry.next_us > desk.wall_us
        {
            // What the hints still know from the run before.
            let wait = (retry.next_us - desk.wall_us).min(self.schedule.max_us);
            self.queue.close(number, desk.now_us + wait, retry.tries);
        }
        number
    }

    /// When a message is given up, on the monotonic clock.
    fn expires_us(&self, desk: &Desk, id: TransactionId) -> u64 {
        let Some(live) = desk.log.get(id) else { return u64::MAX };
        if !self.wall.trusted() || self.schedule.give_up_us == u64::MAX {
            return u64::MAX;
        }
        let end = u64::from(live.received_wall_s) * 1_000_000 + self.schedule.give_up_us;
        desk.now_us.saturating_add(end.saturating_sub(desk.wall_us))
    }

    fn note_warned(&mut self, id: TransactionId) {
        if self.warned.len() >= WARNED_MAX {
            self.warned.clear();
        }
        self.warned.insert(id);
    }

    /// Begins what is due. To be called at the end of each turn.
    pub fn turn(&mut self, core: &mut Core<ToCore>, desk: &mut Desk) {
        if self.draining {
            return;
        }
        self.wake(desk);
        self.late_resolving(core, desk);
        if !desk.orders.rules.delivering {
            return;
        }
        let mut works = Vec::new();
        let room = (JOBS_MAX - self.jobs_open).min(STARTS_MAX);
        if room > 0 {
            self.queue.next_ready(desk.now_us, room, &mut works);
        }
        for work in works {
            self.begin(core, desk, work);
        }
    }

    /// When [`Relay::turn`] must be called even if nothing happens.
    #[must_use]
    pub fn deadline(&self, desk: &Desk) -> Option<u64> {
        if self.draining {
            return None;
        }
        let begins = self.jobs_open < JOBS_MAX && desk.orders.rules.delivering;
        let due = if begins { self.queue.deadline() } else { None };
        let due = if self.waking.is_some() { Some(0) } else { due };
        let due = due.map(|due| if due == 0 { desk.now_us } else { due });
        let ways = self.resolving.iter().filter_map(|n| match self.jobs[*n].as_ref()?.stage {
            job::Stage::Resolving(until) => Some(until),
            _ => None,
        });
        due.into_iter().chain(ways).min()
    }

    /// Both clocks, at each turn that has a new time: notices steps before anything is written
    /// with the time after one.
    pub fn watch_clock(&mut self, desk: &mut Desk) {
        let (now_us, wall_us) = (desk.now_us, desk.wall_us);
        self.wall.tick(now_us, wall_us);
        desk.records_wall_us = self.wall.for_records(now_us, wall_us);
        desk.receipt_wall_us = self.wall.for_receipt(now_us, wall_us);
    }

    /// The clock is vouched for.
    pub fn clock_confirmed(&mut self, confirmed: bool) {
        if confirmed {
            self.wall.confirm();
        }
    }

    /// Other orders are in force.
    pub fn orders(&mut self, desk: &Desk) {
        let config = desk.config();
        self.schedule = schedule(config);
        self.client = Arc::new(client_settings(config));
        self.waking = Some(0);
        if config.clock.confirmed {
            self.wall.confirm();
        }
    }

    /// The log read something; false if it was not for the relay.
    pub fn read(
        &mut self,
        core: &mut Core<ToCore>,
        desk: &mut Desk,
        token: u64,
        result: Result<ReadData, ReadError>,
    ) -> Option<Result<ReadData, ReadError>> {
        let Some((id, reads)) = self.reads.remove(&token) else { return Some(result) };
        let (Reads::Message(index) | Reads::Chunk(index, _)) = reads;
        if self.jobs[index].as_ref().is_none_or(|job| job.id != id) {
            return None;
        }
        match reads {
            Reads::Message(job) => self.loaded(core, desk, job, result),
            Reads::Chunk(job, chunk) => self.got_chunk(core, desk, job, chunk, result),
        }
        None
    }

    /// No new attempts; connections without a message are ended.
    pub fn drain(&mut self, core: &mut Core<ToCore>, desk: &mut Desk) {
        self.draining = true;
        let links: Vec<Conn> = self.links.keys().copied().collect();
        for conn in links {
            if let Some(link) = self.links.get_mut(&conn) {
                link.machine().quit(desk.now_us);
            }
            self.run(core, desk, conn);
        }
    }

    /// Gives up what is still under way: it stays in the log.
    pub fn cut(&mut self, core: &mut Core<ToCore>, desk: &mut Desk) {
        let links: Vec<Conn> = self.links.keys().copied().collect();
        for conn in links {
            if let Some(link) = self.links.get_mut(&conn) {
                link.machine().abandon(desk.now_us, "the daemon stops");
            }
            self.run(core, desk, conn);
        }
        for index in 0..self.jobs.len() {
            if self.jobs[index].as_ref().is_some_and(|job| job.stage != job::Stage::Over) {
                self.put_off(desk, index);
            }
        }
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.jobs_open == 0 && self.links.is_empty() && self.reports.is_empty()
    }

    /// Entries waiting, being sent, held.
    #[must_use]
    pub fn counts(&self) -> queue::Counts {
        self.queue.counts()
    }

    /// Connections to next hops.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.links.len()
    }

    /// A connection event of the engine that is none of a client's.
    pub fn connected(
        &mut self,
        core: &mut Core<ToCore>,
        desk: &mut Desk,
        conn: Conn,
        result: &io::Result<()>,
    ) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.connected(desk.now_us, result);
        }
        self.run(core, desk, conn);
    }

    /// See [`Relay::connected`].
    pub fn received(
        &mut self,
        core: &mut Core<ToCore>,
        desk: &mut Desk,
        conn: Conn,
        bytes: &mut [u8],
    ) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.received(core, desk.now_us, bytes);
        }
        self.run(core, desk, conn);
    }

    /// See [`Relay::connected`]: the other side ended, or the connection broke.
    pub fn ended(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, conn: Conn) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.ended(desk.now_us);
        }
        self.run(core, desk, conn);
    }

    /// See [`Relay::connected`].
    pub fn drained(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, conn: Conn) {
        self.run(core, desk, conn);
    }

    /// See [`Relay::connected`].
    pub fn conn_timer(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, conn: Conn) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.timer(core, desk.now_us);
        }
        self.run(core, desk, conn);
    }

    /// The connection is gone; its slot may be used again.
    pub fn closed(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, conn: Conn) {
        self.ended(core, desk, conn);
        if let Some(link) = self.links.remove(&conn) {
            let address = link.hop().address;
            if let Some(count) = self.open.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    self.open.remove(&address);
                }
            }
            self.not_idle(address, conn);
        }
    }
}

/// Every route of the message throws it away.
fn discard(desk: &mut Desk, id: TransactionId, envelope: &Envelope) {
    let _ = desk.log.done_all(id, RecipientState::Removed, None, desk.now_us);
    let text = crate::desk::id_text(id);
    let queue_us = desk.wall_us.saturating_sub(envelope.received_wall_us);
    desk.tell(&Event::Completed { id: &text, queue_us });
}

/// The domains of a message's recipients that are still to be served, each once; in the place of a
/// domain, for recipients that the operator moved, the host's name as [`Named`] writes it.
#[must_use]
pub fn domains(envelope: &Envelope) -> Vec<Box<str>> {
    let mut domains: Vec<Box<str>> = Vec::with_capacity(1);
    for (n, r) in envelope.recipients.iter().enumerate().filter(|(_, r)| !r.state.is_final()) {
        let domain: Box<str> = match Named::of(&r.route) {
            Some(named) => named.text().into(),
            None => {
                domain_of(job::address_of(envelope, u16::try_from(n).unwrap_or(u16::MAX))).into()
            }
        };
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    domains
}

/// The name of the destination of one of [`domains`].
fn destination_name(desk: &Desk, domain: &str) -> Box<[u8]> {
    if let Some(named) = Named::of(domain.as_bytes()) {
        return named.destination();
    }
    match desk.ways.route(domain) {
        Some(route) => route.destination(0, domain),
        None => [b"none/", domain.as_bytes()].concat().into(),
    }
}
