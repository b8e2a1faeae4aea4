//! A host for tests: a small fixed policy, answers now or later, and keeps all it is told.
#![allow(dead_code, reason = "each test binary uses its part")]

use smtp::data::Flow;
use smtp::reply::{Enhanced, Refusal};
use smtp::server::{Answer, Closed, End, Host, Note, Question, Token};

/// Takes mail for example.org and postmaster, from anybody but refused.example.
#[derive(Default)]
pub(crate) struct Mail {
    pub(crate) out: Vec<u8>,
    /// Answers are kept in `open` instead of given at once.
    pub(crate) late: bool,
    /// Only the greeting is.
    pub(crate) greet_late: bool,
    pub(crate) open: Option<(Token, Answer)>,
    pub(crate) content: Vec<u8>,
    pub(crate) header_len: usize,
    pub(crate) accepted: Vec<Vec<u8>>,
    pub(crate) ends: Vec<End>,
    /// Transactions whose end is still owed.
    pub(crate) owed: u32,
    /// The sink says not now after every slice.
    pub(crate) slow: bool,
    pub(crate) asked: u32,
    pub(crate) last: Option<Token>,
    pub(crate) notes: u32,
}

fn policy(question: &Question<'_>) -> Answer {
    let refuse = |text: &'static str| Answer::Refuse(Refusal::new(550, Enhanced(5, 7, 1), text));
    match question {
        Question::Mail { from: smtp::address::Path::Mailbox(from), .. }
            if from.domain_bytes() == b"refused.example" =>
        {
            refuse("we take nothing from you")
        }
        Question::Rcpt { to, envelope, .. } => {
            let last = envelope.recipients().last().expect("the one asked about");
            assert_eq!(last.address, to.as_bytes());
            let ours = to.domain_bytes().eq_ignore_ascii_case(b"example.org");
            if ours || (to.is_postmaster() && to.domain().is_none()) {
                Answer::Accept
            } else {
                refuse("not a domain of ours")
            }
        }
        _ => Answer::Accept,
    }
}

impl Host for Mail {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn ask(&mut self, token: Token, question: Question<'_>) -> Option<Answer> {
        assert!(self.open.is_none(), "one question at a time");
        assert!(self.last.is_none_or(|last| last < token), "tokens grow");
        self.last = Some(token);
        self.asked += 1;
        let answer = policy(&question);
        match &question {
            Question::Mail { .. } if answer == Answer::Accept => {
                self.content.clear();
                self.header_len = 0;
            }
            Question::Header { facts, .. } => {
                assert_eq!(facts.header_octets, self.content.len() as u64);
                self.header_len = self.content.len();
            }
            Question::Message { facts, envelope } => {
                assert_eq!(facts.octets, self.content.len() as u64);
                assert_eq!(facts.header_octets, self.header_len as u64);
                assert!(envelope.recipients().len() > 0);
            }
            _ => {}
        }
        if matches!(question, Question::Mail { .. }) && answer == Answer::Accept {
            self.owed += 1;
        }
        if self.late || (self.greet_late && matches!(question, Question::Connect)) {
            self.open = Some((token, answer));
            return None;
        }
        Some(answer)
    }

    fn header(&mut self, octets: &[u8]) -> Flow {
        assert!(!octets.is_empty() && self.header_len == 0);
        self.content.extend_from_slice(octets);
        if self.slow { Flow::NotNow } else { Flow::More }
    }

    fn body(&mut self, octets: &[u8]) -> Flow {
        assert!(!octets.is_empty() && self.header_len > 0);
        self.content.extend_from_slice(octets);
        if self.slow { Flow::NotNow } else { Flow::More }
    }

    fn done(&mut self, end: End) {
        assert!(self.owed > 0, "an end nobody waits for");
        self.owed -= 1;
        self.ends.push(end);
        if end == End::Accepted {
            self.accepted.push(std::mem::take(&mut self.content));
        }
    }

    fn note(&mut self, note: Note<'_>) {
        self.notes += 1;
        if let Note::Refused { code, enhanced, .. } = note {
            assert_eq!(code / 100, u16::from(enhanced.0));
        }
    }
}

/// The name of a reason, as dialogs write it.
pub(crate) fn name(why: Closed) -> String {
    format!("{why:?}")
}
