//! Another version while the machine runs: what is refused, what is tried, what comes back.

use std::path::Path;

use super::guest::{Guest, Start};
use super::load::until_acked;
use super::stage;
use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::Folder;

/// Messages that wait when the older version comes back, and the sessions that bring them.
const QUEUED: usize = 1000;
const SESSIONS: usize = 16;
/// Further words: not as root to init, but through the daemon.
const BY_SOCKET: &str = "--socket /run/ringpost/admin.sock";

fn disk(folder: &Folder, backend: std::net::SocketAddr, machine: &str) -> std::path::PathBuf {
    let [mail, (name, text)] = stage::config(backend);
    let disk = stage::disk(folder, &[(mail.0, &mail.1), (name, &(machine.to_owned() + &text))]);
    // The running version has a shell, through which an operator speaks.
    stage::put_on_esp(&disk, stage::debug(), "EFI/Linux/ringpost_1.0.0.efi");
    disk
}

/// What `ringpost upgrade` says to a manifest on a web server.
fn upgrade(
    guest: &mut Guest,
    web: std::net::SocketAddr,
    name: &str,
    words: &str,
) -> (String, bool) {
    guest.shell(&format!("ringpost upgrade http://10.0.2.2:{}/{name} {words}", web.port()))
}

#[test]
fn from_a_server_tried_blessed_and_taken_back() {
    let folder = Folder::new("upgrade");
    let address = Backend::nowhere();
    let disk = disk(&folder, address, "");
    let releases = folder.path("releases");
    stage::release(&releases, "1.1.0", &["--debug"]);
    stage::release(&releases, "1.0.0", &["--debug"]);
    for version in ["1.1.0", "1.0.0"] {
        for end in ["manifest", "manifest.sig", "efi"] {
            let from = releases.join(format!("ringpost-{version}-debug.{end}"));
            let to = releases.join(format!("ringpost-{version}.{end}"));
            std::fs::rename(from, to).expect("built");
        }
    }
    let web = stage::web(&releases);
    let mut guest = Guest::start(&folder, &disk, Start::SecureBoot, &[]);
    guest.wait_for("taking mail");
    let kept = "Subject: kept\r\n\r\nthrough two upgrades\r\n";
    Client::greeted(guest.mail).deliver("a@example.net", &["b@example.org"], kept);
    let (said, fine) = upgrade(&mut guest, web, "ringpost-1.1.0.manifest", BY_SOCKET);
    assert!(fine && said.contains("1.1.0 is written; draining"), "{said}");
    guest.wait_for("Ringpost 1.1.0");
    guest.wait_for("under trial: EFI/Linux/ringpost_1.1.0+2-1.efi");
    guest.wait_for("blessed: EFI/Linux/ringpost_1.1.0.efi");
    let (said, fine) = upgrade(&mut guest, web, "ringpost-1.0.0.manifest", "");
    assert!(!fine && said.contains("--downgrade"), "{said}");
    let backend = Backend::start_at(address, Manners::default());
    assert!(upgrade(&mut guest, web, "ringpost-1.0.0.manifest", "--downgrade").1);
    guest.wait_for("Ringpost 1.0.0");
    guest.wait_for("blessed: EFI/Linux/ringpost_1.0.0.efi");
    let mails = backend.wait_for(1);
    assert!(mails[0].text().contains("through two upgrades"));
    guest.power_off();
    assert_eq!(stage::versions(&disk), ["ringpost_1.0.0.efi"]);
}

