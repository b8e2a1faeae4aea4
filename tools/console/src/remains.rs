//! The hints of a dead daemon: its file answers what the daemon would answer.
//!
//! *Guarantees*: a file that a daemon holds is left alone, and none can take it meanwhile. Looking
//! works on a copy; what changes something writes the words that differ, and the daemon checks
//! every record again when it starts.
//! *Failure*: a file that is none of hints, or of another version, is named and not touched.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::hints::{
    Entry, Hints, Kind, Names, Pick, Seed, Setup, ShardSet, Snapshot, Start, Value, What,
};
use ::spool::id::TransactionId;
use control::{
    Failure, FailureCode, Hint, HintField, HintKey, HintsFilter, HintsPage, List, Reply, Request,
    Text, put_back,
};

use crate::exit::{Exit, Trouble};

/// Octets of a hints file that are read.
const FILE_OCTETS_MAX: u64 = 4 << 30;
const WORD_OCTETS: usize = 8;
/// How often, and after which time, a file that is held is looked at again: after a kill the
/// kernel may need a moment to close it.
const BUSY_LOOKS: u32 = 100;
const BUSY_LOOK_EVERY: Duration = Duration::from_millis(10);

/// Ids of messages in the keys of notes.
const NAMES: Names = Names {
    text: |id| TransactionId::from_bytes(id).to_string(),
    octets: |text| text.parse::<TransactionId>().ok().map(TransactionId::to_bytes),
};

/// One file, held as long as this lives.
#[derive(Debug)]
pub(crate) struct Remains {
    hints: &'static Hints<'static>,
    /// What the file holds.
    octets: Vec<u8>,
    file: File,
    may_write: bool,
}

fn fail(code: FailureCode, message: &str, advice: &str) -> Reply {
    Reply::Failure(Failure::new(code, message, advice))
}

fn refused(path: &Path, what: &str, advice: &str) -> Trouble {
    Trouble::new(Exit::Refused, format!("{}: {what}", path.display()), advice)
}

/// Opens it, for writing where this user may.
fn open(path: &Path) -> std::io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    match options.read(true).write(true).open(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            File::open(path).map(|file| (file, false))
        }
        opened => opened.map(|file| (file, true)),
    }
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

