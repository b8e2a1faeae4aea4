//! What /proc says of a process tree and a block device.
//!
//! *Guarantees*: CPU time is that of the scheduler to the nanosecond, of all threads of a process,
//! ended ones included; of ended processes what their parents have collected (in clock ticks).
//!
//! *Not here*: kernel threads that work for a process (journal, direct I/O completions): they show
//! in the CPU's busy share only.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// The fields of /proc/PID/stat that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Parent.
    pub parent: i32,
    /// Clock ticks of ended and collected children, user and system.
    pub children_ticks: u64,
    /// Clock ticks since boot at its start: with its number, no other process has it.
    pub started: u64,
    /// Ended, and not yet collected.
    pub zombie: bool,
}

/// Reads a line of /proc/PID/stat; the name in it may hold anything, parentheses too.
pub fn parse_stat(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    // Field 3 of proc_pid_stat(5) is the first here.
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        children_ticks: number(13)? + number(14)?,
        started: number(19)?,
        zombie: matches!(fields[0], "Z" | "X"),
    })
}

/// The value of a `key: number` line, as in /proc/PID/io and /proc/PID/status.
pub fn parse_value(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// The value of a `key number` line, as in a control group's files.
pub fn parse_key(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    rest.trim().parse().ok()
}

/// A process and all it has started that still live.
pub fn tree(root: i32) -> io::Result<Vec<i32>> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if let Ok(line) = fs::read_to_string(format!("/proc/{pid}/stat"))
            && let Some(stat) = parse_stat(&line)
        {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        if let Some(more) = children.remove(&found[at]) {
            found.extend(more);
        }
        at += 1;
    }
    Ok(found)
}

/// When a process started, in clock ticks since boot; `None` when it has ended.
pub fn started(pid: i32) -> Option<u64> {
    let stat = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    (!stat.zombie).then_some(stat.started)
}

/// What a process tree has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time.
    pub cpu: Duration,
    /// The kernel's part of it, where it is known.
    pub kernel: Option<Duration>,
    /// Octets sent towards block devices, as accounted to the processes.
    pub written: u64,
    /// Resident octets.
    pub resident: u64,
    /// Anonymous memory in use.
    pub anonymous: u64,
    /// Most resident octets so far, of each process.
    pub peak: u64,
    /// Processes.
    pub processes: usize,
}

/// Adds up a process tree.
pub fn usage(root: i32) -> io::Result<Usage> {
    let tick = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u64::try_from(ticks).ok());
    let tick = Duration::from_secs(1) / u32::try_from(tick.unwrap_or(100)).unwrap_or(100);
    let mut sum = Usage::default();
    for pid in tree(root)? {
        // Processes that end meanwhile are in their parent's ticks.
        let Ok(clock) = ClockId::pid_cpu_clock_id(Pid::from_raw(pid)) else { continue };
        let Ok(time) = clock_gettime(clock) else { continue };
        sum.cpu += Duration::from(time);
        sum.processes += 1;
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        if let Some(stat) = read("stat").ok().as_deref().and_then(parse_stat) {
            sum.cpu += tick * u32::try_from(stat.children_ticks).unwrap_or(u32::MAX);
        }
        if let Ok(text) = read("io") {
            sum.written += parse_value(&text, "write_bytes").unwrap_or(0);
        }
        if let Ok(text) = read("status") {
            sum.resident += parse_value(&text, "VmRSS").unwrap_or(0) * 1024;
            sum.anonymous += parse_value(&text, "RssAnon").unwrap_or(0) * 1024;
            sum.peak += parse_value(&text, "VmHWM").unwrap_or(0) * 1024;
        }
    }
    Ok(sum)
}

/// Requests a block device has completed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disk {
    /// Writes.
    pub writes: u64,
    /// Octets written.
    pub written: u64,
    /// Flushes.
    pub flushes: u64,
}

/// Reads the line of a device out of /proc/diskstats.
pub fn parse_disk(text: &str, device: &str) -> Option<Disk> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        (fields.get(2) == Some(&device)).then_some(())?;
        Some(Disk {
            writes: number(7)?,
            written: number(9)? * 512,
            flushes: number(18).unwrap_or(0),
        })
    })
}

/// What a device has done so far.
pub fn disk(device: &str) -> io::Result<Disk> {
    parse_disk(&fs::read_to_string("/proc/diskstats")?, device)
        .ok_or_else(|| io::Error::other(format!("{device}: not in /proc/diskstats")))
}

/// The block device a folder lies on, as /proc/diskstats names it.
pub fn device_of(folder: &Path) -> io::Result<String> {
    let device = fs::metadata(folder)?.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).map_err(|_| {
        io::Error::other(format!("{}: on no block device (tmpfs?)", folder.display()))
    })?;
    let name = link.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    Ok(name.to_owned())
}

