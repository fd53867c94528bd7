//! Which host a request is for, and whether it says so unambiguously.

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderValue, Method, Version,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    request::Parts,
    uri::{Authority, Scheme},
};

use super::{Seen, Survey};
use crate::fault::Fault;

/// The host that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    /// Lower case, without a final dot; an IPv6 address without its brackets.
    pub name: Cow<'a, str>,
    /// The port, if one is named.
    pub port: Option<u16>,
}

/// Refuses a request whose destination or length two parsers could read differently, and says which host it is for:
/// that of an absolute URI or `:authority`, else of `Host`.
///
/// In HTTP/1.1 an absolute URI overrides `Host`, which the caller of this function must then replace (RFC 9112 §3.2.2);
/// in HTTP/2 the two must agree (RFC 9113 §8.3.1).
///
/// A method that policies cannot name is refused as well: one in lower case, and CONNECT. A fault among the extensions is
/// a flaw of the head that was found before.
///
/// # Errors
/// [`Fault::NoHost`], [`Fault::BadHost`], [`Fault::AmbiguousLength`] or [`Fault::BadRequest`].
pub fn admit<'a>(parts: &'a Parts, survey: Survey) -> Result<Host<'a>, Fault> {
    if let Some(flaw) = parts.extensions.get::<Fault>() {
        return Err(*flaw);
    }
    // Methods are case-sensitive (RFC 9110 §9.1), but there are applications to which `delete` is DELETE. Policies speak of
    // upper case only.
    if parts.method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err(Fault::BadRequest);
    }
    // What follows the answer to it would not be HTTP (RFC 9110 §9.3.6).
    if parts.method == Method::CONNECT {
        return Err(Fault::BadRequest);
    }
    // RFC 9112 §3.2.4.
    if parts.uri.path() == "*" && parts.method != Method::OPTIONS {
        return Err(Fault::BadRequest);
    }
    check_length(&parts.headers, parts.version, survey)?;
    let host = host_field(parts, survey)?;
    let is_http1 = parts.version <= Version::HTTP_11;
    let Some(authority) = parts.uri.authority() else {
        return Host::parse(host.ok_or(Fault::NoHost)?);
    };
    if is_http1 && parts.uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTP) {
        return Err(Fault::BadRequest);
    }
    if !is_http1 && host.is_some_and(|host| !same_authority(host, authority)) {
        return Err(Fault::BadHost);
    }
    Host::parse(authority.as_str())
}

/// The host as a request names it: `:authority` or that of an absolute URI, else `Host`.
#[must_use]
pub fn named_host(parts: &Parts) -> Option<HeaderValue> {
    match parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => parts.headers.get(HOST).cloned(),
    }
}

fn same_authority(host: &str, authority: &Authority) -> bool {
    host.eq_ignore_ascii_case(authority.as_str())
}

/// The one `Host` field. HTTP/1.1 must have it (RFC 9112 §3.2).
fn host_field(parts: &Parts, survey: Survey) -> Result<Option<&str>, Fault> {
    if !survey.has(Seen::Host) {
        return if parts.version == Version::HTTP_11 { Err(Fault::NoHost) } else { Ok(None) };
    }
    if survey.has_repeated() && parts.headers.get_all(HOST).iter().nth(1).is_some() {
        return Err(Fault::BadHost);
    }
    let value = parts.headers.get(HOST).ok_or(Fault::NoHost)?;
    value.to_str().map(Some).map_err(|_| Fault::BadHost)
}

/// One `chunked`, or one length, or neither: all else is read differently by some (RFC 9112 §6.3).
fn check_length(headers: &HeaderMap, version: Version, survey: Survey) -> Result<(), Fault> {
    if survey.has(Seen::TransferEncoding) {
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let is_chunked =
            codings.next().is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
        let alone = codings.next().is_none() && !survey.has(Seen::ContentLength);
        if !(is_chunked && alone && version == Version::HTTP_11) {
            return Err(Fault::AmbiguousLength);
        }
    }
    let repeated_length = survey.has_repeated() && headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some();
    if repeated_length { Err(Fault::AmbiguousLength) } else { Ok(()) }
}

impl<'a> Host<'a> {
    /// Reads `name`, `name:port`, `[address]` or `[address]:port`.
    ///
    /// # Errors
    /// [`Fault::BadHost`] for what is not a host name of letters, digits, `.`, `-` and `_`, nor an address: no user
    /// information, no percent-encoding.
    pub fn parse(text: &'a str) -> Result<Self, Fault> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']').ok_or(Fault::BadHost)?;
                address.parse::<std::net::Ipv6Addr>().map_err(|_| Fault::BadHost)?;
                (address, after.strip_prefix(':').or(after.is_empty().then_some("")).ok_or(Fault::BadHost)?)
            }
            None => {
                let (name, port) = text.split_once(':').unwrap_or((text, ""));
                (check_name(name.strip_suffix('.').unwrap_or(name))?, port)
            }
        };
        let has_upper = name.bytes().any(|b| b.is_ascii_uppercase());
        let name = if has_upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) };
        Ok(Self { name, port: parse_port(port)? })
    }
}

fn check_name(name: &str) -> Result<&str, Fault> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b'_';
    match name {
        "" => Err(Fault::NoHost),
        _ if name.len() <= 253 && name.bytes().all(allowed) => Ok(name),
        _ => Err(Fault::BadHost),
    }
}

