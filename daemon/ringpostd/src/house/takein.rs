//! A mirror's half that went on alone while the others did, too: its mail is taken in, then it is
//! emptied and filled.
//!
//! *Guarantees*: it is emptied only when every message that waits on it is durable here, under an
//! id of this run (with its old id as parent), or stands here already, octet by octet the same.
//! Cut off anywhere and begun again, it takes in no message twice, delivered meanwhile or not:
//! a message is durable here but held, then the half has a note that says how far it was taken
//! in (`spool::progress`), and only then the message is released. Nor is mail of this side taken
//! back that the half had taken in itself, as long as it waits here.
//! *Limits*: what one side delivered while the other still has it is delivered twice: neither
//! knows of the other. What the operator thaws of the last group before it is begun again is
//! taken in again when it is delivered by then, and so is what he removes. In a stripe of mirrors
//! a cut between marking two devices of the half leaves one that is read no more; it has nothing
//! that is not here.
//! *Failure*: what cannot be read is named, and nothing is taken in; what cannot be kept is named,
//! and the half is left as it is, but for the note. What was held when the daemon was cut off
//! stays held until it is begun again.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use control::limits::{ID_OCTETS_MAX, IDS_MAX};
use control::{
    Act, Failure, FailureCode, List, QueueAct, QueueFilter, QueueMessage, Reply, Request, Text,
};
use spool::file::FileDevice;
use spool::id::TransactionId;
use spool::log::StoredMessage;
use spool::message::{Envelope, Recipient, flags};
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

/// So often what could not be released is tried again: a core that looks at a message just then
/// cannot change it.
const RELEASE_TRIES: u32 = 20;
const RELEASE_AGAIN: Duration = Duration::from_millis(100);

/// What is so when it fails on the way.
const KEPT: &str = "what was taken in until then is kept, some of it held: mend that and say it \
                    again, or nobody releases it";
/// What is so when all is taken in, and the half is not emptied.
const ALL_KEPT: &str = "its mail is taken in: say it again; a device of it that is refused now may \
                        be blanked by hand, then `ringpost spool fill` has it filled";

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
    /// What waits here and may be what that daemon took in: by the id and the second there.
    taken: HashMap<(TransactionId, u32), Vec<Taken>>,
}

/// A message here that has a parent.
#[derive(Clone)]
struct Taken {
    id: Text<ID_OCTETS_MAX>,
    /// To be released: not so what was thawed since, and what the daemon fell over with.
    is_held: bool,
}

/// For tests of what a crash leaves: where `RINGPOST_TEST_TAKE_IN` has the daemon fall.
/// `message:N`: when it has taken so many in; `note:N`: behind so many notes, before what they
/// name is released.
struct Fall {
    messages: Option<u32>,
    notes: Option<u32>,
}

impl Fall {
    fn of_environment() -> Self {
        let set = std::env::var("RINGPOST_TEST_TAKE_IN").unwrap_or_default();
        let count = |word: &str| set.strip_prefix(word).and_then(|count| count.parse().ok());
        Self { messages: count("message:"), notes: count("note:") }
    }

