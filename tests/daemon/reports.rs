//! Reports to senders: who gets one, what stands in it, who gets none.

use super::backend::{Backend, Mail, Manners};
use super::client::Client;
use super::programs::{Daemon, Setup};

const SMALL: &str = "Message-ID: <orig@example.net>\r\nSubject: the original\r\n\r\nits body\r\n";

/// A report, taken apart (RFC 3464, RFC 6522).
struct Report {
    header: String,
    status: String,
    returned_kind: String,
    returned: String,
}

/// The value of a field, unfolded.
fn field(header: &str, name: &str) -> String {
    let unfolded = header.replace("\r\n\t", " ").replace("\r\n ", " ");
    let prefix = format!("{}:", name.to_ascii_lowercase());
    let mut lines = unfolded.lines().filter(|l| l.to_ascii_lowercase().starts_with(&prefix));
    let line = lines.next().unwrap_or_else(|| panic!("no {name} in:\n{header}"));
    assert!(lines.next().is_none() || name == "Received", "{name} twice in:\n{header}");
    line[prefix.len()..].trim().to_owned()
}

impl Report {
    fn read(mail: &Mail) -> Self {
        let text = mail.text();
        let (header, body) = text.split_once("\r\n\r\n").expect("a header and a body");
        let kind = field(header, "Content-Type");
        assert!(kind.starts_with("multipart/report"), "{kind}");
        assert!(kind.contains("report-type=delivery-status"), "{kind}");
        assert_eq!(field(header, "MIME-Version"), "1.0");
        field(header, "Date");
        field(header, "Message-ID");
        assert!(field(header, "Auto-Submitted").starts_with("auto-"), "{header}");
        let boundary = kind.split("boundary=").nth(1).expect("a boundary");
        let boundary = boundary.split(';').next().expect("a value").trim_matches('"');
        let parts: Vec<&str> = body.split(&format!("--{boundary}")).collect();
        assert_eq!(parts.len(), 5, "preamble, three parts, end: {body}");
        assert!(parts[4].starts_with("--"), "{body}");
        let part = |n: usize| {
            let part = parts[n].strip_prefix("\r\n").expect("a line end");
            let (header, body) = part.split_once("\r\n\r\n").unwrap_or((part, ""));
            (field(header, "Content-Type"), body.to_owned())
        };
        assert!(part(1).0.starts_with("text/plain"), "{}", part(1).0);
        let (kind, status) = part(2);
        assert!(kind.starts_with("message/delivery-status"), "{kind}");
        let (returned_kind, returned) = part(3);
        Self { header: header.to_owned(), status, returned_kind, returned }
    }

    /// The group of fields about a recipient.
    fn of(&self, recipient: &str) -> String {
        let groups: Vec<&str> = self.status.split("\r\n\r\n").collect();
        let group = groups[1..].iter().find(|group| {
            group.contains("Final-Recipient")
                && field(group, "Final-Recipient").ends_with(recipient)
        });
        (*group.unwrap_or_else(|| panic!("nothing about {recipient}: {}", self.status))).to_owned()
    }
}

/// The mails with the null sender at the backend.
fn reports(backend: &Backend) -> Vec<Mail> {
    backend.mails().into_iter().filter(|mail| mail.from.is_empty()).collect()
}

fn refusing(replies: Vec<(&'static str, &'static str, u32)>) -> Backend {
    Backend::start(Manners { replies, offers: vec!["DSN"], ..Manners::default() })
}

#[test]
fn a_refused_recipient_is_reported_to_the_sender() {
    let backend = refusing(vec![("RCPT TO:<BAD", "550 5.1.1 nobody <here>", 0)]);
    let mut daemon = Daemon::start("dsn", Setup::new(backend.address));
    let mut client = Client::greeted(daemon.address);
    let to = ["good@example.org", "bad@example.org"];
    let id = client.deliver("sender@example.net", &to, SMALL);
    daemon.line_with(&[&id, "** bad@example.org", "550 5.1.1 nobody <here>"]);
    daemon.line_with(&[&id, "=> good@example.org"]);
    daemon.line_with(&["<= <>", &format!("R={id}"), "P=local"]);
    daemon.until_empty();
    let all = reports(&backend);
    assert_eq!((all.len(), backend.count()), (1, 2));
    assert_eq!(all[0].to, ["sender@example.net"]);
    let report = Report::read(&all[0]);
    assert!(field(&report.header, "To").contains("sender@example.net"), "{}", report.header);
    assert!(
        report.status.starts_with("Reporting-MTA: dns; mx.example.org\r\n"),
        "{}",
        report.status
    );
    let bad = report.of("bad@example.org");
    assert_eq!(field(&bad, "Action"), "failed");
    assert_eq!(field(&bad, "Status"), "5.1.1");
    assert!(field(&bad, "Diagnostic-Code").starts_with("smtp; 550 5.1.1 nobody"), "{bad}");
    assert!(field(&bad, "Remote-MTA").contains("127.0.0.1"), "{bad}");
    assert!(!report.status.contains("good@example.org"), "{}", report.status);
    assert!(report.returned.contains("Subject: the original\r\n"), "{}", report.returned);
    let ledger = daemon.ledger();
    assert_eq!((ledger.accepted, ledger.delivered), (2, 2));
    assert_eq!((ledger.bounced, ledger.generated), (1, 1));
    assert!(daemon.stop().success());
}

