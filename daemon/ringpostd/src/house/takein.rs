//! A mirror's half that went on alone while the others did, too: its mail is taken in, then it is
//! emptied and filled.
//!
//! *Guarantees*: it is emptied only when every message that waits on it is durable here, under an
//! id of this run (with its old id as parent), or stands here already.
//! *Limits*: what one side delivered while the other still has it is delivered twice: neither
//! knows of the other. Begun again after the daemon was cut off in the middle, it takes in again
//! what it had taken.
//! *Failure*: what cannot be read is named, and nothing is taken in; what cannot be kept is named,
//! and the half is left as it is.

use std::rc::Rc;

use control::{Failure, FailureCode, Reply, Request, Text};
use spool::file::FileDevice;
use spool::id::TransactionId;
use spool::log::StoredMessage;
use spool::offline::{Offline, ShowError};
use spool::set::{Problem, Set};

use crate::desk::id_text;
use crate::events::Note;
use crate::post::{Arriving, ToCore};

use super::devices::Returned;
use super::{House, questions};

/// What was found, or done.
#[derive(Debug, Default)]
struct Tally {
    /// Stand here already.
    same: usize,
    /// Are not here.
    new: usize,
    /// Have the id of another message here.
    clash: usize,
    /// Why some could not be taken in, the first few of them.
    failed: Vec<String>,
    failures: usize,
    /// It was done, not only counted.
    wrote: bool,
}

/// So many failures are told one by one.
const FAILURES_TOLD: usize = 3;

const TWICE: &str = "what one side has delivered and the other still has is delivered twice";

impl Tally {
    fn fail(&mut self, why: String) {
        self.failures += 1;
        if self.failed.len() < FAILURES_TOLD {
            self.failed.push(why);
        }
    }

    fn text(&self, verb: &str) -> String {
        let Self { same, new, clash, .. } = self;
        format!(
            "{} messages {verb} taken in under new ids ({clash} of them because their id is \
             another message's here), {same} stand here already; {TWICE}",
            new + clash
        )
    }
}

