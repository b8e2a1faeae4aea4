//! The maps of one set of lists: made aside, filled, and only then put in a slot.
//!
//! Linux 6.1 takes an inner map only if it was made with type information like its template's:
//! a value that is a structure. So each is made with a small table of types of our own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ebpf_common::entry::{ENTRY_BYTES, Listing};
use ebpf_common::packet::Address;
use ebpf_common::set::{Record, Set, SetError, TABLES, Table};

use crate::map::Map;
use crate::problem::{Problem, call};
use crate::sys::{self, MapCreate};

const KIND_HASH: u32 = 1;
const KIND_TRIE: u32 = 11;
const NO_PREALLOC: u32 = 1;

/// Types: 1 `u32`, 2 `u64`, 3 `u32[4]`, 4 `u32[5]`, 5 and 6 the keys of tries, 7 an entry.
fn types() -> Vec<u8> {
    let names = b"\0u32\0u64\0key\0bits\0data\0";
    let integer = |name: u32, bytes: u32| vec![name, 1 << 24, bytes, bytes * 8];
    let array = |count: u32| vec![0, 3 << 24, 0, 1, 1, count];
    let key = |bytes: u32, data: u32| vec![9, 4 << 24 | 2, bytes, 13, 1, 0, 18, data, 32];
    let entry = vec![9, 4 << 24 | 1, 20, 18, 4, 0];
    let words: Vec<u32> =
        [integer(1, 4), integer(5, 8), array(4), array(5), key(8, 1), key(20, 3), entry].concat();
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

/// Key octets of each table, and its types.
const fn shape(table: Table) -> (u32, u32) {
    match table {
        Table::Hosts4 => (4, 1),
        Table::Hosts6 => (8, 2),
        Table::Networks4 | Table::Allowed4 => (8, 5),
        Table::Networks6 | Table::Allowed6 => (20, 6),
    }
}

fn create(types: BorrowedFd<'_>, table: Table, entries: u32) -> io::Result<OwnedFd> {
    let (key_bytes, btf_key) = shape(table);
    let hash = matches!(table, Table::Hosts4 | Table::Hosts6);
    let mut name = [0; 16];
    name[..8].copy_from_slice(b"ringpost");
    let attribute = MapCreate {
        kind: if hash { KIND_HASH } else { KIND_TRIE },
        key_bytes,
        value_bytes: u32::try_from(ENTRY_BYTES).expect("an entry is small"),
        entries_max: entries.max(1),
        // Freeing a million elements one by one takes a core half a second; a table that was
        // taken whole goes back whole.
        flags: if hash { 0 } else { NO_PREALLOC },
        name,
        btf_key,
        btf_value: 7,
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
fn fill<const K: usize>(
    fd: OwnedFd,
    records: impl Iterator<Item = Result<Record, SetError>>,
    key: impl Fn(&Record) -> [u8; K],
) -> Result<OwnedFd, Problem> {
    let map = Map::<K, ENTRY_BYTES>::new(fd);
    let mut wrong = None;
    let entries = records.map_while(|record| match record {
        Ok(record) => Some((key(&record), record.listing.to_entry())),
        Err(error) => {
            wrong = Some(error);
            None
        }
    });
    map.put_all(entries).map_err(call("filling a list"))?;
    wrong.map_or(Ok(()), Err)?;
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
            let records = set.records(table);
            match table {
                Table::Hosts4 => fill::<4>(fd, records, |r| host_key(&r.address)),
                Table::Hosts6 => fill::<8>(fd, records, |r| host_key(&r.address)),
                Table::Networks4 | Table::Allowed4 => {
                    fill::<8>(fd, records, |r| trie_key(&r.address, r.bits))
                }
                Table::Networks6 | Table::Allowed6 => {
                    fill::<20>(fd, records, |r| trie_key(&r.address, r.bits))
                }
            }
        };
        let [a, b, c, d, e, f] = TABLES;
        Ok(Self { maps: [make(a)?, make(b)?, make(c)?, make(d)?, make(e)?, make(f)?] })
    }

    pub(crate) fn maps(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.maps.iter().map(AsFd::as_fd)
    }

    /// What a table says of an address, with hits and the second of the last.
    pub(crate) fn find(
        &self,
        table: Table,
        address: &Address,
    ) -> io::Result<Option<(Listing, u32, u32)>> {
        if table.six() != address.six {
            return Ok(None);
        }
        let fd = self.maps[table as usize].as_fd();
        let mut entry = [0; ENTRY_BYTES];
        let found = match table {
            Table::Hosts4 => sys::map_lookup(fd, &host_key::<4>(address), &mut entry),
            Table::Hosts6 => sys::map_lookup(fd, &host_key::<8>(address), &mut entry),
            Table::Networks4 | Table::Allowed4 => {
                sys::map_lookup(fd, &trie_key::<8>(address, 32), &mut entry)
            }
            Table::Networks6 | Table::Allowed6 => {
                sys::map_lookup(fd, &trie_key::<20>(address, 128), &mut entry)
            }
        }?;
        Ok(found.then(|| Listing::from_entry(&entry)))
    }
}
