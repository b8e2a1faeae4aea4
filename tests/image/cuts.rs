//! Power cuts: every write of a guest's disks is logged by QEMU, and the disks are put together
//! again as they could have been at any moment (`record`).
//!
//! *Guarantees*: a cut of the spool counts only with `ACKED_MIN` messages acknowledged before it
//! from `SESSIONS_MIN` sessions, inside the load, and with more than one message in a batch;
//! the members of a mirror are cut at one moment.
//! *Limits*: the disks are virtio ones: QEMU's NVMe ignores FUA, so its log shows losses that are
//! none.
//! *Not here*: that a real disk keeps what it said it flushed.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use spool::batch::{BatchHeader, Records};
use spool::offline::Offline;
use spool::record::RecordKind;
use spool::recovery::{Options, recover};
use spool::set::{Set, read_superblock};
use spool::sim::{Random, SimDevice};

use super::guest::{Guest, Start, logged};
use super::load::{Acked, until_acked};
use super::record::{Entry, Loss, Replay, length, read};
use super::{floor, stage};
use crate::daemon::backend::Backend;
use crate::daemon::programs::Folder;

const SECTOR: u64 = 512;
/// Cuts of the spool in one round.
const SPOOL_CUTS: usize = 100;
const SPOOL_CUTS_LONG: usize = 1_000;
const SESSIONS: usize = 48;
const SESSIONS_MIN: usize = 32;
const ACKED_MIN: usize = 500;
/// Messages acknowledged when the load ends.
const ACKED: usize = 1200;
/// A disk for 16 segments of 4 MiB.
const SPOOL_MIB: u64 = 80;
/// Moments of an upgrade, each with three kinds of loss.
const ESP_CUTS: usize = 30;

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
fn copy(disk: &Path, part: &Range<u64>, to: &Path) {
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
            return;
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
    copy(&disk, &esp, &base);
    let log = folder.path("writes");
    let mut guest = Guest::start_logged(&folder, &disk, &log, Start::Debug);
    guest.wait_for("taking mail");
    let from = length(&File::open(&log).expect("QEMU writes it"));
    let command =
        format!("ringpost upgrade http://10.0.2.2:{}/ringpost-1.1.0.manifest --later", web.port());
    let (said, fine) = guest.shell(&command);
    assert!(fine, "{said}");
    let to = length(&File::open(&log).expect("QEMU writes it"));
    drop(guest);
    let all = read(&log, &esp);
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
    let mut replay = Replay::new(base, all);
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

/// Which kernel is under the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// The image's own, started by its own init.
    Own,
    /// The oldest that Ringpost runs on.
    Floor,
}

/// A disk of the spool's and what was written to it.
struct Member {
    /// The spool's part of the disk.
    part: Range<u64>,
    log: PathBuf,
}

/// The daemon's config: one core, these places, nothing passed on.
fn config(places: &[&str]) -> String {
    let mail = include_str!("../../image/examples/mx.toml");
    let spool = format!(
        "places = {places:?}\nmirror = {}\nsegments = 16\nsegment_mib = 4\n",
        places.len() == 2
    );
    let mail = mail.replace(stage::SPOOL, &spool);
    let mail = mail.replace("[node]\n", "[node]\ncores = 1\nid = 5\n");
    let mail = mail.replace("port = 2600", &format!("port = {}", Backend::nowhere().port()));
    mail + "\n[retry]\nfirst_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n\
            [limits]\nexempt_networks = [\"10.0.0.0/8\"]\n"
}

/// The same without what only the image has.
fn floor_config(places: &[&str]) -> String {
    let mail = config(places);
    let (before, after) = mail.split_once("[[tls.certificate]]").expect("the example has one");
    let (_, after) = after.split_once("[policy]").expect("the example has one");
    let mail = format!("{before}[policy]{after}");
    let mail = mail.replace("address = \"::\"\n", "address = \"0.0.0.0\"\ntls = \"none\"\n");
    mail.replace("/run/ringpost/", "/").replace("/state/log", "/log")
}

