//! The first look of recovery: which segments there are, what stands in the unsealed ones, and
//! where each log of the last run ends.
//!
//! *Guarantees*: of the last run, a batch that is missing and not covered by a watermark ends the
//! log: it was never acknowledged, and nothing behind it was. One that is covered is damage.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::batch::BatchHeader;
use crate::bytes::{index, len32, len64};
use crate::disk::Device;
use crate::index::{IndexItem, IndexWalk, TRAILER, Trailer};
use crate::ledger::Ledger;
use crate::limits::{BLOCK, FOOTER_BYTES_MAX};
use crate::scan::{self, Found, UnknownCritical};
use crate::segment::{BadHeader, SegmentHeader, SegmentRef};
use crate::set::{Problem, Set, SetError, problem};

/// Something durable that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Name of the device.
    pub device: String,
    /// Where on it.
    pub offset: u64,
    /// What it was.
    pub what: DamageKind,
}

/// What was damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DamageKind {
    /// A segment's header.
    SegmentHeader,
    /// A batch that a watermark or a later batch names.
    Batch,
    /// One copy of a batch; the other one checks.
    Copy,
    /// A message that checks but cannot be understood.
    Message,
    /// A message some of whose chunks are missing.
    Chunks,
}

/// A segment as found.
#[derive(Debug)]
pub(crate) struct SegmentFound {
    pub(crate) at: SegmentRef,
    pub(crate) header: Option<SegmentHeader>,
    pub(crate) footer: Option<Trailer>,
    /// Of an unsealed segment: what its footer would say.
    pub(crate) index: Option<Vec<u8>>,
    pub(crate) batches: Vec<Found>,
    /// Of those, by their offset: what a footer would say.
    entries: HashMap<u32, Indexed>,
    /// Offsets of those that were struck out on one copy only.
    half_struck: Vec<u32>,
    pub(crate) quarantined: bool,
}

/// What a footer says of one batch, and which of its messages cannot be understood.
type Indexed = Result<(Vec<u8>, Vec<u32>), UnknownCritical>;

impl SegmentFound {
    /// Nothing is known of it yet.
    pub(crate) fn new(at: SegmentRef) -> Self {
        Self {
            at,
            header: None,
            footer: None,
            index: None,
            batches: Vec::new(),
            entries: HashMap::new(),
            half_struck: Vec::new(),
            quarantined: false,
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.header.map_or(0, |h| h.epoch)
    }

    pub(crate) fn first_seq(&self) -> u64 {
        let scanned = self.batches.iter().map(|b| b.header.seq).min();
        self.footer.map(|f| f.first_seq).or(scanned).unwrap_or(0)
    }

    /// It holds batches.
    pub(crate) fn is_used(&self) -> bool {
        self.quarantined || self.first_seq() > 0
    }
}

/// What one core wrote in one run.
#[derive(Default, Debug)]
pub(crate) struct Group {
    pub(crate) segments: Vec<usize>,
    watermark: u64,
    last: (u64, Ledger),
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) segments: Vec<SegmentFound>,
    pub(crate) groups: BTreeMap<(u32, u16), Group>,
    pub(crate) damage: Vec<Damage>,
    /// Batches that were never acknowledged and do not count: segment, offset.
    pub(crate) strike: Vec<(SegmentRef, u32, BatchHeader)>,
    /// Whole batches that a mirror's copy lacks: member, segment, offset, bytes.
    pub(crate) heal: Vec<(u16, SegmentRef, u32, Vec<u8>)>,
    pub(crate) newest_wall_us: u64,
    pub(crate) batches: u64,
}

/// How far the reading of one device is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceRead {
    /// Its name.
    pub device: String,
    /// Bytes read.
    pub read: u64,
    /// Of so many.
    pub of: u64,
}

/// Who hears how far it is on each device.
pub type Progress<'a> = dyn FnMut(&[DeviceRead]) + 'a;

