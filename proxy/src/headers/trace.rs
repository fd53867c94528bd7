//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>), level 1: `traceparent` is read strictly, continued or
//! started, and `tracestate` lives and dies with it.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Seen, Survey};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Where a request stands in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace, not 0.
    pub trace: u128,
    /// The caller's span; 0 when the trace begins here.
    pub parent: u64,
    /// This hop's span, not 0.
    pub span: u64,
    /// The flags as received; sampled when the trace begins here.
    pub flags: u8,
}

/// A trace ID as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId([u8; 32]);

impl TraceId {
    /// 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl TraceContext {
    /// Continues the trace of a request with a span of this hop, or starts one, and writes it into the headers. A
    /// `traceparent` that is malformed or repeated starts a new trace, without the old one's `tracestate`.
    #[must_use]
    pub fn advance(headers: &mut HeaderMap, survey: Survey) -> Self {
        let received = survey.has(Seen::TraceParent).then(|| received(headers)).flatten();
        if received.is_none() && survey.has(Seen::TraceState) {
            headers.remove(TRACESTATE);
        }
        let context = match received {
            Some(received) => Self { parent: received.span, span: random_span(), ..received },
            None => Self { trace: fastrand::u128(1..), parent: 0, span: random_span(), flags: SAMPLED },
        };
        if let Ok(value) = HeaderValue::from_bytes(&context.to_text()) {
            headers.insert(TRACEPARENT, value);
        }
        context
    }

    /// Reads a `traceparent`; its span becomes [`span`](Self::span). A version above 00 may be longer (§4.3).
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let &[v0, v1, b'-', ref body @ ..] = known else { return None };
        let version = hex(&[v0, v1])?;
        let longer_is_fine = version > 0 && rest.first() == Some(&b'-');
        if version == 0xff || !(rest.is_empty() || longer_is_fine) || body[32] != b'-' || body[49] != b'-' {
            return None;
        }
        let (trace, span) = (hex(&body[..32])?, u64::try_from(hex(&body[33..49])?).ok()?);
        let flags = u8::try_from(hex(&body[50..52])?).ok()?;
        (trace != 0 && span != 0).then_some(Self { trace, parent: 0, span, flags })
    }

    /// The `traceparent` for the next hop, in version 00.
    #[must_use]
    pub fn to_text(&self) -> [u8; LENGTH] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], self.trace);
        write_hex(&mut text[36..52], self.span.into());
        write_hex(&mut text[53..55], self.flags.into());
        text
    }

    /// The trace ID as text.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        let mut text = [0; 32];
        write_hex(&mut text, self.trace);
        TraceId(text)
    }
}

fn received(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    TraceContext::parse(value.as_bytes())
}

fn random_span() -> u64 {
    fastrand::u64(1..)
}

/// Lower case only, as the specification has it; at most 32 digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

fn write_hex(place: &mut [u8], mut number: u128) {
    for digit in place.iter_mut().rev() {
        *digit = HEX[(number & 0xf) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn advanced(fields: &[(&'static str, &str)]) -> (TraceContext, HeaderMap) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let survey = Survey::of(&headers);
        (TraceContext::advance(&mut headers, survey), headers)
    }

    #[test]
    fn a_trace_is_continued_with_a_new_span() {
        let (context, headers) = advanced(&[("traceparent", PARENT), ("tracestate", "a=1")]);
        assert_eq!(context.trace_id().as_str(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.parent, 0xb7ad_6b71_6920_3331);
        assert_ne!(context.span, context.parent);
        assert_eq!(TraceContext::parse(headers[TRACEPARENT].as_bytes()).unwrap().span, context.span);
        assert_eq!(headers[TRACESTATE], "a=1");
    }

    #[test]
    fn what_is_malformed_starts_a_new_trace() {
        let upper = PARENT.to_uppercase();
        let longer = format!("{PARENT}-01");
        let cases = [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331.01",
            "0000000000000000000000000000000000000000000000000000000",
            &upper,
            &longer,
        ];
        for case in cases {
            let (context, headers) = advanced(&[("traceparent", case), ("tracestate", "a=1")]);
            assert_eq!(context.parent, 0, "{case}");
            assert!(!headers.contains_key(TRACESTATE), "{case}");
            assert_eq!(headers.get_all(TRACEPARENT).iter().count(), 1);
        }
        assert_eq!(advanced(&[("traceparent", PARENT), ("traceparent", PARENT)]).0.parent, 0);
    }

    #[test]
    fn later_versions_are_read_as_far_as_we_know_them() {
        let later = format!("cc{}-what-comes", &PARENT[2..]);
        assert_eq!(advanced(&[("traceparent", &later)]).0.parent, 0xb7ad_6b71_6920_3331);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(trace in 1u128.., span in 1u64.., flags: u8) {
            let context = TraceContext { trace, parent: 0, span, flags };
            prop_assert_eq!(TraceContext::parse(&context.to_text()), Some(context));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = TraceContext::parse(&bytes);
        }
    }
}
