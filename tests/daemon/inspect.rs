//! `ringpost spool` and a start on a spool of the real daemon after kill -9: with damage in it, and
//! with what is not ours to read. Nothing is changed that was not asked for.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use super::backend::Backend;
use super::client::Client;
use super::programs::{Daemon, Setup, load};

const HEAD: u64 = 1 << 20;
const SEGMENT: u64 = 16 << 20;

fn text(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    // Lines are broken to fit a terminal.
    String::from_utf8_lossy(&all).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn file(daemon: &Daemon) -> PathBuf {
    daemon.folder.path("spool").join("ringpost.spool")
}

fn sum(daemon: &Daemon) -> u32 {
    crc32c::crc32c(&fs::read(file(daemon)).expect("readable"))
}

fn tool(daemon: &Daemon, words: &[&str]) -> Output {
    let place = daemon.folder.path("spool").display().to_string();
    daemon.tool(&[&["spool"], words, &[place.as_str()]].concat())
}

/// The answer in JSON, and the exit code.
fn json(daemon: &Daemon, words: &[&str]) -> (Value, Option<i32>) {
    let output = tool(daemon, &[&["--json"], words].concat());
    let value: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{words:?}: {error}: {}", text(&output)));
    (value["with"].clone(), output.status.code())
}

fn waiting(name: &str) -> Daemon {
    let mut setup = Setup::new(Backend::nowhere());
    setup.cores = 1;
    setup.segments = 6;
    setup.retry = "first_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n".to_owned();
    Daemon::start(name, setup)
}

/// Killed under load; its spool holds at least so many octets of acknowledged mail.
fn killed(name: &str, sizes: &str, least: usize) -> (Daemon, usize) {
    let mut daemon = waiting(name);
    let list = daemon.folder.path("acked");
    let words = ["--total", "1000000", "--sessions", "32", "--size", sizes];
    let mut source = load(daemon.address, &list, &words);
    let acked = || fs::read_to_string(&list).unwrap_or_default().lines().count();
    while acked() < least {
        assert!(source.try_wait().expect("ours").is_none(), "the source ended");
        std::thread::yield_now();
    }
    daemon.kill();
    source.wait().expect("it ends");
    (daemon, acked())
}

#[test]
fn a_spool_is_read_after_a_kill_and_repaired_only_when_asked() {
    let (mut daemon, acked) = killed("inspect", "20k", 1200);
    let before = sum(&daemon);
    let (list, _) = json(&daemon, &["list"]);
    let ids: Vec<&str> = list["messages"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|m| m["id"].as_str())
        .collect();
    assert!(ids.len() >= acked, "{} listed, {acked} acknowledged", ids.len());
    let place = daemon.folder.path("spool").display().to_string();
    let show = daemon.tool(&["--json", "spool", "show", ids[0], &place]);
    let show: Value = serde_json::from_slice(&show.stdout).expect("JSON");
    assert_eq!(show["with"]["id"], ids[0]);
    assert_eq!(show["with"]["recipients"][0]["state"], "pending", "{show}");
    let into = daemon.folder.path("out");
    fs::create_dir(&into).expect("a folder of ours");
    let folder = into.display().to_string();
    let export = daemon.tool(&["spool", "export", "--into", &folder, ids[0], &place]);
    assert!(export.status.success(), "{}", text(&export));
    let eml = fs::read_to_string(into.join(format!("{}.eml", ids[0]))).expect("made");
    assert!(eml.starts_with("Received: ") && eml.contains("\r\nX-Mxbench-Id: "), "{eml}");
    let (verify, code) = json(&daemon, &["verify"]);
    assert_eq!((verify["damage"].as_array().map(Vec::len), code), (Some(0), Some(0)), "{verify}");
    assert_eq!(verify["closed"], false, "it was killed");
    let said = tool(&daemon, &["repair"]);
    assert!(text(&said).contains("strike out") && text(&said).contains("Nothing was changed"));
    assert_eq!(sum(&daemon), before, "looking changed something");
    let done = tool(&daemon, &["repair", "--yes"]);
    assert!(text(&done).contains("strike out") && text(&done).contains("Done."), "{}", text(&done));
    let (after, _) = json(&daemon, &["list"]);
    assert_eq!(after["messages"].as_array().map(Vec::len), Some(ids.len()));
    let (verify, _) = json(&daemon, &["verify"]);
    assert_eq!(verify["closed"], true);
    daemon.start_again();
    assert_eq!(daemon.ledger().queued, ids.len() as u64);
    for words in [&["list"][..], &["verify"], &["repair", "--yes"]] {
        let held = tool(&daemon, words);
        assert_eq!(held.status.code(), Some(1), "{}", text(&held));
        assert!(text(&held).contains("another process holds it"), "{}", text(&held));
    }
    assert!(daemon.stop().success());
}

const STEPS: [&str; 6] =
    ["to_strike_out", "to_write_again", "to_seal", "to_give_up", "to_put_together", "to_heal"];

#[test]
fn a_repair_says_all_that_it_will_do_before_it_does_it() {
    let mut daemon = waiting("foretold");
    let (mut sent, mut said) = (Vec::new(), Value::Null);
    // Each kill leaves a nearly empty segment behind; with few free ones they are put together.
    for round in 0..30 {
        if round < 2 {
            let mut client = Client::greeted(daemon.address);
            let content = "Subject: kept\r\n\r\n";
            sent.push(client.deliver("a@example.net", &["b@example.org"], content));
        } else {
            // New mail is refused by now; what is said of old mail goes into a new segment, too.
            let act = if round % 2 == 0 { "freeze" } else { "thaw" };
            // Not while it is being tried.
            let done = |d: &Daemon| d.tool(&["queue", act, &sent[0]]).status.success();
            daemon.until(&format!("a {act}"), done);
        }
        daemon.kill();
        let before = sum(&daemon);
        said = json(&daemon, &["repair"]).0;
        assert_eq!(sum(&daemon), before, "looking changed something");
        assert!(said["to_seal"].as_u64() > Some(0), "a kill leaves something open: {said}");
        if said["to_put_together"].as_u64() > Some(0) {
            break;
        }
        daemon.start_again();
    }
    assert!(said["to_put_together"].as_u64() > Some(0), "never few enough: {said}");
    let ids = |daemon: &Daemon| {
        let list = json(daemon, &["list"]).0;
        let all = list["messages"].as_array().expect("a list").clone();
        let mut ids: Vec<String> = all.iter().map(|m| m["id"].to_string()).collect();
        ids.sort();
        ids
    };
    let before = ids(&daemon);
    assert_eq!(before.len(), sent.len());
    let done = json(&daemon, &["repair", "--yes"]).0;
    STEPS.iter().for_each(|step| assert_eq!(done[step], said[step], "{step}"));
    // Nothing is left to be done, and nothing is gone.
    let said = json(&daemon, &["repair"]).0;
    STEPS.iter().for_each(|step| assert_eq!(said[step], 0, "{step}: {said}"));
    assert_eq!(ids(&daemon), before);
    daemon.start_again();
    let ledger = daemon.ledger();
    assert_eq!(ledger.queued + ledger.held, sent.len() as u64);
    assert!(daemon.stop().success());
}

/// Offsets of batches with at least one message of the source, by segment.
fn batches(octets: &[u8]) -> Vec<usize> {
    let at = |n: &usize| octets[*n..].starts_with(b"RPBATCH1");
    let has_mail = |n: &usize| {
        octets[*n..(*n + 8192).min(octets.len())].windows(12).any(|w| w == b"X-Mxbench-Id")
    };
    (0..octets.len()).step_by(4096).filter(at).filter(has_mail).collect()
}

#[test]
fn damage_is_named_by_its_place_and_the_rest_is_there() {
    let (mut daemon, _) = killed("damaged", "20k", 2500);
    let (list, _) = json(&daemon, &["list"]);
    let all = list["messages"].as_array().map_or(0, Vec::len);
    let octets = fs::read(file(&daemon)).expect("readable");
    // In the first segment that was filled: sealed, its batches long acknowledged.
    let first = usize::try_from(HEAD + SEGMENT).expect("small");
    let places: Vec<usize> = batches(&octets).into_iter().filter(|at| *at < first).collect();
    let place = places[places.len() / 2];
    let spoil = File::options().write(true).open(file(&daemon)).expect("ours");
    spoil.write_all_at(b"rot", place as u64 + 2000).expect("written");
    let (verify, code) = json(&daemon, &["verify"]);
    let damage = verify["damage"].as_array().expect("a list");
    assert_eq!((damage.len(), code), (1, Some(7)), "{verify}");
    assert_eq!(damage[0]["offset"], place as u64, "{verify}");
    assert!(damage[0]["device"].as_str().is_some_and(|name| name.ends_with("ringpost.spool")));
    let said = tool(&daemon, &["verify"]);
    assert!(text(&said).contains(&format!("at byte {place}: a batch")), "{}", text(&said));
    // What is whole is all still there, for the tool and for the daemon.
    let (list, _) = json(&daemon, &["list"]);
    assert_eq!(list["messages"].as_array().map(Vec::len), Some(all));
    daemon.start_again();
    assert_eq!(daemon.ledger().queued, all as u64);
    assert!(daemon.stop().success());
}

/// Whatever is done to the file, the start and every command refuse it, name file and offset, and
/// leave it as it is.
fn is_refused(
    daemon: &mut Daemon,
    spoil: &dyn Fn(&File),
    offset: u64,
    (says, advises): (&str, &str),
) {
    let path = file(daemon);
    let kept = daemon.folder.path("kept");
    fs::copy(&path, &kept).expect("room for a copy");
    spoil(&File::options().read(true).write(true).open(&path).expect("ours"));
    let before = sum(daemon);
    let place = format!("ringpost.spool at byte {offset}: ");
    let check = |who: &str, said: String| {
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(says) && said.contains(&place), "{who}: {said}");
        assert!(said.contains(advises), "{who} does not say what to do: {said}");
    };
    for words in [&["list"][..], &["verify"], &["repair"], &["repair", "--yes"]] {
        let output = tool(daemon, words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {}", text(&output));
        check(words[0], text(&output));
    }
    check("ringpostd", daemon.try_start_again().expect_err("it must not start"));
    assert_eq!(sum(daemon), before, "{says}: something was overwritten");
    fs::rename(&kept, &path).expect("put back");
    fs::write(daemon.folder.path("stderr"), "").expect("ours");
}

/// The superblock copies changed, and their checksums made right again.
fn superblocks(file: &File, change: &dyn Fn(&mut [u8; 512])) {
    let mut block = [0; 512];
    file.read_exact_at(&mut block, 0).expect("a superblock");
    change(&mut block);
    let crc = crc32c::crc32c(&block[..508]);
    block[508..].copy_from_slice(&crc.to_le_bytes());
    (0..4).for_each(|n| file.write_all_at(&block, n << 18).expect("written"));
}

const COPIED: &str = "put back what stood there";

#[test]
fn what_is_not_ours_to_read_is_refused_by_file_and_offset() {
    let mut daemon = waiting("refused");
    let mut client = Client::greeted(daemon.address);
    for n in 0..3 {
        let content = format!("Subject: kept {n}\r\n\r\nbody\r\n");
        client.deliver("a@example.net", &["b@example.org"], &content);
    }
    assert!(daemon.stop().success());
    let length = fs::metadata(file(&daemon)).expect("there").len();
    let cut = length - SEGMENT;
    let says = ("the spool on it needs", "put the whole file or device back");
    is_refused(&mut daemon, &|f| f.set_len(cut).expect("cut"), cut, says);
    let says = ("fewer bytes than asked", "put the whole file or device back");
    is_refused(&mut daemon, &|f| f.set_len(700).expect("cut"), 0, says);
    is_refused(&mut daemon, &|f| f.set_len(0).expect("cut"), 0, says);
    let alien = |f: &File| {
        (0..4).for_each(|n| f.write_all_at(&[0x5a; 4096], n << 18).expect("written"));
    };
    let says = ("not a spool; nothing was changed", "choose another");
    is_refused(&mut daemon, &alien, 0, says);
    let blank = |f: &File| {
        (0..4).for_each(|n| f.write_all_at(&[0; 4096], n << 18).expect("written"));
    };
    is_refused(&mut daemon, &blank, 0, ("blank, not a spool yet", "is it the right place"));
    let newer =
        |f: &File| superblocks(f, &|block| block[8..10].copy_from_slice(&9_u16.to_le_bytes()));
    let says = ("spool format 9, which this version does not read", "the version that wrote it");
    is_refused(&mut daemon, &newer, 0, says);
    let swap = |f: &File| {
        let segment = |n: u64| {
            let mut octets = vec![0; usize::try_from(SEGMENT).expect("small")];
            f.read_exact_at(&mut octets, HEAD + n * SEGMENT).expect("a segment");
            octets
        };
        let (first, second) = (segment(0), segment(1));
        assert!(first.starts_with(b"RPSEGM01"), "the first one is in use");
        f.write_all_at(&second, HEAD).expect("written");
        f.write_all_at(&first, HEAD + SEGMENT).expect("written");
    };
    let octets = fs::read(file(&daemon)).expect("readable");
    let both = octets[usize::try_from(HEAD + SEGMENT).expect("small")..].starts_with(b"RPSEGM01");
    // The first of the two is named; one that is still blank cannot be told from its place.
    let offset = if both { HEAD } else { HEAD + SEGMENT };
    is_refused(&mut daemon, &swap, offset, ("the segment is in the wrong place", COPIED));
    // The first segment of another spool of the same node and shape.
    let alien = waiting("refused-other");
    let other = fs::read(file(&alien)).expect("readable");
    let first = usize::try_from(HEAD).expect("small");
    assert!(other[first..].starts_with(b"RPSEGM01"), "its first one is in use");
    let mix = |f: &File| f.write_all_at(&other[first..first + 4096], HEAD).expect("written");
    is_refused(&mut daemon, &mix, HEAD, ("a segment of another log", COPIED));
    // The spool of another node: the tool reads any node's, the daemon only its own.
    let before = sum(&daemon);
    daemon.set(|setup| "id = 9\n".clone_into(&mut setup.node));
    let said = daemon.try_start_again().expect_err("it is another node's");
    assert!(said.contains("ringpost.spool at byte 0: the spool of node"), "{said}");
    assert!(said.contains("this is node 9"), "{said}");
    assert_eq!(sum(&daemon), before, "nothing was overwritten");
    // And nothing of all this did it any harm.
    daemon.set(|setup| setup.node.clear());
    daemon.start_again();
    assert_eq!(daemon.ledger().queued, 3);
    assert!(daemon.stop().success());
}
