//! SPF (RFC 7208): may this client send for that domain, and which term says so.
//!
//! *Guarantees.* A pure function of its input and of DNS answers: what it lacks it names, and is
//! called again with that. Every term that was looked at stands in the report.
//! *Limits.* [`LOOKUPS_MAX`] terms that ask the DNS, [`VOIDS_MAX`] answers without records
//! (RFC 7208 4.6.4), [`NAMES_MAX`] exchangers or names of an address.
//! *Not here.* Asking the DNS (`house`); refusing mail: this version only explains.

mod macros;

mod record;

mod evaluate;

use std::collections::HashMap;
use std::net::IpAddr;

use crate::dns::Kind;

pub use evaluate::evaluate;

/// Terms that ask the DNS.
pub const LOOKUPS_MAX: u32 = 10;
/// Answers without records.
pub const VOIDS_MAX: u32 = 2;
/// Exchangers of one `mx`, names of one `ptr`.
pub const NAMES_MAX: usize = 10;

/// Who wants to send for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The client.
    pub ip: IpAddr,
    /// What it says in EHLO.
    pub helo: String,
    /// The sender; empty: the null sender, then the EHLO name counts (RFC 7208 2.4).
    pub from: String,
}

/// What the DNS says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Texts, addresses or names, as text.
    Records(Vec<String>),
    /// No such name, or no such record.
    Void,
    /// Not known for now.
    Temporary,
}

/// Answers so far.
pub type Answers = HashMap<(Kind, String), Answer>;

/// What is to be asked before it can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The type of records.
    pub kind: Kind,
    /// The name.
    pub name: String,
}

/// The verdicts of RFC 7208 2.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of RFC 7208 2.6")]
pub enum Verdict {
    None,
    Neutral,
    Pass,
    Fail,
    SoftFail,
    TempError,
    PermError,
}

impl Verdict {
    /// Its name in the RFC.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Neutral => "neutral",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// One term that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// How many records deep: 0 is the domain's own.
    pub depth: usize,
    /// Whose record.
    pub domain: String,
    /// The term as written.
    pub term: String,
    /// What came of it.
    pub outcome: String,
}

/// What it comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// The domain that was asked.
    pub domain: String,
    /// Every term, in order.
    pub steps: Vec<Step>,
    /// Why, where the steps do not say it.
    pub why: String,
    /// What the domain says to those it refuses (`exp=`); may be empty.
    pub explanation: String,
    /// Terms that asked the DNS.
    pub lookups: u32,
    /// Answers without records.
    pub voids: u32,
}
