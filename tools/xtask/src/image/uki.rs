//! One file of the firmware's that holds kernel, command line and user space.
//!
//! *Guarantees*: no time in it: objcopy writes the present one into the PE header, it is cleared.

use std::path::Path;
use std::process::Command;

use super::tool::{done, read, tool, write};

const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
/// Sections begin at pages.
const PAGE: u64 = 4096;

/// The command line, which the signature covers; each word with its reason.
const COMMAND_LINE: &[&str] = &[
    "console=tty0",          // a screen, where there is one
    "console=ttyS0,115200",  // and the serial line, which init's words go to
    "loglevel=4",            // the line is slow: warnings only
    "panic=10",              // start again
    "bonding.max_bonds=0",   // no bond that nobody asked for
    "iTCO_wdt.heartbeat=30", // the time-outs of all watchdogs: init feeds them every second
    "sp5100_tco.heartbeat=30",
    "i6300esb.heartbeat=30",
    "ipmi_watchdog.timeout=30",
    "softdog.soft_margin=30",
];

/// The command line as text.
pub(crate) fn command_line() -> String {
    COMMAND_LINE.join(" ")
}

/// What a UKI is made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initramfs: &'a Path,
    pub(crate) version: &'a str,
    pub(crate) release: &'a str,
    pub(crate) work: &'a Path,
}

/// Joins the parts, unsigned.
pub(crate) fn join(parts: &Parts<'_>, to: &Path) -> Result<(), String> {
    let version = parts.version;
    let text = |name: &str, text: String| {
        let path = parts.work.join(name);
        write(&path, text).map(|()| path)
    };
    let os = format!(
        "ID=ringpost\nNAME=Ringpost\nPRETTY_NAME=\"Ringpost {version}\"\n\
         VERSION_ID={version}\nIMAGE_ID=ringpost\nIMAGE_VERSION={version}\n"
    );
    let sections = [
        (".osrel", text("osrel", os)?),
        (".cmdline", text("cmdline", command_line())?),
        (".uname", text("uname", parts.release.to_owned())?),
        (".linux", parts.kernel.to_owned()),
        (".initrd", parts.initramfs.to_owned()),
    ];
    let mut at = end_of_stub()?;
    let mut command = tool("objcopy");
    for (name, file) in &sections {
        let size = std::fs::metadata(file).map_err(|e| format!("{}: {e}", file.display()))?.len();
        command.arg("--add-section").arg(format!("{name}={}", file.display()));
        command.arg("--change-section-vma").arg(format!("{name}={at:#x}"));
        at = (at + size).next_multiple_of(PAGE);
    }
    done(command.arg(STUB).arg(to))?;
    let mut bytes = read(to)?;
    clear_time(&mut bytes).ok_or("objcopy made no PE file")?;
    write(to, bytes)
}

/// The first page behind the stub's own sections.
fn end_of_stub() -> Result<u64, String> {
    let said = done(Command::new("objdump").args(["-h", STUB]))?;
    let end = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, size, address, ..] = fields[..] else { return None };
        let hex = |text| u64::from_str_radix(text, 16).ok();
        Some(hex(address)? + hex(size)?)
    };
    let numbered =
        said.lines().filter(|l| l.trim_start().starts_with(|c: char| c.is_ascii_digit()));
    let last = numbered.filter_map(end).max().ok_or("the stub has no sections")?;
    Ok(last.next_multiple_of(PAGE))
}

/// Sets time and checksum of a PE header to zero.
fn clear_time(bytes: &mut [u8]) -> Option<()> {
    let header: [u8; 4] = bytes.get(0x3c..0x40)?.try_into().ok()?;
    let header = usize::try_from(u32::from_le_bytes(header)).ok()?;
    if bytes.get(header..header + 4)? != b"PE\0\0" {
        return None;
    }
    bytes.get_mut(header + 8..header + 12)?.fill(0);
    bytes.get_mut(header + 24 + 64..header + 24 + 68)?.fill(0);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_and_checksum_are_cleared() {
        let mut file = vec![0xFF_u8; 0x200];
        file[0x3c..0x40].copy_from_slice(&0x80_u32.to_le_bytes());
        file[0x80..0x84].copy_from_slice(b"PE\0\0");
        clear_time(&mut file).unwrap();
        let cleared = file.iter().enumerate().filter(|(n, b)| *n > 0x84 && **b == 0).count();
        assert_eq!(cleared, 8);
        assert_eq!(clear_time(&mut [0_u8; 0x20]), None);
        assert_eq!(clear_time(&mut [0_u8; 0x200]), None);
    }
}
