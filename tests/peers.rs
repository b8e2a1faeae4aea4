//! Other people's mail programs beside ours: real neighbours that send and receive, real clients.
//!
//! *Guarantees.* A peer is ready when it is handed out, by its own greeting. It ends, with all it
//! started, when its [`Peer`] is dropped or the test's process dies. It writes to memory only, and
//! to a folder of the test's where its mail and log can be read.
//!
//! *Limits.* Needs root (name spaces, root folders). The first call builds the root folders
//! (`tests/peers/setup`, a minute or two); later ones find them in `RINGPOST_CACHE`.
//!
//! *Failure.* A panic with the peer's log.

mod neighbours;
mod ours;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::daemon::refusals;

/// What can be started as a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Software {
    /// Debian's Postfix. Extra settings are `key=value` of main.cf.
    Postfix,
    /// Debian's Exim (light). Extra settings are lines of the main section.
    Exim,
    /// Postfix's smtp-sink: takes all, relays nothing. Extra settings are its options.
    Sink,
}

impl Software {
    const fn word(self) -> &'static str {
        match self {
            Self::Postfix => "postfix",
            Self::Exim => "exim",
            Self::Sink => "sink",
        }
    }

    const fn root(self) -> &'static str {
        match self {
            Self::Postfix | Self::Sink => "postfix",
            Self::Exim => "exim",
        }
    }

    const fn script(self) -> &'static str {
        match self {
            Self::Postfix => "postfix",
            Self::Exim => "exim",
            Self::Sink => "sink",
        }
    }
}

/// How long to look away between two looks at something that is not there yet.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Ports tried: another process may take a free one before the peer does.
const PORTS_MAX: usize = 5;

/// A mail server of somebody else's, on a port of 127.0.0.1.
#[derive(Debug)]
pub(crate) struct Peer {
    software: Software,
    domain: String,
    relay: Option<SocketAddr>,
    settings: Vec<String>,
    port: u16,
    folder: Folder,
    child: Option<Child>,
}

impl Peer {
    /// Starts one that takes mail for `domain` into its Maildir and, when `relay` is given,
    /// everything else from this machine to that address (without: refuses it).
    pub(crate) fn start(
        software: Software,
        domain: &str,
        relay: Option<SocketAddr>,
        settings: &[&str],
    ) -> Self {
        let mut peer = Self {
            software,
            domain: domain.to_owned(),
            relay,
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            port: 0,
            folder: Folder::new(),
            child: None,
        };
        fs::create_dir(peer.folder.0.join("Maildir")).expect("a fresh folder");
        for _ in 0..PORTS_MAX {
            peer.port = free_port();
            if peer.run() {
                return peer;
            }
        }
        panic!("{software:?} does not start:\n{}", peer.log());
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Ends it and all its processes; what it had queued is gone, its Maildir stays.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The end of its standard input ends it; the wait ends when the last process is gone.
            drop(child.stdin.take());
            child.wait().expect("a child of ours");
        }
    }

    /// Starts it again on the same port.
    pub(crate) fn start_again(&mut self) {
        self.stop();
        assert!(self.run(), "{:?} does not start again:\n{}", self.software, self.log());
    }

    /// The mails in its Maildir, in no order.
    pub(crate) fn mails(&self) -> Vec<Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.folder.0.join("Maildir/new")) else {
            return Vec::new();
        };
        entries.flatten().filter_map(|entry| fs::read(entry.path()).ok()).collect()
    }

    /// Waits until there are `count` mails; panics when it ends before.
    pub(crate) fn wait_for_mails(&mut self, count: usize) -> Vec<Vec<u8>> {
        loop {
            let mails = self.mails();
            if mails.len() >= count {
                return mails;
            }
            assert!(!self.has_ended(), "{:?} ended:\n{}", self.software, self.log());
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(self.folder.0.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Runs it; true when its greeting was heard, false when it ended before.
    fn run(&mut self) -> bool {
        let scripts = scripts();
        let start = self.folder.0.join("start");
        fs::copy(scripts.join(self.software.script()), start).expect("the script of the peer");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.0.join("log"))
            .expect("a log in a fresh folder");
        let relay = self.relay.map_or_else(String::new, |to| match self.software {
            Software::Exim => format!("{}::{}", to.ip(), to.port()),
            _ => format!("[{}]:{}", to.ip(), to.port()),
        });
        let name = format!("{}.{}", self.software.word(), self.domain);
        let mut child = enter(self.software.root(), &self.folder.0)
            .args(["/mail/start", &self.port.to_string(), &name, &self.domain, &relay])
            .args(&self.settings)
            .env("RINGPOST_PEER", "server")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("one more descriptor"))
            .stderr(log)
            .spawn()
            .expect("a shell");
        let ready = loop {
            if greeting(self.port).is_some_and(|line| line.contains(&name)) {
                break true;
            }
            if child.try_wait().expect("a child of ours").is_some() {
                break false;
            }
            thread::sleep(LOOK_AGAIN);
        };
        self.child = ready.then_some(child);
        ready
    }

    fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().expect("a child of ours").is_some())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A client program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// One mail, every option.
    Swaks,
    /// Many mails: `-m COUNT -s SESSIONS -f FROM -t TO HOST:PORT`.
    SmtpSource,
    /// What a server says about TLS.
    PosttlsFinger,
}

