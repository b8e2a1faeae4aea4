//! What QEMU's `blklogwrites` recorded (the format of dm-log-writes), and disks put together from
//! it: what was written before the last flush is there, what came after it is there, or not, or in
//! part.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use spool::sim::Random;

const SECTOR: u64 = 512;
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight octets"))
}

/// How many writes a log holds now.
pub(super) fn length(log: &File) -> u64 {
    let mut head = [0; 24];
    log.read_exact_at(&mut head, 0).expect("QEMU writes it");
    assert_eq!(number(&head, 0), MAGIC, "no write log");
    number(&head, 16)
}

/// How many writes several logs hold at one moment.
pub(super) fn lengths(logs: &[File]) -> Vec<u64> {
    let mut before: Vec<u64> = logs.iter().map(length).collect();
    loop {
        let now: Vec<u64> = logs.iter().map(length).collect();
        if now == before {
            return now;
        }
        before = now;
    }
}

/// A write, by its place in a part of the disk, or a flush.
pub(super) struct Entry {
    at: u64,
    pub(super) data: Vec<u8>,
    flags: u64,
}

/// Everything that was written to a part of the disk (octets), and all flushes.
pub(super) fn read(log: &Path, part: &Range<u64>) -> Vec<Entry> {
    let mut file = File::open(log).expect("QEMU wrote it");
    let count = length(&file);
    file.seek(SeekFrom::Start(SECTOR)).expect("a file");
    let mut all = Vec::new();
    for _ in 0..count {
        let mut head = [0; 512];
        file.read_exact(&mut head).expect("the log is whole");
        let (sector, sectors, flags) = (number(&head, 0), number(&head, 8), number(&head, 16));
        assert_eq!(flags & DISCARD, 0, "the guest discards: this test does not know how");
        let mut data = vec![0; usize::try_from(sectors * SECTOR).expect("fits")];
        file.read_exact(&mut data).expect("the log is whole");
        let at = sector * SECTOR;
        // A place in the list for each entry: positions are counted over the whole disk.
        let data = if part.contains(&at) { data } else { Vec::new() };
        all.push(Entry { at: at.wrapping_sub(part.start), data, flags });
    }
    all
}

/// What becomes of writes that no flush covers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    All,
    None,
    Some(u64),
}

/// A part of the disk in a file, at a moment that moves forward.
pub(super) struct Replay {
    path: PathBuf,
    file: File,
    pub(super) all: Vec<Entry>,
    /// Entries before this one are in the file for good.
    done: usize,
}

impl Replay {
    /// From a file that holds the part as it was before the first entry.
    pub(super) fn new(path: PathBuf, all: Vec<Entry>) -> Self {
        let file = File::options().read(true).write(true).open(&path).expect("it is there");
        Self { path, file, all, done: 0 }
    }

    fn put(&self, entry: &Entry) {
        self.file.write_all_at(&entry.data, entry.at).expect("room for the replay");
    }

    /// Looks at the part as it could be when the power goes before entry `cut`.
    pub(super) fn at<T>(&mut self, cut: usize, loss: Loss, look: impl FnOnce(&Path) -> T) -> T {
        let flushed = (self.done..cut).rev().find(|n| self.all[*n].flags & FLUSH != 0);
        if let Some(flushed) = flushed {
            for n in self.done..=flushed {
                self.put(&self.all[n]);
            }
            self.done = flushed + 1;
        }
        let mut undo = Vec::new();
        for n in self.done..cut {
            let entry = &self.all[n];
            if entry.data.is_empty() {
                continue;
            }
            let mut old = vec![0; entry.data.len()];
            self.file.read_exact_at(&mut old, entry.at).expect("inside the part");
            undo.push((entry.at, old));
            match loss {
                _ if entry.flags & FUA != 0 => self.put(entry),
                Loss::None => self.put(entry),
                Loss::All => {}
                Loss::Some(seed) => {
                    let mut random = Random::new(seed);
                    for (sector, data) in (0_u64..).zip(entry.data.chunks(512)) {
                        if random.one_in(2) {
                            let at = entry.at + sector * SECTOR;
                            self.file.write_all_at(data, at).expect("room for the replay");
                        }
                    }
                }
            }
        }
        let seen = look(&self.path);
        for (at, old) in undo.into_iter().rev() {
            self.file.write_all_at(&old, at).expect("room for the replay");
        }
        seen
    }
}
