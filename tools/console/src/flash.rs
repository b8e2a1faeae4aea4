//! `ringpost flash` and `inject`: an image onto a device, config files onto its config partition.
//!
//! *Guarantees*: what was written is read back and compared; a device that is mounted or that the
//! kernel says is in use, or that is not removable and was not named by its serial number, is not
//! touched; nor is anything that has no config partition of ours injected into. An image that was
//! cut short is not written, nor one that is not what the manifest beside it describes; nor is a
//! config that is no TOML.
//! *Failure*: which, and what to do; a device that reads back otherwise is called bad.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use fatfs::{FileSystem, FsOptions};
use gptman::GPT;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sha2::{Digest as _, Sha256};

use crate::exit::{Exit, Trouble};
use crate::page::Page;

const PARTITION: &str = "ringpost-config";
/// Octets of one file of the seed: init takes no longer ones.
const FILE_MAX: u64 = 1 << 20;
const STEP: usize = 4 << 20;

type Outcome<T> = Result<T, String>;

/// `flash IMAGE DEVICE [--serial S] [--config FILE] [--machine FILE] [--file FILE]...`
pub(crate) fn flash(page: &mut Page, matches: &ArgMatches) -> Result<Exit, Trouble> {
    let image = path(matches, "IMAGE").unwrap_or_default();
    let device = path(matches, "DEVICE").unwrap_or_default();
    let serial = matches.get_one::<String>("serial").map(String::as_str);
    let done = seed_files(matches).and_then(|files| {
        partition(&image)?;
        is_whole(&image)?;
        as_described(&image)?;
        may_write(&device, serial)?;
        let bytes = write_all(&image, &device)?;
        verify(&image, &device)?;
        page.line(&format!("{} MiB written to {} and read back.", bytes >> 20, device.display()));
        put_all(page, &device, &files)
    });
    outcome(done)
}

/// `inject DEVICE [--config FILE] [--machine FILE] [--file FILE]...`
pub(crate) fn inject(page: &mut Page, matches: &ArgMatches) -> Result<Exit, Trouble> {
    let device = path(matches, "DEVICE").unwrap_or_default();
    let done = seed_files(matches).and_then(|files| {
        if files.is_empty() {
            return Err("no file was named".to_owned());
        }
        unused(&device)?;
        put_all(page, &device, &files)
    });
    outcome(done)
}

fn outcome(done: Outcome<()>) -> Result<Exit, Trouble> {
    done.map(|()| Exit::Fine).map_err(|why| Trouble::new(Exit::Refused, why, ""))
}

fn path(matches: &ArgMatches, name: &str) -> Option<PathBuf> {
    matches.get_one::<String>(name).map(PathBuf::from)
}

/// Names on the partition, and what they will hold.
fn seed_files(matches: &ArgMatches) -> Outcome<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for (option, name) in [("config", "mx.toml"), ("machine", "machine.toml")] {
        if let Some(path) = path(matches, option) {
            files.push((name.to_owned(), read_seed(&path, name)?));
        }
    }
    for text in matches.get_many::<String>("file").into_iter().flatten() {
        let path = Path::new(text);
        let name = path.file_name().ok_or_else(|| format!("{text}: no file"))?;
        let name = name.to_string_lossy().into_owned();
        let content = read_seed(path, &name)?;
        files.push((name, content));
    }
    Ok(files)
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    let fail = |error: io::Error| format!("{}: {error}", path.display());
    let mut bytes = Vec::new();
    File::open(path).map_err(fail)?.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(format!("{}: longer than {} KiB", path.display(), FILE_MAX >> 10));
    }
    Ok(bytes)
}

/// A file under its name on the partition: what the machine parses is TOML at least. What it says
/// is judged by the machine.
fn read_seed(path: &Path, name: &str) -> Outcome<Vec<u8>> {
    let bytes = read(path)?;
    if matches!(name, "mx.toml" | "machine.toml") {
        let text = str::from_utf8(&bytes).map_err(|e| format!("{}: {e}", path.display()))?;
        if let Err(error) = toml_span::parse(text) {
            let before = text.get(..error.span.start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            return Err(format!("{}: line {line}: {error}", path.display()));
        }
    }
    Ok(bytes)
}

/// An image that was cut short has lost its second table, which is its last sector.
fn is_whole(image: &Path) -> Outcome<()> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", image.display());
    let mut file = File::open(image).map_err(|e| fail(&e))?;
    let gpt = GPT::find_from(&mut file).map_err(|e| fail(&e))?;
    let has = file.seek(SeekFrom::End(0)).map_err(|e| fail(&e))?;
    // Where the first table says that the second one lies; read from the second, it is the first's.
    let last = gpt.header.primary_lba.max(gpt.header.backup_lba);
    let needs = last.saturating_add(1).saturating_mul(gpt.sector_size);
    if has < needs {
        let (has, needs) = (has >> 20, needs.div_ceil(1 << 20));
        return Err(fail(&format!("{has} MiB of {needs}: it was cut short")));
    }
    Ok(())
}

