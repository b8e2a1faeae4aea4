//! Lines as they should look, whatever is sent; room that is kept; order.

use proptest::prelude::*;

use super::outlet::Chunk;
use super::*;
use crate::config::{Config, Disk};
use crate::events::{
    Accepted, Alarm, Attempt, Client, Ending, Generated, Hop, Note, Phase, Reason,
    Refused as Refusal, Stage, Tls,
};
use crate::limits;

/// A sink that a test can hold up.
#[derive(Debug, Default)]
struct Held {
    chunks: Vec<Chunk>,
    room: usize,
    written: u64,
    failing: bool,
}

impl LineSink for Held {
    fn push(&mut self, chunk: Chunk) -> Result<(), Chunk> {
        if self.chunks.len() >= self.room {
            return Err(chunk);
        }
        self.chunks.push(chunk);
        Ok(())
    }

    fn spare(&mut self) -> Option<Vec<u8>> {
        None
    }

    fn written_octets(&self) -> u64 {
        self.written
    }

    fn is_failing(&self) -> bool {
        self.failing
    }
}

const T: u64 = 1_785_414_896_789_000;

fn log(format: &str, room: usize) -> MailLog<Held> {
    let text = format!(
        "node.hostname = 'mx'\nspool.places = ['s']\npolicy.postmaster = 'a@b.example'\n\
         log = {{ format = '{format}', subject = true }}\n\
         [[listener]]\naddress = '::'\ntls = 'none'\n[[route]]\nmx = true\ndomains = ['*']\n"
    );
    let config = Config::parse("test", &text, &Disk).unwrap_or_else(|p| panic!("{p}")).config;
    MailLog::new(&config.log, Held { room, ..Held::default() })
}

/// What stands in one log.
fn written(log: &mut MailLog<Held>, which: Log) -> String {
    log.flush();
    let chunks = log.outlet.sink().chunks.iter().filter(|chunk| chunk.log == which);
    chunks.map(|chunk| str::from_utf8(&chunk.octets).unwrap()).collect()
}

const ID: &str = "00G40R40M30E209185GR.1";

const TLS: Tls<'_> =
    Tls { version: "TLS1.3", cipher: "TLS_AES_256_GCM_SHA384", verified: Some(false) };

fn client<'a>() -> Client<'a> {
    Client {
        id: ID,
        remote: "192.0.2.1:4711".parse().unwrap(),
        local: "[::ffff:198.51.100.2]:25".parse().unwrap(),
        proxy: None,
        helo: b"mail.example.com",
        name: Some(b"host.example.com"),
        protocol: "ESMTPS",
        tls: Some(Tls { verified: None, ..TLS }),
    }
}

fn refusal<'a>() -> Refusal<'a> {
    Refusal {
        client: Client { name: None, tls: None, ..client() },
        stage: Stage::Rcpt,
        reason: Reason::RelayDenied,
        detail: b"",
        sender: Some(b"a@example.com"),
        recipients: &[b"b@example.net"],
        header: None,
    }
}

fn attempt<'a>() -> Attempt<'a> {
    Attempt {
        id: ID,
        recipient: b"ann@example.org",
        original: None,
        route: "backend",
        hop: Some(Hop {
            name: "in.example.org",
            address: "[2001:db8::7]:2600".parse().unwrap(),
            tls: Some(TLS),
        }),
        reply: b"250 2.0.0 ok \"queued\" as 77",
        queue_us: 1_234_567,
        delivery_us: 45_000,
    }
}

