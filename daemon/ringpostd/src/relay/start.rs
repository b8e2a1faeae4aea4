//! The beginning of an attempt: the message is read, its way found, a connection taken.

use std::net::SocketAddr;
use std::sync::Arc;

use engine::Core;
use hints::{Hints, Kind, What};
use smtp::client::{Client, TlsPolicy};
use spool::live::Live;
use spool::log::{Part, ReadData, ReadError};

use super::elsewhere::{stricter, way};
use super::job::{Fate, Job, Source, Stage, address_of, domain_of};
use super::{Reads, Relay, UNSORTED, domains};
use crate::desk::{Desk, Letter};
use crate::events::{Alarm, Event, Reason};
use crate::outbound::{Hop, Link};
use crate::post::{ToCore, ToHouse};
use crate::queue::{Outcome, Work};
use crate::route::{NextHop, Plan, Route, Target};
use crate::ways::{Ask, hop_key};

/// How long a look-up may take before the attempt is put off.
const RESOLVE_US: u64 = 60_000_000;
/// An attempt that found no free connection or read is made again after this.
pub(super) const BUSY_US: u64 = 200_000;
/// How often hosts of static routes are asked for what they offer while that is not known.
const PROBE_US: u64 = 60_000_000;
/// Offers are asked for again at this age, well before the hints forget them.
const OFFERS_AGE_US: u64 = 3_600_000_000;

impl Relay {
    pub(super) fn begin(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, work: Work) {
        let id = self.message(work.message);
        if desk.log.get(id).is_none() {
            // Removed, or finished by another entry.
            self.leave(desk, &work);
            return;
        }
        if self.is_poison(desk, id) {
            return self.freeze(desk, &work, id);
        }
        if self.rests(id) {
            return self.let_rest(desk, &work, id);
        }
        if desk.log.get(id).is_some_and(Live::is_held) {
            self.queue.finished(work.handle, desk.now_us, Outcome::Hold, &self.wall, 0);
            return;
        }
        let mut job = Box::new(Job::new(work, id, desk.now_us));
        let fresh = self.fresh.get_mut(&work.message);
        let index = match fresh {
            Some(fresh) => {
                // The last entry takes the message; others before it get a copy.
                fresh.entries -= 1;
                let (envelope, content) = if fresh.entries == 0 {
                    let fresh = self.fresh.remove(&work.message).expect("it was there just now");
                    let octets = fresh.content.header.len() + fresh.content.body.len();
                    self.fresh_octets -= octets;
                    (fresh.envelope, fresh.content)
                } else {
                    (fresh.envelope.clone(), fresh.content.clone())
                };
                job.source = Source::from_memory(content, &envelope);
                job.envelope = Some(envelope);
                self.place(job)
            }
            None => {
                let index = self.place(job);
                self.ask_log(desk, index, Reads::Message(index), Part::Message);
                return;
            }
        };
        self.route_job(core, desk, index);
    }

    /// A message that a core fell over with twice.
    fn is_poison(&self, desk: &Desk, id: spool::id::TransactionId) -> bool {
        let key = crate::tally::message_key(id);
        desk.hints.note(&key, desk.wall_us).is_some_and(|note| note.count >= 2)
    }

    fn freeze(&mut self, desk: &mut Desk, work: &Work, id: spool::id::TransactionId) {
        let text = format!("message {id} was under way when the daemon fell, twice: frozen");
        desk.tell(&Event::Alarmed(Alarm::Poison, &text));
        let id_text = id.to_string();
        desk.tell(&Event::Held { id: &id_text, why: "poison" });
        let _ = desk.log.hold_message(id, true, None, desk.now_us);
        self.queue.finished(work.handle, desk.now_us, Outcome::Hold, &self.wall, 0);
    }

    fn place(&mut self, job: Box<Job>) -> usize {
        self.jobs_open += 1;
        if let Some(index) = self.jobs_free.pop() {
            self.jobs[index] = Some(job);
            return index;
        }
        self.jobs.push(Some(job));
        self.jobs.len() - 1
    }

    /// An entry whose message is gone.
    fn leave(&mut self, desk: &Desk, work: &Work) {
        if let Some(fresh) = self.fresh.get_mut(&work.message) {
            fresh.entries -= 1;
            if fresh.entries == 0
                && let Some(fresh) = self.fresh.remove(&work.message)
            {
                self.fresh_octets -= fresh.content.header.len() + fresh.content.body.len();
            }
        }
        self.queue.finished(work.handle, desk.now_us, Outcome::Done, &self.wall, 0);
        self.unname(work.message);
    }

