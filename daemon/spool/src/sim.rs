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
use crate::limits::{BATCH_BYTES_MAX, BLOCK, HEAD_BYTES};

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
    /// A request takes `slow_us` longer.
    pub slow_in: u64,
    /// How long that is.
    pub slow_us: u64,
    /// A write is answered only after `stuck_us`.
    pub stuck_in: u64,
    /// How long that is; `u64::MAX` for ever.
    pub stuck_us: u64,
    /// A write is never answered.
    pub never_in: u64,
    /// A write lands somewhere else and is answered as done.
    pub misdirect_in: u64,
    /// After so many writes each further one fails, and nothing of it lands.
    pub dies_after: u64,
    /// The members that misdirect and fail, one bit each; 0 for all of them.
    pub members: u64,
    /// Longest time a request takes.
    pub latency_us_max: u64,
    /// Writes are answered at once and reach the medium later, if at all: a planted lie, to see
    /// that the tests would notice a missing sync.
    pub lies: bool,
    /// A write that is done is answered together with all that were submitted before it, be they
    /// done or not: as planted.
    pub early: bool,
}

/// What went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Fault {
    /// EIO on a write.
    WriteError,
    /// EIO or a short write while two later writes were under way.
    ErrorInFlight,
    /// A short write.
    ShortWrite,
    /// EIO on a read.
    ReadError,
    /// A slow request.
    Slow,
    /// A write that was stuck and then succeeded.
    LateSuccess,
    /// A write that is never answered.
    Never,
    /// A write that landed elsewhere.
    Misdirected,
    /// A write to a member that died.
    Died,
    /// Writes done in another order than submitted.
    Reordered,
    /// At a cut, parts of a write landed.
    Torn,
    /// At a cut, nothing of a write landed.
    Lost,
}

/// Number of faults.
pub const FAULTS: usize = Fault::Lost as usize + 1;

/// A write under way.
#[derive(Clone, Copy, Debug)]
pub struct UnderWay<'a> {
    /// Where to.
    pub member: Member,
    /// Offset there.
    pub offset: u64,
    /// What.
    pub data: &'a [u8],
}

/// What a cut left of a write under way.
#[derive(Clone, Debug)]
pub struct Remains {
    /// Where to.
    pub member: Member,
    /// Offset there.
    pub offset: u64,
    /// What.
    pub data: Vec<u8>,
    /// Sectors that landed.
    pub landed: usize,
}

impl Remains {
    /// All of it landed.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.landed * SECTOR >= self.data.len()
    }
}

#[derive(Debug)]
enum Request {
    Write { data: Vec<u8>, result: Result<usize, DiskError>, stuck: bool, lies: bool },
    Read { bytes: usize, fails: bool },
}

#[derive(Debug)]
struct Pending {
    due_us: u64,
    token: Token,
    member: Member,
    offset: u64,
    request: Request,
}

impl Pending {
    fn is_write(&self) -> bool {
        matches!(self.request, Request::Write { .. })
    }
}

/// What stood where a write was answered but is not on the medium yet.
#[derive(Debug)]
struct Cached {
    since_us: u64,
    member: Member,
    offset: u64,
    before: Vec<u8>,
}

/// A write that was answered too early is on the medium after this.
const CACHED_US: u64 = 60_000;

/// A `Disk` over simulated devices.
#[derive(Debug)]
pub struct SimDisk<D = SimDevice> {
    /// The media, by member; `None` for one that is not there.
    pub members: Vec<Option<D>>,
    /// What may go wrong.
    pub faults: Faults,
    /// How often it did, by `Fault`.
    pub happened: [u64; FAULTS],
    random: Random,
    now_us: u64,
    pending: Vec<Pending>,
    cached: Vec<Cached>,
    buffers: Vec<(Token, u8, AlignedBuffer)>,
    /// Writes submitted so far.
    pub writes: u64,
}

impl SimDisk {
    /// Buffers for a log.
    #[must_use]
    pub fn buffers(n: usize) -> Vec<AlignedBuffer> {
        (0..n).map(|_| AlignedBuffer::new(BATCH_BYTES_MAX)).collect()
    }
}

impl<D: Device> SimDisk<D> {
    /// Over these media.
    #[must_use]
    pub fn new(members: Vec<Option<D>>, faults: Faults, seed: u64) -> Self {
        Self {
            members,
            faults,
            happened: [0; FAULTS],
            random: Random::new(seed),
            now_us: 0,
            pending: Vec::new(),
            cached: Vec::new(),
            buffers: Vec::new(),
            writes: 0,
        }
    }

    /// When the next request ends.
    #[must_use]
    pub fn next_us(&self) -> Option<u64> {
        self.pending.iter().map(|p| p.due_us).min().filter(|t| *t != u64::MAX)
    }

