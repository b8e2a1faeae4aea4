//! Which rows of docs/spool.md's crash table, and which faults, a run has reached.

use std::collections::BTreeMap;

use spool::sim::{FAULTS, Fault, Remains};

use super::media::Medium;
use super::notes::{BatchNote, Note, Notes, What, epoch_on, read};

/// The names of the rows, as they stand in docs/spool.md.
pub(super) fn table() -> Vec<&'static str> {
    let page = include_str!("../../docs/spool.md");
    let rows = page.lines().skip_while(|l| !l.starts_with("| row | the power goes"));
    let rows = rows.skip(2).take_while(|l| l.starts_with("| `"));
    rows.filter_map(|l| l.split('`').nth(1)).collect()
}

const FAULT_NAMES: [(&str, Fault); FAULTS] = [
    ("write-error", Fault::WriteError),
    ("error-with-more-in-flight", Fault::ErrorInFlight),
    ("short-write", Fault::ShortWrite),
    ("read-error", Fault::ReadError),
    ("slow", Fault::Slow),
    ("success-after-time-out", Fault::LateSuccess),
    ("stuck-for-ever", Fault::Never),
    ("misdirected", Fault::Misdirected),
    ("member-died", Fault::Died),
    ("reordered", Fault::Reordered),
    ("torn", Fault::Torn),
    ("unsynced-lost", Fault::Lost),
];

/// Faults that are none of the simulated disk's.
pub(super) const MORE_FAULTS: [&str; 18] = [
    "bit-rot",
    "bad-sector",
    "no-space",
    "client-left",
    "clock-step",
    "hop-4xx",
    "hop-5xx",
    "hop-reply-lost",
    "hop-connection-broken",
    "hop-down",
    "mail-expired",
    "several-crashes-in-recovery",
    "column-left",
    "member-put-out",
    "member-filled",
    "member-returned",
    "member-returned-to-a-full-log",
    "sealed-healed",
];

/// How often each row and each fault was reached.
#[derive(Clone, Default, Debug)]
pub(super) struct Reached {
    pub(super) rows: BTreeMap<&'static str, u64>,
    pub(super) faults: BTreeMap<&'static str, u64>,
}

impl Reached {
    pub(super) fn row(&mut self, name: &'static str) {
        *self.rows.entry(name).or_default() += 1;
    }

    pub(super) fn fault(&mut self, name: &'static str, n: u64) {
        *self.faults.entry(name).or_default() += n;
    }

    pub(super) fn disk(&mut self, happened: &[u64; FAULTS]) {
        for (name, fault) in FAULT_NAMES {
            self.fault(name, happened[fault as usize]);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (name, n) in &other.rows {
            *self.rows.entry(name).or_default() += n;
        }
        for (name, n) in &other.faults {
            *self.faults.entry(name).or_default() += n;
        }
    }

    /// What was never reached.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let rows = table().into_iter().filter(|r| !self.rows.contains_key(r));
        let disk = FAULT_NAMES.iter().map(|(name, _)| *name);
        let faults = disk.chain(MORE_FAULTS);
        let faults = faults.filter(|f| self.faults.get(f).is_none_or(|n| *n == 0));
        rows.chain(faults).collect()
    }

    /// Rows that the page does not know.
    pub(super) fn unknown(&self) -> Vec<&'static str> {
        let table = table();
        self.rows.keys().copied().filter(|r| !table.contains(r)).collect()
    }
}

