//! `./x image --reproduce`: kernel and programs built twice in different folders, compared with
//! each other and with what is committed.
//!
//! *Guarantees*: the second kernel is unpacked and compiled elsewhere; the second programs come
//! from a copy of the tree below another path into an empty target folder.
//! *Failure*: the first file that differs is named, with both digests.
//! *Limits*: the record is of the commit that wrote it. With other inputs, as after every change
//! of the code, those that differ are named and the two builds are compared with each other alone;
//! from the same inputs other outputs are an error.
//! *Not here*: the assembly, which `image::build` among the tests does twice; its digests depend
//! on the key that signs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::kernel;
use super::programs;
use super::tool::{
    cache, copy, digest, digest_of, done, folder, fresh, package, read, tool, write,
};

const RECORD: &str = "image/reproduced.table";
const HEAD: &str = "\
# Written by `./x image --reproduce --write`: what went in, and what came out twice.
# part | input or output | name | version or SHA-256
";
/// Parts of the tree that are in no program.
const ELSEWHERE: &[&str] = &[
    "docs/",
    "tests/",
    "benches/",
    "kernel-config/",
    "tools/xtask/",
    "tools/mxbench/",
    "image/examples/",
    "README.md",
    "CHANGELOG.md",
    RECORD,
    "x",
];

/// A line of the record without its part.
type Line = (&'static str, String, String);

/// What the words ask for.
pub(crate) fn reproduce(words: &[String]) -> Result<(), String> {
    let (mut parts, mut write) = (Vec::new(), false);
    for word in words {
        match word.as_str() {
            "--write" => write = true,
            "kernel" => parts.push("kernel"),
            "programs" => parts.push("programs"),
            _ => return Err(format!("{word} is not known; ./x image help")),
        }
    }
    if parts.is_empty() {
        parts = vec!["programs", "kernel"];
    }
    for part in parts {
        let lines = match part {
            "kernel" => twice_kernel()?,
            _ => twice_programs()?,
        };
        compare(part, &lines, write)?;
    }
    Ok(())
}

/// Holds both builds of each file against each other.
fn outputs(names: &[&str], first: &Path, second: &Path) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for name in names {
        let [a, b] = [digest(&first.join(name))?, digest(&second.join(name))?];
        if a != b {
            return Err(format!(
                "{name} is not reproducible:\n{a} {}\n{b} {}",
                first.join(name).display(),
                second.join(name).display()
            ));
        }
        println!("{name} {a}: the same twice");
        lines.push(("output", (*name).to_owned(), a));
    }
    Ok(lines)
}

fn place() -> Result<PathBuf, String> {
    let place = cache()?.join("reproduce/a-longer/path-to-the");
    folder(&place)?;
    Ok(place)
}

