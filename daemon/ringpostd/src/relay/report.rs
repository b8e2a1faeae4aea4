//! Reports to senders (RFC 3464): of failure, of delay, of success behind which DSN ends.
//!
//! *Guarantees.* A report and the DONE of what it replaces stand in one batch. No report goes to
//! the null sender, none that NOTIFY forbids.

use smtp::dsn::{self, Action};
use smtp::reply::Enhanced;
use spool::id::TransactionId;
use spool::log::OpenKind;
use spool::message::{BodyType, Envelope, MailFrom, Recipient, Ret, flags, notify};

use super::job::{Fate, Job, Result, address_of, notify_of, record};
use super::{Relay, Report};
use crate::desk::Desk;
use crate::events::{Alarm, Event};

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reported {
    /// None is wanted.
    Nothing,
    /// The log has it; the DONE of the failed recipients stands in its batch.
    Kept,
    /// The log does not take it now: nobody may be given up.
    Not,
}

impl Relay {
    /// Makes the report that this attempt calls for.
    pub(super) fn report(&mut self, desk: &mut Desk, job: &Job, envelope: &Envelope) -> Reported {
        let delayed = self.delay_is_due(desk, job, envelope);
        let told: Vec<(Action, &Result)> = job
            .results
            .iter()
            .filter_map(|result| {
                let action = match result.fate {
                    Fate::Failed(_) => Action::Failed,
                    Fate::Delivered if !job.hop_reports => Action::Relayed,
                    Fate::Deferred(_) if delayed => Action::Delayed,
                    Fate::Delivered | Fate::Discarded | Fate::Deferred(_) => return None,
                };
                Some((action, result))
            })
            .collect();
        if told.is_empty() {
            return Reported::Nothing;
        }
        let id = TransactionId { session: desk.ids.next_id(), n: 1 };
        let Some(notification) = write(desk, job, envelope, &told, id, self.schedule.give_up_us)
        else {
            return Reported::Nothing;
        };
        if delayed {
            self.note_warned(job.id);
        }
        self.keep(desk, job, envelope, id, &notification)
    }

    /// Whether the sender is to be told now that it takes longer: once, when it has waited so long.
    fn delay_is_due(&self, desk: &Desk, job: &Job, envelope: &Envelope) -> bool {
        let after_us = desk.config().retry.delay_warning_s.us();
        let age_us = desk.wall_us.saturating_sub(envelope.received_wall_us);
        after_us > 0
            && self.wall.trusted()
            && age_us >= after_us
            && job.results.iter().any(|result| matches!(result.fate, Fate::Deferred(_)))
            && !self.warned.contains(&job.id)
    }

    /// Hands the report to the log, with the DONE of the recipients it says have failed.
    fn keep(
        &mut self,
        desk: &mut Desk,
        job: &Job,
        envelope: &Envelope,
        id: TransactionId,
        notification: &dsn::Notification,
    ) -> Reported {
        let token = desk.next_token();
        let own = report_envelope(desk, job.id, id, notification);
        let octets = notification.content.len() as u64;
        let failed = job
            .results
            .iter()
            .filter(|result| matches!(result.fate, Fate::Failed(_)))
            .map(|result| record(job, envelope, result))
            .collect::<Vec<_>>();
        let (header, body) = notification.content.split_at(notification.header_len);
        let kept = desk.log.open(OpenKind::Own, id, Some(octets), token).ok().and_then(|tx| {
            desk.log.append_header(tx, header).ok()?;
            desk.log.append_body(tx, body).ok()?;
            let mut replaces = Vec::new();
            if !failed.is_empty() {
                replaces.push(crate::desk::Log::done_change(job.id, None, failed, Some(id)));
            }
            desk.log.commit(tx, &own, replaces).ok()
        });
        if kept.is_none() {
            let text = format!("no report about {} can be written now", job.id);
            desk.tell(&Event::Alarmed(Alarm::Device, &text));
            return Reported::Not;
        }
        let report = Report { envelope: Box::new(own), parent: job.id, octets };
        self.reports.insert(token, report);
        Reported::Kept
    }
}

