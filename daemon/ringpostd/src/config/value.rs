//! The kinds of values a key may have: how each is read from TOML, bounded, and named in the docs.
//!
//! *Failure.* A wrong value says what is wrong, where, and what to write.

use std::fmt;

use toml_span::{Span, Value as Toml};

use crate::limits;

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) span: Span,
    pub(super) message: String,
    pub(super) write: String,
}

/// What a number may be, in the unit of the key; [`Seconds`] are bounded in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) min: i64,
    pub(super) max: i64,
    pub(super) unit: &'static str,
}

/// No bounds but those of the kind.
pub(super) const FREE: Bounds = Bounds { min: i64::MIN, max: i64::MAX, unit: "" };

/// Bounds given as they stand in `limits`.
pub(super) const fn within(min: u64, max: u64, unit: &'static str) -> Bounds {
    assert!(min <= max && max <= 1 << 50, "bounds are small and in order");
    Bounds { min: min.cast_signed(), max: max.cast_signed(), unit }
}

/// Bounds that may be negative.
pub(super) const fn between(min: i64, max: i64, unit: &'static str) -> Bounds {
    assert!(min <= max, "bounds are in order");
    Bounds { min, max, unit }
}

/// A kind of value.
pub(super) trait Value: Sized {
    /// What the docs call it.
    const KIND: &'static str;

    /// Reads one; errors are all that is wrong with it.
    fn read(toml: &Toml<'_>, bounds: &Bounds) -> Result<Self, Vec<Wrong>>;

    /// The bounds as the docs print them.
    fn bounds_text(bounds: &Bounds) -> String {
        match bounds {
            b if *b == FREE => String::new(),
            Bounds { min, max, unit } => format!("{min} to {max} {unit}").trim_end().to_owned(),
        }
    }

    /// What a key that is not written stands for, where that is allowed.
    fn absent() -> Option<Self> {
        None
    }
}

impl<T: Value> Value for Option<T> {
    const KIND: &'static str = T::KIND;

    fn read(toml: &Toml<'_>, bounds: &Bounds) -> Result<Self, Vec<Wrong>> {
        T::read(toml, bounds).map(Some)
    }

