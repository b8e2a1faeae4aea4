//! The dialogues.

use super::*;

const ALL: &[&str] = &["PIPELINING", "SIZE 100000", "8BITMIME", "CHUNKING", "DSN", "SMTPUTF8"];
const PIPE: &[&str] = &["PIPELINING"];

#[test]
fn one_command_at_a_time() {
    ready(&[]).play(
        "! mail a@b c@d,e@f
         C MAIL FROM:<a@b>
         S 250 ok
         C RCPT TO:<c@d>
         S 250 ok
         C RCPT TO:<e@f>
         S 550 5.1.1 nobody
         > 1 perm Rcpt 550 5.1.1 nobody
         C DATA
         S 354 go
         > content
         ! content Subject: x\\r\\n\\r\\n.dot\\nbare
         ! done
         C Subject: x
         C
         C ..dot
         C bare
         C .
         S 250 2.0.0 queued as 7
         > 0 delivered 250 2.0.0 queued as 7
         > end
         > ready
         ! mail -- c@d
         C MAIL FROM:<>
         S 250 ok
         C RCPT TO:<c@d>
         S 250 ok
         C DATA
         S 354 go
         > content
         ! done
         C .
         S 250 ok
         > 0 delivered 250 ok
         > end
         > ready
         ! quit
         C QUIT
         S 221 bye
         > closed",
    );
}

#[test]
fn pipelined_with_data() {
    ready(PIPE).play(
        "! mail a@b c@d,e@f
         C MAIL FROM:<a@b>
         C RCPT TO:<c@d>
         C RCPT TO:<e@f>
         C DATA
         M 250 ok|250 ok|451 4.7.1 grey|354 go|
         > 1 temp Rcpt 451 4.7.1 grey
         > content
         ! content hi
         ! done
         C hi
         C .
         S 250 ok
         > 0 delivered 250 ok
         > end
         > ready",
    );
}

#[test]
fn chunks_and_parameters() {
    let mut play = ready(ALL);
    play.play(
        "! mail a@b c@d dsn 8bit
         C MAIL FROM:<a@b> SIZE=9 BODY=8BITMIME RET=HDRS ENVID=id+2B1
         C RCPT TO:<c@d> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c@d
         M 250 ok|250 ok|
         > content
         ! content .a\\nb\\r\\n
         ! done
         C BDAT 7 LAST
         C .a
         C b
         S 250 ok
         > 0 delivered 250 ok
         > end
         > ready
         ! mail a@b c@d utf8
         C MAIL FROM:<a@b> SIZE=9 SMTPUTF8
         C RCPT TO:<c@d>
         M 250 ok|250 ok|
         > content
         ! done
         C BDAT 0 LAST
         S 552 5.3.4 too big
         > 0 perm Dot 552 5.3.4 too big
         > end
         C RSET
         S 250 ok
         > ready",
    );
    assert_eq!(play.client.messages(), 2);
}

/// A message that turns out longer than declared goes on in further chunks, each answered first.
#[test]
fn chunks_wait_for_each_other() {
    let script = "! mail a@b c@d
         C MAIL FROM:<a@b>
         C RCPT TO:<c@d>
         M 250 ok|250 ok|
         > content
         ! fill 65536
         ! full
         C BDAT 65536";
    let mut play = ready(&["PIPELINING", "CHUNKING"]);
    play.play(&format!("{script}\n! full"));
    assert_eq!(play.client.deadline(), Some(play.now_us + 180 * SECOND));
    play.play(
        "S 250 ok
         > content
         ! content more\\r\\n
         ! done
         C BDAT 6 LAST
         C more
         S 250 ok
         > 0 delivered 250 ok
         > end
         > ready",
    );
    // Ended while a chunk is under way.
    let mut play = ready(&["PIPELINING", "CHUNKING"]);
    play.play(&format!("{script}\n! done\nS 250 ok\nC BDAT 0 LAST"));
    // Refused in the middle.
    let mut play = ready(&["PIPELINING", "CHUNKING"]);
    play.play(&format!(
        "{script}\nS 452 full\n> 0 temp Content 452 full\n> end\nC RSET\nS 250 ok\n> ready"
    ));
}

