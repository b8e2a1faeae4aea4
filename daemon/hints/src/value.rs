//! The value of a record: one of the kinds in use, to and from words, and field by field for the
//! admin tool.

use core::fmt;

use crate::ban::{self, Ban};
use crate::delivered::{self, Delivered};
use crate::health::{self, Health};
use crate::kind::Kind;
use crate::limits::VALUE_WORDS;
use crate::note::{self, Note};
use crate::offers::{self, Offers};
use crate::retry::{self, Reply, Retry};
use crate::standing::{self, Standing};

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each variant is the record of that kind")]
pub enum Value {
    Retry(Retry),
    Health(Health),
    Offers(Offers),
    Note(Note),
    Standing(Standing),
    Ban(Ban),
    Delivered(Delivered),
}

/// A field the admin tool cannot set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadField {
    /// This kind has no records, or no such field.
    Unknown,
    /// The number does not fit.
    Range,
}

impl fmt::Display for BadField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "no such field",
            Self::Range => "the number is too large for this field",
        })
    }
}

impl core::error::Error for BadField {}

impl Value {
    /// The kind of the value.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Retry(_) => Kind::Retry,
            Self::Health(_) => Kind::Health,
            Self::Offers(_) => Kind::Offers,
            Self::Note(_) => Kind::Note,
            Self::Standing(_) => Kind::Standing,
            Self::Ban(_) => Kind::Ban,
            Self::Delivered(_) => Kind::Delivered,
        }
    }

    pub(crate) const fn layout(&self) -> u8 {
        match self {
            Self::Retry(_) => retry::LAYOUT,
            Self::Health(_) => health::LAYOUT,
            Self::Offers(_) => offers::LAYOUT,
            Self::Note(_) => note::LAYOUT,
            Self::Standing(_) => standing::LAYOUT,
            Self::Ban(_) => ban::LAYOUT,
            Self::Delivered(_) => delivered::LAYOUT,
        }
    }

    /// The words, and how many of them are used.
    pub(crate) fn encode(&self) -> ([u64; VALUE_WORDS], usize) {
        let mut words = [0; VALUE_WORDS];
        let used = match self {
            Self::Retry(retry) => {
                retry.encode(&mut words);
                retry::WORDS
            }
            Self::Health(health) => {
                health.encode(&mut words);
                health::WORDS
            }
            Self::Offers(offers) => {
                offers.encode(&mut words);
                offers::WORDS
            }
            Self::Note(note) => {
                note.encode(&mut words);
                note::WORDS
            }
            Self::Standing(standing) => {
                standing.encode(&mut words);
                standing::WORDS
            }
            Self::Ban(ban) => {
                ban.encode(&mut words);
                ban::WORDS
            }
            Self::Delivered(delivered) => {
                delivered.encode(&mut words);
                delivered::WORDS
            }
        };
        (words, used)
    }

    /// `None`: this version does not know the kind or its layout, or the words are no such value.
    pub(crate) fn decode(kind: Kind, layout: u8, words: &[u64; VALUE_WORDS]) -> Option<Self> {
        match (kind, layout) {
            (Kind::Retry, retry::LAYOUT) => Retry::decode(words).map(Self::Retry),
            (Kind::Health, health::LAYOUT) => Health::decode(words).map(Self::Health),
            (Kind::Offers, offers::LAYOUT) => Some(Self::Offers(Offers::decode(words))),
            (Kind::Note, note::LAYOUT) => Some(Self::Note(Note::decode(words))),
            (Kind::Standing, standing::LAYOUT) => Some(Self::Standing(Standing::decode(words))),
            (Kind::Ban, ban::LAYOUT) => Some(Self::Ban(Ban::decode(words))),
            (Kind::Delivered, delivered::LAYOUT) => Some(Self::Delivered(Delivered::decode(words))),
            _ => None,
        }
    }

    /// A value of this kind with every field zero, to be set field by field.
    #[must_use]
    pub fn blank(kind: Kind) -> Option<Self> {
        if kind == Kind::Retry {
            let reply = Reply::default();
            return Some(Self::Retry(Retry {
                first_us: 0,
                last_us: 0,
                next_us: 0,
                tries: 0,
                reply,
            }));
        }
        Self::decode(kind, 1, &[0; VALUE_WORDS])
    }

    /// The fields as numbers, in their order.
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, u64)> {
        let mut copy = *self;
        copy.slots().into_iter().map(|(name, slot)| (name, slot.get())).collect()
    }

    /// Sets one field.
    pub fn set(&mut self, name: &str, number: u64) -> Result<(), BadField> {
        let slots = self.slots();
        let (_, slot) = slots.into_iter().find(|(n, _)| *n == name).ok_or(BadField::Unknown)?;
        slot.set(number)
    }

    fn slots(&mut self) -> Vec<(&'static str, Slot<'_>)> {
        use Slot::{Short, Wide, Word};
        match self {
            Self::Retry(r) => vec![
                ("first_us", Wide(&mut r.first_us)),
                ("last_us", Wide(&mut r.last_us)),
                ("next_us", Wide(&mut r.next_us)),
                ("tries", Word(&mut r.tries)),
                ("code", Short(&mut r.reply.code)),
            ],
            Self::Health(h) => vec![
                ("failures", Word(&mut h.failures)),
                ("down_until_us", Wide(&mut h.down_until_us)),
                ("last", Slot::Class(&mut h.last)),
                ("fine_us", Wide(&mut h.fine_us)),
                ("last_us", Wide(&mut h.last_us)),
            ],
            Self::Offers(o) => vec![
                ("extensions", Wide(&mut o.extensions)),
                ("size_octets_max", Wide(&mut o.size_octets_max)),
                ("recipients_max", Word(&mut o.recipients_max)),
                ("messages_max", Word(&mut o.messages_max)),
                ("seen_us", Wide(&mut o.seen_us)),
            ],
            Self::Note(n) => vec![
                ("count", Word(&mut n.count)),
                ("run", Word(&mut n.run)),
                ("first_us", Wide(&mut n.first_us)),
                ("last_us", Wide(&mut n.last_us)),
            ],
            Self::Standing(s) => {
                let names = ["protocol", "early", "recipient", "relay", "login", "content", "rate"];
                let mut slots = vec![
                    ("score_milli", Word(&mut s.score_milli)),
                    ("last_us", Wide(&mut s.last_us)),
                ];
                slots.extend(names.into_iter().zip(s.counts.iter_mut().map(Word)));
                slots
            }
            Self::Delivered(d) => {
                vec![("first_us", Wide(&mut d.first_us)), ("last_us", Wide(&mut d.last_us))]
            }
            Self::Ban(b) => vec![
                ("until_us", Wide(&mut b.until_us)),
                ("since_us", Wide(&mut b.since_us)),
                ("times", Word(&mut b.times)),
                ("id", Word(&mut b.id)),
                ("list", Word(&mut b.list)),
                ("rung", Word(&mut b.rung)),
            ],
        }
    }
}

