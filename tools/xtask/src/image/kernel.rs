//! The kernel: Debian's source, our fragments, built once for each set of inputs.
//!
//! *Guarantees*: both gates hold before anything is compiled; the same inputs give the same bytes
//! in any folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::gates;
use super::tool::{self, EPOCH, cache, copy, digest_of, done, folder, fresh, package, tool, write};

const SOURCE: &str = "linux-source-6.12";
const CONFIG: &str = "kernel-config";
/// Changes when this file builds otherwise than before.
const RECIPE: u32 = 1;
/// `EPOCH` as `uname -v` shows it.
const TIMESTAMP: &str = "Thu Jan  1 00:00:00 UTC 2026";

/// A built kernel.
#[derive(Debug)]
pub(crate) struct Built {
    place: PathBuf,
}

impl Built {
    /// The kernel itself.
    pub(crate) fn image(&self) -> PathBuf {
        self.place.join("bzImage")
    }

    /// The kernel's own packer of initramfs.
    pub(crate) fn packer(&self) -> PathBuf {
        self.place.join("gen_init_cpio")
    }

    /// What `uname -r` will say.
    pub(crate) fn release(&self) -> Result<String, String> {
        let path = self.place.join("release");
        fs::read_to_string(&path)
            .map(|text| text.trim().to_owned())
            .map_err(|e| format!("{}: {e}", path.display()))
    }
}

/// What decides how the kernel looks.
fn key(wanted: &gates::Config) -> Result<String, String> {
    let mut text = gates::plain(wanted);
    for name in [SOURCE, "gcc-12", "binutils"] {
        text += &format!("{name} {}\n", package(name)?);
    }
    text += &format!("recipe {RECIPE}\nepoch {EPOCH}\n");
    Ok(digest_of(&text)[..16].to_owned())
}

/// What goes in, one line each: a name and a version or digest.
pub(crate) fn inputs() -> Result<Vec<(String, String)>, String> {
    let wanted = gates::fragments(Path::new(CONFIG))?;
    let mut all = Vec::new();
    for name in [SOURCE, "gcc-12", "binutils"] {
        all.push((name.to_owned(), package(name)?));
    }
    all.push((CONFIG.to_owned(), digest_of(&gates::plain(&wanted))));
    all.push(("recipe".to_owned(), RECIPE.to_string()));
    Ok(all)
}

/// The kernel of this tree, from the cache if its inputs are the same.
pub(crate) fn build() -> Result<Built, String> {
    let wanted = gates::fragments(Path::new(CONFIG))?;
    build_in(&cache()?.join("kernel").join(key(&wanted)?))
}

/// The same in a folder, unless it lies there whole.
pub(crate) fn build_in(place: &Path) -> Result<Built, String> {
    let wanted = gates::fragments(Path::new(CONFIG))?;
    let place = place.to_owned();
    let built = Built { place: place.clone() };
    if built.image().exists() {
        return Ok(built);
    }
    println!("building the kernel once for these inputs: about 20 minutes on two cores");
    let from = Instant::now();
    let work = place.with_extension("work");
    let source = configured(&wanted, &work)?;
    let got = tool::read(&source.join(".config"))?;
    let got = gates::result(&String::from_utf8_lossy(&got));
    let known = gates::result(&String::from_utf8_lossy(&tool::read(&result_path())?));
    if got != known {
        return Err(format!(
            "{} is not of these inputs: ./x image config",
            result_path().display()
        ));
    }
    let jobs = std::thread::available_parallelism().map_or(2, usize::from);
    // The packer of initramfs is built on the way.
    done(make(&source).args([&format!("-j{jobs}"), "bzImage"]))?;
    let release = done(make(&source).arg("kernelrelease"))?;
    let done_place = place.with_extension("new");
    fresh(&done_place)?;
    copy(&source.join("arch/x86/boot/bzImage"), &done_place.join("bzImage"))?;
    copy(&source.join("usr/gen_init_cpio"), &done_place.join("gen_init_cpio"))?;
    write(&done_place.join("release"), release)?;
    // The name appears when the folder is whole.
    fs::rename(&done_place, &place).map_err(|e| format!("{}: {e}", place.display()))?;
    fs::remove_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    println!("kernel built in {} s", from.elapsed().as_secs());
    Ok(built)
}

/// Unpacks the source, configures it, holds it against both gates.
fn configured(wanted: &gates::Config, work: &Path) -> Result<PathBuf, String> {
    fresh(work)?;
    let archive = format!("/usr/src/{SOURCE}.tar.xz");
    done(tool("tar").args(["-xf", &archive, "-C"]).arg(work))?;
    let source = work.join(SOURCE);
    let fragment = work.join("all.config");
    write(&fragment, gates::plain(wanted))?;
    let all = format!("KCONFIG_ALLCONFIG={}", fragment.display());
    done(make(&source).args([&all, "alldefconfig"]))?;
    let got = tool::read(&source.join(".config"))?;
    let got = gates::result(&String::from_utf8_lossy(&got));
    let table = tool::read(&Path::new(CONFIG).join("hardening.table"))?;
    let mut wrong = gates::dropped(wanted, &got);
    wrong.extend(gates::unhardened(&String::from_utf8_lossy(&table), &got));
    if wrong.is_empty() { Ok(source) } else { Err(wrong.join("\n")) }
}

fn make(source: &Path) -> std::process::Command {
    // Minutes of work: the machine stays usable.
    let mut make = tool("nice");
    make.args(["-n", "10", "make", "-s"]).arg("-C").arg(source);
    make.env("KBUILD_BUILD_TIMESTAMP", TIMESTAMP);
    make.env("KBUILD_BUILD_USER", "ringpost").env("KBUILD_BUILD_HOST", "ringpost");
    make.env("KBUILD_BUILD_VERSION", "1");
    make
}

fn result_path() -> PathBuf {
    Path::new(CONFIG).join("result.config")
}

/// Writes what Kconfig makes of the fragments, for the gates and for readers of changes.
pub(crate) fn write_result() -> Result<(), String> {
    let wanted = gates::fragments(Path::new(CONFIG))?;
    let work = cache()?.join("kernel");
    folder(&work)?;
    let work = work.join("config.work");
    let outcome = configured(&wanted, &work);
    // Written even if a gate fails: the difference says why.
    let config = work.join(SOURCE).join(".config");
    if let Ok(got) = tool::read(&config) {
        let got = gates::result(&String::from_utf8_lossy(&got));
        let lines: String = got.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let head = "# Written by `./x image config`: what Kconfig makes of the fragments.\n";
        write(&result_path(), format!("{head}{lines}"))?;
    }
    let _ = fs::remove_dir_all(&work);
    outcome.map(drop)
}
