//! A session that is only played: the same machine, settings, TLS, facts and policy as any
//! client's, and nothing that lasts.
//!
//! *Guarantees.* No hint, rate, ban, count, log line, id or mail comes of it. What the DNS says of
//! a recipient's domain is looked up as for a client. What rates and limits would say is asked, and
//! nothing is counted there: the messages and recipients of the session itself are counted here.
//! *Limits.* Replies to one piece of input, [`OUT_OCTETS_MAX`]; what follows waits.
//! *Not here.* What DNS lists say is asked before, by the house. Nothing times out.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use control::ListedBy;
use smtp::address::Path;
use smtp::command::{Body, Offers};
use smtp::data::Flow;
use smtp::server::{self, Action, Answer, End, Note, Question, Server, Token};

use super::facts;
use super::ladder::Ladder;
use crate::acl::{self, Fact, RcptFacts, Verdict, Way};
use crate::config::{ListenerTls, Rung, Standing, any_contains};
use crate::desk::{Desk, Space};
use crate::dnsbl::{Finding, Judged};
use crate::events::Reason;
use crate::standing::Would;
use crate::tls;

/// How long a look-up is waited for.
const LOOKUP_US_MAX: u64 = 4_000_000;
/// Replies to one piece.
const OUT_OCTETS_MAX: usize = 512 << 10;
/// In the place of an id: no real one begins so.
pub const PLAYED_ID: &str = "REHEARSAL00000000000";

/// See the module.
#[derive(Debug)]
pub struct Rehearsal {
    machine: Server,
    part: Part,
    /// What the client said, as it came.
    said: VecDeque<Vec<u8>>,
    /// What of it the machine did not take yet.
    plain: Vec<u8>,
    tls: Option<Box<tls::Session>>,
    /// The other side ended it, or TLS failed.
    over: bool,
    /// What the client is to read, in records once there is TLS.
    sent: Vec<u8>,
    until_us: u64,
}

/// Everything but the machine.
#[derive(Debug)]
struct Part {
    from: IpAddr,
    listener: usize,
    may_relay: bool,
    exempt: bool,
    /// Messages and recipients so far: each would have counted.
    mails: u32,
    rcpts: u32,
    secured: bool,
    out: Vec<u8>,
    notes: Vec<String>,
    binary: bool,
    utf8: bool,
    size: Option<u64>,
    octets_max: Option<u64>,
    asked: Option<(Token, String, RcptFacts)>,
    ladder: Ladder,
}

/// The machine's host for one call.
struct Stage<'a> {
    part: &'a mut Part,
    desk: &'a Desk,
}

impl Rehearsal {
    /// A client from that address connects.
    #[must_use]
    pub fn new(desk: &Desk, from: IpAddr, listener: usize, by_dns: &ListedBy) -> Self {
        let from = from.to_canonical();
        let listener = listener.min(desk.machines.len().saturating_sub(1));
        let may_relay = any_contains(&desk.config().policy.relay_networks, from);
        let part = Part {
            from,
            listener,
            may_relay,
            exempt: false,
            mails: 0,
            rcpts: 0,
            secured: false,
            out: Vec::new(),
            notes: Vec::new(),
            binary: false,
            utf8: false,
            size: None,
            octets_max: None,
            asked: None,
            ladder: Ladder::played(desk, from, judged(by_dns)),
        };
        let mut rehearsal = Self {
            machine: Server::new(Arc::clone(&desk.machines[listener]), PLAYED_ID),
            part,
            said: VecDeque::new(),
            plain: Vec::new(),
            tls: None,
            over: false,
            sent: Vec::new(),
            until_us: 0,
        };
        rehearsal.part.note(if may_relay {
            "connect: the client is in a relay network"
        } else {
            "connect: the client is a stranger"
        });
        rehearsal.part.notes.extend(by_dns.said.iter().map(|said| format!("connect: {said}")));
        if rehearsal.part.is_let_in(desk)
            && desk.config().listeners[listener].tls == ListenerTls::Implicit
        {
            rehearsal.begin_tls(desk);
        } else {
            // Whom an order or a rate turns away hears so in the clear, on every port.
            rehearsal.start(desk);
        }
        rehearsal
    }

