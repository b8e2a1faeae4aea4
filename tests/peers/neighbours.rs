//! The peers among themselves: what the other tests rely on when they put ours in between.

use super::{Peer, Software, Tool, run_tool, try_tool};

const MAILS: usize = 20;

/// `from` relays what a client gives it to `to`, which keeps it.
fn cross(from: Software, to: Software) {
    let mut receiver = Peer::start(to, "there.test", None, &[]);
    let sender = Peer::start(from, "here.test", Some(receiver.address()), &[]);
    let (count, address) = (MAILS.to_string(), sender.address().to_string());
    run_tool(
        Tool::SmtpSource,
        &["-m", &count, "-s", "4", "-f", "a@here.test", "-t", "b@there.test", &address],
    );
    let mails = receiver.wait_for_mails(MAILS);
    assert_eq!(mails.len(), MAILS);
    for mail in mails {
        let text = String::from_utf8_lossy(&mail).into_owned();
        let hops = text.lines().filter(|line| line.starts_with("Received: ")).count();
        assert_eq!(hops, 2, "{text}");
    }
    assert_eq!(sender.mails().len(), 0);
}

#[test]
fn postfix_sends_to_exim() {
    cross(Software::Postfix, Software::Exim);
}

#[test]
fn exim_sends_to_postfix() {
    cross(Software::Exim, Software::Postfix);
}

#[test]
fn a_receiver_refuses_what_is_not_its_own_and_comes_back_where_it_was() {
    for software in [Software::Postfix, Software::Exim] {
        let mut peer = Peer::start(software, "there.test", None, &[]);
        let address = peer.address();
        let port = address.port().to_string();
        let swaks = ["--server", "127.0.0.1", "--port", &port, "--from", "a@here.test"];
        let refused = try_tool(Tool::Swaks, &[&swaks[..], &["--to", "b@elsewhere.test"]].concat());
        let dialogue = refused.expect_err("an open relay");
        assert!(dialogue.contains("<** 55"), "{dialogue}");
        run_tool(Tool::Swaks, &[&swaks[..], &["--to", "b@there.test", "--tls"]].concat());
        peer.wait_for_mails(1);
        peer.start_again();
        assert_eq!((peer.address(), peer.mails().len()), (address, 1));
    }
}

#[test]
fn the_sink_keeps_count_and_the_finger_sees_tls() {
    let mut sink = Peer::start(Software::Sink, "there.test", None, &["-8"]);
    let address = sink.address().to_string();
    run_tool(Tool::SmtpSource, &["-m", "5", "-f", "a@here.test", "-t", "b@there.test", &address]);
    assert_eq!(sink.wait_for_mails(5).len(), 5);
    let peer = Peer::start(Software::Postfix, "there.test", None, &[]);
    let host = format!("[127.0.0.1]:{}", peer.address().port());
    let seen = run_tool(Tool::PosttlsFinger, &["-c", "-lmay", &host]);
    assert!(seen.contains("TLS connection established"), "{seen}");
}
