//! What the receiving machine asks and tells, answered from the desk.

use std::net::SocketAddr;

use engine::Conn;
use hints::standing::{Offence, Offended};
use hints::{Kind, What};
use smtp::address::{Address, Path};
use smtp::command::{Body, Helo, MailParameters, Offers};
use smtp::data::Flow;
use smtp::reply::Id;
use smtp::server::{self, Answer, End, Note, Question, Token};
use spool::id::{MessageId, TransactionId};
use spool::log::{self as log, OpenKind};

use super::facts;
use super::ladder::Ladder;
use crate::acl::{self, Fact, RcptFacts, Verdict};
use crate::config::Standing;
use crate::desk::{Desk, Space, reason_of_error, reason_of_refusal};
use crate::dns::Reverse;
use crate::dnsbl::Judged;
use crate::events::{Client, Ending, Event, Phase, Reason, Refused, Stage, Tls};
use crate::standing::Guest;
use crate::tls::SessionInfo;

/// What an offence weighs, in thousandths.
const OFFENCE_MILLI: u32 = 1000;
/// What talking before the greeting weighs: no mail server does that.
const EARLY_MILLI: u32 = 10_000;

/// A transaction of this session.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) id: TransactionId,
    tx: Option<log::Transaction>,
    /// The token under which the log knows it.
    pub(super) token: u64,
    sender: Box<[u8]>,
    utf8: bool,
    binary: bool,
    size: Option<u64>,
    /// The least of what the recipients' ways take.
    octets_max: Option<u64>,
    data_us: u64,
    /// Why the log takes no more of it.
    failed: Option<Reason>,
}

/// A recipient of whom something is being found out.
#[derive(Debug)]
struct Asked {
    token: Token,
    /// What is missing.
    fact: Fact,
    domain: Box<str>,
    facts: RcptFacts,
    due_us: u64,
}

/// Everything about a session but its machine.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) id: MessageId,
    /// `id`, and `.n` inside a transaction.
    text: Id,
    pub(super) listener: usize,
    pub(super) remote: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) proxy: Option<SocketAddr>,
    pub(super) helo: Box<[u8]>,
    pub(super) extended: bool,
    pub(super) guest: Option<Guest>,
    pub(super) may_relay: bool,
    pub(super) ladder: Ladder,
    /// It counts against its listener's sessions.
    pub(super) entered: bool,
    pub(super) tls: Option<Box<SessionInfo>>,
    pub(super) reverse: Option<Reverse>,
    pub(super) open: Option<Box<Open>>,
    asked: Option<Box<Asked>>,
    greet: Option<(Token, u64)>,
    /// When the phase under way began.
    pub(super) mark_us: u64,
    pub(super) greeted: bool,
    pub(super) refused: bool,
    pub(super) in_transaction: bool,
    /// Somebody watches every line of it.
    pub(super) traced: Option<Box<[u8]>>,
    pub(super) ending: Ending,
}

impl Talk {
    pub(super) fn new(
        id: MessageId,
        listener: usize,
        remote: SocketAddr,
        local: SocketAddr,
        now_us: u64,
    ) -> Self {
        let chars = id.to_chars();
        let text = Id::new(str::from_utf8(&chars).unwrap_or_default());
        Self {
            id,
            text,
            listener,
            remote,
            local,
            proxy: None,
            helo: Box::default(),
            extended: false,
            guest: None,
            may_relay: false,
            ladder: Ladder::default(),
            entered: false,
            tls: None,
            reverse: None,
            open: None,
            asked: None,
            greet: None,
            mark_us: now_us,
            greeted: false,
            refused: false,
            in_transaction: false,
            traced: None,
            ending: Ending::Lost,
        }
    }

    /// Whether a decision of ours is waited for.
    pub(super) const fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// The sender of the transaction under way.
    pub(super) fn sender(&self) -> Option<&[u8]> {
        self.open.as_ref().map(|open| &*open.sender)
    }

    pub(super) fn id_text(&self) -> &str {
        self.text.as_str()
    }