/// Binary content goes out untouched; long text goes by DATA though BDAT is offered.
#[test]
fn binary_and_long() {
    let offers = &["CHUNKING", "BINARYMIME", "PIPELINING"];
    ready(offers).play(
        "! mail a@b c@d binary
         C MAIL FROM:<a@b> BODY=BINARYMIME
         C RCPT TO:<c@d>
         M 250 ok|250 ok|
         > content
         ! content .\\n\\ra\\r\\n
         ! done
         C BDAT 6 LAST
         C .\\n\\ra
         S 250 ok
         > 0 delivered 250 ok
         > end
         > ready
         ! mail a@b c@d size=65537
         C MAIL FROM:<a@b>
         C RCPT TO:<c@d>
         C DATA",
    );
}

#[test]
fn what_the_server_does_not_offer() {
    ready(&["SIZE 8"]).play(
        "! mail a@b c@d,e@f
         > 0 perm Offer 552 5.3.4 the message is larger than the next hop takes
         > 1 perm Offer 552 5.3.4 the message is larger than the next hop takes
         > end
         > ready
         ! mail a@b c@d size=1 utf8
         > 0 perm Offer 550 5.6.7 the next hop does not offer SMTPUTF8
         > end
         > ready
         ! mail a@b c\u{e4}@d size=1
         > 0 perm Offer 550 5.6.7 the next hop does not offer SMTPUTF8
         > end
         > ready
         ! mail a@b c@d size=1 binary
         > 0 perm Offer 554 5.6.1 the next hop does not offer BINARYMIME
         > end
         > ready
         ! mail a@b c@d size=1 8bit
         > 0 needs 8BITMIME
         > end
         > ready",
    );
    let settings = Settings { eight_bit: EightBit::Send, ..Settings::new("relay.example") };
    ready_with(settings, &["SIZE"]).play(
        "! mail a@b c@d size=1 8bit
         C MAIL FROM:<a@b> SIZE=1",
    );
}

#[test]
fn greetings() {
    let start = "! connected\n";
    for (script, end) in [
        ("S 554 no", "C QUIT\n> closed Greeting5xx Greeting next"),
        ("S 421 busy", "C QUIT\n> closed Greeting4xx Greeting next"),
        ("S 450 busy", "C QUIT\n> closed Greeting4xx Greeting next"),
        ("S 250 odd", "> closed Protocol Greeting next"),
        ("S SSH-2.0-OpenSSH", "> closed Protocol Greeting next"),
        ("s 220 x\\n", "> closed Protocol Greeting next"),
        ("M 220 hi|250 early|", "> closed Protocol Hello next"),
        ("M 220-hi|221 hi|", "> closed Protocol Greeting next"),
        ("s 22\n! eof", "> closed LostConnection Greeting next"),
        ("! eof", "> closed LostConnection Greeting next"),
        ("! wait 300", "> closed Timeout Greeting next"),
        ("S 220 x\nC EHLO relay.example\nS 421 x", "> closed Closing Hello next"),
        ("S 220 x\nC EHLO relay.example\nS 451 x", "C QUIT\n> closed Greeting4xx Hello next"),
        ("S 220 x\nC EHLO relay.example\n! wait 300", "> closed Timeout Hello next"),
        ("S 220 x\nC EHLO relay.example\nS 500 x\nC HELO relay.example\nS 250 x", "> ready"),
        (
            "S 220 x\nC EHLO relay.example\nS 502 x\nC HELO relay.example\nS 504 x",
            "C QUIT\n> closed Greeting5xx Hello next",
        ),
        // A slow server gets no more time by sending single lines.
        ("M 220-a|220-b|\n! wait 300", "> closed Timeout Greeting next"),
    ] {
        play(TlsPolicy::May, &format!("{start}{script}\n{end}"));
    }
    play(TlsPolicy::May, "! refused\n> closed Refused Connect next\n! forever");
    play(TlsPolicy::May, "! wait 30\n> closed Timeout Connect next");
}

