//! The receiving machine: octets in, replies out, every decision asked of its host.
//!
//! *Guarantees*: replies stand in the order of the commands, one each. Only CRLF ends a command
//! and only CRLF.CRLF ends DATA. After a framing error the session is over. How the input is cut
//! does not change the output (but for [`Settings::pipelining`], which is about just that).
//!
//! *Limits*: at most [`HELD_MAX`] octets are held, namely while a question is open or a command
//! line is not complete; all others are those of [`Settings`] and [`crate::limits`].
//!
//! *Failure*: the client reads a reply with an enhanced code, the id and a reason; the host gets
//! a [`Note`] with the same, and [`Closed`] says why a session ended.
//!
//! *Not here*: sockets, TLS, time, policy, the spool. Per-recipient replies to a message (PRDR):
//! [`Answer::worst`] says what becomes of answers that differ.

mod commands;
mod content;
mod envelope;
mod host;
mod settings;

use crate::command::{self, Offers};
use crate::data::{BareNewline, Framing, Scanner};
use crate::limits::{COMMAND_LINE_MAX, HELD_MAX, IDLE_CAPACITY_MAX};
use crate::reply::{self, Enhanced, Id, Refusal, Reply};
pub use envelope::{Envelope, Recipient};
pub use host::{Action, Answer, Closed, End, Host, Note, Question, Stage, Token};
pub use settings::{Settings, Timeouts, Violation};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before the greeting.
    Connect,
    /// A command is awaited.
    Command,
    /// The rest of a line over the limit: whether its last octet so far is CR, and whether it
    /// is a BDAT, so that what follows it cannot be told from commands.
    LongLine {
        cr: bool,
        bdat: bool,
    },
    /// Content of DATA.
    Data,
    /// Content of a chunk: octets left.
    Chunk {
        left: u64,
        last: bool,
    },
    /// Octets of a refused chunk.
    Skip {
        left: u64,
        last: bool,
    },
    /// All content is there.
    Ending,
    /// 220 to STARTTLS is written.
    Tls,
    Closed(Closed),
}

/// What the open question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Connect,
    Helo { extended: bool },
    Mail,
    Rcpt,
    Data,
    Chunk { octets: u64, last: bool },
    Header,
    Message,
}

/// Why content under way will not be taken.
#[derive(Debug, Clone)]
enum Refused {
    Fixed(&'static Reply),
    Host(Box<Refusal>),
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    mails: u32,
    junk: u32,
    errors: u32,
    refused_rcpts: u32,
    overshoot: u32,
}

/// One session.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of one session")]
#[derive(Debug)]
pub struct Server {
    settings: Arc<Settings>,
    id: Id,
    offers: Offers,
    envelope: Envelope,
    scanner: Scanner,
    refused: Option<Refused>,
    /// The host was told of it already; the client hears it at the end of its content.
    told: bool,
    held: Vec<u8>,
    phase: Phase,
    asked: Option<(Token, Asked)>,
    tokens: u32,
    counts: Counts,
    /// Octets of the message or chunk under way, as they came.
    consumed: u64,
    now_us: u64,
    started_us: u64,
    /// The last reply, or the last content.
    mark_us: u64,
    transfer_us: u64,
    transferred: u64,
    /// The sink said not now.
    paused: bool,
    secure: bool,
    greeted: bool,
    in_mail: bool,
    /// The host still waits for the end of the transaction.
    owed_end: bool,
    in_chunks: bool,
    chunks_refused: bool,
    header_asked: bool,
    noted_early: bool,
    noted_pipelined: bool,
    mail_refused: bool,
    stopping: bool,
    eof: bool,
}

impl Server {
    /// A session with the id its host gave it (20 base-32 characters).
    #[must_use]
    pub fn new(settings: Arc<Settings>, id: &str) -> Self {
        Self {
            settings,
            id: Id::new(id),
            offers: Offers::NONE,
            envelope: Envelope::default(),
            scanner: Scanner::new(Framing::Dots, BareNewline::Refuse),
            refused: None,
            told: false,
            held: Vec::new(),
            phase: Phase::Connect,
            asked: None,
            tokens: 0,
            counts: Counts::default(),
            consumed: 0,
            now_us: 0,
            started_us: 0,
            mark_us: 0,
            transfer_us: 0,
            transferred: 0,
            paused: false,
            secure: false,
            greeted: false,
            in_mail: false,
            owed_end: false,
            in_chunks: false,
            chunks_refused: false,
            header_asked: false,
            noted_early: false,
            noted_pipelined: false,
            mail_refused: false,
            stopping: false,
            eof: false,
        }
    }

