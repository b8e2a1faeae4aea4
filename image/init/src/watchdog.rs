//! The machine's watchdog: as long as init turns its loop, the machine is not reset.
//!
//! *Failure*: no device: said once. The time-out is the driver's, set on the kernel's command line.
//! *Not here*: services that hang (`service`, `health`).

use std::fs::{File, OpenOptions};
use std::io::Write as _;

use crate::say::{say, warn};

/// An armed watchdog, or none.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    device: Option<File>,
}

impl Watchdog {
    /// Arms what is there: real hardware is registered before the kernel's own.
    pub(crate) fn arm() -> Self {
        match OpenOptions::new().write(true).open("/dev/watchdog") {
            Ok(device) => {
                let name = std::fs::read_to_string("/sys/class/watchdog/watchdog0/identity");
                say(&format_args!("watchdog: {}", name.as_deref().unwrap_or("?").trim()));
                Self { device: Some(device) }
            }
            Err(error) => {
                warn(&format_args!("no watchdog: a machine that hangs stays so ({error})"));
                Self::default()
            }
        }
    }

    /// Feeds it.
    pub(crate) fn feed(&mut self) {
        if let Some(device) = &mut self.device {
            let _ = device.write_all(b"\0");
        }
    }
}
