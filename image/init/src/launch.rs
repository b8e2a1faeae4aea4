//! The step between init and a service: the same program, started again, gives up what the service
//! must not have and becomes it. So nothing runs between fork and exec but the standard library.
//!
//! *Failure*: one line, exit code 127: the service counts as one that did not start.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::SigSet;
use nix::unistd::{Gid, Uid, setgid, setgroups, setsid, setuid};
use rustix::termios::{self, ControlModes, LocalModes, OptionalActions};
use rustix::thread::{self, CapabilitySet, CapabilitySets};

use crate::limits::{DAEMON_FILES, DAEMON_ID, DAEMON_LOCKED};
use crate::{groups, mail};

/// First word of the command line when a service is to be started.
pub(crate) const WORD: &str = "launch";

/// The line has a carrier, and ends with it.
pub(crate) const CARRIER: &str = "carrier";
/// The line has none.
pub(crate) const LOCAL: &str = "local";

type Outcome<T = ()> = Result<T, String>;

/// Becomes the service: `launch daemon PROGRAM...` or `launch console PORT SPEED LINE PROGRAM...`,
/// LINE `carrier` or `local`.
pub(crate) fn run(mut words: impl Iterator<Item = OsString>) -> String {
    let text = |word: Option<OsString>| word.and_then(|w| w.into_string().ok()).unwrap_or_default();
    let prepared = match text(words.next()).as_str() {
        "daemon" => daemon(),
        "console" => {
            let (port, speed) = (text(words.next()), text(words.next()));
            let has_carrier = text(words.next()) == CARRIER;
            console(&port, speed.parse().unwrap_or(115_200), has_carrier)
        }
        other => Err(format!("launch knows no {other:?}")),
    };
    if let Err(why) = prepared {
        return why;
    }
    let Some(program) = words.next() else { return "launch needs a program".to_owned() };
    let error = Command::new(&program).args(words).exec();
    format!("{}: {error}", program.display())
}

/// What the keeper of the XDP filter needs to load and attach it. The mail process gives it up
/// as soon as the keeper has it.
const FILTER: CapabilitySet =
    CapabilitySet::NET_ADMIN.union(CapabilitySet::PERFMON).union(CapabilitySet::BPF);

/// No root, no way back, no core files, many descriptors, locked log buffers.
fn daemon() -> Outcome {
    let step = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    groups::join(groups::MAIL);
    setrlimit(Resource::RLIMIT_NOFILE, DAEMON_FILES, DAEMON_FILES).map_err(step("files"))?;
    setrlimit(Resource::RLIMIT_MEMLOCK, DAEMON_LOCKED, DAEMON_LOCKED).map_err(step("memory"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(step("core"))?;
    SigSet::empty().thread_set_mask().map_err(step("signals"))?;
    setsid().map_err(step("session"))?;
    let gid = Gid::from_raw(DAEMON_ID);
    setgroups(&[gid]).map_err(step("groups"))?;
    setgid(gid).map_err(step("group"))?;
    let filter = mail::wants_filter(Path::new("."));
    let fail = |error: rustix::io::Errno| format!("capabilities: {error}");
    thread::set_keep_capabilities(filter).map_err(fail)?;
    setuid(Uid::from_raw(DAEMON_ID)).map_err(step("user"))?;
    if filter {
        let sets = CapabilitySets { effective: FILTER, permitted: FILTER, inheritable: FILTER };
        thread::set_capabilities(None, sets).map_err(fail)?;
        for one in FILTER.iter() {
            thread::configure_capability_in_ambient_set(one, true).map_err(fail)?;
        }
    }
    set_no_new_privs().map_err(step("privileges"))
}

/// A session of its own on the serial line, which is its controlling terminal.
fn console(port: &str, speed: u32, has_carrier: bool) -> Outcome {
    let step = |what: &'static str| move |error: nix::Error| format!("{port}: {what}: {error}");
    groups::join(groups::CONSOLE);
    SigSet::empty().thread_set_mask().map_err(step("signals"))?;
    setsid().map_err(step("session"))?;
    let path = format!("/dev/{port}");
    let line = OpenOptions::new().read(true).write(true).open(&path);
    let line = line.map_err(|error| format!("{path}: {error}"))?;
    let fail = |error: rustix::io::Errno| format!("{path}: {error}");
    set_line(&line, speed, has_carrier).map_err(fail)?;
    let _ = rustix::process::ioctl_tiocsctty(&line);
    rustix::stdio::dup2_stdin(line.as_fd()).map_err(fail)?;
    rustix::stdio::dup2_stdout(line.as_fd()).map_err(fail)?;
    rustix::stdio::dup2_stderr(line.as_fd()).map_err(fail)
}

/// Fixed speed, no flow control by lines: a cable that is unplugged must not stop a program.
/// With a carrier the next opening waits for it.
fn set_line(line: &std::fs::File, speed: u32, has_carrier: bool) -> rustix::io::Result<()> {
    let mut settings = termios::tcgetattr(line)?;
    settings.control_modes |= ControlModes::CREAD;
    settings.control_modes.set(ControlModes::CLOCAL, !has_carrier);
    settings.control_modes &= !ControlModes::CRTSCTS;
    settings.local_modes |= LocalModes::ISIG | LocalModes::ICANON | LocalModes::ECHO;
    settings.set_speed(speed)?;
    termios::tcsetattr(line, OptionalActions::Now, &settings)
}
