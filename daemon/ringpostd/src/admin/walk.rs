//! What looks at every message of a core: some places of the table a turn, however long the queue.
//!
//! *Limits*: [`WALKS_MAX`] at once, [`PLACES`] places and [`ACTS`] messages a turn and walk;
//! an act takes at most [`PICKED_MAX`] entries.

use std::collections::{BinaryHeap, HashMap, VecDeque};

use control::{Act, Backlog, Failure, FailureCode, List, QueueAct, Reply, Summary, Text};
use spool::id::{MessageId, TransactionId};
use spool::live::Live;
use spool::log::{Part, ReadError};
use spool::message::Envelope;

use super::{Listing, SECOND_US, may_fit, order};
use crate::desk::Desk;
use crate::queue::Seen;
use crate::relay::{Acted, Relay};
use crate::route::Named;

/// Walks at once.
pub(super) const WALKS_MAX: usize = 8;
/// Places looked at in one turn.
const PLACES: usize = 4_096;
/// Messages that something is done to in one turn.
const ACTS: usize = 256;
/// Messages of one act that are being read or written to be moved.
const MOVES_MAX: usize = 64;
/// Entries of one act.
const PICKED_MAX: usize = 200_000;
/// Messages read for one page.
pub(super) const SCAN_MAX: usize = 2_000;
/// Ages that divide a backlog, seconds.
const AGES_S: [u64; 5] = [300, 3_600, 21_600, 86_400, 259_200];

/// What the whole queue comes to.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Count {
    pub(super) messages: u64,
    pub(super) recipients: u64,
    pub(super) held: u64,
    pub(super) oldest_wall_s: u64,
}

/// A message's place in a listing.
type Order = (u32, u64, MessageId, u32);

/// What a walk is for.
#[derive(Debug)]
pub(super) enum Aim {
    /// For status.
    Count(Count),
    /// What may be on a page.
    Pick(Box<Listing>, BinaryHeap<Order>),
    /// The summary by next hop.
    Summary(Backlog, HashMap<u32, Backlog>),
    /// Messages for an act.
    Choose(Box<Chosen>),
    /// The act itself.
    Act(Box<Acting>),
}

/// An act's messages, as far as they were looked for.
#[derive(Debug)]
pub(super) struct Chosen {
    act: QueueAct,
    to: Option<Named>,
    uid: u32,
    ids: Vec<(MessageId, Option<u32>)>,
    picked: Vec<Seen>,
}

/// An act under way.
#[derive(Debug)]
pub(super) struct Acting {
    act: QueueAct,
    to: Option<Named>,
    uid: u32,
    left: VecDeque<Seen>,
    done: u64,
    busy: u64,
    unfit: u64,
}

/// A message that was read to be moved: whose walk, its entries, what the log says.
pub(super) type Read = (u64, Vec<Seen>, Result<Box<Envelope>, ReadError>);

/// A walk under way.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) number: u64,
    pub(super) at: usize,
    pub(super) aim: Aim,
    /// Records of the log it waits for.
    pub(super) waits: usize,
}

/// What a walk came to.
#[derive(Debug)]
pub(super) enum Came {
    /// It goes on in the next turn.
    On(Walk),
    /// To an answer.
    Answer(u64, Reply),
    /// The queue was counted.
    Counted(Count),
    /// A page may be read.
    Picked(Box<Listing>),
}

/// Where ids are to be had.
const WHERE_IDS: &str = "`ringpost queue list` shows them";

impl Chosen {
    /// The messages that are meant.
    pub(super) fn new(act: &QueueAct, uid: u32) -> Result<Self, Failure> {
        let bad = || Failure::new(FailureCode::Refused, "this is no message id", WHERE_IDS);
        let id = |text: &str| -> Result<_, Failure> {
            if let Ok(id) = text.parse::<TransactionId>() {
                return Ok((id.session, Some(id.n)));
            }
            text.parse::<MessageId>().map(|session| (session, None)).map_err(|_| bad())
        };
        let bad_host = || Failure::new(FailureCode::Refused, "this is no host and port", "");
        let to = act.to.as_deref().map(|to| Named::parse(to).ok_or_else(bad_host)).transpose()?;
        let mut ids = act.ids.iter().map(|text| id(text)).collect::<Result<Vec<_>, _>>()?;
        ids.sort_unstable();
        Ok(Self { act: act.clone(), to, uid, ids, picked: Vec::new() })
    }

    fn wants(&self, id: TransactionId, next_hop: &str) -> bool {
        if self.act.all {
            return true;
        }
        if let Some(wanted) = &self.act.next_hop {
            return **wanted == *next_hop;
        }
        let from = self.ids.partition_point(|(session, _)| *session < id.session);
        let same = self.ids[from..].iter().take_while(|(session, _)| *session == id.session);
        same.clone().any(|(_, n)| n.is_none_or(|n| n == id.n))
    }
}

