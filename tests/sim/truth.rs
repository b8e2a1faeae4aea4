//! What everybody was told, beside the log: what must be there, what may, what must not.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use spool::id::TransactionId;
use spool::ledger::Ledger;
use spool::live::Live;
use spool::message::{Envelope, flags};
use spool::received;
use spool::record::RecipientState as State;

/// What the client heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// Nothing: no answer yet, or it has gone.
    Nothing,
    /// 250; or it is ours and durable.
    Yes,
    /// 4yz, after the message was handed to the log.
    No,
}

/// The message a report is about, and which of its recipients.
pub(super) type Parent = (TransactionId, Vec<u16>);

/// One recipient.
#[derive(Clone, Debug, Default)]
pub(super) struct Rcpt {
    /// How often the next hop took it.
    pub(super) delivered: u32,
    /// The state a DONE on its way gives it, and the report in the same batch.
    pub(super) asked: Option<(State, Option<TransactionId>)>,
    /// The state it has for good.
    pub(super) settled: Option<State>,
    /// A further delivery has a cause: no DONE was durable, or the reply was lost.
    again: bool,
    /// Reports that tell of it.
    reports: Vec<TransactionId>,
}

/// One message.
#[derive(Clone, Debug)]
pub(super) struct Mail {
    pub(super) header: Rc<[u8]>,
    pub(super) body: Rc<[u8]>,
    pub(super) envelope: Box<Envelope>,
    pub(super) generated: bool,
    pub(super) told: Told,
    /// In the log for certain.
    pub(super) durable: bool,
    /// Recovery said it is not there, or its CANCEL is durable.
    barred: bool,
    /// A device lost parts of it, and there is no other copy.
    pub(super) harmed: bool,
    pub(super) parent: Option<(TransactionId, Vec<u16>)>,
    pub(super) born_us: u64,
    pub(super) held: bool,
    pub(super) rcpts: Vec<Rcpt>,
}

impl Mail {
    pub(super) fn is_over(&self) -> bool {
        self.rcpts.iter().all(|r| r.settled.is_some())
    }

    fn may_be_over(&self) -> bool {
        self.rcpts.iter().all(|r| r.settled.is_some() || r.asked.is_some())
    }
}

/// All of them.
#[derive(Default, Debug)]
pub(super) struct Truth {
    pub(super) mails: BTreeMap<TransactionId, Mail>,
    /// Tokens of changes: which message, which recipients.
    changes: HashMap<u64, (TransactionId, Vec<u16>)>,
    pub(super) accepted: u64,
    pub(super) bounces: u64,
    pub(super) duplicates: u64,
    /// Refused after it was handed over, found all the same after a crash.
    pub(super) found_refused: u64,
    /// The start before gave up a segment because nothing else was free: until what it said is
    /// written again, a crash may undo it.
    pub(super) rescued: bool,
    /// Something was harmed: the ledger of the log need not agree.
    pub(super) any_harm: bool,
}

fn trace(id: TransactionId, what: &str) {
    if std::env::var("RINGPOST_SIM_ID").is_ok_and(|t| t == id.to_string()) {
        eprintln!("TRACE {id} {what}");
    }
}

impl Truth {
    /// A message is handed to the log.
    pub(super) fn handed_over(
        &mut self,
        envelope: &Envelope,
        header: &[u8],
        body: &[u8],
        parent: Option<(TransactionId, Vec<u16>)>,
        now_us: u64,
    ) {
        let mail = Mail {
            header: header.into(),
            body: body.into(),
            envelope: Box::new(envelope.clone()),
            generated: envelope.flags & flags::GENERATED != 0,
            told: Told::Nothing,
            durable: false,
            barred: false,
            harmed: false,
            parent,
            born_us: now_us,
            held: false,
            rcpts: vec![Rcpt::default(); envelope.recipients.len()],
        };
        let fresh = self.mails.insert(envelope.id, mail).is_none();
        assert!(fresh, "{} was given twice", envelope.id);
    }

    pub(super) fn mail(&self, id: TransactionId) -> &Mail {
        self.mails.get(&id).unwrap_or_else(|| panic!("{id} from nowhere"))
    }

    pub(super) fn mail_mut(&mut self, id: TransactionId) -> &mut Mail {
        self.mails.get_mut(&id).unwrap_or_else(|| panic!("{id} from nowhere"))
    }

    /// The log says it is durable.
    pub(super) fn committed(&mut self, id: TransactionId) {
        trace(id, "committed");
        let mail = self.mail_mut(id);
        assert!(mail.told != Told::No, "{id} was refused before");
        (mail.told, mail.durable) = (Told::Yes, true);
        let (generated, parent) = (mail.generated, mail.parent.clone());
        if generated {
            self.report_durable(id, parent);
        } else {
            self.accepted += 1;
        }
    }

