//! A few questions to a DNS server, before there is a daemon that could ask.
//!
//! *Limits*: `TRIES` of `WAIT` each; one datagram: an answer that is cut counts as what it has.
//! *Failure*: why nothing is known, in a few words.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

const TRIES: u32 = 2;
const WAIT: Duration = Duration::from_secs(2);

/// What one question brought; empty: there is no such name or record.
type Answer = Result<Vec<RData>, String>;

/// Asks the servers one after the other.
fn ask(servers: &[SocketAddr], name: &str, kind: RecordType) -> Answer {
    let name = Name::from_ascii(format!("{}.", name.trim_end_matches('.')))
        .map_err(|_| format!("{name:?} is no name"))?;
    let mut why = "no DNS server".to_owned();
    for server in servers {
        for _ in 0..TRIES {
            match ask_one(*server, &name, kind) {
                Ok(answer) => return Ok(answer),
                Err(error) => why = format!("{server}: {error}"),
            }
        }
    }
    Err(why)
}

fn ask_one(server: SocketAddr, name: &Name, kind: RecordType) -> Answer {
    let text = |error: std::io::Error| error.to_string();
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).map_err(text)?;
    socket.connect(server).map_err(text)?;
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    let octets = question.to_vec().map_err(|error| error.to_string())?;
    socket.send(&octets).map_err(text)?;
    let until = Instant::now() + WAIT;
    let mut room = [0; 4_096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("no answer".to_owned());
        }
        socket.set_read_timeout(Some(left)).map_err(text)?;
        let count = socket.recv(&mut room).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => "no answer".to_owned(),
            _ => error.to_string(),
        })?;
        let Ok(answer) = Message::from_vec(room.get(..count).unwrap_or_default()) else { continue };
        // Anything else is not for this question.
        if answer.metadata.id != question.metadata.id || answer.queries != question.queries {
            continue;
        }
        return match answer.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {
                Ok(answer.answers.into_iter().map(|record| record.data).collect())
            }
            code => Err(format!("it answers {code}")),
        };
    }
}

/// Host names in lower case without the last dot.
fn host(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// Addresses of a host.
///
/// # Errors
/// Nothing is known.
pub(crate) fn addresses(servers: &[SocketAddr], name: &str) -> Result<Vec<IpAddr>, String> {
    let mut found = Vec::new();
    for kind in [RecordType::A, RecordType::AAAA] {
        found.extend(ask(servers, name, kind)?.iter().filter_map(RData::ip_addr));
    }
    Ok(found)
}

/// Names of an address.
///
/// # Errors
/// Nothing is known.
pub(crate) fn names(servers: &[SocketAddr], address: IpAddr) -> Result<Vec<String>, String> {
    let reverse = Name::from(address).to_ascii();
    let answer = ask(servers, &reverse, RecordType::PTR)?;
    let name = |data: &RData| match data {
        RData::PTR(name) => Some(host(&name.0)),
        _ => None,
    };
    Ok(answer.iter().filter_map(name).collect())
}

/// Mail exchangers of a domain.
///
/// # Errors
/// Nothing is known.
pub(crate) fn exchangers(servers: &[SocketAddr], domain: &str) -> Result<Vec<String>, String> {
    let answer = ask(servers, domain, RecordType::MX)?;
    let name = |data: &RData| match data {
        RData::MX(mx) => Some(host(&mx.exchange)),
        _ => None,
    };
    Ok(answer.iter().filter_map(name).collect())
}

/// TLSA records of a host's port 25.
///
/// # Errors
/// Nothing is known.
pub(crate) fn pins(servers: &[SocketAddr], name: &str) -> Result<usize, String> {
    let answer = ask(servers, &format!("_25._tcp.{name}"), RecordType::TLSA)?;
    Ok(answer.iter().filter(|data| data.record_type() == RecordType::TLSA).count())
}
