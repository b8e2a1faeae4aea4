//! What the line of each event says, in the order of Exim's fields.

use super::form::{Field, Form, Value};
use crate::events::{Accepted, Attempt, Client, Ending, Event, Generated, Reason, Refused, Stage};

/// Writes the line of `event`; false if it has none.
pub(super) fn describe(event: &Event<'_>, subject: bool, form: &mut impl Form) -> bool {
    match *event {
        Event::Connected(_)
        | Event::LimitHit { .. }
        | Event::TlsStarted(_)
        | Event::Line { .. }
        | Event::Took(..) => {
            return false;
        }
        Event::SessionClosed { ending, in_transaction, .. }
            if ending != Ending::Lost || !in_transaction =>
        {
            return false;
        }
        Event::SessionClosed { client, .. } => {
            form.event("lost", client.id);
            host(client, form);
            form.mark("lost connection inside a transaction");
        }
        Event::ConnectRefused { client, reason } => {
            form.event("connect_refused", client.id);
            host(client, form);
            form.mark("rejected connection");
            form.reason(reason.label(), reason.text(), b"");
        }
        Event::CommandRefused(refused) => command_refused(refused, form),
        Event::EarlyTalker { client, said } => {
            form.event("early_talker", client.id);
            host(client, form);
            form.mark("spoke before the greeting");
            form.tail("said", said);
        }
        Event::WouldRefuse { client, detail } => {
            form.event("would_refuse", client.id);
            host(client, form);
            form.mark("would be refused");
            form.tail("detail", detail);
        }
        Event::TlsFailed { client, error } => {
            form.event("tls_failed", client.id);
            host(client, form);
            form.mark("TLS error");
            form.tail("error", error.as_bytes());
        }
        Event::Noted(note, text) => {
            form.event("note", "");
            form.mark(note.label());
            field("", "note", Value::Lower(note.label()), form);
            form.tail("text", text.as_bytes());
        }
        Event::Alarmed(alarm, text) => {
            form.event("alarm", "");
            form.mark("ALARM");
            form.mark(alarm.label());
            field("", "alarm", Value::Lower(alarm.label()), form);
            form.tail("text", text.as_bytes());
        }
        _ => mail(event, subject, form),
    }
    true
}

/// The lines about mail we answer for.
fn mail(event: &Event<'_>, subject: bool, form: &mut impl Form) {
    match *event {
        Event::Accepted(accepted) => arrival(accepted, subject, form),
        Event::Generated(generated) => dsn(generated, form),
        Event::Relayed { attempt, further } => {
            form.event("relayed", attempt.id);
            form.mark(if further { "->" } else { "=>" });
            delivery(attempt, form);
            field("C=", "reply", Value::Quoted(attempt.reply), form);
            times(attempt, form);
        }
        Event::Deferred { attempt, reason } => {
            form.event("deferred", attempt.id);
            form.mark("==");
            failure(attempt, reason, form);
        }
        Event::Bounced { attempt, reason } => {
            form.event("bounced", attempt.id);
            form.mark("**");
            failure(attempt, reason, form);
        }
        Event::Completed { id, queue_us } => {
            form.event("completed", id);
            form.mark("Completed");
            field("QT=", "queue_s", Value::Took(queue_us), form);
        }
        Event::Held { id, why } => {
            form.event("held", id);
            form.mark("Frozen");
            form.tail("text", why.as_bytes());
        }
        Event::Released { id } => {
            form.event("released", id);
            form.mark("Unfrozen");
        }
        Event::Moved { id, to, uid } => {
            form.event("moved", id);
            form.mark(if to.is_empty() { "moved back by" } else { "moved by" });
            field("uid=", "uid", Value::Number(u64::from(uid)), form);
            if !to.is_empty() {
                field("to=", "to", Value::Word(to.as_bytes()), form);
            }
        }
        Event::Removed { id, uid } => {
            form.event("removed", id);
            form.mark("removed by");
            field("uid=", "uid", Value::Number(u64::from(uid)), form);
        }
        _ => {}
    }
}

fn field(exim: &'static str, json: &'static str, value: Value<'_>, form: &mut impl Form) {
    form.field(Field { exim, json, value });
}

