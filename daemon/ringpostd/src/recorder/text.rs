//! From events to entries, and from entries to sentences.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::what::What;
use super::{Entry, TEXT_OCTETS_MAX, of_client};
use crate::events::{Attempt, Client, Ending, Event, Reason, Stage};

/// Words divided by spaces, in a fixed place.
struct Joined {
    octets: [u8; TEXT_OCTETS_MAX],
    length: usize,
}

impl Joined {
    fn of<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut joined = Self { octets: [0; TEXT_OCTETS_MAX], length: 0 };
        for word in words {
            if joined.length > 0 {
                joined.push(b" ");
            }
            joined.push(word);
        }
        joined
    }

    fn push(&mut self, octets: &[u8]) {
        let taken = octets.len().min(TEXT_OCTETS_MAX - self.length);
        self.octets[self.length..self.length + taken].copy_from_slice(&octets[..taken]);
        self.length += taken;
    }

    fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }
}

fn reason_number(reason: Reason) -> Option<u16> {
    u16::try_from(reason.index()).ok()
}

/// The reason of an entry.
pub(super) fn reason_of(entry: &Entry<'_>) -> Option<Reason> {
    Reason::ALL.get(usize::from(entry.reason?)).copied()
}

/// Gives the entry of an event to `take`, if the event has one.
pub(super) fn with_entry(wall_us: u64, event: &Event<'_>, take: impl FnOnce(&Entry<'_>)) {
    let client = |what, client: &Client<'_>, take: &mut dyn FnMut(Entry<'_>)| {
        take(Entry { from: client.helo, ..of_client(wall_us, what, client) });
    };
    let mut take = Some(take);
    let mut give = |entry: Entry<'_>| {
        if let Some(take) = take.take() {
            take(&entry);
        }
    };
    match *event {
        Event::Connected(c) => client(What::Connected, c, &mut give),
        Event::TlsStarted(c) => {
            let tls = c.tls.map_or(["", ""], |tls| [tls.version, tls.cipher]);
            let said = Joined::of(tls.map(str::as_bytes));
            give(Entry { said: said.octets(), ..of_client(wall_us, What::Tls, c) });
        }
        Event::TlsFailed { client: c, error } => {
            give(Entry { said: error.as_bytes(), ..of_client(wall_us, What::TlsFailed, c) });
        }
        Event::EarlyTalker { client: c, said } => {
            give(Entry { said, ..of_client(wall_us, What::Early, c) });
        }
        Event::ConnectRefused { client: c, reason } => {
            let reason = reason_number(reason);
            give(Entry { reason, ..of_client(wall_us, What::TurnedAway, c) });
        }
        Event::LimitHit { client: c, reason } => {
            let reason = reason_number(reason);
            give(Entry { reason, ..of_client(wall_us, What::Limit, c) });
        }
        Event::Line { client: c, heard, recipient, octets } => {
            let what = if heard { What::Heard } else { What::Said };
            give(Entry { said: octets, to: recipient, ..of_client(wall_us, what, c) });
        }
        Event::SessionClosed { client: c, ending, in_transaction } => {
            let number = ending.index() as u64 + if in_transaction { 16 } else { 0 };
            give(Entry { number, from: c.helo, ..of_client(wall_us, What::Closed, c) });
        }
        Event::CommandRefused(refused) => {
            let to = Joined::of(refused.recipients.iter().copied());
            give(Entry {
                reason: reason_number(refused.reason),
                number: refused.stage.index() as u64,
                from: refused.sender.unwrap_or_default(),
                to: to.octets(),
                said: refused.detail,
                ..of_client(wall_us, What::Refused, &refused.client)
            });
        }
        Event::Accepted(accepted) => give(Entry {
            number: accepted.octets,
            from: accepted.sender,
            said: accepted.message_id.unwrap_or_default(),
            ..of_client(wall_us, What::Accepted, &accepted.client)
        }),
        _ => of_mail(wall_us, event, &mut give),
    }
}