    /// Asks the log for a part; too many reads at once put the attempt off.
    pub(super) fn ask_log(&mut self, desk: &mut Desk, index: usize, reads: Reads, part: Part) {
        let Some(id) = self.jobs[index].as_ref().map(|job| job.id) else { return };
        let token = desk.next_token();
        match desk.log.read(id, part, token) {
            Ok(()) => {
                self.reads.insert(token, (id, reads));
            }
            Err(error) => self.unreadable(desk, index, &error),
        }
    }

    /// The log reads nothing now, or never will: `Unknown` is a message that is gone.
    fn unreadable(&mut self, desk: &mut Desk, index: usize, error: &ReadError) {
        match error {
            ReadError::Unknown => {
                let job = self.remove(index);
                self.queue.finished(job.handle(), desk.now_us, Outcome::Done, &self.wall, 0);
                self.unname(job.work.message);
            }
            ReadError::Damaged => self.damaged(desk, index),
            ReadError::Busy | ReadError::Disk(_) => self.put_off(desk, index),
        }
    }

    /// What stands in the log does not check, on no copy: it waits for the operator.
    pub(super) fn damaged(&mut self, desk: &mut Desk, index: usize) {
        let job = self.remove(index);
        let text = format!("message {} cannot be read: frozen", job.id);
        desk.tell(&Event::Alarmed(Alarm::Corruption, &text));
        self.queue.finished(job.handle(), desk.now_us, Outcome::Hold, &self.wall, 0);
    }

    pub(super) fn loaded(
        &mut self,
        core: &mut Core<ToCore>,
        desk: &mut Desk,
        index: usize,
        result: Result<ReadData, ReadError>,
    ) {
        let Some(job) = self.jobs[index].as_mut() else { return };
        match result {
            Ok(ReadData::Message(mut stored)) => {
                job.source = Source::from_log(&mut stored);
                job.envelope = Some(Box::new(stored.envelope));
                if self.names.find(UNSORTED) == Some(job.work.destination) {
                    return self.sort(desk, index);
                }
                self.route_job(core, desk, index);
            }
            Ok(ReadData::Chunk(_)) | Err(ReadError::Unknown) => {
                // Finished while it was being read.
                let job = self.remove(index);
                self.queue.finished(job.handle(), desk.now_us, Outcome::Done, &self.wall, 0);
                self.unname(job.work.message);
            }
            Err(ReadError::Busy | ReadError::Disk(_)) => self.put_off(desk, index),
            Err(ReadError::Damaged) => self.damaged(desk, index),
        }
    }

    /// A message of the run before goes to where it belongs, and is due there.
    fn sort(&mut self, desk: &mut Desk, index: usize) {
        let job = self.remove(index);
        let domains = job.envelope.as_deref().map(domains).unwrap_or_default();
        if !domains.is_empty() {
            self.insert(desk, job.id, &domains, desk.now_us, false);
        }
        self.queue.finished(job.handle(), desk.now_us, Outcome::Done, &self.wall, 0);
        self.unname(job.work.message);
    }

    pub(super) fn remove(&mut self, index: usize) -> Box<Job> {
        let job = self.jobs[index].take().expect("a job is removed once");
        self.jobs_free.push(index);
        self.jobs_open -= 1;
        self.resolving.retain(|n| *n != index);
        job
    }

