//! TLS, chunks, refusals and files of a source, against a small server of blocking threads.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use mxbench::source;
use mxbench::source::mail::Size;
use mxbench::source::options::{Options, Pace, Refused, Starttls};
use mxbench::source::report::Summary;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The address whose connections hear 554.
const LISTED: Ipv4Addr = Ipv4Addr::new(127, 0, 9, 9);

/// A server that offers STARTTLS and CHUNKING, knows no `nobody` and nothing above 1 GiB.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["mx.example.org".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config =
        ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    let config = Arc::new(config);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            thread::spawn(move || {
                let _ = serve(stream, config);
            });
        }
    });
    address
}

fn serve(mut stream: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    if stream.peer_addr()?.ip() == LISTED {
        return stream.write_all(b"554 5.7.1 listed\r\n");
    }
    stream.write_all(b"220 test\r\n")?;
    let mut plain = BufReader::new(stream.try_clone()?);
    if dialogue(&mut plain, &mut stream, true)? {
        let session = ServerConnection::new(config).map_err(std::io::Error::other)?;
        let tls = StreamOwned::new(session, stream);
        return over_tls(tls);
    }
    Ok(())
}

fn over_tls(mut tls: StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<()> {
    let mut line = Vec::new();
    let mut octet = [0];
    // Reads and writes share one stream: lines octet by octet.
    loop {
        line.clear();
        while !line.ends_with(b"\n") {
            tls.read_exact(&mut octet)?;
            line.push(octet[0]);
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        if let Some(octets) = text.strip_prefix("BDAT ") {
            let octets = octets.split(' ').next().unwrap().parse().unwrap();
            tls.read_exact(&mut vec![0; octets])?;
            tls.write_all(b"250 taken\r\n")?;
        } else if text == "DATA\r\n" {
            tls.write_all(b"354 go on\r\n")?;
            let mut content = b"\r\n".to_vec();
            while !content.ends_with(b"\r\n.\r\n") {
                tls.read_exact(&mut octet)?;
                content.push(octet[0]);
            }
            tls.write_all(b"250 taken\r\n")?;
        } else {
            tls.write_all(reply(&text, false).as_bytes())?;
            if text == "QUIT\r\n" {
                tls.conn.send_close_notify();
                return tls.flush();
            }
        }
    }
}

/// True when STARTTLS was said.
fn dialogue(input: &mut impl BufRead, out: &mut impl Write, plain: bool) -> std::io::Result<bool> {
    let mut line = String::new();
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        if let Some(octets) = line.strip_prefix("BDAT ") {
            let octets = octets.split(' ').next().unwrap().parse().unwrap();
            input.read_exact(&mut vec![0; octets])?;
            out.write_all(b"250 taken\r\n")?;
        } else if line == "DATA\r\n" {
            out.write_all(b"354 go on\r\n")?;
            let mut text = String::new();
            while text != ".\r\n" {
                text.clear();
                input.read_line(&mut text)?;
            }
            out.write_all(b"250 taken\r\n")?;
        } else {
            out.write_all(reply(&line, plain).as_bytes())?;
            match &*line {
                "STARTTLS\r\n" => return Ok(true),
                "QUIT\r\n" => return Ok(false),
                _ => {}
            }
        }
    }
}

fn reply(line: &str, plain: bool) -> String {
    let starttls = if plain { "250-STARTTLS\r\n" } else { "" };
    let text = match line.split([' ', '\r']).next().unwrap() {
        "EHLO" => {
            return format!(
                "250-test\r\n{starttls}250-PIPELINING\r\n250-CHUNKING\r\n250 SIZE 9\r\n"
            );
        }
        "STARTTLS" if plain => "220 go on",
        "QUIT" => "221 bye",
        "MAIL" if line.contains("SIZE=") => "552 5.3.4 too large",
        "RCPT" if line.contains("nobody") => "550 5.1.1 unknown",
        "MAIL" | "RCPT" | "RSET" => "250 well",
        _ => "500 what",
    };
    format!("{text}\r\n")
}

fn run(change: impl Fn(&mut Options)) -> Summary {
    let mut options = Options::new(server());
    options.pace = Pace::Total(60);
    options.sessions = 4;
    options.messages_per_connection = 3;
    change(&mut options);
    let (stop, _keep) = nix::unistd::pipe().unwrap();
    source::run(options, stop, &mut |_| {}).unwrap()
}

fn starttls(
    share: f64,
    resumed_share: f64,
    version: &'static rustls::SupportedProtocolVersion,
) -> Starttls {
    Starttls { share, resumed_share, version: Some(version) }
}

#[test]
fn a_share_of_the_sessions_is_encrypted_and_a_share_of_those_resumed() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let all = run(|options| options.starttls = Some(starttls(1.0, 0.0, version)));
        assert_eq!((all.acked, all.failures, all.refused), (60, 0, 0), "{all:?}");
        assert_eq!((all.tls_handshakes, all.tls_resumed), (all.connections, 0), "{all:?}");
        assert_eq!(all.phases["starttls"].count, all.tls_handshakes);
        let again = run(|options| options.starttls = Some(starttls(1.0, 1.0, version)));
        assert_eq!((again.acked, again.failures), (60, 0), "{again:?}");
        // The first connection of each slot has nothing to resume, and a slot is free again only
        // after its connection's last completion: a few more slots than sessions are used.
        let fresh = again.tls_handshakes - again.tls_resumed;
        assert!((4..=10).contains(&fresh) && again.tls_handshakes >= 20, "{again:?}");
    }
    let some = run(|options| {
        options.starttls = Some(starttls(0.5, 0.5, &rustls::version::TLS13));
        options.messages_per_connection = 1;
    });
    assert_eq!((some.acked, some.failures), (60, 0), "{some:?}");
    assert!((10..50).contains(&some.tls_handshakes), "{some:?}");
    assert!(some.tls_resumed > 0 && some.tls_resumed < some.tls_handshakes, "{some:?}");
}

