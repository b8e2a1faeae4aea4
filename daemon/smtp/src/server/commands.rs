//! Commands in their order: which may stand where, what each asks, what each answers.

use super::{Answer, Asked, Closed, End, Host, Phase, Question, Refused, Server, Stage};
use crate::address::{Address, Path};
use crate::command::{self, Body, Command, Helo, MailParameters, Offers, RcptParameters, Wrong};
use crate::data::{Framing, Scanner};
use crate::limits::{COMMAND_LINE_MAX, RCPT_OVERSHOOT_MAX};
use crate::reply::{self, Refusal, Reply};

impl Server {
    /// A whole line with its LF; `more` says that input follows it.
    pub(super) fn line(&mut self, line: &[u8], more: bool, host: &mut impl Host) {
        self.mark_us = self.now_us;
        self.noted_pipelined = false;
        if command::is_tls(line) {
            let why = Closed::NotSmtp;
            return self.refuse_and_close(Stage::Command, &reply::NOT_SMTP, b"", why, host);
        }
        let text = match line.strip_suffix(b"\r\n") {
            Some(_) if line.len() > COMMAND_LINE_MAX => {
                return self.line_too_long(true, super::is_bdat(line), host);
            }
            Some(text) if memchr::memchr(b'\r', text).is_none() => text,
            _ => {
                let why = Closed::FramingError;
                return self.refuse_and_close(Stage::Command, &reply::BARE_COMMAND, b"", why, host);
            }
        };
        if self.stopping && !self.in_mail {
            return self.stop(host);
        }
        let command = match Command::parse(text, &self.offers, self.envelope.mail().smtputf8) {
            Ok(command) => command,
            Err(Wrong::Reply(reply)) if self.is_useless(text) => {
                return self.useless(Stage::Rcpt, reply, host);
            }
            Err(wrong) => return self.wrong(wrong, text, host),
        };
        if more && matches!(command, Command::Helo(_) | Command::Data) && self.pipelined(host) {
            return;
        }
        match command {
            Command::Helo(helo) => self.helo(helo, host),
            Command::Mail { from, parameters } => self.mail(from, &parameters, host),
            Command::Rcpt { to, parameters } => self.rcpt(to, &parameters, host),
            Command::Data => self.data_command(host),
            Command::Bdat { octets, last } => self.bdat(octets, last, host),
            Command::Rset => self.rset(host),
            Command::Noop => self.harmless(&reply::OK, host),
            Command::Vrfy => self.harmless(&reply::VRFY, host),
            Command::Help => self.harmless(&reply::HELP, host),
            Command::Quit => {
                reply::BYE.write(host.out());
                self.close(Closed::Quit, host);
            }
            Command::StartTls => self.starttls(host),
        }
    }

    fn wrong(&mut self, wrong: Wrong, text: &[u8], host: &mut impl Host) {
        let stage = match text.first().map(u8::to_ascii_uppercase) {
            Some(b'M') => Stage::Mail,
            Some(b'R') => Stage::Rcpt,
            Some(b'E' | b'H') => Stage::Helo,
            _ => Stage::Command,
        };
        self.mail_refused |= stage == Stage::Mail && !self.in_mail;
        match wrong {
            Wrong::Reply(reply) => self.error(stage, reply, text, host),
            Wrong::Unknown => self.error(Stage::Command, &reply::UNKNOWN, text, host),
            Wrong::Fatal(reply) => {
                let not_smtp = *reply == reply::NOT_SMTP;
                let why = if not_smtp { Closed::NotSmtp } else { Closed::FramingError };
                self.refuse_and_close(stage, reply, text, why, host);
            }
        }
    }

    fn harmless(&mut self, reply: &Reply, host: &mut impl Host) {
        if !self.junk(host) {
            reply.write(host.out());
        }
    }

    fn helo(&mut self, helo: Helo<'_>, host: &mut impl Host) {
        if self.greeted && self.junk(host) {
            return;
        }
        // EHLO in mid-session is RSET too (RFC 5321 4.1.4).
        self.reset(host);
        let token = self.token();
        let answer = host.ask(token, Question::Helo(helo));
        self.asked_about(token, Asked::Helo { extended: helo.extended }, answer, host);
    }