/// The interrupts of a block device, or of the one below it (a loop device's file, the adapter of a
/// disk): the first device upwards that has any of its own.
fn interrupts_of(device: &str) -> Option<Vec<String>> {
    if let Ok(file) = fs::read_to_string(format!("/sys/class/block/{device}/loop/backing_file")) {
        return interrupts_of(&device_of(Path::new(file.trim())).ok()?);
    }
    let place = fs::canonicalize(format!("/sys/class/block/{device}")).ok()?;
    let entries = place.ancestors().find_map(|at| fs::read_dir(at.join("msi_irqs")).ok())?;
    Some(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// How often each CPU was interrupted by a block device so far; `None` where that cannot be seen.
pub fn interrupts(device: &str) -> Option<Vec<u64>> {
    let numbers = interrupts_of(device)?;
    parse_interrupts(&fs::read_to_string("/proc/interrupts").ok()?, &numbers)
}

/// Adds up the lines of these interrupts in /proc/interrupts, CPU by CPU.
pub fn parse_interrupts(text: &str, numbers: &[String]) -> Option<Vec<u64>> {
    let mut lines = text.lines();
    let heads = lines.next()?.split_ascii_whitespace();
    let cpus: Vec<usize> =
        heads.filter_map(|head| head.strip_prefix("CPU")?.parse().ok()).collect();
    let mut sums = vec![0; cpus.iter().max()? + 1];
    for line in lines {
        let Some((number, counts)) = line.split_once(':') else { continue };
        if numbers.iter().any(|own| own == number.trim()) {
            for (cpu, count) in cpus.iter().zip(counts.split_ascii_whitespace()) {
                sums[*cpu] += count.parse::<u64>().ok()?;
            }
        }
    }
    Some(sums)
}

/// Whether a device makes single writes durable without a flush (FUA).
pub fn has_fua(device: &str) -> bool {
    fs::read_to_string(format!("/sys/block/{device}/queue/fua")).is_ok_and(|t| t.trim() == "1")
}

/// The thread that writes the journal of the file system on a device.
pub fn journal_of(device: &str) -> Option<i32> {
    let prefix = format!("jbd2/{device}");
    let own =
        |comm: &str| comm.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with(['-', '\n']));
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        own(&fs::read_to_string(entry.path().join("comm")).ok()?).then_some(pid)
    })
}

/// CPU time of a thread, from its scheduler's account.
pub fn thread_cpu(pid: i32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// Ticks of a CPU: not idle, and all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTicks {
    /// Neither idle nor waiting for a disk.
    pub busy: u64,
    /// All.
    pub all: u64,
}

impl CpuTicks {
    /// The busy share since an earlier reading.
    pub fn busy_since(self, earlier: Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all).max(1);
        self.busy.saturating_sub(earlier.busy) as f64 / all as f64
    }
}

/// Reads the line of a CPU out of /proc/stat.
pub fn parse_cpu(text: &str, cpu: usize) -> Option<CpuTicks> {
    let name = format!("cpu{cpu}");
    let line = text.lines().find(|line| line.split_ascii_whitespace().next() == Some(&name))?;
    let ticks: Vec<u64> =
        line.split_ascii_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let all: u64 = ticks.iter().take(8).sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some(CpuTicks { busy: all - idle, all })
}

/// What a CPU has done so far.
pub fn cpu(cpu: usize) -> io::Result<CpuTicks> {
    parse_cpu(&fs::read_to_string("/proc/stat")?, cpu)
        .ok_or_else(|| io::Error::other(format!("CPU {cpu}: not in /proc/stat")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 50 60 70 80 20 0 1 0 9 10 11";
        let stat = Stat { parent: 7, children_ticks: 150, started: 9, zombie: false };
        assert_eq!(parse_stat(line), Some(stat));
        assert_eq!(parse_stat("42 (x S 7"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn values_devices_and_cpus_are_read() {
        let io = "rchar: 1\nwchar: 2\nwrite_bytes: 8192\ncancelled_write_bytes: 3\n";
        assert_eq!(parse_value(io, "write_bytes"), Some(8192));
        assert_eq!(parse_value("VmHWM:\t 9 kB\nVmRSS:\t  123 kB\n", "VmRSS"), Some(123));
        assert_eq!(parse_value(io, "bytes"), None);
        assert_eq!(parse_key("usage_usec 7\nuser_usec 5\n", "user_usec"), Some(5));
        let stats = "254 0 vda 8807 5328 3437962 8210 2635 21259 1263480 4206 0 4368 12745 \
             4016 33 246080 323 146 5\n254 1 vda1 1 2 3 4 5 6 7 8 9 10 11\n";
        let disk = Disk { writes: 2635, written: 1_263_480 * 512, flushes: 146 };
        assert_eq!(parse_disk(stats, "vda"), Some(disk));
        assert_eq!(parse_disk(stats, "vda1").map(|disk| disk.flushes), Some(0));
        assert_eq!(parse_disk(stats, "sda"), None);
        let text = "      CPU0   CPU2\n 24:  1  2  IO-APIC 5-edge ACPI\n 36: 10  20 PCI vd\n 37: 3 4 PCI vd\n";
        let own = ["36".to_owned(), "37".to_owned()];
        assert_eq!(parse_interrupts(text, &own), Some(vec![13, 0, 24]));
        assert_eq!(parse_interrupts("", &own), None);
        let stat = "cpu  9 9 9 9\ncpu1 10 0 20 60 5 1 2 2 0 0\ncpu10 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse_cpu(stat, 1), Some(CpuTicks { busy: 35, all: 100 }));
        let later = CpuTicks { busy: 85, all: 200 };
        assert!((later.busy_since(CpuTicks { busy: 35, all: 100 }) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn usage_sees_a_child_and_its_time() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mut child =
            std::process::Command::new("sh").args(["-c", "sleep 30 & wait"]).spawn().unwrap();
        let id = i32::try_from(child.id()).unwrap();
        while tree(id).unwrap().len() < 2 {
            std::thread::yield_now();
        }
        assert!(tree(own).unwrap().contains(&id));
        let before = usage(own).unwrap();
        assert!(before.processes >= 3 && before.resident > 1 << 20, "{before:?}");
        let clock = || Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap());
        let start = clock();
        while clock() - start < Duration::from_millis(20) {}
        let after = usage(own).unwrap();
        assert!(after.cpu - before.cpu >= Duration::from_millis(20), "{before:?} {after:?}");
        for pid in tree(id).unwrap().into_iter().rev() {
            let _ = nix::sys::signal::kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        child.wait().unwrap();
    }
}