    /// Finds the recipients of this entry and the way to them.
    pub(super) fn route_job(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, index: usize) {
        if let Some(job) = self.jobs[index].as_deref() {
            self.check_poison(job);
        }
        let Some(job) = self.jobs[index].as_mut() else { return };
        let Some(envelope) = job.envelope.as_deref() else { return };
        let live = desk.log.get(job.id);
        let name = self.names.name(job.work.destination).unwrap_or_default();
        let mut route: Option<Arc<Route>> = None;
        let condemned = self.condemned.contains_key(&job.id);
        for n in 0..u16::try_from(envelope.recipients.len()).unwrap_or(u16::MAX) {
            if !live.is_some_and(|live| live.is_pending(n)) {
                continue;
            }
            let domain = domain_of(address_of(envelope, n));
            let (found, own) = way(desk, envelope, n, &domain);
            if *own == *name && desk.orders.rules.holds(&domain) && !condemned {
                job.kept_back = true;
            } else if *own == *name {
                job.left.push(n);
                route = stricter(route, found);
                job.domain = domain.into();
            }
        }
        if job.left.is_empty() && job.kept_back {
            return self.keep_back(desk, index);
        }
        if job.left.is_empty() {
            return self.resort(desk, index);
        }
        if condemned {
            let reason = Reason::Operator;
            job.end_all(Fate::Failed(reason), reason.text(), None);
            return self.settle(desk, index);
        }
        let received = envelope.received_wall_us;
        let age = self.wall.age(desk.wall_us, received, job.work.tries);
        if job.work.expired && age.may_expire {
            let reason = Reason::Expired;
            job.end_all(Fate::Failed(reason), reason.text(), None);
            return self.settle(desk, index);
        }
        let Some(route) = route else {
            let reason = Reason::NoRoute;
            job.end_all(Fate::Failed(reason), reason.text(), None);
            return self.settle(desk, index);
        };
        // The operator may have moved it further down than its age does.
        let last = u8::try_from(route.tiers.len().saturating_sub(1)).unwrap_or(u8::MAX);
        let moved = live.map_or(0, |live| live.tier);
        job.tier = route.tier(age.age_us).0.max(moved).min(last);
        job.route = Some(route);
        self.find_way(core, desk, index);
    }

    /// None of the recipients left belongs here (any more): the routes have changed.
    fn resort(&mut self, desk: &mut Desk, index: usize) {
        let Some(job) = self.jobs[index].as_ref() else { return };
        let pending = desk.log.get(job.id).is_some();
        let envelope = job.envelope.as_deref();
        let left: Vec<Box<str>> = match (pending, envelope) {
            (true, Some(envelope)) if self.messages_entries(job.work.message) == 1 => {
                domains(envelope)
            }
            _ => Vec::new(),
        };
        let job = self.remove(index);
        if !left.is_empty() {
            self.insert(desk, job.id, &left, desk.now_us, false);
        }
        self.queue.finished(job.handle(), desk.now_us, Outcome::Done, &self.wall, 0);
        self.unname(job.work.message);
    }

    fn messages_entries(&self, message: u64) -> u32 {
        self.messages[usize::try_from(message).expect("an index")].entries
    }

    /// For tests of what happens after a crash: a message that has this text in its header.
    fn check_poison(&self, job: &Job) {
        let Some(poison) = &self.poison else { return };
        let header = job.source.header();
        let planted = !poison.is_empty() && header.windows(poison.len()).any(|w| *w == **poison);
        crate::tally::message(job.id);
        assert!(!planted, "RINGPOST_TEST_POISON is set and stands in this message");
    }

    fn find_way(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, index: usize) {
        let Some(job) = self.jobs[index].as_mut() else { return };
        let Some(route) = job.route.clone() else { return };
        let Some(tier) = route.tiers.get(usize::from(job.tier)) else { return };
        if let NextHop::Discard { .. } = tier.next_hop {
            job.end_all(Fate::Discarded, "discarded by the route", None);
            return self.settle(desk, index);
        }
        let seed = desk.random.next_u64();
        let (hints, wall_us) = (desk.hints, desk.wall_us);
        let down = |address: SocketAddr| down_until(hints, address, wall_us);
        let up = |_: SocketAddr| 0;
        let plan = desk.ways.plan(tier, &job.domain, wall_us, seed, &down);
        // With every host down one is tried all the same: the queue spaces out the attempts.
        let plan = match plan {
            Some(Plan::Down(_)) => desk.ways.plan(tier, &job.domain, wall_us, seed, &up),
            plan => plan,
        };
        match plan {
            None => {
                let until = desk.now_us.saturating_add(RESOLVE_US);
                job.stage = Stage::Resolving(until);
                self.resolving.push(index);
                let ask = desk.ways.asks(tier, &job.domain, wall_us);
                ask_house(desk, ask);
            }
            Some(Plan::Try(targets)) => {
                job.hops = hops(targets);
                self.connect(core, desk, index);
            }
            Some(Plan::Down(_)) => self.put_off(desk, index),
            Some(Plan::Later(refusal)) => {
                let text = format!("{} {} {}", refusal.code, refusal.enhanced, refusal.text);
                job.end_all(Fate::Deferred(Reason::DnsTrouble), &text, None);
                self.settle(desk, index);
            }
            Some(Plan::Refused(refusal)) => {
                let text = format!("{} {} {}", refusal.code, refusal.enhanced, refusal.text);
                let reason = match refusal.code {
                    556 => Reason::NullMx,
                    554 => Reason::RouteLoop,
                    _ => Reason::NoHost,
                };
                job.end_all(Fate::Failed(reason), &text, None);
                self.settle(desk, index);
            }
        }
    }

