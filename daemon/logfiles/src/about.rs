//! What the log files have of one id, address or client, and how far back they go.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use control::{List, LogFilter, StoryLine, Text};

use crate::search::{self, LINE_OCTETS_MAX, MAIN, REJECT, SEARCH_OCTETS_MAX, STAMP_CHARS};

/// Lines of each log.
const LINES_MAX: u16 = 100;

/// The newest lines of both logs that have this part as a whole, and what could not be read or was
/// left out. Of a session's id those of its transactions count too, of `@domain` every address.
#[must_use]
pub fn about(folder: &Path, part: &str) -> (Vec<StoryLine>, Vec<String>) {
    let (mut lines, mut sums) = (Vec::new(), Vec::new());
    for (name, reject) in [(MAIN, false), (REJECT, true)] {
        let filter = LogFilter {
            reject,
            parts: List::cut([Text::cut(part)]),
            count_max: LINES_MAX,
            ..LogFilter::default()
        };
        let (story, enough) = search::look(folder, &filter, has_whole, SEARCH_OCTETS_MAX);
        lines.extend(story.lines.iter().cloned());
        let mut said: Vec<String> = story.sums.iter().map(|sum| (**sum).to_owned()).collect();
        if story.left_out > 0 {
            said.push(format!(
                "{name}: the newest {LINES_MAX} lines; `ringpost log grep` has more."
            ));
        } else if enough {
            said.push(format!(
                "{name}: the newest {LINES_MAX} lines; older files were not searched."
            ));
        }
        said.retain(|sum| !sums.contains(sum));
        sums.append(&mut said);
    }
    (lines, sums)
}

/// Whether a line has this part, and not only inside of a longer word: 192.0.2.1 is not in
/// 192.0.2.10, nor a@x.example in aa@x.example.
fn has_whole(line: &str, part: &str) -> bool {
    // Between an IPv4 address and its port it divides, in one of IPv6 it joins.
    let colon = part.contains(':');
    // A session's id stands before the dot of its transactions.
    let is_id = part.bytes().all(|octet| octet.is_ascii_alphanumeric());
    let is_word = |octet: u8| !octet.is_ascii() || octet.is_ascii_alphanumeric();
    let joins = |octet: u8| {
        is_word(octet) || matches!(octet, b'.' | b'-' | b'_' | b'+') || (octet == b':' && colon)
    };
    let alone = |at: usize| {
        let (before, rest) = (&line.as_bytes()[..at], &line.as_bytes()[at + part.len()..]);
        let goes_on = match rest {
            [b'.', ..] if is_id => false,
            // The end of a sentence is no part of the word.
            [mark, next, ..] if !is_word(*mark) => joins(*mark) && joins(*next),
            [mark] if !is_word(*mark) => false,
            [next, ..] => joins(*next),
            [] => false,
        };
        // What begins with a mark, as `@domain`, may have anything before it.
        let begins = part.bytes().next().is_some_and(joins);
        let inside = begins && before.last().is_some_and(|octet| joins(*octet));
        !inside && !goes_on
    };
    line.match_indices(part).any(|(at, _)| alone(at))
}

/// The time of the oldest line that is still there, of each log: for a question that finds nothing.
#[must_use]
pub fn reach(folder: &Path) -> String {
    let told = [MAIN, REJECT].map(|name| match oldest(folder, name) {
        Ok(None) => format!("{name} is empty"),
        Ok(Some(time)) if time.chars().count() == STAMP_CHARS && search::is_time(&time) => {
            format!("{name} goes back to {time}")
        }
        Ok(Some(_)) => format!("the beginning of {name} cannot be read"),
        Err(error) => format!("{name} cannot be read: {error}"),
    });
    told.join(", ")
}

