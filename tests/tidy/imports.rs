//! Who may import whom: between crates, and between the modules of one crate.

use std::collections::BTreeMap;
use std::fs;

use super::source::{self, Source};

/// The crates of ours that a crate may name, and nothing else.
const EDGES: &[(&str, &[&str])] = &[
    ("ebpf/common", &[]),
    ("daemon/smtp", &[]),
    ("daemon/engine", &[]),
    ("daemon/hints", &[]),
    ("daemon/control", &[]),
    ("daemon/gate", &["ebpf-common"]),
    ("daemon/logfiles", &["control"]),
    ("daemon/spool", &["engine", "smtp"]),
    (
        "daemon/ringpostd",
        &["ebpf-common", "smtp", "engine", "spool", "hints", "control", "gate", "logfiles"],
    ),
    ("image/init", &[]),
    ("tools/console", &["control", "spool", "hints", "logfiles"]),
    ("tools/xtask", &[]),
    ("benches", &["smtp", "engine"]),
    (
        "tests",
        &[
            "ebpf-common",
            "smtp",
            "engine",
            "spool",
            "hints",
            "control",
            "gate",
            "ringpostd",
            "mxbench",
        ],
    ),
];

const OURS: &[&str] = &[
    "ebpf-common",
    "smtp",
    "engine",
    "spool",
    "hints",
    "control",
    "gate",
    "logfiles",
    "ringpostd",
    "console",
    "mxbench",
    "xtask",
];

#[test]
fn crates_import_only_downwards() {
    let mut wrong = Vec::new();
    for (folder, allowed) in EDGES {
        let manifest = source::top().join(folder).join("Cargo.toml");
        let text = fs::read_to_string(&manifest).expect("each crate has a manifest");
        let mut section = String::new();
        for line in text.lines() {
            if line.starts_with('[') {
                section = line.to_owned();
            }
            // What only the crate's own tests use does not bind the program.
            if !section.contains("dependencies") || section.contains("dev-dependencies") {
                continue;
            }
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if OURS.contains(&name) && !allowed.contains(&name) {
                wrong.push(format!("{folder}/Cargo.toml: may not depend on {name}"));
            }
        }
    }
    let members = fs::read_to_string(source::top().join("Cargo.toml")).expect("root manifest");
    for line in members.lines().skip_while(|l| !l.starts_with("members")).skip(1) {
        let Some(member) = line.split('"').nth(1) else { break };
        if !EDGES.iter().any(|(f, _)| *f == member) && !member.starts_with("ebpf/") {
            wrong.push(format!("Cargo.toml: {member} has no row of allowed imports in tests/tidy"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The modules of a crate in the order of their `mod` lines.
fn order(root: &Source) -> Vec<String> {
    root.lines
        .iter()
        .filter_map(|line| {
            let line = line.trim_end().strip_suffix(';')?;
            let name = line
                .strip_prefix("pub mod ")
                .or_else(|| line.strip_prefix("pub(crate) mod "))
                .or_else(|| line.strip_prefix("mod "))?;
            Some(name.to_owned())
        })
        .collect()
}

/// The names that follow `crate::` in a line, braces opened.
fn crate_paths(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + 7..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => found.push(std::mem::take(&mut word)),
                    _ if depth == 0 => word.push(c),
                    _ => {}
                }
            }
            found.push(word);
        } else {
            found.push(rest.to_owned());
        }
    }
    found
        .iter()
        .map(|path| path.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn modules_import_only_upwards_in_mod_order() {
    let sources = source::all();
    let mut wrong = Vec::new();
    for (folder, _) in EDGES.iter().filter(|(f, _)| *f != "tests") {
        let roots = ["src/lib.rs", "src/main.rs"].map(|r| format!("{folder}/{r}"));
        let Some(root) = sources.iter().find(|s| roots.contains(&s.path)) else { continue };
        let rank: BTreeMap<String, usize> =
            order(root).into_iter().enumerate().map(|(n, name)| (name, n)).collect();
        for file in sources.iter().filter(|s| !s.is_test) {
            let Some(inside) = file.path.strip_prefix(&format!("{folder}/src/")) else { continue };
            let own = inside.split('/').next().expect("a path").trim_end_matches(".rs");
            let Some(own_rank) = rank.get(own) else { continue };
            for (n, line) in file.code() {
                for target in crate_paths(&line) {
                    if rank.get(&target).is_some_and(|r| r > own_rank) {
                        wrong.push(format!(
                            "{}:{n}: {own} is above {target}: may not import it",
                            file.path
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_order_check_sees_a_wrong_import() {
    assert_eq!(crate_paths("use crate::writer::Writer;"), ["writer"]);
    assert_eq!(crate_paths("use crate::{format::{A, B}, id};"), ["format", "id"]);
    assert!(crate_paths("use std::fs;").is_empty());
}
