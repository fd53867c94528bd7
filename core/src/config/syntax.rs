//! From text to sections: parsing, with TOML's own errors told in our words.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    collector::Collector,
    fault::{Fault, Severity},
    section::Section,
    source::SourceFile,
};

/// What reading a file came to.
#[derive(Clone, Debug)]
pub struct Outcome<T> {
    /// What the file means; none when it has an error.
    pub value: Option<T>,
    /// All its errors and warnings, in the order of the file.
    pub faults: Vec<Fault>,
}

impl<T> Outcome<T> {
    /// Adds the faults of a check that looks at the whole; an error takes the value away.
    #[must_use]
    pub fn with(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.faults.extend(faults);
        self.faults.sort_by_key(|fault| (fault.place.line, fault.place.column));
        if self.has_errors() {
            self.value = None;
        }
        self
    }

    /// Whether the file is refused.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.value.is_none() || self.faults.iter().any(|fault| fault.severity == Severity::Error)
    }
}

/// Parses a file and reads its root table with `reader`.
pub fn read<T>(source: &SourceFile, reader: impl FnOnce(&mut Section<'_>) -> Option<T>) -> Outcome<T> {
    let (table, errors) = DeTable::parse_recoverable(source.text());
    let syntax = errors.iter().map(|error| syntax_fault(source, table.get_ref(), error)).collect();
    let collector = Collector::new(source, syntax);
    let value = {
        let mut root = Section::new(table.get_ref(), 0..0, &collector);
        reader(&mut root)
    };
    let faults = collector.into_faults();
    let refused = faults.iter().any(Fault::is_error);
    Outcome { value: value.filter(|_| !refused), faults }
}

fn syntax_fault(source: &SourceFile, table: &DeTable<'_>, error: &toml::de::Error) -> Fault {
    let span = error.span().unwrap_or(0..0);
    let text = source.text().get(span.clone()).unwrap_or_default();
    let place = source.place(span.clone());
    let (what, expected) = error.message().split_once(", expected ").unwrap_or((error.message(), ""));
    if what == "duplicate key" {
        let fault = Fault::error(place, format!("`{text}` is defined twice"));
        return match first_definition(source.text(), table, text, span.start) {
            Some(first) => fault.related(source.place(first..first + text.len()), "first defined here"),
            None => fault,
        };
    }
    let rest = source.text().get(span.start..).unwrap_or_default();
    let nothing_there = rest.is_empty() || rest.starts_with(['\n', '\r', '#']);
    if what == "string values must be quoted" && nothing_there {
        return Fault::error(place, "the value is missing");
    }
    let expected = if expected.is_empty() { String::new() } else { format!("expected {expected}") };
    Fault::error(place, format!("not TOML: {what}")).expected(expected)
}

/// Where `key`, defined again at `again`, was defined first: for a header the earlier header of the same text, else the
/// nearest key of that name before.
fn first_definition(text: &str, table: &DeTable<'_>, key: &str, again: usize) -> Option<usize> {
    let line_start = text[..again].rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or_default().trim();
    if line.starts_with('[') {
        let within = again - line_start;
        let mut offset = 0;
        for earlier in text[..line_start].split_inclusive('\n') {
            if header(earlier) == header(line) {
                let at = earlier.find(key).unwrap_or(within);
                return Some(offset + at);
            }
            offset += earlier.len();
        }
    }
    last_key_before(table, key.trim_matches(['"', '\'']), again)
}

/// A header without what may follow it.
fn header(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

fn last_key_before(table: &DeTable<'_>, name: &str, before: usize) -> Option<usize> {
    let own = table.iter().filter(|(key, _)| key.get_ref().as_ref() == name).map(|(key, _)| key.span().start);
    let nested = table.iter().filter_map(|(_, value)| last_key_in(value, name, before));
    own.filter(|&at| at < before).chain(nested).max()
}

fn last_key_in(value: &Spanned<DeValue<'_>>, name: &str, before: usize) -> Option<usize> {
    match value.get_ref() {
        DeValue::Table(table) => last_key_before(table, name, before),
        DeValue::Array(array) => array.iter().filter_map(|element| last_key_in(element, name, before)).max(),
        _ => None,
    }
}
