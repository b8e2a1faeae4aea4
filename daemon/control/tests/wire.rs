//! What is written is read again, in pieces of any size; what is not, is an error value.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use control::limits::{FRAME_HEAD_OCTETS, QUEUE_PAGE_MAX, REPLY_OCTETS_MAX, REQUEST_OCTETS_MAX};
use control::{
    Act, BadFrame, ConfigAct, Core, Decoder, Failure, FailureCode, Frame, Hint, HintField, HintKey,
    HintsFilter, HintsPage, Ledger, Level, List, LogLevel, MetricsPage, QueueAct, QueueEntry,
    QueueFilter, QueueMessage, QueuePage, QueueRecipient, Reloaded, Reply, Request, Role, Rule,
    Status, Test, Text, TooLong, Upgrade, VERSION, VersionInfo, read_reply, read_request,
    write_reply, write_request,
};
use proptest::prelude::*;

fn frame(json: &str) -> Frame {
    Frame { version: VERSION, payload: json.as_bytes().to_vec() }
}

fn pop_all(octets: &[u8], sizes: &[usize], max: usize) -> Vec<Frame> {
    let mut decoder = Decoder::new(max);
    let mut frames = Vec::new();
    let mut rest = octets;
    for size in sizes.iter().chain(std::iter::repeat(&usize::MAX)) {
        let (now, later) = rest.split_at((*size).min(rest.len()));
        decoder.push(now);
        while let Some(frame) = decoder.pop().unwrap() {
            frames.push(frame);
        }
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    assert!(decoder.is_empty());
    frames
}

fn text<const MAX: usize>() -> impl Strategy<Value = Text<MAX>> + Clone {
    any::<String>().prop_map(|text| Text::cut(&text))
}

fn hint_key() -> impl Strategy<Value = HintKey> {
    (text(), text()).prop_map(|(kind, key)| HintKey { kind, key })
}

fn field() -> impl Strategy<Value = HintField> {
    (text(), any::<u64>()).prop_map(|(name, number)| HintField { name, number })
}

fn request() -> impl Strategy<Value = Request> {
    let filter = (
        prop::option::of(text()),
        prop::option::of(text()),
        prop::option::of(any::<u64>()),
        prop::option::of(any::<bool>()),
        prop::option::of(text()),
        any::<u16>(),
    );
    let filter = filter.prop_map(|(sender, next_hop, age_s_min, held, after, count_max)| {
        let rest = QueueFilter::default();
        QueueFilter { sender, next_hop, age_s_min, held, after, count_max, ..rest }
    });
    prop_oneof![
        Just(Request::Version),
        Just(Request::Status),
        Just(Request::Ledger),
        Just(Request::Metrics),
        Just(Request::Reload),
        Just(Request::Drain),
        Just(Request::HintsTidy),
        Just(Request::SpoolFill),
        any::<bool>().prop_map(|yes| Request::SpoolTakeIn { yes }),
        Just(Request::LogLevel { level: None }),
        prop::sample::select(&Level::ALL[..])
            .prop_map(|(level, _)| Request::LogLevel { level: Some(level) }),
        filter.prop_map(Request::QueueList),
        text().prop_map(|id| Request::QueueShow { id }),
        (text(), any::<bool>(), any::<bool>()).prop_map(|(manifest, downgrade, later)| {
            Request::Upgrade(Upgrade { manifest, downgrade, later })
        }),
        (prop::option::of(text()), any::<u64>()).prop_map(|(kind, cursor)| {
            Request::HintsList(HintsFilter { kind, cursor, ..HintsFilter::default() })
        }),
        hint_key().prop_map(Request::HintsGet),
        hint_key().prop_map(Request::HintsDelete),
        (hint_key(), prop::collection::vec(field(), 0..5), any::<u64>()).prop_map(
            |(of, fields, life_s)| Request::HintsSet { of, fields: List::cut(fields), life_s }
        ),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    let entry = (text(), any::<u64>(), text(), text(), any::<u32>(), any::<bool>(), text());
    let entry = entry.prop_map(|(id, age_s, sender, recipient, tries, held, last)| QueueEntry {
        id,
        age_s,
        sender,
        recipient,
        tries,
        held,
        last,
        ..QueueEntry::default()
    });
    let recipient = (text(), text()).prop_map(|(address, last)| QueueRecipient {
        address,
        last,
        ..QueueRecipient::default()
    });
    let status = (any::<u16>(), any::<u64>(), prop::collection::vec(text(), 0..4)).prop_map(
        |(node, uptime_s, alarms)| Status {
            node,
            uptime_s,
            cores: List::cut([Core { core: node, ..Core::default() }]),
            alarms: List::cut(alarms),
            ..Status::default()
        },
    );
    prop_oneof![
        (text(), text()).prop_map(|(message, advice)| {
            Reply::Failure(Failure { code: FailureCode::Busy, message, advice })
        }),
        text().prop_map(|message| Reply::Done { message }),
        text().prop_map(|version| {
            Reply::Version(VersionInfo { version, ..VersionInfo::default() })
        }),
        status.prop_map(|status| Reply::Status(Box::new(status))),
        (any::<i64>(), any::<i64>()).prop_map(|(accepted, queued)| Reply::Ledger(Ledger {
            accepted,
            queued,
            ..Ledger::default()
        })),
        text().prop_map(|text| Reply::Metrics(MetricsPage { text })),
        (prop::collection::vec(entry.clone(), 0..4), prop::option::of(text())).prop_map(
            |(messages, next)| {
                Reply::Queue(QueuePage { messages: List::cut(messages), next, total: 9 })
            }
        ),
        (entry, prop::collection::vec(recipient, 0..4)).prop_map(|(entry, recipients)| {
            let recipients = List::cut(recipients);
            Reply::Message(Box::new(QueueMessage { entry, recipients, ..QueueMessage::default() }))
        }),
        any::<u64>().prop_map(|generation| {
            Reply::Reloaded(Reloaded { generation, ..Reloaded::default() })
        }),
        prop::sample::select(&Level::ALL[..])
            .prop_map(|(level, _)| Reply::LogLevel(LogLevel { level })),
        (text(), prop::option::of(any::<u64>())).prop_map(|(key, next)| {
            let hint = Hint { key, ..Hint::default() };
            Reply::Hints(HintsPage { hints: List::cut([hint]), next })
        }),
        (text(), prop::collection::vec(field(), 0..4)).prop_map(|(kind, fields)| {
            Reply::Hint(Hint { kind, fields: List::cut(fields), ..Hint::default() })
        }),
    ]
}

proptest! {
    #[test]
    fn requests_lead_back(
        requests in prop::collection::vec(request(), 1..4),
        sizes in prop::collection::vec(1..40usize, 0..40),
    ) {
        let octets: Vec<u8> = requests.iter().flat_map(|r| write_request(r).unwrap()).collect();
        let frames = pop_all(&octets, &sizes, REQUEST_OCTETS_MAX);
        let read: Vec<Request> = frames.iter().map(|f| read_request(f).unwrap()).collect();
        prop_assert_eq!(&read, &requests);
        for (frame, request) in frames.iter().zip(&requests) {
            let json: serde_json::Value = serde_json::from_slice(&frame.payload).unwrap();
            prop_assert_eq!(json["request"].as_str(), Some(request.name()));
        }
    }

    #[test]
    fn replies_lead_back(
        replies in prop::collection::vec(reply(), 1..4),
        sizes in prop::collection::vec(1..40usize, 0..40),
    ) {
        let octets: Vec<u8> = replies.iter().flat_map(write_reply).collect();
        let frames = pop_all(&octets, &sizes, REPLY_OCTETS_MAX);
        let read: Vec<Reply> = frames.iter().map(|f| read_reply(f).unwrap()).collect();
        prop_assert_eq!(read, replies);
    }

    #[test]
    fn garbage_is_an_error_value(
        octets in prop::collection::vec(any::<u8>(), 0..2_000),
        sizes in prop::collection::vec(1..100usize, 1..30),
    ) {
        let mut decoder = Decoder::new(REQUEST_OCTETS_MAX);
        'stream: for chunk in octets.chunks(sizes[0]) {
            decoder.push(chunk);
            loop {
                match decoder.pop() {
                    Ok(Some(frame)) => prop_assert!(read_request(&frame).is_err()),
                    Ok(None) => break,
                    Err(TooLong { octets, max }) => {
                        prop_assert!(octets > max || octets < FRAME_HEAD_OCTETS);
                        break 'stream;
                    }
                }
            }
            prop_assert!(decoder.len() <= REQUEST_OCTETS_MAX + chunk.len());
        }
        let payload = Frame { version: VERSION, payload: octets };
        prop_assert!(read_request(&payload).is_err());
        prop_assert!(read_reply(&payload).is_err());
    }

    #[test]
    fn a_damaged_request_never_panics(
        request in request(),
        at in any::<prop::sample::Index>(),
        octet in any::<u8>(),
    ) {
        let mut octets = write_request(&request).unwrap();
        let at = at.index(octets.len());
        octets[at] = octet;
        let mut decoder = Decoder::new(REQUEST_OCTETS_MAX);
        decoder.push(&octets);
        if let Ok(Some(frame)) = decoder.pop() {
            let _ = read_request(&frame);
            let _ = read_reply(&frame);
        }
    }
}

#[test]
fn the_wire_form_is_as_documented() {
    let octets = write_request(&Request::QueueShow { id: Text::cut("X") }).unwrap();
    let json = br#"{"request":"queue-show","with":{"id":"X"}}"#;
    assert_eq!(octets[..6], [0, 0, 0, 44, 0, 1]);
    assert_eq!(&octets[6..], json);
    assert_eq!(read_request(&frame(r#"{"request":"status"}"#)), Ok(Request::Status));
    let list = read_request(&frame(r#"{"request":"queue-list","with":{}}"#));
    assert_eq!(list, Ok(Request::QueueList(QueueFilter::default())));
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let unknown = read_request(&frame(r#"{"request":"explode","with":{}}"#)).unwrap_err();
    assert_eq!(unknown, BadFrame::Unknown("explode".to_owned()));
    let failure = Failure::from(&unknown);
    assert_eq!(failure.code, FailureCode::Unknown);
    assert_eq!(&*failure.message, "this version does not know \"explode\"");
    let version = read_request(&Frame { version: 2, payload: vec![] });
    assert_eq!(version, Err(BadFrame::Version(2)));
    // A filter that is not understood must not list (or later: remove) more than was asked for.
    let filter = r#"{"request":"queue-list","with":{"colour":"red"}}"#;
    assert!(matches!(read_request(&frame(filter)), Err(BadFrame::Malformed(_))));
    // A reply may have new fields, states and codes.
    let newer = r#"{"reply":"failure","with":{"code":"eclipse","message":"dark","moon":1}}"#;
    let Ok(Reply::Failure(failure)) = read_reply(&frame(newer)) else { panic!("it is one") };
    assert_eq!(failure.code, FailureCode::Other);
}

#[test]
fn every_length_has_a_bound() {
    let id = "x".repeat(33);
    let long = format!(r#"{{"request":"queue-show","with":{{"id":"{id}"}}}}"#);
    assert!(matches!(read_request(&frame(&long)), Err(BadFrame::Malformed(_))));
    let entries = vec!["{}"; QUEUE_PAGE_MAX + 1].join(",");
    let long = format!(r#"{{"reply":"queue","with":{{"messages":[{entries}]}}}}"#);
    assert!(matches!(read_reply(&frame(&long)), Err(BadFrame::Malformed(_))));
    let deep = "[".repeat(60_000);
    assert!(matches!(read_request(&frame(&deep)), Err(BadFrame::Malformed(_))));

    let mut decoder = Decoder::new(REQUEST_OCTETS_MAX);
    decoder.push(&u32::MAX.to_be_bytes());
    assert!(decoder.pop().is_err());
    for short in [0u32, 1] {
        let mut decoder = Decoder::new(REQUEST_OCTETS_MAX);
        decoder.push(&short.to_be_bytes());
        assert!(decoder.pop().is_err());
    }
    let most = REQUEST_OCTETS_MAX - FRAME_HEAD_OCTETS;
    assert!(Frame::write(1, &vec![b' '; most + 1], REQUEST_OCTETS_MAX).is_err());
    let mut decoder = Decoder::new(REQUEST_OCTETS_MAX);
    decoder.push(&Frame::write(1, &vec![b' '; most], REQUEST_OCTETS_MAX).unwrap());
    assert_eq!(decoder.pop().unwrap().unwrap().payload.len(), most);
}

#[test]
fn a_reply_too_long_becomes_a_failure() {
    // Control octets take six each in JSON.
    let text = Text::cut(&"\u{1}".repeat(control::limits::METRICS_OCTETS_MAX));
    let octets = write_reply(&Reply::Metrics(MetricsPage { text }));
    let mut decoder = Decoder::new(REPLY_OCTETS_MAX);
    decoder.push(&octets);
    let reply = read_reply(&decoder.pop().unwrap().unwrap()).unwrap();
    let Reply::Failure(failure) = reply else { panic!("{reply:?}") };
    assert_eq!(failure.code, FailureCode::Refused);
}

#[test]
fn the_ledger_knows_its_difference() {
    let ledger = Ledger { accepted: 5, generated: 1, delivered: 3, queued: 2, ..Ledger::default() };
    assert_eq!(ledger.difference(), 1);
    assert_eq!(Ledger { bounced: 1, ..ledger }.difference(), 0);
}

#[test]
fn operators_look_and_retry() {
    let act = |act| {
        let (ids, word) = (List::default(), Text::default());
        Request::QueueAct(QueueAct {
            act,
            ids,
            next_hop: None,
            all: true,
            to: None,
            unchecked: false,
            word,
        })
    };
    let name = || Text::cut("example.org");
    let may = [
        Request::Status,
        Request::QueueSummary,
        Request::Config(ConfigAct::History),
        Request::Test(Test::Dns(name())),
        act(Act::Retry),
    ];
    let may_not = [
        Request::Drain,
        Request::Reload,
        Request::HintsTidy,
        Request::SpoolFill,
        Request::SpoolTakeIn { yes: true },
        Request::Upgrade(Upgrade::default()),
        Request::Rule(Rule::HoldDomain(name())),
        Request::Config(ConfigAct::Confirm),
        act(Act::Freeze),
        act(Act::Remove),
    ];
    for request in may {
        assert!(request.is_for(Role::Operator) && request.is_for(Role::Admin), "{request:?}");
    }
    for request in may_not {
        assert!(!request.is_for(Role::Operator) && request.is_for(Role::Admin), "{request:?}");
    }
}
