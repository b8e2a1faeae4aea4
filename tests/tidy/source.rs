//! The tree as text: source files with their test parts cut off.

use std::fs;
use std::path::{Path, PathBuf};

/// One Rust source file, path relative to the top of the tree.
pub(crate) struct Source {
    pub(crate) path: String,
    /// The lines before the file's test module, which stands last by our habit.
    pub(crate) lines: Vec<String>,
    /// Whether the whole file is test code.
    pub(crate) is_test: bool,
}

/// The top of the checkout.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the tree").to_path_buf()
}

/// Every Rust file below the folders that hold code.
pub(crate) fn all() -> Vec<Source> {
    let top = top();
    let mut files = Vec::new();
    for folder in ["daemon", "ebpf", "image", "benches", "tools", "tests"] {
        collect(&top.join(folder), &mut files);
    }
    files.sort();
    assert!(files.len() > 10, "found only {} files: looking in the wrong place", files.len());
    files.iter().map(|path| read(&top, path)).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && name != "fixtures" && name != "corpus" {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

fn read(top: &Path, path: &Path) -> Source {
    let text = fs::read_to_string(path).expect("source is UTF-8");
    let name = path.strip_prefix(top).expect("below top").to_string_lossy().into_owned();
    let mut lines: Vec<String> = Vec::new();
    let all: Vec<&str> = text.lines().collect();
    for (n, line) in all.iter().enumerate() {
        let gate = line.trim_start().starts_with("#[cfg(test)]");
        let module = all[n + 1..].iter().find(|l| !l.trim_start().starts_with("#["));
        if gate && module.is_some_and(|l| l.contains("mod ") && l.trim_end().ends_with('{')) {
            break;
        }
        lines.push((*line).to_owned());
    }
    let is_test = name.starts_with("tests/")
        || name.contains("/tests/")
        || name.contains("/benches/")
        || name.contains("/examples/")
        || name.ends_with("/tests.rs")
        || name.ends_with("_tests.rs")
        || name.contains("/fuzz/");
    Source { path: name, lines, is_test }
}

impl Source {
    /// Code without line comments and without what stands between quotes, line by line.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, String)> + '_ {
        self.lines.iter().enumerate().map(|(n, line)| (n + 1, bare(line)))
    }
}

/// A line without its comment and its string literals.
fn bare(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted => {
                chars.next();
            }
            '\'' if !quoted && chars.peek() == Some(&'"') => {
                chars.next();
                chars.next();
            }
            '"' => quoted = !quoted,
            '/' if !quoted && chars.peek() == Some(&'/') => break,
            _ if quoted => {}
            _ => out.push(c),
        }
    }
    out
}