    /// What the client says next, each piece when the one before is answered.
    pub fn hear(&mut self, desk: &Desk, said: Vec<Vec<u8>>) {
        self.said.extend(said);
        self.until_us = desk.now_us.saturating_add(LOOKUP_US_MAX);
    }

    fn start(&mut self, desk: &Desk) {
        let now_us = desk.now_us;
        self.play(desk, |machine, host| machine.start(now_us, host));
    }

    /// From now on records.
    fn begin_tls(&mut self, desk: &Desk) {
        self.flush();
        let local = desk.config().listeners[self.part.listener].socket().ip();
        let session =
            desk.tls().and_then(|store| tls::Session::server(store.for_local(local)).ok());
        match session {
            Some(session) => self.tls = Some(Box::new(session)),
            None => {
                self.part.note("TLS: there is no certificate for it; see `ringpost certificates`");
                self.over = true;
            }
        }
    }

    /// What the machine said, as the client reads it.
    fn flush(&mut self) {
        let out = std::mem::take(&mut self.part.out);
        match &mut self.tls {
            // A session that cannot seal has ended.
            Some(tls) => self.over |= tls.send(&out, &mut self.sent).is_err() && !out.is_empty(),
            None => self.sent.extend_from_slice(&out),
        }
    }

    /// A piece of what the client said, out of its records.
    fn opened(&mut self, desk: &Desk, mut octets: Vec<u8>) {
        let Some(tls) = &mut self.tls else {
            self.plain.extend_from_slice(&octets);
            return;
        };
        let plain = &mut self.plain;
        let heard =
            tls.receive(&mut octets, |piece| plain.extend_from_slice(piece), &mut self.sent);
        match heard {
            Ok(progress) => {
                self.over |= progress.closed;
                if progress.established {
                    self.tls_started(desk);
                }
            }
            Err(error) => {
                self.part.notes.push(format!("TLS failed: {error}"));
                let listener = &desk.config().listeners[self.part.listener];
                if listener.tls == ListenerTls::Implicit && !self.part.secured {
                    self.part.note(
                        "this listener begins with TLS: a client that does it (`swaks \
                         --tls-on-connect`), or another listener (--listener)",
                    );
                }
                self.over = true;
            }
        }
    }

    fn tls_started(&mut self, desk: &Desk) {
        let info = self.tls.as_ref().and_then(|tls| tls.info());
        let said =
            info.map_or_else(String::new, |info| format!("{} {}", info.version, info.cipher));
        self.part.notes.push(format!("TLS: {said}"));
        self.part.secured = true;
        if self.machine.action() == Action::StartTls {
            self.machine.tls_started(desk.now_us);
        } else {
            self.start(desk);
        }
    }

    fn play(&mut self, desk: &Desk, run: impl FnOnce(&mut Server, &mut Stage<'_>)) {
        let mut stage = Stage { part: &mut self.part, desk };
        run(&mut self.machine, &mut stage);
    }

    /// Goes on; true when all is said and answered.
    pub fn step(&mut self, desk: &mut Desk) -> bool {
        loop {
            if let Some((token, domain, facts)) = self.part.asked.take() {
                let way = facts::way(desk, domain.as_bytes());
                if way.is_none() && desk.now_us < self.until_us {
                    desk.ask_way(&domain);
                    self.part.asked = Some((token, domain, facts));
                    return false;
                }
                let facts = RcptFacts { way: way.or(Some(Way::Trouble)), ..facts };
                let answer = self.part.decided(desk, acl::rcpt(&facts), &facts);
                let now_us = desk.now_us;
                self.play(desk, |machine, host| {
                    machine.answer(now_us, token, answer, host);
                });
                continue;
            }
            self.flush();
            if self.machine.action() == Action::StartTls && self.tls.is_none() {
                self.begin_tls(desk);
            }
            let over = self.closed();
            if over && let Some(tls) = &mut self.tls {
                tls.close(&mut self.sent);
            }
            if over || self.sent.len() > OUT_OCTETS_MAX {
                return true;
            }
            let shut = self.tls.as_ref().is_some_and(|tls| !tls.is_established());
            if self.plain.is_empty() || shut {
                let Some(octets) = self.said.pop_front() else { return true };
                self.opened(desk, octets);
                continue;
            }
            let octets = std::mem::take(&mut self.plain);
            let now_us = desk.now_us;
            let mut used = 0;
            self.play(desk, |machine, host| used = machine.receive(now_us, &octets, host));
            if used < octets.len() && used + self.part.waits() > 0 {
                self.plain = octets[used..].to_vec();
            }
        }
    }

    /// Whether the session is over.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.over || matches!(self.machine.action(), Action::Close(_))
    }

