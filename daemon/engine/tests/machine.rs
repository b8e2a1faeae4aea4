//! Limits of the machine: descriptors, locked memory, a forbidden io_uring, 10,000 connections.
//!
//! Each test runs in a process of its own (this program again), because it changes limits that
//! belong to the process. strace must be installed.

#![allow(clippy::unwrap_used, reason = "a test's way of failing")]
#![allow(unsafe_code, reason = "limits, capabilities and filters are raw system calls")]

mod harness;

use engine::{Config, Core, DiskClass, Event, Handler, Probe, StartError, host, mailbox};
use harness::{Echo, start};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::thread;

/// Runs one of the ignored parts below in a process of its own.
fn part(name: &str, through: &[&str], argument: &str) -> Child {
    let program = std::env::current_exe().unwrap();
    let (first, rest) = match through {
        [] => (program.to_str().unwrap(), &[][..]),
        [first, rest @ ..] => (*first, rest),
    };
    let mut command = Command::new(first);
    command.args(rest);
    if !through.is_empty() {
        command.arg(&program);
    }
    command
        .args(["--ignored", "--exact", "--nocapture", "--test-threads=1", name])
        .env("ENGINE_TEST_ARGUMENT", argument)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{first}: {error}; the tests need it installed"))
}

fn argument() -> String {
    std::env::var("ENGINE_TEST_ARGUMENT").unwrap()
}

/// Runs a part to its end.
fn whole(name: &str) {
    let output = part(name, &[], "").wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// The rest of the first line a part prints that starts with `key`.
fn line(reader: &mut impl BufRead, key: &str) -> String {
    loop {
        let mut line = String::new();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "the part ended without {key:?}");
        if let Some((_, rest)) = line.split_once(key) {
            return rest.trim().to_owned();
        }
    }
}

fn set_limit(resource: libc::__rlimit_resource_t, soft: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes, then reads, one rlimit in a local.
    let codes = unsafe {
        let get = libc::getrlimit(resource, &raw mut limit);
        limit.rlim_cur = soft;
        (get, libc::setrlimit(resource, &raw const limit))
    };
    assert_eq!(codes, (0, 0));
}

#[test]
fn accepting_rests_while_descriptors_are_out() {
    whole("part_descriptors");
}

#[test]
#[ignore = "part of accepting_rests_while_descriptors_are_out"]
fn part_descriptors() {
    // An armed accept keeps the limit it was armed under: lower it first, then use it up.
    set_limit(libc::RLIMIT_NOFILE, 200);
    let core = start(Config::default(), Echo::default);
    let first = core.connect();
    core.until(|_, echo| echo.accepted == 1);
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let (tell_in, told_in) = std::sync::mpsc::channel::<()>();
    let (clients, fillers) = thread::scope(|scope| {
        let core = &core;
        // Stand still, so that all connections wait in the kernel's queue.
        scope.spawn(move || {
            core.ask(move |_, _| {
                tell_in.send(()).unwrap();
                told.recv().unwrap();
            });
        });
        told_in.recv().unwrap();
        let clients: Vec<TcpStream> = (0..50).map(|_| core.connect()).collect();
        let mut fillers: Vec<fs::File> =
            std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
        fillers.truncate(fillers.len() - 10);
        tell.send(()).unwrap();
        (clients, fillers)
    });
    core.until(|core, _| core.stats().accept_rests >= 2);
    assert_eq!(core.ask(|_, echo| echo.accepted), 11, "ten found a descriptor");
    echo_once(&first);
    drop(fillers);
    for client in &clients {
        echo_once(client);
    }
    assert_eq!(core.ask(|_, echo| echo.accepted), 51);
}

fn echo_once(mut client: &TcpStream) {
    client.write_all(b"ping").unwrap();
    let mut back = [0; 4];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"ping");
}

#[test]
fn little_locked_memory_means_fewer_registered_buffers_and_a_note() {
    whole("part_locked_memory");
}

