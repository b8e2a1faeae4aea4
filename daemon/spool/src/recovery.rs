//! Recovery: from devices to logs that can be written.
//!
//! *Guarantees*: everything acknowledged is found again, byte for byte; what was never
//! acknowledged is there whole or not at all; the run number is durable before anything is
//! written under it. Running it again at any point of itself gives the same.
//!
//! *Failure*: a device or segment that is not ours to read is named and refused; damage is
//! reported and kept for inspection, and the rest goes on.

use std::collections::{HashMap, HashSet};

use crate::compact;
use crate::disk::Device;
use crate::id::RUN_MAX;
use crate::leave::Leaving;
use crate::ledger::Ledger;
use crate::limits::BLOCK;
use crate::live::Table;
use crate::log::{Column, LogStart, Owed, SegmentStart};
use crate::replay::{Replayed, replay};
use crate::seal;
use crate::segment::{SegmentKind, SegmentRef};
use crate::set::{Problem, Set, SetError, problem};
use crate::superblock::Format;
use crate::survey::{Damage, Progress, Survey, survey};

/// How to start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Cores that will write.
    pub cores: u16,
    /// This process.
    pub pid: u32,
    /// Wall time.
    pub wall_us: u64,
    /// Random id of a new generation, if one is needed.
    pub generation: u128,
    /// A set in an older format is raised to the newest: an older version reads it no more.
    pub raise_format: bool,
}

/// What recovery saw.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Segments with content.
    pub segments_used: usize,
    /// Of those, the ones that had a footer and were not read whole.
    pub segments_sealed: usize,
    /// Opened and without a footer: read whole, and then given one, so that no later start does.
    pub unsealed: usize,
    /// Bytes read to look.
    pub bytes_read: u64,
    /// Batches read one by one.
    pub batches: u64,
    /// Batches that were never acknowledged and were struck out.
    pub struck: usize,
    /// Copies of a batch written again to a mirror that lacked it.
    pub healed: usize,
    /// Of those, what had been durable there before: a device lost it.
    pub healed_damage: Vec<Damage>,
    /// Second copies of an id that were dropped.
    pub second_copies: u64,
    /// What could not be read although it was durable.
    pub damage: Vec<Damage>,
    /// Messages that need work.
    pub messages: usize,
    /// The ledger from the batch headers.
    pub ledger: Ledger,
    /// Held and queued, by counting.
    pub counted: Ledger,
    /// Wall time of the newest batch; 0 for none.
    pub newest_wall_us: u64,
    /// The run before ended without closing its log.
    pub was_running: bool,
    /// Members that take no part.
    pub members_out: Vec<u16>,
    /// Segments that an interrupted start was filling: empty.
    pub unfinished: usize,
    /// Segments that the last start had filled from nearly empty ones.
    pub filled: usize,
    /// Times that nearly empty segments were put together in one, because few were free.
    pub gathered: usize,
    /// Members that went on alone and still have what only they have: left as they are.
    pub members_alone: Vec<u16>,
    /// Members that are being filled again.
    pub members_filling: Vec<u16>,
    /// Devices that should have been filled and could not be erased.
    pub joining_failed: Vec<SetError>,
    /// Segments given up although a later start may need what they say: nothing else was free.
    /// Until it is written again, a crash delivers what they say is done once more.
    pub rescued: usize,
    /// The format in which the set was written.
    pub format: Format,
}

impl Report {
    /// The ledger balances and agrees with the count.
    #[must_use]
    pub fn ledger_agrees(&self) -> bool {
        self.ledger.balances()
            && (self.ledger.queued, self.ledger.held) == (self.counted.queued, self.counted.held)
    }
}

/// A set ready to be written.
#[derive(Debug)]
pub struct Recovered<D> {
    /// The devices.
    pub set: Set<D>,
    /// The new run.
    pub run: u32,
    /// One for each core.
    pub logs: Vec<LogStart>,
    /// What was seen.
    pub report: Report,
}

