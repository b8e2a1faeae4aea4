//! The receiving machine under any input: cut anywhere, answered at once or late, it says the
//! same, holds no more than its limit and never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp::data::{BareNewline, Flow};
use smtp::reply::{Enhanced, Refusal};
use smtp::server::{Action, Answer, End, Host, Question, Server, Settings, Token};
use std::sync::Arc;

#[derive(Default)]
struct Mail {
    out: Vec<u8>,
    late: bool,
    slow: bool,
    open: Option<(Token, Answer)>,
    lent: Vec<u8>,
    owed: i32,
    accepted: Vec<Vec<u8>>,
}

impl Host for Mail {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn ask(&mut self, token: Token, question: Question<'_>) -> Option<Answer> {
        assert!(self.open.is_none());
        let answer = match question {
            Question::Mail { .. } => {
                self.owed += 1;
                self.lent.clear();
                Answer::Accept
            }
            Question::Rcpt { to, .. } if to.local().len() % 4 == 3 => {
                Answer::Refuse(Refusal::new(550, Enhanced(5, 1, 1), "no such recipient"))
            }
            Question::Header { facts, .. } if facts.header_octets % 16 == 15 => {
                Answer::Refuse(Refusal::new(550, Enhanced(5, 7, 1), "not this header"))
            }
            _ => Answer::Accept,
        };
        if self.late {
            self.open = Some((token, answer));
            return None;
        }
        Some(answer)
    }

    fn header(&mut self, octets: &[u8]) -> Flow {
        self.body(octets)
    }

    fn body(&mut self, octets: &[u8]) -> Flow {
        self.lent.extend_from_slice(octets);
        if self.slow { Flow::NotNow } else { Flow::More }
    }

    fn done(&mut self, end: End) {
        self.owed -= 1;
        assert!(self.owed >= 0);
        if end == End::Accepted {
            self.accepted.push(std::mem::take(&mut self.lent));
        }
    }
}

fn go_on(server: &mut Server, host: &mut Mail) {
    loop {
        if let Some((token, answer)) = host.open.take() {
            assert!(server.answer(0, token, answer, host));
            continue;
        }
        let before = (host.out.len(), host.lent.len());
        server.resume(0, host);
        if host.open.is_none() && before == (host.out.len(), host.lent.len()) {
            return;
        }
    }
}

fn play(
    settings: &Arc<Settings>,
    input: &[u8],
    piece: usize,
    late: bool,
    slow: bool,
) -> (Mail, Action) {
    let mut server = Server::new(Arc::clone(settings), "0123456789ABCDEFGHIJ");
    let mut host = Mail { late, slow, ..Mail::default() };
    server.start(0, &mut host);
    go_on(&mut server, &mut host);
    for piece in input.chunks(piece) {
        let mut used = 0;
        while used < piece.len() {
            let n = server.receive(0, &piece[used..], &mut host);
            assert!(used + n == piece.len() || !server.wants_input());
            used += n;
            go_on(&mut server, &mut host);
        }
        // What stands behind STARTTLS in one read is thrown away: that alone may depend on cuts.
        if server.action() == Action::StartTls {
            break;
        }
    }
    let action = server.action();
    server.broken(&mut host);
    assert_eq!(host.owed, 0);
    (host, action)
}

fuzz_target!(|data: &[u8]| {
    let [options, cut, input @ ..] = data else { return };
    let mut settings = Settings::new("mx.example.org");
    settings.offers.starttls = true;
    settings.offers.size = Some(1000);
    settings.header_max = 300;
    settings.received_max = 3;
    settings.swallow_max = 5000;
    if options & 1 != 0 {
        settings.bare_newline = BareNewline::Normalise;
    }
    let settings = Arc::new(settings);
    let (whole, whole_action) = play(&settings, input, usize::MAX, false, false);
    let piece = usize::from(*cut) + 1;
    let (cut, cut_action) = play(&settings, input, piece, options & 2 != 0, options & 4 != 0);
    assert_eq!(whole.out, cut.out);
    assert_eq!(whole_action, cut_action);
    assert_eq!(whole.accepted, cut.accepted);
    let printable = |c: &u8| matches!(c, b'\r' | b'\n' | 0x20..0x7f);
    assert!(whole.out.iter().all(printable));
});
