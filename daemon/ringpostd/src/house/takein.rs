//! A mirror's half that went on alone while the others did, too: its mail is taken in, then it is
//! emptied and filled.
//!
//! *Guarantees*: it is emptied only when every message that waits on it is durable here, under an
//! id of this run (with its old id as parent), or stands here already, octet by octet the same.
//! Cut off anywhere and begun again, it takes in no message twice, delivered meanwhile or not:
//! a message is durable here but held, then the half has a note that says how far it was taken
//! in (`spool::progress`), and only then the message is released.
//! *Limits*: what one side delivered while the other still has it is delivered twice: neither
//! knows of the other.
//! *Failure*: what cannot be read is named, and nothing is taken in; what cannot be kept is named,
//! and the half is left as it is, but for the note. What was held when the daemon was cut off
//! stays held until it is begun again.

use std::collections::HashMap;
use std::rc::Rc;

use control::limits::{ID_OCTETS_MAX, IDS_MAX};
use control::{
    Act, Failure, FailureCode, List, QueueAct, QueueFilter, QueueMessage, Reply, Request, Text,
};
use spool::file::FileDevice;
use spool::id::TransactionId;
use spool::log::StoredMessage;
use spool::message::{Envelope, flags};
use spool::offline::{Offline, ShowError};
use spool::progress::{self, Place};
use spool::received;
use spool::set::{Problem, Set};

use crate::desk::id_text;
use crate::events::Note;
use crate::post::{Arriving, ToCore};

use super::devices::Returned;
use super::limits::ACT_WAIT;
use super::{House, questions};

/// What was found, or done.
#[derive(Debug, Default)]
struct Tally {
    /// Stand here already.
    same: usize,
    /// Were taken in before the daemon was cut off.
    before: usize,
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
/// So many messages are held at once, until the half has the note.
const GROUP: usize = 32;

const TWICE: &str = "what one side has delivered and the other still has is delivered twice";

impl Tally {
    fn fail(&mut self, why: String) {
        self.failures += 1;
        if self.failed.len() < FAILURES_TOLD {
            self.failed.push(why);
        }
    }

