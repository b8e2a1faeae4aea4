//! One seed: lives of a node, ended by power cuts, on the same devices.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use spool::disk::Device;
use spool::id::TransactionId;
use spool::limits::{BLOCK, BUFFERS, SUPERBLOCK_COPIES, SUPERBLOCK_STRIDE};
use spool::live::Live;
use spool::log::{Log, LogConfig};
use spool::recovery::{Options, Recovered, Report, inspect, recover, release};
use spool::set::{Geometry, Seeds, Set, format_as};
use spool::sim::{Faults, Random, SECTOR, SimDisk};
use spool::superblock::{Format, Superblock};
use spool::survey::DamageKind;

use super::common::Common;
use super::core::CoreSim;
use super::hop::{Both, Moods};
use super::media::{Fuse, Medium};
use super::mirror::Keeper;
use super::notes::{Note, What};
use super::plan::{Layout, Plan, Planted, SEGMENT_BYTES, Trigger};
use super::planted;
use super::rows::{Reached, at_cut};
use super::truth::Truth;

const NODE: u16 = 7;
const WALL: u64 = 1_700_000_000_000_000;
const YEAR_US: u64 = 365 * 86_400_000_000;
/// Virtual time in which everything must have come to its end.
const END_US: u64 = 1200 * 1_000_000;