    /// RFC 3848 and RFC 6531 4.3.
    pub(super) fn protocol(&self) -> &'static str {
        let utf8 = self.open.as_ref().is_some_and(|open| open.utf8);
        match (utf8, self.extended, self.tls.is_some()) {
            (true, _, false) => "UTF8SMTP",
            (true, _, true) => "UTF8SMTPS",
            (false, true, false) => "ESMTP",
            (false, true, true) => "ESMTPS",
            (false, false, false) => "SMTP",
            (false, false, true) => "SMTPS",
        }
    }

    pub(super) fn client(&self) -> Client<'_> {
        Client {
            id: self.text.as_str(),
            remote: self.remote,
            local: self.local,
            proxy: self.proxy,
            helo: &self.helo,
            name: match &self.reverse {
                Some(Reverse::Confirmed(name)) => Some(name.as_bytes()),
                _ => None,
            },
            protocol: self.protocol(),
            tls: self.tls.as_ref().map(|tls| Tls {
                version: tls.version,
                cipher: tls.cipher,
                verified: None,
            }),
        }
    }

    /// When something is due that the machine does not know of.
    pub(super) fn due_us(&self) -> Option<u64> {
        let asked = self.asked.as_ref().map(|asked| asked.due_us);
        asked.into_iter().chain(self.greet.map(|(_, due)| due)).min()
    }

    /// What is due now.
    pub(super) fn overdue(&mut self, desk: &mut Desk) -> Option<(Token, Answer)> {
        let now_us = desk.now_us;
        if let Some((token, due)) = self.greet
            && due <= now_us
        {
            self.greet = None;
            return Some((token, self.greeting(desk)));
        }
        let asked = self.asked.take_if(|asked| asked.due_us <= now_us)?;
        if asked.fact == Fact::Listed {
            // Silence lists nobody.
            self.ladder.judged(Judged::Unlisted, None);
            self.asked = Some(asked);
            return self.weigh_again(desk);
        }
        Some((asked.token, Answer::Refuse(Reason::AnswerLate.refusal())))
    }

    /// The way that was missing is known (or known not to be found).
    pub(super) fn found(&mut self, desk: &mut Desk, domain: &str) -> Option<(Token, Answer)> {
        let waits = |asked: &mut Box<Asked>| asked.fact == Fact::Way && &*asked.domain == domain;
        let asked = self.asked.take_if(waits)?;
        let way = facts::way(desk, asked.domain.as_bytes());
        let facts = RcptFacts { way: way.or(Some(acl::Way::Trouble)), ..asked.facts };
        let answer = self.weigh(desk, asked.token, asked.domain, facts)?;
        Some((asked.token, answer))
    }

    /// Whether the client is listed is known now.
    pub(super) fn weigh_again(&mut self, desk: &mut Desk) -> Option<(Token, Answer)> {
        let asked = self.asked.take_if(|asked| asked.fact == Fact::Listed)?;
        let listed = self.ladder.fact(desk);
        let way = facts::way(desk, asked.domain.as_bytes());
        let facts = RcptFacts { listed: listed.or(Some(false)), way, ..asked.facts };
        let answer = self.weigh(desk, asked.token, asked.domain, facts)?;
        Some((asked.token, answer))
    }

    /// The answer about a recipient, or nothing while something is missing.
    fn weigh(
        &mut self,
        desk: &mut Desk,
        token: Token,
        domain: Box<str>,
        facts: RcptFacts,
    ) -> Option<Answer> {
        match acl::rcpt(&facts) {
            Verdict::Missing(fact) => {
                if fact == Fact::Way {
                    desk.ask_way(&domain);
                }
                let due_us = desk.now_us.saturating_add(desk.config().timeouts_in.answer_s.us());
                self.asked = Some(Box::new(Asked { token, fact, domain, facts, due_us }));
                None
            }
            Verdict::Refuse(Reason::Listed) => Some(self.listed(desk)),
            verdict => {
                self.would_refuse(desk);
                Some(self.decided(verdict, &facts))
            }
        }
    }

    /// The greeting's answer.
    fn greeting(&mut self, desk: &mut Desk) -> Answer {
        match self.ladder.greeting(desk) {
            Some(reason) => {
                let detail = self.ladder.detail(desk, self.remote.ip());
                self.ladder.refused(desk, self.remote.ip(), self.id);
                Answer::Refuse(reason.refusal_about(&detail))
            }
            None => Answer::Accept,
        }
    }

    /// The refusal of a listed client, with who lists it.
    fn listed(&mut self, desk: &mut Desk) -> Answer {
        let detail = self.ladder.detail(desk, self.remote.ip());
        self.ladder.refused(desk, self.remote.ip(), self.id);
        Answer::Refuse(Reason::Listed.refusal_about(&detail))
    }

    /// Says once of a listed client that is not refused that it would be.
    fn would_refuse(&mut self, desk: &mut Desk) {
        if self.may_relay || !self.ladder.is_passed(desk) {
            return;
        }
        let detail = self.ladder.detail(desk, self.remote.ip());
        self.ladder.refused(desk, self.remote.ip(), self.id);
        let client = self.client();
        desk.tell(&Event::WouldRefuse { client: &client, detail: detail.as_bytes() });
    }

    /// A verdict as the machine's answer; what a taken recipient means for the message is noted.
    fn decided(&mut self, verdict: Verdict, facts: &RcptFacts) -> Answer {
        match verdict {
            Verdict::Accept => {
                if let (Some(open), Some(acl::Way::Hosts(carries))) = (&mut self.open, facts.way) {
                    let least = [open.octets_max, carries.octets_max].into_iter().flatten().min();
                    open.octets_max = least;
                }
                Answer::Accept
            }
            Verdict::Refuse(reason) => Answer::Refuse(reason.refusal()),
            Verdict::Missing(_) => Answer::Refuse(Reason::AnswerLate.refusal()),
        }
    }
}

