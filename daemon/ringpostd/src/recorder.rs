//! The flight recorder: the last events of a core, in a ring of fixed size, searched when somebody
//! asks why.
//!
//! *Guarantees.* Taking an event down copies a few hundred octets and allocates nothing; a search
//! goes on in steps, so that no turn of the loop is long.
//! *Limits.* [`limits::RECORDER_OCTETS`] of events; the oldest make room. A text of an event is
//! cut at [`TEXT_OCTETS_MAX`].
//! *Failure.* What has been overwritten is found in the log files only.
//! *Not here.* What the house adds to an answer (queue, hints, log files).

mod what;

mod text;

mod count;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use control::{StoryLine, Text, TopsBy};

use crate::events::{Client, Event, Reader};
use crate::limits;

pub use count::{Count, sorted};
pub use text::{advice, sentence};
pub use what::What;

/// Octets of one text of an event.
const TEXT_OCTETS_MAX: usize = 480;
/// Octets before the texts of a record.
const HEAD: usize = 48;
/// Octets looked at in one step of a search.
pub const STEP_OCTETS: usize = 256 << 10;

const _: () = assert!(HEAD + 4 * TEXT_OCTETS_MAX < limits::RECORDER_OCTETS / 1024);

/// One event, as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// When.
    pub wall_us: u64,
    /// What.
    pub what: What,
    /// Place of its reason in [`crate::events::Reason::ALL`].
    pub reason: Option<u16>,
    /// A number that belongs to it: octets, recipients, µs.
    pub number: u64,
    /// The client or the next hop.
    pub peer: Option<SocketAddr>,
    /// Session or message.
    pub id: &'a [u8],
    /// Sender, or the name the client gave.
    pub from: &'a [u8],
    /// Recipients, divided by spaces.
    pub to: &'a [u8],
    /// In the words of whoever said it.
    pub said: &'a [u8],
}

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A session with all its transactions, or one transaction.
    Id(String),
    /// A sender or recipient, lower case; with a leading `@`: a whole domain.
    Address(String),
    /// A client or next hop, or all of a network.
    Network(crate::config::Network),
}

impl Wanted {
    /// What an operator's word means.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let bare = text.trim_matches(['<', '>', '[', ']']);
        if bare.contains('@') {
            return Some(Self::Address(bare.to_ascii_lowercase()));
        }
        if let Ok(network) = crate::config::Network::parse(bare) {
            return Some(Self::Network(network));
        }
        let (session, rest) = bare.split_at_checked(spool::id::ID_CHARS)?;
        session.parse::<spool::id::MessageId>().ok()?;
        let n = rest.strip_prefix('.').is_some_and(|n| n.parse::<u32>().is_ok());
        (rest.is_empty() || n).then(|| Self::Id(bare.to_ascii_uppercase()))
    }

    /// Whether that is the id of a session it means.
    #[must_use]
    pub fn is_session(&self, id: &str) -> bool {
        matches!(self, Self::Id(wanted) if same_session(wanted.as_bytes(), id.as_bytes()))
    }

    /// Whether that is an address it means.
    #[must_use]
    pub fn is_address(&self, address: &[u8]) -> bool {
        matches!(self, Self::Address(wanted) if is_address(address, wanted))
    }

    fn fits(&self, entry: &Entry<'_>) -> bool {
        match self {
            Self::Id(id) => same_session(id.as_bytes(), entry.id),
            Self::Network(network) => {
                entry.peer.is_some_and(|peer| network.contains(peer.ip().to_canonical()))
            }
            Self::Address(address) => {
                let from = entry.what.from_is_address() && is_address(entry.from, address);
                from || entry.to.split(|octet| *octet == b' ').any(|to| is_address(to, address))
            }
        }
    }
}

/// Whether an event of `id` belongs to what was asked: the session's own lines belong to each of
/// its transactions.
fn same_session(wanted: &[u8], id: &[u8]) -> bool {
    const CHARS: usize = spool::id::ID_CHARS;
    if wanted.len() == CHARS || id.len() == CHARS {
        return wanted.get(..CHARS) == id.get(..CHARS) && !id.is_empty();
    }
    wanted == id
}

