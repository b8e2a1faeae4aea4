//! What one seed draws: devices, load, faults, crashes.

use spool::sim::{Faults, Random};

/// A bug put in on purpose, to see that the simulation notices it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Planted {
    /// None: the code as it is.
    Nothing,
    /// Writes are answered before they are on the medium.
    NoSync,
    /// A batch is acknowledged with the one behind it.
    EarlyAnswer,
    /// All uses of a segment have the same epoch.
    NoEpoch,
    /// The segment of a DONE is reused before that of its message.
    DoneFirst,
    /// A new run goes on behind the tail that recovery found.
    TailAppended,
    /// A member that fails is left out before the generation without it is durable.
    NoGeneration,
    /// DSN and DONE in two batches.
    TwoBatches,
    /// Mail expires by a clock in doubt.
    ClockExpires,
}

/// How the devices are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    One,
    Stripe,
    Mirror,
}

/// When the power goes, once the life has had its share of the load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trigger {
    AnyTime,
    HeaderOnTheWay,
    FooterOnTheWay,
    TwoBatchesOnTheWay,
    ReplacementOnTheWay,
    MoveOnTheWay,
    CancelOnTheWay,
    Chunks,
    Rewriting,
    EmptySegment,
    JustAcknowledged,
    Delivered,
    Forwarded,
    Moved,
    Refused,
    Idle,
}

const TRIGGERS: [Trigger; 16] = [
    Trigger::AnyTime,
    Trigger::HeaderOnTheWay,
    Trigger::FooterOnTheWay,
    Trigger::TwoBatchesOnTheWay,
    Trigger::ReplacementOnTheWay,
    Trigger::MoveOnTheWay,
    Trigger::CancelOnTheWay,
    Trigger::Chunks,
    Trigger::Rewriting,
    Trigger::EmptySegment,
    Trigger::JustAcknowledged,
    Trigger::Delivered,
    Trigger::Forwarded,
    Trigger::Moved,
    Trigger::Refused,
    Trigger::Idle,
];

/// How next hops behave: once in so many.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hops {
    pub(super) rcpt_later_in: u64,
    pub(super) rcpt_never_in: u64,
    pub(super) message_later_in: u64,
    pub(super) message_never_in: u64,
    pub(super) reply_lost_in: u64,
    pub(super) broken_in: u64,
    /// A destination is down for a share of the time.
    pub(super) down_in: u64,
    /// Destination 0 is dead until the end.
    pub(super) one_dead: bool,
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) planted: Planted,
    pub(super) layout: Layout,
    pub(super) cores: u16,
    pub(super) cores_vary: bool,
    pub(super) segments: u32,
    pub(super) messages: u64,
    pub(super) crashes: u64,
    pub(super) sessions: usize,
    pub(super) large_in: u64,
    pub(super) body_max: u64,
    pub(super) pause_us: u64,
    pub(super) faults: Faults,
    pub(super) hops: Hops,
    pub(super) hot_age_us: u64,
    pub(super) commit_wait_us: u64,
    pub(super) give_up_us: u64,
    pub(super) fresh: bool,
    pub(super) clock_steps: bool,
    pub(super) operator_in: u64,
    pub(super) rot_in: u64,
    /// A member of a mirror is lost for good, once in so many starts.
    pub(super) lose_in: u64,
    /// A member that was put out comes back, or a blank one in its place, once in so many times.
    pub(super) return_in: u64,
    pub(super) cut_format: bool,
    /// The set is made in the format before the newest ...
    pub(super) old_format: bool,
    /// ... and raised at this start; never when there are fewer.
    pub(super) raise_at: u64,
    pub(super) cut_recovery_in: u64,
    pub(super) triggers: Vec<Trigger>,
}

/// Bytes of a segment: small, so that logs turn over.
pub(super) const SEGMENT_BYTES: u32 = 256 << 10;

impl Plan {
    pub(super) fn new(seed: u64, planted: Planted) -> Self {
        let mut random = Random::new(seed ^ 0x5eed_0000_0000_0000);
        let r = &mut random;
        let layout = match r.below(5) {
            3 | 4 => Layout::Mirror,
            2 => Layout::Stripe,
            _ => Layout::One,
        };
        let mut some = |one_in: u64, rate: u64, span: u64| {
            let (drawn, rate) = (r.one_in(one_in), rate + r.below(span));
            if drawn { rate } else { 0 }
        };
        let faults = Faults {
            write_error_in: some(4, 40, 100),
            short_write_in: some(6, 60, 200),
            read_error_in: some(4, 10, 60),
            slow_in: some(3, 10, 60),
            slow_us: 200_000,
            stuck_in: some(5, 60, 150),
            stuck_us: 2_500_000,
            never_in: some(10, 150, 300),
            misdirect_in: if layout == Layout::Mirror { some(3, 40, 100) } else { 0 },
            dies_after: if layout == Layout::One { 0 } else { some(4, 2, 150) },
            latency_us_max: 3_000,
            ..Faults::default()
        };
        let hops = Hops {
            rcpt_later_in: some(2, 8, 30),
            rcpt_never_in: some(2, 8, 30),
            message_later_in: some(2, 6, 30),
            message_never_in: some(2, 10, 30),
            reply_lost_in: some(3, 10, 40),
            broken_in: some(3, 20, 40),
            down_in: some(3, 3, 5),
            one_dead: some(4, 1, 1) > 0,
        };
        Self::rest(seed, planted, layout, faults, hops, r)
    }