/// Why nothing came of it, and what to do.
type Trouble = (String, &'static str);

fn trouble(error: &impl ToString) -> Trouble {
    (error.to_string(), "nothing was changed on it")
}

impl House {
    /// The operator wants the mail of a half that went on alone.
    pub(super) async fn take_in(self: &Rc<Self>, yes: bool) -> Reply {
        let fail = |message: &str, advice: &str| {
            Reply::Failure(Failure::new(FailureCode::Refused, message, advice))
        };
        if !self.may_look() {
            return fail("devices are being looked for", "`ringpost status` says how far it is");
        }
        // It goes on when whoever asked does not wait for the end.
        let house = Rc::clone(self);
        let work = tokio::task::spawn_local(async move {
            let done = house.take_in_found(yes).await;
            house.absent.borrow_mut().taking = None;
            house.looked();
            if yes {
                let (Ok(text) | Err((text, _))) = &done;
                house.note(Note::Recovered, &format!("spool take-in: {text}"));
            }
            done
        });
        match work.await {
            Ok(Ok(message)) => Reply::Done { message: Text::cut(&message) },
            Ok(Err((message, advice))) => fail(&message, advice),
            Err(error) => fail(&error.to_string(), ""),
        }
    }

    async fn take_in_found(self: &Rc<Self>, yes: bool) -> Result<String, Trouble> {
        let mut halves = Vec::new();
        for Returned { mut device, same, .. } in
            self.look_around().await.map_err(|error| trouble(&error))?.into_iter().flatten()
        {
            let admitted = self.set.borrow().admit(&mut device);
            if admitted.is_err_and(|error| error.problem == Problem::WentOn) {
                halves.push((device, same));
            }
        }
        if halves.is_empty() {
            let advice = "it must stand at one of the config's places; see `ringpost status`";
            return Err(("no half that went on alone is there".to_owned(), advice));
        }
        let twins: std::io::Result<Vec<FileDevice>> =
            halves.iter().map(|(device, _)| device.duplicate()).collect();
        let (twins, node) =
            (twins.map_err(|error| trouble(&error))?, self.set.borrow().superblock.node);
        let opened = tokio::task::spawn_blocking(move || {
            Set::open(twins, node, true).and_then(Offline::open).map_err(|e| e.to_string())
        });
        let offline =
            opened.await.map_err(|error| trouble(&error))?.map_err(|error| trouble(&error))?;
        // All of it is read before any of it is taken.
        let (offline, mut tally) = self.take_all(offline, false).await?;
        if yes && tally.failures == 0 {
            (_, tally) = self.take_all(offline, true).await?;
        } else {
            drop(offline);
        }
        if tally.failures > 0 {
            let done = if tally.wrote { tally.text("were") } else { "none was taken in".into() };
            let (count, told) = (tally.failures, tally.failed.join("; "));
            let text = format!("{done}; {count} cannot be: {told}");
            let advice = "the half was not emptied: mend that and say it again, or `ringpost spool \
                          export` them with the daemon stopped, and blank it";
            return Err((text, advice));
        }
        if !yes {
            return Ok(format!("{}. With --yes this is done", tally.text("would be")));
        }
        let mut lines = vec![tally.text("were")];
        for (mut device, same) in halves {
            let admitted = self.set.borrow_mut().admit_alone(&mut device);
            let blanking = admitted.map_err(|error| trouble(&error))?;
            lines.push(
                self.fill_one(device, same, blanking).await.map_err(|error| trouble(&error))?,
            );
        }
        Ok(lines.join("; "))
    }

    /// All messages of the half, one after the other; without `yes` it is only counted.
    async fn take_all(
        &self,
        mut offline: Offline<FileDevice>,
        yes: bool,
    ) -> Result<(Offline<FileDevice>, Tally), Trouble> {
        let mut all: Vec<(u32, TransactionId, u64)> =
            offline.list().map(|live| (live.received_wall_s, live.id, live.octets)).collect();
        all.sort_unstable();
        let mut tally = Tally { wrote: yes, ..Tally::default() };
        for (n, (_, id, octets)) in all.iter().copied().enumerate() {
            self.absent.borrow_mut().taking = yes.then_some((n, all.len()));
            let (back, shown) = tokio::task::spawn_blocking(move || {
                let shown = offline.show(id);
                (offline, shown)
            })
            .await
            .map_err(|error| trouble(&error))?;
            offline = back;
            let message = match shown {
                Ok(message) => message,
                Err(error) => {
                    tally.fail(unreadable(id, &error));
                    continue;
                }
            };
            let stands = self.stands_here(&message, octets).await;
            match stands.map_err(|failure| trouble(&failure.message.to_string()))? {
                Some(true) => tally.same += 1,
                other => {
                    let kept = if yes { self.keep(n, message).await } else { Ok(()) };
                    match (kept, other) {
                        (Ok(()), None) => tally.new += 1,
                        (Ok(()), Some(_)) => tally.clash += 1,
                        (Err(why), _) => tally.fail(format!("{}: {why}", id_text(id))),
                    }
                }
            }
        }
        Ok((offline, tally))
    }

    /// Whether a message of that id waits here, and if so, whether it is this one.
    async fn stands_here(
        &self,
        message: &StoredMessage,
        octets: u64,
    ) -> Result<Option<bool>, Failure> {
        let envelope = &message.envelope;
        if self.absent.borrow().taken.contains(&(envelope.id, envelope.received_wall_us)) {
            return Ok(Some(true));
        }
        let id = Text::cut(&id_text(envelope.id));
        let parts = self.questions.ask(Request::QueueShow { id }).await?;
        match questions::message(parts) {
            Reply::Message(here) => Ok(Some(
                here.received_us == envelope.received_wall_us
                    && here.entry.size_octets == octets
                    && here.entry.sender.as_bytes()
                        == String::from_utf8_lossy(&envelope.mail.address).as_bytes(),
            )),
            Reply::Failure(failure) if failure.code == FailureCode::NotFound => Ok(None),
            Reply::Failure(failure) => Err(failure),
            _ => Ok(None),
        }
    }

    /// Has a core keep a message; done when it is durable.
    async fn keep(&self, n: usize, message: StoredMessage) -> Result<(), String> {
        let StoredMessage { mut envelope, header, tail: body, .. } = message;
        // What the half has settled is settled.
        envelope.recipients.retain(|recipient| !recipient.state.is_final());
        if envelope.recipients.is_empty() {
            return Ok(());
        }
        let taken = (envelope.id, envelope.received_wall_us);
        let arriving = Box::new(Arriving { envelope: Box::new(envelope), header, body });
        let core = n % self.mailboxes.len();
        match self.questions.hand(core, |number| ToCore::TakeIn(number, arriving)).await {
            Ok(Reply::Failure(failure)) | Err(failure) => Err(failure.message.to_string()),
            Ok(_) => {
                self.absent.borrow_mut().taken.insert(taken);
                Ok(())
            }
        }
    }
}

fn unreadable(id: TransactionId, error: &ShowError) -> String {
    let id = id_text(id);
    match error {
        ShowError::Unknown => format!("{id} has gone"),
        ShowError::Damaged { segment, offset } => format!(
            "{id} cannot be read: segment {} of column {}, byte {offset}",
            segment.number(),
            segment.column()
        ),
    }
}
