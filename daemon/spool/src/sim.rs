//! A simulated disk: slow, out of order, torn, failing, stuck, and cut off at any moment.
//!
//! *Guarantees*: the same seed gives the same run. What was answered as written is on the medium;
//! of what was under way at a cut, any 512-byte sectors may be.
//!
//! *Not here*: files and clocks.

use crate::bytes::{index, len64};
use crate::disk::{
    AlignedBuffer, Buffer, Completion, Device, Disk, DiskError, Member, Token, WriteTo,
};
use crate::limits::BATCH_BYTES_MAX;

/// What a device writes or loses as one.
pub const SECTOR: usize = 512;

/// A small generator (splitmix64), for simulations only.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n` (which is not 0).
    pub fn below(&mut self, n: u64) -> u64 {
        self.next_u64() % n
    }

    /// True once in `n` times; never for 0.
    pub fn one_in(&mut self, n: u64) -> bool {
        n != 0 && self.below(n) == 0
    }
}

/// The medium of one device.
#[derive(Clone, Debug)]
pub struct SimDevice {
    name: String,
    medium: Vec<u8>,
    /// Byte ranges that cannot be read or written.
    pub bad: Vec<std::ops::Range<u64>>,
}

impl SimDevice {
    /// A blank one.
    #[must_use]
    pub fn new(name: &str, bytes: u64) -> Self {
        let medium = vec![0; usize::try_from(bytes).expect("a simulated device fits in memory")];
        Self { name: name.to_owned(), medium, bad: Vec::new() }
    }

    fn span(&self, offset: u64, bytes: usize) -> Result<std::ops::Range<usize>, DiskError> {
        let end = offset.checked_add(len64(bytes)).ok_or(DiskError::Range)?;
        if end > len64(self.medium.len()) {
            return Err(DiskError::Range);
        }
        if self.bad.iter().any(|b| offset < b.end && b.start < end) {
            return Err(DiskError::Io(libc::EIO));
        }
        let start = usize::try_from(offset).map_err(|_| DiskError::Range)?;
        Ok(start..start + bytes)
    }

    /// Turns bits of one sector: media that rot.
    pub fn rot(&mut self, offset: u64, random: &mut Random) {
        let at = usize::try_from(offset).unwrap_or(usize::MAX) / SECTOR * SECTOR;
        if let Some(sector) = self.medium.get_mut(at..at + SECTOR) {
            let i = index(u32::try_from(random.below(len64(SECTOR))).expect("small"));
            sector[i] ^= 0x40;
        }
    }

    /// The bytes as they are.
    #[must_use]
    pub fn medium(&self) -> &[u8] {
        &self.medium
    }

    /// The bytes, to spoil them.
    pub fn medium_mut(&mut self) -> &mut [u8] {
        &mut self.medium
    }
}

impl Device for SimDevice {
    fn bytes(&self) -> u64 {
        len64(self.medium.len())
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let span = self.span(offset, into.len())?;
        into.copy_from_slice(&self.medium[span]);
        Ok(())
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), DiskError> {
        let span = self.span(offset, from.len())?;
        self.medium[span].copy_from_slice(from);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// How often things go wrong: once in so many requests; 0 for never.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// A write fails with EIO, parts of it written.
    pub write_error_in: u64,
    /// A write is short.
    pub short_write_in: u64,
    /// A read fails with EIO.
    pub read_error_in: u64,
    /// A write is answered only after `stuck_us`.
    pub stuck_in: u64,
    /// How long that is; `u64::MAX` for ever.
    pub stuck_us: u64,
    /// Longest time a request takes.
    pub latency_us_max: u64,
    /// Writes are answered at once and reach the medium later, if at all: a planted lie, to see
    /// that the tests would notice a missing sync.
    pub lies: bool,
}

#[derive(Debug)]
enum Request {
    Write { data: Vec<u8>, result: Result<usize, DiskError> },
    Read { bytes: usize, fails: bool },
}

#[derive(Debug)]
struct Pending {
    due_us: u64,
    token: Token,
    member: Member,
    offset: u64,
    request: Request,
    answered: bool,
}

/// A `Disk` over simulated devices.
#[derive(Debug)]
pub struct SimDisk {
    /// The media, by member; `None` for one that is not there.
    pub members: Vec<Option<SimDevice>>,
    /// What may go wrong.
    pub faults: Faults,
    random: Random,
    now_us: u64,
    pending: Vec<Pending>,
    buffers: Vec<(Token, u8, AlignedBuffer)>,
    /// Writes submitted so far.
    pub writes: u64,
}

impl SimDisk {
    /// Over these media.
    #[must_use]
    pub fn new(members: Vec<Option<SimDevice>>, faults: Faults, seed: u64) -> Self {
        let random = Random::new(seed);
        let (pending, buffers) = (Vec::new(), Vec::new());
        Self { members, faults, random, now_us: 0, pending, buffers, writes: 0 }
    }

    /// Buffers for a log.
    #[must_use]
    pub fn buffers(n: usize) -> Vec<AlignedBuffer> {
        (0..n).map(|_| AlignedBuffer::new(BATCH_BYTES_MAX)).collect()
    }

