//! The machine itself: its inputs, its output, its timer, and the end of a connection.

use std::collections::VecDeque;
use std::sync::Arc;

use super::envelope::{BadEnvelope, Envelope};
use super::limits::{CONTENT_AHEAD, IDLE_CAPACITY_MAX, RECIPIENTS_MAX};
use super::offers::Offers;
use super::outcome::{Class, Event, Failure, Outcome, Stage};
use super::reply::{Parser, Reply};
use super::settings::{Settings, TlsPolicy};
use super::transaction::{Phase, Transaction};

/// What a reply will answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Mail,
    Rcpt(usize),
    Data,
    Chunk,
    LastChunk,
    Dot,
    /// The dot of a transaction without recipients.
    LoneDot,
    Rset,
    Quit,
}

/// A command whose reply is outstanding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expect {
    pub(super) command: Command,
    /// Octets of output up to the command's end, since the connection began.
    pub(super) end: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    Greeting,
    Hello,
    TlsRequested,
    TlsHandshake,
    Idle,
    Transaction,
    Resetting,
    Quitting,
    Closed,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// Not between [`Event::Ready`] and the next submission.
    NotReady,
    /// More than [`Client::recipients_max`].
    TooManyRecipients,
    /// The envelope cannot be sent to anybody.
    Envelope(BadEnvelope),
}

/// One connection to a next hop.
#[derive(Debug)]
pub struct Client {
    pub(super) settings: Arc<Settings>,
    pub(super) policy: TlsPolicy,
    pub(super) state: State,
    pub(super) secure: bool,
    pub(super) offers: Offers,
    /// The next line of the EHLO reply is the one with the server's name.
    pub(super) name_line: bool,
    pub(super) parser: Parser,
    pub(super) expected: VecDeque<Expect>,
    /// Output, from `out_start` on; an open BDAT chunk at its end is not lent yet.
    pub(super) out: Vec<u8>,
    pub(super) out_start: usize,
    /// Where the room for the header of the open chunk begins in `out`.
    pub(super) chunk: Option<usize>,
    /// Octets that were handed to the driver.
    pub(super) handed: u64,
    /// `u64::MAX`: none.
    pub(super) deadline_us: u64,
    pub(super) events: VecDeque<Event>,
    pub(super) transaction: Option<Box<Transaction>>,
    /// Messages whose content the server took or refused.
    pub(super) messages: u32,
    /// A reply was seen since the last submission.
    pub(super) heard: bool,
    quit_wanted: bool,
}

impl Client {
    /// A machine whose TCP connection is being opened.
    #[must_use]
    pub fn new(settings: Arc<Settings>, policy: TlsPolicy, now_us: u64) -> Self {
        let deadline_us = now_us.saturating_add(settings.timeouts.connect_us);
        Self {
            settings,
            policy,
            state: State::Connecting,
            secure: false,
            offers: Offers::default(),
            name_line: false,
            parser: Parser::default(),
            expected: VecDeque::new(),
            out: Vec::new(),
            out_start: 0,
            chunk: None,
            handed: 0,
            deadline_us,
            events: VecDeque::new(),
            transaction: None,
            messages: 0,
            heard: false,
            quit_wanted: false,
        }
    }

    /// The TCP connection is open.
    pub fn connected(&mut self, now_us: u64) {
        if self.state == State::Connecting {
            self.state = State::Greeting;
            self.expect(now_us, Command::Greeting);
        }
    }

    /// The TCP connection could not be opened.
    pub fn connect_failed(&mut self, _now_us: u64) {
        if self.state == State::Connecting {
            self.fail(Class::Refused, Stage::Connect, None, "");
        }
    }

    /// The handshake that [`Event::StartTls`] asked for succeeded.
    pub fn tls_established(&mut self, now_us: u64) {
        if self.state == State::TlsHandshake {
            self.secure = true;
            self.parser.clear();
            self.hello(now_us, Command::Ehlo);
        }
    }

    /// The handshake failed; `detail` is for logs.
    pub fn tls_failed(&mut self, _now_us: u64, detail: &'static str) {
        if self.state == State::TlsHandshake {
            self.fail(Class::TlsFailed, Stage::Tls, None, detail);
        }
    }

    /// The server closed its side, or the connection broke.
    pub fn eof(&mut self, _now_us: u64) {
        match self.state {
            State::Closed => {}
            State::Quitting => self.close(None),
            _ => {
                let detail = if self.parser.in_reply() { "in the middle of a reply" } else { "" };
                self.fail(Class::LostConnection, self.stage(), None, detail);
            }
        }
    }

