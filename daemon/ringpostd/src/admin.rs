//! A core's part of what the admin tool asks: its status, its ledger, its messages.
//!
//! *Guarantees*: no answer waits for another core or for the house; what must be read from the log
//! is read beside the mail.
//! *Limits*: `LISTS_MAX` lists at once, `SCAN_MAX` messages looked at and `LIST_US_MAX` for one
//! page: a page that ends early says where the next one begins.
//! *Failure*: a message that cannot be read is listed by what the table knows of it.
//! *Not here*: the other cores' parts and how they are put together (`house`).

mod walk;
mod why;
mod patient;

use std::collections::{BinaryHeap, HashMap, VecDeque};

use control::limits::QUEUE_PAGE_MAX;
use control::{
    Backlog, Core, Failure, FailureCode, Ledger, List, QueueEntry, QueueFilter, QueueMessage,
    QueuePage, QueueRecipient, RecipientState, Reply, Request, Status, Text, Waits,
};
use spool::id::{MessageId, TransactionId};
use spool::live::Live;
use spool::log::{Health, Part, ReadData, ReadError, StoredMessage};
use spool::message::{Envelope, Recipient};
use spool::record;

use crate::desk::{Desk, Letter, Space};
use crate::metrics::Counter;
use crate::post::ToHouse;
use crate::queue::Seen;
use crate::relay::Relay;
use crate::tally::message_key;
use walk::{Aim, Came, Chosen, Count, WALKS_MAX, Walk};

/// Lists under way on one core.
const LISTS_MAX: usize = 8;
/// Time for one page.
const LIST_US_MAX: u64 = 2_000_000;
/// How soon a walk that only waits is looked at again.
const LOOK_AGAIN_US: u64 = 5_000;
/// Counting the whole queue is done at most this often.
const COUNT_AGAIN_US: u64 = 1_000_000;
/// A log with less room than this turns mail of a usual size away.
const NEARLY_FULL_OCTETS: u64 = 4 << 20;
const SECOND_US: u64 = 1_000_000;

/// The order of a listing, which follows from the id alone: by run, then as sessions began on
/// their cores.
#[must_use]
pub fn order(id: TransactionId) -> (u32, u64, MessageId, u32) {
    (id.session.run(), id.session.counter(), id.session, id.n)
}

/// What is asked of the log.
#[derive(Debug)]
enum Work {
    /// The next message of a page.
    List(Box<Listing>),
    /// One message.
    Show(u64, TransactionId),
    /// A part of its content.
    Part(u64, u32),
    /// One that is to be moved.
    Move(u64, Vec<Seen>),
}

/// A page in the making.
#[derive(Debug)]
struct Listing {
    number: u64,
    filter: QueueFilter,
    count_max: usize,
    /// What may be on it, in order.
    todo: VecDeque<TransactionId>,
    /// There are more behind those.
    more: bool,
    entries: Vec<QueueEntry>,
    last: Option<TransactionId>,
    until_us: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Clerk {
    /// What was asked of the log, by token.
    reads: HashMap<u64, Work>,
    count: Option<(u64, Count)>,
    /// Who waits for the count under way.
    counting: Vec<u64>,
    walks: Vec<Walk>,
    /// Which walk waits for which answer of the log.
    tokens: HashMap<u64, u64>,
    /// What was read to be moved.
    read: Vec<walk::Read>,
    searches: why::Searches,
    patients: patient::Patients,
}

impl Clerk {
    /// Goes on with what takes more than one turn.
    pub fn turn(&mut self, desk: &mut Desk, relay: &mut Relay) {
        for (number, reply) in self.searches.step(desk) {
            answer(desk, number, reply);
        }
        for (number, reply) in self.patients.step(desk) {
            answer(desk, number, reply);
        }
        for (number, seen, envelope) in std::mem::take(&mut self.read) {
            if let Some(walk) = self.walks.iter_mut().find(|walk| walk.number == number) {
                walk.move_one(desk, relay, (&seen, envelope), &mut self.tokens);
            }
        }
        for walk in std::mem::take(&mut self.walks) {
            let (number, mut asked) = (walk.number, Vec::new());
            let came = walk.step(desk, relay, &mut self.tokens, &mut asked);
            for (token, seen) in asked {
                self.reads.insert(token, Work::Move(number, seen));
            }
            match came {
                Came::On(walk) => self.walks.push(walk),
                Came::Answer(number, reply) => answer(desk, number, reply),
                Came::Picked(listing) => self.go_on(desk, listing),
                Came::Counted(count) => {
                    self.count = Some((desk.now_us, count));
                    for number in std::mem::take(&mut self.counting) {
                        let status = Reply::Status(Box::new(status(desk, count)));
                        answer(desk, number, status);
                    }
                }
            }
        }
    }

