//! A program that says on its standard output when it is ready, and is ended by SIGTERM.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running program of ours. Dropped, it is ended.
pub(crate) struct Running {
    name: &'static str,
    child: Child,
}

impl Running {
    /// Starts a program and waits for the line of its standard output that holds `ready`.
    pub(crate) fn start(
        name: &'static str,
        program: &Path,
        words: &[&str],
        ready: &str,
    ) -> Result<Self, String> {
        let mut child = Command::new(program)
            .args(words)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", program.display()))?;
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        loop {
            line.clear();
            let count = lines.read_line(&mut line).map_err(|e| format!("{name}: {e}"))?;
            if count == 0 {
                let status = child.wait().map_err(|e| format!("{name}: {e}"))?;
                return Err(format!("{name} ended before it was ready ({status}); see above"));
            }
            if line.contains(ready) {
                break;
            }
            print!("{line}");
        }
        // What it says later is passed on; the thread ends with the program.
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                println!("{line}");
            }
        });
        Ok(Self { name, child })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it still runs; an end that nobody asked for is an error.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("{} ended by itself: {status}", self.name)),
            Err(e) => Err(format!("{}: {e}", self.name)),
        }
    }

    /// Asks it to end and waits; after `patience` it is killed.
    pub(crate) fn end(&mut self, patience: Duration) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"));
        let _ = kill(pid, Signal::SIGTERM);
        let step = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        while waited < patience {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(step);
            waited += step;
        }
        eprintln!("x: {} does not end by itself; killed", self.name);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end(Duration::from_secs(2));
        }
    }
}
