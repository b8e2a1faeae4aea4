//! The admin socket: which one, and one request and one reply at a time. Or what a dead daemon left
//! behind, its file of hints and its logs, which answer as the daemon would.
//!
//! *Failure*: each says what to do: start the daemon, be another user, wait.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::limits::REPLY_OCTETS_MAX;
use control::{Decoder, Frame, Reply, Request, read_reply, write_reply, write_request};

use crate::exit::{Exit, Trouble};
use crate::lastwords::LastWords;
use crate::remains::Remains;
use crate::speaker;

const HERE: &str = "./var/admin.sock";
const SYSTEM: &str = "/run/ringpost/admin.sock";
/// How a daemon is started where no init of ours does it.
const BY_HAND: &str = "Start it: ringpostd --config FILE --supervise.";
const READ_OCTETS: usize = 16 * 1024;

/// Whoever answers.
#[derive(Debug)]
pub(crate) struct Socket {
    end: End,
    decoder: Decoder,
    path: PathBuf,
}

#[derive(Debug)]
enum End {
    Daemon(UnixStream),
    File(Remains),
    Logs(LastWords),
}

/// The socket that is meant: named, else from the environment, else the first default that exists.
pub(crate) fn path(named: Option<&OsString>) -> PathBuf {
    let environment = || std::env::var_os("RINGPOST_SOCKET").filter(|path| !path.is_empty());
    match named.cloned().or_else(environment) {
        Some(path) => path.into(),
        None if fs::symlink_metadata(HERE).is_ok() => HERE.into(),
        None => SYSTEM.into(),
    }
}

impl Socket {
    fn new(end: End, path: &Path) -> Self {
        Self { end, decoder: Decoder::new(REPLY_OCTETS_MAX), path: path.to_owned() }
    }

    /// A dead daemon's file of hints.
    ///
    /// # Errors
    /// As [`Remains::open`].
    pub(crate) fn of_file(path: &Path) -> Result<Self, Trouble> {
        Ok(Self::new(End::File(Remains::open(path)?), path))
    }

    /// A dead daemon's folder of logs.
    ///
    /// # Errors
    /// As [`LastWords::open`].
    pub(crate) fn of_logs(folder: &Path) -> Result<Self, Trouble> {
        Ok(Self::new(End::Logs(LastWords::open(folder)?), folder))
    }

    /// Connects, or says why not.
    pub(crate) fn connect(path: &Path, wait: Duration) -> Result<Self, Trouble> {
        let stream = UnixStream::connect(path).map_err(|error| explain(path, &error))?;
        let wait = Some(wait.max(Duration::from_millis(1)));
        stream
            .set_read_timeout(wait)
            .and_then(|()| stream.set_write_timeout(wait))
            .map_err(|error| broken(path, &error.to_string()))?;
        let mut socket = Self::new(End::Daemon(stream), path);
        if let Some(speaker) = speaker::speaker() {
            let (_, reply) = socket.ask(&Request::As(speaker))?;
            if !matches!(reply, Reply::Done { .. }) {
                let message = "the daemon does not take logins";
                return Err(Trouble::new(Exit::Denied, message, "Use its own ringpost."));
            }
        }
        Ok(socket)
    }

    /// Asks and waits for the answer; the frame is for `--json`.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<(Frame, Reply), Trouble> {
        let octets = write_request(request).map_err(|error| {
            Trouble::new(Exit::Usage, format!("the request is {error}"), "use shorter arguments")
        })?;
        let stream = match &mut self.end {
            End::Daemon(stream) => stream,
            End::File(file) => {
                let reply = file.answer(request);
                return self.framed(&reply);
            }
            End::Logs(logs) => {
                let reply = logs.answer(request);
                return self.framed(&reply);
            }
        };
        let frame = read_frame(stream, &octets, &mut self.decoder);
        let frame = frame.map_err(|fault| match fault {
            Fault::Broken(what) => broken(&self.path, &what),
            Fault::Late => Trouble::new(
                Exit::NoDaemon,
                format!("no answer at {} in time", self.path.display()),
                "Is the daemon busy or stuck? Its log says so; --timeout-s waits longer.",
            ),
            Fault::Alien(what) => self.alien(&what),
        })?;
        let reply = read_reply(&frame).map_err(|error| self.alien(&error.to_string()))?;
        Ok((frame, reply))
    }

    /// An answer of our own, as if it had come from a daemon.
    fn framed(&mut self, reply: &Reply) -> Result<(Frame, Reply), Trouble> {
        self.decoder.push(&write_reply(reply));
        let popped = self.decoder.pop().map_err(|error| self.alien(&error.to_string()))?;
        let frame = popped.ok_or_else(|| self.alien("no reply"))?;
        let reply = read_reply(&frame).map_err(|error| self.alien(&error.to_string()))?;
        Ok((frame, reply))
    }

    fn alien(&self, error: &str) -> Trouble {
        Trouble::new(
            Exit::Protocol,
            format!("the answer at {} makes no sense: {error}", self.path.display()),
            "Use the ringpost that came with the daemon, and the daemon's admin socket.",
        )
    }
}

