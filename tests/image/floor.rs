//! The oldest kernel that Ringpost runs on: Debian's stock 6.1 package, unpacked, with a user space
//! of busybox and our static daemon. Its spool is the raw virtio disks themselves.
//!
//! *Failure*: what cannot be fetched fails the test with apt's words.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::stage;
use crate::daemon::programs::Folder;

/// Names the newest kernel of Debian's release.
const PACKAGE: &str = "linux-image-amd64";
/// What such a kernel is called on `uname -r`.
pub(super) const RELEASE: &str = "6.1.0-";
/// The same words that the image's own kernel has, as far as they matter here.
const COMMAND_LINE: &str = "console=ttyS0,115200 loglevel=4 panic=-1";
/// In the order in which they need each other.
const MODULES: [&str; 10] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "drivers/char/hw_random/virtio-rng",
];
const INITRAMFS: &str = "floor.initramfs";

/// Runs it; what it said.
fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// The unpacked kernel package and its release, fetched once for each version.
fn kernel() -> &'static (PathBuf, String) {
    static KERNEL: OnceLock<(PathBuf, String)> = OnceLock::new();
    KERNEL.get_or_init(|| {
        let said = run(Command::new("apt-cache").args(["depends", PACKAGE])).expect("apt-cache");
        let name = said.split_whitespace().find(|w| w.starts_with("linux-image-6"));
        let name = name.unwrap_or_else(|| panic!("{PACKAGE} is not known: apt-get update"));
        let release = name.trim_start_matches("linux-image-").to_owned();
        assert!(release.starts_with(RELEASE), "the floor is 6.1, not {release}");
        let said = run(Command::new("apt-cache").args(["show", "--no-all-versions", name]));
        let said = said.expect("apt-cache");
        let version = said.lines().find_map(|l| l.strip_prefix("Version: ")).expect("a version");
        let place = stage::cache().join(format!("floor-{release}-{version}"));
        if !place.exists() {
            let work = place.with_extension("work");
            let _ = fs::remove_dir_all(&work);
            fs::create_dir_all(&work).expect("a folder in the cache");
            let mut fetch = Command::new("apt-get");
            fetch.args(["download", "-q", "-o", "APT::Sandbox::User=root", name]);
            run(fetch.current_dir(&work)).expect("the kernel package");
            let package = fs::read_dir(&work).expect("ours").flatten().next().expect("fetched");
            let root = work.join("root");
            run(Command::new("dpkg-deb").arg("-x").arg(package.path()).arg(&root))
                .expect("it unpacks");
            // The name appears when the folder is whole.
            fs::rename(&root, &place).expect("in the cache");
            let _ = fs::remove_dir_all(&work);
        }
        (place, release)
    })
}

/// Kernel, initramfs and command line for QEMU.
pub(super) fn parts(folder: &Folder) -> (PathBuf, PathBuf, String) {
    let (place, release) = kernel();
    let image = place.join(format!("boot/vmlinuz-{release}"));
    (image, folder.path(INITRAMFS), COMMAND_LINE.to_owned())
}

/// Makes the user space, with this config of the daemon.
pub(super) fn user_space(folder: &Folder, config: &str) {
    let (place, release) = kernel();
    stage::image();
    let root = folder.path("floor");
    for dir in ["bin", "m", "proc", "sys", "dev", "log"] {
        fs::create_dir_all(root.join(dir)).expect("a folder of ours");
    }
    let copy = |from: &Path, to: &str| {
        fs::copy(from, root.join(to)).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    };
    copy(Path::new("/bin/busybox"), "bin/busybox");
    copy(&Path::new(&stage::programs()).join("ringpostd"), "bin/ringpostd");
    let modules = place.join("lib/modules").join(release).join("kernel");
    let mut load = String::new();
    for module in MODULES {
        let name = format!("m/{}.ko", module.rsplit('/').next().expect("one"));
        let from = modules.join(format!("{module}.ko"));
        // Built in, in some kernels.
        if from.exists() {
            copy(&from, &name);
            load += &format!("$B insmod /{name}\n");
        }
    }
    fs::write(root.join("mx.toml"), config).expect("a file of ours");
    let init = format!(
        "#!/bin/busybox sh\nB=/bin/busybox\n\
         $B mount -t proc proc /proc\n$B mount -t sysfs sys /sys\n\
         $B mount -t devtmpfs dev /dev\n{load}$B ifconfig lo 127.0.0.1 up\n\
         $B ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up\n\
         $B route add default gw 10.0.2.2\nulimit -l unlimited\n\
         echo \"floor: $($B uname -r)\"\n\
         /bin/ringpostd --config /mx.toml\necho OVER $?\n$B sleep 1\n$B poweroff -f\n",
    );
    fs::write(root.join("init"), init).expect("a file of ours");
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(root.join("init"), executable).expect("a file of ours");
    let mut cpio = Command::new("sh");
    cpio.args(["-c", "find . | cpio -o -H newc --quiet"]).current_dir(&root);
    let made = cpio.output().expect("a shell");
    assert!(made.status.success(), "cpio: {}", String::from_utf8_lossy(&made.stderr));
    File::create(folder.path(INITRAMFS))
        .and_then(|mut file| file.write_all(&made.stdout))
        .expect("a file of ours");
}
