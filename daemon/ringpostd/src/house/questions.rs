//! Questions that go to all cores, and their parts put together.
//!
//! *Limits*: `QUESTIONS_MAX` at once; each ends after `ANSWER_WAIT`.
//! *Failure*: a core that does not answer is named; what the others said is not lost for a status.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use control::{
    Backlog, Failure, FailureCode, Ledger, List, QueueEntry, QueuePage, Reply, Request, Rows,
    Status, Summary, Text, Top, Tops,
};
use engine::MailboxSender;
use spool::id::{MessageId, TransactionId};
use tokio::sync::Notify;

use crate::admin::order;
use crate::post::ToCore;
use crate::recorder::sorted;

use super::limits::{ACT_WAIT, ANSWER_WAIT, QUESTIONS_MAX};

#[derive(Debug)]
struct Question {
    parts: Vec<Option<Reply>>,
    complete: Rc<Notify>,
}

/// Questions under way.
#[derive(Debug)]
pub(super) struct Questions {
    open: RefCell<HashMap<u64, Question>>,
    last: RefCell<u64>,
    cores: Vec<MailboxSender<ToCore>>,
}

/// One part for each core; `None` from a core that did not answer.
pub(super) type Parts = Vec<Option<Reply>>;

impl Questions {
    /// To these cores.
    #[must_use]
    pub(super) fn new(cores: Vec<MailboxSender<ToCore>>) -> Self {
        Self { open: RefCell::default(), last: RefCell::new(0), cores }
    }

    /// Asks all cores and waits for them.
    ///
    /// # Errors
    /// Too many questions are under way.
    pub(super) async fn ask(&self, request: Request) -> Result<Parts, Failure> {
        self.ask_for(0, request, ANSWER_WAIT).await
    }

    /// The same for a user, and with a time limit of its own.
    ///
    /// # Errors
    /// Too many questions are under way.
    pub(super) async fn ask_for(
        &self,
        uid: u32,
        request: Request,
        wait: Duration,
    ) -> Result<Parts, Failure> {
        self.ask_of(self.cores.len(), uid, request, wait).await
    }

    async fn ask_of(
        &self,
        cores: usize,
        uid: u32,
        request: Request,
        wait: Duration,
    ) -> Result<Parts, Failure> {
        let cores = &self.cores[..cores];
        let (number, complete) = self.begin(cores.iter().map(|_| None).collect())?;
        let request = Arc::new(request);
        for core in cores {
            // A core whose mailbox is full is one that does not answer.
            let _ = core.post(ToCore::Asked(number, uid, Arc::clone(&request)));
        }
        let _ = tokio::time::timeout(wait, complete.notified()).await;
        let question = self.open.borrow_mut().remove(&number);
        Ok(question.expect("only this call takes it out").parts)
    }

    /// Asks the first core alone.
    ///
    /// # Errors
    /// Too many questions are under way.
    pub(super) async fn ask_first(&self, request: Request) -> Result<Reply, Failure> {
        let parts = self.ask_of(1, 0, request, ANSWER_WAIT).await?;
        Ok(parts.into_iter().next().flatten().unwrap_or_else(|| Reply::Failure(silent(0))))
    }

    /// Sends one core what it is to answer, and waits for that.
    ///
    /// # Errors
    /// It does not answer, or too many questions are under way.
    pub(super) async fn hand(
        &self,
        core: usize,
        mail: impl FnOnce(u64) -> ToCore,
    ) -> Result<Reply, Failure> {
        let others = || Reply::Done { message: Text::default() };
        let parts = (0..self.cores.len()).map(|n| (n != core).then(others)).collect();
        let (number, complete) = self.begin(parts)?;
        let _ = self.cores[core].post(mail(number));
        let _ = tokio::time::timeout(ACT_WAIT, complete.notified()).await;
        let parts = self.open.borrow_mut().remove(&number).map(|question| question.parts);
        let part = parts.and_then(|parts| parts.into_iter().nth(core).flatten());
        part.ok_or_else(|| silent(core))
    }

