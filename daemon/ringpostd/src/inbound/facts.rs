//! Facts for decisions and for the log: recipients, ways, settings, envelopes.

use std::borrow::Cow;
use std::sync::Arc;

use engine::Conn;
use smtp::address::Address;
use smtp::command::{Body, Offers, Ret};
use smtp::data::BareNewline;
use smtp::server::{self, Settings, Timeouts, Token, Violation};
use spool::edits::{self, Edit};
use spool::message::{self, BodyType, Envelope, MailFrom, PtrVerdict, Recipient, notify};

use super::host::Talk;
use crate::acl::Way;
use crate::config::{self, Config, EarlyTalker, ListenerConfig, ListenerTls, Standing};
use crate::desk::{Desk, Pending, reason_of_error};
use crate::dns::Reverse;
use crate::events::{Accepted, Event, Reason};
use crate::health;
use crate::tls::SessionInfo;

const SECOND_US: u64 = 1_000_000;
/// Recipients refused in one session before it ends; many of them are a harvest.
const REFUSED_RCPT_MAX: u32 = 200;

/// The machine's settings on one listener.
fn settings(config: &Config, listener: &ListenerConfig, has_tls: bool) -> Settings {
    let policy = &config.policy;
    let timeouts = &config.timeouts_in;
    Settings {
        offers: Offers {
            starttls: has_tls && listener.tls == ListenerTls::Starttls,
            ..Offers::all(policy.size_max.octets())
        },
        rcpt_max: policy.rcpt_max,
        mail_max: policy.messages_max,
        junk_max: policy.idle_commands_max,
        errors_max: policy.errors_max,
        refused_rcpt_max: REFUSED_RCPT_MAX,
        received_max: policy.received_max,
        bare_newline: match policy.bare_newline {
            config::BareNewline::Refuse => BareNewline::Refuse,
            config::BareNewline::Normalise => BareNewline::Normalise,
        },
        early_talker: match policy.early_talker {
            EarlyTalker::Refuse => Violation::Refuse,
            EarlyTalker::Note => Violation::Note,
        },
        timeouts: Timeouts {
            command_us: timeouts.command_s.us(),
            data_us: timeouts.data_s.us(),
            starttls_us: timeouts.starttls_s.us(),
            session_us: timeouts.session_s.us(),
            ..Timeouts::default()
        },
        ..Settings::new(config.node.hostname.as_str())
    }
}

/// What EHLO announces: what no way carries would only lead to refusals.
pub(super) fn offers(desk: &Desk, offers: Offers) -> Offers {
    let carries = desk.ways.some_carry(desk.hints, desk.wall_us);
    Offers {
        smtputf8: offers.smtputf8 && carries.utf8,
        binary_mime: offers.binary_mime && carries.binary,
        ..offers
    }
}

/// A recipient as our lists know it.
pub(super) struct Known {
    pub(super) standing: Standing,
    pub(super) domain: Vec<u8>,
}

/// Looks a recipient up. A bare `postmaster` is that of the first relay domain, or whoever the
/// config names.
pub(super) fn recipient(desk: &Desk, to: Address<'_>) -> Known {
    let config = desk.config();
    if to.domain().is_none() {
        return Known { standing: Standing::Known, domain: postmaster_domain(config) };
    }
    let domain = to.domain_bytes().to_ascii_lowercase();
    let local = unquoted(to.local());
    Known { standing: config.recipients.look_up(&local, &domain), domain }
}

fn postmaster_domain(config: &Config) -> Vec<u8> {
    let named = config.policy.postmaster.as_ref().map(|mailbox| &mailbox.domain);
    let domain = named.or_else(|| config.policy.relay_domains.first());
    let domain = domain.map_or(config.node.hostname.as_str(), |domain| domain.as_str());
    domain.to_ascii_lowercase().into_bytes()
}

/// Where mail to this address goes: a bare `postmaster` gets a domain.
fn routed(config: &Config, address: &[u8]) -> Box<[u8]> {
    if address.contains(&b'@') {
        return Box::default();
    }
    if let Some(mailbox) = &config.policy.postmaster {
        return [mailbox.local.as_bytes(), b"@", mailbox.domain.as_str().as_bytes()]
            .concat()
            .into();
    }
    [b"postmaster@", &postmaster_domain(config)[..]].concat().into()
}

/// A local part as lists know it: `"a\b"` is `ab`.
fn unquoted(local: &[u8]) -> Cow<'_, [u8]> {
    let Some(inside) = local.strip_prefix(b"\"").and_then(|l| l.strip_suffix(b"\"")) else {
        return Cow::Borrowed(local);
    };
    let mut out = Vec::with_capacity(inside.len());
    let mut octets = inside.iter();
    while let Some(octet) = octets.next() {
        out.push(if *octet == b'\\' { *octets.next().unwrap_or(octet) } else { *octet });
    }
    Cow::Owned(out)
}

