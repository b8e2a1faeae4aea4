//! What a service manager is told (`sd_notify(3)`): one datagram a message. The image's init is
//! one, and may be asked too.
//!
//! *Failure*: nobody listens, or nobody asked: then nothing is told.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The next word of a start that goes on comes within this time.
const START_US: u64 = 60_000_000;

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    #[must_use]
    pub fn from_environment() -> Self {
        let var = |name: &str| std::env::var(name).ok();
        let mine = var("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let usec = var("WATCHDOG_USEC").and_then(|text| text.parse().ok()).filter(|us| *us > 0);
        Self {
            to: std::env::var_os("NOTIFY_SOCKET").and_then(|name| address(&name)),
            watchdog: usec.filter(|_| mine).map(Duration::from_micros),
        }
    }

    /// How often [`Notify::alive`] must be called, if at all: half of what is allowed.
    #[must_use]
    pub fn alive_every(&self) -> Option<Duration> {
        self.watchdog.map(|watchdog| watchdog / 2)
    }

    /// Mail is taken.
    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=taking mail\n");
    }

    /// How far the start is; more time is asked for.
    pub fn starting(&self, text: &str) {
        self.tell(&format!("STATUS={text}\nEXTEND_TIMEOUT_USEC={START_US}\n"));
    }

    /// Another config is being put into force; [`Notify::ready`] follows.
    pub fn reloading(&self) {
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}\n", engine::now_us()));
    }

    /// Finishing.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=finishing\n");
    }

    /// All cores turn their loops.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1\n");
    }

    /// Asks something that is answered: the socket that hears the answers, if there is somebody to
    /// ask. Its name cannot be guessed.
    ///
    /// # Errors
    /// Nobody listens, or the system's.
    pub fn ask(&self, text: &str) -> Option<io::Result<UnixDatagram>> {
        let (_, to) = self.to.as_ref()?;
        let ask = || {
            let mut secret = [0; 16];
            getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
            let name = format!("ringpost-ask-{:032x}", u128::from_ne_bytes(secret));
            let ear = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
            ear.set_nonblocking(true)?;
            ear.send_to_addr(text.as_bytes(), to)?;
            Ok(ear)
        };
        Some(ask())
    }

    fn tell(&self, text: &str) {
        if let Some((socket, to)) = &self.to {
            // The manager that does not listen does not want to know.
            let _ = socket.send_to_addr(text.as_bytes(), to);
        }
    }
}

fn address(name: &OsString) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, address.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_by_path_and_by_abstract_name() {
        let path = std::env::temp_dir().join(format!("notify-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("ringpost-notify-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&abstract_name).unwrap();
        for (socket, name) in
            [(by_path, path.clone().into_os_string()), (by_name, format!("@{name}").into())]
        {
            let notify = Notify { to: address(&name), watchdog: None };
            notify.ready();
            let mut octets = [0; 64];
            let got = socket.recv(&mut octets).unwrap();
            assert!(octets[..got].starts_with(b"READY=1\n"));
        }
        std::fs::remove_file(path).unwrap();
        assert!(address(&"relative".into()).is_none());
    }
}
