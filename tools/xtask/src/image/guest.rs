//! `./x image run`: the image in QEMU, through the firmware, on a copy of the disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::tool::{cache, copy, done, tool};

/// The copy's size: an image becomes a disk of any size at first start.
const DISK: &str = "4G";
/// Config for QEMU's own network.
pub(crate) const CONFIG: [&str; 2] = ["image/examples/mx.toml", "image/examples/machine.toml"];

/// Boots an image, the last built one if none is named.
pub(crate) fn run(image: Option<&Path>) -> Result<(), String> {
    let place = cache()?.join("image");
    let image = image.map_or_else(|| newest(&place), |image| Ok(image.to_owned()))?;
    let disk = place.join("run.img");
    copy(&image, &disk)?;
    done(tool("truncate").args(["-s", DISK]).arg(&disk))?;
    // Built beside us.
    let ringpost = std::env::current_exe().map_err(|e| e.to_string())?.with_file_name("ringpost");
    let mut inject = tool(&ringpost.display().to_string());
    inject.arg("inject").arg(&disk);
    done(inject.args(["--config", CONFIG[0], "--machine", CONFIG[1]]))?;
    println!("port 25 of the guest: 127.0.0.1:2525; its backend: 127.0.0.1:2600 of this machine");
    println!("the serial line is this terminal: Ctrl-A x ends the guest");
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "q35", "-accel", &accel(), "-cpu", "max"]);
    qemu.args(["-m", "512", "-smp", "2", "-display", "none", "-serial", "mon:stdio"]);
    qemu.args(["-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"]);
    qemu.args(["-drive", &format!("if=none,id=d,format=raw,file={}", disk.display())]);
    qemu.args(["-device", "virtio-blk-pci,drive=d", "-device", "virtio-rng-pci"]);
    qemu.args(["-device", "i6300esb", "-action", "watchdog=reset"]);
    qemu.args(["-netdev", "user,id=n,hostfwd=tcp:127.0.0.1:2525-:25"]);
    qemu.args(["-device", "virtio-net-pci,netdev=n,mac=52:54:00:12:34:56"]);
    let status = qemu.status().map_err(|e| format!("qemu-system-x86_64: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("qemu: {status}")) }
}

/// How QEMU runs the guest: KVM only by word, for there are machines whose KVM stops QEMU.
pub(crate) fn accel() -> String {
    std::env::var("RINGPOST_ACCEL").unwrap_or_else(|_| "tcg,thread=multi".to_owned())
}

/// The last built image.
pub(crate) fn newest(place: &Path) -> Result<PathBuf, String> {
    let mut images: Vec<_> = std::fs::read_dir(place)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "img") && !path.ends_with("run.img"))
        .collect();
    images.sort_by_key(|path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok());
    images.pop().ok_or_else(|| "no image yet: ./x image".to_owned())
}
