//! `ringpost spool` on a spool that the daemon wrote and no longer holds; and on what is none.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::backend::Backend;
use super::client::Client;
use super::programs::{Daemon, Setup};

/// Where segment n of the test's spool begins.
const SEGMENT: u64 = 16 << 20;
const HEAD: u64 = 1 << 20;

fn text(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    // Lines are broken to fit a terminal.
    String::from_utf8_lossy(&all).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn spool(daemon: &Daemon, words: &[&str]) -> Output {
    let place = daemon.folder.path("spool").display().to_string();
    daemon.tool(&[&["spool"], words, &[place.as_str()]].concat())
}

/// A daemon that holds so many messages and was stopped; their ids.
fn stopped(name: &str, count: usize) -> (Daemon, Vec<String>) {
    let mut setup = Setup::new(Backend::nowhere());
    setup.retry = "first_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n".to_owned();
    let mut daemon = Daemon::start(name, setup);
    let mut client = Client::greeted(daemon.address);
    let ids = (0..count)
        .map(|n| {
            let content = format!("Subject: kept {n}\r\n\r\nbody {n}\r\n");
            client.deliver("sender@example.net", &["a@example.org"], &content)
        })
        .collect();
    let held = spool(&daemon, &["list"]);
    assert_eq!(held.status.code(), Some(1), "{}", text(&held));
    assert!(text(&held).contains("another process holds it"), "{}", text(&held));
    assert!(daemon.stop().success());
    (daemon, ids)
}

#[test]
fn a_spool_is_listed_shown_exported_verified_and_repaired() {
    let (daemon, ids) = stopped("offline", 3);
    let list = spool(&daemon, &["list"]);
    assert!(list.status.success(), "{}", text(&list));
    assert!(ids.iter().all(|id| text(&list).contains(id.as_str())), "{}", text(&list));
    assert!(text(&list).contains("3 messages."), "{}", text(&list));
    let place = daemon.folder.path("spool").display().to_string();
    let into = daemon.folder.path("out");
    fs::create_dir(&into).expect("a folder of ours");
    let into = into.display().to_string();
    let show = daemon.tool(&["spool", "show", &ids[1], &place]);
    assert!(text(&show).contains("sender@example.net"), "{}", text(&show));
    let export = daemon.tool(&["spool", "export", "--into", &into, &ids[1], &place]);
    assert!(export.status.success(), "{}", text(&export));
    let eml = fs::read_to_string(Path::new(&into).join(format!("{}.eml", ids[1]))).expect("made");
    assert!(eml.ends_with("Subject: kept 1\r\n\r\nbody 1\r\n"), "{eml}");
    assert!(eml.starts_with("Received: "), "{eml}");
    let envelope = Path::new(&into).join(format!("{}.envelope", ids[1]));
    let envelope = fs::read_to_string(envelope).expect("made");
    assert_eq!(envelope, "MAIL FROM:<sender@example.net>\r\nRCPT TO:<a@example.org>\r\n");
    let again = daemon.tool(&["spool", "export", "--into", &into, &ids[1], &place]);
    assert_eq!(again.status.code(), Some(1), "nothing is overwritten: {}", text(&again));
    let verify = spool(&daemon, &["verify"]);
    assert!(verify.status.success() && text(&verify).contains("0 places"), "{}", text(&verify));
    let said = spool(&daemon, &["repair"]);
    assert!(text(&said).contains("Nothing was changed"), "{}", text(&said));
    let done = spool(&daemon, &["repair", "--yes"]);
    assert!(done.status.success() && text(&done).contains("Done."), "{}", text(&done));
    assert!(text(&spool(&daemon, &["list"])).contains("3 messages."));
}

fn file(daemon: &Daemon) -> PathBuf {
    daemon.folder.path("spool").join("ringpost.spool")
}

/// Whatever is done to the file, every command refuses it, names it, and leaves it as it is.
fn is_refused(daemon: &Daemon, spoil: impl FnOnce(&File), says: &str) {
    let path = file(daemon);
    let kept = daemon.folder.path("kept");
    fs::copy(&path, &kept).expect("room for a copy");
    spoil(&File::options().read(true).write(true).open(&path).expect("ours"));
    let before = fs::read(&path).expect("readable");
    for words in [&["list"][..], &["verify"], &["repair", "--yes"]] {
        let said = spool(daemon, words);
        assert_eq!(said.status.code(), Some(1), "{words:?}: {}", text(&said));
        let said = text(&said);
        assert!(said.contains(says), "{words:?}: {said}");
        assert!(said.contains("ringpost.spool at byte "), "{words:?}: {said}");
    }
    assert!(fs::read(&path).expect("readable") == before, "nothing was overwritten");
    fs::rename(&kept, &path).expect("put back");
}

#[test]
fn what_is_no_spool_of_ours_is_refused_by_name_and_offset() {
    let (mut daemon, _) = stopped("offline-bad", 3);
    let length = fs::metadata(file(&daemon)).expect("there").len();
    is_refused(&daemon, |f| f.set_len(length - SEGMENT).expect("cut"), "the spool on it needs");
    let alien = |f: &File| {
        (0..4).for_each(|n| f.write_all_at(&[0x5a; 4096], n << 18).expect("written"));
    };
    is_refused(&daemon, alien, "not a spool; nothing was changed");
    let newer = |f: &File| {
        let mut block = [0; 512];
        f.read_exact_at(&mut block, 0).expect("a superblock");
        block[8..10].copy_from_slice(&9u16.to_le_bytes());
        let crc = crc32c::crc32c(&block[..508]);
        block[508..].copy_from_slice(&crc.to_le_bytes());
        (0..4).for_each(|n| f.write_all_at(&block, n << 18).expect("written"));
    };
    is_refused(&daemon, newer, "spool format 9");
    let swapped = |f: &File| {
        let mut first = vec![0; usize::try_from(SEGMENT).expect("small")];
        f.read_exact_at(&mut first, HEAD).expect("a segment");
        (1..8).for_each(|n| f.write_all_at(&first, HEAD + n * SEGMENT).expect("written"));
    };
    is_refused(&daemon, swapped, "the segment is in the wrong place");
    // The daemon of another node says whose it is.
    daemon.set(|setup| setup.node = "id = 9\n".to_owned());
    let said = daemon.try_start_again().expect_err("it is another node's");
    assert!(said.contains("the spool of node") && said.contains("this is node 9"), "{said}");
}
