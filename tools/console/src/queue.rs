//! Pages about the queue.

use control::{QueueEntry, QueueMessage, QueuePage, RecipientState};

use crate::page::{Align, Column, Page};
use crate::text::{size, span, wall};

const COLUMNS: [Column; 7] = [
    ("id", 24, Align::Left),
    ("age", 7, Align::Right),
    ("size", 6, Align::Right),
    ("left/all", 11, Align::Right),
    ("tries", 5, Align::Right),
    ("next", 7, Align::Right),
    ("state", 7, Align::Left),
];

fn address(address: &str) -> String {
    format!("<{address}>")
}

fn state(entry: &QueueEntry) -> &'static str {
    match (entry.frozen, entry.held) {
        (true, _) => "frozen",
        (false, true) => "held",
        (false, false) if entry.next_s == 0 => "due",
        (false, false) => "waits",
    }
}

fn row(page: &mut Page, entry: &QueueEntry) {
    page.row(
        &COLUMNS,
        &[
            entry.id.to_string(),
            span(entry.age_s),
            size(entry.size_octets),
            format!("{}/{}", entry.pending, entry.recipients),
            entry.tries.to_string(),
            if entry.next_s == 0 { "-".to_owned() } else { span(entry.next_s) },
            state(entry).to_owned(),
        ],
    );
}

/// `queue list`.
pub(crate) fn list(page: &mut Page, queue: &QueuePage) {
    if queue.messages.is_empty() && !page.goes_on {
        let of = queue.total;
        page.line(&match of {
            0 => "The queue is empty.".to_owned(),
            _ => format!("No message of {of} in the queue is of this kind."),
        });
        return;
    }
    page.head(&COLUMNS);
    for entry in queue.messages.iter() {
        row(page, entry);
        let more = match entry.pending {
            0 | 1 => String::new(),
            pending => format!(" and {} more", pending - 1),
        };
        let (from, to) = (address(&entry.sender), address(&entry.recipient));
        page.line(&format!("  {from} -> {to}{more}"));
        if !entry.last.is_empty() {
            page.line(&format!("  {}", &*entry.last));
        }
    }
    let shown = queue.messages.len();
    match &queue.next {
        Some(_) if page.follows => {}
        None if page.goes_on => page.line(&format!("{} in the queue.", queue.total)),
        Some(next) => page.line(&format!(
            "{shown} of {} in the queue; more: --after {} or --all",
            queue.total, &**next
        )),
        None => page.line(&format!("{shown} shown, {} in the queue.", queue.total)),
    }
}

/// `queue show`.
pub(crate) fn show(page: &mut Page, message: &QueueMessage) {
    let entry = &message.entry;
    page.field("id", &entry.id);
    page.field("session", &message.session);
    if !message.parent.is_empty() {
        page.field("made from", &message.parent);
    }
    page.field("state", state(entry));
    page.field("received", &format!("{}, {} ago", wall(message.received_us), span(entry.age_s)));
    if message.expires_us > 0 {
        page.field("expires", &wall(message.expires_us));
    }
    page.field("size", &format!("{} octets", entry.size_octets));
    page.field("client", &message.client);
    page.field("helo", &message.helo);
    page.field("tls", if message.tls.is_empty() { "none" } else { &message.tls });
    page.field("sender", &address(&entry.sender));
    page.field("envelope id", &message.envelope_id);
    page.field("tries", &entry.tries.to_string());
    if entry.next_s > 0 {
        page.field("next try", &format!("in {}", span(entry.next_s)));
    }
    page.field("recipients", &format!("{}, {} left", entry.recipients, entry.pending));
    for recipient in message.recipients.iter() {
        let state = match recipient.state {
            RecipientState::Pending => "pending",
            RecipientState::Delivered => "delivered",
            RecipientState::HandedOver => "handed over",
            RecipientState::Failed => "failed",
            RecipientState::Held => "held",
            RecipientState::Redirected => "redirected",
            RecipientState::Removed => "removed",
            _ => "?",
        };
        page.line("");
        page.paragraph(0, &address(&recipient.address));
        let hop = match (recipient.next_hop.strip_prefix('@'), &*recipient.next_hop) {
            (Some(host), _) => format!(", moved to {host}"),
            (None, "") => String::new(),
            (None, hop) => format!(" via {hop}"),
        };
        let tries = match recipient.tries {
            1 => "1 try".to_owned(),
            tries => format!("{tries} tries"),
        };
        page.paragraph(2, &format!("{state}, {tries}{hop}"));
        page.paragraph(2, &recipient.last);
    }
    let shown = u32::try_from(message.recipients.len()).unwrap_or(u32::MAX);
    if shown < entry.recipients {
        page.line("");
        page.line(&format!("and {} more recipients", entry.recipients - shown));
    }
}
