//! Replies as they arrive: what each command may be answered with, greeting, EHLO, STARTTLS.

use super::limits::HELO_MAX;
use super::machine::{Client, Command, Expect, State};
use super::offers::{Extension, Offers};
use super::outcome::{Class, Event, Stage};
use super::reply::{Reply, Step};
use super::settings::TlsPolicy;
use super::transaction::Phase;

const _: () = assert!(HELO_MAX + "EHLO \r\n".len() <= 512);

const EARLY: &str = "a reply came before its command";
const UNFORESEEN: &str = "a reply that the command cannot have";

impl Client {
    /// Takes octets of the server. Nothing of them is kept but the open line.
    pub fn receive(&mut self, now_us: u64, bytes: &[u8]) {
        let mut rest = bytes;
        while !matches!(self.state, State::Closed | State::TlsHandshake | State::Connecting) {
            let due = self.expected.front().is_some_and(|e| e.end <= self.handed);
            let hello =
                due && matches!(self.expected.front(), Some(Expect { command: Command::Ehlo, .. }));
            match self.parser.next(&mut rest) {
                Ok(Step::More) => return,
                Ok(Step::Line(text)) => {
                    if hello && !std::mem::take(&mut self.name_line) {
                        self.offers.line(text);
                    }
                }
                Ok(Step::Last(text)) => {
                    if hello && !std::mem::take(&mut self.name_line) {
                        self.offers.line(text);
                    }
                    let reply = self.parser.finish();
                    self.reply(now_us, reply);
                    if self.state == State::TlsHandshake {
                        // A TLS server never speaks first: all of this is injected.
                        self.events.push_back(Event::StartTls { discarded: rest.len() });
                        return;
                    }
                }
                Err(malformed) => {
                    self.fail(Class::Protocol, self.stage(), None, malformed.text());
                    return;
                }
            }
        }
    }

    fn reply(&mut self, now_us: u64, reply: Reply) {
        let stage = self.stage();
        let front = match self.expected.front() {
            Some(front) if front.end <= self.handed => *front,
            _ => return self.unsolicited(stage, reply),
        };
        let command = front.command;
        if !foreseen(command, reply.code) {
            return self.fail(Class::Protocol, stage, Some(reply), UNFORESEEN);
        }
        let last = matches!(command, Command::Dot | Command::LastChunk | Command::Quit);
        if reply.code == 421 && !last && command != Command::Greeting {
            return self.fail(Class::Closing, stage, Some(reply), "");
        }
        self.expected.pop_front();
        self.heard = true;
        self.arm(now_us);
        match command {
            Command::Greeting => self.greeting(now_us, reply),
            Command::Ehlo => self.ehlo(now_us, reply),
            Command::Helo => self.helo(now_us, reply),
            Command::StartTls => self.starttls(now_us, reply),
            Command::Rset if reply.positive() => self.become_ready(now_us),
            Command::Rset => self.fail(Class::Protocol, stage, Some(reply), "RSET was refused"),
            Command::Quit => self.close(None),
            _ => self.transaction_reply(now_us, command, reply),
        }
    }

    /// A reply while none is due.
    fn unsolicited(&mut self, stage: Stage, reply: Reply) {
        let closing = reply.code == 421;
        let class = if closing { Class::Closing } else { Class::Protocol };
        // Content refused before its end: it cannot be completed, so the connection goes too.
        if self.in_phase(Phase::Content) && (reply.transient() || reply.permanent()) {
            self.decide_accepted(Stage::Content, &reply);
            return self.fail(class, Stage::Content, Some(reply), "refused before its end");
        }
        self.fail(class, stage, Some(reply), if closing { "" } else { EARLY });
    }

    fn greeting(&mut self, now_us: u64, reply: Reply) {
        if reply.positive() {
            return self.hello(now_us, Command::Ehlo);
        }
        self.fail(greeting_class(&reply), Stage::Greeting, Some(reply), "");
    }

    /// Sends EHLO or HELO; what was offered before is void.
    pub(super) fn hello(&mut self, now_us: u64, command: Command) {
        self.state = State::Hello;
        self.offers = Offers::default();
        self.name_line = true;
        let verb: &[u8] = if command == Command::Ehlo { b"EHLO " } else { b"HELO " };
        self.out.extend_from_slice(verb);
        self.out.extend_from_slice(self.settings.helo().as_bytes());
        self.command(now_us, b"\r\n", command);
    }

    fn ehlo(&mut self, now_us: u64, reply: Reply) {
        if reply.positive() {
            return self.after_hello(now_us);
        }
        self.offers = Offers::default();
        if reply.transient() {
            return self.fail(Class::Greeting4xx, Stage::Hello, Some(reply), "");
        }
        if self.policy == TlsPolicy::Must && !self.secure {
            return self.fail(Class::TlsFailed, Stage::Hello, Some(reply), "EHLO was refused");
        }
        self.hello(now_us, Command::Helo);
    }

    fn helo(&mut self, now_us: u64, reply: Reply) {
        if reply.positive() {
            return self.after_hello(now_us);
        }
        self.fail(greeting_class(&reply), Stage::Hello, Some(reply), "");
    }

    fn after_hello(&mut self, now_us: u64) {
        if self.secure || self.policy == TlsPolicy::Never {
            return self.become_ready(now_us);
        }
        if self.offers.has(Extension::StartTls) {
            self.state = State::TlsRequested;
            return self.command(now_us, b"STARTTLS\r\n", Command::StartTls);
        }
        if self.policy == TlsPolicy::Must {
            return self.fail(Class::TlsFailed, Stage::Hello, None, "STARTTLS is not offered");
        }
        self.become_ready(now_us);
    }

    fn starttls(&mut self, now_us: u64, reply: Reply) {
        if reply.positive() {
            self.state = State::TlsHandshake;
            self.offers = Offers::default();
            self.deadline_us = now_us.saturating_add(self.settings.timeouts.tls_us);
        } else if self.policy == TlsPolicy::Must {
            self.fail(Class::TlsFailed, Stage::Tls, Some(reply), "STARTTLS was refused");
        } else {
            self.become_ready(now_us);
        }
    }
}

fn greeting_class(reply: &Reply) -> Class {
    if reply.permanent() { Class::Greeting5xx } else { Class::Greeting4xx }
}

/// The replies each command can have (RFC 5321 4.3.2); the rest is a broken protocol.
fn foreseen(command: Command, code: u16) -> bool {
    let class = code / 100;
    match command {
        Command::Quit => true,
        Command::Greeting | Command::StartTls => code == 220 || matches!(class, 4 | 5),
        Command::Ehlo | Command::Helo => code == 250 || matches!(class, 4 | 5),
        Command::Data => code == 354 || matches!(class, 4 | 5),
        Command::Mail
        | Command::Rcpt(_)
        | Command::Chunk
        | Command::LastChunk
        | Command::Dot
        | Command::LoneDot
        | Command::Rset => matches!(class, 2 | 4 | 5),
    }
}
