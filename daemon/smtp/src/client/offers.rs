//! What a server offers in its reply to EHLO.
//!
//! *Limits*: unknown keywords and malformed values are ignored; a value that does not parse counts
//! as not given.

/// One extension that the sending machine can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Extension {
    /// RFC 2920.
    Pipelining = 1,
    /// RFC 1870.
    Size = 1 << 1,
    /// RFC 6152.
    EightBitMime = 1 << 2,
    /// RFC 3030.
    BinaryMime = 1 << 3,
    /// RFC 3030.
    Chunking = 1 << 4,
    /// RFC 6531.
    SmtpUtf8 = 1 << 5,
    /// RFC 3461.
    Dsn = 1 << 6,
    /// RFC 2034.
    EnhancedStatusCodes = 1 << 7,
    /// RFC 3207.
    StartTls = 1 << 8,
    /// RFC 9422.
    Limits = 1 << 9,
}

const KEYWORDS: [(&[u8], Extension); 10] = [
    (b"PIPELINING", Extension::Pipelining),
    (b"SIZE", Extension::Size),
    (b"8BITMIME", Extension::EightBitMime),
    (b"BINARYMIME", Extension::BinaryMime),
    (b"CHUNKING", Extension::Chunking),
    (b"SMTPUTF8", Extension::SmtpUtf8),
    (b"DSN", Extension::Dsn),
    (b"ENHANCEDSTATUSCODES", Extension::EnhancedStatusCodes),
    (b"STARTTLS", Extension::StartTls),
    (b"LIMITS", Extension::Limits),
];

impl Extension {
    /// The EHLO keyword.
    #[must_use]
    pub fn keyword(self) -> &'static str {
        KEYWORDS
            .iter()
            .find(|(_, e)| *e == self)
            .and_then(|(word, _)| std::str::from_utf8(word).ok())
            .expect("every extension has a keyword of ASCII")
    }
}

/// The extensions of one server. Default: none, as after HELO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// Sum of [`Extension`] values; may be kept in the hints.
    pub bits: u16,
    /// Largest message in octets; 0 when the server names none.
    pub size_max: u64,
    /// RCPTMAX of RFC 9422; 0 when the server names none.
    pub recipients_max: u32,
    /// MAILMAX of RFC 9422; 0 when the server names none.
    pub messages_max: u32,
}

impl Offers {
    /// Whether the server offers `extension`.
    #[must_use]
    pub fn has(&self, extension: Extension) -> bool {
        self.bits & extension as u16 != 0
    }

    /// Takes the text of one line of the EHLO reply that is not its first.
    pub fn line(&mut self, text: &[u8]) {
        let mut words = text.split(|c| *c == b' ' || *c == b'\t').filter(|w| !w.is_empty());
        let Some(keyword) = words.next() else { return };
        let Some((_, extension)) =
            KEYWORDS.iter().find(|(word, _)| keyword.eq_ignore_ascii_case(word))
        else {
            return;
        };
        self.bits |= *extension as u16;
        match extension {
            Extension::Size => self.size_max = words.next().and_then(number).unwrap_or(0),
            Extension::Limits => words.for_each(|word| self.limit(word)),
            _ => {}
        }
    }

    fn limit(&mut self, word: &[u8]) {
        let Some(at) = memchr::memchr(b'=', word) else { return };
        let (name, value) = (&word[..at], number(&word[at + 1..]));
        let value = value.map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX));
        if name.eq_ignore_ascii_case(b"RCPTMAX") {
            self.recipients_max = value;
        } else if name.eq_ignore_ascii_case(b"MAILMAX") {
            self.messages_max = value;
        }
    }
}

fn number(word: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(word).ok()?;
    text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_reply() {
        let mut offers = Offers::default();
        for line in ["pipelining", "SIZE 1000", "LIMITS RCPTMAX=7 MAILMAX=x Y=1", "AUTH LOGIN"] {
            offers.line(line.as_bytes());
        }
        assert!(offers.has(Extension::Pipelining) && offers.has(Extension::Size));
        assert!(!offers.has(Extension::Dsn));
        let want = (1000, 7, 0);
        assert_eq!((offers.size_max, offers.recipients_max, offers.messages_max), want);
    }

    #[test]
    fn odd_values_count_as_not_given() {
        for line in [&b"SIZE"[..], b"SIZE -5", b"SIZE 99999999999999999999999", b"SIZE \xff", b""] {
            let mut offers = Offers::default();
            offers.line(line);
            assert_eq!(offers.size_max, 0);
        }
        assert_eq!(Extension::EightBitMime.keyword(), "8BITMIME");
    }
}