    /// A change is durable that a walk may wait for.
    pub fn changed(&mut self, token: u64) {
        let Some(number) = self.tokens.remove(&token) else { return };
        if let Some(walk) = self.walks.iter_mut().find(|walk| walk.number == number) {
            walk.waits = walk.waits.saturating_sub(1);
        }
    }

    fn walk(&mut self, desk: &mut Desk, number: u64, aim: Aim) {
        if self.walks.len() >= WALKS_MAX {
            return fail(desk, number, FailureCode::Busy, "too many questions about the queue");
        }
        self.walks.push(Walk::new(number, aim));
    }

    /// When [`Clerk::turn`] has something to do.
    #[must_use]
    pub fn deadline(&self, desk: &Desk) -> Option<u64> {
        let busy = self.walks.iter().any(|walk| !walk.is_waiting());
        if busy || !self.searches.is_idle() || !self.read.is_empty() {
            return Some(desk.now_us);
        }
        if !self.patients.is_idle() {
            return Some(desk.now_us.saturating_add(LOOK_AGAIN_US));
        }
        // Reports of messages that are given up become durable without a word to the walk.
        (!self.walks.is_empty()).then(|| desk.now_us.saturating_add(LOOK_AGAIN_US))
    }

    /// A question of the house. The answer goes out at the end of this turn or of a later one.
    pub fn asked(&mut self, desk: &mut Desk, number: u64, uid: u32, request: &Request) {
        let reply = match request {
            Request::Status => match self.count {
                Some((at_us, count)) if desk.now_us.saturating_sub(at_us) < COUNT_AGAIN_US => {
                    Reply::Status(Box::new(status(desk, count)))
                }
                _ => {
                    self.counting.push(number);
                    if self.counting.len() == 1 {
                        self.walks.push(Walk::new(number, Aim::Count(Count::default())));
                    }
                    return;
                }
            },
            Request::QueueSummary => {
                let aim = Aim::Summary(Backlog::default(), HashMap::new());
                return self.walk(desk, number, aim);
            }
            Request::QueueAct(act) => match Chosen::new(act, uid) {
                Ok(chosen) => return self.walk(desk, number, Aim::Choose(Box::new(chosen))),
                Err(failure) => Reply::Failure(failure),
            },
            Request::Ledger => Reply::Ledger(ledger(desk)),
            Request::QueueList(filter) => return self.list(desk, number, filter),
            Request::QueueShow { id } => return self.show(desk, number, id),
            Request::Why(filter) => match self.searches.begin(desk, number, filter) {
                Ok(()) => return,
                Err(failure) => Reply::Failure(failure),
            },
            Request::Tops(filter) => match self.searches.begin_count(desk, number, *filter) {
                Ok(()) => return,
                Err(failure) => Reply::Failure(failure),
            },
            Request::Session(_) | Request::Test(_) => {
                match self.patients.begin(desk, number, request) {
                    Ok(()) => return,
                    Err(failure) => Reply::Failure(failure),
                }
            }
            Request::QueueRead { id, part } => return self.read_part(desk, number, id, *part),
            Request::Trace { what, seconds } => {
                Reply::Done { message: Text::cut(&desk.trace(what, *seconds).to_string()) }
            }
            Request::HintsTidy => {
                let removed = desk.writer.tidy(desk.wall_us);
                Reply::Done { message: Text::cut(&removed.to_string()) }
            }
            _ => {
                let message = format!("{} is not a core's to answer", request.name());
                Reply::Failure(Failure::new(FailureCode::Internal, &message, ""))
            }
        };
        answer(desk, number, reply);
    }

