//! Servers that say anything, at any time, in any pieces.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    /// The server sends this, cut at the given place.
    Say(Vec<u8>, usize),
    /// The driver sends this share of the output, in eighths.
    Send(usize),
    Content(Vec<u8>),
    End,
    Tls(bool),
    Wait,
    Eof,
    Quit,
    Abandon,
}

fn act() -> impl Strategy<Value = Act> {
    let replies = prop::sample::select(vec![
        "250 ok\r\n",
        "250-x\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250 8BITMIME\r\n",
        "250-x\r\n250-STARTTLS\r\n250 SIZE 100\r\n",
        "220 hi\r\n",
        "354 go\r\n",
        "550 5.1.1 no\r\n",
        "451 later\r\n",
        "421 bye\r\n",
        "250 ok\r\n250 ok\r\n",
        "250 ok\r\n250 ok\r\n550 x\r\n354 go\r\n",
        "250-half\r\n",
        "25",
        "0 x\r\n",
        "hello\n",
        "\r\n",
    ]);
    let say = (replies, 0usize..40)
        .prop_map(|(text, cut)| Act::Say(text.as_bytes().to_vec(), cut % (text.len() + 1)));
    prop_oneof![
        20 => say,
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|b| Act::Say(b, 0)),
        12 => (1usize..9).prop_map(Act::Send),
        4 => prop::collection::vec(prop::sample::select(b"\r\n.ab".to_vec()), 0..40)
            .prop_map(Act::Content),
        4 => Just(Act::End),
        2 => any::<bool>().prop_map(Act::Tls),
        1 => Just(Act::Wait),
        1 => Just(Act::Eof),
        1 => Just(Act::Quit),
        1 => Just(Act::Abandon),
    ]
}

/// What a caller keeps beside the machine.
struct Watch {
    play: Play,
    /// Outcomes of the open message, by recipient.
    open: Option<Vec<Option<Outcome>>>,
    /// Octets of the open message's end have left.
    complete: bool,
    ended: bool,
    closed: bool,
    replied: bool,
    delivered: usize,
}

impl Watch {
    fn events(&mut self) {
        while let Some(event) = self.play.client.poll() {
            assert!(!self.closed, "an event after the last one");
            match event {
                Event::Recipient(n, outcome) => {
                    if let Outcome::Delivered(reply) = &outcome {
                        assert!(self.complete && self.replied, "delivered before its end");
                        assert!(reply.positive());
                        self.delivered += 1;
                    }
                    if matches!(outcome, Outcome::Unknown(_)) {
                        assert!(self.complete);
                    }
                    let place = &mut self.open.as_mut().expect("a message is open")[n];
                    assert!(place.is_none(), "two outcomes");
                    *place = Some(outcome);
                }
                Event::MessageEnd => {
                    let all = self.open.take().expect("a message is open");
                    assert!(all.iter().all(Option::is_some), "a recipient without outcome");
                }
                Event::Closed(_) => self.closed = true,
                Event::Ready | Event::Content | Event::StartTls { .. } => {}
            }
        }
        assert!(!(self.closed && self.open.is_some()), "closed without outcomes");
        assert!(self.closed == self.play.client.closed());
    }

    fn submit(&mut self, count: usize, words: &[&str]) {
        if self.open.is_none() && self.play.client.ready() {
            let names: Vec<String> = (0..count).map(|n| format!("r{n}@d")).collect();
            let names = names.join(",");
            let words = [&["a@b", names.as_str()], words].concat();
            self.play.client.submit(self.play.now_us, envelope(&words)).unwrap();
            self.open = Some(vec![None; count]);
            (self.complete, self.ended, self.replied) = (false, false, false);
        }
    }

    fn act(&mut self, act: &Act) {
        let Play { client, now_us, .. } = &mut self.play;
        let now = *now_us;
        match act {
            Act::Say(text, cut) => {
                self.replied = self.complete;
                let (a, b) = text.split_at(*cut);
                client.receive(now, a);
                client.receive(now, b);
            }
            Act::Send(eighths) => {
                let n = (client.output().len() * eighths).div_ceil(8);
                client.consume(now, n);
                // The end of content is the last thing written before its reply.
                self.complete |= self.ended && client.output().is_empty() && !client.closed();
            }
            Act::Content(text) => {
                let taken = client.put_content(now, text);
                assert!(taken == 0 || (taken == text.len() && !self.ended));
            }
            Act::End if client.want_content() => {
                client.end_content(now);
                self.ended = true;
            }
            Act::End => {}
            Act::Tls(true) => client.tls_established(now),
            Act::Tls(false) => client.tls_failed(now, "x"),
            Act::Wait => {
                *now_us = client.deadline().unwrap_or(now);
                client.timer(*now_us);
            }
            Act::Eof => client.eof(now),
            Act::Quit => client.quit(now),
            Act::Abandon => client.abandon(now, "x"),
        }
        assert!(client.deadline().is_some() || client.closed(), "no wait is endless");
        self.events();
    }
}

fn run(policy: TlsPolicy, count: usize, words: &[&str], acts: &[Act]) -> usize {
    let play = Play::new(Settings::new("relay.example"), policy);
    let mut watch = Watch {
        play,
        open: None,
        complete: false,
        ended: false,
        closed: false,
        replied: false,
        delivered: 0,
    };
    watch.play.client.connected(SECOND);
    for act in acts {
        watch.act(act);
        watch.submit(count, words);
        watch.events();
    }
    watch.play.client.eof(SECOND);
    watch.events();
    assert!(watch.closed && watch.open.is_none());
    watch.delivered
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn no_server_breaks_the_promises(
        policy in prop::sample::select(vec![TlsPolicy::Never, TlsPolicy::May, TlsPolicy::Must]),
        count in 1usize..4,
        words in prop::sample::select(vec![&[][..], &["binary"], &["8bit"], &["size=70000"]]),
        acts in prop::collection::vec(act(), 0..60),
    ) {
        run(policy, count, words, &acts);
    }

    /// A server that behaves until `spoil` replies were given, then says something else.
    #[test]
    fn a_server_that_turns_bad(
        count in 1usize..4,
        piped: bool,
        spoil in 0usize..14,
        bad in act(),
        tail in prop::collection::vec(act(), 0..10),
    ) {
        let hello = if piped { "250-x\r\n250 PIPELINING\r\n" } else { "250 x\r\n" };
        let say = |text: &str| Act::Say(text.as_bytes().to_vec(), 0);
        let mut acts = vec![say("220 x\r\n"), Act::Send(8), say(hello)];
        for _ in 0..2 {
            for _ in 0..=count {
                acts.extend([Act::Send(8), say("250 x\r\n")]);
            }
            acts.extend([Act::Send(8), say("354 x\r\n"), Act::Content(b"x\n.".to_vec())]);
            acts.extend([Act::End, Act::Send(8), say("250 x\r\n")]);
        }
        prop_assert_eq!(run(TlsPolicy::May, count, &[], &acts), 2 * count);
        let at = acts
            .iter()
            .enumerate()
            .filter(|(_, a)| matches!(a, Act::Say(..)))
            .nth(spoil)
            .map_or(acts.len(), |(n, _)| n);
        acts.truncate(at);
        acts.push(bad);
        acts.extend(tail);
        run(TlsPolicy::May, count, &[], &acts);
    }
}
