//! Which mail is taken, and that every refusal leads to its line in the log.

use super::backend::{Backend, Manners};
use super::client::{Client, id_of};
use super::programs::{Daemon, Folder, Setup};

const ALL_OFFERS: &[&str] = &[
    "PIPELINING",
    "8BITMIME",
    "SIZE 1000000",
    "CHUNKING",
    "BINARYMIME",
    "SMTPUTF8",
    "ENHANCEDSTATUSCODES",
    "DSN",
];

fn everything() -> Manners {
    Manners { offers: ALL_OFFERS.to_vec(), ..Manners::default() }
}

/// The refusal's id stands in a log line that says why.
fn is_logged(daemon: &mut Daemon, reply: &str, why: &str) {
    daemon.line_with(&[id_of(reply), why]);
}

/// Waits until the daemon has asked its backend what it offers.
fn until_probed(daemon: &mut Daemon, backend: &Backend) {
    daemon.until("the probe of the backend", |daemon| {
        let hints = daemon.ask(&["hints", "list", "--kind", "offers"]);
        hints.to_string().contains(&backend.address.to_string())
    });
}

#[test]
fn mail_is_taken_for_our_domains_only() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("domains", Setup::new(backend.address));
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<sender@example.net>", "250 2.1.0");
    let denied = client.expect("RCPT TO:<a@other.example>", "550 5.7.1 ");
    let under = client.expect("RCPT TO:<a@sub.example.org>", "550 5.7.1 ");
    let percent = client.expect("RCPT TO:<a%other.example@sub.example.org>", "550 5.7.1 ");
    client.expect("RCPT TO:<anybody@EXAMPLE.org>", "250 2.1.5");
    client.expect("DATA", "354");
    client.expect("Subject: x\r\n\r\nx\r\n.", "250 2.0.0");
    for reply in [&denied, &under, &percent] {
        is_logged(&mut daemon, reply, "relaying denied");
    }
    assert_eq!(backend.wait_for(1)[0].to, ["anybody@EXAMPLE.org"]);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn recipients_are_those_of_the_file() {
    let backend = Backend::start(Manners::default());
    let folder = Folder::new("recipients");
    let file = folder.path("recipients");
    std::fs::write(
        &file,
        "# who\nann@example.org\n*@all.example\nBob@example.org\nwhole.example\n",
    )
    .expect("written");
    let setup = Setup {
        policy: format!(
            "relay_domains = [\"example.org\", \"all.example\", \"whole.example\"]\n\
             recipients_file = \"{}\"\n",
            file.display()
        ),
        ..Setup::new(backend.address)
    };
    let mut daemon = Daemon::start_in(folder, setup);
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<sender@example.net>", "250");
    for known in ["ann@example.org", "ANN@Example.ORG", "bob@example.org", "x@all.example"] {
        client.expect(&format!("RCPT TO:<{known}>"), "250 2.1.5");
    }
    client.expect("RCPT TO:<y@whole.example>", "250 2.1.5");
    let unknown = client.expect("RCPT TO:<carol@example.org>", "550 5.1.1 ");
    is_logged(&mut daemon, &unknown, "no such recipient");
    // RFC 5321 4.5.1: postmaster always, in any case, with every domain of ours and without one.
    for postmaster in
        ["postmaster", "PostMaster", "postmaster@example.org", "POSTMASTER@all.example"]
    {
        client.expect(&format!("RCPT TO:<{postmaster}>"), "250 2.1.5");
    }
    client.expect("RCPT TO:<postmaster@other.example>", "550 5.7.1 ");
    client.expect("DATA", "354");
    client.expect("Subject: x\r\n\r\nx\r\n.", "250 2.0.0");
    let mut to: Vec<String> = Vec::new();
    daemon.until("all recipients at the backend", |_| {
        to = backend.mails().into_iter().flat_map(|mail| mail.to).collect();
        to.len() == 9
    });
    // The bare postmaster has got a domain on the way.
    assert!(to.iter().any(|to| to == "postmaster@example.org"), "{to:?}");
    assert!(to.iter().all(|to| to.contains('@')), "{to:?}");
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn networks_of_ours_may_send_anywhere() {
    let backend = Backend::start(Manners::default());
    let mut setup = Setup::new(backend.address);
    setup.policy.push_str("relay_networks = [\"127.0.0.0/8\"]\n");
    let mut daemon = Daemon::start("networks", setup);
    let mut client = Client::greeted(daemon.address);
    client.deliver("a@example.org", &["b@elsewhere.example"], "Subject: x\r\n\r\nx\r\n");
    assert_eq!(backend.wait_for(1)[0].to, ["b@elsewhere.example"]);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn size_is_announced_and_kept() {
    let backend = Backend::start(everything());
    let mut setup = Setup::new(backend.address);
    setup.policy.push_str("size_max = \"64 KiB\"\n");
    let mut daemon = Daemon::start("size", setup);
    let mut client = Client::connect(daemon.address);
    let offers = client.expect("EHLO client.example.net", "250");
    assert!(offers.lines().any(|line| &line[4..] == "SIZE 65536"), "{offers}");
    let declared = client.expect("MAIL FROM:<a@example.net> SIZE=65537", "552 5.3.4 ");
    is_logged(&mut daemon, &declared, "too large");
    let big = format!("Subject: x\r\n\r\n{}", "0123456789\r\n".repeat(6000));
    let reply = client.mail("a@example.net", &["b@example.org"], &big);
    assert!(reply.starts_with("552 5.3.4 "), "{reply}");
    is_logged(&mut daemon, &reply, "too large");
    let fits = format!("Subject: x\r\n\r\n{}", "0123456789\r\n".repeat(5000));
    client.deliver("a@example.net", &["b@example.org"], &fits);
    let mail = &backend.wait_for(1)[0];
    assert!(mail.text().ends_with(&fits), "{} octets came", mail.content.len());
    daemon.until_empty();
    assert_eq!((backend.count(), daemon.ledger().accepted), (1, 1));
    assert!(daemon.stop().success());
}

#[test]
fn size_behind_is_refused_at_rcpt() {
    let offers = vec!["SIZE 1000", "8BITMIME"];
    let backend = Backend::start(Manners { offers, ..Manners::default() });
    let mut daemon = Daemon::start("size-behind", Setup::new(backend.address));
    until_probed(&mut daemon, &backend);
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<a@example.net> SIZE=1001", "250");
    let reply = client.expect("RCPT TO:<b@example.org>", "552 5.3.4 ");
    is_logged(&mut daemon, &reply, "too large for this recipient");
    client.expect("RSET", "250");
    // Undeclared, it is refused when it is known: never bounced.
    let big = format!("Subject: x\r\n\r\n{}", "0123456789\r\n".repeat(100));
    let reply = client.mail("a@example.net", &["b@example.org"], &big);
    assert!(reply.starts_with("552 5.3.4 "), "{reply}");
    client.deliver("a@example.net", &["b@example.org"], "Subject: x\r\n\r\nsmall\r\n");
    backend.wait_for(1);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn what_the_backend_does_not_take_is_refused_in_the_dialogue() {
    let backend = Backend::start(Manners { offers: vec!["8BITMIME"], ..Manners::default() });
    let mut daemon = Daemon::start("narrow", Setup::new(backend.address));
    until_probed(&mut daemon, &backend);
    let mut client = Client::connect(daemon.address);
    let offers = client.expect("EHLO client.example.net", "250");
    for word in ["SMTPUTF8", "BINARYMIME"] {
        assert!(!offers.contains(word), "{offers}");
    }
    for word in ["8BITMIME", "CHUNKING", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES"] {
        assert!(offers.contains(word), "{offers}");
    }
    // A client that asks for it all the same hears it now; nothing is bounced later.
    let mail = client.say("MAIL FROM:<a@example.net> SMTPUTF8");
    let reply = if mail.starts_with("250") {
        client.expect("RCPT TO:<b@example.org>", "553 5.6.7 ")
    } else {
        assert!(mail.starts_with("555 5.5.4 "), "{mail}");
        mail
    };
    is_logged(&mut daemon, &reply, "rejected");
    client.expect("RSET", "250");
    let mail = client.say("MAIL FROM:<a@example.net> BODY=BINARYMIME");
    if mail.starts_with("250") {
        client.expect("RCPT TO:<b@example.org>", "55");
    } else {
        assert!(mail.starts_with("555 5.5.4 ") || mail.starts_with("501 5.5.4 "), "{mail}");
    }
    client.expect("RSET", "250");
    client.expect("MAIL FROM:<a@example.net> BODY=8BITMIME", "250");
    client.expect("RSET", "250");
    assert_eq!(daemon.ledger().accepted, 0);
    assert!(daemon.stop().success());
}

#[test]
fn one_of_two_backends_that_takes_utf8_lets_its_own_domain_have_it() {
    let wide = Backend::start(everything());
    let narrow = Backend::start(Manners { offers: vec!["8BITMIME"], ..Manners::default() });
    let route = |domain: &str, backend: &Backend| {
        format!(
            "[[route]]\ndomains = [\"{domain}\"]\n\
             hosts = [{{ host = \"127.0.0.1\", port = {} }}]\n",
            backend.address.port()
        )
    };
    let setup = Setup {
        policy: "relay_domains = [\"wide.example\", \"narrow.example\"]\nany_recipient = true\n"
            .to_owned(),
        routes: Some(route("wide.example", &wide) + &route("narrow.example", &narrow)),
        ..Setup::new(wide.address)
    };
    let mut daemon = Daemon::start("two", setup);
    until_probed(&mut daemon, &wide);
    until_probed(&mut daemon, &narrow);
    let mut client = Client::connect(daemon.address);
    let offers = client.expect("EHLO client.example.net", "250");
    assert!(offers.contains("SMTPUTF8") && offers.contains("BINARYMIME"), "{offers}");
    client.expect("MAIL FROM:<a@example.net> SMTPUTF8", "250");
    let reply = client.expect("RCPT TO:<b@narrow.example>", "553 5.6.7 ");
    is_logged(&mut daemon, &reply, "internationalised");
    client.send("RCPT TO:<müller@wide.example>\r\n".as_bytes());
    assert!(client.reply().starts_with("250"));
    client.expect("DATA", "354");
    client.send("Subject: Grüße\r\n\r\nüöä\r\n.\r\n".as_bytes());
    assert!(client.reply().starts_with("250 2.0.0"));
    let mail = &wide.wait_for(1)[0];
    assert_eq!(mail.to, ["müller@wide.example"]);
    assert!(mail.parameters[0].contains("SMTPUTF8"), "{:?}", mail.parameters);
    assert!(mail.text().ends_with("Subject: Grüße\r\n\r\nüöä\r\n"), "{}", mail.text());
    // Binary, octet by octet.
    client.expect("MAIL FROM:<a@example.net> BODY=BINARYMIME", "250");
    client.expect("RCPT TO:<b@narrow.example>", "55");
    client.expect("RCPT TO:<b@wide.example>", "250");
    let content = b"Subject: bin\r\n\r\n\0\n\r\xff.\r\n.\r\n\nend";
    client.send(format!("BDAT {} LAST\r\n", content.len()).as_bytes());
    client.send(content);
    let reply = client.reply();
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    let mail = wide.wait_for(2).pop().expect("two");
    assert!(mail.content.ends_with(content), "{:?}", mail.text());
    assert!(mail.parameters[0].contains("BODY=BINARYMIME"), "{:?}", mail.parameters);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn eight_bit_content_arrives_as_it_was() {
    let backend = Backend::start(Manners { offers: vec!["8BITMIME"], ..Manners::default() });
    let mut daemon = Daemon::start("eight", Setup::new(backend.address));
    let mut client = Client::greeted(daemon.address);
    client.expect("MAIL FROM:<a@example.net> BODY=8BITMIME", "250");
    client.expect("RCPT TO:<b@example.org>", "250");
    client.expect("DATA", "354");
    let content = b"Subject: x\r\n\r\n\xe4\xf6\xfc \x80\xff\r\n";
    client.send(content);
    client.expect(".", "250");
    let mail = &backend.wait_for(1)[0];
    assert!(mail.content.ends_with(content), "{}", mail.text());
    assert!(mail.parameters[0].contains("BODY=8BITMIME"), "{:?}", mail.parameters);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn chunks_and_pipelining_bring_the_same_message() {
    let backend = Backend::start(everything());
    let mut daemon = Daemon::start("chunks", Setup::new(backend.address));
    let mut client = Client::greeted(daemon.address);
    let content = "Subject: dots\r\n\r\n.\r\n..\r\nend\r\n";
    client.send(
        format!(
            "MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\n\
             RCPT TO:<c@nowhere.example>\r\nBDAT 10\r\n{}BDAT {} LAST\r\n{}QUIT\r\n",
            &content[..10],
            content.len() - 10,
            &content[10..]
        )
        .as_bytes(),
    );
    for start in ["250 2.1.0", "250 2.1.5", "550 5.7.1", "250 2.0.0", "250 2.0.0 [", "221 2.0.0"] {
        let reply = client.reply();
        assert!(reply.starts_with(start), "{start}: {reply}");
    }
    let mail = &backend.wait_for(1)[0];
    assert!(mail.text().ends_with(content), "{}", mail.text());
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn every_refusal_names_an_id_that_the_log_knows() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("ids", Setup::new(backend.address));
    let refusals: &[(&[&str], &str)] = &[
        (&["MAIL FROM:<a@example.net>"], "503"),
        (&["EHLO"], "501"),
        (&["EHLO x", "FROBNICATE"], "500"),
        (&["EHLO x", "AUTH PLAIN x"], "502"),
        (&["EHLO x", "MAIL FROM:<a..b@example.net>"], "553"),
        (&["EHLO x", "MAIL FROM:<a@example.net> FOO=1"], "555"),
        (&["EHLO x", "MAIL FROM:<a@example.net>", "RCPT TO:<x@y.example>"], "550"),
        (&["EHLO x", "MAIL FROM:<a@example.net>", "DATA"], "554"),
        (&["EHLO x", "RCPT TO:<a@example.org>"], "503"),
        (&["Subject: hello"], "554"),
    ];
    let mut seen = std::collections::HashSet::new();
    for (lines, code) in refusals {
        let mut client = Client::connect(daemon.address);
        let (last, before) = lines.split_last().expect("a line");
        for line in before {
            client.expect(line, "250");
        }
        let reply = client.expect(last, code);
        let id = id_of(&reply).to_owned();
        assert!(seen.insert(id.clone()), "{id} twice");
        let line = daemon.line_with(&[&id, "rejected"]);
        assert!(
            line.contains(&client.local().to_string().replace("127.0.0.1", "[127.0.0.1]")),
            "{line}"
        );
    }
    // Content: the reject log has the header, too.
    let mut client = Client::greeted(daemon.address);
    let reply = client.mail("a@example.net", &["b@example.org"], "Subject: bad\r\n\r\nx\ny\r\n");
    let id = id_of(&reply).to_owned();
    assert!(reply.starts_with("550 5.6.11"), "{reply}");
    daemon.line_with(&[&id, "rejected after DATA"]);
    daemon.until("the reject log", |daemon| daemon.reject_log().contains(&id));
    assert!(daemon.stop().success());
    assert_eq!(backend.count(), 0);
}
