//! A core's part of an answer to "why" and to "who": its recorder is searched or counted, a step a
//! turn.
//!
//! *Limits*: [`SEARCHES_MAX`] at once.

use control::limits::STORY_LINES_MAX;
use control::{Failure, FailureCode, List, Reply, Story, TopsFilter, WhyFilter};

use crate::desk::Desk;
use crate::recorder::{Count, Search, Wanted};

/// Searches under way on one core.
const SEARCHES_MAX: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Searches {
    searches: Vec<(u64, String, Search)>,
    counts: Vec<(u64, Count)>,
}

fn busy() -> Failure {
    Failure::new(FailureCode::Busy, "too many searches at once", "ask again in a few seconds")
}

impl Searches {
    /// Begins one; what is wrong with the question, or that there are too many.
    pub(super) fn begin(
        &mut self,
        desk: &Desk,
        number: u64,
        filter: &WhyFilter,
    ) -> Result<(), Failure> {
        if self.searches.len() >= SEARCHES_MAX {
            return Err(busy());
        }
        let Some(wanted) = Wanted::parse(&filter.what) else {
            let message = "this is no id, no mail address, no IP address and no network";
            return Err(Failure::new(FailureCode::Refused, message, ""));
        };
        let search = desk.stream.recorder.search(wanted, filter.after_us, STORY_LINES_MAX);
        self.searches.push((number, filter.what.to_string(), search));
        Ok(())
    }

    /// Begins a count.
    pub(super) fn begin_count(
        &mut self,
        desk: &Desk,
        number: u64,
        filter: TopsFilter,
    ) -> Result<(), Failure> {
        if self.counts.len() >= SEARCHES_MAX {
            return Err(busy());
        }
        let after_us = desk.wall_us.saturating_sub(u64::from(filter.seconds) * 1_000_000);
        self.counts.push((number, desk.stream.recorder.count(filter.by, after_us)));
        Ok(())
    }

    /// Whether a turn has something to do here.
    pub(super) const fn is_idle(&self) -> bool {
        self.searches.is_empty() && self.counts.is_empty()
    }

    /// Goes on with all; what is ready, by number.
    pub(super) fn step(&mut self, desk: &Desk) -> Vec<(u64, Reply)> {
        let mut ready = Vec::new();
        for (number, about, mut search) in std::mem::take(&mut self.searches) {
            if !desk.stream.recorder.step(&mut search) {
                self.searches.push((number, about, search));
                continue;
            }
            let (lines, left_out) = search.into_lines();
            let lines = List::cut(lines);
            let about = control::Text::cut(&about);
            let story = Story { about, lines, left_out, ..Story::default() };
            ready.push((number, Reply::Story(Box::new(story))));
        }
        for (number, mut count) in std::mem::take(&mut self.counts) {
            if desk.stream.recorder.step_count(&mut count) {
                let tops = count.into_tops(desk.wall_us);
                ready.push((number, Reply::Tops(Box::new(tops))));
            } else {
                self.counts.push((number, count));
            }
        }
        ready
    }
}
