//! What can go wrong, by what was tried.

use std::{fmt, io};

use ebpf_common::set::SetError;

/// Why a verb failed.
#[derive(Debug)]
pub enum Problem {
    /// A system call, and what it was for.
    System(&'static str, io::Error),
    /// The object could not be loaded: no privilege, or the kernel lacks something.
    Load(String),
    /// The filter could not be attached to an interface.
    Attach(String, String),
    /// A set of lists is not sound.
    Set(SetError),
    /// A setting is out of range.
    Setting(&'static str),
    /// The other end of the socket pair does not speak our language.
    Wire(&'static str),
    /// The other process reported this.
    Remote(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(what, error) => write!(f, "{what}: {error}"),
            Self::Load(why) => write!(f, "the filter was not loaded: {why}"),
            Self::Attach(interface, why) => write!(f, "not attached to {interface}: {why}"),
            Self::Set(SetError::Magic) => f.write_str("not a set of lists of this version"),
            Self::Set(SetError::TooMany(table)) => {
                write!(f, "more than {} records in {table:?}", table.max())
            }
            Self::Set(SetError::Length) => f.write_str("a set that is cut off"),
            Self::Set(SetError::Record(table, n)) => {
                write!(f, "record {n} of {table:?} is out of range")
            }
            Self::Setting(what) => write!(f, "setting out of range: {what}"),
            Self::Wire(what) => write!(f, "unexpected message: {what}"),
            Self::Remote(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Problem {}

impl From<SetError> for Problem {
    fn from(error: SetError) -> Self {
        Self::Set(error)
    }
}

/// Names a failed call.
pub(crate) fn call(what: &'static str) -> impl FnOnce(io::Error) -> Problem {
    move |error| Problem::System(what, error)
}
