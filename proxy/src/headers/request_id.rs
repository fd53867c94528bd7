//! `x-request-id`: one name for a request in the logs of all it passes.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Seen, Survey, hex};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest ID that is kept.
const MAX_LENGTH: usize = 128;

/// The ID of a request, for its log line.
#[derive(Clone, Debug)]
pub struct RequestId(Form);

#[derive(Clone, Debug)]
enum Form {
    Made([u8; 36]),
    Kept(HeaderValue),
}

impl RequestId {
    /// Keeps the ID that the request has, if it is 1 to 128 visible ASCII characters, else gives it a new one: a
    /// random UUID (RFC 9562, version 4). No other request has it, so HPACK is told not to index it (RFC 7541
    /// §7.1.3): it would only push out of the table what requests have in common.
    #[must_use]
    pub fn ensure(headers: &mut HeaderMap, survey: Survey) -> Self {
        if survey.has(Seen::RequestId)
            && let Some(value) = headers.get_mut(REQUEST_ID)
            && is_sound(value)
        {
            value.set_sensitive(true);
            return Self(Form::Kept(value.clone()));
        }
        let text = uuid(fastrand::u128(..));
        if let Ok(mut value) = HeaderValue::from_bytes(&text) {
            value.set_sensitive(true);
            headers.insert(REQUEST_ID, value);
        }
        Self(Form::Made(text))
    }

    /// The ID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = match &self.0 {
            Form::Made(text) => text,
            Form::Kept(value) => value.as_bytes(),
        };
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

fn is_sound(value: &HeaderValue) -> bool {
    (1..=MAX_LENGTH).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn uuid(random: u128) -> [u8; 36] {
    let bits = random & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let bytes = bits.to_be_bytes();
    let mut text = [b'-'; 36];
    let groups = [(0..8, 0..4), (9..13, 4..6), (14..18, 6..8), (19..23, 8..10), (24..36, 10..16)];
    for (place, part) in groups {
        hex::write(&mut text[place], &bytes[part]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ensured(value: Option<&'static str>) -> (String, HeaderMap) {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(REQUEST_ID, HeaderValue::from_static(value));
        }
        let survey = Survey::of(&headers);
        (RequestId::ensure(&mut headers, survey).as_str().to_owned(), headers)
    }

    #[test]
    fn a_sound_id_is_kept() {
        let (id, headers) = ensured(Some("abc-1"));
        assert_eq!((id.as_str(), headers[REQUEST_ID].to_str().unwrap()), ("abc-1", "abc-1"));
    }

    #[test]
    fn a_missing_or_strange_id_is_replaced() {
        for value in [None, Some(""), Some("a b")] {
            let (id, headers) = ensured(value);
            assert_eq!(id.len(), 36);
            assert_eq!(headers[REQUEST_ID], id.as_str());
        }
    }

    #[test]
    fn new_ids_are_version_4_uuids() {
        assert_eq!(&uuid(0), b"00000000-0000-4000-8000-000000000000");
        assert_eq!(&uuid(u128::MAX), b"ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
