//! Real clients over a veth pair in native mode.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use ebpf_common::entry::Action;
use gate::{Gate, Table, monotonic_s};

use super::bed::{Bed, Lists, able, accept, bans, count, enter, listing, run, settings};
use crate::peers::{Peer, Software, Tool, run_tool};

/// A bed whose client is listed for the answer, filter attached.
fn answered() -> (Bed, Gate) {
    let bed = Bed::new();
    let mut gate = Gate::load(None).expect("loaded");
    Lists::default()
        .add(Table::Hosts4, "10.77.0.2/32", Action::Answer)
        .add(Table::Hosts6, "fd77::/64", Action::Answer)
        .swap(&mut gate);
    gate.attach(&settings(&["rp0"], Action::Answer)).expect("attached");
    accept(&gate, 3600);
    assert_eq!(gate.status(None).expect("status").attached, [("rp0".to_owned(), true)]);
    (bed, gate)
}

/// Connects, reads to the end, says QUIT if asked to; what was read.
pub(super) fn hear(server: &str, quit: bool) -> std::io::Result<String> {
    let server: IpAddr = server.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&(server, 25).into(), Duration::from_secs(30))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut first = [0; 159];
    stream.read_exact(&mut first)?;
    if quit {
        stream.write_all(b"QUIT\r\n")?;
    }
    let mut text = first.to_vec();
    stream.read_to_end(&mut text)?;
    Ok(String::from_utf8(text).expect("ASCII"))
}

pub(super) fn in_client<T: Send>(bed: &Bed, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(&bed.names.client);
            work()
        });
        thread.join().expect("the client ends well")
    })
}

#[test]
fn ten_thousand_clients_read_the_whole_line() {
    if !able() {
        return;
    }
    let (bed, gate) = answered();
    let whole = in_client(&bed, || {
        (0..10_000_u32)
            .filter(|n| {
                let (server, address) = if n % 2 == 0 {
                    ("10.77.0.1", "10.77.0.2")
                } else {
                    ("fd77::1", "fd77:0000:0000:0000:0000:0000:0000:0002")
                };
                let line = hear(server, n % 3 == 0).expect("answered");
                line.starts_with(&format!("554 5.7.1 [{address}] "))
                    && line.contains("listed by Example; see https://mx.example.net/why")
                    && line.ends_with(" (id 1234ABCD)\r\n")
            })
            .count()
    });
    assert_eq!(whole, 10_000);
    assert_eq!(count(&gate, "answered"), 10_000);
    // A client that retransmits is answered again; none may be missing.
    assert!(count(&gate, "refused") >= 10_000);
    assert!(count(&gate, "finished") >= 10_000);
    assert_eq!((count(&gate, "no_way"), count(&gate, "no_room")), (0, 0));
}

#[test]
fn smtplib_and_swaks_report_the_reason() {
    if !able() {
        return;
    }
    let (bed, _gate) = answered();
    for server in ["10.77.0.1", "fd77::1"] {
        let program = format!(
            "import smtplib\ntry:\n smtplib.SMTP('{server}', 25, timeout=30)\n print('taken')\n\
             except smtplib.SMTPConnectError as e:\n print(e.smtp_code, e.smtp_error)\n"
        );
        let (_, text) = bed.client("python3", &["-c", &program]);
        assert!(text.starts_with("554 b'5.7.1 [") && text.contains("listed by Example"), "{text}");
    }
    // Debian's swaks speaks IPv6 only with one more package.
    let arguments = ["--to", "a@example.net", "--timeout", "30", "--server", "10.77.0.1:25"];
    let (taken, text) = bed.client("swaks", &arguments);
    assert!(!taken, "{text}");
    assert!(text.contains("<** 554 5.7.1 [") && text.contains("(id 1234ABCD)"), "{text}");
}

