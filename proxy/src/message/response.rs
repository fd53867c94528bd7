//! The head of a response (RFC 9112 §4 to §6), and what it says of the body that follows.
//!
//! A line of a head may end with LF alone, as small servers write it (RFC 9112 §2.2).

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
};

use super::{Malformed, chunks::Chunks};
use crate::headers::names;

/// How many bytes a head may have.
pub const MAX_HEAD: usize = 128 << 10;
/// How many fields it, or trailers, may have.
const FIELDS: usize = 128;

/// How the end of a body is found.
#[derive(Debug)]
pub enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// Chunk by chunk.
    Chunked(Box<Chunks>),
    /// It ends with the connection.
    UntilClose,
}

/// A head that was read.
#[derive(Debug)]
pub struct Head {
    /// The response without its body.
    pub response: Response<()>,
    /// How many bytes it took.
    pub length: usize,
    /// How its body ends.
    pub framing: Framing,
    /// Whether another request may follow on the connection.
    pub keeps_alive: bool,
}

/// Reads the head at the beginning of `bytes` of a response to `method`; nothing if there is more to come of it.
///
/// # Errors
/// That it is none.
pub fn parse_head(bytes: &Bytes, method: &Method) -> Result<Option<Head>, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let status = parsed.parse(bytes).map_err(|_| Malformed("the response's head cannot be read"))?;
    let httparse::Status::Complete(length) = status else { return Ok(None) };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Malformed("the response's status is none"))?;
    let persistent = parsed.version == Some(1);
    let mut headers = collect(bytes, parsed.headers)?;
    let keeps_alive = persistent && !names(&headers, &CONNECTION, "close");
    let framing = framing(&mut headers, status, method, persistent)?;
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = Version::HTTP_11;
    *response.headers_mut() = headers;
    let keeps_alive = keeps_alive && !matches!(framing, Framing::UntilClose);
    Ok(Some(Head { response, length, framing, keeps_alive }))
}

/// Reads fields that end with an empty line. Every line ends with CRLF.
///
/// # Errors
/// That they are none.
pub(super) fn fields(bytes: &Bytes) -> Result<HeaderMap, Malformed> {
    const MALFORMED: Malformed = Malformed("the trailers cannot be read");
    let bare = |at: usize| at == 0 || bytes[at - 1] != b'\r';
    if memchr::memchr_iter(b'\n', bytes).any(bare) {
        return Err(MALFORMED);
    }
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    match httparse::parse_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) if length == bytes.len() => collect(bytes, fields),
        _ => Err(MALFORMED),
    }
}

/// The fields as a map whose values lie where they were read.
fn collect(bytes: &Bytes, fields: &[httparse::Header<'_>]) -> Result<HeaderMap, Malformed> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(Malformed("a field of the response cannot be read"));
        };
        headers.append(name, value);
    }
    Ok(headers)
}

/// RFC 9112 §6.3. A length that stands more than once is left once. What could be read in two ways is refused.
fn framing(
    headers: &mut HeaderMap,
    status: StatusCode,
    method: &Method,
    persistent: bool,
) -> Result<Framing, Malformed> {
    let length = length(headers)?;
    let codings = headers.get_all(TRANSFER_ENCODING).iter().count();
    if status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || *method == Method::HEAD
    {
        return Ok(Framing::Length(0));
    }
    if codings == 0 {
        return Ok(length.map_or(Framing::UntilClose, Framing::Length));
    }
    let chunked = codings == 1
        && headers
            .get(TRANSFER_ENCODING)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    match (chunked && persistent, length) {
        (true, None) => Ok(Framing::Chunked(Box::default())),
        (true, Some(_)) => Err(Malformed("the response has a length and a transfer coding")),
        (false, _) => Err(Malformed("the response has a transfer coding that nobody asked for")),
    }
}

