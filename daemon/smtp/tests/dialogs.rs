//! Plays every dialog of `tests/dialogs` against the receiving machine, each in several manners
//! that must make no difference: whole writes or octet by octet, answers at once or late, a sink
//! that always wants a pause or never.

#[path = "../../../tests/dialog.rs"]
mod dialog;
mod host;

use dialog::{Dialog, Step};
use host::Mail;
use smtp::data::BareNewline;
use smtp::server::{Action, Server, Settings, Violation};
use std::path::Path;
use std::sync::Arc;

fn settings(dialog: &Dialog) -> Settings {
    let mut settings = Settings::new("mx.example.org");
    for (key, value) in &dialog.settings {
        let number = || value.parse().expect("a number");
        match (key.as_str(), value.as_str()) {
            ("size", _) => settings.offers.size = Some(number()),
            ("rcpt_max", _) => settings.rcpt_max = value.parse().expect("a number"),
            ("junk_max", _) => settings.junk_max = value.parse().expect("a number"),
            ("errors_max", _) => settings.errors_max = value.parse().expect("a number"),
            ("received_max", _) => settings.received_max = value.parse().expect("a number"),
            ("header_max", _) => settings.header_max = number(),
            ("bare_newline", "normalise") => settings.bare_newline = BareNewline::Normalise,
            ("pipelining", "refuse") => settings.pipelining = Violation::Refuse,
            ("starttls", "on") => settings.offers.starttls = true,
            ("chunking", "off") => settings.offers.chunking = false,
            ("greeting", "late") => {}
            _ => panic!("{}: unknown setting {key} {value}", dialog.name),
        }
    }
    settings
}

struct Player<'a> {
    dialog: &'a Dialog,
    /// Octet by octet.
    octets: bool,
    server: Server,
    host: Mail,
    now_us: u64,
    read: usize,
}

impl Player<'_> {
    fn send(&mut self, octets: &[u8]) {
        let piece = if self.octets { 1 } else { octets.len().max(1) };
        for piece in octets.chunks(piece) {
            let mut used = 0;
            while used < piece.len() {
                used += self.server.receive(self.now_us, &piece[used..], &mut self.host);
                self.go_on();
                assert!(self.server.wants_input(), "nothing holds it up");
            }
        }
    }

    /// Answers and resumes until the client has the next move.
    fn go_on(&mut self) {
        loop {
            if self.host.greet_late {
                return;
            }
            if let Some((token, answer)) = self.host.open.take() {
                assert!(self.server.answer(self.now_us, token, answer.clone(), &mut self.host));
                assert!(!self.server.answer(self.now_us, token, answer, &mut self.host));
                continue;
            }
            let before = (self.host.content.len(), self.host.out.len(), self.host.asked);
            self.server.resume(self.now_us, &mut self.host);
            if before == (self.host.content.len(), self.host.out.len(), self.host.asked) {
                return;
            }
        }
    }

    fn next_line(&mut self, at: &str) -> String {
        let rest = &self.host.out[self.read..];
        let end = rest.windows(2).position(|w| w == b"\r\n");
        let end =
            end.unwrap_or_else(|| panic!("{at}: no further line; was sent: {:?}", self.sent()));
        let line = String::from_utf8(rest[..end].to_vec()).expect("ASCII");
        assert!(line.len() <= 510 && line.bytes().all(|c| (0x20..0x7f).contains(&c)), "{line}");
        self.read += end + 2;
        line
    }

    fn sent(&self) -> String {
        String::from_utf8_lossy(&self.host.out).into_owned()
    }

    fn play(&mut self) {
        self.server.start(self.now_us, &mut self.host);
        self.go_on();
        for (n, step) in &self.dialog.steps {
            let (late, slow) = (self.host.late, self.host.slow);
            let manner = format!("octets {} late {late} slow {slow}", self.octets);
            let at = format!("{}:{n} {manner}", self.dialog.name);
            self.step(&at, step);
        }
        assert_eq!(self.read, self.host.out.len(), "{}: more: {}", self.dialog.name, self.sent());
    }

    fn step(&mut self, at: &str, step: &Step) {
        match step {
            Step::Send(octets) => {
                self.send(octets);
                self.go_on();
            }
            Step::Line(pattern) => {
                let line = self.next_line(at);
                assert!(dialog::matches(pattern, &line), "{at}: {pattern}\n got: {line}");
            }
            Step::Reply(code) => loop {
                let line = self.next_line(at);
                assert_eq!(line.get(..3), Some(code.as_str()), "{at}: {line}");
                if line.as_bytes().get(3) == Some(&b' ') {
                    break;
                }
            },
            Step::Message(content) => {
                let last = self.host.accepted.last().expect("a message was accepted");
                let show = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
                assert_eq!(show(last), show(content), "{at}");
            }
            Step::Wait(seconds) => {
                self.now_us += seconds * 1_000_000;
                self.server.timeout(self.now_us, &mut self.host);
            }
            Step::Tls => {
                assert_eq!(self.server.action(), Action::StartTls, "{at}");
                self.server.tls_started(self.now_us);
            }
            Step::Eof => {
                self.server.eof(self.now_us, &mut self.host);
                self.go_on();
            }
            Step::Closed(why) => {
                let Action::Close(closed) = self.server.action() else { panic!("{at}: open") };
                assert_eq!(&host::name(closed), why, "{at}");
                assert_eq!(self.host.owed, 0, "{at}: an end is owed");
                let out = self.host.out.len();
                self.server.receive(self.now_us, b"NOOP\r\n", &mut self.host);
                assert_eq!(self.host.out.len(), out, "{at}: it goes on");
            }
        }
    }
}

#[test]
fn every_dialog_goes_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/dialogs");
    let dialogs = dialog::all(&folder);
    assert!(dialogs.len() >= 40, "found only {}", dialogs.len());
    for dialog in &dialogs {
        let in_one_breath = dialog.settings.iter().any(|(key, _)| key == "pipelining");
        let injected = dialog.name.contains("injection");
        for manner in 0..8 {
            let (octets, late, slow) = (manner & 1 != 0, manner & 2 != 0, manner & 4 != 0);
            // These are about what stands in one read.
            if octets && (in_one_breath || injected) {
                continue;
            }
            let greet_late = dialog.settings.iter().any(|(key, _)| key == "greeting");
            let host = Mail { late, slow, greet_late, ..Mail::default() };
            let server = Server::new(Arc::new(settings(dialog)), "0123456789ABCDEFGHIJ");
            Player { dialog, octets, server, host, now_us: 1_000_000, read: 0 }.play();
        }
    }
}

#[test]
fn patterns() {
    assert!(dialog::matches("250 *", "250 ok"));
    assert!(dialog::matches("* [*] b*", "a [x] bc"));
    assert!(!dialog::matches("250 ok", "250 ok "));
    assert!(!dialog::matches("*x", "y"));
}
