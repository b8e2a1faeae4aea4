//! What one client may do, over all cores; who the client is behind a proxy; many idle clients.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::backend::{Backend, Manners};
use super::client::Client;
use super::programs::{self, Daemon, Running, Setup};
use super::refusals;

fn setup(backend: &Backend, limits: &str) -> Setup {
    Setup { limits: limits.to_owned(), ..Setup::new(backend.address) }
}

/// A daemon behind a proxy on this machine.
fn proxied(backend: &Backend, limits: &str) -> Setup {
    let mut setup = setup(backend, limits);
    setup.listener.push_str("proxy = \"require\"\nproxy_peers = [\"127.0.0.0/8\"]\n");
    setup
}

/// A connection that opens with these octets; what it hears first.
fn opened(address: SocketAddr, header: &[u8]) -> (Client, String) {
    let mut client = Client::connect_silent(address);
    client.send(header);
    let reply = client.reply();
    (client, reply)
}

#[test]
fn a_hundred_connections_at_once_leave_ten() {
    let backend = Backend::start(Manners::default());
    let limits = "connections_max = 10\nconnection_rate = \"off\"\nexempt_networks = []\n";
    let mut setup = setup(&backend, limits);
    setup.cores = 4;
    let mut daemon = Daemon::start("ten", setup);
    for round in 0..3 {
        let mut clients: Vec<Client> =
            (0..100).map(|_| Client::connect_silent(daemon.address)).collect();
        let replies: Vec<String> = clients.iter_mut().map(Client::reply).collect();
        let count = |start: &str| replies.iter().filter(|r| r.starts_with(start)).count();
        assert_eq!((count("220 "), count("421 4.7.0 ")), (10, 90), "round {round}");
        assert!(replies.iter().any(|r| r.contains("too many connections from your address")));
        drop(clients);
        daemon.until("all of them gone", |daemon| {
            let status = daemon.ask(&["status"]);
            let cores = status["cores"].as_array().expect("cores");
            cores.iter().all(|core| core["sessions"].as_u64() == Some(0))
        });
    }
    daemon.line_with(&["rejected connection", "too many connections from your address"]);
    assert!(daemon.stop().success());
}

#[test]
fn rates_are_one_for_all_cores() {
    let backend = Backend::start(Manners::default());
    let limits = "connection_rate = \"off\"\nmessage_rate = \"3 per day\"\n\
                  recipient_rate = \"7 per day\"\nexempt_networks = []\n";
    let mut daemon = Daemon::start("rates", setup(&backend, limits));
    let taken = (0..8)
        .filter(|_| {
            let mut client = Client::greeted(daemon.address);
            let reply = client.say("MAIL FROM:<a@example.net>");
            assert!(reply.starts_with("250") || reply.starts_with("451 4.7.1 "), "{reply}");
            reply.starts_with("250")
        })
        .count();
    assert_eq!(taken, 3);
    assert!(daemon.stop().success());
    let limits =
        "connection_rate = \"off\"\nrecipient_rate = \"7 per day\"\nexempt_networks = []\n";
    let mut daemon = Daemon::start("recipient-rate", setup(&backend, limits));
    let mut taken = 0;
    for _ in 0..5 {
        let mut client = Client::greeted(daemon.address);
        client.expect("MAIL FROM:<a@example.net>", "250");
        for n in 0..3 {
            let reply = client.say(&format!("RCPT TO:<u{n}@example.org>"));
            assert!(reply.starts_with("250") || reply.starts_with("451 4.7.1 "), "{reply}");
            taken += u32::from(reply.starts_with("250"));
        }
    }
    assert_eq!(taken, 7);
    assert!(daemon.stop().success());
    let limits = "connection_rate = \"5 per day\"\nexempt_networks = []\n";
    let mut daemon = Daemon::start("connection-rate", setup(&backend, limits));
    let replies: Vec<String> =
        (0..12).map(|_| Client::connect_silent(daemon.address).reply()).collect();
    assert_eq!(replies.iter().filter(|r| r.starts_with("220 ")).count(), 5, "{replies:?}");
    assert!(replies[11].starts_with("421 4.7.0 "), "{}", replies[11]);
    assert!(daemon.stop().success());
}