fn twice_kernel() -> Result<Vec<Line>, String> {
    let mut lines: Vec<Line> =
        kernel::inputs()?.into_iter().map(|(name, value)| ("input", name, value)).collect();
    let first = kernel::build()?;
    // What an interrupted run left whole is used.
    let second = place()?.join("kernel");
    let again = kernel::build_in(&second)?;
    let [a, b] = [first.image(), again.image()];
    let names = ["bzImage", "gen_init_cpio", "release"];
    lines.extend(outputs(&names, parent(&a), parent(&b))?);
    fs::remove_dir_all(&second).map_err(|e| format!("{}: {e}", second.display()))?;
    Ok(lines)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn twice_programs() -> Result<Vec<Line>, String> {
    let files = tracked()?;
    let mut lines: Vec<Line> = Vec::new();
    lines.push(("input", "rustc".to_owned(), done(tool("rustc").arg("-V"))?.trim().to_owned()));
    for name in ["gcc-12", "binutils", "libc6-dev"] {
        lines.push(("input", name.to_owned(), package(name)?));
    }
    lines.push(("input", "Cargo.lock".to_owned(), digest(Path::new("Cargo.lock"))?));
    lines.push(("input", "sources".to_owned(), digest_of(&sources(&files)?)));
    // Profiles that the environment changes are inputs too.
    let mut profile: Vec<String> = std::env::vars()
        .filter(|(name, _)| name.starts_with("CARGO_PROFILE_"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    profile.sort();
    if !profile.is_empty() {
        return Err(format!("the release profile is changed by {}", profile.join(" ")));
    }
    let first = programs::build()?;
    let tree = place()?.join("tree");
    fresh(&tree)?;
    for file in &files {
        let to = tree.join(file);
        folder(parent(&to))?;
        copy(Path::new(file), &to)?;
    }
    let target = place()?.join("target");
    fresh(&target)?;
    println!("programs: built in {}; once more in {}", first.display(), target.display());
    let second = programs::build_in(&tree, &target)?;
    lines.extend(outputs(&programs::NAMES, &first, &second)?);
    for path in [&tree, &target] {
        fs::remove_dir_all(path).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(lines)
}

/// Every file of the tree that git knows.
fn tracked() -> Result<Vec<String>, String> {
    let said = done(Command::new("git").args(["ls-files", "-z"]))?;
    let files = said.split('\0').filter(|name| !name.is_empty() && Path::new(name).is_file());
    Ok(files.map(str::to_owned).collect())
}

/// What the programs are made of, a name and a digest a line.
fn sources(files: &[String]) -> Result<String, String> {
    let mut text = String::new();
    for file in files.iter().filter(|file| is_source(file)) {
        let _ = writeln!(text, "{file} {}", digest(Path::new(file))?);
    }
    Ok(text)
}

fn is_source(file: &str) -> bool {
    !ELSEWHERE
        .iter()
        .any(|place| file == *place || (place.ends_with('/') && file.starts_with(place)))
}

/// Holds a part against the record, or writes it there.
fn compare(part: &str, lines: &[Line], write_it: bool) -> Result<(), String> {
    let path = Path::new(RECORD);
    let known = if path.exists() { read(path)? } else { Vec::new() };
    let known = String::from_utf8_lossy(&known).into_owned();
    let ours: Vec<String> = lines
        .iter()
        .map(|(kind, name, value)| format!("{part} | {kind} | {name} | {value}"))
        .collect();
    if write_it {
        write(path, with_part(&known, part, &ours))?;
        println!("{part}: {RECORD} is written");
        return Ok(());
    }
    match held(&known, part, &ours) {
        Held::Same => println!("{part}: as {RECORD} says"),
        Held::OtherInputs(which) => println!(
            "{part}: the same twice. {RECORD} is of other inputs, so its outputs say nothing; \
             --write renews it:\n{}",
            which.join("\n")
        ),
        Held::OtherOutputs(which) => {
            return Err(format!(
                "{part}: from the same inputs {RECORD} has others:\n{}",
                which.join("\n")
            ));
        }
    }
    Ok(())
}

/// The record with these lines in the place of the part's.
fn with_part(known: &str, part: &str, ours: &[String]) -> String {
    let of_part = |line: &&str| line.split(" | ").next() == Some(part);
    let others = known.lines().filter(|line| !line.starts_with('#') && !of_part(line));
    let mut all: Vec<String> = others.map(str::to_owned).chain(ours.iter().cloned()).collect();
    // Parts in one order, whichever was written first; lines of a part as they came.
    all.sort_by(|a, b| a.split(" | ").next().cmp(&b.split(" | ").next()));
    let body: String = all.iter().map(|line| format!("{line}\n")).collect();
    format!("{HEAD}{body}")
}

/// What the record says of a build.
#[derive(Debug, PartialEq, Eq)]
enum Held {
    Same,
    /// Nothing: it is of these other inputs.
    OtherInputs(Vec<String>),
    /// The same inputs gave something else.
    OtherOutputs(Vec<String>),
}

/// Holds a part's lines against the record's.
fn held(known: &str, part: &str, ours: &[String]) -> Held {
    let theirs: Vec<&str> =
        known.lines().filter(|line| line.split(" | ").next() == Some(part)).collect();
    let differing = |kind: &str| -> Vec<String> {
        let of = |line: &&str| line.split(" | ").nth(1) == Some(kind);
        let ours: Vec<&str> = ours.iter().map(String::as_str).filter(of).collect();
        let theirs: Vec<&str> = theirs.iter().copied().filter(of).collect();
        let gone = theirs.iter().filter(|l| !ours.contains(l)).map(|l| format!("record: {l}"));
        let new = ours.iter().filter(|l| !theirs.contains(l)).map(|l| format!("here:   {l}"));
        gone.chain(new).collect()
    };
    let (inputs, outputs) = (differing("input"), differing("output"));
    match (inputs.is_empty(), outputs.is_empty()) {
        (false, _) => Held::OtherInputs(inputs),
        (true, false) => Held::OtherOutputs(outputs),
        (true, true) => Held::Same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &str = "# x\nkernel | input | gcc-12 | 1\nkernel | output | bzImage | aa\n\
        programs | output | init | bb\n";

    fn lines(gcc: &str, image: &str) -> Vec<String> {
        vec![
            format!("kernel | input | gcc-12 | {gcc}"),
            format!("kernel | output | bzImage | {image}"),
        ]
    }

    #[test]
    fn what_differs_is_named_and_other_inputs_are_no_verdict() {
        assert_eq!(held(KNOWN, "kernel", &lines("1", "aa")), Held::Same);
        let Held::OtherOutputs(wrong) = held(KNOWN, "kernel", &lines("1", "cc")) else { panic!() };
        let wrong = wrong.join("\n");
        assert!(wrong.contains("bzImage | aa") && wrong.contains("bzImage | cc"), "{wrong}");
        let Held::OtherInputs(which) = held(KNOWN, "kernel", &lines("2", "cc")) else { panic!() };
        let which = which.join("\n");
        assert!(which.contains("gcc-12 | 1") && which.contains("gcc-12 | 2"), "{which}");
        assert!(!which.contains("bzImage"), "{which}");
        // A record that does not know the part says nothing of it.
        assert!(matches!(held("", "kernel", &lines("1", "aa")), Held::OtherInputs(_)));
    }

    #[test]
    fn a_part_is_written_beside_the_other() {
        let text = with_part(KNOWN, "kernel", &lines("2", "cc"));
        assert!(text.starts_with(HEAD));
        assert!(text.contains("bzImage | cc") && text.contains("init | bb"), "{text}");
        assert!(!text.contains("bzImage | aa"), "{text}");
        assert_eq!(with_part(&text, "kernel", &lines("2", "cc")), text);
    }

    #[test]
    fn files_that_are_in_no_program_do_not_count() {
        assert!(is_source("daemon/spool/src/lib.rs") && is_source("image/init/src/main.rs"));
        assert!(!is_source("docs/image.md") && !is_source(RECORD) && !is_source("x"));
    }
}
