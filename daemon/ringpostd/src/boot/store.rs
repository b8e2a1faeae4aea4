//! The spool at start: found or made, locked, recovered, its run raised.
//!
//! *Guarantees*: nothing is made where part of a spool is: a place that lost its file is named. A
//! spool is made under another name and gets its own when it is whole, so a start that was cut
//! short is begun again.
//! *Failure*: each says which place and what to do. Nothing that is not ours is touched.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use spool::alien::{self, Alien};
use spool::disk::{Device as _, DiskError};
use spool::file::{Durability, FileDevice, OpenError};
use spool::limits::BLOCK;
use spool::log::LogStart;
use spool::recovery::{self, Options, Report};
use spool::set::{self, Geometry, Problem, Seeds, Set, SetError};
use spool::superblock::Format;
use spool::survey::Progress;

use crate::config::{self, Config, Serial};
use crate::house::Returned;

use super::error::BootError;
use super::serial;
use super::waiting;

/// The file of a spool in a directory.
pub(super) const FILE: &str = "ringpost.spool";
const MIB: u32 = 1 << 20;
/// Said by whoever looks after the versions of the machine: `1` of a version that is not under
/// trial, which may write what the one before it cannot read; `0` of one that is.
const BLESSED: &str = "RINGPOST_BLESSED";

/// A spool that nobody else can open now.
#[derive(Debug)]
pub(super) struct Locked {
    devices: Vec<FileDevice>,
    geometry: Geometry,
    notes: Vec<String>,
}

/// A recovered spool.
#[derive(Debug)]
pub(super) struct Store {
    /// Its devices, locked.
    pub set: Set<FileDevice>,
    /// The number of this run.
    pub run: u32,
    /// A log for each core.
    pub logs: Vec<LogStart>,
    /// What was found.
    pub report: Report,
    /// What is worth saying besides, one line each.
    pub notes: Vec<String>,
}

/// Takes the spool for this process, makes it if there is none.
///
/// # Errors
/// Which place, and what to do.
pub(super) fn lock(config: &Config, cores: usize, wall_us: u64) -> Result<Locked, BootError> {
    let durability = durability(config);
    let places: Vec<PlaceOf> = config.spool.places.iter().map(|p| PlaceOf::new(p)).collect();
    let geometry = geometry(config, cores, places.len());
    let mut notes = guard(&places, durability, &config.spool.take_serials)?;
    if !is_new(&places, durability)? {
        let notes = blank(&places, durability, config)?;
        let devices = found(&places, durability, config.spool.lone_member)?;
        return Ok(Locked { devices, geometry, notes });
    }
    let format = new_format(is_blessed(), config.spool.raise_format);
    let devices = make(&places, (geometry, format), durability, wall_us)?;
    let (count, mib) = (geometry.segments, geometry.segment_bytes / MIB);
    notes.push(format!("made a spool of {} x {count} segments of {mib} MiB", places.len()));
    Ok(Locked { devices, geometry, notes })
}

/// What stands at those places of the config that have none of the devices in `used`: new ones, or
/// one of those that are `held` since they were put out. A place with nothing there is left out.
pub(super) fn returned(
    config: &Config,
    used: &[FileDevice],
    held: &[FileDevice],
) -> Vec<Result<Returned, String>> {
    let durability = durability(config);
    let places: Vec<PlaceOf> = config.spool.places.iter().map(|p| PlaceOf::new(p)).collect();
    let said = |error: BootError| error.to_string();
    let blanked = blank(&places, durability, config).map_err(said);
    if let Err(error) = blanked {
        return vec![Err(error)];
    }
    let is_used = |place: &&PlaceOf| used.iter().any(|device| device.is_at(&place.path));
    let there = places.iter().filter(|place| place.is_there() && !is_used(place));
    let open = |place: &PlaceOf| {
        if let Some(same) = held.iter().find(|device| device.is_at(&place.path)) {
            let mut device = same.duplicate().map_err(|error| error.to_string())?;
            // A disk that was pulled may come back under the number it had: that descriptor is
            // dead, and what stands there now is to be opened like any other.
            if !place.is_device || !matches!(is_readable(&mut device), Err(DiskError::Io(_))) {
                return Ok(Returned { device, same: true, notes: Vec::new() });
            }
        }
        let one = std::slice::from_ref(place);
        let notes = guard(one, durability, &config.spool.take_serials).map_err(said)?;
        let device = FileDevice::open(&place.path, durability, true);
        let device = device.map_err(|error| said(place.fail(&error)))?;
        Ok(Returned { device, same: false, notes })
    };
    there.map(open).collect()
}