/// Looks at every segment: at header and footer of all, then at the content of those that have no
/// footer, once.
pub(crate) fn survey<D: Device>(
    set: &mut Set<D>,
    progress: &mut Progress<'_>,
) -> Result<Survey, SetError> {
    let mut survey = Survey::of(Vec::new());
    let columns = u8::try_from(set.logs.len()).expect("at most MEMBERS_MAX");
    let places = || {
        let numbers = 0..set.superblock.segments;
        (0..columns).flat_map(move |c| numbers.clone().map(move |n| SegmentRef::new(c, n)))
    };
    let places: Vec<SegmentRef> = places().collect();
    let ends = 2 * len64(BLOCK);
    let mut work = Work::new(set, progress);
    let members = |set: &Set<D>, at: SegmentRef| set.column_members(at.column()).into_iter();
    for at in &places {
        members(set, *at).flatten().for_each(|member| work.expect(member, ends));
    }
    for at in places {
        let found = survey.look(set, at)?;
        let waits = found.header.is_some_and(|h| !h.unfinished) && found.footer.is_none();
        for member in members(set, at).flatten() {
            work.expect(member, u64::from(waits) * u64::from(set.segment_bytes()));
            work.done(member, ends);
        }
        survey.segments.push(found);
    }
    for i in 0..survey.segments.len() {
        let found = &survey.segments[i];
        let header = found.header.filter(|h| !h.unfinished && found.footer.is_none());
        if let Some(header) = header {
            survey.segments[i].scan(set, &header, &mut survey.heal, &mut work)?;
        }
    }
    survey.group();
    survey.end_logs(set);
    survey.index(set)?;
    Ok(survey)
}

/// How far the reading is.
struct Work<'a> {
    devices: Vec<DeviceRead>,
    /// Which of them is that member.
    of: Vec<Option<usize>>,
    tell: &'a mut dyn FnMut(&[DeviceRead]),
}

impl<'a> Work<'a> {
    fn new<D: Device>(set: &Set<D>, tell: &'a mut Progress<'_>) -> Self {
        let (mut devices, mut of) = (Vec::new(), Vec::new());
        for device in &set.members {
            of.push(device.as_ref().map(|_| devices.len()));
            let named = |d: &D| DeviceRead { device: d.name().to_owned(), read: 0, of: 0 };
            devices.extend(device.as_ref().map(named));
        }
        Self { devices, of, tell }
    }

    fn device(&mut self, member: u16) -> Option<&mut DeviceRead> {
        let n = self.of.get(usize::from(member)).copied().flatten()?;
        self.devices.get_mut(n)
    }

    fn expect(&mut self, member: u16, bytes: u64) {
        if let Some(device) = self.device(member) {
            device.of += bytes;
        }
    }

    fn done(&mut self, member: u16, bytes: u64) {
        if let Some(device) = self.device(member) {
            device.read = device.of.min(device.read + bytes);
        }
        (self.tell)(&self.devices);
    }
}

impl Survey {
    /// Of these segments, nothing more being known.
    pub(crate) fn of(segments: Vec<SegmentFound>) -> Self {
        Self {
            segments,
            groups: BTreeMap::new(),
            damage: Vec::new(),
            strike: Vec::new(),
            heal: Vec::new(),
            newest_wall_us: 0,
            batches: 0,
        }
    }

    fn look<D: Device>(
        &mut self,
        set: &mut Set<D>,
        at: SegmentRef,
    ) -> Result<SegmentFound, SetError> {
        let mut found = SegmentFound::new(at);
        found.header = self.header(set, at, &mut found.quarantined)?;
        let Some(header) = found.header.filter(|h| !h.unfinished) else { return Ok(found) };
        found.footer = self.sealed(set, &header);
        Ok(found)
    }