/// All events, once.
fn play(read: &mut impl FnMut(&Event<'_>)) {
    let client = client();
    let bare = Client { helo: b"", name: None, tls: None, ..client };
    read(&Event::Connected(&client));
    read(&Event::ConnectRefused { client: &bare, reason: Reason::ClientConnections });
    let proxy = Some("10.0.0.1:9".parse().unwrap());
    let proxied = Client { proxy, remote: "[2001:db8::1]:1".parse().unwrap(), ..bare };
    read(&Event::ConnectRefused { client: &proxied, reason: Reason::Busy });
    read(&Event::EarlyTalker { client: &bare, said: b"GET / HTTP/1.1\r\n" });
    read(&Event::LimitHit { client: &bare, reason: Reason::ClientMessageRate });
    read(&Event::TlsStarted(&client));
    read(&Event::TlsFailed { client: &bare, error: "no shared cipher" });
    read(&Event::CommandRefused(&refusal()));
    read(&Event::CommandRefused(&Refusal {
        client,
        stage: Stage::Content,
        reason: Reason::BareContent,
        sender: Some(b""),
        recipients: &[b"b@example.net", b"c@example.net"],
        header: Some(b"From: x\r\nSubject: a\r\n b\r\n\r\n"),
        ..refusal()
    }));
    let stage = Stage::Helo;
    let helo = Refusal { client: bare, stage, reason: Reason::HeloSyntax, ..refusal() };
    read(&Event::CommandRefused(&Refusal { sender: None, recipients: &[], ..helo }));
    read(&Event::SessionClosed { client: &client, ending: Ending::Lost, in_transaction: true });
    read(&Event::SessionClosed { client: &client, ending: Ending::Quit, in_transaction: false });
    read(&Event::Accepted(&Accepted {
        client,
        sender: b"jo@example.com",
        recipients: 2,
        octets: 5_678,
        message_id: Some(b"77@example.com"),
        subject: Some(b"say \"hi\""),
    }));
    read(&Event::Generated(&Generated { id: "G.1", parent: ID, recipients: 1, octets: 2_000 }));
    let more = Attempt { original: Some(b"Ann@Example.ORG"), hop: None, ..attempt() };
    read(&Event::Relayed { attempt: &attempt(), further: false });
    read(&Event::Relayed { attempt: &more, further: true });
    let reply = b"450-4.2.0 later\r\n450 4.2.0 please";
    let deferred = Attempt { reply, queue_us: 93_784_000_000, ..attempt() };
    read(&Event::Deferred { attempt: &deferred, reason: Reason::HopTemporary });
    let bounced = Attempt { hop: None, reply: b"", ..attempt() };
    read(&Event::Bounced { attempt: &bounced, reason: Reason::Expired });
    read(&Event::Completed { id: ID, queue_us: 60_000_000 });
    read(&Event::Held { id: ID, why: "fell with the daemon twice" });
    read(&Event::Released { id: ID });
    read(&Event::Moved { id: ID, to: "@mx2.example.net:25", uid: 0 });
    read(&Event::Moved { id: ID, to: "", uid: 0 });
    read(&Event::Removed { id: ID, uid: 0 });
    read(&Event::Took(Phase::Dot, 5));
    read(&Event::Noted(Note::Recovered, "8 segments, 3 messages"));
    read(&Event::Alarmed(Alarm::Device, "/dev/sda: input/output error"));
}

/// The main log of `play`.
const MAIN: &str = include_str!("main.golden");

#[test]
fn exim_lines_look_as_they_should() {
    let mut log = log("exim", 10);
    play(&mut |event| log.read(T, event));
    assert_eq!(written(&mut log, Log::Main), MAIN);
}

#[test]
fn the_reject_log_holds_the_header() {
    let mut log = log("exim", 10);
    play(&mut |event| log.read(T, event));
    let text = written(&mut log, Log::Reject);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].ends_with("rejected RCPT <b@example.net>: relaying denied"));
    assert!(lines[1].ends_with("rejected after DATA: bare CR or LF in the message, closing"));
    assert_eq!(
        lines[2..9],
        [
            "Envelope-from: <>",
            "Envelope-to: <b@example.net>",
            "             <c@example.net>",
            "  From: x",
            "  Subject: a",
            "   b",
            "----------------------------------------",
        ]
    );
    assert!(lines[9].contains("rejected EHLO or HELO") && lines.len() == 10);
}

