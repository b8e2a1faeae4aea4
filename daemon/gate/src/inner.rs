//! The maps of one set of lists: made aside, filled, and only then put in a slot.
//!
//! Linux 6.1 takes an inner map only if it was made with type information like its template's:
//! a value that is a structure. So each is made with a small table of types of our own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ebpf_common::entry::{ENTRY_BYTES, HOST_BYTES, Listing};
use ebpf_common::packet::Address;
use ebpf_common::set::{Record, Set, SetError, TABLES, Table};

use crate::map::Map;
use crate::problem::{Problem, call};
use crate::sys::{self, MapCreate};

const KIND_HASH: u32 = 1;
const KIND_TRIE: u32 = 11;
const NO_PREALLOC: u32 = 1;

/// From this many records on a table is filled by several threads.
const PARALLEL_MIN: usize = 100_000;
const THREADS_MAX: usize = 4;

/// Types: 1 `u32`, 2 `u64`, 3 `u32[4]`, 4 `u32[5]`, 5 and 6 the keys of tries, 7 an entry,
/// 8 `u32[2]`, 9 a host.
fn types() -> Vec<u8> {
    let names = b"\0u32\0u64\0key\0bits\0data\0";
    let integer = |name: u32, bytes: u32| vec![name, 1 << 24, bytes, bytes * 8];
    let array = |count: u32| vec![0, 3 << 24, 0, 1, 1, count];
    let key = |bytes: u32, data: u32| vec![9, 4 << 24 | 2, bytes, 13, 1, 0, 18, data, 32];
    let value = |bytes: u32, data: u32| vec![9, 4 << 24 | 1, bytes, 18, data, 0];
    let first = [integer(1, 4), integer(5, 8), array(4), array(5), key(8, 1), key(20, 3)].concat();
    let words = [first, value(20, 4), array(2), value(8, 8)].concat();
    let bytes = |n: usize| u32::try_from(n).expect("a small table").to_ne_bytes();
    let mut out = Vec::new();
    out.extend(0xeb9f_u16.to_ne_bytes());
    out.extend([1, 0]);
    out.extend(24_u32.to_ne_bytes());
    out.extend(0_u32.to_ne_bytes());
    out.extend(bytes(words.len() * 4));
    out.extend(bytes(words.len() * 4));
    out.extend(bytes(names.len()));
    out.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    out.extend(names);
    out
}

/// Octets of each table's keys and values, and the types of both.
const fn shape(table: Table) -> [usize; 4] {
    match table {
        Table::Hosts4 => [4, HOST_BYTES, 1, 9],
        Table::Hosts6 => [8, HOST_BYTES, 2, 9],
        Table::Networks4 | Table::Allowed4 => [8, ENTRY_BYTES, 5, 7],
        Table::Networks6 | Table::Allowed6 => [20, ENTRY_BYTES, 6, 7],
    }
}

fn create(types: BorrowedFd<'_>, table: Table, entries: u32) -> io::Result<OwnedFd> {
    let shape = shape(table).map(|n| u32::try_from(n).expect("small"));
    let [key_bytes, value_bytes, btf_key, btf_value] = shape;
    let hash = matches!(table, Table::Hosts4 | Table::Hosts6);
    let mut name = [0; 16];
    name[..8].copy_from_slice(b"ringpost");
    let attribute = MapCreate {
        kind: if hash { KIND_HASH } else { KIND_TRIE },
        key_bytes,
        value_bytes,
        entries_max: entries.max(1),
        // Freeing a million elements one by one takes a core half a second; a table that was
        // taken whole goes back whole.
        flags: if hash { 0 } else { NO_PREALLOC },
        name,
        btf_key,
        btf_value,
        ..MapCreate::default()
    };
    sys::map_create(attribute, types)
}

/// The key of a trie: the prefix's length, then the address in network order.
fn trie_key<const K: usize>(address: &Address, bits: u8) -> [u8; K] {
    let mut key = [0; K];
    key[..4].copy_from_slice(&u32::from(bits).to_ne_bytes());
    for (to, word) in key[4..].chunks_exact_mut(4).zip(address.words) {
        to.copy_from_slice(&word.to_be_bytes());
    }
    key
}

fn host_key<const K: usize>(address: &Address) -> [u8; K] {
    let mut key = [0; K];
    if address.six {
        key.copy_from_slice(&address.high().to_ne_bytes());
    } else {
        key.copy_from_slice(&address.words[0].to_ne_bytes());
    }
    key
}

