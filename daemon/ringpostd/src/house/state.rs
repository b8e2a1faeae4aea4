//! The operator's files: standing orders, audit log, configs that were in force.
//!
//! *Guarantees*: standing orders are on the disk before anybody is told that they hold.
//! *Limits*: `AUDIT_OCTETS_MAX` for the audit log, then it begins anew beside the old one.
//! *Failure*: an act that cannot be written to the audit log is refused.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use control::Speaker;

use crate::config::Config;
use crate::rules::Rules;

/// Octets of the audit log before it is moved aside.
const AUDIT_OCTETS_MAX: u64 = 16 << 20;
/// Octets of who logged in where.
const LOGIN_OCTETS_MAX: usize = 64;
const RULES: &str = "rules";
const AUDIT: &str = "audit.log";

/// Where they lie.
#[must_use]
pub fn folder(config: &Config) -> PathBuf {
    config.admin.state.clone().unwrap_or_else(|| config.log.dir.join("admin"))
}

/// The standing orders, and what of their file makes no sense.
///
/// # Errors
/// The file is there and cannot be read.
pub fn load_rules(folder: &Path) -> io::Result<(Rules, Vec<String>)> {
    match fs::read_to_string(folder.join(RULES)) {
        Ok(text) => Ok(Rules::from_text(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((Rules::default(), Vec::new())),
        Err(error) => Err(error),
    }
}

/// Makes the standing orders durable.
///
/// # Errors
/// Those of the file system; then the old file is as it was.
pub(super) fn save_rules(folder: &Path, rules: &Rules) -> io::Result<()> {
    write_whole(&folder.join(RULES), rules.to_text().as_bytes())
}

/// A file that appears whole or not at all, and stays.
///
/// # Errors
/// Those of the file system.
pub(super) fn write_whole(path: &Path, octets: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder)?;
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = File::create(&new)?;
    file.write_all(octets)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

/// Who asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Caller {
    /// User id, as the kernel says it.
    pub uid: u32,
    /// Process.
    pub pid: Option<i32>,
    /// Who logged in on which line, if the console program says so.
    pub login: Login,
}

/// `NAME@LINE`, cut to what the audit log needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Login {
    octets: [u8; LOGIN_OCTETS_MAX],
    length: usize,
}

impl Default for Login {
    fn default() -> Self {
        Self { octets: [0; LOGIN_OCTETS_MAX], length: 0 }
    }
}

impl Login {
    /// Who speaks, in letters that cannot break a line of the log.
    pub(super) fn new(speaker: &Speaker) -> Self {
        let text = format!("{}@{}", &*speaker.name, &*speaker.line);
        let plain = text.bytes().map(|o| if o.is_ascii_graphic() { o } else { b'_' });
        let mut login = Self::default();
        for (slot, octet) in login.octets.iter_mut().zip(plain) {
            *slot = octet;
            login.length += 1;
        }
        login
    }

    fn text(&self) -> &str {
        self.octets.get(..self.length).and_then(|o| std::str::from_utf8(o).ok()).unwrap_or("")
    }
}

impl Caller {
    /// User, process and terminal, as far as they can be found out.
    fn text(&self) -> String {
        let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(self.uid));
        let user = user.ok().flatten().map_or_else(|| "?".to_owned(), |user| user.name);
        let at = self.pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        let at = at.map(|stat| format!(" at={}", terminal(&stat)));
        let pid = self.pid.map_or_else(String::new, |pid| format!(" pid={pid}"));
        let login = match self.login.text() {
            "" => String::new(),
            login => format!(" login={login}"),
        };
        format!("uid={} user={user}{pid}{}{login}", self.uid, at.unwrap_or_default())
    }
}

/// The controlling terminal of a process by its line in /proc, proc_pid_stat(5), which a sandbox
/// may read of strangers too: its name, its numbers, or `none`.
fn terminal(stat: &str) -> String {
    let number = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(4));
    let number = number.and_then(|number| number.parse::<i64>().ok()).unwrap_or(0);
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xf_ff00));
    match major {
        0 => "none".to_owned(),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => {
            let device = fs::read_link(format!("/sys/dev/char/{major}:{minor}"));
            let name = device.ok().and_then(|path| Some(path.file_name()?.to_owned()));
            name.map_or_else(|| format!("{major}:{minor}"), |n| n.to_string_lossy().into_owned())
        }
    }
}

/// Writes down who did what.
///
/// # Errors
/// Those of the file system.
pub(super) fn audit(folder: &Path, wall_us: u64, who: Caller, what: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join(AUDIT);
    if fs::metadata(&path).is_ok_and(|meta| meta.len() > AUDIT_OCTETS_MAX) {
        fs::rename(&path, folder.join("audit.log.1"))?;
    }
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let at = crate::maillog::stamp(wall_us);
    let what: String = what.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    file.write_all(format!("{at} {} {what}\n", who.text()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::terminal;

    #[test]
    fn a_terminal_is_named_as_its_users_know_it() {
        let stat = |number: i64| format!("7 (a (b) c) S 1 7 7 {number} 7 4194304 1");
        assert_eq!(terminal(&stat(0)), "none");
        assert_eq!(terminal(&stat(34816)), "pts/0");
        assert_eq!(terminal(&stat((137 << 8) | 3)), "pts/259");
        // No system has it.
        assert_eq!(terminal(&stat(4000 << 8)), "4000:0");
        assert_eq!(terminal("nonsense"), "none");
    }
}