    fn reset(&mut self, host: &mut impl Host) {
        self.chunks_refused = false;
        self.mail_refused = false;
        self.end_transaction(End::Reset, host);
    }

    fn rset(&mut self, host: &mut impl Host) {
        if !self.junk(host) {
            self.reset(host);
            reply::RESET.write(host.out());
        }
    }

    fn starttls(&mut self, host: &mut impl Host) {
        let fault = if self.secure {
            &reply::TLS_ALREADY
        } else if !self.greeted {
            &reply::HELO_FIRST
        } else if !self.offers.starttls {
            &reply::NOT_HERE
        } else {
            return self.go_ahead(host);
        };
        self.error(Stage::StartTls, fault, b"", host);
    }

    fn go_ahead(&mut self, host: &mut impl Host) {
        self.reset(host);
        reply::GO_AHEAD.write(host.out());
        self.phase = Phase::Tls;
    }

    fn mail(&mut self, from: Path<'_>, parameters: &MailParameters<'_>, host: &mut impl Host) {
        if !self.greeted {
            return self.error(Stage::Mail, &reply::HELO_FIRST, b"", host);
        }
        if self.in_mail {
            return self.error(Stage::Mail, &reply::NESTED_MAIL, b"", host);
        }
        if self.counts.mails >= self.settings.mail_max {
            let why = Closed::TooManyMails;
            return self.refuse_and_close(Stage::Mail, &reply::MAILS, b"", why, host);
        }
        self.counts.mails += 1;
        self.counts.overshoot = 0;
        self.chunks_refused = false;
        self.mail_refused = false;
        self.id.set_transaction(self.counts.mails);
        let sender = match from {
            Path::Null => b"",
            Path::Mailbox(address) => address.as_bytes(),
        };
        self.envelope.open(sender, parameters);
        let token = self.token();
        let transaction = self.counts.mails;
        let question = Question::Mail { from, parameters: *parameters, transaction };
        let answer = host.ask(token, question);
        self.asked_about(token, Asked::Mail, answer, host);
    }

    fn rcpt(&mut self, to: Address<'_>, parameters: &RcptParameters<'_>, host: &mut impl Host) {
        if !self.in_mail {
            return self.useless(Stage::Rcpt, self.no_mail(), host);
        }
        if self.in_chunks {
            return self.error(Stage::Rcpt, &reply::IN_CHUNKS, b"", host);
        }
        if self.envelope.recipients().len() >= self.settings.rcpt_max as usize {
            self.counts.overshoot += 1;
            self.refuse(Stage::Rcpt, &reply::RCPTS, b"", host);
            if self.counts.overshoot > RCPT_OVERSHOOT_MAX {
                self.close(Closed::TooManyRecipients, host);
            }
            return;
        }
        self.envelope.push(to.as_bytes(), parameters);
        let token = self.token();
        let parameters = *parameters;
        let answer = host.ask(token, Question::Rcpt { to, parameters, envelope: &self.envelope });
        self.asked_about(token, Asked::Rcpt, answer, host);
    }