    /// With the report the DONE of what it tells of is durable.
    fn report_durable(&mut self, id: TransactionId, parent: Option<(TransactionId, Vec<u16>)>) {
        let Some((parent, recipients)) = parent else { return };
        for n in recipients {
            let mail = self.mail_mut(parent);
            let harmed = mail.harmed;
            let r = &mut mail.rcpts[usize::from(n)];
            r.reports.push(id);
            assert!(r.reports.len() == 1 || harmed, "{parent} recipient {n} bounced twice");
            if r.asked.is_some_and(|(_, report)| report == Some(id)) {
                r.settled = r.asked.take().map(|(state, _)| state);
                self.bounces += 1;
            }
        }
    }

    /// The log says it is not kept.
    pub(super) fn refused(&mut self, id: TransactionId) {
        trace(id, "refused");
        let mail = self.mail_mut(id);
        assert!(mail.told == Told::Nothing, "{id} was acknowledged before");
        mail.told = Told::No;
    }

    /// All that was refused is cancelled durably.
    pub(super) fn cancelled(&mut self, core: u16) {
        let here = |id: &TransactionId| u16::from(id.session.core()) == core;
        for (_, mail) in self.mails.iter_mut().filter(|(id, m)| here(id) && m.told == Told::No) {
            mail.barred = true;
        }
    }

    /// A next hop has taken it.
    pub(super) fn delivered(&mut self, id: TransactionId, address: &[u8], content: &[u8]) {
        let duplicates = &mut self.duplicates;
        let mail = self.mails.get_mut(&id).unwrap_or_else(|| panic!("{id} from nowhere"));
        assert!(mail.told != Told::No && !mail.barred, "{id} was not accepted, and is delivered");
        assert!(mail.durable, "{id} is delivered before it is durable");
        let mut expected = received::apply(&mail.header, &mail.envelope);
        expected.extend_from_slice(&mail.body);
        assert!(content == expected, "{id} reached the next hop with other bytes");
        let n = mail.envelope.recipients.iter().position(|r| *r.address == *address);
        let n = n.unwrap_or_else(|| panic!("{id} was never for {}", address.escape_ascii()));
        let r = &mut mail.rcpts[n];
        assert!(r.settled.is_none() || mail.harmed, "{id} {n} is delivered after its DONE");
        assert!(r.delivered == 0 || r.again || mail.harmed, "{id} {n} delivered twice, no cause");
        *duplicates += u64::from(r.delivered > 0);
        r.delivered += 1;
        r.again = false;
    }

    /// The relay did not hear what the next hop said.
    pub(super) fn reply_lost(&mut self, id: TransactionId, n: u16) {
        self.mail_mut(id).rcpts[usize::from(n)].again = true;
    }

    /// A DONE is handed to the log.
    pub(super) fn asked(
        &mut self,
        id: TransactionId,
        n: u16,
        state: State,
        report: Option<TransactionId>,
    ) {
        trace(id, "asked");
        let mail = self.mail_mut(id);
        let r = &mut mail.rcpts[usize::from(n)];
        assert!(r.settled.is_none() || mail.harmed, "{id} {n} is settled twice");
        if matches!(state, State::Delivered | State::HandedOver) {
            assert!(r.delivered > 0, "{id} {n} counts as delivered and is not");
        }
        r.asked = Some((state, report));
    }

    /// `token` stands for these recipients' DONE.
    pub(super) fn expect_change(&mut self, token: u64, id: TransactionId, recipients: Vec<u16>) {
        self.changes.insert(token, (id, recipients));
    }

    pub(super) fn changed(&mut self, token: u64) {
        let Some((id, recipients)) = self.changes.remove(&token) else { return };
        trace(id, "changed");
        let mail = self.mail_mut(id);
        for n in recipients {
            let r = &mut mail.rcpts[usize::from(n)];
            if let Some((state, _)) = r.asked.take() {
                r.settled = Some(state);
            }
        }
    }

    /// The power went: what no DONE covers may happen again.
    pub(super) fn crashed(&mut self) {
        self.changes.clear();
        for mail in self.mails.values_mut() {
            for r in mail.rcpts.iter_mut().filter(|r| r.settled.is_none() && r.delivered > 0) {
                r.again = true;
            }
        }
    }

    /// Some recipient was delivered, and no DONE says so durably.
    pub(super) fn has_unsettled_delivery(&self) -> bool {
        let open = |r: &Rcpt| r.delivered > 0 && r.settled.is_none();
        self.mails.values().any(|m| m.rcpts.iter().any(open))
    }

    /// Compares with what recovery found.
    pub(super) fn recovered(&mut self, found: &HashMap<TransactionId, &Live>) {
        let ids: Vec<TransactionId> = self.mails.keys().copied().collect();
        for id in found.keys() {
            assert!(self.mails.contains_key(id), "{id} from nowhere");
        }
        let mut reports = Vec::new();
        for id in ids {
            match found.get(&id) {
                Some(live) => self.is_there(id, live, &mut reports),
                None => self.is_gone(id),
            }
        }
        for (id, parent) in reports {
            self.report_durable(id, parent);
        }
        self.check_reports(found);
    }