#[test]
#[ignore = "part of little_locked_memory_means_fewer_registered_buffers_and_a_note"]
fn part_locked_memory() {
    drop_all_capabilities();
    // The kernel counts for all processes of a user, so what is free is not known: go up until
    // the ring itself fits. Then there is no room for the buffers.
    let step = 256 * 1024;
    for steps in 0.. {
        set_limit(libc::RLIMIT_MEMLOCK, steps * step);
        let disk_buffers = vec![DiskClass { bytes: 256 * 1024, count: 8 }];
        let config = Config { disk_buffers, ..Config::default() };
        let (_, receiver) = mailbox::<()>(1).unwrap();
        let made = Probe::detect().and_then(|probe| Core::new(config, &probe, receiver));
        let mut core = match made {
            Ok(core) => core,
            Err(refused) => {
                assert!(refused.to_string().contains("RLIMIT_MEMLOCK"), "{refused}");
                continue;
            }
        };
        let [note] = core.notes() else { panic!("one note: {:?}", core.notes()) };
        assert!(note.contains("of 8 disk") && note.contains("RLIMIT_MEMLOCK"), "{note}");
        write_all_buffers(&mut core);
        return;
    }
}

#[test]
fn a_core_registers_no_more_than_its_share() {
    let disk_buffers = vec![DiskClass { bytes: 65_536, count: 8 }];
    let config = Config { disk_buffers, locked_bytes_max: 3 * 65_536 + 1, ..Config::default() };
    let (_, receiver) = mailbox::<()>(1).unwrap();
    let core = Core::new(config, &Probe::detect().unwrap(), receiver).unwrap();
    let [note] = core.notes() else { panic!("one note: {:?}", core.notes()) };
    assert!(note.starts_with("3 of 8 disk buffers"), "{note}");
}

/// Registered or not, every buffer can be written.
fn write_all_buffers(core: &mut Core<()>) {
    struct Count(u32);
    impl Handler<()> for Count {
        fn event(&mut self, _core: &mut Core<()>, event: Event<'_, ()>) {
            let Event::DiskDone { result, .. } = event else { panic!("{event:?}") };
            assert_eq!(result.unwrap(), 256 * 1024);
            self.0 += 1;
        }
        fn turn_end(&mut self, _core: &mut Core<()>) {}
    }
    // SAFETY: the name is a constant with a final zero; the descriptor is nobody else's.
    let fd: OwnedFd = unsafe {
        use std::os::fd::FromRawFd;
        OwnedFd::from_raw_fd(libc::memfd_create(c"disk".as_ptr(), libc::MFD_CLOEXEC))
    };
    let file = core.open_file(fd).unwrap();
    let buffers: Vec<_> = std::iter::from_fn(|| core.disk_buffer(1)).collect();
    assert_eq!(buffers.len(), 8);
    for (index, buffer) in (0..).zip(buffers) {
        core.disk_write(file, index * 256 * 1024, buffer, 256 * 1024, false, index).unwrap();
    }
    let mut count = Count(0);
    while count.0 < 8 {
        core.turn(&mut count).unwrap();
    }
}

/// Of this thread only: root would not be bound by the limit on locked memory.
fn drop_all_capabilities() {
    let header: [u32; 2] = [0x2008_0522, 0];
    let none = [0u32; 6];
    // SAFETY: capset reads a header of 8 bytes and, for version 3, 24 bytes of sets.
    let code = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    assert_eq!(code, 0);
}

#[test]
fn a_forbidden_io_uring_is_named() {
    for (error, expected) in [(libc::ENOSYS, "CONFIG_IO_URING"), (libc::EPERM, "seccomp")] {
        thread::spawn(move || {
            forbid_io_uring(error);
            let refused = Probe::detect().unwrap_err();
            assert!(matches!(refused, StartError::Missing | StartError::Forbidden));
            assert!(refused.to_string().contains(expected), "{refused}");
        })
        .join()
        .unwrap();
    }
}

