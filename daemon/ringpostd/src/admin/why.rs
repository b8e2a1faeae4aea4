//! A core's part of an answer to "why": a search of its recorder, a step a turn.
//!
//! *Limits*: [`SEARCHES_MAX`] at once.

use control::limits::STORY_LINES_MAX;
use control::{Failure, FailureCode, List, Reply, Story, WhyFilter};

use crate::desk::Desk;
use crate::recorder::{Search, Wanted};

/// Searches under way on one core.
const SEARCHES_MAX: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Searches(Vec<(u64, String, Search)>);

impl Searches {
    /// Begins one; what is wrong with the question, or that there are too many.
    pub(super) fn begin(
        &mut self,
        desk: &Desk,
        number: u64,
        filter: &WhyFilter,
    ) -> Result<(), Failure> {
        if self.0.len() >= SEARCHES_MAX {
            return Err(Failure::new(FailureCode::Busy, "too many searches at once", ""));
        }
        let Some(wanted) = Wanted::parse(&filter.what) else {
            let message = "this is no id, no mail address, no IP address and no network";
            return Err(Failure::new(FailureCode::Refused, message, ""));
        };
        let search = desk.stream.recorder.search(wanted, filter.after_us, STORY_LINES_MAX);
        self.0.push((number, filter.what.to_string(), search));
        Ok(())
    }

    /// Whether a turn has something to do here.
    pub(super) const fn is_idle(&self) -> bool {
        self.0.is_empty()
    }

    /// Goes on with all; what is ready, by number.
    pub(super) fn step(&mut self, desk: &Desk) -> Vec<(u64, Reply)> {
        let mut ready = Vec::new();
        for (number, about, mut search) in std::mem::take(&mut self.0) {
            if !desk.stream.recorder.step(&mut search) {
                self.0.push((number, about, search));
                continue;
            }
            let (lines, left_out) = search.into_lines();
            let lines = List::cut(lines);
            let about = control::Text::cut(&about);
            let story = Story { about, lines, left_out, ..Story::default() };
            ready.push((number, Reply::Story(Box::new(story))));
        }
        ready
    }
}
