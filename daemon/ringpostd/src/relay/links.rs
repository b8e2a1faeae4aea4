//! Connections at work: events of the machine, content, idle connections.

use std::net::SocketAddr;
use std::sync::Arc;

use engine::{Conn, Core};
use hints::health::{Class as HealthClass, Ended, Rule};
use hints::{Kind, What};
use smtp::client::{Class, Event, Extension, Failure, Outcome, Refusal, Stage as Step, TlsPolicy};
use spool::log::{Part, ReadData, ReadError};

use super::job::{Fate, Fed, Job, Stage, offers_of};
use super::start::in_clear;
use super::{Reads, Relay};
use crate::desk::Desk;
use crate::events::{Event as Told, Phase, Reason};
use crate::outbound::Hop;
use crate::post::ToCore;
use crate::ways::hop_key;

impl Relay {
    /// A connection without a message to this host.
    pub(super) fn take_idle(&mut self, hop: &Hop) -> Option<Conn> {
        loop {
            let conn = self.idle.get_mut(&hop.address)?.pop()?;
            // Two routes may share a host, and one of them ask for TLS.
            let usable = self.links.get(&conn).is_some_and(|link| {
                link.is_ready()
                    && link.hop().name == hop.name
                    && (hop.tls != TlsPolicy::Must || link.tls().is_some())
            });
            if usable {
                return Some(conn);
            }
        }
    }

    pub(super) fn not_idle(&mut self, address: SocketAddr, conn: Conn) {
        if let Some(idle) = self.idle.get_mut(&address) {
            idle.retain(|c| *c != conn);
            if idle.is_empty() {
                self.idle.remove(&address);
            }
        }
    }

    pub(super) fn send_over(
        &mut self,
        core: &mut Core<ToCore>,
        desk: &mut Desk,
        index: usize,
        conn: Conn,
    ) {
        if let Some(job) = self.jobs[index].as_mut() {
            job.stage = Stage::Sending(conn);
        }
        if let Some(link) = self.links.get_mut(&conn) {
            link.job = Some(index);
        }
        self.submit(desk, conn);
        self.run(core, desk, conn);
    }

