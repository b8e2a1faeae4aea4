//! The recipients a node takes mail for, read from a file and asked at RCPT.
//!
//! *Guarantees.* Domains are compared without regard to case, local parts as well (ASCII letters).
//! *Limits.* In memory about the file's size and 6 octets an entry: an arena, a table of offsets.
//! *Failure.* Every bad line is reported with its place.
//! *Not here.* `postmaster`, which every site takes (`acl` knows it).

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::names::HostName;
use super::problem::{Place, Problem, Problems};
use crate::limits;

/// How a recipient stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// We take mail for it.
    Known,
    /// The domain is ours, the local part is nobody.
    Unknown,
    /// The domain is not ours.
    Foreign,
}

/// All recipients of a node.
#[derive(Debug, Default)]
pub struct Recipients {
    domains: HashSet<Box<[u8]>>,
    /// Domains in which everybody is known.
    whole: HashSet<Box<[u8]>>,
    /// Domains in which somebody is known.
    peopled: HashSet<Box<[u8]>>,
    any: bool,
    addresses: ByteSet,
}

impl Recipients {
    /// Everybody in `domains`.
    #[must_use]
    pub fn everybody(domains: &[HostName]) -> Self {
        Self { any: true, ..Self::of(domains) }
    }

    fn of(domains: &[HostName]) -> Self {
        let domains = domains.iter().map(|name| name.as_str().as_bytes().into()).collect();
        Self { domains, ..Self::default() }
    }

    /// Reads a recipient file for the relay domains `domains`.
    ///
    /// A line is an address, a domain, or `*@domain`; the last two mean everybody in it. `#` at
    /// the start of a line or behind white space begins a comment.
    ///
    /// # Errors
    /// All lines that are none of these, or whose domain is not one of `domains`.
    pub fn parse(file: &str, text: &[u8], domains: &[HostName]) -> Result<Self, Problems> {
        let mut recipients = Self::of(domains);
        let mut problems = Problems::default();
        let file: Arc<str> = Arc::from(file);
        for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let (column, entry) = entry_of(line);
            if entry.is_empty() {
                continue;
            }
            if let Err((message, write)) = recipients.add(entry) {
                let line = u32::try_from(at + 1).unwrap_or(u32::MAX);
                let column = u32::try_from(column).unwrap_or(u32::MAX);
                let place = Place { file: Arc::clone(&file), line, column };
                let message = format!("{:?} {message}", String::from_utf8_lossy(entry));
                problems.push(Problem { place, message, write: write.to_owned(), other: None });
            }
        }
        if problems.is_empty() { Ok(recipients) } else { Err(problems) }
    }

    fn add(&mut self, entry: &[u8]) -> Result<(), (&'static str, &'static str)> {
        const FORMS: &str = "an address, a domain, or `*@domain`";
        if entry.len() > limits::RECIPIENT_OCTETS_MAX {
            return Err(("is too long", FORMS));
        }
        let split = entry.iter().rposition(|byte| *byte == b'@');
        let (local, domain) = match split {
            Some(at) => (&entry[..at], &entry[at + 1..]),
            None => (&b"*"[..], entry),
        };
        let domain = str::from_utf8(domain).ok().and_then(HostName::parse);
        let domain = domain.ok_or(("has no good domain", FORMS))?;
        let domain = domain.as_str().as_bytes();
        if !self.domains.contains(domain) {
            return Err((
                "is in no relay domain",
                "its domain into `relay_domains`, or remove the line",
            ));
        }
        if local == b"*" {
            self.whole.insert(domain.into());
        } else {
            let local = unquote(local).ok_or(("has no good local part", FORMS))?;
            self.addresses.insert(&key(&local, domain));
        }
        if !self.peopled.contains(domain) {
            self.peopled.insert(domain.into());
        }
        Ok(())
    }

    /// How the recipient `local`@`domain` stands; `local` comes without quotes.
    #[must_use]
    pub fn look_up(&self, local: &[u8], domain: &[u8]) -> Standing {
        let domain = if domain.iter().any(u8::is_ascii_uppercase) {
            Cow::Owned(domain.to_ascii_lowercase())
        } else {
            Cow::Borrowed(domain)
        };
        if !self.domains.contains(&domain[..]) {
            Standing::Foreign
        } else if self.any
            || self.whole.contains(&domain[..])
            || self.addresses.contains(&key(local, &domain))
        {
            Standing::Known
        } else {
            Standing::Unknown
        }
    }

    /// Addresses and whole domains that are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.addresses.len + self.whole.len()
    }

    /// Whether nobody is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.any && self.len() == 0
    }

    /// Whether somebody in `domain` is known.
    pub(super) fn has_domain(&self, domain: &HostName) -> bool {
        self.any || self.peopled.contains(domain.as_str().as_bytes())
    }
}