/// A seccomp filter for this thread: io_uring_setup fails with this error.
fn forbid_io_uring(error: i32) {
    let number = u32::try_from(libc::SYS_io_uring_setup).unwrap();
    let errno = libc::SECCOMP_RET_ERRNO | u32::try_from(error).unwrap();
    let rule = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // Load the call's number; if it is the one, fail, else allow.
    let mut rules = [
        rule(0x20, 0, 0, 0),
        rule(0x15, 0, 1, number),
        rule(0x06, 0, 0, errno),
        rule(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: rules.as_mut_ptr() };
    // SAFETY: the kernel reads the program and its four rules, locals that outlive the calls.
    let codes = unsafe {
        let first = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        let filter = libc::SECCOMP_MODE_FILTER;
        (first, libc::prctl(libc::PR_SET_SECCOMP, filter, &raw const program))
    };
    assert_eq!(codes, (0, 0));
}

const CALLS_CONNECTIONS: u64 = 100;
const CALLS_EXCHANGES: u64 = 10_000;

/// A line server between two marks, under strace: the core's thread calls nothing but
/// io_uring_enter, and one getpeername per connection.
#[test]
fn a_core_makes_no_system_call_but_enter() {
    let trace = std::env::temp_dir().join(format!("engine-trace-{}", std::process::id()));
    let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap()];
    let mut child = part("part_line_server", &strace, "");
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let tid = line(&mut output, "thread ");
    let address: SocketAddr = line(&mut output, "address ").parse().unwrap();
    for _ in 0..CALLS_CONNECTIONS {
        let mut client = TcpStream::connect(address).unwrap();
        let mut replies = BufReader::new(client.try_clone().unwrap());
        for _ in 0..CALLS_EXCHANGES / CALLS_CONNECTIONS {
            client.write_all(b"NOOP and some more\r\n").unwrap();
            let mut reply = String::new();
            replies.read_line(&mut reply).unwrap();
            assert_eq!(reply, "250 OK\r\n");
        }
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let calls = calls_between_marks(&fs::read_to_string(&trace).unwrap(), &tid);
    fs::remove_file(&trace).unwrap();
    let count = |name: &str| calls.get(name).copied().unwrap_or(0);
    let memory = ["brk", "mmap", "munmap", "mremap", "madvise", "getrandom"];
    let allowed = ["io_uring_enter", "getpeername"];
    let other: Vec<_> = calls
        .iter()
        .filter(|(name, _)| !allowed.contains(&name.as_str()) && !memory.contains(&name.as_str()))
        .collect();
    assert!(other.is_empty(), "{other:?} among {calls:?}");
    assert_eq!(count("getpeername"), CALLS_CONNECTIONS, "{calls:?}");
    assert!(count("io_uring_enter") > 1000, "the trace saw the core: {calls:?}");
    assert!(memory.iter().map(|name| count(name)).sum::<u64>() < 100, "{calls:?}");
}

/// Counts the calls of one thread between its last two `sched_getaffinity`.
fn calls_between_marks(trace: &str, tid: &str) -> BTreeMap<String, u64> {
    let own = trace.lines().filter_map(|line| line.strip_prefix(tid)?.strip_prefix(' '));
    let own: Vec<&str> = own.map(str::trim_start).collect();
    let is_mark = |call: &&str| call.starts_with("sched_getaffinity(");
    let marks: Vec<usize> =
        own.iter().enumerate().filter(|(_, call)| is_mark(call)).map(|(at, _)| at).collect();
    let [.., first, second] = marks[..] else { panic!("the marks are missing") };
    let mut calls = BTreeMap::new();
    for call in &own[first + 1..second] {
        // Not the second half of an interrupted line.
        if let Some((name, _)) = call.split_once('(')
            && !call.starts_with('<')
        {
            *calls.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    calls
}

/// Answers every line.
struct Lines {
    received: u64,
    closed: u64,
}

impl Handler<()> for Lines {
    fn event(&mut self, core: &mut Core<()>, event: Event<'_, ()>) {
        match event {
            Event::Accepted { conn, .. } => core.set_conn_timer(conn, core.now_us() + 60_000_000),
            Event::Received { conn, bytes } => {
                for _ in bytes.iter().filter(|byte| **byte == b'\n') {
                    self.received += 1;
                    core.send(conn, b"250 OK\r\n").unwrap();
                }
                core.set_conn_timer(conn, core.now_us() + 60_000_000);
            }
            Event::Eof { conn } => core.close(conn),
            Event::Closed { .. } => {
                self.closed += 1;
                if self.closed == CALLS_CONNECTIONS {
                    // The second mark.
                    host::cpus().unwrap();
                    core.stop();
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn turn_end(&mut self, _core: &mut Core<()>) {}
}

#[test]
#[ignore = "part of a_core_makes_no_system_call_but_enter"]
fn part_line_server() {
    let (_, receiver) = mailbox(1).unwrap();
    let mut core = Core::new(Config::default(), &Probe::detect().unwrap(), receiver).unwrap();
    let listener = core.listen("127.0.0.1:0".parse().unwrap(), 0).unwrap();
    // SAFETY: no memory is passed.
    println!("thread {}", unsafe { libc::gettid() });
    println!("address {}", core.listener_address(listener).unwrap());
    let mut lines = Lines { received: 0, closed: 0 };
    // The first mark.
    host::cpus().unwrap();
    core.run(&mut lines).unwrap();
    assert_eq!(lines.received, CALLS_EXCHANGES);
}

const IDLE: u64 = 10_000;

#[test]
fn ten_thousand_idle_connections_cost_less_than_a_kilobyte_each() {
    whole("part_idle");
}

#[test]
#[ignore = "part of ten_thousand_idle_connections_cost_less_than_a_kilobyte_each"]
fn part_idle() {
    let files = host::raise_file_limit().unwrap();
    assert!(files > IDLE + 100, "the test needs a hard limit on open files above {IDLE}");
    let core = start(Config::default(), Echo::default);
    // The first ones warm up what is taken once.
    for _ in 0..100 {
        echo_once(&core.connect());
    }
    core.until(|_, echo| echo.closed == 100);
    let before = resident();
    let mut clients = part("part_idle_clients", &[], &core.address.to_string());
    line(&mut BufReader::new(clients.stdout.as_mut().unwrap()), "all open");
    core.until(|_, echo| echo.accepted == 100 + IDLE);
    // The test's own list of connections: 8 bytes each, doubled by growth.
    let each = (resident() - before) / IDLE;
    println!("{each} bytes for an idle connection that has echoed");
    assert!(each <= 1024, "{each} bytes");
    assert_eq!(core.ask(|core, _| core.connections().0), u32::try_from(IDLE).unwrap());
    drop(clients.stdin.take());
    assert!(clients.wait().unwrap().success());
    core.until(|core, _| core.connections().0 == 0);
}

#[test]
#[ignore = "part of ten_thousand_idle_connections_cost_less_than_a_kilobyte_each"]
fn part_idle_clients() {
    host::raise_file_limit().unwrap();
    let address: SocketAddr = argument().parse().unwrap();
    let clients: Vec<TcpStream> = (0..IDLE).map(|_| TcpStream::connect(address).unwrap()).collect();
    clients.iter().for_each(echo_once);
    println!("all open");
    // Until the parent has counted.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(clients);
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn an_inherited_listener_is_taken_over_with_its_queue() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = TcpStream::connect(address).unwrap();
    waiting.write_all(b"ping").unwrap();
    let number = listener.as_raw_fd();
    // Descriptor 3 is the listener, and the number of the process is only known to the shell.
    let script = format!("exec 3<&{number}; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"");
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }, 0);
    let child = part("part_inherit", &["sh", "-c", &script], "");
    drop(listener);
    let mut back = [0; 4];
    waiting.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"ping");
    drop(waiting);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
#[ignore = "part of an_inherited_listener_is_taken_over_with_its_queue"]
fn part_inherit() {
    let inherited = host::inherited_sockets().pop().expect("one was passed");
    assert!(host::inherited_sockets().is_empty(), "they are taken once");
    assert!(host::is_listening(&inherited));
    let core = start(Config::default(), Echo::default);
    core.ask(move |core, _| core.adopt_listener(inherited, 1).map(drop).unwrap());
    core.until(|_, echo| echo.closed == 1);
}
