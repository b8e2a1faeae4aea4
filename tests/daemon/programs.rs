//! Our programs as they are shipped: where they lie, a daemon with its own folder and ports.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::refusals::{self, Explained, Whom};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long to look away between two looks at something that is not there yet.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Looks after which a wait says on standard error that it waits.
const SAY_AFTER: u32 = 1000;

/// The folder of the release build: `./x test` makes it before the tests run.
pub(crate) fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("a test has a path");
    let target = here.ancestors().nth(3).expect("target/<profile>/deps/<test>");
    let path = target.join("release").join(name);
    assert!(
        path.exists(),
        "{} is missing: run ./x test, or cargo build --release -p {name}",
        path.display()
    );
    path
}

/// A folder of its own for one test, removed when the test passes.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let base =
            std::env::var_os("RINGPOST_TEST_DIR").map_or_else(std::env::temp_dir, Into::into);
        let path = base.join(format!("ringpost-{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary folder can be made");
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// What a test wants of its daemon besides the usual.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) cores: u32,
    pub(crate) backend: SocketAddr,
    /// Keys below `[policy]`.
    pub(crate) policy: String,
    /// Keys below `[limits]`.
    pub(crate) limits: String,
    /// Keys of the listener.
    pub(crate) listener: String,
    /// Keys of the one route, besides its hosts.
    pub(crate) route: String,
    /// Instead of the one route to `backend`: whole sections.
    pub(crate) routes: Option<String>,
    pub(crate) retry: String,
    /// Keys below `[log]`.
    pub(crate) log: String,
    /// Keys below `[node]`.
    pub(crate) node: String,
    /// Whole sections at the end.
    pub(crate) more: String,
    /// Segments of 16 MiB.
    pub(crate) segments: u32,
    /// Further keys below `[spool]`.
    pub(crate) spool: String,
    /// Where the spool is, besides the folder's own: a device.
    pub(crate) place: Option<String>,
    /// Further words on the command line.
    pub(crate) words: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

impl Setup {
    pub(crate) fn new(backend: SocketAddr) -> Self {
        Self {
            cores: 2,
            backend,
            policy: "relay_domains = [\"example.org\"]\nany_recipient = true\n".to_owned(),
            limits: String::new(),
            listener: "tls = \"none\"\n".to_owned(),
            route: String::new(),
            routes: None,
            retry: "first_s = 1\nfactor = 1.0\nmax_s = 1\nexpire_s = 3600\n".to_owned(),
            log: String::new(),
            node: String::new(),
            more: String::new(),
            segments: 8,
            spool: String::new(),
            place: None,
            words: Vec::new(),
            environment: Vec::new(),
        }
    }

    fn config(&self, folder: &Folder) -> String {
        let at = |name: &str| folder.path(name).display().to_string();
        let routes = self.routes.clone().unwrap_or_else(|| {
            format!(
                "[[route]]\nname = \"backend\"\ndomains = [\"*\"]\n{route}\
                 hosts = [{{ host = \"{host}\", port = {port} }}]\n",
                route = self.route,
                host = self.backend.ip(),
                port = self.backend.port(),
            )
        });
        format!(
            "[node]\nhostname = \"mx.example.org\"\ncores = {cores}\n{node}\
             [[listener]]\naddress = \"127.0.0.1\"\nport = 0\n{listener}\
             [policy]\n{policy}\
             [limits]\n{limits}\
             {routes}\
             [retry]\n{retry}\
             [spool]\nplaces = [\"{spool}\"]\nsegments = {segments}\nsegment_mib = 16\n{more_spool}\
             [hints]\nfile = \"{hints}\"\nsize = \"16 MiB\"\n\
             [log]\ndir = \"{dir}\"\n{log}\
             [admin]\nsocket = \"{admin}\"\n{more}",
            cores = self.cores,
            node = self.node,
            listener = self.listener,
            policy = self.policy,
            limits = self.limits,
            retry = self.retry,
            spool = self.place.clone().unwrap_or_else(|| at("spool")),
            more_spool = self.spool,
            segments = self.segments,
            hints = at("hints"),
            dir = at("log"),
            log = self.log,
            admin = at("admin.sock"),
            more = self.more.replace("{folder}", &folder.0.display().to_string()),
        )
    }
}

/// A running ringpostd. Dropped, it is killed.
pub(crate) struct Daemon {
    child: Child,
    /// Of its first listener.
    pub(crate) address: SocketAddr,
    /// Of all its listeners.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) folder: Folder,
    setup: Setup,
    explained: Mutex<Explained>,
}

impl Daemon {
    pub(crate) fn start(name: &str, setup: Setup) -> Self {
        Self::start_in(Folder::new(name), setup)
    }

    /// On a folder that the test has filled already.
    pub(crate) fn start_in(folder: Folder, setup: Setup) -> Self {
        fs::write(folder.path("mx.toml"), setup.config(&folder)).expect("config written");
        let (child, addresses) = spawn(&folder, &setup)
            .unwrap_or_else(|said| panic!("ringpostd does not start: {said}"));
        let explained = Mutex::default();
        Self { child, address: addresses[0], addresses, folder, setup, explained }
    }

    /// What it says when it does not start.
    pub(crate) fn refusal(name: &str, setup: &Setup) -> String {
        let folder = Folder::new(name);
        fs::write(folder.path("mx.toml"), setup.config(&folder)).expect("config written");
        match spawn(&folder, setup) {
            Err(said) => said,
            Ok((child, _)) => {
                drop(Running(child));
                panic!("ringpostd starts, and should not");
            }
        }
    }

    /// kill -9, as a power cut of the process.
    pub(crate) fn kill(&mut self) {
        self.explain_refusals();
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
        self.explain_of_files(true);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it runs");
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// SIGTERM, and the exit status. The books must balance before.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.ledger();
        self.explain_refusals();
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Every refusal that a client of the tests heard has an id, and `why` knows the cause.
    fn explain_refusals(&self) {
        self.explain(Whom::Daemon, |id| self.tool(&["why", id]));
    }

    /// The same when it is gone: its log files know. Of what was said in the moment of a kill only
    /// what they have is asked for.
    fn explain_of_files(&self, killed: bool) {
        if killed {
            self.ports().for_each(refusals::forget);
        }
        let folder = self.folder.path("log").display().to_string();
        self.explain(Whom::Files, |id| self.tool(&["why", id, "--dir", &folder]));
    }

    fn ports(&self) -> impl Iterator<Item = u16> {
        self.addresses.iter().map(SocketAddr::port)
    }

    fn explain(&self, whom: Whom, why: impl Fn(&str) -> Output) {
        let ports: Vec<u16> = self.ports().collect();
        self.explained.lock().expect("asked by one").ask(whom, &ports, &self.log(), why);
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().expect("it ends");
        self.explain_of_files(!status.success());
        status
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The same node again on the same folder (and another port).
    pub(crate) fn start_again(&mut self) {
        self.try_start_again().unwrap_or_else(|said| panic!("ringpostd does not start: {said}"));
    }

    /// The same, when it may end before it is ready.
    pub(crate) fn try_start_again(&mut self) -> Result<(), String> {
        let (child, addresses) = spawn(&self.folder, &self.setup)?;
        self.child = child;
        self.address = addresses[0];
        self.addresses = addresses;
        Ok(())
    }

    /// Another config from the next start or reload on.
    pub(crate) fn set(&mut self, change: impl FnOnce(&mut Setup)) {
        change(&mut self.setup);
        let text = self.setup.config(&self.folder);
        fs::write(self.folder.path("mx.toml"), text).expect("config written");
    }

    /// SIGHUP, and the wait for what the log says of it: `reloaded` or `refused`.
    pub(crate) fn reload(&mut self) -> String {
        let said = |log: &str| {
            let about = |line: &&str| line.contains(" reloaded") || line.contains(" reload");
            log.lines().filter(about).map(str::to_owned).collect::<Vec<_>>()
        };
        let before = said(&self.log()).len();
        self.signal(Signal::SIGHUP);
        self.until("a reload in the log", |daemon| said(&daemon.log()).len() > before);
        said(&self.log())[before].clone()
    }

    /// The admin tool with these words.
    pub(crate) fn tool(&self, words: &[&str]) -> Output {
        Command::new(program("ringpost"))
            .arg("--socket")
            .arg(self.folder.path("admin.sock"))
            .args(words)
            .env("RINGPOST_STATE", self.folder.path("state"))
            .output()
            .expect("ringpost runs")
    }

    /// The admin tool's answer to these words: what stands below `with`.
    pub(crate) fn ask(&self, words: &[&str]) -> Value {
        let output = self.tool(&[&["--json"], words].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "ringpost {words:?}: {said}");
        let mut answer: Value =
            serde_json::from_slice(&output.stdout).expect("ringpost --json prints JSON");
        answer["with"].take()
    }

    /// The books, which always balance.
    pub(crate) fn ledger(&self) -> Ledger {
        let books = self.ask(&["ledger"]);
        let number = |name: &str| books[name].as_u64().unwrap_or_else(|| panic!("{name}: {books}"));
        let ledger = Ledger {
            accepted: number("accepted"),
            generated: number("generated"),
            delivered: number("delivered"),
            bounced: number("bounced"),
            held: number("held"),
            queued: number("queued"),
            rest: number("handed_over") + number("double_bounces") + number("removed"),
        };
        let out = ledger.delivered + ledger.bounced + ledger.held + ledger.queued + ledger.rest;
        assert_eq!(ledger.accepted + ledger.generated, out, "the books do not balance: {books}");
        ledger
    }

    /// Waits until nothing is queued.
    pub(crate) fn until_empty(&mut self) {
        self.until("an empty queue", |daemon| daemon.ledger().queued == 0);
    }

    /// The main log so far.
    pub(crate) fn log(&self) -> String {
        read(&self.folder.path("log/mainlog"))
    }

    pub(crate) fn reject_log(&self) -> String {
        read(&self.folder.path("log/rejectlog"))
    }

    /// What it said on standard error.
    pub(crate) fn said(&self) -> String {
        read(&self.folder.path("stderr"))
    }

    /// Waits until the main log has a line with all of these.
    pub(crate) fn line_with(&mut self, parts: &[&str]) -> String {
        let find = |log: &str| {
            let fits = |line: &&str| parts.iter().all(|part| line.contains(part));
            log.lines().find(fits).map(str::to_owned)
        };
        self.until(&format!("a log line with {parts:?}"), |daemon| find(&daemon.log()).is_some());
        find(&self.log()).expect("just seen")
    }

    /// Waits for a condition of the world to come true; only a broken build waits for ever.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        for round in 1_u32.. {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("ringpostd ended ({status}) while waiting for {what}: {}", self.said());
            }
            if holds(self) {
                return;
            }
            if round.is_multiple_of(SAY_AFTER) {
                eprintln!("still waiting for {what}\n{}{}", tail(&self.log()), self.said());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

/// The books of a daemon, in recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) accepted: u64,
    pub(crate) generated: u64,
    pub(crate) delivered: u64,
    pub(crate) bounced: u64,
    pub(crate) held: u64,
    pub(crate) queued: u64,
    pub(crate) rest: u64,
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log ends:\n{}\n{}", tail(&self.log()), tail(&self.said()));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            if !std::thread::panicking() {
                self.explain_refusals();
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Starts the program and reads the addresses from its line `ready: 127.0.0.1:40123`.
fn spawn(folder: &Folder, setup: &Setup) -> Result<(Child, Vec<SocketAddr>), String> {
    let errors = File::options()
        .create(true)
        .append(true)
        .open(folder.path("stderr"))
        .expect("a file in our folder");
    let mut child = Command::new(program("ringpostd"))
        .arg("--config")
        .arg(folder.path("mx.toml"))
        .args(&setup.words)
        .envs(setup.environment.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .expect("ringpostd starts");
    match ready(&mut child, "ready: ") {
        Some(line) => {
            let addresses = line.split_whitespace().map(|a| a.parse().expect("an address"));
            let addresses: Vec<SocketAddr> = addresses.collect();
            // A port may have been that of a daemon that was killed.
            addresses.iter().for_each(|address| refusals::forget(address.port()));
            Ok((child, addresses))
        }
        None => {
            let status = child.wait().expect("a child of ours");
            Err(format!("{status}: {}", read(&folder.path("stderr"))))
        }
    }
}

/// What follows `prefix` on the first line of a child's output that begins so; `None` when it
/// ends before. The rest of its output is read and forgotten.
pub(crate) fn ready(child: &mut Child, prefix: &str) -> Option<String> {
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).expect("its output is text") == 0 {
            return None;
        }
        if let Some(rest) = line.strip_prefix(prefix) {
            std::thread::spawn(move || {
                let mut rest = Vec::new();
                let _ = lines.read_to_end(&mut rest);
            });
            return Some(rest.trim().to_owned());
        }
    }
}

/// A running child that is killed when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// SIGTERM and the wait.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a pid"));
        let _ = kill(pid, Signal::SIGTERM);
        self.0.wait().expect("it ends")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// `mxbench sink` with a Maildir; where it listens.
pub(crate) fn sink(maildir: &Path, listen: &str, words: &[&str]) -> (Running, SocketAddr) {
    let mut child = Command::new(program("mxbench"))
        .args(["sink", "--listen", listen, "--maildir"])
        .arg(maildir)
        .args(words)
        .stdout(Stdio::piped())
        .spawn()
        .expect("mxbench starts");
    let address = ready(&mut child, "mxbench sink: listening on ").expect("it listens");
    (Running(child), address.parse().expect("an address"))
}

/// A source of many sessions that goes on whatever happens to the server; a list of the ids that
/// were acknowledged.
pub(crate) fn load(target: SocketAddr, acked: &Path, words: &[&str]) -> Child {
    Command::new(program("mxbench"))
        .args(["source", "--tolerant", "--failures-max", "50", "--target", &target.to_string()])
        .args(["--refusals", &refusals::file(target.port()), "--acked"])
        .arg(acked)
        .args(words)
        .stdout(Stdio::null())
        .spawn()
        .expect("mxbench starts")
}

/// Runs `mxbench source` to its end; its JSON.
pub(crate) fn source(target: SocketAddr, words: &[&str]) -> Value {
    let output = Command::new(program("mxbench"))
        .args(["source", "--json", "--target", &target.to_string()])
        .args(["--refusals", &refusals::file(target.port())])
        .args(words)
        .stderr(Stdio::inherit())
        .output()
        .expect("mxbench runs");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("mxbench source: {error}: {}", String::from_utf8_lossy(&output.stdout))
    })
}

/// Runs `ringpostd --check` on a config text; status and what it says.
pub(crate) fn check(folder: &Folder, text: &str) -> (bool, String) {
    let path: &Path = &folder.path("checked.toml");
    fs::write(path, text).expect("written");
    let output =
        Command::new(program("ringpostd")).arg("--check").arg(path).output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}
