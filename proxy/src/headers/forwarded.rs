//! `x-forwarded-for`, `-proto` and `-host`: what the application cannot see for itself behind a proxy.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Seen, Survey};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The forwarding fields of one incoming connection, made once.
///
/// Only the receiving side sets them. On the calling side the peer is the workload itself, and its loopback address says
/// nothing; what the workload set, as a gateway does, is passed on.
#[derive(Clone, Debug)]
pub struct Forwarded {
    peer: HeaderValue,
}

impl Forwarded {
    /// For connections that come from `peer`. An IPv4 address mapped into IPv6 is written as IPv4.
    #[must_use]
    pub fn new(peer: IpAddr) -> Self {
        let text = peer.to_canonical().to_string();
        // Digits, dots, colons and hexadecimal digits always make a field value.
        Self { peer: HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("unknown")) }
    }

    /// Adds the peer to the end of `x-forwarded-for`; says which protocol and host the caller used unless it is said
    /// already. `host` is the value of `host` or `:authority`.
    pub fn apply(&self, headers: &mut HeaderMap, survey: Survey, host: Option<HeaderValue>) {
        let chain = if survey.has(Seen::ForwardedFor) { self.extended(headers) } else { self.peer.clone() };
        headers.insert(FOR, chain);
        if !survey.has(Seen::ForwardedProto) {
            headers.insert(PROTO, HeaderValue::from_static("http"));
        }
        if !survey.has(Seen::ForwardedHost)
            && let Some(host) = host
        {
            headers.insert(HOST, host);
        }
    }

    /// All lines of `x-forwarded-for` and the peer, in one.
    fn extended(&self, headers: &HeaderMap) -> HeaderValue {
        let mut chain = Vec::with_capacity(64);
        for value in headers.get_all(FOR) {
            chain.extend_from_slice(value.as_bytes());
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(self.peer.as_bytes());
        HeaderValue::from_bytes(&chain).unwrap_or_else(|_| self.peer.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(fields: &[(&'static str, &'static str)], peer: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let survey = Survey::of(&headers);
        let host = Some(HeaderValue::from_static("reviews"));
        Forwarded::new(peer.parse().unwrap()).apply(&mut headers, survey, host);
        headers
    }

    #[test]
    fn a_first_hop_says_all() {
        let headers = applied(&[], "10.0.0.1");
        assert_eq!(headers[FOR], "10.0.0.1");
        assert_eq!(headers[PROTO], "http");
        assert_eq!(headers[HOST], "reviews");
    }

    #[test]
    fn a_later_hop_adds_itself_and_keeps_the_rest() {
        let fields = [
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-for", "5.6.7.8"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
        ];
        let headers = applied(&fields, "::ffff:10.0.0.1");
        let chain: Vec<_> = headers.get_all(FOR).iter().collect();
        assert_eq!(chain, ["1.2.3.4, 5.6.7.8, 10.0.0.1"]);
        assert_eq!(headers[PROTO], "https");
        assert_eq!(headers[HOST], "shop.example");
    }
}