fn is_address(octets: &[u8], wanted: &str) -> bool {
    let wanted = wanted.as_bytes();
    if wanted.first() == Some(&b'@') {
        let at = octets.len().checked_sub(wanted.len());
        return at.is_some_and(|at| octets[at..].eq_ignore_ascii_case(wanted));
    }
    octets.eq_ignore_ascii_case(wanted)
}

/// A search under way.
#[derive(Debug)]
pub struct Search {
    wanted: Wanted,
    after_us: u64,
    /// The next record to look at; counts all octets ever written.
    at: u64,
    end: u64,
    found: VecDeque<StoryLine>,
    found_max: usize,
    left_out: u64,
}

impl Search {
    /// What was found, oldest first, and how many older lines were left out.
    #[must_use]
    pub fn into_lines(self) -> (Vec<StoryLine>, u64) {
        (self.found.into(), self.left_out)
    }
}

/// See the module.
pub struct Recorder {
    ring: Box<[u8]>,
    /// Where the oldest record begins, and where the next one will: octets ever written.
    tail: u64,
    head: u64,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("octets", &self.head).finish_non_exhaustive()
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new(limits::RECORDER_OCTETS)
    }
}

impl Recorder {
    /// A recorder that keeps so many octets; pages that were never written cost nothing.
    #[must_use]
    pub fn new(octets: usize) -> Self {
        Self { ring: vec![0; octets].into(), tail: 0, head: 0, scratch: Vec::with_capacity(1024) }
    }

    /// Octets of events taken down since the start.
    #[must_use]
    pub const fn octets(&self) -> u64 {
        self.head
    }

    fn place(&self, at: u64) -> usize {
        usize::try_from(at % self.ring.len() as u64).expect("below a usize")
    }

    fn copy_out(&self, at: u64, out: &mut [u8]) {
        let from = self.place(at);
        let first = out.len().min(self.ring.len() - from);
        out[..first].copy_from_slice(&self.ring[from..from + first]);
        let rest = out.len() - first;
        out[first..].copy_from_slice(&self.ring[..rest]);
    }

    fn length_at(&self, at: u64) -> u64 {
        let mut length = [0; 4];
        self.copy_out(at, &mut length);
        u64::from(u32::from_le_bytes(length))
    }

    /// Takes an entry down.
    pub fn put(&mut self, entry: &Entry<'_>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        encode(entry, &mut scratch);
        let length = scratch.len() as u64;
        while self.head + length - self.tail > self.ring.len() as u64 {
            self.tail += self.length_at(self.tail);
        }
        let from = self.place(self.head);
        let first = scratch.len().min(self.ring.len() - from);
        self.ring[from..from + first].copy_from_slice(&scratch[..first]);
        let rest = scratch.len() - first;
        self.ring[..rest].copy_from_slice(&scratch[first..]);
        self.head += length;
        self.scratch = scratch;
    }

    /// Begins to look for something: the newest `found_max` lines of it.
    #[must_use]
    pub fn search(&self, wanted: Wanted, after_us: u64, found_max: usize) -> Search {
        let (at, end) = (self.tail, self.head);
        Search { wanted, after_us, at, end, found: VecDeque::new(), found_max, left_out: 0 }
    }

    /// Goes on with a search for about [`STEP_OCTETS`]; true at its end. What was overwritten
    /// meanwhile is passed over.
    pub fn step(&self, search: &mut Search) -> bool {
        let Search { wanted, after_us, at, end, found, found_max, left_out } = search;
        self.each(at, *end, |entry| {
            if entry.wall_us > *after_us && wanted.fits(entry) {
                found.push_back(line(entry));
                if found.len() > *found_max {
                    found.pop_front();
                    *left_out += 1;
                }
            }
        })
    }

    /// Begins to count what happened after `after_us`.
    #[must_use]
    pub fn count(&self, by: TopsBy, after_us: u64) -> Count {
        Count::new(by, after_us, (self.tail, self.head))
    }