/// What happens to mail we answer for.
fn of_mail(wall_us: u64, event: &Event<'_>, give: &mut dyn FnMut(Entry<'_>)) {
    let none = |what, id: &str, give: &mut dyn FnMut(Entry<'_>), number, said: &[u8]| {
        give(Entry {
            wall_us,
            what,
            reason: None,
            number,
            peer: None,
            id: id.as_bytes(),
            from: b"",
            to: b"",
            said,
        });
    };
    match *event {
        Event::Generated(made) => {
            none(What::Generated, made.id, give, made.octets, made.parent.as_bytes());
        }
        Event::Relayed { attempt, .. } => tried(wall_us, What::Relayed, attempt, None, give),
        Event::Deferred { attempt, reason } => {
            tried(wall_us, What::Deferred, attempt, Some(reason), give);
        }
        Event::Bounced { attempt, reason } => {
            tried(wall_us, What::Bounced, attempt, Some(reason), give);
        }
        Event::Completed { id, queue_us } => {
            none(What::Completed, id, give, queue_us / 1_000, b"");
        }
        Event::Held { id, why } => none(What::Held, id, give, 0, why.as_bytes()),
        Event::Released { id } => none(What::Released, id, give, 0, b""),
        Event::Moved { id, to, uid } => none(What::Moved, id, give, u64::from(uid), to.as_bytes()),
        Event::Removed { id, uid } => none(What::Removed, id, give, u64::from(uid), b""),
        _ => {}
    }
}

fn tried(
    wall_us: u64,
    what: What,
    attempt: &Attempt<'_>,
    reason: Option<Reason>,
    give: &mut dyn FnMut(Entry<'_>),
) {
    let to = Joined::of([Some(attempt.recipient), attempt.original].into_iter().flatten());
    give(Entry {
        wall_us,
        what,
        reason: reason.and_then(reason_number),
        number: attempt.delivery_us / 1_000,
        peer: attempt.hop.map(|hop| hop.address),
        id: attempt.id.as_bytes(),
        from: attempt.hop.map_or(attempt.route, |hop| hop.name).as_bytes(),
        to: to.octets(),
        said: attempt.reply,
    });
}

fn lossy(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).replace("\r\n", " / ").trim_end().to_owned()
}

/// What an entry says, in one sentence.
#[must_use]
pub fn sentence(entry: &Entry<'_>) -> String {
    let mut out = String::new();
    let peer = entry.peer.map_or_else(String::new, |peer: SocketAddr| peer.to_string());
    let (from, to, said) = (lossy(entry.from), lossy(entry.to), lossy(entry.said));
    let why = reason_of(entry).map_or_else(String::new, |reason| {
        let answer = reason.answer();
        format!("{} {} {}", answer.code, answer.enhanced, answer.text)
    });
    let number = entry.number;
    let host = || if peer.is_empty() { from.clone() } else { format!("{from} [{peer}]") };
    // Writing to a string cannot fail.
    let _ = match entry.what {
        What::Connected => write!(out, "{peer} connected"),
        What::TurnedAway => write!(out, "{peer} was turned away: {why}"),
        What::Refused => {
            let stage = Stage::ALL.get(usize::try_from(number).unwrap_or(usize::MAX));
            let at = stage.map_or("?", |stage| stage.label());
            let to = if to.is_empty() { String::new() } else { format!(", to <{to}>") };
            let said = if said.is_empty() { String::new() } else { format!(": {said}") };
            write!(out, "{peer} was refused at {at}: {why} (from <{from}>{to}){said}")
        }
        What::Early => write!(out, "{peer} spoke before the greeting {said}"),
        What::Limit => write!(out, "{peer} reached a limit: {why}"),
        What::Tls => write!(out, "{peer} speaks {said}"),
        What::TlsFailed => write!(out, "TLS with {peer} failed: {said}"),
        What::Closed => {
            let ending = usize::try_from(number % 16).unwrap_or(usize::MAX);
            let ending = Ending::ALL.get(ending).map_or("?", |ending| ending.label());
            let inside = if number >= 16 { " inside a transaction" } else { "" };
            write!(out, "the session of {peer} (HELO {from}) ended{inside}: {ending}")
        }
        What::Accepted => {
            write!(out, "accepted from {peer}: {number} octets from <{from}>, Message-ID {said}")
        }
        What::Generated => write!(out, "a report of {number} octets was made about {said}"),
        What::Relayed => write!(out, "<{to}> delivered to {} in {number} ms: {said}", host()),
        What::Deferred => {
            let said = if said.is_empty() { why } else { said };
            write!(out, "<{to}> waits: {} said: {said}", host())
        }
        What::Bounced => {
            let said = if said.is_empty() { why } else { said };
            write!(out, "<{to}> failed: {} said: {said}", host())
        }
        What::Completed => write!(out, "nothing is left to do, after {number} ms"),
        What::Held => write!(out, "held: {said}"),
        What::Released => write!(out, "released"),
        What::Moved if said.is_empty() => {
            write!(out, "moved back to the route of its recipients by user {number}")
        }
        What::Moved => write!(out, "moved to {} by user {number}", said.trim_start_matches('@')),
        What::Removed => write!(out, "removed by user {number}"),
        What::Heard => write!(out, "{peer} -> {said}"),
        What::Said => write!(out, "{peer} <- {said}"),
    };
    out
}

