//! Power cuts: every write of the guest's disk is logged by QEMU (`blklogwrites`), and the disk is
//! put together again as it could have been at any moment: what was written before the last flush
//! is there, what came after it is there, or not, or in part.
//!
//! *Limits*: the disk is a virtio one: QEMU's NVMe ignores FUA, so its log shows losses that are
//! none.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::guest::{Guest, Start};
use super::stage;
use crate::daemon::backend::Backend;
use crate::daemon::client::Client;
use crate::daemon::programs::{Folder, program};

const SECTOR: u64 = 512;
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
/// Cuts of the spool under load.
const SPOOL_CUTS: usize = 100;
/// Moments of an upgrade, each with three kinds of loss.
const ESP_CUTS: usize = 30;

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight octets"))
}

/// How many writes the log holds now.
fn entries(log: &Path) -> u64 {
    let mut head = [0; 24];
    File::open(log).and_then(|file| file.read_exact_at(&mut head, 0)).expect("QEMU writes it");
    assert_eq!(number(&head, 0), MAGIC, "no write log");
    number(&head, 16)
}

/// A write, by its place in a part of the disk, or a flush.
struct Entry {
    at: u64,
    data: Vec<u8>,
    flags: u64,
}

/// Everything that was written to a part of the disk (octets), and all flushes.
fn read_log(log: &Path, part: &Range<u64>) -> Vec<Entry> {
    let count = entries(log);
    let mut file = File::open(log).expect("QEMU wrote it");
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
        let inside = part.contains(&at);
        // A place in the list for each entry: positions are counted over the whole disk.
        let data = if inside { data } else { Vec::new() };
        all.push(Entry { at: at.wrapping_sub(part.start), data, flags });
    }
    all
}

/// What becomes of writes that no flush covers.
#[derive(Clone, Copy, Debug)]
enum Loss {
    All,
    None,
    Some(u64),
}

/// Numbers by chance, the same for the same seed (splitmix64).
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A part of the disk in a file, at a moment that moves forward.
struct Replay {
    path: PathBuf,
    file: File,
    all: Vec<Entry>,
    /// Entries before this one are in the file for good.
    done: usize,
}

impl Replay {
    fn put(&self, entry: &Entry) {
        self.file.write_all_at(&entry.data, entry.at).expect("room for the replay");
    }