/// Why there is no frame.
enum Fault {
    Broken(String),
    Late,
    Alien(String),
}

/// Asks; the frame that comes back.
fn read_frame(
    stream: &mut UnixStream,
    request: &[u8],
    decoder: &mut Decoder,
) -> Result<Frame, Fault> {
    // A daemon that refuses this user may have answered and closed already: read first, then
    // complain about the write.
    let written = stream.write_all(request);
    let mut buffer = vec![0; READ_OCTETS];
    loop {
        if let Some(frame) = decoder.pop().map_err(|error| Fault::Alien(error.to_string()))? {
            return Ok(frame);
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err(Fault::Broken("the daemon closed the connection".to_owned())),
            Ok(n) => decoder.push(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(Fault::Late),
            Err(error) => {
                let error = written.err().unwrap_or(error);
                return Err(Fault::Broken(error.to_string()));
            }
        }
    }
}

fn broken(path: &Path, error: &str) -> Trouble {
    Trouble::new(
        Exit::NoDaemon,
        format!("the connection to {} broke: {error}", path.display()),
        "Did the daemon just stop? Its log says why.",
    )
}

/// Where the appliance's init writes why it serves no mail.
const MAINTENANCE: &str = "/run/maintenance";

/// What cannot be, on an appliance that is in maintenance.
pub(crate) fn maintenance(exit: Exit, what: &str) -> Option<Trouble> {
    let why = fs::read_to_string(MAINTENANCE).ok()?;
    let message = format!("{what}: this machine is in maintenance: {}", why.trim());
    let advice = "No mail, no network, the spool is read-only until the next start; `config`, \
        `spool list` and `spool show` work. `reboot` ends it.";
    Some(Trouble::new(exit, message, advice))
}

/// What a failed connect means and what to do.
fn explain(path: &Path, error: &std::io::Error) -> Trouble {
    let shown = path.display();
    let start = format!(
        "{BY_HAND} Elsewhere? Say --socket FILE or set RINGPOST_SOCKET (defaults: {HERE}, \
         {SYSTEM})."
    );
    if let Some(trouble) = maintenance(Exit::NoDaemon, "no daemon runs")
        && path == Path::new(SYSTEM)
    {
        return trouble;
    }
    match error.kind() {
        ErrorKind::NotFound => {
            Trouble::new(Exit::NoDaemon, format!("no daemon runs here: no {shown}"), start)
        }
        ErrorKind::ConnectionRefused => Trouble::new(
            Exit::NoDaemon,
            format!("no daemon listens at {shown}: it was left behind"),
            start,
        ),
        ErrorKind::PermissionDenied => {
            let me = user_name(nix::unistd::Uid::effective().as_raw());
            Trouble::new(
                Exit::Denied,
                format!("user {me} may not use {shown}"),
                match owner(path) {
                    Some(owner) => format!("User {owner} may: sudo -u {owner} ringpost ..."),
                    None => "Ask whoever runs the daemon, or root.".to_owned(),
                },
            )
        }
        _ => Trouble::new(Exit::NoDaemon, format!("cannot connect to {shown}: {error}"), start),
    }
}

/// The user who owns the socket, or the folder that hides it.
fn owner(path: &Path) -> Option<String> {
    path.ancestors().find_map(|path| fs::metadata(path).ok()).map(|data| user_name(data.uid()))
}

fn user_name(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid));
    user.ok().flatten().map_or_else(|| format!("#{uid}"), |user| user.name)
}
