//! A next hop: the real sending machine, talking to the real receiving one with moods.

use std::sync::Arc;

use smtp::client::{self, Client, Event, Outcome, TlsPolicy};
use smtp::data::Flow;
use smtp::reply::{Enhanced, Refusal};
use smtp::server::{Answer, End, Host, Question, Server, Settings, Token};
use spool::id::TransactionId;
use spool::sim::Random;

use super::plan::Hops;
use super::truth::Truth;

/// What became of a recipient in this attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Delivered,
    Later,
    Never,
}

/// How often hops did what.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Moods {
    pub(super) later: u64,
    pub(super) never: u64,
    pub(super) lost_replies: u64,
    pub(super) broken: u64,
    pub(super) down: u64,
}

#[derive(Debug)]
struct Peer {
    id: TransactionId,
    hops: Hops,
    out: Vec<u8>,
    content: Vec<u8>,
    took: bool,
}

struct Answers<'a> {
    peer: &'a mut Peer,
    truth: &'a mut Truth,
    random: &'a mut Random,
    moods: &'a mut Moods,
}

impl Answers<'_> {
    fn mood(&mut self, later_in: u64, never_in: u64) -> Answer {
        if self.random.one_in(later_in) {
            self.moods.later += 1;
            return Answer::Refuse(Refusal::new(450, Enhanced(4, 2, 0), "later"));
        }
        if self.random.one_in(never_in) {
            self.moods.never += 1;
            return Answer::Refuse(Refusal::new(550, Enhanced(5, 1, 1), "never"));
        }
        Answer::Accept
    }
}

impl Host for Answers<'_> {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.peer.out
    }

    fn ask(&mut self, _: Token, question: Question<'_>) -> Option<Answer> {
        let hops = self.peer.hops;
        Some(match question {
            Question::Rcpt { .. } => self.mood(hops.rcpt_later_in, hops.rcpt_never_in),
            Question::Message { envelope, .. } => {
                let answer = self.mood(hops.message_later_in, hops.message_never_in);
                if answer == Answer::Accept {
                    for to in envelope.recipients() {
                        self.truth.delivered(self.peer.id, to.address, &self.peer.content);
                    }
                    self.peer.took = true;
                }
                answer
            }
            _ => Answer::Accept,
        })
    }

    fn header(&mut self, octets: &[u8]) -> Flow {
        self.peer.content.extend_from_slice(octets);
        Flow::More
    }

    fn body(&mut self, octets: &[u8]) -> Flow {
        self.peer.content.extend_from_slice(octets);
        Flow::More
    }

    fn done(&mut self, _: End) {
        self.peer.content.clear();
    }
}

/// One message over one connection.
#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    server: Server,
    peer: Peer,
    envelope: Option<client::Envelope>,
    content: Vec<u8>,
    fed: usize,
    ended: bool,
    /// For each recipient of the transaction.
    pub(super) fates: Vec<(usize, Fate, Box<str>)>,
    /// Recipients whose reply was lost.
    pub(super) unknown: Vec<usize>,
    /// No host answered.
    pub(super) unreachable: bool,
    pub(super) over: bool,
}

/// The settings of both sides.
#[derive(Debug)]
pub(super) struct Both {
    pub(super) client: Arc<client::Settings>,
    pub(super) server: Arc<Settings>,
}

impl Link {
    pub(super) fn open(
        both: &Both,
        hops: Hops,
        id: TransactionId,
        envelope: client::Envelope,
        content: Vec<u8>,
        now_us: u64,
    ) -> Self {
        Self {
            client: Client::new(Arc::clone(&both.client), TlsPolicy::Never, now_us),
            server: Server::new(Arc::clone(&both.server), "PEERPEERPEERPEERPEER"),
            peer: Peer { id, hops, out: Vec::new(), content: Vec::new(), took: false },
            envelope: Some(envelope),
            content,
            fed: 0,
            ended: false,
            fates: Vec::new(),
            unknown: Vec::new(),
            unreachable: false,
            over: false,
        }
    }

    /// One trip there and back.
    pub(super) fn round(
        &mut self,
        first: bool,
        truth: &mut Truth,
        random: &mut Random,
        moods: &mut Moods,
        now_us: u64,
    ) {
        let hops = self.peer.hops;
        let host = &mut Answers { peer: &mut self.peer, truth, random, moods };
        if first {
            if host.random.one_in(hops.down_in) {
                host.moods.down += 1;
                self.client.connect_failed(now_us);
                return self.events(now_us);
            }
            self.client.connected(now_us);
            self.server.start(now_us, host);
        }
        let lent = self.client.output().to_vec();
        let mut used = 0;
        while used < lent.len() {
            used += self.server.receive(now_us, &lent[used..], host);
        }
        self.client.consume(now_us, lent.len());
        let out = std::mem::take(&mut self.peer.out);
        if std::mem::take(&mut self.peer.took) && random.one_in(hops.reply_lost_in) {
            moods.lost_replies += 1;
            self.client.eof(now_us);
        } else if !first && random.one_in(hops.broken_in.saturating_mul(4)) {
            moods.broken += 1;
            self.client.eof(now_us);
        } else {
            self.client.receive(now_us, &out);
        }
        self.events(now_us);
    }

    fn events(&mut self, now_us: u64) {
        while let Some(event) = self.client.poll() {
            match event {
                Event::Ready => match self.envelope.take() {
                    Some(envelope) => {
                        self.client.submit(now_us, envelope).expect("a good envelope");
                    }
                    None => self.client.quit(now_us),
                },
                Event::Recipient(n, outcome) => self.outcome(n, &outcome),
                Event::Closed(_) => self.over = true,
                Event::Content | Event::MessageEnd => {}
                Event::StartTls { .. } => panic!("never asked for"),
            }
        }
        while self.client.want_content() && !self.ended {
            let taken = self.client.put_content(now_us, &self.content[self.fed..]);
            self.fed += taken;
            if self.fed == self.content.len() {
                self.ended = true;
                self.client.end_content(now_us);
            } else if taken == 0 {
                break;
            }
        }
        let nothing_sent = self.envelope.is_some();
        self.unreachable |= self.over && nothing_sent;
    }

    fn outcome(&mut self, n: usize, outcome: &Outcome) {
        let (fate, text) = match outcome {
            Outcome::Delivered(reply) => (Fate::Delivered, reply.to_string()),
            Outcome::TempFail(refusal) => (Fate::Later, refusal.reply.to_string()),
            Outcome::PermFail(refusal) => (Fate::Never, refusal.reply.to_string()),
            Outcome::NeedsExtension(_) => (Fate::Never, "550 5.6.3 cannot be sent".to_owned()),
            Outcome::NotTried(failure) => (Fate::Later, failure.to_string()),
            Outcome::Unknown(failure) => {
                self.unknown.push(n);
                (Fate::Later, failure.to_string())
            }
        };
        self.fates.push((n, fate, text.into()));
    }
}
