//! The envelope of an outgoing message and the commands made from it.
//!
//! *Guarantees*: an [`Envelope`] that [`Envelope::check`] passes cannot break out of its command.

use super::limits::{ADDRESS_MAX, PARAMETER_MAX, RECIPIENTS_MAX};
use super::offers::{Extension, Offers};

/// What the content is made of (RFC 6152, RFC 3030).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Body {
    /// Lines of ASCII.
    #[default]
    SevenBit,
    /// Lines with octets above 127.
    EightBit,
    /// Any octets; sent as they are, by BDAT only.
    Binary,
}

/// What a report shall return of the message (RFC 3461 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ret {
    /// All of it.
    Full,
    /// Its header section.
    Headers,
}

/// NOTIFY of RFC 3461 4.1: which reports a sender wants for a recipient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Notify(u8);

impl Notify {
    /// Nothing was said: failures are reported, delays may be.
    pub const UNSAID: Self = Self(0);
    /// No report of any kind.
    pub const NEVER: Self = Self(1);
    /// When delivered or handed to a server that does not know DSN.
    pub const SUCCESS: Self = Self(2);
    /// When failed for good.
    pub const FAILURE: Self = Self(4);
    /// When late.
    pub const DELAY: Self = Self(8);

    /// From the sum of the values above, as the spool keeps it. NEVER beats the others.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self(if bits & Self::NEVER.0 != 0 { Self::NEVER.0 } else { bits & 14 })
    }

    /// The sum of the values above.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::from_bits(self.0 | other.0)
    }

    /// Whether all of `other` is in `self`.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        other.0 != 0 && self.0 & other.0 == other.0
    }

    /// A failure shall be reported.
    #[must_use]
    pub fn wants_failure(self) -> bool {
        self == Self::UNSAID || self.has(Self::FAILURE)
    }

    /// A delay may be reported.
    #[must_use]
    pub fn wants_delay(self) -> bool {
        self == Self::UNSAID || self.has(Self::DELAY)
    }

    /// Success shall be reported.
    #[must_use]
    pub fn wants_success(self) -> bool {
        self.has(Self::SUCCESS)
    }
}

/// One recipient of an [`Envelope`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipient {
    /// Address without angle brackets.
    pub address: Box<[u8]>,
    /// NOTIFY.
    pub notify: Notify,
    /// ORCPT as it stands in a command: `rfc822;` and xtext.
    pub orcpt: Option<Box<[u8]>>,
}

/// One message to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Address without angle brackets; empty for the null sender.
    pub sender: Box<[u8]>,
    /// What the content is made of.
    pub body: Body,
    /// Octets of the content as it will be fed, edits included.
    pub size: u64,
    /// The message needs SMTPUTF8, for its header or its addresses.
    pub smtputf8: bool,
    /// RET.
    pub ret: Option<Ret>,
    /// ENVID as it stands in a command: xtext.
    pub envid: Option<Box<[u8]>>,
    /// At least one.
    pub recipients: Vec<Recipient>,
}

/// Why an envelope cannot be sent: a fault of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEnvelope {
    /// No recipient, or more than a transaction may have.
    RecipientCount,
    /// An address has control characters or is too long.
    Address,
    /// ENVID or ORCPT is no xtext or too long.
    Parameter,
}

impl Envelope {
    /// Looks for what must not go into a command.
    ///
    /// # Errors
    /// [`BadEnvelope`].
    pub fn check(&self) -> Result<(), BadEnvelope> {
        if self.recipients.is_empty() || self.recipients.len() > RECIPIENTS_MAX {
            return Err(BadEnvelope::RecipientCount);
        }
        let empty = self.recipients.iter().any(|r| r.address.is_empty());
        let mut addresses = self.recipients.iter().map(|r| &r.address).chain([&self.sender]);
        if empty || !addresses.all(|address| address_fits(address)) {
            return Err(BadEnvelope::Address);
        }
        let orcpt = self.recipients.iter().filter_map(|r| r.orcpt.as_ref());
        if !orcpt.chain(&self.envid).all(|value| parameter_fits(value)) {
            return Err(BadEnvelope::Parameter);
        }
        Ok(())
    }

    /// Whether SMTPUTF8 is to be asked for.
    #[must_use]
    pub fn needs_utf8(&self) -> bool {
        self.smtputf8
            || !self.sender.is_ascii()
            || self.recipients.iter().any(|r| !r.address.is_ascii())
    }

