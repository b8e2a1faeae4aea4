//! How `ringpost` ends: one code for each thing a script may want to tell apart.

use std::fmt;
use std::process::ExitCode;

use serde_json::json;

use crate::text::{COLUMNS, wrap};

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Fine = 0,
    /// The daemon refused, or could not.
    Refused = 1,
    /// The command line is wrong (clap's own code).
    Usage = 2,
    /// No daemon answers.
    NoDaemon = 3,
    /// This user may not.
    Denied = 4,
    /// No such message, hint or kind.
    NotFound = 5,
    /// The other side speaks another protocol, or none.
    Protocol = 6,
    /// Done, and what was found needs attention: the ledger does not balance.
    Attention = 7,
}

impl Exit {
    /// What a command ended with that was started as a program of its own.
    pub(crate) fn from_code(code: u8) -> Self {
        let all = [
            Self::Fine,
            Self::Refused,
            Self::Usage,
            Self::NoDaemon,
            Self::Denied,
            Self::NotFound,
            Self::Protocol,
            Self::Attention,
        ];
        all.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Self::Refused)
    }
}

/// For `--help`; each line at most 79 columns.
pub(crate) const HELP: &str = "\
Exit codes: 0 done; 1 the daemon refused or could not; 2 wrong command line;
3 no daemon answers; 4 this user may not; 5 no such message, hint or kind;
6 another protocol; 7 done, and what was found needs attention.

The socket is --socket, else $RINGPOST_SOCKET, else ./var/admin.sock if it
exists, else /run/ringpost/admin.sock.";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What went wrong, what to do, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) advice: String,
    /// `--json` has printed it already: it is the daemon's own reply.
    pub(crate) printed: bool,
}

impl Trouble {
    pub(crate) fn new(exit: Exit, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { exit, message: message.into(), advice: advice.into(), printed: false }
    }

    /// One line of `--json`, in the form of the daemon's failures.
    pub(crate) fn json(&self) -> String {
        let code = match self.exit {
            Exit::Fine | Exit::Refused => "refused",
            Exit::Usage => "usage",
            Exit::NoDaemon => "no-daemon",
            Exit::Denied => "denied",
            Exit::NotFound => "not-found",
            Exit::Protocol => "protocol",
            Exit::Attention => "attention",
        };
        let with = json!({ "code": code, "message": self.message, "advice": self.advice });
        format!("{}\n", json!({ "reply": "failure", "with": with }))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = wrap(&format!("ringpost: {}", self.message), COLUMNS - 2).into_iter();
        write!(f, "{}", lines.next().unwrap_or_default())?;
        for line in lines.chain(wrap(&self.advice, COLUMNS - 2)) {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}