    /// A domain's or host's answer came.
    pub fn found(&mut self, core: &mut Core<ToCore>, desk: &mut Desk) {
        for index in std::mem::take(&mut self.resolving) {
            let waiting = self.jobs[index]
                .as_ref()
                .is_some_and(|job| matches!(job.stage, Stage::Resolving(_)));
            if waiting {
                self.find_way(core, desk, index);
            }
        }
    }

    pub(super) fn late_resolving(&mut self, _core: &mut Core<ToCore>, desk: &mut Desk) {
        let late: Vec<usize> = self
            .resolving
            .iter()
            .copied()
            .filter(|n| {
                self.jobs[*n].as_ref().is_some_and(
                    |job| matches!(job.stage, Stage::Resolving(until) if until <= desk.now_us),
                )
            })
            .collect();
        for index in late {
            if let Some(job) = self.jobs[index].as_mut() {
                let reason = Reason::DnsTrouble;
                job.end_all(Fate::Deferred(reason), reason.text(), None);
            }
            self.settle(desk, index);
        }
    }

    /// Takes a connection to the best host not tried yet.
    pub(super) fn connect(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, index: usize) {
        loop {
            let Some(job) = self.jobs[index].as_mut() else { return };
            let Some(hop) = job.hops.pop() else { return self.no_host_left(desk, index) };
            let most = job.route.as_ref().map_or(1, |route| route.connections_max);
            if let Some(conn) = self.take_idle(&hop) {
                return self.send_over(core, desk, index, conn);
            }
            let open = self.open.get(&hop.address).copied().unwrap_or(0);
            let cores = u32::try_from(desk.cores.len()).unwrap_or(1).max(1);
            if open >= (most / cores).max(1) {
                let Some(job) = self.jobs[index].as_mut() else { return };
                let text: Box<str> = Reason::HopBusy.text().into();
                job.failure.get_or_insert((Reason::HopBusy, text, None));
                continue;
            }
            let deadline = desk.now_us.saturating_add(self.client.timeouts.connect_us);
            match core.connect(hop.address, None, deadline) {
                Ok(conn) => {
                    *self.open.entry(hop.address).or_insert(0) += 1;
                    let machine = Client::new(Arc::clone(&self.client), hop.tls, desk.now_us);
                    let mut link = Box::new(Link::new(conn, hop, machine, desk.now_us));
                    link.job = Some(index);
                    self.links.insert(conn, link);
                    if let Some(job) = self.jobs[index].as_mut() {
                        job.stage = Stage::Sending(conn);
                    }
                    return;
                }
                // All slots for outgoing connections are in use.
                Err(_) => return self.put_off(desk, index),
            }
        }
    }

    fn no_host_left(&mut self, desk: &mut Desk, index: usize) {
        let Some(job) = self.jobs[index].as_mut() else { return };
        let (reason, text, hop) = match job.failure.take() {
            Some((Reason::HopBusy, ..)) | None => return self.put_off(desk, index),
            Some(failure) => failure,
        };
        job.unreachable = job.results.is_empty();
        job.end_all(Fate::Deferred(reason), &text, hop.as_ref());
        self.settle(desk, index);
    }

    /// Local trouble: the attempt is made again in a moment, and was none.
    pub(super) fn put_off(&mut self, desk: &mut Desk, index: usize) {
        let job = self.remove(index);
        if let Stage::Sending(conn) = job.stage
            && let Some(link) = self.links.get_mut(&conn)
        {
            link.job = None;
        }
        let outcome = Outcome::Later {
            due_us: desk.now_us.saturating_add(BUSY_US),
            expires_us: self.expires_us(desk, job.id),
        };
        self.queue.finished(job.handle(), desk.now_us, outcome, &self.wall, 0);
    }

