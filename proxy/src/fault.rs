//! What can go wrong between a caller and an application, as a closed list.
//!
//! A [`Fault`] knows whose it is, whether the request may be tried again, and what the caller gets for it. All of that
//! stands in one exhaustive match, [`Fault::facts`], so that status, response flag, metric label and retry rule of a
//! fault cannot drift apart. The response names its fault in the header `x-weft-fault`: towards another agent always
//! (it decides on it whether to try elsewhere; see [`Fault::named`]), towards applications unless that is turned off.

mod facts;
mod response;

pub use facts::{Facts, Grpc, Kind, Origin, RetryRule};
pub use response::{FAULT_HEADER, RULE_HEADER, named, named_rule, respond, strip};

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Everything that ends a request or a connection other than the application's own answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name in headers, logs and metrics.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// The fault with this label.
            #[must_use]
            pub fn from_label(label: &str) -> Option<Self> {
                match label {
                    $($label => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

faults! {
    /// The request has no host.
    NoHost = "no_host",
    /// The request names two hosts, or one that is not a host name.
    BadHost = "bad_host",
    /// The length of the body is ambiguous: a transfer coding other than one `chunked`, or a length beside it.
    AmbiguousLength = "ambiguous_length",
    /// The path has an invalid percent-encoding, a NUL or no leading slash.
    BadPath = "bad_path",
    /// The path has an encoded slash or backslash where rules on paths apply.
    EncodedSlash = "encoded_slash",
    /// The request breaks its protocol in another way.
    BadRequest = "bad_request",
    /// The header is larger than allowed.
    HeaderTooLarge = "header_too_large",
    /// The caller sent no complete request in time.
    CallerTooSlow = "caller_too_slow",
    /// The caller left before the answer.
    CallerGone = "caller_gone",
    /// The local process is not one that may use this listener.
    CallerRefused = "caller_refused",

    /// No service has this host name.
    NoDestination = "no_destination",
    /// The service has no such port.
    NoPort = "no_port",
    /// The routing rule leads nowhere.
    NoBackend = "no_backend",
    /// The service has no endpoint that could be asked.
    NoEndpoint = "no_endpoint",
    /// A policy refused the request; the rule is named beside it.
    Denied = "denied",
    /// An external authorization service refused the request.
    DeniedExternally = "denied_externally",
    /// The caller's certificate is no longer trusted.
    Untrusted = "untrusted",
    /// A local limit was reached.
    Overloaded = "overloaded",
    /// A rate limit was reached.
    RateLimited = "rate_limited",
    /// This agent drains and takes nothing new.
    Draining = "draining",
    /// Policy or trust is not known yet.
    NotReady = "not_ready",
    /// A fault of the agent itself.
    Internal = "internal",

    /// The endpoint refused the connection.
    ConnectRefused = "connect_refused",
    /// The connection could not be made for another reason.
    ConnectFailed = "connect_failed",
    /// The connection was not made in time.
    ConnectTimeout = "connect_timeout",
    /// The TLS handshake failed.
    TlsFailed = "tls_failed",
    /// Another identity answered than the one that was expected.
    WrongIdentity = "wrong_identity",
    /// No identity is known for an endpoint that requires TLS.
    NoIdentity = "no_identity",
    /// The other agent does not serve this destination.
    NotHere = "not_here",
    /// The other agent drains.
    PeerDraining = "peer_draining",
    /// The other agent wants another framing.
    WrongFraming = "wrong_framing",
    /// The other agent's policy refused the connection.
    PeerDenied = "peer_denied",
    /// The other agent is overloaded.
    PeerOverloaded = "peer_overloaded",
    /// The other agent does not trust us.
    PeerUntrusted = "peer_untrusted",
    /// The other agent did not understand the hello, or we not its answer.
    HelloFailed = "hello_failed",
    /// The request was not begun: a stale connection, REFUSED_STREAM, or GOAWAY above the last stream.
    NotDispatched = "not_dispatched",
    /// The connection broke before the response.
    ConnectionLost = "connection_lost",
    /// The peer did not answer a PING while requests waited.
    PeerSilent = "peer_silent",
    /// The stream was reset before the response.
    StreamReset = "stream_reset",
    /// The response breaks its protocol.
    BadResponse = "bad_response",
    /// The response did not begin in time.
    ResponseTimeout = "response_timeout",
    /// The response broke off after its head.
    ResponseCut = "response_cut",
}