fn length(headers: &mut HeaderMap) -> Result<Option<u64>, Malformed> {
    const MALFORMED: Malformed = Malformed("the response's length is none, or more than one");
    let mut length = None;
    let mut stand = 0;
    for value in headers.get_all(CONTENT_LENGTH) {
        for text in value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            // `parse` would take a sign.
            if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
                return Err(MALFORMED);
            }
            let this = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
            let this = this.ok_or(MALFORMED)?;
            if length.is_some_and(|length| length != this) {
                return Err(MALFORMED);
            }
            length = Some(this);
            stand += 1;
        }
    }
    if let Some(length) = length.filter(|_| stand > 1) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, method: &Method) -> Result<Option<Head>, Malformed> {
        parse_head(&Bytes::copy_from_slice(text.as_bytes()), method)
    }

    fn ending(text: &str, method: &Method) -> String {
        let head = read(&format!("{text}\r\n\r\nrest"), method);
        match head.as_ref().map(|head| head.as_ref().map(|head| (&head.framing, head.keeps_alive))) {
            Ok(Some((Framing::Length(length), keeps_alive))) => format!("{length} {keeps_alive}"),
            Ok(Some((Framing::Chunked(_), keeps_alive))) => format!("chunked {keeps_alive}"),
            Ok(Some((Framing::UntilClose, keeps_alive))) => format!("close {keeps_alive}"),
            Ok(None) => "more".into(),
            Err(_) => "refused".into(),
        }
    }

    #[test]
    fn the_end_of_the_body_is_found() {
        for (text, wanted) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 7", "7 true"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 7", "7 true"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 7, 7", "7 true"),
            ("HTTP/1.1 200\r\ncontent-length: 7\r\nconnection: x, Close", "7 false"),
            ("HTTP/1.0 200 OK\r\ncontent-length: 7", "7 false"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked", "chunked true"),
            ("HTTP/1.1 200 OK", "close false"),
            ("HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked", "0 true"),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 7", "0 true"),
            ("HTTP/1.1 103 Early Hints\r\nlink: x", "0 true"),
        ] {
            assert_eq!(ending(text, &Method::GET), wanted, "{text:?}");
        }
        assert_eq!(ending("HTTP/1.1 200 OK\r\ncontent-length: 7", &Method::HEAD), "0 true");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 7\r\ncontent-length: 8",
            "HTTP/1.1 200 OK\r\ncontent-length: 7, 8",
            "HTTP/1.1 200 OK\r\ncontent-length: +7",
            "HTTP/1.1 200 OK\r\ncontent-length:",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999",
            "HTTP/1.1 200 OK\r\ncontent-length: 7\r\ntransfer-encoding: chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked",
            "HTTP/1.1 200 OK\r\ncontent-length : 7",
            "HTTP/1.1 200 OK\r\na: b\r\n c: d",
            "HTTP/1.1 099 Low",
            "HTTP/2 200 OK",
            "SSH-2.0-OpenSSH_9.2",
        ] {
            assert_eq!(ending(text, &Method::GET), "refused", "{text:?}");
        }
        let many = format!("HTTP/1.1 200 OK{}", "\r\na: b".repeat(FIELDS + 1));
        assert_eq!(ending(&many, &Method::GET), "refused");
    }

    #[test]
    fn a_length_stands_once_and_values_stay_as_they_are() {
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\nSet-Cookie: a\r\nset-cookie: \u{e9}\r\nempty:\r\n\r\nx";
        let head = read(text, &Method::GET).unwrap().unwrap();
        assert_eq!(head.length, text.len() - 1);
        let headers = head.response.headers();
        assert_eq!(headers[CONTENT_LENGTH], "1");
        let cookies: Vec<_> = headers.get_all("set-cookie").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(cookies, [&b"a"[..], "\u{e9}".as_bytes()]);
        assert_eq!(headers["empty"], "");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut text = b"HTTP/1.1 200 OK\r\n".to_vec();
            text.extend_from_slice(&bytes);
            text.extend_from_slice(b"\r\n\r\n");
            if let Ok(Some(head)) = parse_head(&Bytes::from(text.clone()), &Method::GET) {
                prop_assert!(head.length <= text.len());
            }
        }
    }
}