/// The entry of a line without comment and white space, and its column from 1.
fn entry_of(line: &[u8]) -> (usize, &[u8]) {
    let blank = |byte: &u8| byte.is_ascii_whitespace();
    let comment = (0..line.len()).find(|&at| line[at] == b'#' && (at == 0 || blank(&line[at - 1])));
    let line = &line[..comment.unwrap_or(line.len())];
    let entry = line.trim_ascii();
    let start = line.iter().position(|byte| !blank(byte)).unwrap_or(0);
    (start + 1, entry)
}

/// The local part without its quotes; `None` if it is neither atoms nor a quoted string.
fn unquote(local: &[u8]) -> Option<Vec<u8>> {
    if let Some(inner) = local.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) {
        let mut plain = Vec::with_capacity(inner.len());
        let mut bytes = inner.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => plain.push(*bytes.next()?),
                b'"' => return None,
                byte if byte.is_ascii_control() => return None,
                byte => plain.push(*byte),
            }
        }
        return Some(plain);
    }
    str::from_utf8(local).ok()?;
    let special = |byte: &u8| byte.is_ascii_control() || b" \"(),:;<>@[\\]".contains(byte);
    let good = !local.is_empty()
        && !local.iter().any(special)
        && local.split(|byte| *byte == b'.').all(|atom| !atom.is_empty());
    good.then(|| local.to_vec())
}

fn key(local: &[u8], domain: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(local.len() + 1 + domain.len());
    key.extend(local.iter().map(u8::to_ascii_lowercase));
    key.push(b'@');
    key.extend_from_slice(domain);
    key
}

/// A set of short byte strings: one arena, and an open-addressed table of offsets into it.
#[derive(Debug, Default)]
struct ByteSet {
    hasher: RandomState,
    /// Each string behind its length in two octets. Offset 0 is taken, so that 0 means empty.
    arena: Vec<u8>,
    /// A power of two of slots, at most three quarters used.
    slots: Vec<u32>,
    len: usize,
}

impl ByteSet {
    fn insert(&mut self, key: &[u8]) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let slot = self.slot(key);
        if self.slots[slot] != 0 {
            return;
        }
        if self.arena.is_empty() {
            self.arena.push(0);
        }
        let offset = u32::try_from(self.arena.len()).expect("the file is below 1 GiB");
        let length = u16::try_from(key.len()).expect("entries are below 64 KiB");
        self.arena.extend_from_slice(&length.to_le_bytes());
        self.arena.extend_from_slice(key);
        self.slots[slot] = offset;
        self.len += 1;
    }

    fn contains(&self, key: &[u8]) -> bool {
        !self.slots.is_empty() && self.slots[self.slot(key)] != 0
    }

    /// The slot that holds `key`, or the free one where it belongs.
    fn slot(&self, key: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits are used")]
        let mut slot = self.hasher.hash_one(key) as usize & mask;
        while self.slots[slot] != 0 && self.at(self.slots[slot]) != key {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn at(&self, offset: u32) -> &[u8] {
        let offset = offset as usize;
        let length = u16::from_le_bytes([self.arena[offset], self.arena[offset + 1]]);
        &self.arena[offset + 2..offset + 2 + usize::from(length)]
    }

    #[cfg(test)]
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.slots.iter().filter(|offset| **offset != 0).map(|offset| self.at(*offset))
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![0; (old.len() * 2).max(16)];
        for offset in old.into_iter().filter(|offset| *offset != 0) {
            let slot = self.slot(self.at(offset));
            self.slots[slot] = offset;
        }
    }
}