    /// The replies, and what was decided on the way, since this was asked last.
    #[must_use]
    pub fn take_parts(&mut self) -> (Vec<u8>, Vec<String>) {
        (std::mem::take(&mut self.sent), std::mem::take(&mut self.part.notes))
    }
}

impl Part {
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    /// Orders and rates speak before any TLS, lists and bans within it; said again at connect.
    fn is_let_in(&mut self, desk: &Desk) -> bool {
        let said = self.notes.len();
        let (reason, _) = Stage { part: self, desk }.before_tls();
        self.notes.truncate(said);
        reason.is_none()
    }

    const fn waits(&self) -> usize {
        if self.asked.is_some() { 1 } else { 0 }
    }

    fn decided(&mut self, desk: &Desk, verdict: Verdict, facts: &RcptFacts) -> Answer {
        let standing = standing_in_words(facts.standing);
        let postmaster = if facts.postmaster { ", postmaster" } else { "" };
        let (way, verdict_said) = (way_in_words(facts.way), told(verdict));
        self.notes.push(format!("rcpt: {standing}{postmaster}; way: {way}: {verdict_said}"));
        match verdict {
            Verdict::Accept => {
                if let Some(Way::Hosts(carries)) = facts.way {
                    let least = [self.octets_max, carries.octets_max].into_iter().flatten().min();
                    self.octets_max = least;
                }
                Answer::Accept
            }
            Verdict::Refuse(Reason::Listed) => {
                let detail = self.ladder.detail(desk, self.from);
                Answer::Refuse(Reason::Listed.refusal_about(&detail))
            }
            Verdict::Refuse(reason) => Answer::Refuse(reason.refusal()),
            Verdict::Missing(_) => Answer::Refuse(Reason::AnswerLate.refusal()),
        }
    }
}

/// What the house heard of DNS lists.
fn judged(by_dns: &ListedBy) -> Judged {
    match by_dns.listed {
        _ if by_dns.allowed => Judged::Allowed,
        Some((list, height, ttl_s)) => {
            Judged::Listed(Finding { list, ceiling: Rung::at(height), ttl_s })
        }
        None => Judged::Unlisted,
    }
}

const fn standing_in_words(standing: Standing) -> &'static str {
    match standing {
        Standing::Known => "a recipient of ours",
        Standing::Unknown => "a domain of ours, but nobody there",
        Standing::Foreign => "no domain of ours",
    }
}

/// Where mail for a recipient goes, and what may be in it.
fn way_in_words(way: Option<Way>) -> String {
    let nowhere = match way {
        Some(Way::Hosts(carries)) => {
            let takes = |yes: bool| if yes { "yes" } else { "not for certain" };
            let most = carries.octets_max.map_or_else(
                || "of a size that nobody limits".to_owned(),
                |octets| format!("up to {octets} octets"),
            );
            let (utf8, binary) = (takes(carries.utf8), takes(carries.binary));
            return format!("hosts, {most}; SMTPUTF8 {utf8}, BINARYMIME {binary}");
        }
        Some(Way::Ourselves) => "would come back to this node",
        Some(Way::NullMx) => "none: the domain takes no mail",
        Some(Way::NoHost) => "none: no such domain, or it has no host",
        Some(Way::NoRoute) => "none: no [[route]] leads there",
        Some(Way::Trouble) => "cannot be found out now: `ringpost test dns` says why",
        None => "not looked up",
    };
    nowhere.to_owned()
}