    fn bounds_text(bounds: &Bounds) -> String {
        T::bounds_text(bounds)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Value + Listed> Value for Vec<T> {
    const KIND: &'static str = T::LIST_KIND;

    fn read(toml: &Toml<'_>, bounds: &Bounds) -> Result<Self, Vec<Wrong>> {
        let Some(items) = toml.as_array() else {
            return Err(kind_error::<Self>(toml));
        };
        if items.len() > limits::CONFIG_LIST_MAX {
            let message = format!("a list has at most {} entries", limits::CONFIG_LIST_MAX);
            return Err(wrong(toml, message, "fewer entries"));
        }
        let mut values = Self::with_capacity(items.len());
        let mut errors = Vec::new();
        for item in items {
            match T::read(item, bounds) {
                Ok(value) => values.push(value),
                Err(more) => errors.extend(more),
            }
        }
        if errors.is_empty() { Ok(values) } else { Err(errors) }
    }

    fn bounds_text(bounds: &Bounds) -> String {
        T::bounds_text(bounds)
    }
}

/// A kind that may stand in a list.
pub(super) trait Listed {
    /// What the docs call a list of them.
    const LIST_KIND: &'static str;
}

pub(super) fn wrong(toml: &Toml<'_>, message: String, write: impl Into<String>) -> Vec<Wrong> {
    vec![Wrong { span: toml.span, message, write: write.into() }]
}

/// The value is of another kind than the key's.
pub(super) fn kind_error<T: Value>(toml: &Toml<'_>) -> Vec<Wrong> {
    let found = toml.as_ref().type_str();
    wrong(toml, format!("found {} {found}", article(found)), T::KIND)
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" }
}

pub(super) fn text<'v, T: Value>(toml: &'v Toml<'_>) -> Result<&'v str, Vec<Wrong>> {
    toml.as_str().ok_or_else(|| kind_error::<T>(toml))
}

impl Value for bool {
    const KIND: &'static str = "`true` or `false`";

    fn read(toml: &Toml<'_>, _: &Bounds) -> Result<Self, Vec<Wrong>> {
        toml.as_bool().ok_or_else(|| kind_error::<Self>(toml))
    }
}

/// Whole numbers share everything but their type.
macro_rules! whole {
    ($($kind:ty),+) => {$(
        impl Value for $kind {
            const KIND: &'static str = "a whole number";

            fn read(toml: &Toml<'_>, bounds: &Bounds) -> Result<Self, Vec<Wrong>> {
                let number = toml.as_integer().ok_or_else(|| kind_error::<Self>(toml))?;
                let fits = (bounds.min..=bounds.max).contains(&number);
                Self::try_from(number).ok().filter(|_| fits).ok_or_else(|| {
                    let range = Self::bounds_text(bounds);
                    wrong(toml, format!("{number} is out of range"), range)
                })
            }
        }
    )+};
}

whole!(u16, u32, u64, i32);

impl Listed for u32 {
    const LIST_KIND: &'static str = "a list of whole numbers";
}

impl Value for f64 {
    const KIND: &'static str = "a number";

    fn read(toml: &Toml<'_>, bounds: &Bounds) -> Result<Self, Vec<Wrong>> {
        let number = decimal(toml).ok_or_else(|| kind_error::<Self>(toml))?;
        let range = milli(bounds.min)..=milli(bounds.max);
        if range.contains(&number) {
            return Ok(number);
        }
        Err(wrong(toml, format!("{number} is out of range"), Self::bounds_text(bounds)))
    }

    fn bounds_text(bounds: &Bounds) -> String {
        let text = format!("{} to {} {}", milli(bounds.min), milli(bounds.max), bounds.unit);
        text.trim_end().to_owned()
    }
}

/// A number with or without a fraction.
fn decimal(toml: &Toml<'_>) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53, or out of bounds anyway")]
    let whole = |number: i64| number as f64;
    toml.as_float().or_else(|| toml.as_integer().map(whole))
}

/// Thousandths, as bounds of fractions are kept.
fn milli(thousandths: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "bounds in the table are small")]
    let value = thousandths as f64 / 1000.0;
    value
}

/// A length of time, kept in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seconds(u64);

impl Seconds {
    /// From microseconds.
    #[must_use]
    pub const fn from_us(us: u64) -> Self {
        Self(us)
    }

    /// In microseconds.
    #[must_use]
    pub const fn us(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "for the eye only")]
        let seconds = self.0 as f64 / 1e6;
        write!(f, "{seconds}")
    }
}

impl Value for Seconds {
    const KIND: &'static str = "a number of seconds, like `300` or `0.5`";

    fn read(toml: &Toml<'_>, bounds: &Bounds) -> Result<Self, Vec<Wrong>> {
        let number = decimal(toml).ok_or_else(|| kind_error::<Self>(toml))?;
        if !(milli(bounds.min)..=milli(bounds.max)).contains(&number) {
            let range = Self::bounds_text(bounds);
            return Err(wrong(toml, format!("{number} is out of range"), range));
        }
        #[expect(clippy::cast_possible_truncation, reason = "within bounds, which are small")]
        #[expect(clippy::cast_sign_loss, reason = "bounds of times start at zero")]
        let us = (number * 1e6).round() as u64;
        Ok(Self(us))
    }

    fn bounds_text(bounds: &Bounds) -> String {
        format!("{} to {} s", milli(bounds.min), milli(bounds.max))
    }
}

/// A number of octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

impl Size {
    /// In octets.
    #[must_use]
    pub const fn octets(self) -> u64 {
        self.0
    }

    const UNITS: [(&'static str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];

    fn parse(text: &str) -> Option<u64> {
        let (digits, shift) = Self::UNITS
            .iter()
            .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?.trim_end(), *shift)))?;
        digits.parse::<u64>().ok()?.checked_mul(1 << shift)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in Self::UNITS {
            if self.0 > 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} octets", self.0)
    }
}

impl Value for Size {
    const KIND: &'static str = "a size, like `\"50 MiB\"` (KiB, MiB, GiB) or a number of octets";

