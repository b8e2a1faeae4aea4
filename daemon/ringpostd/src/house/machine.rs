//! What a status says of the machine and of the last minutes.
//!
//! *Not here*: a disk's health: it takes a program and rights that the daemon has not (`ringpost`).

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::House;
use crate::metrics::Counter;

/// Seconds that are remembered.
const SECONDS_MAX: usize = 15 * 60 + 1;
/// Lines of each kind.
const LINES_MAX: usize = 16;

impl House {
    /// Once a second.
    pub(super) fn note_second(&self) {
        let views = self.views.borrow();
        let accepted = views.iter().map(|view| view.counter(Counter::MessagesAccepted)).sum();
        let mut seconds = self.seconds.borrow_mut();
        seconds.push_back(accepted);
        if seconds.len() > SECONDS_MAX {
            seconds.pop_front();
        }
    }

    /// Messages accepted in the last 1, 5 and 15 minutes.
    pub(super) fn accepted_lately(&self) -> [u64; 3] {
        let seconds = self.seconds.borrow();
        let Some(now) = seconds.back() else { return [0; 3] };
        [1, 5, 15].map(|minutes| {
            let before = seconds.len().checked_sub(minutes * 60 + 1).map_or(0, |at| seconds[at]);
            now.saturating_sub(before)
        })
    }
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// What the kernel says of the devices below these places.
pub(super) fn devices(places: &[PathBuf]) -> Vec<String> {
    places.iter().take(LINES_MAX).map(|place| device(place)).collect()
}

fn device(place: &Path) -> String {
    let name = place.display();
    let Ok(meta) = fs::metadata(place) else { return format!("{name}: cannot be read") };
    let number = if meta.file_type().is_block_device() { meta.rdev() } else { meta.dev() };
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let sys = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // A partition's queue is that of its disk.
    let queue = [sys.join("queue"), sys.join("../queue")].into_iter().find(|path| path.exists());
    let Some(queue) = queue else { return format!("{name}: device {major}:{minor}") };
    let cache = read(&queue.join("write_cache")).unwrap_or_else(|| "unknown".to_owned());
    let turns = match read(&queue.join("rotational")).as_deref() {
        Some("1") => "rotating",
        _ => "solid",
    };
    let model = ["model", "device/model"].into_iter().find_map(|file| {
        [sys.join("device").join(file), sys.join("../device").join(file), sys.join(file)]
            .iter()
            .find_map(|path| read(path))
    });
    let model = model.map_or_else(String::new, |model| format!(", {model}"));
    let disk = disk_of(&sys);
    let disk_name = disk.as_deref().unwrap_or("?");
    format!("{name}: {disk_name} ({major}:{minor}){model}, {turns}, write cache {cache}")
}

/// The whole disk of a partition or disk, by the kernel's name.
fn disk_of(sys: &Path) -> Option<String> {
    let place = fs::canonicalize(sys).ok()?;
    let disk = if place.join("partition").exists() { place.parent()? } else { &place };
    Some(disk.file_name()?.to_string_lossy().into_owned())
}

/// State and speed of each network link but the loopback.
pub(super) fn links() -> Vec<String> {
    let mut names: Vec<PathBuf> =
        fs::read_dir("/sys/class/net").into_iter().flatten().flatten().map(|e| e.path()).collect();
    names.sort();
    let link = |path: &PathBuf| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let state = read(&path.join("operstate"))?;
        let speed = read(&path.join("speed")).filter(|speed| !speed.starts_with('-'));
        let speed = speed.map_or_else(String::new, |speed| format!(", {speed} Mbit/s"));
        (name != "lo").then(|| format!("{name}: {state}{speed}"))
    };
    names.iter().filter_map(link).take(LINES_MAX).collect()
}