    /// A question with these parts; its number, and what tells that it is answered.
    fn begin(&self, parts: Parts) -> Result<(u64, Rc<Notify>), Failure> {
        if self.open.borrow().len() >= QUESTIONS_MAX {
            let advice = "ask again in a few seconds";
            return Err(Failure::new(FailureCode::Busy, "too many questions at once", advice));
        }
        let number = {
            let mut last = self.last.borrow_mut();
            *last += 1;
            *last
        };
        let complete = Rc::new(Notify::new());
        let question = Question { parts, complete: Rc::clone(&complete) };
        self.open.borrow_mut().insert(number, question);
        Ok((number, complete))
    }

    /// A core's part came. Late ones find nobody.
    pub(super) fn answered(&self, number: u64, core: usize, reply: Reply) {
        if let Some(question) = self.open.borrow_mut().get_mut(&number)
            && let Some(part) = question.parts.get_mut(core)
        {
            *part = Some(reply);
            if question.parts.iter().all(Option::is_some) {
                question.complete.notify_one();
            }
        }
    }
}

/// A core that did not answer.
fn silent(core: usize) -> Failure {
    let message = format!("core {core} does not answer");
    Failure::new(FailureCode::Busy, &message, "ask again; `ringpost status` says how it is doing")
}

/// The parts of a request that needs all of them.
fn all(parts: Parts) -> Result<Vec<Reply>, Failure> {
    let whole = parts.into_iter().enumerate().map(|(core, part)| match part {
        Some(Reply::Failure(failure)) => Err(failure),
        Some(reply) => Ok(reply),
        None => Err(silent(core)),
    });
    whole.collect()
}

/// What all cores say of themselves, summed up. Silent ones are named.
#[must_use]
pub(super) fn status(parts: Parts) -> (Status, Vec<String>) {
    let mut sum = Status::default();
    let mut cores = Vec::new();
    let mut alarms = Vec::new();
    for (core, part) in parts.into_iter().enumerate() {
        let Some(Reply::Status(part)) = part else {
            alarms.push(format!("core {core} does not answer"));
            continue;
        };
        sum.queued_messages += part.queued_messages;
        sum.queued_recipients += part.queued_recipients;
        sum.held_messages += part.held_messages;
        sum.oldest_s = sum.oldest_s.max(part.oldest_s);
        sum.spool_free_octets += part.spool_free_octets;
        sum.spool_octets += part.spool_octets;
        cores.extend(part.cores.iter().copied());
        alarms.extend(part.alarms.iter().map(|line| line.to_string()));
    }
    sum.cores = List::cut(cores);
    (sum, alarms)
}

/// The ledgers of all cores and what stood before this run.
///
/// # Errors
/// A core that did not answer: a part of a ledger is none.
pub(super) fn ledger(parts: Parts, before: Ledger) -> Result<Ledger, Failure> {
    let mut sum = before;
    for part in all(parts)? {
        if let Reply::Ledger(part) = part {
            add(&mut sum, &part);
        }
    }
    Ok(sum)
}

fn add(sum: &mut Ledger, part: &Ledger) {
    sum.accepted += part.accepted;
    sum.generated += part.generated;
    sum.delivered += part.delivered;
    sum.handed_over += part.handed_over;
    sum.bounced += part.bounced;
    sum.double_bounces += part.double_bounces;
    sum.removed += part.removed;
    sum.held += part.held;
    sum.queued += part.queued;
}

fn order_of(text: &str) -> (u32, u64, MessageId, u32) {
    order(text.parse().unwrap_or(TransactionId::NONE))
}

/// One page of the pages of all cores. A core that stopped before its end bounds the page: what
/// others list behind that place comes with the next one.
///
/// # Errors
/// A core that did not answer.
pub(super) fn queue(parts: Parts, count_max: usize) -> Result<QueuePage, Failure> {
    let mut total = 0;
    let mut entries: Vec<QueueEntry> = Vec::new();
    let mut stops = Vec::new();
    for part in all(parts)? {
        if let Reply::Queue(page) = part {
            total += page.total;
            entries.extend(page.messages.iter().cloned());
            stops.extend(page.next);
        }
    }
    entries.sort_by_cached_key(|entry| order_of(&entry.id));
    let mut next = stops.into_iter().min_by_key(|id| order_of(id));
    if let Some(stop) = &next {
        let stop = order_of(stop);
        entries.retain(|entry| order_of(&entry.id) <= stop);
    }
    if entries.len() > count_max {
        entries.truncate(count_max);
        next = entries.last().map(|entry| entry.id.clone());
    }
    Ok(QueuePage { messages: List::cut(entries), next, total })
}