    /// Whether a wrong command can only be pipelined behind a MAIL that was refused.
    fn is_useless(&self, text: &[u8]) -> bool {
        let rcpt = text.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"RCPT"));
        rcpt && !self.in_mail && (self.mail_refused || self.chunks_refused)
    }

    /// A command that has no transaction. Behind a refused MAIL a client that pipelines cannot
    /// know: no error then, but not for ever either.
    fn useless(&mut self, stage: Stage, reply: &'static Reply, host: &mut impl Host) {
        if !self.mail_refused && !self.chunks_refused {
            return self.error(stage, reply, b"", host);
        }
        self.counts.overshoot += 1;
        self.refuse(stage, reply, b"", host);
        if self.counts.overshoot > self.settings.rcpt_max.saturating_add(RCPT_OVERSHOOT_MAX) {
            self.close(Closed::TooManyErrors, host);
        }
    }

    fn no_mail(&self) -> &'static Reply {
        if self.chunks_refused { &reply::CHUNKS_REFUSED } else { &reply::MAIL_FIRST }
    }

    fn data_command(&mut self, host: &mut impl Host) {
        let fault = if !self.in_mail {
            return self.useless(Stage::Data, self.no_mail(), host);
        } else if self.in_chunks {
            &reply::IN_CHUNKS
        } else if self.envelope.mail().body == Body::BinaryMime {
            &reply::BINARY_NEEDS_BDAT
        } else if self.envelope.recipients().len() == 0 {
            // A client that pipelines cannot know: no error, but not for ever either.
            if !self.junk(host) {
                self.refuse(Stage::Data, &reply::NO_RECIPIENTS, b"", host);
            }
            return;
        } else {
            let token = self.token();
            let question = Question::Data { envelope: &self.envelope, chunked: false };
            let answer = host.ask(token, question);
            return self.asked_about(token, Asked::Data, answer, host);
        };
        self.error(Stage::Data, fault, b"", host);
    }

    /// Whatever is wrong with a BDAT, its octets follow and are passed over (RFC 3030 2).
    fn bdat(&mut self, octets: u64, last: bool, host: &mut impl Host) {
        let taken = self.scanner.facts().octets;
        let fault = if !self.offers.chunking {
            Some(&reply::NOT_HERE)
        } else if !self.in_mail {
            Some(self.no_mail())
        } else if self.envelope.recipients().len() == 0 {
            Some(&reply::NO_RECIPIENTS)
        } else {
            let taken = if self.in_chunks { taken } else { 0 };
            self.too_large(taken.saturating_add(octets)).then_some(&reply::SIZE)
        };
        if let Some(fault) = fault {
            if octets == 0 && self.junk(host) {
                return;
            }
            return self.refuse_chunk(Refused::Fixed(fault), octets, last, host);
        }
        if self.in_chunks {
            return self.start_chunk(octets, last, host);
        }
        let token = self.token();
        let answer = host.ask(token, Question::Data { envelope: &self.envelope, chunked: true });
        self.asked_about(token, Asked::Chunk { octets, last }, answer, host);
    }

    pub(super) fn too_large(&self, octets: u64) -> bool {
        self.offers.size.is_some_and(|limit| limit != 0 && octets > limit)
    }

    /// Goes on with what a question was about.
    pub(super) fn decide(&mut self, asked: Asked, answer: Answer, host: &mut impl Host) {
        match answer {
            Answer::Accept => self.accepted(asked, host),
            Answer::Refuse(refusal) => self.refused(asked, refusal, host),
        }
        self.settle(host);
    }

    fn accepted(&mut self, asked: Asked, host: &mut impl Host) {
        match asked {
            Asked::Connect => {
                let out = host.out();
                out.extend_from_slice(b"220 ");
                out.extend_from_slice(self.settings.hostname.as_bytes());
                out.extend_from_slice(b" ESMTP\r\n");
                self.phase = Phase::Command;
            }
            Asked::Helo { extended } => self.greet(extended, host),
            Asked::Mail => {
                self.in_mail = true;
                self.owed_end = true;
                reply::SENDER_OK.write(host.out());
            }
            Asked::Rcpt => reply::RECIPIENT_OK.write(host.out()),
            Asked::Data => {
                self.start_content(Framing::Dots);
                self.phase = Phase::Data;
                reply::SEND.write(host.out());
            }
            Asked::Chunk { octets, last } => {
                let binary = self.envelope.mail().body == Body::BinaryMime;
                self.start_content(if binary { Framing::Binary } else { Framing::Chunks });
                self.in_chunks = true;
                self.start_chunk(octets, last, host);
            }
            // `settle` goes on.
            Asked::Header => {}
            Asked::Message => {
                reply::ACCEPTED.write_with_id(host.out(), &self.id);
                self.counts.junk = 0;
                self.end_transaction(End::Accepted, host);
            }
        }
    }

    fn refused(&mut self, asked: Asked, refusal: Refusal, host: &mut impl Host) {
        match asked {
            Asked::Connect => {
                self.refuse_by_host(Stage::Connect, &refusal.and_close(), b"", host);
            }
            Asked::Helo { .. } => self.refuse_by_host(Stage::Helo, &refusal, b"", host),
            Asked::Mail => {
                let sender = self.envelope.sender().to_vec();
                self.refuse_by_host(Stage::Mail, &refusal, &sender, host);
                self.end_transaction(End::Refused, host);
                self.mail_refused = true;
                if !self.is_closed() {
                    self.junk(host);
                }
            }
            Asked::Rcpt => {
                let recipient = self.envelope.recipients().last();
                let recipient = recipient.map_or_else(Vec::new, |last| last.address.to_vec());
                self.envelope.pop();
                self.counts.refused_rcpts += u32::from(refusal.is_permanent());
                if self.counts.refused_rcpts > self.settings.refused_rcpt_max {
                    let why = Closed::TooManyRecipients;
                    let reply = &reply::REFUSED_RCPTS;
                    return self.refuse_and_close(Stage::Rcpt, reply, b"", why, host);
                }
                self.refuse_by_host(Stage::Rcpt, &refusal, &recipient, host);
            }
            Asked::Data => {
                self.refuse_by_host(Stage::Data, &refusal, b"", host);
                self.end_transaction(End::Refused, host);
            }
            Asked::Chunk { octets, last } => {
                self.refuse_chunk(Refused::Host(Box::new(refusal)), octets, last, host);
            }
            Asked::Header => self.refuse_content(Refused::Host(Box::new(refusal)), host),
            Asked::Message => {
                self.refuse_by_host(Stage::Data, &refusal, b"", host);
                self.end_transaction(End::Refused, host);
            }
        }
    }

    fn start_content(&mut self, framing: Framing) {
        self.scanner = Scanner::new(framing, self.settings.bare_newline);
        self.header_asked = false;
        self.consumed = 0;
        self.transfer_us = self.now_us;
        self.transferred = 0;
    }

    /// The reply to HELO or EHLO.
    fn greet(&mut self, extended: bool, host: &mut impl Host) {
        self.greeted = true;
        self.offers = Offers::NONE;
        if !extended {
            let out = host.out();
            out.extend_from_slice(b"250 ");
            out.extend_from_slice(self.settings.hostname.as_bytes());
            out.extend_from_slice(b"\r\n");
            return;
        }
        let mut offers = host.offers(self.settings.offers);
        offers.binary_mime &= offers.chunking && offers.eight_bit_mime;
        offers.smtputf8 &= offers.eight_bit_mime;
        offers.starttls &= self.settings.offers.starttls && !self.secure;
        self.offers = offers;
        let out = host.out();
        out.extend_from_slice(b"250-");
        out.extend_from_slice(self.settings.hostname.as_bytes());
        let mut keyword = |announced: bool, text: &str| {
            if announced {
                out.extend_from_slice(b"\r\n250-");
                out.extend_from_slice(text.as_bytes());
            }
        };
        keyword(offers.pipelining, "PIPELINING");
        keyword(offers.eight_bit_mime, "8BITMIME");
        keyword(offers.binary_mime, "BINARYMIME");
        keyword(offers.chunking, "CHUNKING");
        keyword(offers.smtputf8, "SMTPUTF8");
        keyword(offers.enhanced_status_codes, "ENHANCEDSTATUSCODES");
        keyword(offers.dsn, "DSN");
        keyword(offers.starttls, "STARTTLS");
        if offers.limits {
            out.extend_from_slice(b"\r\n250-LIMITS RCPTMAX=");
            reply::number(out, u64::from(self.settings.rcpt_max));
            out.extend_from_slice(b" MAILMAX=");
            reply::number(out, u64::from(self.settings.mail_max));
        }
        match offers.size {
            // Every reply needs a last line.
            None => out.extend_from_slice(b"\r\n250 HELP\r\n"),
            Some(size) => {
                out.extend_from_slice(b"\r\n250 SIZE ");
                reply::number(out, size);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}
