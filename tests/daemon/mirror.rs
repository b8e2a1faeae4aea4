//! A mirrored spool under the real daemon: a half that fails under load, is replaced, filled and
//! becomes the only one, at a start and while it runs; octets that rot.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::backend::Backend;
use super::client::Client;
use super::programs::{Daemon, Folder, Running, Setup, load, sink};

pub(super) const FILE: &str = "ringpost.spool";

/// Two places in the folder, the first and the second half.
pub(super) fn mirrored(folder: &Folder, mut setup: Setup) -> Setup {
    let at = |name: &str| folder.path(name).display().to_string();
    setup.place = Some(format!("{}\", \"{}", at("first"), at("second")));
    setup.spool = "mirror = true\nlone_member = true\n".to_owned();
    setup
}

/// A file in memory that can be made to fail: once sealed, each write says EPERM.
pub(crate) struct Failing(OwnedFd);

impl Failing {
    /// Takes the place of that file, with its content.
    pub(crate) fn instead_of(path: &Path) -> Self {
        let fd = memfd_create(c"spool", MFdFlags::MFD_ALLOW_SEALING).expect("memory");
        let file = File::from(fd);
        let mut from = File::open(path).expect("a half of the spool");
        std::io::copy(&mut from, &mut &file).expect("memory");
        let all = Self(file.into());
        fs::remove_file(path).expect("ours");
        symlink(all.path(), path).expect("ours");
        all
    }

    /// Blank, of that size.
    pub(crate) fn blank(octets: u64) -> Self {
        let fd = memfd_create(c"spool", MFdFlags::MFD_ALLOW_SEALING).expect("memory");
        let file = File::from(fd);
        file.set_len(octets).expect("memory");
        Self(file.into())
    }

    /// Where others find it while this process lives.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }

    /// Before Linux 6.6 memory takes no `O_DIRECT`.
    pub(crate) fn durability(path: &Path) -> &'static str {
        let mut options = OpenOptions::new();
        match options.read(true).custom_flags(nix::libc::O_DIRECT).open(path) {
            Ok(_) => "",
            Err(_) => "durability = \"none\"\n",
        }
    }

    pub(crate) fn fail(&self) {
        fcntl(&self.0, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).expect("sealed");
    }
}

pub(super) fn acked(list: &Path) -> HashSet<String> {
    fs::read_to_string(list).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn arrived(maildir: &Path) -> HashSet<String> {
    let entries = fs::read_dir(maildir.join("new")).into_iter().flatten().flatten();
    let id = |path: PathBuf| {
        let text = String::from_utf8_lossy(&fs::read(path).ok()?).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("X-Mxbench-Id: "))?;
        Some(line.trim().to_owned())
    };
    entries.filter_map(|entry| id(entry.path())).collect()
}

pub(super) fn alarms(daemon: &Daemon) -> String {
    daemon.ask(&["status"])["alarms"].to_string()
}

/// Mail from many sessions, of which each message is acknowledged, while `during` happens.
pub(super) fn loaded(
    daemon: &mut Daemon,
    list: &Path,
    total: usize,
    during: impl FnOnce(&mut Daemon),
) {
    let words = ["--total", &total.to_string(), "--sessions", "32", "--size", "4k"];
    let mut source = Running(load(daemon.address, list, &words));
    // The list has 21 octets a message and comes in pieces of 8 KiB.
    daemon.until("the load", |_| fs::metadata(list).is_ok_and(|list| list.len() > 8 << 10));
    during(daemon);
    source.0.wait().expect("it ends");
}

/// The next hop is there at last: each message that was acknowledged reaches it.
pub(super) fn nothing_is_lost(
    daemon: &mut Daemon,
    all: &HashSet<String>,
    hop: SocketAddr,
    maildir: &Path,
) {
    assert!(daemon.ledger().queued >= all.len() as u64, "{} acknowledged", all.len());
    let (_sink, _) = sink(maildir, &hop.to_string(), &[]);
    daemon.until_empty();
    let arrived = arrived(maildir);
    let lost: Vec<&String> = all.difference(&arrived).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), all.len());
    println!("{} acknowledged, {} arrived, none lost", all.len(), arrived.len());
    assert!(daemon.stop().success());
}

