//! Config files onto an image, and an image onto a device.
//!
//! *Guarantees*: what was written is read back and compared; a device that is in use, or that is
//! not removable and was not named by its serial number, is not touched.
//! *Failure*: which, and what to do; a device that reads back otherwise is called bad.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use gptman::GPT;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::tool::{done, read, tool};

const PARTITION: &str = "ringpost-config";
/// Octets of one file of the seed: init takes no longer ones.
const FILE_MAX: u64 = 1 << 20;
const STEP: usize = 4 << 20;

/// Puts files on the config partition.
pub(crate) fn inject(image: &Path, files: &[String]) -> Result<(), String> {
    let place = format!("{}@@{}", image.display(), offset(image)?);
    for file in files {
        let path = Path::new(file);
        let size = fs::metadata(path).map_err(|e| format!("{file}: {e}"))?.len();
        if size > FILE_MAX {
            return Err(format!("{file}: longer than {} KiB", FILE_MAX >> 10));
        }
        let name = path.file_name().ok_or("a file has a name")?.to_string_lossy().into_owned();
        let to = format!("::{name}");
        done(tool("mcopy").args(["-o", "-i", &place]).arg(path).arg(&to))?;
        let back = tool("mtype").args(["-i", &place, &to]).output().map_err(|e| e.to_string())?;
        if back.stdout != read(path)? {
            return Err(format!("{name} reads back otherwise: {} is bad", image.display()));
        }
        println!("{name}: on the config partition of {}", image.display());
    }
    Ok(())
}

/// Where the config partition begins.
fn offset(image: &Path) -> Result<u64, String> {
    let mut file = File::open(image).map_err(|e| format!("{}: {e}", image.display()))?;
    let gpt = GPT::find_from(&mut file)
        .map_err(|e| format!("{}: no image of Ringpost's: {e}", image.display()))?;
    let fits = |entry: &&gptman::GPTPartitionEntry| entry.partition_name.as_str() == PARTITION;
    let entry = gpt.iter().map(|(_, entry)| entry).find(fits);
    let entry = entry.ok_or_else(|| format!("{}: no {PARTITION}", image.display()))?;
    Ok(entry.starting_lba * gpt.sector_size)
}

/// `IMAGE DEVICE [--serial S] FILE...`
pub(crate) fn flash(words: &[String]) -> Result<(), String> {
    let mut serial = None;
    let mut names = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--serial" => serial = words.next().cloned(),
            _ => names.push(word.clone()),
        }
    }
    let [image, device, files @ ..] = &names[..] else {
        return Err("flash IMAGE DEVICE [--serial S] FILE...".to_owned());
    };
    let (image, device) = (Path::new(image), Path::new(device));
    offset(image)?;
    may_write(device, serial.as_deref())?;
    let bytes = write_all(image, device)?;
    verify(image, device)?;
    println!("\r{bytes} octets written to {} and read back", device.display());
    if files.is_empty() { Ok(()) } else { inject(device, files) }
}