    /// Asks the hosts of static routes what they offer, at start and when that was forgotten.
    pub fn probe(&mut self, core: &mut Core<ToCore>, desk: &mut Desk) {
        let first = self.probed_us == 0;
        if self.draining || desk.core != 0 {
            return;
        }
        if !first && desk.now_us < self.probed_us.saturating_add(PROBE_US) {
            return;
        }
        self.probed_us = desk.now_us.max(1);
        let mut asks = Vec::new();
        let mut targets: Vec<Hop> = Vec::new();
        for route in desk.ways.routes().to_vec() {
            for tier in &route.tiers {
                let NextHop::Hosts(hosts) = &tier.next_hop else { continue };
                asks.extend(desk.ways.asks(tier, "", desk.wall_us));
                for address in desk.ways.hops(hosts) {
                    let known = desk.hints.offers(&hop_key(address), desk.wall_us);
                    let old = known.is_none_or(|offers| {
                        offers.seen_us.saturating_add(OFFERS_AGE_US) < desk.wall_us
                    });
                    let busy = self.open.contains_key(&address);
                    if old && !busy && !targets.iter().any(|hop| hop.address == address) {
                        let name = hosts.first().map_or("", |host| &host.name).into();
                        targets.push(Hop { name, address, tls: tier.tls });
                    }
                }
            }
        }
        for ask in asks {
            ask_house(desk, Some(ask));
        }
        for hop in targets {
            let deadline = desk.now_us.saturating_add(self.client.timeouts.connect_us);
            if let Ok(conn) = core.connect(hop.address, None, deadline) {
                *self.open.entry(hop.address).or_insert(0) += 1;
                let machine = Client::new(Arc::clone(&self.client), hop.tls, desk.now_us);
                self.links.insert(conn, Box::new(Link::new(conn, hop, machine, desk.now_us)));
            }
        }
    }

    /// What a destination's failure means for the next run: it begins where this one stopped.
    pub(super) fn remember(&self, desk: &mut Desk, destination: u32, reason: Reason, text: &str) {
        let Some(name) = self.names.name(destination).map(<[u8]>::to_vec) else { return };
        let Some(standing) = self.queue.standing(destination) else { return };
        if standing.closed_until_us == 0 {
            return;
        }
        let wait = standing.closed_until_us.saturating_sub(desk.now_us);
        let reply = reason.answer();
        let code = [u16::from(reply.enhanced.0), reply.enhanced.1, reply.enhanced.2];
        let what = What::Failed(hints::retry::Failed {
            next_us: desk.wall_us.saturating_add(wait),
            reply: hints::retry::Reply::new(reply.code, code, text.as_bytes()),
        });
        desk.hint(Kind::Retry, &name, what);
    }
}

fn down_until(hints: &Hints<'_>, address: SocketAddr, wall_us: u64) -> u64 {
    hints.health(&hop_key(address), wall_us).map_or(0, |health| health.down_until_us)
}

/// Every address of every target is a host of its own, best last.
fn hops(targets: Vec<Target>) -> Vec<Hop> {
    let mut hops: Vec<Hop> = targets
        .into_iter()
        .flat_map(|target| {
            let Target { name, addresses, tls } = target;
            addresses.into_iter().map(move |address| Hop { name: name.clone(), address, tls })
        })
        .collect();
    hops.reverse();
    hops
}

/// Posts a question to the house.
fn ask_house(desk: &mut Desk, ask: Option<Ask>) {
    let core = desk.core;
    match ask {
        Some(Ask::Mx(domain)) => desk.outbox.push(Letter::House(ToHouse::Mx(core, domain))),
        Some(Ask::Addresses(host)) => {
            desk.outbox.push(Letter::House(ToHouse::Addresses(core, host)));
        }
        None => {}
    }
}

impl Desk {
    /// Lets the house find out the way to a domain, unless it is at it.
    pub fn ask_way(&mut self, domain: &str) {
        let Some(route) = self.ways.route(domain).cloned() else { return };
        let Some(tier) = route.tiers.first() else { return };
        let ask = self.ways.asks(tier, domain, self.wall_us);
        ask_house(self, ask);
    }
}

/// What the probe and the attempts share: no TLS where a handshake just failed.
pub(super) fn in_clear(hop: &Hop) -> Hop {
    Hop { tls: TlsPolicy::Never, ..hop.clone() }
}
