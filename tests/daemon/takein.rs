//! Two halves of a mirror that went on alone, each without the other: the mail of one is taken in
//! by the other, whose ids mean other messages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use spool::limits::RECORD_HEADER;
use spool::record::{RecordHeader, RecordKind};

use super::backend::{Backend, Manners};
use super::client::Client;
use super::mirror::{FILE, alarms, fill, mirrored, text};
use super::programs::{Daemon, Folder, Setup, sink};

/// A mirror on one core whose mail stays where it is: the next try is an hour away.
fn still(folder: &Folder, backend: SocketAddr) -> Setup {
    let mut setup = mirrored(folder, Setup::new(backend));
    setup.cores = 1;
    setup.retry = "first_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n".to_owned();
    setup
}

/// Messages with these subjects; their ids.
fn deliver(daemon: &Daemon, name: &str, count: usize, octets: usize) -> Vec<String> {
    let mut client = Client::greeted(daemon.address);
    let line = "0123456789012345678901234567890123456789012345678901234567890123456789\r\n";
    (0..count)
        .map(|n| {
            let content =
                format!("Subject: {name} {n}\r\n\r\n{}", line.repeat(octets / line.len()));
            client.deliver("sender@example.net", &["a@example.org", "b@example.org"], &content)
        })
        .collect()
}

/// How often each subject arrived, for each recipient of it, and with how many octets of body.
fn arrived(maildir: &Path) -> BTreeMap<String, (usize, usize)> {
    let mut all: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for entry in fs::read_dir(maildir.join("new")).expect("a Maildir").flatten() {
        let text = fs::read_to_string(entry.path()).expect("a message");
        let subject = text.lines().find_map(|line| line.strip_prefix("Subject: "));
        let body = text.split("\n\n").nth(1).map_or(0, str::len);
        let body = text.split("\r\n\r\n").nth(1).map_or(body, str::len);
        let seen = all.entry(subject.expect("a subject").to_owned()).or_default();
        *seen = (seen.0 + 1, body);
    }
    all
}

