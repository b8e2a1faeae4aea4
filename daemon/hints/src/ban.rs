//! A client that is turned away without being heard, and since when how often.
//!
//! The record outlives the ban: who comes again within that time is banned for longer.

use crate::bits;
use crate::limits::VALUE_WORDS;

/// Layout version of this record.
pub(crate) const LAYOUT: u8 = 1;
pub(crate) const WORDS: usize = 6;

/// One client's ban.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ban {
    /// Wall microseconds at which it lapses.
    pub until_us: u64,
    /// Wall microseconds at which it began.
    pub since_us: u64,
    /// How often this client was banned, this time included.
    pub times: u32,
    /// What is printed in refusals, to be looked up.
    pub id: u32,
    /// The list it is for, by number.
    pub list: u32,
    /// How far it goes, by number.
    pub rung: u32,
    /// The session it came from, as its 128 bits; 0: none.
    pub session: u128,
}

impl Ban {
    /// Whether it holds now.
    #[must_use]
    pub const fn holds(&self, now_us: u64) -> bool {
        self.until_us > now_us
    }

    pub(crate) fn encode(&self, words: &mut [u64; VALUE_WORDS]) {
        words[0] = self.until_us;
        words[1] = self.since_us;
        words[2] = bits::pair(self.times, self.id);
        words[3] = bits::pair(self.list, self.rung);
        let octets = self.session.to_le_bytes();
        bits::pack(&octets, &mut words[4..6]);
    }

    pub(crate) fn decode(words: &[u64; VALUE_WORDS]) -> Self {
        let mut session = [0; 16];
        bits::unpack(&words[4..6], &mut session);
        Self {
            until_us: words[0],
            since_us: words[1],
            times: bits::low32(words[2]),
            id: bits::high32(words[2]),
            list: bits::low32(words[3]),
            rung: bits::high32(words[3]),
            session: u128::from_le_bytes(session),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_lapses() {
        let ban = Ban {
            until_us: 9,
            since_us: 8,
            times: 7,
            id: 6,
            list: 5,
            rung: 4,
            session: u128::MAX - 3,
        };
        let mut words = [0; VALUE_WORDS];
        ban.encode(&mut words);
        assert_eq!(Ban::decode(&words), ban);
        assert!(ban.holds(8) && !ban.holds(9));
    }
}
