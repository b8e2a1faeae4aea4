//! Programs that init waits for: mkfs, a config check.
//!
//! *Limits*: each ends within `HELPER`, or is killed; within `ANSWER` where PID 1's loop waits.
//! *Failure*: the program's own last words.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::limits::{ANSWER, DAEMON_ID, HELPER};

/// Octets of a helper's words that are passed on.
const WORDS_MAX: u64 = 2048;

/// Runs a program as root until it ends well.
///
/// # Errors
/// What it said, or that it is not there.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    finish(program, Command::new(program).args(arguments))
}

/// Runs a program that answers soon: its exit code, and what it said.
///
/// # Errors
/// It is not there, or does not end.
pub(crate) fn ask(program: &str, arguments: &[&str]) -> Result<(i32, String), String> {
    ended(program, Command::new(program).args(arguments), ANSWER)
}

/// Runs a program as the daemon's user, in a folder.
///
/// # Errors
/// What it said, or that it is not there.
pub(crate) fn run_as_daemon(
    program: &str,
    arguments: &[&str],
    folder: &Path,
) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).uid(DAEMON_ID).gid(DAEMON_ID);
    finish(program, &mut command)
}

fn finish(program: &str, command: &mut Command) -> Result<(), String> {
    match ended(program, command, HELPER)? {
        (0, _) => Ok(()),
        (_, said) => Err(said.trim().to_owned()),
    }
}

fn ended(
    program: &str,
    command: &mut Command,
    patience: Duration,
) -> Result<(i32, String), String> {
    let fail = |error: std::io::Error| format!("{program}: {error}");
    let path = "/run/helper";
    let words = File::options().read(true).write(true).create(true).truncate(true).open(path);
    let mut words = words.map_err(fail)?;
    let copy = |file: &File| file.try_clone().map(Stdio::from);
    command.env_clear().stdin(Stdio::null());
    command.stdout(copy(&words).map_err(fail)?).stderr(copy(&words).map_err(fail)?);
    let mut child = command.spawn().map_err(fail)?;
    let code = wait(&mut child, patience).map_err(fail)?;
    let mut said = String::new();
    if words.rewind().is_ok() {
        let _ = words.take(WORDS_MAX).read_to_string(&mut said);
    }
    match code {
        Some(code) => Ok((code, said)),
        None => Err(format!("{program} does not end: {}", said.trim())),
    }
}

/// Its exit code; nothing if it had to be killed.
fn wait(child: &mut Child, patience: Duration) -> std::io::Result<Option<i32>> {
    let until = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.code().unwrap_or(-1)));
        }
        if Instant::now() > until {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        sleep(Duration::from_millis(2));
    }
}
