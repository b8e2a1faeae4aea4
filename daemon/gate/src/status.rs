//! What the filter has done so far, in numbers.

use ebpf_common::count::Event;
use ebpf_common::entry::{Action, Listing};

/// One reading of all counters; they only ever grow while the maps live.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// Interfaces, and whether the filter runs in the driver there.
    pub attached: Vec<(String, bool)>,
    /// What an operator should know: generic mode, tags, standing down.
    pub notes: Vec<String>,
    /// Raised with every swap.
    pub generation: u32,
    /// Records in force, by table; all zero after a restart until the next swap.
    pub records: [u32; 6],
    /// By counter, in the order of `ebpf_common::count::COUNTERS`.
    pub counters: Vec<u64>,
    /// Reason, what was done, how often; only what happened.
    pub reasons: Vec<(u8, Action, u64)>,
    /// SYNs in the two commonest of 256 classes of sources, per mille of all.
    pub spread_permille: u32,
    /// What each table says of the address that was asked for: 1 ban, 2 host, 3 network,
    /// 4 allowed network; with hits and the second of the last. Hits of hosts are not kept: one
    /// if an event told of it.
    pub found: Vec<(u8, Listing, u32, u32)>,
    /// Sampled SYNs since the last status, the oldest first.
    pub events: Vec<Event>,
}

impl Status {
    /// Whether nearly all SYNs seem to come from one or two sources: a switch that hides the
    /// clients looks like that.
    #[must_use]
    pub const fn sources_hidden(&self) -> bool {
        self.spread_permille > 900
    }
}