/// Reads the whole set without changing anything.
///
/// # Errors
/// When something on it is not ours to read.
pub fn inspect<D: Device>(set: &mut Set<D>) -> Result<(Table, Report), SetError> {
    let survey = survey(set, &mut |_| {})?;
    let replayed = replay(set, &survey);
    let report = report(set, &survey, &replayed);
    Ok((replayed.live, report))
}

/// Makes the set ready: sync, look, strike out what was never acknowledged, heal, raise the run,
/// seal what was left open.
///
/// # Errors
/// When something on it is not ours to read, or a device says no.
pub fn recover<D: Device>(
    mut set: Set<D>,
    options: Options,
    progress: &mut Progress<'_>,
) -> Result<Recovered<D>, SetError> {
    // What an earlier process wrote may still be on its way to the medium.
    set.sync()?;
    let mut found = survey(&mut set, progress)?;
    let mut replayed = replay(&mut set, &found);
    let mut report = report(&mut set, &found, &replayed);
    mend(&mut set, &found)?;
    raise(&mut set, options, &report)?;
    compact::clear(&mut set, &found)?;
    seal::seal(&mut set, &found);
    let wanted = free_wanted(options.cores, found.segments.len());
    while compact::compact(&mut set, &found, &replayed, wanted)? == compact::Outcome::Gathered {
        report.gathered += 1;
        found = survey(&mut set, progress)?;
        replayed = replay(&mut set, &found);
        // What was emptied has a header only.
        seal::seal(&mut set, &found);
    }
    if report.gathered > 0 {
        // What the cores write is read after what was gathered.
        raise(&mut set, options, &report)?;
    }
    let rescued = rescue(&mut set, &found, &mut replayed);
    report.rescued = usize::from(rescued.is_some());
    report.joining_failed = set.prepare_joining();
    report.members_filling = set.joining_numbers();
    set.kept = kept(&set, &found, options.cores);
    let logs = share(&set, options.cores, &found, replayed, rescued);
    let run = set.superblock.run;
    Ok(Recovered { set, run, logs, report })
}

fn report<D: Device>(set: &mut Set<D>, survey: &Survey, replayed: &Replayed) -> Report {
    let mut ledger = set.superblock.ledger;
    ledger.add(&survey.ledger_of_run(set.superblock.run));
    let mut damage = survey.damage.clone();
    damage.extend_from_slice(&replayed.damage);
    Report {
        segments_used: survey.segments.iter().filter(|s| s.is_used()).count(),
        segments_sealed: survey
            .segments
            .iter()
            .filter(|s| s.is_used() && s.footer.is_some())
            .count(),
        unsealed: seal::unsealed(survey).count(),
        bytes_read: set.bytes_read,
        batches: survey.batches,
        struck: survey.strike.len(),
        healed: survey.heal.len(),
        healed_damage: survey.healed_damage(set),
        second_copies: replayed.second_copies,
        damage,
        messages: replayed.live.len(),
        ledger,
        counted: replayed.live.count(),
        newest_wall_us: survey.newest_wall_us,
        was_running: set.superblock.owner_pid != 0,
        members_out: set.out_of_step.clone(),
        unfinished: survey
            .segments
            .iter()
            .filter(|s| s.header.is_some_and(|h| h.unfinished))
            .count(),
        filled: compact::filled(survey, set.superblock.run),
        gathered: 0,
        members_alone: set.alone.clone(),
        members_filling: set.joining_numbers(),
        joining_failed: Vec::new(),
        rescued: 0,
        format: set.superblock.format,
    }
}

