//! Disk requests: each has one buffer, which the engine owns until the completion.

use super::{Core, Handler};
use crate::disk_buffer::{DiskBuffer, DiskBytes};
use crate::event::Event;
use crate::handle::{File, Op, Word};
use crate::ring::Completion;
use io_uring::squeue::Entry;
use io_uring::{opcode, types};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// A file the core owns. Closed when the last request on it has ended.
#[derive(Debug)]
pub(super) struct OpenFile {
    fd: OwnedFd,
    requests: u32,
    closing: bool,
}

/// A request in the kernel's hands.
#[derive(Debug)]
pub(super) struct Request {
    file: (u32, u32),
    token: u64,
    payload: Payload,
}

#[derive(Debug)]
enum Payload {
    Read(DiskBuffer),
    Write(DiskBytes),
    Sync,
}

/// A request that was not taken, with its buffer: too many are in flight
/// (`Config::disk_ops_max`), the file is closed, or the length is beyond the buffer.
#[derive(Debug)]
pub struct DiskRefused<B>(pub B);

impl<M: Send> Core<M> {
    /// A buffer of the smallest class that holds `bytes`, if one is free. Its content is whatever
    /// its last user left.
    #[must_use]
    pub fn disk_buffer(&self, bytes: usize) -> Option<DiskBuffer> {
        self.disk_pool.take(bytes)
    }

    /// Hands an open file or device (opened with `O_DIRECT` by the caller) to the core.
    ///
    /// # Errors
    /// Gives the descriptor back beyond the bound on files.
    pub fn open_file(&mut self, fd: OwnedFd) -> Result<File, OwnedFd> {
        let file = OpenFile { fd, requests: 0, closing: false };
        self.files.insert(file).map(File::new).map_err(|file| file.fd)
    }

    /// Closes a file after its last request. One `close` system call.
    pub fn close_file(&mut self, file: File) {
        if let Some(open) = self.files.get_mut(file.key()) {
            open.closing = true;
            self.settle_file(file.key());
        }
    }

    /// It is open, or requests to it are still in the kernel's hands.
    #[must_use]
    pub fn is_file_open(&self, file: File) -> bool {
        self.files.get(file.key()).is_some()
    }

    /// Requests in the kernel's hands.
    #[must_use]
    pub fn disk_in_flight(&self) -> usize {
        self.disk_ops.len()
    }

    /// Writes the first `length` bytes at `offset`; both aligned as the file wants. `durable`
    /// completes only when they are on stable storage (`RWF_DSYNC`). `Event::DiskDone` follows.
    /// To write one buffer to two files, pass clones of its [`DiskBytes`].
    ///
    /// # Errors
    /// [`DiskRefused`] with the buffer.
    pub fn disk_write(
        &mut self,
        file: File,
        offset: u64,
        bytes: impl Into<DiskBytes>,
        length: usize,
        durable: bool,
        token: u64,
    ) -> Result<(), DiskRefused<DiskBytes>> {
        let bytes = bytes.into();
        let (Some(fd), true) = (self.usable(file), length <= bytes.len()) else {
            return Err(DiskRefused(bytes));
        };
        let count = u32::try_from(length).expect("buffers are below 4 GiB");
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        let entry = match bytes.registered_index() {
            Some(index) => opcode::WriteFixed::new(fd, bytes.as_ptr(), count, index)
                .offset(offset)
                .rw_flags(flags)
                .build(),
            None => {
                opcode::Write::new(fd, bytes.as_ptr(), count).offset(offset).rw_flags(flags).build()
            }
        };
        self.submit(file, token, Payload::Write(bytes), entry);
        Ok(())
    }

    /// Reads up to `length` bytes at `offset` into the buffer. `Event::DiskDone` follows.
    ///
    /// # Errors
    /// [`DiskRefused`] with the buffer.
    pub fn disk_read(
        &mut self,
        file: File,
        offset: u64,
        buffer: DiskBuffer,
        length: usize,
        token: u64,
    ) -> Result<(), DiskRefused<DiskBuffer>> {
        let (start, size) = buffer.raw();
        let (Some(fd), true) = (self.usable(file), length <= size) else {
            return Err(DiskRefused(buffer));
        };
        let count = u32::try_from(length).expect("buffers are below 4 GiB");
        let entry = match buffer.registered_index() {
            Some(index) => opcode::ReadFixed::new(fd, start, count, index).offset(offset).build(),
            None => opcode::Read::new(fd, start, count).offset(offset).build(),
        };
        self.submit(file, token, Payload::Read(buffer), entry);
        Ok(())
    }

    /// Makes what was written before durable, with the file's metadata or only what is needed to
    /// read the data back. Runs on a kernel worker. `Event::DiskDone` follows.
    ///
    /// # Errors
    /// [`DiskRefused`].
    pub fn disk_sync(
        &mut self,
        file: File,
        data_only: bool,
        token: u64,
    ) -> Result<(), DiskRefused<()>> {
        let Some(fd) = self.usable(file) else { return Err(DiskRefused(())) };
        let flags =
            if data_only { types::FsyncFlags::DATASYNC } else { types::FsyncFlags::empty() };
        let entry = opcode::Fsync::new(fd).flags(flags).build();
        self.submit(file, token, Payload::Sync, entry);
        Ok(())
    }

    fn usable(&self, file: File) -> Option<types::Fd> {
        let open = self.files.get(file.key()).filter(|open| !open.closing)?;
        (!self.disk_ops.is_full()).then(|| types::Fd(open.fd.as_raw_fd()))
    }

    fn submit(&mut self, file: File, token: u64, payload: Payload, entry: Entry) {
        let file = file.key();
        let key = self
            .disk_ops
            .insert(Request { file, token, payload })
            .expect("`usable` saw a free slot");
        self.files.get_mut(file).expect("`usable` saw the file").requests += 1;
        // SAFETY: the slot owns the buffer until the completion, and with it keeps the pool's
        // pages mapped; the file is closed only when it has no requests. A write's bytes are
        // read-only while the slot holds them.
        unsafe { self.ring.push(entry.user_data(Word::pack(Op::Disk, key))) };
        self.disk_queued = true;
    }

    pub(super) fn on_disk(&mut self, done: Completion, handler: &mut impl Handler<M>) {
        let Some(key) = self.disk_ops.resolve(done.word) else { return self.stats.stale += 1 };
        let Some(request) = self.disk_ops.remove(key) else { return };
        if let Some(open) = self.files.get_mut(request.file) {
            open.requests -= 1;
            self.settle_file(request.file);
        }
        let buffer = match request.payload {
            Payload::Read(buffer) => Some(buffer),
            Payload::Write(bytes) => bytes.thaw().ok(),
            Payload::Sync => None,
        };
        let result =
            u32::try_from(done.result).map_err(|_| io::Error::from_raw_os_error(-done.result));
        handler.event(self, Event::DiskDone { token: request.token, result, buffer });
    }

    fn settle_file(&mut self, key: (u32, u32)) {
        if self.files.get(key).is_some_and(|open| open.closing && open.requests == 0) {
            drop(self.files.remove(key));
        }
    }

    /// Keeps what the kernel still uses for the life of the process.
    pub(super) fn leak_disk(&mut self) {
        self.disk_pool.leak();
    }
}
