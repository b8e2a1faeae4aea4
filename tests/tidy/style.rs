//! Bans with their replacement, headers, lengths.

use super::source::{self, Source};

struct Ban {
    word: &'static str,
    /// Path prefixes where the word is at home.
    home: &'static [&'static str],
    tests_may: bool,
    instead: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        word: ".unwrap()",
        home: &[],
        tests_may: true,
        instead: "expect(\"why it holds\"), or an error value",
    },
    Ban {
        word: "unsafe ",
        home: &["daemon/engine/", "benches/src/floor", "daemon/gate/src/sys.rs", "ebpf/filter/"],
        tests_may: false,
        instead: "a call of the engine crate",
    },
    Ban {
        word: "io_uring::",
        home: &[
            "daemon/engine/",
            "benches/src/floor",
            "benches/src/ring",
            // `tokio_uring::` has the word in it.
            "daemon/ringpostd/src/house.rs",
            "benches/examples/runtimes.rs",
        ],
        tests_may: false,
        instead: "the engine crate",
    },
    Ban {
        word: "tokio",
        home: &["daemon/ringpostd/src/house"],
        tests_may: true,
        instead: "the house thread: the cores run no async runtime",
    },
    Ban {
        word: "Mutex",
        // The watch over a line is a thread beside the one that reads it.
        home: &["daemon/ringpostd/src/house", "tools/console/src/guard.rs"],
        tests_may: true,
        instead: "a bounded queue to the owner, or an atomic",
    },
    Ban {
        word: "RwLock",
        home: &["daemon/ringpostd/src/house"],
        tests_may: true,
        instead: "a whole value swapped by mailbox",
    },
    Ban {
        word: "mpsc",
        home: &["daemon/ringpostd/src/house"],
        tests_may: true,
        instead: "engine's bounded mailbox",
    },
    Ban { word: "todo!", home: &[], tests_may: false, instead: "the thing itself" },
    Ban { word: "unimplemented!", home: &[], tests_may: false, instead: "the thing itself" },
    Ban { word: "FIXME", home: &[], tests_may: false, instead: "the mended line" },
    Ban {
        word: "#[ignore",
        // Parts that their test runs again in a process of its own.
        home: &["daemon/engine/tests/machine.rs", "tests/xdp/"],
        tests_may: false,
        instead: "a test that runs",
    },
    Ban { word: "dbg!", home: &[], tests_may: false, instead: "an event" },
];

/// Longest file, in lines before its tests.
const FILE_LINES_MAX: usize = 800;
/// The same for files that are tests themselves.
const TEST_FILE_LINES_MAX: usize = 800;
const COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
/// Functions over the length that stand today. May only fall.
const LONG_FUNCTIONS_MAX: usize = 0;

fn fail_with(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} places:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn banned_words_stay_in_their_homes() {
    let mut wrong = Vec::new();
    for file in source::all().iter().filter(|f| !f.path.starts_with("tests/tidy/")) {
        for ban in BANS {
            let at_home = ban.home.iter().any(|h| file.path.starts_with(h));
            if at_home || (ban.tests_may && file.is_test) {
                continue;
            }
            for (n, line) in file.code().filter(|(_, l)| l.contains(ban.word)) {
                // Attributes that forbid or expect a thing are no use of it.
                if ban.word == "unsafe " && line.contains("unsafe_code") {
                    continue;
                }
                wrong.push(format!("{}:{n}: {} -> {}", file.path, ban.word, ban.instead));
            }
        }
    }
    fail_with(&wrong);
}

#[test]
fn spool_names_the_engine_in_one_file() {
    let mut wrong = Vec::new();
    for file in source::all().iter().filter(|f| f.path.starts_with("daemon/spool/src/")) {
        if file.path.contains("/driver") || file.is_test {
            continue;
        }
        for (n, line) in file.code().filter(|(_, l)| l.contains("engine::")) {
            wrong.push(format!("{}:{n}: engine belongs to driver.rs: {}", file.path, line.trim()));
        }
    }
    fail_with(&wrong);
}

