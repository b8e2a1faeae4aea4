//! Golden pages: each file of `tests/golden` is a command line, what must be asked, what a fake
//! daemon answers, and what must be printed. `RINGPOST_GOLDEN=write` writes what is printed now.
//!
//! Sections begin with `--- NAME`: `args`; `request` and `reply` (JSON, any number of pairs, in
//! order); `exit`; `stdout`; `stderr`.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use control::limits::{REPLY_OCTETS_MAX, REQUEST_OCTETS_MAX};
use control::{Decoder, Frame, VERSION};
use serde_json::Value;

/// A folder of its own that goes away with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringpost-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind if it cannot be removed; the next run has another name.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn ringpost(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringpost"))
        .args(arguments)
        .env_remove("RINGPOST_SOCKET")
        .current_dir(folder)
        .output()
        .unwrap()
}

fn read_frame(stream: &mut UnixStream, decoder: &mut Decoder) -> Option<Frame> {
    loop {
        if let Some(frame) = decoder.pop().unwrap() {
            return Some(frame);
        }
        let mut buffer = [0; 100];
        match stream.read(&mut buffer).unwrap() {
            0 => return None,
            n => decoder.push(&buffer[..n]),
        }
    }
}

/// Answers one connection with these replies, in small pieces; gives back what was asked.
fn serve(listener: &UnixListener, replies: &[String]) -> Vec<Value> {
    let (mut stream, _) = listener.accept().unwrap();
    let mut decoder = Decoder::new(REQUEST_OCTETS_MAX);
    let mut asked = Vec::new();
    for reply in replies {
        let Some(frame) = read_frame(&mut stream, &mut decoder) else { break };
        assert_eq!(frame.version, VERSION);
        asked.push(serde_json::from_slice(&frame.payload).unwrap());
        let octets = Frame::write(VERSION, reply.as_bytes(), REPLY_OCTETS_MAX).unwrap();
        for piece in octets.chunks(7) {
            stream.write_all(piece).unwrap();
        }
    }
    if let Some(frame) = read_frame(&mut stream, &mut decoder) {
        asked.push(serde_json::from_slice(&frame.payload).unwrap());
    }
    asked
}

/// Name and text of each section.
fn sections(text: &str) -> Vec<(String, String)> {
    let mut sections: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("--- "), sections.last_mut()) {
            (Some(name), _) => sections.push((name.to_owned(), String::new())),
            (None, Some((_, text))) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => assert!(line.starts_with('#') || line.is_empty(), "{line}"),
        }
    }
    sections
}

fn one_line(json: &str) -> Value {
    serde_json::from_str(json).unwrap()
}

fn play(path: &Path) -> Result<(), String> {
    let text = fs::read_to_string(path).unwrap();
    let sections = sections(&text);
    let all = |name: &str| -> Vec<&str> {
        sections.iter().filter(|(n, _)| n == name).map(|(_, text)| text.as_str()).collect()
    };
    let folder = Folder::new(path.file_stem().unwrap().to_str().unwrap());
    let socket = folder.0.join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let replies: Vec<String> = all("reply").iter().map(|json| one_line(json).to_string()).collect();
    let daemon = thread::spawn(move || serve(&listener, &replies));
    let arguments = all("args")[0];
    let arguments: Vec<&str> =
        ["--socket", "s"].into_iter().chain(arguments.split_whitespace()).collect();
    let output = ringpost(&folder.0, &arguments);
    // A command line that never asks leaves the daemon waiting: connect and say nothing.
    drop(UnixStream::connect(&socket));
    let asked = daemon.join().unwrap();
    let wanted: Vec<Value> = all("request").iter().map(|json| one_line(json)).collect();
    let mut wrong = String::new();
    if asked != wanted {
        wrong += &format!("asked {asked:?}\nnot {wanted:?}\n");
    }
    let exit = format!("{}\n", output.status.code().unwrap());
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let json = arguments.contains(&"--json");
    for line in stdout.lines().chain(stderr.lines()).filter(|_| !json) {
        if line.len() > 79 || line.bytes().any(|octet| !(b' '..=b'~').contains(&octet)) {
            wrong += &format!("not 79 columns of 7 bit: {line:?}\n");
        }
    }
    let mut written = text[..text.find("--- exit").unwrap_or(text.len())].to_owned();
    for (name, now) in [("exit", exit), ("stdout", stdout), ("stderr", stderr)] {
        let before = all(name).concat();
        if before != now {
            wrong += &format!("{name} is\n{now}not\n{before}");
        }
        written += &format!("--- {name}\n{now}");
    }
    if std::env::var_os("RINGPOST_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(path, written).unwrap();
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{}:\n{wrong}", path.display())) }
}

#[test]
fn pages_are_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 15, "the golden pages are there");
    let wrong: Vec<String> = paths.iter().filter_map(|path| play(path).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn help_fits_the_terminal() {
    let folder = Folder::new("help");
    let commands = [
        "",
        "version",
        "status",
        "ledger",
        "metrics",
        "queue",
        "queue list",
        "queue show",
        "reload",
        "drain",
        "log",
        "log level",
        "hints",
        "hints list",
        "hints get",
        "hints delete",
        "hints set",
        "hints tidy",
    ];
    for command in commands {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let output = ringpost(&folder.0, &arguments);
        assert!(output.status.success(), "{command}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.is_ascii());
        for line in text.lines() {
            assert!(line.len() <= 79, "{command}: {line}");
        }
    }
}

#[test]
fn the_socket_is_named_or_found() {
    let folder = Folder::new("found");
    let version = r#"{"reply":"done","with":{"message":"here"}}"#.to_owned();
    fs::create_dir(folder.0.join("var")).unwrap();
    let listener = UnixListener::bind(folder.0.join("var/admin.sock")).unwrap();
    let other = UnixListener::bind(folder.0.join("other")).unwrap();
    let replies = [version];
    thread::scope(|scope| {
        scope.spawn(|| serve(&listener, &replies));
        let output = ringpost(&folder.0, &["version"]);
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"here\n"[..]));
    });
    thread::scope(|scope| {
        scope.spawn(|| serve(&other, &replies));
        let output = Command::new(env!("CARGO_BIN_EXE_ringpost"))
            .arg("version")
            .env("RINGPOST_SOCKET", "other")
            .current_dir(&folder.0)
            .output()
            .unwrap();
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"here\n"[..]));
    });
}