    /// Gives the connection's job to its machine.
    fn submit(&mut self, desk: &mut Desk, conn: Conn) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let Some(index) = link.job else { return };
        let Some(job) = self.jobs[index].as_mut() else { return };
        job.tls = link.tls().map(|tls| (tls.version, tls.cipher));
        job.hop_reports = link.machine().offers().has(Extension::Dsn);
        let most = link.machine().recipients_max();
        let submitted = match job.transaction(most) {
            Some(envelope) => link.machine().submit(desk.now_us, envelope).is_ok(),
            None => false,
        };
        if !submitted {
            // An envelope no command can hold: it cannot be delivered by anybody.
            let reason = Reason::HopOffer;
            link.job = None;
            job.end_all(Fate::Failed(reason), "the envelope cannot be sent", None);
            self.settle(desk, index);
        }
    }

    /// Lets a connection do all it can: events, content, output.
    pub(super) fn run(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, conn: Conn) {
        loop {
            let Some(link) = self.links.get_mut(&conn) else { return };
            let Some(event) = link.next_event(core, &self.tls, desk.now_us) else {
                if self.feed(core, desk, conn) {
                    continue;
                }
                return;
            };
            match event {
                Event::Ready => self.ready(desk, conn),
                Event::Content => {}
                Event::Recipient(n, outcome) => self.outcome(desk, conn, n, outcome),
                Event::MessageEnd => self.message_end(core, desk, conn),
                Event::Closed(failure) => {
                    self.link_closed(core, desk, conn, failure);
                    return;
                }
                Event::StartTls { .. } => {}
            }
        }
    }

    /// Content for the machine, then its output to the engine. True if there may be events now.
    fn feed(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, conn: Conn) -> bool {
        loop {
            let Some(link) = self.links.get_mut(&conn) else { return false };
            if link.machine().closed() {
                return false;
            }
            let mut needs = None;
            let mut fed = false;
            let was_full = link.job.is_some() && !link.machine().want_content();
            if let Some(job) = link.job.and_then(|index| self.jobs[index].as_mut())
                && !was_full
            {
                match job.source.feed(link.machine(), desk.now_us) {
                    Fed::Enough => fed = true,
                    Fed::Needs(chunk) => needs = link.job.map(|index| (index, chunk)),
                    Fed::All => job.dot_us = desk.now_us,
                }
            }
            link.pump(core, desk.now_us);
            if link.machine().closed() {
                return true;
            }
            // Again if the machine takes more because its output went away, also when that was all
            // that happened: nobody else would come back to it.
            let again = (fed || was_full) && link.machine().want_content();
            if let Some((index, chunk)) = needs {
                let id = self.jobs[index].as_ref().map(|job| job.id);
                let mine = |(of, reads): &(_, Reads)| {
                    Some(*of) == id && matches!(reads, Reads::Chunk(i, _) if *i == index)
                };
                if !self.reads.values().any(mine) {
                    self.ask_log(desk, index, Reads::Chunk(index, chunk), Part::Chunk(chunk));
                }
            }
            if !again {
                return false;
            }
        }
    }

    pub(super) fn got_chunk(
        &mut self,
        core: &mut Core<ToCore>,
        desk: &mut Desk,
        index: usize,
        chunk: u32,
        result: Result<ReadData, ReadError>,
    ) {
        let Some(job) = self.jobs[index].as_mut() else { return };
        let Stage::Sending(conn) = job.stage else { return };
        match result {
            Ok(ReadData::Chunk(data)) => job.source.got(chunk, data),
            Err(ReadError::Damaged) => {
                if let Some(link) = self.links.get_mut(&conn) {
                    link.job = None;
                    link.machine().abandon(desk.now_us, "the content is damaged");
                }
                self.damaged(desk, index);
            }
            Ok(ReadData::Message(_)) | Err(_) => {
                if let Some(link) = self.links.get_mut(&conn) {
                    link.machine().abandon(desk.now_us, "the content cannot be read");
                }
            }
        }
        self.run(core, desk, conn);
    }

    /// The machine takes a message: what the host offers is known now.
    fn ready(&mut self, desk: &mut Desk, conn: Conn) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let address = link.hop().address;
        let offers = offers_of(link.machine().offers(), desk.wall_us);
        let (first, opened_us) = (link.machine().messages() == 0, link.opened_us());
        let busy = link.job.is_some();
        if first {
            desk.hint(Kind::Offers, &hop_key(address), What::Offered(offers));
            self.hop_ended(desk, address, HealthClass::Fine);
            let took = desk.now_us.saturating_sub(opened_us);
            desk.tell(&Told::Took(Phase::RelayConnect, took));
        }
        if busy {
            self.submit(desk, conn);
        } else if !self.draining {
            let idle = self.idle.entry(address).or_default();
            if !idle.contains(&conn) {
                idle.push(conn);
            }
        }
    }

    fn outcome(&mut self, desk: &mut Desk, conn: Conn, n: usize, outcome: Outcome) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let hop = Arc::new(link.hop().clone());
        let Some(job) = link.job.and_then(|index| self.jobs[index].as_mut()) else { return };
        let Some(recipient) = job.sent.get(n).copied() else { return };
        match outcome {
            Outcome::Delivered(reply) => {
                let took = desk.now_us.saturating_sub(job.dot_us);
                desk.tell(&Told::Took(Phase::RelayDot, took));
                job.end(recipient, Fate::Delivered, &reply.to_string(), Some(&hop));
            }
            Outcome::TempFail(refusal) if refusal.too_many => {}
            Outcome::TempFail(refusal) => {
                let fate = Fate::Deferred(Reason::HopTemporary);
                job.end(recipient, fate, &refused(&refusal), Some(&hop));
            }
            Outcome::PermFail(refusal) => {
                let fate = Fate::Failed(Reason::HopPermanent);
                job.end(recipient, fate, &refused(&refusal), Some(&hop));
            }
            Outcome::NeedsExtension(extension) => {
                // It was accepted because the host offered this before: it may again.
                let text = format!("the host does not offer {} now", extension.keyword());
                job.failure = Some((Reason::HopOffer, text.into(), Some(hop)));
            }
            Outcome::NotTried(failure) => {
                let text = failure.to_string().into();
                job.failure = Some((reason_of(&failure), text, Some(hop)));
            }
            Outcome::Unknown(failure) => {
                let fate = Fate::Deferred(Reason::HopLostAfterDot);
                job.end(recipient, fate, &failure.to_string(), Some(&hop));
            }
        }
    }

    /// All recipients of a transaction have their outcome.
    fn message_end(&mut self, core: &mut Core<ToCore>, desk: &mut Desk, conn: Conn) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        if link.machine().closed() {
            return;
        }
        let Some(index) = link.job else { return };
        let Some(job) = self.jobs[index].as_mut() else { return };
        job.sent.clear();
        if job.left.is_empty() {
            link.job = None;
            return self.settle(desk, index);
        }
        if matches!(job.failure, Some((Reason::HopOffer, ..))) {
            // Another host may offer it; this connection is free.
            link.job = None;
            self.connect(core, desk, index);
        }
        // Else more recipients than the host takes at once: `Ready` follows and takes the rest.
    }

    fn link_closed(
        &mut self,
        core: &mut Core<ToCore>,
        desk: &mut Desk,
        conn: Conn,
        failure: Option<Arc<Failure>>,
    ) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        link.pump(core, desk.now_us);
        link.close(core);
        let hop = link.hop().clone();
        let index = link.job.take();
        self.not_idle(hop.address, conn);
        if let Some(failure) = &failure
            && failure.counts_against_host()
        {
            self.hop_ended(desk, hop.address, health_of(failure.class));
        }
        let Some(index) = index else { return };
        let Some(job) = self.jobs[index].as_mut() else { return };
        job.sent.clear();
        if job.left.is_empty() {
            return self.settle(desk, index);
        }
        let Some(failure) = failure else { return self.connect(core, desk, index) };
        if failure.class == Class::Local {
            return self.put_off(desk, index);
        }
        if job.failure.is_none() {
            let text = failure.to_string().into();
            job.failure = Some((reason_of(&failure), text, Some(Arc::new(hop.clone()))));
        }
        if failure.stale {
            job.hops.push(hop);
        } else if failure.clear_may_help {
            job.hops.push(in_clear(&hop));
        }
        if failure.next_host() {
            self.connect(core, desk, index);
        } else {
            let (reason, text, hop) = job.failure.take().expect("it was set above");
            job.end_all(Fate::Deferred(reason), &text, hop.as_ref());
            self.settle(desk, index);
        }
    }

    /// A host's health after an attempt. It is left alone for less than the destination is, so
    /// that a lone host is there when the destination's time has come.
    fn hop_ended(&self, desk: &mut Desk, address: SocketAddr, class: HealthClass) {
        let rule = Rule {
            failures_min: 1,
            pause_us_min: (self.schedule.first_us / 2).max(1),
            pause_us_max: (self.schedule.max_us / 2).max(1),
        };
        let jitter = desk.random.next_u64();
        desk.hint(Kind::Health, &hop_key(address), What::Ended(Ended { class, rule, jitter }));
    }

    /// The connection of a job, for the log.
    pub(super) fn tls_of(job: &Job) -> Option<(&'static str, &'static str)> {
        job.tls
    }
}

