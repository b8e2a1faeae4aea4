//! What happens to a packet: the whole decision, over traits for the maps.
//!
//! *Guarantees*: a SYN to a judged port is the only packet that is judged. With `answer` on,
//! another packet is acted on only if its acknowledgement number proves that it continues a
//! handshake answered here, checked before any list. Deny is looked up first and allow only on
//! a hit; allow wins. A rate limits and never bans. Without a verdict the packet passes.

use core::cell::Cell;

use crate::config::{Config, FLAG_ANSWER, FLAG_BUCKET, FLAG_TAGGED};
use crate::cookie::{self, Progress};
use crate::count::Counter;
use crate::entry::{Action, Entry, Host};
use crate::packet::{ACK, Address, FIN, RST, SYN, Segment};

/// The maps, by what is asked of them.
pub trait Tables {
    /// A live ban of this host (IPv6: of its /64).
    fn ban(&self, source: &Address) -> Option<&Entry>;
    /// A listed host (IPv6: its /64) in this slot.
    fn host(&self, slot: u32, source: &Address) -> Option<&Host>;
    /// The longest listed network in this slot.
    fn network(&self, slot: u32, source: &Address) -> Option<&Entry>;
    /// Whether an allowed network in this slot covers it.
    fn allowed(&self, slot: u32, source: &Address) -> bool;
    /// The tick until which a network has used its rate.
    fn bucket(&self, network: u64) -> Option<&Cell<u64>>;
    /// Remembers a network.
    fn open_bucket(&self, network: u64, until: u64);
    /// Second of the monotonic clock until which the daemon says that it accepts.
    fn accepting_until_s(&self) -> u32;
    /// Adds one.
    fn count(&self, counter: Counter);
    /// Adds one to a reason's row; what it was before, on this CPU.
    fn count_reason(&self, reason: u8, action: Action) -> u32;
    /// Adds one to a class of sources.
    fn spread(&self, class: u32);
    /// Hears of the hits that are sampled; false: it has heard enough.
    fn event(&self, hit: &Hit, segment: &Segment, now_s: u32) -> bool;
}

/// The clock, both readings from one look at it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Seconds of the monotonic clock.
    pub seconds: u32,
    /// 1/1024 of a jiffy.
    pub ticks: u64,
}

/// A listed source and what becomes of its SYN.
#[derive(Clone, Copy, Debug)]
pub struct Hit {
    /// Of what lists it.
    pub id: u32,
    /// Of what lists it.
    pub reason: u8,
    /// Of what lists it.
    pub list: u8,
    /// 1 ban, 2 host, 3 network.
    pub place: u8,
    /// What entry and ceiling ask for.
    pub wanted: Action,
    /// What is done.
    pub action: Action,
    /// Whether an allowed network covers it.
    pub allowed: bool,
    /// Hits before this one; those of hosts are not kept.
    pub hits: u32,
    /// Nothing was told of this entry before.
    pub first: bool,
}

/// What lists a source.
#[derive(Clone, Copy)]
struct Found<'a> {
    id: u32,
    reason: u8,
    list: u8,
    place: u8,
    wanted: Action,
    heard: &'a Cell<u8>,
    /// Of a ban or a network.
    entry: Option<&'a Entry>,
}

/// What the shell has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Leave it to the stack.
    Pass,
    /// Nobody sees it.
    Drop,
    /// Send a SYN-ACK with the step's sequence number.
    Open,
    /// Send the 554 for the step's entry, and a FIN.
    Refuse,
    /// Acknowledge what came after the 554.
    Acknowledge,
}

/// The decision with all that it needs. One flat structure with every field set: of an enum the
/// compiler would move fields that are not set, and the kernel's verifier refuses to read those.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What is done.
    pub act: Act,
    /// Of [`Act::Open`], else 0.
    pub sequence: u32,
    /// The listing's, of [`Act::Refuse`], else 0.
    pub id: u32,
    /// The listing's, of [`Act::Refuse`], else 0.
    pub reason: u8,
}

