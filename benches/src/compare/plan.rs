//! What is compared: servers, loads, rounds, as a TOML file says it, checked before anything runs.
//!
//! *Failure*: everything that cannot work is said at once, by server: a port that is taken, a
//! program that is not there, too few file descriptors.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml_span::value::{Value, ValueInner};

use crate::limits::{FLOOR_NAME, PLAN_ROUNDS_MAX};
use crate::{proc, system};

/// A plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What it is about.
    pub title: String,
    /// Rounds; the servers take turns in each.
    #[serde(default = "rounds")]
    pub rounds: usize,
    /// Seconds of one burst.
    #[serde(default = "burst_s")]
    pub burst_s: f64,
    /// Seconds of load before each burst that counts.
    #[serde(default = "warm_up_s")]
    pub warm_up_s: f64,
    /// Seconds until what was accepted must have reached the next hop.
    #[serde(default = "drain_s_max")]
    pub drain_s_max: f64,
    /// CPU of the servers.
    #[serde(default)]
    pub server_cpu: usize,
    /// CPU of source and sink.
    #[serde(default = "source_cpu")]
    pub source_cpu: usize,
    /// Run server and source under SCHED_FIFO; not for servers of many processes.
    #[serde(default)]
    pub fifo: bool,
    /// Measure the floor beside the servers.
    #[serde(default = "yes")]
    pub floor: bool,
    /// Folder of all spools; its block device is watched.
    #[serde(default)]
    pub place: Option<PathBuf>,
    /// What is sent.
    #[serde(rename = "load")]
    pub loads: Vec<Load>,
    /// To whom.
    #[serde(rename = "server")]
    pub servers: Vec<Server>,
}

/// A load.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Its name; with several numbers of sessions, each is a load of its own.
    pub name: String,
    /// Octets of a message, in the words of `mxbench source --size`.
    #[serde(default = "size")]
    pub size: String,
    /// Messages on a connection.
    #[serde(default = "per_connection")]
    pub messages_per_connection: u64,
    /// Sessions at the same time.
    #[serde(default = "sessions")]
    pub sessions: Vec<u32>,
    /// Further arguments of `mxbench source`.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Servers that get it, by group; empty: all.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The floor gets it, too: not what it cannot do, such as TLS.
    #[serde(default = "yes")]
    pub floor: bool,
}

/// A server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Ratios are taken within a group: `accept`, `relay`.
    pub group: String,
    /// Ours is held against the better of the others; a bound is no peer.
    #[serde(default)]
    pub role: Role,
    /// A line for `sh -c` that runs it in the foreground. `{port}`, `{folder}` (its own, in the
    /// place), `{sink}` (host:port), `{plans}` (the folder of the plan) and `{programs}` (that of
    /// mxbench) are filled in.
    pub command: String,
    /// Where it listens: a port of 127.0.0.1.
    pub port: u16,
    /// It hands mail on to a sink of ours; the burst ends when that has everything.
    #[serde(default)]
    pub relays: bool,
    /// How it keeps what it accepts, in words.
    #[serde(default)]
    pub sync: String,
    /// Loads that are not for it, by name.
    #[serde(default)]
    pub without: Vec<String>,
    /// Sessions it can bear.
    #[serde(default)]
    pub sessions_max: Option<u32>,
    /// Further arguments of `mxbench source`.
    #[serde(default)]
    pub arguments: Vec<String>,
}

/// What a server is in a comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Held against the better of the peers.
    Ours,
    /// One of those.
    #[default]
    Peer,
    /// Beside them, in no ratio: it keeps nothing, or is a part of ours.
    Bound,
}

fn rounds() -> usize {
    5
}
fn burst_s() -> f64 {
    2.0
}
fn warm_up_s() -> f64 {
    0.3
}
fn drain_s_max() -> f64 {
    30.0
}
fn source_cpu() -> usize {
    1
}
fn yes() -> bool {
    true
}
fn size() -> String {
    "4096".to_owned()
}
fn per_connection() -> u64 {
    20
}
fn sessions() -> Vec<u32> {
    vec![64]
}

/// One load with one number of sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its name.
    pub name: String,
    /// The name without the number of sessions.
    pub family: String,
    /// Octets of a message, in words.
    pub size: String,
    /// Messages on a connection.
    pub messages_per_connection: u64,
    /// Sessions at the same time.
    pub sessions: u32,
    /// Further arguments of the source.
    pub arguments: Vec<String>,
    /// Servers that get it, by group; empty: all.
    pub groups: Vec<String>,
    /// The floor gets it, too.
    pub floor: bool,
}

