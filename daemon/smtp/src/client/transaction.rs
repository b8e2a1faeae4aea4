//! One message: MAIL, its recipients, DATA or BDAT, and what became of each recipient.

use std::sync::Arc;

use super::envelope::Envelope;
use super::limits::{CHUNK_OCTETS, COMMANDS_AHEAD};
use super::machine::{Client, Command, State};
use super::offers::Extension;
use super::outcome::{Class, Event, Outcome, Refusal, Stage};
use super::reply::Reply;
use super::settings::EightBit;
use super::stuff::LineState;
use crate::command::Body;
use crate::reply::Enhanced;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// MAIL and RCPT.
    Envelope,
    /// DATA was sent, its reply not seen.
    Go,
    /// Content is wanted.
    Content,
    /// The end of the content was sent.
    Final,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Data,
    Bdat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Pending,
    Accepted,
    Decided,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mail {
    Waiting,
    Accepted,
    Refused,
}

#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) envelope: Envelope,
    pub(super) phase: Phase,
    pub(super) method: Method,
    pub(super) lines: LineState,
    /// The caller has no more content.
    pub(super) ended: bool,
    /// 0: MAIL; up to the number of recipients: RCPT; then DATA or content.
    next: usize,
    mail: Mail,
    recipients: Vec<Progress>,
    accepted: usize,
    /// A RCPT was accepted although MAIL was refused.
    stray: bool,
}

impl Transaction {
    fn new(envelope: Envelope, method: Method) -> Self {
        let recipients = vec![Progress::Pending; envelope.recipients.len()];
        Self {
            envelope,
            phase: Phase::Envelope,
            method,
            lines: LineState::default(),
            ended: false,
            next: 0,
            mail: Mail::Waiting,
            recipients,
            accepted: 0,
            stray: false,
        }
    }

    /// Marks what is open as decided, and tells which recipients that were.
    pub(super) fn undecided(&mut self) -> Vec<usize> {
        self.take(|p| p != Progress::Decided)
    }

    fn take(&mut self, which: impl Fn(Progress) -> bool) -> Vec<usize> {
        let mut taken = Vec::new();
        for (index, progress) in self.recipients.iter_mut().enumerate() {
            if which(*progress) {
                *progress = Progress::Decided;
                taken.push(index);
            }
        }
        taken
    }
}

impl Client {
    pub(super) fn in_phase(&self, phase: Phase) -> bool {
        self.transaction.as_ref().is_some_and(|t| t.phase == phase)
    }

    /// Starts a checked envelope, or tells at once that the server cannot take it.
    pub(super) fn begin(&mut self, now_us: u64, envelope: Envelope) {
        if let Some(outcome) = self.unfit(&envelope) {
            for index in 0..envelope.recipients.len() {
                self.events.push_back(Event::Recipient(index, outcome.clone()));
            }
            self.events.push_back(Event::MessageEnd);
            self.become_ready(now_us);
            return;
        }
        // A message of one chunk gains by BDAT; a longer one would wait a round trip for each.
        let short = envelope.size <= CHUNK_OCTETS as u64 || envelope.body == Body::BinaryMime;
        let bdat = short && self.settings.chunking && self.offers.has(Extension::Chunking);
        let method = if bdat { Method::Bdat } else { Method::Data };
        self.transaction = Some(Box::new(Transaction::new(envelope, method)));
        self.state = State::Transaction;
        self.advance(now_us);
    }

    /// What the message needs and the server does not offer.
    fn unfit(&self, envelope: &Envelope) -> Option<Outcome> {
        let offers = &self.offers;
        let refuse = |code, enhanced, text: &str| {
            let reply = Reply { code, enhanced: Some(enhanced), text: text.into() };
            let refusal = Refusal { stage: Stage::Offer, reply, too_many: false };
            Some(Outcome::PermFail(Arc::new(refusal)))
        };
        if envelope.needs_utf8() && !offers.has(Extension::SmtpUtf8) {
            return refuse(550, Enhanced(5, 6, 7), "the next hop does not offer SMTPUTF8");
        }
        let binary = offers.has(Extension::BinaryMime) && offers.has(Extension::Chunking);
        if envelope.body == Body::BinaryMime && !(binary && self.settings.chunking) {
            return refuse(554, Enhanced(5, 6, 1), "the next hop does not offer BINARYMIME");
        }
        if offers.size_max != 0 && envelope.size > offers.size_max {
            return refuse(552, Enhanced(5, 3, 4), "the message is larger than the next hop takes");
        }
        let lacking = envelope.body == Body::EightBitMime && !offers.has(Extension::EightBitMime);
        (lacking && self.settings.eight_bit == EightBit::Report)
            .then_some(Outcome::NeedsExtension(Extension::EightBitMime))
    }

    /// Writes as many commands as may be sent now.
    pub(super) fn advance(&mut self, now_us: u64) {
        let pipelining = self.settings.pipelining && self.offers.has(Extension::Pipelining);
        loop {
            let ahead = self.output().len();
            let Some(t) = &mut self.transaction else { return };
            if t.phase != Phase::Envelope
                || (!pipelining && !self.expected.is_empty())
                || ahead >= COMMANDS_AHEAD
            {
                return;
            }
            let next = t.next;
            let command = match next {
                0 => {
                    t.envelope.write_mail(&self.offers, &mut self.out);
                    Command::Mail
                }
                n if n <= t.recipients.len() && t.mail != Mail::Refused => {
                    t.envelope.write_rcpt(n - 1, &self.offers, &mut self.out);
                    Command::Rcpt(n - 1)
                }
                _ => return self.after_recipients(now_us),
            };
            t.next += 1;
            self.expect(now_us, command);
        }
    }

