//! Lines as Exim writes them (its specification, chapter "Log files").

use std::net::SocketAddr;

use smtp::reply::number;

use super::clean::{self, Place};
use super::form::{Field, Form, Value, header_lines, push_decimal, push_ip};
use crate::events::Tls;
use crate::limits;

/// A line under way.
#[derive(Debug)]
pub(super) struct Exim<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Exim<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>, stamp: &str) -> Self {
        out.extend_from_slice(stamp.as_bytes());
        Self { out }
    }

    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn socket(&mut self, socket: SocketAddr) {
        self.out.push(b'[');
        push_ip(self.out, socket.ip());
        self.text("]:");
        number(self.out, u64::from(socket.port()));
    }

    fn host(&mut self, name: &[u8], helo: &[u8], socket: SocketAddr) {
        if !name.is_empty() {
            clean::push(self.out, name, Place::Word);
            self.out.push(b' ');
        }
        if !helo.is_empty() && !helo.eq_ignore_ascii_case(name) {
            self.out.push(b'(');
            clean::push(self.out, helo, Place::Word);
            self.text(") ");
        }
        self.socket(socket);
    }

    fn tls(&mut self, tls: &Tls<'_>) {
        clean::push(self.out, tls.version.as_bytes(), Place::Word);
        self.out.push(b':');
        clean::push(self.out, tls.cipher.as_bytes(), Place::Word);
        match tls.verified {
            Some(true) => self.text(" CV=yes"),
            Some(false) => self.text(" CV=no"),
            None => {}
        }
    }

    fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Address(b"") => self.text("<>"),
            Value::Address(address) => clean::push(self.out, address, Place::Word),
            Value::Bracketed(address) => {
                self.out.push(b'<');
                clean::push(self.out, address, Place::Word);
                self.out.push(b'>');
            }
            Value::Word(word) => clean::push(self.out, word, Place::Word),
            Value::Lower(word) => {
                let start = self.out.len();
                clean::push(self.out, word.as_bytes(), Place::Word);
                self.out[start..].make_ascii_lowercase();
            }
            Value::Quoted(text) => {
                self.out.push(b'"');
                clean::push(self.out, text, Place::Quoted);
                self.out.push(b'"');
            }
            Value::Number(value) => number(self.out, value),
            Value::Took(us) => self.took(us),
            Value::Host(name, helo, socket) => self.host(name, helo, socket),
            Value::Local(socket) => self.socket(socket),
            Value::Tls(tls) => self.tls(tls),
        }
    }

    /// Below a minute with milliseconds, else in weeks, days, hours, minutes and seconds.
    fn took(&mut self, us: u64) {
        let seconds = us / 1_000_000;
        if seconds < 60 {
            push_decimal(self.out, us, 3);
            self.out.push(b's');
            return;
        }
        let units = [(604_800, b'w'), (86_400, b'd'), (3_600, b'h'), (60, b'm'), (1, b's')];
        let mut rest = seconds;
        for (length, unit) in units {
            if rest >= length {
                number(self.out, rest / length);
                self.out.push(unit);
                rest %= length;
            }
        }
    }
}

impl Form for Exim<'_> {
    fn event(&mut self, _: &'static str, id: &str) {
        if !id.is_empty() {
            self.out.push(b' ');
            clean::push(self.out, id.as_bytes(), Place::Word);
        }
    }

    fn mark(&mut self, words: &str) {
        self.out.push(b' ');
        self.text(words);
    }

    fn field(&mut self, field: Field<'_>) {
        if field.exim.is_empty() {
            return;
        }
        self.out.push(b' ');
        // A key of one space stands for a value without a key.
        self.text(field.exim.trim_start());
        self.value(field.value);
    }

    fn reason(&mut self, _: &'static str, text: &str, detail: &[u8]) {
        self.text(": ");
        self.text(text);
        if !detail.is_empty() {
            self.text(": ");
            clean::push(self.out, detail, Place::Tail);
        }
    }

    fn tail(&mut self, _: &'static str, text: &[u8]) {
        self.text(": ");
        clean::push(self.out, text, Place::Tail);
    }

    fn envelope(&mut self, sender: Option<&[u8]>, recipients: &[&[u8]]) {
        let Some(sender) = sender else { return };
        self.text("Envelope-from: <");
        clean::push(self.out, sender, Place::Word);
        self.text(">\n");
        let start = self.out.len();
        for (at, recipient) in recipients.iter().enumerate() {
            if self.out.len() - start > limits::LOG_VALUE_OCTETS_MAX {
                self.text("  and ");
                number(self.out, (recipients.len() - at) as u64);
                self.text(" more\n");
                break;
            }
            self.text(if at == 0 { "Envelope-to: <" } else { "             <" });
            clean::push(self.out, recipient, Place::Word);
            self.text(">\n");
        }
    }

    fn header(&mut self, header: &[u8]) {
        let start = self.out.len();
        for line in header_lines(header) {
            let room = (start + limits::REJECT_HEADER_OCTETS_MAX).saturating_sub(self.out.len());
            if room < 16 {
                self.text("  ...\n");
                return;
            }
            self.text("  ");
            clean::push_up_to(self.out, line, Place::Tail, room - 3);
            self.out.push(b'\n');
        }
    }

    fn separator(&mut self) {
        self.text("----------------------------------------\n");
    }

    fn end(&mut self) {
        self.out.push(b'\n');
    }
}