impl Run {
    /// Arguments of a source that sends it to a server for so long.
    pub fn arguments(&self, server: Option<&Server>, seconds: f64) -> Vec<String> {
        let most = server.and_then(|server| server.sessions_max).unwrap_or(u32::MAX);
        let per_connection = self.messages_per_connection.to_string();
        let words = [
            ["--size".to_owned(), self.size.clone()],
            ["--messages-per-connection".to_owned(), per_connection],
            ["--sessions".to_owned(), self.sessions.min(most).to_string()],
            ["--duration".to_owned(), seconds.to_string()],
        ];
        let own = server.map_or(&[][..], |server| &server.arguments[..]);
        [&words.concat()[..], &self.arguments, own].concat()
    }

    /// Whether some of its sessions use STARTTLS.
    pub fn has_tls(&self) -> bool {
        self.arguments.iter().any(|word| word == "--starttls")
    }

    /// Whether a server (`None`: the floor) gets it.
    pub fn is_for(&self, server: Option<&Server>) -> bool {
        let Some(server) = server else { return self.floor };
        let group = self.groups.is_empty() || self.groups.contains(&server.group);
        group && !server.without.contains(&self.family)
    }
}

impl Plan {
    /// Reads a plan.
    pub fn read(path: &Path) -> io::Result<Self> {
        let wrong = |what: String| io::Error::other(format!("{}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        Self::parse(&text).map_err(wrong)
    }

    /// Reads the text of a plan.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value = toml_span::parse(text).map_err(|error| {
            let line = text[..error.span.start.min(text.len())].lines().count().max(1);
            format!("line {line}: {error}")
        })?;
        serde_json::from_value(json(value)).map_err(|error| error.to_string())
    }

    /// Every load with every number of its sessions.
    pub fn runs(&self) -> Vec<Run> {
        let one = |load: &Load, sessions: u32| Run {
            name: if load.sessions.len() > 1 {
                format!("{}, {sessions} sessions", load.name)
            } else {
                load.name.clone()
            },
            family: load.name.clone(),
            size: load.size.clone(),
            messages_per_connection: load.messages_per_connection,
            sessions,
            arguments: load.arguments.clone(),
            groups: load.groups.clone(),
            floor: load.floor,
        };
        self.loads
            .iter()
            .flat_map(|load| load.sessions.iter().map(move |&sessions| one(load, sessions)))
            .collect()
    }

    /// The command of a server with its places filled in.
    pub fn command(&self, server: &Server, sink: Option<SocketAddr>, plans: &Path) -> String {
        let folder = self.folder(server).display().to_string();
        server
            .command
            .replace("{port}", &server.port.to_string())
            .replace("{folder}", &folder)
            .replace("{plans}", &plans.display().to_string())
            .replace("{programs}", &programs())
            .replace("{sink}", &sink.map_or_else(String::new, |sink| sink.to_string()))
    }

    /// A server's own folder.
    pub fn folder(&self, server: &Server) -> PathBuf {
        let place = self.place.clone().unwrap_or_else(std::env::temp_dir);
        place.join(format!("mxbench-{}", server.name))
    }

    /// Says all that cannot work.
    pub fn check(&self, plans: &Path) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.servers.is_empty() || self.loads.is_empty() || self.rounds == 0 {
            wrong.push("a plan needs a server, a load and a round".to_owned());
        }
        if self.rounds > PLAN_ROUNDS_MAX {
            wrong.push(format!("rounds: at most {PLAN_ROUNDS_MAX}"));
        }
        let seconds = [self.burst_s, self.warm_up_s, self.drain_s_max];
        if seconds.iter().any(|&s| Duration::try_from_secs_f64(s).is_err()) {
            wrong.push("burst_s, warm_up_s, drain_s_max: seconds".to_owned());
        }
        for cpu in [self.server_cpu, self.source_cpu] {
            if let Err(error) = proc::cpu(cpu) {
                wrong.push(error.to_string());
            }
        }
        if let Some(place) = &self.place
            && let Err(error) = proc::device_of(place).and_then(|device| proc::disk(&device))
        {
            wrong.push(format!("place {}: {error}", place.display()));
        }
        let most = self.loads.iter().flat_map(|load| &load.sessions).max().copied().unwrap_or(0);
        match system::raise_file_limit() {
            Ok(files) if u64::from(most) + 200 <= files => {}
            Ok(files) => wrong.push(format!("{most} sessions: only {files} open files allowed")),
            Err(error) => wrong.push(error.to_string()),
        }
        let mut seen = Vec::new();
        for server in &self.servers {
            if server.name == FLOOR_NAME || seen.contains(&&server.name) {
                wrong.push(format!("{}: this name is taken", server.name));
            }
            seen.push(&server.name);
            wrong.extend(self.check_server(server, plans));
        }
        wrong
    }

    fn check_server(&self, server: &Server, plans: &Path) -> Option<String> {
        let address = SocketAddr::from(([127, 0, 0, 1], server.port));
        if server.port == 0 {
            return Some(format!("{}: port 0", server.name));
        }
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            return Some(format!("{}: something listens on {address} already", server.name));
        }
        if self
            .loads
            .iter()
            .all(|load| !(load.groups.is_empty() || load.groups.contains(&server.group)))
        {
            return Some(format!("{}: no load is for group {}", server.name, server.group));
        }
        let command = self.command(server, None, plans);
        let mut words = command.split_ascii_whitespace().filter(|word| !word.contains('='));
        let program = words.find(|word| *word != "exec")?;
        let there = if program.contains('/') {
            Path::new(program).is_file()
        } else {
            std::env::var_os("PATH").is_some_and(|path| {
                std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
            })
        };
        let shell = [":", "true", "false", "exit", "cd", "rm", "trap", "set"].contains(&program);
        (!there && !shell).then(|| format!("{}: there is no program {program}", server.name))
    }
}