#[test]
fn json_lines_say_the_same() {
    let mut log = log("json", 10);
    play(&mut |event| log.read(T, event));
    let parse = |text: String| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let main = parse(written(&mut log, Log::Main));
    assert_eq!(main.len(), MAIN.lines().count());
    let of = |event: &str| main.iter().find(|line| line["event"] == event).unwrap();
    for (event, key, value) in [
        ("accepted", "time", serde_json::json!("2026-07-30T12:34:56.789+00:00")),
        ("accepted", "id", serde_json::json!(ID)),
        ("accepted", "sender", serde_json::json!("jo@example.com")),
        ("accepted", "host", serde_json::json!("host.example.com")),
        ("accepted", "ip", serde_json::json!("192.0.2.1")),
        ("accepted", "local_port", serde_json::json!(25)),
        ("accepted", "octets", serde_json::json!(5678)),
        ("accepted", "recipients", serde_json::json!(2)),
        ("accepted", "subject", serde_json::json!("say \"hi\"")),
        ("refused", "stage", serde_json::json!("rcpt")),
        ("refused", "reason", serde_json::json!("relay_denied")),
        ("refused", "recipient", serde_json::json!("b@example.net")),
        ("relayed", "reply", serde_json::json!("250 2.0.0 ok \"queued\" as 77")),
        ("relayed", "queue_s", serde_json::json!(1.234_567)),
        ("relayed", "verified", serde_json::json!(false)),
        ("deferred", "detail", serde_json::json!("450-4.2.0 later\r\n450 4.2.0 please")),
        ("bounced", "reason", serde_json::json!("expired")),
        ("generated", "parent", serde_json::json!(ID)),
        ("alarm", "alarm", serde_json::json!("device")),
    ] {
        assert_eq!(of(event)[key], value, "{event} {key}");
    }
    let reject = parse(written(&mut log, Log::Reject));
    assert_eq!(reject[1]["header"], "From: x\r\nSubject: a\r\n b\r\n\r\n");
    assert_eq!(reject[1]["recipients"], serde_json::json!(["b@example.net", "c@example.net"]));
}

#[test]
fn the_short_way_of_escaping_is_the_long_way() {
    use clean::Place;
    for place in [Place::Word, Place::Quoted, Place::Tail, Place::Json] {
        for octet in 0..128_u8 {
            // What is too long for the limit never goes the short way.
            let (mut short, mut long) = (Vec::new(), Vec::new());
            clean::push(&mut short, &[octet], place);
            clean::push(&mut long, &[octet, 0xff], place);
            assert!(long.starts_with(&short), "{octet} {place:?}");
        }
    }
}

#[test]
fn what_is_long_is_cut_at_a_whole_character() {
    let mut out = Vec::new();
    clean::push_up_to(&mut out, "aäöü".as_bytes(), clean::Place::Word, 6);
    assert_eq!(str::from_utf8(&out).unwrap(), "aä...");
    out.clear();
    clean::push_up_to(&mut out, b"\xff\xffabcdef", clean::Place::Word, 8);
    assert_eq!(str::from_utf8(&out).unwrap(), "\\377...");
    out.clear();
    clean::push_up_to(&mut out, b"abcdef", clean::Place::Word, 6);
    assert_eq!(out, b"abcdef");
}

#[test]
fn reserved_room_is_kept_and_used_up_by_lines_of_mail() {
    let mut log = log("exim", 0);
    let most = limits::LOG_WAITING_OCTETS_MAX / limits::LOG_LINE_OCTETS_MAX;
    for _ in 0..most {
        log.reserve(1).unwrap();
    }
    assert_eq!(log.reserve(1), Err(Refused));
    // A refusal finds no room; the line of a mail does, and what it leaves over is free again.
    log.read(T, &Event::CommandRefused(&refusal()));
    assert_eq!((log.outlet().lines_lost(), log.outlet().waiting_octets()), (2, 0));
    log.read(T, &Event::Completed { id: ID, queue_us: 0 });
    assert_eq!(log.outlet().reserved_lines(), most as u64 - 1);
    log.release(2);
    log.reserve(1).unwrap();
    assert!(!log.flush(), "the sink has no room");
    log.outlet.sink().room = 1;
    assert!(written(&mut log, Log::Main).ends_with("Completed QT=0.000s\n"));
}