    /// To be called at [`Client::deadline`]; earlier calls do nothing.
    pub fn timer(&mut self, now_us: u64) {
        if now_us < self.deadline_us {
            return;
        }
        match self.state {
            State::Closed => {}
            State::Quitting => self.close(None),
            State::Idle => self.send_quit(now_us),
            State::Transaction if self.expected.is_empty() && self.output().is_empty() => {
                self.fail(Class::Local, self.stage(), None, "the content did not come");
            }
            _ => self.fail(Class::Timeout, self.stage(), None, ""),
        }
    }

    /// When [`Client::timer`] is to be called, in µs.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        (self.deadline_us != u64::MAX).then_some(self.deadline_us)
    }

    /// Ends the connection with QUIT, as soon as no message is under way.
    pub fn quit(&mut self, now_us: u64) {
        self.quit_wanted = true;
        if self.state == State::Idle {
            self.send_quit(now_us);
        }
    }

    /// Ends the connection without ceremony: content cannot be read, or the daemon stops.
    pub fn abandon(&mut self, _now_us: u64, detail: &'static str) {
        if self.state != State::Closed {
            self.fail(Class::Local, self.stage(), None, detail);
        }
    }

    /// Starts a message. Outcomes come as events, at once if the server's offers do not suffice.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was changed.
    pub fn submit(&mut self, now_us: u64, envelope: Envelope) -> Result<(), SubmitError> {
        if self.state != State::Idle {
            return Err(SubmitError::NotReady);
        }
        if envelope.recipients.len() > self.recipients_max() {
            return Err(SubmitError::TooManyRecipients);
        }
        envelope.check().map_err(SubmitError::Envelope)?;
        self.heard = false;
        self.begin(now_us, envelope);
        Ok(())
    }

    /// The next event.
    pub fn poll(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if self.events.is_empty() {
            self.events.shrink_to(8);
        }
        event
    }

    /// Octets to send, until [`Client::consume`] is told that they were taken.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.out[self.out_start..self.chunk.unwrap_or(self.out.len())]
    }

    /// The driver took `taken` octets from the front of [`Client::output`].
    ///
    /// # Panics
    /// If more was taken than there was.
    pub fn consume(&mut self, now_us: u64, taken: usize) {
        assert!(taken <= self.output().len(), "no more is consumed than was lent");
        self.out_start += taken;
        self.handed += taken as u64;
        if self.out_start == self.out.len() {
            self.out.clear();
            self.out_start = 0;
            if self.transaction.is_none() && self.out.capacity() > IDLE_CAPACITY_MAX {
                self.out = Vec::new();
            }
        } else if self.out_start >= CONTENT_AHEAD && self.chunk.is_none() {
            self.out.drain(..self.out_start);
            self.out_start = 0;
        }
        if taken == 0 || self.state != State::Transaction {
            return;
        }
        if self.in_phase(Phase::Content) && self.expected.is_empty() {
            self.deadline_us = now_us.saturating_add(self.settings.timeouts.block_us);
        }
        self.advance(now_us);
    }

    /// What the server offers; nothing before [`Event::Ready`].
    #[must_use]
    pub fn offers(&self) -> &Offers {
        &self.offers
    }

    /// Whether TLS is on.
    #[must_use]
    pub fn secure(&self) -> bool {
        self.secure
    }

    /// Whether a message may be submitted now.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.state == State::Idle
    }

    /// Whether [`Event::Closed`] was given or waits in [`Client::poll`].
    #[must_use]
    pub fn closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Messages sent so far.
    #[must_use]
    pub fn messages(&self) -> u32 {
        self.messages
    }

    /// Recipients that one submission may have.
    #[must_use]
    pub fn recipients_max(&self) -> usize {
        let own = self.settings.recipients_max.clamp(1, RECIPIENTS_MAX);
        match self.offers.recipients_max {
            0 => own,
            n => own.min(usize::try_from(n).unwrap_or(usize::MAX)),
        }
    }

    /// A reply to `command`, whose octets are all in `out`, is due.
    pub(super) fn expect(&mut self, now_us: u64, command: Command) {
        let end = self.handed + (self.out.len() - self.out_start) as u64;
        self.expected.push_back(Expect { command, end });
        if self.expected.len() == 1 {
            self.arm(now_us);
        }
    }

    /// Sets the deadline for the reply that is due next.
    pub(super) fn arm(&mut self, now_us: u64) {
        let Some(front) = self.expected.front() else { return };
        let t = &self.settings.timeouts;
        let wait_us = match front.command {
            Command::Greeting => t.greeting_us,
            Command::Ehlo | Command::Helo => t.ehlo_us,
            Command::StartTls => t.tls_us,
            Command::Mail => t.mail_us,
            Command::Rcpt(_) => t.rcpt_us,
            Command::Data | Command::LoneDot => t.data_us,
            Command::Chunk => t.block_us,
            Command::LastChunk | Command::Dot => t.dot_us,
            Command::Rset => t.rset_us,
            Command::Quit => t.quit_us,
        };
        self.deadline_us = now_us.saturating_add(wait_us);
    }

    /// Writes a command without arguments.
    pub(super) fn command(&mut self, now_us: u64, line: &[u8], command: Command) {
        self.out.extend_from_slice(line);
        self.expect(now_us, command);
    }

    /// The connection is free for a message, unless it has served its time.
    pub(super) fn become_ready(&mut self, now_us: u64) {
        self.state = State::Idle;
        let offered = match self.offers.messages_max {
            0 => u32::MAX,
            n => n,
        };
        if self.quit_wanted || self.messages >= self.settings.messages_max.min(offered) {
            self.send_quit(now_us);
            return;
        }
        self.deadline_us = now_us.saturating_add(self.settings.timeouts.idle_us);
        self.events.push_back(Event::Ready);
    }

    fn send_quit(&mut self, now_us: u64) {
        self.state = State::Quitting;
        self.command(now_us, b"QUIT\r\n", Command::Quit);
    }

    /// Where the dialogue stands: the command whose reply is due, else the state.
    pub(super) fn stage(&self) -> Stage {
        match self.state {
            State::Connecting => Stage::Connect,
            State::Greeting => Stage::Greeting,
            State::Hello => Stage::Hello,
            State::TlsRequested | State::TlsHandshake => Stage::Tls,
            State::Idle | State::Closed => Stage::Idle,
            State::Resetting => Stage::Reset,
            State::Quitting => Stage::Quit,
            State::Transaction => match self.expected.front() {
                Some(Expect { command: Command::Mail, .. }) => Stage::Mail,
                Some(Expect { command: Command::Rcpt(_), .. }) => Stage::Rcpt,
                Some(Expect { command: Command::Data | Command::LoneDot, .. }) => Stage::Data,
                // Until its end has left, the server cannot have taken the message.
                Some(Expect { command: Command::Dot | Command::LastChunk, end })
                    if *end <= self.handed =>
                {
                    Stage::Dot
                }
                _ => Stage::Content,
            },
        }
    }

    /// Ends a connection that went wrong. Undecided recipients learn why.
    pub(super) fn fail(
        &mut self,
        class: Class,
        stage: Stage,
        reply: Option<Reply>,
        detail: &'static str,
    ) {
        let gone = matches!(class, Class::LostConnection | Class::Closing);
        let polite = matches!(class, Class::Greeting4xx | Class::Greeting5xx)
            || (class == Class::TlsFailed && self.state != State::TlsHandshake);
        let failure = Arc::new(Failure {
            class,
            stage,
            reply,
            detail,
            stale: gone && stage == Stage::Mail && !self.heard && self.messages > 0,
            clear_may_help: stage == Stage::Tls
                && class != Class::Local
                && self.policy == TlsPolicy::May,
        });
        if let Some(mut transaction) = self.transaction.take() {
            for index in transaction.undecided() {
                let failure = Arc::clone(&failure);
                let outcome = if stage == Stage::Dot {
                    Outcome::Unknown(failure)
                } else {
                    Outcome::NotTried(failure)
                };
                self.events.push_back(Event::Recipient(index, outcome));
            }
            self.events.push_back(Event::MessageEnd);
        }
        // What was not handed out must not reach the server: it might complete the message.
        self.out.clear();
        self.out_start = 0;
        self.chunk = None;
        if polite {
            self.out.extend_from_slice(b"QUIT\r\n");
        }
        self.close(Some(failure));
    }

    pub(super) fn close(&mut self, failure: Option<Arc<Failure>>) {
        self.state = State::Closed;
        self.expected.clear();
        self.parser.clear();
        self.deadline_us = u64::MAX;
        self.events.push_back(Event::Closed(failure));
    }
}
