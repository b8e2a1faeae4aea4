//! `./x bench figures`: measures again what `docs/performance.md` shows, and writes there what was
//! printed, word by word.
//!
//! *Failure*: a benchmark that fails, or a page without the place for its output, is named; what
//! was measured before it stands.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const PAGE: &str = "docs/performance.md";

/// A place on the page, and the words behind `./x bench` that fill it.
const SETS: [(&str, &[&str]); 6] = [
    ("own", &[]),
    (
        "tls",
        &[
            "brief",
            "--sizes",
            "4096",
            "--source-argument=--starttls",
            "--source-argument=1",
            "--source-argument=--resumed",
            "--source-argument=0.5",
        ],
    ),
    ("shards", &["shards"]),
    ("peers", &["peers", "--burst", "1"]),
    ("runtimes", &["runtimes"]),
    ("micro", &["micro"]),
];

/// Those named, or all.
pub(crate) fn figures(names: &[String]) -> Result<(), String> {
    let known = || SETS.map(|(name, _)| name).join(", ");
    if let Some(name) = names.iter().find(|name| !SETS.iter().any(|(known, _)| known == name)) {
        return Err(format!("no figures named {name}; there are {}", known()));
    }
    for (name, words) in SETS {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let page = fs::read_to_string(PAGE).map_err(|e| format!("cannot read {PAGE}: {e}"))?;
        // Before an hour is spent.
        with(&page, name, "")?;
        let line = [&["./x", "bench"], words].concat().join(" ");
        println!("{line}");
        let text = format!("```text\n$ {line}\n{}\n```", output(words)?.trim_end());
        fs::write(PAGE, with(&page, name, &text)?)
            .map_err(|e| format!("cannot write {PAGE}: {e}"))?;
        println!("(now in {PAGE}, {name})");
    }
    Ok(())
}

/// What `./x bench` prints, shown while it does.
fn output(words: &[&str]) -> Result<String, String> {
    let me = std::env::current_exe().map_err(|e| format!("cannot find my program: {e}"))?;
    let mut child = Command::new(&me)
        .arg("bench")
        .args(words)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start {}: {e}", me.display()))?;
    let mut text = String::new();
    let folder = std::env::current_dir().map_err(|e| format!("cannot find the folder: {e}"))?;
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let line = line.map_err(|e| format!("cannot read what was printed: {e}"))?;
        println!("{line}");
        // The first line of `measure` is how to do the same by hand, with paths of this machine.
        if !line.starts_with("mxbench ") {
            text += line.replace(&format!("{}/", folder.display()), "").trim_end();
            text.push('\n');
        }
    }
    let status = child.wait().map_err(|e| format!("cannot wait for it: {e}"))?;
    if status.success() {
        Ok(text)
    } else {
        Err(format!("./x bench {}: {status}", words.join(" ")))
    }
}

/// The page with this text in the place of that name.
fn with(page: &str, name: &str, text: &str) -> Result<String, String> {
    let (from, to) = (format!("<!-- figures:{name} -->\n"), format!("<!-- /figures:{name} -->"));
    let place = page.find(&from).and_then(|at| {
        let begin = at + from.len();
        page[begin..].find(&to).map(|end| (begin, begin + end))
    });
    let Some((begin, end)) = place else {
        return Err(format!("{} has no place between {from}and {to}", Path::new(PAGE).display()));
    };
    Ok(format!("{}{text}\n{}", &page[..begin], &page[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_takes_the_place_of_what_stood_there() {
        let page = "a\n<!-- figures:own -->\nold\n<!-- /figures:own -->\nb\n";
        let new = with(page, "own", "1\n2").unwrap();
        assert_eq!(new, "a\n<!-- figures:own -->\n1\n2\n<!-- /figures:own -->\nb\n");
        assert_eq!(with(&new, "own", "old").unwrap(), page);
        assert!(with(page, "peers", "").unwrap_err().contains("figures:peers"));
    }

    #[test]
    fn the_page_has_a_place_for_each() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let page = fs::read_to_string(root.join(PAGE)).unwrap();
        for (name, _) in SETS {
            with(&page, name, "").unwrap();
        }
    }
}
