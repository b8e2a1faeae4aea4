//! One virtual machine: its disk, its serial line, its port 25.
//!
//! *Limits*: a guest lives `LIFE_MAX` at most. That is no verdict on the guest: it keeps the run of
//! all tests from standing still, and the error says so.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::carrier::Line;
use crate::daemon::programs::Folder;

/// After so long a wait says that it still waits.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// A limit of these tests, many times what the slowest guest took on a busy machine.
const LIFE_MAX: Duration = Duration::from_secs(20 * 60);

/// How the shell says that a command ended.
const ENDED: [&str; 10] = [
    "ended=0", "ended=1", "ended=2", "ended=3", "ended=4", "ended=5", "ended=6", "ended=7",
    "ended=8", "ended=9",
];

/// How a guest is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The kernel is handed to QEMU: no firmware, no versions.
    Direct,
    /// The same with the debug image's user space: a shell on the serial line.
    Debug,
    /// Firmware, systemd-boot, UKI.
    Firmware,
    /// The same, and the firmware starts only what is signed.
    SecureBoot,
    /// The oldest kernel and nothing of the image but the daemon (`floor`).
    Floor,
}

/// A running guest. Dropped, it is killed.
pub(crate) struct Guest {
    child: Child,
    keys: Box<dyn Write>,
    lines: Receiver<String>,
    said: Vec<String>,
    started: Instant,
    /// Where its port 25 is reached.
    pub(crate) mail: SocketAddr,
    monitor: PathBuf,
}

impl Guest {
    /// Boots a disk, with further words for QEMU.
    pub(crate) fn start(folder: &Folder, disk: &Path, start: Start, more: &[String]) -> Self {
        Self::start_on(folder, &[&drive(disk), more].concat(), start)
    }

    /// Boots a disk whose writes are all logged in a file (`record`).
    pub(crate) fn start_logged(folder: &Folder, disk: &Path, log: &Path, start: Start) -> Self {
        Self::start_on(folder, &logged(disk, log, "d"), start)
    }

    /// Boots the oldest kernel with the user space that `floor` made in the folder.
    pub(crate) fn start_floor(folder: &Folder, drives: &[String]) -> Self {
        Self::start_on(folder, drives, Start::Floor)
    }

    /// Boots a disk with a serial line that has a carrier (`carrier`).
    pub(crate) fn start_wired(folder: &Folder, disk: &Path, start: Start, line: &Line) -> Self {
        let drives = drive(disk);
        let mut qemu = Command::new("qemu-system-x86_64");
        line.plug_in(&mut qemu);
        qemu.stdin(Stdio::null()).stdout(Stdio::null());
        Self::run(qemu, folder, &drives, start, |_| (line.ours(), Box::new(line.ours())))
    }

    fn start_on(folder: &Folder, drives: &[String], start: Start) -> Self {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-serial", "stdio"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self::run(qemu, folder, drives, start, |child| {
            let serial = child.stdout.take().expect("stdout is piped");
            (serial, Box::new(child.stdin.take().expect("stdin is piped")))
        })
    }

    /// Adds the machine to a command that has a serial line, and starts it; `ends` are what the
    /// line says and where keys go.
    fn run<R: Read + Send + 'static>(
        mut qemu: Command,
        folder: &Folder,
        drives: &[String],
        start: Start,
        ends: impl FnOnce(&mut Child) -> (R, Box<dyn Write>),
    ) -> Self {
        let mail = free_port();
        let monitor = folder.path("monitor");
        let _ = std::fs::remove_file(&monitor);
        // KVM where it works; nothing here depends on it.
        let accel = std::env::var("RINGPOST_ACCEL").unwrap_or_else(|_| "tcg,thread=multi".into());
        qemu.args(["-machine", "q35", "-accel", &accel, "-cpu", "max", "-m", "512", "-smp", "2"]);
        qemu.args(["-display", "none", "-nodefaults"]);
        qemu.args(["-monitor", &format!("unix:{},server=on,wait=off", monitor.display())]);
        qemu.args(drives);
        qemu.args(["-device", "virtio-rng-pci"]);
        qemu.args(["-device", "i6300esb", "-action", "watchdog=reset"]);
        qemu.args(["-netdev", &format!("user,id=n,hostfwd=tcp:{mail}-:25")]);
        qemu.args(["-device", "virtio-net-pci,netdev=n,mac=52:54:00:12:34:56,romfile="]);
        firmware(&mut qemu, folder, start);
        let mut child = qemu.stderr(Stdio::inherit()).spawn().expect("qemu-system-x86_64");
        let (serial, keys) = ends(&mut child);
        let (to, lines) = channel();
        std::thread::spawn(move || listen(serial, &to));
        Self { child, keys, lines, said: Vec::new(), started: Instant::now(), mail, monitor }
    }

    /// Waits for a line that holds this, and returns it.
    pub(crate) fn wait_for(&mut self, what: &str) -> String {
        self.wait_for_any(&[what])
    }

    /// Waits for a line that holds one of these.
    pub(crate) fn wait_for_any(&mut self, any: &[&str]) -> String {
        loop {
            match self.lines.recv_timeout(SAY_EVERY) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if any.iter().any(|what| line.contains(what)) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    eprintln!("still waiting for {any:?}");
                    assert!(
                        self.started.elapsed() < LIFE_MAX,
                        "a limit of the tests, no verdict: the guest lives for {LIFE_MAX:?}"
                    );
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the guest ended without {any:?}:\n{}", self.said.join("\n"))
                }
            }
        }
    }

    /// Everything it said so far.
    pub(crate) fn said(&self) -> String {
        self.said.join("\n")
    }

    /// Types on the serial line.
    pub(crate) fn press(&mut self, keys: &str) {
        let line = &mut self.keys;
        line.write_all(keys.as_bytes()).and_then(|()| line.flush()).expect("QEMU reads keys");
    }

    /// Runs a command in the debug image's shell; what it said, and whether it ended well.
    pub(crate) fn shell(&mut self, command: &str) -> (String, bool) {
        let from = self.said.len();
        // What is typed is echoed: only the shell's own line has a number behind the word.
        self.press(&format!("{command}; echo ended=$?\r"));
        let end = self.wait_for_any(&ENDED);
        (self.said[from..].join("\n"), end.contains("ended=0"))
    }

    /// Gives QEMU's monitor a command.
    pub(crate) fn command(&self, words: &str) {
        let mut monitor = UnixStream::connect(&self.monitor).expect("the monitor listens");
        monitor.write_all(words.as_bytes()).expect("the monitor reads");
        monitor.write_all(b"\n").expect("the monitor reads");
        // It has taken the command when it prompts again.
        let mut seen = Vec::new();
        let mut octet = [0];
        while seen.windows(6).filter(|w| w == b"(qemu)").count() < 2 {
            if monitor.read(&mut octet).unwrap_or(0) == 0 {
                return;
            }
            seen.push(octet[0]);
        }
    }

    /// Cuts the power.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Presses the power button and waits for the end.
    pub(crate) fn power_off(mut self) -> String {
        self.command("system_powerdown");
        self.wait_for("PowerOff: now");
        let status = self.child.wait().expect("QEMU is ours");
        assert!(status.success(), "QEMU: {status}");
        self.said()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            self.said.extend(self.lines.try_iter());
            eprintln!("the guest said:\n{}", self.said());
        }
    }
}

