//! The log's `Disk` over the engine: durable writes and reads in the core's own ring.
//!
//! *Guarantees*: a write is answered when it is on the medium (`RWF_DSYNC`); a request the engine
//! cannot take now is kept and made later, never dropped.
//!
//! *Limits*: the buffers of `disk_classes`, taken from the engine at start.

use std::collections::VecDeque;
use std::io;

use engine::{Core, DiskBuffer, DiskBytes, DiskClass, DiskRefused, File};

use crate::bytes::index;
use crate::disk::{Buffer, Completion, Device, Disk, DiskError, Member, Token, WriteTo};
use crate::file::FileDevice;
use crate::limits::{BATCH_BYTES_MAX, BUFFERS, MEMBERS_MAX, READS_MAX};
use crate::set::Set;

/// Set in every token that is the spool's.
pub const TOKEN_BIT: u64 = 1 << 63;
const MEMBER_BITS: u32 = 6;
const _: () = assert!(MEMBERS_MAX <= 1 << MEMBER_BITS);
/// Size of the smaller read buffers: most messages fit.
const READ_BYTES: usize = 64 << 10;
const LARGE_READS: usize = 2;

impl Buffer for DiskBuffer {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}

/// What `engine::Config::disk_buffers` needs for one log with so many copies. A mirror's member
/// that never answers keeps buffers: there are as many again.
#[must_use]
pub fn disk_classes(copies: u16) -> Vec<DiskClass> {
    let spare = if copies > 1 { BUFFERS } else { 0 };
    vec![
        DiskClass { bytes: BATCH_BYTES_MAX, count: BUFFERS + spare + LARGE_READS },
        DiskClass { bytes: READ_BYTES, count: READS_MAX },
    ]
}

#[derive(Debug)]
enum Parked {
    Write { token: u64, member: Member, offset: u64, bytes: usize, data: DiskBytes },
    Read { token: u64, member: Member, offset: u64, bytes: usize },
}

/// A write to two members: who still owes an answer.
#[derive(Debug)]
struct Shared {
    token: Token,
    data: DiskBytes,
    owed: [Option<Member>; 2],
}

/// A read: of a member that is put out it must be answered.
#[derive(Debug)]
struct Reading {
    token: Token,
    member: Member,
}

/// The open members of one core.
#[derive(Debug)]
pub struct Members {
    files: Vec<Option<File>>,
    parked: VecDeque<Parked>,
    /// Writes to two members, and to one of a mirror that might never answer.
    shared: Vec<Shared>,
    reading: Vec<Reading>,
    answers: VecDeque<Completion<DiskBuffer>>,
    copies: u16,
    /// Members that were abandoned: the kernel may still have requests of theirs.
    gone: Vec<(Member, File)>,
}

impl Members {
    /// Opens the set's members in the core's ring. The lock stays with the set.
    ///
    /// # Errors
    /// When a descriptor cannot be had.
    pub fn open<M: Send>(core: &mut Core<M>, set: &Set<FileDevice>) -> io::Result<Self> {
        let mut files = Vec::with_capacity(set.members.len());
        for (member, joining) in set.members.iter().zip(&set.joining) {
            let file = match member.as_ref().or(joining.as_ref()) {
                Some(device) => {
                    let fd = device.try_clone_file()?.into();
                    let full =
                        |_| io::Error::other(format!("too many files for {}", device.name()));
                    Some(core.open_file(fd).map_err(full)?)
                }
                None => None,
            };
            files.push(file);
        }
        Ok(Self {
            files,
            parked: VecDeque::new(),
            shared: Vec::new(),
            reading: Vec::new(),
            answers: VecDeque::new(),
            copies: set.superblock.copies,
            gone: Vec::new(),
        })
    }

    /// A device takes the place of a member that was abandoned. `same` when it is the same device:
    /// then nothing that was asked of it before may still be under way.
    ///
    /// # Errors
    /// When something is, or a descriptor cannot be had.
    pub fn join<M: Send>(
        &mut self,
        core: &mut Core<M>,
        member: Member,
        device: &FileDevice,
        same: bool,
    ) -> io::Result<()> {
        self.gone.retain(|(_, file)| core.is_file_open(*file));
        if same && self.gone.iter().any(|(m, _)| *m == member) {
            return Err(io::Error::other("old requests to it are still under way"));
        }
        let fd = device.try_clone_file()?.into();
        let full = |_| io::Error::other(format!("too many files for {}", device.name()));
        self.files[usize::from(member)] = Some(core.open_file(fd).map_err(full)?);
        Ok(())
    }

    /// Batch buffers for `Log::new`; `None` when the engine was configured with fewer.
    #[must_use]
    pub fn buffers<M: Send>(core: &Core<M>) -> Option<Vec<DiskBuffer>> {
        (0..BUFFERS).map(|_| core.disk_buffer(BATCH_BYTES_MAX)).collect()
    }

    /// The `Disk` for one call of the log.
    pub fn with<'a, M: Send>(&'a mut self, core: &'a mut Core<M>) -> EngineDisk<'a, M> {
        EngineDisk { core, members: self }
    }