#[test]
fn five_hundreds_at_each_stage_are_reported_once() {
    for stage in ["MAIL FROM:<S", "RCPT TO:<U", "DATA", "DOT"] {
        let times = u32::from(stage == "DATA" || stage == "DOT");
        let backend = refusing(vec![(stage, "554 5.6.0 never", times)]);
        let mut daemon = Daemon::start("dsn-stage", Setup::new(backend.address));
        let mut client = Client::greeted(daemon.address);
        client.deliver("sender@example.net", &["user@example.org"], SMALL);
        daemon.until("the report", |_| !reports(&backend).is_empty());
        daemon.until_empty();
        let all = reports(&backend);
        assert_eq!(all.len(), 1, "{stage}");
        let about = Report::read(&all[0]).of("user@example.org");
        assert_eq!((&*field(&about, "Action"), &*field(&about, "Status")), ("failed", "5.6.0"));
        let ledger = daemon.ledger();
        assert_eq!((ledger.delivered, ledger.bounced, ledger.generated), (1, 1, 1), "{stage}");
        assert!(daemon.stop().success());
    }
}

#[test]
fn the_null_sender_gets_none() {
    let backend = refusing(vec![("RCPT TO:<BAD", "550 5.1.1 nobody", 0)]);
    let mut daemon = Daemon::start("dsn-null", Setup::new(backend.address));
    let id = Client::greeted(daemon.address).deliver("", &["bad@example.org"], SMALL);
    daemon.line_with(&[&id, "**"]);
    daemon.line_with(&[&id, "Completed"]);
    daemon.until_empty();
    let ledger = daemon.ledger();
    assert_eq!((ledger.generated, ledger.delivered, backend.count()), (0, 0, 0));
    assert_eq!(ledger.rest, 1, "a discarded double bounce: {ledger:?}");
    assert!(daemon.stop().success());
}

#[test]
fn a_report_that_cannot_be_delivered_ends_there() {
    let backend = refusing(vec![("RCPT", "550 5.1.1 nobody", 0)]);
    let mut daemon = Daemon::start("dsn-double", Setup::new(backend.address));
    Client::greeted(daemon.address).deliver("sender@example.net", &["bad@example.org"], SMALL);
    daemon.until("both given up", |daemon| daemon.log().matches(" ** ").count() == 2);
    daemon.until_empty();
    let ledger = daemon.ledger();
    assert_eq!((ledger.accepted, ledger.generated, ledger.delivered), (1, 1, 0));
    assert_eq!((ledger.bounced, ledger.rest), (1, 1));
    assert!(daemon.stop().success());
}

#[test]
fn notify_and_ret_are_obeyed() {
    let backend = refusing(vec![("RCPT TO:<BAD", "550 5.1.1 nobody", 0)]);
    let mut daemon = Daemon::start("dsn-notify", Setup::new(backend.address));
    let mut client = Client::greeted(daemon.address);
    let mut send = |mail: &str, rcpt: &str| {
        client.expect(&format!("MAIL FROM:<sender@example.net>{mail}"), "250");
        client.expect(&format!("RCPT TO:<{rcpt}"), "250");
        client.expect("DATA", "354");
        client.send(SMALL.as_bytes());
        let reply = client.say(".");
        super::client::id_of(&reply).to_owned()
    };
    // Never: no report.
    let never = send("", "bad@example.org> NOTIFY=NEVER");
    daemon.line_with(&[&never, "Completed"]);
    daemon.until_empty();
    assert_eq!(reports(&backend).len(), 0);
    // Success and delay only: no report of a failure.
    let success = send("", "bad@example.org> NOTIFY=SUCCESS,DELAY");
    daemon.line_with(&[&success, "Completed"]);
    daemon.until_empty();
    assert_eq!(reports(&backend).len(), 0);
    // The header only, with the sender's own names for things.
    let asked = "bad@example.org> NOTIFY=FAILURE ORCPT=rfc822;first+40example.com";
    send(" RET=HDRS ENVID=QQ314159", asked);
    daemon.until("a report", |_| reports(&backend).len() == 1);
    let report = Report::read(&reports(&backend)[0]);
    assert!(report.returned_kind.starts_with("text/rfc822-headers"), "{}", report.returned_kind);
    assert!(report.returned.contains("Subject: the original"), "{}", report.returned);
    assert!(!report.returned.contains("its body"), "{}", report.returned);
    assert_eq!(field(&report.status, "Original-Envelope-Id"), "QQ314159");
    let about = report.of("bad@example.org");
    assert_eq!(field(&about, "Original-Recipient"), "rfc822; first@example.com");
    // The whole message.
    send(" RET=FULL", "bad@example.org>");
    daemon.until("a report", |_| reports(&backend).len() == 2);
    let report = Report::read(&reports(&backend)[1]);
    assert!(report.returned_kind.starts_with("message/rfc822"), "{}", report.returned_kind);
    assert!(report.returned.contains("its body"), "{}", report.returned);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn who_knows_dsn_is_told_what_the_sender_wants() {
    let backend = refusing(Vec::new());
    let mut daemon = Daemon::start("dsn-pass", Setup::new(backend.address));
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<sender@example.net> RET=HDRS ENVID=abc", "250");
    client.expect("RCPT TO:<a@example.org> NOTIFY=SUCCESS ORCPT=rfc822;b@c.example", "250");
    client.expect("DATA", "354");
    client.expect("Subject: x\r\n\r\n.", "250");
    let mail = &backend.wait_for(1)[0];
    assert!(mail.parameters[0].contains("RET=HDRS"), "{:?}", mail.parameters);
    assert!(mail.parameters[0].contains("ENVID=abc"), "{:?}", mail.parameters);
    assert!(mail.parameters[1].contains("NOTIFY=SUCCESS"), "{:?}", mail.parameters);
    assert!(mail.parameters[1].contains("ORCPT=rfc822;b@c.example"), "{:?}", mail.parameters);
    daemon.until_empty();
    assert_eq!((backend.count(), daemon.ledger().generated), (1, 0));
    assert!(daemon.stop().success());
}

#[test]
fn success_is_reported_where_dsn_ends() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("dsn-relayed", Setup::new(backend.address));
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<sender@example.net>", "250");
    client.expect("RCPT TO:<a@example.org> NOTIFY=SUCCESS", "250");
    client.expect("RCPT TO:<b@example.org>", "250");
    client.expect("DATA", "354");
    client.expect("Subject: x\r\n\r\n.", "250");
    backend.wait_for(2);
    daemon.until_empty();
    let all = reports(&backend);
    assert_eq!(all.len(), 1);
    let report = Report::read(&all[0]);
    let about = report.of("a@example.org");
    assert_eq!((&*field(&about, "Action"), &*field(&about, "Status")), ("relayed", "2.0.0"));
    assert!(!report.status.contains("b@example.org"), "{}", report.status);
    let ledger = daemon.ledger();
    assert_eq!((ledger.accepted, ledger.generated, ledger.delivered), (2, 1, 3));
    assert!(daemon.stop().success());
}

