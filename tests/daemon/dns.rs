//! A DNS server with the answers a test gives it: UDP, the question echoed as it was asked.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

/// An answer.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    Address(IpAddr),
    Mx(u16, &'static str),
    /// SERVFAIL for every question about the name.
    Trouble,
}

impl Data {
    const fn kind(&self) -> u16 {
        match self {
            Self::Address(IpAddr::V4(_)) => 1,
            Self::Address(IpAddr::V6(_)) => 28,
            Self::Mx(..) => 15,
            Self::Trouble => 0,
        }
    }

    fn octets(&self) -> Vec<u8> {
        match self {
            Self::Address(IpAddr::V4(ip)) => ip.octets().to_vec(),
            Self::Address(IpAddr::V6(ip)) => ip.octets().to_vec(),
            Self::Mx(preference, host) => [&preference.to_be_bytes()[..], &name(host)].concat(),
            Self::Trouble => Vec::new(),
        }
    }
}

type Zone = HashMap<String, Vec<Data>>;

/// A running server; it ends with the test's process.
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    asked: Arc<Mutex<Vec<(String, u16)>>>,
}

impl Dns {
    pub(crate) fn start(records: &[(&str, Data)]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let dns = Self {
            address: socket.local_addr().expect("bound"),
            zone: Arc::default(),
            asked: Arc::default(),
        };
        for (owner, data) in records {
            dns.add(owner, data.clone());
        }
        let (zone, asked) = (Arc::clone(&dns.zone), Arc::clone(&dns.asked));
        std::thread::spawn(move || {
            let mut room = [0; 1500];
            while let Ok((octets, from)) = socket.recv_from(&mut room) {
                let Some(question) = Question::read(&room[..octets]) else { continue };
                asked.lock().expect("no thread died").push((question.name.clone(), question.kind));
                let reply = question.answer(&zone.lock().expect("no thread died"));
                let _ = socket.send_to(&reply, from);
            }
        });
        dns
    }

    pub(crate) fn add(&self, owner: &str, data: Data) {
        let mut zone = self.zone.lock().expect("no thread died");
        zone.entry(owner.to_owned()).or_default().push(data);
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

    fn answer(&self, zone: &Zone) -> Vec<u8> {
        let none = Vec::new();
        let records = zone.get(&self.name);
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