    /// The footer, if one copy has it; it is given to a copy that lacks it.
    fn sealed<D: Device>(&mut self, set: &mut Set<D>, header: &SegmentHeader) -> Option<Trailer> {
        let at = header.segment;
        let size = index(set.segment_bytes());
        let mut block = vec![0; BLOCK];
        let (mut sealed, mut lacking) = (None, Vec::new());
        for member in set.column_members(at.column()).into_iter().flatten() {
            let read = set.read(member, at, size - BLOCK, &mut block);
            let trailer = Trailer::decode(&block[BLOCK - TRAILER..]).filter(|_| read.is_ok());
            let fits = |t: &Trailer| {
                (t.log, t.segment, t.epoch) == (header.log, at, header.epoch)
                    && (t.run, t.core) == (header.run, header.core)
            };
            match trailer.filter(fits) {
                Some(trailer) => sealed = sealed.or(Some(trailer)),
                None => lacking.push(member),
            }
        }
        let sealed = sealed?;
        let whole = footer_whole(set, at, &sealed)?;
        for member in lacking {
            self.heal.push((member, at, len32(size - whole.len()), whole.clone()));
        }
        Some(sealed)
    }

    fn header<D: Device>(
        &mut self,
        set: &mut Set<D>,
        at: SegmentRef,
        quarantined: &mut bool,
    ) -> Result<Option<SegmentHeader>, SetError> {
        let log = set.logs[usize::from(at.column())];
        let offset = at.device_offset(set.segment_bytes());
        let mut best: Option<SegmentHeader> = None;
        let (mut damaged, mut refused, mut blank) = (None, None, false);
        let mut epochs: Vec<(u16, Option<u64>)> = Vec::new();
        let mut block = vec![0; BLOCK];
        for member in set.column_members(at.column()).into_iter().flatten() {
            let read = set.read(member, at, 0, &mut block);
            let Some(device) = set.device(member) else { continue };
            let mut refuse = |p| refused = Some(problem(device, offset, p));
            let decoded = read.ok().map(|()| SegmentHeader::decode(&block, log, at));
            let epoch = decoded.as_ref().and_then(|d| d.as_ref().ok()).map(|h| h.epoch);
            epochs.push((member, epoch));
            match decoded {
                Some(Ok(header)) => {
                    // What was gathered there is given up elsewhere only when all copies of the
                    // header call it finished.
                    let newer = |b: SegmentHeader| {
                        b.epoch < header.epoch || b.epoch == header.epoch && header.unfinished
                    };
                    if best.is_none_or(newer) {
                        best = Some(header);
                    }
                }
                Some(Err(BadHeader::Blank)) => blank = true,
                Some(Err(BadHeader::OtherLog)) => refuse(Problem::OtherLog),
                Some(Err(BadHeader::Swapped(found))) => refuse(Problem::Swapped { found }),
                Some(Err(BadHeader::Damaged)) | None => {
                    let device = device.name().to_owned();
                    damaged = Some(Damage { device, offset, what: DamageKind::SegmentHeader });
                }
            }
        }
        // One good copy is enough; and what was opened has a header on every copy, so that a blank
        // one says that nothing was ever acknowledged there.
        if best.is_none() && !blank {
            if let Some(refused) = refused {
                return Err(refused);
            }
            *quarantined = damaged.is_some();
            self.damage.extend(damaged);
        }
        if let Some(best) = best {
            let lacking = epochs.iter().filter(|(_, epoch)| *epoch != Some(best.epoch));
            self.heal.extend(lacking.map(|(member, _)| (*member, at, 0, best.encode())));
        }
        Ok(best)
    }

    fn group(&mut self) {
        for (i, segment) in self.segments.iter_mut().enumerate() {
            let Some(header) = segment.header else { continue };
            let group = self.groups.entry((header.run, header.core)).or_default();
            group.segments.push(i);
            group.watermark = group.watermark.max(header.durable_through);
            self.newest_wall_us = self.newest_wall_us.max(header.opened_wall_us);
            if let Some(footer) = segment.footer {
                group.watermark = group.watermark.max(footer.last_seq);
                group.note(footer.last_seq, footer.ledger);
                self.newest_wall_us = self.newest_wall_us.max(footer.wall_us);
            }
            for batch in &segment.batches {
                group.watermark = group.watermark.max(batch.header.durable_through);
                self.newest_wall_us = self.newest_wall_us.max(batch.header.wall_us);
            }
            segment.batches.retain(|batch| !batch.header.is_struck());
        }
    }