#[test]
fn mail_that_waited_too_long_is_returned() {
    let backend = refusing(vec![("RCPT TO:<LATE", "450 4.2.0 come again", 0)]);
    let mut setup = Setup::new(backend.address);
    setup.retry = "first_s = 0.5\nfactor = 1.0\nmax_s = 0.5\nexpire_s = 2\n".to_owned();
    let mut daemon = Daemon::start("expiry", setup);
    let mut client = Client::greeted(daemon.address);
    let id = client.deliver("sender@example.net", &["late@example.org"], SMALL);
    daemon.line_with(&[&id, "==", "450 4.2.0 come again"]);
    let line = daemon.line_with(&[&id, "**"]);
    assert!(line.contains("expired"), "{line}");
    daemon.until("the report", |_| !reports(&backend).is_empty());
    let all = reports(&backend);
    let report = Report::read(&all[0]);
    let about = report.of("late@example.org");
    assert_eq!(field(&about, "Action"), "failed");
    assert!(field(&about, "Status").starts_with("5."), "{about}");
    assert!(field(&about, "Diagnostic-Code").contains("450 4.2.0 come again"), "{about}");
    daemon.until_empty();
    let ledger = daemon.ledger();
    assert_eq!((ledger.delivered, ledger.bounced, ledger.generated), (1, 1, 1));
    assert!(daemon.stop().success());
}

#[test]
fn the_sender_hears_of_a_delay_once() {
    let backend = refusing(vec![("RCPT TO:<LATE", "450 4.2.0 come again", 0)]);
    let mut setup = Setup::new(backend.address);
    setup.retry =
        "first_s = 0.3\nfactor = 1.0\nmax_s = 0.3\nexpire_s = 3600\ndelay_warning_s = 1\n"
            .to_owned();
    let mut daemon = Daemon::start("delay", setup);
    let mut client = Client::greeted(daemon.address);
    let id = client.deliver("sender@example.net", &["late@example.org"], SMALL);
    let mail = &backend.wait_for(1)[0];
    assert_eq!((&*mail.from, &mail.to[..]), ("", &["sender@example.net".to_owned()][..]));
    let report = Report::read(mail);
    let about = report.of("late@example.org");
    assert_eq!(field(&about, "Action"), "delayed");
    assert!(field(&about, "Status").starts_with("4."), "{about}");
    field(&about, "Will-Retry-Until");
    // Tried on, and not told again.
    let tried = |log: &str| log.lines().filter(|l| l.contains(&id) && l.contains("==")).count();
    let then = tried(&daemon.log());
    daemon.until("six more attempts", |daemon| tried(&daemon.log()) >= then + 6);
    assert_eq!(backend.count(), 1);
    backend.set(Manners::default());
    backend.wait_for(2);
    daemon.until_empty();
    assert_eq!((backend.count(), daemon.ledger().bounced), (2, 0));
    assert!(daemon.stop().success());
}