impl Step {
    const fn of(act: Act) -> Self {
        Self { act, sequence: 0, id: 0, reason: 0 }
    }

    const fn open(sequence: u32) -> Self {
        Self { act: Act::Open, sequence, id: 0, reason: 0 }
    }

    const fn refuse(found: &Found<'_>) -> Self {
        Self { act: Act::Refuse, sequence: 0, id: found.id, reason: found.reason }
    }
}

/// The decision for one TCP packet.
#[inline(always)]
pub fn step<T: Tables>(
    config: &Config,
    tables: &T,
    segment: &Segment,
    clock: impl Fn() -> Now,
) -> Step {
    if !config.judges(segment.destination_port) {
        return Step::of(Act::Pass);
    }
    if segment.flags & (SYN | ACK | RST | FIN) == SYN {
        return opening(config, tables, segment, clock());
    }
    if config.flags & FLAG_ANSWER == 0 || segment.flags & (SYN | RST | ACK) != ACK {
        return Step::of(Act::Pass);
    }
    let now = clock();
    match cookie::check(&config.keys, segment, now.seconds) {
        None => Step::of(Act::Pass),
        Some(Progress::Opened) => opened(config, tables, segment, now),
        Some(Progress::Refused) => refused(tables, segment),
    }
}

/// A class of sources: nearly all SYNs in one or two of them mean a switch that hides clients.
#[inline(always)]
const fn class(source: &Address) -> u32 {
    let [a, b, c, d] = source.words;
    (a ^ b.rotate_left(7) ^ c.rotate_left(13) ^ d.rotate_left(19)).wrapping_mul(0x9e37_79b1) >> 24
}

/// A SYN.
#[inline(always)]
fn opening<T: Tables>(config: &Config, tables: &T, segment: &Segment, now: Now) -> Step {
    let mode = Action::from_number(config.mode);
    if mode == Action::Pass {
        return Step::of(Act::Pass);
    }
    tables.count(Counter::Syn);
    tables.spread(class(&segment.source));
    let Some(found) = find(config, tables, &segment.source, now.seconds) else {
        tables.count(Counter::Clean);
        return limited(config, tables, segment, now, mode)
            .unwrap_or(const { Step::of(Act::Pass) });
    };
    let hits = found.entry.map_or(0, |entry| entry.hit(now.seconds));
    let allowed = tables.allowed(config.slot(), &segment.source);
    let mut action = if allowed { Action::Pass } else { found.wanted.min(mode) };
    let mut step = match action {
        Action::Drop => Step::of(Act::Drop),
        Action::Answer if !answers(config, tables, segment, now) => {
            action = Action::Pass;
            Step::of(Act::Pass)
        }
        Action::Answer => Step::open(cookie::make(&config.keys, config.key, segment, now.seconds)),
        Action::Count | Action::Pass => Step::of(Act::Pass),
    };
    if action == Action::Answer
        && let Some(over) = limited(config, tables, segment, now, mode)
    {
        step = over;
        action = Action::Drop;
    } else if allowed {
        tables.count(Counter::Allowed);
    } else {
        match action {
            Action::Drop => tables.count(Counter::Dropped),
            Action::Count => tables.count(Counter::Counted),
            Action::Answer => tables.count(Counter::Answered),
            Action::Pass => {}
        }
    }
    let turn = tables.count_reason(found.reason, action);
    // The first hit of an entry is an event, as soon as one may be told; then one in many.
    let first = found.heard.get() == 0;
    if first || turn & ((1 << (config.sample_shift & 31)) - 1) == 0 {
        let Found { id, reason, list, place, wanted, .. } = found;
        let hit = Hit { id, reason, list, place, wanted, action, allowed, hits, first };
        if tables.event(&hit, segment, now.seconds) && first {
            found.heard.set(1);
        }
    }
    step
}

