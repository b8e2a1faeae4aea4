//! Dialogues of the sending machine against scripted servers, line by line.
//!
//! A script's lines: `S` the server sends a line, `s` octets without line end, `M` octets with `|`
//! for CRLF; `C` the machine must have sent exactly this line; `>` the event that must come; `!`
//! what the caller does. When the server speaks, all output must have been named.

mod dialogues;
mod random;

use std::sync::Arc;

use super::*;
use crate::command::{Body, Notify, Ret};

const SECOND: u64 = 1_000_000;
/// What `! fill` feeds, in a run that scripts do not repeat.
const FILLING: &str = match std::str::from_utf8(&[b'x'; 1024]) {
    Ok(text) => text,
    Err(_) => "",
};

struct Play {
    client: Client,
    now_us: u64,
    sent: Vec<u8>,
}

/// An event as a script names it.
fn name(event: &Event) -> String {
    let refusal = |r: &Refusal| {
        format!("{:?}{} {}", r.stage, if r.too_many { " too-many" } else { "" }, r.reply)
    };
    match event {
        Event::Recipient(n, Outcome::Delivered(reply)) => format!("{n} delivered {reply}"),
        Event::Recipient(n, Outcome::TempFail(r)) => format!("{n} temp {}", refusal(r)),
        Event::Recipient(n, Outcome::PermFail(r)) => format!("{n} perm {}", refusal(r)),
        Event::Recipient(n, Outcome::NeedsExtension(e)) => format!("{n} needs {}", e.keyword()),
        Event::Recipient(n, Outcome::NotTried(f)) => format!("{n} not-tried {}", failure(f)),
        Event::Recipient(n, Outcome::Unknown(f)) => format!("{n} unknown {}", failure(f)),
        Event::MessageEnd => "end".into(),
        Event::Ready => "ready".into(),
        Event::Content => "content".into(),
        Event::StartTls { discarded } => format!("tls {discarded}"),
        Event::Closed(None) => "closed".into(),
        Event::Closed(Some(f)) => format!("closed {}", failure(f)),
    }
}

fn failure(f: &Failure) -> String {
    let mut text = format!("{:?} {:?}", f.class, f.stage);
    for (flag, word) in
        [(f.next_host(), " next"), (f.stale, " stale"), (f.clear_may_help, " clear")]
    {
        if flag {
            text.push_str(word);
        }
    }
    text
}

/// `! mail sender recipient,... [flags]`
fn envelope(words: &[&str]) -> Envelope {
    let recipients = words[1].split(',').map(|a| Recipient {
        address: a.as_bytes().into(),
        notify: words.contains(&"dsn").then_some(Notify {
            success: true,
            failure: false,
            delay: true,
        }),
        orcpt: words.contains(&"dsn").then(|| format!("rfc822;{a}").into_bytes().into()),
    });
    let size = words.iter().find_map(|w| w.strip_prefix("size=")?.parse().ok()).unwrap_or(9);
    Envelope {
        sender: words[0].trim_matches('-').as_bytes().into(),
        body: if words.contains(&"8bit") {
            Body::EightBitMime
        } else if words.contains(&"binary") {
            Body::BinaryMime
        } else {
            Body::SevenBit
        },
        size,
        smtputf8: words.contains(&"utf8"),
        ret: words.contains(&"dsn").then_some(Ret::Hdrs),
        envid: words.contains(&"dsn").then(|| b"id+2B1".as_slice().into()),
        recipients: recipients.collect(),
    }
}

impl Play {
    fn new(settings: Settings, policy: TlsPolicy) -> Self {
        let client = Client::new(Arc::new(settings), policy, SECOND);
        Self { client, now_us: SECOND, sent: Vec::new() }
    }

    fn flush(&mut self) {
        loop {
            let n = self.client.output().len();
            if n == 0 {
                return;
            }
            self.sent.extend_from_slice(self.client.output());
            self.client.consume(self.now_us, n);
        }
    }