    /// What the log read. False if it was not read for the clerk.
    pub fn read(
        &mut self,
        desk: &mut Desk,
        token: u64,
        result: &Result<ReadData, ReadError>,
    ) -> bool {
        let Some(work) = self.reads.remove(&token) else { return false };
        if let Work::Part(number, part) = work {
            answer(desk, number, content(part, result));
            return true;
        }
        if let Work::Move(number, seen) = work {
            let envelope = match result {
                Ok(ReadData::Message(stored)) => Ok(Box::new(stored.envelope.clone())),
                Ok(ReadData::Chunk(_)) => Err(ReadError::Unknown),
                Err(error) => Err(error.clone()),
            };
            self.read.push((number, seen, envelope));
            return true;
        }
        let stored = match result {
            Ok(ReadData::Message(stored)) => Ok(&**stored),
            Ok(ReadData::Chunk(_)) => Err(ReadError::Unknown),
            Err(error) => Err(error.clone()),
        };
        match work {
            Work::Show(number, id) => {
                let reply = shown(desk, id, stored);
                answer(desk, number, reply);
            }
            Work::Part(..) | Work::Move(..) => {}
            Work::List(mut listing) => {
                listing.take_in(desk, stored.ok());
                self.go_on(desk, listing);
            }
        }
        true
    }

    fn list(&mut self, desk: &mut Desk, number: u64, filter: &QueueFilter) {
        let after = filter.after.as_deref().map(str::parse::<TransactionId>).transpose();
        let Ok(after) = after else {
            let message = "the place to continue from is no message id";
            return fail(desk, number, FailureCode::Refused, message);
        };
        let reading = self.reads.values().filter(|work| matches!(work, Work::List(_))).count();
        let picking = self.walks.iter().filter(|walk| matches!(walk.aim, Aim::Pick(..))).count();
        let lists = reading + picking;
        if lists >= LISTS_MAX {
            return fail(desk, number, FailureCode::Busy, "too many lists at once");
        }
        let count_max = match usize::from(filter.count_max) {
            0 => QUEUE_PAGE_MAX,
            count => count.min(QUEUE_PAGE_MAX),
        };
        let listing = Box::new(Listing {
            number,
            filter: filter.clone(),
            count_max,
            todo: VecDeque::new(),
            more: false,
            entries: Vec::new(),
            last: after,
            until_us: desk.now_us.saturating_add(LIST_US_MAX),
        });
        self.walk(desk, number, Aim::Pick(listing, BinaryHeap::new()));
    }

    /// Reads the next message of the page, or sends the page.
    fn go_on(&mut self, desk: &mut Desk, mut listing: Box<Listing>) {
        let full = |listing: &Listing| {
            listing.entries.len() >= listing.count_max || desk.now_us >= listing.until_us
        };
        while let Some(id) = listing.todo.front().copied().filter(|_| !full(&listing)) {
            let token = desk.token + 1;
            match desk.log.read(id, Part::Message, token) {
                Ok(()) => {
                    desk.token = token;
                    self.reads.insert(token, Work::List(listing));
                    return;
                }
                // It has gone meanwhile.
                Err(ReadError::Unknown) => drop(listing.todo.pop_front()),
                Err(_) => break,
            }
        }
        let total = desk.log.stats().messages as u64;
        let (number, page) = (listing.number, listing.page(total));
        answer(desk, number, Reply::Queue(page));
    }