/// Whether the 554 may be given now; what forbids it is counted.
#[inline(always)]
fn answers<T: Tables>(config: &Config, tables: &T, segment: &Segment, now: Now) -> bool {
    if config.flags & FLAG_ANSWER == 0 || tables.accepting_until_s() <= now.seconds {
        tables.count(Counter::StoodDown);
        return false;
    }
    if segment.tags > 1 || segment.tags == 1 && config.flags & FLAG_TAGGED == 0 {
        tables.count(Counter::TagRefused);
        return false;
    }
    true
}

/// The first entry, of bans, hosts and networks, that asks for more than passing.
#[inline(always)]
fn find<'a, T: Tables>(
    config: &Config,
    tables: &'a T,
    source: &Address,
    now_s: u32,
) -> Option<Found<'a>> {
    let slot = config.slot();
    let asks = |entry: &'a Entry, place| {
        let wanted = Action::from_number(entry.action).min(config.ceiling(entry.list));
        let Entry { id, reason, list, ref heard, .. } = *entry;
        let found = Found { id, reason, list, place, wanted, heard, entry: Some(entry) };
        (wanted != Action::Pass && entry.live(now_s)).then_some(found)
    };
    if let Some(found) = tables.ban(source).and_then(|entry| asks(entry, 1)) {
        return Some(found);
    }
    if let Some(host) = tables.host(slot, source) {
        let wanted = Action::from_number(host.action).min(config.ceiling(host.list));
        if wanted != Action::Pass {
            let Host { id, reason, list, ref heard, .. } = *host;
            return Some(Found { id, reason, list, place: 2, wanted, heard, entry: None });
        }
    }
    tables.network(slot, source).and_then(|entry| asks(entry, 3))
}

/// Drops a SYN that is over its network's rate, unless allowed; counts it in a mode below drop.
#[inline(always)]
fn limited<T: Tables>(
    config: &Config,
    tables: &T,
    segment: &Segment,
    now: Now,
    mode: Action,
) -> Option<Step> {
    if config.flags & FLAG_BUCKET == 0 {
        return None;
    }
    let source = &segment.source;
    // No IPv6 source begins with 32 ones: these are IPv4's.
    let network = if source.six {
        source.high() & config.bucket_mask6
    } else {
        0xffff_ffff_0000_0000 | u64::from(source.words[0] & config.bucket_mask4)
    };
    let Some(bucket) = tables.bucket(network) else {
        tables.open_bucket(network, now.ticks + config.bucket_step);
        return None;
    };
    let until = bucket.get().max(now.ticks);
    if until - now.ticks <= config.bucket_room {
        bucket.set(until + config.bucket_step);
        return None;
    }
    if tables.allowed(config.slot(), source) {
        return None;
    }
    tables.count(Counter::Limited);
    (mode == Action::Drop).then_some(Step::of(Act::Drop))
}

/// The client acknowledged our SYN-ACK.
#[inline(always)]
fn opened<T: Tables>(config: &Config, tables: &T, segment: &Segment, now: Now) -> Step {
    let mode = Action::from_number(config.mode);
    if let Some(found) = find(config, tables, &segment.source, now.seconds)
        && found.wanted.min(mode) >= Action::Answer
        && tables.accepting_until_s() > now.seconds
        && !tables.allowed(config.slot(), &segment.source)
    {
        tables.count(Counter::Refused);
        return Step::refuse(&found);
    }
    // The listing lapsed, or the daemon stopped: the stack knows no such session and resets it.
    tables.count(Counter::Lapsed);
    Step::of(Act::Pass)
}

/// The client has the 554.
#[inline(always)]
fn refused<T: Tables>(tables: &T, segment: &Segment) -> Step {
    if segment.flags & FIN != 0 {
        tables.count(Counter::Finished);
        return Step::of(Act::Acknowledge);
    }
    if segment.data_bytes > 0 {
        return Step::of(Act::Acknowledge);
    }
    tables.count(Counter::Absorbed);
    Step::of(Act::Drop)
}
