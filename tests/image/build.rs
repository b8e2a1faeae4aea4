//! What is built: twice the same bytes, small enough, signed, and described.

use std::path::Path;
use std::process::Command;

use super::stage;
use crate::daemon::programs::Folder;

const UKI_BYTES_MAX: u64 = 32 << 20;

#[test]
fn assembled_twice_the_image_is_the_same_to_the_last_octet() {
    let folder = Folder::new("image-twice");
    let first = stage::image();
    let out = folder.path("another/folder");
    let (key, certificate) = stage::keys();
    let key = key.display().to_string();
    let to = out.display().to_string();
    let programs = stage::programs();
    let mut words = vec!["--version", "1.0.0", "--out", &to, "--key", &key, "--cert", &certificate];
    words.extend(["--programs", &programs]);
    println!("{}", stage::xtask(&words).expect("the image builds again"));
    for end in ["img", "efi", "manifest"] {
        let [a, b] = [first.with_extension(end), out.join(format!("ringpost-1.0.0.{end}"))];
        let same = Command::new("cmp").args([&a, &b]).output().expect("cmp starts");
        assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
    }
}

#[test]
fn the_uki_is_small_and_signed_and_holds_no_shell() {
    let image = stage::image();
    let bytes = std::fs::metadata(image.with_extension("efi")).expect("built").len();
    println!("UKI: {} KiB", bytes >> 10);
    assert!(bytes <= UKI_BYTES_MAX, "{bytes} octets");
    let (_, certificate) = stage::keys();
    let verify = |certificate: &str, file: &Path| {
        let mut command = Command::new("sbverify");
        command.args(["--cert", certificate]).arg(file).output().expect("sbverify starts").status
    };
    assert!(verify(&certificate, &image.with_extension("efi")).success());
    let manifest = std::fs::read_to_string(image.with_extension("manifest")).expect("built");
    for line in ["version 1.0.0", "package linux-source-6.12 6.12", "rustc ", "file /init "] {
        assert!(manifest.lines().any(|l| l.starts_with(line)), "no {line}:\n{manifest}");
    }
    for shell in ["/bin/sh", "busybox", "/bin/bash", "/bin/dash"] {
        assert!(!manifest.contains(shell), "the release image has {shell}");
    }
}
