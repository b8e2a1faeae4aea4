//! What the tests start from: one image of this tree, built once, and variations of its UKI.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::daemon::programs::{Folder, program};

/// The keys whose certificate the firmware of the secure-boot guests knows.
const SNAKEOIL: &str = "/usr/share/ovmf/PkKek-1-snakeoil";

/// Runs `xtask image` with these words from the top of the tree.
pub(crate) fn xtask(words: &[&str]) -> Result<String, String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the tree");
    let target = program("xtask");
    let target = target.ancestors().nth(2).expect("target/release/xtask");
    let mut command = Command::new(program("xtask"));
    let output = command
        .arg("image")
        .args(words)
        .current_dir(top)
        .env("CARGO_TARGET_DIR", target)
        .output()
        .expect("xtask starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(said)
    } else {
        Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test folders have plain names")
}

/// A folder for what all tests share, one for each run of the tests.
fn shared() -> &'static Folder {
    static SHARED: OnceLock<Folder> = OnceLock::new();
    SHARED.get_or_init(|| Folder::new("image"))
}

/// The image of this tree with a version, signed with the key the test firmware knows.
pub(crate) fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let out = shared().path("out");
        let (key, certificate) = keys();
        let words = [
            "--version",
            "1.0.0",
            "--out",
            text(&out),
            "--key",
            text(&key),
            "--cert",
            &certificate,
        ];
        let said = xtask(&words).expect("the image builds");
        println!("{said}");
        out.join("ringpost-1.0.0.img")
    })
}

/// The programs that the image was built from.
pub(crate) fn programs() -> String {
    let built = program("xtask");
    let target = built.ancestors().nth(2).expect("target/release/xtask");
    let built = target.join("x86_64-unknown-linux-gnu/release");
    std::env::var("RINGPOST_IMAGE_PROGRAMS").unwrap_or_else(|_| text(&built).to_owned())
}

/// The snakeoil key without its password, and its certificate.
pub(crate) fn keys() -> (PathBuf, String) {
    let key = shared().path("snakeoil.key");
    let mut openssl = Command::new("openssl");
    openssl.args(["rsa", "-passin", "pass:snakeoil", "-in", &format!("{SNAKEOIL}.key"), "-out"]);
    let output = openssl.arg(&key).output().expect("openssl starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (key, format!("{SNAKEOIL}.pem"))
}

/// A UKI of another version, with these further words.
pub(crate) fn uki(folder: &Folder, version: &str, words: &[&str]) -> PathBuf {
    let to = folder.path(&format!("{version}.efi"));
    let (key, certificate) = keys();
    let mut all = vec!["uki", "--version", version, "--out", text(&to)];
    all.extend(["--key", text(&key), "--cert", &certificate]);
    image();
    let programs = programs();
    all.extend(["--programs", &programs]);
    all.extend(words);
    xtask(&all).expect("the UKI builds");
    to
}

/// A disk of 2 GiB with the image on it and these config files.
pub(crate) fn disk(folder: &Folder, files: &[(&str, &str)]) -> PathBuf {
    let disk = folder.path("disk.img");
    let output = Command::new("cp").arg("--sparse=always").arg(image()).arg(&disk).output();
    assert!(output.expect("cp starts").status.success(), "no room for a copy of the image");
    let file = std::fs::File::options().write(true).open(&disk).expect("the copy");
    file.set_len(2 << 30).expect("a sparse file grows");
    inject(folder, &disk, files);
    disk
}

/// Puts config files on a disk that is not running.
pub(crate) fn inject(folder: &Folder, disk: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = folder.path(name);
        std::fs::write(&path, content).expect("a file in the test's folder");
        xtask(&["inject", text(disk), text(&path)]).expect("the file is injected");
    }
}

const ESP_AT: &str = "@@1M";

/// Puts a file on the ESP.
pub(crate) fn put_on_esp(disk: &Path, from: &Path, to: &str) {
    let place = format!("{}{ESP_AT}", disk.display());
    let mut command = Command::new("mcopy");
    let output = command.args(["-o", "-i", &place]).arg(from).arg(format!("::{to}")).output();
    let output = output.expect("mcopy starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The versions on the ESP, by file name.
pub(crate) fn versions(disk: &Path) -> Vec<String> {
    let place = format!("{}{ESP_AT}", disk.display());
    let mut command = Command::new("mdir");
    let output = command.args(["-b", "-i", &place, "::EFI/Linux"]).output().expect("mdir starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut names: Vec<String> =
        said.lines().filter_map(|l| l.rsplit('/').next()).map(str::to_owned).collect();
    names.sort();
    names
}

/// The example config of the image, with another backend.
pub(crate) fn config(backend: std::net::SocketAddr) -> [(&'static str, String); 2] {
    let mail = include_str!("../../image/examples/mx.toml");
    let mail = mail.replace("port = 2600", &format!("port = {}", backend.port()));
    let mail = mail + "\n[retry]\nfirst_s = 1\nfactor = 1.0\nmax_s = 1\n";
    [("mx.toml", mail), ("machine.toml", include_str!("../../image/examples/machine.toml").into())]
}