/// See the module.
pub(super) struct World {
    pub(super) common: Common,
    pub(super) media: Vec<Medium>,
    pub(super) fuse: Rc<Fuse>,
    pub(super) cores: Vec<CoreSim>,
    pub(super) set: Option<Set<Medium>>,
    pub(super) keeper: Keeper,
    wall_offset: i64,
    pub(super) reached: Reached,
    crashes: u64,
    tail: planted::Tail,
    /// Batches of the run before that were durable, for bit rot.
    rotten: bool,
    ledger_off: bool,
    /// The format was raised, and segments of the one before are in use.
    mixed: bool,
    turns: u64,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let seed = plan.seed;
        let fuse = Fuse::new(seed);
        let geometry = geometry(&plan);
        let media = (0..plan.members())
            .map(|n| Medium::new(&format!("sim{n}"), geometry.device_bytes(), &fuse))
            .collect();
        let mut client = smtp::client::Settings::new("sim.example");
        client.chunking = seed.is_multiple_of(3);
        let server = Arc::new(smtp::server::Settings::new("hop.example"));
        let receiving = Arc::new(smtp::server::Settings::new("sim.example"));
        let common = Common {
            random: Random::new(seed),
            truth: Truth::default(),
            now_us: 1_000_000,
            wall_us: WALL,
            next_token: 0,
            no_space: 0,
            expired: 0,
            moods: Moods::default(),
            both: Both { client: Arc::new(client), server },
            receiving,
            begun: 0,
            begun_life: 0,
            calm: false,
            plan,
        };
        Self {
            common,
            media,
            fuse,
            cores: Vec::new(),
            set: None,
            keeper: Keeper::default(),
            wall_offset: 0,
            reached: Reached::default(),
            crashes: 0,
            tail: planted::Tail::default(),
            rotten: false,
            ledger_off: false,
            mixed: false,
            turns: 0,
        }
    }

    /// All lives, and the quiet end.
    pub(super) fn run(&mut self) {
        if std::env::var_os("RINGPOST_SIM_TRACE").is_some() {
            eprintln!("{:#?}", self.common.plan);
        }
        self.format();
        for crash in 0..self.common.plan.crashes {
            self.start();
            self.live(usize::try_from(crash).expect("few"));
            self.crash();
        }
        self.end();
        assert!(self.crashes >= 3, "three crashes at least");
        let accepted = self.common.truth.accepted;
        assert!(accepted >= 100, "only {accepted} messages were accepted");
    }

    fn format(&mut self) {
        let geometry = geometry(&self.common.plan);
        let seeds = Seeds { set: 1, log: 100, generation: 5 };
        let of = if self.common.plan.old_format { Format::V1 } else { Format::NEWEST };
        if self.common.plan.cut_format {
            let writes = SUPERBLOCK_COPIES * u64::from(self.common.plan.members());
            self.fuse.burn_after(self.common.random.below(writes));
            let cut = format_as(of, &mut self.media.clone(), geometry, seeds, WALL, false);
            assert!(cut.is_err(), "the power went");
            self.fuse.never();
            self.reached.row("format");
            if Set::open(self.media.clone(), NODE, false).is_ok() {
                return;
            }
            // Begun, not done: whoever formats again looks at blank devices.
            for medium in &self.media {
                medium.with(|d| d.medium_mut()[..1 << 20].fill(0));
            }
        }
        format_as(of, &mut self.media.clone(), geometry, seeds, WALL, false)
            .expect("blank devices");
    }

    fn options(&mut self) -> Options {
        let plan = &self.common.plan;
        let vary = plan.cores_vary && self.common.random.one_in(2);
        let cores = if vary {
            1 + u16::try_from(self.common.random.below(3)).expect("few")
        } else {
            plan.cores
        };
        // A core needs segments of its own.
        let most = u16::try_from(plan.segments / 6).expect("few").max(1);
        let wall_us = self.wall();
        let generation = u128::from(self.common.random.next_u64());
        let raise_format =
            self.common.plan.old_format && self.crashes + 1 >= self.common.plan.raise_at;
        Options { cores: cores.min(most), pid: 99, wall_us, generation, raise_format }
    }

    fn wall(&self) -> u64 {
        (WALL + self.common.now_us).saturating_add_signed(self.wall_offset)
    }

    /// Recovery, perhaps with power cuts of its own.
    fn recover(&mut self) -> Recovered<Medium> {
        let options = self.options();
        let (mut cuts, mut unsealed) = (0, 0);
        loop {
            self.fuse.never();
            let mut set = Set::open(self.media.clone(), NODE, self.degraded()).expect("it opens");
            let seen = inspect(&mut set).expect("it can be read").1;
            if cuts > 0 && self.is_half_raised() {
                self.reached.row("format-half");
                assert_eq!(seen.format, Format::NEWEST, "one that says so is enough");
            }
            if cuts > 0 && seen.unfinished > 0 {
                self.reached.row("gather-torn");
            }
            if cuts > 0 && seen.filled > 0 {
                self.reached.row("gather-half");
            }
            if cuts > 0 && (1..unsealed).contains(&seen.unsealed) {
                self.reached.row("seal-half");
            }
            unsealed = seen.unsealed;
            let again = self.common.plan.cut_recovery_in;
            if !self.common.random.one_in(again) || cuts == 3 {
                self.fuse.drop_strikes.set(self.common.plan.planted == Planted::TailAppended);
                let found = recover(set, options, &mut |_| {}).expect("recovery ends");
                self.fuse.drop_strikes.set(false);
                same(&seen, &found.report);
                if cuts > 1 {
                    self.reached.fault("several-crashes-in-recovery", 1);
                }
                return found;
            }
            cuts += 1;
            self.cut_in_recovery(set, options, &seen);
        }
    }

    fn cut_in_recovery(&mut self, set: Set<Medium>, options: Options, seen: &Report) {
        let copies = set.members.iter().flatten().count();
        let copies = u64::try_from(copies).expect("few");
        let per_strike = u64::from(self.common.plan.copies());
        let strikes = per_strike * u64::try_from(seen.struck).expect("few");
        let heals = u64::try_from(seen.healed).expect("few");
        let raises = SUPERBLOCK_COPIES * copies;
        let fuse = match self.common.random.below(4) {
            0 if strikes > 0 => self.common.random.below(strikes),
            1 if heals > 0 => strikes + self.common.random.below(heals),
            2 => strikes + heals + self.common.random.below(raises),
            // What gathers nearly empty segments, if it comes to that.
            _ => strikes + heals + raises + self.common.random.below(40),
        };
        self.fuse.burn_after(fuse);
        let cut = recover(set, options, &mut |_| {});
        if cut.is_ok() {
            // Fewer writes than thought (a heal of what is struck out): as a start without work.
            return;
        }
        self.reached.row(match fuse {
            n if n < strikes => "strike-half",
            n if n < strikes + heals => "heal-half",
            _ => "raise-half",
        });
        if fuse > strikes + heals {
            self.reached.row("superblock-write");
        }
    }

    /// Some superblocks say the newest format, some the one before.
    fn is_half_raised(&self) -> bool {
        let copies = (0..SUPERBLOCK_COPIES).map(|copy| copy * SUPERBLOCK_STRIDE);
        let said: Vec<Format> = (self.media.iter())
            .flat_map(|medium| copies.clone().map(move |at| (medium, at)))
            .filter_map(|(medium, at)| {
                let at = usize::try_from(at).expect("small");
                let block = medium.with(|device| device.medium()[at..at + BLOCK].to_vec());
                Superblock::decode(&block).ok().map(|block| block.format)
            })
            .collect();
        said.contains(&Format::V1) && said.contains(&Format::NEWEST)
    }

    fn degraded(&self) -> bool {
        self.common.plan.layout == Layout::Mirror
    }

    fn start(&mut self) {
        self.step_clock();
        self.common.wall_us = self.wall();
        self.lose_member();
        let mut found = self.recover();
        if std::env::var_os("RINGPOST_SIM_ID").is_some() {
            eprintln!("START {:x?}", found.report);
        }
        self.check(&found);
        let newest = Some(found.report.newest_wall_us).filter(|t| *t > 0);
        let plan = &self.common.plan;
        let config = LogConfig {
            commit_wait_us: plan.commit_wait_us,
            hot_age_us: plan.hot_age_us,
            ..LogConfig::default()
        };
        let mut members: Vec<Option<Medium>> = found.set.members.clone();
        for (member, joining) in members.iter_mut().zip(&found.set.joining) {
            *member = member.take().or_else(|| joining.clone());
        }
        assert_eq!(found.report.joining_failed, [], "no faults here");
        let raised = found.report.format < found.set.superblock.format;
        self.mixed |= raised && found.report.segments_used > 0;
        self.keeper.filling = !found.report.members_filling.is_empty();
        let calm = self.common.calm;
        let latency_us_max = plan.faults.latency_us_max;
        let mut faults = if calm { Faults::default() } else { plan.faults };
        faults.latency_us_max = latency_us_max;
        faults.lies = plan.planted == Planted::NoSync;
        faults.early = plan.planted == Planted::EarlyAnswer;
        if plan.layout == Layout::Mirror || plan.faults.dies_after > 0 {
            // One member alone fails: two would be more than a mirror promises to stand.
            faults.members = 1 << (plan.seed % 2);
        }
        self.common.begun_life = 0;
        self.tail.begin(&found);
        let starts = std::mem::take(&mut found.logs);
        for (n, mut start) in starts.into_iter().enumerate() {
            if self.common.plan.planted == Planted::DoneFirst {
                start.segments.iter_mut().for_each(|s| s.waits_for.clear());
            }
            let mut lives: Vec<Live> = start.live.iter().cloned().collect();
            lives.sort_unstable_by_key(|l| l.id);
            let log = Log::new(start, config, SimDisk::buffers(BUFFERS), self.common.now_us);
            let disk = SimDisk::new(members.clone(), faults, self.common.random.next_u64());
            let number = u16::try_from(n).expect("few");
            let mut core = CoreSim::new(&self.common, number, found.run, log, disk, newest);
            core.notes.format = found.set.superblock.format;
            core.notes.filling.clone_from(&found.report.members_filling);
            lives.iter().for_each(|live| core.restore(&self.common, live));
            self.cores.push(core);
        }
        self.set = Some(found.set);
    }

    /// The wall clock is wrong after a start, or right again.
    fn step_clock(&mut self) {
        if !self.common.plan.clock_steps || self.common.random.one_in(2) {
            return;
        }
        let years = i64::try_from(YEAR_US).expect("fits");
        self.wall_offset = match self.common.random.below(4) {
            0 => 3 * years,
            1 => -2 * years,
            2 => years / 100,
            _ => 0,
        };
        self.reached.fault("clock-step", 1);
    }

    fn check(&mut self, found: &Recovered<Medium>) {
        let mut there: HashMap<TransactionId, &Live> = HashMap::new();
        let mut adopted = false;
        for (core, log) in found.logs.iter().enumerate() {
            for live in log.live.iter() {
                assert!(there.insert(live.id, live).is_none(), "{} twice", live.id);
                adopted |= usize::from(live.id.session.core()) != core;
            }
        }
        let refused = self.common.truth.found_refused;
        self.common.truth.recovered(&there);
        self.common.truth.rescued = found.report.rescued > 0;
        self.reached.fault("segment-rescued", u64::from(found.report.rescued > 0));
        if adopted {
            self.reached.row("adopted");
        }
        if self.common.truth.found_refused > refused {
            self.reached.row("stuck-late");
        }
        if self.rotten && (!found.report.damage.is_empty() || found.report.healed > 0) {
            self.reached.row("damaged");
        }
        let mirror = self.common.plan.layout == Layout::Mirror;
        // A batch that only said the watermark harms no message when it rots, and is damage.
        let harm = self.common.truth.any_harm || self.rotten;
        assert!(harm || mirror || found.report.damage.is_empty(), "{:?}", found.report.damage);
        if mirror {
            assert_eq!(found.report.damage, [], "a mirror has another copy");
        }
        let faults = &self.common.plan.faults;
        let spoiled = self.rotten || faults.misdirect_in > 0 || faults.read_error_in > 0;
        if !spoiled && self.common.plan.planted == Planted::Nothing {
            assert_eq!(found.report.healed_damage, [], "no device lost anything");
        }
        self.ledger_off |= harm;
        if !self.ledger_off {
            let (ledger, counted) = (found.report.ledger, found.report.counted);
            assert!(found.report.ledger_agrees(), "ledger {ledger:?}, counted {counted:?}");
            assert_eq!(ledger, self.common.truth.ledger(), "the ledger and the truth");
        }
    }

    fn live(&mut self, crash: usize) {
        let plan = &self.common.plan;
        let share = plan.messages / (plan.crashes + 1);
        let trigger = plan.triggers[crash];
        let share = share / 2 + self.common.random.below(share);
        let mut late_us = u64::MAX;
        loop {
            self.turn();
            let has_run = self.common.begun_life >= share;
            if self.keeper.cut {
                return;
            }
            if has_run && late_us == u64::MAX {
                late_us = self.common.now_us + 1_000_000 + self.common.random.below(8_000_000);
                if trigger == Trigger::AnyTime {
                    return;
                }
            }
            if has_run && (self.is_met(trigger) || self.common.now_us >= late_us) {
                return;
            }
        }
    }

    fn turn(&mut self) {
        self.turns += 1;
        if std::env::var_os("RINGPOST_SIM_TRACE").is_some() && self.turns.is_multiple_of(20_000) {
            eprintln!(
                "{} turns, {} us, begun {}, {}",
                self.turns,
                self.common.now_us,
                self.common.begun,
                self.left()
            );
        }
        let next = self.cores.iter().map(|c| c.next_us(&self.common)).min().unwrap_or(u64::MAX);
        let now = self.common.now_us;
        self.common.now_us = next.clamp(now + 1, now + 250_000);
        if self.common.plan.clock_steps && self.common.random.one_in(4_000) {
            self.step_clock();
        }
        self.common.wall_us = self.wall();
        for core in &mut self.cores {
            core.turn(&mut self.common);
        }
        self.keep();
    }

    fn is_met(&self, trigger: Trigger) -> bool {
        let open =
            |what: &dyn Fn(&Note) -> bool| self.cores.iter().any(|c| c.notes.open().any(what));
        let batch =
            |what: fn(&super::notes::BatchNote) -> bool| open(&|n| n.batch().is_some_and(what));
        match trigger {
            Trigger::AnyTime => true,
            Trigger::HeaderOnTheWay => open(&|n| matches!(n.what, What::Header(_))),
            Trigger::FooterOnTheWay => open(&|n| matches!(n.what, What::Footer(..))),
            Trigger::TwoBatchesOnTheWay => self
                .cores
                .iter()
                .any(|c| c.notes.open().filter(|n| n.batch().is_some()).count() > 1),
            Trigger::ReplacementOnTheWay => batch(|b| b.replaces),
            Trigger::MoveOnTheWay => batch(|b| !b.moves.is_empty()),
            Trigger::CancelOnTheWay => batch(|b| b.cancels),
            Trigger::Chunks => batch(|b| !b.chunks.is_empty()),
            Trigger::Rewriting => self
                .cores
                .iter()
                .any(|c| c.notes.all.iter().rev().take(8).any(|n| n.failed && n.batch().is_some())),
            Trigger::EmptySegment => self.cores.iter().any(|c| {
                c.notes.durable().last().is_some_and(|n| matches!(n.what, What::Header(_)))
            }),
            Trigger::JustAcknowledged => self.cores.iter().any(|c| {
                let last = c.notes.durable().filter_map(Note::batch).last();
                last.is_some_and(|b| b.header.seq > c.notes.watermark() && !b.messages.is_empty())
            }),
            Trigger::Delivered => self.common.truth.has_unsettled_delivery(),
            Trigger::Forwarded => self.cores.iter().any(|c| c.log.stats().forwarded > 0),
            Trigger::Moved => self.cores.iter().any(|c| c.log.stats().moved > 0),
            Trigger::Refused => self.cores.iter().any(|c| c.refusals > 0 && c.failed),
            Trigger::Idle => self.cores.iter().all(|c| c.notes.open().next().is_none()),
        }
    }

    /// The power goes.
    fn crash(&mut self) {
        self.crashes += 1;
        if std::env::var_os("RINGPOST_SIM_TRACE").is_some() {
            eprintln!("cut at {} us, {}", self.common.now_us, self.left());
        }
        if self.common.truth.has_unsettled_delivery() {
            self.reached.row("done-lost");
        }
        if self.mixed {
            self.reached.row("format-mixed");
        }
        self.common.truth.crashed();
        let cores = std::mem::take(&mut self.cores);
        for mut core in cores {
            let (remains, _) = core.disk.lose_power();
            if core.log.stats().forwarded > 0 {
                self.reached.row("forwarded");
            }
            self.chunks_only(&core);
            at_cut(&mut self.reached, &core.notes, &remains, &core.disk.members);
            self.reached.disk(&core.disk.happened);
            self.reached.fault("column-left", core.columns_left);
            self.rot(&core, &remains.iter().map(|r| r.offset).collect::<Vec<_>>());
            self.tail.cut(&core.notes);
        }
        if self.common.plan.planted == Planted::TailAppended {
            self.tail.append(&self.media);
        }
        self.set = None;
        self.mirror_at_cut();
    }

    fn chunks_only(&mut self, core: &CoreSim) {
        let truth = &self.common.truth;
        let dead = |id: &TransactionId| truth.mails.get(id).is_none_or(|m| !m.durable);
        let all = core.notes.durable().filter_map(Note::batch);
        if all.flat_map(|b| &b.chunks).any(dead) {
            self.reached.row("chunks-only");
        }
    }

    /// A batch that is durable and covered rots on one device.
    fn rot(&mut self, core: &CoreSim, open: &[u64]) {
        let r = &mut self.common.random;
        if !r.one_in(self.common.plan.rot_in) {
            return;
        }
        let watermark = core.notes.watermark();
        let whole = core.notes.durable().filter(|n| !open.contains(&n.offset));
        let covered: Vec<&Note> =
            whole.filter(|n| n.batch().is_some_and(|b| b.header.seq <= watermark)).collect();
        if covered.is_empty() {
            return;
        }
        let n = r.below(u64::try_from(covered.len()).expect("small"));
        let note = covered[usize::try_from(n).expect("small")];
        let faulty = if self.common.plan.layout == Layout::Mirror {
            usize::try_from(self.common.plan.seed % 2).expect("small")
        } else {
            usize::from(note.members[0].expect("written somewhere"))
        };
        let blocks = u64::try_from(note.bytes / SECTOR).expect("small");
        let at = note.offset + r.below(blocks) * u64::try_from(SECTOR).expect("small");
        let medium = &self.media[faulty];
        // What stands there by now may be another batch than the one that was noted.
        let start = usize::try_from(note.offset).expect("small");
        let there = medium.with(|d| super::rows::batch_of(&d.medium()[start..start + note.bytes]));
        let Some(there) = there.filter(|b| Some(b.header) == note.batch().map(|n| n.header)) else {
            return;
        };
        if self.common.plan.layout != Layout::Mirror {
            let mut ids: Vec<TransactionId> = there.messages;
            ids.extend(there.chunks);
            ids.extend(there.changes.iter().map(|c| c.0));
            self.common.truth.harm(&ids);
        }
        self.rotten = true;
        if r.one_in(2) && self.common.plan.layout == Layout::Mirror {
            let block =
                at / u64::try_from(BLOCK).expect("small") * u64::try_from(BLOCK).expect("small");
            medium.with(|d| d.bad.push(block..block + u64::try_from(BLOCK).expect("small")));
            self.reached.fault("bad-sector", 1);
        } else {
            super::notes::rot(medium, at, r);
            self.reached.fault("bit-rot", 1);
        }
    }

    /// No more faults: everything comes to its end, the logs close, and nothing is left.
    fn end(&mut self) {
        self.common.calm = true;
        self.wall_offset = 0;
        self.start();
        let until = self.common.now_us + END_US;
        let mut quiet = 0;
        while quiet < 3 {
            self.turn();
            quiet = if self.cores.iter().all(CoreSim::is_idle) { quiet + 1 } else { 0 };
            assert!(self.common.now_us < until, "it does not come to an end: {}", self.left());
        }
        for core in &mut self.cores {
            core.log.close();
        }
        while !self.cores.iter().all(|c| c.closed) {
            self.turn();
            assert!(self.common.now_us < until, "it does not close: {}", self.left());
        }
        self.common.truth.finished();
        for core in std::mem::take(&mut self.cores) {
            self.reached.disk(&core.disk.happened);
        }
        let mut set = self.set.take().expect("it ran");
        release(&mut set).expect("no faults");
        let mut set = Set::open(self.media.clone(), NODE, self.degraded()).expect("it opens");
        let report = inspect(&mut set).expect("it can be read").1;
        assert_eq!((report.messages, report.was_running), (0, false), "nothing is left");
        if !self.ledger_off && !self.common.truth.any_harm {
            assert_eq!(report.ledger, self.common.truth.ledger(), "the ledger at the end");
        }
        self.heal_all();
        self.count();
    }

    /// What rotted where nobody looked is healed from the other copy.
    fn heal_all(&mut self) {
        let any_bad = self.media.iter().any(|m| m.with(|d| !d.bad.is_empty()));
        if self.common.plan.layout != Layout::Mirror || any_bad {
            return;
        }
        let mut set = Set::open(self.media.clone(), NODE, true).expect("it opens");
        let healed = spool::offline::heal(&mut set, &mut |_, _| {}).expect("no faults");
        assert!(healed.iter().all(|d| d.what == DamageKind::Copy), "{healed:?}");
        self.reached.fault("sealed-healed", u64::from(!healed.is_empty()));
        let healed = spool::offline::heal(&mut set, &mut |_, _| {}).expect("no faults");
        assert_eq!(healed, [], "all is healed");
    }

    fn left(&self) -> String {
        let of = |c: &CoreSim| {
            let stats = c.log.stats();
            let first = c.log.messages().next().map(|l| l.id.to_string());
            format!("{stats:?}, first {first:?}")
        };
        self.cores.iter().map(of).collect::<Vec<_>>().join("; ")
    }

    fn count(&mut self) {
        let (c, r) = (&self.common, &mut self.reached);
        r.fault("no-space", c.no_space);
        r.fault("mail-expired", c.expired);
        r.fault("hop-4xx", c.moods.later);
        r.fault("hop-5xx", c.moods.never);
        r.fault("hop-reply-lost", c.moods.lost_replies);
        r.fault("hop-connection-broken", c.moods.broken);
        r.fault("hop-down", c.moods.down);
        let left = c.truth.mails.values().filter(|m| m.told == super::truth::Told::Nothing).count();
        r.fault("client-left", u64::try_from(left).expect("small"));
    }
}

fn geometry(plan: &Plan) -> Geometry {
    Geometry {
        node: NODE,
        segment_bytes: SEGMENT_BYTES,
        segments: plan.segments,
        copies: plan.copies(),
        volatile: false,
    }
}

/// A look and a recovery see the same.
fn same(seen: &Report, found: &Report) {
    assert_eq!(seen.messages, found.messages, "a look and a recovery differ");
    assert_eq!(seen.ledger, found.ledger, "a look and a recovery differ");
    assert_eq!(seen.damage, found.damage, "a look and a recovery differ");
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let media: Vec<u64> = self.media.iter().map(Device::bytes).collect();
        f.debug_struct("World").field("media", &media).finish_non_exhaustive()
    }
}
