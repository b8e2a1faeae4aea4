//! A DNS server with the answers a test gives it, over UDP and TCP, the question echoed as it was
//! asked; and lies.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An answer.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    Address(IpAddr),
    Mx(u16, &'static str),
    Text(&'static [u8]),
    Ptr(&'static str),
    Tlsa([u8; 4]),
    /// SERVFAIL for every question about the name.
    Trouble,
    /// Beside the name's other answers, over UDP.
    Lies(Lie),
}

/// What is said over UDP instead of the truth, or before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// The opposite of the truth under another id, then the truth.
    Id,
    /// The opposite of the truth about another name, then the truth.
    Question,
    /// That it does not fit into a datagram.
    Truncated,
    /// The same, and nothing over TCP.
    Closed,
    /// Nothing at all.
    Silence,
}

impl Data {
    const fn kind(&self) -> u16 {
        match self {
            Self::Address(IpAddr::V4(_)) => 1,
            Self::Address(IpAddr::V6(_)) => 28,
            Self::Mx(..) => 15,
            Self::Text(_) => 16,
            Self::Trouble | Self::Lies(_) => 0,
            Self::Ptr(_) => 12,
            Self::Tlsa(_) => 52,
        }
    }

    fn octets(&self) -> Vec<u8> {
        match self {
            Self::Address(IpAddr::V4(ip)) => ip.octets().to_vec(),
            Self::Address(IpAddr::V6(ip)) => ip.octets().to_vec(),
            Self::Mx(preference, host) => [&preference.to_be_bytes()[..], &name(host)].concat(),
            Self::Text(text) => {
                let octets = u8::try_from(text.len()).expect("one string");
                [&[octets], *text].concat()
            }
            Self::Trouble | Self::Lies(_) => Vec::new(),
            Self::Ptr(host) => name(host),
            Self::Tlsa(octets) => octets.to_vec(),
        }
    }
}

type Zone = HashMap<String, Vec<Data>>;

/// A running server; it ends with the test's process.
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    asked: Arc<Mutex<Vec<(String, u16)>>>,
    delay_ms: Arc<AtomicU64>,
}

impl Dns {
    pub(crate) fn start(records: &[(&str, Data)]) -> Self {
        let (socket, listener) = sockets();
        let dns = Self {
            address: socket.local_addr().expect("bound"),
            zone: Arc::default(),
            asked: Arc::default(),
            delay_ms: Arc::default(),
        };
        for (owner, data) in records {
            dns.add(owner, data.clone());
        }
        let (zone, asked) = (Arc::clone(&dns.zone), Arc::clone(&dns.asked));
        let delay_ms = Arc::clone(&dns.delay_ms);
        std::thread::spawn(move || {
            let mut room = [0; 1500];
            while let Ok((octets, from)) = socket.recv_from(&mut room) {
                let Some(question) = Question::read(&room[..octets]) else { continue };
                asked.lock().expect("no thread died").push((question.name.clone(), question.kind));
                std::thread::sleep(Duration::from_millis(delay_ms.load(Ordering::SeqCst)));
                for reply in question.datagrams(&zone.lock().expect("no thread died")) {
                    let _ = socket.send_to(&reply, from);
                }
            }
        });
        let zone = Arc::clone(&dns.zone);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let zone = Arc::clone(&zone);
                std::thread::spawn(move || over_tcp(stream, &zone));
            }
        });
        dns
    }

    pub(crate) fn add(&self, owner: &str, data: Data) {
        let mut zone = self.zone.lock().expect("no thread died");
        zone.entry(owner.to_owned()).or_default().push(data);
    }

    /// It thinks so long about every question over UDP that comes from now on.
    pub(crate) fn delay(&self, ms: u64) {
        self.delay_ms.store(ms, Ordering::SeqCst);
    }

    pub(crate) fn forget(&self, owner: &str) {
        self.zone.lock().expect("no thread died").remove(owner);
    }

    /// How often this was asked.
    pub(crate) fn count(&self, owner: &str, kind: u16) -> usize {
        let asked = self.asked.lock().expect("no thread died");
        asked.iter().filter(|(n, k)| n == owner && *k == kind).count()
    }

    /// The section of the config that names it.
    pub(crate) fn section(&self) -> String {
        format!("[resolver]\nservers = [\"{}\"]\n", self.address)
    }
}