    fn step(left: &mut Option<u32>) {
        let Some(left) = left else { return };
        *left = left.saturating_sub(1);
        assert!(*left > 0, "RINGPOST_TEST_TAKE_IN is set, and it is there");
    }
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
            tally = self.take_all(half).await.map_err(|(why, _)| (why, KEPT))?;
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
        lines.extend(self.empty(halves).await.map_err(|why| (why, ALL_KEPT))?);
        Ok(lines.join("; "))
    }

    /// Empties the devices of a half and has them filled.
    async fn empty(
        self: &Rc<Self>,
        halves: Vec<(FileDevice, bool)>,
    ) -> Result<Vec<String>, String> {
        let mut admitted = Vec::new();
        for (mut device, same) in halves {
            let blanking = self.set.borrow_mut().admit_alone(&mut device);
            admitted.push((device, same, blanking.map_err(|error| error.to_string())?));
        }
        // All of them before any is erased, which takes long: a half of which one device is marked
        // and the other is not cannot be read any more.
        let marked = tokio::task::spawn_blocking(move || {
            for (device, _, blanking) in &mut admitted {
                blanking.mark(device).map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(admitted)
        });
        let mut lines = Vec::new();
        for (device, same, blanking) in marked.await.map_err(|error| error.to_string())?? {
            lines.push(self.fill_one(device, same, blanking).await?);
        }
        Ok(lines)
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
            let taken = HashMap::new();
            Ok::<_, String>(Half { devices, generation, offline, through, taken })
        });
        let opened = opened.await.map_err(|error| trouble(&error))?;
        let mut half = opened.map_err(|error| trouble(&error))?;
        if half.through.is_some() {
            half.taken = self.taken_before(&half.offline).await?;
        }
        Ok(half)
    }

    /// The messages here that have a parent, as far as they are as large as one of the half. Held
    /// or not: the operator may have thawed one.
    async fn taken_before(
        &self,
        half: &Offline<FileDevice>,
    ) -> Result<HashMap<(TransactionId, u32), Vec<Taken>>, Trouble> {
        let sizes: HashSet<u64> = half.list().map(|live| live.octets).collect();
        let mut found: HashMap<_, Vec<Taken>> = HashMap::new();
        let mut filter = QueueFilter::default();
        loop {
            let page = match self.queue_list(filter.clone()).await {
                Reply::Queue(page) => page,
                Reply::Failure(failure) => return Err(trouble(&failure.message.to_string())),
                _ => return Ok(found),
            };
            for entry in page.messages.iter().filter(|e| sizes.contains(&e.size_octets)) {
                let Some(message) = self.waits_here(&entry.id).await? else { continue };
                let Ok(parent) = message.parent.parse::<TransactionId>() else { continue };
                let received_s = u32::try_from(message.received_us.div_ceil(1_000_000));
                let is_held = message.entry.held && !message.entry.frozen;
                let taken = Taken { id: entry.id.clone(), is_held };
                found.entry((parent, received_s.unwrap_or(u32::MAX))).or_default().push(taken);
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
        let mut fall = Fall::of_environment();
        let all = places(&half.offline);
        let before = all.partition_point(|place| half.through.is_some_and(|t| *place <= t));
        let mut tally = Tally { wrote: true, before, ..Tally::default() };
        if half.through.is_none() {
            // From now on a start knows that some may be held here.
            half = note(half, Place::default()).await?;
        }
        // At once: another cut-off would leave them behind more than one group.
        self.release(&left_held(&half, &all[last_group(before)])).await?;
        let mut group = Group::default();
        for (n, place) in all.iter().copied().enumerate().skip(before) {
            self.absent.borrow_mut().taking = Some((n, all.len()));
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
            let new = tally.new + tally.clash;
            match self.take_one(&half, (core, place), message, &mut tally).await {
                Ok(id) => group.release.extend(id.filter(|_| !was_held)),
                Err(why) => {
                    tally.fail(format!("{}: {why}", id_text(place.id)));
                    break;
                }
            }
            if tally.new + tally.clash > new {
                Fall::step(&mut fall.messages);
            }
            (group.through, group.count) = (Some(place), group.count + 1);
            if group.count == GROUP {
                half = self.settle(half, &mut group, &mut fall).await?;
            }
        }
        self.settle(half, &mut group, &mut fall).await?;
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
            Known::Taken(taken) => taken.is_held.then_some(taken.id),
            Known::New | Known::Clash => self.keep(core, message).await?,
        };
        *count += 1;
        Ok(kept)
    }

    /// Has the half note how far it is, then releases what was held until then.
    async fn settle(
        &self,
        mut half: Half,
        group: &mut Group,
        fall: &mut Fall,
    ) -> Result<Half, Trouble> {
        let Group { release, through, .. } = std::mem::take(group);
        if let Some(through) = through {
            half = note(half, through).await?;
            Fall::step(&mut fall.notes);
        }
        self.release(&release).await?;
        Ok(half)
    }

    /// Releases what is held here.
    async fn release(&self, ids: &[Text<ID_OCTETS_MAX>]) -> Result<(), Trouble> {
        let mut held = ids.to_vec();
        for _ in 0..RELEASE_TRIES {
            for ids in held.chunks(IDS_MAX) {
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
            // Those that are gone by now were delivered.
            let mut left = Vec::new();
            for id in held {
                if self.waits_here(&id).await?.is_some_and(|here| here.entry.held) {
                    left.push(id);
                }
            }
            if left.is_empty() {
                return Ok(());
            }
            held = left;
            tokio::time::sleep(RELEASE_AGAIN).await;
        }
        let (count, first) = (held.len(), held.first().map_or("", |id| id));
        Err(trouble(&format!("{count} messages taken in cannot be released, {first} first")))
    }

    /// What is known here of a message of the half that its note does not name.
    async fn known(
        &self,
        half: &Half,
        place: Place,
        message: &StoredMessage,
    ) -> Result<Known, Trouble> {
        let envelope = &message.envelope;
        let key = (place.id, place.received_wall_s);
        let waiting = || envelope.recipients.iter().filter(|r| !r.state.is_final()).cloned();
        for taken in half.taken.get(&key).into_iter().flatten() {
            if let Some(here) = self.waits_here(&taken.id).await?
                && here.received_us == envelope.received_wall_us
                && self.has_content(&taken.id, message, waiting().collect()).await? == Some(true)
            {
                return Ok(Known::Taken(taken.clone()));
            }
        }
        // What the half has from here, taken in when it was the other way round.
        if let Some(parent) = envelope.parent
            && matches!(self.of_id(parent, place, message).await?, Known::Same)
        {
            return Ok(Known::Same);
        }
        self.of_id(place.id, place, message).await
    }

    /// Whether the message that has this id here is that of the half.
    async fn of_id(
        &self,
        id: TransactionId,
        place: Place,
        message: &StoredMessage,
    ) -> Result<Known, Trouble> {
        let id = Text::cut(&id_text(id));
        let Some(here) = self.waits_here(&id).await? else { return Ok(Known::New) };
        let sender = String::from_utf8_lossy(&message.envelope.mail.address);
        let is_alike = here.received_us == message.envelope.received_wall_us
            && here.entry.size_octets == place.octets
            && here.entry.sender.as_bytes() == sender.as_bytes();
        let all = message.envelope.recipients.clone();
        // One that is delivered here in this moment was here.
        let is_same = is_alike && self.has_content(&id, message, all).await? != Some(false);
        Ok(if is_same { Known::Same } else { Known::Clash })
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
    /// sent under that id; `None` when it is gone meanwhile. `recipients` are those of the half
    /// that it has here: there may be more, and then its Received line names none.
    async fn has_content(
        &self,
        id: &Text<ID_OCTETS_MAX>,
        message: &StoredMessage,
        recipients: Vec<Recipient>,
    ) -> Result<Option<bool>, Trouble> {
        let Ok(here) = id.parse::<TransactionId>() else { return Ok(Some(false)) };
        let mut as_here = Envelope { id: here, recipients, ..message.envelope.clone() };
        let mut headers = vec![received::apply(&message.header, &as_here)];
        as_here.recipients.clear();
        headers.push(received::apply(&message.header, &as_here));
        for header in headers {
            let same = self.reads(id, &[&header[..], &message.tail].concat()).await?;
            if same != Some(false) {
                return Ok(same);
            }
        }
        Ok(Some(false))
    }

    /// Whether the message of that id here reads so; `None` when it is gone.
    async fn reads(
        &self,
        id: &Text<ID_OCTETS_MAX>,
        content: &[u8],
    ) -> Result<Option<bool>, Trouble> {
        let (mut rest, mut next) = (content, Some(0));
        while let Some(part) = next {
            let asked = Request::QueueRead { id: id.clone(), part };
            let parts = self.questions.ask(asked).await;
            let parts = parts.map_err(|failure| trouble(&failure.message.to_string()))?;
            let part = match questions::first_found(parts) {
                Reply::Part(part) => part,
                Reply::Failure(failure) if failure.code == FailureCode::NotFound => {
                    return Ok(None);
                }
                Reply::Failure(failure) => return Err(trouble(&failure.message.to_string())),
                _ => return Ok(Some(false)),
            };
            let octets = control::octets::from_base64(&part.octets).unwrap_or_default();
            let Some(behind) = rest.strip_prefix(&octets[..]) else { return Ok(Some(false)) };
            (rest, next) = (behind, part.next);
        }
        Ok(Some(rest.is_empty()))
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
    /// It was taken in as that one, which waits.
    Taken(Taken),
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

/// Of so many messages that the note names, those that may be held: a cut-off between a note and
/// its release leaves the group of that note. Whatever else is held was frozen for another reason.
fn last_group(noted: usize) -> Range<usize> {
    noted.saturating_sub(GROUP)..noted
}

/// What is held here of these messages of the half, and was not held there.
fn left_held(half: &Half, places: &[Place]) -> Vec<Text<ID_OCTETS_MAX>> {
    let held_there: HashSet<TransactionId> =
        half.offline.list().filter(|live| live.is_held()).map(|live| live.id).collect();
    let places = places.iter().filter(|place| !held_there.contains(&place.id));
    let taken = places.filter_map(|place| half.taken.get(&(place.id, place.received_wall_s)));
    taken.flatten().filter(|taken| taken.is_held).map(|taken| taken.id.clone()).collect()
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
    let refused = "the half cannot be written, so it cannot be filled either";
    noted.map_err(|error| trouble(&format!("{refused}: {error}")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_group_is_looked_through_for_what_is_held() {
        assert_eq!(last_group(0), 0..0);
        assert_eq!(last_group(GROUP), 0..GROUP);
        assert_eq!(last_group(2 * GROUP + 3), GROUP + 3..2 * GROUP + 3);
    }
}