/// The way to a domain, if it is known.
pub(super) fn way(desk: &Desk, domain: &[u8]) -> Option<Way> {
    let domain = str::from_utf8(domain).unwrap_or_default();
    if health::is_below(domain) && !desk.door.is(domain) {
        return Some(Way::NoHost);
    }
    desk.ways.way(desk.hints, domain, desk.wall_us)
}

/// Whether the client is this very machine.
pub(super) fn is_own(talk: &Talk) -> bool {
    let (remote, local) = (talk.remote.ip(), talk.local.ip());
    talk.proxy.is_none() && (remote.is_loopback() || remote == local)
}

/// Whether this recipient is the health check's, and the client the machine itself.
pub(super) fn is_health_check(talk: &Talk, desk: &Desk, domain: &[u8]) -> bool {
    is_own(talk) && str::from_utf8(domain).is_ok_and(|domain| desk.door.is(domain))
}

/// Whether every recipient's mail is thrown away without being kept.
pub(super) fn discards(desk: &Desk, taken: &server::Envelope) -> bool {
    desk.ways.discards_at_once()
        && taken.recipients().all(|recipient| {
            let at = recipient.address.iter().rposition(|octet| *octet == b'@');
            let domain = &recipient.address[at.map_or(0, |at| at + 1)..];
            desk.ways.discards(str::from_utf8(domain).unwrap_or_default()) == Some(false)
        })
}

/// The line of a message that was taken and thrown away; no log keeps it.
pub(super) fn tell_discarded(talk: &Talk, desk: &mut Desk, taken: &server::Envelope, octets: u64) {
    let accepted = Accepted {
        client: talk.client(),
        sender: taken.sender(),
        recipients: u32::try_from(taken.recipients().len()).unwrap_or(u32::MAX),
        octets,
        message_id: None,
        subject: None,
    };
    desk.tell(&Event::Accepted(&accepted));
    desk.tell(&Event::Completed { id: talk.id_text(), queue_us: 0 });
}

/// Hands the whole message to the log; its answer comes by event.
pub(super) fn commit(
    talk: &mut Talk,
    desk: &mut Desk,
    waits: (Conn, Token),
    taken: &server::Envelope,
    seen: &smtp::data::Facts,
) -> Result<(), Reason> {
    let envelope = Box::new(envelope(talk, desk, taken, seen));
    let Some(open) = &mut talk.open else { return Err(Reason::Local) };
    let Some(tx) = open.tx() else { return Err(Reason::Local) };
    let header = desk.log.header(tx).unwrap_or_default();
    let message_id = field(header, b"message-id").map(|id| {
        let id = id.strip_prefix(b"<").unwrap_or(id);
        id.strip_suffix(b">").unwrap_or(id).into()
    });
    let subject = field(header, b"subject").map(Into::into);
    let committed = desk.log.commit(tx, &envelope, Vec::new());
    // The log has it, or has closed it: in either case it is not ours to abort any more.
    let _ = open.take();
    committed.map_err(reason_of_error)?;
    let token = open.token;
    let pending = Pending {
        waits: Some(waits),
        envelope,
        message_id,
        subject,
        protocol: talk.protocol(),
        tls: talk.tls.as_ref().map(|tls| (tls.version, tls.cipher)),
        octets: seen.octets,
        dot_us: desk.now_us,
    };
    desk.pending.insert(token, Box::new(pending));
    Ok(())
}

/// The first line of the first field of that name (lower case), trimmed.
fn field<'a>(header: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let first = name.first()?;
    let mut rest_of_header = header;
    while !rest_of_header.is_empty() {
        let end = memchr::memchr(b'\n', rest_of_header).unwrap_or(rest_of_header.len() - 1);
        let (line, later) = rest_of_header.split_at(end + 1);
        rest_of_header = later;
        if line[0].to_ascii_lowercase() != *first {
            continue;
        }
        let Some(rest) = line.get(name.len()..) else { continue };
        if line[..name.len()].eq_ignore_ascii_case(name)
            && let Some(value) = rest.strip_prefix(b":")
        {
            return Some(value.trim_ascii());
        }
    }
    None
}

