//! Who may log in on a line: names, roles, password hashes; wrong passwords; the audit log.
//!
//! *Guarantees*: a password is kept as an argon2id hash only. A file changes as a whole or not at
//! all. Wrong passwords are counted on disk before anybody is told: a new start forgets none.
//! *Limits*: `DELAY_MAX`, `AUDIT_OCTETS_MAX`, names of 32 and passwords of 8 to 128 octets.
//! *Failure*: a file that makes no sense lets nobody in.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use control::Role;

use crate::exit::{Exit, Trouble};
use crate::text::{plain, wall};

/// The folder of these files on the appliance.
pub(crate) const STATE: &str = "/state/console";
/// The folder, for the commands of a login.
pub(crate) const VARIABLE: &str = "RINGPOST_STATE";
/// The folder of the config, for the commands of a login.
pub(crate) const CONFIG: &str = "RINGPOST_CONFIG";
/// The file of names, also beside a config.
pub(crate) const FILE: &str = "access";
/// The longest wait after wrong passwords, in units of the first.
const DELAY_MAX: u64 = 300;
/// Octets of the audit log before it is moved aside.
const AUDIT_OCTETS_MAX: u64 = 16 << 20;
const NAME_MAX: usize = 32;
const PASSWORD_OCTETS: std::ops::RangeInclusive<usize> = 8..=128;

/// One who may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) name: String,
    pub(crate) role: Role,
    hash: String,
}

impl Login {
    /// With a password of its own.
    ///
    /// # Errors
    /// The name or the password is none.
    pub(crate) fn new(name: &str, role: Role, password: &str) -> Result<Self, Trouble> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(good) {
            let advice = "At most 32 of a-z, 0-9, dot, dash, underscore.";
            return Err(Trouble::new(Exit::Usage, format!("{name:?} is no name"), advice));
        }
        if !PASSWORD_OCTETS.contains(&password.len()) {
            let advice = "Take 8 to 128 octets.";
            return Err(Trouble::new(Exit::Usage, "the password is too short or long", advice));
        }
        let failed = |error: &dyn std::fmt::Display| {
            Trouble::new(Exit::Refused, format!("cannot hash: {error}"), "")
        };
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|error| failed(&error))?;
        let hash: PasswordHash = Argon2::default()
            .hash_password_with_salt(password.as_bytes(), &salt)
            .map_err(|error| failed(&error))?;
        Ok(Self { name: name.to_owned(), role, hash: hash.to_string() })
    }

    /// Whether this is its password; takes as long as the hash wants.
    fn fits(&self, password: &str) -> bool {
        PasswordHash::new(&self.hash)
            .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    }
}

/// The files of one console.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    /// The folder of the config, whose `access` counts until there is one of our own.
    config: Option<PathBuf>,
}

impl Store {
    /// In this folder.
    pub(crate) fn new(folder: &Path, config: Option<&Path>) -> Self {
        Self { folder: folder.to_owned(), config: config.map(Path::to_owned) }
    }

    /// Everybody who may log in.
    ///
    /// # Errors
    /// The file cannot be read, or makes no sense.
    pub(crate) fn logins(&self) -> Result<Vec<Login>, Trouble> {
        let folders = [Some(&self.folder), self.config.as_ref()];
        for folder in folders.into_iter().flatten() {
            let path = folder.join(FILE);
            match fs::read_to_string(&path) {
                Ok(text) => return parse(&text).ok_or_else(|| broken(&path, "makes no sense")),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(broken(&path, &error.to_string())),
            }
        }
        Ok(Vec::new())
    }

    /// Changes who may log in.
    ///
    /// # Errors
    /// The change's own, or the file system's; then nothing was changed.
    pub(crate) fn change(
        &self,
        change: impl FnOnce(&mut Vec<Login>) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let mut logins = self.logins()?;
        change(&mut logins)?;
        if !logins.iter().any(|login| login.role == Role::Admin) {
            return Err(Trouble::new(Exit::Refused, "no admin would be left", ""));
        }
        let lines = logins.iter().map(|l| format!("{} {} {}\n", l.name, l.role.name(), l.hash));
        self.write(FILE, &lines.collect::<String>())
    }

    /// Who this is, if name and password fit.
    ///
    /// # Errors
    /// As [`Store::logins`].
    pub(crate) fn login(&self, name: &str, password: &str) -> Result<Option<Login>, Trouble> {
        let logins = self.logins()?;
        let named = logins.iter().find(|login| login.name == name);
        // Whoever guesses names waits as long as with a right one.
        let fits = named.or_else(|| logins.first()).is_some_and(|login| login.fits(password));
        Ok(named.filter(|_| fits).cloned())
    }