    /// Reads a part of a message's content: the header, the chunks, the rest.
    fn read_part(&mut self, desk: &mut Desk, number: u64, id: &str, part: u32) {
        let found = id.parse::<TransactionId>().ok().and_then(|id| desk.log.get(id));
        let Some((id, chunks)) = found.map(|live| (live.id, live.chunks().len())) else {
            return fail(
                desk,
                number,
                FailureCode::NotFound,
                "no such message; name it with its .n",
            );
        };
        let token = desk.next_token();
        let chunk = part.checked_sub(1).filter(|n| (*n as usize) < chunks);
        match desk.log.read(id, chunk.map_or(Part::Message, Part::Chunk), token) {
            Ok(()) => drop(self.reads.insert(token, Work::Part(number, part))),
            Err(ReadError::Unknown) => fail(desk, number, FailureCode::NotFound, "it has gone"),
            Err(_) => fail(desk, number, FailureCode::Busy, "too many reads wait"),
        }
    }

    fn show(&mut self, desk: &mut Desk, number: u64, id: &str) {
        let of_session = |session: MessageId| {
            let ids = desk.log.messages().map(|live| live.id);
            ids.filter(|id| id.session == session).min()
        };
        let id = match (id.parse::<TransactionId>(), id.parse::<MessageId>()) {
            (Ok(id), _) => desk.log.get(id).map(|live| live.id),
            (_, Ok(session)) => of_session(session),
            _ => {
                return fail(
                    desk,
                    number,
                    FailureCode::Refused,
                    "this is no message id: `ringpost queue list` has them",
                );
            }
        };
        let Some(id) = id else {
            return fail(desk, number, FailureCode::NotFound, "no such message");
        };
        let token = desk.next_token();
        match desk.log.read(id, Part::Message, token) {
            Ok(()) => drop(self.reads.insert(token, Work::Show(number, id))),
            Err(ReadError::Unknown) => fail(desk, number, FailureCode::NotFound, "it has gone"),
            Err(_) => fail(desk, number, FailureCode::Busy, "too many reads wait"),
        }
    }
}

fn status(desk: &Desk, count: Count) -> Status {
    let stats = desk.log.stats();
    let mut alarms = Vec::new();
    if stats.health == Health::Failed {
        alarms.push(format!(
            "core {}: the log cannot be written: mail is answered 451 until it can",
            desk.core
        ));
    }
    if desk.space != Space::Enough || stats.available < NEARLY_FULL_OCTETS {
        let core = desk.core;
        alarms.push(format!("core {core}: the spool is full or nearly so: new mail hears 452"));
    }
    for (member, copied, all) in desk.log.filling() {
        alarms.push(format!(
            "core {}: device {member} is being filled: {copied} of {all} segments are copied",
            desk.core
        ));
    }
    for member in desk.log.waiting_to_join() {
        let core = desk.core;
        let why = "until its log can be written";
        alarms.push(format!("core {core}: device {member} waits to be filled {why}"));
    }
    let core = Core {
        core: u16::try_from(desk.core).unwrap_or(u16::MAX),
        accepted: desk.stream.metrics.get(Counter::MessagesAccepted),
        queued: count.messages,
        ..Core::default()
    };
    let wall_s = desk.wall_us / SECOND_US;
    let oldest = (count.messages > 0).then_some(count.oldest_wall_s);
    Status {
        queued_messages: count.messages,
        queued_recipients: count.recipients,
        held_messages: count.held,
        oldest_s: oldest.map_or(0, |oldest| wall_s.saturating_sub(oldest)),
        spool_free_octets: stats.available,
        cores: List::cut([core]),
        alarms: List::cut(alarms.iter().map(|line| Text::cut(line))),
        ..Status::default()
    }
}

impl Listing {
    /// The message at the head was read, or could not be.
    fn take_in(&mut self, desk: &Desk, stored: Option<&StoredMessage>) {
        let Some(id) = self.todo.pop_front() else { return };
        self.last = Some(id);
        let Some(live) = desk.log.get(id) else { return };
        let envelope = stored.map(|stored| &stored.envelope);
        if envelope.is_none_or(|envelope| fits(envelope, live, &self.filter))
            && self.filter.frozen.is_none_or(|frozen| is_frozen(desk, live) == frozen)
        {
            self.entries.push(entry(desk, live, envelope, self.filter.waits));
        }
    }