/// The folder of our own programs.
fn programs() -> String {
    let own = std::env::current_exe().unwrap_or_default();
    own.parent().unwrap_or_else(|| Path::new(".")).display().to_string()
}

fn json(mut value: Value<'_>) -> serde_json::Value {
    match value.take() {
        ValueInner::String(text) => text.into_owned().into(),
        ValueInner::Integer(number) => number.into(),
        ValueInner::Float(number) => number.into(),
        ValueInner::Boolean(truth) => truth.into(),
        ValueInner::Array(values) => values.into_iter().map(json).collect(),
        ValueInner::Table(table) => {
            table.into_iter().map(|(key, value)| (key.name.into_owned(), json(value))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = "title = 'two'\nrounds = 2\n[[load]]\nname = 'many'\nsessions = [1, 8]\n\
        [[load]]\nname = 'one'\nmessages_per_connection = 1\ngroups = ['accept']\n\
        [[server]]\nname = 'a'\ngroup = 'accept'\nrole = 'ours'\nport = 1\n\
        command = 'exec sh -c {port}:{folder}:{sink}'\nsessions_max = 4\narguments = ['--x']\n";

    #[test]
    fn a_plan_is_read_and_multiplied_out() {
        let plan = Plan::parse(PLAN).unwrap();
        let names: Vec<String> = plan.runs().into_iter().map(|run| run.name).collect();
        assert_eq!(names, ["many, 1 sessions", "many, 8 sessions", "one"]);
        let run = &plan.runs()[1];
        let words = run.arguments(Some(&plan.servers[0]), 0.5).join(" ");
        let expected = "--size 4096 --messages-per-connection 20 --sessions 4 --duration 0.5 --x";
        assert_eq!(words, expected);
        let mut other = plan.servers[0].clone();
        assert!(run.is_for(Some(&other)) && run.is_for(None));
        other.group = "relay".to_owned();
        assert!(run.is_for(Some(&other)) && !plan.runs()[2].is_for(Some(&other)));
        other.without = vec!["many".to_owned()];
        assert!(!run.is_for(Some(&other)));
        let sink = Some("127.0.0.1:7".parse().unwrap());
        let command = plan.command(&plan.servers[0], sink, Path::new("/plans"));
        assert!(command.starts_with("exec sh -c 1:") && command.ends_with("mxbench-a:127.0.0.1:7"));
        assert_eq!(plan.check(Path::new("/plans")), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_work_is_said() {
        assert!(Plan::parse("titel = 'x'").unwrap_err().contains("titel"));
        assert!(Plan::parse("title = 'x'\n\nrounds = [").unwrap_err().starts_with("line 3"));
        let with = |from: &str, to: &str| {
            Plan::parse(&PLAN.replace(from, to)).unwrap().check(Path::new("/plans")).join("; ")
        };
        assert!(with("exec sh", "exec no-such-program").contains("no program no-such-program"));
        assert!(with("exec sh", "/no/such").contains("no program /no/such"));
        assert!(with("rounds = 2", "rounds = 0").contains("a round"));
        assert!(with("rounds = 2", "server_cpu = 100000").contains("CPU 100000"));
        assert!(with("rounds = 2", "place = '/proc'").contains("on no block device"));
        assert!(with("[1, 8]", "[1, 90000000]").contains("open files"));
        assert!(with("group = 'accept'\nrole", "group = 'relay'\nrole").is_empty());
        assert!(with("name = 'a'", "name = 'floor'").contains("taken"));
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port().to_string();
        assert!(with("port = 1", &format!("port = {port}")).contains("something listens"));
    }
}