    /// The writes under way.
    pub fn under_way(&self) -> impl Iterator<Item = UnderWay<'_>> {
        self.pending.iter().filter_map(|p| match &p.request {
            Request::Write { data, .. } => {
                Some(UnderWay { member: p.member, offset: p.offset, data })
            }
            Request::Read { .. } => None,
        })
    }

    /// Whether something that was asked of that member is still under way.
    #[must_use]
    pub fn owes(&self, member: Member) -> bool {
        self.pending.iter().any(|p| p.member == member)
    }

    /// A device takes the place of a member that was abandoned. It does not die again.
    pub fn join(&mut self, member: Member, device: D) {
        self.members[usize::from(member)] = Some(device);
        self.faults.dies_after = 0;
    }

    /// The next answer due at `now_us`.
    pub fn next_completion(&mut self, now_us: u64) -> Option<Completion<AlignedBuffer>> {
        self.now_us = self.now_us.max(now_us);
        self.cached.retain(|c| c.since_us + CACHED_US > now_us);
        let i = (0..self.pending.len())
            .filter(|i| self.pending[*i].due_us <= now_us)
            .min_by_key(|i| self.pending[*i].due_us)?;
        let p = self.pending.swap_remove(i);
        let (token, member) = (p.token, p.member);
        Some(match p.request {
            Request::Write { data, result, stuck, lies } => {
                self.note_order(token, member, stuck, &result, data.len());
                let lies = lies || self.faults.lies;
                let result = self.land(member, p.offset, &data, result, lies);
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

    /// What a finished write says of those still under way.
    fn note_order(
        &mut self,
        token: Token,
        member: Member,
        stuck: bool,
        result: &Result<usize, DiskError>,
        bytes: usize,
    ) {
        let others = || self.pending.iter().filter(|p| p.is_write() && p.member == member);
        let earlier = others().any(|p| p.token < token);
        let later = others().filter(|p| p.token > token).count();
        let failed = *result != Ok(bytes);
        self.count(Fault::Reordered, earlier);
        self.count(Fault::ErrorInFlight, failed && later >= 2);
        self.count(Fault::LateSuccess, stuck && !failed);
        if self.faults.early {
            let now_us = self.now_us;
            for p in self.pending.iter_mut().filter(|p| p.member == member && p.token < token) {
                if let Request::Write { lies, .. } = &mut p.request {
                    (*lies, p.due_us) = (true, now_us);
                }
            }
        }
    }

    fn count(&mut self, fault: Fault, happened: bool) {
        self.happened[fault as usize] += u64::from(happened);
    }

    fn device(&mut self, member: Member) -> Option<&mut D> {
        self.members.get_mut(usize::from(member)).and_then(Option::as_mut)
    }

    fn land(
        &mut self,
        member: Member,
        offset: u64,
        data: &[u8],
        result: Result<usize, DiskError>,
        lies: bool,
    ) -> Result<usize, DiskError> {
        if result == dead() {
            return result;
        }
        if result != Ok(data.len()) {
            self.tear(member, offset, data);
            return result;
        }
        let since_us = self.now_us;
        let Some(device) = self.device(member) else { return Err(DiskError::Io(libc::EIO)) };
        if lies {
            let mut before = vec![0; data.len()];
            device.read(offset, &mut before)?;
            device.write(offset, data)?;
            self.cached.push(Cached { since_us, member, offset, before });
            return result;
        }
        device.write(offset, data).and(result)
    }

    /// Any sectors of it reach the medium; returns how many did.
    fn tear(&mut self, member: Member, offset: u64, data: &[u8]) -> usize {
        let choice = self.random.below(4);
        let cut = self.random.below(len64(data.len() / SECTOR) + 1);
        let mut landed = 0;
        for (n, sector) in data.chunks(SECTOR).enumerate() {
            let lands = match choice {
                0 => false,
                1 => true,
                2 => len64(n) < cut,
                _ => self.random.one_in(2),
            };
            if lands && let Some(device) = self.device(member) {
                // A bad place stays as it is.
                landed += usize::from(device.write(offset + len64(n * SECTOR), sector).is_ok());
            }
        }
        landed
    }

    fn buffer_back(&mut self, token: Token) -> Option<AlignedBuffer> {
        let i = self.buffers.iter().position(|(t, _, _)| *t == token)?;
        self.buffers[i].1 -= 1;
        (self.buffers[i].1 == 0).then(|| self.buffers.swap_remove(i).2)
    }

    /// The power goes: of what is under way, any sectors land. The media remain.
    #[must_use]
    pub fn cut(mut self) -> Vec<D> {
        self.lose_power();
        self.members.into_iter().flatten().collect()
    }

    /// The same; says what became of the writes under way, and gives back the buffers.
    pub fn lose_power(&mut self) -> (Vec<Remains>, Vec<AlignedBuffer>) {
        let mut all = Vec::new();
        for p in std::mem::take(&mut self.pending) {
            let Request::Write { data, .. } = p.request else { continue };
            let landed = self.tear(p.member, p.offset, &data);
            let remains = Remains { member: p.member, offset: p.offset, data, landed };
            self.count(Fault::Lost, landed == 0);
            self.count(Fault::Torn, landed > 0 && !remains.is_whole());
            all.push(remains);
        }
        for cached in std::mem::take(&mut self.cached).into_iter().rev() {
            // It was never written: what stood there before stands there still.
            self.tear(cached.member, cached.offset, &cached.before);
        }
        (all, std::mem::take(&mut self.buffers).into_iter().map(|(_, _, b)| b).collect())
    }

    fn due(&mut self, faulty: bool) -> u64 {
        let latency = 1 + self.random.below(self.faults.latency_us_max.max(1));
        let slow = faulty && self.random.one_in(self.faults.slow_in);
        self.count(Fault::Slow, slow);
        self.now_us + latency + if slow { self.faults.slow_us } else { 0 }
    }

    fn is_faulty(&self, member: Member) -> bool {
        self.faults.members == 0 || self.faults.members >> member & 1 == 1
    }

    /// How a write to that member will end: when, and with which result; where it goes.
    fn fate(&mut self, member: Member, to: &WriteTo) -> Pending {
        let faulty = self.is_faulty(member);
        let mut due_us = self.due(faulty);
        let faults = self.faults;
        let never = faulty && self.random.one_in(faults.never_in);
        let stuck = faulty && self.random.one_in(faults.stuck_in);
        if stuck {
            due_us = due_us.saturating_add(faults.stuck_us);
        }
        if never {
            due_us = u64::MAX;
        }
        self.count(Fault::Never, due_us == u64::MAX);
        let mut offset = to.offset;
        let result = if faulty && self.random.one_in(faults.write_error_in) {
            self.count(Fault::WriteError, true);
            Err(DiskError::Io(libc::EIO))
        } else if faulty && self.random.one_in(faults.short_write_in) {
            self.count(Fault::ShortWrite, true);
            Ok(to.bytes / 2)
        } else {
            Ok(to.bytes)
        };
        if faulty && faults.dies_after > 0 && self.writes > faults.dies_after {
            self.count(Fault::Died, true);
            let request = Request::Write { data: Vec::new(), result: dead(), stuck, lies: false };
            return Pending { due_us, token: 0, member, offset, request };
        }
        if faulty && self.random.one_in(faults.misdirect_in) {
            self.count(Fault::Misdirected, true);
            let all = self.device(member).map_or(0, |d| d.bytes());
            let places = (all.saturating_sub(HEAD_BYTES + len64(to.bytes))) / len64(BLOCK);
            offset = HEAD_BYTES + self.random.below(places.max(1)) * len64(BLOCK);
        }
        let request = Request::Write { data: Vec::new(), result, stuck, lies: false };
        Pending { due_us, token: 0, member, offset, request }
    }
}

fn dead() -> Result<usize, DiskError> {
    Err(DiskError::Io(libc::ENXIO))
}

impl<D: Device> Disk for SimDisk<D> {
    type Buffer = AlignedBuffer;

    fn write(&mut self, token: Token, to: WriteTo, buffer: AlignedBuffer) {
        let mut copies = 0;
        for member in to.members.into_iter().flatten() {
            copies += 1;
            self.writes += 1;
            let mut pending = self.fate(member, &to);
            pending.token = token;
            if let Request::Write { data, .. } = &mut pending.request {
                data.extend_from_slice(&buffer.bytes()[..to.bytes]);
            }
            self.pending.push(pending);
        }
        self.buffers.push((token, copies, buffer));
    }

    fn read(&mut self, token: Token, member: Member, offset: u64, bytes: usize) {
        let due_us = self.due(true);
        let fails = self.random.one_in(self.faults.read_error_in);
        self.count(Fault::ReadError, fails);
        let request = Request::Read { bytes, fails };
        self.pending.push(Pending { due_us, token, member, offset, request });
    }

    fn abandon(&mut self, member: Member) {
        let now_us = self.now_us;
        for p in self.pending.iter_mut().filter(|p| p.member == member) {
            p.due_us = p.due_us.min(now_us);
            match &mut p.request {
                Request::Write { result, .. } => *result = Err(DiskError::Io(libc::EIO)),
                Request::Read { fails, .. } => *fails = true,
            }
        }
    }
}