    /// When the next request ends.
    #[must_use]
    pub fn next_us(&self) -> Option<u64> {
        self.pending.iter().filter(|p| !p.answered).map(|p| p.due_us).min()
    }

    /// The next answer due at `now_us`.
    pub fn next_completion(&mut self, now_us: u64) -> Option<Completion<AlignedBuffer>> {
        self.now_us = self.now_us.max(now_us);
        let due = |p: &Pending| !p.answered && p.due_us <= now_us;
        let i = (0..self.pending.len())
            .filter(|i| due(&self.pending[*i]))
            .min_by_key(|i| self.pending[*i].due_us)?;
        if self.faults.lies && matches!(self.pending[i].request, Request::Write { .. }) {
            self.pending[i].answered = true;
            let (token, member) = (self.pending[i].token, self.pending[i].member);
            let result = match &self.pending[i].request {
                Request::Write { result, .. } => result.clone(),
                Request::Read { .. } => Err(DiskError::Short),
            };
            let buffer = self.buffer_back(token);
            return Some(Completion { token, member, result, buffer, data: Vec::new() });
        }
        let p = self.pending.swap_remove(i);
        let (token, member) = (p.token, p.member);
        Some(match p.request {
            Request::Write { data, result } => {
                let result = self.land(member, p.offset, &data, result);
                let buffer = self.buffer_back(token);
                Completion { token, member, result, buffer, data: Vec::new() }
            }
            Request::Read { bytes, fails } => {
                let mut data = vec![0; bytes];
                let result = match self.device(member) {
                    Some(device) if !fails => device.read(p.offset, &mut data).map(|()| bytes),
                    _ => Err(DiskError::Io(libc::EIO)),
                };
                Completion { token, member, result, buffer: None, data }
            }
        })
    }

    fn device(&mut self, member: Member) -> Option<&mut SimDevice> {
        self.members.get_mut(usize::from(member)).and_then(Option::as_mut)
    }

    fn land(
        &mut self,
        member: Member,
        offset: u64,
        data: &[u8],
        result: Result<usize, DiskError>,
    ) -> Result<usize, DiskError> {
        match result {
            Ok(n) if n == data.len() => match self.device(member) {
                Some(device) => device.write(offset, data).map(|()| n),
                None => Err(DiskError::Io(libc::EIO)),
            },
            other => {
                self.tear(member, offset, data);
                other
            }
        }
    }

    /// Any sectors of it reach the medium.
    fn tear(&mut self, member: Member, offset: u64, data: &[u8]) {
        let choice = self.random.below(4);
        let cut = self.random.below(len64(data.len() / SECTOR) + 1);
        for (n, sector) in data.chunks(SECTOR).enumerate() {
            let lands = match choice {
                0 => false,
                1 => true,
                2 => len64(n) < cut,
                _ => self.random.one_in(2),
            };
            if lands && let Some(device) = self.device(member) {
                // A bad place stays as it is.
                let _ = device.write(offset + len64(n * SECTOR), sector);
            }
        }
    }

    fn buffer_back(&mut self, token: Token) -> Option<AlignedBuffer> {
        let i = self.buffers.iter().position(|(t, _, _)| *t == token)?;
        self.buffers[i].1 -= 1;
        (self.buffers[i].1 == 0).then(|| self.buffers.swap_remove(i).2)
    }

    /// The power goes: of what is under way, any sectors land. The media remain.
    #[must_use]
    pub fn cut(mut self) -> Vec<SimDevice> {
        for p in std::mem::take(&mut self.pending) {
            if let Request::Write { data, .. } = p.request {
                self.tear(p.member, p.offset, &data);
            }
        }
        self.members.into_iter().flatten().collect()
    }

    fn due(&mut self) -> u64 {
        let latency = 1 + self.random.below(self.faults.latency_us_max.max(1));
        self.now_us + latency
    }
}

impl Disk for SimDisk {
    type Buffer = AlignedBuffer;

    fn write(&mut self, token: Token, to: WriteTo, buffer: AlignedBuffer) {
        let mut copies = 0;
        for member in to.members.into_iter().flatten() {
            copies += 1;
            self.writes += 1;
            let data = buffer.bytes()[..to.bytes].to_vec();
            let mut due_us = self.due();
            let faults = self.faults;
            if self.random.one_in(faults.stuck_in) {
                due_us = due_us.saturating_add(faults.stuck_us);
            }
            let result = if self.random.one_in(faults.write_error_in) {
                Err(DiskError::Io(libc::EIO))
            } else if self.random.one_in(faults.short_write_in) {
                Ok(to.bytes / 2)
            } else {
                Ok(to.bytes)
            };
            let request = Request::Write { data, result };
            let offset = to.offset;
            self.pending.push(Pending { due_us, token, member, offset, request, answered: false });
        }
        self.buffers.push((token, copies, buffer));
    }

    fn read(&mut self, token: Token, member: Member, offset: u64, bytes: usize) {
        let due_us = self.due();
        let fails = self.random.one_in(self.faults.read_error_in);
        let request = Request::Read { bytes, fails };
        self.pending.push(Pending { due_us, token, member, offset, request, answered: false });
    }
}
