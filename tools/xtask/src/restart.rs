//! `./x bench restart [MESSAGES [OCTETS]]`: fills a spool with the real daemon and a next hop that
//! is dead, measures how fast its device is read, and starts again: after a clean end, and after
//! kill -9.
//!
//! *Guarantees*: prints seconds until the daemon is ready beside the bound: octets of the live
//! log / (0.5 x the rate at which the spool's file is read with `O_DIRECT`, measured just before)
//! + 1 s. The time is no verdict here; tests judge the octets read.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::child::Running;

const LISTEN: &str = "127.0.0.1:2583";
const SEGMENT_MIB: u64 = 64;
const SEGMENTS: u64 = 24;
const MIB: usize = 1 << 20;
const BLOCK: usize = 4096;

/// Runs it.
pub(crate) fn restart(more: &[String]) -> Result<(), String> {
    let word = |n: usize, usual: &str| more.get(n).cloned().unwrap_or_else(|| usual.to_owned());
    let (messages, octets) = (word(0, "30000"), word(1, "20k"));
    let me = std::env::current_exe().map_err(|e| format!("cannot find my programs: {e}"))?;
    let programs = me.parent().expect("a program lies in a folder").to_path_buf();
    let place = Path::new("var/bench/restart");
    let _ = fs::remove_dir_all(place);
    fs::create_dir_all(place).map_err(|e| format!("cannot make {}: {e}", place.display()))?;
    let config = config(place)?;
    let start = || {
        let (began, words) = (Instant::now(), ["--config", config.to_str().expect("made above")]);
        let running = Running::start("ringpostd", &programs.join("ringpostd"), &words, "ready: ");
        running.map(|running| (running, began.elapsed()))
    };
    let (mut node, first) = start()?;
    println!("an empty spool is made and ready in {:.2} s", first.as_secs_f64());
    let status = Command::new(programs.join("mxbench"))
        .args(["source", "--target", LISTEN, "--sessions", "64"])
        .args(["--total", &messages, "--size", &octets])
        .status()
        .map_err(|e| format!("cannot start mxbench: {e}"))?;
    if !status.success() {
        return Err(format!("mxbench source: {status}"));
    }
    let spool = place.join("spool/ringpost.spool");
    for round in ["after a clean end", "after kill -9"] {
        if round == "after kill -9" {
            node.kill();
        } else {
            node.end(Duration::from_mins(1));
        }
        let rate = rate(&spool)?;
        let (next, took) = start()?;
        node = next;
        tell(round, place, rate, took, read_octets(node.id()))?;
    }
    node.end(Duration::from_mins(1));
    fs::remove_dir_all(place).map_err(|e| format!("cannot remove {}: {e}", place.display()))
}

/// Octets a second of reads of a MiB, one after the other, past the page cache.
fn rate(spool: &Path) -> Result<f64, String> {
    let fail = |e: std::io::Error| format!("cannot read {}: {e}", spool.display());
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).custom_flags(nix::libc::O_DIRECT).open(spool).map_err(fail)?;
    let mut memory = vec![0; MIB + BLOCK];
    let from = memory.as_ptr().align_offset(BLOCK);
    let (began, mut at) = (Instant::now(), 0);
    loop {
        let got = file.read_at(&mut memory[from..from + MIB], at).map_err(fail)?;
        at += got as u64;
        if got < MIB {
            return Ok(at as f64 / began.elapsed().as_secs_f64());
        }
    }
}

/// What the system counted for the process.
fn read_octets(pid: u32) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    io.lines().find_map(|line| line.strip_prefix("read_bytes: "))?.parse().ok()
}

fn tell(
    round: &str,
    place: &Path,
    rate: f64,
    took: Duration,
    counted: Option<u64>,
) -> Result<(), String> {
    let log = fs::read_to_string(place.join("log/mainlog"))
        .map_err(|e| format!("cannot read the main log: {e}"))?;
    let line = log.lines().rfind(|line| line.contains(" KiB read in ")).unwrap_or_default();
    let used = line.split(" segments (").next().and_then(|head| head.rsplit(' ').next());
    let used: u64 = used.and_then(|number| number.parse().ok()).unwrap_or(0);
    let live = used * SEGMENT_MIB * MIB as u64;
    let bound = live as f64 / (0.5 * rate) + 1.0;
    let mib = |octets: u64| octets / MIB as u64;
    println!("{round}: {}", line.split(": ").skip(1).collect::<Vec<_>>().join(": "));
    println!(
        "{round}: ready in {:.2} s; bound {bound:.2} s: {} MiB of live log, read at {:.0} MiB/s; \
         the process read {} MiB: {}",
        took.as_secs_f64(),
        mib(live),
        rate / MIB as f64,
        counted.map_or_else(|| "?".to_owned(), |octets| mib(octets).to_string()),
        if took.as_secs_f64() <= bound { "within the bound" } else { "OVER THE BOUND" },
    );
    Ok(())
}

/// A next hop that refuses, tried once an hour.
fn config(place: &Path) -> Result<PathBuf, String> {
    let dead = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let dead = dead.map_err(|e| format!("no free port: {e}"))?;
    let at = |name: &str| place.join(name).display().to_string();
    let config = format!(
        "[node]\nhostname = \"mx.example.org\"\ncores = 2\n\
         [[listener]]\naddress = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\n\
         [policy]\nrelay_domains = [\"example.com\", \"example.org\"]\nany_recipient = true\n\
         [[route]]\nname = \"dead\"\ndomains = [\"*\"]\n\
         hosts = [{{ host = \"127.0.0.1\", port = {dead} }}]\n\
         [retry]\nfirst_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n\
         [spool]\nplaces = [\"{spool}\"]\nsegments = {SEGMENTS}\nsegment_mib = {SEGMENT_MIB}\n\
         [hints]\nfile = \"{hints}\"\nsize = \"16 MiB\"\n\
         [log]\ndir = \"{log}\"\ntotal_size = \"256 MiB\"\n",
        port = LISTEN.rsplit(':').next().expect("it has a port"),
        dead = dead.port(),
        spool = at("spool"),
        hints = at("hints"),
        log = at("log"),
    );
    let path = place.join("mx.toml");
    fs::write(&path, config).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    Ok(path)
}