fn report_envelope(
    desk: &Desk,
    parent: TransactionId,
    id: TransactionId,
    notification: &dsn::Notification,
) -> Envelope {
    Envelope {
        id,
        parent: Some(parent),
        received_wall_us: desk.receipt_wall_us,
        config_generation: desk.orders.generation,
        mail: MailFrom {
            smtputf8: notification.smtputf8,
            body: if notification.smtputf8 { BodyType::EightBitMime } else { BodyType::Unsaid },
            ..MailFrom::default()
        },
        recipients: vec![Recipient {
            address: notification.recipient.clone(),
            notify: Some(notify::NEVER),
            ..Recipient::default()
        }],
        flags: flags::GENERATED,
        ..Envelope::default()
    }
}

fn write(
    desk: &Desk,
    job: &Job,
    envelope: &Envelope,
    told: &[(Action, &Result)],
    id: TransactionId,
    give_up_us: u64,
) -> Option<dsn::Notification> {
    let some = |octets: &[u8]| !octets.is_empty();
    let recipients: Vec<dsn::Recipient<'_>> = told
        .iter()
        .map(|(action, result)| {
            let recipient = envelope.recipients.get(usize::from(result.recipient));
            let from_hop = result
                .hop
                .as_ref()
                .filter(|_| result.reply.as_bytes().first().is_some_and(u8::is_ascii_digit));
            dsn::Recipient {
                address: address_of(envelope, result.recipient),
                orcpt: recipient.map(|r| &*r.orcpt).filter(|orcpt| some(orcpt)),
                notify: recipient.and_then(|r| r.notify).map(notify_of),
                action: *action,
                enhanced: enhanced(result),
                remote_mta: from_hop.map(|hop| &*hop.name),
                diagnostic: &result.reply,
                last_attempt_wall_us: Some(desk.wall_us),
                retry_until_wall_us: (*action == Action::Delayed)
                    .then(|| envelope.received_wall_us.saturating_add(give_up_us)),
            }
        })
        .collect();
    let id = id.to_string();
    dsn::notify(&dsn::Report {
        host: desk.config().node.hostname.as_str(),
        id: &id,
        wall_us: desk.wall_us,
        original: dsn::Original {
            sender: &envelope.mail.address,
            envid: Some(&*envelope.mail.envid).filter(|envid| some(envid)),
            ret: envelope.mail.ret.map(|ret| match ret {
                Ret::Full => smtp::command::Ret::Full,
                Ret::Headers => smtp::command::Ret::Hdrs,
            }),
            smtputf8: envelope.mail.smtputf8,
            arrival_wall_us: envelope.received_wall_us,
            header: job.source.header(),
            body: job.source.body(),
        },
        recipients: &recipients,
    })
}

/// The enhanced code of the reply, or of our reason.
fn enhanced(result: &Result) -> Enhanced {
    let word = result.reply.split(' ').nth(1).unwrap_or_default();
    let mut parts = word.split('.').map(str::parse::<u16>);
    let told = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Ok(class @ (2 | 4 | 5))), Some(Ok(subject)), Some(Ok(detail)), None) => {
            u8::try_from(class).ok().map(|class| Enhanced(class, subject, detail))
        }
        _ => None,
    };
    let ours = match result.fate {
        Fate::Delivered | Fate::Discarded => Enhanced(2, 0, 0),
        Fate::Deferred(reason) | Fate::Failed(reason) => reason.answer().enhanced,
    };
    let class = match result.fate {
        Fate::Delivered | Fate::Discarded => 2,
        Fate::Deferred(_) => 4,
        Fate::Failed(_) => 5,
    };
    let Enhanced(_, subject, detail) = told.unwrap_or(ours);
    Enhanced(class, subject, detail)
}
