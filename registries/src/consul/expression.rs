//! The filters by which Consul's resolvers choose instances, read as labels: comparisons of meta, tags that must be there,
//! joined by `and`. Everything else cannot be said by labels.

use std::collections::BTreeMap;

/// The labels that an instance must carry so that the filter holds.
///
/// # Errors
/// Names the part that cannot be said by labels.
pub fn labels(filter: &str) -> Result<BTreeMap<String, String>, String> {
    let words = words(filter)?;
    let mut labels = BTreeMap::new();
    for part in words.split(|word| *word == Word::Bare("and".into())) {
        let (key, value) = comparison(part).ok_or_else(|| {
            format!(
                "the filter {} says more than meta that is equal and tags that are there",
                crate::names::quoted(filter)
            )
        })?;
        if labels.insert(key, value.clone()).is_some_and(|before| before != value) {
            return Err("the filter asks for two values of one key".into());
        }
    }
    Ok(labels)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Bare(String),
    Quoted(String),
}

impl Word {
    fn text(&self) -> &str {
        match self {
            Self::Bare(text) | Self::Quoted(text) => text,
        }
    }
}

fn comparison(part: &[Word]) -> Option<(String, String)> {
    let bare = |word: &Word, text: &str| *word == Word::Bare(text.into());
    match part {
        [key, equals, value] if bare(equals, "==") => {
            let Word::Bare(key) = key else { return None };
            Some((meta(key)?, value.text().to_owned()))
        }
        [tag, within, tags] if bare(within, "in") && bare(tags, "Service.Tags") => label_of_tag(tag.text()),
        [tags, contains, tag] if bare(contains, "contains") && bare(tags, "Service.Tags") => {
            label_of_tag(tag.text())
        }
        _ => None,
    }
}

/// `Service.Meta.KEY` or `Service.Meta["KEY"]`, whose quotes were read as a word's part.
fn meta(key: &str) -> Option<String> {
    let rest = key.strip_prefix("Service.Meta")?;
    let bracketed = rest.strip_prefix("[\"").and_then(|rest| rest.strip_suffix("\"]"));
    bracketed.or(rest.strip_prefix('.')).filter(|key| !key.is_empty()).map(str::to_owned)
}

fn label_of_tag(tag: &str) -> Option<(String, String)> {
    let (key, value) = tag.split_once('=').unwrap_or((tag, "true"));
    Some((format!("tag.{key}"), value.to_owned()))
}

fn words(filter: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = filter.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = match first {
            '"' | '`' => {
                let inner = &rest[1..];
                let end = inner.find(first).ok_or("the filter has a quote that does not end")?;
                rest = &inner[end + 1..];
                if inner[..end].contains('\\') {
                    return Err("the filter has an escaped character".into());
                }
                Word::Quoted(inner[..end].to_owned())
            }
            '=' if rest.starts_with("==") => {
                rest = &rest[2..];
                Word::Bare("==".into())
            }
            _ => {
                let mut within = false;
                let end = rest.find(|letter: char| {
                    within ^= letter == '"';
                    !within && (letter.is_whitespace() || letter == '=')
                });
                let end = end.filter(|end| *end > 0).unwrap_or(rest.len());
                let word = Word::Bare(rest[..end].to_owned());
                rest = &rest[end..];
                word
            }
        };
        words.push(word);
        rest = rest.trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_meta_and_tags_become_labels_and_nothing_else_does() {
        let read = |filter: &str| labels(filter).map(|it| it.into_iter().collect::<Vec<_>>());
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(read("Service.Meta.version == 1"), Ok(vec![pair("version", "1")]));
        assert_eq!(
            read("Service.Meta.version==\"a b\" and \"blue\" in Service.Tags"),
            Ok(vec![pair("tag.blue", "true"), pair("version", "a b")])
        );
        assert_eq!(read("Service.Meta[\"a b\"] == `x`"), Ok(vec![pair("a b", "x")]));
        assert_eq!(
            read("Service.Tags contains team=shop"),
            Err(read("Service.Tags contains team=shop").unwrap_err())
        );
        assert_eq!(read("Service.Tags contains \"team=shop\""), Ok(vec![pair("tag.team", "shop")]));
        for wrong in [
            "",
            "Service.Meta.version != 1",
            "Service.Meta.a == 1 or Service.Meta.b == 2",
            "not Service.Meta.a == 1",
            "(Service.Meta.a == 1)",
            "Node.Meta.a == 1",
            "Service.Meta. == 1",
            "Service.Meta.a == \"1",
            "Service.Meta.a == 1 and Service.Meta.a == 2",
            "\"x",
            "=",
            "==",
            "Service.Meta.a == \u{1f600} \"",
        ] {
            assert!(labels(wrong).is_err(), "{wrong}");
        }
    }
}