/// What a console waits behind, without an end of the line.
const PROMPTS: [&str; 7] =
    ["login: ", "password: ", "Again: ", "> ", "Enter to type it: ", "or `quit`: ", "to do it: "];

/// Without what moves a terminal's cursor (`ESC [ ... letter`).
fn plain(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic());
        out += end.and_then(|end| part.get(end + 1..)).unwrap_or_default();
    }
    out
}

/// Passes on each line, and each prompt that nothing follows.
fn listen(mut serial: impl Read, to: &Sender<String>) {
    let (mut line, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = serial.read(&mut buffer) {
        for octet in &buffer[..length] {
            match octet {
                b'\n' => {
                    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                    let _ = to.send(text);
                    line.clear();
                }
                octet => line.push(*octet),
            }
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        // A line editor puts the cursor where it is: back to the left, then to the right.
        let shown = plain(&text).replace('\r', "");
        if PROMPTS.iter().any(|prompt| shown.ends_with(prompt)) {
            let _ = to.send(text);
            line.clear();
        }
    }
    if !line.is_empty() {
        let _ = to.send(String::from_utf8_lossy(&line).trim_end().to_owned());
    }
}

/// The disk that is booted from, as QEMU's words.
fn drive(disk: &Path) -> [String; 4] {
    [
        "-drive".to_owned(),
        format!("if=none,id=d,format=raw,file={}", disk.display()),
        "-device".to_owned(),
        "virtio-blk-pci,drive=d,bootindex=1".to_owned(),
    ]
}

/// A disk whose writes are all logged in a file, as QEMU's words; the first one is booted from.
pub(crate) fn logged(disk: &Path, log: &Path, name: &str) -> Vec<String> {
    let file = File::create(log).expect("room for the log");
    file.set_len(16 << 30).expect("a sparse file");
    let boot = if name == "d" { ",bootindex=1" } else { "" };
    let nodes = [
        format!("driver=file,node-name=f{name},filename={}", disk.display()),
        format!("driver=raw,node-name=r{name},file=f{name}"),
        format!("driver=file,node-name=l{name},filename={}", log.display()),
        format!(
            "driver=blklogwrites,node-name={name},file=r{name},log=l{name},log-sector-size=512,\
             log-super-update-interval=1"
        ),
    ];
    let mut words: Vec<String> =
        nodes.into_iter().flat_map(|node| ["-blockdev".to_owned(), node]).collect();
    words.push("-device".to_owned());
    words.push(format!("virtio-blk-pci,drive={name},serial={name}{boot}"));
    words
}

/// What the machine starts: a kernel, or its firmware.
fn firmware(qemu: &mut Command, folder: &Folder, start: Start) {
    let beside = |image: &Path| {
        let line = std::fs::read_to_string(image.with_extension("cmdline")).expect("built");
        Some((image.with_extension("kernel"), image.with_extension("initramfs"), line))
    };
    let parts = match start {
        Start::Direct => beside(super::stage::image()),
        Start::Debug => beside(super::stage::debug()),
        Start::Floor => Some(super::floor::parts(folder)),
        Start::Firmware | Start::SecureBoot => None,
    };
    if let Some((kernel, initramfs, line)) = parts {
        qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).args(["-append", &line]);
        return;
    }
    let secure = start == Start::SecureBoot;
    let name = if secure { "OVMF_VARS_4M.snakeoil.fd" } else { "OVMF_VARS_4M.fd" };
    let variables = folder.path("variables.fd");
    if !variables.exists() {
        std::fs::copy(Path::new("/usr/share/OVMF").join(name), &variables).expect("ovmf");
    }
    let code = if secure { "OVMF_CODE_4M.secboot.fd" } else { "OVMF_CODE_4M.fd" };
    let code = format!("if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/{code}");
    qemu.args(["-drive", &code]);
    let variables = variables.display();
    qemu.args(["-drive", &format!("if=pflash,format=raw,unit=1,file={variables}")]);
    if secure {
        qemu.args(["-machine", "q35,smm=on"]);
        qemu.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
    }
}

/// A port of the loopback that nobody has.
fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("bound")
}