    fn rest(
        seed: u64,
        planted: Planted,
        layout: Layout,
        mut faults: Faults,
        mut hops: Hops,
        r: &mut Random,
    ) -> Self {
        let cores = 1 + u16::try_from(r.below(5) / 3).expect("small");
        let cores = if layout == Layout::Stripe { cores + 1 } else { cores };
        let mut triggers = Vec::new();
        let crashes = 3 + u64::from(r.one_in(4));
        for _ in 0..crashes {
            let n = usize::try_from(r.below(16)).expect("small");
            triggers.push(TRIGGERS[n]);
        }
        let tight = r.one_in(3);
        let per_core = if tight { 6 + r.below(3) } else { 9 + r.below(8) };
        // Each error takes a segment out of use: such a log is not made tight as well.
        let failing =
            faults.write_error_in > 0 || faults.short_write_in > 0 || faults.dies_after > 0;
        let per_core = if failing { per_core + 8 } else { per_core };
        let per_device = u64::from(cores) * per_core / if layout == Layout::Stripe { 2 } else { 1 };
        let mut plan = Self {
            seed,
            planted,
            layout,
            cores,
            cores_vary: r.one_in(4),
            segments: u32::try_from(per_device.max(6)).expect("small"),
            messages: 100 + r.below(40),
            crashes,
            sessions: 4 + usize::try_from(r.below(28)).expect("small"),
            large_in: 8 + r.below(40),
            body_max: 500 + r.below(12_000),
            pause_us: [300, 3_000, 30_000][usize::try_from(r.below(3)).expect("small")],
            faults: Faults::default(),
            hops: Hops::default(),
            hot_age_us: [1_000_000, 3_000_000, 60_000_000]
                [usize::try_from(r.below(3)).expect("small")],
            commit_wait_us: 1_000_000,
            give_up_us: 20_000_000 + r.below(60_000_000),
            fresh: !r.one_in(3),
            clock_steps: r.one_in(4),
            operator_in: if r.one_in(2) { 5 + r.below(20) } else { 0 },
            rot_in: if r.one_in(4) { 2 } else { 0 },
            lose_in: 0,
            return_in: 0,
            cut_format: r.one_in(20),
            old_format: false,
            raise_at: 0,
            cut_recovery_in: if r.one_in(3) { 2 } else { 0 },
            triggers,
        };
        match planted {
            Planted::DoneFirst => {
                (plan.segments, plan.body_max, plan.cores) = (6, 16_000, 1);
                plan.hot_age_us = 60_000_000;
                hops.one_dead = true;
            }
            Planted::NoEpoch => {
                (plan.segments, plan.body_max, plan.large_in) = (4 * u32::from(cores), 16_000, 10);
            }
            Planted::ClockExpires => {
                plan.clock_steps = true;
                hops.one_dead = true;
            }
            Planted::TwoBatches => hops.message_never_in = 3,
            Planted::TailAppended => faults = Faults { latency_us_max: 3_000, ..Faults::default() },
            Planted::NoGeneration => {
                (plan.layout, faults.misdirect_in, faults.dies_after) = (Layout::Mirror, 0, 20);
                plan.rot_in = 0;
            }
            Planted::Nothing | Planted::NoSync | Planted::EarlyAnswer => {}
        }
        // What was misdirected, rotten or could not be read stands on one member only.
        let whole = faults.misdirect_in == 0 && plan.rot_in == 0 && faults.read_error_in == 0;
        if plan.layout == Layout::Mirror && whole && seed.is_multiple_of(2) == r.one_in(2) {
            plan.lose_in = 2;
        }
        // No number is drawn: older seeds stay what they were.
        plan.return_in = [1, 2, 0][usize::try_from(seed / 2 % 3).expect("small")];
        (plan.old_format, plan.raise_at) = (seed / 3 % 2 == 1, 1 + seed / 6 % 6);
        (plan.faults, plan.hops) = (faults, hops);
        plan
    }

    pub(super) fn copies(&self) -> u16 {
        if self.layout == Layout::Mirror { 2 } else { 1 }
    }

    pub(super) fn members(&self) -> u16 {
        if self.layout == Layout::One { 1 } else { 2 }
    }
}
