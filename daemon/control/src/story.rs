//! Answers made of lines and of rows.

use serde::{Deserialize, Serialize};

use crate::limits::{
    ADDRESS_OCTETS_MAX, CELLS_MAX, ID_OCTETS_MAX, LINE_OCTETS_MAX, NAME_OCTETS_MAX, ROWS_MAX,
    STATUS_LINES_MAX, STORY_LINES_MAX, TOPS_MAX,
};
use crate::text::{List, Text};

type Line = Text<LINE_OCTETS_MAX>;
type Name = Text<NAME_OCTETS_MAX>;

/// What happened, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Story {
    /// What it is about.
    pub about: Text<ADDRESS_OCTETS_MAX>,
    /// What it comes to, in sentences; empty where nothing is known.
    pub sums: List<Line, STATUS_LINES_MAX>,
    /// The lines.
    pub lines: List<StoryLine, STORY_LINES_MAX>,
    /// Older lines that were left out.
    pub left_out: u64,
    /// Where the next page begins, for logs that are followed.
    pub next: Option<Name>,
}

/// One thing that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoryLine {
    /// When, wall microseconds; 0 where the text says it.
    pub at_us: u64,
    /// Who knows it: `recorder`, `mainlog`, `rejectlog`, `queue`, `hints`, `rules`.
    pub source: Name,
    /// The session or message.
    pub id: Text<ID_OCTETS_MAX>,
    /// What, as a stable name.
    pub what: Name,
    /// Why, as a stable name; may be empty.
    pub reason: Name,
    /// In words.
    pub text: Line,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rows {
    /// The headings.
    pub columns: List<Name, CELLS_MAX>,
    /// Each with as many cells as there are headings.
    pub rows: List<List<Line, CELLS_MAX>, ROWS_MAX>,
    /// Sentences below.
    pub notes: List<Line, STATUS_LINES_MAX>,
}

impl Rows {
    /// An empty table with these headings.
    #[must_use]
    pub fn new(columns: &[&str]) -> Self {
        let columns = List::cut(columns.iter().map(|column| Text::cut(column)));
        Self { columns, ..Self::default() }
    }

    /// With these rows; what is too much is cut.
    #[must_use]
    pub fn with(self, rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        let row = |cells: Vec<String>| List::cut(cells.iter().map(|cell| Text::cut(cell)));
        Self { rows: List::cut(rows.into_iter().map(row)), ..self }
    }

    /// With these sentences.
    #[must_use]
    pub fn noting(self, notes: impl IntoIterator<Item = String>) -> Self {
        Self { notes: List::cut(notes.into_iter().map(|note| Text::cut(&note))), ..self }
    }
}

/// What a next hop's backlog comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Backlog {
    /// The next hop as the queue knows it; `unsorted`: of the run before, not looked at yet.
    pub next_hop: Text<ADDRESS_OCTETS_MAX>,
    /// Messages (a message for two next hops counts for both).
    pub messages: u64,
    /// Octets.
    pub octets: u64,
    /// Of those messages, held.
    pub held: u64,
    /// Age of the oldest, seconds.
    pub oldest_s: u64,
    /// Age of the newest, seconds.
    pub newest_s: u64,
    /// Messages younger than 5 min, 1 h, 6 h, 1 d, 3 d, and the rest.
    pub ages: [u64; 6],
    /// Failures in a row.
    pub failures: u32,
    /// Until it is tried again, seconds; 0: open.
    pub closed_s: u64,
    /// What it said last.
    pub last: Line,
}

/// The queue in few lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Everything.
    pub total: Backlog,
    /// By next hop, the largest first.
    pub next_hops: List<Backlog, ROWS_MAX>,
}

/// What the events of some time come to, by client, next hop or domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tops {
    /// Seconds the events cover: fewer than asked for where the recorder is full.
    pub seconds: u64,
    /// The busiest first.
    pub rows: List<Top, TOPS_MAX>,
    /// Further ones.
    pub left_out: u64,
}

/// One client, next hop or domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Top {
    /// Which.
    pub name: Text<ADDRESS_OCTETS_MAX>,
    /// Connections it opened.
    pub connected: u64,
    /// Messages accepted from it.
    pub accepted: u64,
    /// Their octets.
    pub octets: u64,
    /// Connections, commands and messages refused.
    pub refused: u64,
    /// Recipients relayed.
    pub relayed: u64,
    /// Attempts after which a recipient waits.
    pub deferred: u64,
    /// Recipients that failed for good.
    pub bounced: u64,
    /// When the last trouble was, wall microseconds; 0: none.
    pub trouble_us: u64,
    /// The last trouble, in words.
    pub last: Line,
}

impl Top {
    /// Everything that was counted.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.connected + self.accepted + self.refused + self.relayed + self.deferred + self.bounced
    }

    /// Takes in what another core counted of the same.
    pub fn join(&mut self, other: &Self) {
        self.connected += other.connected;
        self.accepted += other.accepted;
        self.octets += other.octets;
        self.refused += other.refused;
        self.relayed += other.relayed;
        self.deferred += other.deferred;
        self.bounced += other.bounced;
        if other.trouble_us > self.trouble_us {
            self.trouble_us = other.trouble_us;
            self.last = other.last.clone();
        }
    }
}

/// A part of a message's content, or what a played session answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// The octets, base64.
    pub octets: Text<{ crate::limits::REPLY_PART_OCTETS_MAX }>,
    /// The next part to ask for; `None`: this was the last.
    pub next: Option<u32>,
    /// Of a played session: its name for the next question.
    pub play: u64,
    /// What was decided on the way, in words.
    pub notes: List<Line, STATUS_LINES_MAX>,
    /// The session is over.
    pub closed: bool,
}
