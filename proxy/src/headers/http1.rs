//! What a request must say otherwise in HTTP/1.1 than in HTTP/2.

use http::{
    HeaderMap, HeaderValue,
    header::{CONNECTION, COOKIE, TE},
};

/// Joins cookies that came in several fields (RFC 9113 §8.2.3): most applications read the first field only. Names `te`
/// in `connection`, where it must stand (RFC 9110 §10.1.4).
///
/// `connection` is replaced: what the caller's own said is gone by now.
pub fn fit_http1(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if let (Some(first), Some(second)) = (cookies.next(), cookies.next()) {
        let mut joined = first.as_bytes().to_vec();
        for cookie in std::iter::once(second).chain(cookies) {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(cookie.as_bytes());
        }
        if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
            headers.insert(COOKIE, joined);
        }
    }
    if headers.contains_key(TE) {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_become_one_field() {
        let mut headers = HeaderMap::new();
        fit_http1(&mut headers);
        assert!(headers.is_empty());
        for (cookie, whole) in [("a=1", "a=1"), ("b=2", "a=1; b=2"), ("c=3; d=4", "a=1; b=2; c=3; d=4")] {
            headers.append(COOKIE, HeaderValue::from_static(cookie));
            fit_http1(&mut headers);
            assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), [whole]);
        }
    }

    #[test]
    fn te_is_named() {
        let mut headers = HeaderMap::new();
        headers.insert(TE, HeaderValue::from_static("trailers"));
        fit_http1(&mut headers);
        assert_eq!(headers[CONNECTION], "te");
    }
}