    /// Where each log of the last run ends; older runs were ended by an earlier recovery.
    fn end_logs<D: Device>(&mut self, set: &mut Set<D>) {
        let last_run = set.superblock.run;
        for ((run, _), group) in &mut self.groups {
            let mut seqs: Vec<u64> = group
                .segments
                .iter()
                .flat_map(|i| self.segments[*i].batches.iter().map(|b| b.header.seq))
                .collect();
            seqs.sort_unstable();
            let mut end = group.watermark;
            for seq in seqs {
                if seq == end + 1 {
                    end = seq;
                }
            }
            let ended_before = *run != last_run;
            if ended_before {
                end = u64::MAX;
            }
            for i in &group.segments {
                let segment = &mut self.segments[*i];
                let half_struck = std::mem::take(&mut segment.half_struck);
                segment.batches.retain(|b| {
                    let half = ended_before && half_struck.contains(&b.offset);
                    if b.header.seq > end || half {
                        self.strike.push((segment.at, b.offset, b.header));
                        return false;
                    }
                    true
                });
                for b in &segment.batches {
                    group.last = group.last.max_by_seq(b.header.seq, b.header.ledger);
                }
            }
        }
        self.find_damage(set);
    }

    /// Every accepted batch names the place of the one before it. (Of older runs an earlier
    /// recovery has said so already.)
    fn find_damage<D: Device>(&mut self, set: &mut Set<D>) {
        let (mut damaged, mut suspected) = (Vec::new(), Vec::new());
        let last_run = set.superblock.run;
        let by_place: HashMap<SegmentRef, usize> =
            self.segments.iter().enumerate().map(|(i, s)| (s.at, i)).collect();
        for ((_, _), group) in self.groups.iter().filter(|((run, _), _)| *run == last_run) {
            let batches = || group.segments.iter().flat_map(|i| &self.segments[*i].batches);
            let there: HashSet<u64> = batches().map(|b| b.header.seq).collect();
            for batch in batches() {
                let h = &batch.header;
                // Written again elsewhere after an error counts as there.
                if h.seq <= 1 || there.contains(&(h.seq - 1)) {
                    continue;
                }
                let Some(i) = by_place.get(&h.previous_segment) else { continue };
                let before = &self.segments[*i];
                let scanned = before.footer.is_none()
                    && before.header.is_some_and(|b| b.epoch == h.previous_epoch);
                if scanned {
                    let block = h.previous_block.wrapping_mul(len32(BLOCK));
                    suspected.push((h.seq - 1, group.segments.clone(), *i, block));
                }
            }
        }
        for (seq, group, i, offset) in suspected {
            // This may be a failed attempt, and what it follows written elsewhere and sealed.
            if !self.is_sealed_in(set, &group, seq) {
                damaged.push((i, offset));
            }
        }
        for (i, offset) in damaged {
            let at = self.segments[i].at;
            self.segments[i].quarantined = true;
            let place = at.device_offset(set.segment_bytes()) + u64::from(offset);
            let device = name_of(set, at);
            self.damage.push(Damage { device, offset: place, what: DamageKind::Batch });
        }
    }

    /// A sealed segment of the group holds that batch.
    fn is_sealed_in<D: Device>(&self, set: &mut Set<D>, group: &[usize], seq: u64) -> bool {
        group.iter().any(|i| {
            let segment = &self.segments[*i];
            let Some(trailer) = segment.footer else { return false };
            if !(trailer.first_seq..=trailer.last_seq).contains(&seq) {
                return false;
            }
            let Some(records) = footer(set, segment.at, &trailer) else { return false };
            IndexWalk::new(&records)
                .any(|item| matches!(item, Ok(IndexItem::Batch(batch)) if batch.seq == seq))
        })
    }

