//! Every command of the tree, for people and with `--json`: against a daemon under load, and
//! against a dead one. What they say, with all that differs from run to run masked, stands in
//! `tree.txt`; `RINGPOST_GOLDEN=write` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::dns::{Data, Dns};
use crate::daemon::programs::{Daemon, Folder, Setup, program};
use crate::daemon::wire::Wire;

/// Sessions that bring mail all the time.
const LOAD: usize = 3;
/// Lines of a page that are kept.
const LINES_MAX: usize = 30;

/// How a line of `commands.txt` is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exact,
    /// Only what stands at the front of its lines: names of fields, headings of columns.
    Heads,
    /// Its words, wherever the lines break: what is wrapped breaks by the length of figures.
    Words,
    NotHere,
}

struct Said {
    name: String,
    kind: Kind,
    /// Arguments of the form for people and of the JSON form.
    forms: [String; 2],
}

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("console").join(file)
}

fn commands() -> Vec<Said> {
    let text = fs::read_to_string(here("commands.txt")).expect("it is there");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let said = |line: &str| {
        let (kind, line) = match line.split_at(1) {
            (":", line) => (Kind::Heads, line),
            ("=", line) => (Kind::Words, line),
            ("!", line) => (Kind::NotHere, line),
            _ => (Kind::Exact, line),
        };
        let mut parts = line.split('|').map(|part| part.trim().to_owned());
        let name = parts.next().unwrap_or_default();
        let one = parts.next().unwrap_or_default();
        let two = parts.next().unwrap_or_else(|| one.clone());
        Said { name, kind, forms: [one, two] }
    };
    lines.map(said).collect()
}

/// Mail comes in until this is dropped, whatever the daemon answers.
struct Load {
    over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    senders: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let mut load = Self { over: Arc::default(), sent: Arc::default(), senders: Vec::new() };
        for _ in 0..LOAD {
            let (over, sent) = (Arc::clone(&load.over), Arc::clone(&load.sent));
            load.senders.push(std::thread::spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    if send_one(address).is_some() {
                        sent.fetch_add(1, Ordering::SeqCst);
                    } else {
                        std::thread::sleep(std::time::Duration::from_millis(20));
                    }
                }
            }));
        }
        load
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        for sender in self.senders.drain(..) {
            // One that failed has said so.
            let _ = sender.join();
        }
    }
}

fn send_one(address: SocketAddr) -> Option<()> {
    let mut wire = Wire::new(TcpStream::connect(address).ok()?);
    for line in [
        "",
        "HELO load.example.net\r\n",
        "MAIL FROM:<load@example.net>\r\n",
        "RCPT TO:<load@example.org>\r\n",
        "DATA\r\n",
        "Subject: load\r\n\r\nbody\r\n.\r\n",
        "QUIT\r\n",
    ] {
        wire.write(line.as_bytes()).ok()?;
        let reply = wire.line().ok()??;
        matches!(reply.first(), Some(b'2' | b'3')).then_some(())?;
    }
    Some(())
}

/// The places of one run, which stand in braces.
struct Places {
    folder: String,
    backend: String,
    waiting: Vec<String>,
}

