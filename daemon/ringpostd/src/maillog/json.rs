//! The same lines, each a JSON object (RFC 8259).

use std::net::SocketAddr;

use smtp::reply::number;

use super::clean::{self, Place};
use super::form::{Field, Form, Value, push_decimal, push_ip};
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
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn string(&mut self, key: &str, octets: &[u8]) {
        self.key(key);
        self.out.push(b'"');
        clean::push(self.out, octets, Place::Json);
        self.out.push(b'"');
    }

    fn socket(&mut self, prefix: (&str, &str), socket: SocketAddr) {
        let (ip, port) = prefix;
        self.key(ip);
        self.out.push(b'"');
        push_ip(self.out, socket.ip());
        self.out.push(b'"');
        self.key(port);
        number(self.out, u64::from(socket.port()));
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
            Value::Lower(word) => {
                let start = self.out.len();
                self.string(field.json, word.as_bytes());
                self.out[start..].make_ascii_lowercase();
            }
            Value::Number(value) => {
                self.key(field.json);
                number(self.out, value);
            }
            Value::Took(us) => {
                self.key(field.json);
                push_decimal(self.out, us, 6);
            }
            Value::Host(name, helo, socket) => {
                if !name.is_empty() {
                    self.string("host", name);
                }
                if !helo.is_empty() {
                    self.string("helo", helo);
                }
                self.socket(("ip", "port"), socket);
            }
            Value::Local(socket) => self.socket(("local_ip", "local_port"), socket),
            Value::Tls(tls) => {
                self.string("tls", tls.version.as_bytes());
                self.string("cipher", tls.cipher.as_bytes());
                if let Some(verified) = tls.verified {
                    self.key("verified");
                    self.out.extend_from_slice(if verified { b"true" } else { b"false" });
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
