//! The string table of one [`message::Replace`]: each text and each label set once, the rest by number from 1.

use std::collections::{BTreeMap, HashMap};

use super::message;
use crate::{
    control::{ControlError, error::named},
    identity::SpiffeId,
    name::NameError,
    resource::Labels,
};

/// Fills a table.
#[derive(Default)]
pub(super) struct StringWriter {
    strings: Vec<String>,
    numbers: HashMap<String, u32>,
    label_sets: Vec<message::LabelSet>,
    label_numbers: HashMap<Labels, u32>,
}

impl StringWriter {
    /// The number of `text`, which is 0 when it is empty.
    pub(super) fn number(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        self.strings.push(text.to_owned());
        let number = count(self.strings.len());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    /// The number of a label set, which is 0 when it is empty.
    pub(super) fn labels(&mut self, labels: &Labels) -> u32 {
        if labels.is_empty() {
            return 0;
        }
        if let Some(number) = self.label_numbers.get(labels) {
            return *number;
        }
        let mut pairs = Vec::with_capacity(2 * labels.len());
        for (key, value) in labels.iter() {
            pairs.push(self.number(key));
            pairs.push(self.number(value));
        }
        self.label_sets.push(message::LabelSet { pairs });
        let number = count(self.label_sets.len());
        self.label_numbers.insert(labels.clone(), number);
        number
    }

    /// The tables.
    pub(super) fn finish(self) -> (Vec<String>, Vec<message::LabelSet>) {
        (self.strings, self.label_sets)
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Looks numbers up.
pub(super) struct StringReader {
    strings: Vec<String>,
    label_sets: Vec<Labels>,
    identities: HashMap<u32, SpiffeId>,
    no_labels: Labels,
}

impl StringReader {
    /// Checks the label sets.
    pub(super) fn new(strings: Vec<String>, sets: &[message::LabelSet]) -> Result<Self, ControlError> {
        let mut reader = Self {
            strings,
            label_sets: Vec::new(),
            identities: HashMap::new(),
            no_labels: Labels::default(),
        };
        for set in sets {
            let mut labels = BTreeMap::new();
            for pair in set.pairs.chunks(2) {
                let [key, value] = pair else {
                    return Err(ControlError::Length { field: "label_sets", length: set.pairs.len() });
                };
                let (key, value) = (reader.text("label_sets", *key)?, reader.text("label_sets", *value)?);
                labels.insert(key.to_owned(), value.to_owned());
            }
            reader.label_sets.push(labels.into());
        }
        Ok(reader)
    }

    /// The text of a number; empty for 0.
    pub(super) fn text(&self, field: &'static str, number: u32) -> Result<&str, ControlError> {
        entry(field, &self.strings, number).map(|text| text.map_or("", String::as_str))
    }

    /// The text of a number, checked as a name.
    pub(super) fn name<T>(
        &self,
        field: &'static str,
        number: u32,
        check: impl FnOnce(&str) -> Result<T, NameError>,
    ) -> Result<T, ControlError> {
        named(field, check(self.text(field, number)?))
    }

    /// The identity of a number, shared between all that carry it; none for 0.
    pub(super) fn identity(&mut self, number: u32) -> Result<Option<SpiffeId>, ControlError> {
        if number == 0 {
            return Ok(None);
        }
        if let Some(known) = self.identities.get(&number) {
            return Ok(Some(known.clone()));
        }
        let identity = self.name("identity", number, SpiffeId::parse)?;
        self.identities.insert(number, identity.clone());
        Ok(Some(identity))
    }

    /// The label set of a number, shared; empty for 0.
    pub(super) fn labels(&self, number: u32) -> Result<Labels, ControlError> {
        entry("labels", &self.label_sets, number).map(|labels| labels.unwrap_or(&self.no_labels).clone())
    }
}

fn entry<'a, T>(field: &'static str, table: &'a [T], number: u32) -> Result<Option<&'a T>, ControlError> {
    let Some(index) = number.checked_sub(1) else { return Ok(None) };
    let found = usize::try_from(index).ok().and_then(|index| table.get(index));
    found.map(Some).ok_or(ControlError::Index { field, index: number, length: table.len() })
}
