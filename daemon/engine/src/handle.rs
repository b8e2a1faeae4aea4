//! Handles, the slab behind them, and the word that comes back with a completion.
//!
//! *Guarantees*: a handle names one object for ever. A slot is used again only after the kernel
//! gave back every request on it, and then under a new generation: a stale handle or a stale
//! completion finds nothing.

use std::fmt;

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name {
            index: u32,
            generation: u32,
        }

        impl $name {
            pub(crate) const fn new((index, generation): (u32, u32)) -> Self {
                Self { index, generation }
            }

            pub(crate) const fn key(self) -> (u32, u32) {
                (self.index, self.generation)
            }

            /// Slot number: dense, from 0, below the bound in the configuration. A caller keeps
            /// its own state in a vector beside it.
            #[must_use]
            pub const fn index(self) -> usize {
                self.index as usize
            }

            /// Which use of the slot this is.
            #[must_use]
            pub const fn generation(self) -> u32 {
                self.generation
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}.{})"), self.index, self.generation)
            }
        }
    };
}

handle! {
    /// A connection, accepted or made.
    Conn
}
handle! {
    /// A listening socket of this core.
    Listener
}
handle! {
    /// A connected socket for datagrams.
    Udp
}
handle! {
    /// A file or block device whose descriptor the core owns.
    File
}
handle! {
    /// A timer that was set and not cancelled.
    Timer
}

/// Slots with generations, handed out lowest-used first and never more than `max`.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    max: u32,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

/// Generation bits that fit into a completion's word.
const GENERATION_MASK: u32 = 0x00ff_ffff;

impl<T> Slab<T> {
    pub(crate) fn new(max: u32) -> Self {
        Self { entries: Vec::new(), free: Vec::new(), max }
    }

    /// Number of slots in use.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty() && self.entries.len() >= self.max as usize
    }

    /// Puts a value into a free slot and returns its key, or gives it back when all are in use.
    pub(crate) fn insert(&mut self, value: T) -> Result<(u32, u32), T> {
        if let Some(index) = self.free.pop() {
            let entry = &mut self.entries[index as usize];
            entry.value = Some(value);
            return Ok((index, entry.generation));
        }
        let Ok(index) = u32::try_from(self.entries.len()) else { return Err(value) };
        if index >= self.max {
            return Err(value);
        }
        self.entries.push(Entry { generation: 1, value: Some(value) });
        Ok((index, 1))
    }

    pub(crate) fn get(&self, (index, generation): (u32, u32)) -> Option<&T> {
        let entry = self.entries.get(index as usize)?;
        if entry.generation == generation { entry.value.as_ref() } else { None }
    }

    pub(crate) fn get_mut(&mut self, (index, generation): (u32, u32)) -> Option<&mut T> {
        let entry = self.entries.get_mut(index as usize)?;
        if entry.generation == generation { entry.value.as_mut() } else { None }
    }

    /// The slot a completion names, if the generation in its word is still the living one.
    pub(crate) fn resolve(&self, word: Word) -> Option<(u32, u32)> {
        let entry = self.entries.get(word.index as usize)?;
        let living = entry.generation & GENERATION_MASK == word.generation;
        (living && entry.value.is_some()).then_some((word.index, entry.generation))
    }

    /// Frees the slot; its next use has another generation.
    pub(crate) fn remove(&mut self, (index, generation): (u32, u32)) -> Option<T> {
        let entry = self.entries.get_mut(index as usize)?;
        if entry.generation != generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(index);
        Some(value)
    }

    /// Keys of all slots in use.
    pub(crate) fn keys(&self) -> Vec<(u32, u32)> {
        let living = self.entries.iter().enumerate().filter(|(_, entry)| entry.value.is_some());
        living
            .filter_map(|(index, entry)| Some((u32::try_from(index).ok()?, entry.generation)))
            .collect()
    }
}

/// What a completion is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    /// Nobody waits for it: cancellations, refusals, wake-ups.
    Ignored,
    Accept,
    Socket,
    Connect,
    Receive,
    Send,
    Shutdown,
    Close,
    DatagramReceive,
    DatagramSend,
    Disk,
    Wake,
}

const OPS: [Op; 12] = [
    Op::Ignored,
    Op::Accept,
    Op::Socket,
    Op::Connect,
    Op::Receive,
    Op::Send,
    Op::Shutdown,
    Op::Close,
    Op::DatagramReceive,
    Op::DatagramSend,
    Op::Disk,
    Op::Wake,
];

/// The 64 bits that go with a request and come back with its completion: operation (8),
/// generation (24), index (32).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) op: Op,
    pub(crate) generation: u32,
    pub(crate) index: u32,
}

impl Word {
    pub(crate) const fn pack(op: Op, (index, generation): (u32, u32)) -> u64 {
        ((op as u64) << 56) | (((generation & GENERATION_MASK) as u64) << 32) | index as u64
    }

    pub(crate) fn unpack(word: u64) -> Option<Self> {
        let bytes = word.to_be_bytes();
        let op = *OPS.get(usize::from(bytes[0]))?;
        let generation = u32::from_be_bytes([0, bytes[1], bytes[2], bytes[3]]);
        let index = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        Some(Self { op, generation, index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_round_trip() {
        for (number, op) in OPS.into_iter().enumerate() {
            assert_eq!(op as usize, number);
            let word = Word::pack(op, (u32::MAX - 1, 0x0112_3456));
            assert_eq!(
                Word::unpack(word),
                Some(Word { op, generation: 0x12_3456, index: u32::MAX - 1 })
            );
        }
        assert_eq!(Word::unpack(u64::MAX), None);
    }

    #[test]
    fn a_stale_key_or_word_finds_nothing() {
        let mut slab = Slab::new(1);
        let first = slab.insert("first").unwrap();
        assert_eq!(slab.insert("none left"), Err("none left"));
        let word = Word::unpack(Word::pack(Op::Send, first)).unwrap();
        assert_eq!(slab.resolve(word), Some(first));
        assert_eq!(slab.remove(first), Some("first"));
        assert_eq!(slab.resolve(word), None);
        let second = slab.insert("second").unwrap();
        assert_eq!(second.0, first.0);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.resolve(word), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"second"));
    }
}