/// `tries=3 next_us=...`, and a retry's reply text at the end.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (name, number)) in self.fields().into_iter().enumerate() {
            let space = if n == 0 { "" } else { " " };
            write!(f, "{space}{name}={number}")?;
        }
        if let Self::Retry(retry) = self {
            write!(f, " reply=\"{}\"", retry.reply.text().escape_ascii())?;
        }
        Ok(())
    }
}

/// One field that can be set.
enum Slot<'v> {
    Wide(&'v mut u64),
    Word(&'v mut u32),
    Short(&'v mut u16),
    Class(&'v mut health::Class),
}

impl Slot<'_> {
    fn get(&self) -> u64 {
        match self {
            Self::Wide(slot) => **slot,
            Self::Word(slot) => u64::from(**slot),
            Self::Short(slot) => u64::from(**slot),
            Self::Class(slot) => u64::from(**slot as u8),
        }
    }

    fn set(self, number: u64) -> Result<(), BadField> {
        match self {
            Self::Wide(slot) => *slot = number,
            Self::Word(slot) => *slot = number.try_into().map_err(|_| BadField::Range)?,
            Self::Short(slot) => *slot = number.try_into().map_err(|_| BadField::Range)?,
            Self::Class(slot) => {
                *slot = health::Class::from_number(number).ok_or(BadField::Range)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_can_be_set_read_and_survives_the_words() {
        for kind in Kind::all() {
            let Some(mut value) = Value::blank(kind) else { continue };
            assert_eq!(value.kind(), kind);
            for (n, (name, _)) in value.fields().into_iter().enumerate() {
                value.set(name, n as u64 + 1).unwrap();
            }
            let numbers: Vec<u64> = value.fields().into_iter().map(|(_, n)| n).collect();
            assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
            let (words, used) = value.encode();
            assert!(words[used..].iter().all(|&word| word == 0));
            assert_eq!(Value::decode(kind, value.layout(), &words), Some(value));
            assert_eq!(Value::decode(kind, 0, &words), None);
        }
    }

    #[test]
    fn a_field_refuses_what_it_cannot_hold() {
        let mut value = Value::blank(Kind::Health).unwrap();
        assert_eq!(value.set("failures", 1 << 32), Err(BadField::Range));
        assert_eq!(value.set("last", 99), Err(BadField::Range));
        assert_eq!(value.set("lasts", 1), Err(BadField::Unknown));
        assert_eq!(Value::blank(Kind::RateMail), None);
    }
}
