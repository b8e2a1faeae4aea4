//! One session of a sink: an SMTP server without judgement, with faults on demand.
//!
//! *Limits*: `limits::SINK_*`.
//!
//! *Failure*: a line that is too long ends the session with 500; content above the size limit is
//! read to its end and refused with 552.

use memchr::memchr;

use super::faults::{Effect, Faults, Stage};
use super::greylist::Greylist;
use super::options::{Extension, Options};
use crate::floor::end::{EndOfData, find_end};
use crate::limits::{SINK_LINE_OCTETS_MAX, SINK_RECIPIENTS_MAX};

/// A message the sink has taken.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Message {
    /// Path given in MAIL, without brackets.
    pub from: Vec<u8>,
    /// Paths given in RCPT.
    pub recipients: Vec<Vec<u8>>,
    /// Content, dots unstuffed.
    pub content: Vec<u8>,
}

/// What is common to all sessions of a sink.
pub(super) struct World<'a> {
    pub(super) options: &'a Options,
    pub(super) faults: &'a mut Faults,
    pub(super) greylist: &'a mut Greylist,
    pub(super) now_ms: u64,
    /// Where a message that is kept goes; false answers 451.
    pub(super) keep: &'a mut dyn FnMut(Message) -> bool,
}

#[derive(Debug)]
enum State {
    Command,
    Data(EndOfData),
    /// Octets of a chunk still to come, and whether it is the last one and wanted.
    Chunk {
        left: usize,
        last: bool,
        wanted: bool,
    },
    /// STARTTLS was said: what comes next are records.
    Handshake,
    Closed,
}

/// A reply that waits for its time.
#[derive(Debug)]
struct Held {
    due_ms: u64,
    reply: Vec<u8>,
    close: bool,
}

/// One connection's dialogue.
#[derive(Debug)]
pub(super) struct Session {
    state: State,
    input: Vec<u8>,
    message: Option<Message>,
    chunking: bool,
    too_large: bool,
    secure: bool,
    held: Option<Held>,
}

impl Session {
    /// A session whose banner is due.
    pub(super) fn new(world: &mut World<'_>, out: &mut Vec<u8>) -> Self {
        let mut session = Self {
            state: State::Command,
            input: Vec::new(),
            message: None,
            chunking: false,
            too_large: false,
            secure: false,
            held: None,
        };
        let banner = format!("220 {} ESMTP\r\n", world.options.name);
        session.reply(world, out, Stage::Banner, banner.as_bytes());
        session
    }