#[test]
fn exempt_networks_have_no_limits() {
    let backend = Backend::start(Manners::default());
    let limits = "connections_max = 1\nconnection_rate = \"1 per day\"\n\
                  message_rate = \"1 per day\"\nrecipient_rate = \"1 per day\"\n\
                  exempt_networks = [\"127.0.0.0/8\"]\n";
    let mut daemon = Daemon::start("exempt", setup(&backend, limits));
    let mut clients: Vec<Client> = (0..20).map(|_| Client::greeted(daemon.address)).collect();
    for client in &mut clients {
        client.expect("MAIL FROM:<a@example.net>", "250");
        client.expect("RCPT TO:<b@example.org>", "250");
    }
    drop(clients);
    assert!(daemon.stop().success());
}

#[test]
fn an_ipv6_client_is_its_64() {
    let backend = Backend::start(Manners::default());
    let limits = "connections_max = 3\nconnection_rate = \"off\"\nexempt_networks = []\n";
    let mut daemon = Daemon::start("sixtyfour", proxied(&backend, limits));
    let open = |client: &str| {
        let header = format!("PROXY TCP6 {client} 2001:db8::25 4711 25\r\n");
        opened(daemon.address, header.as_bytes())
    };
    let mut held = Vec::new();
    for n in 1..=3 {
        let (client, reply) = open(&format!("2001:db8:1:2::{n}"));
        assert!(reply.starts_with("220 "), "{reply}");
        held.push(client);
    }
    let (_, reply) = open("2001:db8:1:2:ffff::9");
    assert!(reply.starts_with("421 4.7.0 "), "{reply}");
    let (_, reply) = open("2001:db8:1:3::1");
    assert!(reply.starts_with("220 "), "{reply}");
    // An IPv4 client is one address.
    for n in 0..4 {
        let header = format!("PROXY TCP4 192.0.2.{n} 198.51.100.2 4711 25\r\n");
        let (client, reply) = opened(daemon.address, header.as_bytes());
        assert!(reply.starts_with("220 "), "{reply}");
        held.push(client);
    }
    drop(held);
    assert!(daemon.stop().success());
}

/// A version 2 header: PROXY, TCP over IPv4, with these TLVs and a right CRC32C.
fn version_2(tlvs: &[(u8, Vec<u8>)], spoilt: bool) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\0".to_vec();
    header.extend([192, 0, 2, 77, 198, 51, 100, 2, 0x12, 0x67, 0, 25]);
    for (kind, value) in tlvs {
        header.push(*kind);
        header.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
        header.extend(value);
    }
    header.extend([3, 0, 4, 0, 0, 0, 0]);
    let length = u16::try_from(header.len() - 16).expect("short").to_be_bytes();
    header[14..16].copy_from_slice(&length);
    let sum = crc32c::crc32c(&header).wrapping_add(u32::from(spoilt)).to_be_bytes();
    let end = header.len();
    header[end - 4..].copy_from_slice(&sum);
    header
}

