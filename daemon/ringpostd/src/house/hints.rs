//! Hints for the admin tool: read from the shared tables, changed by the cores that write them.

use std::sync::Arc;

use control::{
    Failure, FailureCode, Hint, HintField, HintKey, HintsFilter, HintsPage, List, Reply, Text,
};
use engine::MailboxSender;
use hints::{Entry, Hints, Kind, Names, Pick, ShardSet, Value, What};
use spool::id::TransactionId;

use crate::post::ToCore;

const SECOND_US: u64 = 1_000_000;
/// Ids of messages in the keys of notes.
const NAMES: Names = Names {
    text: |id| TransactionId::from_bytes(id).to_string(),
    octets: |text| text.parse::<TransactionId>().ok().map(TransactionId::to_bytes),
};

/// The tables and who writes them.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    /// For reading.
    pub hints: &'static Hints<'static>,
    /// For writing.
    pub cores: Arc<[MailboxSender<ToCore>]>,
}

fn fail(code: FailureCode, message: &str, advice: &str) -> Reply {
    Reply::Failure(Failure::new(code, message, advice))
}

fn kind_of(name: &str) -> Result<Kind, Reply> {
    let names = || Kind::all().map(Kind::name).collect::<Vec<_>>();
    Kind::from_name(name).ok_or_else(|| Reply::Failure(Failure::no_kind_of_hint(&names())))
}

fn no_hint() -> Reply {
    Reply::Failure(Failure::no_hint())
}

impl Tables {
    /// A page of records, then of rates.
    #[must_use]
    pub(super) fn list(&self, filter: &HintsFilter, wall_us: u64) -> Reply {
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
        let (page, next) = self.hints.page(&pick, NAMES, wall_us);
        Reply::Hints(HintsPage { hints: List::cut(page.into_iter().map(hint)), next })
    }

    /// One record.
    #[must_use]
    pub(super) fn get(&self, of: &HintKey, wall_us: u64) -> Reply {
        let kind = match kind_of(&of.kind) {
            Ok(kind) => kind,
            Err(reply) => return reply,
        };
        match self.hints.get(kind, &octets(&of.key), wall_us) {
            Some(record) => Reply::Hint(hint(NAMES.entry(&record, wall_us))),
            None => no_hint(),
        }
    }

    /// Forgets a record or rate.
    #[must_use]
    pub(super) fn delete(&self, of: &HintKey, wall_us: u64) -> Reply {
        let kind = match kind_of(&of.kind) {
            Ok(kind) => kind,
            Err(reply) => return reply,
        };
        let key = octets(&of.key);
        let there = match kind {
            Kind::Note => self.hints.forget_note(&key),
            kind if kind.is_rate() => self.hints.forget_rate(kind, &key),
            kind => {
                let there = self.hints.get(kind, &key, wall_us).is_some();
                if there && !self.change(kind, &key, What::Remove, wall_us) {
                    return fail(FailureCode::Busy, "its core is busy", "ask again");
                }
                there
            }
        };
        if !there {
            return no_hint();
        }
        Reply::Done { message: Text::cut(&format!("{} {} is forgotten", &*of.kind, &*of.key)) }
    }

    /// Sets fields of a record; it is made if there is none.
    #[must_use]
    pub(super) fn set(
        &self,
        of: &HintKey,
        fields: &[HintField],
        life_s: u64,
        wall_us: u64,
    ) -> Reply {
        let kind = match kind_of(&of.kind) {
            Ok(kind) => kind,
            Err(reply) => return reply,
        };
        let key = octets(&of.key);
        let old = self.hints.get(kind, &key, wall_us).map(|record| record.value);
        let fields = fields.iter().map(|field| (&*field.name, field.number));
        let value = match Value::with(kind, old, fields) {
            Ok(value) => value,
            Err(unfit) => {
                return fail(FailureCode::Refused, &unfit.to_string(), &unfit.advice());
            }
        };
        let life_us = life_s.saturating_mul(SECOND_US).min(hints::limits::LIFE_US_MAX);
        if !self.change(kind, &key, What::Put(value, life_us), wall_us) {
            return fail(FailureCode::Busy, "its core is busy", "ask again");
        }
        let (name, key) = (Text::cut(kind.name()), of.key.clone());
        Reply::Hint(Hint {
            kind: name,
            key,
            expires_s: life_us / SECOND_US,
            fields: fields_of(&value),
            text: text_of(&value),
            ..Hint::default()
        })
    }

