//! The canonical form of [`weft_core::path`], for whole URIs.

use std::borrow::Cow;

use http::{Uri, uri::PathAndQuery};
use weft_core::path::PathFault;
pub use weft_core::path::{EncodedSlash, normalise};

use crate::fault::Fault;

/// Brings the path of `uri` into the canonical form; its query stays as it is. An empty path (a bare authority) is `/`.
///
/// # Errors
/// [`Fault::BadPath`] or [`Fault::EncodedSlash`], as [`normalise`] says.
pub fn normalise_uri(uri: &mut Uri, slashes: EncodedSlash) -> Result<(), Fault> {
    // `http://a?q` has the path `/`, and keeps the target `?q`, which is none.
    let has_path = uri.path_and_query().is_none_or(|target| !target.as_str().starts_with('?'));
    let path = match normalise(uri.path(), slashes).map_err(fault)? {
        Cow::Borrowed(_) if has_path => return Ok(()),
        path => path.into_owned(),
    };
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text).map_err(|_| Fault::BadPath)?);
    *uri = Uri::from_parts(parts).map_err(|_| Fault::BadPath)?;
    Ok(())
}

fn fault(fault: PathFault) -> Fault {
    match fault {
        PathFault::Malformed => Fault::BadPath,
        PathFault::EncodedSlash => Fault::EncodedSlash,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_keeps_its_query_and_authority() {
        for (before, after) in [
            ("http://a:1/x/../y?q=/../%2f", "http://a:1/y?q=/../%2f"),
            ("/x//y?", "/x/y?"),
            ("/x/y?q", "/x/y?q"),
            ("http://a", "http://a/"),
            ("*", "*"),
        ] {
            let mut uri: Uri = before.parse().unwrap();
            normalise_uri(&mut uri, EncodedSlash::Refuse).unwrap();
            assert_eq!(uri.to_string(), after);
        }
        for (before, target) in [("http://a?q=1", "/?q=1"), ("http://a", "/"), ("/?q", "/?q"), ("*", "*")] {
            let mut uri: Uri = before.parse().unwrap();
            normalise_uri(&mut uri, EncodedSlash::Keep).unwrap();
            assert_eq!(uri.path_and_query().unwrap().as_str(), target);
        }
        let mut bad: Uri = "/%zz".parse().unwrap();
        assert_eq!(normalise_uri(&mut bad, EncodedSlash::Keep), Err(Fault::BadPath));
    }
}