/// What stands at the head of the log's oldest line.
fn oldest(folder: &Path, name: &str) -> std::io::Result<Option<String>> {
    let places = search::places(folder, name)?;
    let Some(place) = places.iter().rev().find(|place| place.octets > 0) else { return Ok(None) };
    let mut line = Vec::new();
    let file = BufReader::new(File::open(&place.path)?);
    file.take(LINE_OCTETS_MAX).read_until(b'\n', &mut line)?;
    Ok(Some(search::time_of(&String::from_utf8_lossy(&line))))
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
        let (lines, sums) = about(&folder, "a");
        let said: Vec<_> = lines.iter().map(|l| (&*l.source, &l.text[30..])).collect();
        assert_eq!(said, [("mainlog", "A x"), ("rejectlog", "A no")]);
        assert!(sums.is_empty(), "{sums:?}");
        let back = "mainlog goes back to 2026-01-01 00:00:00, \
                    rejectlog goes back to 2026-01-02 10:00:00";
        assert_eq!(reach(&folder), back);
        let (lines, sums) = about(&folder.join("none"), "a");
        assert!(lines.is_empty() && sums.len() == 1 && sums[0].contains("none"), "{sums:?}");
        let gone = reach(&folder.join("none"));
        assert!(gone.starts_with("mainlog cannot be read: No such file"), "{gone}");
        add("rejectlog.20260101T000000Z-000", "no time stands before this line\n");
        assert!(reach(&folder).ends_with("the beginning of rejectlog cannot be read"));
        for _ in 0..LINES_MAX {
            add("mainlog", "2026-01-02 10:00:00.000 +0000 B y\n");
        }
        let (lines, sums) = about(&folder, "b");
        assert_eq!(lines.len(), usize::from(LINES_MAX));
        assert_eq!(sums, ["mainlog: the newest 100 lines; `ringpost log grep` has more."]);
        add("mainlog.20260102T100000Z-000", "2026-01-02 10:00:00.000 +0000 c\n");
        for _ in 0..LINES_MAX {
            add("mainlog", "2026-01-02 10:00:00.000 +0000 C\n");
        }
        let sums = about(&folder, "c").1;
        assert_eq!(sums, ["mainlog: the newest 100 lines; older files were not searched."]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_looked_for_is_no_part_of_a_longer_word() {
        let id = "00010000200000000001";
        for (part, line, found) in [
            ("192.0.2.1", "h=(x) [192.0.2.1]:4711 i=[198.51.100.2]:25", true),
            ("192.0.2.1", "{\"ip\":\"192.0.2.1\",\"port\":4711}", true),
            ("192.0.2.1", "prx=192.0.2.1", true),
            ("192.0.2.1", "asked 192.0.2.1:25, listed is 192.0.2.1.", true),
            ("192.0.2.1", "listed is 192.0.2.1.", true),
            ("192.0.2.1", "[192.0.2.10]:1 [192.0.2.1.9] [1192.0.2.1] [7.192.0.2.1]", false),
            ("192.0.2.1", "[192.0.2.10] and [192.0.2.1]", true),
            ("2001:db8::1", "h=[2001:db8::1]:25", true),
            ("2001:db8::1", "h=[2001:db8::1:1]:25 [2001:db8::10] [9:2001:db8::1]", false),
            ("::1", "h=[2001:db8::1]:25", false),
            ("::1", "h=[::1]:25", true),
            ("2001:db8::", "h=[2001:db8::1]:25", false),
            (id, &format!("{id} lost"), true),
            (id, &format!("{id}.7 lost"), true),
            (id, &format!("9{id} {id}0"), false),
            (&format!("{id}.1"), &format!("\"id\":\"{id}.1\""), true),
            (&format!("{id}.1"), &format!("{id}.10 {id}.1.2"), false),
            ("a@x.example", "f=<a@x.example> to a@x.example: no", true),
            ("a@x.example", "<aa@x.example> b+a@x.example a@x.example.org a@x.example-y", false),
            ("@x.example", "<aa@x.example>", true),
            ("@x.example", "<aa@x.examples> a@x.example.org", false),
            (", id 43c94f08", "for 60 s, id 43c94f08", true),
            (", id 43c94f08", "for 60 s, id 43c94f080", false),
            ("a@x.example", "ä@x.example äa@x.example", false),
        ] {
            assert_eq!(has_whole(line, part), found, "{part} in {line}");
        }
    }
}