impl Walk {
    /// A message that it waits for was read: it is moved. What the log is to say then is counted.
    pub(super) fn move_one(
        &mut self,
        desk: &mut Desk,
        relay: &mut Relay,
        (seen, envelope): (&[Seen], Result<Box<Envelope>, ReadError>),
        tokens: &mut HashMap<u64, u64>,
    ) {
        let Aim::Act(acting) = &mut self.aim else { return };
        self.waits = self.waits.saturating_sub(1);
        let seen = relay.still(seen);
        let Ok(envelope) = envelope else {
            acting.unfit += 1;
            return;
        };
        let token = desk.next_token();
        let whose = (token, acting.uid);
        match relay.move_to(desk, &seen, &envelope, acting.to.as_ref(), whose) {
            Acted::Durable => {
                acting.done += 1;
                self.waits += 1;
                tokens.insert(token, self.number);
            }
            Acted::Busy => acting.busy += 1,
            Acted::Done | Acted::Begun | Acted::Unfit => acting.unfit += 1,
        }
    }

    pub(super) fn new(number: u64, aim: Aim) -> Self {
        Self { number, at: 0, aim, waits: 0 }
    }

    /// It has nothing to do but wait for the log.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(&self.aim, Aim::Act(acting) if acting.left.is_empty()
            || (acting.moves() && self.waits >= MOVES_MAX))
    }

    /// A turn's work; `tokens` takes those of the log's answers the walk waits for.
    pub(super) fn step(
        self,
        desk: &mut Desk,
        relay: &mut Relay,
        tokens: &mut HashMap<u64, u64>,
        asked: &mut Vec<(u64, Vec<Seen>)>,
    ) -> Came {
        let Self { number, at, aim, waits } = self;
        let on = |at, aim| Came::On(Self { number, at, aim, waits });
        match aim {
            Aim::Count(mut count) => {
                match desk.log.look(at, PLACES, |live| add_live(&mut count, live)) {
                    Some(at) => on(at, Aim::Count(count)),
                    None => Came::Counted(count),
                }
            }
            Aim::Pick(listing, mut first) => match pick(desk, at, &listing, &mut first) {
                Some(at) => on(at, Aim::Pick(listing, first)),
                None => Came::Picked(picked(listing, first)),
            },
            Aim::Summary(mut total, mut hops) => {
                match sum_up(desk, relay, at, &mut total, &mut hops) {
                    Some(at) => on(at, Aim::Summary(total, hops)),
                    None => {
                        let summary = named(desk, relay, total, hops);
                        Came::Answer(number, Reply::Summary(Box::new(summary)))
                    }
                }
            }
            Aim::Choose(mut chosen) => match chosen.look(relay, at) {
                Some(at) => on(at, Aim::Choose(chosen)),
                None => on(0, Aim::Act(Box::new(Acting::new(*chosen)))),
            },
            Aim::Act(mut acting) => {
                let waits = waits
                    + match acting.moves() {
                        true => acting.read_some(desk, relay, waits, asked),
                        false => acting.some(desk, relay, number, tokens),
                    };
                let over = acting.left.is_empty() && waits == 0;
                if over && relay.given_up(number) == 0 {
                    let text = format!("{} {} {}", acting.done, acting.busy, acting.unfit);
                    return Came::Answer(number, Reply::Done { message: Text::cut(&text) });
                }
                Came::On(Self { number, at, aim: Aim::Act(acting), waits })
            }
        }
    }
}

/// Keeps the first messages in order that may be on a page.
fn pick(desk: &Desk, at: usize, listing: &Listing, first: &mut BinaryHeap<Order>) -> Option<usize> {
    let wall_s = desk.wall_us / SECOND_US;
    desk.log.look(at, PLACES, |live| {
        let behind = listing.last.is_none_or(|after| order(live.id) > order(after));
        if behind && may_fit(live, &listing.filter, wall_s) {
            first.push(order(live.id));
            if first.len() > SCAN_MAX + 1 {
                first.pop();
            }
        }
    })
}

fn picked(mut listing: Box<Listing>, first: BinaryHeap<Order>) -> Box<Listing> {
    let mut ids = first.into_sorted_vec();
    listing.more = ids.len() > SCAN_MAX;
    ids.truncate(SCAN_MAX);
    let id = |(_, _, session, n)| TransactionId { session, n };
    listing.todo = ids.into_iter().map(id).collect();
    listing
}

fn sum_up(
    desk: &Desk,
    relay: &Relay,
    at: usize,
    total: &mut Backlog,
    hops: &mut HashMap<u32, Backlog>,
) -> Option<usize> {
    let wall_s = desk.wall_us / SECOND_US;
    relay.look(at, PLACES, |seen| {
        let Some(live) = desk.log.get(relay.id_of(&seen)) else { return };
        let age_s = wall_s.saturating_sub(u64::from(live.received_wall_s));
        for backlog in [&mut *total, hops.entry(seen.destination).or_default()] {
            add(backlog, live.octets, age_s, seen.held);
        }
    })
}

