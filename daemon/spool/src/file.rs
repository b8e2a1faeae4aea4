//! The blocking driver over a file or a raw device: formatting, recovery, offline tools, tests.
//!
//! *Guarantees*: writes are durable on return (`O_DSYNC`); nothing goes through the page cache
//! unless the operator wrote `durability = "none"`.
//!
//! *Failure*: a place that refuses `O_DIRECT` is refused, with advice.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::disk::{
    AlignedBuffer, Buffer, Completion, Device, Disk, DiskError, Member, Token, WriteTo,
};
use crate::limits::{BATCH_BYTES_MAX, BLOCK};

/// How writes reach the medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// Each write is durable before it is answered.
    #[default]
    Full,
    /// Through the page cache: mail is lost when the machine stops. Stands in every status.
    None,
}

/// Why a place cannot be used.
#[derive(Debug)]
pub enum OpenError {
    /// The system said no.
    Io(std::io::Error),
    /// No `O_DIRECT` here.
    NoDirect,
    /// Another process has it.
    Busy,
    /// A device that the system uses itself.
    Claimed,
}

/// What to tell whoever chose a place without `O_DIRECT`.
pub const NO_DIRECT_ADVICE: &str = "this file system does not take O_DIRECT writes, so nothing \
written there is known to be on the disk: put the spool on ext4, XFS or a raw partition, or \
write durability = \"none\" if losing mail at a power cut is acceptable";

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::NoDirect => f.write_str(NO_DIRECT_ADVICE),
            Self::Busy => f.write_str("another process holds it"),
            Self::Claimed => f.write_str(
                "the system uses this device: it is mounted, or swap, or part of a RAID or a \
                 volume group",
            ),
        }
    }
}

impl std::error::Error for OpenError {}

/// A file or raw device.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    bytes: u64,
    name: String,
    scratch: AlignedBuffer,
}

impl FileDevice {
    /// Opens what is there; `writable` takes the lock as well.
    ///
    /// # Errors
    /// When it is not there, held by another process, or without `O_DIRECT`.
    pub fn open(path: &Path, durability: Durability, writable: bool) -> Result<Self, OpenError> {
        let open = |exclusive| open_options(durability, writable, exclusive).open(path);
        // Of a device nobody may be in need: what is mounted cannot be had like this.
        let is_device =
            std::fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device());
        match open(writable && is_device) {
            Ok(file) => Self::with(file, path, writable),
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                let file = open(false).map_err(classify)?;
                let found = Self::with(file, path, true);
                found.and(Err(OpenError::Claimed))
            }
            Err(error) => Err(classify(error)),
        }
    }

    /// Opens it for writing beside the descriptor that has the lock: for a second user in the
    /// process that owns the spool.
    ///
    /// # Errors
    /// When it is not there, or without `O_DIRECT`.
    pub fn open_unlocked(path: &Path, durability: Durability) -> Result<Self, OpenError> {
        let file = open_options(durability, true, false).open(path).map_err(classify)?;
        Self::with(file, path, false)
    }

    /// Makes a file of that size, zero-filled to the last block and synced: later writes change
    /// no metadata.
    ///
    /// # Errors
    /// When it exists or cannot be written.
    pub fn create(path: &Path, bytes: u64, durability: Durability) -> Result<Self, OpenError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        if durability == Durability::Full {
            options.custom_flags(libc::O_DIRECT);
        }
        let file = options.open(path).map_err(classify)?;
        let filled = fill(&file, bytes);
        if let Err(error) = filled {
            // Only the file made a moment ago.
            let _ = std::fs::remove_file(path);
            return Err(classify(error));
        }
        if let Some(parent) = path.parent() {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            File::open(parent).and_then(|d| d.sync_all()).map_err(OpenError::Io)?;
        }
        drop(file);
        Self::open(path, durability, true)
    }

    fn with(file: File, path: &Path, writable: bool) -> Result<Self, OpenError> {
        if writable {
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(OpenError::Busy),
                Err(TryLockError::Error(error)) => return Err(OpenError::Io(error)),
            }
        }
        let bytes = size(&file).map_err(OpenError::Io)?;
        let name = path.display().to_string();
        Ok(Self { file, bytes, name, scratch: AlignedBuffer::new(BATCH_BYTES_MAX) })
    }

    /// What stands at that path now is this very file or device.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        let (Ok(there), Ok(ours)) = (std::fs::metadata(path), self.file.metadata()) else {
            return false;
        };
        let device = there.file_type().is_block_device();
        (there.dev(), there.ino()) == (ours.dev(), ours.ino())
            || device && ours.file_type().is_block_device() && there.rdev() == ours.rdev()
    }

    /// The same device once more.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn duplicate(&self) -> std::io::Result<Self> {
        let (file, name) = (self.file.try_clone()?, self.name.clone());
        let scratch = AlignedBuffer::new(BATCH_BYTES_MAX);
        Ok(Self { file, bytes: self.bytes, name, scratch })
    }

    /// The open file once more, for another driver. The lock goes when the last of them does.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn try_clone_file(&self) -> std::io::Result<File> {
        self.file.try_clone()
    }
}

