//! `./x run`: a node on 127.0.0.1:2525, a backend behind it, a spool that goes away again.
//!
//! Failure: a port in use or a program that ends is named, and everything started is ended.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::child::Running;

const LISTEN: &str = "127.0.0.1:2525";
const BACKEND: &str = "127.0.0.1:2600";

pub(crate) fn run() -> Result<(), String> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block().map_err(|e| format!("cannot take signals: {e}"))?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)
        .map_err(|e| format!("cannot take signals: {e}"))?;
    for address in [LISTEN, BACKEND] {
        std::net::TcpListener::bind(address)
            .map_err(|e| format!("{address} is not free ({e}); end what listens there"))?;
    }
    let place = Place::new()?;
    let outcome = serve(&place, &signals);
    fs::remove_dir_all(&place.folder)
        .map_err(|e| format!("cannot remove {}: {e}", place.folder.display()))?;
    outcome
}

/// The throw-away folder of one run.
struct Place {
    folder: PathBuf,
    programs: PathBuf,
}

impl Place {
    fn new() -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("ringpost-run-{}", std::process::id()));
        fs::create_dir_all(&folder)
            .map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
        let me = std::env::current_exe().map_err(|e| format!("cannot find my programs: {e}"))?;
        let programs = me.parent().expect("a program lies in a folder").to_path_buf();
        Ok(Self { folder, programs })
    }

    /// The commented example, its `var` moved into the throw-away folder.
    fn config(&self) -> Result<PathBuf, String> {
        let example = fs::read_to_string("docs/examples/mx.toml")
            .map_err(|e| format!("cannot read docs/examples/mx.toml: {e}"))?;
        let var = format!("\"{}/", self.folder.display());
        let path = self.folder.join("mx.toml");
        fs::write(&path, example.replace("\"var/", &var))
            .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        Ok(path)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the temporary folder's name is UTF-8")
}

fn serve(place: &Place, signals: &SignalFd) -> Result<(), String> {
    let maildir = place.folder.join("maildir");
    let config = place.config()?;
    let sink_words = ["sink", "--listen", BACKEND, "--maildir", text(&maildir), "--verbose"];
    let mut backend =
        Running::start("backend", &place.programs.join("mxbench"), &sink_words, "listening")?;
    let daemon = place.programs.join("ringpostd");
    let mut node = Running::start("ringpostd", &daemon, &["--config", text(&config)], "ready: ")?;
    println!("ringpostd listens on {LISTEN}; its backend on {BACKEND} keeps a Maildir below");
    println!("  {}", maildir.display());
    println!("Send a message from another terminal:");
    println!("  swaks --server {LISTEN} --from you@example.net --to anybody@example.org");
    println!("Ask the daemon:");
    println!(
        "  {} --socket {}/admin.sock status",
        place.programs.join("ringpost").display(),
        place.folder.display()
    );
    println!("Ctrl-C drains and ends both; the spool and the Maildir go away with them.");
    let mut shown = String::new();
    loop {
        let mut wait = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let woken = poll(&mut wait, PollTimeout::from(1000_u16)).unwrap_or(0);
        if woken > 0 {
            println!("draining");
            node.end(Duration::from_secs(10));
            backend.end(Duration::from_secs(2));
            return Ok(());
        }
        node.check()?;
        backend.check()?;
        if let Some(line) = counters(place)
            && line != shown
        {
            println!("{line}");
            shown = line;
        }
    }
}

/// One line of the ledger, asked with the admin tool as anybody would.
fn counters(place: &Place) -> Option<String> {
    let socket = place.folder.join("admin.sock");
    let answer = Command::new(place.programs.join("ringpost"))
        .args(["--socket", text(&socket), "--json", "ledger"])
        .output()
        .ok()?;
    let ledger: serde_json::Value = serde_json::from_slice(&answer.stdout).ok()?;
    let fields = ["accepted", "delivered", "bounced", "queued"];
    let parts: Vec<String> = fields
        .iter()
        .filter_map(|name| Some(format!("{name} {}", ledger.get(name)?.as_u64()?)))
        .collect();
    (!parts.is_empty()).then(|| parts.join("  "))
}