fn is_readable(device: &mut FileDevice) -> Result<(), DiskError> {
    device.read(0, &mut [0; BLOCK])
}

fn durability(config: &Config) -> Durability {
    match config.spool.durability {
        config::Durability::Fsync => Durability::Full,
        config::Durability::None => Durability::None,
    }
}

/// Refuses devices that bear something else; one whose serial number the config names is erased.
fn guard(
    places: &[PlaceOf],
    durability: Durability,
    take: &[Serial],
) -> Result<Vec<String>, BootError> {
    let mut taken = Vec::new();
    for place in places.iter().filter(|place| place.is_device) {
        let mut device = place.open(durability)?;
        if let Some(alien) = alien::look(&mut device).map_err(explain)? {
            let serial = serial::of(&place.path);
            let named = |serial: &&String| take.iter().any(|named| named.as_str() == *serial);
            let Some(named) = serial.as_ref().filter(named) else {
                return Err(bears(&device, alien, serial.as_deref()));
            };
            taken.push((device, alien, named.clone()));
        }
    }
    // Nothing is erased before every place was looked at.
    let erase = |(mut device, alien, serial): (FileDevice, Alien, String)| {
        alien::erase(&mut device).map_err(explain)?;
        let name = device.name().to_owned();
        Ok(format!("{name}: erased {}, as [spool] take_serials says of {serial:?}", alien.what))
    };
    taken.into_iter().map(erase).collect()
}

fn bears(device: &FileDevice, alien: Alien, serial: Option<&str>) -> BootError {
    let Alien { offset, what } = alien;
    let problem = Problem::Bears(what);
    let error = SetError { device: device.name().to_owned(), offset, problem };
    let advice = serial.map_or_else(
        || "choose another device, or erase this one yourself: it says no serial number".to_owned(),
        |serial| {
            format!(
                "choose another device; or, if what is on it may be lost, write [spool] \
                 take_serials = [{serial:?}]"
            )
        },
    );
    BootError::unavailable(format!("spool {error}"), &advice)
}

impl Locked {
    /// Recovers it and raises its run.
    ///
    /// # Errors
    /// Which place, and what to do.
    pub(super) fn recover(
        self,
        config: &Config,
        cores: usize,
        wall_us: u64,
        progress: &mut Progress<'_>,
    ) -> Result<Store, BootError> {
        let Self { devices, geometry, mut notes } = self;
        let set = Set::open(devices, config.node.id, config.spool.lone_member).map_err(explain)?;
        notes.extend(differs(&set, geometry));
        let cores = u16::try_from(cores).unwrap_or(u16::MAX);
        let options = Options {
            cores,
            pid: std::process::id(),
            wall_us,
            generation: random()?,
            raise_format: config.spool.raise_format || is_blessed() == Some(true),
        };
        let recovered = recovery::recover(set, options, progress).map_err(explain)?;
        let recovery::Recovered { set, run, logs, report } = recovered;
        notes.extend(format_said(report.format, set.superblock.format));
        Ok(Store { set, run, logs, report, notes })
    }
}

/// Whether this version is not under trial, if somebody says so.
fn is_blessed() -> Option<bool> {
    std::env::var_os(BLESSED).map(|said| said != "0")
}

/// In which format a set is made: a version under trial may yet be left for the one before it,
/// which must find a set that it can read.
fn new_format(is_blessed: Option<bool>, raise: bool) -> Format {
    if is_blessed == Some(false) && !raise { Format::V1 } else { Format::NEWEST }
}