    fn index<D: Device>(&mut self, set: &mut Set<D>) -> Result<(), SetError> {
        let segment_bytes = set.segment_bytes();
        for segment in &mut self.segments {
            if segment.header.is_none() || segment.footer.is_some() {
                continue;
            }
            let mut index_bytes = Vec::new();
            let mut sorted = segment.batches.clone();
            sorted.sort_by_key(|b| (b.header.seq, b.header.attempt));
            let begin = segment.at.device_offset(segment_bytes);
            for batch in &sorted {
                let Some(indexed) = segment.entries.remove(&batch.offset) else { continue };
                let (entries, strange) = indexed.map_err(|unknown| SetError {
                    device: name_of(set, segment.at),
                    offset: begin + u64::from(unknown.offset),
                    problem: Problem::UnknownCritical { kind: unknown.kind },
                })?;
                for offset in strange {
                    let (device, offset) = (name_of(set, segment.at), begin + u64::from(offset));
                    self.damage.push(Damage { device, offset, what: DamageKind::Message });
                    segment.quarantined = true;
                }
                index_bytes.extend_from_slice(&entries);
                self.batches += 1;
            }
            segment.entries = HashMap::new();
            segment.index = Some(index_bytes);
        }
        Ok(())
    }

    /// What is healed although it had been durable on that copy, too. (A batch that was written
    /// elsewhere after an error never was.)
    pub(crate) fn healed_damage<D: Device>(&self, set: &mut Set<D>) -> Vec<Damage> {
        let mut damage = Vec::new();
        for (member, at, offset, bytes) in &self.heal {
            let Some((header, _)) = BatchHeader::decode(bytes) else { continue };
            let Some(group) = self.groups.get(&(header.run, header.core)) else { continue };
            let mut all = group.segments.iter().flat_map(|i| &self.segments[*i].batches);
            let counts = |b: &Found| (b.header.segment, b.offset) == (*at, *offset);
            let again = |b: &Found| b.header.seq == header.seq && b.header.attempt > header.attempt;
            let covered = header.seq <= group.watermark;
            if !covered
                || !all.clone().any(counts)
                || all.any(again)
                || self.is_sealed_in(set, &group.segments, header.seq)
            {
                continue;
            }
            let device = set.device(*member).map(|d| d.name().to_owned()).unwrap_or_default();
            let offset = at.device_offset(set.segment_bytes()) + u64::from(*offset);
            damage.push(Damage { device, offset, what: DamageKind::Copy });
        }
        damage
    }

    /// The ledger of the last run: what each core's last batch says, added up.
    pub(crate) fn ledger_of_run(&self, run: u32) -> Ledger {
        let mut sum = Ledger::default();
        for (_, group) in self.groups.iter().filter(|((r, _), _)| *r == run) {
            sum.add(&group.last.1);
        }
        sum
    }
}