/// The message one of the cores has.
#[must_use]
pub(super) fn message(parts: Parts) -> Reply {
    let mut failure = None;
    for (core, part) in parts.into_iter().enumerate() {
        match part {
            Some(Reply::Message(message)) => return Reply::Message(message),
            Some(Reply::Failure(f)) if f.code == FailureCode::NotFound => {}
            Some(Reply::Failure(f)) => failure = Some(f),
            Some(_) => {}
            None => failure = Some(silent(core)),
        }
    }
    Reply::Failure(failure.unwrap_or_else(|| {
        let advice = "it may have been delivered: look for the id in the main log";
        Failure::new(FailureCode::NotFound, "no such message in the queue", advice)
    }))
}

/// The sum of what cores did, each as a number.
///
/// # Errors
/// A core that did not answer, or could not.
pub(super) fn count(parts: Parts) -> Result<u64, Failure> {
    let counts = all(parts)?.into_iter().map(|part| match part {
        Reply::Done { message } => message.parse::<u64>().unwrap_or(0),
        _ => 0,
    });
    Ok(counts.sum())
}

/// What the core that has it says.
#[must_use]
pub(super) fn first_found(parts: Parts) -> Reply {
    let mut failure = None;
    for (core, part) in parts.into_iter().enumerate() {
        match part {
            Some(Reply::Failure(f)) if f.code == FailureCode::NotFound => {
                failure.get_or_insert(f);
            }
            Some(reply) => return reply,
            None => failure = Some(silent(core)),
        }
    }
    Reply::Failure(failure.unwrap_or_else(|| Failure::new(FailureCode::NotFound, "nothing", "")))
}

