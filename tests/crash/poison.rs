//! A message that fells the daemon: noted in the hints, frozen after the second time.

use crate::daemon::backend::{Backend, Manners};
use crate::daemon::client::Client;
use crate::daemon::programs::{Daemon, Setup};

#[test]
fn a_poison_message_is_frozen_after_two_falls_and_other_mail_flows() {
    let address = Backend::nowhere();
    let mut setup = Setup::new(address);
    setup.environment = vec![("RINGPOST_TEST_POISON".into(), "X-Poison: yes".into())];
    setup.retry = "first_s = 0.2\nfactor = 1.0\nmax_s = 0.2\nexpire_s = 3600\n".to_owned();
    let backend = Backend::start_at(address, Manners::default());
    let mut daemon = Daemon::start("poison", setup);
    let mut falls = 0;
    let id = {
        let mut client = Client::greeted(daemon.address);
        let content = "X-Poison: yes\r\nSubject: poison\r\n\r\n";
        client.expect("MAIL FROM:<a@example.net>", "250");
        client.expect("RCPT TO:<poison@example.org>", "250");
        client.expect("DATA", "354");
        client.send(content.as_bytes());
        let reply = client.say(".");
        // The fall may come before the reply does; the message is durable all the same.
        if reply.is_empty() { None } else { Some(crate::daemon::client::id_of(&reply).to_owned()) }
    };
    assert!(!daemon.wait().success(), "it did not fall");
    falls += 1;
    // Each start that reads it falls again, until it is known.
    loop {
        match daemon.try_start_again() {
            Err(_) => falls += 1,
            Ok(()) => {
                let mut ended = false;
                while !ended {
                    ended = daemon.has_ended();
                    if daemon.log().contains("Frozen") && !ended {
                        break;
                    }
                    std::thread::yield_now();
                }
                if !ended {
                    break;
                }
                falls += 1;
            }
        }
        assert!(falls <= 2, "it fell {falls} times over one message");
    }
    assert_eq!(falls, 2);
    let log = daemon.log();
    let frozen = log.lines().find(|line| line.contains("Frozen")).expect("just seen");
    assert!(id.as_ref().is_none_or(|id| frozen.contains(id.as_str())), "{frozen}");
    daemon.line_with(&["ALARM"]);
    let mut client = Client::greeted(daemon.address);
    for _ in 0..20 {
        client.deliver("a@example.net", &["b@example.org"], "Subject: fine\r\n\r\n");
    }
    backend.wait_for(20);
    daemon.until("the rest delivered", |daemon| daemon.ledger().queued == 0);
    let ledger = daemon.ledger();
    assert_eq!((ledger.held, ledger.delivered), (1, 20));
    assert!(backend.mails().iter().all(|mail| !mail.text().contains("X-Poison")));
    // It stays frozen.
    assert!(daemon.stop().success());
    daemon.start_again();
    assert_eq!(daemon.ledger().held, 1);
    assert!(daemon.stop().success());
}
