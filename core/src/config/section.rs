//! A table whose keys are known by being asked for.

use std::{cell::RefCell, ops::Range};

use toml::de::DeTable;

use super::{
    collector::Collector,
    fault::{Fault, Place},
    suggest::nearest,
    value::{Readable, Value, quoted},
};

/// How many valid keys are listed in full with an unknown one.
const MAX_LISTED: usize = 16;

/// A table of a file. The keys asked for are the valid ones: every other is reported when the section is dropped. So
/// ask for all keys before returning early.
pub struct Section<'a> {
    table: &'a DeTable<'a>,
    span: Range<usize>,
    collector: &'a Collector<'a>,
    known: RefCell<Vec<&'static str>>,
    ignore_unknown: bool,
}

impl<'a> Section<'a> {
    pub(super) fn new(table: &'a DeTable<'a>, span: Range<usize>, collector: &'a Collector<'a>) -> Self {
        Self { table, span, collector, known: RefCell::default(), ignore_unknown: false }
    }

    /// Takes a value as a table; reports it when it is none.
    #[must_use]
    pub fn open(value: &Value<'a>, expected: &str) -> Option<Self> {
        let Some(table) = value.as_table() else {
            value.wrong_kind(expected);
            return None;
        };
        Some(Self::new(table, value.span(), value.collector()))
    }

    /// Where the section begins: its header, or the whole of an inline table's first line.
    #[must_use]
    pub fn place(&self) -> Place {
        self.collector.place(self.span.clone())
    }

    /// Where `key` is written, else where the section begins.
    #[must_use]
    pub fn key_place(&self, key: &str) -> Place {
        match self.table.get_key_value(key) {
            Some((key, _)) => self.collector.place(key.span()),
            None => self.place(),
        }
    }

    /// The value of `key`, which thereby is a valid key.
    #[must_use]
    pub fn get(&self, key: &'static str) -> Option<Value<'a>> {
        self.known.borrow_mut().push(key);
        self.table.get(key).map(|value| Value::new(value, self.collector))
    }

    /// Whether `key` is written. Does not make it a valid key.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The value of a key that may be left out; none also when it was reported.
    #[must_use]
    pub fn read<T: Readable>(&self, key: &'static str) -> Option<T> {
        self.get(key).and_then(|value| T::read(&value))
    }

    /// The value of a key that may be left out, with its default.
    #[must_use]
    pub fn read_or<T: Readable>(&self, key: &'static str, default: T) -> T {
        self.read(key).unwrap_or(default)
    }

    /// The value of a key that must be there; its absence is reported with `expected`.
    #[must_use]
    pub fn require<T: Readable>(&self, key: &'static str, expected: &str) -> Option<T> {
        self.require_value(key, expected).and_then(|value| T::read(&value))
    }

    /// The unread value of a key that must be there; its absence is reported with `expected`.
    #[must_use]
    pub fn require_value(&self, key: &'static str, expected: &str) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            let fault = Fault::error(self.place(), format!("the key `{key}` is missing"));
            self.collector.push_missing(fault.expected(format!("expected {expected}")));
        }
        value
    }

    /// The table under a key that may be left out.
    #[must_use]
    pub fn section(&self, key: &'static str) -> Option<Self> {
        self.get(key).and_then(|value| Self::open(&value, &format!("a table, `[{key}]`")))
    }

    /// The tables under a key: `[[key]]` any number of times, or a list of inline tables.
    #[must_use]
    pub fn sections(&self, key: &'static str) -> Vec<Self> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let expected = format!("a list of tables, `[[{key}]]`");
        let Some(elements) = value.as_list() else {
            value.wrong_kind(&expected);
            return Vec::new();
        };
        elements.iter().filter_map(|element| Self::open(element, &expected)).collect()
    }

    /// The elements of a list under a key that may be left out, which yields an empty one. A list that is written is
    /// not empty: leaving the key out says "any", and an empty list could be read as "none".
    #[must_use]
    pub fn list<T>(&self, key: &'static str, read: impl Fn(&Value<'a>) -> Option<T>) -> Option<Vec<T>> {
        let Some(value) = self.get(key) else { return Some(Vec::new()) };
        let elements = value.list()?;
        if elements.is_empty() {
            value.reject(format!("`{key}` is empty"), "expected at least one; leave the key out to mean any");
            return None;
        }
        let read: Vec<Option<T>> = elements.iter().map(read).collect();
        read.into_iter().collect()
    }

    /// Reports a fault of this section.
    pub fn report(&self, fault: Fault) {
        self.collector.push(fault);
    }

    /// Reports that something is missing, unless a syntax error of the file may have hidden it.
    pub fn report_missing(&self, fault: Fault) {
        self.collector.push_missing(fault);
    }

    /// How many faults of the file were found so far.
    #[must_use]
    pub fn faults_so_far(&self) -> usize {
        self.collector.count()
    }

    /// Says that its other keys cannot be judged, because what they belong to is itself unknown.
    pub fn ignore_unknown(&mut self) {
        self.ignore_unknown = true;
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        if self.ignore_unknown {
            return;
        }
        let known = self.known.borrow();
        for (key, _) in self.table.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref())) {
            let written = key.get_ref().as_ref();
            let fault = Fault::error(self.collector.place(key.span()), format!("unknown key `{written}`"));
            // A secret belongs into a file of its own.
            let in_a_file = || known.iter().copied().find(|key| key.strip_suffix("_file") == Some(written));
            let nearest = nearest(written, known.iter().copied()).or_else(in_a_file);
            let expected = match nearest {
                None if known.len() <= MAX_LISTED => {
                    format!("expected one of {}", quoted(known.iter().copied()))
                }
                _ => String::new(),
            };
            self.collector.push(fault.expected(expected).did_you_mean(nearest));
        }
    }
}
