//! The configuration page is true: its examples are accepted, hold every key of its tables, and no other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeSet, fs, path::Path};

use toml::{Table, Value};
use weft_agent::config::{Overrides, read_agent, read_hub};
use weft_core::config::{Fault, SourceFile, Style, read_mesh, render_all};

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/configuration.md");
    fs::read_to_string(path).unwrap()
}

/// The examples after `<!-- kind -->`, at least one.
fn examples(page: &str, kind: &str) -> Vec<String> {
    let mark = format!("<!-- {kind} -->\n```toml\n");
    let found = page.split(&mark).skip(1);
    let found: Vec<_> = found.map(|after| after.split("\n```").next().unwrap().to_owned()).collect();
    assert!(!found.is_empty(), "the page has an example of {kind}");
    found
}

#[test]
fn the_examples_of_the_page_are_accepted() {
    let page = page();
    let kinds = ["agent", "hub", "mesh"].into_iter();
    for (kind, text) in kinds.flat_map(|kind| examples(&page, kind).into_iter().map(move |text| (kind, text)))
    {
        let source = SourceFile::new(kind, text);
        let faults = match kind {
            "agent" => read_agent(&source, &Overrides::default()).faults,
            "hub" => read_hub(&source, &Overrides::default()).faults,
            _ => read_mesh(&source).faults,
        };
        let errors: Vec<Fault> = faults.into_iter().filter(Fault::is_error).collect();
        assert!(errors.is_empty(), "{}", render_all(&errors, Style::Plain));
    }
}

/// Every key of a document, however deep, but not the free ones of labels.
fn keys(table: &Table, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        found.insert(key.clone());
        if key != "labels" && key != "subset" {
            keys_in(value, found);
        }
    }
}

fn keys_in(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Table(table) => keys(table, found),
        Value::Array(elements) => elements.iter().for_each(|element| keys_in(element, found)),
        _ => {}
    }
}

#[test]
fn each_documented_key_is_in_an_example_and_each_key_of_an_example_is_documented() {
    let page = page();
    let mut written = BTreeSet::new();
    for example in ["agent", "hub", "mesh"].into_iter().flat_map(|kind| examples(&page, kind)) {
        keys(&example.parse().unwrap(), &mut written);
    }
    // The first cell of a row names a key; further ones stand in the text of the row; sections have headings.
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let first = |row: &&str| row.split('`').nth(1).map(str::to_owned);
    let documented: BTreeSet<String> =
        rows.iter().filter_map(first).filter(|key| !key.starts_with("WEFT_")).collect();
    let missing: Vec<&String> = documented.difference(&written).collect();
    assert!(missing.is_empty(), "documented, but in no example: {missing:?}");
    let undocumented = |key: &&String| {
        let in_text = rows.iter().any(|row| row.contains(&format!("`{key}`")));
        !in_text && !page.contains(&format!("### `[{key}]`")) && !page.contains(&format!("### `[[{key}]]`"))
    };
    let undocumented: Vec<&String> = written.iter().filter(undocumented).collect();
    assert!(undocumented.is_empty(), "in an example, but not documented: {undocumented:?}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]

    /// Some bytes of a good file are changed: nothing panics, and it is refused exactly when it has an error.
    #[test]
    fn a_damaged_file_is_survived(
        changes in proptest::collection::vec((0_usize..4_000, 0_u8..128), 1..6),
        hub in proptest::bool::ANY,
    ) {
        let mut bytes = examples(&page(), if hub { "hub" } else { "agent" }).remove(0).into_bytes();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let source = SourceFile::new("any", String::from_utf8(bytes).unwrap());
        let (accepted, faults) = if hub {
            let outcome = read_hub(&source, &Overrides::default());
            (outcome.value.is_some(), outcome.faults)
        } else {
            let outcome = read_agent(&source, &Overrides::default());
            (outcome.value.is_some(), outcome.faults)
        };
        proptest::prop_assert_eq!(accepted, !faults.iter().any(Fault::is_error), "{}", render_all(&faults, Style::Plain));
    }
}
