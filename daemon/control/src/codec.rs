//! Frames in a stream of octets: push what was read, pop what is whole.
//!
//! *Limits*: a decoder holds one frame of the size it was made for and what one push brought;
//! a length beyond that is an error at the head, before anything of the payload is kept.
//!
//! *Failure*: after [`TooLong`] the stream has no more frames: answer and close.

use core::fmt;

use crate::limits::FRAME_HEAD_OCTETS;

/// The protocol's version, in every frame.
pub const VERSION: u16 = 1;
const VERSION_OCTETS: usize = 2;

/// A frame is longer than it may be, or too short to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Octets, as the head says, head included.
    pub octets: usize,
    /// Octets allowed.
    pub max: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { octets, max } = *self;
        write!(f, "a frame of {octets} octets, from {FRAME_HEAD_OCTETS} to {max} are possible")
    }
}

impl core::error::Error for TooLong {}

/// One whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The sender's version.
    pub version: u16,
    /// JSON, if the version is ours.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The frame as octets, if it is not too long.
    pub fn write(version: u16, payload: &[u8], octets_max: usize) -> Result<Vec<u8>, TooLong> {
        let octets = payload.len().saturating_add(FRAME_HEAD_OCTETS);
        let too_long = TooLong { octets, max: octets_max };
        let length = u32::try_from(octets - FRAME_HEAD_OCTETS + VERSION_OCTETS);
        let length = length.map_err(|_| too_long)?;
        if octets > octets_max {
            return Err(too_long);
        }
        let mut out = Vec::with_capacity(octets);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&version.to_be_bytes());
        out.extend_from_slice(payload);
        Ok(out)
    }
}

/// Collects frames; see the module.
#[derive(Debug)]
pub struct Decoder {
    held: Vec<u8>,
    octets_max: usize,
}

impl Decoder {
    /// For frames of at most so many octets: `REQUEST_OCTETS_MAX` in the daemon,
    /// `REPLY_OCTETS_MAX` in the tool.
    #[must_use]
    pub const fn new(octets_max: usize) -> Self {
        Self { held: Vec::new(), octets_max }
    }

    /// Octets held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether the stream stands between two frames.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Takes what was read. Pop until there is nothing more before pushing again: then no more than
    /// one unfinished frame is ever held.
    pub fn push(&mut self, octets: &[u8]) {
        self.held.extend_from_slice(octets);
    }

    /// The next whole frame.
    pub fn pop(&mut self) -> Result<Option<Frame>, TooLong> {
        let Some((head, rest)) = self.held.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        let octets = length.saturating_add(4);
        if length < VERSION_OCTETS || octets > self.octets_max {
            return Err(TooLong { octets, max: self.octets_max });
        }
        let Some((version, payload)) = rest.get(..length).and_then(<[u8]>::split_first_chunk::<2>)
        else {
            return Ok(None);
        };
        let frame = Frame { version: u16::from_be_bytes(*version), payload: payload.to_vec() };
        self.held.drain(..octets);
        Ok(Some(frame))
    }
}
