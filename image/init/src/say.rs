//! What init has to say: a line on the console, and the same in the kernel's log, which survives
//! a panic where the firmware keeps it (pstore).
//!
//! *Failure*: a console that takes nothing is not waited for; the line is then in the log alone.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::libc::O_NONBLOCK;

use crate::clock::uptime;

/// Says a line.
pub(crate) fn say(what: &impl Display) {
    to_console(&format!("init {:.2}: {what}\r\n", uptime().as_secs_f32()));
    to_log(&format!("<6>init: {what}\n"));
}

/// Says what went wrong, so that the kernel prints it whatever its level.
pub(crate) fn warn(what: &impl Display) {
    to_console(&format!("init {:.2}: {what}\r\n", uptime().as_secs_f32()));
    to_log(&format!("<5>init: {what}\n"));
}

fn to_console(line: &str) {
    let console = OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open("/dev/console");
    if let Ok(mut console) = console {
        let _ = console.write_all(line.as_bytes());
    }
}

fn to_log(line: &str) {
    if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = log.write_all(line.as_bytes());
    }
}
