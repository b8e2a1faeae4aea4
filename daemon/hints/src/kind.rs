//! The kinds of hints by number; a number, once given, keeps its meaning for ever.

/// What a record or rate is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum Kind {
    /// When a next hop or recipient domain is tried again.
    Retry = 1,
    /// How a destination has been doing.
    Health = 2,
    /// What a backend's last EHLO reply offered.
    Offers = 3,
    /// A panic hook's note of the message or client it happened with.
    Note = 4,
    /// A client's errors.
    Standing = 5,
    /// Reserved: greylist triplets.
    Greylist = 6,
    /// Reserved: results of recipient callouts to backends.
    Callout = 7,
    /// Reserved: verdicts of DNS lists.
    Dnsbl = 8,
    /// Reserved: clients that have passed the greylist.
    Pass = 9,
    /// A client that is turned away without being heard.
    Ban = 10,
    /// A client whose mail was taken lately.
    Delivered = 11,
    /// Rate of connections.
    RateConnect = 32,
    /// Rate of messages (MAIL commands).
    RateMail = 33,
    /// Rate of recipients.
    RateRecipient = 34,
    /// Rate of errors.
    RateError = 35,
    /// Rate of octets.
    RateOctet = 36,
    /// Rate of TLS handshakes.
    RateTls = 37,
    /// Rate of sessions handed to a destination.
    RateDestination = 38,
    /// Rates named in the configuration.
    RateNamed = 39,
}

/// Every kind with its name, as the admin tool writes it.
const NAMES: [(Kind, &str); 19] = [
    (Kind::Retry, "retry"),
    (Kind::Health, "health"),
    (Kind::Offers, "offers"),
    (Kind::Note, "note"),
    (Kind::Standing, "standing"),
    (Kind::Greylist, "greylist"),
    (Kind::Callout, "callout"),
    (Kind::Dnsbl, "dnsbl"),
    (Kind::Pass, "pass"),
    (Kind::Ban, "ban"),
    (Kind::Delivered, "delivered"),
    (Kind::RateConnect, "rate-connect"),
    (Kind::RateMail, "rate-mail"),
    (Kind::RateRecipient, "rate-recipient"),
    (Kind::RateError, "rate-error"),
    (Kind::RateOctet, "rate-octet"),
    (Kind::RateTls, "rate-tls"),
    (Kind::RateDestination, "rate-destination"),
    (Kind::RateNamed, "rate-named"),
];

impl Kind {
    /// The number in the file.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The kind with this number, if this version knows it.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        NAMES.iter().map(|&(kind, _)| kind).find(|kind| kind.number() == number)
    }

    /// The name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|&&(kind, _)| kind == self).map_or("?", |&(_, name)| name)
    }

    /// The kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|&&(_, n)| n == name).map(|&(kind, _)| kind)
    }

    /// Every kind, in the order of the numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|&(kind, _)| kind)
    }

    /// Kept as a rate word, not as a record.
    #[must_use]
    pub const fn is_rate(self) -> bool {
        self.number() >= Self::RateConnect.number()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back() {
        for kind in Kind::all() {
            assert_eq!(Kind::from_number(kind.number()), Some(kind));
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(Kind::from_number(0), None);
        assert_eq!(Kind::from_name("rates"), None);
        assert!(Kind::RateMail.is_rate() && !Kind::Pass.is_rate());
    }
}
