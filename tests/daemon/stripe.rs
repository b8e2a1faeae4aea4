//! A stripe of mirrors: four devices, two pairs, the cores spread over both. One fails under load,
//! is replaced and filled, with kill -9 in between; then one of each pair is taken out.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::PathBuf;

use super::backend::Backend;
use super::mirror::{FILE, Failing, acked, alarms, loaded, nothing_is_lost};
use super::programs::{Daemon, Folder, Running, Setup, load};

/// The cores whose ids the acknowledged messages of a daemon's log have.
fn cores(daemon: &Daemon) -> HashSet<u8> {
    let log = daemon.log();
    let accepted = log.lines().filter(|line| line.contains(" <= "));
    let ids = accepted.filter_map(|line| line.split_whitespace().find(|w| w.contains(".1")));
    let ids = ids.filter_map(|id| id.parse::<spool::id::TransactionId>().ok());
    ids.map(|id| id.session.core()).collect()
}

#[test]
fn a_device_of_two_pairs_fails_is_replaced_and_filled_and_either_half_is_enough() {
    let folder = Folder::new("stripe");
    let places: Vec<PathBuf> = (0..4).map(|n| folder.path(&format!("place-{n}"))).collect();
    let disks: Vec<PathBuf> = places.iter().map(|place| place.join(FILE)).collect();
    let (address, maildir) = (Backend::nowhere(), folder.path("maildir"));
    let mut setup = Setup::new(address);
    let names: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    setup.place = Some(names.join("\", \""));
    setup.spool = "mirror = true\nlone_member = true\n".to_owned();
    // Two to each pair. Nothing leaves the log, and each kill leaves segments half empty.
    (setup.cores, setup.segments) = (4, 10);
    let mut daemon = Daemon::start("stripe-daemon", setup.clone());
    assert!(daemon.stop().success());
    let failing = Failing::instead_of(&disks[3]);
    setup.spool.push_str(Failing::durability(&disks[3]));
    daemon.set(|s| *s = setup.clone());
    daemon.start_again();

    // One of the second pair fails: it alone is put out, and mail goes on on all cores.
    let list = folder.path("acked-failing");
    loaded(&mut daemon, &list, 2000, |_| failing.fail());
    let mut all = acked(&list);
    assert!(all.len() > 1900, "mail stopped: {} of 2000", all.len());
    daemon.line_with(&["ALARM", "device 3 is out: mail goes on without it"]);
    let said = alarms(&daemon);
    assert!(said.contains("device 3 of the spool is out"), "{said}");
    assert!(!(0..3).any(|n| said.contains(&format!("device {n} "))), "{said}");
    assert_eq!(cores(&daemon), HashSet::from([0, 1, 2, 3]), "a core without mail");
    daemon.kill();

    // A blank one in its place; cut off while it is filled.
    fs::remove_file(&disks[3]).expect("the old one is taken out");
    drop(failing);
    File::create(&disks[3]).expect("an empty file asks for a blank one");
    daemon.start_again();
    let list = folder.path("acked-cut");
    let words = ["--total", "100000", "--sessions", "32", "--size", "4k"];
    let mut source = Running(load(daemon.address, &list, &words));
    daemon.until("mail", |_| fs::metadata(&list).is_ok_and(|list| list.len() > 8 << 10));
    daemon.kill();
    source.0.wait().expect("it ends");
    all.extend(acked(&list));
    daemon.start_again();
    let list = folder.path("acked-filling");
    loaded(&mut daemon, &list, 800, |daemon| {
        daemon.until("a full device", |d| d.log().contains("device 3 is filled and counts again"));
    });
    assert!(!alarms(&daemon).contains("device 3"), "{}", alarms(&daemon));
    all.extend(acked(&list));
    daemon.kill();

    // The first of each pair goes: all mail is on the other two, the one that was filled too.
    for n in [0, 2] {
        fs::rename(&disks[n], folder.path(&format!("taken-out-{n}"))).expect("taken out");
    }
    daemon.start_again();
    let said = alarms(&daemon);
    for n in [0, 2] {
        assert!(said.contains(&format!("device {n} of the spool is out")), "{said}");
    }
    nothing_is_lost(&mut daemon, &all, address, &maildir);
}

#[test]
fn without_both_devices_of_a_pair_nothing_starts_and_nothing_is_changed() {
    let folder = Folder::new("stripe-gone");
    let places: Vec<PathBuf> = (0..4).map(|n| folder.path(&format!("place-{n}"))).collect();
    let mut setup = Setup::new(Backend::nowhere());
    let names: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    setup.place = Some(names.join("\", \""));
    setup.spool = "mirror = true\nlone_member = true\n".to_owned();
    (setup.cores, setup.segments) = (2, 6);
    let mut daemon = Daemon::start("stripe-gone-daemon", setup);
    assert!(daemon.stop().success());
    let sums = || -> Vec<u32> {
        let files = places.iter().map(|place| fs::read(place.join(FILE)).unwrap_or_default());
        files.map(|octets| crc32c::crc32c(&octets)).collect()
    };
    for n in [2, 3] {
        fs::rename(places[n].join(FILE), folder.path(&format!("out-{n}"))).expect("taken out");
    }
    let before = sums();
    let said = daemon.try_start_again().expect_err("a pair is gone");
    assert!(said.contains("member 2 of the set is missing"), "{said}");
    assert!(said.contains("bring the device back"), "{said}");
    assert_eq!(sums(), before, "something was changed");
    for n in [2, 3] {
        fs::rename(folder.path(&format!("out-{n}")), places[n].join(FILE)).expect("put back");
    }
    daemon.start_again();
    assert_eq!(daemon.ledger().queued, 0);
    assert!(daemon.stop().success());
}