    /// Goes on with a count for about [`STEP_OCTETS`]; true at its end.
    pub fn step_count(&self, count: &mut Count) -> bool {
        let (mut at, end) = count.place();
        let over = self.each(&mut at, end, |entry| count.take(entry));
        count.go_on(at);
        over
    }

    /// Gives about [`STEP_OCTETS`] of entries between `at` and `end` to `take`; true at the end.
    fn each(&self, at: &mut u64, end: u64, mut take: impl FnMut(&Entry<'_>)) -> bool {
        *at = (*at).max(self.tail);
        let stop = at.saturating_add(STEP_OCTETS as u64).min(end);
        let mut octets = Vec::new();
        while *at < stop {
            let length = self.length_at(*at);
            octets.resize(usize::try_from(length).expect("a record is short"), 0);
            self.copy_out(*at, &mut octets);
            *at += length;
            if let Some(entry) = decode(&octets) {
                take(&entry);
            }
        }
        *at >= end
    }
}

/// An entry in words.
fn line(entry: &Entry<'_>) -> StoryLine {
    StoryLine {
        at_us: entry.wall_us,
        source: Text::cut("recorder"),
        id: Text::cut_octets(entry.id),
        what: Text::cut(entry.what.label()),
        reason: text::reason_of(entry).map_or_else(Text::default, |r| Text::cut(r.label())),
        text: Text::cut(&sentence(entry)),
    }
}

fn encode(entry: &Entry<'_>, out: &mut Vec<u8>) {
    let texts = [entry.id, entry.from, entry.to, entry.said];
    let texts = texts.map(|text| &text[..text.len().min(TEXT_OCTETS_MAX)]);
    let length = HEAD + texts.iter().map(|text| text.len()).sum::<usize>();
    let short = |text: &[u8]| u16::try_from(text.len()).expect("cut above").to_le_bytes();
    out.extend_from_slice(&u32::try_from(length).expect("texts are cut").to_le_bytes());
    out.push(entry.what.index());
    out.push(u8::from(entry.peer.is_some()));
    out.extend_from_slice(&entry.reason.unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(&entry.wall_us.to_le_bytes());
    out.extend_from_slice(&u32::try_from(entry.number).unwrap_or(u32::MAX).to_le_bytes());
    let peer = entry.peer.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    let ip = match peer.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    out.extend_from_slice(&ip.octets());
    out.extend_from_slice(&peer.port().to_le_bytes());
    texts.iter().for_each(|text| out.extend_from_slice(&short(text)));
    out.resize(out.len() + HEAD - HEAD_USED, 0);
    texts.iter().for_each(|text| out.extend_from_slice(text));
}

/// Octets of the head that are in use.
const HEAD_USED: usize = 4 + 1 + 1 + 2 + 8 + 4 + 16 + 2 + 4 * 2;
const _: () = assert!(HEAD_USED <= HEAD);

fn decode(octets: &[u8]) -> Option<Entry<'_>> {
    let (head, mut texts) = octets.split_at_checked(HEAD)?;
    let short = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?));
    let mut take = |at: usize| {
        let (text, rest) = texts.split_at_checked(usize::from(short(at)?))?;
        texts = rest;
        Some(text)
    };
    let (id, from, to, said) = (take(38)?, take(40)?, take(42)?, take(44)?);
    let ip: [u8; 16] = head[20..36].try_into().ok()?;
    let peer = SocketAddr::new(IpAddr::V6(Ipv6Addr::from(ip)).to_canonical(), short(36)?);
    Some(Entry {
        wall_us: u64::from_le_bytes(head[8..16].try_into().ok()?),
        what: What::from_index(head[4])?,
        reason: short(6).filter(|reason| *reason != u16::MAX),
        number: u64::from(u32::from_le_bytes(head[16..20].try_into().ok()?)),
        peer: (head[5] != 0).then_some(peer),
        id,
        from,
        to,
        said,
    })
}

