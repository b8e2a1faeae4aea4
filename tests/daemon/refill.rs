//! A mirror on block devices whose half fails, is replaced and filled while mail flows; and a half
//! that comes back when the log has no room. Needs root and loop devices.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::backend::Backend;
use super::guard::{Loop, MIB, mark, run, sum};
use super::mirror::{FILE, Failing, acked, alarms, fill, loaded, mirrored, nothing_is_lost, text};
use super::programs::{Daemon, Folder, Running, Setup, load, source};

/// 25 segments of 16 MiB and what stands before them, and some more: nothing leaves the log.
const DEVICE: u64 = 416 * MIB;

/// What stands at a place by which a device is known, as in `/dev/disk/by-id`.
fn put(disk: &Loop, place: &Path) {
    let _ = fs::remove_file(place);
    symlink(&disk.device, place).expect("a link of ours");
}

fn counts(daemon: &Daemon) -> usize {
    daemon.log().matches("device 1 is filled and counts").count()
}

#[test]
fn a_device_that_failed_is_replaced_and_filled_while_the_daemon_runs() {
    let folder = Folder::new("raw-refill");
    let (first, second) = (folder.path("first"), folder.path("second"));
    let (address, maildir) = (Backend::nowhere(), folder.path("maildir"));
    // One that can be made to fail, a blank one, one that bears something and is named by its
    // serial number, and one that bears something and is not.
    let half = Failing::blank(DEVICE);
    let failing = Loop::over(Folder::new("raw-failing"), half.path());
    let [whole, blank, named, alien] =
        ["whole", "blank", "named", "alien"].map(|name| Loop::new(name, DEVICE));
    run("mkfs.ext4", &["-q", "-F", &alien.device]);
    mark(&named.file, 512, b"EFI PART");
    put(&whole, &first);
    put(&failing, &second);
    let mut setup = mirrored(&folder, Setup::new(address));
    (setup.cores, setup.segments) = (1, 24);
    setup.spool.push_str(&format!("take_serials = [\"{}\"]\n", named.serial()));
    let mut daemon = Daemon::start("raw-refill-daemon", setup);
    let list = folder.path("acked-failing");
    loaded(&mut daemon, &list, 1500, |_| half.fail());
    let mut all = acked(&list);
    daemon.line_with(&["ALARM", "device 1 is out: mail goes on without it"]);

    // The one that fails cannot be filled; neither is one that bears something.
    let refused = fill(&daemon);
    assert!(!refused.status.success(), "{}", text(&refused));
    put(&alien, &second);
    run("blockdev", &["--flushbufs", &alien.device]);
    let before = sum(&alien.file);
    let refused = fill(&daemon);
    assert!(!refused.status.success(), "{}", text(&refused));
    assert!(text(&refused).contains("bears an ext2, ext3 or ext4"), "{}", text(&refused));
    assert!(text(&refused).contains("take_serials = "), "{}", text(&refused));
    assert_eq!(sum(&alien.file), before, "not an octet was changed");
    // What somebody else uses is not had either.
    let at = folder.path("at");
    fs::create_dir(&at).expect("a folder of ours");
    let at = at.display().to_string();
    run("mount", &[&alien.device, &at]);
    let refused = fill(&daemon);
    run("umount", &[&at]);
    assert!(text(&refused).contains("the system uses this device"), "{}", text(&refused));
    assert!(alarms(&daemon).contains("device 1 of the spool is out"), "{}", alarms(&daemon));

    // A blank one in its place, while mail comes; cut off while it is filled.
    put(&blank, &second);
    let list = folder.path("acked-cut");
    let words = ["--total", "100000", "--sessions", "32", "--size", "4k"];
    let mut mail = Running(load(daemon.address, &list, &words));
    daemon.until("the load", |_| fs::metadata(&list).is_ok_and(|list| list.len() > 8 << 10));
    let begun = fill(&daemon);
    assert!(begun.status.success() && text(&begun).contains("being filled"), "{}", text(&begun));
    daemon.until("mail after that", |_| fs::metadata(&list).is_ok_and(|l| l.len() > 16 << 10));
    daemon.kill();
    mail.0.wait().expect("it ends");
    all.extend(acked(&list));
    daemon.start_again();
    daemon.until("a full half", |daemon| counts(daemon) > 0);
    drop((failing, half));

    // It goes and comes back as it was; then the one that is named takes its place.
    for (n, disk) in [&blank, &named].into_iter().enumerate() {
        assert!(daemon.stop().success());
        fs::remove_file(&second).expect("taken out");
        daemon.start_again();
        assert!(alarms(&daemon).contains("device 1 of the spool is out"), "{}", alarms(&daemon));
        let before = counts(&daemon);
        let list = folder.path(&format!("acked-{n}"));
        loaded(&mut daemon, &list, 1000, |daemon| {
            put(disk, &second);
            let begun = fill(daemon);
            assert!(begun.status.success(), "{}", text(&begun));
            daemon.until("a full half", |daemon| counts(daemon) > before);
        });
        assert!(!alarms(&daemon).contains("device 1"), "{}", alarms(&daemon));
        all.extend(acked(&list));
    }
    daemon.line_with(&["erased a GPT partition table", "take_serials"]);
    daemon.kill();

    // The other one goes: all mail is on this one.
    fs::remove_file(&first).expect("taken out");
    daemon.start_again();
    nothing_is_lost(&mut daemon, &all, address, &maildir);
}