#[test]
fn the_mail_of_a_half_that_went_on_alone_is_taken_in_and_the_half_is_filled() {
    let folder = Folder::new("alone");
    let (first, second) = (folder.path("first").join(FILE), folder.path("second").join(FILE));
    let (address, maildir) = (Backend::nowhere(), folder.path("maildir"));
    let mut setup = still(&folder, address);
    let mut daemon = Daemon::start("alone-daemon", setup.clone());
    deliver(&daemon, "common", 3, 100);
    assert!(daemon.stop().success());

    // Each half without the other; the second one is cut off.
    let (left, right) = (folder.path("left"), folder.path("right"));
    fs::rename(&second, &right).expect("taken out");
    daemon.start_again();
    let left_ids = deliver(&daemon, "left", 5, 100);
    assert!(daemon.stop().success());
    fs::rename(&first, &left).expect("taken out");
    fs::rename(&right, &second).expect("put back");
    daemon.start_again();
    let mut right_ids = deliver(&daemon, "right", 4, 100);
    right_ids.extend(deliver(&daemon, "large", 1, 700_000));
    daemon.kill();
    let same: Vec<&String> = right_ids.iter().filter(|id| left_ids.contains(id)).collect();
    assert!(!same.is_empty(), "no id means two messages: {left_ids:?} {right_ids:?}");

    // Together again: one of them counts, the other one is left alone.
    fs::rename(&left, &first).expect("put back");
    daemon.start_again();
    assert!(alarms(&daemon).contains("spool take-in"), "{}", alarms(&daemon));
    let counts_left = alarms(&daemon).contains("device 1 of the spool is out");
    // Two recipients each; five of its own and the three from before on either side.
    let (queued, theirs) = (daemon.ledger().queued, 5);
    assert_eq!(queued, 2 * (3 + 5));
    let refused = fill(&daemon);
    assert!(!refused.status.success(), "{}", text(&refused));
    assert!(text(&refused).contains("went on alone"), "{}", text(&refused));
    let alien = if counts_left { &second } else { &first };
    let before = crc32c::crc32c(&fs::read(alien).expect("there"));
    let said = daemon.tool(&["spool", "take-in"]);
    let wanted = format!("{theirs} messages would be taken in");
    assert!(said.status.success() && text(&said).contains(&wanted), "{}", text(&said));
    assert!(text(&said).contains("3 stand here already"), "{}", text(&said));
    assert!(text(&said).contains("delivered twice"), "{}", text(&said));
    let clash = format!("({} of them because their id", same.len());
    assert!(text(&said).contains(&clash), "{} clash: {}", same.len(), text(&said));
    assert_eq!(crc32c::crc32c(&fs::read(alien).expect("there")), before, "it only looked");
    assert_eq!(daemon.ledger().queued, queued);

    let done = daemon.tool(&["spool", "take-in", "--yes"]);
    assert!(done.status.success(), "{}", text(&done));
    assert!(text(&done).contains("5 messages were taken in"), "{}", text(&done));
    assert!(text(&done).contains("being filled"), "{}", text(&done));
    assert_eq!(daemon.ledger().queued, queued + 2 * theirs);
    let line = daemon.line_with(&["of a half that went on alone is taken in as"]);
    let new = line.trim_end().rsplit(' ').next().expect("an id").to_owned();
    daemon.until("the line on disk", |daemon| {
        text(&daemon.tool(&["log", "grep", &new])).contains("is taken in as")
    });
    daemon.line_with(&["is filled and counts again"]);
    assert!(!alarms(&daemon).contains("of the spool is"), "{}", alarms(&daemon));
    let again = daemon.tool(&["spool", "take-in", "--yes"]);
    assert!(text(&again).contains("no half that went on alone is there"), "{}", text(&again));
    daemon.kill();

    // What was alone is all there is now.
    let other = if counts_left { &first } else { &second };
    fs::rename(other, folder.path("gone")).expect("taken out");
    setup.retry = "first_s = 0.1\nfactor = 1.0\nmax_s = 0.1\nexpire_s = 3600\n".to_owned();
    daemon.set(|s| *s = setup);
    daemon.start_again();
    let (_sink, _) = sink(&maildir, &address.to_string(), &[]);
    let all = daemon.tool(&["queue", "retry", "--all"]);
    assert!(all.status.success(), "{}", text(&all));
    daemon.until_empty();
    let arrived = arrived(&maildir);
    let names: Vec<&str> = arrived.keys().map(|s| s.split(' ').next().expect("a word")).collect();
    let count = |name: &str| names.iter().filter(|n| **n == name).count();
    assert_eq!((count("common"), count("left"), count("right"), count("large")), (3, 5, 4, 1));
    assert!(arrived.values().all(|(n, _)| *n == 1), "each once: {arrived:?}");
    assert!(arrived["large 0"].1 >= 699_000, "{arrived:?}");
    assert!(daemon.stop().success());
}

/// A message of the half that does not check: nothing is taken in, and the half stays as it is.
#[test]
fn a_half_with_an_unreadable_message_is_named_and_left_as_it_is() {
    let folder = Folder::new("alone-rot");
    let (first, second) = (folder.path("first").join(FILE), folder.path("second").join(FILE));
    let setup = still(&folder, Backend::nowhere());
    let mut daemon = Daemon::start("alone-rot-daemon", setup);
    assert!(daemon.stop().success());
    let aside = folder.path("aside");
    let alone = |daemon: &mut Daemon, (from, to): (&Path, &Path), name: &str| {
        fs::rename(from, to).expect("taken out");
        daemon.start_again();
        let ids = deliver(daemon, name, 2, 100);
        assert!(daemon.stop().success());
        fs::rename(to, from).expect("put back");
        ids
    };
    let left = alone(&mut daemon, (&second, &aside), "left");
    let right = alone(&mut daemon, (&first, &aside), "right");
    daemon.start_again();
    let counts_left = alarms(&daemon).contains("device 1 of the spool is out");
    let (alien, subject, ids) =
        if counts_left { (&second, "right 1", &right) } else { (&first, "left 1", &left) };
    super::mirror::rot(alien, format!("Subject: {subject}").as_bytes());
    let before = crc32c::crc32c(&fs::read(alien).expect("there"));
    let refused = daemon.tool(&["spool", "take-in", "--yes"]);
    assert!(!refused.status.success(), "{}", text(&refused));
    let wanted = format!("{} cannot be read: segment", ids[1]);
    assert!(text(&refused).contains(&wanted), "{}", text(&refused));
    assert!(text(&refused).contains("none was taken in"), "{}", text(&refused));
    assert_eq!(crc32c::crc32c(&fs::read(alien).expect("there")), before, "left as it is");
    assert_eq!(daemon.ledger().queued, 4);
    assert!(daemon.stop().success());
}