/// What is worth saying of the format it was found in and the one it is written in.
fn format_said(found: Format, written: Format) -> Option<String> {
    let (old, now, newest) = (found.number(), written.number(), Format::NEWEST.number());
    if found < written {
        return Some(format!(
            "the spool was raised from format {old} to format {now}: versions that do not know it \
             cannot read it any more"
        ));
    }
    (written < Format::NEWEST).then(|| {
        format!(
            "the spool is in format {now}; with [spool] raise_format = true the next start writes \
             it in format {newest}, which takes less room and which older versions cannot read"
        )
    })
}

/// Notes a clean end.
///
/// # Errors
/// A device says no; the next start looks a little longer.
pub(super) fn release(set: &mut Set<FileDevice>) -> Result<(), SetError> {
    recovery::release(set)
}

fn geometry(config: &Config, cores: usize, places: usize) -> Geometry {
    let copies: u16 = if config.spool.mirror { 2 } else { 1 };
    let columns = (places / usize::from(copies)).max(1);
    let logs_each = u32::try_from(cores.div_ceil(columns)).unwrap_or(u32::MAX);
    Geometry {
        node: config.node.id,
        segment_bytes: config.spool.segment_mib.saturating_mul(MIB),
        // And one that no core gets: a start may need it to put nearly empty ones together.
        segments: config.spool.segments.saturating_mul(logs_each).saturating_add(1),
        copies,
        volatile: config.spool.durability == config::Durability::None,
    }
}

/// What the config says and the spool does not do.
fn differs(set: &Set<FileDevice>, wanted: Geometry) -> Option<String> {
    let block = &set.superblock;
    let same = (block.segments, block.segment_bytes) == (wanted.segments, wanted.segment_bytes);
    (!same).then(|| {
        format!(
            "the spool has {} segments of {} MiB on each place, as it was made; the config's {} of \
             {} MiB would count for a new one",
            block.segments,
            block.segment_bytes / MIB,
            wanted.segments,
            wanted.segment_bytes / MIB
        )
    })
}

/// Where one device of the spool is.
#[derive(Debug)]
struct PlaceOf {
    place: PathBuf,
    /// The file, or the block device itself.
    path: PathBuf,
    is_device: bool,
}

impl PlaceOf {
    fn new(place: &Path) -> Self {
        let meta = fs::metadata(place);
        let is_device = meta.is_ok_and(|meta| meta.file_type().is_block_device());
        let path = if is_device { place.to_owned() } else { place.join(FILE) };
        Self { place: place.to_owned(), path, is_device }
    }

    /// Under which name a file is made.
    fn unfinished(&self) -> PathBuf {
        self.path.with_extension("spool.new")
    }

    fn is_there(&self) -> bool {
        self.is_device || self.path.exists()
    }

    fn fail(&self, error: &OpenError) -> BootError {
        let what = format!("spool {}: {error}", self.path.display());
        match error {
            OpenError::Busy => {
                let advice = match self.owner() {
                    Some((pid, run)) => format!("it is process {pid}, run {run}: stop it first"),
                    None => "stop the other daemon first".to_owned(),
                };
                BootError::unavailable(what, &advice)
            }
            OpenError::NoDirect => BootError::config(what, ""),
            OpenError::Claimed => {
                BootError::unavailable(what, "unmount it or take it out, or choose another")
            }
            OpenError::Io(_) => {
                BootError::unavailable(what, "[spool] places must be writable by this user")
            }
        }
    }

    /// Process and run of whoever has it.
    fn owner(&self) -> Option<(u32, u32)> {
        let mut device = FileDevice::open(&self.path, Durability::None, false).ok()?;
        let block = set::read_superblock(&mut device).ok()?;
        (block.owner_pid != 0).then_some((block.owner_pid, block.run))
    }

    fn open(&self, durability: Durability) -> Result<FileDevice, BootError> {
        let mut device = None;
        let free =
            waiting::until(&self.path, || match FileDevice::open(&self.path, durability, true) {
                Ok(opened) => {
                    device = Some(opened);
                    Ok(true)
                }
                Err(OpenError::Busy) => Ok(false),
                Err(error) => Err(error),
            });
        match free {
            Ok(true) => Ok(device.expect("set when it was opened")),
            Ok(false) => Err(self.fail(&OpenError::Busy)),
            Err(error) => Err(self.fail(&error)),
        }
    }
}