    fn page(self, total: u64) -> QueuePage {
        let unfinished = self.more || !self.todo.is_empty();
        // A page that got nowhere would be asked for again and again.
        let next = self.last.filter(|_| unfinished);
        QueuePage {
            messages: List::cut(self.entries),
            next: next.map(|id| Text::cut(&id.to_string())),
            total,
        }
    }
}

fn answer(desk: &mut Desk, number: u64, reply: Reply) {
    let answered = ToHouse::Answered(number, desk.core, Box::new(reply));
    desk.outbox.push(Letter::House(answered));
}

fn fail(desk: &mut Desk, number: u64, code: FailureCode, message: &str) {
    answer(desk, number, Reply::Failure(Failure::new(code, message, "")));
}

/// Whether the conditions hold that need no reading.
fn may_fit(live: &Live, filter: &QueueFilter, wall_s: u64) -> bool {
    let age_s = wall_s.saturating_sub(u64::from(live.received_wall_s));
    filter.age_s_min.is_none_or(|least| age_s >= least)
        && filter.age_s_max.is_none_or(|most| age_s <= most)
        && filter.size_min.is_none_or(|least| live.octets >= least)
        && filter.size_max.is_none_or(|most| live.octets <= most)
        && filter.tries_min.is_none_or(|least| u32::from(live.tries) >= least)
        && filter.held.is_none_or(|held| live.is_held() == held)
}

/// Whether the conditions on texts hold.
fn fits(envelope: &Envelope, live: &Live, filter: &QueueFilter) -> bool {
    let sender = filter.sender.as_deref().is_none_or(|part| match part {
        "<>" => envelope.mail.address.is_empty(),
        part => has(&envelope.mail.address, part),
    });
    let waiting = || waiting(envelope, live);
    let recipient = filter.recipient.as_deref();
    let hop = filter.next_hop.as_deref();
    sender
        && recipient.is_none_or(|part| waiting().any(|r| has(&r.address, part)))
        && hop.is_none_or(|part| waiting().any(|r| has(&r.route, part)))
        && filter.error.as_deref().is_none_or(|part| waiting().any(|r| has(&r.reply, part)))
        && filter.domain.as_deref().is_none_or(|domain| {
            waiting().any(|r| domain_of(&r.address).eq_ignore_ascii_case(domain.as_bytes()))
        })
}

/// Recipients that wait.
fn waiting<'a>(envelope: &'a Envelope, live: &'a Live) -> impl Iterator<Item = &'a Recipient> {
    let numbered = (0..u16::MAX).zip(&envelope.recipients);
    numbered.filter(|(number, _)| live.is_pending(*number)).map(|(_, recipient)| recipient)
}

/// Whether `part` stands in `text`, without regard to case.
fn has(text: &[u8], part: &str) -> bool {
    let part = part.as_bytes();
    part.is_empty() || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

/// What stands behind the last `@`; empty where there is none.
fn domain_of(address: &[u8]) -> &[u8] {
    let at = address.iter().rposition(|octet| *octet == b'@');
    at.map_or(&b""[..], |at| &address[at + 1..])
}

fn is_frozen(desk: &Desk, live: &Live) -> bool {
    let note = desk.hints.note(&message_key(live.id), desk.wall_us);
    note.is_some_and(|note| note.count >= 2)
}

/// The domains a message waits for.
fn domains(envelope: &Envelope, live: &Live) -> Vec<Waits> {
    let mut all: Vec<Waits> = Vec::new();
    for recipient in waiting(envelope, live) {
        let domain = domain_of(&recipient.address).to_ascii_lowercase();
        let domain = Text::cut_octets(&domain);
        match all.iter_mut().find(|waits| waits.domain == domain) {
            Some(waits) => waits.recipients += 1,
            None => {
                let last = Text::cut_octets(&recipient.reply);
                all.push(Waits { domain, recipients: 1, last });
            }
        }
    }
    all
}

fn entry(desk: &Desk, live: &Live, envelope: Option<&Envelope>, waits: bool) -> QueueEntry {
    let wall_s = desk.wall_us / SECOND_US;
    let first = envelope.and_then(|envelope| waiting(envelope, live).next());
    let unreadable = || Text::cut("the message cannot be read from the log now");
    QueueEntry {
        id: Text::cut(&live.id.to_string()),
        age_s: wall_s.saturating_sub(u64::from(live.received_wall_s)),
        size_octets: live.octets,
        sender: envelope.map_or_else(Text::default, |e| Text::cut_octets(&e.mail.address)),
        recipient: first.map_or_else(Text::default, |r| Text::cut_octets(&r.address)),
        pending: live.pending_count(),
        recipients: u32::from(live.recipients),
        tries: u32::from(live.tries),
        next_s: u64::from(live.next_wall_s).saturating_sub(wall_s),
        held: live.is_held(),
        frozen: is_frozen(desk, live),
        last: match envelope {
            Some(_) => first.map_or_else(Text::default, |r| Text::cut_octets(&r.reply)),
            None => unreadable(),
        },
        waits: List::cut(envelope.filter(|_| waits).map_or_else(Vec::new, |e| domains(e, live))),
    }
}

fn shown(desk: &Desk, id: TransactionId, stored: Result<&StoredMessage, ReadError>) -> Reply {
    let refuse = |code, message: &str| Reply::Failure(Failure::new(code, message, ""));
    let Some(live) = desk.log.get(id) else {
        return refuse(FailureCode::NotFound, "it has gone");
    };
    let envelope = match stored {
        Ok(stored) => &stored.envelope,
        Err(error) => {
            let message = format!("the message cannot be read from the log: {error:?}");
            return refuse(FailureCode::Internal, &message);
        }
    };
    let tls = envelope.tls.as_ref().map(|tls| {
        let version = rustls::ProtocolVersion::from(tls.version);
        let cipher = rustls::CipherSuite::from(tls.cipher);
        format!("{version:?} {cipher:?}")
    });
    Reply::Message(Box::new(QueueMessage {
        entry: entry(desk, live, Some(envelope), true),
        session: Text::cut(&id.session.to_string()),
        parent: envelope.parent.map_or_else(Text::default, |p| Text::cut(&p.to_string())),
        received_us: envelope.received_wall_us,
        expires_us: envelope.expiry_wall_us,
        client: envelope.client.map_or_else(Text::default, |c| Text::cut(&c.to_string())),
        helo: Text::cut_octets(&envelope.helo),
        tls: tls.map_or_else(Text::default, |tls| Text::cut(&tls)),
        envelope_id: Text::cut_octets(&envelope.mail.envid),
        recipients: List::cut(envelope.recipients.iter().map(recipient)),
    }))
}

/// A part of a message's content as it will be sent.
fn content(part: u32, result: &Result<ReadData, ReadError>) -> Reply {
    let (octets, next) = match result {
        Ok(ReadData::Message(stored)) if part == 0 => {
            (spool::received::apply(&stored.header, &stored.envelope), Some(1))
        }
        // Behind the chunks stands the rest.
        Ok(ReadData::Message(stored)) => (stored.tail.clone(), None),
        Ok(ReadData::Chunk(octets)) => (octets.clone(), Some(part + 1)),
        Err(error) => {
            let message = format!("the message cannot be read from the log: {error:?}");
            return Reply::Failure(Failure::new(FailureCode::Internal, &message, ""));
        }
    };
    match Text::try_from(control::octets::to_base64(&octets)) {
        Ok(octets) => Reply::Part(Box::new(control::Part { octets, next, ..Default::default() })),
        Err(_) => {
            let message = "this part of the message is too large for one answer";
            let advice = "with the daemon stopped: `ringpost spool export`";
            Reply::Failure(Failure::new(FailureCode::Refused, message, advice))
        }
    }
}

fn recipient(recipient: &Recipient) -> QueueRecipient {
    use record::RecipientState as S;
    QueueRecipient {
        address: Text::cut_octets(&recipient.address),
        state: match recipient.state {
            S::Pending => RecipientState::Pending,
            S::Delivered => RecipientState::Delivered,
            S::HandedOver => RecipientState::HandedOver,
            S::Failed | S::Discarded => RecipientState::Failed,
            S::Held => RecipientState::Held,
            S::Redirected => RecipientState::Redirected,
            S::Removed => RecipientState::Removed,
        },
        tries: u32::from(recipient.tries),
        next_hop: Text::cut_octets(&recipient.route),
        last: Text::cut_octets(&recipient.reply),
    }
}

fn ledger(desk: &Desk) -> Ledger {
    let found = desk.log.stats().ledger;
    Ledger {
        accepted: found.accepted,
        generated: found.generated,
        delivered: found.delivered,
        handed_over: found.handed_over,
        bounced: found.bounced,
        double_bounces: found.double_bounces,
        removed: found.removed,
        held: found.held,
        queued: found.queued,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> (Envelope, Live) {
        let recipient = |address: &str, route: &str| Recipient {
            address: address.as_bytes().into(),
            route: route.as_bytes().into(),
            ..Recipient::default()
        };
        let mut envelope = Envelope {
            recipients: vec![
                recipient("Ann@example.org", "inside"),
                recipient("bob@example.net", "outside"),
            ],
            ..Envelope::default()
        };
        envelope.mail.address = b"carol@example.com".as_slice().into();
        let mut table = spool::live::Table::default();
        let summary = spool::index::Summary {
            recipients: 2,
            pending: 0b01,
            ..spool::index::Summary::default()
        };
        assert!(table.insert(&summary, spool::segment::SegmentRef::NONE));
        let live = table.iter().next().unwrap().clone();
        (envelope, live)
    }

    #[test]
    fn filters_look_at_parts_and_at_recipients_that_wait() {
        let (envelope, live) = envelope();
        let fits = |change: fn(&mut QueueFilter)| {
            let mut filter = QueueFilter::default();
            change(&mut filter);
            fits(&envelope, &live, &filter)
        };
        assert!(fits(|_| {}));
        assert!(fits(|f| f.sender = Some(Text::cut("CAROL@"))));
        assert!(!fits(|f| f.sender = Some(Text::cut("<>"))));
        assert!(fits(|f| f.recipient = Some(Text::cut("ann@"))));
        assert!(!fits(|f| f.recipient = Some(Text::cut("bob@"))), "bob has his mail");
        assert!(fits(|f| f.next_hop = Some(Text::cut("ins"))));
        assert!(!fits(|f| f.next_hop = Some(Text::cut("outs"))));
    }

    #[test]
    fn a_page_says_where_the_next_one_begins() {
        let id = |n| TransactionId { session: MessageId::new(1, 1, 0, n), n: 1 };
        let listing = |todo: Vec<TransactionId>, more| Listing {
            number: 1,
            filter: QueueFilter::default(),
            count_max: 10,
            todo: todo.into(),
            more,
            entries: vec![QueueEntry::default()],
            last: Some(id(3)),
            until_us: 0,
        };
        assert_eq!(listing(vec![], false).page(1).next, None);
        let next = id(3).to_string();
        assert_eq!(listing(vec![id(4)], false).page(1).next.as_deref(), Some(next.as_str()));
        assert_eq!(listing(vec![], true).page(1).next.as_deref(), Some(next.as_str()));
    }
}
