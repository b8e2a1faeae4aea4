//! What the operator does to messages: retry, freeze, thaw, fallback, bounce, remove.
//!
//! *Guarantees.* Each act is a record of the log before its answer is given; what is being sent is
//! not taken out of the hands of whoever sends it.
//! *Limits.* The caller says how many messages a turn; a message given up is one of
//! [`super::JOBS_MAX`] attempts like any other.

use control::Act;
use hints::{Kind, What};
use spool::id::TransactionId;
use spool::log::ChangeError;
use spool::record::RecipientState;

use super::Relay;
use crate::desk::{Desk, id_text};
use crate::events::Event;
use crate::queue::{Outcome, Seen, Standing};
use crate::tally::message_key;

/// Places looked at in one turn when standing orders have changed.
const WAKE_PLACES: usize = 4_096;

/// What became of an act on one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acted {
    /// Done; with the token of the log's [`spool::log::Event::Changed`].
    Durable,
    /// Done; nothing of it is in the log.
    Done,
    /// Begun; [`Relay::given_up`] counts it.
    Begun,
    /// It is being sent now.
    Busy,
    /// It does not fit: not held, no further tier, not moved.
    Unfit,
}

impl Relay {
    /// What every connection to a next hop is at: direction, peer, seconds open, TLS, id, words.
    pub fn told(&self, now_us: u64) -> impl Iterator<Item = Vec<String>> {
        self.links.values().map(move |link| {
            let hop = link.hop();
            let open_s = now_us.saturating_sub(link.opened_us()) / 1_000_000;
            let tls = link.tls().map_or("-", |tls| tls.version).to_owned();
            let job = link.job.and_then(|job| self.jobs.get(job)?.as_deref());
            let id = job.map_or_else(String::new, |job| job.id.to_string());
            let at = match job {
                Some(job) => format!("sends to {} for {}", hop.name, job.domain),
                None => format!("idle, to {}", hop.name),
            };
            vec!["out".to_owned(), hop.address.to_string(), open_s.to_string(), tls, id, at]
        })
    }

    /// The message of an entry.
    #[must_use]
    pub fn id_of(&self, seen: &Seen) -> TransactionId {
        self.message(seen.message)
    }

    /// Looks at some places of the queue; see [`crate::queue::Queue::walk`].
    pub fn look(&self, from: usize, count: usize, take: impl FnMut(Seen)) -> Option<usize> {
        self.queue.walk(from, count, take)
    }

    /// The name of a destination.
    #[must_use]
    pub fn destination_name(&self, number: u32) -> String {
        self.names
            .name(number)
            .map_or_else(String::new, |name| String::from_utf8_lossy(name).into_owned())
    }

    /// How a destination stands.
    #[must_use]
    pub fn standing_of(&self, number: u32) -> Option<Standing> {
        self.queue.standing(number)
    }

    /// Those of these entries that are there still, as they stand now.
    #[must_use]
    pub fn still(&self, seen: &[Seen]) -> Vec<Seen> {
        seen.iter().filter_map(|seen| self.queue.seen(seen.handle)).collect()
    }

    /// Does something to one message, whose entries are all in `seen`. `token` is for the log;
    /// `number` names the act, `uid` who wants it.
    pub fn act(
        &mut self,
        desk: &mut Desk,
        act: Act,
        seen: &[Seen],
        (token, number, uid): (u64, u64, u32),
    ) -> Acted {
        let Some(first) = seen.first() else { return Acted::Unfit };
        let id = self.message(first.message);
        let Some(live) = desk.log.get(id) else { return Acted::Unfit };
        let held = live.is_held();
        if seen.iter().any(|seen| seen.active) {
            return Acted::Busy;
        }
        let text = id_text(id);
        match act {
            Act::Retry if held => Acted::Unfit,
            Act::Retry => {
                for seen in seen {
                    self.open(desk, seen.destination);
                    self.queue.release(seen.handle, desk.now_us);
                }
                Acted::Done
            }
            Act::Freeze => {
                for seen in seen {
                    self.queue.hold(seen.handle);
                }
                desk.tell(&Event::Held { id: &text, why: "operator" });
                durable(desk.log.hold_message(id, true, Some(token), desk.now_us))
            }
            Act::Thaw => {
                // A message that was frozen because the daemon fell over with it gets its chance.
                desk.hints.forget_note(&message_key(id));
                for seen in seen {
                    self.queue.release(seen.handle, desk.now_us);
                }
                desk.tell(&Event::Released { id: &text });
                durable(desk.log.hold_message(id, false, Some(token), desk.now_us))
            }
            Act::Fallback => self.fall_back(desk, id, seen, token),
            // Whoever asks reads the message first: [`Relay::move_to`].
            Act::Move | Act::Unmove => Acted::Unfit,
            Act::Bounce => {
                if held {
                    let _ = desk.log.hold_message(id, false, None, desk.now_us);
                }
                self.condemned.insert(id, number);
                *self.giving_up.entry(number).or_insert(0) += 1;
                for seen in seen {
                    self.queue.hurry(seen.handle, desk.now_us);
                }
                Acted::Begun
            }
            Act::Remove => {
                desk.tell(&Event::Removed { id: &text, uid });
                let removed = RecipientState::Removed;
                let acted = durable(desk.log.done_all(id, removed, Some(token), desk.now_us));
                self.forget(first.message);
                for seen in seen {
                    self.queue.remove(seen.handle);
                    self.unname(seen.message);
                }
                acted
            }
        }
    }

