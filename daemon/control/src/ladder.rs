//! What the admin tool asks of the ladder and its XDP filter, and what it hears.

use serde::{Deserialize, Serialize};

use crate::limits::{ADDRESS_OCTETS_MAX, LADDER_LINES_MAX, LINE_OCTETS_MAX, NAME_OCTETS_MAX};
use crate::text::{List, Text};

/// A question about the ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum XdpRequest {
    /// Mode, filter, lists, zones, bans, counters.
    Status,
    /// Which lists met how many clients in the filter.
    Top,
    /// All that is known of an address, or of an id of a refusal.
    Look {
        /// Address, or eight hexadecimal digits.
        what: Text<ADDRESS_OCTETS_MAX>,
    },
    /// Ban an address.
    Add {
        /// Which.
        address: Text<ADDRESS_OCTETS_MAX>,
        /// `answer` or `drop`.
        rung: Text<NAME_OCTETS_MAX>,
        /// For how long, seconds.
        life_s: u32,
    },
    /// Lift a ban.
    Remove {
        /// Of which address.
        address: Text<ADDRESS_OCTETS_MAX>,
    },
    /// What would happen to an address now.
    Simulate {
        /// Which.
        address: Text<ADDRESS_OCTETS_MAX>,
    },
    /// Events of the filter behind this number; waits a while for the first.
    Tail {
        /// 0: all that are kept.
        after: u64,
    },
}

impl XdpRequest {
    /// Whether it only looks.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        !matches!(self, Self::Add { .. } | Self::Remove { .. })
    }
}

/// Lines with their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct XdpPage {
    /// In order.
    pub lines: List<XdpLine, LADDER_LINES_MAX>,
    /// Of `tail`: the number of the last event.
    pub next: Option<u64>,
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct XdpLine {
    /// What it is about.
    pub name: Text<NAME_OCTETS_MAX>,
    /// What there is to say.
    pub value: Text<LINE_OCTETS_MAX>,
}
