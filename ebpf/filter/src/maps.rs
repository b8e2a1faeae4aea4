//! The maps, and how the decision asks them.
//!
//! Lists stand in two slots of maps in maps; the third slot is never read: a store to it makes
//! the loader wait until every running program has ended.

use core::cell::Cell;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use ebpf_common::answer::Buffer;
use ebpf_common::config::Config;
use ebpf_common::count::{COUNTERS_ROWS, Counter, Event, REASONS_ROWS, reason_row};
use ebpf_common::entry::{Action, Entry, Host};
use ebpf_common::limits::{
    ANSWER_BYTES, BANS4_MAX, BANS6_MAX, BUCKETS_MAX, EVENTS_BYTES, EVENTS_S_MAX,
    REASONS_MAX, SEGMENTS_MAX,
    SPREAD_CLASSES,
};
use ebpf_common::packet::{Address, Segment};
use ebpf_common::text::Text;
use ebpf_common::verdict::{Hit, Tables};

const SLOTS: usize = 3;

#[btf_map]
static CONFIG: Array<Config, 1> = Array::new();
#[btf_map]
static ACCEPTING: Array<u32, 1> = Array::new();
#[btf_map]
static TEXTS: Array<Text, { REASONS_MAX * 2 }> = Array::new();
#[btf_map]
static SEGMENTS: HashMap<u64, u32, { SEGMENTS_MAX as usize }> = HashMap::new();
#[btf_map]
static BANS4: HashMap<u32, Entry, { BANS4_MAX as usize }> = HashMap::new();
#[btf_map]
static BANS6: HashMap<u64, Entry, { BANS6_MAX as usize }> = HashMap::new();
#[btf_map]
static HOSTS4: ArrayOfMaps<HashMap<u32, Host, 1>, SLOTS> = ArrayOfMaps::new();
#[btf_map]
static HOSTS6: ArrayOfMaps<HashMap<u64, Host, 1>, SLOTS> = ArrayOfMaps::new();
#[btf_map]
static NETWORKS4: ArrayOfMaps<LpmTrie<u32, Entry, 1>, SLOTS> = ArrayOfMaps::new();
#[btf_map]
static NETWORKS6: ArrayOfMaps<LpmTrie<[u32; 4], Entry, 1>, SLOTS> = ArrayOfMaps::new();
#[btf_map]
static ALLOWED4: ArrayOfMaps<LpmTrie<u32, Entry, 1>, SLOTS> = ArrayOfMaps::new();
#[btf_map]
static ALLOWED6: ArrayOfMaps<LpmTrie<[u32; 4], Entry, 1>, SLOTS> = ArrayOfMaps::new();
#[btf_map]
static BUCKETS: LruHashMap<u64, u64, { BUCKETS_MAX as usize }> = LruHashMap::new();
#[btf_map]
static COUNTERS: PerCpuArray<u64, { COUNTERS_ROWS as usize }> = PerCpuArray::new();
#[btf_map]
static REASONS: PerCpuArray<u64, { REASONS_ROWS as usize }> = PerCpuArray::new();
#[btf_map]
static SPREAD: PerCpuArray<u64, { SPREAD_CLASSES as usize }> = PerCpuArray::new();
#[btf_map]
static SCRATCH: PerCpuArray<[u64; ANSWER_BYTES / 8], 1> = PerCpuArray::new();
/// The second, and how many events were told in it.
#[btf_map]
static TOLD: PerCpuArray<[u32; 2], 1> = PerCpuArray::new();
#[btf_map]
static EVENTS: RingBuf<Event, { EVENTS_BYTES as usize }> = RingBuf::new();

#[inline(always)]
pub(crate) fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

#[inline(always)]
pub(crate) fn text(row: u32) -> Option<&'static Text> {
    TEXTS.get(row)
}

#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Buffer> {
    // SAFETY: this CPU's own row, and an XDP program is not interrupted by another on its CPU.
    SCRATCH.get_ptr_mut(0).map(|row| unsafe { &mut *row.cast() })
}

/// The interface by whose routes an answer must leave: for an untagged frame the one it came in
/// by, unless the loader knows better (a bridge, a bond); for a tagged one what the loader knows.
#[inline(always)]
pub(crate) fn segment(interface: u32, segment: &Segment) -> Option<u32> {
    let vlan = if segment.tags == 0 { 0xffff } else { segment.tag & 0x0fff };
    let key = u64::from(interface) << 16 | u64::from(vlan);
    // SAFETY: four octets, replaced as a whole.
    match unsafe { SEGMENTS.get(&key) } {
        Some(out) => Some(*out),
        None if segment.tags == 0 => Some(interface),
        None => None,
    }
}