    /// Asks whether to greet, and greets. To be called once, first.
    pub fn start(&mut self, now_us: u64, host: &mut impl Host) {
        self.now_us = now_us;
        self.started_us = now_us;
        self.mark_us = now_us;
        let token = self.token();
        let answer = host.ask(token, Question::Connect);
        self.asked_about(token, Asked::Connect, answer, host);
    }

    /// Takes input and returns how many octets of it were used. Fewer than all only if
    /// [`Self::wants_input`] is false now: keep the rest and offer it again once it is true.
    pub fn receive(&mut self, now_us: u64, input: &[u8], host: &mut impl Host) -> usize {
        self.now_us = now_us;
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            match self.phase {
                Phase::Closed(_) => return input.len(),
                Phase::Tls => {
                    host.note(Note::StartTlsTail(rest.len()));
                    return input.len();
                }
                _ => {}
            }
            if self.blocked() {
                used += self.hold(rest, host);
                break;
            }
            used +=
                if self.held.is_empty() { self.step(rest, host) } else { self.join(rest, host) };
        }
        self.stop_if_asked(host);
        used
    }

    /// Whether [`Self::receive`] would use input.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        !self.blocked() || self.held.len() < HELD_MAX
    }

    /// The host's late decision. False if nobody waits for it: the token is stale or wrong.
    pub fn answer(
        &mut self,
        now_us: u64,
        token: Token,
        answer: Answer,
        host: &mut impl Host,
    ) -> bool {
        let Some((open, asked)) = self.asked else { return false };
        if open != token {
            return false;
        }
        self.asked = None;
        self.unblock(now_us);
        self.decide(asked, answer, host);
        self.drain(host);
        true
    }

    /// The sink that said [`crate::data::Flow::NotNow`] takes more.
    pub fn resume(&mut self, now_us: u64, host: &mut impl Host) {
        if !self.paused {
            return;
        }
        self.paused = false;
        if !self.blocked() {
            self.unblock(now_us);
            self.settle(host);
            self.drain(host);
        }
    }

    /// When [`Self::timeout`] is due, if ever: never while the next move is the host's.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let timeouts = &self.settings.timeouts;
        if self.blocked() {
            return None;
        }
        Some(match self.phase {
            Phase::Connect | Phase::Ending | Phase::Closed(_) => return None,
            Phase::Tls => self.mark_us.saturating_add(timeouts.starttls_us),
            Phase::Command | Phase::LongLine { .. } => {
                let command = self.mark_us.saturating_add(timeouts.command_us);
                match timeouts.session_us {
                    0 => command,
                    session => command.min(self.started_us.saturating_add(session)),
                }
            }
            Phase::Data | Phase::Chunk { .. } | Phase::Skip { .. } => {
                let silence = self.mark_us.saturating_add(timeouts.data_us);
                let rate = timeouts.data_octets_per_second_min;
                let micros = self.transferred.saturating_mul(1_000_000).checked_div(rate);
                micros.map_or(silence, |micros| {
                    let start = self.transfer_us.saturating_add(timeouts.data_us);
                    silence.min(start.saturating_add(micros))
                })
            }
        })
    }

    /// Ends the session if its deadline has passed.
    pub fn timeout(&mut self, now_us: u64, host: &mut impl Host) {
        self.now_us = now_us;
        if self.deadline().is_none_or(|deadline| deadline > now_us) {
            return;
        }
        let command = self.mark_us.saturating_add(self.settings.timeouts.command_us);
        let (stage, text) = match self.phase {
            // A handshake is under way: nothing can be said.
            Phase::Tls => return self.close(Closed::Timeout, host),
            Phase::Command | Phase::LongLine { .. } if command > now_us => {
                (Stage::Command, &reply::SESSION_LONG)
            }
            Phase::Command | Phase::LongLine { .. } => (Stage::Command, &reply::TIMEOUT),
            _ => (Stage::Data, &reply::DATA_TIMEOUT),
        };
        self.refuse_and_close(stage, text, b"", Closed::Timeout, host);
    }

    /// What is to be done once the replies are sent.
    #[must_use]
    pub fn action(&self) -> Action {
        match self.phase {
            Phase::Tls => Action::StartTls,
            Phase::Closed(why) => Action::Close(why),
            _ => Action::None,
        }
    }

    /// The handshake is done: the session starts afresh (RFC 3207 4.2), but for what it counted.
    pub fn tls_started(&mut self, now_us: u64) {
        if self.phase == Phase::Tls {
            self.now_us = now_us;
            self.mark_us = now_us;
            self.secure = true;
            self.greeted = false;
            self.offers = Offers::NONE;
            self.phase = Phase::Command;
        }
    }

    /// The client closed its side; to be called when all its input was used. What it was promised
    /// an answer to is still answered.
    pub fn eof(&mut self, now_us: u64, host: &mut impl Host) {
        self.now_us = now_us;
        self.eof = true;
        if !self.blocked() {
            self.close(Closed::Peer, host);
        }
    }

    /// The connection is gone: nobody will read a reply.
    pub fn broken(&mut self, host: &mut impl Host) {
        if matches!(self.asked, Some((_, Asked::Message))) && self.owed_end {
            self.owed_end = false;
            host.done(End::Gone);
        }
        self.close(Closed::Peer, host);
    }

    /// Ends the session with 421 as soon as no transaction is under way.
    pub fn shutdown(&mut self, now_us: u64, host: &mut impl Host) {
        self.now_us = now_us;
        self.stopping = true;
        self.stop_if_asked(host);
    }

    /// The id that replies carry now: the session's, with `.n` while a transaction is under way.
    #[must_use]
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// n of the id `<session>.n`; 0 before the first MAIL.
    #[must_use]
    pub fn transaction(&self) -> u32 {
        self.counts.mails
    }

    /// The envelope of the transaction under way.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// What was seen of the content under way.
    #[must_use]
    pub fn facts(&self) -> &crate::data::Facts {
        self.scanner.facts()
    }

    /// Whether TLS is on.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Whether nothing is under way, so that the session may be ended when slots are short.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Command && !self.in_mail && !self.blocked()
    }

    fn blocked(&self) -> bool {
        self.asked.is_some() || self.paused
    }

    fn unblock(&mut self, now_us: u64) {
        self.now_us = now_us;
        self.mark_us = now_us;
        self.transfer_us = now_us;
        self.transferred = 0;
    }

    fn token(&mut self) -> Token {
        self.tokens = self.tokens.wrapping_add(1);
        Token(self.tokens)
    }

    fn asked_about(
        &mut self,
        token: Token,
        asked: Asked,
        answer: Option<Answer>,
        host: &mut impl Host,
    ) {
        match answer {
            Some(answer) => self.decide(asked, answer, host),
            None => self.asked = Some((token, asked)),
        }
    }

    /// Keeps input while a question is open.
    fn hold(&mut self, input: &[u8], host: &mut impl Host) -> usize {
        let early = matches!(self.asked, Some((_, Asked::Connect)));
        if early && !self.noted_early {
            self.noted_early = true;
            host.note(Note::EarlyTalker);
            if self.settings.early_talker == Violation::Refuse {
                let why = Closed::EarlyTalker;
                self.refuse_and_close(Stage::Connect, &reply::EARLY, b"", why, host);
                return input.len();
            }
        }
        if matches!(self.asked, Some((_, Asked::Helo { .. } | Asked::Data)))
            && self.held.is_empty()
            && self.pipelined(host)
        {
            return input.len();
        }
        let n = input.len().min(HELD_MAX - self.held.len().min(HELD_MAX));
        self.held.extend_from_slice(&input[..n]);
        n
    }

    /// Works off what was held. Afterwards at most an incomplete line is held, unless blocked.
    fn drain(&mut self, host: &mut impl Host) {
        if !self.held.is_empty() {
            let mut held = std::mem::take(&mut self.held);
            let mut at = 0;
            while at < held.len() && !self.blocked() {
                match self.phase {
                    Phase::Closed(_) => break,
                    Phase::Tls => {
                        host.note(Note::StartTlsTail(held.len() - at));
                        break;
                    }
                    _ => at += self.step(&held[at..], host),
                }
            }
            if self.blocked() {
                held.drain(..at);
                self.held = held;
            } else if self.held.is_empty() && held.capacity() <= IDLE_CAPACITY_MAX {
                held.clear();
                self.held = held;
            }
        }
        if self.eof && !self.blocked() {
            self.close(Closed::Peer, host);
        }
        self.stop_if_asked(host);
    }

    /// One command line, or as much content as there is. Uses at least one octet.
    fn step(&mut self, input: &[u8], host: &mut impl Host) -> usize {
        match self.phase {
            Phase::Command => self.first_line(input, host),
            Phase::LongLine { cr, bdat } => self.long_line(input, cr, bdat, host),
            Phase::Data => self.data(input, host),
            Phase::Chunk { left, last } => self.chunk(input, left, last, host),
            Phase::Skip { left, last } => self.skip(input, left, last, host),
            // Blocked, or without input, in these.
            Phase::Connect | Phase::Ending | Phase::Tls | Phase::Closed(_) => input.len(),
        }
    }

    /// The command line at the front of the input.
    fn first_line(&mut self, input: &[u8], host: &mut impl Host) -> usize {
        let end = memchr::memchr(b'\n', input).map(|n| n + 1);
        if let Some(end) = end {
            self.line(&input[..end], end < input.len(), host);
            return end;
        }
        self.incomplete(input, host);
        input.len()
    }

    /// Completes the line that is held.
    fn join(&mut self, input: &[u8], host: &mut impl Host) -> usize {
        let end = memchr::memchr(b'\n', input).map(|n| n + 1);
        let used = end.unwrap_or(input.len());
        let mut held = std::mem::take(&mut self.held);
        if held.len() + used > COMMAND_LINE_MAX {
            // What is held is shorter than a line may be.
            let part = COMMAND_LINE_MAX - held.len();
            held.extend_from_slice(&input[..part]);
            self.incomplete(&held, host);
            return part;
        }
        held.extend_from_slice(&input[..used]);
        if end.is_some() {
            self.line(&held, used < input.len(), host);
            held.clear();
            if self.held.is_empty() && held.capacity() <= IDLE_CAPACITY_MAX {
                self.held = held;
            }
        } else {
            self.incomplete(&held, host);
        }
        used
    }

    /// Keeps a line that has no end yet.
    fn incomplete(&mut self, line: &[u8], host: &mut impl Host) {
        if command::is_tls(line) {
            let why = Closed::NotSmtp;
            self.refuse_and_close(Stage::Command, &reply::NOT_SMTP, b"", why, host);
        } else if line.len() >= COMMAND_LINE_MAX {
            self.phase = Phase::LongLine { cr: line.ends_with(b"\r"), bdat: is_bdat(line) };
        } else {
            self.held.clear();
            self.held.extend_from_slice(line);
        }
    }

    /// Passes over the rest of a line that is too long; one reply for all of it.
    fn long_line(&mut self, input: &[u8], cr: bool, bdat: bool, host: &mut impl Host) -> usize {
        let Some(n) = memchr::memchr(b'\n', input) else {
            self.phase = Phase::LongLine { cr: input.ends_with(b"\r"), bdat };
            return input.len();
        };
        self.phase = Phase::Command;
        self.mark_us = self.now_us;
        let crlf = if n == 0 { cr } else { input[n - 1] == b'\r' };
        self.line_too_long(crlf, bdat, host);
        n + 1
    }

    fn line_too_long(&mut self, crlf: bool, bdat: bool, host: &mut impl Host) {
        let fatal = match (crlf, bdat) {
            (true, false) => return self.error(Stage::Command, &reply::LINE_LONG, b"", host),
            (true, true) => &reply::BDAT_SYNTAX,
            (false, _) => &reply::BARE_COMMAND,
        };
        self.refuse_and_close(Stage::Command, fatal, b"", Closed::FramingError, host);
    }

    /// True if input that may not be there ended the session.
    fn pipelined(&mut self, host: &mut impl Host) -> bool {
        if std::mem::replace(&mut self.noted_pipelined, true) {
            return false;
        }
        host.note(Note::Pipelined);
        let refuse = self.settings.pipelining == Violation::Refuse;
        if refuse {
            let why = Closed::Pipelining;
            self.refuse_and_close(Stage::Command, &reply::PIPELINED, b"", why, host);
        }
        refuse
    }

    fn stop_if_asked(&mut self, host: &mut impl Host) {
        if self.stopping && self.is_idle() && self.held.is_empty() {
            self.stop(host);
        }
    }

    fn stop(&mut self, host: &mut impl Host) {
        self.refuse_and_close(Stage::Command, &reply::SHUTDOWN, b"", Closed::Shutdown, host);
    }

    /// Writes a refusal of ours and tells the host.
    fn refuse(&mut self, stage: Stage, reply: &Reply, about: &[u8], host: &mut impl Host) {
        reply.write_about(host.out(), &self.id, about);
        tell_fixed(stage, reply, about, host);
    }

    fn refuse_and_close(
        &mut self,
        stage: Stage,
        reply: &Reply,
        about: &[u8],
        why: Closed,
        host: &mut impl Host,
    ) {
        self.refuse(stage, reply, about, host);
        self.close(why, host);
    }

    /// Writes the host's refusal.
    fn refuse_by_host(
        &mut self,
        stage: Stage,
        refusal: &Refusal,
        about: &[u8],
        host: &mut impl Host,
    ) {
        reply::write_refusal(host.out(), refusal, &self.id);
        tell_by_host(stage, refusal, about, host);
        if refusal.close {
            self.close(Closed::Refused, host);
        }
    }

    /// A wrong command: its reply, or the last one of the session.
    fn error(&mut self, stage: Stage, reply: &Reply, about: &[u8], host: &mut impl Host) {
        self.counts.errors += 1;
        if self.counts.errors >= self.settings.errors_max {
            let why = Closed::TooManyErrors;
            self.refuse_and_close(stage, &reply::ERRORS, about, why, host);
        } else {
            self.refuse(stage, reply, about, host);
        }
    }

    /// Counts a command that moves no mail; true if it was one too many.
    fn junk(&mut self, host: &mut impl Host) -> bool {
        self.counts.junk += 1;
        let over = self.counts.junk > self.settings.junk_max;
        if over {
            let why = Closed::TooMuchJunk;
            self.refuse_and_close(Stage::Command, &reply::JUNK, b"", why, host);
        }
        over
    }

    /// Ends the transaction, if there is one.
    fn end_transaction(&mut self, end: End, host: &mut impl Host) {
        self.in_mail = false;
        self.in_chunks = false;
        self.refused = None;
        self.told = false;
        self.paused = false;
        self.envelope.clear();
        self.id.set_transaction(0);
        if std::mem::take(&mut self.owed_end) {
            host.done(end);
        }
    }

    fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    fn close(&mut self, why: Closed, host: &mut impl Host) {
        if self.is_closed() {
            return;
        }
        self.asked = None;
        self.end_transaction(End::Reset, host);
        self.held = Vec::new();
        self.phase = Phase::Closed(why);
    }
}

fn is_bdat(line: &[u8]) -> bool {
    line.get(..5).is_some_and(|word| word.eq_ignore_ascii_case(b"BDAT "))
}

/// Tells the host of a refusal of ours.
fn tell_fixed(stage: Stage, reply: &Reply, about: &[u8], host: &mut impl Host) {
    host.note(Note::Refused {
        stage,
        code: reply.code,
        enhanced: reply.enhanced.unwrap_or(Enhanced(5, 0, 0)),
        text: reply.text,
        about,
    });
}

/// Tells the host that its refusal was heard.
fn tell_by_host(stage: Stage, refusal: &Refusal, about: &[u8], host: &mut impl Host) {
    host.note(Note::Refused {
        stage,
        code: refusal.code(),
        enhanced: refusal.enhanced(),
        text: &refusal.text,
        about,
    });
}
