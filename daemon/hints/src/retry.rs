//! When a next hop or a recipient domain is tried again, and what it said last.
//!
//! *Not here*: the delays themselves; the caller's retry rule gives the next time.

use crate::bits;
use crate::limits::{REPLY_OCTETS_MAX, VALUE_WORDS};

/// Layout version of this record.
pub(crate) const LAYOUT: u8 = 1;
pub(crate) const WORDS: usize = 5 + REPLY_OCTETS_MAX / 8;
const _: () = assert!(WORDS <= VALUE_WORDS);

/// The retry state of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// First failure of this run of failures, wall microseconds.
    pub first_us: u64,
    /// Last attempt.
    pub last_us: u64,
    /// Not before this time again.
    pub next_us: u64,
    /// Failures in a row.
    pub tries: u32,
    /// What it said.
    pub reply: Reply,
}

/// The last reply, cut to what a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The SMTP code, 0 if there was no reply (refused, timed out).
    pub code: u16,
    /// The enhanced code (RFC 3463): class, subject, detail; zeros if there was none.
    pub enhanced: [u16; 3],
    text: [u8; REPLY_OCTETS_MAX],
    text_len: u8,
}

impl Default for Reply {
    fn default() -> Self {
        Self::new(0, [0; 3], b"")
    }
}

impl Reply {
    /// A reply; the text is cut to 64 octets.
    #[must_use]
    pub fn new(code: u16, enhanced: [u16; 3], text: &[u8]) -> Self {
        let len = text.len().min(REPLY_OCTETS_MAX);
        let mut kept = [0; REPLY_OCTETS_MAX];
        kept[..len].copy_from_slice(&text[..len]);
        Self { code, enhanced, text: kept, text_len: u8::try_from(len).expect("at most 64") }
    }

    /// The text, as far as it is kept.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text[..usize::from(self.text_len)]
    }
}

/// What happened to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Not before this wall time again, microseconds.
    pub next_us: u64,
    /// What it said.
    pub reply: Reply,
}

impl Retry {
    /// The state after one more failure. A later `next_us` already known stays.
    #[must_use]
    pub fn after(old: Option<Self>, failed: &Failed, now_us: u64) -> Self {
        let Failed { next_us, reply } = *failed;
        match old {
            Some(old) => Self {
                first_us: old.first_us.min(now_us),
                last_us: old.last_us.max(now_us),
                next_us: next_us.max(old.next_us),
                tries: old.tries.saturating_add(1),
                reply,
            },
            None => Self { first_us: now_us, last_us: now_us, next_us, tries: 1, reply },
        }
    }

    /// Whether the key may be tried now.
    #[must_use]
    pub const fn is_due(&self, now_us: u64) -> bool {
        now_us >= self.next_us
    }

    pub(crate) fn encode(&self, words: &mut [u64; VALUE_WORDS]) {
        let [class, subject, detail] = self.reply.enhanced.map(u64::from);
        words[0] = self.first_us;
        words[1] = self.last_us;
        words[2] = self.next_us;
        words[3] = bits::pair(self.tries, 0)
            | u64::from(self.reply.code) << 32
            | u64::from(self.reply.text_len) << 48;
        words[4] = class | subject << 16 | detail << 32;
        bits::pack(&self.reply.text, &mut words[5..WORDS]);
    }

    pub(crate) fn decode(words: &[u64; VALUE_WORDS]) -> Option<Self> {
        let text_len = bits::octet(words[3], 6);
        if usize::from(text_len) > REPLY_OCTETS_MAX {
            return None;
        }
        let mut text = [0; REPLY_OCTETS_MAX];
        bits::unpack(&words[5..WORDS], &mut text);
        let enhanced = [0, 2, 4].map(|at| bits::low16_at(words[4], at));
        Some(Self {
            first_us: words[0],
            last_us: words[1],
            next_us: words[2],
            tries: bits::low32(words[3]),
            reply: Reply { code: bits::low16_at(words[3], 4), enhanced, text, text_len },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_add_up_and_the_later_time_counts() {
        let reply = Reply::new(451, [4, 7, 1], b"greylisted");
        let one = Retry::after(None, &Failed { next_us: 100, reply }, 10);
        assert!(!one.is_due(99) && one.is_due(100));
        let two = Retry::after(Some(one), &Failed { next_us: 50, reply: Reply::default() }, 20);
        assert_eq!((two.first_us, two.last_us, two.next_us, two.tries), (10, 20, 100, 2));
        assert_eq!(one.reply.text(), b"greylisted");
    }
}
