//! A client with a script and the real receiving machine, over a line with a delay.

use std::sync::Arc;

use smtp::data::Flow;
use smtp::reply::{Enhanced, Refusal};
use smtp::server::{Answer, End, Host, Question, Server, Settings, Token};
use spool::disk::AlignedBuffer;
use spool::edits::{Edit, Received};
use spool::id::{MessageId, TransactionId};
use spool::log::{self, Log, OpenKind, Transaction};
use spool::message::{Envelope, MailFrom, Recipient};

use super::truth::Truth;

/// What the receiving side lends its host for one call.
pub(super) struct Desk<'a> {
    pub(super) log: &'a mut Log<AlignedBuffer>,
    pub(super) truth: &'a mut Truth,
    pub(super) now_us: u64,
    pub(super) wall_us: u64,
    pub(super) next_token: &'a mut u64,
    /// 452 that were given.
    pub(super) no_space: &'a mut u64,
}

#[derive(Debug)]
struct Open {
    id: TransactionId,
    token: u64,
    tx: Option<Transaction>,
    failed: bool,
    header: Vec<u8>,
    body: Vec<u8>,
}

/// A session but for its machine.
#[derive(Debug)]
struct Talk {
    id: MessageId,
    open: Option<Open>,
    out: Vec<u8>,
    /// The open question about a whole message: its token, and the log's.
    pending: Option<(Token, u64)>,
}

struct Answers<'a, 'b> {
    talk: &'a mut Talk,
    desk: &'a mut Desk<'b>,
}

fn refuse(code: u16) -> Answer {
    Answer::Refuse(Refusal::new(code, Enhanced(4, 3, 0), "not now"))
}

impl Host for Answers<'_, '_> {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.talk.out
    }

    fn ask(&mut self, token: Token, question: Question<'_>) -> Option<Answer> {
        match question {
            Question::Mail { parameters, transaction, .. } => {
                let id = TransactionId { session: self.talk.id, n: transaction };
                *self.desk.next_token += 1;
                let log_token = *self.desk.next_token;
                match self.desk.log.open(OpenKind::Client, id, parameters.size, log_token) {
                    Ok(tx) => {
                        self.talk.open = Some(Open {
                            id,
                            token: log_token,
                            tx: Some(tx),
                            failed: false,
                            header: Vec::new(),
                            body: Vec::new(),
                        });
                        Some(Answer::Accept)
                    }
                    Err(log::Refusal::NoSpace | log::Refusal::TableFull) => {
                        *self.desk.no_space += 1;
                        Some(refuse(452))
                    }
                    Err(log::Refusal::Closing) => Some(refuse(421)),
                    Err(_) => Some(refuse(451)),
                }
            }
            Question::Message { envelope, .. } => Some(self.commit(token, envelope)).flatten(),
            _ => Some(Answer::Accept),
        }
    }

    fn header(&mut self, octets: &[u8]) -> Flow {
        self.append(octets, true)
    }

    fn body(&mut self, octets: &[u8]) -> Flow {
        self.append(octets, false)
    }

    fn done(&mut self, _end: End) {
        if let Some(Open { tx: Some(tx), .. }) = self.talk.open.take() {
            self.desk.log.abort(tx);
        }
    }
}

impl Answers<'_, '_> {
    fn append(&mut self, octets: &[u8], header: bool) -> Flow {
        let Some(open) = &mut self.talk.open else { return Flow::More };
        let Some(tx) = open.tx.filter(|_| !open.failed) else { return Flow::More };
        let flow = if header {
            open.header.extend_from_slice(octets);
            self.desk.log.append_header(tx, octets)
        } else {
            open.body.extend_from_slice(octets);
            self.desk.log.append_body(tx, octets)
        };
        match flow {
            Ok(log::Flow::Go) => Flow::More,
            Ok(log::Flow::Pause) => Flow::NotNow,
            Err(error) => {
                *self.desk.no_space += u64::from(error == log::TransactionError::NoSpace);
                open.failed = true;
                Flow::More
            }
        }
    }

