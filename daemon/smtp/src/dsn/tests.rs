//! Reports, taken apart again by a small reader of MIME.

use proptest::prelude::*;

use super::*;

const HOUR: u64 = 3_600_000_000;

/// Header fields, unfolded, and what follows the empty line.
fn fields(text: &[u8]) -> (Vec<(String, String)>, &[u8]) {
    let at = text.windows(4).position(|w| w == b"\r\n\r\n").expect("an empty line") + 2;
    let unfolded = String::from_utf8_lossy(&text[..at]).replace("\r\n ", " ");
    let fields = unfolded
        .split_terminator("\r\n")
        .map(|line| {
            let (name, value) = line.split_once(':').expect("a colon");
            assert!(name.bytes().all(|c| c.is_ascii_graphic()), "{line}");
            (name.to_owned(), value.trim_start().to_owned())
        })
        .collect();
    (fields, &text[at + 2..])
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let first = found.next();
    assert!(found.next().is_none(), "{name} stands twice");
    first
}

struct Parts {
    header: Vec<(String, String)>,
    text: String,
    /// Message fields, then those of each recipient.
    groups: Vec<Vec<(String, String)>>,
    status_type: String,
    returned_fields: Vec<(String, String)>,
    returned: Vec<u8>,
}

fn parse(notification: &Notification) -> Parts {
    let content = &notification.content;
    for line in content.split(|c| *c == b'\n') {
        assert!(line.len() <= LINE_MAX + 1, "{} octets", line.len());
    }
    assert!(notification.smtputf8 || content.is_ascii());
    assert!(!content.contains(&0));
    let ends = content.iter().enumerate().filter(|(_, c)| matches!(c, b'\r' | b'\n'));
    for (n, c) in ends {
        let fits = if *c == b'\r' { content[n + 1] == b'\n' } else { content[n - 1] == b'\r' };
        assert!(fits, "a bare line end");
    }
    let (header, body) = fields(content);
    assert_eq!(content.len() - body.len(), notification.header_len);
    let kind = field(&header, "Content-Type").expect("a type");
    let boundary = kind.split("boundary=\"").nth(1).expect("boundary").trim_end_matches('"');
    let body = [b"\r\n", body].concat();
    let mark = format!("\r\n--{boundary}");
    let mut parts = Vec::new();
    let mut rest: &[u8] = &body;
    while let Some(at) = memchr::memmem::find(rest, mark.as_bytes()) {
        parts.push(&rest[..at]);
        rest = &rest[at + mark.len()..];
    }
    assert_eq!((parts.len(), rest), (4, &b"--\r\n"[..]));
    let split = |n: usize| fields(parts[n].strip_prefix(b"\r\n").expect("a line end"));
    let (status_fields, status) = split(2);
    let (returned_fields, returned) = split(3);
    let status = String::from_utf8(status.to_vec()).expect("UTF-8");
    let groups = status
        .trim_end_matches("\r\n")
        .split("\r\n\r\n")
        .map(|group| fields(format!("{group}\r\n\r\n").as_bytes()).0)
        .collect();
    Parts {
        status_type: field(&status_fields, "Content-Type").expect("a type").to_owned(),
        text: String::from_utf8(split(1).1.to_vec()).expect("UTF-8"),
        groups,
        returned: returned.to_vec(),
        returned_fields,
        header,
    }
}

fn recipient() -> Recipient<'static> {
    Recipient {
        address: b"bob@example.org",
        orcpt: Some(b"rfc822;Bob+2Bx@example.net"),
        notify: None,
        action: Action::Failed,
        enhanced: Enhanced(5, 1, 1),
        remote_mta: Some("mx.example.org"),
        diagnostic: "550 5.1.1 no such user",
        last_attempt_wall_us: Some(HOUR),
        retry_until_wall_us: Some(99 * HOUR),
    }
}