    /// When a held reply is due.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.held.as_ref().map(|held| held.due_ms)
    }

    /// Everything is said: the connection is to be closed once the output has left.
    pub(super) fn closed(&self) -> bool {
        matches!(self.state, State::Closed) && self.held.is_none()
    }

    /// True once, when STARTTLS was answered: from now on this session hears plain text of TLS.
    pub(super) fn begin_tls(&mut self) -> bool {
        let begins = matches!(self.state, State::Handshake);
        if begins {
            // RFC 3207 4.2: what was said before is forgotten.
            (self.state, self.message, self.secure) = (State::Command, None, true);
            self.input.clear();
        }
        begins
    }

    /// Takes octets of the client.
    pub(super) fn received(&mut self, world: &mut World<'_>, out: &mut Vec<u8>, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.go_on(world, out);
    }

    /// Goes on after time has passed.
    pub(super) fn go_on(&mut self, world: &mut World<'_>, out: &mut Vec<u8>) {
        if let Some(held) = self.held.take_if(|held| held.due_ms <= world.now_ms) {
            out.extend_from_slice(&held.reply);
            if held.close {
                self.state = State::Closed;
            }
        }
        while self.held.is_none() {
            let input = std::mem::take(&mut self.input);
            let used = self.step(world, out, &input);
            self.input = input;
            self.input.drain(..used);
            if used == 0 {
                break;
            }
        }
    }

    /// One command line or piece of content; octets used, 0 when more must come first.
    fn step(&mut self, world: &mut World<'_>, out: &mut Vec<u8>, input: &[u8]) -> usize {
        match self.state {
            State::Closed | State::Handshake => input.len(),
            State::Command => match memchr(b'\n', input) {
                Some(at) => {
                    let line = input[..at].strip_suffix(b"\r").unwrap_or(&input[..at]);
                    self.command(world, out, line);
                    let lie = world.options.lies.contains(&Extension::Pipelining);
                    if lie && matches!(self.state, State::Command) { input.len() } else { at + 1 }
                }
                None if input.len() > SINK_LINE_OCTETS_MAX => {
                    out.extend_from_slice(b"500 5.5.2 line too long\r\n");
                    self.state = State::Closed;
                    input.len()
                }
                None => 0,
            },
            State::Data(mut progress) => {
                let end = find_end(&mut progress, input);
                let used = end.unwrap_or(input.len());
                self.content(world, &input[..used]);
                self.state = State::Data(progress);
                if end.is_some() {
                    self.data_ended(world, out);
                }
                used
            }
            State::Chunk { left, last, wanted } => {
                let used = left.min(input.len());
                if wanted {
                    self.content(world, &input[..used]);
                }
                self.state = State::Chunk { left: left - used, last, wanted };
                if left == used && !input.is_empty() {
                    self.chunk_ended(world, out, last, wanted);
                }
                used
            }
        }
    }

    fn content(&mut self, world: &World<'_>, piece: &[u8]) {
        if let Some(message) = &mut self.message {
            if message.content.len() + piece.len() > world.options.size_max {
                self.too_large = true;
                message.content.clear();
            } else if !self.too_large {
                message.content.extend_from_slice(piece);
            }
        }
    }

    fn data_ended(&mut self, world: &mut World<'_>, out: &mut Vec<u8>) {
        if let Some(message) = &mut self.message
            && !self.too_large
        {
            unstuff(&mut message.content);
        }
        self.state = State::Command;
        self.message_ended(world, out);
    }

    fn chunk_ended(&mut self, world: &mut World<'_>, out: &mut Vec<u8>, last: bool, wanted: bool) {
        self.state = State::Command;
        if !wanted {
            out.extend_from_slice(b"502 5.5.1 BDAT is not known here\r\n");
        } else if last {
            self.message_ended(world, out);
        } else {
            out.extend_from_slice(b"250 2.0.0 chunk taken\r\n");
        }
    }

    fn message_ended(&mut self, world: &mut World<'_>, out: &mut Vec<u8>) {
        self.chunking = false;
        let message = self.message.take().unwrap_or_default();
        if std::mem::take(&mut self.too_large) {
            out.extend_from_slice(b"552 5.3.4 too large\r\n");
            return;
        }
        let verdict = world.faults.at(Stage::Dot);
        let kept = match verdict.instead {
            Some(Effect::Code(_) | Effect::Close) => true,
            _ => (world.keep)(message),
        };
        let reply: &[u8] = if kept { b"250 2.0.0 kept\r\n" } else { b"451 4.3.0 not kept\r\n" };
        self.answer(world, out, verdict, reply);
    }

    fn reply(&mut self, world: &mut World<'_>, out: &mut Vec<u8>, stage: Stage, plain: &[u8]) {
        let verdict = world.faults.at(stage);
        self.answer(world, out, verdict, plain);
        if verdict.instead.is_some() {
            match stage {
                Stage::Mail => self.message = None,
                Stage::Rcpt => {
                    if let Some(message) = &mut self.message {
                        message.recipients.pop();
                    }
                }
                Stage::Data if !matches!(self.state, State::Closed) => self.state = State::Command,
                _ => {}
            }
        }
    }

    fn answer(
        &mut self,
        world: &World<'_>,
        out: &mut Vec<u8>,
        verdict: super::faults::Verdict,
        plain: &[u8],
    ) {
        let (reply, close) = match verdict.instead {
            Some(Effect::Code(code)) => {
                let class = code / 100;
                (format!("{code} {class}.0.0 as asked\r\n").into_bytes(), code == 421)
            }
            Some(Effect::Close | Effect::LoseReply) => (Vec::new(), true),
            _ => (plain.to_vec(), false),
        };
        if verdict.delay_ms > 0 {
            self.held = Some(Held { due_ms: world.now_ms + verdict.delay_ms, reply, close });
        } else {
            out.extend_from_slice(&reply);
            if close {
                self.state = State::Closed;
            }
        }
    }

    fn command(&mut self, world: &mut World<'_>, out: &mut Vec<u8>, line: &[u8]) {
        let upper = line.to_ascii_uppercase();
        let verb = upper.split(|&octet| octet == b' ').next().unwrap_or_default();
        match verb {
            b"EHLO" => {
                self.message = None;
                let reply = world.options.ehlo_reply(self.secure);
                self.reply(world, out, Stage::Ehlo, &reply);
            }
            b"HELO" => {
                self.message = None;
                let reply = format!("250 {}\r\n", world.options.name);
                self.reply(world, out, Stage::Ehlo, reply.as_bytes());
            }
            b"MAIL" => self.mail(world, out, line, &upper),
            b"RCPT" => self.rcpt(world, out, line, &upper),
            b"DATA" => self.data(world, out),
            b"BDAT" => self.bdat(world, out, &upper),
            b"RSET" => {
                self.message = None;
                self.chunking = false;
                out.extend_from_slice(b"250 2.0.0 forgotten\r\n");
            }
            b"STARTTLS" if world.options.starttls && !self.secure => {
                out.extend_from_slice(b"220 2.0.0 go ahead\r\n");
                self.state = State::Handshake;
            }
            b"NOOP" => out.extend_from_slice(b"250 2.0.0 well\r\n"),
            b"VRFY" => out.extend_from_slice(b"252 2.5.2 try it\r\n"),
            b"HELP" => out.extend_from_slice(b"214 2.0.0 RFC 5321\r\n"),
            b"QUIT" => {
                self.reply(world, out, Stage::Quit, b"221 2.0.0 bye\r\n");
                match &mut self.held {
                    Some(held) => held.close = true,
                    None => self.state = State::Closed,
                }
            }
            _ => out.extend_from_slice(b"502 5.5.1 not known here\r\n"),
        }
    }

    fn mail(&mut self, world: &mut World<'_>, out: &mut Vec<u8>, line: &[u8], upper: &[u8]) {
        if self.message.is_some() {
            out.extend_from_slice(b"503 5.5.1 MAIL was said\r\n");
            return;
        }
        let Some(from) = path(line) else {
            out.extend_from_slice(b"501 5.5.4 MAIL FROM:<path>\r\n");
            return;
        };
        if let Some(parameter) = world.options.refused_parameter(upper) {
            out.extend_from_slice(format!("555 5.5.4 {parameter} is not known\r\n").as_bytes());
            return;
        }
        self.message = Some(Message { from, ..Message::default() });
        self.reply(world, out, Stage::Mail, b"250 2.1.0 well\r\n");
    }

    fn rcpt(&mut self, world: &mut World<'_>, out: &mut Vec<u8>, line: &[u8], upper: &[u8]) {
        let (Some(message), Some(to)) = (&mut self.message, path(line)) else {
            out.extend_from_slice(b"503 5.5.1 MAIL first, then RCPT TO:<path>\r\n");
            return;
        };
        if message.recipients.len() >= SINK_RECIPIENTS_MAX {
            out.extend_from_slice(b"452 4.5.3 too many recipients\r\n");
        } else if let Some(parameter) = world.options.refused_parameter(upper) {
            out.extend_from_slice(format!("555 5.5.4 {parameter} is not known\r\n").as_bytes());
        } else if !world.greylist.passes(&message.from, &to, world.now_ms) {
            out.extend_from_slice(b"450 4.7.1 greylisted, come again\r\n");
        } else {
            message.recipients.push(to);
            self.reply(world, out, Stage::Rcpt, b"250 2.1.5 well\r\n");
        }
    }

    fn has_recipients(&self) -> bool {
        self.message.as_ref().is_some_and(|message| !message.recipients.is_empty())
    }

    fn data(&mut self, world: &mut World<'_>, out: &mut Vec<u8>) {
        if !self.has_recipients() || self.chunking {
            out.extend_from_slice(b"503 5.5.1 no valid recipients\r\n");
            return;
        }
        self.state = State::Data(EndOfData::start());
        self.reply(world, out, Stage::Data, b"354 go on\r\n");
    }

    fn bdat(&mut self, world: &mut World<'_>, out: &mut Vec<u8>, upper: &[u8]) {
        let mut words = upper.split(|&octet| octet == b' ').skip(1);
        let octets = words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
        let Some(left) = octets else {
            out.extend_from_slice(b"501 5.5.4 BDAT octets [LAST]\r\n");
            return;
        };
        let last = words.next() == Some(b"LAST");
        let wanted = self.has_recipients() && world.options.honours(Extension::Chunking);
        self.chunking = wanted;
        if left == 0 {
            self.chunk_ended(world, out, last, wanted);
        } else {
            self.state = State::Chunk { left, last, wanted };
        }
    }
}

