//! Which requests a rule of a router is for. Pure.

use weft_core::{
    compile::checked_pattern,
    resource::{HeaderMatch, PathMatch, RouteMatch, ValueMatch},
};

use super::entries::{HttpMatch, ValueMatch as HeaderCondition};
use crate::names;

/// The conditions of a router's rule, one match for each method: methods are alternatives there.
///
/// # Errors
/// Says what of them cannot be said here.
pub(super) fn matches(http: &HttpMatch) -> Result<Vec<RouteMatch>, String> {
    if !http.query_param.is_empty() {
        return Err("QueryParam cannot be said".into());
    }
    let path = path(http)?;
    let headers: Vec<HeaderMatch> = http.header.iter().map(header).collect::<Result<_, _>>()?;
    let one = |method: Option<String>| RouteMatch { path: path.clone(), method, headers: headers.clone() };
    Ok(match &http.methods[..] {
        [] => vec![one(None)],
        methods => methods.iter().map(|method| one(Some(method.to_ascii_uppercase()))).collect(),
    })
}

/// A prefix of Consul's ends anywhere, ours at a slash: so it becomes an expression.
fn path(http: &HttpMatch) -> Result<Option<PathMatch>, String> {
    let fold = if http.case_insensitive { "(?i)" } else { "" };
    if !http.path_regex.is_empty() {
        return Ok(Some(PathMatch::Regex(checked_pattern(&http.path_regex)?)));
    }
    if !http.path_exact.is_empty() {
        return Ok(Some(match http.case_insensitive {
            true => PathMatch::Regex(format!("(?i){}", literal(&http.path_exact))),
            false => PathMatch::Exact(http.path_exact.clone()),
        }));
    }
    Ok(match http.path_prefix.as_str() {
        "" | "/" => None,
        prefix => Some(PathMatch::Regex(format!("{fold}{}.*", literal(prefix)))),
    })
}

fn header(condition: &HeaderCondition) -> Result<HeaderMatch, String> {
    let name = condition.name.to_ascii_lowercase();
    let fold = if condition.ignore_case { "(?i)" } else { "" };
    let value = if !condition.exact.is_empty() && fold.is_empty() {
        ValueMatch::Exact(condition.exact.clone())
    } else if !condition.exact.is_empty() {
        ValueMatch::Regex(format!("{fold}{}", literal(&condition.exact)))
    } else if !condition.prefix.is_empty() {
        ValueMatch::Regex(format!("{fold}{}.*", literal(&condition.prefix)))
    } else if !condition.suffix.is_empty() {
        ValueMatch::Regex(format!("{fold}.*{}", literal(&condition.suffix)))
    } else if !condition.contains.is_empty() {
        ValueMatch::Regex(format!("{fold}.*{}.*", literal(&condition.contains)))
    } else if !condition.regex.is_empty() {
        ValueMatch::Regex(checked_pattern(&condition.regex)?)
    } else {
        ValueMatch::Present(condition.present != condition.invert)
    };
    if condition.invert && !matches!(value, ValueMatch::Present(_)) {
        return Err(format!("that the header {} has not some value cannot be said", names::quoted(&name)));
    }
    Ok(HeaderMatch { name, value })
}

/// A text as an expression that matches it alone.
fn literal(text: &str) -> String {
    let mut expression = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(letter) {
            expression.push('\\');
        }
        expression.push(letter);
    }
    expression
}
