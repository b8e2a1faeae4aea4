//! The power button.
//!
//! *Failure*: a machine without one is stopped by its other means.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::libc::O_NONBLOCK;

/// `struct input_event`: two words of time, then type, code and value.
const EVENT: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// Every input device, because a button is one among them.
#[derive(Debug, Default)]
pub(crate) struct Buttons {
    devices: Vec<File>,
}

impl Buttons {
    /// Opens what is there.
    pub(crate) fn open() -> Self {
        let Ok(entries) = fs::read_dir("/dev/input") else { return Self::default() };
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(O_NONBLOCK);
        let open = |entry: fs::DirEntry| options.open(entry.path()).ok();
        Self { devices: entries.flatten().filter_map(open).collect() }
    }

    /// What to wait for.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.devices.iter().map(|device| device.as_fd())
    }

    /// Whether the power button was pressed since.
    pub(crate) fn pressed(&mut self) -> bool {
        let mut pressed = false;
        self.devices.retain_mut(|device| {
            let mut buffer = [0; EVENT * 16];
            loop {
                match device.read(&mut buffer) {
                    Ok(length) if length > 0 => {
                        pressed |= buffer[..length].chunks_exact(EVENT).any(is_press);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                    // Unplugged: or poll would never wait again.
                    _ => return false,
                }
            }
        });
        pressed
    }
}

fn is_press(event: &[u8]) -> bool {
    let word = |at: usize| event.get(at..at + 2).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    (word(16), word(18)) == (Some(EV_KEY), Some(KEY_POWER)) && event.get(20) == Some(&1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_press_of_the_power_key_counts() {
        let mut event = [0_u8; EVENT];
        event[16] = 1;
        event[18] = 116;
        assert!(!is_press(&event));
        event[20] = 1;
        assert!(is_press(&event));
        event[18] = 30;
        assert!(!is_press(&event));
    }
}
