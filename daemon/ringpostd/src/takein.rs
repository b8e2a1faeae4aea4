//! Messages of a mirror's half that went on alone, on their way into this core's log.
//!
//! *Guarantees.* The house hears that a message is taken in when it is durable, under an id of this
//! run: the half may have given its own ids to other messages than this side did.
//! *Limits.* One message of each core at a time: the house waits for the answer.
//! *Failure.* No space, no log: the house hears why, and nothing of the message is kept.

use std::collections::HashMap;

use control::{Failure, FailureCode, Reply, Text};
use spool::id::TransactionId;
use spool::limits::APPEND_BYTES_MAX;
use spool::log::{Flow, OpenKind, Refusal, Transaction, TransactionError};

use crate::desk::{Desk, Letter, Pending, id_text};
use crate::events::{Event, Note};
use crate::post::{Arriving, ToHouse};

/// One of them.
#[derive(Debug)]
struct Work {
    /// The house's question.
    number: u64,
    old: TransactionId,
    new: TransactionId,
    tx: Transaction,
    arriving: Arriving,
    /// Octets of the body that the log has.
    sent: usize,
}

/// Those under way, by their tokens in the log.
#[derive(Debug, Default)]
pub struct TakeIn {
    open: HashMap<u64, Work>,
    /// Handed to a batch: question, old id, new id.
    committed: HashMap<u64, (u64, TransactionId, TransactionId)>,
}

impl TakeIn {
    /// A message of the half.
    pub fn begin(&mut self, desk: &mut Desk, number: u64, mut arriving: Arriving) {
        let old = arriving.envelope.id;
        let new = TransactionId { session: desk.ids.next_id(), n: 1 };
        (arriving.envelope.id, arriving.envelope.parent) = (new, Some(old));
        let token = desk.next_token();
        if desk.stream.maillog.reserve(1).is_err() {
            return answer(desk, number, Err("the mail log cannot be written"));
        }
        let octets = octets_of(&arriving);
        let opened = desk.log.open(OpenKind::Client, new, Some(octets), token);
        let opened = opened.map_err(of_refusal).and_then(|tx| {
            desk.log.append_header(tx, &arriving.header).map_err(|error| {
                desk.log.abort(tx);
                of_error(error)
            })?;
            Ok(tx)
        });
        match opened {
            Ok(tx) => {
                self.open.insert(token, Work { number, old, new, tx, arriving, sent: 0 });
                self.resume(desk, token);
            }
            Err(why) => {
                desk.stream.maillog.release(1);
                answer(desk, number, Err(why));
            }
        }
    }

    /// The log takes more of it; whether it is one of these.
    pub fn resume(&mut self, desk: &mut Desk, token: u64) -> bool {
        let Some(Work { arriving, sent, tx, .. }) = self.open.get_mut(&token) else {
            return false;
        };
        for piece in arriving.body[*sent..].chunks(APPEND_BYTES_MAX) {
            *sent += piece.len();
            match desk.log.append_body(*tx, piece) {
                Ok(Flow::Go) => {}
                Ok(Flow::Pause) => return true,
                Err(error) => {
                    desk.log.abort(*tx);
                    self.failed(desk, token, error);
                    return true;
                }
            }
        }
        self.commit(desk, token);
        true
    }

    fn commit(&mut self, desk: &mut Desk, token: u64) {
        let Some(work) = self.open.get(&token) else { return };
        if let Err(error) = desk.log.commit(work.tx, &work.arriving.envelope, Vec::new()) {
            return self.failed(desk, token, error);
        }
        let Some(Work { number, old, new, arriving, .. }) = self.open.remove(&token) else {
            return;
        };
        let pending = Pending {
            waits: None,
            octets: octets_of(&arriving),
            envelope: arriving.envelope,
            message_id: None,
            subject: None,
            protocol: "spool",
            tls: None,
            dot_us: desk.now_us,
        };
        desk.pending.insert(token, Box::new(pending));
        self.committed.insert(token, (number, old, new));
    }

    fn failed(&mut self, desk: &mut Desk, token: u64, error: TransactionError) {
        if let Some(work) = self.open.remove(&token) {
            desk.stream.maillog.release(1);
            answer(desk, work.number, Err(of_error(error)));
        }
    }

    /// It is durable.
    pub fn kept(&mut self, desk: &mut Desk, token: u64) {
        let Some((number, old, new)) = self.committed.remove(&token) else { return };
        let (old, new) = (id_text(old), id_text(new));
        let text = format!("message {old} of a half that went on alone is taken in as {new}");
        desk.tell(&Event::Noted(Note::Recovered, &text));
        answer(desk, number, Ok(&new));
    }

    /// The log could not keep it.
    pub fn refused(&mut self, desk: &mut Desk, token: u64) {
        if let Some((number, ..)) = self.committed.remove(&token) {
            answer(desk, number, Err(CANNOT_WRITE));
        }
    }
}

const CANNOT_WRITE: &str = "the log cannot be written now";

fn octets_of(arriving: &Arriving) -> u64 {
    (arriving.header.len() + arriving.body.len()) as u64
}

fn answer(desk: &mut Desk, number: u64, done: Result<&str, &str>) {
    let reply = match done {
        Ok(id) => Reply::Done { message: Text::cut(id) },
        Err(why) => Reply::Failure(Failure::new(FailureCode::Refused, why, "")),
    };
    let answer = ToHouse::Answered(number, desk.core, Box::new(reply));
    desk.outbox.push(Letter::House(answer));
}

fn of_refusal(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NoSpace => NO_SPACE,
        Refusal::TableFull => "the queue has as many messages as it may have",
        Refusal::Busy => "too much mail is on its way in",
        Refusal::Failed => CANNOT_WRITE,
        Refusal::Closing => "the daemon is stopping",
    }
}

const NO_SPACE: &str = "the spool has no room for it";

fn of_error(error: TransactionError) -> &'static str {
    match error {
        TransactionError::NoSpace => NO_SPACE,
        TransactionError::HeaderTooLarge
        | TransactionError::TooLarge
        | TransactionError::EnvelopeTooLarge => "it is too large for this log",
        TransactionError::Failed | TransactionError::Unknown => CANNOT_WRITE,
    }
}