#[test]
fn inbound_and_outbound_meet_in_the_spool() {
    let mut wrong = Vec::new();
    for file in source::all().iter().filter(|f| f.path.starts_with("daemon/ringpostd/src/inbound"))
    {
        for (n, line) in file.code() {
            if line.contains("queue::") || line.contains("outbound::") {
                wrong.push(format!("{}:{n}: inbound may not know queue or outbound", file.path));
            }
        }
    }
    fail_with(&wrong);
}

#[test]
fn every_file_opens_with_its_purpose() {
    let wrong: Vec<String> = source::all()
        .iter()
        .filter(|f| !f.lines.first().is_some_and(|l| l.starts_with("//! ")))
        .map(|f| format!("{}: the first line is no `//!` sentence of purpose", f.path))
        .collect();
    fail_with(&wrong);
}

#[test]
fn lines_and_files_are_short() {
    let mut wrong = Vec::new();
    for file in &source::all() {
        for (n, line) in file.lines.iter().enumerate() {
            if line.chars().count() > COLUMNS_MAX {
                wrong.push(format!("{}:{}: over {COLUMNS_MAX} columns", file.path, n + 1));
            }
        }
        let most = if file.is_test { TEST_FILE_LINES_MAX } else { FILE_LINES_MAX };
        if file.lines.len() > most {
            let lines = file.lines.len();
            wrong.push(format!("{}: {lines} lines, at most {most}", file.path));
        }
    }
    fail_with(&wrong);
}

/// Start line and length of each function, by the indentation of its closing brace.
fn functions(file: &Source) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (start, line) in file.lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let head = line.trim_start();
        let head = ["pub ", "pub(crate) ", "pub(super) ", "const ", "async ", "unsafe "]
            .iter()
            .fold(head, |h, word| h.strip_prefix(word).unwrap_or(h));
        if !head.starts_with("fn ") {
            continue;
        }
        // A signature of a trait has no body: it ends before anything opens.
        let opens = |l: &&String| l.trim_end().ends_with(['{', ';', '}']);
        let signature_end = file.lines[start..].iter().find(opens);
        if signature_end.is_some_and(|l| l.trim_end().ends_with(';')) {
            continue;
        }
        let end = file.lines[start..].iter().position(|l| {
            l.len() > indent
                && l.as_bytes()[indent] == b'}'
                && l[..indent].chars().all(|c| c == ' ')
        });
        if let Some(length) = end {
            found.push((start + 1, length + 1));
        }
    }
    found
}

#[test]
fn a_signature_is_no_function() {
    let text = "trait A {\n    fn a(\n        b: u8,\n    ) -> u8;\n    fn c(&self) {\n        \
                d();\n    }\n    fn e() {}\n}\n";
    let lines = text.lines().map(str::to_owned).collect();
    let file = Source { path: "x.rs".to_owned(), lines, is_test: false };
    assert_eq!(functions(&file).first(), Some(&(5, 3)));
}

#[test]
fn functions_fit_a_screen() {
    let mut long = Vec::new();
    let mut all = 0;
    for file in source::all().iter().filter(|f| !f.is_test) {
        for (start, length) in functions(file) {
            all += 1;
            if length > FUNCTION_LINES_MAX {
                long.push(format!("{}:{start}: {length} lines", file.path));
            }
        }
    }
    assert!(all > 50, "the function finder found only {all}");
    assert_eq!(
        long.len().saturating_sub(LONG_FUNCTIONS_MAX),
        0,
        "{} functions over {FUNCTION_LINES_MAX} lines, at most {LONG_FUNCTIONS_MAX}:\n{}",
        long.len(),
        long.join("\n")
    );
}

#[test]
fn the_tree_speaks_of_itself_alone() {
    let top = source::top();
    let listed = std::process::Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(&top)
        .output()
        .expect("git is there");
    let mut wrong = Vec::new();
    let machine = ["/wor\u{6b}/", "/far\u{6d}/", "/roo\u{74}/.cargo", "artifactor\u{79}"];
    for name in listed.stdout.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        let Ok(text) = std::fs::read_to_string(top.join(&name)) else { continue };
        for (n, line) in text.lines().enumerate() {
            if machine.iter().any(|m| line.contains(m)) {
                wrong.push(format!("{name}:{}: names a machine's path", n + 1));
            }
        }
    }
    fail_with(&wrong);
}