/// Whether there is no spool at all. Takes the last step of a start that was cut short just
/// before it.
fn is_new(places: &[PlaceOf], durability: Durability) -> Result<bool, BootError> {
    let mut there = 0;
    for place in places {
        let blank = place.is_device && {
            let mut device = place.open(durability)?;
            match set::read_superblock(&mut device) {
                Err(SetError { problem: Problem::Blank, .. }) => true,
                Ok(_) => false,
                Err(error) => return Err(explain(error)),
            }
        };
        there += usize::from(place.is_there() && !blank);
    }
    if there == 0 {
        return Ok(true);
    }
    for place in places.iter().filter(|place| !place.is_there() && place.unfinished().exists()) {
        // Another place has its name already: all were whole before the first got it.
        fs::rename(place.unfinished(), &place.path)
            .map_err(|error| place.fail(&OpenError::Io(error)))?;
    }
    Ok(false)
}

/// An empty file in the place of a mirror's lost half is the operator's word that a new one is to
/// be made there: it is filled with zeros, and with mail when the daemon runs.
fn blank(
    places: &[PlaceOf],
    durability: Durability,
    config: &Config,
) -> Result<Vec<String>, BootError> {
    let octets = |place: &PlaceOf| fs::metadata(&place.path).map_or(0, |meta| meta.len());
    let files = || places.iter().filter(|place| !place.is_device && place.is_there());
    let bytes = files().map(octets).max().unwrap_or(0);
    let mut notes = Vec::new();
    for place in files().filter(|place| config.spool.mirror && octets(place) == 0 && bytes > 0) {
        let made = remove_if_there(&place.unfinished()).map_err(OpenError::Io).and_then(|()| {
            FileDevice::create(&place.unfinished(), bytes, durability)?;
            fs::rename(place.unfinished(), &place.path)
                .and_then(|()| fs::File::open(&place.place)?.sync_all())
                .map_err(OpenError::Io)
        });
        made.map_err(|error| place.fail(&error))?;
        notes.push(format!("{}: was empty; made a blank one", place.path.display()));
    }
    Ok(notes)
}

fn found(
    places: &[PlaceOf],
    durability: Durability,
    lone_member: bool,
) -> Result<Vec<FileDevice>, BootError> {
    let mut devices = Vec::new();
    for place in places {
        if place.is_there() {
            devices.push(place.open(durability)?);
        } else if !lone_member {
            let what =
                format!("spool {}: is missing, and other places are not", place.path.display());
            let advice = "mount it; or, if it is one half of a mirror and lost, write \
                          [spool] lone_member = true";
            return Err(BootError::unavailable(what, advice));
        }
    }
    Ok(devices)
}