    fn act(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "connected" => self.client.connected(self.now_us),
            "refused" => self.client.connect_failed(self.now_us),
            "secure" => self.client.tls_established(self.now_us),
            "insecure" => self.client.tls_failed(self.now_us, "handshake"),
            "eof" => self.client.eof(self.now_us),
            "quit" => self.client.quit(self.now_us),
            "abandon" => self.client.abandon(self.now_us, "stop"),
            "mail" => self.client.submit(self.now_us, envelope(&words[1..])).unwrap(),
            "content" => {
                let text = words[1..].join(" ").replace("\\r", "\r").replace("\\n", "\n");
                let taken = self.client.put_content(self.now_us, text.as_bytes());
                assert_eq!(taken, text.len());
            }
            "full" => {
                let taken = self.client.put_content(self.now_us, b"x");
                assert_eq!(taken, 0);
            }
            "fill" => {
                let text = vec![b'x'; words[1].parse().unwrap()];
                assert_eq!(self.client.put_content(self.now_us, &text), text.len());
            }
            "done" => self.client.end_content(self.now_us),
            // The deadline must lie exactly so many seconds ahead; go there.
            "wait" => {
                let wait_us = words[1].parse::<u64>().unwrap() * SECOND;
                assert_eq!(self.client.deadline(), Some(self.now_us + wait_us), "{line}");
                self.client.timer(self.now_us + wait_us - 1);
                assert!(self.client.poll().is_none(), "nothing before the deadline");
                self.now_us += wait_us;
                self.client.timer(self.now_us);
            }
            "forever" => assert_eq!(self.client.deadline(), None),
            other => panic!("no such act: {other}"),
        }
    }

    /// All output so far was named by a script; filling is not.
    fn all_named(&mut self) {
        self.flush();
        let rest = String::from_utf8_lossy(&self.sent).replace(FILLING, "");
        assert_eq!(rest, "", "unnamed output");
    }

    fn step(&mut self, line: &str) {
        let (kind, rest) = line.split_at(1);
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        let text = rest.replace("\\r", "\r").replace("\\n", "\n");
        match kind {
            "C" => {
                self.flush();
                let end = self.sent.windows(2).position(|w| w == b"\r\n").map_or(0, |n| n + 2);
                let got: Vec<u8> = self.sent.drain(..end).collect();
                let got = String::from_utf8_lossy(&got).replace(FILLING, "");
                assert_eq!(got, format!("{text}\r\n"));
            }
            "S" | "M" | "s" => {
                self.all_named();
                let end = if kind == "S" { "\r\n" } else { "" };
                let line = if kind == "M" { text.replace('|', "\r\n") } else { text };
                self.client.receive(self.now_us, format!("{line}{end}").as_bytes());
            }
            "!" => self.act(rest),
            ">" => {
                let got = self.client.poll().map(|e| name(&e));
                assert_eq!(got.as_deref(), Some(rest));
            }
            _ => panic!("no such line"),
        }
    }

    fn play(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.step(line)));
            assert!(caught.is_ok(), "at `{line}` of\n{script}");
        }
        self.all_named();
        assert_eq!(self.client.poll().map(|e| name(&e)), None, "unnamed event");
    }
}

/// Plays with default settings.
fn play(policy: TlsPolicy, script: &str) {
    Play::new(Settings::new("relay.example"), policy).play(script);
}

/// Up to a server that offers `extensions`, in clear.
fn ready(extensions: &[&str]) -> Play {
    ready_with(Settings::new("relay.example"), extensions)
}

fn ready_with(settings: Settings, extensions: &[&str]) -> Play {
    let mut play = Play::new(settings, TlsPolicy::May);
    play.play("! connected\nS 220 mx\nC EHLO relay.example");
    let mut lines = vec!["mx.example greets you"];
    lines.extend(extensions);
    let last = lines.len() - 1;
    for (n, line) in lines.iter().enumerate() {
        let sep = if n == last { ' ' } else { '-' };
        play.client.receive(play.now_us, format!("250{sep}{line}\r\n").as_bytes());
    }
    play.play("> ready");
    play
}