fn report<'a>(recipients: &'a [Recipient<'a>]) -> Report<'a> {
    Report {
        host: "mx1.example.com",
        id: "0ABC.1",
        wall_us: 2 * HOUR,
        original: Original {
            sender: b"alice@example.net",
            envid: Some(b"a+3Db"),
            ret: None,
            smtputf8: false,
            arrival_wall_us: 0,
            header: b"Subject: hello\r\nFrom: a\r\n\r\n",
            body: Some(b"secret\r\n"),
        },
        recipients,
    }
}

#[test]
fn a_failure() {
    let recipients = [recipient()];
    let notification = notify(&report(&recipients)).unwrap();
    assert_eq!(&*notification.recipient, b"alice@example.net");
    assert!(!notification.smtputf8);
    let parts = parse(&notification);
    let get = |name| field(&parts.header, name);
    assert_eq!(get("From"), Some("Mail Delivery System <MAILER-DAEMON@mx1.example.com>"));
    assert_eq!(get("To"), Some("<alice@example.net>"));
    assert_eq!(get("Auto-Submitted"), Some("auto-replied"));
    assert_eq!(get("Date"), Some("Thu, 01 Jan 1970 02:00:00 +0000"));
    assert_eq!(get("Message-ID"), Some("<0ABC.1@mx1.example.com>"));
    assert!(get("Content-Type").unwrap().contains("report-type=delivery-status;"));
    assert!(parts.text.contains("<bob@example.org>\r\n    mx.example.org said:\r\n    550 5.1.1"));
    assert_eq!(parts.status_type, "message/delivery-status");
    let message = &parts.groups[0];
    assert_eq!(field(message, "Original-Envelope-Id"), Some("a=b"));
    assert_eq!(field(message, "Reporting-MTA"), Some("dns; mx1.example.com"));
    assert_eq!(field(message, "Arrival-Date"), Some("Thu, 01 Jan 1970 00:00:00 +0000"));
    let of = &parts.groups[1];
    for (name, want) in [
        ("Original-Recipient", Some("rfc822; Bob+x@example.net")),
        ("Final-Recipient", Some("rfc822; bob@example.org")),
        ("Action", Some("failed")),
        ("Status", Some("5.1.1")),
        ("Remote-MTA", Some("dns; mx.example.org")),
        ("Diagnostic-Code", Some("smtp; 550 5.1.1 no such user")),
        ("Last-Attempt-Date", Some("Thu, 01 Jan 1970 01:00:00 +0000")),
        ("Will-Retry-Until", None),
    ] {
        assert_eq!(field(of, name), want, "{name}");
    }
    assert_eq!(field(&parts.returned_fields, "Content-Type"), Some("text/rfc822-headers"));
    assert_eq!(parts.returned, b"Subject: hello\r\nFrom: a\r\n");
}

#[test]
fn notify_is_obeyed_and_the_null_sender_left_alone() {
    let said = |success, failure, delay| Some(Notify { success, failure, delay });
    for (action, notified, want) in [
        (Action::Failed, None, true),
        (Action::Failed, said(false, true, false), true),
        (Action::Failed, said(true, false, true), false),
        (Action::Failed, Some(Notify::NEVER), false),
        (Action::Delayed, None, true),
        (Action::Delayed, said(true, true, false), false),
        (Action::Delayed, said(false, false, true), true),
        (Action::Delivered, None, false),
        (Action::Relayed, None, false),
        (Action::Relayed, said(true, false, false), true),
        (Action::Relayed, Some(Notify::NEVER), false),
    ] {
        let recipients = [Recipient { action, notify: notified, ..recipient() }];
        let mut report = report(&recipients);
        assert_eq!(notify(&report).is_some(), want, "{action:?} {notified:?}");
        report.original.sender = b"";
        assert_eq!(notify(&report), None);
    }
    assert_eq!(notify(&report(&[])), None);
}

#[test]
fn only_those_who_are_to_be_told_of() {
    let wanted = Some(Notify { success: true, failure: false, delay: true });
    let recipients = [
        recipient(),
        Recipient { address: b"never@x", notify: Some(Notify::NEVER), ..recipient() },
        Recipient {
            address: b"late@x",
            action: Action::Delayed,
            notify: wanted,
            enhanced: Enhanced(4, 4, 1),
            remote_mta: None,
            orcpt: None,
            diagnostic: "no answer",
            ..recipient()
        },
        Recipient { address: b"done@x", action: Action::Relayed, notify: wanted, ..recipient() },
    ];
    let parts = parse(&notify(&report(&recipients)).unwrap());
    let actions: Vec<_> = parts.groups[1..].iter().map(|g| field(g, "Action").unwrap()).collect();
    assert_eq!(actions, ["failed", "delayed", "relayed"]);
    assert!(!String::from_utf8_lossy(&parts.returned).contains("never@x"));
    let late = &parts.groups[2];
    assert_eq!(field(late, "Will-Retry-Until"), Some("Mon, 05 Jan 1970 03:00:00 +0000"));
    assert_eq!(field(late, "Remote-MTA"), None);
    assert_eq!(field(late, "Diagnostic-Code"), Some("x-ringpost; no answer"));
    assert_eq!(field(late, "Original-Recipient"), None);
}

#[test]
fn ret_and_the_size_bound() {
    let failed = [recipient()];
    let success = Some(Notify { success: true, failure: true, delay: true });
    let relayed = [Recipient { action: Action::Relayed, notify: success, ..recipient() }];
    let long = b"0123456789abcd\r\n".repeat(RETURNED_MAX / 16 + 1);
    let long_line = [&[b'x'; LINE_MAX + 1], &b"\r\n"[..]].concat();
    for (recipients, ret, body, whole) in [
        (&failed, Some(Ret::Full), Some(&b"secret\r\n"[..]), true),
        (&failed, Some(Ret::Hdrs), Some(b"secret\r\n"), false),
        (&failed, None, Some(b"secret\r\n"), false),
        (&failed, Some(Ret::Full), None, false),
        (&failed, Some(Ret::Full), Some(&long), false),
        (&failed, Some(Ret::Full), Some(&long_line), false),
        (&failed, Some(Ret::Full), Some(b"\xe4\r\n"), false),
        (&failed, Some(Ret::Full), Some(b"\0\r\n"), false),
        (&relayed, Some(Ret::Full), Some(b"secret\r\n"), false),
    ] {
        let mut report = report(recipients);
        report.original.ret = ret;
        report.original.body = body;
        let parts = parse(&notify(&report).unwrap());
        let kind = field(&parts.returned_fields, "Content-Type").unwrap();
        assert_eq!(kind == "message/rfc822", whole, "{kind}");
        if whole {
            assert_eq!(parts.returned, b"Subject: hello\r\nFrom: a\r\n\r\nsecret\r\n");
        }
    }
}

#[test]
fn eight_bits_make_it_international() {
    let recipients = [Recipient {
        address: "b\u{f6}b@example.org".as_bytes(),
        orcpt: Some("utf-8;b\u{f6}b@example.org".as_bytes()),
        diagnostic: "550 gibt's nicht, schade f\u{fc}r dich",
        ..recipient()
    }];
    let mut report = report(&recipients);
    report.original.header = "Subject: gr\u{fc}\u{df}e\r\n\r\n".as_bytes();
    let notification = notify(&report).unwrap();
    assert!(notification.smtputf8);
    let parts = parse(&notification);
    let kind = field(&parts.header, "Content-Type").unwrap();
    assert!(kind.contains("report-type=global-delivery-status;"));
    assert_eq!(parts.status_type, "message/global-delivery-status");
    let of = &parts.groups[1];
    assert_eq!(field(of, "Final-Recipient"), Some("utf-8; b\u{f6}b@example.org"));
    assert_eq!(field(of, "Original-Recipient"), Some("utf-8; b\u{f6}b@example.org"));
    assert_eq!(field(&parts.returned_fields, "Content-Type"), Some("message/global-headers"));
    assert_eq!(parts.returned, "Subject: gr\u{fc}\u{df}e\r\n".as_bytes());

    // The same text about an ASCII address stays ASCII.
    let recipients = [Recipient { address: b"bob@example.org", orcpt: None, ..recipients[0] }];
    report.recipients = &recipients;
    let notification = notify(&report).unwrap();
    assert!(!notification.smtputf8);
    let parts = parse(&notification);
    let encoding = field(&parts.returned_fields, "Content-Transfer-Encoding");
    assert_eq!(encoding, Some("quoted-printable"));
    assert_eq!(parts.returned, b"Subject: gr=C3=BC=C3=9Fe\r\n");
    let code = field(&parts.groups[1], "Diagnostic-Code");
    assert_eq!(code, Some("smtp; 550 gibt's nicht, schade f?r dich"));
}

#[test]
fn outside_text_adds_nothing() {
    let long = "x ".repeat(5000);
    let recipients = [
        Recipient {
            diagnostic: "550 a\r\nAction: delivered\r\n\r\n--=_0ABC1_0",
            remote_mta: Some("evil\r\nX: y"),
            orcpt: Some(b"rfc822;a+0D+0AAction: x+0D+0A+0D+0AFrom"),
            ..recipient()
        },
        Recipient { diagnostic: &long, ..recipient() },
    ];
    let mut report = report(&recipients);
    report.original.envid = Some(b"a+0D+0AX-Y: z");
    report.original.header = b"A: b\r\n--=_0ABC1_0--\r\n";
    let parts = parse(&notify(&report).unwrap());
    assert_eq!(parts.groups.len(), 3);
    assert_eq!(field(&parts.groups[1], "Action"), Some("failed"));
    assert_eq!(field(&parts.groups[0], "X-Y"), None);
    assert_eq!(parts.returned, b"A: b\r\n--=_0ABC1_0--\r\n");
}

fn some_of(octets: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(octets), 0..80)
}

proptest! {
    #[test]
    fn any_octets_give_a_report_that_can_be_read(
        sender in "[a-z\u{e4} \"]{1,20}",
        address in prop::collection::vec(any::<u8>(), 1..40),
        orcpt in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
        header in some_of(b"\r\n\0: a\xe4=-_0ABC"),
        body in prop::option::of(some_of(b"\r\n.-=\xc3\xa4")),
        diagnostic in any::<String>(),
        host in any::<String>(),
        full: bool,
    ) {
        let recipients = [Recipient {
            address: &address,
            orcpt: orcpt.as_deref(),
            diagnostic: &diagnostic,
            remote_mta: Some(&host),
            ..recipient()
        }];
        let mut report = report(&recipients);
        report.original.sender = sender.as_bytes();
        report.original.header = &header;
        report.original.body = body.as_deref();
        report.original.ret = full.then_some(Ret::Full);
        let parts = parse(&notify(&report).unwrap());
        prop_assert_eq!(parts.groups.len(), 2);
        prop_assert_eq!(field(&parts.groups[1], "Action"), Some("failed"));
    }
}