fn host(client: &Client<'_>, form: &mut impl Form) {
    let name = client.name.unwrap_or_default();
    field("H=", "host", Value::Host(name, client.helo, client.remote), form);
    field("I=", "local", Value::Local(client.local), form);
    if let Some(proxy) = client.proxy {
        field("PRX=", "proxy", Value::Word(proxy.ip().to_string().as_bytes()), form);
    }
}

fn protocol(client: &Client<'_>, form: &mut impl Form) {
    field("P=", "protocol", Value::Lower(client.protocol), form);
    if let Some(tls) = &client.tls {
        field("X=", "tls", Value::Tls(tls), form);
    }
}

fn command_refused(refused: &Refused<'_>, form: &mut impl Form) {
    let client = &refused.client;
    form.event("refused", client.id);
    host(client, form);
    if let Some(tls) = &client.tls {
        field("X=", "tls", Value::Tls(tls), form);
    }
    field("", "stage", Value::Lower(refused.stage.label()), form);
    if let Some(sender) = refused.sender {
        field("F=", "sender", Value::Bracketed(sender), form);
    }
    form.mark(match refused.stage {
        Stage::Connect => "rejected connection",
        Stage::Helo => "rejected EHLO or HELO",
        Stage::Tls => "rejected STARTTLS",
        Stage::Mail => "rejected MAIL",
        Stage::Rcpt => "rejected RCPT",
        Stage::Data => "rejected DATA",
        Stage::Content => "rejected after DATA",
        Stage::Command => "rejected command",
    });
    if let (Stage::Rcpt, Some(recipient)) = (refused.stage, refused.recipients.first()) {
        field(" ", "recipient", Value::Bracketed(recipient), form);
    }
    form.reason(refused.reason.label(), refused.reason.text(), refused.detail);
}

fn arrival(accepted: &Accepted<'_>, subject: bool, form: &mut impl Form) {
    let client = &accepted.client;
    form.event("accepted", client.id);
    form.mark("<=");
    field(" ", "sender", Value::Address(accepted.sender), form);
    host(client, form);
    protocol(client, form);
    field("S=", "octets", Value::Number(accepted.octets), form);
    field("", "recipients", Value::Number(u64::from(accepted.recipients)), form);
    if let Some(id) = accepted.message_id {
        field("id=", "message_id", Value::Word(id), form);
    }
    if let Some(text) = accepted.subject.filter(|_| subject) {
        field("T=", "subject", Value::Quoted(text), form);
    }
}

fn dsn(generated: &Generated<'_>, form: &mut impl Form) {
    form.event("generated", generated.id);
    form.mark("<=");
    field(" ", "sender", Value::Address(b""), form);
    field("R=", "parent", Value::Word(generated.parent.as_bytes()), form);
    field("P=", "protocol", Value::Lower("local"), form);
    field("S=", "octets", Value::Number(generated.octets), form);
    field("", "recipients", Value::Number(u64::from(generated.recipients)), form);
}

fn delivery(attempt: &Attempt<'_>, form: &mut impl Form) {
    field(" ", "recipient", Value::Address(attempt.recipient), form);
    if let Some(original) = attempt.original {
        field(" ", "original", Value::Bracketed(original), form);
    }
    field("R=", "route", Value::Word(attempt.route.as_bytes()), form);
    field("T=", "", Value::Lower("smtp"), form);
    if let Some(hop) = &attempt.hop {
        field("H=", "host", Value::Host(hop.name.as_bytes(), b"", hop.address), form);
        if let Some(tls) = &hop.tls {
            field("X=", "tls", Value::Tls(tls), form);
        }
    }
}

fn times(attempt: &Attempt<'_>, form: &mut impl Form) {
    field("QT=", "queue_s", Value::Took(attempt.queue_us), form);
    field("DT=", "delivery_s", Value::Took(attempt.delivery_us), form);
}

fn failure(attempt: &Attempt<'_>, reason: Reason, form: &mut impl Form) {
    delivery(attempt, form);
    times(attempt, form);
    form.reason(reason.label(), reason.text(), attempt.reply);
}
