//! `./x image figures`: what an image measures, in one go.
//!
//! Size of the UKI and of what is in it; time of the assembly behind kernel and programs; for five
//! first starts in QEMU without firmware: time from the kernel's start to mail being taken, and
//! memory in use then, with each of init's steps in the start that is the median. With `--profile`
//! one start more, in which the kernel says what it does: where nothing is said for long.
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

/// Makes the kernel name each of its own steps.
const TALKS: &str = " initcall_debug loglevel=7 printk.time=1";
/// A pause between two lines that is worth a line.
const PAUSE_S: f32 = 0.05;

/// Measures an image; without one the last built one, after building it anew.
pub(crate) fn figures(words: &[String]) -> Result<(), String> {
    let profile = words.iter().any(|word| word == "--profile");
    let place = cache()?.join("image");
    let image = match words.iter().find(|word| !word.starts_with("--")) {
        Some(image) => PathBuf::from(image),
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
        let start = start(&image, &work, "")?;
        let Start { seconds, memory, .. } = &start;
        println!("start {number}: mail is taken {seconds:.2} s after the kernel's start; {memory}");
        starts.push(start);
    }
    starts.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let median = &starts[STARTS / 2];
    println!("median of {STARTS}: {:.2} s, of which", median.seconds);
    for (took, step) in steps(&median.said) {
        println!("  {took:6.2} s  until: {step}");
    }
    if profile {
        println!("with every step of the kernel's said, pauses of {PAUSE_S} s and more:");
        for (took, before, behind) in pauses(&start(&image, &work, TALKS)?.said) {
            println!("  {took:6.2} s  {before}  ->  {behind}");
        }
    }
    fs::remove_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))
}

/// What a start came to.
struct Start {
    /// From the kernel's start to mail being taken.
    seconds: f32,
    memory: String,
    said: Vec<String>,
}

/// Init's lines, each with the seconds since the one before; the first since the kernel's start.
fn steps(said: &[String]) -> Vec<(f32, String)> {
    let mut last = 0.0;
    let line = |line: &String| {
        let (at, what) = line.strip_prefix("init ")?.split_once(": ")?;
        let at: f32 = at.parse().ok()?;
        let took = at - last;
        last = at;
        Some((took, what.to_owned()))
    };
    said.iter().filter_map(line).collect()
}

/// Where the kernel, or init, said nothing for long: how long, behind what, before what.
fn pauses(said: &[String]) -> Vec<(f32, String, String)> {
    let timed = |line: &String| -> Option<(f32, String)> {
        let behind = |start: &str, end: &str| {
            let (at, what) = line.strip_prefix(start)?.split_once(end)?;
            Some((at.trim().parse().ok()?, what.to_owned()))
        };
        behind("[", "] ").or_else(|| behind("init ", ": "))
    };
    let lines: Vec<(f32, String)> = said.iter().filter_map(timed).collect();
    let pairs =
        lines.windows(2).map(|two| (two[1].0 - two[0].0, two[0].1.clone(), two[1].1.clone()));
    pairs.filter(|(took, ..)| *took >= PAUSE_S).collect()
}

/// A guest that is ended whatever happens.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One first start, with more words for the kernel.
fn start(image: &Path, work: &Path, words: &str) -> Result<Start, String> {
    let disk = work.join("disk.img");
    copy(image, &disk)?;
    done(tool("truncate").args(["-s", DISK]).arg(&disk))?;
    let ringpost: PathBuf =
        std::env::current_exe().map_err(|e| e.to_string())?.with_file_name("ringpost");
    let mut inject = tool(&ringpost.display().to_string());
    done(inject.arg("inject").arg(&disk).args(["--config", CONFIG[0], "--machine", CONFIG[1]]))?;
    let line =
        String::from_utf8_lossy(&read(&image.with_extension("cmdline"))?).into_owned() + words;
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
        let found = ready(&line);
        said.push(line);
        if let Some((seconds, memory)) = found {
            return Ok(Start { seconds, memory, said });
        }
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

    #[test]
    fn steps_and_pauses_are_told() {
        let said =
            ["[    0.50] calling a", "[    1.25] calling b", "init 1.50: up", "init 4.00: done"];
        let said = said.map(str::to_owned);
        assert_eq!(steps(&said), [(1.5, "up".to_owned()), (2.5, "done".to_owned())]);
        let found = pauses(&said);
        let named: Vec<_> =
            found.iter().map(|(took, before, _)| (*took, before.as_str())).collect();
        assert_eq!(named, [(0.75, "calling a"), (0.25, "calling b"), (2.5, "up")]);
    }
}