#[test]
fn a_half_comes_back_to_a_log_without_room_and_a_dead_next_hop() {
    let folder = Folder::new("scarce");
    let (first, second) = (folder.path("first").join(FILE), folder.path("second").join(FILE));
    let (address, maildir) = (Backend::nowhere(), folder.path("maildir"));
    let mut setup = mirrored(&folder, Setup::new(address));
    (setup.cores, setup.segments) = (1, 8);
    let mut daemon = Daemon::start("scarce-daemon", setup);
    assert!(daemon.stop().success());
    let aside = folder.path("aside");
    fs::rename(&second, &aside).expect("taken out");
    daemon.start_again();
    // Until nothing more is taken.
    let list = folder.path("acked");
    let words = ["--total", "100000", "--sessions", "8", "--size", "64k"];
    load(daemon.address, &list, &words).wait().expect("it ends");
    let all = acked(&list);
    assert!(all.len() > 100, "{} fitted", all.len());
    let more = source(daemon.address, &["--total", "1", "--sessions", "1", "--size", "1m"]);
    assert_eq!(more["acked"], 0, "there is room: {more}");
    fs::rename(&aside, &second).expect("put back");
    let begun = fill(&daemon);
    assert!(begun.status.success(), "{}", text(&begun));
    daemon.until("a full half", |daemon| counts(daemon) > 0);
    assert!(!alarms(&daemon).contains("device 1"), "{}", alarms(&daemon));
    let more = source(daemon.address, &["--total", "1", "--sessions", "1", "--size", "1m"]);
    assert_eq!(more["acked"], 0, "there is room: {more}");
    daemon.kill();

    fs::rename(&first, folder.path("taken-out")).expect("taken out");
    daemon.start_again();
    nothing_is_lost(&mut daemon, &all, address, &maildir);
}

/// The only half cannot be written when the other one comes back: that one waits, and is filled
/// when it can.
#[test]
fn a_half_that_comes_back_waits_for_a_log_that_cannot_be_written() {
    let folder = Folder::new("waits");
    let (first, second) = (folder.path("first"), folder.path("second"));
    let (address, maildir) = (Backend::nowhere(), folder.path("maildir"));
    let [lone, back] = ["lone", "back"].map(|name| Loop::new(name, 160 * MIB));
    put(&lone, &first);
    put(&back, &second);
    let mut setup = mirrored(&folder, Setup::new(address));
    (setup.cores, setup.segments) = (1, 8);
    setup.spool.push_str("commit_wait_s_max = 0.5\n");
    let mut daemon = Daemon::start("waits-daemon", setup);
    assert!(daemon.stop().success());
    fs::remove_file(&second).expect("taken out");
    daemon.start_again();
    let list = folder.path("acked");
    loaded(&mut daemon, &list, 1000, |_| {});
    let mut all = acked(&list);

    // Each write is refused by the device, as by one that has made itself read-only.
    run("blockdev", &["--setro", &lone.device]);
    let more = source(daemon.address, &["--tolerant", "--total", "4", "--sessions", "4"]);
    assert_eq!(more["acked"], 0, "{more}");
    daemon.until("a log that cannot be written", |d| alarms(d).contains("cannot be written"));
    put(&back, &second);
    let begun = fill(&daemon);
    assert!(begun.status.success() && text(&begun).contains("being filled"), "{}", text(&begun));
    let waits = "core 0: device 1 waits to be filled until its log can be written";
    daemon.until("its wait", |daemon| alarms(daemon).contains(waits));
    assert!(text(&daemon.tool(&["status"])).contains(waits), "a person sees it, too");
    assert_eq!(counts(&daemon), 0);

    run("blockdev", &["--setrw", &lone.device]);
    daemon.until("a full half", |daemon| counts(daemon) > 0);
    assert!(!alarms(&daemon).contains("device 1"), "{}", alarms(&daemon));
    let list = folder.path("acked-after");
    loaded(&mut daemon, &list, 1000, |_| {});
    all.extend(acked(&list));
    daemon.kill();
    fs::remove_file(&first).expect("taken out");
    daemon.start_again();
    nothing_is_lost(&mut daemon, &all, address, &maildir);
}
