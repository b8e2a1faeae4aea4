//! What the tests start from: one image of this tree, built once, and variations of its UKI.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::daemon::programs::{Folder, program};

/// A version as it is released: UKI, manifest, signature, in this folder. Returns the manifest.
pub(crate) fn release(out: &Path, version: &str, words: &[&str]) -> PathBuf {
    let (key, certificate) = keys();
    let mut all = vec!["--fast", "--version", version, "--out", text(out)];
    all.extend(["--key", text(&key), "--cert", &certificate]);
    image();
    let programs = programs();
    all.extend(["--programs", &programs]);
    all.extend(words);
    xtask(&all).expect("the release builds");
    out.join(format!("ringpost-{version}.manifest"))
}

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

/// What outlives a clone.
pub(crate) fn cache() -> PathBuf {
    let home = || Path::new(&std::env::var_os("HOME").expect("a home")).join(".cache/ringpost");
    std::env::var_os("RINGPOST_CACHE").map_or_else(home, PathBuf::from)
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
        // One that was built before with these keys, for those who work on these tests.
        if let Some(built) = std::env::var_os("RINGPOST_IMAGE") {
            return built.into();
        }
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

/// The same version with a shell on the serial line, as a UKI and its parts.
pub(crate) fn debug() -> &'static Path {
    static DEBUG: OnceLock<PathBuf> = OnceLock::new();
    DEBUG.get_or_init(|| uki_at(&shared().path("debug.efi"), "1.0.0", &["--debug"]))
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
    uki_at(&folder.path(&format!("{version}.efi")), version, words)
}

fn uki_at(to: &Path, version: &str, words: &[&str]) -> PathBuf {
    let (key, certificate) = keys();
    let mut all = vec!["uki", "--fast", "--version", version, "--out", text(to)];
    all.extend(["--key", text(&key), "--cert", &certificate]);
    image();
    let programs = programs();
    all.extend(["--programs", &programs]);
    all.extend(words);
    xtask(&all).expect("the UKI builds");
    to.to_owned()
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

/// More words for QEMU: a further disk with this serial number.
pub(crate) fn further(path: &Path, serial: &str) -> [String; 4] {
    let drive = format!("if=none,id={serial},format=raw,file={}", path.display());
    let device = format!("virtio-blk-pci,drive={serial},id=dev-{serial},serial={serial}");
    ["-drive".to_owned(), drive, "-device".to_owned(), device]
}

/// An empty disk of so many MiB.
pub(crate) fn blank(path: &Path, mib: u64) {
    std::fs::File::create(path).and_then(|f| f.set_len(mib << 20)).expect("a sparse file");
}

/// Puts config files on a disk that is not running.
pub(crate) fn inject(folder: &Folder, disk: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = folder.path(name);
        std::fs::write(&path, content).expect("a file in the test's folder");
        let mut command = Command::new(program("ringpost"));
        command.env("RINGPOST_STATE", folder.path("state"));
        let output = command.args(["inject", text(disk), "--file", text(&path)]).output();
        let output = output.expect("ringpost starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
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
pub(crate) fn config(backend: SocketAddr) -> [(&'static str, String); 2] {
    let mail = include_str!("../../image/examples/mx.toml");
    let mail = mail.replace("port = 2600", &format!("port = {}", backend.port()));
    let mail = mail + "\n[retry]\nfirst_s = 1\nfactor = 1.0\nmax_s = 1\n";
    [("mx.toml", mail), ("machine.toml", include_str!("../../image/examples/machine.toml").into())]
}

/// The spool's settings as they stand in the example, to be replaced by others.
pub(crate) const SPOOL: &str = "places = [\"/dev/spool/0\"]\nsegments = 8\nsegment_mib = 16\n";

/// Serves the files of a folder over HTTP until the test's process ends.
pub(crate) fn web(folder: &Path) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = String::new();
            let mut lines = BufReader::new(&stream);
            let _ = lines.read_line(&mut request);
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|n| n > 2) {
                line.clear();
            }
            let name = request.split([' ', '/']).nth(2).unwrap_or_default();
            let reply = match std::fs::read(folder.join(name)) {
                Ok(content) => {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}", content.len());
                    [head.as_bytes(), b"\r\n\r\n", &content].concat()
                }
                Err(_) => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
            };
            let _ = stream.write_all(&reply);
        }
    });
    address
}
