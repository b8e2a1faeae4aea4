//! What must hold of the receiving machine whatever comes, however it is cut, whenever and
//! however its questions are answered.

mod host;

use host::Mail;
use proptest::prelude::*;
use smtp::data::{BareNewline, Flow};
use smtp::limits::HELD_MAX;
use smtp::reply::{Enhanced, Refusal};
use smtp::server::{Action, Answer, Closed, End, Host, Question, Server, Settings, Token};
use std::sync::Arc;

fn server(bare: BareNewline) -> Server {
    let mut settings = Settings::new("mx.example.org");
    settings.bare_newline = bare;
    settings.offers.starttls = true;
    settings.offers.size = Some(2000);
    settings.received_max = 3;
    settings.header_max = 200;
    settings.swallow_max = 100_000;
    Server::new(Arc::new(settings), "0123456789ABCDEFGHIJ")
}

/// More cases on demand: PROPTEST_CASES.
fn config() -> ProptestConfig {
    let given = ProptestConfig::default();
    let cases = given.cases.max(2000);
    ProptestConfig { cases, failure_persistence: None, ..given }
}

/// Answers and resumes until the client has the next move.
fn go_on(server: &mut Server, host: &mut Mail) {
    loop {
        if let Some((token, answer)) = host.open.take() {
            assert!(server.answer(0, token, answer, host));
            continue;
        }
        let before = (host.content.len(), host.out.len(), host.asked);
        server.resume(0, host);
        if before == (host.content.len(), host.out.len(), host.asked) {
            return;
        }
    }
}

/// Plays input cut at `cuts`; a handshake follows as soon as it is asked for.
fn play(input: &[u8], cuts: &[usize], bare: BareNewline, late: bool, slow: bool) -> (Mail, Action) {
    let mut server = server(bare);
    let mut host = Mail { late, slow, ..Mail::default() };
    server.start(0, &mut host);
    go_on(&mut server, &mut host);
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    ends.push(input.len());
    ends.sort_unstable();
    let mut at = 0;
    for end in ends {
        while at < end {
            let used = server.receive(0, &input[at..end], &mut host);
            assert!(used == end - at || !server.wants_input());
            at += used;
            go_on(&mut server, &mut host);
        }
    }
    let action = server.action();
    server.eof(0, &mut host);
    go_on(&mut server, &mut host);
    assert_eq!(host.owed, 0);
    (host, action)
}

/// Pieces of sessions, right and wrong. No STARTTLS: what follows it depends on the cut.
fn session() -> impl Strategy<Value = Vec<u8>> {
    let long = vec![b'x'; 2100];
    let piece = prop_oneof![
        8 => Just(b"MAIL FROM:<a@example.net>\r\n".to_vec()),
        8 => Just(b"RCPT TO:<b@example.org>\r\n".to_vec()),
        6 => Just(b"DATA\r\n".to_vec()),
        6 => Just(b"\r\n.\r\n".to_vec()),
        3 => Just(b"BDAT 10\r\n".to_vec()),
        3 => Just(b"BDAT 7 LAST\r\n".to_vec()),
        3 => Just(b"A: b\r\n\r\n.x".to_vec()),
        2 => Just(b"EHLO x\r\n".to_vec()),
        1 => Just(b"HELO x\r\n".to_vec()),
        1 => Just(b"RSET\r\n".to_vec()),
        1 => Just(b"NOOP\r\n".to_vec()),
        1 => Just(b"QUIT\r\n".to_vec()),
        1 => Just(b"MAIL FROM:<a@refused.example>\r\n".to_vec()),
        1 => Just(b"MAIL FROM:<a@b> BODY=BINARYMIME SMTPUTF8\r\n".to_vec()),
        1 => Just(b"RCPT TO:<nobody@other.example>\r\n".to_vec()),
        1 => Just(b"Received: x\r\n".to_vec()),
        1 => Just(b"\r".to_vec()),
        1 => Just(b"\n".to_vec()),
        1 => Just(b".".to_vec()),
        1 => Just(b"\0".to_vec()),
        1 => Just(b"\x16\x03".to_vec()),
        1 => Just(b"BDAT 4000 LAST\r\n".to_vec()),
        1 => Just(long),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ];
    let start = prop_oneof![9 => Just(b"EHLO x\r\n".to_vec()), 1 => Just(Vec::new())];
    (start, proptest::collection::vec(piece, 0..40))
        .prop_map(|(start, pieces)| [start, pieces.concat()].concat())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_cut_changes_the_output(
        input in session(),
        cuts in proptest::collection::vec(0_usize..4000, 0..30),
        normalise: bool,
        late: bool,
        slow: bool,
    ) {
        let bare = if normalise { BareNewline::Normalise } else { BareNewline::Refuse };
        let (whole, whole_action) = play(&input, &[], bare, false, false);
        let (cut, cut_action) = play(&input, &cuts, bare, late, slow);
        prop_assert_eq!(String::from_utf8_lossy(&whole.out), String::from_utf8_lossy(&cut.out));
        prop_assert_eq!(whole_action, cut_action);
        prop_assert_eq!(whole.accepted, cut.accepted);
        prop_assert_eq!(whole.ends, cut.ends);
        let all: Vec<usize> = (0..input.len()).collect();
        let (each, each_action) = play(&input, &all, bare, late, slow);
        prop_assert_eq!(String::from_utf8_lossy(&whole.out), String::from_utf8_lossy(&each.out));
        prop_assert_eq!(whole_action, each_action);
    }

    #[test]
    fn every_octet_may_come(input in proptest::collection::vec(any::<u8>(), 0..300)) {
        for start in ["", "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"] {
            let input = [start.as_bytes(), &input].concat();
            let (host, _) = play(&input, &[], BareNewline::Normalise, false, false);
            let plain = |&c: &u8| matches!(c, b'\r' | b'\n' | 0x20..0x7f);
            prop_assert!(host.out.iter().all(plain));
        }
    }
}