#[test]
fn a_failing_log_refuses_and_keeps_lines_of_mail() {
    let mut log = log("exim", 1_000_000);
    log.reserve(1).unwrap();
    log.outlet.sink().failing = true;
    assert_eq!(log.reserve(1), Err(Refused));
    log.read(T, &Event::Completed { id: ID, queue_us: 0 });
    assert!(log.flush());
    let length = log.outlet().waiting_octets();
    assert!(length > 0, "pushed, and not yet written");
    log.outlet.sink().written = length;
    log.outlet.sink().failing = false;
    assert_eq!(log.outlet().waiting_octets(), 0);
    log.reserve(1).unwrap();
}

#[test]
fn lines_wait_at_most_a_tenth_of_a_second_or_a_chunk() {
    let mut log = log("exim", 1_000_000);
    log.read(T, &Event::Completed { id: ID, queue_us: 0 });
    log.turn_end(5);
    log.turn_end(4 + limits::LOG_WAIT_US_MAX);
    assert!(log.outlet.sink().chunks.is_empty());
    log.turn_end(5 + limits::LOG_WAIT_US_MAX);
    assert_eq!(log.outlet.sink().chunks.len(), 1);
    for _ in 0..2_000 {
        log.read(T, &Event::Completed { id: ID, queue_us: 0 });
    }
    let chunks = &log.outlet.sink().chunks;
    assert!(chunks.len() > 1 && chunks[1].octets.len() >= limits::LOG_CHUNK_OCTETS);
}

#[test]
fn chunks_go_through_the_queue_in_order_and_buffers_come_back() {
    let (mut sink, source) = outlet::queue();
    let chunk = |n: u8| Chunk { log: Log::Main, octets: vec![n; 10] };
    let mut pushed = 0;
    while sink.push(chunk(pushed)).is_ok() {
        pushed = pushed.wrapping_add(1);
    }
    for n in 0..5 {
        let chunk = source.next().unwrap();
        assert_eq!(chunk.octets[0], n);
        source.written(chunk);
    }
    assert_eq!(sink.written_octets(), 50);
    assert!(sink.spare().is_some_and(|spare| spare.is_empty() && spare.capacity() >= 10));
    assert!(!sink.is_failing());
    source.set_failing(true);
    assert!(sink.is_failing());
}

/// Octets as a hostile client would choose them.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<Vec<u8>>(),
        ".{0,40}".prop_map(String::into_bytes),
        Just(b"\n2026-07-30 12:34:56 X Completed".to_vec()),
        Just(b" H=trusted.example [127.0.0.1]:1 ".to_vec()),
        Just(b"\",\"event\":\"accepted\",\"x\":\"".to_vec()),
        Just("\u{202e}\u{2028}\u{85}\x1b[2J\r\0\\".as_bytes().to_vec()),
        Just(vec![0xff; 600]),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