/// Strikes out and heals. A batch struck out here may not count at a later start, when the gap
/// before it is no longer to be seen.
fn mend<D: Device>(set: &mut Set<D>, survey: &Survey) -> Result<(), SetError> {
    for (at, offset, header) in &survey.strike {
        let mut block = vec![0; BLOCK];
        header.struck().encode(&mut block);
        for member in set.column_members(at.column()).into_iter().flatten() {
            set.write(member, *at, crate::bytes::index(*offset), &block)?;
        }
    }
    let struck = |at: SegmentRef, offset: u32| {
        survey.strike.iter().any(|(a, o, _)| (*a, *o) == (at, offset))
    };
    for (member, at, offset, bytes) in &survey.heal {
        if !struck(*at, *offset) {
            // A place that can never be written again stays as it is: the other copy is whole.
            let _ = set.write(*member, *at, crate::bytes::index(*offset), bytes);
        }
    }
    set.sync()
}

fn raise<D: Device>(set: &mut Set<D>, options: Options, report: &Report) -> Result<(), SetError> {
    if set.superblock.run >= RUN_MAX {
        let device = set.members.iter().flatten().next();
        return Err(device.map_or_else(
            || SetError { device: String::new(), offset: 0, problem: Problem::RunsExhausted },
            |d| problem(d, 0, Problem::RunsExhausted),
        ));
    }
    let mut in_step = 0;
    for (member, device) in set.members.iter().enumerate() {
        if device.is_some() {
            in_step |= 1 << member;
        }
    }
    set.update(|block| {
        block.run += 1;
        if options.raise_format {
            block.format = Format::NEWEST;
        }
        block.owner_pid = options.pid;
        block.cores = options.cores;
        block.started_wall_us = options.wall_us;
        block.ledger = report.ledger;
        // Durable on all survivors before the first 250 on fewer copies.
        if block.generation.in_step != in_step {
            block.generation = block.generation.next(options.generation, in_step);
        }
    })
}

/// Notes a clean end: nobody owns the log any more. Call it after every log's `Closed`.
///
/// # Errors
/// When a device says no.
pub fn release<D: Device>(set: &mut Set<D>) -> Result<(), SetError> {
    set.update(|block| block.owner_pid = 0)
}

/// A segment that is emptied so that anything can be written at all.
struct Rescued {
    segment: usize,
    owed: Vec<Owed>,
}

/// When no segment can be opened, a log that is full would stay full: nothing could be marked as
/// done. Then one in which nothing is live is given up, and what it says is written again first.
fn rescue<D: Device>(
    set: &mut Set<D>,
    survey: &Survey,
    replayed: &mut Replayed,
) -> Option<Rescued> {
    let mut live: HashSet<SegmentRef> = HashSet::new();
    for message in replayed.live.iter() {
        live.insert(message.segment);
        live.extend(message.chunks().iter().map(|c| c.segment));
    }
    let can_open = |i: usize| {
        let s = &survey.segments[i];
        !s.is_used() || !s.quarantined && !live.contains(&s.at) && replayed.waits[i].is_empty()
    };
    if (0..survey.segments.len()).any(can_open) {
        return None;
    }
    for (i, segment) in survey.segments.iter().enumerate() {
        if segment.quarantined || live.contains(&segment.at) {
            continue;
        }
        let leaving = Leaving { survey, replayed };
        let Some(index) = leaving.index(set, i).filter(|index| leaving.can_leave(i, index)) else {
            continue;
        };
        let owed = leaving.owed(segment.at, &index, &HashSet::new());
        replayed.waits[i].clear();
        return Some(Rescued { segment: i, owed });
    }
    None
}