fn told(verdict: Verdict) -> String {
    match verdict {
        Verdict::Accept => "taken".to_owned(),
        Verdict::Refuse(reason) => format!("refused, {}", reason.label()),
        Verdict::Missing(fact) => format!("not known yet: {fact:?}"),
    }
}

impl Stage<'_> {
    /// What speaks against the client whatever the lists say, and the order about it.
    fn before_tls(&mut self) -> (Option<Reason>, Option<bool>) {
        let (desk, from) = (self.desk, self.part.from);
        let rules = &desk.orders.rules;
        let stance = rules.stance(from, desk.wall_us / 1_000_000);
        let key = hints::client_key(from);
        let noted = desk
            .hints
            .note(&crate::standing::note_key(key.as_ref()), desk.wall_us)
            .is_some_and(|note| note.count >= 2);
        let limits = &desk.config().limits;
        let exempt = any_contains(&limits.exempt_networks, from) || stance == Some(true);
        self.part.exempt = exempt;
        let (rate, said) = desk.standing.would(Would::Connect, from, desk.wall_us);
        if !exempt {
            self.part.notes.push(format!("connect: {said}"));
        }
        let reason = match stance {
            Some(false) => Some(Reason::Blocked),
            _ if !rules.accepting.takes_mail() => Some(Reason::Suspended),
            _ if desk.space == Space::Out => Some(Reason::SpoolOut),
            _ if noted && !exempt => Some(Reason::ClientNoted),
            _ if !exempt => rate.err().map(super::reason_of),
            _ => None,
        };
        (reason, stance)
    }

    fn connect(&mut self) -> Answer {
        let (reason, stance) = self.before_tls();
        let (desk, from, exempt) = (self.desk, self.part.from, self.part.exempt);
        // Lists and bans come behind the orders.
        let by_ladder = self.part.ladder.greeting(desk).filter(|_| reason.is_none());
        let verdict = reason.or(by_ladder).map_or("let in", Reason::label);
        self.part
            .notes
            .push(format!("connect: standing order {stance:?}, exempt {exempt}: {verdict}"));
        match (reason, by_ladder) {
            (Some(reason), _) => Answer::Refuse(reason.refusal()),
            (None, Some(reason)) => {
                let detail = self.part.ladder.detail(desk, from);
                Answer::Refuse(reason.refusal_about(&detail))
            }
            (None, None) => Answer::Accept,
        }
    }

    fn mail(&mut self, from: Path<'_>, mail: &smtp::command::MailParameters<'_>) -> Answer {
        let listener = &self.desk.config().listeners[self.part.listener];
        self.part.binary = mail.body == Body::BinaryMime;
        self.part.utf8 = mail.smtputf8;
        self.part.size = mail.size;
        self.part.octets_max = None;
        let late = self.rate(Would::Mail(self.part.mails + 1));
        let reason = if listener.tls_required && !self.part.secured {
            Some(Reason::TlsRequired)
        } else if late.is_some() {
            late
        } else if self.desk.space != Space::Enough {
            Some(Reason::SpoolFull)
        } else {
            None
        };
        let sender = match from {
            Path::Null => "<>".to_owned(),
            Path::Mailbox(address) => String::from_utf8_lossy(address.as_bytes()).into_owned(),
        };
        self.part.mails +=
            u32::from(!matches!(reason, Some(Reason::TlsRequired)) && late.is_none());
        let verdict = reason.map_or("taken", Reason::label);
        self.part.notes.push(format!("mail: {sender}: {verdict}"));
        reason.map_or(Answer::Accept, |reason| Answer::Refuse(reason.refusal()))
    }

    /// What a rate would say; nothing is counted.
    fn rate(&mut self, what: Would) -> Option<Reason> {
        if self.part.exempt {
            return None;
        }
        let desk = self.desk;
        let (verdict, said) = desk.standing.would(what, self.part.from, desk.wall_us);
        let at = if matches!(what, Would::Mail(_)) { "mail" } else { "rcpt" };
        self.part.notes.push(format!("{at}: {said}"));
        verdict.err().map(super::reason_of)
    }

    fn rcpt(&mut self, token: Token, to: smtp::address::Address<'_>) -> Option<Answer> {
        if let Some(reason) = self.rate(Would::Rcpt(self.part.rcpts + 1)) {
            return Some(Answer::Refuse(reason.refusal()));
        }
        self.part.rcpts += 1;
        let known = facts::recipient(self.desk, to);
        let facts = RcptFacts {
            standing: known.standing,
            postmaster: to.is_postmaster(),
            may_relay: self.part.may_relay,
            listed: Some(self.part.ladder.fact(self.desk).unwrap_or(false)),
            way: facts::way(self.desk, &known.domain),
            utf8: self.part.utf8 || to.is_8bit(),
            binary: self.part.binary,
            octets: self.part.size,
        };
        match acl::rcpt(&facts) {
            Verdict::Missing(Fact::Way) => {
                let domain = String::from_utf8_lossy(&known.domain).into_owned();
                self.part.asked = Some((token, domain, facts));
                None
            }
            verdict => Some(self.part.decided(self.desk, verdict, &facts)),
        }
    }
}