#[test]
fn large_messages_and_slow_sessions_are_encrypted_too() {
    let summary = run(|options| {
        options.starttls = Some(starttls(1.0, 0.0, &rustls::version::TLS13));
        options.pace = Pace::Total(4);
        options.size = Size::Fixed(700_000);
    });
    assert_eq!((summary.acked, summary.octets), (4, 4 * 700_000), "{summary:?}");
    let summary = run(|options| {
        options.starttls = Some(starttls(1.0, 0.0, &rustls::version::TLS13));
        options.pace = Pace::Total(2);
        options.size = Size::Fixed(400);
        options.slow = Some((2, 8000));
    });
    assert_eq!((summary.acked, summary.failures), (2, 0), "{summary:?}");
}

#[test]
fn chunks_carry_the_same_messages() {
    for (pipelining, tls) in [(true, false), (false, false), (true, true)] {
        let summary = run(|options| {
            options.chunking = true;
            options.pipelining = pipelining;
            options.recipients = 2;
            options.size = Size::Fixed(300_000);
            options.starttls = tls.then_some(starttls(1.0, 0.0, &rustls::version::TLS13));
        });
        assert_eq!((summary.acked, summary.failures, summary.refused), (60, 0, 0), "{summary:?}");
        assert_eq!(summary.octets, 60 * 300_000);
        assert_eq!(summary.phases["final_dot"].count, 60);
    }
}

#[test]
fn refusals_that_were_wished_for_are_no_errors() {
    for (pipelining, chunking) in [(true, false), (false, false), (true, true)] {
        let summary = run(|options| {
            options.pace = Pace::Total(300);
            options.pipelining = pipelining;
            options.chunking = chunking;
            options.refused = Refused {
                unknown_share: 0.3,
                unknown_to: "nobody%@example.org".to_owned(),
                oversized_share: 0.3,
                listed_share: 0.3,
                listed: Some(LISTED),
            };
        });
        let well = (summary.failures, summary.refused, summary.taken_wrongly);
        assert_eq!(well, (0, 0, 0), "{summary:?}");
        assert!(summary.refused_as_wished > 100 && summary.acked > 60, "{summary:?}");
        assert!(summary.unexpected.is_empty(), "{summary:?}");
    }
    let taken = run(|options| {
        options.refused.unknown_share = 0.5;
        options.refused.unknown_to = "somebody@example.org".to_owned();
    });
    assert_eq!((taken.acked, taken.refused_as_wished), (60, 0), "{taken:?}");
    assert!(taken.taken_wrongly > 10, "{taken:?}");
}

#[test]
fn a_folder_of_files_is_sent() {
    let folder = std::env::temp_dir().join(format!("mxbench-eml-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("one.eml"), "Subject: 1\n\n.dots\n..\n").unwrap();
    std::fs::write(folder.join("two.eml"), "Subject: 2\r\n\r\nno end of line").unwrap();
    std::fs::write(folder.join("other.txt"), "not this").unwrap();
    for chunking in [false, true] {
        let summary = run(|options| {
            options.eml = Some(folder.clone());
            options.chunking = chunking;
        });
        assert_eq!((summary.acked, summary.failures), (60, 0), "{summary:?}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