/// The machine's host for one call.
pub(super) struct Host<'a> {
    pub(super) talk: &'a mut Talk,
    pub(super) desk: &'a mut Desk,
    pub(super) conn: Conn,
    pub(super) out: Vec<u8>,
}

impl server::Host for Host<'_> {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn ask(&mut self, token: Token, question: Question<'_>) -> Option<Answer> {
        match question {
            Question::Connect => self.connect(token),
            Question::Helo(helo) => self.helo(&helo),
            Question::Mail { from, parameters, transaction } => {
                Some(self.mail(from, &parameters, transaction))
            }
            Question::Rcpt { to, .. } => self.rcpt(token, to),
            Question::Data { .. } => {
                if let Some(open) = &mut self.talk.open {
                    open.data_us = self.desk.now_us;
                }
                Some(Answer::Accept)
            }
            Question::Header { .. } => Some(Answer::Accept),
            Question::Message { envelope, facts } => self.message(token, envelope, facts),
        }
    }

    fn header(&mut self, octets: &[u8]) -> Flow {
        self.keep(octets, log::Log::append_header)
    }

    fn body(&mut self, octets: &[u8]) -> Flow {
        self.keep(octets, log::Log::append_body)
    }

    fn done(&mut self, end: End) {
        self.talk.in_transaction = matches!(end, End::Reset | End::Gone);
        let Some(open) = self.talk.open.take() else { return };
        self.desk.paused.remove(&open.token);
        if end == End::Gone {
            self.desk.forget_waiting(open.token);
        }
        // What was committed is the log's: its line is written when the log answers.
        if let Some(tx) = open.tx {
            self.desk.log.abort(tx);
            if end != End::Accepted {
                self.desk.stream.maillog.release(1);
            }
        }
        self.talk.text.set_transaction(0);
    }

    fn offers(&mut self, offers: Offers) -> Offers {
        facts::offers(self.desk, offers)
    }

    fn note(&mut self, note: Note<'_>) {
        match note {
            Note::Refused { stage, code, text, about, .. } => {
                self.refused(stage, code, text, about);
            }
            Note::EarlyTalker => {
                self.offended(Offence::Early);
                let event = Event::EarlyTalker { client: &self.talk.client(), said: b"" };
                self.desk.tell(&event);
            }
            Note::Pipelined | Note::StartTlsTail(_) => self.offended(Offence::Protocol),
        }
    }
}