    /// Puts a hint of a dump back; why not.
    ///
    /// # Errors
    /// What speaks against it.
    pub(super) fn load(&self, hint: &Hint, wall_us: u64) -> Result<(), String> {
        let kind = Kind::from_name(&hint.kind).ok_or("no such kind of hint")?;
        let value = Value::of_dump(kind, hint.numbers(), hint.text.as_bytes())?;
        let life_us = hint.expires_s.saturating_mul(SECOND_US).min(hints::limits::LIFE_US_MAX);
        let put = self.change(kind, &octets(&hint.key), What::Put(value, life_us), wall_us);
        if put { Ok(()) } else { Err("its core is busy".to_owned()) }
    }

    pub(super) fn change(&self, kind: Kind, key: &[u8], what: What, wall_us: u64) -> bool {
        let Some(change) = self.hints.change(kind, key, what, wall_us) else { return false };
        let owner = ShardSet::owner(change.shard(), self.cores.len());
        self.cores[owner].post(ToCore::Hint(change)).is_ok()
    }
}

fn octets(key: &str) -> Vec<u8> {
    NAMES.key_octets(key)
}

fn fields_of(value: &Value) -> List<HintField, { control::limits::HINT_FIELDS_MAX }> {
    let fields = value.fields().into_iter();
    List::cut(fields.map(|(name, number)| HintField { name: Text::cut(name), number }))
}

fn text_of(value: &Value) -> Text<{ control::limits::LINE_OCTETS_MAX }> {
    match value {
        Value::Retry(retry) => Text::cut_octets(retry.reply.text()),
        _ => Text::default(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::message_key;
    use hints::{Seed, Setup};
    use std::sync::atomic::AtomicU64;

    const NOW: u64 = 1_785_414_896_000_000;

    fn tables() -> (Tables, engine::MailboxReceiver<ToCore>) {
        let words: Vec<AtomicU64> = (0..1 << 17).map(|_| AtomicU64::new(0)).collect();
        let setup = Setup { seed: Seed([1, 2]), node: 1, wall_us: NOW };
        let hints = Hints::format(Vec::leak(words), setup).unwrap();
        let (sender, receiver) = engine::mailbox(8).unwrap();
        (Tables { hints: Box::leak(Box::new(hints)), cores: vec![sender].into() }, receiver)
    }

    fn key(kind: &str, key: &str) -> HintKey {
        HintKey { kind: Text::cut(kind), key: Text::cut(key) }
    }

    #[test]
    fn what_is_set_by_a_core_is_listed_and_deleted() {
        let (tables, mailbox) = tables();
        let of = key("retry", "example.org");
        assert!(matches!(tables.get(&of, NOW), Reply::Failure(_)));
        let fields = [HintField { name: Text::cut("tries"), number: 7 }];
        assert!(matches!(tables.set(&of, &fields, 60, NOW), Reply::Hint(_)));
        let writer = tables.hints.claim(ShardSet::ALL).unwrap();
        let Some(ToCore::Hint(change)) = mailbox.take() else { panic!("a change is posted") };
        writer.apply(&change);
        let Reply::Hint(hint) = tables.get(&of, NOW) else { panic!("it is there") };
        assert_eq!(hint.expires_s, 60);
        assert!(hint.fields.iter().any(|f| *f.name == *"tries" && f.number == 7));
        let filter = HintsFilter { key: Some(Text::cut("EXAMPLE")), ..HintsFilter::default() };
        let Reply::Hints(page) = tables.list(&filter, NOW) else { panic!("a page") };
        assert_eq!((page.hints.len(), page.next), (1, None));
        assert!(matches!(tables.delete(&of, NOW), Reply::Done { .. }));
        assert!(matches!(mailbox.take(), Some(ToCore::Hint(_))));
    }

    #[test]
    fn notes_are_deleted_by_the_clients_address_or_the_messages_id() {
        let (tables, _mailbox) = tables();
        let client = hints::client_key("192.0.2.7".parse().unwrap());
        tables.hints.put_note(&[b"client ", client.as_ref()].concat(), 1, NOW);
        let filter = HintsFilter::default();
        let Reply::Hints(page) = tables.list(&filter, NOW) else { panic!("a page") };
        assert_eq!(&*page.hints[0].key, "client 192.0.2.7");
        assert!(matches!(tables.delete(&key("note", "client 192.0.2.7"), NOW), Reply::Done { .. }));
        assert!(matches!(tables.delete(&key("nothing", "x"), NOW), Reply::Failure(_)));
        let session = spool::id::MessageId::new(1, 2, 3, 4);
        let id = TransactionId { session, n: 5 };
        tables.hints.put_note(&message_key(id), 1, NOW);
        let Reply::Hints(page) = tables.list(&filter, NOW) else { panic!("a page") };
        assert_eq!(*page.hints[0].key, format!("message {id}"));
        let of = key("note", &page.hints[0].key);
        assert!(matches!(tables.delete(&of, NOW), Reply::Done { .. }));
    }
}
