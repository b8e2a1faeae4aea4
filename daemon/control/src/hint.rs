//! One hint, as it is listed and as it is put back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::{ADDRESS_OCTETS_MAX, HINT_FIELDS_MAX, LINE_OCTETS_MAX, NAME_OCTETS_MAX};
use crate::story::Rows;
use crate::text::{List, Text};

/// A field and its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HintField {
    /// Its name.
    pub name: Text<NAME_OCTETS_MAX>,
    /// Its value.
    pub number: u64,
}

/// One hint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hint {
    /// Its kind.
    pub kind: Text<NAME_OCTETS_MAX>,
    /// Its key, as written for people.
    pub key: Text<ADDRESS_OCTETS_MAX>,
    /// The node that wrote it.
    pub origin: u16,
    /// Since it was written, seconds.
    pub age_s: u64,
    /// Until it expires, seconds.
    pub expires_s: u64,
    /// Its fields.
    pub fields: List<HintField, HINT_FIELDS_MAX>,
    /// Text it holds, such as a reply.
    pub text: Text<LINE_OCTETS_MAX>,
}

impl Hint {
    /// Its fields, by name.
    pub fn numbers(&self) -> impl Iterator<Item = (&str, u64)> {
        self.fields.iter().map(|field| (&*field.name, field.number))
    }
}

/// Puts hints back one by one; the table says how many it was, and of how many it could not be
/// done and why.
pub fn put_back(hints: &[Hint], mut put: impl FnMut(&Hint) -> Result<(), String>) -> Rows {
    let (mut done, mut failed) = (0_u64, BTreeMap::<String, u64>::new());
    for hint in hints {
        match put(hint) {
            Ok(()) => done += 1,
            Err(why) => *failed.entry(format!("{}: {why}", &*hint.kind)).or_default() += 1,
        }
    }
    let mut rows = vec![vec![done.to_string(), "put back".to_owned()]];
    rows.extend(failed.into_iter().map(|(why, count)| vec![count.to_string(), why]));
    Rows::new(&["hints", "what"]).with(rows)
}