    /// None: the log will tell.
    fn commit(&mut self, token: Token, from: &smtp::server::Envelope) -> Option<Answer> {
        let Some(open) = self.talk.open.as_mut() else { return Some(refuse(451)) };
        let Some(tx) = open.tx.take_if(|_| !open.failed) else { return Some(refuse(452)) };
        let envelope = Envelope {
            id: open.id,
            received_wall_us: self.desk.wall_us,
            helo: (*b"client.example").into(),
            mail: MailFrom { address: from.sender().into(), ..MailFrom::default() },
            recipients: from
                .recipients()
                .map(|r| Recipient { address: r.address.into(), ..Recipient::default() })
                .collect(),
            edits: vec![received(open.id)],
            ..Envelope::default()
        };
        if self.desk.log.commit(tx, &envelope, Vec::new()).is_err() {
            return Some(refuse(451));
        }
        let (header, body) = (&open.header, &open.body);
        self.desk.truth.handed_over(&envelope, header, body, None, self.desk.now_us);
        self.talk.pending = Some((token, open.token));
        None
    }
}

/// Whole, or made from the rest of the envelope.
fn received(id: TransactionId) -> Edit {
    if id.session.counter().is_multiple_of(3) {
        return Edit::AddTop(format!("Received: by sim id {id}\r\n").into_bytes().into());
    }
    let by = (*b"sim.example").into();
    Edit::Received(Received { by, extended: true, ..Received::default() })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Greeting,
    Hello,
    /// MAIL, RCPT and DATA are under way: replies to come.
    Envelope(u32),
    /// Content is under way.
    Content,
    Quit,
    Over,
}

/// A message to send.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) sender: String,
    pub(super) recipients: Vec<String>,
    pub(super) content: Vec<u8>,
    pub(super) says_size: bool,
    /// The client goes away while it waits for the last reply.
    pub(super) leaves: bool,
}

/// What the client wants next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wants {
    /// Octets are to be carried to the server after the line's delay.
    Carry,
    /// Nothing: a reply is to come.
    Reply,
    /// A message to send.
    Message,
    /// The session is over.
    Over,
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    server: Server,
    talk: Talk,
    step: Step,
    script: Option<Script>,
    to_server: Vec<u8>,
    replies: Vec<u8>,
    refused: bool,
    /// Its last transaction was refused: it comes back later.
    pub(super) turned_away: bool,
}

impl Session {
    pub(super) fn start(settings: &Arc<Settings>, id: MessageId, desk: &mut Desk<'_>) -> Self {
        let chars = id.to_chars();
        let text = std::str::from_utf8(&chars).expect("an id is ASCII");
        let mut session = Self {
            server: Server::new(Arc::clone(settings), text),
            talk: Talk { id, open: None, out: Vec::new(), pending: None },
            step: Step::Greeting,
            script: None,
            to_server: Vec::new(),
            replies: Vec::new(),
            refused: false,
            turned_away: false,
        };
        let now_us = desk.now_us;
        session.server.start(now_us, &mut Answers { talk: &mut session.talk, desk });
        session.hear();
        session
    }

    /// The log's token of what it waits for.
    pub(super) fn log_token(&self) -> Option<u64> {
        self.talk.pending.map(|(_, token)| token)
    }

    /// The log's token of the transaction under way.
    pub(super) fn open_token(&self) -> Option<u64> {
        self.talk.open.as_ref().map(|open| open.token)
    }

    pub(super) fn wants(&self) -> Wants {
        match self.step {
            Step::Over => Wants::Over,
            _ if !self.to_server.is_empty() && self.server.wants_input() => Wants::Carry,
            Step::Envelope(0) => Wants::Message,
            _ => Wants::Reply,
        }
    }