/// A command that runs a client; add arguments. `/mail` is `folder`.
pub(crate) fn tool(tool: Tool, folder: &Path) -> Command {
    let (root, program) = match tool {
        Tool::Swaks => ("clients", "swaks"),
        Tool::SmtpSource => ("postfix", "smtp-source"),
        Tool::PosttlsFinger => ("postfix", "posttls-finger"),
    };
    let mut command = enter(root, folder);
    command.arg(program).stdin(Stdio::null());
    command
}

/// Runs a client to its end; its output, both kinds: `Err` when it says that it failed.
pub(crate) fn try_tool(which: Tool, arguments: &[&str]) -> Result<String, String> {
    let folder = Folder::new();
    let output = tool(which, &folder.0).args(arguments).output().expect("a shell");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if let Some(port) = port_in(arguments) {
        refusals::note_text(port, &text);
    }
    if output.status.success() { Ok(text) } else { Err(format!("{}\n{text}", output.status)) }
}

/// The port that a client is sent to: of `HOST:PORT`, or behind `--port`.
fn port_in(arguments: &[&str]) -> Option<u16> {
    let named = arguments.iter().find_map(|word| word.parse::<SocketAddr>().ok());
    let behind = || arguments.iter().skip_while(|word| **word != "--port").nth(1);
    named.map(|address| address.port()).or_else(|| behind()?.parse().ok())
}

/// The same for what must succeed.
pub(crate) fn run_tool(which: Tool, arguments: &[&str]) -> String {
    try_tool(which, arguments).unwrap_or_else(|error| panic!("{which:?} {arguments:?}: {error}"))
}

/// A folder that goes away.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringpost-peer-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Left behind by a process that had our id and was killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder for temporary files");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// The folder with the root folders, built when missing.
fn roots() -> &'static Path {
    static ROOTS: OnceLock<PathBuf> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let output = Command::new(scripts().join("setup"))
            .stderr(Stdio::inherit())
            .output()
            .expect("tests/peers/setup runs");
        assert!(output.status.success(), "tests/peers/setup failed");
        let text = String::from_utf8(output.stdout).expect("a path in UTF-8");
        PathBuf::from(text.trim_end())
    })
}

/// A command within a root folder.
fn enter(root: &str, folder: &Path) -> Command {
    let mut command = Command::new(scripts().join("enter"));
    command.arg(roots().join(root)).arg(folder);
    command
}

/// A port that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound socket").port()
}

/// The first line a server says, when one listens.
fn greeting(port: u16) -> Option<String> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    Some(line)
}
