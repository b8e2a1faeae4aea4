//! `./x image figures`: what an image measures, in one go.
//!
//! Size of the UKI and of what is in it; time of the assembly behind kernel and programs; for five
//! first starts in QEMU without firmware: time from the kernel's start to mail being taken, and
//! memory in use then.
//!
//! *Limits*: QEMU without KVM, unless `RINGPOST_ACCEL=kvm` is set, on a machine that does other
//! work: times are upper bounds, and no verdict hangs on one.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::build;
use super::guest::{CONFIG, accel, newest};
use super::tool::{cache, copy, done, fresh, read, tool};

/// Starts that are measured: the median is one of them.
const STARTS: usize = 5;
/// The guest's memory, in MiB.
const MEMORY_MIB: &str = "512";
/// Room for state and spool.
const DISK: &str = "2G";
/// What init says when the daemon takes mail; the seconds since the kernel's start stand before it.
const READY: &str = ": taking mail; ";

/// Measures an image; without one the last built one, after building it anew.
pub(crate) fn figures(image: Option<&Path>) -> Result<(), String> {
    let place = cache()?.join("image");
    let image = match image {
        Some(image) => image.to_owned(),
        None => {
            let options = build::Options::read(&[])?;
            // Once for what is missing, once for the clock.
            build::image(&options)?;
            let from = Instant::now();
            build::image(&options)?;
            let seconds = from.elapsed().as_secs_f32();
            println!("assembly behind kernel and programs, packing included: {seconds:.1} s");
            newest(&place)?
        }
    };
    let kib =
        |end: &str| fs::metadata(image.with_extension(end)).map_or(0, |meta| meta.len() >> 10);
    println!(
        "UKI {} KiB: kernel {} KiB, packed user space {} KiB",
        kib("efi"),
        kib("kernel"),
        kib("initramfs")
    );
    let work = place.join("figures");
    fresh(&work)?;
    let mut starts = Vec::new();
    for number in 1..=STARTS {
        let (seconds, memory) = start(&image, &work)?;
        println!("start {number}: mail is taken {seconds:.2} s after the kernel's start; {memory}");
        starts.push(seconds);
    }
    starts.sort_by(f32::total_cmp);
    println!("median of {STARTS}: {:.2} s", starts[STARTS / 2]);
    fs::remove_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))
}

/// A guest that is ended whatever happens.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One first start: seconds to mail, and what init says of memory.
fn start(image: &Path, work: &Path) -> Result<(f32, String), String> {
    let disk = work.join("disk.img");
    copy(image, &disk)?;
    done(tool("truncate").args(["-s", DISK]).arg(&disk))?;
    let ringpost: PathBuf =
        std::env::current_exe().map_err(|e| e.to_string())?.with_file_name("ringpost");
    let mut inject = tool(&ringpost.display().to_string());
    done(inject.arg("inject").arg(&disk).args(["--config", CONFIG[0], "--machine", CONFIG[1]]))?;
    let line = String::from_utf8_lossy(&read(&image.with_extension("cmdline"))?).into_owned();
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "q35", "-accel", &accel(), "-cpu", "max"]);
    qemu.args(["-m", MEMORY_MIB, "-smp", "2", "-display", "none", "-nodefaults"]);
    qemu.args(["-serial", "stdio"]).arg("-kernel").arg(image.with_extension("kernel"));
    qemu.arg("-initrd").arg(image.with_extension("initramfs")).args(["-append", &line]);
    qemu.args(["-drive", &format!("if=none,id=d,format=raw,file={}", disk.display())]);
    qemu.args(["-device", "virtio-blk-pci,drive=d", "-device", "virtio-rng-pci"]);
    qemu.args(["-netdev", "user,id=n", "-device"]);
    qemu.args(["virtio-net-pci,netdev=n,mac=52:54:00:12:34:56,romfile="]);
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut guest = Guest(qemu.spawn().map_err(|e| format!("qemu-system-x86_64: {e}"))?);
    let serial = guest.0.stdout.take().ok_or("QEMU has no output")?;
    let mut said = Vec::new();
    for line in BufReader::new(serial).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if let Some(found) = ready(&line) {
            return Ok(found);
        }
        said.push(line);
    }
    Err(format!("the guest ended before it took mail:\n{}", said.join("\n")))
}

/// The seconds and the words behind them, of init's line.
fn ready(line: &str) -> Option<(f32, String)> {
    let (before, memory) = line.split_once(READY)?;
    let seconds = before.rsplit(' ').next()?.parse().ok()?;
    Some((seconds, memory.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inits_line_is_read() {
        let line = "init 7.25: taking mail; 121 MiB of 477 MiB in use";
        assert_eq!(ready(line), Some((7.25, "121 MiB of 477 MiB in use".to_owned())));
        assert_eq!(ready("init 7.25: taking a walk"), None);
    }
}