/// The manifest beside an image, if there is one, describes it and this hardware.
fn as_described(image: &Path) -> Outcome<()> {
    const COMPATIBLE: &str = "ringpost-x86_64";
    let beside = image.with_extension("manifest");
    let Ok(text) = fs::read_to_string(&beside) else { return Ok(()) };
    let line = |kind: &str| text.lines().find_map(|line| line.strip_prefix(kind)).map(str::trim);
    match line("compatible ") {
        Some(COMPATIBLE) => {}
        other => {
            let other = other.unwrap_or("nothing that is named");
            return Err(format!("{} is for {other}, not for {COMPATIBLE}", image.display()));
        }
    }
    let fail = |e: io::Error| format!("{}: {e}", image.display());
    let mut hash = Sha256::new();
    io::copy(&mut File::open(image).map_err(fail)?, &mut hash).map_err(fail)?;
    let found: String = hash.finalize().iter().map(|octet| format!("{octet:02x}")).collect();
    if line("image img ") == Some(found.as_str()) {
        return Ok(());
    }
    Err(format!("{} is not what {} describes", image.display(), beside.display()))
}

/// Where the config partition begins and how long it is, in octets.
fn partition(image: &Path) -> Outcome<(u64, u64)> {
    let mut file = File::open(image).map_err(|e| format!("{}: {e}", image.display()))?;
    let gpt = GPT::find_from(&mut file)
        .map_err(|e| format!("{}: no image of Ringpost's: {e}", image.display()))?;
    let fits = |entry: &&gptman::GPTPartitionEntry| entry.partition_name.as_str() == PARTITION;
    let entry = gpt.iter().map(|(_, entry)| entry).find(fits);
    let entry = entry.ok_or_else(|| format!("{}: no {PARTITION}", image.display()))?;
    let sectors = entry.size().map_err(|e| format!("{}: {e}", image.display()))?;
    Ok((entry.starting_lba * gpt.sector_size, sectors * gpt.sector_size))
}

/// A part of a file, as a file.
struct Part {
    file: File,
    start: u64,
    length: u64,
    at: u64,
}

impl Part {
    fn open(device: &Path, write: bool) -> Outcome<Self> {
        let (start, length) = partition(device)?;
        let file = OpenOptions::new().read(true).write(write).open(device);
        let file = file.map_err(|e| format!("{}: {e}", device.display()))?;
        Ok(Self { file, start, length, at: 0 })
    }

