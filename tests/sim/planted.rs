//! The planted bug "append to a recovered tail": at a cut, the medium is made into what a log
//! would have left that went on behind the tail that recovery found, under the run before.

use spool::batch::BatchHeader;
use spool::disk::Device;
use spool::ledger::Ledger;
use spool::limits::{BLOCK, HEAD_BYTES, SUPERBLOCK_COPIES, SUPERBLOCK_STRIDE};
use spool::recovery::Recovered;
use spool::scan;
use spool::segment::{SegmentHeader, SegmentRef};
use spool::superblock::Superblock;

use super::media::Medium;
use super::notes::{Note, Notes, What};
use super::plan::SEGMENT_BYTES;

/// What is known of the tail, and of what was written in this run.
#[derive(Default, Debug)]
pub(super) struct Tail {
    /// The run before: its superblock.
    before: Option<Superblock>,
    now: Option<Superblock>,
    /// It was done once: after that the run before is another one.
    done: bool,
    /// Batches of this run that landed, in order: place and bytes.
    written: Vec<(SegmentRef, u64, usize)>,
}

impl Tail {
    pub(super) fn begin(&mut self, found: &Recovered<Medium>) {
        self.before = self.now.take();
        self.now = Some(found.set.superblock.clone());
        self.written.clear();
    }

    pub(super) fn cut(&mut self, notes: &Notes) {
        for note in notes.all.iter().filter(|n: &&Note| n.is_durable()) {
            if let What::Batch(b) = &note.what {
                self.written.push((b.header.segment, note.offset, note.bytes));
            }
        }
    }

    /// Moves what this run wrote behind the tail of the run before.
    pub(super) fn append(&mut self, media: &[Medium]) {
        let (Some(before), Some(now)) = (self.before.clone(), self.now.clone()) else { return };
        if self.done || before.run + 1 != now.run || media.len() != 1 || before.cores != 1 {
            return;
        }
        let medium = &media[0];
        let Some((header, mut at, last)) = tail(medium, &now, before.run) else { return };
        let mut seq = last.seq;
        let start = header.segment.device_offset(SEGMENT_BYTES);
        let mut moved = Vec::new();
        let mut moved_ledger = last.ledger;
        for (_, offset, bytes) in &self.written {
            let mut data = vec![0; *bytes];
            medium.clone().read(*offset, &mut data).expect("no faults");
            let Some((mut h, _)) = BatchHeader::decode(&data) else { return };
            if at + bytes > usize::try_from(SEGMENT_BYTES).expect("small") - 4 * BLOCK {
                return;
            }
            seq += 1;
            (h.run, h.seq, h.segment, h.epoch) = (before.run, seq, header.segment, header.epoch);
            h.block = u32::try_from(at / BLOCK).expect("small");
            h.durable_through += last.seq;
            (h.previous_segment, h.previous_epoch) = (SegmentRef::NONE, 0);
            let mut ledger: Ledger = last.ledger;
            ledger.add(&h.ledger);
            h.ledger = ledger;
            moved_ledger = ledger;
            h.encode(&mut data);
            moved.push((start + u64::try_from(at).expect("small"), data));
            at += bytes;
        }
        let mut medium = medium.clone();
        for (segment, _, _) in &self.written {
            medium.write(segment.device_offset(SEGMENT_BYTES), &[0; BLOCK]).expect("no faults");
        }
        for (offset, data) in moved {
            medium.write(offset, &data).expect("no faults");
        }
        // Ids stay unique and the ledger right, so that the tail alone can be what is noticed.
        let mut ledger = before.ledger;
        ledger.add(&moved_ledger);
        let block = Superblock { sequence: now.sequence + 1, ledger, ..now.clone() };
        for copy in 0..SUPERBLOCK_COPIES {
            medium.write(copy * SUPERBLOCK_STRIDE, &block.encode()).expect("no faults");
        }
        self.done = true;
    }
}

/// The newest segment of that run, where its whole batches end, and the last of them that counts.
fn tail(
    medium: &Medium,
    superblock: &Superblock,
    run: u32,
) -> Option<(SegmentHeader, usize, BatchHeader)> {
    let size = usize::try_from(SEGMENT_BYTES).expect("small");
    let mut best: Option<(SegmentHeader, usize, BatchHeader)> = None;
    for n in 0..superblock.segments {
        let at = SegmentRef::new(0, n);
        let start = usize::try_from(HEAD_BYTES).expect("small") + size * usize::try_from(n).ok()?;
        let bytes = medium.with(|d| d.medium()[start..start + size].to_vec());
        let Ok(header) = SegmentHeader::decode(&bytes[..BLOCK], superblock.log, at) else {
            continue;
        };
        if header.run != run {
            continue;
        }
        // What was in flight behind a gap does not count: the next batch is written over it.
        let mut end = 0;
        let mut last = None;
        for found in scan::batches(&bytes, &header) {
            let follows = last.is_none_or(|l: BatchHeader| found.header.seq == l.seq + 1);
            if end > 0 && (usize::try_from(found.offset).expect("small") != end || !follows) {
                break;
            }
            end = usize::try_from(found.offset + found.header.bytes).expect("small");
            last = Some(found.header);
        }
        let Some(last) = last else { continue };
        if best.as_ref().is_none_or(|(_, _, b)| b.seq < last.seq) {
            best = Some((header, end, last));
        }
    }
    best
}