/// Whether the target may be overwritten.
fn may_write(device: &Path, serial: Option<&str>) -> Result<(), String> {
    let Ok(meta) = fs::metadata(device) else { return Ok(()) };
    if meta.is_file() {
        return Ok(());
    }
    let path = fs::canonicalize(device).map_err(|e| format!("{}: {e}", device.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !meta.file_type().is_block_device() {
        return Err(format!("{} is neither a file nor a disk", path.display()));
    }
    let class = Path::new("/sys/class/block").join(&name);
    if class.join("partition").exists() {
        return Err(format!("{} is a partition; name the whole disk", path.display()));
    }
    if let Some(used) = used(&name, &fs::read_to_string("/proc/self/mounts").unwrap_or_default()) {
        return Err(format!("{used} is mounted: nothing was written"));
    }
    let told = |name: &str| fs::read_to_string(class.join(name)).unwrap_or_default();
    let found = [told("serial"), told("device/serial")].concat().trim().to_owned();
    let named = serial.is_some_and(|wanted| !found.is_empty() && wanted == found);
    if told("removable").trim() != "1" && !named {
        return Err(format!(
            "{} is not removable: to overwrite it, name it by --serial {found:?}",
            path.display()
        ));
    }
    Ok(())
}

/// The mounted device that is this disk or a part of it.
fn used(disk: &str, mounts: &str) -> Option<String> {
    let whole = format!("/dev/{disk}");
    let is_part = |device: &str| {
        let rest = device.strip_prefix(&whole)?;
        let rest = rest.strip_prefix('p').unwrap_or(rest);
        rest.bytes().all(|b| b.is_ascii_digit()).then(|| device.to_owned())
    };
    mounts.lines().filter_map(|line| line.split(' ').next()).find_map(is_part)
}

fn write_all(image: &Path, device: &Path) -> Result<u64, String> {
    let fail = |e: std::io::Error| format!("{}: {e}", device.display());
    let mut from = File::open(image).map_err(|e| format!("{}: {e}", image.display()))?;
    let total = from.metadata().map_err(fail)?.len();
    let mut options = OpenOptions::new();
    options.write(true).create(!device.exists());
    let mut to = options.open(device).map_err(fail)?;
    let room = to.seek(std::io::SeekFrom::End(0)).map_err(fail)?;
    to.rewind().map_err(fail)?;
    if device.exists() && fs::metadata(device).is_ok_and(|m| !m.is_file()) && room < total {
        return Err(format!(
            "{} has {} MiB, {} are needed",
            device.display(),
            room >> 20,
            total >> 20
        ));
    }
    let mut buffer = vec![0; STEP];
    let mut done = 0_u64;
    loop {
        let length = from.read(&mut buffer).map_err(fail)?;
        if length == 0 {
            break;
        }
        to.write_all(&buffer[..length]).map_err(fail)?;
        done += length as u64;
        print!("\r{} of {} MiB", done >> 20, total >> 20);
        let _ = std::io::stdout().flush();
    }
    to.sync_all().map_err(fail)?;
    Ok(done)
}

/// Reads back from the medium, not from the cache.
fn verify(image: &Path, device: &Path) -> Result<(), String> {
    let fail = |e: std::io::Error| format!("{}: {e}", device.display());
    let mut wanted = File::open(image).map_err(|e| format!("{}: {e}", image.display()))?;
    let mut got = File::open(device).map_err(fail)?;
    let _ = posix_fadvise(&got, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let (mut a, mut b) = (vec![0; STEP], vec![0; STEP]);
    let mut at = 0_u64;
    loop {
        let length = wanted.read(&mut a).map_err(fail)?;
        if length == 0 {
            return Ok(());
        }
        got.read_exact(&mut b[..length]).map_err(fail)?;
        if a[..length] != b[..length] {
            return Err(format!("{} reads back otherwise near {at}: it is bad", device.display()));
        }
        at += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_part_is_seen() {
        let mounts =
            "proc /proc proc\n/dev/sda1 / ext4\n/dev/nvme0n1p2 /boot vfat\n/dev/sdab /x y\n";
        assert_eq!(used("sda", mounts).as_deref(), Some("/dev/sda1"));
        assert_eq!(used("nvme0n1", mounts).as_deref(), Some("/dev/nvme0n1p2"));
        assert_eq!(used("sdab", mounts).as_deref(), Some("/dev/sdab"));
        assert_eq!(used("sdb", mounts), None);
        assert_eq!(used("nvme0n12", mounts), None);
    }

    #[test]
    fn only_images_of_ours_are_flashed_and_what_was_written_is_compared() {
        let folder = std::env::temp_dir().join(format!("xtask-seed-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (alien, to) = (folder.join("alien.img"), folder.join("to.img"));
        fs::write(&alien, vec![7_u8; 1 << 20]).unwrap();
        let words = [&alien, &to].map(|p| p.display().to_string());
        assert!(flash(&words).unwrap_err().contains("no image of Ringpost's"));
        assert!(!to.exists());
        assert_eq!(write_all(&alien, &to), Ok(1 << 20));
        assert_eq!(verify(&alien, &to), Ok(()));
        let mut bytes = fs::read(&to).unwrap();
        bytes[1000] = 8;
        fs::write(&to, bytes).unwrap();
        assert!(verify(&alien, &to).unwrap_err().contains("bad"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