/// The path between the brackets of MAIL or RCPT.
fn path(line: &[u8]) -> Option<Vec<u8>> {
    let open = memchr(b'<', line)?;
    let close = memchr(b'>', &line[open..])?;
    Some(line[open + 1..open + close].to_vec())
}

/// Takes off the terminating dot line and the first dot of every other line that begins with one.
fn unstuff(content: &mut Vec<u8>) {
    content.truncate(content.len() - b".\r\n".len());
    let mut line_start = true;
    let mut before = 0;
    content.retain(|&octet| {
        let drop = line_start && octet == b'.';
        line_start = before == b'\r' && octet == b'\n';
        before = octet;
        !drop
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(options: &Options, faults: &[&str], pieces: &[&[u8]]) -> (String, Vec<Message>, bool) {
        let faults = faults.iter().map(|text| text.parse().unwrap()).collect();
        let mut faults = Faults::new(faults, 1);
        let mut greylist = Greylist::new(options.greylist_ms);
        let mut kept = Vec::new();
        let mut keep = |message| {
            kept.push(message);
            true
        };
        let mut world = World {
            options,
            faults: &mut faults,
            greylist: &mut greylist,
            now_ms: 0,
            keep: &mut keep,
        };
        let mut out = Vec::new();
        let mut session = Session::new(&mut world, &mut out);
        for piece in pieces {
            session.received(&mut world, &mut out, piece);
            while let Some(due_ms) = session.due_ms() {
                world.now_ms = due_ms;
                session.go_on(&mut world, &mut out);
            }
        }
        (String::from_utf8(out).unwrap(), kept, session.closed())
    }

    fn codes(replies: &str) -> Vec<&str> {
        replies.lines().filter(|line| line.as_bytes()[3] == b' ').map(|line| &line[..3]).collect()
    }

    const DIALOGUE: &[u8] = b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n\
        DATA\r\n..x\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\n.\r\n\
        BDAT 2 LAST\r\nhiQUIT\r\n";

    #[test]
    fn a_dialogue_is_the_same_at_every_split() {
        let options = Options::default();
        let (replies, kept, closed) = play(&options, &[], &[DIALOGUE]);
        let expected = "220 250 250 250 250 354 250 250 250 250 250 221";
        assert_eq!(codes(&replies).join(" "), expected);
        assert!(closed);
        let to = |list: &[&str]| list.iter().map(|to| to.as_bytes().to_vec()).collect();
        let message = |from: &str, recipients, content: &str| Message {
            from: from.into(),
            recipients,
            content: content.into(),
        };
        let messages =
            [message("a@b", to(&["c@d", "e@f"]), ".x\r\n"), message("", to(&["c@d"]), ".\r\nhi")];
        assert_eq!(kept, messages);
        for at in 0..DIALOGUE.len() {
            let split = play(&options, &[], &[&DIALOGUE[..at], &DIALOGUE[at..]]);
            assert_eq!(split, (replies.clone(), kept.clone(), true), "split at {at}");
        }
        let delayed = play(&options, &["mail:5ms", "dot:7ms", "quit:1ms"], &[DIALOGUE]);
        assert_eq!(delayed, (replies, kept, true));
    }

    #[test]
    fn faults_are_seen_and_leave_no_message() {
        let options = Options::default();
        let codes_of = |fault| {
            let (replies, kept, closed) = play(&options, &[fault], &[DIALOGUE]);
            (codes(&replies).join(" "), kept.len(), closed)
        };
        assert_eq!(codes_of("dot:close"), ("220 250 250 250 250 354".into(), 0, true));
        assert_eq!(codes_of("dot:lose-reply"), ("220 250 250 250 250 354".into(), 1, true));
        assert_eq!(codes_of("mail:421"), ("220 250 421".into(), 0, true));
        assert_eq!(codes_of("banner:close"), (String::new(), 0, true));
        let (replies, kept, _) = codes_of("dot:451");
        assert_eq!((replies.matches("451").count(), kept), (2, 0));
    }

    #[test]
    fn a_lie_about_an_extension_is_told_by_a_refusal() {
        let lies = vec![Extension::Chunking, Extension::EightBitMime];
        let options = Options { lies, ..Options::default() };
        let dialogue = b"EHLO c\r\nMAIL FROM:<a> BODY=8BITMIME\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\n\
            BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n";
        let (replies, kept, _) = play(&options, &[], &[dialogue]);
        assert!(replies.contains("250-CHUNKING") && replies.contains("250-8BITMIME"));
        assert_eq!(codes(&replies).join(" "), "220 250 555 250 250 502 250");
        assert!(kept.is_empty());
    }

    #[test]
    fn content_above_the_limit_is_read_and_refused() {
        let options = Options { size_max: 100, ..Options::default() };
        let mut dialogue = b"EHLO c\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nDATA\r\n".to_vec();
        dialogue.extend_from_slice(&[b'x'; 200]);
        dialogue.extend_from_slice(b"\r\n.\r\nNOOP\r\n");
        let (replies, kept, _) = play(&options, &[], &[&dialogue]);
        assert_eq!(codes(&replies).join(" "), "220 250 250 250 354 552 250");
        assert!(kept.is_empty());
    }
}
