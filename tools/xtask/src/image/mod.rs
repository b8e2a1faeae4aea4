//! `./x image`: from a kernel and our programs to a flashable, signed, reproducible disk image.
//!
//! *Guarantees*: the same inputs give the same bytes: every time in a file is [`tool::EPOCH`],
//! every name and number is fixed; the manifest beside the image names all inputs with digests.
//! *Failure*: the first step that fails, with the words of the program that failed.
//! *Not here*: what runs inside (`image/init`, `daemon/ringpostd`).

mod tool;

mod gates;

mod kernel;

mod programs;

mod keys;

mod initramfs;

mod uki;

mod disk;

mod manifest;

mod guest;

mod build;

mod reproduce;

mod figures;

use std::path::Path;

const HELP: &str = "\
    ./x image [--version V] [--debug] [--out DIR] [--key FILE --cert FILE]
            [--programs DIR]
        build DIR/ringpost-V.img, its UKI, manifest and signature; with --programs from init,
        ringpostd and ringpost as they lie there
    ./x image run [IMAGE]           boot it in QEMU; port 25 of the guest is 127.0.0.1:2525;
            RINGPOST_ACCEL=kvm for speed
    ./x image kernel                build the kernel alone, and say where it lies
    ./x image --reproduce [kernel | programs] [--write]
            build them twice in different folders, compare them, and hold inputs and outputs
            against image/reproduced.table; --write writes that file
    ./x image figures [IMAGE] [--profile]
            size, time of assembly, memory, time to port 25 in QEMU step by step; with --profile
            also where the kernel takes long
    ./x image config                write kernel-config/result.config anew
    ./x image uki --out FILE [--version V] [--debug] [--unsigned] [--fast]
            [--replace PATH=FILE]...
        build one UKI from what was built before, for tests; --fast packs it less
    Config files onto an image, an image onto a disk: `ringpost inject`, `ringpost flash`.
";

/// The verbs behind `./x image`.
pub(crate) fn run(words: impl Iterator<Item = String>) -> Result<(), String> {
    let words: Vec<String> = words.collect();
    let rest = words.get(1..).unwrap_or_default();
    match words.first().map(String::as_str) {
        Some("run") => guest::run(rest.first().map(Path::new)),
        Some("kernel") => kernel::build().map(|built| println!("{}", built.image().display())),
        Some("--reproduce") => reproduce::reproduce(rest),
        Some("figures") => figures::figures(rest),
        Some("config") => kernel::write_result(),
        Some("uki") => build::uki_only(&build::Options::read(rest)?),
        Some("help" | "--help") => {
            print!("{HELP}");
            Ok(())
        }
        _ => build::image(&build::Options::read(&words)?),
    }
}
