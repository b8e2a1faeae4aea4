//! A page for people: lines of at most 79 columns.

use serde_json::{Value, json};

use crate::text::{COLUMNS, fit, plain, wrap};

/// Lines, as they will be printed.
#[derive(Debug, Default)]
pub(crate) struct Page {
    out: String,
    /// The same for programs, of a command that asks no daemon.
    json: Option<Value>,
    /// Pages of the same list were printed before this one: no headings again.
    pub(crate) goes_on: bool,
    /// The next page of the list is asked for by itself: no word on how to get it.
    pub(crate) follows: bool,
}

/// How a column stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Align {
    Left,
    Right,
}

/// One column: its heading, its width, how it stands.
pub(crate) type Column = (&'static str, usize, Align);

/// One line of `--json`, in the form of the daemon's own replies.
pub(crate) fn reply(name: &str, with: Value) -> Value {
    let fields = [("reply".to_owned(), name.into()), ("with".to_owned(), with)];
    Value::Object(fields.into_iter().collect())
}

impl Page {
    /// A page of a list that is printed page after page.
    pub(crate) fn of_list(goes_on: bool, follows: bool) -> Self {
        Self { goes_on, follows, ..Self::default() }
    }

    /// The text so far.
    pub(crate) fn into_text(self) -> String {
        self.out
    }

    /// What `--json` prints in the text's place: `{"reply": name, "with": facts}`.
    pub(crate) fn facts(&mut self, name: &str, facts: Value) {
        self.json = Some(reply(name, facts));
    }

    /// The page for programs: its facts, or its text as what was done.
    pub(crate) fn into_json(self) -> String {
        let text = self.out.trim_end();
        let json = self.json.unwrap_or_else(|| reply("done", json!({ "message": text })));
        format!("{json}\n")
    }

    /// One line; what is beyond the last column is cut.
    pub(crate) fn line(&mut self, text: &str) {
        self.out.push_str(fit(text, COLUMNS).trim_end());
        self.out.push('\n');
    }

    /// Text over as many lines as it needs, each behind so many spaces.
    pub(crate) fn paragraph(&mut self, indent: usize, text: &str) {
        for line in wrap(text, COLUMNS - indent) {
            self.line(&format!("{:indent$}{line}", ""));
        }
    }

    /// A name and its value; a long value goes on below itself.
    pub(crate) fn field(&mut self, name: &str, value: &str) {
        const NAME_COLUMNS: usize = 14;
        let lines = wrap(value, COLUMNS - NAME_COLUMNS - 1);
        let mut name = name;
        for line in lines {
            self.line(&format!("{name:NAME_COLUMNS$} {line}"));
            name = "";
        }
    }

    /// The headings of a table.
    pub(crate) fn head(&mut self, columns: &[Column]) {
        if self.goes_on {
            return;
        }
        let heads: Vec<String> = columns.iter().map(|(head, ..)| (*head).to_owned()).collect();
        self.row(columns, &heads);
    }

    /// A row of a table. A last column on the left takes what room is left.
    pub(crate) fn row(&mut self, columns: &[Column], cells: &[String]) {
        let mut line = String::new();
        for (n, ((_, width, align), cell)) in columns.iter().zip(cells).enumerate() {
            if n > 0 {
                line.push(' ');
            }
            let last = n + 1 == columns.len();
            match align {
                Align::Left if last => line.push_str(&plain(cell)),
                Align::Left => line.push_str(&format!("{:<width$}", fit(cell, *width))),
                Align::Right => line.push_str(&format!("{:>width$}", fit(cell, *width))),
            }
        }
        self.line(&line);
    }

    /// Text that is printed as it stands, such as the metrics page.
    pub(crate) fn verbatim(&mut self, text: &str) {
        self.out.push_str(text);
        if !text.ends_with('\n') {
            self.out.push('\n');
        }
    }
}
