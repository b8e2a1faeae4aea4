//! A client whose mail was taken lately: it is heard, whatever lists it.

use crate::limits::VALUE_WORDS;

/// Layout version of this record.
pub(crate) const LAYOUT: u8 = 1;
pub(crate) const WORDS: usize = 2;

/// When a client's mail was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Wall microseconds of the first time that is remembered.
    pub first_us: u64,
    /// Wall microseconds of the last time, or up to an hour before it.
    pub last_us: u64,
}

impl Delivered {
    pub(crate) const fn encode(&self, words: &mut [u64; VALUE_WORDS]) {
        words[0] = self.first_us;
        words[1] = self.last_us;
    }

    pub(crate) const fn decode(words: &[u64; VALUE_WORDS]) -> Self {
        Self { first_us: words[0], last_us: words[1] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back() {
        let delivered = Delivered { first_us: 7, last_us: 8 };
        let mut words = [0; VALUE_WORDS];
        delivered.encode(&mut words);
        assert_eq!(Delivered::decode(&words), delivered);
    }
}
