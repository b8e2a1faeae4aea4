//! Which messages came, and what that says against the source's list.
//!
//! *Guarantees*: a message is doubled when the same id came twice for the same recipient; two
//! copies for different recipients are one message delivered in two parts.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;

use memchr::memmem;
use serde::Serialize;

/// The header every message of `mxbench source` carries, lower case.
const HEADER: &[u8] = b"x-mxbench-id:";

/// The id in a message's header section, if it has one.
pub fn message_id(message: &[u8]) -> Option<String> {
    let end = memmem::find(message, b"\r\n\r\n").unwrap_or(message.len());
    message[..end].split(|&octet| octet == b'\n').find_map(|line| {
        let name = line.get(..HEADER.len())?;
        if !name.eq_ignore_ascii_case(HEADER) {
            return None;
        }
        let value = std::str::from_utf8(&line[HEADER.len()..]).ok()?;
        Some(value.trim().to_owned())
    })
}

/// What has come so far.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Recipients by id.
    seen: HashMap<String, HashSet<Vec<u8>>>,
    doubled: HashSet<String>,
    without_id: u64,
}

/// The account at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Different ids that came.
    pub ids: u64,
    /// Messages without an id.
    pub without_id: u64,
    /// Ids that came twice for one recipient.
    pub doubled: u64,
    /// Acknowledged ids that did not come.
    pub lost: u64,
    /// Ids that came though the source has no acknowledgement for them.
    pub unacknowledged: u64,
    /// Some of the lost ids.
    pub lost_examples: Vec<String>,
}

impl Ledger {
    /// Takes down a message and its recipients.
    pub fn note(&mut self, id: Option<String>, recipients: &[Vec<u8>]) {
        let Some(id) = id else {
            self.without_id += 1;
            return;
        };
        let had = self.seen.entry(id.clone()).or_default();
        for recipient in recipients {
            if !had.insert(recipient.clone()) {
                self.doubled.insert(id.clone());
            }
        }
    }

    /// Compares with the ids the source has acknowledgements for, if given.
    pub fn account(&self, acked: Option<&HashSet<String>>) -> Account {
        let mut lost: Vec<String> = acked.map_or_else(Vec::new, |acked| {
            acked.iter().filter(|id| !self.seen.contains_key(*id)).cloned().collect()
        });
        lost.sort_unstable();
        let unacknowledged = acked
            .map_or(0, |acked| self.seen.keys().filter(|id| !acked.contains(*id)).count() as u64);
        Account {
            ids: self.seen.len() as u64,
            without_id: self.without_id,
            doubled: self.doubled.len() as u64,
            lost: lost.len() as u64,
            unacknowledged,
            lost_examples: lost.into_iter().take(10).collect(),
        }
    }
}

/// Ids out of a file with one on each line.
pub fn read_ids(path: &Path) -> io::Result<HashSet<String>> {
    Ok(fs::read_to_string(path)?.lines().map(str::to_owned).collect())
}

/// Adds up the messages kept in a Maildir folder (`new` and `cur`); `Delivered-To` lines at the
/// top name their recipients.
pub fn read_maildir(path: &Path, ledger: &mut Ledger) -> io::Result<()> {
    for part in ["new", "cur"] {
        for entry in fs::read_dir(path.join(part))? {
            let message = fs::read(entry?.path())?;
            let recipients: Vec<Vec<u8>> = message
                .split(|&octet| octet == b'\n')
                .skip(1)
                .map_while(|line| line.strip_prefix(b"Delivered-To: "))
                .map(|to| to.trim_ascii().to_vec())
                .collect();
            ledger.note(message_id(&message), &recipients);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_and_doubled_are_told() {
        let mut ledger = Ledger::default();
        let (one, two) = (b"a@x".to_vec(), b"b@x".to_vec());
        ledger.note(Some("1".into()), std::slice::from_ref(&one));
        ledger.note(Some("1".into()), std::slice::from_ref(&two));
        ledger.note(Some("2".into()), &[one.clone(), two.clone()]);
        ledger.note(Some("2".into()), std::slice::from_ref(&two));
        ledger.note(Some("4".into()), &[one]);
        ledger.note(None, &[two]);
        let acked = ["1", "2", "3"].map(str::to_owned).into();
        let account = ledger.account(Some(&acked));
        let expected = Account {
            ids: 3,
            without_id: 1,
            doubled: 1,
            lost: 1,
            unacknowledged: 1,
            lost_examples: vec!["3".to_owned()],
        };
        assert_eq!(account, expected);
    }

    #[test]
    fn the_id_is_found_in_the_header_only() {
        let message = b"Received: x\r\nx-mxbench-ID:  abc \r\nSubject: y\r\n\r\nbody\r\n";
        assert_eq!(message_id(message).as_deref(), Some("abc"));
        assert_eq!(message_id(b"Subject: y\r\n\r\nX-Mxbench-Id: abc\r\n"), None);
    }
}