    /// Looks at the part as it could be when the power goes before entry `cut`.
    fn at<T>(&mut self, cut: usize, loss: Loss, look: impl FnOnce(&Path) -> T) -> T {
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
                    let mut seed = seed;
                    for (sector, data) in (0_u64..).zip(entry.data.chunks(512)) {
                        if next(&mut seed) & 1 == 0 {
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

/// Where a partition lies, in octets.
fn part(disk: &Path, name: &str) -> Range<u64> {
    let output = Command::new("sfdisk").arg("--dump").arg(disk).output().expect("sfdisk starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find(|l| l.contains(name)).expect("the partition is there");
    let value = |key: &str| -> u64 {
        let rest = line.split(key).nth(1).expect("sfdisk says it");
        rest.split(',').next().unwrap_or_default().trim().parse().expect("a number")
    };
    let (start, size) = (value("start="), value("size="));
    start * SECTOR..(start + size) * SECTOR
}

/// Copies a part of a disk to a file of its own, holes as holes.
fn copy(disk: &Path, part: &Range<u64>, to: &Path) -> File {
    let mut from = File::open(disk).expect("the disk");
    from.seek(SeekFrom::Start(part.start)).expect("inside");
    let mut options = File::options();
    let mut file =
        options.read(true).write(true).create(true).truncate(true).open(to).expect("room");
    file.set_len(part.end - part.start).expect("a sparse file");
    let mut from = from.take(part.end - part.start);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let mut length = 0;
        while length < buffer.len() {
            match from.read(&mut buffer[length..]).expect("the disk") {
                0 => break,
                got => length += got,
            }
        }
        if length == 0 {
            return file;
        }
        if buffer[..length].iter().any(|octet| *octet != 0) {
            file.write_all(&buffer[..length]).expect("room");
        } else {
            file.seek(SeekFrom::Current(i64::try_from(length).expect("fits"))).expect("inside");
        }
    }
}

/// A file of a FAT, if it is there.
fn fat_file(esp: &Path, name: &str, to: &Path) -> Option<Vec<u8>> {
    let _ = std::fs::remove_file(to);
    let mut command = Command::new("mcopy");
    command.args(["-n", "-i"]).arg(esp).arg(format!("::EFI/Linux/{name}")).arg(to);
    command
        .output()
        .expect("mcopy starts")
        .status
        .success()
        .then(|| std::fs::read(to).expect("mcopy wrote it"))
}

#[test]
fn an_upgrade_cut_anywhere_leaves_the_old_version_and_no_half_of_the_new_one() {
    let folder = Folder::new("cuts-esp");
    let [mail, machine] = stage::config(Backend::nowhere());
    let disk = stage::disk(&folder, &[(mail.0, &mail.1), (machine.0, &machine.1)]);
    let releases = folder.path("releases");
    let manifest = stage::release(&releases, "1.1.0", &[]);
    let new = std::fs::read(manifest.with_extension("efi")).expect("built");
    let old = std::fs::read(stage::image().with_extension("efi")).expect("built");
    let web = stage::web(&releases);
    let esp = part(&disk, "ringpost-esp");
    let base = folder.path("esp");
    let file = copy(&disk, &esp, &base);
    let log = folder.path("writes");
    let mut guest = Guest::start_logged(&folder, &disk, &log, Start::Debug);
    guest.wait_for("taking mail");
    let from = entries(&log);
    let command =
        format!("ringpost upgrade http://10.0.2.2:{}/ringpost-1.1.0.manifest --later", web.port());
    let (said, fine) = guest.shell(&command);
    assert!(fine, "{said}");
    let to = entries(&log);
    drop(guest);
    let all = read_log(&log, &esp);
    let from = usize::try_from(from).expect("fits");
    let to = usize::try_from(to).expect("fits");
    let writes: Vec<usize> = (from..to).filter(|n| !all[*n].data.is_empty()).collect();
    println!("{} writes to the ESP, {} of them small", writes.len(), {
        writes.iter().filter(|n| all[**n].data.len() <= 4096).count()
    });
    // The content first, by samples; then every write of names and tables.
    let step = (writes.len() / (ESP_CUTS / 2)).max(1);
    let mut cuts: Vec<usize> = writes.iter().step_by(step).copied().collect();
    cuts.extend(writes.iter().rev().take(ESP_CUTS).map(|n| n + 1));
    cuts.push(to);
    cuts.sort_unstable();
    cuts.dedup();
    let mut replay = Replay { path: base, file, all, done: 0 };
    let copied = folder.path("copied");
    let (mut checks, mut with_new) = (0, 0);
    for cut in cuts {
        for loss in [Loss::All, Loss::None, Loss::Some(cut as u64)] {
            let (kept, fresh) = replay.at(cut, loss, |esp| {
                let kept = fat_file(esp, "ringpost_1.0.0.efi", &copied);
                (kept, fat_file(esp, "ringpost_1.1.0+3.efi", &copied))
            });
            assert!(
                kept.as_ref() == Some(&old),
                "cut at {cut}, {loss:?}: the old version is broken"
            );
            if let Some(fresh) = fresh {
                let length = fresh.len();
                assert!(fresh == new, "cut at {cut}, {loss:?}: {length} octets of the new version");
                with_new += 1;
            }
            checks += 1;
        }
    }
    println!("{checks} cuts, the new version in {with_new} of them");
    assert!(with_new > 0 && with_new < checks, "the cuts do not reach the moment that counts");
}

#[test]
fn the_spool_cut_anywhere_keeps_what_was_answered() {
    let folder = Folder::new("cuts-spool");
    let [mail, machine] = stage::config(Backend::nowhere());
    let disk = stage::disk(&folder, &[(mail.0, &mail.1), (machine.0, &machine.1)]);
    let mut guest = Guest::start(&folder, &disk, Start::Direct, &[]);
    guest.wait_for("taking mail");
    guest.power_off();
    let spool = part(&disk, "ringpost-spool");
    let base = folder.path("spool");
    let file = copy(&disk, &spool, &base);
    let log = folder.path("writes");
    let mut guest = Guest::start_logged(&folder, &disk, &log, Start::Direct);
    guest.wait_for("taking mail");
    let from = entries(&log);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::greeted(guest.mail)).collect();
    // The id, and where the log stood when the 250 was there.
    let mut kept: Vec<(String, u64)> = Vec::new();
    for n in 0..240 {
        let body = "an octet more for every message\r\n".repeat(n % 50);
        let text = format!("Subject: {n}\r\n\r\nmessage {n}.\r\n{body}\r\n");
        let client = &mut clients[n % 4];
        let id = client.deliver("a@example.net", &["b@example.org"], &text);
        kept.push((id, entries(&log)));
    }
    let to = entries(&log);
    drop(guest);
    let mut replay = Replay { path: base, file, all: read_log(&log, &spool), done: 0 };
    let mut seed = 6;
    let mut cuts: Vec<u64> =
        (0..SPOOL_CUTS).map(|_| from + next(&mut seed) % (to - from)).collect();
    cuts.sort_unstable();
    let tool = program("ringpost");
    let mut checked = 0;
    for (n, cut) in cuts.into_iter().enumerate() {
        let loss = [Loss::All, Loss::None, Loss::Some(cut)][n % 3];
        let at = usize::try_from(cut).expect("fits");
        let said = replay.at(at, loss, |spool| {
            let mut command = Command::new(&tool);
            let output = command.args(["spool", "list"]).arg(spool).output().expect("it starts");
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
        });
        for (id, _) in kept.iter().filter(|(_, acknowledged)| *acknowledged <= cut) {
            assert!(said.contains(id), "cut at {cut}, {loss:?}: {id} is lost:\n{said}");
            checked += 1;
        }
    }
    println!("{SPOOL_CUTS} cuts, {} messages, {checked} looks, none lost", kept.len());
    assert!(checked > SPOOL_CUTS, "the cuts lie before the messages");
}