/// Two halves that went on alone, with so many messages of their own, and three of both; the daemon
/// runs with one of them. Where the other one is, and the name of its mail.
fn halves(folder: &Folder, daemon: &mut Daemon, count: usize) -> (PathBuf, &'static str) {
    let (first, second) = (folder.path("first").join(FILE), folder.path("second").join(FILE));
    deliver(daemon, "common", 3, 100);
    assert!(daemon.stop().success());
    let aside = folder.path("aside");
    for (gone, name) in [(&second, "left"), (&first, "right")] {
        fs::rename(gone, &aside).expect("taken out");
        daemon.start_again();
        deliver(daemon, name, count, 15_000);
        assert!(daemon.stop().success());
        fs::rename(&aside, gone).expect("put back");
    }
    daemon.start_again();
    assert!(alarms(daemon).contains("spool take-in"), "{}", alarms(daemon));
    let counts_left = alarms(daemon).contains("device 1 of the spool is out");
    if counts_left { (second, "right") } else { (first, "left") }
}

/// The ids that each subject arrived under: one that is delivered again keeps its id, one that was
/// taken in again has two.
fn ids_of_arrived(maildir: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in fs::read_dir(maildir.join("new")).expect("a Maildir").flatten() {
        let text = fs::read_to_string(entry.path()).expect("a message");
        let subject = text.lines().find_map(|line| line.strip_prefix("Subject: "));
        let id = text.lines().find_map(|line| line.trim().strip_prefix("id "));
        let id = id.expect("our Received line").split_whitespace().next().expect("an id");
        all.entry(subject.expect("a subject").to_owned()).or_default().insert(id.to_owned());
    }
    all
}

/// Starts the daemon with a place at which it falls over while it takes a half in, has it do so,
/// and starts it again without.
fn fall_at(daemon: &mut Daemon, place: &str) {
    assert!(daemon.stop().success());
    let environment = vec![("RINGPOST_TEST_TAKE_IN".to_owned(), place.to_owned())];
    daemon.set(|setup| setup.environment = environment);
    daemon.start_again();
    let said = daemon.tool(&["spool", "take-in", "--yes"]);
    assert!(!said.status.success(), "{}", text(&said));
    assert!(!daemon.wait().success(), "it did not fall at {place}");
    assert!(daemon.said().contains("RINGPOST_TEST_TAKE_IN"), "{}", daemon.said());
    daemon.set(|setup| setup.environment.clear());
    daemon.start_again();
    assert!(alarms(daemon).contains("spool take-in"), "it was through: {}", alarms(daemon));
}

