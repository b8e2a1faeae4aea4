//! A panic hook's note of the message or client it happened with: noted twice, a message is frozen
//! and a client gets 421, so one poison message never stops the mail.

use crate::bits;
use crate::limits::VALUE_WORDS;

/// Layout version of this record.
pub(crate) const LAYOUT: u8 = 1;
pub(crate) const WORDS: usize = 3;

/// How often, when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// How often it was noted.
    pub count: u32,
    /// The run that noted it last.
    pub run: u32,
    /// First time, wall microseconds.
    pub first_us: u64,
    /// Last time, wall microseconds.
    pub last_us: u64,
}

impl Note {
    /// The note after one more panic. One run notes a key once only: the hooks of two threads that
    /// die together are one event.
    #[must_use]
    pub fn after(old: Option<Self>, run: u32, now_us: u64) -> Self {
        match old {
            Some(old) if old.run == run => old,
            Some(old) => Self {
                count: old.count.saturating_add(1),
                run,
                first_us: old.first_us,
                last_us: now_us,
            },
            None => Self { count: 1, run, first_us: now_us, last_us: now_us },
        }
    }

    pub(crate) fn encode(&self, words: &mut [u64; VALUE_WORDS]) {
        words[0] = bits::pair(self.count, self.run);
        words[1] = self.first_us;
        words[2] = self.last_us;
    }

    pub(crate) fn decode(words: &[u64; VALUE_WORDS]) -> Self {
        Self {
            count: bits::low32(words[0]),
            run: bits::high32(words[0]),
            first_us: words[1],
            last_us: words[2],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_notes_once() {
        let one = Note::after(None, 7, 100);
        assert_eq!(Note::after(Some(one), 7, 200), one);
        let two = Note::after(Some(one), 8, 300);
        assert_eq!((two.count, two.first_us, two.last_us), (2, 100, 300));
    }
}
