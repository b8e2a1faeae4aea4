//! The user space: one list of files, packed by the kernel's own packer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::keys::Keys;
use super::tool::{EPOCH, done, tool, write};

/// Debian's programs in every image, and why.
const TOOLS: &[&str] = &[
    "/sbin/mkfs.xfs",     // the state partition at first start
    "/sbin/mdadm",        // a spool on md, for those who choose it
    "/sbin/xfs_repair",   // for the maintenance console
    "/sbin/blockdev",     // a spool that nobody writes in maintenance
    "/usr/sbin/nvme",     // wear and errors of drives, for the console
    "/usr/sbin/smartctl", // the same for SATA
];

/// What the debug image has besides.
const SHELL: &str = "/bin/busybox";
const APPLETS: &[&str] = &[
    "sh", "cat", "ls", "ps", "dmesg", "mount", "umount", "kill", "free", "df", "hexdump", "more",
    "head", "tail", "grep", "find", "uptime", "ip", "netstat", "reboot", "poweroff", "sync", "cp",
    "mv", "rm", "mkdir", "sleep", "vi", "nc", "date", "top", "stty",
];

/// What goes into an image.
#[derive(Debug)]
pub(crate) struct Content {
    /// Path in the image, file on this machine.
    pub(crate) files: BTreeMap<String, PathBuf>,
    /// Links, and what they point at.
    links: BTreeMap<String, String>,
}

impl Content {
    /// All files of a version.
    pub(crate) fn new(
        programs: &Path,
        work: &Path,
        version: &str,
        debug: bool,
        keys: &Keys,
    ) -> Result<Self, String> {
        let mut content = Self { files: BTreeMap::new(), links: BTreeMap::new() };
        for (name, path) in
            [("init", "/init"), ("ringpostd", "/bin/ringpostd"), ("ringpost", "/bin/ringpost")]
        {
            let stripped = work.join(name);
            done(tool("strip").arg("-o").arg(&stripped).arg(programs.join(name)))?;
            content.files.insert(path.to_owned(), stripped);
        }
        for program in TOOLS {
            let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
            content.with_libraries(&format!("/bin/{name}"), Path::new(program))?;
        }
        if debug {
            content.files.insert("/bin/busybox".to_owned(), SHELL.into());
            for applet in APPLETS {
                content.links.insert(format!("/bin/{applet}"), "busybox".to_owned());
            }
        }
        for (path, text) in [
            ("/etc/version", format!("{version}\n")),
            ("/etc/passwd", "root:x:0:0::/:/none\nringpost:x:100:100::/:/none\n".to_owned()),
            ("/etc/group", "root:x:0:\nringpost:x:100:\n".to_owned()),
            ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n".to_owned()),
        ] {
            let file = work.join(path.replace('/', "_"));
            write(&file, text)?;
            content.files.insert(path.to_owned(), file);
        }
        let key = work.join("upgrade.key");
        keys.write_public(&key)?;
        content.files.insert("/etc/upgrade.key".to_owned(), key);
        content.links.insert("/etc/resolv.conf".to_owned(), "/run/resolv.conf".to_owned());
        Ok(content)
    }

    /// A program of Debian's, with the libraries it names.
    fn with_libraries(&mut self, to: &str, from: &Path) -> Result<(), String> {
        self.files.insert(to.to_owned(), from.to_owned());
        let said = done(Command::new("ldd").arg(from)).map_err(|why| {
            format!("{}: {why}; is its Debian package installed?", from.display())
        })?;
        for path in said.split_whitespace().filter(|word| word.starts_with('/')) {
            self.files.insert(path.to_owned(), PathBuf::from(path));
        }
        Ok(())
    }

    /// The list as `gen_init_cpio` reads it.
    fn list(&self) -> Result<String, String> {
        let mut folders: Vec<String> =
            ["/dev", "/proc", "/sys", "/run", "/state"].map(str::to_owned).into();
        for path in self.files.keys().chain(self.links.keys()) {
            let above = Path::new(path).ancestors().skip(1);
            folders.extend(above.map(|a| a.display().to_string()).filter(|a| a != "/"));
        }
        folders.sort();
        folders.dedup();
        let mut list: String =
            folders.iter().map(|folder| format!("dir {folder} 0755 0 0\n")).collect();
        list += "nod /dev/console 0600 0 0 c 5 1\n";
        for (path, from) in &self.files {
            let from = fs::canonicalize(from).map_err(|e| format!("{}: {e}", from.display()))?;
            let mode = if path.starts_with("/etc/") { "0644" } else { "0755" };
            list += &format!("file {path} {} {mode} 0 0\n", from.display());
        }
        for (path, target) in &self.links {
            list += &format!("slink {path} {target} 0777 0 0\n");
        }
        Ok(list)
    }

    /// Packs it, well or fast; the octets before and after zstd.
    pub(crate) fn pack(&self, packer: &Path, fast: bool, to: &Path) -> Result<(u64, u64), String> {
        let list = to.with_extension("list");
        write(&list, self.list()?)?;
        let plain = to.with_extension("cpio");
        let out = fs::File::create(&plain).map_err(|e| format!("{}: {e}", plain.display()))?;
        let mut command = Command::new(packer);
        command.args(["-t", &EPOCH.to_string()]).arg(&list).stdout(out);
        let status = command.status().map_err(|e| format!("{}: {e}", packer.display()))?;
        if !status.success() {
            return Err(format!("gen_init_cpio: {status}"));
        }
        let level = if fast { "-3" } else { "-19" };
        done(tool("zstd").args(["-q", "-f", level, "-T1", "-o"]).arg(to).arg(&plain))?;
        let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
        Ok((size(&plain), size(to)))
    }
}
