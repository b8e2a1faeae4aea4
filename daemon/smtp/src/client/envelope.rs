//! The envelope of an outgoing message and the commands made from it.
//!
//! *Guarantees*: an [`Envelope`] that [`Envelope::check`] passes cannot break out of its command.

use super::limits::{ADDRESS_MAX, PARAMETER_MAX, RECIPIENTS_MAX};
use super::offers::{Extension, Offers};
use crate::command::{Body, Notify, Ret};

/// One recipient of an [`Envelope`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipient {
    /// Address without angle brackets.
    pub address: Box<[u8]>,
    /// NOTIFY, if the sender said one.
    pub notify: Option<Notify>,
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
            Body::BinaryMime => out.extend_from_slice(b" BODY=BINARYMIME"),
            Body::EightBitMime if offers.has(Extension::EightBitMime) => {
                out.extend_from_slice(b" BODY=8BITMIME");
            }
            Body::EightBitMime | Body::SevenBit => {}
        }
        if self.needs_utf8() {
            out.extend_from_slice(b" SMTPUTF8");
        }
        if offers.has(Extension::Dsn) {
            match self.ret {
                Some(Ret::Full) => out.extend_from_slice(b" RET=FULL"),
                Some(Ret::Hdrs) => out.extend_from_slice(b" RET=HDRS"),
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
            if let Some(notify) = recipient.notify {
                write_notify(notify, out);
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

fn write_notify(notify: Notify, out: &mut Vec<u8>) {
    let words = [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")];
    let mut before = " NOTIFY=";
    for (_, word) in words.iter().filter(|(said, _)| *said) {
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(word.as_bytes());
        before = ",";
    }
    if notify == Notify::NEVER {
        out.extend_from_slice(b" NOTIFY=NEVER");
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
    fn notify_as_a_parameter() {
        let (success, failure, delay) = (true, false, true);
        for (notify, want) in [
            (Notify { success, failure, delay }, " NOTIFY=SUCCESS,DELAY"),
            (Notify::NEVER, " NOTIFY=NEVER"),
        ] {
            let mut out = Vec::new();
            write_notify(notify, &mut out);
            assert_eq!(out, want.as_bytes());
        }
    }
}
