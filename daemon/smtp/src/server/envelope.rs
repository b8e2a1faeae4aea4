//! The envelope of the transaction under way: one buffer for all its text.

use crate::command::{Body, MailParameters, Notify, RcptParameters, Ret};
use crate::limits::IDLE_CAPACITY_MAX;

/// MAIL and the recipients taken so far.
#[derive(Debug, Clone, Default)]
pub struct Envelope {
    text: Vec<u8>,
    sender: usize,
    envid: Option<usize>,
    size: Option<u64>,
    body: Body,
    smtputf8: bool,
    ret: Option<Ret>,
    recipients: Vec<Place>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    start: u32,
    address: u16,
    orcpt: Option<u16>,
    notify: Option<Notify>,
}

/// One recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient<'a> {
    /// The address as given, source route removed.
    pub address: &'a [u8],
    /// What RCPT said beside it.
    pub parameters: RcptParameters<'a>,
}

impl Envelope {
    /// The sender as given; empty is the null reverse-path.
    #[must_use]
    pub fn sender(&self) -> &[u8] {
        &self.text[..self.sender]
    }

    /// What MAIL said beside the path.
    #[must_use]
    pub fn mail(&self) -> MailParameters<'_> {
        MailParameters {
            size: self.size,
            body: self.body,
            smtputf8: self.smtputf8,
            ret: self.ret,
            envid: self.envid.map(|end| &self.text[self.sender..end]),
        }
    }

    /// Recipients, in the order of their RCPT commands. In a question about a recipient the last
    /// is the one asked about.
    pub fn recipients(&self) -> impl ExactSizeIterator<Item = Recipient<'_>> {
        self.recipients.iter().map(|place| {
            let start = place.start as usize;
            let end = start + usize::from(place.address);
            let orcpt = place.orcpt.map(|len| &self.text[end..end + usize::from(len)]);
            Recipient {
                address: &self.text[start..end],
                parameters: RcptParameters { notify: place.notify, orcpt },
            }
        })
    }

    pub(super) fn open(&mut self, sender: &[u8], mail: &MailParameters<'_>) {
        self.clear();
        self.text.extend_from_slice(sender);
        self.sender = sender.len();
        if let Some(envid) = mail.envid {
            self.text.extend_from_slice(envid);
            self.envid = Some(self.text.len());
        }
        self.size = mail.size;
        self.body = mail.body;
        self.smtputf8 = mail.smtputf8;
        self.ret = mail.ret;
    }

    /// Address and ORCPT are under 2048 octets, being part of one line, and recipients are
    /// limited: all of it stays far below 4 GiB.
    pub(super) fn push(&mut self, address: &[u8], parameters: &RcptParameters<'_>) {
        let orcpt = parameters.orcpt.unwrap_or_default();
        let place = Place {
            start: u32::try_from(self.text.len()).expect("recipients times line length"),
            address: u16::try_from(address.len()).expect("under a line"),
            orcpt: parameters.orcpt.map(|o| u16::try_from(o.len()).expect("under a line")),
            notify: parameters.notify,
        };
        self.text.extend_from_slice(address);
        self.text.extend_from_slice(orcpt);
        self.recipients.push(place);
    }

    pub(super) fn pop(&mut self) {
        if let Some(place) = self.recipients.pop() {
            self.text.truncate(place.start as usize);
        }
    }

    /// Forgets all; keeps a little room for the next.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(IDLE_CAPACITY_MAX);
        self.recipients.clear();
        self.recipients.shrink_to(IDLE_CAPACITY_MAX / size_of::<Place>());
        self.sender = 0;
        self.envid = None;
        self.smtputf8 = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_put_in() {
        let mut envelope = Envelope::default();
        let mail = MailParameters { envid: Some(b"id"), size: Some(7), ..Default::default() };
        envelope.open(b"a@b", &mail);
        let first = RcptParameters { notify: Some(Notify::NEVER), orcpt: Some(b"rfc822;x") };
        envelope.push(b"c@d", &first);
        envelope.push(b"e@f", &RcptParameters::default());
        envelope.pop();
        envelope.push(b"g@h", &RcptParameters::default());
        assert_eq!((envelope.sender(), envelope.mail()), (&b"a@b"[..], mail));
        let all: Vec<_> = envelope.recipients().collect();
        assert_eq!(all[0], Recipient { address: b"c@d", parameters: first });
        assert_eq!((all.len(), all[1].address), (2, &b"g@h"[..]));
        envelope.open(b"", &MailParameters::default());
        assert_eq!((envelope.sender().len(), envelope.recipients().len()), (0, 0));
        assert_eq!(envelope.mail().envid, None);
    }
}