/// Segments that speak of each other go to one core; the free ones are dealt out.
fn share<D: Device>(
    set: &Set<D>,
    cores: u16,
    survey: &Survey,
    mut replayed: Replayed,
    rescued: Option<Rescued>,
) -> Vec<LogStart> {
    let kept = set.kept.and_then(|at| survey.segments.iter().position(|s| s.at == at));
    let owner = owners(survey, &replayed, cores, set.logs.len(), kept);
    let columns = set.logs.len();
    let mut logs: Vec<LogStart> = (0..cores)
        .map(|core| LogStart {
            core,
            run: set.superblock.run,
            format: set.superblock.format,
            segment_bytes: set.segment_bytes(),
            columns: columns_of(set, usize::from(core) % columns),
            segments: Vec::new(),
            live: Table::default(),
            owed: Vec::new(),
        })
        .collect();
    if let Some(rescued) = rescued {
        logs[owner[rescued.segment]].owed = rescued.owed;
    }
    let mut core_of: HashMap<SegmentRef, usize> = HashMap::new();
    for (i, segment) in survey.segments.iter().enumerate() {
        if kept == Some(i) {
            continue;
        }
        let core = owner[i];
        core_of.insert(segment.at, core);
        logs[core].segments.push(SegmentStart {
            at: segment.at,
            epoch: segment.epoch(),
            used: segment.is_used(),
            kind: segment.header.map_or(SegmentKind::Hot, |h| h.kind),
            waits_for: std::mem::take(&mut replayed.waits[i]),
            attempts: std::mem::take(&mut replayed.attempts[i]),
            index: segment.index.clone(),
            quarantined: segment.quarantined,
        });
    }
    let all = replayed.live.drain();
    for live in all {
        let core = core_of.get(&live.segment).copied().unwrap_or(0);
        logs[core].live.insert_live(live);
    }
    logs
}

/// The segment that no core gets.
fn kept<D: Device>(set: &Set<D>, survey: &Survey, cores: u16) -> Option<SegmentRef> {
    // What no core has would not be copied to a member that is being filled.
    let is_whole = set.joining_numbers().is_empty();
    let mut unused = survey.segments.iter().filter(|s| !s.is_used());
    let last = unused.next_back()?;
    // The only one is for what must be written now.
    let keeps = is_whole && keeps_one(cores, survey.segments.len());
    unused.next().filter(|_| keeps).map(|_| last.at)
}

/// All columns, the core's own first.
fn columns_of<D: Device>(set: &Set<D>, own: usize) -> Vec<Column> {
    let n = set.logs.len();
    (0..n)
        .map(|i| {
            let column = u8::try_from((own + i) % n).expect("at most MEMBERS_MAX");
            Column {
                column,
                log: set.logs[usize::from(column)],
                members: members_of(set, column),
                filling: set.column_joining(column),
            }
        })
        .collect()
}

/// All that a batch is written to.
fn members_of<D: Device>(set: &Set<D>, column: u8) -> [Option<u16>; 2] {
    let [first, second] = set.column_members(column);
    [first, second.or_else(|| set.column_joining(column))]
}

fn owners(
    survey: &Survey,
    replayed: &Replayed,
    cores: u16,
    columns: usize,
    kept: Option<usize>,
) -> Vec<usize> {
    let by_place: HashMap<SegmentRef, usize> =
        survey.segments.iter().enumerate().map(|(i, s)| (s.at, i)).collect();
    let mut root: Vec<usize> = (0..survey.segments.len()).collect();
    for (i, waits) in replayed.waits.iter().enumerate() {
        for other in waits.iter().filter_map(|at| by_place.get(at)) {
            join(&mut root, i, *other);
        }
    }
    for live in replayed.live.iter() {
        let home = by_place.get(&live.segment).copied();
        let others = live.chunks().iter().map(|c| c.segment);
        let defer = live.defer_place().map(|(at, _)| at);
        for other in others.chain(defer).filter_map(|at| by_place.get(&at)) {
            if let Some(home) = home {
                join(&mut root, home, *other);
            }
        }
    }
    let cores = usize::from(cores.max(1));
    let mut owner = vec![usize::MAX; survey.segments.len()];
    // A family goes to the core that wrote its newest segment, as far as there is one.
    let mut newest: HashMap<usize, (u64, usize)> = HashMap::new();
    for (i, s) in survey.segments.iter().enumerate().filter(|(_, s)| s.is_used()) {
        let core = s.header.map_or(0, |h| usize::from(h.core)) % cores;
        let best = newest.entry(find(&mut root, i)).or_default();
        if s.epoch() >= best.0 {
            *best = (s.epoch(), core);
        }
    }
    let mut load = vec![0usize; cores];
    for (i, s) in survey.segments.iter().enumerate().filter(|(_, s)| s.is_used()) {
        debug_assert!(s.is_used());
        owner[i] = newest.get(&find(&mut root, i)).map_or(0, |n| n.1);
        load[owner[i]] += 1;
    }
    deal(survey, &mut owner, &mut load, columns, kept);
    owner
}