/// The events that carry a client's octets, filled with `octets`.
fn hostile_events(octets: &[u8], read: &mut impl FnMut(&Event<'_>)) {
    let text = String::from_utf8_lossy(octets);
    let client = Client { helo: octets, name: Some(octets), ..client() };
    read(&Event::EarlyTalker { client: &client, said: octets });
    read(&Event::TlsFailed { client: &client, error: &text });
    let list = [octets; 40];
    for stage in Stage::ALL {
        let (sender, recipients) = (Some(octets), &list[..]);
        let header = Some(octets).filter(|_| *stage == Stage::Content);
        let refusal = Refusal {
            client,
            stage: *stage,
            detail: octets,
            sender,
            recipients,
            header,
            ..refusal()
        };
        read(&Event::CommandRefused(&refusal));
    }
    let (message_id, subject) = (Some(octets), Some(octets));
    let accepted =
        Accepted { client, sender: octets, recipients: 1, octets: 1, message_id, subject };
    read(&Event::Accepted(&accepted));
    let hop = Some(Hop { name: &text, ..attempt().hop.unwrap() });
    let attempt =
        Attempt { recipient: octets, original: Some(octets), reply: octets, hop, ..attempt() };
    read(&Event::Relayed { attempt: &attempt, further: false });
    read(&Event::Deferred { attempt: &attempt, reason: Reason::HopTemporary });
    read(&Event::Bounced { attempt: &attempt, reason: Reason::HopPermanent });
}

/// Lines that `hostile_events` makes in the main log.
const HOSTILE_LINES: usize = 6 + Stage::ALL.len();

proptest! {
    #[test]
    fn nobody_can_write_a_line_of_his_own(octets in hostile()) {
        let mut log = log("exim", 1_000);
        hostile_events(&octets, &mut |event| log.read(T, event));
        let main = written(&mut log, Log::Main);
        prop_assert_eq!(main.matches('\n').count(), HOSTILE_LINES);
        prop_assert!(main.ends_with('\n'));
        for line in main.lines() {
            prop_assert!(line.starts_with("2026-07-30 12:34:56.789 +0000 00G4"), "{}", line);
            prop_assert!(line.len() < limits::LOG_LINE_OCTETS_MAX);
            prop_assert!(!line.chars().any(|c| c.is_control()
                || matches!(c, '\u{2028}'..='\u{202e}')), "{:?}", line);
        }
        let reject = written(&mut log, Log::Reject);
        let own = reject.lines().filter(|line| line.starts_with("2026-07-30 12:34:56.789 +0000 0"));
        prop_assert_eq!(own.count(), Stage::ALL.len());
        for line in reject.lines() {
            let good = ["2026-07-30 12:34:56.789 +0000 00G4", "Envelope-", "  ", "----"];
            prop_assert!(good.iter().any(|start| line.starts_with(start)), "{:?}", line);
        }
    }

    #[test]
    fn nobody_can_add_a_field(octets in hostile()) {
        // The same events with harmless octets have as many fields before the free text.
        let fields = |octets: &[u8]| {
            let mut log = log("exim", 1_000);
            let client = Client { helo: octets, name: Some(octets), ..client() };
            let accepted = Accepted {
                client,
                sender: octets,
                recipients: 1,
                octets: 1,
                message_id: Some(octets),
                subject: None,
            };
            log.read(T, &Event::Accepted(&accepted));
            let hop = Some(Hop { name: "h", ..attempt().hop.unwrap() });
            let attempt = Attempt { recipient: octets, reply: b"ok", hop, ..attempt() };
            log.read(T, &Event::Relayed { attempt: &attempt, further: false });
            written(&mut log, Log::Main).matches([' ', '<', '>', '(', ')']).count()
        };
        prop_assume!(!octets.is_empty());
        prop_assert_eq!(fields(&octets), fields(b"harmless"));
    }

    #[test]
    fn json_stays_json(octets in hostile()) {
        let mut log = log("json", 1_000);
        hostile_events(&octets, &mut |event| log.read(T, event));
        for which in [Log::Main, Log::Reject] {
            let text = written(&mut log, which);
            for line in text.lines() {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                let object = value.as_object().unwrap();
                prop_assert_eq!(object["id"].as_str(), Some(ID));
                // No key twice: as many keys as there are in the text of a harmless line.
                prop_assert!(!object.contains_key("x"));
                prop_assert!(!line.chars().any(char::is_control));
            }
        }
        let lines = written(&mut log, Log::Main).lines().count();
        prop_assert_eq!(lines, HOSTILE_LINES);
    }

    #[test]
    fn what_fits_can_be_read_back_from_json(text in ".{0,60}") {
        let mut out = vec![b'"'];
        clean::push(&mut out, text.as_bytes(), clean::Place::Json);
        out.push(b'"');
        let back: String = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(back, text);
    }
}