fn envelope(
    talk: &Talk,
    desk: &Desk,
    taken: &server::Envelope,
    seen: &smtp::data::Facts,
) -> Envelope {
    let config = desk.config();
    let mail = taken.mail();
    let recipients: Vec<Recipient> = taken
        .recipients()
        .map(|recipient| Recipient {
            address: recipient.address.into(),
            routed: routed(config, recipient.address),
            orcpt: recipient.parameters.orcpt.unwrap_or_default().into(),
            notify: recipient.parameters.notify.map(notify_bits),
            ..Recipient::default()
        })
        .collect();
    let tls = talk.tls.as_deref().map(tls_record);
    let received = received(talk, desk, tls.as_ref());
    let open = talk.open.as_ref();
    Envelope {
        id: open.map(|open| open.id).unwrap_or_default(),
        received_wall_us: desk.receipt_wall_us,
        client: Some(talk.remote),
        local: Some(talk.local),
        proxy: talk.proxy,
        helo: talk.helo.clone(),
        ptr: ptr_verdict(talk.reverse.as_ref()),
        ptr_name: ptr_name(talk.reverse.as_ref()),
        tls,
        listener: talk.listener.to_string().into_bytes().into(),
        config_generation: desk.orders.generation,
        mail: MailFrom {
            address: taken.sender().into(),
            body: match mail.body {
                Body::SevenBit => BodyType::SevenBit,
                Body::EightBitMime => BodyType::EightBitMime,
                Body::BinaryMime => BodyType::BinaryMime,
            },
            size: mail.size,
            smtputf8: mail.smtputf8,
            ret: mail.ret.map(|ret| match ret {
                Ret::Full => message::Ret::Full,
                Ret::Hdrs => message::Ret::Headers,
            }),
            envid: mail.envid.unwrap_or_default().into(),
            ..MailFrom::default()
        },
        recipients,
        facts: message::Facts {
            eight_bit: seen.header_8bit || seen.body_8bit,
            nul: seen.header_nul || seen.body_nul,
            longest_line: u32::try_from(seen.line_longest).unwrap_or(u32::MAX),
            received_count: seen.received,
            ..message::Facts::default()
        },
        edits: vec![Edit::Received(received)],
        ..Envelope::default()
    }
}

/// What the Received line says that no other field of the envelope does.
fn received(talk: &Talk, desk: &Desk, tls: Option<&message::Tls>) -> edits::Received {
    let known = |info: &SessionInfo| {
        tls.is_some_and(|tls| spool::received::says(tls, info.version, info.cipher))
    };
    let unknown = talk.tls.as_deref().filter(|info| !known(info));
    let tls = unknown.map(|info| format!("{}:{}", info.version, info.cipher));
    let second = desk.wall_us / SECOND_US;
    edits::Received {
        by: desk.config().node.hostname.as_str().as_bytes().into(),
        extended: talk.extended,
        tls: tls.unwrap_or_default().into_bytes().into(),
        // The clock is in doubt.
        wall_s: Some(second).filter(|second| *second != desk.receipt_wall_us / SECOND_US),
    }
}

fn notify_bits(notify: smtp::command::Notify) -> u8 {
    let bit = |on, bit| if on { bit } else { 0 };
    let bits = bit(notify.success, notify::SUCCESS)
        | bit(notify.failure, notify::FAILURE)
        | bit(notify.delay, notify::DELAY);
    if bits == 0 { notify::NEVER } else { bits }
}

const fn ptr_verdict(reverse: Option<&Reverse>) -> PtrVerdict {
    match reverse {
        None => PtrVerdict::Unasked,
        Some(Reverse::Confirmed(_)) => PtrVerdict::Confirmed,
        Some(Reverse::Unconfirmed(_)) => PtrVerdict::Unconfirmed,
        Some(Reverse::NoName) => PtrVerdict::None,
        Some(Reverse::Unknown(_)) => PtrVerdict::Temporary,
    }
}

fn ptr_name(reverse: Option<&Reverse>) -> Box<[u8]> {
    match reverse {
        Some(Reverse::Confirmed(name) | Reverse::Unconfirmed(name)) => name.as_bytes().into(),
        Some(Reverse::Unknown(Some(name))) => name.as_bytes().into(),
        _ => Box::default(),
    }
}

fn tls_record(info: &SessionInfo) -> message::Tls {
    message::Tls {
        version: if info.version == "TLS1.3" { 0x0304 } else { 0x0303 },
        cipher: info.cipher_number,
        peer_fingerprint: info.peer_sha256.map(|sum| sum.to_vec().into()).unwrap_or_default(),
    }
}

/// Settings for each listener of a config.
#[must_use]
pub fn machines(config: &Config, has_tls: bool) -> Vec<Arc<Settings>> {
    config.listeners.iter().map(|l| Arc::new(settings(config, l, has_tls))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_any_case() {
        let header = b"Received: x\r\nMESSAGE-id:  <a@b> \r\nSubject: hello\r\n\r\n";
        assert_eq!(field(header, b"message-id"), Some(&b"<a@b>"[..]));
        assert_eq!(field(header, b"subject"), Some(&b"hello"[..]));
        assert_eq!(field(header, b"from"), None);
        assert_eq!(field(b"To: x\nSubject: at the end", b"subject"), Some(&b"at the end"[..]));
        assert_eq!(field(b"\nS\nSub\nSubjects: no\nSubject :no\n", b"subject"), None);
        assert_eq!(field(b"", b"subject"), None);
    }

    #[test]
    fn quotes_of_a_local_part_come_off() {
        assert_eq!(&*unquoted(br#""a\"b c""#), b"a\"b c");
        assert_eq!(&*unquoted(b"plain"), b"plain");
    }
}