#[test]
fn tls() {
    let start = "! connected\nS 220 x\nC EHLO relay.example\n";
    let offered = format!("{start}M 250-x|250-PIPELINING|250 STARTTLS|\n");
    let again = "! secure\nC EHLO relay.example\nM 250-x|250-SIZE|250 STARTTLS|\n> ready";
    let may = TlsPolicy::May;
    play(may, &format!("{offered}C STARTTLS\nS 220 go\n> tls 0\n{again}"));
    // Replies injected behind the 220 are thrown away, and what was offered in clear is void.
    let injected = "C STARTTLS\nM 220 go|250-x|250 SMTPUTF8|\n> tls 21\n";
    play(may, &format!("{offered}{injected}{again}"));
    play(may, &format!("{offered}C STARTTLS\nS 454 no\n> ready"));
    play(may, &format!("{offered}C STARTTLS\nS 250 no\n> closed Protocol Tls next clear"));
    let begun = format!("{offered}C STARTTLS\nS 220 go\n> tls 0\n");
    play(may, &format!("{begun}! insecure\n> closed TlsFailed Tls next clear"));
    play(may, &format!("{begun}! eof\n> closed LostConnection Tls next clear"));
    play(may, &format!("{begun}! wait 60\n> closed Timeout Tls next clear"));
    play(TlsPolicy::Never, &format!("{offered}> ready"));

    let must = TlsPolicy::Must;
    play(must, &format!("{start}S 250 x\nC QUIT\n> closed TlsFailed Hello next"));
    play(must, &format!("{start}S 500 x\nC QUIT\n> closed TlsFailed Hello next"));
    play(must, &format!("{offered}C STARTTLS\nS 454 no\nC QUIT\n> closed TlsFailed Tls next"));
    play(must, &format!("{begun}! insecure\n> closed TlsFailed Tls next"));
    play(must, &format!("{begun}{again}"));
}

/// Refusals at each stage, with and without pipelining.
#[test]
fn refusals() {
    let sent = "! mail a@b c@d,e@f\nC MAIL FROM:<a@b>\n";
    let piped = "C RCPT TO:<c@d>\nC RCPT TO:<e@f>\nC DATA\n";
    let reset = "> end\nC RSET\nS 250 ok\n> ready";
    let both = |what: &str| format!("> 0 {what}\n> 1 {what}\n");
    for (script, middle, end) in [
        ("S 550 x", both("perm Mail 550 x"), reset),
        ("S 450 x", both("temp Mail 450 x"), reset),
        (
            "S 250 x\nC RCPT TO:<c@d>\nS 550 x\n> 0 perm Rcpt 550 x\nC RCPT TO:<e@f>\nS 450 x",
            "> 1 temp Rcpt 450 x\n".into(),
            reset,
        ),
        (
            "S 250 x\nC RCPT TO:<c@d>\nS 250 x\nC RCPT TO:<e@f>\nS 250 x\nC DATA\nS 451 x",
            both("temp Data 451 x"),
            reset,
        ),
        ("S 421 x", both("not-tried Closing Mail next"), "> end\n> closed Closing Mail next"),
        ("S 354 x", both("not-tried Protocol Mail next"), "> end\n> closed Protocol Mail next"),
        (
            "! eof",
            both("not-tried LostConnection Mail next"),
            "> end\n> closed LostConnection Mail next",
        ),
        ("! wait 300", both("not-tried Timeout Mail next"), "> end\n> closed Timeout Mail next"),
    ] {
        ready(&[]).play(&format!("{sent}{script}\n{middle}{end}"));
    }
    for (script, end) in [
        // All refused: 503 or 554 to DATA, as RFC 2920 has it, or 354 and a lone dot.
        ("M 250 x|550 x|550 x|554 none|", reset.to_owned()),
        ("M 250 x|550 x|550 x|354 go|", format!("C .\nS 554 none\n{reset}")),
        ("M 250 x|550 x|550 x|354 go|", format!("C .\nS 250 odd\n{reset}")),
        (
            "M 250 x|550 x|550 x|354 go|",
            "C .\n! eof\n> end\n> closed LostConnection Data next".into(),
        ),
    ] {
        let outcome = "> 0 perm Rcpt 550 x\n> 1 perm Rcpt 550 x\n";
        ready(PIPE).play(&format!("{sent}{piped}{script}\n{outcome}{end}"));
    }
    let outcome = "> 0 perm Mail 550 x\n> 1 perm Mail 550 x\n";
    ready(PIPE).play(&format!("{sent}{piped}M 550 x|503 x|503 x|503 x|\n{outcome}{reset}"));
    // A server that forgets its refusal must not be sent an empty message.
    ready(PIPE).play(&format!(
        "{sent}{piped}M 550 x|250 x|503 x|354 x|\n{outcome}> end\n> closed Protocol Data next"
    ));
    let not = "> 0 not-tried Protocol Data next\n> 1 not-tried Protocol Data next\n";
    ready(PIPE).play(&format!(
        "{sent}{piped}M 250 x|250 x|250 x|250 x|\n{not}> end\n> closed Protocol Data next"
    ));
}

