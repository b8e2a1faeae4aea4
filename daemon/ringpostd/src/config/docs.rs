//! `docs/config.md`, written from the tables of keys.

use std::fmt::Write as _;

use super::keys::SECTIONS;
use super::section::{Change, Default, Key, Section};

/// The page, as `ringpostd --print-config-docs` prints it.
#[must_use]
pub fn config_page() -> String {
    let mut page = String::from(
        "# The config file\n\n\
         <!-- Written by `ringpostd --print-config-docs`; a test compares. -->\n\n\
         One TOML file, given with `--config`; `ringpostd --check FILE` says all that is wrong \
         with it.\nAn example that runs as it is: `docs/examples/mx.toml`.\n\n\
         A key that is not written has its default. Unknown keys, and keys that contradict each \
         other,\nrefuse the whole file. `SIGHUP` loads it again: as a whole or, if anything is \
         wrong, not at all.\nSections marked *at start* cannot change then.\n",
    );
    for section in SECTIONS {
        section_text(&mut page, section);
    }
    page
}

/// What a key (`KEY` or `SECTION.KEY`) means, one sentence each; empty if there is none.
#[must_use]
pub fn explain(key: &str) -> Vec<String> {
    let key = key.trim().trim_matches(['[', ']']);
    let mut lines = Vec::new();
    for section in SECTIONS {
        if section.name == key {
            lines.push(format!("{}: {}", section.header(), sentence(section.doc)));
            let names: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
            lines.push(format!("keys: {}", names.join(" ")));
        }
        for k in section.keys {
            let whole = format!("{}.{}", section.name, k.name);
            if k.name != key && whole != key {
                continue;
            }
            let when = match section.change {
                Change::Reload => "at a reload",
                Change::Restart => "at a start",
            };
            lines.push(format!("{} {}: {}", section.header(), k.name, sentence(k.doc)));
            lines.push(format!("value: {}", value_text(k)));
            lines.push(format!("default: {}; it changes {when}", default_text(k)));
        }
    }
    lines
}

fn section_text(page: &mut String, section: &Section) {
    let when = match section.change {
        Change::Reload => "",
        Change::Restart => " *at start*",
    };
    let _ = write!(page, "\n## `{}`{when}\n\n{}\n", section.header(), sentence(section.doc));
    page.push_str("\n| key | value | default | meaning |\n|---|---|---|---|\n");
    for key in section.keys {
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            key.name,
            value_text(key),
            default_text(key),
            sentence(key.doc)
        );
    }
}

fn sentence(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

fn value_text(key: &Key) -> String {
    let bounds = (key.bounds_text)(&key.bounds);
    let bounds = if key.bounds == super::value::FREE { String::new() } else { bounds };
    match bounds.is_empty() {
        true => key.kind.trim_end_matches(';').to_owned(),
        false => format!("{}; {bounds}", key.kind),
    }
}

fn default_text(key: &Key) -> String {
    match key.default {
        Default::Required => "must be written".to_owned(),
        Default::Optional => "none".to_owned(),
        Default::Written(text) => format!("`{text}`"),
    }
}
