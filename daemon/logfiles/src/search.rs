//! Lines of a log by part and time, over its files.
//!
//! *Limits*: [`SEARCH_OCTETS_MAX`] read for one question, the newest files first.
//! *Failure*: a file that cannot be read is named in the answer.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use control::limits::STORY_LINES_MAX;
use control::{List, LogFilter, Story, StoryLine, Text};

/// Octets read for one question.
pub const SEARCH_OCTETS_MAX: u64 = 256 << 20;
/// Octets of a line that are looked at.
pub(crate) const LINE_OCTETS_MAX: u64 = 64 << 10;
/// Characters of a time as operators write it.
pub(crate) const STAMP_CHARS: usize = 19;
/// The log with every line.
pub const MAIN: &str = "mainlog";
/// That of what was refused.
pub const REJECT: &str = "rejectlog";

pub(crate) struct Place {
    pub(crate) path: PathBuf,
    from: u64,
    pub(crate) octets: u64,
    inode: u64,
}

/// The log's files, the newest first; `None` where the folder cannot be read.
pub(crate) fn places(folder: &Path, name: &str) -> std::io::Result<Vec<Place>> {
    let mut places = Vec::new();
    for entry in fs::read_dir(folder)?.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let closed = file.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        let Ok(meta) = entry.metadata() else { continue };
        if (closed || file == name) && meta.is_file() {
            places.push((closed, file, meta, entry.path()));
        }
    }
    // The open file has the shortest name; closed ones sort by time.
    places.sort_by(|a, b| (a.0, &b.1).cmp(&(b.0, &a.1)));
    let place = |(_, _, meta, path): (bool, String, fs::Metadata, PathBuf)| Place {
        path,
        from: 0,
        octets: meta.len(),
        inode: meta.ino(),
    };
    Ok(places.into_iter().map(place).collect())
}

/// Only what was written behind a place that an earlier answer named.
fn behind(mut places: Vec<Place>, after: &str) -> Vec<Place> {
    let mut parts = after.split(':').map(|part| part.parse::<u64>().ok());
    let (Some(Some(inode)), Some(Some(from))) = (parts.next(), parts.next()) else { return places };
    if let Some(at) = places.iter().position(|place| place.inode == inode) {
        places.truncate(at + 1);
        places[at].from = from.min(places[at].octets);
    } else {
        places.truncate(1);
    }
    places
}

