//! Another version while the machine runs: what is refused, what is tried, what comes back.

use std::path::Path;

use super::guest::{Guest, Start};
use super::stage;
use crate::daemon::backend::Backend;
use crate::daemon::programs::Folder;

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
    // The check itself is no dead end: the good one is taken.
    let (said, fine) = upgrade(&mut guest, web, "ringpost-1.1.0.manifest", "--later");
    assert!(fine, "{said}");
    guest.power_off();
    assert_eq!(stage::versions(&disk), ["ringpost_1.0.0.efi", "ringpost_1.1.0+3.efi"]);
}