/// Fills one map; a record that is out of range stops it.
fn fill<const K: usize, const V: usize>(
    map: &Map<K, V>,
    records: impl Iterator<Item = Result<Record, SetError>>,
    make: impl Fn(&Record) -> ([u8; K], [u8; V]),
) -> Result<(), Problem> {
    let mut wrong = None;
    let entries = records.map_while(|record| match record {
        Ok(record) => Some(make(&record)),
        Err(error) => {
            wrong = Some(error);
            None
        }
    });
    map.put_all(entries).map_err(call("filling a list"))?;
    Ok(wrong.map_or(Ok(()), Err)?)
}

/// Fills one map of hosts, a large one by several threads. Each host is always the same thread's:
/// of two records about one host the later stays.
fn fill_hosts<const K: usize>(
    fd: OwnedFd,
    set: &Set<'_>,
    table: Table,
) -> Result<OwnedFd, Problem> {
    let map = Map::<K, HOST_BYTES>::new(fd);
    let make = |r: &Record| (host_key(&r.address), r.listing.to_host());
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    if (set.count(table) as usize) < PARALLEL_MIN || threads == 1 {
        fill(&map, set.records(table), make)?;
        return Ok(map.into_fd());
    }
    let whose = |r: &Record| (r.address.words[0] ^ r.address.words[1]) as usize % threads;
    let fill_part = |n| {
        // What is out of range stops every thread.
        let mine = |r: &Result<Record, SetError>| r.as_ref().map_or(true, |r| whose(r) == n);
        fill(&map, set.records(table).filter(mine), make)
    };
    let fill_part = &fill_part;
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads).map(|n| scope.spawn(move || fill_part(n))).collect();
        let lost = |_| Problem::Setting("a thread that fills a list");
        parts.into_iter().try_for_each(|part| part.join().map_err(lost)?)
    })?;
    Ok(map.into_fd())
}

fn fill_networks<const K: usize>(
    fd: OwnedFd,
    set: &Set<'_>,
    table: Table,
) -> Result<OwnedFd, Problem> {
    let map = Map::<K, ENTRY_BYTES>::new(fd);
    let make = |r: &Record| (trie_key(&r.address, r.bits), r.listing.to_entry());
    fill(&map, set.records(table), make)?;
    Ok(map.into_fd())
}

/// The six maps of a set, in the order of [`TABLES`].
#[derive(Debug)]
pub(crate) struct Inner {
    maps: [OwnedFd; 6],
}

impl Inner {
    /// Makes and fills all six.
    pub(crate) fn build(set: &Set<'_>) -> Result<Self, Problem> {
        let types = sys::btf_load(&types()).map_err(call("types of the lists"))?;
        let make = |table| {
            let fd =
                create(types.as_fd(), table, set.count(table)).map_err(call("making a list"))?;
            match table {
                Table::Hosts4 => fill_hosts::<4>(fd, set, table),
                Table::Hosts6 => fill_hosts::<8>(fd, set, table),
                Table::Networks4 | Table::Allowed4 => fill_networks::<8>(fd, set, table),
                Table::Networks6 | Table::Allowed6 => fill_networks::<20>(fd, set, table),
            }
        };
        let [a, b, c, d, e, f] = TABLES;
        Ok(Self { maps: [make(a)?, make(b)?, make(c)?, make(d)?, make(e)?, make(f)?] })
    }

    pub(crate) fn maps(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.maps.iter().map(AsFd::as_fd)
    }

    /// What a table says of an address, with hits and the second of the last; of a host only
    /// whether an event told of it, as one hit.
    pub(crate) fn find(
        &self,
        table: Table,
        address: &Address,
    ) -> io::Result<Option<(Listing, u32, u32)>> {
        if table.six() != address.six {
            return Ok(None);
        }
        let fd = self.maps[table as usize].as_fd();
        let (mut host, mut entry) = ([0; HOST_BYTES], [0; ENTRY_BYTES]);
        let found = match table {
            Table::Hosts4 => sys::map_lookup(fd, &host_key::<4>(address), &mut host),
            Table::Hosts6 => sys::map_lookup(fd, &host_key::<8>(address), &mut host),
            Table::Networks4 | Table::Allowed4 => {
                sys::map_lookup(fd, &trie_key::<8>(address, 32), &mut entry)
            }
            Table::Networks6 | Table::Allowed6 => {
                sys::map_lookup(fd, &trie_key::<20>(address, 128), &mut entry)
            }
        }?;
        Ok(found.then(|| match table {
            Table::Hosts4 | Table::Hosts6 => {
                let (listing, heard) = Listing::from_host(&host);
                (listing, u32::from(heard), 0)
            }
            _ => Listing::from_entry(&entry),
        }))
    }
}
