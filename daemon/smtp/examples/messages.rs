//! Pushes messages through the receiving machine and nothing else, to count what that costs:
//! `perf stat -e instructions:u target/release/examples/messages 100000 4096 20`
//! (messages, octets each, messages a session), or the same under callgrind.

use smtp::data::Flow;
use smtp::server::{Action, Answer, End, Host, Question, Server, Settings, Token};
use std::hint::black_box;
use std::sync::Arc;

#[derive(Default)]
struct Discard {
    out: Vec<u8>,
    octets: usize,
    accepted: usize,
}

impl Host for Discard {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }
    fn ask(&mut self, _: Token, question: Question<'_>) -> Option<Answer> {
        black_box(&question);
        Some(Answer::Accept)
    }
    fn header(&mut self, octets: &[u8]) -> Flow {
        self.octets += black_box(octets).len();
        Flow::More
    }
    fn body(&mut self, octets: &[u8]) -> Flow {
        self.octets += black_box(octets).len();
        Flow::More
    }
    fn done(&mut self, end: End) {
        self.accepted += usize::from(end == End::Accepted);
    }
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|arg| arg.parse().expect("a number"));
    let mut next = |default: usize| numbers.next().unwrap_or(default);
    let (messages, size, per_session) = (next(100_000), next(4096), next(20));
    let mut content = b"From: a@example.net\r\nTo: b@example.org\r\nSubject: x\r\n\r\n".to_vec();
    while content.len() + 5 < size {
        let line = (size - content.len() - 5).min(76);
        content.extend(std::iter::repeat_n(b'x', line.saturating_sub(2)));
        content.extend_from_slice(b"\r\n");
    }
    content.extend_from_slice(b".\r\n");
    let settings = Arc::new(Settings::new("mx.example.org"));
    let mut host = Discard::default();
    let mut done = 0;
    while done < messages {
        let mut server = Server::new(Arc::clone(&settings), "0123456789ABCDEFGHIJ");
        server.start(0, &mut host);
        let mut write = |octets: &[u8]| {
            assert_eq!(server.receive(1, black_box(octets), &mut host), octets.len());
            black_box(&host.out);
            host.out.clear();
            server.action()
        };
        write(b"EHLO client.example.net\r\n");
        for _ in 0..per_session.min(messages - done) {
            write(
                b"MAIL FROM:<sender@example.net> SIZE=4096\r\nRCPT TO:<b@example.org>\r\nDATA\r\n",
            );
            write(&content);
            done += 1;
        }
        assert!(matches!(write(b"QUIT\r\n"), Action::Close(_)));
    }
    assert_eq!(host.accepted, messages);
    println!("{messages} messages, {} octets lent", host.octets);
}
