//! The table of keys: one `section!` gives the struct, the parser, the checks and the docs of a
//! part of the config.
//!
//! *Guarantees.* A key that no table names refuses the load, with the nearest name. What a key's
//! doc line says is what `docs/config.md` prints.

use std::collections::BTreeMap;

use toml_span::{Span, Value as Toml};

use super::problem::{Place, Problem, Problems, Source};
use super::value::{Bounds, Value, Wrong};

/// What a key that is not written means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Default {
    /// The load is refused.
    Required,
    /// The feature is off, as the doc line says.
    Optional,
    /// As if this had been written.
    Written(&'static str),
}

/// As if `text` had been written behind the `=`.
pub(super) const fn default(text: &'static str) -> Default {
    Default::Written(text)
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) default: Default,
    pub(super) bounds: Bounds,
    pub(super) bounds_text: fn(&Bounds) -> String,
    pub(super) doc: &'static [&'static str],
}

/// When a changed section takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// At the next reload.
    Reload,
    /// At the next start; a reload that changes it is refused.
    Restart,
}

/// Whether a section may stand more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `[name]`
    One,
    /// `[[name]]`
    Many,
}

/// One section: its name with dots, and its keys.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) change: Change,
    pub(super) doc: &'static [&'static str],
    pub(super) keys: &'static [Key],
}

impl Section {
    /// The header as it is written.
    pub(super) fn header(&self) -> String {
        match self.shape {
            Shape::One => format!("[{}]", self.name),
            Shape::Many => format!("[[{}]]", self.name),
        }
    }
}

/// What `section!` writes for each part of the config.
pub(super) trait Part: Sized {
    const SECTION: &'static Section;

    /// Reads all keys; `None` if one of them was wrong (and noted).
    fn read(reader: &mut Reader<'_, '_>) -> Option<Self>;
}