#[test]
fn what_is_not_ours_whole_newer_and_for_this_machine_is_refused() {
    let folder = Folder::new("upgrade-refused");
    let disk = disk(&folder, Backend::nowhere(), "");
    let releases = folder.path("releases");
    let manifest = stage::release(&releases, "1.1.0", &[]);
    let web = stage::web(&releases);
    let read = |end: &str| std::fs::read(manifest.with_extension(end)).expect("built");
    let variant = |name: &str, end: &str, content: &[u8]| {
        std::fs::write(releases.join(format!("{name}.{end}")), content).expect("written");
    };
    let (text, signature, uki) = (read("manifest"), read("manifest.sig"), read("efi"));
    let string = String::from_utf8(text.clone()).expect("a text");
    let resigned = |name: &str, text: &str, key: &Path| {
        variant(name, "manifest", text.as_bytes());
        variant(name, "efi", &uki);
        let path = releases.join(format!("{name}.manifest"));
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(["dgst", "-sha256", "-sign"]).arg(key).arg("-out");
        openssl.arg(path.with_extension("manifest.sig")).arg(&path);
        assert!(openssl.output().expect("openssl starts").status.success());
    };
    let ours = stage::keys().0;
    let alien = folder.path("alien.key");
    let mut openssl = std::process::Command::new("openssl");
    assert!(
        openssl.args(["genrsa", "-out"]).arg(&alien).output().expect("starts").status.success()
    );
    // Each with what the operator must be told.
    resigned("alien", &string, &alien);
    resigned("elsewhere", &string.replace("ringpost-x86_64", "ringpost-arm64"), &ours);
    resigned("same", &string.replace("version 1.1.0", "version 1.0.0"), &ours);
    resigned("older", &string.replace("version 1.1.0", "version 0.9.0"), &ours);
    variant("cut", "manifest", &text);
    variant("cut", "manifest.sig", &signature);
    variant("cut", "efi", &uki[..uki.len() / 2]);
    variant("changed", "manifest", &text);
    variant("changed", "manifest.sig", &signature);
    let mut changed = uki.clone();
    changed[uki.len() / 2] ^= 1;
    variant("changed", "efi", &changed);
    variant("unsigned", "manifest", &text);
    let cases = [
        ("alien", "not of our key"),
        ("elsewhere", "ringpost-arm64"),
        ("same", "what runs here"),
        ("older", "--downgrade"),
        ("cut", "not what the manifest"),
        ("changed", "not what the manifest"),
        ("unsigned", "404"),
        ("absent", "404"),
    ];
    let mut guest = Guest::start(&folder, &disk, Start::Debug, &[]);
    guest.wait_for("taking mail");
    for (name, expected) in cases {
        let (said, fine) = upgrade(&mut guest, web, &format!("{name}.manifest"), "");
        assert!(!fine && said.contains(expected), "{name}: no {expected:?} in:\n{said}");
    }
    // Nor does the daemon's word change what is ours.
    for (name, expected) in &cases[..2] {
        let (said, fine) = upgrade(&mut guest, web, &format!("{name}.manifest"), BY_SOCKET);
        assert!(!fine && said.contains(expected), "{name}: no {expected:?} in:\n{said}");
    }
    // The check itself is no dead end: the good one is taken.
    let (said, fine) = upgrade(&mut guest, web, "ringpost-1.1.0.manifest", "--later");
    assert!(fine, "{said}");
    guest.power_off();
    assert_eq!(stage::versions(&disk), ["ringpost_1.0.0.efi", "ringpost_1.1.0+3.efi"]);
}

#[test]
fn a_newer_version_that_is_left_hands_its_queue_back() {
    let folder = Folder::new("upgrade-back");
    let address = Backend::nowhere();
    // Nobody answers there: no version under trial is ever healthy.
    let disk = disk(&folder, address, "health = \"127.0.0.1:2\"\n");
    let uki = stage::uki(&folder, "1.1.0", &[]);
    stage::put_on_esp(&disk, &uki, "EFI/Linux/ringpost_1.1.0+1.efi");
    let mut guest = Guest::start(&folder, &disk, Start::Firmware, &[]);
    guest.wait_for("Ringpost 1.1.0");
    guest.wait_for("taking mail");
    let acked = until_acked(guest.mail, &[], SESSIONS, QUEUED);
    guest.wait_for("this version does not work here: leaving it");
    guest.wait_for("Ringpost 1.0.0");
    // Only now is there somebody to take them: whatever arrives, the older version has passed on.
    let backend = Backend::start_at(address, Manners::default());
    guest.wait_for("taking mail");
    let mails = backend.wait_for(acked.len());
    let all: Vec<String> = mails.iter().map(|mail| mail.text()).collect();
    for one in &acked {
        let content = String::from_utf8_lossy(&one.content);
        assert!(all.iter().any(|text| text.ends_with(&*content)), "{} is lost", one.id);
    }
    println!("{} messages of 1.1.0 passed on by 1.0.0", acked.len());
    guest.power_off();
    assert_eq!(stage::versions(&disk), ["ringpost_1.0.0.efi", "ringpost_1.1.0+0-1.efi"]);
}