fn make(
    places: &[PlaceOf],
    (geometry, format): (Geometry, Format),
    durability: Durability,
    wall_us: u64,
) -> Result<Vec<FileDevice>, BootError> {
    if let Err(what) = geometry.check(places.len()) {
        return Err(BootError::config(format!("[spool]: {what}"), "change it in the config"));
    }
    let mut devices = Vec::with_capacity(places.len());
    for place in places {
        let device = if place.is_device {
            place.open(durability)?
        } else {
            let made = fs::create_dir_all(&place.place)
                .and_then(|()| remove_if_there(&place.unfinished()))
                .map_err(OpenError::Io)
                .and_then(|()| {
                    FileDevice::create(&place.unfinished(), geometry.device_bytes(), durability)
                });
            made.map_err(|error| place.fail(&error))?
        };
        devices.push(device);
    }
    let seeds = Seeds { set: random()?, log: random()?, generation: random()? };
    // Files are zero already; what a device held before must go.
    let zero = places.iter().any(|place| place.is_device);
    let made = set::format_as(format, &mut devices, geometry, seeds, wall_us, zero);
    made.map_err(explain)?;
    for place in places.iter().filter(|place| !place.is_device) {
        let named = fs::rename(place.unfinished(), &place.path)
            .and_then(|()| fs::File::open(&place.place)?.sync_all());
        named.map_err(|error| place.fail(&OpenError::Io(error)))?;
    }
    Ok(devices)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn random() -> Result<u128, BootError> {
    let mut octets = [0; 16];
    getrandom::fill(&mut octets)
        .map_err(|error| BootError::os(format!("random numbers: {error}"), ""))?;
    Ok(u128::from_ne_bytes(octets))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn explain(error: SetError) -> BootError {
    let what = format!("spool {error}");
    let advice = match &error.problem {
        Problem::OtherNode { .. } => "[node] id must be that of the spool's node",
        Problem::Missing(_) => {
            "bring the device back; or, if it is one half of a mirror and lost, write [spool] \
             lone_member = true"
        }
        other => spool::advice::on(other),
    };
    BootError::unavailable(what, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    fn open(config: &Config, cores: usize, wall_us: u64) -> Result<Store, BootError> {
        lock(config, cores, wall_us)?.recover(config, cores, wall_us, &mut |_| {})
    }

    impl Dir {
        fn new(name: &str) -> Self {
            // Not below /tmp: a tmpfs may not take O_DIRECT.
            let top = std::env::var_os("CARGO_TARGET_TMPDIR")
                .map_or_else(std::env::temp_dir, PathBuf::from);
            let dir = top.join(format!("store-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            Self(dir)
        }

        fn config(&self, more: &str) -> Config {
            let text = format!(
                "[node]\nhostname=\"mx.example.org\"\n\
                 [policy]\npostmaster=\"p@example.org\"\n[[route]]\ndomains=[\"example.org\"]\n\
                 mx=true\n[[listener]]\naddress=\"127.0.0.1\"\n\
                 tls=\"none\"\n[spool]\ndurability=\"none\"\nsegments=4\nsegment_mib=4\n\
                 places=[\"{0}/a\",\"{0}/b\"]\n{more}",
                self.0.display()
            );
            Config::parse("t", &text, &config::Disk).unwrap().config
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_spool_is_made_once_and_each_start_is_a_new_run() {
        let dir = Dir::new("made");
        let config = dir.config("");
        let first = open(&config, 2, 1_000_000).unwrap();
        assert_eq!((first.run, first.logs.len(), first.notes.len()), (1, 2, 1));
        let error = open(&config, 2, 1_000_000).unwrap_err();
        assert!(error.what.contains("another process"), "{error}");
        let owner = format!("process {}, run 1", std::process::id());
        assert!(error.advice.contains(&owner), "{error}");
        drop(first);
        let mut second = open(&config, 1, 2_000_000).unwrap();
        assert_eq!((second.run, second.logs.len()), (2, 1));
        assert!(second.report.was_running);
        assert!(second.notes.is_empty(), "{:?}", second.notes);
        release(&mut second.set).unwrap();
        drop(second);
        assert!(!open(&config, 1, 3_000_000).unwrap().report.was_running);
    }

    #[test]
    fn a_place_that_lost_its_file_is_named_and_nothing_is_made() {
        let dir = Dir::new("lost");
        let config = dir.config("");
        drop(open(&config, 2, 1_000_000).unwrap());
        fs::remove_file(dir.0.join("b").join(FILE)).unwrap();
        let error = open(&config, 2, 1_000_000).unwrap_err();
        assert!(error.what.contains("/b/") && error.advice.contains("mount"), "{error}");
        assert!(!dir.0.join("b").join(FILE).exists());
    }

    #[test]
    fn a_first_start_that_was_cut_short_is_begun_again_or_finished() {
        let dir = Dir::new("cut");
        let config = dir.config("");
        let unfinished = dir.0.join("a").join(FILE).with_extension("spool.new");
        fs::create_dir_all(dir.0.join("a")).unwrap();
        fs::write(&unfinished, [0; 100]).unwrap();
        drop(open(&config, 2, 1_000_000).unwrap());
        assert!(!unfinished.exists());
        // Cut between giving the first and the second name.
        let second = dir.0.join("b").join(FILE);
        fs::rename(&second, second.with_extension("spool.new")).unwrap();
        assert_eq!(open(&config, 2, 1_000_000).unwrap().run, 2);
    }
}
