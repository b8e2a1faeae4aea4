//! Completion of a line off the command tree.

use clap::Command;
use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

/// Words of the interactive line alone.
const OWN: [&str; 3] = ["help", "menu", "quit"];

/// The tree.
pub(crate) struct Words(pub(crate) Command);

impl Words {
    /// Where the word under way begins, and what it may become.
    pub(crate) fn candidates(&self, before: &str) -> (usize, Vec<String>) {
        let start = before.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let (done, begun) = before.split_at(start);
        let (mut at, mut depth) = (&self.0, 0);
        for word in done.split_whitespace() {
            if let Some(below) = at.find_subcommand(word) {
                (at, depth) = (below, depth + 1);
            }
        }
        let mut found: Vec<String> = Vec::new();
        if begun.starts_with('-') {
            let options = at.get_arguments().chain(self.0.get_arguments());
            found.extend(options.filter_map(|arg| Some(format!("--{}", arg.get_long()?))));
        } else {
            found.extend(at.get_subcommands().map(|below| below.get_name().to_owned()));
            if depth == 0 {
                found.extend(OWN.map(str::to_owned));
            }
            for argument in at.get_positionals() {
                let values = argument.get_possible_values();
                found.extend(values.iter().map(|value| value.get_name().to_owned()));
            }
        }
        found.retain(|word| word.starts_with(begun));
        found.sort_unstable();
        found.dedup();
        if let [only] = &mut found[..] {
            only.push(' ');
        }
        (start, found)
    }
}

impl Completer for Words {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.candidates(line.get(..at).unwrap_or_default()))
    }
}

impl Hinter for Words {
    type Hint = String;
}
impl Highlighter for Words {}
impl Validator for Words {}
impl Helper for Words {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_options_and_values_come_from_the_tree() {
        let words = Words(crate::table::command());
        assert_eq!(words.candidates("stat"), (0, vec!["status ".to_owned()]));
        assert_eq!(words.candidates("queue fre"), (6, vec!["freeze ".to_owned()]));
        assert!(words.candidates("queue list --").1.contains(&"--sender".to_owned()));
        assert!(words.candidates("status --js").1.contains(&"--json ".to_owned()));
        assert!(words.candidates("").1.contains(&"menu".to_owned()));
        assert!(words.candidates("log level ").1.contains(&"info".to_owned()));
        assert!(words.candidates("nonsense --x").1.is_empty());
    }
}
