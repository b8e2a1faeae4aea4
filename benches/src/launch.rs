//! Starts servers, learns where they listen, and ends them with all they have started.
//!
//! *Guarantees*: a server is handed out after its 220; dropping it ends its whole process tree.
//!
//! *Failure*: a server that ends before its 220, or says none in time, is an error with its name.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sched::CpuSet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup::Group;
use crate::limits::{LOOK_AGAIN_MS, SERVER_END_WAIT_S, SERVER_START_WAIT_S};
use crate::{proc, system};

const LOOK_AGAIN: Duration = Duration::from_millis(LOOK_AGAIN_MS);

/// A server that answers, and all it has started.
#[derive(Debug)]
pub struct Running {
    child: Child,
    address: SocketAddr,
    pid: i32,
    group: Option<Group>,
}

impl Running {
    /// What it has used so far, with all it has started.
    pub fn usage(&self) -> io::Result<proc::Usage> {
        let mut usage = proc::usage(self.pid)?;
        if let Some(group) = &self.group {
            let (all, kernel) = group.cpu()?;
            usage.cpu = all;
            usage.kernel = Some(kernel);
        }
        Ok(usage)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The end of its standard input ends what listens to that.
        drop(self.child.stdin.take());
        // Whoever loses its parent meanwhile is still on the list.
        let tree = proc::tree(self.pid).unwrap_or_else(|_| vec![self.pid]);
        let mut left: Vec<(i32, u64)> =
            tree.into_iter().filter_map(|pid| Some((pid, proc::started(pid)?))).collect();
        let tell = |left: &[(i32, u64)], signal| {
            for &(pid, _) in left {
                let _ = kill(Pid::from_raw(pid), signal);
            }
        };
        tell(&left, Signal::SIGTERM);
        let ask_until = Instant::now() + Duration::from_secs(SERVER_END_WAIT_S);
        while !left.is_empty() && Instant::now() < ask_until {
            std::thread::sleep(LOOK_AGAIN);
            left.retain(|&(pid, start)| proc::started(pid) == Some(start));
        }
        tell(&left, Signal::SIGKILL);
        let _ = self.child.wait();
        drop(self.group.take());
    }
}

/// Runs a command on one CPU and waits for its 220. With port 0 the address is read from what the
/// server says on standard output: a line with `listening on ADDRESS` or `ready: ADDRESS`. Where
/// there is a cgroup2 we may write to, its CPU time is that group's, so that no child is missed.
/// Its standard input is a pipe that ends when we do.
pub fn start(name: &str, address: SocketAddr, cpu: usize, command: Command) -> io::Result<Running> {
    start_on(name, address, &system::set_of(&[cpu])?, command)
}

/// The same on several CPUs.
pub fn start_on(
    name: &str,
    address: SocketAddr,
    cpus: &CpuSet,
    command: Command,
) -> io::Result<Running> {
    let ask = address.port() == 0;
    if !ask {
        await_free(name, address)?;
    }
    let group = Group::new();
    let mut command = match &group {
        Some(group) => group.around(&command),
        None => command,
    };
    command.stdout(if ask { Stdio::piped() } else { Stdio::null() });
    // The child inherits the CPU; what measures goes back to all of them.
    let all = system::cpus()?;
    system::set_cpus(cpus)?;
    let spawned = system::spawn(command.stdin(Stdio::piped()));
    system::set_cpus(&all)?;
    let mut child = spawned.map_err(|error| io::Error::other(format!("{name}: {error}")))?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let output = child.stdout.take();
    let mut running = Running { child, address, pid, group };
    if let Some(output) = output {
        running.address = said_address(&mut running.child, output, name)?;
    }
    await_banner(&mut running, name)?;
    Ok(running)
}

/// A server on io_uring that was killed holds its port until a kernel worker has cleaned up.
fn await_free(name: &str, address: SocketAddr) -> io::Result<()> {
    let until = Instant::now() + Duration::from_secs(SERVER_END_WAIT_S);
    loop {
        match system::listener(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(LOOK_AGAIN);
            }
            Err(error) => return Err(io::Error::other(format!("{name}: {address}: {error}"))),
            Ok(_) => return Ok(()),
        }
    }
}

/// Reads a server's output to its end in a thread, so that it never waits for us.
fn said_address(child: &mut Child, output: ChildStdout, name: &str) -> io::Result<SocketAddr> {
    let said = Arc::new(OnceLock::new());
    let heard = Arc::clone(&said);
    let reader = std::thread::spawn(move || {
        let mut lines = BufReader::new(output).split(b'\n');
        for line in lines.by_ref().map_while(Result::ok) {
            if let Some(address) = address_in(&String::from_utf8_lossy(&line)) {
                let _ = heard.set(address);
                break;
            }
        }
        lines.for_each(drop);
    });
    let until = Instant::now() + Duration::from_secs(SERVER_START_WAIT_S);
    loop {
        let over = reader.is_finished();
        if let Some(&address) = said.get() {
            return Ok(address);
        }
        if over || Instant::now() > until {
            let status = child.try_wait()?.map_or_else(String::new, |s| format!(" ({s})"));
            return Err(io::Error::other(format!("{name}: said no address{status}")));
        }
        std::thread::sleep(LOOK_AGAIN / 10);
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ").or_else(|| line.split_once("ready: "))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

fn await_banner(running: &mut Running, name: &str) -> io::Result<()> {
    let until = Instant::now() + Duration::from_secs(SERVER_START_WAIT_S);
    loop {
        if greets(running.address)? {
            return Ok(());
        }
        if let Some(status) = running.child.try_wait()? {
            return Err(io::Error::other(format!("{name}: ended at once with {status}")));
        }
        if Instant::now() > until {
            let text = format!("{name}: no 220 on {} in time", running.address);
            return Err(io::Error::other(text));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn greets(address: SocketAddr) -> io::Result<bool> {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
        return Ok(false);
    };
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut greeting = [0; 4];
    if stream.read_exact(&mut greeting).is_err() || !greeting.starts_with(b"220") {
        return Ok(false);
    }
    if stream.write_all(b"QUIT\r\n").is_ok() {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_heard_in_what_servers_say() {
        let address = |text: &str| Some(text.parse().unwrap());
        assert_eq!(address_in("mxbench sink: listening on 127.0.0.1:7"), address("127.0.0.1:7"));
        assert_eq!(address_in("ready: [::1]:25 127.0.0.1:26"), address("[::1]:25"));
        assert_eq!(address_in("listening on all"), None);
        assert_eq!(address_in("127.0.0.1:7"), None);
    }

    #[test]
    fn a_server_that_says_nothing_is_named() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo hello; exit 3"]);
        let error = start("mute", "127.0.0.1:0".parse().unwrap(), 0, command).unwrap_err();
        assert!(error.to_string().starts_with("mute: said no address"), "{error}");
    }
}