/// Free segments that each core gets first: without any it could write nothing.
const FREE_FIRST: usize = 3;
/// Segments a core has at least in a set of which one is kept for recoveries.
const KEPT_FROM: usize = 7;

/// A set so large keeps one segment for recoveries, to gather in.
fn keeps_one(cores: u16, segments: usize) -> bool {
    segments > KEPT_FROM * usize::from(cores)
}

/// With fewer free segments at a start, nearly empty ones are put together.
fn free_wanted(cores: u16, segments: usize) -> usize {
    (FREE_FIRST * usize::from(cores) + 1).min(segments / 2)
}

/// Free segments on another device than its own that each core gets where there are enough.
const FREE_ELSEWHERE: usize = 2;

/// Free segments go to the core of their column that has the fewest, but a few to each core.
fn deal(
    survey: &Survey,
    owner: &mut [usize],
    load: &mut [usize],
    columns: usize,
    kept: Option<usize>,
) {
    let cores = load.len();
    let mut free = vec![0usize; cores];
    let mut left: Vec<usize> =
        (0..owner.len()).filter(|i| !survey.segments[*i].is_used() && kept != Some(*i)).collect();
    for round in 1..=FREE_FIRST {
        for core in (0..cores).filter(|core| free[*core] < round).collect::<Vec<_>>() {
            let home = |i: &usize| usize::from(survey.segments[*i].at.column()) == core % columns;
            let any = || (!left.is_empty()).then_some(0);
            let Some(n) = left.iter().position(home).or_else(any) else {
                return hand_over_duties(survey, owner, &free);
            };
            owner[left.remove(n)] = core;
            free[core] += 1;
        }
    }
    // And one or two on another device, for the case that its own fails.
    for round in 1..=FREE_ELSEWHERE {
        if columns == 1 || left.len() < FREE_ELSEWHERE * cores {
            break;
        }
        for (core, free) in free.iter_mut().enumerate() {
            let away = |i: &usize| usize::from(survey.segments[*i].at.column()) != core % columns;
            if *free < FREE_FIRST + round
                && let Some(n) = left.iter().position(away)
            {
                owner[left.remove(n)] = core;
                *free += 1;
            }
        }
    }
    for i in left {
        let column = usize::from(survey.segments[i].at.column());
        let mut able: Vec<usize> = (0..cores).filter(|core| core % columns == column).collect();
        if able.is_empty() {
            able = vec![column % cores];
        }
        let best = able.into_iter().min_by_key(|c| (load[*c] + free[*c], free[*c]));
        let core = best.unwrap_or(0);
        free[core] += 1;
        owner[i] = core;
    }
    hand_over_duties(survey, owner, &free);
}

/// A core that got no free segment keeps no mail: it could not say what became of it.
fn hand_over_duties(survey: &Survey, owner: &mut [usize], free: &[usize]) {
    let richest = (0..free.len()).max_by_key(|core| free[*core]).unwrap_or(0);
    if free[richest] == 0 {
        return;
    }
    for (i, owner) in owner.iter_mut().enumerate() {
        if survey.segments[i].is_used() && free[*owner] == 0 {
            *owner = richest;
        }
    }
}

fn find(root: &mut [usize], i: usize) -> usize {
    let mut at = i;
    while root[at] != at {
        root[at] = root[root[at]];
        at = root[at];
    }
    at
}

fn join(root: &mut [usize], a: usize, b: usize) {
    let (a, b) = (find(root, a), find(root, b));
    root[a.max(b)] = a.min(b);
}