impl Reader for Recorder {
    fn read(&mut self, wall_us: u64, event: &Event<'_>) {
        text::with_entry(wall_us, event, |entry| self.put(entry));
    }
}

/// What a client's entry begins with.
pub(crate) fn of_client<'a>(wall_us: u64, what: What, client: &Client<'a>) -> Entry<'a> {
    Entry {
        wall_us,
        what,
        reason: None,
        number: 0,
        peer: Some(client.remote),
        id: client.id.as_bytes(),
        from: b"",
        to: b"",
        said: b"",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(n: u64, id: &'a [u8], to: &'a [u8]) -> Entry<'a> {
        Entry {
            wall_us: n,
            what: What::Refused,
            reason: Some(3),
            number: n,
            peer: Some("192.0.2.7:25".parse().unwrap()),
            id,
            from: b"a@b",
            to,
            said: b"no",
        }
    }

    fn found(recorder: &Recorder, wanted: &str, most: usize) -> (Vec<StoryLine>, u64) {
        let mut search = recorder.search(Wanted::parse(wanted).unwrap(), 0, most);
        while !recorder.step(&mut search) {}
        search.into_lines()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut octets = Vec::new();
        let whole = entry(7, b"ABC", b"x@y z@y");
        encode(&whole, &mut octets);
        assert_eq!(decode(&octets), Some(whole));
        assert_eq!(decode(&octets[..octets.len() - 1]), None);
    }

    #[test]
    fn the_ring_keeps_the_newest_and_finds_by_id_address_and_network() {
        let mut recorder = Recorder::new(64 << 10);
        let ids: Vec<String> = (0..5_000_u64)
            .map(|n| format!("{}.1", spool::id::MessageId::new(1, 1, 0, n)))
            .collect();
        for (n, id) in (0..).zip(&ids) {
            let to = format!("user{n}@example.org other@example.net");
            recorder.put(&entry(n + 1, id.as_bytes(), to.as_bytes()));
        }
        let (lines, left_out) = found(&recorder, "@example.net", 10);
        assert_eq!(lines.len(), 10);
        assert!(left_out > 100, "{left_out}");
        assert_eq!(lines[9].at_us, 5_000);
        assert_eq!(found(&recorder, "USER4999@Example.org", 10).0.len(), 1);
        assert_eq!(found(&recorder, &ids[4_999], 10).0.len(), 1);
        assert_eq!(found(&recorder, &ids[4_999][..20], 10).0.len(), 1);
        assert_eq!(found(&recorder, &ids[0], 10).0.len(), 0, "overwritten");
        assert_eq!(found(&recorder, "192.0.2.0/24", 3).0.len(), 3);
        assert_eq!(found(&recorder, "192.0.2.8", 3).0.len(), 0);
    }

    #[test]
    fn a_search_that_is_overtaken_ends() {
        let mut recorder = Recorder::new(64 << 10);
        let fill = |recorder: &mut Recorder| {
            (0..2_000).for_each(|n| recorder.put(&entry(n + 1, b"", b"a@example.org")));
        };
        fill(&mut recorder);
        let mut search = recorder.search(Wanted::parse("a@example.org").unwrap(), 0, 10);
        fill(&mut recorder);
        fill(&mut recorder);
        assert!(recorder.step(&mut search), "everything it meant to see is gone");
    }

    #[test]
    fn words_are_told_apart() {
        let id = spool::id::MessageId::new(1, 2, 3, 4).to_string();
        assert_eq!(Wanted::parse(&id), Some(Wanted::Id(id.clone())));
        assert!(matches!(Wanted::parse(&format!("{id}.12")), Some(Wanted::Id(_))));
        assert!(matches!(Wanted::parse("<A@b.example>"), Some(Wanted::Address(_))));
        assert!(matches!(Wanted::parse("[2001:db8::1]"), Some(Wanted::Network(_))));
        assert_eq!(Wanted::parse("nonsense"), None);
        assert_eq!(Wanted::parse(&format!("{id}.x")), None);
    }
}
