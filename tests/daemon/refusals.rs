//! Refusals that clients of the tests heard, each to be explained by `why`.
//!
//! *Guarantees.* Whatever a connection of ours reads, what `mxbench source` was answered and what
//! other people's clients printed is taken down here, by the daemon's port; what the daemon itself
//! logged as refused comes beside it. [`Explained`] asks `why` for it while the daemon runs, and,
//! when it is gone, its log files for what they call refused and for what nobody asked before.
//! *Limits.* Of one text [`OF_EACH_MAX`] ids are asked for, the first, the last and some between.
//! *Failure.* An id that `why` does not know, or of which it says something else, is a panic.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::AsRawFd as _;
use std::process::Output;
use std::sync::Mutex;

use super::programs::Folder;

/// Of a flood some are asked for.
const OF_EACH_MAX: usize = 40;
const ID_CHARS: usize = 20;
/// The kernel chooses ports above it.
const CHOSEN_BELOW: u16 = 1024;

/// What was heard of one daemon.
#[derive(Debug, Default)]
struct Heard {
    lines: Vec<String>,
    /// Where clients write what they are refused with, and up to where it was read.
    files: Vec<(File, u64)>,
}

type Place = (u16, String);

static HEARD: Mutex<BTreeMap<Place, Heard>> = Mutex::new(BTreeMap::new());

/// Ports that a test chooses are those of several daemons, each in a network namespace of its own:
/// there the test counts, whose name its threads have.
fn place(port: u16) -> Place {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    (port, if port < CHOSEN_BELOW { test } else { String::new() })
}

fn with<T>(port: u16, work: impl FnOnce(&mut Heard) -> T) -> T {
    work(HEARD.lock().expect("no test panics inside").entry(place(port)).or_default())
}

/// A line that was read from that port, if it is a refusal.
pub(crate) fn note_line(port: u16, line: &[u8]) {
    let digits = line.len() > 4 && line[1..3].iter().all(u8::is_ascii_digit);
    if digits && matches!(line[0], b'4' | b'5') && matches!(line[3], b' ' | b'-') {
        let line = String::from_utf8_lossy(line).trim_end().to_owned();
        with(port, |heard| heard.lines.push(line));
    }
}

/// What a client printed: the refusals in it.
pub(crate) fn note_text(port: u16, text: &str) {
    let lines = text.lines().filter(|line| Refusal::of(line).is_some());
    with(port, |heard| heard.lines.extend(lines.map(str::to_owned)));
}

/// A file without a name for a client to write refusals to; its path as long as we live.
pub(crate) fn file(port: u16) -> String {
    let folder = Folder::new("refusals");
    let path = folder.path("heard");
    let options = File::options().read(true).append(true).create_new(true).open(&path);
    let file = options.expect("a file in a fresh folder");
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    with(port, |heard| heard.files.push((file, 0)));
    path
}

/// What nobody has taken yet. A daemon that is new on a port has nothing to do with what was.
pub(crate) fn take(port: u16) -> Vec<String> {
    with(port, |heard| {
        let mut lines = std::mem::take(&mut heard.lines);
        for (file, at) in &mut heard.files {
            let mut text = Vec::new();
            let read = file.seek(SeekFrom::Start(*at)).and_then(|_| file.read_to_end(&mut text));
            read.expect("a file of ours");
            // Its writer may go on, also in the middle of a line.
            text.truncate(text.iter().rposition(|octet| *octet == b'\n').map_or(0, |end| end + 1));
            *at += text.len() as u64;
            lines.extend(String::from_utf8_lossy(&text).lines().map(str::to_owned));
        }
        lines
    })
}

/// Forgets what was heard at these ports.
pub(crate) fn forget(port: u16) {
    HEARD.lock().expect("no test panics inside").remove(&place(port));
}

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Refusal {
    id: String,
    /// What is the same for all of its kind.
    text: String,
}

fn is_id(text: &str) -> bool {
    let (session, rest) = text.split_at_checked(ID_CHARS).unwrap_or_default();
    let of_base_32 = |octet: u8| octet.is_ascii_uppercase() || octet.is_ascii_digit();
    let rest = rest.strip_prefix('.').map_or(rest.is_empty(), |n| n.parse::<u32>().is_ok());
    session.len() == ID_CHARS && session.bytes().all(of_base_32) && rest
}

impl Refusal {
    /// From a reply: `550 5.7.1 [ID] text`, whatever stands before it; or the filter's own,
    /// which has its id at the end.
    fn of(line: &str) -> Option<Self> {
        let line = line.trim_end();
        if let Some((head, id)) = line.rsplit_once(" (id ") {
            let id = id.strip_suffix(')')?.to_owned();
            let answer = head.contains("554 5.7.1 [");
            return answer.then(|| Self { id, text: String::new() });
        }
        let (head, rest) = line.split_once('[')?;
        let (id, text) = rest.split_once("] ")?;
        let mut words = head.trim_end().rsplit([' ', '-']);
        let (enhanced, code) = (words.next()?, words.next()?);
        let refused = code.len() == 3 && code.starts_with(['4', '5']);
        let status = enhanced.starts_with(['4', '5']) && enhanced.split('.').count() == 3;
        // What the client said stands elsewhere in the answer.
        let text = text.split(": ").next().unwrap_or(text).to_owned();
        (refused && status && is_id(id)).then(|| Self { id: id.to_owned(), text })
    }

