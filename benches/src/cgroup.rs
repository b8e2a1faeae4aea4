//! A control group of our own for a server: its CPU time to the microsecond, children that nobody
//! waited for included.
//!
//! *Failure*: without a cgroup2 that we may write to there is none, and the process tree is added
//! up instead.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::limits::{LOOK_AGAIN_MS, SERVER_END_WAIT_S};
use crate::proc::parse_key;

/// A control group; dropping it removes it.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Group {
    /// A fresh one, where that is possible.
    pub fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/mounts").ok()?;
        let top = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let place = words.next()?;
            (words.next()? == "cgroup2").then(|| PathBuf::from(place))
        })?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let group = Self(top.join(format!("mxbench-{}-{number}", std::process::id())));
        fs::create_dir(&group.0).ok()?;
        group.cpu().is_ok().then_some(group)
    }

    /// The same command, begun inside the group; environment, folder and process group of the
    /// given one are kept, its standard streams are the caller's to set.
    pub fn around(&self, command: &Command) -> Command {
        let mut inside = Command::new("sh");
        let enter = "echo $$ >\"$0\"/cgroup.procs && exec \"$@\"";
        inside.args(["-c", enter]).arg(&self.0).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(key, value),
                None => inside.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            inside.current_dir(folder);
        }
        std::os::unix::process::CommandExt::process_group(&mut inside, 0);
        inside
    }

    /// CPU time of all that ran in it, and the kernel's part.
    pub fn cpu(&self) -> io::Result<(Duration, Duration)> {
        let text = fs::read_to_string(self.0.join("cpu.stat"))?;
        let us = |key| parse_key(&text, key).map(Duration::from_micros);
        us("usage_usec")
            .zip(us("system_usec"))
            .ok_or_else(|| io::Error::other("cpu.stat: no usage_usec"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(SERVER_END_WAIT_S);
        // Orphans of orphans may still be in it.
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        while fs::remove_dir(&self.0).is_err_and(|e| e.kind() == io::ErrorKind::ResourceBusy)
            && Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(LOOK_AGAIN_MS));
        }
    }
}