/// What the operator can do about a refusal or deferral; empty where the text says it all.
#[must_use]
pub fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::Busy => "all session slots are in use: `ringpost sessions`, [node] sessions_max",
        Reason::Shutdown => "the daemon was stopping or restarting; the client comes again",
        Reason::ClientConnections => "[limits] connections_max; `ringpost sessions`",
        Reason::ClientConnectionRate => "[limits] connection_rate, or `ringpost allow ADDRESS`",
        Reason::ClientNoted => "`ringpost hints delete note \"client ADDRESS\"` forgives it",
        Reason::Suspended => "`ringpost resume accepting` takes mail again",
        Reason::Blocked => "`ringpost blocks` shows since when and why; `ringpost unblock ADDRESS`",
        Reason::ProxyHeader => "[[listener]] proxy_peers must name the proxy; see the proxy's log",
        Reason::ClientMessageRate | Reason::ClientRecipientRate => {
            "[limits] message_rate and recipient_rate, or exempt_networks; `ringpost hints list`"
        }
        Reason::SpoolFull | Reason::SpoolOut => {
            "`ringpost status` shows the space, `ringpost queue summary` what waits"
        }
        Reason::QueueFull => "`ringpost queue summary` shows which next hop does not take its mail",
        Reason::SpoolFailed => "a device fails or does not answer: `ringpost status` names it",
        Reason::LogUnwritable => "the log directory is full or read-only: df, [log] dir",
        Reason::RelayDenied => {
            "no relay domain, and the client is in no relay network: [policy] relay_domains"
        }
        Reason::UnknownRecipient => "`ringpost verify ADDRESS`; the recipient files of [policy]",
        Reason::NoRoute => "`ringpost route ADDRESS`; [[route]] domains",
        Reason::NoHost | Reason::NullMx | Reason::DnsTrouble | Reason::RouteLoop => {
            "`ringpost route ADDRESS` and `ringpost test dns DOMAIN` show what the DNS says"
        }
        Reason::AnswerLate => "the resolver is slow: `ringpost test dns DOMAIN`",
        Reason::HopRefused
        | Reason::HopConnectTimeout
        | Reason::HopUnreachable
        | Reason::HopTimeout
        | Reason::HopLost
        | Reason::HopLostAfterDot
        | Reason::HopBusy => {
            "`ringpost test backend HOST:PORT`; `ringpost queue summary`; then `queue retry`"
        }
        Reason::HopTls => "the next hop's certificate or TLS: [[route]] tls",
        Reason::HopTemporary | Reason::HopPermanent => "the next hop's own words stand in the line",
        Reason::BareCommand | Reason::BareContent => {
            "the client sends bare CR or LF (smuggling); [policy] bare_newline"
        }
        Reason::EarlyTalker => "the client does not wait for the greeting; [policy] early_talker",
        Reason::TlsRequired => "the listener wants STARTTLS first: [[listener]] tls_required",
        Reason::Size | Reason::SizeBehind => "[policy] size_max, or the next hop's SIZE",
        Reason::Operator => "an operator did it: the audit log says who",
        _ => "",
    }
}
