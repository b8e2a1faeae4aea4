//! Records and rates as people read them, page by page: what the admin tool shows, of a running
//! daemon and of a dead one's file.
//!
//! *Limits*: a page holds as many as its caller says.

use core::fmt;

use crate::admin::RateEntry;
use crate::key::{Key, KeyText};
use crate::kind::Kind;
use crate::store::{Hints, Record};
use crate::value::{BadField, Value};

const SECOND_US: u64 = 1_000_000;
/// Cursors of rates lie above those of records.
const RATES: u64 = 1 << 40;
/// What keys of notes begin with.
const CLIENT: &[u8] = b"client ";
const MESSAGE: &[u8] = b"message ";

/// One record or rate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The name of its kind.
    pub kind: &'static str,
    /// Its key.
    pub key: String,
    /// The node that wrote it.
    pub origin: u16,
    /// Since it was written, seconds.
    pub age_s: u64,
    /// Until it expires, seconds.
    pub left_s: u64,
    /// Its fields.
    pub fields: Vec<(&'static str, u64)>,
    /// Text it holds, such as a reply.
    pub text: Vec<u8>,
}

/// Which of them.
#[derive(Clone, Debug, Default)]
pub struct Pick<'p> {
    /// Of this kind alone.
    pub kind: Option<Kind>,
    /// With this in the key, without regard to case.
    pub part: Option<&'p str>,
    /// From here on: 0, or what the page before said.
    pub cursor: u64,
    /// At most so many.
    pub most: usize,
}

/// How messages are named: text of the 16 octets in the key of a note, and back. The tables do not
/// know what an id is.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// The text of an id.
    pub text: fn([u8; 16]) -> String,
    /// The octets of a text that is one.
    pub octets: fn(&str) -> Option<[u8; 16]>,
}

impl Names {
    /// A key as people write it.
    #[must_use]
    pub fn key_text(self, key: &Key) -> String {
        if let Some(client) = key.octets().strip_prefix(CLIENT) {
            return format!("client {}", KeyText(client, key.is_cut()));
        }
        match key.octets().strip_prefix(MESSAGE).map(<[u8; 16]>::try_from) {
            Some(Ok(id)) => format!("message {}", (self.text)(id)),
            _ => key.text().to_string(),
        }
    }

    /// The octets of a key that people wrote.
    #[must_use]
    pub fn key_octets(self, text: &str) -> Vec<u8> {
        if let Some(client) = text.strip_prefix("client ") {
            return [CLIENT, &Key::octets_of_text(client)].concat();
        }
        match text.strip_prefix("message ").and_then(self.octets) {
            Some(id) => [MESSAGE, &id].concat(),
            None => Key::octets_of_text(text),
        }
    }

    /// A record as people read it.
    #[must_use]
    pub fn entry(self, record: &Record, now_us: u64) -> Entry {
        Entry {
            kind: record.kind.name(),
            key: self.key_text(&record.key),
            origin: record.origin,
            age_s: now_us.saturating_sub(record.written_us) / SECOND_US,
            left_s: record.expires_us.saturating_sub(now_us) / SECOND_US,
            fields: record.value.fields(),
            text: match record.value {
                Value::Retry(retry) => retry.reply.text().to_vec(),
                _ => Vec::new(),
            },
        }
    }
}

/// Why a record cannot be set, or put back, as people want it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Rates and notes of crashes come by themselves.
    Kind,
    /// A field, what is wrong with it, and which there are.
    Field(String, BadField, Vec<&'static str>),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind => f.write_str("hints of this kind are not set, only deleted"),
            Self::Field(name, bad, _) => write!(f, "{name}: {bad}"),
        }
    }
}

impl Unfit {
    /// What can be done.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Kind => String::new(),
            Self::Field(_, _, names) => format!("the fields are {}", names.join(" ")),
        }
    }
}

impl Value {
    /// What a line of a dump says, to be put back.
    ///
    /// # Errors
    /// What speaks against it.
    pub fn of_dump<'f>(
        kind: Kind,
        fields: impl IntoIterator<Item = (&'f str, u64)>,
        text: &[u8],
    ) -> Result<Self, String> {
        let value = Self::with(kind, None, fields).map_err(|unfit| match unfit {
            Unfit::Kind => "hints of this kind are not put back".to_owned(),
            field @ Unfit::Field(..) => field.to_string(),
        })?;
        Ok(value.saying(text))
    }