#[test]
fn no_daemon_says_how_to_start_one() {
    let folder = Folder::new("none");
    let output = ringpost(&folder.0, &["status", "--socket", "nowhere"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr.starts_with("ringpost: no daemon runs here: no nowhere\n  Start it: ringpostd ")
    );
    assert!(stderr.lines().all(|line| line.len() <= 79), "{stderr}");
    // A socket whose daemon is gone.
    drop(UnixListener::bind(folder.0.join("left")).unwrap());
    let output = ringpost(&folder.0, &["status", "--socket", "left"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr.contains("left behind"), "{stderr}");
}

#[test]
fn a_user_who_may_not_is_told_who_may() {
    let root = nix::unistd::Uid::effective().is_root();
    let folder = Folder::new("denied");
    let _listener = UnixListener::bind(folder.0.join("s")).unwrap();
    fs::set_permissions(folder.0.join("s"), fs::Permissions::from_mode(0o0)).unwrap();
    // Root may always: as root, ask as nobody (whose program must then be readable for nobody).
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringpost"));
    if root {
        use std::os::unix::process::CommandExt;
        let copy = folder.0.join("ringpost");
        fs::copy(env!("CARGO_BIN_EXE_ringpost"), &copy).unwrap();
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755)).unwrap();
        command = Command::new(copy);
        command.uid(65_534).gid(65_534);
    }
    command.args(["status", "--socket", "s"]).current_dir(&folder.0);
    // Another test's child may for a moment hold the copy open for writing.
    let output = loop {
        match command.output() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => thread::yield_now(),
            output => break output.unwrap(),
        }
    };
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains(" may not use s\n  User "), "{stderr}");
    assert!(stderr.contains(" may: sudo -u "), "{stderr}");
}

#[test]
fn nonsense_and_silence_are_told_apart() {
    let folder = Folder::new("nonsense");
    for (answer, exit, says) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], 6, "makes no sense"),
        (&b"\0\0\0\x04\0\x09{}"[..], 6, "speaks version 9"),
        (&b"\0\0\0\x04\0\x01{}"[..], 6, "makes no sense"),
        (&b""[..], 3, "closed the connection"),
    ] {
        let socket = folder.0.join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                read_frame(&mut stream, &mut Decoder::new(REQUEST_OCTETS_MAX));
                stream.write_all(answer).unwrap();
            });
            let output = ringpost(&folder.0, &["status", "--socket", "s"]);
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(exit), "{stderr}");
            assert!(stderr.contains(says), "{stderr}");
        });
        fs::remove_file(socket).unwrap();
    }
    // A daemon that accepts and is silent for ever: the wait is the command line's.
    let _listener = UnixListener::bind(folder.0.join("s")).unwrap();
    let output = ringpost(&folder.0, &["status", "--socket", "s", "--timeout-s", "1"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr.contains("in time"), "{stderr}");
}
