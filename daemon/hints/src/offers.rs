//! What a backend's last EHLO reply offered, so that nothing is accepted that it would refuse.

use crate::bits;
use crate::limits::VALUE_WORDS;

/// Layout version of this record.
pub(crate) const LAYOUT: u8 = 1;
pub(crate) const WORDS: usize = 4;

/// RFC 2920.
pub const PIPELINING: u64 = 1;
/// RFC 1870; see also [`Offers::size_octets_max`].
pub const SIZE: u64 = 1 << 1;
/// RFC 6152.
pub const EIGHT_BIT_MIME: u64 = 1 << 2;
/// RFC 3030.
pub const BINARYMIME: u64 = 1 << 3;
/// RFC 3030.
pub const CHUNKING: u64 = 1 << 4;
/// RFC 6531.
pub const SMTPUTF8: u64 = 1 << 5;
/// RFC 2034.
pub const ENHANCEDSTATUSCODES: u64 = 1 << 6;
/// RFC 3461.
pub const DSN: u64 = 1 << 7;
/// RFC 3207.
pub const STARTTLS: u64 = 1 << 8;
/// RFC 9422; see also [`Offers::recipients_max`].
pub const LIMITS: u64 = 1 << 9;
/// RFC 8689.
pub const REQUIRETLS: u64 = 1 << 10;
/// RFC 2852.
pub const DELIVERBY: u64 = 1 << 11;
/// RFC 6710.
pub const MT_PRIORITY: u64 = 1 << 12;

/// What one backend was last seen to offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// Extensions as bits: the constants of this module. Unknown bits are kept.
    pub extensions: u64,
    /// The largest message it takes, octets; 0: it names no limit.
    pub size_octets_max: u64,
    /// RCPTMAX of LIMITS; 0: it names none.
    pub recipients_max: u32,
    /// MAILMAX of LIMITS; 0: it names none.
    pub messages_max: u32,
    /// When it was asked, wall microseconds.
    pub seen_us: u64,
}

impl Offers {
    /// Whether all of these extensions were offered.
    #[must_use]
    pub const fn has(&self, extensions: u64) -> bool {
        self.extensions & extensions == extensions
    }

    /// Whether a message of so many octets fits.
    #[must_use]
    pub const fn fits(&self, octets: u64) -> bool {
        self.size_octets_max == 0 || octets <= self.size_octets_max
    }

    pub(crate) fn encode(&self, words: &mut [u64; VALUE_WORDS]) {
        words[0] = self.extensions;
        words[1] = self.size_octets_max;
        words[2] = bits::pair(self.recipients_max, self.messages_max);
        words[3] = self.seen_us;
    }

    pub(crate) fn decode(words: &[u64; VALUE_WORDS]) -> Self {
        Self {
            extensions: words[0],
            size_octets_max: words[1],
            recipients_max: bits::low32(words[2]),
            messages_max: bits::high32(words[2]),
            seen_us: words[3],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_asked_extensions_must_be_there() {
        let offers =
            Offers { extensions: SMTPUTF8 | SIZE, size_octets_max: 9, ..Offers::default() };
        assert!(offers.has(SIZE) && offers.has(SIZE | SMTPUTF8) && !offers.has(SIZE | DSN));
        assert!(offers.fits(9) && !offers.fits(10) && Offers::default().fits(u64::MAX));
    }
}