impl Host<'_> {
    fn connect(&mut self, token: Token) -> Option<Answer> {
        let delay = self.desk.config().policy.greet_delay_s.us();
        let took = self.desk.now_us.saturating_sub(self.talk.mark_us);
        self.desk.tell(&Event::Took(Phase::Connect, took));
        self.talk.mark_us = self.desk.now_us;
        self.talk.greeted = true;
        if delay == 0 {
            return Some(self.talk.greeting(self.desk));
        }
        self.talk.greet = Some((token, self.desk.now_us.saturating_add(delay)));
        None
    }

    fn helo(&mut self, helo: &Helo<'_>) -> Option<Answer> {
        if self.talk.helo.is_empty() {
            let took = self.desk.now_us.saturating_sub(self.talk.mark_us);
            self.desk.tell(&Event::Took(Phase::Banner, took));
        }
        self.talk.helo = helo.name.into();
        self.talk.extended = helo.extended;
        Some(Answer::Accept)
    }

    fn mail(&mut self, from: Path<'_>, mail: &MailParameters<'_>, n: u32) -> Answer {
        // The reply carries it, so the line of a refusal does too.
        self.talk.text.set_transaction(n);
        match self.open_transaction(from, mail, n) {
            Ok(()) => Answer::Accept,
            Err(reason) => Answer::Refuse(reason.refusal()),
        }
    }

    /// The listener wants TLS and the session has none.
    fn lacks_tls(&self) -> bool {
        let listeners = &self.desk.config().listeners;
        let listening = &listeners[self.talk.listener.min(listeners.len() - 1)];
        listening.tls_required && self.talk.tls.is_none()
    }

    fn open_transaction(
        &mut self,
        from: Path<'_>,
        mail: &MailParameters<'_>,
        n: u32,
    ) -> Result<(), Reason> {
        // The machine's own health check is asked for its recipient first.
        let may_check = facts::is_own(self.talk) && self.desk.door.is_open();
        if self.lacks_tls() && !may_check {
            return Err(Reason::TlsRequired);
        }
        if let Some(guest) = &self.talk.guest
            && self.desk.standing.mail(guest, self.desk.wall_us).is_err()
        {
            return Err(Reason::ClientMessageRate);
        }
        if self.desk.space != Space::Enough {
            return Err(Reason::SpoolFull);
        }
        let id = TransactionId { session: self.talk.id, n };
        let token = self.desk.next_token();
        if self.desk.stream.maillog.reserve(1).is_err() {
            return Err(Reason::LogUnwritable);
        }
        let opened = self.desk.log.open(OpenKind::Client, id, mail.size, token);
        let tx = opened.map_err(|refusal| {
            self.desk.stream.maillog.release(1);
            reason_of_refusal(refusal)
        })?;
        self.talk.open = Some(Box::new(Open {
            id,
            tx: Some(tx),
            token,
            sender: match from {
                Path::Null => Box::default(),
                Path::Mailbox(address) => address.as_bytes().into(),
            },
            utf8: mail.smtputf8,
            binary: mail.body == Body::BinaryMime,
            size: mail.size,
            octets_max: None,
            data_us: 0,
            failed: None,
        }));
        Ok(())
    }

    /// From a recipient on that somebody watches, the session is watched; this line of it has gone
    /// by already.
    fn watch(&mut self, to: Address<'_>) {
        let address = to.as_bytes();
        if self.desk.traced.is_empty() || !self.desk.is_traced_to(address) {
            return;
        }
        let (ip, before) = (self.talk.remote.ip(), self.talk.traced.replace(address.into()));
        if before.is_none() && !self.desk.is_traced(ip, self.talk.id_text()) {
            let octets = [b"RCPT TO:<", address, b">"].concat();
            let (client, recipient) = (self.talk.client(), address);
            self.desk.tell(&Event::Line {
                client: &client,
                heard: true,
                recipient,
                octets: &octets,
            });
        }
    }

    fn rcpt(&mut self, token: Token, to: Address<'_>) -> Option<Answer> {
        if let Some(guest) = &self.talk.guest
            && self.desk.standing.rcpt(guest, self.desk.wall_us).is_err()
        {
            return Some(Answer::Refuse(Reason::ClientRecipientRate.refusal()));
        }
        self.watch(to);
        let (utf8, binary, octets) = match &self.talk.open {
            Some(open) => (open.utf8 || to.is_8bit(), open.binary, open.size),
            None => (to.is_8bit(), false, None),
        };
        let recipient = facts::recipient(self.desk, to);
        let own = facts::is_health_check(self.talk, self.desk, &recipient.domain);
        if self.lacks_tls() && !own {
            return Some(Answer::Refuse(Reason::TlsRequired.refusal()));
        }
        let strange = self.desk.door.is(&String::from_utf8_lossy(&recipient.domain)) && !own;
        let facts = RcptFacts {
            standing: if own { Standing::Known } else { recipient.standing },
            postmaster: to.is_postmaster(),
            may_relay: self.talk.may_relay && !strange,
            listed: if own { Some(false) } else { self.talk.ladder.fact(self.desk) },
            way: facts::way(self.desk, &recipient.domain),
            utf8,
            binary,
            octets,
        };
        let domain: Box<str> = String::from_utf8_lossy(&recipient.domain).into();
        self.talk.weigh(self.desk, token, domain, facts)
    }

    /// Hands octets to the log.
    fn keep(
        &mut self,
        octets: &[u8],
        append: fn(
            &mut crate::desk::Log,
            log::Transaction,
            &[u8],
        ) -> Result<log::Flow, log::TransactionError>,
    ) -> Flow {
        let Some(open) = &mut self.talk.open else { return Flow::More };
        let (Some(tx), None) = (open.tx, open.failed) else { return Flow::More };
        match append(&mut self.desk.log, tx, octets) {
            Ok(log::Flow::Go) => Flow::More,
            Ok(log::Flow::Pause) => {
                self.desk.paused.insert(open.token, self.conn);
                Flow::NotNow
            }
            Err(error) => {
                // The client reads the reason at the end of its content, as RFC 5321 has it.
                open.failed = Some(reason_of_error(error));
                Flow::More
            }
        }
    }

    fn message(
        &mut self,
        token: Token,
        envelope: &server::Envelope,
        seen: &smtp::data::Facts,
    ) -> Option<Answer> {
        let now_us = self.desk.now_us;
        let Some(open) = &mut self.talk.open else {
            return Some(Answer::Refuse(Reason::Local.refusal()));
        };
        self.desk.stream.metrics.took(Phase::Data, now_us.saturating_sub(open.data_us));
        if let Some(reason) = open.failed {
            return Some(Answer::Refuse(reason.refusal()));
        }
        if let Verdict::Refuse(reason) = acl::message(seen.octets, [open.octets_max]) {
            return Some(Answer::Refuse(reason.refusal()));
        }
        if facts::discards(self.desk, envelope) {
            facts::tell_discarded(self.talk, self.desk, envelope, seen.octets);
            return Some(Answer::Accept);
        }
        match facts::commit(self.talk, self.desk, (self.conn, token), envelope, seen) {
            Ok(()) => None,
            Err(reason) => Some(Answer::Refuse(reason.refusal())),
        }
    }

    fn refused(&mut self, stage: server::Stage, code: u16, text: &str, about: &[u8]) {
        let reason = Reason::said(code, text).unwrap_or(Reason::Local);
        if let Some(offence) = offence(reason) {
            self.offended(offence);
        }
        let recipients: &[&[u8]] = if stage == server::Stage::Rcpt { &[about] } else { &[] };
        let tx = self.talk.open.as_ref().and_then(|open| open.tx);
        let header = match (tx, stage) {
            (Some(tx), server::Stage::Data) => self.desk.log.header(tx).ok().map(<[u8]>::to_vec),
            _ => None,
        };
        let sender = self.talk.open.as_ref().map(|open| &*open.sender);
        let own = text.split_once(": ").map(|(_, tail)| tail.as_bytes());
        let about = if stage == server::Stage::Rcpt { b"".as_slice() } else { about };
        let detail = own.unwrap_or(about);
        let event = Event::CommandRefused(&Refused {
            client: self.talk.client(),
            stage: stage_of(stage),
            reason,
            detail,
            sender,
            recipients,
            header: header.as_deref().filter(|header| !header.is_empty()),
        });
        self.desk.tell(&event);
        if stage == server::Stage::Mail && self.talk.open.is_none() {
            self.talk.text.set_transaction(0);
        }
    }

    fn offended(&mut self, offence: Offence) {
        let Some(guest) = &self.talk.guest else { return };
        if guest.is_exempt() {
            return;
        }
        let weight_milli = if offence == Offence::Early { EARLY_MILLI } else { OFFENCE_MILLI };
        let what = What::Offended(Offended { offence, weight_milli });
        self.desk.hint(Kind::Standing, guest.key(), what);
        if !self.talk.may_relay {
            self.talk.ladder.offended(self.desk, self.talk.remote.ip(), self.talk.id);
        }
    }
}