    fn read(toml: &Toml<'_>, bounds: &Bounds) -> Result<Self, Vec<Wrong>> {
        let octets = match toml.as_str() {
            Some(text) => Self::parse(text),
            None => toml.as_integer().and_then(|n| u64::try_from(n).ok()),
        };
        let octets = octets.ok_or_else(|| wrong(toml, "this is no size".to_owned(), Self::KIND))?;
        let fits = i64::try_from(octets).is_ok_and(|n| (bounds.min..=bounds.max).contains(&n));
        if fits {
            return Ok(Self(octets));
        }
        let message = format!("{} is out of range", Self(octets));
        Err(wrong(toml, message, Self::bounds_text(bounds)))
    }

    fn bounds_text(bounds: &Bounds) -> String {
        let size = |n: i64| Self(u64::try_from(n).unwrap_or(0));
        format!("{} to {}", size(bounds.min), size(bounds.max))
    }
}

/// At most so many in any such time; `off` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many, 0 for no limit.
    pub count: u32,
    /// In how long, in microseconds.
    pub period_us: u64,
}

impl Rate {
    const PERIODS: [(&'static str, u64); 4] =
        [("second", 1), ("minute", 60), ("hour", 3_600), ("day", 86_400)];

    /// Whether there is no limit.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        self.count == 0
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(Self { count: 0, period_us: 1_000_000 });
        }
        let (count, period) = text.split_once(" per ")?;
        let count = count.parse().ok().filter(|count| *count > 0)?;
        let (_, seconds) = Self::PERIODS.iter().find(|(name, _)| *name == period)?;
        Some(Self { count, period_us: seconds * 1_000_000 })
    }
}

impl Value for Rate {
    const KIND: &'static str = "a rate, like `\"60 per minute\"` (second, minute, hour, day) \
                                or `\"off\"`";

    fn read(toml: &Toml<'_>, _: &Bounds) -> Result<Self, Vec<Wrong>> {
        let text = text::<Self>(toml)?;
        Self::parse(text).ok_or_else(|| wrong(toml, "this is no rate".to_owned(), Self::KIND))
    }
}

/// How many cores a node uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cores {
    /// As many as the process may run on.
    Auto,
    /// So many.
    Count(u16),
}

impl Value for Cores {
    const KIND: &'static str = "`\"auto\"` or a whole number";

    fn read(toml: &Toml<'_>, bounds: &Bounds) -> Result<Self, Vec<Wrong>> {
        match toml.as_str() {
            Some("auto") => Ok(Self::Auto),
            Some(_) => Err(kind_error::<Self>(toml)),
            None => u16::read(toml, bounds).map(Self::Count).map_err(|mut wrongs| {
                for wrong in &mut wrongs {
                    wrong.write = format!("\"auto\" or {}", Self::bounds_text(bounds));
                }
                wrongs
            }),
        }
    }
}

/// Defines a choice between words, with its text and docs in one place.
macro_rules! choice {
    ($(#[doc = $about:literal])+ $name:ident {
        $($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+
    }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl $name {
            /// As the config writes it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl $crate::config::value::Value for $name {
            const KIND: &'static str =
                concat!("one of", $(" `\"", $text, "\"`:", $($doc,)+ ";",)+);

            fn read(
                toml: &toml_span::Value<'_>,
                _: &$crate::config::value::Bounds,
            ) -> Result<Self, Vec<$crate::config::value::Wrong>> {
                const WORDS: &[(&str, $name)] = &[$(($text, $name::$variant),)+];
                $crate::config::value::choose(toml, WORDS)
            }
        }
    };
}
pub(super) use choice;

/// Reads one of `words`.
pub(super) fn choose<T: Copy>(toml: &Toml<'_>, words: &[(&str, T)]) -> Result<T, Vec<Wrong>> {
    let found = toml.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let all: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let found = match toml.as_str() {
            Some(text) => format!("{text:?} is not known here"),
            None => {
                format!("found {} {}", article(toml.as_ref().type_str()), toml.as_ref().type_str())
            }
        };
        wrong(toml, found, all.join(" or "))
    })
}
