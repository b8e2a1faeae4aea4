//! What the log files have of one id, address or client, and how far back they go.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use control::{List, LogFilter, StoryLine, Text};

use crate::search::{self, LINE_OCTETS_MAX, MAIN, REJECT, STAMP_CHARS};

/// Lines of each log.
const LINES_MAX: u16 = 100;

/// The newest lines of both logs that have this part, and what could not be read or was left out.
#[must_use]
pub fn about(folder: &Path, part: &str) -> (Vec<StoryLine>, Vec<String>) {
    let (mut lines, mut sums) = (Vec::new(), Vec::new());
    for reject in [false, true] {
        let filter = LogFilter {
            reject,
            parts: List::cut([Text::cut(part)]),
            count_max: LINES_MAX,
            ..LogFilter::default()
        };
        let story = search::search(folder, &filter);
        lines.extend(story.lines.iter().cloned());
        for sum in story.sums.iter().map(|sum| (**sum).to_owned()) {
            if !sums.contains(&sum) {
                sums.push(sum);
            }
        }
    }
    (lines, sums)
}

/// The time of the oldest line that is still there, of each log: for a question that finds nothing.
#[must_use]
pub fn reach(folder: &Path) -> String {
    let oldest = |name: &str| {
        let places = search::places(folder, name).unwrap_or_default();
        let path = places.iter().rev().find(|place| place.octets > 0)?.path.clone();
        let mut line = Vec::new();
        let file = BufReader::new(File::open(path).ok()?);
        file.take(LINE_OCTETS_MAX).read_until(b'\n', &mut line).ok()?;
        let time = search::time_of(&String::from_utf8_lossy(&line));
        (time.chars().count() == STAMP_CHARS).then_some(time)
    };
    let told = [MAIN, REJECT].map(|name| match oldest(name) {
        Some(time) => format!("{name} goes back to {time}"),
        None => format!("{name} is empty"),
    });
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn both_logs_are_asked_and_say_how_far_they_go_back() {
        let folder = std::env::temp_dir().join(format!("logabout-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let add = |name: &str, text: &str| {
            let mut file = File::options().create(true).append(true).open(folder.join(name));
            std::io::Write::write_all(file.as_mut().unwrap(), text.as_bytes()).unwrap();
        };
        assert_eq!(reach(&folder), "mainlog is empty, rejectlog is empty");
        add("mainlog.20260101T000000Z-000", "2026-01-01 00:00:00.000 +0000 A x\n");
        add("mainlog", "2026-01-02 10:00:00.000 +0000 B y\n");
        add("rejectlog", "2026-01-02 10:00:00.000 +0000 A no\n");
        let (lines, sums) = about(&folder, "a ");
        let said: Vec<_> = lines.iter().map(|l| (&*l.source, &l.text[30..])).collect();
        assert_eq!(said, [("mainlog", "A x"), ("rejectlog", "A no")]);
        assert!(sums.is_empty(), "{sums:?}");
        let back = "mainlog goes back to 2026-01-01 00:00:00, \
                    rejectlog goes back to 2026-01-02 10:00:00";
        assert_eq!(reach(&folder), back);
        let (lines, sums) = about(&folder.join("none"), "a");
        assert!(lines.is_empty() && sums.len() == 1 && sums[0].contains("none"), "{sums:?}");
        fs::remove_dir_all(folder).unwrap();
    }
}
