//! What is wrong with a config, where, and what to write instead.
//!
//! *Limits.* `CONFIG_PROBLEMS_MAX` problems are kept; the rest is counted.

use std::fmt;
use std::sync::Arc;

use crate::limits;

/// A place in a file, counted from 1; columns are characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file as it was named.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What.
    pub message: String,
    /// What to write instead.
    pub write: String,
    /// The second place, when two contradict each other, and what stands there.
    pub other: Option<(Place, String)>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        if !self.write.is_empty() {
            write!(f, "; write {}", self.write)?;
        }
        if let Some((place, what)) = &self.other {
            write!(f, "; see {place} ({what})")?;
        }
        Ok(())
    }
}

/// All that is wrong with one config, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    found: Vec<Problem>,
    dropped: usize,
}

impl Problems {
    /// Notes one more; beyond the limit it is only counted.
    pub(super) fn push(&mut self, problem: Problem) {
        if self.found.len() < limits::CONFIG_PROBLEMS_MAX {
            self.found.push(problem);
        } else {
            self.dropped += 1;
        }
    }

    /// Puts them into the order of the file.
    pub(super) fn sort(&mut self) {
        self.found.sort_by(|a, b| a.place.cmp(&b.place));
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The problems, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.found.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.found {
            writeln!(f, "{problem}")?;
        }
        if self.dropped > 0 {
            writeln!(f, "and {} more", self.dropped)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A text with the lines found in it: turns offsets into places.
#[derive(Debug)]
pub(super) struct Source<'t> {
    file: Arc<str>,
    text: &'t str,
    line_starts: Vec<usize>,
}

impl<'t> Source<'t> {
    pub(super) fn new(file: &str, text: &'t str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Self { file: Arc::from(file), text, line_starts }
    }

    /// The place of the octet at `offset`; what lies behind the end is the end.
    pub(super) fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let before = self.text.get(self.line_starts[line - 1]..offset).unwrap_or_default();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place {
            file: Arc::clone(&self.file),
            line: count(line),
            column: count(before.chars().count() + 1),
        }
    }
}
