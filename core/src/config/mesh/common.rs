//! What several kinds of resource share: methods, paths, patterns, and exactly one of several keys.

use crate::{
    config::{Fault, Section, Value, nearest},
    path::{EncodedSlash, PathFault, normalise},
    resource::MAX_PATTERN,
};

/// The methods that are spelled right for sure; others are accepted, unless they look like one of these.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// An HTTP method in upper case (RFC 9110 §9.1: a token, case-sensitive).
pub(super) fn method(value: &Value<'_>) -> Option<String> {
    let expected = "expected an HTTP method in upper case, such as \"GET\"";
    let text = value.text("an HTTP method, such as \"GET\"")?;
    let is_token = !text.is_empty() && http::Method::from_bytes(text.as_bytes()).is_ok();
    let near = nearest(text, METHODS);
    if !is_token || text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        let fault = Fault::error(value.place(), format!("`{text}` is not a method")).expected(expected);
        value.report(fault.did_you_mean(near));
        return None;
    }
    if !METHODS.contains(&text) && near.is_some() {
        let fault = Fault::warning(value.place(), format!("`{text}` is no method of HTTP's own"));
        value.report(fault.did_you_mean(near));
    }
    Some(text.to_owned())
}

/// A path as it is matched: in its canonical form, without a query or a fragment. One that is not in that form would
/// never match, a DENY would deny nothing; so it is refused, and its canonical spelling told.
pub(super) fn path(value: &Value<'_>, slashes: EncodedSlash) -> Option<String> {
    let text = value.text("a path, such as \"/api\"")?;
    let fault =
        |message: &str| Fault::error(value.place(), message).expected("expected a path, such as \"/api\"");
    let fault = if !text.starts_with('/') {
        fault("a path begins with `/`")
    } else if text.contains(['?', '#']) {
        fault("a path has no query and no fragment")
    } else {
        match normalise(text, slashes) {
            Ok(canonical) if canonical == text => return Some(text.to_owned()),
            Ok(canonical) => fault("paths are matched in their canonical form: this one would never match")
                .help(format!("its canonical form is `{canonical}`")),
            Err(PathFault::EncodedSlash) => fault(
                "requests with an encoded slash are refused where rules on paths apply: this one would never match",
            ),
            Err(PathFault::Malformed) => {
                fault("requests with such a path are refused: this one would never match")
            }
        }
    };
    value.report(fault);
    None
}

/// A regular expression over a whole text.
pub(super) fn pattern(value: &Value<'_>) -> Option<String> {
    let text = value.text("a regular expression, such as \"/v[0-9]+/.*\"")?;
    let build = |text: &str| regex::RegexBuilder::new(text).size_limit(MAX_PATTERN).build();
    // Alone first: "a)|(b" must not become valid by being wrapped.
    let Err(error) = build(text).and_then(|_| build(&format!("^(?:{text})$"))) else {
        return Some(text.to_owned());
    };
    let error = error.to_string();
    let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
    value.reject(format!("not a regular expression: {reason}"), "expected the syntax of Rust's `regex`");
    None
}

/// Which one of `keys` is written in a section that must hold exactly one of them.
pub(super) fn exactly_one<'a>(
    section: &Section<'a>,
    keys: &[&'static str],
) -> Option<(&'static str, Value<'a>)> {
    let written: Vec<_> = keys.iter().filter_map(|&key| section.get(key).map(|value| (key, value))).collect();
    let words = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    match written.as_slice() {
        [one] => Some(*one),
        [] => {
            let fault = Fault::error(section.place(), "a condition is missing");
            section.report_missing(fault.expected(format!("expected one of {words}")));
            None
        }
        [(first, _), (second, _), ..] => {
            let fault = Fault::error(section.key_place(second), format!("`{second}` beside `{first}`"));
            section.report(fault.expected(format!("expected exactly one of {words}")));
            None
        }
    }
}