impl SegmentFound {
    /// Reads every copy whole, once.
    fn scan<D: Device>(
        &mut self,
        set: &mut Set<D>,
        header: &SegmentHeader,
        heal: &mut Vec<(u16, SegmentRef, u32, Vec<u8>)>,
        work: &mut Work<'_>,
    ) -> Result<(), SetError> {
        let (at, format) = (header.segment, set.superblock.format);
        let mut copies: Vec<(u16, Vec<u8>, Vec<Found>)> = Vec::new();
        for member in set.column_members(at.column()).into_iter().flatten() {
            let mut bytes = vec![0; index(set.segment_bytes())];
            read_what_can_be(set, member, at, &mut bytes, work)?;
            let found = scan::batches(&bytes, header);
            copies.push((member, bytes, found));
        }
        let mut all: BTreeMap<u32, Found> = BTreeMap::new();
        for (_, _, found) in &copies {
            for batch in found {
                // Where one copy was struck out and the other not yet, it is struck out again.
                let known = all.entry(batch.offset).or_insert(*batch);
                if known.header.is_struck() != batch.header.is_struck() {
                    self.half_struck.push(batch.offset);
                }
                if known.header.is_struck() {
                    *known = *batch;
                }
            }
        }
        for batch in all.values() {
            let start = index(batch.offset);
            let slice = |copy: &(u16, Vec<u8>, Vec<Found>)| {
                copy.1[start..start + index(batch.header.bytes)].to_vec()
            };
            if let Some(same) = copies.iter().find(|c| c.2.contains(batch)) {
                let (bytes, mut entries) = (slice(same), Vec::new());
                let moved = Found { offset: 0, ..*batch };
                let strange =
                    scan::index_batch_at(&bytes, &moved, batch.offset, format, &mut entries);
                self.entries.insert(batch.offset, strange.map(|strange| (entries, strange)));
            }
            let has = |found: &[Found]| found.iter().any(|f| f.offset == batch.offset);
            let Some(whole) = copies.iter().find(|c| has(&c.2)) else { continue };
            for (member, _, _) in copies.iter().filter(|c| !has(&c.2)) {
                heal.push((*member, at, batch.offset, slice(whole)));
            }
        }
        self.batches = all.into_values().collect();
        Ok(())
    }
}

impl Group {
    fn note(&mut self, seq: u64, ledger: Ledger) {
        self.last = self.last.max_by_seq(seq, ledger);
    }
}

trait MaxBySeq {
    fn max_by_seq(self, seq: u64, ledger: Ledger) -> Self;
}

impl MaxBySeq for (u64, Ledger) {
    fn max_by_seq(self, seq: u64, ledger: Ledger) -> Self {
        if seq >= self.0 { (seq, ledger) } else { self }
    }
}

pub(crate) fn name_of<D: Device>(set: &mut Set<D>, at: SegmentRef) -> String {
    let member = set.column_members(at.column())[0];
    member.and_then(|m| set.device(m)).map_or_else(String::new, |d| d.name().to_owned())
}

/// All that the device gives; unreadable parts stay zero.
fn read_what_can_be<D: Device>(
    set: &mut Set<D>,
    member: u16,
    at: SegmentRef,
    into: &mut [u8],
    work: &mut Work<'_>,
) -> Result<(), SetError> {
    let step = crate::limits::BATCH_BYTES_MAX;
    for (n, piece) in into.chunks_mut(step).enumerate() {
        work.done(member, len64(piece.len()));
        if set.read(member, at, n * step, piece).is_ok() {
            continue;
        }
        for (k, block) in piece.chunks_mut(BLOCK).enumerate() {
            if set.read(member, at, n * step + k * BLOCK, block).is_err() {
                block.fill(0);
            }
        }
    }
    Ok(())
}

/// The records of a sealed segment's footer, from whichever copy checks.
pub(crate) fn footer<D: Device>(
    set: &mut Set<D>,
    at: SegmentRef,
    trailer: &Trailer,
) -> Option<Vec<u8>> {
    footer_whole(set, at, trailer).and_then(|footer| trailer.records(&footer).map(<[u8]>::to_vec))
}

/// A sealed segment's footer as it stands on whichever copy checks.
fn footer_whole<D: Device>(set: &mut Set<D>, at: SegmentRef, trailer: &Trailer) -> Option<Vec<u8>> {
    let bytes = index(trailer.bytes);
    let size = index(set.segment_bytes());
    if bytes > FOOTER_BYTES_MAX || bytes > size {
        return None;
    }
    let mut footer = vec![0; bytes];
    for member in set.column_members(at.column()).into_iter().flatten() {
        let read = set.read(member, at, size - bytes, &mut footer);
        if read.is_ok() && trailer.records(&footer).is_some() {
            return Some(footer);
        }
    }
    None
}