    /// Turns the engine's answer into the log's; `None` when the token is not the spool's, or the
    /// answer comes from a member that was abandoned.
    pub fn completion<M: Send>(
        &mut self,
        core: &Core<M>,
        token: u64,
        result: io::Result<u32>,
        buffer: Option<DiskBuffer>,
    ) -> Option<Completion<DiskBuffer>> {
        if token & TOKEN_BIT == 0 {
            return None;
        }
        let is_read = token & READ_BIT != 0;
        let member = Member::try_from(token & ((1 << MEMBER_BITS) - 1)).expect("six bits");
        let result = result.map(index).map_err(DiskError::from);
        let token = (token & !(TOKEN_BIT | READ_BIT)) >> MEMBER_BITS;
        if !is_read && self.copies > 1 {
            return self.answered(core, token, member, result);
        }
        if !is_read {
            return Some(Completion { token, member, result, buffer, data: Vec::new() });
        }
        if self.copies > 1 {
            let asked = |r: &Reading| (r.token, r.member) == (token, member);
            self.reading.swap_remove(self.reading.iter().position(asked)?);
        }
        let data = match (&result, &buffer) {
            (Ok(n), Some(buffer)) => buffer[..*n].to_vec(),
            _ => Vec::new(),
        };
        Some(Completion { token, member, result, buffer: None, data })
    }

    /// An answer to a write of a mirror. The last one has the buffer.
    fn answered<M: Send>(
        &mut self,
        core: &Core<M>,
        token: Token,
        member: Member,
        result: Result<usize, DiskError>,
    ) -> Option<Completion<DiskBuffer>> {
        let i = self.shared.iter().position(|s| s.token == token)?;
        let shared = &mut self.shared[i];
        let slot = shared.owed.iter_mut().find(|slot| **slot == Some(member))?;
        *slot = None;
        let buffer = if shared.owed == [None, None] {
            let data = self.shared.swap_remove(i).data;
            // Whoever was abandoned may hold it for ever: then it is copied.
            data.thaw().map_or_else(
                |data| {
                    let mut copy = core.disk_buffer(data.len())?;
                    copy.copy_from_slice(&data);
                    Some(copy)
                },
                Some,
            )
        } else {
            None
        };
        Some(Completion { token, member, result, buffer, data: Vec::new() })
    }

    /// What an abandoned member owed; to be taken at each turn.
    pub fn next_answer(&mut self) -> Option<Completion<DiskBuffer>> {
        self.answers.pop_front()
    }
}

/// Set in the tokens of reads.
const READ_BIT: u64 = 1 << 62;

fn pack(token: Token, member: Member) -> u64 {
    TOKEN_BIT | token << MEMBER_BITS | u64::from(member)
}

/// The log's disk, for the length of one call.
#[derive(Debug)]
pub struct EngineDisk<'a, M: Send> {
    core: &'a mut Core<M>,
    members: &'a mut Members,
}

impl<M: Send> EngineDisk<'_, M> {
    /// Makes the requests that were refused before, as far as there is room now. To be called at
    /// each turn: nothing else may come along that would do it.
    pub fn retry(&mut self) {
        for _ in 0..self.members.parked.len() {
            let Some(parked) = self.members.parked.pop_front() else { return };
            self.make(parked);
        }
    }

    fn make(&mut self, request: Parked) {
        let parked = match request {
            Parked::Write { token, member, offset, bytes, data } => {
                let Some(file) = self.file(member) else { return };
                match self.core.disk_write(file, offset, data, bytes, true, token) {
                    Ok(()) => return,
                    Err(DiskRefused(data)) => Parked::Write { token, member, offset, bytes, data },
                }
            }
            Parked::Read { token, member, offset, bytes } => {
                let Some(file) = self.file(member) else { return };
                let taken = self.core.disk_buffer(bytes).is_some_and(|buffer| {
                    self.core.disk_read(file, offset, buffer, bytes, token).is_ok()
                });
                if taken {
                    return;
                }
                Parked::Read { token, member, offset, bytes }
            }
        };
        self.members.parked.push_back(parked);
    }

    fn file(&self, member: Member) -> Option<File> {
        self.members.files.get(usize::from(member)).copied().flatten()
    }
}

impl<M: Send> Disk for EngineDisk<'_, M> {
    type Buffer = DiskBuffer;

    fn write(&mut self, token: Token, to: WriteTo, buffer: DiskBuffer) {
        self.retry();
        let data = buffer.freeze();
        if self.members.copies > 1 {
            let shared = Shared { token, data: data.clone(), owed: to.members };
            self.members.shared.push(shared);
        }
        // All readers exist before the first write can end: the last answer has the buffer.
        let each: Vec<Parked> = to
            .members
            .into_iter()
            .flatten()
            .map(|member| Parked::Write {
                token: pack(token, member),
                member,
                offset: to.offset,
                bytes: to.bytes,
                data: data.clone(),
            })
            .collect();
        drop(data);
        for request in each {
            self.make(request);
        }
    }

    fn read(&mut self, token: Token, member: Member, offset: u64, bytes: usize) {
        self.retry();
        if self.members.copies > 1 {
            self.members.reading.push(Reading { token, member });
        }
        let token = pack(token, member) | READ_BIT;
        self.make(Parked::Read { token, member, offset, bytes });
    }

    fn abandon(&mut self, member: Member) {
        let gone = || Err(DiskError::Io(libc::EIO));
        let members = &mut *self.members;
        if let Some(file) = members.files.get_mut(usize::from(member)).and_then(Option::take) {
            self.core.close_file(file);
            members.gone.push((member, file));
        }
        let to = |p: &Parked| match p {
            Parked::Write { member, .. } | Parked::Read { member, .. } => *member,
        };
        members.parked.retain(|p| to(p) != member);
        let owes = |s: &&Shared| s.owed.contains(&Some(member));
        let tokens: Vec<Token> = members.shared.iter().filter(owes).map(|s| s.token).collect();
        for token in tokens {
            let answer = members.answered(self.core, token, member, gone());
            members.answers.extend(answer);
        }
        let (mine, others) =
            std::mem::take(&mut members.reading).into_iter().partition(|r| r.member == member);
        members.reading = others;
        for Reading { token, .. } in mine {
            let (result, data) = (gone(), Vec::new());
            members.answers.push_back(Completion { token, member, result, buffer: None, data });
        }
    }
}