#[test]
fn too_many_recipients() {
    let sent = "! mail a@b c@d,e@f\nC MAIL FROM:<a@b>\nC RCPT TO:<c@d>\nC RCPT TO:<e@f>\nC DATA\n";
    for (reply, outcome) in [
        ("452 4.5.3 x", "temp Rcpt too-many 452 4.5.3 x"),
        ("452 x", "temp Rcpt too-many 452 x"),
        ("552 x", "temp Rcpt too-many 552 x"),
        ("552 5.5.3 x", "temp Rcpt too-many 552 5.5.3 x"),
        ("552 5.2.2 full", "perm Rcpt 552 5.2.2 full"),
        ("452 4.2.2 full", "temp Rcpt 452 4.2.2 full"),
    ] {
        ready(PIPE).play(&format!("{sent}M 250 x|250 x|{reply}|354 x|\n> 1 {outcome}\n> content"));
    }
    let mut play = ready(&["LIMITS RCPTMAX=1"]);
    assert_eq!(play.client.recipients_max(), 1);
    let two = envelope(&["a@b", "c@d,e@f"]);
    assert_eq!(play.client.submit(SECOND, two), Err(SubmitError::TooManyRecipients));
    play.play("! mail a@b c@d\nC MAIL FROM:<a@b>");
    let one = envelope(&["a@b", "c@d"]);
    assert_eq!(play.client.submit(SECOND, one), Err(SubmitError::NotReady));
}

/// Content on its way, and the reply after the dot lost in each way.
#[test]
fn content_and_dot() {
    let go = "! mail a@b c@d\nC MAIL FROM:<a@b>\nC RCPT TO:<c@d>\nC DATA\n\
              M 250 x|250 x|354 x|\n> content\n! content hi\\r\\n\n";
    for (script, outcome, closed) in [
        ("C hi\nS 250 early", "not-tried Protocol Content next", "Protocol Content next"),
        ("C hi\nS 552 big", "perm Content 552 big", "Protocol Content next"),
        ("C hi\nS 421 x", "temp Content 421 x", "Closing Content next"),
        ("C hi\n! eof", "not-tried LostConnection Content next", "LostConnection Content next"),
        ("C hi\n! abandon", "not-tried Local Content", "Local Content"),
        ("C hi\n! wait 180", "not-tried Local Content", "Local Content"),
        ("! done\nC hi\nC .\n! eof", "unknown LostConnection Dot", "LostConnection Dot"),
        ("! done\nC hi\nC .\ns 25\n! eof", "unknown LostConnection Dot", "LostConnection Dot"),
        ("! done\nC hi\nC .\n! wait 600", "unknown Timeout Dot", "Timeout Dot"),
        ("! done\nC hi\nC .\nS 354 x", "unknown Protocol Dot", "Protocol Dot"),
        ("! done\nC hi\nC .\nS what", "unknown Protocol Dot", "Protocol Dot"),
        ("! done\nC hi\nC .\n! abandon", "unknown Local Dot", "Local Dot"),
        ("! done\nC hi\nC .\nS 421 x", "temp Dot 421 x", "Closing Idle next"),
    ] {
        ready(PIPE).play(&format!("{go}{script}\n> 0 {outcome}\n> end\n> closed {closed}"));
    }
    for (code, outcome) in [("451", "temp Dot 451 x"), ("550", "perm Dot 550 x")] {
        let script = format!("{go}! done\nC hi\nC .\nS {code} x\n> 0 {outcome}\n> end\n> ready");
        ready(PIPE).play(&script);
    }
}