/// Both on one port.
fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("bound");
        if let Ok(listener) = TcpListener::bind(address) {
            return (socket, listener);
        }
    }
}

/// Answers what comes on one connection (RFC 1035 4.2.2).
fn over_tcp(mut stream: TcpStream, zone: &Mutex<Zone>) {
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut packet = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut packet).is_err() {
            return;
        }
        let Some(question) = Question::read(&packet) else { return };
        let reply = {
            let zone = zone.lock().expect("no thread died");
            if question.lie(&zone) == Some(Lie::Closed) {
                return;
            }
            question.answer(&zone)
        };
        let length = u16::try_from(reply.len()).expect("short").to_be_bytes();
        if stream.write_all(&[&length, &*reply].concat()).is_err() {
            return;
        }
    }
}

struct Question {
    id: [u8; 2],
    name: String,
    kind: u16,
    octets: Vec<u8>,
}

impl Question {
    fn read(packet: &[u8]) -> Option<Self> {
        let mut at = 12;
        let mut labels = Vec::new();
        loop {
            let length = usize::from(*packet.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_lowercase());
            at += length;
        }
        let kind = u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?);
        let octets = packet.get(12..at + 4)?.to_vec();
        Some(Self { id: [packet[0], packet[1]], name: labels.join("."), kind, octets })
    }

    fn lie(&self, zone: &Zone) -> Option<Lie> {
        zone.get(&self.name)?.iter().find_map(|data| match data {
            Data::Lies(lie) => Some(*lie),
            _ => None,
        })
    }

    /// The answers over UDP, one after the other.
    fn datagrams(&self, zone: &Zone) -> Vec<Vec<u8>> {
        let truth = self.answer(zone);
        let Some(lie) = self.lie(zone) else { return vec![truth] };
        let listed = zone[&self.name].iter().any(|data| data.kind() == self.kind);
        let opposite =
            if listed { Vec::new() } else { vec![Data::Address(IpAddr::from([127, 0, 0, 2]))] };
        let false_zone = Zone::from([(self.name.clone(), opposite)]);
        let mut false_answer = self.answer(&false_zone);
        match lie {
            Lie::Id => {
                false_answer[1] ^= 1;
                vec![false_answer, truth]
            }
            Lie::Question => {
                // The first octet of the name: a length, then its first letter.
                false_answer[13] = if false_answer[13] == b'9' { b'8' } else { b'9' };
                vec![false_answer, truth]
            }
            Lie::Truncated | Lie::Closed => {
                let mut cut = self.answer(&Zone::from([(self.name.clone(), Vec::new())]));
                cut[2] |= 2;
                vec![cut]
            }
            Lie::Silence => Vec::new(),
        }
    }

    fn answer(&self, zone: &Zone) -> Vec<u8> {
        let none = Vec::new();
        let only_lies = |all: &&Vec<Data>| all.iter().any(|data| !matches!(data, Data::Lies(_)));
        let records = zone.get(&self.name).filter(|all| all.is_empty() || only_lies(all));
        let trouble = records.is_some_and(|all| all.iter().any(|r| matches!(r, Data::Trouble)));
        let code = if trouble { 2 } else { u8::from(records.is_none()) * 3 };
        let fitting: Vec<&Data> =
            records.unwrap_or(&none).iter().filter(|data| data.kind() == self.kind).collect();
        let count = u16::try_from(fitting.len()).expect("few records").to_be_bytes();
        let mut out = self.id.to_vec();
        out.extend([0x85, 0x80 | code, 0, 1, count[0], count[1], 0, 0, 0, 0]);
        out.extend(&self.octets);
        for data in fitting {
            let octets = data.octets();
            out.extend([0xc0, 12]);
            out.extend(self.kind.to_be_bytes());
            out.extend([0, 1, 0, 0, 0, 60]);
            out.extend(u16::try_from(octets.len()).expect("short").to_be_bytes());
            out.extend(octets);
        }
        out
    }
}

fn name(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).expect("a label"));
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}
