//! The Received line that is added to a message, made from what its envelope says anyway.
//!
//! *Guarantees*: the line is the same, octet for octet, whenever it is made; a set in format 1
//! keeps it in words, and whoever reads a message sees no difference.
//!
//! *Not here*: how such a line looks (`smtp::trace`).

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use smtp::trace;

use crate::edits::{self, Edit, Received};
use crate::message::{Envelope, PtrVerdict, Tls};
use crate::superblock::Format;

/// Suites by their number on the wire, with the name that stands in a Received line.
const SUITES: [(u16, &str); 9] = [
    (0x1301, "TLS13_AES_128_GCM_SHA256"),
    (0x1302, "TLS13_AES_256_GCM_SHA384"),
    (0x1303, "TLS13_CHACHA20_POLY1305_SHA256"),
    (0xc02b, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    (0xc02c, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    (0xc02f, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    (0xc030, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    (0xcca8, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    (0xcca9, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
];

/// Version and suite in words, when the numbers are enough to say them.
fn words_of(tls: &Tls) -> Option<(&'static str, &'static str)> {
    let version = match tls.version {
        0x0303 => "TLS1.2",
        0x0304 => "TLS1.3",
        _ => return None,
    };
    let suite = SUITES.iter().find(|(number, _)| *number == tls.cipher)?.1;
    Some((version, suite))
}

/// The line will say this of TLS without being told.
#[must_use]
pub fn says(tls: &Tls, version: &str, suite: &str) -> bool {
    words_of(tls) == Some((version, suite))
}

/// The line, with its CRLF.
fn line(envelope: &Envelope, received: &Received) -> Vec<u8> {
    let tls = match (&*received.tls, &envelope.tls) {
        (b"", None) => None,
        (b"", Some(tls)) => words_of(tls).map(|(version, suite)| format!("{version}:{suite}")),
        (words, _) => Some(String::from_utf8_lossy(words).into_owned()),
    };
    let name = (envelope.ptr == PtrVerdict::Confirmed).then_some(&*envelope.ptr_name);
    let mut out = Vec::with_capacity(256);
    trace::Received {
        helo: &envelope.helo,
        extended: received.extended,
        client_name: name.and_then(|name| std::str::from_utf8(name).ok()),
        client: envelope.client.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |client| client.ip()),
        by: &String::from_utf8_lossy(&received.by),
        tls: tls.as_deref(),
        smtputf8: envelope.mail.smtputf8,
        id: &envelope.id.to_string(),
        recipient: match &*envelope.recipients {
            [only] => Some(&only.address),
            _ => None,
        },
        wall_us: received.wall_s.map_or(envelope.received_wall_us, |s| s.saturating_mul(1_000_000)),
    }
    .write(&mut out);
    out
}

/// The edits, each in words.
fn in_words(envelope: &Envelope) -> Cow<'_, [Edit]> {
    if !envelope.edits.iter().any(|edit| matches!(edit, Edit::Received(_))) {
        return Cow::Borrowed(&envelope.edits);
    }
    let worded = |edit: &Edit| match edit {
        Edit::Received(received) => Edit::AddTop(line(envelope, received).into()),
        other => other.clone(),
    };
    Cow::Owned(envelope.edits.iter().map(worded).collect())
}

/// The header section as it is sent: `header` is as received.
#[must_use]
pub fn apply(header: &[u8], envelope: &Envelope) -> Vec<u8> {
    edits::apply(header, &in_words(envelope))
}

/// Appends the envelope's fields as a set in that format keeps them.
pub fn encode(envelope: &Envelope, format: Format, out: &mut Vec<u8>) {
    match format {
        Format::V1 => envelope.encode_with(&in_words(envelope), out),
        Format::V2 => envelope.encode(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{MessageId, TransactionId};
    use crate::message::{MailFrom, Recipient};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::net::{IpAddr, SocketAddr};

    fn octets(text: &str) -> BoxedStrategy<Box<[u8]>> {
        let regex = proptest::string::string_regex(text).expect("a pattern of ours");
        regex.prop_map(|text| text.into_bytes().into()).boxed()
    }

    fn tls() -> impl Strategy<Value = Option<Tls>> {
        let known = (0..SUITES.len(), any::<bool>()).prop_map(|(suite, new)| {
            let version = if new { 0x0304 } else { 0x0303 };
            Tls { version, cipher: SUITES[suite].0, peer_fingerprint: Box::default() }
        });
        let any = (any::<u16>(), any::<u16>()).prop_map(|(version, cipher)| Tls {
            version,
            cipher,
            peer_fingerprint: (*b"sum").into(),
        });
        prop_oneof![Just(None), known.prop_map(Some), any.prop_map(Some)]
    }

    fn ptr() -> impl Strategy<Value = PtrVerdict> {
        prop_oneof![
            Just(PtrVerdict::Unasked),
            Just(PtrVerdict::Confirmed),
            Just(PtrVerdict::Unconfirmed),
            Just(PtrVerdict::None),
            Just(PtrVerdict::Temporary),
        ]
    }

    fn received() -> impl Strategy<Value = Received> {
        let tls = prop_oneof![Just(Box::default()), octets("TLS1[.]3:[A-Z0-9_]{1,40}")];
        (octets("[a-z.]{1,60}"), any::<bool>(), tls, any::<Option<u32>>()).prop_map(
            |(by, extended, tls, wall_s)| Received {
                by,
                extended,
                tls,
                wall_s: wall_s.map(u64::from),
            },
        )
    }

    prop_compose! {
        fn envelope()(
            (node, run, core, counter, n) in any::<(u16, u16, u8, u32, u32)>(),
            received_wall_us: u64,
            client: Option<(IpAddr, u16)>,
            helo in prop_oneof![octets("[a-zA-Z0-9.-]{0,70}"), octets("(?s).{0,20}")],
            ptr in ptr(),
            ptr_name in prop_oneof![octets("[a-z0-9.-]{0,80}"), octets("(?s).{0,20}")],
            tls in tls(),
            smtputf8: bool,
            recipients in vec(prop_oneof![octets("[a-z@.]{1,90}"), octets("(?s).{0,20}")], 0..3),
            received in received(),
        ) -> Envelope {
            let session = MessageId::new(node, u32::from(run), core, u64::from(counter));
            let recipient = |address| Recipient { address, ..Recipient::default() };
            Envelope {
                id: TransactionId { session, n },
                received_wall_us,
                client: client.map(SocketAddr::from),
                helo,
                ptr,
                ptr_name,
                tls,
                mail: MailFrom { smtputf8, ..MailFrom::default() },
                recipients: recipients.into_iter().map(recipient).collect(),
                edits: vec![
                    Edit::Remove { name: (*b"Bcc").into(), nth: 0 },
                    Edit::Received(received),
                ],
                ..Envelope::default()
            }
        }
    }

    const HEADER: &[u8] = b"Bcc: x\r\nReceived: from elsewhere\r\n\tby nowhere\r\nTo: a\r\n\r\n";

    fn stored(envelope: &Envelope, format: Format) -> Envelope {
        let mut out = Vec::new();
        encode(envelope, format, &mut out);
        Envelope::decode(&out).expect("made here")
    }

    proptest! {
        /// What format 2 makes is what format 1 keeps, after the way through the log and whatever
        /// became of the message meanwhile.
        #[test]
        fn the_line_is_the_same_octet_for_octet(envelope in envelope()) {
            let first = stored(&envelope, Format::V1);
            let second = stored(&envelope, Format::V2);
            prop_assert!(first.edits.iter().all(|edit| !matches!(edit, Edit::Received(_))));
            prop_assert_eq!(&second, &envelope);
            let sent = apply(HEADER, &first);
            prop_assert_eq!(&sent, &apply(HEADER, &second));
            prop_assert_eq!(&sent, &apply(HEADER, &envelope));
            prop_assert!(sent.starts_with(b"Received:") && sent.ends_with(b"To: a\r\n\r\n"));
            let mut later = second;
            for recipient in &mut later.recipients {
                recipient.routed = (*b"to@another.host").into();
                recipient.tries = 7;
            }
            later.next_wall_us = 12;
            prop_assert_eq!(&sent, &apply(HEADER, &stored(&later, Format::V2)));
            // And as format 1 keeps what was read in format 2.
            prop_assert_eq!(&sent, &apply(HEADER, &stored(&later, Format::V1)));
        }
    }

    /// The words are those that the session's facts give when the line is made at once.
    #[test]
    fn each_word_is_the_envelopes() {
        let mut envelope = Envelope {
            id: "0123456789ABCDEFGHJK.1".parse().expect("an id"),
            received_wall_us: 1_795_157_615_000_000,
            client: Some("[2001:db8::1]:99".parse().expect("an address")),
            helo: (*b"mail.example.com").into(),
            tls: Some(Tls { version: 0x0304, cipher: 0x1302, ..Tls::default() }),
            mail: MailFrom { smtputf8: true, ..MailFrom::default() },
            ..Envelope::default()
        };
        let by =
            Received { by: (*b"mx.example.org").into(), extended: true, ..Received::default() };
        envelope.edits = vec![Edit::Received(by.clone())];
        let text = |envelope: &Envelope| {
            let sent = String::from_utf8(apply(b"", envelope)).expect("text");
            sent.replace("\r\n\t", " ").trim_end().to_owned()
        };
        assert_eq!(
            text(&envelope),
            "Received: from mail.example.com ([IPv6:2001:db8::1]) by mx.example.org with UTF8SMTPS \
             (TLS1.3:TLS13_AES_256_GCM_SHA384) id 0123456789ABCDEFGHJK.1; \
             Fri, 20 Nov 2026 06:53:35 +0000"
        );
        envelope.client = Some("192.0.2.1:25".parse().expect("an address"));
        (envelope.ptr, envelope.ptr_name) = (PtrVerdict::Confirmed, (*b"host.example.com").into());
        (envelope.tls, envelope.mail.smtputf8) = (None, false);
        let address = (*b"someone@example.org").into();
        envelope.recipients = vec![Recipient { address, ..Recipient::default() }];
        let old = Received { extended: false, wall_s: Some(0), ..by };
        envelope.edits = vec![Edit::Received(old)];
        assert_eq!(
            text(&envelope),
            "Received: from mail.example.com (host.example.com [192.0.2.1]) by mx.example.org \
             with SMTP id 0123456789ABCDEFGHJK.1 for <someone@example.org>; \
             Thu, 01 Jan 1970 00:00:00 +0000"
        );
    }
}