    /// The old value, or a blank one, with these fields.
    ///
    /// # Errors
    /// What speaks against it.
    pub fn with<'f>(
        kind: Kind,
        old: Option<Self>,
        fields: impl IntoIterator<Item = (&'f str, u64)>,
    ) -> Result<Self, Unfit> {
        let value = old.or_else(|| Self::blank(kind));
        let value = value.filter(|_| kind != Kind::Note && !kind.is_rate());
        let mut value = value.ok_or(Unfit::Kind)?;
        for (name, number) in fields {
            if let Err(bad) = value.set(name, number) {
                let names = value.fields().into_iter().map(|(name, _)| name).collect();
                return Err(Unfit::Field(name.to_owned(), bad, names));
            }
        }
        Ok(value)
    }

    /// With the text of an [`Entry`], where the kind has any.
    #[must_use]
    pub fn saying(mut self, text: &[u8]) -> Self {
        if let Self::Retry(retry) = &mut self {
            let crate::retry::Reply { code, enhanced, .. } = retry.reply;
            retry.reply = crate::retry::Reply::new(code, enhanced, text);
        }
        self
    }
}

fn of_rate(rate: &RateEntry) -> Entry {
    let (kind, key) = match &rate.name {
        Some((kind, key)) => (kind.name(), KeyText(key, false).to_string()),
        None => ("rate", format!("#{:x}", rate.tag)),
    };
    let left_s = rate.ahead_us / SECOND_US;
    Entry { kind, key, left_s, fields: vec![("ahead_us", rate.ahead_us)], ..Entry::default() }
}

impl Hints<'_> {
    /// A page of records, then of rates, and where the next one begins.
    #[must_use]
    pub fn page(&self, pick: &Pick<'_>, names: Names, now_us: u64) -> (Vec<Entry>, Option<u64>) {
        let part = pick.part.map(str::to_ascii_lowercase);
        let fits = |entry: &Entry| {
            pick.kind.is_none_or(|kind| entry.kind == kind.name())
                && part.as_ref().is_none_or(|part| entry.key.to_ascii_lowercase().contains(part))
        };
        let at = |cursor: u64| usize::try_from(cursor).unwrap_or(usize::MAX);
        let (records_from, rates_from) = match pick.cursor.checked_sub(RATES) {
            None => (at(pick.cursor), 0),
            Some(cursor) => (usize::MAX, at(cursor)),
        };
        let records = self.records(records_from, now_us);
        let records = records.map(|(next, record)| (next as u64, names.entry(&record, now_us)));
        let rates = self.rates(rates_from, now_us);
        let rates = rates.map(|(next, rate)| (RATES + next as u64, of_rate(&rate)));
        let mut page = Vec::new();
        for (cursor, entry) in records.chain(rates).filter(|(_, entry)| fits(entry)) {
            page.push(entry);
            if page.len() >= pick.most {
                return (page, Some(cursor));
            }
        }
        (page, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gcra::Limit;
    use crate::hash::Seed;
    use crate::store::Setup;
    use core::sync::atomic::AtomicU64;

    const NOW: u64 = 1_785_414_896_000_000;

    const NAMES: Names = Names {
        text: |id| format!("<{}>", id[0]),
        octets: |text| text.strip_prefix('<')?.strip_suffix('>')?.parse().ok().map(|n| [n; 16]),
    };

    #[test]
    fn pages_follow_one_another_and_keys_lead_back() {
        let words: Vec<AtomicU64> = (0..1 << 17).map(|_| AtomicU64::new(0)).collect();
        let setup = Setup { seed: Seed([1, 2]), node: 1, wall_us: NOW };
        let hints = Hints::format(&words, setup).unwrap();
        for key in ["client 192.0.2.1", "client 2001:db8::/64", "message <7>"] {
            hints.put_note(&NAMES.key_octets(key), 1, NOW);
        }
        for n in 0..3 {
            let key = format!("rate{n}.example");
            hints.rate(Kind::RateMail, key.as_bytes(), Limit::new(1, 3_600_000_000), NOW);
        }
        let (mut cursor, mut keys) = (0, Vec::new());
        for round in 0.. {
            assert!(round < 10, "no end");
            let pick = Pick { cursor, most: 2, ..Pick::default() };
            let (page, next) = hints.page(&pick, NAMES, NOW);
            assert!(page.len() <= 2);
            keys.extend(page.into_iter().map(|entry| entry.key));
            let Some(next) = next else { break };
            cursor = next;
        }
        keys.sort();
        let wanted = [
            "client 192.0.2.1",
            "client 2001:db8::/64",
            "message <7>",
            "rate0.example",
            "rate1.example",
            "rate2.example",
        ];
        assert_eq!(keys, wanted);
        let part = Pick { part: Some("MESSAGE"), most: 9, ..Pick::default() };
        assert_eq!(hints.page(&part, NAMES, NOW).0.len(), 1);
        let kind = Pick { kind: Some(Kind::RateMail), most: 9, ..Pick::default() };
        assert_eq!(hints.page(&kind, NAMES, NOW).0.len(), 3);
    }
}