fn refused(refusal: &Refusal) -> String {
    match refusal.stage {
        Step::Offer | Step::Dot => refusal.reply.to_string(),
        stage => format!("{} (in reply to {})", refusal.reply, stage.text()),
    }
}

fn reason_of(failure: &Failure) -> Reason {
    match (failure.class, failure.stage) {
        (Class::Refused, _) => Reason::HopRefused,
        (Class::Timeout, Step::Connect) => Reason::HopConnectTimeout,
        (Class::Timeout, _) => Reason::HopTimeout,
        (Class::LostConnection, Step::Dot) => Reason::HopLostAfterDot,
        (Class::LostConnection | Class::Closing, _) => Reason::HopLost,
        (Class::Greeting4xx | Class::Greeting5xx, _) => Reason::HopTemporary,
        (Class::TlsFailed, _) => Reason::HopTls,
        (Class::Protocol, _) => Reason::HopProtocol,
        (Class::Local, _) => Reason::Local,
    }
}

const fn health_of(class: Class) -> HealthClass {
    match class {
        Class::Refused => HealthClass::Refused,
        Class::Timeout => HealthClass::TimedOut,
        Class::LostConnection | Class::Closing | Class::Protocol | Class::Local => {
            HealthClass::Broken
        }
        Class::Greeting4xx => HealthClass::Temporary,
        Class::Greeting5xx => HealthClass::Permanent,
        Class::TlsFailed => HealthClass::Tls,
    }
}
