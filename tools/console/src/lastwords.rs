//! The logs of a dead daemon: their files answer `why`, `log tail` and `log grep`.
//!
//! *Guarantees*: only the files of the log are read, and a running daemon may go on writing them.
//! *Failure*: a folder without logs is named. What was never written into a file is unknown here:
//! of accepted mail every line is, of refusals those of the last moment before a crash may not be.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ::spool::id::{ID_CHARS, MessageId};
use control::{Failure, FailureCode, List, Reply, Request, Story, Text, WhyFilter};
use logfiles::{MAIN, REJECT};

use crate::exit::{Exit, Trouble};

/// A folder of logs.
#[derive(Debug)]
pub(crate) struct LastWords(PathBuf);

impl LastWords {
    /// Takes a folder.
    ///
    /// # Errors
    /// It cannot be read, or has no logs.
    pub(crate) fn open(folder: &Path) -> Result<Self, Trouble> {
        const ADVICE: &str = "Name the folder of `[log] dir`, where mainlog lies.";
        let broken = |what: &str| {
            Trouble::new(Exit::Refused, format!("{}: {what}", folder.display()), ADVICE)
        };
        let names = std::fs::read_dir(folder).map_err(|error| broken(&error.to_string()))?;
        let is_log = |name: &str| name.starts_with(MAIN) || name.starts_with(REJECT);
        if !names.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_log)) {
            return Err(broken("no logs are here"));
        }
        Ok(Self(folder.to_owned()))
    }

    /// What the files have.
    pub(crate) fn answer(&self, request: &Request) -> Reply {
        match request {
            Request::Why(filter) => self.why(filter),
            Request::LogGrep(filter) => {
                Reply::Story(Box::new(logfiles::search::search(&self.0, filter)))
            }
            _ => Reply::Failure(Failure::new(
                FailureCode::Refused,
                "only a running daemon does this",
                "Start it.",
            )),
        }
    }

    fn why(&self, filter: &WhyFilter) -> Reply {
        let Some(part) = part_of(&filter.what) else {
            let message = "this is no id, no mail address and no IP address";
            let advice = "Other words are found by `log grep WORD --dir FOLDER`; a network is not \
                          looked for.";
            return Reply::Failure(Failure::new(FailureCode::Refused, message, advice));
        };
        let (lines, mut sums) = logfiles::about(&self.0, &part);
        let reach = logfiles::reach(&self.0);
        sums.insert(0, format!("From the log files alone ({reach})."));
        Reply::Story(Box::new(Story {
            about: filter.what.clone(),
            sums: List::cut(sums.iter().map(|sum| Text::cut(sum))),
            lines: List::cut(lines),
            ..Story::default()
        }))
    }
}

/// What a line about it must have.
fn part_of(what: &str) -> Option<String> {
    let bare = what.trim().trim_matches(['<', '>', '[', ']']);
    let is_id = bare.get(..ID_CHARS).is_some_and(|id| id.parse::<MessageId>().is_ok());
    // The filter's own 554 carries such a number.
    if bare.len() == 8 && bare.bytes().all(|octet| octet.is_ascii_hexdigit()) {
        return Some(format!(", id {bare}"));
    }
    match bare.parse::<IpAddr>() {
        // As the log writes it, in either form.
        Ok(address) => Some(address.to_canonical().to_string()),
        Err(_) => (is_id || bare.contains('@')).then(|| bare.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_addresses_and_clients_are_told_from_other_words() {
        assert_eq!(part_of("<a@b.example>").as_deref(), Some("a@b.example"));
        assert_eq!(part_of("[192.0.2.1]").as_deref(), Some("192.0.2.1"));
        assert_eq!(part_of("::ffff:192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(part_of("2001:DB8::1").as_deref(), Some("2001:db8::1"));
        let id = "00010000200000000001";
        assert_eq!(part_of(id).as_deref(), Some(id));
        assert_eq!(part_of(&format!("{id}.7")), Some(format!("{id}.7")));
        assert_eq!(part_of("43c94F08").as_deref(), Some(", id 43c94F08"));
        assert_eq!((part_of("nonsense"), part_of("")), (None, None));
        assert_eq!(part_of("192.0.2.0/24"), None);
    }
}