impl Open {
    /// The log's transaction, for the one that commits it.
    pub(super) const fn take(&mut self) -> Option<log::Transaction> {
        self.tx.take()
    }

    pub(super) const fn tx(&self) -> Option<log::Transaction> {
        self.tx
    }
}

/// What a refusal says of the client's conduct.
const fn offence(reason: Reason) -> Option<Offence> {
    Some(match reason {
        Reason::UnknownRecipient => Offence::Recipient,
        Reason::RelayDenied => Offence::Relay,
        Reason::ClientMessageRate | Reason::ClientRecipientRate => Offence::Rate,
        Reason::BareCommand
        | Reason::BareContent
        | Reason::LineLong
        | Reason::Control
        | Reason::NotSmtp
        | Reason::Pipelined
        | Reason::UnknownCommand => Offence::Protocol,
        _ => return None,
    })
}

const fn stage_of(stage: server::Stage) -> Stage {
    match stage {
        server::Stage::Connect => Stage::Connect,
        server::Stage::Helo => Stage::Helo,
        server::Stage::StartTls => Stage::Tls,
        server::Stage::Mail => Stage::Mail,
        server::Stage::Rcpt => Stage::Rcpt,
        server::Stage::Data => Stage::Content,
        server::Stage::Command => Stage::Command,
    }
}
