//! The same lines, each a JSON object (RFC 8259).

use std::io::Write as _;
use std::net::SocketAddr;

use super::clean::{self, Place};
use super::form::{Field, Form, Value};
use crate::limits;

/// A line under way.
#[derive(Debug)]
pub(super) struct Json<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Json<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>, stamp: &str) -> Self {
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(stamp.as_bytes());
        out.push(b'"');
        Self { out }
    }

    fn key(&mut self, key: &str) {
        // Writing to a vector cannot fail.
        let _ = write!(self.out, ",\"{key}\":");
    }

    fn string(&mut self, key: &str, octets: &[u8]) {
        self.key(key);
        self.out.push(b'"');
        clean::push(self.out, octets, Place::Json);
        self.out.push(b'"');
    }

    fn socket(&mut self, prefix: &str, socket: SocketAddr) {
        let (ip, port) = (socket.ip().to_canonical(), socket.port());
        let _ = write!(self.out, ",\"{prefix}ip\":\"{ip}\",\"{prefix}port\":{port}");
    }
}

impl Form for Json<'_> {
    fn event(&mut self, name: &'static str, id: &str) {
        self.string("event", name.as_bytes());
        if !id.is_empty() {
            self.string("id", id.as_bytes());
        }
    }

    fn mark(&mut self, _: &str) {}

    fn field(&mut self, field: Field<'_>) {
        if field.json.is_empty() {
            return;
        }
        match field.value {
            Value::Address(octets)
            | Value::Bracketed(octets)
            | Value::Word(octets)
            | Value::Quoted(octets) => self.string(field.json, octets),
            Value::Lower(word) => self.string(field.json, word.to_ascii_lowercase().as_bytes()),
            Value::Number(number) => {
                self.key(field.json);
                let _ = write!(self.out, "{number}");
            }
            Value::Took(us) => {
                self.key(field.json);
                let _ = write!(self.out, "{}.{:06}", us / 1_000_000, us % 1_000_000);
            }
            Value::Host(name, helo, socket) => {
                if !name.is_empty() {
                    self.string("host", name);
                }
                if !helo.is_empty() {
                    self.string("helo", helo);
                }
                self.socket("", socket);
            }
            Value::Local(socket) => self.socket("local_", socket),
            Value::Tls(tls) => {
                self.string("tls", tls.version.as_bytes());
                self.string("cipher", tls.cipher.as_bytes());
                if let Some(verified) = tls.verified {
                    self.key("verified");
                    let _ = write!(self.out, "{verified}");
                }
            }
        }
    }

    fn reason(&mut self, label: &'static str, text: &str, detail: &[u8]) {
        self.string("reason", label.as_bytes());
        self.string("text", text.as_bytes());
        if !detail.is_empty() {
            self.string("detail", detail);
        }
    }

    fn tail(&mut self, json: &'static str, text: &[u8]) {
        self.string(json, text);
    }

    fn envelope(&mut self, _: Option<&[u8]>, recipients: &[&[u8]]) {
        self.key("recipients");
        self.out.push(b'[');
        let start = self.out.len();
        for (at, recipient) in recipients.iter().enumerate() {
            if self.out.len() - start > limits::LOG_VALUE_OCTETS_MAX {
                break;
            }
            self.out.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
            clean::push(self.out, recipient, Place::Json);
            self.out.push(b'"');
        }
        self.out.push(b']');
    }

    fn header(&mut self, header: &[u8]) {
        self.key("header");
        self.out.push(b'"');
        clean::push_up_to(self.out, header, Place::Json, limits::REJECT_HEADER_OCTETS_MAX);
        self.out.push(b'"');
    }

    fn separator(&mut self) {}

    fn end(&mut self) {
        self.out.extend_from_slice(b"}\n");
    }
}