    /// Whether content for a large message has gone to the log in parts.
    pub(super) fn give(&mut self, script: Script) {
        let size = if script.says_size {
            format!(" SIZE={}", script.content.len())
        } else {
            String::new()
        };
        let mut lines = format!("MAIL FROM:<{}>{size}\r\n", script.sender);
        for recipient in &script.recipients {
            lines.push_str(&format!("RCPT TO:<{recipient}>\r\n"));
        }
        lines.push_str("DATA\r\n");
        self.to_server.extend_from_slice(lines.as_bytes());
        self.step = Step::Envelope(u32::try_from(script.recipients.len()).expect("few") + 2);
        (self.script, self.refused, self.turned_away) = (Some(script), false, false);
    }

    pub(super) fn quit(&mut self) {
        self.to_server.extend_from_slice(b"QUIT\r\n");
        self.step = Step::Quit;
    }

    /// Octets arrive at the server: at most so many.
    pub(super) fn carry(&mut self, octets: usize, desk: &mut Desk<'_>) {
        let n = self.to_server.len().min(octets);
        let now_us = desk.now_us;
        let host = &mut Answers { talk: &mut self.talk, desk };
        let used = self.server.receive(now_us, &self.to_server[..n], host);
        self.to_server.drain(..used);
        self.hear();
        self.leave(desk);
    }

    /// The log has told about the message that was waited for.
    pub(super) fn answer(&mut self, kept: bool, desk: &mut Desk<'_>) {
        let Some((token, _)) = self.talk.pending.take() else { return };
        let now_us = desk.now_us;
        let answer = if kept { Answer::Accept } else { refuse(451) };
        let host = &mut Answers { talk: &mut self.talk, desk };
        assert!(self.server.answer(now_us, token, answer, host), "somebody waits for the answer");
        self.hear();
    }

    /// The log takes more.
    pub(super) fn resume(&mut self, desk: &mut Desk<'_>) {
        let now_us = desk.now_us;
        self.server.resume(now_us, &mut Answers { talk: &mut self.talk, desk });
        self.hear();
    }

    fn leave(&mut self, desk: &mut Desk<'_>) {
        let leaves = self.script.as_ref().is_some_and(|s| s.leaves);
        if leaves && self.talk.pending.is_some() && self.step == Step::Content {
            self.server.broken(&mut Answers { talk: &mut self.talk, desk });
            self.talk.pending = None;
            self.step = Step::Over;
        }
    }

    /// The client reads what the server said.
    fn hear(&mut self) {
        self.replies.append(&mut self.talk.out);
        while let Some(end) = self.replies.windows(2).position(|w| w == b"\r\n") {
            let line: Vec<u8> = self.replies.drain(..end + 2).collect();
            if line.get(3) == Some(&b'-') {
                continue;
            }
            let code = std::str::from_utf8(&line[..3]).ok().and_then(|c| c.parse().ok());
            self.reply(code.unwrap_or_else(|| panic!("no reply: {line:?}")));
        }
    }

    fn reply(&mut self, code: u16) {
        self.step = match self.step {
            Step::Greeting => {
                self.to_server.extend_from_slice(b"EHLO client.example\r\n");
                Step::Hello
            }
            Step::Hello => Step::Envelope(0),
            Step::Envelope(0) | Step::Over => Step::Over,
            Step::Envelope(1) if code == 354 && !self.refused => {
                let content = self.script.as_mut().map(|s| std::mem::take(&mut s.content));
                self.to_server.extend_from_slice(&stuff(&content.unwrap_or_default()));
                Step::Content
            }
            Step::Envelope(1) => {
                self.turned_away = true;
                Step::Envelope(0)
            }
            Step::Envelope(n) => {
                self.refused |= code >= 400;
                Step::Envelope(n - 1)
            }
            Step::Content => {
                self.turned_away = code >= 400;
                Step::Envelope(0)
            }
            Step::Quit => Step::Over,
        };
        if code == 421 {
            self.step = Step::Over;
        }
    }
}

/// Dots doubled, and the end.
fn stuff(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 64);
    for line in content.split_inclusive(|b| *b == b'\n') {
        if line[0] == b'.' {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b".\r\n");
    out
}