#[test]
fn a_half_fails_under_load_is_replaced_and_is_then_all_there_is() {
    let folder = Folder::new("mirror");
    let (first, second) = (folder.path("first").join(FILE), folder.path("second").join(FILE));
    let (address, maildir) = (Backend::nowhere(), folder.path("maildir"));
    let mut setup = mirrored(&folder, Setup::new(address));
    let mut daemon = Daemon::start("mirror-daemon", setup.clone());
    assert!(daemon.stop().success());
    let half = Failing::instead_of(&second);
    setup.spool.push_str(Failing::durability(&second));
    daemon.set(|s| *s = setup.clone());
    daemon.start_again();

    // It fails: alarm, and mail goes on.
    let list = folder.path("acked-failing");
    loaded(&mut daemon, &list, 3000, |_| half.fail());
    let mut all = acked(&list);
    assert!(all.len() > 2900, "mail stopped: {} of 3000", all.len());
    daemon.line_with(&["ALARM", "device 1 is out: mail goes on without it"]);
    assert!(alarms(&daemon).contains("device 1 of the spool is out"), "{}", alarms(&daemon));
    daemon.kill();
    // Dead as it is, it is in nobody's way.
    daemon.start_again();
    assert!(daemon.ledger().queued >= all.len() as u64, "{} acknowledged", all.len());
    assert!(alarms(&daemon).contains("device 1 of the spool is out"), "{}", alarms(&daemon));
    assert!(daemon.log().contains("it cannot be filled"), "{}", daemon.log());
    daemon.kill();

    // A new one in its place is filled while mail comes.
    fs::remove_file(&second).expect("the old one is taken out");
    drop(half);
    File::create(&second).expect("an empty file asks for a blank half");
    daemon.start_again();
    let list = folder.path("acked-filling");
    let mut progress = false;
    loaded(&mut daemon, &list, 1000, |daemon| {
        daemon.until("a full half", |daemon| {
            progress |= alarms(daemon).contains("segments are copied");
            daemon.log().contains("device 1 is filled and counts again")
        });
    });
    assert!(progress, "the progress of filling was never to be seen");
    assert!(!alarms(&daemon).contains("device 1"), "{}", alarms(&daemon));
    all.extend(acked(&list));
    daemon.kill();

    // The other one goes: all mail is on the new one.
    fs::rename(&first, folder.path("taken-out")).expect("taken out");
    daemon.start_again();
    assert!(alarms(&daemon).contains("device 0 of the spool is out"), "{}", alarms(&daemon));
    nothing_is_lost(&mut daemon, &all, address, &maildir);
}

/// The operator says that a device is there again.
pub(super) fn fill(daemon: &Daemon) -> Output {
    daemon.tool(&["spool", "fill"])
}

#[test]
fn a_half_that_failed_is_replaced_and_filled_while_the_daemon_runs() {
    let folder = Folder::new("refill");
    let (first, second) = (folder.path("first").join(FILE), folder.path("second").join(FILE));
    let (address, maildir) = (Backend::nowhere(), folder.path("maildir"));
    let mut setup = mirrored(&folder, Setup::new(address));
    // Nothing leaves the log: a quick machine has taken more than 8,000 messages by then.
    setup.segments = 16;
    let mut daemon = Daemon::start("refill-daemon", setup.clone());
    assert!(daemon.stop().success());
    let half = Failing::instead_of(&second);
    setup.spool.push_str(Failing::durability(&second));
    // The half that fails is memory of this process, which no sandbox lets a daemon look up.
    setup.node.push_str("sandbox = \"off\"\n");
    daemon.set(|s| *s = setup.clone());
    daemon.start_again();
    let none = fill(&daemon);
    assert!(text(&none).contains("no device came back"), "{}", text(&none));
    let list = folder.path("acked-failing");
    loaded(&mut daemon, &list, 1500, |_| half.fail());
    let mut all = acked(&list);
    daemon.line_with(&["ALARM", "device 1 is out: mail goes on without it"]);

    // What cannot be written is not taken in; neither is what is not ours.
    let refused = fill(&daemon);
    assert!(!refused.status.success() && text(&refused).contains("second"), "{}", text(&refused));
    fs::remove_file(&second).expect("the old one is taken out");
    fs::write(&second, vec![0x5a; 1 << 20]).expect("ours");
    let refused = fill(&daemon);
    assert!(text(&refused).contains("not a spool"), "{}", text(&refused));
    assert!(fs::read(&second).expect("there").iter().all(|octet| *octet == 0x5a));
    assert!(alarms(&daemon).contains("device 1 of the spool is out"), "{}", alarms(&daemon));

    // A new one in its place, while mail comes; cut off while it is filled.
    File::create(&second).expect("an empty file asks for a blank half");
    let list = folder.path("acked-cut");
    let words = ["--total", "100000", "--sessions", "32", "--size", "4k"];
    let mut source = Running(load(daemon.address, &list, &words));
    daemon.until("the load", |_| fs::metadata(&list).is_ok_and(|list| list.len() > 8 << 10));
    let begun = fill(&daemon);
    assert!(begun.status.success() && text(&begun).contains("being filled"), "{}", text(&begun));
    daemon.until("mail after that", |_| fs::metadata(&list).is_ok_and(|l| l.len() > 16 << 10));
    daemon.kill();
    source.0.wait().expect("it ends");
    all.extend(acked(&list));
    drop(half);

    // The start fills it; it is taken out once more, comes back as it is, and is filled again.
    setup.node = String::new();
    daemon.set(|s| *s = setup.clone());
    daemon.start_again();
    daemon.line_with(&["device 1 is filled and counts again"]);
    assert!(daemon.ledger().queued >= all.len() as u64, "{} acknowledged", all.len());
    assert!(daemon.stop().success());
    let aside = folder.path("aside");
    fs::rename(&second, &aside).expect("taken out");
    daemon.start_again();
    assert!(alarms(&daemon).contains("device 1 of the spool is out"), "{}", alarms(&daemon));
    let list = folder.path("acked-back");
    let counts = |daemon: &Daemon| daemon.log().matches("device 1 is filled and counts").count();
    let before = counts(&daemon);
    loaded(&mut daemon, &list, 1500, |daemon| {
        fs::rename(&aside, &second).expect("put back");
        let begun = fill(daemon);
        assert!(begun.status.success(), "{}", text(&begun));
        daemon.until("a full half", |daemon| counts(daemon) > before);
    });
    assert!(!alarms(&daemon).contains("device 1"), "{}", alarms(&daemon));
    all.extend(acked(&list));
    daemon.kill();

    // The other one goes: all mail is on this one.
    fs::rename(&first, folder.path("taken-out")).expect("taken out");
    daemon.start_again();
    nothing_is_lost(&mut daemon, &all, address, &maildir);
}

