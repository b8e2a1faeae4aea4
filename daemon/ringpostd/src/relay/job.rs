//! One attempt at one message for one destination: what is known of it, and its content.

use std::sync::Arc;

use engine::Conn;
use smtp::client::{self, Client, Extension};
use spool::id::TransactionId;
use spool::log::{Content, StoredMessage};
use spool::message::{BodyType, Envelope, Recipient, Ret, notify};
use spool::received;
use spool::record::{RecipientResult, RecipientState};

use crate::events::Reason;
use crate::outbound::Hop;
use crate::queue::{Handle, Work};
use crate::route::Route;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The log reads the message.
    Reading,
    /// The way is being found out; given up at this time.
    Resolving(u64),
    /// A connection sends it.
    Sending(Conn),
    /// All recipients have their outcome.
    Over,
}

/// What became of a recipient in this attempt.
#[derive(Debug, Clone)]
pub(super) struct Result {
    pub(super) recipient: u16,
    pub(super) fate: Fate,
    /// Reply, or our words; empty when the reason says it all.
    pub(super) reply: Box<str>,
    /// The host that said so.
    pub(super) hop: Option<Arc<Hop>>,
}

/// In which direction it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Delivered,
    /// The route throws it away.
    Discarded,
    Deferred(Reason),
    Failed(Reason),
}

/// One attempt.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) id: TransactionId,
    pub(super) stage: Stage,
    pub(super) envelope: Option<Box<Envelope>>,
    pub(super) source: Source,
    pub(super) route: Option<Arc<Route>>,
    pub(super) domain: Box<str>,
    pub(super) tier: u8,
    /// Recipients without an outcome.
    pub(super) left: Vec<u16>,
    /// Recipients of the transaction under way.
    pub(super) sent: Vec<u16>,
    pub(super) results: Vec<Result>,
    /// Hosts not tried yet, best last.
    pub(super) hops: Vec<Hop>,
    /// The host tried last, and how it failed.
    pub(super) failure: Option<(Reason, Box<str>, Option<Arc<Hop>>)>,
    /// No host answered.
    pub(super) unreachable: bool,
    pub(super) started_us: u64,
    pub(super) dot_us: u64,
    /// TLS of the connection that sends it, for the log.
    pub(super) tls: Option<(&'static str, &'static str)>,
    /// The host knows DSN: it will report success itself.
    pub(super) hop_reports: bool,
    /// Recipients of it wait for a standing order to be taken back.
    pub(super) kept_back: bool,
}

impl Job {
    pub(super) fn new(work: Work, id: TransactionId, now_us: u64) -> Self {
        Self {
            work,
            id,
            stage: Stage::Reading,
            envelope: None,
            source: Source::default(),
            route: None,
            domain: Box::default(),
            tier: 0,
            left: Vec::new(),
            sent: Vec::new(),
            results: Vec::new(),
            hops: Vec::new(),
            failure: None,
            unreachable: false,
            started_us: now_us,
            dot_us: 0,
            tls: None,
            hop_reports: false,
            kept_back: false,
        }
    }

    pub(super) const fn handle(&self) -> Handle {
        self.work.handle
    }

    /// Ends all recipients that are left with the same fate.
    pub(super) fn end_all(&mut self, fate: Fate, reply: &str, hop: Option<&Arc<Hop>>) {
        for recipient in std::mem::take(&mut self.left) {
            self.end(recipient, fate, reply, hop);
        }
    }

    pub(super) fn end(&mut self, recipient: u16, fate: Fate, reply: &str, hop: Option<&Arc<Hop>>) {
        self.left.retain(|n| *n != recipient);
        self.results.push(Result { recipient, fate, reply: reply.into(), hop: hop.cloned() });
    }

