//! Message ids: given at accept, never changed, readable in every log line.
//!
//! *Limits*: 16 bit of node, 24 of run, 8 of core, 48 of counter; 20 characters.

use std::fmt;
use std::str::FromStr;

use crate::bytes::{Malformed, Reader, put_varint, put_varint64, step, stepped};

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters of a session id.
pub const ID_CHARS: usize = 20;
/// Largest run number.
pub const RUN_MAX: u32 = (1 << 24) - 1;
/// Largest counter.
pub const COUNTER_MAX: u64 = (1 << 48) - 1;
/// Bytes of the way from one id to another: counter, node with run and core, number.
pub(crate) const ID_STEP_MAX: usize = 8 + 6 + 5;

/// Id of a session, and of the messages it carries: node, run, core, counter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MessageId([u8; 12]);

impl MessageId {
    /// Packs the four parts; the run keeps its low 24 bits, the counter its low 48.
    #[must_use]
    pub fn new(node: u16, run: u32, core: u8, counter: u64) -> Self {
        let mut b = [0; 12];
        b[..2].copy_from_slice(&node.to_be_bytes());
        b[2..5].copy_from_slice(&run.to_be_bytes()[1..]);
        b[5] = core;
        b[6..].copy_from_slice(&counter.to_be_bytes()[2..]);
        Self(b)
    }

    /// The twelve bytes as stored.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 12] {
        self.0
    }

    /// An id from its stored bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// The node that gave the id.
    #[must_use]
    pub fn node(self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// The run (start of the daemon) in which it was given.
    #[must_use]
    pub fn run(self) -> u32 {
        u32::from_be_bytes([0, self.0[2], self.0[3], self.0[4]])
    }

    /// The core that gave it.
    #[must_use]
    pub fn core(self) -> u8 {
        self.0[5]
    }

    /// Its number among the ids of that core in that run.
    #[must_use]
    pub fn counter(self) -> u64 {
        let mut b = [0; 8];
        b[2..].copy_from_slice(&self.0[6..]);
        u64::from_be_bytes(b)
    }

    /// The 20 characters, without allocation.
    #[must_use]
    pub fn to_chars(self) -> [u8; ID_CHARS] {
        let mut value = [0; 16];
        value[4..].copy_from_slice(&self.0);
        let value = u128::from_be_bytes(value);
        let mut out = [0; ID_CHARS];
        for (i, c) in out.iter_mut().enumerate() {
            let shift = 5 * (ID_CHARS - 1 - i);
            *c = ALPHABET[usize::try_from((value >> shift) & 31).expect("five bits")];
        }
        out
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chars = self.to_chars();
        f.write_str(std::str::from_utf8(&chars).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadId;

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a message id (20 characters, or 20 characters, a dot and a number)")
    }
}

impl std::error::Error for BadId {}

impl FromStr for MessageId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        if text.len() != ID_CHARS {
            return Err(BadId);
        }
        let mut value: u128 = 0;
        for c in text.bytes() {
            let digit = ALPHABET.iter().position(|a| *a == c.to_ascii_uppercase()).ok_or(BadId)?;
            value = (value << 5) | u128::try_from(digit).map_err(|_| BadId)?;
        }
        let bytes = value.to_be_bytes();
        if bytes[..4] != [0; 4] {
            return Err(BadId);
        }
        let mut id = [0; 12];
        id.copy_from_slice(&bytes[4..]);
        Ok(Self(id))
    }
}

/// The n-th transaction of a session: what names one message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TransactionId {
    /// The session's id.
    pub session: MessageId,
    /// Which of its transactions, from 1.
    pub n: u32,
}

impl TransactionId {
    /// No message has it.
    pub const NONE: Self = Self { session: MessageId([0; 12]), n: 0 };

