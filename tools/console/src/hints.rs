//! Pages about hints.

use control::{Hint, HintsPage};

use crate::page::{Align, Column, Page};
use crate::text::{span, wall};

const COLUMNS: [Column; 4] = [
    ("kind", 16, Align::Left),
    ("age", 7, Align::Right),
    ("left", 7, Align::Right),
    ("key", 0, Align::Left),
];

/// A field's value: wall times as such where they are any.
fn value(name: &str, number: u64) -> String {
    const EARLIEST_US: u64 = 86_400_000_000;
    match name.ends_with("_us") && number >= EARLIEST_US {
        true => wall(number),
        false => number.to_string(),
    }
}

fn row(page: &mut Page, hint: &Hint) {
    let (age, left) = (span(hint.age_s), span(hint.expires_s));
    page.row(&COLUMNS, &[hint.kind.to_string(), age, left, hint.key.to_string()]);
}

/// `hints list`.
pub(crate) fn list(page: &mut Page, hints: &HintsPage) {
    if hints.hints.is_empty() && hints.next.is_none() && !page.goes_on {
        page.line("No hints.");
        return;
    }
    page.head(&COLUMNS);
    for hint in hints.hints.iter() {
        row(page, hint);
    }
    if let Some(next) = hints.next.filter(|_| !page.follows) {
        page.line(&format!("more: --cursor {next} or --all"));
    }
}

/// `hints get`.
pub(crate) fn show(page: &mut Page, hint: &Hint) {
    page.field("kind", &hint.kind);
    page.field("key", &hint.key);
    let (age, left) = (span(hint.age_s), span(hint.expires_s));
    page.field("written", &format!("{age} ago by node {}, {left} left", hint.origin));
    for field in hint.fields.iter() {
        page.field(&field.name, &value(&field.name, field.number));
    }
    page.field("text", &hint.text);
}