/// The three counts of what cores did: done, busy, unfit.
///
/// # Errors
/// A core that did not answer, or could not.
pub(super) fn counts(parts: Parts) -> Result<[u64; 3], Failure> {
    let mut sum = [0; 3];
    for part in all(parts)? {
        if let Reply::Done { message } = part {
            let counts = message.split(' ').map(|word| word.parse::<u64>().unwrap_or(0));
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
    Ok(sum)
}

/// One table of the tables of all cores.
///
/// # Errors
/// A core that did not answer, or could not.
pub(super) fn rows(parts: Parts) -> Result<Rows, Failure> {
    let mut sum = Rows::default();
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for part in all(parts)? {
        if let Reply::Rows(part) = part {
            sum.columns = part.columns.clone();
            rows.extend(part.rows.iter().cloned());
            notes.extend(part.notes.iter().cloned());
        }
    }
    Ok(Rows { rows: List::cut(rows), notes: List::cut(notes), ..sum })
}

/// The backlogs of all cores together.
///
/// # Errors
/// A core that did not answer, or could not.
pub(super) fn summary(parts: Parts) -> Result<Summary, Failure> {
    let mut total = Backlog::default();
    let mut hops: HashMap<String, Backlog> = HashMap::new();
    for part in all(parts)? {
        if let Reply::Summary(part) = part {
            join(&mut total, &part.total);
            for hop in part.next_hops.iter() {
                join(hops.entry(hop.next_hop.to_string()).or_default(), hop);
            }
        }
    }
    let mut hops: Vec<Backlog> = hops.into_values().collect();
    hops.sort_by(|a, b| b.messages.cmp(&a.messages).then_with(|| a.next_hop.cmp(&b.next_hop)));
    Ok(Summary { total, next_hops: List::cut(hops) })
}

/// The counts of all cores together.
///
/// # Errors
/// A core that did not answer, or could not.
pub(super) fn tops(parts: Parts) -> Result<Tops, Failure> {
    let mut rows: HashMap<String, Top> = HashMap::new();
    let mut seconds = u64::MAX;
    for part in all(parts)? {
        if let Reply::Tops(part) = part {
            seconds = seconds.min(part.seconds);
            for row in part.rows.iter() {
                let sum = rows.entry(row.name.to_string()).or_default();
                sum.join(row);
                sum.name = row.name.clone();
            }
        }
    }
    Ok(sorted(rows.into_values().collect(), seconds))
}

fn join(sum: &mut Backlog, part: &Backlog) {
    if part.messages == 0 {
        return;
    }
    let none = sum.messages == 0;
    sum.newest_s = if none { part.newest_s } else { sum.newest_s.min(part.newest_s) };
    sum.oldest_s = sum.oldest_s.max(part.oldest_s);
    sum.messages += part.messages;
    sum.octets += part.octets;
    sum.held += part.held;
    sum.ages.iter_mut().zip(part.ages).for_each(|(sum, part)| *sum += part);
    sum.failures = sum.failures.max(part.failures);
    sum.closed_s = sum.closed_s.max(part.closed_s);
    sum.next_hop = part.next_hop.clone();
    if sum.last.is_empty() {
        sum.last = part.last.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::Text;

    fn id(core: u8, counter: u64) -> TransactionId {
        TransactionId { session: MessageId::new(1, 1, core, counter), n: 1 }
    }

    fn page(core: u8, counters: &[u64], next: Option<u64>) -> Option<Reply> {
        let text = |counter| Text::cut(&id(core, counter).to_string());
        let entry = |n: &u64| QueueEntry { id: text(*n), ..QueueEntry::default() };
        Some(Reply::Queue(QueuePage {
            messages: List::cut(counters.iter().map(entry)),
            next: next.map(text),
            total: 10,
        }))
    }

    fn counters(page: &QueuePage) -> Vec<u64> {
        let ids = page.messages.iter().map(|entry| entry.id.parse::<TransactionId>().unwrap());
        ids.map(|id| id.session.counter()).collect()
    }

    #[test]
    fn pages_are_merged_in_order_and_cut() {
        let merged = queue(vec![page(0, &[1, 4, 6], None), page(1, &[2, 3, 5], None)], 4).unwrap();
        assert_eq!((counters(&merged), merged.total), (vec![1, 2, 3, 4], 20));
        assert_eq!(merged.next.as_deref(), Some(id(0, 4).to_string().as_str()));
    }

    #[test]
    fn a_core_that_stopped_early_bounds_the_page() {
        let merged = queue(vec![page(0, &[1], Some(3)), page(1, &[2, 9], None)], 100).unwrap();
        assert_eq!(counters(&merged), [1, 2]);
        assert_eq!(merged.next.as_deref(), Some(id(0, 3).to_string().as_str()));
        let end = queue(vec![page(0, &[4], None), page(1, &[9], None)], 100).unwrap();
        assert_eq!((counters(&end), end.next), (vec![4, 9], None));
    }

    #[test]
    fn a_silent_core_fails_a_ledger_and_is_named_in_a_status() {
        let part = || Some(Reply::Ledger(Ledger { accepted: 3, queued: 3, ..Ledger::default() }));
        let before = Ledger { accepted: 1, delivered: 1, ..Ledger::default() };
        let sum = ledger(vec![part(), part()], before).unwrap();
        assert_eq!((sum.accepted, sum.difference()), (7, 0));
        assert_eq!(ledger(vec![part(), None], before).unwrap_err().code, FailureCode::Busy);
        let (_, alarms) = status(vec![Some(Reply::Status(Box::default())), None]);
        assert_eq!(alarms, ["core 1 does not answer"]);
    }

    #[test]
    fn the_core_that_has_the_message_answers() {
        let none = || Some(Reply::Failure(Failure::new(FailureCode::NotFound, "", "")));
        let found = message(vec![none(), Some(Reply::Message(Box::default()))]);
        assert!(matches!(found, Reply::Message(_)));
        let Reply::Failure(failure) = message(vec![none(), none()]) else { panic!("none has it") };
        assert_eq!(failure.code, FailureCode::NotFound);
        let Reply::Failure(failure) = message(vec![none(), None]) else { panic!("none has it") };
        assert_eq!(failure.code, FailureCode::Busy, "the silent one may have it");
    }
}