/// What a cut of one core's disk fell on.
pub(super) fn at_cut(
    reached: &mut Reached,
    notes: &Notes,
    remains: &[Remains],
    media: &[Option<Medium>],
) {
    let watermark = notes.watermark();
    let landed = |note: &Note| {
        let mine = |r: &&Remains| r.offset == note.offset && r.data.len() == note.bytes;
        let still = remains.iter().filter(mine).filter(|r| !r.is_whole()).count();
        let any = remains.iter().filter(mine).any(|r| r.landed > 0);
        let copies = note.members.iter().flatten().count();
        (still == 0, any || still < copies, still > 0 && still < copies)
    };
    let mut whole = Vec::new();
    let mut torn = Vec::new();
    for note in notes.open() {
        let (all, any, one) = landed(note);
        match &note.what {
            What::Header(_) => reached.row("open-torn"),
            What::Footer(..) if !all => reached.row("footer-torn"),
            What::Footer(..) | What::Copied => {}
            What::Batch(batch) => {
                reached.row(match (all || one, any) {
                    (true, _) => "batch-whole",
                    (false, true) => "batch-torn",
                    (false, false) => "batch-none",
                });
                if one {
                    reached.row("mirror-one");
                }
                let list = if all || one { &mut whole } else { &mut torn };
                list.push(&**batch);
                replaced_or_moved(reached, batch, all || one);
            }
        }
    }
    let gap = |t: &&&BatchNote| {
        whole.iter().any(|w| w.header.seq > t.header.seq && w.header.durable_through < t.header.seq)
    };
    if torn.iter().any(|t| gap(&t)) {
        reached.row("batch-gap");
    }
    standing(reached, notes, watermark, media);
}

fn replaced_or_moved(reached: &mut Reached, batch: &BatchNote, whole: bool) {
    if batch.replaces {
        reached.row("replace-torn");
    }
    if !batch.moves.is_empty() && !whole {
        reached.row("move-torn");
    }
}

/// What is durable at the cut.
fn standing(reached: &mut Reached, notes: &Notes, watermark: u64, media: &[Option<Medium>]) {
    let stands = |at: spool::segment::SegmentRef, epoch: u64| {
        let copies = media.len().max(1);
        let first = if copies > 1 { usize::from(at.column()) % copies } else { 0 };
        let here = media.get(first).and_then(Option::as_ref);
        let here = here.or_else(|| media.iter().flatten().next());
        here.is_some_and(|m| epoch_on(m, at) == Some(epoch))
    };
    let mut opened = Vec::new();
    for note in notes.durable() {
        match &note.what {
            What::Header(h) => opened.push((h.segment, h.epoch)),
            What::Footer(at, epoch, _) if stands(*at, *epoch) => reached.row("sealed"),
            What::Footer(..) | What::Copied => {}
            What::Batch(b) => batch_stands(reached, b, watermark, &stands),
        }
    }
    for (at, epoch) in opened {
        let used = notes.all.iter().filter_map(Note::batch);
        let empty = !used.clone().any(|b| (b.header.segment, b.header.epoch) == (at, epoch));
        if empty && stands(at, epoch) {
            reached.row("open-empty");
        }
    }
    let failed = notes.all.iter().filter(|n| n.failed).filter_map(Note::batch);
    for batch in failed {
        let mut again = notes.durable().filter_map(Note::batch);
        if !again.any(|b| b.header.seq == batch.header.seq) {
            reached.row("error-between");
        }
    }
}

fn batch_stands(
    reached: &mut Reached,
    b: &BatchNote,
    watermark: u64,
    stands: &impl Fn(spool::segment::SegmentRef, u64) -> bool,
) {
    let h = &b.header;
    if !stands(h.segment, h.epoch) {
        return;
    }
    let covered = h.seq <= watermark;
    if !b.messages.is_empty() {
        reached.row(if covered { "covered" } else { "acknowledged" });
    }
    if h.attempt > 0 && stands(h.stale_segment, h.stale_epoch) {
        reached.row("error-stale");
    }
    if b.moves.iter().any(|(_, at, epoch)| stands(*at, *epoch)) {
        reached.row("move-whole");
    }
    if b.cancels {
        reached.row("cancelled");
    }
    for (_, at, epoch) in b.dones.iter().filter(|(_, at, _)| *at != h.segment) {
        if *at == spool::segment::SegmentRef::NONE {
            continue;
        }
        reached.row(if stands(*at, *epoch) { "done-needed" } else { "done-outlives" });
    }
}

/// The batch that stands at the front of these bytes.
pub(super) fn batch_of(bytes: &[u8]) -> Option<BatchNote> {
    let (header, _) = spool::batch::BatchHeader::decode(bytes)?;
    if !spool::batch::is_whole(bytes, &header) {
        return None;
    }
    match read(bytes) {
        What::Batch(batch) => Some(*batch),
        What::Header(_) | What::Footer(..) | What::Copied => None,
    }
}