impl Chosen {
    /// Looks at some entries; where to go on.
    fn look(&mut self, relay: &Relay, at: usize) -> Option<usize> {
        let mut picked = std::mem::take(&mut self.picked);
        let next = relay.look(at, PLACES, |seen| {
            let hop = match self.act.next_hop {
                Some(_) => relay.destination_name(seen.destination),
                None => String::new(),
            };
            if picked.len() < PICKED_MAX && self.wants(relay.id_of(&seen), &hop) {
                picked.push(seen);
            }
        });
        self.picked = picked;
        next
    }
}

impl Acting {
    fn new(chosen: Chosen) -> Self {
        let Chosen { act, to, uid, mut picked, .. } = chosen;
        picked.sort_by_key(|seen| seen.message);
        Self { act, to, uid, left: picked.into(), done: 0, busy: 0, unfit: 0 }
    }

    /// A turn's messages; how many records of the log are to be waited for.
    fn some(
        &mut self,
        desk: &mut Desk,
        relay: &mut Relay,
        number: u64,
        tokens: &mut HashMap<u64, u64>,
    ) -> usize {
        let mut waits = 0;
        for _ in 0..ACTS {
            let Some((acted, token)) = self.one(desk, relay, number) else { break };
            match acted {
                Acted::Durable => {
                    self.done += 1;
                    waits += 1;
                    tokens.insert(token, number);
                }
                Acted::Done | Acted::Begun => self.done += 1,
                Acted::Busy => self.busy += 1,
                Acted::Unfit => self.unfit += 1,
            }
        }
        waits
    }

    /// Whether each message must be read before it is acted on.
    fn moves(&self) -> bool {
        matches!(self.act.act, Act::Move | Act::Unmove)
    }

    /// Asks the log for some messages; how many.
    fn read_some(
        &mut self,
        desk: &mut Desk,
        relay: &Relay,
        waits: usize,
        asked: &mut Vec<(u64, Vec<Seen>)>,
    ) -> usize {
        let mut count = 0;
        while waits + count < MOVES_MAX {
            let Some(entries) = self.next() else { break };
            let entries = relay.still(&entries);
            let Some(first) = entries.first() else {
                self.unfit += 1;
                continue;
            };
            let token = desk.next_token();
            match desk.log.read(relay.id_of(first), Part::Message, token) {
                Ok(()) => {
                    asked.push((token, entries));
                    count += 1;
                }
                Err(ReadError::Busy) => {
                    entries.into_iter().rev().for_each(|entry| self.left.push_front(entry));
                    break;
                }
                Err(_) => self.unfit += 1,
            }
        }
        count
    }

    /// The entries of the next message.
    fn next(&mut self) -> Option<Vec<Seen>> {
        let first = *self.left.front()?;
        let mut entries = Vec::with_capacity(1);
        while let Some(seen) = self.left.front().filter(|seen| seen.message == first.message) {
            entries.push(*seen);
            self.left.pop_front();
        }
        Some(entries)
    }

    /// The next message, and the token for the log.
    fn one(&mut self, desk: &mut Desk, relay: &mut Relay, number: u64) -> Option<(Acted, u64)> {
        let entries = self.next()?;
        // Turns have passed since it was chosen: what has gone or is being sent now is found out.
        let entries = relay.still(&entries);
        let token = desk.next_token();
        Some((relay.act(desk, self.act.act, &entries, (token, number, self.uid)), token))
    }
}

fn add_live(count: &mut Count, live: &Live) {
    count.messages += 1;
    count.recipients += u64::from(live.pending_count());
    count.held += u64::from(live.is_held());
    let wall_s = u64::from(live.received_wall_s);
    if count.messages == 1 || wall_s < count.oldest_wall_s {
        count.oldest_wall_s = wall_s;
    }
}

fn add(backlog: &mut Backlog, octets: u64, age_s: u64, held: bool) {
    backlog.oldest_s = backlog.oldest_s.max(age_s);
    let first = backlog.messages == 0;
    backlog.newest_s = if first { age_s } else { backlog.newest_s.min(age_s) };
    backlog.messages += 1;
    backlog.octets += octets;
    backlog.held += u64::from(held);
    backlog.ages[AGES_S.iter().take_while(|age| age_s >= **age).count()] += 1;
}

fn named(desk: &Desk, relay: &Relay, total: Backlog, hops: HashMap<u32, Backlog>) -> Summary {
    let mut hops: Vec<Backlog> = hops
        .into_iter()
        .map(|(number, backlog)| {
            let name = relay.destination_name(number);
            let standing = relay.standing_of(number);
            let closed_us = standing.map_or(0, |s| s.closed_until_us).saturating_sub(desk.now_us);
            let retry = desk.hints.retry(name.as_bytes(), desk.wall_us);
            let last = retry.as_ref().map_or(&b""[..], |retry| retry.reply.text());
            Backlog {
                failures: standing.map_or(0, |s| s.failures),
                closed_s: closed_us.div_ceil(SECOND_US),
                last: Text::cut_octets(last),
                next_hop: Text::cut(&name),
                ..backlog
            }
        })
        .collect();
    hops.sort_by(|a, b| b.messages.cmp(&a.messages).then_with(|| a.next_hop.cmp(&b.next_hop)));
    Summary { total, next_hops: List::cut(hops) }
}