/// Defines a part of the config: a struct with one public field for each key.
macro_rules! section {
    ($(#[doc = $about:literal])+
     $name:literal $shape:ident $change:ident $vis:vis struct $part:ident {
        $($(#[doc = $doc:literal])+ $key:ident: $kind:ty = $default:expr, $bounds:expr;)*
    }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $part {
            $($(#[doc = $doc])+ pub $key: $kind,)*
        }

        impl $crate::config::section::Part for $part {
            const SECTION: &'static $crate::config::section::Section =
                &$crate::config::section::Section {
                    name: $name,
                    shape: $crate::config::section::Shape::$shape,
                    change: $crate::config::section::Change::$change,
                    doc: &[$($about,)+],
                    keys: &[$($crate::config::section::Key {
                        name: stringify!($key),
                        kind: <$kind as $crate::config::value::Value>::KIND,
                        default: $default,
                        bounds: $bounds,
                        bounds_text: <$kind as $crate::config::value::Value>::bounds_text,
                        doc: &[$($doc,)+],
                    },)*],
                };

            fn read(reader: &mut $crate::config::section::Reader<'_, '_>) -> Option<Self> {
                $(let $key = reader.key::<$kind>(stringify!($key));)*
                Some(Self { $($key: $key?,)* })
            }
        }
    };
}
pub(super) use section;

/// Where the keys of one section were written.
#[derive(Debug, Clone)]
pub(super) struct Places {
    section: Span,
    keys: BTreeMap<&'static str, Span>,
}

impl Places {
    /// The place of `key`, or of the section if it was not written.
    pub(super) fn of(&self, key: &str) -> Span {
        self.keys.get(key).copied().unwrap_or(self.section)
    }

    /// Whether `key` was written.
    pub(super) fn wrote(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }
}

/// A part that was read, and where it stood.
#[derive(Debug, Clone)]
pub(super) struct Read<P> {
    pub(super) part: P,
    pub(super) places: Places,
}

/// What is wrong is gathered here, with places made from spans.
#[derive(Debug)]
pub(super) struct Notes<'t> {
    source: Source<'t>,
    pub(super) problems: Problems,
    pub(super) warnings: Problems,
}

impl<'t> Notes<'t> {
    pub(super) fn new(source: Source<'t>) -> Self {
        Self { source, problems: Problems::default(), warnings: Problems::default() }
    }

    pub(super) fn place(&self, span: Span) -> Place {
        self.source.place(span.start)
    }

    /// Notes what is wrong at one place.
    pub(super) fn wrong(&mut self, span: Span, message: String, write: impl Into<String>) {
        let place = self.place(span);
        self.problems.push(Problem { place, message, write: write.into(), other: None });
    }

    /// Notes what may be meant so, but is worth saying.
    pub(super) fn warn(&mut self, span: Span, message: impl Into<String>) {
        let (place, message) = (self.place(span), message.into());
        self.warnings.push(Problem { place, message, write: String::new(), other: None });
    }

    /// Notes that two places contradict each other.
    pub(super) fn contradiction(
        &mut self,
        span: Span,
        message: impl Into<String>,
        write: impl Into<String>,
        other: (Span, &str),
    ) {
        let place = self.place(span);
        let other = Some((self.place(other.0), other.1.to_owned()));
        let (message, write) = (message.into(), write.into());
        self.problems.push(Problem { place, message, write, other });
    }
}

/// Reads the keys of one table.
#[derive(Debug)]
pub(super) struct Reader<'r, 't> {
    table: Option<&'r Toml<'r>>,
    section: &'static Section,
    places: Places,
    notes: &'r mut Notes<'t>,
}

impl Reader<'_, '_> {
    /// The value of one key: as written, or its default; `None` if wrong, which is noted.
    pub(super) fn key<V: Value>(&mut self, name: &'static str) -> Option<V> {
        let key = self.section.keys.iter().find(|key| key.name == name);
        let key = key.expect("the table that names the field names the key");
        let entry = self.table.and_then(Toml::as_table).and_then(|table| table.get_key_value(name));
        match (entry, key.default) {
            (Some((written, value)), _) => {
                self.places.keys.insert(key.name, written.span);
                V::read(value, &key.bounds).map_err(|wrongs| self.note(name, wrongs)).ok()
            }
            (None, Default::Written(text)) => Some(read_default(key, text)),
            (None, Default::Optional) => V::absent(),
            (None, Default::Required) => {
                let message = format!("{} lacks `{name}`", self.section.header());
                self.notes.wrong(self.places.section, message, format!("{name} = {}", key.kind));
                None
            }
        }
    }

    fn note(&mut self, name: &str, wrongs: Vec<Wrong>) {
        for wrong in wrongs {
            let message = format!("`{name}`: {}", wrong.message);
            self.notes.wrong(wrong.span, message, wrong.write);
        }
    }

    /// Notes every key of the table that neither this section nor one below it names.
    fn unknown(&mut self, sections: &[&Section]) {
        let Some(table) = self.table.and_then(Toml::as_table) else { return };
        for key in table.keys() {
            let known = self.section.keys.iter().any(|known| known.name == key.name)
                || below(sections, self.section.name).any(|name| name == key.name);
            if !known {
                let names = self.section.keys.iter().map(|key| key.name);
                let names = names.chain(below(sections, self.section.name));
                let write = suggestion(&key.name, names);
                let message = format!("{} has no key `{}`", self.section.header(), key.name);
                self.notes.wrong(key.span, message, write);
            }
        }
    }
}

/// Reads a default; that each is good is a test's business.
fn read_default<V: Value>(key: &Key, text: &str) -> V {
    let document = format!("v = {text}");
    let parsed = toml_span::parse(&document).expect("defaults are TOML: tested");
    let value = parsed.pointer("/v").expect("just written");
    let Ok(value) = V::read(value, &key.bounds) else {
        panic!("the default of `{}` is out of its own bounds", key.name)
    };
    value
}

/// The names that stand right below the section `parent` (`""` is the root).
pub(super) fn below<'s>(
    sections: &'s [&Section],
    parent: &'s str,
) -> impl Iterator<Item = &'static str> + 's {
    sections.iter().filter_map(move |section| {
        let rest = match parent {
            "" => section.name,
            _ => section.name.strip_prefix(parent)?.strip_prefix('.')?,
        };
        rest.split('.').next()
    })
}

/// The nearest of `names`, as advice; all of them if none is near.
pub(super) fn suggestion<'n>(wrong: &str, names: impl Iterator<Item = &'n str>) -> String {
    let mut all: Vec<&str> = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    let near = all.iter().map(|name| (distance(wrong, name), *name)).min();
    match near {
        Some((far, name)) if far <= (name.len() / 3).max(2) => format!("`{name}`"),
        _ => format!("one of `{}`", all.join("`, `")),
    }
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let other = usize::from(a[i - 1] != b[j - 1]);
                    let mut least = rows[i - 1][j - 1] + other;
                    least = least.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        least = least.min(rows[i - 2][j - 2] + 1);
                    }
                    least
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

/// Reads the one section `P` below `parent`; an absent one is read as an empty table.
pub(super) fn read_one<P: Part>(
    parent: Option<&Toml<'_>>,
    sections: &[&Section],
    notes: &mut Notes<'_>,
) -> Option<Read<P>> {
    let leaf = P::SECTION.name.rsplit('.').next().unwrap_or_default();
    let table = parent.and_then(Toml::as_table).and_then(|table| table.get(leaf));
    if let Some(other) = table.filter(|table| table.as_table().is_none()) {
        notes.wrong(other.span, format!("`{leaf}` is no section"), P::SECTION.header());
        return None;
    }
    let section = table.map_or_else(Span::default, |table| table.span);
    read_table(table, section, sections, notes)
}

/// Reads every `[[section]]` of `P` below `parent`; `None` if one of them was wrong.
pub(super) fn read_many<'r, P: Part>(
    parent: Option<&'r Toml<'r>>,
    sections: &[&Section],
    notes: &mut Notes<'_>,
) -> Option<Vec<(Read<P>, &'r Toml<'r>)>> {
    let leaf = P::SECTION.name.rsplit('.').next().unwrap_or_default();
    let Some(value) = parent.and_then(Toml::as_table).and_then(|table| table.get(leaf)) else {
        return Some(Vec::new());
    };
    let Some(items) = value.as_array() else {
        let message = format!("`{leaf}` may stand more than once");
        notes.wrong(value.span, message, P::SECTION.header());
        return None;
    };
    let mut parts = Vec::new();
    let mut good = true;
    for item in items {
        if item.as_table().is_none() {
            notes.wrong(item.span, format!("`{leaf}` holds no table here"), P::SECTION.header());
            good = false;
            continue;
        }
        match read_table::<P>(Some(item), item.span, sections, notes) {
            Some(read) => parts.push((read, item)),
            None => good = false,
        }
    }
    good.then_some(parts)
}

fn read_table<P: Part>(
    table: Option<&Toml<'_>>,
    span: Span,
    sections: &[&Section],
    notes: &mut Notes<'_>,
) -> Option<Read<P>> {
    let places = Places { section: span, keys: BTreeMap::new() };
    let mut reader = Reader { table, section: P::SECTION, places, notes };
    reader.unknown(sections);
    let part = P::read(&mut reader);
    let places = reader.places;
    part.map(|part| Read { part, places })
}
