//! A serial line whose carrier a test raises and drops.
//!
//! QEMU's UART asks the terminal below it for the modem's lines (`TIOCMGET`), which a
//! pseudoterminal does not have. A few lines of C between QEMU and the C library answer in its
//! place: a carrier is there as long as a file is. What the guest sees is what QEMU makes of a
//! real port: the bits in the UART's register, and an interrupt when one changes.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::daemon::programs::Folder;

const MODEM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>
int ioctl(int fd, unsigned long what, ...) {
    static int (*real)(int, unsigned long, ...);
    va_list more;
    va_start(more, what);
    void *value = va_arg(more, void *);
    va_end(more);
    if (!real) real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
    if (what == TIOCMSET) return 0;
    if (what != TIOCMGET) return real(fd, what, value);
    const char *file = getenv("RINGPOST_TEST_CARRIER");
    int there = file && access(file, F_OK) == 0;
    *(int *)value = there ? TIOCM_CAR | TIOCM_DSR | TIOCM_CTS : 0;
    return 0;
}
"#;

/// The line between a test and its guest.
pub(crate) struct Line {
    ours: File,
    theirs: String,
    modem: PathBuf,
    carrier: PathBuf,
}

impl Line {
    /// A line without a carrier.
    pub(crate) fn new(folder: &Folder) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a terminal");
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("unlocked");
        let theirs = ptsname(&ours, Vec::new()).expect("a name");
        let theirs = theirs.to_str().expect("a path").to_owned();
        let (source, modem) = (folder.path("modem.c"), folder.path("modem.so"));
        std::fs::write(&source, MODEM).expect("written");
        let mut gcc = Command::new("gcc");
        gcc.args(["-shared", "-fPIC", "-o"]).arg(&modem).arg(&source).arg("-ldl");
        let built = gcc.output().expect("gcc starts");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let carrier = folder.path("carrier");
        Self { ours: File::from(ours), theirs, modem, carrier }
    }

    /// Somebody calls.
    pub(crate) fn raise(&self) {
        File::create(&self.carrier).expect("a file");
    }

    /// The connection is gone.
    pub(crate) fn drop_carrier(&self) {
        std::fs::remove_file(&self.carrier).expect("the carrier was there");
    }

    /// Makes it the guest's first serial line.
    pub(super) fn plug_in(&self, qemu: &mut Command) {
        qemu.env("LD_PRELOAD", &self.modem).env("RINGPOST_TEST_CARRIER", &self.carrier);
        qemu.args(["-chardev", &format!("serial,id=line,path={}", self.theirs)]);
        qemu.args(["-serial", "chardev:line"]);
    }

    /// This side of it.
    pub(super) fn ours(&self) -> End {
        End { line: self.ours.try_clone().expect("a descriptor"), is_up: false }
    }
}

/// This side of a line: it ends when the guest has opened and closed the other.
pub(super) struct End {
    line: File,
    is_up: bool,
}

impl Read for End {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.line.read(buffer) {
                // Nobody has the other side: not yet, or no more.
                Err(error) if error.raw_os_error() == Some(nix::libc::EIO) && !self.is_up => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => {
                    self.is_up = true;
                    return read;
                }
            }
        }
    }
}

impl Write for End {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.line.write(octets)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.line.flush()
    }
}