impl Remains {
    /// Takes the file.
    ///
    /// # Errors
    /// It is not there, a daemon holds it, or it is no file of hints.
    pub(crate) fn open(path: &Path) -> Result<Self, Trouble> {
        const ADVICE: &str = "Name the file of `[hints] file`.";
        let broken = |error: std::io::Error| refused(path, &error.to_string(), ADVICE);
        let (mut file, may_write) = open(path).map_err(broken)?;
        let mut locked = file.try_lock();
        for _ in 0..BUSY_LOOKS {
            if !matches!(locked, Err(TryLockError::WouldBlock)) {
                break;
            }
            std::thread::sleep(BUSY_LOOK_EVERY);
            locked = file.try_lock();
        }
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let advice = "Leave --file away: the daemon answers for them.";
                return Err(refused(path, "a daemon holds it", advice));
            }
            Err(TryLockError::Error(error)) => return Err(broken(error)),
        }
        let mut octets = Vec::new();
        file.by_ref().take(FILE_OCTETS_MAX).read_to_end(&mut octets).map_err(broken)?;
        octets.truncate(octets.len() / WORD_OCTETS * WORD_OCTETS);
        let words: Vec<AtomicU64> =
            octets.chunks_exact(WORD_OCTETS).map(|_| AtomicU64::new(0)).collect();
        // For the life of the program: it is one command.
        let words: &'static [AtomicU64] = words.leak();
        let copied = Snapshot(octets.clone()).restore(words);
        copied.map_err(|error| refused(path, &error.to_string(), ADVICE))?;
        let setup = Setup { seed: Seed([0, 0]), node: 0, wall_us: now_us() };
        let opened = Hints::open(words, setup);
        let opened = opened.map_err(|error| refused(path, &error.to_string(), ADVICE))?;
        if let Start::Fresh(reason) = opened.report.start {
            return Err(refused(path, &format!("nothing to read: {reason}"), ADVICE));
        }
        Ok(Self { hints: Box::leak(Box::new(opened.hints)), octets, file, may_write })
    }

    /// The daemon's answer.
    pub(crate) fn answer(&mut self, request: &Request) -> Reply {
        match request {
            Request::HintsList(filter) => self.list(filter),
            Request::HintsGet(of) => self.get(of),
            Request::HintsDelete(of) => self.delete(of),
            Request::HintsTidy => self.tidy(),
            Request::HintsSet { of, fields, life_s } => self.set(of, fields, *life_s),
            Request::HintsLoad { hints } => self.load(hints),
            _ => fail(FailureCode::Refused, "only a running daemon does this", "Start it."),
        }
    }

    fn list(&self, filter: &HintsFilter) -> Reply {
        let kind = match filter.kind.as_deref().map(kind_of).transpose() {
            Ok(kind) => kind,
            Err(reply) => return reply,
        };
        let pick = Pick {
            kind,
            part: filter.key.as_deref(),
            cursor: filter.cursor,
            most: filter.page_max(),
        };
        let (page, next) = self.hints.page(&pick, NAMES, now_us());
        Reply::Hints(HintsPage { hints: List::cut(page.into_iter().map(hint)), next })
    }

    fn get(&self, of: &HintKey) -> Reply {
        let kind = match kind_of(&of.kind) {
            Ok(kind) => kind,
            Err(reply) => return reply,
        };
        match self.hints.get(kind, &NAMES.key_octets(&of.key), now_us()) {
            Some(record) => Reply::Hint(hint(NAMES.entry(&record, now_us()))),
            None => none(),
        }
    }

    fn delete(&mut self, of: &HintKey) -> Reply {
        let kind = match kind_of(&of.kind) {
            Ok(kind) => kind,
            Err(reply) => return reply,
        };
        let (key, now_us) = (NAMES.key_octets(&of.key), now_us());
        let there = match kind {
            Kind::Note => self.hints.forget_note(&key),
            kind if kind.is_rate() => self.hints.forget_rate(kind, &key),
            kind => {
                let there = self.hints.get(kind, &key, now_us).is_some();
                let change = self.hints.change(kind, &key, What::Remove, now_us);
                if let (Some(change), Some(writer)) = (change, self.hints.claim(ShardSet::ALL)) {
                    writer.apply(&change);
                }
                there
            }
        };
        if !there {
            return none();
        }
        self.written(&format!("{} {} is forgotten", &*of.kind, &*of.key))
    }

    fn tidy(&mut self) -> Reply {
        let now_us = now_us();
        let rates = self.hints.tidy_rates(now_us);
        let records = self.hints.claim(ShardSet::ALL).map_or(0, |writer| writer.tidy(now_us));
        self.written(&format!("{records} records and {rates} rates had expired"))
    }

    fn set(&mut self, of: &HintKey, fields: &[HintField], life_s: u64) -> Reply {
        let kind = match kind_of(&of.kind) {
            Ok(kind) => kind,
            Err(reply) => return reply,
        };
        let key = NAMES.key_octets(&of.key);
        let old = self.hints.get(kind, &key, now_us()).map(|record| record.value);
        let fields = fields.iter().map(|field| (&*field.name, field.number));
        let value = match Value::with(kind, old, fields) {
            Ok(value) => value,
            Err(unfit) => {
                return fail(FailureCode::Refused, &unfit.to_string(), &unfit.advice());
            }
        };
        self.put(kind, &key, value, life_s);
        match self.written("") {
            Reply::Done { .. } => self.get(of),
            failure => failure,
        }
    }

    fn load(&mut self, hints: &[Hint]) -> Reply {
        let rows = put_back(hints, |hint| {
            let kind = Kind::from_name(&hint.kind).ok_or("no such kind of hint")?;
            let value = Value::of_dump(kind, hint.numbers(), hint.text.as_bytes())?;
            self.put(kind, &NAMES.key_octets(&hint.key), value, hint.expires_s);
            Ok(())
        });
        match self.written("") {
            Reply::Done { .. } => Reply::Rows(Box::new(rows)),
            failure => failure,
        }
    }

    fn put(&self, kind: Kind, key: &[u8], value: Value, life_s: u64) {
        let life_us = life_s.saturating_mul(1_000_000).min(::hints::limits::LIFE_US_MAX);
        let change = self.hints.change(kind, key, What::Put(value, life_us), now_us());
        if let (Some(change), Some(writer)) = (change, self.hints.claim(ShardSet::ALL)) {
            writer.apply(&change);
        }
    }

    /// Writes the words that differ.
    fn written(&mut self, done: &str) -> Reply {
        if !self.may_write {
            return fail(FailureCode::Denied, "this user may not write the file", "Be its owner.");
        }
        let Snapshot(new) = self.hints.snapshot();
        let words = self.octets.chunks_exact(WORD_OCTETS).zip(new.chunks_exact(WORD_OCTETS));
        for (number, (_, new)) in words.enumerate().filter(|(_, (old, new))| old != new) {
            if let Err(error) = self.file.write_all_at(new, (number * WORD_OCTETS) as u64) {
                return fail(FailureCode::Refused, &format!("writing the file: {error}"), "");
            }
        }
        self.octets = new;
        Reply::Done { message: Text::cut(done) }
    }
}

fn kind_of(name: &str) -> Result<Kind, Reply> {
    let names = || Kind::all().map(Kind::name).collect::<Vec<_>>();
    Kind::from_name(name).ok_or_else(|| Reply::Failure(Failure::no_kind_of_hint(&names())))
}

fn none() -> Reply {
    Reply::Failure(Failure::no_hint())
}

fn hint(entry: Entry) -> Hint {
    let field = |(name, number): (&str, u64)| HintField { name: Text::cut(name), number };
    Hint {
        kind: Text::cut(entry.kind),
        key: Text::cut(&entry.key),
        origin: entry.origin,
        age_s: entry.age_s,
        expires_s: entry.left_s,
        fields: List::cut(entry.fields.into_iter().map(field)),
        text: Text::cut_octets(&entry.text),
    }
}
