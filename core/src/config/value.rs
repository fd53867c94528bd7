//! One value of a file with its place, and the ways to read it.

use std::{fmt, ops::Range, ops::RangeInclusive};

use toml::{Spanned, de::DeTable, de::DeValue};

use super::{
    collector::Collector,
    fault::{Fault, Place},
    suggest::nearest,
};

/// A type that can be read from a value.
pub trait Readable: Sized {
    /// Reads it; reports a fault to `value` and yields none when it is not what it should be.
    fn read(value: &Value<'_>) -> Option<Self>;
}

/// A value with where it was written, for checks that look at several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// What was written.
    pub value: T,
    /// Where.
    pub place: Place,
}

impl<T> Located<T> {
    /// The same place with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Located<U> {
        Located { value: change(self.value), place: self.place }
    }
}

/// A list, where a single value may be written without brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// One value of a file.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    content: &'a DeValue<'a>,
    start: usize,
    end: usize,
    collector: &'a Collector<'a>,
}

impl<'a> Value<'a> {
    pub(super) fn new(spanned: &'a Spanned<DeValue<'a>>, collector: &'a Collector<'a>) -> Self {
        let Range { start, end } = spanned.span();
        Self { content: spanned.get_ref(), start, end, collector }
    }

    pub(super) fn collector(&self) -> &'a Collector<'a> {
        self.collector
    }

    /// The table, if it is one.
    pub(super) fn as_table(&self) -> Option<&'a DeTable<'a>> {
        self.content.as_table()
    }

    pub(super) fn span(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Where it stands.
    #[must_use]
    pub fn place(&self) -> Place {
        self.collector.place(self.span())
    }

    /// What kind of value it is, in TOML's words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.content {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        }
    }

    /// Reports that the value is not what it should be.
    pub fn reject(&self, message: impl Into<String>, expected: impl Into<String>) {
        self.report(Fault::error(self.place(), message).expected(expected));
    }

    /// Reports any fault.
    pub fn report(&self, fault: Fault) {
        self.collector.push(fault);
    }

    /// Reports that the value is of the wrong kind.
    pub fn wrong_kind(&self, expected: &str) {
        self.reject(format!("this is {}", self.kind()), format!("expected {expected}"));
    }

    /// A string.
    #[must_use]
    pub fn text(&self, expected: &str) -> Option<&'a str> {
        let text = self.content.as_str();
        if text.is_none() {
            self.wrong_kind(expected);
        }
        text
    }

    /// The string, if it is one; not being one is no fault yet.
    #[must_use]
    pub fn as_text(&self) -> Option<&'a str> {
        self.content.as_str()
    }

    /// A string with a meaning; `expected` describes it with an example.
    pub fn parse<T, E: fmt::Display>(
        &self,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(self.text(expected)?) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.reject(error.to_string(), format!("expected {expected}"));
                None
            }
        }
    }

    /// One of a closed list of words.
    #[must_use]
    pub fn word<T: Clone>(&self, words: &[(&str, T)]) -> Option<T> {
        let choice = || words.iter().map(|(word, _)| *word);
        let expected = format!("expected one of {}", quoted(choice()));
        let written = self.text(expected.trim_start_matches("expected "))?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == written) {
            return Some(meaning.clone());
        }
        let fault = Fault::error(self.place(), format!("unknown word `{written}`")).expected(expected);
        self.report(fault.did_you_mean(nearest(written, choice())));
        None
    }

    /// A whole number within a range.
    #[must_use]
    pub fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("expected a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(integer) = self.content else {
            self.reject(format!("this is {}", self.kind()), expected);
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.and_then(|number| u64::try_from(number).ok());
        if number.is_none_or(|number| !range.contains(&number)) {
            self.reject(format!("{} is out of range", integer.as_str()), expected);
            return None;
        }
        number
    }

    /// `true` or `false`.
    #[must_use]
    pub fn boolean(&self) -> Option<bool> {
        let boolean = self.content.as_bool();
        if boolean.is_none() {
            self.wrong_kind("`true` or `false`");
        }
        boolean
    }

    /// The elements of a list, if it is one.
    #[must_use]
    pub fn as_list(&self) -> Option<Vec<Value<'a>>> {
        let elements = self.content.as_array()?.iter();
        Some(elements.map(|element| Value::new(element, self.collector)).collect())
    }

    /// The elements of a list.
    #[must_use]
    pub fn list(&self) -> Option<Vec<Value<'a>>> {
        let list = self.as_list();
        if list.is_none() {
            self.wrong_kind("a list, in `[` and `]`");
        }
        list
    }

    /// The entries of a table whose keys are free, such as labels.
    #[must_use]
    pub fn entries(&self, expected: &str) -> Option<Vec<(Located<String>, Value<'a>)>> {
        let Some(table) = self.content.as_table() else {
            self.wrong_kind(expected);
            return None;
        };
        let entry = |(key, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
            let key: &Spanned<toml::de::DeString<'_>> = key;
            let place = self.collector.place(key.span());
            (Located { value: key.get_ref().to_string(), place }, Value::new(value, self.collector))
        };
        Some(table.iter().map(entry).collect())
    }
}

/// Words in backquotes, separated by commas.
pub(super) fn quoted<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

impl<T: Readable> Readable for Located<T> {
    fn read(value: &Value<'_>) -> Option<Self> {
        Some(Self { value: T::read(value)?, place: value.place() })
    }
}

/// Every element is read, so that each faulty one is reported; one faulty element leaves no list.
impl<T: Readable> Readable for Vec<T> {
    fn read(value: &Value<'_>) -> Option<Self> {
        let read: Vec<Option<T>> = value.list()?.iter().map(T::read).collect();
        read.into_iter().collect()
    }
}

impl<T: Readable> Readable for OneOrMany<T> {
    fn read(value: &Value<'_>) -> Option<Self> {
        match value.as_list() {
            Some(_) => Vec::read(value).map(Self),
            None => T::read(value).map(|single| Self(vec![single])),
        }
    }
}