    /// Sixteen bytes: session, then n (little-endian).
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut b = [0; 16];
        b[..12].copy_from_slice(&self.session.0);
        b[12..].copy_from_slice(&self.n.to_le_bytes());
        b
    }

    /// Appends the way to it from another id: 2 to 4 bytes between those of one core and run, at
    /// most [`ID_STEP_MAX`].
    pub(crate) fn put_after(self, before: Self, out: &mut Vec<u8>) {
        let (to, from) = (self.session, before.session);
        let elsewhere = to.0[..6] != from.0[..6];
        put_varint64(out, step(from.counter(), to.counter()) << 1 | u64::from(elsewhere));
        if elsewhere {
            out.extend_from_slice(&to.0[..6]);
        }
        put_varint(out, self.n);
    }

    /// Reads what `put_after` appended.
    pub(crate) fn read_after(before: Self, r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let coded = r.varint64()?;
        let counter = stepped(before.session.counter(), coded >> 1);
        if counter > COUNTER_MAX {
            return Err(Malformed);
        }
        let place: [u8; 6] = if coded & 1 == 0 {
            before.session.0[..6].try_into().map_err(|_| Malformed)?
        } else {
            r.array()?
        };
        let mut session = [0; 12];
        session[..6].copy_from_slice(&place);
        session[6..].copy_from_slice(&counter.to_be_bytes()[2..]);
        Ok(Self { session: MessageId(session), n: r.varint()? })
    }

    /// From its stored bytes.
    #[must_use]
    pub fn from_bytes(b: [u8; 16]) -> Self {
        let mut id = [0; 12];
        id.copy_from_slice(&b[..12]);
        Self { session: MessageId(id), n: u32::from_le_bytes([b[12], b[13], b[14], b[15]]) }
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session, self.n)
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TransactionId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let (id, n) = text.split_once('.').ok_or(BadId)?;
        let digits = !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit());
        if !digits || (n.len() > 1 && n.starts_with('0')) {
            return Err(BadId);
        }
        Ok(Self { session: id.parse()?, n: n.parse().map_err(|_| BadId)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_has_twenty_characters_and_sorts_like_the_parts() {
        let a = MessageId::new(1, 2, 3, 4);
        let b = MessageId::new(1, 2, 3, 5);
        assert_eq!(a.to_string().len(), ID_CHARS);
        assert!(a.to_string() < b.to_string());
        assert_eq!(MessageId::default().to_string(), "00000000000000000000");
        let top = MessageId::new(u16::MAX, RUN_MAX, u8::MAX, COUNTER_MAX);
        assert_eq!(top.to_string(), "1ZZZZZZZZZZZZZZZZZZZ");
        assert!("2ZZZZZZZZZZZZZZZZZZZ".parse::<MessageId>().is_err());
        assert!("U0000000000000000000".parse::<MessageId>().is_err());
        assert!("00000000000000000000.01".parse::<TransactionId>().is_err());
        assert!("00000000000000000000.+1".parse::<TransactionId>().is_err());
    }

    proptest! {
        #[test]
        fn the_way_from_one_to_another(a: [u8; 16], b: [u8; 16], near: u8) {
            let (a, b) = (TransactionId::from_bytes(a), TransactionId::from_bytes(b));
            let session = a.session;
            let counter = session.counter().saturating_add(u64::from(near)).min(COUNTER_MAX);
            let next = MessageId::new(session.node(), session.run(), session.core(), counter);
            for to in [a, b, TransactionId { session: next, n: 3 }] {
                let mut out = Vec::new();
                to.put_after(a, &mut out);
                prop_assert!(out.len() <= ID_STEP_MAX);
                prop_assert!(to.session != next || to.n != 3 || out.len() <= 4);
                let mut r = Reader::new(&out);
                prop_assert_eq!(TransactionId::read_after(a, &mut r), Ok(to));
                prop_assert!(r.is_empty());
            }
        }

        #[test]
        fn parts_and_text_survive(node: u16, run in 0..=RUN_MAX, core: u8, counter in 0..=COUNTER_MAX, n: u32) {
            let id = MessageId::new(node, run, core, counter);
            prop_assert_eq!((id.node(), id.run(), id.core(), id.counter()), (node, run, core, counter));
            prop_assert_eq!(id.to_string().parse::<MessageId>(), Ok(id));
            prop_assert_eq!(id.to_string().to_lowercase().parse::<MessageId>(), Ok(id));
            let t = TransactionId { session: id, n };
            prop_assert_eq!(t.to_string().parse::<TransactionId>(), Ok(t));
            prop_assert_eq!(TransactionId::from_bytes(t.to_bytes()), t);
        }
    }
}