/// Loads a guest with so many disks until enough is acknowledged, and cuts the power.
fn loaded(kernel: Kernel, folder: &Folder, disks: usize) -> (Vec<Acked>, Vec<Member>) {
    let names = &["one", "two"][..disks];
    let paths: Vec<PathBuf> = names.iter().map(|name| folder.path(name)).collect();
    let logs: Vec<PathBuf> = names.iter().map(|name| folder.path(&format!("{name}.log"))).collect();
    let mut more = Vec::new();
    for ((name, path), log) in names.iter().zip(&paths).zip(&logs) {
        stage::blank(path, SPOOL_MIB);
        more.extend(logged(path, log, name));
    }
    let mut guest = match kernel {
        Kernel::Own => {
            let places = &["/dev/spool/1", "/dev/spool/2"][..disks];
            let machine = stage::config(Backend::nowhere())[1].1.clone();
            let files = [("mx.toml", config(places)), ("machine.toml", machine)];
            let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
            let disk = stage::disk(folder, &files);
            let mut guest = Guest::start(folder, &disk, Start::Direct, &more);
            guest.wait_for("taking mail");
            guest
        }
        Kernel::Floor => {
            floor::user_space(folder, &floor_config(&["/dev/vda", "/dev/vdb"][..disks]));
            let mut guest = Guest::start_floor(folder, &more);
            println!("{}", guest.wait_for(floor::RELEASE));
            guest.wait_for("ready: ");
            guest
        }
    };
    let acked = until_acked(guest.mail, &logs, SESSIONS, ACKED);
    guest.kill();
    let part = |path: &PathBuf| match kernel {
        Kernel::Own => part(path, "ringpost-spool"),
        Kernel::Floor => 0..SPOOL_MIB << 20,
    };
    let parts: Vec<Range<u64>> = paths.iter().map(part).collect();
    let members = parts.into_iter().zip(logs).map(|(part, log)| Member { part, log });
    (acked, members.collect())
}

/// Messages, and batches that hold some, among these writes.
fn batches(entries: &[Entry]) -> (usize, usize) {
    let (mut messages, mut batches) = (0, 0);
    for entry in entries {
        let Some((header, _)) = BatchHeader::decode(&entry.data) else { continue };
        let is_mail = |kind| RecordKind::of(kind) == Some(RecordKind::Message);
        let records = Records::new(&entry.data, &header).flatten();
        let mail = records.filter(|record| is_mail(record.header.kind)).count();
        messages += mail;
        batches += usize::from(mail > 0);
    }
    (messages, batches)
}

fn small(n: u64) -> usize {
    usize::try_from(n).expect("below the size of a log")
}