/// Cut off in the middle, with part of what it took delivered already, and begun again.
#[test]
fn a_take_in_that_falls_and_is_begun_again_takes_nothing_twice() {
    const COUNT: usize = 200;
    let folder = Folder::new("alone-cut");
    let (address, maildir) = (Backend::nowhere(), folder.path("maildir"));
    let mut setup = mirrored(&folder, Setup::new(address));
    setup.retry = "first_s = 0.2\nfactor = 1.0\nmax_s = 0.2\nexpire_s = 3600\n".to_owned();
    let mut daemon = Daemon::start("alone-cut-daemon", setup);
    halves(&folder, &mut daemon, COUNT);
    let (_sink, _) = sink(&maildir, &address.to_string(), &[]);
    // The three of both are delivered here: they are taken in, too.
    daemon.until_empty();
    // Within the first group of 32, within the third, and between the fourth's note and release;
    // recipients held then. The second time 20 of the first group are known again.
    let mut arrived = 0;
    for (place, held) in [("message:20", 2 * 20), ("message:45", 2), ("note:2", 2 * 32)] {
        fall_at(&mut daemon, place);
        // What is released is delivered; the rest is held.
        daemon.until_empty();
        assert_eq!(daemon.ledger().held, held, "{place}");
        let now = ids_of_arrived(&maildir).len();
        assert!(now > arrived || place == "message:20", "{place}: {arrived}, {now}");
        arrived = now;
    }
    let said = text(&daemon.tool(&["spool", "take-in"]));
    assert!(said.contains(" were taken in before"), "{said}");
    let done = daemon.tool(&["spool", "take-in", "--yes"]);
    assert!(done.status.success(), "{}", text(&done));
    assert!(text(&done).contains(" were taken in before"), "{}", text(&done));
    daemon.until_empty();
    assert_eq!(daemon.ledger().held, 0, "something is held still");
    let all = ids_of_arrived(&maildir);
    let count = |name: &str| all.keys().filter(|s| s.starts_with(name)).count();
    assert_eq!((count("common"), count("left"), count("right")), (3, COUNT, COUNT));
    // The three of both wait on the half still, which does not know that they were delivered.
    let own = all.iter().filter(|(subject, _)| !subject.starts_with("common"));
    let twice: Vec<_> = own.filter(|(_, ids)| ids.len() > 1).collect();
    assert!(twice.is_empty(), "taken in twice: {twice:?}");
    assert!(daemon.stop().success());
}

/// One of two recipients was delivered on the half: what is left is known again although its
/// Received line names the one recipient now.
#[test]
fn what_the_half_settled_in_part_is_taken_in_once() {
    let folder = Folder::new("alone-part");
    let (first, second) = (folder.path("first").join(FILE), folder.path("second").join(FILE));
    let address = Backend::nowhere();
    let busy = ("RCPT TO:<B@", "450 4.2.1 later", 0);
    let backend = Backend::start_at(address, Manners { replies: vec![busy], ..Manners::default() });
    let setup = still(&folder, address);
    let mut daemon = Daemon::start("alone-part-daemon", setup);
    assert!(daemon.stop().success());
    let aside = folder.path("aside");
    for (gone, name) in [(&second, "left"), (&first, "right")] {
        fs::rename(gone, &aside).expect("taken out");
        daemon.start_again();
        deliver(&daemon, name, 3, 100);
        daemon.until("one of two", |daemon| daemon.ledger().queued == 3);
        assert!(daemon.stop().success());
        fs::rename(&aside, gone).expect("put back");
    }
    daemon.start_again();
    fall_at(&mut daemon, "message:2");
    assert_eq!((daemon.ledger().held, daemon.ledger().queued), (2, 3));
    let said = text(&daemon.tool(&["spool", "take-in"]));
    assert!(said.contains("1 messages would be") && said.contains("2 were taken in"), "{said}");
    let done = daemon.tool(&["spool", "take-in", "--yes"]);
    assert!(done.status.success(), "{}", text(&done));
    assert_eq!((daemon.ledger().held, daemon.ledger().queued), (0, 6));
    backend.set(Manners::default());
    let all = daemon.tool(&["queue", "retry", "--all"]);
    assert!(all.status.success(), "{}", text(&all));
    daemon.until_empty();
    let mut arrived: BTreeMap<(String, String), usize> = BTreeMap::new();
    for mail in backend.mails() {
        let text = mail.text();
        let subject = text.lines().find_map(|line| line.strip_prefix("Subject: "));
        for to in &mail.to {
            let key = (subject.expect("a subject").to_owned(), to.clone());
            *arrived.entry(key).or_default() += 1;
        }
    }
    assert_eq!(arrived.len(), 2 * 6, "{arrived:?}");
    assert!(arrived.values().all(|n| *n == 1), "each recipient once: {arrived:?}");
    assert!(daemon.stop().success());
}

