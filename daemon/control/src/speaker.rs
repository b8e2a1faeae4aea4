//! Whose requests follow on a connection: the console program of a line says who logged in there.
//!
//! *Guarantees*: it takes rights away and never gives any: what the peer's user may not do, nobody
//! may who speaks through it.

use serde::{Deserialize, Serialize};

use crate::limits::NAME_OCTETS_MAX;
use crate::text::Text;

/// Who logged in, as what, where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speaker {
    /// The name of the login.
    pub name: Text<NAME_OCTETS_MAX>,
    /// What it may.
    pub role: Role,
    /// The line, such as `ttyS0`.
    pub line: Text<NAME_OCTETS_MAX>,
}

/// What a login may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look, try things out, and ask for another try of messages.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    /// The name in files and on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Operator, Self::Admin].into_iter().find(|role| role.name() == name)
    }
}
