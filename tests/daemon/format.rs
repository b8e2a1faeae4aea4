//! A spool of the format before: written as it was, until the config says that it is raised.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::backend::Backend;
use super::client::Client;
use super::programs::{Daemon, Setup};

fn file(daemon: &Daemon) -> PathBuf {
    daemon.folder.path("spool").join("ringpost.spool")
}

/// As the version before made it: nothing of this format stands in a spool without mail.
fn make_old(daemon: &Daemon) {
    let file = File::options().read(true).write(true).open(file(daemon)).expect("ours");
    let mut block = [0; 512];
    file.read_exact_at(&mut block, 0).expect("a superblock");
    assert_eq!(block[8..10], 2_u16.to_le_bytes(), "a spool is made in the newest format");
    block[8..10].copy_from_slice(&1_u16.to_le_bytes());
    let crc = crc32c::crc32c(&block[..508]);
    block[508..].copy_from_slice(&crc.to_le_bytes());
    (0..4).for_each(|n| file.write_all_at(&block, n << 18).expect("written"));
}

/// The format that verify says, and each message as it would be sent.
fn exported(daemon: &Daemon, ids: &[String], into: &str) -> (u64, Vec<String>) {
    let place = daemon.folder.path("spool").display().to_string();
    let verify = daemon.ask(&["spool", "verify", &place]);
    assert_eq!(verify["damage"].as_array().map(Vec::len), Some(0), "{verify}");
    let folder = daemon.folder.path(into);
    fs::create_dir(&folder).expect("a folder of ours");
    let export = |id: &String| {
        let words = ["spool", "export", "--into", &folder.display().to_string(), id, &place];
        let said = daemon.tool(&words);
        assert!(said.status.success(), "{said:?}");
        fs::read_to_string(Path::new(&folder).join(format!("{id}.eml"))).expect("made")
    };
    (verify["format"].as_u64().expect("a number"), ids.iter().map(export).collect())
}

/// How often the words stand in the log.
fn stand(daemon: &Daemon, words: &str) -> usize {
    let octets = fs::read(file(daemon)).expect("readable");
    octets.windows(words.len()).filter(|octets| *octets == words.as_bytes()).count()
}

#[test]
fn an_old_spool_stays_as_it_is_until_it_is_raised() {
    let mut setup = Setup::new(Backend::nowhere());
    setup.cores = 1;
    setup.retry = "first_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n".to_owned();
    let mut daemon = Daemon::start("format", setup);
    assert!(daemon.stop().success());
    make_old(&daemon);
    let mut ids = Vec::new();
    let mut deliver = |daemon: &Daemon| {
        let mut client = Client::greeted(daemon.address);
        let id = client.deliver("a@example.net", &["b@example.org"], "Subject: x\r\n\r\nkept\r\n");
        ids.push(id);
        ids.clone()
    };
    daemon.start_again();
    assert_eq!(daemon.ask(&["version"])["spool_format"], 1);
    assert!(daemon.log().contains("raise_format"), "{}", daemon.log());
    deliver(&daemon);
    assert!(daemon.stop().success());
    assert_eq!(stand(&daemon, "Received: from "), 1, "in words");
    daemon.start_again();
    let one = deliver(&daemon);
    assert!(daemon.stop().success());
    let (format, before) = exported(&daemon, &one, "one");
    assert_eq!((format, stand(&daemon, "Received: from ")), (1, 2), "still in words");
    daemon.set(|setup| setup.spool.push_str("raise_format = true\n"));
    daemon.start_again();
    assert_eq!(daemon.ask(&["version"])["spool_format"], 2);
    assert!(daemon.log().contains("raised from format 1 to format 2"), "{}", daemon.log());
    let all = deliver(&daemon);
    assert!(daemon.stop().success());
    assert_eq!(stand(&daemon, "Received: from "), 2, "none in words");
    daemon.set(|setup| setup.spool.clear());
    daemon.start_again();
    assert_eq!(daemon.ask(&["version"])["spool_format"], 2, "there is no way back");
    assert!(daemon.stop().success());
    let (format, after) = exported(&daemon, &all, "all");
    assert_eq!(format, 2);
    assert_eq!(after[..2], before[..], "what was there is read as it was");
    for (id, mail) in all.iter().zip(&after) {
        assert!(mail.starts_with("Received: from "), "{mail}");
        assert!(
            mail.contains(&format!("id {id}")) && mail.contains("for <b@example.org>;"),
            "{mail}"
        );
        assert!(mail.ends_with("\r\nSubject: x\r\n\r\nkept\r\n"), "{mail}");
    }
}

/// A version under trial may be left for the one before it, which must find a set it can read.
#[test]
fn a_set_made_under_trial_is_of_the_older_format_until_the_version_is_blessed() {
    let mut setup = Setup::new(Backend::nowhere());
    setup.cores = 1;
    setup.retry = "first_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n".to_owned();
    let blessed = |says: &str| vec![("RINGPOST_BLESSED".to_owned(), says.to_owned())];
    setup.environment = blessed("0");
    let mut daemon = Daemon::start("format-trial", setup);
    assert_eq!(daemon.ask(&["version"])["spool_format"], 1);
    let mut client = Client::greeted(daemon.address);
    let id = client.deliver("a@example.net", &["b@example.org"], "Subject: x\r\n\r\nkept\r\n");
    assert!(daemon.stop().success());
    assert_eq!(stand(&daemon, "Received: from "), 1, "in words, as the version before reads it");
    // Still under trial.
    daemon.start_again();
    assert_eq!(daemon.ask(&["version"])["spool_format"], 1);
    assert!(daemon.stop().success());
    daemon.set(|setup| setup.environment = blessed("1"));
    daemon.start_again();
    assert_eq!(daemon.ask(&["version"])["spool_format"], 2);
    assert!(daemon.log().contains("raised from format 1 to format 2"), "{}", daemon.log());
    assert!(daemon.stop().success());
    let (format, mail) = exported(&daemon, &[id], "mail");
    assert_eq!(format, 2);
    assert!(mail[0].ends_with("\r\nSubject: x\r\n\r\nkept\r\n"), "{}", mail[0]);
}
