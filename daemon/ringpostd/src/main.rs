//! `ringpostd`: its command line.
//!
//! *Failure*: one line on standard error with what to do; exit codes as in `sysexits.h`: 64 command
//! line, 69 something needed is not there, 70 a core failed, 71 the system said no, 78 config.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ringpostd::boot::{self, BootError, exit};
use ringpostd::config::Sandbox;
use ringpostd::{cage, config, supervise};

/// A message costs some twenty allocations of all sizes, made and freed on one core.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
ringpostd: a mail exchanger.

    ringpostd --config FILE               run
    ringpostd --config FILE --supervise   run, and run again whatever happens
    ringpostd gate [--pins FOLDER] [--cage auto|must|off]
                                          the XDP filter's keeper; --supervise starts it
    ringpostd --check FILE                say all that is wrong with a config, start nothing
    ringpostd --check FILE --against OLD  and what it may not change of the one in force
    ringpostd --probe FOLDER              try 10,000 durable writes there, say how they went
    ringpostd --sandbox FILE              enter the sandbox of a config, say what it refuses
    ringpostd --print-config-docs         every key of a config, as Markdown
    ringpostd --version
    ringpostd --help

Signals: SIGTERM, SIGINT end it when open sessions are done; SIGHUP reads the config again, as a
whole or not at all. To a supervisor, SIGUSR2 replaces the daemon without refusing a connection.

Exit codes: 0 ended as asked, 64 command line, 69 something needed is not there (address, kernel,
spool in use), 70 a core failed (start it again), 71 the system said no, 78 config.
";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Run { config: PathBuf, supervise: bool },
    Gate { pins: Option<PathBuf>, cage: Sandbox },
    Check(PathBuf, Option<PathBuf>),
    Probe(PathBuf),
    Sandbox(PathBuf),
    Docs,
    Version,
    Help,
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut arguments = arguments;
    let (mut config, mut supervise, mut other, mut against) = (None, false, None, None);
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(OsString::from(value))),
            None => (text.into_owned(), None),
        };
        let mut file = || {
            let value = value.clone().or_else(|| arguments.next());
            value.map(PathBuf::from).ok_or_else(|| format!("{name} needs a file"))
        };
        match name.as_str() {
            "--config" | "-c" => config = Some(file()?),
            "gate" => other = Some(Command::Gate { pins: None, cage: Sandbox::Auto }),
            "--pins" | "--cage" if let Some(Command::Gate { pins, cage }) = &mut other => {
                let value = file()?;
                if name == "--pins" {
                    *pins = Some(value);
                } else {
                    let all = [Sandbox::Auto, Sandbox::Must, Sandbox::Off];
                    let known = all.into_iter().find(|one| Path::new(one.as_str()) == value);
                    *cage = known.ok_or("--cage is auto, must or off")?;
                }
            }
            "--check" => other = Some(Command::Check(file()?, None)),
            "--against" => against = Some(file()?),
            "--probe" => other = Some(Command::Probe(file()?)),
            "--sandbox" => other = Some(Command::Sandbox(file()?)),
            "--supervise" => supervise = true,
            "--print-config-docs" => other = Some(Command::Docs),
            "--version" | "-V" => other = Some(Command::Version),
            "--help" | "-h" => other = Some(Command::Help),
            _ => return Err(format!("{name} is not known")),
        }
    }
    match (other, config) {
        (Some(Command::Check(file, _)), _) => Ok(Command::Check(file, against)),
        (Some(other), _) => Ok(other),
        (None, Some(config)) => Ok(Command::Run { config, supervise }),
        (None, None) => Err("--config FILE is missing".to_owned()),
    }
}

fn main() -> ExitCode {
    match parse(std::env::args_os().skip(1)) {
        Ok(Command::Run { config, supervise }) => run(&config, supervise),
        Ok(Command::Gate { pins, cage }) => gate(pins.as_deref(), cage),
        Ok(Command::Check(file, against)) => check(&file, against.as_deref()),
        Ok(Command::Probe(folder)) => match boot::probe(&folder) {
            Ok(said) => print(&said),
            Err(error) => fail(&error),
        },
        Ok(Command::Sandbox(file)) => sandbox(&file),
        Ok(Command::Docs) => print(&config::config_page()),
        Ok(Command::Version) => print(&format!("ringpostd {}\n", env!("CARGO_PKG_VERSION"))),
        Ok(Command::Help) => print(HELP),
        Err(what) => {
            eprintln!("ringpostd: {what}; `ringpostd --help` shows what is");
            ExitCode::from(exit::USAGE)
        }
    }
}

