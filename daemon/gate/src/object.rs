//! The committed object, loaded; its maps by name.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::maps::{Map as AyaMap, MapData, RingBuf};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};

use crate::kernel::Facts;
use crate::problem::{Problem, call};

/// The object that `ebpf/rebuild` makes and checks.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/filter/ringpost.bpf.o");

/// Maps that are pinned, so that they outlive the gate.
const PINNED: [&str; 16] = [
    "CONFIG",
    "ACCEPTING",
    "TEXTS",
    "SEGMENTS",
    "BANS4",
    "BANS6",
    "HOSTS4",
    "HOSTS6",
    "NETWORKS4",
    "NETWORKS6",
    "ALLOWED4",
    "ALLOWED6",
    "BUCKETS",
    "COUNTERS",
    "REASONS",
    "SPREAD",
];

/// The loaded program with its maps.
pub(crate) struct Object {
    ebpf: Ebpf,
    events: Option<RingBuf<MapData>>,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.ebpf.fmt(f)
    }
}

impl Object {
    /// Loads it over the maps pinned in this folder, making those that are missing.
    pub(crate) fn load(facts: Facts, pins: Option<&Path>) -> Result<Self, Problem> {
        let mut loader = EbpfLoader::new();
        loader.override_global("HZ", &facts.hz, true);
        loader.override_global("JIFFIES_START", &facts.jiffies_start, true);
        if let Some(pins) = pins {
            for name in PINNED {
                loader.map_pin_path(name, pins.join(name));
            }
        }
        let load = |e: &dyn std::fmt::Display| Problem::Load(e.to_string());
        let mut ebpf = loader.load(OBJECT).map_err(|e| load(&chain(&e)))?;
        let program: &mut Xdp = program(&mut ebpf)?;
        program.load().map_err(|e| load(&chain(&e)))?;
        let events = ebpf.take_map("EVENTS").and_then(|map| RingBuf::try_from(map).ok());
        Ok(Self { ebpf, events })
    }

    pub(crate) fn program(&mut self) -> Result<&mut Xdp, Problem> {
        program(&mut self.ebpf)
    }

    /// A descriptor of a map of its own.
    pub(crate) fn map(&self, name: &'static str) -> Result<OwnedFd, Problem> {
        let map = self.ebpf.map(name).and_then(descriptor);
        let map = map.ok_or_else(|| Problem::Load(format!("no map {name}")))?;
        map.try_clone_to_owned().map_err(call("a descriptor of a map"))
    }

    /// The next event's octets.
    pub(crate) fn event(&mut self) -> Option<Vec<u8>> {
        self.events.as_mut()?.next().map(|octets| octets.to_vec())
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, Problem> {
    let program = ebpf.program_mut("ringpost").ok_or_else(|| Problem::Load("no program".into()))?;
    program.try_into().map_err(|e| Problem::Load(chain(&e)))
}

fn descriptor(map: &AyaMap) -> Option<BorrowedFd<'_>> {
    match map {
        AyaMap::Array(map)
        | AyaMap::ArrayOfMaps(map)
        | AyaMap::HashMap(map)
        | AyaMap::LruHashMap(map)
        | AyaMap::PerCpuArray(map)
        | AyaMap::RingBuf(map) => Some(map.fd().as_fd()),
        _ => None,
    }
}

/// An error with all that caused it, in one line where the causes are.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