    /// The transaction for as many of the recipients left as the host takes at once.
    pub(super) fn transaction(&mut self, recipients_max: usize) -> Option<client::Envelope> {
        let envelope = self.envelope.as_deref()?;
        self.sent = self.left.iter().copied().take(recipients_max.max(1)).collect();
        let recipients = self.sent.iter().filter_map(|n| {
            let recipient = envelope.recipients.get(usize::from(*n))?;
            let optional = |octets: &[u8]| (!octets.is_empty()).then(|| octets.into());
            Some(client::Recipient {
                address: address_of(envelope, *n).into(),
                notify: recipient.notify.map(notify_of),
                orcpt: optional(&recipient.orcpt),
            })
        });
        let recipients = recipients.collect();
        self.source.rewind();
        Some(client::Envelope {
            sender: envelope.mail.address.clone(),
            body: match envelope.mail.body {
                BodyType::BinaryMime => smtp::command::Body::BinaryMime,
                BodyType::EightBitMime => smtp::command::Body::EightBitMime,
                // 8-bit content that was not declared is sent as what it is.
                _ if envelope.facts.eight_bit => smtp::command::Body::EightBitMime,
                _ => smtp::command::Body::SevenBit,
            },
            size: self.source.octets(),
            smtputf8: envelope.mail.smtputf8,
            ret: envelope.mail.ret.map(|ret| match ret {
                Ret::Full => smtp::command::Ret::Full,
                Ret::Headers => smtp::command::Ret::Hdrs,
            }),
            envid: (!envelope.mail.envid.is_empty()).then(|| envelope.mail.envid.clone()),
            recipients,
        })
    }
}

/// NOTIFY from the log's bits.
pub(super) const fn notify_of(bits: u8) -> smtp::command::Notify {
    smtp::command::Notify {
        success: bits & notify::SUCCESS != 0,
        failure: bits & notify::FAILURE != 0,
        delay: bits & notify::DELAY != 0,
    }
}

/// The address a recipient is sent to.
pub(super) fn address_of(envelope: &Envelope, recipient: u16) -> &[u8] {
    match envelope.recipients.get(usize::from(recipient)) {
        Some(recipient) if recipient.routed.is_empty() => &recipient.address,
        Some(recipient) => &recipient.routed,
        None => b"",
    }
}

/// The domain of an address, lower case.
pub(super) fn domain_of(address: &[u8]) -> String {
    let at = address.iter().rposition(|octet| *octet == b'@').map_or(0, |at| at + 1);
    String::from_utf8_lossy(&address[at..]).to_ascii_lowercase()
}

/// What the log keeps of a recipient that waits as it did before.
pub(super) fn unchanged(n: u16, recipient: &Recipient) -> RecipientResult {
    RecipientResult {
        recipient: n,
        state: RecipientState::Pending,
        reply: recipient.reply.clone(),
        tries: recipient.tries,
        route: recipient.route.clone(),
        tier: recipient.tier,
    }
}

/// What the log keeps of a recipient's attempt.
pub(super) fn record(job: &Job, envelope: &Envelope, result: &Result) -> RecipientResult {
    let before = envelope.recipients.get(usize::from(result.recipient));
    let null = envelope.mail.address.is_empty();
    let mut reply = result.reply.as_bytes();
    reply = &reply[..reply.len().min(spool::limits::REPLY_BYTES_MAX)];
    RecipientResult {
        recipient: result.recipient,
        state: match result.fate {
            Fate::Delivered => RecipientState::Delivered,
            Fate::Discarded => RecipientState::Removed,
            Fate::Deferred(_) => RecipientState::Pending,
            Fate::Failed(_) if null => RecipientState::Discarded,
            Fate::Failed(_) => RecipientState::Failed,
        },
        reply: reply.into(),
        tries: before.map_or(0, |recipient| recipient.tries).saturating_add(1),
        route: job.route.as_ref().map_or(&b""[..], |route| route.name.as_bytes()).into(),
        tier: job.tier,
    }
}

/// The next thing the source gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fed {
    /// The machine has enough for now.
    Enough,
    /// This chunk must be read first.
    Needs(u32),
    /// All was given.
    All,
}

