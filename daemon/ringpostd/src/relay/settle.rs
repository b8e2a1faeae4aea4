//! The end of an attempt: log lines, records, the report to the sender, the next attempt.

use engine::Core;
use spool::id::TransactionId;
use spool::live::Live;
use spool::log::Content;
use spool::message::Envelope;
use spool::record::RecipientResult;

use super::Relay;
use super::elsewhere::is_final;
use super::job::{Fate, Job, address_of, record, unchanged};
use super::report::Reported;
use crate::desk::{Desk, id_text};
use crate::events::{Attempt, Event, Hop as ToldHop, Reason, Tls};
use crate::post::ToCore;
use crate::queue::Outcome;
use crate::retry::Retry;

impl Relay {
    /// All recipients of the job have their outcome.
    pub(super) fn settle(&mut self, desk: &mut Desk, index: usize) {
        let Some(job) = self.jobs[index].as_mut() else { return };
        job.stage = super::job::Stage::Over;
        let Some(envelope) = job.envelope.take() else { return self.put_off(desk, index) };
        let mut job = self.remove(index);
        if job.route.as_ref().is_some_and(|route| route.is_named()) {
            for result in &mut job.results {
                if let Fate::Failed(reason) = result.fate
                    && !is_final(reason)
                {
                    result.fate = Fate::Deferred(reason);
                }
            }
        }
        self.give_up_old(desk, &mut job, &envelope);
        let reported = self.report(desk, &job, &envelope);
        if reported == Reported::Not {
            // Who cannot be told of a failure is not given up.
            for result in &mut job.results {
                if let Fate::Failed(_) = result.fate {
                    result.fate = Fate::Deferred(Reason::SpoolFailed);
                }
            }
        }
        Self::tell(desk, &job, &envelope);
        if job.results.iter().any(|r| r.fate == Fate::Delivered)
            && let Some(name) = self.names.name(job.work.destination)
            && desk.hints.retry(name, desk.wall_us).is_some()
        {
            let name = name.to_vec();
            desk.hint(hints::Kind::Retry, &name, hints::What::Remove);
        }
        Self::write_done(desk, &job, &envelope, reported == Reported::Kept);
        if reported == Reported::Nothing && desk.log.get(job.id).is_none() {
            self.is_given_up(job.id);
        }
        self.go_on(desk, &job, &envelope);
    }

    /// Deferred recipients of a message whose time is over fail now.
    fn give_up_old(&mut self, desk: &Desk, job: &mut Job, envelope: &Envelope) {
        let age = self.wall.age(desk.wall_us, envelope.received_wall_us, job.work.tries);
        // This attempt counts too: `Tries` learns of it when the queue is told.
        let attempts = desk.log.get(job.id).map_or(0, |live| live.tries).saturating_add(1);
        if self.schedule.next(u32::from(attempts), age, 0) != Retry::Expired {
            return;
        }
        for result in &mut job.results {
            if let Fate::Deferred(_) = result.fate {
                result.fate = Fate::Failed(Reason::Expired);
            }
        }
    }

    fn tell(desk: &mut Desk, job: &Job, envelope: &Envelope) {
        let id = id_text(job.id);
        let route = job.route.as_ref().map_or("", |route| &*route.name);
        let mut further = false;
        for result in &job.results {
            let recipient = envelope.recipients.get(usize::from(result.recipient));
            let routed = recipient.is_some_and(|recipient| !recipient.routed.is_empty());
            let tls =
                Self::tls_of(job).map(|(version, cipher)| Tls { version, cipher, verified: None });
            let hop = result.hop.as_ref().map(|hop| ToldHop {
                name: &hop.name,
                address: hop.address,
                tls: tls.filter(|_| result.fate == Fate::Delivered),
            });
            let attempt = Attempt {
                id: &id,
                recipient: address_of(envelope, result.recipient),
                original: recipient.filter(|_| routed).map(|recipient| &*recipient.address),
                route,
                hop,
                reply: result.reply.as_bytes(),
                queue_us: desk.wall_us.saturating_sub(envelope.received_wall_us),
                delivery_us: desk.now_us.saturating_sub(job.started_us),
            };
            let event = match result.fate {
                Fate::Delivered | Fate::Discarded => Event::Relayed { attempt: &attempt, further },
                Fate::Deferred(reason) => Event::Deferred { attempt: &attempt, reason },
                Fate::Failed(reason) => Event::Bounced { attempt: &attempt, reason },
            };
            desk.tell(&event);
            further |= result.fate == Fate::Delivered;
        }
    }

