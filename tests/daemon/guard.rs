//! Block devices as places of the spool, and the guard before them: what bears something else is
//! refused, named and left as it is. Needs root and loop devices.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::backend::{Backend, Manners};
use super::client::Client;
use super::programs::{Daemon, Folder, Setup, load};

pub(super) const MIB: u64 = 1 << 20;

/// A loop device over a file of ours; detached by its name when dropped.
pub(super) struct Loop {
    pub(super) device: String,
    pub(super) file: PathBuf,
    folder: Folder,
}

impl Loop {
    /// Needs root, as `./x test` does.
    pub(super) fn new(name: &str, bytes: u64) -> Self {
        let folder = Folder::new(name);
        let file = folder.path("disk");
        File::create(&file).and_then(|made| made.set_len(bytes)).expect("a file of ours");
        Self::over(folder, file)
    }

    pub(super) fn over(folder: Folder, file: PathBuf) -> Self {
        let output = Command::new("losetup")
            .args(["--find", "--show", "--direct-io=on"])
            .arg(&file)
            .output()
            .expect("losetup runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Self { device, file, folder }
    }

    pub(super) fn serial(&self) -> String {
        self.file.display().to_string()
    }

    fn setup(&self, backend: std::net::SocketAddr, more: &str) -> Setup {
        let mut setup = Setup::new(backend);
        setup.cores = 1;
        setup.segments = 4;
        setup.place = Some(self.device.clone());
        setup.spool = more.to_owned();
        setup
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
    }
}

pub(super) fn sum(path: &Path) -> u32 {
    crc32c::crc32c(&fs::read(path).expect("readable"))
}

pub(super) fn run(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Marks of what has no tool here: offset and octets.
pub(super) fn mark(file: &Path, offset: u64, octets: &[u8]) {
    let file = File::options().write(true).open(file).expect("ours");
    file.write_all_at(octets, offset).expect("written");
}

#[test]
fn a_device_that_bears_something_else_is_refused_and_left_alone() {
    let bytes = 320 * MIB;
    let disk = Loop::new("alien", bytes);
    let kinds: [(&str, u64, &dyn Fn()); 6] = [
        ("an ext2, ext3 or ext4 file system", 1080, &|| {
            run("mkfs.ext4", &["-q", "-F", &disk.device]);
        }),
        ("an XFS file system", 0, &|| mark(&disk.file, 0, b"XFSB")),
        ("swap space", 4086, &|| run("mkswap", &[&disk.device])),
        ("a GPT partition table", 512, &|| mark(&disk.file, 512, b"EFI PART")),
        ("a LUKS container", 0, &|| mark(&disk.file, 0, b"LUKS\xba\xbe\x00\x02")),
        ("something unknown", 777_777, &|| mark(&disk.file, 777_777, b"?")),
    ];
    for (what, offset, make) in kinds {
        let file = File::options().write(true).open(&disk.file).expect("ours");
        file.set_len(0).and_then(|()| file.set_len(bytes)).expect("blank again");
        run("blockdev", &["--flushbufs", &disk.device]);
        make();
        run("sync", &[]);
        run("blockdev", &["--flushbufs", &disk.device]);
        let before = sum(&disk.file);
        let said = Daemon::refusal("alien", &disk.setup(Backend::nowhere(), ""));
        let place = format!("{} at byte {offset}: bears {what}; nothing was changed", disk.device);
        assert!(said.contains(&place), "{said}");
        let advice = format!("take_serials = [\"{}\"]", disk.serial());
        assert!(said.contains(&advice), "{said}");
        // Another's serial number is not this one's.
        let other = disk.setup(Backend::nowhere(), "take_serials = [\"WD-1234\"]\n");
        assert!(Daemon::refusal("alien-other", &other).contains("nothing was changed"));
        assert_eq!(sum(&disk.file), before, "{what}: not an octet was changed");
    }
    // Named by its serial number it is taken; from then on it is ours and nothing is erased.
    let backend = Backend::start(Manners::default());
    let named = format!("take_serials = [\"{}\"]\n", disk.serial());
    let mut daemon = Daemon::start("taken", disk.setup(backend.address, &named));
    daemon.line_with(&["erased something unknown"]);
    let mut client = Client::greeted(daemon.address);
    client.deliver("a@example.net", &["b@example.org"], "Subject: taken\r\n\r\n");
    backend.wait_for(1);
    assert!(daemon.stop().success());
    daemon.start_again();
    assert_eq!(daemon.log().matches("erased").count(), 1);
    assert_eq!(daemon.ledger().accepted, 1);
    assert!(daemon.stop().success());
}

#[test]
fn a_device_that_is_mounted_is_refused() {
    let disk = Loop::new("mounted", 64 * MIB);
    run("mkfs.ext4", &["-q", "-F", &disk.device]);
    let at = disk.folder.path("at");
    fs::create_dir(&at).expect("a folder of ours");
    let at = at.display().to_string();
    run("mount", &[&disk.device, &at]);
    let named = format!("take_serials = [\"{}\"]\n", disk.serial());
    let said = Daemon::refusal("mounted", &disk.setup(Backend::nowhere(), &named));
    run("umount", &[&at]);
    assert!(said.contains("the system uses this device: it is mounted"), "{said}");
}

#[test]
fn a_raw_device_takes_mail_and_keeps_it_over_kills() {
    let disk = Loop::new("raw", 320 * MIB);
    let folder = Folder::new("raw-list");
    let address = Backend::nowhere();
    let mut daemon = Daemon::start("raw", disk.setup(address, ""));
    let list = folder.path("acked");
    let words = ["--total", "1000000", "--sessions", "32", "--size", "4k"];
    let mut source = load(daemon.address, &list, &words);
    while fs::metadata(&list).map_or(0, |file| file.len()) < 1000 * 21 {
        assert!(source.try_wait().expect("ours").is_none(), "the source ended");
        std::thread::yield_now();
    }
    daemon.kill();
    source.wait().expect("it ends");
    let acked = fs::read_to_string(&list).expect("a list").lines().count() as u64;
    daemon.start_again();
    let queued = daemon.ledger().queued;
    assert!(acked >= 1000 && queued >= acked, "{queued} queued, {acked} acknowledged");
    daemon.kill();
    // Who looks from outside finds the same.
    let list = daemon.tool(&["--json", "spool", "list", &disk.device]);
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).expect("JSON");
    let listed = list["with"]["messages"].as_array().map_or(0, Vec::len) as u64;
    assert_eq!(listed, queued);
    daemon.start_again();
    assert_eq!(daemon.ledger().queued, queued);
    let maildir = folder.path("maildir");
    let (_sink, _) = super::programs::sink(&maildir, &address.to_string(), &[]);
    daemon.until_empty();
    assert_eq!(daemon.ledger().delivered, queued);
    assert!(daemon.stop().success());
}