/// The maps as the decision sees them, for one frame.
pub(crate) struct Maps {
    pub(crate) context: *mut xdp_md,
    pub(crate) interface: u32,
}

#[inline(always)]
fn add_one(row: Option<*mut u64>) {
    if let Some(row) = row {
        // SAFETY: this CPU's own row.
        unsafe { *row += 1 };
    }
}

/// An entry of a map. Other CPUs may change its counters at the same time, each as one word.
#[inline(always)]
fn entry<'a>(found: Option<*mut Entry>) -> Option<&'a Entry> {
    // SAFETY: the kernel keeps the element's memory for as long as the program runs.
    found.map(|entry| unsafe { &*entry })
}

impl Tables for Maps {
    #[inline(always)]
    fn ban(&self, source: &Address) -> Option<&Entry> {
        if source.six {
            entry(BANS6.get_ptr_mut(&source.high()))
        } else {
            entry(BANS4.get_ptr_mut(&source.words[0]))
        }
    }

    #[inline(always)]
    fn host(&self, slot: u32, source: &Address) -> Option<&Host> {
        let found = if source.six {
            HOSTS6.get_value_ptr_mut(slot, &source.high())
        } else {
            HOSTS4.get_value_ptr_mut(slot, &source.words[0])
        };
        // SAFETY: as in `entry`.
        found.map(|host| unsafe { &*host })
    }

    #[inline(always)]
    fn network(&self, slot: u32, source: &Address) -> Option<&Entry> {
        if source.six {
            let key = Key::new(128, source.words.map(u32::to_be));
            entry(NETWORKS6.get_value_ptr_mut(slot, &key))
        } else {
            let key = Key::new(32, source.words[0].to_be());
            entry(NETWORKS4.get_value_ptr_mut(slot, &key))
        }
    }

    #[inline(always)]
    fn allowed(&self, slot: u32, source: &Address) -> bool {
        if source.six {
            let key = Key::new(128, source.words.map(u32::to_be));
            ALLOWED6.get_value_ptr_mut(slot, &key).is_some()
        } else {
            let key = Key::new(32, source.words[0].to_be());
            ALLOWED4.get_value_ptr_mut(slot, &key).is_some()
        }
    }

    #[inline(always)]
    fn bucket(&self, network: u64) -> Option<&Cell<u64>> {
        // SAFETY: eight aligned octets; a CPU that overwrites another's word forgets one SYN.
        BUCKETS.get_ptr_mut(&network).map(|word| unsafe { &*word.cast() })
    }

    #[inline(always)]
    fn open_bucket(&self, network: u64, until: u64) {
        let _ = BUCKETS.insert(&network, &until, 0);
    }

    #[inline(always)]
    fn accepting_until_s(&self) -> u32 {
        ACCEPTING.get(0).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        add_one(COUNTERS.get_ptr_mut(counter as u32));
    }

    #[inline(always)]
    fn count_reason(&self, reason: u8, action: Action) -> u32 {
        let Some(row) = REASONS.get_ptr_mut(reason_row(reason, action)) else { return 0 };
        // SAFETY: this CPU's own row.
        let before = unsafe { *row };
        // SAFETY: as above.
        unsafe { *row = before + 1 };
        before as u32
    }

    #[inline(always)]
    fn spread(&self, class: u32) {
        add_one(SPREAD.get_ptr_mut(class % SPREAD_CLASSES));
    }

    #[inline(always)]
    fn event(&self, hit: &Hit, segment: &Segment, now_s: u32) -> bool {
        let event = Event {
            source: segment.source.words,
            now_s,
            id: hit.id,
            hits: hit.hits,
            interface: self.interface,
            source_port: segment.source_port,
            destination_port: segment.destination_port,
            family: if segment.source.six { 6 } else { 4 },
            reason: hit.reason,
            list: hit.list,
            action: hit.action as u8,
            wanted: hit.wanted as u8,
            place: hit.place,
            allowed: hit.allowed as u8,
            first: hit.first as u8,
        };
        let told = may_tell(now_s) && EVENTS.output(&event, 0).is_ok();
        if !told {
            self.count(Counter::EventLost);
        }
        told
    }
}

/// Whether this CPU may tell one more event in this second.
#[inline(always)]
fn may_tell(now_s: u32) -> bool {
    let Some(row) = TOLD.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's own row.
    let [second, told] = unsafe { *row };
    let told = if second == now_s { told } else { 0 };
    if told >= EVENTS_S_MAX {
        return false;
    }
    // SAFETY: as above.
    unsafe { *row = [now_s, told + 1] };
    true
}