/// A host that never answers by itself, and whose sink pauses by a pattern.
#[derive(Default)]
struct Silent {
    out: Vec<u8>,
    open: Vec<Token>,
    /// Those of them that are about MAIL.
    mails: Vec<Token>,
    owed: i32,
    slices: u32,
}

impl Host for Silent {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }
    fn ask(&mut self, token: Token, question: Question<'_>) -> Option<Answer> {
        self.open.push(token);
        if matches!(question, Question::Mail { .. }) {
            self.mails.push(token);
        }
        None
    }
    fn header(&mut self, _: &[u8]) -> Flow {
        self.body(b"")
    }
    fn body(&mut self, _: &[u8]) -> Flow {
        self.slices += 1;
        if self.slices.is_multiple_of(3) { Flow::NotNow } else { Flow::More }
    }
    fn done(&mut self, _: End) {
        self.owed -= 1;
        assert!(self.owed >= 0, "an end nobody waits for");
    }
}

#[derive(Debug, Clone)]
enum Act {
    Send(usize),
    /// Which of all tokens ever seen, and what.
    Answer(usize, u8),
    Resume,
    Pass(u64),
    Timeout,
    TlsStarted,
    Eof,
    Broken,
    Shutdown,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        10 => (1_usize..3000).prop_map(Act::Send),
        10 => (0_usize..3, 0_u8..8).prop_map(|(which, what)| Act::Answer(which, what)),
        4 => Just(Act::Resume),
        2 => (0_u64..400).prop_map(Act::Pass),
        2 => Just(Act::Timeout),
        1 => Just(Act::TlsStarted),
        1 => Just(Act::Eof),
        1 => Just(Act::Broken),
        1 => Just(Act::Shutdown),
    ]
}