    /// Messages of an act that are not given up yet.
    #[must_use]
    pub fn given_up(&self, number: u64) -> usize {
        self.giving_up.get(&number).copied().unwrap_or(0)
    }

    /// The report about a message that was to be given up is durable, or none was wanted.
    pub(super) fn is_given_up(&mut self, id: TransactionId) {
        let Some(number) = self.condemned.remove(&id) else { return };
        if let Some(left) = self.giving_up.get_mut(&number) {
            *left -= 1;
            if *left == 0 {
                self.giving_up.remove(&number);
            }
        }
    }

    /// The destination is believed to be back.
    pub(super) fn open(&mut self, desk: &mut Desk, destination: u32) {
        if self.queue.standing(destination).is_some_and(|s| s.failures > 0) {
            self.queue.open(destination);
        }
        if let Some(name) = self.names.name(destination).map(<[u8]>::to_vec)
            && desk.hints.retry(&name, desk.wall_us).is_some()
        {
            desk.hint(Kind::Retry, &name, What::Remove);
        }
    }

    /// The next fallback tier, from now on and over restarts.
    fn fall_back(
        &mut self,
        desk: &mut Desk,
        id: TransactionId,
        seen: &[Seen],
        token: u64,
    ) -> Acted {
        let Some((tries, tier)) = desk.log.get(id).map(|live| (live.tries, live.tier)) else {
            return Acted::Unfit;
        };
        let most = seen.iter().filter_map(|seen| {
            let name = self.destination_name(seen.destination);
            let route = name.split('/').next().unwrap_or_default().to_owned();
            let routes = desk.ways.routes().iter();
            routes.filter(|r| *r.name == *route).map(|r| r.tiers.len()).next()
        });
        let tiers = most.max().unwrap_or(1);
        if usize::from(tier) + 1 >= tiers {
            return Acted::Unfit;
        }
        let (now_us, wall_us) = (desk.now_us, desk.wall_us);
        if desk.log.defer(id, wall_us, tries, tier + 1, Vec::new(), now_us).is_err() {
            return Acted::Unfit;
        }
        for seen in seen {
            self.open(desk, seen.destination);
            self.queue.release(seen.handle, now_us);
        }
        // A record behind the other: when it is durable, so is that.
        durable(desk.log.hold_message(id, false, Some(token), now_us))
    }

    /// Content kept for a first attempt that will not be made.
    pub(super) fn forget(&mut self, message: u64) {
        if let Some(fresh) = self.fresh.remove(&message) {
            self.fresh_octets -= fresh.content.header.len() + fresh.content.body.len();
        }
    }

    /// Standing orders have changed: what was held by them is looked at again, some of it a turn.
    pub(super) fn wake(&mut self, desk: &Desk) {
        let Some(from) = self.waking else { return };
        let mut found = Vec::new();
        self.waking = self.queue.walk(from, WAKE_PLACES, |seen| {
            if seen.held {
                found.push(seen);
            }
        });
        for seen in found {
            let live = desk.log.get(self.message(seen.message));
            if live.is_some_and(|live| !live.is_held()) {
                self.queue.release(seen.handle, desk.now_us);
            }
        }
    }

    /// An entry whose recipients all wait for a standing order to be taken back.
    pub(super) fn keep_back(&mut self, desk: &Desk, index: usize) {
        let job = self.remove(index);
        self.queue.finished(job.handle(), desk.now_us, Outcome::Hold, &self.wall, 0);
    }
}

fn durable(result: Result<(), ChangeError>) -> Acted {
    if result.is_ok() { Acted::Durable } else { Acted::Unfit }
}
