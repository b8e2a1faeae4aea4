//! One hint, as it is listed and as it is put back.

use serde::{Deserialize, Serialize};

use crate::limits::{ADDRESS_OCTETS_MAX, HINT_FIELDS_MAX, LINE_OCTETS_MAX, NAME_OCTETS_MAX};
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
