//! The disk image: GPT, ESP, config seed. State and spool are made at first start, by init.
//!
//! *Guarantees*: fixed numbers everywhere; the first start makes them unique.

use std::path::{Path, PathBuf};

use super::tool::{EPOCH, done, fresh, tool, write};

const BOOT: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";
/// Room for the running version, the one before, one under trial, and as much again.
const ESP_MIB: u64 = 256;
const SEED_MIB: u64 = 64;
/// The menu shows for a second; a key holds it. No command line can be edited.
const LOADER: &str = "timeout 1\neditor no\nauto-entries no\n";

const GENIMAGE: &str = r#"
image @NAME@ {
    hdimage {
        partition-table-type = gpt
        disk-uuid = "52696e67-706f-7374-0000-000000000000"
        align = 1M
    }
    partition ringpost-esp {
        image = "esp.fat"
        partition-type-uuid = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
        partition-uuid = "52696e67-706f-7374-0000-000000000001"
        offset = 1M
    }
    partition ringpost-config {
        image = "config.fat"
        partition-type-uuid = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
        partition-uuid = "52696e67-706f-7374-0000-000000000002"
    }
}
"#;

/// Firmware's program that chooses a version, to be signed.
pub(crate) fn loader() -> &'static Path {
    Path::new(BOOT)
}

/// Makes the image from a signed loader and a signed UKI.
pub(crate) fn assemble(
    loader: &Path,
    uki: &Path,
    version: &str,
    work: &Path,
    to: &Path,
) -> Result<(), String> {
    let parts = work.join("parts");
    fresh(&parts)?;
    let settings = work.join("loader.conf");
    write(&settings, LOADER)?;
    let esp = fat(&parts.join("esp.fat"), ESP_MIB, "RINGPOSTESP", "52500001")?;
    for folder in ["EFI", "EFI/BOOT", "EFI/Linux", "loader"] {
        done(tool("mmd").arg("-i").arg(&esp).arg(format!("::{folder}")))?;
    }
    put(&esp, loader, "EFI/BOOT/BOOTX64.EFI")?;
    put(&esp, &settings, "loader/loader.conf")?;
    put(&esp, uki, &format!("EFI/Linux/ringpost_{version}.efi"))?;
    fat(&parts.join("config.fat"), SEED_MIB, "RINGPOST", "52500002")?;
    let name = to.file_name().ok_or("the image needs a name")?.to_string_lossy().into_owned();
    let config = work.join("genimage.cfg");
    write(&config, GENIMAGE.replace("@NAME@", &name))?;
    for folder in ["empty", "tmp"] {
        fresh(&work.join(folder))?;
    }
    let out = to.parent().ok_or("the image needs a folder")?;
    let mut command = tool("genimage");
    command.arg("--config").arg(&config).arg("--rootpath").arg(work.join("empty"));
    command.arg("--tmppath").arg(work.join("tmp")).arg("--inputpath").arg(&parts);
    done(command.arg("--outputpath").arg(out)).map(drop)
}

fn fat(path: &Path, mib: u64, name: &str, number: &str) -> Result<PathBuf, String> {
    let mut command = tool("mkfs.vfat");
    command.args(["--invariant", "-F", "32", "-n", name, "-i", number, "-C"]);
    done(command.arg(path).arg((mib << 10).to_string()))?;
    Ok(path.to_owned())
}

/// Copies a file into a FAT image under a fixed time.
fn put(image: &Path, from: &Path, to: &str) -> Result<(), String> {
    let time = format!("@{EPOCH}");
    let copy = image.with_extension("copy");
    super::tool::copy(from, &copy)?;
    done(tool("touch").args(["-d", &time]).arg(&copy))?;
    done(tool("mcopy").args(["-m", "-o", "-i"]).arg(image).arg(&copy).arg(format!("::{to}")))?;
    std::fs::remove_file(&copy).map_err(|e| e.to_string())
}