fn answer(what: u8) -> Answer {
    match what {
        0..5 => Answer::Accept,
        5 => Answer::Refuse(Refusal::new(451, Enhanced(4, 3, 0), "later")),
        6 => Answer::Refuse(Refusal::new(550, Enhanced(5, 7, 1), "no\nnever")),
        _ => Answer::Refuse(Refusal::new(421, Enhanced(4, 7, 0), "go away").and_close()),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_order_of_events_is_survived(
        input in session(),
        acts in proptest::collection::vec(act(), 0..200),
        tls: bool,
    ) {
        let start = if tls { &b"EHLO x\r\nSTARTTLS\r\n"[..] } else { b"" };
        let input = [start, &input].concat();
        let mut server = server(BareNewline::Normalise);
        let mut host = Silent::default();
        let (mut at, mut now_us) = (0, 0);
        server.start(now_us, &mut host);
        let mut answered = Vec::new();
        for act in acts {
            let replies = host.out.len();
            match act {
                Act::Send(n) => {
                    let end = (at + n).min(input.len());
                    let used = server.receive(now_us, &input[at..end], &mut host);
                    prop_assert!(used == end - at || !server.wants_input());
                    prop_assert!(used <= end - at);
                    at += used;
                }
                Act::Answer(which, what) => {
                    let newest = host.open.len().checked_sub(1 + which);
                    let Some(token) = newest.map(|n| host.open[n]) else { continue };
                    let opens = what < 5 && host.mails.contains(&token);
                    host.owed += i32::from(opens);
                    let taken = server.answer(now_us, token, answer(what), &mut host);
                    prop_assert!(!(taken && answered.contains(&token)), "answered twice");
                    if taken {
                        answered.push(token);
                    } else {
                        host.owed -= i32::from(opens);
                        prop_assert_eq!(replies, host.out.len(), "a stale answer did something");
                    }
                }
                Act::Resume => server.resume(now_us, &mut host),
                Act::Pass(seconds) => now_us += seconds * 1_000_000,
                Act::Timeout => {
                    let due = server.deadline().is_some_and(|deadline| deadline <= now_us);
                    server.timeout(now_us, &mut host);
                    let closed = matches!(server.action(), Action::Close(_));
                    prop_assert!(closed || !due);
                }
                Act::TlsStarted => server.tls_started(now_us),
                Act::Eof if at == input.len() => server.eof(now_us, &mut host),
                Act::Eof => {}
                Act::Broken => server.broken(&mut host),
                Act::Shutdown => server.shutdown(now_us, &mut host),
            }
        }
        prop_assert!(host.out.ends_with(b"\r\n") || host.out.is_empty());
        server.broken(&mut host);
        prop_assert_eq!(host.owed, 0);
    }

    /// Commands that are answered once each, whatever the answers: NOOP's stand at their place.
    #[test]
    fn replies_keep_the_order_of_commands(
        commands in proptest::collection::vec(0_usize..6, 0..40),
        whats in proptest::collection::vec(0_u8..7, 1..40),
        cut in 1_usize..200,
    ) {
        const COMMANDS: [&str; 6] = [
            "NOOP\r\n", "MAIL FROM:<a@b.net>\r\n", "RCPT TO:<c@d.org>\r\n", "RSET\r\n",
            "BDAT 6\r\nA: b\r\n", "BDAT 8 LAST\r\nA: b\r\n\r\n",
        ];
        let mut input = String::from("EHLO x\r\n");
        input.extend(commands.iter().map(|&n| COMMANDS[n]));
        let mut settings = Settings::new("mx.example.org");
        settings.errors_max = 1000;
        settings.early_talker = smtp::server::Violation::Note;
        let mut server = Server::new(Arc::new(settings), "ID");
        let mut host = Silent { owed: 1000, ..Silent::default() };
        server.start(0, &mut host);
        let mut whats = whats.into_iter().cycle();
        // The greeting and EHLO are granted.
        let (mut at, mut asked) = (0, 0);
        loop {
            let before = (at, asked, host.out.len(), host.slices);
            let end = (at + cut).min(input.len());
            at += server.receive(0, &input.as_bytes()[at..end], &mut host);
            if let Some(&token) = host.open.get(asked) {
                let what = if asked < 2 { 0 } else { whats.next().expect("a cycle") };
                prop_assert!(server.answer(0, token, answer(what), &mut host));
                asked += 1;
            }
            server.resume(0, &mut host);
            if before == (at, asked, host.out.len(), host.slices) && asked == host.open.len() {
                break;
            }
        }
        let text = String::from_utf8(host.out).expect("ASCII");
        let finals: Vec<&str> =
            text.split_terminator("\r\n").filter(|l| l.as_bytes()[3] == b' ').collect();
        prop_assert_eq!(finals.len(), 2 + commands.len(), "{}", text);
        for (n, &command) in commands.iter().enumerate() {
            prop_assert_eq!(command == 0, finals[n + 2] == "250 2.0.0 ok");
        }
    }
}

/// Early talkers are held so that the greeting's question can be answered.
#[test]
fn no_more_is_held_than_the_limit() {
    let mut settings = Settings::new("mx.example.org");
    settings.early_talker = smtp::server::Violation::Note;
    let mut server = Server::new(Arc::new(settings), "ID");
    let mut host = Silent::default();
    server.start(0, &mut host);
    let input = vec![b'x'; 3 * HELD_MAX];
    assert_eq!(server.receive(0, &input, &mut host), HELD_MAX);
    assert!(!server.wants_input());
    assert_eq!(server.receive(0, &input, &mut host), 0);
}

/// {CR, LF, CRLF, CRCRLF, NUL} before the dot times the same behind it, cut at every place.
#[test]
fn smuggling_matrix() {
    let ends: [&[u8]; 6] = [b"\r", b"\n", b"\r\n", b"\r\r\n", b"\0", b""];
    let before = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nA: b\r\n\r\nx";
    let after = b"MAIL FROM:<evil@b>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nevil\r\n.\r\n";
    for left in ends {
        for right in ends {
            let input = [before, left, b".", right, after].concat();
            let is_end = left.ends_with(b"\r\n") && right == b"\r\n";
            let stray = |end: &[u8]| !matches!(end, b"\r\n" | b"\0" | b"");
            for bare in [BareNewline::Refuse, BareNewline::Normalise] {
                for cut in before.len() - 1..=input.len() - after.len() + 2 {
                    let (host, action) = play(&input, &[cut], bare, false, false);
                    let context = format!("{left:?} . {right:?} {bare:?} at {cut}");
                    if bare == BareNewline::Refuse && (stray(left) || (stray(right) && !is_end)) {
                        assert_eq!(action, Action::Close(Closed::FramingError), "{context}");
                        assert_eq!(host.accepted.len(), 0, "{context}");
                        assert_eq!(host.ends, [End::Reset], "{context}");
                    } else {
                        // Two messages if the first really ended, else one with all in it.
                        let messages = if is_end { 2 } else { 1 };
                        assert_eq!(host.accepted.len(), messages, "{context}");
                        for content in &host.accepted {
                            let stray =
                                content.windows(2).any(|w| (w[1] == b'\n') != (w[0] == b'\r'));
                            assert!(!stray, "{context}: {content:?}");
                        }
                    }
                }
            }
        }
    }
}