    /// MAIL with the parameters that `offers` allows.
    pub(super) fn write_mail(&self, offers: &Offers, out: &mut Vec<u8>) {
        out.extend_from_slice(b"MAIL FROM:<");
        out.extend_from_slice(&self.sender);
        out.push(b'>');
        if offers.has(Extension::Size) {
            out.extend_from_slice(format!(" SIZE={}", self.size).as_bytes());
        }
        match self.body {
            Body::Binary => out.extend_from_slice(b" BODY=BINARYMIME"),
            Body::EightBit if offers.has(Extension::EightBitMime) => {
                out.extend_from_slice(b" BODY=8BITMIME");
            }
            Body::EightBit | Body::SevenBit => {}
        }
        if self.needs_utf8() {
            out.extend_from_slice(b" SMTPUTF8");
        }
        if offers.has(Extension::Dsn) {
            match self.ret {
                Some(Ret::Full) => out.extend_from_slice(b" RET=FULL"),
                Some(Ret::Headers) => out.extend_from_slice(b" RET=HDRS"),
                None => {}
            }
            if let Some(envid) = &self.envid {
                out.extend_from_slice(b" ENVID=");
                out.extend_from_slice(envid);
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// RCPT for the recipient at `index`.
    pub(super) fn write_rcpt(&self, index: usize, offers: &Offers, out: &mut Vec<u8>) {
        let recipient = &self.recipients[index];
        out.extend_from_slice(b"RCPT TO:<");
        out.extend_from_slice(&recipient.address);
        out.push(b'>');
        if offers.has(Extension::Dsn) {
            if recipient.notify != Notify::UNSAID {
                out.extend_from_slice(b" NOTIFY=");
                let from = out.len();
                for (flag, word) in [
                    (Notify::NEVER, "NEVER"),
                    (Notify::SUCCESS, "SUCCESS"),
                    (Notify::FAILURE, "FAILURE"),
                    (Notify::DELAY, "DELAY"),
                ] {
                    if recipient.notify.has(flag) {
                        if out.len() > from {
                            out.push(b',');
                        }
                        out.extend_from_slice(word.as_bytes());
                    }
                }
            }
            let utf8 = self.needs_utf8();
            if let Some(orcpt) = recipient.orcpt.as_ref().filter(|o| utf8 || o.is_ascii()) {
                out.extend_from_slice(b" ORCPT=");
                out.extend_from_slice(orcpt);
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// No control characters; spaces and angle brackets only within quotes; UTF-8.
fn address_fits(address: &[u8]) -> bool {
    if address.len() > ADDRESS_MAX || std::str::from_utf8(address).is_err() {
        return false;
    }
    let mut quoted = false;
    let mut escaped = false;
    for &c in address {
        match c {
            0..=0x1f | 0x7f => return false,
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b' ' | b'<' | b'>' if !quoted => return false,
            _ => {}
        }
    }
    !quoted && !escaped
}

/// Visible characters only; UTF-8 is allowed (RFC 6533 3).
fn parameter_fits(value: &[u8]) -> bool {
    (1..=PARAMETER_MAX).contains(&value.len())
        && std::str::from_utf8(value).is_ok()
        && value.iter().all(|c| *c > b' ' && *c != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(address: &[u8]) -> Envelope {
        let recipient = Recipient { address: address.into(), ..Recipient::default() };
        Envelope { recipients: vec![recipient], ..Envelope::default() }
    }

    #[test]
    fn addresses_that_would_break_out_of_a_command() {
        for good in ["a@b", "\"a b\"@c", "\"a\\\" >\"@c", "\u{e4}@b", "a@[IPv6:::1]"] {
            assert_eq!(to(good.as_bytes()).check(), Ok(()), "{good}");
        }
        let long = vec![b'a'; ADDRESS_MAX + 1];
        for bad in [
            &b"a\r\n@b"[..],
            b"a@b> SIZE=1",
            b"a b@c",
            b"\"a\x00\"@b",
            b"\"a@b",
            b"\"a\\",
            b"\xff@b",
            b"",
            b"<a@b",
            &long,
        ] {
            assert_eq!(to(bad).check(), Err(BadEnvelope::Address), "{bad:?}");
        }
        let mut envelope = to(b"a@b");
        envelope.envid = Some(b"x y".as_slice().into());
        assert_eq!(envelope.check(), Err(BadEnvelope::Parameter));
        assert_eq!(Envelope::default().check(), Err(BadEnvelope::RecipientCount));
    }

    #[test]
    fn notify_never_stands_alone() {
        let both = Notify::NEVER.and(Notify::FAILURE);
        assert_eq!(both, Notify::NEVER);
        assert!(!both.wants_failure() && !both.wants_delay() && !both.wants_success());
        assert!(Notify::UNSAID.wants_failure() && Notify::UNSAID.wants_delay());
        assert!(!Notify::SUCCESS.wants_failure() && Notify::SUCCESS.wants_success());
    }
}