const _: () = assert!(limits::RECIPIENT_OCTETS_MAX <= u16::MAX as usize);
const _: () = assert!(limits::RECIPIENTS_OCTETS_MAX * 2 <= u32::MAX as u64);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn domains(names: &[&str]) -> Vec<HostName> {
        names.iter().map(|name| HostName::parse(name).unwrap()).collect()
    }

    #[test]
    fn case_is_ignored_and_domains_stand_for_everybody() {
        let text = b"# staff\nAnn@Example.ORG  # boss\n\n*@all.example\nwhole.example\r\n\
                     \"odd one\"@example.org\nc#d@example.org\n";
        let ours = domains(&["example.org", "all.example", "whole.example", "none.example"]);
        let recipients = Recipients::parse("list", text, &ours).unwrap();
        for (local, domain, standing) in [
            ("ann", "example.org", Standing::Known),
            ("ANN", "EXAMPLE.org", Standing::Known),
            ("bob", "example.org", Standing::Unknown),
            ("odd one", "example.org", Standing::Known),
            ("c#d", "example.org", Standing::Known),
            ("x", "all.example", Standing::Known),
            ("x", "whole.example", Standing::Known),
            ("x", "none.example", Standing::Unknown),
            ("ann", "sub.example.org", Standing::Foreign),
            ("ann", "", Standing::Foreign),
        ] {
            let found = recipients.look_up(local.as_bytes(), domain.as_bytes());
            assert_eq!(found, standing, "{local}@{domain}");
        }
        assert_eq!(recipients.len(), 5);
        assert!(recipients.has_domain(&ours[0]) && !recipients.has_domain(&ours[3]));
    }

    #[test]
    fn every_bad_line_is_named() {
        let text = b"ann@example.org\n  bob@other.example\n@example.org\na b@example.org\n\
                     x@-bad-.org\n";
        let problems = Recipients::parse("list", text, &domains(&["example.org"])).unwrap_err();
        let forms = "write an address, a domain, or `*@domain`";
        assert_eq!(
            problems.to_string(),
            format!(
                "list:2:3: \"bob@other.example\" is in no relay domain; write its domain into \
                 `relay_domains`, or remove the line\n\
                 list:3:1: \"@example.org\" has no good local part; {forms}\n\
                 list:4:1: \"a b@example.org\" has no good local part; {forms}\n\
                 list:5:1: \"x@-bad-.org\" has no good domain; {forms}\n"
            )
        );
    }

    proptest! {
        #[test]
        fn the_byte_set_is_a_set(keys in prop::collection::vec("[a-d]{0,3}", 0..200),
                                 asked in prop::collection::vec("[a-d]{0,3}", 0..50)) {
            let mut set = ByteSet::default();
            let mut model = HashSet::new();
            for key in &keys {
                set.insert(key.as_bytes());
                model.insert(key.clone());
            }
            prop_assert_eq!(set.len, model.len());
            prop_assert_eq!(set.iter().count(), model.len());
            for key in keys.iter().chain(&asked) {
                prop_assert_eq!(set.contains(key.as_bytes()), model.contains(key));
            }
        }

        #[test]
        fn no_file_makes_the_parser_panic(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Recipients::parse("list", &text, &domains(&["example.org"]));
        }
    }
}