/// Digits only: `u16`'s own parser would take a sign.
fn parse_port(text: &str) -> Result<Option<u16>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::BadHost);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(Fault::BadHost),
        Ok(port) => Ok(Some(port)),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    /// Version, target and fields of a request, and what is to come of it.
    type Case<W> = (Version, &'static str, &'static [(&'static str, &'static str)], W);

    fn parts(version: Version, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut builder = Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn admitted(version: Version, uri: &str, headers: &[(&str, &str)]) -> Result<String, Fault> {
        let parts = parts(version, uri, headers);
        let host = admit(&parts, Survey::of(&parts.headers))?;
        Ok(format!("{} {:?}", host.name, host.port))
    }

    #[test]
    fn hosts_are_found_and_put_into_one_form() {
        let cases: [Case<&str>; 9] = [
            (Version::HTTP_11, "/", &[("host", "reviews")], "reviews None"),
            (
                Version::HTTP_11,
                "/",
                &[("host", "Reviews.Default.mesh.:8080")],
                "reviews.default.mesh Some(8080)",
            ),
            (Version::HTTP_11, "/", &[("host", "reviews:")], "reviews None"),
            (Version::HTTP_11, "/", &[("host", "[::1]:80")], "::1 Some(80)"),
            (Version::HTTP_11, "/", &[("host", "[::1]")], "::1 None"),
            (Version::HTTP_11, "http://a:1/", &[("host", "b")], "a Some(1)"),
            (Version::HTTP_10, "http://a/", &[], "a None"),
            (Version::HTTP_2, "https://a/", &[], "a None"),
            (Version::HTTP_2, "http://a:80/", &[("host", "A:80")], "a Some(80)"),
        ];
        for (version, uri, headers, wanted) in cases {
            assert_eq!(admitted(version, uri, headers).as_deref(), Ok(wanted), "{uri} {headers:?}");
        }
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        use Fault::{AmbiguousLength, BadHost, BadRequest, NoHost};
        const HOST: (&str, &str) = ("host", "a");
        let cases: [Case<Fault>; 19] = [
            (Version::HTTP_11, "/", &[], NoHost),
            (Version::HTTP_10, "/", &[], NoHost),
            (Version::HTTP_2, "/", &[], NoHost),
            (Version::HTTP_11, "http://a/", &[], NoHost),
            (Version::HTTP_11, "/", &[("host", "")], NoHost),
            (Version::HTTP_11, "/", &[HOST, ("host", "b")], BadHost),
            (Version::HTTP_11, "/", &[HOST, HOST], BadHost),
            (Version::HTTP_11, "/", &[("host", "a b")], BadHost),
            (Version::HTTP_11, "/", &[("host", "u@a")], BadHost),
            (Version::HTTP_11, "/", &[("host", "a:80:90")], BadHost),
            (Version::HTTP_11, "/", &[("host", "a:+80")], BadHost),
            (Version::HTTP_11, "/", &[("host", "a:65536")], BadHost),
            (Version::HTTP_11, "/", &[("host", "[a]")], BadHost),
            (Version::HTTP_2, "http://a/", &[("host", "b")], BadHost),
            (Version::HTTP_11, "https://a/", &[HOST], BadRequest),
            (Version::HTTP_11, "/", &[HOST, ("transfer-encoding", "chunked, chunked")], AmbiguousLength),
            (Version::HTTP_11, "/", &[HOST, ("transfer-encoding", "gzip")], AmbiguousLength),
            (
                Version::HTTP_11,
                "/",
                &[HOST, ("transfer-encoding", "chunked"), ("content-length", "1")],
                AmbiguousLength,
            ),
            (
                Version::HTTP_11,
                "/",
                &[HOST, ("content-length", "1"), ("content-length", "1")],
                AmbiguousLength,
            ),
        ];
        for (version, uri, headers, wanted) in cases {
            assert_eq!(admitted(version, uri, headers), Err(wanted), "{version:?} {uri} {headers:?}");
        }
    }

    #[test]
    fn methods_are_what_policies_speak_of() {
        for (method, wanted) in [
            ("GET", Ok(())),
            ("M-SEARCH", Ok(())),
            ("delete", Err(Fault::BadRequest)),
            ("GEt", Err(Fault::BadRequest)),
            ("CONNECT", Err(Fault::BadRequest)),
        ] {
            let (parts, ()) =
                http::Request::builder().method(method).header("host", "a").body(()).unwrap().into_parts();
            assert_eq!(admit(&parts, Survey::of(&parts.headers)).map(|_| ()), wanted, "{method}");
        }
    }

    #[test]
    fn one_chunked_is_fine() {
        let headers = [("host", "a"), ("transfer-encoding", "Chunked")];
        assert!(admitted(Version::HTTP_11, "/", &headers).is_ok());
        assert_eq!(admitted(Version::HTTP_10, "/", &headers), Err(Fault::AmbiguousLength));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            if let Ok(host) = Host::parse(&text) {
                prop_assert!(!host.name.is_empty());
                prop_assert!(!host.name.bytes().any(|b| b.is_ascii_uppercase() || b == b'@' || b == b'/'));
            }
        }
    }
}