    /// Wrong passwords in a row, and when the last one was, in microseconds since the epoch.
    fn failures(&self) -> (u32, u64) {
        let text = fs::read_to_string(self.folder.join("failures")).unwrap_or_default();
        let mut numbers = text.split_whitespace();
        let mut number = || numbers.next().and_then(|word| word.parse::<u64>().ok());
        let count = number().and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        (count, number().unwrap_or(0))
    }

    /// One more wrong password, or none any more.
    ///
    /// # Errors
    /// The file system's: then nobody is let in.
    pub(crate) fn judged(&self, right: bool) -> Result<(), Trouble> {
        let (count, _) = self.failures();
        match (right, count) {
            (true, 0) => Ok(()),
            (true, _) => self.write("failures", "0 0\n"),
            (false, _) => {
                self.write("failures", &format!("{} {}\n", count.saturating_add(1), now_us()))
            }
        }
    }

    /// How long the next try has to wait.
    pub(crate) fn wait(&self, first: Duration) -> Duration {
        let (count, at_us) = self.failures();
        wait(count, at_us, now_us(), first)
    }

    /// Writes down who did what.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn audit(&self, who: &str, what: &str) -> Result<(), Trouble> {
        let path = self.folder.join("audit.log");
        let write = || {
            fs::create_dir_all(&self.folder)?;
            if fs::metadata(&path).is_ok_and(|data| data.len() > AUDIT_OCTETS_MAX) {
                fs::rename(&path, self.folder.join("audit.log.1"))?;
            }
            let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
            let (at, who, what) = (wall(now_us()), plain(who), plain(what));
            file.write_all(format!("{at} {who} {what}\n").as_bytes())
        };
        write().map_err(|error: std::io::Error| broken(&path, &error.to_string()))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Trouble> {
        let path = self.folder.join(name);
        let new = self.folder.join(format!("{name}.new"));
        let write = || {
            fs::create_dir_all(&self.folder)?;
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error: std::io::Error| broken(&path, &error.to_string()))
    }
}

fn broken(path: &Path, what: &str) -> Trouble {
    Trouble::new(Exit::Refused, format!("{}: {what}", path.display()), "")
}

fn parse(text: &str) -> Option<Vec<Login>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split(' ');
            let name = words.next()?.to_owned();
            let role = Role::named(words.next()?)?;
            let hash = words.next()?.to_owned();
            PasswordHash::new(&hash).ok()?;
            Some(Login { name, role, hash })
        })
        .collect()
}

/// Doubles with each wrong password; the whole of it where the clock went back.
fn wait(count: u32, at_us: u64, now_us: u64, first: Duration) -> Duration {
    let Some(steps) = count.checked_sub(1) else { return Duration::ZERO };
    let units = 1_u64.checked_shl(steps.min(32)).unwrap_or(DELAY_MAX).min(DELAY_MAX);
    let whole = first.saturating_mul(u32::try_from(units).unwrap_or(u32::MAX));
    match now_us.checked_sub(at_us) {
        Some(passed_us) => whole.saturating_sub(Duration::from_micros(passed_us)),
        None => whole,
    }
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_and_passes() {
        let s = Duration::from_secs;
        let at = |count| wait(count, 5_000_000, 5_000_000, s(1));
        assert_eq!([at(0), at(1), at(2), at(3), at(9), at(60)], [0, 1, 2, 4, 256, 300].map(s));
        assert_eq!(wait(3, 5_000_000, 7_500_000, s(1)), Duration::from_millis(1_500));
        assert_eq!(wait(3, 5_000_000, 60_000_000, s(1)), s(0));
        assert_eq!(wait(3, 5_000_000, 1_000_000, s(1)), s(4), "the clock went back");
    }

    #[test]
    fn a_file_that_makes_no_sense_lets_nobody_in() {
        let hash = Login::new("a", Role::Admin, "password").unwrap().hash;
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        assert_eq!(parse(&format!("# who\na admin {hash}\n")).unwrap().len(), 1);
        for wrong in ["a", "a admin", "a root x", "a admin x", &format!("a boss {hash}")] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
        assert!(Login::new("a", Role::Admin, "short").is_err());
        assert!(Login::new("A b", Role::Admin, "password").is_err());
    }
}
