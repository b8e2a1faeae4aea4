//! Pages of stories, tables and summaries.

use control::{Backlog, Rows, Story, Summary};

use crate::page::{Align, Column, Page};
use crate::text::{COLUMNS, size, span, wall};

/// `why`, `log tail`, `log grep`.
pub(crate) fn story(page: &mut Page, story: &Story) {
    let raw = story.next.is_some() || story.lines.iter().all(|line| &*line.source == "config");
    for sum in story.sums.iter() {
        page.paragraph(0, sum);
    }
    if !story.sums.is_empty() && !story.lines.is_empty() {
        page.line("");
    }
    if story.left_out > 0 {
        page.line(&format!("({} older lines are left out)", story.left_out));
    }
    for line in story.lines.iter() {
        if raw {
            page.paragraph(0, &line.text);
            continue;
        }
        let at = if line.at_us == 0 { String::new() } else { format!("{} ", wall(line.at_us)) };
        let id = if line.id.is_empty() { String::new() } else { format!("{} ", &*line.id) };
        page.line(&format!("{at}{id}{} ({})", &*line.what, &*line.source));
        page.paragraph(4, &line.text);
    }
}

/// Whether anything is known.
pub(crate) fn knows(story: &Story) -> bool {
    !story.lines.is_empty()
}

/// Any table: each column as wide as it must be, the last takes what is left.
pub(crate) fn rows(page: &mut Page, rows: &Rows) {
    for note in rows.notes.iter() {
        page.paragraph(0, note);
    }
    if rows.rows.is_empty() {
        if rows.notes.is_empty() {
            page.line("None.");
        }
        return;
    }
    let mut widths: Vec<usize> = rows.columns.iter().map(|column| column.len()).collect();
    for row in rows.rows.iter() {
        for (width, cell) in widths.iter_mut().zip(row.iter()) {
            *width = (*width).max(cell.len()).min(COLUMNS / 2);
        }
    }
    let last = widths.len().saturating_sub(1);
    let cells = |cells: Vec<&str>| {
        let mut line = String::new();
        for (n, (cell, width)) in cells.into_iter().zip(&widths).enumerate() {
            let cell = crate::text::plain(cell);
            let cell = if n == last { cell } else { format!("{:<width$} ", cell) };
            line.push_str(&cell);
        }
        line
    };
    page.line(&cells(rows.columns.iter().map(|column| &**column).collect()));
    for row in rows.rows.iter() {
        let line = cells(row.iter().map(|cell| &**cell).collect());
        if line.len() <= COLUMNS {
            page.line(&line);
        } else {
            page.paragraph(0, &line);
        }
    }
}

const COLUMNS_OF_HOPS: [Column; 7] = [
    ("messages", 9, Align::Right),
    ("size", 6, Align::Right),
    ("held", 6, Align::Right),
    ("oldest", 7, Align::Right),
    ("newest", 7, Align::Right),
    ("closed", 7, Align::Right),
    ("next hop", 0, Align::Left),
];

fn backlog(page: &mut Page, of: &Backlog, name: &str) {
    let closed = if of.closed_s == 0 { "-".to_owned() } else { span(of.closed_s) };
    let cells = [
        of.messages.to_string(),
        size(of.octets),
        of.held.to_string(),
        span(of.oldest_s),
        span(of.newest_s),
        closed,
        name.to_owned(),
    ];
    page.row(&COLUMNS_OF_HOPS, &cells);
}

/// `queue summary`.
pub(crate) fn summary(page: &mut Page, summary: &Summary) {
    if summary.total.messages == 0 {
        page.line("The queue is empty.");
        return;
    }
    page.head(&COLUMNS_OF_HOPS);
    for hop in summary.next_hops.iter() {
        backlog(page, hop, &hop.next_hop);
        if !hop.last.is_empty() {
            page.line(&format!("          {}", &*hop.last));
        }
    }
    backlog(page, &summary.total, "all");
    let ages = summary.total.ages;
    page.line(&format!(
        "age: {} under 5m, {} under 1h, {} under 6h, {} under 1d, {} under 3d, {} more",
        ages[0], ages[1], ages[2], ages[3], ages[4], ages[5]
    ));
}
