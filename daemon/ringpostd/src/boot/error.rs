//! Why the daemon does not start: one clear line, what to do, and an exit code.

use std::fmt;

/// Exit codes, as `sysexits.h` has them.
pub mod exit {
    /// It ended as it was asked to.
    pub const OK: u8 = 0;
    /// The command line is wrong.
    pub const USAGE: u8 = 64;
    /// Something that is needed is not there: kernel, address, spool in use.
    pub const UNAVAILABLE: u8 = 69;
    /// A core failed while running. A restart recovers.
    pub const SOFTWARE: u8 = 70;
    /// The system said no to something it usually grants.
    pub const OS: u8 = 71;
    /// The config, or what it names, is wrong.
    pub const CONFIG: u8 = 78;
}

/// Why it does not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootError {
    /// The process's exit code.
    pub code: u8,
    /// What is wrong.
    pub what: String,
    /// What to do; may be empty.
    pub advice: String,
}

impl BootError {
    /// The config or what it names.
    #[must_use]
    pub fn config(what: impl fmt::Display, advice: &str) -> Self {
        Self { code: exit::CONFIG, what: what.to_string(), advice: advice.to_owned() }
    }

    /// Something is not there.
    #[must_use]
    pub fn unavailable(what: impl fmt::Display, advice: &str) -> Self {
        Self { code: exit::UNAVAILABLE, what: what.to_string(), advice: advice.to_owned() }
    }

    /// The system said no.
    #[must_use]
    pub fn os(what: impl fmt::Display, advice: &str) -> Self {
        Self { code: exit::OS, what: what.to_string(), advice: advice.to_owned() }
    }
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what.trim_end())?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, ": {}", self.advice) }
    }
}

impl std::error::Error for BootError {}
