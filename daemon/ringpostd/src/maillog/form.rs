//! What a line is made of, however it looks.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use smtp::reply::number;

use crate::events::Tls;

/// One part of a line: its key in Exim's style and in JSON (an empty key: not there), its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) exim: &'static str,
    pub(super) json: &'static str,
    pub(super) value: Value<'a>,
}

/// A value; each form knows how it looks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    /// A mail address; the empty one is the null sender.
    Address(&'a [u8]),
    /// A mail address in angle brackets.
    Bracketed(&'a [u8]),
    /// Something without spaces.
    Word(&'a [u8]),
    /// The same in lower case.
    Lower(&'a str),
    /// Free text in quotes.
    Quoted(&'a [u8]),
    /// A number.
    Number(u64),
    /// A length of time in microseconds.
    Took(u64),
    /// A host: verified name, the name it gave itself, address and port.
    Host(&'a [u8], &'a [u8], SocketAddr),
    /// An address of ours, with port.
    Local(SocketAddr),
    /// TLS of the connection.
    Tls(&'a Tls<'a>),
}

/// How lines look.
pub(super) trait Form {
    /// The name of the event (JSON), and the id of what it is about, if there is one.
    fn event(&mut self, name: &'static str, id: &str);

    /// Words of Exim's style that JSON does without.
    fn mark(&mut self, words: &str);

    /// A part.
    fn field(&mut self, field: Field<'_>);

    /// Why: label, text, and what others said, at the end of the line.
    fn reason(&mut self, label: &'static str, text: &str, detail: &[u8]);

    /// Free text at the end of the line.
    fn tail(&mut self, json: &'static str, text: &[u8]);

    /// The envelope of a rejected mail, below the line.
    fn envelope(&mut self, sender: Option<&[u8]>, recipients: &[&[u8]]);

    /// The header of a rejected mail, below the line.
    fn header(&mut self, header: &[u8]);

    /// The end of a rejected mail.
    fn separator(&mut self);

    /// The end of the line.
    fn end(&mut self);
}

/// Lines of a header, without their ends, the empty one at its end left out.
pub(super) fn header_lines(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = header.split(|octet| *octet == b'\n');
    lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)).filter(|line| !line.is_empty())
}

/// Appends an address: most are IPv4, and what formats them all is slow.
pub(super) fn push_ip(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            for (at, octet) in v4.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                number(out, u64::from(octet));
            }
        }
        // Writing to a vector cannot fail.
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}

/// Appends whole units, a point, and so many digits of millionths.
pub(super) fn push_decimal(out: &mut Vec<u8>, us: u64, digits: usize) {
    number(out, us / 1_000_000);
    out.push(b'.');
    let rest = us % 1_000_000;
    let places = [100_000, 10_000, 1_000, 100, 10, 1];
    // A remainder of ten fits an octet.
    let all = places.map(|place| b'0' + (rest / place % 10).to_le_bytes()[0]);
    out.extend_from_slice(&all[..digits.min(all.len())]);
}
