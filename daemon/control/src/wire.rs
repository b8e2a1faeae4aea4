//! Requests and replies to frames and back.

use core::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::codec::{Frame, TooLong, VERSION};
use crate::limits::{REPLY_OCTETS_MAX, REQUEST_OCTETS_MAX};
use crate::reply::{Failure, FailureCode, Reply};
use crate::request::{NAMES, Request};

/// A frame that is no request or reply of this version.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadFrame {
    /// The frame's version is not ours.
    Version(u16),
    /// Not JSON, or not of the form of a request or reply; what is wrong with it.
    Malformed(String),
    /// No such request; its name.
    Unknown(String),
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => {
                write!(f, "the other side speaks version {version}, this side {VERSION}")
            }
            Self::Malformed(what) => write!(f, "malformed: {what}"),
            Self::Unknown(name) => write!(f, "this version does not know {name:?}"),
        }
    }
}

impl core::error::Error for BadFrame {}

impl From<&BadFrame> for Failure {
    fn from(bad: &BadFrame) -> Self {
        let (code, advice) = match bad {
            BadFrame::Version(_) => {
                (FailureCode::Version, "use the ringpost that came with the daemon")
            }
            BadFrame::Malformed(_) => (FailureCode::Malformed, ""),
            BadFrame::Unknown(_) => {
                (FailureCode::Unknown, "use the ringpost that came with the daemon")
            }
        };
        Self::new(code, &bad.to_string(), advice)
    }
}

/// The octets of a request.
pub fn write_request(request: &Request) -> Result<Vec<u8>, TooLong> {
    Frame::write(VERSION, &to_json(request), REQUEST_OCTETS_MAX)
}

/// The octets of a reply; one that is too long becomes a failure that says so.
#[must_use]
pub fn write_reply(reply: &Reply) -> Vec<u8> {
    let long = |error: TooLong| {
        let advice = "ask for fewer at once";
        let failure = Failure::new(FailureCode::Refused, &format!("the reply is {error}"), advice);
        Frame::write(VERSION, &to_json(&Reply::Failure(failure)), REPLY_OCTETS_MAX)
    };
    Frame::write(VERSION, &to_json(reply), REPLY_OCTETS_MAX)
        .or_else(long)
        .expect("a failure's two lines are shorter than a reply may be")
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data with text keys is JSON")
}

/// The request in a frame.
pub fn read_request(frame: &Frame) -> Result<Request, BadFrame> {
    read(frame, "request", |name| NAMES.contains(&name))
}

/// The reply in a frame.
pub fn read_reply(frame: &Frame) -> Result<Reply, BadFrame> {
    read(frame, "reply", |_| true)
}

fn read<T: DeserializeOwned>(
    frame: &Frame,
    tag: &str,
    known: impl Fn(&str) -> bool,
) -> Result<T, BadFrame> {
    if frame.version != VERSION {
        return Err(BadFrame::Version(frame.version));
    }
    let malformed = |error: serde_json::Error| BadFrame::Malformed(error.to_string());
    let value: Value = serde_json::from_slice(&frame.payload).map_err(malformed)?;
    let Some(name) = value.get(tag).and_then(Value::as_str) else {
        return Err(BadFrame::Malformed(format!("no {tag:?} that is a name")));
    };
    if !known(name) {
        return Err(BadFrame::Unknown(name.chars().take(40).collect()));
    }
    serde_json::from_value(value).map_err(malformed)
}