impl server::Host for Stage<'_> {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.part.out
    }

    fn ask(&mut self, token: Token, question: Question<'_>) -> Option<Answer> {
        match question {
            Question::Connect => Some(self.connect()),
            Question::Mail { from, parameters, .. } => Some(self.mail(from, &parameters)),
            Question::Rcpt { to, .. } => self.rcpt(token, to),
            Question::Message { facts, .. } => {
                let verdict = acl::message(facts.octets, [self.part.octets_max]);
                let text = format!("content: {} octets: {}", facts.octets, told(verdict));
                self.part.notes.push(text);
                Some(match verdict {
                    Verdict::Refuse(reason) => Answer::Refuse(reason.refusal()),
                    _ => {
                        self.part.note("this is a rehearsal: nothing was kept, nothing is sent");
                        Answer::Accept
                    }
                })
            }
            Question::Helo(_) | Question::Data { .. } | Question::Header { .. } => {
                Some(Answer::Accept)
            }
        }
    }

    fn header(&mut self, _: &[u8]) -> Flow {
        Flow::More
    }

    fn body(&mut self, _: &[u8]) -> Flow {
        Flow::More
    }

    fn done(&mut self, _: End) {}

    fn offers(&mut self, offers: Offers) -> Offers {
        facts::offers(self.desk, offers)
    }

    fn note(&mut self, note: Note<'_>) {
        match note {
            Note::Refused { stage, code, text, .. } => {
                let reason = Reason::said(code, text).map_or("local", Reason::label);
                self.part.notes.push(format!("{stage:?}: {code} {text} ({reason})"));
            }
            Note::EarlyTalker => self.part.note("the client spoke before the greeting"),
            Note::Pipelined => self.part.note("input behind a command that ends a group"),
            Note::StartTlsTail(_) => {}
        }
    }
}

/// Whether a recipient is taken, from a stranger and from a relay network: verdicts with labels.
/// `None` while its way is being found out.
#[must_use]
pub fn verify(desk: &Desk, address: &[u8]) -> Option<Vec<(&'static str, String)>> {
    let Ok(to) = smtp::address::Address::parse(address, true) else {
        return Some(vec![("anybody", "refused, recipient_syntax".to_owned())]);
    };
    let known = facts::recipient(desk, to);
    let way = facts::way(desk, &known.domain)?;
    let verdict = |may_relay| {
        let facts = RcptFacts {
            standing: known.standing,
            postmaster: to.is_postmaster(),
            may_relay,
            listed: Some(false),
            way: Some(way),
            utf8: to.is_8bit(),
            binary: false,
            octets: None,
        };
        told(acl::rcpt(&facts))
    };
    Some(vec![
        ("the lists say", standing_in_words(known.standing).to_owned()),
        ("the way there", way_in_words(Some(way))),
        ("from a stranger", verdict(false)),
        ("from a relay network", verdict(true)),
    ])
}