    /// From a line of the daemon's log.
    fn logged(line: &str) -> Option<Self> {
        let json = line.starts_with('{');
        let mark = if json { "\"event\":\"refused\"" } else { " rejected " };
        let (head, _) = line.split_once(mark)?;
        let words = if json { line } else { head };
        let id = words.split([' ', '"']).find(|word| is_id(word))?.to_owned();
        Some(Self { id, text: String::new() })
    }
}

/// What a line of the log calls the cause.
fn kind_of(line: &str) -> &str {
    match line.split_once("\"reason\":\"") {
        Some((_, reason)) if line.starts_with('{') => reason.split('"').next().unwrap_or_default(),
        _ => line
            .rsplit("rejected ")
            .next()
            .and_then(|rest| rest.rsplit(": ").next())
            .unwrap_or(line),
    }
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whom {
    Daemon,
    /// The files that it left behind.
    Files,
}

/// What was asked for already, of one folder's daemons.
#[derive(Debug, Default)]
pub(crate) struct Explained(BTreeSet<(Whom, Refusal)>);

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Explained {
    /// Asks for all that these ports were heard to refuse, and for what the log calls refused.
    pub(crate) fn ask(
        &mut self,
        whom: Whom,
        ports: &[u16],
        log: &str,
        why: impl Fn(&str) -> Output,
    ) {
        let mut kinds: BTreeMap<String, Vec<Refusal>> = BTreeMap::new();
        for line in ports.iter().flat_map(|port| take(*port)) {
            let refusal =
                Refusal::of(&line).unwrap_or_else(|| panic!("a refusal without an id: {line}"));
            kinds.entry(refusal.text.clone()).or_default().push(refusal);
        }
        for line in log.lines() {
            let Some(refusal) = Refusal::logged(line) else { continue };
            kinds.entry(format!("logged {}", kind_of(line))).or_default().push(refusal);
        }
        for refusals in kinds.into_values() {
            let step = refusals.len().div_ceil(OF_EACH_MAX).max(1);
            let last = refusals.len() - 1;
            for (n, refusal) in refusals.into_iter().enumerate() {
                let chosen = n.is_multiple_of(step) || n == last;
                if chosen && self.0.insert((whom, refusal.clone())) {
                    explained(whom, &refusal, &why(&refusal.id));
                }
            }
        }
    }
}

/// `why` knows it, and says what the client heard.
fn explained(whom: Whom, refusal: &Refusal, told: &Output) {
    let said = String::from_utf8_lossy(&[&told.stdout[..], &told.stderr[..]].concat()).into_owned();
    let Refusal { id, text } = refusal;
    let of = match whom {
        Whom::Daemon => "",
        Whom::Files => " of the files alone",
    };
    assert!(told.status.success(), "why{of} does not know {id} {text:?}: {said}");
    assert!(words(&said).contains(&words(text)), "why{of} {id} does not say {text:?}: {said}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00010000200000000001";

    fn of(line: &str) -> Option<(String, String)> {
        Refusal::of(line).map(|refusal| (refusal.id, refusal.text))
    }

    #[test]
    fn refusals_are_found_in_what_clients_print() {
        let kind = Some((format!("{ID}.1"), "relaying denied".to_owned()));
        for line in [
            format!("550 5.7.1 [{ID}.1] relaying denied"),
            format!("<** 550 5.7.1 [{ID}.1] relaying denied: <a@b>"),
            format!("smtp-source: fatal: bad rcpt: 550-5.7.1 [{ID}.1] relaying denied\r"),
        ] {
            assert_eq!(of(&line), kind, "{line}");
        }
        let filter = "554 5.7.1 [10.77.0.2] listed by bots; see https://x.example (id 1234ABCD)";
        assert_eq!(of(filter), Some(("1234ABCD".to_owned(), String::new())));
        for line in [
            &format!("250 2.0.0 [{ID}.1] accepted"),
            "554 5.7.1 [192.0.2.1] no",
            "550 no [such] thing",
            "450 4.2.0 come again",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
        let line = format!("2026-11-21 01:11:55.138 +0000 {ID}.1 H=(x) rejected RCPT <a@b>: no");
        assert_eq!(Refusal::logged(&line).map(|r| r.id), Some(format!("{ID}.1")));
        let line = format!("{{\"time\":\"x\",\"event\":\"refused\",\"id\":\"{ID}\"}}");
        assert_eq!(Refusal::logged(&line).map(|r| r.id), Some(ID.to_owned()));
    }

    #[test]
    fn lines_of_one_cause_are_one_kind() {
        let line = format!("x {ID}.1 H=(x) rejected RCPT <a@b>: relaying denied");
        assert_eq!(kind_of(&line), "relaying denied");
        assert_eq!(kind_of(&format!("x {ID} rejected connection")), "connection");
        let line = format!("{{\"id\":\"{ID}\",\"reason\":\"relay_denied\",\"text\":\"no: x\"}}");
        assert_eq!(kind_of(&line), "relay_denied");
    }

    #[test]
    fn a_line_that_is_still_written_is_taken_when_it_is_whole() {
        const PORT: u16 = 1;
        let path = file(PORT);
        let write = |text: &str| {
            let mut file = File::options().append(true).open(&path).expect("ours");
            std::io::Write::write_all(&mut file, text.as_bytes()).expect("written");
        };
        write("one\ntw");
        assert_eq!(take(PORT), ["one"]);
        write("o\n");
        assert_eq!(take(PORT), ["two"]);
        assert!(take(PORT).is_empty());
        forget(PORT);
    }
}