pub(super) fn text(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&all).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Flips an octet of those words where they stand first in the file.
pub(super) fn rot(path: &Path, words: &[u8]) {
    let octets = fs::read(path).expect("a half of the spool");
    let at = octets.windows(words.len()).position(|w| w == words).expect("it stands there");
    let file = File::options().write(true).open(path).expect("ours");
    file.write_all_at(&[octets[at] ^ 0x20], at as u64).expect("written");
}

#[test]
fn what_rots_on_one_half_is_healed_from_the_other_and_on_both_is_told() {
    let folder = Folder::new("rot");
    let places: Vec<PathBuf> = ["first", "second"].iter().map(|n| folder.path(n)).collect();
    let half = |n: usize| places[n].join(FILE);
    let mut setup = mirrored(&folder, Setup::new(Backend::nowhere()));
    // Small: it is searched through.
    (setup.cores, setup.segments) = (1, 6);
    setup.retry = "first_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n".to_owned();
    let mut daemon = Daemon::start("rot-daemon", setup);
    let names: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
    let spool = |daemon: &Daemon, words: &[&str]| {
        daemon.tool(&[&["spool"], words, &[names[0].as_str(), names[1].as_str()]].concat())
    };
    let mut client = Client::greeted(daemon.address);
    let ids: Vec<String> = (0..3)
        .map(|n| {
            let content = format!("Subject: kept {n}\r\n\r\nthis is body {n}\r\n");
            client.deliver("sender@example.net", &["a@example.org"], &content)
        })
        .collect();

    // Cut off, so that a start reads it: the first batch is covered by the later ones.
    daemon.kill();
    rot(&half(1), b"this is body 0");
    daemon.start_again();
    let alarm = daemon.line_with(&["ALARM", "written again from the other copy"]);
    assert!(alarm.contains("second"), "{alarm}");
    assert_eq!(daemon.ledger().queued, 3);
    // In a segment that is sealed at the end.
    let content = "Subject: sealed\r\n\r\nthis is a sealed body\r\n";
    let sealed =
        Client::greeted(daemon.address).deliver("s@example.net", &["a@example.org"], content);
    assert!(daemon.stop().success());
    assert_eq!(text(&spool(&daemon, &["verify"])).matches("a batch").count(), 0);

    // No start looks there.
    rot(&half(0), b"this is a sealed body");
    daemon.start_again();
    let shown = daemon.tool(&["queue", "show", &sealed]);
    assert!(shown.status.success(), "{}", text(&shown));
    daemon.line_with(&["ALARM", "device 0", "does not check; the other copy does"]);
    assert!(daemon.stop().success());
    let said = spool(&daemon, &["verify"]);
    assert!(!said.status.success(), "{}", text(&said));
    let name = format!("{} at byte", half(0).display());
    assert!(text(&said).contains(&name), "{}", text(&said));
    assert!(text(&said).contains("checks on the other copy"), "{}", text(&said));
    let done = spool(&daemon, &["repair", "--yes"]);
    assert!(text(&done).contains("healed: ") && done.status.success(), "{}", text(&done));
    let said = spool(&daemon, &["verify"]);
    assert!(said.status.success() && text(&said).contains("0 places"), "{}", text(&said));
    assert!(fs::read(half(0)).expect("there").windows(12).any(|w| w == b"sealed body\r"));

    // On both: told, kept, and the other mail goes on.
    rot(&half(0), b"this is a sealed body");
    rot(&half(1), b"this is a sealed body");
    let said = spool(&daemon, &["verify"]);
    assert!(!said.status.success() && text(&said).contains("2 places"), "{}", text(&said));
    assert!(!text(&said).contains("checks on the other copy"), "{}", text(&said));
    let done = spool(&daemon, &["repair", "--yes"]);
    assert!(!done.status.success(), "{}", text(&done));
    let shown = daemon.tool(&["spool", "show", &ids[1], &names[0], &names[1]]);
    assert!(shown.status.success(), "{}", text(&shown));
    daemon.start_again();
    assert_eq!(daemon.ledger().queued, 4);
    let shown = daemon.tool(&["queue", "show", &sealed]);
    assert!(!shown.status.success(), "{}", text(&shown));
    daemon.line_with(&["ALARM", "is unreadable"]);
    assert!(daemon.stop().success());
}
