//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>), level 1: `traceparent` is read strictly, continued or
//! started, and `tracestate` lives and dies with it.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Seen, Survey, hex};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;

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
        let context = Self::next(received);
        if let Ok(mut value) = HeaderValue::from_bytes(&context.to_text()) {
            // As with the request's ID: HPACK would index it in vain.
            value.set_sensitive(true);
            // In place where it can be: an insertion makes room first, and that may move the whole map.
            match headers.get_mut(TRACEPARENT).filter(|_| received.is_some()) {
                Some(place) => *place = value,
                None => drop(headers.insert(TRACEPARENT, value)),
            }
        }
        context
    }

    /// The context of this hop: a new span in the trace of what was received, or in a new one.
    #[must_use]
    pub fn next(received: Option<Self>) -> Self {
        let span = fastrand::u64(1..);
        match received {
            Some(received) => Self { parent: received.span, span, ..received },
            None => Self { trace: fastrand::u128(1..), parent: 0, span, flags: SAMPLED },
        }
    }

    /// Reads a `traceparent`; its span becomes [`span`](Self::span). A version above 00 may be longer (§4.3).
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let [version] = hex::read(&known[..2])?;
        let longer_is_fine = version > 0 && rest.first() == Some(&b'-');
        let separated = [2, 35, 52].iter().all(|&place| known[place] == b'-');
        if version == 0xff || !(rest.is_empty() || longer_is_fine) || !separated {
            return None;
        }
        let trace = u128::from_be_bytes(hex::read(&known[3..35])?);
        let span = u64::from_be_bytes(hex::read(&known[36..52])?);
        let [flags] = hex::read(&known[53..55])?;
        (trace != 0 && span != 0).then_some(Self { trace, parent: 0, span, flags })
    }

    /// The `traceparent` for the next hop, in version 00.
    #[must_use]
    pub fn to_text(&self) -> [u8; LENGTH] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hex::write(&mut text[3..35], &self.trace.to_be_bytes());
        hex::write(&mut text[36..52], &self.span.to_be_bytes());
        hex::write(&mut text[53..55], &[self.flags]);
        text
    }

    /// The trace ID as text.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        let mut text = [0; 32];
        hex::write(&mut text, &self.trace.to_be_bytes());
        TraceId(text)
    }
}

fn received(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    TraceContext::parse(value.as_bytes())
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
