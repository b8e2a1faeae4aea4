//! What a core asks of the kernel, counted by somebody else: strace.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use super::backend::{Backend, Manners};
use super::programs::{Daemon, Running, Setup, ready, sink, source};

/// System calls of a core thread, besides `io_uring_enter`, and why it makes them.
const ALLOWED: &[(&str, &str)] = &[
    ("getpeername", "once a connection"),
    ("getsockname", "once a connection"),
    ("setsockopt", "once a connection"),
    ("mmap", "memory"),
    ("munmap", "memory"),
    ("mremap", "memory"),
    ("madvise", "memory"),
    ("mprotect", "memory"),
    ("brk", "memory"),
    (NAMED, "memory: the allocator gives what it maps a name"),
    ("getrandom", "random numbers"),
];

const NAMED: &str = "prctl(PR_SET_VMA)";

/// The threads named `core <n>` of a process.
fn core_threads(pid: nix::unistd::Pid) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let mut cores: Vec<String> = tasks
        .flatten()
        .filter(|task| {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            name.starts_with("core ")
        })
        .map(|task| task.file_name().to_string_lossy().into_owned())
        .collect();
    cores.sort();
    cores
}

/// Attaches to the cores; the file it writes to.
fn trace(daemon: &Daemon) -> (Running, std::path::PathBuf) {
    let out = daemon.folder.path("strace");
    let mut command = Command::new("strace");
    command.arg("-o").arg(&out);
    let cores = core_threads(daemon.pid());
    assert_eq!(cores.len(), 2, "threads named `core <n>`");
    for thread in &cores {
        command.args(["-p", thread]);
    }
    let child = command.stderr(Stdio::null()).spawn().expect("strace runs");
    let strace = Running(child);
    let attached = |thread: &String| {
        let status = fs::read_to_string(format!("/proc/{}/task/{thread}/status", daemon.pid()));
        let status = status.expect("it runs");
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    };
    while !cores.iter().all(attached) {
        std::thread::yield_now();
    }
    (strace, out)
}

/// Calls by name in strace's output.
fn calls(text: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        // `1234 name(arguments) = result`, `1234 <... name resumed>`, `1234 --- SIG`, `+++`.
        let rest = line.split_once(' ').map_or("", |(_, rest)| rest).trim_start();
        let Some((name, arguments)) = rest.split_once('(') else { continue };
        if name == "prctl" && arguments.starts_with("PR_SET_VMA,") {
            *counts.entry(NAMED.to_owned()).or_insert(0) += 1;
            continue;
        }
        if name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            *counts.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    counts
}

/// Receives and relays `total` messages under strace.
fn watch(total: u64, words: &[&str]) -> (BTreeMap<String, u64>, u64) {
    let folder = super::programs::Folder::new("engine-sink");
    let (_sink, address) = sink(&folder.path("maildir"), "127.0.0.1:0", &[]);
    let mut daemon = Daemon::start("engine", Setup::new(address));
    // Warm: the probe, the first connections, the first memory.
    source(daemon.address, &["--total", "500", "--sessions", "16"]);
    daemon.until_empty();
    let (mut strace, out) = trace(&daemon);
    let total_text = total.to_string();
    let summary = source(daemon.address, &[&["--total", &total_text], words].concat());
    assert_eq!(summary["acked"].as_u64(), Some(total), "{summary}");
    let connections = summary["connections"].as_u64().expect("a number");
    daemon.until_empty();
    strace.stop();
    let counts = calls(&fs::read_to_string(&out).expect("strace's output"));
    assert!(daemon.stop().success());
    (counts, connections)
}

#[test]
fn a_core_makes_no_system_call_but_io_uring_enter() {
    let (counts, connections) = watch(10_000, &["--sessions", "32"]);
    println!("{connections} connections: {counts:?}");
    let enters = counts.get("io_uring_enter").copied().unwrap_or(0);
    assert!(enters > 100, "strace saw nothing: {counts:?}");
    for name in counts.keys().filter(|name| *name != "io_uring_enter") {
        assert!(ALLOWED.iter().any(|(allowed, _)| name == allowed), "{name}: {counts:?}");
    }
    for name in ["getpeername", "getsockname"] {
        let count = counts.get(name).copied().unwrap_or(0);
        assert!(count <= connections, "{name}: {count} for {connections} connections");
    }
    // Ours towards the backend have options of their own.
    let options = counts.get("setsockopt").copied().unwrap_or(0);
    assert!(options <= 2 * connections + 200, "setsockopt: {options}");
}

#[test]
fn strace_would_see_another_call() {
    let text = "12 io_uring_enter(3, 1, 1, 0x1, NULL, 8) = 1\n12 futex(0x1, FUTEX_WAIT) = 0\n\
                13 io_uring_enter(4, 1, 1, 0x1, NULL, 8 <unfinished ...>\n\
                13 <... io_uring_enter resumed>) = 1\n\
                12 prctl(PR_SET_NAME, \"x\") = 0\n\
                12 prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, 0x1, 1, \"x\") = 0\n\
                12 +++ exited with 0 +++\n";
    let counts = calls(text);
    assert_eq!(counts.get("io_uring_enter"), Some(&2));
    assert_eq!(counts.get("futex"), Some(&1));
    assert_eq!((counts.get("prctl"), counts.get(NAMED)), (Some(&1), Some(&1)));
    let backend = Backend::start(Manners::default());
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().expect("true");
    assert_eq!(ready(&mut child, "nothing"), None);
    child.wait().expect("it ends");
    drop(backend);
}