    /// As much of a buffer as is left of the part.
    fn room(&self, wanted: usize) -> usize {
        usize::try_from(self.length.saturating_sub(self.at)).unwrap_or(usize::MAX).min(wanted)
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = self.room(buffer.len());
        self.file.seek(SeekFrom::Start(self.start + self.at))?;
        let got = self.file.read(&mut buffer[..room])?;
        self.at += got as u64;
        Ok(got)
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room(bytes.len());
        self.file.seek(SeekFrom::Start(self.start + self.at))?;
        let done = self.file.write(&bytes[..room])?;
        self.at += done as u64;
        Ok(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Part {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::other("before the start"))?;
        Ok(self.at)
    }
}

fn put_all(page: &mut Page, device: &Path, files: &[(String, Vec<u8>)]) -> Outcome<()> {
    for (name, content) in files {
        let fail = |error: io::Error| format!("{name} on {}: {error}", device.display());
        put(device, name, content)?.map_err(fail)?;
        let back = get(device, name)?.map_err(fail)?;
        if back != *content {
            return Err(format!("{name} reads back otherwise: {} is bad", device.display()));
        }
        page.line(&format!("{name} is on the config partition of {}.", device.display()));
    }
    Ok(())
}

fn put(device: &Path, name: &str, content: &[u8]) -> Outcome<io::Result<()>> {
    let part = Part::open(device, true)?;
    let handle = part.file.try_clone().map_err(|e| e.to_string())?;
    let write = move || {
        let system = FileSystem::new(part, FsOptions::new())?;
        {
            let mut file = system.root_dir().create_file(name)?;
            file.truncate()?;
            file.write_all(content)?;
            file.flush()?;
        }
        system.unmount()?;
        handle.sync_all()
    };
    Ok(write())
}

fn get(device: &Path, name: &str) -> Outcome<io::Result<Vec<u8>>> {
    let part = Part::open(device, false)?;
    let _ = posix_fadvise(&part.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let read = move || {
        let system = FileSystem::new(part, FsOptions::new())?;
        let mut bytes = Vec::new();
        system.root_dir().open_file(name)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    Ok(read())
}

/// Whether the target may be overwritten.
fn may_write(device: &Path, serial: Option<&str>) -> Outcome<()> {
    let Ok(meta) = fs::metadata(device) else { return Ok(()) };
    if meta.is_file() {
        return Ok(());
    }
    let path = unused(device)?;
    let name = path.file_name().unwrap_or_default();
    let class = Path::new("/sys/class/block").join(name);
    if class.join("partition").exists() {
        return Err(format!("{} is a partition; name the whole disk", path.display()));
    }
    let told = |name: &str| fs::read_to_string(class.join(name)).unwrap_or_default();
    let found = [told("serial"), told("device/serial")].concat().trim().to_owned();
    named(&path, told("removable").trim() == "1", &found, serial)
}

/// What is built in must be meant: its serial number says so.
fn named(path: &Path, removable: bool, found: &str, wanted: Option<&str>) -> Outcome<()> {
    let path = path.display();
    match wanted {
        Some(wanted) if wanted == found && !found.is_empty() => Ok(()),
        Some(wanted) if !found.is_empty() => Err(format!(
            "{path} has the serial number {found:?}, not {wanted:?}: nothing was written"
        )),
        _ if removable => Ok(()),
        _ if found.is_empty() => Err(format!(
            "{path} is not removable and has no serial number to name it by: nothing was written"
        )),
        _ => {
            Err(format!("{path} is not removable: to overwrite it, name it by --serial {found:?}"))
        }
    }
}

/// A plain file, or a disk of which nothing is mounted; its real path.
fn unused(device: &Path) -> Outcome<PathBuf> {
    let path = fs::canonicalize(device).map_err(|e| format!("{}: {e}", device.display()))?;
    let meta = fs::metadata(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    if meta.is_file() {
        return Ok(path);
    }
    if !meta.file_type().is_block_device() {
        return Err(format!("{} is neither a file nor a disk", path.display()));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if let Some(used) = used(&name, &mounts) {
        return Err(format!("{used} is mounted: nothing was written"));
    }
    // What else may have it or a part of it, the kernel knows.
    let alone = OpenOptions::new().read(true).custom_flags(nix::libc::O_EXCL).open(&path);
    match alone {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(format!(
            "{} is in use (swap, md, LVM, another program): nothing was written",
            path.display()
        )),
        Err(error) => Err(format!("{}: {error}", path.display())),
        Ok(_) => Ok(path),
    }
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

fn write_all(image: &Path, device: &Path) -> Outcome<u64> {
    let fail = |e: io::Error| format!("{}: {e}", device.display());
    let mut from = File::open(image).map_err(|e| format!("{}: {e}", image.display()))?;
    let total = from.metadata().map_err(fail)?.len();
    let there = fs::metadata(device).is_ok_and(|meta| !meta.is_file());
    let mut to =
        OpenOptions::new().write(true).create(!device.exists()).open(device).map_err(fail)?;
    let room = to.seek(SeekFrom::End(0)).map_err(fail)?;
    to.rewind().map_err(fail)?;
    if there && room < total {
        let (has, needs) = (room >> 20, total >> 20);
        return Err(format!("{} has {has} MiB, {needs} are needed", device.display()));
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
        eprint!("\r{} of {} MiB", done >> 20, total >> 20);
    }
    to.sync_all().map_err(fail)?;
    eprintln!();
    Ok(done)
}

/// Reads back from the medium, not from the cache.
fn verify(image: &Path, device: &Path) -> Outcome<()> {
    let fail = |e: io::Error| format!("{}: {e}", device.display());
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
    fn what_is_built_in_must_be_named_by_its_serial_number() {
        let named = |removable, found: &str, wanted: Option<&str>| {
            named(Path::new("/dev/sdx"), removable, found, wanted)
        };
        assert_eq!(named(true, "", None), Ok(()));
        assert_eq!(named(true, "A1", Some("A1")), Ok(()));
        assert_eq!(named(false, "A1", Some("A1")), Ok(()));
        assert!(named(false, "A1", None).unwrap_err().contains("--serial \"A1\""));
        assert!(named(false, "", Some("")).unwrap_err().contains("no serial number"));
        // Another disk than the one that was meant, whatever it is.
        for removable in [true, false] {
            assert!(named(removable, "A1", Some("B2")).unwrap_err().contains("not \"B2\""));
        }
    }

    /// A disk with a config partition of 64 MiB, as the image has it.
    fn disk(path: &Path) {
        let mut file =
            OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
        file.set_len(70 << 20).unwrap();
        let mut gpt = GPT::new_from(&mut file, 512, [7; 16]).unwrap();
        gpt[1] = gptman::GPTPartitionEntry {
            partition_type_guid: [1; 16],
            unique_partition_guid: [2; 16],
            starting_lba: 2048,
            ending_lba: 2048 + (64 << 11) - 1,
            attribute_bits: 0,
            partition_name: PARTITION.into(),
        };
        GPT::write_protective_mbr_into(&mut file, 512).unwrap();
        gpt.write_into(&mut file).unwrap();
        let mut part = Part::open(path, true).unwrap();
        fatfs::format_volume(&mut part, fatfs::FormatVolumeOptions::new()).unwrap();
    }

    #[test]
    fn a_config_that_is_no_toml_is_named_with_its_line() {
        let path = std::env::temp_dir().join(format!("console-seed-{}", std::process::id()));
        fs::write(&path, "[node]\nhostname = \"mx\"\ncolour = = 1\n").unwrap();
        let refused = read_seed(&path, "mx.toml").unwrap_err();
        assert!(refused.contains("line 3"), "{refused}");
        // A certificate is no TOML.
        assert!(read_seed(&path, "mx.crt").is_ok());
        fs::write(&path, [0xff]).unwrap();
        assert!(read_seed(&path, "machine.toml").unwrap_err().contains("utf-8"));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn only_images_of_ours_are_taken_and_what_was_written_is_compared() {
        let folder = std::env::temp_dir().join(format!("console-flash-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let (alien, image, to) =
            (folder.join("alien.img"), folder.join("image.img"), folder.join("to.img"));
        fs::write(&alien, vec![7_u8; 1 << 20]).unwrap();
        assert!(partition(&alien).unwrap_err().contains("no image of Ringpost's"));
        disk(&image);
        assert_eq!(is_whole(&image), Ok(()));
        assert_eq!(as_described(&image), Ok(()));
        let cut = folder.join("cut.img");
        fs::copy(&image, &cut).unwrap();
        OpenOptions::new().write(true).open(&cut).unwrap().set_len((70 << 20) - 1).unwrap();
        assert!(is_whole(&cut).unwrap_err().contains("cut short"));
        let described = |text: &str| {
            fs::write(image.with_extension("manifest"), text).unwrap();
            as_described(&image)
        };
        let elsewhere = described("version 1\ncompatible ringpost-arm64\nimage img 00\n");
        assert!(elsewhere.unwrap_err().contains("ringpost-arm64"));
        let other = described("version 1\ncompatible ringpost-x86_64\nimage img 00\n");
        assert!(other.unwrap_err().contains("is not what"));
        let digest = Sha256::digest(fs::read(&image).unwrap());
        let digest: String = digest.iter().map(|octet| format!("{octet:02x}")).collect();
        let text = format!("version 1\ncompatible ringpost-x86_64\nimage img {digest}\n");
        assert_eq!(described(&text), Ok(()));
        assert_eq!(write_all(&image, &to), Ok(70 << 20));
        assert_eq!(verify(&image, &to), Ok(()));
        let mut page = Page::default();
        let files = [("mx.toml".to_owned(), b"a long enough text".repeat(1000)), {
            ("a certificate.pem".to_owned(), b"x".to_vec())
        }];
        assert_eq!(put_all(&mut page, &to, &files), Ok(()));
        // A shorter file leaves nothing of the longer one.
        assert_eq!(put_all(&mut page, &to, &[("mx.toml".to_owned(), b"short".to_vec())]), Ok(()));
        assert_eq!(get(&to, "mx.toml").unwrap().unwrap(), b"short");
        assert_eq!(get(&to, "a certificate.pem").unwrap().unwrap(), b"x");
        assert!(verify(&image, &to).unwrap_err().contains("bad"));
        assert!(put_all(&mut page, &alien, &files).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