    fn is_there(
        &mut self,
        id: TransactionId,
        live: &Live,
        reports: &mut Vec<(TransactionId, Option<Parent>)>,
    ) {
        trace(id, "is there");
        let mail = self.mails.get_mut(&id).expect("one of them");
        if self.rescued && mail.rcpts.iter().any(|r| r.settled.is_some()) {
            (mail.harmed, self.any_harm) = (true, true);
        }
        let harmed = mail.harmed;
        assert!(!mail.is_over() || harmed, "{id} came back to life");
        assert!(!mail.barred || harmed, "{id} was not there, or cancelled, and came back");
        self.found_refused += u64::from(mail.told == Told::No);
        if !mail.durable && mail.generated {
            reports.push((id, mail.parent.clone()));
        }
        (mail.told, mail.durable, mail.barred) = (Told::Yes, true, false);
        mail.held = live.is_held();
        assert_eq!(usize::from(live.recipients), mail.rcpts.len(), "{id} has other recipients");
        for (n, r) in mail.rcpts.iter_mut().enumerate() {
            let pending = live.is_pending(u16::try_from(n).expect("few"));
            if pending {
                assert!(r.settled.is_none() || harmed, "{id} {n} came back to life");
                (r.asked, r.settled) = (None, None);
            } else if r.settled.is_none() {
                let asked = r.asked.take();
                assert!(asked.is_some() || harmed, "{id} {n} is lost");
                r.settled = Some(asked.map_or(State::Removed, |(state, _)| state));
            }
        }
    }

    fn is_gone(&mut self, id: TransactionId) {
        trace(id, "is_gone");
        let mail = self.mails.get_mut(&id).expect("one of them");
        if mail.is_over() {
            return;
        }
        if mail.durable && mail.may_be_over() || mail.harmed {
            for r in mail.rcpts.iter_mut().filter(|r| r.settled.is_none()) {
                r.settled = Some(r.asked.take().map_or(State::Removed, |(state, _)| state));
            }
            return;
        }
        assert!(!mail.durable, "{id} is lost");
        mail.barred = true;
        mail.rcpts.iter_mut().for_each(|r| r.asked = None);
    }

    /// Who failed with a report: the report is there, or was.
    fn check_reports(&self, found: &HashMap<TransactionId, &Live>) {
        for (id, mail) in self.mails.iter().filter(|(_, m)| m.generated && !m.harmed) {
            let Some((parent, recipients)) = &mail.parent else { continue };
            let parent_mail = &self.mails[parent];
            if parent_mail.harmed {
                continue;
            }
            for n in recipients {
                let r = &parent_mail.rcpts[usize::from(*n)];
                let told = r.settled.is_some() && r.reports.contains(id);
                let here = found.contains_key(id) || (mail.durable && mail.is_over());
                assert_eq!(told, here, "report {id} and the DONE of {parent} {n} differ");
            }
        }
    }

    /// Everything is over, and as it should be.
    pub(super) fn finished(&self) {
        for (id, mail) in self.mails.iter().filter(|(_, m)| m.durable && !m.harmed) {
            for (n, r) in mail.rcpts.iter().enumerate() {
                match r.settled {
                    None => panic!("{id} {n} was accepted, and nothing became of it"),
                    Some(State::Delivered | State::HandedOver) => assert!(r.delivered > 0),
                    Some(State::Failed) => {
                        let told = r.reports.len() == 1;
                        assert!(told, "{id} {n} failed, and its sender was never told");
                    }
                    Some(_) => {}
                }
            }
        }
    }

    /// What the log's ledger must say at the end.
    pub(super) fn ledger(&self) -> Ledger {
        let mut sum = Ledger::default();
        for mail in self.mails.values().filter(|m| m.durable) {
            let n = i64::try_from(mail.rcpts.len()).expect("few");
            *(if mail.generated { &mut sum.generated } else { &mut sum.accepted }) += n;
            for r in &mail.rcpts {
                *(match r.settled {
                    Some(State::Delivered) => &mut sum.delivered,
                    Some(State::HandedOver | State::Redirected) => &mut sum.handed_over,
                    Some(State::Failed) => &mut sum.bounced,
                    Some(State::Discarded) => &mut sum.double_bounces,
                    Some(State::Removed) => &mut sum.removed,
                    _ if mail.held => &mut sum.held,
                    _ => &mut sum.queued,
                }) += 1;
            }
        }
        sum
    }

    /// A device lost what stood there, and there was no other copy.
    pub(super) fn harm(&mut self, ids: &[TransactionId]) {
        self.any_harm |= !ids.is_empty();
        for id in ids {
            if let Some(mail) = self.mails.get_mut(id) {
                mail.harmed = true;
            }
        }
    }
}