    fn text(&self, verb: &str) -> String {
        let Self { same, before, new, clash, .. } = self;
        let before = match before {
            0 => String::new(),
            before => format!(", {before} were taken in before"),
        };
        format!(
            "{} messages {verb} taken in under new ids ({clash} of them because their id is \
             another message's here), {same} stand here already{before}; {TWICE}",
            new + clash
        )
    }
}

/// Why nothing came of it, and what to do.
type Trouble = (String, &'static str);

fn trouble(error: &impl ToString) -> Trouble {
    (error.to_string(), "nothing was changed on it")
}

/// A half that went on alone.
struct Half {
    /// Its devices, for the note.
    devices: Vec<FileDevice>,
    generation: u128,
    offline: Offline<FileDevice>,
    /// Through which message it was taken in by a daemon that was cut off.
    through: Option<Place>,
    /// What that daemon took in and did not release: by the id there, the id here.
    held: HashMap<(TransactionId, u32), Text<ID_OCTETS_MAX>>,
}

/// Messages that are durable here, held, and not in the half's note yet.
#[derive(Default)]
struct Group {
    /// Those to be released.
    release: Vec<Text<ID_OCTETS_MAX>>,
    /// The last of them.
    through: Option<Place>,
    count: usize,
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
        let devices: Vec<&FileDevice> = halves.iter().map(|(device, _)| device).collect();
        let half = self.open_half(&devices).await?;
        // All of it is read before any of it is taken.
        let (half, mut tally) = self.count_all(half).await?;
        if yes && tally.failures == 0 {
            tally = self.take_all(half).await?;
        } else {
            drop(half);
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

    /// Reads what the half says of itself, and what an earlier life left of taking it in.
    async fn open_half(&self, devices: &[&FileDevice]) -> Result<Half, Trouble> {
        let twins = || -> std::io::Result<Vec<FileDevice>> {
            devices.iter().map(|device| device.duplicate()).collect()
        };
        let read = twins().map_err(|error| trouble(&error))?;
        let mut devices = twins().map_err(|error| trouble(&error))?;
        let node = self.set.borrow().superblock.node;
        let opened = tokio::task::spawn_blocking(move || {
            let set = Set::open(read, node, true).map_err(|e| e.to_string())?;
            let generation = set.superblock.generation.id;
            let notes = devices.iter_mut().map(|device| progress::read(device, generation));
            let through = notes.max().flatten();
            let offline = Offline::open(set).map_err(|e| e.to_string())?;
            let held = HashMap::new();
            Ok::<_, String>(Half { devices, generation, offline, through, held })
        });
        let opened = opened.await.map_err(|error| trouble(&error))?;
        let mut half = opened.map_err(|error| trouble(&error))?;
        if half.through.is_some() {
            half.held = self.held_of_parents().await?;
        }
        Ok(half)
    }

    /// The messages here that are held and have a parent: by that and the second of receipt.
    async fn held_of_parents(
        &self,
    ) -> Result<HashMap<(TransactionId, u32), Text<ID_OCTETS_MAX>>, Trouble> {
        let mut found = HashMap::new();
        let mut filter = QueueFilter { held: Some(true), ..QueueFilter::default() };
        loop {
            let page = match self.queue_list(filter.clone()).await {
                Reply::Queue(page) => page,
                Reply::Failure(failure) => return Err(trouble(&failure.message.to_string())),
                _ => return Ok(found),
            };
            for entry in page.messages.iter() {
                let Some(message) = self.waits_here(&entry.id).await? else { continue };
                let Ok(parent) = message.parent.parse::<TransactionId>() else { continue };
                let received_s = u32::try_from(message.received_us.div_ceil(1_000_000));
                let key = (parent, received_s.unwrap_or(u32::MAX));
                found.insert(key, entry.id.clone());
            }
            filter.after = page.next.clone();
            if filter.after.is_none() {
                return Ok(found);
            }
        }
    }

    /// Looks at all messages of the half.
    async fn count_all(&self, mut half: Half) -> Result<(Half, Tally), Trouble> {
        let mut tally = Tally::default();
        for place in places(&half.offline) {
            if half.through.is_some_and(|through| place <= through) {
                tally.before += 1;
                continue;
            }
            let (back, shown) = show(half, place.id).await?;
            half = back;
            match shown {
                Ok(message) => match self.known(&half, place, &message).await? {
                    Known::Taken(_) => tally.before += 1,
                    Known::Same => tally.same += 1,
                    Known::New => tally.new += 1,
                    Known::Clash => tally.clash += 1,
                },
                Err(error) => tally.fail(unreadable(place.id, &error)),
            }
        }
        Ok((half, tally))
    }

    /// Takes all messages of the half in, one after the other, up to the first that cannot be.
    async fn take_all(&self, mut half: Half) -> Result<Tally, Trouble> {
        let mut tally = Tally { wrote: true, ..Tally::default() };
        let mut group = Group::default();
        if half.through.is_none() {
            // From now on a start knows that some may be held here.
            half = note(half, Place::default()).await?;
        }
        let all = places(&half.offline);
        for (n, place) in all.iter().copied().enumerate() {
            self.absent.borrow_mut().taking = Some((n, all.len()));
            if half.through.is_some_and(|through| place <= through) {
                tally.before += 1;
                // Cut off between the note and its release.
                let left = half.held.remove(&(place.id, place.received_wall_s));
                let was_held = || half.offline.list().any(|l| l.id == place.id && l.is_held());
                group.release.extend(left.filter(|_| !was_held()));
                continue;
            }
            let (back, shown) = show(half, place.id).await?;
            half = back;
            let message = match shown {
                Ok(message) => message,
                Err(error) => {
                    tally.fail(unreadable(place.id, &error));
                    break;
                }
            };
            let was_held = message.envelope.flags & flags::HELD != 0;
            let core = n % self.mailboxes.len();
            match self.take_one(&half, (core, place), message, &mut tally).await {
                Ok(id) => group.release.extend(id.filter(|_| !was_held)),
                Err(why) => {
                    tally.fail(format!("{}: {why}", id_text(place.id)));
                    break;
                }
            }
            (group.through, group.count) = (Some(place), group.count + 1);
            if group.count == GROUP {
                half = self.settle(half, &mut group).await?;
            }
        }
        self.settle(half, &mut group).await?;
        Ok(tally)
    }

    /// Takes one message in, if it is not here; the id of one that is held here now.
    async fn take_one(
        &self,
        half: &Half,
        (core, place): (usize, Place),
        message: StoredMessage,
        tally: &mut Tally,
    ) -> Result<Option<Text<ID_OCTETS_MAX>>, String> {
        let known = self.known(half, place, &message).await.map_err(|(why, _)| why)?;
        let count = match known {
            Known::Same => &mut tally.same,
            Known::Taken(_) => &mut tally.before,
            Known::New => &mut tally.new,
            Known::Clash => &mut tally.clash,
        };
        let kept = match known {
            Known::Same => None,
            Known::Taken(id) => Some(id),
            Known::New | Known::Clash => self.keep(core, message).await?,
        };
        *count += 1;
        Ok(kept)
    }

    /// Has the half note how far it is, then releases what was held until then.
    async fn settle(&self, mut half: Half, group: &mut Group) -> Result<Half, Trouble> {
        let Group { release, through, .. } = std::mem::take(group);
        if let Some(through) = through {
            half = note(half, through).await?;
        }
        for ids in release.chunks(IDS_MAX) {
            let act = QueueAct {
                act: Act::Thaw,
                ids: List::cut(ids.iter().cloned()),
                next_hop: None,
                all: false,
                to: None,
                unchecked: false,
                word: Text::default(),
            };
            let parts = self.questions.ask_for(0, Request::QueueAct(act), ACT_WAIT).await;
            questions::counts(parts.map_err(|failure| trouble(&failure.message.to_string()))?)
                .map_err(|failure| trouble(&failure.message.to_string()))?;
        }
        Ok(half)
    }

    /// What is known here of a message of the half that its note does not name.
    async fn known(
        &self,
        half: &Half,
        place: Place,
        message: &StoredMessage,
    ) -> Result<Known, Trouble> {
        let received_us = message.envelope.received_wall_us;
        if let Some(id) = half.held.get(&(place.id, place.received_wall_s))
            && let Some(here) = self.waits_here(id).await?
            && here.received_us == received_us
            && self.has_content(id, message).await?
        {
            return Ok(Known::Taken(id.clone()));
        }
        let id = Text::cut(&id_text(place.id));
        let Some(here) = self.waits_here(&id).await? else { return Ok(Known::New) };
        let sender = String::from_utf8_lossy(&message.envelope.mail.address);
        let same = here.received_us == received_us
            && here.entry.size_octets == place.octets
            && here.entry.sender.as_bytes() == sender.as_bytes()
            && self.has_content(&id, message).await?;
        Ok(if same { Known::Same } else { Known::Clash })
    }

    /// The message of that id, if it waits here.
    async fn waits_here(&self, id: &Text<ID_OCTETS_MAX>) -> Result<Option<QueueMessage>, Trouble> {
        let parts = self.questions.ask(Request::QueueShow { id: id.clone() }).await;
        let parts = parts.map_err(|failure| trouble(&failure.message.to_string()))?;
        match questions::message(parts) {
            Reply::Message(here) => Ok(Some(*here)),
            Reply::Failure(failure) if failure.code == FailureCode::NotFound => Ok(None),
            Reply::Failure(failure) => Err(trouble(&failure.message.to_string())),
            _ => Ok(None),
        }
    }

    /// Whether the message of that id here is octet by octet the one of the half, as it would be
    /// sent under that id.
    async fn has_content(
        &self,
        id: &Text<ID_OCTETS_MAX>,
        message: &StoredMessage,
    ) -> Result<bool, Trouble> {
        let Ok(here) = id.parse::<TransactionId>() else { return Ok(false) };
        let as_here = Envelope { id: here, ..message.envelope.clone() };
        let mut content = received::apply(&message.header, &as_here);
        content.extend_from_slice(&message.tail);
        let (mut rest, mut next) = (&content[..], Some(0));
        while let Some(part) = next {
            let asked = Request::QueueRead { id: id.clone(), part };
            let parts = self.questions.ask(asked).await;
            let parts = parts.map_err(|failure| trouble(&failure.message.to_string()))?;
            let part = match questions::first_found(parts) {
                Reply::Part(part) => part,
                Reply::Failure(failure) if failure.code == FailureCode::NotFound => {
                    return Ok(false);
                }
                Reply::Failure(failure) => return Err(trouble(&failure.message.to_string())),
                _ => return Ok(false),
            };
            let octets = control::octets::from_base64(&part.octets).unwrap_or_default();
            let Some(behind) = rest.strip_prefix(&octets[..]) else { return Ok(false) };
            (rest, next) = (behind, part.next);
        }
        Ok(rest.is_empty())
    }

    /// Has a core keep a message, held; its id here when it is durable.
    async fn keep(
        &self,
        core: usize,
        message: StoredMessage,
    ) -> Result<Option<Text<ID_OCTETS_MAX>>, String> {
        let StoredMessage { mut envelope, header, tail: body, .. } = message;
        // What the half has settled is settled.
        envelope.recipients.retain(|recipient| !recipient.state.is_final());
        if envelope.recipients.is_empty() {
            return Ok(None);
        }
        envelope.flags |= flags::HELD;
        let arriving = Box::new(Arriving { envelope: Box::new(envelope), header, body });
        match self.questions.hand(core, |number| ToCore::TakeIn(number, arriving)).await {
            Ok(Reply::Failure(failure)) | Err(failure) => Err(failure.message.to_string()),
            Ok(Reply::Done { message }) => Ok(Some(Text::cut(&message))),
            Ok(_) => Err("the core did not say its id".to_owned()),
        }
    }
}

/// What is known of a message of the half.
enum Known {
    /// It was taken in under that id, and is held.
    Taken(Text<ID_OCTETS_MAX>),
    /// It stands here, too.
    Same,
    /// Its id is another message's here.
    Clash,
    /// It is not here.
    New,
}

/// All messages that wait on the half, in the order in which they are taken in.
fn places(offline: &Offline<FileDevice>) -> Vec<Place> {
    let mut all: Vec<Place> = offline.list().map(Place::of).collect();
    all.sort_unstable();
    all
}

/// Reads a message of the half.
async fn show(
    mut half: Half,
    id: TransactionId,
) -> Result<(Half, Result<StoredMessage, ShowError>), Trouble> {
    let shown = tokio::task::spawn_blocking(move || {
        let shown = half.offline.show(id);
        (half, shown)
    });
    shown.await.map_err(|error| trouble(&error))
}

/// Notes on the half how far it was taken in.
async fn note(mut half: Half, through: Place) -> Result<Half, Trouble> {
    let noted = tokio::task::spawn_blocking(move || {
        for device in &mut half.devices {
            progress::write(device, half.generation, through).map_err(|e| e.to_string())?;
        }
        Ok::<_, String>(half)
    });
    let noted = noted.await.map_err(|error| trouble(&error))?;
    noted.map_err(|error| (error, "the half cannot be written, so it cannot be filled either"))
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