/// A 250 that arrives while the dot is still ours answers nothing.
#[test]
fn a_reply_cannot_overtake_its_command() {
    let mut play = ready(PIPE);
    play.play(
        "! mail a@b c@d\nC MAIL FROM:<a@b>\nC RCPT TO:<c@d>\nC DATA
         M 250 x|250 x|354 x|\n> content",
    );
    assert_eq!(play.client.put_content(play.now_us, b"hi\r\n"), 4);
    play.client.end_content(play.now_us);
    play.client.receive(play.now_us, b"250 delivered\r\n");
    assert!(play.client.output().is_empty(), "the dot must not leave any more");
    play.play("> 0 not-tried Protocol Content next\n> end\n> closed Protocol Content next");
}

#[test]
fn between_messages() {
    let message = "! mail a@b c@d\nC MAIL FROM:<a@b>\nC RCPT TO:<c@d>\nC DATA\n\
                   M 250 x|250 x|354 x|\n> content\n! done\nC .\n\
                   S 250 x\n> 0 delivered 250 x\n> end\n";
    let closed = "> closed LostConnection Mail next stale";
    let stale = "C MAIL FROM:<a@b>\nC RCPT TO:<c@d>\nC DATA\n! eof\n\
                 > 0 not-tried LostConnection Mail next stale\n> end\n";
    ready(PIPE).play(&format!("{message}> ready\n! mail a@b c@d\n{stale}{closed}"));
    ready(PIPE).play(&format!("{message}> ready\nS 421 idle\n> closed Closing Idle next"));
    ready(PIPE).play(&format!("{message}> ready\nS 250 odd\n> closed Protocol Idle next"));
    ready(PIPE).play(&format!("{message}> ready\n! eof\n> closed LostConnection Idle next"));
    ready(PIPE).play(&format!("{message}> ready\n! wait 10\nC QUIT\n! wait 5\n> closed"));
    ready(PIPE).play(&format!("{message}> ready\n! quit\nC QUIT\n! eof\n> closed\n! forever"));
    let settings = Settings { messages_max: 1, ..Settings::new("relay.example") };
    ready_with(settings, PIPE).play(&format!("{message}C QUIT\nS 221 x\n> closed"));
    let limits = &["PIPELINING", "LIMITS MAILMAX=1"];
    ready(limits).play(&format!("{message}C QUIT\nS 221 x\n> closed"));
}

/// 1,000 recipients go out in bounded portions.
#[test]
fn many_recipients_are_written_as_the_output_drains() {
    let settings = Settings { recipients_max: 1000, ..Settings::new("relay.example") };
    let mut play = ready_with(settings, PIPE);
    let names: Vec<String> = (0..1000).map(|n| format!("{}{n}@d", "x".repeat(60))).collect();
    play.client.submit(SECOND, envelope(&["a@b", &names.join(",")])).unwrap();
    let mut most = 0;
    while !play.client.output().is_empty() {
        most = most.max(play.client.output().len());
        play.sent.extend_from_slice(play.client.output());
        let n = play.client.output().len();
        play.client.consume(SECOND, n.min(1000));
        let all = play.sent.len();
        play.sent.truncate(all - (n - n.min(1000)));
    }
    assert!(most < 2 * limits::COMMANDS_AHEAD, "{most}");
    let lines = play.sent.windows(2).filter(|w| w == b"\r\n").count();
    assert_eq!(lines, 1 + 1000 + 1);
    assert!(play.sent.ends_with(b"DATA\r\n"));
}

/// A short message costs 4 KiB of output at rest, no more.
#[test]
fn an_idle_connection_is_small() {
    let mut play = ready(&[]);
    play.play("! mail a@b c@d\nC MAIL FROM:<a@b>\nS 250 x\nC RCPT TO:<c@d>\nS 250 x\nC DATA\n");
    play.play("S 354 x\n> content");
    let mut left = 1_000_000;
    while left > 0 {
        assert!(play.client.want_content());
        left -= play.client.put_content(SECOND, &vec![b'x'; left.min(100_000)]);
        assert!(play.client.output().len() <= limits::CONTENT_AHEAD + 2 * limits::PIECE_MAX);
        let n = play.client.output().len();
        play.client.consume(SECOND, n);
    }
    play.client.end_content(SECOND);
    let n = play.client.output().len();
    play.client.consume(SECOND, n);
    play.play("S 250 x\n> 0 delivered 250 x\n> end\n> ready\n! quit\nC QUIT");
    assert!(play.client.out.capacity() <= limits::IDLE_CAPACITY_MAX);
    assert!(size_of::<Client>() <= 512, "{}", size_of::<Client>());
}