    /// All recipients were sent, or none may be sent any more.
    fn after_recipients(&mut self, now_us: u64) {
        let answered = self.expected.is_empty();
        let Some(t) = &mut self.transaction else { return };
        if answered && t.accepted == 0 {
            return self.end_refused(now_us);
        }
        match t.method {
            Method::Bdat if answered => self.want_first_content(now_us),
            Method::Data if t.mail != Mail::Refused => {
                t.phase = Phase::Go;
                self.command(now_us, b"DATA\r\n", Command::Data);
            }
            Method::Bdat | Method::Data => {}
        }
    }

    fn want_first_content(&mut self, now_us: u64) {
        if let Some(t) = &mut self.transaction {
            t.phase = Phase::Content;
            self.deadline_us = now_us.saturating_add(self.settings.timeouts.block_us);
            self.events.push_back(Event::Content);
        }
    }

    /// A foreseen reply to a command of the transaction.
    pub(super) fn transaction_reply(&mut self, now_us: u64, command: Command, reply: Reply) {
        match command {
            Command::Mail => self.mail_reply(&reply),
            Command::Rcpt(index) => self.rcpt_reply(index, reply),
            Command::Data => return self.data_reply(now_us, reply),
            Command::LoneDot => return self.end_refused(now_us),
            Command::Chunk if reply.positive() => return self.chunk_taken(now_us),
            Command::Chunk => {
                self.decide_accepted(Stage::Content, &reply);
                return self.end_refused(now_us);
            }
            _ => return self.final_reply(now_us, command, reply),
        }
        self.advance(now_us);
    }

    fn mail_reply(&mut self, reply: &Reply) {
        let Some(t) = &mut self.transaction else { return };
        if reply.positive() {
            t.mail = Mail::Accepted;
            return;
        }
        t.mail = Mail::Refused;
        let open = t.undecided();
        self.refuse(open, Stage::Mail, reply.clone(), false);
    }

    fn rcpt_reply(&mut self, index: usize, reply: Reply) {
        let Some(t) = &mut self.transaction else { return };
        if t.mail == Mail::Refused {
            t.stray |= reply.positive();
            return;
        }
        if reply.positive() {
            t.recipients[index] = Progress::Accepted;
            t.accepted += 1;
            return;
        }
        t.recipients[index] = Progress::Decided;
        let counted = matches!(reply.code, 452 | 552)
            && matches!(reply.enhanced, None | Some(Enhanced(4 | 5, 5, 3)));
        let too_many = counted && t.accepted > 0;
        self.refuse(vec![index], Stage::Rcpt, reply, too_many);
    }

    fn data_reply(&mut self, now_us: u64, reply: Reply) {
        let Some(t) = &mut self.transaction else { return };
        if reply.code != 354 {
            self.decide_accepted(Stage::Data, &reply);
            return self.end_refused(now_us);
        }
        if t.accepted > 0 {
            return self.want_first_content(now_us);
        }
        if t.stray {
            // A dot would send an empty message to whom the server believes to have accepted.
            let detail = "recipients and DATA accepted after MAIL was refused";
            return self.fail(Class::Protocol, Stage::Data, Some(reply), detail);
        }
        t.phase = Phase::Final;
        self.command(now_us, b".\r\n", Command::LoneDot);
    }

    fn final_reply(&mut self, now_us: u64, command: Command, reply: Reply) {
        let Some(t) = &mut self.transaction else { return };
        self.messages += 1;
        if !reply.positive() {
            let closing = reply.code == 421;
            self.decide_accepted(Stage::Dot, &reply);
            if closing {
                return self.fail(Class::Closing, Stage::Idle, Some(reply), "");
            }
            if command == Command::LastChunk {
                return self.end_refused(now_us);
            }
        } else {
            let reply = Arc::new(reply);
            for index in t.take(|p| p == Progress::Accepted) {
                let outcome = Outcome::Delivered(Arc::clone(&reply));
                self.events.push_back(Event::Recipient(index, outcome));
            }
        }
        self.transaction = None;
        self.events.push_back(Event::MessageEnd);
        self.become_ready(now_us);
    }

    /// Ends a transaction whose recipients are all decided; the server is told to forget it.
    pub(super) fn end_refused(&mut self, now_us: u64) {
        self.drop_chunk();
        self.transaction = None;
        self.events.push_back(Event::MessageEnd);
        self.state = State::Resetting;
        self.command(now_us, b"RSET\r\n", Command::Rset);
    }

    /// The accepted recipients share a refusal.
    pub(super) fn decide_accepted(&mut self, stage: Stage, reply: &Reply) {
        let Some(t) = &mut self.transaction else { return };
        let open = t.take(|p| p == Progress::Accepted);
        self.refuse(open, stage, reply.clone(), false);
    }

    fn refuse(&mut self, recipients: Vec<usize>, stage: Stage, reply: Reply, too_many: bool) {
        let permanent = reply.permanent() && !too_many;
        let refusal = Arc::new(Refusal { stage, reply, too_many });
        for index in recipients {
            let refusal = Arc::clone(&refusal);
            let outcome =
                if permanent { Outcome::PermFail(refusal) } else { Outcome::TempFail(refusal) };
            self.events.push_back(Event::Recipient(index, outcome));
        }
    }
}