impl Places {
    fn fill(&self, arguments: &str) -> Vec<String> {
        let mut text = arguments.replace("{folder}", &self.folder);
        text = text.replace("{backend}", &self.backend).replace("{held}", &self.waiting[0]);
        for (n, id) in self.waiting.iter().enumerate() {
            text = text.replace(&format!("{{{n}}}"), id);
        }
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// A line without what differs from run to run.
    fn mask(&self, line: &str) -> String {
        let line = line.replace(&self.folder, "DIR").replace(&self.backend, "BACKEND");
        let line = match line.split_once(", id ") {
            Some((head, id)) if id.len() == 8 && id.bytes().all(|o| o.is_ascii_hexdigit()) => {
                format!("{head}, id BAN")
            }
            _ => line,
        };
        let machine = ["device ", "health ", "link ", "engine ", "kernel "];
        if let Some(name) = machine.iter().find(|name| line.starts_with(*name)) {
            return format!("{name}..");
        }
        let words = line.split_whitespace().map(|word| {
            let ends = |c: char| !c.is_ascii_alphanumeric() && c != '.';
            let parts: Vec<String> = word.split_inclusive(ends).map(mask_part).collect();
            let word = parts.concat();
            let figures = |c: char| "N.KMGsmhd/:-+Z%".contains(c);
            if word == "-" || (word.contains('N') && word.chars().all(figures)) {
                return "N".to_owned();
            }
            word
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// A message's id, or digits.
fn mask_part(part: &str) -> String {
    let is_id = |text: &str| {
        let id = text.get(..20).unwrap_or_default();
        id.len() == 20 && id.bytes().all(|o| o.is_ascii_uppercase() || o.is_ascii_digit())
    };
    if is_id(part) {
        let rest = &part[20..];
        let rest = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
        return format!("ID{rest}");
    }
    let mut out = String::new();
    for c in part.chars() {
        match c.is_ascii_digit() {
            true if out.ends_with('N') => {}
            true => out.push('N'),
            false => out.push(c),
        }
    }
    out
}

/// What a program may rely on: the name of the reply and the keys of what it holds.
fn shape(line: &str) -> String {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let keys = |value: &Value| match value {
        Value::Object(map) => map.keys().cloned().collect::<Vec<_>>().join(" "),
        Value::Array(list) => match list.first() {
            Some(Value::Object(map)) => {
                format!("[{}]", map.keys().cloned().collect::<Vec<_>>().join(" "))
            }
            _ => "[]".to_owned(),
        },
        _ => String::new(),
    };
    let name = value["reply"].as_str().unwrap_or_else(|| panic!("no reply: {line}")).to_owned();
    format!("{name}: {}", keys(&value["with"]))
}

/// The name of a metric and its kind.
fn metric(line: &str) -> Option<&str> {
    line.strip_prefix("# TYPE ")
}

/// A name with its value behind two spaces, or headings of columns.
fn head(line: &str) -> Option<&str> {
    let name = line.split("  ").next().unwrap_or_default();
    let named = line.len() > name.len() && name.len() <= 14;
    // What the machine has differs.
    let is_machine = ["health", "link"].contains(&name);
    if named && !is_machine && name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Some(name);
    }
    let headings = ["messages ", "core ", "id "];
    let heading = line.trim_start();
    headings.iter().any(|first| heading.starts_with(first)).then_some(heading)
}

/// Words, ten a line. A sign that stands for a figure may be one word or several.
fn in_words(lines: &[String]) -> Vec<String> {
    let mut words: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
    words.dedup_by(|a, b| a == b && *a == "N");
    words.chunks(10).map(|words| words.join(" ")).collect()
}

/// Says a command; what it printed, masked.
fn say(socket: &Path, places: &Places, said: &Said, json: bool) -> String {
    let form = &said.forms[usize::from(json)];
    let mut command = Command::new(program("ringpost"));
    command.arg("--socket").arg(socket).env("RINGPOST_STATE", &places.folder);
    if json {
        command.arg("--json");
    }
    let words = said.name.split(' ').map(str::to_owned).chain(places.fill(form));
    let output = command.args(words).stdin(Stdio::null()).output().expect("ringpost runs");
    let code = output.status.code().expect("it ends by itself");
    let prefix = if json { "--json " } else { "" };
    let mut page = format!("$ ringpost {prefix}{} {form}", said.name).trim_end().to_owned();
    page.push_str(&format!("\n= {code}\n"));
    let stdout = String::from_utf8(output.stdout).expect("text");
    let stderr = String::from_utf8(output.stderr).expect("text");
    for line in stderr.lines().chain(stdout.lines().filter(|_| !json)) {
        let plain = line.is_ascii() && line.len() <= 79;
        let verbatim = ["metrics", "config show"].contains(&&*said.name);
        assert!(plain || verbatim, "{}: too wide for a terminal: {line:?}", said.name);
    }
    let mut lines: Vec<String> = match json {
        true => stdout.lines().map(shape).collect(),
        false => stdout.lines().chain(stderr.lines()).map(|line| places.mask(line)).collect(),
    };
    if said.kind == Kind::Heads && code == 0 && !json {
        let page = if said.name == "metrics" { metric } else { head };
        lines = stdout.lines().filter_map(page).map(str::to_owned).collect();
    }
    // Milliseconds of three figures do not fit where those of two do.
    if let Some(at) = lines.iter().position(|line| line == "ms") {
        lines.remove(at);
        lines[at - 1].push_str(" ms");
    }
    lines.dedup();
    if said.kind == Kind::Words && code == 0 && !json {
        lines = in_words(&lines);
    }
    lines.truncate(LINES_MAX);
    for line in lines {
        page.push_str(&format!("{line}\n"));
    }
    page
}

/// What a command leaves in the audit logs, by its name; nothing for one that only looks.
fn audited() -> BTreeMap<String, Option<String>> {
    let text = fs::read_to_string(here("audit.txt")).expect("it is there");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let line = |line: &str| {
        let (name, words) = line.split_once(" | ").expect("two parts");
        (name.to_owned(), Some(words.to_owned()).filter(|words| words != "-"))
    };
    lines.map(line).collect()
}

/// The lines of both audit logs, the daemon's and the tool's.
fn audit(folder: &Folder) -> Vec<String> {
    let files = ["log/admin/audit.log", "audit.log"].map(|file| folder.path(file));
    let text: String = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    text.lines().map(str::to_owned).collect()
}

/// What was added to the audit logs is what the table says.
fn check_audit(name: &str, words: Option<&str>, before: &[String], after: &[String]) {
    let mut new = after.to_vec();
    for line in before {
        let at = new.iter().position(|new| new == line).expect("no line goes away");
        new.remove(at);
    }
    match words {
        None => assert!(new.is_empty(), "{name} only looks: {new:?}"),
        Some(words) => {
            assert!(new.iter().any(|line| line.contains(words)), "{name}: {words}: {new:?}");
        }
    }
}

/// A daemon with some mail that waits, the first frozen.
fn daemon(backend: &Backend, dns: &Dns) -> (Daemon, Places) {
    let folder = Folder::new("tree");
    for name in ["one", "two"] {
        fs::create_dir_all(folder.path(name)).expect("made");
    }
    let mut setup = Setup::new(backend.address);
    let nowhere = Backend::nowhere();
    setup.policy =
        "relay_domains = [\"example.org\", \"stuck.example\"]\nany_recipient = true\n".to_owned();
    let route = |name: &str, domain: &str, at: SocketAddr| {
        format!(
            "[[route]]\nname = \"{name}\"\ndomains = [\"{domain}\"]\n\
             hosts = [{{ host = \"{}\", port = {} }}]\n",
            at.ip(),
            at.port()
        )
    };
    let good = route("backend", "example.org", backend.address);
    setup.routes = Some(format!("{good}{}", route("stuck", "stuck.example", nowhere)));
    setup.retry = "first_s = 3600\nfactor = 1.0\nmax_s = 3600\nexpire_s = 86400\n".to_owned();
    setup.more = dns.section();
    let mut daemon = Daemon::start_in(folder, setup);
    let mut client = Client::greeted(daemon.address);
    // One refusal stands in the logs.
    client.expect("MAIL FROM:<sender@example.net>", "250");
    client.expect("RCPT TO:<who@elsewhere.example>", "550");
    client.expect("RSET", "250");
    let mut waiting = Vec::new();
    for n in 0..=8 {
        let to = format!("user{n}@stuck.example");
        waiting.push(client.deliver("sender@example.net", &[&to], "Subject: x\r\n\r\nx\r\n"));
    }
    // The others wait for the same next hop.
    daemon.line_with(&[" == ", &waiting[0]]);
    let frozen = daemon.tool(&["queue", "freeze", &waiting[0]]);
    assert!(frozen.status.success());
    let address = backend.address.to_string();
    daemon.until("the probe of the backend", |daemon| {
        daemon.ask(&["hints", "list", "--kind", "offers"]).to_string().contains(&address)
    });
    let config = fs::read_to_string(daemon.folder.path("mx.toml")).expect("there");
    let new = config.replace("[policy]\n", "[policy]\nrcpt_max = 123\n");
    fs::write(daemon.folder.path("new.toml"), new).expect("written");
    let folder = daemon.folder.0.display().to_string();
    (daemon, Places { folder, backend: address, waiting })
}

#[test]
fn every_command_answers_under_load_and_says_what_is_wrong_when_the_daemon_is_dead() {
    let said = commands();
    let named: BTreeSet<&str> = said.iter().map(|said| &*said.name).collect();
    let backend = Backend::start(Manners { offers: vec!["SIZE 4321"], ..Manners::default() });
    let dns = Dns::start(&[
        ("mx.example.net", Data::Address("192.0.2.9".parse().expect("an address"))),
        ("spf.example", Data::Text(b"v=spf1 a:mx.example.net -all")),
    ]);
    let (mut daemon, places) = daemon(&backend, &dns);
    let tree = daemon.ask(&["commands"]);
    let tree: BTreeSet<&str> =
        tree.as_array().expect("a list").iter().filter_map(|c| c["command"].as_str()).collect();
    assert_eq!(tree, named, "tests/console/commands.txt names every command of the tree");
    let audited = audited();
    let known: BTreeSet<&str> = audited.keys().map(|name| &**name).collect();
    assert_eq!(known, named, "tests/console/audit.txt names every command of the tree");
    let socket = daemon.folder.path("admin.sock");
    let _idle = Client::greeted(daemon.address);
    let load = Load::start(daemon.address);
    daemon.until("load", |_| load.sent.load(Ordering::SeqCst) > 10);
    let mut page = "# Under load.\n".to_owned();
    for said in said.iter().filter(|said| said.kind != Kind::NotHere && said.name != "drain") {
        let before = load.sent.load(Ordering::SeqCst);
        let lines = audit(&daemon.folder);
        page.push_str(&say(&socket, &places, said, false));
        page.push_str(&say(&socket, &places, said, true));
        check_audit(&said.name, audited[&said.name].as_deref(), &lines, &audit(&daemon.folder));
        // No command stands in the way of the mail.
        if said.name != "suspend accepting" {
            daemon.until("more mail", |_| load.sent.load(Ordering::SeqCst) > before);
        }
    }
    drop(load);
    // What stays was tried, however busy the machine is.
    daemon.until("every message tried", |daemon| {
        let left = daemon.ask(&["queue", "list", "--recipient", "load@example.org"]);
        let tried = |message: &Value| message["tries"].as_u64() >= Some(1);
        left["messages"].as_array().is_some_and(|left| left.iter().all(tried))
    });
    // What is on its way to the next hop when the daemon drains stays in the spool.
    daemon.until("the load's mail at the backend", |daemon| {
        let list = daemon.ask(&["queue", "list", "--domain", "example.org"]);
        list["messages"].as_array().is_some_and(Vec::is_empty)
    });
    daemon.ledger();
    let drain = said.iter().find(|said| said.name == "drain").expect("named above");
    page.push_str(&say(&socket, &places, drain, false));
    assert!(daemon.wait().success());
    page.push_str("# Dead.\n");
    fs::remove_dir_all(daemon.folder.path("one")).expect("there");
    fs::remove_dir_all(daemon.folder.path("two")).expect("there");
    for name in ["one", "two"] {
        fs::create_dir_all(daemon.folder.path(name)).expect("made");
    }
    for said in said.iter().filter(|said| said.kind != Kind::NotHere) {
        page.push_str(&say(&socket, &places, said, false));
        page.push_str(&say(&socket, &places, said, true));
    }
    let file = here("tree.txt");
    if std::env::var_os("RINGPOST_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(&file, &page).expect("written");
    }
    let wanted = fs::read_to_string(&file).expect("it is there");
    let differs = wanted.lines().zip(page.lines()).find(|(wanted, got)| wanted != got);
    assert_eq!(differs, None, "wanted, got; the whole page:\n{page}");
    assert_eq!(wanted.lines().count(), page.lines().count(), "{page}");
}