#[test]
fn a_proxy_header_is_required_and_believed() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("proxy", proxied(&backend, ""));
    let good: Vec<(Vec<u8>, &str)> = vec![
        (b"PROXY TCP4 192.0.2.7 198.51.100.2 4711 25\r\n".to_vec(), "[192.0.2.7]:4711"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::25 4711 25\r\n".to_vec(), "[2001:db8::7]:4711"),
        (version_2(&[], false), "[192.0.2.77]:4711"),
        (version_2(&[(0x04, vec![7; 400])], false), "[192.0.2.77]:4711"),
    ];
    for (header, host) in &good {
        let (mut client, reply) = opened(daemon.address, header);
        assert!(reply.starts_with("220 "), "{host}: {reply}");
        client.expect("EHLO client.example.net", "250");
        let id = client.deliver("a@example.net", &["b@example.org"], "Subject: x\r\n\r\n");
        let line = daemon.line_with(&[&id, "<="]);
        assert!(line.contains(host) && line.contains("PRX=127.0.0.1"), "{line}");
        client.expect("QUIT", "221");
    }
    // In pieces, and with the first command behind it.
    let mut client = Client::connect_silent(daemon.address);
    client.send(b"PROXY TCP4 192.0.2.7 198.5");
    client.send(b"1.100.2 4711 25\r");
    client.send(b"\n");
    assert!(client.reply().starts_with("220 "));
    let bad: Vec<Vec<u8>> = vec![
        b"EHLO client.example.net\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.2 4711 25\n".to_vec(),
        b"PROXY TCP4 192.0.2.700 198.51.100.2 4711 25\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::7 2001:db8::25 4711 25\r\n".to_vec(),
        [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(),
        version_2(&[], true),
        version_2(&[(0x04, vec![7; 400])], true),
    ];
    for header in &bad {
        let (mut client, reply) = opened(daemon.address, header);
        assert_eq!(reply, "", "{:?}", String::from_utf8_lossy(header));
        assert_eq!(client.line(), None);
    }
    daemon.until("a line about each", |daemon| {
        daemon.log().matches("this port is for our proxies").count() == bad.len()
    });
    backend.wait_for(good.len());
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn a_header_of_a_stranger_is_not_read() {
    let backend = Backend::start(Manners::default());
    let mut setup = setup(&backend, "");
    setup.listener.push_str("proxy = \"require\"\nproxy_peers = [\"192.0.2.0/24\"]\n");
    let mut daemon = Daemon::start("proxy-stranger", setup);
    let mut client = Client::connect_silent(daemon.address);
    let _ = client.try_send(b"PROXY TCP4 192.0.2.7 198.51.100.2 4711 25\r\n");
    assert_eq!(client.line(), None);
    daemon.line_with(&["rejected connection", "this port is for our proxies"]);
    assert!(daemon.stop().success());
}

#[test]
fn ten_thousand_sessions_stand_idle() {
    let backend = Backend::start(Manners::default());
    let mut daemon = Daemon::start("idle", Setup::new(backend.address));
    let mut child = Command::new(programs::program("mxbench"))
        .args(["source", "--target", &daemon.address.to_string(), "--idle", "10000"])
        .args(["--duration", "86400", "--json"])
        .args(["--refusals", &refusals::file(daemon.address.port())])
        .stdout(Stdio::piped())
        .spawn()
        .expect("mxbench starts");
    let stand = programs::ready(&mut child, "mxbench source: ").expect("they stand");
    let mut source = Running(child);
    assert_eq!(stand, "10000 idle sessions stand");
    let sessions = |daemon: &Daemon| {
        let status = daemon.ask(&["status"]);
        let cores = status["cores"].as_array().expect("cores");
        cores.iter().map(|core| core["sessions"].as_u64().expect("a number")).collect::<Vec<_>>()
    };
    let mut seen = Vec::new();
    daemon.until("all in the status", |daemon| {
        seen = sessions(daemon);
        seen.iter().sum::<u64>() == 10_000
    });
    assert!(seen.iter().all(|of_core| *of_core > 1000), "one core has them all: {seen:?}");
    // Mail goes on beside them.
    let mut client = Client::greeted(daemon.address);
    client.deliver("a@example.net", &["b@example.org"], "Subject: x\r\n\r\n");
    backend.wait_for(1);
    client.expect("QUIT", "221");
    source.stop();
    daemon.until("all slots free again", |daemon| sessions(daemon).iter().sum::<u64>() == 0);
    daemon.until_empty();
    assert!(daemon.stop().success());
}

#[test]
fn who_finds_no_slot_hears_421_and_comes_in_later() {
    let backend = Backend::start(Manners::default());
    let mut setup = setup(&backend, "connections_max = 20\n");
    setup.node = "sessions_max = 20\n".to_owned();
    let mut daemon = Daemon::start("slots", setup);
    let mut clients: Vec<(Client, String)> = (0..60)
        .map(|_| {
            let mut client = Client::connect_silent(daemon.address);
            let reply = client.reply();
            (client, reply)
        })
        .collect();
    let taken = clients.iter().filter(|(_, reply)| reply.starts_with("220 ")).count();
    // A full core hands over to the other one: all slots are used before anybody hears 421.
    assert_eq!(taken, 20, "{:?}", clients.iter().map(|(_, r)| r).collect::<Vec<_>>());
    assert!(clients.iter().all(|(_, r)| r.starts_with("220 ") || r.starts_with("421 ")));
    clients.clear();
    daemon.until("room again", |daemon| {
        Client::connect_silent(daemon.address).reply().starts_with("220 ")
    });
    assert!(daemon.stop().success());
}