/// A message's content as it is sent: edited header, chunks from the log, the rest from memory.
#[derive(Debug, Default)]
pub(super) struct Source {
    header: Vec<u8>,
    tail: Vec<u8>,
    chunks: u32,
    body_octets: u64,
    /// Header, chunk n, tail: 0, 1 + n, 1 + chunks.
    part: u32,
    at: usize,
    chunk: Option<(u32, Vec<u8>)>,
    ended: bool,
}

impl Source {
    /// From what the log gave back at the commit.
    pub(super) fn from_memory(content: Content, envelope: &Envelope) -> Self {
        let body_octets = content.body.len() as u64;
        let header = received::apply(&content.header, envelope);
        Self { header, tail: content.body, body_octets, ..Self::default() }
    }

    /// From what was read back.
    pub(super) fn from_log(stored: &mut StoredMessage) -> Self {
        Self {
            header: received::apply(&stored.header, &stored.envelope),
            tail: std::mem::take(&mut stored.tail),
            chunks: stored.chunks,
            body_octets: stored.body_octets,
            ..Self::default()
        }
    }

    pub(super) const fn octets(&self) -> u64 {
        self.header.len() as u64 + self.body_octets
    }

    pub(super) fn header(&self) -> &[u8] {
        &self.header
    }

    /// The whole body, when it is in memory.
    pub(super) fn body(&self) -> Option<&[u8]> {
        (self.chunks == 0).then_some(&self.tail)
    }

    fn rewind(&mut self) {
        (self.part, self.at, self.ended) = (0, 0, false);
    }

    /// A chunk that was asked for.
    pub(super) fn got(&mut self, chunk: u32, data: Vec<u8>) {
        self.chunk = Some((chunk, data));
    }

    /// Gives the machine what it takes.
    pub(super) fn feed(&mut self, machine: &mut Client, now_us: u64) -> Fed {
        loop {
            if !machine.want_content() {
                return if self.ended { Fed::All } else { Fed::Enough };
            }
            let piece: &[u8] = match self.part {
                0 => &self.header,
                n if n <= self.chunks => match &self.chunk {
                    Some((have, data)) if *have == n - 1 => data,
                    _ => return Fed::Needs(n - 1),
                },
                n if n == self.chunks + 1 => &self.tail,
                _ => {
                    self.ended = true;
                    machine.end_content(now_us);
                    return Fed::All;
                }
            };
            let rest = &piece[self.at..];
            if rest.is_empty() {
                self.part += 1;
                self.at = 0;
                continue;
            }
            let taken = machine.put_content(now_us, rest);
            if taken == 0 {
                return Fed::Enough;
            }
            self.at += taken;
        }
    }
}

/// Hints' bits for a host's offers.
pub(super) fn offers_of(offers: &client::Offers, wall_us: u64) -> hints::offers::Offers {
    use hints::offers as h;
    let pairs = [
        (Extension::Pipelining, h::PIPELINING),
        (Extension::Size, h::SIZE),
        (Extension::EightBitMime, h::EIGHT_BIT_MIME),
        (Extension::BinaryMime, h::BINARYMIME),
        (Extension::Chunking, h::CHUNKING),
        (Extension::SmtpUtf8, h::SMTPUTF8),
        (Extension::Dsn, h::DSN),
        (Extension::EnhancedStatusCodes, h::ENHANCEDSTATUSCODES),
        (Extension::StartTls, h::STARTTLS),
        (Extension::Limits, h::LIMITS),
    ];
    let bit = |(extension, bit): &(Extension, u64)| if offers.has(*extension) { *bit } else { 0 };
    hints::offers::Offers {
        extensions: pairs.iter().map(bit).sum(),
        size_octets_max: offers.size_max,
        recipients_max: offers.recipients_max,
        messages_max: offers.messages_max,
        seen_us: wall_us,
    }
}