/// One round: load, power cut, and the disks looked at as any cut could have left them.
fn round(name: &str, kernel: Kernel, disks: usize) {
    let seed = std::env::var("RINGPOST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let long = std::env::var_os("RINGPOST_LONG").is_some();
    let cuts = if long { SPOOL_CUTS_LONG } else { SPOOL_CUTS };
    let folder = Folder::new(name);
    let (acked, members) = loaded(kernel, &folder, disks);
    let mut replays: Vec<Replay> = members
        .iter()
        .enumerate()
        .map(|(n, member)| {
            let base = folder.path(&format!("replay{n}"));
            let file = File::create(&base).expect("room");
            file.set_len(member.part.end - member.part.start).expect("a sparse file");
            Replay::new(base, read(&member.log, &member.part))
        })
        .collect();
    let (first, last) = (&acked[ACKED_MIN], &acked[acked.len() - 1]);
    let (mail, with_mail) = batches(&replays[0].all[small(first.at[0])..small(last.at[0])]);
    assert!(mail > with_mail, "{mail} messages in {with_mail} batches: no group commit");
    let mut random = Random::new(seed);
    let plan = plan(&acked, cuts, &mut random);
    // A test of the test: what comes behind a cut is missed, if it is looked for.
    let early = cut(&mut replays, &first.at, Loss::All);
    assert!(!check(early, &acked, disks == 2).lost.is_empty(), "nothing can get lost here");
    let (mut lost, mut looks, mut struck, mut healed) = (0, 0, 0, 0);
    for (n, (moment, at)) in plan.into_iter().enumerate() {
        let loss = [Loss::All, Loss::None, Loss::Some(random.next_u64())][n % 3];
        let before = &acked[..=moment];
        let sessions: HashSet<usize> = before.iter().map(|a| a.session).collect();
        assert!(before.len() >= ACKED_MIN && sessions.len() >= SESSIONS_MIN, "not in the load");
        let seen = check(cut(&mut replays, &at, loss), before, disks == 2);
        for id in &seen.lost {
            println!("cut {n} at {at:?}, {loss:?}: {id} is lost or changed");
        }
        lost += seen.lost.len();
        looks += before.len();
        struck += seen.struck;
        healed += seen.healed;
    }
    println!(
        "{name}: {cuts} cuts, {} acknowledged, {looks} looks, {mail} messages in {with_mail} \
         batches, {struck} batches struck out, {healed} copies healed, {lost} lost",
        acked.len()
    );
    assert_eq!(lost, 0, "RINGPOST_SEED={seed}");
}

/// The spool's parts of the disks as this cut leaves them.
fn cut(replays: &mut [Replay], at: &[u64], loss: Loss) -> Vec<SimDevice> {
    let devices = replays.iter_mut().zip(at).map(|(replay, at)| {
        replay.at(small(*at), loss, |path| {
            let bytes = std::fs::read(path).expect("the replay");
            let mut device = SimDevice::new("cut", u64::try_from(bytes.len()).expect("fits"));
            device.medium_mut().copy_from_slice(&bytes);
            device
        })
    });
    devices.collect()
}

/// When to cut: which message was the last to be acknowledged before, and how many writes of each
/// disk had ended: anywhere up to the next acknowledgement. Moments only grow.
fn plan(acked: &[Acked], cuts: usize, random: &mut Random) -> Vec<(usize, Vec<u64>)> {
    let span = u64::try_from(acked.len() - ACKED_MIN - 1).expect("small");
    let mut plan: Vec<(usize, Vec<u64>)> = (0..cuts)
        .map(|_| {
            let moment = ACKED_MIN + small(random.below(span));
            let writes = acked[moment].at.iter().zip(&acked[moment + 1].at);
            (moment, writes.map(|(from, to)| from + random.below(to - from + 1)).collect())
        })
        .collect();
    plan.sort_unstable();
    for n in 1..plan.len() {
        for disk in 0..plan[n].1.len() {
            plan[n].1[disk] = plan[n].1[disk].max(plan[n - 1].1[disk]);
        }
    }
    plan
}

/// What a start found after a cut.
struct Seen {
    /// Lost or changed.
    lost: Vec<String>,
    struck: usize,
    healed: usize,
}

/// Recovers one cut as the daemon does, and looks for what was acknowledged, octet by octet.
fn check(mut devices: Vec<SimDevice>, before: &[Acked], mirror: bool) -> Seen {
    let node = read_superblock(&mut devices[0]).expect("a cut leaves a spool").node;
    let set = Set::open(devices, node, mirror).expect("a cut leaves a spool");
    let options = Options { cores: 1, pid: 1, wall_us: 1, generation: 1, raise_format: false };
    let found = recover(set, options, &mut |_| {}).expect("a cut can be recovered");
    let report = found.report;
    assert_eq!(report.damage, [], "a cut is no damage");
    assert!(report.ledger_agrees(), "{:?} {:?}", report.ledger, report.counted);
    let mut offline = Offline::open(found.set).expect("it was just recovered");
    let mut seen = Seen { lost: Vec::new(), struck: report.struck, healed: report.healed };
    for acked in before {
        let id = acked.id.parse().expect("an id");
        let whole = offline.show(id).map(|m| [m.header, m.tail].concat());
        if whole.as_deref() != Ok(&acked.content) {
            seen.lost.push(acked.id.clone());
        }
    }
    seen
}

#[test]
fn the_spool_cut_anywhere_keeps_what_was_answered() {
    round("cuts-own", Kernel::Own, 1);
}

#[test]
fn a_mirror_cut_at_one_moment_keeps_what_was_answered() {
    round("cuts-own-mirror", Kernel::Own, 2);
}

#[test]
fn on_linux_6_1_the_spool_cut_anywhere_keeps_what_was_answered() {
    round("cuts-floor", Kernel::Floor, 1);
}

#[test]
fn on_linux_6_1_a_mirror_cut_at_one_moment_keeps_what_was_answered() {
    round("cuts-floor-mirror", Kernel::Floor, 2);
}