/// The time at the head of a line, in the form the operator writes it.
pub(crate) fn time_of(line: &str) -> String {
    let stamp = match line.strip_prefix('{') {
        Some(rest) => rest.splitn(4, '"').nth(3).unwrap_or_default(),
        None => line,
    };
    stamp.chars().take(STAMP_CHARS).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

/// Whether this is a time as the log writes it, or its beginning from the year on.
#[must_use]
pub fn is_time(text: &str) -> bool {
    const SHAPE: &[u8] = b"0000-00-00 00:00:00.000";
    let fits = |(octet, shape): (u8, &u8)| match shape {
        b'0' => octet.is_ascii_digit(),
        // As lines of JSON have it.
        b' ' => matches!(octet, b' ' | b'T'),
        shape => octet == *shape,
    };
    (4..=SHAPE.len()).contains(&text.len()) && text.bytes().zip(SHAPE).all(fits)
}

/// Whether a line has this part.
pub(crate) type Has = fn(&str, &str) -> bool;

/// What lines must have.
struct Wanted {
    since: String,
    until: String,
    /// Lower case.
    parts: Vec<String>,
    has: Has,
}

impl Wanted {
    fn new(filter: &LogFilter, has: Has) -> Self {
        Self {
            // To the second: a line is not before the time at its own head.
            since: time_of(&filter.since),
            until: time_of(&filter.until),
            parts: filter.parts.iter().map(|part| part.to_ascii_lowercase()).collect(),
            has,
        }
    }

    fn fits(&self, line: &str) -> bool {
        if !self.since.is_empty() || !self.until.is_empty() {
            let (time, until) = (time_of(line), &*self.until);
            let late = !until.is_empty() && time.as_str() > until && !time.starts_with(until);
            if time < self.since || late {
                return false;
            }
        }
        if self.parts.is_empty() {
            return true;
        }
        let line = line.to_ascii_lowercase();
        self.parts.iter().all(|part| (self.has)(&line, part))
    }
}

/// The newest lines that fit.
#[must_use]
pub fn search(folder: &Path, filter: &LogFilter) -> Story {
    look(folder, filter, |line, part| line.contains(part), SEARCH_OCTETS_MAX).0
}

/// The newest lines that fit, and whether there are older files that nobody looked into, as there
/// were lines enough.
pub(crate) fn look(folder: &Path, filter: &LogFilter, has: Has, octets_max: u64) -> (Story, bool) {
    let name = if filter.reject { REJECT } else { MAIN };
    let most = match usize::from(filter.count_max) {
        0 => STORY_LINES_MAX,
        count => count.min(STORY_LINES_MAX),
    };
    let mut sums = Vec::new();
    let places = places(folder, name).unwrap_or_else(|error| {
        sums.push(format!("{}: {error}", folder.display()));
        Vec::new()
    });
    let next = places.first().map(|open| format!("{}:{}", open.inode, open.octets));
    let places = match &filter.after {
        Some(after) => behind(places, after),
        None => places,
    };
    let wanted = Wanted::new(filter, has);
    let mut found: VecDeque<String> = VecDeque::new();
    let (mut left_out, mut enough) = (0, false);
    let mut budget = octets_max;
    for mut place in places.into_iter().filter(|place| place.octets > place.from) {
        enough = found.len() >= most;
        if enough {
            break;
        }
        let cut = budget < place.octets - place.from;
        if cut {
            sums.push(unsearched(&place, budget));
            place.from = place.octets - budget;
        }
        budget -= place.octets - place.from;
        let mut here = VecDeque::new();
        let room = most - found.len();
        let done = lines(&place, cut, |line| {
            if wanted.fits(line) {
                here.push_back(line.to_owned());
                if here.len() > room {
                    here.pop_front();
                    left_out += 1;
                }
            }
        });
        if let Err(error) = done {
            sums.push(format!("{}: {error}", place.path.display()));
        }
        here.extend(found);
        found = here;
        if cut {
            break;
        }
    }
    let line = |text: String| StoryLine {
        source: Text::cut(name),
        text: Text::cut(&text),
        ..StoryLine::default()
    };
    let story = Story {
        about: Text::cut(&wanted.parts.join(" ")),
        sums: List::cut(sums.iter().map(|sum| Text::cut(sum))),
        lines: List::cut(found.into_iter().map(line)),
        left_out,
        next: next.map(|next| Text::cut(&next)),
    };
    (story, enough)
}

/// What was not searched of a file that is longer than what may still be read.
fn unsearched(place: &Place, octets: u64) -> String {
    let path = place.path.display();
    match octets {
        0 => format!("{path} and what is older was not searched"),
        octets if octets < 1 << 20 => {
            format!("nothing before the last {octets} octets of {path} was searched")
        }
        octets => format!("nothing before the last {} MiB of {path} was searched", octets >> 20),
    }
}

/// Every whole line of a file, up to the length it had when it was found. Of one that is `cut` the
/// first is the rest of a line.
fn lines(place: &Place, cut: bool, mut take: impl FnMut(&str)) -> std::io::Result<()> {
    let mut file = File::open(&place.path)?;
    file.seek(SeekFrom::Start(place.from))?;
    let mut file = BufReader::with_capacity(64 << 10, file.take(place.octets - place.from));
    let mut line = Vec::new();
    if cut {
        file.skip_until(b'\n')?;
    }
    loop {
        line.clear();
        if Read::by_ref(&mut file).take(LINE_OCTETS_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        take(String::from_utf8_lossy(&line).trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_part_and_time_and_followed_over_a_rotation() {
        let folder = std::env::temp_dir().join(format!("logsearch-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write("mainlog.20260101T000000Z-000", "2026-01-01 00:00:00.000 +0000 A old\n");
        write("mainlog", "2026-01-02 10:00:00.000 +0000 A x\n2026-01-02 11:00:00.000 +0000 b Y\n");
        write("rejectlog", "2026-01-02 10:00:00.000 +0000 no\n");
        let ask = |filter: &LogFilter| {
            let story = search(&folder, filter);
            let lines: Vec<String> = story.lines.iter().map(|l| l.text[30..].to_owned()).collect();
            (lines, story.next.unwrap())
        };
        let part =
            |text: &str| LogFilter { parts: List::cut([Text::cut(text)]), ..LogFilter::default() };
        assert_eq!(ask(&part("")).0, ["A old", "A x", "b Y"]);
        assert_eq!(ask(&part("a ")).0, ["A old", "A x"]);
        let since = LogFilter { since: Text::cut("2026-01-02 11"), ..LogFilter::default() };
        assert_eq!(ask(&since).0, ["b Y"]);
        let until = LogFilter { until: Text::cut("2026-01-02 10"), ..LogFilter::default() };
        assert_eq!(ask(&until).0, ["A old", "A x"]);
        let newest = LogFilter { count_max: 1, ..LogFilter::default() };
        let (lines, next) = ask(&newest);
        assert_eq!(lines, ["b Y"]);
        let mut text = fs::read_to_string(folder.join("mainlog")).unwrap();
        text.push_str("2026-01-02 12:00:00.000 +0000 c\n");
        write("mainlog", &text);
        fs::rename(folder.join("mainlog"), folder.join("mainlog.20260102T120000Z-000")).unwrap();
        write("mainlog", "2026-01-02 13:00:00.000 +0000 d\n");
        let follow = LogFilter { after: Some(next), ..LogFilter::default() };
        assert_eq!(ask(&follow).0, ["c", "d"]);
        let reject = LogFilter { reject: true, ..LogFilter::default() };
        assert_eq!(ask(&reject).0, ["no"]);
        assert_eq!(time_of("{\"time\":\"2026-01-02T10:00:00.1\"}"), "2026-01-02 10:00:00");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_time_may_be_that_of_a_line_down_to_its_milliseconds() {
        for good in ["2026", "2026-01-02T10:0", "2026-01-02 10:00:00.123"] {
            assert!(is_time(good), "{good}");
        }
        for odd in ["", "202", "tomorrow", "2026-01-02_10", "2026-01-02 10:00:00.1234"] {
            assert!(!is_time(odd), "{odd}");
        }
        let line = "2026-01-02 10:00:00.500 +0000 x";
        let fits = |since: &str, until: &str| {
            let (since, until) = (Text::cut(since), Text::cut(until));
            let filter = LogFilter { since, until, ..LogFilter::default() };
            Wanted::new(&filter, |_, _| true).fits(line)
        };
        assert!(fits("2026-01-02T10:00:00.500", "2026-01-02 10:00:00.500"));
        assert!(!fits("2026-01-02 10:00:01", "") && !fits("", "2026-01-02 09:59:59.999"));
    }

    #[test]
    fn of_a_file_that_is_too_long_the_end_is_searched_and_what_was_not_is_said() {
        let folder = std::env::temp_dir().join(format!("loglong-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let stamp = "2026-01-02 10:00:00.000 +0000";
        let long: String = ["a", "b", "c"].map(|word| format!("{stamp} {word}\n")).concat();
        fs::write(folder.join("mainlog"), format!("{stamp} d\n")).unwrap();
        fs::write(folder.join("mainlog.20260101T000000Z-001"), &long).unwrap();
        fs::write(folder.join("mainlog.20260101T000000Z-000"), &long).unwrap();
        let ask = |octets_max: u64| {
            let found = look(&folder, &LogFilter::default(), |_, _| true, octets_max).0;
            let words: String = found.lines.iter().map(|line| &line.text[30..]).collect();
            (words, found.sums.iter().map(|sum| sum.to_string()).collect::<Vec<_>>())
        };
        let size = long.len() as u64;
        let (words, sums) = ask(size);
        assert_eq!(words, "cd", "the budget ends inside b");
        let named = |part: &str| sums.len() == 1 && sums[0].contains(part);
        assert!(named("nothing before the last 64 octets of ") && named("Z-001"), "{sums:?}");
        let (words, sums) = ask(size + size / 3);
        assert_eq!(words, "abcd");
        assert!(sums.len() == 1 && sums[0].ends_with("Z-000 and what is older was not searched"));
        assert_eq!(ask(3 * size), ("abcabcd".to_owned(), Vec::new()));
        let place = Place { path: "mainlog".into(), from: 0, octets: 300 << 20, inode: 0 };
        let said = "nothing before the last 256 MiB of mainlog was searched";
        assert_eq!(unsearched(&place, SEARCH_OCTETS_MAX), said);
        fs::remove_dir_all(folder).unwrap();
    }
}