fn run(config: &Path, supervise: bool) -> ExitCode {
    let result = if supervise {
        supervise::run(config)
    } else {
        let supervised = std::env::var_os(supervise::PARENT).is_some();
        // First of all: these descriptors' numbers are promised to be theirs.
        let inherited = engine::host::inherited_sockets();
        supervise::follow_parent();
        lent_gate().and_then(|gate| boot::run(config, inherited, supervised, gate))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// The socket to the gate, on standard input, if the supervisor started one. Whoever has a gate
/// needs no privilege but that of low ports.
fn lent_gate() -> Result<Option<OwnedFd>, BootError> {
    if std::env::var_os(supervise::GATE).is_none() {
        return Ok(None);
    }
    let os =
        |what: &str, error: &dyn std::fmt::Display| BootError::os(format!("{what}: {error}"), "");
    let socket = std::io::stdin().as_fd().try_clone_to_owned();
    let socket = socket.map_err(|error| os("the gate's socket", &error))?;
    gate::keep_low_ports().map_err(|error| os("giving up privileges", &error))?;
    Ok(Some(socket))
}

/// Keeps the filter for the process at the other end of standard input, until that is gone.
fn gate(pins: Option<&Path>, wanted: Sandbox) -> ExitCode {
    let end = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| error.to_string());
    let served = end.and_then(|socket| {
        let loaded = gate::Gate::load(pins).and_then(|gate| gate::confine().map(|()| gate));
        let caged = cage::enter_keeper(wanted, pins)?;
        if caged.contains("not whole") {
            eprintln!("ringpostd: gate: {caged}");
        }
        match loaded {
            Ok(mut gate) => gate::serve(&socket, &mut gate),
            Err(problem) => gate::refuse(&socket, &problem),
        }
        .map_err(|problem| problem.to_string())
    });
    if let Err(why) = served {
        eprintln!("ringpostd: gate: {why}");
        return ExitCode::from(exit::OS);
    }
    ExitCode::SUCCESS
}

fn fail(error: &BootError) -> ExitCode {
    for line in error.to_string().lines() {
        eprintln!("ringpostd: {line}");
    }
    ExitCode::from(error.code)
}

fn check(file: &Path, against: Option<&Path>) -> ExitCode {
    let (lines, code) = match boot::check(file, against) {
        Ok(notes) => (notes, exit::OK),
        Err(problems) => (problems, exit::CONFIG),
    };
    for line in &lines {
        eprintln!("{line}");
    }
    if code == exit::OK {
        return print(&format!("{}: good\n", file.display()));
    }
    ExitCode::from(code)
}

fn sandbox(file: &Path) -> ExitCode {
    match boot::rehearse_cage(file) {
        Ok((said, true)) => print(&said),
        Ok((said, false)) => {
            print(&said);
            ExitCode::from(exit::OS)
        }
        Err(error) => fail(&error),
    }
}

fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    // A reader that has seen enough is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Command, String> {
        parse(text.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_command_line_is_read() {
        let run = |supervise| Ok(Command::Run { config: "a".into(), supervise });
        assert_eq!(parsed("--config a"), run(false));
        assert_eq!(parsed("--config=a --supervise"), run(true));
        assert_eq!(parsed("--check b"), Ok(Command::Check("b".into(), None)));
        let both = Command::Check("b".into(), Some("a".into()));
        assert_eq!(parsed("--check b --against a"), Ok(both));
        assert_eq!(parsed("--probe=c"), Ok(Command::Probe("c".into())));
        assert_eq!(parsed("--config a --help"), Ok(Command::Help));
        let gate =
            |pins: Option<&str>, cage| Ok(Command::Gate { pins: pins.map(Into::into), cage });
        assert_eq!(parsed("gate"), gate(None, Sandbox::Auto));
        assert_eq!(parsed("gate --cage must --pins f"), gate(Some("f"), Sandbox::Must));
        assert!(parsed("gate --cage no").unwrap_err().contains("auto, must or off"));
        assert!(parsed("--cage off").unwrap_err().contains("not known"));
        assert!(parsed("").unwrap_err().contains("--config"));
        assert!(parsed("--config").unwrap_err().contains("needs a file"));
        assert!(parsed("--cofnig a").unwrap_err().contains("not known"));
    }
}