    /// DONE of what needs no report; what does stands in the report's batch.
    fn write_done(desk: &mut Desk, job: &Job, envelope: &Envelope, replaced: bool) {
        let done: Vec<RecipientResult> = job
            .results
            .iter()
            .filter(|result| match result.fate {
                Fate::Delivered | Fate::Discarded => true,
                Fate::Failed(_) => !replaced,
                Fate::Deferred(_) => false,
            })
            .map(|result| record(job, envelope, result))
            .collect();
        if !done.is_empty() {
            let _ = desk.log.done(job.id, done, None, desk.now_us);
        }
    }

    /// The entry's next attempt, or its end.
    fn go_on(&mut self, desk: &mut Desk, job: &Job, envelope: &Envelope) {
        let deferred = job.results.iter().any(|r| matches!(r.fate, Fate::Deferred(_)));
        let queue_us = desk.wall_us.saturating_sub(envelope.received_wall_us);
        if desk.log.get(job.id).is_none() {
            let id = id_text(job.id);
            desk.tell(&Event::Completed { id: &id, queue_us });
        }
        let random = desk.random.next_u64();
        if !deferred && job.kept_back {
            let outcome = Outcome::Hold;
            self.queue.finished(job.handle(), desk.now_us, outcome, &self.wall, random);
            return;
        }
        if !deferred {
            let outcome = Outcome::Done;
            self.queue.finished(job.handle(), desk.now_us, outcome, &self.wall, random);
            self.unname(job.work.message);
            return;
        }
        let tries = desk.log.get(job.id).map_or(0, |live| live.tries).saturating_add(1);
        let age = self.wall.age(desk.wall_us, envelope.received_wall_us, job.work.tries);
        let wait_us = match self.schedule.next(u32::from(tries), age, random) {
            Retry::At(wait_us) => wait_us,
            Retry::Expired => self.schedule.first_us,
        };
        let results = Self::deferrals(job, envelope);
        let next_wall_us = desk.wall_us.saturating_add(wait_us);
        let _ = desk.log.defer(job.id, next_wall_us, tries, job.tier, results, desk.now_us);
        // What was handed out as expired, and may not expire, was sent beside the queue's order.
        let outcome = if desk.log.get(job.id).is_some_and(Live::is_held) {
            Outcome::Hold
        } else if job.unreachable && !job.work.expired {
            Outcome::Unreachable
        } else {
            let due_us = desk.now_us.saturating_add(wait_us);
            Outcome::Later { due_us, expires_us: self.expires_us(desk, job.id) }
        };
        self.queue.finished(job.handle(), desk.now_us, outcome, &self.wall, random);
        if job.unreachable
            && let Some(result) = job.results.last()
            && let Fate::Deferred(reason) = result.fate
        {
            self.remember(desk, job.work.destination, reason, &result.reply);
        }
    }

    /// The newest DEFER alone is read at a restart: it names every recipient that is left.
    fn deferrals(job: &Job, envelope: &Envelope) -> Vec<RecipientResult> {
        let here = |n: u16| job.results.iter().find(|result| result.recipient == n);
        let mut all = Vec::new();
        for (n, recipient) in envelope.recipients.iter().enumerate() {
            let Ok(n) = u16::try_from(n) else { break };
            match here(n) {
                Some(result) if matches!(result.fate, Fate::Deferred(_)) => {
                    all.push(record(job, envelope, result));
                }
                Some(_) => {}
                None if recipient.state.is_final() => {}
                // Neither tried yet nor moved.
                None if recipient.reply.is_empty() && recipient.route.is_empty() => {}
                None => all.push(unchanged(n, recipient)),
            }
        }
        all
    }

    /// A report is durable: it is mail like any other, and what it replaces is gone.
    pub fn committed(
        &mut self,
        _core: &mut Core<ToCore>,
        desk: &mut Desk,
        token: u64,
        id: TransactionId,
        content: Option<Content>,
    ) {
        let Some(report) = self.reports.remove(&token) else { return };
        let (text, parent) = (id_text(id), id_text(report.parent));
        let event = Event::Generated(&crate::events::Generated {
            id: &text,
            parent: &parent,
            recipients: u32::try_from(report.envelope.recipients.len()).unwrap_or(u32::MAX),
            octets: report.octets,
        });
        desk.tell(&event);
        if desk.log.get(report.parent).is_none() {
            self.is_given_up(report.parent);
        }
        self.arrived(desk, id, report.envelope, content);
    }

    /// The log will not keep a report. Its DONE was not written either: a restart sees the
    /// message again.
    pub fn refused(&mut self, desk: &mut Desk, token: u64) {
        if let Some(report) = self.reports.remove(&token) {
            self.is_given_up(report.parent);
            let text = format!("the report about {} could not be kept", report.parent);
            desk.tell(&Event::Alarmed(crate::events::Alarm::Device, &text));
        }
    }
}
