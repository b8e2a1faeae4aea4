//! What an answer says, read with bounds.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::limits::{ALIASES_MAX, NEGATIVE_TTL_S, RECORDS_MAX, TTL_S_MAX};
use super::question::{HEADER_OCTETS, Kind, Question};

/// How a question ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There are records of the type asked for.
    Found(Answer),
    /// The name does not exist (NXDOMAIN).
    NoName {
        /// Seconds this may be believed.
        ttl_s: u32,
    },
    /// The name exists, without records of that type.
    NoData {
        /// Seconds this may be believed.
        ttl_s: u32,
    },
    /// Nothing is known: local trouble.
    Failed(Failure),
    /// Only TCP can tell; the house asks ([`super::Outward::over_tcp`]).
    NeedsTcp(Question),
}

/// Why nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No answer in all tries.
    Timeout,
    /// The resolver says that it failed, with this code (RFC 1035 4.1.1).
    Server(u8),
    /// The answer does not parse, or runs round in aliases, or names nothing a host can be called.
    Malformed,
    /// Our socket does not work, or nobody listens there.
    Unreachable,
}

/// Records of the type asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Not empty; in the order of the answer.
    pub data: Vec<Data>,
    /// Seconds they may be believed: the least of all records and aliases on the way.
    pub ttl_s: u32,
    /// Whether the resolver says that it validated them: worth something on a loopback address
    /// only.
    pub authentic: bool,
}

/// The data of one record. Names are host names in lower case without trailing dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// A mail exchanger; the empty host is the null MX (RFC 7505).
    Mx {
        /// Lower is tried first.
        preference: u16,
        /// Its name.
        host: Box<str>,
    },
    /// A name of an address.
    Ptr(Box<str>),
    /// Text, its strings joined (RFC 7208 3.3).
    Txt(Box<[u8]>),
}

/// The text of a host name, when it is one: letters, digits, hyphens, underscores; not all digits
/// at its end. Nothing else may reach a log, a Received line or a connection.
pub(super) fn host_text(name: &Name) -> Option<Box<str>> {
    let mut text = String::with_capacity(name.len());
    let mut last_is_number = true;
    for label in name.iter() {
        if label.is_empty() || !label.iter().all(|o| o.is_ascii_alphanumeric() || b"-_".contains(o))
        {
            return None;
        }
        last_is_number = label.iter().all(u8::is_ascii_digit);
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|octet| char::from(octet.to_ascii_lowercase())));
    }
    (!last_is_number).then(|| text.into_boxed_str())
}

/// Reads the message that answers `question`; id, question and truncation are checked already.
pub(super) fn read(question: &Question, message: &[u8]) -> Outcome {
    let Some(head) = message.first_chunk::<HEADER_OCTETS>() else {
        return Outcome::Failed(Failure::Malformed);
    };
    let authentic = head[3] & 0x20 != 0;
    let code = head[3] & 0x0f;
    let count = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
    if code != 0 && code != 3 {
        return Outcome::Failed(Failure::Server(code));
    }
    let mut decoder = BinDecoder::new(message);
    if decoder.read_slice(question.answers_at()).is_err() {
        return Outcome::Failed(Failure::Malformed);
    }
    let Some(answers) = records(&mut decoder, count(6)) else {
        return Outcome::Failed(Failure::Malformed);
    };
    // The authority section follows only when the answer section was read whole.
    let authorities = if count(6) <= RECORDS_MAX {
        records(&mut decoder, count(8)).unwrap_or_default()
    } else {
        Vec::new()
    };
    if code == 3 {
        return Outcome::NoName { ttl_s: negative_ttl_s(&authorities) };
    }
    collect(question, &answers, &authorities, authentic)
}

fn records(decoder: &mut BinDecoder<'_>, count: usize) -> Option<Vec<Record>> {
    (0..count.min(RECORDS_MAX)).map(|_| Record::read(decoder).ok()).collect()
}

/// Follows aliases from the question's name and takes what was asked for.
pub(super) fn collect(
    question: &Question,
    answers: &[Record],
    authorities: &[Record],
    authentic: bool,
) -> Outcome {
    let answers = &answers[..answers.len().min(RECORDS_MAX)];
    let mut name = question.name();
    let mut ttl_s = TTL_S_MAX;
    for _ in 0..=ALIASES_MAX {
        let wanted = question.kind().record_type();
        let at_name = |record: &&Record| record.name == name;
        let mut found = answers.iter().filter(at_name).filter(|r| r.record_type() == wanted);
        if found.clone().next().is_some() {
            let mut data = Vec::new();
            found.try_for_each(|record| {
                ttl_s = ttl_s.min(record.ttl);
                data.extend(datum(question.kind(), &record.data));
                Some(())
            });
            if data.is_empty() {
                return Outcome::Failed(Failure::Malformed);
            }
            return Outcome::Found(Answer { data, ttl_s, authentic });
        }
        let alias = answers.iter().filter(at_name).find_map(|record| match &record.data {
            RData::CNAME(target) => Some((target.0.clone(), record.ttl)),
            _ => None,
        });
        match alias {
            Some((target, ttl)) => {
                name = target;
                ttl_s = ttl_s.min(ttl);
            }
            None => return Outcome::NoData { ttl_s: negative_ttl_s(authorities).min(ttl_s) },
        }
    }
    Outcome::Failed(Failure::Malformed)
}

fn datum(kind: Kind, data: &RData) -> Option<Data> {
    match (kind, data) {
        (Kind::A, RData::A(a)) => Some(Data::A(a.0)),
        (Kind::Aaaa, RData::AAAA(aaaa)) => Some(Data::Aaaa(aaaa.0)),
        (Kind::Mx, RData::MX(mx)) => {
            let host = if mx.exchange.is_root() { "".into() } else { host_text(&mx.exchange)? };
            Some(Data::Mx { preference: mx.preference, host })
        }
        (Kind::Ptr, RData::PTR(ptr)) => host_text(&ptr.0).map(Data::Ptr),
        (Kind::Txt, RData::TXT(txt)) => {
            Some(Data::Txt(txt.txt_data.iter().flat_map(|part| part.iter().copied()).collect()))
        }
        _ => None,
    }
}

/// RFC 2308 5: the lesser of the SOA's own TTL and its minimum.
fn negative_ttl_s(authorities: &[Record]) -> u32 {
    authorities
        .iter()
        .find_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.minimum.min(record.ttl).min(TTL_S_MAX)),
            _ => None,
        })
        .unwrap_or(NEGATIVE_TTL_S)
}
