//! The key that an operator holds while the machine starts.
//!
//! *Failure*: no console, no key.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::libc::O_NONBLOCK;
use rustix::termios::{self, LocalModes, OptionalActions};

/// The console, listening.
#[derive(Debug)]
pub(crate) struct Keys {
    console: Option<File>,
}

impl Keys {
    /// From now on each key counts, without the return key.
    pub(crate) fn open() -> Self {
        let mut options = OpenOptions::new();
        let console = options.read(true).custom_flags(O_NONBLOCK).open("/dev/console").ok();
        if let Some(console) = &console
            && let Ok(mut settings) = termios::tcgetattr(console)
        {
            settings.local_modes &= !(LocalModes::ICANON | LocalModes::ECHO);
            let _ = termios::tcsetattr(console, OptionalActions::Now, &settings);
        }
        Self { console }
    }

    /// Whether `m` was pressed since.
    pub(crate) fn wanted(self) -> bool {
        let mut buffer = [0; 256];
        let Some(mut console) = self.console else { return false };
        let length = console.read(&mut buffer).unwrap_or(0);
        buffer[..length].contains(&b'm')
    }
}
