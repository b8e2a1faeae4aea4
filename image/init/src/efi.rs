//! What systemd-boot left in the firmware's variables, and the names of versions on the ESP.
//!
//! A version's file is `ringpost_<version>+<left>-<done>.efi` while it is under trial and
//! `ringpost_<version>.efi` when it is blessed.
//!
//! *Guarantees*: [`under_trial`] names a file only if it is this very version's: after a load that
//! the firmware refused, `LoaderBootCountPath` still names the refused one.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::limits::EFI_VARIABLE_MAX;

const VARIABLES: &str = "/sys/firmware/efi/efivars";
const LOADER: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// The text of one of the loader's variables, if there is one.
pub(crate) fn loader(name: &str) -> Option<String> {
    let path = format!("{VARIABLES}/{name}-{LOADER}");
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(EFI_VARIABLE_MAX as u64).read_to_end(&mut bytes).ok()?;
    text(&bytes)
}

/// Four octets of attributes, then UTF-16 with a zero at its end.
fn text(bytes: &[u8]) -> Option<String> {
    let units = bytes.get(4..)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16(&units).ok().filter(|text| !text.is_empty())
}

/// The version in a file's name, and whether its count is used up.
pub(crate) fn version_of(file: &str) -> Option<(&str, bool)> {
    let (version, left) = counted(file)?;
    Some((version, left == Some(0)))
}

/// The version in a file's name, and how many tries it has left if it is counted.
fn counted(file: &str) -> Option<(&str, Option<u32>)> {
    let middle = file.strip_prefix("ringpost_")?.strip_suffix(".efi")?;
    match middle.split_once('+') {
        Some((version, counters)) => {
            let (left, done) = counters.split_once('-').unwrap_or((counters, "0"));
            let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            number(done).then_some((version, Some(left.parse().ok().filter(|_| number(left))?)))
        }
        None => Some((middle, None)),
    }
}

/// Asks systemd-boot to start this version at the next start, once.
///
/// # Errors
/// The firmware's.
pub(crate) fn start_once(version: &str) -> Result<(), String> {
    let path = format!("{VARIABLES}/LoaderEntryOneShot-{LOADER}");
    // Non-volatile, for the loader and for us; the name is a pattern, whatever the count says.
    let mut bytes = vec![7, 0, 0, 0];
    let text = format!("ringpost_{version}*\0");
    bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    // The kernel wants the variable in one write.
    let done = std::fs::write(&path, bytes);
    done.map_err(|error| format!("the firmware does not take LoaderEntryOneShot: {error}"))
}

/// The file to bless, below the ESP, if the running version is under trial.
///
/// `count_path` is `LoaderBootCountPath`, `selected` is `LoaderEntrySelected`.
pub(crate) fn under_trial(
    own: &str,
    count_path: Option<&str>,
    selected: Option<&str>,
) -> Option<(PathBuf, PathBuf)> {
    let path = count_path?.replace('\\', "/");
    let path = Path::new(path.trim_start_matches('/'));
    let name = path.file_name()?.to_str()?;
    if path.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        return None;
    }
    let (version, Some(_)) = counted(name)? else { return None };
    let (chosen, _) = counted(selected?)?;
    if version != own || chosen != own {
        return None;
    }
    Some((path.to_owned(), path.with_file_name(format!("ringpost_{own}.efi"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "\\EFI\\Linux\\ringpost_1.1.0+2-1.efi";

    #[test]
    fn a_version_under_trial_finds_its_own_file() {
        let found = under_trial("1.1.0", Some(PATH), Some("ringpost_1.1.0.efi")).unwrap();
        assert_eq!(found.0, Path::new("EFI/Linux/ringpost_1.1.0+2-1.efi"));
        assert_eq!(found.1, Path::new("EFI/Linux/ringpost_1.1.0.efi"));
        let chosen = under_trial("1.1.0", Some(PATH), Some("ringpost_1.1.0+2-1.efi"));
        assert!(chosen.is_some());
    }

    #[test]
    fn a_stale_variable_blesses_nobody() {
        // 1.0.0 runs because the firmware refused 1.1.0, which the variable still names.
        assert_eq!(under_trial("1.0.0", Some(PATH), Some("ringpost_1.0.0.efi")), None);
        assert_eq!(under_trial("1.1.0", Some(PATH), Some("ringpost_1.0.0.efi")), None);
        assert_eq!(under_trial("1.1.0", Some(PATH), None), None);
        assert_eq!(under_trial("1.1.0", None, Some("ringpost_1.1.0.efi")), None);
        let blessed = "\\EFI\\Linux\\ringpost_1.1.0.efi";
        assert_eq!(under_trial("1.1.0", Some(blessed), Some("ringpost_1.1.0.efi")), None);
        let outside = "\\..\\ringpost_1.1.0+3.efi";
        assert_eq!(under_trial("1.1.0", Some(outside), Some("ringpost_1.1.0.efi")), None);
    }

    #[test]
    fn variables_are_utf16_behind_attributes() {
        assert_eq!(text(b"\x06\0\0\0a\0b\0\0\0").as_deref(), Some("ab"));
        assert_eq!(text(b"\x06\0\0\0\0\0"), None);
        assert_eq!(text(b"\x06\0"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_octets_make_it_panic(bytes: Vec<u8>) {
            if let Some(text) = text(&bytes) {
                let _ = under_trial("1.0.0", Some(&text), Some(&text));
            }
        }
    }
}
