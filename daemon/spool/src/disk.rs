//! Where the log lives: what the core asks of a device.
//!
//! `Device` is blocking, for formatting, recovery and offline tools. `Disk` is what a running
//! log uses: it submits, and is told later. The drivers are `file`, `sim` and `driver`.

use std::fmt;

/// What a device answers when it cannot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskError {
    /// The device said no: errno.
    Io(i32),
    /// Fewer bytes than asked.
    Short,
    /// Outside the device.
    Range,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(errno) => write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
            Self::Short => f.write_str("fewer bytes than asked"),
            Self::Range => f.write_str("outside the device"),
        }
    }
}

impl std::error::Error for DiskError {}

impl From<std::io::Error> for DiskError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::WriteZero => Self::Short,
            _ => Self::Io(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }
}

/// A device, blocking. Offsets and lengths are multiples of `BLOCK`.
pub trait Device {
    /// Bytes it holds.
    fn bytes(&self) -> u64;
    /// Its name in messages.
    fn name(&self) -> &str;
    /// Reads all of `into`.
    ///
    /// # Errors
    /// What the device said.
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError>;
    /// Writes all of `from`; durable when it returns.
    ///
    /// # Errors
    /// What the device said; any part may have been written.
    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), DiskError>;
    /// Makes durable whatever was written before, by whomever.
    ///
    /// # Errors
    /// What the device said.
    fn sync(&mut self) -> Result<(), DiskError>;
}

/// A buffer of `BATCH_BYTES_MAX` bytes, aligned as the device wants it.
pub trait Buffer {
    /// All of it.
    fn bytes(&self) -> &[u8];
    /// All of it.
    fn bytes_mut(&mut self) -> &mut [u8];
}

/// Names a request; the log gives it, the driver hands it back.
pub type Token = u64;

/// Which device of the set: the member number.
pub type Member = u16;

/// One write to one or two members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteTo {
    /// The first, and the mirror's second.
    pub members: [Option<Member>; 2],
    /// Offset on each.
    pub offset: u64,
    /// Bytes from the front of the buffer.
    pub bytes: usize,
}

/// What a running log submits. Each call is answered by completions given to `Log::completed`.
pub trait Disk {
    /// Its buffers.
    type Buffer: Buffer;
    /// A durable write: done means on the medium (`RWF_DSYNC`). One completion per member; the
    /// buffer comes back with the last of them.
    fn write(&mut self, token: Token, to: WriteTo, buffer: Self::Buffer);
    /// A read into a buffer of the driver's own.
    fn read(&mut self, token: Token, member: Member, offset: u64, bytes: usize);
    /// That member takes no part any more. What it still owes is answered as failed, with the
    /// buffer (or a copy of it, when the device does not let go) where it was the last to answer.
    fn abandon(&mut self, member: Member);
}

/// The answer to one request at one member.
#[derive(Debug)]
pub struct Completion<B> {
    /// Which request.
    pub token: Token,
    /// Which member.
    pub member: Member,
    /// Bytes done.
    pub result: Result<usize, DiskError>,
    /// With the last completion of a write, its buffer.
    pub buffer: Option<B>,
    /// What was read (of a read; empty otherwise).
    pub data: Vec<u8>,
}

/// Aligned memory without unsafe: a vector with room to shift.
pub struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl AlignedBuffer {
    /// Zeroed memory of that size at a multiple of `BLOCK`.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let memory = vec![0; bytes + crate::limits::BLOCK];
        let start = memory.as_ptr().align_offset(crate::limits::BLOCK);
        Self { memory, start, bytes }
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuffer").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Buffer for AlignedBuffer {
    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.bytes]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.bytes]
    }
}
