//! Messages that the operator sends to a host of his own choice, and back to their route.
//!
//! *Guarantees.* Nothing is sent to that host before the log says so, and over a restart it stays
//! so. What is under way to a next hop is left alone. A message's recipients move with the
//! destination that was chosen, or all of them where its destination was not looked at yet.
//! *Failure.* What that host refuses for good waits, as after a refusal for now: who named it may
//! have erred, and no sender is to hear of that.

use std::collections::HashSet;

use spool::id::TransactionId;
use spool::log::ChangeError;
use spool::message::Envelope;
use spool::record::RecipientResult;

use super::job::{address_of, domain_of, unchanged};
use super::{Acted, Relay, UNSORTED, destination_name};
use crate::desk::{Desk, id_text};
use crate::events::Event;
use crate::queue::{Handle, Item, Outcome, Seen, Work};
use crate::route::Named;

/// What becomes of the queue's entries when the log has it.
#[derive(Debug)]
pub(super) struct Moving {
    id: TransactionId,
    entries: Vec<Handle>,
    /// Where its recipients go now, as `domains` says it; without what has an entry already.
    domains: Vec<Box<str>>,
}

impl Relay {
    /// Whether the operator's act on this message is not in the log yet.
    pub(super) fn rests(&self, id: TransactionId) -> bool {
        self.at_rest.contains(&id)
    }

    /// A message that rests: it is looked at again in a moment.
    pub(super) fn let_rest(&mut self, desk: &Desk, work: &Work, id: TransactionId) {
        let expires_us = self.expires_us(desk, id);
        let outcome = Outcome::Later { due_us: desk.now_us + super::start::BUSY_US, expires_us };
        self.queue.finished(work.handle, desk.now_us, outcome, &self.wall, 0);
    }

    /// Sends the recipients of these entries to `to`, or back to their route. All entries are of
    /// one message, `envelope` is what the log says of it.
    pub fn move_to(
        &mut self,
        desk: &mut Desk,
        seen: &[Seen],
        envelope: &Envelope,
        to: Option<&Named>,
        (token, uid): (u64, u32),
    ) -> Acted {
        let Some(first) = seen.first() else { return Acted::Unfit };
        let id = self.message(first.message);
        let under_way = self.jobs.iter().flatten().any(|job| job.id == id);
        if under_way || self.rests(id) || seen.iter().any(|seen| seen.active) {
            return Acted::Busy;
        }
        let Some((moved, results)) = self.rerouted(desk, id, seen, envelope, to) else {
            return Acted::Unfit;
        };
        let (wall_us, now_us) = (desk.wall_us, desk.now_us);
        let mut written = desk.log.reroute(id, wall_us, results.clone(), token, now_us);
        if written == Err(ChangeError::TooLarge) {
            // Rather without the replies of so many recipients than not at all.
            let short = results.into_iter().map(|r| RecipientResult { reply: Box::default(), ..r });
            written = desk.log.reroute(id, wall_us, short.collect(), token, now_us);
        }
        if written.is_err() {
            return Acted::Unfit;
        }
        let to = to.map(Named::text).unwrap_or_default();
        desk.tell(&Event::Moved { id: &id_text(id), to: &to, uid });
        self.forget(first.message);
        for seen in seen {
            self.queue.hold(seen.handle);
        }
        let entries = seen.iter().map(|seen| seen.handle).collect();
        self.at_rest.insert(id);
        self.moving.insert(token, Moving { id, entries, domains: moved });
        Acted::Durable
    }

    /// Where the recipients go now that need an entry there, and the record; nothing where nothing
    /// would change.
    fn rerouted(
        &self,
        desk: &Desk,
        id: TransactionId,
        seen: &[Seen],
        envelope: &Envelope,
        to: Option<&Named>,
    ) -> Option<(Vec<Box<str>>, Vec<RecipientResult>)> {
        let live = desk.log.get(id)?;
        let chosen: HashSet<String> =
            seen.iter().map(|seen| self.destination_name(seen.destination)).collect();
        let all = chosen.contains(std::str::from_utf8(UNSORTED).expect("it is ASCII"));
        let (mut after, mut results, mut changed) = (envelope.clone(), Vec::new(), false);
        let mut elsewhere: HashSet<Box<[u8]>> = HashSet::new();
        let mut moved = Vec::new();
        for (n, recipient) in (0..u16::MAX).zip(&mut after.recipients) {
            if !live.is_pending(n) {
                continue;
            }
            let named = Named::of(&recipient.route);
            let domain = domain_of(address_of(envelope, n));
            let place = named.as_ref().map_or_else(|| domain.clone(), Named::text);
            let name = destination_name(desk, &place);
            if !all && !chosen.contains(&*String::from_utf8_lossy(&name)) {
                elsewhere.insert(name);
            } else if to != named.as_ref() {
                changed = true;
                let own = desk.ways.route(&domain).map_or("none", |route| &*route.name);
                let route = to.map_or_else(|| own.to_owned(), Named::text);
                recipient.route = route.into_bytes().into();
                moved.push(to.map_or(domain, Named::text).into_boxed_str());
            } else {
                moved.push(place.into_boxed_str());
            }
            results.push(unchanged(n, recipient));
        }
        moved.sort_unstable();
        moved.dedup();
        moved.retain(|domain| !elsewhere.contains(&destination_name(desk, domain)));
        changed.then_some((moved, results))
    }

    /// The log has it: the entries go where the record says, and are due there.
    pub fn changed(&mut self, desk: &mut Desk, token: u64) {
        let Some(Moving { id, entries, domains }) = self.moving.remove(&token) else { return };
        self.at_rest.remove(&id);
        let seen: Vec<Seen> = entries.iter().filter_map(|entry| self.queue.seen(*entry)).collect();
        let (Some(first), Some(live)) = (seen.first(), desk.log.get(id)) else { return };
        let (message, held) = (first.message, live.is_held());
        let expires_us = self.expires_us(desk, id);
        let mut destinations = Vec::with_capacity(1);
        for domain in &domains {
            let destination = self.destination(desk, domain);
            if !destinations.contains(&destination) {
                destinations.push(destination);
            }
        }
        for destination in destinations {
            self.open(desk, destination);
            let item = Item { message, destination, due_us: desk.now_us, expires_us };
            let handle = self.queue.restore(item);
            if held {
                self.hold(handle);
            }
            self.messages[usize::try_from(message).expect("an index")].entries += 1;
        }
        for seen in seen {
            if self.queue.remove(seen.handle) {
                self.unname(message);
            }
        }
    }
}
