//! The whole way: kernel, programs, initramfs, UKI, disk, manifest, signatures.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::initramfs::Content;
use super::keys::Keys;
use super::manifest::Manifest;
use super::tool::{cache, copy, done, folder, fresh, tool, write};
use super::{disk, kernel, programs, uki};

/// The largest UKI: three of them, and as much again, find room on the ESP.
const UKI_BYTES_MAX: u64 = 32 << 20;

/// What the command line says.
#[derive(Debug)]
pub(crate) struct Options {
    version: String,
    debug: bool,
    unsigned: bool,
    fast: bool,
    out: Option<PathBuf>,
    keys: Option<Keys>,
    programs: Option<PathBuf>,
    replace: Vec<(String, PathBuf)>,
}

impl Options {
    /// Reads them.
    pub(crate) fn read(words: &[String]) -> Result<Self, String> {
        let mut options = Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            debug: false,
            unsigned: false,
            fast: false,
            out: None,
            keys: None,
            programs: None,
            replace: Vec::new(),
        };
        let (mut key, mut certificate) = (None, None);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().cloned().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--debug" => options.debug = true,
                "--fast" => options.fast = true,
                "--unsigned" => options.unsigned = true,
                "--version" => options.version = value()?,
                "--out" => options.out = Some(value()?.into()),
                "--programs" => options.programs = Some(value()?.into()),
                "--key" => key = Some(value()?.into()),
                "--cert" => certificate = Some(value()?.into()),
                "--replace" => {
                    let value = value()?;
                    let (path, file) = value.split_once('=').ok_or("--replace PATH=FILE")?;
                    options.replace.push((path.to_owned(), file.into()));
                }
                _ => return Err(format!("{word} is not known; ./x image help")),
            }
        }
        let sane = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '~';
        if options.version.is_empty() || !options.version.chars().all(sane) {
            return Err("a version has letters, digits, dots".to_owned());
        }
        options.keys = match (key, certificate) {
            (Some(key), Some(certificate)) => Some(Keys { key, certificate, is_test: false }),
            (None, None) => None,
            _ => return Err("--key and --cert come together".to_owned()),
        };
        Ok(options)
    }

    fn keys(&self) -> Result<Keys, String> {
        self.keys.clone().map_or_else(Keys::test, Ok)
    }
}

/// What the steps before the disk leave.
struct Made {
    kernel: PathBuf,
    initramfs: PathBuf,
    unsigned: PathBuf,
    content: Content,
}

/// Kernel, programs, initramfs, unsigned UKI.
fn make(options: &Options, work: &Path) -> Result<Made, String> {
    fresh(work)?;
    let built = kernel::build()?;
    let programs = options.programs.clone().map_or_else(programs::build, Ok)?;
    let from = Instant::now();
    let mut content =
        Content::new(&programs, work, &options.version, options.debug, &options.keys()?)?;
    for (path, file) in &options.replace {
        content.files.insert(path.clone(), file.clone());
    }
    let initramfs = work.join("initramfs.zst");
    let (plain, packed) = content.pack(&built.packer(), options.fast, &initramfs)?;
    let unsigned = work.join("unsigned.efi");
    let parts = uki::Parts {
        kernel: &built.image(),
        initramfs: &initramfs,
        version: &options.version,
        release: &built.release()?,
        work,
    };
    uki::join(&parts, &unsigned)?;
    println!(
        "user space {} KiB, packed {} KiB, in {:.1} s",
        plain >> 10,
        packed >> 10,
        from.elapsed().as_secs_f32()
    );
    Ok(Made { kernel: built.image(), initramfs, unsigned, content })
}

/// A UKI alone.
pub(crate) fn uki_only(options: &Options) -> Result<(), String> {
    let to = options.out.clone().ok_or("uki needs --out FILE")?;
    let work = to.with_extension("work");
    let made = make(options, &work)?;
    if options.unsigned {
        copy(&made.unsigned, &to)?;
    } else {
        options.keys()?.sign(&made.unsigned, &to)?;
    }
    // Beside it, for a start without firmware.
    copy(&made.initramfs, &to.with_extension("initramfs"))?;
    copy(&made.kernel, &to.with_extension("kernel"))?;
    write(&to.with_extension("cmdline"), uki::command_line())?;
    fs::remove_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))
}

/// The image with all that belongs to it.
pub(crate) fn image(options: &Options) -> Result<(), String> {
    let out = match &options.out {
        Some(out) => out.clone(),
        None => cache()?.join("image"),
    };
    folder(&out)?;
    let debug = if options.debug { "-debug" } else { "" };
    let name = format!("ringpost-{}{debug}", options.version);
    let file = |end: &str| out.join(format!("{name}.{end}"));
    let work = file("work");
    let made = make(options, &work)?;
    let from = Instant::now();
    let keys = options.keys()?;
    if keys.is_test {
        println!("signed with a test key: for production give --key and --cert");
    }
    keys.sign(&made.unsigned, &file("efi"))?;
    let bytes = fs::metadata(file("efi")).map_or(0, |meta| meta.len());
    if bytes > UKI_BYTES_MAX {
        return Err(format!("the UKI has {bytes} octets, at most {UKI_BYTES_MAX}"));
    }
    let loader = work.join("loader.efi");
    keys.sign(disk::loader(), &loader)?;
    disk::assemble(&loader, &file("efi"), &options.version, &work, &file("img"))?;
    copy(&made.initramfs, &file("initramfs"))?;
    copy(&made.kernel, &file("kernel"))?;
    write(&file("cmdline"), uki::command_line())?;
    let rustc = done(tool("rustc").arg("-V"))?;
    let mut manifest = Manifest::new(&options.version, &rustc)?;
    for (path, from) in &made.content.files {
        manifest.file("file", path, from)?;
    }
    manifest.file("lock", "Cargo.lock", Path::new("Cargo.lock"))?;
    manifest.file("kernel", "bzImage", &made.kernel)?;
    manifest.file("initramfs", "zstd", &made.initramfs)?;
    manifest.file("uki-unsigned", "efi", &made.unsigned)?;
    manifest.file("uki", "efi", &file("efi"))?;
    manifest.file("image", "img", &file("img"))?;
    write(&file("manifest"), manifest.text())?;
    keys.sign_beside(&file("manifest"))?;
    fs::remove_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    println!(
        "{}: UKI {} KiB; assembled in {:.1} s",
        file("img").display(),
        bytes >> 10,
        from.elapsed().as_secs_f32()
    );
    Ok(())
}