/// The half that was taken in counts afterwards: it leaves alone what the other one has from it.
#[test]
fn what_the_other_side_took_in_is_not_taken_back() {
    let folder = Folder::new("alone-turned");
    let (first, second) = (folder.path("first").join(FILE), folder.path("second").join(FILE));
    let setup = still(&folder, Backend::nowhere());
    let mut daemon = Daemon::start("alone-turned-daemon", setup);
    let (alien, _) = halves(&folder, &mut daemon, 2);
    fall_at(&mut daemon, "message:2");
    let ours = if alien == first { &second } else { &first };
    let is_out = |daemon: &Daemon| {
        let number = usize::from(ours == &second);
        alarms(daemon).contains(&format!("device {number} of the spool is out"))
    };
    assert!(!is_out(&daemon));
    // Each start writes to it: it is the one that was written last in the end.
    assert!(daemon.stop().success());
    let aside = folder.path("aside");
    fs::rename(ours, &aside).expect("taken out");
    for _ in 0..12 {
        daemon.start_again();
        assert!(daemon.stop().success());
    }
    fs::rename(&aside, ours).expect("put back");
    daemon.start_again();
    assert!(is_out(&daemon), "{}", alarms(&daemon));
    let before = daemon.ledger().queued;
    assert_eq!(before, 2 * (3 + 2));
    let said = text(&daemon.tool(&["spool", "take-in"]));
    assert!(said.contains("2 messages would be") && said.contains("5 stand here"), "{said}");
    let done = daemon.tool(&["spool", "take-in", "--yes"]);
    assert!(done.status.success(), "{}", text(&done));
    assert_eq!((daemon.ledger().queued, daemon.ledger().held), (before + 2 * 2, 0));
    assert!(daemon.stop().success());
}

/// Before it is begun again the operator thaws what was held, and freezes what was released.
#[test]
fn what_the_operator_does_between_a_fall_and_the_next_take_in_counts() {
    let folder = Folder::new("alone-between");
    let setup = still(&folder, Backend::nowhere());
    let mut daemon = Daemon::start("alone-between-daemon", setup);
    halves(&folder, &mut daemon, 70);
    let (before, recipients) = (daemon.ledger().queued, 2);
    // Three stand here already, 29 and 32 are released, 4 are held.
    fall_at(&mut daemon, "message:65");
    assert_eq!(daemon.ledger().held, 4 * recipients);
    let list = text(&daemon.tool(&["queue", "list", "--held"]));
    let held = list.split_whitespace().find(|word| word.len() > 21).expect("an id").to_owned();
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("is taken in as")).expect("the first");
    let released = line.rsplit(' ').next().expect("an id").to_owned();
    for words in [["queue", "thaw", &held], ["queue", "freeze", &released]] {
        daemon.until("an act", |daemon| daemon.tool(&words).status.success());
    }
    assert_eq!(daemon.ledger().held, 4 * recipients, "one thawed, one frozen");
    let said = text(&daemon.tool(&["spool", "take-in"]));
    assert!(said.contains("5 messages would be") && said.contains("68 were taken in"), "{said}");
    let done = daemon.tool(&["spool", "take-in", "--yes"]);
    assert!(done.status.success(), "{}", text(&done));
    let books = daemon.ledger();
    assert_eq!(books.held, recipients, "the frozen one alone is held");
    assert_eq!(books.queued + books.held, before + 70 * recipients);
    let list = text(&daemon.tool(&["queue", "list", "--held"]));
    assert!(list.contains(&released), "{list}");
    assert!(daemon.stop().success());
}

