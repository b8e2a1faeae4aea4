//! The two gates of the kernel's configuration.
//!
//! Gate 1: every line of every fragment is in the result; Kconfig drops silently what it does not
//! like. Gate 2: `hardening.table`: each option has the value its source wants, or a reason why
//! not; a reason that is no longer needed is an error too.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Options with their values; what is not set is not there.
pub(crate) type Config = BTreeMap<String, String>;

/// Reads all fragments of a folder, in the order of their names. Each line has its reason.
pub(crate) fn fragments(folder: &Path) -> Result<Config, String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.ends_with(".config") && name.starts_with(|c: char| c.is_ascii_digit())
    });
    files.sort();
    let mut all = Config::new();
    for path in &files {
        let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        fragment(&text, &mut all).map_err(|why| format!("{}:{why}", path.display()))?;
    }
    Ok(all)
}

fn fragment(text: &str, all: &mut Config) -> Result<(), String> {
    for (n, line) in text.lines().enumerate() {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let read = || {
            let (setting, reason) = line.split_once(" # ")?;
            let (name, value) = setting.trim_end().split_once('=')?;
            (name.starts_with("CONFIG_") && !reason.trim().is_empty()).then_some((name, value))
        };
        let (name, value) = read().ok_or_else(|| format!("{}: no setting with a reason", n + 1))?;
        if all.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(format!("{}: {name} stands twice", n + 1));
        }
    }
    Ok(())
}

/// What Kconfig is given.
pub(crate) fn plain(wanted: &Config) -> String {
    let line = |(name, value): (&String, &String)| match value.as_str() {
        "n" => format!("# {name} is not set\n"),
        _ => format!("{name}={value}\n"),
    };
    wanted.iter().map(line).collect()
}

/// Reads a kernel's `.config`, without what names the compiler.
pub(crate) fn result(text: &str) -> Config {
    let setting = |line: &str| {
        let (name, value) = line.strip_prefix("CONFIG_").and_then(|_| line.split_once('='))?;
        let compiler = name.ends_with("_VERSION") || name == "CONFIG_CC_VERSION_TEXT";
        (!compiler).then(|| (name.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(setting).collect()
}

fn value<'a>(config: &'a Config, name: &str) -> &'a str {
    config.get(name).map_or("n", String::as_str)
}

/// Gate 1: what was asked for and is not there.
pub(crate) fn dropped(wanted: &Config, result: &Config) -> Vec<String> {
    let missing = |(name, wanted): (&String, &String)| {
        let got = value(result, name);
        (got != wanted).then(|| format!("{name}: {wanted} was asked for, Kconfig made it {got}"))
    };
    wanted.iter().filter_map(missing).collect()
}

/// Gate 2: what the table says and is not so.
pub(crate) fn unhardened(table: &str, result: &Config) -> Vec<String> {
    let mut wrong = Vec::new();
    for (n, line) in table.lines().enumerate() {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [name, wanted, source, reason] = fields[..] else {
            wrong.push(format!("hardening.table:{}: option | value | source | reason", n + 1));
            continue;
        };
        let got = value(result, name);
        match (got == wanted, reason.is_empty()) {
            (true, true) | (false, false) => {}
            (false, true) => {
                wrong.push(format!("{name} is {got}; {source} wants {wanted}: set it, or say why"));
            }
            (true, false) => wrong.push(format!("{name} is {got}: its reason is stale: {reason}")),
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernel-config")
    }

    fn read(name: &str) -> String {
        fs::read_to_string(folder().join(name)).expect("part of the tree")
    }

    #[test]
    fn every_line_of_the_fragments_is_in_the_kernel() {
        let wanted = fragments(&folder()).unwrap();
        assert!(wanted.len() > 300, "only {} lines were read", wanted.len());
        assert_eq!(dropped(&wanted, &result(&read("result.config"))), Vec::<String>::new());
    }

    #[test]
    fn the_kernel_is_as_hard_as_the_table_says() {
        let table = read("hardening.table");
        assert!(table.lines().filter(|l| l.contains('|')).count() > 100, "the table is read");
        assert_eq!(unhardened(&table, &result(&read("result.config"))), Vec::<String>::new());
    }

    #[test]
    fn the_gates_see_what_they_are_for() {
        let got = result("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_GCC_VERSION=1\n");
        assert_eq!(got.len(), 1);
        let mut wanted = Config::new();
        fragment("CONFIG_A=y # a\nCONFIG_B=n # b\n", &mut wanted).unwrap();
        assert!(dropped(&wanted, &got).is_empty());
        assert!(fragment("CONFIG_A=y # twice\n", &mut wanted).unwrap_err().contains("twice"));
        assert!(fragment("CONFIG_C=y\n", &mut wanted).unwrap_err().contains("reason"));
        fragment("CONFIG_C=y # c\n", &mut wanted).unwrap();
        assert_eq!(dropped(&wanted, &got).len(), 1);
        assert!(unhardened("CONFIG_A | y | kspp | ", &got).is_empty());
        assert!(unhardened("CONFIG_B | y | kspp | slow", &got).is_empty());
        assert_eq!(unhardened("CONFIG_B | y | kspp | \nCONFIG_A | y | kspp | x", &got).len(), 2);
    }
}