/// A mail server's queue, not a library: its log has the line as it was read.
#[test]
fn a_postfix_logs_the_whole_line_and_keeps_its_mail() {
    if !able() {
        return;
    }
    let (bed, gate) = answered();
    for (server, client) in
        [("10.77.0.1:25", "10.77.0.2"), ("[fd77::1]:25", "fd77:0000:0000:0000:0000:0000:0000:0002")]
    {
        let said = in_client(&bed, || {
            let relay = Some(server.parse().expect("an address"));
            let both = ["inet_protocols=all"];
            let peer = Peer::start(Software::Postfix, "here.test", relay, &both);
            let address = peer.address().to_string();
            let mail = ["-m", "1", "-f", "a@here.test", "-t", "b@example.org", &address];
            run_tool(Tool::SmtpSource, &mail);
            loop {
                let log = peer.log();
                if let Some(line) = log.lines().find(|line| line.contains("status=")) {
                    return line.to_owned();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        assert!(said.contains("status=deferred"), "{said}");
        assert!(said.contains(&format!("refused to talk to me: 554 5.7.1 [{client}] ")), "{said}");
        let why = "listed by Example; see https://mx.example.net/why";
        assert!(said.contains(why) && said.contains("(id 1234ABCD)"), "{said}");
    }
    assert!(count(&gate, "finished") >= 2);
}

#[test]
fn every_octet_on_the_wire_has_a_right_checksum() {
    if !able() {
        return;
    }
    let (bed, _gate) = answered();
    let mut capture = Command::new("ip")
        .args(["netns", "exec", &bed.names.client, "tcpdump", "-i", "rp1", "-vvn", "-l", "tcp"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tcpdump is there");
    let mut said = std::io::BufReader::new(capture.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("listening on") {
        line.clear();
        std::io::BufRead::read_line(&mut said, &mut line).expect("tcpdump starts");
    }
    in_client(&bed, || {
        for server in ["10.77.0.1", "fd77::1"] {
            hear(server, true).expect("answered");
        }
    });
    // The last packet of a session is the filter's acknowledgement of the FIN.
    let mut out = capture.stdout.take().expect("piped");
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while text.matches(".25 > ").count() < 8 {
        let bytes = out.read(&mut buffer).expect("tcpdump runs");
        text.push_str(&String::from_utf8_lossy(&buffer[..bytes]));
    }
    capture.kill().expect("ours");
    capture.wait().expect("ended");
    let ours: Vec<&str> = text.lines().filter(|l| l.contains(".25 > ")).collect();
    assert!(ours.iter().all(|l| l.contains("(correct)")), "{text}");
}

#[test]
fn the_answer_stands_down_while_nobody_accepts() {
    if !able() {
        return;
    }
    let (bed, gate) = answered();
    let listener = TcpListener::bind("10.77.0.1:25").expect("free");
    let said = accept(&gate, 3600);
    // 0, not this second: the filter's clock may be a tick behind.
    said.until(0).expect("withdrawn");
    let accepted = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            enter(&bed.names.client);
            TcpStream::connect("10.77.0.1:25").map(drop)
        });
        let accepted = listener.accept().expect("the stack hears the client").1;
        client.join().expect("ended").expect("connected");
        accepted
    });
    assert_eq!(accepted.ip().to_string(), "10.77.0.2");
    assert!(count(&gate, "stood_down") >= 1);
    said.until(monotonic_s() + 60).expect("accepting again");
    let line = in_client(&bed, || hear("10.77.0.1", false).expect("answered"));
    assert!(line.starts_with("554 "), "{line}");
}

#[test]
fn a_session_that_was_open_before_the_ban_stays() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut gate = Gate::load(None).expect("loaded");
    gate.attach(&settings(&["rp0"], Action::Drop)).expect("attached");
    accept(&gate, 3600);
    let listener = TcpListener::bind("10.77.0.1:25").expect("free");
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            enter(&bed.names.client);
            TcpStream::connect("10.77.0.1:25").expect("not listed yet")
        });
        let (mut server, _) = listener.accept().expect("accepted");
        let mut client = client.join().expect("ended");
        for action in [Action::Answer, Action::Drop] {
            let mut ban = listing(action);
            ban.expires_s = monotonic_s() + 600;
            bans(&gate).put("10.77.0.2".parse().expect("an address"), &ban).expect("banned");
            for _ in 0..100 {
                client.write_all(b"0123456789").expect("open");
                let mut ten = [0; 10];
                server.read_exact(&mut ten).expect("open");
                server.write_all(&ten).expect("open");
                client.read_exact(&mut ten).expect("open");
                assert_eq!(&ten, b"0123456789");
            }
        }
        drop((client, server));
    });
    assert_eq!(count(&gate, "syn"), 1, "nothing but the first SYN was judged");
}

#[test]
fn a_ban_that_lapses_between_syn_and_ack_ends_in_a_reset() {
    if !able() {
        return;
    }
    let (bed, mut gate) = answered();
    // The client's ACK is held back by its own firewall until the listing is gone.
    let client = &bed.names.client;
    let rules = "table ip hold { chain out { type filter hook output priority 0; \
                 tcp dport 25 tcp flags & (syn|ack) == ack drop; }; }";
    let file = std::env::temp_dir().join(format!("{client}.nft"));
    std::fs::write(&file, rules).expect("written");
    run(&format!("ip netns exec {client} nft -f {}", file.display()));
    let error = in_client(&bed, || {
        let mut stream = TcpStream::connect("10.77.0.1:25").expect("answered");
        Lists::default().swap(&mut gate);
        run("nft delete table ip hold");
        stream.write_all(b"x").expect("queued");
        stream.read(&mut [0]).expect_err("reset")
    });
    let _ = std::fs::remove_file(&file);
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(count(&gate, "lapsed") >= 1);
}

#[test]
fn the_way_back_is_the_routing_tables() {
    if !able() {
        return;
    }
    let (bed, gate) = answered();
    let server = &bed.names.server;
    // Answers to the client shall leave elsewhere: then the stack has to do it.
    run(&format!("ip -n {server} link add rp8 type veth peer name rp9"));
    run(&format!("ip -n {server} link set rp8 up"));
    run(&format!("ip -n {server} link set rp9 up"));
    run(&format!("ip -n {server} route add 10.77.0.2/32 dev rp8"));
    let refused = in_client(&bed, || {
        let server = "10.77.0.1:25".parse().expect("an address");
        TcpStream::connect_timeout(&server, Duration::from_millis(300)).is_err()
    });
    assert!(refused);
    assert!(count(&gate, "no_way") >= 1);
    assert_eq!(count(&gate, "refused"), 0);
}