/// What the operator had frozen on the half stays frozen; all else is released.
#[test]
fn what_is_held_on_the_half_stays_held() {
    let folder = Folder::new("alone-held");
    let (first, second) = (folder.path("first").join(FILE), folder.path("second").join(FILE));
    let setup = still(&folder, Backend::nowhere());
    let mut daemon = Daemon::start("alone-held-daemon", setup);
    assert!(daemon.stop().success());
    let aside = folder.path("aside");
    for gone in [&second, &first] {
        fs::rename(gone, &aside).expect("taken out");
        daemon.start_again();
        let ids = deliver(&daemon, "own", 2, 100);
        daemon.until("a freeze", |d| d.tool(&["queue", "freeze", &ids[0]]).status.success());
        assert!(daemon.stop().success());
        fs::rename(&aside, gone).expect("put back");
    }
    daemon.start_again();
    // Two recipients each: one of the two messages is held.
    assert_eq!((daemon.ledger().held, daemon.ledger().queued), (2, 2));
    let done = daemon.tool(&["spool", "take-in", "--yes"]);
    assert!(done.status.success(), "{}", text(&done));
    assert_eq!((daemon.ledger().held, daemon.ledger().queued), (4, 4));
    daemon.kill();
    daemon.start_again();
    assert_eq!((daemon.ledger().held, daemon.ledger().queued), (4, 4));
    let list = daemon.tool(&["queue", "list", "--held"]);
    let new = text(&list).split_whitespace().filter(|w| w.len() > 21).count();
    assert!(new >= 2, "{}", text(&list));
    assert!(daemon.stop().success());
}

/// Changes an octet of a message's body where it stands, and makes its checksum right again.
fn change(path: &Path, words: &[u8]) {
    let mut octets = fs::read(path).expect("a half of the spool");
    let at = octets.windows(words.len()).position(|w| w == words).expect("it stands there");
    let is_record = |start: &usize| {
        let header = RecordHeader::decode(&octets[*start..]);
        let Some(header) = header.filter(|h| h.kind == RecordKind::Message as u8) else {
            return false;
        };
        let end = start + RECORD_HEADER + usize::try_from(header.length).expect("small");
        end > at && octets.get(start + RECORD_HEADER..end).is_some_and(|b| header.covers(b))
    };
    let start = (0..=at).rev().filter(|n| n % 8 == 0).find(is_record);
    let start = start.expect("a record");
    let length = RecordHeader::decode(&octets[start..]).expect("just seen").length;
    let end = start + RECORD_HEADER + usize::try_from(length).expect("small");
    octets[at] ^= 0x20;
    let header = RecordHeader::of(RecordKind::Message, &octets[start + RECORD_HEADER..end]);
    let file = File::options().write(true).open(path).expect("ours");
    file.write_all_at(&octets[at..=at], at as u64).expect("written");
    file.write_all_at(&header.to_bytes(), start as u64).expect("written");
}

/// One id, one time, one size, one sender, and another octet: another message.
#[test]
fn a_message_that_differs_in_one_octet_is_not_the_same() {
    let folder = Folder::new("alone-octet");
    let setup = still(&folder, Backend::nowhere());
    let mut daemon = Daemon::start("alone-octet-daemon", setup);
    let (alien, _) = halves(&folder, &mut daemon, 1);
    let said = text(&daemon.tool(&["spool", "take-in"]));
    assert!(said.contains("1 messages would be") && said.contains("3 stand here"), "{said}");
    change(&alien, b"Subject: common 1");
    let said = text(&daemon.tool(&["spool", "take-in"]));
    assert!(said.contains("2 messages would be") && said.contains("2 stand here"), "{said}");
    let done = text(&daemon.tool(&["spool", "take-in", "--yes"]));
    assert!(done.contains("2 messages were taken in"), "{done}");
    assert_eq!(daemon.ledger().queued, 2 * (3 + 1 + 2));
    assert!(daemon.stop().success());
}
