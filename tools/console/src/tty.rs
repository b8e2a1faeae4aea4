//! The line itself: is it a terminal, how clever, how fast; modes of it, keys and lines from it.
//!
//! *Guarantees*: nothing is asked of the terminal. A mode ends with its owner.
//! *Limits*: `LINE_OCTETS_MAX` of a line.

use std::fs;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, QueueSelector, SpecialCodeIndex,
    Termios, tcflush, tcgetattr, tcgetwinsize, tcsetattr,
};

/// Octets of a line.
pub(crate) const LINE_OCTETS_MAX: usize = 4_096;
/// The speed of the line in bits a second, where its terminal does not know it.
pub(crate) const BAUD: &str = "RINGPOST_BAUD";
/// Lines of a screen that does not say how many it has.
const ROWS: u16 = 24;

/// Whether somebody types.
pub(crate) fn typed() -> bool {
    std::io::stdin().is_terminal()
}

/// Whether the terminal moves its cursor when told: not a dumb one, nor a file.
pub(crate) fn clever() -> bool {
    let term = std::env::var("TERM").unwrap_or_default();
    typed()
        && std::io::stdout().is_terminal()
        && !matches!(&*term, "" | "dumb" | "unknown" | "emacs" | "cons25")
}

/// Bits a second, if they are few enough to matter: what the program was told, else what a real
/// line is set to. Terminals of windows and networks have none.
pub(crate) fn baud(told: Option<u32>) -> Option<u32> {
    let told = told.or_else(|| std::env::var(BAUD).ok().and_then(|text| text.parse().ok()));
    if told.is_some() {
        return told.filter(|baud| *baud > 0);
    }
    let stdout = std::io::stdout();
    let device = fs::read_link("/proc/self/fd/1").unwrap_or_default();
    if !stdout.is_terminal() || device.starts_with("/dev/pts") {
        return None;
    }
    tcgetattr(stdout).ok().map(|mode| mode.output_speed()).filter(|baud| *baud > 0)
}

/// Lines of the screen.
pub(crate) fn rows() -> u16 {
    match tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_row > 2 => size.ws_row,
        _ => ROWS,
    }
}

/// The name of the line, such as `ttyS0`.
pub(crate) fn name() -> String {
    let device = fs::read_link("/proc/self/fd/0").unwrap_or_default();
    let device = device.display().to_string();
    device.strip_prefix("/dev/").unwrap_or(&device).to_owned()
}

/// How the line was before; it is so again when this goes.
#[derive(Clone, Debug)]
pub(crate) struct Mode(Termios);

impl Mode {
    /// As it is; nothing if this is no terminal.
    pub(crate) fn now() -> Option<Self> {
        tcgetattr(std::io::stdin()).ok().map(Self)
    }

    /// No key stops the line or the program on it; with `carrier` the program ends with the
    /// carrier.
    pub(crate) fn tame(&self, carrier: bool) {
        let mut mode = self.0.clone();
        mode.input_modes &= !(InputModes::IXON | InputModes::IXOFF);
        mode.input_modes |= InputModes::ICRNL;
        mode.local_modes |= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        mode.special_codes[SpecialCodeIndex::VSUSP] = 0;
        if carrier {
            mode.control_modes &= !ControlModes::CLOCAL;
            mode.control_modes |= ControlModes::HUPCL;
        }
        set(&mode);
    }

    /// What is typed is not shown.
    pub(crate) fn silent(&self) {
        let mut mode = self.0.clone();
        mode.local_modes &= !LocalModes::ECHO;
        mode.local_modes |= LocalModes::ICANON | LocalModes::ECHONL;
        set(&mode);
    }

    /// Each key at once, ctrl-C too.
    pub(crate) fn keys(&self) {
        let mut mode = self.0.clone();
        mode.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        mode.special_codes[SpecialCodeIndex::VMIN] = 1;
        mode.special_codes[SpecialCodeIndex::VTIME] = 0;
        set(&mode);
    }

    /// As it was.
    pub(crate) fn restore(&self) {
        set(&self.0);
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        self.restore();
    }
}

fn set(mode: &Termios) {
    // A line that was hung up takes no modes, and needs none.
    let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, mode);
}

/// Throws away what a terminal that stands still has not taken.
pub(crate) fn forget_output() {
    let _ = tcflush(std::io::stdin(), QueueSelector::OFlush);
}

/// Whether the line is gone.
pub(crate) fn hung_up() -> bool {
    let stdin = std::io::stdin();
    let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    // Its end is read before the signal of it comes.
    poll(&mut ready, PollTimeout::ZERO).is_ok()
        && ready[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

/// The next octet; nothing at the end of the line, or when nobody types for so long.
pub(crate) fn key(wait: Option<Duration>) -> Option<u8> {
    let stdin = std::io::stdin();
    if let Some(wait) = wait {
        let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        if poll(&mut ready, wait).unwrap_or(0) == 0 {
            return None;
        }
    }
    let mut octet = [0];
    loop {
        // Below std's buffer: what comes later is for the next program on the line.
        match rustix::io::read(&stdin, &mut octet) {
            Ok(1) => return octet.first().copied(),
            Err(rustix::io::Errno::INTR) => {}
            _ => return None,
        }
    }
}

/// A line without its end; nothing at the end of all.
pub(crate) fn line() -> Option<String> {
    let mut octets = Vec::new();
    loop {
        match key(None) {
            None if octets.is_empty() => return None,
            None | Some(b'\n') => break,
            Some(octet) if octets.len() < LINE_OCTETS_MAX => octets.push(octet),
            Some(_) => {}
        }
    }
    let text = String::from_utf8_lossy(&octets);
    Some(text.trim_end_matches('\r').to_owned())
}

/// Asks for a password; what is typed is not shown.
pub(crate) fn password(prompt: &str) -> Option<String> {
    let mode = Mode::now();
    if let Some(mode) = &mode {
        mode.silent();
    }
    // Who sees it may type at once: nothing is shown from here on.
    print(prompt);
    line()
}

/// Prints and pushes out.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody is left to tell where stdout is closed: the next read ends.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