fn open_options(durability: Durability, writable: bool, exclusive: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(writable);
    let direct = if durability == Durability::Full { libc::O_DIRECT | libc::O_DSYNC } else { 0 };
    options.custom_flags(direct | if exclusive { libc::O_EXCL } else { 0 });
    options
}

fn classify(error: std::io::Error) -> OpenError {
    if error.kind() == ErrorKind::InvalidInput { OpenError::NoDirect } else { OpenError::Io(error) }
}

fn size(file: &File) -> std::io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    let mut file = file;
    file.seek(SeekFrom::End(0))
}

fn fill(file: &File, bytes: u64) -> std::io::Result<()> {
    let zero = AlignedBuffer::new(BATCH_BYTES_MAX);
    let step = crate::bytes::len64(BATCH_BYTES_MAX);
    let mut at = 0;
    while at < bytes {
        let n = usize::try_from((bytes - at).min(step)).expect("at most one buffer");
        file.write_all_at(&zero.bytes()[..n], at)?;
        at += step;
    }
    file.sync_all()
}

impl Device for FileDevice {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let mut at = offset;
        for piece in into.chunks_mut(BATCH_BYTES_MAX) {
            let whole = piece.len().next_multiple_of(BLOCK);
            let memory = &mut self.scratch.bytes_mut()[..whole];
            self.file.read_exact_at(memory, at)?;
            piece.copy_from_slice(&memory[..piece.len()]);
            at += crate::bytes::len64(piece.len());
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), DiskError> {
        let mut at = offset;
        for piece in from.chunks(BATCH_BYTES_MAX) {
            let end = at + crate::bytes::len64(piece.len());
            if end > self.bytes || !piece.len().is_multiple_of(BLOCK) {
                return Err(DiskError::Range);
            }
            let memory = &mut self.scratch.bytes_mut()[..piece.len()];
            memory.copy_from_slice(piece);
            self.file.write_all_at(memory, at)?;
            at = end;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        Ok(self.file.sync_all()?)
    }
}

/// A `Disk` that does each request at once over blocking devices, and answers when asked.
#[derive(Debug)]
pub struct BlockingDisk<D> {
    /// The members, by number.
    pub members: Vec<D>,
    done: VecDeque<Completion<AlignedBuffer>>,
}

impl<D: Device> BlockingDisk<D> {
    /// Over these members.
    #[must_use]
    pub fn new(members: Vec<D>) -> Self {
        Self { members, done: VecDeque::new() }
    }

    /// The next answer.
    pub fn next_completion(&mut self) -> Option<Completion<AlignedBuffer>> {
        self.done.pop_front()
    }
}

impl<D: Device> Disk for BlockingDisk<D> {
    type Buffer = AlignedBuffer;

    fn write(&mut self, token: Token, to: WriteTo, buffer: AlignedBuffer) {
        let mut answers: Vec<Completion<AlignedBuffer>> = Vec::with_capacity(2);
        for member in to.members.into_iter().flatten() {
            let result = match self.members.get_mut(usize::from(member)) {
                Some(device) => device.write(to.offset, &buffer.bytes()[..to.bytes]),
                None => Err(DiskError::Range),
            };
            let result = result.map(|()| to.bytes);
            answers.push(Completion { token, member, result, buffer: None, data: Vec::new() });
        }
        if let Some(last) = answers.last_mut() {
            last.buffer = Some(buffer);
        }
        self.done.extend(answers);
    }

    fn read(&mut self, token: Token, member: Member, offset: u64, bytes: usize) {
        let mut data = vec![0; bytes];
        let result = match self.members.get_mut(usize::from(member)) {
            Some(device) => device.read(offset, &mut data),
            None => Err(DiskError::Range),
        };
        let result = result.map(|()| bytes);
        self.done.push_back(Completion { token, member, result, buffer: None, data });
    }

    /// Nothing is ever owed here.
    fn abandon(&mut self, _: Member) {}
}
